"""The trainer of a configuration: learner, loader, evaluator, saver and log together."""

from __future__ import annotations

from collections.abc import Callable

from ...data.processes import Processes
from ...training.accounting import Costs
from ...training.loop import Every, Trainer
from ...training.record.log import Log
from ...training.record.progress import Progress
from ...training.stop import StopRequest
from ..data.opened_data import OpenedData
from ..settings.config import Config
from .learner import build_learner, build_loader
from .watching import build_evaluator, build_saver


def build_trainer(
    config: Config, data: OpenedData, processes: Processes, progress: Progress, precision: str,
    check: Callable[[], None],
) -> Trainer:  # fmt: skip
    """The trainer at step 0. `precision`: float32 or bfloat16. `check`: see `Saver`."""
    learner = build_learner(config, data, processes, precision)
    every = Every(config.logging.every, config.evaluation.every, config.checkpoints.every)
    log = Log(progress, processes, Costs(learner.model).flops)
    return Trainer(
        learner=learner, loader=build_loader(config, data, processes),
        evaluator=build_evaluator(config, data, processes, learner.replica.objective),
        saver=build_saver(config, data, processes.is_first, check), log=log, stop=StopRequest(),
        steps=config.training.steps, every=every,
    )  # fmt: skip
