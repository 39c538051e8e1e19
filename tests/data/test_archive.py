"""The series of the UCR and UEA archives, as aeon contains them."""

import numpy as np
import pytest
from chopmix.data.datasets.archive import Archive, without_padding
from chopmix.files.reading import DataError

aeon = pytest.importorskip("aeon", reason="needs aeon")


def test_splits_are_those_of_the_archive_and_lengths_are_kept():
    vowels = Archive(name="JapaneseVowels")
    train, val, test = (vowels.open(split) for split in ("train", "val", "test"))
    assert (len(train) + len(val), len(test)) == (270, 370) and 10 < len(val) < 45
    assert not {*train.keys} & {*val.keys} and train[0]["series"].dtype == np.float32
    lengths = {row["series"].shape for row in test}
    assert {channels for _, channels in lengths} == {12} and len(lengths) > 10
    assert not any(np.isnan(row["series"]).any() for row in test) and isinstance(test[0]["label"], str)
    assert len(Archive(name="GunPoint").undivided()) == 50


def test_an_unknown_name_lists_the_possible_ones():
    with pytest.raises(DataError, match="aeon does not contain 'Gun'; possible: .*GunPoint, .*JapaneseVowels"):
        Archive(name="Gun").open("train")


def test_padding_at_the_end_is_removed():
    series = np.array([[1, np.nan], [np.nan, np.nan], [2, 3], [np.nan, np.nan]])
    assert len(without_padding(series)) == 3 and len(without_padding(np.full((4, 1), np.nan))) == 1
