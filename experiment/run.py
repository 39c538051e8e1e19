"""A run: the folder that training fills, opened, with methods that generate, predict, evaluate and attribute.

run = load_run("runs/quickstart")
print(run.generate("def ", max_tokens=100))
print(run.evaluate("val"))
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.base import Dataset
from ..data.samples.split import SampleSplit
from ..inference.attribution import Attribution
from ..inference.generating import Generating, joined
from ..inference.predict import predict
from ..tokenizers.files.trust import Trust
from .folder.reading import RunError as RunError
from .folder.reading import say_aside
from .opening.evaluated import attributed, evaluated
from .opening.given import given_split
from .opening.opened import Opened
from .opening.written import generated_items, one_of, streamed


@dataclass(frozen=True, kw_only=True)
class Run(Opened):
    """A trained model with everything needed to generate texts, predict, and evaluate."""

    def generate(
        self, prompt: str | Sequence[str | None] | None = None, *,
        inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (), target: str | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        """The text that continues a prompt, or one text per prompt; or the item (a text; of pictures a tensor) that is
        generated from the other `inputs` of a sample, or of each of several; of several that can be, `target` names it
        (by default the first that is not given). Options as for `stream`; the fields of
        `Sampling` may be given directly (`temperature=0`). Raises RunError where no task generates anything, and for a
        sample that cannot be read."""
        prompts = [prompt] if prompt is None or isinstance(prompt, str) else list(prompt)
        samples = [inputs] if isinstance(inputs, Mapping) else list(inputs)
        name, made = self.text_task({name for sample in samples for name in sample}, target)
        if not samples and self.tasks[name].needs.generates and self.choppers[made].kind == "text":
            texts = joined(self.stream(prompts, **options), len(prompts))
            return texts[0] if prompt is None or isinstance(prompt, str) else texts
        found = generated_items(self, samples, Generating.of({"prompt": one_of(prompts), **options}), target)
        return found if samples and not isinstance(inputs, Mapping) else found[0]

    def stream(
        self, prompts: Sequence[str | None] = (None,), inputs: Sequence[Mapping[str, Any]] = (), **options: Any
    ) -> Iterator[list[str]]:  # fmt: skip
        """Yield lists with the next piece of every text until all have ended: one text per prompt, or, where `inputs`
        are given, one per sample, each beginning behind the first prompt. Options: those of
        `inference.generating.Generating` (`max_tokens`, `sampling`, `search`, `stop`, `seed`, ...). Raises RunError
        where no task generates text, or one needs other inputs and none are given, DataError for a sample that cannot
        be read."""
        return streamed(self, prompts, inputs, options)

    def predict(self, samples: Sequence[Mapping[str, Any]], **how: Any) -> list[dict[str, Any]]:
        """Predict for samples: mappings of any of the run's inputs to raw values (a path, a file's bytes, an array, a
        text).

        Gives one mapping per sample: every task's prediction by task name (a class with probabilities, numbers, a
        text), or `error` for a sample that cannot be read. `how`: the options of `inference.generating.Generating`.
        Raises RunError for an input that the run does not have, and for a task whose head was missing in an import.
        """
        self.check_heads()
        return self.answered(self.tasks, samples, **how)

    def answered(self, tasks: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], **how: Any) -> list[dict]:
        """`predict` for some tasks; says of which inputs items were left out for want of room."""
        split = self.given(samples)
        found = predict(self.model, tasks, split, Generating.of(how))
        for line in split.unread.shortened():
            say_aside(line)
        return found

    def given(self, samples: Sequence[Mapping[str, Any]], asked: bool = True) -> SampleSplit:
        """Samples in memory as a split. `asked`: chopped as for prediction (the text of a mask token is that token, to
        be filled in), else as for training. Raises RunError for an input that the run does not have."""
        return given_split(self, samples, asked)

    def evaluate(
        self, split: str = "val", dataset: Dataset | None = None, rows: int = 64, inputs: Collection[str] | None = None
    ) -> dict[str, float]:
        """The metrics of a whole split, of the run's own data or of another dataset, named `split/metric`.

        `inputs`, where given, are the only ones that are read, beside those that a task predicts. `rows` samples are
        read at a time. Texts are generated by the search of their task (`searching` gives a run with another). Into the
        run's folder a classification also writes its confusion matrix, `confusion-<split>-<task>.png`, and a run that
        generates anything but text a page, `sheets/<split>.html`. Raises RunError for a task whose head was missing in
        an import, DataError for data that cannot be read."""
        return evaluated(self, split, dataset, rows, inputs).metrics

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
