"""MOSES: the molecules of each split, and the errors for files that are missing or damaged."""

import gzip

import pytest
from chopmix.data.datasets import moses
from chopmix.data.datasets.moses import Moses
from chopmix.files.reading import DataError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root without the package molsets."""
    monkeypatch.setenv("CHOPMIX_DATA", str(tmp_path))
    monkeypatch.setattr(moses, "find_spec", lambda name: None)
    (tmp_path / "moses").mkdir()
    return tmp_path / "moses"


def test_missing_files_are_named_with_the_command_that_installs_them(root):
    """It installs into the environment that `uv run` uses: `pip` may belong to another Python."""
    with pytest.raises(DataError, match=r"train\.csv\.gz is missing: `uv pip install --no-deps molsets` installs it"):
        Moses().path("train")


def test_every_line_below_the_header_is_a_molecule_of_one_split(root):
    molecules = [f"{'C' * n}O" for n in range(1, 400)]
    for name in ("train", "test"):
        (root / f"{name}.csv.gz").write_bytes(gzip.compress("\n".join(["SMILES", *molecules, ""]).encode()))
    texts = {split: [document.text for document in Moses().documents(split)] for split in Moses.splits}
    assert sorted(texts["train"] + texts["val"]) == sorted(molecules) and texts["test"] == molecules and texts["val"]
    (root / "test.csv.gz").write_bytes(b"no")
    with pytest.raises(DataError, match=r"test\.csv\.gz cannot be read"):
        list(Moses().documents("test"))
