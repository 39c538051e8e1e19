"""`chopmix new` and `chopmix init` write configurations for data of a user, and these train without a change."""

from __future__ import annotations

import csv
import gzip
import json
import math
import shlex
import shutil
from datetime import datetime, timedelta

import numpy as np
import pytest
import soundfile
import yaml
from checkout import CONFIGS, ROOT
from chopmix.commands.cli import main
from chopmix.data.datasets.idx import Idx
from chopmix.data.table_streams import duration
from chopmix.experiment.new.commented import commented
from chopmix.experiment.new.images import image_sizes
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.settings.document import read_yaml
from chopmix.experiment.shipped import listed, names, needed_by
from chopmix.files.errors import UsageError
from chopmix.files.reading import DataError
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    return tmp_path


def idx(folder, count: int = 60, name: str = "train") -> None:
    """Images whose brightness depends on the class."""
    labels = np.arange(count, dtype=np.uint8) % 3
    images = np.random.default_rng(0).integers(0, 80, (count, 12, 10), dtype=np.uint8) + labels[:, None, None] * 80
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
        with gzip.open(folder / f"{name}-{kind}-ubyte.gz", "wb") as file:
            file.write(header + array.tobytes())


def photos(folder) -> None:
    for number in range(40):
        path = folder / "my photos" / ["red, or so", "blue"][number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = [(200, 30, 30), (30, 30, 200)][number % 2]
        Image.new("RGB", (80 + number, 100), colour).save(path)
    (folder / "my photos" / "blue" / "broken.png").write_bytes(b"nothing")


def sounds(folder) -> None:
    rows = [["file", "speaker", "label"]]
    for number in range(40):
        wave = np.sin(np.arange(4000) * (0.2 + 0.3 * (number % 2))) * 0.5
        soundfile.write(folder / f"{number}.wav", wave, 8000)
        rows.append([f"{number}.wav", f"s{number % 5}", ["low", "high"][number % 2]])
    with open(folder / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


def broken(folder) -> None:
    photos(folder)
    (folder / "my photos").rename(folder / "broken")
    for file in sorted((folder / "broken").rglob("*.jpg"))[:8]:
        file.write_bytes(b"no picture")


def uneven(folder) -> None:
    rows = [f"{number + (number % 3) / 3:.3f},{math.sin(number)}" for number in range(400)]
    (folder / "log.csv").write_text("\n".join(["time,x", *rows]))


def hourly(folder) -> None:
    hours = [datetime(2026, 3, 1) + timedelta(hours=n) for n in range(1440)]
    rows = [f"{hour},{math.sin(n * math.pi / 12) + n % 5}" for n, hour in enumerate(hours)]
    (folder / "log.csv").write_text("\n".join(["time,x", *rows]))


def log(folder, label: bool = True) -> None:
    rows = ["time,x,y,t" + ",state" * label]
    for number in range(600):
        state = "ab"[number // 60 % 2]
        cells = [number / 10, math.sin(number) + (state == "b") * 3, number % 7, "" if number % 5 else number / 9]
        rows.append(",".join(map(str, [*cells, *([state] if label else [])])))
    (folder / "log.csv").write_text("\n".join(rows))


def texts(folder) -> None:
    (folder / "books" / "more").mkdir(parents=True)
    for number in range(4):
        (folder / "books" / "more" / f"{number}.txt").write_text("chop everything and mix it " * 60)


KINDS = {
    "idx": (idx, ["images", "."], {"label": "classification"}, "60 images of 10 x 12 pixels, grey"),
    "photos": (
        photos,
        ["images", "my photos"],
        {"label": "classification"},
        "41 images of 80 x 100 to 119 x 100 pixels",
    ),
    "broken": (broken, ["images", "broken"], {"label": "classification"}, "; 9 of 41 cannot be read"),
    "sounds": (sounds, ["sounds", "list.csv"], {"label": "classification"}, "40 sounds of 0.5 to 0.5 s at 8,000 Hz"),
    "table": (log, ["table", "log.csv"], {"state": "classification"}, "600 rows, one every 100 ms; 3 channels in 2"),
    "forecast": (lambda folder: log(folder, False), ["table", "log.csv"], {"next": "forecast"}, "600 rows"),
    "hourly": (hourly, ["table", "log.csv"], {"next": "forecast"}, "--horizon 24 --output next.csv --picture"),
    "uneven": (uneven, ["table", "log.csv"], {"next": "next_item"}, "400 rows"),
    "text": (texts, ["text", "books"], {"lm": "language_modeling"}, "4 file(s), 6,480 bytes"),
}


@pytest.mark.system
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_written_configurations_are_compared_with_simple_models(kind, here, comparisons):
    make, words, *_ = KINDS[kind]
    make(here)
    assert main(["new", *words, "--output", "x.yaml"]) == 0
    has_baselines = "evaluation" in yaml.safe_load((here / "x.yaml").read_text())
    assert main(["train", "x.yaml", "training.steps=2", "out=run"]) == 0
    assert (here / "run" / "report" / "baselines.json").exists() == has_baselines


@pytest.mark.parametrize("kind", KINDS)
def test_written_configurations_train_without_a_change(kind, here, capsys):
    make, words, tasks, summary = KINDS[kind]
    make(here)
    assert main(["new", *words, "--output", "x.yaml"]) == 0
    output = capsys.readouterr().out
    assert summary in output and "written: x.yaml" in output and "chopmix train x.yaml" in output
    text = (here / "x.yaml").read_text()
    tree = yaml.safe_load(text)
    assert {name: task["use"] for name, task in tree["tasks"].items()} == tasks and summary in text
    steps = tree["training"]["steps"]
    assert 200 <= steps <= 1000
    assert main(["train", "x.yaml", "training.steps=3", "out=run"]) == 0
    assert (here / "run" / "summary.json").exists()
    if kind == "hourly":
        assert tree["inputs"]["sensor"]["period"] == 24
        assert main(["predict", "run", "--horizon", "24", "--output", "next.csv", "--picture"]) == 0
    if kind == "photos":
        assert tree["data"]["bad_share"] == 0.1
    if kind == "broken":
        assert tree["data"]["bad_share"] == 0.35
    if kind == "sounds":
        assert tree["data"]["split"]["group"] == "speaker"
    assert main(["new", *words, "--output", "x.yaml"]) == 2
    assert "x.yaml exists already; name another file with --output" in capsys.readouterr().err


def test_a_folder_of_sounds_gets_a_manifest_and_a_run_can_be_the_encoder(here, capsys):
    for number in range(24):
        path = here / "birds" / ["owl", "wren"][number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.sin(np.arange(2000) * (0.1 + number % 2)), 8000)
    assert main(["new", "sounds", "birds"]) == 0
    assert (here / "birds.csv").read_text().split()[:2] == ["sound,label", "birds/owl/0.wav,owl"]
    assert main(["train", "birds.yaml", "training.steps=2", "out=runs/birds"]) == 0
    assert main(["new", "sounds", "birds.csv", "--encoder", "runs/birds", "--output", "again.yaml"]) == 0
    assert main(["train", "again.yaml", "training.steps=2", "out=runs/again"]) == 0
    capsys.readouterr()
    assert main(["new", "text", "birds.csv", "--encoder", "runs/birds"]) == 2
    assert "--encoder is for images and sounds, not for text" in capsys.readouterr().err
    photos(here)
    assert main(["new", "images", "my photos", "--encoder", "runs/birds"]) == 2
    assert "this run has no input of the kind 'image'; it has sound" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "content", "message"),
    [
        (["images", "gone"], {}, "there is no file or folder 'gone'"),
        (["images", "."], {"a.txt": "x"}, "has no images in folders named by class"),
        (["images", "."], {"a/1.png": "x", "b/1.png": "x"}, "none of the images can be read"),
        (["sounds", "l.csv"], {"l.csv": "a,b\n1,2\n"}, "no column holds paths of existing files; the columns are a, b"),
        (["sounds", "."], {"a.txt": "x"}, "has no sounds in folders named by class"),
        (["sounds", "l.csv"], {"l.csv": "a,b\nl.csv,x\nl.csv,y\n"}, "none of the sounds in column 'a' can be read"),
        (["sounds", "l.csv"], {"l.csv": "a\nl.csv\n"}, "no column is a target"),
        (["table", "l.csv"], {"l.csv": "time,x\n0,a\n1,b\n2,c\n"}, "has no column of numbers except the time"),
        (
            ["table", "l.csv"],
            {"l.csv": "when,x\nnow,1\nthen,2\n"},
            "the times in column 'when' must be numbers of seconds",
        ),
        (["text", "."], {"a.bin": "x"}, "has no texts"),
        (["text", "a.txt"], {"a.txt": "x"}, "has only 1 bytes of text; at least 2,000 are needed"),
    ],
)
def test_data_that_cannot_be_used_are_refused(words, content, message, here, capsys):
    for name, text in content.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(text)
    assert main(["new", *words, "--output", "x.yaml"]) == 2
    assert message in capsys.readouterr().err and not (here / "x.yaml").exists()


def test_damaged_idx_files_are_refused(here):
    idx(here)
    path = here / "train-images-idx3-ubyte.gz"
    dataset = Idx(train=str(path))
    assert len(dataset.opened("train")) + len(dataset.opened("val")) == 60
    assert dataset.opened("train")[0]["image"].shape == (12, 10)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-5]))
    with pytest.raises(DataError, match="is not a complete IDX file of bytes with 3 dimension"):
        dataset.opened("train")
    with pytest.raises(DataError, match="must contain 'images-idx3'"):
        Idx(train=str(here / "x")).opened("train")


names_of_data = st.text(max_size=12) | st.sampled_from(
    ["null", "1e3", "yes", "a, b", "a: b", "~", "#x", "2026-01-01", "a\nb: c", "a\x85b: c", "a\u2028b: c",
     "a\u2029b: c", "a\rb: c", "\x1b[31m", "\ud800", "\u202e", "\ufeff", "'", '"', "{", "- a", "&a", "*a", "!a",
     "größe", "x" * 200]
)  # fmt: skip
"""Any names of classes, columns and files."""


@given(names=st.lists(names_of_data, min_size=1, max_size=4, unique=True), text=names_of_data)
def test_names_remain_text_in_values_and_comments(names, text):
    """A written tree is read back as the same tree, with any names; a comment stays a comment."""
    tree = {"inputs": {name: {"use": "x", "channels": dict.fromkeys(names), "columns": names} for name in names},
            "data": {"split": {"val": 0.1}, "dataset": {"train": text, "limit": 3, "files": None}}}  # fmt: skip
    comments = {"data.split": text, "inputs": text, "data.dataset.limit": text}
    written = commented(tree, [text, f"# {text}"], comments)
    assert read_yaml(written, {}, problems := []) == tree and not problems
    assert written.count("# ") >= 5 and all(line.startswith("# ") for line in written.split("\n")[:2])
    assert read_yaml("\n".join(written.split("\n")[2:]), {}, []) == tree  # without the two lines of the header


def test_a_comment_that_changes_the_tree_is_not_written(monkeypatch):
    monkeypatch.setattr("chopmix.experiment.new.commented.one_line", lambda text: text)
    with pytest.raises(UsageError, match="cannot be written as YAML: a name in the data would change it"):
        commented({"a": {"b": 1}}, ["one\nout: elsewhere"], {})
    with pytest.raises(UsageError, match="cannot be written as YAML: [0-9,]* characters; at most"):
        commented({"a": {"b": "x" * 2**18}}, [], {})


@pytest.mark.system
def test_printed_commands_are_quoted(here, capsys):
    log(here)
    for name in ("$(touch x).csv", "a b.csv", "-h.csv"):
        (here / "log.csv").rename(here / name)
        assert main(["new", "table", f"./{name}"]) == 0
        line = capsys.readouterr().out.splitlines()[-1]
        arguments = shlex.split(line)
        assert arguments[:2] == ["chopmix", "train"] and main([*arguments[1:], "training.steps=1", "out=run"]) == 0
        assert f"#   {line.strip()}\n" in (here / name).with_suffix(".yaml").read_text()
        capsys.readouterr()
        shutil.rmtree(here / "run")
        (here / name).rename(here / "log.csv")


@given(side=st.integers(1, 5000))
def test_sizes_of_images(side):
    size, patch = image_sizes(side)
    assert size % patch == 0 and size <= 64 and (size // patch) ** 2 <= 196 and (side > 32 or size == side)


def test_init_copies_configurations_with_those_that_they_need(here, capsys):
    assert names() == sorted(file.relative_to(CONFIGS).with_suffix("").as_posix() for file in CONFIGS.rglob("*.yaml"))
    assert all(title for _, title in listed()) and needed_by("mix/gpt2_sees")[-1] == "mix/gpt2_sees"
    assert main(["init", "generate/digits", "copy"]) == 0
    output = capsys.readouterr().out.split()
    assert output[2::3] == ["copy/configs/generate/digits_judge.yaml", "copy/configs/generate/digits.yaml"]
    assert (here / output[2]).read_bytes() == (ROOT / "configs/generate/digits_judge.yaml").read_bytes()
    assert main(["init", "configs/generate/digits.yaml", "copy"]) == 0  # again, and by its path
    (here / "copy/configs/generate/digits.yaml").write_text("inputs: {}")
    assert main(["init", "generate/digits", "copy"]) == 2
    assert "exists already with another content" in capsys.readouterr().err
    assert main(["init", "generate/digit"]) == 2
    assert "there is no configuration 'generate/digit'; did you mean 'generate/digits'?" in capsys.readouterr().err
    assert main(["init"]) == 0 and "quickstart" in capsys.readouterr().out
    assert json.dumps(duration(90.0)) == '"1.5 min"'


def test_choices_of_new_are_printed(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    rows = [f"{n / 10},{n % 5},{'err' if n == 30 else n},{'a' if n % 6 else 'b'}" for n in range(200)]
    (tmp_path / "log.csv").write_text("\n".join(["time,x,y,state", *rows]))
    assert main(["new", "table", "log.csv"]) == 0
    output = capsys.readouterr().out
    assert "not used: 'y', in which not all values are numbers" in output and "set class_weights: balanced" in output
    (tmp_path / "empty.csv").write_text("time,x,state\n")
    assert main(["new", "table", "empty.csv"]) == 2
    assert "empty.csv has 0 rows; at least two are needed" in capsys.readouterr().err
    (tmp_path / "back.csv").write_text("time,x\n0,1\n2,1\n1,1\n")
    assert main(["new", "table", "back.csv"]) == 2
    assert (
        "back.csv, row 3: the time 1 s is not after that of the row before it, 2 s; sort the table"
        in capsys.readouterr().err
    )


NAMES = [
    "é", "Größe", "日本", "a²", "1", "2026-01-01", "0x1f", "items", "keys", "parameters", "train", "type", "class",
    "loss", "group", "key", "targets", "error", "without", "seed", "fold", "yes", "null", "~", "a b", "a.b", "a/b",
    "a:b", "- x", "# y", "x{}", "[z]", "'q'", "*", "&a", "!t", "%d", "@", "`", "_", "__", "-", "ß", "ÅÄÖ", "self",
    "None", "true", "1e5", "forward", "weight", "half", "name", "🎵", "a,b", "tab\there",
]  # fmt: skip


@pytest.mark.parametrize("part", range(4))
def test_tables_with_any_column_name_are_trained(tmp_path, monkeypatch, capsys, part):
    """The name is that of the label, a part of the names of its classes, and a part of the name of a channel."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    for number, name in enumerate(NAMES[part::4]):
        with open(f"t{number}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["time", name, f"{name} x"])
            table.writerows([n / 10, f"c{name}{n // 40 % 2}", n % 7] for n in range(400))
        assert main(["new", "table", f"t{number}.csv"]) == 0, (name, capsys.readouterr().err)
        config = load_config(f"t{number}.yaml")
        (task,) = config.tasks.values()
        assert task.options["target"] == name and len(config.inputs) == 1
        assert config.dataset().opened("train")[0][name].startswith(f"c{name}")


def test_a_column_of_numbers_that_do_not_fit_float32_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    lines = [f"{n / 10},{(n % 7) * 1e307},{'ab'[n // 40 % 2]}" for n in range(400)]
    (tmp_path / "t.csv").write_text("\n".join(["time,x,label", *lines]))
    status = main(["new", "table", "t.csv"])
    error = capsys.readouterr().err
    assert (status == 2 and "'x'" in error) or main(["train", "t.yaml", "--dry-run"]) == 0
