"""What a checkpoint holds besides tensors: where a run stands, and what it has to tell when it goes on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, FiniteFloat

from ...tokenizers.files.records import Record

Step = Annotated[int, Field(ge=0, lt=2**48)]


class Written(Record):
    """One file of a checkpoint."""

    bytes: Annotated[int, Field(ge=0)]
    crc32: Annotated[int, Field(ge=0, lt=2**32)]


class Best(Record):
    """The best evaluation so far."""

    step: Step
    metric: str
    judged: FiniteFloat
    """The metric's value, with its sign turned where larger is better."""
    metrics: dict[str, int | float] = {}


class Pointer(Record):
    """What `last.json` and `best.json` hold."""

    step: Step


class Unreported(Record):
    """What the next line of `metrics.jsonl` has to tell of the steps before a run was stopped."""

    losses: list[FiniteFloat] = []
    tokens: Annotated[int, Field(ge=0)] = 0
    slots: Annotated[int, Field(ge=0)] = 0


class Formatted(Record):
    """What `state.json` holds in every format."""

    format: Annotated[int, Field(ge=1)] = 1


class State(Formatted):
    """A checkpoint's `state.json`."""

    step: Step
    files: dict[str, Written]
    seconds: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    """Training time so far."""
    best: Best | None = None
    evaluated: int = -1
    """The last step that was evaluated."""
    averaged: bool = False
    """Whether the averages beside the weights are those of the last checkpoints, made at the end."""
    finished: bool = False
    """Whether all that comes after the last step (averaging, what inputs are worth) is done."""
    records: list[dict[str, int | float]] = []
    """The lines of `metrics.jsonl` that belong to this step."""
    unreported: Unreported = Unreported()
    skipped: list[tuple[Step, Annotated[int, Field(ge=1)]]] = []
    """(step, count): from that step on batches are numbered so many higher, since training with those went wrong."""
    bad: dict[str, str] = {}
    """The training samples found to be bad, by number, and why."""
    vocabularies: dict[str, str] = {}
    data: dict[str, str] = {}
    torch: str = ""
    threads: int = 0
    """How many the run computed with, last."""
    imported: str | None = None
    tokenizer: str = ""
    missing: list[str] = []
    """Of an imported run: the tensors that the directory lacked."""
