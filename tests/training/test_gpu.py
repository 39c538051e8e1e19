"""Tests that need a GPU: every kernel with its backward pass, training compared with a CPU, compilation, evaluation,
generation, resuming, and NCCL.

    CHOPMIX_TEST_DEVICE=cuda pytest tests/training/test_gpu.py      # on a machine with a GPU; with `cpu`, to check
    that the tests themselves are correct

All other tests run without a GPU (`tests/harness.py`): they compare bit for bit, which CUDA does not guarantee.
"""

from __future__ import annotations

import os
import subprocess
import sys

import jaxtyping
import pytest
import torch
from checkout import BENCHMARKS, TESTS
from chopmix.data.processes import Processes
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import fit
from test_training import losses, torchrun, trainer

sys.path.append(str(BENCHMARKS))
import gpu_kernels
import stand_in
from gpu_parts import bench as bench_parts
from gpu_parts import fast, sound

DEVICE = torch.device(os.environ.get("CHOPMIX_TEST_DEVICE") or "meta")
pytestmark = [
    pytest.mark.skipif(DEVICE.type == "meta", reason="needs a GPU, and CHOPMIX_TEST_DEVICE=cuda"),
    pytest.mark.filterwarnings("default"),  # on GPUs torch warns about many things
]
ON_CUDA = {
    "causal": "Plain", "full": "Plain", "packed": "VariableLength", "padded, full": "VariableLength",
    "packed, narrow heads": "VariableLength", "a graph": "Flex", "a window": "Flex", "T5's bias": "Dense",
    "crossing": "Plain and Plain", "crossing to padded rows": "VariableLength and Dense",
}  # fmt: skip
"""The expected layouts of some kinds of attention in bfloat16."""


@pytest.fixture(autouse=True)
def unchecked():
    """Annotations are not checked, so that torch.compile can look into functions."""
    jaxtyping.config.update("jaxtyping_disable", True)
    torch._dynamo.reset()
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
    torch._dynamo.reset()


def bench() -> bench_parts.Bench:
    return bench_parts.Bench(DEVICE, small=True)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", gpu_kernels.WAYS)
def test_every_kind_of_attention_equals_that_of_a_cpu(way, precision):
    """Grouped heads, norms of queries and keys, biases, narrow and wide heads included; autocast in bfloat16."""
    row = gpu_kernels.compared(gpu_kernels.WAYS[way], 150, DEVICE, precision)
    assert row["verdict"] == "fine"
    if DEVICE.type == "cuda" and precision == "bfloat16":
        assert row["layout"] == ON_CUDA.get(way, row["layout"])


def test_ctc_equals_that_of_a_cpu():
    assert gpu_kernels.ctc_compared(100, DEVICE)["verdict"] == "fine"


@pytest.mark.parametrize("name", bench_parts.MIXES)
def test_the_losses_are_those_of_a_cpu(name):
    """AdamW and Muon; texts, images, sounds; encoders with decoders; CTC."""
    assert sound.losses_compared(bench(), name)["verdict"] == "fine"


@pytest.mark.parametrize("name", bench_parts.MIXES)
def test_nothing_waits_between_two_logs(name):
    assert sound.waits_of(bench(), name)["verdict"] == "fine"


@pytest.mark.parametrize("name", ["quickstart", "lm/shakespeare_char", "speech/digit_strings_ctc", "t5/books"])
def test_losses_are_the_same_if_compiled(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    values = []
    for compiled in (False, True):
        config = load_config(bench_parts.file_of(name, tmp_path))
        overrides = [*stand_in.small(config), *stand_in.without_chance(config), "training.precision=float32"]
        assembled = bench().trainer(name, overrides, tmp_path / str(compiled), compiled=compiled)
        values.append([float(sound.update_at(assembled, step)) for step in range(3)])
    assert values[1] == pytest.approx(values[0], rel=2e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_resumes_evaluates_and_generates(tiny, precision):
    """Not bit for bit: the threads of a GPU add in any order."""
    options = {"training": {"device": DEVICE.type, "precision": precision}}
    once = trainer(tiny("once", **options))
    metrics = fit(once)
    file = tiny("twice", **options)
    fit(trainer(file, stop=6))
    fit(trainer(file))
    assert losses(load_config(file).out) == pytest.approx(losses(once.folder), rel=2e-2)
    run = load_run(once.folder, device=DEVICE.type)
    assert next(run.model.parameters()).device.type == DEVICE.type
    assert run.evaluate("val")["val/loss"] == pytest.approx(metrics["val/loss"], rel=1e-3)
    on_cpu = load_run(once.folder, device="cpu").evaluate("val")
    assert on_cpu["val/loss"] == pytest.approx(metrics["val/loss"], rel=2e-2)
    text = run.generate("chop ", max_tokens=30, temperature=0)
    assert len(text) > 0 and text == run.generate("chop ", max_tokens=30, temperature=0)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_texts_are_generated(rows, precision):
    assert fast.generation_of(bench(), rows, precision)["tokens_per_second"] > 0


@pytest.mark.parametrize("count", [1, 2])
def test_several_processes_over_nccl(tiny, count):
    """One GPU each."""
    if DEVICE.type == "cuda" and torch.cuda.device_count() < count:
        raise pytest.skip.Exception(f"needs {count} GPUs")
    alone = trainer(tiny("alone", training={"device": DEVICE.type, "precision": "float32"}))
    fit(alone)
    file = tiny("several", training={"device": DEVICE.type, "precision": "float32"})
    process = torchrun(count, file)
    assert process.returncode == 0, process.stderr
    assert losses(load_config(file).out) == pytest.approx(losses(alone.folder), rel=1e-3)


def test_the_process_sees_the_gpu():
    if DEVICE.type == "cuda":
        assert Processes.start().device.type == "cuda"
        environment = {name: value for name, value in os.environ.items() if name != "CHOPMIX_TEST_DEVICE"}
        command = [sys.executable, "-c", "import harness, torch; assert not torch.cuda.is_available()"]
        subprocess.run(command, cwd=TESTS, env=environment, check=True)
