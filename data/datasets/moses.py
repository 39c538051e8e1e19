"""MOSES: 1.9 million drug-like molecules as SMILES (Polykovskiy et al. 2020, arXiv:1811.12823). Each molecule is a
document."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from ...files.reading import DataError, read_lines, text_lines
from ..base import Dataset, Document, data_root
from ..fingerprint import hash_files
from ..key_hashes import share_by_hash

VAL = 0.01
"""The share of the molecules in the training file that are used for validation (selected by the hash of the SMILES)."""


class Moses(Dataset):
    """Reads `moses/train.csv.gz` and `moses/test.csv.gz` in the data root. A file that is missing there is read from
    the package molsets (`uv pip install --no-deps molsets`). After a header line `SMILES`, each line contains one
    SMILES."""

    splits = ("train", "val", "test")

    def path(self, split: str) -> Path:
        """Returns the path of the file of a split; `train` and `val` have the same file. Raises DataError if the split
        does not exist or the file is missing."""
        self.check_split(split)
        name = "test.csv.gz" if split == "test" else "train.csv.gz"
        package = find_spec("moses")
        folders = package.submodule_search_locations if package else ()
        shipped = [Path(folder) / "dataset" / "data" for folder in folders]
        for folder in (data_root() / "moses", *shipped):
            if (folder / name).exists():
                return folder / name
        raise DataError(f"{data_root() / 'moses' / name} is missing: `uv pip install --no-deps molsets` installs it")

    def documents(self, split: str) -> Iterator[Document]:
        path = self.path(split)
        lines = text_lines(read_lines(path), str(path))
        for smiles in filter(None, (line.strip() for line in islice(lines, 1, None))):
            if split == "test" or (share_by_hash(smiles) < VAL) == (split == "val"):
                yield Document(smiles, smiles)

    def source_hash(self, split: str) -> str:
        return hash_files([self.path(split)])

    def about(self) -> dict[str, object]:
        return {"packed_bytes": {split: self.path(split).stat().st_size for split in self.splits}}
