"""Refinement: replaces the masks of a draft by ids in several steps, in the order of confidence or in random order.

One step reads the complete draft and fills in several tokens at once, independently of each other. More steps take
longer but give better results. With one token per step and random order, the loss of masked diffusion in an evaluation
is an upper bound of the negative log-likelihood of a text.
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
from .sampling import Sampling, Streams

NOISE = 4.5
"""The scale of the random noise that is added to confidences. It decreases to 0 at the last step (MaskGIT)."""


@dataclass(frozen=True, kw_only=True)
class Refining:
    """Options of refinement. `steps` is the maximum number of steps; an item with fewer masks takes one step per mask.
    `by` is the order in which tokens are filled in: `confidence` or `random`.

    `through` names inputs that are generated first, by the tasks that predict them, if a sample lacks these inputs or
    they are dropped. One step draws its tokens independently of each other; tokens that all depend on the same
    generated input agree better (to speak the digit of an image: `through: [word]`). `drafts` is the number of drafts
    per item; the draft from which the model predicts the inputs of `through` best is kept. `tokens` is the number of
    masks of a text, if no other option determines this number.

    With `confidence`, the share of masks decreases like a cosine, so the first steps fill in few tokens (Chang et al.
    2022, arXiv:2202.04200). With `random` the share decreases linearly. Raises ValueError if steps, drafts or tokens
    are below 1, or if `drafts` is above 1 and `through` is empty.
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
            raise ValueError(f"drafts is {self.drafts}, but `through` names no input to choose the best draft by")
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"tokens must be at least 1, not {self.tokens}")

    def progress(self, masks: Int[Tensor, "s"], step: int) -> Float[Tensor, "s"]:
        """Returns for each item the share of its steps that are completed after `step` (from 0), up to 1. `masks` are
        the numbers of masks of the items at the start. An item takes at most one step per mask."""
        return ((step + 1) / masks.double().clamp(1, self.steps)).clamp(max=1)

    def left(self, masks: Int[Tensor, "s"], step: int) -> Int[Tensor, "s"]:
        """Returns for each item the number of masks that are left after `step` (from 0); 0 after its last step."""
        if self.by == "random":
            steps = masks.clamp(1, self.steps)
            return masks * (steps - step - 1).clamp(min=0) // steps
        share = torch.cos(self.progress(masks, step) * math.pi / 2)
        return (masks * share + 1e-9).floor().long()  # the cosine of 60 degrees may come out just below a half


class Draft:
    """The tokens of the input `input` in the main set of `batch`. The tokens with the id `mask` are filled in.

    `task` is the name of the task whose head computes the scores. `vocabulary` is the number of ids. `never` is True
    for ids that are never filled in. `without` has the same samples without their other inputs, for guidance; None: no
    guidance.
    """

    def __init__(
        self, model: Model, batch: Batch, *, input: str, task: str, vocabulary: int, mask: int,
        never: Bool[Tensor, "v"], without: Batch | None = None,
    ):  # fmt: skip
        self.model, self.input, self.head, self.mask = model, input, model.heads[task], mask
        self.device, dtype = next(model.parameters()).device, computing_type(model)
        variants = [batch] + [without] * (without is not None)
        self.batches = [model.plan(variant, dtype=dtype, device=self.device).to(self.device) for variant in variants]
        self.never, self.vocabulary = never.to(self.device), vocabulary
        chunks = self.batches[0].main.chunks[input]
        self.shape, self.ids = chunks.values.shape, chunks.values.flatten().clone()
        n, counts = batch.main.tokens.shape[1], batch.main.chunks[input].counts  # on the CPU
        counts = torch.full((self.shape[0],), n) if counts is None else counts
        self.item = torch.repeat_interleave(torch.arange(len(counts)), counts).to(self.device)
        self.counts = counts
        sample, slots = batch.main.tokens.sample.flatten(), batch.main.chunks[input].slots
        self.padding = ((sample if slots is None else sample[slots]) == 0).to(self.device)

    @property
    def masked(self) -> Bool[Tensor, "t"]:
        """True for each token that is still masked."""
        return self.ids == self.mask

    @property
    def scored(self) -> Bool[Tensor, "t"]:
        """True for each token that has a loss. Ids in `never` have no loss, and padding has no loss."""
        return ~self.never[self.ids] & ~self.padding

    def items(self) -> list[list[int]]:
        """Returns the current ids of every item, including ids of masks."""
        return [ids.tolist() for ids in self.ids.cpu().split(self.counts.tolist())]

    @torch.inference_mode()
    def scores(self, guidance: float = 1.0, at: Bool[Tensor, "t"] | None = None) -> Float[Tensor, "m v"]:
        """Returns the log-probabilities of all ids for every token where `at` is True (None: for every masked token);
        minus infinity for ids in `never`. If `guidance` is not 1 and there is a batch `without`, the result is guided
        and normalised again. Raises ValueError if the model's scores are NaN or infinite."""
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
        self, refining: Refining, sampling: Sampling = Sampling(), guidance: float = 1.0,
        streams: Streams | None = None,
    ) -> Iterator[list[list[int]]]:  # fmt: skip
        """Fills in all masks in up to `refining.steps` steps. Yields the ids of every item after each step. `streams`
        has the random numbers of each item (None: each call fills in other ids)."""
        streams = streams or Streams.of(len(self.counts))
        masks = torch.bincount(self.item[self.masked], minlength=len(self.counts))
        for step in range(refining.steps):
            at = self.masked
            if not bool(at.any()):
                return
            logs = self.scores(guidance)
            counts = torch.bincount(self.item[at], minlength=len(self.counts)).tolist()
            previous = torch.full((len(logs), 1), -1, device=self.device)
            chosen = sampling.choose(logs, previous, streams.uniform(counts))
            order = noise = streams.uniform(counts).float().to(self.device, non_blocking=True)
            if refining.by == "confidence":
                gumbel = -torch.log(-torch.log(noise.clamp(1e-9, 1 - 1e-7)))
                confidence = logs.gather(1, chosen[:, None].to(self.device))[:, 0]
                scale = NOISE * (1 - refining.progress(masks, step).float()) * (sampling.temperature != 0)
                order = confidence + scale[self.item[at]] * gumbel
            kept = keep_masked(order, self.item[at], refining.left(masks, step))
            self.ids[at] = torch.where(kept, self.mask, chosen.to(self.device))
            yield self.items()


def keep_masked(order: Float[Tensor, "m"], item: Int[Tensor, "m"], left: Int[Tensor, "s"]) -> Bool[Tensor, "m"]:
    """Returns for each of m masked tokens whether it stays masked. `order` has one value per masked token, `item` the
    number of its item, and `left` one number per item. In item i the `left[i]` tokens with the smallest values of
    `order` stay masked, but at least one token of every item does not, so every step fills in a token.

    Example: order 3 1 2 5, item 0 0 0 1, left 1 1. The token with order 1 stays masked, the last token does not.
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
    """Returns the negative log-likelihood in nats of the tokens of a draft without masks, summed over all items. The
    tokens of an item are predicted from left to right: for each prediction, the predicted token and all later tokens
    are masked. Only tokens in `Draft.scored` count. Needs one forward pass per token of the longest item."""
    true, total = draft.ids.clone(), 0.0
    counts = draft.counts.to(draft.device)
    starts = counts.cumsum(0) - counts
    index = torch.arange(len(true), device=true.device) - starts[draft.item]
    scored = draft.scored
    for number in range(int(counts.max())):
        draft.ids = torch.where((index >= number) & scored, draft.mask, true)
        at = (index == number) & scored
        if bool(at.any()):
            total -= float(draft.scores(at=at).gather(1, true[at][:, None]).sum())
    draft.ids = true
    return total


@torch.inference_mode()
def hidden_nats(draft: Draft) -> Float[Tensor, "s"]:
    """Returns the negative log-likelihood in nats of the tokens of each item, (s,), for a draft without masks. All
    tokens in `Draft.scored` are masked at the same time and predicted in one forward pass."""
    true, scored = draft.ids.clone(), draft.scored
    draft.ids = torch.where(scored, draft.mask, true)
    logs = draft.scores(at=scored).gather(1, true[scored][:, None])[:, 0]
    draft.ids = true
    return logs.new_zeros(len(draft.counts)).index_add_(0, draft.item[scored], -logs)
