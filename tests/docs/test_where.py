"""The functions and tests that docs/where.md names exist."""

import re

import pytest
from checkout import ROOT

ROWS = [line for line in (ROOT / "docs" / "where.md").read_text().splitlines() if line.startswith("| W")]
FILE = r"`([\w/]+\.py)`"
"""The path of a file in a cell."""


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_the_files_of_an_answer_contain_its_functions(row):
    """A name in backticks belongs to the last file before it in the row."""
    *_, test, _ = row.split("|")
    assert re.search(FILE, test)
    _, *parts = re.split(FILE, row)
    for file, names in zip(parts[::2], parts[1::2]):
        text = (ROOT / file).read_text()
        for name in re.findall(r"`([A-Za-z_][\w.]*)`", names):
            last = name.split(".")[-1]
            assert re.search(rf"^\s*(def|class) {last}\b|\b{last} =|\b{last}:|\"{last}\"", text, re.MULTILINE), name


def test_every_question_is_answered():
    assert len(ROWS) >= 15
