"""`chopmix in_context` as it is typed: what it writes, and what it says of bad input."""

import re

import pytest
import torch
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.samples import MadeDataset
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.inference import generate as generating
from chopmix.inference.generate import Generating, generate_items
from chopmix.projects.in_context import curves as learned
from chopmix.projects.in_context.scoring import seen
from PIL import Image
from test_import_gpt2 import reference as gpt2

CONFIGS = ROOT / "configs"
PAIRS = """
inputs:
  x: {use: sensor, channels: 2, position: null}
  y: {use: sensor, channels: 1, offset: 0.5, position: null}
model: {width: 16, depth: 2, heads: 2, context: 20, attention: causal & same_sample}
tasks:
  next: {use: next_item, target: y, at: x}
data: {order: seconds, dataset: {use: in_context, dimension: 2, examples: 6, noise: 0.1, samples: 64}}
training: {steps: 2, samples_per_step: 8}
"""


def header(*rivals: str) -> str:
    """The first line of the CSV of functions."""
    both = [each for name in rivals for each in (name, f"{name} se")]
    paired = [each for name in rivals for each in (f"model - {name}", f"model - {name} se")]
    return ",".join(["where", "examples", "functions", "model", "model se", *both, *paired])


@pytest.fixture(autouse=True)
def few_functions(monkeypatch):
    """Few functions validate, and the probe of the layers is fitted to few."""
    monkeypatch.setattr(MadeDataset, "held_back", 40)
    monkeypatch.setattr(learned, "FITTED", 60)
    monkeypatch.setattr(learned, "SCORED", 40)


RULES = """
inputs:
  prompt: {use: text, encoding: characters, position: null}
  answer: {use: text, encoding: characters, position: null}
model: {width: 16, depth: 1, heads: 2, context: 160, attention: same_sample & (causal | from(prompt))}
tasks: {answer: {use: language_modeling, target: answer, metrics: [exact_match]}}
data: {dataset: {use: rules, samples: 64}}
training: {steps: 2, samples_per_step: 8}
evaluation: {generated: 8}
"""


def test_what_is_learned_in_the_context_is_written(tmp_path, capsys):
    (tmp_path / "pairs.yaml").write_text(PAIRS)
    assert not main(["train", str(tmp_path / "pairs.yaml"), f"out={tmp_path / 'pairs'}"])
    capsys.readouterr()
    assert not main(["in_context", str(tmp_path / "pairs"), "--functions", "40", "--out", str(tmp_path)])
    said = capsys.readouterr()
    lines = (tmp_path / "in_context.csv").read_text().splitlines()
    assert lines[0] == header("least squares", "ridge", "nearest neighbours") + ",layers,R2,R2 se"
    assert len(lines) == 1 + 3 * 6 + 2 * 3
    assert lines[-1].startswith('"ridge\'s weights, read off the mean of the values",')
    assert "as trained, 20 functions, ± standard error" in said.out and "model - ridge" in said.out
    assert (
        "ridge's weights read off each layer at the next point, R2 on 40 functions, of a map fitted to 60" in said.out
    )
    row = dict(zip(lines[0].split(","), lines[3].split(",")))
    assert row["functions"] == "20" and float(row["model - ridge"]) == pytest.approx(
        float(row["model"]) - float(row["ridge"])
    )
    assert all(float(row[f"{name} se"]) > 0 for name in ("model", "ridge", "model - ridge"))
    with Image.open(tmp_path / "in_context.png") as picture:
        assert picture.width > picture.height
    assert main(["in_context", str(tmp_path / "pairs"), "--functions", "2"]) and "from 4 to" in capsys.readouterr().err


@pytest.mark.system
def test_what_is_learned_is_measured_at_the_end_of_training(tiny, tmp_path, capsys):
    """As the command measures it; a run that learns nothing so is told before its first step."""
    (tmp_path / "pairs.yaml").write_text(PAIRS + "evaluation: {in_context: 40}\n")
    assert not main(["train", str(tmp_path / "pairs.yaml"), f"out={tmp_path / 'pairs'}"])
    table = (tmp_path / "pairs" / "in_context.csv").read_text()
    assert (tmp_path / "pairs" / "in_context.png").exists() and len(table.splitlines()) == 1 + 3 * 6 + 2 * 3
    assert not main(["in_context", str(tmp_path / "pairs"), "--functions", "40", "--out", str(tmp_path)])
    assert (tmp_path / "in_context.csv").read_text() == table
    said = " ".join("".join(capsys.readouterr()).split())
    assert re.search(r"squared error after 3 examples, of 20 functions: model [\d.]+ ± [\d.]+; least squares", said)
    assert re.search(r"ridge [\d.]+ ± [\d.]+, model - ridge -?[\d.]+ ± [\d.]+; nearest", said)
    assert re.search(r"R2 on 40 functions, of a map fitted to 60 others: -?[\d.]+ ± [\d.]+, ", said)
    assert main(["train", str(tmp_path / "pairs.yaml"), "evaluation.in_context=3", f"out={tmp_path / 'x'}"]) == 2
    assert "from 4 to 1,000,000 samples tell what is learned in the context, not 3" in capsys.readouterr().err
    assert main(["in_context", str(tmp_path / "pairs"), "--functions", str(2**63 - 1)]) == 2
    assert "in the context, not 9,223,372,036,854,775,807" in capsys.readouterr().err
    assert main(["train", str(tiny()), "evaluation.in_context=40", f"out={tmp_path / 'y'}"]) == 2
    assert "was not trained to learn from examples" in " ".join(capsys.readouterr().err.split())
    assert not any((tmp_path / name / "checkpoints").exists() for name in "xy")


@pytest.mark.system
def test_functions_of_ones_own_are_measured_at_the_end_of_training(tmp_path, monkeypatch):
    code = "from chopmix.projects.in_context.functions import Linear\nclass Own(Linear):\n    pass\n"
    (tmp_path / "own_functions.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    own = PAIRS.replace("in_context,", "in_context, function: {use: 'own_functions:Own'},")
    (tmp_path / "pairs.yaml").write_text(own + "evaluation: {in_context: 8}\n")
    assert not main(["train", str(tmp_path / "pairs.yaml"), f"out={tmp_path / 'pairs'}"])
    lines = (tmp_path / "pairs" / "in_context.csv").read_text().splitlines()
    assert lines[0] == header("ridge", "nearest neighbours") + ",layers,R2,R2 se"
    assert (tmp_path / "pairs" / "summary.json").exists()


def test_rules_are_measured_as_far_as_the_context_goes(tmp_path, capsys):
    (tmp_path / "rules.yaml").write_text(RULES.replace("generated: 8", "generated: 8, in_context: 4"))
    few = ["model.context=32", "data.dataset.examples=1"]
    assert not main(["train", str(tmp_path / "rules.yaml"), *few, f"out={tmp_path / 'rules'}"])
    lines = (tmp_path / "rules" / "in_context.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == ["0", "1", "2"] * 3
    assert "4 examples are " in " ".join("".join(capsys.readouterr()).split())
    uncompared = "tasks.answer.metrics=[]"
    assert main(["train", str(tmp_path / "rules.yaml"), uncompared, f"out={tmp_path / 'x'}"]) == 2
    assert "writes no answers that are compared" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x" / "checkpoints").exists()


def test_more_examples_than_the_context_holds_are_told(tmp_path, capsys):
    (tmp_path / "pairs.yaml").write_text(PAIRS)
    more = "data.dataset.examples=11"
    assert main(["train", str(tmp_path / "pairs.yaml"), more, f"out={tmp_path / 'x'}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "its 22 tokens of x and y are more than the context of 20: enlarge the context, or shorten the samples" in said
    )
    assert "22 tokens" in said and "context of 20" in said, said
    (tmp_path / "rules.yaml").write_text(RULES)
    assert main(["train", str(tmp_path / "rules.yaml"), "model.context=20", f"out={tmp_path / 'y'}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "tokens, more than the context of 20; data.too_long: drop would drop its prompt" in said, said


@pytest.mark.parametrize(
    "function, rivals",
    [
        ("{use: sparse, nonzero: 1}", ("least squares", "ridge", "lasso")),
        ("{use: network, hidden: 3}", ("ridge", "nearest neighbours", "network kernel")),
        ("{use: tree, depth: 2}", ("ridge", "nearest neighbours", "greedy tree")),
    ],
)  # fmt: skip
@pytest.mark.system
def test_every_kind_of_function_stands_beside_its_rivals(tmp_path, capsys, function, rivals):
    (tmp_path / "pairs.yaml").write_text(PAIRS.replace("in_context,", f"in_context, function: {function},"))
    assert not main(["train", str(tmp_path / "pairs.yaml"), f"out={tmp_path / 'pairs'}"])
    assert not main(["in_context", str(tmp_path / "pairs"), "--functions", "8"])
    lines = (tmp_path / "pairs" / "in_context.csv").read_text().splitlines()
    assert lines[0] == header(*rivals) and len(lines) == 1 + 3 * 6
    assert "ridge's weights" not in capsys.readouterr().out, "they are right for linear functions alone"


@pytest.mark.system
def test_layers_are_read_at_the_points_and_at_the_values(tmp_path):
    """Before the first layer the vector at a value tells that value, and that at the next point does not; the mean over
    several values tells their mean."""
    (tmp_path / "pairs.yaml").write_text(PAIRS)
    train(load_config(tmp_path / "pairs.yaml", [f"out={tmp_path / 'pairs'}"]))
    run = load_run(tmp_path / "pairs")
    functions = run.dataset()
    functions.held_back = 400
    split = run.open("val", functions)
    assert not seen(run.model, "next", run.tasks["next"], split).vectors
    for depth in (1, 4):
        found, unread = seen(run.model, "next", run.tasks["next"], split, depth), {}
        told = found.y[:, :depth].mean(1)
        for place, layers in found.vectors.items():
            vectors = torch.cat([layers[0].double(), torch.ones(400, 1)], dim=1)
            left = told - vectors @ torch.linalg.pinv(vectors) @ told
            unread[place] = float(left.square().sum() / (told - told.mean()).square().sum())
        assert unread["the mean of the values"] < 0.01 and unread["the next point"] > 0.8


@pytest.mark.system
def test_every_seed_is_judged_on_functions_and_rules_of_its_own(tmp_path, monkeypatch):
    """None of which it was trained or validated on; the same again where it is asked again."""
    (tmp_path / "pairs.yaml").write_text(PAIRS)
    read, points = [], {}
    monkeypatch.setattr(learned, "seen", lambda *a: read.append(a[3]) or seen(*a))
    for seed in (0, 1):
        train(load_config(tmp_path / "pairs.yaml", [f"out={tmp_path / str(seed)}", f"training.seed={seed}"]))
        for _ in range(2):
            read.clear()
            learned.learned(load_run(tmp_path / str(seed)), 20, lambda text: None)
            trained, *_elsewhere, probed = [split.samples for split in read]
            keys = [*trained.keys, *probed.keys]
            assert points.setdefault(seed, keys) == keys and len({*keys}) == len(keys) == 20 + 100
    assert not {*points[0]} & {*points[1]}
    dataset = load_run(tmp_path / "0").dataset()
    assert not {*points[0], *points[1]} & {*dataset.open("train").keys, *dataset.open("val").keys}


@pytest.mark.system
def test_data_elsewhere_are_larger_than_those_of_the_run(tmp_path, capsys):
    """Points twice as far as it was trained on, whatever its `scale`."""
    (tmp_path / "pairs.yaml").write_text(PAIRS.replace("in_context,", "in_context, scale: 2.0,"))
    assert not main(["train", str(tmp_path / "pairs.yaml"), f"out={tmp_path / 'pairs'}"])
    assert not main(["in_context", str(tmp_path / "pairs"), "--functions", "40"])
    lines = [line.split(",") for line in (tmp_path / "pairs" / "in_context.csv").read_text().splitlines()]
    first = {where: float(error) for where, examples, _, error, *_ in lines if examples == "0"}
    assert first["points twice as far"] > 2.5 * first["as trained"]


def test_rules_in_the_prompt_are_written(tmp_path, capsys):
    (tmp_path / "rules.yaml").write_text(RULES)
    assert not main(["train", str(tmp_path / "rules.yaml"), f"out={tmp_path / 'rules'}"])
    assert not main(["in_context", str(tmp_path / "rules"), "--functions", "12"])
    lines = (tmp_path / "rules" / "in_context.csv").read_text().splitlines()
    assert lines[0] == "rules,examples,answers,exact_match,exact_match se" and len(lines) == 1 + 3 * 5
    assert [line.split(",")[:2] for line in lines[1:3]] == [["train", "0"], ["train", "1"]]
    assert "exact match" in capsys.readouterr().out and (tmp_path / "rules" / "in_context.png").exists()


def test_an_answer_is_generated_from_a_prompt_that_is_predicted_too(tmp_path, monkeypatch):
    """What stands before a text was read in training, whether it is predicted or not; what stands behind it was not."""
    (tmp_path / "rules.yaml").write_text("""
inputs:
  prompt: {use: text, encoding: characters, position: null}
  answer: {same_as: prompt}
model: {width: 16, depth: 1, heads: 2, context: 160, attention: causal & same_sample}
tasks: {answer: {use: language_modeling, target: answer}, prompt: {use: language_modeling, target: prompt}}
data: {dataset: {use: rules, samples: 64}}
training: {steps: 2, samples_per_step: 8}
""")
    train(load_config(tmp_path / "rules.yaml", [f"out={tmp_path / 'rules'}"]))
    run, read, session = load_run(tmp_path / "rules"), [], generating.Session

    def kept(model, batch, **more):
        read.append([*batch.main.chunks])
        return session(model, batch, **more)

    monkeypatch.setattr(generating, "Session", kept)
    split = run.open("val")
    for inputs in (None, ["prompt"], ["answer"], []):
        for name in ("answer", "prompt"):
            generate_items(run.model, run.tasks, name, split, split.first(2), Generating(max_tokens=2), inputs=inputs)
    run.generate(inputs={"prompt": "abcde>"}, target="answer", max_tokens=2)
    both, answer, prompt = ["prompt", "answer"], ["answer"], ["prompt"]
    assert read == [both, prompt, both, prompt, answer, prompt, answer, prompt, both]


def test_a_run_of_something_else_learned_nothing_in_its_context(tiny_run, capsys):
    assert main(["in_context", str(tiny_run)])
    assert "was not trained to learn from examples" in capsys.readouterr().err


def test_an_imported_run_learned_nothing_in_its_context(tmp_path, capsys):
    """It has no data; the command has no option to name some."""
    gpt2(tmp_path / "hf")
    assert main(["import", str(tmp_path / "hf"), str(tmp_path / "run")]) == 0
    assert main(["in_context", str(tmp_path / "run")]) == 2
    told = "was imported. Only a run that was trained on the data set `in_context` or `rules`, as by configs/in_context"
    assert told in (said := capsys.readouterr().err) and "--data" not in said
