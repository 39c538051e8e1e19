"""A judge that measures with RDKit how many generated molecules are valid, unique and novel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...files.reading import DataError, read_bytes
from ...files.writing import write_bytes
from ...models.contract import described
from ...tokenizers.base import RunPart
from ...tokenizers.encoding.base import Vocabulary
from ..judging import Figure, Generated, Judge, TrainingItems

LONGEST = 2000
"""The largest number of characters of a SMILES that is parsed. RDKit takes 0.1 s for this length, and 0.8 s for twice
this length."""


class Molecules(Judge):
    """Three shares, as defined by MOSES (Polykovskiy et al. 2020, arXiv:1811.12823). `_valid`: the share of generated
    SMILES that RDKit parses as a molecule. `_unique`: the number of distinct molecules, divided by the number of valid
    SMILES. `_novel`: the share of the distinct molecules that are not in the training data. Two SMILES are the same
    molecule if their canonical forms are equal; the SMILES of the training data are compared as they are, without
    conversion. A SMILES of more than `LONGEST` characters is not valid. This judge needs the extra `molecules`."""

    def __init__(self):
        self.training_digests = np.zeros(0, np.uint64)

    @property
    def figures(self) -> Mapping[str, Figure]:
        return {name: Figure("share of molecules", larger_is_better=True) for name in ("_valid", "_unique", "_novel")}

    def fit(self, open_run: Callable[[str | Path], RunPart], data: TrainingItems) -> None:
        canonical("C")
        self.training_digests = np.unique(np.fromiter(map(digest, texts(data.items())), np.uint64))

    def save(self, folder: Path) -> None:
        write_bytes(folder / "training.u64", self.training_digests.astype("<u8").tobytes())

    def load(self, folder: Path, open_run: Callable[[str | Path], RunPart]) -> None:
        file = folder / "training.u64"
        content = read_bytes(file) if file.is_file() else b"-"
        if len(content) % 8:
            raise DataError(f"{file} is missing or damaged; copy complete run folders")
        self.training_digests = np.frombuffer(content, "<u8")

    def judge(self, generated: Sequence[Generated], vocabulary: Vocabulary) -> dict[str, float]:
        valid = [smiles for sample in generated if (smiles := canonical(sample.item or ""))]
        distinct = sorted(set(valid))
        novel = ~np.isin(np.array([digest(smiles) for smiles in distinct], np.uint64), self.training_digests)
        return {
            "_valid": len(valid) / max(len(generated), 1), "_unique": len(distinct) / max(len(valid), 1),
            "_novel": float(novel.sum()) / max(len(distinct), 1),
        }  # fmt: skip


def canonical(smiles: str) -> str | None:
    """Returns RDKit's canonical form of a SMILES. Returns None if RDKit cannot parse it, if it is empty, or if it has
    more than `LONGEST` characters. Raises DataError if RDKit is not installed."""
    try:
        from rdkit import Chem, rdBase
    except ImportError:
        raise DataError("the judge molecules needs the package rdkit: pip install 'chopmix[molecules]'") from None
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles) if 0 < len(smiles) <= LONGEST else None
        return None if molecule is None else Chem.MolToSmiles(molecule)


def texts(items: Iterable[Any]) -> Iterator[str]:
    """Yields the items unchanged. Raises ValueError if an item is not a text."""
    for item in items:
        if not isinstance(item, str):
            raise ValueError(f"molecules must be texts (SMILES); an item of the target is {described(item)}")
        yield item


def digest(smiles: str) -> int:
    """Returns the first 8 bytes of the SHA-256 of a text as an unsigned integer."""
    return int.from_bytes(hashlib.sha256(smiles.encode()).digest()[:8], "little")
