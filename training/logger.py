"""The contract of loggers, which show the metrics and samples of a run, in addition to `metrics.jsonl`.

A logger is one file in `training/loggers/` or in the `loggers/` of a project. Its name in a YAML is the file's name:

    logging: {also: {table: {use: mylab.loggers:Table, digits: 3}}}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..inference.pages import Samples


class Logger:
    """Base of all loggers. The keyword-only parameters of the constructor are its keys in a YAML. Only the first
    process calls it. If a method raises an exception, a warning is printed and the logger is not called again; the run
    continues."""

    def open(self, folder: Path, step: int, config: Mapping[str, Any]) -> None:
        """Called first. `folder` is the folder of the run, `config` the resolved configuration. `step` is the step from
        which the run starts or resumes: discard what an earlier session logged for later steps."""

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step by name: `train/loss`, `val/accuracy`."""

    def samples(self, step: int, samples: Samples) -> None:
        """Log the samples that the model generated at an evaluation."""

    def close(self) -> None:
        """Called at the end, even if the run fails."""


class Loggers:
    """All loggers of a run. `say` prints a warning."""

    def __init__(self, loggers: Mapping[str, Logger], say: Callable[[str], None]):
        self.loggers, self.say = dict(loggers), say

    def call(self, method: str, *arguments: Any) -> None:
        """Call a method of every logger. A logger that raises an exception is reported and removed."""
        for name, logger in [*self.loggers.items()]:
            try:
                getattr(logger, method)(*arguments)
            except Exception as error:
                del self.loggers[name]
                self.say(f"warning: logging.also.{name}: {type(logger).__name__}.{method} raised {error!r}; the run "
                         "continues without this logger")  # fmt: skip
