"""The base class of all data sets. Each file in `data/datasets/` contains one data set; a YAML refers to it by the name
of the file."""

from __future__ import annotations

import inspect
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ..files.reading import DataError
from ..models.contract import Problems
from ..tasks.base import Wiring
from ..tokenizers.encoding.base import well_formed
from .rules import Rule


def data_root() -> Path:
    """Returns the folder of source data (the data root): `$CHOPMIX_DATA` or, if it is not set, `chopmix/data` in the
    user's cache folder. The folder may be read-only."""
    return Path(os.environ.get("CHOPMIX_DATA") or _user_cache() / "chopmix" / "data")


def cache_folder() -> Path:
    """Returns the folder of prepared files, which must be writable: `$CHOPMIX_CACHE` or, if it is not set,
    `chopmix/prepared` in the user's cache folder."""
    return Path(os.environ.get("CHOPMIX_CACHE") or _user_cache() / "chopmix" / "prepared")


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@dataclass(frozen=True)
class Document:
    """One text of a corpus. `key` identifies the document in messages and determines its split, so it must be unique
    and the same in every run."""

    key: str
    text: str


class Dataset:
    """Base class of all data sets. A direct subclass is a corpus of text documents. A data set whose samples have
    columns derives from `SampleDataset` instead.

    A corpus implements `documents`, `source_hash` and `about`. The options of a data set are the keyword-only
    parameters of its `__init__`, and the keys in a YAML are checked against this signature. Each option is stored as an
    attribute of the same name.
    """

    holds_samples: ClassVar[bool] = False
    """True for data sets of samples (`SampleDataset`), False for text corpora."""
    splits: tuple[str, ...] = ("train", "val")
    """The names of the splits. Training reads `train` and `val`; only `evaluate` opens `test`."""
    renamable: ClassVar[bool] = True
    """Whether a mixture can rename the columns."""
    paths: ClassVar[tuple[str, ...]] = ()
    """The options that are paths or patterns of files of the user, or lists or mappings of them. In a YAML file they
    are relative to the folder of the file."""
    on_server: ClassVar[bool] = False
    """Whether a path that does not exist may be the name of a data set on a server."""
    rule: Rule | None = None
    """The rule that makes training samples from the answers of the current model; None: training reads the samples of
    the data set."""
    whole_of: str = ""
    """The location of the samples, such as `photos`, if every split contains all samples (see `whole`). Empty
    otherwise."""

    @property
    def name(self) -> str:
        """The name that a YAML uses: the name of the file that defines the data set."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def options(self) -> dict[str, object]:
        """The values of the options, by the name of the parameter of `__init__`."""
        if type(self).__init__ is object.__init__:
            return {}
        return {name: getattr(self, name) for name in list(inspect.signature(type(self).__init__).parameters)[1:]}

    @classmethod
    def problems(cls, options: Mapping[str, Any], wiring: Wiring) -> Problems:
        """Yields the problems (path in the YAML, message) of a configuration that uses this data set with these
        options."""
        yield from ()

    def check(self, wiring: Wiring) -> None:
        """Raises DataError if the inputs of the configuration do not fit the opened data. Called before the first step;
        the default checks nothing."""

    def addresses(self) -> Iterable[str]:
        """Returns the remote addresses that the data set may open, such as `https://example.org/train.tar`; none by
        default. The addresses are checked before any of them is opened."""
        return ()

    def documents(self, split: str) -> Iterator[Document]:
        """Yields the documents of a split, always in the same order. Raises DataError if the split does not exist, or
        if the source is missing or damaged."""
        raise NotImplementedError

    def training_items(self, columns: Sequence[str], most: int | None = None) -> Iterable[Any]:
        """Returns the raw values of the training split on which choppers are fitted (vocabularies, means). A corpus
        ignores `columns` and `most`, and returns the text of every training document. `SampleDataset` returns the
        values of these columns, at most `most` of each column. Raises DataError if a text contains characters that are
        not valid Unicode (lone surrogates)."""
        return map(text_of, self.documents("train"))

    def source_hash(self, split: str) -> str:
        """Returns a string that changes whenever the documents of the split change. This method must be fast, because
        every run calls it at its start."""
        raise NotImplementedError

    def about(self) -> dict[str, object]:
        """Returns facts about the source (version, bytes, counts) by name. They are printed, and stored with a run as
        JSON."""
        raise NotImplementedError

    def command(self, run: str, columns: Collection[str]) -> str | None:
        """Returns a command that uses a trained run of this data set, for the end of a training. `run` is its quoted
        folder, `columns` are the columns that its inputs read. The default returns None: the tasks of the run
        decide."""
        return None

    def members(self) -> Sequence[Dataset]:
        """Returns the data sets of which a mixture consists; for any other data set, a list that contains only the data
        set itself."""
        return [self]

    def like(self, train: str, label: bool = True) -> Dataset | None:
        """Returns a data set of the same kind that reads another table; without `label`, its column is not needed. None
        if this data set does not read a table."""
        return None

    def latest(self) -> Any | None:
        """Returns `Samples` with one sample, the last window of a table of measurements, after which a forecast begins.
        None if this data set does not read a table."""
        return None

    def whole(self) -> Dataset:
        """Returns a copy in which every split contains all samples, if `train` is the only configured location, so that
        `val` would be a part of it. Otherwise returns the data set itself."""
        return self

    def with_channels(self, joined: Mapping[str, Sequence[str]]) -> Dataset:
        """Returns a copy with additional columns, each of which consists of several columns (`data.columns`). Raises
        DataError if this is not possible, as for a text corpus."""
        raise DataError(f"data.columns: dataset {self.name!r} is a text corpus, which has no columns")

    def divided(self, division: Any) -> Dataset:
        """Returns a copy whose samples are divided into splits by a rule (`data.split`). Raises DataError if this is
        not possible, as for a text corpus."""
        raise DataError(f"data.split: dataset {self.name!r} is a text corpus; name separate files for val instead")

    def notices(self) -> list[str]:
        """Returns sentences about the splits that the user should read before training; none by default."""
        return []

    def title(self, split: str) -> str:
        """Returns the name of a split for messages: `mnist (val)`, or `photos (all)` if every split contains all
        samples."""
        return f"{self.whole_of} (all)" if self.whole_of else f"{self.name} ({split})"

    def check_split(self, split: str) -> None:
        """Raises DataError if the data set does not have this split."""
        if split not in self.splits:
            raise DataError(f"dataset {self.name!r} has no split {split!r}; possible: {', '.join(self.splits)}")


D = TypeVar("D", bound=Dataset)


def check_locations(**locations: Any) -> None:
    """Raises ValueError if the location of a split is an empty text, list or mapping. None is allowed."""
    if empty := [split for split, location in locations.items() if location is not None and not location]:
        raise ValueError(f"{empty[0]} names no file; remove it, or name at least one file")


def undivided(dataset: D, where: str | Iterable[str]) -> D:
    """Implements `Dataset.whole` for a data set with the options `train`, `val` and `test`. `where` is the location of
    `train`: a text, or several texts."""
    if dataset.val is not None or dataset.test is not None:
        return dataset
    complete = copy(dataset)
    complete.val = complete.test = complete.train
    complete.splits, complete.whole_of = ("train", "val", "test"), where if isinstance(where, str) else ", ".join(where)
    return complete


def text_of(document: Document) -> str:
    """Returns the text of a document. Raises DataError if the text contains characters that are not valid Unicode (lone
    surrogates)."""
    try:
        return well_formed(document.text)
    except ValueError as error:
        raise DataError(f"document {document.key!r}: {error}") from None
