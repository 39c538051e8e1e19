"""How long a start takes: CPU seconds of a fresh process, on one thread, from `import torch` until the first training
step is done.

    python benchmarks/start.py --runs 10
    python benchmarks/start.py configs/vision/mnist.yaml --runs 3

A figure is the median over the runs; before them one run prepares what later ones find: the tokens of a text in the
cache folder, and Python's bytecode. Time waiting for a disk does not count.
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
"""What is measured, and the seconds that a start may take at most."""
CODE = """
import os, sys, time, torch

begun = time.process_time()
from chopmix.training.loop import Trainer

step = Trainer.update

def once(trainer):
    step(trainer)
    print("seconds", time.process_time() - begun, flush=True)
    os._exit(0)

Trainer.update = once
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
    """The CPU seconds of one start. Raises RuntimeError for a run that makes no step."""
    root, changes = Path(__file__).parent.parent, {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-c", CODE, str(root / config), f"out={folder}/run", *overrides]
        done = subprocess.run(words, env=os.environ | changes, capture_output=True, text=True, check=False)
    told = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("seconds ")]
    if not told:
        raise RuntimeError(f"{config}: no step was made; {done.stderr[-500:]}")
    return float(told[0])


if __name__ == "__main__":
    main()
