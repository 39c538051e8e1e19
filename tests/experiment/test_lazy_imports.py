"""Commands do not import slow libraries that a run does not use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from PIL import Image

IMAGES = """
inputs:
  image: {use: image, patch_size: 4, channels: 1, size: 8, augment: {use: image_augmentation, shift: 1}}
model: {width: 8, depth: 1, heads: 1, context: 8, attention: same_sample, core_tokens: 1}
tasks: {digit: {use: classification, target: label}}
data: {dataset: digits}
training: {steps: 2, samples_per_step: 4, precision: float32, compile: false}
evaluation: {every: 2}
logging: {tensorboard: false}
"""
CODE = """
import sys
import pytest
from chopmix.commands.cli import main

def run(*words, draws=False):
    assert main(list(words)) == 0, words
    unused = ["sympy", "torch._dynamo", "torchaudio"] + ["matplotlib"] * (not draws)
    imported = [name for name in unused if name in sys.modules]
    assert not imported, (words, imported)

text, images, folder = sys.argv[1:]
run("train", text, "training.steps=2")
run("evaluate", folder + "/runs/text")
run("generate", folder + "/runs/text", "--max-tokens", "2")
run("train", images, "out=" + folder + "/runs/images", "evaluation.report=false")
run("predict", folder + "/runs/images", "--input", "image=" + folder + "/a.png")
run("evaluate", folder + "/runs/images")
run("evaluate", folder + "/runs/images", "--report", draws=True)  # a confusion matrix
"""


@pytest.mark.system
def test_runs_of_text_or_images_import_no_compiler_plotting_or_audio_library(tiny, tmp_path):
    """Importing torch._dynamo and sympy takes a second, matplotlib and torchaudio a third of a second each."""
    training = {"steps": 2, "precision": "float32", "compile": False, "learning_rate": None, "schedule": "constant"}
    text = tiny("text", training=training | {"optimizer": "muon"}, evaluation={"every": 2})
    images = tmp_path / "images.yaml"
    images.write_text(IMAGES)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    words = [sys.executable, "-c", CODE, str(text), str(images), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
