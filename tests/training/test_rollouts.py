"""Rollouts: which samples training reads, how a stopped run goes on, and which rules are refused."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.rollouts import RolledOut
from chopmix.data.rules import Rolled, Rule, checked
from chopmix.data.samples import Listed
from chopmix.experiment.run import load_run
from chopmix.models.contract import ContractError
from chopmix.training.rollouts import answers
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import train_together
from tiers import only

RULES = '''
import math
from pathlib import Path

from chopmix.data.datasets.manifest import Manifest
from chopmix.data.rules import Rolled, Rule


class Echo(Rule):
    """The next samples are the model's own answers, and every call is noted in a file."""

    every, columns = 3, {"answer": "a"}

    def __init__(self, fault=""):
        self.fault = fault

    def samples(self, prompts, answers, count, seed):
        numbers = [(seed + place) % len(prompts) for place in range(count)]
        predicted = answers([prompts.row(number) for number in numbers], temperature=1.0,
                            seed=[seed % 1000 + place for place in range(count)])
        with open("calls.txt", "a") as file:
            file.write(f"{seed} {count} {predicted[0]['lm']['text']!r}\\n")
        if self.fault == "nan":
            return [Rolled(number, {"answer": math.nan}) for number in numbers]
        if self.fault == "few":
            return []
        return [Rolled(number, {"answer": answer["lm"]["text"]}) for number, answer in zip(numbers, predicted)]


class Questions(Manifest):
    def __init__(self, *, train: str, val: str, fault: str = ""):
        super().__init__(train=train, val=val, columns=["question", "answer", "number"])
        self.fault, self.rule = fault, Echo(fault)
'''
YAML = """
inputs:
  question: {use: text, encoding: characters}
  answer: {same_as: question}
model: {width: 16, depth: 1, heads: 2, context: 24, attention: causal & same_sample}
tasks: {lm: {use: language_modeling, target: answer}}
data: {dataset: {use: "rules:Questions", train: FOLDER/train.jsonl, val: FOLDER/val.jsonl}, workers: 0}
training: {steps: 10, samples_per_step: 4, learning_rate: 0.01, device: cpu, precision: float32}
evaluation: {every: 5, generated: 0, sample_tokens: 0, report: false}
checkpoints: {every: 4}
logging: {tensorboard: false, every: 1}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "rules.py").write_text(RULES)
    for split, count in (("train", 20), ("val", 5)):
        rows = [{"question": f"{n}", "answer": "ab"[n % 2] * (1 + n % 3), "number": n} for n in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "x.yaml").write_text(YAML.replace("FOLDER", str(tmp_path)))
    yield tmp_path
    sys.modules.pop("rules", None)


def weights(run):
    return load_run(run, "last", trust=["rules"]).model.state_dict()


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def test_a_rule_is_called_every_k_steps_and_its_samples_are_stored(folder):
    assert main(["train", "x.yaml", "out=run"]) == 0
    calls = Path("calls.txt").read_text().splitlines()
    assert len(calls) == 4 and len(set(calls)) == 4  # before the steps 0, 3, 6 and 9
    assert all(line.split()[1] == "12" for line in calls)
    state = json.loads(Path("run/checkpoints/step-00000010/state.json").read_text())
    assert state["rollout"]["index"] == 3 and len(state["rollout"]["samples"]) == 12
    answers = [columns["answer"] for _, columns in state["rollout"]["samples"]]
    assert calls[3].endswith(repr(answers[0]))


def test_inputs_with_names_of_their_own_read_their_columns(folder):
    Path("renamed.yaml").write_text(Path("x.yaml").read_text().replace("question", "asked"))
    assert main(["train", "renamed.yaml", "out=run", "data.columns={asked: question}"]) == 0
    run = load_run("run", trust=["rules"])
    rows = [{"question": str(number), "number": number} for number in range(5)]
    assert answers(run, rows) == run.predict([{"asked": row["question"]} for row in rows])


@pytest.mark.parametrize("workers", only(1, [2, 0]))
def test_the_number_of_workers_changes_nothing(folder, workers):
    assert main(["train", "x.yaml", "out=run"]) == 0
    assert main(["train", "x.yaml", "out=other", f"data.workers={workers}", "training.rows_per_micro_batch=4"]) == 0
    assert equal(weights("run"), weights("other"))


@pytest.mark.parametrize("steps", only(2, [3, 4, 1, 8]))
def test_a_stopped_run_goes_on_with_the_same_samples(folder, steps):
    assert main(["train", "x.yaml", "out=run"]) == 0
    first = Path("calls.txt").read_text()
    Path("calls.txt").unlink()
    schedule = "training.schedule=constant"
    assert main(["train", "x.yaml", "out=plain", schedule]) == 0
    assert main(["train", "x.yaml", "out=stopped", schedule, f"training.steps={steps}"]) == 0
    assert main(["train", "x.yaml", "out=stopped", schedule]) == 0
    assert first and equal(weights("plain"), weights("stopped"))


@pytest.mark.system
def test_a_changed_rule_is_refused(folder, capsys):
    assert main(["train", "x.yaml", "out=run", "training.steps=4"]) == 0
    Path("rules.py").write_text(RULES.replace("% 1000", "% 999"))
    command = [sys.executable, ROOT / "train.py", "x.yaml", "out=run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2 and "the data (train) changed since step 4" in done.stderr


NEEDS = "Echo makes rollouts, which need training.steps and training.samples_per_step, and no data.balance"


@pytest.mark.parametrize("words, message", [
    (["data.dataset.fault=nan"], "Echo.samples returned nan as 'answer' of sample 0; expected: a text or a finite "
     "number"),
    (["data.dataset.fault=few"], "Echo.samples returned 0 samples; expected: 12 samples"),
    (["training.samples_per_step=null", "training.tokens_per_step=96"], NEEDS), (["data.balance=answer"], NEEDS),
    (["training.steps=null", "training.minutes=1"], NEEDS), (["training.steps=null", "training.epochs=2"], NEEDS),
    (["data.dataset={use: mixture, of: {own: {use: \"rules:Questions\", train: train.jsonl, val: val.jsonl}}}"],
     "data.dataset.of.own: 'rules' makes rollouts, so it cannot be in a mixture"),
])  # fmt: skip
def test_wrong_rules_and_settings_are_refused(folder, words, message, capsys):
    assert main(["train", "x.yaml", "out=run", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


class Fixed(Rule):
    every, columns = 2, {"text": "x", "score": 0.5}

    def samples(self, prompts, answers, count, seed):
        raise NotImplementedError


PROMPTS = Listed(["a", "b", "c"], [{"text": "a", "image": 1}, {"text": "b", "image": 2}, {"text": "c", "image": 3}])


@settings(max_examples=30, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 2), min_size=4, max_size=4), index=st.integers(0, 2),
    scores=st.lists(st.floats(-9, 9), min_size=4, max_size=4),
)  # fmt: skip
def test_a_sample_is_that_of_its_place_in_the_rollout(numbers, index, scores):
    samples = RolledOut(PROMPTS, Fixed(), 4, 12)
    assert samples.row(7) == {"text": "b", "image": 2, "score": 0.5}
    made = [Rolled(n, {"text": str(place), "score": score}) for place, (n, score) in enumerate(zip(numbers, scores))]
    samples.take(index, checked(Fixed(), made, 4, 3))
    for place, number in enumerate(numbers):
        expected = {"text": str(place), "image": number + 1, "score": scores[place]}
        assert samples.row(4 * index + place) == expected
        assert samples.row(4 * index + place, ["score"]) == {"score": scores[place]}


GOOD = {"text": "", "score": 1}


@pytest.mark.parametrize("made", [
    None, [], [(0, GOOD)], [Rolled(3, GOOD)], [Rolled(-1, GOOD)], [Rolled(True, GOOD)], [Rolled(0.0, GOOD)],
    [Rolled(0, {"text": ""})], [Rolled(0, GOOD | {"more": 1})], [Rolled(0, GOOD | {"score": math.nan})],
    [Rolled(0, GOOD | {"score": math.inf})], [Rolled(0, GOOD | {"score": None})], [Rolled(0, GOOD | {"text": b""})],
    [Rolled(0, GOOD), Rolled(0, GOOD)],
], ids=str)  # fmt: skip
def test_wrong_results_of_a_rule_are_refused(made):
    with pytest.raises(ContractError, match="Fixed.samples returned"):
        checked(Fixed(), made, 1, 3)


@pytest.mark.system
def test_a_run_is_killed_and_trains_in_two_processes_with_workers_and_adapters(folder):
    assert main(["train", "x.yaml", "out=run"]) == 0
    command = [sys.executable, ROOT / "train.py", "x.yaml", "out=killed"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as killed:
        for line in killed.stderr:
            if line.startswith("step 5 "):
                killed.send_signal(signal.SIGKILL)
                break
    assert main(["train", "x.yaml", "out=killed"]) == 0
    assert equal(weights("run"), weights("killed"))
    for number, workers in enumerate((0, 1)):
        done = train_together(folder, 2, "x.yaml", f"out=two{number}", f"data.workers={workers}")
        assert done.returncode == 0, done.stderr
        other = weights(f"two{number}")
        assert all(torch.allclose(value, other[name], atol=1e-4) for name, value in weights("run").items())
    words = ["from=run", "training.adapters={rank: 2}", "training.precision=bfloat16", "out=adapted"]
    assert main(["train", "x.yaml", *words]) == 0
    done = train_together(folder, 2, "x.yaml", "out=faulty", "data.dataset.fault=nan")
    assert done.returncode == 2 and "returned nan as 'answer'" in done.stderr
