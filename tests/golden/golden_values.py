"""Initial values by role and name, and the digests by which golden runs are compared."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from chopmix.models.initialization import Initialization, roles
from torch import Tensor, nn


def name_of_before(name: str) -> str:
    """The name that a parameter had when the golden runs were recorded."""
    return name


class FirstValues(Initialization):
    """The values of each parameter are random numbers seeded by its name, with a size that depends on its role."""

    def __call__(self, model: nn.Module) -> None:
        with torch.no_grad():
            for name, role, parameter in roles(model):
                parameter.copy_(first_values(name_of_before(name), role, parameter.shape))


def first_values(name: str, role: str, shape: torch.Size) -> Tensor:
    """Normal values: with a deviation of fan_in^-½ for matrices, near one for factors, small for terms that are
    added."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    values = torch.from_numpy(np.random.default_rng(seed).standard_normal(tuple(shape), dtype=np.float32))
    if role in ("gain", "scale"):
        return 1 + 0.1 * values
    if role in ("bias", "embedding"):
        return 0.1 * values
    return values / math.sqrt(values[0].numel())


def digest(tensor: Tensor) -> str:
    """A few letters that differ if a single bit differs."""
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()[:12]
