"""Sound works if torchaudio cannot be imported, for example because it was built for another torch. A separate process,
in which every import of torchaudio fails and is recorded, trains and predicts."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import yaml
from checkout import ROOT
from chopmix.data.datasets.speech_commands import SpeechCommands
from chopmix.files.reading import DataError

RATE = 11_025
SOUND = {"rate": 8000, "mels": 16}
RUNS = {
    "audio": (SOUND | {"use": "audio", "position": None, "augment_wave": {"speed": 0.1},
                       "augment": {"use": "spectrogram_augmentation", "mels": 4, "frames": 4, "warp": 0.1}},
              {"use": "ctc", "target": "text", "source": "sound", "metrics": ["wer"]}),
    "audio_patches": (SOUND | {"use": "audio_patches", "patch_size": 8, "stride": 8},
                      {"use": "classification", "target": "text"}),
    "audio_stem": (SOUND | {"use": "audio_stem", "longest": 0.5, "fill": 0.5},
                   {"use": "classification", "target": "text"}),
}  # fmt: skip
"""A tiny run for each tokenizer of spectrograms: its input and its task. The sounds are resampled for all of them."""

CODE = """
import json, sys

class Refused:
    tried = []

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchaudio":
            self.tried.append(name)
            raise ImportError(f"no {name} here")

sys.meta_path.insert(0, Refused())
import torch, chopmix
from chopmix.tokenizers.audio import AudioChopper

torch.set_num_threads(1)
folder, *names = sys.argv[1:]
results = {"losses": {}, "answers": {}}
for name in names:
    results["losses"][name] = chopmix.train(f"{folder}/{name}.yaml")["val/loss"]
    results["answers"][name] = chopmix.load(f"{folder}/{name}").predict([{"sound": f"{folder}/0.wav"}])[0]
chopper = AudioChopper(rate=8000, longest=0.2, fill=True)
chunk = chopper.chop(chopper.decode(f"{folder}/0.wav"))
back = chopper.joined(torch.zeros(chunk.count, chopper.slice_shape[1]))
results["loudest"] = float(back.abs().max())
print(json.dumps(results | {"tried": Refused.tried}))
"""


@pytest.fixture(scope="module")
def without(tmp_path_factory) -> dict:
    """The results of a process that trains, evaluates, predicts and turns a spectrogram back into a sound."""
    folder = tmp_path_factory.mktemp("sounds")
    texts = ["ab", "b", "a b", "ab"]
    for number in range(len(texts)):
        wave = np.random.default_rng(number).standard_normal(round(0.4 * RATE)).astype(np.float32) / 10
        soundfile.write(folder / f"{number}.wav", wave, RATE)
    lines = [json.dumps({"sound": f"{number}.wav", "text": text}) for number, text in enumerate(texts)]
    (folder / "all.jsonl").write_text("\n".join(lines))
    files = {split: str(folder / "all.jsonl") for split in ("train", "val")}
    for name, (sound, task) in RUNS.items():
        tree = {
            "inputs": {"sound": sound},
            "tasks": {"answer": task},
            "model": {"width": 8, "depth": 1, "heads": 2, "context": 64, "attention": "same_sample"},
            "data": {"dataset": {"use": "manifest", **files, "columns": ["sound", "text"], "files": ["sound"]}},
            "training": {"steps": 1, "samples_per_step": 2, "learning_rate": 1e-3},
            "logging": {"tensorboard": False},
            "out": str(folder / name),
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-c", CODE, str(folder), *RUNS]
    environment = os.environ | {"CHOPMIX_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.system
def test_sounds_are_read_resampled_used_for_training_and_answered(without):
    assert without["losses"].keys() == without["answers"].keys() == RUNS.keys()
    assert all(0 < loss < 20 for loss in without["losses"].values())
    assert without["answers"]["audio"]["answer"].keys() == {"text", "words"}  # words: the symbols were aligned
    assert without["loudest"] == pytest.approx(0.9, abs=1e-5)


def test_torchaudio_is_not_imported_for_a_sound(without):
    assert without["tried"] == []


def test_every_tokenizer_of_spectrograms_is_trained():
    assert sorted(file.stem for file in (ROOT / "tokenizers").glob("audio*.py")) == sorted(RUNS)


def test_the_error_of_a_download_names_torchaudio(tmp_path, monkeypatch):
    monkeypatch.setenv("CHOPMIX_DATA", str(tmp_path))
    monkeypatch.setitem(sys.modules, "torchaudio.datasets", None)  # importing it fails
    with pytest.raises(DataError, match=r"v0\.02 is missing and torchaudio cannot download it: import of torchaudio"):
        SpeechCommands(download=True).open("train")
