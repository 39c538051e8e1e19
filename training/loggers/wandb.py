"""Curves, texts, pictures and sounds for Weights & Biases (extra `wandb`).

logging: {also: {wandb: {use: wandb, project: digits}}}
logging: {also: {wandb: {use: wandb, mode: offline}}}      writes to RUN/wandb; `wandb sync` uploads it
"""

from __future__ import annotations

import hashlib
import html
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from ...inference.pages import PICTURES, SOUNDS, Samples
from ...tokenizers.media.files import read_picture, read_sound
from ..logger import Logger


def address() -> str:
    """Returns the address of the server: the environment variable `WANDB_BASE_URL`, or the public server."""
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


class Wandb(Logger):
    """Logs a run to Weights & Biases, to the `project` of the user or team `entity` (null: the default of the account),
    under the name `name` (default: the folder of the run). `mode`: `online`,
    `offline` (writes only to `RUN/wandb`) or `disabled`; default: the environment variable `WANDB_MODE`, else `online`.
    A run that is resumed continues the same run there."""

    def __init__(
        self, *, project: str = "chopmix", name: str | None = None, entity: str | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
    ):  # fmt: skip
        self.project, self.name, self.entity, self.mode = project, name, entity, mode

    def addresses(self) -> Iterable[str]:
        mode = self.mode or os.environ.get("WANDB_MODE", "online")
        return () if mode in ("offline", "disabled") else (address(),)

    def open(self, folder: Path, step: int, config: Mapping[str, Any]) -> None:
        """Starts the run. Raises ImportError if wandb is not installed."""
        import wandb

        identity = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        self.wandb = wandb
        self.board = wandb.init(
            project=self.project, name=self.name or str(folder), entity=self.entity, mode=self.mode, dir=folder,
            id=identity, resume="allow", config=dict(config),
            # without `console`, it captures what this process prints; without `base_url`, it may read one in the folder
            settings=wandb.Settings(console="off", base_url=address()),
        )  # fmt: skip

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self.board.log(dict(metrics), step=step)

    def on_samples(self, step: int, samples: Samples) -> None:
        logged: dict[str, Any] = (
            {"sample": self.wandb.Html(f"<pre>{html.escape(samples.text)}</pre>")} if samples.text else {}
        )
        for number, row in enumerate(samples.rows, start=1):
            for cell in row:
                if cell.ending in PICTURES:
                    picture = read_picture(cell.content).convert("RGB")
                    logged[f"{cell.caption}/{number}"] = self.wandb.Image(picture)
                elif cell.ending in SOUNDS:
                    sound, rate = read_sound(cell.content)
                    logged[f"{cell.caption}/{number}"] = self.wandb.Audio(sound, sample_rate=rate)
        if logged:
            self.board.log(logged, step=step)

    def close(self) -> None:
        self.board.finish()
