"""Batches that are read ahead, in a thread or in worker processes, equal batches that are read when they are used."""

from __future__ import annotations

import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.arena import ALIGNED, Arena
from chopmix.data.collate import Collator, Inputs
from chopmix.data.feed import AHEAD, SLOTS, Thread, Workers
from chopmix.data.request import Request
from chopmix.data.sampler import SampleIndex
from chopmix.data.samples import Listed
from chopmix.data.skipped import Skipped
from chopmix.data.split import sample_split
from chopmix.experiment import read_ahead
from chopmix.experiment.read_ahead import number_of_workers
from chopmix.experiment.run import load_run
from chopmix.files.reading import DataError
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.text import TextChopper
from chopmix.training import checkpoints as checkpoint
from hypothesis import given
from hypothesis import strategies as st
from ranks import train_together
from tiers import only

DTYPES = [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float64, torch.int32]
TENSORS = st.builds(
    lambda dtype, shape, transposed: (lambda t: t.transpose(0, -1) if transposed and t.dim() > 1 else t)(
        torch.randint(0, 2, shape).to(dtype)),
    st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=3), st.booleans(),
)  # fmt: skip
VALUES = st.recursive(TENSORS | st.none() | st.text() | st.integers() | st.just(np.arange(3)), lambda inner: st.lists(
    inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=12)  # fmt: skip


def equal(left, right) -> bool:
    """Whether two nested values are equal, with equal types and shapes of tensors."""
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return np.array_equal(left, right)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if hasattr(left, "__dataclass_fields__"):
        return type(left) is type(right) and all(equal(getattr(left, n), getattr(right, n)) for n in vars(left))
    return left == right


@given(values=st.lists(VALUES, min_size=1, max_size=3))
def test_arenas_return_what_was_written(values):
    """The file may be too small or too large for the next value."""
    arena = Arena()
    for value in values:
        size = arena.write(value)
        assert size % ALIGNED == 0 and equal(arena.read(size), value)
    kept = arena.read(arena.write(torch.ones(3)))
    arena.write(torch.zeros(3))
    assert kept.tolist() == [1, 1, 1]  # a copy
    os.close(arena.file)


def split_of(count: int = 24, bad=(), share: float = 1.0, lines=None, name: str = "train", tasks=None):
    """Texts; those with the numbers `bad` cannot be read, and each seventh one is too long for the context."""
    rows = [
        {"text": b"\xff" if n in bad else "chop " * (9 if n % 7 == 6 else n % 4 + 1), "hint": "x"} for n in range(count)
    ]
    inputs = Inputs(columns={"hint": "hint", "text": "text"}, too_long="drop")
    choppers = {name: TextChopper(vocabulary=ByteEncoding()) for name in ("hint", "text")}
    collator = Collator(choppers=choppers, inputs=inputs, context=24)
    say = (lambda text: None) if lines is None else lines.append
    keys = [f"key {number}" for number in range(count)]
    return sample_split(Listed(keys, rows), name, collator, Skipped.of(name, keys, share, say), rows=4, tasks=tasks)


def requests_of(split, training: bool = True, steps: int = 9) -> list[Request]:
    return [Request(indices=split.plan(0, step), training=training) for step in range(steps)]


@pytest.fixture(scope="module")
def two_workers():
    """A feed of two workers that read two splits."""
    splits = {"train": split_of(bad={3, 11, 12}), "other": split_of(bad={1}, name="other")}
    feed = Workers(splits, 2)
    yield feed
    feed.close()


@pytest.mark.parametrize("kind", only(1, ["workers", "thread"]))
def test_batches_and_messages_equal_those_without_a_feed(kind, two_workers):
    for training in (True, False):
        lines, expected_lines = [], []
        split, plain = (split_of(bad={3, 11, 12}, lines=messages) for messages in (lines, expected_lines))
        expected = [plain.fetch(request) for request in requests_of(plain, training)]
        feed = Thread({"train": split}) if kind == "thread" else two_workers
        split.read_by(feed)
        assert equal(list(split.fetch_all(requests_of(split, training))), expected)
        assert lines == expected_lines and len(lines) > 3
        assert dict(split.skipped.bad) == dict(plain.skipped.bad) and split.skipped.dropped == plain.skipped.dropped
        if kind == "thread":
            feed.close()


def test_an_abandoned_iteration_blocks_nothing(two_workers):
    split = split_of(bad={3, 11, 12})
    split.read_by(two_workers)
    for _ in range(3 * AHEAD):
        assert next(split.fetch_all(requests_of(split)))
    assert equal(
        list(split.fetch_all(requests_of(split))), [split_of(bad={3, 11, 12}).fetch(r) for r in requests_of(split)]
    )


def test_two_kinds_of_requests_are_read_at_once(two_workers):
    """For example, training and an evaluation read two splits at the same time."""
    train, other = split_of(bad={3, 11, 12}), split_of(bad={1}, name="other")
    first, second = requests_of(train), requests_of(other, training=False)
    for split in (train, other):
        split.read_by(two_workers)
    ahead = [two_workers.submit("train", request) for request in first[:4]]
    assert equal(list(other.fetch_all(second)), [split_of(bad={1}, name="other").fetch(request) for request in second])
    assert equal([two_workers.result(t)[0] for t in ahead], [split_of(bad={3, 11, 12}).fetch(r) for r in first[:4]])


def test_batches_that_are_kept_do_not_change(two_workers):
    """Batches are used where a worker wrote them, until none of their tensors is used."""
    requests = requests_of(split_of(), training=False) * 4
    expected = [split_of(bad={3, 11, 12}).fetch(request) for request in requests]
    split = split_of(bad={3, 11, 12})
    split.read_by(two_workers)
    kept = [(n, batches) for n, batches in enumerate(split.fetch_all(requests)) if n % 3 == 0 or n < 6]
    for _ in range(3):
        assert equal(list(split.fetch_all(requests)), expected)
        for n, batches in enumerate(split.fetch_all(requests)):
            assert equal(batches, expected[n])
    assert len(kept) > 10 and all(equal(batches, expected[n]) for n, batches in kept)
    del kept, batches
    gc.collect()
    assert all(len(worker.slots[kind]) == SLOTS for worker in two_workers.workers for kind in (True, False))


def test_more_bad_samples_than_allowed_are_an_error_in_order(two_workers):
    for feed in (None, "thread"):
        lines = []
        split = split_of(bad={3, 11, 12}, share=0.05, lines=lines)
        if feed:
            split.read_by(Thread({"train": split}))
        with pytest.raises(DataError, match=r"2 of 24 samples so far; data.bad_share allows a share of 0.05"):
            for _ in split.fetch_all(requests_of(split)):
                pass
        if feed:
            split.feed.close()
    with pytest.raises(DataError, match="all samples are bad"):
        split_of(4, bad=range(4)).fetch(Request(indices=[SampleIndex(0, 0, 0)], training=True))


def test_a_killed_worker_is_named(two_workers):
    feed = Workers({"train": split_of(8)}, 1)
    try:
        feed.result(feed.submit("train", requests_of(split_of(8))[0]))
        os.kill(feed.workers[0].process.pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(
            DataError, match=r"worker 1 of 1 \(process \d+\) was killed by SIGKILL while it read 4 samples"
        ):
            for request in requests_of(split_of(8)):
                feed.result(feed.submit("train", request))
        assert time.monotonic() - started < 5
    finally:
        feed.close()


class Local(Listed):
    """Samples with something that cannot be pickled."""

    def __reduce__(self):
        raise pickle.PicklingError("a local function")


def test_what_cannot_be_pickled_is_named():
    split = split_of(8)
    split.reader.samples = Local(split.samples.keys, split.samples.rows)
    with pytest.raises(
        DataError, match=r"data.workers: data.dataset \(\S*test_feed.Local\) cannot be sent .* data.workers: 0"
    ):
        Workers({"train": split}, 1).start()


def test_the_number_of_workers_is_that_of_the_config_or_automatic():
    split = split_of(8)
    assert number_of_workers(0, split, 0, 10) == 0 and number_of_workers(3, split, 0, 10) == 3
    with pytest.raises(DataError, match="data.workers is 9, but train has only 8 samples"):
        number_of_workers(9, split, 0, 10)
    assert number_of_workers("auto", split, 0, 10) == 0  # the samples fit into memory


MEASURED = ("seconds", "memory", "per_second", "waited", "flops")
"""Parts of the names of measured values."""


def metrics_of(folder: Path) -> list[dict]:
    """The lines of a run's metrics, without values that differ from run to run, such as times."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if not any(word in key for word in MEASURED)} for line in lines]


def write_images(tmp_path):
    """A YAML with images, some of which cannot be read, dropped inputs, augmentation and two micro-batches a step."""
    from PIL import Image

    rows = ["image,words,label"]
    for number in range(30):
        name = f"{number}.png"
        image = Image.fromarray(np.random.default_rng(number).integers(0, 255, (8, 8), dtype=np.uint8))
        image.save(tmp_path / name)
        if number % 9 == 8:
            (tmp_path / name).write_bytes(b"no image")
        rows.append(f"{name},{'word ' * (number % 3 + 1)},{'ab'[number % 2]}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    (tmp_path / "x.yaml").write_text(f"""
inputs: {{image: {{use: image, patch_size: 4, channels: 1, size: 8, augment: {{use: image_augmentation, shift: 1}}}},
         words: {{use: text, encoding: bytes}}}}
model: {{width: 16, depth: 1, heads: 2, context: 32, attention: same_sample, dropout: 0.1}}
tasks: {{label: {{use: classification, target: label}}}}
data: {{dataset: {{use: manifest, train: {tmp_path}/list.csv, columns: [image, words, label], files: [image]}},
        bad_share: 0.5}}
training: {{steps: 8, samples_per_step: 6, rows_per_micro_batch: 3, input_dropout: 0.3}}
evaluation: {{every: 4, rows: 2}}
checkpoints: {{every: 4}}
logging: {{every: 1, tensorboard: false}}
""")


def test_workers_change_neither_weights_nor_metrics(tmp_path, capsys):
    write_images(tmp_path)
    outputs = []
    for workers in (0, 2):
        assert main(["train", str(tmp_path / "x.yaml"), f"data.workers={workers}", f"out={tmp_path}/{workers}"]) == 0
        outputs.append([line for line in capsys.readouterr().err.splitlines() if "bad" in line])
    assert outputs[0] == outputs[1] and outputs[0]
    names = ("model.safetensors", "optimizer.safetensors")
    plain, read = (tmp_path / str(workers) / "checkpoints" / "step-00000008" for workers in (0, 2))
    assert all((plain / name).read_bytes() == (read / name).read_bytes() for name in names)
    assert metrics_of(tmp_path / "0") == metrics_of(tmp_path / "2")
    states = [json.loads((folder / "state.json").read_text()) for folder in (plain, read)]
    assert states[0]["bad"] == states[1]["bad"] and states[0]["bad"]


@pytest.mark.system
def test_evaluations_vectors_and_predictions_are_the_same_with_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(read_ahead, "SAMPLES_PER_WORKER", 1)
    monkeypatch.setattr("chopmix.experiment.run.ROWS_AT_ONCE", 1)
    started, start = [], Workers.start
    monkeypatch.setattr(Workers, "start", lambda feed: (started.append(feed.number), start(feed)))
    write_images(tmp_path)
    for workers in (0, 2):
        assert main(["train", str(tmp_path / "x.yaml"), f"data.workers={workers}", f"out={tmp_path}/{workers}"]) == 0
    for command, output in (("evaluate", "--json"), ("embed", "--output")):
        files = [tmp_path / f"{command}-{workers}.{'json' if command == 'evaluate' else 'npy'}" for workers in (0, 2)]
        for workers, file in zip((0, 2), files, strict=True):
            data = ["--data", str(tmp_path / "list.csv")]
            assert main([command, str(tmp_path / str(workers)), *data, output, str(file)]) == 0
        assert files[0].read_bytes() == files[1].read_bytes()
    samples = [{"image": tmp_path / f"{number}.png", "words": "word " * (number % 4)} for number in range(30)]
    answers = [load_run(tmp_path / str(workers)).predict(samples, say=str) for workers in (0, 2)]
    assert answers[0] == answers[1] and {"error" in answer for answer in answers[0]} == {True, False}
    assert len(started) == 4  # the training, evaluate, embed and predict


def write_run(folder: Path, steps: int = 12) -> Path:
    """The YAML of a run on a manifest of texts."""
    rows = [json.dumps({"text": "chop " * (n % 5 + 1), "label": "ab"[n % 2]}) for n in range(40)]
    (folder / "list.jsonl").write_text("\n".join(rows))
    file = folder / "x.yaml"
    file.write_text(f"""
inputs: {{text: {{use: text, encoding: bytes}}}}
model: {{width: 16, depth: 1, heads: 2, context: 32, attention: same_sample}}
tasks: {{label: {{use: classification, target: label}}}}
data: {{dataset: {{use: manifest, train: {folder}/list.jsonl, columns: [text, label]}}, workers: 1}}
training: {{steps: {steps}, samples_per_step: 6, precision: float32}}
evaluation: {{every: 6}}
checkpoints: {{every: 2}}
logging: {{every: 1, tensorboard: false}}
""")
    return file


@pytest.mark.system
def test_two_processes_with_a_worker_each_have_the_losses_of_one(tmp_path):
    file = write_run(tmp_path)
    assert main(["train", str(file), "data.workers=0", f"out={tmp_path}/one"]) == 0
    done = train_together(tmp_path, 2, str(file), f"out={tmp_path}/two")
    assert done.returncode == 0, done.stderr
    losses = [[line.get("train/loss") for line in metrics_of(tmp_path / name)] for name in ("one", "two")]
    assert [value for value in losses[1] if value] == pytest.approx([value for value in losses[0] if value], rel=1e-5)


@pytest.mark.system
@pytest.mark.skipif(not Path("/proc").exists(), reason="lists processes")
def test_a_killed_run_leaves_no_worker_behind_and_resumes_bit_equal(tmp_path):
    file = write_run(tmp_path, steps=400)
    command = [sys.executable, str(ROOT / "train.py"), str(file), "data.workers=2"]
    process = subprocess.Popen([*command, f"out={tmp_path}/killed"], stderr=subprocess.DEVNULL)
    while not (checkpoint.read_step(tmp_path / "killed", "last") or 0) >= 10:
        assert process.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.kill()
    process.wait()
    until = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{child}") for child in children) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [child for child in children if os.path.exists(f"/proc/{child}")]
    for name in ("killed", "whole"):
        assert main(["train", str(file), f"out={tmp_path}/{name}"]) == 0
    files = [tmp_path / name / "checkpoints" / "step-00000400" / "model.safetensors" for name in ("killed", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


COMBINED = {
    "a loss over all micro-batches": {
        "tasks": {"label": {"use": "classification", "target": "label", "unlabelled": 0.5}},
        "training": {"rows_per_micro_batch": 2},
    },
    "several tasks, one of which hides tokens": {
        "tasks": {
            "label": {"use": "classification", "target": "label"},
            "mlm": {"use": "masked_modeling", "target": "text"},
            "kind": {"use": "classification", "target": "kind"},
        },
    },
    "weighted classes, mixed samples, and averages": {
        "tasks": {"kind": {"use": "classification", "target": "kind", "class_weights": "balanced"}},
        "training": {"mixup": {"mixup": 0.6, "cutmix": 1.0}, "ema": 0.9},
        "inputs": {"image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8}},
    },
    "drawn by class": {"data": {"balance": "kind"}},
    "divided, and stopped early": {
        "data": {"split": {"val": 0.2, "test": 0.2, "stratify": "kind", "group": "who"}},
        "training": {"steps": None, "epochs": 8, "stop": {"patience": 1, "improvement": 9.0}},
        "checkpoints": {"average": 2},
    },
}  # fmt: skip


@pytest.mark.system
@pytest.mark.parametrize("name", COMBINED)
def test_workers_in_combination_change_nothing(tmp_path, name):
    from PIL import Image

    for n in range(120):
        noise = np.random.default_rng(n).integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{n}.png")
    rows = [
        {
            "image": f"{n}.png",
            "text": "chop " * (n % 5 + 1),
            "kind": "xyz"[n % 3 * (n % 5 > 0)],
            "who": f"person {n % 20}",
        }
        | ({} if n % 4 == 3 else {"label": "ab"[n % 2 if n % 3 else 0]})
        for n in range(120)
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tree = {
        "inputs": {"text": {"use": "text", "encoding": "bytes"}},
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 40, "attention": "same_sample", "dropout": 0.1},
        "tasks": {"kind": {"use": "classification", "target": "kind"}},
        "data": {
            "dataset": {"use": "manifest", "train": f"{tmp_path}/list.jsonl",
                        "columns": ["image", "text", "label", "kind", "who"], "files": ["image"]},
        },
        "training": {"steps": 8, "samples_per_step": 8, "precision": "float32"},
        "evaluation": {"every": 4}, "checkpoints": {"every": 4}, "logging": {"every": 1, "tensorboard": False},
    }  # fmt: skip
    for section, changes in COMBINED[name].items():
        tree[section] = changes if section in ("inputs", "tasks") else tree[section] | changes
    (tmp_path / "x.yaml").write_text(json.dumps(tree))
    for workers in (0, 2):
        assert main(["train", str(tmp_path / "x.yaml"), f"data.workers={workers}", f"out={tmp_path}/{workers}"]) == 0
    states = [sorted((tmp_path / str(workers)).glob("checkpoints/*/*.safetensors")) for workers in (0, 2)]
    assert len(states[0]) == len(states[1]) >= 2
    for plain, read in zip(*states):
        assert plain.parent.name == read.parent.name and plain.read_bytes() == read.read_bytes()
    assert metrics_of(tmp_path / "0") == metrics_of(tmp_path / "2")


def test_two_threads_never_send_at_once(two_workers, monkeypatch):
    """Evaluation and training send requests to the same worker; a long message is sent in parts."""

    class Parts:
        inside, most = 0, 0

        def send(self, message):
            Parts.inside += 1
            Parts.most = max(Parts.most, Parts.inside)
            time.sleep(0.02)
            Parts.inside -= 1

    if not two_workers.workers:
        two_workers.start()
    worker = two_workers.workers[0]
    monkeypatch.setattr(worker, "connection", Parts())
    threads = [threading.Thread(target=worker.send, args=(number, "it")) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Parts.most == 1
