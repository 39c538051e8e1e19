"""Fuzz tests of data sets: shards, manifests, tables, corpora and token files are read as training reads them."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from batching import make_batch
from chopmix.data.base import Dataset
from chopmix.data.datasets.idx import Idx
from chopmix.data.datasets.manifest import Manifest
from chopmix.data.datasets.table import Table, TableLabel, TableStream
from chopmix.data.datasets.text import Text
from chopmix.data.datasets.webdataset import Webdataset
from chopmix.data.division import Division
from chopmix.data.shard_index import shard_index
from chopmix.data.tar_files import expand
from chopmix.data.token_file import HEADER, MAGIC
from chopmix.data.tokenizing import prepare, prepared_folder
from chopmix.experiment.build import build_choppers, build_model, build_tasks, open_split
from chopmix.experiment.settings.config import Config, config_from_tree
from chopmix.tokenizers.encoding.base import ByteEncoding
from fuzzed import DEEP, changed_bytes, changed_text, changed_tree, fuzzed, odd_numbers, odd_texts, odd_values
from hypothesis import strategies as st
from judged import in_its_home
from tiny import COLUMNS, CORPUS, FILES, MAKERS, WORDS, corpus, png, row


@pytest.fixture(scope="module")
@in_its_home
def data(whole_judge) -> None:
    """Import modules that are loaded at their first use, so that no input takes time for it."""
    folder = whole_judge.folder()
    learn(SAMPLES, Manifest(train="../data/train.jsonl", columns=COLUMNS, files=FILES), folder)


def learn(config: Config, dataset: Dataset, folder: Path, forward: bool = False) -> None:
    """Do what a run does with its data before its first step: learn vocabulary, statistics and classes, and read one
    batch of each split."""
    assets = folder / "assets"
    choppers = build_choppers(config, assets, dataset)
    tasks = build_tasks(config, choppers, assets, dataset)
    for split in ("train", "val"):
        opened = open_split(config, dataset, split, choppers, tasks, progress=False, say=lambda text: None)
        assert opened.fingerprint
        places = opened.plan(0, 0) if split == "train" else opened.all()[:4]
        batch = make_batch(opened, places, tasks, training=split == "train")
        if forward:
            model = build_model(config, choppers, tasks)
            model(model.plan(batch))


def experiment(inputs: dict, tasks: dict, training: dict) -> Config:
    """The configuration of an experiment without a data set; the tests pass the data set separately."""
    tree = {
        "inputs": inputs,
        "model": {"width": 8, "depth": 1, "heads": 1, "context": 200, "attention": "causal & same_sample"},
        "tasks": tasks,
        "data": {"bad_share": 1.0, "too_long": "drop"},
        "training": {"steps": 1, **training},
    }
    return config_from_tree(tree)


IMAGE, NOTE = {"use": "image", "patch_size": 4, "size": 8}, {"use": "text", "encoding": "characters"}
KIND, SIZE = {"use": "classification", "target": "label"}, {"use": "regression", "target": "number"}
INPUTS = {
    "image": IMAGE,
    "sound": {"use": "audio", "rate": 8000, "mels": 8},
    "sensor": {"use": "sensor", "channels": 2},
    "clip": {"use": "video", "size": 8, "patch_size": 8, "longest": 2},
    "note": NOTE,
}
TEXT_TASKS = {"kind": KIND, "lm": {"use": "language_modeling", "target": "note"}}
ALL_TASKS = {**TEXT_TASKS, "size": SIZE, "tags": {"use": "classification", "target": "tags", "several": True}}
SAMPLES, FROM_TABLES = (
    experiment(INPUTS, ALL_TASKS, {"samples_per_step": 4}),
    experiment(INPUTS, TEXT_TASKS, {"samples_per_step": 4}),
)
PICTURES = experiment({"image": IMAGE, "note": NOTE}, {"kind": KIND, "size": SIZE}, {"samples_per_step": 4})

# --------------------------------------------------------------------------------------------------------------- shards

BLOCK = 512
FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "size": (124, 12),
    "sum": (148, 8),
    "kind": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
}
"""The fields of a tar header: position and length in bytes."""


def members(number: int) -> dict[str, bytes]:
    """The files of one sample in a shard, by ending."""
    word = WORDS[number % 4]
    return {
        "png": png(number),
        "cls": str(number % 2).encode(),
        "txt": word.encode(),
        "json": json.dumps({"number": number, "a": [1]}).encode(),
    }


def tar(samples: int = 5, form: int = tarfile.USTAR_FORMAT, folder: str = "", **more: bytes) -> bytes:
    """A shard; `more` are further files of each sample, by ending, or other contents for them."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for number in range(samples):
            for ending, content in {**members(number), **more}.items():
                info = tarfile.TarInfo(f"{folder}{number:03}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


TARS = [
    tar(),
    tar(form=tarfile.PAX_FORMAT, folder="é/"),
    tar(form=tarfile.GNU_FORMAT, folder="a" * 120 + "/"),
    tar(0),
    tar(1),
]


@st.composite
def shards(draw) -> bytes:
    """A shard with odd headers, with files of odd content, or with odd bytes anywhere."""
    how = draw(st.sampled_from(("headers", "members", "bytes")))
    if how == "members":
        odd = (
            st.binary(max_size=20)
            | odd_texts.map(lambda text: text.encode(errors="replace"))
            | odd_values.map(lambda v: json.dumps(v).encode())
        )
        return tar(
            **{
                ending: draw(odd)
                for ending in draw(st.lists(st.sampled_from(("png", "cls", "txt", "json", "tar", "")), max_size=3))
            }
        )
    content = (
        draw(changed_bytes(TARS, most=2 if how == "headers" else 4)) if how == "bytes" else draw(st.sampled_from(TARS))
    )
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3)) if how == "headers" and len(content) >= BLOCK else 0):
        start = BLOCK * draw(st.integers(0, min(len(content) // BLOCK - 1, 12)))
        place, length = FIELDS[draw(st.sampled_from(sorted(FIELDS)))]
        odd = draw(
            st.sampled_from((b"\0" * length, b"7" * length, b"\xff" * length, b"\x80" + b"\xff" * (length - 1), b"-1"))
            | st.binary(max_size=length)
        )
        content[start + place : start + place + len(odd)] = odd
        if draw(st.booleans()):  # with a correct checksum the reader trusts the header
            content[start + 148 : start + 156] = b" " * 8
            content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + BLOCK])
    return bytes(content)


packed_shards = (
    st.tuples(st.just(".tar"), shards())
    | st.tuples(
        st.just(".tar.gz"),
        shards().map(lambda content: gzip.compress(content, 1)) | changed_bytes([gzip.compress(TARS[0], 1)]),
    )
    | st.tuples(
        st.just(".tar.xz"),
        shards().map(lambda content: lzma.compress(content, preset=0))
        | changed_bytes([lzma.compress(TARS[0], preset=0)]),
    )
)
SOURCES = {"image": "png", "note": "txt", "label": "cls", "number": "json.number"}
patterns = (
    st.sampled_from(
        (
            "{000..9999999}.tar",
            "{000..99999999999999}.tar",
            "{5..1}.tar",
            "{-1..2}.tar",
            "{a..b}.tar",
            "{1..2}{1..2}.tar",
            "x-{..}.tar",
            "{1..2",
            "*",
            "**",
            "[",
            "~nobody/*.tar",
            "file://odd.tar",
            "nope://x.tar",
            "memory://none/x.tar",
            "://",
            "{0..1}",
            "",
            "\0",
            "/dev/null",
            "/dev/zero",
            ".",
            "pipe",
        )
    )
    | st.text("{}.*[]?/:0123456789-~\\", max_size=12)
    | odd_texts
)


@st.composite
def odd_indices(draw) -> str:
    """The text of a cached index: the index of a valid shard, changed."""
    good = {
        "path": "odd-0.tar",
        "samples": [["000", {"png": [512, 90], "cls": [1536, 1]}], ["001", {"damaged": "why"}]],
    }
    tree = draw(changed_tree([good]))
    return draw(st.just(json.dumps(tree)) | changed_text([json.dumps(good)]) | st.sampled_from(DEEP))


shard_inputs = (
    st.tuples(st.just("file"), packed_shards)
    | st.tuples(st.just("pattern"), patterns)
    | st.tuples(st.just("index"), odd_indices())
)


def shard_set(train: str) -> Webdataset:
    """A data set of the shards that a pattern names."""
    return Webdataset(train=train, columns=SOURCES)


@fuzzed(shard_input=shard_inputs)
def test_shards(judge, data, shard_input):
    kind, content = shard_input
    folder = judge.folder()
    os.mkfifo(folder / "pipe")
    if kind == "file":
        ending, content = content
        (folder / f"odd-0{ending}").write_bytes(content)
        judge.check("shards", lambda: learn(PICTURES, shard_set(f"odd-*{ending}"), folder), f"{ending} {content!r}")
    elif kind == "pattern":
        judge.check("shards", lambda: shard_index(expand(content)[:3]), f"expand({content!r})")
    else:
        (folder / "odd-0.tar").write_bytes(TARS[0])
        shard_index(["odd-0.tar"])
        (record,) = (folder / "cache" / "shards").glob("*.json")
        (about,) = (folder / "cache" / "shards").glob("index-*/about.json")
        for file in (record, about):
            file.write_text(content, errors="surrogatepass")
        judge.check("shards", lambda: learn(PICTURES, shard_set("odd-0.tar"), folder), f"cached index {content!r}")


# ------------------------------------------------------------------------------------------------------------ manifests

ROWS = [row(number) for number in range(8)]
odd_paths = st.sampled_from(
    (
        "/dev/zero",
        "/dev/null",
        "/dev/stdin",
        "pipe",
        ".",
        "",
        "image-0.png",
        "../data",
        "missing",
        "a" * 5000,
        "\0",
        "~",
        "train.jsonl",
    )
)


def lines(rows: Any) -> str:
    """Rows as JSONL."""
    return "".join(json.dumps(each) + "\n" for each in (rows if isinstance(rows, list) else [rows]))


TABLE_COLUMNS = [name for name in COLUMNS if name not in ("number", "tags")]
"""Columns with the same values in a table, where all values are texts."""


def table(separator: str) -> str:
    """The rows as a table with this separator."""
    columns = ["key", *TABLE_COLUMNS]
    return (
        "\n".join([separator.join(columns), *(separator.join(each[name] for name in columns) for each in ROWS)]) + "\n"
    )


@st.composite
def misplaced(draw) -> str:
    """Rows in which some files are replaced by other paths or values."""
    rows = [dict(each) for each in ROWS]
    for number in draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=3)):
        rows[number][draw(st.sampled_from(FILES))] = draw(odd_paths | st.lists(odd_paths, max_size=2) | odd_values)
    return lines(rows)


jsonl = changed_tree([ROWS]).map(lines) | misplaced() | changed_text([lines(ROWS)])
manifests = st.tuples(st.sampled_from((".jsonl", ".jsonl", ".jsonl.gz", ".jsonl.xz")), jsonl) | st.tuples(
    st.sampled_from((".csv", ".CSV")), changed_text([table(",")])
) | st.tuples(st.just(".tsv"), changed_text([table("\t")]))  # fmt: skip


def packed(name: str, content: str) -> bytes:
    """A text as bytes, compressed if the ending of the name says so."""
    pack = {".gz": lambda content: gzip.compress(content, 1), ".xz": lambda content: lzma.compress(content, preset=0)}
    return pack.get(Path(name).suffix, bytes)(content.encode(errors="surrogatepass"))


@fuzzed(manifest=manifests)
def test_manifests(judge, data, manifest):
    ending, content = manifest
    folder = judge.folder()
    os.mkfifo(folder / "pipe")
    for each in ROWS:
        for name in MAKERS:
            shutil.copy(f"../data/{each[name]}", folder)
    (folder / f"odd{ending}").write_bytes(packed(ending, content))
    is_jsonl = ".jsonl" in ending
    dataset = Manifest(train=f"odd{ending}", columns=COLUMNS if is_jsonl else TABLE_COLUMNS, files=FILES)
    judge.check(
        "manifests", lambda: learn(SAMPLES if is_jsonl else FROM_TABLES, dataset, folder), f"{ending} {content!r}"
    )


# ---------------------------------------------------------------------------------------------------- tables over time

LOG = "time,x,y,t,state\n" + "".join(
    f"{n / 10},{n % 7},{-n if n % 5 else ''},{n if n % 4 == 0 else ''},{'ab'[n // 20 % 2]}\n" for n in range(200)
)
DATED = "time;x;y;t;state\n".replace(";", ",") + "".join(
    f"2026-11-30 08:00:{n // 10:02}.{n % 10},{n},{n / 3},,{'ab'[n // 20 % 2]}\n" for n in range(100)
)
STREAMS = {"fast": TableStream(columns=["x", "y"], rate=10), "slow": TableStream(columns=["t"])}
STREAM_EXPERIMENT = experiment(
    {"fast": {"use": "sensor", "channels": 2}, "slow": {"use": "sensor", "channels": 1}},
    {"state": {"use": "classification", "target": "state"}}, {"samples_per_step": 4},
)  # fmt: skip


def as_parquet(text: str) -> bytes:
    """A log as a parquet file."""
    csv, parquet = pytest.importorskip("pyarrow.csv"), pytest.importorskip("pyarrow.parquet")
    content = io.BytesIO()
    parquet.write_table(csv.read_csv(io.BytesIO(text.encode())), content, row_group_size=30)
    return content.getvalue()


logs = st.tuples(
    st.sampled_from((".csv", ".CSV", "")),
    changed_text([LOG, DATED]).map(lambda text: text.encode(errors="surrogatepass")) | changed_bytes([LOG.encode()]),
) | st.deferred(lambda: st.tuples(st.just(".parquet"), changed_bytes([as_parquet(LOG), as_parquet(DATED)])))


@fuzzed(
    30, values=st.tuples(logs, st.sampled_from(["1 s", "250 ms", "1 h", "3"]), st.sampled_from([None, "0.5 s", "9 s"]))
)
def test_logs(judge, data, values):
    pytest.importorskip("pyarrow")
    (ending, content), window, stride = values
    folder = judge.folder()
    (folder / f"odd{ending}").write_bytes(content)

    def read() -> None:
        label = TableLabel(column="state", at="most")
        dataset = Table(
            train=f"odd{ending}", time="time", window=window, stride=stride, streams=STREAMS, label=label
        )  # fmt: skip
        learn(STREAM_EXPERIMENT, dataset, folder)
        learn(STREAM_EXPERIMENT, dataset.divided(Division(val=0.2, test=0.2)), folder / "divided")

    judge.check("logs", read, f"{ending} {window} {stride} {content!r}")


# ------------------------------------------------------------------------------------------------ IDX files, divisions

IDX_IMAGES = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (30, 8, 8)) + bytes(range(64)) * 30
IDX_LABELS = bytes([0, 0, 8, 1]) + (30).to_bytes(4, "big") + bytes(n % 3 for n in range(30))
DIGITS = experiment(
    {"image": IMAGE | {"channels": 1}}, {"digit": {"use": "classification", "target": "label"}}, {"samples_per_step": 4}
)


@fuzzed(
    30,
    contents=st.tuples(changed_bytes([IDX_IMAGES], most=1), st.just(IDX_LABELS))
    | st.tuples(st.just(IDX_IMAGES), changed_bytes([IDX_LABELS], most=1)),
)
def test_idx_files(judge, data, contents):
    folder = judge.folder()
    for name, content in zip(("odd-images-idx3-ubyte", "odd-labels-idx1-ubyte"), contents, strict=True):
        (folder / name).write_bytes(content)
    judge.check("idx files", lambda: learn(DIGITS, Idx(train="odd-images-idx3-ubyte"), folder), repr(contents))


shares = st.sampled_from([0.3] * 12 + [0.0, 0.1, 0.5, 0.9, 1.0, -0.1, 1e-9, float("nan"), 2])
names = st.sampled_from([None] * 12 + ["label", "note", "image", "number", "tags", "missing", "key", ""])
numbers_of_folds = st.sampled_from([None] * 6 + [2] * 3 + [0, 1, 8, 10**9])


@fuzzed(30, options=st.tuples(jsonl | st.just(lines(ROWS)), shares, shares, names, names, names, numbers_of_folds))
def test_divisions(judge, data, options):
    content, val, test, stratify, group, order, folds = options
    folder = judge.folder()
    (folder / "odd.jsonl").write_text(content, errors="surrogatepass")
    for each in ROWS:
        for name in MAKERS:
            shutil.copy(f"../data/{each[name]}", folder)

    def read() -> None:
        division = Division(val=val, test=test, stratify=stratify, group=group, order=order, folds=folds, fold=0)
        dataset = Manifest(train="odd.jsonl", columns=COLUMNS, files=FILES).divided(division)
        learn(SAMPLES, dataset, folder)

    judge.check("divisions", read, repr(options))


# -------------------------------------------------------------------------------------------------------------- corpora

WINDOWS = {"samples_per_step": None, "tokens_per_step": 32}


def language_model(encoding: str, documents: str = "joined") -> Config:
    """The configuration of a language model with this encoding."""
    vocabulary = {"vocabulary": 260} if encoding == "bpe" else {}
    return config_from_tree(
        {
            "inputs": {"text": {"use": "text", "encoding": encoding, **vocabulary}},
            "tasks": {"lm": {"use": "language_modeling", "target": "text"}},
            "model": {"width": 8, "depth": 1, "heads": 1, "context": 16},
            "data": {"documents": documents},
            "training": {"steps": 1, "tokens_per_step": 32},
        }
    )


MODELS = [language_model("characters"), language_model("bytes", "separate"), language_model("bpe")]
DOCUMENTS = lines([{"text": corpus(40)}, {"text": "é\n"}, {"text": ""}, {"other": 1, "text": corpus(9)}])
TEXTS = [corpus(60), "", "é🧨\r\n" * 20, "\ufeff" + corpus(30), "a" * 3000, " " * 3000]
corpora = st.tuples(st.sampled_from((".txt", ".txt.gz", ".xz")), changed_text(TEXTS)) | st.tuples(
    st.sampled_from((".jsonl", ".jsonl.gz", ".jsonl.xz")),
    changed_text([DOCUMENTS]) | changed_tree([[{"text": corpus(30)}, {"text": "chop"}]]).map(lines),
)  # fmt: skip
corpus_files = corpora.map(lambda corpus_file: (corpus_file[0], packed(*corpus_file))) | st.tuples(
    st.sampled_from((".txt", ".jsonl", ".txt.gz", ".jsonl.xz")),
    changed_bytes([DOCUMENTS.encode(), packed(".gz", DOCUMENTS), packed(".xz", DOCUMENTS), packed(".gz", corpus(90))]),
)  # fmt: skip


def read_corpus(file: str, config: Config, folder: Path) -> None:
    """Read a corpus for which no validation data are named."""
    dataset = Text(train=file)
    assert dataset.about()
    learn(config, dataset, folder)


TOKEN_CORPUS = Text(train=CORPUS["train"], val=CORPUS["val"])


@pytest.fixture(scope="module")
@in_its_home
def token_files(data, whole_judge) -> list[bytes]:
    """The unchanged token files of the valid corpus, one for each split."""
    whole_judge.folder()
    folder = prepared_folder(TOKEN_CORPUS, ByteEncoding())
    return [
        prepare(TOKEN_CORPUS, split, ByteEncoding(), folder, workers=1, progress=False).files[0].path.read_bytes()
        for split in ("train", "val")
    ]


@st.composite
def odd_token_files(draw) -> list[tuple[str, Any]]:
    """Changes of a token file: fields of its header, ids, starts of documents, its length."""
    header = st.tuples(
        st.sampled_from(("tokens", "documents", "bytes", "vocabulary", "integers", "version", "encoding", "x")),
        odd_values,
    )
    number = st.tuples(st.sampled_from(("ids", "starts")), st.integers(0, 20), odd_numbers)
    end = st.tuples(st.just("end"), st.integers(-40, 40))
    return draw(st.lists(header | number | end, min_size=1, max_size=3))


def changed_tokens(content: bytes, changes: list) -> bytes:
    """A token file with these changes."""
    head, body = content[:HEADER], bytearray(content[HEADER:])
    header = json.loads(head[len(MAGIC) :])
    size = header["tokens"] * 2
    for name, *change in changes:
        if name == "end":
            body = body[: change[0]] if change[0] < 0 else body + bytes(change[0])
        elif name in ("ids", "starts"):
            place, number = change
            whole = int(number) % 2**63 if abs(number) < 2**64 else 2**63 - 1
            start, width = (place * 2, 2) if name == "ids" else (size + -size % 8, 8)
            body[start : start + width] = (whole % 2 ** (8 * width)).to_bytes(width, "little")
        else:
            header[name] = change[0]
    return MAGIC + json.dumps(header).encode().ljust(HEADER - len(MAGIC))[: HEADER - len(MAGIC)] + bytes(body)


@fuzzed(
    case=st.tuples(st.just("corpus"), corpus_files, st.sampled_from(MODELS))
    | st.tuples(st.just("tokens"), odd_token_files(), st.booleans())
)
def test_corpora(judge, data, token_files, case):
    kind, content, option = case
    folder = judge.folder()
    if kind == "corpus":
        ending, content = content
        (folder / f"odd{ending}").write_bytes(content)
        judge.check(
            "corpora",
            lambda: read_corpus(f"odd{ending}", option, folder),
            f"{ending} {option.tree['inputs']} {content!r}",
        )
        return
    prepared = prepared_folder(TOKEN_CORPUS, ByteEncoding())
    prepared.mkdir(parents=True)
    (prepared / "train.tokens").write_bytes(changed_tokens(token_files[0], content))
    (prepared / "val.tokens").write_bytes(token_files[1])
    model = language_model("bytes", "separate" if option else "joined")
    judge.check(
        "corpora",
        lambda: learn(model, TOKEN_CORPUS, folder, forward=True),
        f"token file with {content!r}, separate={option}",
    )


def test_the_seeds_are_read(judge, data):
    """The valid files are read before they are changed."""
    for content in TARS[:3]:
        folder = judge.folder()
        (folder / "fine.tar").write_bytes(content)
        learn(PICTURES, shard_set("fine.tar"), folder)
        assert (folder / "assets").is_dir()
    for content, ending in ((lines(ROWS), ".jsonl"), (table(","), ".csv"), (table("\t"), ".tsv")):
        folder = judge.folder()
        (folder / f"../data/fine{ending}").write_text(content)
        dataset = Manifest(
            train=f"../data/fine{ending}", columns=COLUMNS if ending == ".jsonl" else TABLE_COLUMNS, files=FILES
        )
        learn(SAMPLES if ending == ".jsonl" else FROM_TABLES, dataset, folder)
    for config in MODELS:
        folder = judge.folder()
        (folder / "fine.txt").write_text(corpus(120))
        read_corpus("fine.txt", config, folder)
