"""The benchmark of one model for four tasks: the inputs, the samples and the metrics of each specialist."""

import sys

import pytest
from checkout import BENCHMARKS
from chopmix.experiment.settings.config import load_config


@pytest.fixture(scope="module")
def specialists():
    """The script, as a module."""
    sys.path.insert(0, str(BENCHMARKS))
    import specialists

    yield specialists
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize(
    "which, name, samples",
    [
        ("four", "mnist", 6),
        ("four", "fsdd", 6),
        ("four", "python", 12),
        ("five", "captions", 12),
        ("five", "cartpole", 12),
    ],
)
@pytest.mark.parametrize("steps, minutes", [(900, None), (None, 15.0)])
def test_a_specialist_reads_its_source_alone(specialists, tmp_path, which, name, samples, steps, minutes):
    file, generalist = tmp_path / "x.yaml", specialists.CONFIG.with_stem(which)
    tree = specialists.config_of(generalist, name, steps, minutes)
    file.write_text(specialists.yaml.safe_dump(tree, sort_keys=False))
    config, whole = load_config(file), load_config(generalist)
    assert (config.training.steps, config.training.minutes) == (steps, minutes)
    assert config.training.samples_per_step == samples and [*config.data.dataset().of] == [name]
    assert {*config.inputs} == {*specialists.KEPT[name][0]} and len(config.tasks) == 1
    assert config.model.options["width"] == whole.model.options["width"]
    assert ("play" in config.evaluation.also) == (name == "cartpole")
    everything = [each for other in whole.data.dataset().of for each in specialists.KEPT[other][0]]
    assert sorted(everything) == sorted(whole.inputs), "every input of the generalist is some specialist's"


def test_a_row_has_the_metrics_of_its_source(specialists):
    metrics = {"val/mnist/digit/accuracy": 0.9, "test/mnist/digit/accuracy": 0.8}
    together = [metrics | {"val/digit/accuracy": 0.5, "val/german/loss": 2.0, "test/digit/accuracy": 0.5}] * 2
    row = specialists.row("generalist", "mnist", together)
    assert (row["val/mean"], row["test/mean"], row["val/std"]) == (0.9, 0.8, 0.0)
    with pytest.raises(KeyError):  # a row always has metrics
        specialists.row("alone", "mnist", [{"val/accuracy": 0.7}])
