"""The records of `state.json`, `last.json` and `best.json`: what a checkpoint holds besides tensors."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, FiniteFloat

from ...tokenizers.files.records import Record

Step = Annotated[int, Field(ge=0, lt=2**48)]


class Written(Record):
    """Size and CRC-32 of one file of a checkpoint."""

    bytes: Annotated[int, Field(ge=0)]
    crc32: Annotated[int, Field(ge=0, lt=2**32)]


class Best(Record):
    """The best evaluation so far."""

    step: Step
    metric: str
    judged: FiniteFloat
    """The value of `metric`, negated where larger is better: the smallest is the best."""
    metrics: dict[str, int | float] = {}
    """All metrics of that evaluation."""


class Pointer(Record):
    """What is read of `last.json` and `best.json`: `{"step": 500}`, in `best.json` with its metrics beside it."""

    step: Step


class Unreported(Record):
    """Steps since the last line of `metrics.jsonl` when a run was stopped; the next line counts them too."""

    losses: list[FiniteFloat] = []
    """The mean loss of each step."""
    tokens: Annotated[int, Field(ge=0)] = 0
    slots: Annotated[int, Field(ge=0)] = 0
    """Tokens and padding."""


class Formatted(Record):
    """The part of `state.json` that every format has."""

    format: Annotated[int, Field(ge=1)] = 1


class State(Formatted):
    """A checkpoint's `state.json`.

        {"step": 500, "seconds": 31.2, "evaluated": 500, ...,
         "files": {"model.safetensors": {"bytes": 4096, "crc32": 3340501083}, ...}, "format": 2}

    A missing field has its default.
    """

    step: Step
    files: dict[str, Written]
    seconds: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    """Seconds of training so far, without evaluations and saving."""
    best: Best | None = None
    evaluated: int = -1
    """The last step that was evaluated; -1: none."""
    averaged: bool = False
    """Whether `ema.safetensors` holds the mean of the last checkpoints (`checkpoints.average`), made at the end."""
    finished: bool = False
    """Whether all that follows the last step (averaging, the last evaluation, attribution) is done."""
    records: list[dict[str, int | float]] = []
    """The lines of `metrics.jsonl` that belong to this step."""
    unreported: Unreported = Unreported()
    skipped: list[tuple[Step, Annotated[int, Field(ge=1)]]] = []
    """(step, count): from that step on the numbers of global batches are higher by count, since the loss or the weights
    became non-finite on the batches left out."""
    bad: dict[str, str] = {}
    """The training samples found to be bad: `{"17": "image: a.png is cut short"}`."""
    vocabularies: dict[str, str] = {}
    """The fingerprint of each input's vocabulary, or of the run that it took in."""
    data: dict[str, str] = {}
    """The fingerprint of each split; a resumed run must find the same."""
    torch: str = ""
    """The version of torch."""
    threads: int = 0
    """CPU threads that torch computed with, last."""
    imported: str | None = None
    """The name of the Hugging Face directory that the run was imported from."""
    tokenizer: str = ""
    """Of an imported run: the file that its tokenizer was read from, or what was used instead, in words."""
    missing: list[str] = []
    """Of an imported run: the tensors that the imported directory lacked."""
