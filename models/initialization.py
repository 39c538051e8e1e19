"""Initial values of all parameters: one table, applied once to the whole `Model`. Optimizers group parameters by the
same roles.

| role         | which                                             | `gpt2`              | `zero_projections`      |
| ------------ | ------------------------------------------------- | ------------------- | ----------------------- |
| `embedding`  | a table: ids, positions, core tokens, T5 buckets  | normal, std         | normal, `embedding`;    |
|              |                                                   |                     | `tied` with a tied head |
| `matrix`     | a matrix inside a core, or a head's transformer   | normal, std         | uniform, std width^-½   |
| `projection` | a matrix that writes to the stream                | normal, std/√(2L)   | zero                    |
| `input`      | a matrix that turns raw chunks to vectors         | normal, std         | uniform, std fan_in^-½  |
| `head`       | a matrix of a head                                | normal, std         | normal, `head`          |
| `gain`       | what norms multiply with                          | one                 | one                     |
| `scale`      | what branches are multiplied with (`layer_scale`) | as it is            | as it is                |
| `bias`       | other vectors: biases, type embeddings            | zero                | zero                    |

L is the core's depth: every layer adds two branches to the residual stream (Radford et al. 2019). Branches that start
at zero make every pre-norm block the identity at step 0 (Zhang et al. 2019, arXiv:1901.09321; modded-nanogpt). `xavier`
draws every matrix uniformly with std (2 / (fan_in + fan_out))^½ and tables normally with std width^-½.

The role follows from the parameter's name and module. The parameters of classes outside chopmix keep the values that
their constructor gave them; those of chopmix's layers inside such a class get values by the table. A parameter may also
carry a role, as the attribute `role`: one of the table, which optimizers then use as well, or `zero` or `keep` (the
value of the constructor), which decide the first value alone:

    class LowRank(nn.Module):                                   # LoRA (Hu et al. 2021, arXiv:2106.09685)
        def __init__(self, width, rank):
            super().__init__()
            self.down = nn.Parameter(torch.empty(rank, width))
            self.up = nn.Parameter(torch.zeros(width, rank))    # stays zero
            self.down.role = "matrix"                           # gets values as the matrices of a core
"""

from __future__ import annotations

import copy
import hashlib
import math
import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

WRITES = re.compile(r"\.(out|down)(\.layers\.\d+)?\.weight$")
"""The names of matrices that write to the residual stream; groups of inputs may have `layers` of their own."""


ROLES = ("embedding", "matrix", "projection", "input", "head", "gain", "scale", "bias")
"""The roles of the table."""
FIRST = ("zero", "keep")
"""What a parameter may carry as its `role` besides: they decide its first value alone."""


def roles(model: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """(name, role, parameter) for every parameter of a `Model`, each exactly once. Raises ValueError for a parameter
    that carries an unknown role."""
    owners = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        carried = getattr(parameter, "role", None)
        if carried not in (None, *ROLES, *FIRST):
            raise ValueError(f"{name} has the role {carried!r}; possible: {', '.join((*ROLES, *FIRST))}")
        yield name, carried if carried in ROLES else _role(name, owners, parameter), parameter


def in_user_defined_class(name: str, owners: Mapping[str, nn.Module]) -> bool:
    """Whether a parameter belongs to a class outside chopmix; what a class of torch holds belongs to the module around
    it. `owners`: all modules by name."""
    while name:
        name = name.rpartition(".")[0]
        package = type(owners[name]).__module__.partition(".")[0]
        if package != "torch":
            return package != __name__.partition(".")[0]
    return False


def copied(module: nn.Module) -> nn.Module:
    """A copy of a module whose parameters carry the same roles (copies of parameters have no attributes)."""
    made = copy.deepcopy(module)
    for parameter, own in zip(module.parameters(), made.parameters(), strict=True):
        if hasattr(parameter, "role"):
            own.role = parameter.role
    return made


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
    return "projection" if WRITES.search(name) else "matrix"


def depth_of(model: nn.Module, name: str) -> int:
    """How many blocks the transformer has that a parameter is of, a core or one inside of a head; 1 for all others."""
    place, inside, _ = name.partition(".blocks.")
    if name.startswith("cores."):
        return len(model.cores[name.split(".")[1]].blocks)
    return len(model.get_submodule(place).blocks) if inside and name.startswith("heads.") else 1


def seed_of_parameter(seed: int, name: str) -> int:
    """The seed for one parameter's first values, 0 to 2 ** 63 - 1, from the run's seed and the parameter's name."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big") >> 1


class Initialization:
    """Base: gives every parameter of a model its first value, in place, but those that keep their own (see above).

    The values depend only on the seed (that of torch's global generator) and on the parameter's name: adding, moving or
    removing a module changes no other module's values."""

    def __call__(self, model: nn.Module) -> None:
        seed = torch.initial_seed()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            owners = dict(model.named_modules())
            for name, role, parameter in roles(model):
                first = getattr(parameter, "role", "keep" if in_user_defined_class(name, owners) else role)
                if first == "zero":
                    parameter.zero_()
                elif first not in ("keep", "scale") and not parameter.is_meta:  # on `meta` there is nothing to fill
                    generator = torch.default_generator if parameter.is_cpu else torch  # all devices take long
                    generator.manual_seed(seed_of_parameter(seed, name))
                    self.fill(role, parameter, depth_of(model, name))

    def fill(self, role: str, parameter: Tensor, depth: int) -> None:
        """Give one parameter its values by the table above; `depth` is that of its core, 1 outside the cores."""
        raise NotImplementedError


def sound(name: str, value: float) -> float:
    """`value`, a standard deviation. Raises ValueError, with its `name`, unless it lies between 0 and 10,000."""
    if not 0 <= value <= 1e4:
        raise ValueError(f"{name} must lie between 0 and 10,000, not {value}")
    return value


class Gpt2(Initialization):
    """Normal values of one small standard deviation, `std` (0 to 10,000), divided by √(2 · depth) where a layer writes
    to the residual stream: GPT-2 (Radford et al. 2019)."""

    def __init__(self, *, std: float = 0.02):
        self.std = sound("std", std)

    def fill(self, role: str, parameter: Tensor, depth: int) -> None:
        if role in ("gain", "bias"):
            nn.init.constant_(parameter, float(role == "gain"))
            return
        scale = 1 / math.sqrt(2 * depth) if role == "projection" else 1.0
        nn.init.normal_(parameter, std=self.std * scale)


class ZeroProjections(Initialization):
    """Branches start at zero, matrices at the standard deviation that keeps a unit input at unit size (fan_in^-½).

    `embedding`, `tied` and `head` are the standard deviations of tables, of a table that a head scores with (`tied`,
    `masked_head`), and of heads, 0 to 10,000. `tied: null` is `embedding` if that is below 1, else 4 / width, so that a
    token, which reads nothing but itself at first, scores itself at most 4 above others: with 1 the loss would start
    at about the width.
    """

    def __init__(self, *, embedding: float = 1.0, tied: float | None = None, head: float = 0.001):
        self.embedding, self.head = sound("embedding", embedding), sound("head", head)
        self.tied = tied if tied is None else sound("tied", tied)
        self._tied_tables: set[int] = set()

    def __call__(self, model: nn.Module) -> None:
        heads = model.heads.values()
        self._tied_tables = {id(head.table) for head in heads if getattr(head, "tied", False)}
        super().__call__(model)

    def std_of_table(self, table: Tensor) -> float:
        """The standard deviation of a table's first values."""
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
    """Matrices that keep the size of values and gradients (Glorot & Bengio 2010), and tables whose rows have about unit
    length: what the implementations of the 2017 paper use (tensor2tensor, fairseq)."""

    def fill(self, role: str, parameter: Tensor, depth: int) -> None:
        if role == "embedding":
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        elif parameter.dim() >= 2:
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.constant_(parameter, float(role == "gain"))
