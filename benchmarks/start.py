"""Measures the start-up time: CPU seconds of a new process with one thread, from after `import torch` to the end of the
first training step.

    python benchmarks/start.py --runs 10
    python benchmarks/start.py configs/vision/mnist.yaml --runs 3

The result is the median over the runs. One run before them is not counted: it fills the caches (tokens of a text,
Python's bytecode). Time spent waiting for the disk is not counted either.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

CONFIGS = {
    "configs/lm/shakespeare_char_nanogpt.yaml": 0.7,
    "configs/quickstart.yaml": 3.0,
}
"""The default configurations and the largest acceptable CPU seconds of each."""
CODE = """
import os, sys, time, torch

start = time.process_time()
from chopmix.training.loop import Trainer

update = Trainer.update

def update_and_exit(trainer):
    update(trainer)
    print("seconds", time.process_time() - start, flush=True)
    os._exit(0)

Trainer.update = update_and_exit
from chopmix.commands.cli import main
main(["train", *sys.argv[1:]])
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split(":")[0])
    options.add_argument("configs", nargs="*", help=f"configurations; by default {', '.join(CONFIGS)}")
    options.add_argument("--runs", type=int, default=10)
    chosen = options.parse_args()
    from results import write_results

    rows = []
    for config in chosen.configs or CONFIGS:
        seconds = [started(config) for _ in range(chosen.runs + 1)][1:]
        row = {"config": config, "cpu_seconds": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}
        rows.append({**row, "runs": chosen.runs, "at_most": CONFIGS.get(config), "threads": 1})
    write_results("start", rows)


def started(config: str, overrides: Sequence[str] = ()) -> float:
    """Returns the CPU seconds of one start. Raises RuntimeError if the run does not complete a step."""
    root, changes = Path(__file__).parent.parent, {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", CODE, str(root / config), f"out={folder}/run", *overrides]
        completed = subprocess.run(command, env=os.environ | changes, capture_output=True, text=True, check=False)
    seconds = [line.split()[1] for line in completed.stdout.splitlines() if line.startswith("seconds ")]
    if not seconds:
        raise RuntimeError(f"{config}: no training step was completed; {completed.stderr[-500:]}")
    return float(seconds[0])


if __name__ == "__main__":
    main()
