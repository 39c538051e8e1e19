"""What a run needs to act: the inputs read of its environment, the task that says what to do, and what plans."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...data.environments.making import begin
from ...data.environments.spaces import Spaces
from ...inference.in_time.planning import Planner, Planning, Predicted
from ...tasks.next_item import NextItem
from ...tokenizers.files.reading import DataError
from ..folder.reading import RunError
from ..settings.checks.timing import step_problems
from .environments import episodes_in
from .opened import Opened


def read_columns(run: Opened) -> dict[str, str]:
    """The data columns of the inputs that are read of episodes: not those of other data sets in a mixture. Where the
    episodes are gone, all."""
    columns, episodes = run.config.wiring.columns, episodes_in(run)
    try:
        known = columns.values() if episodes is None else episodes.columns
    except DataError:
        known = columns.values()
    return {name: column for name, column in columns.items() if column in known}


def acting_task(run: Opened, spaces: Spaces) -> tuple[str, NextItem]:
    """The name of the task that says what to do, and the task: the `next_item` whose target reads the column `action`.
    Raises RunError where there is none, or its actions are not those of the environment."""
    columns = run.config.wiring.columns
    for name, task in run.tasks.items():
        if isinstance(task, NextItem) and columns[task.target] == "action":
            given = task.chopper.choices or len(task.chopper.numbers)
            wanted = spaces.action.size or int(np.prod(spaces.action.shape))
            if given != wanted or bool(task.chopper.choices) != (spaces.action.size is not None):
                kind = "categories" if task.chopper.choices else "numbers"
                other = "categories" if spaces.action.size is not None else "numbers"
                raise RunError(f"{run.folder} acts with {given} {kind}, the environment takes {wanted} {other}")
            if run.config.data.order != "seconds":
                raise RunError(f"{run.folder} reads its inputs one after another; to play it must read them in time "
                               "(data.order: seconds)")  # fmt: skip
            return name, task
    raise RunError(f"{run.folder} has no task that says what to do: {{use: next_item, target: action, at: ...}}")


def check_steps(run: Opened) -> None:
    """Raises RunError where an input of the episodes is not read as it is played: of a mixture only the opened
    data tell which inputs are theirs."""
    config, reads = run.config, read_columns(run)
    own = {name: config.inputs[name] for name in reads}
    for path, told in step_problems(own, reads, config.tasks, config.inputs, config.model):
        raise RunError(f"{'.'.join(map(str, path))}: {told}")


def planner_of(run: Opened, act: NextItem, spaces: Spaces, how: Planning) -> Planner:
    """What plans for the run. Raises RunError where its tasks do not predict a whole step, what they predict are no
    ids, or so far ahead does not fit the context."""
    columns = run.config.wiring.columns
    known = {
        columns[task.target]: Predicted(task, run.model.heads[name])
        for name, task in run.tasks.items()
        if isinstance(task, NextItem)
    }
    read = [name for name in read_columns(run).values() if name in spaces.observations]
    needed = ("action", "reward", "return", *read)
    if missing := [name for name in needed if name not in known]:
        raise RunError(f"{run.folder} cannot plan: no task {{use: next_item}} predicts {', '.join(missing)}")
    if numbers := [name for name in needed if name != "return" and not known[name].task.chopper.choices]:
        raise RunError(f"{run.folder} cannot plan: {', '.join(numbers)} are numbers, not ids ({{use: category}})")
    seen = sorted((known[name] for name in read), key=lambda each: each.task.chopper.offset or 0.0)
    made = Planner(act=known["action"], reward=known["reward"], value=known["return"], seen=seen, how=how)
    steps = 2 * len(needed)  # two steps of what happened are read beside, with the return where one is asked for
    if made.room + steps > run.model.context:
        told = f"{how.horizon} steps ahead are {made.room} tokens, and two steps of what happened {steps}"
        raise RunError(f"{run.folder}: {told}, more than its context of {run.model.context}")
    return made


def is_told(run: Opened) -> bool:
    """Whether the run reads, before it acts, the return that it is to reach."""
    return bool(returns_told(run))


def returns_told(run: Opened) -> list[str]:
    """The inputs that read the return before the action."""
    offsets: dict[str, list[float]] = {}
    columns = read_columns(run)
    for name, column in columns.items():
        offsets.setdefault(column, []).append(run.choppers[name].offset or 0.0)
    action = min(offsets.get("action", [math.inf]))
    return [n for n, column in columns.items() if column == "return" and (run.choppers[n].offset or 0.0) < action]


def check_target(run: Opened, target: float | None) -> None:
    """Raises RunError where the run is told a return and none is asked for, or is told none and one is."""
    columns = read_columns(run)
    told = next((name for name, column in columns.items() if column == "return"), None)
    if target is not None and not is_told(run):
        none = f"its input {told!r} comes after the action" if told else "none of its inputs reads 'return'"
        raise RunError(f"{run.folder} is told no return, since {none}: none can be asked for "
                       "(--target, evaluation.play.targets)")  # fmt: skip
    if target is None and is_told(run):
        shares = run.config.training.input_dropout
        if not all(shares.get(name) if isinstance(shares, Mapping) else shares for name in returns_told(run)):
            raise RunError(f"{run.folder} is told what return to reach, and knows none without: ask for one with "
                           "--target (in a YAML evaluation.play.targets)")  # fmt: skip


def check_observations(run: Opened, spaces: Spaces, environment: Any, target: float | None = None) -> None:
    """Raises RunError where an input reads what is not observed there, or cannot take what is, or the return that is
    asked for, and as `check_target` does."""
    columns = read_columns(run)
    check_target(run, target)
    known = {"return", "reward", "action", "step", *spaces.observations, *spaces.texts}
    seen = begin(environment, 0)
    for name, column in columns.items():
        if column not in known:
            raise RunError(f"{run.folder}: the input {name!r} reads {column!r}; observed there are "
                           f"{', '.join((*spaces.observations, *spaces.texts))}")  # fmt: skip
        chopper, there = run.choppers[name], spaces.observations.get(column)
        if there and there.size is not None and chopper.choices is not None and chopper.choices < there.size:
            raise RunError(f"{run.folder}: the input {name!r} reads {chopper.choices} categories, but {column!r} there "
                           f"is one of {there.size}")  # fmt: skip
        value = np.asarray(target) if column == "return" and target is not None else seen.arrays.get(column)
        if value is not None:
            try:
                chopper.decode({"values": value[None], "seconds": [0.0]})
            except DataError as error:
                raise RunError(f"{run.folder}: the input {name!r} cannot read {column!r} there: {error}") from None
