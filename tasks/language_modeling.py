"""Language modelling: every token of a text predicts the next token. Other inputs are read but not predicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..models.batch import IGNORED, Batch, Chunks, SetPlan, Targets
from ..models.generation.beam_search import Search
from ..models.generation.sampling import Sampling
from ..models.heads import Tied, VocabularyHead
from ..tokenizers.base import Example
from ..tokenizers.encoding.base import Unit, Vocabulary
from .base import Metric, Needs, Task, metrics_of
from .baselines.ngrams import SYMBOLS, ByteTargets, predict_texts
from .baselines.simple_models import Baseline
from .judging import Judge
from .measuring.report import Reporter
from .measuring.text_report import TextReporter
from .measuring.texts import MEANINGS, TextMetric


class LanguageModeling(Task):
    """Predicts each id of the input `target` from the ids before it, and the end after the last id. The other inputs
    are read as a prefix, and are not predicted.

    `head`: `tied` computes the scores with the embedding table, `unembedding` with a separate matrix.
    `label_smoothing`: the share of the target, at least 0 and below 1, that is distributed over all ids. If there are
    `metrics`, evaluations also generate the item from the other inputs: by `search` (default: greedy) or by random
    `sampling` (such as `{temperature: 1}`), with classifier-free guidance of weight `guidance`. `metrics` is a list of
    text metrics (`exact_match`, `bleu`, `chrf`, `wer`, `cer`), which compare the generated text with the true text, or
    a mapping of judges by name (`{accepted: {use: accepted_by, run: runs/vision/mnist}}`).
    """

    after_training = ("search", "sampling", "guidance")

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
        self.judges = {name: judge() for name, judge in metrics.items()} if isinstance(metrics, dict) else {}

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        return self._head(tokenizers[self.target].embedding)

    @property
    def needs(self) -> Needs:
        compared = tuple(column for judge in self.judges.values() for column in judge.columns)
        return Needs(inputs=(self.target,), generates=True, hides="shifted", compared=compared)

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the input `target`."""
        return self.choppers[self.target].vocabulary

    def restore(self, ids: Sequence[int]) -> Any:
        """Returns the item that generated ids encode, such as a text or an image."""
        return self.vocabulary.restore(ids)

    def check_answer(self, text: str) -> None:
        if self.choppers[self.target].kind == "text":
            self.vocabulary.encode(text)

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Returns the unchanged batch, and the targets: the id that follows each token of the text. The carrier of a
        target is the slot of the token that has this id as its input; -1 if there is none (`models.batch.Targets` has
        an example)."""
        chunks = batch.main.chunks.get(self.target)
        if chunks is None:
            none = torch.zeros(0, dtype=torch.long)
            return batch, Targets(values=none, slots=none, carriers=none)
        next_ids = chunks.next_ids.flatten()
        carriers, count = _carriers(batch.main, chunks), int((next_ids != IGNORED).sum())
        return batch, Targets(values=next_ids, slots=chunks.slots, carriers=carriers, count=count)

    def terms(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        if self.smoothing:
            output = output[:, : self.vocabulary.size]  # padding rows of the vocabulary get no share of the target
        return {"loss": nats(output, targets.values, self.smoothing)}

    def chance(self) -> float:
        return math.log(self.vocabulary.size)

    def reporter(self) -> Reporter | None:
        return TextReporter() if self.texts else None

    def losses(self, output: Float[Tensor, "t v"], targets: Targets) -> Float[Tensor, "j"]:
        return losses_of_ids(output, targets.values)

    def measure(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        return {"nats": nats(output, targets.values)} if self.smoothing else {}

    @property
    def headline(self) -> str:
        return self.vocabulary.unit.metric

    @property
    def baselines(self) -> Sequence[Baseline]:
        """Character n-grams for a text without other inputs."""
        is_text_alone = self.choppers[self.target].kind == "text" and [*self.choppers] == [self.target]
        return (
            [Baseline("interpolated six-gram model of bytes", predict_texts, is_likelihood=True)]
            if is_text_alone
            else []
        )

    def baseline_features(self, items: Mapping[str, Any]) -> dict[str, np.ndarray | str]:
        return {}

    def baseline_target(self, targets: Targets) -> ByteTargets:
        """Returns the bytes of the targets."""
        pieces = [self.vocabulary.pieces[id] for id in targets.values[targets.values != IGNORED].tolist()]
        symbols = [piece or (SYMBOLS - 1,) for piece in pieces]
        token = np.repeat(np.arange(len(pieces)), [*map(len, symbols)])
        return ByteTargets(np.array([each for part in symbols for each in part], dtype=np.int64), token, len(pieces))

    def baseline_output(self, prediction: np.ndarray, targets: Targets) -> Float[Tensor, "t v"]:
        """Returns scores with these negative log-likelihoods of the targets. All other ids are equally probable."""
        is_known = targets.values != IGNORED
        logs = -torch.as_tensor(prediction, dtype=torch.float32)[:, None]
        rest = (-logs.expm1()).clamp(min=1e-12).log() - math.log(self.vocabulary.size - 1)
        scores = rest.repeat(1, self.vocabulary.size).scatter(1, targets.values[is_known][:, None], logs)
        output = torch.zeros(len(is_known), self.vocabulary.size)
        output[is_known] = scores
        return output

    @property
    def metrics(self) -> dict[str, Metric]:
        """`loss` (nats per target, without smoothing), `perplexity`, the loss in the vocabulary's unit (`bits_per_byte`
        for texts) if the size of the items is known, and the configured metrics of generated items."""
        unit = self.vocabulary.unit
        of_likelihood = {
            "loss": Metric("nats per target", of_sums=lambda sums: float(total(sums) / sums["count"].clamp(min=1))),
            "perplexity": Metric("tokens", of_sums=perplexity),
            unit.metric: Metric(unit.description, of_sums=partial(per_unit, unit)),
        }
        return of_likelihood | metrics_of(self.judges) | {name: MEANINGS[name] for name in self.texts}


def total(sums: Mapping[str, Tensor]) -> Tensor:
    """Returns the summed cross-entropy of a split, in nats, without label smoothing."""
    return sums.get("nats", sums["loss"])


def perplexity(sums: Mapping[str, Tensor]) -> float:
    """Returns the exponential of the mean cross-entropy per target (at most e^700)."""
    return math.exp(min(float(total(sums) / sums["count"].clamp(min=1)), 700))


def per_unit(unit: Unit, sums: Mapping[str, Tensor]) -> float | None:
    """Returns the summed cross-entropy divided by the size of the items in this unit, such as the bits per UTF-8 byte
    of text. Returns None if `units` is missing or 0."""
    nats_per_unit = math.log(2) if unit.in_bits else 1.0
    return float(total(sums)) / nats_per_unit / float(sums["units"]) if sums.get("units") else None


def nats(output: Float[Tensor, "t v"], values: Tensor, smoothing: float = 0.0) -> Tensor:
    """Returns the summed cross-entropy in nats. Targets equal to `IGNORED` are not counted. `smoothing`: the share of
    label smoothing."""
    return F.cross_entropy(output.float(), values, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing)


def losses_of_ids(output: Float[Tensor, "t v"], values: Tensor) -> Float[Tensor, "j"]:
    """Returns the cross-entropy of each target in nats, without targets equal to `IGNORED`."""
    is_known = values != IGNORED
    return F.cross_entropy(output[is_known].float(), values[is_known], reduction="none")


def _carriers(planned: SetPlan, chunks: Chunks) -> Tensor:
    """Returns, for each text token, the slot of the token that has its target as input: the next token of the text. The
    value is -1 if there is no such token.

    In a window of a stream, this is the next slot of the row. In packed samples, it is the slot of the next token of
    the same item; other slots may lie between the two.
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


EXAMPLE = Example(
    options={"target": "other"},
    inputs={
        "image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8},
        "text": {"use": "text", "encoding": "characters"},
        "other": {"use": "text", "encoding": "bytes"},
    },
    model={"attention": "causal & same_sample"},
)
