"""A judge that scores generated items with the classifier of another run: class accuracy and diversity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..judging import Figure, Generated
from ..measuring.spread import NEIGHBOURS, class_variance, coverage, halves, recall
from ..run_judge import RunJudge

MOST = 5_000
"""The largest number of items whose neighbours are searched; the time grows with its square."""


class AcceptedBy(RunJudge):
    """The share of generated items that the classifier of a trained run assigns to the requested class.

    A generator can raise this share by generating only the most typical items. Its coverage of the true items is
    therefore measured as well, on the vectors that the classifier pools of each item, the input of its last linear
    layer (k = 5): `_recall`, the share of true items that lie among generated ones (Kynkaanniemi et al. 2019), and
    `_coverage`, the share that has a generated item near it (Naeem et al. 2020). Both use `_compared` generated items
    and equally many true ones (those whose generated item is complete, at most 5,000). `_variance` is the diversity of
    a class: the mean over classes of the trace of the covariance. `_recall_real` and `_coverage_real` compare one half
    of the true items with the other, and `_variance_real` is the variance of the true items: the values of a perfect
    generator.
    """

    figure, answer = Figure("share of items", larger_is_better=True), "class"

    @property
    def figures(self) -> Mapping[str, Figure]:
        share = Figure("share of true items", larger_is_better=True)
        shares = dict.fromkeys(("_recall", "_recall_real", "_coverage", "_coverage_real"), share)
        variances = dict.fromkeys(("_variance", "_variance_real"), Figure("trace of the covariance", None))
        return super().figures | shares | variances | {"_compared": Figure("items", None)}

    def value(self, answers: Sequence[str | None], expected: Sequence[str]) -> float:
        return sum(a == b for a, b in zip(answers, expected, strict=True)) / max(len(expected), 1)

    def spread(self, generated: Sequence[Generated], expected: Sequence[str]) -> dict[str, float]:
        complete = [(pair, name) for pair, name in zip(generated, expected, strict=True) if pair.item is not None]
        complete = complete[:: max(-(-len(complete) // MOST), 1)]
        fake = self.vectors([pair.item for pair, _ in complete])
        true = self.vectors([pair.true for pair, _ in complete])
        if fake is None or true is None:
            return {}
        finite = (fake.isfinite() & true.isfinite()).all(1)
        fake, true = fake[finite], true[finite]
        classes = [name for (_, name), is_finite in zip(complete, finite.tolist()) if is_finite]
        one, other = halves(true)
        figures = {"_compared": float(len(true))}
        for name, figure in {"_recall": recall, "_coverage": coverage}.items():
            if len(true) > NEIGHBOURS:
                figures[name] = figure(true, fake)
            if len(one) > NEIGHBOURS:
                figures[f"{name}_real"] = (figure(one, other) + figure(other, one)) / 2
        variances = {"_variance": class_variance(fake, classes), "_variance_real": class_variance(true, classes)}
        return figures | {name: value for name, value in variances.items() if value is not None}

    def counts(self, figures: Mapping[str, float], items: int) -> dict[str, int]:
        spread = [name for name in figures if name.startswith(("_recall", "_coverage", "_variance", "_compared"))]
        return super().counts(figures, items) | dict.fromkeys(spread, int(figures.get("_compared", 0)))

    def vectors(self, items: Sequence[Any]) -> Float[Tensor, "n d"] | None:
        """Returns the vectors that the classifier pools of the items; None without items, or if it does not pool."""
        return self.part.pooled(self.task, [{self.input: item} for item in items]) if items else None
