"""The report of a classification: a row per class, the confusions, the calibration, and the accuracy of the answers
above a threshold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ...files.printing import printable
from .calibration import Calibration, draw_reliability, threshold_rows
from .ranking import auroc, average_precision
from .report import Mistake, Picture, Reporter, Section, Table, divided

MATRIX, PAIRS, NAMED, WRITTEN, LETTERS = 2000, 20, 60, 30, 30
"""MATRIX: the largest number of classes with a confusion matrix. PAIRS: the number of confusions that a page lists.
NAMED and WRITTEN: the largest number of classes for which the picture shows the names of the classes and the counts.
LETTERS: the longest name in the picture."""
LISTED = 20
"""The largest number of classes whose numbers of samples are stated below a table."""
COLUMNS = ("class", "samples", "predicted", "correct", "precision", "recall", "f1", "auroc", "average_precision")


def class_rows(
    classes: Sequence[Any], true: Counter, predicted: Counter, hits: Counter,
    ranked: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[list[Any]]:  # fmt: skip
    """Returns the rows of the table of classes, with the columns COLUMNS: the lowest F1 first, and at the end the
    classes that are neither true nor predicted. A value that is not defined is None: the precision of a class that is
    never predicted, the recall of a class without samples."""
    rows = []
    for number, name in enumerate(classes):
        precision, recall = divided(hits[name], predicted[name]), divided(hits[name], true[name])
        f1 = divided(2 * hits[name], true[name] + predicted[name])
        orders = [None, None]
        if ranked:
            scores, positive = (table[:, number] for table in ranked)
            orders = [
                None if math.isnan(x := measure(scores, positive)) else x for measure in (auroc, average_precision)
            ]
        rows.append([name, true[name], predicted[name], hits[name], precision, recall, f1, *orders])
    return sorted(rows, key=lambda row: (row[6] is None, row[6]))


class ClassReporter(Reporter):
    """The report of a classification with one class per sample. `limit`: the largest number of values (samples times
    classes) that are kept for the calibration."""

    def __init__(self, classes: Sequence[Any], limit: int = 20_000_000):
        super().__init__()
        self.classes, self.numbers = list(classes), {name: number for number, name in enumerate(classes)}
        self.pairs: Counter[tuple[Any, Any]] = Counter()
        self.unknown: Counter[str] = Counter()
        self.rows: list[np.ndarray] = []
        self.targets: list[int] = []
        self.limit, self.confident = limit // len(classes), list[tuple[float, bool]]()

    def add(self, number: int, key: str, true: Any, answer: Mapping[str, Any]) -> None:
        if true not in self.numbers:
            self.unknown[str(true)] += 1
            return
        probabilities, predicted = answer["probabilities"], answer["class"]
        self.pairs[true, predicted] += 1
        confidence = probabilities[str(predicted)]
        self.confident.append((confidence, true == predicted))
        if len(self.rows) < self.limit and len(probabilities) == len(self.classes):  # not if two have the same text
            self.rows.append(np.fromiter(probabilities.values(), np.float32, len(self.classes)))
            self.targets.append(self.numbers[true])
        if true != predicted:
            text = f"{predicted} ({confidence:.3f}), true: {true} ({probabilities[str(true)]:.3f})"
            self.note_mistake(confidence - probabilities[str(true)], Mistake(number, key, text))

    def section(self, saved: Mapping[str, Any], store: bool) -> Section:
        samples = len(self.confident)
        if not samples:
            return Section(0, lines=self.remarks([]))
        true, predicted, hits = Counter[Any](), Counter[Any](), Counter[Any]()
        for (true_class, answer), number in self.pairs.items():
            true[true_class] += number
            predicted[answer] += number
            hits[true_class] += number * (true_class == answer)
        ranked = None
        if len(self.rows) == samples:
            ranked = np.stack(self.rows), np.array(self.targets)[:, None] == np.arange(len(self.classes))
        rows = class_rows(self.classes, true, predicted, hits, ranked)
        note = f"{samples:,} samples: {self.counted(true)}"
        tables = [Table("classes", "Classes, the lowest F1 first", COLUMNS, rows, note, shown=50)]
        if mistaken := [(pair, number) for pair, number in self.pairs.most_common() if pair[0] != pair[1]]:
            listed = [[*pair, number, number / true[pair[0]]] for pair, number in mistaken]
            columns = ("true", "predicted", "samples", "share_of_true")
            tables.append(Table("confusions", "The most frequent confusions", columns, listed, note, shown=PAIRS))
        pictures = []
        if len(self.classes) <= MATRIX:
            confusion = [[name, *(self.pairs[name, other] for other in self.classes)] for name in self.classes]
            headline = ("true", *(f"predicted {name}" for name in self.classes))
            tables.append(Table("confusion", "Confusion matrix", headline, confusion, note, shown=0))
            size = 2.0 + 0.32 * min(len(self.classes), NAMED)
            pictures = [Picture("confusion", f"Confusion matrix ({samples:,} samples)", self.draw, (size + 1, size))]
        lines, stored = self.remarks(rows), {}
        if self.rows:
            calibration = Calibration.of(np.stack(self.rows), np.array(self.targets), saved, store)
            measured = Counter(self.classes[number] for number in calibration.targets.tolist())
            tables.append(replace(calibration.table(), note=f"{calibration.table().note}; {self.counted(measured)}"))
            pictures.append(Picture("calibration", "Reliability", partial(draw_reliability, calibration)))
            lines += calibration.lines()
            stored = {"temperature": calibration.temperature} if store and calibration.temperature else {}
        confidences, correct = (np.array(column) for column in zip(*self.confident))
        tables.append(
            Table(
                "thresholds", "Accuracy of the answers with at least this probability (without calibration)",
                ("threshold", "answered", "coverage", "accuracy"), threshold_rows(confidences, correct),
                note,
            )
        )  # fmt: skip
        return Section(samples, tables, pictures, self.worst(), lines, stored)

    def counted(self, numbers: Counter) -> str:
        """Returns the number of samples of each class as text, of at most LISTED classes."""
        others = f", and {len(self.classes) - LISTED} other classes" if len(self.classes) > LISTED else ""
        return ", ".join(f"{numbers[name]:,} {name}" for name in self.classes[:LISTED]) + others

    def remarks(self, rows: Sequence[Sequence[Any]]) -> list[str]:
        """Returns sentences about classes that are never predicted, and about labels that training did not contain."""
        lines = []
        if never := [str(row[0]) for row in rows if row[1] and not row[2]]:
            names = ", ".join(never[:10]) + (", ..." if len(never) > 10 else "")
            lines.append(f"never predicted although there are samples: {names}")
        if self.unknown:
            names = ", ".join(f"{name} ({number:,})" for name, number in self.unknown.most_common(10))
            lines.append(f"{self.unknown.total():,} samples have labels that training did not contain: {names}")
        return lines

    def draw(self, canvas: Any) -> None:
        """Draws the confusion matrix. The color is the share of the samples of the true class."""
        matrix = np.array([[self.pairs[row, column] for column in self.classes] for row in self.classes], float)
        shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        canvas.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        canvas.set(xlabel="predicted", ylabel="true")
        if len(self.classes) <= NAMED:
            texts = [printable(str(name)) for name in self.classes]
            names = [text if len(text) <= LETTERS else f"{text[: LETTERS - 3]}..." for text in texts]
            canvas.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
            canvas.set_yticks(range(len(names)), names, fontsize=8)
        for row, column in np.argwhere(matrix) if len(self.classes) <= WRITTEN else ():
            color = "white" if shares[row, column] > 0.5 else "black"
            text = f"{int(matrix[row, column])}"
            canvas.text(column, row, text, ha="center", va="center", color=color, fontsize=7)


class LabelReporter(Reporter):
    """The report of a classification with several labels per sample."""

    def __init__(self, classes: Sequence[Any], limit: int = 20_000_000):
        super().__init__()
        self.classes, self.samples, self.limit = list(classes), 0, limit // len(classes)
        self.rows: list[tuple[np.ndarray, np.ndarray]] = []
        self.true, self.predicted, self.hits = Counter[Any](), Counter[Any](), Counter[Any]()

    def add(self, number: int, key: str, true: Any, answer: Mapping[str, Any]) -> None:
        labels, predicted = set(true), set(answer["classes"])
        self.samples += 1
        self.true.update(labels)
        self.predicted.update(predicted)
        self.hits.update(labels & predicted)
        if len(self.rows) < self.limit and len(answer["probabilities"]) == len(self.classes):
            scores = np.fromiter(answer["probabilities"].values(), np.float32, len(self.classes))
            self.rows.append((scores, np.array([name in labels for name in self.classes])))
        if wrong := labels ^ predicted:
            text = f"{', '.join(map(str, predicted)) or 'none'}, true: {', '.join(map(str, labels)) or 'none'}"
            self.note_mistake(len(wrong), Mistake(number, key, text))

    def section(self, saved: Mapping[str, Any], store: bool) -> Section:
        ranked = tuple(map(np.stack, zip(*self.rows))) if self.rows and len(self.rows) == self.samples else None
        rows = class_rows(self.classes, self.true, self.predicted, self.hits, ranked)
        note = f"{self.samples:,} samples with {self.true.total():,} labels"
        table = Table("classes", "Labels, the lowest F1 first", COLUMNS, rows, note, shown=50)
        return Section(self.samples, [table], worst=self.worst())
