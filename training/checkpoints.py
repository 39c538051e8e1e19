"""Checkpoints of a run: format, state, reading, writing and deleting."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
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
from .early_stop import Patience

FORMAT, OLDEST = 3, 2
"""The number of the format that is written, and of the oldest format that is read. A version that writes format 3 or a
later format will also read the preceding format. In format 2, the tokenizer `sensor` ignored the interval of the data,
and its `rate` was 1 by default."""
READERS = {1: "an unreleased chopmix from before November 2026"}
"""Maps the number of an older format to the versions of chopmix that read it."""


def other_format(number: object) -> str | None:
    """Returns the end of an error message about a file with the format `number` ("has format 3, which ..."). Returns
    None if this version reads the format."""
    if isinstance(number, int) and OLDEST <= number <= FORMAT:
        return None
    is_older = isinstance(number, int) and number < OLDEST
    reader = READERS.get(number, "an older chopmix") if is_older else "a newer chopmix"
    formats = f"format {FORMAT}" if OLDEST == FORMAT else f"formats {OLDEST} to {FORMAT}"
    return f"has format {shown(number)}, which {reader} reads; this version reads {formats}"


Step = Annotated[int, Field(ge=0, lt=2**48)]


class Written(Record):
    """The size in bytes and the CRC-32 of one file of a checkpoint."""

    bytes: Annotated[int, Field(ge=0)]
    crc32: Annotated[int, Field(ge=0, lt=2**32)]


class Best(Record):
    """The best evaluation so far."""

    step: Step
    metric: str
    judged: FiniteFloat
    """The score: the value of `metric`, negated if larger values are better. The smallest score is the best."""
    metrics: dict[str, int | float] = {}
    """All metrics of that evaluation."""


class Pointer(Record):
    """The content of `last.json` and `best.json`: `{"step": 500}`. `best.json` also has metrics, which are ignored."""

    step: Step


class Unreported(Record):
    """The steps after the last line of `metrics.jsonl`, if a run stopped before the next line. After the run is
    resumed, the next line includes these steps."""

    losses: list[FiniteFloat] = []
    """The mean loss of each of these steps."""
    tokens: Annotated[int, Field(ge=0)] = 0
    slots: Annotated[int, Field(ge=0)] = 0
    """The number of slots: tokens and padding."""


class Rollout(Record):
    """The current samples of a run with rollouts (`data/rollouts.py`)."""

    index: Annotated[int, Field(ge=0)]
    """The number of the rollout, from 0."""
    samples: list[tuple[Annotated[int, Field(ge=0)], dict[str, str | int | FiniteFloat]]]
    """The number of the training sample and the replaced columns of each sample."""


class Formatted(Record):
    """The only field of `state.json` that exists in all formats."""

    format: Annotated[int, Field(ge=1)] = 1


class State(Formatted):
    """A checkpoint's `state.json`.

        {"step": 500, "seconds": 31.2, "evaluated": 500, ...,
         "files": {"model.safetensors": {"bytes": 4096, "crc32": 3340501083}, ...}, "format": 2}

    A missing field gets its default.
    """

    step: Step
    files: dict[str, Written]
    seconds: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    """Seconds of training so far, without evaluating and saving."""
    best: Best | None = None
    evaluated: int = -1
    """The last step after which the model was evaluated; -1: none."""
    averaged: bool = False
    """Whether `ema.safetensors` holds the mean of the last checkpoints (`checkpoints.average`)."""
    finished: bool = False
    """Whether everything that follows the last step (averaging, the last evaluation, attribution) is done."""
    patience: Patience = Patience()
    """The evaluations so far, for early stopping."""
    stopped_early: bool = False
    """Whether early stopping ended the training at this step."""
    records: list[dict[str, int | float]] = []
    """The lines of `metrics.jsonl` that belong to this step."""
    unreported: Unreported = Unreported()
    rollout: Rollout | None = None
    skipped: list[tuple[Step, Annotated[int, Field(ge=1)]]] = []
    """Pairs (step, count). At this step, `count` global batches were skipped, because with these batches the loss or
    the weights became infinite or NaN. From this step on, the number of the global batch is higher by `count`."""
    samples: Annotated[int, Field(ge=0)] = 0
    """The number of training samples that were read so far (a sample that was read twice counts twice)."""
    inputs: dict[str, int] = {}
    """The number of these samples with each input, by input."""
    bad: dict[str, str] = {}
    """Maps each training sample that could not be used so far to the reason: `{"17": "image: a.png is cut short"}`."""
    vocabularies: dict[str, str] = {}
    """Maps each input to the fingerprint of its vocabulary, or of the trained run that its tokenizer uses."""
    data: dict[str, str] = {}
    """Maps each split to the fingerprint of its data. The fingerprints must not change when a run is resumed."""
    fingerprint_version: int = 1
    """The version of the rules by which these fingerprints were computed (`data/fingerprint.py`)."""
    torch: str = ""
    """The version of torch that wrote the checkpoint."""
    threads: int = 0
    """The number of CPU threads of the process that wrote the checkpoint; 0: unknown."""
    base: str = ""
    """The hash of the tensors in `RUN/base.safetensors`, for a run with adapters."""
    imported: str | None = None
    """The name of the Hugging Face directory from which the run was imported; None: the run was not imported."""
    tokenizer: str = ""
    """For an imported run: the file of its tokenizer, or a description of what was used instead."""
    missing: list[str] = []
    """For an imported run: the names of tensors that the imported directory lacked."""


NAMES = ("model.safetensors", "optimizer.safetensors", "ema.safetensors")
BASE = "base.safetensors"
"""The file of a run with adapters (`training.adapters`) that contains the weights to which they are added."""


class CheckpointError(ValueError):
    """A checkpoint or one of its files is missing, cut short or damaged."""


class FormatError(ValueError):
    """A checkpoint has a format that this version of chopmix cannot read. The checkpoint may be intact."""


class NotFiniteError(ValueError):
    """A loss, a weight or a value of the optimizer's state is infinite or NaN."""


# ------------------------------------------------------------------------------------------------------------ locations


def folder_of(run: Path, step: int) -> Path:
    """Returns the folder of a step's checkpoint: `RUN/checkpoints/step-00000100` for step 100."""
    return run / "checkpoints" / f"step-{step:08d}"


def steps(run: Path) -> list[int]:
    """Returns the steps of all checkpoints of a run, in ascending order."""
    names = [folder.name.removeprefix("step-") for folder in (run / "checkpoints").glob("step-*")]
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal() and len(name) < 15)


def read_step(run: Path, which: str) -> int | None:
    """Returns the step in `last.json` or `best.json` (`which` is `last` or `best`). Returns None if the file is missing
    or has no readable step."""
    try:
        return read_record(run / f"{which}.json", Pointer).step
    except DataError:
        return None


# ------------------------------------------------------------------------------------------------------------- writing


def check_finite(tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raises NotFiniteError if a tensor has an infinite or NaN value. `tensors` maps the name of a part, such as
    `model`, to the tensors of this part by name. The message names the first tensor with such a value."""
    for part, named in tensors.items():
        numbers = {name: tensor for name, tensor in named.items() if tensor.is_floating_point()}
        finite = [tensor.isfinite().all().cpu() for tensor in numbers.values()]
        is_finite = torch.stack(finite) if numbers else torch.ones(1)
        if not bool(is_finite.all()):
            name = list(numbers)[int(is_finite.logical_not().nonzero()[0, 0])]
            raise NotFiniteError(f"{part}: {name} has an infinite or NaN value")


def save(run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Writes one checkpoint and points `last.json` to it. Returns the folder of the checkpoint. `tensors` maps each
    part (`model`, `optimizer`, `ema`) to its tensors by name; `state` has fields of `State` and is written as JSON.

    Raises OSError if writing fails, for example on a full disk. Then the incomplete checkpoint is deleted, earlier
    checkpoints are not changed, and the message names the step in `last.json`. Raises NotFiniteError if a tensor is not
    finite.
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
    except OSError as error:
        delete(partial)
        raise not_saved(run, step, error) from error
    except BaseException:
        delete(partial)
        raise
    point(run, "last", step)
    return final


def not_saved(run: Path, step: int, error: OSError) -> OSError:
    """Returns the error about a checkpoint that could not be saved."""
    last = read_step(run, "last")
    rest = "there is no earlier checkpoint" if last is None else f"the checkpoint of step {last} is complete"
    return OSError(error.errno, f"{run}: step {step} could not be saved ({error.strerror or error}); {rest}")


def _add_part(folder: Path, name: str, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
    with partial_tensors(folder / name, tensors) as partial:
        if name in state["files"] and state["files"][name]["crc32"] != checksum(partial):
            del state["files"][name]
            write_json(folder / "state.json", state, within=folder)
        os.replace(partial, folder / name)


def add(run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Adds or replaces parts of an existing checkpoint, and replaces the state of the checkpoint.

    A part is one `.safetensors` file. The new file is written next to the old file and then renamed. If the content
    changes, the entry of the part (size and CRC-32) is removed from `state.json` before the rename, and is written
    again at the end. If the process dies between these two moments, the checkpoint can still be loaded, but the size
    and the CRC-32 of this part are not verified. Raises DataError if the checkpoint has no readable state,
    NotFiniteError if a tensor is not finite, and OSError if writing fails."""
    check_finite(tensors)
    folder = folder_of(run, step)
    old_state = read_record(folder / "state.json", State).model_dump()
    for part, named in tensors.items():
        _add_part(folder, f"{part}.safetensors", named, old_state)
    _write_state(folder, {"step": step, **state})
    flush(folder)


def _write_state(folder: Path, state: Mapping[str, Any]) -> None:
    files = {name: folder / name for name in NAMES if (folder / name).exists()}
    written = {name: {"bytes": file.stat().st_size, "crc32": checksum(file)} for name, file in files.items()}
    write_json(folder / "state.json", {**state, "files": written, "format": FORMAT}, within=folder)


def point(run: Path, which: str, step: int, **more: Any) -> None:
    """Writes a step to `last.json` or `best.json` (`which` is `last` or `best`). `more` are further entries of the
    file: `{"step": 500, "val/loss": 1.5}`."""
    if read_step(run, which) != step or more:
        write_json(run / f"{which}.json", {"step": step, **more}, within=run)


def prune(run: Path, keep: int, also: Collection[int] = ()) -> None:
    """Deletes all checkpoints except the newest `keep` checkpoints (at least 1), the checkpoints of the steps in
    `also`, and the two checkpoints to which `last.json` and `best.json` point."""
    to_keep = {*steps(run)[-keep:], *also, read_step(run, "best"), read_step(run, "last")}
    for step in set(steps(run)) - to_keep:
        shutil.rmtree(folder_of(run, step), ignore_errors=True)


OLD = re.compile(r"\.(step-[0-9]+|model|optimizer|ema)\.[0-9]+")
"""Matches the names of incomplete checkpoints and parts that versions until November 2026 wrote."""


def sweep(run: Path) -> None:
    """Deletes incomplete files and folders that killed processes left in a run. The caller must hold the run's lock."""
    patterns = ".*", "assets/**/.*", "sheets/.*", "report/.*", "checkpoints/.*", "checkpoints/step-*/.*"
    hidden = [file for pattern in patterns for file in run.glob(pattern)]
    sweep_files(hidden, every_host=True)
    for file in hidden:
        if OLD.fullmatch(file.name):
            delete(file)


# ------------------------------------------------------------------------------------------------------------- reading


def checksum(path: Path) -> int:
    """Returns the CRC-32 of a file, which is read in blocks of 4 MiB."""
    value = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def read_state(run: Path, step: int) -> State:
    """Returns the state of a checkpoint, after the size and CRC-32 of all files in the state are checked. Raises
    CheckpointError if the checkpoint or a file is missing, cut short or damaged, and FormatError if this version does
    not read the format of the state."""
    folder = folder_of(run, step)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no checkpoint of step {step}; available: {steps(run) or 'none'}")
    try:
        if problem := other_format(read_record(folder / "state.json", Formatted).format):
            raise FormatError(f"{folder}/state.json {problem}")
        state = read_record(folder / "state.json", State)
    except DataError as error:
        raise CheckpointError(f"{folder}/state.json is damaged: {error}") from None
    if state.step != step or "model.safetensors" not in state.files or not set(state.files) <= set(NAMES):
        raise CheckpointError(
            f"{folder}/state.json is damaged: it belongs to step {state.step} and lists {', '.join(state.files)}"
        )
    for name, written in state.files.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing")
        if file.stat().st_size != written.bytes:
            raise CheckpointError(f"{file} is cut short: {file.stat().st_size} of {written.bytes} bytes")
        if checksum(file) != written.crc32:
            raise CheckpointError(f"{file} is damaged: its CRC-32 differs from the one in state.json")
    return state


def identity(run: Path, step: int) -> str:
    """Returns the checksums of the weights of a checkpoint as text, which differ if a run was trained again; empty if
    there is no readable checkpoint of this step. The files are not read."""
    try:
        files = read_record(folder_of(run, step) / "state.json", State).files
    except DataError:
        return ""
    return " ".join(f"{files[name].crc32:08x}" for name in ("model.safetensors", "ema.safetensors") if name in files)


def read_part(run: Path, step: int, part: str) -> dict[str, Tensor]:
    """Returns the tensors of one part of a checkpoint (`model`, `optimizer` or `ema`) by name, on the CPU. Returns an
    empty dictionary if the checkpoint lacks this part. Raises CheckpointError if the file cannot be read."""
    file = folder_of(run, step) / f"{part}.safetensors"
    try:
        return read_tensors(file) if file.exists() else {}
    except DataError as error:
        raise CheckpointError(str(error)) from None


def content_of(tensors: Mapping[str, Tensor]) -> str:
    """Returns a hash of tensors and their names. The weights of a run, and of a copy of it, have the same hash."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.cpu().reshape(-1).view(torch.uint8).numpy() if value.numel() else b"")
    return digest.hexdigest()


def write_base(run: Path, weights: Mapping[str, Tensor]) -> str:
    """Writes the weights to which a run adds adapters into `RUN/base.safetensors`. Returns their hash."""
    write_tensors(run / BASE, weights)
    return content_of(weights)


def read_base(run: Path, hash: str) -> dict[str, Tensor]:
    """Returns the tensors of `RUN/base.safetensors`. Raises CheckpointError if the file cannot be read, or if its
    tensors do not have this hash."""
    try:
        base = read_tensors(run / BASE)
    except DataError as error:
        raise CheckpointError(str(error)) from None
    if content_of(base) != hash:
        raise CheckpointError(f"{run / BASE} does not contain the weights with which the adapters were trained")
    return base


def put_aside(run: Path, step: int) -> None:
    """Renames a damaged checkpoint to `damaged-step-00000100` (for step 100). Deletes `best.json` and `last.json` if
    they point to this checkpoint."""
    folder = folder_of(run, step)
    aside = folder.with_name(f"damaged-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(folder, aside)
    for which in ("best", "last"):
        if read_step(run, which) == step:
            (run / f"{which}.json").unlink()


def newest_valid(run: Path, say: Callable[[str], None]) -> int | None:
    """Returns the step of the newest checkpoint that `read_state` accepts; None if the run has no checkpoint.

    Newer checkpoints that are damaged are reported through `say` and renamed (`put_aside`); then their steps can be
    saved again. Raises CheckpointError if all checkpoints are damaged. Raises FormatError if a checkpoint that is newer
    than all intact ones has a format that this version does not read.
    """
    saved = steps(run)
    return newest_undamaged(run, saved, say) if saved else None


def newest_undamaged(run: Path, saved: Sequence[int], say: Callable[[str], None]) -> int:
    """Returns the newest of the steps `saved` whose checkpoint is not damaged."""
    damaged: list[int] = []
    for step in reversed(saved):
        try:
            read_state(run, step)
        except CheckpointError as error:
            say(f"{error}; trying the preceding checkpoint")
            damaged.append(step)
            continue
        for damaged_step in damaged:
            put_aside(run, damaged_step)
        return step
    raise CheckpointError(f"{run}: all {len(saved)} checkpoints are damaged; start a new run with another out=")


@dataclass(frozen=True, kw_only=True)
class Saver:
    """Writes the checkpoints of one run. All processes call it; only the first process writes."""

    folder: Path
    writes: bool
    """Whether this process writes: True only in the first process."""
    every: int
    """The number of steps between two regular checkpoints (see `averaged_steps`)."""
    steps: int
    """The last step of the run."""
    keep: int
    """The number of newest checkpoints that are kept, in addition to the best checkpoint."""
    average: int | None
    """The number of newest regular checkpoints whose weights are averaged at the end of the run; None: no averaging."""
    best: str | None
    """The metric by which the best checkpoint is chosen, such as `val/loss`; None: none is chosen."""
    check: Callable[[], None] = lambda: None
    """A function that is called before anything is written. It raises OSError if the folder of the run was replaced."""
    known: Mapping[str, Any]
    """Entries that every `state.json` of the run contains: `data`, `vocabularies`, `torch` and `threads` (`State`)."""

    def save(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], averages: Mapping[str, Tensor] | None,
        state: Mapping[str, Any], best: Best | None,
    ) -> None:  # fmt: skip
        """Writes a checkpoint and deletes the checkpoints that need not be kept. `tensors` maps the parts `model` and
        `optimizer` to their tensors; `averages` of the weights become the part `ema`. If the step already has a
        checkpoint, only its state and averages are replaced. Raises NotFiniteError, in all processes, if one of
        `tensors` is not finite, and OSError if writing fails."""
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
        """Points `best.json` to the checkpoint of `best`, if this checkpoint exists. This also repairs a run that was
        killed after a checkpoint was written and before `best.json` was written."""
        is_current = best and read_step(self.folder, "best") == best.step
        if best and not is_current and best.step in steps(self.folder):
            point(self.folder, "best", best.step, **best.metrics)

    def averaged_steps(self) -> list[int]:
        """Returns the steps of the checkpoints that are averaged at the end: the newest `average` regular checkpoints.
        A checkpoint is regular if its step is a multiple of `every` or the last step of the run. Checkpoints that were
        only saved at an interruption or for a new best evaluation are not regular."""
        if not self.average:
            return []
        regular = [step for step in steps(self.folder) if step % self.every == 0 or step == self.steps]
        return regular[-self.average :]
