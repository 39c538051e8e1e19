"""Of every tokenizer, by changing raw samples: no sample reads another one beside which it is packed, and what is
predicted is not read."""

import copy

import numpy as np
import pytest
import torch
from batching import make_batch
from checkout import ROOT
from untrained import Everything, untrained

INPUTS = {
    "audio": ("sound", {"rate": 8000, "mels": 8, "frames": 4, "statistics": [-5, 3]}),
    "audio_patches": ("sound", {"rate": 8000, "mels": 16, "patch_size": 8, "stride": 8, "statistics": [-5, 3]}),
    "audio_stem": ("sound", {"rate": 8000, "mels": 8, "longest": 0.1, "fill": 0.1}),
    "category": ("moves", {"size": 3}),
    "image": ("image", {"patch_size": 4, "channels": 1, "size": 8}),
    "image_ids": ("image", {"size": 4, "patch_size": 2, "channels": 1}),
    "noted_text": ("text", {"encoding": "bytes", "notes": ["<", ">"]}),
    "score": ("tune", {"voices": 2}),
    "sensor": ("wave", {"channels": 2, "mean": 0, "scale": 1}),
    "text": ("text", {"encoding": "bytes"}),
    "video": ("clip", {"size": 8, "patch_size": 4, "channels": 1}),
}
"""By tokenizer: the column that is read, and its options."""
OTHERS = {"base": "no tokenizer", "codes": "test_codes.py", "encoded": "test_encoded.py"}
WRITTEN = ("image_ids", "noted_text", "score", "text")
"""Tokenizers whose items can be generated."""


def test_every_tokenizer_is_searched():
    assert INPUTS.keys() | OTHERS.keys() == {file.stem for file in (ROOT / "tokenizers").glob("*.py")}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows(column: str, count: int = 3) -> list[dict]:
    """Samples of which each has the column as the input `x`, and a word."""
    data = Everything().open("train")
    longest = max(str(data[n][column]) for n in range(8)) if column == "text" else ""
    return [{"x": longest or data[n][column], "other": ("chop", "mix", "set")[n]} for n in range(count)]


def changed(value):
    """Another value of as many tokens, of which every part is another one."""
    if isinstance(value, str):
        return "".join(chr(ord(each) ^ 1) for each in value)
    if isinstance(value, tuple):
        return (value[0][::-1] * 0.7, value[1])
    return (255 - value) if value.dtype == np.uint8 else value + 1 if value.max() > 9 else (value + 1) % 3


def scores(run, samples: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
    """What is said of every target when all samples are packed, and the number of each target's sample."""
    split = run.given(samples, asked=False)
    batch = make_batch(split, split.all(), run.tasks)
    targets = batch.targets["lm"]
    said = run.model(run.model.plan(batch))["lm"]
    keys = batch.main.keys
    numbers = batch.main.tokens.sample.flatten()[targets.slots]
    return said, torch.tensor([int(keys[number - 1].split()[1]) for number in numbers.tolist()])


@torch.no_grad()
@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("attention", ["same_sample & (causal | from(x))", "causal & same_sample"])
def test_a_sample_does_not_read_its_neighbours(name, attention):
    column, options = INPUTS[name]
    run = untrained(
        {"x": {"use": name, **options}, "other": {"use": "text", "encoding": "bytes"}},
        {"lm": {"use": "language_modeling", "target": "other"}},
        {"attention": attention, "context": 512}, columns={"x": column},
    )  # fmt: skip
    samples = rows(column)
    before, numbers = scores(run, samples)
    for changes in ("x", "other"):
        others = copy.deepcopy(samples)
        others[1][changes] = changed(others[1][changes])
        after, same = scores(run, others)
        assert torch.equal(numbers, same), "both are packed alike"
        assert torch.equal(before[numbers != 2], after[numbers != 2])
        if changes == "x":
            assert not torch.equal(before[numbers == 2], after[numbers == 2]), "its own is read"


@torch.no_grad()
@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_generated_is_not_read_before_it_is(name):
    """The second half of an item is another one: what is said of the first half is the same."""
    column, options = INPUTS[name]
    run = untrained({"x": {"use": name, **options}}, {"lm": {"use": "language_modeling", "target": "x"}},
                    {"attention": "causal & same_sample", "context": 512}, columns={"x": column})  # fmt: skip
    chopper = run.choppers["x"]
    value = rows(column)[0]["x"]
    ids = list(chopper.chop(chopper.decode(value)).values)
    before, _ = scores(run, [{"x": value}])
    other, half = changed(value), len(value) // 2
    other = value[:half] + other[half:] if isinstance(value, str) else np.concatenate([value[:half], other[half:]])
    after, _ = scores(run, [{"x": other}])
    theirs = list(chopper.chop(chopper.decode(other)).values)
    first = next(number for number, (one, two) in enumerate(zip(ids, theirs)) if one != two)
    assert first > 1 and torch.equal(before[:first], after[:first]) and not torch.equal(before[first:], after[first:])
