"""Checkpoints of a run: their format number and state, reading and writing them, deleting old ones."""

from __future__ import annotations

import os
import re
import shutil
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, FiniteFloat
from torch import Tensor

from ..files.reading import DataError, shown
from ..files.records import Record, partial_tensors, read_record, read_tensors, write_tensors
from ..files.writing import delete, flush, make_folder, partial_name, write_json
from ..files.writing import sweep as sweep_files

FORMAT, OLDEST = 2, 2
"""The number of the format that is written, and of the oldest one that is read: the one before, from format 3 on."""
READERS = {1: "a chopmix of before November 2026, which was never released"}
"""The versions that read older formats."""


def other_format(found: object) -> str | None:
    """The predicate of a message about a file of format `found`, with the version that reads it; None for a format that
    is read."""
    if isinstance(found, int) and OLDEST <= found <= FORMAT:
        return None
    known = isinstance(found, int) and found < OLDEST
    reader = READERS.get(found, "an older chopmix") if known else "a newer chopmix"
    formats = f"format {FORMAT}" if OLDEST == FORMAT else f"formats {OLDEST} to {FORMAT}"
    return f"has format {shown(found)}, which {reader} reads; this version reads {formats}"


Step = Annotated[int, Field(ge=0, lt=2**48)]


class Written(Record):
    """Size and CRC-32 of one file of a checkpoint."""

    bytes: Annotated[int, Field(ge=0)]
    crc32: Annotated[int, Field(ge=0, lt=2**32)]


class Best(Record):
    """The best evaluation so far."""

    step: Step
    metric: str
    judged: FiniteFloat
    """The value of `metric`, negated where larger is better: the smallest is the best."""
    metrics: dict[str, int | float] = {}
    """All metrics of that evaluation."""


class Pointer(Record):
    """What is read of `last.json` and `best.json`: `{"step": 500}`, in `best.json` with its metrics beside it."""

    step: Step


class Unreported(Record):
    """Steps since the last line of `metrics.jsonl` when a run was stopped; the next line counts them too."""

    losses: list[FiniteFloat] = []
    """The mean loss of each step."""
    tokens: Annotated[int, Field(ge=0)] = 0
    slots: Annotated[int, Field(ge=0)] = 0
    """Tokens and padding."""


class Formatted(Record):
    """The part of `state.json` that every format has."""

    format: Annotated[int, Field(ge=1)] = 1


class State(Formatted):
    """A checkpoint's `state.json`.

        {"step": 500, "seconds": 31.2, "evaluated": 500, ...,
         "files": {"model.safetensors": {"bytes": 4096, "crc32": 3340501083}, ...}, "format": 2}

    A missing field has its default.
    """

    step: Step
    files: dict[str, Written]
    seconds: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    """Seconds of training so far, without evaluations and saving."""
    best: Best | None = None
    evaluated: int = -1
    """The last step that was evaluated; -1: none."""
    averaged: bool = False
    """Whether `ema.safetensors` holds the mean of the last checkpoints (`checkpoints.average`), made at the end."""
    finished: bool = False
    """Whether all that follows the last step (averaging, the last evaluation, attribution) is done."""
    records: list[dict[str, int | float]] = []
    """The lines of `metrics.jsonl` that belong to this step."""
    unreported: Unreported = Unreported()
    skipped: list[tuple[Step, Annotated[int, Field(ge=1)]]] = []
    """(step, count): from that step on the numbers of global batches are higher by count, since the loss or the weights
    became non-finite on the batches left out."""
    bad: dict[str, str] = {}
    """The training samples found to be bad: `{"17": "image: a.png is cut short"}`."""
    vocabularies: dict[str, str] = {}
    """The fingerprint of each input's vocabulary, or of the run that it took in."""
    data: dict[str, str] = {}
    """The fingerprint of each split; a resumed run must find the same."""
    torch: str = ""
    """The version of torch."""
    threads: int = 0
    """CPU threads that torch computed with, last."""
    imported: str | None = None
    """The name of the Hugging Face directory that the run was imported from."""
    tokenizer: str = ""
    """Of an imported run: the file that its tokenizer was read from, or what was used instead, in words."""
    missing: list[str] = []
    """Of an imported run: the tensors that the imported directory lacked."""


NAMES = ("model.safetensors", "optimizer.safetensors", "ema.safetensors")


class CheckpointError(ValueError):
    """A checkpoint that is missing, cut short or changed."""


class FormatError(ValueError):
    """A checkpoint in the format of another version of chopmix: whole, but not readable here."""


class NotFiniteError(ValueError):
    """A loss, a weight or a value of the optimizer's state that is infinite or NaN."""


# --------------------------------------------------------------------------------------------------------- where it is


def folder_of(run: Path, step: int) -> Path:
    """The folder of a step's checkpoint: of step 100 it is `RUN/checkpoints/step-00000100`."""
    return run / "checkpoints" / f"step-{step:08d}"


def steps(run: Path) -> list[int]:
    """The steps of all checkpoints of a run, ascending."""
    names = [folder.name.removeprefix("step-") for folder in (run / "checkpoints").glob("step-*")]
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal() and len(name) < 15)


def read_step(run: Path, which: str) -> int | None:
    """The step in `last.json` or `best.json`, as `which` says; None where the file is missing or damaged."""
    try:
        return read_record(run / f"{which}.json", Pointer).step
    except DataError:
        return None


# ------------------------------------------------------------------------------------------------------------- writing


def check_finite(tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raises NotFiniteError, naming the first, where a tensor of any part holds an infinity or NaN."""
    for part, named in tensors.items():
        numbers = {name: tensor for name, tensor in named.items() if tensor.is_floating_point()}
        fine = torch.stack([tensor.isfinite().all().cpu() for tensor in numbers.values()]) if numbers else torch.ones(1)
        if not bool(fine.all()):
            name = list(numbers)[int(fine.logical_not().nonzero()[0, 0])]
            raise NotFiniteError(f"{part}: {name} holds what is no number")


def save(run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Write one checkpoint, point `last.json` to it, and give its folder: `tensors` by part (`model`, `optimizer`,
    `ema`), `state` as JSON.

    Raises OSError (a full disk, say), naming the checkpoint that remains, after deleting what it had written; earlier
    checkpoints are not touched. Raises NotFiniteError for tensors that are not finite.
    """
    check_finite(tensors)
    final = folder_of(run, step)
    partial = partial_name(final)
    try:
        make_folder(partial, within=run)
        for part, named in tensors.items():
            write_tensors(partial / f"{part}.safetensors", named)
        _write_state(partial, {"step": step, **state})
        for file in [*partial.iterdir(), partial]:
            flush(file)
        os.replace(partial, final)
        flush(final.parent)
    except BaseException as error:
        delete(partial)
        if not isinstance(error, OSError):
            raise
        kept = read_step(run, "last")
        whole = "no checkpoint was written before" if kept is None else f"the checkpoint of step {kept} is whole"
        message = f"{run}: step {step} could not be saved ({error.strerror or error}); {whole}"
        raise OSError(error.errno, message) from error
    point(run, "last", step)
    return final


def add(run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Add or replace parts of an existing checkpoint, and replace its state.

    A part is written next to the old file and renamed. Where it replaces a different one, its entry leaves `state.json`
    first: a crash in between leaves a whole checkpoint in which that part is not checked. Raises DataError where the
    step has no readable state, NotFiniteError for tensors that are not finite, OSError naming the file where writing
    fails."""
    check_finite(tensors)
    folder = folder_of(run, step)
    known = read_record(folder / "state.json", State).model_dump()
    for part, named in tensors.items():
        name = f"{part}.safetensors"
        with partial_tensors(folder / name, named) as partial:
            if name in known["files"] and known["files"][name]["crc32"] != checksum(partial):
                del known["files"][name]
                write_json(folder / "state.json", known, within=folder)
            os.replace(partial, folder / name)
    _write_state(folder, {"step": step, **state})
    flush(folder)


def _write_state(folder: Path, state: Mapping[str, Any]) -> None:
    files = {name: folder / name for name in NAMES if (folder / name).exists()}
    written = {name: {"bytes": file.stat().st_size, "crc32": checksum(file)} for name, file in files.items()}
    write_json(folder / "state.json", {**state, "files": written, "format": FORMAT}, within=folder)


def point(run: Path, which: str, step: int, **more: Any) -> None:
    """Point `last.json` or `best.json` to a step, with `more` entries beside it: `{"step": 500, "val/loss": 1.5}`."""
    if read_step(run, which) != step or more:
        write_json(run / f"{which}.json", {"step": step, **more}, within=run)


def prune(run: Path, keep: int, also: Collection[int] = ()) -> None:
    """Delete all checkpoints but the newest `keep` (at least 1), the steps in `also`, and those that `last.json` and
    `best.json` name."""
    kept = {*steps(run)[-keep:], *also, read_step(run, "best"), read_step(run, "last")}
    for step in set(steps(run)) - kept:
        shutil.rmtree(folder_of(run, step), ignore_errors=True)


OLD = re.compile(r"\.(step-[0-9]+|model|optimizer|ema)\.[0-9]+")
"""The names of partly written checkpoints and parts until November 2026."""


def sweep(run: Path) -> None:
    """Delete partly written files and folders of killed processes. The caller must hold the run's lock."""
    places = ".*", "assets/**/.*", "sheets/.*", "checkpoints/.*", "checkpoints/step-*/.*"
    found = [file for place in places for file in run.glob(place)]
    sweep_files(found, every_host=True)
    for file in found:
        if OLD.fullmatch(file.name):
            delete(file)


# ------------------------------------------------------------------------------------------------------------- reading


def checksum(path: Path) -> int:
    """CRC-32 of a file, read in blocks of 4 MiB."""
    value = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def read_state(run: Path, step: int) -> State:
    """A checkpoint's state, after checking size and CRC-32 of every file that it names. Raises CheckpointError where
    one is missing, cut short or changed, FormatError for a state of another format."""
    folder = folder_of(run, step)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no checkpoint of step {step}; there are {steps(run) or 'none'}")
    try:
        if wrong := other_format(read_record(folder / "state.json", Formatted).format):
            raise FormatError(f"{folder}/state.json {wrong}")
        state = read_record(folder / "state.json", State)
    except DataError as error:
        raise CheckpointError(f"{folder}/state.json is damaged: {error}") from None
    if state.step != step or "model.safetensors" not in state.files or not set(state.files) <= set(NAMES):
        raise CheckpointError(
            f"{folder}/state.json is damaged: it is of step {state.step} and names {', '.join(state.files)}"
        )
    for name, known in state.files.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing")
        if file.stat().st_size != known.bytes:
            raise CheckpointError(f"{file} is cut short: {file.stat().st_size} of {known.bytes} bytes")
        if checksum(file) != known.crc32:
            raise CheckpointError(f"{file} is damaged: its checksum differs from the one it was written with")
    return state


def read_part(run: Path, step: int, part: str) -> dict[str, Tensor]:
    """The tensors of one part of a checkpoint by name, on the CPU; empty where it has no such part. Raises
    CheckpointError for a damaged file."""
    file = folder_of(run, step) / f"{part}.safetensors"
    try:
        return read_tensors(file) if file.exists() else {}
    except DataError as error:
        raise CheckpointError(str(error)) from None


def put_aside(run: Path, step: int) -> None:
    """Rename a damaged checkpoint to `damaged-step-00000100`, and delete `best.json` and `last.json` where they name
    it."""
    folder = folder_of(run, step)
    aside = folder.with_name(f"damaged-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(folder, aside)
    for which in ("best", "last"):
        if read_step(run, which) == step:
            (run / f"{which}.json").unlink()


def newest_valid(run: Path, say: Callable[[str], None]) -> int | None:
    """The step of the newest checkpoint that is whole; None where the run has no checkpoint.

    Damaged ones that are newer are reported through `say` and renamed (`put_aside`), so that their steps can be saved
    again. Raises CheckpointError where there are checkpoints but none is whole, FormatError for one of another format.
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


@dataclass(frozen=True, kw_only=True)
class Saver:
    """Writes the checkpoints of one run; only the first process does."""

    folder: Path
    writes: bool
    """Whether this process is the one that writes."""
    every: int
    """Steps between two regular checkpoints (see `averaged_steps`)."""
    steps: int
    """The last step of the run."""
    keep: int
    """How many of the newest are kept, besides the best."""
    average: int | None
    """How many of the newest regular checkpoints are averaged at the end; None: no averaging."""
    best: str
    """The metric by which the best is chosen, such as `val/loss`."""
    check: Callable[[], None] = lambda: None
    """Called before anything is written: raises OSError where the folder is another one now."""
    known: Mapping[str, Any]
    """Entries of every `state.json`: `data` and `vocabularies` (fingerprints), `torch` (version), `threads`."""

    def save(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], averages: Mapping[str, Tensor] | None,
        state: Mapping[str, Any], best: Best | None,
    ) -> None:  # fmt: skip
        """Write a checkpoint: `tensors` by part (`model`, `optimizer`), the `averages` of the weights as part `ema`.
        Where the step has one already, only its state and averages are replaced. Then delete what need not be kept.
        Raises NotFiniteError, in all processes, where one of `tensors` is not finite; OSError where writing fails."""
        check_finite(tensors)
        if not self.writes:
            return
        self.check()
        more, state = {"ema": averages} if averages is not None else {}, {**state, **self.known}
        if step in steps(self.folder):
            add(self.folder, step, more, state)
        else:
            save(self.folder, step, {**tensors, **more}, state)
        self.point_to_best(best)
        point(self.folder, "last", step)
        prune(self.folder, self.keep, also=self.averaged_steps())

    def point_to_best(self, best: Best | None) -> None:
        """Make `best.json` agree with the checkpoint's state: a run killed between writing the two is repaired here."""
        told = best and read_step(self.folder, "best") == best.step
        if best and not told and best.step in steps(self.folder):
            point(self.folder, "best", best.step, **best.metrics)

    def averaged_steps(self) -> list[int]:
        """The steps of the checkpoints that are averaged at the end: the newest `average` whose step is a multiple of
        `every` or the last one, so none of an interruption or a new best."""
        if not self.average:
            return []
        regular = [step for step in steps(self.folder) if step % self.every == 0 or step == self.steps]
        return regular[-self.average :]
