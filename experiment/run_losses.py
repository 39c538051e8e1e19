"""The loss of single samples and texts of a run (`Run.losses`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.corpus import TextsSplit
from ..data.samples import Samples
from ..data.split import SampleSplit
from ..files.errors import RunError
from ..files.printing import say_aside
from ..inference.evaluation import measured
from ..inference.evaluator import TrainedRun
from .build import window_of
from .settings.config import Config


def losses_of(
    trained: TrainedRun, split: SampleSplit | TextsSplit, inputs: Collection[str] | None, per_token: bool
) -> dict[str, Float[Tensor, "n"]] | dict[str, list[Tensor]]:
    """Returns the loss of each sample, or of each text, of a split by task; see `Run.losses`."""
    with trained.arithmetic():
        result = measured(trained, split, inputs=inputs, generated=0, detail="targets" if per_token else "samples")
    for line in split.skipped.lines():
        say_aside(line)
    count, losses_by_task = split.owners, {}
    for name in trained.tasks:
        if name not in result.by_sample:
            raise RunError(f"the loss of the task {name!r} compares samples, so a single sample has no loss")
        sums = result.by_sample[name]
        numbers = [split.owner_of(number) for number in sums.numbers.tolist()]
        if per_token:
            parts: list[list[Tensor]] = [[] for _ in range(count)]
            for number, losses in zip(numbers, sums.of_targets, strict=True):
                parts[number].append(torch.from_numpy(losses))
            losses_by_task[name] = [torch.cat(part) if part else torch.empty(0, dtype=torch.float64) for part in parts]
        else:
            losses = torch.full((count,), float("nan"), dtype=torch.float64)
            losses[numbers] = 0.0  # a long text has several windows
            losses.index_add_(0, torch.tensor(numbers, dtype=torch.long), torch.from_numpy(sums.nats))
            losses_by_task[name] = losses
    return losses_by_task


def reads_texts(trained: TrainedRun, data: Any) -> bool:
    """Returns whether `data` are texts for a run that reads a text corpus, or that was imported
    without data and has only one text as input."""
    names = [name for name in trained.choppers if name not in trained.wiring.made]
    is_text = len(names) == 1 and trained.choppers[names[0]].kind == "text"
    return is_text and not isinstance(data, Samples) and not (trained.has_dataset and trained.on_samples)


def as_mappings(trained: TrainedRun, data: Any) -> Any:
    """Returns samples; a text becomes a sample with the only input. Raises RunError if the run has several inputs."""
    if isinstance(data, str) or (isinstance(data, Sequence) and any(isinstance(row, str) for row in data)):
        if len(trained.choppers) > 1:
            raise RunError(f"the run has the inputs {', '.join(trained.choppers)}; a sample must be a mapping of them")
        (name,) = trained.choppers
        rows = [data] if isinstance(data, str) else data
        return [{name: row} if isinstance(row, str) else row for row in rows]
    return data


def texts_split(trained: TrainedRun, config: Config, data: Any) -> TextsSplit:
    """Returns a text, texts, or samples with the only input, as the windows of a text corpus. If a task generates the
    text, each text has the ids of a prompt, so the id of its start is included if prompts have one. Raises RunError for
    values that are not texts."""
    (name,) = (name for name in trained.choppers if name not in trained.wiring.made)
    rows = [data] if isinstance(data, str | Mapping) else list(data)
    texts = [row.get(name) if isinstance(row, Mapping) else row for row in rows]
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise RunError(f"the run reads texts, such as 'three short words', not a {type(wrong[0]).__name__}")
    vocabulary = trained.choppers[name].vocabulary
    generates = any(task.needs.generates for task in trained.tasks.values())
    ids = [
        vocabulary.prompted(text) if generates else [*vocabulary.before, *vocabulary.encode(text), *vocabulary.after]
        for text in texts
    ]
    tasks = trained.tasks
    return TextsSplit.of(ids, name="texts", context=window_of(config, tasks), input=name, tasks=tasks)
