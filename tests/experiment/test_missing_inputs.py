"""Missing inputs are listed in each answer, with a warning if no training sample lacked them; input dropout."""

from __future__ import annotations

import io
import json
import math
import sys

import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.settings.document import ConfigError

NEVER = "warning: {} present in every training sample, so predictions without"


def rows(count: int, without_climate: int = 0) -> list[dict]:
    """Samples with a wave, its continuation, two numbers and a class; the first ones have no `climate`."""
    waves = [[math.sin(n + step / 3) for step in range(12)] for n in range(count)]
    return [
        {"power": wave[:8], "power_future": wave[8:], "state": "ab"[wave[0] > 0]}
        | ({} if n < without_climate else {"climate": [[float(n % 3), 1.0]]})
        for n, wave in enumerate(waves)
    ]


def write_config(folder, name: str, samples: list[dict], dropout, **changes) -> str:
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, samples)))
    columns = ["power", "power_future", "state", "climate"]
    tree = {
        "inputs": {"power": {"use": "sensor", "channels": 1}, "climate": {"use": "sensor", "channels": 2}},
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 16, "attention": "same_sample"},
        "tasks": {"next": {"use": "forecast", "target": "power_future", "input": "power"},
                  "state": {"use": "classification", "target": "state"}},
        "data": {"dataset": {"use": "manifest", "train": str(folder / f"{name}.jsonl"), "columns": columns}},
        "training": {"steps": 8, "samples_per_step": 8, "input_dropout": dropout},
        "evaluation": {"every": 8}, "logging": {"tensorboard": False}, "out": str(folder / name),
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree | changes))
    return str(folder / f"{name}.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with three runs: the training samples of `whole` have all inputs, some samples of `some` lack `climate`,
    and `dropped` was trained with input dropout."""
    folder = tmp_path_factory.mktemp("missing")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        for name, lacking, dropout in (
            ("whole", 0, 0.0),
            ("some", 40, 0.0),
            ("dropped", 0, {"power": 0.4, "climate": 0.4}),
        ):
            assert main(["train", write_config(folder, name, rows(60, lacking), dropout)]) == 0
    return folder


def test_a_run_stores_how_many_training_samples_had_each_input(folder):
    for name, power, climate in (("whole", 1.0, 1.0), ("some", 1.0, 1 / 3), ("dropped", 0.6, 0.6)):
        run = load_run(folder / name)
        assert run.training_samples == 8 * run.step == 64
        shares = {key: count / 64 for key, count in run.training_inputs.items()}
        assert shares == pytest.approx({"power": power, "climate": climate}, abs=0.2)
        assert run.never_missing(["climate", "power"]) == [key for key in ("climate", "power") if shares[key] == 1]


def test_the_counts_continue_when_a_run_is_resumed(folder):
    out = f"out={folder / 'longer'}"
    for steps in (3, 8):
        assert main(["train", str(folder / "dropped.yaml"), out, f"training.steps={steps}"]) == 0
    states = [json.loads(file.read_text()) for file in sorted(folder.glob("longer/checkpoints/*/state.json"))]
    whole = json.loads((folder / "dropped/checkpoints/step-00000008/state.json").read_text())
    assert states[-1]["inputs"] == whole["inputs"] and states[-1]["samples"] == whole["samples"] == 64


@pytest.mark.parametrize("run, warns", [("whole", True), ("some", False), ("dropped", False)])
def test_an_answer_lists_missing_inputs_and_warns_if_training_always_had_them(folder, run, warns, messages):
    loaded, samples = load_run(folder / run), rows(4)
    wave = {"power": samples[0]["power"]}
    for sample, without in (
        (samples[0], None), (wave, ["climate"]), (wave | {"climate": None}, ["climate"]),
        (wave | {"climate": [[math.nan, math.nan]]}, ["climate"]), (wave | {"climate": [[math.nan, 1.0]]}, None),
    ):  # fmt: skip
        messages()
        answer = loaded.predict(sample)
        assert answer.get("without") == without and answer.keys() - {"without"} == {"next", "state"}
        printed = messages()
        if sample.get("climate") is None:
            assert "without climate" in printed and (NEVER.format("climate was") in printed) == warns
    together = loaded.predict([wave, samples[1], {"climate": samples[2]["climate"]}])
    assert [answer.get("without") for answer in together] == [["climate"], None, ["power"]]
    assert together[2]["next"].keys() == {"error"}  # a forecast needs its input


def test_answers_to_standard_input_and_tables_list_missing_inputs(folder, capsys, monkeypatch):
    wave = [0.0] * 8
    lines = [{"power": wave}, {"power": wave, "climate": [[0, 0]]}, {"power": [None] * 8, "climate": [[0, 0]]},
             {"climate": None}, {"power": wave}]  # fmt: skip
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(json.dumps, lines))))
    capsys.readouterr()
    assert main(["predict", str(folder / "whole"), "--input", "-"]) == 0
    printed = capsys.readouterr()
    answers = [json.loads(line) for line in printed.out.splitlines()]
    assert [answer.get("without") for answer in answers] == [["climate"], None, ["power"], None, ["climate"]]
    assert "error" in answers[3] and printed.err.count(NEVER.format("climate was")) == 1
    assert printed.err.count(NEVER.format("power was")) == 1

    (folder / "new.jsonl").write_text("\n".join(map(json.dumps, rows(6, 2))))
    for ending in (".csv", ".jsonl"):
        output = str(folder / f"answers{ending}")
        assert main(["predict", str(folder / "whole"), "--data", str(folder / "new.jsonl"), "--output", output]) == 0
        printed = capsys.readouterr().err
        assert "2 of 6 samples: predicted without climate" in printed
        assert NEVER.format("climate was") in printed
    table = (folder / "answers.csv").read_text().splitlines()
    position = table[0].split(",").index("without")
    assert [line.split(",")[position] for line in table[1:3]] == ["climate", "climate"]
    assert ",".join(table[3].split(",")[position:]) == "," and table[0].endswith("without,error")
    assert main(["evaluate", str(folder / "whole"), "--data", str(folder / "new.jsonl")]) == 0
    assert "2 of 6 samples: predicted without climate" in capsys.readouterr().err


def test_files_of_vectors_list_missing_inputs(folder, capsys):
    (folder / "few.jsonl").write_text("\n".join(map(json.dumps, rows(3, 1))))
    capsys.readouterr()
    for ending in (".jsonl", ".csv", ".npy"):
        command = ["embed", str(folder / "whole"), "--data", str(folder / "few.jsonl")]
        assert main([*command, "--output", str(folder / f"vectors{ending}")]) == 0
        printed = capsys.readouterr().err
        assert "1 of 3 samples: read without climate" in printed and NEVER.format("climate was") in printed
    lines = [json.loads(line) for line in (folder / "vectors.jsonl").read_text().splitlines()]
    assert [line.get("without") for line in lines] == [["climate"], None, None]
    assert (folder / "vectors.csv").read_text().splitlines()[1].endswith(",climate,")


def test_the_input_of_a_forecast_is_dropped_if_another_task_reads_the_sample(folder, capsys):
    file = str(folder / "dropped.yaml")
    assert main(["train", file, "training.steps=1", f"out={folder / 'again'}"]) == 0
    assert "share of training samples without an input: climate 32.7%, power 32.7%" in capsys.readouterr().err
    config = load_config(file, [f"out={folder / 'again'}"])
    assert config.wiring.kept == frozenset()


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["tasks.state=null"], "the input 'power' is never dropped, because task 'next' needs it in each sample"),
        (["inputs.climate=null", "tasks.next=null", "training.input_dropout={power: 0.4}"],
         "training.input_dropout.power: the only input is never dropped; remove this share"),
        (["training.input_dropout={power: 0.4, wind: 0.2}"], "no input is named 'wind'"),
    ],
)  # fmt: skip
def test_a_named_share_without_effect_is_refused(folder, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(str(folder / "dropped.yaml"), [f"out={folder / 'x'}", *overrides])


def test_a_task_with_the_name_of_the_column_is_refused(folder):
    with pytest.raises(ConfigError, match="'without' is the name of a column of the predictions"):
        load_config(str(folder / "dropped.yaml"), ["tasks.without={use: classification, target: state}"])
