"""The learner of a configuration (model, optimizer, schedule, averages), and the loader of its batches."""

from __future__ import annotations

import torch

from ...data.loader import Loader
from ...data.processes import Processes
from ...training.ema import Ema
from ...training.loop import Learner
from ...training.objective import Objective
from ...training.optimizers import freeze
from ...training.parallel import Replica
from ..data.opened_data import OpenedData
from ..settings.config import Config
from .model import build_model, build_optimizer


def build_learner(config: Config, data: OpenedData, processes: Processes, precision: str) -> Learner:
    """The model with its initial values on this process's device, with optimizer, schedule and averaged weights.
    `precision`: float32 or bfloat16."""
    settings = config.training
    torch.manual_seed(settings.seed)
    model = build_model(config, data.choppers, data.tasks).to(processes.device)
    replica = Replica(Objective(model, data.tasks, precision, settings.mixup), processes)
    freeze(model, settings.freeze)
    return Learner(
        replica=replica, optimizer=build_optimizer(settings, model), schedule=settings.schedule(settings.steps),
        averages=Ema(model, settings.ema) if settings.ema else None, clip=settings.clip, seed=settings.seed,
        processes=processes,
    )  # fmt: skip


def build_loader(config: Config, data: OpenedData, processes: Processes) -> Loader:
    """The loader of the training split, one step at a time; with mixup, neighbouring pairs of samples stay together."""
    settings = config.training
    return Loader(
        data.splits["train"], processes, seed=settings.seed, steps=settings.steps,
        rows_per_micro_batch=settings.rows_per_micro_batch, together=2 if settings.mixup else 1,
    )  # fmt: skip
