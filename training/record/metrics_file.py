"""`metrics.jsonl`, and the same curves for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import StrictFloat, StrictInt, TypeAdapter, ValidationError

from ...tokenizers.files.reading import DataError, LARGE, read_text
from ...tokenizers.files.records import parse_json
from ...tokenizers.files.writing import write_text


class MetricsFile:
    """`metrics.jsonl`, and the same curves for TensorBoard; silent in processes that do not write.

    The lines of the step that is being worked on are kept (`here`): a checkpoint holds them, so that after a kill
    the file can be made to say what the checkpoint says, each step once.
    """

    def __init__(
        self, folder: Path, *, step: int, lines: Sequence[Mapping[str, float]], tensorboard: bool, writes: bool = True
    ):
        """`step` is where the run stands, `lines` those that its checkpoint holds of that step."""
        self.path, self.file, self.board = folder / "metrics.jsonl", None, None
        self.step, self.here = step, [dict(line) for line in lines]
        if writes:
            self._restore(step)
            self.file = open(self.path, "a")
        self.start, self.wants_board = step, tensorboard

    def _open_board(self) -> None:
        """TensorBoard's writer, at the first figures: it takes a second to import, and nobody waits for it at
        the start."""
        from torch.utils.tensorboard.writer import SummaryWriter

        self.board = SummaryWriter(self.path.parent / "tensorboard", purge_step=self.start + 1 if self.start else None)

    def _restore(self, step: int) -> None:
        """What was written before this step, then the lines of this step: whatever an interrupted run wrote
        after it goes."""
        kept = (
            [line for line in read_metrics(self.path, strict=False) if line["step"] < step]
            if self.path.exists()
            else []
        )
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in [*kept, *self.here]))

    def write(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """One flat object per line."""
        if step != self.step:
            self.step, self.here = step, []
        self.here.append({"step": step, "seconds": round(seconds, 3), **metrics})
        if not self.file:
            return
        self.file.write(json.dumps(self.here[-1]) + "\n")
        self.file.flush()
        if self.wants_board and not self.board:
            self._open_board()
        for name, value in metrics.items() if self.board else ():
            self.board.add_scalar(name, value, step)

    def lines_of(self, step: int) -> list[dict[str, float]]:
        """The lines of this step, if it is the one that is being worked on."""
        return self.here if self.step == step else []

    def text(self, step: int, text: str) -> None:
        """A text sample, for TensorBoard."""
        if self.board:
            self.board.add_text("sample", f"```\n{text}\n```", step)

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *exception) -> None:
        """Close the files, whatever happened."""
        if self.file:
            self.file.close()
        if self.board:
            self.board.close()


Line = TypeAdapter(dict[str, StrictInt | StrictFloat])


def read_metrics(file: Path, strict: bool = True) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl`. Raises DataError for one that is none, or passes over it where not `strict`."""
    found = []
    for number, line in enumerate(read_text(file, LARGE).splitlines(), start=1):
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
