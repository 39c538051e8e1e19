"""A directory of published weights: its files, its configuration, and the run that is written from it."""

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
from ..run_folder import RunError, listed, write_model_run
from ..settings.config import Config, config_from_tree
from ..settings.registry import Folder

R = TypeVar("R", bound=BaseModel)
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
"""Pickled weights, which could execute code and are never read."""
BESIDE = (
    "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
)  # fmt: skip
"""The small files that describe a model, its preprocessing and its tokenizer."""
TIMM = "timm"
"""The kind of a directory that timm wrote: its `config.json` has an `architecture` instead of a `model_type`."""
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


@cache
def architectures() -> tuple[type[Architecture], ...]:
    """All published architectures, those of `models/pretrained/` and of the projects; a class before its bases, since
    an export takes the first that fits."""
    files = Folder(
        "models.pretrained", "architecture", lambda each: issubclass(each, Architecture) and "kinds" in vars(each)
    )
    found = [each for name in files.stems() for each in files.classes(name)]
    return tuple(sorted(found, key=lambda each: -len(each.__mro__)))


def prepared(made: Imported, folder: Path) -> tuple[Config, dict[str, Chopper], dict[str, Task]]:
    """The configuration of the run that is written into `folder`, its choppers and its tasks, with their classes."""
    config = config_of(with_encoding(made), folder)
    choppers = imported_choppers(config, made.encoding)
    tasks = build_tasks(config, choppers)
    if made.labels:
        tasks["label"].learned = Classes(tuple(made.labels))
    return config, choppers, tasks


def imported_choppers(config: Config, encoding: Encoding | None) -> dict[str, Chopper]:
    """The choppers of an imported run: of texts with the directory's encoding, the others from the configuration
    alone, without data to fit on."""
    found, roles = {}, config.wiring.roles
    for name, part in config.inputs.items():
        preprocessor = part.of(part.target.Chopper)()
        reads_text = preprocessor.kind == "text" and encoding is not None
        made = TextChopper.of(encoding, roles[name]) if reads_text else preprocessor.fit(tuple, roles[name])
        found[name] = preprocessor.placed(made)
    return found


def config_of(tree: Mapping[str, Any], out: Path) -> Config:
    """The configuration of a run at `out` with the sections `inputs`, `model`, `tasks` and perhaps `data` of a tree,
    and without a data set. Raises ConfigError."""
    training = {"steps": 1, "samples_per_step": 1}
    return config_from_tree({"data": {}, **tree, "training": training, "out": str(out)}, out / "config.yaml")


def with_encoding(made: Imported) -> Mapping[str, Any]:
    """The architecture's tree, in which the first input of text names its encoding and, where the table of embeddings
    (`vocab_size`) has more rows than the encoding has ids, `pad_vocabulary_to`."""
    tree, encoding = made.architecture.tree(), made.encoding
    if encoding is None:
        return tree
    name = next(name for name, options in tree["inputs"].items() if options.get("use") == "text")
    options = {**tree["inputs"][name], "encoding": encoding.name}
    if isinstance(encoding, NumberEncoding):
        options["vocabulary"] = encoding.size
    elif encoding.size != made.architecture.vocab_size:
        options["pad_vocabulary_to"] = made.architecture.vocab_size
    return {**tree, "inputs": {**tree["inputs"], name: options}}


def write_run(source: Directory, folder: Path, made: Imported, partly: bool = False) -> str:
    """Load the weights into a model and write it as a run; gives a sentence that says what was read. Raises RunError
    for tensors that are missing or left over, unless `partly`, and for one of another shape, OSError where the run
    cannot be written (nothing of it is kept then)."""
    config, choppers, tasks = prepared(made, folder)
    weights = our_weights(source, made)
    sizes = config.model.options
    layers = sizes["depth"] + (sizes["encoder"].depth if sizes["encoder"] else 0)
    if layers > len(weights.tensors) and not partly:  # told before so many layers are made
        raise RunError(f"{source.path}: {layers:,} layers, but weights of {len(weights.tensors):,} tensors alone")
    with torch.device("meta"):  # without memory: a config.json may claim any size
        missing, extra = compare(build_model(config, choppers, tasks), weights, source.path, partly, made.headless)
    model = build_model(config, choppers, tasks)
    fill(model, weights)
    kept = source.beside(), *originals(made, model, source.tensors, weights.called)
    said = {"imported": source.path.name, "tokenizer": made.tokenizer, "missing": missing}
    make_folder(folder)
    try:
        write_model_run(folder, config, choppers, tasks, model, said)
        keep(folder / KEPT, *kept)
    except OSError as error:  # such as a full disk: half a run is worse than none
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(error.errno, f"{folder} cannot be written: {error.strerror}; nothing of it is kept") from error
    size = f"{sum(parameters_by_part(model).values()):,} parameters, context {model.context}"
    done = f"imported {source.path} into {folder}: {made.what}, {size}"
    return "; ".join([done, *import_report(made, missing, extra, weights.ignored_tensors)])


def keep(folder: Path, files: Mapping[str, bytes], record: Mapping, tensors: Mapping[str, Tensor]) -> None:
    """Write the files from which an export gives the directory back (see `files.KEPT`)."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_json(folder / RECORD, record)
    write_tensors(folder / ORIGINALS, tensors)


def our_weights(source: Directory, made: Imported) -> Translated:
    """The directory's tensors under the names of `Model`. Raises RunError where they are not the architecture's."""
    try:
        return translate(made.architecture.names(), source.tensors)
    except (RuntimeError, IndexError, TypeError, KeyError) as error:  # shapes that are not the architecture's
        raise RunError(f"{source.path}: its tensors are not those of a {made.what}: {error}") from None
    except (EinopsError, ValueError) as error:
        raise RunError(f"{source.path}: {error}") from None


def compare(
    model: Model, weights: Translated, source: Path, partly: bool, headless: str | None
) -> tuple[list[str], list[str]]:
    """The names of the model's tensors that the weights lack, and of those left over. The whole head of the task
    `headless` may be missing. Raises RunError for other missing or left-over tensors, unless `partly`, and for a tensor
    of another shape."""
    own, given = model.state_dict(), weights.tensors
    missing, extra = sorted(own.keys() - given.keys()), sorted([*(given.keys() - own.keys()), *weights.unknown])
    without = missing == sorted(name for name in own if name.startswith(f"heads.{headless}."))
    if ((missing and not without) or extra) and not partly:
        raise RunError(
            f"{source}: missing {listed(missing)}, left over {listed(extra)} (--partly imports what there is)"
        )
    for name in own.keys() & given.keys():
        if own[name].shape != given[name].shape:
            shape = f"has shape {tuple(given[name].shape)}, expected {tuple(own[name].shape)}"
            raise RunError(f"{source}: {name} {shape}")
    return missing, extra


@torch.no_grad()
def fill(model: Model, weights: Translated) -> None:
    """Copy the weights, which were compared with it, into the model."""
    for name, own in model.state_dict().items():
        if name in weights.tensors:
            own.copy_(weights.tensors[name])


def originals(
    made: Imported, model: Model, theirs: Mapping[str, Tensor], called: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What an export needs to give the directory's tensors back bit for bit: the record (see `export.Kept`), and copies
    of the tensors that cannot be computed back exactly, such as positions to which something was added.

    `theirs` are the directory's tensors, `called` maps names in the architecture's table to names in the directory."""
    back = translate(made.architecture.names(), model.state_dict(), back=True).tensors
    known = {name: theirs[called[name]] for name in back.keys() & called.keys()}
    kinds = {name: (called[name], str(value.dtype).removeprefix("torch.")) for name, value in sorted(known.items())}
    config = made.architecture.model_dump(exclude_none=True)
    record = {"kind": type(made.architecture).__name__, "config": config, "tensors": kinds}
    changed = [name for name, value in known.items() if not torch.equal(back[name].to(value.dtype), value)]
    return record, {called[name]: known[name] for name in changed}


def import_report(
    made: Imported, missing: Sequence[str], extra: Sequence[str], ignored_tensors: Sequence[str]
) -> list[str]:
    """Sentences about an import: its tokenizer, missing and left-over tensors, and tensors without a use here."""
    said = [f"tokenizer: {made.tokenizer}"] if made.tokenizer else []
    if made.headless and missing and all(name.startswith(f"heads.{made.headless}.") for name in missing):
        said += [
            f"the directory has no head for {made.headless!r}: `chopmix embed` gives vectors, nothing can be predicted"
        ]
    elif missing:
        said += [f"missing {listed(missing)}: as initialised"]
    said += [f"left over {listed(extra)}: not read"] if extra else []
    return said + (
        [f"not read, since nothing here has a use for it: {listed(ignored_tensors)}"] if ignored_tensors else []
    )
