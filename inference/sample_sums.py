"""The sums of a split for each of its samples. Intervals, the metrics of several folds and the loss of single samples
are computed from them. They are stored as `report/SPLIT-sums.safetensors`:

    about, keys, units    JSON: the fields of `About`, and for each sample its key, and the unit that is drawn again
    0.numbers             for the first task: the samples with a target, as indices of the keys
    0.sums.loss           their losses, and all other sums; long ones as a sparse matrix: .data, .indices, .indptr, ...
    0.texts               JSON: [index of the sample, generated text, true text], ...
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from scipy import sparse
from torch import Tensor, nn

from ..data.processes import Processes
from ..files.reading import DataError
from ..files.records import Record, as_record, parse_json, partial_tensors, read_tensors
from ..files.writing import make_folder
from ..models.batch import Batch, Targets
from ..tasks.base import Task

FORMAT = 1
SPARSE = 32
"""Sums with at least this many numbers per sample, such as one per class, are kept as sparse matrices."""
WIDEST = 2**20
"""The largest number of numbers per sample of a stored sum."""
TOLERANCE = 1e-3
"""The largest difference, relative to the sum of a batch, of the added sums of its samples."""


@dataclass(frozen=True)
class TaskSums:
    """The sums of one task, by sample."""

    numbers: np.ndarray
    """The samples with a target, as numbers in the split (n)."""
    sums: Mapping[str, Any]
    """The sums by name, (n, ...): arrays in float64, or `scipy.sparse` matrices."""
    texts: Sequence[tuple[int, str, str]] = ()
    """The generated or recognised texts: the number of the sample, the text, the true text."""
    of_targets: Sequence[np.ndarray] = ()
    """The loss of each target, by sample, if it was requested."""

    def total(self) -> dict[str, Tensor]:
        """Returns the sums over all samples."""
        return as_tensors({name: np.asarray(rows.sum(0)) for name, rows in self.sums.items()}, self.sums)

    def select(self, positions: Mapping[int, int]) -> TaskSums:
        """Returns the sums of some samples, with other numbers. `positions` maps their numbers to the new ones."""
        kept = np.array([number in positions for number in self.numbers.tolist()], dtype=bool)
        numbers = np.array([positions[number] for number in self.numbers[kept].tolist()], dtype=np.int64)
        sums = {name: rows[np.flatnonzero(kept)] for name, rows in self.sums.items()}
        return TaskSums(numbers, sums, [(positions[n], *texts) for n, *texts in self.texts if n in positions])

    @property
    def nats(self) -> np.ndarray:
        """The loss of each sample, without label smoothing and class weights (n)."""
        return self.sums.get("nats", self.sums.get("loss", np.empty(0)))


def as_tensors(sums: Mapping[str, np.ndarray], like: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns sums over samples as tensors in the shapes that `Metric.of_sums` expects. `like` are the sums by
    sample."""
    return {
        name: torch.from_numpy(np.ascontiguousarray(value, dtype=np.float64)).reshape(like[name].shape[1:])
        for name, value in sums.items()
    }


@dataclass
class Collected:
    """Collects the sums of the samples of one task while batches are evaluated."""

    by_target: bool = False
    """Whether the loss of each target is collected, too."""
    parts: list[tuple[list[int], dict[str, Any], list[np.ndarray]]] = field(default_factory=list)
    """The numbers of the samples of each batch, their sums, and the losses of their targets."""
    is_possible: bool = True
    """False if the sums of the samples do not add up to that of a batch: then the loss compares samples."""

    def add(self, name: str, task: Task, head: nn.Module, output: Tensor, batch: Batch, mask: Tensor,
            totals: Mapping[str, Tensor]) -> None:  # fmt: skip
        """Adds the samples of a batch for which `mask` is true. `output` is the output of the task's head, `totals` are
        the sums over the batch."""
        if not batch.apart:  # all samples of the batch are bad
            return
        parts = outputs_alone(name, head, output, batch) if self.is_possible else None
        if parts is None:
            self.is_possible = False
            return
        samples = zip(batch.apart, parts, mask.tolist(), strict=True)
        chosen = [(sample, own, targets) for sample, (own, targets), has_target in samples if has_target]
        if not chosen:
            return
        rows = [sums_alone(task, own, targets, sample.units) for sample, own, targets in chosen]
        sums = {key: torch.stack([each[key].double().to(output.device) for each in rows]) for key in rows[0]}
        self.is_possible = all(adds_up(values.sum(0), totals[key]) for key, values in sums.items())
        of_targets = [task.losses(own, targets) for _, own, targets in chosen] if self.by_target else []
        self.parts.append((
            [sample.number for sample, _, _ in chosen],
            {key: compact(values.to("cpu", torch.float64).numpy()) for key, values in sums.items()},
            [losses.to("cpu", torch.float64).numpy() for losses in of_targets],
        ))  # fmt: skip

    def joined(self, processes: Processes, texts: Sequence[tuple[int, str, str]]) -> TaskSums | None:
        """Returns the sums of the samples of all processes, sorted by their numbers; None if they are not possible."""
        parts = processes.gathered(self.parts if self.is_possible else [None])
        if None in parts:
            return None
        numbers = np.array([number for numbers, _, _ in parts for number in numbers], dtype=np.int64)
        order = np.argsort(numbers, kind="stable")
        names = parts[0][1] if parts else {}
        sums = {name: stacked([rows[name] for _, rows, _ in parts])[order] for name in names}
        losses = [losses for _, _, of_targets in parts for losses in of_targets]
        of_targets = [losses[row] for row in order.tolist()] if losses else []
        return TaskSums(numbers[order], sums, sorted(texts, key=lambda text: text[0]), of_targets)


def sums_alone(task: Task, output: Tensor, targets: Targets, units: Mapping[str, float]) -> dict[str, Tensor]:
    """Returns the sums of one sample by name. `output` and `targets` are those of the sample alone."""
    loss = next(iter(task.terms(output, targets).values()))
    sums = {"loss": loss, "count": torch.tensor(float(targets.count)), **task.measure(output, targets)}
    if task.needs.makes_items:
        sums["units"] = torch.tensor(float(units.get(task.target, 0.0)))
    return sums


def outputs_alone(name: str, head: nn.Module, output: Tensor, batch: Batch) -> list[tuple[Tensor, Targets]] | None:
    """Returns (output, targets) of each sample of a batch: its rows of the output, which follow each other in the order
    of the samples. None if the numbers of rows do not fit."""
    targets = [sample.targets[name] for sample in batch.apart]
    for rows in ([head.vectors(each) for each in targets], [len(each.values) for each in targets]):
        if sum(rows) == len(output):
            return list(zip(output.split(rows), targets, strict=True))
    return None


def adds_up(total: Tensor, expected: Tensor) -> bool:
    """Returns whether the added sums of samples are equal to the sum of their batch, up to rounding."""
    return torch.allclose(total.double().cpu(), expected.double().cpu(), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def compact(rows: np.ndarray) -> Any:
    """Returns the rows of a sum as a sparse matrix if they are long, else unchanged."""
    return sparse.csr_array(rows) if rows.ndim == 2 and rows.shape[1] >= SPARSE else rows


def stacked(parts: Sequence[Any]) -> Any:
    """Returns the rows of several arrays or sparse matrices below each other."""
    return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)


Unit = str | int | float | bool | None
"""The value by which samples are drawn together: that of a group, or the number of a block."""


class About(Record):
    """Facts about stored sums."""

    format: int
    split: str
    step: int
    """The step of the checkpoint."""
    weights: str
    """The checksums of its weights (`checkpoints.identity`)."""
    tasks: tuple[str, ...]
    kind: Literal["samples", "groups", "blocks", "windows"] = "samples"
    """What is drawn again: single samples, all samples with the same value in a column, consecutive windows of a table,
    or windows of a text corpus."""
    of: str = ""
    """The column of the groups, or the length of a block."""


@dataclass(frozen=True, kw_only=True)
class SplitSums:
    """The sums of all tasks on a split, by sample."""

    about: About
    keys: Sequence[str]
    """The key of each sample."""
    units: Sequence[Unit] | None
    """The unit of each sample; None: each sample is a unit."""
    tasks: Mapping[str, TaskSums]
    """The sums by task. Their numbers are indices of `keys`."""

    def write(self, folder: Path, within: Path | None = None) -> None:
        """Writes `SPLIT-sums.safetensors` into a folder. Raises OSError if it cannot be written."""
        tensors = {"about": as_bytes(self.about.model_dump(mode="json")), "keys": as_bytes(list(self.keys))}
        tensors["units"] = as_bytes(None if self.units is None else list(self.units))
        for index, name in enumerate(self.about.tasks):
            part = self.tasks[name]
            tensors[f"{index}.numbers"] = torch.from_numpy(part.numbers)
            tensors[f"{index}.texts"] = as_bytes([list(each) for each in part.texts])
            for key, rows in part.sums.items():
                tensors |= {f"{index}.sums.{key}{end}": torch.from_numpy(a) for end, a in arrays_of(rows).items()}
        make_folder(folder, within)
        with partial_tensors(file_of(folder, self.about.split), tensors) as partial:
            os.replace(partial, file_of(folder, self.about.split))


def file_of(folder: Path, split: str) -> Path:
    """Returns the path of the sums of a split in the folder of a report."""
    return folder / f"{split}-sums.safetensors"


def as_bytes(value: Any) -> Tensor:
    """Returns a value as the bytes of its JSON text."""
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def arrays_of(rows: Any) -> dict[str, np.ndarray]:
    """Returns the arrays that represent sums by sample, by the ends of their names."""
    if not sparse.issparse(rows):
        return {"": np.ascontiguousarray(rows)}
    indices, indptr = rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
    return {".data": rows.data, ".indices": indices, ".indptr": indptr, ".shape": np.array(rows.shape, dtype=np.int64)}


def read_sums(folder: Path, split: str) -> SplitSums | None:
    """Returns the stored sums of a split; None if there are none. Raises DataError if the file is damaged or has
    another format."""
    file = file_of(folder, split)
    if not os.path.isfile(file):
        return None
    tensors = read_tensors(file)
    try:
        return sums_in(tensors)
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError, ValidationError) as error:
        raise DataError(f"{file} is damaged: {error}; `chopmix evaluate` writes it again") from None


def sums_in(tensors: Mapping[str, Tensor]) -> SplitSums:
    """Returns the sums in the tensors of a file. Raises an exception if they do not fit together."""
    about = as_record(tensors["about"].numpy().tobytes(), About, "about")
    if about.format != FORMAT:
        raise ValueError(f"it has format {about.format}; this version reads {FORMAT}")
    keys, units = (parse_json(tensors[name].numpy().tobytes(), name) for name in ("keys", "units"))
    if not is_list_of(keys, str) or not (units is None or (is_list_of(units, Unit) and len(units) == len(keys))):
        raise ValueError("keys and units do not fit together")
    tasks = {}
    for index, name in enumerate(about.tasks):
        start = f"{index}.sums."
        names = dict.fromkeys(key.removeprefix(start).partition(".")[0] for key in tensors if key.startswith(start))
        sums = {key: rows_in(tensors, start + key) for key in names}
        numbers = tensors[f"{index}.numbers"].numpy().astype(np.int64)
        texts = [tuple(each) for each in parse_json(tensors[f"{index}.texts"].numpy().tobytes(), "texts")]
        known = [number for number, _, _ in texts] + numbers.tolist()
        if numbers.ndim != 1 or any(not isinstance(n, int) or not 0 <= n < len(keys) for n in known):
            raise ValueError(f"the samples of task {name!r} are not those of the keys")
        if any(rows.shape[:1] != numbers.shape for rows in sums.values()) or not is_texts(texts):
            raise ValueError(f"the sums of task {name!r} do not fit together")
        tasks[name] = TaskSums(numbers, sums, texts)
    return SplitSums(about=about, keys=keys, units=units, tasks=tasks)


def rows_in(tensors: Mapping[str, Tensor], name: str) -> Any:
    """Returns the sums by sample with this name, an array or a sparse matrix."""
    if name in tensors:
        return tensors[name].to(torch.float64).numpy()
    return sparse_rows(tensors, name)


def sparse_rows(tensors: Mapping[str, Tensor], name: str) -> Any:
    """Returns a sparse matrix. Raises an exception if its parts do not fit together."""
    data, indices, indptr, shape = (tensors[f"{name}.{end}"].numpy() for end in ("data", "indices", "indptr", "shape"))
    if len(shape) != 2 or not 0 <= shape[1] <= WIDEST:
        raise ValueError(f"{name} has the shape {shape.tolist()}")
    rows = sparse.csr_array((data.astype(np.float64), indices, indptr), shape=tuple(shape.tolist()))
    rows.check_format(full_check=True)
    return rows


def is_list_of(value: Any, kind: Any) -> bool:
    """Returns whether a value is a list whose elements are all of a type."""
    return isinstance(value, list) and all(isinstance(each, kind) for each in value)


def is_texts(texts: Sequence[tuple[Any, ...]]) -> bool:
    """Returns whether all texts are triples (number, text, text)."""
    return all(isinstance(text, str) for _, *pair in texts for text in pair)
