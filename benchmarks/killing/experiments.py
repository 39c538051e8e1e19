"""The experiments that are killed, their data and their undisturbed reference runs."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from killing.compare import differences
from killing.plans import Plan
from killing.starting import Started, prepare_forks

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
"""Another configuration in the same folder."""
PLAIN = ("experiment.yaml", "training.ema=null", "checkpoints.average=null")
"""The language model without moving averages, whose samples therefore come from the trained weights."""
WORKERS = {"chopmix.data.tokenizing:WORK": 64, "chopmix.data.tokenizing:PART": 64}
"""Sizes of units of work that are small enough for the text of the language model to keep worker processes busy."""


def write_data(folder: Path, experiments: Iterable[str]) -> None:
    """Writes the data of the experiments, always the same: a text, files with samples of the data set `arithmetic`, and
    sentences in two languages."""
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
    """Writes samples of the data set `arithmetic` as a manifest with images and sounds."""
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
    """An undisturbed run of an experiment."""

    name: str
    folder: Path
    plan: Plan
    operations: list[tuple[str, str]]
    seconds: float
    """The seconds of this run in a fork."""


class Campaign:
    """A folder with the results of all trials, the data, the reference runs and the runs of the trials."""

    def __init__(
        self, folder: Path, experiments: Sequence[str] = tuple(EXPERIMENTS), *, seed: int = 0, fresh: float = 0.2,
        settings: Sequence[str] = (),
    ):  # fmt: skip
        """`fresh` is the share of trials in new interpreters; `settings` are overrides for all runs
        (`training.ema=null`)."""
        self.folder, self.seed, self.fresh, self.settings = folder.resolve(), seed, fresh, tuple(settings)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / "results.jsonl"
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.results = {(result["what"], result["trial"]): result for result in map(json.loads, lines)}
        self._check_sources()
        write_data(self.folder / "data", experiments)
        prepare_forks(experiments)

    def _check_sources(self) -> None:
        """Exits if the folder has results of another version of the code."""
        from importlib.util import find_spec

        package = Path(find_spec("chopmix.commands.cli").origin).parents[1]
        packages = ("models", "tokenizers", "tasks", "data", "inference", "training", "experiment", "commands")
        files = sorted(file for name in packages for file in (package / name).rglob("*.py"))
        current = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        saved = self.folder / "sources.txt"
        if saved.exists() and saved.read_text() != current:
            raise SystemExit(f"{self.folder} has results of another version of the code; choose another --folder")
        saved.write_text(current)

    def new_folder(self, name: str, subfolder: str) -> Path:
        """Creates an empty folder with the YAML of an experiment."""
        folder = self.folder / subfolder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        text = EXPERIMENTS[name].replace("DATA", str(self.folder / "data"))
        (folder / "experiment.yaml").write_text(f"out: run\n{text}")
        return folder

    def reference(self, name: str, title: str | None = None, **options: Any) -> Reference:
        """Returns the undisturbed run, with `options` of its `Plan`. It is trained once as a fork and once more (in a
        new interpreter if some trials use one). Exits if the two runs differ."""
        title = title or name
        folder, file = self.folder / f"reference-{title}", self.folder / f"reference-{title}.json"
        plan = Plan(str(folder), log="operations.json", **options)
        plan = replace(plan, arguments=(*plan.arguments, *self.settings))
        if not file.exists():
            twin = replace(plan, folder=str(self.new_folder(name, f"reference-{title}-twin")))
            first = Started(twin, fresh=self.fresh > 0).ended()
            self.new_folder(name, folder.name)
            fork = Started(plan)
            if fork.ended() or first:
                failed = folder if fork.wait() else Path(twin.folder)
                raise SystemExit(
                    f"{title}: the undisturbed run ended with {fork.wait() or first}\n{last_lines(failed)}"
                )
            seconds = time.monotonic() - fork.start
            log = json.loads((folder / "operations.json").read_text())
            problems = differences(Path(twin.folder), folder) + [f"not wrapped: {event}" for event in log["unseen"]]
            if problems:
                raise SystemExit(f"{title}: two undisturbed runs differ: {problems}")
            file.write_text(json.dumps({"operations": log["seen"], "seconds": seconds}))
        saved = json.loads(file.read_text())
        return Reference(name, folder, plan, [tuple(operation) for operation in saved["operations"]], saved["seconds"])

    def record(self, what: str, trial: str, problems: list[str], **more: Any) -> None:
        """Writes a result to the file and prints it."""
        result = {"what": what, "trial": trial, "wrong": problems, **more}
        self.results[what, trial] = result
        with open(self.file, "a") as file:
            file.write(json.dumps(result) + "\n")
        results = [result for (name, _), result in self.results.items() if name == what]
        bad = sum(bool(result["wrong"]) for result in results)
        print(f"{what} {trial}: {problems or 'equal'}  ({len(results) - bad} equal, {bad} different)", flush=True)

    def has_result(self, what: str, trial: str) -> bool:
        """Whether this trial has a result."""
        return (what, trial) in self.results


def output_of(folder: Path) -> str:
    """Returns everything that a run printed."""
    return (folder / "said.txt").read_text() if (folder / "said.txt").exists() else ""


def last_lines(folder: Path) -> str:
    """Returns the last 12 lines that a run printed."""
    return "\n".join(output_of(folder).splitlines()[-12:])
