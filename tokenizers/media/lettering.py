"""Rendering of text as an image."""

from __future__ import annotations

import textwrap

import torch
from jaxtyping import UInt8
from torch import Tensor

LETTER_COLUMNS, LETTER_ROWS = 64, 40
"""The largest number of characters in a line, and the largest number of lines in an image; further lines are
dropped."""
SIZE = 14
"""The font size in pixels."""


def lettered(text: str) -> UInt8[Tensor, "c h w"]:
    """Returns an image of a text in dark letters on white. The character `░`, which stands for an unknown token, is
    drawn as a grey box. Texts with equal numbers of lines give images of equal size."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    lines = [
        part for line in text.splitlines() or [""] for part in textwrap.wrap(line, LETTER_COLUMNS, **KEPT) or [""]
    ][:LETTER_ROWS]
    font = ImageFont.load_default(SIZE)
    across, down = font.getlength("n") + 1, SIZE + 4
    picture = Image.new("RGB", (int(LETTER_COLUMNS * across) + 16, LETTER_ROWS * down + 16), "white")
    pen = ImageDraw.Draw(picture)
    for row, line in enumerate(lines):
        for column, letter in enumerate(line):
            x, y = 8 + column * across, 8 + row * down
            if letter == "░":
                pen.rectangle([x, y + 2, x + across - 2, y + SIZE], fill="#ccc")
            else:
                pen.text((x, y), letter, fill="#222", font=font)
    height = 16 + max(len(lines), 1) * down
    return torch.from_numpy(np.array(picture)[:height]).permute(2, 0, 1).contiguous()


KEPT = {"drop_whitespace": False, "replace_whitespace": False, "break_long_words": True, "break_on_hyphens": False}
"""Options of `textwrap` with which no character of a line is lost."""
