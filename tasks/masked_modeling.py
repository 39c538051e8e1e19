"""Masked modelling: some tokens of a text are hidden, and are predicted from the text on both sides (BERT)."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..models.batch import IGNORED, Batch, Chunks, SetPlan, Targets
from ..models.heads import Tied, VocabularyHead
from ..tokenizers.base import Example
from ..tokenizers.encoding.base import Vocabulary
from .base import Metric, Needs, Task, per_target
from .language_modeling import losses_of_ids, nats, perplexity

SPAN_WORDS = np.arange(1, 11)
"""The lengths of hidden spans, in words."""
SPAN_SHARES = 0.8**SPAN_WORDS / (0.8**SPAN_WORDS).sum()
"""The probabilities of these lengths: the geometric distribution of SpanBERT with p = 0.2, limited to 10 words (3.8 on
average)."""
CANDIDATES = 5
"""The number of most likely tokens that an answer lists for a mask."""


class MaskedModeling(Task):
    """Hides a `share` of the tokens of the text `target` and predicts them (Devlin et al. 2018, arXiv:1810.04805).

    `hide`: single `tokens`, all tokens of `words` (a Chinese character is a word), or `spans` of 1 to 10 words, 3.8 on
    average (SpanBERT, Joshi et al. 2019, arXiv:1907.10529). The share `as_mask` (0.8) of the hidden tokens is replaced
    by the mask, the share `as_random` (0.1) by random tokens, and the rest is unchanged; the choice is the same for all
    tokens of a span. `head`: `tied`, or BERT's `masked_head`. In `predict`, the task fills in the masks of a text.

    "the cat sat" with "cat" hidden, as returned by `targets`:

        Chunks.values     [CLS]  the    [MASK]  sat    [SEP]
        Chunks.hidden     -100   -100   cat     -100   -100
        Targets           values cat, slots 2, count 1
    """

    def __init__(
        self, *, target: str, share: float = 0.15, hide: Literal["tokens", "words", "spans"] = "tokens",
        as_mask: float = 0.8, as_random: float = 0.1, head: Callable[..., VocabularyHead] = Tied, weight: float = 1.0,
    ):  # fmt: skip
        if not 0 < share < 1:
            raise ValueError(f"share must lie between 0 and 1, not {share}")
        if min(as_mask, as_random) < 0 or as_mask + as_random > 1:
            raise ValueError(f"as_mask ({as_mask}) and as_random ({as_random}) must be 0 or more, and 1 or less in sum")
        self.target, self.share, self.hide, self._head, self.weight = target, share, hide, head, weight
        self.as_mask, self.as_random = as_mask, as_random

    @property
    def needs(self) -> Needs:
        marks = ("mask",)
        return Needs(
            inputs=(self.target,),
            special_ids=marks,
            hides="masked",
            prediction_choppers={self.target: lambda c: c.with_marks(marks)},
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the input `target`."""
        return self.choppers[self.target].vocabulary

    @property
    def mask(self) -> int:
        """The id of the mask."""
        return self.vocabulary.roles["mask"]

    @cached_property
    def plain(self) -> np.ndarray:
        """Booleans (v): whether each id of the vocabulary stands for content and is not special."""
        return self.vocabulary.plain

    def without_special(self, ids: Sequence[int]) -> list[int]:
        """Returns the given ids without the special ids."""
        return [id for id in ids if self.plain[id]]

    @cached_property
    def drawn(self) -> np.ndarray:
        """The ids from which random replacements are drawn: the ids that are not special and that the vocabulary uses
        (its numbering can have gaps)."""
        return np.flatnonzero(self.plain & self.vocabulary.used)

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        if self.hide != "tokens" and self.choppers[self.target].kind != "text":
            raise ValueError(f"hide: {self.hide} needs a text, and {self.target!r} is not a text; use hide: tokens")
        if not len(self.drawn):
            raise ValueError(f"the vocabulary of {self.target!r} has only special ids: there is nothing to hide")
        return self._head(tokenizers[self.target].embedding)

    # --------------------------------------------------------------------------------------------------------- hiding

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Returns the batch and the targets. In the batch, some ids of the text are replaced, and `Chunks.hidden`
        contains the original ids; these are also the values of the targets."""
        of_encoder = batch.encoder is not None and self.target in batch.encoder.chunks
        planned = batch.encoder if of_encoder else batch.main
        if self.target not in planned.chunks:
            none = torch.zeros(0, dtype=torch.long)
            return batch, Targets(values=none, slots=none, of_encoder=of_encoder)
        planned = self._altered(planned)
        chunks = planned.chunks[self.target]
        hidden = chunks.hidden.flatten()
        positions = (hidden != IGNORED).nonzero()[:, 0]
        slots = positions if chunks.slots is None else chunks.slots[positions]
        targets = Targets(values=hidden[positions], slots=slots, count=len(positions), of_encoder=of_encoder)
        return batch.with_set_of(targets, planned), targets

    def _altered(self, planned: SetPlan) -> SetPlan:
        """Returns the set with tokens of the text hidden. In `predict`, the text is unchanged, and its masks count as
        the hidden tokens."""
        chunks = planned.chunks[self.target]
        values, hidden = chunks.values.clone(), torch.full_like(chunks.values, IGNORED)
        if self.for_prediction:
            hidden = torch.where(values == self.mask, values, hidden)
            return replace(planned, chunks={**planned.chunks, self.target: replace(chunks, hidden=hidden)})
        flat, originals = values.view(-1).numpy(), hidden.view(-1).numpy()
        # the seed of a window ends with the position of its first id: divided by the context it is the window's number
        context = planned.tokens.shape[1] if chunks.slots is None else 1
        for seed, (start, end) in runs(planned, chunks):
            random = self.random(seed)
            ids = flat[start:end].copy()
            chosen = self.choose(ids, random, (*seed[:-1], seed[-1] // context))
            originals[start:end][chosen] = ids[chosen]
            spans = np.cumsum(np.diff(chosen, prepend=-1) > 1) if self.hide == "spans" else np.arange(len(chosen))
            flat[start:end][chosen] = self.replaced(ids[chosen], spans, random)
        chunks = replace(chunks, values=values, hidden=hidden)
        return replace(planned, chunks={**planned.chunks, self.target: chunks})

    def random(self, seed: tuple[int, ...]) -> np.random.Generator:
        """Returns the random generator of a sample (of a stream: of a window) with this seed."""
        return np.random.default_rng([*seed, 1])

    def choose(self, ids: np.ndarray, random: np.random.Generator, seed: tuple[int, ...] = ()) -> np.ndarray:
        """Returns the sorted indices in `ids` of the tokens to hide. Special ids are never hidden. Of the other ids,
        the share `share` is hidden, rounded, but at least one; whole words or spans are chosen without exceeding this
        number, except if the first chosen word is longer. `seed`: the run's seed, the epoch, and the number of the
        sample (or window) in the epoch."""
        slots = np.flatnonzero(self.plain[ids])
        largest = max(1, round(self.share * len(slots))) if len(slots) else 0
        if self.hide == "tokens":
            return np.sort(random.permutation(slots)[:largest])
        joined = within_words([self.vocabulary.pieces[id] for id in ids]) & self.plain[ids[1:]] & self.plain[ids[:-1]]
        word = np.concatenate([[0], np.cumsum(~joined)])  # the number of the word that each token belongs to
        words = np.unique(word[slots])
        hidden = np.zeros(word[-1] + 1, dtype=bool)
        for first in random.permutation(len(words)):
            count = random.choice(SPAN_WORDS, p=SPAN_SHARES) if self.hide == "spans" else 1
            for number in words[first : first + count]:
                so_far = hidden[word[slots]].sum()
                added = (word[slots] == number).sum() * (not hidden[number])
                if so_far + added <= largest or not so_far:
                    hidden[number] = True
            if hidden[word[slots]].sum() >= largest:
                break
        return slots[hidden[word[slots]]]

    def replaced(self, ids: np.ndarray, spans: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns the ids that replace hidden ids: the mask, a random id, or the id itself; the choice between these
        three is the same for all ids of a span. `spans`: the number of the span to which each id belongs."""
        choice = random.random(spans.max(initial=-1) + 1)[spans]
        drawn = random.choice(self.drawn, len(ids))
        return np.where(choice < self.as_mask, self.mask, np.where(choice < self.as_mask + self.as_random, drawn, ids))

    def restore(self, ids: Sequence[int]) -> Any:
        """Returns the item that generated ids encode, such as a text."""
        return self.vocabulary.restore(ids)

    # -------------------------------------------------------------------------------------------------- loss, metrics

    def terms(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        return {"loss": nats(output, targets.values)}

    def chance(self) -> float:
        return math.log(self.vocabulary.size)

    def losses(self, output: Float[Tensor, "t v"], targets: Targets) -> Float[Tensor, "j"]:
        return losses_of_ids(output, targets.values)

    def measure(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        return {"right": (output.argmax(-1) == targets.values).sum()}

    @property
    def metrics(self) -> dict[str, Metric]:
        """`loss` in nats per hidden token, `perplexity` (the exponential of the loss), and `accuracy`, the share of
        hidden tokens that are predicted correctly."""
        right = partial(per_target, name="right")
        return {
            "loss": Metric("nats per hidden token", of_sums=per_target),
            "perplexity": Metric("tokens", of_sums=perplexity),
            "accuracy": Metric("share of hidden tokens", larger_is_better=True, of_sums=right),
        }

    # ---------------------------------------------------------------------------------------------- filling in masks

    def answers(self, output: Float[Tensor, "t v"], targets: Targets, batch: Batch) -> list[dict[str, Any]]:
        """Returns for every sample the `text` with its masks filled in, and `masks`: for each mask, a list of the most
        likely tokens, {"token": "cat", "probability": 0.9}. A sample without the text or without masks has only
        `error`."""
        planned = batch.set_of(targets)
        if (chunks := planned.chunks.get(self.target)) is None:
            return [self._unanswered(0)] * planned.samples
        shares = output[:, : len(self.plain)].float().softmax(-1).cpu()
        count = min(CANDIDATES, int(self.plain.sum()))
        shares, candidates = shares.masked_fill(~torch.from_numpy(self.plain), 0.0).topk(count)
        filled, is_mask = chunks.values.flatten().cpu().clone(), (chunks.hidden != IGNORED).flatten().cpu()
        filled[is_mask] = candidates[:, 0]
        sample = planned.tokens.sample.flatten().cpu()
        if chunks.slots is not None:  # else the text fills all slots
            sample = sample[chunks.slots.cpu()]
        answers = []
        for number in range(1, planned.samples + 1):
            rows = (sample[is_mask] == number).nonzero()[:, 0].tolist()
            if rows:
                masks = [self._candidates(candidates[row], shares[row]) for row in rows]
                answers.append({**self.vocabulary.restored(filled[sample == number].tolist()), "masks": masks})
            else:
                answers.append(self._unanswered(int((sample == number).sum())))
        return answers

    def _unanswered(self, tokens: int) -> dict[str, Any]:
        """Returns the answer for a sample without masks. `tokens` is the number of tokens of its text; 0 if the text is
        missing."""
        if not tokens:
            return {"error": f"{self.target!r} is missing" + "; `chopmix generate` generates it" * self.needs.refines}
        return {"error": f"{self.target!r} contains no {self.vocabulary.specials[self.mask]!r} to fill in"}

    def _candidates(self, ids: Tensor, probabilities: Tensor) -> list[dict[str, Any]]:
        pairs = zip(ids.tolist(), probabilities.tolist(), strict=True)
        return [{"token": self.vocabulary.shown(id), "probability": p} for id, p in pairs]


def within_words(chunks: Sequence[bytes]) -> np.ndarray:
    """Returns booleans (n - 1): whether each chunk of a text, except the first, continues the word of the preceding
    chunk. This is the case if there are letters or digits on both sides of the boundary, or if the boundary is inside a
    character. Chinese characters are separate words, as they are for BERT. For b"un", b"seen", b" cat": True, False."""
    text = b"".join(chunks).decode(errors="surrogateescape")
    sizes = [len(character.encode(errors="surrogateescape")) for character in text]
    starts = np.cumsum([0, *sizes])
    in_word = np.array([False, *map(goes_into_word, text), False])
    cuts = np.cumsum([len(chunk) for chunk in chunks])[:-1]
    character = np.searchsorted(starts, cuts)  # the first character that begins at or after the cut
    return (starts[character] != cuts) | (in_word[character] & in_word[character + 1])


def goes_into_word(character: str) -> bool:
    """Returns whether a character forms words with its neighbours. Letters, digits and combining marks do, Chinese
    characters do not."""
    chinese = "\u3400" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff" or character >= "\U00020000"
    return not chinese and (character.isalnum() or unicodedata.category(character) in ("Mn", "Mc", "Cs"))


def runs(planned: SetPlan, chunks: Chunks) -> Iterator[tuple[tuple[int, ...], tuple[int, int]]]:
    """Yields (seed, (start, end)) for each row of a stream, or for each text of a batch of samples: the seed of the row
    or sample, and the range of its tokens in the flattened ids of the input, without padding. Empty texts are
    skipped."""
    if chunks.slots is None:
        n = planned.tokens.shape[1]
        for row, (seed, sample) in enumerate(zip(planned.seeds, planned.tokens.sample)):
            yield seed, (row * n, row * n + int((sample > 0).sum()))
        return
    samples, start = planned.tokens.sample.flatten(), 0
    for count in chunks.counts.tolist():
        if count:
            yield planned.seeds[int(samples[chunks.slots[start]]) - 1], (start, start + count)
        start += count


EXAMPLE = Example(
    options={"target": "text"},
    inputs={
        "image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8},
        "text": {"use": "text", "encoding": "characters"},
    },
)
