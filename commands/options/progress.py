"""A progress bar on standard error, where that is a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from ...files.printing import plain_console

Each = TypeVar("Each")


def progress(steps: Iterable[Each], total: int, what: str, counted: bool = False) -> Iterator[Each]:
    """The steps as they come, of `total` `what`; with `counted` each is the number of those that are done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=plain_console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        for number, step in enumerate(steps, start=1):
            bar.update(task, completed=step if counted else number)
            yield step
