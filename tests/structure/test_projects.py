"""Each project can be removed: it consists only of its folder and its configurations."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import PACKAGES, ROOT
from chopmix.experiment.settings.hints import PROJECTS, missing_project
from chopmix.files.plugins import FOLDER, modules_of, projects

PARTS = ("data.datasets", "tasks", "tokenizers", "inference.evaluators", "commands", "experiment.interchange.importers")
QUICK = ["-m", "pytest", "-q", "-m", "quick", "-n", "2", "--dist", "worksteal", "-p", "no:cacheprovider"]


def test_every_project_has_a_page_tests_and_configurations_or_a_command():
    assert projects() == sorted(PROJECTS) and FOLDER == ROOT
    for name in projects():
        folder = ROOT / "projects" / name
        page = (folder / "README.md").read_text()
        assert 20 <= len(page.splitlines()) <= 60 and list((folder / "tests").glob("test_*.py"))
        files = {file.name for file in folder.rglob("*.py") if "tests" not in file.parts}
        assert files <= set(re.findall(r"\w+\.py", page)), "the page names every file"


def test_the_core_names_no_module_of_a_project():
    files = [
        file
        for package in ("chopmix", *PACKAGES[1:-1])
        for file in sorted((ROOT / package).rglob("*.py"))
        if re.search(r"^\s*(from|import) [\w.]*projects\.\w", file.read_text(), re.MULTILINE)
    ]
    assert not files


def test_the_message_for_a_missing_part_names_its_project(monkeypatch):
    """`PROJECTS` has every part that a YAML, a command line or a published model can name."""
    for kind in PARTS:
        for part, module in modules_of(kind).items():
            if ".projects." in module:
                project = module.split(".")[2]
                assert part in PROJECTS[project] or kind.endswith("importers"), part
    monkeypatch.setattr("chopmix.experiment.settings.hints.projects", lambda: ["whisper"])
    assert missing_project("episodes") == (
        "'episodes' belongs to the project 'decision', which is not installed: no folder projects/decision"
    )
    assert missing_project("transcribe") == missing_project("mnist") == ""


@pytest.fixture
def without(tmp_path):
    """Makes a copy of the repository without a project and its configurations."""

    def copy(project: str) -> Path:
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        for file in files:
            removed = file.startswith((f"projects/{project}/", f"configs/{project}/"))
            if not removed and (ROOT / file).is_file():
                (tmp_path / "copy" / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / file, tmp_path / "copy" / file)
        return tmp_path / "copy"

    return copy


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.system
@pytest.mark.parametrize(
    ("project", "words", "message"),
    [
        ("decision", ["train", "configs/generalist/five.yaml", "--dry-run"],
         "data.dataset.of.cartpole.use: nothing is named 'episodes'; .*belongs to the project 'decision'"),
        ("decision", ["play", "runs/x"], "invalid choice: 'play' .*belongs to the project 'decision'"),
        ("in_context", ["train", "configs/quickstart.yaml", "evaluation.in_context=4", "--dry-run"],
         "evaluation.in_context: .*'in_context' belongs to the project 'in_context'"),
        ("whisper", ["transcribe", "runs/x", "a.wav"],
         "invalid choice: .transcribe. .*belongs to the project .whisper"),
    ],
)  # fmt: skip
def test_a_message_names_a_missing_project(without, project, words, message):
    folder = without(project)
    process = run(folder, "-c", f"import sys; from chopmix.commands.cli import main; sys.exit(main({words!r}))")
    assert process.returncode == 2 and re.search(message, " ".join(process.stderr.split())), process.stderr


@pytest.mark.system
@pytest.mark.parametrize("project", projects())
def test_a_project_can_be_removed(without, project):
    """The quick tests pass, and the schema of the YAML can be written, without its folder."""
    folder = without(project)
    schema = run(folder, "-c", "from chopmix.commands.cli import main; main(['schema'])")
    assert schema.returncode == 0 and "properties" in schema.stdout
    names = PROJECTS[project]
    assert not [name for name in names if f'"const": "{name}"' in schema.stdout]
    process = run(folder, *QUICK)
    assert process.returncode == 0, process.stdout[-3000:]
