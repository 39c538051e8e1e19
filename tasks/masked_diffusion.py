"""Masked diffusion: hide a random number of tokens and predict them, so that drafts can be refined into items."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..models.batch import Batch, Targets
from ..models.generation.refine import Refining
from ..models.generation.sampling import Sampling
from ..models.heads import Tied, VocabularyHead
from .base import Metric, Needs, metrics_of, per_target
from .judging import Judge
from .masked_modeling import MaskedModeling, runs
from .measuring.texts import MEANINGS, TextMetric

GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it, less their whole part, spread evenly."""
SHUFFLED = 64
"""In every block of this many samples each input has an order of its own, drawn at random, of how much is hidden."""


@dataclass(frozen=True, kw_only=True)
class Hiding:
    """How much of an item is hidden while training: of its tokens a share from `least` to `most`, anything between as
    likely, rounded up; but in the share `whole` of samples all of them or, as often, none, as where one input is made
    of another. Evaluations hide any number, from 1 on: their loss is a bound, that of training is none.

    A hidden token of m among n weighs n / m in the loss, but at most `largest_weight`, as Min-SNR bounds the weights of
    other diffusions (Hang et al. 2023, arXiv:2303.09556): single ones would drown the others in noise. Where nearly all
    or nearly nothing is hidden there is little to learn (Arriola et al. 2025, arXiv:2503.09573). Raises ValueError for
    shares outside 0 to 1 or in the wrong order, and for a weight below 1.
    """

    least: float = 0.0
    most: float = 1.0
    whole: float = 0.0
    largest_weight: float = 3.0

    def __post_init__(self):
        if not (0 <= self.least <= self.most <= 1 and 0 <= self.whole <= 1):
            told = f"least {self.least:g}, most {self.most:g} and whole {self.whole:g}"
            raise ValueError(f"shares must be from 0 to 1, and least no more than most; they are {told}")
        if not self.largest_weight >= 1:
            raise ValueError(f"largest_weight must be at least 1, not {self.largest_weight:g}")


ANY = Hiding(largest_weight=math.inf)
"""What evaluations hide."""


class MaskedDiffusion(MaskedModeling):
    """Hide m of the n tokens of the input `target`, m anything from 1 to n, and predict them from the others: a
    generative model that fills in drafts (text diffusion: Sahoo et al. 2024, arXiv:2406.07524; MaskGIT: Chang et al.
    2022; several such tasks over several inputs: 4M, Mizrahi et al. 2023, arXiv:2312.06647).

    The loss is a bound on the nats of the item: n / m times the summed cross-entropy of the hidden ones, whose mean
    over m and over what is hidden is the mean over all orders in which tokens could be predicted one by one: what
    evaluations give, in which only one task's target is hidden at a time. `hiding` is what training hides. How
    evaluations generate, for `metrics` (of a text a list, `[exact_match]`, or judges by name): in `refining`, drawn by
    `sampling`, with `guidance`, from as many masks as the true item has tokens.

        n = 4 tokens, m = 2 hidden:     a [MASK] c [MASK]     loss 4 / 2 (nats of b + nats of d), count 4
    """

    def __init__(
        self, *, target: str, metrics: tuple[TextMetric, ...] | dict[str, Callable[[], Judge]] = (),
        hiding: Hiding = Hiding(), refining: Refining = Refining(), sampling: Sampling | None = None,
        guidance: float = 1.0, head: Callable[..., VocabularyHead] = Tied, weight: float = 1.0,
    ):  # fmt: skip
        super().__init__(target=target, as_mask=1.0, as_random=0.0, head=head, weight=weight)
        self.hiding, self.refining, self.sampling, self.guidance = hiding, refining, sampling, guidance
        self.texts = () if isinstance(metrics, dict) else metrics
        self.judges = {name: made() for name, made in metrics.items()} if isinstance(metrics, dict) else {}

    @property
    def needs(self) -> Needs:
        compared = tuple(column for judge in self.judges.values() for column in judge.columns)
        return replace(super().needs, refines=True, compared=compared)

    @property
    def drawn_by(self) -> Sampling:
        """How ids are drawn where nothing else is asked for."""
        return self.sampling or Sampling()

    def random(self, seed: tuple[int, ...]) -> np.random.Generator:
        """Of a sample: another one for every input, so that inputs are hidden independently."""
        return np.random.default_rng([*seed, 1, zlib.crc32(self.target.encode())])

    def choose(self, ids: np.ndarray, random: np.random.Generator, seed: tuple[int, ...] = (0, 0, 0)) -> np.ndarray:
        """The sorted indices of the ids to hide, never of special ids."""
        slots = np.flatnonzero(self.plain[ids])
        how, lot = self.hiding, random.random()
        if lot < how.whole:
            return slots if lot < how.whole / 2 else slots[:0]
        share = how.least + (how.most - how.least) * self.amount(seed)
        wanted = min(max(math.ceil(share * len(slots)), 1), len(slots))
        return np.sort(random.permutation(slots)[:wanted])

    def amount(self, seed: tuple[int, ...]) -> float:
        """How much of a sample is hidden, from 0 to below 1. The amounts are spread evenly over the samples of an
        epoch, which makes the mean over a split more exact. Each block of SHUFFLED samples has the next multiples of
        GOLDEN in a random order that differs from input to input, so that the amounts of two inputs are independent.
        """
        (*epoch, number), own = seed, zlib.crc32(self.target.encode())
        first = np.random.default_rng([*epoch, own]).random()
        block, place = divmod(number, SHUFFLED)
        order = np.random.default_rng([*epoch, block, own]).permutation(SHUFFLED)
        return float((first + GOLDEN * (SHUFFLED * block + order[place])) % 1)

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """As of masked modelling, with each target's weight, n / m (in training at most `largest_weight`); `count` is
        the number n of tokens, hidden or not, of the samples of which some are hidden."""
        if batch.units and self.hiding != ANY:  # an evaluation
            return hiding_any(self).targets(batch)
        batch, found = super().targets(batch)
        planned = batch.set_of(found)
        if self.asks:
            return batch, found
        if self.target not in planned.chunks:
            return batch, replace(found, weights=torch.zeros(0))
        chunks = planned.chunks[self.target]
        hidden = (chunks.hidden != -100).flatten().numpy()
        original = np.where(hidden, chunks.hidden.flatten().numpy(), chunks.values.flatten().numpy())
        weights, count = np.zeros(len(hidden)), 0
        for _, (start, end) in runs(planned, chunks):
            n, m = int(self.plain[original[start:end]].sum()), int(hidden[start:end].sum())
            weights[start:end] = min(n / max(m, 1), self.hiding.largest_weight)
            count += n if m else 0
        return batch, replace(found, weights=torch.from_numpy(weights[hidden]).float(), count=count)

    def terms(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        each = F.cross_entropy(output.float(), targets.values, reduction="none")
        return {"loss": (each * targets.weights).sum()}

    def measure(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        right = (output.argmax(-1) == targets.values).sum()
        return {"right": right, "hidden": right.new_full((), len(targets.values))}

    @property
    def metrics(self) -> dict[str, Metric]:
        """`loss`, a bound in nats per token, the same in the vocabulary's unit (of text `bound_bits_per_byte`), and
        `accuracy`, the share of hidden tokens that are predicted. `chain` and `chain_bits_per_byte`: what tokens cost
        from left to right, of at most 64 items, whose number is `chain_samples`; not where no items are generated."""
        unit = self.vocabulary.unit
        nats = math.log(2) if unit.in_bits else 1.0
        chain = partial(ratio, "chain", "chain_units", nats)
        found = {
            "loss": Metric("nats per token, a bound", of_sums=per_target),
            f"bound_{unit.metric}": Metric(f"{unit.told}, a bound", of_sums=partial(ratio, "loss", "units", nats)),
            "accuracy": Metric(
                "share of hidden tokens", larger_is_better=True, of_sums=partial(ratio, "right", "hidden", 1)
            ),
            "chain": Metric(
                "nats per token, left to right", of_sums=partial(ratio, "chain", "chain_tokens", 1), of_chain=True
            ),
            f"chain_{unit.metric}": Metric(f"{unit.told}, left to right", of_sums=chain, of_chain=True),
        }
        return found | metrics_of(self.judges) | {name: MEANINGS[name] for name in self.texts}


def hiding_any(task: MaskedDiffusion) -> MaskedDiffusion:
    """A copy of the task that hides any number of tokens, weighted as the bound wants it."""
    made = copy(task)
    made.hiding = ANY
    return made


def ratio(above: str, below: str, unit: float, sums: Mapping[str, Any]) -> float | None:
    """One sum over another, and over a unit; None where the latter is missing or 0."""
    return float(sums[above]) / float(sums[below]) / unit if sums.get(below) else None
