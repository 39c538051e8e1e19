"""The documentation as a whole: it builds strictly, loads nothing from other hosts, and covers every part; the README
is short, and its pictures exist."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest
import yaml
from checkout import ROOT

sys.path.insert(0, str(ROOT / "docs" / "tools"))
import reference as pages
from chopmix.experiment.explain import graphs
from chopmix.experiment.settings.reference import reference
from chopmix.experiment.settings.schema import reader
from chopmix.experiment.settings.sections import sections
from pydantic import TypeAdapter, ValidationError

README = (ROOT / "README.md").read_text()


@pytest.mark.system
def test_the_documentation_builds_strictly_and_loads_nothing(tmp_path):
    """The build takes less than a minute of CPU time; all scripts, styles and pictures are inside the folder."""
    pytest.importorskip("furo", reason="needs uv sync --group docs")
    before = time.process_time()
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "-E", str(ROOT / "docs"), str(tmp_path / "build")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.process_time() - before < 60
    files = [*(tmp_path / "build").rglob("*.html")]
    assert len(files) > 30
    for file in files:
        text = file.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]* src=\"([^\"]+)\"", text)
        loaded += re.findall(r"<link[^>]* rel=\"(?:stylesheet|preload|preconnect|icon)[^>]* href=\"([^\"]+)\"", text)
        assert [address for address in loaded if re.match(r"(https?:)?//", address)] == [], file
    assert (tmp_path / "build" / "attention.html").read_text().count("<figure class='drawing'>") > 10


def test_the_reference_has_every_part_with_a_valid_example():
    """Each example names its part and is valid, except that keys of `model` may be missing."""
    _, entries = reference()
    readers = {name: TypeAdapter(reader(*key)) for name, key in sections().items()}
    assert len(entries) > 120
    for entry in entries:
        text = pages.example_of(entry)
        ((section, value),) = yaml.safe_load(text).items()
        assert section == entry.path.split(".")[0], entry.title
        assert entry.name in text and len(text) < 1200, entry.title
        try:
            readers[section].validate_python(value)
        except ValidationError as error:
            problems = [each["msg"] for each in error.errors()]
            assert section == "model" and all(each.startswith("model needs ") for each in problems), (
                entry.title,
                problems,
            )


def test_every_graph_has_a_mask():
    assert {*graphs()} == {*pages.MASKS}


def test_every_page_is_in_the_table_of_contents():
    listed = set(re.findall(r"^([\w/]+)$", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE))
    assert {file.stem for file in (ROOT / "docs").glob("*.md")} - {"index"} == listed - {"reference/index"}


def test_the_readme_is_short_and_its_pictures_exist():
    """The README has at most 200 lines, and five sections with at most five commands and a picture with a text."""
    assert len(README.splitlines()) <= 200
    sections = re.split(r"^## ", README, flags=re.MULTILINE)[1:]
    users = [section for section in sections if section.startswith("For ")]
    assert len(users) == 5
    for section in users:
        (block,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
        assert 1 <= len(block.splitlines()) <= 5 and "<img" in section, section.splitlines()[0]
    pictures = re.findall(r"<img src=\"([^\"]+)\"[^>]* alt=\"([^\"]{40,})\"", README)
    assert len(pictures) == README.count("<img")
    for file, _ in pictures:
        assert (ROOT / file).stat().st_size <= 1_000_000, file
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert len(links) > 15 and [link for link in links if not (ROOT / link).exists()] == []
