"""`precision: auto`: the rule on width, channels per head and instructions of the CPU, compared with measurements."""

from pathlib import Path

import pytest
import torch
from checkout import BENCHMARKS
from chopmix.experiment import build as resolved
from chopmix.experiment.build import gains, precision_of, resolve
from chopmix.experiment.settings.config import load_config
from chopmix.training.objective import autocast

CPU = torch.device("cpu")


def test_float32_is_float32_inside_of_bfloat16():
    """A judging run can be called while another run is evaluated."""
    one = torch.ones(2, 2)
    with autocast(CPU, "bfloat16"):
        assert (one @ one).dtype == torch.bfloat16
        with autocast(CPU, "float32"):
            assert (one @ one).dtype == torch.float32


def precision(tiny, *overrides: str, folder: Path | None = None) -> str:
    """The precision of a configuration on a CPU."""
    config = load_config(tiny(), [*overrides])
    return resolve(config.training, config.model, folder, CPU).precision


@pytest.fixture(params=[True, False], ids=["instructions", "no instructions"])
def halves(request, monkeypatch) -> bool:
    """Whether the CPU has instructions for bfloat16."""
    monkeypatch.setattr(resolved, "fast_half", lambda device: request.param)
    return request.param


def test_wide_models_use_bfloat16_if_the_cpu_has_instructions_for_it(tiny, halves):
    wide = ["model.width=256", "model.heads=4"]
    assert precision(tiny, *wide) == ("bfloat16" if halves else "float32")
    assert precision(tiny, "model.width=16", "model.heads=4") == "float32"
    assert precision(tiny, "model.width=256", "model.heads=64") == "float32"
    assert precision(tiny, *wide, "model.block={head_width: 4}") == "float32"
    for named in ("float32", "bfloat16"):
        assert precision(tiny, *wide, f"training.precision={named}") == named
    assert precision(tiny, "model.width=16", "training.precision=fast") == ("bfloat16" if halves else "float32")


def test_a_run_keeps_its_precision_and_is_evaluated_with_it(tiny, halves, tmp_path, monkeypatch):
    wide = ["model.width=256", "model.heads=4"]
    chosen = precision(tiny, *wide, folder=tmp_path)
    assert precision_of(tmp_path, CPU) == chosen
    monkeypatch.setattr(resolved, "fast_half", lambda device: not halves)
    assert precision(tiny, *wide, folder=tmp_path) == chosen == precision_of(tmp_path, CPU)
    assert precision_of(tmp_path / "no run", CPU) == "float32"


def test_the_rule_agrees_with_measurements(monkeypatch):
    """`benchmarks/precision.py`: where the rule chooses bfloat16, it is always more than 1.2 times as fast. Where
    it chooses float32, models are so small, or heads so narrow, that bfloat16 would often gain less."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from results import read_results

    rows = {
        (row["width"], row["channels"], row["context"], row["attention"]): row["ratio"]
        for row in read_results("precision")
    }
    chosen = [ratio for (width, channels, *_), ratio in rows.items() if gains(width, channels)]
    others = [ratio for (width, channels, *_), ratio in rows.items() if not gains(width, channels)]
    assert len(chosen) > 40 and len(others) > 8
    assert min(chosen) > 1.2 > min(others)
    means = [torch.tensor(ratios).log().mean().exp() for ratios in (chosen, others)]
    assert means[0] > 1.5 and means[1] < 1.35
