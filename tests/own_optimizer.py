"""Optimizers that a user defines outside the package: some are correct, others are wrong."""

from collections import defaultdict

import torch
from chopmix import Optimizer


class LionSteps(torch.optim.Optimizer):
    """Lion (Chen et al. 2023, arXiv:2302.06675): the sign of a momentum. It counts its steps as a plain number, and
    stores the largest norm of a gradient in its group."""

    def __init__(self, parameters, rate, betas=(0.9, 0.99)):
        super().__init__(parameters, {"lr": rate, "betas": betas, "largest": 0.0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            (one, two), every = group["betas"], [p for p in group["params"] if p.grad is not None]
            norms = [float(p.grad.norm()) for p in every]
            group["largest"] = max([group["largest"], *norms])
            for p in every:
                state = self.state[p]
                state.setdefault("momentum", torch.zeros_like(p))
                state["step"] = state.get("step", 0) + 1
                update = state["momentum"].lerp(p.grad, 1 - one).sign()
                rate = group["lr"] / state["step"] ** 0.25 / (1 + group["largest"])
                p.sub_(update, alpha=rate)
                state["momentum"].lerp_(p.grad, 1 - two)


class Lion(Optimizer):
    default_rate = 1e-2

    def __init__(self, model, learning_rate):
        super().__init__(model, learning_rate)
        self.hold(LionSteps(list(self.names), learning_rate))


class Momentum(Optimizer):
    """Stochastic gradient descent with momentum, in two groups."""

    def __init__(self, model, learning_rate, *, momentum: float = 0.9):
        super().__init__(model, learning_rate)
        groups = defaultdict(list)
        for parameter in self.names:
            groups["all" if parameter.dim() > 1 else "vectors"].append(parameter)
        rates = {"all": learning_rate, "vectors": learning_rate / 2}
        named = [{"params": groups[name], "lr": rate, "name": name} for name, rate in rates.items() if groups[name]]
        self.hold(torch.optim.SGD(named, momentum=momentum))


class Wrapped(Optimizer):
    """Any optimizer of torch."""

    def __init__(self, model, learning_rate, *, kind: str = "NAdam"):
        super().__init__(model, learning_rate)
        self.hold(getattr(torch.optim, kind)(list(self.names), lr=learning_rate))


class Listing(LionSteps):
    """Wrong: its state contains lists."""

    def step(self, closure=None):
        super().step()
        for state in self.state.values():
            state["past"] = [0.5]


class Shared(LionSteps):
    """Wrong: one tensor for all parameters."""

    def step(self, closure=None):
        super().step()
        for state in self.state.values():
            state["count"] = self.count

    count = torch.zeros(1)


class Loose(LionSteps):
    """Wrong: its state belongs to no parameter."""

    def step(self, closure=None):
        super().step()
        self.state["all"] = {"steps": 1}


class Scheduled(LionSteps):
    """Wrong: it changes an option that is neither a tensor nor a number."""

    def step(self, closure=None):
        super().step()
        self.param_groups[0]["betas"] = (0.8, 0.9)


class Wrong(Optimizer):
    """An optimizer whose state cannot be saved."""

    def __init__(self, model, learning_rate, *, kind: str):
        super().__init__(model, learning_rate)
        self.hold({"Listing": Listing, "Shared": Shared, "Loose": Loose, "Scheduled": Scheduled}[kind](self.names, 0.1))
