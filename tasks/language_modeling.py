"""Language modelling: at every token of a text, say which token comes next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..models.batch import IGNORED, Pieces, PlannedSet, Targets
from ..models.heads import Head, Tied
from .task import Task, Term


class LanguageModeling(Task):
    """Predict the next id of the input `target`; other inputs are read but not predicted.

    `head`: `tied` scores with the embedding table itself, `unembedding` with a matrix of its own.
    """

    def __init__(self, *, target: str, head: Callable[..., Head] = Tied):
        self.target, self._head = target, head

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        return self._head(tokenizers[self.target].embedding)

    def targets(self, planned: PlannedSet) -> Targets:
        """Every token is judged by the id that follows it; the holder is the next token of the set, if that carries it."""
        pieces = planned.pieces[self.target]
        following = pieces.following.flatten()
        return Targets(
            values=following,
            places=pieces.places,
            holders=_holders(planned, pieces),
            count=int((following != IGNORED).sum()),
        )

    def terms(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Term]:
        loss = F.cross_entropy(output.float(), targets.values, ignore_index=IGNORED, reduction="sum")
        return {"loss": Term(loss, targets.count)}

    def summary(self, nats: float, count: int, text_bytes: int | None = None) -> dict[str, float]:
        """Loss (nats per target), perplexity, and, where the text's size is known, bits per byte of it."""
        found = {"loss": nats / count, "perplexity": math.exp(min(nats / count, 700))}
        if text_bytes:
            found["bits_per_byte"] = nats / math.log(2) / text_bytes
        return found


def _holders(planned: PlannedSet, pieces: Pieces) -> Tensor:
    """For each text token, the place of the token that carries its target: the next of its row; -1 past the row's end."""
    b, n = planned.tokens.shape
    places = torch.arange(b * n) if pieces.places is None else pieces.places
    held = (places % n + 1 < n) & (pieces.following.flatten() != IGNORED)
    return torch.where(held, places + 1, torch.full_like(places, -1))
