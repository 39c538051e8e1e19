"""What configurations for data of the user have in common: the sizes of the model, the number of steps, the target
column, the division into splits. `Start` is a configuration with what was found in the data."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...files.errors import UsageError
from ...files.printing import listed
from ...tasks.classification import FEW

INSPECTED = 500
"""The largest number of files that are opened to find sizes, rates and durations."""
GROUPS = ("speaker", "subject", "patient", "person", "group", "session", "user", "machine")
"""Names of columns by which train and val are separated, if a table has one of them."""
TARGETS = ("label", "class", "target", "category", "state")
"""Names of columns that are probably the target."""


@dataclass
class Start:
    """A configuration, and what was found in the data."""

    question: str
    """The first line of the comment at the beginning of the file."""
    inputs: Mapping[str, Any]
    """The sections of the configuration. In `model` and `training`, only what differs between kinds of data."""
    model: Mapping[str, Any]
    tasks: Mapping[str, Any]
    data: Mapping[str, Any]
    training: Mapping[str, Any]
    best: str
    """The metric of the best checkpoint."""
    found: Sequence[str] = ()
    """Sentences about the data, for the terminal and for the comment at the beginning of the file."""
    comments: Mapping[str, str] = field(default_factory=dict)
    """Comments on keys, by path: {"inputs.image.size": "images are scaled to this size"}."""
    samples: int = 0
    """The number of samples; 0 for texts."""
    has_baselines: bool = True
    """Whether the run is compared with simple models at its end."""

    @property
    def tree(self) -> dict[str, Any]:
        """The complete configuration."""
        model = dict(self.model)
        layer_norm = {"use": "layer_norm", "gain": False}
        block = {"norm": layer_norm, "query_key_norm": layer_norm, "feed_forward": "squared_relu", "bias": False}
        sizes = {"width": model.pop("width"), "depth": model.pop("depth"), "heads": self.model["width"] // 32}
        dropout = {"dropout": model.pop("dropout")}
        muon = {"use": "muon", "embeddings": 0.5, "heads": 0.2, "others": 0.1, "weight_decay": 0.05}
        schedule = {"use": "warmup_stable_decay", "decay": 0.7}
        return {
            "inputs": self.inputs,
            "model": {**sizes, **model, "block": block, "initialization": "zero_projections", **dropout},
            "tasks": self.tasks,
            "data": self.data,
            "training": {**self.training, "learning_rate": 0.02, "optimizer": muon, "schedule": schedule, "clip": None},
            "checkpoints": {"best": self.best},
            **({"evaluation": {"baselines": True}} if self.has_baselines else {}),
        }  # fmt: skip

    @property
    def all_comments(self) -> dict[str, str]:
        """The comments on keys, also on those that all kinds of data have."""
        comments = {"model.context": "the largest number of tokens in a sample", **self.comments}
        comments |= {"evaluation.baselines": "simple models, fitted to the same samples"} if self.has_baselines else {}
        if self.samples:
            split = self.data.get("split", {"val": 0.1})
            trained = self.samples * (1 - split.get("val", 0) - split.get("test", 0))
            read = self.training["steps"] * self.training["samples_per_step"] / trained
            comments["training.steps"] = f"reads each of about {trained:,.0f} training samples {read:.0f} times"
        return comments


@dataclass(frozen=True)
class FileInput:
    """An input of files."""

    noun: str
    """What the files are: `images`."""
    options: dict[str, Any]
    """The options of the input in a YAML."""
    tokens: int
    """The largest number of tokens of a file."""
    text: str
    """The sizes of the files, as a part of a sentence."""
    bad: list[str]
    """The inspected files that cannot be read."""
    inspected: int
    """The number of inspected files that can be read."""
    notes: Mapping[str, str]
    """Comments on the options."""

    def line(self, count: int) -> str:
        """Returns a sentence about `count` files."""
        return f"{count:,} {self.noun} of {self.text}{unreadable(self.bad, self.inspected)}"

    def comments(self, name: str) -> dict[str, str]:
        """Returns the comments on the options, for an input with this name."""
        return {f"inputs.{name}.{key}": note for key, note in self.notes.items()}


def training_of(samples: int, most: int = 1000) -> dict[str, Any]:
    """Returns the batch size and the number of steps for a number of training samples: about 30 epochs, but at least
    200 and at most `most` steps."""
    batch = 64 if samples >= 640 else max(4, samples // 10)
    return {"steps": int(np.clip(30 * samples / batch, 200, most)), "samples_per_step": batch}


def model_of(context: int, samples: int, **more: Any) -> dict[str, Any]:
    """Returns the sizes of a model for inputs of `context` tokens."""
    small = samples < 2000
    sizes = {"width": 64 if small else 96, "depth": 4, "dropout": 0.2 if small else 0.1, "context": context}
    return sizes | {"attention": "same_sample", "position": "rotary"} | more


def classes_line(counts: Counter) -> str:
    """Returns a sentence about the classes and their numbers of samples."""
    listed = ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(12))
    return f"{len(counts)} classes: {listed}{', ...' if len(counts) > 12 else ''}"


def unreadable(bad: Sequence[str], readable: int) -> str:
    """Returns a part of a sentence about the inspected files that cannot be read; empty if there are none."""
    rest = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    return f"; {len(bad)} of {readable + len(bad)} cannot be read ({bad[0]}{rest})" if bad else ""


BAD_SHARE = "at most this share of the samples may be unreadable"
"""The comment on the key `data.bad_share`."""


def bad_share_of(bad: Sequence[str], readable: int) -> dict[str, float]:
    """Returns the key of the section `data` that allows unreadable files, somewhat more than were found among the
    inspected ones; no key if all could be read."""
    share = max(0.1, math.ceil(30 * len(bad) / (readable + len(bad))) / 20)  # one and a half times, in steps of 0.05
    return {"bad_share": share} if bad else {}


def advice(counts: Counter | None, group: str | None = None) -> list[str]:
    """Returns sentences about a target column: how classes of very different sizes can be weighted, and what was chosen
    for a column of groups."""
    weighted = [
        "the classes have very different numbers of samples; to weight them equally, set class_weights: balanced in "
        "the task, and best: val/balanced_accuracy in checkpoints"
    ]
    grouped = [f"split by {group!r}: no value of this column is in two splits"]
    return weighted * (counts is not None and is_unequal(counts)) + grouped * (group is not None)


def is_unequal(counts: Counter) -> bool:
    """Returns whether the largest class has more than four times the samples of the smallest."""
    return max(counts.values()) > 4 * min(counts.values())


def classification(counts: Counter, column: str) -> dict[str, Any]:
    """Returns a task that predicts the classes in a column. Raises UsageError for fewer than two classes."""
    if len(counts) < 2:
        raise UsageError(f"there is only one class, {next(iter(counts), 'none')!r}; at least two are needed")
    return {name_of(column): {"use": "classification", "target": column, "label_smoothing": 0.1}}


def name_of(column: str) -> str:
    """Returns a valid name of a task for a column."""
    from torch import nn

    from ...inference.answers import RESERVED

    ascii_text = unicodedata.normalize("NFKD", column).encode("ascii", "ignore").decode()
    name = re.sub(r"\W", "_", ascii_text).strip("_") or "label"
    name = name if name[0].isalpha() else f"label_{name}"
    is_taken = name in RESERVED or hasattr(nn.ModuleDict, name)  # attributes of torch modules
    return f"{name}_class" if is_taken else name


def split_settings(counts: Counter | None, column: str | None, group: str | None = None) -> dict[str, Any]:
    """Returns the division into splits."""
    split: dict[str, Any] = {"val": 0.1, "test": 0.1}
    if counts and min(counts.values()) >= 3:
        split["stratify"] = column
    return {"split": split | ({"group": group} if group else {})}


def target_of(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Returns the column that is probably the target: one with such a name, else the column with the fewest different
    values (at least two). Raises UsageError if there is no such column."""
    numbers = {name: len({str(row.get(name)) for row in rows if row.get(name) not in (None, "")}) for name in names}
    candidates = [name for name in names if numbers[name] >= 2 and name.lower() not in GROUPS] or [
        name for name in names if numbers[name] >= 2
    ]
    if not candidates:
        raise UsageError(f"no column is a target: {', '.join(names) or 'there are no other columns'}")
    named = [name for name in candidates if name.lower() in TARGETS]
    return named[0] if named else min(candidates, key=numbers.__getitem__)


def labelled(values: Sequence[Any], label: str, group: str | None, found: list[str]) -> dict[str, Any]:
    """Returns the task, the division, the best metric and sentences for the values of a target column: a class, or a
    number if there are many different numbers."""
    if len(set(map(str, values))) > 30 and all(map(is_number, values)):
        numbers = [float(value) for value in values]
        found = [*found, f"{label}: numbers from {min(numbers):g} to {max(numbers):g}", *advice(None, group)]
        return {"tasks": {name_of(label): {"use": "regression", "target": label}}, "best": "val/loss",
                "data": split_settings(None, None, group), "found": found}  # fmt: skip
    counts = Counter(map(str, values))
    return {"tasks": classification(counts, label), "best": "val/accuracy",
            "data": split_settings(counts, label, group),
            "found": [*found, classes_line(counts), *advice(counts, group), *rare_classes(counts)]}  # fmt: skip


def rare_classes(counts: Counter, share: float = 0.1) -> list[str]:
    """Returns a warning if val and test, with this share of the samples each, have fewer than FEW samples of a
    class."""
    few = [str(name) for name, count in counts.items() if count * share < FEW]
    text = f"val and test have fewer than {FEW} samples of {listed(few, 5)}: their figures depend on chance"
    return [f"{text}; use --folds 5 to measure on all samples"] if few else []


def is_number(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


def encoder_input(run: str, kind: str) -> tuple[dict[str, Any], int]:
    """Returns (the input that uses a run as a frozen encoder of this kind of data, the run's context). Raises
    UsageError if the run has no such input."""
    from ..run import load_run

    loaded = load_run(run)
    names = [name for name, chopper in loaded.choppers.items() if chopper.kind == kind]
    if not names:
        raise UsageError(
            f"--encoder {run}: this run has no input of the kind {kind!r}; it has {', '.join(loaded.choppers)}"
        )
    return {"use": "encoded", "run": run, "input": names[0]}, loaded.model.context


FROZEN = "frozen: its weights are not trained"
"""The comment on an input of `encoder_input`."""
