"""Golden runs: a refactor must leave losses, gradients and weights as they are, to the bit on a machine whose values
are kept (processor, instruction set, torch), to rounding on any other. To change the arithmetic, or to add the values
of another machine from a commit that is known to be right:

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
    """What a run of a kind comes to: every figure of its log, the gradients of its first step, its last weights."""
    file = out.with_suffix(".yaml")
    tree = experiment(kind, data, out)
    file.write_text(json.dumps(tree | {"data": tree["data"] | {"workers": workers}}))
    config = load_config(file)
    prepare_run(config, config.out)
    made = assemble(config, Processes.start(), Progress(4, stream=io.StringIO()))
    model, optimizer = made.model, made.trainer.learner.optimizer
    first = {name_of_before(name): digest(p) for name, p in model.named_parameters()}
    gradients, step = {}, optimizer.step

    def noted(*arguments: Any) -> None:
        if not gradients:
            named = [(name_of_before(name), p.grad) for name, p in model.named_parameters() if p.grad is not None]
            gradients.update({name: [float(grad.norm()), digest(grad)] for name, grad in named})
        step(*arguments)

    optimizer.step = noted
    fit(made)
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


def numbers(found: dict[str, Any]) -> dict[str, float]:
    """The figures and the sizes of the gradients, each by its place."""
    named = {f"{n} {name}": value for n, line in enumerate(found["figures"]) for name, value in line.items()}
    return named | {name: size for name, (size, _) in found["gradients"].items()}


def known(found: dict[str, float], kept: dict[str, float]) -> dict[str, float]:
    """The figures that are kept: a metric that is newer than the file is not compared."""
    return {name: found.get(name) for name in found if name in kept}


@pytest.mark.parametrize("kind", KINDS)
def test_runs_are_those_of_before(kind, data, tmp_path, request, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("chopmix.training.optimizers.fast_half", lambda device: False)  # the same on every CPU
    found = golden_run(kind, data, tmp_path / kind)
    machine = f"{processor()}, torch {torch.__version__}"
    kept = json.loads(FILE.read_text())
    if request.config.getoption("--rewrite-golden"):
        kept[kind] = kept.get(kind, {}) | {machine: found}
        FILE.write_text(written(kept))
    if machine in kept[kind]:
        figures = [known(*lines) for lines in zip(found["figures"], kept[kind][machine]["figures"], strict=True)]
        assert found | {"figures": figures} == kept[kind][machine]
    for expected in kept[kind].values():
        assert known(numbers(found), numbers(expected)) == pytest.approx(numbers(expected), rel=1e-3, abs=1e-6)


@pytest.mark.system
@pytest.mark.parametrize("kind", KINDS)
def test_workers_change_no_run(kind, data, tmp_path, monkeypatch):
    """Two worker processes read, chop and plan all batches."""
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    assert golden_run(kind, data, tmp_path / "2", workers=2) == golden_run(kind, data, tmp_path / "0")


def written(kept: dict[str, dict[str, Any]]) -> str:
    """All runs as JSON, one a line: `{kind: {machine: run}}`."""
    kinds = (
        f"{json.dumps(kind)}: {{"
        + ",\n".join(f"{json.dumps(where)}: {json.dumps(run)}" for where, run in runs.items())
        + "}"
        for kind, runs in kept.items()
    )
    return "{" + ",\n".join(kinds) + "}\n"


def test_every_kind_is_kept():
    assert set(json.loads(FILE.read_text())) == set(KINDS)


if __name__ == "__main__":
    sys.exit(subprocess.call([sys.executable, "-m", "pytest", __file__, "--rewrite-golden"]))
