"""A Hugging Face directory, read through the one door; and the run that is made of what it says."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, RootModel
from torch import Tensor

from ...models.model import Model
from ...models.pretrained.described import Described, described
from ...models.pretrained.renaming import Weights
from ...tokenizers.base import Chopper
from ...tokenizers.encoding.base import Encoding, NumberEncoding
from ...tokenizers.files.reading import DataError
from ...tokenizers.files.records import Record, as_record, read_json, read_record, read_tensors
from ...tokenizers.files.writing import write_json
from ...training import checkpoint
from ...training.accounting import parameters_by_part
from ..build import build_choppers, build_model, build_tasks, with_roles
from ..folder.reading import RunError, fingerprints, listed
from ..settings.config import Config, config_from_tree, write_config

D = TypeVar("D", bound=Described)
R = TypeVar("R", bound=BaseModel)
Names = RootModel[dict[str, str]]
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files of weights that could execute code."""


class Index(Record):
    """`model.safetensors.index.json`: the file of every tensor."""

    weight_map: dict[str, str]


@dataclass(frozen=True)
class Directory:
    """A directory with `config.json` and `model.safetensors` (sharded or not). Its readers raise DataError or RunError."""

    path: Path

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return os.path.isfile(self.path / name)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """What `config.json` holds. Raises RunError where the directory is none that can be imported, saying what it is."""
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
                f"{self.path} is a CTranslate2 directory (model.bin, as faster-whisper has it), which is not read; import the "
                "original directory with model.safetensors"
            )
        return found

    def described(self, kind: type[D]) -> D:
        """`config.json` as the description of an architecture."""
        try:
            return described(kind, self.config)
        except ValueError as error:
            raise RunError(f"{self.path}/{error}") from None

    def record(self, name: str, kind: type[R]) -> R:
        """A JSON file as a record; as its defaults where there is none."""
        return read_record(self.path / name, kind) if self.has(name) else as_record("{}", kind, name)

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
    """What an importer makes of a directory: everything that a run is written from."""

    what: str
    """The architecture, in a word."""
    tree: Mapping[str, Any]
    """`inputs`, `model` and `tasks` of our YAML."""
    weights: Callable[[], Weights]
    encoding: Encoding | None = None
    """Of the first input, and of those that share its tokenizer, where that is a text."""
    tokenizer: str = ""
    """Which file the encoding was read from, to be told."""
    rows: int = 0
    """How many rows its table of embeddings has, which may be more than it has ids."""
    fitted: Mapping[str, Any] = field(default_factory=dict)
    """What an input has learned of its training data."""
    classes: Mapping[str, list] = field(default_factory=dict)
    """The classes of each classification."""
    headless: str | None = None
    """The task whose head a directory may lack altogether, since the model is of use without."""


def write_run(source: Path, folder: Path, made: Imported, partly: bool = False) -> str:
    """Fill a model with the weights and write it as a run; gives what was done in a sentence. Raises RunError for tensors that
    are missing or left over, unless it may be read `partly`, and for one of another shape."""
    config = imported_config(folder, made)
    choppers = imported_choppers(config, folder, made)
    tasks = build_tasks(config, choppers)
    for name, classes in made.classes.items():
        tasks[name].with_classes(classes)
    try:
        weights = made.weights()
    except (RuntimeError, IndexError, TypeError, KeyError) as error:  # shapes that are not the architecture's
        raise RunError(f"{source}: its tensors are not those of a {made.what}: {error}") from None
    except ValueError as error:
        raise RunError(f"{source}: {error}") from None
    model = build_model(config, choppers, tasks)
    missing, extra = _fill(model, weights.tensors, source, partly, f"heads.{made.headless}.")
    state = {
        "seconds": 0.0, "vocabularies": fingerprints(choppers), "data": {}, "imported": source.name,
        "tokenizer": made.tokenizer, "missing": missing,
    }  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, chopper in choppers.items():
            if name not in config.shares:
                chopper.save(folder / "assets" / name)
        for name, task in tasks.items():
            task.save(folder / "assets" / f"task-{name}")
        write_config(folder, config)
        checkpoint.save(folder, 0, {"model": model.state_dict()}, state)
        write_json(folder / "best.json", {"step": 0})
    except OSError as error:  # a full disk: half a run is worse than none
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(error.errno, f"{folder} cannot be written: {error.strerror}; nothing of it is kept") from error
    count = sum(parameters_by_part(model).values())
    said = [f"imported {source} into {folder}: {made.what}, {count:,} parameters, context {model.context}"]
    said += [f"tokenizer: {made.tokenizer}"] if made.tokenizer else []
    if made.headless and missing and all(name.startswith(f"heads.{made.headless}.") for name in missing):
        said += [
            f"the directory has no head for {made.headless!r}: `chopmix embed` gives vectors, nothing can be predicted"
        ]
    elif missing:
        said += [f"missing {listed(missing)}: as initialised"]
    said += [f"left over {listed(extra)}: not read"] if extra else []
    said += [f"not read, since nothing here has a use for it: {listed(weights.unread)}"] if weights.unread else []
    return "; ".join(said)


def imported_config(folder: Path, made: Imported) -> Config:
    """The configuration of an imported run. It has no data of its own."""
    tree = {name: dict(part) for name, part in made.tree.items()}
    if made.encoding is not None:
        name = text_of(made)
        options = dict(tree["inputs"][name]) | {"encoding": made.encoding.name}
        if isinstance(made.encoding, NumberEncoding):
            options["vocabulary"] = made.encoding.vocabulary
        elif made.encoding.vocabulary != made.rows:
            options["pad_vocabulary_to"] = made.rows
        tree["inputs"][name] = options
    training = {"steps": 1, "samples_per_step": 1}
    return config_from_tree(tree | {"data": {}, "training": training, "out": str(folder)}, folder / "config.yaml")


def text_of(made: Imported) -> str:
    """The name of the first input of text."""
    return next(name for name, options in made.tree["inputs"].items() if options.get("use") == "text")


def imported_choppers(config: Config, folder: Path, made: Imported) -> dict[str, Chopper]:
    """The choppers of an imported run, with what they know of the directory."""
    found = build_choppers(config, folder / "assets")
    if made.encoding is not None:
        name = text_of(made)
        sharing = [each for each in found if config.shares.get(each, each) == name]
        found |= {each: replace(found[each], fitted=made.encoding) for each in sharing}
    return with_roles(config, found | {name: replace(found[name], fitted=value) for name, value in made.fitted.items()})


@torch.no_grad()
def _fill(
    model: Model, weights: Mapping[str, Tensor], source: Path, partly: bool, head: str
) -> tuple[list[str], list[str]]:
    """Copy the weights into the model; gives the names of what was missing and of what was left over. What begins with `head` may
    be missing altogether."""
    own = model.state_dict()
    missing, extra = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    headless = missing == sorted(name for name in own if name.startswith(head))
    if ((missing and not headless) or extra) and not partly:
        raise RunError(
            f"{source}: missing {listed(missing)}, left over {listed(extra)} (--partly imports what there is)"
        )
    for name in own.keys() & weights.keys():
        if own[name].shape != weights[name].shape:
            raise RunError(
                f"{source}: {name} has shape {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
            )
        own[name].copy_(weights[name])
    return missing, extra


def check_fits(ids: int, size: int, file: str) -> None:
    """Raises DataError when a tokenizer has more ids than the model has rows."""
    if ids > size:
        raise DataError(f"{file} has {ids} ids, more than config.json's vocab_size ({size})")
