"""HTML pages that need no other files: one style for light and dark mode, wide and narrow screens, and the scripts of
`web/`. A page can load nothing from other hosts."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files.pictures import picture
from ..files.printing import printable

WEB = Path(__file__).parent / "web"
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src {script}"
"""The content security policy of a page: everything that it shows is inside the page, and a browser executes only the
script with this hash."""


@cache
def asset(name: str) -> str:
    """Returns the text of a file in `web/`."""
    return (WEB / name).read_text(encoding="utf-8")


def escaped(value: Any) -> str:
    """Returns a value as text that a page shows as it is."""
    return html.escape(printable(str(value)))


def in_code(text: str) -> str:
    """Returns a text of a page in which words between backticks are shown as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escaped(text))


def document(title: str, body: Iterable[str], script: str = "") -> str:
    """Returns an HTML page. `body` contains HTML; `script` is the name of a file in `web/`, or empty."""
    digest = base64.b64encode(hashlib.sha256(asset(script).encode()).digest()).decode() if script else ""
    policy = POLICY.format(script=f"'sha256-{digest}'" if script else "'none'")
    head = (
        "<meta charset=utf-8><meta name=viewport content='width=device-width, initial-scale=1'>"
        f'<meta http-equiv=Content-Security-Policy content="{policy}">'
    )
    end = f"<script>{asset(script)}</script>" if script else ""
    return (
        f"<!doctype html><html lang=en><head>{head}<title>{escaped(title)}</title><style>{asset('style.css')}</style>"
        f"</head><body><h1>{escaped(title)}</h1>{''.join(body)}{end}</body></html>"
    )


def section(title: str, *parts: str, anchor: str = "") -> str:
    """Returns a part of a page with a heading. `anchor`: the name to which links lead."""
    name = f" id='{anchor}'" if anchor else ""
    return f"<section{name}><h2>{escaped(title)}</h2>{''.join(parts)}</section>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", numbers: int = 0) -> str:
    """Returns a table that scrolls on narrow screens. Cells contain HTML; the last `numbers` columns are aligned to the
    right. Without a `head` there is no header row."""

    def line(cells: Sequence[str], kind: str) -> str:
        first = len(cells) - numbers
        return "".join(
            f"<{kind}{' class=number' * (index >= first)}>{cell}</{kind}>" for index, cell in enumerate(cells)
        )

    title = f"<caption>{escaped(caption)}</caption>" if caption else ""
    top = f"<tr>{line([escaped(cell) for cell in head], 'th')}</tr>" if any(head) else ""
    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<div class=scroll><table>{title}{top}{body}</table></div>"


def bars(values: Mapping[str, float], unit: str, colours: Mapping[str, str], digits: int = 2) -> str:
    """Returns a table with a bar for each value. `colours`: the colour of each name. Bars of negative values are
    pale."""
    highest = max([*map(abs, values.values()), 1e-9])
    rows = [
        [
            f"<span class=dot style='--tint:{colours[name]}'></span>{escaped(name)}",
            f"<span class='bar{' negative' * (value < 0)}' style='width:{abs(value) / highest * 12:.2f}rem;"
            f"background:{colours[name]}'></span> {round(value, digits) + 0.0:.{digits}f}",
        ]
        for name, value in values.items()
    ]
    return table(["input", unit], rows)


def drawing(draw: Callable[[Any], None], size: tuple[float, float], kind: str = "png", bare: bool = False) -> str:
    """Returns a drawing as the address of an embedded picture of a `kind`, png or svg. `draw` draws on matplotlib's
    Axes; `size` is its width and height in inches. `bare`: without axes and margins, so that the drawing fills the
    picture."""

    def on_figure(figure: Any) -> None:
        canvas = figure.add_axes((0, 0, 1, 1)) if bare else figure.subplots()
        draw(canvas)
        if bare:
            canvas.set_axis_off()
            canvas.margins(x=0)
            canvas.set_aspect("auto")
            if legend := canvas.get_legend():
                legend.remove()

    content = base64.b64encode(picture(on_figure, size, kind, bare)).decode()
    return f"data:image/{kind.replace('svg', 'svg+xml')};base64,{content}"


class Line(NamedTuple):
    """A line of a chart: values `y` at `x`, and optionally the half width of a band around it."""

    x: Sequence[float]
    y: Sequence[float]
    band: Sequence[float] = ()


def is_drawn(value: float) -> bool:
    """Whether a value can be drawn on an axis: neither NaN nor infinite, nor so large that the axis is."""
    return abs(value) < 1e300


def draw_line(canvas: Any, line: Line, colour: str, **style: Any) -> None:
    """Draws a line with its band on matplotlib's Axes. Values that cannot be drawn are left out, so that the values
    before and after them are connected. `style`: options of `Axes.plot`."""
    kept = [number for number, value in enumerate(line.y) if is_drawn(value)]
    x, y = (np.array([values[number] for number in kept]) for values in (line.x, line.y))
    style = {"linewidth": 1.8, "marker": "o" if len(y) == 1 else None, "markersize": 5} | style
    canvas.plot(x, y, color=colour, **style)
    if line.band:
        band = np.array([line.band[number] if is_drawn(line.band[number]) else 0.0 for number in kept])
        canvas.fill_between(x, y - band, y + band, color=colour, alpha=0.2, linewidth=0)


def chart(
    lines: Mapping[str, Line], colours: Mapping[str, str], horizontal: str, title: str, zero: bool = False
) -> str:
    """Returns a line chart. `horizontal`: the title of the x axis. `zero`: the y axis contains 0. Values that cannot
    be drawn (`is_drawn`) are left out; a line below the chart says how many."""

    def draw(canvas: Any) -> None:
        for name, line in lines.items():
            draw_line(canvas, line, colours[name])
        canvas.set_xlabel(horizontal)
        canvas.locator_params(axis="x", nbins=6, integer=True)  # steps or layers
        canvas.grid(axis="y")
        if zero:
            canvas.axhline(0, linewidth=0)

    missing = sum(not is_drawn(y) for line in lines.values() for y in line.y)
    note = f"<br>{missing} values are not finite or too large" if missing else ""
    names = "".join(f"<span class=dot style='--tint:{colours[name]}'></span>{escaped(name)} " for name in lines)
    return (
        f"<figure><b>{escaped(title)}</b><br><img class=plot src='{drawing(draw, (4.2, 2.3), 'svg')}' "
        f"alt='{escaped(title)} by {escaped(horizontal)}'><figcaption>{names if len(lines) > 1 else ''}{note}"
        "</figcaption></figure>"
    )
