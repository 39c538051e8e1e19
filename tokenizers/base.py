"""The first half of every tokenizer, without parameters: how one raw item is chopped into tokens.

A tokenizer is one file with two halves. The *chopper* (here) can be pickled to loader workers, and tells how many
tokens an item becomes before anything is embedded. The *embedder* is an `nn.Module` that turns the chunks of a batch
into vectors of the model's width; it names the class whose fields are the YAML's keys as its `Chopper`.

    raw value --decode--> item --augment (training only)--> item --chop--> Chunk --collate (a batch)--> Chunks.values
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..models.batch import SetPlan
from ..models.model import Model
from .encoding.base import Encoding


@dataclass(frozen=True)
class RunPart:
    """A trained run as a part of another: its model, which nobody trains on, and what chops its inputs."""

    name: str
    """Its folder, for messages."""
    model: Model
    choppers: Mapping[str, Chopper]
    context: int
    """How many tokens of a sample the core that reads first takes."""
    core_tokens: int
    content: str
    """What identifies its weights."""
    write: Callable[[Path], None]
    """Keeps all of it in a folder, from which it can be opened again without the run that it was."""


def no_run(folder: str | Path) -> RunPart:
    """Where no run can be opened."""
    raise ValueError(f"{folder}: no run can be taken in here")


@dataclass(frozen=True)
class Role:
    """What the tasks want of one input, which is known before its chopper is made.

    Role(generated=True)            the text that a language model writes: it begins with a start token
    Role(special_ids=("mask",))     a text that is read, of which a masked language model hides words
    """

    generated: bool = False
    """Whether a task generates the input, token by token."""
    special_ids: tuple[str, ...] = ()
    """Special ids that its tasks need, by role; a vocabulary that lacks one gets it."""
    open_run: Callable[[str | Path], RunPart] = no_run
    """The one door for a trained run that is a part of this one: opens it, frozen, by its folder."""


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """What a YAML says of how an input is chopped: a subclass's fields are its keys, and nothing else.

    `fit` and `load` make the chopper of it, complete in one step.
    """

    axes: ClassVar[tuple[str, ...]] = ()
    """Names of the position axes that its tokens have besides the running order. A token stands on `seconds` where the
    last thing that it is made of is known, so that `causal(seconds)` lets no stream hear another's future."""
    kind: ClassVar[str] = "file"
    """What its raw values are: `image`, `sound`, `text`, or a `file` of any other sort."""
    fits_on: ClassVar[int | None] = None
    """How many items of the training data, drawn at random, `fit` looks at; None: all of them."""

    @property
    def needs_whole(self) -> bool:
        """Whether every token depends on all of its item, as where a clip is normalised by itself: not for
        `causal(seconds)`."""
        return False

    def fit(self, items: Callable[[], Iterable], role: Role) -> Chopper:
        """The chopper with all that it learns of the training data (a vocabulary, a mean and a std).

        items  called for the raw values of the training data, as often as they are to be read
        Raises ValueError where nothing can be learned of them.
        """
        raise NotImplementedError

    def load(self, folder: Path, role: Role) -> Chopper:
        """The chopper with what `Chopper.save` has kept. Raises DataError for a file that is missing or damaged."""
        raise NotImplementedError


@dataclass(frozen=True)
class Chunk:
    """One chopped item. An image of 28 x 42 pixels in patches of 14, and the text "no" as characters:

    values       (1, 3, 28, 42)                            (2,)   start, n
    count        6                                         2
    coordinates  0,0  0,1  0,2  1,0  1,1  1,2  (6, 2)      None
    next_ids     None                                      n, o
    """

    values: Tensor
    """What `collate` will lay together: one row of values per token, or a whole image or clip that the embedder
    cuts."""
    count: int
    """How many tokens the item becomes."""
    coordinates: Float[Tensor, "t a"] | None = None
    """Where each token stands on the chopper's `axes`, one column each."""
    next_ids: Int[Tensor, "t"] | None = None
    """For ids: the id that comes after each token."""
    seed: int | None = None
    """While training: what decides how its embedder changes it at random."""
    inner: Chunk | None = None
    """The item as a model inside the embedder reads it."""


@dataclass(frozen=True, kw_only=True)
class Chopper(Preprocessor):
    """Base of all choppers: complete, immutable, picklable; it holds nothing that the run trains.

    One that learns nothing of its data is its own preprocessor: its fields are the keys of the YAML, and `fit` and
    `load` give it back as it is. One that learns gives all three of `fit`, `save` and `load`.
    """

    text: ClassVar[Encoding | None] = None
    """The encoding of its ids, where its items are text; None: they are something else."""

    def fit(self, items: Callable[[], Iterable], role: Role) -> Chopper:
        return self

    def load(self, folder: Path, role: Role) -> Chopper:
        return self

    def save(self, folder: Path) -> None:
        """Keep what `fit` has learned in `RUN/assets/<input>/`, so that a run works without its data."""

    def decode(self, raw: Any) -> Any:
        """The item behind a raw value of a data set: a file's path or bytes, an array. Raises ValueError when it
        cannot."""
        return raw

    def augment(self, item: Any, random: np.random.Generator) -> Any:
        """The item changed at random, as it is while training; what `random` gives is fixed by seed, epoch and
        sample."""
        return item

    def count(self, item) -> int:
        """How many tokens the item will become, without chopping it."""
        return self.chop(item).count

    def chop(self, item) -> Chunk:
        """Cut one item into tokens. Raises ValueError for an item that cannot be."""
        raise NotImplementedError

    def draw(self, canvas: Any, item: Any) -> None:
        """Draw one item and where it is cut, on matplotlib's Axes; by default the values of its tokens, one a
        column."""
        values = self.chop(item).values.float()
        canvas.imshow(values.flatten(1).T.numpy(), aspect="auto", cmap="viridis")
        canvas.set(xlabel="token", ylabel="value")

    def collate(self, chunks: Sequence[Chunk]) -> Tensor:
        """The values of several chopped items as one tensor, in order: what the embedder takes."""
        return torch.cat([chunk.values for chunk in chunks])

    def inner(self, chunks: Sequence[Chunk]) -> SetPlan | None:
        """The items as a set by themselves, one a row, where a model inside the embedder reads them."""
        return None


def axes_of(choppers: Iterable[Chopper]) -> list[str]:
    """The position axes of a set: the running order, then every axis that an input's tokens have."""
    return list(dict.fromkeys(["order", *(axis for chopper in choppers for axis in chopper.axes)]))
