"""Language modelling: at every token of a text, say which token comes next; other inputs are read, not predicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..models.batch import IGNORED, Chunks, SetPlan, Targets
from ..models.generation.beam_search import Search
from ..models.heads import Tied, VocabularyHead
from ..tokenizers.base import Chopper
from .base import LOSS, Metric, Task, Term
from .metrics import MEANINGS, TextMetric


class LanguageModeling(Task):
    """Predict the next id of the input `target`, and after the last one that it ends; other inputs are a prefix to it.

    `head`: `tied` scores with the embedding table itself, `unembedding` with a matrix of its own.
    `label_smoothing` spreads that share of the target over all ids. For every one of its `metrics`
    (`exact_match`, `bleu`, `chrf`, `wer`, `cer`), evaluations also write the whole text from the other inputs, as
    `search` says (by default greedily).
    """

    generates, hides = True, "shifted"

    def __init__(
        self,
        *,
        target: str,
        head: Callable[..., VocabularyHead] = Tied,
        metrics: tuple[TextMetric, ...] = (),
        search: Search = Search(),
        label_smoothing: float = 0.0,
        weight: float = 1.0,
    ):
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, not {label_smoothing}")
        self.target, self._head, self.metrics, self.search = target, head, metrics, search
        self.smoothing, self.weight = label_smoothing, weight

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        return self._head(tokenizers[self.target].embedding)

    def meet(self, choppers: Mapping[str, Chopper]) -> LanguageModeling:
        self.text = choppers[self.target].text
        return self

    def written(self, ids: Sequence[int]) -> str:
        """The text of ids that were written."""
        return self.text.written(ids)

    def targets(self, planned: SetPlan) -> Targets:
        """Every token is judged by the id that follows it; the holder is the next token of the set, if that
        carries it."""
        chunks = planned.chunks.get(self.target)
        if chunks is None:
            none = torch.zeros(0, dtype=torch.long)
            return Targets(values=none, slots=none, carriers=none)
        next_ids = chunks.next_ids.flatten()
        return Targets(
            values=next_ids,
            slots=chunks.slots,
            carriers=_holders(planned, chunks),
            count=int((next_ids != IGNORED).sum()),
        )

    def terms(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Term]:
        if self.smoothing:
            output = output[:, : self.text.vocabulary]  # nothing is spread over rows that only fill the table up
        return {"loss": Term(nats(output, targets.values, self.smoothing), targets.count, self.weight)}

    def measure(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        return {"nats": nats(output, targets.values)} if self.smoothing else {}

    @property
    def measures(self) -> dict[str, Metric]:
        found = {"loss": LOSS, "perplexity": Metric("tokens")} | {name: MEANINGS[name] for name in self.metrics}
        return found | {"bits_per_byte": Metric("bits per byte of text")}

    def with_search(self, **given: Any) -> LanguageModeling:
        made = copy(self)
        made.search = replace(self.search, **given)
        return made

    def summary(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Loss (nats per target, without smoothing), perplexity, and, where the text's size is known, bits
        per byte of it."""
        total = sums.get("nats", sums["loss"])
        found = {"loss": float(total / sums["count"].clamp(min=1))}
        found["perplexity"] = math.exp(min(found["loss"], 700))
        if sums.get("bytes"):
            found["bits_per_byte"] = float(total) / math.log(2) / float(sums["bytes"])
        return found


def nats(output: Float[Tensor, "t v"], values: Tensor, smoothing: float = 0.0) -> Tensor:
    """The summed cross-entropy of the targets, `IGNORED` ones left out."""
    return F.cross_entropy(output.float(), values, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing)


def _holders(planned: SetPlan, chunks: Chunks) -> Tensor:
    """For each text token, the place of the token that carries its target: the next of its text; -1 where that is
    no token.

    In rows cut from a stream the next token is the next of the row; in packed samples the next of the same span.
    """
    b, n = planned.tokens.shape
    next_ids = chunks.next_ids.flatten()
    if chunks.slots is None:
        slots = torch.arange(b * n)
        held = (slots % n + 1 < n) & (next_ids != IGNORED)
    else:
        slots, held = chunks.slots, torch.zeros(len(next_ids), dtype=torch.bool)
        held[:-1] = chunks.index[1:] == chunks.index[:-1] + 1
    return torch.where(held, slots + 1, torch.full_like(slots, -1))
