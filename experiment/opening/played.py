"""A trained run plays: its episodes for several asked returns, and their figures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...data.environments.episodes import Episode
from ...data.environments.making import PLAYS, make_environment
from ...data.environments.spaces import spaces_of
from ...inference.in_time.rollout import Player, Playing
from .acting import acting_task, check_observations, is_told, planner_of, read_columns
from .environments import environment_of, episodes_in
from .opened import Opened

Watch = Callable[[Any], None]


def episodes_of(
    run: Opened, how: Playing, target: float | None, numbers: Sequence[int], watch: Watch | None = None,
    stream: int = PLAYS,
) -> Iterator[Episode]:  # fmt: skip
    """Play the episodes of these numbers and yield them in order. `watch` is called with the environment of the first
    before each of its steps; `stream` is as in `Player`. Raises RunError if the run does not fit the environment,
    DataError if there is no such environment."""
    name, settings = environment_of(run, how)
    count = min(how.together, len(numbers))
    environments = [make_environment(name, settings, render=watch is not None and not i) for i in range(count)]
    player = player_of(run, how, target, environments[0], stream)
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


def player_of(run: Opened, how: Playing, target: float | None, environment: Any, stream: int = PLAYS) -> Player:
    """The agent that plays episodes with this run. Raises RunError if it does not fit the environment."""
    spaces = spaces_of(environment)
    name, task = acting_task(run, spaces)
    planner = how.plan and planner_of(run, task, spaces, how.plan)
    check_observations(run, spaces, environment, target)
    return Player(
        model=run.model, task=task, head=run.model.heads[name], choppers=run.choppers, space=spaces.action,
        columns=read_columns(run), temperature=how.temperature, seed=how.seed, stream=stream,
        planner=planner,
        dtype=torch.bfloat16 if run.precision == "bfloat16" and run.model_device.type == "cuda" else torch.float32,
    )  # fmt: skip


def check_plays(run: Opened, how: Playing) -> None:
    """Raises RunError or DataError where the run cannot play so."""
    name, settings = environment_of(run, how)
    environment = make_environment(name, settings)
    for target in how.asked.values():
        player_of(run, how, target, environment)
    environment.close()


def beyond(data: Mapping[str, float] | None, targets: Sequence[float]) -> list[str]:
    """A sentence for each return that no episode of the data has, by the figures of these."""
    return [
        f"no episode of the data has {target:g}: they reach {data['worst']:g} to {data['best']:g}"
        for target in targets
        if data and not data["worst"] <= target <= data["best"]
    ]


def acts_by(run: Opened) -> str:
    """What kind of agent a run is: one that is told a return, or one that clones what was done."""
    if is_told(run):
        return "the return asked for"
    dataset = episodes_in(run)
    best = "" if dataset is None or dataset.best == 1 else f" of the best {dataset.best:.0%}"
    return f"cloning{best}"


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
    """The mean, the worst and the best return of the episodes that it was trained on; None where they are not at hand
    (they would have to be recorded again)."""
    dataset = episodes_in(run)
    if dataset is None or not dataset.source.at_hand:
        return None
    values = dataset.played.values[dataset.chosen("train")]
    return {"mean": float(values.mean()), "worst": float(values.min()), "best": float(values.max())}
