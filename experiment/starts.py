"""Configurations for data of the user (`chopmix new`): the data are inspected, and a commented YAML is written that
trains as it is."""

from __future__ import annotations

import os
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..data.datasets.idx import IMAGES, Idx
from ..data.datasets.image_folder import ImageFolder
from ..data.datasets.manifest import rows_of
from ..data.samples import Samples
from ..files.reading import DataError
from ..tokenizers.media.files import read_picture
from .run_folder import RunError

INSPECTED = 500
"""The largest number of files that are opened to find sizes, rates and durations."""
SOUNDS = {".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif"}
GROUPS = ("speaker", "subject", "patient", "person", "group", "session", "user", "machine")
"""Names of columns by which train and val are separated, if a table has one of them."""
TARGETS = ("label", "class", "target", "category", "state")
"""Names of columns that are probably the target."""
TIMES = ("time", "timestamp", "datetime", "date", "seconds", "t")
"""Names of columns that are probably the time."""


@dataclass
class Start:
    """A configuration as text, and what was found in the data."""

    header: list[str]
    """The lines of the comment at the beginning of the file, without `#`."""
    inputs: list[str]
    """The lines of each section, without the name of the section and its indentation."""
    model: Mapping[str, Any]
    tasks: list[str]
    data: list[str]
    training: Mapping[str, Any]
    best: str
    found: list[str] = field(default_factory=list)
    """Sentences about the data, for the terminal."""
    samples: int = 0
    """The number of samples; 0 for texts."""

    @property
    def epochs(self) -> str:
        """The comment on the number of steps."""
        read = self.training["steps"] * self.training.get("samples_per_step", 0)
        return (
            f"  # reads each of {self.samples:,} samples about {read / self.samples:.1f} times" if self.samples else ""
        )

    def text(self) -> str:
        """Returns the YAML. `{command}` in the header is replaced when the file is written."""
        model, training = self.model, self.training
        comment = "\n".join(f"# {line}" for line in (*self.header, *self.found))
        return f"""{comment}
inputs:
{textwrap.indent(chr(10).join(self.inputs), "  ")}
model:
  width: {model["width"]}
  depth: {model["depth"]}
  heads: {model["width"] // 32}
  context: {model["context"]}  # the largest number of tokens in a sample
  attention: {model["attention"]}
  position: {model["position"]}
  block:
    norm: {{use: layer_norm, gain: false}}
    query_key_norm: {{use: layer_norm, gain: false}}
    feed_forward: squared_relu
    bias: false
  initialization: zero_projections
  dropout: {model["dropout"]}
tasks:
{textwrap.indent(chr(10).join(self.tasks), "  ")}
data:
{textwrap.indent(chr(10).join(self.data), "  ")}
training:
  steps: {training["steps"]}{self.epochs}
{chr(10).join(f"  {key}: {value}" for key, value in training.items() if key != "steps")}
  learning_rate: 0.02
  optimizer: {{use: muon, embeddings: 0.5, heads: 0.2, others: 0.1, weight_decay: 0.05}}
  schedule: {{use: warmup_stable_decay, decay: 0.7}}
  clip: null
evaluation: {{every: {max(1, training["steps"] // 8)}}}
checkpoints: {{best: {self.best}}}
"""


def training_of(samples: int, most: int = 1000) -> dict[str, Any]:
    """Returns the batch size and the number of steps for a number of training samples: about 30 epochs, but at least
    200 and at most `most` steps."""
    batch = 64 if samples >= 640 else max(4, samples // 10)
    return {"steps": int(np.clip(30 * samples / batch, 200, most)), "samples_per_step": batch}


def quoted(value: object) -> str:
    """Returns a text as it is written in a YAML, also inside of braces."""
    text = str(value)
    if re.fullmatch(r"[A-Za-z_./~][\w./~-]*", text) and yaml.safe_load(text) == text:
        return text
    return yaml.safe_dump(text, default_style='"', width=10**9).strip()


def model_of(context: int, samples: int, **more: Any) -> dict[str, Any]:
    """Returns the sizes of a model for inputs of `context` tokens."""
    small = samples < 2000
    sizes = {"width": 64 if small else 96, "depth": 4, "dropout": 0.2 if small else 0.1, "context": context}
    return sizes | {"attention": "same_sample", "position": "rotary"} | more


# -------------------------------------------------------------------------------------------------------------- labels


def classes_line(counts: Counter) -> str:
    """Returns a sentence about the classes and their numbers of samples."""
    listed = ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(12))
    return f"{len(counts)} classes: {listed}{', ...' if len(counts) > 12 else ''}"


def classification(counts: Counter, column: str) -> list[str]:
    """Returns the lines of a task that predicts the classes in a column. Raises RunError for fewer than two classes."""
    if len(counts) < 2:
        raise RunError(f"there is only one class, {next(iter(counts), 'none')!r}; at least two are needed")
    balanced = max(counts.values()) > 4 * min(counts.values())
    weights = ", class_weights: balanced" if balanced else ""
    return [f"{name_of(column)}: {{use: classification, target: {quoted(column)}, label_smoothing: 0.1{weights}}}"]


def name_of(column: str) -> str:
    """Returns a valid name of a task for a column."""
    name = "".join(character if character.isalnum() else "_" for character in column)
    return (
        f"{name}_class"
        if name in ("train", "type", "half", "float", "double", "name") or not name[0].isalpha()
        else name
    )


def split_of(counts: Counter | None, column: str | None, group: str | None = None) -> list[str]:
    """Returns the line of the division into splits."""
    columns = ([f"stratify: {quoted(column)}"] if counts else []) + ([f"group: {quoted(group)}"] if group else [])
    if counts and min(counts.values()) < 3:
        columns = columns[1:]
    return [f"split: {{{', '.join(['val: 0.1', 'test: 0.1', *columns])}}}"]


# -------------------------------------------------------------------------------------------------------------- images


def images(path: Path, encoder: str | None = None) -> Start:
    """Returns the configuration of an image classifier. `path` is a folder with one folder of images per class, or a
    folder with IDX files. `encoder` is a trained run with an image input, which is used as a frozen encoder. Raises
    DataError or RunError if there are no images of at least two classes."""
    idx = sorted(path.glob(f"*{IMAGES}*"))
    if idx:
        named = {split: next((file for file in idx if split in file.name), None) for split in ("train", "t10k", "test")}
        train = named["train"] or idx[0]
        test = named["t10k"] or named["test"]
        samples = Idx(train=str(train)).read(str(train))
        dataset = f"{{use: idx, train: {quoted(train)}" + (f", test: {quoted(test)}" if test else "") + "}"
        own_test = test is not None
    else:
        samples, own_test = ImageFolder(train=str(path)).read(str(path)), False
        dataset = f"{{use: image_folder, train: {quoted(path)}}}"
    counts = Counter(samples.column("label"))
    sizes, colour, bad = inspected_images(samples)
    sides = np.array(sizes)
    side = int(np.median(sides.min(axis=1)))
    same = len(set(sizes)) == 1
    size, patch = image_sizes(side)
    found = [
        f"{len(samples):,} images of {sides[:, 1].min()} x {sides[:, 0].min()}"
        + ("" if same else f" to {sides[:, 1].max()} x {sides[:, 0].max()}")
        + f" pixels, {'in colour' if colour else 'grey'}{f'; {bad} of {len(sizes) + bad} cannot be read' * bool(bad)}",
        classes_line(counts),
    ]
    tokens = (size // patch) ** 2
    shift = max(1, size // 14)
    flip = ", flip: true" if colour else ""
    lines = [
        "image:", "  use: image", f"  size: {size}  # images are scaled to this size",
        f"  patch_size: {patch}  # {tokens} tokens per image", f"  channels: {3 if colour else 1}",
        f"  augment: {{use: image_augmentation, shift: {shift}{flip}}}",
    ]  # fmt: skip
    if encoder:
        name, tokens = encoder_input(encoder, "image")
        lines = [
            f"image: {{use: encoded, run: {quoted(encoder)}, input: {name}}}  # frozen: its weights are not trained"
        ]
    data = [f"dataset: {dataset}"] + ([] if own_test else split_of(counts, "label"))
    data += ["bad_share: 0.1  # at most a tenth of the images may be unreadable"] * bool(bad)
    return Start(
        header=["Which class does an image show?"], inputs=lines, model=model_of(tokens + 1, len(samples)), data=data,
        tasks=classification(counts, "label"), training=training_of(len(samples)),
        samples=len(samples), best="val/accuracy", found=found,
    )  # fmt: skip


def inspected_images(samples: Samples) -> tuple[list[tuple[int, int]], bool, int]:
    """Returns (the sizes (height, width) of some images, whether one of them has colours, the number of images that
    cannot be read). Raises DataError if none can be read."""
    sizes, colour, bad = [], False, 0
    for number in np.linspace(0, len(samples) - 1, min(INSPECTED, len(samples))).astype(int).tolist():
        value = samples.row(number, ("image",))["image"]
        try:
            array = value if isinstance(value, np.ndarray) else np.asarray(read_picture(value).convert("RGB"))
        except (ValueError, OSError):
            bad += 1
            continue
        sizes.append(array.shape[:2])
        colour = colour or (array.ndim == 3 and bool((array != array[..., :1]).any()))
    if not sizes:
        raise DataError("none of the images can be read")
    return sizes, colour, bad


def image_sizes(side: int) -> tuple[int, int]:
    """Returns (size, patch size) for images with this shorter side: about 8 x 8 patches, at most 64 x 64 pixels."""
    size = side if side <= 32 else 32 if side < 48 else 64
    divisors = [patch for patch in range(1, size + 1) if size % patch == 0 and size // patch <= 14]
    return size, min(divisors, key=lambda patch: abs(size / patch - 8))


def encoder_input(run: str, kind: str) -> tuple[str, int]:
    """Returns (the name of the input of a run that reads this kind of data, the run's context). Raises RunError if
    there is none."""
    from .run import load_run

    loaded = load_run(run)
    names = [name for name, chopper in loaded.choppers.items() if chopper.kind == kind]
    if not names:
        raise RunError(
            f"--encoder {run}: this run has no input of the kind {kind!r}; it has {', '.join(loaded.choppers)}"
        )
    return names[0], loaded.model.context


# -------------------------------------------------------------------------------------------------------------- sounds


def sounds(path: Path, encoder: str | None = None) -> Start:
    """Returns the configuration of a sound classifier, or of a regression. `path` is a manifest (CSV, TSV or JSONL)
    with a column of paths and a column of labels, or a folder with one folder of sounds per class; for a folder the
    manifest `FOLDER.csv` is written. Raises DataError or RunError if there are no sounds, or no labels."""
    import soundfile

    manifest = path if path.is_file() else write_manifest(path)
    rows = [row for _, row in rows_of(manifest)]
    if not rows:
        raise DataError(f"{manifest} has no rows")
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = next((name for name in names if holds_files(manifest, rows, name)), None)
    if file is None:
        raise RunError(f"{manifest}: no column holds paths of existing files; the columns are {', '.join(names)}")
    label = target_of(rows, [name for name in names if name not in (file, "key")])
    group = next((name for name in names if name.lower() in GROUPS and name not in (file, label)), None)
    rates, lengths, bad = Counter(), [], 0
    for number in np.linspace(0, len(rows) - 1, min(INSPECTED, len(rows))).astype(int).tolist():
        try:
            info = soundfile.info(str(manifest.parent / str(rows[number][file])))
            rates[info.samplerate] += 1
            lengths.append(info.duration)
        except (RuntimeError, OSError, TypeError):
            bad += 1
    if not lengths:
        raise DataError(f"{manifest}: none of the sounds in column {file!r} can be read")
    rate = min(rates.most_common(1)[0][0], 16000)
    longest = float(np.ceil(np.percentile(lengths, 95) * 10) / 10)
    frames = int(np.clip(round(longest / 0.01 / 64), 2, 40))
    tokens = int(np.ceil((longest / 0.01 + 1) / frames)) + 1
    found = [
        f"{len(rows):,} sounds of {min(lengths):.1f} to {max(lengths):.1f} s at "
        f"{', '.join(f'{hertz:,} Hz' for hertz in rates)}"
        + f"; {bad} of {len(lengths) + bad} cannot be read"
        * bool(bad)
    ]
    values = [row[label] for row in rows if row.get(label) not in (None, "")]
    columns = ", ".join(map(quoted, [file, label, *([group] if group else [])]))
    dataset = f"{{use: manifest, train: {quoted(manifest)}, columns: [{columns}], files: [{quoted(file)}]}}"
    start = labelled(values, label, group, len(rows), found)
    lines = [
        "sound:", "  use: audio", f"  rate: {rate}", "  mels: 40",
        f"  frames: {frames}  # 10 ms each: about {tokens - 1} tokens",
        f"  longest: {longest}  # seconds; longer sounds are cut", "  position: null",
        "  augment_wave: {shift: 0.1, speed: 0.1, gain: 6, noise: [15, 40]}",
        "  augment: {use: spectrogram_augmentation, mels: 8, frames: 8, stripes: 1}",
    ]  # fmt: skip
    if encoder:
        name, tokens = encoder_input(encoder, "sound")
        lines = [
            f"sound: {{use: encoded, run: {quoted(encoder)}, input: {name}}}  # frozen: its weights are not trained"
        ]
    data = [
        f"dataset: {dataset}",
        *([f"columns: {{sound: {quoted(file)}}}"] if file != "sound" else []),
        *start["data"],
    ]
    data += ["bad_share: 0.1  # at most a tenth of the sounds may be unreadable"] * bool(bad)
    return Start(
        header=[f"What is the {label} of a sound?"], inputs=lines, model=model_of(tokens + 1, len(rows)), data=data,
        tasks=start["tasks"], training=training_of(len(rows), 600), samples=len(rows),
        best=start["best"], found=start["found"],
    )  # fmt: skip


def write_manifest(folder: Path) -> Path:
    """Writes the manifest of a folder with one folder of sounds per class, next to the folder. Returns its path."""
    import csv

    from ..files.writing import atomic_file

    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SOUNDS and file.parent != folder)
    if not files:
        raise DataError(f"{folder} has no sounds in folders named by class; possible: {', '.join(sorted(SOUNDS))}")
    manifest = folder.with_name(f"{folder.name}.csv")
    if manifest.exists():
        raise RunError(f"{manifest} exists already; use it instead of the folder: chopmix new sounds {manifest}")
    with atomic_file(manifest, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sound", "label"])
        writer.writerows([os.path.relpath(path, manifest.parent), path.relative_to(folder).parts[0]] for path in files)
    return manifest


def holds_files(manifest: Path, rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Returns whether most of the first values of a column are paths of existing files."""
    values = [row.get(name) for row in rows[:50] if isinstance(row.get(name), str)]
    return 2 * sum(os.path.isfile(manifest.parent / value) for value in values) > len(rows[:50])


def target_of(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Returns the column that is probably the target: one with such a name, else the column with the fewest different
    values (at least two). Raises RunError if there is no such column."""
    numbers = {name: len({str(row.get(name)) for row in rows if row.get(name) not in (None, "")}) for name in names}
    candidates = [name for name in names if numbers[name] >= 2 and name.lower() not in GROUPS] or [
        name for name in names if numbers[name] >= 2
    ]
    if not candidates:
        raise RunError(f"no column is a target: {', '.join(names) or 'there are no other columns'}")
    named = [name for name in candidates if name.lower() in TARGETS]
    return named[0] if named else min(candidates, key=numbers.__getitem__)


def labelled(values: Sequence[Any], label: str, group: str | None, samples: int, found: list[str]) -> dict[str, Any]:
    """Returns the task, the division, the best metric and sentences for the values of a target column: a class, or a
    number if there are many different numbers."""
    if len(set(map(str, values))) > 30 and all(map(is_number, values)):
        numbers = [float(value) for value in values]
        found = [*found, f"{label}: numbers from {min(numbers):g} to {max(numbers):g}"]
        return {"tasks": [f"{name_of(label)}: {{use: regression, target: {quoted(label)}}}"], "best": "val/loss",
                "data": split_of(None, None, group), "found": found}  # fmt: skip
    counts = Counter(map(str, values))
    return {"tasks": classification(counts, label), "best": "val/accuracy", "data": split_of(counts, label, group),
            "found": [*found, classes_line(counts)]}  # fmt: skip


def is_number(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


# -------------------------------------------------------------------------------------------------------------- tables


def table(path: Path, encoder: str | None = None) -> Start:
    """Returns the configuration for a table of measurements over time: it classifies windows if the table has a column
    of classes, and predicts the next measurements otherwise. Raises DataError or RunError if the table cannot be
    read, or has no column of times or no channel."""
    from ..data.datasets.table import arrow_readers, column_names, parts_of, times_of

    arrow_readers()
    names = column_names(path)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    types: dict[str, Any] = {}
    for batch in parts_of(path, names[0], {}, names[1:]):
        for name in names:
            columns[name] += batch.column(name).to_pylist()
            types[name] = batch.column(name).type
        if len(columns[names[0]]) > 200_000:
            break
    time = next((name for name in names if name.lower() in TIMES), names[0])
    seconds = np.concatenate([times_of(b.column(time), time, path, 0)[0] for b in parts_of(path, time, {}, [])])
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
    if step <= 0:
        raise RunError(f"{path}: the times in column {time!r} do not increase")
    numeric = [name for name in names if name != time and mostly_numbers(columns[name])]
    text = [name for name in names if name not in (time, *numeric) and 2 <= len(known(columns[name])) <= 30]
    whole = [name for name in numeric if name.lower() in TARGETS and len(known(columns[name])) <= 30]
    label = next((name for name in (*text, *whole) if name.lower() in TARGETS), text[0] if text else None)
    channels = [name for name in numeric if name != label]
    if not channels:
        raise RunError(f"{path} has no column of numbers except the time; its columns are {', '.join(names)}")
    streams = streams_of({name: columns[name] for name in channels}, step)
    rows = 32 if len(seconds) > 3000 else 8
    every = int(np.clip(len(seconds) // 2000, 1, rows // 2))
    window, stride, samples = rows * step, every * step, max(0, len(seconds) - rows) // every + 1
    found = [
        f"{len(seconds):,} rows, one every {duration(step)}; {len(channels)} channels in {len(streams)} stream(s)",
        f"windows of {duration(window)}, a new one every {duration(stride)}: about {samples:,} samples",
    ]
    parts = ", ".join(f"{name}: {{columns: [{', '.join(map(quoted, c))}]}}" for name, (c, _) in streams.items())
    dataset = [
        "dataset:", "  use: table", f"  train: {quoted(path)}", f"  time: {quoted(time)}",
        f"  window: {duration(window)}", f"  stride: {duration(stride)}", f"  streams: {{{parts}}}",
    ]  # fmt: skip
    inputs, tokens = [], 0
    for name, (stream, share) in streams.items():
        inputs += [
            f"{name}: {{use: sensor, channels: {{{', '.join(f'{quoted(c)}: null' for c in stream)}}}, position: null}}"
        ]
        tokens += int(np.ceil(rows * share)) + 1
    split = ["split: {val: 0.15, test: 0.15}  # in the order of time, with a gap of one window"]
    if label:
        counts = Counter(str(value) for value in columns[label] if value not in (None, ""))
        dataset += [f"  label: {{column: {quoted(label)}, at: last}}"]
        tasks, best, attention = classification(counts, label), "val/accuracy", "same_sample"
        found.append(classes_line(counts))
    else:
        name = next(iter(streams))
        tasks, best, attention = (
            [f"next: {{use: next_item, target: {name}, at: {name}}}"],
            "val/loss",
            "same_sample & causal",
        )
    question = f"What is the {label} in a window of measurements?" if label else "What are the next measurements?"
    return Start(
        header=[question], inputs=inputs, model=model_of(tokens + 1, samples, attention=attention),
        tasks=tasks, data=[*dataset, *split], training=training_of(int(samples * 0.7)), samples=samples,
        best=best, found=found,
    )  # fmt: skip


def known(values: Iterable[Any]) -> set[str]:
    return {str(value) for value in values if value not in (None, "")}


def mostly_numbers(values: Sequence[Any]) -> bool:
    """Returns whether all values that are not missing are numbers, and there is at least one."""
    present = [value for value in values if value not in (None, "")]
    return bool(present) and all(map(is_number, present))


def streams_of(columns: Mapping[str, Sequence[Any]], step: float) -> dict[str, tuple[list[str], float]]:
    """Returns the streams: channels that are measured in the same rows form one stream. Maps the name of each stream to
    (its channels, the share of rows with a measurement)."""
    groups: dict[bytes, list[str]] = {}
    for name, values in columns.items():
        present = np.array([value not in (None, "") for value in values])
        rare = present.mean() < 0.8
        groups.setdefault(np.packbits(present).tobytes() if rare else b"", []).append(name)
    streams = {}
    for number, names in enumerate(groups.values(), start=1):
        share = float(np.mean([value not in (None, "") for value in columns[names[0]]]))
        streams["sensor" if len(groups) == 1 else f"sensor_{number}"] = names, share
    return streams


def duration(seconds: float) -> str:
    """Returns a duration as the data set `table` reads it: `5 s`, `250 ms`, `12 h`."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= size and abs(seconds / size - round(seconds / size, 2)) < 1e-9:
            return f"{seconds / size:g} {unit}"
    return f"{seconds * 1000:g} ms"


# --------------------------------------------------------------------------------------------------------------- texts


def text(path: Path, encoder: str | None = None) -> Start:
    """Returns the configuration of a language model. `path` is a file, or a folder with texts (`.txt`, `.md`, `.py`,
    ...). Raises DataError if there is no text."""
    if path.is_file():
        pattern, files = str(path), [path]
    else:
        endings = Counter(file.suffix for file in path.rglob("*") if file.is_file())
        ending = max((e for e in endings if e in (".txt", ".md", ".py", ".rst", ".tex", ".jsonl")), default=None,
                     key=lambda e: endings[e])  # fmt: skip
        if ending is None:
            raise DataError(f"{path} has no texts (.txt, .md, .py, .rst, .tex, .jsonl)")
        pattern, files = f"{path}/**/*{ending}", [file for file in path.rglob(f"*{ending}") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    if size < 2000:
        raise DataError(f"{path} has only {size} bytes of text; at least 2,000 are needed")
    vocabulary = 257 if size < 200_000 else 1024 if size < 2_000_000 else 4096
    encoding = "bytes" if vocabulary == 257 else f"bpe, vocabulary: {vocabulary}"
    context = 128 if size < 200_000 else 256
    steps = int(np.clip(size / (3.5 if vocabulary > 257 else 1) * 8 / 2048, 200, 400))
    return Start(
        header=["A language model."], found=[f"{len(files):,} file(s), {size:,} bytes"],
        inputs=[f"text: {{use: text, encoding: {encoding}, position: null}}"],
        model={"width": 128, "depth": 4, "dropout": 0.1 if size < 2_000_000 else 0.0, "context": context,
               "attention": "causal & same_sample", "position": "rotary"},
        tasks=["lm: {use: language_modeling, target: text, head: unembedding}"],
        data=[f"dataset: {{use: text, train: {quoted(pattern)}}}"],
        training={"steps": steps, "tokens_per_step": 2048}, best="val/loss",
    )  # fmt: skip


KINDS: Mapping[str, Callable[[Path, str | None], Start]] = {
    "images": images, "sounds": sounds, "table": table, "text": text,
}  # fmt: skip
"""The kinds of data, and the function that inspects them."""


def write_start(kind: str, path: Path, output: Path | None, encoder: str | None) -> tuple[Path, Start]:
    """Inspects data and writes the configuration (default: `NAME.yaml` in the working directory). Returns (file,
    configuration). Raises RunError if the file exists, or if there are no data at `path`."""
    from ..files.writing import write_bytes

    if not os.path.exists(path):
        raise RunError(f"there is no file or folder {str(path)!r}")
    file = output or Path(f"{path.stem or path.absolute().name}.yaml")
    if file.exists():
        raise RunError(f"{file} exists already; name another file with --output")
    start = KINDS[kind](path, encoder)
    start.header.append(f"  chopmix train {file}")
    write_bytes(file, start.text().encode())
    return file, start
