"""The checks of a configuration that concern several sections, or that a signature cannot express.

A check is a function that yields (path, message) for each problem. Its parameters have the names of the sections that
the check reads. A check runs only if these sections have no problems so far; a parameter with the default None receives
None for a section with problems. The docstring of a check states the condition that must hold."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from ...data.base import Dataset
from ...models.attention.grammar import parse_graph
from ...models.attention.graph import Graph
from ...models.contract import Problems
from ...models.layers.positions import LearnedSecond, Sinusoidal
from ...models.layers.relative import RelativePosition
from ...models.transformer import BaseBlock
from ...tasks.base import Needs, Task, Wiring
from ...tokenizers.base import SECONDS, Part, Role, constructor_problem, position_axes
from .document import Problem, Where
from .hints import nearest, shown
from .registry import imported, snake_case
from .sections import BUILT_IN, Checkpoints, Data, Evaluation, Training

MOST_ROWS = 2**20
"""The largest number of rows in a step."""
LARGEST_SETTINGS = {
    "depth": 10_000, "heads": 2**16, "width": 2**20, "context": 2**26, "core_tokens": 2**16,
}  # fmt: skip
"""The largest integers allowed for settings with these names, far above any practical value. A typing error then gives
a message instead of a long computation. All other integers may be up to 2**48."""


def at_least(section: str, values: Mapping[str, Any], *names: str, least: float | None = None) -> Problems:
    """Yields a problem for each value of a section that is below `least` (None: that is not above 0), or that is an
    integer above its maximum (LARGEST_SETTINGS). `values` are the settings of the section, `names` those that are
    checked. null is not a problem."""
    for name in names:
        value, path = values[name], (*section.split("."), name)
        if value is not None and (value <= 0 if least is None else value < least):
            yield path, f"must be {'more than 0' if least is None else f'at least {least}'}, not {shown(value)}"
        elif isinstance(value, int) and value > LARGEST_SETTINGS.get(name, 2**48):
            yield path, f"must be at most {LARGEST_SETTINGS.get(name, 2**48):,}, not {shown(value)}"


def in_cores(model: Part, name: str) -> dict[tuple[str, ...], Any]:
    """Returns the values of the setting `name` in the main core and, if there is an encoder, in the encoder, by
    path."""
    encoder = model.options["encoder"]
    settings: dict[tuple[str, ...], Any] = {("model", name): model.options[name]}
    return settings | ({("model", "encoder", name): getattr(encoder, name)} if encoder else {})


def model_sizes(model: Part) -> Problems:
    yield from at_least("model", model.options, "width", "heads", "context", least=1)
    yield from at_least("model", model.options, "depth", least=1 if model.options["encoder"] else 0)
    yield from at_least("model", model.options, "core_tokens", least=0)
    if encoder := model.options["encoder"]:
        yield from at_least("model.encoder", vars(encoder), "depth", "context", least=1)


def lengths_are_named_once(training: Training) -> Problems:
    """The length of the training and the size of a step are each given by one setting."""
    for names, label in (
        (("steps", "epochs", "minutes"), "'steps', 'epochs' and 'minutes' (a budget of time)"),
        (("tokens_per_step", "samples_per_step"),
         "'tokens_per_step' (of a text corpus, or of samples of similar length) and 'samples_per_step'"),
    ):  # fmt: skip
        used = [name for name in names if getattr(training, name) is not None]
        if len(used) != 1:
            has = f", not {' and '.join(used)}; set the others to null" if used else ""
            yield ("training",), f"needs one of {label}{has}"


def averaged_checkpoints_are_kept(checkpoints: Checkpoints) -> Problems:
    """`keep` is at least `average`."""
    average, keep = checkpoints.average, checkpoints.keep
    if average is not None and average > keep:
        yield ("checkpoints", "keep"), f"must be at least {average} (checkpoints.average), not {keep}"


def built_tasks(parts: Mapping[str, Part]) -> tuple[dict[str, Task], list[tuple[Where, str]]]:
    """Returns the tasks that accept their options, by name, and the problems of the other tasks."""
    tasks: dict[str, Task] = {}

    def build(name: str, part: Part) -> None:
        tasks[name] = part()

    return tasks, [problem for name, part in parts.items() for problem in refusal(("tasks", name), build, name, part)]


def generated_by(tasks: Mapping[str, Part], needs: Mapping[str, Needs]) -> list[str]:
    """Returns the inputs that tasks generate token by token."""
    return [part.options["target"] for name, part in tasks.items() if needs[name].generates]


def refusal(path: tuple[str, ...], part: Callable[..., Any], *arguments: Any, device="cpu") -> Problems:
    """Yields a problem at `path` if calling `part` with `arguments` raises ValueError or TypeError. RuntimeError is
    ignored. The state of the CPU's random number generator does not change.

    On the device "meta" large matrices take no memory, but arithmetic on "meta", such as that of rotary positions,
    makes torch spend seconds on imports."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            part(*arguments)
    except (ValueError, TypeError) as error:
        yield path, str(error)
    except RuntimeError:  # code that reads values of tensors fails on "meta"; `build_model` reports real errors later
        return


def inputs_can_be_built(inputs: dict[str, Part]) -> Problems:
    """The chopper of every input accepts its options, and every embedder has the constructor that `Model` calls."""
    for name, part in inputs.items():
        yield from refusal(("inputs", name), lambda part=part: part.of(part.target.Chopper)())
        if problem := constructor_problem(part.target):
            yield ("inputs", name), problem


def options_of_inputs_fit(inputs: dict[str, Part]) -> Problems:
    """The options of each input fit each other (`Preprocessor.problems`)."""
    for name, part in inputs.items():
        for keys, message in part.target.Chopper.problems(part.options):
            yield ("inputs", name, *keys), message


def encoder_fits(inputs: dict[str, Part], model: Part, tasks: dict[str, Part], needs: dict[str, Needs]) -> Problems:
    """A task with cross-attention needs an encoder. If there is an encoder, at least one task generates an input, at
    least one input is not generated (so the encoder can read it), and there are no core tokens."""
    if model.options["encoder"] is not None:
        yield from inputs_are_encoded(inputs, model, generated_by(tasks, needs))
        return
    for name in [name for name, task_needs in needs.items() if task_needs.encoder]:
        yield ("tasks", name), f"{tasks[name].use} needs 'model.encoder', such as {{depth: 3, context: 256}}"


def inputs_are_encoded(inputs: dict[str, Part], model: Part, generated: list[str]) -> Problems:
    """See `encoder_fits`."""
    if not generated:
        message = "needs a task that generates an input in the decoder, such as sequence_to_sequence"
        yield ("model", "encoder"), message
    elif not set(inputs) - set(generated):
        yield ("model", "encoder"), f"has no input: every input ({', '.join(inputs)}) is generated by a task"
    if model.options["core_tokens"]:
        yield ("model", "core_tokens"), "must be 0 with an encoder"


def absolute_position_fits(name: str, position: Part, context: int, width: int) -> Problems:
    """The problems of the position embedding of one input."""
    length = position.options.get("length")
    if length is not None and length < context and position.target is not LearnedSecond:
        path = ("inputs", name, "position", "length")
        yield path, f"must be at least the context ({context} tokens), not {length}; null: the context"
    if position.target is Sinusoidal and width % 2:
        yield ("model", "width"), f"must be even for sinusoidal positions (inputs.{name}.position), not {width}"


def absolute_positions_fit(
    inputs: dict[str, Part], model: Part, tasks: dict[str, Part], needs: dict[str, Needs]
) -> Problems:
    """The `length` of an absolute position embedding is at least the context of the core that reads the input
    (`LearnedSecond` is exempt). With sinusoidal positions the width is even."""
    width, encoder = model.options["width"], model.options["encoder"]
    generated = generated_by(tasks, needs)
    for name, part in inputs.items():
        context = encoder.context if encoder and name not in generated else model.options["context"]
        position = part.options.get("position")
        if isinstance(position, Part):  # a user-defined tokenizer may have another option of this name
            yield from absolute_position_fits(name, position, context, width)


def targets_are_inputs(inputs: dict[str, Part], tasks: dict[str, Part], needs: dict[str, Needs]) -> Problems:
    """The `target` of a task that predicts an input is an existing input."""
    for name, part in tasks.items():
        target = part.options.get("target")
        if isinstance(target, str) and target not in inputs and target in needs[name].inputs:
            yield ("tasks", name, "target"), f"no input is named {target!r}{nearest(target, inputs)}"


def tokens_are_hidden_once(needs: dict[str, Needs]) -> Problems:
    """No two tasks mask, denoise or add noise to the same input. Otherwise each of the two tasks would be trained on
    tokens that the other task replaced."""
    hidden: dict[str, str] = {}
    for name, task_needs in needs.items():
        for target in task_needs.inputs if task_needs.hides in ("masked", "denoised", "noised") else ():
            if (other := hidden.setdefault(target, name)) != name:
                conflict = f"task {other!r} already hides tokens of input {target!r}: keep one of the two tasks"
                yield ("tasks", name), f"{conflict}, or add a second input for one of them (same_as: {target})"


def target_is_read(task: str, reader: str, column: str) -> tuple[tuple[str, ...], str]:
    """Returns the problem that an input reads the column that a task predicts."""
    advice = "remove the input, let it read another column (data.columns), or use a task that hides its target"
    leak = f"is the column {column!r}, which the input {reader!r} reads: the model would see its target"
    return ("tasks", task, "target"), f"{leak}; {advice}"


def answers_are_not_read(
    inputs: dict[str, Part], model: Part, tasks: dict[str, Part], data: Data, needs: dict[str, Needs]
) -> Problems:
    """No input reads a data column that a task predicts, unless the task hides its target (by a shift or a mask). If
    there is an encoder, generated inputs are exempt, since the encoder does not read them."""
    generated = generated_by(tasks, needs)
    visible = [input for input in inputs if input not in generated or not model.options["encoder"]]
    for name, task_needs in needs.items():
        columns = () if task_needs.hides else (*task_needs.columns,)
        for reader in [input for input in visible if data.column(input) in columns]:
            yield target_is_read(name, reader, data.column(reader))


def hidden_values_stay_hidden(wiring: Wiring) -> Problems:
    """A token that a task hides is not part of other tokens, as it would be if each of them depends on the complete
    item."""
    for name, needs in wiring.needs.items():
        for input in [each for each in needs.inputs if needs.hides and each in wiring.inputs]:
            part = wiring.inputs[input]
            with suppress(ValueError, TypeError):  # inputs_can_be_built reports an input that cannot be built
                if getattr(part.of(part.target.Chopper)(), "relative", False):
                    reason = f"the task {name!r} predicts it, so its tokens must not depend on each other"
                    yield ("inputs", input), f"{reason}: relative: false"


def time_is_kept(wiring: Wiring, model: Part) -> Problems:
    """No token depends on a complete clip, since the clip includes the token's future. This condition holds for the
    attention `causal(seconds)`, and for `causal` if tokens are ordered by time and a task predicts the next token."""
    settings = in_cores(model, "attention").values()
    expressions = [text for setting in settings for text in ([setting] if isinstance(setting, str) else setting)]
    next_is_predicted = wiring.order == SECONDS and any(needs.supervised_at for needs in wiring.needs.values())
    graph = re.compile(r"\bcausal(\s*\(\s*seconds\s*\))" + "?" * next_is_predicted)
    used = next((match.group() for text in expressions if (match := graph.search(text))), None)
    if used is not None:
        exempt = wiring.ahead if next_is_predicted and "seconds" not in used else ()  # all may read them completely
        yield from whole_items({name: part for name, part in wiring.inputs.items() if name not in exempt}, used)


def whole_items(inputs: Mapping[str, Part], used: str) -> Problems:
    """Yields a problem for each input whose tokens depend on the complete item. `used` is the graph that must hide the
    future."""
    for name, part in inputs.items():
        with suppress(ValueError, TypeError):  # inputs_can_be_built reports an input that cannot be built
            if SECONDS in part.target.Chopper.axes and part.of(part.target.Chopper)().needs_whole:
                message = (
                    f"each token depends on the complete item, but {used!r} must hide the future: use "
                    "{use: audio}, normalize: data and no trim, for a sensor relative: false, or another attention"
                )
                yield ("inputs", name), message


def order_is_known(inputs: dict[str, Part], data: Data) -> Problems:
    """With `data.order: seconds`, at least one input has positions in seconds."""
    if data.order == SECONDS and SECONDS not in position_axes(inputs):
        yield ("data", "order"), "no input has a time: set the `offset` of one, or use order: inputs"


def generated_items_have_no_offset(inputs: dict[str, Part], needs: dict[str, Needs]) -> Problems:
    """An input that a task generates token by token, or refines, has no `offset` (a time in seconds)."""
    for name, task_needs in needs.items():
        for input in task_needs.inputs if task_needs.generates or task_needs.refines else ():
            if input in inputs and inputs[input].options.get("offset") is not None:
                yield ("inputs", input, "offset"), f"must be null: task {name!r} generates this input"


class Share(NamedTuple):
    """What an input that is written `{same_as: OTHER, type: INPUT}` shares."""

    owner: str
    """The input whose tokenizer is used."""
    type: str | None
    """The input whose type embedding is used; None: the input has its own."""

    @property
    def tree(self) -> dict[str, str]:
        """The input as it is written in a YAML."""
        return {"same_as": self.owner} | ({} if self.type is None else {"type": self.type})


def wire(
    inputs: Mapping[str, Part], shares: Mapping[str, Share], tasks: Mapping[str, Task], model: Part, data: Data,
    training: Training,
) -> Wiring:  # fmt: skip
    """Returns the `Wiring` of a configuration: the facts that depend neither on data nor on a model. The caller has
    already checked the sections and built the tasks. `shares` maps each input that is written `{same_as: OTHER}` to
    OTHER, whose tokenizer it uses, and to its option `type`."""
    owners = {name: shares[name].owner if name in shares else name for name in inputs}
    needs = {name: task.needs for name, task in tasks.items()}
    generated = tuple(task.target for name, task in tasks.items() if needs[name].generates)
    encoder, dropout = model.options["encoder"] is not None, training.input_dropout
    return Wiring(
        inputs=inputs, model=model.options, graphs=dict(graphs_of(inputs, model)), order=data.order, tasks=tasks,
        needs=needs, owners=owners, generated=generated, axes=position_axes(inputs),
        types={name: share.type for name, share in shares.items() if share.type is not None},
        columns={name: data.column(name) for name in inputs},
        roles={name: role_of(name, owners, generated, needs) for name in inputs},
        encoded=tuple(name for name in inputs if encoder and name not in generated),
        optional=frozenset(n for n in inputs if (dropout.get(n) if isinstance(dropout, Mapping) else dropout)),
    )  # fmt: skip


def graphs_of(inputs: Mapping[str, Part], model: Part) -> Iterator[tuple[str, Graph]]:
    """Yields (expression, graph) for each attention expression of the main core that can be parsed."""
    setting: Any = model.options["attention"]
    yield from parsed_graphs(inputs, setting).items()


def parsed_graphs(inputs: Mapping[str, Part], setting: Any) -> dict[str, Graph]:
    """Returns the graphs of those attention expressions of a setting that can be parsed, by expression."""
    graphs = {}
    for text in [setting] if isinstance(setting, str) else setting:
        with suppress(ValueError, LookupError):
            graphs[text] = parse_graph(text, list(inputs), position_axes(inputs), imported)
    return graphs


def role_of(name: str, owners: Mapping[str, str], generated: tuple[str, ...], needs: Mapping[str, Needs]) -> Role:
    """Returns the role of the input `name`: whether a task generates it, and the special ids that tasks need in this
    input and in all inputs that share its tokenizer. `owners` maps every input to the input whose tokenizer it uses."""
    group = {input for input, owner in owners.items() if owner == owners[name]}
    ids = [id for task_needs in needs.values() if group & {*task_needs.inputs} for id in task_needs.special_ids]
    return Role(generated=name in generated, special_ids=tuple(dict.fromkeys(ids)))


def cross_problems(
    sections: Mapping[str, Any], shares: Mapping[str, Share]
) -> tuple[list[Problem], Wiring | None]:  # fmt: skip
    """Returns the problems of all checks, and the wiring (None if `inputs`, `tasks`, `model`, `data` or `training` has
    problems). SINGLE_CHECKS run first; a section with problems is not passed to FITTING_CHECKS. `sections` maps names
    to checked sections, without invalid ones. `shares`: see `wire`."""
    tasks, task_problems = built_tasks(sections.get("tasks", {}))
    problems = [Problem._make(problem) for problem in task_problems]
    valid = dict(sections) | {"needs": {name: task.needs for name, task in tasks.items()}}
    for checks in SINGLE_CHECKS, FITTING_CHECKS:
        for check in checks:
            parameters = inspect.signature(check).parameters.values()
            if all(section.name in valid or section.default is None for section in parameters):
                problems += map(Problem._make, check(*(valid.get(section.name) for section in parameters)))
        for path, _ in problems:
            valid.pop(str(path[0]), None)
        if "tasks" not in valid:
            valid.pop("needs", None)
        if checks is SINGLE_CHECKS and {"inputs", "tasks", "model", "data", "training"} <= valid.keys():
            valid["wiring"] = wire(valid["inputs"], shares, tasks, valid["model"], valid["data"], valid["training"])
    return problems, valid.get("wiring")


def parts_fit(wiring: Wiring, data: Data, evaluation: Evaluation) -> Problems:
    """All sections together fit each task, the data set and each further evaluator. No further evaluator has the name
    of a built-in evaluator."""
    for name, task in wiring.tasks.items():
        yield from task.problems(name, wiring)
    if kind := dataset_class(data):
        yield from kind.problems(data.dataset.options, wiring)
    for name, part in evaluation.also.items():
        if name in BUILT_IN:
            yield ("evaluation", "also", name), f"{name!r} is a built-in evaluator of every run: choose another name"
        problems = list(refusal(("evaluation", name), part))
        yield from problems or part().problems(name, wiring)


def names_fit_modules(inputs: dict[str, Part] | None = None, tasks: dict[str, Part] | None = None) -> Problems:
    """There is at least one input and one task. The names of inputs and tasks are ASCII identifiers that are not
    attributes of torch modules. The names of judges under `metrics` are ASCII identifiers, since a judge stores files
    in a folder of its name."""
    for section, entries, owner in ("inputs", inputs, nn.ParameterDict()), ("tasks", tasks, nn.ModuleDict()):
        if entries is not None and not entries:
            yield (section,), "must name at least one"
        for name in entries or ():
            if not is_identifier(name):
                yield (section, name), f"{name!r} is not a valid name: {IDENTIFIER}"
            elif hasattr(owner, name) or hasattr(nn.ModuleDict, name):
                yield (section, name), f"{name!r} is not a valid name: torch modules have an attribute of this name"
    judges = [
        (name, judge) for name, part in (tasks or {}).items() for judge in mapping_of(part.options.get("metrics"))
    ]
    for name, judge in judges:
        if not is_identifier(judge):
            yield ("tasks", name, "metrics", judge), f"{judge!r} is not a valid name: {IDENTIFIER}"


IDENTIFIER = "letters, digits and _ only, with a letter first"


def is_identifier(name: str) -> bool:
    """Returns whether a name is an identifier of ASCII characters."""
    return name.isidentifier() and name.isascii()


def mapping_of(value: Any) -> Mapping[str, Any]:
    """Returns a mapping unchanged; an empty one for any other value."""
    return value if isinstance(value, Mapping) else {}


def heads_divide(model: Part) -> Problems:
    """`heads` divides `width`, or `head_width` is set. `key_value_heads` divides `heads`."""
    width, heads, block = model.options["width"], model.options["heads"], model.options["block"].options
    if width % heads and block.get("head_width") is None:
        yield ("model", "heads"), f"{heads} does not divide width ({width}); possible: {_divisors(width, heads)}"
    groups = block.get("key_value_heads")
    if groups is not None and (groups < 1 or heads % groups):
        path = ("model", "block", "key_value_heads")
        yield path, f"{groups} does not divide heads ({heads}); possible: {_divisors(heads, groups)}"


def _divisors(number: int, near: int) -> str:
    """Returns the nearest divisors of `number` below and above `near`, for a message: `"4 or 8"` for 64 and 6."""
    sides = range(min(near - 1, number), 0, -1), range(max(near + 1, 1), number + 1)
    divisors = [next((d for d in side if number % d == 0), None) for side in sides]
    return " or ".join(str(d) for d in divisors if d)


def attention_parses(model: Part, inputs: dict[str, Part] | None = None) -> Problems:
    """There is at least one attention expression in each core. Every expression can be parsed, and names only inputs
    and axes that exist."""
    for path, setting in in_cores(model, "attention").items():
        if not setting:
            yield path, "must have at least one expression"
        for index, text in enumerate([setting] if isinstance(setting, str) else setting):
            try:
                parse_graph(text, list(inputs or ()), position_axes(inputs or {}), imported)
            except ValueError as error:
                if inputs is not None or not re.search("no (input|axis) named", str(error)):
                    yield (*path, *([] if isinstance(setting, str) else [index])), str(error)


def relative_position_fits(inputs: dict[str, Part], model: Part) -> Problems:
    """`position` of the model and of the encoder accepts the number of heads, the channels per head and the position
    axes."""
    width, heads = model.options["width"], model.options["heads"]
    channels = model.options["block"].options.get("head_width") or width // heads
    for path, position in in_cores(model, "position").items():
        if position is not None and not list(heads_divide(model)):
            problems = list(refusal(path, positioned, position, list(inputs), position_axes(inputs)))
            yield from problems or refusal(
                path, positioned(position, list(inputs), position_axes(inputs)), heads, channels
            )


def positioned(position: Any, inputs: Sequence[str], axes: Sequence[str]) -> Callable[..., RelativePosition]:
    """Returns the class of relative positions of a core with its options and with the position axes; its option
    `graphs`, if it has one, is parsed. Raises ValueError if an expression cannot be parsed."""
    graphs = getattr(position, "options", {}).get("graphs")
    parsed = {} if graphs is None else {"graphs": tuple(parse_graph(text, inputs, axes, imported) for text in graphs)}
    return partial(position or RelativePosition, axes=tuple(axes), **parsed)


def block_can_be_built(inputs: dict[str, Part], model: Part) -> Problems:
    """`block` accepts its options at this width and number of heads, and computes the graphs of its core."""
    block, width, heads = (model.options[name] for name in ("block", "width", "heads"))
    if list(heads_divide(model)):
        return
    for path, setting in in_cores(model, "attention").items():
        role = "encoder" if "encoder" in path else "decoder" if model.options["encoder"] else "decoder-only"
        for graph in parsed_graphs(inputs, setting).values():
            blocks: list[BaseBlock] = []
            create = partial(block, width, heads, crosses=role == "decoder", graph=graph)
            yield from refusal(("model", "block"), lambda: blocks.append(create()), device="meta")  # noqa: B023
            for each in blocks:
                yield from block_fits(each, graph, role, path, in_cores(model, "position"))


def block_fits(block: BaseBlock, graph: Graph, role: Any, path: Where, positions: Mapping) -> Problems:
    """A block computes the graph at `path` in a core with this role. Only blocks with heads have a `position`."""
    for keys, message in block.problems(graph, role):
        yield ("model", *keys) if keys[0] == "block" else (*path[:-1], *keys), message
    where = (*path[:-1], "position")
    if block.channels is None and positions[where] is not None:
        yield where, f"must be null: the block {snake_case(type(block).__name__)} has no relative positions"


def samples_or_tokens(data: Data, training: Training) -> Problems:
    """For a text corpus `samples_per_step` is not set. `workers` is a possible number."""
    if data.workers != "auto" and not 0 <= data.workers <= 1024:
        yield ("data", "workers"), f"must be auto, or from 0 to 1,024, not {data.workers}"
    if data.dataset is not None and not holds_samples(data) and training.samples_per_step is not None:
        message = f"dataset {data.dataset.use!r} is a text corpus: set 'tokens_per_step' instead"
        yield ("training", "samples_per_step"), message


def rows_can_be_planned(model: Part, training: Training) -> Problems:
    """The tokens of a step fill at most MOST_ROWS rows of `context` tokens."""
    context, tokens = model.options["context"], training.tokens_per_step
    if tokens and context > 0 and tokens > context * MOST_ROWS:
        message = f"must be at most {context * MOST_ROWS:,} ({MOST_ROWS:,} rows of {context:,} tokens), not {tokens:,}"
        yield ("training", "tokens_per_step"), message


def holds_samples(data: Data) -> bool:
    """Returns whether the data set of a configuration holds samples. False for a text corpus, and without a data
    set."""
    kind = dataset_class(data)
    return kind is not None and kind.holds_samples


def dataset_class(data: Data) -> type[Dataset] | None:
    """Returns the class of the data set; None if there is none."""
    return None if data.dataset is None else data.dataset.target


def core_tokens_have_room(model: Part, data: Data) -> Problems:
    """With a text corpus there are no core tokens, since the windows of the text fill the rows completely."""
    if model.options["core_tokens"] and data.dataset is not None and not holds_samples(data):
        corpus = f"dataset {data.dataset.use!r} is a text corpus"
        yield ("model", "core_tokens"), f"must be 0: {corpus}, whose windows contain only tokens of the text"


def dropped_inputs_exist(inputs: dict[str, Part], data: Data, training: Training) -> Problems:
    """`training.input_dropout` and `data.columns` name only existing inputs. The shares of `input_dropout` are at least
    0 and below 1."""
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


def shares_have_an_effect(wiring: Wiring, training: Training) -> Problems:
    """The shares of `training.input_dropout` for named inputs have an effect. Configurations of runs are not
    checked."""
    shares = training.input_dropout if isinstance(training.input_dropout, dict) else {}
    yield from unused_shares(wiring, [name for name, share in shares.items() if share]) if any(shares.values()) else ()


def unused_shares(wiring: Wiring, names: Sequence[str]) -> Problems:
    """Yields the problems of shares with which inputs are never dropped."""
    for name in names:
        tasks = [task for task, needs in wiring.needs.items() if name in (*needs.inputs, *needs.supervised_at)]
        if name in wiring.kept:
            reason = f"the input {name!r} is never dropped, because task {tasks[0]!r} needs it in each sample"
            yield ("training", "input_dropout", name), f"{reason}; remove this share"
        elif len(wiring.inputs) == 1:
            yield ("training", "input_dropout", name), "the only input is never dropped; remove this share"


def steps_are_rows(
    model: Part, training: Training, data: Data | None = None, needs: dict[str, Needs] | None = None
) -> Problems:
    """For a text corpus, `tokens_per_step` is a multiple of the tokens of a row, and `rows_per_micro_batch` is at most
    the rows of a step. A row has as many tokens as the longest window that a task reads, by default the context."""
    context, tokens, encoder = model.options["context"], training.tokens_per_step, model.options["encoder"]
    if tokens is not None and (data is None or not holds_samples(data)):
        windows = [
            task_needs.window(context, encoder.context if encoder else 0) for task_needs in (needs or {}).values()
        ]
        yield from steps_are_windows(training, tokens, max(windows, default=context))


def steps_are_windows(training: Training, tokens: int, context: int) -> Problems:
    """A step of a text corpus consists of windows of `context` tokens."""
    below = tokens - tokens % context
    if below != tokens:
        multiples = " or ".join(str(size) for size in (below, below + context) if size)
        message = f"must be a multiple of context ({context}), such as {multiples}, not {tokens}"
        yield ("training", "tokens_per_step"), message
    rows, step_rows = training.rows_per_micro_batch, max(tokens // context, 1)
    if rows is not None and rows > step_rows:
        yield ("training", "rows_per_micro_batch"), f"must be at most the {step_rows} rows of a step, not {rows}"


def schedule_fits(training: Training) -> Problems:
    """`schedule` accepts its options for this number of steps (1000 if `steps` is null)."""
    yield from refusal(("training", "schedule"), training.schedule, training.steps or 1000)


Check = Callable[..., Problems]
SINGLE_CHECKS: tuple[Check, ...] = (
    names_fit_modules, model_sizes, lengths_are_named_once, averaged_checkpoints_are_kept,
)  # fmt: skip
FITTING_CHECKS: tuple[Check, ...] = (
    heads_divide, encoder_fits, attention_parses, hidden_values_stay_hidden, time_is_kept, order_is_known,
    generated_items_have_no_offset, parts_fit, options_of_inputs_fit, relative_position_fits,
    block_can_be_built, absolute_positions_fit, inputs_can_be_built,
    targets_are_inputs, answers_are_not_read, tokens_are_hidden_once, samples_or_tokens,
    rows_can_be_planned, core_tokens_have_room, dropped_inputs_exist, steps_are_rows, schedule_fits,
)  # fmt: skip
