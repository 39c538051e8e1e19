"""The results of learning in context as a table (CSV) and a picture (PNG): the error after k examples, compared with
baselines, or the accuracy after k examples."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np

from ...data.base import Dataset
from ...data.generated import MadeDataset
from ...data.samples import Chosen
from ...experiment.own_data import Whole
from ...files.errors import RunError
from ...files.pictures import picture
from ...files.writing import write_bytes, write_text
from ...inference.evaluation import measured
from ...inference.evaluator import TrainedRun
from ...models.arithmetic import finite
from .datasets.in_context import InContext
from .datasets.rules import COUNTS, Rules
from .scoring import (
    ERROR,
    Errors,
    ModelOutputs,
    Scores,
    error_rows,
    errors_by_name,
    model_outputs,
    probe,
    with_error,
)

SHIFTS = {"points twice as far": {"scale": 2.0}, "values three times as large": {"weights": 3.0}}
"""Data outside the training distribution, by name: the option of the data set `in_context` that is multiplied, and the
factor."""
FITTED, SCORED = 4000, 1000
"""FITTED: the number of functions to which the probe of the layers is fitted. SCORED: the number of functions on which
the probe is scored."""
SAMPLES_PER_SEED, SEEDS = 1_000_000, 1000
"""Each training seed has its own block of SAMPLES_PER_SEED samples for evaluation. Two seeds that differ by a multiple
of SEEDS have the same block, because sample numbers have only 32 bits."""
TABLE, PICTURE = "in_context.csv", "in_context.png"


def check_learns(run: TrainedRun, samples: int) -> None:
    """Raises RunError if the run was not trained to learn from examples, or if `samples` is not from 4 to 1,000,000."""
    if not 4 <= samples <= SAMPLES_PER_SEED:
        raise RunError(f"the number of samples must be from 4 to {SAMPLES_PER_SEED:,}, not {samples:,}")
    check_data(run.dataset(), run)


def measure_and_write(
    run: TrainedRun, folder: Path, samples: int, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], Scores]:  # fmt: skip
    """Measures what the run learns in its context on `samples` samples, and writes `in_context.csv` and
    `in_context.png` into `folder`. Returns the rows of the table and the scores of the probe of the layers. The scores
    are empty unless the functions are linear; they are also the last rows of the CSV. Raises RunError in the cases of
    `check_learns`."""
    check_learns(run, samples)
    rows, probed, picture = curves_of(run.dataset(), run, samples, say)
    write_text(folder / TABLE, table_text([*rows, *probe_rows(probed)]), within=run.folder)
    write_bytes(folder / PICTURE, picture, within=run.folder)
    return rows, probed


@singledispatch
def check_data(dataset: Dataset, run: TrainedRun) -> None:
    """Raises RunError if the run was not trained to learn from examples. A run on `in_context` needs a task that
    predicts at another input (`next_item`); a run on `rules` needs a task of `answer_tasks`."""
    raise RunError(f"{run.folder} was not trained to learn from examples (data set in_context or rules)")


@check_data.register
def _(dataset: InContext, run: TrainedRun) -> None:
    if not any(task.needs.supervised_at for task in run.tasks.values()):
        raise RunError(f"{run.folder} was not trained to learn from examples (data set in_context or rules)")


@check_data.register
def _(dataset: Rules, run: TrainedRun) -> None:
    if not answer_tasks(run):
        needed = "a task language_modeling with target 'answer' and metrics: [exact_match]"
        raise RunError(f"{run.folder} does not generate answers that can be scored; it needs {needed}")


@singledispatch
def curves_of(
    dataset: Dataset, run: TrainedRun, samples: int, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], Scores, bytes]:  # fmt: skip
    """Returns the rows of the table, the scores of the probe of the layers (empty for rules and for functions that are
    not linear), and the picture (content of a PNG file)."""
    raise NotImplementedError


@curves_of.register
def _(dataset: InContext, run, samples, say):
    errors, probed = learned(run, samples, say)
    return error_rows(errors), probed, plot_functions(errors, probed)


@curves_of.register
def _(dataset: Rules, run, samples, say):
    rows = followed(run, samples, say)
    return rows, {}, plot_rules(rows)


def answer_tasks(run: TrainedRun) -> list[str]:
    """Returns the names of the tasks that generate the input `answer` and have the metric `exact_match`."""
    generating = {name: task for name, task in run.tasks.items() if task.needs.generates}
    return [name for name, task in generating.items() if task.target == "answer" and "exact_match" in task.metrics]


def new_samples(run: TrainedRun, dataset: MadeDataset, split: str, count: int, first: int = 0) -> Whole:
    """Returns a data set of `count` samples of a split that the run has never used. The sample numbers follow those of
    the training and validation samples, in the block of the run's seed; the first `first` numbers of the block are
    skipped."""
    start = max(dataset.samples, dataset.held_back) + SAMPLES_PER_SEED * (run.seed % SEEDS) + first
    return Whole(Chosen(dataset.make(split, start + count), range(start, start + count)), dataset.columns)


def followed(run: TrainedRun, samples: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Returns rows with the accuracy of answers after 0, 1, 2, 4 and 8 examples in the prompt, for rules of each split
    (train, val, test). Numbers of examples that do not fit into the context are left out."""
    rows, (name, *_) = [], answer_tasks(run)
    for split in Rules.splits:
        for examples in COUNTS:
            data = new_samples(run, Rules(examples=examples, samples=run.dataset().samples), split, samples)
            row = data.open(split)[0]
            tokens = sum(chopper.count(chopper.decode(row[name])) for name, chopper in run.choppers.items())
            if tokens > run.model.context:
                say(f"{split}, {examples} examples: {tokens} tokens do not fit into the context of {run.model.context}")
                continue
            say(f"{split}, {examples} examples")
            with run.arithmetic():
                evaluation = measured(run, run.open(split, data))
            accuracy = evaluation.whole[name].metrics["exact_match"]
            error = (accuracy * (1 - accuracy) / samples) ** 0.5
            row = {"rules": split, "examples": examples, "answers": samples}
            rows.append(row | {"exact_match": accuracy, "exact_match" + ERROR: error})
    return rows


def plot_rules(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Returns the content of a PNG file that shows the accuracy by the number of examples, with standard errors."""

    def draw(figure: Any) -> None:
        canvas = figure.subplots()
        for split in dict.fromkeys(row["rules"] for row in rows):
            points = [row for row in rows if row["rules"] == split]
            accuracies, errors = ([row["exact_match" + end] for row in points] for end in ("", ERROR))
            canvas.errorbar([row["examples"] for row in points], accuracies, errors, marker=".", label=split, capsize=2)
        canvas.set(xlabel="examples", ylabel="exact match", ylim=(-0.03, 1.03), xticks=COUNTS)
        canvas.legend(title="rules of")

    return picture(draw, (4.2, 3.4))


def learned(run: TrainedRun, functions: int, say: Callable[[str], None]) -> tuple[dict[str, Errors], Scores]:
    """Returns the errors by data distribution (as trained, and shifted), and the scores of the probe. Of `functions`
    functions, the first half selects the settings of the baselines. The scores are measured after 2 * dimension
    examples. They are empty if the functions are not linear or if the samples have no more examples than that. Raises
    ValueError if the errors of the model are NaN or infinite."""
    dataset = run.dataset()
    names, errors = dataset.kind.baselines, {}
    for data, factors in {"as trained": {}, **SHIFTS}.items():
        say(data)
        outputs = _outputs(run, dataset, factors, functions)
        errors[data] = errors_by_name(outputs, names, functions // 2, lambda name, data=data: say(f"{data}: {name}"))
        finite(errors[data]["model"])
    depth = 2 * dataset.dimension
    if not dataset.kind.is_linear or depth >= dataset.examples:
        return errors, {}
    say("probe of the layers")
    outputs = _outputs(run, dataset, {}, FITTED + SCORED, functions, depth)
    return errors, probe(outputs, dataset.noise**2, FITTED)


def _outputs(
    run: TrainedRun, dataset: InContext, factors: Mapping[str, float], count: int, first: int = 0, depth: int = 0
) -> ModelOutputs:
    """Returns the outputs of the model for `count` functions of val, which are the samples from the number `first` on
    in the block of the run. `factors` contains factors of options of the data set, by option."""
    name, task = next((name, task) for name, task in run.tasks.items() if task.needs.supervised_at)
    options = {key: getattr(dataset, key) for key in ("dimension", "examples", "noise", "scale", "weights", "samples")}
    options |= {key: factor * options[key] for key, factor in factors.items()}
    changed = InContext(function=lambda: dataset.kind, **options)
    return model_outputs(run.model, name, task, run.open("val", new_samples(run, changed, "val", count, first)), depth)


def curve_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns two lines with mean squared errors on the training distribution: after half of the examples, and after
    all examples except the last one. A line contains the errors of the model and of each baseline, and the difference
    model minus baseline on the same functions, with standard errors. Returns no lines for the data set `rules`."""
    trained = [row for row in rows if row.get("where") == "as trained"]
    lines = []
    for row in [trained[len(trained) // 2], trained[-1]] if trained else ():
        values = {name: f"{row[name]:.4g} ± {row[name + ERROR]:.2g}" for name in row if name + ERROR in row}
        baselines = [name for name in values if f"model - {name}" in values]
        others = "; ".join(f"{name} {values[name]}, model - {name} {values[f'model - {name}']}" for name in baselines)
        title = f"squared error after {row['examples']} examples ({row['functions']:,} functions)"
        lines.append(f"{title}: model {values['model']}; {others}")
    return lines


def probe_rows(probed: Scores) -> list[dict[str, Any]]:
    """Returns the scores of the probe as rows of a table, with R2 by the position of the vectors and the number of
    layers."""
    return [
        {"where": f"ridge's weights, read off {where}", "layers": layers, "R2": score, "R2" + ERROR: error}
        for where, scores in probed.items()
        for layers, (score, error) in enumerate(scores)
    ]


def probe_lines(probed: Scores) -> list[str]:
    """Returns the scores of the probe as text, one line per position of the vectors."""
    counts = f"linear map fitted to {FITTED:,} functions, scored on {SCORED:,}"
    return [
        f"R2 of ridge's weights predicted from each layer at {where} ({counts}): "
        + ", ".join(f"{score:.3f} ± {error:.2g}" for score, error in scores)
        for where, scores in probed.items()
    ]


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as the content of a CSV file. Columns are the keys of all rows."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def plot_functions(errors_by_data: Mapping[str, Errors], probed: Scores) -> bytes:
    """Returns the content of a PNG file with one panel per data distribution, and one panel for the probe if there are
    scores. The bands show one standard error."""
    panels = len(errors_by_data) + bool(probed)

    def draw(figure: Any) -> None:
        axes: Sequence[Any] = figure.subplots(1, panels, squeeze=False)[0]
        for canvas, (where, errors) in zip(axes, errors_by_data.items()):
            means = {}
            for name, squares in errors.items():
                mean, error = np.transpose([with_error(column) for column in squares.unbind(1)])
                steps, means[name] = range(len(mean)), mean
                (line,) = canvas.plot(steps, mean, marker=".", label=name, linewidth=2.5 if name == "model" else 1)
                low = np.maximum(mean - error, mean / 10)  # the axis is logarithmic
                canvas.fill_between(steps, low, mean + error, color=line.get_color(), alpha=0.2, linewidth=0)
            least, most = min(map(min, means.values())), means["model"][0]
            canvas.set(title=where, xlabel="examples", yscale="log", ylim=(0.7 * least, 3 * most))
        axes[0].set_ylabel("mean squared error ± 1 standard error")
        axes[0].legend(fontsize=7)
        if probed:
            for where, scores in probed.items():
                values, errors = np.transpose(scores)
                axes[-1].errorbar(range(len(values)), values, errors, marker="o", label=where, capsize=2)
            axes[-1].legend(title="predicted from", fontsize=7)
            axes[-1].set(title="probe of ridge's weights", xlabel="layers", ylabel="R2", ylim=(-0.05, 1.05))

    return picture(draw, (4.2 * panels, 3.4))
