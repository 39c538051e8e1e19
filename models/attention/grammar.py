"""The grammar of attention graphs in a YAML (`attention:`). Expressions are parsed, not evaluated as Python.

    expression = term { "|" term }
    term       = factor { "&" factor }
    factor     = "!" factor | "(" expression ")" | name [ "(" argument { "," argument } ")" ]
    argument   = number | axis | input | source "->" reader

A name is one of causal, causal(axis), same_sample, same_item, from(input, ...), window(size), window(size, axis),
on(axis) and edges(source -> reader, ...), or the name of a file in `models/graphs/`, such as neighbourhood(radius,
axis, ...), or package.module:Class for a user-defined graph. The arguments are the values of the fields of the graph's
class, in the order of the fields. `!` has the highest precedence, then `&`, then `|`.

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
    rf"\s*(?:(?P<arrow>->)|(?P<number>\d+(?:\.\d+)?)|(?P<path>{REFERENCE})|(?P<name>[A-Za-z_]\w*)|(?P<mark>[&|!(),]))"
)
OPERATORS = 200
"""The largest number of operators `&` and `|` in an expression. Each operator nests the graph one level deeper."""
DEEPEST = 100
"""The largest depth of nested parentheses and `!`, well below Python's recursion limit."""
VALUES: dict[str, type[g.Graph]] = {
    "causal": g.Causal, "same_sample": g.SameSample, "same_item": g.SameItem, "from": g.From, "window": g.Window,
    "on": g.On, "edges": g.Edges,
}  # fmt: skip
USAGE = {
    "causal": "causal, causal(AXIS)", "from": "from(INPUT, ...)", "window": "window(SIZE), window(SIZE, AXIS)",
    "on": "on(AXIS)", "edges": "edges(SOURCE -> READER, ...)", "neighbourhood": "neighbourhood(RADIUS, AXIS, ...)",
}  # fmt: skip
"""How a graph with arguments is written in an expression."""
FOLDER = "models.graphs"
"""The plug-in folder. Each file defines one graph; the name of the graph is the name of the file."""


def parse_graph(
    text: str, inputs: Sequence[str] = (), axes: Sequence[str] = ("order",), find: Callable[[str], Any] | None = None
) -> g.Graph:
    """Returns the graph that an attention expression describes.

    `inputs` are the names of the model's inputs in the order of the YAML (numbered from 1), `axes` are the names of the
    position axes (axis 0 is `order`). `find` maps a name package.module:Class to the class, or raises LookupError. If
    `find` is None, a name of this form is an error. Raises ValueError if the expression cannot be parsed, contains an
    unknown name or a wrong argument, is too large (`OPERATORS`, `DEEPEST`), or if a user-defined graph fails. The
    message states the position of the error, except for too many operators.
    """
    return _Parser(text, tuple(inputs), tuple(axes), find).parse()


def user_defined_graphs(expressions: str | Sequence[str]) -> list[str]:
    """Returns the names package.module:Class that occur in one or several expressions, in order, with repetitions."""
    return re.findall(REFERENCE, expressions if isinstance(expressions, str) else " ".join(expressions))


def plug_in(name: str) -> type[g.Graph] | None:
    """Returns the graph class that the file `name` in the plug-in folder defines; None if the folder has no file of
    this name, or the file defines no subclass of `Graph`."""
    module = modules_of(FOLDER).get(name)
    kinds = [] if module is None else vars(importlib.import_module(module)).values()
    return next((kind for kind in kinds if is_graph_class(kind) and kind.__module__ == module), None)


def is_graph_class(value: Any) -> bool:
    """Returns whether an object is a subclass of `Graph`."""
    return isinstance(value, type) and issubclass(value, g.Graph)


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
                position = end + len(self.text[end:]) - len(self.text[end:].lstrip())
                raise self._error(position, f"unexpected {self.text[position]!r}")
            yield match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)
            end = match.end()

    def _error(self, position: int, problem: str) -> ValueError:
        is_split = self.text.count("(") != self.text.count(")")  # a YAML list may have been split at its commas
        hint = "; in a YAML list, put an expression with commas in quotes" if is_split else ""
        return ValueError(f"attention {self.text!r}, character {position + 1}: {problem}{hint}")

    def _peek(self) -> tuple[str, str, int]:
        return self.tokens[self.index] if self.index < len(self.tokens) else ("end", "the end", len(self.text))

    def _take(self, *expected: str) -> str:
        kind, value, position = self._peek()
        if value not in expected and kind not in expected:
            possible = " or ".join(repr(token) if not token.isalpha() else f"a {token}" for token in expected)
            problem = "the expression ends where" if kind == "end" else f"{value!r} where"
            raise self._error(position, f"{problem} {possible} is expected")
        self.index += 1
        return value

    def parse(self) -> g.Graph:
        count = len([value for _, value, _ in self.tokens if value in ("&", "|")])
        if count > OPERATORS:
            raise ValueError(f"it has {count:,} operators; possible: up to {OPERATORS}")
        graph = self._expression()
        if self._peek()[0] != "end":
            raise self._error(self._peek()[2], f"{self._peek()[1]!r} instead of '&', '|' or the end")
        return graph

    def _expression(self) -> g.Graph:
        graph = self._term()
        while self._peek()[1] == "|":
            self._take("|")
            graph = graph | self._term()
        return graph

    def _term(self) -> g.Graph:
        graph = self._factor()
        while self._peek()[1] == "&":
            self._take("&")
            graph = graph & self._factor()
        return graph

    def _factor(self) -> g.Graph:
        kind, value, position = self._peek()
        if value in ("(", "!"):
            return self._nested(value)
        if kind == "path":
            return self._user_defined(self._take("path"), position)
        name = self._take("name")
        if name == "edges":
            return self._edges(self._some(name, self._arguments(), position), position)
        graph_class = VALUES.get(name) or plug_in(name)
        if graph_class is None:
            raise self._unknown("graph", name, [*VALUES, *modules_of(FOLDER)], position)
        return self._build(graph_class, name, position)

    def _nested(self, value: str) -> g.Graph:
        self._take(value)
        self.depth += 1
        if self.depth > DEEPEST:
            raise self._error(self._peek()[2], f"more than {DEEPEST} nested parentheses and '!'")
        graph = self._expression() if value == "(" else ~self._factor()
        self.depth -= 1
        if value == "(":
            self._take(")")
        return graph

    def _user_defined(self, name: str, position: int) -> g.Graph:
        """Returns a user-defined graph. The mask of the graph is computed for two rows of three tokens, so an error in
        the user's code is reported here, with the name of the graph."""
        if self.find is None:
            raise self._error(position, f"{name!r} is user-defined code; name it in a YAML, or pass the Graph itself")
        try:
            graph_class = self.find(name)
        except LookupError as error:
            raise self._error(position, str(error.args[0])) from None
        if not is_graph_class(graph_class):
            raise self._error(position, f"{name!r} is not a subclass of chopmix.models.attention.graph:Graph")
        if not (is_dataclass(graph_class) and graph_class.__dataclass_params__.frozen):
            raise self._error(position, f"{name!r} must be a dataclass with frozen=True: equal graphs share a layout")
        graph, tokens = self._build(graph_class, name, position), plain_tokens(2, 3, axes=len(self.axes))
        try:
            dense_mask(graph, tokens, tokens)
        except Exception as error:  # user-defined code can raise anything
            problem = str(error) if isinstance(error, ValueError) else f"{name}: {error!r}"
            raise self._error(position, problem) from error
        return graph

    def _build(self, graph_class: type[g.Graph], name: str, position: int) -> g.Graph:
        """Returns an instance of a graph class. The arguments in parentheses are assigned to the fields in order; a
        field `axes` or `inputs` takes all remaining arguments."""
        arguments = self._arguments()
        values, left = [], list(arguments)
        for field in fields(graph_class):
            if not left and (field.default, field.default_factory) != (MISSING, MISSING):
                continue
            is_list = field.name in ("axes", "inputs")
            of_field, left = (self._some(name, left, position), []) if is_list else (left[:1], left[1:])
            parsed = tuple(self._value(field, name, argument, position) for argument in of_field or [None])
            values.append(parsed if is_list else parsed[0])
        if left:
            raise self._error(position, f"{name} does not take {len(arguments)} arguments")
        try:
            return graph_class(*values)
        except ValueError as error:
            raise self._error(position, str(error)) from None

    def _value(self, field: Field, name: str, argument: Any, position: int) -> int | float:
        """Returns the value of one field. For a field `axis` or `axes` this is the index of the axis that the argument
        names (from 0), for `input` or `inputs` the number of the named input (from 1), else the argument as a
        number."""
        if field.name in ("axis", "axes"):
            return self._index("axis", argument, self.axes, position)
        if field.name in ("input", "inputs"):
            return self._input(argument, position)
        return self._number(field, name, argument, position)

    def _number(self, field: Field, name: str, argument: Any, position: int) -> int | float:
        try:
            value = float(argument)
        except (ValueError, TypeError):
            which = "a number first" if ":" not in name else f"a number for {field.name!r}"
            raise self._error(position, f"{name} needs {which}, as in {name}(3)") from None
        if not (value >= 0 if ":" in name else value > 0) or value == math.inf:
            raise self._error(position, f"{name}({argument}) must be more than 0 and finite")
        return int(value) if field.type in (int, "int") and value.is_integer() else value

    def _arguments(self) -> list:
        return self._argument_list() if self._peek()[1] == "(" else []

    def _argument_list(self) -> list:
        self._take("(")
        arguments = [self._argument()]
        while self._peek()[1] == ",":
            self._take(",")
            arguments.append(self._argument())
        self._take(")")
        return arguments

    def _argument(self):
        first = self._take("name", "number")
        if self._peek()[1] != "->":
            return first
        self._take("->")
        return first, self._take("name", "number")

    def _edges(self, arguments: list, position: int) -> g.Edges:
        if not all(isinstance(a, tuple) for a in arguments):
            raise self._error(position, "edges are written source -> reader")
        if all(end.isdecimal() and len(end) < 10 for pair in arguments for end in pair):
            return g.Edges(tuple((int(a), int(b)) for a, b in arguments), "slots")
        return g.Edges(tuple((self._input(a, position), self._input(b, position)) for a, b in arguments))

    def _some(self, name: str, arguments: list, position: int) -> list:
        if not arguments:
            raise self._error(position, f"{name} needs at least one more argument")
        return arguments

    def _input(self, name, position: int) -> int:
        return self._index("input", name, self.inputs, position) + 1

    def _index(self, kind: str, name, possible: tuple[str, ...], position: int) -> int:
        if name not in possible:
            raise self._unknown(kind, name, possible, position)
        return possible.index(name)

    def _unknown(self, kind: str, name, possible: Collection[str], position: int) -> ValueError:
        near = difflib.get_close_matches(str(name), possible, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return self._error(position, f"no {kind} named {name!r}; possible: {', '.join(possible)}{hint}")
