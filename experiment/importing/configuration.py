"""An imported directory as a configuration with its choppers and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...tasks.base import Task
from ...tasks.classification import Classes
from ...tokenizers.base import Chopper
from ...tokenizers.encoding.base import Encoding, NumberEncoding
from ...tokenizers.text import TextChopper
from ..fitting import build_tasks
from ..settings.config import Config, config_from_tree
from .files import Imported


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
        preprocessor = part.build(part.target.Chopper)
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
