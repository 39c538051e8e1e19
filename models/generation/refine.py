"""Refinement: the masks of a draft are filled in, in any number of steps, by confidence or in random order.

One step reads the complete draft and fills in several tokens at once, each independently of the others; more steps are
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
    """How a draft is refined: in `steps` steps, but at most one per mask; `by` their confidence or in `random` order.
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

    def progress(self, masks: Int[Tensor, "s"], step: int) -> Float[Tensor, "s"]:
        """The share of the steps of items with so many masks that is done after this step, counted from 0. An item
        takes at most as many steps as it has masks."""
        return ((step + 1) / masks.double().clamp(1, self.steps)).clamp(max=1)

    def left(self, masks: Int[Tensor, "s"], step: int) -> Int[Tensor, "s"]:
        """How many of the masks of each item are left after this step, counted from 0; the last step leaves none."""
        if self.by == "random":
            steps = masks.clamp(1, self.steps)
            return masks * (steps - step - 1).clamp(min=0) // steps
        share = torch.cos(self.progress(masks, step) * math.pi / 2)
        return (masks * share + 1e-9).floor().long()  # the cosine of 60 degrees may come out just below a half


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
        sample, slots = batch.main.tokens.sample.flatten(), batch.main.chunks[input].slots
        self.padding = ((sample if slots is None else sample[slots]) == 0).to(self.device)

    @property
    def masked(self) -> Bool[Tensor, "t"]:
        """Which tokens are still to be filled in."""
        return self.ids == self.mask

    @property
    def scored(self) -> Bool[Tensor, "t"]:
        """Which tokens have a loss: neither special ids nor the padding behind the last window of a corpus."""
        return ~self.never[self.ids] & ~self.padding

    def items(self) -> list[list[int]]:
        """The ids of every item as they are now."""
        return [each.tolist() for each in self.ids.cpu().split(self.counts.tolist())]

    @torch.inference_mode()
    def scores(self, guidance: float = 1.0, at: Bool[Tensor, "t"] | None = None) -> Float[Tensor, "m v"]:
        """The log-probabilities of the ids of every masked token (or of the tokens `at`), minus infinity for those that
        no token may become; with `guidance` their probabilities add up to 1 again. Raises ValueError if the scores are
        not finite."""
        at = self.masked if at is None else at
        scores, guided = self._read(self.batches[0], at), guidance != 1 and len(self.batches) > 1
        if guided:
            without = self._read(self.batches[1], at)
            scores = without + guidance * (scores - without)
        if not bool(scores.isfinite().all()):
            raise ValueError(NOT_FINITE)
        scores = scores.masked_fill(self.never, -torch.inf)
        return scores.log_softmax(-1) if guided else scores

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
            where = self.device if generator is None else generator.device
            noise = torch.rand(len(logs), generator=generator, device=where).to(self.device)
            order = noise
            if how.by == "confidence":
                gumbel = -torch.log(-torch.log(noise.clamp(1e-9, 1 - 1e-7)))
                sure = logs.gather(1, chosen[:, None].to(self.device))[:, 0]
                scale = NOISE * (1 - how.progress(wanted, step).float()) * (sampling.temperature != 0)
                order = sure + scale[self.item[at]] * gumbel
            kept = keep_masked(order, self.item[at], how.left(wanted, step))
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
    judged = draft.scored
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
    true, judged = draft.ids.clone(), draft.scored
    draft.ids = torch.where(judged, draft.mask, true)
    found = draft.scores(at=judged).gather(1, true[judged][:, None])[:, 0]
    draft.ids = true
    return found.new_zeros(len(draft.counts)).index_add_(0, draft.item[judged], -found)
