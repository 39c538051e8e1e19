"""Names of other libraries and of earlier versions, mapped to the present names, for messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ...files.plugins import projects

GROUPS: dict[str, str] = {
    "epochs epoch num_epochs max_epochs n_epochs num_train_epochs": (
        "write training.steps (or training.minutes); one epoch has (training samples) / training.samples_per_step steps"
    ),
    "batch_size batch bs train_batch_size per_device_train_batch_size": (
        "write training.samples_per_step, or for a text corpus training.tokens_per_step"
    ),
    "lr rate base_lr": "write training.learning_rate",
    "early_stopping early_stop patience stop": (
        "training does not stop early; the best checkpoint (checkpoints.best: val/loss) is kept and used"
    ),
    "class_weights class_weight balanced balance sampler weighted_sampler pos_weight": (
        "classes are not weighted; repeat the samples of rare classes in the training data"
    ),
    "wandb mlflow logger loggers report_to callbacks": (
        "metrics are written to RUN/metrics.jsonl and, with logging.tensorboard, for TensorBoard"
    ),
    "folds k_folds kfold k_fold cv stratify group split val_split test_size": (
        "data are split by hash, or by the files that data.dataset.train, val and test name"
    ),
    "fp16 bf16 amp mixed_precision dtype": "write training.precision: auto, fast, float32 or bfloat16",
    "detection object_detection detr yolo segmentation semantic_segmentation instance_segmentation": (
        "no task predicts boxes or masks; classification, regression and language_modeling predict for the entire image"
    ),
    "lora peft adapter adapters": "write training.freeze with the names of the parameters that are not trained",
    "accumulate_grad_batches gradient_accumulation_steps grad_accum": (
        "write training.rows_per_micro_batch, the number of samples in one forward pass"
    ),
    "accelerator gpus gpu cuda": "write training.device: auto, cpu or cuda",
    "weight_decay wd": "write training.optimizer: {use: adamw, weight_decay: 0.1}",
    "dropout": "write model.block: {dropout: 0.1}",
    "grad_clip gradient_clip_val max_grad_norm": "write training.clip",
    "hidden_size n_embd d_model embed_dim": "write model.width",
    "layers n_layer n_layers num_layers num_hidden_layers": "write model.depth",
    "n_head n_heads num_heads num_attention_heads": "write model.heads",
    "block_size max_length seq_len max_seq_len context_length n_positions": "write model.context",
    "max_steps max_iters num_steps": "write training.steps",
    "optim": "write training.optimizer: adamw or muon",
    "scheduler lr_scheduler": "write training.schedule",
    "warmup warmup_steps warmup_iters": "write training.schedule: {use: cosine, warmup: 100}",
    "workers num_workers": "data are read by a thread of the training process",
}
"""The advice for words of other libraries (separated by spaces)."""
HINTS = {word: hint for words, hint in GROUPS.items() for word in words.split()}


def hint_for(word: object) -> str:
    """The advice for a word of another library; empty for other words."""
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
"""Renamed keys, and renamed values as `key=word` (the word may be part of a longer text, of a list, or the value of
`use`); `*` is any name. Entries are applied from first to last. A path uses the new names of the keys above it, so
`data.card` precedes `data.dataset.left_out`."""

MOVED = {
    "data.card": "data.base",
    "data.cards": "data.datasets",
    "data.datasets.episodes": "projects.decision.datasets.episodes",
    "data.datasets.in_context": "projects.in_context.datasets.in_context",
    "data.datasets.rules": "projects.in_context.datasets.rules",
    "data.environments": "projects.decision.recording",
    "data.functions": "projects.in_context.functions",
    "data.samples.dataset": "data.samples",
    "data.samples.functions": "projects.in_context.functions",
    "data.samples.made": "data.samples",
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
"""Renamed modules and classes (`module:Class`) of chopmix that a YAML may name or a user's class may import, without
the prefix `chopmix.`"""

PROJECTS = {
    "decision": ("episodes", "play", "record", "decision_transformer"), "in_context": ("in_context", "rules"),
    "whisper": ("transcribe", "whisper"),
}  # fmt: skip
"""The parts of each project by the names that a YAML, a command line or a published model uses, for the message that
the project is not installed."""

REFERENCE = re.compile(r"(\w+)((?:\.\w+)+)(:\w+)?")


class Renaming(NamedTuple):
    """An old name that was found in a tree and replaced."""

    path: tuple[str | int, ...]
    """The path of the renamed key, or of the key whose value was renamed."""
    old: str
    new: str
    doubled: bool = False
    """Whether the mapping also had the new key; the old key was then dropped with its value."""

    @property
    def moved(self) -> tuple[str | int, ...]:
        """The path with the new name."""
        return (*self.path[:-1], self.new) if self.path[-1] == self.old else self.path

    def __str__(self) -> str:
        """`data.card is called data.dataset now`."""
        return f"{'.'.join(map(str, self.path))} {self.sentence}"

    @property
    def sentence(self) -> str:
        """The message at the path: `is called data.dataset now`, or for a value
        `'same_span' is called 'same_item' now`."""
        if self.path[-1] == self.old:
            return f"is called {'.'.join(map(str, self.moved))} now"
        return f"{self.old!r} is called {self.new!r} now"


def rename(tree: Any) -> list[Renaming]:
    """Replace the old names in a YAML's tree in place, keeping the order of keys; returns the replacements.

    The options of a class from outside chopmix (`use: mylab.lidar:Lidar`) are not changed."""
    renamings: list[Renaming] = []
    for old, new in RENAMED.items():
        (old_path, _, word), new_path = old.partition("="), new.rpartition("=")[2]
        *parents, key = old_path.split(".")
        for path, mapping in mappings(tree, parents):
            if key not in mapping:
                continue
            if word:
                mapping[key] = with_value(mapping[key], (*path, key), word, new_path, renamings)
            elif not is_foreign(mapping):
                renamings.append(with_key(mapping, path, key, new_path.rpartition(".")[2]))
    with_references(tree, (), renamings)
    return renamings


def mappings(tree: Any, parents: list[str], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict]]:
    """(path, mapping) for every mapping at a path of keys, in which `*` matches any key."""
    if not isinstance(tree, dict):
        return
    if not parents:
        yield path, tree
        return
    for key in list(tree) if parents[0] == "*" else [parents[0]]:
        yield from mappings(tree.get(key), parents[1:], (*path, key))


def is_foreign(part: Mapping[str, Any]) -> bool:
    """Whether a mapping holds the options of a class from outside chopmix."""
    use = part.get("use")
    return isinstance(use, str) and ":" in use and not use.startswith("chopmix.")


def with_key(mapping: dict, path: tuple[str, ...], old: str, new: str) -> Renaming:
    """Rename a key of a mapping in place, keeping the order. If the new key exists too, the old key is dropped."""
    items, doubled = list(mapping.items()), new in mapping
    mapping.clear()
    mapping.update((new if key == old else key, value) for key, value in items if key != old or not doubled)
    return Renaming((*path, old), old, new, doubled)


def with_value(value: Any, path: tuple[str | int, ...], old: str, new: str, renamings: list[Renaming]) -> Any:
    """A value with a word replaced: in a text, in a list of texts, or in the `use` of a mapping. The replacements are
    appended to `renamings`."""
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
    """A tree with the present name of every `chopmix.module:Class`, changed in place. The replacements are appended to
    `renamings`."""
    if isinstance(value, dict | list):
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            value[key] = with_references(item, (*path, key), renamings)
    elif isinstance(value, str) and ":" in value and (new := moved(value)):
        renamings.append(Renaming(path, value, new))
        return new
    return value


def moved(reference: str) -> str | None:
    """The present name of a renamed module of chopmix (or `module:Class`); None for any other reference.

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
    """A message that names the project to which this part belongs, if the project is not installed; else empty."""
    for project, parts in PROJECTS.items():
        if name in parts and project not in projects():
            return f"{name!r} belongs to the project {project!r}, which is not installed: no folder projects/{project}"
    return ""


def nearest(name: Any, possible: Iterable[str], *, list_all: bool = True) -> str:
    """The end of a message about an unknown name: `; write training.learning_rate` for a word of another library,
    `; did you mean 'depth'?` for a similar name, else (with `list_all`) `; possible: depth, width`."""
    possible = list(possible)
    if hint := hint_for(name) or missing_project(name):
        return f"; {hint}"
    matches = difflib.get_close_matches(str(name).lower(), possible, n=1)
    if matches:
        return f"; did you mean {matches[0]!r}?"
    return f"; possible: {', '.join(possible) or 'nothing'}" if list_all else ""


def shown(value: Any) -> str:
    """A value for a message, as YAML writes it (null, true, false), cut to 80 characters."""
    text = {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
