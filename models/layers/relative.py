"""Relative positions inside attention: rotation of queries and keys (always in float32), learned and fixed biases."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..attention.grammar import parse_graph
from ..attention.graph import Graph
from ..attention.mask import mask_within
from ..tokens import Tokens, alike, within_samples
from .positions import Wavelength


class RelativePosition(nn.Module):
    """Base class of relative positions. The base class itself adds no positions. The arguments of the constructor are
    the number of heads, the number of channels per head, and the names of the position axes of the tokens."""

    counts_tokens: ClassVar[bool] = False
    """Whether `rotation` or `bias` depends on the running order, unless an option `per_axis` names only other axes."""

    def __init__(self, heads: int, channels: int, axes: tuple[str, ...] = ("order",)):
        super().__init__()
        self.axes = axes

    def rotation(self, tokens: Tokens) -> tuple[Tensor, Tensor] | None:
        """Returns (cosine, sine) of the angles by which queries and keys are rotated, (b, 1, n, c/2) each; None: no
        rotation."""
        return None

    def bias(self, queries: Tokens, keys: Tokens) -> Float[Tensor, "b h n m"] | None:
        """Returns the bias that is added to the attention scores; its first size may be 1. None: no bias."""
        return None

    @property
    def has_bias(self) -> bool:
        """Whether `bias` is overridden. Not all attention kernels support a bias."""
        return type(self).bias is not RelativePosition.bias


class Rotary(RelativePosition):
    """Rotates queries and keys by angles that grow with the position (Su et al. 2021, arXiv:2104.09864).

    Channels i and i + c/2 of a head with c channels form a pair (the layout of GPT-NeoX and Llama). `per_axis` maps the
    name of a position axis to its share, a number of channels, for example `{order: 16, row: 8, column: 8}`. Pair k of
    an axis rotates by the angle position * `base`^(-2k / share); a larger `base` is for longer sequences. If the sum of
    all shares is below c, the remaining channels are not rotated. null: all channels belong to the running order.
    Raises ValueError if an axis is unknown, a share or c is odd, a share is negative, or the sum of the shares exceeds
    c."""

    counts_tokens = True

    def __init__(
        self, heads: int, channels: int, axes: tuple[str, ...] = ("order",), *,
        base: Wavelength = 10_000.0, per_axis: dict[str, int] | None = None,
    ):  # fmt: skip
        super().__init__(heads, channels, axes)
        per_axis = per_axis or {axes[0]: channels}
        for name, share in per_axis.items():
            if name not in axes:
                raise ValueError(f"rotary: no position axis named {name!r}; possible: {', '.join(axes)}")
            if share % 2 or share < 0:
                raise ValueError(f"rotary: axis {name!r} has {share} channels; it must be an even number, 0 or more")
        if sum(per_axis.values()) > channels or channels % 2:
            raise ValueError(f"rotary: {per_axis} needs more than the {channels} channels of a head, or this is odd")
        exponents = [torch.arange(0, share, 2, dtype=torch.float64) / share for share in per_axis.values()]
        frequency = torch.cat([(base**-exponent).float() for exponent in exponents])
        axis = torch.tensor([axes.index(name) for name, share in per_axis.items() for _ in range(share // 2)])
        rest = (0, channels // 2 - len(frequency))  # pairs of channels that are not rotated: frequency 0
        self.register_buffer("frequency", F.pad(frequency, rest), persistent=False)
        self.register_buffer("axis", F.pad(axis.long(), rest), persistent=False)

    def _apply(self, fn, recurse=True):
        """Moves the buffers to another device but keeps the frequencies in float32. In bfloat16, neighbouring positions
        would have equal angles."""
        frequency = self.frequency
        super()._apply(fn, recurse)
        self.frequency = frequency.to(self.frequency.device)
        return self

    def rotation(self, tokens: Tokens):
        # an elementwise product: autocast and TF32 would round positions in a matrix product
        angle = tokens.position.float().nan_to_num()[..., self.axis] * self.frequency
        return angle.cos()[:, None], angle.sin()[:, None]


def rotate(x: Float[Tensor, "b h n c"], rotation: tuple[Tensor, Tensor]) -> Float[Tensor, "b h n c"]:
    """Returns x with each pair of channels (i, i + c/2) rotated by its angle. `rotation` is (cosine, sine). The product
    is computed in float32 or a wider dtype; the result has the dtype of x."""
    cosine, sine = rotation
    first, second = x.to(torch.promote_types(x.dtype, cosine.dtype)).chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).to(x.dtype)


class RelativeBias(RelativePosition):
    """A learned bias for each head and each bucket of distances in the running order (T5, Raffel et al. 2019,
    arXiv:1910.10683).

    If `bidirectional`, one half of the `buckets` is for later keys and the other half for earlier keys; otherwise all
    buckets are for earlier keys, and all later keys are in bucket 0. Of the buckets of a direction, the first half hold
    a single distance each. The second half grow logarithmically up to `longest` tokens; all larger distances are in the
    last bucket. Raises ValueError if no bucket holds a single distance, or if `longest` does not exceed the number of
    buckets that hold a single distance."""

    counts_tokens = True

    def __init__(
        self, heads: int, channels: int, axes: tuple[str, ...] = ("order",), *,
        buckets: int = 32, longest: int = 128, bidirectional: bool = True,
    ):  # fmt: skip
        super().__init__(heads, channels, axes)
        exact = buckets // 4 if bidirectional else buckets // 2
        if exact < 1 or longest <= exact:
            raise ValueError(
                f"relative_bias: {buckets} buckets hold {exact} single distances; this number must be at least 1, and "
                f"longest ({longest}) must be larger"
            )
        self.table = nn.Embedding(buckets, heads)
        self.buckets, self.longest, self.bidirectional = buckets, longest, bidirectional

    def bucket(self, distance: Int[Tensor, "*t"]) -> Int[Tensor, "*t"]:
        """Returns the bucket (0 to `buckets` - 1) of each `distance`: the running order of the key minus the running
        order of the query."""
        count, offset = self.buckets, torch.zeros_like(distance)
        if self.bidirectional:
            count //= 2
            offset = (distance > 0).long() * count
            distance = distance.abs()
        else:
            distance = (-distance).clamp(min=0)
        exact = count // 2
        growth = torch.log(distance.float().clamp(min=1) / exact) / math.log(self.longest / exact)
        far = (exact + (growth * (count - exact)).long()).clamp(max=count - 1)
        return offset + torch.where(distance < exact, distance, far)

    def bias(self, queries: Tokens, keys: Tokens):
        distance = alike(keys.position[:, None, :, 0]) - alike(queries.position[:, :, None, 0])
        return rearrange(self.table(self.bucket(distance.long())), "b n m h -> b h n m")


class Alibi(RelativePosition):
    """Subtracts a number from each score that is proportional to the distance between query and key in the running
    order, in both directions. Each head has a fixed slope (Press et al. 2021, arXiv:2108.12409)."""

    counts_tokens = True

    def __init__(self, heads: int, channels: int, axes: tuple[str, ...] = ("order",)):
        super().__init__(heads, channels, axes)
        power = 2 ** math.floor(math.log2(heads))
        slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
        slopes += [2 ** (-4 * (2 * i + 1) / power) for i in range(heads - power)]
        self.register_buffer("slopes", torch.tensor(slopes), persistent=False)

    def bias(self, queries: Tokens, keys: Tokens):
        distance = (alike(keys.position[:, None, None, :, 0]) - alike(queries.position[:, None, :, None, 0])).abs()
        return -self.slopes[:, None, None] * distance


class EdgeBias(RelativePosition):
    """Adds a learned number for each head to the score of each pair of tokens that has an edge in a graph, for every
    graph in `graphs` (a form of the bias of Graphormer, Ying et al. 2021, arXiv:2106.05234). The graphs are expressions
    like those of `attention` or, in Python, `Graph` objects; the attention graph still decides which tokens are read.
    All numbers are 0 at the start. Raises ValueError if `graphs` is empty.

        position: {use: edge_bias, graphs: [same_item, "edges(image -> text)", "neighbourhood(1, row, column)"]}
    """

    counts_tokens = True

    def __init__(
        self, heads: int, channels: int, axes: tuple[str, ...] = ("order",), *,
        graphs: tuple[str | Graph, ...] = ("same_item",),
    ):  # fmt: skip
        super().__init__(heads, channels, axes)
        if not graphs:
            raise ValueError("edge_bias: graphs must have at least one expression")
        self.graphs = [parse_graph(graph, (), axes) if isinstance(graph, str) else graph for graph in graphs]
        self.table = nn.Embedding.from_pretrained(torch.zeros(len(graphs), heads), freeze=False)
        self.table.weight.role = "zero"

    def bias(self, queries: Tokens, keys: Tokens):
        within = within_samples(queries, keys), within_samples(keys)
        edges = torch.stack([mask_within(graph, *within, self_attention=False) for graph in self.graphs])
        return torch.einsum("g b n m, g h -> b h n m", edges.to(self.table.weight.dtype), self.table.weight)
