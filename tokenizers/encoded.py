"""Any input through a trained run: the frozen outputs of the run's first core become this model's tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..files.reading import DataError
from ..models.batch import Chunks, SetPlan
from ..models.frozen import Frozen
from ..models.layers.linear import Linear
from .base import Chopper, Chunk, Preprocessor, Role, RunPart, axes_of
from .chopping.packing import place


@dataclass(frozen=True, kw_only=True)
class EncodedPreprocessor(Preprocessor):
    """Chop and embed values as the input `input` of the trained run in the folder `run` does. That run's weights are
    copied to this run's assets, and never change."""

    run: str
    input: str

    def fit(self, items: Callable[[], Iterable], role: Role) -> EncodedChopper:
        return self.chopper(role.open_run(self.run))

    def load(self, folder: Path, role: Role) -> EncodedChopper:
        if not (folder / "run").exists():
            raise DataError(f"{folder / 'run'} is missing: the run that this one took in stands there; copy whole runs")
        return self.chopper(role.open_run(folder / "run"))

    def chopper(self, part: RunPart) -> EncodedChopper:
        """The chopper that holds the run. Raises ValueError where the run has no such input."""
        if self.input not in part.choppers:
            raise ValueError(f"{part.name} has no input {self.input!r}; possible: {', '.join(part.choppers)}")
        return EncodedChopper(part=part, input=self.input)


@dataclass(frozen=True, kw_only=True)
class EncodedChopper(Chopper):
    """Chops as the run does: as many tokens in the same order, but without coordinates.

        chop    Chunk(values (t, 1): zeros, count t, inner: the chunk of the run's chopper)
        inner   the items of a batch as a set of the run, one a row, each behind the run's class and register tokens

    `chop` raises ValueError for an item that is longer than the run's context.
    """

    part: RunPart
    input: str

    @property
    def theirs(self) -> Chopper:
        """The run's chopper of this input."""
        return self.part.choppers[self.input]

    @property
    def kind(self) -> str:
        return self.theirs.kind

    @property
    def fingerprint(self) -> str:
        return f"{self.part.content} {self.input}"

    def save(self, folder: Path) -> None:
        self.part.write(folder / "run")

    def decode(self, raw: Any) -> Any:
        return self.theirs.decode(raw)

    def augment(self, item: Any, random: np.random.Generator) -> Any:
        return self.theirs.augment(item, random)

    def count(self, item: Any) -> int:
        return self.theirs.count(item)

    def chop(self, item: Any) -> Chunk:
        own, room = self.theirs.chop(item), self.part.context - self.part.core_tokens
        if own.count > room:
            raise ValueError(f"it has {own.count} tokens, more than the context of {self.part.name} ({room})")
        return Chunk(torch.zeros(own.count, 1), own.count, inner=own)

    def draw(self, canvas: Any, item: Any) -> None:
        self.theirs.draw(canvas, item)

    def inner(self, chunks: Sequence[Chunk]) -> SetPlan:
        own = [[(self.input, replace(chunk.inner, seed=chunk.seed))] for chunk in chunks]
        part, choppers = self.part, self.part.choppers
        return place(own, choppers, part.context, axes_of(choppers.values()), rows=range(len(own)), trim=True,
                     core=part.core_tokens)  # fmt: skip


class EncodedTokenizer(nn.Module):
    """What a trained run makes of an input, one vector per token, through a linear map to this model's width, which
    alone is trained (a projector: LLaVA, Liu et al. 2023, arXiv:2304.08485)."""

    Chopper = EncodedPreprocessor

    def __init__(self, chopper: EncodedChopper, width: int, context: int):
        super().__init__()
        self.input, self.part = chopper.input, Frozen(chopper.part.model)
        self.projector = Linear(self.part.model.first.width, width)

    def plan(self, chunks: Chunks, *, dtype: torch.dtype, device: torch.device | str) -> Chunks:
        """The chunks with the layouts of their inner set, for a forward pass in `dtype` on `device`; on the CPU, before
        anything is moved or compiled code runs."""
        return replace(chunks, inner=self.part.plan(chunks.inner, dtype=dtype, device=device))

    def forward(self, chunks: Chunks) -> Float[Tensor, "t d"]:
        slots = chunks.inner.chunks[self.input].slots
        return self.projector(self.part(chunks.inner).flatten(0, 1)[slots])
