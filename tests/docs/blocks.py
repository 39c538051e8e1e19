"""Reads and runs the code blocks of a Markdown page: the commands and programs of the README and of the pages in
`docs/` are tested with it.

    python tests/docs/blocks.py docs/missing.md      # updates the outputs in the page

A comment before a block defines what happens with it: `<!-- file: NAME -->`, the block is written to a file;
`<!-- not run: REASON -->`; `<!-- output -->`, the block is the output of the one before it. Other blocks in Python,
YAML and the language `console` run in the order of the page, in one folder and one namespace."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.settings.reference import reference
from chopmix.experiment.settings.sections import sections

FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>[\w{}]*)")
COMMENT = re.compile(r"^<!-- (?P<kind>file|not run|output)(?:: (?P<value>.*))? -->$")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
TOLERANCE = 0.05
"""The largest relative difference of a number from the stored output."""
CLOSE = 0.02
"""The largest difference of a number that is smaller than 1."""


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: Path
    line: int
    """The number of its first line, from 1, without the fence."""
    language: str
    text: str
    kind: str = ""
    """`file`, `not run`, `output`, or empty."""
    value: str = ""

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Returns the blocks of a page in order."""
    blocks, kind, value, opened, lines = [], "", "", None, page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if opened is None and (match := FENCE.match(line)):
            opened = (match["fence"], match["language"], number + 1)
        elif opened is not None and line.rstrip() == opened[0]:
            text = "".join(f"{each}\n" for each in lines[opened[2] : number])
            blocks.append(Block(page, opened[2] + 1, opened[1], text, kind, value))
            opened, kind, value = None, "", ""
        elif opened is None and (match := COMMENT.match(line)):
            kind, value = match["kind"], match["value"] or ""
        elif opened is None and line.strip():
            kind, value = "", ""
    assert opened is None, f"{page.name}:{opened[2]}: the block has no end"
    return blocks


def words_of(line: str) -> list[str]:
    """Returns the words of a command, without `uv run`."""
    words = shlex.split(line, comments=True)
    if words[:2] == ["uv", "run"]:
        words = words[2:]
        while words and words[0].startswith("-"):
            words = words[2:] if words[0] in ("--group", "--extra") else words[1:]
    return words


def commands(block: Block) -> list[tuple[int, list[str]]]:
    """Returns (line of the page, words) of the commands in a block."""
    lines = enumerate(block.text.splitlines(), start=block.line)
    return [(number, words) for number, line in lines if (words := words_of(line))]


def run_blocks(
    blocks: Sequence[Block], shortened: Callable[[list[str]], list[str]], report: Callable[[Block, str], None]
) -> None:
    """Run blocks in the working directory. `shortened` changes the words of a command; `report` receives each output
    block and the real output of the block before it. Raises AssertionError with page and line."""
    names: dict[str, Any] = {"__name__": "page"}
    output = ""
    for block in blocks:
        if block.kind == "not run":
            assert block.value, f"{block.place}: write the reason, <!-- not run: REASON -->"
            continue
        if block.kind == "output":
            report(block, output)
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            run_block(block, names, shortened)
        output = printed.getvalue()


def run_block(block: Block, names: dict[str, Any], shortened: Callable[[list[str]], list[str]]) -> None:
    """Run one block. Raises AssertionError with page and line."""
    if block.kind == "file":
        Path(block.value).parent.mkdir(parents=True, exist_ok=True)
        Path(block.value).write_text(block.text)
    elif block.language == "python":
        try:
            exec(compile("\n" * (block.line - 1) + block.text, str(block.page), "exec"), names)
        except Exception as error:
            line = next((at.lineno for at in reversed(_frames(error)) if at.filename == str(block.page)), block.line)
            raise AssertionError(f"{block.page.name}:{line}: {type(error).__name__}: {error}") from error
    elif block.language in ("console", "bash"):
        for line, words in commands(block):
            try:
                run_command(shortened(words))
            except (Exception, SystemExit) as error:
                raise AssertionError(f"{block.page.name}:{line}: {' '.join(words)}: {error}") from error
    if block.language == "yaml":
        check_yaml(block)


def _frames(error: BaseException) -> list[Any]:
    import traceback

    return [*traceback.extract_tb(error.__traceback__)]


def run_command(words: Sequence[str]) -> None:
    """Run one command. Raises AssertionError if its exit status is not 0."""
    match words[0], list(words[1:]):
        case "pip" | "sync" | "uv" | "pytest", _:
            pass  # installs packages, or runs these tests
        case "chopmix", rest:
            status = main(rest)
            assert status == 0, f"exit status {status}"
        case "python", ["train.py", *rest]:
            status = main(["train", *rest])
            assert status == 0, f"exit status {status}"
        case "python", rest:
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(sys, "argv", rest)
                runpy.run_path(rest[0], run_name="__main__")
        case "torchrun", rest:
            words = [sys.executable, "-m", "torch.distributed.run", *rest]
            done = subprocess.run(words, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        case _:
            raise AssertionError("this program cannot be run by the tests")


def check_yaml(block: Block) -> None:
    """Raises AssertionError if a block is not YAML, or has a key that its section does not have."""
    try:
        tree = yaml.safe_load(block.text)
    except yaml.YAMLError as error:
        raise AssertionError(f"{block.place}: {error}") from error
    kinds, entries = reference()
    fixed = {entry.path: {key.name for key in entry.keys} for entry in entries if not entry.name}
    for kind in kinds:  # `play: {...}` is short for `also: {play: {use: play, ...}}`
        if kind.path.endswith(".also.NAME"):
            fixed[kind.path.removesuffix(".also.NAME")] |= {*kind.registry.names()}
    if not isinstance(tree, dict) or not {*tree} & {*sections()}:
        return
    unknown = {*tree} - {*sections()}
    assert not unknown, f"{block.place}: no top-level key {', '.join(map(str, unknown))}"
    for section, value in tree.items():
        keys = fixed.get(section)
        wrong = {*value} - keys if keys and isinstance(value, dict) else set()
        assert not wrong, f"{block.place}: {section} has no key {', '.join(map(str, wrong))}"


def differences(stored: str, real: str) -> str:
    """Returns how an output differs from the stored one: empty if the words are equal and the numbers are close."""
    for number, (old, new) in enumerate(zip(stored.splitlines(), real.splitlines()), start=1):
        values = [[float(value.replace(",", "")) for value in NUMBER.findall(line)] for line in (old, new)]
        words = [NUMBER.sub("0", re.sub(r"\s+", " ", line.strip())) for line in (old, new)]
        close = len(values[0]) == len(values[1]) and all(
            abs(a - b) <= max(TOLERANCE * abs(a), CLOSE if abs(a) < 1 else 0) for a, b in zip(*values)
        )
        if words[0] != words[1] or not close:
            return f"line {number} of the output is {new!r}, stored: {old!r}"
    if len(stored.splitlines()) != len(real.splitlines()):
        return f"the output has {len(real.splitlines())} lines, stored: {len(stored.splitlines())}"
    return ""


def compare(block: Block, real: str) -> None:
    """Raises AssertionError with page and line if the stored output differs from the real one."""
    difference = differences(block.text.rstrip(), real.rstrip())
    assert not difference, f"{block.place}: {difference}"


def write_outputs(page: Path) -> None:
    """Write the real outputs of a page into it. The commands are not shortened; those after the last output are not
    run."""
    page, lines, changes = page.resolve(), page.read_text(encoding="utf-8").splitlines(), []
    blocks = blocks_of(page)
    last = max((number for number, block in enumerate(blocks) if block.kind == "output"), default=-1)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("configs").symlink_to(page.parents[1] / "configs")
        run_blocks(blocks[: last + 1], lambda words: words, lambda block, real: changes.append((block, real)))
    for block, real in reversed(changes):
        start = block.line - 1
        lines[start : start + len(block.text.splitlines())] = real.rstrip().splitlines()
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in sys.argv[1:]:
        write_outputs(Path(name))
