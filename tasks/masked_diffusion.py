"""Masked diffusion: a random number of tokens is masked and predicted. The trained model can generate items by refining
drafts."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
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
from ..models.generation.procedure import Procedure
from ..models.generation.refine import Draft, Refining
from ..models.generation.sampling import Sampling
from ..models.heads import Tied, VocabularyHead
from ..models.model import Model
from ..tokenizers.base import Example
from .base import Metric, Needs, metrics_of, per_target
from .judging import Judge
from .masked_modeling import MaskedModeling, runs
from .measuring.texts import MEANINGS, TextMetric

GOLDEN = (math.sqrt(5) - 1) / 2
"""The golden ratio minus 1. The fractional parts of its multiples are evenly distributed over [0, 1)."""
SHUFFLED = 64
"""The number of samples in a block. Within a block, the hidden shares are in a random order that differs between
inputs."""


@dataclass(frozen=True, kw_only=True)
class Hiding:
    """How much of an item is hidden in training. The number of hidden tokens m is a share of the n tokens of the item,
    drawn uniformly from `least` to `most` and rounded up. In the share `whole` of the samples, either all tokens or
    none are hidden, with equal probability; this prepares the generation of one input from another. Evaluations ignore
    these values and hide 1 to n tokens; only the loss of evaluations is a bound.

    Each hidden token has the weight n / m in the loss, but at most `largest_weight` (at least 1). The limit corresponds
    to Min-SNR, which limits the weights of other diffusion models (Hang et al. 2023, arXiv:2303.09556): single hidden
    tokens with large weights would add too much noise. Samples with nearly all or nearly no tokens hidden teach little
    (Arriola et al. 2025, arXiv:2503.09573). Raises ValueError unless 0 <= `least` <= `most` <= 1, 0 <= `whole` <= 1 and
    `largest_weight` >= 1.
    """

    least: float = 0.0
    most: float = 1.0
    whole: float = 0.0
    largest_weight: float = 3.0

    def __post_init__(self):
        if not (0 <= self.least <= self.most <= 1 and 0 <= self.whole <= 1):
            values = f"least {self.least:g}, most {self.most:g} and whole {self.whole:g}"
            raise ValueError(f"shares must be from 0 to 1, and least no more than most; they are {values}")
        if not self.largest_weight >= 1:
            raise ValueError(f"largest_weight must be at least 1, not {self.largest_weight:g}")


ANY = Hiding(largest_weight=math.inf)
"""What evaluations hide: 1 to n tokens, with the weights n / m."""


class MaskedDiffusion(MaskedModeling):
    """Hides m of the n tokens of the input `target`, m uniform from 1 to n, and predicts them from the other tokens.
    The model can generate items by refining drafts (text diffusion: Sahoo et al. 2024, arXiv:2406.07524; MaskGIT: Chang
    et al. 2022; several such tasks over several inputs: 4M, Mizrahi et al. 2023, arXiv:2312.06647).

    The loss is n / m times the summed cross-entropy of the hidden tokens. Its expectation over m and over the choice of
    hidden tokens is the mean cost over all orders in which the tokens could be predicted one by one. This cost is an
    upper bound on the nats of the item. Evaluations report it; they hide the target of only one task at a time.
    `hiding`: what training hides. `metrics`: a list of text metrics (`[exact_match]`), or a mapping of judges by name;
    if there are any, evaluations generate items by `refining` and `sampling`, with classifier-free `guidance`, and
    start from as many masks as the true item has tokens.

        n = 4 tokens, m = 2 hidden:     a [MASK] c [MASK]     loss 4 / 2 (nats of b + nats of d), count 4
    """

    after_training = ("refining", "sampling", "guidance")

    def __init__(
        self, *, target: str, metrics: tuple[TextMetric, ...] | dict[str, Callable[[], Judge]] = (),
        hiding: Hiding = Hiding(), refining: Refining = Refining(), sampling: Sampling | None = None,
        guidance: float = 1.0, head: Callable[..., VocabularyHead] = Tied, weight: float = 1.0,
    ):  # fmt: skip
        super().__init__(target=target, as_mask=1.0, as_random=0.0, head=head, weight=weight)
        self.hiding, self.refining, self.sampling, self.guidance = hiding, refining, sampling, guidance
        self.texts = () if isinstance(metrics, dict) else metrics
        self.judges = {name: judge() for name, judge in metrics.items()} if isinstance(metrics, dict) else {}

    @property
    def needs(self) -> Needs:
        compared = tuple(column for judge in self.judges.values() for column in judge.columns)
        return replace(super().needs, refines=True, compared=compared)

    def blank(self, true: Any, count: int | None) -> list[int]:
        """Returns masks. Their number is the first known value of: the fixed length of the items, `count`, and the
        length of the true item (without a true item: `refining.tokens`)."""
        default = self.refining.tokens if true is None else len(self.vocabulary.encode(true))
        if not (length := self.vocabulary.length or count or default):
            raise ValueError(f"the length of {self.target!r} varies; set --max-tokens, or refining.tokens of its task")
        return [self.mask] * length

    def draft(self, name: str, model: Model, batch: Batch, without: Batch | None = None) -> Draft:
        """Returns the draft of a batch, whose items of the target contain masks. `without` is the same batch without
        the other inputs, for classifier-free guidance (None: no guidance). `name` is the name of the task."""
        never = torch.from_numpy(~(self.plain & self.vocabulary.used))
        return Draft(model, batch, input=self.target, task=name, vocabulary=self.vocabulary.size, mask=self.mask,
                     never=never, without=without)  # fmt: skip

    def sample(self, model: Model, batch: Batch, how: Procedure) -> list[list[int]]:
        draft = self.draft(how.name, model, batch, how.without)
        how.show(draft.items())
        for items in draft.refine(how.refining, how.sampling, how.guidance, how.streams):
            how.show(items)
        return [self.without_special(ids) for ids in draft.items()]

    def picture(self, item: Sequence[int]) -> Tensor:
        return self.vocabulary.picture(item, self.mask)

    def random(self, seed: tuple[int, ...]) -> np.random.Generator:
        """Returns the random generator of a sample with this seed. Generators of different inputs are independent."""
        return np.random.default_rng([*seed, 1, zlib.crc32(self.target.encode())])

    def choose(self, ids: np.ndarray, random: np.random.Generator, seed: tuple[int, ...] = (0, 0, 0)) -> np.ndarray:
        """Returns the sorted indices in `ids` of the tokens to hide. Special ids are never hidden. `seed`: see
        `amount`."""
        slots = np.flatnonzero(self.plain[ids])
        hiding, drawn = self.hiding, random.random()
        if drawn < hiding.whole:
            return slots if drawn < hiding.whole / 2 else slots[:0]
        share = hiding.least + (hiding.most - hiding.least) * self.amount(seed)
        count = min(max(math.ceil(share * len(slots)), 1), len(slots))
        return np.sort(random.permutation(slots)[:count])

    def amount(self, seed: tuple[int, ...]) -> float:
        """Returns a number u in [0, 1) for a sample. The share of its tokens that is hidden is `least + (most - least)
        * u`. `seed` consists of the run's seed, the epoch, and the number of the sample. The numbers are evenly
        distributed over the samples of an epoch, which reduces the variance of the mean loss over a split: u = (start +
        k * GOLDEN) mod 1, where each block of SHUFFLED samples uses the next SHUFFLED values of k in a random order.
        `start` and the order depend on the name of the target input, so the numbers of two inputs are independent."""
        (*epoch, number), input_hash = seed, zlib.crc32(self.target.encode())
        first = np.random.default_rng([*epoch, input_hash]).random()
        block, offset = divmod(number, SHUFFLED)
        order = np.random.default_rng([*epoch, block, input_hash]).permutation(SHUFFLED)
        return float((first + GOLDEN * (SHUFFLED * block + order[offset])) % 1)

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Returns the batch and targets of masked modelling, with the weight n / m of each target (at most
        `largest_weight` in training). `count` is the number of tokens, hidden or not, of all items with at least one
        hidden token."""
        if batch.units and self.hiding != ANY:  # an evaluation
            return hiding_any(self).targets(batch)
        batch, targets = super().targets(batch)
        planned = batch.set_of(targets)
        if self.for_prediction:
            return batch, targets
        if self.target not in planned.chunks:
            return batch, replace(targets, weights=torch.zeros(0))
        chunks = planned.chunks[self.target]
        hidden = (chunks.hidden != -100).flatten().numpy()
        original = np.where(hidden, chunks.hidden.flatten().numpy(), chunks.values.flatten().numpy())
        weights, count = np.zeros(len(hidden)), 0
        for _, (start, end) in runs(planned, chunks):
            n, m = int(self.plain[original[start:end]].sum()), int(hidden[start:end].sum())
            weights[start:end] = min(n / max(m, 1), self.hiding.largest_weight)
            count += n if m else 0
        return batch, replace(targets, weights=torch.from_numpy(weights[hidden]).float(), count=count)

    def terms(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        losses = F.cross_entropy(output.float(), targets.values, reduction="none")
        return {"loss": (losses * targets.weights).sum()}

    def losses(self, output: Float[Tensor, "t v"], targets: Targets) -> Float[Tensor, "j"]:
        return F.cross_entropy(output.float(), targets.values, reduction="none") * targets.weights

    def measure(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        right = (output.argmax(-1) == targets.values).sum()
        return {"right": right, "hidden": right.new_full((), len(targets.values))}

    @property
    def metrics(self) -> dict[str, Metric]:
        """`loss`, a bound in nats per token; the bound in the vocabulary's unit (`bound_bits_per_byte` for texts); and
        `accuracy`, the share of hidden tokens that are predicted correctly. If items are generated, also `chain` and
        `chain_bits_per_byte`: the loss of tokens predicted from left to right, on at most 64 items
        (`chain_samples`)."""
        unit = self.vocabulary.unit
        nats_per_unit = math.log(2) if unit.in_bits else 1.0
        chain = partial(ratio, "chain", "chain_units", nats_per_unit)
        bound = partial(ratio, "loss", "units", nats_per_unit)
        of_likelihood = {
            "loss": Metric("nats per token, a bound", of_sums=per_target),
            f"bound_{unit.metric}": Metric(f"{unit.description}, a bound", of_sums=bound),
            "accuracy": Metric(
                "share of hidden tokens", larger_is_better=True, of_sums=partial(ratio, "right", "hidden", 1)
            ),
            "chain": Metric(
                "nats per token, left to right", of_sums=partial(ratio, "chain", "chain_tokens", 1), of_chain=True
            ),
            f"chain_{unit.metric}": Metric(f"{unit.description}, left to right", of_sums=chain, of_chain=True),
        }
        return of_likelihood | metrics_of(self.judges) | {name: MEANINGS[name] for name in self.texts}


def hiding_any(task: MaskedDiffusion) -> MaskedDiffusion:
    """Returns a copy of the task for evaluations: 1 to n tokens are hidden, and the weights are not limited."""
    copied = copy(task)
    copied.hiding = ANY
    return copied


def ratio(numerator: str, denominator: str, unit: float, sums: Mapping[str, Any]) -> float | None:
    """Returns the sum named `numerator` divided by the sum named `denominator` and by `unit`. Returns None if the
    denominator is missing or 0."""
    return float(sums[numerator]) / float(sums[denominator]) / unit if sums.get(denominator) else None


EXAMPLE = Example(
    options={"target": "text"},
    inputs={
        "image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8},
        "text": {"use": "text", "encoding": "characters"},
        "other": {"use": "text", "encoding": "bytes"},
    },
)
