"""Connectionist temporal classification (CTC): each token of a sound predicts a symbol or the blank. The recognised
text results from merging repeated symbols and then removing blanks."""

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
from ..tokenizers.base import Example
from .base import Metric, Needs, Task, TrainingColumns, per_target
from .measuring.report import Reporter
from .measuring.text_report import TextReporter
from .measuring.texts import MEANINGS, TextMetric, as_text


class Symbols(RootModel[Annotated[StrictStr, Field(min_length=1)]]):
    """The assets file `symbols.json`: one string of all symbols. The symbol at index i belongs to score i of the head;
    the blank has the last score and is not in the string."""


class OnHost:
    """Tensors that stay on the CPU when the batch moves to a GPU, so that reading them does not synchronise. `groups`:
    the number of the sample, from 0, of each token. `tokens` and `symbols`: the number of tokens and of symbols of each
    supervised sample."""

    def __init__(self, groups: Int[Tensor, "t"], tokens: Int[Tensor, "j"], symbols: Int[Tensor, "j"]):
        self.groups, self.tokens, self.symbols = groups, tokens, symbols


@dataclass(frozen=True, kw_only=True)
class CtcTargets(Targets):
    """The concatenated symbols of the j supervised samples (`values`), and the rows of the output that contain the
    scores of these samples (`grid`). A slot is the position of a token in the row of the batch.

    Example: the texts "ab" with 3 tokens and "b" with 2 tokens are in one row; the symbols are a (0) and b (1):

        slots    0  1  2  3  4         groups   0  0  0  1  1
        values   0  1  1               lengths  2  1
        grid     0 3                   count    3
                 1 4
                 2 0
    """

    grid: Int[Tensor, "n j"]
    """The row in the output that belongs to token 0, 1, 2, ... of each supervised sample: one column per sample, padded
    with 0."""
    host: OnHost


class CtcHead(Head):
    """Computes the scores (t, v) of every token: the scores of all symbols, then the score of the blank."""

    def __init__(self, width: int, symbols: int):
        super().__init__()
        self.linear = Linear(width, symbols + 1)

    def forward(self, x: Float[Tensor, "t d"], targets: Targets) -> Float[Tensor, "t v"]:
        return self.linear(x)


class Ctc(Task):
    """Recognises the text in the data column `target` from the tokens of the input `source`, in their order (Graves et
    al. 2006).

    The symbols are the characters of the training texts. The loss is in nats per symbol; an empty text counts as one
    symbol. A text needs one token for each symbol and one more between two equal neighbouring symbols. A sample with
    fewer tokens is reported, counted, and excluded from the loss. `metrics`: a list of text metrics (`wer`, `cer`,
    `exact_match`, `bleu`, `chrf`). `beams`: the number of candidate texts that prefix beam search keeps, 1 to 1,000;
    with 1, the most likely symbol of each token is decoded (greedy).
    """

    Learned = Symbols

    def __init__(
        self, *, target: str, source: str, metrics: tuple[TextMetric, ...] = ("wer",), beams: int = 1,
        weight: float = 1.0,
    ):  # fmt: skip
        if not 1 <= beams <= MOST_BEAMS:
            raise ValueError(f"beams must be from 1 to {MOST_BEAMS:,}, not {beams:,}")
        self.target, self.source, self.texts, self.weight = target, source, metrics, weight
        self.search = Search(beams=beams)

    @property
    def needs(self) -> Needs:
        return Needs(columns={self.target: self.encoded}, inputs=(self.source,))  # inputs are never dropped

    def fit(self, data: TrainingColumns) -> Symbols:
        """Returns the distinct characters of all training texts, sorted. Raises DataError if the training data contain
        no character."""
        characters: set[str] = set()
        for value in data.column(self.target):
            characters.update(as_text(value))
        if not characters:
            raise DataError(f"column {self.target!r} holds no text to learn symbols from")
        return Symbols("".join(sorted(characters)))

    @property
    def symbols(self) -> str:
        """All symbols as one text, in the order of the scores."""
        return self.learned.root

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The index of each symbol in the scores."""
        return {symbol: number for number, symbol in enumerate(self.symbols)}

    def check_answer(self, text: str) -> None:
        if unknown := [symbol for symbol in text if symbol not in self.numbers]:
            raise ValueError(f"{unknown[0]!r} is not one of its symbols {self.symbols!r}")

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        return CtcHead(width, len(self.symbols))

    # ------------------------------------------------------------------------------------------------------- targets

    def targets(self, batch: Batch) -> tuple[Batch, CtcTargets]:
        """Returns the unchanged batch, and the targets: the slots of the tokens of `source`, the sample of each token,
        and the symbols of all supervised samples. The length is -1 for an unsupervised sample: one without a text, or
        with fewer tokens than its text needs."""
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
            aligned = label is not None and tokens >= needed
            values += text if aligned else []
            lengths.append(len(text) if aligned else -1)
        lengths = torch.tensor(lengths, dtype=torch.long)
        supervised = lengths >= 0
        return batch, CtcTargets(
            values=torch.tensor(values, dtype=torch.long), slots=slots, groups=sample, lengths=lengths,
            grid=columns(sample, counts, supervised), left_out=left_out,
            host=OnHost(sample, counts[supervised], lengths[supervised]),
            count=int(lengths[supervised].clamp(min=1).sum()), of_encoder=batch.encoder is not None,
        )  # fmt: skip

    def encoded(self, label: Any) -> list[int]:
        """Returns the symbol indices of a text; an empty list for None. Raises DataError if a character does not occur
        in the training texts."""
        text = "" if label is None else as_text(label)
        if unknown := [symbol for symbol in text if symbol not in self.numbers]:
            symbols = f"the {len(self.symbols)} symbols of the training texts"
            raise DataError(f"{unknown[0]!r} in column {self.target!r} is not one of {symbols}")
        return [self.numbers[symbol] for symbol in text]

    # -------------------------------------------------------------------------------------------------- loss, metrics

    def terms(self, output: Float[Tensor, "t v"], targets: CtcTargets) -> dict[str, Tensor]:
        """Returns the term `loss`: the negative log-likelihood in nats, summed over the texts of all supervised
        samples."""
        if not targets.grid.shape[1]:
            return {"loss": output.sum() * 0.0}
        logs = output.float().log_softmax(-1)[targets.grid]
        return {"loss": ctc_loss(logs, targets.values, targets.host.tokens, targets.host.symbols)}

    @staticmethod
    def rows(output: Float[Tensor, "t v"], targets: CtcTargets) -> tuple[Tensor, ...]:
        """Returns one tensor (t, v) of log-probabilities per sample, on the CPU, after one transfer for the batch."""
        logs, groups = output.float().log_softmax(-1).cpu(), targets.host.groups
        counts = torch.bincount(groups, minlength=len(targets.lengths)).tolist()
        return logs[groups.argsort(stable=True)].split(counts)

    def read_off(self, logs: Float[Tensor, "t v"]) -> list[int]:
        """Returns the symbol indices that are decoded from the log-probabilities of one sample."""
        return greedy(logs) if self.search.beams == 1 else prefix_beam(logs, self.search.beams)

    def decoded(self, symbols: Sequence[int]) -> str:
        """Returns the text that consists of these symbols."""
        return "".join(self.symbols[number] for number in symbols)

    def reporter(self) -> Reporter | None:
        return TextReporter() if self.texts else None

    @property
    def metrics(self) -> dict[str, Metric]:
        loss = Metric("nats per symbol", of_sums=per_target)
        return {"loss": loss} | {name: MEANINGS[name] for name in self.texts}

    # -------------------------------------------------------------------------------------------------------- answers

    def answers(self, output: Tensor, targets: Targets, batch: Batch) -> list[dict[str, Any]]:
        """Returns {"text": "hi", "words": [{"word": "hi", "start": 0.1, "end": 0.4}]} for every sample, with times in
        seconds. `words` is absent if the tokens of `source` have no times. In `predict`, a sample without tokens of
        `source` has only `error`."""
        chunks, answers, start = batch.set_of(targets).chunks.get(self.source), [], 0
        for logs in self.rows(output, targets):
            if self.for_prediction and not len(logs):
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
        """Returns each word with its start and end in seconds on the most likely alignment. `seconds` contains the end
        time of each token, that is, of each row of `logs`."""
        length = seconds[1] - seconds[0] if len(seconds) > 1 else 0.0
        words: list[dict[str, Any]] = []
        in_word = False
        for symbol, (start, end) in zip(self.decoded(symbols), spans(logs, symbols)):
            if symbol.isspace():
                in_word = False
                continue
            if not in_word:
                words.append({"word": "", "start": round(max(seconds[start] - length, 0.0), 3), "end": 0.0})
                in_word = True
            words[-1]["word"] += symbol
            words[-1]["end"] = round(seconds[end - 1], 3)
        return words


def columns(sample: Int[Tensor, "t"], counts: Int[Tensor, "s"], chosen: Bool[Tensor, "s"]) -> Int[Tensor, "n j"]:
    """Returns the indices of the tokens of the j samples for which `chosen` is true: one column per sample, padded with
    0. `sample` is the number of the sample of each token, `counts` the number of tokens of each sample.

    For three tokens of the samples 0, 1 and 0, the `counts` 2 and 1, and both samples chosen: [[0, 1], [2, 0]].
    """
    of_samples = zip(sample.argsort(stable=True).split(counts.tolist()), chosen.tolist())
    chosen_tokens = [tokens for tokens, is_chosen in of_samples if is_chosen]
    return pad_sequence(chosen_tokens) if chosen_tokens else torch.zeros(0, 0, dtype=torch.long)


EXAMPLE = Example(
    options={"target": "other", "source": "wave"},
    inputs={
        "wave": {"use": "sensor", "channels": {"a": "m", "b": "m"}, "rate": 2, "window": 1},
        "image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8},
    },
)
