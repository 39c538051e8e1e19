"""The sections of the page of `chopmix inspect` about a trained model: its predictions, what each input contributes,
the attention by input, the logit lens, and inputs of another sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files.errors import RunError
from ..files.pictures import COLOURS
from ..files.reading import DataError
from ..inference.document import Line, bars, chart, escaped, section, table
from ..inference.evaluators.attribution import measure_attribution
from ..inference.explorer import colour_of, spread_layers
from ..inference.pages import cell_html
from ..inference.shown_answers import answer_cell, short_text
from ..inference.tracing import Trace, batch_of, traced
from ..tasks.base import Task
from .inspected_values import attention_by_input, supervised_slots
from .shown_sample import Choice, Shown, counted, index_of, predictions, true_text, true_value

TEACHER_FORCING = (
    "<p class=soft>Each token is predicted from the tokens of the sample before it. A later token therefore does not "
    "follow from an incorrect earlier one.</p>"
)
"""The HTML of a remark on the predictions of tasks that generate tokens."""
CANDIDATES = 200
"""The number of samples among which the one is searched whose inputs replace those of the shown sample."""
COLUMNS = 8
"""The largest number of layers in the table of attention by input."""


def answer_section(shown: Shown) -> list[str]:
    """Returns the predictions next to the true values, and how many bits each input contributes for this sample."""
    run, trace, split = shown.run, shown.trace, shown.split
    rows = []
    answers = predictions(run, split, shown.index) if split.answerable else {}
    for name, task in shown.tasks.items():
        if name not in trace.batch.targets and name not in answers:
            continue
        true = "" if task.target in shown.generated else true_text(task, shown)
        has_loss = name in trace.outputs and true
        loss = f"{trace.loss(name, trace.outputs[name]):.3f} {loss_unit(task)}" if has_loss else "–"
        predicted = short_text(answers[name]) if name in answers else trace.text_of(name, trace.outputs[name])
        rows.append([escaped(name), f"<b>{escaped(predicted)}</b>", escaped(true) or "–", loss])
    parts = [table(["task", "prediction", "true value", "loss"], rows, numbers=1), contributions(shown)]
    parts += [
        f"<p class=soft>Computed in float32; the largest difference to the outputs of {escaped(name)} in "
        f"{run.precision}: {difference:.2g}.</p>" for name, difference in trace.difference.items()
    ]  # fmt: skip
    curves = [
        answer_cell(name, answers[name], true_value(task, shown))
        for name, task in shown.tasks.items()
        if name in answers
    ]
    drawn = "".join(cell_html(cell) for cell in curves if cell)
    parts.insert(1, f"<div class=samples>{drawn}</div>" if drawn else "")
    return [section("The prediction", *parts, anchor="prediction")]


def loss_unit(task: Task) -> str:
    """Returns the unit of the loss of a sample on a page: bits if the task's loss is in nats, else that of the loss."""
    metric = task.metrics["loss"]
    return "bits" if metric.in_nats else metric.unit


def contributions(shown: Shown) -> str:
    """Returns bars with the number of bits by which each input reduces the loss of this sample."""
    if not shown.split.answerable:
        return ""
    split = shown.split.only(shown.index.number)
    try:
        with shown.run.arithmetic():
            attributions = measure_attribution(shown.trained, split, generated=0)
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


def by_input_section(shown: Shown) -> list[str]:
    """Returns a table with the share of attention that each input gets from the tokens at which the tasks predict, in
    each layer (mean over heads) and in the rollout. Empty if the main set has one input, or no task predicts there."""
    layers = [layer for layer, weights in enumerate(shown.trace.cores["main"].attention, start=1) if len(weights)]
    chosen = [layers[number - 1] for number in spread_layers(len(layers), min(len(layers), COLUMNS))] if layers else []
    rows, names = [], ["(core)", *shown.model.inputs]
    for number, shares in zip(*attention_by_input(shown.trace, chosen)):
        dot = f"<span class=dot style='--tint:{COLOURS[colour_of(number)]}'></span>"
        rows.append([f"{dot}{escaped(names[number])}", *(f"{share:.1%}" for share in shares.tolist())])
    text = "<p>The share of attention that each input gets from the tokens at which the tasks predict.</p>"
    head = ["input", *(f"layer {layer}" for layer in chosen), "rollout"]
    return [section("Attention by input", text, table(head, rows, numbers=len(head) - 1), anchor="inputs")] * bool(rows)


def slots_of(trace: Trace, task: str, name: str) -> list[int]:
    """Returns the slots of the input `name` in the set (encoder or main) in which the task predicts. Returns an empty
    list if the input is in the other set."""
    core = "encoder" if trace.batch.targets[task].of_encoder else "main"
    return trace.cores[core].slots(trace.input_number(name)).tolist() if trace.core_of(name) == core else []


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
    head = ["layers", *(column for name in tasks for column in (name, loss_unit(shown.tasks[name])))]
    text = "<p>What the output heads of the tasks predict from the vectors after each layer (the logit lens).</p>"
    text += TEACHER_FORCING * any(shown.tasks[name].needs.generates for name in tasks)
    parts = [section("Layer by layer", text, table(head, rows), anchor="layers")]
    if shown.split.answerable:
        parts += replaced_section(shown, choice)
    return parts


def layer_cells(trace: Trace, task: str, outputs: Sequence[Tensor], layer: int) -> list[str]:
    """Returns the cells of a task for one layer: the prediction and its loss."""
    if layer >= len(outputs):
        return ["", ""]
    loss = trace.loss(task, outputs[layer])
    return [escaped(trace.text_of(task, outputs[layer])), "–" if loss != loss else f"{loss:.3f}"]


@dataclass(frozen=True)
class Replaced:
    """What a model predicts if the tokens of one input have the vectors of another sample's input."""

    name: str
    source: str
    """The key of the other sample, and its item if it is a text."""
    texts: Sequence[str]
    """The prediction after a replacement after 0, 1, ... layers."""
    losses: Sequence[float]


def replacements(shown: Shown, choice: Choice, task: str) -> tuple[list[Replaced], list[str]]:
    """Returns (the replacement of each input, the reasons why other inputs cannot be replaced). Inputs that a task
    predicts are not replaced."""
    trace, split = shown.trace, shown.split
    targets = {each.target for each in shown.tasks.values()}
    replaced, refused = [], []
    for name in [name for planned in trace.batch.sets.values() for name in planned.chunks if name not in targets]:
        try:
            replacement = other_input(shown, name, task, choice)
        except Unequal as error:
            refused.append(str(error))
            continue
        if replacement is None:
            continue
        other, item, outputs = replacement
        value = f"{item!r} of " if isinstance(item, str) else ""
        same = " (the same value)" if same_item(item, shown.inputs.get(name)) else ""
        texts = [trace.text_of(task, by_task[task]) for by_task in outputs]
        losses = [trace.loss(task, by_task[task]) for by_task in outputs]
        replaced.append(Replaced(name, f"{value}{split.keys[other]}{same}", texts, losses))
    return replaced, refused


REPLACING = (
    "<p>The vectors of one input are replaced by the vectors of the same input in another sample, after the given "
    "number of layers. After 0 layers, the complete input is replaced. If a replacement after a layer has no effect, "
    "the prediction does not depend on the tokens of this input after this layer: other tokens have read them "
    "before.</p>"
)
USED_AT_THE_END = (
    "<p class=soft>The prediction also uses the vectors of these tokens after the last layer, so that each replacement "
    "can have an effect.</p>"
)
"""The HTML of the explanations of `replaced_section`."""


def replaced_section(shown: Shown, choice: Choice) -> list[str]:
    """Returns, for each input, what the model predicts if its tokens have the vectors of another sample's input after
    0, 1, ... layers. Empty if no other sample fits. Raises RunError if the sample that the user has chosen does not
    fit with any input."""
    trace = shown.trace
    task = choice.task or next(iter(trace.batch.targets))
    replaced, refused = replacements(shown, choice, task)
    if not replaced and refused:
        raise RunError(f"--other {choice.other}: {'; '.join(refused)}")
    if not replaced:
        return []
    slots = {slot for each in replaced for slot in slots_of(trace, task, each.name)}
    text = REPLACING + USED_AT_THE_END * bool(set(supervised_slots(trace.batch, task)) & slots)
    text += TEACHER_FORCING * shown.tasks[task].needs.generates
    rows = [[*map(escaped, (each.name, each.source, *each.texts))] for each in replaced]
    depth = max(len(each.texts) for each in replaced)
    cells = table(["input", "replaced by", *(f"after {layer}" for layer in range(depth))], rows)
    remarks = [f"<p class=soft>Not replaced: {escaped(line)}.</p>" for line in refused]
    drawn = chart_of_losses(shown, replaced, loss_unit(shown.tasks[task]))
    return [section("An input of another sample", text, drawn, cells, *remarks, anchor="replaced")]


def chart_of_losses(shown: Shown, replaced: Sequence[Replaced], unit: str) -> str:
    """Returns a chart with the loss of the true value by the layer of the replacement; empty if it is unknown."""
    colours = {name: COLOURS[colour_of(number)] for number, name in enumerate(shown.model.inputs, start=1)}
    lines = {each.name: Line(range(len(each.losses)), each.losses) for each in replaced}
    if not any(loss == loss for each in replaced for loss in each.losses):
        return ""
    return chart(lines, colours, "layers before the replacement", f"loss of the true value ({unit})", True)


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
                raise Unequal(f"its input {name!r} has {counted(count, 'token')}, that of this sample has {expected:,}")
            continue
        if choice.other is None and same_item(item, own):
            continue
        batch = batch_of(split, shown.index, shown.tasks, task, replaced={name: item})
        try:
            outputs = trace.replaced(traced(shown.trained, batch), name)
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
