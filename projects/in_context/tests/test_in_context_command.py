"""The command `chopmix in_context`: its output and its error messages."""

import re

import pytest
import torch
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.generated import MadeDataset
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.inference import generate as generating
from chopmix.inference.generate import Generating
from chopmix.inference.items import generate_items
from chopmix.projects.in_context import curves as learned
from chopmix.projects.in_context.scoring import model_outputs
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


def header(*baselines: str) -> str:
    """Returns the first line of the CSV of functions."""
    both = [column for name in baselines for column in (name, f"{name} se")]
    paired = [column for name in baselines for column in (f"model - {name}", f"model - {name} se")]
    return ",".join(["where", "examples", "functions", "model", "model se", *both, *paired])


@pytest.fixture(autouse=True)
def few_functions(monkeypatch):
    """Uses few validation functions, and few functions for the probe of the layers."""
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


def test_the_command_writes_a_table_and_a_picture(tmp_path, capsys):
    (tmp_path / "pairs.yaml").write_text(PAIRS)
    assert not main(["train", str(tmp_path / "pairs.yaml"), f"out={tmp_path / 'pairs'}"])
    capsys.readouterr()
    assert not main(["in_context", str(tmp_path / "pairs"), "--functions", "40", "--out", str(tmp_path)])
    output = capsys.readouterr().out
    lines = (tmp_path / "in_context.csv").read_text().splitlines()
    assert lines[0] == header("least squares", "ridge", "nearest neighbours") + ",layers,R2,R2 se"
    assert len(lines) == 1 + 3 * 6 + 2 * 3
    assert lines[-1].startswith('"ridge\'s weights, read off the mean of the values",')
    assert "as trained, 20 functions, ± standard error" in output and "model - ridge" in output
    assert "R2 of ridge's weights predicted from each layer at the next point (linear map fitted to 60 fun" in output
    row = dict(zip(lines[0].split(","), lines[3].split(",")))
    assert row["functions"] == "20" and float(row["model - ridge"]) == pytest.approx(
        float(row["model"]) - float(row["ridge"])
    )
    assert all(float(row[f"{name} se"]) > 0 for name in ("model", "ridge", "model - ridge"))
    with Image.open(tmp_path / "in_context.png") as picture:
        assert picture.width > picture.height
    assert main(["in_context", str(tmp_path / "pairs"), "--functions", "2"]) and "from 4 to" in capsys.readouterr().err


@pytest.mark.system
def test_learning_in_context_is_measured_at_the_end_of_training(tiny, tmp_path, capsys):
    """With the results of the command. A run that cannot learn in context is refused before its first step."""
    (tmp_path / "pairs.yaml").write_text(PAIRS + "evaluation: {in_context: 40}\n")
    assert not main(["train", str(tmp_path / "pairs.yaml"), f"out={tmp_path / 'pairs'}"])
    table = (tmp_path / "pairs" / "in_context.csv").read_text()
    assert (tmp_path / "pairs" / "in_context.png").exists() and len(table.splitlines()) == 1 + 3 * 6 + 2 * 3
    assert not main(["in_context", str(tmp_path / "pairs"), "--functions", "40", "--out", str(tmp_path)])
    assert (tmp_path / "in_context.csv").read_text() == table
    text = " ".join("".join(capsys.readouterr()).split())
    assert re.search(r"squared error after 3 examples \(20 functions\): model [\d.]+ ± [\d.]+; least squares", text)
    assert re.search(r"ridge [\d.]+ ± [\d.]+, model - ridge -?[\d.]+ ± [\d.]+; nearest", text)
    assert re.search(r"fitted to 60 functions, scored on 40\): -?[\d.]+ ± [\d.]+, ", text)
    assert main(["train", str(tmp_path / "pairs.yaml"), "evaluation.in_context=3", f"out={tmp_path / 'x'}"]) == 2
    assert "the number of samples must be from 4 to 1,000,000, not 3" in capsys.readouterr().err
    assert main(["in_context", str(tmp_path / "pairs"), "--functions", str(2**63 - 1)]) == 2
    assert "from 4 to 1,000,000, not 9,223,372,036,854,775,807" in capsys.readouterr().err
    assert main(["train", str(tiny()), "evaluation.in_context=40", f"out={tmp_path / 'y'}"]) == 2
    assert "was not trained to learn from examples" in " ".join(capsys.readouterr().err.split())
    assert not any((tmp_path / name / "checkpoints").exists() for name in "xy")


@pytest.mark.system
def test_user_defined_functions_are_measured_at_the_end_of_training(tmp_path, monkeypatch):
    code = "from chopmix.projects.in_context.functions import Linear\nclass Own(Linear):\n    pass\n"
    (tmp_path / "own_functions.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    config = PAIRS.replace("in_context,", "in_context, function: {use: 'own_functions:Own'},")
    (tmp_path / "pairs.yaml").write_text(config + "evaluation: {in_context: 8}\n")
    assert not main(["train", str(tmp_path / "pairs.yaml"), f"out={tmp_path / 'pairs'}"])
    lines = (tmp_path / "pairs" / "in_context.csv").read_text().splitlines()
    assert lines[0] == header("least squares", "ridge", "nearest neighbours") + ",layers,R2,R2 se"  # those of Linear
    assert (tmp_path / "pairs" / "summary.json").exists()


def test_rules_are_measured_with_prompts_that_fit_into_the_context(tmp_path, capsys):
    (tmp_path / "rules.yaml").write_text(RULES.replace("generated: 8", "generated: 8, in_context: 4"))
    few = ["model.context=32", "data.dataset.examples=1"]
    assert not main(["train", str(tmp_path / "rules.yaml"), *few, f"out={tmp_path / 'rules'}"])
    lines = (tmp_path / "rules" / "in_context.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == ["0", "1", "2"] * 3
    assert "4 examples: " in " ".join("".join(capsys.readouterr()).split())
    no_metrics = "tasks.answer.metrics=[]"
    assert main(["train", str(tmp_path / "rules.yaml"), no_metrics, f"out={tmp_path / 'x'}"]) == 2
    assert "does not generate answers that can be scored" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x" / "checkpoints").exists()


def test_examples_that_do_not_fit_into_the_context_are_refused(tmp_path, capsys):
    (tmp_path / "pairs.yaml").write_text(PAIRS)
    more = "data.dataset.examples=11"
    assert main(["train", str(tmp_path / "pairs.yaml"), more, f"out={tmp_path / 'x'}"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert (
        "its 22 tokens of x and y are more than the context of 20: enlarge the context, or shorten the samples" in error
    )
    assert "22 tokens" in error and "context of 20" in error, error
    (tmp_path / "rules.yaml").write_text(RULES)
    assert main(["train", str(tmp_path / "rules.yaml"), "model.context=20", f"out={tmp_path / 'y'}"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "tokens, more than the context of 20; data.too_long: drop would drop its prompt" in error, error


@pytest.mark.parametrize(
    "function, baselines",
    [
        ("{use: sparse, nonzero: 1}", ("least squares", "ridge", "lasso")),
        ("{use: network, hidden: 3}", ("ridge", "nearest neighbours", "network kernel")),
        ("{use: tree, depth: 2}", ("ridge", "nearest neighbours", "greedy tree")),
    ],
)  # fmt: skip
@pytest.mark.system
def test_every_kind_of_function_is_compared_with_its_baselines(tmp_path, capsys, function, baselines):
    (tmp_path / "pairs.yaml").write_text(PAIRS.replace("in_context,", f"in_context, function: {function},"))
    assert not main(["train", str(tmp_path / "pairs.yaml"), f"out={tmp_path / 'pairs'}"])
    assert not main(["in_context", str(tmp_path / "pairs"), "--functions", "8"])
    lines = (tmp_path / "pairs" / "in_context.csv").read_text().splitlines()
    assert lines[0] == header(*baselines) and len(lines) == 1 + 3 * 6
    assert "ridge's weights" not in capsys.readouterr().out, "the probe is only for linear functions"


@pytest.mark.system
def test_vectors_of_layers_are_at_the_points_and_at_the_values(tmp_path):
    """Before the first layer, the mean of the vectors at the values determines the mean value. The vector at the next
    point does not."""
    (tmp_path / "pairs.yaml").write_text(PAIRS)
    train(load_config(tmp_path / "pairs.yaml", [f"out={tmp_path / 'pairs'}"]))
    run = load_run(tmp_path / "pairs")
    functions = run.dataset()
    functions.held_back = 400
    split = run.open("val", functions)
    assert not model_outputs(run.model, "next", run.tasks["next"], split).vectors
    for depth in (1, 4):
        outputs, unexplained = model_outputs(run.model, "next", run.tasks["next"], split, depth), {}
        means = outputs.y[:, :depth].mean(1)
        for position, layers in outputs.vectors.items():
            vectors = torch.cat([layers[0].double(), torch.ones(400, 1)], dim=1)
            residual = means - vectors @ torch.linalg.pinv(vectors) @ means
            unexplained[position] = float(residual.square().sum() / (means - means.mean()).square().sum())
        assert unexplained["the mean of the values"] < 0.01 and unexplained["the next point"] > 0.8


@pytest.mark.system
def test_every_seed_is_scored_on_different_functions(tmp_path, monkeypatch):
    """They are not training or validation data, and they are the same at every call."""
    (tmp_path / "pairs.yaml").write_text(PAIRS)
    splits, points = [], {}
    monkeypatch.setattr(learned, "model_outputs", lambda *a: splits.append(a[3]) or model_outputs(*a))
    for seed in (0, 1):
        train(load_config(tmp_path / "pairs.yaml", [f"out={tmp_path / str(seed)}", f"training.seed={seed}"]))
        for _ in range(2):
            splits.clear()
            learned.learned(load_run(tmp_path / str(seed)), 20, lambda text: None)
            trained, *_elsewhere, probed = [split.samples for split in splits]
            keys = [*trained.keys, *probed.keys]
            assert points.setdefault(seed, keys) == keys and len({*keys}) == len(keys) == 20 + 100
    assert not {*points[0]} & {*points[1]}
    dataset = load_run(tmp_path / "0").dataset()
    assert not {*points[0], *points[1]} & {*dataset.open("train").keys, *dataset.open("val").keys}


@pytest.mark.system
def test_shifted_data_are_relative_to_the_scale_of_the_run(tmp_path, capsys):
    (tmp_path / "pairs.yaml").write_text(PAIRS.replace("in_context,", "in_context, scale: 2.0,"))
    assert not main(["train", str(tmp_path / "pairs.yaml"), f"out={tmp_path / 'pairs'}"])
    assert not main(["in_context", str(tmp_path / "pairs"), "--functions", "40"])
    lines = [line.split(",") for line in (tmp_path / "pairs" / "in_context.csv").read_text().splitlines()]
    first = {where: float(error) for where, examples, _, error, *_ in lines if examples == "0"}
    assert first["points twice as far"] > 2.5 * first["as trained"]


def test_the_command_writes_a_table_of_rules(tmp_path, capsys):
    (tmp_path / "rules.yaml").write_text(RULES)
    assert not main(["train", str(tmp_path / "rules.yaml"), f"out={tmp_path / 'rules'}"])
    assert not main(["in_context", str(tmp_path / "rules"), "--functions", "12"])
    lines = (tmp_path / "rules" / "in_context.csv").read_text().splitlines()
    assert lines[0] == "rules,examples,answers,exact_match,exact_match se" and len(lines) == 1 + 3 * 5
    assert [line.split(",")[:2] for line in lines[1:3]] == [["train", "0"], ["train", "1"]]
    assert "exact match" in capsys.readouterr().out and (tmp_path / "rules" / "in_context.png").exists()


def test_an_answer_is_generated_from_a_prompt_that_is_predicted_too(tmp_path, monkeypatch):
    """In training a text is conditioned on the preceding inputs, but not on the following inputs."""
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

    def spied(model, batch, **options):
        read.append([*batch.main.chunks])
        return session(model, batch, **options)

    monkeypatch.setattr(generating, "Session", spied)
    split = run.open("val")
    for inputs in (None, ["prompt"], ["answer"], []):
        for name in ("answer", "prompt"):
            generate_items(run, name, split, split.first(2), Generating(max_tokens=2), inputs=inputs)
    run.generate(inputs={"prompt": "abcde>"}, target="answer", max_tokens=2)
    both, answer, prompt = ["prompt", "answer"], ["answer"], ["prompt"]
    assert read == [both, prompt, both, prompt, answer, prompt, answer, prompt, both]


def test_a_run_on_other_data_is_refused(tiny_run, capsys):
    assert main(["in_context", str(tiny_run)])
    assert "was not trained to learn from examples" in capsys.readouterr().err


def test_an_imported_run_is_refused(tmp_path, capsys):
    """It has no data set, and the command has no option for one."""
    gpt2(tmp_path / "hf")
    assert main(["import", str(tmp_path / "hf"), str(tmp_path / "run")]) == 0
    assert main(["in_context", str(tmp_path / "run")]) == 2
    message = "was imported. This command needs a run that was trained on the data set `in_context` or `rules`"
    assert message in (error := capsys.readouterr().err) and "--data" not in error


@pytest.mark.parametrize("factor", [1e38, float("nan")])
def test_damaged_weights_are_named(tmp_path, capsys, factor):
    (tmp_path / "x.yaml").write_text(PAIRS)
    train(load_config(tmp_path / "x.yaml", [f"out={tmp_path / 'run'}"]))
    run = load_run(tmp_path / "run")
    with torch.no_grad():
        for parameter in run.model.heads.parameters():
            parameter.mul_(factor).add_(factor)
    with pytest.raises(ValueError, match="the model's outputs are NaN or infinite"):
        learned.measure_and_write(run, tmp_path, 20, print)
