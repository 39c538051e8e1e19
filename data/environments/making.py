"""Environments by name, made through gymnasium, and what an agent observes and does there."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...tokenizers.files.reading import DataError
from ...tokenizers.files.records import Record

if TYPE_CHECKING:
    import gymnasium

OWN = {"chopmix/KeyToDoor-v0": "chopmix.data.environments.key_to_door:KeyToDoor"}
"""Our own environments, registered with gymnasium when one is first made."""
REGISTERED_BY = {"BabyAI-": "minigrid", "MiniGrid-": "minigrid", "ALE/": "ale_py"}
"""The packages that register the environments whose names begin so."""


CODE = re.compile(r"[A-Za-z_][\w.]*:")
"""How a text begins that names code."""
LONGEST = 100_000
"""Steps after which an episode that neither ends nor is cut is given up."""


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


def make_environment(name: str, options: Mapping[str, Any] | None = None, render: bool = False) -> gymnasium.Env:
    """The environment that gymnasium makes of this name (also `package.module:Name-v0`) and options. Raises DataError
    where a package is missing, the name is not known, or the environment refuses its options."""
    try:
        import gymnasium
    except ImportError:
        raise DataError(f"environment {name!r} needs gymnasium: pip install 'chopmix[decision]'") from None
    package = next((package for start, package in REGISTERED_BY.items() if name.startswith(start)), None)
    try:
        if package:
            importlib.import_module(package)
        for own, place in OWN.items():
            if own not in gymnasium.registry:
                gymnasium.register(own, place)
        shown = {"render_mode": "rgb_array"} if render else {}
        return gymnasium.make(name, **shown, **(options or {}))
    except ImportError as error:
        missing = error.name or package or name.partition(":")[0]
        raise DataError(f"environment {name!r} needs {missing!r}, which is not installed: {error}") from None
    except (gymnasium.error.Error, TypeError, ValueError, AssertionError) as error:
        raise DataError(f"environment {name!r} cannot be made: {error}") from None


def code_in(value: Any) -> Iterator[str]:
    """The texts in what an environment is made of that may name code, `package.module:Name`, which is imported then."""
    if isinstance(value, str) and CODE.match(value):
        yield value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for each in inner:
        yield from code_in(each)


def begin(environment: gymnasium.Env, seed: int) -> Observed:
    """The first observation of an episode. What the environment prints meanwhile, as BabyAI does, is not shown."""
    with contextlib.redirect_stdout(io.StringIO()):
        return observed(environment.reset(seed=seed)[0])


def observed(value: Any) -> Observed:
    """An observation as arrays and texts by name, a copy: an environment may show the same array again, changed. A
    single one is called `observation`."""
    parts = value if isinstance(value, Mapping) else {"observation": value}
    texts = {name: each for name, each in parts.items() if isinstance(each, str)}
    return Observed({name: np.array(each) for name, each in parts.items() if name not in texts}, texts)


def spaces_of(environment: gymnasium.Env) -> Spaces:
    """What an agent observes and does in the environment. Raises DataError for spaces that are neither categories, nor
    numbers, nor texts."""
    from gymnasium import spaces

    own = environment.observation_space
    parts = dict(own.items()) if isinstance(own, spaces.Dict) else {"observation": own}
    arrays = {
        name: each for name, each in parts.items() if not isinstance(each, spaces.Text) and each.shape is not None
    }
    texts = tuple(name for name in parts if name not in arrays)
    told = {name: _space(each, f"observation {name!r}") for name, each in arrays.items()}
    return Spaces(observations=told, texts=texts, action=_space(environment.action_space, "the action"))


def _space(space: Any, what: str) -> Space:
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete) and space.start == 0:
        return Space(shape=(), dtype="int64", size=int(space.n))
    if isinstance(space, spaces.Box):
        low, high = space.low.flatten(), space.high.flatten()
        known = bool(np.isfinite(low).all() and np.isfinite(high).all()) and len(low) <= 64
        limits = {"low": tuple(map(float, low)), "high": tuple(map(float, high))} if known else {}
        return Space(shape=tuple(space.shape), dtype=str(space.dtype), **limits)
    raise DataError(f"{what} is {space}; possible are Discrete from 0, Box, and Dict of these and texts")


def reward_of(reward: Any) -> float:
    """A reward as a number. Raises DataError where it is none."""
    try:
        return float(reward)
    except (TypeError, ValueError):
        raise DataError(f"the environment gave the reward {reward!r}, which is no number") from None


def check_length(steps: int) -> None:
    """Raises DataError for an episode of LONGEST steps that has not ended."""
    if steps >= LONGEST:
        told = f"an episode has not ended after {LONGEST:,} steps"
        raise DataError(f"{told}; --setting max_episode_steps=1000 (in a YAML `settings`) cuts it")


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
