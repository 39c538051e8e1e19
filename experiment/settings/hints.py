"""Messages about names that are not valid in a YAML: names of other libraries, and typing errors."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

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
    "lora peft adapter": "write training.adapters: {rank: 8, on: [query, value]} and from=RUN",
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


PROJECTS = {
    "decision": ("episodes", "play", "record", "decision_transformer"), "in_context": ("in_context", "rules"),
    "preferences": ("divergence", "policy_gradient", "rewarded_arithmetic"), "whisper": ("transcribe", "whisper"),
}  # fmt: skip
"""The names that each project provides for YAML files, command lines and published models. They are needed for the
message that the project is not installed."""


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
