"""Base of all data sets, and the split of documents by hash. A data set is one file in `data/datasets/`; a YAML uses
it by the file's name."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ..files.reading import DataError
from ..tasks.base import Problems, Wiring
from ..tokenizers.encoding.base import well_formed


def data_root() -> Path:
    """The folder of source data: `$CHOPMIX_DATA`, else `chopmix/data` in the user's cache. It may be read-only."""
    return Path(os.environ.get("CHOPMIX_DATA") or _user_cache() / "chopmix" / "data")


def cache_folder() -> Path:
    """The folder of prepared files, always writable: `$CHOPMIX_CACHE`, else `chopmix/prepared` in the user's cache."""
    return Path(os.environ.get("CHOPMIX_CACHE") or _user_cache() / "chopmix" / "prepared")


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@dataclass(frozen=True)
class Document:
    """One text of a corpus. `key` names it in messages and decides its split, so it must be stable and unique."""

    key: str
    text: str


class Dataset:
    """Base of all datasets; by itself a corpus of text documents (of samples with columns: `SampleDataset`).

    A subclass gives `documents`, `source_hash` and `about`, and where it has options, keyword-only parameters of its
    `__init__`, which it stores under their own names (the YAML's schema is that signature).
    """

    holds_samples: ClassVar[bool] = False
    """Whether it holds samples (`SampleDataset`), not the documents of a text corpus."""
    splits: tuple[str, ...] = ("train", "val")
    """The names of its splits; training reads `train` and `val`, and only `evaluate` opens `test`."""
    renamable: ClassVar[bool] = True
    """Whether a mixture may rename its columns."""
    whole_of: str = ""
    """Where every split holds all samples: where these are, such as `photos`. Empty: splits differ."""

    @property
    def name(self) -> str:
        """The name a YAML uses: that of the dataset's file."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def options(self) -> dict[str, object]:
        """The options of this dataset, by the names of its `__init__`'s parameters."""
        if type(self).__init__ is object.__init__:
            return {}
        return {name: getattr(self, name) for name in list(inspect.signature(type(self).__init__).parameters)[1:]}

    @classmethod
    def problems(cls, options: Mapping[str, Any], wiring: Wiring) -> Problems:
        """Problems of the other sections of a configuration that names this data set, with these options."""
        yield from ()

    def check(self, wiring: Wiring) -> None:
        """Raises DataError if the inputs do not fit to the opened data; called before the first step."""

    def addresses(self) -> Iterable[str]:
        """The remote addresses that it may open, such as `https://example.org/train.tar`. They are checked before
        anything is opened; by default there are none."""
        return ()

    def documents(self, split: str) -> Iterator[Document]:
        """The documents of a split, in the same order every time. Raises DataError for a split that does not exist and
        for a source that is missing or damaged, saying where."""
        raise NotImplementedError

    def training_items(self, columns: Sequence[str], most: int | None = None) -> Iterable[Any]:
        """The raw values of the training split that choppers are fitted on (a vocabulary, a mean). A corpus gives the
        text of every training document, whatever `columns` and `most` are. Raises DataError, naming the document, for
        text that is not Unicode."""
        return map(text_of, self.documents("train"))

    def source_hash(self, split: str) -> str:
        """A string that changes whenever the documents of the split do; computed at every start, so it must be fast."""
        raise NotImplementedError

    def about(self) -> dict[str, object]:
        """Facts about the source (version, bytes, counts): printed, and stored with a run as JSON."""
        raise NotImplementedError

    def members(self) -> Sequence[Dataset]:
        """The data sets of a mixture; of any other data set itself alone."""
        return [self]

    def whole(self) -> Dataset:
        """The data set of which every split holds all samples, where only `train` is named, of which `val` would be a
        part; the data set itself where it has other splits."""
        return self

    def title(self, split: str) -> str:
        """A split in words: `mnist (val)`, or, where every split holds all samples, `photos (all)`."""
        return f"{self.whole_of} (all)" if self.whole_of else f"{self.name} ({split})"

    def check_split(self, split: str) -> None:
        """Raise DataError when the dataset has no such split."""
        if split not in self.splits:
            raise DataError(f"dataset {self.name!r} has no split {split!r}; possible: {', '.join(self.splits)}")


D = TypeVar("D", bound=Dataset)


def undivided(dataset: D, where: str | Iterable[str]) -> D:
    """`Dataset.whole` of a data set with the options `train`, `val` and `test`, whose `train` is read from `where`."""
    if dataset.val is not None or dataset.test is not None:
        return dataset
    found = copy(dataset)
    found.val = found.test = found.train
    found.splits, found.whole_of = ("train", "val", "test"), where if isinstance(where, str) else ", ".join(where)
    return found


def text_of(document: Document) -> str:
    """A document's text. Raises DataError, naming the document, for text that is not Unicode."""
    try:
        return well_formed(document.text)
    except ValueError as error:
        raise DataError(f"document {document.key!r}: {error}") from None


def share_by_hash(key: str) -> float:
    """A number from 0 to under 1 that depends on nothing but the key: the first 8 bytes of its sha256, scaled."""
    return int.from_bytes(hashlib.sha256(key.encode(errors="surrogatepass")).digest()[:8], "big") / 2**64


def chosen_for_val(keys: Iterable[str]) -> str | None:
    """The one key that goes to `val` where `split_by_hash` sends none there, as may happen with a handful of keys: the
    one with the lowest hash, so that there is always something to validate. None where a key is in `val` already."""
    lowest = None
    for key in keys:
        if split_by_hash(key) == "val":
            return None
        lowest = key if lowest is None else min(lowest, key, key=share_by_hash)
    return lowest


def split_by_hash(key: str, val_share: float = 0.1) -> str:
    """`val` for about `val_share` of all keys, else `train`. A key stays where it is when others come or go."""
    return "val" if share_by_hash(key) < val_share else "train"
