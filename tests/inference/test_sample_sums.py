"""Sums by sample: written sums are read again, damage raises one message, and two processes have the sums of one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from chopmix.experiment.build import open_split
from chopmix.files.reading import DataError
from chopmix.inference.evaluation import measured
from chopmix.inference.sample_sums import FORMAT, About, SplitSums, TaskSums, as_bytes, compact, file_of, read_sums
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_evaluation import Rows, experiment, measured_by_two, split_of, trained_of  # noqa: F401

NAMES = st.text(min_size=1, max_size=9)
UNITS = st.none() | NAMES | st.integers(-9, 9) | st.booleans()


@st.composite
def split_sums(draw):
    """Returns sums of any tasks on any of the samples: numbers, vectors, long sparse vectors, texts."""
    keys = draw(st.lists(NAMES, max_size=6, unique=True))
    tasks = {}
    for name in draw(st.lists(NAMES, max_size=3, unique=True)):
        numbers = np.array(sorted(draw(st.sets(st.integers(0, len(keys) - 1)))) if keys else [], dtype=np.int64)
        random = np.random.default_rng(draw(st.integers(0, 99)))
        shapes = {"loss": (), "hits": (3,), "codes": (40,), "square": (2, 2)}
        sums = {
            key: compact(random.integers(0, 2, (len(numbers), *shape)).astype(float)) for key, shape in shapes.items()
        }
        texts = [(number, draw(NAMES), draw(NAMES)) for number in numbers.tolist()]
        tasks[name] = TaskSums(numbers, sums, texts)
    units = draw(st.none() | st.lists(UNITS, min_size=len(keys), max_size=len(keys)))
    about = About(format=FORMAT, split="val", step=3, weights="ab", tasks=tuple(tasks), kind="groups", of=draw(NAMES))
    return SplitSums(about=about, keys=keys, units=units, tasks=tasks)


def plain(sums):
    return {name: (part.numbers.tolist(), part.texts, {k: v.toarray().tolist() if hasattr(v, "toarray") else v.tolist()
                                                       for k, v in part.sums.items()})
            for name, part in sums.tasks.items()}  # fmt: skip


@settings(max_examples=60)
@given(sums=split_sums())
def test_written_sums_are_read_again(tmp_path_factory, sums):
    folder = tmp_path_factory.getbasetemp() / "sums"
    sums.write(folder)
    loaded = read_sums(folder, "val")
    assert (loaded.about, list(loaded.keys), loaded.units) == (sums.about, list(sums.keys), sums.units)
    assert plain(loaded) == plain(sums) and read_sums(folder, "test") is None


@pytest.fixture
def sums_folder(tmp_path):
    part = TaskSums(np.arange(3), {"loss": np.ones(3), "codes": compact(np.eye(3, 40))}, [(0, "a", "b")])
    about = About(format=FORMAT, split="val", step=1, weights="", tasks=("kind",))
    SplitSums(about=about, keys=["x", "y", "z"], units=None, tasks={"kind": part}).write(tmp_path)
    return tmp_path


CHANGES = {
    "about": lambda t: t | {"about": as_bytes({"format": 9})},
    "newer": lambda t: t | {"about": as_bytes(json.loads(t["about"].numpy().tobytes()) | {"format": 2})},
    "missing": lambda t: {name: value for name, value in t.items() if name != "keys"},
    "keys": lambda t: t | {"keys": as_bytes(["x"])},
    "numbers": lambda t: t | {"0.numbers": torch.tensor([0, 1, 7])},
    "negative": lambda t: t | {"0.numbers": torch.tensor([0, 1, -1])},
    "rows": lambda t: t | {"0.sums.loss": torch.ones(2)},
    "texts": lambda t: t | {"0.texts": as_bytes([[0, 1, 2]])},
    "short texts": lambda t: t | {"0.texts": as_bytes([[0]])},
    "units": lambda t: t | {"units": as_bytes([[], {}, 1])},
    "indices": lambda t: t | {"0.sums.codes.indices": torch.tensor([0, 1, 99])},
    "indptr": lambda t: t | {"0.sums.codes.indptr": torch.tensor([0, 1, 2, 99])},
    "wide": lambda t: t | {"0.sums.codes.shape": torch.tensor([3, 10**12])},
    "shape": lambda t: t | {"0.sums.codes.shape": torch.tensor([3])},
    "scalar": lambda t: t | {"0.sums.loss": torch.tensor(1.0)},
    "no json": lambda t: t | {"keys": torch.tensor([1, 2], dtype=torch.uint8)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_inconsistent_file_raises_one_message(sums_folder, name):
    file = file_of(sums_folder, "val")
    save_file(CHANGES[name](load_file(file)), file)
    with pytest.raises(DataError, match=r"val-sums.safetensors is damaged: .*`chopmix evaluate` writes it again"):
        read_sums(sums_folder, "val")


@settings(max_examples=60)
@given(place=st.floats(0, 1), value=st.integers(0, 255))
def test_a_changed_byte_raises_a_message_or_gives_other_sums(tmp_path_factory, place, value):
    folder = tmp_path_factory.getbasetemp() / "bytes"
    part = TaskSums(np.arange(3), {"loss": np.ones(3)}, [(0, "a", "b")])
    about = About(format=FORMAT, split="val", step=1, weights="", tasks=("kind",))
    SplitSums(about=about, keys=["x", "y", "z"], units=None, tasks={"kind": part}).write(folder)
    content = bytearray(file_of(folder, "val").read_bytes())
    content[int(place * (len(content) - 1))] = value
    file_of(folder, "val").write_bytes(content)
    try:
        loaded = read_sums(folder, "val")
    except DataError:
        return
    assert isinstance(loaded, SplitSums)


def test_two_processes_have_the_sums_of_one(experiment):  # noqa: F811
    split = split_of(experiment, [[{"a": "ab", "b": "c"}] * 3, [{"b": "abc", "c": "a", "label": "u"}] * 4])
    experiment.model.eval()
    alone = measured(trained_of(experiment), split, rows=2, generated=2, detail="samples")
    for each in measured_by_two(experiment, split, rows=2, generated=2, detail="samples"):
        assert each.by_sample.keys() == alone.by_sample.keys()
        for name, sums in alone.by_sample.items():
            other = each.by_sample[name]
            assert other.numbers.tolist() == sums.numbers.tolist() and other.texts == sums.texts
            for key, rows in sums.sums.items():
                np.testing.assert_allclose(other.sums[key], rows, rtol=1e-4, atol=1e-6)


def test_a_batch_of_bad_samples_has_no_sums(experiment):  # noqa: F811
    """An earlier version ended with `zip() argument 3 is longer than arguments 1-2` if no sample could be read."""
    config = replace(experiment.config, data=replace(experiment.config.data, bad_share=1.0))
    split = open_split(config, Rows(rows=[{"a": 7}] * 3), "val", experiment.data.choppers, experiment.data.tasks)
    measurement = measured(trained_of(experiment), split, rows=2, generated=0, detail="samples")
    assert all(not len(sums.numbers) for sums in measurement.by_sample.values())
