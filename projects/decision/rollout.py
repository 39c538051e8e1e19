"""Playing: a trained model acts in environments, many side by side, told what return to reach."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...models.batch import SetPlan
from ...models.model import Model
from ...tasks.next_item import NextItem
from ...tokenizers.base import Chopper
from ...tokenizers.chopping.contract import chopped
from .environments.episodes import Episode, episode_of
from .environments.making import PLAYS, begin, check_length, reward_of
from .environments.spaces import Observed, Space, check_action, observed
from .moments import Moments, Sample
from .planning import Planner, Planning

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
        moments, done, playing, since = Moments(self.model, self.choppers, self.dtype), {}, list(games), 0
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
        self, moments: Moments, hidden: Tensor, planned: SetPlan, playing: Sequence[Game]
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
