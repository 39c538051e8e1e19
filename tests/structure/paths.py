"""Counts the files that a call enters, and the lines of their functions. As a program, prints the lines of a command:

python tests/structure/paths.py predict quickstart --input operator=+
"""

import ast
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from checkout import PACKAGES, ROOT


class Paths(NamedTuple):
    """The functions that a call has entered."""

    functions: dict[str, set[int]]
    """The first lines of the functions, by file."""
    calls: Counter[str]
    """The number of calls of each function, by its qualified name, such as `Run.open`."""

    @property
    def lines(self) -> int:
        """The number of lines of the functions, without docstrings and blank lines."""
        return sum(lines_of(ROOT / file, first_lines) for file, first_lines in self.functions.items())


def lines_of(file: Path, first_lines: set[int]) -> int:
    """The number of lines of the functions that begin in some lines, without docstrings and blank lines."""
    text, counted, docstrings = file.read_text(), set(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if not isinstance(node, ast.ClassDef) and {first, node.lineno} & first_lines:
                counted |= {*range(node.lineno, node.end_lineno + 1)}
            if ast.get_docstring(node) is not None:
                docstrings |= {*range(node.body[0].lineno, node.body[0].end_lineno + 1)}
    lines = text.split("\n")
    return sum(bool(lines[number - 1].strip()) for number in counted - docstrings)


def entered(call: Callable[[], Any], until: str | None = None) -> Paths:
    """The functions of chopmix that a call enters in all threads, until the function with the qualified name `until` is
    called. What runs while a module is imported does not count."""
    functions, calls, files = {}, Counter(), {}

    def file_of(path: str) -> str | None:
        if path not in files:
            name = path.removeprefix(f"{ROOT}/") if path.startswith(f"{ROOT}/") else ""
            files[path] = name if name.startswith((*(f"{each}/" for each in PACKAGES[1:]), "chopmix/")) else None
        return files[path]

    def profile(frame, event, argument) -> None:
        code = frame.f_code
        if event != "call" or (file := file_of(code.co_filename)) is None or code.co_name == "<module>":
            return
        if code.co_qualname == until:
            sys.setprofile(None)
            raise KeyboardInterrupt
        functions.setdefault(file, set()).add(code.co_firstlineno)
        calls[code.co_qualname] += 1

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        call()
    except (KeyboardInterrupt, SystemExit):
        pass
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return Paths(functions, calls)


if __name__ == "__main__":
    from chopmix.commands.cli import main

    print("lines", entered(lambda: main(sys.argv[1:])).lines)
