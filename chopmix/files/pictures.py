"""The style of all pictures that chopmix draws with matplotlib, and the pictures as bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

COLOURS = (
    "#8a8f98", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b0a000",
    "#882255", "#117733", "#ddcc77", "#7b68c8",
)  # fmt: skip
"""Colours of inputs: number 0 is for core tokens. People with colour blindness can distinguish the first eight (Okabe &
Ito 2008)."""
LINES = (*COLOURS[1:], COLOURS[0])
"""The colours of the lines of a picture, in their order."""
STYLE = {
    "text.parse_math": False,  # a `$` in a name does not begin a formula
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#5b6570", "axes.labelcolor": "#1c2127",
    "xtick.color": "#5b6570", "ytick.color": "#5b6570", "font.size": 9, "axes.titlesize": 10, "legend.fontsize": 8,
    "legend.frameon": False, "grid.color": "#d5dae0", "grid.linewidth": 0.7, "axes.axisbelow": True,
    "image.cmap": "Blues", "axes.formatter.useoffset": False, "svg.hashsalt": "chopmix", "svg.fonttype": "none",
}  # fmt: skip


def picture(draw: Callable[[Any], None], size: tuple[float, float], kind: str = "png", bare: bool = False) -> bytes:
    """Returns a picture. `draw` draws on matplotlib's Figure; `size`: width and height in inches; `kind`: png, pdf or
    svg; `bare`: without margins."""
    from cycler import cycler
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with rc_context(STYLE | {"axes.prop_cycle": cycler(color=LINES)}):
        figure = Figure(figsize=size, layout=None if bare else "constrained")
        draw(figure)
        with warnings.catch_warnings():  # about letters that the font lacks, and labels without room
            warnings.filterwarnings("ignore", category=UserWarning)
            figure.savefig(content, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()


def panels(canvas: Any, count: int, height: float = 1.0) -> list[Any]:
    """Returns `count` of matplotlib's Axes below each other, with a common horizontal axis, in the place of the Axes
    `canvas`. The picture becomes higher if a panel would have less than `height` inches."""
    if count == 1:
        return [canvas]
    canvas.set_axis_off()
    canvas.figure.set_figheight(max(canvas.figure.get_figheight(), 0.5 + height * count))
    grid = canvas.get_subplotspec().subgridspec(count, 1)
    first = canvas.figure.add_subplot(grid[0])
    others = [canvas.figure.add_subplot(grid[number], sharex=first) for number in range(1, count)]
    for panel in [first, *others[:-1]]:
        panel.tick_params(labelbottom=False)
    return [first, *others]
