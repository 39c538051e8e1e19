"""Base class of the judges that score generated items with a trained run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from ..files.reading import DataError, read_text, shown
from ..files.writing import write_bytes
from ..tokenizers.base import RunPart
from ..tokenizers.encoding.base import Vocabulary
from .judging import Figure, Generated, Judge, TrainingItems, is_known

TRIED = 8
"""The number of training items with which the run is tried before the first step. The run must answer at least one of
them."""

READ = 10_000
"""The maximum number of values of the compared column that are checked for whether the run can answer them."""


class RunJudge(Judge):
    """Lets the trained run in the folder `run` answer for generated items, and compares these answers with the data
    column `column`. The judge computes its figure also for the true items (`_real`), and, if items are generated as
    ids, for the true items after encoding and decoding (`_decoded`); a generator can hardly be better than this.
    Samples without a value in the column are skipped. `_unlabelled` is the number of skipped samples; it is omitted if
    it is 0.

    `input` is the input of the run that receives the items, and `task` the task of the run that answers. Both can be
    omitted if the run has only one input or task. The weights of the run are copied to the assets of the trained model.
    A subclass defines `figure`, `answer` and `value`.
    """

    figure: ClassVar[Figure]
    answer: ClassVar[str]
    """The key of the compared value in the run's answer, such as `class`."""

    def __init__(self, *, run: str, column: str = "label", input: str | None = None, task: str | None = None):
        self.run, self.column, self.input, self.task = run, column, input, task
        self.part: RunPart | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def figures(self) -> Mapping[str, Figure]:
        return dict.fromkeys(("", "_real", "_decoded"), self.figure) | {"_unlabelled": Figure("samples", None)}

    def value(self, answers: Sequence[str | None], expected: Sequence[str]) -> float:
        """Returns the figure of the run's `answers`, compared with the `expected` ones. An answer is None if the
        generated item is incomplete or the run has no answer."""
        raise NotImplementedError

    def fit(self, open_run: Callable[[str | Path], RunPart], data: TrainingItems) -> None:
        self.use(open_run(self.run))
        self.check_answers(data.column(self.column))
        rate, run_rate = getattr(data.vocabulary, "rate", None), getattr(self.part.choppers[self.input], "rate", None)
        if rate and run_rate and rate != run_rate:
            rates = f"has {run_rate:,} Hz, but generated sounds have {rate:,} Hz"
            raise ValueError(f"{self.part.name}: input {self.input!r} {rates}; train a judge with this rate")
        true = [*islice(data.items(), TRIED)]
        problem = f"{self.part.name} cannot score generated items, because it fails for true items"
        try:
            answers = self.answers(true)
        except (ValueError, OSError) as error:
            raise ValueError(f"{problem}: {error}") from error
        if true and not any(answers):
            raise ValueError(f"{problem}: task {self.task!r} returns no {self.answer} for any of them")

    def check_answers(self, column: Iterable[Any]) -> None:
        """Raises ValueError if one of the first READ values of a data column is not a possible answer of the run."""
        for label in dict.fromkeys(map(str, islice(filter(is_known, column), READ))):
            try:
                self.part.check_answer(self.task, label)
            except ValueError as error:
                problem = f"{self.part.name} cannot answer {shown(label)}, a value of column {self.column!r}"
                raise ValueError(f"{problem}: {error}") from error

    def save(self, folder: Path) -> None:
        self.part.write(folder / "run")
        write_bytes(folder / "content.txt", self.part.content.encode())

    def load(self, folder: Path, open_run: Callable[[str | Path], RunPart]) -> None:
        if not (folder / "run").exists():
            raise DataError(f"{folder / 'run'}, the run of a judge, is missing; copy complete run folders")
        self.use(open_run(folder / "run"))
        content = folder / "content.txt"
        if content.exists() and read_text(content) != self.part.content:
            raise DataError(
                f"{folder / 'run'} has other weights than when this judge was saved; restore the original folder"
            )

    def use(self, part: RunPart) -> None:
        """Sets `part` as the run that answers for generated items. Raises ValueError if the run does not have the
        configured input, or if no input is configured and the run does not have exactly one; the same applies to the
        task."""
        for kind, name, possible in ("input", self.input, part.choppers), ("task", self.task, part.tasks):
            if (name not in possible) if name else len(possible) != 1:
                problem = f"has no {kind} {name!r}" if name else f"has {len(possible)} {kind}s: set `{kind}`"
                raise ValueError(f"{part.name} {problem}; possible: {', '.join(possible)}")
        self.part, self.input = part, self.input or next(iter(part.choppers))
        self.task = self.task or next(iter(part.tasks))

    def judge(self, generated: Sequence[Generated], vocabulary: Vocabulary | None) -> dict[str, float]:
        labelled = [sample for sample in generated if is_known(sample.labels[self.column])]
        if not labelled:
            problem = f"none of the {len(generated)} samples has a value in column {self.column!r}"
            raise DataError(f"{problem}, so generated items have no label to be compared with")
        expected = [str(sample.labels[self.column]) for sample in labelled]
        true = [sample.true for sample in labelled]
        groups = {"": [sample.item for sample in labelled], "_real": true}
        if vocabulary is not None:
            groups["_decoded"] = [vocabulary.restore(vocabulary.encode(item)) for item in true]
        figures = {name: self.value(self.answers(items), expected) for name, items in groups.items()}
        skipped = len(generated) - len(labelled)
        return figures | ({"_unlabelled": float(skipped)} if skipped else {}) | self.spread(labelled, expected)

    def counts(self, figures: Mapping[str, float], items: int) -> dict[str, int]:
        labelled = items - int(figures.get("_unlabelled", 0))
        return dict.fromkeys({*figures} - {"_unlabelled"}, labelled)

    def spread(self, generated: Sequence[Generated], expected: Sequence[str]) -> dict[str, float]:
        """Returns further figures, by suffix, of the samples `generated`, whose expected answers are `expected`. The
        default returns none."""
        return {}

    def answers(self, items: Sequence[Any]) -> list[str | None]:
        """Returns the run's answer for each item. An answer is None if the item is incomplete (None) or the run has no
        answer for it. Raises ValueError if the run's task returns answers without the key `answer`."""
        complete = [item for item in items if item is not None]
        predictions = iter(self.part.predict([{self.input: item} for item in complete]))
        answers = [None if item is None else next(predictions).get(self.task, {}) for item in items]
        if other := [answer for answer in answers if answer and self.answer not in answer]:
            keys = ", ".join(other[0])
            raise ValueError(f"{self.part.name}: task {self.task!r} returns no {self.answer}, but {keys}")
        return [str(answer[self.answer]) if answer else None for answer in answers]
