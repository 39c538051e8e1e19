"""The benchmark of a start measures the time until the first training step is done."""

import pytest
import start
from start import CONFIGS, started


@pytest.mark.system
def test_a_start_is_measured_until_the_first_step_is_done(tiny):
    assert 0.05 < started(str(tiny()), ["training.steps=3", "evaluation.every=3"]) < 30


def test_its_figures_are_medians_with_the_conditions_of_the_measurement(monkeypatch, tmp_path):
    """The first run is not counted."""
    results = pytest.importorskip("results")
    seconds = iter([9.0, 3.0, 1.0, 2.0])
    monkeypatch.setattr(start, "started", lambda config: next(seconds))
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["start.py", "configs/quickstart.yaml", "--runs", "3"])
    start.main()
    (row,) = results.read_results("start")
    assert (row["cpu_seconds"], row["least"], row["most"], row["runs"], row["threads"]) == (2.0, 1.0, 3.0, 3, 1)
    assert row["at_most"] == CONFIGS["configs/quickstart.yaml"] and row["measured"]


def test_a_run_without_a_training_step_is_an_error(monkeypatch):
    monkeypatch.setattr(start, "CODE", "raise SystemExit('no data')")
    with pytest.raises(RuntimeError, match=r"configs/x\.yaml: no training step was completed; no data"):
        started("configs/x.yaml")
