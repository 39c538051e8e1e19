"""Environments, created by gymnasium from their names, and their spaces of observations and actions."""

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
"""The columns that all episodes have, in addition to the observations."""


class Space(Record):
    """The space of an observation or of the action: `size` categories, or numbers of this `shape` if `size` is None."""

    shape: tuple[int, ...]
    dtype: str
    size: int | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    """The limits of numbers, flattened; None unless all are finite."""


class Spaces(Record):
    """The spaces of an environment: `observations` by name (`observation` if there is only one), the names of observed
    `texts`, which stay the same in an episode, and the `action`."""

    observations: dict[str, Space]
    texts: tuple[str, ...]
    action: Space


class Observed(NamedTuple):
    """One observation: arrays and texts by name."""

    arrays: dict[str, np.ndarray]
    texts: dict[str, str]


def column_of(name: str) -> str:
    """The column of an observation: its name, or `observation.step` for the name of a column that all episodes have."""
    return f"observation.{name}" if name in EPISODE_COLUMNS else name


def observed(value: Any) -> Observed:
    """An observation as arrays and texts by name; a single one is named `observation`. Arrays are copied, since an
    environment may change them in place later. Raises DataError if a part is not an array."""
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
    """The spaces of an environment. Raises DataError for a space that is neither categories, nor numbers, nor texts."""
    from gymnasium import spaces

    space = environment.observation_space
    parts = dict(space.items()) if isinstance(space, spaces.Dict) else {"observation": space}
    if len({column_of(name) for name in parts}) < len(parts):
        raise DataError(f"two of the observations {', '.join(parts)} would have the same column, observation.NAME")
    texts = tuple(column_of(name) for name, part in parts.items() if _is_text(part))
    arrays = {column_of(n): _space(part, f"observation {n!r}") for n, part in parts.items() if not _is_text(part)}
    return Spaces(observations=arrays, texts=texts, action=_space(environment.action_space, "the action"))


def _is_text(space: Any) -> bool:
    """Whether a space contains texts: `Text` of gymnasium, or a space without shape and parts, such as BabyAI's."""
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
    """The space of numbers between these limits. Limits are dropped if one is not finite or if there are more than
    64."""
    low, high = (np.asarray(limit, dtype=float).flatten() for limit in (low, high))
    kept = len(low) == len(high) <= 64 and bool(np.isfinite(low).all() and np.isfinite(high).all())
    limits = {"low": tuple(map(float, low)), "high": tuple(map(float, high))} if kept else {}
    return Space(shape=shape, dtype=dtype, **limits)


def check_action(action: np.ndarray, space: Space) -> None:
    """Raises DataError if an action is outside the space."""
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
    """The index of the first of t actions (t, ...) that is outside the space; None if all are inside."""
    flat = actions.reshape(len(actions), -1)
    bad = ~np.isfinite(flat).all(1)
    if space.size is not None:
        bad |= ((flat < 0) | (flat >= space.size)).any(1)
    if space.low is not None:
        bad |= ((flat < space.low) | (flat > space.high)).any(1)
    return int(np.flatnonzero(bad)[0]) if bad.any() else None


def plug_ins() -> dict[str, str]:
    """The environments in the folders `environments/` of all projects, by their names in gymnasium: key_to_door.py has
    the class KeyToDoor, which is registered as `chopmix/KeyToDoor-v0`."""
    classes = {"".join(map(str.title, stem.split("_"))): module for stem, module in modules_of("environments").items()}
    return {f"chopmix/{name}-v0": f"{module}:{name}" for name, module in classes.items()}


REGISTERED_BY = {"BabyAI-": "minigrid", "MiniGrid-": "minigrid", "ALE/": "ale_py"}
"""The packages that register environments, by the prefix of their names."""

LONGEST = 100_000
"""The maximum number of steps of an episode; a longer one raises DataError."""

ACTS, NOISE, PLAYS = 23, 24, 25
"""Streams of random numbers: for the start and the actions of a recorded episode; for the share of its random actions;
for the start and the actions of an episode in an evaluation, which therefore has another start than recorded ones."""


def make_environment(name: str, options: Mapping[str, Any] | None = None, render: bool = False) -> gymnasium.Env:
    """Create the gymnasium environment `name` (also `package.module:Name-v0`) with these options. Raises DataError if a
    package is missing, the name is unknown, or the environment does not accept the options."""
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
        raise DataError(f"environment {name!r} needs {missing!r}, which is not installed: {error}") from None
    except (gymnasium.error.Error, TypeError, ValueError, AssertionError) as error:
        unknown = isinstance(error, gymnasium.error.NameNotFound | gymnasium.error.NamespaceNotFound)
        remedy = f" For your own environment add the module that registers it: my_env:{name}"
        hint = remedy if unknown and package is None and ":" not in name else ""
        raise DataError(f"environment {name!r} cannot be created: {error}{hint}") from None


def reset(environment: gymnasium.Env, seed: int) -> Observed:
    """The first observation of an episode. Output that the environment prints, such as BabyAI's, is discarded."""
    with contextlib.redirect_stdout(io.StringIO()):
        return observed(environment.reset(seed=seed)[0])


def reward_of(reward: Any) -> float:
    """A reward as a float. Raises DataError unless it is a finite number."""
    try:
        number = float(reward)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"the environment returned the reward {reward!r}, which is not a finite number")
    return number


def check_length(steps: int) -> None:
    """Raises DataError if an episode has reached LONGEST steps and has not ended."""
    if steps >= LONGEST:
        remedy = "limit it with --setting max_episode_steps=1000 (in a YAML: settings)"
        raise DataError(f"an episode has not ended after {LONGEST:,} steps; {remedy}")
