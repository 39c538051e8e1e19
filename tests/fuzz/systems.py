"""Configurations of larger systems, the data that they read, and the commands that are called with their runs.

The systems act in an environment, plan, learn in context, refine drafts, flow, read codes, train adapters, read their
own answers and mix data sets."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from chopmix.tokenizers.media.midi import midi_bytes
from judged import command
from tiny import CORPUS, IMAGE, ITEMS, OVER_ALL, READING, SAMPLES, TEXT, dumped, scene

SHORT = {**ITEMS, "steps": 2}
IN_TIME = {**OVER_ALL, "context": 48, "attention": "causal & same_sample", "position": "rotary"}
DRAWN = {"use": "image_ids", "size": 8, "patch_size": 2}
JUDGE = {"use": "accepted_by", "run": "../data/judge", "input": "image", "task": "kind", "column": "label"}


def in_time(inputs: dict, tasks: dict, dataset: dict, model: dict | None = None, **evaluation: Any) -> dict:
    """A configuration whose tokens are in the order of time."""
    tree = scene(inputs, tasks, IN_TIME | (model or {}), SHORT, dataset)
    return tree | {"data": {"order": "seconds", "dataset": dataset}, "evaluation": evaluation}


def sensor(channels: int = 1, **more: Any) -> dict:
    """An input of numbers without a position."""
    return {"use": "sensor", "channels": channels, "position": None, **more}


DOOR = {"agent": 26, "thing": 26, "kind": 3, "action": 4, "reward": 2, "return": 2}
"""The observations and actions in KeyToDoor, in their order within a step, and the number of values of each."""
NEXT = {"agent": "reward", "thing": "agent", "kind": "thing", "action": "kind", "reward": "action", "return": "reward"}

JUDGED = scene(
    {"image": {**IMAGE, "position": None}}, {"kind": {"use": "classification", "target": "label"}}, READING, SHORT
)
CODER = scene(
    {"image": {**IMAGE, "position": None}},
    {"codes": {"use": "reconstruction", "target": "image", "levels": [4, 4], "depth": 1, "heads": 2}},
    READING, SHORT,
)  # fmt: skip

SYSTEMS: dict[str, dict] = {
    "acts": in_time(
        {"return": sensor(), "observation": sensor(4, offset=0.3),
         "action": {"use": "category", "size": 2, "offset": 0.6, "position": None}},
        {"act": {"use": "next_item", "target": "action", "at": "observation"}},
        {"use": "episodes", "of": {"use": "folder", "path": "../data/recorded"}, "window": 10, "balance": 4},
        play={"targets": [5], "episodes": 1},
    ),
    "plans": in_time(
        {name: {"use": "category", "size": size, "offset": number / 10, "position": None}
         for number, (name, size) in enumerate(DOOR.items())},
        {name: {"use": "next_item", "target": name, "at": at} for name, at in NEXT.items()},
        {"use": "episodes", "of": {"use": "folder", "path": "../data/door"}},
        {"context": 400, "attention": "causal & same_sample & !from(return)",
         "position": {"use": "rotary", "base": 100, "per_axis": {"seconds": 8}}},
    ),
    "in_context": in_time(
        {"x": sensor(2, mean=0, scale=1), "y": sensor(offset=0.5, mean=0, scale=2)},
        {"next": {"use": "next_item", "target": "y", "at": "x"}},
        {"use": "in_context", "dimension": 2, "noise": 0.5, "examples": 6, "samples": 1000},
        in_context=4,
    ),
    "refines": scene(
        {"note": TEXT, "image": DRAWN},
        {"word": {"use": "masked_diffusion", "target": "note", "refining": {"tokens": 6}},
         "picture": {"use": "masked_diffusion", "target": "image", "refining": {"through": ["note"], "steps": 2},
                     "metrics": {"copies": {"use": "copies"}}}},
        {**READING, "context": 40}, {**SHORT, "input_dropout": {"note": 0.2}},
    ) | {"evaluation": {"generated": 2}},
    "codes": scene(
        {"note": TEXT, "image": {"use": "codes", "run": "../data/coder", "input": "image"}},
        {"picture": {"use": "language_modeling", "target": "image", "metrics": {"accepted": JUDGE}}},
        OVER_ALL, SHORT,
    ) | {"evaluation": {"generated": 2}},
    "encoded": scene(
        {"image": {"use": "encoded", "run": "../data/judge", "input": "image"}, "note": TEXT},
        {"word": {"use": "sequence_to_sequence", "target": "note"}},
        {**OVER_ALL, "encoder": {"depth": 1, "context": 24}}, SHORT,
    ),
    "flow": scene(
        {"note": TEXT, "image": IMAGE},
        {"picture": {"use": "flow", "target": "image", "refining": {"steps": 2}, "metrics": {"accepted": JUDGE}}},
        READING, {**SHORT, "input_dropout": {"note": 0.2}},
    ) | {"evaluation": {"generated": 2}},
    "adapted": JUDGED | {"from": "../data/judge"} | {
        "training": JUDGED["training"] | {"adapters": {"rank": 2, "on": ["query", "value"]}},
    },
    "rewarded": scene(
        {"image": {**IMAGE, "channels": 1}, "operator": {**TEXT, "position": None}, "answer": TEXT},
        {"answer": {"use": "policy_gradient", "target": "answer"}},
        {**OVER_ALL, "context": 48}, SHORT, {"use": "rewarded_arithmetic", "samples": 64, "answers": 2},
    ) | {"evaluation": {"generated": 2, "sample_tokens": 0}},
    "notes": scene(
        {"label": TEXT, "note": {"use": "noted_text", "encoding": "bytes", "notes": ["<", ">"], "position": None}},
        {"answer": {"use": "language_modeling", "target": "note", "metrics": ["exact_match"]}},
        {**OVER_ALL, "attention": "causal & (window(6) | on(note))", "position": "rotary"}, SHORT,
    ),
    "score": scene(
        {"score": {"use": "score", "voices": 2, "transpose": 2, "position": {"use": "periodic", "periods": [4, 16]}}},
        {"music": {"use": "language_modeling", "target": "score"}},
        {**OVER_ALL, "context": 64}, SHORT,
        {"use": "manifest", "train": "../data/scores.jsonl", "val": "../data/scores.jsonl", "columns": ["score"],
         "files": ["score"]},
    ),
    "mixture": scene(
        {"image": IMAGE, "note": TEXT, "text": {"use": "text", "encoding": "bytes"}},
        {"kind": {"use": "classification", "target": "label"}, "word": {"use": "language_modeling", "target": "note"},
         "lm": {"use": "language_modeling", "target": "text"}},
        {**OVER_ALL, "attention": "same_sample & (causal | from(image))", "position": "rotary",
         "block": {"own_layers": {"groups": [["image"], ["note", "text"]], "layers": ["feed_forward", "value"]}}},
        {**SHORT, "input_dropout": "any_number"},
        {"use": "mixture", "of": {"a": SAMPLES, "b": CORPUS}, "share": {"a": 1, "b": 2}, "characters": 20},
    ) | {"evaluation": {"generated": 2, "attribution": True}},
}  # fmt: skip
"""One configuration for every system."""
PICTURE = ("--input", "image=../data/image-0.png")
USES: dict[str, list[tuple[str, ...]]] = {
    "acts": [
        ("play", "run", "--episodes", "1", "--target", "5"), ("evaluate", "run"), ("train", "run", "training.steps=3"),
        ("record", "CartPole-v1", "--policy", "run", "--target", "5", "--episodes", "1", "--out", "again"),
        ("inspect", "run"), ("examples", "run", "--split", "val"),
    ],
    "plans": [("play", "run", "--episodes", "1", "--plan", "beams:2,horizon:1"), ("evaluate", "run")],
    "in_context": [("in_context", "run", "--functions", "4"), ("train", "run", "training.steps=3"), ("inspect", "run")],
    "refines": [
        ("generate", "run", "--input", "note=chop", "--target", "image", "--output", "x.png", "--steps", "2"),
        ("generate", "run", "--target", "image", "--item", "../data/image-0.png", "--fill", "3:6", "--output",
         "y.png"),
        ("evaluate", "run", "--subsets"), ("predict", "run", *PICTURE),
    ],
    "codes": [
        ("generate", "run", "--input", "note=chop", "--output", "x.png"), ("evaluate", "run"), ("inspect", "run"),
        ("train", "run", "training.steps=3"),
    ],
    "flow": [
        ("generate", "run", "--input", "note=chop", "--output", "x.png", "--steps", "3"), ("evaluate", "run"),
        ("inspect", "run"), ("train", "run", "training.steps=3"),
    ],
    "adapted": [
        ("predict", "run", *PICTURE), ("evaluate", "run", "--adapters", "none"), ("train", "run", "training.steps=3"),
        ("evaluate", "../data/judge", "--adapters", "run"), ("export", "run", "published"),
    ],
    "rewarded": [("evaluate", "run"), ("generate", "run", "--max-tokens", "3"), ("train", "run", "training.steps=3")],
    "encoded": [("predict", "run", *PICTURE), ("evaluate", "run"), ("embed", "run", *PICTURE, "--output", "v.npy")],
    "notes": [("generate", "run", "--max-tokens", "3"), ("evaluate", "run")],
    "score": [
        ("generate", "run", "--output", "x.mid", "--max-tokens", "6"), ("evaluate", "run"),
        ("examples", "run", "--split", "val"),
    ],
    "mixture": [
        ("predict", "run", *PICTURE), ("evaluate", "run", "--subsets"), ("evaluate", "run", "--inputs", "image"),
        ("inspect", "run"), ("train", "run", "training.steps=3"), ("compare", "run", "run"),
    ],
}  # fmt: skip
"""The command lines that read each run."""
SAVED = {"checkpoints": {"every": 1}, "logging": {"every": 1, "tensorboard": False}}


def trained(name: str, tree: dict, folder: Path) -> dict[str, bytes]:
    """Train the run `run` in a folder with the configuration `NAME.yaml`. Returns the contents of all files."""
    (folder / f"{name}.yaml").write_text(dumped({**tree, **SAVED, "out": "run"}))
    command("train", f"{name}.yaml")
    names = [file for file in sorted(folder.rglob("*")) if file.is_file() and "cache" not in file.parts]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in names}


def write_parts(data: Path) -> None:
    """Write the data that the configurations read besides the samples: episodes, scores, and runs that they use."""
    command("record", "CartPole-v1", "--policy", "script", "--noise", "0.5", "1", "--episodes", "24", "--out",
            str(data / "recorded"))  # fmt: skip
    command("record", "chopmix/KeyToDoor-v0", "--policy", "random", "--setting", "grid=false", "--episodes", "24",
            "--out", str(data / "door"))  # fmt: skip
    for number in range(4):
        notes = [[(60 + number, 0, 4), (62, 4, 4)], [(48, 0, 8)]]
        (data / f"score-{number}.mid").write_bytes(midi_bytes(notes))
    rows = [json.dumps({"key": f"s{number}", "score": f"score-{number}.mid"}) for number in range(4)]
    (data / "scores.jsonl").write_text("\n".join(rows) + "\n")
    for name, tree in (("coder", CODER), ("judge", JUDGED)):
        Path(f"{name}.yaml").write_text(dumped({**tree, **SAVED, "out": str(data / name)}))
        command("train", f"{name}.yaml")


STEPS = 6
"""The number of steps of each episode in a data set of Minari."""
METADATA = {
    "total_episodes": 2, "data_format": "hdf5", "minari_version": "0.5.0",
    "env_spec": json.dumps({"id": "CartPole-v1", "kwargs": {}, "max_episode_steps": 50}),
    "observation_space": json.dumps(
        {"type": "Box", "dtype": "float32", "shape": [4], "low": [-1] * 4, "high": [1] * 4}
    ),
    "action_space": json.dumps({"type": "Discrete", "n": 2, "start": 0}),
}  # fmt: skip
ARRAYS = ("observations", "actions", "rewards", "terminations", "truncations")


def episodes_of_minari(name: str = "", put: Any = None) -> bytes:
    """The HDF5 file of a data set of Minari. For the array `name` of each episode, `put(group, name)` writes the array
    or omits it."""
    content, random = io.BytesIO(), np.random.default_rng(0)
    with h5py.File(content, "w") as file:
        for number in range(2):
            group = file.create_group(f"episode_{number}")
            values = (
                random.normal(size=(STEPS + 1, 4)).astype(np.float32), np.arange(STEPS) % 2, np.ones(STEPS),
                np.arange(STEPS) == STEPS - 1, np.zeros(STEPS, bool),
            )  # fmt: skip
            for key, value in zip(ARRAYS, values):
                if key == name:
                    put(group, key)
                else:
                    group[key] = value
    return content.getvalue()
