"""A Hugging Face directory, read through the one door, and what an importer makes of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from torch import Tensor

from ...models.pretrained.base import Architecture
from ...tokenizers.encoding.base import Encoding
from ...tokenizers.files.reading import LARGE, read_bytes
from ...tokenizers.files.records import Record, as_record, read_json, read_record, read_tensors
from ..folder.reading import RunError

R = TypeVar("R", bound=BaseModel)
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files of weights that could execute code."""
BESIDE = (
    "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
)  # fmt: skip
"""What describes a model beside its weights."""
KEPT, RECORD, ORIGINALS = "imported", "record.json", "originals.safetensors"
"""The folder of a run in which its directory's own small files are, so that it can be exported as it was; and two
files there."""


class Index(Record):
    """`model.safetensors.index.json`: the file of every tensor."""

    weight_map: dict[str, str]


@dataclass(frozen=True)
class Directory:
    """A directory with `config.json` and `model.safetensors` (sharded or not). Its readers raise DataError or
    RunError."""

    path: Path

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return os.path.isfile(self.path / name)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """What `config.json` holds. Raises RunError where the directory is none that can be imported, saying
        what it is."""
        if os.path.isfile(self.path):
            raise RunError(f"{self.path} is a file; import a directory with config.json and model.safetensors")
        if not self.has("config.json"):
            kind = "; its model.bin is CTranslate2's (faster-whisper): convert the original weights"
            kind *= self.has("model.bin")
            raise RunError(f"{self.path} has no config.json; a Hugging Face model directory has one{kind}")
        found = read_json(self.path / "config.json")
        if not isinstance(found, dict):
            raise RunError(f"{self.path / 'config.json'}: a mapping is expected, not {type(found).__name__}")
        if self.has("model.bin") and not {"model_type", "architecture"} & found.keys():
            raise RunError(
                f"{self.path} is a CTranslate2 directory (model.bin, as faster-whisper has it), which is not "
                "read; import the "
                "original directory with model.safetensors"
            )
        return found

    def record(self, name: str, kind: type[R]) -> R:
        """A JSON file as a record; as its defaults where there is none."""
        return read_record(self.path / name, kind) if self.has(name) else as_record("{}", kind, name)

    def beside(self) -> dict[str, bytes]:
        """The small files that describe the model, as they are."""
        return {name: read_bytes(self.path / name, LARGE) for name in BESIDE if self.has(name)}

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors: of `model.safetensors`, or of the shards that its index names, which lie beside it."""
        if self.has("model.safetensors"):
            names = ["model.safetensors"]
        elif self.has("model.safetensors.index.json"):
            names = sorted(set(read_record(self.path / "model.safetensors.index.json", Index).weight_map.values()))
        else:
            raise RunError(f"{self.path} has no model.safetensors and no model.safetensors.index.json{self._pickled()}")
        found: dict[str, Tensor] = {}
        for name in names:
            if Path(name).name != name or not self.has(name):
                raise RunError(f"{self.path} lacks the shard {name!r} that its index names")
            found |= read_tensors(self.path / name)
        return found

    def _pickled(self) -> str:
        """What to do where the weights lie in a file that could execute code."""
        pickled = next(filter(self.has, PICKLED), None)
        if pickled is None:
            return ""
        return (
            f"; {pickled} is not read, since it can execute code: save it once with transformers "
            "(`from_pretrained(DIR).save_pretrained(NEW)`), and copy the tokenizer's files beside it"
        )


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an importer makes of a directory: everything, besides the tensors, that a run is written from."""

    what: str
    """The architecture, in a word."""
    architecture: Architecture
    encoding: Encoding | None = None
    """Of the first input of text, and of those that share its tokenizer."""
    tokenizer: str = ""
    """Which file the encoding was read from, to be told."""
    rows: int = 0
    """How many rows its table of embeddings has, which may be more than it has ids."""
    labels: Sequence[str | int] = ()
    """The classes of a classification."""
    headless: str | None = None
    """The task whose head a directory may lack altogether, since the model is of use without."""
