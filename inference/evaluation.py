"""Evaluation: a whole split, everything judged once, the same figures for any number of processes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..data.corpus.split import StreamSplit
from ..data.processes import Processes
from ..data.sampler import Place
from ..data.samples.split import SampleSplit
from ..data.split import Split
from ..models.batch import SetPlan
from ..models.generation.answer import Answer
from ..models.generation.beam_search import Search, beam_search
from ..models.generation.continuation import generate
from ..models.generation.fast_decoder import computing_type
from ..models.generation.sampling import Sampling
from ..models.model import Model
from ..tasks.base import Task
from ..tasks.language_modeling import LanguageModeling
from ..tasks.metrics import METRICS
from ..tokenizers.files.printing import printable
from ..tokenizers.files.reading import DataError

Sums = dict[str, dict[str, Tensor]]


def evaluate_split(
    model: Model, tasks: Mapping[str, Task], split: Split, *, rows: int = 64, processes: Processes | None = None,
    inputs: Collection[str] | None = None, generated: int | None = None, pictures: Path | None = None,
) -> dict[str, float]:  # fmt: skip
    """The metrics of a split, named `split/metric`; when there are several tasks, `split/task/metric`, and the sum of their
    losses by their weights, `split/loss`.

    Each process reads its share and the sums are added up. `inputs` leaves only these in the samples (and what is to be
    predicted). Tasks that judge generated texts do so on `generated` samples, spread over the split (None: on all), and `judged`
    tells how many they were.
    `pictures` is a folder for what one would rather look at: `confusion-<split>-<task>.png`.
    """
    return measured(
        model, tasks, split, rows=rows, processes=processes, inputs=inputs, generated=generated, pictures=pictures
    )[0]


@torch.inference_mode()
def measured(
    model: Model, tasks: Mapping[str, Task], split: Split, *, rows: int = 64, processes: Processes | None = None,
    inputs: Collection[str] | None = None, generated: int | None = None, pictures: Path | None = None,
) -> tuple[dict[str, float], Sums]:  # fmt: skip
    """The metrics as `evaluate_split` gives them, and every task's sums over the whole split that they were made of."""
    device = next(model.parameters()).device
    processes = processes or Processes(0, 1, device)
    training = model.training
    model.eval()
    sums, pairs, error = {}, {}, None
    try:
        sums, pairs = summed(model, tasks, split, processes.share(split.all()), rows, inputs)
        for name, task in tasks.items():
            if task.generates and task.metrics and isinstance(split, SampleSplit) and generated != 0:
                places = processes.share(split.all() if generated is None else split.first(generated))
                pairs[name] = written_pairs(model, name, task, split, places, inputs, rows)
    except ValueError as wrong:  # a bad sample stops all processes, not only the one that met it
        error = wrong
    finally:
        model.train(training)
    processes.agree([], error)
    metrics, totals = {}, {}
    for name, task in tasks.items():
        total = {key: processes.sum(value.to("cpu", torch.float64)) for key, value in sorted(sums[name].items())}
        totals[name] = total
        if isinstance(split, StreamSplit):
            total["bytes"] = torch.tensor(split.bytes)
        if pictures is not None and "confusion" in total:
            draw_confusion(total["confusion"], task.classes, pictures / f"confusion-{split.name}-{name}.png")
        prefix = f"{split.name}/" if len(tasks) == 1 else f"{split.name}/{name}/"
        metrics |= {prefix + key: value for key, value in task.summary(total).items()}
        if len(tasks) > 1:
            objective = f"{split.name}/loss"
            metrics[objective] = metrics.get(objective, 0.0) + task.weight * metrics[f"{prefix}loss"]
        if name in pairs:
            judged = processes.gathered(pairs[name])
            if not judged:
                raise DataError(
                    f"split {split.name!r} has no text of {task.target!r} by which task {name!r} could be judged"
                )
            said, true = zip(*judged, strict=True)
            metrics |= {prefix + metric: METRICS[metric](said, true) for metric in task.metrics}
            metrics[f"{prefix}judged"] = len(judged)
    return metrics, totals


def directions(tasks: Mapping[str, Task], split: str) -> dict[str, bool]:
    """The name of every metric of a split, and whether larger values of it are better."""
    found = {f"{split}/loss": False} if len(tasks) > 1 else {}
    for name, task in tasks.items():
        prefix = f"{split}/{name}/" if len(tasks) > 1 else f"{split}/"
        found |= {prefix + metric: meaning.larger_is_better for metric, meaning in task.measures.items()}
    return found


WRITTEN, NAMED = 40, 100
"""So many classes have their counts and names written into a confusion matrix; a larger one is a picture of the same size."""


def draw_confusion(counts: Tensor, classes: Sequence, file: Path) -> None:
    """A confusion matrix as a picture: rows are what is true, columns what was said, shares of each row in colour."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    n = len(classes)
    matrix = counts.reshape(n, n).cpu()
    shares = matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    with rc_context({"text.parse_math": False}):  # a name may have a $ in it
        figure = Figure(figsize=(1.5 + 0.45 * min(n, NAMED),) * 2, layout="constrained")
        canvas = figure.subplots()
        canvas.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        canvas.set(xlabel="said", ylabel="true")
        for row, column in matrix.nonzero().tolist() if n <= WRITTEN else ():
            dark = shares[row, column] > 0.5
            canvas.text(
                column, row, int(matrix[row, column]), ha="center", va="center", color="white" if dark else "black"
            )
        if n <= NAMED:
            names = [printable(str(name)) for name in classes]
            canvas.set(xticks=range(n), yticks=range(n))
            canvas.set_xticklabels(names, rotation=90)
            canvas.set_yticklabels(names)
        figure.savefig(file, dpi=110)


def summed(
    model: Model, tasks: Mapping[str, Task], split: Split, places: Sequence, rows: int, inputs
) -> tuple[Sums, dict[str, list[tuple[str, str]]]]:  # fmt: skip
    """Every task's sums over these places: `loss`, `count`, and what the task itself measures; and of tasks that read a text
    off the model's output (CTC), what it says beside what is true."""
    device, dtype = next(model.parameters()).device, computing_type(model)
    sums: Sums = {name: {} for name in tasks}
    pairs: dict[str, list[tuple[str, str]]] = {
        name: [] for name, task in tasks.items() if task.metrics and not task.generates
    }
    for first in range(
        0, max(len(places), 1), rows
    ):  # a process without a share reads an empty batch: same keys for all
        batch = split.batch(places[first : first + rows] or split.all()[:1], inputs=inputs)
        batch = model.plan(batch, dtype=dtype, device=device).to(device)
        outputs = model(batch)
        for name, task in tasks.items():
            targets = batch.targets[name]
            term = next(iter(task.terms(outputs[name], targets).values()))
            found = {"loss": term.sum, "count": torch.tensor(float(term.count)), **task.measure(outputs[name], targets)}
            if task.generates and isinstance(split, SampleSplit):
                found["bytes"] = text_bytes(split, batch.sets[targets.set], task.target)
            if name in pairs and places:
                pairs[name] += task.pairs(outputs[name], targets, batch.sets[targets.set])
            for key, value in found.items():
                value = value.double() * bool(places)
                sums[name][key] = sums[name][key] + value if key in sums[name] else value
    return sums, pairs


def text_bytes(split: SampleSplit, planned: SetPlan, target: str) -> Tensor:
    """The UTF-8 bytes of the texts that a batch's samples have as their target."""
    texts = (split.item(split.reader.number(key))[0].get(target) for key in planned.keys)
    return torch.tensor(float(sum(len(text.encode()) for text in texts if isinstance(text, str))))


def written_pairs(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places, inputs, rows: int
) -> list[tuple[str, str]]:  # fmt: skip
    """What the model writes from the other inputs, as the task searches, beside the true texts. Samples that have none are
    not judged: an empty text would be wrong for all of them, whatever is written."""
    found: list[tuple[str, str]] = []
    places = [
        each for each in places if each.number not in split.bad and reference(split, each, task.target) is not None
    ]
    for first in range(0, len(places), max(rows, 64)):
        texts = write_texts(model, name, task, split, places[first : first + max(rows, 64)], inputs=inputs)
        found += [(text, split.item(number)[0][task.target]) for number, text in texts.items()]
    return found


def reference(split: SampleSplit, place: Place, target: str) -> str | None:
    """The true text of a sample, None where it has none or cannot be read."""
    try:
        return split.item(place.number)[0].get(target)
    except ValueError:
        return None


@torch.inference_mode()
def write_texts(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places: Sequence[Place], *,
    inputs: Collection[str] | None = None, prompt: str = "", sampling: Sampling | None = None,
    search: Search | None = None, generator: torch.Generator | None = None, most: int | None = None,
) -> dict[int, str]:  # fmt: skip
    """What the model says to these samples, without their own text, by the samples' numbers; bad samples are left out.

    `prompt` is how every text begins (it is not given back); `most` is how many tokens are written at most. A text is
    searched for, as the task says or `search`, but drawn at random where `sampling` is given.
    """
    encoding = split.choppers[task.target].text
    sets = split.sets(places, inputs=inputs, rows="one_each", replaced={task.target: prompt})
    keys = next(iter(sets.values())).keys
    if not keys:
        return {}
    answer = Answer(model, sets, input=task.target, task=name, vocabulary=encoding.vocabulary, most=most)
    search = search or task.search
    if sampling is None and not search.greedy:
        rows = [found.ids for found in beam_search(answer, encoding.end, answer.room, search, answer.prompt)]
    else:
        rows = sampled(answer, encoding.end, sampling or Sampling(temperature=0), generator)
    return {split.reader.number(key): task.written(row) for key, row in zip(keys, rows)}


def sampled(answer: Answer, end: int, sampling: Sampling, generator: torch.Generator | None) -> list[list[int]]:
    """One text per row, token by token; ids without the end."""
    rows: list[list[int]] = [[] for _ in range(len(answer.ids))]
    writing = set(range(len(rows)))
    for ids in generate(answer, answer.room, sampling, generator):
        for row, id in enumerate(ids.tolist()):
            if row in writing and id == end:
                writing.discard(row)
            elif row in writing:
                rows[row].append(id)
        if not writing:
            break
    return rows


def left_unread(splits: Mapping[str, Split], tasks: Mapping[str, Task]) -> dict[str, int]:
    """In the splits of samples, how many were bad so far, how many spans found no room, how many samples a task left out."""
    splits = {name: split for name, split in splits.items() if isinstance(split, SampleSplit)}
    counts = {f"data/{name}_bad": len(split.bad) for name, split in splits.items()}
    counts |= {f"data/{name}_without_room": split.dropped.total() for name, split in splits.items()}
    return counts | {f"data/{name}_left_out": len(task.skipped) for name, task in tasks.items() if splits}
