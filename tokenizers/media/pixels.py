"""Normalisation and drawing of patches of pixels, shared by the tokenizers of images and video."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...files.pictures import COLOURS
from ...files.reading import shown


class Normalized(nn.Module):
    """Maps patches of pixels (t, p) with values from 0 to 255 to (value / 255 - mean) / std, per channel.

    A row holds p = frames * channels * area values: first all `area` pixels of the first channel of the first frame,
    then the next channel, and after all channels the next frame. `mean` and `std` are one number or a list of one
    number per channel. Raises ValueError if a list has another length than 1 or `channels`, or if a std is not more
    than 0.
    """

    def __init__(self, mean: float | list[float], std: float | list[float], channels: int, area: int, frames: int = 1):
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            values = value if isinstance(value, list) else [value]
            if len(values) not in (1, channels):
                numbers = f"one number, or one for each of {channels} channels"
                raise ValueError(f"{name} must be {numbers}, not {shown(value)}")
            if name == "std" and min(values) <= 0:
                raise ValueError(f"std must be more than 0, not {shown(value)}")
            row = torch.tensor(values).expand(channels).repeat_interleave(area).repeat(frames)
            self.register_buffer(name, row, persistent=False)

    def forward(self, rows: Tensor) -> Float[Tensor, "t p"]:
        return (rows.to(self.mean.dtype) / 255 - self.mean) / self.std


def draw_patches(canvas: Any, picture: Tensor, patch_size: int, frame: int = 0) -> None:
    """Draws an image (height, width, channels) and the grid of its patches on matplotlib's Axes `canvas`. `frame` is
    the width in pixels of one frame if the image consists of frames side by side: a bold line is drawn between
    frames."""
    canvas.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=255)
    height, width = picture.shape[:2]
    for line in range(0, height + 1, patch_size):
        canvas.axhline(line - 0.5, color=COLOURS[6], linewidth=0.7)
    for line in range(0, width + 1, patch_size):
        canvas.axvline(line - 0.5, color=COLOURS[6], linewidth=2.0 if frame and line % frame == 0 else 0.7)
    canvas.set(xticks=[], yticks=[])
