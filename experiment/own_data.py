"""`--data`: a data set from the command line.

    mnist    {use: image_folder, train: photos}     a data set as in a YAML
    photos/                                         a folder: class folders of images, shards, texts
    list.jsonl    list.csv    list.tsv              a manifest: one sample per line
    test-{000..004}.tar    test-*.tar               shards
    rows.parquet    rows.arrow                      a table of the `datasets` library; also a folder of `save_to_disk`
    book.txt    books/*.txt                         texts

Every split contains all samples, unless the data set has separate splits. With `{use: image_folder, train: photos}`,
for example, every split contains all photos."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from ..data.base import Dataset
from ..data.datasets.hugging_face import HuggingFace
from ..data.datasets.image_folder import ENDINGS, read_folder
from ..data.datasets.manifest import KEY, Manifest, numbered_rows
from ..data.datasets.text import Text
from ..data.hub_files import READERS
from ..data.sample_dataset import SampleDataset
from ..data.samples import Columns, Listed, Renamed, Samples
from ..data.shards import Shards, renamed
from ..data.tar_files import expand
from ..files.errors import RunError
from ..files.reading import DataError
from ..files.records import as_numbers
from ..files.trust import EVERYTHING
from .settings.document import read_yaml
from .settings.registry import registry_of, trusting
from .settings.schema import Choice

if TYPE_CHECKING:
    from .run import Run

MANIFESTS = (".jsonl", ".csv", ".tsv")


def dataset_for(run: Run, data: str, split: str, labels: bool = True) -> Dataset:
    """Returns the data set that `--data` names (see `named_dataset`), with the columns that a run reads; `labels`: also
    those that its tasks predict. A run on the data set `table` reads another table (CSV or parquet) in the same
    windows, and a run that was imported with one text as input a text file (`.txt`). Columns that the run joins to
    channels (`data.columns`) are joined. Raises RunError or DataError like `named_dataset`."""
    kinds, corpus = run.reads()
    kinds = {name: kind for name, kind in kinds.items() if labels or kind != "label"}
    joined = {name: list(columns) for name, columns in run.config.data.columns.items() if not isinstance(columns, str)}
    trained = run.config.data.dataset() if run.config.data.dataset else None
    path = Path(os.path.expanduser(data))
    is_table = os.path.isfile(path) and path.suffix.lower() in (".csv", ".parquet")
    if is_table and trained and (table := trained.like(str(path), labels)):
        dataset = table.whole()
    elif trained is None and list(kinds.values()) == ["text"] and path.suffix.lower() == ".txt":
        dataset = Text(train=data).whole()
    else:
        sources = {source: "file" for name in joined if name in kinds for source in joined[name]}
        named = {name: kind for name, kind in kinds.items() if name not in joined} | sources
        key = trained.key if isinstance(trained, Manifest) else KEY
        division = run.config.data.split
        further = [division.group] if division and division.group else []
        dataset = named_dataset(data, split, named, corpus, key, further)
    return dataset.with_channels(joined) if joined else dataset


def named_dataset(
    data: str, split: str, columns: Mapping[str, str], corpus: bool = False, key: str = KEY,
    further: Sequence[str] = (),
) -> Dataset:  # fmt: skip
    """Returns the data set that `--data` names: a folder, tar shards, a manifest, a table, text files, or a data set as
    in a YAML. `columns` maps the columns that the run reads to their kinds (`image`, `sound`, `text`, `label`, or
    `file` for any other kind): `{"image": "image", "digit": "label"}`. `corpus`: whether the run reads a text corpus.
    In a manifest, the column `key`, if there is one, has the keys of the samples, and the columns `further` are read,
    too.
    Raises RunError if there is no file or data set with this name, or if the run cannot read this kind of data. Raises
    DataError if a file is damaged, or if a required table, column or image is missing."""
    if data.lstrip().startswith("{"):
        return dataset_of(data).whole()
    path, lower = Path(os.path.expanduser(data)), data.lower()
    if os.path.isdir(path):
        return folder_data(path, columns, split)
    if lower.endswith(TARS) or ("{" in data and ".tar" in lower):
        return shard_data(data, columns)
    if os.path.isfile(path) and lower.endswith(MANIFESTS) and not corpus:
        return manifest_data(path, columns, key, further)
    if os.path.isfile(path) and path.suffix.lower() in READERS and path.suffix.lower() not in (*MANIFESTS, ".json"):
        return table_data(path, split)
    if os.path.isfile(path) or "*" in data:
        if not corpus:
            raise RunError(
                f"--data {data}: this run reads {', '.join(columns)}: name a manifest (JSONL, CSV), a folder or shards"
            )
        return Text(train=data).whole()
    return dataset_of(data).whole()


def dataset_of(text: str) -> Dataset:
    """Returns the data set that a text describes: a name, or a mapping such as a YAML contains. Raises RunError for any
    other text."""
    try:
        tree = read_yaml(text, {}, [])
        with trusting(EVERYTHING):
            return Choice(registry_of((Dataset,))).read(tree)()
    except yaml.YAMLError as error:
        raise RunError(f"--data {text!r}: invalid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(map(str, first["loc"]))
        hint = "" if text.lstrip().startswith("{") else "no such file or folder, and as a dataset: "
        raise RunError(f"--data {text}: {hint}{f'{path}: ' if path else ''}{first['msg']}") from None


TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz")
MEMBERS = {
    "image": [ending.removeprefix(".") for ending in sorted(ENDINGS)],
    "sound": ["wav", "flac", "ogg", "mp3", "opus", "m4a"], "text": ["txt"], "label": ["cls"],
}  # fmt: skip
"""The extensions of the files in a shard that can contain a column, by the kind of the column, in order of
preference."""


@dataclass
class Whole(SampleDataset):
    """A data set in which every split holds all samples."""

    samples: Samples
    columns: tuple[str, ...]
    splits: tuple[str, ...] = ("train", "val", "test")
    whole_of: str = ""

    def open(self, split: str) -> Samples:
        self.check_split(split)
        return self.samples


def folder_data(path: Path, columns: Mapping[str, str], split: str) -> Dataset:
    """Returns the data in a folder, as the first of these kinds that fits: a table that `save_to_disk` of the
    `datasets` library wrote; tar shards; all files as texts, if the run reads exactly one text; all files as sounds or
    images, if the run reads exactly one of them and no labels; images in class folders (`photos/cat/1.jpg`). Raises
    RunError if the folder has class folders and the run does not read exactly one image. Raises DataError if there are
    no such files, or if no table has the name `split`."""
    if os.path.exists(path / "dataset_dict.json") or os.path.exists(path / "state.json"):
        return table_data(path, split)
    if shards := sorted(str(file) for file in path.iterdir() if file.name.lower().endswith(TARS)):
        return shard_data(shards, columns)
    if list(columns.values()) == ["text"]:
        return Text(train=f"{path}/**/*.*").whole()
    if [*columns.values()] == ["sound"] or ([*columns.values()] == ["image"] and not has_class_folders(path)):
        return files_data(path, next(iter(columns.items())))
    images, labels = [[name for name, kind in columns.items() if kind == wanted] for wanted in ("image", "label")]
    if len(images) != 1:
        raise RunError(
            f"--data {path}: a folder of class folders holds images, but this run reads {', '.join(columns)}"
        )
    sources = {images[0]: "image"} | dict.fromkeys(labels, "label")
    readers = {name: methodcaller("get", source) for name, source in sources.items()}
    return Whole(Renamed(read_folder(path), readers, sources), tuple(sources), whole_of=str(path))


def has_class_folders(path: Path) -> bool:
    """Returns whether a folder has images only in folders inside it."""
    return not any(entry.suffix.lower() in ENDINGS for entry in path.iterdir())


def files_data(path: Path, column: tuple[str, str]) -> Dataset:
    """Returns the images or sounds in a folder, at any depth, sorted by path. `column` is the name of the column and
    its kind. Raises DataError if there are none."""
    name, kind = column
    endings = ENDINGS if kind == "image" else {f".{ending}" for ending in MEMBERS[kind]}
    files = sorted(Path(root, file) for root, _, found in os.walk(path) for file in found
                   if os.path.splitext(file)[1].lower() in endings)  # fmt: skip
    if not files:
        raise DataError(f"{path} has no {kind}s ({', '.join(sorted(endings))})")
    keys = [file.relative_to(path).as_posix() for file in files]
    return Whole(Listed(keys, [{name: file} for file in files]), (name,), whole_of=str(path))


TRIED = 100
"""The number of samples of tar shards that are read to find the names of the files in a sample."""


def shard_data(data: str | list[str], columns: Mapping[str, str]) -> Dataset:
    """Returns the data set in tar shards. The values of a column are the files in the shard with the column's name as
    extension; else the files with the first extension for its kind (see MEMBERS); else the values of the key with this
    name in the file `json` of each sample. The first TRIED samples decide for all samples. Raises DataError if a column
    has none of these, or if there are no samples."""
    paths = tuple(data if isinstance(data, list) else expand(data))
    shards = Shards(paths)
    if not len(shards):
        raise DataError(f"{paths[0]} holds no samples")
    members: Columns = {}
    json_keys: set[str] = set()
    for sample in (shards[number] for number in range(min(len(shards), TRIED))):
        members |= sample
        json_keys |= set(sample["json"]) if isinstance(sample.get("json"), dict) else set()
    sources = {}
    for name, kind in columns.items():
        candidates = [name, *MEMBERS.get(kind, [])]
        source = next(
            (member for member in candidates if member in members), f"json.{name}" if name in json_keys else None
        )
        if source is None:
            raise DataError(
                f"{paths[0]}: its samples have no member for column {name!r} ({kind}); members: {', '.join(members)}"
            )
        sources[name] = source
    return Whole(renamed(shards, sources), tuple(sources), whole_of=data if isinstance(data, str) else ", ".join(data))


def manifest_data(path: Path, kinds: Mapping[str, str], key: str = KEY, further: Sequence[str] = ()) -> Dataset:
    """Returns the data set of a manifest: a JSONL, CSV or TSV file with one sample per line. `kinds` maps columns to
    their kinds. Values of the kinds `text` and `label` are used unchanged. A column of any other kind contains paths of
    files, relative to the manifest's folder; but if its first non-empty value is a number or a list, and no file has
    this name, it contains numbers. For `key` and `further` see `named_dataset`."""
    first_values: dict[str, Any] = {}
    for _, row in numbered_rows(path):
        first_values |= {name: value for name, value in row.items() if first_values.get(name) in (None, "")}
        if all(first_values.get(name) not in (None, "") for name in kinds):
            break
    columns = [name for name in kinds if name in first_values] or list(first_values)
    read = [*columns, *(name for name in further if name in first_values and name not in columns)]
    files = [
        name
        for name in columns
        if kinds.get(name, "label") not in ("text", "label")
        and (isinstance(as_numbers(first_values[name]), str) or os.path.exists(path.parent / str(first_values[name])))
    ]
    key = key if key in first_values else KEY
    samples = Manifest(train=str(path), columns=read, files=files, key=key).read(path)
    return Whole(samples, tuple(read), whole_of=str(path))


TABLES: dict[str, tuple[str, ...]] = {"val": ("validation", "valid", "dev")}
"""Other usual names of the table of a split."""


def table_data(path: Path, split: str) -> Dataset:
    """Returns all rows of a table of the `datasets` library. From several tables (a `DatasetDict`), the table with the
    name `split` or another usual name of this split (`validation`) is used. Raises DataError if there is no such
    table."""
    tables = HuggingFace(path=str(path)).tables
    candidates = [*tables] if len(tables) == 1 else [name for name in (split, *TABLES.get(split, ())) if name in tables]
    if not candidates:
        raise DataError(f"{path} has no table for the split {split!r}; possible with --split: {', '.join(tables)}")
    table = HuggingFace(path=str(path), train=candidates[0], val=candidates[0], test=candidates[0])
    whole_of = str(path) if len(tables) == 1 else f"{path}, {candidates[0]}"
    return Whole(table.opened("test"), table.columns, tuple(dict.fromkeys((*Whole.splits, split))), whole_of)
