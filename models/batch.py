"""The data structures between the loader and the model: chunks, their planned slots in a set, and the targets.

A *slot* is one position of a token in the rows of a batch: slot row * n + column, where n is the number of columns. All
slots are planned on the CPU before the chunks are embedded. Therefore packing, padding, the number of targets and leaks
can be checked without running the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .attention.kernels import Layout
from .tokens import Tokens

IGNORED = -100
"""The label of slots that the loss ignores: slots without a target, and padding."""


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """The chopped items of one named input in one micro-batch, in the order of the items.

    Example: two images of 8 x 8 pixels in 2 x 2 patches. The rows of the set have 8 slots; the first and the second row
    hold a class token followed by one image (a slot is row * 8 + column):

        values       (2, 1, 8, 8)
        index        0  1  2  3   0  1   2   3
        slots        1  2  3  4   9 10  11  12
        coordinates  (0, 0) (0, 1) (1, 0) (1, 1)   (0, 0) (0, 1) (1, 0) (1, 1)
        counts       4  4
    """

    values: Tensor
    """The data that the embedder reads. Text: ids, (b, n) if the text fills all slots, else (t) for t tokens. Images:
    (s, c, h, w) for s images. Sensors and sounds: slices of p numbers, (t, p)."""
    index: Int[Tensor, "..."]
    """The number of each token within its item, 0, 1, 2, ... It selects the absolute position embedding."""
    slots: Int[Tensor, "t"] | None = None
    """The slot of each token in the set, as row * n + column. None: the tokens fill the set, row by row."""
    next_ids: Int[Tensor, "..."] | None = None
    """For ids: the next id in the item or the stream; `IGNORED` if there is none."""
    hidden: Int[Tensor, "..."] | None = None
    """For ids: the original id of each token that a task has masked; `IGNORED` for all other tokens."""
    coordinates: Float[Tensor, "t a"] | None = None
    """The coordinates of each token on the a axes of the tokenizer (for example row and column, or seconds). None: the
    tokens have no coordinates."""
    counts: Int[Tensor, "s"] | None = None
    """The number of tokens of each item. None: the boundaries of the items are unknown (a stream). This is a tensor,
    because new Python integers would trigger a recompilation."""
    scalars: Float[Tensor, "s"] | None = None
    """One number for each item that a task has set, such as the time of a flow (`Needs.scalars`). None: all are 1."""
    seeds: Int[Tensor, "s"] | None = None
    """In training, the seed for the random augmentation of each item. The seed depends on the run's seed, the epoch,
    the sample and the input."""
    inner: SetPlan | None = None
    """The items as a separate set with one item per row, for an embedder that contains a model. The embedder's
    `plan(chunks, dtype=, device=)` plans this set. None: the embedder contains no model."""

    @property
    def owners(self) -> Int[Tensor, "t"]:
        """The number of the item to which each token belongs, from 0."""
        return (self.index == 0).cumsum(0) - 1


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The labels of one task in one micro-batch, and the supervised slots. The head predicts these labels from the
    core's outputs at the supervised slots.

    Example: language modelling of the texts "ab" (ids 97, 98) and "c" (99), packed into one row of 8 slots. Each text
    begins with the start token (256), and the start token is also the label after the last letter:

        slot        0    1    2    3    4    5    6    7
        token     256   97   98  256   99    .    .    .      the input; . is padding
        slots       0    1    2    3    4                     the supervised slots
        values     97   98  256   99  256                     their labels
        carriers    1    2   -1    4   -1                     the slot that holds the label as input
        count       5
    """

    values: Tensor
    """The targets (labels): one per supervised slot, or one per group of slots if `groups` is set. A missing target and
    a target at padding are `IGNORED`."""
    slots: Int[Tensor, "t"] | None = None
    """The slots whose output is supervised, as row * n + column. None: every slot, row by row."""
    carriers: Int[Tensor, "t"] | None = None
    """For each supervised slot, the slot of the *carrier*: the input token that contains the target, and that the
    supervised slot therefore must not read. -1: no token contains the target."""
    weights: Float[Tensor, "t"] | None = None
    """The factor of the loss at each supervised slot. None: all factors are 1."""
    extra: Tensor | None = None
    """Further numbers of each target that the loss reads, such as the number of its class or the score of a reference
    model, (t, ...). None: there are none."""
    groups: Int[Tensor, "t"] | None = None
    """For each supervised slot, the index in `values` (from 0) of the target that this slot predicts together with
    other slots (pooling). None: each slot predicts its own target."""
    lengths: Int[Tensor, "s"] | None = None
    """The number of values of each target, if a target is a sequence (CTC); -1: this sequence is not supervised. None:
    a target is one value."""
    of_encoder: bool = False
    """Whether the slots refer to the encoder's set (True) or to the main set (False)."""
    classes: int = 0
    """The number of classes, if every value is a class index, else 0."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """The samples that the task cannot supervise. Maps the name of a sample (`SetPlan.keys`) to the reason."""
    count: int = 0
    """The number of targets that are neither missing nor at padding. The summed loss of a step is divided by the sum of
    this number over all micro-batches and ranks."""


@dataclass(frozen=True, kw_only=True)
class SetPlan:
    """One set of tokens before embedding: the descriptors of the tokens, the chunks of each input, and a layout per
    layer.

    Example: a sample with an image of 1 x 2 patches and the caption "ab", and a sample with the text "c", packed into
    one row of 10 slots. Each sample begins with a class token; the inputs are image (1) and text (2). Slots are counted
    from 0; the last slot is padding. In `tokens.input`, 0 means that the token belongs to no input. The chunk of the
    image contains a tensor of shape (1, 1, 4, 8): images, channels, height, width. The chunk of the text contains the
    ids of both texts; 256 is the start token. `core_slots` contains the slots of the class tokens, one row per sample:

        tokens.input     0  1  1  2  2  2  0  2  2  0
        tokens.sample    1  1  1  1  1  1  2  2  2  0
        tokens.item      1  2  2  3  3  3  4  5  5  0
        chunks["image"]  shape (1, 1, 4, 8)         slots 1 2          counts 2
        chunks["text"]   ids 256 97 98 256 99       slots 3 4 5 7 8    counts 3 2
        core_slots       [[0], [6]]
        samples          2
    """

    tokens: Tokens
    chunks: Mapping[str, Chunks]
    layouts: tuple[Layout, ...] = ()
    """The layout of each layer's attention for these tokens (`Model.plan`)."""
    groups: tuple[Tensor, ...] | None = None
    """The slots of each group of inputs with separate weights (`Transformer.group`). None: there are no groups."""
    cross: Layout | None = None
    """The layout of cross-attention from these tokens to the encoder's set; None without an encoder."""
    core_slots: Int[Tensor, "s o"] | None = None
    """The slots of the o core tokens (class and register tokens) of each sample. None: no core tokens."""
    samples: int = 0
    """The number of samples. `tokens.sample` numbers the samples from 1. 0: the set is a stream, and its samples are
    not counted."""
    labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """The data columns that tasks read. Maps the name of a column to one raw value per sample; a missing value is
    None."""
    keys: tuple[str, ...] = ()
    """The name of each sample, as it appears in messages."""
    seeds: tuple[tuple[int, ...], ...] = ()
    """For each sample (in a stream: for each row), the numbers that seed its random draws, such as the choice of masked
    tokens."""

    def to(self, device: torch.device | str) -> SetPlan:
        """Returns the set with all tensors, descriptors and layouts on another device."""
        return _moved(self, torch.device(device))


@dataclass(frozen=True, kw_only=True)
class SampleTargets:
    """The targets of one sample (for a stream: of one row) as if it were alone in a batch, with its own slots."""

    number: int
    """The number of the sample in the split; for a stream, the index of the first id of the row."""
    targets: Mapping[str, Targets]
    units: Mapping[str, float]
    """See `Batch.units`."""


CORES = ("encoder", "main")
"""The names of the cores, in the order in which they run."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch: a `SetPlan` for each transformer (the main one, and the encoder if there is one), and the
    targets of each task."""

    main: SetPlan
    """The set of the main core: the decoder, or the only core."""
    encoder: SetPlan | None = None
    """The set of the encoder; None without an encoder."""
    targets: Mapping[str, Targets] = field(default_factory=dict)
    units: Mapping[str, float] = field(default_factory=dict)
    """In evaluation: maps an input to the total size of its items in this micro-batch, in the unit of the vocabulary.
    For text the unit is UTF-8 bytes; a window of a text counts its share of the bytes of the text."""
    apart: tuple[SampleTargets, ...] = ()
    """In an evaluation by sample: the targets of each sample of the batch, in their order."""
    real: bool = True
    """False: the loss of this micro-batch is multiplied by 0. All processes must run the same number of micro-batches,
    so a process without further samples runs a micro-batch that is not real."""

    @property
    def sets(self) -> dict[str, SetPlan]:
        """Maps the name of each core (`encoder`, `main`) to its set, in the order in which the cores run."""
        return ({"encoder": self.encoder} if self.encoder else {}) | {"main": self.main}

    @property
    def first(self) -> SetPlan:
        """The set of the core that runs first: the encoder's set, or the main set without an encoder."""
        return self.encoder or self.main

    def set_of(self, targets: Targets) -> SetPlan:
        """Returns the set that the slots of `targets` refer to: `encoder` if `targets.of_encoder`, else `main`."""
        return self.encoder if targets.of_encoder else self.main

    def with_set_of(self, targets: Targets, planned: SetPlan) -> Batch:
        """Returns a copy of the batch in which `planned` replaces the set of `targets`: the set of the encoder if
        `targets.of_encoder`, else the main set."""
        return replace(self, encoder=planned) if targets.of_encoder else replace(self, main=planned)

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch with all tensors, descriptors and layouts on another device."""
        return _moved(self, torch.device(device))


def _moved(value: Any, device: torch.device) -> Any:
    """Returns `value` with all tensors on the device, also those inside dataclasses, mappings and tuples. The copies do
    not block the CPU."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Layout):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and value and not isinstance(value[0], int | str):
        return tuple(_moved(item, device) for item in value)
    if is_dataclass(value):
        return replace(value, **{f.name: _moved(getattr(value, f.name), device) for f in fields(value)})
    return value
