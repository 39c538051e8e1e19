"""Rules of the repository: packages, configurations, commands, tables of the README, recorded results, type checks."""

import ast
import re
import subprocess
import sys

import jaxtyping
import pytest
import shapes
from checkout import PACKAGES, ROOT, every_yaml

FILES = [file for folder in ["chopmix", *PACKAGES[1:]] for file in sorted((ROOT / folder).rglob("*.py"))]


def test_no_folder_hides_an_installed_package():
    assert not [f for folder in PACKAGES[1:] for f in (ROOT / folder).rglob("__init__.py")]
    code = (
        "import sys; sys.path.insert(0, '.'); import tokenizers, chopmix.tokenizers.encoding.base as ours;"
        "assert tokenizers.Tokenizer; assert 'site-packages' in tokenizers.__file__; print(ours.__name__)"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "chopmix.tokenizers.encoding.base"


CONFIGS = every_yaml()


@pytest.mark.parametrize("file", CONFIGS, ids=lambda f: str(f.relative_to(ROOT / "configs")))
def test_every_configuration_has_a_header_with_its_command_and_result(file):
    head = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert len(head) >= 3 and any(str(file.relative_to(ROOT)) in line for line in head)
    assert any(result in line for line in head for result in ("val/", "test/", "not run: needs"))


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["trian"], ["train", "x.yaml", "--steps", "3"]])
def test_help_and_mistyped_commands_do_not_import_torch(words):
    code = (
        "import sys; from chopmix.commands.cli import main\n"
        f"try: main({words})\n"
        "except SystemExit: assert not {'torch', 'tokenizers', 'yaml'} & set(sys.modules); print('fine')"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "fine"


@pytest.mark.parametrize("command, module", [("predict", "predict"), ("import", "import_model"), ("schema", "schema")])
def test_a_command_imports_the_file_of_no_other_command(command, module):
    code = (
        "import sys; from chopmix.commands.cli import parser\n"
        f"parser({command!r})\n"
        "print(*(name.partition('.commands.')[2] for name in sys.modules if '.commands.' in name))"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name for name in process.stdout.split() if not name.startswith("options")}
    assert loaded == {"cli", module}


def test_a_command_is_one_file_that_imports_no_other():
    from chopmix.commands.cli import ORDER, command_modules

    folders = [ROOT / "commands", *(ROOT / "projects").glob("*/commands")]
    files = {file.stem: file for folder in folders for file in folder.glob("*.py") if file.stem != "cli"}
    assert len(files) >= 11 and set(ORDER) <= set(command_modules()) == {stem.removesuffix("_model") for stem in files}
    for file in files.values():
        imported = {
            node.module
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.ImportFrom) and node.level == 1
        }
        assert all(name.startswith("options.") for name in imported), file
    for module in command_modules().values():
        assert module.HELP and callable(module.add_options) and callable(module.run)


def test_message_passing_fits_on_a_page_and_runs():
    """A newcomer reads this file first: if it is run as a program, its folder comes first in `sys.path`."""
    file = ROOT / "models" / "attention" / "message_passing.py"
    assert len(file.read_text().splitlines()) <= 75
    process = subprocess.run([sys.executable, str(file)], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = process.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[::4]] == ["Encoder (BERT, ViT)", "Cross-attention", "Causal (GPT)"]
    assert lines[1] == "chop  holds [4.0, 0.0] and receives [3.94, 0.06]"  # a small part of the next word
    assert lines[6] == "mix   holds [0.0, 4.0] and receives [1.0, 4.0]"  # the second word of the other text
    assert lines[9] == "chop  holds [4.0, 0.0] and receives [4.0, 0.0]"  # only the vector of this word
    assert lines[-1] == "chops holds [3.0, 1.0] and receives [3.79, 0.21]"


@pytest.mark.system
def test_the_tiny_gpt_fits_on_two_pages_and_learns_a_line():
    file = ROOT / "models" / "attention" / "tiny_gpt.py"
    assert len(file.read_text().splitlines()) < 120
    process = subprocess.run([sys.executable, str(file)], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = process.stdout.splitlines()
    assert lines[-1] == "chop up everything and throw it into the mix"
    first, last = (float(line.split()[3]) for line in (lines[0], lines[-2]))
    assert first > 2 > 0.1 > last


def test_no_file_hides_a_module_of_the_standard_library():
    names = {part for file in FILES for part in (*file.relative_to(ROOT).parts[:-1], file.stem)}
    assert len(names) > 60 and not names & set(sys.stdlib_module_names)


def test_the_tables_of_the_readme_equal_the_results(monkeypatch):
    """`benchmarks/readme_tables.py` makes every table, and the end of the comment at the head of a YAML, from
    `benchmarks/results/`."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import readme_tables
    from readme.figures import joined, newest
    from results import read_results

    text = "".join((ROOT / "docs" / name).read_text() for name in ("results.md", "text.md"))
    files = readme_tables.expected_files()
    assert ROOT / "configs" / "vision" / "mnist.yaml" in files and len(files) > 20
    assert [str(file.relative_to(ROOT)) for file, new in files.items() if file.read_text() != new] == []
    head = readme_tables.with_head("# A ViT.\n# Reached once: 0.5\n#   and more\ninputs: {}\n# end\n", "# Reached: 0.9")
    assert head == "# A ViT.\n# Reached: 0.9\ninputs: {}\n# end\n"
    figures = [("a 1", "seeds 0, 1"), ("b 2", "seeds 0, 1"), ("", ""), ("c 3", "seed 0")]
    assert joined(figures) == "a 1; b 2 (seeds 0, 1); c 3 (seed 0)"
    assert "| `configs/quickstart.yaml` | cross-modal" in text and "| GPT-2 | causal decoder |" in text
    assert all(row["difference"] < 1e-5 for row in newest(read_results("architectures"), "architecture"))
    changed = text.replace("| GPT-2 | causal decoder |", "| GPT-2 | encoder |")
    assert changed != text == readme_tables.with_tables(changed)


def test_results_are_only_added(tmp_path, monkeypatch):
    """Another measurement on the same day is a new row, and each row names the machine of the measurement."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import results

    monkeypatch.setattr(results, "FOLDER", tmp_path)
    for seed in (0, 0, 1):
        results.write_results("x", [{"seed": seed, "val/loss": 1.23456789, "left_out": "theo"}])
    rows = results.read_results("x")
    assert [row["held_out"] for row in rows] == ["theo"] * 3 and "left_out" not in rows[
        0
    ]  # the present name of the setting
    assert [row["seed"] for row in rows] == [0, 0, 1] and rows[0]["val/loss"] == 1.23457
    assert all(row[name] for row in rows for name in ("processor", "threads", "torch", "commit", "measured"))


def test_new_results_do_not_mark_a_commit_as_changed(tmp_path, monkeypatch):
    """`+` after a commit means that code changed since; new rows of results do not count."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import results

    monkeypatch.setattr(results, "FOLDER", tmp_path / "benchmarks" / "results")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    results.FOLDER.mkdir(parents=True)
    for name in ("train.py", "README.md", "benchmarks/LOG.md", "benchmarks/results/x.jsonl"):
        (tmp_path / name).write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    assert results.commit()[-1] != "+"
    for name in ("README.md", "benchmarks/LOG.md", "benchmarks/results/x.jsonl"):
        (tmp_path / name).write_text("2")
        assert results.commit()[-1] != "+"
    (tmp_path / "train.py").write_text("2")
    assert results.commit()[-1] == "+"


def test_all_names_in_contributing_exist():
    """`file.py`: `Class.method` in CONTRIBUTING.md: the file has this name."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    entries = re.findall(r"`([a-z_/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", text)
    assert len(entries) > 25
    for file, names in entries:
        tree = ast.parse((ROOT / file).read_text())
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        for owner in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            methods = [node for node in owner.body if isinstance(node, ast.FunctionDef)]
            defined |= {f"{owner.name}.{node.name}" for node in methods}
            fields = (
                node for node in owner.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            )
            defined |= {f"{owner.name}.{node.target.id}" for node in fields}
        for name in re.findall(r"`([\w.]+)`", names):
            assert name in defined or name in ("share.counts", "backward", "manual_seed"), f"{file} has no {name}"


def test_annotations_are_checked_while_tests_run():
    """The first calls in a test are all checked, later calls are checked sometimes."""
    from chopmix.models.initialization import checked_std

    refused = []
    for call in range(2_000):
        try:
            assert checked_std(name=b"no text", value=1.0) == 1.0
        except jaxtyping.TypeCheckError:
            refused.append(call)
    assert refused[: shapes.ALL] == list(range(shapes.ALL)) and 5 < len(refused) - shapes.ALL < 100
