"""In which numbers a model computes, and whether those that it gives are any."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NOT_FINITE = "the model's outputs are no finite numbers: its weights are damaged, or too large for their arithmetic"


def finite(outputs: Tensor) -> Tensor:
    """The outputs themselves. Raises ValueError where one is NaN or infinite: nothing can be read off these."""
    if not outputs.isfinite().all():
        raise ValueError(NOT_FINITE)
    return outputs


def computing_type(model: nn.Module) -> torch.dtype:
    """The dtype of the model's matrix products at present: that of its weights, or of autocast where this is on.
    Layouts are planned for it, and caches hold it."""
    weight = next(model.parameters())
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
