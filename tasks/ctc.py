"""Connectionist temporal classification: a symbol or the blank at every token of a sound; merging repeats and dropping
blanks gives the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, RootModel, StrictStr
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..files.reading import DataError
from ..models.batch import Batch, Targets
from ..models.generation.beam_search import MOST_BEAMS, Search
from ..models.generation.ctc import ctc_loss, greedy, prefix_beam, spans, tokens_needed
from ..models.heads import Head
from ..models.layers.linear import Linear
from .base import Metric, Needs, Task, TrainingColumns, per_target
from .measuring.texts import MEANINGS, TextMetric, as_text


class Symbols(RootModel[Annotated[StrictStr, Field(min_length=1)]]):
    """The assets file `symbols.json`: one text of all symbols, in the order of their scores."""


class OnHost:
    """What stays on the CPU when the rest of a batch moves to a GPU, so that reading it does not wait for the device:
    `groups`, the sample of each token; `tokens` and `symbols`, how many each supervised sample has."""

    def __init__(self, groups: Int[Tensor, "t"], tokens: Int[Tensor, "j"], symbols: Int[Tensor, "j"]):
        self.groups, self.tokens, self.symbols = groups, tokens, symbols


@dataclass(frozen=True, kw_only=True)
class CtcTargets(Targets):
    """The symbols of the j supervised samples, end to end, and the rows of their scores.

    The texts "ab" on 3 tokens and "b" on 2, in one row of slots; the symbols are a (0) and b (1):

        slots    0  1  2  3  4         groups   0  0  0  1  1
        values   0  1  1               lengths  2  1
        grid     0 3                   count    3
                 1 4
                 2 0
    """

    grid: Int[Tensor, "n j"]
    """The row in the output of token 0, 1, 2, ... of each supervised sample, a column each, filled up with 0."""
    host: OnHost


class CtcHead(Head):
    """Scores (t, v) of all symbols, and last of the blank, at every token."""

    def __init__(self, width: int, symbols: int):
        super().__init__()
        self.linear = Linear(width, symbols + 1)

    def forward(self, x: Float[Tensor, "t d"], targets: Targets) -> Float[Tensor, "t v"]:
        return self.linear(x)


class Ctc(Task):
    """Recognise the text in the data column `target` from the tokens of the input `source`, in their order
    (Graves et al. 2006).

    The symbols are the characters of the training texts. The loss is in nats per symbol, an empty text counting as one
    symbol. A text that is too long for its tokens (one per symbol, and one between equal neighbours) cannot be aligned:
    it is named, counted and left out of the loss. `beams`: how many texts prefix beam search keeps, 1 to 1,000 (1: the
    likeliest path is decoded greedily).
    """

    Learned = Symbols

    def __init__(
        self, *, target: str, source: str, metrics: tuple[TextMetric, ...] = ("wer",), beams: int = 1,
        weight: float = 1.0,
    ):  # fmt: skip
        if not 1 <= beams <= MOST_BEAMS:
            raise ValueError(f"beams must be at least 1 and at most {MOST_BEAMS:,}, not {beams:,}")
        self.target, self.source, self.texts, self.weight = target, source, metrics, weight
        self.search = Search(beams=beams)

    @property
    def needs(self) -> Needs:
        return Needs(columns={self.target: self.encoded}, inputs=(self.source,))  # which is never dropped

    def fit(self, data: TrainingColumns) -> Symbols:
        """The characters of all training texts, sorted. Raises DataError where there are none."""
        found: set[str] = set()
        for value in data.column(self.target):
            found.update(as_text(value))
        if not found:
            raise DataError(f"column {self.target!r} holds no text to learn symbols from")
        return Symbols("".join(sorted(found)))

    @property
    def symbols(self) -> str:
        """The symbols, in the order of the scores."""
        return self.learned.root

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The index of each symbol in the scores."""
        return {symbol: number for number, symbol in enumerate(self.symbols)}

    def check_answer(self, text: str) -> None:
        if unknown := [symbol for symbol in text if symbol not in self.numbers]:
            raise ValueError(f"it writes no {unknown[0]!r}, only {self.symbols!r}")

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        return CtcHead(width, len(self.symbols))

    # ------------------------------------------------------------------------------------------------------- targets

    def targets(self, batch: Batch) -> tuple[Batch, CtcTargets]:
        """The slots of the source's tokens, their samples, and every sample's symbols; the length is -1 for a sample
        that is not supervised, since it has no text or one that cannot be aligned."""
        planned = batch.first
        chunks = planned.chunks.get(self.source)
        slots = torch.zeros(0, dtype=torch.long) if chunks is None else chunks.slots
        sample = planned.tokens.sample.flatten()[slots] - 1
        counts = torch.bincount(sample, minlength=planned.samples)
        values, lengths, left_out = [], [], {}
        for label, key, tokens in zip(planned.labels[self.target], planned.keys, counts.tolist()):
            text = self.encoded(label)
            needed = max(tokens_needed(text), 1)
            if 0 < tokens < needed:
                left_out[key] = f"{len(text)} symbols need {needed} tokens, but its {self.source} has {tokens}"
            judged = label is not None and tokens >= needed
            values += text if judged else []
            lengths.append(len(text) if judged else -1)
        lengths = torch.tensor(lengths, dtype=torch.long)
        judged = lengths >= 0
        return batch, CtcTargets(
            values=torch.tensor(values, dtype=torch.long), slots=slots, groups=sample, lengths=lengths,
            grid=columns(sample, counts, judged), left_out=left_out,
            host=OnHost(sample, counts[judged], lengths[judged]), count=int(lengths[judged].clamp(min=1).sum()),
            of_encoder=batch.encoder is not None,
        )  # fmt: skip

    def encoded(self, label: Any) -> list[int]:
        """The symbol indices of a text; none for None. Raises DataError for a symbol that the training texts lack."""
        text = "" if label is None else as_text(label)
        if unknown := [symbol for symbol in text if symbol not in self.numbers]:
            raise DataError(f"{unknown[0]!r} in column {self.target!r} is none of the {len(self.symbols)} symbols")
        return [self.numbers[symbol] for symbol in text]

    # -------------------------------------------------------------------------------------------------- loss, metrics

    def terms(self, output: Float[Tensor, "t v"], targets: CtcTargets) -> dict[str, Tensor]:
        """`loss`, the summed negative log-likelihood of all texts, in nats."""
        if not targets.grid.shape[1]:
            return {"loss": output.sum() * 0.0}
        logs = output.float().log_softmax(-1)[targets.grid]
        return {"loss": ctc_loss(logs, targets.values, targets.host.tokens, targets.host.symbols)}

    @staticmethod
    def rows(output: Float[Tensor, "t v"], targets: CtcTargets) -> tuple[Tensor, ...]:
        """Every sample's log-probabilities, (t, v) each, on the CPU, in one transfer for the batch."""
        logs, groups = output.float().log_softmax(-1).cpu(), targets.host.groups
        counts = torch.bincount(groups, minlength=len(targets.lengths)).tolist()
        return logs[groups.argsort(stable=True)].split(counts)

    def read_off(self, logs: Float[Tensor, "t v"]) -> list[int]:
        """The symbol indices decoded from one sample's log-probabilities."""
        return greedy(logs) if self.search.beams == 1 else prefix_beam(logs, self.search.beams)

    def decoded(self, symbols: Sequence[int]) -> str:
        """The text of symbol indices."""
        return "".join(self.symbols[number] for number in symbols)

    @property
    def metrics(self) -> dict[str, Metric]:
        loss = Metric("nats per symbol", of_sums=per_target)
        return {"loss": loss} | {name: MEANINGS[name] for name in self.texts}

    # -------------------------------------------------------------------------------------------------------- answers

    def answers(self, output: Tensor, targets: Targets, batch: Batch) -> list[dict[str, Any]]:
        """Every sample's {"text": "hi", "words": [{"word": "hi", "start": 0.1, "end": 0.4}]}, in seconds; without
        `words` where tokens have no seconds. Asked to predict, `error` for a sample without the source."""
        chunks, answers, start = batch.set_of(targets).chunks.get(self.source), [], 0
        for logs in self.rows(output, targets):
            if self.asks and not len(logs):
                answers.append({"error": f"{self.source!r} is missing"})
                continue
            symbols = self.read_off(logs)
            answers.append({"text": self.decoded(symbols)})
            if len(logs) and chunks.coordinates is not None and chunks.coordinates.shape[1] == 1:
                seconds = chunks.coordinates[start : start + len(logs), 0].tolist()
                answers[-1]["words"] = self.words(logs, symbols, seconds)
            start += len(logs)
        return answers

    def words(self, logs: Tensor, symbols: Sequence[int], seconds: Sequence[float]) -> list[dict[str, Any]]:
        """Each word with its start and end in seconds, of the likeliest path. `seconds`: when each token ends."""
        length = seconds[1] - seconds[0] if len(seconds) > 1 else 0.0
        found: list[dict[str, Any]] = []
        open_word = False
        for symbol, (start, end) in zip(self.decoded(symbols), spans(logs, symbols)):
            if symbol.isspace():
                open_word = False
                continue
            if not open_word:
                found.append({"word": "", "start": round(max(seconds[start] - length, 0.0), 3), "end": 0.0})
                open_word = True
            found[-1]["word"] += symbol
            found[-1]["end"] = round(seconds[end - 1], 3)
        return found


def columns(sample: Int[Tensor, "t"], counts: Int[Tensor, "s"], chosen: Bool[Tensor, "s"]) -> Int[Tensor, "n j"]:
    """The indices of the tokens of each of the j `chosen` samples, in order, as a column; 0 behind the last.

    Of the tokens of samples 0, 1 and 0 (`sample`), with `counts` 2 and 1, both chosen: [[0, 1], [2, 0]].
    """
    of_samples = zip(sample.argsort(stable=True).split(counts.tolist()), chosen.tolist())
    found = [tokens for tokens, wanted in of_samples if wanted]
    return pad_sequence(found) if found else torch.zeros(0, 0, dtype=torch.long)
