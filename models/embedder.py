"""The half of a tokenizer that has parameters."""

from __future__ import annotations

import torch
from torch import nn

from .batch import Chunks


class Embedder(nn.Module):
    """Base of embedders that plan something of their own: chunks of one input to one vector a token, (t, d)."""

    def plan(self, chunks: Chunks, *, dtype: torch.dtype, device: torch.device | str) -> Chunks:
        """The chunks with what the forward pass needs planned on the CPU, before anything is moved or compiled."""
        return chunks
