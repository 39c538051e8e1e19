"""A mixture of several data sets. One model is trained on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Literal

from ...files.reading import DataError
from ..base import Dataset
from ..mixture import MixedSamples, Source, pieces_of
from ..sample_dataset import SampleDataset
from ..samples import Samples


class Mixture(SampleDataset):
    """`of` contains the data sets (sources) of the mixture, by name. `share` is the share of each source in a training
    batch, relative to the other shares (default 1). It is a share of the samples or, with `by: tokens`, of the tokens.
    The mixture has the columns of all sources. `columns` renames columns of a source, from the old to the new name:
    `{fsdd: {label: spoken}}`. A text corpus becomes samples with the column `text`, pieces of at most `characters`
    characters. A validation or test split consists of the samples of all sources that have this split.

        {use: mixture, of: {digits: mnist, python: python_stdlib}, share: {digits: 1, python: 2}}
    """

    splits = ("train", "val", "test")

    def __init__(
        self, *, of: dict[str, Callable[[], Dataset]], share: dict[str, float] | None = None,
        by: Literal["samples", "tokens"] = "samples", columns: dict[str, dict[str, str]] | None = None,
        characters: int = 512,
    ):  # fmt: skip
        self.of, self.share, self.by, self.characters = of, share or {}, by, characters
        self.renamed = columns or {}
        for by_source in (self.share, self.renamed):
            if unknown := [name for name in by_source if name not in of]:
                raise ValueError(f"no source is named {unknown[0]!r}; possible: {', '.join(of)}")
        shares = self.shares
        if not of or min(shares.values()) < 0 or not sum(shares.values()) or characters < 1:
            values = ", ".join(f"{name} {value:g}" for name, value in shares.items())
            raise ValueError(
                f"shares must be at least 0, one of them above 0, and characters at least 1; they are {values}"
            )
        self.take({name: create() for name, create in of.items()})

    @classmethod
    def problems(cls, options, wiring):
        for name in options.get("columns") or {}:
            source = (options.get("of") or {}).get(name)
            if source is not None and options["columns"][name] and not source.target.renamable:
                problem = f"columns of {source.use} cannot be renamed here; use data.columns"
                yield ("data", "dataset", "columns", name), problem

    def members(self):
        return list(self.sources.values())

    def check(self, wiring):
        for name, source in self.sources.items():
            source.check(wiring)
            if source.rule:
                raise DataError(f"data.dataset.of.{name}: {source.name!r} makes rollouts, so it cannot be in a mixture")

    def take(self, sources: dict[str, Dataset]) -> None:
        """Sets the sources, by name. The mixture then has every split that at least one source has."""
        splits = {split for source in sources.values() for split in source.splits}
        self.sources, self.splits = sources, tuple(split for split in Mixture.splits if split in splits)

    def whole(self) -> Mixture:
        """Returns a mixture of `source.whole()` for every source."""
        mixture = copy(self)
        mixture.take({name: source.whole() for name, source in self.sources.items()})
        return mixture

    def title(self, split: str) -> str:
        return ", ".join(source.title(split) for source in self.sources.values() if split in source.splits)

    @property
    def shares(self) -> dict[str, float]:
        """The share of each source, by name; 1 for sources that `share` does not contain."""
        return {name: self.share.get(name, 1.0) for name in self.of}

    def addresses(self) -> Iterator[str]:
        return (address for source in self.sources.values() for address in source.addresses())

    @property
    def options(self) -> dict[str, object]:
        return {
            "of": {name: [source.name, source.options] for name, source in self.sources.items()},
            "share": self.shares,
        }

    @property
    def columns(self) -> tuple[str, ...]:
        names = [
            self.renamed.get(name, {}).get(column, column)
            for name, source in self.sources.items()
            for column in (source.columns if source.holds_samples else ("text",))
        ]
        return tuple(dict.fromkeys(names))

    def open(self, split: str) -> Samples:
        self.check_split(split)
        sources = []
        for name, source in self.sources.items():
            if split not in source.splits:
                continue
            samples = source.opened(split) if source.holds_samples else pieces_of(source, split, self.characters)
            sources.append(Source(name, samples, self.shares[name], self.renamed.get(name, {})))
        if not sources:
            raise DataError(f"none of {', '.join(self.of)} has a split {split!r}")
        return MixedSamples(sources, self.by == "tokens")
