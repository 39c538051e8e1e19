"""Linear maps: torch's, but on a CPU while generating: for a single vector, where torch's own way leaves most of the memory
bandwidth unused, and for a few rows, which are faster as columns."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LARGE = 2**17
"""Matrices of fewer values stay in a core's own memory, where torch's way is the faster."""

FEW = 64
"""Rows of a decoder that may be multiplied as columns."""

WORTH_IT = 1.2
"""How many times faster the halves must be to be used: well above what one measurement differs from the next."""


def by_halves(
    x: Float[Tensor, "*b d"], weight: Float[Tensor, "v d"], bias: Float[Tensor, "v"] | None
) -> Float[Tensor, "*b v"]:
    """The product of one vector and a matrix of an even number of rows, as a batch of two products."""
    rows, columns = weight.shape
    halves = weight.view(2, rows // 2, columns)  # views, not einops: these lines run for every matrix of every token
    vectors = x.as_strided((2, columns, 1), (0, 1, columns))
    mixed = torch.bmm(halves, vectors) if bias is None else torch.baddbmm(bias.view(2, -1, 1), halves, vectors)
    return mixed.view(*x.shape[:-1], rows)


def by_columns(
    x: Float[Tensor, "b d"], weight: Float[Tensor, "v d"], bias: Float[Tensor, "v"] | None
) -> Float[Tensor, "b v"]:
    """The product of a few rows and a matrix, computed with the rows as columns; what comes out lies in memory by columns."""
    columns = torch.mm(weight, x.t()) if bias is None else torch.addmm(bias[:, None], weight, x.t())
    return columns.t()


@functools.cache
def halves_are_faster(columns: int, threads: int) -> bool:
    """Whether this machine is faster by halves on matrices of so many columns, measured once on one too large for its caches."""
    weight, x = torch.ones(2**25 // columns // 2 * 2, columns), torch.ones(columns)
    return seconds(F.linear, x, weight, 4) > WORTH_IT * seconds(by_halves, x, weight, 4)


@functools.cache
def columns_are_faster(threads: int) -> bool:
    """Whether this machine multiplies a few rows faster as columns, measured once on a small matrix and 32 rows."""
    weight, x = torch.ones(1024, 256), torch.ones(32, 256)
    return seconds(F.linear, x, weight, 30) > seconds(by_columns, x, weight, 30)


def seconds(product: Callable[[Tensor, Tensor, None], Tensor], x: Tensor, weight: Tensor, times: int) -> float:
    """The shortest of so many products, after one that warms up."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        product(x, weight, None)
        found.append(time.perf_counter() - start)
    return min(found[1:])


def of_few_rows(
    x: Float[Tensor, "b d"], weight: Float[Tensor, "v d"], bias: Float[Tensor, "v"] | None
) -> Float[Tensor, "b v"]:
    """`linear` for the rows of a decoder, outside training: 2 to `FEW` of them are multiplied as columns where that is faster.
    What comes out may lie in memory by columns, so that a chain of such products copies nothing."""
    few = 1 < len(x) <= FEW and x.is_cpu and x.dtype == torch.float32
    if few and columns_are_faster(torch.get_num_threads()):
        return by_columns(x, weight, bias)
    return (linear if weight.numel() >= LARGE else F.linear)(x, weight, bias)


def linear(
    x: Float[Tensor, "*b d"], weight: Float[Tensor, "v d"], bias: Float[Tensor, "v"] | None = None
) -> Float[Tensor, "*b v"]:
    """`F.linear`. A single vector, as in generation, is multiplied by halves of the matrix where that is faster.

    For one matrix and one vector torch calls a routine that on some processors runs on one thread; a batch goes through another.
    GPT-2 small's matrices, float32, torch 2.14, two cores: 1.3 to 2.9 times faster on two machines, 0.6 times on a third.
    """
    if weight.numel() < LARGE or torch.is_grad_enabled() or x.numel() != weight.shape[1]:
        return F.linear(x, weight, bias)
    if not x.is_cpu or x.dtype != torch.float32 or not x.is_contiguous() or not weight.is_contiguous():
        return F.linear(x, weight, bias)
    if torch.compiler.is_compiling() or not halves_are_faster(x.numel(), torch.get_num_threads()):
        return F.linear(x, weight, bias)
    if len(weight) % 2:
        last = linear(x, weight[-1:], None if bias is None else bias[-1:])
        return torch.cat([linear(x, weight[:-1], None if bias is None else bias[:-1]), last], dim=-1)
    return by_halves(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear` that computes by `linear`."""

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        return linear(x, self.weight, self.bias)
