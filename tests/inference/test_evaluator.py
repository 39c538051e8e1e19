"""User-defined evaluators run at every evaluation, at the end of training, or on the saved run."""

import json
import re
from dataclasses import replace

import pytest
from checkout import CONFIGS
from chopmix.commands.cli import main
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.inference.evaluators import attribution

CODE = """
import chopmix
from rich.table import Table


class Norms(chopmix.Evaluator):
    def __init__(self, *, scale: float = 1.0):
        if scale <= 0:
            raise ValueError(f"scale must be above 0, not {scale}")
        self.scale = scale

    def metrics(self):
        return {"val/norm": False}

    def check(self, trained, say):
        if trained.wiring.columns != {"text": "text"}:
            raise ValueError("norms: one text is measured")

    def run(self, trained, say):
        assert not trained.model.training and trained.folder.is_dir() and trained.seed == 0
        norm = sum(float(value.detach().norm()) for value in trained.model.tokenizers.parameters())
        table = Table("norms")
        table.add_row("a row")
        return chopmix.Result(metrics={"val/norm": self.scale * norm}, lines=[f"at {trained.step}"], tables=[table])


class AtTheEnd(Norms):
    when = "end"

    def metrics(self):
        return {}

    def run(self, trained, say):
        return chopmix.Result(metrics={"val/last": float(trained.step)})


class Saved(Norms):
    when = "saved"

    def metrics(self):
        return {}

    def run(self, trained, say):
        return chopmix.Result(lines=[f"opened {type(trained).__name__} of step {trained.step}"])
"""


@pytest.fixture
def evaluators(tmp_path, monkeypatch):
    (tmp_path / "my_norms.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def test_evaluators_run_at_their_time(tiny, evaluators, capsys):
    also = {name: {"use": f"my_norms:{kind}"} for name, kind in (("a", "Norms"), ("b", "AtTheEnd"), ("c", "Saved"))}
    file = tiny(evaluation={"also": also}, checkpoints={"best": "val/norm"})
    assert not main(["train", str(file)])
    output, run = capsys.readouterr().err, load_run(file.parent / "runs" / "tiny", trust=["my_norms"])
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    norms = {line["step"]: line["val/norm"] for line in lines if "val/norm" in line}
    assert sorted(norms) == [4, 8, 12] and run.step == min(norms, key=norms.get)
    assert [line["step"] for line in lines if "val/last" in line] == [12]
    assert all(f"at {step}" in output for step in norms) and "a row" in output
    assert f"opened Run of step {run.step}" in output
    assert run.config.tree["evaluation"]["also"]["a"] == {"use": "my_norms:Norms", "scale": 1.0}


def test_two_evaluators_with_one_metric_are_refused_before_the_first_step(tiny, evaluators, capsys):
    file = tiny(evaluation={"also": {name: {"use": "my_norms:Norms"} for name in "ab"}})
    assert main(["train", str(file)]) == 2
    error = capsys.readouterr().err
    assert "evaluation.also: the metric 'val/norm' of Norms exists twice" in error and "step 1" not in error


@pytest.mark.parametrize(
    ("also", "message"),
    [
        ({"a": {"use": "my_norms:Norms", "scale": -1}}, "evaluation.a: scale must be above 0, not -1"),
        ({"a": {"use": "my_norms:Norms", "scales": 1}}, "evaluation.also.a.scales: .*did you mean 'scale'"),
        ({"metrics": {"use": "my_norms:Norms"}}, "'metrics' is a built-in evaluator of every run: choose another name"),
        ({"a": "norm"}, "evaluation.also.a: nothing is named 'norm'; possible: attribution"),
    ],
)
def test_mistakes_are_reported(tiny, evaluators, capsys, also, message):
    assert main(["train", str(tiny(evaluation={"also": also}))]) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_a_run_that_cannot_be_evaluated_is_refused_before_its_first_step(tiny, evaluators, capsys):
    file = tiny(inputs={"other": {"same_as": "text"}}, evaluation={"also": {"a": {"use": "my_norms:Norms"}}})
    assert main(["train", str(file)]) == 2
    assert not (file.parent / "runs" / "tiny" / "checkpoints").exists()


@pytest.mark.parametrize(("value", "there"), [(True, True), (False, False), (None, False), ({}, True)])
def test_short_forms_of_evaluators_are_read(tiny, value, there):
    config = load_config(tiny(evaluation={"attribution": value}))
    assert ("attribution" in config.evaluation.also) == there


def test_a_short_form_with_a_wrong_value_is_refused(tiny, capsys):
    assert main(["train", str(tiny(evaluation={"attribution": 3}))]) == 2
    message = "evaluation.attribution: must be true, false or a mapping of options, not 3"
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.system
def test_attribution_reads_as_many_rows_as_the_evaluation(tmp_path, monkeypatch):
    """An earlier version read 64 rows for any `evaluation.rows`, which a user sets to a small number to save memory."""
    row_counts = []
    monkeypatch.setattr(attribution, "measure_attribution", lambda trained, *_: row_counts.append(trained.rows) or {})
    few = ["training.steps=1", "training.samples_per_step=4", "data.dataset.samples=64", "evaluation.rows=7"]
    config = load_config(CONFIGS / "quickstart.yaml", [*few, "evaluation.generated=0", f"out={tmp_path / 'run'}"])
    train(replace(config, checkpoints=replace(config.checkpoints, best="val/loss")))
    assert row_counts == [7]


AT_THE_END = """
from chopmix import Evaluator, Result


class Numbers(Evaluator):
    when = "end"

    def run(self, trained, say):
        return Result(metrics={"val/one": 1.25, "val/two": 2.0})
"""


def test_metrics_of_an_evaluator_of_the_end_are_printed(tiny, monkeypatch, capsys):
    file = tiny(evaluation={"also": {"numbers": {"use": "at_the_end:Numbers"}}})
    (file.parent / "at_the_end.py").write_text(AT_THE_END)
    monkeypatch.chdir(file.parent)
    assert main(["train", str(file), "training.steps=1"]) == 0
    assert "val/one 1.2500  val/two 2.0000" in " ".join(capsys.readouterr().err.split("\n"))


@pytest.mark.parametrize("task, head", [("language_modeling", "unembedding"), ("masked_modeling", "unembedding")])
def test_a_model_without_layers_trains_and_is_shown(tiny, capsys, task, head):
    """Its heads read the embedded tokens: a language model then counts pairs of tokens."""
    file = tiny(model={"depth": 0}, tasks={"lm": {"use": task, "target": "text", "head": head}})
    assert main(["train", str(file), "training.steps=2"]) == 0
    folder = file.parent / "runs" / file.stem
    assert main(["inspect", str(folder)]) == 0
    if task == "language_modeling":
        assert main(["generate", str(folder), "--prompt", "c", "--max-tokens", "3"]) == 0
