"""A run: the folder that training fills, and the trained model that one loads from it.

run = load_run("runs/quickstart")
print(run.generate("def ", max_tokens=100))
print(run.evaluate("val"))
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from ..data.base import Dataset
from ..data.sampler import Place
from ..data.samples.dataset import Listed
from ..data.samples.inputs import Inputs
from ..data.samples.split import SampleSplit, sample_split
from ..data.split import Split
from ..inference.attribution import Attribution, measure_attribution
from ..inference.evaluation import evaluate_split, write_texts
from ..models.generation.beam_search import Search
from ..models.generation.continuation import Continuation, generate
from ..models.generation.sampling import Sampling, seeded
from ..models.model import Model
from ..tasks.base import Task
from ..tokenizers.base import Chopper
from ..tokenizers.encoding.base import Encoding
from ..tokenizers.files.printing import printable
from ..training.checkpoints import files as checkpoint
from ..training.checkpoints.files import CheckpointError
from ..training.checkpoints.state import State
from ..training.objective import autocast
from .build import (
    build_choppers,
    build_model,
    build_tasks,
    collator_of,
    columns_of,
    encoded_inputs,
    open_split,
)
from .settings.config import Config, load_run_config
from .settings.resolved import precision_of


class RunError(ValueError):
    """A run folder that cannot be used as asked."""


MOST_NAMES = 50
"""How many names one sentence lists."""


def listed(names: Sequence[str]) -> str:
    """Names in a sentence, each of them, but not a whole large model's."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more if names else "nothing"


def read_config(folder: Path, trust: Collection[str] = ()) -> Config:
    """The resolved configuration that a run was made with; it may name code of chopmix, and of the modules in `trust`. Raises
    RunError when the folder holds no run, ConfigError for a configuration that is none."""
    if not os.path.exists(folder / "config.yaml"):
        raise RunError(f"{folder} is not a run: it has no config.yaml (train one with `chopmix train CONFIG`)")
    return load_run_config(folder, trust)


def chosen_step(folder: Path, which: str, say: Callable[[str], None] = lambda text: None) -> int:
    """The step of the `last` or the `best` checkpoint; where the run has none of the kind, which is said, of the newest. Raises
    RunError when there is none."""
    found = checkpoint.steps(folder)
    known = [
        step for step in (checkpoint.read_step(folder, which), checkpoint.read_step(folder, "last")) if step in found
    ]
    if not found:
        raise RunError(f"{folder} has no checkpoint yet")
    if checkpoint.read_step(folder, which) not in found:
        say(f"{folder} has no checkpoint that is its {which}; that of step {(known or found[-1:])[0]:,} is read")
    return (known or found[-1:])[0]


def sound_step(folder: Path, which: str, say: Callable[[str], None]) -> int:
    """The step of the `last` or the `best` checkpoint; where that is damaged, which is said, of the newest whole one. Raises
    CheckpointError when there is none."""
    step = chosen_step(folder, which, say)
    try:
        checkpoint.read_state(folder, step)
        return step
    except checkpoint.CheckpointError as error:
        for other in reversed(checkpoint.steps(folder)):
            with suppress(checkpoint.CheckpointError):
                checkpoint.read_state(folder, other)
                say(f"{error}; the checkpoint of step {other} is used instead")
                return other
        raise


def load_run(
    folder: str | Path, checkpoint: str = "best", device: str = "auto", trust: Collection[str] = ()
) -> Run:  # fmt: skip
    """Load a trained run by its folder: its model (the averaged weights where it keeps them), vocabulary and tasks.

    `checkpoint` is `best` or `last`; where the run has none of the kind, or it is damaged, another one is used, and this is said
    on standard error. Nothing in the folder is executed; a run that needs code outside chopmix (its author's own tokenizer) is
    loaded only where `trust` names the modules. Raises RunError when there is nothing to load, CheckpointError when none is whole.
    """
    folder = Path(folder)
    if device == "cuda" and not torch.cuda.is_available():
        raise RunError("device 'cuda' was asked for, but torch sees no GPU here; possible: auto, cpu")
    if checkpoint not in ("best", "last"):
        raise RunError(f"no checkpoint {checkpoint!r}; possible: best, last")
    config = read_config(folder, trust)
    check_assets(config, folder / "assets")
    choppers = build_choppers(config, folder / "assets")
    tasks = build_tasks(config, choppers, folder / "assets")
    step = sound_step(folder, checkpoint, say_aside)
    model = build_model(config, choppers, tasks)
    state = load_weights(model, folder, step, choppers)
    inner = [name for name in state.missing if not name.startswith("heads.")]
    if inner:
        say_aside(f"{folder}: {listed(inner)} were missing when it was imported and are as initialised: what depends on "
                  "them means nothing before it is trained")  # fmt: skip
    kind = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
    return Run(
        folder=folder, config=config, step=step, model=model.to(kind).eval(), tasks=tasks, choppers=choppers, which=checkpoint,
        precision=precision_of(folder, torch.device(kind)), missing=tuple(state.missing),
    )  # fmt: skip


def say_aside(text: str) -> None:
    """Tell the user something beside the answers."""
    print(printable(text), file=sys.stderr)


def check_assets(config: Config, assets: Path) -> None:
    """Raises RunError where a folder is missing in which an input or a task keeps what it learned of the training data."""
    kept = {name: part.target.Chopper for name, part in config.inputs.items() if name not in config.shares}
    learned = {name: kind for name, kind in kept.items() if kind.load is not Chopper.load}
    learned |= {f"task-{name}": part.target for name, part in config.tasks.items() if part.target.save is not Task.save}
    for name in learned:
        if not os.path.exists(assets / name):
            raise RunError(
                f"{assets}/{name} is missing: what this run learned of its data stands there; copy whole runs"
            )


def fingerprints(choppers: Mapping[str, Chopper]) -> dict[str, str]:
    """What identifies every text input's vocabulary."""
    return {name: chopper.text.fingerprint for name, chopper in choppers.items() if chopper.text is not None}


def load_weights(
    model: Model, folder: Path, step: int, choppers: Mapping[str, Chopper], averaged: bool = True
) -> State:
    """Put a checkpoint's weights into a model, after checking it and its vocabulary; gives its state.

    Raises CheckpointError for damage, RunError when the vocabulary is not the one that the weights were trained with.
    """
    state = checkpoint.read_state(folder, step)
    for name, known in state.vocabularies.items():
        if fingerprints(choppers).get(name) != known:
            raise RunError(
                f"{folder}/assets/{name}: the vocabulary changed since the checkpoint of step {step} was written; "
                "put the old one back, or start again with another out="
            )
    weights = checkpoint.read_part(folder, step, "model")
    if averaged:
        weights |= checkpoint.read_part(folder, step, "ema")
    own = model.state_dict()
    wrong = [
        name
        for name in {**own, **weights}
        if name not in own or name not in weights or own[name].shape != weights[name].shape
    ]
    if wrong:
        raise CheckpointError(
            f"{checkpoint.folder_of(folder, step)}: its tensors are not those of this configuration: {listed(sorted(wrong))}"
        )
    model.load_state_dict(weights)
    return state


@dataclass(frozen=True, kw_only=True)
class Run:
    """A trained model with everything needed to use it."""

    folder: Path
    config: Config
    step: int
    model: Model
    tasks: Mapping[str, Task]
    choppers: Mapping[str, Chopper]
    which: str = "last"
    """Which checkpoint was asked for: `best` or `last`."""
    precision: str = "float32"
    """The arithmetic in which it is evaluated: that of its training."""
    missing: tuple[str, ...] = ()
    """The parameters that an imported directory lacked."""

    @property
    def name(self) -> str:
        """The run and the step that are read, for messages and records."""
        return f"{self.folder}, {self.which} checkpoint: step {self.step:,}"

    def check_heads(self) -> None:
        """Raises RunError where a task's head was not in the directory that was imported: it would answer at random."""
        for name in self.tasks:
            if any(each.startswith(f"heads.{name}.") for each in self.missing):
                raise RunError(
                    f"{self.folder}: the directory that was imported has no head for {name!r}, which would answer at random; "
                    "`chopmix embed` gives the model's vectors, and a head can be trained (from: RUN)"
                )

    def dataset(self) -> Dataset:
        """The data set that it was trained on. Raises RunError for an imported run, which has none."""
        if self.config.data.dataset is None:
            raise RunError(f"{self.folder} was imported and has no data of its own; name some with --data")
        return self.config.data.dataset()

    def reads(self) -> tuple[dict[str, str], bool]:
        """The columns of data that it reads, by kind (`image`, `sound`, `text`, `file`, `label`), and whether it reads one corpus of
        text instead."""
        made = {name for task in self.tasks.values() for name in task.makes()}
        found = {
            column: self.choppers[name].kind for name, column in columns_of(self.config).items() if name not in made
        }
        found |= {column: "label" for task in self.tasks.values() for column in task.columns()}
        return found, self.config.training.samples_per_step is None and list(found.values()) == ["text"]

    def generate(self, prompt: str | Sequence[str | None] | None = None, **options) -> str | list[str]:
        """Continue a prompt, or several at once; see `stream` for the options, among which the fields of `Sampling` may stand
        by themselves (`temperature=0`). Gives the new text without the prompt."""
        own = {f.name: options.pop(f.name) for f in fields(Sampling) if f.name in options}
        options |= {"sampling": Sampling(**own)} if own else {}
        prompts = [prompt] if prompt is None or isinstance(prompt, str) else list(prompt)
        texts = [""] * len(prompts)
        for pieces in self.stream(prompts, **options):
            texts = [text + piece for text, piece in zip(texts, pieces)]
        return texts[0] if prompt is None or isinstance(prompt, str) else texts

    def stream(
        self, prompts: Sequence[str | None], *, max_tokens: int = 200, sampling: Sampling = Sampling(),
        stop: Sequence[str] = (), seed: int | None = None, cached: bool = True, say: Callable[[str], None] = print,
    ) -> Iterator[list[str]]:  # fmt: skip
        """Yield the next piece of text of every prompt until all have stopped: at a `stop` text (left out), at the start
        of another document, or after `max_tokens`. A prompt of None starts a new document. `say` hears notices."""
        task, name = self.text_task()
        if self.tasks[task].needs_encoder:
            raise RunError(f"{self.folder} writes {name!r} from its other inputs: give them (--input NAME=VALUE)")
        encoding = self.choppers[name].text
        if others := [other for other in self.choppers if other != name]:
            say(f"{name!r} is written without {', '.join(others)}: none is given (--input NAME=VALUE)")
        rows = [encoding.prompted(prompt) for prompt in prompts]
        context = self.model.context
        for number, row in enumerate(rows):
            if len(row) > context:
                say(f"prompt {number + 1} has {len(row)} tokens; only the last {context} (the context) are read")
        continuation = Continuation(
            self.model, [row[-context:] for row in rows], input=name, task=task,
            vocabulary=encoding.vocabulary, cached=cached,
        )  # fmt: skip
        generator = None if seed is None else seeded(seed, self.model_device)
        writers = [TextWriter(encoding, stop, row) for row in rows]
        for ids in generate(continuation, max_tokens, sampling, generator):
            yield [writer.write(id) for writer, id in zip(writers, ids.tolist())]
            if all(writer.stopped for writer in writers):
                break
        yield [writer.finish() for writer in writers]

    @property
    def model_device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def searching(self, **given: Any) -> Run:
        """The run that searches for texts in another way (`beams`, `length_penalty`, `no_repeat`); what is not given stays as the
        task says. A task that reads texts off its output (CTC) has `beams` alone. Raises ValueError for a search that means
        nothing."""
        Search(**given)
        return replace(self, tasks={name: task.with_search(**given) for name, task in self.tasks.items()})

    def evaluate(
        self, split: str = "val", dataset: Dataset | None = None, rows: int = 64, search: Search | None = None
    ) -> dict[str, float]:
        """Read a whole split, of the run's own data or of another dataset; gives its metrics, named `split/metric`.

        A classification also leaves its confusion matrix as a picture in the run's folder. Texts are searched for as their
        task says, or as `search` does."""
        self.check_heads()
        tasks = self.searching(**vars(search)).tasks if search else self.tasks
        data = open_split(self.config, dataset or self.dataset(), split, self.choppers, tasks)
        with autocast(self.model_device, self.precision):
            metrics = evaluate_split(self.model, tasks, data, rows=rows, pictures=pictures_of(self.folder))
        for line in told_of(data):
            say_aside(line)
        return metrics

    def attribution(self, split: str = "val", dataset: Dataset | None = None) -> dict[str, Attribution]:
        """What each input is worth to each task: every subset of the inputs evaluated on a split, of the run's own data or of
        another dataset."""
        data = open_split(self.config, dataset or self.dataset(), split, self.choppers, self.tasks)
        if not isinstance(data, SampleSplit):
            raise RunError(f"{self.folder} reads one text: there are no inputs to compare")
        with autocast(self.model_device, self.precision):
            return measure_attribution(self.model, self.tasks, data)

    def predict(
        self, samples: Sequence[Mapping[str, Any]], *, sampling: Sampling | None = None, search: Search | None = None,
        prompt: str = "", stop: Sequence[str] = (), max_tokens: int | None = None, seed: int | None = None, rows: int = 64,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Answer samples: mappings of any of the run's inputs to raw values (a path, a file's bytes, an array, a text).

        Gives one mapping per sample: every task's answer (a class with probabilities, numbers, a text written from
        `prompt` on), or `error` for a sample that cannot be read. Texts are searched for as their task says, or as `search`
        does, but drawn at random where `sampling` (and its `seed`) is given; they have at most `max_tokens` and end before a
        `stop` text.
        """
        self.check_heads()
        split = self.given(samples)
        tasks = {name: task.answering() for name, task in self.tasks.items()}
        found: list[dict[str, Any]] = [{} for _ in samples]
        generator = None if seed is None else seeded(seed, self.model_device)
        for first in range(0, len(samples), rows):
            places = split.all()[first : first + rows]
            for name, task in tasks.items():
                if task.generates:
                    texts = write_texts(self.model, name, task, split, places, prompt=prompt, sampling=sampling,
                                        search=search, generator=generator, most=max_tokens)  # fmt: skip
                    answers = {number: {"text": before(text, stop)} for number, text in texts.items()}
                else:
                    answers = self._answers(name, task, split, places)
                for number, answer in answers.items():
                    found[number][name] = answer
        return [answer or {"error": split.bad[number]} for number, answer in enumerate(found)]

    @torch.inference_mode()
    def _answers(self, name: str, task: Task, split: SampleSplit, places: Sequence[Place]) -> dict[int, dict[str, Any]]:
        """One task's answers by the samples' numbers, read off its head."""
        batch = replace(split, tasks={name: task}).batch(places)
        numbers = [split.reader.number(key) for key in next(iter(batch.sets.values())).keys]
        if not numbers:
            return {}
        dtype = next(self.model.parameters()).dtype
        output = self.model(self.model.plan(batch, dtype=dtype, device=self.model_device).to(self.model_device))[name]
        targets = batch.targets[name]
        return dict(zip(numbers, task.answers(output, targets, batch.sets[targets.set])))

    def given(self, samples: Sequence[Mapping[str, Any]], asked: bool = True) -> SampleSplit:
        """Samples given by hand, as a split: as they are `asked` about (a `[MASK]` to fill in), or as they are trained on. Raises
        RunError for an input that the run does not have."""
        for sample in samples:
            if unknown := [name for name in sample if name not in self.choppers]:
                raise RunError(f"{self.folder} has no input {unknown[0]!r}; possible: {', '.join(self.choppers)}")
        choppers: Mapping[str, Chopper] = self.choppers
        for task in self.tasks.values() if asked else ():
            choppers = task.asked(choppers)
        labels = [column for task in self.tasks.values() for column in task.columns()]
        keys = [f"sample {number + 1}" for number in range(len(samples))]
        columns = {name: name for name in self.choppers}
        split = self.opened(Listed(keys, samples), "given", columns, choppers, labels, say=lambda text: None)
        encoded = split.inputs.encoded
        for number, sample in enumerate(samples):
            if encoded and all(
                isinstance(sample.get(name), NoneType | str | bytes) and not sample.get(name) for name in encoded
            ):
                split.bad[number] = f"the encoder has nothing to read: {' or '.join(encoded)} must hold something"
        return split

    def opened(
        self, samples: Samples, name: str, columns: Mapping[str, str], choppers: Mapping[str, Chopper] | None = None,
        labels: Sequence[str] = (), say: Callable[[str], None] = say_aside,
    ) -> SampleSplit:  # fmt: skip
        """Samples as a split that is only read: `columns` says which each input reads; bad ones are told and left out."""
        inputs = Inputs(columns=columns, labels=tuple(labels), encoded=encoded_inputs(self.config),
                        too_long=self.config.data.too_long)  # fmt: skip
        collator = collator_of(self.config, choppers or self.choppers, inputs)
        return sample_split(samples, name, collator, bad_share=1.0, say=say)

    def text_task(self) -> tuple[str, str]:
        """The first task that writes text, and the input that it writes. Raises RunError where none does."""
        for name, task in self.tasks.items():
            if task.generates:
                return name, task.target
        raise RunError(
            f"{self.folder} writes no text: none of its tasks ({', '.join(self.tasks)}) is language_modeling or "
            "sequence_to_sequence"
        )

    def record(self, result: Mapping[str, Any]) -> None:
        """Append a result to the run's `evaluations.jsonl`; where the folder cannot be written to, that is said."""
        line = json.dumps({"step": self.step, "checkpoint": self.which, **result}) + "\n"
        flags = (
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        )  # a link in a stranger's run leads elsewhere
        try:
            with open(os.open(self.folder / "evaluations.jsonl", flags, 0o644), "a") as file:
                file.write(line)
        except OSError as error:
            say_aside(f"{self.folder}/evaluations.jsonl cannot be written to: {error.strerror}")


def told_of(split: Split) -> list[str]:
    """What of a split was not read, in a sentence each."""
    if not isinstance(split, SampleSplit):
        return []
    found = [f"{split.name}: {len(split.bad):,} of {len(split.samples):,} samples are bad"] if split.bad else []
    dropped = [f"{name} of {count:,}" for name, count in split.dropped.items()]
    return found + ([f"{split.name}: left out for want of room: {', '.join(dropped)} samples"] if dropped else [])


def pictures_of(folder: Path) -> Path | None:
    """The run's folder, where pictures can be put into it: not where something else than a file has the place of one, such as a
    link in a stranger's run, which leads elsewhere."""
    odd = [file for file in folder.glob("confusion-*.png") if file.is_symlink() or not file.is_file()]
    return folder if os.access(folder, os.W_OK) and not odd else None


def before(text: str, stop: Sequence[str]) -> str:
    """What stands before the first of the stop texts."""
    return text[: min((place for place in map(text.find, filter(None, stop)) if place >= 0), default=None)]


class TextWriter:
    """One row's ids, turned to text as they come: whole characters only, nothing from a stop text on."""

    def __init__(self, encoding: Encoding, stop: Sequence[str] = (), before: Sequence[int] = ()):
        """`before` are the ids that the row begins with."""
        self.ends, self.stop, self.texts = encoding.ends, [text for text in stop if text], encoding.stream(before)
        self.held, self.stopped = "", False

    def write(self, id: int) -> str:
        """The text that is certain after one more id; what may be the beginning of a stop text is held back."""
        if self.stopped:
            return ""
        if id in self.ends:
            return self.finish()
        return self._release(self.texts.write(id))

    def _release(self, text: str) -> str:
        self.held += text
        found = [place for place in (self.held.find(stop) for stop in self.stop) if place >= 0]
        if found:
            text, self.held, self.stopped = self.held[: min(found)], "", True
            return text
        keep = max((n for stop in self.stop for n in range(1, len(stop)) if self.held.endswith(stop[:n])), default=0)
        cut = len(self.held) - keep
        text, self.held = self.held[:cut], self.held[cut:]
        return text

    def finish(self) -> str:
        """What was held back, when nothing more comes."""
        if self.stopped:
            return ""
        rest = self._release(self.texts.finish()) + self.held
        self.held, self.stopped = "", True
        return rest
