"""A run whose folder vanishes during training stops with one message; the next start removes what a killed process has
left; errors of the disk name the file."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from bounded import measured
from chopmix.commands.cli import main
from chopmix.data.datasets.text import Text
from chopmix.data.tokenizing import prepare
from chopmix.experiment.examples import write_value
from chopmix.experiment.run import load_run
from chopmix.experiment.run_folder import LockedError, run_lock
from chopmix.files.printing import on_terminal
from chopmix.files.records import write_tensors
from chopmix.files.rows import row_file
from chopmix.files.writing import lock, partial_name, sweep_partials, write_bytes, write_json
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.encoding.code_file import CodeFile
from chopmix.training import checkpoints as checkpoint
from chopmix.training.log import MetricsFile
from chopmix.training.loop import Trainer
from safetensors.torch import load_file


@pytest.fixture
def at_step(monkeypatch):
    """Returns a function that registers a call for a step of training; it is executed once, before this step."""

    def patch(step, call):
        update, due = Trainer.update, [call]

        def updated(trainer):
            if trainer.step == step and due:
                due.pop()()
            return update(trainer)

        monkeypatch.setattr(Trainer, "update", updated)

    return patch


def last_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the last checkpoint."""
    return load_file(checkpoint.folder_of(folder, 12) / "model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    first, second = last_weights(one), last_weights(other)
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def delete_folder(folder):
    shutil.rmtree(folder)


def move_folder(folder):
    folder.rename(folder.with_name("elsewhere"))


def replace_by_file(folder):
    shutil.rmtree(folder)
    folder.write_text("mine")


def replace_by_folder(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def delete_lock(folder):
    (folder / ".lock").unlink()


HARMS = [delete_folder, move_folder, replace_by_file, replace_by_folder, delete_lock]


@pytest.mark.parametrize("step", [1, 11])
@pytest.mark.parametrize("harm", HARMS)
def test_a_folder_that_vanishes_stops_the_run(tiny, tmp_path, capsys, at_step, harm, step):
    folder = tmp_path / "runs" / "tiny"
    at_step(step, lambda: harm(folder))
    assert main(["train", str(tiny())]) == 1
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-1]
    assert last == (
        f"{folder} is no longer this run's folder: it was deleted, moved or replaced, or its file .lock was. "
        "Nothing more is written. Put the folder back and run the same command: it goes on from the last checkpoint"
    )
    assert "done" not in captured.err + captured.out
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    assert ("config.yaml" in names) == (harm is delete_lock) and (harm is delete_lock or not names)


def test_training_continues_after_the_folder_is_back(tiny, tmp_path, capsys, at_step):
    folder, whole = tmp_path / "runs" / "tiny", tmp_path / "whole"
    assert main(["train", str(tiny()), f"out={whole}"]) == 0
    at_step(7, lambda: move_folder(folder))
    assert main(["train", str(tiny())]) == 1
    folder.with_name("elsewhere").rename(folder)
    assert main(["train", str(tiny())]) == 0
    assert "resumed" in capsys.readouterr().err and same_weights(folder, whole)


def test_a_second_start_without_the_lock_stops_the_first(tiny, tmp_path, capsys, at_step):
    """The second process continues from the last checkpoint to the end; the first process writes nothing more."""
    folder, whole, contents = tmp_path / "runs" / "tiny", tmp_path / "whole", []
    assert main(["train", str(tiny()), f"out={whole}"]) == 0

    def second():
        delete_lock(folder)
        assert main(["train", str(tiny())]) == 0
        contents.append({file: file.read_bytes() for file in folder.rglob("*") if file.is_file()})

    at_step(7, second)
    assert main(["train", str(tiny())]) == 1
    message = f"{folder} is no longer this run's folder: its file .lock was replaced: process {os.getpid()} on "
    assert message in capsys.readouterr().err
    assert contents == [{file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}] and same_weights(
        folder, whole
    )


@pytest.mark.parametrize("before", ["", '{"pid": 999999999, "host": "HOST", "since": "2026-01-31 12:00:00"}'])
def test_a_process_that_has_just_taken_the_lock_is_named(tmp_path, before):
    """Between taking the lock and writing the id of the process, the file is empty or names the process before."""
    (tmp_path / ".lock").write_text(before.replace("HOST", socket.gethostname()))
    now = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": "2026-02-28 12:00:00"})
    with open(tmp_path / ".lock", "a+") as handle:
        lock(handle)
        writer = threading.Timer(0.2, lambda: (tmp_path / ".lock").write_text(now))
        writer.start()
        with pytest.raises(LockedError, match=f"is in use: process {os.getpid()} on"), run_lock(tmp_path):
            pass
        writer.join()


def test_the_lock_belongs_to_this_process(tmp_path):
    with run_lock(tmp_path / "run") as check:
        check()
        with pytest.raises(LockedError, match="is in use: process"), run_lock(tmp_path / "run"):
            pass
        check()
        content = (tmp_path / "run" / ".lock").read_bytes()
        (tmp_path / "run" / ".lock").unlink()
        (tmp_path / "run" / ".lock").write_bytes(content)  # the same content, but nobody has locked it
        with pytest.raises(OSError, match="its file .lock was replaced"):
            check()
        (tmp_path / "run" / ".lock").unlink()
        (tmp_path / "run" / ".lock").mkdir()
        with pytest.raises(OSError, match="or its file .lock was. Nothing more is written"):
            check()


# ---------------------------------------------------------------------------------------------- after a killed process


@pytest.fixture(scope="module")
def dead_process():
    """The id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def write_partial_file(process: int, path: Path, host: str | None = None) -> Path:
    """Writes the partial file that a process leaves if it is killed while it writes a file; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = partial_name(path).name.rpartition(".")[0]
    file = path.parent / f"{name}.{process}"
    if host:
        file = path.parent / f".{path.name}.{host}.0123abcd.{process}"
    file.write_text("half")
    return file


def test_the_next_start_removes_what_a_killed_process_has_left(tiny, tmp_path, dead_process):
    folder = tmp_path / "runs" / "tiny"
    assert main(["train", str(tiny()), "training.steps=6"]) == 0
    steps = [folder / "checkpoints" / name for name in ("step-00000006",)]
    places = [
        folder / "config.yaml", folder / "summary.json", folder / "sheets" / "step-00000006.html",
        folder / "assets" / "text" / "encoding.json", folder / "assets" / "a" / "run" / "assets" / "b" / "c.json",
        steps[0] / "state.json", steps[0] / "ema.safetensors",
    ]  # fmt: skip
    partial_files = [write_partial_file(dead_process, place) for place in places] + [
        write_partial_file(dead_process, folder / "best.json", "elsewhere")
    ]
    partial_folders = [
        folder / "checkpoints" / f".step-00000007.{dead_process}",
        partial_name(folder / "checkpoints" / "step-00000008"),
    ]
    partial_folders += [
        partial_name(steps[0] / "model.safetensors")
    ]  # the id of this process: in a new container ids begin again
    for place in partial_folders:
        place.mkdir()
        (place / "model.safetensors").write_text("half")
    partial_files += [folder / "checkpoints" / "step-00000006" / f".ema.{dead_process}"]
    partial_files[-1].write_text("half")
    alive = write_partial_file(os.getppid(), folder / "sheets" / "val.html")
    user_file = folder / ".notes.2024"
    user_file.write_text("kept")
    assert main(["train", str(tiny())]) == 0
    assert (
        not [place for place in [*partial_files, *partial_folders] if place.exists()]
        and alive.exists()
        and user_file.exists()
    )


def test_partial_files_in_caches_are_removed_although_nothing_is_prepared_again(tmp_path, dead_process):
    (tmp_path / "a.txt").write_text("some text of a few words")
    dataset, folder = Text(train=str(tmp_path / "a.txt"), val=str(tmp_path / "a.txt")), tmp_path / "prepared"
    for _ in range(2):
        partial_file = write_partial_file(dead_process, folder / "train.tokens")
        prepare(dataset, "train", ByteEncoding(), folder)
        assert not partial_file.exists() and (folder / "train.tokens").exists()
    codes = CodeFile(tmp_path / "codes" / "x.safetensors", 2, 9)
    codes.new[b"a" * 16] = [1, 2]
    codes.save()
    partial_folder = write_partial_file(dead_process, codes.path)
    partial_folder.unlink()
    partial_folder.mkdir()
    (partial_folder / ".tmpAbCdEf").write_text("half")
    assert CodeFile(codes.path, 2, 9).get(b"a" * 16) == [1, 2] and not partial_folder.exists()
    assert sorted(file.name for file in codes.path.parent.iterdir()) == ["x.lock", "x.safetensors"]
    sweep_partials(tmp_path / "no folder" / "x")


# --------------------------------------------------------------------------------------------------------- disk errors


def write_with_limit(write, folder):
    """Returns the error of a writer on a disk on which a file has at most 100 bytes, and the names of all files."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        write(folder)
    except OSError as error:
        return str(error), sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    return "no error", []


TENSORS = {"a": torch.zeros(1000)}


def tensors(folder):
    write_tensors(folder / "x.safetensors", TENSORS)


def checkpoints(folder):
    checkpoint.save(folder, 5, {"model": TENSORS}, {})


def metrics(folder):
    with MetricsFile(folder, step=0, lines=()) as file:
        for step in range(1, 20):
            file.write(step, 1.0, {"train/loss": 2.0})


def codes(folder):
    file = CodeFile(folder / "x.safetensors", 2, 9)
    file.new = {bytes([n]) * 16: [1, 2] for n in range(20)}
    file.save()


def tokens(folder):
    (folder / "a.txt").write_text("some text of a few words")
    prepare(Text(train=str(folder / "a.txt")), "train", ByteEncoding(), folder / "prepared")


def text(folder):
    write_json(folder / "x.json", [1000] * 100)


def content(folder):
    write_bytes(folder / "x.bin", np.zeros(1000).tobytes())


def sample(folder):
    write_value(np.zeros((99, 99)), folder, "array")


def sound(folder):
    write_value((np.zeros(999), 8000), folder, "sound")


def table(folder):
    with row_file(folder / "table.csv") as write:
        write([{"a": "b" * 9999}])


WRITERS = {tensors: "x.safetensors", checkpoints: "step 5 could not be saved", metrics: "metrics.jsonl",
           codes: "x.safetensors", text: "x.json", content: "x.bin", sample: "array.npy", sound: "sound.wav",
           table: "table.csv"}  # fmt: skip


def evaluation(folder):
    run = load_run("quickstart")
    with on_terminal(), redirect_stderr(StringIO()) as messages:
        run.record({"text": "x" * 9999}, folder)
    raise OSError(None, messages.getvalue())  # the printed message as an error: an evaluation does not raise it


WRITERS[evaluation] = "evaluations.jsonl cannot be written: File too large; --report DIR"


@pytest.mark.parametrize("write", WRITERS)
def test_errors_of_the_disk_name_the_file(tmp_path, write):
    result = measured(write_with_limit, write, tmp_path)
    message, names = result.value
    assert str(tmp_path) in message and WRITERS[write] in message and "File too large" in message
    assert message.count("cannot be written") <= 1
    assert not [name for name in names if name not in ("metrics.jsonl", "x.lock")]


def test_the_error_of_a_token_file_on_a_full_disk_names_the_file(tmp_path):
    result = measured(write_with_limit, tokens, tmp_path)
    assert result.error.startswith("DataError: ") and "train.tokens cannot be written: File too large" in result.error
