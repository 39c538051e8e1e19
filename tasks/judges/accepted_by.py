"""Another run as the judge of what is generated: does its classifier see what was asked for?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...tokenizers.base import RunPart
from ...tokenizers.files.reading import DataError
from ...tokenizers.vocabulary import Vocabulary
from ..judging import Figure, Generated, Judge


class AcceptedBy(Judge):
    """The share of generated items that the classifier of the trained run in the folder `run` puts into the class that
    the sample has in the data column `column`. Beside it the same classifier on the true items (`_real`), and on these
    encoded to ids and decoded again (`_decoded`): no generator should be expected to do better.

    `input` is the run's input that gets the items (by default its only one), `task` the task that classifies (by
    default its only one). The run's weights are copied to this run's assets.
    """

    def __init__(self, *, run: str, column: str = "label", input: str | None = None, task: str | None = None):
        self.run, self.column, self.input, self.task = run, column, input, task
        self.part: RunPart | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def figures(self) -> Mapping[str, Figure]:
        share = Figure("share of items", larger_is_better=True)
        return {"": share, "_real": share, "_decoded": share}

    def fit(self, open_run: Callable[[str | Path], RunPart], items: Callable[[], Iterable[Any]]) -> None:
        self.take(open_run(self.run))

    def save(self, folder: Path) -> None:
        self.part.write(folder / "run")

    def load(self, folder: Path, open_run: Callable[[str | Path], RunPart]) -> None:
        if not (folder / "run").exists():
            raise DataError(f"{folder / 'run'} is missing: the run that judges stands there; copy whole runs")
        self.take(open_run(folder / "run"))

    def take(self, part: RunPart) -> None:
        """Use this run. Raises ValueError where it has no such input or task."""
        for what, name, there in ("input", self.input, part.choppers), ("task", self.task, part.tasks):
            if (name not in there) if name else len(there) != 1:
                asked = f"has no {what} {name!r}" if name else f"has several of them: say which {what} judges"
                raise ValueError(f"{part.name} {asked}; possible: {', '.join(there)}")
        self.part, self.input = part, self.input or next(iter(part.choppers))
        self.task = self.task or next(iter(part.tasks))

    def judge(self, generated: Sequence[Generated], vocabulary: Vocabulary) -> dict[str, float]:
        wanted = [str(each.labels[self.column]) for each in generated]
        true = [each.true for each in generated]
        decoded = [vocabulary.restore(vocabulary.encode(item)) for item in true]
        groups = {"": [each.item for each in generated], "_real": true, "_decoded": decoded}
        return {name: self.share(items, wanted) for name, items in groups.items()}

    def share(self, items: Sequence[Any], wanted: Sequence[str]) -> float:
        """The share of items that the run puts into the wanted classes; what is no whole item (None) is in none."""
        whole = [item for item in items if item is not None]
        said = iter(self.part.predict([{self.input: item} for item in whole]))
        answers = [{} if item is None else next(said).get(self.task, {}) for item in items]
        if known := [answer for answer in answers if answer and "class" not in answer]:
            raise ValueError(f"{self.part.name}: task {self.task!r} gives no class, but {', '.join(known[0])}")
        right = sum(str(answer.get("class")) == name for answer, name in zip(answers, wanted, strict=True))
        return right / max(len(items), 1)
