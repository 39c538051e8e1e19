"""Several data sets as one: one set of weights learns all their tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Literal

from ...files.reading import DataError
from ...tokenizers.base import Part
from ..base import Dataset
from ..mixture import MixedSamples, Source, pieces_of
from ..samples import SampleDataset, Samples


class Mixture(SampleDataset):
    """The data sets `of`, by name; a training batch holds of each its `share`, relative to the others' (1 where none is
    given), of the samples or, with `by: tokens`, of the tokens. Columns: all of theirs; `columns` renames those of a
    source: `{fsdd: {label: spoken}}`. Of text corpora the samples are pieces of at most `characters` characters, with
    the column `text`. Each source keeps its own validation and test samples; one that has none is left out there.

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
        for given in (self.share, self.renamed):
            if unknown := [name for name in given if name not in of]:
                raise ValueError(f"no source is named {unknown[0]!r}; possible: {', '.join(of)}")
        shares = self.shares
        if not of or min(shares.values()) < 0 or not sum(shares.values()) or characters < 1:
            told = ", ".join(f"{name} {value:g}" for name, value in shares.items())
            raise ValueError(
                f"shares must be at least 0, one of them above 0, and characters at least 1; they are {told}"
            )
        self.take({name: made() for name, made in of.items()})

    @classmethod
    def problems(cls, options, wiring):
        for name in options.get("columns") or {}:
            source = (options.get("of") or {}).get(name)
            if isinstance(source, Part) and options["columns"][name] and not source.target.renamable:
                told = f"columns of {source.use} keep their names: use data.columns, by input"
                yield ("data", "dataset", "columns", name), told

    def members(self):
        return list(self.sources.values())

    def check(self, wiring):
        for source in self.sources.values():
            source.check(wiring)

    def take(self, sources: dict[str, Dataset]) -> None:
        """Mix these sources; the splits are those that some source has."""
        known = {split for source in sources.values() for split in source.splits}
        self.sources, self.splits = sources, tuple(split for split in Mixture.splits if split in known)

    def whole(self) -> Mixture:
        """The mixture of the sources, each as a whole."""
        found = copy(self)
        found.take({name: source.whole() for name, source in self.sources.items()})
        return found

    def title(self, split: str) -> str:
        return ", ".join(source.title(split) for source in self.sources.values() if split in source.splits)

    @property
    def shares(self) -> dict[str, float]:
        """Each source's share; 1 where none is given."""
        return {name: self.share.get(name, 1.0) for name in self.of}

    def addresses(self) -> Iterator[str]:
        return (address for source in self.sources.values() for address in source.addresses())

    @property
    def options(self) -> dict[str, object]:
        return {"of": {name: [each.name, each.options] for name, each in self.sources.items()}, "share": self.shares}

    @property
    def columns(self) -> tuple[str, ...]:
        every = [
            self.renamed.get(name, {}).get(column, column)
            for name, source in self.sources.items()
            for column in (source.columns if source.holds_samples else ("text",))
        ]
        return tuple(dict.fromkeys(every))

    def open(self, split: str) -> Samples:
        self.check_split(split)
        found = []
        for name, source in self.sources.items():
            if split not in source.splits:
                continue
            samples = source.opened(split) if source.holds_samples else pieces_of(source, split, self.characters)
            found.append(Source(name, samples, self.shares[name], self.renamed.get(name, {})))
        if not found:
            raise DataError(f"none of {', '.join(self.of)} has a split {split!r}")
        return MixedSamples(found, self.by == "tokens")
