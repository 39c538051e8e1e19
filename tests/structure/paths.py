"""Counts the files that a call enters, and the different moves from a file of one package to a file of another."""

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from checkout import PACKAGES, ROOT


class Paths(NamedTuple):
    """What a call entered: files, pairs (from, to) of files of different packages, and how often each function was
    called, by its qualified name, such as `Run.open`."""

    files: frozenset[str]
    moves: frozenset[tuple[str, str]]
    calls: Counter[str]


def package_of(file: str) -> str:
    """The package of a file: `files` of `chopmix/files/reading.py`, `data` of `data/datasets/text.py`."""
    first, *rest = file.split("/")
    return rest[0] if first == "chopmix" and len(rest) > 1 else first


def entered(call: Callable[[], Any], until: str | None = None) -> Paths:
    """The files of chopmix whose functions a call enters, until the function with the qualified name `until` is called.
    Frames of other packages between two of ours are skipped; what runs while a module is imported does not count."""
    files, moves, calls, names = set(), set(), Counter(), {}

    def ours(code) -> str | None:
        path = code.co_filename
        if path not in names:
            name = path.removeprefix(f"{ROOT}/") if path.startswith(f"{ROOT}/") else ""
            names[path] = name if name.startswith((*(f"{each}/" for each in PACKAGES[1:]), "chopmix/")) else None
        return names[path]

    def profile(frame, event, argument) -> None:
        code = frame.f_code
        if event != "call" or (here := ours(code)) is None or code.co_name == "<module>":
            return
        if code.co_qualname == until:
            sys.setprofile(None)
            raise KeyboardInterrupt
        files.add(here)
        calls[code.co_qualname] += 1
        back = frame.f_back
        while back and ours(back.f_code) is None:
            back = back.f_back
        there = back and ours(back.f_code)
        if there and package_of(there) != package_of(here):
            moves.add((there, here))

    sys.setprofile(profile)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    return Paths(frozenset(files), frozenset(moves), calls)
