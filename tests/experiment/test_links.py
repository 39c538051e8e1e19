"""No file is written through a link: a folder from someone else can contain links to other files."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest
from checkout import PACKAGES, ROOT
from chopmix.commands.cli import main
from chopmix.experiment.jobs import Job, run_jobs
from chopmix.files.reading import DataError
from chopmix.files.writing import open_for_append

IN_PLACE = {
    "chopmix/files/writing.py": "open_for_append, and partial files",
    "data/prepared.py": "files in a new folder",
    "data/tar_files.py": "a partial file",
    "data/tokenizing.py": "a partial file",
}
"""The source files that open files for writing by a path, and which files they write."""


def writes(call: ast.Call) -> bool:
    """Whether a call opens or copies a file for writing by its path."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = call.func.value.id if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name) else ""
    modes = [*call.args[1:2], *call.args[:1], *(word.value for word in call.keywords if word.arg == "mode")]
    mode = next((m.value for m in modes if isinstance(m, ast.Constant) and isinstance(m.value, str)), "")
    if name == "open":
        in_mode = set(mode) <= set("rwaxbt+") and bool(set(mode) & set("wax+"))
        return in_mode or (owner == "os" and "O_RDONLY" not in ast.dump(call))
    return (owner, name) in {("shutil", "copyfile"), ("shutil", "copy"), ("shutil", "copy2"), ("os", "truncate")}


def test_only_new_files_and_checked_files_are_opened_for_writing():
    paths = {}
    for folder in ("chopmix", *PACKAGES[1:], "projects"):
        for file in (ROOT / folder).rglob("*.py"):
            text = file.read_text()
            if "tests" not in file.parts and any(word in text for word in ("open(", "copy", "truncate")):
                calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
                if any(map(writes, calls)):
                    paths[file.relative_to(ROOT).as_posix()] = True
    assert set(paths) == set(IN_PLACE)


@pytest.mark.parametrize("kind", ["hard link", "symbolic link", "pipe", "folder"])
def test_links_are_not_written(tmp_path, kind):
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_text("mine")
    {"hard link": lambda: os.link(victim, path), "symbolic link": lambda: os.symlink(victim, path),
     "pipe": lambda: os.mkfifo(path), "folder": lambda: os.mkdir(path)}[kind]()  # fmt: skip
    messages = {"hard link": "has 2 hard links, so nothing is written into it; delete it, or use a copy of the folder",
                "pipe": "is not a regular file"}  # fmt: skip
    with pytest.raises((DataError, OSError), match=messages.get(kind, "cannot be written")):
        open_for_append(path)
    assert victim.read_text() == "mine"
    with open_for_append(tmp_path / "new") as file:
        file.write("a")
    with open_for_append(tmp_path / "new") as file:
        file.write("b")
    assert (tmp_path / "new").read_text() == "ab"


def test_no_command_writes_into_a_hard_link_of_a_run(tiny, tmp_path, capsys):
    """Every file of a run is a hard link to another file; commands on the run do not change these files."""
    assert main(["train", str(tiny()), "training.steps=4"]) == 0
    run, victims = tmp_path / "runs" / "tiny", tmp_path / "elsewhere"
    for name in (".lock", "evaluations.jsonl"):
        (run / name).write_text("mine\n")
    files = [file for file in run.rglob("*") if file.is_file()]
    for file in files:
        target = victims / file.relative_to(run)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, target)
    before = {file: file.read_bytes() for file in victims.rglob("*") if file.is_file()}
    assert len(before) > 8
    capsys.readouterr()
    assert main(["train", str(run), "training.steps=6"]) == 2
    assert f"{run / '.lock'} has 2 hard links, so nothing is written into it" in capsys.readouterr().err
    assert main(["evaluate", str(run)]) == 0
    assert "evaluations.jsonl has 2 hard links" in capsys.readouterr().err
    (run / ".lock").unlink()
    (run / "evaluations.jsonl").unlink()
    assert main(["train", str(run), "training.steps=6"]) == 0
    assert main(["report", str(run)]) == 0
    assert {file: file.read_bytes() for file in before} == before


def test_the_log_of_a_job_is_not_written_into_a_link(tiny, tmp_path):
    (tmp_path / "victim").write_text("mine")
    os.link(tmp_path / "victim", tmp_path / "a.log")
    with pytest.raises(DataError, match=r"a\.log has 2 hard links"):
        run_jobs([Job("a", [str(Path("x.yaml"))], tmp_path / "a.log")], 1, lambda number: None)
    assert (tmp_path / "victim").read_text() == "mine"
