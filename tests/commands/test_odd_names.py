"""Names of runs, files and settings are printed unchanged: markup and emoji of rich have no effect, and control
characters of a terminal are escaped."""

import io
import re
import shutil

import numpy as np
import pytest
import yaml
from checkout import ROOT
from chopmix.commands.cli import command_modules, main
from chopmix.files.printing import plain_console
from chopmix.training.progress import Progress
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.table import Table

NAMES = ["a[/red]", ":dog:[red]x"]
MODEL = {"width": 16, "depth": 1, "heads": 2, "context": 32}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with runs of odd names: copies of one that classifies pictures and of one that writes texts."""
    folder = tmp_path_factory.mktemp("odd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        for number in range(8):
            file = folder / "classes" / ("dark", "light")[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 20 + 100 * (number % 2) + number, dtype=np.uint8)).save(file)
        pictures = {"use": "image_folder", "train": "classes", "val": "classes"}
        shades = {
            "inputs": {"image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8}}, "model": MODEL,
            "tasks": {"shade": {"use": "classification", "target": "label"}}, "data": {"dataset": pictures},
            "training": {"steps": 2, "samples_per_step": 4}, "logging": {"tensorboard": False},
        }  # fmt: skip
        (folder / "text.txt").write_text("chop up everything and throw it into the mix " * 20)
        text = {"use": "text", "train": "text.txt"}
        texts = {
            "inputs": {"text": {"use": "text", "encoding": "characters"}}, "model": MODEL | {"context": 16},
            "tasks": {"lm": {"use": "language_modeling", "target": "text"}}, "data": {"dataset": text},
            "training": {"steps": 2, "tokens_per_step": 64}, "logging": {"tensorboard": False},
        }  # fmt: skip
        for name, tree in (("shades", shades), ("texts", texts)):
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree))
            assert main(["train", f"{name}.yaml", f"out={name}"]) == 0
            for odd in NAMES:
                shutil.copytree(folder / name, folder / f"{name}-{odd}")
    return folder


SHOWN = "SHOWN"
COMMANDS = {
    "train": ["train", "shades.yaml", "out=NEW"],
    "train again": ["train", "shades.yaml", "out=shades-NAME"],
    "train --dry-run": ["train", "shades.yaml", "--dry-run", "out=NEW"],
    "train --sweep": ["train", "shades.yaml", "--sweep", "out=NEW,NEW-b", "--seeds", "0"],
    "prepare": ["prepare", "shades.yaml", "out=NAME"],
    "evaluate": ["evaluate", "shades-NAME", "--subsets"],
    "generate": ["generate", "texts-NAME", "--prompt", "chop", "--max-tokens", "2"],
    "predict": ["predict", "shades-NAME", "--input", "image=classes/dark/0.png"],
    "evaluate --report": ["evaluate", "shades-NAME", "--report", "NEW", "--output", "NEW.jsonl"],
    "predict --data": ["predict", "shades-NAME", "--data", "classes", "--output", "NEW.csv", "--shard", "0/1"],
    "baselines": ["baselines", "shades-NAME", "--limit", "0.01", "--json", "NEW.json"],
    "merge": ["merge", "NEW-merged.csv", "NEW.csv"],
    "forecast": ["forecast", "shades-NAME"],
    "compare": ["compare", "shades-NAME", "texts-NAME", "shades"],
    "embed": ["embed", "shades-NAME", "--input", "image=classes/dark/0.png", "--output", "NEW.npy"],
    "inspect": ["inspect", "texts-NAME"],
    "report": ["report", "texts-NAME"],
    "examples": ["examples", "shades-NAME", "--split", "val", "--output", "NEW"],
    "export": ["export", "shades-NAME", "NEW"],
    "import": ["import", "NEW", "NEW-run"],
    "transcribe": ["transcribe", "shades-NAME", "NEW.wav"],
    "play": ["play", "shades-NAME"],
    "in_context": ["in_context", "shades-NAME"],
    "record": ["record", "CartPole-v1", "--policy", "NEW", "--out", "NEW"],
}
SILENT = {
    "predict",
    "baselines",
    "prepare",
    "generate",
    "schema",
    "inspect",
    "report",
    "play",
    "in_context",
    "transcribe",
}
"""Commands that do not print the name, or only print that they cannot be used with such a run."""


def test_all_commands_are_tried():
    assert {each.split()[0] for each in COMMANDS} | {"schema", "explain", "init", "new"} == set(command_modules())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", COMMANDS)
def test_names_are_printed_unchanged(trained, monkeypatch, capsys, command, name):
    monkeypatch.chdir(trained)
    monkeypatch.setenv("CHOPMIX_CACHE", str(trained / "cache"))
    new = f"new-{list(COMMANDS).index(command)}-{name}"
    words = [word.replace("NEW", new).replace("NAME", name) for word in COMMANDS[command]]
    try:
        status = main(words)
    except SystemExit as end:
        status = end.code
    captured = capsys.readouterr()
    assert status in (0, 1, 2), captured.err
    if command.split()[0] not in SILENT:
        assert name in captured.out + captured.err, captured


def test_names_in_a_table_of_played_episodes_are_printed_unchanged(capsys):
    from chopmix.files.printing import wide_console
    from chopmix.projects.decision.commands.play import table_of

    figures = dict.fromkeys(("return", "error", "least", "most", "rewarded", "steps"), 1.0)
    rows = [{"who": f"runs/{name}", "acts by": name, "plan": None, "target": 5, **figures} for name in NAMES]
    wide_console().print(table_of(rows, None))
    output = capsys.readouterr().out
    assert all(f"runs/{name} " in output and f" {name} " in output for name in NAMES)


@given(st.text(st.sampled_from("[]/:=#@\\\\redbolink dog\x1b\x9b"), min_size=1, max_size=20))
def test_every_text_in_a_table_is_printed_unchanged(text):
    table = Table(text, title=text, title_justify="left")
    table.add_row(text)
    stream = io.StringIO()
    plain_console(file=stream, width=200).print(table, text)
    Progress(1, stream=stream).show_tables(table)
    shown = text.replace("\x1b", "\\x1b").replace("\x9b", "\\x9b")
    assert stream.getvalue().count(shown) >= 7 and "\x1b" not in stream.getvalue()


def test_no_module_prints_with_another_console():
    folders = (
        "commands",
        "data",
        "experiment",
        "inference",
        "models",
        "tasks",
        "tokenizers",
        "training",
        "projects",
        "chopmix/files",
    )
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    names = [
        file.name
        for file in files
        if re.search(r"(?<![\w.])Console\(|track\(|rich\.print|from rich import", file.read_text())
    ]
    assert [name for name in names if name not in ("printing.py", "progress.py")] == []
    columns = [(file.name, column) for file in files for column in re.findall(r"TextColumn\([^)]*\)", file.read_text())]
    assert len(columns) >= 3 and all("markup=False" in column for _, column in columns), columns
