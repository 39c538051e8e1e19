"""Checks of the numbers in a configuration: the smallest and largest values allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..document import Where
from ..scalars import shown
from ..schema import Part
from ..sections import Checkpoints, Evaluation, Logging, Training

Found = tuple[Where, str]
"""The path of a problem in the YAML, and its message."""

MOST = {
    "depth": 10_000, "heads": 2**16, "width": 2**20, "context": 2**26, "core_tokens": 2**16, "steps": 2**40,
    "tokens_per_step": 2**40, "samples_per_step": 2**32, "rows_per_micro_batch": 2**32, "seed": 2**63 - 1,
}  # fmt: skip
"""The largest whole numbers allowed, far more than anybody needs: a typing error becomes a message, not a computation.
All others may be up to 2**48."""


def at_least(
    section: str | Where, values: Mapping[str, Any], *names: str, least: float | None = None
) -> Iterator[Found]:
    """A problem for each value of these names that is below `least` (None: not above 0) or above its maximum (MOST).
    null is no problem."""
    for name in names:
        value, path = values[name], (section, name) if isinstance(section, str) else (*section, name)
        if value is None:
            continue
        if value <= 0 if least is None else value < least:
            yield path, f"must be {'more than 0' if least is None else f'at least {least}'}, not {shown(value)}"
        elif isinstance(value, int) and value > MOST.get(name, 2**48):
            yield path, f"must be at most {MOST.get(name, 2**48):,}, not {shown(value)}"


def model_sizes(model: Part) -> Iterator[Found]:
    yield from at_least("model", model.options, "width", "depth", "heads", "context", least=1)
    yield from at_least("model", model.options, "core_tokens", least=0)
    if encoder := model.options["encoder"]:
        yield from at_least(("model", "encoder"), vars(encoder), "depth", "context", least=1)


def training_sizes(training: Training) -> Iterator[Found]:
    yield from at_least("training", vars(training), "learning_rate", "clip")
    sizes = "steps", "tokens_per_step", "samples_per_step", "rows_per_micro_batch"
    yield from at_least("training", vars(training), *sizes, least=1)
    if (training.tokens_per_step is None) == (training.samples_per_step is None):
        message = (
            "needs either 'tokens_per_step' (of a text corpus, or of samples of similar length) or 'samples_per_step'"
        )
        yield ("training",), message
    yield from at_least("training", vars(training), "seed", least=0)
    if training.ema is not None and not 0 < training.ema < 1:
        yield ("training", "ema"), f"must lie between 0 and 1, not {training.ema}; null: no average"


def evaluation_sizes(evaluation: Evaluation) -> Iterator[Found]:
    yield from at_least("evaluation", vars(evaluation), "every", "rows", least=1)
    yield from at_least("evaluation", vars(evaluation), "sample_tokens", "generated", least=0)


def checkpoint_sizes(checkpoints: Checkpoints) -> Iterator[Found]:
    yield from at_least("checkpoints", vars(checkpoints), "every", "keep", "average", least=1)
    average, keep = checkpoints.average, checkpoints.keep
    if average is not None and average > keep:
        yield ("checkpoints", "keep"), f"must be at least the {average} that are averaged, not {keep}"


def logging_sizes(logging: Logging) -> Iterator[Found]:
    yield from at_least("logging", vars(logging), "every", least=1)
