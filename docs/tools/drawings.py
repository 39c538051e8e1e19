"""The pictures of the documentation, a Sphinx extension: ```` ```{mask} EXPRESSION ```` draws the mask of an attention
expression, ```` ```{picture} NAME ```` a picture of `pictures.py`. They are SVG inside the page, so their colours
follow light and dark mode."""

from __future__ import annotations

from html import escape
from pathlib import Path

import torch
from chopmix.models.attention.grammar import parse_graph
from chopmix.models.attention.mask import dense_mask
from chopmix.models.tokens import Tokens
from docutils import nodes
from docutils.parsers.rst import Directive
from pictures import PICTURES
from reference import write_reference

CELL = 15
NAN = float("nan")
TOKENS = [
    (sample, owner, place, text)
    for sample, side, words in (("A", 3, "abcd"), ("B", 2, "xyz"))
    for owner, items in (
        ("image", [((row, column), "▪") for row in range(side) for column in range(side)]),
        ("text", [((NAN, NAN), word) for word in words]),
    )
    for place, text in items
]
"""The tokens of a mask: (sample, input, (row, column), text)."""


def example_tokens() -> Tokens:
    """Returns the tokens of two samples in one row. Each has an image, of 3 x 3 or 2 x 2 patches, and a
    text of 4 or 3 tokens."""
    position = torch.tensor([[number, *place] for number, (_, _, place, _) in enumerate(TOKENS)], dtype=torch.float32)
    items = {
        key: number for number, key in enumerate(dict.fromkeys((sample, owner) for sample, owner, *_ in TOKENS), 1)
    }
    return Tokens(
        input=torch.tensor([[1 if owner == "image" else 2 for _, owner, *_ in TOKENS]]),
        sample=torch.tensor([[" AB".index(sample) for sample, *_ in TOKENS]]),
        item=torch.tensor([[items[sample, owner] for sample, owner, *_ in TOKENS]]),
        position=position[None],
    )


def mask_svg(expression: str) -> str:
    """Returns the mask of an expression: a row for each token that attends, a column for each token it attends to."""
    graph = parse_graph(expression, inputs=("image", "text"), axes=("order", "row", "column"))
    tokens, n = example_tokens(), len(TOKENS)
    mask = dense_mask(graph, tokens, tokens)[0].tolist()
    left = top = 34
    side = left + n * CELL + 6
    marks = "".join(
        f"<text x='{left + (i + 0.5) * CELL}' y='{top - 6}' class='c{1 + (owner == 'text')}'>{escape(text[:2])}</text>"
        f"<text x='{left - 10}' y='{top + (i + 0.72) * CELL}' class='c{1 + (owner == 'text')}'>"
        f"{escape(text[:2])}</text>"
        for i, (_, owner, _, text) in enumerate(TOKENS)
    )
    cells = "".join(
        f"<rect x='{left + j * CELL}' y='{top + i * CELL}' width='{CELL - 2}' height='{CELL - 2}' "
        f"class='{'on' if mask[i][j] else 'off'}'/>"
        for i in range(n) for j in range(n)
    )  # fmt: skip
    border = next(i for i, (sample, *_) in enumerate(TOKENS) if sample == "B") * CELL
    lines = f"<path class='border' d='M{left + border - 1},{top - 20}V{side} M{left - 22},{top + border - 1}H{side}'/>"
    samples = (
        f"<text x='{left + border / 2}' y='11'>sample A</text>"
        f"<text x='{(left + border + side) / 2}' y='11'>sample B</text>"
    )
    return (
        f"<figure class='drawing'><svg viewBox='0 0 {side} {side}' style='max-width:{side}px' role='img' "
        f"aria-label='mask of {escape(expression)}'>{samples}{marks}{cells}{lines}</svg>"
        f"<figcaption><code>{escape(expression)}</code>: the token of a row attends to "
        f"the coloured columns</figcaption></figure>"
    )


class Mask(Directive):
    """Draws the mask of the expression in the first line."""

    required_arguments, optional_arguments, final_argument_whitespace, has_content = 1, 0, True, False

    def run(self) -> list[nodes.Node]:
        try:
            return [nodes.raw("", mask_svg(self.arguments[0]), format="html")]
        except ValueError as error:
            raise self.error(str(error)) from error


class Picture(Directive):
    """Draws a picture of `PICTURES`."""

    required_arguments, has_content = 1, False

    def run(self) -> list[nodes.Node]:
        if (draw := PICTURES.get(self.arguments[0])) is None:
            raise self.error(f"no picture {self.arguments[0]!r}; possible: {', '.join(PICTURES)}")
        return [nodes.raw("", draw(), format="html")]


def setup(app):
    """Register the directives. The pages of the reference are written before Sphinx reads the sources."""
    app.add_directive("mask", Mask)
    app.add_directive("picture", Picture)
    app.connect("builder-inited", lambda app: write_reference(Path(app.srcdir) / "reference"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
