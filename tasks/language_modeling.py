"""Language modelling: at every token of a text, say which token comes next; other inputs are read, not predicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..models.batch import Batch, Chunks, IGNORED, SetPlan, Targets
from ..models.generation.beam_search import Search
from ..models.heads import Tied, VocabularyHead
from ..tokenizers.encoding.base import Encoding
from .base import Metric, Needs, Task
from .metrics import MEANINGS, TextMetric


class LanguageModeling(Task):
    """Predict the next id of the input `target`, and after the last one that it ends; other inputs are a prefix to it.

    `head`: `tied` scores with the embedding table itself, `unembedding` with a matrix of its own.
    `label_smoothing` spreads that share of the target over all ids. For every one of its `metrics`
    (`exact_match`, `bleu`, `chrf`, `wer`, `cer`), evaluations also write the whole text from the other inputs, as
    `search` says (by default greedily).
    """

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
        self.target, self._head, self.judges, self.search = target, head, metrics, search
        self.smoothing, self.weight = label_smoothing, weight

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        return self._head(tokenizers[self.target].embedding)

    @property
    def needs(self) -> Needs:
        return Needs(inputs=(self.target,), generates=True, hides="shifted")

    @property
    def text(self) -> Encoding:
        """The encoding of what it writes."""
        return self.choppers[self.target].text

    def written(self, ids: Sequence[int]) -> str:
        """The text of ids that were written."""
        return self.text.written(ids)

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Every token is judged by the id that follows it; its carrier is the next token of the set, if that
        is this id."""
        chunks = batch.main.chunks.get(self.target)
        if chunks is None:
            none = torch.zeros(0, dtype=torch.long)
            return batch, Targets(values=none, slots=none, carriers=none)
        next_ids = chunks.next_ids.flatten()
        return batch, Targets(
            values=next_ids,
            slots=chunks.slots,
            carriers=_carriers(batch.main, chunks),
            count=int((next_ids != IGNORED).sum()),
        )

    def terms(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        if self.smoothing:
            output = output[:, : self.text.vocabulary]  # nothing is spread over rows that only fill the table up
        return {"loss": nats(output, targets.values, self.smoothing)}

    def measure(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        return {"nats": nats(output, targets.values)} if self.smoothing else {}

    @property
    def metrics(self) -> dict[str, Metric]:
        """Loss (nats per target, without smoothing), perplexity, where the text's size is known bits per byte of it,
        and what its written texts are judged by."""
        found = {
            "loss": Metric("nats per target", of_sums=lambda sums: float(total(sums) / sums["count"].clamp(min=1))),
            "perplexity": Metric("tokens", of_sums=perplexity),
            "bits_per_byte": Metric("bits per byte of text", of_sums=bits_per_byte),
        }
        return found | {name: MEANINGS[name] for name in self.judges}


def total(sums: Mapping[str, Tensor]) -> Tensor:
    """The nats of a whole split, without smoothing."""
    return sums.get("nats", sums["loss"])


def perplexity(sums: Mapping[str, Tensor]) -> float:
    """Among how many ids each target was as good as drawn."""
    return math.exp(min(float(total(sums) / sums["count"].clamp(min=1)), 700))


def bits_per_byte(sums: Mapping[str, Tensor]) -> float | None:
    """The bits that each byte of the text costs; None where its size is not known."""
    return float(total(sums)) / math.log(2) / float(sums["bytes"]) if sums.get("bytes") else None


def nats(output: Float[Tensor, "t v"], values: Tensor, smoothing: float = 0.0) -> Tensor:
    """The summed cross-entropy of the targets, `IGNORED` ones left out."""
    return F.cross_entropy(output.float(), values, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing)


def _carriers(planned: SetPlan, chunks: Chunks) -> Tensor:
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
