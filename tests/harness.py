"""The settings, markers and fixtures of all tests.

Each process has one thread, since two OpenMP threads on a busy two-core machine can be several times slower. It has no
GPU, where results are not equal bit for bit; `test_gpu.py` explains how it gets one.
"""

import gc
import logging
import os

gc.disable()  # until the tests are collected: no imported object is freed
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("UV_RUN_RECURSION_DEPTH", None)  # `uv run pytest`: printed commands would begin with `uv run`
if os.environ.get("CHOPMIX_TEST_DEVICE") != "cuda":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import random
from functools import partial
from pathlib import Path

import pytest
import shapes
import tiers
import torch
import yaml
from checkout import TESTS
from chopmix.commands.cli import main
from chopmix.experiment import run_page
from chopmix.files import trust
from chopmix.inference import intervals, pages
from chopmix.inference.evaluator import Result
from chopmix.inference.evaluators.baselines import Baselines
from chopmix.inference.evaluators.report import ReportPage
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("chopmix", deadline=None, max_examples=50)  # a shared machine may stall at any example
settings.load_profile("chopmix")


QUICK = ("models", "tokenizers", "tasks", "data", "training")
"""Folders whose tests have the marker `quick`: they take less than a minute on two cores and need no project."""
LONG = {
    "models": (
        "attention", "constraints", "generation", "graph", "leaks", "notes", "own_layers", "tracer", "transformer",
    ),
    "tokenizers": ("codes", "encoded", "encodings", "resource_limits"),
    "training": ("cuda_rules", "training"),
    "tasks": ("bounded", "chance", "ctc", "masked_diffusion", "next_item", "sequence_to_sequence"),
    "data": ("columns", "datasets", "fingerprint", "mixture", "published_datasets", "samples", "token_file"),
}  # fmt: skip
"""Files in these folders that take too long."""


def is_quick(file: Path) -> bool:
    """Whether the tests of a file have the marker `quick`."""
    folder = file.parent.name
    return file.parents[1] == TESTS and folder in QUICK and file.stem.removeprefix("test_") not in LONG[folder]


def pytest_ignore_collect(collection_path, config):
    """With `-m quick`, other files are not imported."""
    others = config.option.markexpr == "quick" and collection_path.match("test_*.py") and not is_quick(collection_path)
    return True if others else None


def pytest_collection_modifyitems(items):
    for item in items:
        if is_quick(item.path) and not any(item.iter_markers("system")) and not any(item.iter_markers("slow")):
            item.add_marker("quick")


def pytest_collection_finish():
    gc.enable()


def pytest_runtest_setup(item):
    shapes.begin_test()


def pytest_terminal_summary(terminalreporter, config):
    tiers.record(terminalreporter, config)


def pytest_addoption(parser):
    parser.addoption("--rewrite-golden", action="store_true", help="write the golden losses as they are now")


TREE = {
    "inputs": {"text": {"use": "text", "encoding": "characters"}},
    "model": {"width": 32, "depth": 2, "heads": 4, "context": 16},
    "tasks": {"lm": {"use": "language_modeling", "target": "text"}},
    "training": {"steps": 12, "tokens_per_step": 64, "learning_rate": 1e-2, "schedule": "constant"},
    "evaluation": {"every": 4, "sample_tokens": 8},
    "checkpoints": {"every": 3, "keep": 2},
    "logging": {"every": 2, "tensorboard": False},
}


def merged(base, changes):
    """A tree with changes merged into it."""
    tree = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(tree.get(key), dict) and "use" not in value
        tree[key] = merged(tree[key], value) if both else value
    return tree


@pytest.fixture(scope="session", autouse=True)
def no_reports():
    """Training writes no report and no page at its end, which takes a second. Yields the functions that write them."""
    write = ReportPage.run, run_page.write_run_page, run_page.store_sums
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ReportPage, "run", lambda self, trained, say: Result())
        patched.setattr(run_page, "write_run_page", lambda run, file, group=None: None)
        patched.setattr(run_page, "store_sums", lambda run, data, generated: None)
        yield write


@pytest.fixture(scope="session", autouse=True)
def no_comparisons():
    """Training compares no run with simple models at its end, which takes seconds. Yields the function that does."""
    compare = Baselines.run
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Baselines, "run", lambda self, trained, say: Result())
        yield compare


@pytest.fixture
def comparisons(no_comparisons, monkeypatch):
    """Training compares runs with simple models."""
    monkeypatch.setattr(Baselines, "run", no_comparisons)


@pytest.fixture(scope="session", autouse=True)
def no_fsync():
    """Files are not flushed to the disk, since no test needs it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def short_pages():
    """Pages show three generated items instead of twelve: drawing them takes most of the time of an evaluation."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pages, "COUNT", 3)
        yield


@pytest.fixture(scope="session", autouse=True)
def few_resamples():
    """Intervals of metrics are computed from a tenth of the resamples. Yields the numbers of resamples of a run."""
    numbers = intervals.RESAMPLES, intervals.FEW_RESAMPLES
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(intervals, "RESAMPLES", numbers[0] // 10)
        patched.setattr(intervals, "FEW_RESAMPLES", numbers[1] // 10)
        yield numbers


@pytest.fixture(scope="module")
def all_resamples(few_resamples):
    """Intervals of metrics are computed as in a run."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(intervals, "RESAMPLES", few_resamples[0])
        patched.setattr(intervals, "FEW_RESAMPLES", few_resamples[1])
        yield


@pytest.fixture
def reports(no_reports, monkeypatch):
    """Training writes a report and a page at its end."""
    monkeypatch.setattr(ReportPage, "run", no_reports[0])
    monkeypatch.setattr(run_page, "write_run_page", no_reports[1])
    monkeypatch.setattr(run_page, "store_sums", no_reports[2])


@pytest.fixture
def messages(caplog):
    """A function that returns the messages of chopmix since its last call, one per line. Python does not print them."""
    caplog.set_level(logging.INFO, logger="chopmix")

    def new_messages() -> str:
        lines = [record.getMessage() for record in caplog.records if record.name == "chopmix"]
        caplog.clear()
        return "".join(f"{line}\n" for line in lines)

    return new_messages


@pytest.fixture
def memory_protocol(monkeypatch):
    """Addresses of the file system of fsspec in memory may be opened."""
    monkeypatch.setattr(trust, "PROTOCOLS", {*trust.PROTOCOLS, "memory"})


def tiny_in(folder: Path, name: str = "tiny", **changes) -> Path:
    """Write the YAML of a tiny experiment, and its text of a few hundred letters. Returns the path of the YAML."""
    random.seed(0)
    words = [random.choice(["chop", "mix", "set", "token"]) for _ in range(150)]
    (folder / "train.txt").write_text(" ".join(words))
    (folder / "val.txt").write_text(" ".join(reversed(words[:37])))
    dataset = {"use": "text", "train": str(folder / "train.txt"), "val": str(folder / "val.txt")}
    tree = merged(TREE | {"data": {"dataset": dataset}, "out": str(folder / "runs" / name)}, changes)
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A function that writes the YAML of a tiny experiment on a text of a few hundred letters, and returns its path."""
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    return partial(tiny_in, tmp_path)


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    """The folder in which the tiny experiment is trained, once for all tests of a session."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        assert main(["train", str(tiny_in(folder))]) == 0
    return folder


@pytest.fixture
def tiny_run(trained_once, monkeypatch):
    """The folder of a run of the tiny experiment, for tests that do not change it."""
    monkeypatch.setenv("CHOPMIX_CACHE", str(trained_once / "cache"))
    return trained_once / "runs" / "tiny"
