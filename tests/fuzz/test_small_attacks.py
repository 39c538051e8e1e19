"""Small files from someone else are read within limits, and do not change the layout of tables, pages or terminals."""

import base64
import csv
import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.data.hub_files import readme_configurations
from chopmix.experiment.changes import Change, Setting, check_batch_size
from chopmix.experiment.figure_table import in_latex, markdown_lines
from chopmix.experiment.settings.document import PlainLoader
from chopmix.files.errors import RunError
from chopmix.files.plain_yaml import DIGITS, LONGEST, load_plain
from chopmix.inference.document import document
from hypothesis import given
from hypothesis import strategies as st


def aliases(depth: int) -> str:
    lists = [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, depth)]
    return "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x, x]", *lists, f"data_files: *a{depth - 1}"])


BOMBS = {
    "aliases": aliases(9),
    "merge keys": "a: &a {k: 1}\nb: {<<: [*a, *a]}",
    "long": "x: [" + "1," * LONGEST + "1]",
    "deep": "[" * 1000 + "]" * 1000,
    "sexagesimal": "1:" * 100_000 + "1",
    "decimal": "9" * 5000,
    "hexadecimal": "0x" + "f" * 5000,
    "float": "1." + "9" * 5000,
    "tag": "!!python/object/apply:os.system [ls]",
}


@pytest.mark.parametrize("name", BOMBS)
def test_yaml_from_someone_else_is_read_within_limits(name, tmp_path):
    start = time.process_time()
    with pytest.raises((yaml.YAMLError, ValueError)):
        load_plain(BOMBS[name])
    (tmp_path / "README.md").write_text(f"---\n{BOMBS[name]}\n---\n")
    assert readme_configurations(tmp_path / "README.md") == []
    assert time.process_time() - start < 5


@pytest.mark.parametrize("name", ["sexagesimal", "decimal", "hexadecimal"])
def test_a_long_number_of_a_setting_is_refused_with_its_line(name, tmp_path, capsys):
    (tmp_path / "a.yaml").write_text(f"out: run\ntraining: {{steps: {BOMBS[name]}}}")
    assert main(["train", str(tmp_path / "a.yaml")]) == 2
    message = capsys.readouterr().err
    assert "a.yaml:2  training.steps: must be a whole number of at least 1 or null" in message and len(message) < 2000
    assert yaml.load("a: " + "9" * DIGITS, PlainLoader) == {"a": int("9" * DIGITS)}


@given(st.text(max_size=12))
def test_a_name_is_one_cell_of_a_table(text):
    """A name with any characters stays in one cell, in Markdown and in LaTeX."""
    rows = markdown_lines([["metric", "runs"], [text, "1"]])
    assert len(rows) == 3 and all("\n" not in row and row.isprintable() for row in rows)
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", rows[2])) == 3
    assert not re.search(r"(?<!\\)(?:\\\\)*[<\[]", rows[2])
    assert "\n" not in in_latex(text) and in_latex(text).isprintable()


def test_only_the_script_of_a_page_is_executed():
    page = document("title", ["<p onclick='x()'>text</p>"], "explorer.js")
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'http-equiv=Content-Security-Policy content="([^"]*)"', page)[1]
    assert f"script-src 'sha256-{digest}'" in policy and "unsafe-inline" not in policy.split("script-src")[1]
    assert "script-src 'none'" in document("title", [])


@pytest.mark.parametrize("old, new", [("x", 4), (4, None), (True, 4), (4.5, 4), (0, 4), (4, [1]), (-1, 2)])
def test_numbers_of_samples_in_changes_json_are_not_used(tmp_path, old, new):
    change = Change(step=2, settings={"training.samples_per_step": Setting(old=old, new=new)})
    with pytest.raises(
        RunError, match="changed training.samples_per_step at step 2, which this version cannot continue"
    ):
        check_batch_size(tmp_path, [change])


@pytest.mark.system
def test_a_table_of_many_metrics_and_a_sweep_of_many_runs_are_fast(tmp_path, capsys):
    """A table of 20,000 metrics took 25 s, and a sweep of 300 entries that name one folder took 26 s."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        figures = {"step": 2} | {f"val/m{number}": number for number in range(20_000)}
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(figures) + "\n")
    start = time.process_time()
    main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(tmp_path / "a.csv")])
    capsys.readouterr()
    assert time.process_time() - start < 15
    assert len(list(csv.reader((tmp_path / "a.csv").read_text().splitlines()))) > 20_000


@pytest.mark.system
def test_a_wide_table_is_read_in_time(tmp_path, monkeypatch, capsys):
    """A table of 20,000 columns and 20 rows took more than a minute, because names were searched in lists."""
    monkeypatch.chdir(tmp_path)
    columns = 20_000
    rows = ["time," + ",".join(f"c{number}" for number in range(columns))]
    rows += [f"{row}," + ",".join(str((row * number) % 7 / 2) for number in range(columns)) for row in range(20)]
    Path("wide.csv").write_text("\n".join(rows) + "\n")
    start = time.process_time()
    assert main(["new", "table", "wide.csv"]) == 2
    assert "cannot be written as YAML: 419," in capsys.readouterr().err
    assert time.process_time() - start < 40


SLOW = """
import sys, time
from chopmix.commands import cli, predict
from pathlib import Path
from chopmix.files.writing import atomic_file

def run(options):
    with atomic_file(Path("a.csv")) as file:
        file.write("part")
        print("ready", flush=True)
        time.sleep(60)

predict.run = run
sys.exit(cli.main(["predict", "quickstart", "--output", "a.csv"]))
"""


def test_sigterm_deletes_the_incomplete_file_of_every_command(tmp_path):
    with subprocess.Popen([sys.executable, "-c", SLOW], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n" and len([*tmp_path.iterdir()]) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143 and [*tmp_path.iterdir()] == []
