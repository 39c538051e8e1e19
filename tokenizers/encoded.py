"""An input that is encoded by a frozen trained run: the outputs of the first core of that run are mapped to tokens."""

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
from .base import Chopper, Chunk, Example, Preprocessor, Role, RunPart, axes_of
from .chopping.packing import place


@dataclass(frozen=True, kw_only=True)
class EncodedPreprocessor(Preprocessor):
    """Encodes an input with a trained run: `run` is the folder of the run, `input` the name of its input whose chopper
    is used. The weights of the trained run are frozen, and copied to the folder `assets` of the new run."""

    run: str
    input: str

    def fit(self, items: Callable[[], Iterable], role: Role) -> EncodedChopper:
        return self.chopper(role.open_run(self.run))

    def load(self, folder: Path, role: Role) -> EncodedChopper:
        if not (folder / "run").exists():
            raise DataError(f"{folder / 'run'} is missing: this run needs it; copy runs with their subfolders")
        return self.chopper(role.open_run(folder / "run"))

    def chopper(self, part: RunPart) -> EncodedChopper:
        """Returns the chopper that uses the run `part`. Raises ValueError if that run has no input named
        `self.input`."""
        if self.input not in part.choppers:
            raise ValueError(f"{part.name} has no input {self.input!r}; possible: {', '.join(part.choppers)}")
        return EncodedChopper(part=part, input=self.input)


@dataclass(frozen=True, kw_only=True)
class EncodedChopper(Chopper):
    """Cuts items into the same tokens as the chopper of the trained run, in the same order, but without coordinates.

        chop    Chunk(values (t, 1): zeros, count t, inner: the chunk of the trained run's chopper)
        inner   the items of a batch as a set for the trained run: one item per row, after class and register tokens

    `chop` raises ValueError if an item and the core tokens need more tokens than the context of the trained run.
    """

    part: RunPart
    input: str

    @property
    def run_chopper(self) -> Chopper:
        """The chopper of the input `input` in the trained run."""
        return self.part.choppers[self.input]

    @property
    def kind(self) -> str:
        return self.run_chopper.kind

    @property
    def fingerprint(self) -> str:
        return f"{self.part.content} {self.input}"

    def save(self, folder: Path) -> None:
        self.part.write(folder / "run")

    def decode(self, raw: Any) -> Any:
        return self.run_chopper.decode(raw)

    def augment(self, item: Any, random: np.random.Generator) -> Any:
        return self.run_chopper.augment(item, random)

    def count(self, item: Any) -> int:
        return self.run_chopper.count(item)

    def chop(self, item: Any) -> Chunk:
        inner, limit = self.run_chopper.chop(item), self.part.context - self.part.core_tokens
        if inner.count > limit:
            raise ValueError(f"the item has {inner.count} tokens, more than the context of {self.part.name} ({limit})")
        return Chunk(torch.zeros(inner.count, 1), inner.count, inner=inner)

    def draw(self, canvas: Any, item: Any) -> None:
        self.run_chopper.draw(canvas, item)

    def inner(self, chunks: Sequence[Chunk]) -> SetPlan:
        samples = [[(self.input, replace(chunk.inner, seed=chunk.seed))] for chunk in chunks]
        part, choppers = self.part, self.part.choppers
        return place(samples, choppers, part.context, axes_of(choppers.values()), rows=range(len(samples)), trim=True,
                     core=part.core_tokens)  # fmt: skip


class EncodedTokenizer(nn.Module):
    """Maps the outputs of a frozen trained run, one vector per token, to the width of the new model with a linear
    layer. Only this layer is trained (a projector, as in LLaVA: Liu et al. 2023, arXiv:2304.08485)."""

    Chopper = EncodedPreprocessor

    def __init__(self, chopper: EncodedChopper, width: int, context: int):
        super().__init__()
        self.input, self.part = chopper.input, Frozen(chopper.part.model)
        self.projector = Linear(self.part.model.first.width, width)

    def plan(self, chunks: Chunks, *, dtype: torch.dtype, device: torch.device | str) -> Chunks:
        """Returns the chunks; their inner set now contains the attention layouts for a forward pass in `dtype` on
        `device`. Called on the CPU, before tensors are moved and outside of compiled code."""
        return replace(chunks, inner=self.part.plan(chunks.inner, dtype=dtype, device=device))

    def forward(self, chunks: Chunks) -> Float[Tensor, "t d"]:
        slots = chunks.inner.chunks[self.input].slots
        return self.projector(self.part(chunks.inner).flatten(0, 1)[slots])


EXAMPLE = Example(
    options={"input": "image"},
    items=lambda: [
        np.arange(64, dtype=np.uint8).reshape(8, 8, 1),
        255 - np.arange(64, dtype=np.uint8).reshape(8, 8, 1),
    ],
    run={
        "inputs": {"image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8}},
        "tasks": {"kind": {"use": "classification", "target": "label"}},
    },
)
