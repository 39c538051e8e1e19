"""`chopmix inspect CONFIG`: writes one HTML page with the tokens of a sample, its attention graphs and its targets. For
the folder of a run, the page also shows the attention that the model has learned, and what it predicts after each
layer."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.sampler import SampleIndex
from ..data.split import SampleSplit, Split
from ..files.pictures import COLOURS
from ..files.printing import printable
from ..files.reading import DataError
from ..files.writing import write_text
from ..inference.document import Line, bars, chart, document, escaped, section, table
from ..inference.evaluators.attribution import measure_attribution
from ..inference.explorer import Explorer, ShownSet, View, colour_of, shown_set, spread_layers, token_texts
from ..inference.predict import stream_predictions
from ..inference.tracing import Trace, batch_of, short_text, traced
from ..models.attention.graph import Graph
from ..models.attention.mask import dense_mask, reach
from ..models.batch import IGNORED, Batch
from ..models.leaks import leaks, unused_inputs
from ..models.model import Model
from ..models.tokens import CORE, PADDING, Tokens
from ..tasks.base import Task
from ..tokenizers.base import Chopper
from .build import build_model, choppers_and_tasks, open_split
from .changes import read_changes
from .run import Run, Sample, memory_split, open_part, traced_index
from .run_folder import RunError, name_of
from .settings.config import Config
from .settings.document import dumped

TEACHER_FORCING = (
    "<p class=soft>Each token is predicted from the tokens of the sample before it. A later token therefore does not "
    "follow from an incorrect earlier one.</p>"
)
"""The HTML of a remark on the predictions of tasks that generate tokens."""
FEW = 24
"""The largest number of targets of a task that the page lists."""
CANDIDATES = 200
"""The number of samples among which the one is searched whose inputs replace those of the shown sample."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a page shows. None: the first possible value."""

    split: str = "val"
    sample: str | None = None
    """The key or the number of a sample, or of a window of a corpus."""
    other: str | None = None
    """The key or the number of the sample whose inputs replace those of the shown one."""
    inputs: Sample | None = None
    """A sample that is not from the data."""
    task: str | None = None
    layers: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a page is about: a sample of a split, and the model that reads it."""

    title: str
    config: Config
    split: Split
    index: SampleIndex
    model: Model
    choppers: Mapping[str, Chopper]
    tasks: Mapping[str, Task]
    batch: Batch
    """The sample with its targets."""
    trace: Trace | None = None
    """What the trained model computes; None for a configuration without a run."""
    run: Run | None = None
    generated: Collection[str] = ()
    """The inputs of the sample that the model has generated."""

    @property
    def key(self) -> str:
        """The number of the sample or window, from 1, and the key of the sample: `sample 7 of 1,000 (key: a.png)`."""
        numbers = sorted(index.number for index in self.split.all())
        of = f"{numbers.index(self.index.number) + 1:,} of {len(numbers):,}"
        samples = self.split.samples
        if samples is None:
            return f"window {of}"
        key = samples.keys[self.index.number]
        return key if len(numbers) == 1 else f"sample {of} (key: {key})"

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The decoded inputs of the sample; empty for a window of a corpus."""
        return {} if self.split.samples is None else self.split.item(self.index.number)[0]

    @property
    def labels(self) -> Mapping[str, Any]:
        """The labels of the sample by column."""
        return {} if self.split.samples is None else self.split.item(self.index.number)[1]


def open_untrained(config: Config) -> tuple[dict[str, Chopper], dict[str, Task], Split]:
    """Returns (choppers, tasks, split) for a configuration without a run; `split` is the validation split. Choppers and
    tasks are fitted in a temporary folder. Raises DataError if the data cannot be read."""
    dataset, open_run = config.dataset(), partial(open_part, trust=config.nested)
    with tempfile.TemporaryDirectory() as folder:
        choppers, tasks = choppers_and_tasks(config, Path(folder), open_run, dataset)
    return choppers, tasks, open_split(config, dataset, "val", choppers, tasks)


def untrained(config: Config) -> Shown:
    """Returns the first validation sample of a configuration, for a page without a trained model."""
    choppers, tasks, split = open_untrained(config)
    index = split.all()[0]
    return Shown(
        title=f"The tokens and the attention graph of {config.path.name}", config=config, split=split, index=index,
        tasks=tasks, model=build_model(config, choppers, tasks), choppers=choppers, batch=split.batch([index]),
    )  # fmt: skip


def trained(run: Run, choice: Choice) -> Shown:
    """Returns a sample with everything that the trained model computes for it. Raises RunError for a run without its
    data, for an unknown sample, task or layer, DataError if the sample is bad or too long."""
    generated: Mapping[str, str] = {}
    if choice.inputs is not None:
        generated = generated_texts(run, choice.inputs)
        split: Split = memory_split(run, [{**choice.inputs, **generated}], for_prediction=False)
    elif not run.has_dataset:
        raise RunError(f"{run.folder} was imported without data; name a sample: --input NAME=VALUE")
    else:
        split = run.open(choice.split)
    index = index_of(split, choice.sample)
    trace = traced_index(run, split, index, run.tasks, choice.task)
    return Shown(
        title=f"Attention and predictions of {name_of(run.folder)}", config=run.config, split=split, index=index,
        run=run, generated=generated,
        model=run.model, choppers=run.choppers, tasks=run.tasks, batch=trace.batch, trace=trace,
    )  # fmt: skip


def generated_texts(run: Run, inputs: Sample) -> dict[str, str]:
    """Returns the texts that the tasks of a run generate for a sample, by the input that contains them. Without them,
    the page of a sample of the user could not show what the model reads while it writes."""
    names = {name: task.target for name, task in run.tasks.items() if task.needs.generates
             and task.target not in inputs and run.choppers[task.target].kind == "text"}  # fmt: skip
    if not names:
        return {}
    split = memory_split(run, [inputs])
    answers = predictions(run, split, split.all()[0])
    texts = {target: short_text(answers[name]) for name, target in names.items() if name in answers}
    return {target: text for target, text in texts.items() if text}


def index_of(split: Split, name: str | None) -> SampleIndex:
    """Returns the index of the sample with this key or number (None: the first readable one). Raises RunError if there
    is none."""
    indices = sorted(split.all(), key=lambda index: index.number)
    keys = split.samples.keys if split.samples is not None else ()
    if name is None:
        return indices[0]
    if name in keys:
        return indices[keys.index(name)]
    if name.isdecimal() and len(name) < 19 and 1 <= int(name) <= len(indices):
        return indices[int(name) - 1]
    raise RunError(f"{split.name} has no sample {name!r}; possible: a key, or a number from 1 to {len(indices):,}")


def write_page(shown: Shown, file: Path, choice: Choice = Choice()) -> str:
    """Write the page. Returns a sentence with the numbers of tokens, inputs and attention graphs. Raises DataError if
    the data cannot be read, OSError if the file cannot be written."""
    config, batch = shown.config, shown.batch
    explorer = explorer_of(shown)
    interactive, remarks = explorer.html(choice.layers)
    folder = shown.run.folder if shown.run else config.out if config.in_run else None
    changes = read_changes(folder) if folder else ()
    warnings = warnings_of(shown)
    parts = [
        *(f"<p>{escaped(line)}</p>" for change in changes for line in change.lines()),
        f"<p class=soft>{escaped(caption(shown))}</p>",
        *(f"<p class=bad>{escaped(line)}</p>" for line in warnings),
        *(answer_section(shown) if shown.trace else ()),
        section(
            "Attention", "<p>Select a token to see what it reads.</p>" * bool(shown.trace),
            interactive, *(f"<p>{escaped(line)}</p>" for line in remarks), anchor="attention",
        ),
        *(by_input_section(shown) if shown.trace else ()),
        *(layer_sections(shown, choice) if shown.trace else ()),
        section("The sample", *item_parts(shown)),
        section("The attention graph", *graph_parts(shown), *cross_parts(batch), proof(shown)),
        section("The targets", *(target_table(name, shown) for name in batch.targets)),
        section("The configuration", f"<details><summary>{escaped(config.path)}</summary>"
                f"<pre>{escaped(dumped(config.tree))}</pre></details>"),
    ]  # fmt: skip
    write_text(file, printable(document(shown.title, parts, "explorer.js")))
    tokens = sum(planned.tokens.shape[1] for planned in batch.sets.values())
    graphs = sum(len(set(core.graphs)) for core in shown.model.cores.values())
    counts = (
        f"{counted(tokens, 'token')} of {counted(len(config.inputs), 'input')}, {counted(graphs, 'attention graph')}"
    )
    return "\n".join([f"{file}: {counts}", *warnings])


def counted(number: int, name: str) -> str:
    """Returns a number with a noun: `1 token`, `2 tokens`."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def caption(shown: Shown) -> str:
    """Returns a sentence about the model and the sample."""
    name = f"{shown.run.name}; " if shown.run else "a configuration without trained weights; "
    generated = f"; {' and '.join(shown.generated)}: generated by the model" if shown.generated else ""
    return f"{name}{shown.split.name}, {shown.key}{generated}"


def warnings_of(shown: Shown) -> list[str]:
    """Returns a sentence if targets can influence their own prediction, and one for each input of the sample on which
    no prediction depends."""
    leaked = sum(map(len, leaks(shown.batch, *shown.model.graphs).values()))
    names = [*shown.model.inputs]
    unused = unused_inputs(shown.batch, shown.model.graphs[0]) if len(names) > 1 else []
    text = f"this graph leaks: {leaked} of {counted(targets_of(shown), 'target')} can influence their own prediction"
    return [text] * bool(leaked) + [f"inputs.{names[n - 1]}: no prediction depends on this input" for n in unused]


def targets_of(shown: Shown) -> int:
    """Returns the number of targets of the sample."""
    return sum(targets.count for targets in shown.batch.targets.values())


# ------------------------------------------------------------------------------------------------------- the explorer


def explorer_of(shown: Shown) -> Explorer:
    """Returns the tokens of the sample with the attention graph and, for a trained model, its attention."""
    batch, names, views = shown.batch, list(shown.model.inputs), list[View]()
    title = {"encoder": "encoder", "main": "decoder"} if batch.encoder is not None else {"main": ""}
    sets = {core: shown_set(title[core], planned, shown.inputs) for core, planned in batch.sets.items()}
    if shown.trace:
        writes = {slot: text for task in batch.targets for slot, text in shown.trace.predicted_tokens(task)}
        sets["main"] = replace(sets["main"], writes=writes)
    numbers = {core: number for number, core in enumerate(sets)}
    for core, number in numbers.items():
        views += learned_views(shown.trace, core, numbers) if shown.trace else []
        graphs, tokens = shown.model.cores[core].graphs, batch.sets[core].tokens.to("cpu").select(slice(0, 1))
        views += [View(kind, layer, number, number, mask.float()[None]) for kind, layer, mask in masks(graphs, tokens)]
    return Explorer(sets=list(sets.values()), views=views, choppers=shown.choppers, names=names,
                    start=first_target(batch, numbers))  # fmt: skip


COLUMNS = 8
"""The largest number of layers in the table of attention by input."""


def by_input_section(shown: Shown) -> list[str]:
    """Returns a table with the share of attention that each input gets from the tokens at which the tasks predict, in
    each layer (mean over heads) and in the rollout. Empty if the main set has one input, or no task predicts there."""
    trace, names = shown.trace, [*shown.model.inputs]
    main, core = trace.cores["main"], {CORE: "(core)"}
    slots = main_slots(trace.batch)
    owners = main.plan.tokens.input[0]
    present = sorted({*owners[main.plan.tokens.sample[0] > 0].tolist()})
    if len(slots) == 0 or len(present) < 2:
        return []
    layers = [layer for layer, weights in enumerate(main.attention, start=1) if len(weights)]
    chosen = [layers[number - 1] for number in spread_layers(len(layers), min(len(layers), COLUMNS))] if layers else []
    rows_of = {f"layer {layer}": main.attention[layer - 1].mean(0)[slots].mean(0) for layer in chosen}
    rows_of["rollout"] = main.rollout()[slots].mean(0)
    rows = []
    for number in present:
        dot = f"<span class=dot style='--tint:{COLOURS[colour_of(number)]}'></span>"
        shares = [float(weights[owners == number].sum()) for weights in rows_of.values()]
        rows.append([f"{dot}{escaped(core.get(number) or names[number - 1])}", *(f"{share:.1%}" for share in shares)])
    text = "<p>The share of attention that each input gets from the tokens at which the tasks predict.</p>"
    return [
        section("Attention by input", text, table(["input", *rows_of], rows, numbers=len(rows_of)), anchor="inputs")
    ]


def main_slots(batch: Batch) -> list[int]:
    """Returns the slots of the main set at which tasks predict for the sample."""
    slots: set[int] = set()
    for targets in batch.targets.values():
        if targets.of_encoder:
            continue
        known = targets.values.flatten() if targets.groups is None else None
        each = torch.arange(batch.main.tokens.sample.shape[1]) if targets.slots is None else targets.slots.cpu()
        if known is not None and len(known) == len(each) and not known.is_floating_point():
            each = each[known.cpu() != IGNORED]
        slots |= {*each.tolist()}
    return sorted(slots)


def learned_views(trace: Trace, core: str, numbers: Mapping[str, int]) -> list[View]:
    """Returns the attention, the cross-attention and the rollout of one core."""
    number, traced = numbers[core], trace.cores[core]
    views = [View("attention", layer, number, number, weights)
             for layer, weights in enumerate(traced.attention, start=1) if len(weights)]  # fmt: skip
    views += [View("cross", layer, number, numbers["encoder"], weights)
              for layer, weights in enumerate(traced.cross, start=1)]  # fmt: skip
    return [*views, View("rollout", 0, number, number, traced.rollout()[None])]


def masks(graphs: Sequence[Graph], tokens: Tokens) -> list[tuple[str, int, Tensor]]:
    """Returns (kind, layer, boolean matrix) for the first row: `graph`, the tokens that a token attends to, once for
    each different graph (layer 0: all layers have the same graph); and `reachable`, the tokens whose information can
    have reached a token, for each layer after which it changes, and for the last one."""
    different = dict.fromkeys(graphs)
    matrices = [
        ("graph", 0 if len(different) == 1 else graphs.index(graph) + 1, dense_mask(graph, tokens, tokens)[0])
        for graph in different
    ]
    before = None
    for depth in range(1, len(graphs) + 1):
        matrix = reach(graphs[:depth], tokens)[0]
        if depth == len(graphs) or (before is not None and not torch.equal(matrix, before)):
            matrices.append(("reachable", depth, matrix))
        before = matrix
    return matrices


def first_target(batch: Batch, numbers: Mapping[str, int]) -> tuple[int, int]:
    """Returns the set and the slot at which the first task predicts its first known value; the first slot if there is
    none."""
    for targets in batch.targets.values():
        core = numbers["encoder" if targets.of_encoder else "main"]
        if targets.groups is None and not targets.values.is_floating_point():
            values = targets.values.flatten()
            slots = torch.arange(len(values)) if targets.slots is None else targets.slots
            if len(slots) == len(values) and (values != IGNORED).any():
                return core, int(slots[values != IGNORED][0])
        return core, 0 if targets.slots is None or not len(targets.slots) else int(targets.slots[0])
    return 0, 0


# ----------------------------------------------------------------------------------------------- the trained model


def answer_section(shown: Shown) -> list[str]:
    """Returns the predictions next to the true values, and how many bits each input contributes for this sample."""
    run, trace, split = shown.run, shown.trace, shown.split
    rows = []
    answers = predictions(run, split, shown.index) if isinstance(split, SampleSplit) else {}
    for name, task in shown.tasks.items():
        if name not in trace.batch.targets and name not in answers:
            continue
        true = "" if task.target in shown.generated else true_text(task, shown)
        loss = f"{trace.loss(name, trace.outputs[name]):.3f}" if name in trace.outputs and true else "–"
        predicted = short_text(answers[name]) if name in answers else trace.text_of(name, trace.outputs[name])
        rows.append([escaped(name), f"<b>{escaped(predicted)}</b>", escaped(true) or "–", loss])
    unit = "bits" if all(task.metrics["loss"].in_nats for task in shown.tasks.values()) else "loss"
    parts = [table(["task", "prediction", "true value", unit], rows, numbers=1), contributions(shown)]
    parts += [
        f"<p class=soft>Computed in float32; the largest difference to the outputs of {escaped(name)} in "
        f"{run.precision}: {difference:.2g}.</p>" for name, difference in trace.difference.items()
    ]  # fmt: skip
    return [section("The prediction", *parts, anchor="prediction")]


def predictions(run: Run, split: SampleSplit, index: SampleIndex) -> dict[str, dict[str, Any]]:
    """Returns the answer of each task for one sample, as `chopmix predict` gives it."""
    with run.arithmetic():
        answers = next(stream_predictions(run.model, run.tasks, split, [[index]]))[index.number]
    return {} if "error" in answers else {name: answer for name, answer in answers.items() if "error" not in answer}


def true_text(task: Task, shown: Shown) -> str:
    """Returns the true value of a task in the sample as text; empty if it is unknown or not a text or label."""
    for column in task.needs.columns:
        if (value := shown.labels.get(column)) is not None:
            return str(task.as_answer(value))
    item = shown.inputs.get(task.target)
    return item if isinstance(item, str) else ""


def contributions(shown: Shown) -> str:
    """Returns bars with the number of bits by which each input reduces the loss of this sample."""
    if not isinstance(shown.split, SampleSplit):
        return ""
    split = shown.split.only(shown.index.number)
    try:
        with shown.run.arithmetic():
            attributions = measure_attribution(shown.model, shown.tasks, split, generated=0)
    except ValueError:  # no true value, or no input that can be dropped
        return ""
    colours = {name: COLOURS[colour_of(number)] for number, name in enumerate(shown.model.inputs, start=1)}
    parts = []
    for task, attribution in attributions.items():
        values = {name: attribution.share(name) for name in attribution.inputs}
        of = f" ({task})" if len(attributions) > 1 else ""
        unit = "bits" if attribution.in_bits else "share of the loss"
        answer = "generated answer" if shown.tasks[task].target in shown.generated else "true value"
        parts.append(
            f"<h3>What each input contributes to the prediction of the {answer}{escaped(of)}</h3>"
            + bars(values, unit, colours)
        )
        if attribution.never_dropped:
            names = " and ".join(attribution.never_dropped)
            text = f"Training never dropped {names} (training.input_dropout is 0), so this value is not reliable."
            parts.append(f"<p class=soft>{escaped(text)}</p>")
    return "".join(parts)


def layer_sections(shown: Shown, choice: Choice) -> list[str]:
    """Returns what the heads would predict after each layer, and the effect of inputs of another sample."""
    trace = shown.trace
    tasks = list(trace.batch.targets)
    lens = {name: trace.lens(name) for name in tasks}
    depth = max(map(len, lens.values()), default=0)
    rows = [
        [str(layer), *(cell for name in tasks for cell in layer_cells(trace, name, lens[name], layer))]
        for layer in range(depth)
    ]
    head = ["layers", *(column for name in tasks for column in (name, "bits"))]
    text = "<p>What the output heads of the tasks predict from the vectors after each layer (the logit lens).</p>"
    text += TEACHER_FORCING * any(shown.tasks[name].needs.generates for name in tasks)
    parts = [section("Layer by layer", text, table(head, rows), anchor="layers")]
    if isinstance(shown.split, SampleSplit):
        parts += replaced_section(shown, choice)
    return parts


def layer_cells(trace: Trace, task: str, outputs: Sequence[Tensor], layer: int) -> list[str]:
    """Returns the cells of a task for one layer: the prediction and its loss."""
    if layer >= len(outputs):
        return ["", ""]
    loss = trace.loss(task, outputs[layer])
    return [escaped(trace.text_of(task, outputs[layer])), "–" if loss != loss else f"{loss:.3f}"]


def replaced_section(shown: Shown, choice: Choice) -> list[str]:
    """Returns, for each input, what the model predicts if its tokens have the vectors of another sample's input after
    0, 1, ... layers. Empty if no other sample fits. Raises RunError if the sample that the user has chosen does not
    fit with any input."""
    trace, split = shown.trace, shown.split
    task = choice.task or next(iter(trace.batch.targets))
    targets = {each.target for each in shown.tasks.values()}
    names = [name for planned in trace.batch.sets.values() for name in planned.chunks if name not in targets]
    lines, rows, refused = dict[str, list[float]](), [], []
    for name in names:
        try:
            replacement = other_input(shown, name, task, choice)
        except Unequal as error:
            refused.append(str(error))
            continue
        if replacement is None:
            continue
        other, item, outputs = replacement
        lines[name] = [trace.loss(task, by_task[task]) for by_task in outputs]
        texts = [trace.text_of(task, by_task[task]) for by_task in outputs]
        value = f"{item!r} of " if isinstance(item, str) else ""
        same = " (the same value)" if same_item(item, shown.inputs.get(name)) else ""
        rows.append([escaped(name), escaped(f"{value}{split.samples.keys[other]}{same}"), *map(escaped, texts)])
    if not rows and refused:
        raise RunError(f"--other {choice.other}: {'; '.join(refused)}")
    if not rows:
        return []
    depth = max(map(len, rows)) - 2
    colours = {name: COLOURS[colour_of(number)] for number, name in enumerate(shown.model.inputs, start=1)}
    text = (
        "<p>The tokens of one input get the vectors of the same input of another sample after 0, 1, ... layers. After "
        "0 layers, the complete input is replaced. If a replacement after a layer has no effect, the prediction no "
        "longer depends on these tokens after this layer: other tokens have read them in the layers in which the line "
        "falls.</p>"
    )
    if trace.batch.targets[task].groups is not None:
        text += (
            "<p class=soft>This task averages the tokens of the inputs after the last layer, so that a replacement "
            "always has an effect.</p>"
        )
    text += TEACHER_FORCING * shown.tasks[task].needs.generates
    unit = "bits" if shown.tasks[task].metrics["loss"].in_nats else "loss"
    has_loss = any(value == value for values in lines.values() for value in values)
    shapes = {name: Line(range(len(values)), values) for name, values in lines.items()}
    drawn = (
        chart(shapes, colours, "layers before the replacement", f"{unit} of the true value", True) if has_loss else ""
    )
    cells = table(["input", "replaced by", *(f"after {layer}" for layer in range(depth))], rows)
    remarks = [f"<p class=soft>Not replaced: {escaped(line)}.</p>" for line in refused]
    return [section("An input of another sample", text, drawn, cells, *remarks, anchor="replaced")]


class Unequal(ValueError):
    """The input of the other sample has another number of tokens."""


def other_input(shown: Shown, name: str, task: str, choice: Choice) -> tuple[int, Any, list[dict[str, Tensor]]] | None:
    """Returns (number of the other sample, its item, outputs after each layer): the first sample with an equal number
    of tokens and another value of the input that changes the prediction, or, if none of the first eight does, the first
    one. None: there is none. Raises Unequal if the sample that the user has chosen has another number of tokens."""
    split, trace, first, tried = shown.split, shown.trace, None, 0
    if choice.other is not None:
        candidates = [index_of(split, choice.other).number]
    else:
        start = shown.index.number
        candidates = [(start + step) % len(split) for step in range(1, min(len(split), CANDIDATES))]
    before, own = trace.text_of(task, trace.outputs[task]), shown.inputs.get(name)
    expected = len(trace.cores[trace.core_of(name)].slots(trace.input_number(name)))
    for number in candidates:
        try:
            item = split.item(number)[0].get(name)
            count = 0 if item is None else shown.choppers[name].count(item)
        except (ValueError, OSError):
            continue
        if count != expected:
            if choice.other is not None:
                raise Unequal(f"its {name} has {counted(count, 'token')}, that of this sample {expected:,}")
            continue
        if choice.other is None and same_item(item, own):
            continue
        batch = batch_of(split, shown.index, shown.tasks, task, replaced={name: item})
        try:
            outputs = trace.replaced(traced(shown.model, shown.tasks, batch), name)
        except DataError:
            if choice.other is not None:
                raise
            continue
        first, tried = first or (number, item, outputs), tried + 1
        if trace.text_of(task, outputs[0][task]) != before or tried == 8:
            return number, item, outputs
    return first


def same_item(item: Any, other: Any) -> bool:
    """Returns whether two decoded items of an input are equal."""
    if isinstance(item, Tensor):
        return isinstance(other, Tensor) and torch.equal(item, other)
    values = (vars(each) if is_dataclass(each) else each for each in (item, other))
    first, second = values
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same_item(first[key], second[key]) for key in first)
    return isinstance(item, type(other)) and bool(np.array_equal(item, other))


# ---------------------------------------------------------------------------------------------------------- the sample


def item_parts(shown: Shown) -> list[str]:
    """Returns the texts and labels of the sample, the tokens of each set in order, and the number of tokens of each
    input."""
    parts = [
        f"<p>{escaped(name)}: <b>{escaped(repr(item))}</b></p>"
        for name, item in shown.inputs.items()
        if isinstance(item, str)
    ]
    parts += [f"<p>{escaped(name)}: <b>{escaped(value)}</b></p>" for name, value in shown.labels.items()]
    names = ["(core)", *shown.model.inputs]
    for core, planned in shown.batch.sets.items():
        of = (
            f"The set of the {'encoder' if core == 'encoder' else 'decoder'}"
            if shown.batch.encoder is not None
            else "The set"
        )
        parts.append(f"<h3>{of}</h3>{counts_table(planned.tokens.select(slice(0, 1)), names)}")
    return parts


def counts_table(tokens: Tokens, names: Sequence[str]) -> str:
    """Returns HTML with a table of the number of tokens of each input, and of their share of the set."""
    total, rows = int((tokens.sample != PADDING).sum()), []
    for number, name in enumerate(names):
        count = int(((tokens.input == number) & (tokens.sample != PADDING)).sum())
        if count or number != CORE:
            dot = f"<span class=dot style='--tint:{COLOURS[colour_of(number)]}'></span>"
            rows.append([f"{dot}{escaped(name)}", f"{count:,}", f"{count / max(total, 1):.0%}"])
    return table(["input", "tokens", "share"], rows, numbers=2)


def graph_parts(shown: Shown) -> list[str]:
    """Returns the expression of the attention graph, and for each set how many tokens a token reads and can have heard
    of after each layer."""
    parts = [f"<p><code>{escaped(shown.config.model.options.get('attention', ''))}</code></p>"]
    for core, planned in shown.batch.sets.items():
        of = f"<h3>{'Encoder' if core == 'encoder' else 'Decoder'}</h3>" if shown.batch.encoder is not None else ""
        parts.append(of + reach_table(shown.model.cores[core].graphs, planned.tokens.to("cpu").select(slice(0, 1))))
    return parts


def reach_table(graphs: Sequence[Graph], tokens: Tokens) -> str:
    """Returns HTML with a table by layer: the average number of tokens that a token attends to, and the average and
    largest number of tokens whose information can have reached a token."""
    is_token, rows = tokens.sample[0] != PADDING, []
    for depth, graph in enumerate(graphs, start=1):
        attended = dense_mask(graph, tokens, tokens)[0][is_token].sum(1).float()
        sources = reach(graphs[:depth], tokens)[0][is_token].sum(1).float()
        rows.append([str(depth), f"{attended.mean():.1f}", f"{sources.mean():.1f}", f"{int(sources.max())}"])
    head = ["layer", "attended to, on average", "reachable, on average", "reachable, at most"]
    return table(head, rows, f"Numbers of tokens, of {int(is_token.sum())} in the set", numbers=3)


def cross_parts(batch: Batch) -> list[str]:
    """Returns HTML with a sentence about cross-attention. Returns an empty list if there is no encoder."""
    if batch.encoder is None:
        return []
    count = int((batch.encoder.tokens.sample[0] > 0).sum())
    return [f"<p>In every layer each token of the decoder also attends to all {count} tokens of the encoder.</p>"]


def proof(shown: Shown) -> str:
    """Returns HTML with a sentence that no target can reach the slot that predicts it, found by a search through all
    layers. Empty if the sample has no targets, or if a target can (`warnings_of`)."""
    count = targets_of(shown)
    if not count or any(leaks(shown.batch, *shown.model.graphs).values()):
        return ""
    subject = "The target cannot" if count == 1 else f"None of the {count:,} targets can"
    return f"<p class=good>{subject} influence its own prediction, through all layers.</p>"


def target_table(name: str, shown: Shown) -> str:
    """Returns HTML with the targets of the task `name`: a table of the tokens at which the task predicts, the ids that
    it must predict and, for a trained model, the most likely id; or, if its target is not an input with ids, the
    label."""
    batch, choppers = shown.batch, shown.choppers
    targets, target = batch.targets[name], shown.tasks[name].target
    planned = batch.set_of(targets)
    vocabulary = choppers[target].vocabulary if target in choppers else None
    if vocabulary is None or target not in planned.chunks or targets.values.is_floating_point():
        (label, *_) = planned.labels.get(target) or [None]
        return f"<p>{escaped(name)}: {escaped(label)}</p>"
    ids, context = targets.values.flatten().tolist(), planned.chunks[target].values.flatten().tolist()
    if len(context) == len(ids):
        places = [repr(vocabulary.shown(id)) for id in context]
    else:  # only the masked slots are supervised
        texts, _ = token_texts(
            ShownSet("", planned, {}, [[n] for n in range(planned.tokens.shape[1])]), choppers, shown.model.inputs
        )
        places = [f"slot {slot}, {texts[slot]}" for slot in targets.slots.tolist()]
    rows = [[escaped(place), escaped(repr(vocabulary.shown(id)))] for place, id in zip(places, ids)]
    head = ["token", "target"]
    output = shown.trace.outputs.get(name) if shown.trace else None
    if output is not None and output.dim() == 2 and len(output) == len(ids) and output.shape[1] >= vocabulary.size:
        head += ["most likely", "probability of the target"]
        shares = output[:, : vocabulary.size].float().softmax(-1).cpu()
        for row, best, id, line in zip(rows, shares.argmax(-1).tolist(), ids, shares):
            row += [escaped(repr(vocabulary.shown(best))), f"{line[id]:.3f}" if id != IGNORED else ""]
    rows = [row for row, id in zip(rows, ids) if id != IGNORED]
    more = f"<p>The first {FEW} of {len(rows):,}.</p>" if len(rows) > FEW else ""
    return f"<h3>{escaped(name)}</h3>{table(head, rows[:FEW])}{more}"
