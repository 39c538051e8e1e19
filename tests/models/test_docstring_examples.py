"""The examples of layouts in docstrings equal what packing produces."""

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


def packed(samples: list, n: int, size: tuple[int, int], core: int = 0, rows: list[int] | None = None) -> SetPlan:
    """Samples of images (True) and texts, packed into rows of n slots; patches are 4 x 4."""
    choppers = {
        "image": ImageChopper(patch_size=4, channels=1, size=size),
        "text": TextChopper(vocabulary=ByteEncoding()),
    }
    image = torch.zeros(1, *size, dtype=torch.uint8)
    items_of_samples = [[("image", image) if part is True else ("text", part) for part in sample] for sample in samples]
    chopped = [[(name, choppers[name].chop(item)) for name, item in sample] for sample in items_of_samples]
    return place(chopped, choppers, n, AXES, core=core, rows=rows or [0] * len(samples))


def line_of(kind: type, name: str) -> str:
    """The text after a name at the beginning of a line, in the example of a docstring."""
    return next(
        line.strip()[len(name) :] for line in inspect.getdoc(kind).splitlines() if line.strip().startswith(f"{name} ")
    )


def numbers(kind: type, name: str) -> list[int]:
    """The integers of such a line, up to the first other word."""
    return [int(word) for word in takewhile(lambda word: word.lstrip("-").isdecimal(), line_of(kind, name).split())]


def test_the_descriptors_of_two_samples_in_a_row():
    tokens = packed([[True, "a"], ["b"]], 7, (4, 8)).tokens
    assert tokens.shape == (1, 7)
    for name in ("input", "sample", "item"):
        assert getattr(tokens, name)[0].tolist() == numbers(Tokens, name)
    for axis in range(3):
        expected = torch.tensor([float(word) for word in line_of(Tokens, f"position[..., {axis}]").split()])
        torch.testing.assert_close(tokens.position[0, :, axis], expected, equal_nan=True)


def test_the_chunks_of_two_images_in_two_rows():
    chunks = packed([[True], [True]], 8, (8, 8), core=1, rows=[0, 1]).chunks["image"]
    assert line_of(Chunks, "values").strip() == str(tuple(chunks.values.shape))
    for name in ("index", "slots", "counts"):
        assert getattr(chunks, name).tolist() == numbers(Chunks, name)
    pairs = "".join(f"({row:.0f}, {column:.0f}) " for row, column in chunks.coordinates)
    assert line_of(Chunks, "coordinates").split() == pairs.split()


def test_the_targets_of_two_texts():
    task = LanguageModeling(target="text")
    targets = asked(task, packed([["ab"], ["c"]], 8, (4, 8)))
    for name in ("slots", "values", "carriers"):
        assert getattr(targets, name).tolist() == numbers(Targets, name)
    assert [targets.count] == numbers(Targets, "count")


def test_an_image_and_texts_after_class_tokens():
    plan = packed([[True, "ab"], ["c"]], 10, (4, 8), core=1)
    for name in ("input", "sample", "item"):
        assert getattr(plan.tokens, name)[0].tolist() == numbers(SetPlan, f"tokens.{name}")
    for name, chunks in plan.chunks.items():
        documented = line_of(SetPlan, f'chunks["{name}"]')
        assert documented.split("slots")[1].split("counts")[0].split() == [str(int(slot)) for slot in chunks.slots]
        assert documented.split("counts")[1].split() == [str(int(count)) for count in chunks.counts]
    documented = line_of(SetPlan, 'chunks["text"]').split("slots")[0].split()[1:]
    assert documented == [str(int(id)) for id in plan.chunks["text"].values]
    assert line_of(SetPlan, "core_slots").strip() == str(plan.core_slots.tolist())
    assert [plan.samples] == numbers(SetPlan, "samples")
