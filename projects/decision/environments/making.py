"""Environments by name, made through gymnasium, and what is observed and done in them."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ....files.reading import DataError
from ....files.records import Record
from ....files.trust import search_here

if TYPE_CHECKING:
    import gymnasium

OWN = ("return", "reward", "action", "step", "score")
"""The columns of all episodes, besides what is observed."""


class Space(Record):
    """What one observation, or an action, is: `size` categories where that is given, else numbers of this `shape`."""

    shape: tuple[int, ...]
    dtype: str
    size: int | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    """Of numbers the limits, flattened, where all are finite."""


class Spaces(Record):
    """What an agent observes and does: `observations` by name (`observation` where there is only one), the names of the
    `texts` among them, which stay the same for an episode, and the `action`."""

    observations: dict[str, Space]
    texts: tuple[str, ...]
    action: Space


class Observed(NamedTuple):
    """One observation: arrays by name, and texts by name."""

    arrays: dict[str, np.ndarray]
    texts: dict[str, str]


def named(name: str) -> str:
    """The column of something that an environment observes: its name, `observation.step` for one that every episode has
    itself (`OWN`)."""
    return f"observation.{name}" if name in OWN else name


def observed(value: Any) -> Observed:
    """An observation as arrays and texts by name, a copy: an environment may show the same array again, changed. A
    single one is called `observation`. Raises DataError where a part of it is no array."""
    parts = value if isinstance(value, Mapping) else {"observation": value}
    texts = {named(name): each for name, each in parts.items() if isinstance(each, str)}
    arrays = {}
    for name, each in parts.items():
        if isinstance(each, str):
            continue
        try:
            arrays[named(name)] = np.array(each)
        except ValueError as error:
            raise DataError(f"observation {name!r} is no array: {error}") from None
    return Observed(arrays, texts)


def spaces_of(environment: gymnasium.Env) -> Spaces:
    """What an agent observes and does in the environment. Raises DataError for spaces that are neither categories, nor
    numbers, nor texts."""
    from gymnasium import spaces

    own = environment.observation_space
    parts = dict(own.items()) if isinstance(own, spaces.Dict) else {"observation": own}
    if len({named(name) for name in parts}) < len(parts):
        raise DataError(f"what is observed, {', '.join(parts)}, has one name twice: observation.NAME stands for NAME")
    texts = tuple(named(name) for name, each in parts.items() if _is_text(each))
    told = {named(name): _space(each, f"observation {name!r}") for name, each in parts.items() if not _is_text(each)}
    return Spaces(observations=told, texts=texts, action=_space(environment.action_space, "the action"))


def _is_text(space: Any) -> bool:
    """Whether a space holds texts, as gymnasium's own and BabyAI's missions do: what has neither a shape nor parts."""
    from gymnasium import spaces

    parts = ("spaces", "feature_space", "node_space")
    return isinstance(space, spaces.Text) or (space.shape is None and not any(hasattr(space, name) for name in parts))


def _space(space: Any, what: str) -> Space:
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete) and space.start == 0:
        return Space(shape=(), dtype="int64", size=int(space.n))
    if isinstance(space, spaces.Box):
        return numbers(tuple(space.shape), str(space.dtype), space.low, space.high)
    raise DataError(f"{what} is {space}; possible are Discrete from 0, Box, and Dict of these and texts")


def numbers(shape: tuple[int, ...], dtype: str, low: Any, high: Any) -> Space:
    """The space of numbers between these limits, which are kept where all are finite and they are few."""
    low, high = (np.asarray(each, dtype=float).flatten() for each in (low, high))
    known = len(low) == len(high) <= 64 and bool(np.isfinite(low).all() and np.isfinite(high).all())
    limits = {"low": tuple(map(float, low)), "high": tuple(map(float, high))} if known else {}
    return Space(shape=shape, dtype=dtype, **limits)


def check_action(action: np.ndarray, space: Space) -> None:
    """Raises DataError for an action outside of the space."""
    if action.dtype.kind not in ("iub" if space.size is not None else "iufb"):
        wanted = "a whole number" if space.size is not None else "numbers"
        raise DataError(f"an action must be {wanted}, not {action.tolist()!r}")
    if action.shape != space.shape or not np.isfinite(action).all():
        raise DataError(f"an action of shape {action.shape} is outside the space, whose actions have {space.shape}")
    if space.size is not None and not 0 <= int(action) < space.size:
        raise DataError(f"action {int(action)} is outside the space: 0 to {space.size - 1}")
    if space.low is not None and not ((action.flatten() >= space.low) & (action.flatten() <= space.high)).all():
        raise DataError(f"action {action.tolist()} is outside the space: {list(space.low)} to {list(space.high)}")


def first_outside(actions: np.ndarray, space: Space) -> int | None:
    """The number of the first of t actions (t, ...) that is outside of the space; None where all are inside."""
    flat = actions.reshape(len(actions), -1)
    bad = ~np.isfinite(flat).all(1)
    if space.size is not None:
        bad |= ((flat < 0) | (flat >= space.size)).any(1)
    if space.low is not None:
        bad |= ((flat < space.low) | (flat > space.high)).any(1)
    return int(np.flatnonzero(bad)[0]) if bad.any() else None


if TYPE_CHECKING:
    import gymnasium

REGISTERED = {"chopmix/KeyToDoor-v0": "chopmix.projects.decision.environments.key_to_door:KeyToDoor"}
"""Our own environments, registered with gymnasium when one is first made."""
REGISTERED_BY = {"BabyAI-": "minigrid", "MiniGrid-": "minigrid", "ALE/": "ale_py"}
"""The packages that register the environments whose names begin so."""


LONGEST = 100_000
"""Steps after which an episode that neither ends nor is cut is given up."""

ACTS, NOISE, PLAYS = 23, 24, 25
"""Keys of random draws: of a recorded episode's start and actions; of how often its actions are random; of the start
and the actions of an episode that a run plays to be judged, so that it does not begin where one was recorded."""


def make_environment(name: str, options: Mapping[str, Any] | None = None, render: bool = False) -> gymnasium.Env:
    """The environment that gymnasium makes of this name (also `package.module:Name-v0`) and options. Raises DataError
    where a package is missing, the name is not known, or the environment refuses its options."""
    try:
        import gymnasium
    except ImportError:
        raise DataError(f"environment {name!r} needs gymnasium: pip install 'chopmix[decision]'") from None
    if ":" in name:  # a user's own stand where the command is given, as for `python -m`
        search_here()
    package = next((package for start, package in REGISTERED_BY.items() if name.startswith(start)), None)
    try:
        if package:
            importlib.import_module(package)
        for own, place in REGISTERED.items():
            if own not in gymnasium.registry:
                gymnasium.register(own, place)
        shown = {"render_mode": "rgb_array"} if render else {}
        return gymnasium.make(name, **shown, **(options or {}))
    except ImportError as error:
        missing = error.name or package or name.partition(":")[0]
        raise DataError(f"environment {name!r} needs {missing!r}, which is not installed: {error}") from None
    except (gymnasium.error.Error, TypeError, ValueError, AssertionError) as error:
        unknown = isinstance(error, gymnasium.error.NameNotFound | gymnasium.error.NamespaceNotFound)
        own = f" An environment of your own is named with the module that registers it: my_env:{name}"
        hint = own if unknown and package is None and ":" not in name else ""
        raise DataError(f"environment {name!r} cannot be made: {error}{hint}") from None


def begin(environment: gymnasium.Env, seed: int) -> Observed:
    """The first observation of an episode. What the environment prints meanwhile, as BabyAI does, is not shown."""
    with contextlib.redirect_stdout(io.StringIO()):
        return observed(environment.reset(seed=seed)[0])


def reward_of(reward: Any) -> float:
    """A reward as a number. Raises DataError where it is none, or not finite."""
    try:
        found = float(reward)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"the environment gave the reward {reward!r}, which is no finite number")
    return found


def check_length(steps: int) -> None:
    """Raises DataError for an episode of LONGEST steps that has not ended."""
    if steps >= LONGEST:
        told = f"an episode has not ended after {LONGEST:,} steps"
        raise DataError(f"{told}; --setting max_episode_steps=1000 (in a YAML `settings`) cuts it")
