"""Generation: read a prompt, choose the next id, read it too, and so on. Cached or not, the answer is the same.

Past the context both ways forget: when a row is full, it is dropped to its last half and read again from there, so that
positions start over and the cached path stays equal to the uncached one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..batch import Batch, Chunks, SetPlan
from ..model import Model
from ..tokens import Tokens
from .answer import Answer
from .fast_decoder import Decoder, computing_type
from .sampling import Sampling


class Continuation:
    """Rows of ids that a model is continuing. Shorter rows are padded on the left, where nobody reads.

    `input` is the name of the text input, `task` of the head that scores; `vocabulary` cuts off padded scores.
    """

    def __init__(
        self, model: Model, rows: Sequence[Sequence[int]], *, input: str, task: str, vocabulary: int, cached: bool = True
    ):  # fmt: skip
        self.model, self.core = model, list(model.cores.values())[-1]
        self.names = input, task, list(model.cores)[-1]
        self.number = model.inputs.index(input) + 1
        self.vocabulary, self.cached = vocabulary, cached
        self.device = next(model.parameters()).device
        longest = max(len(row) for row in rows)
        self.ids = torch.full((len(rows), longest), -1)
        for place, row in zip(self.ids, rows):
            place[longest - len(row) :] = torch.tensor(row)
        self.start = max(0, longest - model.context)
        self.cache, self.decoder, self.read = None, None, 0
        self.ragged = any(len(row) < longest for row in rows)
        self.lean = cached and not self.ragged and Decoder.fits(self.core)

    def scores(self) -> Float[Tensor, "b v"]:
        """The scores of the id that comes next in each row, after reading what has not been read."""
        if self.lean and self.decoder is not None and self.read == self.ids.shape[1] - 1:
            return self._step()
        new = self._begin() if not self.cached or self.cache is None else self.read
        tokens, index = self._tokens(new)
        keys = self.cache.extend(tokens) if self.cached else tokens
        self.read = self.ids.shape[1]
        values = self.ids[:, new:].clamp(min=0)
        return self._run(tokens, keys, values, index)

    def append(self, ids: Int[Tensor, "b"]) -> None:
        """Put one more id at the end of each row; a full row is dropped to its last half first."""
        if self.ids.shape[1] - self.start >= self.model.context:
            self.start = self.ids.shape[1] - max(self.model.context // 2, 1)
            self.cache = self.decoder = None
        self.ids = torch.cat([self.ids, ids.cpu()[:, None]], dim=1)

    def _begin(self) -> int:
        """Start reading at the window's first token, with an empty cache."""
        if self.cached:
            self.cache = self.core.empty_cache(
                len(self.ids), self.model.context, dtype=computing_type(self.core), device=self.device
            )
        if self.lean:
            self.decoder = Decoder(self.core, self.cache, self.core.axes, self.model.heads[self.names[1]])
        return self.start

    def _step(self) -> Tensor:
        """The scores after one more token per row, read by the lean decoder."""
        input = self.names[0]
        place, self.read = self.read - self.start, self.ids.shape[1]
        values = self.ids[:, -1].to(self.device, non_blocking=True)
        chunks = Chunks(values=values, index=torch.full((1,), place, device=self.device))
        x = self.model.tokenizer(input)(chunks)
        if input in self.model.types:
            x = x + self.model.types[input]
        return self.decoder.scores(x, place)[:, : self.vocabulary]

    def _tokens(self, new: int) -> tuple[Tokens, Tensor]:
        """Descriptors of the tokens from column `new` on, and their index in the row's window."""
        b, end = self.ids.shape
        order = torch.arange(new - self.start, end - self.start)
        rows = torch.arange(1, b + 1)[:, None].expand(b, end - new)
        index = order
        if self.ragged:
            window = self.ids[:, self.start :] < 0
            rows = rows * (self.ids[:, new:] >= 0)
            index = (order - window.sum(dim=1, keepdim=True)).clamp(min=0)
            self.ragged = bool(window.any())
        position = torch.full((b, end - new, self.core.axes), torch.nan)
        position[..., 0] = order
        return Tokens(input=torch.full_like(rows, self.number), sample=rows, item=rows, position=position), index

    def _run(self, tokens: Tokens, keys: Tokens, values: Tensor, index: Tensor) -> Tensor:
        input, task, core = self.names
        device = self.device
        layouts = self.core.plan(tokens, keys if self.cached else None, computing_type(self.core), device)
        planned = SetPlan(tokens=tokens, chunks={input: Chunks(values=values, index=index)}, layouts=layouts)
        batch = Batch(sets={core: planned}) if device.type == "cpu" else Batch(sets={core: planned}).to(device)
        hidden = self.model.hidden(batch, self.cache if self.cached else None)
        return self.model.heads[task](hidden[:, -1])[:, : self.vocabulary]


@torch.inference_mode()
def generate(
    continuation: Continuation | Answer,
    max_tokens: int,
    sampling: Sampling = Sampling(),
    generator: torch.Generator | None = None,
) -> Iterator[Int[Tensor, "b"]]:
    """Yield the next id of every row, on the CPU, `max_tokens` times; the caller stops earlier where it wants to."""
    for number in range(max_tokens):
        ids = sampling.choose(continuation.scores(), continuation.ids, generator).cpu()
        yield ids
        if number + 1 < max_tokens:
            continuation.append(ids)
