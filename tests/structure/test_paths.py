"""How many files of chopmix a command enters, and how often it goes from one package to another.

The aims are 55 files and 60 moves up to the first step, 32 and 25 for a loaded run; the tests contain the present
values. A change that adds a stage may raise a target, in a commit that gives the reason."""

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


@pytest.fixture
def quickstart(tmp_path):
    few = ["training.steps=1", "training.samples_per_step=4", "data.dataset.samples=64", f"out={tmp_path / 'run'}"]
    return load_config(ROOT / "configs" / "quickstart.yaml", few)


def within(paths, files, moves):
    """At most the target, and not far below it: a target that is far too large must be lowered."""
    return files - 5 <= len(paths.files) <= files and moves - 8 <= len(paths.moves) <= moves


def test_files_and_moves_up_to_the_first_step(quickstart):
    paths = entered(lambda: train(quickstart), until="Trainer.fit")
    assert within(paths, files=77, moves=100), (len(paths.files), len(paths.moves))


def test_files_and_moves_of_loading_a_run(tmp_path):
    (tmp_path / "a.yaml").write_text(GENERATES)
    train(load_config(tmp_path / "a.yaml", [f"out={tmp_path / 'run'}"]))
    paths = entered(lambda: load_run(tmp_path / "run"))
    assert within(paths, files=40, moves=38), (len(paths.files), len(paths.moves))


def test_tasks_and_data_sets_are_constructed_once(tmp_path):
    file, few = ROOT / "configs" / "quickstart.yaml", ["training.steps=1", "data.dataset.samples=64"]
    paths = entered(lambda: train(load_config(file, [*few, f"out={tmp_path / 'run'}"])), until="Trainer.fit")
    assert paths.calls["LanguageModeling.__init__"] == 1 and paths.calls["Arithmetic.__init__"] == 1
