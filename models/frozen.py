"""A trained model inside another model, with its weights frozen."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .batch import SetPlan
from .model import Model


class Frozen(nn.Module):
    """The output of a trained model's first core, as features of a set. The model moves with this module, but its
    weights are not among this module's parameters: no optimizer, average or checkpoint sees them, and it stays in
    evaluation mode."""

    def __init__(self, model: Model):
        super().__init__()
        self._held = (model.eval().requires_grad_(False),)  # in a tuple, so that it is not registered as a submodule

    @property
    def model(self) -> Model:
        """The trained model."""
        return self._held[0]

    def plan(self, planned: SetPlan, *, dtype: torch.dtype, device: torch.device | str) -> SetPlan:
        """The set with an attention layout for every layer of the model's first core."""
        return self.model.plan_first(planned, dtype=dtype, device=device)

    @torch.no_grad()
    def forward(self, planned: SetPlan) -> Float[Tensor, "b n d"]:
        return self.model.read_first(planned)

    def _apply(self, fn, recurse=True):
        self.model._apply(fn, recurse)
        return super()._apply(fn, recurse)
