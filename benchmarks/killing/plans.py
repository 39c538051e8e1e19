"""Plans of processes: how a run is interrupted or its weights are made NaN."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import dataclass, field

TIMEOUT = 120
"""Seconds after which a run is considered to hang."""
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
"""Modules imported before runs are forked, for all experiments (`""`) and for each."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
"""Flags of `os.open` for writing."""
FORKS = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Strike:
    """A signal that a run sends to itself at one of its file operations."""

    number: int
    when: str = "before"
    """`before` the operation, `after` it, or `torn`: after half of its bytes are written."""
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Plan:
    """One process: the experiment in `folder`, how it is disturbed, and where operations are recorded."""

    folder: str
    arguments: tuple[str, ...] = ("experiment.yaml",)
    strike: Strike | None = None
    poison: tuple[int, ...] = ()
    """Batches before which a weight is set to NaN, so that the loss and all updated weights are NaN."""
    poison_weights: tuple[int, ...] = ()
    """Batches after which a weight is set to NaN, so that their loss is still finite."""
    log: str | None = None
    """The file in the folder that records operations."""
    settings: dict[str, int] = field(default_factory=dict)
    """New values of constants, by `module:name`."""
