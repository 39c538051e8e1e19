"""A run: the folder that training fills, opened, with what one does with the trained model.

run = load_run("runs/quickstart")
print(run.generate("def ", max_tokens=100))
print(run.evaluate("val"))
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.base import Dataset
from ..data.samples.split import SampleSplit
from ..inference.attribution import Attribution, measure_attribution
from ..inference.evaluation import evaluate_split
from ..inference.generate import joined, stream_prompts, stream_texts, with_sampling
from ..inference.predict import predict
from ..models.generation.beam_search import Search
from .folder.reading import RunError, say_aside
from .opening.given import given_split, own_split
from .opening.opened import Opened


@dataclass(frozen=True, kw_only=True)
class Run(Opened):
    """A trained model with everything needed to use it: ask it, and measure it."""

    def generate(
        self, prompt: str | Sequence[str | None] | None = None, *,
        inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (), **options: Any,
    ) -> str | list[str]:  # fmt: skip
        """The new text behind a prompt, or behind several at once; or from the other `inputs` of a sample, or
        of several at once. See `stream` for the options, among which the fields of `Sampling` may stand by
        themselves (`temperature=0`)."""
        prompts = [prompt] if prompt is None or isinstance(prompt, str) else list(prompt)
        samples = [inputs] if isinstance(inputs, Mapping) else list(inputs)
        if not samples:
            texts = joined(self.stream(prompts, **with_sampling(options)), len(prompts))
            return texts[0] if prompt is None or isinstance(prompt, str) else texts
        name, _ = self.text_task()
        task, how = {name: self.tasks[name]}, {"prompt": prompts[0] or "", **with_sampling(options)}
        self.check_heads()
        answers = predict(self.model, task, self.given(samples), **how)
        if wrong := [answer["error"] for answer in answers if "error" in answer]:
            raise RunError(wrong[0])
        texts = [answer[name]["text"] for answer in answers]
        return texts[0] if isinstance(inputs, Mapping) else texts

    def stream(
        self, prompts: Sequence[str | None] = (None,), inputs: Sequence[Mapping[str, Any]] = (), **options: Any
    ) -> Iterator[list[str]]:  # fmt: skip
        """Yield the next piece of every text until all have ended: behind each prompt, or, of one prompt,
        from the `inputs` of each sample. The options are those of `inference.generate.stream_prompts`. Raises
        RunError where the model writes from other inputs and none are given, DataError for a sample that
        cannot be read."""
        name, target = self.text_task()
        task = self.tasks[name]
        if inputs:
            self.check_heads()
            split = self.given(inputs)
            places = sorted(split.all(), key=lambda place: place.number)
            return stream_texts(self.model, name, task, split, places, prompt=prompts[0] or "", **options)
        if task.needs.encoder:
            raise RunError(f"{self.folder} writes {target!r} from its other inputs: give them (--input NAME=VALUE)")
        return stream_prompts(self.model, name, task, prompts, **options)

    def predict(self, samples: Sequence[Mapping[str, Any]], **how: Any) -> list[dict[str, Any]]:
        """Answer samples: mappings of any of the run's inputs to raw values (a path, a file's bytes, an array, a text).

        Gives one mapping per sample: every task's answer (a class with probabilities, numbers, a text), or
        `error` for a sample that cannot be read. `how` texts are written: see `inference.predict.predict`.
        """
        self.check_heads()
        return predict(self.model, self.tasks, self.given(samples), **how)

    def given(self, samples: Sequence[Mapping[str, Any]], asked: bool = True) -> SampleSplit:
        """Samples given by hand, as a split: as they are `asked` about (a `[MASK]` to fill in), or as they
        are trained on. Raises RunError for an input that the run does not have."""
        return given_split(self, samples, asked)

    def evaluate(
        self, split: str = "val", dataset: Dataset | None = None, rows: int = 64, search: Search | None = None
    ) -> dict[str, float]:
        """Read a whole split, of the run's own data or of another dataset; gives its metrics, named `split/metric`.

        A classification also leaves its confusion matrix as a picture in the run's folder. Texts are searched
        for as their task says, or as `search` does."""
        self.check_heads()
        asked = self.searching(**vars(search)) if search else self
        data = own_split(asked, split, dataset)
        with self.arithmetic():
            metrics = evaluate_split(self.model, asked.tasks, data, rows=rows, pictures=pictures_of(self.folder))
        for line in data.unread.told():
            say_aside(line)
        return metrics

    def attribution(self, split: str = "val", dataset: Dataset | None = None) -> dict[str, Attribution]:
        """What each input is worth to each task: every subset of the inputs evaluated on a split, of the
        run's own data or of another dataset."""
        data = own_split(self, split, dataset)
        if data.samples is None:
            raise RunError(f"{self.folder} reads one text: there are no inputs to compare")
        with self.arithmetic():
            return measure_attribution(self.model, self.tasks, data)


def load_run(
    folder: str | Path, checkpoint: str = "best", device: str = "auto", trust: Collection[str] = ()
) -> Run:  # fmt: skip
    """Load a trained run by its folder; see `Run.open`."""
    return Run.open(Path(folder), checkpoint=checkpoint, device=device, trust=trust)


def pictures_of(folder: Path) -> Path | None:
    """The run's folder, where pictures can be put into it: not where something else than a file has the place of
    one, such as a link in a stranger's run, which leads elsewhere."""
    odd = [file for file in folder.glob("confusion-*.png") if file.is_symlink() or not file.is_file()]
    return folder if os.access(folder, os.W_OK) and not odd else None
