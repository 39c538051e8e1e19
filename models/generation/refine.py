"""Refinement: a draft of masks is filled in, the surest tokens first or any, in as many steps as one likes.

One step reads the whole draft and fills in several tokens at once, each as if the others were not; more steps are
slower and better. As many steps as tokens, in random order, is the model of which masked diffusion learns a bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..arithmetic import NOT_FINITE, computing_type
from ..batch import Batch, Chunks
from ..model import Model
from .sampling import Sampling

NOISE = 4.5
"""The scale of the noise on confidences at the first step, falling to 0 at the last (MaskGIT)."""


@dataclass(frozen=True, kw_only=True)
class Refining:
    """How a draft is refined: in `steps` steps (at most a token a step); `by` their confidence or in `random` order.
    `through` names inputs that are generated first, each as its task says, where a sample lacks them or they are
    withheld: the tokens of a draft, each of which is drawn as if the others were not, agree on them then (a spoken
    digit from a picture `through: [word]`). Of `drafts` of an item, which differ by what is drawn, the one is kept from
    which the model itself reads the inputs of `through` best. `tokens` is how many masks a text has where nothing else
    tells it.

    By confidence the share of masks falls with the cosine of the time, so that few tokens are chosen first (Chang et
    al. 2022, arXiv:2202.04200); at random it falls evenly. Raises ValueError for no step, no draft or no token,
    and for several drafts where nothing is read from them.
    """

    steps: int = 16
    by: Literal["confidence", "random"] = "confidence"
    through: tuple[str, ...] = ()
    drafts: int = 1
    tokens: int | None = None

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if self.drafts < 1:
            raise ValueError(f"drafts must be at least 1, not {self.drafts}")
        if self.drafts > 1 and not self.through:
            raise ValueError(
                f"of {self.drafts} drafts the one is kept from which `through` is read best; it names none"
            )
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"tokens must be at least 1, not {self.tokens}")

    def left(self, step: int) -> float:
        """The share of masks that are left after this step, counted from 0."""
        done = (step + 1) / self.steps
        return 1 - done if self.by == "random" else math.cos(done * math.pi / 2)


class Draft:
    """The tokens of the input `input` in the main set of `batch`, of which those with the id `mask` are filled in.

    `task` names the head that scores, `vocabulary` is the number of its ids, `never` those that no token may become.
    `without`: the same samples without their other inputs, for `guidance`.
    """

    def __init__(
        self, model: Model, batch: Batch, *, input: str, task: str, vocabulary: int, mask: int,
        never: Bool[Tensor, "v"], without: Batch | None = None,
    ):  # fmt: skip
        self.model, self.input, self.head, self.mask = model, input, model.heads[task], mask
        self.device, dtype = next(model.parameters()).device, computing_type(model)
        every = [batch] + [without] * (without is not None)
        self.batches = [model.plan(each, dtype=dtype, device=self.device).to(self.device) for each in every]
        self.never, self.vocabulary = never.to(self.device), vocabulary
        chunks = self.batches[0].main.chunks[input]
        self.shape, self.ids = chunks.values.shape, chunks.values.flatten()
        n, counts = batch.main.tokens.shape[1], batch.main.chunks[input].counts  # on the CPU
        counts = torch.full((self.shape[0],), n) if counts is None else counts
        self.item = torch.repeat_interleave(torch.arange(len(counts)), counts).to(self.device)
        self.counts = counts

    @property
    def masked(self) -> Bool[Tensor, "t"]:
        """Which tokens are still to be filled in."""
        return self.ids == self.mask

    def items(self) -> list[list[int]]:
        """The ids of every item as they are now."""
        return [each.tolist() for each in self.ids.cpu().split(self.counts.tolist())]

    @torch.inference_mode()
    def scores(self, guidance: float = 1.0, at: Bool[Tensor, "t"] | None = None) -> Float[Tensor, "m v"]:
        """The log-probabilities of every masked token (or of the tokens `at`). Raises ValueError where they are no
        finite numbers."""
        at = self.masked if at is None else at
        found = [self._read(batch, at) for batch in self.batches[: 1 + (guidance != 1)]]
        if len(found) == 2:
            found[0] = found[1] + guidance * (found[0] - found[1])
        if not bool(found[0].isfinite().all()):
            raise ValueError(NOT_FINITE)
        return found[0].masked_fill(self.never, -torch.inf)

    def _read(self, batch: Batch, at: Bool[Tensor, "t"]) -> Float[Tensor, "m v"]:
        main = batch.main
        chunks: Chunks = main.chunks[self.input]
        values = {**main.chunks, self.input: replace(chunks, values=self.ids.view(self.shape))}
        hidden = self.model.read(replace(batch, main=replace(main, chunks=values))).main.flatten(0, 1)
        hidden = hidden if chunks.slots is None else hidden[chunks.slots]
        return self.head(hidden[at])[:, : self.vocabulary].float().log_softmax(-1)

    def refine(
        self, how: Refining, sampling: Sampling = Sampling(), guidance: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Iterator[list[list[int]]]:  # fmt: skip
        """Fill in all masks; yields the ids of every item after each step."""
        wanted = torch.bincount(self.item[self.masked], minlength=len(self.counts))
        for step in range(how.steps):
            at = self.masked
            if not bool(at.any()):
                return
            logs = self.scores(guidance)
            chosen = sampling.choose(logs, torch.full((len(logs), 1), -1, device=self.device), generator)
            left = (wanted * how.left(step)).floor().long() if step + 1 < how.steps else torch.zeros_like(wanted)
            where = self.device if generator is None else generator.device
            noise = torch.rand(len(logs), generator=generator, device=where).to(self.device)
            order = noise
            if how.by == "confidence":
                gumbel = -torch.log(-torch.log(noise.clamp(1e-9, 1 - 1e-7)))
                sure = logs.gather(1, chosen[:, None].to(self.device))[:, 0]
                order = sure + (0 if sampling.temperature == 0 else NOISE * (1 - (step + 1) / how.steps)) * gumbel
            kept = keep_masked(order, self.item[at], left)
            self.ids[at] = torch.where(kept, self.mask, chosen.to(self.device))
            yield self.items()


def keep_masked(order: Float[Tensor, "m"], item: Int[Tensor, "m"], left: Int[Tensor, "s"]) -> Bool[Tensor, "m"]:
    """Which masked tokens stay masked: of every item the `left` ones with the smallest values of `order`, but one fewer
    than there are, so that every step fills in a token.

    order 3 1 2 5, item 0 0 0 1, left 1 1: the token with order 1 stays; the last one does not.
    """
    by_value = order.argsort()
    sorted_items = by_value[item[by_value].argsort(stable=True)]
    counts = torch.bincount(item, minlength=len(left))
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(item)
    rank[sorted_items] = torch.arange(len(item), device=item.device) - starts[item[sorted_items]]
    return rank < torch.minimum(left, (counts - 1).clamp(min=0))[item]


@torch.inference_mode()
def chain_nats(draft: Draft) -> float:
    """The summed nats of the true tokens of a draft without masks, from left to right: each with all before it given
    and all from it on masked. One forward pass for each token of the longest item."""
    true, total = draft.ids.clone(), 0.0
    counts = draft.counts.to(draft.device)
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(true), device=true.device) - starts[draft.item]
    judged = ~draft.never[true]
    for number in range(int(counts.max())):
        draft.ids = torch.where((place >= number) & judged, draft.mask, true)
        at = (place == number) & judged
        if bool(at.any()):
            total -= float(draft.scores(at=at).gather(1, true[at][:, None]).sum())
    draft.ids = true
    return total


@torch.inference_mode()
def hidden_nats(draft: Draft) -> Float[Tensor, "s"]:
    """The nats of the true tokens of each item of a draft without masks, all of which are hidden at once."""
    true = draft.ids.clone()
    judged = ~draft.never[true]
    draft.ids = torch.where(judged, draft.mask, true)
    found = draft.scores(at=judged).gather(1, true[judged][:, None])[:, 0]
    draft.ids = true
    return found.new_zeros(len(draft.counts)).index_add_(0, draft.item[judged], -found)
