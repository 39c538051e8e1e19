"""`metrics.jsonl`, and the same curves for TensorBoard.

    {"step": 250, "seconds": 14.021, "train/loss": 2.1, "train/learning_rate": 0.001, ...}
    {"step": 250, "seconds": 14.021, "val/loss": 2.05, ...}

`seconds` is the time of training so far (see `Log`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import StrictFloat, StrictInt, TypeAdapter, ValidationError

from ...inference.sheet import PICTURES, SOUNDS, Cell, Samples, page
from ...tokenizers.files.reading import DataError, read_lines
from ...tokenizers.files.records import parse_json
from ...tokenizers.files.writing import not_written, write_text
from ...tokenizers.media.files import read_picture, read_sound


class MetricsFile:
    """Writer of `metrics.jsonl` and of the same curves for TensorBoard (`RUN/tensorboard`), to be used in `with`.

    The lines of the current step are kept in memory (`here`) and saved in its checkpoint, so that after a kill the file
    is cut back to what the checkpoint knows, and every step stands in it once.
    """

    def __init__(
        self, folder: Path, *, step: int, lines: Sequence[Mapping[str, float]], tensorboard: bool, writes: bool = True,
        check: Callable[[], None] = lambda: None,
    ):  # fmt: skip
        """`step` is the run's present step, `lines` those of that step in its checkpoint. The file is cut back to them.
        Where not `writes` (all processes but the first), no file is opened. `check` is called before anything is
        written: it raises OSError where the folder is another one now. Raises DataError for a file of metrics that
        cannot be read."""
        self.path, self.file, self.board, self.check = folder / "metrics.jsonl", None, None, check
        self.step, self.here = step, [dict(line) for line in lines]
        self.start, self.wants_board = step, tensorboard
        if writes:
            known = read_metrics(self.path, strict=False) if self.path.exists() else []
            kept = [line for line in known if line["step"] < step]  # what a killed run wrote later is dropped
            check()
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in [*kept, *self.here]), within=folder)
            self.file = open(self.path, "a")

    def _open_board(self) -> None:
        """Open TensorBoard's writer; only at the first metrics, since its import takes a second."""
        from torch.utils.tensorboard.writer import SummaryWriter

        self.board = SummaryWriter(self.path.parent / "tensorboard", purge_step=self.start + 1 if self.start else None)

    def write(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Append one line: `{"step": step, "seconds": seconds, **metrics}`; add the metrics to TensorBoard. Raises
        OSError naming the file where that fails."""
        if step != self.step:
            self.step, self.here = step, []
        self.here.append({"step": step, "seconds": round(seconds, 3), **metrics})
        if not self.file:
            return
        self.check()
        try:
            self.file.write(json.dumps(self.here[-1]) + "\n")
            self.file.flush()
        except OSError as error:
            raise not_written(self.path, error) from error
        if self.wants_board and not self.board:
            self._open_board()
        for name, value in metrics.items() if self.board else ():
            self.board.add_scalar(name, value, step)

    def lines_of(self, step: int) -> list[dict[str, float]]:
        """The lines of a step for its checkpoint; none unless it is the current one."""
        return self.here if self.step == step else []

    def samples(self, step: int, samples: Samples) -> None:
        """Keep generated samples: as a page in `RUN/sheets` where they are more than text, and in TensorBoard."""
        if samples.rows and self.file:
            self.check()
            folder = self.path.parent
            write_text(folder / "sheets" / f"step-{step:08}.html", page(f"{folder.name}, step {step:,}", samples.rows),
                       within=folder)  # fmt: skip
        if not self.board:
            return
        if samples.text:
            self.board.add_text("sample", f"```\n{samples.text}\n```", step)
        add_rows(self.board, samples.rows, step)

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *exception) -> None:
        if self.file:
            with suppress(OSError):  # on a full disk what could not be written fails a second time
                self.file.close()
        if self.board:
            self.board.close()


def write_board(folder: Path, rows: Sequence[Sequence[Cell]], step: int) -> None:
    """Write pictures and sounds for TensorBoard into a folder of their own."""
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(folder) as board:
        add_rows(board, rows, step)


def add_rows(board: Any, rows: Sequence[Sequence[Cell]], step: int) -> None:
    """Add the pictures and sounds of a sheet's rows to TensorBoard's writer."""
    for number, row in enumerate(rows, start=1):
        for cell in row:
            name = f"{cell.caption}/{number}"
            if cell.ending in PICTURES:
                board.add_image(name, np.asarray(read_picture(cell.content).convert("RGB")), step, dataformats="HWC")
            elif cell.ending in SOUNDS:
                sound, rate = read_sound(cell.content)
                board.add_audio(name, sound[None].clip(-1, 1), step, sample_rate=rate)


Line = TypeAdapter(dict[str, StrictInt | StrictFloat])


def read_metrics(file: Path, strict: bool = True) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl`, in order. A line that is no mapping of names to numbers, or has no step, raises
    DataError; without `strict` it is skipped."""
    found = []
    for number, line in enumerate(read_lines(file), start=1):
        try:
            value = Line.validate_python(parse_json(line, f"{file}, line {number}"))
            if not isinstance(value.get("step"), int):
                raise DataError(f"{file}, line {number}: it names no step")
            found.append(value)
        except (DataError, ValidationError) as error:
            if strict:
                told = str(error) if isinstance(error, DataError) else f"{file}, line {number}: no numbers by name"
                raise DataError(told) from None
    return found
