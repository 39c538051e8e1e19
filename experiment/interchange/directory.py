"""A directory of published weights: its files, its configuration, and the run that is created from it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from einops import EinopsError
from pydantic import BaseModel
from torch import Tensor

from ...files.errors import RunError
from ...files.printing import listed
from ...files.reading import read_bytes
from ...files.records import Record, as_record, read_json, read_record, read_tensors, write_tensors
from ...files.trust import NOTHING, Trust
from ...files.writing import make_folder, write_json
from ...models.model import Model
from ...models.pretrained.base import Architecture, Translated, translate
from ...tasks.base import Task
from ...tasks.classification import Classes
from ...tokenizers.base import Chopper
from ...tokenizers.encoding.base import Encoding, NumberEncoding
from ...tokenizers.encoding.directory import VOCABULARY
from ...tokenizers.text import TextChopper
from ...training.accounting import parameters_by_part
from ..build import build_model, build_tasks
from ..run_folder import write_model_run
from ..settings.config import Config, config_from_tree
from ..settings.registry import Folder

R = TypeVar("R", bound=BaseModel)
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files with pickled weights. They can execute code and are never read."""
SMALL_FILES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
)  # fmt: skip
"""The small files that describe a model, its preprocessing and its tokenizer."""
TIMM = "timm"
"""The name of a directory that timm wrote, in the table of importers. Its `config.json` has the key `architecture`
instead of `model_type`."""
KEPT, RECORD, ORIGINALS = "imported", "record.json", "originals.safetensors"
"""`RUN/imported/` contains the directory's small files, `record.json` (`export.Kept`) and `originals.safetensors`. An
export restores the directory from these files."""


class Index(Record):
    """`model.safetensors.index.json`: `{"weight_map": {"wte.weight": "model-00001-of-00002.safetensors", ...}}`."""

    weight_map: dict[str, str]


@dataclass(frozen=True)
class Directory:
    """A directory with `config.json` and `model.safetensors` (in one file or in several shards). Its methods raise
    DataError for damaged files, RunError for missing files."""

    path: Path
    trust: Trust = NOTHING
    """The hosts from which missing files may be downloaded."""

    def has(self, name: str) -> bool:
        """Returns whether the directory has a file with this name."""
        return os.path.isfile(self.path / name)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The mapping in `config.json`. Raises RunError if this file is missing or is not a mapping, if the path is a
        file, or if the directory has the format of CTranslate2."""
        if os.path.isfile(self.path):
            raise RunError(f"{self.path} is a file; import a directory with config.json and model.safetensors")
        if not self.has("config.json"):
            hint = "; its model.bin has the format of CTranslate2 (faster-whisper): import the original directory"
            hint *= self.has("model.bin")
            raise RunError(f"{self.path} has no config.json; a Hugging Face model directory has one{hint}")
        config = read_json(self.path / "config.json")
        if not isinstance(config, dict):
            raise RunError(f"{self.path / 'config.json'}: a mapping is expected, not {type(config).__name__}")
        if self.has("model.bin") and not {"model_type", "architecture"} & config.keys():
            raise RunError(
                f"{self.path} has the format of CTranslate2 (model.bin, as for faster-whisper), which cannot be read; "
                "import the original directory with model.safetensors"
            )
        return config

    def record(self, name: str, kind: type[R]) -> R:
        """Returns a JSON file as a record of the type `kind`. If the file does not exist, returns a record with the
        default values."""
        return read_record(self.path / name, kind) if self.has(name) else as_record("{}", kind, name)

    def small_files(self) -> dict[str, bytes]:
        """Returns the content of each file in SMALL_FILES that the directory has, by file name."""
        return {name: read_bytes(self.path / name, VOCABULARY) for name in SMALL_FILES if self.has(name)}

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors on the CPU, by name. They are read from `model.safetensors`, or from the shards that
        `model.safetensors.index.json` names."""
        if self.has("model.safetensors"):
            names = ["model.safetensors"]
        elif self.has("model.safetensors.index.json"):
            names = sorted(set(read_record(self.path / "model.safetensors.index.json", Index).weight_map.values()))
        else:
            raise RunError(f"{self.path} has no model.safetensors and no model.safetensors.index.json{self._pickled()}")
        tensors: dict[str, Tensor] = {}
        for name in names:
            if Path(name).name != name or not self.has(name):
                raise RunError(f"{self.path} lacks the shard {name!r} that its index names")
            tensors |= read_tensors(self.path / name)
        return tensors

    def _pickled(self) -> str:
        """Returns advice for a message if the directory has pickled weights. Otherwise returns an empty text."""
        pickled = next(filter(self.has, PICKLED), None)
        if pickled is None:
            return ""
        return (
            f"; {pickled} is not read, since it can execute code: save it once with transformers "
            "(`from_pretrained(DIR).save_pretrained(NEW)`), and copy the tokenizer's files to NEW"
        )


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The result of an importer: everything from which a run is written, except the tensors."""

    what: str
    """The name of the architecture, for messages: `GPT-2`."""
    architecture: Architecture
    encoding: Encoding | None = None
    """The encoding of all inputs of text; None if there are no such inputs."""
    tokenizer: str = ""
    """The file name of the encoding, for messages."""
    labels: Sequence[str | int] = ()
    """The classes of a classification, in the order of the model's scores. Empty if there is no classification."""
    headless: str | None = None
    """The task whose head may be missing (`mlm` of a BERT), since the hidden vectors of the model are useful without a
    head. None: no head may be missing."""


@cache
def architectures() -> tuple[type[Architecture], ...]:
    """Returns all published architectures, those in `models/pretrained/` and those of the projects. A class precedes
    its base classes, since an export uses the first architecture that fits."""
    files = Folder(
        "models.pretrained", "architecture", lambda kind: issubclass(kind, Architecture) and "kinds" in vars(kind)
    )
    kinds = [kind for name in files.stems() for kind in files.classes(name)]
    return tuple(sorted(kinds, key=lambda kind: -len(kind.__mro__)))


def prepared(imported: Imported, folder: Path) -> tuple[Config, dict[str, Chopper], dict[str, Task]]:
    """Returns (config, choppers, tasks) of the run that is written to `folder`. The task `label` has the classes of
    `imported`."""
    config = config_of(with_encoding(imported), folder)
    choppers = imported_choppers(config, imported.encoding)
    tasks = build_tasks(config, choppers)
    if imported.labels:
        tasks["label"].learned = Classes(tuple(imported.labels))
    return config, choppers, tasks


def imported_choppers(config: Config, encoding: Encoding | None) -> dict[str, Chopper]:
    """Returns the choppers of an imported run. Choppers of texts use `encoding`; all other choppers follow from the
    configuration alone, without data."""
    choppers, roles = {}, config.wiring.roles
    for name, part in config.inputs.items():
        preprocessor = part.of(part.target.Chopper)()
        reads_text = preprocessor.kind == "text" and encoding is not None
        chopper = TextChopper.of(encoding, roles[name]) if reads_text else preprocessor.fit(tuple, roles[name])
        choppers[name] = preprocessor.placed(chopper)
    return choppers


def config_of(tree: Mapping[str, Any], out: Path) -> Config:
    """Returns the configuration of a run in the folder `out`, without a data set. `tree` has the sections `inputs`,
    `model`, `tasks` and possibly `data`. Raises ConfigError with all problems."""
    training = {"steps": 1, "samples_per_step": 1}
    return config_from_tree({"data": {}, **tree, "training": training, "out": str(out)}, out / "config.yaml")


def with_encoding(imported: Imported) -> Mapping[str, Any]:
    """Returns the architecture's YAML tree, in which the first input of text has the name of the encoding. If the
    model's embedding table (`vocab_size`) and the encoding have different numbers of ids, the input also has
    `pad_vocabulary_to`."""
    tree, encoding = imported.architecture.tree(), imported.encoding
    if encoding is None:
        return tree
    name = next(name for name, options in tree["inputs"].items() if options.get("use") == "text")
    options = {**tree["inputs"][name], "encoding": encoding.name}
    if isinstance(encoding, NumberEncoding):
        options["vocabulary"] = encoding.size
    elif encoding.size != imported.architecture.vocab_size:
        options["pad_vocabulary_to"] = imported.architecture.vocab_size
    return {**tree, "inputs": {**tree["inputs"], name: options}}


def write_run(source: Directory, folder: Path, imported: Imported, partly: bool = False) -> str:
    """Load the weights into a model and write the model as a run. Returns a sentence about what was imported. Raises
    RunError for missing or unexpected tensors (unless `partly`) and for a tensor of another shape. Raises OSError if
    the run cannot be written; the folder is then removed."""
    config, choppers, tasks = prepared(imported, folder)
    weights = translated_weights(source, imported)
    sizes = config.model.options
    layers = sizes["depth"] + (sizes["encoder"].depth if sizes["encoder"] else 0)
    if layers > len(weights.tensors) and not partly:  # checked before the layers are built
        raise RunError(f"{source.path}: {layers:,} layers, but the weights have only {len(weights.tensors):,} tensors")
    with torch.device("meta"):  # uses no memory: a config.json may name any size
        missing, extra = compare(build_model(config, choppers, tasks), weights, source.path, partly, imported.headless)
    model = build_model(config, choppers, tasks)
    fill(model, weights)
    files, (record, tensors) = source.small_files(), originals(imported, model, source.tensors, weights.called)
    extra_state = {"imported": source.path.name, "tokenizer": imported.tokenizer, "missing": missing}
    make_folder(folder)
    try:
        write_model_run(folder, config, choppers, tasks, model, extra_state)
        keep_originals(folder / KEPT, files, record, tensors)
    except OSError as error:  # such as a full disk: an incomplete run is removed
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(error.errno, f"{folder} cannot be written: {error.strerror}; the folder was removed") from error
    size = f"{sum(parameters_by_part(model).values()):,} parameters, context {model.context}"
    summary = f"imported {source.path} into {folder}: {imported.what}, {size}"
    return "; ".join([summary, *import_report(imported, missing, extra, weights.ignored_tensors)])


def keep_originals(folder: Path, files: Mapping[str, bytes], record: Mapping, tensors: Mapping[str, Tensor]) -> None:
    """Write the files from which an export restores the directory (see `KEPT`)."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_json(folder / RECORD, record)
    write_tensors(folder / ORIGINALS, tensors)


def translated_weights(source: Directory, imported: Imported) -> Translated:
    """Returns the directory's tensors with the names that `Model` uses. Raises RunError if the tensors do not fit the
    architecture."""
    try:
        return translate(imported.architecture.names(), source.tensors)
    except (RuntimeError, IndexError, TypeError, KeyError) as error:  # the shapes do not fit the architecture
        raise RunError(f"{source.path}: its tensors do not fit a {imported.what}: {error}") from None
    except (EinopsError, ValueError) as error:
        raise RunError(f"{source.path}: {error}") from None


def compare(
    model: Model, weights: Translated, source: Path, partly: bool, headless: str | None
) -> tuple[list[str], list[str]]:
    """Returns (missing, extra): the names of the model's tensors that the weights lack, and the names of unexpected
    tensors. The complete head of the task `headless` may be missing. Raises RunError for other missing or unexpected
    tensors (unless `partly`), and for a tensor of another shape."""
    expected, tensors = model.state_dict(), weights.tensors
    missing, extra = (
        sorted(expected.keys() - tensors.keys()),
        sorted([*(tensors.keys() - expected.keys()), *weights.unknown]),
    )
    only_head_missing = missing == sorted(name for name in expected if name.startswith(f"heads.{headless}."))
    if ((missing and not only_head_missing) or extra) and not partly:
        raise RunError(f"{source}: missing {listed(missing)}, unexpected {listed(extra)} (--partly imports the rest)")
    for name in expected.keys() & tensors.keys():
        if expected[name].shape != tensors[name].shape:
            shape = f"has shape {tuple(tensors[name].shape)}, expected {tuple(expected[name].shape)}"
            raise RunError(f"{source}: {name} {shape}")
    return missing, extra


@torch.no_grad()
def fill(model: Model, weights: Translated) -> None:
    """Copy the weights into the model. `compare` must have checked the weights."""
    for name, parameter in model.state_dict().items():
        if name in weights.tensors:
            parameter.copy_(weights.tensors[name])


def originals(
    imported: Imported, model: Model, tensors: Mapping[str, Tensor], original_names: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns (record, copies), from which an export restores the directory's tensors bit for bit: the record (see
    `export.Kept`), and copies of the tensors that cannot be computed exactly from the model's weights, such as
    positions to which a constant was added.

    `tensors` are the directory's tensors by their names. `original_names` maps names in the architecture's table to
    names in the directory."""
    back = translate(imported.architecture.names(), model.state_dict(), back=True).tensors
    stored = {name: tensors[original_names[name]] for name in back.keys() & original_names.keys()}
    types = {
        name: (original_names[name], str(value.dtype).removeprefix("torch.")) for name, value in sorted(stored.items())
    }
    config = imported.architecture.model_dump(exclude_none=True)
    record = {"kind": type(imported.architecture).__name__, "config": config, "tensors": types}
    changed = [name for name, value in stored.items() if not torch.equal(back[name].to(value.dtype), value)]
    return record, {original_names[name]: stored[name] for name in changed}


def import_report(
    imported: Imported, missing: Sequence[str], extra: Sequence[str], ignored_tensors: Sequence[str]
) -> list[str]:
    """Returns sentences about an import: its tokenizer, missing and unexpected tensors, and tensors that are not
    needed."""
    sentences = [f"tokenizer: {imported.tokenizer}"] if imported.tokenizer else []
    if imported.headless and missing and all(name.startswith(f"heads.{imported.headless}.") for name in missing):
        sentences += [f"the directory has no head for {imported.headless!r}: `chopmix embed` works, predictions do not"]
    elif missing:
        sentences += [f"missing {listed(missing)}: random initial values"]
    sentences += [f"unexpected {listed(extra)}: not read"] if extra else []
    return sentences + ([f"not needed and not read: {listed(ignored_tensors)}"] if ignored_tensors else [])
