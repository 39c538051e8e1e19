"""Names and formats of other versions: messages about an old name in a YAML, and about a run of another format."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.run_folder import read_config
from chopmix.experiment.settings.config import config_from_tree, load_config
from chopmix.experiment.settings.document import ConfigError
from chopmix.experiment.settings.hints import MOVED, RENAMED, moved, rename
from chopmix.training.checkpoints import CheckpointError, FormatError, newest_valid, read_state

OLD = """\
inputs:
  image: {use: image, patch_size: 4, channels: 1, size: 8, mean: 0.4, deviation: 0.3}
model:
  width: 32
  depth: 1
  heads: 2
  context: 8
  own_tokens: 1
  attention: [same_sample & same_span, same_sample]
  block: {norm: "chopmix.models.norms:RmsNorm"}
  initialization: {use: gpt2, deviation: 0.05}
tasks:
  digit: {use: classification, target: label, pooling: own_tokens}
  again: {use: classification, target: label, pooling: {use: own_tokens, norm: layer_norm}}
  text: {use: ctc, target: said, source: image, judge: [cer]}
data: {card: {use: fsdd, left_out: theo}}
training: {steps: 5, samples_per_step: 4, mix: {mixup: 0.5}}
evaluation: {worth: true}
"""
"""A YAML that was written before the names changed. It contains every old name except that of the encoder."""

NEW = {
    ("inputs", "image", "std"): 0.3,
    ("model", "core_tokens"): 1,
    ("model", "attention"): ["same_sample & same_item", "same_sample"],
    ("model", "block", "norm"): "chopmix.models.layers.norms:RmsNorm",
    ("model", "initialization", "std"): 0.05,
    ("tasks", "digit", "pooling"): "core_tokens",
    ("tasks", "again", "pooling", "use"): "core_tokens",
    ("tasks", "text", "metrics"): ["cer"],
    ("data", "dataset"): {"use": "fsdd", "held_out": "theo"},
    ("training", "mixup"): {"mixup": 0.5},
    ("evaluation", "attribution"): True,
}


def lines_of(path: Path, *overrides: str) -> list[str]:
    """Returns the lines of the error about a configuration, without the folder of the file."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value).replace(str(path), "x.yaml").splitlines()


# ---- a YAML with old names -----------------------------------------------------------------------------------------


def test_every_old_name_is_reported_with_its_line_and_its_new_name(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(OLD)
    assert lines_of(path) == [
        "x.yaml:2  inputs.image.deviation: is called inputs.image.std now",
        "x.yaml:8  model.own_tokens: is called model.core_tokens now",
        "x.yaml:9  model.attention.0: 'same_span' is called 'same_item' now",
        "x.yaml:10  model.block.norm: 'chopmix.models.norms:RmsNorm' is called "
        "'chopmix.models.layers.norms:RmsNorm' now",
        "x.yaml:11  model.initialization.deviation: is called model.initialization.std now",
        "x.yaml:13  tasks.digit.pooling: 'own_tokens' is called 'core_tokens' now",
        "x.yaml:14  tasks.again.pooling.use: 'own_tokens' is called 'core_tokens' now",
        "x.yaml:15  tasks.text.judge: is called tasks.text.metrics now",
        "x.yaml:16  data.card: is called data.dataset now",
        "x.yaml:16  data.dataset.left_out: is called data.dataset.held_out now",
        "x.yaml:17  training.mix: is called training.mixup now",
        "x.yaml:18  evaluation.worth: is called evaluation.attribution now",
    ]
    tree = yaml.safe_load(OLD)
    renamings = rename(tree)
    old_names = {str(each).partition(" ")[0] for each in renamings}
    assert len(renamings) == len(RENAMED) + 1 and len(old_names) == len(
        renamings
    )  # no name of an encoder, two of pooling, one moved class
    for path_of, value in NEW.items():
        value_there = tree
        for key in path_of:
            value_there = value_there[key]
        assert value_there == value
    assert not rename(tree)
    with pytest.raises(ConfigError, match=r"^config.yaml  data.card: is called data.dataset now$"):
        config_from_tree(yaml.safe_load(PLAIN.replace("dataset:", "card:")))


PLAIN = """\
inputs:    {text: {use: text, encoding: bytes}}
model:     {width: 32, depth: 2, heads: 4, context: 16, attention: causal}
tasks:     {lm: {use: language_modeling, target: text}}
data:      {dataset: tiny_shakespeare}
training:  {steps: 20, tokens_per_step: 64}
"""


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.card=books", "data.card: is called data.dataset now"),
        ("data.card.share=0.5", "data.card: is called data.dataset now"),
        ("evaluation.worth=true", "evaluation.worth: is called evaluation.attribution now"),
        ("training.mix.mixup=0.5", "training.mix: is called training.mixup now"),
        ("tasks.lm.judge=[bleu]", "tasks.lm.judge: is called tasks.lm.metrics now"),
        ("model.attention=causal & same_span", "model.attention: 'same_span' is called 'same_item' now"),
        (
            "model.encoder={depth: 1, context: 8, attention: same_span}",
            "model.encoder.attention: 'same_span' is called",
        ),
        ("model.block.norm=chopmix.models.norms:RmsNorm", "is called 'chopmix.models.layers.norms:RmsNorm' now"),
        ("data.dataset=chopmix.data.cards.books:Books", "is called 'chopmix.data.datasets.books:Books' now"),
    ],
)
def test_old_names_on_the_command_line_are_reported(tmp_path, override, message):
    path = tmp_path / "x.yaml"
    path.write_text(PLAIN)
    (line,) = [line for line in lines_of(path, override) if "is called" in line]
    assert line.startswith("command line  ") and message in line
    path.write_text(PLAIN.replace("dataset:", "card:"))  # an old name in the file, and an override with the new one
    assert lines_of(path, "data.dataset=books") == ["x.yaml:4  data.card: is called data.dataset now"]


def test_keys_of_classes_from_outside_are_not_renamed():
    tree = {
        "inputs": {"a": {"use": "mylab.a:A", "deviation": 1}, "b": {"use": "image", "deviation": 2}},
        "data": {"card": {"use": "mylab.d:D", "left_out": 3}},
        "tasks": {"t": {"use": "mylab.t:T", "judge": [], "pooling": "mylab.own_tokens:P"}},
    }
    rename(tree)
    assert tree["inputs"] == {"a": {"use": "mylab.a:A", "deviation": 1}, "b": {"use": "image", "std": 2}}
    assert tree["data"] == {"dataset": {"use": "mylab.d:D", "left_out": 3}}
    assert tree["tasks"]["t"] == {"use": "mylab.t:T", "judge": [], "pooling": "mylab.own_tokens:P"}


def test_moved_modules_can_be_imported_by_their_new_names(tmp_path, monkeypatch):
    assert len(MOVED) > 15
    for old, new in MOVED.items():
        module, _, name = new.partition(":")
        imported = importlib.import_module(f"chopmix.{module}")
        assert not name or hasattr(imported, name), new
        if ":" not in old:
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(f"chopmix.{old}")
        assert moved(f"chopmix.{old}") == f"chopmix.{new}"
    assert moved("chopmix.models.norms:RmsNorm") == "chopmix.models.layers.norms:RmsNorm"
    assert moved("chopmix.models.positions:Rotary") == "chopmix.models.layers.relative:Rotary"
    assert moved("chopmix.models.positions:Learned") == "chopmix.models.layers.positions:Learned"
    for unmoved in (
        "mylab.models.norms:RmsNorm",
        "chopmix.models.layers.norms:RmsNorm",
        "text",
        "chopmix:models",
        "",
    ):
        assert moved(unmoved) is None
    (tmp_path / "mylab_old.py").write_text("from chopmix.tokenizers.chopper import Chopper\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "x.yaml"
    path.write_text(PLAIN)
    (line,) = lines_of(path, "inputs.lidar=mylab_old:Lidar")
    assert line.endswith("chopmix.tokenizers.chopper is called chopmix.tokenizers.base now")


# ---- formats of runs -------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_format_is_not_reported_as_damaged(tiny):
    file = tiny("mixed")
    assert main(["train", str(file)]) == 0
    run = load_config(file).out
    for version, message in (
        (None, "has format 1, which an unreleased chopmix .* reads; this version reads formats 2 to 3"),
        (9, "has format 9, which a newer chopmix reads; this version reads formats 2 to 3"),
    ):
        for state in run.glob("checkpoints/*/state.json"):
            content = {**json.loads(state.read_text()), "format": version}
            state.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        with pytest.raises(FormatError, match=message):
            read_state(run, 12)
        with pytest.raises(FormatError, match=message):
            newest_valid(run, print)
    assert not list(run.glob("checkpoints/damaged-*")) and not issubclass(FormatError, CheckpointError)
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("format: 3", "format: 4"))
    with pytest.raises(
        ConfigError, match="has format 4, which a newer chopmix reads; this version reads formats 2 to 3"
    ):
        read_config(run)
