"""Whether a killed run loses anything: killed anywhere and started again, it must end with the bits of one that never
was.

    python benchmarks/kill.py --points 100                          # three experiments, 100 kills each
    python benchmarks/kill.py --points 0 --starts 100 --terms 20 --nan --leftovers

Three small experiments (a language model, a mix of inputs, an encoder-decoder) run once undisturbed: the reference,
whose file operations are noted. Then, for every point, the experiment starts in a fresh folder with a cache of its
own, kills itself before, amid or after one of these operations (or is killed after some seconds), and the same
command is given until it ends; every third time it is killed on the way once more. What is there then is compared
with the reference, clocks and speeds apart: checkpoints, pointers, metrics, summary, assets, token files; no
temporary file and no process may be left.

`--starts` gives the same folder to two runs at once, `--terms` asks runs to stop instead of killing them, `--nan`
lets a batch poison the weights, `--leftovers` kills runs whose texts are encoded by worker processes. Results are
appended to a file of the folder: the same command with the same `--folder` goes on. Most runs are forks of a process
that has imported everything; a share of them (`--fresh`) begins in a new interpreter, as users' runs do.
"""

from __future__ import annotations

import argparse
import builtins
import hashlib
import importlib
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

PATIENCE = 120
"""Seconds after which a run is taken for one that never ends."""
PRELOADED = {
    "": [
        "chopmix.experiment.sweep",
        "chopmix.experiment.train",
        "chopmix.tokenizers.text",
        "chopmix.tasks.language_modeling",
        "torch._dynamo",
    ],
    "lm": ["chopmix.data.datasets.text"],
    "mix": [
        "chopmix.data.datasets.manifest",
        "chopmix.tokenizers.image",
        "chopmix.tokenizers.audio",
        "PIL.Image",
        "soundfile",
        "torchvision.transforms.v2",
        "torchaudio.functional",
    ],
    "seq2seq": ["chopmix.data.datasets.parallel_text", "chopmix.tasks.sequence_to_sequence", "sacrebleu"],
}
"""What is imported before runs are forked: for all experiments, and for each."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
"""The flags with which files are opened that are written to."""
FORKS = multiprocessing.get_context("forkserver")


# ------------------------------------------------------------------------------------------------------ inside a run


@dataclass(frozen=True)
class Strike:
    """What a run does to itself at one of its file operations."""

    number: int
    when: str = "before"
    """`before` the operation, `after` it, or `torn`: after half of what it writes."""
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Plan:
    """One process: the experiment in `folder`, how it is disturbed, and what is noted."""

    folder: str
    arguments: tuple[str, ...] = ("experiment.yaml",)
    strike: Strike | None = None
    poison: tuple[int, ...] = ()
    """The batches that make a weight no number before they are read: so the loss, and all weights after it."""
    poison_weights: tuple[int, ...] = ()
    """The batches after which a weight is no number, while their own loss is one."""
    log: str | None = None
    """The file of the folder in which operations are noted."""
    settings: dict[str, int] = field(default_factory=dict)
    """Constants to change, `module:name`."""


class Watch:
    """Numbers this process's file operations below `folder/run` and `folder/cache`, and updates, and strikes at
    one of them.

    Functions of `os`, `open` and safetensors' writer are wrapped, so that there is a moment after each as well;
    an audit hook tells of whatever escapes them (`unseen`).
    """

    def __init__(self, folder: Path, strike: Strike | None):
        self.folder, self.strike = folder.resolve(), strike
        self.roots = tuple(str(self.folder / name) for name in ("run", "cache"))
        self.seen: list[tuple[str, str]] = []
        self.unseen: list[tuple[str, str]] = []
        self.lock, self.within = threading.Lock(), threading.local()

    def install(self) -> None:
        """Put the wrappers where everybody finds them."""
        import safetensors.torch

        for name in ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "truncate", "link", "symlink"):
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        os.fsync = self._wrapped("fsync", os.fsync)
        os.open = self._low_opener(os.open)
        builtins.open = io.open = self._opener(builtins.open)
        safetensors.torch.serialize_file = self._tensor_writer(safetensors.torch.serialize_file)
        sys.addaudithook(self._audit)

    def place(self, path: Any, folder: int | None = None) -> str | None:
        """A path below the watched folders, from `folder` on; None for any other."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        found = os.fsdecode(path)
        if folder is not None and not os.path.isabs(found):
            found = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), found)
        found = os.path.abspath(found)
        return os.path.relpath(found, self.folder) if found.startswith(self.roots) else None

    def meet(self, kind: str, place: str, act: Callable[[], Any], tear: Callable[[], Any] | None = None) -> Any:
        """One operation: it gets a number, and is struck where that is wanted."""
        with self.lock:
            number = len(self.seen)
            self.seen.append((kind, place))
        here = self.strike if self.strike and self.strike.number == number else None
        if here and here.when == "before":
            self._strike(kind, place)
        if here and here.when == "torn" and tear:
            self._quietly(tear)
            self._strike(kind, place)
        try:
            return self._quietly(act)
        finally:  # also where it raises, as making a folder that is there does
            if here and here.when in ("after", "torn"):
                self._strike(kind, place)

    def _strike(self, kind: str, place: str) -> None:
        told = os.open(self.folder / "struck.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(told, f"{self.strike.when} {kind} {nameless(place)}\n".encode())
        os.close(told)
        os.kill(os.getpid(), self.strike.signal)

    def _quietly(self, act: Callable[[], Any]) -> Any:
        before, self.within.wrapper = getattr(self.within, "wrapper", False), True
        try:
            return act()
        finally:
            self.within.wrapper = before

    def _wrapped(self, kind: str, original: Callable) -> Callable:
        def wrapper(path, *others, **named):
            place = None if getattr(self.within, "wrapper", False) else self.place(path, named.get("dir_fd"))
            if place is None:
                return original(path, *others, **named)
            shown = self.place(others[0]) if kind in ("replace", "rename") else None
            return self.meet(kind, shown or place, lambda: original(path, *others, **named))

        return wrapper

    def _opener(self, original: Callable) -> Callable:
        def wrapper(file, mode="r", *others, **named):
            writes = isinstance(mode, str) and set(mode) & set("wax+")
            place = self.place(file) if writes else None
            if place is None:
                return original(file, mode, *others, **named)
            if isinstance(file, int):  # opened before: that was the operation
                return Pen(original(file, mode, *others, **named), place, self)
            return Pen(self.meet("open", place, lambda: original(file, mode, *others, **named)), place, self)

        return wrapper

    def _low_opener(self, original: Callable) -> Callable:
        def wrapper(path, flags, *others, **named):
            hidden = getattr(self.within, "wrapper", False) or not flags & WRITING
            place = None if hidden else self.place(path, named.get("dir_fd"))
            if place is None:
                return original(path, flags, *others, **named)
            return self.meet("open", place, lambda: original(path, flags, *others, **named))

        return wrapper

    def _tensor_writer(self, original: Callable) -> Callable:
        def wrapper(tensors, filename, **named):
            def tear():
                original(tensors, filename, **named)
                os.truncate(filename, os.path.getsize(filename) // 2)

            place = self.place(filename)
            return self.meet("tensors", place or "elsewhere", lambda: original(tensors, filename, **named), tear)

        return wrapper

    def _audit(self, event: str, arguments: tuple) -> None:
        changing = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
        if event == "open" and isinstance(arguments[0], str | bytes):
            changing = bool(arguments[2] & WRITING)
        if changing and not getattr(self.within, "wrapper", False) and not isinstance(arguments[0], int):
            place = os.path.abspath(os.fsdecode(arguments[0]))
            if place.startswith(self.roots):
                self.unseen.append((event, place))


class Pen:
    """A file open for writing, whose writes are operations of their own."""

    def __init__(self, file: Any, place: str, watch: Watch):
        self._file, self._place, self._watch, self._wet = file, place, watch, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Pen:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator:
        return iter(self._file)

    def write(self, content: Any) -> int:
        """Into the buffer; torn: half of it onto the disk."""

        def tear():
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        written = self._watch.meet("write", self._place, lambda: self._file.write(content), tear)
        self._wet = True
        return written

    def flush(self) -> None:
        """The buffer onto the disk."""
        self._watch.meet("flush", self._place, self._file.flush)
        self._wet = False

    def truncate(self, *size: int) -> int:
        """Cut the file."""
        return self._watch.meet("truncate", self._place, lambda: self._file.truncate(*size))

    def close(self) -> None:
        """An operation where something is still in the buffer."""
        if self._wet:
            self._wet = False
            self._watch.meet("close", self._place, self._file.close)
        else:
            self._file.close()


def nameless(place: str) -> str:
    """A path without what differs from process to process: `run/.best.json.HOST.1a2b3c4d.77` is `run/.best.json.~`."""
    place = re.sub(r"(\.[^/]+)\.[^/]+\.[0-9a-f]{8}\.\d+$", r"\1.~", place)
    return re.sub(r"(/\.[^/]+)\.\d+(?=/|$)", r"\1.~", place)


def number_steps(watch: Watch) -> None:
    """Make the beginning of every update an operation too: a moment between those on files."""
    from chopmix.training.loop import Learner

    original = Learner.update

    def update(learner, step, share):
        watch.meet("update", f"step {step}", lambda: None)
        return original(learner, step, share)

    Learner.update = update


def poison(batches: Sequence[int], weights: bool) -> None:
    """Let training go wrong at these batches."""
    import torch
    from chopmix.training.loop import Trainer

    original = Trainer.update

    @torch.no_grad()
    def spoil(trainer) -> None:
        next(trainer.learner.model.parameters()).fill_(torch.nan)

    def update(trainer):
        meant = trainer.loader.batch_number(trainer.step) in batches
        if meant and not weights:
            spoil(trainer)
        loss = original(trainer)
        if meant and weights:
            spoil(trainer)
        return loss

    Trainer.update = update


def obey(plan: Plan, forked: bool = True) -> None:
    """The life of one run: this process trains, watched, with its output in `said.txt`."""
    if forked:
        os.setsid()
    os.chdir(plan.folder)
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1), os.dup2(said, 2)
    os.environ["CHOPMIX_CACHE"] = os.path.join(plan.folder, "cache")
    for place, value in plan.settings.items():
        module, _, name = place.partition(":")
        setattr(importlib.import_module(module), name, value)
    for batches, weights in ((plan.poison, False), (plan.poison_weights, True)):
        if batches:
            poison(batches, weights)
    from chopmix.commands.cli import main

    watch = Watch(Path(plan.folder), plan.strike)
    watch.install()
    number_steps(watch)
    status = 1
    try:
        status = main(["train", *plan.arguments])
    finally:
        if plan.log:
            told = {"seen": [(kind, nameless(place)) for kind, place in watch.seen], "unseen": watch.unseen}
            Path(plan.folder, plan.log).write_text(json.dumps(told))
    sys.exit(status)


# --------------------------------------------------------------------------------------------------- starting a run


class Started:
    """A run in a process and a session of its own."""

    def __init__(self, plan: Plan, fresh: bool = False):
        self.fresh, self.began = fresh, time.monotonic()
        if fresh:
            given = json.dumps(asdict(plan))
            self.process: Any = subprocess.Popen(
                [sys.executable, __file__, "--obey", given], start_new_session=True, stdin=subprocess.DEVNULL
            )
        else:
            self.process = FORKS.Process(target=obey, args=(plan,))
            self.process.start()

    @property
    def pid(self) -> int:
        """The process, and its session."""
        return self.process.pid

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """The exit status, that of a signal negative; None for one that is still running then."""
        if not self.fresh:
            self.process.join(seconds)
            return self.process.exitcode
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def send(self, number: int) -> None:
        """A signal, where it is still there."""
        if self.wait(0) is None:
            os.kill(self.pid, number)

    def ended(self, seconds: float = PATIENCE) -> int:
        """The exit status; one that does not end by itself is killed with all of its session: status -99."""
        status = self.wait(seconds)
        if status is None:
            for process in session(self.pid):
                os.kill(process, signal.SIGKILL)
            self.wait()
        return -99 if status is None else status


def prepare_forks(experiments: Iterable[str]) -> None:
    """Have everything imported once, in the process that runs are forked from."""
    os.environ["OMP_NUM_THREADS"] = "1"
    FORKS.set_forkserver_preload([module for name in ("", *experiments) for module in PRELOADED[name]])
    first = FORKS.Process(target=int)
    first.start(), first.join()


def session(number: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, own = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(own) == number and state not in "ZX":
            found.append(int(folder.name))
    return found


def left_processes(number: int, seconds: float = 10.0) -> list[str]:
    """Processes of a run that are there after so many seconds still."""
    end = time.monotonic() + seconds
    while (found := session(number)) and time.monotonic() < end:
        time.sleep(0.02)
    return [f"process {each} is left" for each in found]


# ------------------------------------------------------------------------------------------------------ experiments

LM = """
inputs: {text: {use: text, encoding: characters}}
model: {width: 16, depth: 1, heads: 2, context: 16, dropout: 0.1}
tasks: {lm: {use: language_modeling, target: text}}
data: {dataset: {use: text, train: DATA/train.txt, val: DATA/val.txt}}
training: {steps: 16, tokens_per_step: 64, learning_rate: 0.1, schedule: constant, ema: 0.8}
evaluation: {every: 4, sample_tokens: 8}
checkpoints: {every: 3, keep: 2, average: 2}
logging: {every: 2, tensorboard: false}
"""
MIX = """
inputs:
  image: {use: image, patch_size: 4, channels: 1, size: 8, position: null, augment: {use: image_augmentation, shift: 1}}
  operator: {use: text, encoding: characters, position: null}
  sound: {use: audio, rate: 8000, mels: 8, frames: 16, position: null, augment_wave: {shift: 0.05, speed: 0.1}}
  answer: {use: text, encoding: characters, position: null}
model: {width: 16, depth: 1, heads: 2, context: 32, attention: "same_sample & (causal | from(image, sound))",
        position: rotary}
tasks: {answer: {use: language_modeling, target: answer, metrics: [exact_match]}}
data: {dataset: {use: manifest, train: DATA/train.jsonl, val: DATA/val.jsonl, columns: [image, operator, sound, answer],
              files: [image, sound]}}
training: {steps: 8, samples_per_step: 8, learning_rate: 0.02, input_dropout: 0.3, optimizer: muon, precision: fast}
evaluation: {every: 2, attribution: true, generated: 4}
checkpoints: {every: 2, keep: 2, average: 2}
logging: {every: 2, tensorboard: false}
"""
SEQ2SEQ = """
inputs:
  source: {use: text, encoding: bpe, vocabulary: 280, position: null}
  target: {same_as: source}
model: {width: 16, depth: 1, heads: 2, context: 48, attention: causal & same_sample, position: rotary, dropout: 0.1,
        encoder: {depth: 1, context: 48, position: rotary}}
tasks: {translation: {use: sequence_to_sequence, target: target, metrics: [bleu, chrf], search: {beams: 2}}}
data: {columns: {source: en, target: de}, dataset: {use: parallel_text, train: {en: DATA/train.en, de: DATA/train.de},
                                                 val: {en: DATA/val.en, de: DATA/val.de}}}
training: {steps: 20, tokens_per_step: 200, learning_rate: 0.1, schedule: constant, ema: 0.5}
evaluation: {every: 4, sample_tokens: 8}
checkpoints: {every: 3, keep: 2, best: val/chrf}
logging: {every: 1, tensorboard: false}
"""
EXPERIMENTS = {"lm": LM, "mix": MIX, "seq2seq": SEQ2SEQ}
OTHER = ("experiment.yaml", "training.seed=1", "model.width=24")
"""Another configuration for the same folder."""
PLAIN = ("experiment.yaml", "training.ema=null", "checkpoints.average=null")
"""The language model as it is, which writes its samples without averages."""
WORKERS = {"chopmix.data.corpus.prepare:WORK": 64, "chopmix.data.corpus.prepare:PART": 64}
"""Chunks of work so small that the text of the language model keeps worker processes busy."""


def write_data(folder: Path, experiments: Iterable[str]) -> None:
    """What the experiments read: a text, the package's own arithmetic as files, and sentences in two languages;
    always the same."""
    chance = random.Random(0)
    words = {"one": "eins", "two": "zwei", "three": "drei", "cat": "Katze", "dog": "Hund", "red": "rot"}
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in (("train", 1), ("val", 6)):
        (folder / f"{split}.txt").write_text(" ".join(chance.choice(list(words)) for _ in range(400 // size)))
        lines = [[chance.choice(list(words)) for _ in range(chance.randint(1, 4))] for _ in range(80 // size)]
        (folder / f"{split}.en").write_text("".join(" ".join(line) + "\n" for line in lines))
        (folder / f"{split}.de").write_text("".join(" ".join(map(words.get, line)) + "\n" for line in lines))
        if "mix" in experiments and not (folder / f"{split}.jsonl").exists():
            write_problems(folder, split, 48 // size)


def write_problems(folder: Path, split: str, count: int) -> None:
    """Some problems of the dataset `arithmetic` as a manifest with pictures and sounds."""
    import soundfile
    from chopmix.data.datasets.arithmetic import Arithmetic
    from PIL import Image

    rows, samples = [], Arithmetic(samples=count).open(split)
    for number in range(count):
        sample = dict(samples[number])
        Image.fromarray(sample["image"]).save(folder / f"{split}{number}.png")
        soundfile.write(folder / f"{split}{number}.wav", *sample["sound"])
        rows.append({**sample, "image": f"{split}{number}.png", "sound": f"{split}{number}.wav"})
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@dataclass
class Reference:
    """An experiment that nothing disturbed."""

    name: str
    folder: Path
    plan: Plan
    operations: list[tuple[str, str]]
    seconds: float
    """How long a fork needs for it."""


class Campaign:
    """A folder of results, and what all trials need: data, references, a place for each run."""

    def __init__(
        self, folder: Path, experiments: Sequence[str] = tuple(EXPERIMENTS), *, seed: int = 0, fresh: float = 0.2,
        settings: Sequence[str] = (),
    ):  # fmt: skip
        """`fresh` is the share of trials in new interpreters; `settings` are overrides (`training.ema=null`)
        for all runs."""
        self.folder, self.seed, self.fresh, self.settings = folder.resolve(), seed, fresh, tuple(settings)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / "results.jsonl"
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.results = {(found["what"], found["trial"]): found for found in map(json.loads, lines)}
        self._check_sources()
        write_data(self.folder / "data", experiments)
        prepare_forks(experiments)

    def _check_sources(self) -> None:
        """Results of one state of the code are not mixed with those of another."""
        from importlib.util import find_spec

        package = Path(find_spec("chopmix.commands.cli").origin).parents[1]
        rooms = ("models", "tokenizers", "tasks", "data", "inference", "training", "experiment", "commands")
        files = sorted(file for room in rooms for file in (package / room).rglob("*.py"))
        now = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        told = self.folder / "sources.txt"
        if told.exists() and told.read_text() != now:
            raise SystemExit(f"{self.folder} holds results of other sources; take another --folder")
        told.write_text(now)

    def place(self, name: str, where: str) -> Path:
        """A fresh folder for a run of an experiment."""
        folder = self.folder / where
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        text = EXPERIMENTS[name].replace("DATA", str(self.folder / "data"))
        (folder / "experiment.yaml").write_text(f"out: run\n{text}")
        return folder

    def reference(self, name: str, title: str | None = None, **how: Any) -> Reference:
        """The undisturbed run, made once: as a fork, and once more (in a new interpreter, where some trials
        are), which must agree."""
        title = title or name
        folder, told = self.folder / f"reference-{title}", self.folder / f"reference-{title}.json"
        plan = Plan(str(folder), log="operations.json", **how)
        plan = replace(plan, arguments=(*plan.arguments, *self.settings))
        if not told.exists():
            twin = replace(plan, folder=str(self.place(name, f"reference-{title}-twin")))
            first = Started(twin, fresh=self.fresh > 0).ended()
            self.place(name, folder.name)
            fork = Started(plan)
            if fork.ended() or first:
                where = folder if fork.wait() else Path(twin.folder)
                raise SystemExit(f"{title}: the undisturbed run ended with {fork.wait() or first}\n{words_of(where)}")
            seconds = time.monotonic() - fork.began
            found = json.loads((folder / "operations.json").read_text())
            wrong = differences(Path(twin.folder), folder) + [f"unseen: {each}" for each in found["unseen"]]
            if wrong:
                raise SystemExit(f"{title}: two undisturbed runs differ: {wrong}")
            told.write_text(json.dumps({"operations": found["seen"], "seconds": seconds}))
        known = json.loads(told.read_text())
        return Reference(name, folder, plan, [tuple(each) for each in known["operations"]], known["seconds"])

    def keep(self, what: str, trial: str, wrong: list[str], **more: Any) -> None:
        """Note a result and show it."""
        found = {"what": what, "trial": trial, "wrong": wrong, **more}
        self.results[what, trial] = found
        with open(self.file, "a") as file:
            file.write(json.dumps(found) + "\n")
        same = [each for (name, _), each in self.results.items() if name == what]
        bad = sum(bool(each["wrong"]) for each in same)
        print(f"{what} {trial}: {wrong or 'equal'}  ({len(same) - bad} equal, {bad} different)", flush=True)

    def known(self, what: str, trial: str) -> bool:
        """Whether this was tried already."""
        return (what, trial) in self.results


def said_in(folder: Path) -> str:
    """All that a run said."""
    return (folder / "said.txt").read_text() if (folder / "said.txt").exists() else ""


def words_of(folder: Path) -> str:
    """What a run said, its last lines."""
    return "\n".join(said_in(folder).splitlines()[-12:])


# ---------------------------------------------------------------------------------------------------------- compare

CLOCKS = {"seconds", "train/tokens_per_second", "train/flops_per_second", "train/seconds_per_step", "train/waited",
          "train/peak_memory_bytes"}  # fmt: skip


def timeless(value: Any) -> Any:
    """A JSON value without clocks, speeds and memory."""
    if isinstance(value, dict):
        return {name: timeless(each) for name, each in value.items() if name not in CLOCKS}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def facts(folder: Path) -> dict[str, Any]:
    """All that a run must end with, by names that say what it is."""
    run = folder / "run"
    found: dict[str, Any] = {"checkpoints": sorted(each.name for each in (run / "checkpoints").glob("*"))}
    for which in ("last", "best"):
        found[f"{which}.json"] = pointer = read(run / f"{which}.json")
        step = pointer.get("step", 0) if isinstance(pointer, dict) else 0
        checkpoint = run / "checkpoints" / f"step-{step:08d}"
        found[f"{which} state"] = read(checkpoint / "state.json")
        for part in ("model", "optimizer", "ema"):
            found[f"{which} {part}"] = checkpoint / f"{part}.safetensors"
    found["summary"] = read(run / "summary.json")
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    found |= {f"metrics, line {number}": as_json(line) for number, line in enumerate(lines, start=1)}
    found["metrics, lines"] = len(lines)
    for name in ("config.yaml", "choices.json", "data.json"):
        found[name] = (run / name).read_text() if (run / name).exists() else None
    for root in (run / "assets", folder / "cache"):
        for file in sorted(each for each in root.rglob("*") if each.is_file() and each.name[0] != "."):
            found[f"file {file.relative_to(folder)}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def read(file: Path) -> Any:
    """The value of a JSON file, without clocks; a word where there is none."""
    return as_json(file.read_text()) if file.exists() else "missing"


def as_json(text: str) -> Any:
    """A JSON text's value without clocks, or the text."""
    try:
        return timeless(json.loads(text))
    except ValueError:
        return text


def differences(expected: Path, folder: Path) -> list[str]:
    """What differs between two runs, in words."""
    first, second, found = facts(expected), facts(folder), []
    for name in dict.fromkeys([*first, *second]):
        one, other = first.get(name, "not there"), second.get(name, "not there")
        if isinstance(one, Path) and isinstance(other, Path):
            found += different_tensors(name, one, other)
        elif one != other:
            found.append(f"{name}: {first_difference(one, other)}")
    return found


def first_difference(one: Any, other: Any) -> str:
    """Two values, or of two mappings the first entry that differs."""
    if isinstance(one, dict) and isinstance(other, dict):
        name = next(each for each in [*one, *other] if one.get(each, "missing") != other.get(each, "missing"))
        return f"{name}: {first_difference(one.get(name, 'missing'), other.get(name, 'missing'))}"
    return f"{str(one)[:160]} is expected, found {str(other)[:160]}"


def different_tensors(name: str, one: Path, other: Path) -> list[str]:
    """The first tensor that differs, and by how much."""
    if not one.exists() or not other.exists():
        return [f"{name}: {other.name} is {'missing' if one.exists() else 'too many'}"] * (
            one.exists() != other.exists()
        )
    if one.read_bytes() == other.read_bytes():
        return []
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(other)
    for key in dict.fromkeys([*first, *second]):
        if key not in first or key not in second or first[key].shape != second[key].shape:
            return [f"{name}: {key} is not in both"]
        if not first[key].equal(second[key]):
            apart = (first[key].double() - second[key].double()).abs().max()
            return [f"{name}: {key} differs by up to {apart:.3g}"]
    return [f"{name}: the same tensors in other bytes"]


def left_files(folder: Path) -> list[str]:
    """Temporary files in a run that ended, and in its cache."""
    every = [each for root in (folder / "run", folder / "cache") for each in root.rglob("*")]
    return [f"{each.relative_to(folder)} is left" for each in every if each.name[0] == "." and each.name != ".lock"]


# ----------------------------------------------------------------------------------------------------------- points


@dataclass(frozen=True)
class Point:
    """Where a run is killed: at an operation, or after some seconds; `again`: and where once more, when it goes on."""

    label: str
    strike: Strike | None = None
    seconds: float | None = None
    again: Strike | None = None
    fresh: bool = False


def windows(operations: Sequence[tuple[str, str]]) -> dict[str, list[int]]:
    """The operations at which most can be lost, by what is going on: `preparation`, `first best`, `newest best`,
    `pointers`, and the `end`, after the last step."""
    starts = [n for n, (kind, place) in enumerate(operations) if (kind, place) == ("write", "run/metrics.jsonl")]
    best = [n for n, operation in enumerate(operations) if operation == ("replace", "run/best.json")]
    segment = [sum(start <= n for start in starts) for n in range(len(operations))]
    found: dict[str, list[int]] = {"preparation": [], "first best": [], "newest best": [], "pointers": [], "end": []}
    last = max(step_of(place) for _, place in operations)
    ending = next(n for n, (_, place) in enumerate(operations) if step_of(place) == last)
    for n, (_, place) in enumerate(operations):
        if segment[n] == 0:
            found["preparation"].append(n)
        elif n >= ending:
            found["end"].append(n)
        elif best and segment[n] == segment[best[0]]:
            found["first best"].append(n)
        elif segment[n] == segment[max((b for b in best if b < ending), default=-1)] and best:
            found["newest best"].append(n)
        elif re.search(r"(best|last)\.json", place):
            found["pointers"].append(n)
    return found


def step_of(place: str) -> int:
    """The step of the checkpoint that a path is in; -1 for others."""
    found = re.search(r"step-(\d{8})", place)
    return int(found[1]) if found else -1


def shares(groups: dict[str, list[int]], most: int, chance: random.Random) -> list[int]:
    """So many operations, taken from the groups in turn, of each in random order: all of a small group before
    most of a large one."""
    rest = {name: chance.sample(numbers, len(numbers)) for name, numbers in groups.items()}
    found: list[int] = []
    while len(found) < most and any(rest.values()):
        found += [numbers.pop() for numbers in rest.values() if numbers]
    return found[:most]


def point_at(reference: Reference, number: int, when: str = "before", number_of_signal: int = signal.SIGKILL) -> Point:
    """A kill, or another signal, at one of the reference's operations."""
    kind, place = reference.operations[number]
    return Point(f"{number} {when} {kind} {place}", strike=Strike(number, when, number_of_signal))


def points(reference: Reference, count: int, seed: int, fresh: float) -> list[Point]:
    """Three fifths of the points in the windows, a fifth spread evenly over all operations, a fifth over the
    seconds."""
    chance, operations = random.Random(f"{reference.name} {seed}"), reference.operations
    by_time = count // 5
    chosen = shares(windows(operations), 3 * count // 5, chance)
    others = [n for n in range(len(operations)) if n not in set(chosen)]
    wanted = min(count - by_time - len(chosen), len(others))
    chosen += [others[int((n + chance.random()) * len(others) / wanted)] for n in range(wanted)]
    found = []
    for number in chosen:
        kinds = ["before", "after", *["torn"] * (operations[number][0] in ("write", "tensors"))]
        found.append(point_at(reference, number, chance.choice(kinds)))
    for n in range(count - len(found)):
        seconds = (n + chance.random()) / (count - len(chosen)) * reference.seconds
        found.append(Point(f"{seconds:.3f} s", seconds=seconds))
    return [
        replace(
            point,
            again=Strike(chance.randrange(len(operations)), chance.choice(["before", "after", "torn"]))
            if n % 3 == 2
            else None,
            fresh=chance.random() < fresh and point.seconds is None,
        )
        for n, point in enumerate(found)
    ]


def kill_and_resume(campaign: Campaign, reference: Reference, point: Point, where: str) -> list[str]:
    """Try one point; gives what is wrong at the end."""
    folder = campaign.place(reference.name, where)
    plan = replace(reference.plan, folder=str(folder), log=None)
    started = Started(replace(plan, strike=point.strike), point.fresh)
    if point.seconds is not None and started.wait(point.seconds) is None:
        started.send(signal.SIGKILL)
    status, wrong = started.ended(), []
    if point.strike:
        struck = (folder / "struck.txt").read_text() if (folder / "struck.txt").exists() else ""
        meant = -signal.SIGKILL if point.strike.signal == signal.SIGKILL else 128 + point.strike.signal
        if status != meant or struck.split() != point.label.split()[1:]:
            wrong.append(f"it was not stopped there, but at {struck!r}, and ended with {status}: {words_of(folder)}")
    wrong += left_processes(started.pid)
    wrong += finished(plan, point.again, point.fresh)
    wrong += differences(reference.folder, folder) + left_files(folder)
    if not wrong:
        shutil.rmtree(folder)
    return wrong


def finished(plan: Plan, again: Strike | None = None, fresh: bool = False) -> list[str]:
    """Give the command until it ends, the first time perhaps killed once more; gives what is wrong."""
    folder, wrong = Path(plan.folder), []
    for strike in (again, None) if again else (None,):
        started = Started(replace(plan, strike=strike), fresh)
        status = started.ended()
        wrong += left_processes(started.pid)
        if status != 0 and not (strike and status == -signal.SIGKILL):
            return [*wrong, f"started again it ended with {status}: {words_of(folder)}"]
    return wrong


def try_points(campaign: Campaign, name: str, count: int) -> None:
    """The kills of one experiment."""
    reference = campaign.reference(name)
    for number, point in enumerate(points(reference, count, campaign.seed, campaign.fresh)):
        if not campaign.known(name, f"{number:03}"):
            began = time.monotonic()
            wrong = kill_and_resume(campaign, reference, point, f"{name}-{number:03}")
            more = {"again": point.again and asdict(point.again), "fresh": point.fresh}
            seconds = round(time.monotonic() - began, 2)
            campaign.keep(name, f"{number:03}", wrong, point=point.label, seconds=seconds, **more)


# -------------------------------------------------------------------------------- two starts, signals, no numbers,
# workers


def try_starts(campaign: Campaign, count: int) -> None:
    """Pairs of starts in one folder, of the same configuration and of two, at once or one a little after the other."""
    own, other = campaign.reference("lm"), campaign.reference("lm", "lm-other", arguments=OTHER)
    chance = random.Random(f"starts {campaign.seed}")
    for number in range(count):
        second = (own, other)[number % 2]
        delay = 0.0 if number % 4 < 2 else chance.uniform(0, 0.6 * own.seconds)
        order = [own, second] if chance.random() < 0.5 else [second, own]
        if campaign.known("starts", f"{number:03}"):
            continue
        wrong, told = two_starts(campaign, order, delay, f"starts-{number:03}")
        kind = "same" if second is own else "different"
        campaign.keep("starts", f"{number:03}", wrong, point=f"{kind}, {delay:.3f} s apart: {told}")


USED = re.compile(
    r"^run is in use: process (\d+) on \S+ works on it since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d; ", re.MULTILINE
)
LATE = re.compile(r"^done: run, .*\nrun is (finished|a run of another configuration)", re.MULTILINE)
"""What is said by two starts of which the second found a run that was done."""


def two_starts(campaign: Campaign, order: list[Reference], delay: float, where: str) -> tuple[list[str], str]:
    """One must work and end as if alone; the other must say who works there and must have changed nothing. Where
    the second came when the first was done, on a busy machine, they are started again, nearer to each other."""
    folder, started = campaign.place("lm", where), []
    for n, reference in enumerate(order):
        started.append(Started(replace(reference.plan, folder=str(folder), log=f"operations-{n}.json")))
        time.sleep(delay if n == 0 else 0)
    status = [each.ended() for each in started]
    wrong = [line for each in started for line in left_processes(each.pid)]
    told = words_of(folder)
    if not wrong and delay > 0.001 and LATE.search(said_in(folder)):
        return two_starts(campaign, order, delay / 2, where)
    if sorted(status) != [0, 2]:
        return [*wrong, f"they ended with {status}: {told}"], ""
    winner, loser = status.index(0), status.index(2)
    said = USED.search(said_in(folder))
    if said is None or int(said[1]) != started[winner].pid:
        wrong.append(f"the second was not told that process {started[winner].pid} works there: {told}")
    done = json.loads((folder / f"operations-{loser}.json").read_text())
    allowed = {("mkdir", "run"), ("open", "run/.lock")}
    wrong += [f"the second did {each}" for each in map(tuple, done["seen"] + done["unseen"]) if each not in allowed]
    wrong += differences(order[winner].folder, folder) + left_files(folder)
    if not wrong:
        shutil.rmtree(folder)
    return wrong, f"number {winner + 1} worked"


def try_terms(campaign: Campaign, names: Iterable[str], count: int) -> None:
    """Ask runs to stop, by SIGTERM and SIGINT, once and twice: after seconds, as an update begins, at any operation."""
    chance = random.Random(f"terms {campaign.seed}")
    for name in names:
        reference, what = campaign.reference(name), f"terms {name}"
        every = range(len(reference.operations))
        updates = [n for n in every if reference.operations[n][0] == "update"]
        for number in range(count):
            kind, times = ((signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 2))[number % 4]
            place, where = (number + chance.random()) / count, (updates, every)[number % 2]
            point = point_at(reference, where[int(place * len(where))], "before", kind)
            if number % 3 == 0:
                point = Point(f"{place * reference.seconds:.2f} s", seconds=place * reference.seconds)
            if not campaign.known(what, f"{number:03}"):
                wrong, told = ask_to_stop(campaign, reference, kind, times, point, f"terms-{name}-{number:03}")
                campaign.keep(what, f"{number:03}", wrong, point=f"{kind.name} x {times} at {point.label}: {told}")


def ask_to_stop(
    campaign: Campaign, reference: Reference, kind: signal.Signals, times: int, point: Point, where: str
) -> tuple[list[str], str]:
    """Send a signal, once or twice: the run must end within seconds, saved, and go on as if never asked."""
    folder = campaign.place(reference.name, where)
    plan = replace(reference.plan, folder=str(folder), log=None)
    started = Started(replace(plan, strike=point.strike))
    if point.seconds is not None:
        started.wait(point.seconds)
        started.send(kind)
    while point.strike and not (folder / "struck.txt").exists() and started.wait(0.002) is None:
        pass
    if times == 2:
        time.sleep(0.01)
        started.send(kind)
    asked = time.monotonic()
    status, seconds = started.ended(), time.monotonic() - asked
    wrong, said = left_processes(started.pid), said_in(folder)
    if seconds > 5:
        wrong.append(f"it took {seconds:.1f} s to end")
    if status not in (0, 128 + kind, -kind) or "Traceback" in said:
        wrong.append(f"it ended with {status}: {words_of(folder)}")
    saved = read(folder / "run" / "last.json")
    step = saved.get("step", -1) if isinstance(saved, dict) else -1
    if f"saved run at step {step}" not in said and "saved run" in said:
        wrong.append(f"it says that it is saved, but is not: {words_of(folder)}")
    own = f"step-{step:08d}"  # it counts among the newest that are kept, so that another one may be missing
    wrong += finished(plan) + left_files(folder)
    wrong += [each for each in differences(reference.folder, folder) if each[:12] != "checkpoints:" or own not in each]
    if not wrong:
        shutil.rmtree(folder)
    return wrong, f"status {status}, step {step}"


def try_nan(campaign: Campaign) -> None:
    """Runs that go wrong once come back by themselves, also when killed meanwhile; those that do twice say so and
    stop."""
    for title, how in (
        ("nan", {"poison": (7,)}),
        ("nan-weights", {"poison_weights": (8,)}),
        ("nan-evaluated", {"poison_weights": (11,), "arguments": PLAIN}),
    ):
        try:
            reference = campaign.reference("lm", title, **how)
        except SystemExit as error:
            if not campaign.known(title, "whole"):
                campaign.keep(title, "whole", [str(error)], point="undisturbed")
            continue
        if not campaign.known(title, "whole"):
            campaign.keep(title, "whole", came_back(reference), point="undisturbed")
        returned = back_at(reference.operations)
        near, later = range(returned - 16, returned + 6), range(returned + 6, len(reference.operations), 12)
        for number, operation in enumerate([*near, *later]):
            trial = f"{number:03}"
            if not campaign.known(title, trial):
                point = point_at(reference, operation, ("before", "after")[number % 2])
                wrong = kill_and_resume(campaign, reference, point, f"{title}-{trial}")
                campaign.keep(title, trial, wrong, point=point.label)
    for title, batches, sentence in (
        ("nan-twice", (7, 12), "it went back once before"),
        ("nan-at-once", (0,), "there is no checkpoint to go back to"),
    ):
        if not campaign.known(title, "whole"):
            folder = campaign.place("lm", title)
            wrong = []
            for attempt in range(2):
                arguments = ("experiment.yaml", *campaign.settings)
                status = Started(Plan(str(folder), arguments, poison=batches)).ended()
                lines = said_in(folder).splitlines()
                if status != 2 or sentence not in lines[-1] or any("Traceback" in line for line in lines):
                    wrong.append(f"start {attempt + 1} ended with {status}: {words_of(folder)}")
            campaign.keep(title, "whole", wrong, point=lines[-1])


def came_back(reference: Reference) -> list[str]:
    """Whether a poisoned run went back once, said so, and remembers which batches it left out."""
    said = said_in(reference.folder)
    found = re.findall(
        r"near step (\d+): back to the checkpoint of step (\d+), and on without the batches (\d+) to (\d+)", said
    )
    if len(found) != 1:
        return [f"it does not say that it went back once: {words_of(reference.folder)}"]
    failed, step, first, last = map(int, found[0])
    skipped = read(reference.folder / "run" / "checkpoints" / "step-00000016" / "state.json")["skipped"]
    if skipped != [[step, failed - step]] or (first, last) != (step, failed - 1):
        return [f"it says {found[0]}, its state says {skipped}"]
    return []


def back_at(operations: Sequence[tuple[str, str]]) -> int:
    """The operation with which a run has gone back: the metrics, which a start puts in order, are put in order
    once more."""
    return [n for n, operation in enumerate(operations) if operation == ("replace", "run/metrics.jsonl")][1]


def try_leftovers(campaign: Campaign, count: int = 8) -> None:
    """Kills while worker processes encode: they must end with the run, and the token files must be the same."""
    reference = campaign.reference("lm", "lm-workers", settings=WORKERS)
    wrong = differences(campaign.reference("lm").folder, reference.folder)
    if not campaign.known("workers", "whole"):
        campaign.keep("workers", "whole", wrong, point="undisturbed")
    tokens = [n for n, (_, place) in enumerate(reference.operations) if ".tokens" in place]
    chance = random.Random(f"workers {campaign.seed}")
    for number, operation in enumerate(sorted(chance.sample(tokens, min(count, len(tokens))))):
        trial = f"{number:03}"
        if not campaign.known("workers", trial):
            point = point_at(reference, operation)
            wrong = kill_and_resume(campaign, reference, point, f"workers-{trial}")
            campaign.keep("workers", trial, wrong, point=point.label)


# ------------------------------------------------------------------------------------------------------------- main


def table(campaign: Campaign) -> list[dict[str, Any]]:
    """What was tried, how often, and how often it went well."""
    rows = []
    for what in dict.fromkeys(name for name, _ in campaign.results):
        found = [each for (name, _), each in campaign.results.items() if name == what]
        bad = sum(bool(each["wrong"]) for each in found)
        rows.append({"experiment": what, "points": len(found), "equal": len(found) - bad, "different": bad})
    return rows


def show(campaign: Campaign) -> int:
    """Print the table and every difference; gives how many there are."""
    print(f"\n{'experiment':20}{'points':>8}{'equal':>8}{'different':>11}")
    for row in table(campaign):
        print("{experiment:20}{points:8}{equal:8}{different:11}".format(**row))
    bad = [each for each in campaign.results.values() if each["wrong"]]
    for each in bad:
        print(f"\n{each['what']} {each['trial']}, {each['point']}, again {each.get('again')}:")
        print(*(f"  {line}" for line in each["wrong"]), sep="\n")
    return len(bad)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--points", type=int, default=100, help="kills of each experiment")
    options.add_argument("--experiments", default=",".join(EXPERIMENTS), help="which of them, by commas")
    options.add_argument("--starts", type=int, default=0, metavar="N", help="pairs of starts in one folder")
    options.add_argument("--terms", type=int, default=0, metavar="N", help="SIGTERM and SIGINT at N places of each")
    options.add_argument("--nan", action="store_true", help="runs that meet a batch which spoils the weights")
    options.add_argument("--leftovers", action="store_true", help="kills while worker processes encode a text")
    options.add_argument("--fresh", type=float, default=0.2, help="the share of points tried in new interpreters")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--folder", type=Path, help="where runs and results go, to be gone on with (default: temporary)"
    )
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an override for all runs")
    options.add_argument("--save", action="store_true", help="also keep the table in benchmarks/results")
    options.add_argument("--obey", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.obey:
        given = json.loads(chosen.obey)
        strike = given.pop("strike")
        obey(Plan(**given, strike=strike and Strike(**strike)), forked=False)
    names = chosen.experiments.split(",")
    place = chosen.folder or Path(tempfile.mkdtemp(prefix="kill-"))
    campaign = Campaign(place, names, seed=chosen.seed, fresh=chosen.fresh, settings=chosen.set)
    began = time.monotonic()
    for name in names if chosen.points else ():
        try_points(campaign, name, chosen.points)
    if chosen.starts:
        try_starts(campaign, chosen.starts)
    if chosen.terms:
        try_terms(campaign, names, chosen.terms)
    if chosen.nan:
        try_nan(campaign)
    if chosen.leftovers:
        try_leftovers(campaign)
    bad = show(campaign)
    print(f"\n{time.monotonic() - began:.0f} s, {campaign.folder}")
    if chosen.save:
        from results import write_results

        write_results("kill", table(campaign))
    if not bad and not chosen.folder:
        shutil.rmtree(campaign.folder)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
