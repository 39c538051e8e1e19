"""A judge that scores generated items with the classifier of another run: share of the correct class, and diversity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..judging import Figure, Generated
from ..measuring.spread import NEIGHBOURS, class_variance, coverage, halves, recall
from ..run_judge import RunJudge

MOST_ITEMS = 5_000
"""The largest number of items whose nearest neighbours are searched. The time of the search grows with the square of
this number."""


class AcceptedBy(RunJudge):
    """The share of generated items that the classifier of a trained run assigns to the requested class.

    A generator can increase this share by generating only the most typical items. The judge therefore also measures how
    well the generated items cover the true items. It compares the vectors that the classifier pools for each item, the
    input of its last linear layer (with k = 5 neighbours). `_recall`: the share of true items that lie among generated
    items (Kynkaanniemi et al. 2019). `_coverage`: the share of true items with a generated item in their neighbourhood
    (Naeem et al. 2020). `_compared`: the number of generated items, and of true items, that are compared: the samples
    whose generated item is complete, at most 5,000. `_variance`: the diversity within a class, the trace of the
    covariance, averaged over the classes. `_recall_real` and `_coverage_real` compare one half of the true items with
    the other half, and `_variance_real` is the variance of the true items: a perfect generator would reach these
    values.
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
        complete = complete[:: max(-(-len(complete) // MOST_ITEMS), 1)]
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
        """Returns the vectors (n, d) that the classifier pools for the items. Returns None if there are no items, or if
        the task of the run does not pool."""
        return self.part.pooled(self.task, [{self.input: item} for item in items]) if items else None
