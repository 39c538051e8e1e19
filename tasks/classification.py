"""Classification: predict a sample's class, or its labels, where it may have several."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, RootModel, StrictBool, StrictFloat, StrictInt, StrictStr
from torch import Tensor, nn

from ..files.reading import DataError, shown
from ..models.batch import IGNORED, Batch, Targets
from ..models.heads import MeanPooling, PooledLinear, Pooling, slots_read
from ..tokenizers.base import Example
from ..tokenizers.media.summaries import span
from .base import Metric, Needs, Task, TrainingColumns, per_target


class Classes(RootModel[Annotated[tuple[StrictBool | StrictInt | StrictFloat | StrictStr, ...], Field(min_length=2)]]):
    """The assets file `classes.json`: the classes, in the order of their scores."""


def is_label(value: Any) -> bool:
    """Whether a value can name a class: a text or a number that is not NaN."""
    return isinstance(value, str | int | float) and value == value


LISTED = 12
"""Up to so many classes are listed with their counts before the first step."""


CONFUSED = 2000
"""The largest number of classes for which a confusion matrix is counted."""


class Classification(Task):
    """Predict the class in the data column `target`, from whatever inputs a sample has.

    The classes are those in the training data, sorted: numbers, then texts. `several`: the column holds a list of
    labels, each of which is predicted by itself (binary cross-entropy). `label_smoothing` spreads that share of the
    target, 0 to below 1, over all classes (Szegedy et al. 2016, arXiv:1512.00567). `unlabelled`: the weight, 0 or more,
    of a loss on samples without a label, by which each is classified with certainty, and all classes equally often
    (minus the mutual information of Krause et al. 2010 and Liang et al. 2020, arXiv:2002.08546); it needs all samples
    of a batch, so that a batch is read in one part, by one process. `pooling`: `mean_pooling`, `attention_pooling`, or,
    with `model.core_tokens`, `class_token` or `core_tokens`.
    """

    Learned = Classes

    def __init__(
        self, *, target: str, pooling: Callable[..., Pooling] = MeanPooling, label_smoothing: float = 0.0,
        several: bool = False, unlabelled: float = 0.0, weight: float = 1.0,
    ):  # fmt: skip
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, not {label_smoothing}")
        if not 0 <= unlabelled < math.inf or (unlabelled and several):
            raise ValueError(f"unlabelled must be 0 or more, and 0 with several: true, not {unlabelled}")
        self.target, self.pooling, self.several, self.weight = target, pooling, several, weight
        self.smoothing, self.unlabelled = label_smoothing, unlabelled

    @property
    def needs(self) -> Needs:
        return Needs(columns={self.target: self.encoded}, whole_batch=self.unlabelled > 0)

    def fit(self, data: TrainingColumns) -> Classes:
        """The classes. Raises DataError where there are fewer than two, or `unlabelled` is set and all samples have a
        label."""
        found, labelled = set(), 0
        for value in data.column(self.target):
            found.update(self.labels(value))
            labelled += 1
        if self.unlabelled and labelled == len(data):
            raise DataError(
                f"unlabelled is {self.unlabelled}, but every training sample has a label in {self.target!r}"
            )
        if len(found) < 2:
            raise DataError(
                f"column {self.target!r} names {len(found)} classes in the training data; at least 2 are needed"
            )
        return Classes(tuple(sorted(found, key=lambda each: (isinstance(each, str), each))))

    def labels(self, value: Any) -> list[str | int | float]:
        """The labels in a value of the column. Raises DataError for what is no label, or a list of them where `several`
        is false, or no list where it is true."""
        found = list(value) if isinstance(value, list | tuple | set) else [value]
        if isinstance(value, list | tuple | set) == self.several and all(map(is_label, found)):
            return found
        wanted = "a list of labels, as several: true says" if self.several else "one label (or set several: true)"
        raise DataError(f"column {self.target!r} must hold {wanted}, not {shown(value)}; labels are texts or numbers")

    @property
    def classes(self) -> tuple[Any, ...]:
        """The classes, in the order of the scores."""
        return self.learned.root

    def check_answer(self, text: str) -> None:
        names = [str(name) for name in self.classes]
        if text not in names:
            raise ValueError(f"its classes are {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}")

    @cached_property
    def numbers(self) -> dict[Any, int]:
        """The index of each class in the scores."""
        return {name: number for number, name in enumerate(self.classes)}

    @cached_property
    def named(self) -> dict[str, Any]:
        """The classes by their text, as tables and folder names write them; empty where two have the same text."""
        found = {str(name): name for name in self.classes}
        return found if len(found) == len(self.numbers) else {}

    def summary(self, values: Sequence[Any]) -> str:
        counts = Counter(label for value in values for label in self.labels(value))
        if len(counts) > LISTED:
            return f"{len(counts)} classes of {span(counts.values(), 'sample(s)')}"
        return ", ".join(f"{count:,} {label}" for label, count in counts.most_common()) or "no labels"

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        return PooledLinear(self.pooling(width), width, len(self.classes))

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Values (s) of class indices, or with `several` (s, v) of zeros and ones, and the slots that are pooled."""
        slots, groups = slots_read(self.pooling, batch.first)
        rows = [self.encoded(label) for label in batch.first.labels[self.target]]
        values = torch.stack([self.encoded(None), *rows])[1:]  # of no rows, too
        judged = values if values.dim() == 1 else values[:, 0]
        return batch, Targets(
            values=values, slots=slots, groups=groups, count=int((judged != IGNORED).sum()),
            of_encoder=batch.encoder is not None, classes=0 if self.several else len(self.classes),
        )  # fmt: skip

    def supervised(self, batch: Batch, targets: Targets) -> Bool[Tensor, "s"]:
        judged = targets.values if targets.values.dim() == 1 else targets.values[:, 0]
        return judged != IGNORED  # a sample without tokens has a class, too

    def encoded(self, label: Any) -> Tensor:
        """The target of a label; `IGNORED` (-100) for None. Raises DataError for a label that is no class.

        Of the classes "cat" and "dog", "dog" is 1; with `several`, ["dog"] is [0., 1.], and None is [-100., -100.].
        """
        if label is None:
            return torch.full((len(self.classes),), float(IGNORED)) if self.several else torch.tensor(IGNORED)
        labels = [self.named.get(each, each) for each in self.labels(label)]
        unknown = [each for each in labels if each not in self.numbers]
        if unknown:
            raise DataError(
                f"{unknown[0]!r} in column {self.target!r} is none of the {len(self.classes)} classes "
                f"({', '.join(map(str, self.classes[:10]))}{', ...' if len(self.classes) > 10 else ''})"
            )
        numbers = torch.tensor([self.numbers[each] for each in labels], dtype=torch.long)
        return torch.zeros(len(self.classes)).index_fill_(0, numbers, 1.0) if self.several else numbers[0]

    def terms(self, output: Float[Tensor, "s v"], targets: Targets) -> dict[str, Tensor]:
        """`loss`, and with `unlabelled` a term of this name: that weight times minus the mutual information."""
        terms = {"loss": self.loss(output.float(), targets.values, self.smoothing)}
        if self.unlabelled:
            information = mutual_information(output.float(), targets.values == IGNORED)
            terms["unlabelled"] = -self.unlabelled * information
        return terms

    def chance(self) -> float:
        return len(self.classes) * math.log(2) if self.several else math.log(len(self.classes))

    def loss(self, scores: Tensor, values: Tensor, smoothing: float) -> Tensor:
        """The summed cross-entropy in nats; with `several` the binary cross-entropy, summed over the classes too."""
        if values.is_floating_point() and self.several:
            judged = values[:, :1] != IGNORED
            wanted = values * (1 - smoothing) + smoothing / 2
            return (F.binary_cross_entropy_with_logits(scores, wanted.clamp(0, 1), reduction="none") * judged).sum()
        # the values are numbers of classes, or the shares of all classes, as mixup makes them
        return F.cross_entropy(scores, values, reduction="sum", ignore_index=IGNORED, label_smoothing=smoothing)

    def measure(self, output: Float[Tensor, "s v"], targets: Targets) -> dict[str, Tensor]:
        """`nats` without smoothing; the samples whose class is the likeliest (`top1`) or among the five likeliest
        (`top5`), and, of at most `CONFUSED` classes, the `confusion` counts (v * v), at true class * v + predicted
        class; with `several` how many labels are predicted (`said`), right (`hits`) and `true`."""
        scores, values = output.float(), targets.values
        if self.several:
            judged = values[:, :1] != IGNORED
            said, true = (scores > 0) & judged, (values > 0.5) & judged
            return {
                "nats": self.loss(scores, values, 0.0),
                "hits": (said & true).sum(),
                "said": said.sum(),
                "true": true.sum(),
            }
        judged = values != IGNORED
        scores, values = scores[judged], values[judged]
        best = scores.topk(min(5, len(self.classes)), dim=1).indices == values[:, None]
        sums = {"nats": self.loss(scores, values, 0.0), "top1": best[:, 0].sum(), "top5": best.any(1).sum()}
        count = len(self.classes)
        if count <= CONFUSED:
            sums["confusion"] = torch.bincount(values * count + scores.argmax(1), minlength=count**2)
        return sums

    @property
    def metrics(self) -> dict[str, Metric]:
        """`loss` in nats per sample, without smoothing; `accuracy` (and `top5_accuracy` beyond five classes), or with
        `several` the micro-averaged `f1`."""
        loss = Metric("nats per sample", of_sums=partial(per_target, name="nats"))
        if self.several:
            return {"loss": loss, "f1": Metric("0 to 1", larger_is_better=True, of_sums=f1)}
        best = {"accuracy": "top1"} | ({"top5_accuracy": "top5"} if len(self.classes) > 5 else {})
        return {"loss": loss} | {name: share_of(sum) for name, sum in best.items()}

    def answers(self, output: Float[Tensor, "s v"], targets: Targets, batch: Batch) -> list[dict[str, Any]]:
        return [self.answer(scores) for scores in output]

    def answer(self, scores: Float[Tensor, "v"]) -> dict[str, Any]:
        """One sample's answer: {"class": "dog", "probabilities": {"dog": 0.9, "cat": 0.1}}, of the five likeliest
        classes; with `several` the `classes` of a probability above 0.5, and all `probabilities`."""
        if self.several:
            chances = scores.float().sigmoid()
            return {
                "classes": [name for name, p in zip(self.classes, chances.tolist()) if p > 0.5],
                "probabilities": {str(name): round(p, 4) for name, p in zip(self.classes, chances.tolist())},
            }
        chances = scores.float().softmax(-1)
        order = chances.topk(min(5, len(self.classes))).indices.tolist()
        return {
            "class": self.classes[order[0]],
            "probabilities": {str(self.classes[i]): round(float(chances[i]), 4) for i in order},
        }


def f1(sums: Mapping[str, Tensor]) -> float:
    """F1, the harmonic mean of precision and recall, over all labels of all samples (micro-averaged)."""
    return float(2 * sums["hits"] / (sums["said"] + sums["true"]).clamp(min=1))


def share_of(name: str) -> Metric:
    """A metric: the sum of this name over the number of targets."""
    return Metric("share of samples", larger_is_better=True, of_sums=partial(per_target, name=name))


def mutual_information(scores: Float[Tensor, "s v"], counted: Bool[Tensor, "s"]) -> Float[Tensor, ""]:
    """The mutual information, in nats, of the counted samples and their predicted classes, times their number: entropy
    of the mean prediction less mean entropy of the predictions."""
    logs = scores.log_softmax(-1)
    unsure = -(logs.exp() * logs).sum(-1)
    number = counted.sum()
    mean = (logs.exp() * counted[:, None]).sum(0) / number.clamp(min=1)
    return number * -(mean * mean.clamp(min=1e-8).log()).sum() - (unsure * counted).sum()


EXAMPLE = Example(
    options={"target": "label"},
    inputs={
        "image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8},
        "text": {"use": "text", "encoding": "characters"},
    },
)
