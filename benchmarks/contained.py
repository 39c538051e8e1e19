"""Trains the run that chopmix contains: `chopmix/trained/quickstart`, with weights in float16.

python benchmarks/contained.py            # trains configs/quickstart.yaml and replaces the contained run
python benchmarks/contained.py --check    # trains it again, and compares val/exact_match with that of the contained run
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

from chopmix.experiment.run import load_run
from chopmix.experiment.run_folder import fingerprints
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.files.plugins import TRAINED
from chopmix.files.writing import write_json, write_text
from chopmix.training import checkpoints

NAME = "quickstart"
COPIED = ("metrics.jsonl", "summary.json", "choices.json", "data.json", "best.json")
LARGEST = 600_000
"""The largest size of the folder in bytes."""
TOLERANCE = 0.01
"""The largest difference of val/exact_match between two trainings."""


def write_half(run: Path, folder: Path) -> None:
    """Writes the best checkpoint of a run as a run with weights in float16 and without the state of the optimizer."""
    loaded = load_run(run)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run / "assets", folder / "assets")
    for name in COPIED:
        shutil.copy(run / name, folder / name)
    config = re.sub(r"^out: .*$", "out: null", (run / "config.yaml").read_text(), flags=re.MULTILINE)
    write_text(folder / "config.yaml", config)
    weights = {name: tensor.half() for name, tensor in loaded.model.state_dict().items()}
    state = {"seconds": 0.0, "vocabularies": fingerprints(loaded.choppers), "data": {}}
    checkpoints.save(folder, loaded.step, {"model": weights}, state)
    write_json(folder / "best.json", {"step": loaded.step})


def exact_match(run: Path) -> float:
    return load_run(run).evaluate("val")["val/exact_match"]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--check", action="store_true")
    options.add_argument("--run", type=Path, help="a run of configs/quickstart.yaml that is already trained")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run = chosen.run or Path(name) / NAME
        if not chosen.run:
            train(load_config(f"configs/{NAME}.yaml", [f"out={run}"]))
        new = exact_match(run)
        if not chosen.check:
            write_half(run, TRAINED / NAME)
    size = sum(file.stat().st_size for file in (TRAINED / NAME).rglob("*") if file.is_file())
    contained = exact_match(TRAINED / NAME)
    print(f"val/exact_match: trained {new:.4f}, contained (float16) {contained:.4f}; {size:,} bytes")
    return int(abs(new - contained) > TOLERANCE or size > LARGEST)


if __name__ == "__main__":
    sys.exit(main())
