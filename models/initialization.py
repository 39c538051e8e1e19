"""Initial values of all parameters. Every parameter has a *role*, which depends on its name and module. The table lists
the initial values for each role; it is applied once to the complete `Model`. Optimizers also group parameters by role.

| role         | which                                             | `gpt2`              | `zero_projections`      |
| ------------ | ------------------------------------------------- | ------------------- | ----------------------- |
| `embedding`  | a table: ids, positions, core tokens, T5 buckets  | normal, std         | normal, `embedding`;    |
|              |                                                   |                     | `tied` with a tied head |
| `matrix`     | a matrix of a core or of a head's transformer     | normal, std         | uniform, std width^-½   |
| `projection` | a matrix that writes to the residual stream       | normal, std/√(2L)   | zero                    |
| `input`      | a matrix that embeds raw chunks                   | normal, std         | uniform, std fan_in^-½  |
| `head`       | a matrix of a head                                | normal, std         | normal, `head`          |
| `gain`       | the weight of a norm                              | one                 | one                     |
| `scale`      | the factor of a branch (`layer_scale`)            | unchanged           | unchanged               |
| `bias`       | other vectors: biases, type embeddings            | zero                | zero                    |
| `adapter`    | the two matrices of a low-rank adapter            | unchanged           | unchanged               |

L is the depth of the core: every layer adds two branches to the residual stream (Radford et al. 2019). Branches that
start at zero make every pre-norm block the identity at step 0 (Zhang et al. 2019, arXiv:1901.09321; modded-nanogpt).
`xavier` draws matrices from a uniform distribution with std (2 / (fan_in + fan_out))^½ and tables from a normal
distribution with std width^-½.

The parameters of user-defined classes keep the values that their constructor sets. The parameters of chopmix's layers
inside a user-defined class are initialised by the table. A parameter can also have an attribute `role`. If `role` is a
role of the table, both the initial value and the optimizer follow it. The values `zero` and `keep` (keep the value of
the constructor) only affect the initial value:

    class LowRank(nn.Module):                                   # LoRA (Hu et al. 2021, arXiv:2106.09685)
        def __init__(self, width, rank):
            super().__init__()
            self.down = nn.Parameter(torch.empty(rank, width))
            self.up = nn.Parameter(torch.zeros(width, rank))    # stays zero
            self.down.role = "matrix"                           # initialised like the matrices of a core
"""

from __future__ import annotations

import copy
import hashlib
import math
import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

PROJECTION = re.compile(r"\.(out|down)(\.layers\.\d+)?\.weight$")
"""Matches the names of matrices that write to the residual stream. The optional part `.layers.N` belongs to layers with
separate weights for groups of inputs (`OwnLayers`)."""


ROLES = ("embedding", "matrix", "projection", "input", "head", "gain", "scale", "bias", "adapter")
"""The roles of the table."""
INITIAL_ONLY = ("zero", "keep")
"""Further values of the attribute `role` of a parameter. They affect only its initial value, not the optimizer."""


def roles(model: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Yields (name, role, parameter) for every parameter of a `Model`; a shared parameter occurs once. Raises
    ValueError if the attribute `role` of a parameter is neither in `ROLES` nor in `INITIAL_ONLY`."""
    owners = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        role = getattr(parameter, "role", None)
        if role not in (None, *ROLES, *INITIAL_ONLY):
            raise ValueError(f"{name} has the role {role!r}; possible: {', '.join((*ROLES, *INITIAL_ONLY))}")
        yield name, role if role in ROLES else _role(name, owners, parameter), parameter


def in_user_defined_class(name: str, owners: Mapping[str, nn.Module]) -> bool:
    """Returns whether the parameter `name` belongs to a user-defined class. The parameters of a torch module count as
    parameters of the module that contains the torch module. `owners` maps names to all modules of the model."""
    while name:
        name = name.rpartition(".")[0]
        package = type(owners[name]).__module__.partition(".")[0]
        if package != "torch":
            return package != __name__.partition(".")[0]
    return False


def copied(module: nn.Module) -> nn.Module:
    """Returns a copy of a module. The attribute `role` of its parameters is copied too, which `deepcopy` does not
    do."""
    clone = copy.deepcopy(module)
    for parameter, cloned in zip(module.parameters(), clone.parameters(), strict=True):
        if hasattr(parameter, "role"):
            cloned.role = parameter.role
    return clone


def _role(name: str, owners: dict[str, nn.Module], parameter: Tensor) -> str:
    owner, _, leaf = name.rpartition(".")
    if isinstance(owners[owner], nn.Embedding):
        return "embedding"
    if leaf == "scale":
        return "scale"
    if parameter.dim() < 2:
        return "gain" if leaf == "weight" and isinstance(owners[owner], nn.LayerNorm | nn.RMSNorm) else "bias"
    if name.startswith("heads.") and ".blocks." not in name:
        head, inner = name.split(".")[1:3]
        return "input" if inner in getattr(owners[f"heads.{head}"], "inner_inputs", ()) else "head"
    if not name.startswith(("cores.", "heads.")):
        return "input"
    return "projection" if PROJECTION.search(name) else "matrix"


def depth_of(model: nn.Module, name: str) -> int:
    """Returns the number of blocks of the transformer that contains the parameter `name`. The transformer is a core, or
    belongs to a head. Returns 1 for parameters outside of transformers."""
    owner, in_block, _ = name.partition(".blocks.")
    if name.startswith("cores."):
        return len(model.cores[name.split(".")[1]].blocks)
    return len(model.get_submodule(owner).blocks) if in_block and name.startswith("heads.") else 1


def seed_of_parameter(seed: int, name: str) -> int:
    """Returns the seed for the initial values of the parameter `name`, from 0 to 2 ** 63 - 1. It depends on `name` and
    on the run's `seed`."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big") >> 1


class Initialization:
    """Base class. Initialises all parameters of a model in place. Parameters of user-defined classes without a `role`
    and parameters with the role `keep`, `scale` or `adapter` are not changed.

    The values depend only on the initial seed of torch's global generator and on the name of the parameter. Therefore
    adding or removing a module does not change the values of other modules."""

    def __call__(self, model: nn.Module) -> None:
        seed = torch.initial_seed()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            owners = dict(model.named_modules())
            for name, role, parameter in roles(model):
                rule = getattr(parameter, "role", "keep" if in_user_defined_class(name, owners) else role)
                if rule == "zero":
                    parameter.zero_()
                elif rule not in ("keep", "scale", "adapter") and not parameter.is_meta:  # meta tensors have no values
                    generator = torch.default_generator if parameter.is_cpu else torch  # seeding all devices is slow
                    generator.manual_seed(seed_of_parameter(seed, name))
                    self.fill(role, parameter, depth_of(model, name))

    def fill(self, role: str, parameter: Tensor, depth: int) -> None:
        """Initialises one parameter in place, by its role. `depth` is the number of blocks of the transformer that
        contains the parameter, or 1 (`depth_of`)."""
        raise NotImplementedError


def checked_std(name: str, value: float) -> float:
    """Returns `value`, a standard deviation. Raises ValueError if it is not between 0 and 10,000; `name` is for the
    message."""
    if not 0 <= value <= 1e4:
        raise ValueError(f"{name} must lie between 0 and 10,000, not {value}")
    return value


class Gpt2(Initialization):
    """GPT-2 (Radford et al. 2019). Matrices and tables are drawn from a normal distribution with the standard deviation
    `std` (0 to 10,000). For matrices that write to the residual stream, `std` is divided by √(2 · depth)."""

    def __init__(self, *, std: float = 0.02):
        self.std = checked_std("std", std)

    def fill(self, role: str, parameter: Tensor, depth: int) -> None:
        if role in ("gain", "bias"):
            nn.init.constant_(parameter, float(role == "gain"))
            return
        scale = 1 / math.sqrt(2 * depth) if role == "projection" else 1.0
        nn.init.normal_(parameter, std=self.std * scale)


class ZeroProjections(Initialization):
    """The last matrix of each attention and feed-forward layer is zero, so that every block starts as the identity. The
    other matrices of cores and inputs have the standard deviation n^-½ for n inputs, which keeps the variance of their
    input.

    The options are standard deviations from 0 to 10,000: `embedding` for embedding tables, `head` for matrices of
    heads, `tied` for embedding tables that a head uses as weights (`tied`, `masked_head`). `tied: null` means
    `embedding` if `embedding` is below 1, else 4 / width. With 4 / width, the logit of a token's own id at step 0 is at
    most 4 above the other logits. With a standard deviation of 1, the loss would start at about the width.
    """

    def __init__(self, *, embedding: float = 1.0, tied: float | None = None, head: float = 0.001):
        self.embedding, self.head = checked_std("embedding", embedding), checked_std("head", head)
        self.tied = tied if tied is None else checked_std("tied", tied)
        self._tied_tables: set[int] = set()

    def __call__(self, model: nn.Module) -> None:
        heads = model.heads.values()
        self._tied_tables = {id(head.table) for head in heads if getattr(head, "tied", False)}
        super().__call__(model)

    def std_of_table(self, table: Tensor) -> float:
        """Returns the standard deviation of a table's initial values."""
        if id(table) not in self._tied_tables:
            return self.embedding
        small = self.embedding if self.embedding < 1 else 4 / table.shape[1]
        return small if self.tied is None else self.tied

    def fill(self, role: str, parameter: Tensor, depth: int) -> None:
        if role in ("matrix", "input"):
            bound = math.sqrt(3 / parameter[0].numel())
            nn.init.uniform_(parameter, -bound, bound)
        elif role in ("embedding", "head"):
            nn.init.normal_(parameter, std=self.head if role == "head" else self.std_of_table(parameter))
        else:
            nn.init.constant_(parameter, float(role == "gain"))


class Xavier(Initialization):
    """Matrices are drawn so that they keep the variance of activations and gradients (Glorot & Bengio 2010). The rows
    of embedding tables have a length of about 1. The implementations of the transformer of 2017 (tensor2tensor,
    fairseq) use the same rule."""

    def fill(self, role: str, parameter: Tensor, depth: int) -> None:
        if role == "embedding":
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        elif parameter.dim() >= 2:
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.constant_(parameter, float(role == "gain"))
