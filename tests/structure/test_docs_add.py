"""User-defined parts in `docs/add`, one file each outside of the package, and the blocks of `models/blocks`: they
train, resume after a kill, evaluate, predict, and are exported or refused by name."""

import csv
import importlib
import itertools
import json
import math
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import yaml
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.processes import Processes
from chopmix.experiment.assemble import assemble
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.models.batch import Batch, Chunks, SetPlan, Targets
from chopmix.models.contract import ContractError
from chopmix.models.tokens import plain_tokens
from chopmix.models.transformer import AttentionContext
from chopmix.training.progress import Progress
from ranks import train_together
from tiers import only

PAGES = ROOT / "docs" / "add"
PARTS = {
    "block": {"model": {"block": {"use": "block:GatedBlock", "open": 0.8}}},
    "experts": {"model": {"block": {"feed_forward": {"use": "experts:Experts", "count": 3}}}},
    "lstm": {"model": {"block": "lstm", "attention": "causal & same_sample"}},
    "window_perceptron": {"model": {"block": {"use": "window_perceptron", "words": 4},
                                    "attention": "causal & same_sample"}},
    "edge_bias": {"model": {"position": {"use": "edge_bias", "graphs": ["same_item", "from(scan)"]}}},
    "optimizer": {"training": {"optimizer": {"use": "optimizer:Lion"}}},
    "graph": {"model": {"attention": ["causal & graph:Dilated(2)", "causal"]}},
    "modality": {},
    "clip": {"model": {"attention": "same_item"}, "tasks": {"match": {"use": "clip:Clip", "left": "scan",
                                                                     "right": "word"}}},
}  # fmt: skip
"""Each part with the keys that name it, in a run that writes the word for a scan."""
BUILT_IN = ("lstm", "window_perceptron", "edge_bias")
TRUSTED = [*(part for part in PARTS if part not in BUILT_IN), "dataset"]


def write_config(folder, part, sections=None):
    """Writes the YAML of a run that uses a part."""
    for file in (*PAGES.glob("*.py"), ROOT / "tests" / "structure" / "clip.py"):
        shutil.copy(file, folder)
    tree = {
        "inputs": {"scan": {"use": "modality:LidarTokenizer"}, "word": {"use": "text", "encoding": "characters"}},
        "model": {"width": 16, "depth": 2, "heads": 2, "context": 64, "attention": "causal"},
        "tasks": {"word": {"use": "language_modeling", "target": "word"}},
        "data": {"dataset": "dataset:Scans"},
        "training": {"steps": 12, "samples_per_step": 16, "learning_rate": 0.003},
        "evaluation": {"every": 6, "rows": 32, "generated": 8, "sample_tokens": 4},
        "checkpoints": {"every": 4},
        "logging": {"tensorboard": False},
        "out": str(folder / "run"),
    }
    for section, keys in (sections or PARTS[part]).items():
        tree[section] = keys if section == "tasks" else tree[section] | keys
    file = folder / "a.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return file


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    for part in ("clip", *(file.stem for file in PAGES.glob("*.py"))):
        sys.modules.pop(part, None)


def weights(run):
    return {name: value.clone() for name, value in load_run(run, "last", trust=TRUSTED).model.state_dict().items()}


@pytest.mark.parametrize("part", only(1, sorted(PARTS, key=lambda part: part != "lstm")))
def test_a_part_trains_resumes_evaluates_predicts_and_exports(folder, part, capsys):
    file = write_config(folder, part)
    assert main(["train", str(file)]) == 0
    metrics = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["val/loss"] for line in metrics if "val/loss" in line]
    assert losses[-1] < losses[0]
    expected = weights(folder / "run")
    command = [sys.executable, ROOT / "train.py", file, f"out={folder / 'killed'}"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as killed:
        for line in killed.stderr:
            if line.startswith("step 6 "):
                killed.send_signal(signal.SIGKILL)
                break
    assert main(["train", str(file), f"out={folder / 'killed'}"]) == 0
    assert all(torch.equal(value, expected[name]) for name, value in weights(folder / "killed").items())
    capsys.readouterr()
    trusted = [word for name in TRUSTED for word in ("--trust", name)]
    assert main(["evaluate", str(folder / "run"), *trusted]) == 0
    assert "val/loss" in capsys.readouterr().out
    run = load_run(folder / "run", trust=TRUSTED)
    rows = [run.dataset().open("val")[number] for number in range(3)]
    inputs = {"clip": ("scan", "word")}.get(part, ("scan",))
    answers = run.predict([{name: row[name] for name in inputs} for row in rows])
    assert len(answers) == 3 and all("error" not in answer for answer in answers)
    assert main(["export", str(folder / "run"), str(folder / "published"), *trusted]) in (0, 2)
    output = capsys.readouterr()
    assert (folder / "published").exists() or "run cannot be exported: " in output.err


def assembled(file, *options):
    return assemble(load_config(file, [f"out={file.parent / 'other'}", *options]), Processes(0, 1, torch.device("cpu")),
                    Progress(1))  # fmt: skip


def test_an_open_gate_changes_nothing(folder):
    file = write_config(folder, "block")
    gated, plain = assembled(file, "model.block.open=0.9999999999999999"), assembled(file, "model.block={}")
    batch = plain.model.plan(gated.trainer.loader.load(0).micro_batches[0])
    torch.testing.assert_close(gated.model.eval()(batch)["word"], plain.model.eval()(batch)["word"])


@pytest.mark.parametrize("processes", only(1, [1, 2]))
def test_a_loss_term_of_a_layer_is_a_mean_over_the_tokens_of_the_global_batch(folder, processes):
    """With one expert, the loss term of the example is the number of tokens times `balance`, so the mean loss is larger
    by `balance`, whatever the micro-batches, the padding and the number of processes."""
    first = {}
    for balance, rows in itertools.product((0.0, 0.5), (16, 5)):
        feed_forward = {"use": "experts:Experts", "count": 1, "balance": balance}
        sections = {"model": {"block": {"feed_forward": feed_forward}, "depth": 1},
                    "training": {"steps": 1, "precision": "float32", "rows_per_micro_batch": rows},
                    "evaluation": {"every": 1, "generated": 0, "sample_tokens": 0, "report": False}}  # fmt: skip
        file, out = write_config(folder, "experts", sections), folder / f"{balance}-{rows}"
        if processes == 1:
            assert main(["train", str(file), f"out={out}"]) == 0
        else:
            done = train_together(folder, processes, file, f"out={out}")
            assert done.returncode == 0, done.stderr
        first[balance, rows] = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["train/loss"]
    for rows in (16, 5):
        assert first[0.5, rows] - first[0.0, rows] == pytest.approx(0.5, abs=1e-5)
    assert first[0.5, 16] == pytest.approx(first[0.5, 5], abs=1e-5)


def first_loss(run):
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["train/loss"]


@pytest.mark.system
@pytest.mark.parametrize("part", ["experts", "lstm", "window_perceptron", "edge_bias"])
def test_a_part_of_a_core_trains_in_two_processes_in_bfloat16_compiled_and_without_an_input(folder, part):
    """The first loss of two processes is that of one process; the runs are evaluated without their input. The experts
    balance the tokens of a process, so their first loss differs by a part of `balance`."""
    tolerance = 1e-3 if part == "experts" else 1e-6
    training = {"steps": 4, "precision": "float32", "input_dropout": {"scan": 0.3}}
    sections = PARTS[part] | {"training": training, "evaluation": {"every": 2, "attribution": True}}
    file = write_config(folder, part, sections)
    assert main(["train", str(file), f"out={folder / 'one'}"]) == 0
    done = train_together(folder, 2, file, f"out={folder / 'two'}")
    assert done.returncode == 0, done.stderr
    assert first_loss(folder / "two") == pytest.approx(first_loss(folder / "one"), rel=tolerance)
    for name, option in {"half": "training.precision=bfloat16", "compiled": "training.compile=true"}.items():
        command = [sys.executable, ROOT / "train.py", file, option, f"out={folder / name}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert first_loss(folder / name) == pytest.approx(first_loss(folder / "one"), rel=0.02)
        lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        assert all(math.isfinite(value) for line in lines for value in line.values() if isinstance(value, float))
        assert any("scan" in key for line in lines for key in line if key.startswith("val/"))


@pytest.mark.system
@pytest.mark.parametrize("soft", [True, False])
def test_lstms_read_and_write_with_and_without_attention(folder, soft, capsys):
    """The decoder also writes without the input of the encoder; pages show the attention that exists."""
    model = {"block": {"use": "lstm", "soft": soft}, "attention": "causal & same_sample",
             "encoder": {"depth": 1, "context": 16}}  # fmt: skip
    tasks = {"word": {"use": "sequence_to_sequence", "target": "word"}}
    training = {"steps": 4, "input_dropout": {"scan": 0.3}}
    file = write_config(folder, "lstm", {"model": model, "tasks": tasks, "training": training})
    assert main(["train", str(file)]) == 0
    trusted = ["--trust", "modality", "--trust", "dataset"]
    assert main(["evaluate", str(folder / "run"), "--subsets", *trusted]) == 0
    assert main(["inspect", str(folder / "run"), *trusted]) == 0
    capsys.readouterr()
    animated = main(["inspect", str(folder / "run"), "--animate", "a.svg", *trusted])
    assert animated == (0 if soft else 2)
    assert soft or "--animate draws attention, and the blocks of this run have none" in capsys.readouterr().err


def test_padding_is_not_sent_to_experts(folder):
    write_config(folder, "experts")
    from experts import Experts

    torch.manual_seed(0)
    layer, x = Experts(8, count=2), torch.randn(2, 5, 8)
    sample = torch.tensor([[1, 1, 1, 0, 0], [2, 2, 2, 2, 0]])
    tokens = replace(plain_tokens(2, 5), sample=sample)
    context = AttentionContext(None, tokens=tokens, losses=[])
    output, (term,) = layer(x, context), context.losses
    alone = AttentionContext(None, tokens=plain_tokens(1, 7), losses=[])
    torch.testing.assert_close(output[sample > 0], layer(x[sample > 0][None], alone)[0])
    assert not output[sample == 0].any() and torch.equal(term, alone.losses[0])
    assert layer(x, context._replace(losses=None)).shape == x.shape


def test_every_page_is_short_and_linked():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    pages = sorted(PAGES.glob("*.py"))
    assert len(pages) == 13
    for page in pages:
        assert len(page.read_text().splitlines()) <= 40, page
        assert f"[`docs/add/{page.name}`](docs/add/{page.name})" in text


def test_a_task_of_angles(folder, capsys):
    """359 degrees are 1 degree from 0, also in the metric that is computed from all outputs."""
    sections = {"tasks": {"heading": {"use": "task:Angle", "target": "direction"}},
                "model": {"attention": "same_sample"}, "training": {"steps": 60}}  # fmt: skip
    file = write_config(folder, "modality", sections)
    tree = yaml.safe_load(file.read_text())
    tree["inputs"].pop("word")
    tree["evaluation"].pop("generated")
    file.write_text(yaml.safe_dump(tree))
    assert main(["train", str(file), "data.dataset.samples=256", "evaluation.every=30"]) == 0
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    errors = [line["val/error"] for line in lines if "val/error" in line]
    assert errors[-1] < 20
    run = load_run(folder / "run", trust=[*TRUSTED, "task"])
    row = run.dataset().open("val")[0]
    (answer,) = run.predict([{"scan": row["scan"]}])
    assert abs((answer["heading"]["degrees"] - row["direction"] + 180) % 360 - 180) < 60
    sections["tasks"] = {"heading": {"use": "regression", "target": "direction"}}
    tree["tasks"] = sections["tasks"]
    fine = folder / "fine.yaml"
    fine.write_text(yaml.safe_dump(tree | {"out": str(folder / "fine"), "training": tree["training"] | {"steps": 1}}))
    capsys.readouterr()
    assert main(["train", str(fine), f"from={folder / 'run'}"]) == 2  # the source run names the module task
    assert "add --trust task" in capsys.readouterr().err
    assert main(["train", str(fine), f"from={folder / 'run'}", "--trust", "task"]) == 0
    assert "copied" in capsys.readouterr().err
    options = [
        "training.steps=1",
        "training.input_dropout=0.5",
        "evaluation.attribution=true",
        f"out={folder / 'again'}",
    ]
    assert main(["train", str(file), *options]) == 2  # without its input a sample has no supervised target
    assert "task 'heading' has 0 targets without scan" in capsys.readouterr().err


RAGGED = """
import numpy as np
from chopmix import Listed
from dataset import Scans


class Ragged(Scans):
    def open(self, split):
        rows = []
        for number, row in enumerate(super().open(split)):
            row = {**row, "scan": row["scan"][: 8 * (1 + number % 4)]}
            missing = ["direction"] * (number % 5 == 0) + [{1: "word", 3: "scan"}.get(number % 6)]
            rows.append({name: value for name, value in row.items() if name not in missing})
        return Listed([f"{split} {number}" for number in range(len(rows))], rows)
"""


def test_the_parts_of_docs_add_accept_missing_targets_absent_inputs_and_unequal_lengths(folder, capsys):
    (folder / "ragged.py").write_text(RAGGED)
    sections = {
        "tasks": {
            "word": {"use": "language_modeling", "target": "word",
                     "metrics": {"real_word": {"use": "judge:RealWord", "words": ["north", "east"]}}},
            "heading": {"use": "task:Angle", "target": "direction"},
            "quarter": {"use": "metric:TopTwo", "target": "direction"},
        },
        "model": PARTS["block"]["model"] | {"attention": ["causal & graph:Dilated(2)", "causal"]},
        "data": {"dataset": "ragged:Ragged"},
        "training": {"optimizer": {"use": "optimizer:Lion"}, "input_dropout": {"scan": 0.3}, "steps": 12},
        "evaluation": {"also": {"norms": {"use": "evaluator:Norms", "inputs": ["scan"]}}},
        "logging": {"also": {"table": {"use": "logger:Table"}}},
    }  # fmt: skip
    assert main(["train", str(write_config(folder, "block", sections)), "data.dataset.samples=128"]) == 0
    trusted = [*TRUSTED, "ragged", "task", "metric", "judge", "evaluator", "logger"]
    run = load_run(folder / "run", trust=trusted)
    assert all(value.isfinite().all() for value in run.model.state_dict().values())
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    metrics = next(line for line in reversed(lines) if "val/loss" in line)
    assert all(
        math.isfinite(metrics[f"val/{name}"]) for name in ("heading/error", "heading/loss", "quarter/top2_accuracy")
    )
    samples = run.samples("val")
    known = [number for number in range(len(samples)) if samples[number].get("direction") is not None]
    losses = run.losses(samples)["heading"]
    supervised = losses.isfinite().nonzero().flatten().tolist()
    assert supervised == [number for number in known if {"scan", "word"} & {*samples[number]}]
    assert len(supervised) < len(samples) and losses[supervised].mean() < 2
    answers = run.predict([{"scan": samples[0]["scan"]}, {"scan": samples[1]["scan"]}, {"word": "north"}])
    assert all("degrees" in answer["heading"] and "word" in answer for answer in answers[:2]), answers


def test_a_metric_of_an_existing_task(folder):
    sections = {
        "tasks": {"direction": {"use": "metric:TopTwo", "target": "word"}}, "model": {"attention": "same_sample"},
        "checkpoints": {"best": "val/top2_accuracy"}, "training": {"steps": 60},
    }  # fmt: skip
    file = write_config(folder, "modality", sections)
    tree = yaml.safe_load(file.read_text())
    tree["inputs"].pop("word")
    file.write_text(yaml.safe_dump(tree))
    assert main(["train", str(file), "data.dataset.samples=256", "evaluation.every=60"]) == 0
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    (line,) = (line for line in lines if line["step"] == 60 and "val/accuracy" in line)
    assert 0.5 < line["val/top2_accuracy"] <= 1 and line["val/accuracy"] <= line["val/top2_accuracy"]


def test_an_evaluator_a_judge_and_a_logger(folder):
    real_word = {"use": "judge:RealWord", "words": ["north", "east", "south", "west"]}
    word = {"use": "language_modeling", "target": "word", "metrics": {"real_word": real_word}}
    sections = {
        "tasks": {"word": word},
        "evaluation": {"also": {"norms": {"use": "evaluator:Norms", "inputs": ["scan", "word"]}}},
        "checkpoints": {"best": "val/norm/scan"},
        "logging": {"also": {"table": {"use": "logger:Table", "digits": 3}}},
    }
    file = write_config(folder, "modality", sections)
    assert main(["train", str(file), "training.steps=6"]) == 0
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    (line,) = (line for line in lines if "val/norm/scan" in line)
    assert 0 <= line["val/real_word"] <= 1 and line["val/norm/word"] > 0
    with open(folder / "run" / "metrics.csv", newline="") as table:
        rows = [*csv.reader(table)]
    assert {(str(each["step"]), name) for each in lines for name in each if name not in ("step", "seconds")} == {
        (step, name) for step, name, _ in rows
    }
    wrong = yaml.safe_load(file.read_text())
    wrong["evaluation"]["also"]["norms"]["inputs"] = ["scann"]
    file.write_text(yaml.safe_dump(wrong, sort_keys=False))
    with pytest.raises(ValueError, match="norms: no input is named 'scann'; possible: scan, word"):
        assembled(file).trainer.evaluation.evaluators[1].check(assembled(file).trainer.evaluation.trained(0), print)


def test_an_exception_of_a_logger_ends_only_the_logger(folder, capsys):
    (folder / "broken.py").write_text(
        "import chopmix\n\n\nclass Broken(chopmix.Logger):\n"
        "    def on_metrics(self, step, metrics):\n        raise ConnectionError('no network')\n"
    )
    file = write_config(folder, "modality", {"logging": {"also": {"board": {"use": "broken:Broken"}}}})
    assert main(["train", str(file), "training.steps=2"]) == 0
    errors = capsys.readouterr().err
    warning = "warning: logging.also.board: Broken.on_metrics raised ConnectionError('no network'); the run continues "
    assert errors.count(f"{warning}without this logger") == 1
    sys.modules.pop("broken")


def test_a_published_architecture_gives_the_outputs_of_its_reference(folder, monkeypatch):
    transformers = pytest.importorskip("transformers")
    from chopmix.experiment.interchange import directory, import_run

    shutil.copy(PAGES / "architecture.py", folder)
    architectures = (importlib.import_module("architecture").DistilBert, *directory.architectures())
    for module in (directory, import_run):
        monkeypatch.setattr(module, "architectures", lambda: architectures)
    import_run.importers.cache_clear()
    sizes = {"vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 12}
    torch.manual_seed(0)
    theirs = transformers.DistilBertForMaskedLM(transformers.DistilBertConfig(**sizes)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs.save_pretrained(folder / "theirs")
    import_run.import_directory(folder / "theirs", folder / "run")
    import_run.importers.cache_clear()
    model = load_run(folder / "run", "last").model
    ids = torch.tensor([[5, 7, 9, 11, 6]])
    planned = SetPlan(tokens=plain_tokens(1, 5), chunks={"text": Chunks(values=ids, index=torch.arange(5))})
    batch = Batch(main=planned, targets={"mlm": Targets(values=ids.flatten())})
    with torch.no_grad():
        torch.testing.assert_close(model(model.plan(batch))["mlm"], theirs(ids).logits[0], rtol=1e-5, atol=1e-5)


CONTRACTS = {
    "returns a list of a judge": (
        {"tasks": {"word": {"use": "language_modeling", "target": "word", "metrics": {"x": "broken:Listing"}}}},
        r"tasks\.word\.metrics\.x: Listing\.judge returned a list; expected: numbers by the names of its figures, ",
    ),
    "an evaluator returns a dictionary": (
        {"evaluation": {"also": {"x": {"use": "broken:Plain"}}}},
        r"evaluation\.also: Plain\.run returned a dict; expected: a chopmix\.Result",
    ),
    "an evaluator returns a text": (
        {"evaluation": {"also": {"x": {"use": "broken:Words"}}}},
        r"evaluation\.also: Words\.run returned 'good' as 'val/x'; expected: a chopmix\.Result",
    ),
    "a block returns another shape": (
        {"model": {"block": {"use": "broken:Halves"}}},
        r"model\.block: Halves\.forward returned a tensor of shape \(\d+, \d+, 8\); expected: a tensor of shape",
    ),
    "a schedule returns None": (
        {"training": {"schedule": {"use": "broken:Nothing"}}},
        r"training\.schedule: Nothing returned None at step 0; expected: a finite number of at least",
    ),
    "a task has no head": (
        {"tasks": {"word": {"use": "broken:Headless", "target": "word"}}},
        r"tasks\.word: Headless\.head returned a Linear; expected: a chopmix\.Head",
    ),
    "a metric returns a tensor": (
        {"tasks": {"word": {"use": "broken:Tensors", "target": "word"}}},
        r"tasks\.word: the metric 'all' of Tensors returned a tensor of shape \(\); expected: a number",
    ),
}
BROKEN = """
import chopmix, torch
from chopmix.models.transformer import Block
from chopmix.tasks.language_modeling import LanguageModeling
from chopmix.training.schedules import Schedule


class Listing(chopmix.Judge):
    figures = property(lambda self: {"": chopmix.Figure("share")})

    def judge(self, generated, vocabulary):
        return [0.5]


class Plain(chopmix.Evaluator):
    def run(self, trained, say):
        return {"val/x": 1.0}


class Words(chopmix.Evaluator):
    def run(self, trained, say):
        return chopmix.Result(metrics={"val/x": "good"})


class Halves(Block):
    def forward(self, x, *others):
        return super().forward(x, *others)[..., :8]


class Nothing(Schedule):
    def __call__(self, step):
        return None


class Headless(LanguageModeling):
    def head(self, tokenizers, width):
        return torch.nn.Linear(width, 4)


class Tensors(LanguageModeling):
    @property
    def metrics(self):
        return super().metrics | {"all": chopmix.Metric("x", of_outputs=lambda output, values: output.mean())}
"""


def test_a_task_that_does_not_answer_each_sample_is_refused(folder):
    (folder / "broken.py").write_text(
        "from task import Angle\n\n\nclass Silent(Angle):\n"
        "    def answers(self, output, targets, batch):\n        return []\n"
    )
    sections = {"tasks": {"heading": {"use": "broken:Silent", "target": "direction"}},
                "model": {"attention": "same_sample"}, "training": {"steps": 1}}  # fmt: skip
    assert main(["train", str(write_config(folder, "modality", sections)), "evaluation.generated=0"]) == 0
    run = load_run(folder / "run", trust=[*TRUSTED, "task", "broken"])
    row = run.dataset().open("val")[0]
    message = r"tasks\.heading: Silent\.answers returned 0 values for 1 samples; expected: a dictionary for each sample"
    with pytest.raises(ContractError, match=message):
        run.predict([{"scan": row["scan"], "word": row["word"]}])
    sys.modules.pop("broken")


@pytest.mark.parametrize("broken", CONTRACTS)
def test_the_message_for_a_broken_contract_names_the_part(folder, broken, capsys):
    """The message has the class, the method, what it returned and what is expected."""
    sections, message = CONTRACTS[broken]
    (folder / "broken.py").write_text(BROKEN)
    file = write_config(folder, "modality", sections)
    assert main(["train", str(file), "training.steps=1"]) == 2
    assert re.search(message, capsys.readouterr().err)
    sys.modules.pop("broken")


@pytest.mark.skipif(not (ROOT / "projects" / "decision").is_dir(), reason="needs the project decision")
def test_an_environment_is_recorded_and_an_agent_is_trained(folder, capsys):
    pytest.importorskip("gymnasium")
    shutil.copy(PAGES / "environment.py", folder)
    options = ["--policy", "random", "--episodes", "40", "--out", "light"]
    assert main(["record", "environment:Light-v0", *options]) == 0
    tree = {
        "inputs": {
            "observation": {"use": "sensor", "channels": 1},
            "action": {"use": "category", "size": 2, "offset": 0.5},
        },
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 32, "attention": "causal & same_sample"},
        "tasks": {"act": {"use": "next_item", "target": "action", "at": "observation"}},
        "data": {"dataset": {"use": "episodes", "of": {"use": "folder", "path": "light"}}, "order": "seconds"},
        "training": {"steps": 2, "samples_per_step": 8},
        "out": "agent",
    }
    (folder / "a.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    assert main(["train", "a.yaml"]) == 0
    assert main(["play", "agent", "--episodes", "2", "--trust", "environment"]) == 0
    assert "return" in capsys.readouterr().out
