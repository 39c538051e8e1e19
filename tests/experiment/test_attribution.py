"""Attribution is compared with the joint table of a data set only for tasks that predict the answer of the table."""

import json

import pytest
from chopmix.commands.cli import main
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.inference.evaluators.attribution import best_guess, entropy, truth_of

TREE = """
inputs:
  image: {use: image, patch_size: 4, channels: 1, size: 8, position: null}
  op: {use: text, encoding: characters, position: null}
  answer: {use: text, encoding: characters, position: null}
model: {width: 8, depth: 1, heads: 1, context: 40, attention: same_sample & causal, position: rotary}
tasks:
  answer: {use: language_modeling, target: answer}
  sign: {use: language_modeling, target: op}
  parts: {use: masked_modeling, target: answer}
data: {columns: {op: operator}, dataset: {use: arithmetic, samples: 20}}
training: {steps: 1, samples_per_step: 4}
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "x.yaml").write_text(TREE)
    return load_config(tmp_path / "x.yaml", [f"out={tmp_path / 'run'}"])


def test_the_table_belongs_to_the_task_that_predicts_the_answer_and_has_the_names_of_inputs(config):
    dataset = config.dataset()
    tasks = {name: part() for name, part in config.tasks.items()}
    table = truth_of(config.wiring, dataset, "val", tasks["answer"], ("image", "op"))
    assert {*table[0].inputs} == {"image", "op"} and {each.inputs["op"] for each in table} > {"+"}
    assert entropy(table, ()) == entropy(dataset.truth("val"), ()) and best_guess(table, ("op",)) < 1
    assert truth_of(config.wiring, dataset, "val", tasks["answer"], ("image", "answer")) is None, (
        "no input of the table"
    )
    assert truth_of(config.wiring, dataset, "val", tasks["sign"], ("image",)) is None, "it predicts another column"
    assert truth_of(config.wiring, dataset, "val", tasks["parts"], ("image", "op")) is None, "it predicts some tokens"


def test_training_ends_with_attribution_for_tasks_without_a_table(tmp_path, monkeypatch):
    """An earlier version ended with a KeyError."""
    monkeypatch.setattr("chopmix.data.generated.MadeDataset.held_back", 12)
    (tmp_path / "x.yaml").write_text(TREE)
    more = ["evaluation={attribution: true, sample_tokens: 0}", "logging={tensorboard: false}"]
    summary, status = train(load_config(tmp_path / "x.yaml", [f"out={tmp_path / 'run'}", *more]))
    assert status == 0 and summary["step"] == 1 and "val/answer/bits/op" in summary


def test_a_run_is_finished_if_no_input_can_be_dropped(tmp_path, capsys):
    """An earlier version stopped after training, without a summary."""
    for name, row in (("train", {"a": "x", "b": "y"}), ("val", {"b": "y"})):
        (tmp_path / f"{name}.jsonl").write_text((json.dumps(row) + "\n") * 8)
    (tmp_path / "x.yaml").write_text(f"""
inputs: {{a: {{use: text, encoding: characters}}, b: {{use: text, encoding: characters}}}}
model: {{width: 8, depth: 1, heads: 1, context: 16, attention: causal & same_sample}}
tasks: {{write: {{use: language_modeling, target: b}}}}
data: {{dataset: {{use: manifest, train: {tmp_path}/train.jsonl, val: {tmp_path}/val.jsonl, columns: [a, b]}}}}
training: {{steps: 1, samples_per_step: 4}}
evaluation: {{sample_tokens: 0, attribution: true}}
logging: {{tensorboard: false}}
""")
    assert main(["train", str(tmp_path / "x.yaml"), f"out={tmp_path / 'run'}"]) == 0
    assert "evaluation.attribution: no task has an input that can be dropped" in capsys.readouterr().err
    assert (tmp_path / "run" / "summary.json").exists()
