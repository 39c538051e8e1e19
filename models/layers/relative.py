"""Relative positions, inside attention: rotated queries and keys (always in float32), learned and fixed biases."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..tokens import Tokens, alike
from .positions import Wavelength


class RelativePosition(nn.Module):
    """Base of the relative positions; by itself, none. Built with the number of heads, their width (`channels`) and the
    names of the tokens' position axes."""

    def __init__(self, heads: int, channels: int, axes: tuple[str, ...] = ("order",)):
        super().__init__()
        self.axes = axes

    def rotation(self, tokens: Tokens) -> tuple[Tensor, Tensor] | None:
        """Cosine and sine of the angles that rotate queries and keys, (b, 1, n, c/2) each; None: no rotation."""
        return None

    def bias(self, queries: Tokens, keys: Tokens) -> Float[Tensor, "b h n m"] | None:
        """The bias that is added to the scores; None: none."""
        return None

    @property
    def has_bias(self) -> bool:
        """Whether there is a bias: not all attention kernels can add one."""
        return type(self).bias is not RelativePosition.bias


class Rotary(RelativePosition):
    """Queries and keys are rotated by an angle that grows with position (Su et al. 2021, arXiv:2104.09864).

    Of c channels, i and i + c/2 rotate together (the GPT-NeoX and Llama layout), by position * base^(-2k / share) for
    pair k of an axis. `per_axis` gives each position axis its share of a head's channels, e.g. `{order: 16, row: 8,
    column: 8}`; channels beyond their sum are not rotated. Default: all channels for the running order.
    Raises ValueError for an unknown axis, an odd share or number of channels, or shares that exceed the channels.
    """

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
                raise ValueError(f"rotary: axis {name!r} gets {share} channels; it must be an even number, 0 or more")
        if sum(per_axis.values()) > channels or channels % 2:
            raise ValueError(f"rotary: {per_axis} needs more than the {channels} channels of a head, or an odd number")
        exponents = [torch.arange(0, share, 2, dtype=torch.float64) / share for share in per_axis.values()]
        frequency = torch.cat([(base**-exponent).float() for exponent in exponents])
        axis = torch.tensor([axes.index(name) for name, share in per_axis.items() for _ in range(share // 2)])
        rest = (0, channels // 2 - len(frequency))  # pairs of channels that are not rotated: frequency 0
        self.register_buffer("frequency", F.pad(frequency, rest), persistent=False)
        self.register_buffer("axis", F.pad(axis.long(), rest), persistent=False)

    def _apply(self, fn, recurse=True):
        """Moves to devices but stays in float32: rounded to bfloat16, neighbouring positions would coincide."""
        frequency = self.frequency
        super()._apply(fn, recurse)
        self.frequency = frequency.to(self.frequency.device)
        return self

    def rotation(self, tokens: Tokens):
        # an elementwise product: autocast and TF32 would round a matrix product, and so positions
        angle = tokens.position.float().nan_to_num()[..., self.axis] * self.frequency
        return angle.cos()[:, None], angle.sin()[:, None]


def rotate(x: Float[Tensor, "b h n c"], rotation: tuple[Tensor, Tensor]) -> Float[Tensor, "b h n c"]:
    """Rotate each pair of channels (i, i + c/2) by its angle, in float32 or wider; a zero angle leaves it as it is."""
    cosine, sine = rotation
    first, second = x.to(torch.promote_types(x.dtype, cosine.dtype)).chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).to(x.dtype)


class RelativeBias(RelativePosition):
    """A learned bias per head and bucket of distance in the running order (T5, Raffel et al. 2019, arXiv:1910.10683).

    Half of the buckets (of each direction, if `bidirectional`) are for single distances, the others grow
    logarithmically up to `longest` tokens; all larger distances share the last. Without `bidirectional` all later keys
    share bucket 0. Raises ValueError unless a direction has single distances and `longest` exceeds them.
    """

    def __init__(
        self, heads: int, channels: int, axes: tuple[str, ...] = ("order",), *,
        buckets: int = 32, longest: int = 128, bidirectional: bool = True,
    ):  # fmt: skip
        super().__init__(heads, channels, axes)
        exact = buckets // 4 if bidirectional else buckets // 2
        if exact < 1 or longest <= exact:
            raise ValueError(
                f"relative_bias: {buckets} buckets count {exact} distances singly; longest ({longest}) must be more"
            )
        self.table = nn.Embedding(buckets, heads)
        self.buckets, self.longest, self.bidirectional = buckets, longest, bidirectional

    def bucket(self, distance: Int[Tensor, "*t"]) -> Int[Tensor, "*t"]:
        """The bucket of each `distance`, the key's running order minus the query's: 0 to `buckets` - 1."""
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
    """Scores fall linearly with the distance in the running order, to both sides, at a fixed slope per head (Press et
    al. 2021, arXiv:2108.12409)."""

    def __init__(self, heads: int, channels: int, axes: tuple[str, ...] = ("order",)):
        super().__init__(heads, channels, axes)
        power = 2 ** math.floor(math.log2(heads))
        slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
        slopes += [2 ** (-4 * (2 * i + 1) / power) for i in range(heads - power)]
        self.register_buffer("slopes", torch.tensor(slopes), persistent=False)

    def bias(self, queries: Tokens, keys: Tokens):
        distance = (alike(keys.position[:, None, None, :, 0]) - alike(queries.position[:, None, :, None, 0])).abs()
        return -self.slopes[:, None, None] * distance
