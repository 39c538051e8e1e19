"""A running average of the weights, and reading with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """average = decay * average + (1 - decay) * weights, after every update (Polyak & Juditsky 1992).

    In the first steps the decay is smaller, min(decay, (1 + step) / (10 + step)), so that the average forgets the
    start.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.weights = dict(model.named_parameters())
        self.average = {name: parameter.detach().clone() for name, parameter in self.weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights of update number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model holds the averages; after it, its own weights again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.weights.items():
            kept = parameter.clone()
            parameter.copy_(self.average[name])
            self.average[name].copy_(kept)

    def state(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return dict(self.average)

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Take saved averages."""
        for name, average in self.average.items():
            average.copy_(state[name])
