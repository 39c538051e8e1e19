"""Comparison of runs: counts are shown as counts, and are no curves."""

import json

import pytest
from chopmix.experiment.compare import comparison_table, draw_curves, read_group


@pytest.fixture
def groups(tmp_path):
    """Two runs of two seeds each, with a loss, the number of items judged, and an accuracy that is 1 at the end."""
    for run in ("one", "two"):
        for seed in range(2):
            folder = tmp_path / run / f"seed-{seed}"
            folder.mkdir(parents=True)
            lines = [{"step": step, "seconds": 1.0, "val/loss": 2.0 - step + seed / 10, "val/accuracy": float(step),
                      "val/judged": 12345} for step in (0, 1)]  # fmt: skip
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [read_group(tmp_path / run) for run in ("one", "two")]


def test_counts_are_shown_as_counts(groups):
    table = comparison_table(groups)
    cells = {metric: row for metric, *row in zip(*(list(column.cells) for column in table.columns))}
    assert cells["val/judged"] == ["12,345", "12,345", "0"]
    assert cells["val/accuracy"] == ["1 ± 0 (2)", "1 ± 0 (2)", "0 ± 0 (2)"]
    assert cells["val/loss"][0] == "1.05 ± 0.071 (2)"


def test_counts_are_no_curves(groups, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr("matplotlib.axes.Axes.set", lambda self, **named: titles.append(named.get("title")))
    draw_curves(groups, tmp_path / "x.png")
    assert titles == ["val/loss", "val/accuracy"]
