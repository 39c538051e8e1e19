"""Golden runs: a refactoring must not change losses, gradients and weights. They are compared bit for bit on a machine
whose values are stored (processor, instruction set, torch), and up to rounding on any other. To change the arithmetic,
or to add the values of another machine from a commit that is known to be correct:

    python tests/training/test_golden.py
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkout import BENCHMARKS, TESTS
from chopmix.data.processes import Processes
from chopmix.experiment.assemble import assemble
from chopmix.experiment.run_folder import prepare_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import fit
from chopmix.training.progress import Progress

sys.path += [str(TESTS / "golden"), str(BENCHMARKS)]
from golden_values import digest, name_of_before
from kinds import KINDS, experiment, write_data
from results import processor

FILE = TESTS / "golden" / "runs.json"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    write_data(folder)
    return folder


def golden_run(kind: str, data: Path, out: Path, workers: int = 0) -> dict[str, Any]:
    """The results of a run of a kind: all figures of its log, the gradients of its first step, its last weights."""
    file = out.with_suffix(".yaml")
    tree = experiment(kind, data, out)
    file.write_text(json.dumps(tree | {"data": tree["data"] | {"workers": workers}}))
    config = load_config(file)
    prepare_run(config, config.out)
    assembled = assemble(config, Processes.start(), Progress(4, stream=io.StringIO()))
    model, optimizer = assembled.model, assembled.trainer.learner.optimizer
    first = {name_of_before(name): digest(p) for name, p in model.named_parameters()}
    gradients, step = {}, optimizer.step

    def record_gradients(*arguments: Any) -> None:
        if not gradients:
            named = [(name_of_before(name), p.grad) for name, p in model.named_parameters() if p.grad is not None]
            gradients.update({name: [float(grad.norm()), digest(grad)] for name, grad in named})
        step(*arguments)

    optimizer.step = record_gradients
    fit(assembled)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    figures = [
        {name: value for name, value in line.items() if name == "train/loss" or name.startswith("val/")}
        for line in lines
    ]
    weights = {name_of_before(name): digest(p) for name, p in model.named_parameters()}
    return {"figures": figures, "gradients": gradients, "first": together(first), "last": together(weights)}


def together(digests: dict[str, str]) -> str:
    """One digest of many, in the order of their names."""
    return digest(torch.frombuffer(bytearray(json.dumps(digests, sort_keys=True).encode()), dtype=torch.uint8))


def numbers(run: dict[str, Any]) -> dict[str, float]:
    """The figures and the norms of the gradients, by name."""
    named = {f"{n} {name}": value for n, line in enumerate(run["figures"]) for name, value in line.items()}
    return named | {name: size for name, (size, _) in run["gradients"].items()}


def known(figures: dict[str, float], stored: dict[str, float]) -> dict[str, float]:
    """The figures that are also stored: a metric that is newer than the file is not compared."""
    return {name: figures.get(name) for name in figures if name in stored}


@pytest.mark.parametrize("kind", KINDS)
def test_runs_equal_the_stored_ones(kind, data, tmp_path, request, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("chopmix.training.optimizers.fast_half", lambda device: False)  # the same on every CPU
    run = golden_run(kind, data, tmp_path / kind)
    machine = f"{processor()}, torch {torch.__version__}"
    stored = json.loads(FILE.read_text())
    if request.config.getoption("--rewrite-golden"):
        stored[kind] = stored.get(kind, {}) | {machine: run}
        FILE.write_text(as_json(stored))
    if machine in stored[kind]:
        figures = [known(*lines) for lines in zip(run["figures"], stored[kind][machine]["figures"], strict=True)]
        assert run | {"figures": figures} == stored[kind][machine]
    for expected in stored[kind].values():
        assert known(numbers(run), numbers(expected)) == pytest.approx(numbers(expected), rel=1e-3, abs=1e-6)


@pytest.mark.system
@pytest.mark.parametrize("kind", KINDS)
def test_workers_do_not_change_a_run(kind, data, tmp_path, monkeypatch):
    """Two worker processes read, chop and plan all batches."""
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    assert golden_run(kind, data, tmp_path / "2", workers=2) == golden_run(kind, data, tmp_path / "0")


def as_json(stored: dict[str, dict[str, Any]]) -> str:
    """All runs as JSON, one a line: `{kind: {machine: run}}`."""
    kinds = (
        f"{json.dumps(kind)}: {{"
        + ",\n".join(f"{json.dumps(where)}: {json.dumps(run)}" for where, run in runs.items())
        + "}"
        for kind, runs in stored.items()
    )
    return "{" + ",\n".join(kinds) + "}\n"


def test_every_kind_is_stored():
    assert set(json.loads(FILE.read_text())) == set(KINDS)


if __name__ == "__main__":
    sys.exit(subprocess.call([sys.executable, "-m", "pytest", __file__, "--rewrite-golden"]))
