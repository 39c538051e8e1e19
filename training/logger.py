"""The base class of loggers. A logger shows the metrics and samples of a run, in addition to `metrics.jsonl`.

A logger is a class in a file in `training/loggers/` or in the folder `loggers/` of a project; its name in a YAML is
then the name of the file. Any other class is named by its module:

    logging: {also: {table: {use: mylab.loggers:Table, digits: 3}}}

A class of your own need not derive from `Logger`. One method is enough:

    class Printer:
        def on_metrics(self, step, metrics):
            print(step, metrics["train/loss"] if "train/loss" in metrics else metrics)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..inference.pages import Samples


class Logger:
    """Base class of all loggers. The keyword-only parameters of the constructor are the logger's keys in a YAML. Only
    the first process calls the methods. If a method raises an exception, a warning is printed, the logger is not called
    again, and the run continues."""

    described = "Logger, nor a class with a method on_metrics"

    @staticmethod
    def fits(candidate: type) -> bool:
        """Returns whether a class that does not derive from `Logger` can be used as a logger: it has a method
        `on_metrics`. Its other methods may be missing."""
        return callable(getattr(candidate, "on_metrics", None))

    def addresses(self) -> Iterable[str]:
        """Returns the remote addresses to which the logger connects, such as `https://example.org`; none by default. A
        run from someone else connects to them only if the user allows it (`--remote`)."""
        return ()

    def open(self, folder: Path, step: int, config: Mapping[str, Any]) -> None:
        """Called once, before all other methods. `folder` is the folder of the run, `config` is the resolved
        configuration. `step` is the step from which the run starts or resumes: remove values that an earlier process
        logged for later steps."""

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs the metrics of a step. `metrics` maps a name, such as `train/loss` or `val/accuracy`, to a number."""

    def on_samples(self, step: int, samples: Samples) -> None:
        """Logs the samples that the model generated in the evaluation at this step."""

    def close(self) -> None:
        """Called at the end of the run, even if the run fails."""


class Loggers:
    """All loggers of a run, by name: objects with methods of `Logger`. `say` is called with the text of a warning."""

    def __init__(self, loggers: Mapping[str, object], say: Callable[[str], None]):
        self.loggers, self.say = dict(loggers), say

    def call(self, method: str, *arguments: Any) -> None:
        """Calls the method with this name of every logger that has it. A logger that raises an exception is reported
        and removed."""
        for name, logger in [*self.loggers.items()]:
            try:
                getattr(logger, method, lambda *arguments: None)(*arguments)
            except Exception as error:
                del self.loggers[name]
                self.say(f"warning: logging.also.{name}: {type(logger).__name__}.{method} raised {error!r}; the run "
                         "continues without this logger")  # fmt: skip
