"""Checkpoints: safetensors and JSON in one folder per step, written so that a crash leaves the old one whole.

`checkpoints/step-00000100/{model,optimizer,ema}.safetensors` and `state.json`, which carries every file's size and checksum.
A checkpoint is written under a temporary name, flushed to the disk and renamed; `last.json` and `best.json` name the steps.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

PARTS = ("model", "optimizer", "ema")


class CheckpointError(ValueError):
    """A checkpoint that is missing, cut short or changed."""


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file as a whole: readers see the old text or the new, never half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "w") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OSError(error.errno, f"{path} cannot be written: {error.strerror}") from error


def read_json(path: Path) -> Any:
    """The value of a JSON file of a run. Raises CheckpointError naming the file when it is damaged."""
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    value = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def folder_of(run: Path, step: int) -> Path:
    """Where a step's checkpoint stands in a run's folder."""
    return run / "checkpoints" / f"step-{step:08d}"


def steps(run: Path) -> list[int]:
    """The steps of all checkpoints of a run, oldest first."""
    names = [folder.name.removeprefix("step-") for folder in (run / "checkpoints").glob("step-*")]
    return sorted(int(name) for name in names if name.isdecimal())


def save(run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Write one checkpoint: `tensors` by part (`model`, `optimizer`, `ema`), `state` as JSON.

    Raises OSError (a full disk, say), naming the checkpoint that is kept, after taking away what it had written; earlier
    checkpoints are not touched.
    """
    final = folder_of(run, step)
    partial = final.with_name(f".{final.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        for part, named in tensors.items():
            whole = {name: tensor.detach().contiguous().cpu() for name, tensor in named.items()}
            try:
                save_file(whole, partial / f"{part}.safetensors")
            except SafetensorError as error:  # which is how safetensors tells of a disk that is full
                full = "No space left" in str(error) or "StorageFull" in str(error)
                number = errno.ENOSPC if full else errno.EIO
                raise OSError(number, os.strerror(number) if full else str(error)) from error
        files = {f.name: {"bytes": f.stat().st_size, "crc32": checksum(f)} for f in sorted(partial.iterdir())}
        write_json(partial / "state.json", {"step": step, "files": files, **state})
        for file in [*partial.iterdir(), partial]:
            _flush(file)
        if final.exists():
            shutil.rmtree(final)
        os.replace(partial, final)
        _flush(final.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        kept = read_step(run, "last")
        whole = "no checkpoint was written before" if kept is None else f"the checkpoint of step {kept} is whole"
        message = f"{run}: step {step} could not be saved ({error.strerror or error}); {whole}"
        raise OSError(error.errno, message) from error
    write_json(run / "last.json", {"step": step})
    return final


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def prune(run: Path, keep: int, also: Collection[int] = ()) -> None:
    """Delete all but the newest `keep` checkpoints, the best and these `also`, and what crashed writers left behind."""
    best = read_step(run, "best")
    for step in steps(run)[:-keep]:
        if step != best and step not in also:
            shutil.rmtree(folder_of(run, step))
    for left in (run / "checkpoints").glob(".step-*"):
        shutil.rmtree(left, ignore_errors=True)


def read_step(run: Path, which: str) -> int | None:
    """The step that `last.json` or `best.json` names; None when there is none."""
    try:
        return json.loads((run / f"{which}.json").read_text())["step"]
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None


def read_state(run: Path, step: int) -> dict[str, Any]:
    """A checkpoint's `state.json`, after checking every file against it. Raises CheckpointError naming what is wrong."""
    folder = folder_of(run, step)
    try:
        state = json.loads((folder / "state.json").read_text())
        files = state["files"]
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no checkpoint of step {step}; there are {steps(run) or 'none'}") from None
    except (json.JSONDecodeError, KeyError, UnicodeDecodeError):
        raise CheckpointError(f"{folder}/state.json is damaged") from None
    for name, known in files.items():
        file = folder / name
        if not file.exists():
            raise CheckpointError(f"{file} is missing")
        if file.stat().st_size != known["bytes"]:
            raise CheckpointError(f"{file} is cut short: {file.stat().st_size} of {known['bytes']} bytes")
        if checksum(file) != known["crc32"]:
            raise CheckpointError(f"{file} is damaged: its checksum differs from the one it was written with")
    return state


def read_tensors(run: Path, step: int, part: str) -> dict[str, Tensor]:
    """One part of a checkpoint (empty when the run has none), on the CPU. Nothing in it is executed."""
    file = folder_of(run, step) / f"{part}.safetensors"
    return load_file(file) if file.exists() else {}


def forget(run: Path, step: int) -> None:
    """Delete one checkpoint, to write it anew."""
    shutil.rmtree(folder_of(run, step))


def put_aside(run: Path, step: int) -> None:
    """Give a damaged checkpoint another name, and forget it where it was the best."""
    folder = folder_of(run, step)
    aside = folder.with_name(f"damaged-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(folder, aside)
    if read_step(run, "best") == step:
        (run / "best.json").unlink()


def newest_sound(run: Path, say) -> int | None:
    """The newest checkpoint that is whole; each damaged one is named through `say`. None when the run has no checkpoint.

    Damaged ones are put aside as `damaged-step-...`, so that the step can be saved again. Raises CheckpointError when there
    are checkpoints but none is whole.
    """
    found, damaged = steps(run), []
    for step in reversed(found):
        try:
            read_state(run, step)
        except CheckpointError as error:
            say(f"{error}; trying the checkpoint before it")
            damaged.append(step)
            continue
        for each in damaged:
            put_aside(run, each)
        return step
    if found:
        raise CheckpointError(f"{run}: none of its {len(found)} checkpoints is whole; start it again with another out=")
    return None
