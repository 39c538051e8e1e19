"""Division of the samples of a data set into splits (`data.split`) and folds, and balanced drawing (`data.balance`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..files.reading import DataError, shown
from ..files.records import as_numbers, as_text
from .fingerprint import Fingerprint
from .key_hashes import share_by_hash
from .sample_keys import shares_of
from .samples import Changed, Columns, Samples


@dataclass(frozen=True, kw_only=True)
class Division:
    """Divides the samples of a data set into the splits for which it has no separate files. `val` and `test` are the
    shares of the samples in these splits; `test` 0: no test split. With a separate file for test, which is the usual
    form of a benchmark, `val` is a share of train.

    Samples are drawn by the hash of their key, so the splits are the same in every run. `stratify`: a column of
    classes; every split has the same proportions of the classes, as far as possible. `group`: a column, such as a
    speaker or a patient; all samples with the same value are in the same split. `order`: a column of numbers or texts,
    such as a time; train has the smallest values, then val, then test, and equal values are never separated.

        data: {dataset: {use: image_folder, train: photos}, split: {val: 0.1, test: 0.1, stratify: label}}

    Raises ValueError if a share is out of range, or if `order` is combined with `stratify` or `group`.
    """

    val: float = 0.1
    test: float = 0.0
    stratify: str | None = None
    group: str | None = None
    order: str | None = None
    folds: int | None = None
    """The number of folds for cross-validation (`--folds`); the samples of train and val together are divided into
    folds of equal size. null: `val` is used instead."""
    fold: int = 0
    """The fold, from 0, that is the split val; all other folds are the split train."""
    inner: float | None = None
    """For cross-validation (`--inner`): the share of the other folds that is the split val, which selects the
    checkpoint; the fold is then the split test. null: the fold is the split val."""

    def __post_init__(self):
        if not (0 < self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise ValueError(f"val and test must be shares with a sum below 1, not {self.val:g} and {self.test:g}")
        if self.order and (self.stratify or self.group):
            raise ValueError("order cannot be combined with stratify or group")
        if self.folds is not None and not (2 <= self.folds <= 1000 and 0 <= self.fold < self.folds):
            raise ValueError(f"folds must be from 2 to 1,000, and fold from 0 to folds - 1, not {self.fold}")
        if self.folds and self.order:
            raise ValueError("folds cannot be combined with order, because train would contain later samples than val")
        if self.inner is not None and not (self.folds and 0 < self.inner < 1 and not self.test):
            raise ValueError(
                f"inner is a share above 0 and below 1, not {self.inner:g}; it needs folds, and no `test`, because the "
                "fold is the split test"
            )

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return ("train", "val", "test") if self.shares["test"] else ("train", "val")

    @property
    def shares(self) -> dict[str, float]:
        """The shares of all splits."""
        val, test = 1 / self.folds if self.folds else self.val, self.test
        if self.inner:
            val, test = self.inner * (1 - val), val
        return {"train": 1 - val - test, "val": val, "test": test}

    @property
    def columns(self) -> list[str]:
        """The columns that the division reads."""
        return [name for name in (self.stratify, self.group, self.order) if name]

    def numbers(self, samples: Samples, splits: Sequence[str]) -> dict[str, list[int]]:
        """Returns the numbers of the samples in each of the `splits`, of which the first is train, ascending, by the
        name of the split. Raises DataError if a split has no samples, if a sample has no value in the column `group` or
        `order`, if a class has fewer samples than there are folds, or if a column does not exist."""
        everything = np.arange(len(samples))
        drawn = {"val": 0.0 if self.folds else self.val, "test": self.test}
        drawn = {split: share for split, share in drawn.items() if share and split in splits}
        shares = {"train": 1 - sum(drawn.values()), **drawn}
        numbers = dict(zip(shares, self.divided(samples, everything, list(shares.values())), strict=True))
        if self.folds:
            folds = self.divided(samples, numbers["train"], [1 / self.folds] * self.folds, whole=False)
            self.check_folds(samples, folds)
            others = np.sort(np.concatenate([f for n, f in enumerate(folds) if n != self.fold]))
            numbers |= {"train": others, "val": folds[self.fold]}
            if self.inner:
                train, val = self.divided(samples, others, [1 - self.inner, self.inner])
                numbers = {"train": train, "val": val, "test": folds[self.fold]}
        for split in splits:
            if not len(numbers[split]):
                raise DataError(f"data.split: the split {split} has no samples: {self.reason(samples)}")
        return {split: numbers[split].tolist() for split in splits}

    def divided(
        self, samples: Samples, numbers: np.ndarray, shares: Sequence[float], whole: bool = True
    ) -> list[np.ndarray]:
        """Returns the numbers of the samples in each of several parts with these shares (their sum is 1), ascending.
        `whole`: the first part, train, should contain every class."""
        if self.order:
            parts = by_order(values_of(samples, self.order, numbers, "order"), shares)
        else:
            classes = classes_of(samples, self.stratify, numbers) if self.stratify else np.zeros(len(numbers), int)
            groups = values_of(samples, self.group, numbers, "group") if self.group else None
            if groups is None:
                hashes = shares_of(samples.keys)[numbers]
                parts = by_class(classes, hashes, shares, whole)
            else:
                parts = by_group(classes, groups, shares)
        return [numbers[parts == part] for part in range(len(shares))]

    def check_folds(self, samples: Samples, folds: Sequence[np.ndarray]) -> None:
        """Raises DataError if a fold has no samples, or if a class has fewer samples than there are folds."""
        if any(not len(fold) for fold in folds):
            raise DataError(f"{len(folds)} folds are too many: a fold has no samples: {self.reason(samples)}")
        if self.stratify:
            numbers = np.sort(np.concatenate(folds))
            counts = Counter(values_of(samples, self.stratify, numbers))
            counts.pop(None, None)  # the samples without a class
            label, count = min(counts.items(), key=lambda item: item[1], default=(None, len(folds)))
            if count < len(folds):
                raise DataError(
                    f"{len(folds)} folds are too many: the class {shown(label)} in column {self.stratify!r} has "
                    f"{count} samples; use fewer folds, or remove stratify"
                )

    def reason(self, samples: Samples) -> str:
        """Returns why a split can be empty, for messages: `10 samples in 1 groups (column 'speaker')`."""
        column = self.group or self.order
        if column is None:
            return f"there are only {len(samples)} samples"
        values = set(values_of(samples, column, np.arange(len(samples)), "order" if self.order else "group"))
        return f"{len(samples)} samples have only {len(values)} different values in column {column!r}"

    def notices(self, samples: Samples, numbers: Mapping[str, Sequence[int]]) -> list[str]:
        """Returns the number of groups in each split, and sentences about a division that differs much from the shares:
        a split with more than twice its share, because a group is large, and classes that are missing in a split."""
        lines, shares = [], self.shares
        if self.group:
            groups = {s: len(set(values_of(samples, self.group, np.array(numbers[s])))) for s in numbers}
            listed = ", ".join(f"{count:,} in {split}" for split, count in groups.items())
            lines.append(f"data.split: of the values in column {self.group!r}, {listed}; none is in two splits")
        for split in list(numbers)[1:]:
            share = len(numbers[split]) / len(samples)
            if self.group and share > 2 * shares[split]:
                lines.append(
                    f"data.split: {split} has {share:.0%} of the samples instead of {shares[split]:.0%}, because the "
                    f"groups in column {self.group!r} are large"
                )
            if self.stratify:
                train, other = (set(values_of(samples, self.stratify, np.array(numbers[s]))) for s in ("train", split))
                for label in sorted(train ^ other, key=str):
                    where = split if label in train else "train"
                    missing = "sample without a class" if label is None else f"sample of the class {shown(label)}"
                    lines.append(f"data.split: {where} has no {missing}")
        return lines


def values_of(samples: Samples, column: str, numbers: np.ndarray, purpose: str = "") -> list[Any]:
    """Returns the values of a column for the samples with these numbers, as texts (see `as_text`), so that 1 and 1.0
    are the same group. For the `purpose` "order", texts of numbers are numbers, and other values are unchanged. For
    "order" and "group", raises DataError if a sample has no value; otherwise such a sample has the value None. Raises
    DataError for a value that is not a text or a number."""
    values = dict(samples.numbered(column))
    for number in numbers.tolist():
        if purpose and number not in values:
            raise DataError(f"data.split.{purpose}: sample {samples.keys[number]!r} has no value in column {column!r}")
    selected = [values.get(number) for number in numbers.tolist()]
    if wrong := [value for value in selected if not isinstance(value, str | int | float | None)]:
        raise DataError(f"data.split: the values in column {column!r} must be texts or numbers, not {shown(wrong[0])}")
    if purpose == "order":
        ordered = [as_numbers(value) for value in selected]
        return selected if any(isinstance(value, str | list) for value in ordered) else ordered
    return [None if value is None else as_text(value) for value in selected]


def classes_of(samples: Samples, column: str, numbers: np.ndarray) -> np.ndarray:
    """Returns the index of the class of each sample; samples without a class are one class."""
    values = ["" if value is None else f"={value}" for value in values_of(samples, column, numbers)]
    return np.unique(values, return_inverse=True)[1]


def by_class(classes: np.ndarray, hashes: np.ndarray, shares: Sequence[float], whole: bool) -> np.ndarray:
    """Returns the part of each sample. The samples are sorted by class, then by hash, and dealt to the parts: each
    sample goes to the part that is furthest below its share of the samples so far. Every part thus has its share of all
    samples and of each class, up to a few samples. With `whole`, the first part has the first sample of
    each class, so no class is missing in it."""
    order, parts, counts = np.lexsort([hashes, classes]), np.empty(len(classes), dtype=int), [0] * len(shares)
    previous = -1
    for rank, (sample, label) in enumerate(zip(order.tolist(), classes[order].tolist()), start=1):
        lacking = [rank * share - count for share, count in zip(shares, counts)]
        parts[sample] = part = 0 if whole and label != previous else lacking.index(max(lacking))
        counts[part] += 1
        previous = label
    return parts


def by_group(classes: np.ndarray, groups: Sequence[str], shares: Sequence[float]) -> np.ndarray:
    """Returns the part of each sample, which is the same for all samples of a group. The groups are dealt to the parts,
    the largest first (equal ones by the hash of their names); each goes to the part that lacks most samples of its
    classes. No part is empty if there are at least as many groups as parts."""
    names, inverse = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(classes.max(initial=0)) + 1))
    np.add.at(counts, (inverse, classes), 1)
    wanted, dealt = np.outer(shares, counts.sum(0)), np.zeros((len(shares), counts.shape[1]))
    hashes = np.array([share_by_hash(str(name)) for name in names])
    part_of_group = np.empty(len(names), dtype=int)
    for rank, group in enumerate(np.lexsort([hashes, -counts.sum(1)]).tolist()):
        lacking = ((wanted - dealt) * counts[group] / counts.sum(0)).sum(1)
        empty = ~dealt.any(1) & (np.asarray(shares) > 0)
        if len(names) - rank <= empty.sum():
            lacking[~empty] = -np.inf
        part_of_group[group] = part = int(np.argmax(lacking))
        dealt[part] += counts[group]
    return part_of_group[inverse]


def by_order(values: Sequence[Any], shares: Sequence[float]) -> np.ndarray:
    """Returns the part of each sample: the smallest values are in the first part. Samples with equal values are in the
    same part. Raises DataError if some values are texts and others are numbers."""
    if len({isinstance(value, str) for value in values}) > 1:
        raise DataError("data.split.order: some values are texts, others are numbers")
    ranks = np.unique(np.asarray(values), return_inverse=True)[1]
    ends = np.ceil(np.cumsum(np.asarray(shares))[:-1] * len(values) - 1e-6).astype(int)  # 1 - 0.2 - 0.1 is above 0.7
    cuts = np.sort(ranks)[np.minimum(ends, len(values) - 1)]
    return np.searchsorted(cuts, ranks, side="right")


@dataclass(frozen=True)
class Balanced(Changed):
    """The same samples; training draws every class in column `name` with the same probability, with replacement. The
    samples without a class are one class."""

    name: str

    @cached_property
    def weights(self) -> np.ndarray:
        classes = classes_of(self.samples, self.name, np.arange(len(self)))
        return 1 / np.bincount(classes)[classes]

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        return self.samples.row(number, names)

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        return Fingerprint("Balanced", self.samples.fingerprint(labels), [self.name]).hex


def balanced(samples: Samples, column: str) -> Samples:
    """Returns the samples with equal probabilities of the classes in a column. Raises DataError for a mixture, and for
    samples that already have weights."""
    if samples.mixture or samples.weights is not None:
        raise DataError("data.balance is not possible for a mixture, or for samples with weights")
    return Balanced(samples, column)
