"""The dtype in which a model computes, and a check that its outputs are finite."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NOT_FINITE = "the model's outputs are NaN or infinite: its weights are damaged, or too large for their dtype"


def finite(outputs: Tensor) -> Tensor:
    """Returns the outputs unchanged. Raises ValueError if one of them is NaN or infinite."""
    if not outputs.isfinite().all():
        raise ValueError(NOT_FINITE)
    return outputs


def computing_type(model: nn.Module) -> torch.dtype:
    """Returns the current dtype of the model's matrix products: the dtype of autocast if autocast is enabled on the
    model's device, else the dtype of the model's first parameter. Layouts are planned for this dtype, and caches store
    keys and values in it."""
    weight = next(model.parameters())
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
