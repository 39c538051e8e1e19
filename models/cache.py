"""What generation stores about earlier tokens: the state of each layer (keys and values, or the vectors of a recurrent
layer), and the descriptors of the tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .tokens import Tokens


class LayerState(ABC):
    """Base class of what one layer stores about the earlier tokens of each row."""

    @abstractmethod
    def select(self, rows: Int[Tensor, "r"]) -> None:
        """Replaces the rows by the rows with the numbers `rows`, in this order. A number may occur several times."""

    @abstractmethod
    def fork(self, rows: Int[Tensor, "r"], room: int) -> LayerState:
        """Returns a new state with copies of the rows with the numbers `rows` and space for `room` more tokens."""

    @abstractmethod
    def copy(self, sources: Int[Tensor, "r"], rows: Int[Tensor, "r"]) -> None:
        """Overwrites row `rows[i]` with row `sources[i]` for all i. All sources are read before a row is written."""

    @abstractmethod
    def keep(self, columns: Int[Tensor, "m"]) -> None:
        """Keeps the tokens in the columns with these numbers, in this order, and removes all other tokens. No later
        token can read the removed ones."""


class RowState(LayerState):
    """Tensors whose first axis is the row, and whose size does not depend on the number of tokens, such as the vectors
    of a recurrent layer after the last token. The tensors are attributes:

        state = RowState(hidden=torch.zeros(4, 64), memory=torch.zeros(4, 64))
        state.hidden
    """

    def __init__(self, **tensors: Tensor):
        vars(self).update(tensors)

    def set(self, **tensors: Tensor) -> None:
        """Sets tensors of the state. Raises ValueError for a name that the state does not have, or another shape."""
        for name, new in tensors.items():
            old = vars(self).get(name)
            if old is None or old.shape != new.shape:
                shape = "nothing of this name" if old is None else f"the shape {tuple(old.shape)}"
                raise ValueError(f"the state has {shape}; {name} has the shape {tuple(new.shape)}")
            setattr(self, name, new)

    def select(self, rows: Int[Tensor, "r"]) -> None:
        for name, tensor in vars(self).items():
            setattr(self, name, tensor.index_select(0, rows))

    def fork(self, rows: Int[Tensor, "r"], room: int) -> RowState:
        branch = copy(self)
        branch.select(rows)
        return branch

    def copy(self, sources: Int[Tensor, "r"], rows: Int[Tensor, "r"]) -> None:
        for name, tensor in vars(self).items():
            setattr(self, name, tensor.index_copy(0, rows, tensor.index_select(0, sources)))

    def keep(self, columns: Int[Tensor, "m"]) -> None:
        """Changes nothing: the state does not contain single tokens."""


class LayerCache(LayerState):
    """The keys and values of one layer: two buffers (rows, heads, capacity, channels), allocated once. The first
    `length` of the `capacity` positions of each row are filled. `heads` is the number of key heads, which can be
    smaller than the number of query heads (grouped queries)."""

    def __init__(self, rows: int, heads: int, capacity: int, channels: int, *, dtype: torch.dtype, device):
        shape = (rows, heads, capacity, channels)
        self.key = torch.empty(shape, dtype=dtype, device=device)
        self.value = torch.empty(shape, dtype=dtype, device=device)
        self.length = 0

    def append(self, key: Float[Tensor, "b h n c"], value: Float[Tensor, "b h n c"]) -> tuple[Tensor, Tensor]:
        """Stores the keys and values of n new tokens. Returns (keys, values) of all m tokens, (b, h, m, c) each, with
        the new tokens at the end."""
        start, self.length = self.length, self.length + key.shape[2]
        self.key[:, :, start : self.length] = key
        self.value[:, :, start : self.length] = value
        return self.key[:, :, : self.length], self.value[:, :, : self.length]

    def select(self, rows: Int[Tensor, "r"]) -> None:
        for name in ("key", "value"):
            old = getattr(self, name)
            new = old.new_empty(len(rows), *old.shape[1:])
            new[:, :, : self.length] = old[:, :, : self.length].index_select(0, rows)
            setattr(self, name, new)

    def fork(self, rows: Int[Tensor, "r"], room: int) -> LayerCache:
        branch = copy(self)
        branch.key, branch.value = (buffer[:, :, : self.length + room] for buffer in (self.key, self.value))
        branch.select(rows)
        return branch

    def copy(self, sources: Int[Tensor, "r"], rows: Int[Tensor, "r"]) -> None:
        for buffer in (self.key, self.value):
            filled = buffer[:, :, : self.length]
            filled.index_copy_(0, rows, filled.index_select(0, sources))

    def keep(self, columns: Int[Tensor, "m"]) -> None:
        columns = columns.to(self.key.device)
        for buffer in (self.key, self.value):
            buffer[:, :, : len(columns)] = buffer[:, :, : self.length].index_select(2, columns)
        self.length = len(columns)


@dataclass
class Cache:
    """The states of all layers, and the descriptors of the cached tokens (on the CPU, for `plan`; None: no
    token is cached). `capacity` is the maximum number of tokens per row."""

    layers: list[LayerState]
    capacity: int
    tokens: Tokens | None = None

    @property
    def length(self) -> int:
        """The number of stored tokens per row."""
        return 0 if self.tokens is None else self.tokens.shape[1]

    def select(self, rows: Int[Tensor, "r"]) -> None:
        """Replaces the rows of every layer by the rows with the numbers `rows`; see `LayerState.select`."""
        for layer in self.layers:
            layer.select(rows)
        self.tokens = None if self.tokens is None else self.tokens.select(rows.cpu())

    def fork(self, rows: Int[Tensor, "r"], room: int) -> Cache:
        """Returns a new cache with copies of the rows with the numbers `rows` and space for `room` more tokens. Raises
        ValueError if `length` + `room` exceeds `capacity`."""
        if self.length + room > self.capacity:
            raise ValueError(f"the cache holds {self.length} of {self.capacity} tokens; {room} more do not fit")
        tokens = None if self.tokens is None else self.tokens.select(rows.cpu())
        return Cache([layer.fork(rows, room) for layer in self.layers], self.length + room, tokens)

    def copy(self, sources: Int[Tensor, "r"], rows: Int[Tensor, "r"]) -> None:
        """Overwrites row `rows[i]` with row `sources[i]` in every layer. Both rows must belong to the same sample."""
        for layer in self.layers:
            layer.copy(sources, rows)
        if self.tokens is not None and self.tokens.position.shape[-1] > 1:
            position = self.tokens.position.clone()
            position[rows.cpu()] = self.tokens.position[sources.cpu()]
            self.tokens = replace(self.tokens, position=position)

    def keep(self, columns: Int[Tensor, "m"]) -> None:
        """Keeps the tokens in the columns with these numbers, in every row, and removes all other tokens."""
        for layer in self.layers:
            layer.keep(columns)
        self.tokens = self.tokens.select(slice(None), columns)

    def extend(self, tokens: Tokens) -> Tokens:
        """Adds the descriptors of new tokens, whose keys and values the layers append next. Returns the descriptors of
        all tokens, old and new. Raises ValueError if these are more than `capacity` tokens per row."""
        more = tokens.shape[1]
        if self.length + more > self.capacity:
            raise ValueError(f"the cache holds {self.length} of {self.capacity} tokens; {more} more do not fit")
        if self.tokens is not None:
            pairs = {f.name: (getattr(self.tokens, f.name), getattr(tokens, f.name)) for f in fields(Tokens)}
            tokens = Tokens(**{name: torch.cat(pair, dim=1) for name, pair in pairs.items()})
        self.tokens = tokens
        return tokens
