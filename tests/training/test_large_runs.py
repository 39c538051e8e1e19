"""Large runs, as far as one machine without a GPU can test them: millions of documents, processes that wait for hours,
machines with separate disks, and GPUs that only emulate bfloat16."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checkout import ROOT
from chopmix.data import processes as distribution
from chopmix.data.corpus import StreamSplit
from chopmix.data.processes import Processes
from chopmix.data.token_file import TokenFiles
from chopmix.data.tokenizing import prepare
from chopmix.experiment.train import fit
from chopmix.models.tokens import PADDING
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.training.accounting import fast_half
from ranks import train_together
from test_token_file import InMemoryTexts as Given
from test_training import losses, trainer

# ----------------------------------------------------------------------------------------------------------- documents


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> TokenFiles:
    """Documents of 1 to 30 bytes, each after its start token."""
    texts = ["x" * int(length) for length in np.random.default_rng(0).integers(1, 30, 300)]
    return prepare(
        Given(texts=texts), "train", ByteEncoding(), tmp_path_factory.mktemp("ids"), workers=1, progress=False
    )


def test_separate_documents_begin_at_their_start_tokens(file):
    split = StreamSplit(file=file, name="train", context=64, separate=True)
    places = split.all()
    planned = split.read(places).main
    real = planned.tokens.sample != PADDING
    ids = planned.chunks["text"].values
    starts = (ids == ByteEncoding().start) & real
    starts[:, 0] = True
    begins = torch.ones_like(real)
    begins[:, 1:] = planned.tokens.sample[:, 1:] != planned.tokens.sample[:, :-1]
    assert torch.equal(begins[real], starts[real]) and len(places) > 60
    for row, index in zip(starts.tolist(), planned.chunks["text"].index.tolist()):
        expected = -1
        for begun, position in zip(row, index):
            expected = 0 if begun else expected + 1
            assert position == expected


def test_documents_of_a_window_are_looked_up_fast_among_millions(file):
    """When each batch was compared with all documents, this took seconds."""
    (one,) = file.files
    many = TokenFiles([replace(one, starts=np.concatenate([one.starts, len(one.ids) + np.arange(8_000_000)]))])
    split = StreamSplit(file=many, name="train", context=64, separate=True, rows=12)
    places = split.plan(0, 0)
    split.read(places)
    start = time.process_time()
    for _ in range(20):
        split.read(places)
    assert time.process_time() - start < 0.5


# ----------------------------------------------------------------------------------------------------------- processes


class Recorded:
    """A replacement of torch.distributed that records its calls."""

    group = SimpleNamespace(WORLD="world")

    def __init__(self):
        self.calls: list[tuple[str, dict]] = []

    def __getattr__(self, name: str):
        def call(*args, **options):
            self.calls.append((name, {"args": args, **options}))
            return {"get_rank": 1, "get_world_size": 2, "is_initialized": False, "new_group": "control"}.get(name)

        return call

    def options(self, name: str) -> dict:
        return next(options for called, options in self.calls if called == name)


@pytest.fixture
def recorded(monkeypatch) -> Recorded:
    replacement = Recorded()
    monkeypatch.setattr(distribution, "dist", replacement)
    monkeypatch.setattr(distribution, "Watch", lambda: None)
    monkeypatch.setattr(Processes, "watch", None)
    return replacement


def test_on_gpus_all_except_gradients_use_a_group_that_waits_for_days(recorded, monkeypatch):
    """The group of the gradients gives up after ten minutes; preparing data takes longer."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    processes = Processes.start("cuda")
    assert processes == Processes(1, 2, torch.device("cuda", 1), "control")
    assert recorded.options("init_process_group")["args"] == ("nccl",)
    group = recorded.options("new_group")
    assert group["backend"] == "gloo" and group["timeout"] >= timedelta(hours=24)


def test_messages_between_processes_never_use_the_group_of_gradients(recorded):
    processes = Processes(1, 2, torch.device("cuda", 1), "control")
    processes.agree([1.0])
    processes.gathered([1])
    processes.broadcast(None)
    processes.wait()
    with processes.in_turn():
        pass
    groups = [options["group"] for _, options in recorded.calls]
    assert len(groups) >= 6 and set(groups) == {"control"}
    first = replace(processes, rank=0)
    recorded.calls.clear()
    first.broadcast_tensors({"x": torch.ones(2)})
    assert {options["group"] for _, options in recorded.calls} == {"control"}


# --------------------------------------------------------------------------------------------------------------- disks


def on_two_machines(file: Path, folders: list[Path], *overrides: str) -> list[str]:
    """Runs two processes that are each the first of their machine, in separate folders. Returns their outputs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank, folder in enumerate(folders):
        environment = os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
                                    "MASTER_PORT": port, "CHOPMIX_CACHE": str(folder / "cache")}  # fmt: skip
        command = [sys.executable, str(ROOT / "train.py"), str(file), "out=run", *overrides]
        started.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True))  # fmt: skip
    outputs = [process.communicate(timeout=240)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(outputs)
    return outputs


@pytest.mark.system
def test_machines_with_separate_disks_train_and_resume_as_one(tiny, tmp_path):
    """Assets, weights and the step come from the first one; a leftover checkpoint on the other disk is ignored."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    file = tiny("disks", training={"tokens_per_step": 64, "steps": 6}, checkpoints={"every": 2})
    on_two_machines(file, folders, "training.steps=4")
    assert not list((folders[1] / "run").rglob("*.safetensors"))
    stray = folders[1] / "run" / "checkpoints" / "step-00000099"
    stray.mkdir(parents=True)
    (stray / "state.json").write_text("{}")
    outputs = on_two_machines(file, folders)
    assert "at step 4" in outputs[0] and stray.exists()
    alone = trainer(file)
    fit(alone)
    assert losses(folders[0] / "run") == pytest.approx(losses(alone.folder), rel=1e-4)
    assert max(losses(alone.folder)) == 6


def test_machines_with_separate_disks_begin_at_the_step_of_the_first(tiny, tmp_path):
    """The checkpoint is only on the first disk; a leftover checkpoint on the other one is ignored."""
    file, stray = tiny("disks"), tmp_path / "disk-1" / "run" / "checkpoints" / "step-00000099"
    begun = trainer(file, f"out={tmp_path / 'disk-0' / 'run'}", "training.steps=4")
    fit(begun)
    stray.mkdir(parents=True)
    (stray / "state.json").write_text("{}")
    process = train_together(tmp_path, 2, file, "out=run", "training.steps=6", machines=True)
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("resumed run at step 4\n") == 1 and stray.exists()
    assert not list((tmp_path / "disk-1").rglob("*.safetensors"))
    alone = trainer(file, "training.steps=6")
    fit(alone)
    assert losses(begun.folder) == pytest.approx(losses(alone.folder), rel=1e-4) and max(losses(alone.folder)) == 6


# ---------------------------------------------------------------------------------------------------------------- GPUs


@pytest.mark.parametrize("capability, fast", [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_emulated_bfloat16_is_not_fast(monkeypatch, capability, fast):
    """According to torch, all of these support it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert fast_half(torch.device("cuda")) == fast
