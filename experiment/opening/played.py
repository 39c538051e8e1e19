"""A trained run plays: what it needs of an environment, its episodes for several asked returns, and their figures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...data.base import Dataset
from ...data.environments.episodes import Episode
from ...data.environments.making import Spaces, begin, make_environment, spaces_of
from ...inference.in_time.planning import Planner, Planning, Predicted
from ...inference.in_time.rollout import Player, Playing
from ...tasks.next_item import NextItem
from ...tokenizers.files.reading import DataError
from ..data.columns import columns_of
from ..folder.reading import RunError
from .opened import Opened

Watch = Callable[[Any], None]


def environment_of(run: Opened, how: Playing) -> tuple[str, Mapping[str, Any]]:
    """The name of the environment that is played, and its settings. Raises RunError where it is neither given nor known
    of the data."""
    if how.environment is not None:
        return how.environment, how.settings
    source = getattr(_dataset(run), "source", None)
    if source is None:
        raise RunError(f"{run.folder} was not trained on episodes of an environment; name one with --environment")
    return source.about.environment, {**source.about.options, **how.settings}


def _dataset(run: Opened) -> Dataset | None:
    return run.config.data.dataset() if run.config.data.dataset is not None else None


def acting_task(run: Opened, spaces: Spaces) -> tuple[str, NextItem]:
    """The name of the task that says what to do, and the task: the `next_item` whose target reads the column `action`.
    Raises RunError where there is none, or its actions are not those of the environment."""
    columns = columns_of(run.config)
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


def planner_of(run: Opened, act: NextItem, spaces: Spaces, how: Planning) -> Planner:
    """What plans for the run. Raises RunError where its tasks do not predict a whole step, what they predict are no
    ids, or so far ahead does not fit the context."""
    columns = columns_of(run.config)
    known = {
        columns[task.target]: Predicted(task, run.model.heads[name])
        for name, task in run.tasks.items()
        if isinstance(task, NextItem)
    }
    read = [name for name in columns.values() if name in spaces.observations]
    needed = ("action", "reward", "return", *read)
    if missing := [name for name in needed if name not in known]:
        raise RunError(f"{run.folder} cannot plan: no task {{use: next_item}} predicts {', '.join(missing)}")
    if numbers := [name for name in needed if name != "return" and not known[name].task.chopper.choices]:
        raise RunError(f"{run.folder} cannot plan: {', '.join(numbers)} are numbers, not ids ({{use: category}})")
    seen = sorted((known[name] for name in read), key=lambda each: each.task.chopper.offset or 0.0)
    made = Planner(act=known["action"], reward=known["reward"], value=known["return"], seen=seen, how=how)
    if made.room >= run.model.context:
        raise RunError(f"{run.folder}: {how.horizon} steps ahead are {made.room} tokens, more than its context of "
                       f"{run.model.context} leaves")  # fmt: skip
    return made


def check_observations(run: Opened, spaces: Spaces, environment: Any) -> None:
    """Raises RunError where an input reads what is not observed there, or cannot take what is."""
    columns = columns_of(run.config)
    known = {"return", "reward", "action", "step", *spaces.observations, *spaces.texts}
    seen = begin(environment, 0)
    for name, column in columns.items():
        if column not in known:
            raise RunError(f"{run.folder}: the input {name!r} reads {column!r}; observed there are "
                           f"{', '.join((*spaces.observations, *spaces.texts))}")  # fmt: skip
        if column in seen.arrays:
            try:
                run.choppers[name].decode({"values": seen.arrays[column][None], "seconds": [0.0]})
            except DataError as error:
                raise RunError(f"{run.folder}: the input {name!r} cannot read {column!r} there: {error}") from None


def episodes_of(
    run: Opened, how: Playing, target: float | None, numbers: Sequence[int], watch: Watch | None = None
) -> Iterator[Episode]:
    """Play the episodes of these numbers and yield them in order; `watch` is called with the environment of the first
    before each of its steps. Raises RunError where the run does not fit the environment, DataError where there is no
    such environment."""
    name, settings = environment_of(run, how)
    count = min(how.together, len(numbers))
    environments = [make_environment(name, settings, render=watch is not None and not i) for i in range(count)]
    spaces = spaces_of(environments[0])
    task_name, task = acting_task(run, spaces)
    check_observations(run, spaces, environments[0])
    player = Player(
        model=run.model, task=task, head=run.model.heads[task_name], choppers=run.choppers, space=spaces.action,
        columns=columns_of(run.config), temperature=how.temperature, seed=how.seed,
        planner=how.plan and planner_of(run, task, spaces, how.plan),
        dtype=torch.bfloat16 if run.precision == "bfloat16" and run.model_device.type == "cuda" else torch.float32,
    )  # fmt: skip
    for start in itertools.count(0, count):
        chosen = numbers[start : start + count]
        if not chosen:
            break
        with run.arithmetic():
            yield from player.play(
                environments[: len(chosen)], chosen, target, watch if watch and not start else lambda environment: None
            )
    for environment in environments:
        environment.close()


def figures_of(episodes: Sequence[Episode]) -> dict[str, float]:
    """Of several episodes the mean return and its standard error, the least and the most, how many were rewarded at
    all, and how long they are."""
    values = np.array([each.value for each in episodes])
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return {
        "return": values.mean(), "error": error, "least": values.min(), "most": values.max(),
        "rewarded": (values > 0).mean(), "steps": np.mean([len(each.rewards) for each in episodes]),
    }  # fmt: skip


def play_metrics(run: Opened, how: Playing) -> dict[str, float]:
    """The mean return for each return that is asked for, by the names of `Playing.asked`."""
    numbers = range(how.episodes)
    found = {name: list(episodes_of(run, how, target, numbers)) for name, target in how.asked.items()}
    return {name: float(figures_of(episodes)["return"]) for name, episodes in found.items()}


def data_figures(run: Opened) -> dict[str, float] | None:
    """The mean and the best return of the episodes that it was trained on; None where they are not at hand."""
    dataset = _dataset(run)
    if getattr(dataset, "source", None) is None:
        return None
    values = dataset.played.values[dataset.chosen("train")]
    return {"mean": float(values.mean()), "best": float(values.max())}
