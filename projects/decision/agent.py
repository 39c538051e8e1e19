"""Playing: a trained model acts in environments, many side by side, told what return to reach."""

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

from ...experiment.run_folder import RunError
from ...experiment.settings.config import Config
from ...files.reading import DataError
from ...files.records import parse_json
from ...files.trust import code_in
from ...inference.evaluator import TrainedModel
from ...models.batch import SetPlan
from ...models.model import Model
from ...tasks.next_item import NextItem
from ...tokenizers.base import Chopper, chopped
from .datasets.episodes import Episodes
from .environments.episodes import UNKNOWN, Episode, episode_of
from .environments.making import (
    PLAYS,
    Observed,
    Space,
    Spaces,
    begin,
    check_action,
    check_length,
    make_environment,
    observed,
    reward_of,
    spaces_of,
)
from .planning import Planner, Planning, Predicted
from .time_steps import Sample, TimeSteps

TOGETHER = 64
"""Episodes that are played side by side."""


@dataclass(frozen=True, kw_only=True)
class Playing:
    """How a trained model plays: for each return that is asked for, so many episodes."""

    environment: str | None = None
    """A name that gymnasium knows; null: that of the data."""
    settings: dict[str, bool | int | float | str] = field(default_factory=dict)
    """What the environment itself takes, beside what the data say."""
    targets: tuple[float, ...] = ()
    """The returns that are asked for; none: the model is told no return."""
    episodes: int = 20
    """Episodes for each of them."""
    temperature: float = 1.0
    """Of actions that are drawn; 0: the likeliest are taken."""
    seed: int = 1
    """Of the episodes, and of what is drawn in them."""
    together: int = TOGETHER
    """Episodes side by side."""
    plan: Planning | None = None
    """How actions are planned; null: each is the model's next."""

    def __post_init__(self):
        if not 0 <= self.temperature < math.inf or min(self.together, self.episodes) < 1:
            told = f"temperature {self.temperature:g}, together {self.together}, episodes {self.episodes}"
            raise ValueError(f"temperature must be at least 0, together and episodes at least 1; they are {told}")
        if not all(map(math.isfinite, self.targets)):
            raise ValueError(f"the returns that are asked for must be finite numbers, not {list(self.targets)}")

    @property
    def asked(self) -> dict[str, float | None]:
        """The name of each metric, and the return that is asked for: {"return_at_500": 500.0}, or {"return": None}."""
        return {f"return_at_{target:g}": target for target in self.targets} or {"return": None}


@dataclass
class Game:
    """One episode that is being played."""

    environment: Any
    number: int
    start: int
    """The seed of the environment."""
    random: np.random.Generator
    to_go: float | None
    """The return that is still asked for; None: none is."""
    seen: list[Observed] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)
    """The return that was asked for at each step."""

    def observe(self, seen: Observed) -> None:
        """Take what the environment shows next."""
        self.seen.append(seen)
        self.asked.append(self.to_go if self.to_go is not None else np.nan)

    def column(self, name: str, step: int) -> Any:
        """The raw value of a data column at a step, as the data set `episodes` has it; None where there is none yet."""
        if name == "action":
            return self.actions[step] if step < len(self.actions) else None
        if name == "reward":
            return self.rewards[step] if step < len(self.rewards) else None
        if name == "return":
            return None if self.to_go is None else self.asked[step]
        return float(step) if name == "step" else self.seen[step].arrays.get(name)


@dataclass(frozen=True, kw_only=True)
class Player:
    """A model that acts by its task `task`; `columns` maps its inputs to data columns (see the data set `episodes`).

    Actions that are categories are drawn at `temperature` (0: the likeliest); of numbers the prediction is taken,
    within the limits of the space. Each episode's draws depend on `seed`, `stream` and its number alone."""

    model: Model
    task: NextItem
    head: Callable[[Tensor], Tensor]
    """That of the task."""
    choppers: Mapping[str, Chopper]
    columns: Mapping[str, str]
    space: Space
    """Of the actions."""
    temperature: float = 1.0
    seed: int = 0
    stream: int = PLAYS
    """The key of the random draws: PLAYS, or ACTS for episodes that are recorded."""
    dtype: torch.dtype = torch.float32
    planner: Planner | None = None
    """Chooses the actions where there is one."""

    @torch.inference_mode()
    def play(
        self, environments: Sequence[Any], numbers: Sequence[int], target: float | None = None,
        watch: Callable[[Any], None] = lambda environment: None,
    ) -> list[Episode]:  # fmt: skip
        """The episodes of these numbers, one in each environment, side by side. `target` is the return that is asked
        for; None: the model is told none. `watch` is called with the first environment before each of its steps."""
        games = [self._begun(environment, number, target) for environment, number in zip(environments, numbers)]
        moments, done, playing, since = TimeSteps(self.model, self.choppers, self.dtype), {}, list(games), 0
        hidden = None
        while playing:
            step = len(playing[0].actions)
            if hidden is None:
                hidden = moments.begin([self._history(game, 0) for game in playing])
            for game, action in zip(playing, self._actions(moments, *hidden, playing)):
                if game is games[0]:
                    watch(game.environment)
                if (episode := self._act(game, action)) is not None:
                    done[game.number] = episode
            left = [row for row, game in enumerate(playing) if game.number not in done]
            playing = [playing[row] for row in left]
            if not playing:
                break
            if len(left) < len(moments.rows):
                moments.keep(left)
            news = [self._news(game, step) for game in playing]
            more = max(sum(chopped(name, self.choppers[name], item).count for name, item in new) for new in news)
            if moments.length + more + (self.planner.room if self.planner else 0) <= self.model.context:
                hidden = moments.read(news)
            else:  # read the later half of what was read once more
                since = max(since + (step + 1 - since + 1) // 2, since + 1)
                hidden = moments.begin([self._history(game, since) for game in playing])
        return [done[number] for number in numbers]

    def _begun(self, environment: Any, number: int, target: float | None) -> Game:
        random = np.random.default_rng([self.seed, number, self.stream])
        start = int(random.integers(2**31))
        game = Game(environment, number, start, random, target)
        game.observe(begin(environment, start))
        return game

    def _act(self, game: Game, action: np.ndarray) -> Episode | None:
        """Act in the environment; gives the episode where that ends it."""
        check_action(action, self.space)
        value, reward, ended, cut, _ = game.environment.step(int(action) if self.space.size else action)
        game.actions.append(action)
        game.rewards.append(reward_of(reward))
        if game.to_go is not None:
            game.to_go -= game.rewards[-1]
        if ended or cut:
            return episode_of(game.seen, game.actions, game.rewards, bool(ended), game.start)
        check_length(len(game.actions))
        game.observe(observed(value))
        return None

    # ------------------------------------------------------------------------------------------------ what is read

    def _items(self, game: Game, steps: Mapping[str, Sequence[int]]) -> Sample:
        """What each input holds of some steps of a game, by input, as decoded items with their seconds."""
        found = []
        for name, column in self.columns.items():
            if column in game.seen[0].texts:
                if 0 in steps.get("text", ()):
                    found.append((name, self.choppers[name].decode(game.seen[0].texts[column])))
                continue
            held = [(step, game.column(column, step)) for step in steps.get(column, steps["seen"])]
            held = [(step, value) for step, value in held if value is not None]
            if held:
                values, seconds = np.stack([np.asarray(value) for _, value in held]), [float(step) for step, _ in held]
                found.append((name, self.choppers[name].decode({"values": values, "seconds": seconds})))
        return found

    def _history(self, game: Game, since: int) -> Sample:
        """All that a game has from a step on, and its texts."""
        return self._items(game, {"seen": range(since, len(game.seen)), "text": (0,)})

    def _news(self, game: Game, step: int) -> Sample:
        """What a game has since it acted at `step`: the action, its reward, and the next observation."""
        return self._items(game, {"action": (step,), "reward": (step,), "seen": (step + 1,)})

    # ------------------------------------------------------------------------------------------- what is done then

    def _actions(
        self, moments: TimeSteps, hidden: Tensor, planned: SetPlan, playing: Sequence[Game]
    ) -> Iterator[np.ndarray]:
        """Each game's action, predicted at the last token of the task's `at`, or planned from there."""
        rows, n, _ = hidden.shape
        slots = planned.chunks[self.task.at].slots
        last = torch.full((rows,), -1).scatter_reduce(0, slots // n, slots, "amax")
        vectors = hidden.flatten(0, 1)[last.to(hidden.device)]
        if self.planner:
            random = [game.random for game in playing]
            yield from map(np.asarray, self.planner.actions(moments, vectors, len(playing[0].actions), random))
            return
        output = self.head(vectors).float().cpu()
        if self.space.size is None:
            for numbers in self.task.chopper.measured(output).numpy():
                yield self._limited(numbers.reshape(self.space.shape))
            return
        for game, scores in zip(playing, output.numpy()):
            if not self.temperature:
                yield np.asarray(int(scores.argmax()))
                continue
            chances = np.exp((scores - scores.max()) / self.temperature, dtype=np.float64)
            drawn = np.searchsorted(np.cumsum(chances), game.random.random() * chances.sum(), side="right")
            yield np.asarray(min(int(drawn), len(scores) - 1))

    def _limited(self, action: np.ndarray) -> np.ndarray:
        """Numbers within the limits of the space, of its kind."""
        if self.space.low is not None:
            low, high = (np.reshape(each, self.space.shape) for each in (self.space.low, self.space.high))
            action = np.clip(action, low, high)
        return action.astype(self.space.dtype)


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
        if task.needs.supervised_at and columns[task.target] == "action":
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
        if task.needs.supervised_at
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
