"""What an agent observes and does in an environment: categories, numbers and texts, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ....files.reading import DataError
from ....files.records import Record

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
