"""A run: the folder that training fills, opened, with methods that generate, predict, evaluate and attribute.

run = load_run("runs/quickstart")
print(run.generate("def ", max_tokens=100))
print(run.evaluate("val"))
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from ..data.base import Dataset
from ..data.samples.split import SampleSplit
from ..inference.attribution import Attribution
from ..inference.generating import Generating
from ..inference.predict import predict
from ..tokenizers.files.trust import Trust
from .folder.reading import RunError as RunError
from .folder.reading import say_aside
from .opening.evaluated import attributed, evaluated
from .opening.given import Sample, check_predicts, given_split, predicted_split, samples_of
from .opening.opened import Opened
from .opening.written import generated, streamed


@dataclass(frozen=True, kw_only=True)
class Run(Opened):
    """A trained model with everything needed to generate texts, predict, and evaluate."""

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
        for line in split.unread.shortened():
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
    return Run.open(Path(folder), checkpoint=checkpoint, device=device, trust=Trust.of(trust, remote))
