"""All checks of a configuration that no single signature expresses: how its sections fit together.

A check is a function whose parameters name the sections it looks at. It yields (path, message) for each problem, and
runs where those sections have no problems of their own; a parameter with default None is None for a section that has
some. The docstring of a check states what must hold."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from ....models.attention.grammar import parse_graph
from ....tasks.base import Needs, Wiring
from ....tokenizers.part import Part, axes_of
from ...wiring import wire
from ..document import Problem
from ..registry import imported
from ..scalars import nearest
from ..sections import BUILT_IN, Data, Evaluation, Training
from . import parts, timing
from .parts import Found, in_cores


def cross_problems(
    sections: Mapping[str, Any], shares: Mapping[str, str]
) -> tuple[list[Problem], Wiring | None]:  # fmt: skip
    """The problems of all checks, and the wiring (None if a section that it needs has problems). SINGLE_CHECKS come
    first; a section in which they find a problem is not passed to FITTING_CHECKS. `shares`: see `wire`."""
    tasks, wrong = parts.built_tasks(sections.get("tasks", {}))
    found = [Problem._make(each) for each in wrong]
    sound = dict(sections) | {"needs": {name: task.needs for name, task in tasks.items()}}
    for checks in SINGLE_CHECKS, FITTING_CHECKS:
        for check in checks:
            wanted = inspect.signature(check).parameters.values()
            if all(each.name in sound or each.default is None for each in wanted):
                found += map(Problem._make, check(*(sound.get(each.name) for each in wanted)))
        for path, _ in found:
            sound.pop(str(path[0]), None)
        if "tasks" not in sound:
            sound.pop("needs", None)
        if checks is SINGLE_CHECKS and {"inputs", "tasks", "model", "data", "training"} <= sound.keys():
            sound["wiring"] = wire(sound["inputs"], shares, tasks, sound["model"], sound["data"], sound["training"])
    return found, sound.get("wiring")


def parts_fit(wiring: Wiring, data: Data, evaluation: Evaluation) -> Iterator[Found]:
    """The other sections fit to each task, to the data set and to each evaluator."""
    for name, task in wiring.tasks.items():
        yield from task.problems(name, wiring)
    if isinstance(data.dataset, Part):
        yield from data.dataset.target.problems(data.dataset.options, wiring)
    for name, part in evaluation.also.items():
        if name in BUILT_IN:
            yield ("evaluation", "also", name), f"every run has an evaluator {name!r}: choose another name"
        wrong = list(parts.refusal(("evaluation", name), part))
        yield from wrong or part().problems(name, wiring)


def names_fit_modules(inputs: dict[str, Part] | None = None, tasks: dict[str, Part] | None = None) -> Iterator[Found]:
    """Inputs and tasks have names that torch modules can carry, and there is at least one of each. Judges, which are
    named under `metrics`, keep files in a folder of their name."""
    for section, entries, owner in ("inputs", inputs, nn.ParameterDict()), ("tasks", tasks, nn.ModuleDict()):
        if entries is not None and not entries:
            yield (section,), "must name at least one"
        for name in entries or ():
            if not (name.isidentifier() and name.isascii()):
                yield (section, name), f"{name!r} cannot be a name: letters, digits and _ only, with a letter first"
            elif hasattr(owner, name) or hasattr(nn.ModuleDict, name):
                yield (section, name), f"{name!r} cannot be a name: torch modules have an attribute of that name"
    for name, part in (tasks or {}).items():
        judges = part.options.get("metrics")
        for judge in judges if isinstance(judges, Mapping) else ():
            if not (judge.isidentifier() and judge.isascii()):
                where = ("tasks", name, "metrics", judge)
                yield where, f"{judge!r} cannot be a name: letters, digits and _ only, with a letter first"


def heads_divide(model: Part) -> Iterator[Found]:
    """`heads` divides `width`, unless `head_width` is given; `key_value_heads` divides `heads`."""
    width, heads, block = model.options["width"], model.options["heads"], model.options["block"].options
    if width % heads and block.get("head_width") is None:
        yield ("model", "heads"), f"must divide width ({width}); {heads} does not, but {_divisors(width, heads)} would"
    groups = block.get("key_value_heads")
    if groups is not None and (groups < 1 or heads % groups):
        where = ("model", "block", "key_value_heads")
        yield where, f"must divide heads ({heads}); {groups} does not, but {_divisors(heads, groups)} would"


def _divisors(number: int, near: int) -> str:
    """The nearest divisors of `number` below and above `near`, for a message: of 64 and 6 it is "4 or 8"."""
    sides = range(min(near - 1, number), 0, -1), range(max(near + 1, 1), number + 1)
    found = [next((d for d in side if number % d == 0), None) for side in sides]
    return " or ".join(str(d) for d in found if d)


def attention_parses(model: Part, inputs: dict[str, Part] | None = None) -> Iterator[Found]:
    """Every attention expression parses, and names inputs and axes that exist."""
    for path, written in in_cores(model, "attention").items():
        if not written:
            yield path, "must hold at least one expression"
        for index, text in enumerate([written] if isinstance(written, str) else written):
            try:
                parse_graph(text, list(inputs or ()), axes_of(inputs or {}), imported)
            except ValueError as error:
                if inputs is not None or not re.search("no (input|axis) named", str(error)):
                    yield (*path, *([] if isinstance(written, str) else [index])), str(error)


def relative_position_fits(inputs: dict[str, Part], model: Part) -> Iterator[Found]:
    """`position` of the model and of the encoder accepts the heads, their channels and the axes."""
    width, heads = model.options["width"], model.options["heads"]
    channels = model.options["block"].options.get("head_width") or width // heads
    for path, position in in_cores(model, "position").items():
        if position is not None and not list(heads_divide(model)):
            yield from parts.refusal(path, position, heads, channels, axes_of(inputs))


def block_can_be_built(model: Part) -> Iterator[Found]:
    """`block` accepts its options at this width."""
    block, width, heads = (model.options[name] for name in ("block", "width", "heads"))
    if not list(heads_divide(model)):
        yield from parts.refusal(("model", "block"), block, width, heads, device="meta")


def samples_or_tokens(data: Data, training: Training) -> Iterator[Found]:
    """A text corpus is trained on by `tokens_per_step`, not by samples."""
    if data.dataset is not None and not holds_samples(data) and training.samples_per_step is not None:
        message = f"dataset {data.dataset.use!r} is a text corpus: give 'tokens_per_step' instead"
        yield ("training", "samples_per_step"), message


def rows_can_be_planned(model: Part, training: Training) -> Iterator[Found]:
    """The tokens of a step fill at most `ROWS` rows."""
    context, tokens = model.options["context"], training.tokens_per_step
    if tokens and context > 0 and tokens > context * parts.ROWS:
        message = (
            f"must be at most {context * parts.ROWS:,} ({parts.ROWS:,} rows of {context:,} tokens), not {tokens:,}"
        )
        yield ("training", "tokens_per_step"), message


def holds_samples(data: Data) -> bool:
    """Whether a configuration's data set holds samples; else it is a text corpus, or there is none."""
    known = isinstance(data.dataset, Part)  # not where the name of the data set is wrong
    return known and data.dataset.target.holds_samples


def core_tokens_have_room(model: Part, data: Data) -> Iterator[Found]:
    """A text corpus has no core tokens: its windows fill their rows."""
    if model.options["core_tokens"] and data.dataset is not None and not holds_samples(data):
        corpus = f"dataset {data.dataset.use!r} is a text corpus"
        yield ("model", "core_tokens"), f"must be 0: {corpus}, whose windows have no tokens but those of the text"


def dropped_inputs_exist(inputs: dict[str, Part], data: Data, training: Training) -> Iterator[Found]:
    """`training.input_dropout` and `data.columns` name inputs; the shares lie in [0, 1)."""
    dropout = training.input_dropout
    for name in dropout if isinstance(dropout, dict) else ():
        if name not in inputs:
            yield ("training", "input_dropout", name), f"no input is named {name!r}{nearest(name, inputs)}"
    for share in dropout.values() if isinstance(dropout, dict) else [0.0 if dropout == "any_number" else dropout]:
        if not 0 <= share < 1:
            yield ("training", "input_dropout"), f"must be at least 0 and below 1, not {share}"
    for name in data.columns:
        if name not in inputs:
            yield ("data", "columns", name), f"no input is named {name!r}{nearest(name, inputs)}"


def steps_are_rows(
    model: Part, training: Training, data: Data | None = None, needs: dict[str, Needs] | None = None
) -> Iterator[Found]:
    """Of a text corpus `tokens_per_step` is a multiple of the tokens of a row: the context, or the longest window that
    a task reads; `rows_per_micro_batch` is at most the rows of a step."""
    context, tokens, encoder = model.options["context"], training.tokens_per_step, model.options["encoder"]
    if tokens is None or (data is not None and holds_samples(data)):
        return
    windows = [each.window(context, encoder.context if encoder else 0) for each in (needs or {}).values()]
    context = max(windows, default=context)
    below = tokens - tokens % context
    if below != tokens:
        near = " or ".join(str(size) for size in (below, below + context) if size)
        message = f"must be a multiple of context ({context}), such as {near}, not {tokens}"
        yield ("training", "tokens_per_step"), message
    rows, most = training.rows_per_micro_batch, max(tokens // context, 1)
    if rows is not None and rows > most:
        yield ("training", "rows_per_micro_batch"), f"must be at most the {most} rows of a step, not {rows}"


def schedule_fits(training: Training) -> Iterator[Found]:
    """`schedule` accepts its options for this number of steps."""
    yield from parts.refusal(("training", "schedule"), training.schedule, training.steps or 1000)


Check = Callable[..., Iterator[Found]]
SINGLE_CHECKS: tuple[Check, ...] = (
    names_fit_modules, parts.model_sizes, parts.training_sizes, parts.evaluation_sizes,
    parts.checkpoint_sizes, parts.logging_sizes,
)  # fmt: skip
FITTING_CHECKS: tuple[Check, ...] = (
    heads_divide, parts.encoder_fits, attention_parses, *timing.CHECKS, parts_fit,
    parts.augmented_images_have_one_shape, relative_position_fits, block_can_be_built,
    parts.absolute_positions_fit, parts.inputs_can_be_built, parts.encodings_fit, parts.targets_are_inputs, parts.answers_are_not_read, parts.tokens_are_hidden_once,
    samples_or_tokens, rows_can_be_planned,
    core_tokens_have_room, dropped_inputs_exist, steps_are_rows, schedule_fits,
)  # fmt: skip
