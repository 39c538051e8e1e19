"""Compares two runs bit by bit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

CLOCKS = {"seconds", "train/tokens_per_second", "train/flops_per_second", "train/seconds_per_step", "train/waited",
          "train/peak_memory_bytes"}  # fmt: skip


def timeless(value: Any) -> Any:
    """Returns a JSON value without times, speeds and memory."""
    if isinstance(value, dict):
        return {name: timeless(part) for name, part in value.items() if name not in CLOCKS}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def facts(folder: Path) -> dict[str, Any]:
    """Returns everything that must be equal at the end of a run, by descriptive names."""
    run = folder / "run"
    entries: dict[str, Any] = {"checkpoints": sorted(folder.name for folder in (run / "checkpoints").glob("*"))}
    for which in ("last", "best"):
        entries[f"{which}.json"] = pointer = read(run / f"{which}.json")
        step = pointer.get("step", 0) if isinstance(pointer, dict) else 0
        checkpoint = run / "checkpoints" / f"step-{step:08d}"
        entries[f"{which} state"] = read(checkpoint / "state.json")
        for part in ("model", "optimizer", "ema"):
            entries[f"{which} {part}"] = checkpoint / f"{part}.safetensors"
    entries["summary"] = read(run / "summary.json")
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    entries |= {f"metrics, line {number}": as_json(line) for number, line in enumerate(lines, start=1)}
    entries["metrics, lines"] = len(lines)
    for name in ("config.yaml", "choices.json", "data.json"):
        entries[name] = (run / name).read_text() if (run / name).exists() else None
    for root in (run / "assets", folder / "cache"):
        for file in sorted(path for path in root.rglob("*") if path.is_file() and path.name[0] != "."):
            entries[f"file {file.relative_to(folder)}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return entries


def read(file: Path) -> Any:
    """Returns the value of a JSON file without times, or `missing`."""
    return as_json(file.read_text()) if file.exists() else "missing"


def as_json(text: str) -> Any:
    """Returns the value of a JSON text without times, or the text if it is not JSON."""
    try:
        return timeless(json.loads(text))
    except ValueError:
        return text


def differences(expected: Path, folder: Path) -> list[str]:
    """Returns a line for every difference between two runs."""
    first, second, lines = facts(expected), facts(folder), []
    for name in dict.fromkeys([*first, *second]):
        one, other = first.get(name, "not present"), second.get(name, "not present")
        if isinstance(one, Path) and isinstance(other, Path):
            lines += different_tensors(name, one, other)
        elif one != other:
            lines.append(f"{name}: {first_difference(one, other)}")
    return lines


def first_difference(one: Any, other: Any) -> str:
    """Describes the difference of two values; for mappings, of the first entry that differs."""
    if isinstance(one, dict) and isinstance(other, dict):
        name = next(name for name in [*one, *other] if one.get(name, "missing") != other.get(name, "missing"))
        return f"{name}: {first_difference(one.get(name, 'missing'), other.get(name, 'missing'))}"
    return f"{str(one)[:160]} is expected, found {str(other)[:160]}"


def different_tensors(name: str, one: Path, other: Path) -> list[str]:
    """Describes the first tensor that differs, and the largest difference."""
    if not one.exists() or not other.exists():
        return [f"{name}: {other.name} is {'missing' if one.exists() else 'unexpected'}"] * (
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
            largest = (first[key].double() - second[key].double()).abs().max()
            return [f"{name}: {key} differs by up to {largest:.3g}"]
    return [f"{name}: equal tensors, but different bytes"]


def left_files(folder: Path) -> list[str]:
    """Returns a line for every temporary file in a finished run and in its cache."""
    paths = [path for root in (folder / "run", folder / "cache") for path in root.rglob("*")]
    return [f"{path.relative_to(folder)} is left" for path in paths if path.name[0] == "." and path.name != ".lock"]
