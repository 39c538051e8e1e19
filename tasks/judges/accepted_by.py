"""Another run as the judge of what is generated: does its classifier see what was asked for, and all kinds of it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..judging import Figure, Generated
from ..measuring.spread import NEIGHBOURS, class_variance, coverage, halves, recall
from ..run_judge import RunJudge

MOST = 5_000
"""Of how many items at most neighbours are searched: the time grows with the square."""


class AcceptedBy(RunJudge):
    """The share of generated items that the classifier of a trained run puts into the class that was asked for.

    A generator can raise this share by making only the most typical items. How much of the true items it covers is
    measured on the vectors that the classifier pools of each item, before its last linear map (k = 5): `_recall`, the
    share of true items that lie among generated ones (Kynkaanniemi et al. 2019), and `_coverage`, the share that has a
    generated item near it (Naeem et al. 2020), both of `_compared` generated items and as many true ones (all whose
    generated item is complete, at most 5,000). `_variance` is how different the items of a class are: the mean over
    classes of the trace of the covariance. `_recall_real` and `_coverage_real` compare one half of the true items with
    the other, `_variance_real` is that of the true items: what a perfect generator reaches.
    """

    figure, answer = Figure("share of items", larger_is_better=True), "class"

    @property
    def figures(self) -> Mapping[str, Figure]:
        share = Figure("share of true items", larger_is_better=True)
        shares = dict.fromkeys(("_recall", "_recall_real", "_coverage", "_coverage_real"), share)
        variances = dict.fromkeys(("_variance", "_variance_real"), Figure("trace of the covariance", None))
        return super().figures | shares | variances | {"_compared": Figure("items", None)}

    def value(self, said: Sequence[str | None], wanted: Sequence[str]) -> float:
        return sum(a == b for a, b in zip(said, wanted, strict=True)) / max(len(wanted), 1)

    def spread(self, generated: Sequence[Generated], wanted: Sequence[str]) -> dict[str, float]:
        both = [(each, name) for each, name in zip(generated, wanted, strict=True) if each.item is not None]
        both = both[:: max(-(-len(both) // MOST), 1)]
        made, true = (self.vectors(items) for items in ([x.item for x, _ in both], [x.true for x, _ in both]))
        if made is None or true is None:
            return {}
        read = (made.isfinite() & true.isfinite()).all(1)
        made, true = made[read], true[read]
        classes = [name for (_, name), known in zip(both, read.tolist()) if known]
        one, other = halves(true)
        found = {"_compared": float(len(true))}
        for name, figure in {"_recall": recall, "_coverage": coverage}.items():
            if len(true) > NEIGHBOURS:
                found[name] = figure(true, made)
            if len(one) > NEIGHBOURS:
                found[f"{name}_real"] = (figure(one, other) + figure(other, one)) / 2
        variances = {"_variance": class_variance(made, classes), "_variance_real": class_variance(true, classes)}
        return found | {name: value for name, value in variances.items() if value is not None}

    def counts(self, figures: Mapping[str, float], items: int) -> dict[str, int]:
        spread = [name for name in figures if name.startswith(("_recall", "_coverage", "_variance", "_compared"))]
        return super().counts(figures, items) | dict.fromkeys(spread, int(figures.get("_compared", 0)))

    def vectors(self, items: Sequence[Any]) -> Float[Tensor, "n d"] | None:
        """The vectors that the classifier pools of the items; None where there are no items, or it pools none."""
        return self.part.pooled(self.task, [{self.input: item} for item in items]) if items else None
