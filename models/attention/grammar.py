"""Attention graphs as text: the small grammar behind `attention:` in a YAML file. Parsed, never evaluated.

    expression = term { "|" term }
    term       = factor { "&" factor }
    factor     = "(" expression ")" | name [ "(" argument { "," argument } ")" ]
    argument   = number | axis | input | source "->" reader

Names: causal, causal(axis), same_sample, same_item, from(input, ...), window(size), window(size, axis),
neighbourhood(radius, axis, ...), edges(source -> reader, ...).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence

from . import graph as g

TOKEN = re.compile(r"\s*(?:(?P<arrow>->)|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<mark>[&|(),]))")
DEEPEST = 100
VALUES = ("causal", "same_sample", "same_item", "from", "window", "neighbourhood", "edges")


def parse_graph(text: str, inputs: Sequence[str], axes: Sequence[str] = ("order",)) -> g.Graph:
    """Read one attention expression.

    `inputs` are the model's named inputs in YAML order (numbered from 1), `axes` the names of the position axes (axis 0
    is `order`). Raises ValueError saying where the text does not parse and what is possible there.
    """
    return _Parser(text, tuple(inputs), tuple(axes)).parse()


class _Parser:
    """A recursive-descent parser: one method per rule of the grammar."""

    def __init__(self, text: str, inputs: tuple[str, ...], axes: tuple[str, ...]):
        self.text, self.inputs, self.axes = text, inputs, axes
        self.tokens, self.index, self.depth = list(self._scan()), 0, 0

    def _scan(self):
        end = 0
        while self.text[end:].strip():
            match = TOKEN.match(self.text, end)
            if not match:
                place = end + len(self.text[end:]) - len(self.text[end:].lstrip())
                raise self._error(place, f"unexpected {self.text[place]!r}")
            yield match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)
            end = match.end()

    def _error(self, place: int, what: str) -> ValueError:
        return ValueError(f"attention {self.text!r}, character {place + 1}: {what}")

    def _peek(self) -> tuple[str, str, int]:
        return self.tokens[self.index] if self.index < len(self.tokens) else ("end", "the end", len(self.text))

    def _take(self, *expected: str) -> str:
        kind, value, place = self._peek()
        if value not in expected and kind not in expected:
            wanted = " or ".join(repr(each) if not each.isalpha() else f"a {each}" for each in expected)
            found = "the expression ends where" if kind == "end" else f"found {value!r} where"
            raise self._error(place, f"{found} {wanted} is expected")
        self.index += 1
        return value

    def parse(self) -> g.Graph:
        found = self._expression()
        if self._peek()[0] != "end":
            raise self._error(self._peek()[2], f"found {self._peek()[1]!r}, expected '&', '|' or the end")
        return found

    def _expression(self) -> g.Graph:
        found = self._term()
        while self._peek()[1] == "|":
            self._take("|")
            found = found | self._term()
        return found

    def _term(self) -> g.Graph:
        found = self._factor()
        while self._peek()[1] == "&":
            self._take("&")
            found = found & self._factor()
        return found

    def _factor(self) -> g.Graph:
        if self._peek()[1] == "(":
            self._take("(")
            self.depth += 1
            if self.depth > DEEPEST:
                raise self._error(self._peek()[2], f"more than {DEEPEST} parentheses inside each other")
            found = self._expression()
            self.depth -= 1
            self._take(")")
            return found
        place = self._peek()[2]
        name = self._take("name")
        if name not in VALUES:
            raise self._error(place, self._unknown("graph", name, VALUES))
        return self._build(name, place)

    def _build(self, name: str, place: int) -> g.Graph:
        arguments = self._arguments()
        makers: dict[str, Callable[[], g.Graph]] = {
            "causal": lambda: g.Causal(*(self._axis(a, place) for a in arguments)),
            "same_sample": lambda: g.SameSample(*arguments),
            "same_item": lambda: g.SameItem(*arguments),
            "from": lambda: g.From(tuple(self._input(a, place) for a in self._some(name, arguments, place))),
            "window": lambda: g.Window(self._number(name, arguments, place), *self._axes(arguments[1:], place)),
            "neighbourhood": lambda: g.Neighbourhood(
                self._number(name, arguments, place), self._axes(self._some(name, arguments[1:], place), place)
            ),
            "edges": lambda: self._edges(self._some(name, arguments, place), place),
        }
        try:
            return makers[name]()
        except TypeError:
            raise self._error(place, f"{name} does not take {len(arguments)} arguments") from None

    def _arguments(self) -> list:
        if self._peek()[1] != "(":
            return []
        self._take("(")
        found = [self._argument()]
        while self._peek()[1] == ",":
            self._take(",")
            found.append(self._argument())
        self._take(")")
        return found

    def _argument(self):
        first = self._take("name", "number")
        if self._peek()[1] != "->":
            return first
        self._take("->")
        return first, self._take("name", "number")

    def _edges(self, arguments: list, place: int) -> g.Edges:
        if not all(isinstance(a, tuple) for a in arguments):
            raise self._error(place, "edges are written source -> reader")
        if all(end.isdecimal() for pair in arguments for end in pair):
            return g.Edges(tuple((int(a), int(b)) for a, b in arguments), "slots")
        return g.Edges(tuple((self._input(a, place), self._input(b, place)) for a, b in arguments))

    def _some(self, name: str, arguments: list, place: int) -> list:
        if not arguments:
            raise self._error(place, f"{name} needs at least one more argument")
        return arguments

    def _number(self, name: str, arguments: list, place: int) -> float:
        try:
            value = float(arguments[0])
        except (IndexError, ValueError, TypeError):
            raise self._error(place, f"{name} needs a number first, as in {name}(3)") from None
        if not 0 < value < math.inf:
            raise self._error(place, f"{name}({arguments[0]}) must be more than 0 and finite")
        return value

    def _axes(self, names: Sequence, place: int) -> tuple[int, ...]:
        return tuple(self._axis(name, place) for name in names)

    def _axis(self, name, place: int) -> int:
        if name not in self.axes:
            raise self._error(place, self._unknown("axis", name, self.axes))
        return self.axes.index(name)

    def _input(self, name, place: int) -> int:
        if name not in self.inputs:
            raise self._error(place, self._unknown("input", name, self.inputs))
        return self.inputs.index(name) + 1

    @staticmethod
    def _unknown(kind: str, name, possible: Sequence[str]) -> str:
        near = difflib.get_close_matches(str(name), possible, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"no {kind} named {name!r}; possible: {', '.join(possible)}{hint}"
