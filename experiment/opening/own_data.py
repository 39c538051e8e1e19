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
from pathlib import Path

import yaml
from pydantic import ValidationError

from ...data.base import Dataset
from ...data.data_files import READERS
from ...data.datasets.text import Text
from ...tokenizers.files.trust import EVERYTHING
from ..folder.reading import RunError
from ..settings.document import read_yaml
from ..settings.names import rename
from ..settings.registry import registry_of, trusting
from ..settings.schema import Choice
from .own_sources import TARS, folder_data, manifest_data, shard_data, table_data

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
