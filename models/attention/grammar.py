"""Attention graphs as text: the small grammar of `attention:` in a YAML file. Parsed, never evaluated as Python.

    expression = term { "|" term }
    term       = factor { "&" factor }
    factor     = "!" factor | "(" expression ")" | name [ "(" argument { "," argument } ")" ]
    argument   = number | axis | input | source "->" reader

Names: causal, causal(axis), same_sample, same_item, from(input, ...), window(size), window(size, axis), on(axis),
edges(source -> reader, ...); those of the files in `models/graphs/`, such as neighbourhood(radius, axis, ...); and
package.module:Class for a user-defined graph. Arguments are the fields of the class in order. `!` binds tightest, then
`&`, then `|`.

    causal & same_sample
    same_sample & (causal | from(image))
    causal & !window(4)
"""

from __future__ import annotations

import difflib
import importlib
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from ...files.plugins import modules_of
from ..tokens import plain_tokens
from . import graph as g
from .mask import dense_mask

REFERENCE = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
TOKEN = re.compile(
    rf"\s*(?:(?P<arrow>->)|(?P<number>\d+(?:\.\d+)?)|(?P<own>{REFERENCE})|(?P<name>[A-Za-z_]\w*)|(?P<mark>[&|!(),]))"
)
OPERATORS = 200
"""The largest number of `&` and `|` in an expression. Each one nests the graph one level deeper."""
DEEPEST = 100
"""The deepest nesting of parentheses and `!`, well below Python's limit of recursion."""
VALUES: dict[str, type[g.Graph]] = {
    "causal": g.Causal, "same_sample": g.SameSample, "same_item": g.SameItem, "from": g.From, "window": g.Window,
    "on": g.On, "edges": g.Edges,
}  # fmt: skip
FOLDER = "models.graphs"
"""The plug-in folder: each file holds one graph, which is named by the file."""


def parse_graph(
    text: str, inputs: Sequence[str] = (), axes: Sequence[str] = ("order",), find: Callable[[str], Any] | None = None
) -> g.Graph:
    """The graph of one attention expression.

    `inputs` are the model's named inputs in YAML order (numbered from 1), `axes` the names of the position axes (axis 0
    is `order`); `find` returns the class that package.module:Class names, or raises LookupError (None: such names are
    refused). Raises ValueError with the place where the text does not parse, and what is possible there.
    """
    return _Parser(text, tuple(inputs), tuple(axes), find).parse()


def user_defined_graphs(written: str | Sequence[str]) -> list[str]:
    """Every package.module:Class that one or more expressions name."""
    return re.findall(REFERENCE, written if isinstance(written, str) else " ".join(written))


def plug_in(name: str) -> type[g.Graph] | None:
    """The graph of a file of the plug-in folder; None if there is no such file."""
    module = modules_of(FOLDER).get(name)
    kinds = [] if module is None else vars(importlib.import_module(module)).values()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, g.Graph)
                 and kind.__module__ == module), None)  # fmt: skip


class _Parser:
    """A recursive-descent parser: one method per rule of the grammar."""

    def __init__(
        self, text: str, inputs: tuple[str, ...], axes: tuple[str, ...], find: Callable[[str], Any] | None = None
    ):
        self.text, self.inputs, self.axes, self.find = text, inputs, axes, find
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
        count = len([value for _, value, _ in self.tokens if value in ("&", "|")])
        if count > OPERATORS:
            raise ValueError(f"it has {count:,} operators; possible: up to {OPERATORS}")
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
        kind, value, place = self._peek()
        if value in ("(", "!"):
            self._take(value)
            self.depth += 1
            if self.depth > DEEPEST:
                raise self._error(self._peek()[2], f"more than {DEEPEST} parentheses inside each other")
            found = self._expression() if value == "(" else ~self._factor()
            self.depth -= 1
            if value == "(":
                self._take(")")
            return found
        if kind == "own":
            return self._own(self._take("own"), place)
        name = self._take("name")
        if name == "edges":
            return self._edges(self._some(name, self._arguments(), place), place)
        kind = VALUES.get(name) or plug_in(name)
        if kind is None:
            raise self._unknown("graph", name, [*VALUES, *modules_of(FOLDER)], place)
        return self._build(kind, name, place)

    def _own(self, name: str, place: int) -> g.Graph:
        """A graph of the user's own. Its edges are asked for once, so that a fault is reported here, with its name."""
        if self.find is None:
            raise self._error(place, f"{name!r} is code of your own: name it in a YAML, or give the graph itself")
        try:
            kind = self.find(name)
        except LookupError as error:
            raise self._error(place, str(error.args[0])) from None
        if not (isinstance(kind, type) and issubclass(kind, g.Graph)):
            raise self._error(place, f"{name!r} is no Graph (chopmix.models.attention.graph:Graph)")
        if not (is_dataclass(kind) and kind.__dataclass_params__.frozen):
            raise self._error(place, f"{name!r} must be a dataclass with frozen=True: equal graphs share a layout")
        found, tokens = self._build(kind, name, place), plain_tokens(2, 3, axes=len(self.axes))
        try:
            dense_mask(found, tokens, tokens)
        except Exception as error:  # whatever the user's code raises
            raise self._error(place, str(error) if isinstance(error, ValueError) else f"{name}: {error!r}") from error
        return found

    def _build(self, kind: type[g.Graph], name: str, place: int) -> g.Graph:
        """An instance of a class, its fields in order from the arguments in parentheses."""
        arguments = self._arguments()
        values, left = [], list(arguments)
        for field in fields(kind):
            if not left and (field.default, field.default_factory) != (MISSING, MISSING):
                continue
            several = field.name in ("axes", "inputs")
            taken, left = (self._some(name, left, place), []) if several else (left[:1], left[1:])
            found = tuple(self._value(field, name, argument, place) for argument in taken or [None])
            values.append(found if several else found[0])
        if left:
            raise self._error(place, f"{name} does not take {len(arguments)} arguments")
        try:
            return kind(*values)
        except ValueError as error:
            raise self._error(place, str(error)) from None

    def _value(self, field: Field, name: str, argument: Any, place: int) -> int | float:
        """The value of one field: an axis or an input by name where the field is called so, else a number."""
        if field.name in ("axis", "axes"):
            return self._index("axis", argument, self.axes, place)
        if field.name in ("input", "inputs"):
            return self._input(argument, place)
        try:
            value = float(argument)
        except (ValueError, TypeError):
            which = "a number first" if ":" not in name else f"a number for {field.name!r}"
            raise self._error(place, f"{name} needs {which}, as in {name}(3)") from None
        if not (value >= 0 if ":" in name else value > 0) or value == math.inf:
            raise self._error(place, f"{name}({argument}) must be more than 0 and finite")
        return int(value) if field.type in (int, "int") and value.is_integer() else value

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
        if all(end.isdecimal() and len(end) < 10 for pair in arguments for end in pair):
            return g.Edges(tuple((int(a), int(b)) for a, b in arguments), "slots")
        return g.Edges(tuple((self._input(a, place), self._input(b, place)) for a, b in arguments))

    def _some(self, name: str, arguments: list, place: int) -> list:
        if not arguments:
            raise self._error(place, f"{name} needs at least one more argument")
        return arguments

    def _input(self, name, place: int) -> int:
        return self._index("input", name, self.inputs, place) + 1

    def _index(self, kind: str, name, possible: tuple[str, ...], place: int) -> int:
        if name not in possible:
            raise self._unknown(kind, name, possible, place)
        return possible.index(name)

    def _unknown(self, kind: str, name, possible: Collection[str], place: int) -> ValueError:
        near = difflib.get_close_matches(str(name), possible, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return self._error(place, f"no {kind} named {name!r}; possible: {', '.join(possible)}{hint}")
