"""Optimizers: AdamW for all parameters, or Muon for the matrices of the cores and AdamW for the rest.

Every trained parameter is in exactly one group, which depends on the role of the parameter
(`models/initialization.py`). `Optimizer.hold` asserts that there is exactly one.
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
"""The types of Python numbers in the state of an optimizer: maps the name of a type in a checkpoint to the Python type
and the dtype that stores it. A checkpoint stores the number 7 with the name `step` as the tensor `step:int`."""
NOT_STORED = ("params", "lr")
"""The options of a parameter group that a checkpoint does not store: the parameters, and the learning rate, which
follows from the step."""


class Optimizer:
    """Base class. An optimizer consists of one or more torch optimizers, and every trained parameter of the model
    belongs to exactly one of them.

    `learning_rate` (`training.learning_rate`) is the peak learning rate of the main parameter group. At every step, the
    peak rates of all groups are multiplied by the factor of the schedule. A subclass creates its torch optimizers in
    `__init__` (optimizers of `torch.optim`, or user-defined ones) and passes them to `hold`. A resumed run continues
    from the stored state, which must consist of tensors and numbers: the torch optimizer's `state` of each parameter,
    and the options of its groups.

        class Momentum(chopmix.Optimizer):
            def __init__(self, model, learning_rate, *, momentum: float = 0.9):
                super().__init__(model, learning_rate)
                self.hold(torch.optim.SGD(list(self.names), lr=learning_rate, momentum=momentum))
    """

    default_rate: ClassVar[float] = 1e-3
    """The learning rate of the main group if `training.learning_rate` is null."""
    main: ClassVar[str] = "all"
    """The name of the main group."""

    def __init__(self, model: nn.Module, learning_rate: float):
        self.learning_rate, self.factor = learning_rate, 1.0
        self.inner: list[torch.optim.Optimizer] = []
        self.names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
        """Maps every trained parameter to its name."""
        self._initial_options: list[dict[str, Any]] = []
        """The initial options of each group."""
        self._stepped = False

    def hold(self, *inner: torch.optim.Optimizer) -> None:
        """Sets the torch optimizers; the first group of the first optimizer is the main group. The option `name` of a
        group is its name in tables and metrics. Raises AssertionError if the groups do not contain every trained
        parameter exactly once, or contain a parameter that is not trained."""
        self.inner = list(inner)
        held = [p for group in self.groups() for p in group["params"]]
        assert len(held) == len(set(held)), "a parameter is in two optimizer groups"
        missing = [self.names[p] for p in set(self.names) - set(held)]
        assert set(held) == set(self.names), f"parameters without an optimizer: {missing}"
        for group in self.groups():
            group["peak"] = group["lr"]
        self._initial_options = [dict(group) for group in self.groups()]

    def groups(self) -> list[dict]:
        """Returns the parameter groups of all torch optimizers, in order."""
        return [group for optimizer in self.inner for group in optimizer.param_groups]

    def rates(self) -> dict[str, tuple[float, int]]:
        """Maps the name of each group to (current learning rate, number of values of its parameters); groups with the
        same name are added. The main group is first: `{"matrices": (0.02, 196608), "heads": (0.005, 16384)}`."""
        rates: dict[str, tuple[float, int]] = {}
        for group in self.groups():
            name = group.get("name", "all")
            count = sum(p.numel() for p in group["params"])
            rates[name] = group["lr"], count + rates.get(name, (0.0, 0))[1]
        return rates

    def figures(self) -> dict[str, float]:
        """Returns the current learning rates by metric name: `train/learning_rate` for the main group, and for example
        `train/learning_rate/heads` for the group `heads`."""
        others = {f"train/learning_rate/{name}": rate for name, (rate, _) in self.rates().items() if name != self.main}
        return {"train/learning_rate": self.learning_rate * self.factor} | others

    def step(self, factor: float) -> None:
        """Makes one update of all parameters. The learning rate of each group is `factor` times its peak rate. After
        the first update, raises ValueError if the state cannot be stored (see `state`)."""
        self.factor = factor
        for optimizer in self.inner:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step()
        if not self._stepped:
            self.state()
        self._stepped = True

    def zero_grad(self) -> None:
        """Sets the gradients of all parameters to None."""
        for optimizer in self.inner:
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Returns the state as tensors. The keys are `<parameter>/<quantity>`: `cores.main.norm.weight/exp_avg`,
        `.../exp_avg_sq` and `.../step` for AdamW, `.../momentum` for Muon. An option of a parameter group has the key
        `groups/<number>/<option>`; it is included if it is a tensor or differs from its initial value. The learning
        rate is not included.

        Raises ValueError if a value is neither a tensor nor a number, belongs to no trained parameter, has a name with
        "/" or ":", or shares memory with a parameter or another value."""
        state: dict[str, Tensor] = {}
        for optimizer in self.inner:
            for parameter, quantities in optimizer.state.items():
                state |= to_tensors(self.names.get(parameter), quantities, optimizer)
        for number, (group, initial) in enumerate(zip(self.groups(), self._initial_options, strict=True)):
            changed = {
                name: value for name, value in group.items()
                if name not in NOT_STORED and (isinstance(value, Tensor) or not same(value, initial.get(name)))
            }  # fmt: skip
            state |= to_tensors(f"groups/{number}", changed, self)
        owners = {parameter.untyped_storage()._cdata: name for parameter, name in self.names.items()}
        for name, value in state.items():
            if (other := owners.setdefault(value.untyped_storage()._cdata, name)) != name and value.numel():
                raise ValueError(f"training.optimizer: its state {name} shares memory with {other}; {STORABLE}")
        return state

    def state_values(self) -> int:
        """Returns the number of values in the state after all parameters are updated: two per weight for AdamW, one per
        weight for Muon. For other optimizers the number is unknown; one per weight is assumed."""
        per_weight = {optimizer: len(getattr(optimizer, "like_parameter", ("unknown",))) for optimizer in self.inner}
        return sum(per_weight[o] * p.numel() for o in self.inner for group in o.param_groups for p in group["params"])

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Loads a state that `state` returned. An empty state changes nothing. A parameter without an entry (it never
        had a gradient) gets no state. Raises ValueError if an entry belongs to a parameter that is not trained. For
        AdamW and Muon, also raises it if the names, shapes or dtypes of the entries of a parameter are not those of
        this optimizer."""
        if not state:
            return
        by_name: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for key, value in state.items():
            name, _, quantity = key.rpartition("/")
            by_name[name][quantity] = value
        for number, (group, initial) in enumerate(zip(self.groups(), self._initial_options, strict=True)):
            devices = {name: value.device for name, value in initial.items() if isinstance(value, Tensor)}
            changed = from_tensors(by_name.pop(f"groups/{number}", {}), devices)
            for name in set(group).difference(NOT_STORED):
                del group[name]
            group.update({name: value for name, value in (initial | changed).items() if name not in NOT_STORED})
        if untrained := sorted(set(by_name).difference(self.names.values())):
            raise ValueError(f"the optimizer's checkpoint has state of {untrained[0]!r}, which is not trained")
        for optimizer in self.inner:
            fits = getattr(optimizer, "fits", None)
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    name = self.names[parameter]
                    optimizer.state.pop(parameter, None)
                    if name not in by_name:
                        continue
                    if fits and not fits(parameter, by_name[name]):
                        raise ValueError(f"the optimizer's checkpoint has no matching state for {name}")
                    devices = dict.fromkeys(by_name[name], parameter.device)
                    if not (group.get("fused") or group.get("capturable")):  # torch's optimizers keep `step` on the CPU
                        devices["step"] = CPU
                    optimizer.state[parameter] = from_tensors(by_name[name], devices)


def same(left: Any, right: Any) -> bool:
    """Returns whether two options of a group, which are not tensors, have the same type and value."""
    return left is right or (type(left) is type(right) and left == right)


CPU = torch.device("cpu")
STORABLE = "a checkpoint stores tensors and numbers by parameter, each tensor once"


def to_tensors(owner: str | None, quantities: Any, optimizer: object) -> dict[str, Tensor]:
    """Returns the state of one parameter as tensors, with keys `<owner>/<quantity>`. `owner` is the name of the
    parameter or group; None: unknown. `quantities` maps names to tensors and numbers. Example: the number 7 as `step`
    of `a.weight` becomes `{"a.weight/step:int": tensor(7)}`. Raises ValueError if `owner` is None, `quantities` is not
    a mapping, a value is neither a tensor nor a number, or a name contains "/" or ":"."""
    tensors, has_names = {}, owner is not None and isinstance(quantities, Mapping)
    for name, value in quantities.items() if has_names else [("", quantities)]:
        kind = next((kind for kind, (number, _) in NUMBERS.items() if isinstance(value, number)), "")
        if not has_names or not (kind or isinstance(value, Tensor)) or not {"/", ":"}.isdisjoint(str(name)):
            where = f"of {owner}" if owner else "of no parameter"
            problem = f"{type(optimizer).__name__} has {described(value)} as {str(name)!r} {where}"
            raise ValueError(f"training.optimizer: {problem}; {STORABLE}")
        ending = f":{kind}" if kind else ""
        tensors[f"{owner}/{name}{ending}"] = torch.tensor(value, dtype=NUMBERS[kind][1]) if kind else value
    return tensors


def from_tensors(tensors: Mapping[str, Tensor], devices: Mapping[str, torch.device]) -> dict[str, Any]:
    """The inverse of `to_tensors`: returns tensors and numbers by the name of the quantity. `tensors` has keys without
    the owner, such as `step:int`. `devices` maps a name to the device to which the tensor is copied (default: the CPU).
    Raises ValueError if a number has an unknown type or more than one value."""
    quantities: dict[str, Any] = {}
    for key, value in tensors.items():
        name, _, kind = key.partition(":")
        if kind and (kind not in NUMBERS or value.numel() != 1):
            raise ValueError(f"the optimizer's checkpoint has no number {key!r}")
        quantities[name] = NUMBERS[kind][0](value.item()) if kind else value.to(devices.get(name, CPU), copy=True)
    return quantities


class TorchOptimizer(torch.optim.Optimizer):
    """Base class of the torch optimizers of chopmix. It replaces `add_param_group` and `zero_grad`, because torch's own
    methods import torch._dynamo and sympy, which takes a second at every start."""

    like_parameter: ClassVar[tuple[str, ...]]
    """The names of the quantities in the state of a parameter that have the shape of the parameter."""
    counters: ClassVar[tuple[str, ...]] = ()
    """The names of the quantities in the state of a parameter that are a tensor with a single number."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a parameter group: a mapping with `params`, and with the options that differ from the defaults."""
        self.param_groups.append({**self.defaults, **param_group, "params": list(param_group["params"])})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Sets all gradients to None, or to zero if `set_to_none` is false."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None if set_to_none or parameter.grad is None else torch.zeros_like(parameter.grad)

    def fits(self, parameter: Tensor, quantities: Mapping[str, Tensor]) -> bool:
        """Returns whether `quantities`, the stored state tensors of `parameter` by name, have the names, shapes and
        dtypes that this optimizer expects. Counters can have any floating-point dtype."""
        return quantities.keys() == {*self.like_parameter, *self.counters} and all(
            (value.is_floating_point() and value.numel() == 1) if name in self.counters
            else (value.shape, value.dtype) == (parameter.shape, parameter.dtype) for name, value in quantities.items()
        )  # fmt: skip


class FusedAdamW(TorchOptimizer):
    """AdamW with torch's fused kernel. The updates equal those of `torch.optim.AdamW(..., fused=True)` bit for bit."""

    like_parameter, counters = ("exp_avg", "exp_avg_sq"), ("step",)

    def __init__(self, groups: Iterable[dict[str, Any]], betas: tuple[float, float], epsilon: float):
        super().__init__(list(groups), {"betas": betas, "eps": epsilon, "fused": True})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:
        """Update every parameter that has a gradient. `closure` is ignored."""
        for group in self.param_groups:
            by_type = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_type[parameter.device, parameter.dtype].append(parameter)
            for parameters in by_type.values():
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
    """Returns a `FusedAdamW` with those of the groups that contain at least one parameter."""
    return FusedAdamW([group for group in groups if group["params"]], betas, epsilon)


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101), fused.

    `betas` and `epsilon` are the options of Adam. `weight_decay` applies to parameters with two or more axes (matrices
    and embeddings), but not to gains and biases; nanoGPT does the same. `layer_decay` is for fine-tuning (Clark et al.
    2020, arXiv:2003.10555): from the heads down to the embeddings, each layer has the learning rate of the layer above
    it, times `layer_decay`. With 0.75 and 2 blocks, the heads have the full rate, the upper block 0.75, the lower block
    0.5625 and the embeddings 0.421875 of it. 1: all layers have the same rate.
    """

    def __init__(
        self, model: nn.Module, learning_rate: float, *, betas: tuple[Share, Share] = (0.9, 0.95),
        weight_decay: Weight = 0.1, epsilon: Positive = 1e-8, layer_decay: Positive = 1.0,
    ):  # fmt: skip
        super().__init__(model, learning_rate)
        groups: dict[tuple[int, bool], dict] = {}
        for parameter, name in self.names.items():
            key = depth_below_heads(model, name) if layer_decay != 1 else 0, parameter.dim() >= 2
            options = {"lr": learning_rate * layer_decay ** key[0], "weight_decay": weight_decay if key[1] else 0.0}
            options["name"] = f"{key[0]}_below_the_heads" if key[0] else self.main
            groups.setdefault(key, {"params": [], **options})["params"].append(parameter)
        self.hold(adamw([groups[key] for key in sorted(groups, key=lambda k: (k[0], not k[1]))], tuple(betas), epsilon))


def depth_below_heads(model: nn.Module, name: str) -> int:
    """Returns the number of layers between the parameter `name` and the heads: 0 for heads and for the final norms of
    cores; `depth` - i for block i (from 0) of a core, where `depth` is the number of blocks of the deepest core; and
    `depth` + 1 for all other parameters, such as embeddings."""
    owner, *rest = name.split(".")  # cores.main.blocks.0..., cores.main.norm...
    if owner == "heads" or (owner == "cores" and rest[1] == "norm"):
        return 0
    depth = max(len(core.blocks) for core in model.cores.values())
    return depth - int(rest[2]) if owner == "cores" and rest[1] == "blocks" else depth + 1


class Muon(Optimizer):
    """Muon for the matrices inside the cores: momentum whose singular values are made nearly equal (Jordan et al.
    2024); AdamW for embeddings, output heads, gains, biases and parameters with more than two axes.

    The learning rate of the matrices is `training.learning_rate` (0.02 if it is null). It is multiplied by a factor for
    all other parameters: `embeddings` for embedding tables, `heads` for the matrices of output heads, and `others` for
    the rest (matrices that embed raw input, gains, biases). `momentum` is the momentum of Muon, `betas` are the betas
    of AdamW. At each step, `weight_decay` times the learning rate is the share by which the matrices are decreased.
    With `cautious`, `weight_decay` only applies to the weights that the update does not move away from zero (Chen et
    al. 2025, arXiv:2510.12402). Raises ValueError if a factor is below 0.
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
                f"embeddings, heads and others are ratios of the learning rate; they must be 0 or more, not "
                f"{embeddings}, {heads}, {others}"
            )
        group_of = {"matrix": "matrices", "projection": "matrices", "embedding": "embeddings", "head": "heads"}
        ratios = {"embeddings": embeddings, "heads": heads, "others": others}
        by_group = defaultdict(list)
        for _, role, parameter in roles(model):
            if parameter.requires_grad:
                group = group_of.get(role, "others")
                by_group["others" if group == "matrices" and parameter.dim() != 2 else group].append(parameter)
        matrices = by_group.pop("matrices", [])
        muon = [MatrixMomentum(matrices, learning_rate, momentum, weight_decay, cautious)] if matrices else []
        groups = [
            {"params": by_group[name], "lr": learning_rate * ratio, "weight_decay": 0.0, "name": name}
            for name, ratio in ratios.items() if name in by_group
        ]  # fmt: skip
        self.hold(*muon, *([adamw(groups, tuple(betas), 1e-10)] if groups else []))


class MatrixMomentum(TorchOptimizer):
    """Muon's update: Nesterov momentum, orthogonalised by `newton_schulz`, times sqrt(max(1, rows / columns)).

    Matrices of equal shape are stacked, so each Newton-Schulz step is one batched product. The state of each parameter
    is `momentum`. Reference: Keller Jordan, github.com/KellerJordan/Muon; torch.optim.Muon with
    `adjust_lr_fn="original"` makes the same updates.
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
        """Update every matrix that has a gradient. `closure` is ignored."""
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
        nesterov = torch._foreach_lerp(gradients, momenta, group["momentum"])
        rows, columns = parameters[0].shape
        updates = newton_schulz(torch.stack(nesterov)).to(parameters[0].dtype) * max(1, rows / columns) ** 0.5
        if group["weight_decay"]:
            weights = torch.stack(parameters)
            decay = weights * (updates * weights >= 0) if group["cautious"] else weights
            updates = updates + decay * group["weight_decay"]
        torch._foreach_add_(parameters, list(updates.unbind()), alpha=-group["lr"])


def newton_schulz(matrices: Tensor, steps: int = 5) -> Tensor:
    """Returns approximately orthogonal matrices (k, rows, columns): they have the singular vectors of `matrices`, and
    singular values near 1.

    Uses the quintic iteration and the coefficients of Jordan et al. 2024. On a GPU and on a CPU with bfloat16
    instructions (there it is 2.9 times faster), the iteration is computed in bfloat16, else in float32.
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
    """Sets `requires_grad` of all parameters. A parameter is trained if `train_only` is empty or selects it, and if
    `parts` does not select it.

    Each string in `parts` and `train_only` is one or more components of a parameter's name, separated by dots, such as
    `cores.main.blocks.0`, `attention` or `adapter.down`; or a role of `models/initialization.py`, such as
    `role:embedding`. Raises ValueError if a string selects no parameter, or if no parameter is left to train."""
    if not parts and not train_only:
        model.requires_grad_(True)
        return
    selected = {"freeze": select(model, parts, "freeze"), "train_only": select(model, train_only, "train_only")}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in selected["freeze"] and (not train_only or name in selected["train_only"]))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"training.{'train_only' if train_only else 'freeze'} leaves no parameter to train")


def select(model: nn.Module, parts: Sequence[str], key: str) -> set[str]:
    """Returns the names of the parameters that at least one string in `parts` selects (see `freeze`). Raises ValueError
    if a string selects no parameter. `key` is the YAML key in the section `training` that the message names."""
    role_of = {name: role for name, role, _ in roles(model)}
    selected = set()
    for part in parts:
        _, is_role, wanted = part.rpartition("role:")
        matches = {name for name in role_of if (role_of[name] == wanted if is_role else f".{part}." in f".{name}.")}
        if not matches:
            possible = dict.fromkeys(".".join(name.split(".")[:2]) for name in role_of)
            components = {".".join(name.split(".")[:end]) for name in role_of for end in range(1, name.count(".") + 2)}
            components |= {component for name in role_of for component in name.split(".")}
            role_parts = sorted({f"role:{role}" for role in role_of.values()})
            near = difflib.get_close_matches(part, sorted({*components, *role_parts}), 1)
            raise ValueError(
                f"training.{key}: the model has no part {part!r}; possible: {', '.join(sorted(possible))}, components "
                f"of these, and {', '.join(role_parts)}" + (f"; did you mean {near[0]!r}" if near else "")
            )
        selected |= matches
    return selected
