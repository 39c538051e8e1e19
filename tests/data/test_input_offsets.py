"""Offsets of inputs in time: the YAML sets them, whatever the choppers learn from data."""

import pytest
import torch
from checkout import CONFIGS
from chopmix.commands.cli import main
from chopmix.data.samples import Listed
from chopmix.experiment.build import build_choppers
from chopmix.experiment.interchange.directory import imported_choppers
from chopmix.experiment.own_data import Whole
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.settings.document import ConfigError
from chopmix.tokenizers.base import axes_of, chopped
from chopmix.tokenizers.chopping.packing import ordered_in_time, place
from chopmix.tokenizers.encoding.base import ByteEncoding

KINDS = {
    "{use: text, encoding: bytes}": "go",
    "{use: text, encoding: characters}": "go",
    "{use: text, encoding: bpe, vocabulary: 258}": "go",
    "{use: noted_text, encoding: characters}": "go [on]",
    "{use: image_ids, size: 4, patch_size: 2}": torch.zeros(1, 4, 4, dtype=torch.uint8),
    "{use: image, size: 4, patch_size: 2, channels: 1}": torch.zeros(1, 4, 4, dtype=torch.uint8),
    "{use: score, voices: 2}": [[60, 64], [62, 65]],
}


def config_with(folder, first: str):
    """A run that reads an input of a kind at -1 s, states at their seconds and actions half a second later."""
    (folder / "x.yaml").write_text(f"""
inputs:
  first: {first[:-1]}, offset: -1}}
  state: {{use: category, size: 3}}
  action: {{use: category, size: 2, offset: 0.5}}
model: {{width: 16, depth: 1, heads: 2, context: 64, attention: same_sample & causal}}
tasks: {{act: {{use: next_item, target: action, at: state}}}}
data: {{order: seconds, dataset: {{use: manifest, train: none.csv, columns: [first, state, action]}}}}
training: {{steps: 1, samples_per_step: 1}}
out: {folder / "run"}
""")
    return load_config(folder / "x.yaml")


@pytest.mark.parametrize("first", KINDS)
def test_an_input_before_the_first_second_comes_first(tmp_path, first):
    """It came last if the chopper is not the preprocessor, as with texts: with `causal`, no instruction was read."""
    config = config_with(tmp_path, first)
    row = {"first": KINDS[first], "state": [0, 1, 2], "action": [0, 1, 1]}
    data = Whole(Listed(["a"], [row]), tuple(row))
    fitted = build_choppers(config, tmp_path / "assets", data)
    for choppers in (fitted, build_choppers(config, tmp_path / "assets")):
        assert [chopper.offset for chopper in choppers.values()] == [-1, None, 0.5]
        sample = [(name, chopped(name, each, each.decode(row[name]))) for name, each in choppers.items()]
        count = sample[0][1].count
        axes = axes_of(choppers.values())
        inputs = ordered_in_time(place([sample], choppers, 64, axes), axes).tokens.input[0]
        assert inputs[: count + 6].tolist() == [1] * count + [2, 3] * 3
    if "text" not in first:
        return
    imported = imported_choppers(config, ByteEncoding())
    assert [chopper.offset for chopper in imported.values()] == [-1, None, 0.5]


@pytest.mark.parametrize("order, is_reported", [(("side", "scan"), True), (("scan", "side"), False)])
def test_an_input_on_which_no_prediction_depends_is_reported(tmp_path, capsys, order, is_reported):
    kinds = {"scan": "own_modality:LidarTokenizer", "side": "{use: text, encoding: characters}"}
    (tmp_path / "x.yaml").write_text(f"""
inputs: {{{", ".join(f"{name}: {kinds[name]}" for name in order)}}}
model: {{width: 16, depth: 1, heads: 2, context: 32, attention: same_sample & causal}}
tasks: {{side: {{use: language_modeling, target: side}}}}
data: {{dataset: own_modality:Rooms}}
training: {{steps: 1, samples_per_step: 4, device: cpu}}
out: {tmp_path / "run"}
""")
    assert main(["train", str(tmp_path / "x.yaml"), "--dry-run"]) == 0
    assert ("inputs.scan: no prediction depends on this input" in "".join(capsys.readouterr())) == is_reported


def test_an_empty_list_of_graphs_is_refused_with_inputs_in_time_too():
    with pytest.raises(ConfigError, match="model.attention: must have at least one expression"):
        load_config(CONFIGS / "mix" / "vehicle.yaml", ["model.attention=[]"])
