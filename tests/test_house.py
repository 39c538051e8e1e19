"""The house keeps its rules: import order, no hidden packages, every config has its header, every task is seen."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ["models", "tokenizers", "data", "tasks", "training"]
"""Each folder may import from those before it; `data` and `tasks` do not know each other's files beyond the table."""
ALLOWED = {
    "models": {"models"},
    "tokenizers": {"models", "tokenizers"},
    "data": {"models", "tokenizers", "data"},
    "tasks": {"models", "tokenizers", "data", "tasks"},
    "training": set(ORDER),
}
FILES = [file for folder in ORDER for file in sorted((ROOT / folder).rglob("*.py"))]


def imported_folders(file: Path) -> set[str]:
    """The folders of ours that a file imports from, by its relative imports."""
    here = file.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*("chopmix", *here)][: len(here) + 2 - node.level]
            full = [*base, *(node.module or "").split(".")]
            found.add(full[1] if len(full) > 1 and full[1] else here[0])
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        module = node.module or "" if isinstance(node, ast.ImportFrom) and not node.level else ""
        assert not any(name.startswith("chopmix") for name in [*names, module]), f"{file}: import relatively"
    return found


def test_imports_follow_the_folder_table():
    assert len(FILES) > 40
    wrong = {
        str(f.relative_to(ROOT)): extra
        for f in FILES
        if (extra := imported_folders(f) - ALLOWED[f.relative_to(ROOT).parts[0]])
    }
    assert not wrong


def test_no_folder_hides_an_installed_package():
    assert not [f for folder in ORDER for f in (ROOT / folder).rglob("__init__.py")]
    assert not (ROOT / "chopmix" / "__init__.py").exists()
    code = (
        "import sys; sys.path.insert(0, '.'); import tokenizers, chopmix.tokenizers.encoding as ours;"
        "assert tokenizers.Tokenizer; assert 'site-packages' in tokenizers.__file__; print(ours.__name__)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "chopmix.tokenizers.encoding"


CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda f: str(f.relative_to(ROOT / "configs")))
def test_every_config_says_what_it_is_and_how_to_run_it(file):
    head = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert len(head) >= 3 and any(str(file.relative_to(ROOT)) in line for line in head)
    assert any(told in line for line in head for told in ("val/", "test/", "not run: needs"))


def test_the_help_needs_no_torch():
    code = "import sys; from chopmix.training.cli import parser; parser(); assert 'torch' not in sys.modules; print('fine')"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "fine"


def test_message_passing_fits_on_a_page_and_runs():
    """The file that a newcomer is told to read first: as a program its folder comes first on the path, with all of its names."""
    file = ROOT / "models" / "message_passing.py"
    assert len(file.read_text().splitlines()) <= 60
    found = subprocess.run([sys.executable, str(file)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "chops holds [3.0, 1.0] and hears [3.79, 0.21]"


def test_no_file_hides_a_module_of_the_standard_library():
    names = {part for file in FILES for part in (*file.relative_to(ROOT).parts[:-1], file.stem)}
    assert len(names) > 60 and not names & set(sys.stdlib_module_names)


def test_the_table_of_architectures_is_the_benchmarks():
    """Every row of the README's table is one that benchmarks/architectures.py makes, and none is missing."""
    source = (ROOT / "benchmarks" / "architectures.py").read_text()
    table = (ROOT / "README.md").read_text().split("<!-- architectures -->")[1].split("<!-- /architectures -->")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:]
    made = re.findall(r'^    "([^"]+)": \("(?:transformers|timm)"', source, re.MULTILINE)
    assert rows == made and len(rows) >= 10
