"""Progress lines on standard error, which are shown only by commands, and only if it is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .printing import SHOWN, plain_console

if TYPE_CHECKING:
    from rich.progress import Progress


def counted(items: Iterable[Any], title: str, total: int | None = None) -> Iterator[Any]:
    """Yields the items, and shows their number. `total` is their number, if `len(items)` is not."""
    from rich.progress import MofNCompleteColumn

    with _bar(MofNCompleteColumn()) as bar:
        yield from bar.track(items, total, description=title)


@contextmanager
def counting(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a number of `total` items. Returns a context with a function that adds a number of finished items."""
    from rich.progress import MofNCompleteColumn

    with _bar(MofNCompleteColumn()) as bar:
        task = bar.add_task(title, total=total)
        yield lambda number: bar.update(task, advance=number)


@contextmanager
def counted_bytes(title: str, enabled: bool = True) -> Iterator[Callable[[int], None]]:
    """Shows a number of bytes and a speed, if `enabled`. Returns a context with a function that adds a number of
    bytes."""
    from rich.progress import DownloadColumn, TransferSpeedColumn

    with _bar(DownloadColumn(), TransferSpeedColumn(), enabled=enabled) as bar:
        task = bar.add_task(title, total=None)
        yield lambda size: bar.update(task, advance=size)


def _bar(*columns: Any, enabled: bool = True) -> Progress:
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = plain_console(stderr=True)
    title = TextColumn("{task.description}", markup=False)
    every = SpinnerColumn(), TimeRemainingColumn(), title, *columns, TimeElapsedColumn()
    return Progress(*every, console=console, transient=True, disable=not (enabled and SHOWN[0] and console.is_terminal))
