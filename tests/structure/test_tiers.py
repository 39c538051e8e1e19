"""The two tiers of tests, and the row that a run of the larger tier writes."""

from types import SimpleNamespace

import pytest
import tiers


def run(markexpr="system", keyword="", collectonly=False, source=pytest.Config.ArgsSource.TESTPATHS):
    option = SimpleNamespace(markexpr=markexpr, keyword=keyword, collectonly=collectonly)
    return SimpleNamespace(option=option, args_source=source)


def test_only_a_complete_run_of_the_tier_writes_a_row(monkeypatch):
    rows = []
    monkeypatch.setattr(tiers, "write_results", lambda what, new: rows.append((what, new)))
    reporter = SimpleNamespace(stats={"passed": [1, 2]})
    for config in (
        run("not system"),
        run(keyword="kill"),
        run(collectonly=True),
        run(source=pytest.Config.ArgsSource.ARGS),
    ):
        tiers.record(reporter, config)
    assert rows == []
    tiers.record(reporter, run())
    ((what, (row,)),) = rows
    assert what == "system" and row["passed"] == 2 and row["failed"] == 0 and row["seconds"] > 0


def test_a_row_has_the_reasons_of_skipped_tests():
    skipped = [
        SimpleNamespace(longrepr=("x.py", 1, f"Skipped: {reason}")) for reason in ("no data", "no data", "no GPU")
    ]
    row = tiers.row_of({"skipped": skipped, "failed": [1], "error": [1]}, 1.26)
    assert row == {"passed": 0, "failed": 2, "skipped": 3, "why_skipped": {"no data": 2, "no GPU": 1}, "seconds": 1.3}
