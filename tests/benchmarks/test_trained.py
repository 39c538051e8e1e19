"""The runs that benchmarks measure: an unfinished training is never measured."""

import os
import signal
import sys
import threading
import time

import pytest
from checkout import BENCHMARKS, CONFIGS

CHANGES = ("training.device=cpu", "evaluation.in_context=0", "data.dataset.examples=4", "model.depth=1")


@pytest.fixture
def trained(monkeypatch):
    """The function `trained` of the module `trained`."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import trained

    yield trained.trained
    del sys.modules["trained"]


def stop_when(file) -> None:
    """Ask this process to stop once training has written the first line of its metrics."""
    while not (file.exists() and file.stat().st_size):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.system
def test_a_run_that_is_asked_to_stop_is_not_measured(trained, tmp_path):
    out = tmp_path / "run"
    threading.Thread(target=stop_when, args=[out / "metrics.jsonl"], daemon=True).start()
    with pytest.raises(SystemExit) as ended:
        trained(CONFIGS / "in_context" / "linear.yaml", out, [*CHANGES, "training.steps=100000"])
    assert ended.value.code == 128 + signal.SIGTERM
    assert (out / "last.json").exists() and not (out / "summary.json").exists()


@pytest.mark.system
def test_a_finished_run_is_not_trained_again_and_another_one_is_not_measured(trained, tmp_path):
    out, changes = tmp_path / "run", [*CHANGES, "training.steps=2"]
    assert trained(CONFIGS / "in_context" / "linear.yaml", out, changes) == out
    before = {name: (out / name).read_bytes() for name in ("summary.json", "metrics.jsonl", "last.json")}
    trained(CONFIGS / "in_context" / "linear.yaml", out, changes)
    with pytest.raises(
        SystemExit, match=r"is a run of another configuration[^$]*training.learning_rate: 0.02 in the run"
    ):
        trained(CONFIGS / "in_context" / "linear.yaml", out, [*changes, "training.learning_rate=0.01"])
    assert before == {name: (out / name).read_bytes() for name in before}
    with pytest.raises(SystemExit, match="training.step: "):
        trained(CONFIGS / "in_context" / "linear.yaml", out, [*changes, "training.step=1"])
