"""Base of the judges that are trained runs."""

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
"""How many training items a run must be able to judge before the first step; not each of them."""

READ = 10_000
"""How many labels must be among the answers that it can give."""


class RunJudge(Judge):
    """Compares the answers of the trained run in the folder `run` to generated items with the data column `column`.
    Next to it the same figure of the true items (`_real`), and of these encoded to ids and decoded again (`_decoded`):
    no generator should be expected to do better. Samples without a value in the column are skipped; `_unlabelled` is
    how many, where there are any.

    `input` is the run's input that gets the items (by default its only one), `task` the task that answers (by default
    its only one). The run's weights are copied to this run's assets. A subclass gives `figure`, `answer` and `value`.
    """

    figure: ClassVar[Figure]
    answer: ClassVar[str]
    """The key of the answer that is compared, such as `class`."""

    def __init__(self, *, run: str, column: str = "label", input: str | None = None, task: str | None = None):
        self.run, self.column, self.input, self.task = run, column, input, task
        self.part: RunPart | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def figures(self) -> Mapping[str, Figure]:
        return dict.fromkeys(("", "_real", "_decoded"), self.figure) | {"_unlabelled": Figure("samples", None)}

    def value(self, said: Sequence[str | None], wanted: Sequence[str]) -> float:
        """The figure of what the run says of each item (None: it is no whole one), beside what was wanted."""
        raise NotImplementedError

    def fit(self, open_run: Callable[[str | Path], RunPart], data: TrainingItems) -> None:
        self.take(open_run(self.run))
        self.check_answers(data.column(self.column))
        rate, heard = data.vocabulary.rate, getattr(self.part.choppers[self.input], "rate", None)
        if rate and heard and rate != heard:
            told = f"{self.part.name} hears {self.input!r} at {heard:,} Hz"
            raise ValueError(f"{told}, and what is generated has {rate:,} Hz; train a judge of this rate")
        true, told = (
            [*islice(data.items(), TRIED)],
            f"{self.part.name} cannot judge what is generated, not even true items",
        )
        try:
            said = self.said(true)
        except (ValueError, OSError) as error:
            raise ValueError(f"{told}: {error}") from error
        if true and not any(said):
            raise ValueError(f"{told}: task {self.task!r} gives no {self.answer} of them")

    def check_answers(self, column: Iterable[Any]) -> None:
        """Raises ValueError where the run can never say what a data column holds."""
        for wanted in dict.fromkeys(map(str, islice(filter(is_known, column), READ))):
            try:
                self.part.check_answer(self.task, wanted)
            except ValueError as error:
                told = f"{self.part.name} can never answer {shown(wanted)}, which column {self.column!r} holds"
                raise ValueError(f"{told}: {error}") from error

    def save(self, folder: Path) -> None:
        self.part.write(folder / "run")
        write_bytes(folder / "content.txt", self.part.content.encode())

    def load(self, folder: Path, open_run: Callable[[str | Path], RunPart]) -> None:
        if not (folder / "run").exists():
            raise DataError(f"{folder / 'run'} is missing: the run that judges stands there; copy whole runs")
        self.take(open_run(folder / "run"))
        known = folder / "content.txt"
        if known.exists() and read_text(known) != self.part.content:
            raise DataError(f"{folder / 'run'} is another run than the one that judged before; put that one back")

    def take(self, part: RunPart) -> None:
        """Use this run. Raises ValueError where it has no such input or task."""
        for what, name, there in ("input", self.input, part.choppers), ("task", self.task, part.tasks):
            if (name not in there) if name else len(there) != 1:
                asked = f"has no {what} {name!r}" if name else f"has several of them: say which {what} judges"
                raise ValueError(f"{part.name} {asked}; possible: {', '.join(there)}")
        self.part, self.input = part, self.input or next(iter(part.choppers))
        self.task = self.task or next(iter(part.tasks))

    def judge(self, generated: Sequence[Generated], vocabulary: Vocabulary) -> dict[str, float]:
        known = [each for each in generated if is_known(each.labels[self.column])]
        if not known:
            told = f"none of the {len(generated)} samples has a value in column {self.column!r}"
            raise DataError(f"{told}, so that there is nothing to compare what is generated with")
        wanted = [str(each.labels[self.column]) for each in known]
        true = [each.true for each in known]
        decoded = [vocabulary.restore(vocabulary.encode(item)) for item in true]
        groups = {"": [each.item for each in known], "_real": true, "_decoded": decoded}
        found = {name: self.value(self.said(items), wanted) for name, items in groups.items()}
        skipped = len(generated) - len(known)
        return found | ({"_unlabelled": float(skipped)} if skipped else {}) | self.spread(known, wanted)

    def counts(self, figures: Mapping[str, float], items: int) -> dict[str, int]:
        labelled = items - int(figures.get("_unlabelled", 0))
        return dict.fromkeys({*figures} - {"_unlabelled"}, labelled)

    def spread(self, generated: Sequence[Generated], wanted: Sequence[str]) -> dict[str, float]:
        """Further figures of generated items, and of the true ones, by what was wanted of each."""
        return {}

    def said(self, items: Sequence[Any]) -> list[str | None]:
        """What the run says of each item; None of one that is not whole. Raises ValueError where its task gives another
        kind of answer."""
        whole = [item for item in items if item is not None]
        found = iter(self.part.predict([{self.input: item} for item in whole]))
        answers = [None if item is None else next(found).get(self.task, {}) for item in items]
        if other := [answer for answer in answers if answer and self.answer not in answer]:
            raise ValueError(f"{self.part.name}: task {self.task!r} gives no {self.answer}, but {', '.join(other[0])}")
        return [str(answer[self.answer]) if answer else None for answer in answers]
