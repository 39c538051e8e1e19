"""Tiny valid inputs: samples of every kind, a corpus, and configurations that run on them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import soundfile
import yaml
from PIL import Image

CORPUS = {"use": "text", "train": "../data/train.txt", "val": "../data/val.txt"}
COLUMNS = ["image", "sound", "sensor", "clip", "note", "label", "number", "tags"]
FILES = ["image", "sound", "sensor", "clip"]
SAMPLES = {
    "use": "manifest",
    "train": "../data/train.jsonl",
    "val": "../data/val.jsonl",
    "columns": COLUMNS,
    "files": FILES,
}
"""Data sets that `write_data` writes, with paths relative to the folder of an input."""
WORDS = ("chop", "mix", "set", "token")


def png(number: int, side: int = 8) -> bytes:
    """A small picture."""
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def gif(number: int) -> bytes:
    """A small animation."""
    file = io.BytesIO()
    frames = [Image.open(io.BytesIO(png(number + frame))) for frame in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def wav(number: int, samples: int = 1600, rate: int = 8000) -> bytes:
    """A short sound of random noise."""
    file = io.BytesIO()
    noise = np.random.default_rng(number).normal(size=samples).astype(np.float32) * 0.1
    soundfile.write(file, noise, rate, format="WAV")
    return file.getvalue()


def npy(number: int) -> bytes:
    """Three random measurements of two channels."""
    file = io.BytesIO()
    np.save(file, np.random.default_rng(number).normal(size=(3, 2)).astype(np.float32))
    return file.getvalue()


MAKERS = {"image": (png, "png"), "sound": (wav, "wav"), "sensor": (npy, "npy"), "clip": (gif, "gif")}


def row(number: int) -> dict[str, object]:
    """The columns of a sample; files are listed by name."""
    word = WORDS[number % len(WORDS)]
    files = {name: f"{name}-{number}.{ending}" for name, (_, ending) in MAKERS.items()}
    return {
        "key": f"s{number}",
        **files,
        "note": word,
        "label": word,
        "number": number / 4,
        "tags": [word, WORDS[number // 4 % 4]],
    }


def corpus(count: int = 120) -> str:
    """A text of some hundred letters."""
    return " ".join(np.random.default_rng(0).choice(WORDS, count).tolist())


def write_data(folder: Path, count: int = 8) -> None:
    """Write a corpus, and a manifest whose samples have a value in every column."""
    folder.mkdir()
    for number in range(count):
        for name, (make, ending) in MAKERS.items():
            (folder / f"{name}-{number}.{ending}").write_bytes(make(number))
    for split, numbers in (("train", range(count)), ("val", range(count // 2))):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row(number)) + "\n" for number in numbers))
        (folder / f"{split}.txt").write_text(corpus(120 if split == "train" else 60))


# ----------------------------------------------------------------------------------------------------------
# configurations


class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):
    """Writes YAML without anchors, which are not allowed in a configuration."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dumped(tree: Any) -> str:
    """A tree of any depth as YAML. If the tree is too deep, hypothesis draws another one."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        return yaml.dump(tree, Dumper=Dumper, sort_keys=False)
    except RecursionError:
        hypothesis.reject()
    finally:
        sys.setrecursionlimit(limit)


TEXT, IMAGE = {"use": "text", "encoding": "characters"}, {"use": "image", "patch_size": 4, "size": 8}
SOUND, SENSOR = {"use": "audio", "rate": 8000, "mels": 8, "frames": 5}, {"use": "sensor", "channels": 2}
OVER_ALL = {"width": 16, "depth": 1, "heads": 2, "context": 24}
READING, WRITING = {**OVER_ALL, "attention": "same_sample"}, {**OVER_ALL, "encoder": {"depth": 1, "context": 24}}
TOKENS, ITEMS = (
    {"steps": 4, "tokens_per_step": 48, "compile": False},
    {"steps": 4, "samples_per_step": 4, "compile": False},
)


def scene(inputs: dict, tasks: dict, model: dict, training: dict, dataset: dict = SAMPLES) -> dict:
    """A configuration that can be trained."""
    return {"inputs": inputs, "model": model, "tasks": tasks, "data": {"dataset": dataset}, "training": training,
            "evaluation": {"sample_tokens": 4}}  # fmt: skip


SCENES = {
    "lm": scene({"text": TEXT}, {"lm": {"use": "language_modeling", "target": "text"}}, OVER_ALL, TOKENS, CORPUS),
    "masked": scene({"text": TEXT}, {"mlm": {"use": "masked_modeling", "target": "text"}}, READING, TOKENS, CORPUS),
    "spans": scene(
        {"text": TEXT, "cut": {"same_as": "text"}},
        {"t5": {"use": "span_corruption", "source": "text", "target": "cut", "sentinels": 9}},
        WRITING,
        {**TOKENS, "tokens_per_step": 52},
        CORPUS,
    ),
    "sensor": scene(
        {"image": IMAGE, "sensor": SENSOR}, {"kind": {"use": "classification", "target": "label"}}, READING, ITEMS
    ),
    "estimate": scene(
        {"sound": SOUND, "image": IMAGE}, {"size": {"use": "regression", "target": "number"}}, READING, ITEMS
    ),
    "ctc": scene(
        {"sound": {**SOUND, "frames": 2}},
        {"word": {"use": "ctc", "target": "note", "source": "sound"}},
        {**READING, "context": 64},
        ITEMS,
    ),
    "patches": scene(
        {"sound": {"use": "audio_patches", "rate": 8000, "mels": 16, "patch_size": 8, "stride": 8, "longest": 0.3}},
        {"kind": {"use": "classification", "target": "tags", "several": True}},
        {**READING, "context": 80},
        ITEMS,
    ),
    "captions": scene(
        {"image": IMAGE, "note": TEXT}, {"word": {"use": "sequence_to_sequence", "target": "note"}}, WRITING, ITEMS
    ),
    "speech": scene(
        {"sound": {"use": "audio_stem", "rate": 8000, "mels": 8, "longest": 0.2, "fill": 0.2}, "note": TEXT},
        {"word": {"use": "sequence_to_sequence", "target": "note"}},
        WRITING,
        ITEMS,
    ),
    "clips": scene(
        {"clip": {"use": "video", "size": 8, "patch_size": 4, "longest": 2}, "note": TEXT},
        {"lm": {"use": "language_modeling", "target": "note", "metrics": ["exact_match"]}},
        OVER_ALL,
        ITEMS,
    ),
}
"""Configurations that together contain every tokenizer and every task."""
