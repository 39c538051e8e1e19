"""An animated picture of what a model does with a sample: its inputs are chopped into tokens, the tokens are mixed into
one set, the model attends to them, and predicts. The file is an SVG without scripts. It follows light and dark mode,
and shows its last state if the reader prefers reduced motion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..files.pictures import COLOURS
from .document import escaped
from .explorer import Explorer, ShownSet, colour_of
from .tracing import Trace

WIDTH, MARGIN = 880, 20
PANEL, TOP = 120, 64
"""The height of the inputs before they are chopped, and the space above them."""
DURATION = 14
PROMPT, MOST_STEPS = 24, 40
"""The largest number of tokens of a text that are shown as a prompt, and of predicted tokens."""
LINES = 14
"""The largest number of lines from a predicted token to the tokens that it attends to."""
PARTS = {"chop": (0.06, 0.24), "mix": (0.24, 0.42), "read": (0.42, 0.82), "answer": (0.82, 0.98)}
"""The parts of the animation, and when they begin and end as a share of its duration."""


@dataclass(frozen=True)
class Step:
    """A token that the model predicts: its text, its slot in the set of the decoder or of the only core, and the
    weights with which it attends to the tokens that the picture shows."""

    text: str
    slot: int | None
    """The number of the shown token at which it is predicted; None: the whole set is read."""
    weights: Float[Tensor, "k"]


@dataclass(frozen=True)
class Box:
    """The place of a token: its left and upper edge, width and height."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """The x coordinate of the middle."""
        return self.x + self.width / 2


def animated(explorer: Explorer, trace: Trace, task: str, answer: str, prompt: int = PROMPT) -> str:
    """Returns the picture as SVG. `answer`: what the task predicts, as a text; `trace`: of the sample of `explorer`.
    `prompt`: the number of tokens that are read before the first prediction, if the set has no other input than the
    predicted text."""
    shown = explorer.sets[0]  # the encoder, or the only set
    target, names = trace.tasks[task].target, list(trace.model.inputs)
    owners = shown.plan.tokens.input[0].tolist()
    generated = names.index(target) + 1 if target in names and trace.tasks[task].needs.generates else None
    sources = [number for number, group in enumerate(shown.groups) if owners[group[0]] != generated]
    if not sources:  # a language model of one text: its beginning is the prompt
        sources = list(range(min(prompt, len(shown.groups) - 1)))
    steps = steps_of(shown, trace, task, answer, sources)
    boxes, height = grid_of_boxes(len(sources) + (len(steps) if generated else 0))
    panels, pictures, pieces = drawn_inputs(explorer.set_data(shown), sources, boxes)
    colour = colour_of(generated) if generated else 6
    ends = boxes[len(sources) :] if generated else []
    reading = "".join(read(step, number, len(steps), boxes, ends, colour, height) for number, step in enumerate(steps))
    read_as = f"{len(sources)} tokens, which the model reads as one set; its answer is {answer}."
    description = f"{', '.join(panel['name'] for panel in panels)}: {read_as}"
    return scene(description, answer, height + 92, len(steps), "".join(pictures), "".join(pieces) + reading)


def drawn_inputs(
    data: Mapping[str, Any], sources: Sequence[int], boxes: Sequence[Box]
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Returns (panels, SVG definitions of their pictures, SVG of the pictures, names and moving pieces) of the inputs
    whose tokens are read. `sources` are the groups that are read, `boxes` their places in the set."""
    panels = [
        {**panel, "slots": slots} for panel in data["inputs"] if (slots := [n for n in panel["slots"] if n in sources])
    ]
    pictures, pieces = [], []
    for number, (panel, place) in enumerate(zip(panels, panel_boxes(panels))):
        pictures.append(defined(panel, number))
        if "picture" in panel:
            pieces.append(
                f"<svg class='faint' x='{place.x:.1f}' y='{place.y}' width='{place.width:.1f}' height='{PANEL}' "
                f"viewBox='0 0 {panel['columns'] * 100} {panel['rows'] * 100}' preserveAspectRatio='none'>"
                f"<use href='#p{number}'/></svg>"
            )
        pieces += [
            piece(panel, place, index, data["tokens"][slot]["text"], boxes[sources.index(slot)], number)
            for index, slot in enumerate(panel["slots"])
        ]
        pieces.append(f"<text class='soft' x='{place.middle:.0f}' y='{TOP - 16}'>{escaped(panel['name'])}</text>")
    return panels, pictures, pieces


def scene(description: str, answer: str, height: float, steps: int, pictures: str, moving: str) -> str:
    """Returns the complete SVG. `pictures` are its definitions, `moving` the content between headings and answer."""
    style = "\n".join([STYLE, *(f".c{n}{{--tint:{tint}}}" for n, tint in enumerate(COLOURS)), *keyframes(steps)])
    end = answer if len(answer) <= 80 else f"{answer[:79]}…"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height:.0f}' width='{WIDTH}' "
        f"height='{height:.0f}' role='img'><title>What the model does with a sample</title>"
        f"<desc>{escaped(description)}</desc>"
        f"<style>{style}</style><defs>{pictures}</defs>"
        f"<rect class='page' width='{WIDTH}' height='{height:.0f}' rx='8'/>{headings()}"
        f"<g class='scene'>{moving}"
        f"<text class='final' style='font-size:{min(26, 1.6 * WIDTH / len(end)):.0f}px' x='{WIDTH / 2}' "
        f"y='{height - 22:.0f}'>{escaped(end)}</text></g></svg>"
    )


# ------------------------------------------------------------------------------------------------ what is predicted


def steps_of(shown: ShownSet, trace: Trace, task: str, answer: str, sources: Sequence[int]) -> list[Step]:
    """Returns the tokens that the task predicts, in order. A task that does not generate tokens has one step."""
    is_decoded, rollout = trace.batch.encoder is not None, trace.main.rollout()
    if is_decoded:
        crossed = torch.stack([weights.mean(0) for weights in trace.main.cross]).mean(0)

    def weights_of(row: Tensor) -> Tensor:
        return torch.stack([row[list(shown.groups[number])].sum() for number in sources])

    predicted = trace.predicted_tokens(task)
    if not predicted:
        core = trace.cores["encoder" if trace.batch.targets[task].of_encoder else "main"]
        every = core.rollout()[[slot for group in shown.groups for slot in group]].mean(0)
        return [Step(answer, None, weights_of(every))]
    if not is_decoded:
        last = max(shown.groups[number][-1] for number in sources)
        predicted = [(slot, text) for slot, text in predicted if slot >= last] or predicted[-1:]
    rows = crossed if is_decoded else rollout
    return [Step(text, slot, weights_of(rows[slot])) for slot, text in predicted[:MOST_STEPS]]


# --------------------------------------------------------------------------------------------------------- the places


def grid_of_boxes(count: int) -> tuple[list[Box], float]:
    """Returns the boxes of `count` tokens of the set in rows, and the lower edge of the last row."""
    per_row = max(min(count, 42), 12)
    side = min((WIDTH - 2 * MARGIN) / per_row, 34)
    left, first = (WIDTH - side * min(count, per_row)) / 2, TOP + PANEL + 76
    boxes = [
        Box(left + side * (number % per_row), first + (side + 6) * (number // per_row), side - 3, side - 3)
        for number in range(count)
    ]
    return boxes, first + (side + 6) * math.ceil(count / per_row)


def panel_boxes(panels: Sequence[dict]) -> list[Box]:
    """Returns the boxes of the inputs before they are chopped, next to each other."""
    sizes = []
    for panel in panels:
        if "picture" in panel:
            sizes.append(panel["width"] / panel["height"] * PANEL)
        else:
            sizes.append(26.0 * max(len(panel["slots"]), 2))
    room, gap = WIDTH - 2 * MARGIN, 44
    scale = min(1.0, (room - gap * (len(sizes) - 1)) / sum(sizes))
    left = (WIDTH - scale * sum(sizes) - gap * (len(sizes) - 1)) / 2
    boxes = []
    for size in sizes:
        boxes.append(Box(left, TOP, size * scale, PANEL))
        left += size * scale + gap
    return boxes


def shift_of(place: Box, box: Box) -> tuple[float, float]:
    """Returns how far a piece moves when its input is chopped: away from the middle of the input."""
    return 0.16 * (box.middle - place.middle), 0.16 * (box.y + box.height / 2 - place.y - place.height / 2)


# ---------------------------------------------------------------------------------------------------------- the drawing


def defined(panel: dict, number: int) -> str:
    """Returns the picture of an input, to be used by its pieces."""
    if "picture" not in panel:
        return ""
    width, height = panel["columns"] * 100, panel["rows"] * 100
    size = f"width='{width}' height='{height}' preserveAspectRatio='none'"
    return f"<image id='p{number}' class='{panel['style']}' {size} href='{panel['picture']}'/>"


def piece(panel: dict, place: Box, index: int, text: str, end: Box, number: int) -> str:
    """Returns a token that moves from its place in the input to its place `end` in the set."""
    if "picture" in panel:
        row, column = panel["places"][index]
        width, height = place.width / panel["columns"], place.height / panel["rows"]
        start = Box(place.x + (column - 1) * width, place.y + (row - 1) * height, width, height)
        inner = (
            f"<svg width='{width:.1f}' height='{height:.1f}' viewBox='{(column - 1) * 100} {(row - 1) * 100} 100 100' "
            f"preserveAspectRatio='none'><use href='#p{number}'/></svg>"
        )
    else:
        width = height = min(26.0, place.width / len(panel["slots"]))
        left = place.middle - width * len(panel["slots"]) / 2
        start = Box(left + index * width, place.y + (place.height - height) / 2, width, height)
        inner = f"<rect class='blank' width='{width:.1f}' height='{height:.1f}'/>{label(text, width, height)}"
    (dx, dy), sx, sy = shift_of(place, start), end.width / start.width, end.height / start.height
    moves = (
        f"--a:{start.x:.1f}px,{start.y:.1f}px;--b:{start.x + dx:.1f}px,{start.y + dy:.1f}px;"
        f"--c:{end.x:.1f}px,{end.y:.1f}px;--s:{sx:.3f},{sy:.3f}"
    )
    return (
        f"<g class='piece c{panel['colour']}' style='{moves}'>{inner}"
        f"<rect class='frame' width='{start.width:.1f}' height='{start.height:.1f}'/></g>"
    )


def label(text: str, width: float, height: float) -> str:
    """Returns a text in the middle of a box; a long one is smaller."""
    size = min(height * 0.62, 1.5 * width / max(len(text), 1))
    place = f"x='{width / 2:.1f}' y='{height / 2 + size * 0.35:.1f}'"
    return f"<text style='font-size:{size:.1f}px' {place}>{escaped(text)}</text>"


def read(
    step: Step, number: int, count: int, boxes: Sequence[Box], ends: Sequence[Box], colour: int, bottom: float
) -> str:
    """Returns the lines from a predicted token to what it attends to, and the token itself."""
    end = ends[number] if ends else Box(WIDTH / 2, bottom + 12, 0, 0)
    strongest = step.weights.argsort(descending=True)[:LINES].tolist()
    highest = max(float(step.weights.max()), 1e-9)
    lines = []
    for token in strongest:
        share = float(step.weights[token]) / highest
        box = boxes[token]
        if share < 0.05:
            continue
        rise = 18 + 0.1 * abs(end.middle - box.middle)
        top = min(box.y, end.y) - rise if ends else box.y
        lines.append(
            f"<path d='M{end.middle:.1f},{end.y:.1f} C{end.middle:.1f},{top:.1f} {box.middle:.1f},{top:.1f} "
            f"{box.middle:.1f},{box.y if ends else box.y + box.height:.1f}' "
            f"style='stroke-width:{0.6 + 2.4 * share:.2f};opacity:{0.25 + 0.75 * share:.2f}'/>"
        )
    written = (
        f"<g class='written w{number} c{colour}' transform='translate({end.x:.1f} {end.y:.1f})'>"
        f"<rect class='blank' width='{end.width:.1f}' height='{end.height:.1f}'/>"
        f"{label(step.text, end.width, end.height)}"
        f"<rect class='frame solid' width='{end.width:.1f}' height='{end.height:.1f}'/></g>"
    ) if ends else ""  # fmt: skip
    return f"<g class='lines l{number}'>{''.join(lines)}</g>{written}"


def headings() -> str:
    """Returns the names of the parts in a line at the top."""
    texts = []
    for number, name in enumerate(PARTS):
        x = WIDTH / 2 + (number - 1.5) * 110
        texts.append(f"<text class='part part-{name}' x='{x:.0f}' y='28'>{name}</text>")
    return "".join(texts)


STYLE = f"""svg{{--page:#fff;--ink:#1c2127;--soft:#5b6570;--blank:#eef1f4;--line:#d55e00}}
@media (prefers-color-scheme:dark){{svg{{--page:#14181d;--ink:#e6e9ec;--soft:#a2acb6;--blank:#2a323a;--line:#f0a04b}}
.plot{{filter:invert(1) hue-rotate(180deg)}}}}
text{{font:15px system-ui,sans-serif;fill:var(--ink);text-anchor:middle;white-space:pre}}
.page{{fill:var(--page)}}.soft{{fill:var(--soft);font-size:13px}}.blank{{fill:var(--blank)}}.faint{{opacity:.22}}
.frame{{fill:none;stroke:var(--tint);stroke-width:2.5;vector-effect:non-scaling-stroke}}
.part{{fill:var(--soft);font-size:17px}}.final{{font-weight:600}}
.lines path{{fill:none;stroke:var(--line);stroke-linecap:round}}
.piece{{transform:translate(var(--c)) scale(var(--s))}}.lines{{opacity:0}}
@media (prefers-reduced-motion:no-preference){{
.piece{{animation:move {DURATION}s infinite ease-in-out}}.piece .frame{{animation:frame {DURATION}s infinite}}
.final{{animation:final {DURATION}s infinite}}.scene{{animation:scene {DURATION}s infinite}}
}}"""


def keyframes(steps: int) -> list[str]:
    """Returns the animations: of the pieces, of the names of the parts, and of each predicted token."""
    chop, mix, reading, final = ([100 * edge for edge in PARTS[name]] for name in PARTS)
    whole, apart, mixed = (f"transform:translate(var(--{name}))" for name in "abc")
    mixed += " scale(var(--s))"
    rules = [
        rule("move", {0: whole, chop[0]: whole, chop[0] + 6: apart, mix[0]: apart, mix[1] - 3: mixed, 100: mixed}),
        rule("frame", appearing(chop[0] + 6, mix[1] - 3)),
        rule("final", appearing(final[0], final[0] + 2)),
        rule("scene", {0: "opacity:0", 2: "opacity:1", 98: "opacity:1", 100: "opacity:0"}),
    ]
    moving = []
    for name, (begin, end) in PARTS.items():
        idle, active = "fill:var(--soft)", "fill:var(--line)"
        rules.append(rule(f"part-{name}", {0: idle, 100 * begin: idle, 100 * begin + 0.5: active,
                                           100 * end - 0.5: active, 100 * end: idle, 100: idle}))  # fmt: skip
        moving.append(f".part-{name}{{animation:part-{name} {DURATION}s infinite}}")
    length = (reading[1] - reading[0]) / max(steps, 1)
    for number in range(steps):
        begin = reading[0] + number * length
        rules.append(rule(f"w{number}", appearing(begin + 0.5 * length, begin + 0.65 * length)))
        rules.append(rule(f"l{number}", {
            **appearing(begin, begin + 0.2 * length), begin + 0.9 * length: "opacity:1", begin + length: "opacity:0",
            100: "opacity:0",
        }))  # fmt: skip
        moving += [f".{kind}{number}{{animation:{kind}{number} {DURATION}s infinite}}" for kind in "lw"]
    return [*rules, "@media (prefers-reduced-motion:no-preference){" + "".join(moving) + "}"]


def appearing(begin: float, end: float) -> dict[float, str]:
    """Returns the states of something that appears between two times, in percent."""
    return {0: "opacity:0", begin: "opacity:0", end: "opacity:1", 100: "opacity:1"}


def rule(name: str, states: Mapping[float, str]) -> str:
    """Returns an animation as CSS: the state at each time, in percent of the duration."""
    return f"@keyframes {name}{{{''.join(f'{at:g}%{{{state}}}' for at, state in sorted(states.items()))}}}"
