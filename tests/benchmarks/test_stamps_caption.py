"""The benchmark that compares runs on the data set `stamps`: the inputs of each experiment, intervals, and
measurements of real runs."""

import sys

import numpy as np
import pytest
from checkout import BENCHMARKS
from chopmix.data.base import data_root
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train


@pytest.fixture(scope="module")
def stamps_caption():
    """The script, as a module."""
    sys.path.insert(0, str(BENCHMARKS))
    import stamps_caption

    yield stamps_caption
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("name", ["fused", "image", "sound", "nothing"])
def test_an_experiment_reads_what_its_name_says(stamps_caption, tmp_path, name):
    file = tmp_path / "x.yaml"
    file.write_text(stamps_caption.config_of(name))
    config = load_config(file)
    assert set(config.inputs) == {*stamps_caption.READS[name], "caption"}
    assert ("from" in config.model.options["attention"]) == (name != "nothing")
    assert ("attribution" in config.evaluation.also) == (name != "nothing")  # refused where no input can be withheld


def test_an_interval_contains_the_difference_of_the_captions(stamps_caption):
    random = np.random.default_rng(0)
    sizes, keys = random.integers(10, 40, 80), tuple(map(str, range(80)))
    bits = random.normal(3.0, 0.5, (5, 80)) * sizes
    first = stamps_caption.Costs(bits, sizes, keys)
    assert stamps_caption.bootstrap(first, first) == (0.0, 0.0)
    dearer = stamps_caption.Costs(bits + sizes * random.normal(0.25, 0.1, 80), sizes, keys)
    low, high = stamps_caption.bootstrap(dearer, first)
    assert 0.2 < low < 0.25 < high < 0.3
    row = stamps_caption.difference(("dearer", "first"), dearer, first)
    assert low <= row["bits_per_byte"] <= high and row["seeds"] == 5 and row["bytes"] == sizes.sum()
    other = stamps_caption.Costs(bits, sizes, keys[::-1])
    with pytest.raises(SystemExit, match="not validated on the same captions"):
        stamps_caption.difference(("one", "other"), first, other)


@pytest.mark.system
@pytest.mark.skipif(not (data_root() / "stamps").exists(), reason="needs CHOPMIX_DATA")
def test_trained_runs_are_measured(stamps_caption, tmp_path):
    file = tmp_path / "fused.yaml"
    file.write_text(stamps_caption.config_of("fused"))
    settings = [
        "training.steps=2",
        "model.width=16",
        "model.depth=1",
        "evaluation.attribution=false",
        f"out={tmp_path}/seed-0",
    ]
    summary, _ = train(load_config(file, settings))
    rows = {row["what"]: row for row in stamps_caption.measure([tmp_path] * 4)}
    assert rows["fused"]["bits_per_byte"] == pytest.approx(summary["val/bits_per_byte"], abs=0.02)
    assert rows["fused"]["captions"] == 73 and rows["fused, given nothing"]["bits_per_byte"] > 0
    assert rows["fused - image"]["bits_per_byte"] == 0 and rows["fused - image"]["low"] == 0
