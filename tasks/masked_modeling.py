"""Masked modelling: hide some tokens of a text and say what stood there, reading the text on both sides (BERT)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..models.batch import IGNORED, Pieces, PlannedSet, Targets
from ..models.heads import Head, MaskedHead, Tied
from ..tokenizers.chopper import Chopper
from .language_modeling import nats
from .task import Task, Term

LONGEST = 10
"""The most words of a hidden span."""


class MaskedModeling(Task):
    """Hide a `share` of the tokens of the text `target`, and predict them (Devlin et al. 2018, arXiv:1810.04805).

    `hide`: single `tokens`, whole `words`, or `spans` of several words, whose number is drawn from a geometric distribution
    (0.2, at most 10: SpanBERT, arXiv:1907.10529). Of the hidden tokens 80 % (`as_mask`) are replaced by the mask, 10 %
    (`as_random`) by a token drawn at random, and the others stay as they are. `head`: `tied`, or `masked_head`, BERT's own.
    """

    special_ids = ("mask",)

    def __init__(
        self, *, target: str, share: float = 0.15, hide: Literal["tokens", "words", "spans"] = "tokens",
        as_mask: float = 0.8, as_random: float = 0.1, head: Callable[..., Head | MaskedHead] = Tied, weight: float = 1.0,
    ):  # fmt: skip
        if not 0 < share < 1:
            raise ValueError(f"share must lie between 0 and 1, not {share}")
        if min(as_mask, as_random) < 0 or as_mask + as_random > 1:
            raise ValueError(f"as_mask ({as_mask}) and as_random ({as_random}) must be shares of one whole")
        self.target, self.share, self.hide, self._head, self.weight = target, share, hide, head, weight
        self.as_mask, self.as_random = as_mask, as_random

    def meet(self, choppers: Mapping[str, Chopper]) -> MaskedModeling:
        encoding = choppers[self.target].text
        self.mask = encoding.roles["mask"]
        kept = {*encoding.specials, *encoding.before, *encoding.after, encoding.start, encoding.end}
        self.plain = np.array([number not in kept for number in range(encoding.vocabulary)])
        self.drawn = np.flatnonzero(self.plain & np.array([bool(piece) for piece in encoding.pieces]))
        self.begins = np.array([in_word(piece[:1]) for piece in encoding.pieces])
        self.ends = np.array([in_word(piece[-1:]) for piece in encoding.pieces])
        return self

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        return self._head(tokenizers[self.target].embedding)

    # ------------------------------------------------------------------------------------------------- what is hidden

    def alter(self, sets: dict[str, PlannedSet]) -> dict[str, PlannedSet]:
        """The sets with some of the text's ids replaced; what stood there is kept in `Pieces.hidden`."""
        found = {}
        for name, planned in sets.items():
            found[name] = self._altered(planned) if self.target in planned.pieces else planned
        return found

    def _altered(self, planned: PlannedSet) -> PlannedSet:
        pieces = planned.pieces[self.target]
        values, hidden = pieces.values.clone(), torch.full_like(pieces.values, IGNORED)
        flat, true = values.view(-1).numpy(), hidden.view(-1).numpy()
        for seed, (start, end) in runs(planned, pieces):
            random = np.random.default_rng([*seed, 1])
            ids = flat[start:end].copy()
            chosen = self.choose(ids, random)
            true[start:end][chosen] = ids[chosen]
            flat[start:end][chosen] = self.replaced(ids[chosen], random)
        pieces = replace(pieces, values=values, hidden=hidden)
        return replace(planned, pieces={**planned.pieces, self.target: pieces})

    def choose(self, ids: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """The places to hide: as near to the share as whole tokens, words or spans come, at least one; never special ids."""
        places = np.flatnonzero(self.plain[ids])
        wanted = max(1, round(self.share * len(places))) if len(places) else 0
        if self.hide == "tokens":
            return np.sort(random.permutation(places)[:wanted])
        joined = self.begins[ids[1:]] & self.ends[ids[:-1]] & self.plain[ids[1:]] & self.plain[ids[:-1]]
        word = np.concatenate([[0], np.cumsum(~joined)])  # the number of the word that each token belongs to
        words = np.unique(word[places])
        hidden = np.zeros(word[-1] + 1, dtype=bool)
        for first in random.permutation(len(words)):
            count = min(random.geometric(0.2), LONGEST) if self.hide == "spans" else 1
            for number in words[first : first + count]:
                so_far = hidden[word[places]].sum()
                added = (word[places] == number).sum() * (not hidden[number])
                if so_far + added <= wanted or not so_far:
                    hidden[number] = True
            if hidden[word[places]].sum() >= wanted:
                break
        return places[hidden[word[places]]]

    def replaced(self, ids: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """What the model reads in place of hidden ids."""
        lot = random.random(len(ids))
        drawn = random.choice(self.drawn, len(ids))
        return np.where(lot < self.as_mask, self.mask, np.where(lot < self.as_mask + self.as_random, drawn, ids))

    # ----------------------------------------------------------------------------------------------- what is answered

    def targets(self, planned: PlannedSet) -> Targets:
        pieces = planned.pieces.get(self.target)
        if pieces is None or pieces.hidden is None:
            none = torch.zeros(0, dtype=torch.long)
            return Targets(values=none, places=none)
        hidden = pieces.hidden.flatten()
        judged = (hidden != IGNORED).nonzero()[:, 0]
        places = judged if pieces.places is None else pieces.places[judged]
        return Targets(values=hidden[judged], places=places, count=len(judged))

    def terms(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Term]:
        return {"loss": Term(nats(output, targets.values), targets.count, self.weight)}

    def measure(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        return {"right": (output.argmax(-1) == targets.values).sum()}

    @property
    def metrics(self) -> tuple[str, ...]:
        return "loss", "perplexity", "accuracy"

    def summary(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """`loss` in nats per hidden token, its `perplexity`, and the `accuracy`: the share of hidden tokens guessed right."""
        count = sums["count"].clamp(min=1)
        loss = float(sums["loss"] / count)
        return {"loss": loss, "perplexity": math.exp(min(loss, 700)), "accuracy": float(sums["right"] / count)}


def in_word(byte: bytes) -> bool:
    """Whether a byte is (part of) a letter or a digit: two of them side by side belong to one word."""
    return byte.isalnum() or byte >= b"\x80"


def runs(planned: PlannedSet, pieces: Pieces) -> Iterator[tuple[tuple[int, ...], tuple[int, int]]]:
    """The stretches of an input's flat ids that belong together (a row of a stream, a text of a sample), each with the seed
    of its sample."""
    if pieces.places is None:
        n = planned.tokens.shape[1]
        for row, (seed, sample) in enumerate(zip(planned.seeds, planned.tokens.sample)):
            yield seed, (row * n, row * n + int((sample > 0).sum()))
        return
    samples, start = planned.tokens.sample.flatten(), 0
    for count in pieces.counts:
        if count:
            yield planned.seeds[int(samples[pieces.places[start]]) - 1], (start, start + count)
        start += count
