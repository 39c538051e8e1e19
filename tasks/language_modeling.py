"""Language modelling: at every token of a text, predict the next one; other inputs are read, not predicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..models.batch import IGNORED, Batch, Chunks, SetPlan, Targets
from ..models.generation.beam_search import Search
from ..models.generation.sampling import Sampling
from ..models.heads import Tied, VocabularyHead
from ..tokenizers.encoding.base import Unit, Vocabulary
from .base import Metric, Needs, Task, metrics_of
from .judging import Judge
from .measuring.texts import MEANINGS, TextMetric


class LanguageModeling(Task):
    """Predict the next id of the input `target`, and its end after the last one; other inputs are a prefix to it.

    `head`: `tied` scores with the embedding table itself, `unembedding` with a matrix of its own. `label_smoothing`
    spreads that share of the target, 0 to below 1, over all ids. For its `metrics`, evaluations also generate the whole
    item from the other inputs, as `search` says (by default greedily), or drawn at random as `sampling` says (such as
    `{temperature: 1}`), with `guidance` as the weight of what the inputs change. Metrics are a list, of a text
    (`exact_match`, `bleu`, `chrf`, `wer`, `cer`: it is compared with the text of the sample), or judges by name
    (`{accepted: {use: accepted_by, run: runs/vision/mnist}}`).
    """

    def __init__(
        self, *, target: str, head: Callable[..., VocabularyHead] = Tied,
        metrics: tuple[TextMetric, ...] | dict[str, Callable[[], Judge]] = (), search: Search = Search(),
        sampling: Sampling | None = None, guidance: float = 1.0, label_smoothing: float = 0.0, weight: float = 1.0,
    ):  # fmt: skip
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, not {label_smoothing}")
        self.target, self._head, self.search, self.sampling, self.guidance = target, head, search, sampling, guidance
        self.smoothing, self.weight = label_smoothing, weight
        self.texts = () if isinstance(metrics, dict) else metrics
        self.judges = {name: made() for name, made in metrics.items()} if isinstance(metrics, dict) else {}

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        return self._head(tokenizers[self.target].embedding)

    @property
    def needs(self) -> Needs:
        compared = tuple(column for judge in self.judges.values() for column in judge.columns)
        return Needs(inputs=(self.target,), generates=True, hides="shifted", compared=compared)

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the target."""
        return self.choppers[self.target].vocabulary

    def restore(self, ids: Sequence[int]) -> Any:
        """The item of generated ids: a text, a picture."""
        return self.vocabulary.restore(ids)

    def check_answer(self, text: str) -> None:
        if self.vocabulary.kind == "text":
            self.vocabulary.encode(text)

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Every token of the text predicts the id that follows it; the target's carrier is the next token of the set,
        where that holds this id (an example is under `models.batch.Targets`)."""
        chunks = batch.main.chunks.get(self.target)
        if chunks is None:
            none = torch.zeros(0, dtype=torch.long)
            return batch, Targets(values=none, slots=none, carriers=none)
        next_ids = chunks.next_ids.flatten()
        carriers, count = _carriers(batch.main, chunks), int((next_ids != IGNORED).sum())
        return batch, Targets(values=next_ids, slots=chunks.slots, carriers=carriers, count=count)

    def terms(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        if self.smoothing:
            output = output[:, : self.vocabulary.size]  # no share for the rows that pad the vocabulary
        return {"loss": nats(output, targets.values, self.smoothing)}

    def chance(self) -> float:
        return math.log(self.vocabulary.size)

    def measure(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        return {"nats": nats(output, targets.values)} if self.smoothing else {}

    @property
    def metrics(self) -> dict[str, Metric]:
        """`loss` (nats per target, without smoothing), `perplexity`, the vocabulary's own unit (of text
        `bits_per_byte`) where the size of the items is known, and the chosen metrics of generated texts."""
        unit = self.vocabulary.unit
        found = {
            "loss": Metric("nats per target", of_sums=lambda sums: float(total(sums) / sums["count"].clamp(min=1))),
            "perplexity": Metric("tokens", of_sums=perplexity),
            unit.metric: Metric(unit.told, of_sums=partial(per_unit, unit)),
        }
        return found | metrics_of(self.judges) | {name: MEANINGS[name] for name in self.texts}


def total(sums: Mapping[str, Tensor]) -> Tensor:
    """The summed cross-entropy of a whole split in nats, without smoothing."""
    return sums.get("nats", sums["loss"])


def perplexity(sums: Mapping[str, Tensor]) -> float:
    """The exponential of the mean cross-entropy: among how many equally likely ids the model chooses."""
    return math.exp(min(float(total(sums) / sums["count"].clamp(min=1)), 700))


def per_unit(unit: Unit, sums: Mapping[str, Tensor]) -> float | None:
    """The summed cross-entropy over the items' size, as `unit` says: of text in bits over its UTF-8 bytes. None where
    the size is not known."""
    nats = math.log(2) if unit.in_bits else 1.0
    return float(total(sums)) / nats / float(sums["units"]) if sums.get("units") else None


def nats(output: Float[Tensor, "t v"], values: Tensor, smoothing: float = 0.0) -> Tensor:
    """The summed cross-entropy of the targets in nats, without those that are `IGNORED`."""
    return F.cross_entropy(output.float(), values, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing)


def _carriers(planned: SetPlan, chunks: Chunks) -> Tensor:
    """For each text token, the slot of the token that holds its target: the next one of its text; -1 where there is
    none.

    In windows of a stream the next token is the next of the row; in packed samples the next of the same item, wherever
    it stands.
    """
    b, n = planned.tokens.shape
    next_ids = chunks.next_ids.flatten()
    if chunks.slots is None:
        slots = torch.arange(b * n)
        held = (slots % n + 1 < n) & (next_ids != IGNORED)
    else:
        slots, held = chunks.slots, torch.zeros(len(next_ids), dtype=torch.bool)
        held[:-1] = chunks.index[1:] == chunks.index[:-1] + 1
    return torch.where(held, slots.roll(-1), torch.full_like(slots, -1))
