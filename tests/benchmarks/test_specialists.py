"""The benchmark of one model for four tasks: what each specialist reads, and how much of it."""

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


@pytest.mark.parametrize("name, samples", [("mnist", 6), ("fsdd", 6), ("python", 12), ("captions", 12)])
@pytest.mark.parametrize("steps, minutes", [(900, None), (None, 15.0)])
def test_a_specialist_reads_its_source_alone(specialists, tmp_path, name, samples, steps, minutes):
    file = tmp_path / "x.yaml"
    file.write_text(specialists.yaml.safe_dump(specialists.config_of(name, steps, minutes), sort_keys=False))
    config, whole = load_config(file), load_config(specialists.CONFIG)
    assert (config.training.steps, config.training.minutes) == (steps, minutes)
    assert config.training.samples_per_step == samples and [*config.data.dataset().of] == [name]
    assert {*config.inputs} == {*specialists.KEPT[name][0]} and len(config.tasks) == 1
    assert config.model.options["width"] == whole.model.options["width"]
    everything = [each for other in specialists.KEPT for each in specialists.KEPT[other][0]]
    assert sorted(everything) == sorted(whole.inputs), "every input of the generalist is some specialist's"


def test_a_row_finds_the_metric_of_its_source(specialists):
    own = {"val/mnist/digit/accuracy": 0.9, "test/mnist/digit/accuracy": 0.8}
    together = [own | {"val/digit/accuracy": 0.5, "val/german/loss": 2.0, "test/digit/accuracy": 0.5}] * 2
    found = specialists.row("generalist", "mnist", together)
    assert (found["val/mean"], found["test/mean"], found["val/std"]) == (0.9, 0.8, 0.0)
    with pytest.raises(KeyError):  # never a row without figures
        specialists.row("alone", "mnist", [{"val/accuracy": 0.7}])
