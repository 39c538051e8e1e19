"""Choppers, the part of every tokenizer without trainable parameters: a chopper cuts one raw item into tokens.

A tokenizer is one file with two classes. The *chopper* (base class in this file) is picklable, runs in the loader
workers and counts the tokens of an item before anything is embedded. The *embedder* is an `nn.Module` that maps the
chunks of a batch to vectors of the model's width. The attribute `Chopper` of the embedder is the class whose fields are
the YAML keys of the chopper.

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

from ..files.reading import DataError
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
    """A trained run that another run uses as a frozen part. `choppers` maps the names of its inputs to their
    choppers."""

    name: str
    """The folder of the run, for messages."""
    model: Model
    choppers: Mapping[str, Chopper]
    context: int
    """The maximum number of tokens per row, core tokens included, in the first core of the run (the encoder of an
    encoder-decoder, otherwise the only core)."""
    core_tokens: int
    """Number of class and register tokens at the start of each sample."""
    content: str
    """A hash of the run's weights. The run and its copies have the same hash."""
    write: Callable[[Path], None]
    """Saves the run to a folder, from which it can be opened without the original run."""
    tasks: Sequence[str] = ()
    """The names of the run's tasks."""
    check_answer: Callable[[str, str], None] = lambda task, text: None
    """Raises ValueError if the task can never answer with this text."""
    predict: Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]] = lambda samples: []
    """Returns one mapping per sample, from task name to answer, like `Run.predict`."""
    pooled: Callable[[str, Sequence[Mapping[str, Any]]], Float[Tensor, "n d"] | None] = lambda task, samples: None
    """Maps (task, n samples) to the input (n, d) of the task's head. Returns None if the head does not read exactly one
    vector per sample. A classification head reads one vector per sample."""


def no_run(folder: str | Path) -> RunPart:
    """The default of `Role.open_run`. Raises ValueError."""
    raise ValueError(f"{folder}: a trained run cannot be used as a part here")


@dataclass(frozen=True)
class Role:
    """The requirements of all tasks for one input, which are known before the chopper of this input is created.

    Role(generated=True)            text that a language model generates: it begins with a start token
    Role(special_ids=("mask",))     text that is only an input, in which a masked language model hides tokens
    """

    generated: bool = False
    """Whether a task generates this input token by token."""
    special_ids: tuple[str, ...] = ()
    """The names of the special ids that the tasks need (`mask`, `sentinel_0`). Special ids that the vocabulary lacks
    are added to the vocabulary."""
    open_run: Callable[[str | Path], RunPart] = no_run
    """Opens the trained run in a folder, for use as a frozen part of the current run."""
    trust: Trust = NOTHING
    """The hosts from which required files, such as the ranks of a public encoding, may be downloaded."""
    cache: Path | None = None
    """Folder for results that are computed once from the training data and reused by later runs; None: no cache."""


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """The YAML options for chopping one input. The fields of a subclass are exactly its YAML keys.

    `fit` learns from the training data and `load` reads a saved chopper. Both methods return a `Chopper`.
    """

    axes: ClassVar[tuple[str, ...]] = ()
    """The position axes of the tokens, in addition to `order`. On the axis `seconds` the coordinate of a token is the
    time of the last measurement that the token depends on. Therefore no token attends to the future under
    `causal(seconds)`."""
    kind: ClassVar[str] = "file"
    """The kind of the raw values: `image`, `sound`, `text`, ...; `file` if no other name fits."""
    fits_on: ClassVar[int | None] = None
    """The maximum number of training items that `fit` reads. The items are drawn at random. None: all items."""

    learns: ClassVar[bool] = True
    """Whether the chopper learns from the training data. If so, the folder `assets` of the run contains files of the
    chopper."""
    offset: FiniteFloat | None = field(default=None, repr=False)  # fingerprints of vocabularies hash the repr
    """Seconds that are added to the times of the tokens. An action that follows the state of the same time step has a
    larger offset than the state. In an input without times, such as a text or an image, all tokens get the time
    `offset`: an instruction with `offset: -1` comes before the first time step. null: nothing is added."""

    @property
    def coordinate_axes(self) -> tuple[str, ...]:
        """The axes on which the tokens have coordinates: `axes`, and also `seconds` if `offset` is set."""
        return coordinate_axes(self.axes, self.offset)

    @property
    def needs_whole(self) -> bool:
        """Whether every token depends on the complete item, for example on the mean of a whole clip. If True, the input
        cannot be used with `causal(seconds)`."""
        return False

    @classmethod
    def problems(cls, options: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yields the problems of the options of an input in a YAML as (keys, message), for example
        `(("encoding",), "bpe needs 'vocabulary'")`. `options` also contains those of the tokenizer. The default yields
        nothing."""
        yield from ()

    def fit(self, items: Callable[[], Iterable], role: Role) -> Chopper:
        """Returns the chopper, including the values that are learned from the training data (a vocabulary, a mean and
        std).

        Every call of `items()` returns a new iterable over the raw values of the training data. Raises ValueError if
        nothing can be learned from these values, for example if no value can be read.
        """
        raise NotImplementedError

    def load(self, folder: Path, role: Role) -> Chopper:
        """Returns the chopper from a folder that `Chopper.save` has written. Raises DataError if a file is missing or
        damaged."""
        raise NotImplementedError

    def placed(self, chopper: Chopper) -> Chopper:
        """Returns a fitted or loaded chopper with the `offset` of this preprocessor: a copy if the chopper has another
        offset, otherwise the chopper itself."""
        return chopper if chopper.offset == self.offset else replace(chopper, offset=self.offset)


@dataclass(frozen=True)
class Chunk:
    """One chopped item. Two examples. Left: an image of 28 x 42 pixels in patches of 14. Right: the text "no", which a
    task generates, as characters, in a vocabulary where `<s>` starts and ends a text.

        values       (1, 3, 28, 42)                            (3,)   <s>  n   o
        count        6                                         3
        coordinates  0,0  0,1  0,2  1,0  1,1  1,2  (6, 2)      None
        next_ids     None                                      (3,)   n    o   <s>
    """

    values: Tensor
    """The input of `collate`, one of: numbers per token (t, p); samples per frame of sound (f, samples); ids (t,); or
    an uncut image (1, channels, height, width) or spectrogram (1, mels, frames), which the embedder cuts."""
    count: int
    """The number of tokens, t."""
    coordinates: Float[Tensor, "t a"] | None = None
    """The coordinates of each token, one column per axis of the chopper's `axes`. After `with_offset`: one column per
    axis of `coordinate_axes`. None: the tokens have no coordinates."""
    next_ids: Int[Tensor, "t"] | None = None
    """The id that follows each token; None if tokens are not ids."""
    seed: int | None = None
    """During training: the seed of all random changes that the embedder makes to the item. None otherwise."""
    inner: Chunk | None = None
    """The chunk of the same item for a model inside the embedder (`tokenizers/encoded.py`); None if there is no such
    model."""


@dataclass(frozen=True, kw_only=True)
class Chopper(Preprocessor):
    """Base of all choppers. A chopper is immutable, picklable and has no trainable parameters.

    A chopper that learns nothing from data is also its preprocessor: its fields are the YAML keys, and `fit` and `load`
    return the chopper unchanged. A chopper that learns from data defines `fit`, `save` and `load`.
    """

    vocabulary: ClassVar[Vocabulary | None] = None
    """The vocabulary of the ids if items become ids and can be generated; otherwise None."""

    @property
    def fingerprint(self) -> str | None:
        """Returns a text that identifies the vocabulary, or the other run, on which trained weights depend. Returns
        None if the chopper uses neither."""
        return None if self.vocabulary is None else self.vocabulary.fingerprint

    def fit(self, items: Callable[[], Iterable], role: Role) -> Chopper:
        return self

    def load(self, folder: Path, role: Role) -> Chopper:
        return self

    def save(self, folder: Path) -> None:
        """Saves the results of `fit` in `folder` (`RUN/assets/<input>/`), so that the run can be used without the
        training data."""

    def decode(self, raw: Any) -> Any:
        """Returns the item of a raw value of a data set (the path or the bytes of a file, an array). Raises ValueError
        if the value cannot be read."""
        return raw

    def read(self, raw: Any) -> Any:
        """Called instead of `decode` during training. Returns the decoded item. Subclasses may return a placeholder
        instead if the ids of the item are cached; then `augment` and `chop` accept the placeholder, too."""
        return self.decode(raw)

    def summary(self, raws: Sequence[Any]) -> str:
        """Returns a short description of raw values and their tokens, for example `40 x 32 pixels RGB, resized to 16 x
        16 with 1 channel, 16 tokens`. A run prints the description before the first step. The base class returns the
        range of the number of tokens. Raises ValueError if `raws` contains no readable value."""
        return span((self.count(item) for item in readable(raws, self.decode, "value", "in the samples")), "tokens")

    def keep(self) -> None:
        """Saves results that were computed from items (such as codes) for later runs. Called after every evaluation."""

    def augment(self, item: Any, random: np.random.Generator) -> Any:
        """Returns the randomly changed item. Called in training only. The seed of `random` is computed from the seed of
        the run, the epoch and the sample."""
        return item

    def count(self, item) -> int:
        """Returns the number of tokens of the item. Subclasses may compute this number without chopping the item."""
        return self.chop(item).count

    def chop(self, item) -> Chunk:
        """Returns the tokens of one item. Raises ValueError if the item cannot be cut into tokens."""
        raise NotImplementedError

    @property
    def slice_shape(self) -> tuple[int, int]:
        """Returns (tokens per item, numbers per token). Only tokenizers whose items can be reconstructed define this
        property. Raises ValueError in all other tokenizers, and if the number of tokens differs between items."""
        raise ValueError(f"{type(self).__name__}: its items cannot be reconstructed")

    def slices(self, chunks: Chunks) -> Float[Tensor, "t p"]:
        """Returns the content of each token as numbers from about -1 to 1: the targets of `task: reconstruction`."""
        raise ValueError(f"{type(self).__name__}: its items cannot be reconstructed")

    def with_slices(self, chunks: Chunks, slices: Float[Tensor, "t p"]) -> Chunks:
        """Returns chunks whose tokens have the content `slices`, which can be outside of the range of items (a noisy
        picture). The inverse of `slices`."""
        raise ValueError(f"{type(self).__name__}: the content of its tokens cannot be replaced")

    choices: ClassVar[int | None] = None
    """The number of categories if each token is one category and the value of the token is the number of the category
    (from 0); otherwise None."""

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of the numbers in each token, for example `speed_0`; an empty tuple if the tokenizer does not name
        them. The numbers are normalised. A missing number is NaN."""
        return ()

    def measured(self, values: Float[Tensor, "t p"]) -> Float[Tensor, "t p"]:
        """Returns normalised `numbers` converted to their units of measurement."""
        raise ValueError(f"{type(self).__name__} does not define `measured`: its tokens are not measured numbers")

    endings: ClassVar[tuple[str, ...]] = ()
    """The file name extensions that `content` supports, such as `.png`."""

    def content(self, item: Any, ending: str) -> bytes:
        """Returns the bytes of a file with this item; `ending` is one of `endings`. Raises ValueError if `endings` is
        empty."""
        raise ValueError(f"items of {type(self).__name__} cannot be written to files")

    def joined(self, slices: Float[Tensor, "t p"]) -> Any:
        """Returns the item whose tokens have these `slices` (the inverse of `slices`)."""
        raise ValueError(f"{type(self).__name__}: its items cannot be reconstructed")

    def simple_features(self, item: Any) -> np.ndarray | str | None:
        """Returns an item as the simple models read it with which a run is compared (`chopmix baselines`): an array of
        the same shape for all items, with NaN for missing values, or a text. An array with three axes is a picture
        (channels, rows, columns). The default returns None: simple models do not read this input."""
        return None

    def draw(self, canvas: Any, item: Any) -> None:
        """Draws one item, and lines where it is cut into tokens, on matplotlib's Axes `canvas`. The base class draws
        the values of the tokens, one column per token."""
        values = self.chop(item).values.float()
        canvas.imshow(values.reshape(len(values), -1).T.numpy(), aspect="auto")
        canvas.set(xlabel="token", ylabel="value")

    def collate(self, chunks: Sequence[Chunk]) -> Tensor:
        """Returns the values of several chunks, in order, as one tensor: `Chunks.values`, the input of the embedder."""
        return torch.cat([chunk.values for chunk in chunks])

    def inner(self, chunks: Sequence[Chunk]) -> SetPlan | None:
        """Returns the items of several chunks as a set with one item per row, for the trained run inside the embedder.
        Returns None if the embedder contains no run."""
        return None


def readable(items: Iterable, decode: Callable[[Any], Any], noun: str, source: str) -> Iterator[Any]:
    """Yields the decoded items. Items that cannot be read are skipped, because these are reported when samples are
    read. Raises ValueError if no item can be read. The message uses `noun` as the name of an item, and `source` if
    there are no items: `readable([], decode, "stream", "in the samples")` raises "there is no stream in the
    samples"."""
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
    """Returns the axes on which tokens have coordinates: the chopper's `axes`, and also `seconds` if `offset` is not
    None."""
    return axes if offset is None or SECONDS in axes else (*axes, SECONDS)


def axes_of(choppers: Iterable[Preprocessor]) -> list[str]:
    """Returns the position axes of a set: `order`, then each axis on which at least one input has coordinates."""
    return list(dict.fromkeys(["order", *(axis for chopper in choppers for axis in chopper.coordinate_axes)]))


def with_offset(chunk: Chunk, chopper: Preprocessor) -> Chunk:
    """Returns the chunk with coordinates on the chopper's `coordinate_axes`: `chopper.offset` is added to the times. If
    `seconds` is not among the chopper's axes, a column with the value `offset` is appended. Returns the chunk unchanged
    if the offset is None, or if `seconds` is among the axes and the chunk has no coordinates."""
    return chunk if chopper.offset is None else _moved(chunk, chopper, chopper.offset)


def _moved(chunk: Chunk, chopper: Preprocessor, offset: float) -> Chunk:
    if SECONDS in chopper.axes:
        if chunk.coordinates is None:
            return chunk
        shift = torch.tensor([offset if axis == SECONDS else 0.0 for axis in chopper.axes])
        return replace(chunk, coordinates=chunk.coordinates + shift)
    times = torch.full((chunk.count, 1), float(offset))
    return replace(chunk, coordinates=times if chunk.coordinates is None else torch.cat([chunk.coordinates, times], 1))


Target = Callable[..., Any]
EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Example:
    """A small example of a tokenizer or of a task, for the tests. The file of every tokenizer and of every task
    contains one, called `EXAMPLE`."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """The options of the tokenizer or task in a YAML."""
    items: Callable[[], Sequence[Any]] = tuple
    """Of a tokenizer: returns two raw items with equal numbers of tokens and different values."""
    generated: bool = False
    """Of a tokenizer: whether items can be generated."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Of a tokenizer with an option `run` (a trained run): the sections `inputs` and `tasks` in the YAML of that
    run."""
    inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of a task: the section `inputs` of a YAML. The inputs read columns of the data set of the tests
    (`tests/untrained.py`)."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Of a task: options of the model."""


class Part(partial):
    """A `functools.partial` of a class (`target`) and its options from a configuration. Calling the part with the
    positional arguments creates the object. Options that the class does not accept are ignored, because the options of
    an embedder and of its chopper are in one mapping.

        Part(Linear, {"bias": False, "unknown": 1})(3, 4)      Linear(3, 4, bias=False)
    """

    target: Target
    options: Mapping[str, Any]
    use: str | None
    """The value of the key `use` in the YAML; None for the section `model`, which has no key `use`."""

    def __new__(cls, target: Target, options: Mapping[str, Any] = EMPTY, use: str | None = None):
        part = super().__new__(cls, target, **accepted(target, options))
        part.target, part.options, part.use = target, options, use
        return part

    def of(self, target: Target) -> Callable[..., Any]:
        """Returns a `partial` of another class `target` with those options of this part that `target` accepts:
        `part.of(TextPreprocessor)()` creates a TextPreprocessor."""
        return partial(target, **accepted(target, self.options))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and (self.target, self.options) == (other.target, other.options)

    __hash__ = None  # type: ignore[assignment]


def accepted(target: Target, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keyword arguments for a callable: those of the options that it accepts. If the callable has a
    dataclass `Options`, returns {"options": an object of this dataclass}."""
    keys = options_of(target)
    arguments = {name: options[name] for name in keyword_only(keys) if name in options}
    return arguments if keys is target else {"options": keys(**arguments)}


def options_of(target: Target) -> Target:
    """Returns the callable whose keyword-only parameters are the YAML keys of a class: the dataclass `Options` of the
    class if there is one, otherwise the class itself."""
    return getattr(target, "Options", target)


def keyword_only(target: Target) -> dict[str, inspect.Parameter]:
    """Returns the keyword-only parameters of a callable, by name."""
    parameters = inspect.signature(target).parameters
    return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def position_axes(inputs: Mapping[str, Part]) -> tuple[str, ...]:
    """Returns the position axes of a set with these inputs: `order`, then the coordinate axes of each input, without
    duplicates. `inputs` maps input names to the parts of their tokenizers."""
    axes = [coordinate_axes(part.target.Chopper.axes, part.options.get("offset")) for part in inputs.values()]
    return tuple(dict.fromkeys(["order", *(axis for input_axes in axes for axis in input_axes)]))


def chopped(name: str, chopper: Chopper, item: Any) -> Chunk:
    """Returns `chopper.chop(item)` for the input `name` after the checks below, with `chopper.offset` added to the
    times.

    Raises ContractError if the chunk breaks the contract (`contract_violation`), or if `chop` raises TypeError,
    AttributeError or LookupError, which mean that `chop` does not support this type of item. Raises DataError, whose
    message names the input, if `chop` raises ValueError or RuntimeError, as for a bad item.
    """
    owner = f"inputs.{name}: {type(chopper).__name__}"
    try:
        chunk = chopper.chop(item)
    except (TypeError, AttributeError, LookupError) as error:
        needs_decode = type(chopper).decode is Chopper.decode and isinstance(item, str | bytes | os.PathLike)
        hint = "; define `decode`, which reads the file" if needs_decode else ""
        raise ContractError(f"{owner}.chop cannot process {described(item)}: {error}{hint}") from error
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{name}: {error}") from error
    if violation := contract_violation(chunk, chopper, item):
        raise ContractError(f"{owner}.{violation}")
    return with_offset(chunk, chopper)


def contract_violation(chunk: Any, chopper: Chopper, item: Any) -> str | None:
    """Returns the first way in which a chunk breaks the contract of `Chopper.chop`, as the end of a message, or None if
    the chunk keeps the contract. Checks the types of the chunk, `values` and `count`, the result of `Chopper.count`,
    and the shapes of `next_ids` and `coordinates`."""
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
    """Raises ContractError if a chopper class defines `fit`, but lacks `save` or `load`."""
    kind = type(preprocessor)
    if isinstance(preprocessor, Chopper) and kind.fit is not Chopper.fit:
        missing = [method for method in ("save", "load") if getattr(kind, method) is getattr(Chopper, method)]
        if missing:
            expected = "define all three of fit, save and load, so that a run works without its data"
            raise ContractError(f"inputs.{name}: {kind.__name__} has `fit` but no `{missing[0]}`; {expected}")


def constructor_problem(embedder: Callable) -> str | None:
    """Returns an error message if an embedder cannot be called with exactly three positional arguments (chopper, width,
    context); otherwise None."""
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
