"""The data structures between the loader and the model: chunks, their planned slots in a set, and the targets.

They are planned on the CPU before any embedding, so that packing, padding, loss counts and leaks can be checked without
running the model.
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
"""The label that the loss ignores: the slot has no target, or it is padding."""


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
    """The input of the embedder: ids of text, (b, n) if it fills all rows, else (t); images (s, c, h, w); slices of p
    numbers (t, p)."""
    index: Int[Tensor, "..."]
    """The number of each token within its item, 0, 1, 2, ...: the index of absolute position embeddings."""
    slots: Int[Tensor, "t"] | None = None
    """The slot of each token in the set, as row * n + column. None: the tokens fill the set, row by row."""
    next_ids: Int[Tensor, "..."] | None = None
    """For ids: the next id in the item or the stream; `IGNORED` if there is none."""
    hidden: Int[Tensor, "..."] | None = None
    """For ids: the original id of each token that a task has masked; `IGNORED` for all other tokens."""
    coordinates: Float[Tensor, "t a"] | None = None
    """The coordinates of each token on the axes of the tokenizer (row, column, seconds)."""
    counts: Int[Tensor, "s"] | None = None
    """The number of tokens of each item; None if the items are unknown (a stream). A tensor, because new Python
    integers would trigger a recompilation."""
    seeds: Int[Tensor, "s"] | None = None
    """In training, the seed of each item's random augmentation, which depends on the run's seed, the epoch, the sample
    and the input."""
    inner: SetPlan | None = None
    """The items as a separate set, one item per row, for a model inside the embedder; planned by the embedder's
    `plan(chunks, dtype=, device=)`."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The labels of one task in one micro-batch, and the supervised slots, whose outputs predict these labels.

    Example: language modelling of the texts "ab" (ids 97, 98) and "c" (99), packed into one row of 8 slots. The start
    token (256) comes first in each text and is also the label after the last letter:

        slot        0    1    2    3    4    5    6    7
        token     256   97   98  256   99    .    .    .      the input; . is padding
        slots       0    1    2    3    4                     the supervised slots
        values     97   98  256   99  256                     their labels
        carriers    1    2   -1    4   -1                     the slot that holds the label as input
        count       5
    """

    values: Tensor
    """The targets: one per supervised slot, or one per group of slots; `IGNORED` for missing targets and padding."""
    slots: Int[Tensor, "t"] | None = None
    """The slots whose output is supervised, as row * n + column. None: every slot, row by row."""
    carriers: Int[Tensor, "t"] | None = None
    """For each supervised slot, the slot of the token that carries its target and that it must not read; -1: none."""
    weights: Float[Tensor, "t"] | None = None
    """The factor of each supervised slot's loss; None: all are 1."""
    groups: Int[Tensor, "t"] | None = None
    """The number of the target (from 0) of each slot, if several slots predict one target together."""
    lengths: Int[Tensor, "s"] | None = None
    """The number of values of each target, if a target is a sequence (CTC); -1: not supervised."""
    of_encoder: bool = False
    """Whether the slots belong to the encoder's set."""
    classes: int = 0
    """The number of classes, if every value is a class index; 0: the values are no class indices."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """The samples that the task cannot supervise: the key of the sample and the reason."""
    count: int = 0
    """The number of targets that count. The summed loss of a step is divided by the sum of these numbers over all
    micro-batches and ranks."""


@dataclass(frozen=True, kw_only=True)
class SetPlan:
    """One set of tokens before embedding: their descriptors, the chunks of each input, and a layout per layer.

    Example: an image of 1 x 2 patches with the caption "ab", and the text "c", packed into one row of 10 slots. A class
    token comes first in each sample; the inputs are image (1) and text (2):

        tokens.input     0  1  1  2  2  2  0  2  2  0
        tokens.sample    1  1  1  1  1  1  2  2  2  0
        tokens.item      1  2  2  3  3  3  4  5  5  0
        chunks["image"]  values (1, 1, 4, 8)        slots 1 2          counts 2
        chunks["text"]   values 256 97 98 256 99    slots 3 4 5 7 8    counts 3 2
        own              [[0], [6]]
        samples          2
    """

    tokens: Tokens
    chunks: Mapping[str, Chunks]
    layouts: tuple[Layout, ...] = ()
    """The layout of each layer's attention for these tokens (`Model.plan`)."""
    groups: tuple[Tensor, ...] | None = None
    """The slots of each group of inputs with separate layers (`Transformer.group`)."""
    cross: Layout | None = None
    """The layout of cross-attention from these tokens to the encoder's set; None without an encoder."""
    own: Int[Tensor, "s o"] | None = None
    """The slots of the core tokens (class and register tokens) of each sample."""
    samples: int = 0
    """The number of samples, which are numbered from 1 in `tokens.sample`; 0: a stream, whose samples are not
    counted."""
    labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """The data columns that tasks read, by name: one raw value per sample; None for a missing value."""
    keys: tuple[str, ...] = ()
    """The name of each sample in messages."""
    seeds: tuple[tuple[int, ...], ...] = ()
    """The seeds of random draws for each sample (for a stream: for each row), such as the choice of masked tokens."""

    def to(self, device: torch.device | str) -> SetPlan:
        """Returns the set with all tensors, descriptors and layouts on another device."""
        return _moved(self, torch.device(device))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch: a planned set for each core, and the targets of each task."""

    main: SetPlan
    """The set of the main core: the decoder, or the only core."""
    encoder: SetPlan | None = None
    """The set of the encoder; None without an encoder."""
    targets: Mapping[str, Targets] = field(default_factory=dict)
    units: Mapping[str, float] = field(default_factory=dict)
    """In evaluation: the size of the items of each input, in the unit of its vocabulary. For text: the number of UTF-8
    bytes (for windows of a text: their share of them)."""
    real: bool = True
    """False: the loss of this micro-batch is multiplied by 0. A process without further samples uses it because all
    processes must run the same number of micro-batches."""

    @property
    def sets(self) -> dict[str, SetPlan]:
        """The set of each core by its name, in the order in which the cores run."""
        return ({"encoder": self.encoder} if self.encoder else {}) | {"main": self.main}

    @property
    def first(self) -> SetPlan:
        """The set of the core that runs first: the encoder's, or the only one."""
        return self.encoder or self.main

    def set_of(self, targets: Targets) -> SetPlan:
        """The set that the slots of `targets` refer to."""
        return self.encoder if targets.of_encoder else self.main

    def with_set_of(self, targets: Targets, planned: SetPlan) -> Batch:
        """Returns the batch with `planned` instead of `set_of(targets)`."""
        return replace(self, encoder=planned) if targets.of_encoder else replace(self, main=planned)

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch with all tensors, descriptors and layouts on another device."""
        return _moved(self, torch.device(device))


def _moved(value: Any, device: torch.device) -> Any:
    """Moves tensors to a device, recursively through dataclasses, mappings and tuples; copies do not block the CPU."""
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
