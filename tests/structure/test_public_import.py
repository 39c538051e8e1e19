"""`import chopmix`: its public names, no other imports before they are used, and what a type checker of a user
reads."""

import ast
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import chopmix
import pytest
from checkout import ROOT
from chopmix.files.plugins import modules_of, projects

FUNCTIONS = {"load", "train", "evaluate", "predict", "generate"}
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def python(code: str, folder: Path = ROOT) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ------------------------------------------------------------------------------------------------------------ the names


def test_every_public_name_exists_for_the_interpreter_and_for_type_checkers():
    tree = ast.parse(Path(chopmix.__file__).read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imported = {(node.module, alias.asname) for node in checked.body for alias in node.names}
    assert imported == {(file, name) for file, names in chopmix._PUBLIC.items() for name in names}
    public = {(file, name) for file, names in chopmix._public().items() for name in names}
    assert set(dir(chopmix)) == {name for _, name in public} | {"__version__"} and set(dir(chopmix)) >= FUNCTIONS
    for _, name in public:
        assert getattr(chopmix, name).__name__ == name and getattr(chopmix, name).__doc__
    with pytest.raises(AttributeError, match="module 'chopmix' has no attribute 'laod'"):
        chopmix.laod  # noqa: B018
    assert sorted(file.name for file in (ROOT / "chopmix").glob("*.*")) == ["__init__.py", "py.typed"]


def test_all_files_name_the_same_version():
    assert chopmix.__version__ == importlib.metadata.version("chopmix")
    assert f"\nversion: {chopmix.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {chopmix.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_importing_chopmix_imports_nothing_large_and_hides_no_package(tmp_path):
    code = (
        "import sys; before = {*sys.modules}; import chopmix; chopmix.__version__; dir(chopmix)\n"
        "print(chopmix.DataError.__module__); assert not {'torch', 'yaml', 'numpy'} & {*sys.modules} - before\n"
        "import tokenizers; assert tokenizers.Tokenizer and 'site-packages' in tokenizers.__file__"
    )
    assert python(code) == python(code, tmp_path) == "chopmix.files.reading"


def test_a_checkout_works_before_it_is_installed():
    """Without the import finder of an editable installation."""
    code = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f).lower()]\n"
        "sys.argv = ['train.py', '--help']; import runpy; runpy.run_path('train.py', run_name='__main__')"
    )
    assert python(code).startswith("usage: chopmix train")


# -------------------------------------------------------------------------------------------------------- the functions


def test_a_run_can_be_trained_and_used(tiny, tmp_path):
    file, out = tiny(), tmp_path / "short"
    metrics = chopmix.train(file, training={"steps": 4}, model={"block.bias": False}, out=out, evaluation={"every": 4})
    summary = json.loads((out / "summary.json").read_text())
    assert metrics == summary and summary["step"] == 4
    assert (
        chopmix.train(file, training={"steps": 4}, model={"block.bias": False}, out=out, evaluation={"every": 4})
        == summary
    )
    run = chopmix.load(out, checkpoint="last")
    assert isinstance(run, chopmix.Run) and run.config.model.options["block"].options["bias"] is False
    assert chopmix.evaluate(run)["val/loss"] == pytest.approx(summary["val/loss"])
    assert chopmix.evaluate(out, data=str(tmp_path / "val.txt"))["val/loss"] == pytest.approx(summary["val/loss"])
    text = chopmix.generate(run, "chop", max_tokens=5, temperature=0)
    assert [text] == chopmix.generate(out, ["chop"], max_tokens=5, temperature=0) and 0 < len(text) <= 5
    with pytest.raises(chopmix.RunError, match="continues texts"):
        chopmix.predict(run, [{}], max_tokens=3)


def test_overrides_are_checked_like_those_of_the_command_line(tiny):
    with pytest.raises(chopmix.ConfigError, match="command line  model.widht: .* did you mean 'width'"):
        chopmix.train(tiny(), model={"widht": 8})
    with pytest.raises(chopmix.RunError, match="is not a run"):
        chopmix.load("nowhere")


def test_a_stopped_training_raises_an_exception(tiny, tmp_path, monkeypatch):
    """After the run was saved: without an exception, a loop over several runs would start the next."""
    for status, error in ((130, KeyboardInterrupt), (143, SystemExit)):
        monkeypatch.setattr(
            "chopmix.experiment.interface.train_config", lambda config, status=status, **more: ({}, status)
        )
        with pytest.raises(error):
            chopmix.train(tiny())


# ------------------------------------------------------------------------------------------ as others have it installed


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the code from which a wheel is built; skips without setuptools."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("source")
    for name in SETTINGS["package-dir"].values():
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def built(source: Path, kind: str, settings: dict[str, str]) -> Path:
    """The file that `pip install` would unpack: a wheel, or an editable wheel."""
    out = source / kind
    out.mkdir()
    code = f"import setuptools.build_meta as build; build.build_{kind}({str(out)!r}, {settings!r})"
    python(code, source)
    (wheel,) = out.glob("*.whl")
    return wheel


def test_the_wheel_contains_every_file(source, tmp_path):
    with zipfile.ZipFile(built(source, "wheel", {})) as wheel:
        contents = {name for name in wheel.namelist() if name.startswith("chopmix/")}
        wheel.extractall(tmp_path)
    folders = {name: package for package, name in SETTINGS["package-dir"].items() if package != "chopmix"}
    files = {
        f"chopmix/{file.relative_to(ROOT)}"
        for name in folders
        for file in (ROOT / name).rglob("*.py")
        if "tests" not in file.parts
    }
    files |= {f"chopmix/{file.relative_to(ROOT)}" for file in (ROOT / "configs").rglob("*.yaml")}
    files |= {f"chopmix/{file.relative_to(ROOT)}" for file in (ROOT / "inference" / "web").iterdir()}
    files |= {str(file.relative_to(ROOT)) for file in (ROOT / "chopmix" / "trained").rglob("*") if file.is_file()}
    files |= {str(file.relative_to(ROOT)) for file in (ROOT / "chopmix").rglob("*.py")} | {"chopmix/py.typed"}
    assert len(files) > 100 and contents == files
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from chopmix.files.plugins import *; " + (
        "print(sorted(modules_of('commands')), sorted(modules_of('data.datasets')), projects())"
    )
    here = sorted(modules_of("commands")), sorted(modules_of("data.datasets")), projects()
    assert python(code, tmp_path).split() == " ".join(map(str, here)).split()  # a wheel has all plug-ins


USER = """\
import chopmix
score: float = chopmix.load("runs/quickstart").evaluate("val")["val/loss"]
"""
MISTAKEN = """\
import chopmix
chopmix.laod("runs/x")
chopmix.load(3)
number: int = chopmix.generate("runs/x", "a")
"""


@pytest.mark.system
@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_a_users_file_is_type_checked(source, kind, tmp_path):
    """Outside of the checkout, in strict mode. mypy cannot follow setuptools' finder, so that an editable installation
    must consist of links."""
    pytest.importorskip("mypy")
    wheel = next((source / kind).glob("*.whl"), None) if (source / kind).exists() else None
    wheel = wheel or built(source, kind, {"editable_mode": "strict"} if kind == "editable" else {})
    venv.create(tmp_path / "venv")
    interpreter = tmp_path / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    where = subprocess.run(
        [interpreter, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(where.stdout.strip())
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "mistaken.py").write_text(MISTAKEN)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", interpreter, "user.py", "mistaken.py"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    errors = [line.partition(": error: ")[::2] for line in done.stdout.splitlines() if ": error: " in line]
    assert [place for place, _ in errors] == ["mistaken.py:2", "mistaken.py:3", "mistaken.py:4"], (
        done.stdout + done.stderr
    )
    assert 'has no attribute "laod"' in errors[0][1] and '"int"; expected "str | Path"' in errors[1][1]
    assert 'expression has type "str", variable has type "int"' in errors[2][1]
