"""Fuzz tests of runs: damaged and malicious run folders with every command that reads a run, and odd command lines
with valid runs."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from chopmix.commands.cli import parser
from fuzzed import (
    CODE,
    DEEP,
    SURROGATES,
    changed_bytes,
    changed_text,
    changed_tree,
    fuzzed,
    odd_texts,
    odd_values,
    paths_of,
)
from hypothesis import strategies as st
from judged import Steered, command, in_its_home
from safetensors.torch import load, save
from tiny import SCENES, dumped

Files = dict[str, bytes]
"""The contents of the files in a folder, by path."""
IMAGE, SOUND, BRIEFLY = (
    ("--input", "image=../data/image-0.png"),
    ("--input", "sound=../data/sound-0.wav"),
    ("--max-tokens", "3"),
)
USES: dict[str, list[tuple[str, ...]]] = {
    "lm": [
        ("generate", "run", *BRIEFLY),
        ("generate", "run", *BRIEFLY, "--prompt", "chop", "--checkpoint", "last"),
        ("evaluate", "run"),
        ("compare", "run"),
        ("inspect", "run"),
        ("report", "run"),
        ("train", "lm.yaml"),
        ("train", "lm.yaml", "training.steps=5"),
        ("train", "lm.yaml", "from=run", "out=other"),
    ],
    "sensor": [
        ("predict", "run", *IMAGE),
        ("predict", "run", *IMAGE, "--input", "sensor=../data/sensor-0.npy"),
        ("evaluate", "run"),
        ("evaluate", "run", "--data", "../data/val.jsonl"),
        ("examples", "run", "--split", "val"),
        ("embed", "run", *IMAGE),
        ("train", "sensor.yaml", "training.steps=5"),
    ],
    "masked": [
        ("predict", "run", "--input", "text=chop<|mask|>"),
        ("embed", "run", "--input", "text=chop", "--pool", "tokens"),
    ],
    "captions": [
        ("predict", "run", *IMAGE),
        ("predict", "run", *IMAGE, "--beams", "2"),
        ("generate", "run", *IMAGE, *BRIEFLY),
        ("evaluate", "run", "--subsets"),
    ],
    "ctc": [("predict", "run", *SOUND), ("evaluate", "run", "--beams", "2")],
    "gpt2": [("generate", "run", *BRIEFLY), ("generate", "run", *BRIEFLY, "--prompt", "chop")],
    "whisper": [
        ("transcribe", "run", "../data/sound-0.wav", "--temperature", "0", "--beams", "1"),
        ("predict", "run", *SOUND),
    ],
}
"""The command lines that read each run: every command that reads a run is there."""


@pytest.fixture(scope="module")
@in_its_home
def runs(whole_judge, published) -> dict[str, Files]:
    """The files of some trained or imported runs. All their command lines are called once."""
    all_files = {}
    for name, uses in USES.items():
        folder = whole_judge.folder()
        if name in SCENES:
            tree = {
                **SCENES[name],
                "out": "run",
                "checkpoints": {"every": 2},
                "logging": {"every": 1, "tensorboard": False},
            }
            write({f"{name}.yaml": dumped(tree).encode()}, folder)
            command("train", f"{name}.yaml")
        else:
            write(published[name], folder / "theirs")
            command("import", "theirs", "run")
        files = {
            str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
        }
        all_files[name] = {
            file: content for file, content in files.items() if file.startswith("run/") or file == f"{name}.yaml"
        }
        for use in uses:
            with suppress(Steered):  # a random model may write such characters
                command(*use)
    return all_files


def write(files: Files, folder: Path) -> None:
    """Write files into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


# -------------------------------------------------------------------------------------------------------- odd contents

PARTS = [
    ("model", "position"),
    ("model", "block"),
    ("model", "block", "norm"),
    ("model", "initialization"),
    ("training", "schedule"),
    ("training", "optimizer"),
    ("data", "dataset"),
    ("inputs", "text"),
    ("inputs", "image"),
    ("inputs", "text", "position"),
    ("tasks", "lm"),
    ("tasks", "lm", "head"),
    ("tasks", "kind", "pooling"),
    ("from",),
    ("out",),
]
"""The keys of a configuration that may name code or a path."""
PLACES = st.sampled_from(("../../outside", "/proc/nowhere/x", "/", "..", "run", "../data", "a\0b", "\x1b[31mred"))


@st.composite
def odd_config(draw, content: bytes) -> bytes:
    """A `config.yaml` that names foreign code or other paths, or has odd values anywhere."""
    tree = yaml.safe_load(content)
    how = draw(st.sampled_from(("code", "code", "tree", "text")))
    if how == "tree":
        return dumped(draw(changed_tree([tree], values=odd_values | st.sampled_from(CODE)))).encode(
            errors="surrogatepass"
        )
    if how == "text":
        return draw(changed_text([content.decode()])).encode(errors="surrogatepass")
    for path in draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=2)):
        holder: Any = tree
        for key in path[:-1]:
            holder = holder.setdefault(key, {}) if isinstance(holder, dict) else {}
        if isinstance(holder, dict):
            holder[path[-1]] = draw(PLACES if path[0] in ("from", "out") else st.sampled_from(CODE))
    return dumped(tree).encode(errors="surrogatepass")


@st.composite
def odd_json(draw, content: bytes) -> bytes:
    """A JSON or JSONL file with odd values."""
    text = content.decode()
    if draw(st.integers(0, 3)) == 3:
        return draw(changed_text([text])).encode(errors="surrogatepass")
    if draw(st.integers(0, 9)) == 9:
        return draw(st.sampled_from((*DEEP, "null", "[]", "5", '"a"', '{"step": []}', "{}"))).encode()
    lines = text.splitlines() if text.count("\n{") else [text]
    number = draw(st.integers(0, len(lines) - 1))
    lines[number] = json.dumps(draw(changed_tree([json.loads(lines[number])], values=odd_values | odd_texts)))
    return "\n".join(lines).encode(errors="surrogatepass")


@st.composite
def odd_weights(draw, content: bytes) -> bytes:
    """A file of weights in which tensors are renamed, missing, NaN, or of another shape or type; or odd bytes."""
    tensors = load(content)
    if not tensors or draw(st.booleans()):
        return draw(changed_bytes([content]))
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(tensors)))
        tensor = tensors.pop(name)
        tensor = tensor.real.contiguous() if tensor.is_complex() else tensor  # complex since an earlier change
        changes: dict[str, Callable] = {
            "leave out": dict,
            "rename": lambda tensor=tensor: {"a": tensor},
            "nan": lambda name=name, tensor=tensor: {name: tensor * torch.nan},
            "huge": lambda name=name, tensor=tensor: {name: tensor + 3e38},
            "half": lambda name=name, tensor=tensor: {name: tensor.half()},
            "whole": lambda name=name, tensor=tensor: {name: tensor.long()},
            "flat": lambda name=name, tensor=tensor: {name: tensor.flatten()},
            "none": lambda name=name, tensor=tensor: {name: tensor.flatten()[:0]},
            "complex": lambda name=name, tensor=tensor: {name: tensor.to(torch.complex64)},
        }
        tensors |= changes[draw(st.sampled_from(sorted(changes)))]()
        if not tensors:
            break
    return save(tensors)


@st.composite
def odd_run(draw, files: Files) -> Files:
    """The changed files of a run. The checksums of a changed checkpoint may be correct."""
    names = [name for name in files if name.startswith("run/") and "tensorboard" not in name]
    likely = [name for name in names if "checkpoints/" not in name] + [
        name for name in names if "step-00000004" in name
    ]
    changes: Files = {}
    for name in draw(st.lists(st.sampled_from(likely) | st.sampled_from(names), min_size=1, max_size=2, unique=True)):
        content = files[name]
        if name.endswith("config.yaml"):
            changes[name] = draw(odd_config(content))
        elif name.endswith(".safetensors"):
            changes[name] = draw(odd_weights(content))
        elif name.endswith((".json", ".jsonl")):
            changes[name] = draw(odd_json(content))
        else:
            changes[name] = draw(changed_bytes([content]))
    weights = [name for name in changes if name.endswith(".safetensors")]
    state = f"{Path(weights[0]).parent}/state.json" if weights else ""
    if state in files and draw(st.booleans()):  # weights of an imported model have no checksums
        tree = json.loads(files[state])
        tree["files"][Path(weights[0]).name] = {
            "bytes": len(changes[weights[0]]),
            "crc32": zlib.crc32(changes[weights[0]]),
        }
        changes[state] = json.dumps(tree).encode()
    return changes


SPECIAL: dict[str, Callable[[Path, Path], Any]] = {
    "missing": lambda file, outside: file.unlink(),
    "a pipe": lambda file, outside: (file.unlink(), os.mkfifo(file)),
    "a folder": lambda file, outside: (file.unlink(), file.mkdir()),
    "a link to nothing": lambda file, outside: (file.unlink(), file.symlink_to("nothing")),
    "a link to itself": lambda file, outside: (file.unlink(), file.symlink_to(file.name)),
    "a link outside": lambda file, outside: (file.unlink(), file.symlink_to(outside)),
    "a link to /dev/zero": lambda file, outside: (file.unlink(), file.symlink_to("/dev/zero")),
}
"""What replaces a file."""
WRITTEN = ["evaluations.jsonl", "report", "calibration.json", "metrics.jsonl", "summary.json", ".lock", "best.json"]
"""Files that commands write into a run."""


@st.composite
def odd_runs(draw, runs: dict[str, Files]) -> tuple[str, tuple[str, ...], Files, dict[str, str]]:
    """A run, a command line, the changed files of the run, and what replaces one of its files."""
    name = draw(st.sampled_from(sorted(runs)))
    use = draw(st.sampled_from(USES[name]))
    if draw(st.integers(0, 4)):
        return name, use, draw(odd_run(runs[name])), {}
    names = [file for file in runs[name] if file.startswith("run/")] + [f"run/{file}" for file in WRITTEN]
    return name, use, {}, {draw(st.sampled_from(names)): draw(st.sampled_from(sorted(SPECIAL)))}


@pytest.mark.system
@fuzzed(25, data=st.data())
def test_runs(judge, runs, data):
    name, use, changes, places = data.draw(odd_runs(runs))
    folder, outside = judge.folder(), judge.home.parent / "outside"
    write({**runs[name], **changes}, folder)
    for file, what in places.items():
        (folder / file).touch()
        SPECIAL[what](folder / file, outside)
    judge.check("runs", lambda: command(*use), f"{name}, {' '.join(use)}: {changes or places!r}")


# -------------------------------------------------------------------------------------------------------- command lines

numbers = st.sampled_from(
    (
        "1",
        "2",
        "0.7",
        "3",
        "0",
        "-1",
        "100000",
        "1e-320",
        "1e308",
        "-1e308",
        "nan",
        "inf",
        "-inf",
        str(2**63),
        "9" * 5000,
        "",
        "x",
        "1_0",
        "٣",
    )
)
few = st.sampled_from(("1", "3", "0", "-1", str(-(2**63)), "x", "", "1.5", "9" * 5000))
texts = odd_texts | st.sampled_from([*SURROGATES, "chop", "chop mix", "Z", "<5>", "<|mask|>"])
"""Texts for a model of texts."""
files = st.sampled_from(
    (
        "../data/image-0.png",
        "../data/sound-0.wav",
        "odd.txt",
        "odd.jsonl",
        "missing",
        ".",
        "",
        "../data",
        "../data/val.jsonl",
        "../data/train.txt",
        "pipe",
        "/dev/zero",
        "a" * 300,
        "a\0b",
        "run",
        "run/config.yaml",
        "runs/[/red]x",
        "*",
        "../data/*.png",
        "[",
        "~nobody",
        *SURROGATES,
    )
)
outs = st.sampled_from(
    ("x.npy", "x.csv", "x.png", "x", "missing/x.html", "", ".", "a" * 300, "a\0b", "run", "\ud800", "pipe")
)
"""Paths of outputs inside the folder."""
datasets = files | st.sampled_from(
    (
        "digits",
        "{use: manifest}",
        "{use: os:_exit}",
        "{use: manifest, train: ../data/val.jsonl, columns: [image, label]}",
        "{use: [",
        "{" * 300,
        "{000..9999999}.tar",
        "odd.tar",
        "odd.csv",
        "memory://x.tar",
        "text",
        "&a {*a}",
    )
)
inputs = st.builds(
    lambda name, equals, value: name + equals + value,
    st.sampled_from(("image", "sensor", "sound", "text", "note", "x", "", "\x1b[31m")),
    st.sampled_from(("=", "=", "=", "")),
    files | texts,
)
splits = st.sampled_from(("val", "train", "test")) | texts
SEARCH = {"--beams": numbers, "--length-penalty": numbers, "--no-repeat": numbers}
READING = {
    "--checkpoint": st.sampled_from(("best", "last", "x")),
    "--device": st.sampled_from(("cpu", "auto", "cuda")),
    "--trust": texts,
}
setting_values = texts | st.sampled_from(("grid=false", "grid=", "=3", "gravity=[1]", "a=b=c", "gravity=nan"))
plans = texts | st.sampled_from(("beams:2", "beams:2,horizon:2", "beams:0", "horizon:99999", "expand:-1", "beams:2,"))
ANSWERS = {"--output": outs, "--overwrite": None, "--strict": None}
"""The options of the commands that write one row for each sample."""
shards = st.sampled_from(("0/1", "0/2", "1/2", "2/2", "x", "9/10", "-1/2"))
OPTIONS: dict[str, dict[str, st.SearchStrategy | None]] = {
    "generate": {
        "--prompt": texts,
        "--prompts": files,
        "--max-tokens": few,
        "--temperature": numbers,
        "--top-k": numbers,
        "--top-p": numbers,
        "--min-p": numbers,
        "--repetition-penalty": numbers,
        "--stop": texts,
        "--seed": numbers,
        "--no-cache": None,
        "--input": inputs,
        "--guidance": numbers,
        "--grammar": texts,
        "--forbid": texts,
        "--force": texts,
        "--steps": few,
        "--drafts": few,
        "--order": texts,
        "--item": files,
        "--fill": texts,
        "--animate": outs,
        "--target": texts,
        "--output": outs,
        "--count": few,
        **SEARCH,
        **READING,
    },
    "predict": {
        "--input": inputs,
        "--data": datasets,
        "--split": splits,
        "--calibrated": None,
        "--threshold": numbers,
        "--horizon": numbers,
        "--picture": outs,
        **ANSWERS,
        "--shard": shards,
        **SEARCH,
        **READING,
    },
    "evaluate": {
        "--data": datasets,
        "--split": splits,
        "--subsets": None,
        "--json": outs,
        "--report": outs,
        **ANSWERS,
        "--shard": shards,
        **SEARCH,
        **READING,
    },
    "baselines": {
        "--split": splits,
        "--task": texts,
        "--metric": texts,
        "--limit": st.sampled_from(["0.01", "0", "-1", "nan", "x"]),
        "--json": outs,
        **READING,
    },
    "merge": {"--overwrite": None},
    "play": {
        "--environment": texts,
        "--target": numbers,
        "--episodes": few,
        "--temperature": numbers,
        "--seed": numbers,
        "--together": few,
        "--setting": setting_values,
        "--plan": plans,
        "--record": outs,
        "--json": outs,
        **READING,
    },
    "forecast": {
        "--data": datasets,
        "--horizon": numbers,
        "--picture": outs,
        "--output": outs,
        "--overwrite": None,
        **READING,
    },
    "record": {
        "--policy": texts,
        "--episodes": few,
        "--noise": numbers,
        "--target": numbers,
        "--setting": setting_values,
        "--seed": numbers,
        "--workers": st.sampled_from(("0", "1", "x")),
        "--out": outs,
    },
    "in_context": {"--functions": few | st.just(str(2**63 - 1)), "--out": outs, **READING},
    "embed": {
        "--data": datasets,
        "--split": splits,
        "--input": inputs,
        "--pool": st.sampled_from(("mean", "first", "tokens", "x")),
        **ANSWERS,
        "--shard": shards,
        **READING,
    },
    "inspect": {
        "--sample": numbers | texts,
        "--other": numbers | texts,
        "--split": splits,
        "--input": inputs,
        "--task": texts,
        "--layers": st.sampled_from(("1", "1-2", "0", "2-1", "9999", "x", "1,,2", "-1")),
        "--output": outs,
        **READING,
    },
    "report": {"--output": outs, **READING},
    "compare": {"--picture": outs, "--output": outs, "--overwrite": None},
    "examples": {"--split": splits, "--number": numbers, "--output": outs, "--trust": texts},
    "transcribe": {
        "--format": st.sampled_from(("srt", "json", "vtt", "txt", "x")),
        "--output": outs,
        "--language": texts,
        "--beams": st.sampled_from(("1", "2", "0", "100000")),
        "--temperature": numbers,
        "--translate": None,
        "--no-timestamps": None,
        "--independent": None,
        **READING,
    },
    "train": {
        "--dry-run": None,
        "--full": None,
        "--jobs": st.sampled_from(("0", "1", "-1", "x")),
        "--change": texts | st.sampled_from(("training.steps=3", "model.width=8", "training.samples_per_step=0", "=")),
        "--seeds": numbers | texts,
        "--sweep": texts | st.sampled_from(("training.seed=1,1", "model.width=8,x", "=", "out=a,b")),
    },
    "prepare": {"--trust": texts},
    "import": {"--partly": None},
    "export": {**READING},
    "schema": {},
    "explain": {},
    "x": {},
}
"""The options of every command, and of `x`, which is no command."""
NEEDED = {"predict": ("--input", inputs), "generate": ("--max-tokens", st.just("3"))}
RUNS = st.sampled_from(
    ("run",) * 24
    + (
        "run/",
        "./run",
        "missing",
        "",
        ".",
        "../data",
        "run/config.yaml",
        "runs/[/red]x",
        "a\0b",
        "a" * 300,
        *SURROGATES,
    )
)
WORDS = st.sampled_from((*OPTIONS, "generate", "generate", "predict", "predict", "evaluate", "transcribe"))
LIKELY = {"transcribe": "whisper", "generate": "lm"}


@st.composite
def command_lines(draw) -> tuple[str, tuple[str, ...]]:
    """The name of a run, and a command line that reads it."""
    word = draw(WORDS)
    name = LIKELY[word] if word in LIKELY and draw(st.booleans()) else draw(st.sampled_from(sorted(USES)))
    positional = {
        "train": [draw(st.sampled_from((f"{name}.yaml", "run", "missing.yaml", "\0")))],
        "schema": [],
        "import": ["run", draw(outs)],
        "merge": [draw(outs), draw(files)],
        "transcribe": [draw(RUNS), draw(st.just("../data/sound-0.wav") | files)],
        "x": [draw(texts)],
    }.get(word, [draw(RUNS)])
    options = OPTIONS[word]
    chosen = draw(st.lists(st.sampled_from(sorted(options)), max_size=3)) if options else []
    words = [
        each for option in chosen for each in ([option] if options[option] is None else [option, draw(options[option])])
    ]
    if word in NEEDED and NEEDED[word][0] not in chosen:
        words += [NEEDED[word][0], draw(NEEDED[word][1])]
    return name, (word, *positional, *words, *([draw(texts)] if draw(st.integers(0, 9)) == 9 else []))


@fuzzed(
    50,
    line=command_lines(),
    content=changed_text(["chop mix\nset\n", '{"image": "../data/image-0.png", "label": "chop"}\n']),
)
def test_command_lines(judge, runs, line, content):
    name, words = line
    folder = judge.folder()
    write(
        {
            **runs[name],
            "odd.txt": content.encode(errors="surrogatepass"),
            "odd.jsonl": content.encode(errors="surrogatepass"),
        },
        folder,
    )
    os.mkfifo(folder / "pipe")
    judge.check("command lines", lambda: command(*words), f"{name}: chopmix {words!r}, odd.txt {content!r}")


def test_the_parts_are_keys_of_the_configurations(runs):
    """All keys in PARTS except two are in the configuration of a run."""
    known = {path for files in runs.values() for path in paths_of(yaml.safe_load(files["run/config.yaml"]))}
    assert set(PARTS) - known <= {("inputs", "text", "position"), ("model", "initialization")}


def test_every_command_has_odd_options():
    """OPTIONS contains every command of the command line, and only options that the command has."""
    (commands,) = [each.choices for each in parser()._actions if isinstance(each.choices, dict)]
    assert set(commands) - {"init", "new"} == set(OPTIONS) - {"x"}  # these two read no run
    for word, options in OPTIONS.items():
        known = {option for each in commands[word]._actions for option in each.option_strings} if word != "x" else set()
        assert set(options) <= known
