"""Rewards: the gradient is that of the policy gradient, advantages compare the answers to one sample, and a run learns
from the reward alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.rules import Rolled
from chopmix.data.sampler import SampleIndex
from chopmix.experiment.run import load_run
from chopmix.files.errors import RunError
from chopmix.files.reading import DataError
from chopmix.models.batch import IGNORED, Targets
from chopmix.projects.preferences.datasets.rewarded_arithmetic import RewardedArithmetic
from chopmix.projects.preferences.evaluators.divergence import Divergence
from chopmix.projects.preferences.rewards import RightSum, advantages_of
from chopmix.projects.preferences.tasks.policy_gradient import PolicyGradient
from chopmix.tasks.base import with_targets
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import train_together

CONFIG = ROOT / "configs" / "preferences" / "arithmetic.yaml"
TINY = [
    "model.width=16", "model.depth=1", "training.steps=8", "training.samples_per_step=16",
    "training.schedule=constant", "training.precision=float32", "evaluation.every=4", "evaluation.generated=16",
    "evaluation.divergence=false", "checkpoints.every=3", "logging.tensorboard=false", "data.workers=0",
]  # fmt: skip
OWN = "data.dataset={use: rewarded_arithmetic, every: 2, samples: 64}"
START = ["data.dataset={use: arithmetic, scratchpad: false, samples: 64}", "tasks.answer.use=language_modeling"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A run that was trained on true answers for a few steps."""
    folder = tmp_path_factory.mktemp("preferences") / "start"
    assert main(["train", str(CONFIG), *TINY, *START, f"out={folder}"]) == 0
    return folder


@given(rewards=st.lists(st.lists(st.integers(-5, 5), min_size=4, max_size=4), min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
def test_the_advantages_of_one_sample_have_the_mean_0_and_the_deviation_1(rewards):
    advantages = advantages_of(np.array(rewards))
    assert np.abs(advantages.mean(1)).max() < 1e-6
    for of_sample, rewards_of_sample in zip(advantages, rewards):
        if np.std(rewards_of_sample) > 1e-6:
            assert abs(of_sample.std() - 1) < 1e-6
            assert of_sample.argmax() in np.flatnonzero(rewards_of_sample == np.max(rewards_of_sample))
    assert not advantages_of(np.ones((2, 4))).any() and np.isnan(advantages_of(np.array([[1.0, np.nan]]))).all()


def test_the_loss_is_the_cross_entropy_times_the_advantage():
    task, output = PolicyGradient(target="answer"), torch.randn(5, 7, requires_grad=True)
    values = torch.tensor([1, 2, IGNORED, 3, 0])
    weights = torch.tensor([2.0, 2.0, 2.0, -1.0, -1.0])
    task.terms(output, Targets(values=values, weights=weights))["loss"].backward()
    logs = output.detach().log_softmax(-1)
    expected = (logs.exp() - torch.nn.functional.one_hot(values.clamp(min=0), 7)) * weights[:, None]
    expected[2] = 0
    torch.testing.assert_close(output.grad, expected)
    no_weights = task.terms(output, Targets(values=values))["loss"]
    torch.testing.assert_close(no_weights, torch.nn.functional.cross_entropy(output, values, reduction="sum"))


def test_each_token_has_the_advantage_of_its_sample(start):
    """The samples are packed into one row; a sample without a number has the weight 1."""
    run = load_run(start)
    task = PolicyGradient(target="answer", head=run.tasks["answer"]._head)
    task.choppers = run.choppers
    batch = run.open("val").read([SampleIndex(0, 0, number) for number in range(4)])
    values = [0.5, None, -2.0, 7.0]
    batch = replace(batch, main=replace(batch.main, labels={"advantage": values}))
    batch = with_targets(batch, {"answer": task})
    targets = batch.targets["answer"]
    samples = batch.main.tokens.sample.flatten()[targets.slots] - 1
    expected = torch.tensor([1.0 if value is None else value for value in values])[samples.long()]
    assert torch.equal(targets.weights, expected) and len(set(samples.tolist())) == 4


def answering(texts):
    return lambda samples, **how: [{"answer": {"text": texts[number % len(texts)]}} for number in range(len(samples))]


def test_the_right_sum_is_rewarded():
    prompts = RewardedArithmetic(samples=50).open("train")
    truths = [prompts[number]["answer"] for number in range(50)]
    rule = RightSum(every=1, answers=4, temperature=1.0)
    made = rule.samples(prompts, answering(["0", "1", "2", "3"]), 40, seed=5)
    assert len(made) == 40 and all(isinstance(each, Rolled) for each in made)
    for first in range(0, 40, 4):
        group = made[first : first + 4]
        assert len({each.number for each in group}) == 1
        right = [each.columns["answer"] == truths[each.number] for each in group]
        signs = [np.sign(each.columns["advantage"]) for each in group]
        assert signs == ([0] * 4 if not any(right) else [1 if each else -1 for each in right])
    assert made == rule.samples(prompts, answering(["0", "1", "2", "3"]), 40, seed=5)
    assert made != rule.samples(prompts, answering(["0", "1", "2", "3"]), 40, seed=6)
    with pytest.raises(DataError, match="data.dataset.answers: 4 does not divide the 42 samples"):
        rule.samples(prompts, answering(["0"]), 42, seed=5)
    with pytest.raises(DataError, match="a sample of a rollout cannot be read: it is damaged"):
        rule.samples(prompts, lambda samples, **how: [{"error": "it is damaged"}] * len(samples), 40, seed=5)


@pytest.mark.parametrize("options", ["every: 0", "answers: 1", "temperature: 0"])
def test_wrong_options_are_refused(start, options, capsys):
    name = options.partition(":")[0]
    words = [f"data.dataset={{use: rewarded_arithmetic, {options}}}", f"out={start.parent / 'wrong'}"]
    assert main(["train", str(CONFIG), *TINY, *words]) == 2
    assert name in capsys.readouterr().err


@pytest.mark.system
def test_a_run_trains_on_its_own_answers_and_shows_its_divergence(start, capsys):
    out = start.parent / "rewarded"
    words = [f"from={start}", f"out={out}", "evaluation.divergence={samples: 20}"]
    assert main(["train", str(CONFIG), *TINY, OWN, *words]) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    values = [line["divergence"] for line in lines if "divergence" in line]
    assert len(values) == 2 and all(np.isfinite(values))
    assert "nats per answer" in capsys.readouterr().err
    assert main(["evaluate", str(out), "--split", "test"]) == 0
    run = load_run(out)
    row = run.samples("val")[0]
    assert "text" in run.predict({name: row[name] for name in ("image", "operator", "sound")})["answer"]


def test_the_divergence_of_a_run_from_itself_is_0(start):
    with pytest.raises(
        RunError, match="evaluation.divergence.start: must name a run, because this run has no from=RUN"
    ):
        Divergence().check(load_run(start, device="cpu"), print)
    result = Divergence(start=str(start), samples=12).run(load_run(start, device="cpu"), print)
    assert result.metrics["divergence"] == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="samples must be at least 2"):
        Divergence(start=str(start), samples=1)


@pytest.mark.system
def test_a_killed_run_resumes_bit_equal_and_two_processes_agree(start, tmp_path):
    words = [*TINY, OWN, f"from={start}"]
    assert main(["train", str(CONFIG), *words, f"out={tmp_path / 'run'}"]) == 0
    command = [sys.executable, ROOT / "train.py", CONFIG, *words, f"out={tmp_path / 'killed'}"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as killed:
        for line in killed.stderr:
            if line.startswith("step 4 "):
                killed.send_signal(signal.SIGKILL)
                break
    assert main(["train", str(CONFIG), *words, f"out={tmp_path / 'killed'}"]) == 0
    expected = load_run(tmp_path / "run", "last").model.state_dict()
    resumed = load_run(tmp_path / "killed", "last").model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.items())
    done = train_together(tmp_path, 2, CONFIG, *words, f"out={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    other = load_run(tmp_path / "two", "last").model.state_dict()
    assert all(torch.allclose(value, expected[name], atol=1e-3) for name, value in other.items())
    for option in ("training.precision=bfloat16", "training.adapters={rank: 2}"):
        out = f"out={tmp_path / option[9:12]}"
        assert main(["train", str(CONFIG), *TINY, OWN, f"from={start}", option, out]) == 0
