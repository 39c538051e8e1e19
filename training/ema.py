"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """average = decay * average + (1 - decay) * weights, after every update (Polyak & Juditsky 1992), for the
    parameters that are trained.

    In the first steps the decay is smaller, min(decay, (1 + step) / (10 + step)). Therefore the average soon forgets
    the initial weights (the rule of TensorFlow's `ExponentialMovingAverage`). With `decay=0.999` the effective decay is
    0.1 at step 0 and 0.918 at step 100.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.weights = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.average = {name: parameter.detach().clone() for name, parameter in self.weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Updates the average after an optimizer step. `step` is the number of this step, from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Returns a context in which the model has the averaged weights. At the end of the context the model gets its
        previous weights again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.weights.items():
            weights = parameter.clone()
            parameter.copy_(self.average[name])
            self.average[name].copy_(weights)

    def state(self) -> dict[str, Tensor]:
        """Returns the averages by parameter name."""
        return dict(self.average)

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Loads averages by parameter name (`state`). Raises KeyError if `state` lacks a parameter."""
        for name, average in self.average.items():
            average.copy_(state[name])
