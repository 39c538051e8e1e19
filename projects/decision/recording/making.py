"""Environments, which gymnasium creates from their names, and the spaces of their observations and actions."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ....files.plugins import modules_of
from ....files.reading import DataError
from ....files.records import Record
from ....files.trust import search_here

if TYPE_CHECKING:
    import gymnasium

EPISODE_COLUMNS = ("return", "reward", "action", "step", "score")
"""The data columns of all episodes. The observations are further columns."""


class Space(Record):
    """The space of an observation or of the action. The values are `size` categories, or numbers of the shape `shape`
    if `size` is None."""

    shape: tuple[int, ...]
    dtype: str
    size: int | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    """The limits of the numbers, flattened. None unless all limits are finite and there are at most 64."""


class Spaces(Record):
    """The spaces of an environment: the spaces of `observations` by name (`observation` if there is only one), the
    names of observed `texts`, and the space of the `action`. A text stays the same in an episode."""

    observations: dict[str, Space]
    texts: tuple[str, ...]
    action: Space


class Observed(NamedTuple):
    """One observation of an environment: arrays and texts by name."""

    arrays: dict[str, np.ndarray]
    texts: dict[str, str]


def column_of(name: str) -> str:
    """Returns the data column of an observation. It is the name of the observation. If the name is one of
    EPISODE_COLUMNS, such as `step`, it is `observation.step`."""
    return f"observation.{name}" if name in EPISODE_COLUMNS else name


def observed(value: Any) -> Observed:
    """Returns an observation as arrays and texts by data column. If the observation is not a mapping, its name is
    `observation`. Arrays are copied, because an environment may change its arrays later. Raises DataError if a part of
    the observation cannot be converted to an array."""
    parts = value if isinstance(value, Mapping) else {"observation": value}
    texts = {column_of(name): part for name, part in parts.items() if isinstance(part, str)}
    arrays = {}
    for name, part in parts.items():
        if isinstance(part, str):
            continue
        try:
            arrays[column_of(name)] = np.array(part)
        except ValueError as error:
            raise DataError(f"observation {name!r} is not an array: {error}") from None
    return Observed(arrays, texts)


def spaces_of(environment: gymnasium.Env) -> Spaces:
    """Returns the spaces of an environment. Raises DataError if a space is neither `Discrete` from 0, nor `Box`, nor
    texts, or if two observations have the same data column."""
    from gymnasium import spaces

    space = environment.observation_space
    parts = dict(space.items()) if isinstance(space, spaces.Dict) else {"observation": space}
    if len({column_of(name) for name in parts}) < len(parts):
        raise DataError(f"two of the observations {', '.join(parts)} would have the same column, observation.NAME")
    texts = tuple(column_of(name) for name, part in parts.items() if _is_text(part))
    arrays = {column_of(n): _space(part, f"observation {n!r}") for n, part in parts.items() if not _is_text(part)}
    return Spaces(observations=arrays, texts=texts, action=_space(environment.action_space, "the action"))


def _is_text(space: Any) -> bool:
    """Returns whether a space contains texts. These are the space `Text` of gymnasium, and spaces without a shape and
    without parts, such as the space of BabyAI."""
    from gymnasium import spaces

    parts = ("spaces", "feature_space", "node_space")
    return isinstance(space, spaces.Text) or (space.shape is None and not any(hasattr(space, name) for name in parts))


def _space(space: Any, what: str) -> Space:
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete) and space.start == 0:
        return Space(shape=(), dtype="int64", size=int(space.n))
    if isinstance(space, spaces.Box):
        return box_space(tuple(space.shape), str(space.dtype), space.low, space.high)
    raise DataError(f"{what} has the space {space}; possible are Discrete from 0, Box, and Dict of these and texts")


def box_space(shape: tuple[int, ...], dtype: str, low: Any, high: Any) -> Space:
    """Returns the space of numbers between the limits `low` and `high`. The limits are dropped if one of them is not
    finite, if there are more than 64, or if there are not equally many of both."""
    low, high = (np.asarray(limit, dtype=float).flatten() for limit in (low, high))
    kept = len(low) == len(high) <= 64 and bool(np.isfinite(low).all() and np.isfinite(high).all())
    limits = {"low": tuple(map(float, low)), "high": tuple(map(float, high))} if kept else {}
    return Space(shape=shape, dtype=dtype, **limits)


def check_action(action: np.ndarray, space: Space) -> None:
    """Raises DataError if an action has another type or shape than the space, is not finite, or is outside the limits
    of the space."""
    if action.dtype.kind not in ("iub" if space.size is not None else "iufb"):
        expected = "an integer" if space.size is not None else "numbers"
        raise DataError(f"an action must be {expected}, not {action.tolist()!r}")
    if action.shape != space.shape or not np.isfinite(action).all():
        expected = f"finite numbers of shape {space.shape}"
        raise DataError(f"an action of shape {action.shape} is outside the space: {expected}")
    if space.size is not None and not 0 <= int(action) < space.size:
        raise DataError(f"action {int(action)} is outside the space: 0 to {space.size - 1}")
    if space.low is not None and not ((action.flatten() >= space.low) & (action.flatten() <= space.high)).all():
        raise DataError(f"action {action.tolist()} is outside the space: {list(space.low)} to {list(space.high)}")


def first_outside(actions: np.ndarray, space: Space) -> int | None:
    """Returns the index of the first action outside the space, or None if all actions are inside. `actions` contains
    one action per row."""
    flat = actions.reshape(len(actions), -1)
    bad = ~np.isfinite(flat).all(1)
    if space.size is not None:
        bad |= ((flat < 0) | (flat >= space.size)).any(1)
    if space.low is not None:
        bad |= ((flat < space.low) | (flat > space.high)).any(1)
    return int(np.flatnonzero(bad)[0]) if bad.any() else None


def plug_ins() -> dict[str, str]:
    """Returns the environments in the folders `environments/` of all projects, as `module:Class` by their names in
    gymnasium. For example, the class KeyToDoor in key_to_door.py has the name `chopmix/KeyToDoor-v0`."""
    classes = {"".join(map(str.title, stem.split("_"))): module for stem, module in modules_of("environments").items()}
    return {f"chopmix/{name}-v0": f"{module}:{name}" for name, module in classes.items()}


REGISTERED_BY = {"BabyAI-": "minigrid", "MiniGrid-": "minigrid", "ALE/": "ale_py"}
"""The packages that register environments, by the prefix of the environments' names."""

LONGEST = 100_000
"""The maximum number of steps of an episode. A longer episode raises DataError."""

ACTS, NOISE, PLAYS = 23, 24, 25
"""Streams of random numbers, which differ for the same seed and episode. ACTS: the start state and the actions of a
recorded episode. NOISE: the share of random actions of a recorded episode. PLAYS: the start state and the actions of an
episode of an evaluation. An evaluation therefore has other start states than a recording."""


def make_environment(name: str, options: Mapping[str, Any] | None = None, render: bool = False) -> gymnasium.Env:
    """Creates the gymnasium environment `name`, which may have the form `package.module:Name-v0`. `options` are its
    keyword arguments. Raises DataError if a package is missing, if the name is unknown, or if the environment does not
    accept the options."""
    try:
        import gymnasium
    except ImportError:
        raise DataError(f"environment {name!r} needs gymnasium: pip install 'chopmix[decision]'") from None
    if ":" in name:  # the user's modules are in the working directory, as for `python -m`
        search_here()
    package = next((package for start, package in REGISTERED_BY.items() if name.startswith(start)), None)
    try:
        if package:
            importlib.import_module(package)
        for registered, entry_point in plug_ins().items():
            if registered not in gymnasium.registry:
                gymnasium.register(registered, entry_point)
        rendering = {"render_mode": "rgb_array"} if render else {}
        return gymnasium.make(name, **rendering, **(options or {}))
    except ImportError as error:
        missing = error.name or package or name.partition(":")[0]
        if not isinstance(error, ModuleNotFoundError):
            raise DataError(f"environment {name!r}: {missing!r} cannot be imported: {error}") from None
        hint = " (without .py)" if missing.endswith("py") and ".py:" in name else ""
        raise DataError(f"environment {name!r} needs {missing!r}{hint}, which is not installed: {error}") from None
    except (gymnasium.error.Error, TypeError, ValueError, AssertionError) as error:
        unknown = isinstance(error, gymnasium.error.NameNotFound | gymnasium.error.NamespaceNotFound)
        remedy = f" For your own environment add the module that registers it: my_env:{name}"
        hint = remedy if unknown and package is None and ":" not in name else ""
        raise DataError(f"environment {name!r} cannot be created: {error}{hint}") from None


def reset(environment: gymnasium.Env, seed: int) -> Observed:
    """Resets the environment with a seed and returns the first observation. Output that the environment prints is
    discarded."""
    with contextlib.redirect_stdout(io.StringIO()):
        return observed(environment.reset(seed=seed)[0])


def reward_of(reward: Any) -> float:
    """Returns a reward as a float. Raises DataError unless the reward is a finite number."""
    try:
        number = float(reward)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"the environment returned the reward {reward!r}, which is not a finite number")
    return number


def check_length(steps: int) -> None:
    """Raises DataError if an episode that has not ended has at least LONGEST steps."""
    if steps >= LONGEST:
        remedy = "limit it with --setting max_episode_steps=1000 (in a YAML: settings)"
        raise DataError(f"an episode has not ended after {LONGEST:,} steps; {remedy}")
