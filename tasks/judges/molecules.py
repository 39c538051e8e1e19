"""RDKit as the judge of generated molecules: are they valid, different from each other, and new?"""

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
"""The most letters of a SMILES that RDKit reads: a tenth of a second, and eight times as long for twice as many."""


class Molecules(Judge):
    """Of generated SMILES the share that RDKit reads as a molecule (`_valid`); of these the share of different ones
    (`_unique`); and of the different ones the share that is not in the training data (`_novel`): the definitions of
    MOSES (Polykovskiy et al. 2020, arXiv:1811.12823). Two SMILES are one molecule where their canonical forms agree;
    for `_novel` the training data's are taken as they are. A SMILES of more than `LONGEST` letters is not read, and so
    is not valid. Needs the extra `molecules`."""

    def __init__(self):
        self.known = np.zeros(0, np.uint64)

    @property
    def figures(self) -> Mapping[str, Figure]:
        return {name: Figure("share of molecules", larger_is_better=True) for name in ("_valid", "_unique", "_novel")}

    def fit(self, open_run: Callable[[str | Path], RunPart], data: TrainingItems) -> None:
        canonical("C")
        self.known = np.unique(np.fromiter(map(digest, texts(data.items())), np.uint64))

    def save(self, folder: Path) -> None:
        write_bytes(folder / "training.u64", self.known.astype("<u8").tobytes())

    def load(self, folder: Path, open_run: Callable[[str | Path], RunPart]) -> None:
        file = folder / "training.u64"
        content = read_bytes(file) if file.is_file() else b"-"
        if len(content) % 8:
            raise DataError(f"{file} is missing or damaged: the training data's molecules stand there; copy whole runs")
        self.known = np.frombuffer(content, "<u8")

    def judge(self, generated: Sequence[Generated], vocabulary: Vocabulary) -> dict[str, float]:
        valid = [found for each in generated if (found := canonical(each.item or ""))]
        different = sorted(set(valid))
        new = ~np.isin(np.array([digest(smiles) for smiles in different], np.uint64), self.known)
        return {
            "_valid": len(valid) / max(len(generated), 1), "_unique": len(different) / max(len(valid), 1),
            "_novel": float(new.sum()) / max(len(different), 1),
        }  # fmt: skip


def canonical(smiles: str) -> str | None:
    """RDKit's canonical form of a SMILES; None for a text that is none, or has more than `LONGEST` letters. Raises
    DataError where RDKit is not installed."""
    try:
        from rdkit import Chem, rdBase
    except ImportError:
        raise DataError("molecules are judged by the package rdkit: pip install 'chopmix[molecules]'") from None
    with rdBase.BlockLogs():
        found = Chem.MolFromSmiles(smiles) if 0 < len(smiles) <= LONGEST else None
        return None if found is None else Chem.MolToSmiles(found)


def texts(items: Iterable[Any]) -> Iterator[str]:
    """The items. Raises ValueError for one that is no text."""
    for item in items:
        if not isinstance(item, str):
            raise ValueError(f"molecules are texts (SMILES); an item of the target is {described(item)}")
        yield item


def digest(smiles: str) -> int:
    """The first 8 bytes of the sha256 of a text."""
    return int.from_bytes(hashlib.sha256(smiles.encode()).digest()[:8], "little")
