"""`chopmix new sounds`: a classifier of sounds, or a regression, from a list of paths and labels."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...data.datasets.manifest import numbered_rows
from ...files.errors import UsageError
from ...files.reading import DataError
from ...files.writing import atomic_file
from .start import (
    BAD_SHARE,
    FROZEN,
    GROUPS,
    INSPECTED,
    FileInput,
    Start,
    bad_share_of,
    encoder_input,
    labelled,
    model_of,
    target_of,
    training_of,
)

SOUNDS = {".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif"}


def sounds(path: Path, encoder: str | None = None) -> Start:
    """Returns the configuration of a sound classifier, or of a regression. `path` is a manifest (CSV, TSV or JSONL)
    with a column of paths and a column of labels, or a folder with one folder of sounds per class; for a folder the
    manifest `FOLDER.csv` is written. Raises DataError or UsageError if there are no sounds, or no labels."""
    manifest = path if path.is_file() else write_manifest(path)
    rows = [row for _, row in numbered_rows(manifest)]
    if not rows:
        raise DataError(f"{manifest} has no rows")
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = next((name for name in names if holds_files(manifest, rows, name)), None)
    if file is None:
        raise UsageError(f"{manifest}: no column holds paths of existing files; the columns are {', '.join(names)}")
    label = target_of(rows, [name for name in names if name not in (file, "key")])
    group = next((name for name in names if name.lower() in GROUPS and name not in (file, label)), None)
    found = sound_input(manifest, rows, file)
    values = [row[label] for row in rows if row.get(label) not in (None, "")]
    columns = [file, label, *([group] if group else [])]
    dataset = {"use": "manifest", "train": str(manifest), "columns": columns, "files": [file]}
    start = labelled(values, label, group, [found.line(len(rows))])
    sound, tokens, comments = found.options, found.tokens, found.comments("sound")
    if encoder:
        (sound, tokens), comments = encoder_input(encoder, "sound"), {"inputs.sound": FROZEN}
    data = {"dataset": dataset, **({"columns": {"sound": file}} if file != "sound" else {}), **start["data"],
            **bad_share_of(found.bad, found.inspected)}  # fmt: skip
    return Start(
        question=f"What is the {label} of a sound?", inputs={"sound": sound}, data=data, tasks=start["tasks"],
        model=model_of(tokens + 1, len(rows)), training=training_of(len(rows), 600), samples=len(rows),
        best=start["best"], found=start["found"],
        comments=comments | ({"data.bad_share": BAD_SHARE} if found.bad else {}),
    )  # fmt: skip


def sound_input(manifest: Path, rows: Sequence[Mapping[str, Any]], file: str) -> FileInput:
    """Returns the input for the sounds whose paths are in the column `file`. Raises DataError if none can be read."""
    rates, lengths, bad = inspected_sounds(manifest, rows, file)
    rate = min(rates.most_common(1)[0][0], 16000)
    longest = float(np.ceil(np.percentile(lengths, 95) * 10) / 10)
    frames = int(np.clip(round(longest / 0.01 / 64), 2, 40))
    tokens = int(np.ceil((longest / 0.01 + 1) / frames)) + 1
    options = {
        "use": "audio", "rate": rate, "mels": 40, "frames": frames, "longest": longest, "position": None,
        "augment_wave": {"shift": 0.1, "speed": 0.1, "gain": 6, "noise": [15, 40]},
        "augment": {"use": "spectrogram_augmentation", "mels": 8, "frames": 8, "stripes": 1},
    }  # fmt: skip
    hertz = ", ".join(f"{rate:,} Hz" for rate in rates)
    text = f"{min(lengths):.1f} to {max(lengths):.1f} s at {hertz}"
    notes = {"frames": f"10 ms each: about {tokens - 1} tokens", "longest": "seconds; longer sounds are cut"}
    return FileInput("sounds", options, tokens, text, bad, len(lengths), notes)


def inspected_sounds(
    manifest: Path, rows: Sequence[Mapping[str, Any]], file: str
) -> tuple[Counter, list[float], list[str]]:
    """Returns (the sampling rates of some sounds, their durations in seconds, the number of sounds that cannot be
    read). Raises DataError if none can be read."""
    import soundfile

    rates, lengths, bad = Counter(), [], []
    for number in np.linspace(0, len(rows) - 1, min(INSPECTED, len(rows))).astype(int).tolist():
        if not rows[number].get(file):
            continue
        try:
            info = soundfile.info(str(manifest.parent / str(rows[number].get(file))))
        except (RuntimeError, OSError, TypeError):
            bad.append(str(rows[number].get(file)))
            continue
        rates[info.samplerate] += 1
        lengths.append(info.duration)
    if not lengths:
        raise DataError(f"{manifest}: none of the sounds in column {file!r} can be read")
    return rates, lengths, bad


def write_manifest(folder: Path) -> Path:
    """Writes the manifest of a folder with one folder of sounds per class, next to the folder. Returns its path."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SOUNDS and file.parent != folder)
    if not files:
        raise DataError(f"{folder} has no sounds in folders named by class; possible: {', '.join(sorted(SOUNDS))}")
    manifest = folder.with_name(f"{folder.name}.csv")
    if manifest.exists():
        raise UsageError(f"{manifest} exists already; use it instead of the folder: chopmix new sounds {manifest}")
    with atomic_file(manifest, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sound", "label"])
        writer.writerows([os.path.relpath(path, manifest.parent), path.relative_to(folder).parts[0]] for path in files)
    return manifest


def holds_files(manifest: Path, rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Returns whether most of the first values of a column are paths of existing files."""
    values = [row.get(name) for row in rows[:50] if isinstance(row.get(name), str)]
    return 2 * sum(os.path.isfile(manifest.parent / value) for value in values) > len(rows[:50])
