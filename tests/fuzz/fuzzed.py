"""The decorator of fuzz tests, and strategies that draw inputs: valid files, texts and trees with some changes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

COUNT = 50
"""The number of inputs for each format; set by conftest.py."""
SEED: str | None = None
"""The seed from which inputs are drawn; None: the inputs are always the same."""


def fuzzed(default: int = 50, /, **strategies: st.SearchStrategy) -> Callable:
    """Run a test with COUNT inputs, or with `default` inputs if no other number was set."""

    def decorate(test: Callable) -> Callable:
        settings = hypothesis.settings(
            max_examples=default if SEED is None else COUNT,
            derandomize=SEED is None,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        fuzz_test = settings(hypothesis.given(**strategies)(test))
        return fuzz_test if SEED is None else hypothesis.seed(SEED)(fuzz_test)

    return decorate


# --------------------------------------------------------------------------------------------------------------- bytes

HEAD = 96
"""The number of bytes at the beginning of a file, its header, that are changed as often as all other bytes."""
NUMBERS = st.sampled_from([
    number.to_bytes(size, order, signed=number < 0)
    for size in (1, 2, 4, 8)
    for number in (0, 1, -1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 2))
    for order in ("big", "little")
])  # fmt: skip
"""Integers as bytes, as they are stored in headers."""
CHANGES_OF_BYTES = st.sampled_from(("cut", "leave out", "repeat", "number", "byte", "insert"))
FEW_BYTES, LENGTH = st.binary(min_size=1, max_size=16), st.integers(1, 64)


@st.composite
def changed_bytes(draw, contents: Sequence[bytes], most: int = 4) -> bytes:
    """One of the contents with up to `most` changes: bytes are cut off, deleted, repeated, replaced or inserted."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(0, most))):
        change, size = draw(CHANGES_OF_BYTES), len(content)
        place = draw(st.integers(0, min(HEAD, size)) | st.integers(0, size))
        if change == "cut":
            del content[place:]
        elif change == "leave out":
            del content[place : place + draw(LENGTH)]
        elif change == "repeat":
            content[place:place] = content[place : place + draw(LENGTH)]
        elif change == "number":
            number = draw(NUMBERS)
            content[place : place + len(number)] = number
        elif change == "byte":
            content[place : place + 1] = draw(FEW_BYTES)[:1]
        else:
            content[place:place] = draw(FEW_BYTES)
    return bytes(content)


# --------------------------------------------------------------------------------------------------------------- texts

ESCAPE = "\x1b[31mred"
DEEP = ["[" * 3000, "{" * 300, "{a: " * 60, '{"a":' * 60, "[" * 100_000, "- " * 60]
"""Texts with deeply nested structures."""
ODD_TEXTS = [
    "",
    " ",
    "0",
    "-1",
    "1e308",
    "-0.5",
    "1e-320",
    "nan",
    "inf",
    ".inf",
    "-.inf",
    str(10**30),
    str(2**63),
    "1" * 5000,
    "null",
    "true",
    "~",
    "[]",
    "{}",
    *DEEP,
    "&a [*a]",
    "*a",
    "!!python/name:os._exit",
    "!x y",
    "<<: *a",
    "\0",
    ESCAPE,
    "\x9b31m",
    "\u202e",
    "\u2028",
    "\ufeff",
    "é" * 40,
    "🧨",
    "a" * 300,
    "../../../outside",
    "/proc/nowhere/x",
    ".",
    "..",
    "/",
    "[/red]",
    "[bold]",
    "%s%n",
    "${HOME}",
    "~nobody/x",
    "os:_exit",
    "subprocess:Popen",
    "builtins:exec",
    "\r\n",
    "\t",
    "- a",
    "a: b: c",
    "? x",
    "|",
    "2024-01-01",
    "0b_",
    "0x",
    "1_000",
    "1:30",
    "'",
    '"',
    "# x",
    ": ",
    ",",
    "=",
    "a=b",
]
"""Texts that are difficult for readers of files."""
SURROGATES = ["\ud800", "a\udcffb"]
"""What a command line contains in place of bytes that are not valid UTF-8."""
odd_texts = st.sampled_from(ODD_TEXTS) | st.text(max_size=12)
CHANGES_OF_TEXT = st.sampled_from(("cut", "leave out", "repeat", "move", "line", "insert", "value", "value"))


@st.composite
def changed_text(draw, texts: Sequence[str], most: int = 3) -> str:
    """One of the texts with up to `most` changes of lines and characters."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(0, most))):
        lines, change = text.splitlines(keepends=True) or [""], draw(CHANGES_OF_TEXT)
        if change in ("cut", "leave out", "insert"):
            place = draw(st.integers(0, len(text)))
            behind = "" if change == "cut" else text[place + draw(LENGTH) :] if change == "leave out" else text[place:]
            text = text[:place] + (draw(odd_texts) if change == "insert" else "") + behind
            continue
        number = draw(st.integers(0, len(lines) - 1))
        if change == "repeat":
            lines.insert(number, lines[number])
        elif change == "move":
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(number))
        elif change == "line":
            del lines[number]
        else:
            key, colon, _ = lines[number].partition(": ")
            lines[number] = f"{key}{colon}{draw(odd_texts)}\n"
        text = "".join(lines)
    return text


# --------------------------------------------------------------------------------------------------------------- trees

ODD_NUMBERS = [
    0,
    1,
    2,
    3,
    7,
    -1,
    100,
    255,
    65_536,
    2**31,
    2**32 - 1,
    2**63,
    -(2**63),
    10**9,
    10**30,
    0.0,
    -0.0,
    0.5,
    -0.5,
    1.5,
    1e9,
    1e-9,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
]
NESTED: Any = []
for _ in range(60):
    NESTED = [NESTED]
ODD_VALUES = [
    None,
    True,
    False,
    [],
    {},
    [[]],
    [1],
    [0, 0],
    [None],
    ["a", "a"],
    {"a": 1},
    {"use": "os:_exit"},
    {"use": None},
    {"same_as": "a"},
    [1.5, 2.5],
    "none",
    NESTED,
    *(text for text in ODD_TEXTS if len(text) < 400),
]
odd_numbers = st.sampled_from(ODD_NUMBERS)
odd_values = odd_numbers | st.sampled_from(ODD_VALUES) | st.integers(-4, 40) | st.text(max_size=6)
"""Values of any type that are difficult for readers of files."""
odd_keys = st.text(max_size=4) | st.sampled_from(["use", "a", ESCAPE, "same_as", "step", "width"])
CODE = [
    "payload:Thing",
    {"use": "payload:Thing"},
    {"use": "payload:Thing", "a": 1},
    {"use": "os:_exit"},
    {"use": "subprocess:Popen"},
    "payload",
]
"""Values that would execute code if a reader took them for a part of a configuration; this must not happen."""
CHANGES_OF_TREE = st.sampled_from(("replace", "replace", "number", "leave out", "rename", "add", "elsewhere", "wrap"))


def paths_of(tree: Any) -> list[tuple]:
    """The paths of all values inside a tree of mappings and lists."""
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ()
    return [path for key, value in items for path in [(key,), *((key, *below) for below in paths_of(value))]]


def at(tree: Any, path: Sequence) -> Any:
    """The value at a path."""
    for key in path:
        tree = tree[key]
    return tree


@st.composite
def changed_tree(draw, trees: Sequence[Any], most: int = 3, values: st.SearchStrategy = odd_values) -> Any:
    """One of the trees with one to `most` changes: values are deleted, replaced or copied to another place; keys are
    renamed or added."""
    tree = copy.deepcopy(draw(st.sampled_from(trees)))
    for _ in range(draw(st.integers(1, most))):
        paths = paths_of(tree)
        if not paths:
            return draw(values)
        *parents, key = draw(st.sampled_from(paths))
        holder, change = at(tree, parents), draw(CHANGES_OF_TREE)
        if change == "leave out":
            del holder[key]
        elif change == "rename" and isinstance(holder, dict):
            holder[draw(odd_keys)] = holder.pop(key)
        elif change == "add" and isinstance(holder, dict):
            holder[draw(odd_keys)] = copy.deepcopy(draw(values))
        elif change == "elsewhere":
            holder[key] = copy.deepcopy(at(tree, draw(st.sampled_from(paths))))
        elif change == "wrap":
            holder[key] = draw(st.sampled_from(([holder[key]], {"a": holder[key]}, [holder[key], holder[key]])))
        else:
            holder[key] = copy.deepcopy(
                draw(odd_numbers if change == "number" else values)
            )  # a copy, since later changes may change it
    return tree
