"""Environments by name, made through gymnasium."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ....files.reading import DataError
from ....files.trust import search_here
from .spaces import Observed, observed

if TYPE_CHECKING:
    import gymnasium

OWN = {"chopmix/KeyToDoor-v0": "chopmix.projects.decision.environments.key_to_door:KeyToDoor"}
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
        for own, place in OWN.items():
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
