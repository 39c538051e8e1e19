"""`seed_torch` seeds torch's default generators like `torch.manual_seed`, but without the work for GPUs."""

import pytest
import torch
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.models.seeding import seed_torch
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def calls(monkeypatch):
    """The seeds with which `torch.manual_seed` was called."""
    seeds, manual_seed = [], torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: seeds.append(seed) or manual_seed(seed))
    return seeds


@given(st.integers(0, 2**63 - 1))
def test_the_numbers_are_those_of_manual_seed(seed):
    seed_torch(seed, torch.device("cpu"))
    numbers = torch.rand(3)
    torch.manual_seed(seed)
    assert torch.equal(numbers, torch.rand(3))


def test_all_generators_are_seeded_for_a_gpu(calls):
    seed_torch(3, torch.device("cpu"))
    assert calls == []
    seed_torch(4, torch.device("cuda"))
    assert calls == [4]


def test_steps_on_a_cpu_do_not_seed_gpus(tiny, calls):
    train(load_config(tiny(), ["training.steps=3", "training.rows_per_micro_batch=2", "training.seed=5"]))
    assert calls == [5], "once, for the initial weights"
