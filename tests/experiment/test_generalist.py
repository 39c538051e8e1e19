"""The generalist `five.yaml`, which also plays a game, is trained with small sizes on replacements of its data."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from chopmix.commands.cli import main
from chopmix.experiment.run import load_run
from PIL import Image

pytest.importorskip("gymnasium")

FIVE = Path(__file__).parents[2] / "configs" / "generalist" / "five.yaml"
SMALL = ("model.width=24", "model.depth=1", "training.minutes=null", "training.steps=3", "training.samples_per_step=8",
         "evaluation.every=3", "evaluation.generated=2", "evaluation.play={targets: [20], episodes: 2}",
         *(f"inputs.{name}={{use: text, encoding: bytes, position: null}}" for name in ("english", "german", "text")),
         "model.context=640", "evaluation.rows=16",
         "data.dataset.of.cartpole.of.episodes=12", "logging.tensorboard=false")  # fmt: skip


def replaced_data(folder):
    """Overrides with pictures, tones, sentences and code instead of MNIST, FSDD, Multi30k and Python's library."""
    random, rows, tones = np.random.default_rng(0), [], []
    for number in range(40):
        picture, sound = folder / f"{number}.png", folder / f"{number}.wav"
        Image.fromarray(random.integers(256, size=(28, 28), dtype=np.uint8)).save(picture)
        soundfile.write(sound, 0.1 * np.sin(np.arange(2000) * (0.1 + 0.02 * (number % 10))), 8000)
        rows.append(f'{{"image": "{picture}", "label": {number % 10}}}\n')
        tones.append(f'{{"sound": "{sound}", "label": {number % 10}}}\n')
    of = {}
    for name, lines in (("image", rows), ("sound", tones)):
        (folder / f"{name}.jsonl").write_text("".join(lines))
        of[name] = f"{{use: manifest, train: {folder / name}.jsonl, columns: [{name}, label]}}"
    for split, lines in (("train", 40), ("val", 4)):
        for language in ("en", "de"):
            sentences = [f"{language} {split} a man sees {n} birds .\n" for n in range(lines)]
            (folder / f"{split}.{language}").write_text("".join(sentences))
    pairs = ", ".join(f"{split}: {{en: {folder / split}.en, de: {folder / split}.de}}" for split in ("train", "val"))
    (folder / "code.txt").write_text("".join(f"def add_{n}(a, b): return a + b\n" for n in range(200)))
    return [f"data.dataset.of.mnist={of['image']}", f"data.dataset.of.fsdd={of['sound']}",
            f"data.dataset.of.captions={{use: parallel_text, {pairs}}}",
            f"data.dataset.of.python={{use: text, train: {folder / 'code.txt'}}}"]  # fmt: skip


@pytest.mark.system
def test_one_set_of_weights_learns_five_tasks_and_plays(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    assert not main(["train", str(FIVE), *SMALL, *replaced_data(tmp_path), f"out={tmp_path / 'five'}"])
    output = "".join(capsys.readouterr())
    for figure in ("digit/accuracy", "spoken/accuracy", "german/loss", "python/loss", "act/accuracy", "return_at_20"):
        assert f"val/{figure}" in output
    assert not main(["play", str(tmp_path / "five"), "--target", "30", "--episodes", "2", "--temperature", "0.5"])
    assert "target return" in capsys.readouterr().out
    run = load_run(tmp_path / "five")
    assert {*run.tasks} == {"digit", "spoken", "german", "python", "act"} and len(run.choppers) == 8
