"""Agents: a trained model acts in several environments in parallel, optionally conditioned on a target return."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...experiment.settings.config import Config
from ...files.errors import RunError
from ...files.reading import DataError
from ...files.records import parse_json
from ...files.trust import code_in
from ...inference.evaluator import TrainedRun
from ...models.batch import SetPlan
from ...models.model import Model
from ...tasks.next_item import NextItem
from ...tokenizers.base import Chopper, chopped
from .datasets.episodes import Episodes
from .planning import Planner, Planning, Predicted
from .recording.episodes import UNKNOWN, Episode, episode_of
from .recording.making import (
    PLAYS,
    Observed,
    Space,
    Spaces,
    check_action,
    check_length,
    make_environment,
    observed,
    reset,
    reward_of,
    spaces_of,
)
from .time_steps import Sample, TimeSteps

TOGETHER = 64
"""The default maximum number of episodes that are played in parallel."""


@dataclass(frozen=True, kw_only=True)
class Playing:
    """How a trained model plays. Raises ValueError if `temperature` is negative or not finite, if `episodes` or
    `together` is below 1, or if a target return is not finite."""

    environment: str | None = None
    """The name of a gymnasium environment; null: the environment of the training data."""
    settings: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Keyword arguments of the environment. In the environment of the training data, these values are added to the
    settings of the data and replace settings of the same name."""
    targets: tuple[float, ...] = ()
    """The target returns. Empty: the model is not conditioned on a return."""
    episodes: int = 20
    """The number of episodes per target return."""
    temperature: float = 1.0
    """The temperature at which actions that are categories are sampled; 0: the most likely action is taken."""
    seed: int = 1
    """The random seed of the start states and of the sampled actions."""
    together: int = TOGETHER
    """The maximum number of episodes that are played in parallel."""
    plan: Planning | None = None
    """Settings with which actions are planned by beam search; null: actions are not planned."""

    def __post_init__(self):
        if not 0 <= self.temperature < math.inf or min(self.together, self.episodes) < 1:
            numbers = f"temperature {self.temperature:g}, together {self.together}, episodes {self.episodes}"
            raise ValueError(f"temperature must be at least 0, together and episodes at least 1, not {numbers}")
        if not all(map(math.isfinite, self.targets)):
            raise ValueError(f"target returns must be finite numbers, not {list(self.targets)}")

    @property
    def metric_targets(self) -> dict[str, float | None]:
        """The target return of each metric: `{"return_at_500": 500.0}`, or `{"return": None}` if `targets` is empty."""
        return {f"return_at_{target:g}": target for target in self.targets} or {"return": None}


@dataclass
class Game:
    """One episode that is being played."""

    environment: Any
    number: int
    seed: int
    """The seed with which the environment was reset."""
    random: np.random.Generator
    return_to_go: float | None
    """The target return minus the sum of the rewards so far. None: the model is not conditioned on a return."""
    observations: list[Observed] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    returns_to_go: list[float] = field(default_factory=list)
    """The return to go at each step; NaN if `return_to_go` is None."""

    def observe(self, observation: Observed) -> None:
        """Appends the next observation and the return to go."""
        self.observations.append(observation)
        self.returns_to_go.append(self.return_to_go if self.return_to_go is not None else np.nan)

    def column(self, name: str, step: int) -> Any:
        """Returns the value of a column of the data set `episodes` at a step. Returns None if the action or reward of
        the step is not known yet, if there is no target return, or if no observed array has this name."""
        if name == "action":
            return self.actions[step] if step < len(self.actions) else None
        if name == "reward":
            return self.rewards[step] if step < len(self.rewards) else None
        if name == "return":
            return None if self.return_to_go is None else self.returns_to_go[step]
        return float(step) if name == "step" else self.observations[step].arrays.get(name)


@dataclass(frozen=True, kw_only=True)
class Player:
    """An agent that acts by a task of a model. `columns` maps the model's inputs to columns of the data set `episodes`.

    Actions that are categories are sampled at `temperature` (0: the most likely action). Actions that are numbers are
    the prediction of the model, clipped to the limits of the action space. The random numbers of an episode depend only
    on `seed`, `stream` and the number of the episode."""

    model: Model
    task: NextItem
    head: Callable[[Tensor], Tensor]
    """The head of the task."""
    choppers: Mapping[str, Chopper]
    columns: Mapping[str, str]
    space: Space
    """The action space."""
    temperature: float = 1.0
    seed: int = 0
    stream: int = PLAYS
    """The stream of random numbers: PLAYS for episodes of an evaluation, ACTS for episodes that are recorded."""
    dtype: torch.dtype = torch.float32
    planner: Planner | None = None
    """Chooses the actions by planning. None: actions are not planned."""

    @torch.inference_mode()
    def play(
        self, environments: Sequence[Any], numbers: Sequence[int], target: float | None = None,
        watch: Callable[[Any], None] = lambda environment: None,
    ) -> list[Episode]:  # fmt: skip
        """Plays the episodes with these numbers in parallel, one episode in each environment, and returns the episodes
        in the order of `numbers`. `target` is the target return. None: the model is not conditioned on a return.
        `watch` is called with the first environment before each step in this environment and after the last one."""
        games = [self._begin(environment, number, target) for environment, number in zip(environments, numbers)]
        time_steps, episodes = TimeSteps(self.model, self.choppers, self.dtype), {}
        active, first = list(games), 0  # `first` is the first step in the cache
        hidden = None
        while active:
            step = len(active[0].actions)
            if hidden is None:
                hidden = time_steps.begin([self._history(game, 0) for game in active])
            for game, action in zip(active, self._actions(time_steps, *hidden, active)):
                if game is games[0]:
                    watch(game.environment)
                if (episode := self._act(game, action)) is not None:
                    episodes[game.number] = episode
                    if game is games[0]:
                        watch(game.environment)
            rows = [row for row, game in enumerate(active) if game.number not in episodes]
            active = [active[row] for row in rows]
            if not active:
                break
            if len(rows) < len(time_steps.rows):
                time_steps.keep(rows)
            news = [self._new_items(game, step) for game in active]
            tokens = max(sum(chopped(name, self.choppers[name], item).count for name, item in new) for new in news)
            if time_steps.length + tokens + (self.planner.token_count if self.planner else 0) <= self.model.context:
                hidden = time_steps.read(news)
            else:  # the context is full: start again with the later half of the steps
                first = max(first + (step + 1 - first + 1) // 2, first + 1)
                hidden = time_steps.begin([self._history(game, first) for game in active])
        return [episodes[number] for number in numbers]

    def _begin(self, environment: Any, number: int, target: float | None) -> Game:
        random = np.random.default_rng([self.seed, number, self.stream])
        seed = int(random.integers(2**31))
        game = Game(environment, number, seed, random, target)
        game.observe(reset(environment, seed))
        return game

    def _act(self, game: Game, action: np.ndarray) -> Episode | None:
        """Takes one step in the environment. Returns the episode if it ends with this step, else None."""
        check_action(action, self.space)
        observation, reward, ended, cut, _ = game.environment.step(int(action) if self.space.size else action)
        game.actions.append(action)
        game.rewards.append(reward_of(reward))
        if game.return_to_go is not None:
            game.return_to_go -= game.rewards[-1]
        if ended or cut:
            return episode_of(game.observations, game.actions, game.rewards, bool(ended), game.seed)
        check_length(len(game.actions))
        game.observe(observed(observation))
        return None

    # ------------------------------------------------------------------------------------------------------- inputs

    def _items(self, game: Game, steps: Mapping[str, Sequence[int]]) -> Sample:
        """Returns the decoded items of a game with their times as (input, item) pairs. `steps` maps a data column to
        the steps that are read. The key `other` contains the steps of all columns that are not keys. Texts are included
        only if `steps["text"]` contains 0."""
        items = []
        for name, column in self.columns.items():
            if column in game.observations[0].texts:
                if 0 in steps.get("text", ()):
                    items.append((name, self.choppers[name].decode(game.observations[0].texts[column])))
                continue
            pairs = [(step, game.column(column, step)) for step in steps.get(column, steps["other"])]
            pairs = [(step, value) for step, value in pairs if value is not None]
            if pairs:
                values = np.stack([np.asarray(value) for _, value in pairs])
                seconds = [float(step) for step, _ in pairs]
                items.append((name, self.choppers[name].decode({"values": values, "seconds": seconds})))
        return items

    def _history(self, game: Game, first: int) -> Sample:
        """Returns all items of a game from the step `first` to the current step, and the texts of the game."""
        return self._items(game, {"other": range(first, len(game.observations)), "text": (0,)})

    def _new_items(self, game: Game, step: int) -> Sample:
        """Returns the items that became known by the action of the step `step`: this action, its reward, and the
        observation and return to go of the next step."""
        return self._items(game, {"action": (step,), "reward": (step,), "other": (step + 1,)})

    # ------------------------------------------------------------------------------------------------------ actions

    def _actions(
        self, time_steps: TimeSteps, hidden: Tensor, planned: SetPlan, games: Sequence[Game]
    ) -> Iterator[np.ndarray]:
        """Yields the action of each game. The action is predicted from the output at the last token of the input
        `task.at`, or planned from this output."""
        rows, n, _ = hidden.shape
        slots = planned.chunks[self.task.at].slots
        last = torch.full((rows,), -1).scatter_reduce(0, slots // n, slots, "amax")
        vectors = hidden.flatten(0, 1)[last.to(hidden.device)]
        if self.planner:
            random = [game.random for game in games]
            yield from map(np.asarray, self.planner.actions(time_steps, vectors, len(games[0].actions), random))
            return
        output = self.head(vectors).float().cpu()
        if self.space.size is None:
            for numbers in self.task.chopper.measured(output).numpy():
                yield self._clipped(numbers.reshape(self.space.shape))
            return
        for game, logits in zip(games, output.numpy()):
            if not self.temperature:
                yield np.asarray(int(logits.argmax()))
                continue
            weights = np.exp((logits - logits.max()) / self.temperature, dtype=np.float64)
            category = np.searchsorted(np.cumsum(weights), game.random.random() * weights.sum(), side="right")
            yield np.asarray(min(int(category), len(logits) - 1))

    def _clipped(self, action: np.ndarray) -> np.ndarray:
        """Returns a numeric action in the dtype of the action space, clipped to the limits of the space if there are
        limits."""
        if self.space.low is not None:
            low, high = (np.reshape(limits, self.space.shape) for limits in (self.space.low, self.space.high))
            action = np.clip(action, low, high)
        return action.astype(self.space.dtype)


def environment_of(run: TrainedRun, playing: Playing) -> tuple[str, Mapping[str, Any]]:
    """Returns the name of the environment to play and its keyword arguments. If it is the environment of the training
    data, the keyword arguments include those of the data. Raises RunError or DataError if `playing` names no
    environment and the environment of the data is unknown. Raises RunError if the data name code outside chopmix that
    the configuration does not trust."""
    of_data = environment_of_data(run, needed=playing.environment is None)
    if of_data is None or playing.environment not in (None, of_data[0]):
        return playing.environment or "", playing.settings
    name, inherited = of_data[0], {key: value for key, value in of_data[1].items() if key not in playing.settings}
    untrusted = [inherited] if playing.environment else [name, inherited]
    for code in code_in(untrusted):  # a folder of episodes may come from someone else
        if not run.trust.allows(code.partition(":")[0]):
            reason = f"{run.folder} was trained on episodes of {name!r}; {code!r} is code outside chopmix"
            settings = "".join(
                f" --setting {shlex.quote(f'{key}={value}')}" for key, value in inherited.items() if [*code_in(value)]
            )
            raise RunError(
                f"{reason}. If you trust its author, name it yourself: --environment {shlex.quote(name)}{settings} "
                "(in a YAML: evaluation.play.environment and evaluation.play.settings)"
            )
    return name, {**inherited, **playing.settings}


def environment_of_data(run: TrainedRun, needed: bool) -> tuple[str, Mapping[str, Any]] | None:
    """Returns the name and the keyword arguments of the environment of the episodes on which the run was trained. If
    the episodes do not exist any more, both are read from the file `data.json` of the run. If the environment is
    unknown, returns None, or raises RunError or DataError if `needed` is True."""
    dataset = episodes_in(run)
    try:
        environment = None if dataset is None else (dataset.source.about.environment, dataset.source.about.options)
    except DataError:
        file = run.folder / "data.json"
        record = parse_json(file.read_bytes(), str(file)) if file.is_file() else {}
        if not isinstance(record, Mapping) or not isinstance(record.get("settings"), Mapping):
            if needed:
                raise
            return None
        environment = str(record.get("environment")), record["settings"]
    if environment is None and needed:
        raise RunError(f"{run.folder} was not trained on episodes of an environment; name one with --environment")
    if environment is not None and environment[0] == UNKNOWN:
        if needed:
            raise RunError(f"{run.folder}: its episodes do not name their environment; name one with --environment")
        return None
    return environment


def episodes_in(run: TrainedRun) -> Episodes | None:
    """Returns the data set of episodes on which the run was trained. It may be a member of a mixture. Returns None if
    the run has no such data set."""
    members = run.dataset().members() if run.has_dataset else ()
    return next((dataset for dataset in members if isinstance(dataset, Episodes)), None)


def episode_columns(run: TrainedRun) -> dict[str, str]:
    """Returns the data columns of the inputs that read episodes, by input. Inputs that read other data sets of a
    mixture are left out. If the episodes do not exist any more, or if the run was not trained on episodes, returns the
    columns of all inputs."""
    columns, dataset = run.wiring.columns, episodes_in(run)
    try:
        names = columns.values() if dataset is None else dataset.columns
    except DataError:
        names = columns.values()
    return {name: column for name, column in columns.items() if column in names}


def action_task(run: TrainedRun, spaces: Spaces) -> tuple[str, NextItem]:
    """Returns the name of the task that predicts actions, and this task. It is the first `next_item` task whose target
    reads the column `action`. Raises RunError if there is no such task, if its actions differ in kind or number from
    those of the environment, or if the run does not read its inputs in the order of time."""
    columns = run.wiring.columns
    for name, task in run.tasks.items():
        if task.needs.supervised_at and columns[task.target] == "action":
            count = task.chopper.choices or len(task.chopper.numbers)
            expected = spaces.action.size or int(np.prod(spaces.action.shape))
            if count != expected or bool(task.chopper.choices) != (spaces.action.size is not None):
                kind = "categories" if task.chopper.choices else "numbers"
                expected_kind = "categories" if spaces.action.size is not None else "numbers"
                raise RunError(f"{run.folder}: the predicted actions have {count} {kind}, but the environment expects "
                               f"{expected} {expected_kind}")  # fmt: skip
            if run.wiring.order != "seconds":
                raise RunError(f"{run.folder} does not read its inputs in the order of time; only a run that was "
                               "trained with data.order: seconds can play")  # fmt: skip
            return name, task
    raise RunError(f"{run.folder} has no task that predicts actions: {{use: next_item, target: action, at: ...}}")


def planner_of(run: TrainedRun, act: NextItem, spaces: Spaces, planning: Planning) -> Planner:
    """Returns the planner of a run. Raises RunError if the tasks do not predict the action, the reward, the return and
    every observation of a step, if one of these except the return is predicted as numbers instead of categories, or if
    the horizon does not fit into the context."""
    columns = run.wiring.columns
    predicted = {
        columns[task.target]: Predicted(task, run.model.heads[name])
        for name, task in run.tasks.items()
        if task.needs.supervised_at
    }
    observations = [name for name in episode_columns(run).values() if name in spaces.observations]
    needed = ("action", "reward", "return", *observations)
    if missing := [name for name in needed if name not in predicted]:
        raise RunError(f"{run.folder} cannot plan: no task {{use: next_item}} predicts {', '.join(missing)}")
    if numeric := [name for name in needed if name != "return" and not predicted[name].task.chopper.choices]:
        raise RunError(f"{run.folder} cannot plan with numbers: use {{use: category}} for {', '.join(numeric)}")
    observed_next = sorted((predicted[name] for name in observations), key=lambda p: p.task.chopper.offset or 0.0)
    planner = Planner(act=predicted["action"], reward=predicted["reward"], value=predicted["return"],
                      observations=observed_next, planning=planning)  # fmt: skip
    past = 2 * len(needed)  # two steps of the episode stay in the context, with the return if it is an input
    if planner.token_count + past > run.model.context:
        tokens = f"a horizon of {planning.horizon} steps needs {planner.token_count} tokens and two past steps {past}"
        raise RunError(f"{run.folder}: {tokens}, more than the context of {run.model.context}")
    return planner


def is_conditioned(run: TrainedRun) -> bool:
    """Returns whether the run reads a target return before the action of a step."""
    return bool(target_inputs(run))


def target_inputs(run: TrainedRun) -> list[str]:
    """Returns the inputs that read the return before the action of a step."""
    offsets: dict[str, list[float]] = {}
    columns = episode_columns(run)
    for name, column in columns.items():
        offsets.setdefault(column, []).append(run.choppers[name].offset or 0.0)
    action = min(offsets.get("action", [math.inf]))
    return [n for n, column in columns.items() if column == "return" and (run.choppers[n].offset or 0.0) < action]


def check_target(run: TrainedRun, target: float | None) -> None:
    """Raises RunError if `target` is not None but the run is not conditioned on returns, or if `target` is None but the
    run is conditioned on returns by an input that training never dropped."""
    columns = episode_columns(run)
    reader = next((name for name, column in columns.items() if column == "return"), None)
    if target is not None and not is_conditioned(run):
        reason = f"its input {reader!r} comes after the action" if reader else "none of its inputs reads 'return'"
        raise RunError(f"{run.folder} is not conditioned on returns: {reason}. Remove the target return (--target, "
                       "in a YAML: evaluation.play.targets)")  # fmt: skip
    if target is None and is_conditioned(run) and not {*target_inputs(run)} <= run.wiring.optional:
        raise RunError(f"{run.folder} is conditioned on returns and needs a target return: --target R (in a YAML: "
                       "evaluation.play.targets)")  # fmt: skip


def check_observations(run: TrainedRun, spaces: Spaces, environment: Any, target: float | None = None) -> None:
    """Raises RunError if an input reads a column that the environment does not have, if an input cannot read the values
    of the environment or the target return, and in the cases of `check_target`."""
    columns = episode_columns(run)
    check_target(run, target)
    possible = {"return", "reward", "action", "step", *spaces.observations, *spaces.texts}
    observation = reset(environment, 0)
    for name, column in columns.items():
        if column not in possible:
            raise RunError(f"{run.folder}: the input {name!r} reads {column!r}, which this environment does not have; "
                           f"its observations are {', '.join((*spaces.observations, *spaces.texts))}")  # fmt: skip
        chopper, space = run.choppers[name], spaces.observations.get(column)
        if space and space.size is not None and chopper.choices is not None and chopper.choices < space.size:
            raise RunError(f"{run.folder}: the input {name!r} has {chopper.choices} categories, but {column!r} has "
                           f"{space.size} in this environment")  # fmt: skip
        value = np.asarray(target) if column == "return" and target is not None else observation.arrays.get(column)
        if value is not None:
            try:
                chopper.decode({"values": value[None], "seconds": [0.0]})
            except DataError as error:
                raise RunError(
                    f"{run.folder}: the input {name!r} cannot read {column!r} of this environment: {error}"
                ) from None


Watch = Callable[[Any], None]


def episodes_of(
    run: TrainedRun, playing: Playing, target: float | None, numbers: Sequence[int], watch: Watch | None = None,
    stream: int = PLAYS,
) -> Iterator[Episode]:  # fmt: skip
    """Plays the episodes with these numbers and yields the episodes in order. `watch` is called with the environment of
    the first episode before each step of this episode and after the last one. `stream` is a parameter of `Player`.
    Raises RunError if the run does not fit the environment, and DataError if the environment cannot be created."""
    name, settings = environment_of(run, playing)
    count = min(playing.together, len(numbers))
    environments = [make_environment(name, settings, render=watch is not None and not i) for i in range(count)]
    player = player_of(run, playing, target, environments[0], stream)
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


def player_of(run: TrainedRun, playing: Playing, target: float | None, environment: Any, stream: int = PLAYS) -> Player:
    """Returns the agent that plays episodes with this run. Raises RunError if the run does not fit the environment."""
    spaces = spaces_of(environment)
    name, task = action_task(run, spaces)
    planner = playing.plan and planner_of(run, task, spaces, playing.plan)
    check_observations(run, spaces, environment, target)
    return Player(
        model=run.model, task=task, head=run.model.heads[name], choppers=run.choppers, space=spaces.action,
        columns=episode_columns(run), temperature=playing.temperature, seed=playing.seed, stream=stream,
        planner=planner,
        dtype=torch.bfloat16 if run.precision == "bfloat16" and run.model_device.type == "cuda" else torch.float32,
    )  # fmt: skip


def configured(config: Config) -> Playing:
    """Returns the settings `evaluation.play` of a configuration, or the default settings if the configuration has
    none."""
    play = config.evaluation.also.get("play")
    return play() if play else Playing()


def check_plays(run: TrainedRun, playing: Playing) -> None:
    """Raises RunError or DataError if the run cannot play with these settings."""
    name, settings = environment_of(run, playing)
    environment = make_environment(name, settings)
    for target in playing.metric_targets.values():
        player_of(run, playing, target, environment)
    environment.close()


def target_warnings(returns: Mapping[str, float] | None, targets: Sequence[float]) -> list[str]:
    """Returns a warning for each target return outside the range of the training data. `returns` contains the lowest
    (`worst`) and the highest (`best`) return of the data. None: no warnings are returned."""
    return [
        f"the target return {target:g} is outside the range of the training data, {returns['worst']:g} to "
        f"{returns['best']:g}"
        for target in targets
        if returns and not returns["worst"] <= target <= returns["best"]
    ]


def agent_kind(run: TrainedRun) -> str:
    """Returns the kind of agent: `target return` if the run is conditioned on returns, else `cloning` (the run imitates
    actions). If the run was trained only on a share of the episodes with the highest returns, this share is added:
    `cloning of the best 10%`."""
    if is_conditioned(run):
        return "target return"
    dataset = episodes_in(run)
    best = "" if dataset is None or dataset.best == 1 else f" of the best {dataset.best:.0%}"
    return f"cloning{best}"


def figures_of(episodes: Sequence[Episode]) -> dict[str, float]:
    """Returns figures of several episodes: the mean `return`, its standard `error`, the lowest return (`least`), the
    highest return (`most`), the share of episodes with a positive return (`rewarded`), and the mean number of
    `steps`."""
    values = np.array([episode.value for episode in episodes])
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return {
        "return": values.mean(), "error": error, "least": values.min(), "most": values.max(),
        "rewarded": (values > 0).mean(), "steps": np.mean([len(episode.rewards) for episode in episodes]),
    }  # fmt: skip


def play_metrics(run: TrainedRun, playing: Playing) -> dict[str, float]:
    """Plays `playing.episodes` episodes for each target return, and returns the mean returns by the names of
    `Playing.metric_targets`."""
    numbers = range(playing.episodes)
    played = {name: list(episodes_of(run, playing, target, numbers)) for name, target in playing.metric_targets.items()}
    return {name: float(figures_of(episodes)["return"]) for name, episodes in played.items()}


def data_figures(run: TrainedRun) -> dict[str, float] | None:
    """Returns the mean, the lowest (`worst`) and the highest (`best`) return of the training episodes. Returns None if
    the run was not trained on episodes, or if the episodes do not exist any more."""
    dataset = episodes_in(run)
    if dataset is None or not dataset.source.is_available:
        return None
    values = dataset.played.values[dataset.chosen("train")]
    return {"mean": float(values.mean()), "worst": float(values.min()), "best": float(values.max())}
