"""Low-rank adapters, LoRA (Hu et al. 2021, arXiv:2106.09685): training changes matrices only by products of two small
matrices.

The weights of the run of `from:` are the *base*. They are copied into `RUN/base.safetensors` and do not change.
Checkpoints contain the adapters, and the parameters that `training.train_only` selects. Adapters exist only during
training: a run that is loaded has the sums of base and adapters as its weights (`merged`), so no other part of chopmix
knows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..models.initialization import seed_of_parameter
from .checkpoints import CheckpointError

PART = ".adapters."
"""The component that the names of adapters contain: `...query.adapters.weight.down` belongs to `...query.weight`."""


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """Trains low-rank adapters instead of the weights that `from:` copies. The matrix W of a selected parameter is
    replaced by W + scale * up @ down, where `down` has `rank` rows and `up` has `rank` columns. `up` starts at zero.
    AdamW trains the adapters, with every `training.optimizer`. Raises ValueError if a number is out of range."""

    rank: int = 8
    on: list[str] = field(default_factory=lambda: ["query", "value"])
    """The matrices with adapters; entries as for `training.freeze`: `[query, key, value, out]`, `[feed_forward]`."""
    scale: float = 2.0
    """The factor of the product, `alpha / rank` in the paper."""

    def __post_init__(self):
        if not (1 <= self.rank <= 2**16 and self.on and 0 < self.scale <= 1e4):
            raise ValueError("rank must be from 1 to 65,536, on a list of names, and scale from above 0 to 10,000")


class LowRank(nn.Module):
    """The adapter of one matrix (n, m): `down` (rank, m) is drawn from a normal distribution with the variance 1 / m,
    `up` (n, rank) is zero."""

    def __init__(self, n: int, m: int, rank: int, scale: float, seed: int):
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, m, generator=torch.Generator().manual_seed(seed)) / m**0.5)
        self.up = nn.Parameter(torch.zeros(n, rank))
        self.register_buffer("scale", torch.tensor(scale))
        self.down.role = self.up.role = "adapter"

    def forward(self, matrix: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """Returns the matrix plus the product, computed in float32 also inside a context of bfloat16."""
        with torch.autocast(matrix.device.type, enabled=False):
            return torch.addmm(matrix, self.up * self.scale, self.down)


def adapt(model: nn.Module, names: Sequence[str], adapters: Adapters) -> None:
    """Adds an adapter to each matrix of the model among the parameters `names`, whose other parameters get none. Raises
    ValueError if none of the parameters is a matrix."""
    parameters = dict(model.named_parameters())
    matrices = [name for name in names if parameters[name].dim() == 2]
    if not matrices:
        raise ValueError(f"training.adapters.on: {', '.join(adapters.on)} selects no matrix")
    for name in matrices:
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if not hasattr(module, "adapters"):
            module.adapters = nn.ModuleDict()
        seed = seed_of_parameter(torch.initial_seed(), f"{name} adapter")
        module.adapters[leaf] = LowRank(*parameters[name].shape, adapters.rank, adapters.scale, seed)


def adapted_weights(model: nn.Module) -> dict[str, Tensor]:
    """Returns the sum of base and adapter of each matrix that has an adapter, by the name of its parameter."""
    return {
        matrix: module(model.get_parameter(matrix))
        for name, module in model.named_modules() if isinstance(module, LowRank) for matrix in [name.replace(PART, ".")]
    }  # fmt: skip


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Returns a context in which the matrices of the model contain their adapters. At the end of the context they have
    the values of the base again, bit for bit."""
    with torch.no_grad():
        weights = adapted_weights(model)
        base = {name: model.get_parameter(name).clone() for name in weights}
        for name, weight in weights.items():
            model.get_parameter(name).copy_(weight)
        try:
            yield
        finally:
            for name, weight in base.items():
                model.get_parameter(name).copy_(weight)


def trained_part(model: nn.Module) -> dict[str, Tensor]:
    """Returns the part of the state of a model with adapters that its checkpoints contain: everything except the
    parameters that are not trained."""
    trained = {name: value.requires_grad for name, value in model.named_parameters(remove_duplicate=False)}
    return {name: value for name, value in model.state_dict().items() if trained.get(name, True)}


def merged_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the state of a model without adapters, from the tensors of the base and of adapters by name. Raises
    CheckpointError if an adapter does not fit its matrix."""
    plain = {name: value for name, value in weights.items() if PART not in name}
    for up in (name for name in weights if PART in name and name.endswith(".up")):
        adapter, matrix = up.removesuffix(".up"), up.removesuffix(".up").replace(PART, ".")
        old, factor, scale, down = (
            weights.get(name, torch.empty(0)) for name in (matrix, up, f"{adapter}.scale", f"{adapter}.down")
        )
        if scale.shape != () or factor.shape[1:] != down.shape[:1] or old.shape != (*factor.shape[:1], *down.shape[1:]):
            raise CheckpointError(f"the adapter {adapter} does not fit the matrix {matrix} {tuple(old.shape)}")
        plain[matrix] = torch.addmm(old, factor * scale, down)
    return plain
