"""A trained model with frozen weights inside another model."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .batch import SetPlan
from .model import Model


class Frozen(nn.Module):
    """Maps a set to the output vectors of the first core of a trained model. The trained model moves between devices
    with this module and stays in evaluation mode. The weights of the trained model are not parameters of this module:
    optimizers, weight averages and checkpoints do not contain them."""

    def __init__(self, model: Model):
        super().__init__()
        self._model = (model.eval().requires_grad_(False),)  # in a tuple, so that it is not registered as a submodule

    @property
    def model(self) -> Model:
        """The trained model."""
        return self._model[0]

    def plan(self, planned: SetPlan, *, dtype: torch.dtype, device: torch.device | str) -> SetPlan:
        """Returns the set with an attention layout for every layer of the trained model's first core."""
        return self.model.plan_first(planned, dtype=dtype, device=device)

    @torch.no_grad()
    def forward(self, planned: SetPlan) -> Float[Tensor, "b n d"]:
        return self.model.read_first(planned)

    def _apply(self, fn, recurse=True):
        self.model._apply(fn, recurse)
        return super()._apply(fn, recurse)
