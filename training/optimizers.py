"""Optimizers: AdamW for everything, or Muon for the matrices of the cores and AdamW for the rest.

Every trained parameter is in exactly one group, by its role (`models/initialization.py`); `Optimizer` asserts it.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from ..models.contract import described
from ..models.initialization import roles
from .accounting import fast_half

Share, Positive = Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]

NUMBERS: Mapping[str, tuple[type, torch.dtype]] = {
    "bool": (bool, torch.bool), "int": (int, torch.int64), "float": (float, torch.float64),
}  # fmt: skip
"""The kinds of numbers in an optimizer's state that are no tensors. A checkpoint holds the number 7 called `step` as
the tensor `step:int`."""
FOLLOWS = ("params", "lr")
"""The options of a group that a checkpoint does not hold: rates follow from the step."""


class Optimizer:
    """Base: one or more torch optimizers that together hold every trained parameter of a model once.

    `learning_rate` (`training.learning_rate`) is the peak rate of the main group; other groups have ratios of it. All
    rates are multiplied by the schedule's factor. A subclass makes its optimizers in `__init__` and calls `hold`. They
    may be any of `torch.optim` or your own, if all that they remember is tensors and numbers in their `state`, by
    parameter, and in their groups: a run that resumes continues from these.

        class Momentum(chopmix.Optimizer):
            def __init__(self, model, learning_rate, *, momentum: float = 0.9):
                super().__init__(model, learning_rate)
                self.hold(torch.optim.SGD(list(self.names), lr=learning_rate, momentum=momentum))
    """

    default_rate: ClassVar[float] = 1e-3
    """The main group's rate where `training.learning_rate` is null."""
    main: ClassVar[str] = "all"
    """The name of the main group."""

    def __init__(self, model: nn.Module, learning_rate: float):
        self.learning_rate, self.factor = learning_rate, 1.0
        self.inner: list[torch.optim.Optimizer] = []
        self.names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
        """The name of every trained parameter."""
        self._made: list[dict[str, Any]] = []
        """The options of each group as they were at first."""
        self._stepped = False

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
        self._made = [dict(group) for group in self.groups()]

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
        """One update at `factor` times every group's peak rate. The first one raises ValueError where `state` would."""
        self.factor = factor
        for optimizer in self.inner:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step()
        if not self._stepped:
            self.state()
        self._stepped = True

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self.inner:
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """The state by `<parameter>/<quantity>`: `cores.main.norm.weight/exp_avg`, `.../exp_avg_sq`, `.../step`; of
        Muon's matrices `.../momentum`. The options of groups that have changed follow as `groups/<number>/<option>`.

        Raises ValueError for state that is neither tensors nor numbers, belongs to no parameter, or is one tensor in
        two places."""
        found: dict[str, Tensor] = {}
        for optimizer in self.inner:
            for parameter, quantities in optimizer.state.items():
                found |= stored(self.names.get(parameter), quantities, optimizer)
        for number, (group, made) in enumerate(zip(self.groups(), self._made, strict=True)):
            changed = {
                name: value for name, value in group.items()
                if name not in FOLLOWS and (isinstance(value, Tensor) or not same(value, made.get(name)))
            }  # fmt: skip
            found |= stored(f"groups/{number}", changed, self)
        seen = {parameter.untyped_storage()._cdata: name for parameter, name in self.names.items()}
        for name, value in found.items():
            if (other := seen.setdefault(value.untyped_storage()._cdata, name)) != name and value.numel():
                raise ValueError(f"training.optimizer: its state {name} shares memory with {other}; {SAVED}")
        return found

    def state_values(self) -> int:
        """How many numbers the state holds once every parameter was updated: AdamW two for each weight, Muon one; one
        for an optimizer of which it is not known."""
        kept = {optimizer: len(getattr(optimizer, "like_parameter", ("unknown",))) for optimizer in self.inner}
        return sum(kept[o] * p.numel() for o in self.inner for group in o.param_groups for p in group["params"])

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` gave; an empty one changes nothing. A parameter that never had a gradient has no state in
        it. Raises ValueError for state of another parameter, or of another shape, type or optimizer."""
        if not state:
            return
        by_name: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for key, value in state.items():
            name, _, quantity = key.rpartition("/")
            by_name[name][quantity] = value
        for number, (group, made) in enumerate(zip(self.groups(), self._made, strict=True)):
            devices = {name: value.device for name, value in made.items() if isinstance(value, Tensor)}
            changed = restored(by_name.pop(f"groups/{number}", {}), devices)
            for name in set(group).difference(FOLLOWS):
                del group[name]
            group.update({name: value for name, value in (made | changed).items() if name not in FOLLOWS})
        if others := sorted(set(by_name).difference(self.names.values())):
            raise ValueError(f"the optimizer's checkpoint has state of {others[0]!r}, which is not trained")
        for optimizer in self.inner:
            fits = getattr(optimizer, "fits", None)
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    name = self.names[parameter]
                    optimizer.state.pop(parameter, None)
                    if name not in by_name:
                        continue
                    if fits and not fits(parameter, by_name[name]):
                        raise ValueError(f"the optimizer's checkpoint has no state for {name} that fits it")
                    devices = dict.fromkeys(by_name[name], parameter.device)
                    if not (group.get("fused") or group.get("capturable")):  # as torch's optimizers have it
                        devices["step"] = CPU
                    optimizer.state[parameter] = restored(by_name[name], devices)


def same(one: Any, other: Any) -> bool:
    """Whether two options of a group, which are no tensors, are one value."""
    return one is other or (type(one) is type(other) and one == other)


CPU = torch.device("cpu")
SAVED = "a checkpoint holds tensors and numbers by parameter, each tensor in one place"


def stored(owner: str | None, quantities: Any, optimizer: object) -> dict[str, Tensor]:
    """The state of the parameter called `owner` as tensors by `<owner>/<quantity>`: 7 as `step` of `a.weight` is
    `{"a.weight/step:int": tensor(7)}`. Raises ValueError where it cannot be."""
    found, known = {}, owner is not None and isinstance(quantities, Mapping)
    for name, value in quantities.items() if known else [("", quantities)]:
        kind = next((kind for kind, (made, _) in NUMBERS.items() if isinstance(value, made)), "")
        if not known or not (kind or isinstance(value, Tensor)) or not {"/", ":"}.isdisjoint(str(name)):
            whose = f"of {owner}" if owner else "of no parameter"
            kept = f"{type(optimizer).__name__} keeps {described(value)} as {str(name)!r} {whose}"
            raise ValueError(f"training.optimizer: {kept}; {SAVED}")
        ending = f":{kind}" if kind else ""
        found[f"{owner}/{name}{ending}"] = torch.tensor(value, dtype=NUMBERS[kind][1]) if kind else value
    return found


def restored(tensors: Mapping[str, Tensor], devices: Mapping[str, torch.device]) -> dict[str, Any]:
    """The quantities that `stored` made tensors of, each tensor copied to its device (the CPU where there is none).
    Raises ValueError for a number that is none."""
    found: dict[str, Any] = {}
    for full, value in tensors.items():
        name, _, kind = full.partition(":")
        if kind and (kind not in NUMBERS or value.numel() != 1):
            raise ValueError(f"the optimizer's checkpoint has no number {full!r}")
        found[name] = NUMBERS[kind][0](value.item()) if kind else value.to(device=devices.get(name, CPU), copy=True)
    return found


class TorchOptimizer(torch.optim.Optimizer):
    """Base of our own torch optimizers. `add_param_group` and `zero_grad` are written again since those of torch import
    torch._dynamo and sympy, which takes a second at every start."""

    like_parameter: ClassVar[tuple[str, ...]]
    """The quantities of its state that have the parameter's shape."""
    counters: ClassVar[tuple[str, ...]] = ()
    """Those that are one number, as a tensor."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take a group: `params`, and options for which the defaults do not hold."""
        self.param_groups.append({**self.defaults, **param_group, "params": list(param_group["params"])})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or, without `set_to_none`, make them zero."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None if set_to_none or parameter.grad is None else torch.zeros_like(parameter.grad)

    def fits(self, parameter: Tensor, quantities: Mapping[str, Tensor]) -> bool:
        """Whether these are the quantities that it keeps for the parameter."""
        return quantities.keys() == {*self.like_parameter, *self.counters} and all(
            (value.is_floating_point() and value.numel() == 1) if name in self.counters
            else (value.shape, value.dtype) == (parameter.shape, parameter.dtype) for name, value in quantities.items()
        )  # fmt: skip


class FusedAdamW(TorchOptimizer):
    """AdamW by torch's fused kernel: the updates of `torch.optim.AdamW(..., fused=True)`, bit for bit."""

    like_parameter, counters = ("exp_avg", "exp_avg_sq"), ("step",)

    def __init__(self, groups: Iterable[dict[str, Any]], betas: tuple[float, float], epsilon: float):
        super().__init__(list(groups), {"betas": betas, "eps": epsilon, "fused": True})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:
        """One update of every parameter that has a gradient; `closure` is ignored."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.device, parameter.dtype].append(parameter)
            for parameters in alike.values():
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for p in parameters:
            if not self.state[p]:
                step = torch.zeros((), dtype=torch.float32, device=p.device)
                self.state[p] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        steps, means, squares = ([self.state[p][name] for p in parameters] for name in ("step", *self.like_parameter))
        torch._foreach_add_(steps, 1)
        (beta1, beta2), gradients = group["betas"], [p.grad for p in parameters]
        torch._fused_adamw_(
            parameters, gradients, means, squares, [], steps, lr=group["lr"], beta1=beta1, beta2=beta2,
            weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=False,
        )  # fmt: skip


def adamw(groups: list[dict], betas: tuple[float, float], epsilon: float) -> FusedAdamW:
    """AdamW over the groups that hold any parameter."""
    return FusedAdamW([group for group in groups if group["params"]], betas, epsilon)


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
    """Muon for the matrices inside the cores (Jordan et al. 2024), AdamW for embeddings, heads, gains and biases, and
    for what has more than two axes.

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
            group = group_of.get(role, "others")
            by_group["others" if group == "matrices" and parameter.dim() != 2 else group].append(parameter)
        of_cores = by_group.pop("matrices", [])
        stacked = [MatrixMomentum(of_cores, learning_rate, momentum, weight_decay, cautious)] if of_cores else []
        groups = [
            {"params": by_group[name], "lr": learning_rate * ratio, "weight_decay": 0.0, "name": name}
            for name, ratio in ratios.items() if name in by_group
        ]  # fmt: skip
        self.hold(*stacked, *([adamw(groups, tuple(betas), 1e-10)] if groups else []))


class MatrixMomentum(TorchOptimizer):
    """Muon's update: Nesterov momentum, made orthogonal by `newton_schulz`, times sqrt(max(1, rows / columns)).

    Matrices of one shape are stacked, so that each Newton-Schulz step is one batched product; the state (`momentum`) is
    per parameter. Reference: Keller Jordan, github.com/KellerJordan/Muon; torch.optim.Muon with
    `adjust_lr_fn="original"` gives the same updates.
    """

    like_parameter = ("momentum",)

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
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
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


def freeze(model: nn.Module, parts: Sequence[str], train_only: Sequence[str] = ()) -> None:
    """Set which parameters are trained: of all, or of those that `train_only` selects, the ones that no part of `parts`
    selects.

    A part is one or more complete components of parameter names: `cores.main.blocks.0`, `attention`, `adapter.down`;
    or a role of `models/initialization.py`: `role:embedding`. Raises ValueError if a part selects no parameter, and if
    no parameter is left to train."""
    selected = {name: select(model, each, name) for name, each in (("freeze", parts), ("train_only", train_only))}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in selected["freeze"] and (not train_only or name in selected["train_only"]))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"training.{'train_only' if train_only else 'freeze'} leaves no parameter to train")


def select(model: nn.Module, parts: Sequence[str], key: str) -> set[str]:
    """The names of the parameters that at least one of the parts selects, see `freeze`. Raises ValueError, with the key
    of the section `training`, for a part that selects none."""
    role_of = {name: role for name, role, _ in roles(model)}
    selected = set()
    for part in parts:
        _, is_role, role = part.rpartition("role:")
        matches = {name for name in role_of if (role_of[name] == role if is_role else f".{part}." in f".{name}.")}
        if not matches:
            possible = dict.fromkeys(".".join(name.split(".")[:2]) for name in role_of)
            components = {".".join(name.split(".")[:end]) for name in role_of for end in range(1, name.count(".") + 2)}
            components |= {component for name in role_of for component in name.split(".")}
            near = difflib.get_close_matches(
                part, sorted(components | {f"role:{each}" for each in role_of.values()}), 1
            )
            raise ValueError(
                f"training.{key}: the model has no part {part!r}; possible: {', '.join(sorted(possible))}, components "
                f"of these, and {', '.join(f'role:{each}' for each in sorted(set(role_of.values())))}"
                + (f"; did you mean {near[0]!r}" if near else "")
            )
        selected |= matches
    return selected
