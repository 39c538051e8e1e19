"""Data sets that are made by a rule."""

import inspect

import pytest
from chopmix.data.base import Dataset
from chopmix.data.made import MOST, MadeDataset
from chopmix.experiment.settings.registry import registry_of
from chopmix.files.reading import DataError

REGISTRY = registry_of((Dataset,))
MADE = [each for stem in REGISTRY.stems() for each in REGISTRY.classes(stem) if issubclass(each, MadeDataset)]


@pytest.mark.parametrize("samples", [0, -1, MOST + 1, 2**63])
@pytest.mark.parametrize("dataset", MADE, ids=lambda each: each.__name__)
def test_the_number_of_samples_has_its_range(dataset, samples):
    missing = [each for each in inspect.signature(dataset).parameters.values() if each.default is each.empty]
    assert len(MADE) >= 8 and all(each.name == "dimension" for each in missing)
    with pytest.raises((DataError, ValueError), match="samples.*must be|samples at least 1"):
        dataset(samples=samples, **{each.name: 2 for each in missing}).open("train")
