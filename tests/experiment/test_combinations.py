"""Adapters, flows, rollouts and shared types, each together with other parts of chopmix."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
import torch
from chopmix.commands.cli import main
from chopmix.data.generated import MadeDataset
from chopmix.experiment.run import load_run
from ranks import train_together
from systems import CODER, JUDGED, SAVED, SYSTEMS, write_parts
from tiny import CORPUS, SAMPLES, SCENES, TEXT, dumped, write_data

pytest.importorskip("gymnasium", reason="needs the extra decision")
pytestmark = pytest.mark.system

ALL = SCENES | {name: tree for name, tree in SYSTEMS.items() if name != "adapted"} | {"coder": CODER}
CPU = {"device": "cpu", "precision": "float32", "schedule": "constant"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder beside the data that all configurations read."""
    home = tmp_path_factory.mktemp("combinations")
    write_data(home / "data")
    (home / "case").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home / "case")
        patch.setattr(MadeDataset, "held_back", 20)
        write_parts(home / "data")
        yield home / "case"


def trained(home, tree, out, *words):
    """Trains a configuration, and returns the figures of its last validation."""
    tree = deepcopy(tree)
    tree["training"] |= CPU
    (home / "x.yaml").write_text(dumped({**tree, **SAVED, "out": out}))
    assert main(["train", "x.yaml", *words]) == 0
    return last_figures(home / out)


def last_figures(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    figures = [line for line in lines if any(name.startswith("val/") for name in line)]
    last = [line for line in figures if line["step"] == figures[-1]["step"]]
    return {name: value for line in last for name, value in line.items() if name.startswith("val/")}


def weights(out, **options):
    return load_run(out, "last", trust=["own_rewards"], **options).model.state_dict()


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def stopped_equals_whole(home, tree):
    """Whether a run that is stopped after its first step ends with the weights of a run without a stop."""
    name = f"{len(list(home.iterdir()))}"
    trained(home, tree, f"whole{name}")
    trained(home, tree, f"parts{name}", "training.steps=1")
    trained(home, tree, f"parts{name}")
    return equal(weights(f"whole{name}"), weights(f"parts{name}"))


def newest(home):
    return max(home.glob("whole*"), key=lambda folder: folder.stat().st_mtime).name


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_system_trains_adapters(home, name):
    """The figures during training are those of the loaded run, whose matrices contain the adapters; without the
    adapters it is the base."""
    tree = deepcopy(ALL[name])
    trained(home, tree, f"base_{name}")
    tree["from"] = f"base_{name}"
    tree["training"]["adapters"] = {"rank": 2, "on": ["cores"]}
    during = trained(home, tree, f"adapted_{name}")
    run, base = (load_run(f"{kind}_{name}", "last") for kind in ("adapted", "base"))
    after = run.evaluate("val")
    losses = [figure for figure in after if figure in during and figure.endswith("loss")]
    assert [after[figure] for figure in losses] == pytest.approx([during[figure] for figure in losses], rel=1e-5)
    if name == "rewarded":  # the answers of a model without training have no reward
        return
    assert losses
    changed = {name for name, value in run.model.state_dict().items()
               if not torch.equal(value, base.model.state_dict()[name])}  # fmt: skip
    assert changed and all(".cores." in f".{name}" for name in changed)
    assert equal(weights(f"adapted_{name}", adapters=[]), base.model.state_dict())


@pytest.mark.parametrize("words", [
    ["training.mixup={mixup: 0.5}"], ["training.rows_per_micro_batch=1"], ["data.split={folds: 2, fold: 1}"],
    ["training.ema=0.5", "training.input_dropout={image: 0.5}"],
], ids=str)  # fmt: skip
def test_adapters_of_a_classification(home, words):
    base = JUDGED if "mixup" in words[0] else JUDGED | {"inputs": JUDGED["inputs"] | {"note": TEXT}}
    trained(home, base, f"classes{len(words[0])}", *words)
    tree = base | {"from": f"classes{len(words[0])}"}
    tree["training"] = base["training"] | {"adapters": {"rank": 2, "on": ["cores"]}}
    for option in words:
        section, _, value = option.partition("=")
        tree = with_option(tree, section.split("."), value)
    assert stopped_equals_whole(home, tree)


def with_option(tree, path, text):
    """A copy of a configuration with another value, which is YAML."""
    import yaml

    key, *rest = path
    value = with_option(tree.get(key, {}), rest, text) if rest else yaml.safe_load(text)
    return tree | {key: value}


FLOW = SYSTEMS["flow"]
ROWS = [f"s{number},image-{number}.png,{word},{word}" for number, word in enumerate(["chop", "mix"] * 4)]


def flow_in(home, case):
    if case == "folds":
        return FLOW | {"data": FLOW["data"] | {"split": {"folds": 2, "fold": 1}}}
    if case == "table":
        (home.parent / "data" / "table.csv").write_text("\n".join(["key,image,note,label", *ROWS]))
        return FLOW | {
            "data": {
                "dataset": SAMPLES
                | {
                    "train": "../data/table.csv",
                    "val": "../data/table.csv",
                    "columns": ["image", "note", "label"],
                    "files": ["image"],
                }
            }
        }
    if case == "two tasks":
        return FLOW | {"tasks": FLOW["tasks"] | {"kind": {"use": "classification", "target": "label"}}}
    return FLOW | {
        "inputs": FLOW["inputs"] | {"text": {"use": "text", "encoding": "bytes"}},
        "tasks": FLOW["tasks"] | {"lm": {"use": "masked_modeling", "target": "text"}},
        "data": {"dataset": {"use": "mixture", "of": {"a": SAMPLES, "b": CORPUS}, "characters": 20}},
    }


@pytest.mark.parametrize("case", ["folds", "table", "two tasks", "mixture"])
def test_a_flow_is_trained_together_with(home, case):
    assert stopped_equals_whole(home, flow_in(home, case))
    assert main(["generate", newest(home), "--input", "note=chop", "--output", f"{case}.png", "--steps", "2"]) == 0
    assert (home / f"{case}.png").stat().st_size > 50


def test_a_flow_is_not_mixed_up(home, capsys):
    (home / "x.yaml").write_text(dumped(FLOW | {"out": "mixed"}))
    assert main(["train", "x.yaml", "training.mixup={mixup: 0.5}"]) == 2
    assert (
        "training.mixup needs one image of one size, or one sound (without cutmix), in every sample, and no other"
        in capsys.readouterr().err
    )


REWARDED = SYSTEMS["rewarded"] | {
    "data": {"dataset": {"use": "own_rewards:LongAnswers", "samples": 500, "answers": 2}},
}  # fmt: skip


@pytest.mark.parametrize("case", ["folds", "attribution", "adapters", "two tasks"])
def test_rewards_are_trained_together_with(home, case):
    tree = deepcopy(REWARDED)
    if case == "folds":
        tree["data"]["split"] = {"folds": 2, "fold": 1}
    elif case == "attribution":
        tree["evaluation"]["attribution"] = True
        tree["training"]["input_dropout"] = 0.2
    elif case == "adapters":
        trained(home, tree, "first")
        tree["from"] = "first"
        tree["training"]["adapters"] = {"rank": 2, "on": ["cores"]}
    else:
        tree["tasks"]["more"] = {"use": "language_modeling", "target": "operator"}
    first = trained(home, tree, f"first_{case}", "training.steps=1", "training.learning_rate=1e-30")
    assert stopped_equals_whole(home, tree)
    assert first["val/loss"] != last_figures(home / newest(home))["val/loss"]


@pytest.mark.parametrize("shared", ["", ", type: note"])
def test_a_shared_type_starts_from_another_run_and_has_an_encoder(home, shared):
    tree = deepcopy(SCENES["captions"])
    tree["inputs"]["second"] = {"same_as": "note"} | ({"type": "note"} if shared else {})
    tree["data"]["columns"] = {"second": "label"}
    tree["model"]["encoder"]["context"] = 48
    trained(home, tree, f"types{len(shared)}")
    tree["from"] = f"types{len(shared)}"
    assert stopped_equals_whole(home, tree)
    model = load_run(f"types{len(shared)}").model
    assert ("second" in model.types) == (not shared)


def test_a_model_without_layers_trains_in_two_processes_and_is_exported(home):
    tree = deepcopy(SCENES["lm"])
    tree["model"]["depth"] = 0
    trained(home, tree, "bigrams")
    done = train_together(home, 2, "x.yaml", "out=two")
    assert done.returncode == 0, done.stderr
    one, two = weights("bigrams"), weights("two")
    assert all(torch.allclose(value, two[name], atol=1e-5) for name, value in one.items())
    status = main(["export", "bigrams", "published", "--device", "cpu"])
    assert status in (0, 2)
