"""Low-rank adapters: what is trained and stored, that all ways to compute with them agree, and which adapters fit."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
import transformers
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.processes import Processes
from chopmix.experiment.assemble import assemble
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import resume
from chopmix.files.errors import RunError
from chopmix.training.adapters import PART, adapted_weights, merged, merged_weights
from chopmix.training.checkpoints import CheckpointError, read_part
from chopmix.training.progress import Progress
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import train_together
from safetensors.torch import load_file

YAML = """
inputs: {text: {use: text, encoding: bpe, vocabulary: 275}}
model: {width: 32, depth: 2, heads: 2, context: 16}
tasks: {lm: {use: language_modeling, target: text}}
data: {dataset: {use: text, train: FOLDER/a.txt, val: FOLDER/b.txt}}
training: {steps: 12, tokens_per_step: 128, learning_rate: 0.01, device: cpu}
evaluation: {every: 6, report: false, sample_tokens: 8}
checkpoints: {every: 4}
logging: {tensorboard: false}
"""
ADAPTERS = "training.adapters={rank: 2}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a YAML file, the run `base`, and the run `law` with adapters and averaged weights."""
    folder = tmp_path_factory.mktemp("adapters")
    (folder / "a.txt").write_text("def chop(mix):\n    return  mix\n" * 60)
    (folder / "b.txt").write_text("def mix():\n    return 12\n" * 60)
    (folder / "x.yaml").write_text(YAML.replace("FOLDER", str(folder)))
    assert trained(folder, "base") == 0 and trained(folder, "law", "training.ema=0.5", ADAPTERS, base="base") == 0
    return folder


def trained(folder, out, *words, base=None):
    words = [*words, f"out={folder / out}", *([f"from={folder / base}"] if base else [])]
    return main(["train", str(folder / "x.yaml"), *words])


def weights(run, which="last", **options):
    return load_run(run, which, **options).model.state_dict()


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def test_a_checkpoint_contains_only_the_adapters_and_the_base_does_not_change(folder):
    base, step = load_file(folder / "law" / "base.safetensors"), 12
    assert equal(base, load_run(folder / "base").model.state_dict())
    trainable = {name for part in ("up", "down") for matrix in ("query", "value") for layer in (0, 1)
                 for name in [f"cores.main.blocks.{layer}.attention.{matrix}.adapters.weight.{part}"]}  # fmt: skip
    assert {name for name in read_part(folder / "law", step, "model") if not name.endswith(".scale")} == trainable
    assert read_part(folder / "law", step, "ema").keys() == trainable
    assert {name.rpartition("/")[0] for name in read_part(folder / "law", step, "optimizer")} <= trainable
    changed = {name for name, value in weights(folder / "law").items() if not torch.equal(value, base[name])}
    assert changed == {f"cores.main.blocks.{n}.attention.{m}.weight" for n in (0, 1) for m in ("query", "value")}


def test_the_first_line_has_the_numbers_of_all_and_of_trained_parameters(folder, capsys):
    assert trained(folder, "other", "training.steps=1", ADAPTERS, base="base") == 0
    total = sum(value.numel() for value in load_run(folder / "base").model.parameters())
    line = f"{total + 4 * 2 * 64:,} parameters, of which {4 * 2 * 64:,} are trained, on cpu in float32"
    assert line in capsys.readouterr().err


def started(folder, *options):
    config = load_config(folder / "x.yaml", [f"out={folder / 'started'}", f"from={folder / 'base'}", *options])
    shutil.rmtree(folder / "started", ignore_errors=True)
    (folder / "started").mkdir()
    experiment = assemble(config, Processes.start("cpu"), Progress(1))
    resume(experiment)
    return experiment


@settings(max_examples=8, deadline=None)
@given(
    rank=st.integers(1, 40), scale=st.sampled_from([0.5, 2, 100]), seed=st.integers(0, 9),
    matrices=st.lists(
        st.sampled_from(["query", "key", "value", "out", "feed_forward", "embedding", "blocks.1", "cores"]),
        min_size=1, unique=True,
    ),
)  # fmt: skip
def test_training_evaluation_and_loaded_weights_compute_the_same(folder, rank, scale, seed, matrices):
    experiment = started(folder, f"training.adapters={{rank: {rank}, scale: {scale}, on: [{', '.join(matrices)}]}}")
    objective, model = experiment.trainer.learner.replica.objective, experiment.model
    batch = objective.ready(experiment.trainer.loader.load(0).micro_batches[0], torch.device("cpu"))
    start = objective.outputs(batch)["lm"]
    assert torch.equal(start, model(batch)["lm"])  # up is zero
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(".up"):
                value.normal_(std=0.1 / scale, generator=generator)
    base = {name: value.clone() for name, value in model.state_dict().items()}
    outputs = objective.outputs(batch)["lm"]
    assert not torch.allclose(outputs, start)
    loaded = load_run(folder / "base").model
    loaded.load_state_dict(merged_weights(model.state_dict()))
    with merged(model):
        torch.testing.assert_close(model(batch)["lm"], outputs, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(loaded.train()(batch)["lm"], outputs, atol=1e-6, rtol=1e-6)
    assert equal(base, model.state_dict())
    assert set(adapted_weights(model)) == {
        name for name, value in loaded.named_parameters()
        if value.dim() == 2 and any(f".{part}." in f".{name}" for part in matrices)
    }  # fmt: skip
    experiment.trainer.loader.__exit__()


@pytest.mark.system
def test_a_killed_run_resumes_bit_equal(folder):
    command = [sys.executable, ROOT / "train.py", folder / "x.yaml", f"out={folder / 'killed'}", ADAPTERS]
    command += [f"from={folder / 'base'}", "training.ema=0.5"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as killed:
        for line in killed.stderr:
            if line.startswith("step 6 "):
                killed.send_signal(signal.SIGKILL)
                break
    assert trained(folder, "killed", "training.ema=0.5", ADAPTERS, base="base") == 0
    assert equal(weights(folder / "killed"), weights(folder / "law"))
    assert equal(load_file(folder / "killed" / "base.safetensors"), load_file(folder / "law" / "base.safetensors"))


@pytest.mark.parametrize("word", ["checkpoints.average=2", "training.optimizer=muon", "checkpoints.best=null"])
def test_averages_other_optimizers_and_the_end_of_a_training(folder, word, capsys):
    out = word.split(".")[1].partition("=")[0]
    assert trained(folder, out, word, ADAPTERS, base="base") == 0
    printed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step 12 ")][-1]
    assert f"val/loss {load_run(folder / out).evaluate('val')['val/loss']:.4f}" in printed


def test_adapters_are_selected_when_a_run_is_loaded(folder, capsys):
    assert trained(folder, "medicine", "training.seed=3", ADAPTERS, base="base") == 0
    base, law, medicine = (weights(folder / name, "best") for name in ("base", "law", "medicine"))
    assert equal(weights(folder / "law", adapters=[]), base)
    assert equal(weights(folder / "base", "best", adapters=[folder / "law"]), law)
    assert equal(weights(folder / "law", adapters=[folder / "medicine"]), medicine)
    both = weights(folder / "medicine", adapters=[folder / "medicine", folder / "law"])
    for name, value in both.items():
        torch.testing.assert_close(value, base[name] + (law[name] - base[name]) + (medicine[name] - base[name]))
    capsys.readouterr()
    assert main(["evaluate", str(folder / "base"), "--adapters", str(folder / "law")]) == 0
    selected = capsys.readouterr().out
    assert main(["evaluate", str(folder / "law")]) == 0
    assert capsys.readouterr().out == selected
    assert main(["evaluate", str(folder / "law"), "--adapters", "none"]) == 0
    without = capsys.readouterr().out
    assert main(["evaluate", str(folder / "base")]) == 0
    assert capsys.readouterr().out == without != selected


def test_adapters_of_other_weights_are_refused(folder, tmp_path):
    assert trained(folder, "base2", "training.seed=1") == 0
    with pytest.raises(RunError, match="the adapters of .*law belong to other weights than those of .*base2"):
        load_run(folder / "base2", adapters=[folder / "law"])
    with pytest.raises(RunError, match="base2 has no adapters: it was trained without training.adapters"):
        load_run(folder / "base", adapters=[folder / "base2"])
    shutil.copytree(folder / "law", tmp_path / "law")
    shutil.copy(folder / "base2" / "checkpoints" / "step-00000012" / "model.safetensors",
                tmp_path / "law" / "base.safetensors")  # fmt: skip
    with pytest.raises(CheckpointError, match="base.safetensors does not contain the weights with which the adapters"):
        load_run(tmp_path / "law")
    (tmp_path / "law" / "base.safetensors").unlink()
    with pytest.raises(RunError, match="base.safetensors is missing. It contains the weights to which the adapters"):
        load_run(tmp_path / "law")
    words = ["training.ema=0.5", ADAPTERS, "training.steps=14", f"from={folder / 'base'}", f"out={tmp_path / 'law'}"]
    assert main(["train", str(folder / "x.yaml"), *words]) == 2


@pytest.mark.parametrize("part", ["up", "down", "scale"])
@pytest.mark.parametrize("change", ["missing", "smaller", "scalar"])
def test_damaged_adapters_are_refused(folder, part, change):
    adapters, base = read_part(folder / "law", 12, "model"), load_file(folder / "law" / "base.safetensors")
    name = next(name for name in adapters if name.endswith(part))
    if change == "missing":
        del adapters[name]
    else:
        adapters[name] = torch.ones(1) if change == "smaller" else torch.tensor(1.0 if part != "scale" else [[1.0]])
    if (part, change) == ("up", "missing"):  # its matrix keeps the value of the base
        assert not any(PART in name for name in merged_weights(base | adapters))
        return
    with pytest.raises(CheckpointError, match="does not fit the matrix"):
        merged_weights(base | adapters)


@pytest.mark.parametrize("words, message", [
    (["training.adapters={rank: 0}"], "rank must be from 1 to 65,536"),
    (["training.adapters={on: [querry]}"],
     "training.adapters.on: the model has no part 'querry'.*did you mean 'query'"),
    (["training.adapters={on: [norm]}"], "training.adapters.on: norm selects no matrix"),
    (["training.adapters={scale: .nan}"], "scale"),
    ([ADAPTERS, "tasks={other: {use: language_modeling, target: text, head: unembedding}}"],
     "has no heads.other.linear.weight of this shape, and with training.adapters it would keep its initial values; "
     "train it too: training.train_only=.heads.other."),
])  # fmt: skip
def test_wrong_settings_are_refused(folder, words, message, capsys):
    assert trained(folder, "wrong", *words, base="base") == 2
    error = capsys.readouterr().err
    assert re.search(message, " ".join(error.split())), error


def test_adapters_need_a_base(folder, capsys):
    assert trained(folder, "alone", ADAPTERS) == 2
    message = "training.adapters needs the run to whose weights the adapters are added: from=RUN"
    assert message in capsys.readouterr().err


def test_a_new_head_is_trained_beside_adapters(folder):
    words = ["tasks={other: {use: language_modeling, target: text, head: unembedding}}", "training.train_only=[heads]"]
    assert trained(folder, "head", ADAPTERS, *words, base="base") == 0
    assert "heads.other.linear.weight" in read_part(folder / "head", 12, "model")
    base, head = load_file(folder / "head" / "base.safetensors"), weights(folder / "head")
    assert not torch.equal(base["heads.other.linear.weight"], head["heads.other.linear.weight"])
    with pytest.raises(RunError, match="belong to other weights"):
        load_run(folder / "base", adapters=[folder / "head"])
    with pytest.raises(RunError, match="have both replaced heads.other.linear.weight"):
        load_run(folder / "head", adapters=[folder / "head", folder / "head"])


def test_a_run_with_adapters_is_the_start_of_another_run_and_is_exported_merged(folder, capsys):
    assert trained(folder, "next", "training.steps=1", "training.learning_rate=1e-30", base="law") == 0
    law = load_run(folder / "law").model
    torch.testing.assert_close(dict(weights(folder / "next")), dict(law.state_dict()), atol=1e-6, rtol=0)
    assert main(["export", str(folder / "law"), str(folder / "published"), "--device", "cpu"]) == 0
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / "published")
    joined = theirs.transformer.h[0].attn.c_attn.weight.detach().T
    assert torch.equal(joined[:32], law.get_parameter("cores.main.blocks.0.attention.query.weight"))


@pytest.mark.system
def test_adapters_train_in_two_processes_in_bfloat16_and_compiled(folder):
    expected = load_run(folder / "law").evaluate("val")["val/loss"]
    words = [ADAPTERS, f"from={folder / 'base'}", "training.ema=0.5"]
    done = train_together(folder, 2, folder / "x.yaml", f"out={folder / 'two'}", *words)
    assert done.returncode == 0, done.stderr
    assert load_run(folder / "two").evaluate("val")["val/loss"] == pytest.approx(expected, abs=1e-4)
    done = train_together(folder, 2, folder / "x.yaml", f"out={folder / 'two'}", *words, "training.steps=14")
    assert done.returncode == 0 and "resumed" in done.stderr, done.stderr
    for option, tolerance in (("training.precision=bfloat16", 0.02), ("training.compile=true", 1e-4)):
        out = folder / option[9:12]
        command = [sys.executable, ROOT / "train.py", folder / "x.yaml", f"out={out}", option, *words]
        done = subprocess.run(command, cwd=folder, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        assert load_run(out).evaluate("val")["val/loss"] == pytest.approx(expected, abs=tolerance)
