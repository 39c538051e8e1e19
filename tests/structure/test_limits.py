"""Rules of the code: order of imports, no circular imports, length of lines, number of parameters, for every file."""

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

import pytest
from checkout import PACKAGES, ROOT

PARENTS = {"files": ROOT / "chopmix"}
"""The parent folders of the packages that are not at the top level."""
FILES = {
    file.relative_to(PARENTS.get(package, ROOT)).with_suffix("").as_posix().replace("/", "."): file
    for package in PACKAGES
    for file in sorted((PARENTS.get(package, ROOT) / package).rglob("*.py"))
    if "tests" not in file.parts
}
INDEPENDENT = {"data/datasets", "models/pretrained", "tasks", "tokenizers", "commands"}
"""Folders with one file per part: no file imports another, and there may be any number of files."""


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text())


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of chopmix that a file imports, in any line: all with relative imports."""
    modules = set()
    for node in ast.walk(tree(module)):
        names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        assert not any(name.split(".")[0] == "chopmix" for name in names), f"{module}: import relatively"
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join(
                [*module.split(".")[: -node.level], *((node.module or "").split(".") if node.module else [])]
            )
            modules |= {f"{base}.{name.name}" if f"{base}.{name.name}" in FILES else base for name in node.names}
    return frozenset(modules - {""})


def over(sizes: dict[str, int], limit: int) -> dict[str, int]:
    """The sizes above a limit."""
    return {name: size for name, size in sizes.items() if size > limit}


def functions(module: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef):
            yield f"{module}.{node.name}", node


def test_packages_import_only_packages_above_them():
    assert len(FILES) > 150
    packages = {module: {name.split(".")[0] for name in imports(module)} for module in FILES}
    wrong = {
        module: forbidden
        for module, imported in packages.items()
        if (forbidden := imported - {*PACKAGES[: PACKAGES.index(module.split(".")[0]) + 1]})
    }
    assert not wrong
    crossing = [
        (module, name)
        for module in FILES
        for name in imports(module)
        if module.startswith("projects.") and name.startswith("projects.")
        if name.split(".")[1] != module.split(".")[1]
    ]
    assert not crossing
    assert all(name in FILES for module in FILES for name in imports(module))


def test_there_are_no_circular_imports():
    """Neither directly nor through other files."""
    below: dict[str, set[str]] = defaultdict(set)

    def visit(module: str, path: tuple[str, ...]) -> set[str]:
        assert module not in path, " > ".join([*path[path.index(module) :], module])
        if module not in below:
            below[module] = set().union(*({name} | visit(name, (*path, module)) for name in imports(module)))
        return below[module]

    for module in FILES:
        visit(module, ())


def test_independent_files_do_not_import_each_other():
    shared = {
        "models.pretrained.base",
        "models.pretrained.gpt2",
        "tokenizers.chopping.packing",
        "tokenizers.image",
        "tokenizers.text",
    }
    shared |= {f"tokenizers.{name}" for name in ("base",)}
    shared |= {f"tasks.{name}" for name in ("base", "judging", "targets")}
    shared |= {f"tasks.{name}" for name in ("language_modeling", "masked_modeling", "sequence_to_sequence")}
    for folder in INDEPENDENT - {"commands"}:
        names = {module for module in FILES if module.rpartition(".")[0] == folder.replace("/", ".")}
        assert names
        for module in names:
            assert not (imports(module) & names) - shared or folder == "data/datasets"


SMALL = {
    "inference.limited": "a function in a process of its own with a time limit",
    "models.attention.message_passing": "attention in plain Python, a program to read first",
    "models.attention.weights": "the weights that kernels do not return",
    "models.frozen": "a trained model inside another model",
    "models.layers.scalar": "one number for each item, such as the time of a flow",
    "models.reconstruction": "the head of an autoencoder",
    "tokenizers.encoding.coder_program": "the program in which a foreign tokenizer runs",
    "tokenizers.media.lettering": "letters as pictures",
    "tasks.measuring.spread": "recall, coverage and variance of what is generated",
    "training.schedules": "the learning rate over the steps",
    "experiment.after_training": "options that are changed when a run is loaded",
    "experiment.animating": "the option --animate of inspect",
    "experiment.terminal_tokens": "what inspect prints for a text corpus",
    "experiment.next_steps": "the commands that are printed at the end of a training",
    "experiment.prepare": "the command prepare",
    "experiment.run_part": "a run as a part of another run",
    "experiment.shipped": "the configurations of chopmix, and copies of them",
    "experiment.interchange.import_run": "the command import",
    "projects.decision.options": "the option --setting of two commands",
    "projects.preferences.rewards": "rewards of answers, and a rule that samples with them",
}
"""Files with one importer and fewer than 60 lines that are not blank, outside of plug-in folders: their subjects."""
PLUGINS = (
    "pretrained",
    "datasets",
    "commands",
    "judges",
    "evaluators",
    "importers",
    "graphs",
    "blocks",
    "loggers",
    "new",
)


def test_small_files_with_one_importer_are_listed_with_a_subject():
    importers = defaultdict(set)
    for module in FILES:
        for name in imports(module):
            importers[name].add(module)
    small = {
        module
        for module, file in FILES.items()
        if len(importers[module]) < 2 and sum(map(bool, map(str.strip, file.read_text().splitlines()))) < 60
        if module.split(".")[-2] not in PLUGINS and module.rpartition(".")[0] not in ("tokenizers", "tasks")
    }
    assert small - {f"projects.{each}.public" for each in ("whisper", "decision")} <= SMALL.keys()


def test_a_constructor_has_at_most_9_parameters():
    sizes = {
        f"{name}, line {node.lineno}": len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs) - 1
        for module in FILES
        for name, node in functions(module)
        if node.name == "__init__"
    }
    assert not over(sizes, 9)


@pytest.mark.parametrize("folder", [*PACKAGES, "chopmix", "tests", "benchmarks"])
def test_no_line_is_longer_than_120_columns(folder):
    lines = ((file, n, line) for file in sorted((ROOT / folder).rglob("*.py"))
             for n, line in enumerate(file.read_text().splitlines(), start=1))  # fmt: skip
    assert not [f"{file}:{n}" for file, n, line in lines if len(line) > 120]


def test_no_name_is_undefined():
    """Except the letters of shapes, which are no names: the linter's rule is therefore off."""
    command = [sys.executable, "-m", "ruff", "check", "--select", "F821", "--output-format", "json", "--no-cache", "."]
    errors = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout)
    assert errors  # the letters of shapes
    assert not [
        f"{each['filename']}: {each['message']}" for each in errors if not re.search("`[a-z]`", each["message"])
    ]
