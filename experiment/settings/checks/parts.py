"""Checks of a configuration: of its numbers (the smallest and largest values allowed), of its inputs, and of what its
tasks need of the other sections; see between.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from ....models.layers.positions import LearnedSecond, Sinusoidal
from ....tasks.base import Needs, Task
from ....tokenizers.chopping.contract import constructor_problem
from ....tokenizers.encoding.byte_pairs import known_name
from ....tokenizers.part import Part
from ..document import Where
from ..scalars import nearest, shown
from ..sections import Checkpoints, Data, Evaluation, Logging, Training

Found = tuple[Where, str]
"""The path of a problem in the YAML, and its message."""

ROWS = 2**20
"""The most rows of a step."""
MOST = {
    "depth": 10_000, "heads": 2**16, "width": 2**20, "context": 2**26, "core_tokens": 2**16, "steps": 2**40,
    "tokens_per_step": 2**40, "samples_per_step": ROWS, "rows_per_micro_batch": ROWS, "seed": 2**63 - 1,
}  # fmt: skip
"""The largest whole numbers allowed, far more than anybody needs: a typing error becomes a message, not a computation.
All others may be up to 2**48."""


def at_least(section: str, values: Mapping[str, Any], *names: str, least: float | None = None) -> Iterator[Found]:
    """A problem for each value of these names, in a section, that is below `least` (None: not above 0) or above its
    maximum (MOST). null is no problem."""
    for name in names:
        value, path = values[name], (*section.split("."), name)
        if value is not None and (value <= 0 if least is None else value < least):
            yield path, f"must be {'more than 0' if least is None else f'at least {least}'}, not {shown(value)}"
        elif isinstance(value, int) and value > MOST.get(name, 2**48):
            yield path, f"must be at most {MOST.get(name, 2**48):,}, not {shown(value)}"


def in_cores(model: Part, name: str) -> dict[tuple[str, ...], Any]:
    """A setting of the main core and, where there is one, that of the encoder, by their paths."""
    encoder = model.options["encoder"]
    found: dict[tuple[str, ...], Any] = {("model", name): model.options[name]}
    return found | ({("model", "encoder", name): getattr(encoder, name)} if encoder else {})


def model_sizes(model: Part) -> Iterator[Found]:
    yield from at_least("model", model.options, "width", "depth", "heads", "context", least=1)
    yield from at_least("model", model.options, "core_tokens", least=0)
    if encoder := model.options["encoder"]:
        yield from at_least("model.encoder", vars(encoder), "depth", "context", least=1)


def training_sizes(training: Training) -> Iterator[Found]:
    yield from at_least("training", vars(training), "learning_rate", "clip")
    if (training.steps is None) == (training.minutes is None):
        yield ("training",), "needs either 'steps' or 'minutes' (a budget of time)"
    if training.minutes is not None and not 0 < training.minutes <= 10_000_000:
        yield ("training", "minutes"), f"must be above 0 and at most 10,000,000, not {training.minutes:g}"
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


def built_tasks(parts: Mapping[str, Part]) -> tuple[dict[str, Task], list[Found]]:
    """The tasks that accept their options, and the problems of the others."""
    tasks: dict[str, Task] = {}

    def build(name: str, part: Part) -> None:
        tasks[name] = part()

    return tasks, [found for name, part in parts.items() for found in refusal(("tasks", name), build, name, part)]


def generated_by(tasks: Mapping[str, Part], needs: Mapping[str, Needs]) -> list[str]:
    """The inputs that tasks generate."""
    return [part.options["target"] for name, part in tasks.items() if needs[name].generates]


def refusal(path: tuple[str, ...], part: Callable[..., Any], *arguments: Any, device="cpu") -> Iterator[Found]:
    """The ValueError or TypeError of a part that is built with these arguments, as a problem at `path`. The state of
    the CPU's random number generator does not change.

    On the device "meta" even large matrices take no memory; but arithmetic there (rotary) makes torch import for
    seconds.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            part(*arguments)
    except (ValueError, TypeError) as error:
        yield path, str(error)
    except RuntimeError:  # code that must look at values cannot be tried without memory; it shows when it is built
        return


def inputs_can_be_built(inputs: dict[str, Part]) -> Iterator[Found]:
    """Every chopper accepts its options, and every embedder has the constructor that `Model` calls."""
    for name, part in inputs.items():
        yield from refusal(("inputs", name), lambda part=part: part.build(part.target.Chopper))
        if wrong := constructor_problem(part.target):
            yield ("inputs", name), wrong


def encodings_fit(inputs: dict[str, Part]) -> Iterator[Found]:
    """The `encoding` of every text is known, and has a `vocabulary` (a number of ids) exactly where it needs one."""
    for name, part in inputs.items():
        if not {"encoding", "vocabulary"} <= set(part.options):
            continue
        encoding, vocabulary = part.options["encoding"], part.options["vocabulary"]
        try:
            known_name(encoding)
        except ValueError as error:
            yield ("inputs", name, "encoding"), str(error)
        if encoding in ("bpe", "numbers") and vocabulary is None:
            yield ("inputs", name, "encoding"), f"{encoding} needs 'vocabulary': how many ids there are, such as 4096"
        elif encoding == "bpe" and vocabulary < 257:
            yield ("inputs", name, "vocabulary"), f"must be at least 257 (256 bytes and the start), not {vocabulary}"
        elif encoding not in ("bpe", "numbers") and vocabulary is not None:
            message = f"is for encodings bpe and numbers only; {encoding!r} has its own, so {vocabulary} must go"
            yield ("inputs", name, "vocabulary"), message


def augmented_images_have_one_shape(inputs: dict[str, Part]) -> Iterator[Found]:
    """Images with `augment`, which acts on batches, have a `size`."""
    for name, part in inputs.items():
        options = part.options
        if {"augment", "size", "fit_size"} <= options.keys() and options["augment"] and options["size"] is None:
            message = (
                "changes batches of images of one shape: give 'size' too (with 'fit_size: pad' an aspect ratio is kept)"
            )
            yield ("inputs", name, "augment"), message


def encoder_fits(
    inputs: dict[str, Part], model: Part, tasks: dict[str, Part], needs: dict[str, Needs]
) -> Iterator[Found]:
    """Where a task uses cross-attention there is an encoder; where there is one, a task generates an input, another
    input is left for the encoder, and there are no core tokens."""
    encoder, written = model.options["encoder"], generated_by(tasks, needs)
    crosses = [name for name, each in needs.items() if each.encoder]
    if encoder is None:
        for name in crosses:
            yield ("tasks", name), f"{tasks[name].use} needs 'model.encoder', such as {{depth: 3, context: 256}}"
        return
    if not written:
        message = "leaves nothing for the decoder: no task writes a text (as sequence_to_sequence does)"
        yield ("model", "encoder"), message
    elif not set(inputs) - set(written):
        yield ("model", "encoder"), f"has nothing to read: every input ({', '.join(inputs)}) is written by a task"
    if model.options["core_tokens"]:
        yield ("model", "core_tokens"), "must be 0 where there is an encoder"


def absolute_positions_fit(
    inputs: dict[str, Part], model: Part, tasks: dict[str, Part], needs: dict[str, Needs]
) -> Iterator[Found]:
    """Absolute position embeddings cover the context of their core; sinusoidal ones have an even width."""
    width, encoder = model.options["width"], model.options["encoder"]
    written = generated_by(tasks, needs)
    for name, part in inputs.items():
        context = encoder.context if encoder and name not in written else model.options["context"]
        position = part.options.get("position")
        if not isinstance(position, Part):
            continue
        length = position.options.get("length")
        if length is not None and length < context and position.target is not LearnedSecond:
            where = ("inputs", name, "position", "length")
            yield where, f"must be at least the context ({context} tokens), not {length}; null: the context"
        if position.target is Sinusoidal and width % 2:
            yield ("model", "width"), f"must be even for sinusoidal positions (inputs.{name}.position), not {width}"


def targets_are_inputs(inputs: dict[str, Part], tasks: dict[str, Part], needs: dict[str, Needs]) -> Iterator[Found]:
    """The `target` of a task that predicts an input is one of the inputs."""
    for name, part in tasks.items():
        target = part.options.get("target")
        if isinstance(target, str) and target not in inputs and target in needs[name].inputs:
            yield ("tasks", name, "target"), f"no input is named {target!r}{nearest(target, inputs)}"


def tokens_are_hidden_once(needs: dict[str, Needs]) -> Iterator[Found]:
    """No two tasks hide tokens of one input: each would be trained on what the other one has put there."""
    hidden: dict[str, str] = {}
    for name, each in needs.items():
        for target in each.inputs if each.hides in ("masked", "denoised") else ():
            if (other := hidden.setdefault(target, name)) != name:
                told = f"task {other!r} already hides tokens of input {target!r}: keep one of the two tasks"
                yield ("tasks", name), f"{told}, or give the second one an input of its own (same_as: {target})"


def answers_are_not_read(
    inputs: dict[str, Part], model: Part, tasks: dict[str, Part], data: Data, needs: dict[str, Needs]
) -> Iterator[Found]:
    """No input reads a data column that a task predicts, unless the task hides it (by a shift or a mask). Inputs that a
    decoder generates are exempt: the encoder does not read them."""
    written = generated_by(tasks, needs)
    read = [each for each in inputs if each not in written or not model.options["encoder"]]
    for name, asked in needs.items():
        columns = () if asked.hides else (*asked.columns,)
        for reader in [each for each in read if data.columns.get(each, each) in columns]:
            column = data.columns.get(reader, reader)
            advice = "take the input out (or let it read another column, with data.columns), or predict it by a task"
            reads = f"is the column {column!r}, which the input {reader!r} reads: the model would be told its answer"
            yield ("tasks", name, "target"), f"{reads}; {advice} that hides it"
