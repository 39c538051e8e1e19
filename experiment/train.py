"""One run from its lock to its summary."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

from ..data.processes import Processes
from ..tokenizers.files.writing import write_json
from ..training.loop import Trainer
from ..training.record import Progress, duration
from .folder.claim import check_is_free, claim, summary_of
from .folder.lock import RunLock
from .settings.config import Config


def train(config: Config) -> tuple[dict[str, float], int]:
    """One run; gives its summary's metrics and the exit status (130 or 143 when it was asked to stop).

    The run's folder belongs to it meanwhile: a second start there is told so, and changes nothing."""
    processes = Processes.start(config.training.device)
    progress, folder = Progress(config.training.steps), Path(config.out)
    if processes.is_first:
        check_is_free(folder)
    with RunLock(folder) if processes.is_first else nullcontext():
        if processes.is_first:
            claim(config, folder)
        summary = processes.told(summary_of(folder, config.training.steps) if processes.is_first else None)
        if summary is not None:
            if processes.is_first:
                progress.say(f"{folder} is finished: {json.dumps(summary)}")
            return summary, 0
        trainer = Trainer(config, processes, progress)
        metrics = trainer.fit()
        summary = {"step": trainer.step, "seconds": round(trainer.seconds, 2), **metrics}
        stopped = trainer.stop.signal if trainer.step < config.training.steps else None
        if processes.is_first and stopped:
            saved = f"saved {folder} at step {trainer.step:,}; the same command goes on from there"
            nothing = f"stopped {folder} before its first step; the same command starts it again"
            progress.say(f"{stopped.name}: {saved if trainer.step else nothing}")
        elif processes.is_first:
            write_json(folder / "summary.json", summary)
            progress.say(f"done: {folder}, {trainer.step:,} steps in {duration(trainer.seconds)}")
        return summary, 128 + stopped if stopped else 0
