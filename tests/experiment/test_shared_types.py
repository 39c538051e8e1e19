"""Inputs that share the type embedding of another input (`{same_as: OTHER, type: INPUT}`)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from chopmix.commands.cli import main
from chopmix.data.sampler import SampleIndex
from chopmix.experiment.run import load_run

YAML = """
inputs:
  left: {use: text, encoding: bytes}
  right: {same_as: left OPTION}
model: {width: 16, depth: 1, heads: 2, context: 64, attention: same_item, dropout: 0}
tasks: {same: {use: classification, target: label}}
data: {dataset: {use: manifest, columns: [left, right, label], train: train.jsonl, val: train.jsonl}}
training: {steps: 4, samples_per_step: 4, learning_rate: 0.01}
evaluation: {every: 4}
logging: {tensorboard: false}
"""


@pytest.fixture(scope="module", params=["", ", type: left"], ids=["own", "shared"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("types")
    rows = [f'{{"left": "{word}", "right": "{word}", "label": {number % 2}}}' for number, word in enumerate("abcdefgh")]
    (folder / "train.jsonl").write_text("\n".join(rows))
    (folder / "a.yaml").write_text(YAML.replace(" OPTION", request.param))
    assert main(["train", str(folder / "a.yaml"), f"out={folder / 'run'}"]) == 0
    return load_run(folder / "run"), bool(request.param)


def test_the_same_text_in_two_inputs_has_the_same_vectors_only_with_a_shared_type(run):
    trained, is_shared = run
    assert [*trained.model.types] == (["left"] if is_shared else ["left", "right"])
    batch = trained.model.plan(trained.open("val").read([SampleIndex(0, 0, 3)]))
    batch = replace(batch, targets={})
    with torch.no_grad():
        for vector in trained.model.types.values():
            vector.normal_()
        hidden = trained.model.read(batch).main[0]
    left, right = (hidden[batch.main.tokens.input[0] == number] for number in (1, 2))
    assert len(left) == len(right) and torch.allclose(left, right, atol=1e-6) == is_shared


def test_the_stored_configuration_names_the_shared_type(run):
    trained, is_shared = run
    assert trained.config.tree["inputs"]["right"] == {"same_as": "left"} | ({"type": "left"} if is_shared else {})


def test_all_parameters_have_a_gradient_if_the_owner_of_the_type_is_absent(run):
    trained, _ = run
    trained.model.train()
    rows = trained.open("val").read([SampleIndex(0, 0, 1)], inputs=("right",), rows="one_each")
    planned = trained.model.plan(replace(rows, targets={}))
    trained.model.zero_grad()
    trained.model.read(planned).main.sum().backward()
    assert all(vector.grad is not None for vector in trained.model.types.values())
    trained.model.eval()
