"""The key-value cache of generation: the keys and values of earlier tokens, with the descriptors of these tokens."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .tokens import Tokens


class LayerCache:
    """The keys and values of one layer: two buffers (rows, heads, capacity, channels), allocated once. The first
    `length` tokens of each row are filled. `heads` is the number of key heads (smaller than the number of query heads
    with grouped queries)."""

    def __init__(self, rows: int, heads: int, capacity: int, channels: int, *, dtype: torch.dtype, device):
        shape = (rows, heads, capacity, channels)
        self.key = torch.empty(shape, dtype=dtype, device=device)
        self.value = torch.empty(shape, dtype=dtype, device=device)
        self.length = 0

    def append(self, key: Float[Tensor, "b h n c"], value: Float[Tensor, "b h n c"]) -> tuple[Tensor, Tensor]:
        """Stores the keys and values of n new tokens; returns those of all m tokens, the old ones first:
        (b, h, m, c)."""
        start, self.length = self.length, self.length + key.shape[2]
        self.key[:, :, start : self.length] = key
        self.value[:, :, start : self.length] = value
        return self.key[:, :, : self.length], self.value[:, :, : self.length]

    def select(self, rows: Int[Tensor, "r"]) -> None:
        """Keeps these rows, in this order. A row may occur several times or not at all."""
        for name in ("key", "value"):
            old = getattr(self, name)
            new = old.new_empty(len(rows), *old.shape[1:])
            new[:, :, : self.length] = old[:, :, : self.length].index_select(0, rows)
            setattr(self, name, new)

    def fork(self, rows: Int[Tensor, "r"], room: int) -> LayerCache:
        """Returns a separate cache with copies of these rows and space for `room` more tokens."""
        branch = copy(self)
        branch.key, branch.value = (buffer[:, :, : self.length + room] for buffer in (self.key, self.value))
        branch.select(rows)
        return branch

    def copy(self, sources: Int[Tensor, "r"], rows: Int[Tensor, "r"]) -> None:
        """Overwrites `rows` with copies of the rows `sources`; all sources are read before any row is written."""
        for buffer in (self.key, self.value):
            filled = buffer[:, :, : self.length]
            filled.index_copy_(0, rows, filled.index_select(0, sources))

    def keep(self, columns: Int[Tensor, "m"]) -> None:
        """Keeps the tokens of these columns, in this order, and removes all others."""
        for buffer in (self.key, self.value):
            buffer[:, :, : len(columns)] = buffer[:, :, : self.length].index_select(2, columns)
        self.length = len(columns)


@dataclass
class Cache:
    """The keys and values of all layers, and the descriptors of their tokens (on the CPU, for `plan`). `capacity` is
    the maximum number of tokens per row."""

    layers: list[LayerCache]
    capacity: int
    tokens: Tokens | None = None

    @property
    def length(self) -> int:
        """The number of stored tokens per row."""
        return 0 if self.tokens is None else self.tokens.shape[1]

    def select(self, rows: Int[Tensor, "r"]) -> None:
        """Keeps these rows in every layer; see `LayerCache.select`."""
        for layer in self.layers:
            layer.select(rows)
        self.tokens = None if self.tokens is None else self.tokens.select(rows.cpu())

    def fork(self, rows: Int[Tensor, "r"], room: int) -> Cache:
        """Returns a separate cache with copies of these rows and space for `room` more tokens. Raises ValueError if
        these exceed the `capacity`."""
        if self.length + room > self.capacity:
            raise ValueError(f"the cache holds {self.length} of {self.capacity} tokens; {room} more do not fit")
        tokens = None if self.tokens is None else self.tokens.select(rows.cpu())
        return Cache([layer.fork(rows, room) for layer in self.layers], self.length + room, tokens)

    def copy(self, sources: Int[Tensor, "r"], rows: Int[Tensor, "r"]) -> None:
        """Overwrites `rows` with copies of the rows `sources` in every layer; a row and its source must belong to the
        same sample."""
        for layer in self.layers:
            layer.copy(sources, rows)
        if self.tokens is not None and self.tokens.position.shape[-1] > 1:
            position = self.tokens.position.clone()
            position[rows.cpu()] = self.tokens.position[sources.cpu()]
            self.tokens = replace(self.tokens, position=position)

    def keep(self, columns: Int[Tensor, "m"]) -> None:
        """Keeps the tokens of these columns of every row and removes all others."""
        for layer in self.layers:
            layer.keep(columns.to(layer.key.device))
        self.tokens = self.tokens.select(slice(None), columns)

    def extend(self, tokens: Tokens) -> Tokens:
        """Adds the descriptors of tokens that are appended next; returns the descriptors of all keys. Raises ValueError
        if there are more tokens than `capacity`."""
        more = tokens.shape[1]
        if self.length + more > self.capacity:
            raise ValueError(f"the cache holds {self.length} of {self.capacity} tokens; {more} more do not fit")
        if self.tokens is not None:
            pairs = {f.name: (getattr(self.tokens, f.name), getattr(tokens, f.name)) for f in fields(Tokens)}
            tokens = Tokens(**{name: torch.cat(pair, dim=1) for name, pair in pairs.items()})
        self.tokens = tokens
        return tokens
