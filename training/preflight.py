"""What a trainer proves before its first step: that the best can be told, that samples can be written, that nothing leaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..data.batches import make_batch
from ..data.corpus import StreamSplit
from ..data.sample_split import SampleSplit
from ..experiment.build import columns_of, encoded_inputs
from ..experiment.folder.reading import RunError
from ..inference.evaluation import directions

if TYPE_CHECKING:
    from .loop import Trainer


def prove(trainer: Trainer) -> None:
    """Everything below. Raises RunError for the first thing that does not hold."""
    check_best(trainer)
    check_prompt(trainer)
    check_attribution(trainer)
    prove_no_leak(trainer)


def check_best(trainer: Trainer) -> None:
    """Raises RunError when `checkpoints.best` is no metric of the validation split."""
    names = [f"val/{name}/" if len(trainer.tasks) > 1 else "val/" for name in trainer.tasks]
    possible = list(directions(trainer.tasks, "val"))
    if not trainer.config.evaluation.generated:  # no text is written, so none is judged
        judged = {
            prefix + metric for prefix, t in zip(names, trainer.tasks.values()) if t.generates for metric in t.judge
        }
        possible = [metric for metric in possible if metric not in judged]
    if trainer.config.checkpoints.best not in possible:
        raise RunError(f"checkpoints.best is {trainer.config.checkpoints.best!r}; possible: {', '.join(possible)}")


def told_of_inputs(trainer: Trainer) -> list[str]:
    """What is not to be seen from a configuration alone: how often inputs are really withheld, and which inputs read the very
    column that a task predicts."""
    lines, split = [], trainer.splits["train"]
    if isinstance(split, SampleSplit) and (withheld := split.mixing.withheld):
        chances = ", ".join(f"{split.mixing.dropout[name]:g}" for name in withheld)
        told = ", ".join(f"{name} from {share:.1%}" for name, share in withheld.items())
        lines.append(
            f"withheld of the samples while training: {told} (input_dropout {chances}, before one of a sample's inputs is kept)"
        )
    columns = columns_of(trainer.config)
    for name, task in trainer.tasks.items():
        answers = task.columns() or [columns[each] for each in task.inputs() if each not in task.makes()]
        encoded = encoded_inputs(trainer.config)
        hidden = (
            {*columns} - {*encoded} if encoded and not task.generates else set()
        )  # what a decoder writes, no encoder reads
        for reader in [each for each, column in columns.items() if column in answers and each not in hidden]:
            how = task.hides if reader in task.inputs() else "reconstructed"
            lines.append(f"tasks.{name}: the answer stands in column {columns[reader]!r}, which {reader} reads: {how}")
    return lines


def check_prompt(trainer: Trainer) -> None:
    """Raises RunError when the prompt of the text samples cannot be encoded."""
    for task in trainer.tasks.values():
        if task.generates and trainer.config.evaluation.prompt:
            try:
                trainer.choppers[task.target].text.encode(trainer.config.evaluation.prompt)
            except ValueError as error:
                raise RunError(f"evaluation.prompt: {error}") from None


def check_attribution(trainer: Trainer) -> None:
    """Raises RunError when there is no input whose worth could be told, though that is asked for."""
    split = trainer.splits["val"]
    if trainer.config.evaluation.attribution and (
        isinstance(split, StreamSplit) or not set(split.choppers) - set(split.mixing.targets)
    ):
        raise RunError(
            "evaluation.attribution: there is no input that could be withheld: every one is predicted, or needed by a task"
        )


def prove_no_leak(trainer: Trainer) -> None:
    """Raises LeakError when a target of the first batch can reach its own predictor; every later batch is checked when it is
    planned (`Model.plan`)."""
    places = trainer.splits["train"].plan(trainer.settings.seed, 0, trainer.rows)
    graphs = {name: core.graphs for name, core in trainer.model.cores.items()}
    trainer.model.leak_check.check(make_batch(trainer.splits["train"], places, trainer.tasks), graphs)
