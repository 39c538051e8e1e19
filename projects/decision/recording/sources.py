"""Sources of episodes. Episodes are recorded by chopmix when they are first needed, or are read from a folder."""

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
    """Base class of the sources of episodes."""

    @property
    @abstractmethod
    def about(self) -> About:
        """The description of the episodes: environment, policy, spaces of observations and actions, seed and number of
        episodes."""

    @abstractmethod
    def read(self) -> Episodes:
        """Returns all episodes. Raises DataError if they cannot be read or recorded."""

    @property
    @abstractmethod
    def is_available(self) -> bool:
        """Whether all episodes exist, which means that nothing has to be recorded."""

    @property
    def options(self) -> dict[str, object]:
        """The options of the source in the YAML, by name."""
        return {name: value for name, value in vars(self).items() if name != "about"}


class Recorded(Source):
    """The number `episodes` of episodes that an agent plays in `environment` (`CartPole-v1`, `module:Env-v0`) when they
    are first needed; `seed` selects them. The episodes are then kept in the cache. `policy` is
    `random`, `script`, `bot` or package.module:name. Some actions of each episode are random: their share is drawn
    between the two numbers of `noise`, which are from 0 to 1. `settings` are the keyword arguments of the environment.
    `chopmix record` with the same options writes the same episodes to a folder."""

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
        """The folder in the cache. Its name is a hash of the options."""
        options = self.about.model_dump_json().encode()
        return cache_folder() / "episodes" / hashlib.sha256(options).hexdigest()[:16]

    @property
    def is_available(self) -> bool:
        return PART * len(parts_in(self.folder, self.episodes)) >= self.episodes

    def read(self) -> Episodes:
        from .record import recorded

        return recorded(self.folder, self.about)


class Folder(Source):
    """Episodes in the folder `path`, which `chopmix record` wrote. A relative path is looked up in the working
    directory, then in $CHOPMIX_DATA."""

    def __init__(self, *, path: str):
        self.path = path

    @property
    def folder(self) -> Path:
        """The existing folder. Raises DataError if no folder exists at `path`."""
        for folder in (Path(self.path).expanduser(), data_root() / self.path):
            if os.path.isdir(folder):
                return folder
        raise DataError(f"there is no folder {self.path} and no folder {data_root() / self.path}")

    @property
    def is_available(self) -> bool:
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
    """Episodes of a Minari data set in HDF5 format. `path` is the folder of the data set, such as one in
    `~/.minari/datasets`. A relative path is looked up in the working directory, then in $CHOPMIX_DATA."""

    @cached_property
    def about(self) -> About:
        return about_folder(self.folder)

    @property
    def is_available(self) -> bool:
        return any(os.path.isdir(folder) for folder in (Path(self.path).expanduser(), data_root() / self.path))

    def read(self) -> Episodes:
        return read_folder(self.folder)
