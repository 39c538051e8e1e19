"""What a run is asked to do: where it is struck, what spoils it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import dataclass, field

PATIENCE = 120
"""Seconds after which a run is taken for one that never ends."""
PRELOADED = {
    "": [
        "chopmix.experiment.sweep",
        "chopmix.experiment.train",
        "chopmix.tokenizers.text",
        "chopmix.tasks.language_modeling",
        "torch._dynamo",
    ],
    "lm": ["chopmix.data.datasets.text"],
    "mix": [
        "chopmix.data.datasets.manifest",
        "chopmix.tokenizers.image",
        "chopmix.tokenizers.audio",
        "PIL.Image",
        "soundfile",
        "torchvision.transforms.v2",
    ],
    "seq2seq": ["chopmix.data.datasets.parallel_text", "chopmix.tasks.sequence_to_sequence", "sacrebleu"],
}
"""What is imported before runs are forked: for all experiments, and for each."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
"""The flags with which files are opened that are written to."""
FORKS = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Strike:
    """What a run does to itself at one of its file operations."""

    number: int
    when: str = "before"
    """`before` the operation, `after` it, or `torn`: after half of what it writes."""
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Plan:
    """One process: the experiment in `folder`, how it is disturbed, and what is noted."""

    folder: str
    arguments: tuple[str, ...] = ("experiment.yaml",)
    strike: Strike | None = None
    poison: tuple[int, ...] = ()
    """The batches that make a weight no number before they are read: so the loss, and all weights after it."""
    poison_weights: tuple[int, ...] = ()
    """The batches after which a weight is no number, while their own loss is one."""
    log: str | None = None
    """The file of the folder in which operations are noted."""
    settings: dict[str, int] = field(default_factory=dict)
    """Constants to change, `module:name`."""
