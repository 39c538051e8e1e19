"""What travels from the data to the model: chunks, their planned slots in the set, and the targets.

Everything here is planned on the CPU before anything is embedded, so that packing, padding, loss counts and leaks are
known (and checked) without running the model.
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
"""A label that the loss ignores: the slot has no target, or only pads a fixed number of targets."""


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """The chopped items of one named input in one micro-batch, in the order of their items.

    Two pictures of 8 x 8 pixels in 2 x 2 patches, in the first and the second row of a set whose rows have 8 slots,
    each behind a class token (a slot is row * 8 + column):

        values       (2, 1, 8, 8)
        index        0  1  2  3   0  1   2   3
        slots        1  2  3  4   9 10  11  12
        coordinates  (0, 0) (0, 1) (1, 0) (1, 1)   (0, 0) (0, 1) (1, 0) (1, 1)
        counts       4  4
    """

    values: Tensor
    """The input of the embedder: ids (b, n) of text that fills whole rows, else (t); images (s, c, h, w); slices of p
    numbers (t, p)."""
    index: Int[Tensor, "..."]
    """The number of each token within its item, 0, 1, 2, ...: the index of absolute position embeddings."""
    slots: Int[Tensor, "t"] | None = None
    """The slot of each token in the set, as row * n + column; None: the tokens fill the set, row by row."""
    next_ids: Int[Tensor, "..."] | None = None
    """For ids: the id that comes next in the item or the stream, `IGNORED` where there is none."""
    hidden: Int[Tensor, "..."] | None = None
    """For ids: the original id of each token that a task has masked, `IGNORED` for all others."""
    coordinates: Float[Tensor, "t a"] | None = None
    """The coordinates of each token on the tokenizer's own axes (row, column, seconds)."""
    counts: Int[Tensor, "s"] | None = None
    """How many tokens each item has, where items are known; a tensor, so that compiled code meets no new constants."""
    seeds: Int[Tensor, "s"] | None = None
    """While training, the seed of each item's random augmentation: it follows from the run's seed, epoch, sample and
    input."""
    inner: SetPlan | None = None
    """The items as a set by themselves, one a row, where a model inside the embedder reads them: the embedder's
    `plan(chunks, dtype=, device=)` plans it."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The labels of one task in one micro-batch, and the slots of the set whose outputs must predict them.

    Language modelling of the texts "ab" (ids 97, 98) and "c" (99), each behind the start token (256), which is also
    the label after the last letter, packed into one row of 8 slots:

        slot        0    1    2    3    4    5    6    7
        token     256   97   98  256   99    .    .    .      the input; . is padding
        slots       0    1    2    3    4                     whose outputs pass through the head
        values     97   98  256   99  256                     their labels
        carriers    1    2   -1    4   -1                     the slot that holds the label, which they must not read
        count       5
    """

    values: Tensor
    """The targets: one per supervised slot, or per group of them; `IGNORED` where one is missing or only padding."""
    slots: Int[Tensor, "t"] | None = None
    """The slots whose output is supervised, as row * n + column; None: every slot, row by row."""
    carriers: Int[Tensor, "t"] | None = None
    """For each supervised slot, the slot of the token that carries its target, which it must not read; -1: none."""
    weights: Float[Tensor, "t"] | None = None
    """What each supervised slot's loss is multiplied by, where the task weighs them."""
    groups: Int[Tensor, "t"] | None = None
    """The target (from 0) that each slot belongs to, where several slots predict one target together."""
    lengths: Int[Tensor, "s"] | None = None
    """How many of the values belong to each target, where a target is a sequence (CTC); -1: not supervised."""
    of_encoder: bool = False
    """Whether the slots belong to the encoder's set."""
    classes: int = 0
    """How many classes there are, where every value is the number of one; 0: the values are no classes."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """The samples that the task could not supervise, by key, and why."""
    count: int = 0
    """How many targets count: the summed loss of a step is divided by their sum over all micro-batches and ranks."""


@dataclass(frozen=True, kw_only=True)
class SetPlan:
    """One set of tokens before embedding: descriptors, the chunks of each input, and a layout per layer.

    A picture of 1 x 2 patches with the caption "ab", and the text "c" alone, each behind a class token, packed
    into one row of 10 slots; the YAML names image (1), then text (2):

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
    """How each layer's graph is computed for these tokens (`Model.plan`)."""
    groups: tuple[Tensor, ...] | None = None
    """The slots of each group of inputs that has layers of its own (`Transformer.group`)."""
    cross: Layout | None = None
    """How cross-attention from these tokens to the encoder's set is computed, where there is an encoder."""
    own: Int[Tensor, "s o"] | None = None
    """The slots of the core tokens (class and register tokens), by sample."""
    samples: int = 0
    """How many samples there are, numbered from 1 in `tokens.sample`; 0: a stream, whose samples are not counted."""
    labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """The data columns that tasks read, by name: one raw value per sample, None where it has none."""
    keys: tuple[str, ...] = ()
    """The name of each sample in messages."""
    seeds: tuple[tuple[int, ...], ...] = ()
    """What random draws for each sample (of a stream: for each row) are keyed by, such as which tokens are masked."""

    def to(self, device: torch.device | str) -> SetPlan:
        """All tensors on another device; the descriptors and layouts move as well."""
        return _moved(self, torch.device(device))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch: a planned set for every core that reads one, and every task's targets."""

    main: SetPlan
    """The set of the main core: the decoder, or the only core."""
    encoder: SetPlan | None = None
    """The set of the encoder, where there is one."""
    targets: Mapping[str, Targets] = field(default_factory=dict)
    units: Mapping[str, float] = field(default_factory=dict)
    """While evaluating: the size of the items that each input's tokens stand for, in its vocabulary's unit: of texts
    their UTF-8 bytes (of windows, their share)."""
    real: bool = True
    """False: the loss of this micro-batch is multiplied by 0. It is there because this process has no sample left while
    others have, and all must run equally many micro-batches."""

    @property
    def sets(self) -> dict[str, SetPlan]:
        """The sets by the name of their core, in the order in which the cores run."""
        return ({"encoder": self.encoder} if self.encoder else {}) | {"main": self.main}

    @property
    def first(self) -> SetPlan:
        """The set of the core that runs first: the encoder's, or the only one."""
        return self.encoder or self.main

    def set_of(self, targets: Targets) -> SetPlan:
        """The set whose slots `targets` names."""
        return self.encoder if targets.of_encoder else self.main

    def with_set_of(self, targets: Targets, planned: SetPlan) -> Batch:
        """The batch with `planned` in the place of `set_of(targets)`."""
        return replace(self, encoder=planned) if targets.of_encoder else replace(self, main=planned)

    def to(self, device: torch.device | str) -> Batch:
        """All tensors on another device; the descriptors and layouts move as well."""
        return _moved(self, torch.device(device))


def _moved(value: Any, device: torch.device) -> Any:
    """Dataclasses, mappings, tuples and tensors, moved recursively; copies do not block the CPU."""
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
