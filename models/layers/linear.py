"""Linear layers with faster matrix products for generation on a CPU.

On a CPU, PyTorch's product of a matrix with a single vector uses only a small part of the memory bandwidth, and
PyTorch's product with a few rows spends most of its time on rearranging the matrix. This file computes these two
products in another way; all other products are PyTorch's.
"""

from __future__ import annotations

import functools
import timeit
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LARGE = 2**17
"""The minimum number of values of a matrix for `by_halves`. Smaller matrices stay in the cache of a processor core, and
PyTorch's product is faster for them."""

FEW = 64
"""The maximum number of rows (texts generated together) for which a rearranged copy of the matrix is faster."""

LARGEST = 2**26
"""The maximum number of values of a matrix that is copied (256 MB in float32)."""

MINIMUM_SPEEDUP = 1.2
"""`by_halves` is used if it is more than this many times faster than PyTorch. Measurements vary by much less."""


def by_halves(
    x: Float[Tensor, "*b d"], weight: Float[Tensor, "v d"], bias: Float[Tensor, "v"] | None
) -> Float[Tensor, "*b v"]:
    """Returns the product of one vector and a matrix with an even number of rows, computed as a batch of two products:
    one for each half of the rows of the matrix."""
    rows, columns = weight.shape
    halves = weight.view(2, rows // 2, columns)  # faster than einops: these lines run for every matrix of every token
    vectors = x.as_strided((2, columns, 1), (0, 1, columns))
    mixed = torch.bmm(halves, vectors) if bias is None else torch.baddbmm(bias.view(2, -1, 1), halves, vectors)
    return mixed.view(*x.shape[:-1], rows)


@functools.cache
def halves_are_faster(columns: int, threads: int) -> bool:
    """Whether `by_halves` is more than `MINIMUM_SPEEDUP` times faster than PyTorch on this machine, for matrices with
    this number of columns and this number of CPU threads. This is measured once, with a matrix that is too large for
    the processor's caches (2**25 values)."""
    weight, x = torch.ones(2**25 // columns // 2 * 2, columns), torch.ones(columns)

    def seconds(product) -> float:
        return min(timeit.repeat(lambda: product(x, weight, None), number=1, repeat=4)[1:])  # the first one warms up

    return seconds(F.linear) > MINIMUM_SPEEDUP * seconds(by_halves)


@functools.cache
def can_prepack() -> bool:
    """Whether this version of PyTorch can multiply by matrices that oneDNN has rearranged in advance. Compiled code
    uses such matrices with the option `freezing`."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        x, weight = torch.ones(2, 16), torch.ones(16, 16)
        return torch.equal(by_prepacked(x, prepack(weight), None), x @ weight.t())
    except (AttributeError, RuntimeError):  # other versions of PyTorch, other processors
        return False


def prepack(weight: Float[Tensor, "v d"]) -> Tensor:
    """Returns a copy of a matrix in oneDNN's block format for products with `FEW` rows."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), FEW)


def by_prepacked(x: Float[Tensor, "b d"], packed: Tensor, bias: Float[Tensor, "v"] | None) -> Float[Tensor, "b v"]:
    """Returns the product of a few rows and a matrix, whose copy `packed` was made by `prepack`."""
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def prepacked(
    weight: Float[Tensor, "v d"], bias: Float[Tensor, "v"] | None = None
) -> Callable[[Float[Tensor, "b d"]], Float[Tensor, "b v"]]:
    """Returns a function that maps rows (b, d) to their products with this matrix plus the bias, (b, v), for
    generation. The matrix must not change afterwards.

    Without gradients, 2 to `FEW` float32 rows on a CPU are multiplied by a rearranged copy of the matrix, which is made
    at the first use. This is 1.3 to 1.7 times faster for 32 rows and 2 to 5 times for 4 rows (8,000 x 256 and 1,024 x
    256, float32, torch 2.14, two Zen 4 cores). The copy saves time from the fourth token on: 64 tokens in 4 rows take
    1.5 s instead of 4.1 s with a core of the size of GPT-2 small.
    """
    packed = None

    def multiply(x: Tensor) -> Tensor:
        nonlocal packed
        if not torch.is_grad_enabled() and 1 < len(x) <= FEW and x.is_cpu and x.dtype == weight.dtype == torch.float32:
            if packed is None and weight.numel() <= LARGEST and can_prepack():
                packed = prepack(weight)
            return F.linear(x, weight, bias) if packed is None else by_prepacked(x, packed, bias)
        return (linear if weight.numel() >= LARGE else F.linear)(x, weight, bias)

    return multiply


def linear(
    x: Float[Tensor, "*b d"], weight: Float[Tensor, "v d"], bias: Float[Tensor, "v"] | None = None
) -> Float[Tensor, "*b v"]:
    """Returns the same result as `F.linear`. A single vector, which is the usual case in generation, is multiplied by
    two halves of the matrix if this is faster (`by_halves`).

    For one matrix and one vector PyTorch calls a routine that runs on one thread on some processors; for a batch of
    matrices PyTorch calls another routine. For the matrices of GPT-2 small (float32, torch 2.14, two cores) the halves
    are 1.3 to 2.9 times faster on two machines, and 0.6 times as fast on a third.
    """
    if weight.numel() < LARGE or torch.is_grad_enabled() or x.numel() != weight.shape[1]:
        return F.linear(x, weight, bias)
    return one_row(x, weight, bias)


def one_row(
    x: Float[Tensor, "*b d"], weight: Float[Tensor, "v d"], bias: Float[Tensor, "v"] | None
) -> Float[Tensor, "*b v"]:
    """Returns `F.linear` of one vector and a large matrix, by halves if that is faster."""
    if not x.is_cpu or x.dtype != torch.float32 or not x.is_contiguous() or not weight.is_contiguous():
        return F.linear(x, weight, bias)
    if torch.compiler.is_compiling() or not halves_are_faster(x.numel(), torch.get_num_threads()):
        return F.linear(x, weight, bias)
    if len(weight) % 2:
        last = linear(x, weight[-1:], None if bias is None else bias[-1:])
        return torch.cat([linear(x, weight[:-1], None if bias is None else bias[:-1]), last], dim=-1)
    return by_halves(x, weight, bias)


def laid_together(*layers: nn.Linear) -> tuple[Float[Tensor, "v d"], Float[Tensor, "v"] | None]:
    """Returns the concatenated weights of linear layers and their concatenated biases (None if the first layer has no
    bias), as copies. One product with the result computes the outputs of all layers for the same input."""
    weight = torch.cat([layer.weight for layer in layers])
    return weight, None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])


class Linear(nn.Linear):
    """`nn.Linear`, computed by `linear`."""

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        return linear(x, self.weight, self.bias)
