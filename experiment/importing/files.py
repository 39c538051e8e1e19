"""A Hugging Face directory, of which nothing is executed, and the result of importing it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from torch import Tensor

from ...files.reading import read_bytes
from ...files.records import Record, as_record, read_json, read_record, read_tensors
from ...files.trust import NOTHING, Trust
from ...models.pretrained.base import Architecture
from ...tokenizers.encoding.base import Encoding
from ...tokenizers.encoding.directory import VOCABULARY
from ..run_folder import RunError

R = TypeVar("R", bound=BaseModel)
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
"""Pickled weights, which could execute code and are never read."""
BESIDE = (
    "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
)  # fmt: skip
"""The small files that describe a model, its preprocessing and its tokenizer."""
KEPT, RECORD, ORIGINALS = "imported", "record.json", "originals.safetensors"
"""`RUN/imported/` keeps the directory's small files, `record.json` (`export.Kept`) and `originals.safetensors`, so that
an export gives the directory back as it was."""


class Index(Record):
    """`model.safetensors.index.json`: `{"weight_map": {"wte.weight": "model-00001-of-00002.safetensors", ...}}`."""

    weight_map: dict[str, str]


@dataclass(frozen=True)
class Directory:
    """A directory with `config.json` and `model.safetensors` (sharded or not). Its methods raise DataError for damaged
    files, RunError for missing ones."""

    path: Path
    trust: Trust = NOTHING
    """The hosts from which what the directory lacks may be downloaded."""

    def has(self, name: str) -> bool:
        """Whether the directory has a file of this name."""
        return os.path.isfile(self.path / name)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The mapping in `config.json`. Raises RunError where there is none, the path is a file, or the directory is
        one of CTranslate2."""
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
                f"{self.path} is a CTranslate2 directory (model.bin, as faster-whisper has it), which is not read; "
                "import the original directory with model.safetensors"
            )
        return found

    def record(self, name: str, kind: type[R]) -> R:
        """A JSON file as a record of this kind; with its defaults where there is no such file."""
        return read_record(self.path / name, kind) if self.has(name) else as_record("{}", kind, name)

    def beside(self) -> dict[str, bytes]:
        """The content of the files in BESIDE that the directory has, by name."""
        return {name: read_bytes(self.path / name, VOCABULARY) for name in BESIDE if self.has(name)}

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, on the CPU: of `model.safetensors`, or of the shards that its index names."""
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
        """What to do where the weights are pickled, for the message."""
        pickled = next(filter(self.has, PICKLED), None)
        if pickled is None:
            return ""
        return (
            f"; {pickled} is not read, since it can execute code: save it once with transformers "
            "(`from_pretrained(DIR).save_pretrained(NEW)`), and copy the tokenizer's files beside it"
        )


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The result of an importer: everything, besides the tensors, that a run is written from."""

    what: str
    """The architecture's name, for messages: `GPT-2`."""
    architecture: Architecture
    encoding: Encoding | None = None
    """The encoding of all inputs of text; None where there are none."""
    tokenizer: str = ""
    """The file that the encoding was read from, for messages."""
    labels: Sequence[str | int] = ()
    """The classes of a classification, in the order of its scores."""
    headless: str | None = None
    """The task whose head a directory may lack altogether (`mlm` of a BERT): the model's vectors are of use without."""
