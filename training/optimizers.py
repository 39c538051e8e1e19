"""Optimizers: AdamW for everything, or Muon for the matrices of the cores and AdamW for the rest.

Every trained parameter is in exactly one group, by its role (`models/initialization.py`); `Optimizer` asserts it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from ..models.initialization import roles
from .hardware import fast_half

Share, Positive = Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class Optimizer:
    """Base: one or more torch optimizers that together hold every trained parameter of a model once.

    `learning_rate` (`training.learning_rate`) is the peak rate of the main group; other groups have ratios of it. All
    rates are multiplied by the schedule's factor. A subclass makes its optimizers in `__init__` and calls `hold`.
    """

    default_rate: ClassVar[float] = 1e-3
    """The main group's rate where `training.learning_rate` is null."""
    main: ClassVar[str] = "all"
    """The name of the main group."""

    def __init__(self, model: nn.Module, learning_rate: float):
        self.learning_rate, self.factor = learning_rate, 1.0
        self.inner: list[torch.optim.Optimizer] = []
        self.names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}

    def hold(self, *inner: torch.optim.Optimizer) -> None:
        """Take the torch optimizers, the main group first; `name` of a group is its name in tables and metrics. Raises
        AssertionError where a parameter is missing or held twice."""
        self.inner = list(inner)
        held = [p for group in self.groups() for p in group["params"]]
        assert len(held) == len(set(held)), "a parameter stands in two optimizer groups"
        lacking = [self.names[p] for p in set(self.names) - set(held)]
        assert set(held) == set(self.names), f"without optimizer: {lacking}"
        for group in self.groups():
            group["peak"] = group["lr"]

    def groups(self) -> list[dict]:
        """All groups of all optimizers."""
        return [group for optimizer in self.inner for group in optimizer.param_groups]

    def rates(self) -> dict[str, tuple[float, int]]:
        """The present learning rate of each group and its number of parameters, by the group's name, the main one
        first: `{"matrices": (0.02, 196608), "heads": (0.005, 16384)}`."""
        found: dict[str, tuple[float, int]] = {}
        for group in self.groups():
            name = group.get("name", "all")
            count = sum(p.numel() for p in group["params"])
            found[name] = group["lr"], count + found.get(name, (0.0, 0))[1]
        return found

    def figures(self) -> dict[str, float]:
        """The present learning rates as metrics: `train/learning_rate` of the main group,
        `train/learning_rate/heads` of another."""
        others = {f"train/learning_rate/{name}": rate for name, (rate, _) in self.rates().items() if name != self.main}
        return {"train/learning_rate": self.learning_rate * self.factor} | others

    def step(self, factor: float) -> None:
        """One update at `factor` times every group's peak rate."""
        self.factor = factor
        for optimizer in self.inner:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self.inner:
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """The state by `<parameter>/<quantity>`: `cores.main.norm.weight/exp_avg`, `.../exp_avg_sq`, `.../step`; of
        Muon's matrices `.../momentum`."""
        found = {}
        for optimizer in self.inner:
            for parameter, quantities in optimizer.state.items():
                found |= {f"{self.names[parameter]}/{key}": torch.as_tensor(q) for key, q in quantities.items()}
        return found

    def state_values(self) -> int:
        """How many numbers the state holds once every parameter was updated: AdamW two for each weight, Muon one."""
        kept = {optimizer: 1 if isinstance(optimizer, MatrixMomentum) else 2 for optimizer in self.inner}
        return sum(kept[o] * p.numel() for o in self.inner for group in o.param_groups for p in group["params"])

    def load(self, state: dict[str, Tensor]) -> None:
        """Take what `state` gave; an empty one changes nothing. Raises ValueError where a parameter has no state in
        it, or one of another shape, type or optimizer."""
        by_name: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for key, value in state.items():
            name, _, quantity = key.rpartition("/")
            by_name[name][quantity] = value
        missing = set(self.names.values()) - set(by_name)
        if state and missing:
            raise ValueError(f"the optimizer's checkpoint has nothing for {sorted(missing)[:3]}")
        for optimizer in self.inner:
            for group in optimizer.param_groups:
                for parameter in group["params"] if state else ():
                    quantities = by_name[self.names[parameter]]
                    self._check(optimizer, parameter, quantities)
                    optimizer.state[parameter] = {k: self._placed(k, v, parameter) for k, v in quantities.items()}

    def _check(self, optimizer: torch.optim.Optimizer, parameter: Tensor, quantities: Mapping[str, Tensor]) -> None:
        """Raises ValueError where these are not the quantities that this optimizer keeps for the parameter."""
        wanted = {"momentum"} if isinstance(optimizer, MatrixMomentum) else {"step", "exp_avg", "exp_avg_sq"}
        fits = quantities.keys() == wanted and all(
            value.is_floating_point() and value.numel() == 1 if name == "step"
            else (value.shape, value.dtype) == (parameter.shape, parameter.dtype) for name, value in quantities.items()
        )  # fmt: skip
        if not fits:
            raise ValueError(f"the optimizer's checkpoint has no state for {self.names[parameter]} that fits it")

    @staticmethod
    def _placed(key: str, value: Tensor, parameter: Tensor) -> Tensor:
        """A copy on the parameter's device; step counters on the CPU unless that is CUDA (as fused AdamW has it)."""
        device = parameter.device if key != "step" or parameter.is_cuda else "cpu"
        return value.to(device=device, copy=True)


def adamw(groups: list[dict], betas: tuple[float, float], epsilon: float) -> torch.optim.AdamW:
    """torch's fused AdamW over the groups that hold any parameter."""
    return torch.optim.AdamW([g for g in groups if g["params"]], betas=betas, eps=epsilon, fused=True)


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101), fused.

    `weight_decay` acts on parameters of two axes or more (matrices and embeddings, as in nanoGPT), never on gains and
    biases. `layer_decay`, for fine-tuning, multiplies the rate once per layer on the way down from the heads (Clark et
    al. 2020, arXiv:2003.10555): with 0.75 and 2 blocks, heads learn with the full rate, the blocks with 0.75 and 0.5625
    of it, the embeddings with 0.421875. 1: none. `betas` and `epsilon` are Adam's.
    """

    def __init__(
        self, model: nn.Module, learning_rate: float, *, betas: tuple[Share, Share] = (0.9, 0.95),
        weight_decay: Weight = 0.1, epsilon: Positive = 1e-8, layer_decay: Positive = 1.0,
    ):  # fmt: skip
        super().__init__(model, learning_rate)
        groups: dict[tuple[int, bool], dict] = {}
        for parameter, name in self.names.items():
            key = depth_below_heads(model, name) if layer_decay != 1 else 0, parameter.dim() >= 2
            own = {"lr": learning_rate * layer_decay ** key[0], "weight_decay": weight_decay if key[1] else 0.0}
            own["name"] = f"{key[0]}_below_the_heads" if key[0] else self.main
            groups.setdefault(key, {"params": [], **own})["params"].append(parameter)
        self.hold(adamw([groups[key] for key in sorted(groups, key=lambda k: (k[0], not k[1]))], tuple(betas), epsilon))


def depth_below_heads(model: nn.Module, name: str) -> int:
    """How many layers below the heads a parameter lies, with `depth` blocks in the deepest core: 0 for heads and final
    norms, 1 for that core's last block, `depth` for first blocks, `depth` + 1 for all else (embeddings)."""
    owner, *rest = name.split(".")  # cores.main.blocks.0..., cores.main.norm...
    if owner == "heads" or (owner == "cores" and rest[1] == "norm"):
        return 0
    depth = max(len(core.blocks) for core in model.cores.values())
    return depth - int(rest[2]) if owner == "cores" and rest[1] == "blocks" else depth + 1


class Muon(Optimizer):
    """Muon for the matrices inside the cores (Jordan et al. 2024), AdamW for embeddings, heads, gains and biases.

    The matrices learn with `training.learning_rate` (0.02 where it is null); `embeddings`, `heads` and `others`
    (matrices that read raw input, gains, biases) are ratios of it. `momentum` is Muon's, `betas` are AdamW's.
    `weight_decay` acts on the matrices alone, and with `cautious` only on weights that the update also moves towards
    zero (Chen et al. 2025, arXiv:2510.12402). Raises ValueError for a ratio below 0.
    """

    default_rate, main = 0.02, "matrices"

    def __init__(
        self, model: nn.Module, learning_rate: float, *, embeddings: Weight = 0.5, heads: Weight = 0.25,
        others: Weight = 0.1, momentum: Share = 0.95, weight_decay: Weight = 0.0, cautious: bool = False,
        betas: tuple[Share, Share] = (0.8, 0.95),
    ):  # fmt: skip
        super().__init__(model, learning_rate)
        if min(embeddings, heads, others) < 0:
            raise ValueError(
                f"embeddings, heads and others are ratios of the learning rate: 0 or more, not {embeddings}, "
                f"{heads}, {others}"
            )
        group_of = {"matrix": "matrices", "projection": "matrices", "embedding": "embeddings", "head": "heads"}
        ratios = {"embeddings": embeddings, "heads": heads, "others": others}
        by_group = defaultdict(list)
        for _, role, parameter in (each for each in roles(model) if each[2].requires_grad):
            by_group[group_of.get(role, "others")].append(parameter)
        of_cores = by_group.pop("matrices", [])
        stacked = [MatrixMomentum(of_cores, learning_rate, momentum, weight_decay, cautious)] if of_cores else []
        groups = [
            {"params": by_group[name], "lr": learning_rate * ratio, "weight_decay": 0.0, "name": name}
            for name, ratio in ratios.items() if name in by_group
        ]  # fmt: skip
        self.hold(*stacked, *([adamw(groups, tuple(betas), 1e-10)] if groups else []))


class MatrixMomentum(torch.optim.Optimizer):
    """Muon's update: Nesterov momentum, made orthogonal by `newton_schulz`, times sqrt(max(1, rows / columns)).

    Matrices of one shape are stacked, so that each Newton-Schulz step is one batched product; the state (`momentum`) is
    per parameter. Reference: Keller Jordan, github.com/KellerJordan/Muon; torch.optim.Muon with
    `adjust_lr_fn="original"` gives the same updates.
    """

    def __init__(
        self, matrices: Iterable[Tensor], rate: float, momentum: float = 0.95, decay: float = 0.0,
        cautious: bool = False,
    ):  # fmt: skip
        defaults = {"lr": rate, "momentum": momentum, "weight_decay": decay, "cautious": cautious, "name": "matrices"}
        super().__init__(list(matrices), defaults)

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:
        """One update of every matrix that has a gradient; `closure` is ignored."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict) -> None:
        for p in parameters:
            self.state[p].setdefault("momentum", torch.zeros_like(p))
        gradients, momenta = [p.grad for p in parameters], [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        rows, columns = parameters[0].shape
        updates = newton_schulz(torch.stack(ahead)).to(parameters[0].dtype) * max(1, rows / columns) ** 0.5
        if group["weight_decay"]:
            weights = torch.stack(parameters)
            decay = weights * (updates * weights >= 0) if group["cautious"] else weights
            updates = updates + decay * group["weight_decay"]
        torch._foreach_add_(parameters, list(updates.unbind()), alpha=-group["lr"])


def newton_schulz(matrices: Tensor, steps: int = 5) -> Tensor:
    """A stack of matrices (k, rows, columns) made nearly orthogonal: the same singular vectors, singular values near 1.

    The quintic iteration and coefficients of Jordan et al. 2024; in bfloat16 where matrix products are fast in it
    (on a GPU; on a CPU with such instructions, 2.9 times faster there), else in float32.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16() if matrices.is_cuda or fast_half(matrices.device) else matrices.float()
    tall = x.shape[1] > x.shape[2]
    x = rearrange(x, "k r c -> k c r") if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return rearrange(x, "k c r -> k r c") if tall else x


def freeze(model: nn.Module, beginnings: Sequence[str]) -> None:
    """Take parameters out of training by the beginnings of their names, `cores.main.blocks.0`. Raises ValueError for
    one that begins no name, and where nothing is left to train."""
    names = [name for name, _ in model.named_parameters()]
    for beginning in beginnings:
        if not any(name.startswith(beginning) for name in names):
            parts = sorted({".".join(name.split(".")[:2]) for name in names})
            raise ValueError(
                f"training.freeze: no parameter begins with {beginning!r}; possible: {', '.join(parts)}, ..."
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(beginnings)) if beginnings else True)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("training.freeze leaves nothing to train")
