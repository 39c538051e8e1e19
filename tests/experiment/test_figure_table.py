"""Tables of `chopmix compare`: the digits of numbers, values that are not finite, and the width of the terminal."""

import io
import json
import math
import os
import pty
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from chopmix.commands.cli import main
from chopmix.experiment.figure_table import Estimate, FigureTable
from chopmix.experiment.groups import read_group
from chopmix.inference.intervals import Interval
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console


@pytest.mark.parametrize(("values", "interval", "expected"), [
    ([0.6486], None, ["0.6486"]), ([1256, 1256], None, ["1,256"]),
    ([3, 4], None, ["3.50 ± 0.71 (2)", "{-2.85, 9.85}"]),
    ([0.9123, 0.9377, 0.901], Interval(0.8912, 0.93), ["0.9170 ± 0.0188 (3)", "[0.8912, 0.9300]", "{0.8703, 0.9637}"]),
    ([0.25], Interval(0.2, 0.3), ["0.250", "[0.200, 0.300]"]), ([1e-9], None, ["1e-09"]),
    ([2.3e-7, 2.5e-7], None, ["0.000000240 ± 0.000000014 (2)", "{0.000000113, 0.000000367}"]),
    ([1234.5, 1290.5], None, ["1262 ± 40 (2)", "{907, 1618}"]),
    ([-0.0001], Interval(-0.2, 0.2), ["0.00", "[-0.20, 0.20]"]),
    ([math.nan], None, ["nan"]), ([1.0, math.nan], None, ["nan ± nan (2)"]),
    ([math.inf, -math.inf], None, ["nan ± nan (2)"]),
    ([math.inf], None, ["inf"]), ([1.0, math.inf], None, ["inf ± nan (2)"]),
])  # fmt: skip
def test_a_number_has_only_the_digits_that_its_uncertainty_allows(values, interval, expected):
    """`0.6486 ± 0.18` would have digits without a meaning."""
    assert Estimate(values, interval).lines == expected


def test_values_that_are_not_finite_are_shown(tmp_path, monkeypatch, capsys):
    """`statistics.stdev` raises an error for such values."""
    monkeypatch.chdir(tmp_path)
    for seed, value in enumerate(("NaN", "1.5", "Infinity")):
        for name in ("a", "b"):
            folder = Path(name, f"seed-{seed}")
            folder.mkdir(parents=True)
            lines = [f'{{"step": {step}, "seconds": 1, "val/loss": {value}, "val/x": {step}.5}}' for step in (1, 2)]
            (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    outputs = [f"--output=t.{ending}" for ending in ("csv", "md", "tex")]
    assert main(["compare", "a", "b", *outputs]) == 0
    assert "nan" in capsys.readouterr().out and all(
        "nan" in Path(f"t.{end}").read_text() for end in ("csv", "md", "tex")
    )
    assert Path("t.png").stat().st_size > 1000 and not Path("compare.png").exists()
    assert main(["compare", "a", "b"]) == 0 and main(["compare", "a", "b"]) == 0
    assert "no curves: compare.png exists; --overwrite replaces it" in capsys.readouterr().out
    assert main(["compare", "a", "--picture", "compare.png"]) == 2
    assert [*read_group(Path("a")).values("val/loss").values()][1] == 1.5


def test_numbers_that_are_too_large_are_drawn_as_missing_or_refused(tmp_path, monkeypatch, capsys):
    """The curves of a run from someone else may contain such numbers."""
    monkeypatch.chdir(tmp_path)
    file = Path("a", "metrics.jsonl")
    file.parent.mkdir()
    file.write_text("".join(f'{{"step": {s}, "seconds": 1, "val/loss": {-1.7e308 * (-1) ** s}}}\n' for s in (1, 2)))
    assert main(["compare", "a", "--picture", "a.png"]) == 0
    assert "1.7e+308" in capsys.readouterr().out
    for line in (f'{{"step": {10**400}, "val/loss": 1}}', f'{{"step": 1, "val/loss": {10**400}}}'):
        file.write_text(line + "\n")
        assert main(["compare", "a"]) == 2
        assert "metrics.jsonl, line 1: expected a mapping from names to numbers, integers" in capsys.readouterr().err


NAMES = ["val/diagnosis/balanced_accuracy", "val/diagnosis/accuracy", "val/a_task_with_a_long_name/root_mean_square"]
RATES = [f"learning_rate={rate} depth={depth}" for rate in ("0.001", "0.005", "0.0003") for depth in (3, 12)]


@pytest.mark.system
def test_nothing_is_cut_on_a_terminal_of_80_columns(tmp_path):
    """The titles of the columns of a sweep are wrapped, not shortened to `learning_rate=0.…`."""
    out, runs = tmp_path / "rates", []
    for number, rate in enumerate(RATES):
        for seed in (0, 1):
            folder = f"{rate.replace(' ', ',')}/seed-{seed}"
            (out / folder).mkdir(parents=True)
            metrics = dict.fromkeys(NAMES, 0.1234 + number / 7 + seed / 100)
            (out / folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "seconds": 1.0, **metrics}) + "\n")
            setting = [f"training.{rate.split()[0]}", f"model.{rate.split()[1]}"]
            runs.append({"folder": folder, "setting": setting, "seed": seed, "fold": None, "metrics": {}})
    (out / "sweep.json").write_text(json.dumps({"format": 1, "config": "x.yaml", "best": NAMES[1], "runs": runs}))
    shown = on_terminal(["compare", str(out)], 80, tmp_path)
    lines = shown.splitlines()
    table = [line for line in lines if line[:1] in "│┃"]
    assert len(table) > 20 and all(width_of(line) <= 80 for line in table) and "…" not in shown
    assert sum(line.startswith("┏") for line in lines) >= 5  # blocks below each other
    for number in range(len(RATES)):
        mean = 0.1234 + number / 7 + 0.005
        assert shown.count(f"{mean:.4f} ± 0.0071 (2)") == len(NAMES)
    words = " ".join(re.split(r"[│┃\s]+", shown))
    assert all(word in words for rate in RATES for word in rate.split())
    assert all(part in shown for name in NAMES for part in name.split("/"))


def on_terminal(words: list[str], columns: int, folder: Path) -> str:
    """The output of a command on a terminal of this width."""
    leader, follower = pty.openpty()
    os.set_blocking(leader, True)
    environment = os.environ | {"COLUMNS": str(columns), "LINES": "40", "TERM": "xterm", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "chopmix.commands.cli", *words]
    with subprocess.Popen(command, stdout=follower, stderr=subprocess.PIPE, env=environment, cwd=folder) as process:
        os.close(follower)
        content = b""
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            content += part
        errors = process.stderr.read()
    os.close(leader)
    assert process.returncode == 0, errors
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", content.decode()).replace("\r\n", "\n")


JOINED = re.compile("[\u1160-\u11ff\u3164\ud7b0-\ud7ff\uffa0]")
"""Hangul vowels and final consonants, which a terminal draws into the letter before them, and their fillers."""


def width_of(line: str) -> int:
    letters = JOINED.sub("", line)
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in letters)


@settings(max_examples=60)
@example(["0", "0", "\u1160"], 60, 0.0)  # has no width
@given(
    st.lists(st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=60), min_size=1, max_size=6),
    st.integers(60, 200), st.floats(-1e9, 1e9),
)  # fmt: skip
def test_no_letter_of_a_name_is_lost(names, width, value):
    table = FigureTable(names, [("val/loss", [Estimate([value], Interval(value - 1, value + 1))] * len(names))])
    console = Console(width=width, record=True, file=io.StringIO())
    table.print(console)
    text = console.export_text()
    assert all(width_of(line) <= width for line in text.splitlines() if line[:1] in "│┃┏└├┡")
    shown = sorted(letter for letter in text if not letter.isspace())
    for letter in "".join(names):
        if not letter.isspace():
            shown.remove(letter)
