"""What a run learns in its context, as a table and a picture: its error after k examples, beside rivals."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data.datasets.in_context import InContext
from ...data.datasets.rules import COUNTS, Rules
from ...data.samples.functions import Linear, Network, Sparse, Tree
from ...inference.in_time.in_context import Seen, curves, probe, rows_of, seen
from ...tasks.language_modeling import LanguageModeling
from ...tasks.next_item import NextItem
from ...tokenizers.files.writing import write_bytes, write_text
from ..folder.reading import RunError
from ..opening.evaluated import evaluated
from ..opening.given import own_split
from ..run import Run

RIGHT = {
    Linear: ("least squares", "ridge", "nearest neighbours"), Sparse: ("least squares", "ridge", "lasso"),
    Network: ("ridge", "nearest neighbours", "fitted network"), Tree: ("ridge", "nearest neighbours", "greedy tree"),
}  # fmt: skip
"""The rivals that are right for each kind of function; of a kind of your own ridge and nearest neighbours."""
ELSEWHERE = {"points twice as far": {"scale": 2.0}, "values three times as large": {"weights": 3.0}}
"""Other data than was trained on, by its name: what is multiplied, and by how much."""
Curves = dict[str, dict[str, list[float]]]
Probed = Mapping[str, Sequence[float]]
TABLE, PICTURE = "in_context.csv", "in_context.png"


def check_learns(run: Run, samples: int) -> None:
    """Raises RunError for a run that was not trained to learn from examples, and for fewer than four samples."""
    dataset = run.dataset()
    if samples < 4:
        raise RunError(f"at least 4 samples tell what is learned in the context, not {samples}")
    if isinstance(dataset, Rules):
        if not answering(run):
            told = "a task language_modeling of the input 'answer' with metrics: [exact_match] does"
            raise RunError(f"{run.folder} writes no answers that are compared: {told}")
    elif not isinstance(dataset, InContext) or not any(isinstance(task, NextItem) for task in run.tasks.values()):
        raise RunError(f"{run.folder} was not trained to learn from examples (the data sets `in_context` and `rules`)")


def answering(run: Run) -> list[str]:
    """The names of the tasks that write answers and compare them with those of the samples."""
    writes = {name: task for name, task in run.tasks.items() if isinstance(task, LanguageModeling)}
    return [name for name, task in writes.items() if task.target == "answer" and "exact_match" in task.metrics]


def tell(run: Run, folder: Path, samples: int, say: Callable[[str], None]) -> tuple[list[dict[str, Any]], Probed]:
    """Measure on so many samples what the run learns in its context, and write `in_context.csv` and `in_context.png`
    into a folder; gives the rows of the curves, and of linear functions the probe of its layers, which stands below
    them in the CSV. Raises RunError as `check_learns` does."""
    check_learns(run, samples)
    if isinstance(run.dataset(), Rules):
        rows, probed = followed(run, samples, say), {}
        picture = drawn_rules(rows)
    else:
        found, probed = learned(run, samples, say)
        rows, picture = rows_of(found), drawn(found, probed)
    _table(folder, [*rows, *probe_rows(probed)])
    write_bytes(folder / PICTURE, picture, within=folder)
    return rows, probed


def followed(run: Run, samples: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The rows of a table: the share of answers that are right after 0, 1, 2, 4 and 8 examples in the prompt, of rules
    that were trained on, and of held-out ones (val, test)."""
    rows, (name, *_) = [], answering(run)
    for split in Rules.splits:
        for examples in COUNTS:
            other = Rules(examples=examples, samples=samples)
            row = other.open(split)[0]
            tokens = sum(chopper.count(chopper.decode(row[name])) for name, chopper in run.choppers.items())
            if tokens > run.model.context:
                say(f"{split}, {examples} examples are {tokens} tokens, more than the context of {run.model.context}")
                continue
            say(f"{split}, {examples} examples")
            other.held_back = samples
            right = evaluated(run, split, other).whole[name].metrics["exact_match"]
            rows.append({"rules": split, "examples": examples, "exact_match": right})
    return rows


def drawn_rules(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of the share of right answers by the number of examples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.4), layout="constrained")
    canvas = figure.subplots()
    for split in dict.fromkeys(row["rules"] for row in rows):
        own = [row for row in rows if row["rules"] == split]
        canvas.plot([row["examples"] for row in own], [row["exact_match"] for row in own], marker=".", label=split)
    canvas.set(xlabel="examples", ylabel="exact match", ylim=(-0.03, 1.03), xticks=COUNTS)
    canvas.legend(title="rules of")
    return _png(figure)


def learned(run: Run, functions: int, say: Callable[[str], None]) -> tuple[Curves, Probed]:
    """The curves as trained and elsewhere, on so many functions of val, half of which choose the rivals' settings; and,
    of linear functions, how well ridge's weights are read off each layer after twice as many examples as dimensions."""
    dataset = run.dataset()
    name, task = next((name, task) for name, task in run.tasks.items() if isinstance(task, NextItem))
    rivals, found, read = RIGHT.get(type(dataset.kind), ("ridge", "nearest neighbours")), {}, None
    for where, changed in {"as trained": {}, **ELSEWHERE}.items():
        say(where)
        here = _read(run, name, task, dataset, changed, functions)
        read = read or here
        found[where] = curves(here, rivals, functions // 2, lambda rival, where=where: say(f"{where}: {rival}"))
    depth = 2 * dataset.dimension
    told = isinstance(dataset.kind, Linear) and depth < dataset.examples
    return found, probe(read, depth, dataset.noise**2) if told else {}


def _read(
    run: Run, name: str, task: NextItem, dataset: InContext, changed: Mapping[str, float], functions: int
) -> Seen:
    options = {key: getattr(dataset, key) for key in ("dimension", "examples", "noise", "scale", "weights")}
    options |= {key: factor * options[key] for key, factor in changed.items()}
    other = InContext(function=lambda: dataset.kind, samples=functions, **options)
    other.held_back = functions
    return seen(run.model, name, task, own_split(run, "val", other))


def probe_rows(probed: Probed) -> list[dict[str, Any]]:
    """The probe of the layers as rows of a table: R2 by where it was read, and after how many layers."""
    return [
        {"where": f"ridge's weights, read off {where}", "layers": layers, "R2": score}
        for where, scores in probed.items()
        for layers, score in enumerate(scores)
    ]


def probe_lines(probed: Probed) -> list[str]:
    """The same in a sentence for each place."""
    return [
        f"ridge's weights read off each layer at {where}, R2: {', '.join(f'{score:.3f}' for score in scores)}"
        for where, scores in probed.items()
    ]


def _table(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(folder / TABLE, text.getvalue(), within=folder)


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def drawn(found: Curves, probed: Probed) -> bytes:
    """A PNG of the curves, a panel for each of the data they are of, and a panel for the probe."""
    from matplotlib.figure import Figure

    panels = len(found) + bool(probed)
    figure = Figure(figsize=(4.2 * panels, 3.4), layout="constrained")
    every: Sequence[Any] = figure.subplots(1, panels, squeeze=False)[0]
    for canvas, (where, lines) in zip(every, found.items()):
        for name, curve in lines.items():
            canvas.plot(range(len(curve)), curve, marker=".", label=name, linewidth=2.5 if name == "model" else 1)
        least, most = min(map(min, lines.values())), lines["model"][0]
        canvas.set(title=where, xlabel="examples", yscale="log", ylim=(0.7 * least, 3 * most))
    every[0].set_ylabel("mean squared error")
    every[0].legend(fontsize=7)
    if probed:
        for where, scores in probed.items():
            every[-1].plot(range(len(scores)), scores, marker="o", label=where)
        every[-1].legend(title="off", fontsize=7)
        every[-1].set(title="ridge's weights, read off", xlabel="layers", ylabel="R2", ylim=(-0.05, 1.05))
    return _png(figure)
