"""Every code block of the README and of the pages in `docs/` runs as it is written there. Training is shortened: two
steps, narrow models, a few samples. Data sets that must be downloaded are replaced by small ones of the same format."""

import gzip
import hashlib
import io
import json
import lzma
import random
import re
import tarfile
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import transformers
import yaml
from blocks import blocks_of, compare, run_blocks, write_outputs
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.datasets import arithmetic, driving, python_stdlib, recall, tiny_shakespeare
from chopmix.data.datasets.temperatures import Temperatures
from chopmix.projects.in_context.datasets import in_context
from PIL import Image
from test_answers import TREE as IMAGES
from test_answers import pictures
from test_import_whisper import directory  # noqa: F401 (a fixture: a Whisper as transformers saves it)
from test_import_whisper import sound as tones

PAGES = {page.stem: page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
LARGER = {
    "README", "start", "text", "generation", "flow", "agents", "training", "evaluation", "data", "missing",
    "coming_from", "ancestors", "add",
}  # fmt: skip
"""Pages whose commands train several models; their tests belong to the tier `system`."""
EXACT = {"missing", "batch", "evaluation", "attention", "inspect", "start", "README"}
"""Pages whose outputs need the complete validation data of the quickstart."""

SMALL = ["training.steps=2", "evaluation.every=2", "logging.tensorboard=false", "model.depth=1"]
FEW = [*SMALL, "evaluation.generated=2", "training.samples_per_step=4"]
TEXT = [*SMALL, "training.tokens_per_step=512", "evaluation.sample_tokens=4"]
LESS = {
    "configs/quickstart.yaml": [*FEW, "data.dataset.samples=40", "model.width=16", "evaluation.attribution=false"],
    "configs/mix/vehicle.yaml": [*FEW, "model.width=16", "model.heads=2", "evaluation.attribution=false"],
    "configs/mix/driving": [*FEW, "data.dataset.samples=40", "model.width=16", "evaluation.attribution=false"],
    **{f"{name}.yaml": [*FEW, "model.width=24"] for name in ("photos", "list")},
    "configs/vision/mnist": [*FEW, "model.width=24"],
    "configs/sensor/temperatures": [*FEW, "model.width=24"],
    "configs/lm/python_stdlib.yaml": [
        *TEXT,
        "model.width=24",
        "inputs.text.encoding=bytes",
        "inputs.text.vocabulary=null",
    ],
    "configs/lm/shakespeare_char_nanogpt": [*TEXT, "model.width=16", "training.schedule=constant"],
    "configs/lm/shakespeare_char": [*TEXT, "model.width=16"],
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
    "configs/lora/": [*TEXT, "model.width=16", "training.schedule=constant"],
    "configs/ancestors/perceptron.yaml": [*TEXT, "model.width=16"],
    "configs/ancestors/lstm.yaml": [*SMALL, "model.width=24", "inputs.source.vocabulary=270", "evaluation.generated=2"],
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
    "configs/flow/digits_judge.yaml": [*FEW, "model.width=16"],
    "configs/flow/digits.yaml": [*FEW, "model.width=16", "evaluation.generated=8"],
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
    "configs/preferences/arithmetic.yaml": [
        *FEW,
        "model.width=16",
        "data.dataset.samples=40",
        "evaluation.divergence={samples: 4}",
    ],
    "runs/decision/cartpole": ["--episodes", "1"],
    "runs/in_context/linear": ["--functions", "20"],
}
"""Options that shorten a command, by the beginning of the path of its configuration or run."""


def shortened(words: list[str]) -> list[str]:
    """The command with options that shorten its training; options of the command itself have priority."""
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


@pytest.fixture
def checkout(tmp_path, monkeypatch, all_resamples):
    """A working folder like a checkout, with small data sets."""
    for name in ("configs", "benchmarks", "train.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_data(tmp_path / "data", monkeypatch)
    monkeypatch.setenv("CHOPMIX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_data(folder: Path, monkeypatch) -> None:
    """Write small files in the format of each data set, and reduce the number of files of `python_stdlib`."""
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
    play = ("\n".join("ROMEO: " + " ".join(chance.choices(words, k=7)) for _ in range(200))).encode()
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


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.system) if name in LARGER else name for name in PAGES])
def page(request) -> Path:
    return PAGES[request.param]


def test_the_blocks_of_a_page(page, checkout, request, monkeypatch):
    """The blocks run, their outputs are those of the page, and the files that they should write exist: `compare` and
    the checks in AFTER assert it."""
    BEFORE.get(page.stem, lambda folder, request: None)(checkout, request)
    if page.stem not in EXACT:
        for dataset in (arithmetic.Arithmetic, driving.Driving, in_context.InContext, recall.Recall):
            monkeypatch.setattr(dataset, "held_back", 20)
    run_blocks(blocks_of(page), shortened, compare)
    AFTER.get(page.stem, lambda folder: None)(checkout)


# -------------------------------------------------------------------------------- files that a page needs and writes


def before_answers(folder: Path, request) -> None:
    """A trained run and a folder of new images."""
    data = {"dataset": {"use": "image_folder", "train": str(pictures(folder / "photos", 12))}}
    (folder / "photos.yaml").write_text(yaml.safe_dump(IMAGES | {"data": data, "out": "runs/photos"}))
    pictures(folder / "new", 3)
    for file in [*(folder / "new").rglob("*.png")]:
        Image.open(file).save(file.with_suffix(".jpg"))
        file.unlink()
    assert main(["train", "photos.yaml"]) == 0


def before_data(folder: Path, request) -> None:
    """Folders of images and texts, a list of sounds, a log of two sensors, and a trained classifier of digits."""
    pictures(folder / "photos", 24)
    (folder / "books").mkdir()
    for number in range(3):
        (folder / "books" / f"{number}.txt").write_text(f"Chapter {number}: on the uses of tokens. " * 60)
    rows = []
    for number in range(40):
        soundfile.write(folder / f"{number}.wav", tones(0.3, seed=number), 16_000)
        rows.append(f"{number}.wav,{('high', 'low')[number % 2]},speaker {number // 2}")
    (folder / "list.csv").write_text("\n".join(["path,label,speaker", *rows, ""]))
    lines = [f"{n / 10},{n % 7},{n % 5},{('still', 'moving')[n // 300 % 2]}" for n in range(3000)]
    (folder / "log.csv").write_text("\n".join(["time,x,y,state", *lines, ""]))
    assert main(shortened(["train", "configs/vision/mnist.yaml"])) == 0


def before_readme(folder: Path, request) -> None:
    """The files that the pages on data and on text need, and temperatures of some weeks."""
    before_data(folder, request)
    before_text(folder, request)
    hours = [f"{datetime(2010, 1, 1) + timedelta(hours=n)},{40 + n % 24}" for n in range(2500)]
    (folder / "temperatures.csv").write_text("\n".join(["date,temp", *hours, ""]))
    patched = request.getfixturevalue("monkeypatch")
    patched.setattr(Temperatures, "_path", lambda self, name: folder / "temperatures.csv")


def after_answers(folder: Path) -> None:
    assert (folder / "merged.csv").read_text().count("\n") == 10
    assert (folder / "runs" / "photos" / "report" / "val.html").is_file()


def before_text(folder: Path, request) -> None:
    """Essays, beginnings of texts, a GPT-2 and a Whisper saved by transformers, and a recorded talk."""
    (folder / "essays" / "deep").mkdir(parents=True)
    (folder / "beginnings.txt").write_text("def read(self\n\nclass ")
    for number in range(12):
        (folder / "essays" / "deep" / f"{number}.txt").write_text(f"Essay {number}: on the uses of tokens. " * 8)
    config = transformers.GPT2Config(
        vocab_size=257, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=256, eos_token_id=256
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder / "gpt2")
    (folder / "whisper-tiny").symlink_to(request.getfixturevalue("directory")[0] / "theirs")
    soundfile.write(folder / "talk.mp3", tones(2.5), 16_000)


def after_text(folder: Path) -> None:
    assert (folder / "texts.txt").read_text().count("\n") == 3
    assert {path.suffix for path in folder.glob("**/talk.*")} == {".mp3", ".srt", ".json"}


def after_generation(folder: Path) -> None:
    names = {path.name for path in folder.glob("*.*")}
    assert names >= {*(f"seven-{n}.png" for n in (1, 2, 3)), "two.png", "two.gif", "chorale.mid"}
    assert (folder / "runs" / "generate" / "digits" / "report" / "test-samples.html").exists()


def after_agents(folder: Path) -> None:
    assert (folder / "pole.gif").read_bytes().startswith(b"GIF")
    assert json.loads((folder / "recorded" / "cartpole" / "episodes.json").read_text())["episodes"] == 300
    rows = (folder / "runs" / "in_context" / "linear" / "in_context.csv").read_text().splitlines()
    assert rows[0].startswith("where,examples,functions,model,model se,least squares,") and len(rows) > 1 + 3 * 16


def after_transfer(folder: Path) -> None:
    assert json.loads((folder / "runs" / "mix" / "driving" / "summary.json").read_text())["step"] == 2


BEFORE = {"README": before_readme, "answers": before_answers, "text": before_text, "data": before_data}
AFTER = {
    "answers": after_answers, "text": after_text, "generation": after_generation, "agents": after_agents,
    "transfer": after_transfer,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- the pages themselves


def test_every_data_set_is_on_the_page_of_licences():
    user_formats = {"text", "parallel_text", "webdataset", "image_folder", "manifest", "mixture", "idx", "table"}
    names = {file.stem for file in (ROOT / "data" / "datasets").glob("*.py")} - user_formats
    listed = set(re.findall(r"`(\w+)`", PAGES["licences"].read_text()))
    assert len(names) >= 22 and names <= listed


@pytest.mark.parametrize(
    "block, message",
    [
        ("```python\nx = 1\n\nx.y\n```\n", "page.md:6: AttributeError"),
        ("```python\ndef broken(:\n```\n", "page.md:4: SyntaxError"),
        ("```console\nuv run chopmix explain heads\nchopmix predict nowhere\n```\n", "page.md:5: chopmix predict"),
        ("```console\nrm -r x\n```\n", "page.md:4: rm -r x: this program"),
        ("```yaml\nmodel: {widht: 3}\n```\n", "page.md:4: model has no key widht"),
        ("```yaml\nmodel: {width: 3\n```\n", "page.md:4"),
        ("```python\nprint('one 2')\n```\n<!-- output -->\n```text\none 3\n```\n", "page.md:8: line 1"),
        ("```python\nprint('one')\n```\n<!-- output -->\n```text\none\ntwo\n```\n", "page.md:8: the output has 1"),
        ("```python\nprint(1)\n", "page.md:3: the block has no end"),
    ],
)  # fmt: skip
def test_a_block_that_fails_is_named_with_page_and_line(block, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{block}")
    with pytest.raises(AssertionError, match=re.escape(message)):
        run_blocks(blocks_of(page), shortened, compare)


def test_outputs_are_written_into_a_page_again(tmp_path, monkeypatch):
    """The real outputs may be longer or shorter; nothing else in the page changes."""
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    output = "\n<!-- output -->\n```text\n{}```\n"
    text = f"```python\nprint('a')\nprint('b')\n```\n{output}end\n```python\nprint(3)\n```\n{output}"
    page.write_text(text.format("old\n", "1\n2\n"))
    write_outputs(page)
    assert page.read_text() == text.format("a\nb\n", "3\n")
    run_blocks(blocks_of(page), shortened, compare)
