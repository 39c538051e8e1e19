"""Writing texts that answer samples: read everything else once, then one token after another, cached.

The text stands in the core's own set behind the other inputs (a caption after its picture), or in the decoder's set, which
reads the encoder's by cross-attention (a translation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..batch import Batch, Chunks, SetPlan
from ..cache import Cache
from ..model import Model
from ..tokens import TokenSet
from .fast_decoder import Decoder, computing_type


class Answer:
    """Rows of samples whose text a model is writing: one sample a row, the padding in front.

    Each row ends in the text's first tokens (its start token, perhaps a prompt). A new token reads along the core's graph.
    Texts end where the context does: `room` is how many tokens can still be written. `most` lowers that, and with it the
    memory of the cache. `source` is what the encoder made of its set, where another answer to the same has it already. Raises
    ValueError where a sample does not end in its text.
    """

    def __init__(
        self, model: Model, sets: Mapping[str, SetPlan], *, input: str, task: str, vocabulary: int,
        most: int | None = None, source: TokenSet | None = None,
    ):  # fmt: skip
        self.model, self.input, self.task, self.vocabulary = model, input, task, vocabulary
        *before, (self.name, planned) = sets.items()
        self.core = model.cores[self.name]
        self.device, self.dtype = next(model.parameters()).device, computing_type(model)
        self.rows, n = planned.tokens.shape
        room = max(model.context, n) - n
        self.room = room if most is None else min(room, most)
        self.planned, self.last = planned, planned.tokens.select(slice(None), slice(n - 1, n))
        chunks = planned.chunks[input]
        last_places = chunks.slots.view(-1)[chunks.counts.cumsum(0) - 1]
        if len(last_places) != self.rows or not (last_places % n == n - 1).all():
            raise ValueError(f"every sample must end in its text {input!r} for it to be continued")
        self.index = chunks.counts
        self.ids = torch.full((self.rows, 0), -1)
        self.source = self._read_source(dict(before)) if source is None else source
        self.source_tokens = before[-1][1].tokens if before else None
        self.cache: Cache | None = None
        self.decoder: Decoder | None = None
        self.lean = bool((planned.tokens.sample > 0).all()) and Decoder.fits(self.core)
        self.beams = 1
        self.hidden: Tensor | None = None

    def prompt_scores(self, place: int) -> Float[Tensor, "b v"]:
        """The scores of the id that comes after a place of the prompt, once `scores` has read it."""
        return self.model.heads[self.task](self.hidden[:, place])[:, : self.vocabulary]

    def _read_source(self, before: dict[str, SetPlan]) -> TokenSet | None:
        """What the encoder makes of its sets, once."""
        if not before:
            return None
        batch = self.model.plan(Batch(sets=before), dtype=self.dtype, device=self.device).to(self.device)
        (name, x) = list(self.model.read(batch).items())[-1]
        return TokenSet(x=x, **vars(batch.sets[name].tokens))

    @property
    def prompt(self) -> Int[Tensor, "b p"]:
        """The ids that every row's text begins with, where all begin with equally many."""
        chunks = self.planned.chunks[self.input]
        return chunks.values.view(self.rows, -1)

    def scores(self) -> Float[Tensor, "b v"]:
        """The scores of the id that comes next in each row."""
        if self.decoder is not None:
            return self._step()
        if self.cache is None:
            n = self.planned.tokens.shape[1]
            self.cache = self.core.empty_cache(self.rows, n + self.room, dtype=self.dtype, device=self.device)
        keys = self.cache.extend(self.planned.tokens)
        layouts = self.core.plan(self.planned.tokens, keys, self.dtype, self.device)
        cross = None
        if self.source is not None:
            cross = self.core.plan_cross(self.planned.tokens, self.source_tokens, self.dtype, self.device)
        planned = replace(self.planned, layouts=layouts, cross=cross)
        hidden = self.model.read(Batch(sets={self.name: planned}).to(self.device), self.cache, self.source)[self.name]
        self.hidden = hidden if self.hidden is None else self.hidden
        if self.lean:
            self.decoder = Decoder(self.core, self.cache, self.core.axes, self.model.heads[self.task], self.source)
        return self.model.heads[self.task](hidden[:, -1])[:, : self.vocabulary]

    def _step(self) -> Float[Tensor, "b v"]:
        """The scores after one more token per row, read by the lean decoder."""
        chunks = Chunks(values=self._there(self.ids[:, -1]), index=self._there(self.index - 1))
        x = self.model.tokenizer(self.input)(chunks)
        if self.input in self.model.types:
            x = x + self.model.types[self.input]
        place = self.planned.tokens.shape[1] + self.ids.shape[1] - 1
        return self.decoder.scores(x, place, self.beams)[:, : self.vocabulary]

    def append(self, ids: Int[Tensor, "b"]) -> None:
        """Put one more id at the end of each row."""
        self.ids = torch.cat([self.ids, ids.cpu()[:, None]], dim=1)
        if self.decoder is None:
            position = torch.full_like(self.last.position, torch.nan)
            position[..., 0] = self.cache.length
            self.last = replace(self.last, position=position)
            chunks = Chunks(values=ids.cpu()[:, None], index=self.index[:, None])
            self.planned = SetPlan(tokens=self.last, chunks={self.input: chunks})
        self.index = self.index + 1

    def expand(self, beams: int) -> None:
        """Turn every row into `beams` rows of the same; what the encoder read is shared by them."""
        if beams > 1:
            self.beams = beams
            self._take(torch.arange(len(self.ids)).repeat_interleave(beams))
            if self.decoder is None and self.source is not None:
                self._take_source(torch.arange(self.rows).repeat_interleave(beams))

    def inherit(self, parents: Int[Tensor, "b"]) -> None:
        """Every row goes on from its parent, a row of the same sample. Rows that are a parent must be their own."""
        rows = (parents != torch.arange(len(parents))).nonzero()[:, 0]
        if len(rows):
            sources = parents[rows]
            self.ids[rows] = self.ids[sources]
            self.cache.copy(self._there(sources), self._there(rows))

    def keep(self, samples: Sequence[int]) -> None:
        """Go on with these samples, each with its beams; the others are done."""
        kept = torch.tensor(samples)
        rows = (kept[:, None] * self.beams + torch.arange(self.beams)).flatten()
        self._take(rows)
        if self.decoder is not None:
            self.decoder.keep(self._there(kept))
        elif self.source is not None:
            self._take_source(rows)

    def _there(self, values: Tensor) -> Tensor:
        """The same on the model's device, without waiting for what is computed there."""
        return values.to(self.device, non_blocking=True)

    def _take(self, rows: Tensor) -> None:
        self.ids, self.index, self.last = self.ids[rows], self.index[rows], self.last.select(rows)
        self.cache.select(self._there(rows))

    def _take_source(self, rows: Tensor) -> None:
        self.source, self.source_tokens = self.source.select(self._there(rows)), self.source_tokens.select(rows)
