"""Evaluation: a whole split, every position judged once, the same figures for any number of processes."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..data.stream import StreamSplit
from ..models.mixture import Mixture
from ..tasks.task import Task
from .build import make_batch
from .distribution import Processes


@torch.inference_mode()
def evaluate_split(
    model: Mixture, tasks: Mapping[str, Task], split: StreamSplit, input: str, *,
    rows: int = 64, processes: Processes | None = None,
) -> dict[str, float]:  # fmt: skip
    """The metrics of a split, named `split/metric`: loss in nats per target, perplexity, bits per byte of the text.

    The windows do not overlap; each process reads its share of them and the sums are added up.
    """
    device = next(model.parameters()).device
    processes = processes or Processes(0, 1, device)
    training = model.training
    model.eval()
    sums = {name: torch.zeros(2, dtype=torch.float64) for name in tasks}
    starts = processes.share(split.all_windows())
    for first in range(0, len(starts), rows):
        batch = make_batch(split, starts[first : first + rows], tasks, input)
        batch = model.plan(batch, dtype=next(model.parameters()).dtype, device=device).to(device)
        outputs = model(batch)
        for name, task in tasks.items():
            term = next(iter(task.terms(outputs[name], batch.targets[name]).values()))
            sums[name] += torch.tensor([float(term.sum), term.count], dtype=torch.float64)
    model.train(training)
    metrics = {}
    for name, task in tasks.items():
        nats, count = processes.sum(sums[name].to(device)).tolist()
        prefix = f"{split.name}/" if len(tasks) == 1 else f"{split.name}/{name}/"
        metrics |= {prefix + key: value for key, value in task.summary(nats, int(count), split.file.bytes).items()}
    return metrics
