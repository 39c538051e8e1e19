"""Confusion matrices as pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..tokenizers.files.printing import printable
from ..tokenizers.files.writing import write_bytes

WRITTEN, NAMED = 40, 100
"""Up to so many classes a confusion matrix shows the counts, or the classes' names; its size grows up to NAMED."""


LETTERS = 40
"""Letters of a class's name that are drawn."""


def draw_confusion(counts: Tensor, classes: Sequence, file: Path) -> None:
    """Write a confusion matrix of n classes as a picture: rows are true classes, columns predicted ones, colours shares
    of the row. `counts` has n * n entries, row by row."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    n = len(classes)
    matrix = counts.reshape(n, n).cpu()
    shares = matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    with rc_context({"text.parse_math": False}):  # a name may have a $ in it
        names = [printable(str(name)) for name in classes[:NAMED]]
        names = [name if len(name) <= LETTERS else f"{name[: LETTERS - 3]}..." for name in names]
        side = 1.5 + 0.45 * min(n, NAMED) + 0.08 * max(map(len, names), default=0)
        figure = Figure(figsize=(side, side), layout="constrained")
        canvas = figure.subplots()
        canvas.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        canvas.set(xlabel="said", ylabel="true")
        for row, column in matrix.nonzero().tolist() if n <= WRITTEN else ():
            color = "white" if shares[row, column] > 0.5 else "black"
            canvas.text(column, row, int(matrix[row, column]), ha="center", va="center", color=color)
        if n <= NAMED:
            canvas.set_xticks(range(n), names, rotation=90)
            canvas.set_yticks(range(n), names)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=110)
    write_bytes(file, content.getvalue(), within=file.parent)
