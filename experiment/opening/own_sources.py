"""What `--data` can name beside a dataset: folders, shards, manifests, tables; each as a data set whose every split is
all of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.base import Dataset
from ...data.corpus.whole_text import WholeText
from ...data.datasets.hugging_face import HuggingFace
from ...data.datasets.image_folder import ENDINGS, read_folder
from ...data.datasets.manifest import Manifest, rows_of
from ...data.samples.dataset import Columns, Renamed, SampleDataset, Samples
from ...data.shards.dataset import Shards, renamed
from ...data.shards.files import expand
from ...tokenizers.files.reading import DataError
from ..folder.reading import RunError

TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz")
MEMBERS = {
    "image": [ending.removeprefix(".") for ending in sorted(ENDINGS)],
    "sound": ["wav", "flac", "ogg", "mp3", "opus", "m4a"], "text": ["txt"], "label": ["cls"],
}  # fmt: skip
"""Which members of a shard a column of each kind may be."""


@dataclass(frozen=True)
class Whole(SampleDataset):
    """Some samples as a data set whose every split is all of them."""

    samples: Samples
    columns: tuple[str, ...]
    splits: tuple[str, ...] = ("train", "val", "test")

    def open(self, split: str) -> Samples:
        self.check_split(split)
        return self.samples


def folder_data(path: Path, wanted: Mapping[str, str]) -> Dataset:
    """A folder: what `save_to_disk` wrote, shards, images in class folders, or texts."""
    if os.path.exists(path / "dataset_dict.json") or os.path.exists(path / "state.json"):
        return table_data(path)
    if shards := sorted(str(file) for file in path.iterdir() if file.name.lower().endswith(TARS)):
        return shard_data(shards, wanted)
    if list(wanted.values()) == ["text"]:
        return WholeText(path=f"{path}/**/*.*")
    images, labels = [[name for name, kind in wanted.items() if kind == each] for each in ("image", "label")]
    if len(images) != 1:
        raise RunError(f"--data {path}: a folder of class folders holds images, but this run reads {', '.join(wanted)}")
    names = {images[0]: "image"} | dict.fromkeys(labels, "label")
    reading = {name: column_reader(source) for name, source in names.items()}
    return Whole(Renamed(read_folder(path), reading, names), tuple(names))


def column_reader(source: str) -> Any:
    """What reads one column off a sample."""
    return lambda row: row.get(source)


def shard_data(named: str | list[str], wanted: Mapping[str, str]) -> Dataset:
    """Shards, each column from the member that is of its kind, or of its name inside the member `json`."""
    paths = tuple(named if isinstance(named, list) else expand(named))
    shards = Shards(paths)
    if not len(shards):
        raise DataError(f"{paths[0]} holds no samples")
    first: Columns = shards[0]
    sources = {}
    for name, kind in wanted.items():
        members = [name, *MEMBERS.get(kind, [])]
        inside = first.get("json") if isinstance(first.get("json"), dict) else {}
        found = next((member for member in members if member in first), f"json.{name}" if name in inside else None)
        if found is None:
            raise DataError(
                f"{paths[0]}: no member of its samples ({', '.join(first)}) is the column {name!r} ({kind})"
            )
        sources[name] = found
    return Whole(renamed(shards, sources), tuple(sources))


def manifest_data(path: Path, wanted: Mapping[str, str]) -> Dataset:
    """A manifest; columns that are no texts and no labels hold paths."""
    _, first = next(rows_of(path), (0, {}))
    columns = [name for name in wanted if name in first] or list(first)
    files = [name for name in columns if wanted.get(name, "label") not in ("text", "label")]
    return Whole(Manifest(train=str(path), columns=columns, files=files).read(path), tuple(columns))


def table_data(path: Path) -> Dataset:
    """A table of the `datasets` library, all of it."""
    dataset = HuggingFace(path=str(path))
    names = list(dataset.tables)
    whole = HuggingFace(path=str(path), train=names[0], val=names[0], test=names[0])
    return Whole(whole.opened("test"), whole.columns)
