"""The half of every tokenizer that has no trainable parameters: the chopper cuts one raw item into tokens.

A tokenizer is one file with two halves. The *chopper* (defined here) is picklable, runs in the loader workers and
counts the tokens of an item before anything is embedded. The *embedder* is an `nn.Module` that maps the chunks of a
batch to vectors of the model's width; its attribute `Chopper` is the class whose fields are the YAML keys.

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
    """A trained run that another run uses as a frozen part: its model, and its choppers by input name."""

    name: str
    """The folder of the run, for messages."""
    model: Model
    choppers: Mapping[str, Chopper]
    context: int
    """The maximum number of tokens per row, core tokens included, of its first core (the encoder, or the only core)."""
    core_tokens: int
    """Number of class and register tokens at the start of each sample."""
    content: str
    """A hash of its weights, the same for the run and for its copies."""
    write: Callable[[Path], None]
    """Saves the run to a folder, from which it can be opened without the original run."""
    tasks: Sequence[str] = ()
    """The names of its tasks."""
    check_answer: Callable[[str, str], None] = lambda task, text: None
    """Raises ValueError if the task can never answer with this text."""
    predict: Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]] = lambda samples: []
    """Returns the answers to each sample by task name, as `Run.predict` does."""
    pooled: Callable[[str, Sequence[Mapping[str, Any]]], Float[Tensor, "n d"] | None] = lambda task, samples: None
    """Returns the inputs (n, d) of the task's head for n samples; None if the head does not read exactly one vector per
    sample, as a classification head does."""


def no_run(folder: str | Path) -> RunPart:
    """The default of `Role.open_run`. Raises ValueError."""
    raise ValueError(f"{folder}: a trained run cannot be used as a part here")


@dataclass(frozen=True)
class Role:
    """What the tasks require of one input. It is known before the chopper is created.

    Role(generated=True)            text that a language model generates: it begins with a start token
    Role(special_ids=("mask",))     text that is only an input, in which a masked language model hides tokens
    """

    generated: bool = False
    """Whether a task generates this input token by token."""
    special_ids: tuple[str, ...] = ()
    """Roles of the special ids that its tasks need (`mask`, `sentinel_0`). Missing ones extend the vocabulary."""
    open_run: Callable[[str | Path], RunPart] = no_run
    """Opens the trained run in a folder as a frozen part of this run."""
    trust: Trust = NOTHING
    """The hosts from which required files, such as the ranks of a public encoding, may be downloaded."""
    cache: Path | None = None
    """Folder for results that are computed once from the training data and reused by later runs; None: no cache."""


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """The YAML options for chopping one input. The fields of a subclass are exactly its YAML keys.

    `fit` learns from the training data, and `load` reads a saved chopper; both return a `Chopper` that is ready to
    use.
    """

    axes: ClassVar[tuple[str, ...]] = ()
    """The position axes of its tokens, in addition to the running order. On `seconds` the coordinate of a token is the
    time of the last measurement that it depends on, so that under `causal(seconds)` no token attends to the future."""
    kind: ClassVar[str] = "file"
    """The kind of its raw values, such as `image`, `sound` or `text`; `file` for any other kind of file."""
    fits_on: ClassVar[int | None] = None
    """The maximum number of training items, drawn at random, that `fit` reads; None: all items."""

    learns: ClassVar[bool] = True
    """Whether its chopper learns from the data, so that the run's assets contain files of it."""
    offset: FiniteFloat | None = field(default=None, repr=False)  # fingerprints of vocabularies hash the repr
    """Seconds added to the times of its tokens. An action that follows the state of the same time step has a larger
    offset than the state. All tokens of an input without times, such as a text or an image, get the time `offset`: an
    instruction at -1 comes before the first time step."""

    @property
    def coordinate_axes(self) -> tuple[str, ...]:
        """The axes on which its tokens have coordinates: its `axes`, and `seconds` if it has an `offset`."""
        return coordinate_axes(self.axes, self.offset)

    @property
    def needs_whole(self) -> bool:
        """Whether every token depends on the complete item, for example if a clip is normalised by its own
        statistics. Such inputs cannot be used with `causal(seconds)`."""
        return False

    def fit(self, items: Callable[[], Iterable], role: Role) -> Chopper:
        """Returns the chopper with everything that it learns from the training data (a vocabulary, a mean and std).

        Every call of `items()` returns a new iterable over the raw values of the training data. Raises ValueError if
        nothing can be learned from them.
        """
        raise NotImplementedError

    def load(self, folder: Path, role: Role) -> Chopper:
        """Returns the chopper from a folder that `Chopper.save` has written. Raises DataError if a file is missing or
        damaged."""
        raise NotImplementedError

    def placed(self, chopper: Chopper) -> Chopper:
        """A copy of a fitted or loaded chopper with this input's time offset."""
        return chopper if chopper.offset == self.offset else replace(chopper, offset=self.offset)


@dataclass(frozen=True)
class Chunk:
    """One chopped item. Two examples: an image of 28 x 42 pixels in patches of 14, and the generated text "no" as
    characters, in a vocabulary where `<s>` starts and ends a text.

        values       (1, 3, 28, 42)                            (3,)   <s>  n   o
        count        6                                         3
        coordinates  0,0  0,1  0,2  1,0  1,1  1,2  (6, 2)      None
        next_ids     None                                      (3,)   n    o   <s>
    """

    values: Tensor
    """The input of `collate`: one row per token (t, p) or per frame of sound (f, samples); ids (t); or a complete image
    or spectrogram with a leading dimension of 1, which the embedder cuts."""
    count: int
    """The number of tokens, t."""
    coordinates: Float[Tensor, "t a"] | None = None
    """The coordinates of each token: one column per axis of the chopper's `axes`."""
    next_ids: Int[Tensor, "t"] | None = None
    """For ids: the id that follows each token."""
    seed: int | None = None
    """During training: the seed of all random changes that the embedder makes to the item."""
    inner: Chunk | None = None
    """The item as chopped for a model inside the embedder (`tokenizers/encoded.py`)."""


@dataclass(frozen=True, kw_only=True)
class Chopper(Preprocessor):
    """Base of all choppers: complete, immutable, picklable, without trainable parameters.

    A chopper that learns nothing from data is its own preprocessor: its fields are the YAML keys, and `fit` and `load`
    return it unchanged. A chopper that learns defines all three of `fit`, `save` and `load`.
    """

    vocabulary: ClassVar[Vocabulary | None] = None
    """The vocabulary, if items become ids and can be generated; else None."""

    @property
    def fingerprint(self) -> str | None:
        """Identifies what trained weights depend on: a vocabulary, or another run; None: they depend on neither."""
        return None if self.vocabulary is None else self.vocabulary.fingerprint

    def fit(self, items: Callable[[], Iterable], role: Role) -> Chopper:
        return self

    def load(self, folder: Path, role: Role) -> Chopper:
        return self

    def save(self, folder: Path) -> None:
        """Save what `fit` has learned to `RUN/assets/<input>/`, so that a run works without its data."""

    def decode(self, raw: Any) -> Any:
        """Returns the item of a raw value of a data set (the path or the bytes of a file, an array). Raises ValueError
        if the value cannot be read."""
        return raw

    def read(self, raw: Any) -> Any:
        """Replaces `decode` during training. Returns the item, or a placeholder if the results for this item are cached
        and decoding is not necessary; `augment` and `chop` accept the placeholder, too."""
        return self.decode(raw)

    def summary(self, raws: Sequence[Any]) -> str:
        """Returns a short description of some raw values and their tokens, which is printed before the first step: `40
        x 32 pixels RGB, resized to 16 x 16 with 1 channel, 16 tokens`. The default is the number of tokens. Raises
        ValueError if none of the values can be read."""
        return span((self.count(item) for item in readable(raws, self.decode, "value", "in the samples")), "tokens")

    def keep(self) -> None:
        """Save results that were computed from items, for later runs. It is called after every evaluation."""

    def augment(self, item: Any, random: np.random.Generator) -> Any:
        """Returns the randomly changed item. It is used in training only; the run's seed, the epoch and the sample seed
        `random`."""
        return item

    def count(self, item) -> int:
        """Returns the number of tokens of the item. Subclasses may compute it without chopping."""
        return self.chop(item).count

    def chop(self, item) -> Chunk:
        """Cut one item into tokens. Raises ValueError if the item cannot be cut."""
        raise NotImplementedError

    @property
    def slice_shape(self) -> tuple[int, int]:
        """Returns (tokens per item, numbers per token). Only tokenizers whose items can be reconstructed define it.
        Raises ValueError if items differ in their number of tokens, or if tokens contain no numbers."""
        raise ValueError(f"{type(self).__name__}: its items cannot be reconstructed")

    def slices(self, chunks: Chunks) -> Float[Tensor, "t p"]:
        """Returns the content of each token as numbers from about -1 to 1: the targets of `task: reconstruction`."""
        raise ValueError(f"{type(self).__name__}: its items cannot be reconstructed")

    choices: ClassVar[int | None] = None
    """The number of categories, if each token is one category, with its number (from 0) as value; else None."""

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of the numbers in each token, for example `speed_0`; an empty tuple if tokens do not contain
        numbers. The numbers are normalised, and a missing one is NaN."""
        return ()

    def measured(self, values: Float[Tensor, "t p"]) -> Float[Tensor, "t p"]:
        """Convert normalised `numbers` back to their units of measurement."""
        raise ValueError(f"{type(self).__name__}: its tokens hold no numbers")

    endings: ClassVar[tuple[str, ...]] = ()
    """The file name extensions that `content` supports, such as `.png`."""

    def content(self, item: Any, ending: str) -> bytes:
        """Returns the content of a file that holds the item; `ending` is one of `endings`."""
        raise ValueError(f"items of {type(self).__name__} cannot be written to files")

    def joined(self, slices: Float[Tensor, "t p"]) -> Any:
        """Returns the item that has these `slices`."""
        raise ValueError(f"{type(self).__name__}: its items cannot be reconstructed")

    def draw(self, canvas: Any, item: Any) -> None:
        """Draw one item and its cuts on matplotlib's Axes `canvas`. The default draws the values of the tokens, one
        column per token."""
        values = self.chop(item).values.float()
        canvas.imshow(values.reshape(len(values), -1).T.numpy(), aspect="auto", cmap="viridis")
        canvas.set(xlabel="token", ylabel="value")

    def collate(self, chunks: Sequence[Chunk]) -> Tensor:
        """Returns the values of several chunks, in order, as one tensor: `Chunks.values`, the input of the embedder."""
        return torch.cat([chunk.values for chunk in chunks])

    def inner(self, chunks: Sequence[Chunk]) -> SetPlan | None:
        """If the embedder contains another model (a frozen trained run), returns the items as a set for that model,
        with one item per row; otherwise None."""
        return None


def readable(items: Iterable, decode: Callable[[Any], Any], noun: str, source: str) -> Iterator[Any]:
    """Yields the decoded items, for a `fit`. Items that cannot be read are skipped: they are reported when samples are
    read. Raises ValueError if no item can be read. In its message `noun` names an item, and `source` says where items
    are missing: `readable(items, decode, "stream", "in the samples")`."""
    any_readable, first_error = False, None
    for raw in items:
        try:
            item = decode(raw)
        except (ValueError, TypeError) as error:
            first_error = first_error or error
            continue
        any_readable = True
        yield item
    if not any_readable:
        unreadable = f"no {noun} of the training data can be read; first error: {first_error}"
        raise ValueError(unreadable if first_error else f"there is no {noun} {source}")


def coordinate_axes(axes: tuple[str, ...], offset: float | None) -> tuple[str, ...]:
    """The axes on which tokens have coordinates: the chopper's `axes`, and `seconds` if there is an `offset`."""
    return axes if offset is None or SECONDS in axes else (*axes, SECONDS)


def axes_of(choppers: Iterable[Preprocessor]) -> list[str]:
    """The position axes of a set: the running order, then every axis on which an input has coordinates."""
    return list(dict.fromkeys(["order", *(axis for chopper in choppers for axis in chopper.coordinate_axes)]))


def with_offset(chunk: Chunk, chopper: Preprocessor) -> Chunk:
    """The chunk with coordinates on the chopper's `coordinate_axes`: its `offset` is added to the item's times. An item
    without times gets a column that holds the `offset`."""
    if chopper.offset is None:
        return chunk
    if SECONDS in chopper.axes:
        if chunk.coordinates is None:
            return chunk
        shift = torch.tensor([chopper.offset if axis == SECONDS else 0.0 for axis in chopper.axes])
        return replace(chunk, coordinates=chunk.coordinates + shift)
    times = torch.full((chunk.count, 1), float(chopper.offset))
    return replace(chunk, coordinates=times if chunk.coordinates is None else torch.cat([chunk.coordinates, times], 1))


Target = Callable[..., Any]
EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Example:
    """A complete small use of a tokenizer, or of a task, for the tests of all of them. The file of each contains one,
    called `EXAMPLE`."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Its options in a YAML."""
    items: Callable[[], Sequence[Any]] = tuple
    """Of a tokenizer: returns two raw items with equally many tokens, of which the tokens differ."""
    generated: bool = False
    """Of a tokenizer: whether items can be generated."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Of a tokenizer that uses a trained run, which its option `run` names: the sections `inputs` and `tasks` of it."""
    inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of a task: the inputs of a YAML. They read columns of the data set of the tests (`tests/untrained.py`)."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Of a task: options of the model."""


class Part(partial):
    """A class and its options from a configuration: a `functools.partial` that stores both. Calling it with the
    positional arguments, which come from code, creates the object. Options that the class does not accept are ignored,
    since the options of a tokenizer include those of its chopper.

        Part(Linear, {"bias": False, "unknown": 1})(3, 4)      Linear(3, 4, bias=False)
    """

    target: Target
    options: Mapping[str, Any]
    use: str | None
    """The value of `use` in the YAML; None for the section `model`, which has no such key."""

    def __new__(cls, target: Target, options: Mapping[str, Any] = EMPTY, use: str | None = None):
        part = super().__new__(cls, target, **accepted(target, options))
        part.target, part.options, part.use = target, options, use
        return part

    def of(self, target: Target) -> Callable[..., Any]:
        """Returns another `target` with the options that it accepts: `part.of(TextPreprocessor)()`."""
        return partial(target, **accepted(target, self.options))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and (self.target, self.options) == (other.target, other.options)

    __hash__ = None  # type: ignore[assignment]


def accepted(target: Target, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a callable accepts, as its keyword arguments."""
    keys = options_of(target)
    arguments = {name: options[name] for name in keyword_only(keys) if name in options}
    return arguments if keys is target else {"options": keys(**arguments)}


def options_of(target: Target) -> Target:
    """The callable whose signature holds the YAML keys of a class: its dataclass `Options`, else the class itself."""
    return getattr(target, "Options", target)


def keyword_only(target: Target) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a callable, by name."""
    parameters = inspect.signature(target).parameters
    return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def position_axes(inputs: Mapping[str, Part]) -> tuple[str, ...]:
    """The position axes of a set of these inputs: `order`, then those of the tokenizers, without duplicates."""
    axes = [coordinate_axes(part.target.Chopper.axes, part.options.get("offset")) for part in inputs.values()]
    return tuple(dict.fromkeys(["order", *(axis for input_axes in axes for axis in input_axes)]))


def chopped(name: str, chopper: Chopper, item: Any) -> Chunk:
    """Returns `chopper.chop(item)` for the input `name`, after checks, with `chopper.offset` added to its times.

    Raises ContractError if the chunk breaks the contract (`contract_violation`), or if `chop` raises TypeError,
    AttributeError or LookupError, which show that it does not support this type of item. ValueError, OSError and
    RuntimeError of `chop` mean a bad item and are not caught.
    """
    owner = f"inputs.{name}: {type(chopper).__name__}"
    try:
        chunk = chopper.chop(item)
    except (TypeError, AttributeError, LookupError) as error:
        needs_decode = type(chopper).decode is Chopper.decode and isinstance(item, str | bytes | os.PathLike)
        hint = "; define `decode`, which reads the file" if needs_decode else ""
        raise ContractError(f"{owner}.chop cannot process {described(item)}: {error}{hint}") from error
    if violation := contract_violation(chunk, chopper, item):
        raise ContractError(f"{owner}.{violation}")
    return with_offset(chunk, chopper)


def contract_violation(chunk: Any, chopper: Chopper, item: Any) -> str | None:
    """How a chunk breaks the contract of `Chopper.chop`, as the end of a message; None if the chunk is correct."""
    if not isinstance(chunk, Chunk):
        return f"chop returned {described(chunk)}; expected: a Chunk(values, count, coordinates)"
    if not isinstance(chunk.values, Tensor):
        return f"chop returned {described(chunk.values)} as values; expected: a tensor"
    if not isinstance(chunk.count, int) or chunk.count < 0:
        return f"chop returned {described(chunk.count)} as count; expected: a whole number of tokens"
    if type(chopper).count is not Chopper.count and (count := chopper.count(item)) != chunk.count:
        return f"count returned {described(count)}, but chop returned {chunk.count} tokens; they must agree"
    if chunk.next_ids is not None and tuple(chunk.next_ids.shape) != (chunk.count,):
        return f"chop returned {described(chunk.next_ids)} as next_ids; expected: one id per token, {chunk.count} ids"
    return None if chunk.coordinates is None else _coordinates_violation(chunk, chopper.axes)


def _coordinates_violation(chunk: Chunk, axes: tuple[str, ...]) -> str | None:
    expected = (chunk.count, len(axes))
    if isinstance(chunk.coordinates, Tensor) and tuple(chunk.coordinates.shape) == expected:
        return None
    problem = f"chop returned {described(chunk.coordinates)} as coordinates"
    if not axes:
        return f"{problem}, but its `axes` are empty, so that no position can use them; name them, such as ('seconds',)"
    return f"{problem}; expected: {expected}, one row per token and one column per axis ({', '.join(axes)})"


def check_complete(name: str, preprocessor: Preprocessor) -> None:
    """Raises ContractError if a chopper class defines `fit`, but not `save` and `load`."""
    kind = type(preprocessor)
    if isinstance(preprocessor, Chopper) and kind.fit is not Chopper.fit:
        missing = [method for method in ("save", "load") if getattr(kind, method) is getattr(Chopper, method)]
        if missing:
            expected = "define all three of fit, save and load, so that a run works without its data"
            raise ContractError(f"inputs.{name}: {kind.__name__} has `fit` but no `{missing[0]}`; {expected}")


def constructor_problem(embedder: Callable) -> str | None:
    """An error message if the parameters of an embedder are not (chopper, width, context, *, YAML keys), else None."""
    kinds = inspect.Parameter
    parameters = list(inspect.signature(embedder).parameters.values())
    positional = [
        parameter for parameter in parameters if parameter.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]
    required = sum(parameter.default is parameter.empty for parameter in positional)
    variadic = any(parameter.kind is kinds.VAR_POSITIONAL for parameter in parameters)
    if required <= 3 and (len(positional) >= 3 or variadic):
        return None
    names = ", ".join(parameter.name for parameter in positional)
    return f"{embedder.__name__} takes ({names}); expected: (chopper, width, context, *, YAML keys)"
