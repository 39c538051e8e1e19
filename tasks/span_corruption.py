"""Span corruption: spans of a text are cut out, and written down one after another (T5's pretraining)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from ..models.batch import Batch, SetPlan, Targets
from ..models.heads import Tied, VocabularyHead
from ..tokenizers.base import Chopper, Chunk
from ..tokenizers.packing import place
from .base import Metric, Needs
from .masked_modeling import runs
from .sequence_to_sequence import SequenceToSequence


class SpanCorruption(SequenceToSequence):
    """Cut a `share` of the text `source` out in spans of `mean_span` tokens on average, leave a sentinel for
    each, and write every sentinel with what it stands for as `target` (Raffel et al. 2019, arXiv:1910.10683,
    section 3.1.4).

    `target` is an input of its own, made here: `{same_as: SOURCE}`. The text is read in windows that fill the encoder's
    context once they are corrupted. `sentinels` is how many there are. Asked to predict, it writes what the
    sentinels of a text stand for.
    """

    def __init__(
        self, *, source: str, target: str, share: float = 0.15, mean_span: float = 3.0, sentinels: int = 100,
        head: Callable[..., VocabularyHead] = Tied, weight: float = 1.0,
    ):  # fmt: skip
        super().__init__(target=target, head=head, weight=weight)
        if not 0 < share < 1 or mean_span < 1:
            raise ValueError(f"share ({share}) must lie between 0 and 1, and mean_span ({mean_span}) be at least 1")
        self.source, self.share, self.mean_span = source, share, mean_span
        self.marks = tuple(f"sentinel_{number}" for number in range(sentinels))

    @property
    def needs(self) -> Needs:
        return replace(
            super().needs, inputs=(self.source, self.target), makes=(self.target,), special_ids=self.marks,
            hides="denoised", window=self.window, asked={self.source: self.as_asked},
        )  # fmt: skip

    @cached_property
    def sentinels(self) -> list[int]:
        """The ids that stand for what was cut out."""
        return [self.text.roles[name] for name in self.marks]

    # ------------------------------------------------------------------------------------------------------- lengths

    def lengths(self, raw: int) -> tuple[int, int]:
        """How long `raw` tokens become: what is read, its end included, and what is written."""
        hidden, spans = self.noise(raw)
        return raw - hidden + spans + 1, hidden + spans + 1

    def noise(self, raw: int) -> tuple[int, int]:
        """How many of `raw` tokens are cut out, in how many spans: at least one, and something stays between them."""
        hidden = min(max(round(raw * self.share), 1), raw - 1)
        return hidden, min(max(round(hidden / self.mean_span), 1), raw - hidden, len(self.marks))

    def window(self, context: int, encoder_context: int) -> int:
        """The most tokens that fit both contexts once they are corrupted."""
        raw = 2
        while self.lengths(raw + 1)[0] <= encoder_context and self.lengths(raw + 1)[1] <= context:
            raw += 1
        return raw

    # ---------------------------------------------------------------------------------------------------- corruption

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """The set of the text becomes two: what is left of it, for the encoder, and what was cut out, for the
        decoder, which is what is judged."""
        return super().targets(self.in_two(batch.first if self.source in batch.first.chunks else batch.main))

    def in_two(self, planned: SetPlan) -> Batch:
        """The text with spans cut out, and the spans."""
        chunks = planned.chunks[self.source]
        ids, reads, writes = chunks.values.flatten().numpy(), [], []
        for seed, (start, end) in runs(planned, chunks):
            left, cut = self.corrupted(ids[start:end], np.random.default_rng([*seed, 2]))
            reads.append([(self.source, Chunk(torch.tensor(left), len(left), next_ids=torch.tensor(left)))])
            given = [self.text.start, *cut[:-1]]
            writes.append([(self.target, Chunk(torch.tensor(given), len(given), next_ids=torch.tensor(cut)))])
        return Batch(main=self.placed(writes, planned), encoder=self.placed(reads, planned))

    def placed(self, samples: Sequence[Sequence[tuple[str, Chunk]]], planned: SetPlan) -> SetPlan:
        """Chopped samples as a set, one a row; all else is as in the set that they were made of."""
        longest = max(chunk.count for ((_, chunk),) in samples)
        laid = place(samples, self.choppers, longest, rows=range(len(samples)), trim=True)
        return replace(laid, seeds=planned.seeds, keys=planned.keys, labels=planned.labels)

    def corrupted(self, ids: np.ndarray, random: np.random.Generator) -> tuple[list[int], list[int]]:
        """What is left of the ids, a sentinel for every span cut out, and the spans, each behind its
        sentinel. Both end."""
        hidden, spans = self.noise(len(ids))
        cut, kept = split(hidden, spans, random), split(len(ids) - hidden, spans, random)
        left, out, place = [], [], 0
        for sentinel, stays, goes in zip(self.sentinels, kept, cut):
            left += [*ids[place : place + stays], sentinel]
            out += [sentinel, *ids[place + stays : place + stays + goes]]
            place += stays + goes
        end = self.text.end
        return [int(i) for i in (*left, end)], [int(i) for i in (*out, end)]

    def as_asked(self, chopper: Chopper) -> Chopper:
        """The text with its sentinels, which stand where spans are wanted, and its end, as it is read while
        training."""
        closing = () if self.text.after else (self.text.end,)
        return replace(chopper.with_marks(self.marks), closing=closing)

    def written(self, ids):
        return self.text.decode(ids, specials=True)

    @property
    def metrics(self) -> dict[str, Metric]:
        return {name: metric for name, metric in super().metrics.items() if name != "bits_per_byte"}


def split(total: int, parts: int, random: np.random.Generator) -> np.ndarray:
    """A whole number as a sum of so many whole numbers of at least 1, every way equally likely."""
    ends = np.sort(random.permutation(total - 1)[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], ends, [total]]))
