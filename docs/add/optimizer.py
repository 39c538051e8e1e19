"""An optimizer: Lion (Chen et al. 2023, arXiv:2302.06675) updates by the sign of a momentum.

training: {optimizer: {use: optimizer:Lion, betas: [0.9, 0.99]}, learning_rate: 3e-4}
"""

import torch
from chopmix import Optimizer


class Signs(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                parameter.sub_(momentum.lerp(parameter.grad, 1 - first).sign(), alpha=group["lr"])
                momentum.lerp_(parameter.grad, 1 - second)


class Lion(Optimizer):
    default_rate = 3e-4

    def __init__(self, model, learning_rate, *, betas: tuple[float, float] = (0.9, 0.99)):
        super().__init__(model, learning_rate)
        self.hold(Signs(list(self.names), {"lr": learning_rate, "betas": tuple(betas)}))
