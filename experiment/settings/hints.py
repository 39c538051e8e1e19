"""Messages about names that are not valid in a YAML: names of other libraries, names of earlier versions of chopmix,
and typing errors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ...files.plugins import projects

GROUPS: dict[str, str] = {
    "epoch num_epochs max_epochs n_epochs num_train_epochs": (
        "write training.epochs, training.steps or training.minutes"
    ),
    "batch_size batch bs train_batch_size per_device_train_batch_size": (
        "write training.samples_per_step, or for a text corpus training.tokens_per_step"
    ),
    "lr rate base_lr": "write training.learning_rate",
    "early_stopping early_stop patience": (
        "write training.stop: {metric: val/loss, patience: 5}; the best checkpoint (checkpoints.best) is always kept"
    ),
    "class_weights class_weight balanced sampler weighted_sampler pos_weight": (
        "write class_weights: balanced in the task (classification), or data.balance: COLUMN"
    ),
    "wandb mlflow logger loggers report_to": (
        "metrics are written to RUN/metrics.jsonl; others: logging.also: {NAME: {use: wandb}}, or tensorboard, or "
        "my_module:MyLogger"
    ),
    "callbacks callback": "write evaluation.also: {NAME: {use: my_module:MyEvaluator}}, measured at every evaluation",
    "folds k_folds kfold k_fold cv stratify group val_split test_size": (
        "write data.split: {val: 0.1, test: 0.1, stratify: COLUMN, group: COLUMN}, or on the command line --folds 5"
    ),
    "fp16 bf16 amp mixed_precision dtype": "write training.precision: auto, fast, float32 or bfloat16",
    "detection object_detection detr yolo segmentation semantic_segmentation instance_segmentation": (
        "no task predicts boxes or masks; classification, regression and language_modeling predict for the entire image"
    ),
    "lora peft adapter adapters": (
        "write training.train_only or training.freeze with names of parameters; docs/add/block.py is a block with LoRA"
    ),
    "accumulate_grad_batches gradient_accumulation_steps grad_accum": (
        "write training.rows_per_micro_batch, the number of samples in one forward pass"
    ),
    "accelerator gpus gpu cuda": "write training.device: auto, cpu or cuda",
    "weight_decay wd": "write training.optimizer: {use: adamw, weight_decay: 0.1}",
    "dropout": "write model.dropout: 0.1",
    "grad_clip gradient_clip_val max_grad_norm": "write training.clip",
    "hidden_size n_embd d_model embed_dim": "write model.width",
    "layers n_layer n_layers num_layers num_hidden_layers": "write model.depth",
    "n_head n_heads num_heads num_attention_heads": "write model.heads",
    "block_size max_length seq_len max_seq_len context_length n_positions": "write model.context",
    "max_steps max_iters num_steps": "write training.steps",
    "optim": "write training.optimizer: adamw or muon",
    "scheduler lr_scheduler": "write training.schedule",
    "warmup warmup_steps warmup_iters": "write training.schedule: {use: cosine, warmup: 100}",
    "num_workers n_workers": "write data.workers: auto, or a number of processes",
}
"""The advice for names that other libraries use. A key contains several names, separated by spaces."""
HINTS = {word: hint for words, hint in GROUPS.items() for word in words.split()}


def hint_for(word: object) -> str:
    """Returns the advice for a name of another library. Empty if GROUPS does not contain the name."""
    return HINTS.get(str(word).lower().replace("-", "_"), "")


RENAMED = {
    "data.card": "data.dataset",
    "data.dataset.left_out": "data.dataset.held_out",
    "evaluation.worth": "evaluation.attribution",
    "inputs.*.deviation": "inputs.*.std",
    "model.attention=same_span": "model.attention=same_item",
    "model.encoder.attention=same_span": "model.encoder.attention=same_item",
    "model.initialization.deviation": "model.initialization.std",
    "model.own_tokens": "model.core_tokens",
    "tasks.*.judge": "tasks.*.metrics",
    "tasks.*.pooling=own_tokens": "tasks.*.pooling=core_tokens",
    "training.mix": "training.mixup",
}
"""Renamed keys (old path to new path), and renamed values, written `key=value`. A renamed value is a word in a text, in
a list of texts, or in the value of `use`. `*` stands for any name. The entries are applied from first to last. A path
contains the new names of its parent keys, so `data.card` precedes `data.dataset.left_out`."""

MOVED = {
    "data.card": "data.base",
    "data.cards": "data.datasets",
    "data.datasets.episodes": "projects.decision.datasets.episodes",
    "data.datasets.in_context": "projects.in_context.datasets.in_context",
    "data.datasets.rules": "projects.in_context.datasets.rules",
    "data.environments": "projects.decision.recording",
    "data.functions": "projects.in_context.functions",
    "data.samples.dataset": "data.sample_dataset",
    "data.samples.functions": "projects.in_context.functions",
    "data.samples.made": "data.made",
    "data.samples:Made": "data.made:Made",
    "data.samples:MadeDataset": "data.made:MadeDataset",
    "data.samples:OwnFiles": "data.sample_dataset:OwnFiles",
    "data.samples:SampleDataset": "data.sample_dataset:SampleDataset",
    "inference.generating": "inference.generate",
    "models.feed_forward": "models.layers.feed_forward",
    "models.heads:OwnTokens": "models.heads:CoreTokens",
    "models.linear": "models.layers.linear",
    "models.mixture": "models.model",
    "models.norms": "models.layers.norms",
    "models.positions": "models.layers.positions",
    "models.positions:Alibi": "models.layers.relative:Alibi",
    "models.positions:RelativeBias": "models.layers.relative:RelativeBias",
    "models.positions:RelativePosition": "models.layers.relative:RelativePosition",
    "models.positions:Rotary": "models.layers.relative:Rotary",
    "models.token_set": "models.tokens",
    "tasks.metrics": "tasks.measuring.texts",
    "tasks.task": "tasks.base",
    "tasks.text_metrics": "tasks.measuring.texts",
    "tokenizers.augmentation": "tokenizers.media.augmentation",
    "tokenizers.chopper": "tokenizers.base",
    "tokenizers.files": "files",
    "tokenizers.ids": "tokenizers.chopping.ids",
    "tokenizers.sound": "tokenizers.media.sound",
    "training.mix": "training.mixup",
}
"""Renamed modules and classes (`module:Class`) of chopmix, without the prefix `chopmix.`. A YAML may name them, and the
class of a user may import them."""

PROJECTS = {
    "decision": ("episodes", "play", "record", "decision_transformer"), "in_context": ("in_context", "rules"),
    "whisper": ("transcribe", "whisper"),
}  # fmt: skip
"""The names that each project provides for YAML files, command lines and published models. They are needed for the
message that the project is not installed."""

REFERENCE = re.compile(r"(\w+)((?:\.\w+)+)(:\w+)?")


class Renaming(NamedTuple):
    """An old name that was found in a tree and replaced by the new name."""

    path: tuple[str | int, ...]
    """The path of the renamed key (with the old name), or of the key whose value was renamed."""
    old: str
    new: str
    doubled: bool = False
    """Whether the mapping contained both the old and the new key. The old key was then removed together with its
    value."""

    @property
    def moved(self) -> tuple[str | int, ...]:
        """The path with the new name if a key was renamed, else `path`."""
        return (*self.path[:-1], self.new) if self.path[-1] == self.old else self.path

    def __str__(self) -> str:
        """Returns a sentence such as `data.card is called data.dataset now`."""
        return f"{'.'.join(map(str, self.path))} {self.sentence}"

    @property
    def sentence(self) -> str:
        """The message without the path of the old key or value at its beginning: `is called data.dataset now` for a
        key, `'same_span' is called 'same_item' now` for a value."""
        if self.path[-1] == self.old:
            return f"is called {'.'.join(map(str, self.moved))} now"
        return f"{self.old!r} is called {self.new!r} now"


def rename(tree: Any) -> list[Renaming]:
    """Replace the old names in the tree of a YAML in place. The order of the keys does not change. Returns the
    replacements.

    The options of a class outside chopmix (`use: mylab.lidar:Lidar`) do not change."""
    renamings: list[Renaming] = []
    for old, new in RENAMED.items():
        (old_path, _, word), new_path = old.partition("="), new.rpartition("=")[2]
        *parents, key = old_path.split(".")
        for path, mapping in mappings(tree, parents):
            if key not in mapping:
                continue
            if word:
                mapping[key] = with_value(mapping[key], (*path, key), word, new_path, renamings)
            elif not is_user_class(mapping):
                renamings.append(with_key(mapping, path, key, new_path.rpartition(".")[2]))
    with_references(tree, (), renamings)
    return renamings


def mappings(tree: Any, parents: list[str], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict]]:
    """Yields (path, mapping) for every mapping at the path `parents`, a list of keys in which `*` matches any key."""
    if not isinstance(tree, dict):
        return
    if not parents:
        yield path, tree
        return
    for key in list(tree) if parents[0] == "*" else [parents[0]]:
        yield from mappings(tree.get(key), parents[1:], (*path, key))


def is_user_class(part: Mapping[str, Any]) -> bool:
    """Returns whether a mapping contains the options of a class outside chopmix."""
    use = part.get("use")
    return isinstance(use, str) and ":" in use and not use.startswith("chopmix.")


def with_key(mapping: dict, path: tuple[str, ...], old: str, new: str) -> Renaming:
    """Rename a key of a mapping in place, without changing the order of the keys. If the mapping also has the new key,
    the old key is removed. Returns the replacement."""
    items, doubled = list(mapping.items()), new in mapping
    mapping.clear()
    mapping.update((new if key == old else key, value) for key, value in items if key != old or not doubled)
    return Renaming((*path, old), old, new, doubled)


def with_value(value: Any, path: tuple[str | int, ...], old: str, new: str, renamings: list[Renaming]) -> Any:
    """Returns a value in which the word `old` is replaced by `new`: in a text, in a list of texts, or in the `use` of a
    mapping. The replacements are appended to `renamings`."""
    if isinstance(value, list):
        return [with_value(item, (*path, number), old, new, renamings) for number, item in enumerate(value)]
    if isinstance(value, dict) and "use" in value:
        value["use"] = with_value(value["use"], (*path, "use"), old, new, renamings)
    elif isinstance(value, str):
        changed = re.sub(rf"(?<![\w.:]){old}(?![\w.:])", new, value)  # not within package.module:Class
        renamings += [Renaming(path, old, new)] if changed != value else []
        return changed
    return value


def with_references(value: Any, path: tuple[str | int, ...], renamings: list[Renaming]) -> Any:
    """Replace every renamed `chopmix.module:Class` in a tree by its new name, in place. Returns the tree. The
    replacements are appended to `renamings`."""
    if isinstance(value, dict | list):
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            value[key] = with_references(item, (*path, key), renamings)
    elif isinstance(value, str) and ":" in value and (new := moved(value)):
        renamings.append(Renaming(path, value, new))
        return new
    return value


def moved(reference: str) -> str | None:
    """Returns the new name of a renamed module of chopmix (or `module:Class`). Returns None for any other name.

    `chopmix.models.norms:RmsNorm` is now `chopmix.models.layers.norms:RmsNorm`."""
    parts = REFERENCE.fullmatch(reference)
    if not parts or parts[1] != "chopmix":
        return None
    module, name = parts[2][1:], parts[3] or ""
    if module + name in MOVED:
        return f"chopmix.{MOVED[module + name]}"
    folder, _, file = module.rpartition(".")
    if module in MOVED:
        return f"chopmix.{MOVED[module]}{name}"
    return f"chopmix.{MOVED[folder]}.{file}{name}" if folder in MOVED else None


def missing_project(name: Any) -> str:
    """Returns a message if a project that is not installed provides this name. Otherwise returns an empty text."""
    for project, parts in PROJECTS.items():
        if name in parts and project not in projects():
            return f"{name!r} belongs to the project {project!r}, which is not installed: no folder projects/{project}"
    return ""


def nearest(name: Any, possible: Iterable[str], *, list_all: bool = True) -> str:
    """Returns the end of a message about an unknown name: `; write training.learning_rate` if the name is in GROUPS, or
    a message that a project is not installed; else `; did you mean 'depth'?` if a possible name is similar; else
    `; possible: depth, width` if `list_all`, or an empty text."""
    possible = list(possible)
    if hint := hint_for(name) or missing_project(name):
        return f"; {hint}"
    matches = difflib.get_close_matches(str(name).lower(), possible, n=1)
    if matches:
        return f"; did you mean {matches[0]!r}?"
    return f"; possible: {', '.join(possible) or 'nothing'}" if list_all else ""


def shown(value: Any) -> str:
    """Returns a value as text for a message, cut to 80 characters. None, True and False become null, true and false."""
    text = {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
