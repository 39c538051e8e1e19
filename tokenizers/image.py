"""Images: square patches, cut by one einops pattern, become tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ..models.batch import Pieces
from .chopper import Chopper, Piece


@dataclass(frozen=True, kw_only=True)
class ImageChopper(Chopper):
    """An image (c, height, width) in [0, 1] to patches of `patch_size` pixels a side, left to right, top to bottom."""

    axes: ClassVar[tuple[str, ...]] = ("row", "column")
    patch_size: int = 16
    channels: int = 3

    def count(self, item: Float[Tensor, "c height width"]) -> int:
        height, width = item.shape[-2:]
        return (height // self.patch_size) * (width // self.patch_size)

    def chop(self, item: Float[Tensor, "c height width"]) -> Piece:
        """Raises ValueError when the patches do not tile the image."""
        size, (c, height, width) = self.patch_size, item.shape
        if height % size or width % size or c != self.channels:
            raise ValueError(f"an image of {tuple(item.shape)} does not divide into {self.channels} x {size} x {size}")
        patches = rearrange(item, "c (row p) (column q) -> (row column) (c p q)", p=size, q=size)
        rows, columns = height // size, width // size
        return Piece(patches * 2 - 1, torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float())


class ImageTokenizer(nn.Module):
    """Patches to vectors: one linear map, plus a learned embedding of the patch's number in its image."""

    Chopper = ImageChopper

    def __init__(self, chopper: ImageChopper, width: int, context: int):
        super().__init__()
        self.embedding = nn.Linear(chopper.channels * chopper.patch_size**2, width)
        self.position = nn.Embedding(context, width)

    def forward(self, pieces: Pieces) -> Float[Tensor, "t d"]:
        return self.embedding(pieces.values) + self.position(pieces.index)
