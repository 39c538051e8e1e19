"""Names and formats of earlier versions: what a YAML with an old name is told, and `chopmix upgrade RUN`."""

from __future__ import annotations

import copy
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.folder import upgrade as upgrading
from chopmix.experiment.folder.upgrade import upgrade
from chopmix.experiment.run import load_run
from chopmix.experiment.run_folder import RunError, read_config, run_lock
from chopmix.experiment.settings.config import config_from_tree, load_config
from chopmix.experiment.settings.document import ConfigError, dumped
from chopmix.experiment.settings.names import MOVED, RENAMED, moved, rename
from chopmix.training.checkpoints import FORMAT, CheckpointError, FormatError, newest_sound, read_state
from hypothesis import given, settings
from hypothesis import strategies as st

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
"""A YAML as it was written before the names changed, with every one of them but the encoder's."""

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
    """What is said against a configuration, a line each, without the folder of the file."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value).replace(str(path), "x.yaml").splitlines()


# ---- a YAML with old names -----------------------------------------------------------------------------------------


def test_every_old_name_is_told_with_its_line_and_the_new_one(tmp_path):
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
    found = rename(tree)
    used = {str(each).partition(" ")[0] for each in found}
    assert len(found) == len(RENAMED) + 1 and len(used) == len(
        found
    )  # of an encoder none, of pooling two, a moved class
    for path_of, value in NEW.items():
        here = tree
        for key in path_of:
            here = here[key]
        assert here == value
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
def test_old_names_on_the_command_line(tmp_path, override, message):
    path = tmp_path / "x.yaml"
    path.write_text(PLAIN)
    (line,) = [line for line in lines_of(path, override) if "is called" in line]
    assert line.startswith("command line  ") and message in line
    path.write_text(PLAIN.replace("dataset:", "card:"))  # the file's own old name, and the override of the new one
    assert lines_of(path, "data.dataset=books") == ["x.yaml:4  data.card: is called data.dataset now"]


def test_classes_from_outside_have_keys_of_their_own():
    tree = {
        "inputs": {"a": {"use": "mylab.a:A", "deviation": 1}, "b": {"use": "image", "deviation": 2}},
        "data": {"card": {"use": "mylab.d:D", "left_out": 3}},
        "tasks": {"t": {"use": "mylab.t:T", "judge": [], "pooling": "mylab.own_tokens:P"}},
    }
    rename(tree)
    assert tree["inputs"] == {"a": {"use": "mylab.a:A", "deviation": 1}, "b": {"use": "image", "std": 2}}
    assert tree["data"] == {"dataset": {"use": "mylab.d:D", "left_out": 3}}
    assert tree["tasks"]["t"] == {"use": "mylab.t:T", "judge": [], "pooling": "mylab.own_tokens:P"}


def test_moved_modules_are_where_the_table_says(tmp_path, monkeypatch):
    assert len(MOVED) > 15
    for old, new in MOVED.items():
        module, _, name = new.partition(":")
        found = importlib.import_module(f"chopmix.{module}")
        assert not name or hasattr(found, name), new
        if ":" not in old:
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(f"chopmix.{old}")
        assert moved(f"chopmix.{old}") == f"chopmix.{new}"
    assert moved("chopmix.models.norms:RmsNorm") == "chopmix.models.layers.norms:RmsNorm"
    assert moved("chopmix.models.positions:Rotary") == "chopmix.models.layers.relative:Rotary"
    assert moved("chopmix.models.positions:Learned") == "chopmix.models.layers.positions:Learned"
    for as_it_was in (
        "mylab.models.norms:RmsNorm",
        "chopmix.models.layers.norms:RmsNorm",
        "text",
        "chopmix:models",
        "",
    ):
        assert moved(as_it_was) is None
    (tmp_path / "mylab_old.py").write_text("from chopmix.tokenizers.chopper import Chopper\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "x.yaml"
    path.write_text(PLAIN)
    (line,) = lines_of(path, "inputs.lidar=mylab_old:Lidar")
    assert line.endswith("chopmix.tokenizers.chopper is called chopmix.tokenizers.base now")


# ---- a run of the earlier format -----------------------------------------------------------------------------------

STATE = (
    '{"step": 3, "files": {}, "unreported": {"losses": [0.1], "tokens": 7, "places": 9}, '
    '"records": [{"val/loss": NaN}]}'
)
FILES = {
    "config.yaml": OLD,
    "data.json": '{"card": "fsdd", "packed_bytes": {"train": 3}}',
    "assets/image/spectrogram.json": '{"mean": -3.1400000000000001, "deviation": 2.5}',
    "assets/task-text/scale.json": '{"mean": [1e-320], "deviation": [2, 3]}',
    "assets/task-digit/classes.json": "[0, 1]",
    "checkpoints/step-00000003/state.json": STATE,
    "checkpoints/step-00000003/model.safetensors": "weights",
    "checkpoints/step-00000006/state.json": "{cut sho",
    "metrics.jsonl": '{"step": 1, "card": 2}\n',
}


def old_run(folder: Path, **changes: str) -> Path:
    """A run as the earlier version wrote it, as far as files go."""
    for name, text in (FILES | changes).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """What all files hold, but for the lock."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != ".lock"]
    return {str(file.relative_to(folder)): file.read_text() for file in files}


def test_an_upgrade_renames_what_has_other_names_and_nothing_else(tmp_path, capsys):
    run = old_run(tmp_path / "run")
    assert main(["upgrade", str(run)]) == 0
    said = capsys.readouterr().out
    assert f"{run}/config.yaml: data.card is called data.dataset now\n" in said and "config.yaml: format 2\n" in said
    assert f"{run}/checkpoints/step-00000003/state.json: places is called slots now\n" in said
    new = contents(run)
    tree = yaml.safe_load(OLD)
    rename(tree)
    assert yaml.safe_load(new.pop("config.yaml")) == {"format": FORMAT, **tree}
    assert new.pop("data.json") == json.dumps({"dataset": "fsdd", "packed_bytes": {"train": 3}}, indent=1)
    assert json.loads(new.pop("assets/image/spectrogram.json")) == {"mean": -3.14, "std": 2.5}
    assert json.loads(new.pop("assets/task-text/scale.json")) == {"mean": [1e-320], "std": [2, 3]}
    state = json.loads(new.pop("checkpoints/step-00000003/state.json"))
    assert (state.pop("format"), state["unreported"].pop("slots")) == (FORMAT, 9)
    old = json.loads(STATE)
    assert old["unreported"].pop("places") == 9 and str(state) == str(old)
    assert new.items() <= FILES.items()  # the rest is as it was, a damaged state too
    before = contents(run)
    assert main(["upgrade", str(run)]) == 0 and "nothing to do" in capsys.readouterr().out
    assert contents(run) == before


@pytest.mark.parametrize("left", range(5))
def test_an_upgrade_that_is_killed_goes_on(tmp_path, monkeypatch, left):
    """Killed after so many of its five files, the last of which is the configuration."""
    upgrade(old_run(tmp_path / "whole"))
    run, done = old_run(tmp_path / "run"), []

    def killed(write):
        def writing(file, content):
            if len(done) == left:
                raise KeyboardInterrupt
            done.append(write(file, content))

        return writing

    with monkeypatch.context() as patch:
        for name in ("write_text", "write_json"):
            patch.setattr(upgrading, name, killed(getattr(upgrading, name)))
        with pytest.raises(KeyboardInterrupt):
            upgrade(run)
    assert (run / "config.yaml").read_text() == OLD and len(done) == left
    upgrade(run)
    assert contents(run) == contents(tmp_path / "whole")


def test_what_is_not_rewritten(tmp_path, capsys):
    assert main(["upgrade", str(tmp_path)]) == 2 and "is not a run: it has no config.yaml" in capsys.readouterr().err
    run = old_run(tmp_path / "run")
    with run_lock(run), pytest.raises(RunError, match="is in use"):
        upgrade(run)
    for name, text, message in (
        ("config.yaml", "format: 3\n" + OLD, "config.yaml is of format 3, and this chopmix reads format 2"),
        ("config.yaml", "3", "config.yaml is no configuration: it must be a mapping"),
        (
            "config.yaml",
            OLD.replace("{worth: true}", "{worth: true, attribution: true}"),
            "is called .* and both are there",
        ),
        ("checkpoints/step-00000003/state.json", '{"format": 7}', "state.json is of format 7"),
    ):
        before = contents(old_run(tmp_path / "odd", **{name: text}))
        with pytest.raises(RunError, match=message):
            upgrade(tmp_path / "odd")
        assert contents(tmp_path / "odd") == before
        shutil.rmtree(tmp_path / "odd")
    old_run(tmp_path / "twice", **{"config.yaml": OLD + OLD})
    with pytest.raises(ConfigError, match="stands here a second time"):
        upgrade(tmp_path / "twice")
    shutil.move(run / "assets", tmp_path / "elsewhere")
    (run / "assets").symlink_to(tmp_path / "elsewhere")
    before = contents(run)
    with pytest.raises(RunError, match="is a link that leads out of the run's folder"):
        upgrade(run)
    assert contents(run) == before and "deviation" in (tmp_path / "elsewhere/image/spectrogram.json").read_text()


WORDS = st.sampled_from(["own_tokens", "same_span", "text", "a: b", "1e-3", "null", "", "é", "chopmix.tasks.ctc:Ctc"])
VALUES = st.recursive(
    WORDS | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.sampled_from(["use", "card"]), inner, max_size=3)
    ),
    max_leaves=6,
)
PARTS = {"deviation": VALUES, "judge": VALUES, "pooling": VALUES, "use": WORDS, "left_out": VALUES, "mean": VALUES}
NAMED = st.dictionaries(WORDS, st.fixed_dictionaries({}, optional=PARTS) | VALUES, max_size=3)
TREES = st.fixed_dictionaries(
    {},
    optional={
        "inputs": NAMED,
        "tasks": NAMED,
        "from": VALUES,
        "data": st.fixed_dictionaries({}, optional={"card": st.fixed_dictionaries({}, optional=PARTS) | VALUES}),
        "training": st.fixed_dictionaries({}, optional={"mix": VALUES, "steps": VALUES}),
        "evaluation": st.fixed_dictionaries({}, optional={"worth": VALUES}),
        "model": st.fixed_dictionaries(
            {},
            optional={
                "own_tokens": VALUES,
                "attention": VALUES,
                "encoder": st.fixed_dictionaries({}, optional={"attention": VALUES}),
                "initialization": st.fixed_dictionaries({}, optional=PARTS) | VALUES,
            },
        ),
    },
)


@given(TREES)
@settings(max_examples=150, deadline=None)
def test_an_upgrade_is_lossless_and_done_once(tree):
    """What is renamed can be renamed back: every leaf is where it was, under its old name, and in the old order."""
    before, found = copy.deepcopy(tree), rename(tree)
    assert not rename(copy.deepcopy(tree)) and not any(each.doubled for each in found)
    for each in reversed(found):
        here, key = tree, each.moved[-1]
        for parent in each.moved[:-1]:
            here = here[parent]
        if each.path[-1] == each.old:
            items = [(each.old if name == key else name, value) for name, value in here.items()]
            here.clear()
            here.update(items)
        else:
            here[key] = here[key].replace(each.new, each.old)
    assert json.dumps(tree) == json.dumps(before)


@given(TREES)
@settings(max_examples=40, deadline=None)
def test_an_upgraded_file_holds_the_renamed_tree(tmp_path_factory, tree):
    run = tmp_path_factory.mktemp("run")
    (run / "config.yaml").write_text(dumped(tree) if tree else "{}")
    upgrade(run)
    text = (run / "config.yaml").read_text()
    rename(tree)
    assert yaml.safe_load(text) == yaml.safe_load(dumped({"format": FORMAT, **tree}))
    assert upgrade(run) == [] and (run / "config.yaml").read_text() == text


# ---- a trained run -------------------------------------------------------------------------------------------------


def aged(run: Path) -> None:
    """Make a run one of the earlier format, as that version wrote it."""
    names = {new.rpartition(".")[2]: old.rpartition(".")[2] for old, new in RENAMED.items() if "=" not in old}
    lines = [line for line in (run / "config.yaml").read_text().splitlines() if not line.startswith("format:")]
    for number, line in enumerate(lines):
        key, colon, value = line.partition(":")
        lines[number] = key.replace(key.strip(), names.get(key.strip(), key.strip())) + colon + value
    (run / "config.yaml").write_text("\n".join(lines) + "\n")
    for file in run.glob("checkpoints/*/state.json"):
        state = json.loads(file.read_text())
        del state["format"]
        state["unreported"]["places"] = state["unreported"].pop("slots")
        file.write_text(json.dumps(state))


def test_a_trained_run_is_refused_upgraded_evaluated_as_before_and_trained_on(tiny, capsys):
    other, file = load_config(tiny("straight")), tiny("old")
    assert main(["train", str(tiny("straight"))]) == 0 and main(["train", str(file), "training.steps=6"]) == 0
    run = load_config(file).out
    metrics = load_run(run).evaluate("val")
    aged(run)
    assert "  card:\n" in (run / "config.yaml").read_text() and "own_tokens" in (run / "config.yaml").read_text()
    capsys.readouterr()
    for command in (["train", str(file)], ["evaluate", str(run)], ["generate", str(run)], ["inspect", str(run)]):
        assert main(command) == 2
        assert f"was written by an earlier chopmix; `chopmix upgrade {run}` rewrites the run" in capsys.readouterr().err
    upgrade(run)
    assert read_config(run).tree["data"]["dataset"]["use"] == "text"
    assert load_run(run).evaluate("val") == metrics
    assert main(["train", str(file)]) == 0
    assert "resumed" in capsys.readouterr().err
    weights = [load_run(each, "last").model.state_dict() for each in (run, other.out)]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_a_checkpoint_of_another_format_is_not_taken_for_damaged(tiny):
    file = tiny("mixed")
    assert main(["train", str(file)]) == 0
    run = load_config(file).out
    for found, message in (
        (None, "was written by an earlier chopmix"),
        (9, "is of format 9, and this chopmix reads format 2"),
    ):
        for state in run.glob("checkpoints/*/state.json"):
            kept = {**json.loads(state.read_text()), "format": found}
            state.write_text(json.dumps({key: value for key, value in kept.items() if value is not None}))
        with pytest.raises(FormatError, match=message):
            read_state(run, 12)
        with pytest.raises(FormatError, match=message):
            newest_sound(run, print)
    assert not list(run.glob("checkpoints/damaged-*")) and not issubclass(FormatError, CheckpointError)
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("format: 2", "format: 3"))
    with pytest.raises(ConfigError, match="is of format 3, and this chopmix reads format 2: it takes a newer one"):
        read_config(run)
