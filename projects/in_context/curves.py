"""What a run learns in its context, as a table and a picture: its error after k examples, compared with rivals."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np

from ...data.base import Dataset
from ...data.samples import Chosen, MadeDataset
from ...experiment.own_data import Whole
from ...experiment.run_folder import RunError
from ...files.writing import write_bytes, write_text
from ...inference.evaluation import measured
from ...inference.evaluator import TrainedModel
from .datasets.in_context import InContext
from .datasets.rules import COUNTS, Rules
from .functions import Linear, Network, Sparse, Tree
from .scoring import (
    ERROR,
    Errors,
    Scores,
    Seen,
    errors_by_name,
    probe,
    rows_of,
    seen,
    with_error,
)

RIGHT = {
    Linear: ("least squares", "ridge", "nearest neighbours"), Sparse: ("least squares", "ridge", "lasso"),
    Network: ("ridge", "nearest neighbours", "network kernel"), Tree: ("ridge", "nearest neighbours", "greedy tree"),
}  # fmt: skip
"""The rivals that are right for each kind of function; of a kind of your own ridge and nearest neighbours."""
ELSEWHERE = {"points twice as far": {"scale": 2.0}, "values three times as large": {"weights": 3.0}}
"""Other data than was trained on, by its name: what is multiplied, and by how much."""
FITTED, SCORED = 4000, 1000
"""The functions to which the probe of the layers is fitted, and those on which it is scored."""
APART, SEEDS = 1_000_000, 1000
"""The samples on which runs with one seed are judged, those of the next seed begin behind them; and after how many
seeds they begin again: numbers of samples have 32 bits."""
TABLE, PICTURE = "in_context.csv", "in_context.png"


def check_learns(run: TrainedModel, samples: int) -> None:
    """Raises ValueError for a run that was not trained to learn from examples, and for fewer than four samples or more
    than one seed has."""
    if not 4 <= samples <= APART:
        raise RunError(f"from 4 to {APART:,} samples tell what is learned in the context, not {samples:,}")
    check_data(run.dataset(), run)


def tell(
    run: TrainedModel, folder: Path, samples: int, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], Scores]:  # fmt: skip
    """Measure on so many samples what the run learns in its context, and write `in_context.csv` and `in_context.png`
    into a folder. Gives the rows of the curves and, for linear functions, the scores of the probe of the layers, which
    are also the last rows of the CSV. Raises RunError as `check_learns` does."""
    check_learns(run, samples)
    rows, probed, picture = curves_of(run.dataset(), run, samples, say)
    write_text(folder / TABLE, table_text([*rows, *probe_rows(probed)]), within=run.folder)
    write_bytes(folder / PICTURE, picture, within=run.folder)
    return rows, probed


@singledispatch
def check_data(dataset: Dataset, run: TrainedModel) -> None:
    """Raises RunError if a run that was trained on this data set cannot learn from examples."""
    raise RunError(f"{run.folder} was not trained to learn from examples (the data sets `in_context` and `rules`)")


@check_data.register
def _(dataset: InContext, run: TrainedModel) -> None:
    if not any(task.needs.supervised_at for task in run.tasks.values()):
        raise RunError(f"{run.folder} was not trained to learn from examples (the data sets `in_context` and `rules`)")


@check_data.register
def _(dataset: Rules, run: TrainedModel) -> None:
    if not answering(run):
        told = "a task language_modeling of the input 'answer' with metrics: [exact_match] does"
        raise RunError(f"{run.folder} writes no answers that are compared: {told}")


@singledispatch
def curves_of(
    dataset: Dataset, run: TrainedModel, samples: int, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], Scores, bytes]:  # fmt: skip
    """The rows of the table, the scores of the probe of the layers, and the picture (PNG)."""
    raise NotImplementedError


@curves_of.register
def _(dataset: InContext, run, samples, say):
    errors, probed = learned(run, samples, say)
    return rows_of(errors), probed, drawn(errors, probed)


@curves_of.register
def _(dataset: Rules, run, samples, say):
    rows = followed(run, samples, say)
    return rows, {}, drawn_rules(rows)


def answering(run: TrainedModel) -> list[str]:
    """The names of the tasks that write answers and compare them with those of the samples."""
    writes = {name: task for name, task in run.tasks.items() if task.needs.generates}
    return [name for name, task in writes.items() if task.target == "answer" and "exact_match" in task.metrics]


def judged_by(run: TrainedModel, dataset: MadeDataset, split: str, count: int, first: int = 0) -> Whole:
    """So many samples of a split, from the number `first` on, that the run has never read: they are behind those that
    train and validate, and runs of different seeds get different ones."""
    start = max(dataset.samples, dataset.held_back) + APART * (run.seed % SEEDS) + first
    return Whole(Chosen(dataset.make(split, start + count), range(start, start + count)), dataset.columns)


def followed(run: TrainedModel, samples: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The rows of a table: the share of answers that are right after 0, 1, 2, 4 and 8 examples in the prompt, of rules
    that were trained on, and of held-out ones (val, test)."""
    rows, (name, *_) = [], answering(run)
    for split in Rules.splits:
        for examples in COUNTS:
            data = judged_by(run, Rules(examples=examples, samples=run.dataset().samples), split, samples)
            row = data.open(split)[0]
            tokens = sum(chopper.count(chopper.decode(row[name])) for name, chopper in run.choppers.items())
            if tokens > run.model.context:
                say(f"{split}, {examples} examples are {tokens} tokens, more than the context of {run.model.context}")
                continue
            say(f"{split}, {examples} examples")
            with run.arithmetic():
                found = measured(run.model, run.tasks, run.open(split, data))
            right = found.whole[name].metrics["exact_match"]
            error = (right * (1 - right) / samples) ** 0.5
            row = {"rules": split, "examples": examples, "answers": samples}
            rows.append(row | {"exact_match": right, "exact_match" + ERROR: error})
    return rows


def drawn_rules(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of the share of right answers by the number of examples, with standard errors."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.4), layout="constrained")
    canvas = figure.subplots()
    for split in dict.fromkeys(row["rules"] for row in rows):
        own = [row for row in rows if row["rules"] == split]
        shares, errors = ([row["exact_match" + end] for row in own] for end in ("", ERROR))
        canvas.errorbar([row["examples"] for row in own], shares, errors, marker=".", label=split, capsize=2)
    canvas.set(xlabel="examples", ylabel="exact match", ylim=(-0.03, 1.03), xticks=COUNTS)
    canvas.legend(title="rules of")
    return _png(figure)


def learned(run: TrainedModel, functions: int, say: Callable[[str], None]) -> tuple[dict[str, Errors], Scores]:
    """The errors as trained and elsewhere, on so many functions, half of which choose the rivals' settings; and, of
    linear functions, how well ridge's weights are read off each layer after twice as many examples as dimensions."""
    dataset = run.dataset()
    rivals, errors = RIGHT.get(type(dataset.kind), ("ridge", "nearest neighbours")), {}
    for where, changed in {"as trained": {}, **ELSEWHERE}.items():
        say(where)
        here = _read(run, dataset, changed, functions)
        errors[where] = errors_by_name(here, rivals, functions // 2, lambda name, where=where: say(f"{where}: {name}"))
    depth = 2 * dataset.dimension
    if not isinstance(dataset.kind, Linear) or depth >= dataset.examples:
        return errors, {}
    say("probe of the layers")
    read = _read(run, dataset, {}, FITTED + SCORED, functions, depth)
    return errors, probe(read, dataset.noise**2, FITTED)


def _read(
    run: TrainedModel, dataset: InContext, changed: Mapping[str, float], count: int, first: int = 0, depth: int = 0
) -> Seen:
    """What the model makes of so many functions of val, from the number `first` on."""
    name, task = next((name, task) for name, task in run.tasks.items() if task.needs.supervised_at)
    options = {key: getattr(dataset, key) for key in ("dimension", "examples", "noise", "scale", "weights", "samples")}
    options |= {key: factor * options[key] for key, factor in changed.items()}
    other = InContext(function=lambda: dataset.kind, **options)
    return seen(run.model, name, task, run.open("val", judged_by(run, other, "val", count, first)), depth)


def curve_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences about the errors as trained, after half of the examples and after all: of the model, of each rival, and
    the paired difference between the two."""
    own = [row for row in rows if row.get("where") == "as trained"]
    lines = []
    for row in [own[len(own) // 2], own[-1]] if own else ():
        figures = {name: f"{row[name]:.4g} ± {row[name + ERROR]:.2g}" for name in row if name + ERROR in row}
        rivals = [name for name in figures if f"model - {name}" in figures]
        others = "; ".join(f"{name} {figures[name]}, model - {name} {figures[f'model - {name}']}" for name in rivals)
        after = f"squared error after {row['examples']} examples, of {row['functions']:,} functions"
        lines.append(f"{after}: model {figures['model']}; {others}")
    return lines


def probe_rows(probed: Scores) -> list[dict[str, Any]]:
    """The probe of the layers as rows of a table: R2 by where it was read, and after how many layers."""
    return [
        {"where": f"ridge's weights, read off {where}", "layers": layers, "R2": score, "R2" + ERROR: error}
        for where, scores in probed.items()
        for layers, (score, error) in enumerate(scores)
    ]


def probe_lines(probed: Scores) -> list[str]:
    """The same in a sentence for each place."""
    told = f"R2 on {SCORED:,} functions, of a map fitted to {FITTED:,} others"
    return [
        f"ridge's weights read off each layer at {where}, {told}: "
        + ", ".join(f"{score:.3f} ± {error:.2g}" for score, error in scores)
        for where, scores in probed.items()
    ]


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The content of a CSV of these rows."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def drawn(found: Mapping[str, Errors], probed: Scores) -> bytes:
    """A PNG of the curves with bands of one standard error, a panel for each of the data they are of, and a panel for
    the probe."""
    from matplotlib.figure import Figure

    panels = len(found) + bool(probed)
    figure = Figure(figsize=(4.2 * panels, 3.4), layout="constrained")
    every: Sequence[Any] = figure.subplots(1, panels, squeeze=False)[0]
    for canvas, (where, errors) in zip(every, found.items()):
        means = {}
        for name, each in errors.items():
            mean, error = np.transpose([with_error(column) for column in each.unbind(1)])
            steps, means[name] = range(len(mean)), mean
            (line,) = canvas.plot(steps, mean, marker=".", label=name, linewidth=2.5 if name == "model" else 1)
            low = np.maximum(mean - error, mean / 10)  # the axis is logarithmic
            canvas.fill_between(steps, low, mean + error, color=line.get_color(), alpha=0.2, linewidth=0)
        least, most = min(map(min, means.values())), means["model"][0]
        canvas.set(title=where, xlabel="examples", yscale="log", ylim=(0.7 * least, 3 * most))
    every[0].set_ylabel("mean squared error ± 1 standard error")
    every[0].legend(fontsize=7)
    if probed:
        for where, scores in probed.items():
            values, errors = np.transpose(scores)
            every[-1].errorbar(range(len(values)), values, errors, marker="o", label=where, capsize=2)
        every[-1].legend(title="off", fontsize=7)
        every[-1].set(title="ridge's weights, read off", xlabel="layers", ylabel="R2", ylim=(-0.05, 1.05))
    return _png(figure)
