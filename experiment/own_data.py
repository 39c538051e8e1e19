"""`--data`: another data set, named on the command line.

    mnist    {use: image_folder, train: photos}     a dataset as a YAML writes it
    photos/                                         a folder: class folders of images, shards, texts, `save_to_disk`
    list.jsonl    list.csv    list.tsv              a manifest
    test-{000..004}.tar    test-*.tar               shards
    rows.parquet    rows.arrow                      a table of the `datasets` library
    book.txt    books/*.txt                         texts

All but a dataset with splits of its own are read whole, whichever split is asked for: of `{use: image_folder, train:
photos}`, too, no part is left out for training.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ..data.base import Dataset
from ..data.datasets.hugging_face import HuggingFace
from ..data.datasets.image_folder import ENDINGS, read_folder
from ..data.datasets.manifest import Manifest, rows_of
from ..data.datasets.text import Text
from ..data.samples import Columns, Renamed, SampleDataset, Samples
from ..data.shards import Shards, expand, renamed
from ..data.tables import READERS
from ..files.reading import DataError
from ..files.records import as_numbers
from ..files.trust import EVERYTHING
from .run_folder import RunError
from .settings.document import read_yaml
from .settings.hints import rename
from .settings.registry import registry_of, trusting
from .settings.schema import Choice

MANIFESTS = (".jsonl", ".csv", ".tsv")


def whole_data(named: str, split: str, wanted: Mapping[str, str], corpus: bool = False) -> Dataset:
    """The data set that `--data` names. `wanted` maps the columns that the run reads to their kinds (`image`, `sound`,
    `text`, `file` for any other, `label`): `{"image": "image", "digit": "label"}`; `corpus`: whether the run reads a
    text corpus. Raises RunError for a name or a kind of data that does not fit, DataError for damaged files."""
    if named.lstrip().startswith("{"):
        return dataset_of(named).whole()
    path, lower = Path(os.path.expanduser(named)), named.lower()
    if os.path.isdir(path):
        return folder_data(path, wanted, split)
    if lower.endswith(TARS) or ("{" in named and ".tar" in lower):
        return shard_data(named, wanted)
    if os.path.isfile(path) and lower.endswith(MANIFESTS) and not corpus:
        return manifest_data(path, wanted)
    if os.path.isfile(path) and path.suffix.lower() in READERS and path.suffix.lower() not in (*MANIFESTS, ".json"):
        return table_data(path, split)
    if os.path.isfile(path) or "*" in named:
        if not corpus:
            raise RunError(
                f"--data {named}: this run reads {', '.join(wanted)}: name a manifest (JSONL, CSV), a folder or shards"
            )
        return Text(train=named).whole()
    return dataset_of(named).whole()


def dataset_of(named: str) -> Dataset:
    """A dataset as a YAML writes it: its name, or a mapping with its options. Raises RunError where it is neither."""
    try:
        written = {"data": {"dataset": read_yaml(named, {}, [])}}
        if old := rename(written):
            raise RunError(f"--data {named}: {old[0]}")
        with trusting(EVERYTHING):
            return Choice(registry_of((Dataset,))).read(written["data"]["dataset"])()
    except yaml.YAMLError as error:
        raise RunError(f"--data {named!r}: no valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        hint = "" if named.lstrip().startswith("{") else "no such file or folder, and as a dataset: "
        raise RunError(f"--data {named}: {hint}{f'{where}: ' if where else ''}{first['msg']}") from None


TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz")
MEMBERS = {
    "image": [ending.removeprefix(".") for ending in sorted(ENDINGS)],
    "sound": ["wav", "flac", "ogg", "mp3", "opus", "m4a"], "text": ["txt"], "label": ["cls"],
}  # fmt: skip
"""By kind of column: the extensions of the shard members that may hold it, the first found first."""


@dataclass(frozen=True)
class Whole(SampleDataset):
    """Samples as a data set of which every split holds them all."""

    samples: Samples
    columns: tuple[str, ...]
    splits: tuple[str, ...] = ("train", "val", "test")
    whole_of: str = ""

    def open(self, split: str) -> Samples:
        self.check_split(split)
        return self.samples


def folder_data(path: Path, wanted: Mapping[str, str], split: str) -> Dataset:
    """A folder: what the `datasets` library's `save_to_disk` wrote, shards, for a run that reads one text all files
    below it as texts, else images in class folders (`photos/cat/1.jpg`). Raises RunError where a run of other inputs
    than one image is given class folders, DataError for a folder without images, or tables of which none is `split`."""
    if os.path.exists(path / "dataset_dict.json") or os.path.exists(path / "state.json"):
        return table_data(path, split)
    if shards := sorted(str(file) for file in path.iterdir() if file.name.lower().endswith(TARS)):
        return shard_data(shards, wanted)
    if list(wanted.values()) == ["text"]:
        return Text(train=f"{path}/**/*.*").whole()
    images, labels = [[name for name, kind in wanted.items() if kind == each] for each in ("image", "label")]
    if len(images) != 1:
        raise RunError(f"--data {path}: a folder of class folders holds images, but this run reads {', '.join(wanted)}")
    names = {images[0]: "image"} | dict.fromkeys(labels, "label")
    reading = {name: methodcaller("get", source) for name, source in names.items()}
    return Whole(Renamed(read_folder(path), reading, names), tuple(names), whole_of=str(path))


TRIED = 100
"""Of how many samples of tar shards the members are looked at."""


def shard_data(named: str | list[str], wanted: Mapping[str, str]) -> Dataset:
    """Tar shards. A column is the member with its name as extension, else the first of its kind (see MEMBERS), else the
    key of its name inside the member `json`; the first `TRIED` samples decide for all. Raises DataError where there is
    none."""
    paths = tuple(named if isinstance(named, list) else expand(named))
    shards = Shards(paths)
    if not len(shards):
        raise DataError(f"{paths[0]} holds no samples")
    first: Columns = {}
    inside: set[str] = set()
    for sample in (shards[number] for number in range(min(len(shards), TRIED))):
        first |= sample
        inside |= set(sample["json"]) if isinstance(sample.get("json"), dict) else set()
    sources = {}
    for name, kind in wanted.items():
        members = [name, *MEMBERS.get(kind, [])]
        found = next((member for member in members if member in first), f"json.{name}" if name in inside else None)
        if found is None:
            raise DataError(
                f"{paths[0]}: no member of its samples ({', '.join(first)}) is the column {name!r} ({kind})"
            )
        sources[name] = found
    return Whole(
        renamed(shards, sources), tuple(sources), whole_of=named if isinstance(named, str) else ", ".join(named)
    )


def manifest_data(path: Path, wanted: Mapping[str, str]) -> Dataset:
    """A manifest: a JSONL, CSV or TSV file of one sample a line. Columns of other kinds than text and label hold paths
    relative to its folder, or numbers if their first value is a number or a list and no such file exists."""
    first: dict[str, Any] = {}
    for _, row in rows_of(path):
        first |= {name: value for name, value in row.items() if first.get(name) in (None, "")}
        if all(first.get(name) not in (None, "") for name in wanted):
            break
    columns = [name for name in wanted if name in first] or list(first)
    files = [
        name
        for name in columns
        if wanted.get(name, "label") not in ("text", "label")
        and (isinstance(as_numbers(first[name]), str) or os.path.exists(path.parent / str(first[name])))
    ]
    found = Manifest(train=str(path), columns=columns, files=files).read(path)
    return Whole(found, tuple(columns), whole_of=str(path))


TABLES: dict[str, tuple[str, ...]] = {"val": ("validation", "valid", "dev")}
"""What else data sets call the table of a split."""


def table_data(path: Path, split: str) -> Dataset:
    """All rows of a table of the `datasets` library; where there are several tables (a `DatasetDict`), of the one that
    is called as `split`, or as others call it (`validation`). Raises DataError where none is."""
    tables = HuggingFace(path=str(path)).tables
    called = [*tables] if len(tables) == 1 else [name for name in (split, *TABLES.get(split, ())) if name in tables]
    if not called:
        raise DataError(f"{path} has no table for the split {split!r}, but {', '.join(tables)}; --split says which")
    whole = HuggingFace(path=str(path), train=called[0], val=called[0], test=called[0])
    whole_of = str(path) if len(tables) == 1 else f"{path}, {called[0]}"
    return Whole(whole.opened("test"), whole.columns, tuple(dict.fromkeys((*Whole.splits, split))), whole_of)
