"""A run: the folder that training fills, opened, with methods that generate, predict, evaluate and attribute.

run = load_run("runs/quickstart")
print(run.generate("def ", max_tokens=100))
print(run.evaluate("val"))
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.base import Dataset
from ..data.processes import Processes
from ..data.samples import Listed
from ..data.split import SampleSplit, Split
from ..files.trust import NOTHING, Trust
from ..files.writing import write_text
from ..inference.evaluation import Measured, measured
from ..inference.evaluator import TrainedModel
from ..inference.evaluators.attribution import Attribution, measure_attribution
from ..inference.generate import (
    Generating,
    before,
    generate_items,
    generate_unprompted,
    generating_tasks,
    joined,
    searching_tasks,
    stream_prompts,
    stream_texts,
)
from ..inference.pages import draws, generated_rows, page
from ..inference.predict import pooled_vectors, predict
from ..models.model import Model
from ..tasks.base import Task, Wiring
from ..tokenizers.base import Chopper, RunPart
from ..training import checkpoints as checkpoint
from ..training.loggers.tensorboard import write_board
from ..training.objective import autocast
from .build import build_model, choppers_and_tasks, open_split, precision_of, read_samples
from .run_folder import RunError as RunError
from .run_folder import check_assets, listed, load_weights, read_config, say_aside, valid_step, write_model_run
from .settings.config import Config


@dataclass(frozen=True, kw_only=True)
class Run(TrainedModel):
    """A trained model with everything needed to generate texts, predict, and evaluate. Immutable."""

    folder: Path
    config: Config
    step: int
    model: Model
    tasks: Mapping[str, Task]
    choppers: Mapping[str, Chopper]
    which: str = "last"
    """Which checkpoint was asked for: `best` or `last`."""
    precision: str = "float32"
    """`float32` or `bfloat16`: the precision of its training, where this device has it."""
    missing: tuple[str, ...] = ()
    """The parameters that an imported directory lacked."""
    processes: Processes = field(default_factory=Processes.alone, repr=False)
    """The processes that evaluate together: while it is trained, those that train it."""
    source: Dataset | None = field(default=None, repr=False)
    """The data set of its training, if it is open."""
    opened: Mapping[str, Split] = field(default_factory=dict, repr=False)
    """The splits of that data set which are open."""

    @property
    def wiring(self) -> Wiring:
        return self.config.wiring

    @property
    def seed(self) -> int:
        return self.config.training.seed

    @property
    def rows(self) -> int:
        return self.config.evaluation.rows

    @property
    def trust(self) -> Trust:
        return self.config.trust

    @property
    def name(self) -> str:
        """Folder, checkpoint and step, for messages: `runs/quickstart, best checkpoint: step 900`."""
        return f"{self.folder}, {self.which} checkpoint: step {self.step:,}"

    def check_heads(self) -> None:
        """Raises RunError where a task's head was missing in the imported directory: it would predict at random."""
        for name in self.tasks:
            if any(each.startswith(f"heads.{name}.") for each in self.missing):
                raise RunError(
                    f"{self.folder}: the directory that was imported has no head for {name!r}, which would answer at "
                    "random; `chopmix embed` gives the model's vectors, and a head can be trained (from: RUN)"
                )

    @property
    def has_dataset(self) -> bool:
        return self.config.data.dataset is not None

    def dataset(self) -> Dataset:
        """The data set of its training. Raises RunError for an imported run, which has none."""
        if not self.has_dataset:
            raise RunError(f"{self.folder} was imported and has no data of its own; name some with --data")
        if self.source is None:
            object.__setattr__(self, "source", self.config.dataset())
        return self.source

    def open(self, split: str, dataset: Dataset | None = None) -> Split:
        """A split, with tasks and labels, of the data set that the run was trained on, or of `dataset`. Raises RunError
        where the run was imported and none is given, DataError for data that cannot be read."""
        if dataset is None and split in self.opened:
            return self.opened[split]
        return open_split(self.config, dataset or self.dataset(), split, self.choppers, self.tasks)

    def reads(self) -> tuple[dict[str, str], bool]:
        """The kind of each data column that it reads (`image`, `sound`, `text`, `file`, `label`), and whether it was
        trained on a text corpus: `({"image": "image", "digit": "label"}, False)`."""
        wiring = self.config.wiring
        found = {column: self.choppers[n].kind for n, column in wiring.columns.items() if n not in wiring.made}
        found |= {column: "label" for task in self.tasks.values() for column in task.needs.columns}
        return found, list(found.values()) == ["text"] and not self.config.on_samples

    def arithmetic(self) -> AbstractContextManager[None]:
        """A context in which the model computes in the precision of its training (see `precision`)."""
        return autocast(self.model_device, self.precision)

    def searching(self, **given: Any) -> Run:
        """The same run with another search for generated texts: `given` are fields of `Search` (`beams`,
        `length_penalty`, `no_repeat`); the others stay as each task has them. CTC uses `beams` alone. Raises
        ValueError for values that `Search` refuses."""
        return replace(self, tasks=searching_tasks(self.tasks, **given))

    def generating(
        self, *, guidance: float | None = None, temperature: float | None = None, steps: int | None = None,
        drafts: int | None = None,
    ) -> Run:  # fmt: skip
        """The same run whose evaluations generate items with this `guidance`, drawn at this `temperature`, or, of a
        task that refines drafts, in so many `steps`, the best of so many `drafts`; what is None stays as each task has
        it. Raises RunError where no task generates so, ValueError for values outside their ranges."""
        try:
            tasks = generating_tasks(self.tasks, guidance, temperature, steps, drafts)
        except LookupError as error:
            raise RunError(f"{self.folder} {error.args[0]}") from None
        return replace(self, tasks=tasks)

    def text_task(self, given: Collection[str] = (), target: str | None = None) -> tuple[str, str]:
        """The names of the first task that generates items, and of the input that it generates: `target`, else one that
        is not `given`. Raises RunError where there is none."""
        tasks = self.tasks.items()
        writing = [(name, each.target) for name, each in tasks if each.needs.generates or each.needs.refines]
        if target is not None and target not in [input for _, input in writing]:
            possible = ", ".join(input for _, input in writing) or "nothing"
            raise RunError(f"{self.folder} does not generate {target!r}; it generates {possible}")
        for name, input in writing:
            if input == target or (target is None and input not in given):
                return name, input
        if writing:
            return writing[0]
        raise RunError(
            f"{self.folder} generates nothing: none of its tasks ({', '.join(self.tasks)}) is language_modeling, "
            "sequence_to_sequence or masked_diffusion. `chopmix predict` gives its answers"
        )

    def record(self, result: Mapping[str, Any], folder: Path | None = None, option: str = "--output DIR") -> None:
        """Append a result, with `step` and `checkpoint`, as a line of `evaluations.jsonl` in the run's folder, or in
        another one; where that cannot be written to, standard error says so, with the `option` that writes elsewhere.
        """
        line = json.dumps({"step": self.step, "checkpoint": self.which, **result}) + "\n"
        # in a run from elsewhere a link may lead out of it, and a pipe may have no reader
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            with open(os.open((folder or self.folder) / "evaluations.jsonl", flags, 0o644), "a") as file:
                file.write(line)
        except OSError as error:
            written = f"{folder or self.folder}/evaluations.jsonl"
            say_aside(f"{written} cannot be written to: {error.strerror}; {option} writes to another place")

    def generate(
        self, prompt: str | Sequence[str | None] | None = None, *,
        inputs: Sample | Sequence[Sample] = (), target: str | None = None, say: Callable[[str], None] = say_aside,
        **options: Any,
    ) -> Any:  # fmt: skip
        """The text that continues a prompt, or a list with one text per prompt; or the item (a text; of pictures a
        tensor) that is generated from the other `inputs` of a sample, or a list with one for each of several samples.
        Of several inputs that can be generated, `target` names one (default: the first that is not given).

        `options` are those of `inference.generating.Generating` (`max_tokens`, `sampling`, `search`, `stop`, `seed`,
        ...) and the fields of `Sampling` (`temperature=0`). `say` is called with notices, such as the inputs that a
        sample lacks; default: standard error. Raises RunError where no task generates anything, and for a sample that
        cannot be read, TypeError for an unknown option."""
        prompts = [prompt] if prompt is None or isinstance(prompt, str) else list(prompt)
        samples = samples_of(inputs)
        found = generated(self, prompts, samples, target, Generating.of(options), say)
        one = isinstance(inputs, Mapping) if samples else prompt is None or isinstance(prompt, str)
        return found[0] if one else found

    def stream(
        self, prompts: str | Sequence[str | None] = (None,), inputs: Sample | Sequence[Sample] = (), *,
        target: str | None = None, say: Callable[[str], None] = say_aside, **options: Any,
    ) -> Iterator[list[str]]:  # fmt: skip
        """Yield lists with the next piece of every text until all have ended: one text per prompt, or, if `inputs` are
        given, one per sample, each of which begins after the only prompt. `target`, `say` and `options` are those of
        `generate`. Raises RunError where no task generates text, or one needs other inputs and none are given,
        DataError for a sample that cannot be read, TypeError for an unknown option."""
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        return streamed(self, prompts, samples_of(inputs), target, Generating.of(options), say)

    @overload
    def predict(self, samples: Sample, *, say: Callable[[str], None] = ..., **how: Any) -> dict[str, Any]: ...
    @overload
    def predict(
        self, samples: Sequence[Sample], *, say: Callable[[str], None] = ..., **how: Any
    ) -> list[dict[str, Any]]: ...
    def predict(
        self, samples: Sample | Sequence[Sample], *, say: Callable[[str], None] = say_aside, **how: Any
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Predict for samples: mappings of any of the run's inputs to raw values (a path, the content of a file, an
        array, a text).

        Returns one mapping per sample: every task's prediction by task name (a class with probabilities, numbers, a
        text), or `error` for a sample that cannot be read or has none of the inputs. For one sample instead of a list
        it returns one mapping. `how`: the options of `inference.generating.Generating`. `say` is called with notices,
        such as the inputs that samples lack; default: standard error. Raises RunError for an input that no task reads,
        for a run that only continues texts, and for a task whose head was missing in an import, TypeError for an
        unknown option."""
        self.check_heads()
        every, options = samples_of(samples), Generating.of(how)
        check_predicts(self, every, self.tasks)
        if not every:
            return []
        split = predicted_split(self, every, self.tasks, say)
        found = predict(self.model, self.tasks, split, options)
        for line in split.skipped.shortened():
            say(line)
        return found[0] if isinstance(samples, Mapping) else found

    def given(self, samples: Sample | Sequence[Sample], asked: bool = True) -> SampleSplit:
        """One sample in memory, or several, as a split. `asked`: chopped as for prediction (the text of a mask token is
        that token, to be filled in), else as for training. Raises RunError for an input that the run does not have."""
        return given_split(self, samples_of(samples), asked)

    def evaluate(
        self, split: str = "val", dataset: Dataset | None = None, rows: int = 64,
        inputs: Collection[str] | None = None, output: Path | None = None,
    ) -> dict[str, float]:  # fmt: skip
        """The metrics of a whole split, of the run's own data or of another dataset, named `split/metric`.

        `inputs`, where given, are the only ones that are read, beside those that a task predicts. `rows` samples are
        read at a time. Texts are generated by the search of their task (`searching` gives a run with another). Into the
        run's folder, or into `output`, a classification also writes its confusion matrix,
        `confusion-<split>-<task>.png`, and a run that generates anything but text a page, `sheets/<split>.html`. Raises
        RunError for a task whose head was missing in an import, DataError for data that cannot be read."""
        return evaluated(self, split, dataset, rows, inputs, output).metrics

    def attribution(self, split: str = "val", dataset: Dataset | None = None) -> dict[str, Attribution]:
        """Each task's `Attribution`, by task name: the metrics of a split, of the run's own data or of another dataset,
        with every subset of the inputs, and each input's Shapley value. Raises RunError for a run that reads a text
        corpus, ValueError for no inputs."""
        return attributed(self, split, dataset)


def load_run(
    folder: str | Path, checkpoint: str = "best", device: str = "auto", trust: Collection[str] = (),
    remote: Collection[str] = (),
) -> Run:  # fmt: skip
    """Open a trained run's folder: its model (with averaged weights where it keeps them), choppers and tasks.

    `checkpoint` is `best` or `last`; where that is missing or damaged, another one is used, and standard error says so.
    `device`: `auto` (a GPU if there is one), `cpu` or `cuda`. Nothing in the folder is executed. A run that needs code
    outside chopmix, such as its author's own tokenizer, is opened only if `trust` names the modules; data at a remote
    address are read only if `remote` names the host. Raises RunError if there is no run or no such device, ConfigError
    for a damaged configuration, CheckpointError if no checkpoint is complete."""
    return open_run(Path(folder), checkpoint, device, Trust.of(trust, remote))


def open_run(folder: Path, which: str = "best", device: str = "auto", trust: Trust = NOTHING) -> Run:
    """Open a run's folder; see `load_run`."""
    if device == "cuda" and not torch.cuda.is_available():
        raise RunError("device 'cuda' was asked for, but torch sees no GPU here; possible: auto, cpu")
    if which not in ("best", "last"):
        raise RunError(f"no checkpoint {which!r}; possible: best, last")
    config, step = read_config(folder, trust), valid_step(folder, which, say_aside)
    check_assets(config, folder / "assets")
    choppers, tasks = choppers_and_tasks(config, folder / "assets", partial(open_part, trust=config.nested))
    check_size(config, folder, step, choppers)
    model = build_model(config, choppers, tasks)
    state = load_weights(model, folder, step, choppers)
    inner = [name for name in state.missing if not name.startswith("heads.")]
    if inner:
        say_aside(
            f"{folder}: {listed(inner)} were missing when it was imported and are as initialised: what depends on "
            "them means nothing before it is trained"
        )
    kind = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
    return Run(
        folder=folder, config=config, step=step, model=model.to(kind).eval(), tasks=tasks, choppers=choppers,
        which=which, precision=precision_of(folder, torch.device(kind)), missing=tuple(state.missing),
    )  # fmt: skip


def check_size(config: Config, folder: Path, step: int, choppers: Mapping[str, Chopper]) -> None:
    """Raises RunError if the configuration describes a model that is far larger than the checkpoint: it would be built
    before its weights are compared. The estimate is a lower bound: two matrices per block and the embedding tables,
    one byte per parameter."""
    encoder, width = config.model.options["encoder"], config.model.options["width"]
    depth = config.model.options["depth"] + (encoder.depth if encoder else 0)
    vocabularies = [choppers[name].vocabulary for name, owner in config.wiring.owners.items() if name == owner]
    table_rows = sum(vocabulary.size for vocabulary in vocabularies if vocabulary is not None)
    weight_bytes = (checkpoint.folder_of(folder, step) / "model.safetensors").stat().st_size
    parameters = width * (2 * width * depth + table_rows)
    if parameters > weight_bytes:
        described = f"{folder / 'config.yaml'} describes a model of at least {parameters:,} parameters"
        raise RunError(f"{described}, but the weights of step {step} have {weight_bytes:,} bytes")


def open_part(folder: str | Path, trust: Trust = NOTHING) -> RunPart:
    """The best checkpoint of a trained run, on the CPU, as a part of another run (a frozen encoder, say). Only code
    of chopmix and of the modules that `trust` allows is executed. Raises RunError, ConfigError or CheckpointError if
    the run cannot be opened."""
    folder = Path(folder)
    run = open_run(folder, "best", "cpu", trust)
    config, model, choppers, tasks = run.config, run.model, run.choppers, run.tasks
    encoder = config.model.options["encoder"]
    return RunPart(
        name=str(folder), model=model, choppers=choppers, context=encoder.context if encoder else model.context,
        core_tokens=config.model.options["core_tokens"],
        write=partial(write_model_run, config=config, choppers=choppers, tasks=tasks, model=model,
                      told={"missing": list(run.missing)}),
        tasks=tuple(tasks), check_answer=partial(check_answer, tasks),
        predict=predictor(config, model, choppers, tasks), pooled=pooler(config, model, choppers, tasks),
        content=content_of(model),
    )  # fmt: skip


def check_answer(tasks: Mapping[str, Task], name: str, text: str) -> None:
    """Raises ValueError for a text that a task can never answer."""
    tasks[name].check_answer(text)


def content_of(model: Model) -> str:
    """A hash of all weights and their names: the same for a run and for its copy in another run."""
    found = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy() if value.numel() else b"")
    return found.hexdigest()


Sample = Mapping[str, Any]
"""Raw values (a path, the content of a file, an array, a text) by input; None for an input that it lacks."""


def samples_of(samples: Any) -> list[Sample]:
    """One sample, or several, as a list. Raises RunError for a sample that is no mapping."""
    found = [samples] if isinstance(samples, Mapping) else list(samples)
    for sample in found:
        if not isinstance(sample, Mapping):
            raise RunError(
                f"a sample maps inputs to values, as {{'image': 'cat.png'}}; this is {type(sample).__name__}"
            )
    return found


def read_by(run: Run, name: str) -> list[str]:
    """The inputs that the task `name` answers from, in the order of the model: all but the item that it generates,
    those that a task makes of others, and predicted ones that follow its target, which it did not read in training."""
    task, order = run.tasks[name], list(run.choppers)
    made = {each for other in run.tasks.values() for each in other.needs.makes}
    if task.needs.generates:
        predicted = {each for other in run.tasks.values() if not other.needs.refines for each in other.needs.inputs}
        made |= {task.target} | (predicted & {*order[order.index(task.target) :]})
        made -= {*task.needs.inputs} - {task.target}
    return [each for each in order if each not in made]


def readable(run: Run, tasks: Collection[str]) -> list[str]:
    """The inputs that at least one of these tasks reads, in the order of the model."""
    found = {each for name in tasks for each in read_by(run, name)}
    return [each for each in run.choppers if each in found]


def check_samples(run: Run, samples: Sequence[Sample], tasks: Collection[str]) -> None:
    """Raises RunError for an input that the run does not have, and for one that none of these tasks reads."""
    known, written = readable(run, tasks), {run.tasks[name].target: name for name in tasks}
    possible = f"possible: {', '.join(known)}" if known else "it has no other inputs"
    for name in dict.fromkeys(name for sample in samples for name in sample if name not in known):
        if name not in run.choppers:
            raise RunError(f"{run.folder} has no input {name!r}; possible: {', '.join(known or run.choppers)}")
        if name in written:
            raise RunError(
                f"{run.folder} writes {name!r}, which is no input of its own task; {possible}. `chopmix generate` "
                "takes the beginning of a text by --prompt"
            )
        raise RunError(f"{run.folder} does not read {name!r} where it writes {' and '.join(written)}; {possible}")


def say_missing(run: Run, samples: Sequence[Sample], tasks: Collection[str], say: Callable[[str], None]) -> None:
    """Call `say` with the inputs that samples lack: `'answer' is written without image, sound`."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in tasks:
        task = run.tasks[name]
        read = [each for each in read_by(run, name) if each != task.target]
        verb = "written" if task.needs.generates or task.needs.refines else "predicted"
        lacking = Counter(", ".join(each for each in read if sample.get(each) is None) for sample in samples)
        for names, count in lacking.items():
            share = f"{count:,} of {len(samples):,} samples: " if count < len(samples) else ""
            if names:
                found.setdefault((share, f"{verb} without {names}"), []).append(repr(task.target))
    for (share, how), targets in found.items():
        say(f"{share}{', '.join(targets)} {'is' if len(targets) == 1 else 'are'} {how} (--input NAME=VALUE)")


def given_split(run: Run, samples: Sequence[Sample], asked: bool = True) -> SampleSplit:
    """Samples in memory, mappings of inputs to raw values, as a split with the keys "sample 1", "sample 2", ...

    `asked`: chopped as for prediction (the text of a mask token is that token, to be filled in), else as for training.
    A sample in which every input of the encoder is missing or empty counts as bad. Raises RunError for an input that
    the run does not have."""
    if unknown := [name for sample in samples for name in sample if name not in run.choppers]:
        raise RunError(f"{run.folder} has no input {unknown[0]!r}; possible: {', '.join(run.choppers)}")
    choppers: Mapping[str, Chopper] = run.choppers
    for task in run.tasks.values() if asked else ():
        choppers = {**choppers, **{name: change(choppers[name]) for name, change in task.needs.asked.items()}}
    labels = [column for task in run.tasks.values() for column in task.needs.columns]
    keys = [f"sample {number + 1}" for number in range(len(samples))]
    columns = {name: name for name in run.choppers}
    split = read_samples(run.config, Listed(keys, samples), "given", choppers, lambda text: None, columns, labels)
    encoded = split.inputs.encoded
    for number, sample in enumerate(samples):
        values = [sample.get(name) for name in encoded]
        if encoded and all(isinstance(value, NoneType | str | bytes) and not value for value in values):
            split.skipped.bad[number] = f"the encoder has nothing to read: {' or '.join(encoded)} must hold something"
    return split


def check_predicts(run: Run, samples: Sequence[Sample], tasks: Collection[str]) -> None:
    """Raises RunError if these tasks only continue texts, and as `check_samples`."""
    check_samples(run, samples, tasks)
    if not readable(run, tasks):
        targets = " and ".join(run.tasks[name].target for name in tasks)
        raise RunError(
            f"{run.folder} continues texts: it writes {targets} and has no other input to predict from. Use `chopmix "
            f"generate {run.folder} --prompt TEXT`"
        )


def predicted_split(
    run: Run, samples: Sequence[Sample], tasks: Collection[str], say: Callable[[str], None]
) -> SampleSplit:
    """Samples in memory from which these tasks predict. A sample without a value of any of their inputs counts as bad;
    `say` is called with the inputs that others lack."""
    split, known = given_split(run, samples), readable(run, tasks)
    for number, sample in enumerate(samples):
        if all(sample.get(name) is None for name in known):
            split.skipped.bad.setdefault(number, f"it has none of the inputs {', '.join(known)}")
    say_missing(run, [each for number, each in enumerate(samples) if number not in split.skipped.bad], tasks, say)
    return split


ROWS = 256
"""How many samples are read at a time."""


def predictor(
    config: Config, model: Model, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task]
) -> Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]:
    """A function from samples (mappings of inputs to raw values) to every task's answers, as `Run.predict` gives
    them; it can be pickled."""
    return partial(answers, config, model, choppers, tasks)


def pooler(
    config: Config, model: Model, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task]
) -> Callable[[str, Sequence[Mapping[str, Any]]], Float[Tensor, "n d"] | None]:
    """A function from a task's name and samples to the vectors that its head reads; it can be pickled."""
    return partial(vectors, config, model, choppers, tasks)


def answers(
    config: Config, model: Model, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task],
    samples: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:  # fmt: skip
    """Every task's answer to each sample."""
    return predict(model, tasks, split_of(config, choppers, tasks, samples), rows=ROWS) if samples else []


def vectors(
    config: Config, model: Model, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task], name: str,
    samples: Sequence[Mapping[str, Any]],
) -> Float[Tensor, "n d"] | None:  # fmt: skip
    """One vector for each sample; see `pooled_vectors`."""
    return pooled_vectors(model, name, tasks[name], split_of(config, choppers, tasks, samples), ROWS)


def split_of(
    config: Config, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task], samples: Sequence[Mapping[str, Any]]
) -> SampleSplit:
    """Samples in memory as a split."""
    keys = [f"sample {number + 1}" for number in range(len(samples))]
    columns, labels = {name: name for name in choppers}, [each for t in tasks.values() for each in t.needs.columns]
    return read_samples(config, Listed(keys, samples), "given", choppers, lambda text: None, columns, labels)


Prompts = Sequence[str | None]
"""How texts begin; None or an empty one: a new text."""
Say = Callable[[str], None]


def generated(
    run: Run, prompts: Prompts, samples: Sequence[Sample], target: str | None, how: Generating, say: Say
) -> list[Any]:
    """One item for each sample, or, where no sample has a value, for each prompt; see `Run.generate`."""
    name, task = asked_task(run, samples, target, say)
    if not any(samples):
        prompts, samples = [each for each in prompts for _ in samples or [{}]], []
    if not samples and not prompts:
        return []
    if not samples and continues(run, task):
        return joined(stream_prompts(run.model, name, task, prompts, how, say), len(prompts))
    return generated_items(run, name, prompts, samples, how)


def streamed(
    run: Run, prompts: Prompts, samples: Sequence[Sample], target: str | None, how: Generating, say: Say
) -> Iterator[list[str]]:
    """The texts of samples or of prompts piece by piece; see `Run.stream`."""
    name, task = asked_task(run, samples, target, say)
    if not continues(run, task):
        raise RunError(f"{run.folder} generates complete items of {task.target!r}, which cannot be streamed")
    if any(samples):
        split = given_split(run, samples)
        places = sorted(split.all(), key=lambda place: place.number)
        return stream_texts(run.model, name, task, split, places, replace(how, prompt=one_of(prompts)))
    return stream_prompts(run.model, name, task, prompts, how, say)


def asked_task(run: Run, samples: Sequence[Sample], target: str | None, say: Say) -> tuple[str, Task]:
    """The task that generates the input `target`, by default the first that is generated and that no sample gives, and
    its name. Calls `say` with the inputs that samples lack. Raises RunError where no task generates it, and for inputs
    that it does not read or that an encoder needs."""
    run.check_heads()
    name, _ = run.text_task({each for sample in samples for each in sample}, target)
    task = run.tasks[name]
    check_samples(run, samples, [name])
    if task.needs.encoder and not any(samples):
        raise RunError(f"{run.folder} writes {task.target!r} from its other inputs: give them (--input NAME=VALUE)")
    say_missing(run, samples or [{}], [name], say)
    return name, task


def continues(run: Run, task: Task) -> bool:
    """Whether a task continues texts, rather than making complete items."""
    return task.needs.generates and run.choppers[task.target].kind == "text"


def generated_items(run: Run, name: str, prompts: Prompts, samples: Sequence[Sample], how: Generating) -> list[Any]:
    """The items that a task makes of each sample, in their order, or, without samples, of each prompt. A refined text
    begins as a draft: the prompt with the printed name of the mask (`<|mask|>`) wherever something is to be filled in,
    or with masks after it. Raises RunError for a sample that cannot be read, and for the prompt of what is no text."""
    task = run.tasks[name]
    text, count = run.choppers[task.target].kind == "text", len(samples or prompts)
    if any(prompts) and not text:
        part = "; --given FILE --fill PLACES keeps a part of an item" if task.needs.refines else ""
        raise RunError(f"--prompt is for texts, and {task.target!r} is none{part}")
    prompt = one_of(prompts) if samples else None
    if any(prompts) and task.needs.refines:
        drafts = [draft_of_prompt(run, task, prompt or "", how.max_tokens) for prompt in prompts]
        how = replace(how, draft=lambda number: drafts[number % len(drafts)])
    elif prompt:
        how = replace(how, prompt=prompt)
    if task.needs.refines and not run.config.on_samples:
        found = generate_unprompted(run.model, name, task, count, how)
    else:
        split = given_split(run, samples or [{}] * count)
        places = sorted(split.all(), key=lambda place: place.number)
        by_number = generate_items(run.model, run.tasks, name, split, places, how)
        if split.skipped.bad:
            raise RunError(next(iter(split.skipped.bad.values())))
        found = [by_number[place.number] for place in places]
    items = [task.restore(ids) for ids in found]
    return [before(item, how.stop) for item in items] if text else items


def one_of(prompts: Prompts) -> str:
    """The prompt with which the texts of all samples begin. Raises RunError where several are given."""
    if len(prompts) > 1:
        raise RunError(f"{len(prompts)} prompts and inputs cannot be combined: give one, with which every text begins")
    return (prompts[0] if prompts else None) or ""


def draft_of_prompt(run: Run, task: Task, prompt: str, most: int | None) -> list[int]:
    """The ids of a text with masks in it; where there are none, masks are put after it: `most`, or as many as a text of
    the task has, or as the context has room for."""
    chopper = run.choppers[task.target].with_marks(["mask"])
    known, ids = chopper.vocabulary, chopper.encoded(prompt)
    if task.mask in ids:
        return ids
    frame = len(known.before) + len(known.after) if run.config.on_samples else 0
    room = run.model.context - len(ids) - frame
    wanted = most or (room if task.refining.tokens is None else task.refining.tokens - len(ids))
    return [*ids, *[task.mask] * max(min(wanted, room), 0)]


def evaluated(
    run: Run, split: str, dataset: Dataset | None, rows: int = 64, inputs: Collection[str] | None = None,
    output: Path | None = None,
) -> Measured:  # fmt: skip
    """The figures of a split, with the number of samples of each; see `Run.evaluate`."""
    run.check_heads()
    if unknown := [name for name in inputs or () if name not in run.choppers]:
        raise RunError(f"{run.folder} has no input {unknown[0]!r}; possible: {', '.join(run.choppers)}")
    data, folder = run.open(split, dataset), output or writable(run.folder)
    with run.arithmetic():
        found = measured(run.model, run.tasks, data, rows=rows, pictures=folder, inputs=inputs)
        found.check()
        if folder:
            write_sheet(run, data, folder)
    for line in data.skipped.lines():
        say_aside(line)
    if folder is None:
        say_aside(f"{run.folder}: no pictures can be written there; --output DIR writes to another place")
    return found


def write_sheet(run: Run, data: Split, folder: Path) -> None:
    """Write a page of generated items of a split, `sheets/<split>.html`, where they are no text, and for TensorBoard
    `tensorboard/<split>` where the folder has such a folder."""
    if any(map(draws, run.tasks.values())) and data.samples is not None:
        rows = generated_rows(run.model, run.tasks, data, seed=0, most=run.config.evaluation.sample_tokens or 1)
        sheet = page(f"{run.name}, {data.name}", rows)
        write_text(folder / "sheets" / f"{data.name}.html", sheet, within=folder)
        board = folder / "tensorboard"
        if board.is_dir() and not board.is_symlink() and not (board / data.name).is_symlink():
            try:
                write_board(board / data.name, rows, run.step)
            except OSError as error:
                say_aside(f"{board / data.name}: not shown in TensorBoard: {error}")


def attributed(run: Run, split: str, dataset: Dataset | None) -> dict[str, Attribution]:
    """Each task's `Attribution`; see `Run.attribution`."""
    data = run.open(split, dataset)
    if data.samples is None:
        raise RunError(f"{run.folder} reads one text: there are no inputs to compare")
    with run.arithmetic():
        return measure_attribution(run.model, run.tasks, data)


def writable(folder: Path) -> Path | None:
    """The run's folder, where pictures can be written to it, else None: not where a picture's name is taken by anything
    but a regular file, such as a link in a run from elsewhere, which would be followed."""
    every = [*folder.glob("confusion-*.png"), *folder.glob("sheets/*.html")]
    odd = [file for file in every if file.is_symlink() or not file.is_file()]
    odd += [each for each in [folder / "sheets"] if each.is_symlink()]
    return folder if os.access(folder, os.W_OK) and not odd else None
