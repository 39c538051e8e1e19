"""The samples and prompts of a request: their form, the inputs that they lack, and those that cannot be read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..data.fingerprint import Fingerprint
from ..data.samples import Listed, Samples, Visible
from ..files.errors import RunError
from ..files.reading import shown
from ..files.records import as_numbers
from .evaluator import TrainedRun
from .generate import Generating
from .predict import inputs_of_task, read_by


def as_prompts(prompts: Any) -> list[str | None]:
    """Returns one prompt (a text, or None) or a list of prompts as a list. Raises TypeError for anything else."""
    found = [prompts] if prompts is None or isinstance(prompts, str) else prompts
    if not isinstance(found, list | tuple) or not all(each is None or isinstance(each, str) for each in found):
        raise TypeError(f"a prompt must be a text or a list of texts, not {shown(prompts)}")
    return list(found)


def as_rows(samples: Any) -> list[Any]:
    """Returns one sample, or the samples of an iterable, as a list. Raises RunError if it is neither."""
    if not isinstance(samples, Iterable) or isinstance(samples, str | bytes):
        raise RunError(f"samples must be a mapping or a list of mappings, not {shown(samples)}")
    return [samples] if isinstance(samples, Mapping) else list(samples)


def as_samples(samples: Any) -> Samples:
    """Returns samples in memory (one mapping, or a sequence of mappings) as `Samples` with the keys "sample 1", "sample
    2", ...; `Samples` are returned unchanged. Raises RunError for anything else."""
    if isinstance(samples, Samples):
        return samples
    rows = as_rows(samples)
    for row in rows:
        if not isinstance(row, Mapping):
            raise RunError(
                f"a sample must map inputs to values, such as {{'image': 'cat.png'}}, not be a {type(row).__name__}"
            )
    return Listed([f"sample {number + 1}" for number in range(len(rows))], rows)


def present(samples: Samples, number: int, names: Sequence[str]) -> list[str] | None:
    """Returns those of the inputs `names` that a sample has; None if the sample cannot be read."""
    with suppress(ValueError, OSError):
        row = samples.row(number, names)
        return [name for name in names if row.get(name) is not None]
    return None


Sample = Mapping[str, Any]
"""The raw value (a path, the content of a file, an array, a text) of each input, by input name. None: the input is
missing."""


def readable(run: TrainedRun, tasks: Collection[str]) -> list[str]:
    """Returns the inputs that at least one of these tasks reads, in the order of the model."""
    inputs = {input for name in tasks for input in inputs_of_task(run.tasks, list(run.choppers), name)}
    return [input for input in run.choppers if input in inputs]


def seeded_by_item(how: Generating, samples: Samples, wrong: Collection[int] = ()) -> Generating:
    """Returns the settings with a seed for each sample. `wrong` has the numbers of samples that are not in `samples`,
    for which `how` may have seeds, too."""
    if how.seed is None:
        return how
    if not isinstance(how.seed, int):
        how = replace(how, seed=[seed for number, seed in enumerate(how.seed) if number not in wrong])
    return how.for_items([Fingerprint(dict(samples.row(number))).hex for number in range(len(samples))])


def sorted_out(run: TrainedRun, samples: Any, paths: bool) -> tuple[Samples, dict[int, str]]:
    """Returns (samples, reasons): the samples of a list that can be predicted, and for all others the reason by number.
    A sample is wrong if it is not a mapping, has an unknown input, or, without `paths`, a path. Raises RunError with
    the reason for one sample instead of a list, and if all samples of a list are wrong."""
    if isinstance(samples, Samples):
        return samples, {}
    rows, wrong = as_rows(samples), dict[int, str]()
    for number, row in enumerate(rows):
        try:
            (row,) = as_samples([row])
            check_samples(run, without_targets(run, as_samples(row))[0], run.tasks)
            if named := [] if paths else [name for name, value in row.items() if is_path(run, name, value)]:
                raise RunError(f"input {named[0]!r}: a path is refused (paths=False); pass the content of the file")
        except RunError as error:
            if isinstance(samples, Mapping):
                raise
            wrong[number] = str(error)
    if rows and len(wrong) == len(rows):
        raise RunError(wrong[0])
    kept = [number for number in range(len(rows)) if number not in wrong]
    return Listed([f"sample {number + 1}" for number in kept], [rows[number] for number in kept]), wrong


def is_path(run: TrainedRun, name: str, value: Any) -> bool:
    """Returns whether the value of an input, or a part of it, is a text or a path, although the input is no text. Texts
    of numbers and lists of numbers are no paths."""
    if isinstance(value, Mapping):
        return any(is_path(run, name, each) for each in value.values())
    if isinstance(value, list | tuple):
        return any(is_path(run, name, each) for each in value)
    is_text = name in run.choppers and run.choppers[name].kind == "text"
    return not is_text and isinstance(as_numbers(value), str | os.PathLike)


def without_targets(run: TrainedRun, samples: Samples) -> Samples:
    """Returns samples without the true values of the run's tasks, which predictions must not read."""
    names, inputs = samples.column_names, readable(run, run.tasks)
    targets = {column for task in run.tasks.values() for column in (*task.needs.columns, task.target)}
    kept = [name for name in names if name in inputs or name not in targets]
    return Visible(samples, kept) if len(kept) < len(names) else samples


def check_samples(run: TrainedRun, names: Collection[str], tasks: Collection[str]) -> None:
    """Raises RunError if one of the names in samples is no input of the run, or an input that none of these tasks
    reads."""
    inputs = readable(run, tasks)
    if unknown := [name for name in names if name not in inputs]:
        raise not_read(run, unknown[0], inputs, [run.tasks[name].target for name in tasks])


def not_read(run: TrainedRun, name: str, inputs: Sequence[str], targets: Sequence[str]) -> RunError:
    """Returns the error about a name that is not one of `inputs`, the inputs from which `targets` are predicted."""
    possible = f"possible: {', '.join(inputs)}" if inputs else "it has no other inputs"
    if name not in run.choppers:
        return RunError(f"{run.folder} has no input {name!r}; possible: {', '.join(inputs or run.choppers)}")
    if name in targets:
        hint = "`chopmix generate` takes the beginning of a text as --prompt"
        return RunError(f"{run.folder} generates {name!r}, so the task cannot read it; {possible}. {hint}")
    return RunError(
        f"{run.folder} does not read {name!r} to generate {' and '.join(dict.fromkeys(targets))}; {possible}"
    )


def report_missing(
    run: TrainedRun, samples: Sequence[Collection[str]], tasks: Collection[str], say: Callable[[str], None]
) -> None:  # fmt: skip
    """Call `say` with a message about the inputs that samples lack: `'answer' is generated without image, sound`.
    `samples` are the inputs that each sample has."""
    targets_by_lack: dict[tuple[str, str], list[str]] = {}
    for name in tasks:
        task = run.tasks[name]
        inputs = read_by(run.tasks, run.choppers, name)
        verb = "generated" if task.needs.makes_items else "predicted"
        lacking = Counter(", ".join(input for input in inputs if input not in sample) for sample in samples)
        for names, count in lacking.items():
            share = f"{count:,} of {len(samples):,} samples: " if count < len(samples) else ""
            if names:
                targets_by_lack.setdefault((share, f"{verb} without {names}"), []).append(repr(task.target))
    for (share, how), targets in targets_by_lack.items():
        say(f"{share}{', '.join(targets)} {'is' if len(targets) == 1 else 'are'} {how} (--input NAME=VALUE)")
    if names := run.never_missing({name for sample in samples for name in readable(run, tasks) if name not in sample}):
        say(unreliable(names))


def unreliable(names: Sequence[str]) -> str:
    """Returns a warning about absent inputs that no training sample lacked."""
    plural = "were" if len(names) > 1 else "was"
    return (
        f"warning: {' and '.join(names)} {plural} present in every training sample, so predictions without "
        f"{'them' if len(names) > 1 else 'it'} are not reliable (training.input_dropout trains for this case)"
    )


def absent_lines(run: TrainedRun, absent: Iterable[Sequence[str]], total: int, verb: str = "predicted") -> list[str]:
    """Returns lines about the inputs that samples lack: `12 of 100 samples: predicted without sound`. `absent`: these
    inputs for each sample that lacks any; `total`: the number of all samples."""
    counts = Counter(tuple(names) for names in absent if names)
    lines = [f"{count:,} of {total:,} samples: {verb} without {', '.join(names)}" for names, count in counts.items()]
    never = run.never_missing({name for names in counts for name in names})
    return lines + ([unreliable(never)] if never else [])
