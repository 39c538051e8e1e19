"""Curves, texts, pictures and sounds for TensorBoard, in `RUN/tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...inference.pages import PICTURES, SOUNDS, Cell, Samples
from ...tokenizers.media.files import read_picture, read_sound
from ..logger import Logger


class TensorBoard(Logger):
    """Writes event files to `RUN/tensorboard`. Start `tensorboard --logdir RUN` to see them."""

    board: Any = None

    def open(self, folder: Path, step: int, config: Mapping[str, Any]) -> None:
        self.folder, self.step = folder / "tensorboard", step

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.board is None:  # imported on first use, because the import takes a second
            from torch.utils.tensorboard.writer import SummaryWriter

            self.board = SummaryWriter(self.folder, purge_step=self.step + 1 if self.step else None)
        for name, value in metrics.items():
            self.board.add_scalar(name, value, step)

    def on_samples(self, step: int, samples: Samples) -> None:
        if self.board is None:
            return
        if samples.text:
            self.board.add_text("sample", f"```\n{samples.text}\n```", step)
        if samples.rows:
            add_rows(self.board, samples.rows, step)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def write_board(folder: Path, rows: Sequence[Sequence[Cell]], step: int) -> None:
    """Writes the pictures and sounds of the rows of a sheet to event files in `folder`, for this step."""
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(folder) as board:
        add_rows(board, rows, step)


def add_rows(board: Any, rows: Sequence[Sequence[Cell]], step: int) -> None:
    """Adds the pictures and sounds in `rows` to `board`, a `SummaryWriter`. Each name is the caption and the row
    number."""
    for number, row in enumerate(rows, start=1):
        for cell in row:
            name = f"{cell.caption}/{number}"
            if cell.ending in PICTURES:
                board.add_image(name, np.asarray(read_picture(cell.content).convert("RGB")), step, dataformats="HWC")
            elif cell.ending in SOUNDS:
                sound, rate = read_sound(cell.content)
                board.add_audio(name, sound[None].clip(-1, 1), step, sample_rate=rate)
