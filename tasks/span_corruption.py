"""Span corruption: spans of a text are cut out, and generated one after another (T5's pretraining)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from ..models.batch import Batch, SetPlan, Targets
from ..models.heads import Tied, VocabularyHead
from ..tokenizers.base import Chopper, Chunk
from ..tokenizers.chopping.packing import place
from .base import Metric, Needs
from .masked_modeling import runs
from .sequence_to_sequence import SequenceToSequence


class SpanCorruption(SequenceToSequence):
    """Cut a `share` of the text `source` out in spans of `mean_span` tokens on average, leave a sentinel for each, and
    generate every sentinel with its span as `target` (Raffel et al. 2019, arXiv:1910.10683, section 3.1.4).

    `target` is an input that the task makes: `{same_as: SOURCE}` in the YAML. A corpus is read in windows that fill the
    encoder's context once they are corrupted. `sentinels`: how many there are, the most spans of a text. Asked to
    predict, it generates what the sentinels of a text stand for.

    The text a b c d e f with the spans c and e f cut out, where <0> and <1> are sentinels and </s> ends a text:

        encoder reads       a    b    <0>  d    <1>  </s>
        decoder reads       <s>  <0>  c    <1>  e    f
        decoder predicts    <0>  c    <1>  e    f    </s>
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
        """The ids of the sentinels, in order."""
        return [self.vocabulary.roles[name] for name in self.marks]

    # ------------------------------------------------------------------------------------------------------- lengths

    def lengths(self, raw: int) -> tuple[int, int]:
        """The tokens of the encoder's and the decoder's side that `raw` tokens become, ends included: with the default
        options 100 tokens become 91 and 21."""
        hidden, spans = self.noise(raw)
        return raw - hidden + spans + 1, hidden + spans + 1

    def noise(self, raw: int) -> tuple[int, int]:
        """How many of `raw` (2 or more) tokens are cut out, and in how many spans: at least one, and at least one token
        stays before each. With the default options 15 of 100, in 5 spans."""
        hidden = min(max(round(raw * self.share), 1), max(raw - 1, 0))
        return hidden, min(max(round(hidden / self.mean_span), 1), raw - hidden, len(self.marks))

    def window(self, context: int, encoder_context: int) -> int:
        """The most tokens whose corrupted sides fit the two contexts."""
        raw = 2
        while self.lengths(raw + 1)[0] <= encoder_context and self.lengths(raw + 1)[1] <= context:
            raw += 1
        return raw

    # ---------------------------------------------------------------------------------------------------- corruption

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """The batch with the set of the text made into two, as `in_two`; the targets are the decoder's next ids.
        Without the text there are none."""
        read = next((planned for planned in batch.sets.values() if self.source in planned.chunks), None)
        return super().targets(batch if read is None else self.in_two(read))

    def in_two(self, planned: SetPlan) -> Batch:
        """The encoder's set, of texts with spans cut out, and the decoder's, of the spans."""
        chunks = planned.chunks[self.source]
        ids, reads, writes = chunks.values.flatten().numpy(), [], []
        closing = 0 if chunks.slots is None else len(self.vocabulary.after)  # of a text that is a sample: never cut out
        for seed, (start, end) in runs(planned, chunks):
            left, cut = self.corrupted(ids[start : end - closing], np.random.default_rng([*seed, 2]))
            reads.append([(self.source, Chunk(torch.tensor(left), len(left), next_ids=torch.tensor(left)))])
            given = [self.vocabulary.start, *cut[:-1]]
            writes.append([(self.target, Chunk(torch.tensor(given), len(given), next_ids=torch.tensor(cut)))])
        return Batch(main=self.placed(writes, planned), encoder=self.placed(reads, planned))

    def placed(self, samples: Sequence[Sequence[tuple[str, Chunk]]], planned: SetPlan) -> SetPlan:
        """Chopped samples as a set, one a row, with the seeds, keys and labels of `planned`, from which they come."""
        longest = max(chunk.count for ((_, chunk),) in samples)
        laid = place(samples, self.choppers, longest, rows=range(len(samples)), trim=True)
        return replace(laid, seeds=planned.seeds, keys=planned.keys, labels=planned.labels)

    def corrupted(self, ids: np.ndarray, random: np.random.Generator) -> tuple[list[int], list[int]]:
        """The ids with a sentinel for every span cut out, and the spans, each behind its sentinel; the end follows
        both."""
        hidden, spans = self.noise(len(ids))
        cut, kept = split(hidden, spans, random), split(len(ids) - hidden, spans, random)
        left, out, place = [], [], 0
        for sentinel, stays, goes in zip(self.sentinels, kept, cut):
            left += [*ids[place : place + stays], sentinel]
            out += [sentinel, *ids[place + stays : place + stays + goes]]
            place += stays + goes
        end = self.vocabulary.end
        return [int(i) for i in (*left, end)], [int(i) for i in (*out, end)]

    def as_asked(self, chopper: Chopper) -> Chopper:
        """The chopper for `predict`: sentinels in the text are read as such, and the end follows it as in training."""
        closing = () if self.vocabulary.after else (self.vocabulary.end,)
        return replace(chopper.with_marks(self.marks), closing=closing)

    def restore(self, ids):
        return self.vocabulary.decode(ids, specials=True)

    @property
    def metrics(self) -> dict[str, Metric]:
        return {name: metric for name, metric in super().metrics.items() if name != "bits_per_byte"}


def split(total: int, parts: int, random: np.random.Generator) -> np.ndarray:
    """`total` as a sum of `parts` whole numbers of at least 1, every way equally likely: 5 in 2 parts is 1 + 4, 2 + 3,
    3 + 2 or 4 + 1."""
    ends = np.sort(random.permutation(total - 1)[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], ends, [total]]))
