"""Agents that are not models: an agent that acts at random, and scripts that play some environments well."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ....files.reading import DataError
from .making import Observed, search_here

if TYPE_CHECKING:
    import gymnasium


class GaveUp(Exception):
    """Raised by an agent that cannot continue an episode. The episode is then played again from another start state."""


class Agent(ABC):
    """Base class of agents. An agent plays one episode in an environment that has been reset."""

    last_action: Any = None
    """The action that was executed in the preceding step: the result of `act`, or the random action that replaced this
    result (`--noise`). None at the first step."""

    def __init__(self, environment: gymnasium.Env, random: np.random.Generator):
        self.environment, self.random = environment, random

    @abstractmethod
    def act(self, observation: Observed) -> Any:
        """Returns the action at an observation. Raises GaveUp if the agent cannot continue."""

    def random_action(self) -> Any:
        """Returns a random action. A discrete action is uniform. A number with two finite limits is uniform between the
        limits. Any other number is normally distributed and clipped to its finite limit, if there is one."""
        space = self.environment.action_space
        if hasattr(space, "n"):
            return int(self.random.integers(space.n))
        bounded = np.isfinite(space.low) & np.isfinite(space.high)
        if bounded.all():
            return self.random.uniform(space.low, space.high).astype(space.dtype)
        drawn = self.random.uniform(np.where(bounded, space.low, 0), np.where(bounded, space.high, 1))
        wild = np.clip(self.random.normal(size=space.shape), space.low, space.high)
        return np.where(bounded, drawn, wild).astype(space.dtype)


class CallableAgent(Agent):
    """Acts by a user-defined function, or an object that can be called, from an observation to an action. The
    observation is the value that the environment returns: an array, or for several observations a mapping from their
    names to arrays and texts."""

    def __init__(self, environment: gymnasium.Env, random: np.random.Generator, call: Callable[[Any], Any]):
        super().__init__(environment, random)
        self.call = call

    def act(self, observation: Observed) -> Any:
        parts = {**observation.arrays, **observation.texts}
        return self.call(parts["observation"] if [*parts] == ["observation"] else parts)


class Random(Agent):
    """Acts at random."""

    def act(self, observation: Observed) -> Any:
        return self.random_action()


class BalancesPole(Agent):
    """CartPole: pushes in the direction in which the pole falls, and keeps the cart near the middle."""

    def act(self, observation: Observed) -> int:
        position, speed, angle, turning = observation.arrays["observation"]
        return int(angle + 0.5 * turning + 0.05 * position + 0.1 * speed > 0)


class SwingsPendulum(Agent):
    """Pendulum: swings it up by controlling its energy, and balances it (Astrom & Furuta 2000)."""

    def act(self, observation: Observed) -> np.ndarray:
        cosine, sine, turning = map(float, observation.arrays["observation"])
        angle = np.arctan2(sine, cosine)
        if cosine > 0.85:
            torque = -10.0 * angle - 2.0 * turning
        else:
            lacking = 5.0 * (1 - cosine) * 1.0 - turning**2 / 6.0  # energy of a rod: gravity 10, length 1, mass 1
            torque = 2.0 * np.sign(turning if turning else 1.0) * np.sign(lacking)
        return np.clip(np.array([torque], np.float32), -2.0, 2.0)


class FindsDoor(Agent):
    """KeyToDoor: moves to the key, then to the door."""

    def act(self, observation: Observed) -> int:
        if "observation" in observation.arrays:
            cells = observation.arrays["observation"]
            agent, things = np.argwhere(cells == 1)[0], np.argwhere(cells > 1)
        else:  # cells are numbered from 1, by rows of five
            agent, thing = (int(observation.arrays[name]) - 1 for name in ("agent", "thing"))
            agent, things = np.array(divmod(agent, 5)), np.array([divmod(thing, 5)] if thing >= 0 else [])
        if not len(things):
            return self.random_action()
        down, right = things[0] - agent
        return (0 if down < 0 else 1) if down else (2 if right < 0 else 3)


class BabyBot(Agent):
    """BabyAI: the bot of the minigrid package, which can read the complete state of the environment. The bot gives up,
    for example, if a random action has opened a box."""

    def __init__(self, environment: gymnasium.Env, random: np.random.Generator):
        super().__init__(environment, random)
        from minigrid.utils.baby_ai_bot import BabyAIBot

        self.bot = BabyAIBot(environment)

    def act(self, observation: Observed) -> int:
        try:
            return int(self.bot.replan(self.last_action))
        except Exception as error:  # the bot raises its own exception or an AssertionError
            raise GaveUp(f"{type(error).__name__}: {error}") from error


SCRIPTS: dict[str, Callable[..., Agent]] = {
    "CartPole-v0": BalancesPole, "CartPole-v1": BalancesPole, "Pendulum-v1": SwingsPendulum,
    "chopmix/KeyToDoor-v0": FindsDoor,
}  # fmt: skip
"""The scripts by the name of the environment."""


NEITHER = (
    "it is neither a subclass of chopmix.Agent (with a method `act(self, observation)`) nor a function from an "
    "observation to an action"
)


def dir_of(cls: type) -> set[str]:
    """Returns the names that a class and its bases define, without those of `type`."""
    return {name for base in cls.__mro__ for name in vars(base)}


def agent_of(policy: str, environment: str) -> Callable[[gymnasium.Env, np.random.Generator], Agent]:
    """Returns a function that creates the agent for the value of `--policy`: `random`, `script`, `bot`, or a
    user-defined package.module:name. The name is a subclass of `Agent`, a function from an observation to an action, or
    a class without arguments whose objects are such functions; each episode has a new object. Raises DataError if the
    environment has no script or no bot, if the name cannot be imported or is none of these, or if the value has none of
    these forms."""
    if policy == "random":
        return Random
    if policy == "script":
        if environment not in SCRIPTS:
            raise DataError(f"{environment!r} has no script; there are scripts for {', '.join(SCRIPTS)}")
        return SCRIPTS[environment]
    if policy == "bot":
        if not environment.startswith("BabyAI-"):
            raise DataError(f"{environment!r} has no bot; only BabyAI's environments have one")
        return BabyBot
    module, _, name = policy.partition(":")
    if not name:  # not a class: nothing is imported
        raise DataError(f"policy {policy!r}: possible are random, script, bot, package.module:name, a run's folder")
    search_here()
    try:
        agent = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        possible = "random, script, bot, package.module:name, a run's folder"
        raise DataError(f"policy {policy!r}: {error}; possible are {possible}") from None
    if isinstance(agent, type) and issubclass(agent, Agent):
        return agent
    if not callable(agent) or (isinstance(agent, type) and "__call__" not in dir_of(agent)):
        raise DataError(f"policy {policy!r}: {NEITHER}")
    return lambda environment, random: CallableAgent(environment, random, agent() if isinstance(agent, type) else agent)
