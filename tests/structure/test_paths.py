"""The number of files and lines that a reader meets in a command. The limits may rise only with a line in the log of
the benchmarks that gives the reason."""

import os
import subprocess
import sys

import pytest
from checkout import ROOT
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from paths import entered

GENERATES = """
inputs:
  words: {use: text, encoding: characters}
  image: {use: image_ids, size: 8, patch_size: 2}
model: {width: 16, depth: 1, heads: 1, context: 64, attention: causal & same_sample, initialization: zero_projections}
tasks: {picture: {use: language_modeling, target: image, head: unembedding}}
data: {dataset: digits, columns: {words: label}}
training: {steps: 1, samples_per_step: 4}
evaluation: {generated: 0, sample_tokens: 0}
"""

GPT = """
inputs: {text: {use: text, encoding: characters}}
model: {width: 16, depth: 1, heads: 2, context: 16}
tasks: {lm: {use: language_modeling, target: text, head: unembedding}}
data: {dataset: {use: text, train: train.txt, val: val.txt}, workers: 0}
training: {steps: 2, tokens_per_step: 64, precision: float32}
evaluation: {report: false}
out: run
"""

LINES = {"train": 4_890, "predict": 3_160, "generate": 2_510}
"""The largest number of lines of the functions that a command enters, without docstrings and blank lines: two steps of
a GPT, `predict quickstart --input operator=+`, and `generate` with this GPT."""


@pytest.fixture
def quickstart(tmp_path):
    few = ["training.steps=1", "training.samples_per_step=4", "data.dataset.samples=64", f"out={tmp_path / 'run'}"]
    return load_config(ROOT / "configs" / "quickstart.yaml", few)


def within(count: int, limit: int, room: int = 5) -> bool:
    """Return whether a count is within a limit, and not far below it: such a limit must be lowered."""
    return limit - room <= count <= limit


def test_files_up_to_the_first_step(quickstart):
    count = len(entered(lambda: train(quickstart), until="Trainer.fit").functions)
    assert within(count, 79), count


def test_files_of_a_loaded_run(tmp_path):
    (tmp_path / "a.yaml").write_text(GENERATES)
    train(load_config(tmp_path / "a.yaml", [f"out={tmp_path / 'run'}"]))
    count = len(entered(lambda: load_run(tmp_path / "run")).functions)
    assert within(count, 41), count


def test_tasks_and_data_sets_are_constructed_once(tmp_path):
    file, few = ROOT / "configs" / "quickstart.yaml", ["training.steps=1", "data.dataset.samples=64"]
    paths = entered(lambda: train(load_config(file, [*few, f"out={tmp_path / 'run'}"])), until="Trainer.fit")
    assert paths.calls["LanguageModeling.__init__"] == 1 and paths.calls["Arithmetic.__init__"] == 1


def lines_entered(folder, *words: str) -> int:
    """Return the number of lines of the functions that a command enters, in a new process."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "CHOPMIX_CACHE": str(folder / "cache")}
    command = [sys.executable, str(ROOT / "tests" / "structure" / "paths.py"), *words]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    *_, (word, count) = (line.split() for line in ended.stdout.splitlines() if line.startswith("lines "))
    assert word == "lines", ended.stderr
    return int(count)


@pytest.mark.system
def test_lines_of_the_functions_that_a_command_enters(tmp_path):
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text("to be or not to be, that is the question. " * 20)
    (tmp_path / "gpt.yaml").write_text(GPT)
    counts = {
        "train": lines_entered(tmp_path, "train", "gpt.yaml"),
        "predict": lines_entered(tmp_path, "predict", "quickstart", "--input", "operator=+"),
        "generate": lines_entered(tmp_path, "generate", "run", "--prompt", "to", "--seed", "0", "--max-tokens", "8"),
    }
    assert all(within(count, LINES[name], room=40) for name, count in counts.items()), counts


def test_every_limit_of_lines_has_a_reason_in_the_log():
    log = (ROOT / "benchmarks" / "LOG.md").read_text()
    assert all(f"lines entered by `{name}`: at most {limit:,}" in log for name, limit in LINES.items())
