"""A progress bar on standard error. It is shown only on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from ...files.printing import plain_console

Step = TypeVar("Step")


def progress(steps: Iterable[Step], total: int, what: str, counted: bool = False) -> Iterator[Step]:
    """Yields the steps and shows a progress bar up to `total` with the label `what`. If `counted`, each step is a
    number: how many units are completed. Otherwise the progress is the number of steps."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=plain_console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        for number, step in enumerate(steps, start=1):
            bar.update(task, completed=step if counted else number)
            yield step
