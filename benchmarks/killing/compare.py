"""What two runs have in common, to the bit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

CLOCKS = {"seconds", "train/tokens_per_second", "train/flops_per_second", "train/seconds_per_step", "train/waited",
          "train/peak_memory_bytes"}  # fmt: skip


def timeless(value: Any) -> Any:
    """A JSON value without clocks, speeds and memory."""
    if isinstance(value, dict):
        return {name: timeless(each) for name, each in value.items() if name not in CLOCKS}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def facts(folder: Path) -> dict[str, Any]:
    """All that a run must end with, by names that say what it is."""
    run = folder / "run"
    found: dict[str, Any] = {"checkpoints": sorted(each.name for each in (run / "checkpoints").glob("*"))}
    for which in ("last", "best"):
        found[f"{which}.json"] = pointer = read(run / f"{which}.json")
        step = pointer.get("step", 0) if isinstance(pointer, dict) else 0
        checkpoint = run / "checkpoints" / f"step-{step:08d}"
        found[f"{which} state"] = read(checkpoint / "state.json")
        for part in ("model", "optimizer", "ema"):
            found[f"{which} {part}"] = checkpoint / f"{part}.safetensors"
    found["summary"] = read(run / "summary.json")
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    found |= {f"metrics, line {number}": as_json(line) for number, line in enumerate(lines, start=1)}
    found["metrics, lines"] = len(lines)
    for name in ("config.yaml", "choices.json", "data.json"):
        found[name] = (run / name).read_text() if (run / name).exists() else None
    for root in (run / "assets", folder / "cache"):
        for file in sorted(each for each in root.rglob("*") if each.is_file() and each.name[0] != "."):
            found[f"file {file.relative_to(folder)}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def read(file: Path) -> Any:
    """The value of a JSON file, without clocks; a word where there is none."""
    return as_json(file.read_text()) if file.exists() else "missing"


def as_json(text: str) -> Any:
    """A JSON text's value without clocks, or the text."""
    try:
        return timeless(json.loads(text))
    except ValueError:
        return text


def differences(expected: Path, folder: Path) -> list[str]:
    """What differs between two runs, in words."""
    first, second, found = facts(expected), facts(folder), []
    for name in dict.fromkeys([*first, *second]):
        one, other = first.get(name, "not there"), second.get(name, "not there")
        if isinstance(one, Path) and isinstance(other, Path):
            found += different_tensors(name, one, other)
        elif one != other:
            found.append(f"{name}: {first_difference(one, other)}")
    return found


def first_difference(one: Any, other: Any) -> str:
    """Two values, or of two mappings the first entry that differs."""
    if isinstance(one, dict) and isinstance(other, dict):
        name = next(each for each in [*one, *other] if one.get(each, "missing") != other.get(each, "missing"))
        return f"{name}: {first_difference(one.get(name, 'missing'), other.get(name, 'missing'))}"
    return f"{str(one)[:160]} is expected, found {str(other)[:160]}"


def different_tensors(name: str, one: Path, other: Path) -> list[str]:
    """The first tensor that differs, and by how much."""
    if not one.exists() or not other.exists():
        return [f"{name}: {other.name} is {'missing' if one.exists() else 'too many'}"] * (
            one.exists() != other.exists()
        )
    if one.read_bytes() == other.read_bytes():
        return []
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(other)
    for key in dict.fromkeys([*first, *second]):
        if key not in first or key not in second or first[key].shape != second[key].shape:
            return [f"{name}: {key} is not in both"]
        if not first[key].equal(second[key]):
            apart = (first[key].double() - second[key].double()).abs().max()
            return [f"{name}: {key} differs by up to {apart:.3g}"]
    return [f"{name}: the same tensors in other bytes"]


def left_files(folder: Path) -> list[str]:
    """Temporary files in a run that ended, and in its cache."""
    every = [each for root in (folder / "run", folder / "cache") for each in root.rglob("*")]
    return [f"{each.relative_to(folder)} is left" for each in every if each.name[0] == "." and each.name != ".lock"]
