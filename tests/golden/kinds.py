"""The models of the golden runs: each is a small experiment on data that this file writes.

Initial values depend only on the name and the role of a parameter (`golden_values:FirstValues`), so that a module can
be moved, merged or constructed earlier without a change of the loss.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

WORDS = ("chop", "mix", "set", "token", "the", "a")
RATE = 8000
SAMPLES = {"train": 24, "val": 8}
NEW = {"norm": "rms_norm", "query_key_norm": "rms_norm", "feed_forward": "squared_relu", "bias": False}
TEXT = {"use": "text", "encoding": "characters"}
UNPLACED = TEXT | {"position": None}
SOUND = {"rate": RATE, "longest": 0.5}
MUON = {
    "learning_rate": 0.02,
    "optimizer": {"use": "muon", "embeddings": 1.5, "heads": 0.4, "others": 0.15, "weight_decay": 0.05},
}
IMAGE = {"use": "image", "patch_size": 4, "channels": 1, "size": 8}
VIDEO = {"use": "video", "patch_size": 4, "channels": 3, "size": 8, "frames": 2, "rate": 5}

KINDS: dict[str, dict[str, Any]] = {
    "gpt": {
        "inputs": {"text": TEXT},
        "tasks": {"lm": {"use": "language_modeling", "target": "text"}},
        "model": {"attention": "causal & same_sample", "dropout": 0.1},
        "data": {"documents": "separate"},
    },
    "llama": {
        "inputs": {"text": UNPLACED},
        "tasks": {"lm": {"use": "language_modeling", "target": "text", "head": "unembedding"}},
        "model": {
            "attention": "causal & same_sample",
            "position": "rotary",
            "block": {"norm": "rms_norm", "feed_forward": "swiglu", "key_value_heads": 2, "bias": False},
        },
    },
    "recent_gpt": {
        "inputs": {"text": UNPLACED},
        "tasks": {"lm": {"use": "language_modeling", "target": "text"}},
        "model": {"attention": "causal & same_sample", "position": "rotary", "block": NEW},
        "training": MUON,
    },
    "windows": {
        "inputs": {"text": UNPLACED},
        "tasks": {"lm": {"use": "language_modeling", "target": "text"}},
        "model": {
            "attention": ["causal & same_sample & window(5)", "causal & same_sample"],
            "position": "alibi",
            "block": {"residual": "post_norm"},
        },
        "training": {"ema": 0.9, "rows_per_micro_batch": 1},
    },
    "bert": {
        "inputs": {"text": TEXT},
        "tasks": {"mlm": {"use": "masked_modeling", "target": "text"}},
        "model": {"attention": "same_sample", "block": {"residual": "post_norm"}},
    },
    "t5": {
        "inputs": {"text": UNPLACED, "spans": {"same_as": "text"}},
        "tasks": {"spans": {"use": "span_corruption", "source": "text", "target": "spans", "head": "unembedding"}},
        "model": {
            "attention": "causal & same_sample",
            "position": {"use": "relative_bias", "bidirectional": False},
            "encoder": {"depth": 1, "context": 64, "position": "relative_bias"},
            "block": {"norm": "rms_norm", "feed_forward": "geglu", "bias": False},
        },
        "training": {"tokens_per_step": 280},
    },
    "encoder_decoder": {
        "inputs": {"source": UNPLACED, "target": {"same_as": "source"}},
        "tasks": {
            "copy": {
                "use": "sequence_to_sequence",
                "target": "target",
                "label_smoothing": 0.1,
                "metrics": ["exact_match"],
            }
        },
        "data": {"columns": {"source": "text", "target": "answer"}},
        "model": {
            "attention": "causal & same_sample",
            "position": "rotary",
            "encoder": {"depth": 2, "context": 64, "position": "rotary"},
            "dropout": {"residual": 0.2},
        },
    },
    "vit": {
        "inputs": {"image": IMAGE | {"augment": {"use": "image_augmentation", "shift": 1, "rotate": 10, "flip": True}}},
        "tasks": {
            "kind": {"use": "classification", "target": "label", "pooling": "class_token", "label_smoothing": 0.1}
        },
        "model": {"attention": "same_sample", "core_tokens": 1},
        "training": {"mixup": {"mixup": 0.4, "cutmix": 0.5}},
    },
    "ast": {
        "inputs": {"sound": SOUND | {"use": "audio_patches", "mels": 32, "patch_size": 8, "stride": 6}},
        "tasks": {"kind": {"use": "classification", "target": "label", "pooling": "core_tokens"}},
        "model": {"attention": "same_sample", "core_tokens": 2, "context": 64},
    },
    "ctc": {
        "inputs": {
            "sound": SOUND
            | {
                "use": "audio",
                "mels": 16,
                "frames": 2,
                "position": None,
                "augment_wave": {"speed": 0.1, "gain": 6},
                "augment": {"use": "spectrogram_augmentation", "mels": 4, "frames": 4},
            }
        },
        "tasks": {"text": {"use": "ctc", "target": "answer", "source": "sound", "metrics": ["wer"]}},
        "model": {"attention": "same_sample", "position": "rotary"},
    },
    "whisper": {
        "inputs": {"sound": SOUND | {"use": "audio_stem", "mels": 16, "fill": 0.5}, "text": TEXT},
        "tasks": {"text": {"use": "sequence_to_sequence", "target": "text", "metrics": ["wer"]}},
        "data": {"columns": {"text": "answer"}},
        "model": {
            "attention": "causal & same_sample",
            "encoder": {"depth": 1, "context": 64},
            "block": {"feed_forward": {"use": "gelu", "approximate": "none"}},
        },
    },
    "mix": {
        "inputs": {
            "image": IMAGE | {"position": None},
            "operator": UNPLACED,
            "sound": SOUND | {"use": "audio", "mels": 16, "frames": 8, "position": None},
            "answer": UNPLACED,
        },
        "tasks": {
            "answer": {
                "use": "language_modeling",
                "target": "answer",
                "head": "unembedding",
                "metrics": ["exact_match"],
            },
            "kind": {"use": "classification", "target": "label", "pooling": "attention_pooling", "weight": 0.3},
        },
        "data": {"columns": {"operator": "text"}},
        "model": {"attention": "same_sample & (causal | from(image, sound))", "position": "rotary", "block": NEW},
        "training": MUON | {"input_dropout": 0.3},
    },
    "streams": {
        "inputs": {
            "camera": VIDEO,
            "radar": {
                "use": "sensor",
                "channels": {"near": "m", "gear": None},
                "rate": 5,
                "window": 2,
                "categories": {"gear": 3},
                "position": None,
            },
            "note": UNPLACED,
        },
        "tasks": {"control": {"use": "regression", "target": "control", "names": ["steer", "brake"]}},
        "data": {"columns": {"camera": "clip", "note": "text"}},
        "model": {
            "attention": "same_sample & causal(seconds)",
            "depth": 1,
            "position": {"use": "rotary", "per_axis": {"seconds": 4, "row": 2, "column": 2}},
        },
        "training": MUON | {"input_dropout": {"radar": 0.5}},
    },
    "table": {
        "inputs": {
            "shake": {"use": "sensor", "channels": 2, "window": 5, "position": None},
            "climate": {"use": "sensor", "channels": {"temp": "°C"}, "position": None},
        },
        "tasks": {"state": {"use": "classification", "target": "state", "pooling": "mean_pooling"}},
        "data": {
            "dataset": {
                "window": "4 s",
                "stride": "1.5 s",
                "streams": {"shake": {"columns": ["x", "y"], "rate": 10}, "climate": {"columns": ["temp"], "rate": 2}},
                "label": {"column": "state", "at": "most"},
            }
        },
        "model": {
            "attention": "same_sample & causal(seconds)",
            "position": {"use": "rotary", "per_axis": {"seconds": 8}},
        },
    },
    "forecast": {
        "inputs": {
            "air": {"use": "sensor", "channels": {"temp": "°C"}, "window": 4, "period": 8, "relative": True},
            "shake": {"use": "sensor", "channels": 2, "window": 10},
        },
        "tasks": {
            "next": {"use": "forecast", "target": "air_future", "input": "air"},
            "state": {"use": "classification", "target": "state", "pooling": "mean_pooling", "weight": 0.3},
        },
        "data": {
            "dataset": {
                "window": "8 s",
                "stride": "1 s",
                "streams": {
                    "air": {"columns": ["temp"], "every": "500 ms", "horizon": "2 s"},
                    "shake": {"columns": ["x", "y"], "rate": 5},
                },
                "label": {"column": "state"},
            }
        },
        "model": {"attention": "same_sample"},
        "training": {"ema": 0.9, "input_dropout": {"shake": 0.5}},
    },
}
"""The settings of each kind that differ from `COMMON`."""

COMMON: dict[str, Any] = {
    "model": {"width": 32, "depth": 2, "heads": 4, "context": 64, "initialization": "golden_values:FirstValues"},
    "training": {"steps": 4, "learning_rate": 1e-2, "precision": "float32"},
    "evaluation": {"every": 4, "generated": 8, "sample_tokens": 4},
    "checkpoints": {"every": 4},
    "logging": {"every": 1, "tensorboard": False},
}
CORPORA = ("gpt", "llama", "recent_gpt", "windows", "bert", "t5")
"""Kinds that read a text corpus; the others read samples."""
TABLES = ("table", "forecast")
"""Kinds that read windows of a table."""


def write_data(folder: Path) -> None:
    """Writes a text corpus, and samples with an image, a clip, a sound, a stream of numbers, texts, a label and two
    numbers."""
    random = np.random.default_rng(0)
    for split, count in SAMPLES.items():
        text = " ".join(random.choice(WORDS, 3 * count * len(WORDS)))
        (folder / f"{split}.txt").write_text(text)
        rows = []
        for number in range(count):
            name, label = f"{split}-{number}", int(random.integers(3))
            Image.fromarray(random.integers(256, size=(8, 8), dtype=np.uint8)).save(folder / f"{name}.png")
            frames = [Image.fromarray(frame) for frame in random.integers(256, size=(3, 8, 8, 3), dtype=np.uint8)]
            frames[0].save(folder / f"{name}.webp", save_all=True, append_images=frames[1:], lossless=True)
            seconds = np.arange(int(RATE * random.uniform(0.2, 0.45))) / RATE
            wave = 0.3 * np.sin(2 * np.pi * 200 * (label + 1) * seconds) + 0.05 * random.standard_normal(len(seconds))
            soundfile.write(folder / f"{name}.wav", wave, RATE)
            answer = " ".join(random.choice(WORDS, int(random.integers(1, 3))))
            rows.append(
                {
                    "image": f"{name}.png",
                    "clip": f"{name}.webp",
                    "sound": f"{name}.wav",
                    "text": answer + " " + str(random.choice(WORDS)),
                    "answer": answer,
                    "label": "abc"[label],
                    "control": random.standard_normal(2).round(3).tolist(),
                    "radar": [
                        [round(float(random.standard_normal()), 3), int(random.integers(3))]
                        for _ in range(4 + number % 3)
                    ],
                }
            )
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        write_table(folder / f"{split}.csv", 2 * count)


def write_table(file: Path, seconds: int) -> None:
    """Writes a table of two sensors with separate clocks: ten and two measurements per second, early or late by up to a
    third of the time between two, with missing cells and rows, and the temperature 0.17 s after the shaking."""
    random = np.random.default_rng(seconds)
    shakes = [(k + random.uniform(-0.33, 0.33)) / 10 for k in range(10 * seconds)]
    climate = [(k + random.uniform(-0.33, 0.33)) / 2 + 0.17 for k in range(2 * seconds)]
    cells: dict[float, list[str]] = {}
    for time in shakes:
        state = "abc"[int(time / 5) % 3]
        values = ["" if random.random() < 0.05 else f"{random.standard_normal():.3f}" for _ in "xy"]
        cells[time] = [*values, "", state]
    for time in climate:
        cells.setdefault(time, ["", "", "", ""])[2] = f"{20 + 3 * np.sin(np.pi * time / 2) + random.normal(0, 0.3):.3f}"
    kept = [time for time in sorted(cells) if random.random() > 0.03]
    lines = [",".join([f"{time:.6f}", *cells[time]]) for time in kept]
    file.write_text("\n".join(["time,x,y,temp,state", *lines]) + "\n")


def experiment(kind: str, data: Path, out: Path) -> dict[str, Any]:
    """The complete configuration of a kind, on the data of a folder."""
    if kind in CORPORA:
        card: dict[str, Any] = {"use": "text"} | {split: str(data / f"{split}.txt") for split in SAMPLES}
        step = {"tokens_per_step": 256}
    else:
        columns = ["image", "clip", "sound", "text", "answer", "label", "control", "radar"]
        card = {"use": "manifest", "columns": columns, "files": columns[:3]}
        card |= {split: str(data / f"{split}.jsonl") for split in SAMPLES}
        if kind in TABLES:
            card = {"use": "table", "time": "time"} | {split: str(data / f"{split}.csv") for split in SAMPLES}
        step = {"samples_per_step": 6}
    tree = {**COMMON, **KINDS[kind], "out": str(out)}
    for section in ("model", "training", "data"):
        tree[section] = COMMON.get(section, {}) | KINDS[kind].get(section, {})
    tree["training"] = step | tree["training"]
    tree["data"] |= {"dataset": card | tree["data"].get("dataset", {})}
    return tree
