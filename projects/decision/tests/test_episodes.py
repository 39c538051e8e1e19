"""Episodes in a folder: damaged or foreign parts are refused with a message."""

import numpy as np
import pytest
import torch
from chopmix.files.reading import DataError
from chopmix.files.records import read_tensors, write_tensors
from chopmix.projects.decision.recording.episodes import Episode, part_of, read_episodes, read_part, write_part
from chopmix.projects.decision.recording.record import about_of, begin_folder


def episode(steps: int = 3, mission: str = "go") -> Episode:
    observations = {"state": np.arange(2.0 * steps).reshape(steps, 2)}
    return Episode(observations, {"mission": mission}, np.zeros(steps, np.int64), np.ones(steps))


@pytest.fixture
def part(tmp_path):
    """A part of two episodes."""
    write_part(tmp_path, 0, [episode(3), episode(2)])
    return part_of(tmp_path, 0)


TEXTS = "'text.mission' must be texts, one per episode"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lengths", torch.tensor([3.0, 2.0]), "'lengths' must be integers, one per episode"),
        ("lengths", torch.tensor([torch.inf, 2.0]), "'lengths' must be integers, one per episode"),
        ("lengths", torch.tensor([[3, 2]]), "'lengths' must be integers, one per episode"),
        ("lengths", torch.tensor([True, True]), "'lengths' must be integers, one per episode"),
        ("lengths", torch.tensor([2**62, 2**62]), "'actions' holds 5 steps, but the episodes have 9223372036854775808"),
        ("lengths", torch.zeros(0, dtype=torch.int64), "it contains no episodes"),
        ("seeds", torch.tensor([0.5, 1.0]), "'seeds' must be integers, one per episode"),
        ("seeds", torch.tensor([1]), "'seeds' must be integers, one per episode"),
        ("given_up", torch.tensor([0.5, 1.0]), "'given_up' must be integers, one per episode"),
        ("ended", torch.tensor([1.0, 0.0]), "'ended' must be booleans, one per episode"),
        ("ended", torch.tensor([True]), "'ended' must be booleans, one per episode"),
        ("rewards", torch.ones(5, dtype=torch.complex64), "'rewards' must be numbers, one per step"),
        ("rewards", torch.ones(5, 1), "'rewards' must be numbers, one per step"),
        ("actions", torch.tensor(1.0), "'actions' must be numbers, one row per step"),
        ("actions", torch.ones(5, dtype=torch.complex64), "'actions' must be numbers, one row per step"),
        ("observation.state", torch.tensor(1.0), "'observation.state' must be numbers, one row per step"),
        ("text.mission", torch.tensor(list(b'["go"]'), dtype=torch.uint8), TEXTS),
        ("text.mission", torch.tensor(list(b'["go", 1]'), dtype=torch.uint8), TEXTS),
        ("text.mission", torch.tensor(list(b'{"a": 1}'), dtype=torch.uint8), TEXTS),
        ("text.mission", torch.tensor(list(b"["), dtype=torch.uint8), "text.mission: not JSON"),
        ("text.mission", torch.ones(3, dtype=torch.bfloat16), "is not a part of recorded episodes"),
    ],
)  # fmt: skip
def test_values_of_a_wrong_type_or_count_are_refused(part, name, value, message):
    write_tensors(part, {**read_tensors(part), name: value})
    with pytest.raises(DataError, match=f"{part.name}.*{message}"):
        read_part(part)


@pytest.mark.parametrize("name", ["lengths", "seeds", "ended", "rewards", "actions"])
def test_a_missing_array_is_named(part, name):
    write_tensors(part, {key: value for key, value in read_tensors(part).items() if key != name})
    with pytest.raises(DataError, match=f"{part.name} is not a part of recorded episodes: {name!r} is missing"):
        read_part(part)


def test_given_up_is_zero_in_a_part_of_an_earlier_version(part):
    write_tensors(part, {name: value for name, value in read_tensors(part).items() if name != "given_up"})
    assert read_part(part).given_up.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda episode: [episode] * 3, r"part-00001\.safetensors contains 3 episodes instead of 20"),
        (
            lambda episode: [episode._replace(texts={})] * 20,
            "part-00001.safetensors differs from part-00000.safetensors in 'mi",
        ),
        (lambda episode: [episode._replace(actions=np.zeros((3, 2)))] * 20, "differs from part-00000.* in 'actions'"),
        (lambda episode: [episode._replace(observations={})] * 20, "differs from part-00000.safetensors in 'state'"),
    ],
)
def test_parts_of_different_recordings_are_refused(tmp_path, change, message):
    about = about_of("chopmix/KeyToDoor-v0", {}, "random", (0.0, 0.0), 0, 120)
    begin_folder(tmp_path, about)
    write_part(tmp_path, 0, [episode()] * 100)
    write_part(tmp_path, 1, change(episode()))
    with pytest.raises(DataError, match=message):
        read_episodes(tmp_path)


def test_a_folder_with_a_false_number_of_episodes_is_refused(tmp_path):
    """Without allocating memory for the names of the files."""
    begin_folder(tmp_path, about_of("chopmix/KeyToDoor-v0", {}, "random", (0.0, 0.0), 0, 10**15))
    write_part(tmp_path, 0, [episode()] * 100)
    with pytest.raises(DataError, match="contains 100 of 1,000,000,000,000,000 episodes"):
        read_episodes(tmp_path)
    text = (tmp_path / "episodes.json").read_text()
    (tmp_path / "episodes.json").write_text(text.replace(f'"episodes": {10**15}', '"episodes": 0'))
    with pytest.raises(DataError, match="episodes: must be greater than or equal to 1, not 0"):
        read_episodes(tmp_path)
