"""A session: rows of text that a model generates, one token after another.

The text is alone in its set, or follows the other inputs of its sample (a caption after its image), or is in a
decoder's set, which reads an encoder's by cross-attention (a translation). Keys and values are cached; without the
cache the scores are the same, and the whole set is read again for every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..arithmetic import computing_type
from ..attention.mask import lasting
from ..batch import Batch, Chunks, SetPlan
from ..cache import Cache
from ..model import Model
from ..tokens import Tokens, TokenSet, plain_tokens
from .fast_decoder import Decoder
from .notes import AXIS


class Session:
    """Rows of text that a model generates: get the `scores` of the next id, `append` the chosen ones, and so on.

    `batch` holds samples, one a row with the padding in front; in its main set each ends in the prompt of its text
    `input`. `task` names the head that scores; `vocabulary` is the number of ids, so that scores of padded ids are cut
    off. `most` is how many tokens will be generated, which limits the cache (None: as many as the context has room
    for). `source` is the encoder's output, where another session of the same samples has computed it. Without `cached`
    no cache is used. Raises ValueError where a sample does not end in its text.

    Where no later token reads some of the cached ones in any layer, as with `causal & window(64)`, these are forgotten
    when the context is full, and generation goes on without end. Otherwise a text that is alone in its row is cut to
    about its last half, which is read again from position 0, cached or not: notes are kept (`Notes`), and where
    positions have a period (`Periodic`), the first token is kept and complete periods are cut. Generation ends with
    the context next to other inputs, and where two periods do not fit into the context or periods meet notes.
    """

    def __init__(
        self, model: Model, batch: Batch, *, input: str, task: str, vocabulary: int,
        most: int | None = None, source: TokenSet | None = None, cached: bool = True,
    ):  # fmt: skip
        self.model, self.core, self.head, given = model, model.core, model.heads[task], batch.main
        self.input, self.vocabulary, self.cached = input, vocabulary, cached
        self.device, self.dtype = next(model.parameters()).device, computing_type(model)
        self.wanted, self.beams = most, 1
        self.notes = getattr(model.tokenizer(input), "notes", None)  # an embedder of one's own need not know of notes
        self.period = period_of(model, input)
        self.slides = not batch.encoder and {*given.chunks} == {input} and given.own is None and self._can_be_cut()
        self.hidden: Tensor | None = None
        self._begin(given)
        self.forgets = not self.fast and self._forgets()
        self.ids = self._given_ids()
        self.most = most if (self.slides or self.forgets) and most is not None else self.room
        self.source = self._read_source(batch.encoder) if source is None and batch.encoder else source
        self.source_tokens = batch.encoder.tokens if batch.encoder else None

    @classmethod
    def of_texts(
        cls, model: Model, rows: Sequence[Sequence[int]], *, input: str, task: str, vocabulary: int,
        most: int | None = None, cached: bool = True,
    ) -> Session:  # fmt: skip
        """A session that continues rows of ids without other inputs, each shortened to the context (`fitting`)."""
        planned = text_set(model, input, padded([fitting(model, input, row) for row in rows]))
        return cls(model, Batch(main=planned), input=input, task=task, vocabulary=vocabulary, most=most, cached=cached)

    # ------------------------------------------------------------------------------------------------ where it begins

    def _begin(self, given: SetPlan) -> None:
        """Begin with this set, of which nothing was read yet, and with an empty cache."""
        self.given, (self.rows, n) = given, given.tokens.shape
        self.width = n
        room = max(self.model.context, n) - n
        self.room = room if self.wanted is None else min(room, self.wanted)
        self.last = given.tokens.select(slice(None), slice(n - 1, n))
        self.counts = given.chunks[self.input].counts
        self.read, self.columns = 0, n
        self.cache: Cache | None = None
        self.decoder: Decoder | None = None
        whole = bool((given.tokens.sample > 0).all())
        self.fast = self.cached and whole and self.notes is None and Decoder.fits(self.core)

    def _given_ids(self) -> Int[Tensor, "b p"]:
        """The ids of the prompts, with -1 in front of shorter ones."""
        chunks, n = self.given.chunks[self.input], self.columns
        if chunks.slots is not None:
            last = chunks.slots[chunks.counts.cumsum(0) - 1]
            if len(last) != self.rows or not (last % n == n - 1).all():
                raise ValueError(f"every sample must end in its text {self.input!r} for it to be continued")
        longest = int(self.counts.max())
        ids = torch.full((self.rows, longest), -1)
        ids[torch.arange(longest) >= longest - self.counts[:, None]] = chunks.values.flatten()
        return ids

    @torch.inference_mode()
    def _read_source(self, planned: SetPlan) -> TokenSet:
        """The encoder's output for its set, computed once."""
        return self.model.encode(self.model.plan_first(planned, dtype=self.dtype, device=self.device).to(self.device))

    # ---------------------------------------------------------------------------------------- one token after another

    @torch.inference_mode()
    def scores(self) -> Float[Tensor, "b v"]:
        """The scores of the next id of each row. Call it once at the start and once after every `append`."""
        if self.decoder is not None:
            found = [self._step(column) for column in range(self.read, self.columns)][-1]
        else:
            found = self._read()
        self.read = self.columns
        return found[:, : self.vocabulary]

    @torch.inference_mode()
    def prompt_scores(self, column: int) -> Float[Tensor, "b v"]:
        """The scores of the id after the token in this column of the given set; call `scores` once before."""
        return self.head(self.hidden[:, column])[:, : self.vocabulary]

    def append(self, ids: Int[Tensor, "b"]) -> None:
        """Put one more id at the end of each row; in full rows room is made first. Raises ValueError where it cannot
        be."""
        held = self.cache.length if self.forgets and self.cache else self.columns
        if (self.slides or self.forgets) and held >= self.model.context:
            self._make_room()
        self.ids = torch.cat([self.ids, ids.cpu()[:, None]], dim=1)
        self.columns += 1

    def _forgets(self) -> bool:
        """Whether a token that is a context behind is read by none in any layer, so that it can be forgotten."""
        context, embedder = self.model.context, self.model.tokenizer(self.input)
        number = self.model.inputs.index(self.input) + 1
        row = plain_tokens(1, context + 1, axes=self.core.axes, input=number)
        endless = getattr(embedder, "longest", context) is None
        return endless and not lasting(self.core.graphs, row)[0, 1]

    def _can_be_cut(self) -> bool:
        """Whether a text that is alone in its row can be cut to about half of the context, and its positions still mean
        the same."""
        return self.period == 1 or (self.notes is None and self.period <= self.model.context // 2)

    @torch.inference_mode()
    def _make_room(self) -> None:
        """Forget the columns that no later token reads; where all may be read, cut a row of text alone."""
        if self.forgets:
            tokens = self._whole().tokens if self.cache is None else self.cache.tokens
            kept = lasting(self.core.graphs, tokens).any(dim=0).nonzero()[:, 0]
            if len(kept) < self.model.context:
                if self.cache is not None:
                    self.cache.keep(kept)
                return
        if not self.slides:
            raise ValueError(f"the context of {self.model.context} tokens is full of what later tokens may read")
        half, numbers = max(self.model.context // 2, 1), None
        if self.notes is not None:
            ids, numbers = self.notes.carried(self.ids, half)
        else:
            most = self.model.context - (self.model.context - half) // self.period * self.period
            rows = [row[-int(number) :] for row, number in zip(self.ids.tolist(), (self.ids >= 0).sum(1))]
            ids = padded([cut(row, most, self.period) for row in rows])
        self._begin(text_set(self.model, self.input, ids, numbers))

    def _read(self) -> Tensor:
        """The scores after the last column, by the core's own forward pass over all columns that were not read yet
        (without a cache: over all)."""
        planned = self._whole() if self.cache is None else self._pending()
        like = {"dtype": self.dtype, "device": self.device}
        planned = self.model.plan_inputs(planned, **like)
        if self.cached and self.cache is None:
            self.cache = self.core.empty_cache(self.rows, self.width + self.room, **like)
        keys = None if self.cache is None else self.cache.extend(planned.tokens)
        layouts, cross = self.core.plan(planned.tokens, keys, self.dtype, self.device), None
        if self.source is not None:
            cross = self.core.plan_cross(planned.tokens, self.source_tokens, self.dtype, self.device)
        groups = self.core.group(planned.tokens)
        batch = Batch(main=replace(planned, layouts=layouts, cross=cross, groups=groups))
        batch = batch if self.device.type == "cpu" else batch.to(self.device)
        hidden = self.model.read(batch, self.cache, self.source).main
        self.hidden = hidden if self.hidden is None else self.hidden
        if self.fast:
            self.decoder = Decoder(self.core, self.cache, self.core.axes, self.head, self.source)
        return self.head(hidden[:, -1])

    def _step(self, column: int) -> Tensor:
        """The scores after the token in this column of each row, by the fast `Decoder`."""
        index, ids = self.counts + (column - self.width), self.ids[:, column - self.columns]
        x = self.model.tokenizer(self.input)(Chunks(values=self._there(ids), index=self._there(index)))
        if self.input in self.model.types:
            x = x + self.model.types[self.input]
        return self.decoder.scores(x, column, self.beams)

    # -------------------------------------------------------------------------------------------------- what is read

    def _tokens(self, start: int) -> Tokens:
        """Descriptors of the appended tokens from column `start` on: those of the row's last given token, but with the
        column as running order and no other coordinates but those of notes."""
        columns = torch.arange(start, self.columns)
        tokens = self.last.select(slice(None), torch.zeros_like(columns))
        position = torch.full_like(tokens.position, torch.nan)
        position[..., 0] = columns
        if self.notes is not None:
            position[..., self.core.position.axes.index(AXIS)] = self.notes.numbers(self.ids)[:, start - self.columns :]
        return replace(tokens, position=position)

    def _appended(self, start: int) -> Chunks:
        """The appended ids from column `start` on."""
        number = torch.arange(start, self.columns) - self.width
        return Chunks(values=self.ids[:, start - self.columns :], index=self.counts[:, None] + number)

    def _pending(self) -> SetPlan:
        """The tokens that were appended since the last read."""
        return SetPlan(tokens=self._tokens(self.read), chunks={self.input: self._appended(self.read)})

    def _whole(self) -> SetPlan:
        """The given set with all appended tokens at the end of its rows."""
        given, (b, n), end = self.given, self.given.tokens.shape, self.columns
        if end == n:
            return given

        def moved(slots: Tensor) -> Tensor:
            """The same slots in longer rows."""
            return slots // n * end + slots % n

        tokens, new = self._tokens(n), self._appended(n)
        tokens = Tokens(**{f: torch.cat([old, getattr(tokens, f)], dim=1) for f, old in vars(given.tokens).items()})
        text = given.chunks[self.input]
        slots = moved(torch.arange(b * n) if text.slots is None else text.slots)
        slots = torch.cat([slots, (torch.arange(b)[:, None] * end + torch.arange(n, end)).flatten()])
        values = torch.cat([text.values.flatten(), new.values.flatten()])
        index = torch.cat([text.index.expand_as(text.values).flatten(), new.index.flatten()])
        chunks = {f: replace(each, slots=moved(each.slots)) for f, each in given.chunks.items() if f != self.input}
        chunks[self.input] = Chunks(values=values, index=index, slots=slots)
        return replace(given, tokens=tokens, chunks=chunks, own=None if given.own is None else moved(given.own))

    # --------------------------------------------------------------------------------------------------------- beams

    def expand(self, beams: int) -> None:
        """Repeat every row `beams` times, as neighbours (in the fast `Decoder` they share the encoder's output). Raises
        ValueError for several beams without a cache."""
        if beams > 1:
            if not self.cached:
                raise ValueError(
                    "beams share what is cached; without the cache a text can only be drawn, or be the likeliest"
                )
            self.beams = beams
            self._take(torch.arange(self.rows).repeat_interleave(beams))
            if self.decoder is None and self.source is not None:
                self._take_source(torch.arange(len(self.source_tokens.sample)).repeat_interleave(beams))

    def inherit(self, parents: Int[Tensor, "b"]) -> None:
        """Make every row b a copy of row `parents[b]`, as that was before: a row of the same sample."""
        rows = (parents != torch.arange(len(parents))).nonzero()[:, 0]
        if len(rows):
            sources = parents[rows]
            self.ids[rows] = self.ids[sources]
            self.cache.copy(self._there(sources), self._there(rows))

    def keep(self, samples: Sequence[int]) -> None:
        """Keep these samples (by number among those left, from 0), each with its beams; the others are done."""
        kept = torch.tensor(samples)
        rows = (kept[:, None] * self.beams + torch.arange(self.beams)).flatten()
        self._take(rows)
        if self.decoder is not None:
            self.decoder.keep(self._there(kept))
        elif self.source is not None:
            self._take_source(rows)

    def _there(self, values: Tensor) -> Tensor:
        """The values on the model's device, copied without waiting for what is computed there."""
        return values.to(self.device, non_blocking=True)

    def _take(self, rows: Tensor) -> None:
        self.ids, self.counts, self.last = self.ids[rows], self.counts[rows], self.last.select(rows)
        self.rows = len(rows)
        self.cache.select(self._there(rows))

    def _take_source(self, rows: Tensor) -> None:
        self.source, self.source_tokens = self.source.select(self._there(rows)), self.source_tokens.select(rows)


def period_of(model: Model, input: str) -> int:
    """By multiples of how many tokens the text of an input may be cut; an embedder of one's own need not say."""
    return getattr(model.tokenizer(input), "period", 1)


def cut(ids: Sequence[int], most: int, period: int = 1) -> list[int] | None:
    """The end of a text that has at most `most` ids. With a `period` above 1 the first id stays and a multiple of
    `period` of those after it is cut; None if no such text is short enough.

    period 1, most 4    7 0 1 0 1 0 1    0 1 0 1
    period 2, most 4    7 0 1 0 1 0 1    7 0 1
    """
    if len(ids) <= most or period == 1:
        return [*ids[-most:]]
    end = 1 + -(-(len(ids) - most) // period) * period
    return [ids[0], *ids[end:]] if end <= len(ids) else None


def fitting(model: Model, input: str, ids: Sequence[int]) -> list[int]:
    """The end of a prompt that fits the context, as `cut`. Raises ValueError if none does."""
    period = period_of(model, input)
    found = cut(ids, model.context, period)
    if found is None:
        told = f"a prompt of {len(ids)} tokens does not fit the context of {model.context}"
        raise ValueError(f"{told}, and its positions have a period of {period}; shorten the prompt")
    return found


def padded(rows: Sequence[Sequence[int]]) -> Int[Tensor, "b n"]:
    """Rows of ids as a tensor, with -1 in front of shorter ones."""
    longest = max(map(len, rows))
    return torch.tensor([[*[-1] * (longest - len(row)), *row] for row in rows])


def text_set(model: Model, input: str, ids: Int[Tensor, "b n"], notes: Float[Tensor, "b n"] | None = None) -> SetPlan:
    """Rows of ids as a set of a model, each row one item of this `input` and nothing else; -1 in front of a row is
    padding. `notes` are the numbers of their notes, where the ids are only the end of a text.

        ids     7  3  5      sample   1  1  1      index  0  1  2
               -1 -1  4               0  0  2                   0
    """
    rows, n = ids.shape
    there, counts = ids >= 0, (ids >= 0).sum(dim=1)
    sample = torch.arange(1, rows + 1)[:, None] * there
    position = torch.full((rows, n, model.core.axes), torch.nan)
    position[..., 0] = torch.arange(n)
    if known := getattr(model.tokenizer(input), "notes", None):
        position[..., model.core.position.axes.index(AXIS)] = known.numbers(ids) if notes is None else notes
    number = torch.full_like(sample, model.inputs.index(input) + 1)
    tokens = Tokens(input=number, sample=sample, item=sample, position=position)
    if there.all():
        return SetPlan(tokens=tokens, chunks={input: Chunks(values=ids, index=torch.arange(n), counts=counts)})
    slots = there.flatten().nonzero()[:, 0]
    index = (torch.arange(n) - (n - counts)[:, None])[there]
    chunks = Chunks(values=ids[there], index=index, slots=slots, counts=counts)
    return SetPlan(tokens=tokens, chunks={input: chunks})
