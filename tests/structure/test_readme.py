"""Every command of the README, as it is typed there, with less of everything: two steps, narrow models, a handful of
samples.

Data sets that must be fetched are stood in for by small ones of their form.
"""

import gzip
import hashlib
import io
import json
import lzma
import random
import re
import runpy
import shlex
import subprocess
import sys
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import transformers
import yaml
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.datasets import arithmetic, driving, python_stdlib, recall, tiny_shakespeare
from chopmix.projects.in_context.datasets import in_context
from PIL import Image
from test_answers import TREE as IMAGES
from test_answers import pictures
from test_import_whisper import directory  # noqa: F401 (a fixture: a Whisper as transformers saves it)
from test_import_whisper import sound as tones

README = (ROOT / "README.md").read_text()
SECTIONS = {part.splitlines()[0]: part for part in re.split(r"^## ", README, flags=re.MULTILINE)[1:]}
OMITTED = ("pip install",)
"""What brings packages: `fresh-clone` runs it."""

SMALL = ["training.steps=2", "evaluation.every=2", "logging.tensorboard=false", "model.depth=1"]
FEW = [*SMALL, "evaluation.generated=2", "training.samples_per_step=4"]
TEXT = [*SMALL, "training.tokens_per_step=512", "evaluation.sample_tokens=4"]
LESS = {
    "configs/quickstart.yaml": [*FEW, "data.dataset.samples=40", "model.width=16", "evaluation.attribution=false"],
    "configs/mix/driving": [*FEW, "data.dataset.samples=40", "model.width=16", "evaluation.attribution=false"],
    "configs/lm/python_stdlib.yaml": [
        *TEXT,
        "model.width=24",
        "inputs.text.encoding=bytes",
        "inputs.text.vocabulary=null",
    ],
    "configs/lm/shakespeare_char.yaml": [*TEXT, "model.width=16"],
    "configs/lm/finetune_gpt2.yaml": [
        *SMALL,
        "model.width=16",
        "model.heads=2",
        "model.context=32",
        "training.tokens_per_step=64",
        "training.rows_per_micro_batch=1",
        "evaluation.rows=2",
        "evaluation.sample_tokens=4",
        "inputs.text={use: text, encoding: bytes, position: {use: learned, length: 32}}",
    ],
    "configs/translation/multi30k.yaml": [
        *SMALL,
        "model.encoder.depth=1",
        "model.width=24",
        "inputs.source.vocabulary=270",
    ],
    "configs/bert/books.yaml": [*TEXT, "model.width=16", "inputs.text.vocabulary=270"],
    "configs/bert/passages.yaml": [
        *FEW,
        "model.width=16",
        "inputs.text.vocabulary=270",
        "data.dataset.words=5",
        "data.dataset.each=2",
        "training.schedule=constant",
    ],
    "configs/t5/books.yaml": [
        *TEXT,
        "training.tokens_per_step=564",
        "model.encoder.depth=1",
        "model.width=16",
        "inputs.text.vocabulary=280",
    ],
    "configs/speech/digit_strings_ctc.yaml": [*FEW, "model.width=16", "data.dataset.samples=8"],
    **{name: [*FEW, "model.width=24"] for name in ("configs/generate/digits", "configs/diffusion/digits")},
    "configs/generate/chorales.yaml": [*SMALL, "model.width=16", "evaluation.sample_tokens=8"],
    "configs/lm/notes.yaml": [*FEW, "model.width=16", "data.dataset.samples=40"],
    "configs/decision/cartpole.yaml": [
        *FEW,
        "model.width=16",
        "data.dataset.of.episodes=20",
        "data.dataset.of.policy=random",
        "evaluation.play.episodes=1",
    ],
    "configs/decision/planning.yaml": [
        *FEW,
        "model.width=16",
        "model.heads=1",
        "data.dataset.of.episodes=20",
        "evaluation.play={episodes: 1, plan: {beams: 2, horizon: 2}}",
    ],
    "configs/decision/babyai.yaml": [
        *FEW,
        "model.width=16",
        "inputs.mission={use: text, encoding: bytes, offset: -1}",
        "data.dataset.of.episodes=20",
        "training.schedule=constant",
        "evaluation.play.episodes=1",
    ],
    "runs/decision/planning": ["--episodes", "1"],
    "configs/in_context/rules.yaml": [
        *FEW,
        "model.width=16",
        "data.dataset.samples=40",
        "training.schedule=constant",
        "evaluation.generated=2",
        "evaluation.in_context=8",
    ],
    "configs/in_context/linear.yaml": [
        *FEW,
        "model.width=16",
        "data.dataset.samples=40",
        "evaluation.in_context=8",
    ],
    "runs/decision/cartpole": ["--episodes", "1"],
    "runs/in_context/linear": ["--functions", "20"],
}
"""What shortens the training of a configuration whose path begins so."""


def commands(section: str) -> list[list[str]]:
    """The words of every command in a section's blocks for a terminal."""
    blocks = re.findall(r"```(?:console|bash)\n(.*?)```", SECTIONS[section], re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip() and not line.startswith(OMITTED)]
    return [[word for word in shlex.split(line, comments=True) if word not in ("uv", "run", "-q")] for line in lines]


def shortened(words: list[str]) -> list[str]:
    """The same command with what makes its training short; what is typed comes last, and counts."""
    for number, word in enumerate(words):
        less = next((more for begin, more in LESS.items() if word.startswith(begin)), None)
        if less is not None:
            last = {each.split("=")[0]: each for each in less}
            typed = {each.split("=")[0] for each in words[number + 1 :]}
            return [
                *words[: number + 1],
                *(each for key, each in last.items() if key not in typed),
                *words[number + 1 :],
            ]
    return words


def obey(words: list[str]) -> None:
    """Run one command; it must end well."""
    program, *rest = shortened(words)
    match program:
        case "chopmix":
            assert main(rest) == 0, words
        case "python" if rest[0] == "train.py":
            assert main(["train", *rest[1:]]) == 0, words
        case "python":
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(sys, "argv", rest)
                runpy.run_path(rest[0], run_name="__main__")
        case "torchrun":
            done = subprocess.run(
                [sys.executable, "-m", "torch.distributed.run", *rest], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
        case _:
            raise AssertionError(f"the README has a command that is not known here: {words}")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder like a checkout, to work in, and small data sets."""
    for name in ("configs", "benchmarks", "train.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_data(tmp_path / "data", monkeypatch)
    monkeypatch.setenv("CHOPMIX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_data(folder: Path, monkeypatch) -> None:
    """Data sets of the form that the datasets of these names read; of those made by rule, few samples."""
    for dataset in (arithmetic.Arithmetic, driving.Driving, in_context.InContext, recall.Recall):
        monkeypatch.setattr(dataset, "held_back", 20)
    files = python_stdlib._python_files
    monkeypatch.setattr(python_stdlib, "_python_files", lambda root: islice(files(root), 0, None, 12))
    chance, words = random.Random(0), ["two", "dogs", "run", "in", "a", "field", "night"]
    for name in ("multi30k", "books", "tiny_shakespeare", "fsdd", "mnist", "jsb_chorales"):
        (folder / name).mkdir(parents=True)
    for split in ("train", "val", "test2016"):
        for language in ("en", "de"):
            lines = [
                " ".join(chance.choices(words, k=chance.randint(2, 6))) for _ in range(40 if split == "train" else 6)
            ]
            (folder / "multi30k" / f"{split}.{language}.gz").write_bytes(
                gzip.compress("\n".join([*lines, ""]).encode())
            )
    for split, books in (("train", "AB"), ("val", "C")):
        text = "".join(f"# Title: {book}\n{' '.join(chance.choices(words, k=1500))}\n" for book in books)
        (folder / "books" / f"{split}.txt.xz").write_bytes(lzma.compress(text.encode()))
    play = ("\n".join(" ".join(chance.choices(words, k=7)) for _ in range(200))).encode()
    (folder / "tiny_shakespeare" / "input.txt").write_bytes(play)
    monkeypatch.setattr(tiny_shakespeare, "SHA256", hashlib.sha256(play).hexdigest())
    for split, numbers in (("train", range(5, 9)), ("test", range(2))):
        spoken = ((d, s, n) for d in range(10) for s in ("anna", "bert") for n in numbers)
        with tarfile.open(folder / "fsdd" / f"{split}.tar.gz", "w:gz") as tar:
            for digit, speaker, number in spoken:
                file = io.BytesIO()
                soundfile.write(file, tones(0.15, seed=digit)[::2], 8000, format="flac")
                about = {"digit": digit, "speaker": speaker, "index": number, "sample_rate": 8000}
                key = f"{digit}_{speaker}_{number}"
                add(tar, key, flac=file.getvalue(), cls=str(digit).encode(), json=json.dumps(about).encode())
        with tarfile.open(folder / "mnist" / f"{split}.tar.gz", "w:gz") as tar:
            for number in range(40):
                file = io.BytesIO()
                Image.fromarray(np.full((28, 28), number * 6, dtype=np.uint8)).save(file, "png")
                add(tar, f"{number:05}", png=file.getvalue(), cls=str(number % 10).encode())
    pieces = {split: [[[72, 67, 64, 48 + step % 5] for step in range(24)]] * 6 for split in ("train", "valid", "test")}
    (folder / "jsb_chorales" / "Jsb16thSeparated.json").write_text(json.dumps(pieces))


def add(tar: tarfile.TarFile, key: str, **contents: bytes) -> None:
    """Add one sample to a tar file, a file for each ending."""
    for ending, content in contents.items():
        member = tarfile.TarInfo(f"{key}.{ending}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def test_every_command_is_in_a_section_that_is_tried():
    tried = {
        "Quickstart",
        "Adding an input to a trained model",
        "Your own images, sounds, tables and texts",
        "Answers in files, and reports",
        "Your own text and GPT-2",
        "Encoders and encoder-decoders",
        "Generation",
        "Agents and in-context learning",
    }
    assert {name for name in SECTIONS if commands(name)} - {"Tests"} == tried
    assert sum(len(commands(name)) for name in tried) >= 30


def test_every_data_set_has_its_terms():
    own = {
        "text",
        "parallel_text",
        "webdataset",
        "image_folder",
        "manifest",
        "mixture",
        "idx",
        "table",
    }  # of whoever uses them
    names = {file.stem for file in (ROOT / "data" / "datasets").glob("*.py")} - own
    told = set(re.findall(r"`(\w+)`", SECTIONS["Data sets and their licences"]))
    assert len(names) >= 22 and names <= told


@pytest.mark.system
def test_the_quickstart_and_what_follows_it(checkout, capsys):
    """Also from Python."""
    for words in commands("Quickstart"):
        obey(words)
    assert {path.name for path in (checkout / "runs").iterdir()} == {
        "quickstart",
        "deeper",
        "silent",
        "rates",
    }
    assert (checkout / "examples" / "1" / "sound.wav").exists()
    assert np.load(checkout / "vectors.npy").ndim == 2
    (block,) = re.findall(r"```python\n(.*?)```", SECTIONS["From Python"], re.DOTALL)
    capsys.readouterr()
    exec(compile(block, "README.md", "exec"), {})
    assert "val/exact_match" in capsys.readouterr().out


def test_adding_an_input_to_a_trained_model(checkout):
    for words in commands("Adding an input to a trained model"):
        obey(words)
    assert json.loads((checkout / "runs" / "mix" / "driving" / "summary.json").read_text())["step"] == 2


def test_answers_and_reports(checkout):
    data = {"dataset": {"use": "image_folder", "train": str(pictures(checkout / "photos", 12))}}
    (checkout / "photos.yaml").write_text(yaml.safe_dump(IMAGES | {"data": data, "out": "runs/photos"}))
    pictures(checkout / "new", 3)
    for file in [*(checkout / "new").rglob("*.png")]:
        Image.open(file).save(file.with_suffix(".jpg"))
        file.unlink()
    assert main(["train", "photos.yaml"]) == 0
    for words in commands("Answers in files, and reports"):
        obey(words)
    assert (checkout / "merged.csv").read_text().count("\n") == 10
    assert (checkout / "runs" / "photos" / "report" / "val.html").is_file()


@pytest.mark.system
def test_text_of_ones_own_and_gpt2(checkout):
    (checkout / "essays" / "deep").mkdir(parents=True)
    (checkout / "beginnings.txt").write_text("def read(self\n\nclass ")
    for number in range(12):
        (checkout / "essays" / "deep" / f"{number}.txt").write_text(f"Essay {number}: on the uses of tokens. " * 8)
    made = transformers.GPT2Config(
        vocab_size=257, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=256, eos_token_id=256
    )
    transformers.GPT2LMHeadModel(made).save_pretrained(checkout / "gpt2")
    for words in commands("Your own text and GPT-2"):
        obey(words)
    assert (checkout / "texts.txt").read_text().count("\n") == 3
    runs = {str(file.parent.relative_to(checkout / "runs")) for file in (checkout / "runs").glob("**/config.yaml")}
    assert runs == {
        "lm/python_stdlib",
        "essays",
        "gpt2",
        "lm/finetune_gpt2",
        *(f"lm/shakespeare_char/seed-{n}" for n in range(3)),
    }


@pytest.mark.system
def test_encoders_and_decoders(checkout, directory):  # noqa: F811
    (checkout / "whisper-tiny").symlink_to(directory[0] / "theirs")
    soundfile.write(checkout / "talk.mp3", tones(2.5), 16_000)
    for words in commands("Encoders and encoder-decoders"):
        obey(words)
    assert {path.suffix for path in checkout.glob("**/talk.*")} == {".mp3", ".srt", ".json"}


@pytest.mark.system
def test_what_is_written_and_drawn(checkout):
    for words in commands("Generation"):
        obey(words)
    made = {path.name for path in checkout.glob("*.*")}
    assert made >= {*(f"seven-{n}.png" for n in (1, 2, 3)), "two.png", "two.gif", "chorale.mid"}
    assert (checkout / "runs" / "generate" / "digits" / "report" / "test-samples.html").exists()
    (block,) = re.findall(r"```yaml\n(.*?)```", SECTIONS["Data"], re.DOTALL)
    four = yaml.safe_load((checkout / "configs" / "generalist" / "four.yaml").read_text())
    assert yaml.safe_load(block)["data"]["dataset"].keys() <= four["data"]["dataset"].keys()


@pytest.mark.system
def test_what_acts_and_what_learns_as_it_reads(checkout):
    for words in commands("Agents and in-context learning"):
        if words[0] != "sync":
            obey(words)
    assert (checkout / "pole.gif").read_bytes().startswith(b"GIF")
    assert json.loads((checkout / "recorded" / "cartpole" / "episodes.json").read_text())["episodes"] == 300
    rows = (checkout / "runs" / "in_context" / "linear" / "in_context.csv").read_text().splitlines()
    assert rows[0].startswith("where,examples,functions,model,model se,least squares,") and len(rows) > 1 + 3 * 16
    (block,) = re.findall(r"```yaml\n(.*?)```", SECTIONS["Agents and in-context learning"], re.DOTALL)
    (checkout / "acts.yaml").write_text(block + "training: {steps: 2, samples_per_step: 4}\n")
    short = ["data.dataset.of.episodes=20", "data.dataset.of.policy=random", "evaluation.play.episodes=1"]
    assert main(["train", "acts.yaml", "out=acts", *short]) == 0
    assert "val/return_at_500" in json.loads((checkout / "acts" / "summary.json").read_text())


def test_a_modality_of_ones_own_learns(tmp_path, monkeypatch):
    """The README's file and YAML, as they stand there."""
    for language, name in (("python", "lidar.py"), ("yaml", "lidar.yaml")):
        (block,) = re.findall(rf"```{language}\n(.*?)```", SECTIONS["A modality of your own"], re.DOTALL)
        (tmp_path / name).write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["train", "lidar.yaml", "out=run", "logging.tensorboard=false"]) == 0
    assert main(["evaluate", "run", "--trust", "lidar", "--json", "figures.json"]) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["val/exact_match"] > 0.95
