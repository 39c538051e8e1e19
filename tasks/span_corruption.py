"""Span corruption: spans of a text are removed and generated one after another (the pretraining of T5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from ..models.batch import Batch, SetPlan, Targets
from ..models.heads import Tied, VocabularyHead
from ..tokenizers.base import Chopper, Chunk, Example
from ..tokenizers.chopping.packing import place
from .base import Metric, Needs
from .masked_modeling import runs
from .sequence_to_sequence import SequenceToSequence


class SpanCorruption(SequenceToSequence):
    """Replaces a `share` of the tokens of the text `source` by sentinels, and generates the removed tokens as `target`
    (Raffel et al. 2019, arXiv:1910.10683, section 3.1.4). The tokens are removed in spans of `mean_span` tokens on
    average. One sentinel replaces each span, and in `target` each span follows its sentinel.

    `target` is an input that the task creates: `{same_as: SOURCE}` in the YAML. A corpus is read in windows; a window
    has as many tokens as fit into the contexts of encoder and decoder after the corruption. `sentinels`: the number of
    different sentinels, and therefore the largest number of spans in a text. In `predict`, the task generates the spans
    for the sentinels in a text.

    Example: the text a b c d e f without the spans c and e f; <0> and <1> are sentinels, and </s> ends a text:

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
            raise ValueError(f"share ({share}) must lie between 0 and 1, mean_span ({mean_span}) must be at least 1")
        self.source, self.share, self.mean_span = source, share, mean_span
        self.marks = tuple(f"sentinel_{number}" for number in range(sentinels))

    @property
    def needs(self) -> Needs:
        return replace(
            super().needs, inputs=(self.source, self.target), makes=(self.target,), special_ids=self.marks,
            hides="denoised", window=self.window, prediction_choppers={self.source: self.for_predict},
        )  # fmt: skip

    @cached_property
    def sentinels(self) -> list[int]:
        """The ids of the sentinels, in order."""
        return [self.vocabulary.roles[name] for name in self.marks]

    # ------------------------------------------------------------------------------------------------------- lengths

    def lengths(self, raw: int) -> tuple[int, int]:
        """Returns (number of tokens of the encoder, number of tokens of the decoder) for a text of `raw` tokens,
        including the end tokens: with the default options (91, 21) for 100 tokens."""
        hidden, spans = self.noise(raw)
        return raw - hidden + spans + 1, hidden + spans + 1

    def noise(self, raw: int) -> tuple[int, int]:
        """Returns (number of removed tokens, number of spans) for a text of `raw` tokens, 2 or more. At least one token
        is removed, and at least one remaining token precedes each span. With the default options, (15, 5) for 100
        tokens."""
        hidden = min(max(round(raw * self.share), 1), max(raw - 1, 0))
        return hidden, min(max(round(hidden / self.mean_span), 1), raw - hidden, len(self.marks))

    def window(self, context: int, encoder_context: int) -> int:
        """Returns the largest number of tokens of a text (at least 2) for which both results of `lengths` fit into the
        contexts."""
        raw = 2
        while self.lengths(raw + 1)[0] <= encoder_context and self.lengths(raw + 1)[1] <= context:
            raw += 1
        return raw

    # ---------------------------------------------------------------------------------------------------- corruption

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Returns the batch of `in_two`, and as targets the next ids of the decoder. A batch without the text is
        returned unchanged, and has no targets."""
        source = next((planned for planned in batch.sets.values() if self.source in planned.chunks), None)
        return super().targets(batch if source is None else self.in_two(source))

    def in_two(self, planned: SetPlan) -> Batch:
        """Returns a batch with two sets: the encoder's set has the texts in which sentinels replace the spans, and the
        main set (decoder) has the spans."""
        chunks = planned.chunks[self.source]
        ids, encoder_rows, decoder_rows = chunks.values.flatten().numpy(), [], []
        closing = 0 if chunks.slots is None else len(self.vocabulary.after)  # the end of a sample is never removed
        for seed, (start, end) in runs(planned, chunks):
            remaining, removed = self.corrupted(ids[start : end - closing], np.random.default_rng([*seed, 2]))
            chunk = Chunk(torch.tensor(remaining), len(remaining), next_ids=torch.tensor(remaining))
            encoder_rows.append([(self.source, chunk)])
            read = [self.vocabulary.start, *removed[:-1]]
            decoder_rows.append([(self.target, Chunk(torch.tensor(read), len(read), next_ids=torch.tensor(removed)))])
        return Batch(main=self.placed(decoder_rows, planned), encoder=self.placed(encoder_rows, planned))

    def placed(self, samples: Sequence[Sequence[tuple[str, Chunk]]], planned: SetPlan) -> SetPlan:
        """Returns chopped samples as a set with one sample per row. The seeds, keys and labels are those of `planned`,
        the set before the corruption."""
        longest = max(chunk.count for ((_, chunk),) in samples)
        laid = place(samples, self.choppers, longest, rows=range(len(samples)), trim=True)
        return replace(laid, seeds=planned.seeds, keys=planned.keys, labels=planned.labels)

    def corrupted(self, ids: np.ndarray, random: np.random.Generator) -> tuple[list[int], list[int]]:
        """Returns (remaining, removed): the ids with a sentinel in place of every removed span, and the removed spans,
        each after its sentinel. Both lists end with the end id."""
        hidden, spans = self.noise(len(ids))
        removed_lengths, kept_lengths = split(hidden, spans, random), split(len(ids) - hidden, spans, random)
        remaining, removed, start = [], [], 0
        for sentinel, kept_length, removed_length in zip(self.sentinels, kept_lengths, removed_lengths):
            span = start + kept_length
            remaining += [*ids[start:span], sentinel]
            removed += [sentinel, *ids[span : span + removed_length]]
            start = span + removed_length
        end = self.vocabulary.end
        return [int(i) for i in (*remaining, end)], [int(i) for i in (*removed, end)]

    def for_predict(self, chopper: Chopper) -> Chopper:
        """Returns the chopper for `predict`, which recognises sentinels in the text, and appends the end id as training
        does."""
        closing = () if self.vocabulary.after else (self.vocabulary.end,)
        return replace(chopper.with_marks(self.marks), closing=closing)

    def restore(self, ids):
        return self.vocabulary.decode(ids, specials=True)

    @property
    def metrics(self) -> dict[str, Metric]:
        return {name: metric for name, metric in super().metrics.items() if name != "bits_per_byte"}


def split(total: int, parts: int, random: np.random.Generator) -> np.ndarray:
    """Returns `parts` random integers of at least 1 whose sum is `total`. All such results are equally likely: for 5 in
    2 parts, 1 + 4, 2 + 3, 3 + 2 and 4 + 1."""
    ends = np.sort(random.permutation(total - 1)[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], ends, [total]]))


EXAMPLE = Example(
    options={"source": "text", "target": "spans"},
    inputs={"text": {"use": "text", "encoding": "bytes"}, "spans": {"same_as": "text"}},
    model={"encoder": {"depth": 1, "context": 64}, "attention": "causal & same_sample"},
)
