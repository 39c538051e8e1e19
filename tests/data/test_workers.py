"""Worker processes of a plain script, which has no `if __name__ == "__main__":`."""

import os
import subprocess
import sys

import pytest
from checkout import ROOT

SCRIPT = """
print("the script runs")
import chopmix
import chopmix.experiment.read_ahead
from chopmix.data.sample_dataset import SampleDataset
from chopmix.data.samples import Listed

class Numbers(Listed):
    pass

class Rows(SampleDataset):
    columns, splits = ("text", "label"), ("train", "val")

    def open(self, split):
        rows = [{"text": "abc"[:number % 3 + 1], "label": number % 3} for number in range(16)]
        return Numbers([f"row {number}" for number in range(16)], rows)

config = {
    "inputs": {"text": {"use": "text", "encoding": "characters"}},
    "model": {"width": 8, "depth": 1, "heads": 1, "context": 8, "attention": "same_sample"},
    "tasks": {"label": {"use": "classification", "target": "label"}},
    "training": {"steps": 2, "samples_per_step": 4}, "logging": {"tensorboard": False}, "evaluation": {"report": False},
}
listed = {"use": "manifest", "train": "train.csv", "val": "train.csv", "columns": ["text", "label"]}
with open("train.csv", "w") as file:
    file.write("text,label\\n" + "".join(f"{'abc'[:number % 3 + 1]},{number % 3}\\n" for number in range(16)))
without, with_one = (
    chopmix.train({**config, "data": {"dataset": listed, "workers": count}, "out": f"workers-{count}"})
    for count in (0, 1)
)
print("equal", without["val/loss"] == with_one["val/loss"])
chopmix.experiment.read_ahead.useful_workers = lambda split, seed, steps: 1
rows = {"use": "__main__:Rows"}
print("steps", chopmix.train({**config, "data": {"dataset": rows}, "out": "auto"})["step"])
try:
    chopmix.train({**config, "data": {"dataset": rows, "workers": 1}, "out": "forced"})
except ValueError as error:
    print("refused:", error)
"""


@pytest.mark.system
def test_a_script_without_a_main_guard_trains_with_workers(tmp_path):
    """Each process would otherwise run the script again. Classes of the script cannot be sent to a process."""
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    first, equal, steps, refused = ended.stdout.splitlines()
    assert (first, equal, steps) == ("the script runs", "equal True", "steps 2")
    assert "data.workers: 1 process reads ahead" in ended.stderr
    reason = (
        "data.dataset (__main__.Numbers) cannot be sent to a worker process: Numbers is defined in the script itself"
    )
    assert f"data.workers: auto uses no worker processes, because {reason}\n" in ended.stderr
    assert refused.startswith(f"refused: data.workers: {reason}. Define its classes and functions at the top level")
