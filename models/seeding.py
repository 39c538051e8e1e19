"""The seed of torch's default generators, from which dropout and transforms of torchvision draw."""

from __future__ import annotations

import torch


def seed_torch(seed: int, device: torch.device) -> None:
    """Seeds the generators that operations on `device` use. For the CPU only its own generator is seeded, since
    `torch.manual_seed` formats a stack trace at every call until a GPU is used (0.3 ms or more, if torch was built for
    CUDA)."""
    generator = torch.default_generator if device.type == "cpu" else torch
    generator.manual_seed(seed)
