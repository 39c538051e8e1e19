"""The first half of every tokenizer, without parameters: how one raw item is chopped into tokens.

A tokenizer is one file with two halves. The *chopper* (here) can be pickled to loader workers, and tells how many
tokens an item becomes before anything is embedded. The *embedder* is an `nn.Module` that turns the chunks of a batch
into vectors of the model's width; it names the class whose fields are the YAML's keys as its `Chopper`.

    raw value --decode--> item --augment (training only)--> item --chop--> Chunk --collate (a batch)--> Chunks.values
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import FiniteFloat
from torch import Tensor

from ..files.trust import NOTHING, Trust
from ..models.batch import Chunks, SetPlan
from ..models.contract import ContractError, described
from ..models.model import Model
from .encoding.base import Vocabulary
from .media.summaries import span

SECONDS = "seconds"
"""The position axis of time."""


@dataclass(frozen=True)
class RunPart:
    """A trained run as a frozen part of another: its model, and the choppers of its inputs by name."""

    name: str
    """Its folder, for messages."""
    model: Model
    choppers: Mapping[str, Chopper]
    context: int
    """The most tokens of a row, core tokens included, that its first core (the encoder, or the only core) takes."""
    core_tokens: int
    """Class and register tokens before each sample."""
    content: str
    """Identifies its weights: a hash of them, the same for the run and for a copy of it."""
    write: Callable[[Path], None]
    """Saves it to a folder, from which it can be opened without the original run."""
    tasks: Sequence[str] = ()
    """The names of its tasks."""
    check_answer: Callable[[str, str], None] = lambda task, text: None
    """Raises ValueError for a text that can never be the answer of a task."""
    predict: Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]] = lambda samples: []
    """Every task's answer to each sample, by task, as `Run.predict` gives it."""
    pooled: Callable[[str, Sequence[Mapping[str, Any]]], Float[Tensor, "n d"] | None] = lambda task, samples: None
    """The vectors of samples that the head of a task reads, where it reads one of each sample, as a classification
    does; None for other tasks."""


def no_run(folder: str | Path) -> RunPart:
    """The default of `Role.open_run`: raises ValueError."""
    raise ValueError(f"{folder}: no run can be taken in here")


@dataclass(frozen=True)
class Role:
    """What the tasks require of one input, known before its chopper is made.

    Role(generated=True)            the text that a language model generates: it begins with a start token
    Role(special_ids=("mask",))     a text that is only read, in which a masked language model hides tokens
    """

    generated: bool = False
    """Whether a task generates the input, token by token."""
    special_ids: tuple[str, ...] = ()
    """Roles of the special ids that its tasks need (`mask`, `sentinel_0`); a vocabulary that lacks one gets it."""
    open_run: Callable[[str | Path], RunPart] = no_run
    """Opens a trained run by its folder, as a frozen part of this one."""
    trust: Trust = NOTHING
    """The hosts from which what the input needs may be downloaded, such as the ranks of a public encoding."""
    cache: Path | None = None
    """A folder where what is computed once from the training data may be kept for later runs; None: nowhere."""


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """What a YAML says of how an input is chopped: a subclass's fields are its keys, and nothing else.

    `fit` and `load` make the chopper of it, complete in one step.
    """

    axes: ClassVar[tuple[str, ...]] = ()
    """Names of the position axes that its tokens have besides the running order. On `seconds` a token's coordinate is
    the time of the last measurement that it depends on, so that `causal(seconds)` lets no stream see another's future.
    """
    kind: ClassVar[str] = "file"
    """What its raw values are: `image`, `sound`, `text`, or a `file` of any other sort."""
    fits_on: ClassVar[int | None] = None
    """The most items of the training data, drawn at random, that `fit` reads; None: all of them."""

    learns: ClassVar[bool] = True
    """Whether a chopper that it fits learns of the data, and so keeps files in the run's assets."""
    offset: FiniteFloat | None = field(default=None, repr=False)  # vocabularies are known by what this shows
    """Seconds that are added to the times of its tokens: an action that follows the state of its moment has a larger
    one. What has no times of its own, such as a text or an image, stands at this second as a whole: an instruction, at
    -1, before time begins."""

    @property
    def stands_on(self) -> tuple[str, ...]:
        """The axes on which its tokens have coordinates: its `axes`, and `seconds` where it has an `offset`."""
        return stands_on(self.axes, self.offset)

    @property
    def needs_whole(self) -> bool:
        """Whether every token depends on all of its item, as where a clip is normalised by itself; `causal(seconds)` is
        refused then."""
        return False

    def fit(self, items: Callable[[], Iterable], role: Role) -> Chopper:
        """The chopper with all that it learns of the training data (a vocabulary, a mean and a std).

        `items()` gives the raw values of the training data, anew at every call. Raises ValueError where nothing can be
        learned of them.
        """
        raise NotImplementedError

    def load(self, folder: Path, role: Role) -> Chopper:
        """The chopper from the folder that `Chopper.save` has written. Raises DataError for a file that is missing or
        damaged."""
        raise NotImplementedError

    def placed(self, chopper: Chopper) -> Chopper:
        """The chopper that `fit` or `load` has made, at this one's place in time, of which they need not know."""
        return chopper if chopper.offset == self.offset else replace(chopper, offset=self.offset)


@dataclass(frozen=True)
class Chunk:
    """One chopped item: an image of 28 x 42 pixels in patches of 14, and the generated text "no" as characters, where
    `<s>` begins a text and ends it.

        values       (1, 3, 28, 42)                            (3,)   <s>  n   o
        count        6                                         3
        coordinates  0,0  0,1  0,2  1,0  1,1  1,2  (6, 2)      None
        next_ids     None                                      (3,)   n    o   <s>
    """

    values: Tensor
    """What `collate` joins: a row per token, (t, p), or per frame of sound, (f, samples); ids, (t); or a whole image
    or spectrogram with a leading 1, which the embedder cuts."""
    count: int
    """How many tokens the item becomes, t."""
    coordinates: Float[Tensor, "t a"] | None = None
    """Each token's coordinates, a column for each of the chopper's `axes`."""
    next_ids: Int[Tensor, "t"] | None = None
    """For ids: the id that follows each token."""
    seed: int | None = None
    """While training: the seed of all random changes that the embedder makes to the item."""
    inner: Chunk | None = None
    """The item as chopped for a model inside the embedder (`tokenizers/encoded.py`)."""


@dataclass(frozen=True, kw_only=True)
class Chopper(Preprocessor):
    """Base of all choppers: complete, immutable, picklable; it holds nothing that the run trains.

    One that learns nothing of its data is its own preprocessor: its fields are the keys of the YAML, and `fit` and
    `load` give it back as it is. One that learns gives all three of `fit`, `save` and `load`.
    """

    vocabulary: ClassVar[Vocabulary | None] = None
    """The vocabulary of its ids, where its items are ids, so that they can be generated; None: they are not."""

    @property
    def fingerprint(self) -> str | None:
        """Identifies what trained weights depend on: the vocabulary, a run that was taken in; None: nothing is."""
        return None if self.vocabulary is None else self.vocabulary.fingerprint

    def fit(self, items: Callable[[], Iterable], role: Role) -> Chopper:
        return self

    def load(self, folder: Path, role: Role) -> Chopper:
        return self

    def save(self, folder: Path) -> None:
        """Keep what `fit` has learned in `RUN/assets/<input>/`, so that a run works without its data."""

    def decode(self, raw: Any) -> Any:
        """The item of a raw value of a data set: a file's path or bytes, an array. Raises ValueError for one that
        cannot be read."""
        return raw

    def read(self, raw: Any) -> Any:
        """While training, in place of `decode`: the item, or what stands for one of which all that is read is known
        already, so that it need not be decoded; `augment` and `chop` take it, too."""
        return self.decode(raw)

    def summary(self, raws: Sequence[Any]) -> str:
        """What some raw values are and what they become, in a few words, for the lines before the first step: `40 x 32
        pixels RGB, resized to 16 x 16 with 1 channel, 16 tokens`. By default the number of tokens. Raises ValueError if
        none of them can be read."""
        return span((self.count(item) for item in readable(raws, self.decode, "value", "in the samples")), "tokens")

    def keep(self) -> None:
        """Keep what was computed of items for later runs; called after every evaluation."""

    def augment(self, item: Any, random: np.random.Generator) -> Any:
        """The item changed at random, in training only; `random` is seeded by the run's seed, the epoch and the
        sample."""
        return item

    def count(self, item) -> int:
        """How many tokens the item will become, without chopping it."""
        return self.chop(item).count

    def chop(self, item) -> Chunk:
        """Cut one item into tokens. Raises ValueError for an item that cannot be cut."""
        raise NotImplementedError

    @property
    def slice_shape(self) -> tuple[int, int]:
        """Of a chopper whose items can be reconstructed: how many tokens each has, and how many numbers a token holds.
        Raises ValueError where items differ in their tokens, or tokens hold no numbers."""
        raise ValueError(f"{type(self).__name__}: its items cannot be reconstructed")

    def slices(self, chunks: Chunks) -> Float[Tensor, "t p"]:
        """What each token holds, as numbers about from -1 to 1: what `task: reconstruction` decodes."""
        raise ValueError(f"{type(self).__name__}: its items cannot be reconstructed")

    choices: ClassVar[int | None] = None
    """How many categories there are, where each token is one of them: its values are their numbers from 0."""

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of the numbers that each token holds as its values, normalised, NaN where one is missing; empty
        where tokens hold anything else."""
        return ()

    def measured(self, values: Float[Tensor, "t p"]) -> Float[Tensor, "t p"]:
        """Such numbers in the units in which they were measured."""
        raise ValueError(f"{type(self).__name__}: its tokens hold no numbers")

    endings: ClassVar[tuple[str, ...]] = ()
    """The endings of the files that `content` makes of an item."""

    def content(self, item: Any, ending: str) -> bytes:
        """The content of a file with this ending, one of `endings`, that holds the item."""
        raise ValueError(f"{type(self).__name__}: its items are written to no file")

    def joined(self, slices: Float[Tensor, "t p"]) -> Any:
        """The item whose `slices` these are."""
        raise ValueError(f"{type(self).__name__}: its items cannot be reconstructed")

    def draw(self, canvas: Any, item: Any) -> None:
        """Draw one item and where it is cut, on matplotlib's Axes `canvas`; by default its tokens' values, a token a
        column."""
        values = self.chop(item).values.float()
        canvas.imshow(values.flatten(1).T.numpy(), aspect="auto", cmap="viridis")
        canvas.set(xlabel="token", ylabel="value")

    def collate(self, chunks: Sequence[Chunk]) -> Tensor:
        """The values of several chopped items as one tensor, in order: `Chunks.values`, which the embedder takes."""
        return torch.cat([chunk.values for chunk in chunks])

    def inner(self, chunks: Sequence[Chunk]) -> SetPlan | None:
        """The items as a set of their own, one a row, for a model inside the embedder; None where there is none."""
        return None


def readable(items: Iterable, decode: Callable[[Any], Any], what: str, where: str) -> Iterator[Any]:
    """The decoded ones of the training data's items, for a `fit`; those that cannot be read are left out: they are
    reported when samples are read. Raises ValueError where none can be read, naming `what` they are, and `where` they
    are missed if there are none."""
    known, wrong = False, None
    for raw in items:
        try:
            item = decode(raw)
        except (ValueError, TypeError) as error:
            wrong = wrong or error
            continue
        known = True
        yield item
    if not known:
        told = f"not one {what} of the training data can be read; the first: {wrong}"
        raise ValueError(told if wrong else f"there is no {what} {where}")


def stands_on(axes: tuple[str, ...], offset: float | None) -> tuple[str, ...]:
    """The position axes of tokens that a chopper gives coordinates on `axes`, and that stand at `offset` in time."""
    return axes if offset is None or SECONDS in axes else (*axes, SECONDS)


def axes_of(choppers: Iterable[Preprocessor]) -> list[str]:
    """The position axes of a set: the running order, then every axis that an input's tokens have."""
    return list(dict.fromkeys(["order", *(axis for chopper in choppers for axis in chopper.stands_on)]))


def in_time(chunk: Chunk, chopper: Preprocessor) -> Chunk:
    """The chunk with the coordinates of `Chopper.stands_on`: an item with no times of its own gets a column that holds
    the `offset`, one with times gets it added."""
    if chopper.offset is None:
        return chunk
    if SECONDS in chopper.axes:
        if chunk.coordinates is None:
            return chunk
        moved = torch.tensor([chopper.offset if axis == SECONDS else 0.0 for axis in chopper.axes])
        return replace(chunk, coordinates=chunk.coordinates + moved)
    whole = torch.full((chunk.count, 1), float(chopper.offset))
    return replace(chunk, coordinates=whole if chunk.coordinates is None else torch.cat([chunk.coordinates, whole], 1))


Target = Callable[..., Any]
EMPTY: Mapping[str, Any] = MappingProxyType({})


class Part(partial):
    """A class and its options from a configuration: a `functools.partial` that remembers them. Called with the
    positional arguments, which come from code, it makes the object. Options that the class does not take are left out:
    those of a tokenizer include those of its chopper.

        Part(Linear, {"bias": False, "unknown": 1})(3, 4)      Linear(3, 4, bias=False)
    """

    target: Target
    options: Mapping[str, Any]
    use: str | None
    """Its name in the YAML; None for the section `model`, which has no choice."""

    def __new__(cls, target: Target, options: Mapping[str, Any] = EMPTY, use: str | None = None):
        made = super().__new__(cls, target, **accepted(target, options))
        made.target, made.options, made.use = target, options, use
        return made

    def of(self, target: Target) -> Callable[..., Any]:
        """Another `target` with those of the options that it takes: `part.of(TextPreprocessor)()`."""
        return partial(target, **accepted(target, self.options))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and (self.target, self.options) == (other.target, other.options)

    __hash__ = None  # type: ignore[assignment]


def accepted(target: Target, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a callable takes, as its keyword arguments."""
    keys = options_of(target)
    taken = {name: options[name] for name in keyword_only(keys) if name in options}
    return taken if keys is target else {"options": keys(**taken)}


def options_of(target: Target) -> Target:
    """The callable whose signature holds the keys of a class: its dataclass `Options`, else the class itself."""
    return getattr(target, "Options", target)


def keyword_only(target: Target) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a callable, by name."""
    parameters = inspect.signature(target).parameters
    return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def position_axes(inputs: Mapping[str, Part]) -> tuple[str, ...]:
    """The position axes of a set of these inputs: `order`, then those of the tokenizers, each once."""
    axes = [stands_on(part.target.Chopper.axes, part.options.get("offset")) for part in inputs.values()]
    return tuple(dict.fromkeys(["order", *(axis for each in axes for axis in each)]))


def chopped(name: str, chopper: Chopper, item: Any) -> Chunk:
    """`chopper.chop(item)` for the input `name`, checked, with its times moved by `chopper.offset`.

    Raises ContractError where the chunk breaks the contract (`problem_of`), or `chop` raises TypeError, AttributeError
    or LookupError: it does not expect such an item. ValueError, OSError and RuntimeError of `chop`, which tell of a bad
    item, pass through.
    """
    where = f"inputs.{name}: {type(chopper).__name__}"
    try:
        chunk = chopper.chop(item)
    except (TypeError, AttributeError, LookupError) as error:
        no_reader = type(chopper).decode is Chopper.decode and isinstance(item, str | bytes | os.PathLike)
        hint = "; it has no `decode` of its own, which would read the file" if no_reader else ""
        raise ContractError(f"{where}.chop cannot take {described(item)}: {error}{hint}") from error
    if wrong := problem_of(chunk, chopper, item):
        raise ContractError(f"{where}.{wrong}")
    return in_time(chunk, chopper)


def problem_of(chunk: Any, chopper: Chopper, item: Any) -> str | None:
    """How a chunk breaks the contract of `Chopper.chop` (the end of a message); None where it keeps it."""
    if not isinstance(chunk, Chunk):
        return f"chop gave {described(chunk)}; expected is a Chunk(values, count, coordinates)"
    if not isinstance(chunk.values, Tensor):
        return f"chop gave as values {described(chunk.values)}; expected is a tensor"
    if not isinstance(chunk.count, int) or chunk.count < 0:
        return f"chop gave the count {described(chunk.count)}; expected is a whole number of tokens"
    if type(chopper).count is not Chopper.count and (told := chopper.count(item)) != chunk.count:
        return f"count says {described(told)} where chop gave {chunk.count} tokens; they must agree"
    if chunk.next_ids is not None and tuple(chunk.next_ids.shape) != (chunk.count,):
        return f"chop gave as next_ids {described(chunk.next_ids)}; expected is one id for each of {chunk.count} tokens"
    return None if chunk.coordinates is None else _problem_of_coordinates(chunk, chopper.axes)


def _problem_of_coordinates(chunk: Chunk, axes: tuple[str, ...]) -> str | None:
    expected = (chunk.count, len(axes))
    if isinstance(chunk.coordinates, Tensor) and tuple(chunk.coordinates.shape) == expected:
        return None
    given = f"chop gave as coordinates {described(chunk.coordinates)}"
    if not axes:
        return f"{given}, but its `axes` name none, so that no position would use them; name each, such as ('seconds',)"
    return f"{given}; expected is {expected}: a row per token, a column for each of its axes ({', '.join(axes)})"


def check_complete(name: str, preprocessor: Preprocessor) -> None:
    """Raises ContractError for a chopper class that has `fit` but lacks `save` or `load`."""
    kind = type(preprocessor)
    if isinstance(preprocessor, Chopper) and kind.fit is not Chopper.fit:
        missing = [method for method in ("save", "load") if getattr(kind, method) is getattr(Chopper, method)]
        if missing:
            expected = "expected are all three of fit, save and load: a run works without its data"
            raise ContractError(f"inputs.{name}: {kind.__name__} has `fit` but no `{missing[0]}`; {expected}")


def constructor_problem(embedder: Callable) -> str | None:
    """What is wrong with the parameters of an embedder, which must be (chopper, width, context, *, keys of the YAML);
    None where nothing is."""
    kinds = inspect.Parameter
    every = list(inspect.signature(embedder).parameters.values())
    positional = [each for each in every if each.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    needed = sum(each.default is each.empty for each in positional)
    if needed <= 3 and (len(positional) >= 3 or any(each.kind is kinds.VAR_POSITIONAL for each in every)):
        return None
    given = ", ".join(each.name for each in positional)
    expected = "(chopper, width, context), and behind * the keys of the YAML"
    return f"{embedder.__name__} takes ({given}); expected is {expected}"
