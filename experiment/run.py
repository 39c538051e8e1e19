"""A trained run, opened from its folder, with methods that generate, predict, evaluate and attribute.

run = load_run("runs/quickstart")
print(run.generate("def ", max_tokens=100))
print(run.evaluate("val"))
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, Literal, overload

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.base import Dataset
from ..data.processes import Processes
from ..data.sampler import SampleIndex
from ..data.samples import Samples
from ..data.split import SampleSplit, Split
from ..files.errors import RunError as RunError
from ..files.printing import listed, say_aside
from ..files.reading import DataError
from ..files.trust import NOTHING, Trust
from ..files.writing import delete, not_written, open_for_append, write_text
from ..inference.answers import calibrated as with_calibration
from ..inference.evaluation import Measured, measured
from ..inference.evaluator import TrainedRun
from ..inference.evaluators.attribution import Attribution, measure_attribution
from ..inference.generate import (
    Generating,
    by_item,
    generating_tasks,
    searching_tasks,
)
from ..inference.pages import draws, generated_rows, page
from ..inference.predict import inputs_of_task, planned, predict, read_by
from ..inference.prompts import generated, streamed
from ..inference.report import read_calibration
from ..inference.requests import (
    Sample,
    absent_lines,
    as_prompts,
    as_samples,
    check_samples,
    present,
    readable,
    report_missing,
    seeded_by_item,
    sorted_out,
    without_targets,
)
from ..inference.tracing import Trace, batch_of, traced
from ..inference.trained import TrainedModel
from ..models.model import Model
from ..tasks.base import Task, Wiring, prediction_copy, target_columns
from ..tasks.measuring.calibration import FEWEST_SAMPLES
from ..tokenizers.base import Chopper, RunPart
from ..training import checkpoints as checkpoint
from ..training.log import read_metrics
from ..training.loggers.tensorboard import write_board
from ..training.objective import autocast
from .after_training import changed_config
from .build import build_model, choppers_and_tasks, open_split, precision_of
from .next_steps import as_argument
from .read_ahead import read_ahead
from .run_folder import check_assets, read_config, valid_step, write_model_run
from .run_losses import as_mappings, losses_of, reads_texts, texts_split
from .run_names import folder_of_run, is_contained, name_of
from .run_part import ROWS_AT_ONCE, Predictor, memory_split
from .run_samples import samples_of_split, view_of
from .settings.config import Config
from .stored_weights import base_bytes, load_weights


@dataclass(frozen=True, kw_only=True)
class Run(TrainedRun):
    """A trained model with everything that is needed to generate, predict and evaluate. Immutable."""

    folder: Path
    config: Config
    step: int
    model: Model
    tasks: Mapping[str, Task]
    choppers: Mapping[str, Chopper]
    which: str = "last"
    """The requested checkpoint: `best` or `last`."""
    precision: str = "float32"
    """`float32` or `bfloat16`: the precision in which the model computes (see `build.precision_of`)."""
    training_samples: int = 0
    """The number of training samples that were read up to the checkpoint; 0: unknown (an older or imported run)."""
    training_inputs: Mapping[str, int] = field(default_factory=dict)
    """The number of these samples with each input, by input."""
    missing: tuple[str, ...] = ()
    """The names of the parameters that the imported model directory lacked. These parameters are untrained."""
    processes: Processes = field(default_factory=Processes.alone, repr=False)
    """The processes that evaluate together. During training, these are the processes that train the run."""
    source: Dataset | None = field(default=None, repr=False)
    """The data set of the run's training, if it is open; else None."""
    opened: Mapping[str, Split] = field(default_factory=dict, repr=False)
    """The splits of the data set `source` that are already open, by name."""

    @property
    def wiring(self) -> Wiring:
        return self.config.wiring

    @property
    def seed(self) -> int:
        return self.config.training.seed

    @property
    def training_seconds(self) -> float | None:
        file = self.folder / "metrics.jsonl"
        return max((line["seconds"] for line in read_metrics(file)), default=None) if file.exists() else None

    @property
    def group(self) -> str | None:
        return self.config.data.split.group if self.config.data.split else None

    @property
    def rows(self) -> int:
        return self.config.evaluation.rows

    @property
    def trust(self) -> Trust:
        return self.config.trust

    @property
    def on_samples(self) -> bool:
        return self.config.on_samples

    @property
    def name(self) -> str:
        """The folder, checkpoint and step, for messages: `runs/quickstart, best checkpoint: step 900`."""
        return f"{name_of(self.folder)}, {self.which} checkpoint: step {self.step:,}"

    @property
    def has_dataset(self) -> bool:
        return self.config.data.dataset is not None

    def dataset(self) -> Dataset:
        """Returns the data set of the run's training, for its properties; `samples` returns its samples. If
        `data.split` divides it, its `open` raises RunError. Raises RunError for an imported run, which has no data
        set."""
        return view_of(self._dataset, self.folder)

    @property
    def _dataset(self) -> Dataset:
        if not self.has_dataset:
            raise RunError(f"{self.folder} was imported without data; name a data set with --data")
        if self.source is None:
            object.__setattr__(self, "source", self.config.dataset())
        return self.source

    def samples(self, split: str) -> Samples:
        """Returns the samples of the split `train`, `val` or `test` as this run has used them, after `data.split`,
        `data.columns` and the division into folds. A sample maps the inputs of the run, and the columns with the true
        values of its tasks, to raw values. `predict`, `trace`, `losses` and `attribution` accept these samples.

            val = run.samples("val")
            len(val), val.keys[0], val[0], val.select(range(20))

        Raises RunError for a text corpus and for an imported run, DataError if the split does not exist or cannot be
        read."""
        return samples_of_split(self.config, self._dataset, split)

    def open(
        self, split: str, dataset: Dataset | None = None, say: Callable[[str], None] = say_aside
    ) -> Split:  # fmt: skip
        """Returns a split, with tasks and labels, of `dataset` or, if `dataset` is None, of the data set of the run's
        training. Of `dataset`, any number of samples may be bad; they are skipped. `say` is called with messages, such
        as the bad samples. Raises RunError if the run was imported and `dataset` is None, DataError if the data cannot
        be read."""
        if dataset is None and split in self.opened:
            return self.opened[split]
        return self._open(split, dataset, say)

    def _open(self, split: str, dataset: Dataset | None, say: Callable[[str], None]) -> Split:
        config = self.config
        if dataset is not None:
            config = replace(config, data=replace(config.data, bad_share=1.0))
            for line in dataset.notices():
                say(line)
        return open_split(config, dataset or self._dataset, split, self.choppers, self.tasks, say=say)

    def reads(self) -> tuple[dict[str, str], bool]:
        """Returns the kind of each data column that the run reads (`image`, `sound`, `text`, `file` or `label`), and
        whether the run was trained on a text corpus: `({"image": "image", "digit": "label"}, False)`."""
        wiring = self.config.wiring
        kinds = {column: self.choppers[n].kind for n, column in wiring.columns.items() if n not in wiring.made}
        kinds |= dict.fromkeys(target_columns(self.tasks), "label")
        return kinds, list(kinds.values()) == ["text"] and not self.on_samples

    def arithmetic(self) -> AbstractContextManager[None]:
        """Returns a context in which the model computes in `precision`."""
        return autocast(self.model_device, self.precision)

    def searching(self, **fields: Any) -> Run:
        """Returns a copy of the run that generates texts with another search. `fields` are fields of `Search` (`beams`,
        `length_penalty`, `no_repeat`); fields that are not passed keep the value of each task. CTC uses only `beams`.
        Raises ValueError for values that `Search` rejects."""
        return replace(self, tasks=searching_tasks(self.tasks, **fields))

    def generating(
        self, *, guidance: float | None = None, temperature: float | None = None, steps: int | None = None,
        drafts: int | None = None,
    ) -> Run:  # fmt: skip
        """Returns a copy of the run whose evaluations generate items with other settings: the weight `guidance` of the
        inputs, the sampling `temperature`, and, for tasks that refine drafts, the number of `steps` and the number of
        `drafts` from which the best is chosen. Arguments that are None keep the values of each task. Raises RunError if
        no task uses an argument, ValueError for values outside their ranges."""
        try:
            tasks = generating_tasks(self.tasks, guidance, temperature, steps, drafts)
        except LookupError as error:
            raise RunError(f"{self.folder} {error.args[0]}") from None
        return replace(self, tasks=tasks)

    def record(self, result: Mapping[str, Any], folder: Path | None = None, option: str = "--report DIR") -> None:
        """Append a result, with `step` and `checkpoint`, as one line to `evaluations.jsonl` in `folder` (None: the
        run's folder; nothing is written for a run that chopmix contains). If the file cannot be written, a message on
        standard error names `option`, the option of the command line that selects another folder."""
        if folder is None and is_contained(self.folder):
            return
        line = json.dumps({"step": self.step, "checkpoint": self.which, **result}) + "\n"
        path = (folder or self.folder) / "evaluations.jsonl"
        is_new = not os.path.lexists(path)
        try:
            with open_for_append(path) as file:
                file.write(line)
        except (OSError, DataError) as error:
            if is_new:
                delete(path)
            reason = not_written(path, error).strerror if isinstance(error, OSError) else error
            say_aside(f"{reason}; {option} writes to another folder")

    def generate(
        self, prompt: str | Sequence[str | None] | None = None, *,
        inputs: Sample | Sequence[Sample] = (), target: str | None = None, say: Callable[[str], None] = say_aside,
        **options: Any,
    ) -> Any:  # fmt: skip
        """Generate from prompts or from samples.

        Without `inputs`, returns the text that continues `prompt` (None: a new text), or, for a list of prompts, a list
        with one text per prompt. With `inputs`, a sample of the other inputs, returns the item that is generated from
        this sample: a text, or a tensor for an image. For a list of samples, returns a list with one item per sample.
        `target` is the generated input; None: the first input that a task generates and the samples do not contain.

        `options` are fields of `inference.generate.Generating` (`max_tokens`, `sampling`, `search`, `stop`, `seed`,
        ...) and of `Sampling` (`temperature=0`); `seed`, `max_tokens` and `temperature` may be lists with a value for
        each item. A sampled item depends only on its prompt or sample and its seed, not on the other items of the call
        (equal items have different random numbers). `say` is called with messages, such as the inputs that a sample
        lacks; by default they go to the logger. Raises RunError if no task generates the target, or if a sample
        cannot be read; TypeError for an unknown option."""
        prompts = as_prompts(prompt)
        samples = as_samples(inputs)
        count, items = len(samples) or len(prompts), dict[int, Any]()
        for numbers, of_group in by_item(options, count):
            some = (prompts, samples.select(numbers)) if len(samples) else ([prompts[n] for n in numbers], samples)
            items |= zip(numbers, generated(self, *some, target, Generating.of(of_group), say))
        items = [items[number] for number in range(len(items))]
        is_single = isinstance(inputs, Mapping) if len(samples) else prompt is None or isinstance(prompt, str)
        return items[0] if is_single else items

    def stream(
        self, prompts: str | Sequence[str | None] = (None,), inputs: Sample | Sequence[Sample] = (), *,
        target: str | None = None, say: Callable[[str], None] = say_aside, **options: Any,
    ) -> Iterator[list[str]]:  # fmt: skip
        """Yields lists with the next part of every text, until all texts are complete. There is one text per prompt,
        or, with `inputs`, one text per sample; then only one prompt is allowed, which every text continues. A prompt is
        not part of what is yielded. `target`, `say` and `options` are those of `generate`. Raises RunError if no task
        generates text token by token, or if the encoder has no input; DataError if a sample cannot be read; TypeError
        for an unknown option."""
        prompts = as_prompts(prompts)
        return streamed(self, prompts, as_samples(inputs), target, Generating.of(options), say)

    @overload
    def predict(
        self, samples: Sample, *, say: Callable[[str], None] = ..., calibrated: bool = ..., **how: Any
    ) -> dict[str, Any]: ...
    @overload
    def predict(
        self, samples: Sequence[Sample], *, say: Callable[[str], None] = ..., calibrated: bool = ..., **how: Any
    ) -> list[dict[str, Any]]: ...
    def predict(
        self, samples: Sample | Sequence[Sample], *, say: Callable[[str], None] = say_aside, calibrated: bool = False,
        paths: bool = True, **how: Any,
    ) -> dict[str, Any] | list[dict[str, Any]]:  # fmt: skip
        """Predict for samples. A sample maps inputs of the run to raw values: a path, the content of a file, an array,
        or a text. The columns with the true values of the tasks may also be there, as in `samples`; they are ignored.

        Returns one mapping per sample: the prediction of every task by task name (a class with probabilities, numbers,
        a text), and `without`, a list of the inputs that the sample lacks, if it lacks any; or `{"error": reason}` if
        the sample cannot be read or has none of the inputs, or, in a list with other samples, an unknown input. For one
        sample instead of a list, returns one such mapping. `paths`: False: a text is refused as the path of a file, for
        samples from clients of a server; numbers and the content of files (bytes, arrays) are accepted. `how`: fields
        of `inference.generate.Generating` and of `Sampling`. `say` is called with messages, such as the inputs that
        samples lack; by default they go to the logger. `calibrated`: the probabilities of classes are calibrated
        (see `calibration`). Raises RunError for an input that no task reads, for a run that can only continue texts,
        and for a task whose head the imported directory lacked; TypeError for an unknown option."""
        self.check_heads()
        calibration = self.calibration() if calibrated else {}
        given, wrong = sorted_out(self, samples, paths)
        all_samples, groups = without_targets(self, given), by_item(how, len(given) + len(wrong))
        check_predicts(self, all_samples.column_names, self.tasks)
        if not len(all_samples):
            return []
        if len(groups) > 1:
            return predicted_apart(self, given, wrong, groups, say=say, calibrated=calibrated)
        options = seeded_by_item(Generating.of(groups[0][1]), all_samples, wrong)
        split = predicted_split(self, all_samples, self.tasks, say)
        split = replace(split, tasks={name: prediction_copy(task) for name, task in self.tasks.items()})
        ahead = read_ahead(split, self.config.data.workers) if len(split) > ROWS_AT_ONCE else nullcontext()
        with ahead, self.arithmetic():
            predictions = predict(self, split, options)
        predictions = [with_calibration(self, answer, calibration) for answer in predictions]
        for line in split.skipped.shortened():
            say(line)
        for number, reason in wrong.items():  # ascending
            predictions.insert(number, {"error": reason})
        return predictions[0] if isinstance(samples, Mapping) else predictions

    def calibration(self) -> dict[str, dict[str, float]]:
        """Returns the values by task that calibrate the probabilities: {"digit": {"temperature": 1.4}}. The report on
        the validation split stores them in the folder of the run. Raises RunError if there are none for this
        checkpoint."""
        calibration = read_calibration(self)
        if not calibration:
            raise RunError(
                f"{self.folder} has no calibration for step {self.step:,}; `chopmix evaluate "
                f"{as_argument(self.folder, self.config)} --report` "
                "fits one for tasks that predict one class, if it reduces the loss of other samples; val needs at "
                f"least {2 * FEWEST_SAMPLES} samples with some wrong answers"
            )
        return calibration

    def as_split(self, samples: Samples | Sample | Sequence[Sample], for_prediction: bool = True) -> SampleSplit:
        """Returns samples in memory (one mapping, a list of mappings, or `Samples`) as a split. If `for_prediction`,
        the samples are chopped as for prediction: the text of a mask token is read as this token and filled in.
        Otherwise they are chopped as for training. A sample is bad if every input of the encoder is missing or is an
        empty text. Raises RunError for an input that the run does not have."""
        samples = as_samples(samples)
        known = (*self.choppers, *target_columns(self.tasks))
        if unknown := [name for name in samples.column_names if name not in known]:
            raise RunError(f"{self.folder} has no input {unknown[0]!r}; possible: {', '.join(self.choppers)}")
        choppers = prediction_choppers(self) if for_prediction else self.choppers
        split = memory_split(self.config, choppers, self.tasks, samples)
        encoded = split.inputs.encoded
        for number in range(len(samples)) if encoded else ():
            values = samples.row(number, encoded)
            if all(isinstance(values.get(name), NoneType | str | bytes) and not values.get(name) for name in encoded):
                split.skipped.bad[number] = f"the encoder has no input: {' or '.join(encoded)} must not be empty"
        return split

    def trace(self, sample: Sample | str, task: str | None = None) -> Trace:
        """Returns what the model computes for a sample, in float32: the attention weights and the vectors of every
        layer (see `Trace`).

        `sample` maps inputs, and columns with true values, to raw values; a text is the value of the only input. An
        item that the run generates and that the sample lacks is generated first. `task`: a task whose targets the
        batch must have, since a task that hides parts of the inputs is traced alone; None: the first task. Raises
        RunError for an input that the run does not have, DataError if the sample cannot be read or is too long."""
        if isinstance(sample, str):
            if len(self.choppers) > 1:
                names = ", ".join(self.choppers)
                raise RunError(f"{self.folder} has the inputs {names}; a sample must be a mapping of them")
            sample = {next(iter(self.choppers)): sample}
        self.check_heads()
        (sample,) = as_samples(sample)
        for name, other in self.tasks.items():
            inputs = inputs_of_task(self.tasks, list(self.choppers), name)
            read = {input: sample[input] for input in inputs if input in sample}
            if other.needs.generates and sample.get(other.target) is None and read:
                sample = {**sample, other.target: self.generate(inputs=read, target=other.target)}
        split = self.as_split(sample, for_prediction=False)
        return traced_index(self, split, split.all()[0], self.tasks, task)

    def evaluate(
        self, split: str = "val", dataset: Dataset | None = None, rows: int = 64,
        inputs: Collection[str] | None = None,
    ) -> dict[str, float]:  # fmt: skip
        """Returns the metrics of all samples of a split, by names `split/metric`. The split is from `dataset`, or, if
        `dataset` is None, from the data set of the run's training.

        If `inputs` is not None, only these inputs and those that a task predicts are read. `rows` samples are read at a
        time. Texts are generated with the search of their task (see `searching`). Raises RunError for an unknown input
        and for a task whose head the imported directory lacked, DataError if the data cannot be read."""
        self.check_heads()
        return self.measured(self.open(split, dataset), rows, inputs).metrics

    def measured(
        self, data: Split, rows: int | None = None, inputs: Collection[str] | None = None,
        detail: Literal["split", "samples"] = "split",
    ) -> Measured:  # fmt: skip
        """Returns the metrics of an open split, and the number of samples from which each metric was computed, with the
        `detail` "samples" also the sums of each sample; see `evaluate`. Messages about bad samples and missing inputs
        are printed."""
        if unknown := [name for name in inputs or () if name not in self.choppers]:
            raise RunError(f"{self.folder} has no input {unknown[0]!r}; possible: {', '.join(self.choppers)}")
        with self.arithmetic(), read_ahead(data, self.config.data.workers):
            result = measured(self, data, rows=rows, inputs=inputs, detail=detail)
        result.check()
        expected = [
            name for name in self.choppers
            if any(name in read_by(self.tasks, self.choppers, task) for task in self.tasks)
        ]  # fmt: skip
        absent = [[name for name in expected if name in names] for names in data.skipped.absent.values()]
        for line in [*data.skipped.lines(), *absent_lines(self, absent if inputs is None else [], len(data))]:
            say_aside(line)
        return result

    @overload
    def losses(self, samples: Any, *, inputs: Collection[str] | None = None) -> dict[str, Float[Tensor, "n"]]: ...

    @overload
    def losses(
        self, samples: Any, *, inputs: Collection[str] | None = None, per_token: Literal[True]
    ) -> dict[str, list[Float[Tensor, "t"]]]: ...

    def losses(self, samples, *, inputs=None, per_token=False):
        """Returns the loss of each sample by task, in nats (for tasks without a likelihood, in the unit of their loss):
        the sum over its targets, without label smoothing and class weights; NaN for a sample without a target.

            run.losses(run.samples("test"))                           # {"kind": tensor([0.02, 1.73, ...])}
            run.losses(["three short words"], per_token=True)         # {"lm": [tensor([4.1, 2.7])]}
            run.losses(samples, inputs=["image"])                     # from the images only

        `samples` are samples with their true values (one mapping, several, or `run.samples(split)`), or texts if the
        run has one input. For a run that reads a text corpus, the first id of a text is not predicted unless the run
        begins texts with a start token; a text that is longer than the context is read in windows, as by `evaluate`.
        `inputs`: the model reads only these inputs and those that a task itself needs. `per_token`: returns, for each
        sample, a tensor with the loss of each target. Raises RunError for an unknown input, and for a task whose loss
        compares samples."""
        self.check_heads()
        if unknown := [name for name in inputs or () if name not in self.choppers]:
            raise RunError(f"{self.folder} has no input {unknown[0]!r}; possible: {', '.join(self.choppers)}")
        if reads_texts(self, samples):
            split = texts_split(self, self.config, samples)
        else:
            split = replace(self.as_split(as_mappings(self, samples), for_prediction=False), tasks=self.tasks)
        return losses_of(self, split, inputs, per_token)

    def attribution(self, split: str | Samples = "val", dataset: Dataset | None = None) -> dict[str, Attribution]:
        """Returns the `Attribution` of each task by task name: the metrics of a split with every subset of the inputs,
        and the Shapley value of each input. The split is from `dataset`, or, if `dataset` is None, from the data set of
        the run's training; or `split` is samples, such as `run.samples("val").select(range(20))`. Raises RunError for a
        run that reads a text corpus, ValueError if there are no inputs."""
        data = self.open(split, dataset) if isinstance(split, str) else self.as_split(split, for_prediction=False)
        if not data.answerable:
            raise RunError(f"{self.folder} reads a text corpus: it has no inputs to compare")
        with self.arithmetic():
            return measure_attribution(self, data)


def load_run(
    folder: str | Path, checkpoint: str = "best", device: str = "auto", trust: Collection[str] = (),
    remote: Collection[str] = (), options: Sequence[str] = (), adapters: Sequence[str | Path] | None = None,
) -> Run:  # fmt: skip
    """Open the folder of a trained run, or a run that chopmix contains (`quickstart`): its model (with averaged weights
    if the checkpoint has them), choppers and tasks.

    `checkpoint` is `best` or `last`. If this checkpoint is missing or damaged, another checkpoint is used, and a
    message is printed to standard error. `device`: `auto` (a GPU if there is one), `cpu` or `cuda`. No code in the
    folder is executed. A run that needs code outside chopmix, such as a user-defined tokenizer, is opened only if
    `trust` names the modules of this code; data at a remote address are read only if `remote` names the host. `options`
    changes options that their part lists in `after_training`: `["tasks.picture.solver=heun"]`. `adapters` are the runs
    with `training.adapters` whose adapters are added to the weights; None: the run itself; empty: none, only the base.
    Raises RunError if the folder is not a run, lacks files, an option cannot be changed, the device does not exist, or
    adapters belong to other weights; ConfigError if the configuration is damaged; CheckpointError if all checkpoints
    are damaged."""
    return open_run(folder_of_run(folder), checkpoint, device, Trust.of(trust, remote), options, adapters)


def open_run(
    folder: Path, which: str = "best", device: str = "auto", trust: Trust = NOTHING, options: Sequence[str] = (),
    adapters: Sequence[str | Path] | None = None,
) -> Run:  # fmt: skip
    """Open a run's folder, as `load_run` does. `which` is `best` or `last`."""
    if device == "cuda" and not torch.cuda.is_available():
        raise RunError("device 'cuda' was requested, but torch finds no GPU; possible: auto, cpu")
    if which not in ("best", "last"):
        raise RunError(f"no checkpoint {which!r}; possible: best, last")
    config = changed_config(folder, options, trust) if options else read_config(folder, trust)
    which = which if config.checkpoints.best else "last"
    step = valid_step(folder, which, say_aside)
    check_assets(config, folder / "assets")
    choppers, tasks = choppers_and_tasks(config, folder / "assets", partial(open_part, trust=config.nested))
    check_size(config, folder, step, choppers)
    model = build_model(config, choppers, tasks)
    state = load_weights(model, folder, step, choppers, adapters=adapters)
    missing = [name for name in state.missing if not name.startswith("heads.")]
    if missing:
        state_of = "were missing in the imported directory and have random initial values"
        note = "outputs that depend on them are meaningless until they are trained"
        say_aside(f"{folder}: {listed(missing)} {state_of}; {note}")
    kind = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
    return Run(
        folder=folder, config=config, step=step, model=model.to(kind).eval(), tasks=tasks, choppers=choppers,
        which=which, precision=precision_of(folder, torch.device(kind)), missing=tuple(state.missing),
        training_samples=state.samples, training_inputs=state.inputs,
    )  # fmt: skip


def check_size(config: Config, folder: Path, step: int, choppers: Mapping[str, Chopper]) -> None:
    """Raises RunError if the configuration describes a model that is far larger than the checkpoint, before this model
    is built. The estimate is a lower bound: two matrices per block and the embedding tables, with one byte per
    parameter."""
    encoder, width = config.model.options["encoder"], config.model.options["width"]
    depth = config.model.options["depth"] + (encoder.depth if encoder else 0)
    vocabularies = [choppers[name].vocabulary for name, owner in config.wiring.owners.items() if name == owner]
    table_rows = sum(vocabulary.size for vocabulary in vocabularies if vocabulary is not None)
    weight_bytes = (checkpoint.folder_of(folder, step) / "model.safetensors").stat().st_size
    weight_bytes += base_bytes(folder) if config.training.adapters and step else 0
    parameters = width * (2 * width * depth + table_rows)
    if parameters > weight_bytes:
        model = f"{folder / 'config.yaml'} describes a model of at least {parameters:,} parameters"
        weights = f"the weights of step {step} are only {weight_bytes:,} bytes"
        raise RunError(f"{model}, but {weights}; the configuration does not belong to these weights")


def open_part(folder: str | Path, trust: Trust = NOTHING) -> RunPart:
    """Loads the best checkpoint of a trained run on the CPU. Returns it as a `RunPart`, the model with its choppers and
    tasks, for use in another run (for example as a frozen encoder). Only code of chopmix and of the modules that
    `trust` allows is executed. Raises RunError, ConfigError or CheckpointError if the run cannot be opened."""
    folder = folder_of_run(folder)
    run = open_run(folder, "best", "cpu", trust)
    config, model, choppers, tasks = run.config, run.model, run.choppers, run.tasks
    encoder = config.model.options["encoder"]
    predictor = Predictor(config, choppers, TrainedModel(model=model, tasks=tasks))
    return RunPart(
        name=name_of(folder), model=model, choppers=choppers, context=encoder.context if encoder else model.context,
        core_tokens=config.model.options["core_tokens"],
        write=partial(write_model_run, config=config, choppers=choppers, tasks=tasks, model=model,
                      extra_state={"missing": list(run.missing)}),
        tasks=tuple(tasks), check_answer=predictor.check_answer, predict=predictor.predict, pooled=predictor.pooled,
        content=checkpoint.content_of(model.state_dict()),
    )  # fmt: skip


def predicted_apart(
    run: Run, samples: Samples, wrong: Mapping[int, str], groups: Sequence[tuple[list[int], dict[str, Any]]],
    **options: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """Returns the predictions for samples with different options, by the groups of `by_item`. `samples` lacks those
    that are `wrong`."""
    answers = {number: {"error": reason} for number, reason in wrong.items()}
    kept = (number for number in range(len(samples) + len(wrong)) if number not in wrong)
    places = {number: place for place, number in enumerate(kept)}
    for numbers, of_group in groups:
        good = [number for number in numbers if number in places]
        if isinstance(seeds := of_group.get("seed"), list):
            of_group = {**of_group, "seed": [seed for number, seed in zip(numbers, seeds) if number in places]}
        if good:
            some = samples.select([places[number] for number in good])
            answers |= zip(good, run.predict(some, **options, **of_group))
    return [answers[number] for number in range(len(answers))]


def prediction_choppers(run: Run) -> Mapping[str, Chopper]:
    """Returns the choppers of all inputs for prediction: the text of a mask token is read as this token."""
    choppers: Mapping[str, Chopper] = run.choppers
    for task in run.tasks.values():
        changes = task.needs.prediction_choppers.items()
        choppers = {**choppers, **{name: change(choppers[name]) for name, change in changes}}
    return choppers


def check_predicts(run: Run, names: Collection[str], tasks: Collection[str]) -> None:
    """Raises RunError if these tasks read no inputs, that is, if they only continue texts. Also raises the errors of
    `check_samples` for the names in samples."""
    check_samples(run, names, tasks)
    if not readable(run, tasks):
        targets = " and ".join(run.tasks[name].target for name in tasks)
        raise RunError(
            f"{run.folder} continues texts: it generates {targets} and has no other input to predict from. "
            f"Write `chopmix generate {as_argument(run.folder, run.config)} --prompt TEXT`"
        )


def predicted_split(
    run: Run, samples: Samples, tasks: Collection[str], say: Callable[[str], None]
) -> SampleSplit:  # fmt: skip
    """Returns samples as a split for the predictions of these tasks. A sample without any of their inputs is bad. `say`
    is called with a message about the inputs that the other samples lack."""
    split, inputs = run.as_split(samples), readable(run, tasks)
    inputs_of = {number: present(samples, number, inputs) for number in range(len(samples))}
    for number, names in inputs_of.items():
        if names == []:
            split.skipped.bad.setdefault(number, f"it has none of the inputs {', '.join(inputs)}")
    readable_samples = [names for n, names in inputs_of.items() if names is not None and n not in split.skipped.bad]
    report_missing(run, readable_samples, tasks, say)
    return split


def write_sheet(run: Run, data: Split, file: Path) -> bool:
    """Write a page with generated items of a split, if a task generates items that are not text. If the folder of the
    run contains a folder `tensorboard`, also write the items for TensorBoard, to `tensorboard/<split>`. Returns whether
    the page was written."""
    if not any(map(draws, run.tasks.values())) or not data.answerable:
        return False
    with run.arithmetic():
        rows = generated_rows(run, data, seed=0, most=run.config.evaluation.sample_tokens or 1)
    write_text(file, page(f"{run.name}, {data.name}", rows), within=file.parent)
    board = run.folder / "tensorboard"
    if os.access(board, os.W_OK) and not board.is_symlink() and not (board / data.name).is_symlink():
        try:
            write_board(board / data.name, rows, run.step)
        except OSError as error:
            say_aside(f"{board / data.name}: not shown in TensorBoard: {error}")
    return True


def traced_index(
    run: Run, split: Split, index: SampleIndex, tasks: Mapping[str, Task], task: str | None = None
) -> Trace:
    """Returns the trace of one sample of a split, or of one window of a corpus. Raises DataError if it is bad."""
    batch, traced_run = batch_of(split, index, tasks, task), replace(run, tasks=tasks)
    if run.precision == "float32":
        return traced(traced_run, batch)
    with torch.inference_mode(), run.arithmetic():
        return traced(traced_run, batch, precise=run.model(planned(run.model, batch)))
