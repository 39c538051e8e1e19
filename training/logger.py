"""The contract of loggers: where the metrics and samples of a run are shown, besides `metrics.jsonl`.

A logger is one file in `training/loggers/`, or in `loggers/` of a project; a YAML names it by its file:

    logging: {also: {table: {use: mylab.loggers:Table, digits: 3}}}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..inference.pages import Samples


class Logger:
    """Base of all loggers. The keyword-only parameters of the constructor are its keys in a YAML. Only the first process
    calls it. An exception ends the logger, not the run: a warning names it, and it is not called again."""

    def open(self, folder: Path, step: int, config: Mapping[str, Any]) -> None:
        """Called before anything else. `folder` is the run's, `step` the step from which the run starts or resumes: what
        was logged for later steps before is to be discarded. `config` is the resolved configuration."""

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics of a step by name: `train/loss`, `val/accuracy`."""

    def samples(self, step: int, samples: Samples) -> None:
        """Log what the model generated at an evaluation."""

    def close(self) -> None:
        """Called at the end, also if the run fails."""


class Loggers:
    """The loggers of a run, as one. `say` prints a warning."""

    def __init__(self, loggers: Mapping[str, Logger], say: Callable[[str], None]):
        self.loggers, self.say = dict(loggers), say

    def call(self, method: str, *arguments: Any) -> None:
        """Call a method of every logger; one that raises an exception is closed, reported and removed."""
        for name, logger in [*self.loggers.items()]:
            try:
                getattr(logger, method)(*arguments)
            except Exception as error:
                del self.loggers[name]
                self.say(f"warning: logging.also.{name}: {type(logger).__name__}.{method} raised {error!r}; it logs "
                         "nothing more")  # fmt: skip
