"""The key-value cache of generation: keys and values that were computed already, with their tokens' descriptors."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .tokens import Tokens


class LayerCache:
    """One layer's keys and values: two buffers (rows, heads, capacity, channels), allocated once; `length` tokens of
    each row are filled. `heads` are those of the keys (fewer than query heads with grouped queries)."""

    def __init__(self, rows: int, heads: int, capacity: int, channels: int, *, dtype: torch.dtype, device):
        shape = (rows, heads, capacity, channels)
        self.key = torch.empty(shape, dtype=dtype, device=device)
        self.value = torch.empty(shape, dtype=dtype, device=device)
        self.length = 0

    def append(self, key: Float[Tensor, "b h n c"], value: Float[Tensor, "b h n c"]) -> tuple[Tensor, Tensor]:
        """Store the keys and values of n new tokens; gives those of all tokens, the old ones first: (b, h, m, c)."""
        start, self.length = self.length, self.length + key.shape[2]
        self.key[:, :, start : self.length] = key
        self.value[:, :, start : self.length] = value
        return self.key[:, :, : self.length], self.value[:, :, : self.length]

    def select(self, rows: Int[Tensor, "r"]) -> None:
        """Keep these rows, in this order; a row may be repeated or left out."""
        for name in ("key", "value"):
            old = getattr(self, name)
            new = old.new_empty(len(rows), *old.shape[1:])
            new[:, :, : self.length] = old[:, :, : self.length].index_select(0, rows)
            setattr(self, name, new)

    def fork(self, rows: Int[Tensor, "r"], room: int) -> LayerCache:
        """A cache of its own with these rows, for `room` more tokens."""
        made = copy(self)
        made.key, made.value = (buffer[:, :, : self.length + room] for buffer in (self.key, self.value))
        made.select(rows)
        return made

    def copy(self, sources: Int[Tensor, "r"], rows: Int[Tensor, "r"]) -> None:
        """Overwrite `rows` with copies of the rows `sources`, as these were before."""
        for buffer in (self.key, self.value):
            filled = buffer[:, :, : self.length]
            filled.index_copy_(0, rows, filled.index_select(0, sources))

    def keep(self, columns: Int[Tensor, "m"]) -> None:
        """Keep the tokens of these columns, in order, and forget all others."""
        for buffer in (self.key, self.value):
            buffer[:, :, : len(columns)] = buffer[:, :, : self.length].index_select(2, columns)
        self.length = len(columns)


@dataclass
class Cache:
    """All layers' keys and values, and the descriptors of their tokens (on the CPU, for `plan`). `capacity` is the most
    tokens per row."""

    layers: list[LayerCache]
    capacity: int
    tokens: Tokens | None = None

    @property
    def length(self) -> int:
        """How many tokens per row are stored."""
        return 0 if self.tokens is None else self.tokens.shape[1]

    def select(self, rows: Int[Tensor, "r"]) -> None:
        """Keep these rows of every layer, as `LayerCache.select` does."""
        for layer in self.layers:
            layer.select(rows)
        self.tokens = None if self.tokens is None else self.tokens.select(rows.cpu())

    def fork(self, rows: Int[Tensor, "r"], room: int) -> Cache:
        """A cache of its own with these rows, for `room` more tokens. Raises ValueError where these exceed the
        `capacity`."""
        if self.length + room > self.capacity:
            raise ValueError(f"the cache holds {self.length} of {self.capacity} tokens; {room} more do not fit")
        tokens = None if self.tokens is None else self.tokens.select(rows.cpu())
        return Cache([layer.fork(rows, room) for layer in self.layers], self.length + room, tokens)

    def copy(self, sources: Int[Tensor, "r"], rows: Int[Tensor, "r"]) -> None:
        """Overwrite `rows` with copies of the rows `sources`, which must be of the same samples, in every layer."""
        for layer in self.layers:
            layer.copy(sources, rows)
        if self.tokens is not None and self.tokens.position.shape[-1] > 1:
            position = self.tokens.position.clone()
            position[rows.cpu()] = self.tokens.position[sources.cpu()]
            self.tokens = replace(self.tokens, position=position)

    def keep(self, columns: Int[Tensor, "m"]) -> None:
        """Keep the tokens of these columns of every row, and forget all others."""
        for layer in self.layers:
            layer.keep(columns.to(layer.key.device))
        self.tokens = self.tokens.select(slice(None), columns)

    def extend(self, tokens: Tokens) -> Tokens:
        """Add the descriptors of tokens about to be appended; gives the descriptors of all keys.

        Raises ValueError where they exceed `capacity`.
        """
        more = tokens.shape[1]
        if self.length + more > self.capacity:
            raise ValueError(f"the cache holds {self.length} of {self.capacity} tokens; {more} more do not fit")
        if self.tokens is not None:
            pairs = {f.name: [getattr(each, f.name) for each in (self.tokens, tokens)] for f in fields(Tokens)}
            tokens = Tokens(**{name: torch.cat(pair, dim=1) for name, pair in pairs.items()})
        self.tokens = tokens
        return tokens
