"""Classification: predicts the class of a sample, or several labels (`several`)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property, partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, RootModel, StrictBool, StrictFloat, StrictInt, StrictStr
from torch import Tensor, nn

from ..files.reading import DataError, shown
from ..files.records import as_numbers, as_text
from ..models.batch import IGNORED, Batch, Targets
from ..models.heads import MeanPooling, PooledLinear, Pooling, slots_read
from ..tokenizers.base import Example
from ..tokenizers.media.summaries import span
from .base import Metric, Needs, Task, TrainingColumns, per_target
from .baselines.simple_models import Baseline, class_baselines, label_baselines
from .measuring.calibration import with_temperature
from .measuring.class_report import ClassReporter, LabelReporter
from .measuring.ranking import auroc, average_precision, macro, of_class
from .measuring.report import Reporter


class Classes(RootModel[Annotated[tuple[StrictBool | StrictInt | StrictFloat | StrictStr, ...], Field(min_length=2)]]):
    """The content of the assets file `classes.json`: the classes, in the order of the logits."""


class CountedClasses(BaseModel):
    """The content of the assets file `countedclasses.json`: the classes, in the order of the logits, and the number of
    training samples of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Annotated[tuple[StrictBool | StrictInt | StrictFloat | StrictStr, ...], Field(min_length=2)]
    counts: tuple[PositiveInt, ...]


def is_label(value: Any) -> bool:
    """Returns whether a value can be a label: a text, a boolean, or a number that is not NaN."""
    return isinstance(value, str | int | float) and value == value


LISTED = 12
"""The largest number of classes whose counts are printed before training."""


RANKED = 100
"""The largest number of classes for which `auroc` and `average_precision` are measured: all outputs of a split are kept
in memory."""
FEW, NAMED = 10, 4
"""A class with fewer validation samples than this is named in a warning, and the largest number of named classes."""
IMBALANCED = 4
"""The advice to weight the classes is given if the largest class has more than this number of times the samples of the
smallest."""


class Classification(Task):
    """Predicts the class in the data column `target` from the inputs of a sample.

    The classes are the distinct values of the column in the training data, sorted: numbers first, then texts. Values
    with the same text, such as 7 in a JSONL file and "7" in a CSV file, are the same class.

    `several`: each value of the column is a list of labels, and each label is predicted independently (binary
    cross-entropy). `label_smoothing`: the share of the target, at least 0 and below 1, that is distributed over all
    classes (Szegedy et al. 2016, arXiv:1512.00567). `unlabelled`: the weight, 0 or more, of an additional loss on the
    samples without a label, in nats per sample. This loss compares all these samples of the global batch; it is low if
    the predictions are confident and all classes are equally frequent (minus the mutual information: Krause et al.
    2010; Liang et al. 2020, arXiv:2002.08546). `class_weights: balanced`: in training, the loss of a sample is
    multiplied by (samples) / (classes * samples of its class), so that all classes have the same influence.
    `per_class`: the metrics `auroc` and `average_precision` of each class are also measured, as `auroc_dog` (reports
    always have them). `pooling`: how the vectors of a sample's tokens become one vector: `mean_pooling`,
    `attention_pooling`, or, with `model.core_tokens`, `class_token` or `core_tokens`."""

    Learned = Classes

    def __init__(
        self, *, target: str, pooling: Callable[..., Pooling] = MeanPooling, label_smoothing: float = 0.0,
        several: bool = False, unlabelled: float = 0.0, class_weights: Literal["balanced"] | None = None,
        per_class: bool = False, weight: float = 1.0,
    ):  # fmt: skip
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, not {label_smoothing}")
        if not 0 <= unlabelled < math.inf or (unlabelled and several):
            raise ValueError(f"unlabelled must be 0 or more, and 0 with several: true, not {unlabelled}")
        self.target, self.pooling, self.several, self.weight = target, pooling, several, weight
        self.calibrates = not several
        self.smoothing, self.unlabelled, self.class_weights = label_smoothing, unlabelled, class_weights
        self.per_class = per_class
        if class_weights and several:
            raise ValueError("class_weights is for one label per sample; remove it, or several: true")
        if class_weights:
            self.Learned = CountedClasses

    @property
    def needs(self) -> Needs:
        return Needs(columns={self.target: self.encoded}, whole_batch=self.unlabelled > 0)

    def fit(self, data: TrainingColumns) -> Classes | CountedClasses:
        """Returns the sorted classes, with `class_weights` also their counts. Raises DataError if there are fewer than
        two classes, if a value is not a label (see `labels`), or if `unlabelled` is not 0 although all samples have a
        label."""
        names, counts, labelled = dict[str, Any](), Counter[str](), 0
        for value in data.column(self.target):
            for label in self.labels(value):
                text = as_text(label)
                counts[text] += 1
                names[text] = label if isinstance(label, str) else names.get(text, label)
            labelled += 1
        if self.unlabelled and labelled == len(data):
            raise DataError(
                f"unlabelled is {self.unlabelled}, the weight of a loss on samples without a label, but every training "
                f"sample has a label in {self.target!r}; remove unlabelled"
            )
        if len(names) < 2:
            raise DataError(
                f"column {self.target!r} has {len(names)} classes in the training data; at least 2 are needed"
            )
        ordered = tuple(sorted(names.values(), key=lambda label: (isinstance(label, str), label)))
        if self.class_weights:
            return CountedClasses(root=ordered, counts=tuple(counts[as_text(label)] for label in ordered))
        return Classes(ordered)

    def labels(self, value: Any) -> list[str | int | float]:
        """Returns the labels in a value of the target column. Raises DataError if a label is not a text or number (or
        is NaN), if the value is a list although `several` is false, or if the value is not a list although `several` is
        true."""
        is_list = isinstance(value, list | tuple | set)
        labels = list(value) if is_list else [value]
        if is_list == self.several and all(map(is_label, labels)):
            return labels
        expected = "a list of labels (several: true)" if self.several else "one label (or set several: true)"
        raise DataError(f"column {self.target!r} must hold {expected}, not {shown(value)}; labels are texts or numbers")

    @property
    def classes(self) -> tuple[Any, ...]:
        """The classes, in the order of the logits."""
        return self.learned.root

    def as_answer(self, value: Any) -> Any:
        if isinstance(value, list | tuple | set):
            return [self.as_answer(label) for label in value]
        return self.class_of(value) if isinstance(value, str | int | float) else value

    def check_answer(self, text: str) -> None:
        names = [str(name) for name in self.classes]
        if text not in names:
            raise ValueError(f"its classes are {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}")

    @cached_property
    def numbers(self) -> dict[Any, int]:
        """The index of each class in the logits."""
        return {name: number for number, name in enumerate(self.classes)}

    @cached_property
    def by_text(self) -> dict[str | float, Any]:
        """The classes by their text, and those whose text is a number also by that number. A text or number of several
        classes is left out."""
        pairs = [(as_text(name), name) for name in self.classes]
        pairs += [(value, name) for text, name in pairs if isinstance(value := as_numbers(text), float)]
        counts = Counter(key for key, _ in pairs)
        return {key: name for key, name in pairs if counts[key] == 1}

    def class_of(self, label: str | float) -> Any:
        """Returns the class of a label: the class that is equal to it, else the class with the same text, else the
        class whose text is the same number. Files differ in their types: 7, "7" and "007" are the class 7. Returns the
        label if there is no such class."""
        value = as_numbers(as_text(label))
        for key in (label, as_text(label), value if isinstance(value, float) else label):
            if (found := key if key in self.numbers else self.by_text.get(key)) is not None:
                return found
        return label

    def summary(self, values: Sequence[Any]) -> str:
        counts = Counter(label for value in values for label in self.labels(value))
        if len(counts) > LISTED:
            return f"{len(counts)} classes of {span(counts.values(), 'sample(s)')}"
        return ", ".join(f"{count:,} {label}" for label, count in counts.most_common()) or "no labels"

    def imbalance(self, values: Iterable[Any]) -> str:
        counts = Counter(label for value in values for label in self.labels(value))
        if self.class_weights or len(counts) < 2:
            return ""
        (most, largest), (least, smallest) = counts.most_common()[0], counts.most_common()[-1]
        sizes = f"{largest:,} training samples of {shown(most)}, {smallest:,} of {shown(least)}"
        return sizes if largest > IMBALANCED * smallest else ""

    def rare(self, values: Iterable[Any]) -> str:
        counts = Counter(self.class_of(label) for value in values for label in self.labels(value))
        few = [f"{counts[name]} of {shown(name)}" for name in self.classes if counts[name] < FEW]
        more = f" and {len(few) - NAMED} more classes" if len(few) > NAMED else ""
        return f"fewer than {FEW} samples of a class: {', '.join(few[:NAMED])}{more}" if few else ""

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        return PooledLinear(self.pooling(width), width, len(self.classes))

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Returns the batch, and targets with the values (s): class indices, `IGNORED` without a label. With `several`,
        the values are zeros and ones (s, v). The slots are those that the pooling reads."""
        slots, groups = slots_read(self.pooling, batch.first)
        rows = [self.encoded(label) for label in batch.first.labels[self.target]]
        values = torch.stack([self.encoded(None), *rows])[1:]  # an extra row, because stack fails without rows
        firsts = values if values.dim() == 1 else values[:, 0]
        return batch, Targets(
            values=values, slots=slots, groups=groups, count=int((firsts != IGNORED).sum()),
            of_encoder=batch.encoder is not None, classes=0 if self.several else len(self.classes),
        )  # fmt: skip

    def supervised(self, batch: Batch, targets: Targets) -> Bool[Tensor, "s"]:
        firsts = targets.values if targets.values.dim() == 1 else targets.values[:, 0]
        return firsts != IGNORED  # a sample without tokens can also have a class

    def encoded(self, label: Any) -> Tensor:
        """Returns the target of one sample as a tensor. Raises DataError if a label is not one of the classes. A
        missing label (None) becomes `IGNORED` (-100).

        With the classes "cat" and "dog", "dog" becomes 1. With `several`, ["dog"] becomes [0., 1.], and None becomes
        [-100., -100.].
        """
        if label is None:
            return torch.full((len(self.classes),), float(IGNORED)) if self.several else torch.tensor(IGNORED)
        labels = [self.class_of(name) for name in self.labels(label)]
        unknown = [name for name in labels if name not in self.numbers]
        if unknown:
            raise DataError(
                f"{unknown[0]!r} in column {self.target!r} is none of the {len(self.classes)} classes "
                f"({', '.join(map(str, self.classes[:10]))}{', ...' if len(self.classes) > 10 else ''})"
            )
        numbers = torch.tensor([self.numbers[name] for name in labels], dtype=torch.long)
        return torch.zeros(len(self.classes)).index_fill_(0, numbers, 1.0) if self.several else numbers[0]

    def terms(self, output: Float[Tensor, "s v"], targets: Targets) -> dict[str, Tensor]:
        """Returns `loss` (cross-entropy); with `unlabelled` also the term `unlabelled`: minus the weight times the
        mutual information of the samples without a label, times the number of samples with one, because training
        divides all terms by that number."""
        terms = {"loss": self.loss(output.float(), targets.values, self.smoothing, self.weights(output.device))}
        if self.unlabelled:
            is_unlabelled = targets.values == IGNORED
            labelled = (~is_unlabelled).sum().clamp(min=1)
            terms["unlabelled"] = -self.unlabelled * labelled * mutual_information(output.float(), is_unlabelled)
        return terms

    def chance(self) -> float:
        return len(self.classes) * math.log(2) if self.several else math.log(len(self.classes))

    def weights(self, device: torch.device) -> Float[Tensor, "v"] | None:
        """The factor of the loss of a sample, by class; None without `class_weights`."""
        return balanced_weights(self.learned.counts, device) if self.class_weights else None

    def loss(self, scores: Tensor, values: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
        """Returns the sum of the cross-entropy over the samples with a label, in nats. With `several`, it is the binary
        cross-entropy, summed over classes and samples. `weights` (v): a factor for each sample, by its class."""
        if values.is_floating_point() and self.several:
            supervised = values[:, :1] != IGNORED
            smoothed = values * (1 - smoothing) + smoothing / 2
            losses = F.binary_cross_entropy_with_logits(scores, smoothed.clamp(0, 1), reduction="none")
            return (losses * supervised).sum()
        # the values are class indices, or with mixup the probabilities of all classes
        options = {"ignore_index": IGNORED, "label_smoothing": smoothing}
        if weights is None:
            return F.cross_entropy(scores, values, reduction="sum", **options)
        factors = values @ weights if values.is_floating_point() else weights[values.clamp(min=0)]
        return (F.cross_entropy(scores, values, reduction="none", **options) * factors).sum()

    def measure(self, output: Float[Tensor, "s v"], targets: Targets) -> dict[str, Tensor]:
        """Returns sums over the samples with a label. `nats`: the loss without smoothing. `true`, `predicted` and
        `hits` (v): by class, the numbers of samples of the class, of predictions of the class, and of samples that are
        both. `top5`: the number of samples whose class is one of the five most likely. With `several`, the sums count
        labels instead of samples, and there is no `top5`."""
        scores, values = output.float(), targets.values
        if self.several:
            supervised = values[:, :1] != IGNORED
            predicted, true = (scores > 0) & supervised, (values > 0.5) & supervised
            counts = {"hits": (predicted & true).sum(0), "predicted": predicted.sum(0), "true": true.sum(0)}
            return {"nats": self.loss(scores, values, 0.0), **counts}
        supervised, count = values != IGNORED, len(self.classes)
        scores, values = scores[supervised], values[supervised]
        best = scores.topk(min(5, count), dim=1).indices
        classes = {"hits": values[best[:, 0] == values], "predicted": best[:, 0], "true": values}
        counts = {name: torch.bincount(chosen, minlength=count) for name, chosen in classes.items()}
        top5 = (best == values[:, None]).any(1).sum()
        return {"nats": self.loss(scores, values, 0.0), "top5": top5, **counts}

    @property
    def metrics(self) -> dict[str, Metric]:
        """`loss` in nats per sample, without smoothing, and `accuracy`; `balanced_accuracy`, the mean recall of the
        classes that have samples; `macro_f1`, the mean F1 of the classes that have samples or are predicted; also
        `top5_accuracy` if there are more than five classes. With `several`: `loss`, the micro-averaged `f1`, and
        `macro_f1` over the labels. With at most RANKED classes also `auroc` and `average_precision`, the means over the
        classes (one class against all others), and with `per_class` those of each class."""
        metrics = {"loss": Metric("nats per sample", of_sums=partial(per_target, name="nats"))}
        shares = {"f1": f1} if self.several else {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy}
        shares |= {"macro_f1": macro_f1}
        metrics |= {
            name: Metric("0 to 1", larger_is_better=True, of_sums=share, is_share=share is accuracy)
            for name, share in shares.items()
        }
        metrics |= {"top5_accuracy": share_of("top5")} if len(self.classes) > 5 and not self.several else {}
        return metrics | (self.rankings if len(self.classes) <= RANKED else {})

    @property
    def rankings(self) -> dict[str, Metric]:
        """The metrics of the order of the scores: `auroc` and `average_precision`, and with `per_class` those of each
        class."""
        metrics = {}
        for name, measure in (("auroc", auroc), ("average_precision", average_precision)):
            compute = partial(macro, several=self.several, measure=measure)
            metrics[name] = Metric("0 to 1", larger_is_better=True, of_outputs=compute)
            for number, label in enumerate(self.classes) if self.per_class else ():
                compute = partial(of_class, number=number, several=self.several, measure=measure)
                metrics[f"{name}_{metric_word(label)}"] = Metric("0 to 1", larger_is_better=True, of_outputs=compute)
        return metrics

    @property
    def headline(self) -> str:
        return "f1" if self.several else "accuracy"

    @property
    def baselines(self) -> Sequence[Baseline]:
        return label_baselines() if self.several else class_baselines(len(self.classes))

    def answers(self, output: Float[Tensor, "s v"], targets: Targets, batch: Batch) -> list[dict[str, Any]]:
        """Returns the most likely class of each sample, and the probabilities of all classes: {"class": "dog",
        "probabilities": {"cat": 0.1, "dog": 0.9}}. With `several`, `classes` contains the classes with a probability
        above 0.5: {"classes": ["dog"], "probabilities": {...}}."""
        scores, names = output.float(), list(map(str, self.classes))
        probabilities = (scores.sigmoid() if self.several else scores.softmax(-1)).tolist()
        by_name = [dict(zip(names, row)) for row in probabilities]
        if self.several:
            likely = [[name for name, p in zip(self.classes, row) if p > 0.5] for row in probabilities]
            return [{"classes": classes, "probabilities": row} for classes, row in zip(likely, by_name)]
        best = scores.argmax(-1).tolist()
        return [{"class": self.classes[number], "probabilities": row} for number, row in zip(best, by_name)]

    def reporter(self) -> Reporter:
        return LabelReporter(self.classes) if self.several else ClassReporter(self.classes)

    def calibrated(self, answer: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
        if "temperature" not in saved or "probabilities" not in answer:
            return dict(answer)
        probabilities = np.array([[*answer["probabilities"].values()]])
        row = with_temperature(probabilities, saved["temperature"])[0].tolist()
        return {**answer, "probabilities": dict(zip(answer["probabilities"], row, strict=True))}


@cache
def balanced_weights(counts: tuple[int, ...], device: torch.device) -> Float[Tensor, "v"]:
    """Returns (samples) / (classes * samples of the class) for each class. The mean of these factors over all samples
    is 1. `counts` are the numbers of samples of the classes."""
    sizes = torch.tensor(counts, dtype=torch.float32)
    return (sizes.sum() / (len(sizes) * sizes)).to(device)


def metric_word(label: Any) -> str:
    """Returns the text of a class as a part of the name of a metric: characters other than letters, digits, `.`, `-`
    and `_` become `_`."""
    return re.sub(r"[^\w.-]", "_", as_text(label))


def f1(sums: Mapping[str, Tensor]) -> float:
    """Returns F1, the harmonic mean of precision and recall, over all labels of all samples (micro-averaged)."""
    return float(2 * sums["hits"].sum() / (sums["predicted"].sum() + sums["true"].sum()).clamp(min=1))


def accuracy(sums: Mapping[str, Tensor]) -> float:
    """Returns the share of the samples whose class has the highest logit."""
    return float(sums["hits"].sum() / sums["count"].clamp(min=1))


def balanced_accuracy(sums: Mapping[str, Tensor]) -> float:
    """Returns the mean recall of the classes that have samples."""
    present = sums["true"] > 0
    return float((sums["hits"][present] / sums["true"][present]).mean()) if present.any() else 0.0


def macro_f1(sums: Mapping[str, Tensor]) -> float:
    """Returns the mean F1 of the classes that have samples or are predicted."""
    total = sums["true"] + sums["predicted"]
    present = total > 0
    return float((2 * sums["hits"][present] / total[present]).mean()) if present.any() else 0.0


def share_of(name: str) -> Metric:
    """Returns the metric that divides the sum named `name` by the number of targets."""
    return Metric("share of samples", larger_is_better=True, of_sums=partial(per_target, name=name), is_share=True)


def mutual_information(scores: Float[Tensor, "s v"], counted: Bool[Tensor, "s"]) -> Float[Tensor, ""]:
    """Returns the mutual information, in nats, between the samples for which `counted` is true and their predicted
    classes: the entropy of the mean prediction minus the mean entropy of the predictions. 0 without samples."""
    logs = scores.log_softmax(-1)
    entropy = -(logs.exp() * logs).sum(-1)
    number = counted.sum().clamp(min=1)
    mean = (logs.exp() * counted[:, None]).sum(0) / number
    return -(mean * mean.clamp(min=1e-8).log()).sum() - (entropy * counted).sum() / number


EXAMPLE = Example(
    options={"target": "label"},
    inputs={
        "image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8},
        "text": {"use": "text", "encoding": "characters"},
    },
)
