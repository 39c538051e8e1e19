"""Mistakes on the command line end with one clear message and exit status 2, and destroy nothing."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.commands.evaluate import folder_of
from chopmix.data.datasets.webdataset import Webdataset
from chopmix.data.fingerprint import file_fingerprint
from chopmix.experiment.embed import atomic_file
from chopmix.experiment.run import Run
from chopmix.experiment.settings.config import load_config
from chopmix.files.errors import RunError, UsageError
from chopmix.files.printing import json_line, printable
from chopmix.files.reading import DataError, read_lines
from chopmix.files.writing import make_folder
from chopmix.projects.whisper.transcribing import output_names


def error_of(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "override, match",
    [
        ("model.widht=32", "did you mean 'width'?"),
        ("model.width=wide", "model.width"),
        ("model.heads=5", "model.heads"),
        ("training.tokens_per_step=65", "training.tokens_per_step"),
        ("model.attention=causal &", "model.attention"),
        ("training.steps=0", "training.steps"),
        ("inputs.text.encoding=bpe", "inputs.text.encoding: bpe needs 'vocabulary'"),
        ("inputs.text.position.length=8", "inputs.text.position.length"),
    ],
)
def test_a_wrong_setting_is_reported_before_any_work(tiny, capsys, override, match):
    file = tiny()
    assert match in error_of(capsys, "train", str(file), override)
    assert not load_config(file).out.exists()


def test_a_vocabulary_that_is_too_large_for_the_corpus_is_reported_with_its_key(tiny, capsys):
    message = error_of(capsys, "train", str(tiny()), "inputs.text.encoding=bpe", "inputs.text.vocabulary=6000")
    assert "inputs.text: vocabulary: 6000 ids are too many: this corpus yields only " in message


@pytest.mark.parametrize("folder", [".", "/", "..", "folder"])
def test_a_folder_instead_of_an_output_file_is_reported(tiny, capsys, tmp_path, monkeypatch, folder):
    file = tiny()
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", str(file), "--output", folder]) == 1
    assert f"{folder} cannot be written: Is a directory" in capsys.readouterr().err
    assert not list((tmp_path / "folder").iterdir()) and not list(tmp_path.glob(".*"))


def test_a_missing_file_is_reported(tiny, capsys, tmp_path):
    assert "tiny.yml" in error_of(capsys, "train", str(tiny()).replace(".yaml", ".yml"))
    (tmp_path / "train.txt").unlink()
    assert "no file at" in error_of(capsys, "train", str(tmp_path / "tiny.yaml"))


@pytest.mark.parametrize(
    "content, match",
    [
        (b"", "no text in"),
        (b"chop", "are too few for one window of the context (16)"),
        (b"chop and m\xffx" * 9, "train.txt, line 1: byte 10 (0xff) is not valid UTF-8"),
    ],
)
def test_a_corpus_that_cannot_be_used_is_reported(tiny, capsys, tmp_path, content, match):
    file = tiny()
    (tmp_path / "train.txt").write_bytes(content)
    assert match in error_of(capsys, "train", str(file))


def test_a_validation_text_with_an_unknown_character_is_reported(tiny, capsys, tmp_path):
    file = tiny()
    (tmp_path / "val.txt").write_text("chop mix Z and more of it")
    message = error_of(capsys, "train", str(file))
    assert "'Z' (U+005A)" in message and "val.txt" in message


def test_the_schema_is_printed(capsys):
    import json

    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "training" in schema["properties"] and schema["additionalProperties"] is False


def test_inspect_prints_the_examples_of_a_batch(tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the page is written
    assert main(["inspect", str(tiny())]) == 0
    printed = capsys.readouterr().out
    assert printed.count("when the input is") == 32 and "4 x 8 ids is 32 examples" in printed


def test_after_a_failed_first_attempt_another_one_may_differ(tiny, capsys, tmp_path):
    file = tiny()
    text = (tmp_path / "train.txt").read_text()
    (tmp_path / "train.txt").write_text("short")
    error_of(capsys, "train", str(file))
    (tmp_path / "train.txt").write_text(text)
    assert main(["train", str(file), "training.learning_rate=0.02"]) == 0


DATA = Path(os.environ.get("CHOPMIX_DATA", ""))


@pytest.mark.skipif(not (DATA / "bpe").is_dir(), reason="needs the data root with tiny_shakespeare and bpe")
@pytest.mark.parametrize("name", ["shakespeare_char_gpu", "gpt2_124m", "finetune_gpt2", "shakespeare_char_nanogpt"])
def test_small_versions_of_large_configurations_pass_a_dry_run(name, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path))
    config = ROOT / "configs" / "lm" / f"{name}.yaml"
    small = [
        "model.width=32",
        "model.depth=2",
        "model.heads=4",
        "model.context=32",
        "training.tokens_per_step=128",
        "training.rows_per_micro_batch=2",
        "training.compile=false",
        "data.dataset=tiny_shakespeare",
        "from=null",
    ]
    assert main(["train", str(config), "--dry-run", *small]) == 0
    assert "one step: loss" in capsys.readouterr().out


def test_printed_names_do_not_control_the_terminal(tiny, capsys):
    """Names of files and settings can come from others: characters that color, clear or rename a terminal are printed
    as escapes."""
    assert "a\\x1b[31m\\x00b" in error_of(capsys, "evaluate", "a\x1b[31m\0b")
    assert "\\x9b" in error_of(capsys, "train", str(tiny()), "model.\x9bwidth=3")
    with pytest.raises(SystemExit):
        main(["compare", "x", "--\x1b[31m"])
    assert "--\\x1b[31m" in capsys.readouterr().err
    assert "\\udcff" in error_of(capsys, "generate", "\udcff")


def test_json_on_a_terminal_is_harmless_and_keeps_its_value():
    for text in ("\x1b[31mred\x9b", "a\udcffb", "é🧨\n\t"):
        line = json_line({"text": text})
        assert json.loads(line) == {"text": text} and printable(line) == line
    assert "é🧨" in json_line("é🧨")


METRICS = (
    '{"step": 1, "seconds": 1, "val/loss": 2.0, "val/[/x]$\\\\no{$": 1.0}\n{"step": 2, "seconds": 1, "val/loss": 1.0}\n'
)


def test_names_of_runs_are_not_read_as_markup_or_formulas(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["[/red]x", "[bold]y", r"$\no{$"]
    for name in names:
        Path(name).mkdir(parents=True)
        Path(name, "metrics.jsonl").write_text(METRICS)
    assert main(["compare", *names]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in names) and "val/[/x]" in out
    assert Path("compare.png").stat().st_size
    Path("bare").mkdir()
    Path("bare", "metrics.jsonl").write_text('{"step": 1}')
    assert "have no common metric" in error_of(capsys, "compare", "bare", names[0], "--picture", "curves.png")


@pytest.mark.parametrize("word", ["evaluate", "generate", "inspect", "compare", "train", "import"])
def test_names_that_no_file_can_have_are_refused(capsys, tmp_path, monkeypatch, word):
    monkeypatch.chdir(tmp_path)
    for name in ("a" * 300, "~nobody/x", "a\0b"):
        assert "[Errno" not in error_of(capsys, word, name, *["run"] * (word == "import"))


def test_an_output_folder_with_an_impossible_name_is_refused(tiny, capsys):
    file = tiny()
    assert main(["train", str(file), f"out={'a' * 300}"]) == 1
    assert "a cannot be written: File name too long" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["a folder", "a pipe", "a link"])
def test_a_lock_that_is_not_a_file_is_refused(tiny, capsys, tmp_path, what):
    """A link in the run of a stranger can lead elsewhere: its target is not changed."""
    file, target = tiny(), tmp_path / "precious"
    lock = load_config(file).out / ".lock"
    lock.parent.mkdir(parents=True)
    target.write_text("precious")
    {"a folder": lock.mkdir, "a pipe": lambda: os.mkfifo(lock), "a link": lambda: lock.symlink_to(target)}[what]()
    assert main(["train", str(file)]) in (1, 2)
    assert ".lock" in capsys.readouterr().err
    assert target.read_text() == "precious"


def test_a_pipe_among_the_data_is_refused(tmp_path):
    """Reading it might never end, because perhaps nobody writes to it."""
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(DataError, match="not a regular file"):
        len(Webdataset(train=str(tmp_path / "*.tar"), columns={"image": "png"}).open("train"))
    with pytest.raises(DataError, match="not a regular file"):
        list(read_lines(tmp_path / "pipe.tar"))
    assert file_fingerprint(tmp_path / "pipe.tar") == "pipe.tar missing"


def test_pages_and_pictures_that_cannot_be_written_are_reported(tiny, capsys, tmp_path, monkeypatch):
    assert main(["inspect", str(tiny()), "--output", "a" * 300]) == 1
    assert "cannot be written: File name too long" in capsys.readouterr().err
    Path(tmp_path, "metrics.jsonl").write_text(METRICS)
    assert "possible endings: .png, .pdf, .svg, .jpg" in error_of(
        capsys, "compare", str(tmp_path), "--picture", "x.html"
    )
    assert main(["compare", str(tmp_path), "--picture", f"{'a' * 300}.png"]) == 1
    assert ".png cannot be written: File name too long" in capsys.readouterr().err


def test_a_stranger_s_run_is_evaluated_without_writing_elsewhere(messages, tmp_path, monkeypatch):
    """If the folder cannot be written to, or a link is in the place of the file, a message is printed and nothing is
    changed."""
    folder, target = tmp_path / "run", tmp_path / "precious"
    folder.mkdir()
    target.write_text("precious")
    run = SimpleNamespace(folder=folder, step=3, which="last")
    Run.record(run, {"val/loss": 1.0})
    assert json.loads((folder / "evaluations.jsonl").read_text())["val/loss"] == 1.0
    (folder / "evaluations.jsonl").unlink()
    (folder / "evaluations.jsonl").symlink_to(target)
    Run.record(run, {"val/loss": 1.0})
    printed = messages()
    assert "evaluations.jsonl cannot be written" in printed and "--report DIR writes to another folder" in printed
    (folder / "evaluations.jsonl").unlink()
    os.mkfifo(folder / "evaluations.jsonl")
    Run.record(run, {"val/loss": 1.0})
    assert "evaluations.jsonl is not a regular file" in messages()
    Run.record(run, {"val/loss": 1.0}, tmp_path)
    assert json.loads((tmp_path / "evaluations.jsonl").read_text())["val/loss"] == 1.0
    assert target.read_text() == "precious"
    (folder / "report").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="report is a link; name another folder: --report DIR"):
        folder_of("", folder)


def test_files_and_folders_with_impossible_names_are_refused(tmp_path):
    too_long, odd = atomic_file(tmp_path / f"{'a' * 300}.npy", "wb"), atomic_file(tmp_path / "a\0b.npy", "wb")
    with pytest.raises(OSError, match=r"\.npy cannot be written: File name too long"), too_long:
        pass
    with pytest.raises(ValueError, match="null byte"), odd:
        pass
    with pytest.raises(OSError, match="cannot be written: embedded null byte"):
        make_folder(tmp_path / "a\0b")


@pytest.mark.parametrize("name", ["\0", "\ud800", "a" * 300])
def test_a_folder_of_transcripts_with_an_impossible_name_is_refused(tmp_path, name):
    with pytest.raises(RunError, match="cannot be written to: "):
        output_names(["a.wav"], ["txt"], tmp_path / name)
