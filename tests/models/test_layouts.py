"""The examples of layout that docstrings show are what packing makes."""

import inspect
from itertools import takewhile

import torch
from batching import asked
from chopmix.models.batch import Chunks, SetPlan, Targets
from chopmix.models.tokens import Tokens
from chopmix.tasks.language_modeling import LanguageModeling
from chopmix.tokenizers.chopping.packing import place
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.image import ImageChopper
from chopmix.tokenizers.text import TextChopper

AXES = ("order", "row", "column")


def planned(samples: list, n: int, size: tuple[int, int], own: int = 0, rows: list[int] | None = None) -> SetPlan:
    """Samples of pictures (True) and texts, packed into rows of n slots; patches are 4 x 4."""
    choppers = {
        "image": ImageChopper(patch_size=4, channels=1, size=size),
        "text": TextChopper(vocabulary=ByteEncoding()),
    }
    picture = torch.zeros(1, *size, dtype=torch.uint8)
    named = [[("image", picture) if part is True else ("text", part) for part in sample] for sample in samples]
    chopped = [[(name, choppers[name].chop(item)) for name, item in sample] for sample in named]
    return place(chopped, choppers, n, AXES, core=own, rows=rows or [0] * len(samples))


def line_of(kind: type, name: str) -> str:
    """What stands behind a name at the beginning of a line, in the example of a docstring."""
    return next(
        line.strip()[len(name) :] for line in inspect.getdoc(kind).splitlines() if line.strip().startswith(f"{name} ")
    )


def numbers(kind: type, name: str) -> list[int]:
    """The whole numbers of such a line, up to the first other word."""
    return [int(word) for word in takewhile(lambda word: word.lstrip("-").isdecimal(), line_of(kind, name).split())]


def test_the_descriptors_of_two_samples_in_a_row():
    found = planned([[True, "a"], ["b"]], 7, (4, 8)).tokens
    assert found.shape == (1, 7)
    for name in ("input", "sample", "item"):
        assert getattr(found, name)[0].tolist() == numbers(Tokens, name)
    for axis in range(3):
        expected = torch.tensor([float(word) for word in line_of(Tokens, f"position[..., {axis}]").split()])
        torch.testing.assert_close(found.position[0, :, axis], expected, equal_nan=True)


def test_the_chunks_of_two_pictures_in_two_rows():
    found = planned([[True], [True]], 8, (8, 8), own=1, rows=[0, 1]).chunks["image"]
    assert line_of(Chunks, "values").strip() == str(tuple(found.values.shape))
    for name in ("index", "slots", "counts"):
        assert getattr(found, name).tolist() == numbers(Chunks, name)
    pairs = "".join(f"({row:.0f}, {column:.0f}) " for row, column in found.coordinates)
    assert line_of(Chunks, "coordinates").split() == pairs.split()


def test_the_targets_of_two_texts():
    task = LanguageModeling(target="text")
    found = asked(task, planned([["ab"], ["c"]], 8, (4, 8)))
    for name in ("slots", "values", "carriers"):
        assert getattr(found, name).tolist() == numbers(Targets, name)
    assert [found.count] == numbers(Targets, "count")


def test_a_picture_and_texts_behind_class_tokens():
    found = planned([[True, "ab"], ["c"]], 10, (4, 8), own=1)
    for name in ("input", "sample", "item"):
        assert getattr(found.tokens, name)[0].tolist() == numbers(SetPlan, f"tokens.{name}")
    for name, chunks in found.chunks.items():
        told = line_of(SetPlan, f'chunks["{name}"]')
        assert told.split("slots")[1].split("counts")[0].split() == [str(int(slot)) for slot in chunks.slots]
        assert told.split("counts")[1].split() == [str(int(count)) for count in chunks.counts]
    told = line_of(SetPlan, 'chunks["text"]').split("slots")[0].split()[1:]
    assert told == [str(int(id)) for id in found.chunks["text"].values]
    assert line_of(SetPlan, "own").strip() == str(found.own.tolist())
    assert [found.samples] == numbers(SetPlan, "samples")
