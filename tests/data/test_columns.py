"""One column of the samples of every data set: it equals that column of the complete sample, and nothing else is read
or computed for it."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import sys
import types
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from chopmix.data.base import Dataset
from chopmix.data.datasets import archive, arithmetic
from chopmix.data.datasets.table import TableLabel, TableStream
from chopmix.data.division import Balanced
from chopmix.data.fingerprint import Fingerprint
from chopmix.data.generated import ByLabel, Made
from chopmix.data.mixture import Source
from chopmix.data.rollouts import RolledOut
from chopmix.data.samples import ByColumn, Changed, Channels, Joined, Samples, Visible
from chopmix.data.shards import Shards
from chopmix.experiment.own_data import Whole, folder_data
from chopmix.experiment.run_samples import RunSamples
from chopmix.projects.decision.recording.episodes import About, Episode, joined
from chopmix.projects.decision.recording.making import Space, Spaces
from test_datasets import SAMPLES, dataset_class
from test_emoji import Font, fonts
from test_published_datasets import hub_table, png, write_cifar, write_idx, write_speech_commands
from test_samples import tar

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of pandas, inside of `datasets`


def wave(number: int, form: str = "FLAC") -> bytes:
    """A short sound, another for each number."""
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(number).normal(0, 0.1, 900), 8000, format=form)
    return file.getvalue()


class Episodes:
    """Two steps of each of twelve episodes, as a source of episodes."""

    options = {"path": "episodes"}
    number = Space(shape=(2,), dtype="float32")
    about = About(
        format=1, environment="E", options={}, policy="random", episodes=12,
        spaces=Spaces(observations={"view": number}, texts=("mission",), action=Space(shape=(), dtype="int64", size=2)),
    )  # fmt: skip

    def read(self):
        return joined([
            Episode({"view": np.full((2, 2), n, np.float32)}, {"mission": f"go {n}"}, np.array([0, 1]),
                    np.array([1.0, n]), True, n)
            for n in range(12)
        ])  # fmt: skip


def captioned(number: int) -> dict[str, bytes]:
    texts = {language: f"{language} {number}" for language in ("de", "fr", "es", "it")}
    about = json.dumps({"category": "toys", "text": texts}).encode()
    key = f"stamp{number}"
    return {f"{key}.jpg": png(number), f"{key}.ogg": wave(number), f"{key}.txt": b"a toy", f"{key}.json": about}


def load_classification(name: str, split: str, extract_path: str):
    """Stands in for the function of aeon: 24 series of two channels, one of which is padded."""
    series = [np.full((2, 7), float(n)) for n in range(24)]
    series[0][:, 5:] = np.nan
    return series, np.array([f"{split} {n % 3}" for n in range(24)])


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Iterator[Path]:
    """A data root that holds a little of every data set."""
    folder = tmp_path_factory.mktemp("columns")
    root = folder / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHOPMIX_DATA", str(root))
        patch.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        for name in (
            "mnist",
            "fsdd",
            "cifar10",
            "stamps",
            "multi30k",
            "jsb_chorales",
            "books",
            "emoji",
            "pictures/cat",
        ):
            (root / name).mkdir(parents=True)
        log = [f"{n},{n * n},{n % 3 or ''},{n}.png,{'ab'[n // 4 % 2]}" for n in range(80)]
        (root / "log.csv").write_text("\n".join(["time,x,y,camera,state", *log]))
        for kind, array in (("images-idx3", np.arange(160).reshape(40, 2, 2)), ("labels-idx1", np.arange(40) % 3)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            (root / f"train-{kind}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())
        for split in ("train", "test"):
            numbers = range(40)
            digits = [(f"{n}_{'ab'[n % 2]}_{split}{n}", n) for n in numbers]
            tar(
                root / "mnist" / f"{split}.tar.gz",
                {
                    f"{n}.{end}": value
                    for n in numbers
                    for end, value in (("png", png(n, 28)), ("cls", b"%d" % (n % 10)))
                },
            )
            tar(
                root / "cifar10" / f"{split}.tar.gz",
                {f"{n}.{end}": value for n in numbers for end, value in (("jpg", png(n)), ("cls", b"%d" % (n % 10)))},
            )
            tar(root / "fsdd" / f"{split}.tar.gz", {
                f"{n % 10}_{'ab'[n % 2]}_{split}{n}.{end}": value for _, n in digits for end, value in (
                    ("flac", wave(n)), ("cls", b"%d" % (n % 10)),
                    ("json", json.dumps({"speaker": "ab"[n % 2]}).encode()))
            })  # fmt: skip
        for split, first in (("train", 0), ("val", 5)):
            members = [captioned(first + n) for n in range(5)]
            tar(root / "stamps" / f"{split}.tar", {name: value for each in members for name, value in each.items()})
        for split in ("train", "val", "test2016"):
            for language in ("en", "de"):
                lines = "".join(f"{language} {n}\n" if n != 3 else "\n" for n in range(8)).encode()
                (root / "multi30k" / f"{split}.{language}.gz").write_bytes(gzip.compress(lines))
        chorales = {split: [[[60, 55, 50, -1]] * (3 + n) for n in range(4)] for split in ("train", "valid", "test")}
        (root / "jsb_chorales" / "Jsb16thSeparated.json").write_text(json.dumps(chorales))
        novel = "# Title: A\n" + " ".join(f"word{n}" for n in range(900)) + "\n"
        (root / "books" / "train.txt.xz").write_bytes(lzma.compress(novel.encode()))
        (root / "emoji" / "NotoColorEmoji.ttf").write_bytes(b"true")
        patch.setattr(fonts, "TTFont", Font)
        write_speech_commands(root)
        write_cifar(root)
        for stem, count in (("train", 30), ("t10k", 9)):
            raw = root / "torchvision" / "FashionMNIST" / "raw"
            write_idx(raw / f"{stem}-images-idx3-ubyte", np.arange(count * 784).reshape(count, 28, 28).astype(np.uint8))
            write_idx(raw / f"{stem}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
        for number in range(9):
            (root / "pictures" / "cat" / f"{number}.png").write_bytes(png(number))
        (root / "list.csv").write_text("image,label\n" + "".join(f"pictures/cat/{n}.png,{n % 3}\n" for n in range(9)))
        for name in ("en", "de"):
            (root / f"lines.{name}").write_text("".join(f"{name} {n}\n" for n in range(9)))
        motions = types.ModuleType("sktime.datasets")
        motions.load_basic_motions = lambda return_type: (np.zeros((20, 6, 100)), np.array(list("abcd") * 5))
        patch.setitem(sys.modules, "sktime", types.ModuleType("sktime"))
        patch.setitem(sys.modules, "sktime.datasets", motions)
        aeon = types.ModuleType("aeon.datasets")
        aeon.load_classification, aeon.__file__ = load_classification, str(folder / "aeon" / "__init__.py")
        (folder / "aeon" / "data" / "Waves").mkdir(parents=True)
        (folder / "aeon" / "data" / "Waves" / "Waves_TRAIN.ts").touch()
        patch.setitem(sys.modules, "aeon", types.ModuleType("aeon"))
        patch.setitem(sys.modules, "aeon.datasets", aeon)
        sys.modules["aeon"].datasets = aeon
        patch.setattr(archive, "loaded", archive.loaded.__wrapped__)
        (folder / "package" / "vega_datasets" / "_data").mkdir(parents=True)
        (folder / "package" / "vega_datasets" / "__init__.py").touch()
        hours = "".join(f"{datetime(2010, 1, 1) + timedelta(hours=n)},{n % 24}\n" for n in range(2500))
        (folder / "package" / "vega_datasets" / "_data" / "seattle-temps.csv").write_text(f"date,temp\n{hours}")
        patch.syspath_prepend(folder / "package")
        library = pytest.importorskip("datasets")
        patch.setattr(library.config, "HF_DATASETS_CACHE", str(folder / "hub"))
        library.disable_progress_bars()
        sounds = ([{"bytes": wave(n, "WAV"), "path": None} for n in range(24)], library.Audio(sampling_rate=8000))
        images = ([{"bytes": png(n), "path": None} for n in range(24)], library.Image())
        labels = ([n % 3 - 1 for n in range(24)], library.ClassLabel(names=["cat", "dog"]))
        hub_table(library, 24, image=images, sound=sounds, label=labels).save_to_disk(str(root / "table"))
        yield root


def options(name: str, root: Path) -> dict[str, Any]:
    """The options of a data set that needs some, or would be larger than a test needs."""
    mnist, fsdd = dataset_class("mnist"), dataset_class("fsdd")
    generated = ("any_digits", "arithmetic", "arithmetic_speech", "audiovisual_digits", "digit_strings", "driving",
                 "dtmf", "in_context", "recall", "rewarded_arithmetic", "rules", "vehicle")  # fmt: skip
    few: dict[str, dict[str, Any]] = {each: {"samples": 12} for each in generated}
    return few | {
        "archive": {"name": "Waves"},
        "episodes": {"of": Episodes},
        "fsdd": {"held_out": "a", "equalize": True, "unlabelled": True},
        "hugging_face": {"path": str(root / "table")},
        "idx": {"train": str(root / "train-images-idx3-ubyte")},
        "table": {
            "train": str(root / "log.csv"),
            "time": "time",
            "window": 4,
            "files": ["camera"],
            "streams": {"x": TableStream(columns=["x"]), "y": TableStream(columns=["y"], rate=1)},
            "label": TableLabel(column="state"),
        },
        "image_folder": {"train": str(root / "pictures")},
        "manifest": {"train": str(root / "list.csv"), "columns": ["image", "label"], "files": ["image"]},
        "mixture": {"of": {"pictures": mnist, "sounds": fsdd}, "columns": {"sounds": {"label": "spoken"}}},
        "parallel_text": {"train": {name: str(root / f"lines.{name}") for name in ("en", "de")}},
        "passages": {"words": 3, "each": 5},
        "torchvision_data": {"dataset": "FashionMNIST"},
        "webdataset": {"train": str(root / "stamps" / "train.tar"), "columns": {"image": "jpg", "de": "json.text.de"}},
    }


def opened(name: str, root: Path, split: str = "train") -> tuple[Dataset, Samples]:
    dataset = dataset_class(name)(**options(name, root).get(name, {}))
    return dataset, dataset.opened(split)


def same(one: Any, other: Any) -> bool:
    return Fingerprint(one).hex == Fingerprint(other).hex


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_column_is_that_of_the_complete_sample(name, root):
    """It may be read alone, in order, at random, or with some other columns; no other column is returned."""
    dataset, samples = opened(name, root)
    numbers = range(len(samples))
    rows = {}
    for number in numbers:
        try:
            rows[number] = samples[number]
        except ValueError:  # a bad sample: it has no value in any column
            continue
    assert len(rows) > 2 and {column for row in rows.values() for column in row} <= {*dataset.columns}
    for column in dataset.columns:
        expected = {number: row[column] for number, row in rows.items() if row.get(column) is not None}
        assert same(dict(samples.numbered(column)), expected)
        drawn = list(samples.drawn(column, len(samples)))
        assert sorted(Fingerprint(each).hex for each in drawn) == sorted(
            Fingerprint(each).hex for each in expected.values()
        )
        for number in rows:
            alone = samples.row(number, (column,))
            assert set(alone) <= {column} and same(alone.get(column), rows[number].get(column))
    for number, row in [*rows.items()][:4]:  # in any order, without the first and without the last
        for names in ([*dataset.columns][::-1], dataset.columns[1:], dataset.columns[:-1]):
            selected = samples.row(number, names)
            assert same({n: selected.get(n) for n in names}, {n: row.get(n) for n in names})
    assert not samples.row(next(iter(rows)), ("no such column",))


def kinds_in(value: Any) -> Iterator[type[Samples]]:
    """The classes of these samples and of the samples that they contain."""
    if isinstance(value, Samples):
        yield type(value)
    if isinstance(value, Samples | ByLabel | Source):
        for each in vars(value).values():
            for one in each if isinstance(each, list) else [each]:
                yield from kinds_in(one)


def subclasses(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def test_every_kind_of_samples_is_covered(root):
    """All classes except those that are only base classes, and those that other files test: test_division, test_table,
    test_answers, test_run_samples, test_rollouts."""
    covered = {kind for name in SAMPLES for kind in kinds_in(opened(name, root)[1])}
    kinds = {kind for kind in subclasses(Samples) if kind.__module__.startswith("chopmix.")}
    others = {Joined, Channels, Balanced, Visible, RunSamples, RolledOut}
    assert kinds - {ByColumn, Changed, Made} - others == covered


def test_a_folder_of_pictures_is_read_by_column_too(root):
    samples = folder_data(root / "pictures", {"photo": "image", "kind": "label"}, "test").opened("test")
    assert isinstance(samples.row(0, ("photo",))["photo"], Path) and samples.row(0, ("kind",)) == {"kind": "cat"}
    assert isinstance(Whole(samples, ("photo",)).opened("val"), Samples)


# -------------------------------------------------------------------------------------- and nothing else is computed


class Counting(np.random.Generator):
    """A random generator that counts the normal numbers it returns: those of noise, sounds and pictures."""

    drawn = 0

    def normal(self, *arguments: Any, **more: Any) -> Any:
        values = super().normal(*arguments, **more)
        Counting.drawn += np.size(values)
        return values

    def standard_normal(self, *arguments: Any, **more: Any) -> Any:
        values = super().standard_normal(*arguments, **more)
        Counting.drawn += np.size(values)
        return values


TEXTS = {str, int}
"""The types of labels and texts."""


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_labels_and_texts_are_read_without_pictures_sounds_and_noise(name, root, monkeypatch):
    dataset, samples = opened(name, root)
    row = samples[0]
    plain = [column for column in dataset.columns if type(row.get(column)) in TEXTS]
    members, values = [], []
    read, value, random = Shards._read, ByLabel.value, Made.random

    def read_noting(shards: Shards, shard: int, key: str, extension: str, *place: int) -> Any:
        members.append(extension)
        return read(shards, shard, key, extension, *place)

    monkeypatch.setattr(Shards, "_read", read_noting)
    monkeypatch.setattr(ByLabel, "value", lambda *arguments: values.append(arguments) or value(*arguments))
    monkeypatch.setattr(Made, "random", lambda *numbers: Counting(random(*numbers).bit_generator))
    monkeypatch.setattr(Counting, "drawn", 0)
    for column in plain:
        assert list(samples.column(column))
    assert Counting.drawn == 0 and not values and not {*members} & {"png", "jpg", "flac", "ogg"}


def test_generated_data_sets_have_labels_or_texts(root):
    """The test above reads some column of each of them except of `in_context`, which has pairs of numbers."""
    has_plain_column = {}
    for name in SAMPLES:
        _, samples = opened(name, root)
        if isinstance(samples, Made):
            has_plain_column[name] = any(type(value) in TEXTS for value in samples[0].values())
    assert {name for name, has in has_plain_column.items() if not has} == {"in_context"} and len(has_plain_column) == 12


def test_a_vocabulary_is_fitted_without_a_tone_and_without_a_picture(monkeypatch):
    """In an earlier version, fitting the vocabulary to the answers of 200 samples computed 200 tones."""
    tones, pictures = [], []
    tone, value = arithmetic.tone, ByLabel.value
    monkeypatch.setattr(arithmetic, "tone", lambda *arguments: tones.append(1) or tone(*arguments))
    monkeypatch.setattr(ByLabel, "value", lambda *arguments: pictures.append(1) or value(*arguments))
    dataset = arithmetic.Arithmetic(samples=200)
    assert len(list(dataset.training_items(["answer", "operator"]))) == 400 and not tones and not pictures
    assert len(list(dataset.training_items(["sound"], 5))) == 5 == len(tones) and not pictures
