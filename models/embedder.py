"""`Embedder`: the half of a tokenizer that has parameters and turns chunks into vectors."""

from __future__ import annotations

import torch
from torch import nn

from .batch import Chunks


class Embedder(nn.Module):
    """Base of embedders (chunks of one input to one vector per token, (t, d)) that plan something on the CPU first. Any
    other module with the same `forward(chunks)` may be an embedder too."""

    def plan(self, chunks: Chunks, *, dtype: torch.dtype, device: torch.device | str) -> Chunks:
        """The chunks with whatever `forward` needs planned, on the CPU, before they are moved or compiled code runs;
        `dtype` and `device` are those of the forward pass."""
        return chunks
