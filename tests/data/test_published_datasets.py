"""Data sets in the formats of others: Speech Commands, CIFAR-10, torchvision, Hugging Face, remote shards; and the
configurations that read them."""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import timm
import torch
from checkout import CONFIGS
from chopmix.commands.cli import main
from chopmix.data import shard_index
from chopmix.data.datasets.cifar10_full import Cifar10Full
from chopmix.data.datasets.hugging_face import HuggingFace, Rows, class_names, undecoded
from chopmix.data.datasets.speech_commands import INSIDE, LISTS, WORDS, SpeechCommands
from chopmix.data.datasets.torchvision_data import KNOWN, REFUSED, TorchvisionData
from chopmix.data.datasets.webdataset import Webdataset
from chopmix.experiment.interchange.importers.labelled import completed
from chopmix.experiment.own_data import named_dataset
from chopmix.experiment.settings.config import config_from_tree, load_config
from chopmix.files.reading import DataError
from chopmix.models.pretrained.vit import Vit
from chopmix.tokenizers.audio import AudioChopper
from chopmix.tokenizers.base import Role
from chopmix.tokenizers.image import ImageChopper
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data root, and a cache folder beside it."""
    monkeypatch.setenv("CHOPMIX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def output_of(capsys, *arguments: str) -> str:
    """What a command that succeeds prints."""
    assert main(list(arguments)) == 0, capsys.readouterr()
    return "".join(capsys.readouterr())


def png(number: int, side: int = 8) -> bytes:
    """A small picture, another for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_speech_commands(root: Path, recordings: int = 4) -> Path:
    """A folder like Speech Commands': the first recording of each word validates, the second tests, the others
    train."""
    folder = root / "speech_commands" / INSIDE
    lists: dict[str, list[str]] = {split: [] for split in LISTS}
    noise = np.random.default_rng(0).normal(0, 0.1, 8000)
    for word in (*WORDS, "_background_noise_"):
        (folder / word).mkdir(parents=True)
        for number in range(recordings):
            soundfile.write(folder / word / f"{number:08x}_nohash_0.wav", noise[: 1600 * (number + 1)], 16_000)
        for number, names in enumerate(lists.values()):
            names += [f"{word}/{number:08x}_nohash_0.wav"] if word in WORDS else []
    for split, names in lists.items():
        (folder / LISTS[split]).write_text("\n".join(names) + "\n")
    return folder


def test_speech_commands_follow_the_official_lists(root):
    folder = write_speech_commands(root)
    dataset = SpeechCommands()
    by_split = {split: dataset.open(split) for split in dataset.splits}
    assert {split: len(samples) for split, samples in by_split.items()} == {"train": 70, "val": 35, "test": 35}
    assert list(WORDS) == sorted(WORDS) and len(WORDS) == 35
    assert sorted(set(by_split["train"].column("label"))) == list(WORDS)
    assert by_split["test"].keys[0] == "backward/00000001_nohash_0.wav"
    row = by_split["test"][0]
    assert row == {"sound": folder / "backward/00000001_nohash_0.wav", "label": "backward", "speaker": "00000001"}
    assert len(AudioChopper(rate=8000).decode(row["sound"])) == 1600
    assert {key.split("/")[0] for key in SpeechCommands(words=["yes", "no"]).open("val").keys} == {"no", "yes"}


def test_errors_of_speech_commands_name_what_is_missing(root, monkeypatch):
    with pytest.raises(ValueError, match="words: 'maybe' is none of the 35: backward, bed, .*, zero"):
        SpeechCommands(words=["maybe"])
    with pytest.raises(DataError, match=r"no folder .*speech_commands_v0\.02: set .*SPEECHCOMMANDS\(.*download=True\)"):
        SpeechCommands().open("train")

    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torchaudio.datasets.SPEECHCOMMANDS", unreachable)
    with pytest.raises(DataError, match=r"v0\.02 is missing and torchaudio cannot download it: no network"):
        SpeechCommands(download=True).open("train")
    folder = write_speech_commands(root, recordings=2)
    with pytest.raises(DataError, match="has no recording for train"):
        SpeechCommands().open("train")
    (folder / "bed" / "00000001_nohash_0.wav").unlink()
    with pytest.raises(DataError, match=r"testing_list\.txt lists bed/00000001_nohash_0\.wav, which is missing"):
        SpeechCommands().open("train")
    (folder / LISTS["val"]).unlink()
    with pytest.raises(
        DataError, match=r"validation_list\.txt does not exist: it lists recordings that are not used for training"
    ):
        SpeechCommands().open("val")
    (folder / "zero").rename(folder / "zeros")
    with pytest.raises(DataError, match="has no folder 'zero'; expected: the 35 words of V2: backward, bed, "):
        SpeechCommands().open("train")


def write_cifar(root: Path, records: int = 40) -> Path:
    """Files like those of CIFAR-10's binary version."""
    folder = root / "cifar10_full" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    make = np.random.default_rng(0)
    for name in [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]:
        values = make.integers(0, 256, (records, 3073), dtype=np.uint8)
        values[:, 0] = np.arange(records) % 10
        values.tofile(folder / name)
    return folder


def test_cifar10_is_read_from_its_bytes(root):
    folder = write_cifar(root)
    dataset = Cifar10Full()
    train, val, test = (dataset.open(split) for split in dataset.splits)
    assert len(train) + len(val) == 200 and len(val) > 5 and len(test) == 40
    assert not set(train.keys) & set(val.keys) and test.keys[13] == "test_batch 13"
    raw = np.fromfile(folder / "test_batch.bin", np.uint8)[13 * 3073 : 14 * 3073]
    image = ImageChopper(patch_size=4, size=32).decode(test[13]["image"])
    assert test[13]["label"] == raw[0] == 3 and np.array_equal(image.numpy(), raw[1:].reshape(3, 32, 32))
    assert list(test.column("label")) == [n % 10 for n in range(40)]
    assert next(test.column("image")).shape == (32, 32, 3)


def test_errors_of_cifar10_name_what_is_missing(root, monkeypatch):
    with pytest.raises(DataError, match=r"no folder .*batches-bin: unpack https://.*binary\.tar\.gz there, or set"):
        Cifar10Full().open("train")

    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", unreachable)
    with pytest.raises(DataError, match="is missing and https://.* cannot be downloaded: no network"):
        Cifar10Full(download=True).open("train")
    file = write_cifar(root) / "test_batch.bin"
    for content, message in [
        (b"x" * 3072, "has 3072 bytes, not a multiple of the record size 3073"),
        (b"", "has 0 bytes"),
        (b"\x0a" * 3073, "contains the class 10; possible in CIFAR-10: 0 to 9"),
    ]:
        file.write_bytes(content)
        with pytest.raises(DataError, match=rf"test_batch\.bin {message}"):
            len(Cifar10Full().open("test"))
    file.unlink()
    with pytest.raises(DataError, match=r"test_batch\.bin: No such file or directory; it belongs to https"):
        len(Cifar10Full().open("test"))


def write_idx(file: Path, values: np.ndarray) -> None:
    """An array of bytes in MNIST's format."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = struct.pack(f">{values.ndim}I", *values.shape)
    file.write_bytes(bytes([0, 0, 8, values.ndim]) + shape + values.tobytes())


def test_torchvision_data_sets_are_read_by_name(root):
    make = np.random.default_rng(0)
    raw = root / "torchvision" / "FashionMNIST" / "raw"
    for stem, count in (("train", 60), ("t10k", 20)):
        images = make.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(raw / f"{stem}-images-idx3-ubyte", images)
        write_idx(raw / f"{stem}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    dataset = TorchvisionData(dataset="FashionMNIST")
    train, val, test = (dataset.open(split) for split in dataset.splits)
    assert len(train) + len(val) == 60 and len(val) > 0 and len(test) == 20
    assert not set(train.keys) & set(val.keys) and test.keys[19] == "FashionMNIST test 19"
    image = ImageChopper(patch_size=7, channels=1, size=28).decode(test[19]["image"])
    assert test[19]["label"] == 9 and np.array_equal(image[0].numpy(), images[19])
    assert dataset.options == {"dataset": "FashionMNIST", "download": False}


def test_torchvision_images_in_files_are_returned_as_paths(root):
    folder = root / "torchvision" / "dtd" / "dtd"
    for name in ("images/banded", "images/dotted", "labels"):
        (folder / name).mkdir(parents=True)
    for number, split in enumerate(("train", "val", "test")):
        names = [f"{kind}/{kind}_{number}.jpg" for kind in ("banded", "dotted")]
        for name in names:
            (folder / "images" / name).write_bytes(png(number))
        (folder / "labels" / f"{split}1.txt").write_text("\n".join(names))
    dataset = TorchvisionData(dataset="DTD")
    by_split = {split: [dataset.open(split)[n] for n in range(2)] for split in dataset.splits}
    assert [Path(rows[1]["image"]).name for rows in by_split.values()] == [f"dotted_{n}.jpg" for n in range(3)]
    assert [row["label"] for row in by_split["val"]] == [0, 1] == list(dataset.open("val").column("label"))


def test_torchvision_data_sets_that_are_not_supported_are_refused(root):
    from torchvision import datasets

    assert all(hasattr(datasets, name) for name in (*KNOWN, *REFUSED))
    with pytest.raises(ValueError, match="unpickles CIFAR10, which can execute code; use the data set cifar10_"):
        TorchvisionData(dataset="CIFAR10")
    with pytest.raises(ValueError, match="dataset: 'Mnist' is not supported; possible: MNIST, Fashion"):
        TorchvisionData(dataset="Mnist")
    for name in ("MNIST", "USPS", "Country211"):
        with pytest.raises(
            DataError, match=rf"torchvision's {name} cannot be loaded from .*; set data\.dataset\.downl"
        ):
            TorchvisionData(dataset=name).open("train")


@pytest.fixture
def datasets(root, monkeypatch):
    """The library `datasets`, whose prepared files stay in the folder of the test."""
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", str(root.parent / "hub"))
    library.disable_progress_bars()
    return library


def hub_table(datasets, count: int, **files):
    """Numbers, words and classes, with further columns of files."""
    columns = {
        "n": list(range(count)),
        "word": [f"word {n}" for n in range(count)],
        "kind": [n % 3 for n in range(count)],
    }
    table = datasets.Dataset.from_dict(columns | {name: values for name, (values, _) in files.items()})
    for name, (_, kind) in files.items():
        table = table.cast_column(name, kind)
    return table


def test_hugging_face_folders_return_files_without_decoding(datasets, root):
    sound = io.BytesIO()
    soundfile.write(sound, np.zeros(800), 8000, format="WAV")
    root.mkdir()
    (root / "a.wav").write_bytes(sound.getvalue())
    images = ([{"bytes": png(n), "path": None} for n in range(30)], datasets.Image())
    sounds = ([{"bytes": None, "path": str(root / "a.wav")}] * 29 + [None], datasets.Audio(sampling_rate=8000))
    every = hub_table(datasets, 30, image=images, sound=sounds)
    datasets.DatasetDict({"train": every, "held": every.select(range(5))}).save_to_disk(str(root / "saved"))
    dataset = HuggingFace(path=str(root / "saved"), test="held")
    assert dataset.columns == ("n", "word", "kind", "image", "sound") and dataset.splits == ("train", "val", "test")
    train, val, test = (dataset.open(split) for split in dataset.splits)
    assert len(train) + len(val) == 30 and len(val) > 0 and len(test) == 5 and test.keys[4] == "held 4"
    assert sorted([*train.column("n"), *val.column("n")]) == list(range(30))
    for samples in (train, val):  # keys stay with their rows
        assert [f"train {n}" for n in samples.column("n")] == list(samples.keys)
    row = test[4]
    assert row["image"] == png(4) and row["sound"] == sound.getvalue() and row["word"] == "word 4"
    assert Rows(["a"], *undecoded(every), {})[0]["sound"] == str(root / "a.wav")  # a table with only the path
    assert ImageChopper(patch_size=4, size=8).decode(row["image"]).shape == (3, 8, 8)
    assert len(AudioChopper(rate=8000).decode(row["sound"])) == 800
    assert len([*train.column("sound"), *val.column("sound")]) == 29


def test_statistics_of_sounds_in_a_table_are_fitted(datasets, root):
    """They are those of some sounds, drawn at random."""
    sounds = []
    for number in range(20):
        sound = io.BytesIO()
        soundfile.write(sound, np.random.default_rng(number).normal(0, 0.1, 800), 8000, format="WAV")
        sounds.append({"bytes": sound.getvalue(), "path": None})
    hub_table(datasets, 20, sound=(sounds, datasets.Audio(sampling_rate=8000))).save_to_disk(str(root / "saved"))
    dataset = HuggingFace(path=str(root / "saved"))
    train = dataset.open("train")
    assert sorted(train.drawn("n", 8)) == sorted({*train.drawn("n", 8)} & {*train.column("n")})
    fitted = AudioChopper(rate=8000, mels=8, frames=2).fit(lambda: dataset.training_items(["sound"], 8), Role())
    assert fitted.statistics is not None and len(list(dataset.training_items(["sound"], 8))) == 8


def test_of_several_tables_the_one_of_the_split_is_read(datasets, root):
    names = {"train": 9, "validation": 4, "test": 2}
    tables = datasets.DatasetDict({name: hub_table(datasets, count) for name, count in names.items()})
    tables.save_to_disk(str(root / "saved"))
    for split, count in {"train": 9, "val": 4, "test": 2}.items():
        assert len(named_dataset(str(root / "saved"), split, {"word": "text"}).opened(split)) == count
    datasets.DatasetDict({"train": tables["train"], "held": tables["test"]}).save_to_disk(str(root / "other"))
    assert len(named_dataset(str(root / "other"), "held", {"word": "text"}).opened("held")) == 2
    with pytest.raises(DataError, match="has no table for the split 'test'; possible with --split: train, held"):
        named_dataset(str(root / "other"), "test", {"word": "text"})


def test_hugging_face_classes_come_by_name(datasets):
    every = hub_table(datasets, 6, label=([0, 1, -1, 1, 0, 0], datasets.ClassLabel(names=["cat", "dog"])))
    rows = Rows([str(n) for n in range(6)], *undecoded(every), class_names(every))
    assert list(rows.numbered("label")) == [(0, "cat"), (1, "dog"), (3, "dog"), (4, "cat"), (5, "cat")]
    assert rows[2]["label"] is None and rows[3]["label"] == "dog"


UNCLOSED = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
"""pandas leaves a csv file open that `datasets` read to its end."""


@UNCLOSED
@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl"])
def test_hugging_face_reads_single_files(datasets, root, ending):
    every, file = hub_table(datasets, 20), str(root / f"some.{ending}")
    root.mkdir()
    write = {"parquet": every.to_parquet, "jsonl": every.to_json}.get(ending)
    write(file) if write else every.to_csv(file, sep={"csv": ",", "tsv": "\t"}[ending])
    dataset = HuggingFace(path=file, val="train")
    assert len(dataset.open("val")) == 20 and dataset.open("val")[7] == {"n": 7, "word": "word 7", "kind": 1}


@UNCLOSED
def test_hugging_face_reads_folders_of_files(datasets, root):
    root.mkdir()
    for name, count in (("train", 12), ("validation", 3)):
        hub_table(datasets, count).to_csv(str(root / f"{name}.csv"))
    dataset = HuggingFace(path=str(root), val="validation")
    assert [len(dataset.open(split)) for split in dataset.splits] == [12, 3]


def test_errors_of_hugging_face_name_what_is_missing(datasets, root, monkeypatch, tiny, capsys):
    root.mkdir()
    hub_table(datasets, 20).to_json(str(root / "a.jsonl"))
    with pytest.raises(DataError, match=r"a\.jsonl has no split 'dev'; possible: train"):
        HuggingFace(path=str(root / "a.jsonl"), val="dev").open("val")
    file = tiny("hub", data={"dataset": {"use": "hugging_face", "path": str(root / "a.jsonl")}})
    small = ["training.tokens_per_step=null", "training.samples_per_step=4"]
    assert main(["train", str(file), *small]) != 0
    assert "has no column 'text'; possible: n, word, kind (data.columns selects another column" in "".join(
        capsys.readouterr()
    )
    assert main(["train", str(file), *small, "data.columns.text=word", "training.steps=2"]) == 0
    (root / "b.pickle").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.pickle: no reader for files that end in '\.pickle'; possible: \.parquet"):
        HuggingFace(path=str(root / "b.pickle")).open("train")

    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(DataError, match="some/name is not .* be downloaded from the hub: no network"):
        HuggingFace(path="some/name").open("train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="needs the library datasets: pip install 'chopmix.hub.'"):
        HuggingFace(path="some/name").open("train")


def tar_bytes(members: dict[str, bytes]) -> bytes:
    """A tar file of these members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, value in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(value)
            tar.addfile(info, io.BytesIO(value))
    return file.getvalue()


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_remote_shards_equal_local_ones(root, monkeypatch, memory_protocol, ending):
    import fsspec

    memory, folder = fsspec.filesystem("memory"), root / "shards"
    folder.mkdir(parents=True)
    for shard in range(2):
        members = {
            f"{n}.{kind}": value
            for n in range(20 * shard, 20 * shard + 20)
            for kind, value in (("png", png(n)), ("cls", b"%d" % (n % 3)), ("json", json.dumps({"n": n}).encode()))
        }
        content = gzip.compress(tar_bytes(members)) if ending == "tar.gz" else tar_bytes(members)
        (folder / f"part-{shard}.{ending}").write_bytes(content)
        memory.pipe(f"/{root.parent.name}/part-{shard}.{ending}", content)
    columns = {"image": "png", "label": "cls", "n": "json.n"}
    remote = Webdataset(train=f"memory://{root.parent.name}/part-{{0..1}}.{ending}", columns=columns)
    local = Webdataset(train=str(folder / f"part-*.{ending}"), columns=columns)
    for split in ("train", "val"):
        remote_samples, local_samples = remote.open(split), local.open(split)
        assert list(remote_samples.keys) == list(local_samples.keys) and len(local_samples) > 0
        assert [remote_samples[n] for n in range(len(remote_samples))] == [
            local_samples[n] for n in range(len(local_samples))
        ]
        assert remote_samples[0]["image"] == png(remote_samples[0]["n"])
    kept = {file: file.stat().st_mtime_ns for file in (root.parent / "cache" / "shards").iterdir()}
    assert len(kept) == 4 * (2 if ending == "tar.gz" else 1) + 2  # two indexes
    monkeypatch.setattr(shard_index, "members", None)  # reading a complete shard again would fail
    assert len(remote.open("train")) + len(remote.open("val")) == 40
    assert kept == {file: file.stat().st_mtime_ns for file in (root.parent / "cache" / "shards").iterdir()}


def test_a_remote_shard_that_does_not_exist_is_named(root, memory_protocol):
    with pytest.raises(DataError, match=r"memory://nowhere/a\.tar"):
        Webdataset(train="memory://nowhere/a.tar", columns={"image": "png"}).open("train")


STAND_INS = {"speech/speech_commands": write_speech_commands, "vision/cifar10_gpu": write_cifar}


@pytest.mark.parametrize("name", STAND_INS)
def test_small_versions_of_configs_for_a_gpu_pass_a_dry_run(name, root, capsys):
    STAND_INS[name](root)
    small = ["model.depth=1", "training.samples_per_step=4", "training.precision=float32", "training.compile=false"]
    printed = output_of(capsys, "train", str(CONFIGS / f"{name}.yaml"), "--dry-run", *small)
    assert "4 samples = " in printed and "one step: loss" in printed and "nan" not in printed


def test_the_config_for_fine_tuning_has_the_shape_of_its_architecture():
    vit = completed(Vit(architecture="vit_small_patch16_224"))
    tree = load_config(CONFIGS / "vision" / "finetune_timm.yaml", ["model.dropout=0"]).tree
    assert tree["model"] == config_from_tree(tree | vit.tree()).tree["model"]


def test_an_imported_vit_is_fine_tuned(root, tmp_path, capsys):
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", pretrained=False, num_classes=7, **options)
    (tmp_path / "timm").mkdir()
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "timm" / "model.safetensors"
    )
    described = {"architecture": "vit_small_patch16_224", "num_classes": 7, "model_args": options}
    (tmp_path / "timm" / "config.json").write_text(json.dumps(described))
    output_of(capsys, "import", str(tmp_path / "timm"), str(tmp_path / "base"))
    (root / "cifar10").mkdir(parents=True)
    members = {f"{n}.{kind}": v for n in range(40) for kind, v in (("jpg", png(n, 32)), ("cls", b"%d" % (n % 10)))}
    for split in ("train", "test"):
        (root / "cifar10" / f"{split}.tar.gz").write_bytes(gzip.compress(tar_bytes(members)))
    small = ["inputs.image.patch_size=8", "inputs.image.size=32", "model.width=48", "model.depth=2", "model.heads=3",
             "model.context=17", "training.steps=2", "training.samples_per_step=4", "training.rows_per_micro_batch=2",
             "training.schedule=constant", "training.precision=float32", f"from={tmp_path / 'base'}"]  # fmt: skip
    config = str(CONFIGS / "vision" / "finetune_timm.yaml")
    printed = output_of(capsys, "train", config, *small, f"out={tmp_path / 'tuned'}")
    assert (
        "2 new (keep their initial values): heads.thing.linear.weight, heads.thing.linear.bias; 2 not used" in printed
    )
    assert "differ in shape" not in printed
    assert "one step: loss" in output_of(capsys, "train", config, "--dry-run", *small)
    assert json.loads((tmp_path / "tuned" / "summary.json").read_text())
