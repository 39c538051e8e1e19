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


def drawing(draw: Callable[[Any], None], size: tuple[float, float], bare: bool = False) -> str:
    """Returns a drawing as the address of an embedded PNG. `draw` draws on matplotlib's Axes; `size` is its width and
    height in inches. `bare`: without axes and margins, so that the drawing fills the picture."""

    def on_figure(figure: Any) -> None:
        canvas = figure.add_axes((0, 0, 1, 1)) if bare else figure.subplots()
        draw(canvas)
        if bare:
            canvas.set_axis_off()
            canvas.margins(x=0)
            canvas.set_aspect("auto")
            if legend := canvas.get_legend():
                legend.remove()

    return f"data:image/png;base64,{base64.b64encode(picture(on_figure, size, bare=bare)).decode()}"


class Line(NamedTuple):
    """A line of a chart: values `y` at `x`, and optionally the half width of a band around it."""

    x: Sequence[float]
    y: Sequence[float]
    band: Sequence[float] = ()


def is_drawn(value: float) -> bool:
    """Whether a value can be drawn on an axis: neither NaN nor infinite, nor so large that the axis is."""
    return abs(value) < 1e300


def chart(
    lines: Mapping[str, Line], colours: Mapping[str, str], horizontal: str, title: str, zero: bool = False
) -> str:
    """Returns a line chart as SVG. `horizontal`: the title of the x axis. `zero`: the y axis begins at 0. Values that
    cannot be drawn (`is_drawn`) are left out; a line below the chart says how many."""
    width, height, left, bottom, right, top = 420, 230, 54, 40, 14, 12
    points = [(x, y) for line in lines.values() for x, y in zip(line.x, line.y) if is_drawn(y)]
    edges = [y + sign * d for line in lines.values() for y, d in zip(line.y, line.band) for sign in (-1, 1)]
    edges = [edge for edge in edges if is_drawn(edge)]
    missing = sum(not is_drawn(y) for line in lines.values() for y in line.y)
    note = f"<br>{missing} values are not finite or too large" if missing else ""
    xs, ys = [x for x, _ in points] or [0.0], [*(y for _, y in points), *edges] or [0.0]
    low, high = min(ys + [0.0] * zero), max(ys)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    heights = round_values(low, high)
    low, high = heights[0], heights[-1]

    def across(x: float) -> float:
        return left + (x - min(xs)) / (max(xs) - min(xs) or 1) * (width - left - right)

    def down(y: float) -> float:
        return top + (high - y) / (high - low) * (height - bottom - top)

    grid = "".join(
        f"<path class=axis d='M{left} {down(mark):.1f}H{width - right}'/>"
        f"<text text-anchor=end x={left - 6} y={down(mark) + 4:.1f}>{text}</text>"
        for mark, text in zip(heights, short_numbers(heights))
    )
    marks = sorted({*xs}) if len({*xs}) <= 5 else round_values(min(xs), max(xs))
    marks = [mark for mark in marks if min(xs) <= mark <= max(xs)]
    steps = "".join(
        f"<text text-anchor=middle x={across(mark):.1f} y={height - bottom + 16}>{mark:,.4g}</text>" for mark in marks
    )
    drawn = "".join(line_svg(line, colours[name], across, down) for name, line in lines.items())
    names = "".join(f"<span class=dot style='--tint:{colours[name]}'></span>{escaped(name)} " for name in lines)
    label = f"<text text-anchor=middle x={(left + width - right) / 2} y={height - 6}>{escaped(horizontal)}</text>"
    return (
        f"<figure><b>{escaped(title)}</b><svg viewBox='0 0 {width} {height}' style='width:100%;max-width:{width}px;"
        f"display:block' role=img aria-label='{escaped(title)} by {escaped(horizontal)}'>{grid}{steps}{label}{drawn}"
        f"</svg><figcaption>{names if len(lines) > 1 else ''}{note}</figcaption></figure>"
    )


def round_values(low: float, high: float) -> list[float]:
    """Returns about five round values, for the marks of an axis. The first one is at most `low`, the last one at least
    `high`."""
    from matplotlib.ticker import MaxNLocator

    return [float(value) for value in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def short_numbers(values: Sequence[float]) -> list[str]:
    """Returns numbers as texts, with as few digits as make them different: `0.9975` and `0.998`, not `0.998` twice."""
    for digits in range(3, 17):
        texts = [f"{value:.{digits}g}" for value in values]
        if len({*texts}) == len(values):
            break
    return texts


def line_svg(line: Line, colour: str, across: Callable[[float], float], down: Callable[[float], float]) -> str:
    """Returns a line with its band as SVG. `across` and `down` map values to the coordinates of the picture."""
    known = [(x, y, d) for x, y, d in zip(line.x, line.y, line.band or [0.0] * len(line.y)) if is_drawn(y)]
    known = [(x, y, d if is_drawn(d) else 0.0) for x, y, d in known]
    path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y, _ in known)
    band = ""
    if line.band:
        upper = [f"{across(x):.1f},{down(y + d):.1f}" for x, y, d in known]
        lower = [f"{across(x):.1f},{down(y - d):.1f}" for x, y, d in reversed(known)]
        band = f"<polygon points='{' '.join(upper + lower)}' fill='{colour}' opacity=.2 />"
    return f"{band}<polyline fill=none stroke='{colour}' stroke-width=2.2 points='{path}'/>"
