"""Text as a picture."""

from __future__ import annotations

import textwrap

import torch
from jaxtyping import UInt8
from torch import Tensor

COLUMNS, ROWS = 64, 40
"""Letters in a line, and lines, of a picture at most."""
SIZE = 14
"""The height of letters, in pixels."""


def lettered(text: str) -> UInt8[Tensor, "c h w"]:
    """A text in dark letters on white; `░`, which stands for what is not known yet, in grey. All texts of one number of
    lines give pictures of one size."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    lines = [part for line in text.splitlines() or [""] for part in textwrap.wrap(line, COLUMNS, **KEPT) or [""]][:ROWS]
    font = ImageFont.load_default(SIZE)
    across, down = font.getlength("n") + 1, SIZE + 4
    picture = Image.new("RGB", (int(COLUMNS * across) + 16, ROWS * down + 16), "white")
    pen = ImageDraw.Draw(picture)
    for row, line in enumerate(lines):
        for column, letter in enumerate(line):
            place = (8 + column * across, 8 + row * down)
            if letter == "░":
                pen.rectangle([place[0], place[1] + 2, place[0] + across - 2, place[1] + SIZE], fill="#ccc")
            else:
                pen.text(place, letter, fill="#222", font=font)
    height = 16 + max(len(lines), 1) * down
    return torch.from_numpy(np.array(picture)[:height]).permute(2, 0, 1).contiguous()


KEPT = {"drop_whitespace": False, "replace_whitespace": False, "break_long_words": True, "break_on_hyphens": False}
"""How a line is wrapped: nothing of it is lost."""
