"""A trained run plays: its environment, the inputs that it reads there, the task that says what to do, its episodes."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...experiment.run_folder import RunError
from ...experiment.settings.config import Config
from ...files.reading import DataError
from ...files.records import parse_json
from ...files.trust import code_in
from ...inference.evaluator import TrainedModel
from ...tasks.next_item import NextItem
from .datasets.episodes import Episodes
from .environments.episodes import UNKNOWN, Episode
from .environments.making import PLAYS, begin, make_environment
from .environments.spaces import Spaces, spaces_of
from .planning import Planner, Planning, Predicted
from .rollout import Player, Playing


def environment_of(run: TrainedModel, how: Playing) -> tuple[str, Mapping[str, Any]]:
    """The name of the environment that is played, and its settings: those of the data too, where it is theirs. Raises
    RunError where it is neither given nor known of the data, and where the data name code that the configuration does
    not."""
    known = environment_of_data(run, needed=how.environment is None)
    if known is None or how.environment not in (None, known[0]):
        return how.environment or "", how.settings
    name, kept = known[0], {key: value for key, value in known[1].items() if key not in how.settings}
    named = [kept] if how.environment else [name, kept]
    for code in code_in(named):  # a folder of episodes may be a stranger's
        if not run.trust.allows(code.partition(":")[0]):
            reason = f"{run.folder} was trained on episodes of {name!r}; {code!r} is code outside chopmix"
            given = "".join(
                f" --setting {shlex.quote(f'{key}={value}')}" for key, value in kept.items() if [*code_in(value)]
            )
            raise RunError(
                f"{reason}. If you trust its author, name it yourself: --environment {shlex.quote(name)}{given} "
                "(in a YAML evaluation.play.environment and settings)"
            )
    return name, {**kept, **how.settings}


def environment_of_data(run: TrainedModel, needed: bool) -> tuple[str, Mapping[str, Any]] | None:
    """The environment of the episodes that the run was trained on, and its settings; where these are gone, as the run's
    `data.json` tells. None where nobody does. Raises RunError or DataError for that where it is `needed`."""
    episodes = episodes_in(run)
    try:
        found = None if episodes is None else (episodes.source.about.environment, episodes.source.about.options)
    except DataError:
        told = run.folder / "data.json"
        kept = parse_json(told.read_bytes(), str(told)) if told.is_file() else {}
        if not isinstance(kept, Mapping) or not isinstance(kept.get("settings"), Mapping):
            if needed:
                raise
            return None
        found = str(kept.get("environment")), kept["settings"]
    if found is None and needed:
        raise RunError(f"{run.folder} was not trained on episodes of an environment; name one with --environment")
    if found is not None and found[0] == UNKNOWN:
        if needed:
            raise RunError(f"{run.folder}: its episodes do not tell their environment; name one with --environment")
        return None
    return found


def episodes_in(run: TrainedModel) -> Episodes | None:
    """The episodes that the run was trained on, perhaps among other data sets."""
    members = run.dataset().members() if run.has_dataset else ()
    return next((each for each in members if isinstance(each, Episodes)), None)


def read_columns(run: TrainedModel) -> dict[str, str]:
    """The data columns of the inputs that are read of episodes: not those of other data sets in a mixture. Where the
    episodes are gone, all."""
    columns, episodes = run.wiring.columns, episodes_in(run)
    try:
        known = columns.values() if episodes is None else episodes.columns
    except DataError:
        known = columns.values()
    return {name: column for name, column in columns.items() if column in known}


def acting_task(run: TrainedModel, spaces: Spaces) -> tuple[str, NextItem]:
    """The name of the task that says what to do, and the task: the `next_item` whose target reads the column `action`.
    Raises RunError where there is none, or its actions are not those of the environment."""
    columns = run.wiring.columns
    for name, task in run.tasks.items():
        if task.needs.judged_at and columns[task.target] == "action":
            given = task.chopper.choices or len(task.chopper.numbers)
            wanted = spaces.action.size or int(np.prod(spaces.action.shape))
            if given != wanted or bool(task.chopper.choices) != (spaces.action.size is not None):
                kind = "categories" if task.chopper.choices else "numbers"
                other = "categories" if spaces.action.size is not None else "numbers"
                raise RunError(f"{run.folder} acts with {given} {kind}, the environment takes {wanted} {other}")
            if run.wiring.order != "seconds":
                raise RunError(f"{run.folder} reads its inputs one after another; to play it must read them in time "
                               "(data.order: seconds)")  # fmt: skip
            return name, task
    raise RunError(f"{run.folder} has no task that says what to do: {{use: next_item, target: action, at: ...}}")


def planner_of(run: TrainedModel, act: NextItem, spaces: Spaces, how: Planning) -> Planner:
    """What plans for the run. Raises RunError where its tasks do not predict a whole step, what they predict are no
    ids, or so far ahead does not fit the context."""
    columns = run.wiring.columns
    known = {
        columns[task.target]: Predicted(task, run.model.heads[name])
        for name, task in run.tasks.items()
        if task.needs.judged_at
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


def is_told(run: TrainedModel) -> bool:
    """Whether the run reads, before it acts, the return that it is to reach."""
    return bool(returns_told(run))


def returns_told(run: TrainedModel) -> list[str]:
    """The inputs that read the return before the action."""
    offsets: dict[str, list[float]] = {}
    columns = read_columns(run)
    for name, column in columns.items():
        offsets.setdefault(column, []).append(run.choppers[name].offset or 0.0)
    action = min(offsets.get("action", [math.inf]))
    return [n for n, column in columns.items() if column == "return" and (run.choppers[n].offset or 0.0) < action]


def check_target(run: TrainedModel, target: float | None) -> None:
    """Raises RunError where the run is told a return and none is asked for, or is told none and one is."""
    columns = read_columns(run)
    told = next((name for name, column in columns.items() if column == "return"), None)
    if target is not None and not is_told(run):
        none = f"its input {told!r} comes after the action" if told else "none of its inputs reads 'return'"
        raise RunError(f"{run.folder} is told no return, since {none}: none can be asked for "
                       "(--target, evaluation.play.targets)")  # fmt: skip
    if target is None and is_told(run) and not {*returns_told(run)} <= run.wiring.optional:
        raise RunError(f"{run.folder} is told what return to reach, and knows none without: ask for one with "
                       "--target (in a YAML evaluation.play.targets)")  # fmt: skip


def check_observations(run: TrainedModel, spaces: Spaces, environment: Any, target: float | None = None) -> None:
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


Watch = Callable[[Any], None]


def episodes_of(
    run: TrainedModel, how: Playing, target: float | None, numbers: Sequence[int], watch: Watch | None = None,
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


def player_of(run: TrainedModel, how: Playing, target: float | None, environment: Any, stream: int = PLAYS) -> Player:
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


def configured(config: Config) -> Playing:
    """How a run plays by its configuration, `evaluation.play`; the defaults if it has none."""
    part = config.evaluation.also.get("play")
    return part() if part else Playing()


def check_plays(run: TrainedModel, how: Playing) -> None:
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


def acts_by(run: TrainedModel) -> str:
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


def play_metrics(run: TrainedModel, how: Playing) -> dict[str, float]:
    """The mean return for each return that is asked for, by the names of `Playing.asked`."""
    numbers = range(how.episodes)
    found = {name: list(episodes_of(run, how, target, numbers)) for name, target in how.asked.items()}
    return {name: float(figures_of(episodes)["return"]) for name, episodes in found.items()}


def data_figures(run: TrainedModel) -> dict[str, float] | None:
    """The mean, the worst and the best return of the episodes that it was trained on; None where they are not at hand
    (they would have to be recorded again)."""
    dataset = episodes_in(run)
    if dataset is None or not dataset.source.at_hand:
        return None
    values = dataset.played.values[dataset.chosen("train")]
    return {"mean": float(values.mean()), "worst": float(values.min()), "best": float(values.max())}
