"""Where episodes come from: recorded by ourselves when they are first needed, or a folder."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path

from ....data.base import cache_folder, data_root
from ....files.reading import DataError
from .episodes import PART, About, Episodes, parts_in, read_about, read_episodes
from .minari import about_folder, read_folder


class Source(ABC):
    """Base of the sources of episodes."""

    @property
    @abstractmethod
    def about(self) -> About:
        """The environment, who played, and what is observed and done there."""

    @abstractmethod
    def read(self) -> Episodes:
        """All episodes. Raises DataError where they cannot be had."""

    @property
    @abstractmethod
    def at_hand(self) -> bool:
        """Whether all episodes are there already, so that nothing must be recorded to read them."""

    @property
    def options(self) -> dict[str, object]:
        """What the YAML says of it."""
        return {name: value for name, value in vars(self).items() if name != "about"}


class Recorded(Source):
    """Episodes that an agent plays when they are first needed, kept in the cache: `policy` is `random`, `script`, `bot`
    or package.module:Class; of each episode a share of the actions, drawn between the two numbers of `noise`, is at
    random. `settings` are what the environment itself takes. `chopmix record` does the same into a folder of your own.
    """

    def __init__(
        self, *, environment: str, policy: str = "random", episodes: int = 1000, seed: int = 0,
        noise: tuple[float, float] = (0.0, 0.0), settings: dict[str, bool | int | float | str] | None = None,
    ):  # fmt: skip
        self.environment, self.policy, self.episodes, self.seed, self.noise = environment, policy, episodes, seed, noise
        self.settings = settings or {}

    @cached_property
    def about(self) -> About:
        from .record import about_of

        return about_of(self.environment, self.settings, self.policy, self.noise, self.seed, self.episodes)

    @property
    def folder(self) -> Path:
        """Where they are kept."""
        told = self.about.model_dump_json().encode()
        return cache_folder() / "episodes" / hashlib.sha256(told).hexdigest()[:16]

    @property
    def at_hand(self) -> bool:
        return PART * len(parts_in(self.folder, self.episodes)) >= self.episodes

    def read(self) -> Episodes:
        from .record import recorded

        return recorded(self.folder, self.about)


class Folder(Source):
    """Episodes that `chopmix record` wrote into the folder `path`, given as it is or inside of $CHOPMIX_DATA."""

    def __init__(self, *, path: str):
        self.path = path

    @property
    def folder(self) -> Path:
        """Where it is. Raises DataError where there is no such folder."""
        for found in (Path(self.path).expanduser(), data_root() / self.path):
            if os.path.isdir(found):
                return found
        raise DataError(f"there is no folder {self.path}, nor {data_root() / self.path}")

    @property
    def at_hand(self) -> bool:
        try:
            return PART * len(parts_in(self.folder, self.about.episodes)) >= self.about.episodes
        except DataError:
            return False

    @cached_property
    def about(self) -> About:
        return read_about(self.folder)

    def read(self) -> Episodes:
        return read_episodes(self.folder)[1]


class Minari(Folder):
    """Episodes in a folder of Minari's, as it keeps them in `~/.minari/datasets`: `path` is the folder of one data set,
    in its HDF5 format."""

    @cached_property
    def about(self) -> About:
        return about_folder(self.folder)

    @property
    def at_hand(self) -> bool:
        return any(os.path.isdir(found) for found in (Path(self.path).expanduser(), data_root() / self.path))

    def read(self) -> Episodes:
        return read_folder(self.folder)
