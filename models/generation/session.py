"""A session: rows of text that a model generates token by token.

There are three cases: the text is the only input of its set; the text follows other inputs of the same sample (a
caption after an image); or the text is in the set of a decoder, which reads the encoder's output by cross-attention (a
translation). Keys and values are cached. Without the cache the scores are the same, but the complete set is processed
again for every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
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
    """Rows of text that a model generates. Call `scores` for the scores of the next ids, `append` the chosen ids, and
    repeat.

    `batch` has one sample per row, with padding at the start of shorter rows. In the main set each sample ends with the
    prompt, a text of the input `input`. `task` is the name of the task whose head computes the scores. `vocabulary` is
    the number of ids; the head's scores beyond this number are removed. `most` is the number of tokens to generate,
    which limits the size of the cache; None: up to the context length. `source` is the encoder's output, if another
    session has already computed it for the same samples. `cached=False` disables the cache. Raises ValueError if a
    sample does not end with its text.

    When the context is full, there are three cases. First, if in no layer later tokens read some of the cached tokens
    (with `causal & window(64)`, for example), these tokens are dropped, and generation can continue without a limit.
    Second, if the text is the only input of its row, about the first half of the text is removed, and the last half is
    processed again from position 0 (with or without a cache). Notes are then kept (`Notes`). For positions with a
    period (`Periodic`), the first token is kept and a multiple of the period is removed. In all other cases generation
    ends: for rows with other inputs, for a period above half of the context, and for periods together with notes.
    """

    def __init__(
        self, model: Model, batch: Batch, *, input: str, task: str, vocabulary: int,
        most: int | None = None, source: TokenSet | None = None, cached: bool = True,
    ):  # fmt: skip
        self.model, self.core, self.head, planned = model, model.core, model.heads[task], batch.main
        self.input, self.vocabulary, self.cached = input, vocabulary, cached and self.core.caches
        self.device, self.dtype = next(model.parameters()).device, computing_type(model)
        self.limit, self.beams = most, 1
        self.notes = getattr(model.tokenizer(input), "notes", None)  # user-defined embedders may not define `notes`
        self.period = period_of(model, input)
        self.slides = (
            not batch.encoder and {*planned.chunks} == {input} and planned.core_slots is None and self._can_be_cut()
        )
        self.hidden: Tensor | None = None
        self._begin(planned)
        self.drops = not self.fast and self._can_drop()
        self.ids = self._prompt_ids()
        self.most = most if (self.slides or self.drops) and most is not None else self.room
        self.source = self._read_source(batch.encoder) if source is None and batch.encoder else source
        self.source_tokens = batch.encoder.tokens if batch.encoder else None

    @classmethod
    def of_texts(
        cls, model: Model, rows: Sequence[Sequence[int]], *, input: str, task: str, vocabulary: int,
        most: int | None = None, cached: bool = True,
    ) -> Session:  # fmt: skip
        """Returns a session for rows of ids without other inputs. Each row is a prompt, cut to the context length by
        `fitting`."""
        planned = text_set(model, input, padded([fitting(model, input, row) for row in rows]))
        return cls(model, Batch(main=planned), input=input, task=task, vocabulary=vocabulary, most=most, cached=cached)

    # ---------------------------------------------------------------------------------------------------------- start

    def _begin(self, planned: SetPlan) -> None:
        """Sets the state of a session in which no token of the set `planned` is processed and the cache is empty."""
        self.planned, (self.rows, n) = planned, planned.tokens.shape
        self.width = n
        room = max(self.model.context, n) - n
        self.room = room if self.limit is None else min(room, self.limit)
        self.last = planned.tokens.select(slice(None), slice(n - 1, n))
        self.counts = planned.chunks[self.input].counts
        self.processed, self.columns = 0, n
        self.cache: Cache | None = None
        self.decoder: Decoder | None = None
        no_padding = bool((planned.tokens.sample > 0).all())
        self.fast = self.cached and no_padding and self.notes is None and Decoder.fits(self.core)

    def _check_last(self, slots: Tensor) -> None:
        """Raises ValueError if the slots of the last tokens of the text are not the last ones of their rows."""
        if len(slots) != self.rows or not (slots % self.columns == self.columns - 1).all():
            raise ValueError(
                f"the last tokens of every sample must be those of its input {self.input!r}, so that this text can be "
                "continued"
            )

    def _prompt_ids(self) -> Int[Tensor, "b p"]:
        """Returns the ids of the prompts. Shorter prompts are padded with -1 at the start. Raises ValueError if a
        sample does not end with its text."""
        chunks = self.planned.chunks[self.input]
        if chunks.slots is not None:
            self._check_last(chunks.slots[chunks.counts.cumsum(0) - 1])
        longest = int(self.counts.max())
        ids = torch.full((self.rows, longest), -1)
        ids[torch.arange(longest) >= longest - self.counts[:, None]] = chunks.values.flatten()
        return ids

    @torch.inference_mode()
    def _read_source(self, planned: SetPlan) -> TokenSet:
        """Returns the encoder's output for the encoder's set `planned`. It is computed once per session."""
        return self.model.encode(self.model.plan_first(planned, dtype=self.dtype, device=self.device).to(self.device))

    # ----------------------------------------------------------------------------------------------------- generation

    @torch.inference_mode()
    def scores(self) -> Float[Tensor, "b v"]:
        """Returns the scores of the next id of each row. Call this method once at the start and once after every
        `append`."""
        if self.decoder is not None:
            scores = [self._step(column) for column in range(self.processed, self.columns)][-1]
        else:
            scores = self._forward()
        self.processed = self.columns
        return scores[:, : self.vocabulary]

    @torch.inference_mode()
    def prompt_scores(self, column: int) -> Float[Tensor, "b v"]:
        """Returns for each row the scores of the id that follows the token in this column of the prompt's set. `scores`
        must have been called once before."""
        return self.head(self.hidden[:, column])[:, : self.vocabulary]

    def append(self, ids: Int[Tensor, "b"]) -> None:
        """Appends one id to each row. If the context is full and tokens can be dropped or cut (see above), this is done
        first. Raises ValueError if later tokens may read all tokens of a full context and the text cannot be cut."""
        length = self.cache.length if self.drops and self.cache else self.columns
        if (self.slides or self.drops) and length >= self.model.context:
            self._make_room()
        self.ids = torch.cat([self.ids, ids.cpu()[:, None]], dim=1)
        self.columns += 1

    def _can_drop(self) -> bool:
        """Returns whether the cache can drop old tokens: no layer reads a token at a distance of the context length,
        and the embedder has no maximum number of tokens (`longest` is None)."""
        context, embedder = self.model.context, self.model.tokenizer(self.input)
        number = self.model.inputs.index(self.input) + 1
        row = plain_tokens(1, context + 1, axes=self.core.axes, input=number)
        unlimited = getattr(embedder, "longest", context) is None
        return unlimited and not lasting(self.core.graphs, row)[0, 1]

    def _can_be_cut(self) -> bool:
        """Returns whether a text that is the only input of its row can be cut to about half of the context: its
        positions have no period, or there are no notes and the period is at most half of the context."""
        return self.period == 1 or (self.notes is None and self.period <= self.model.context // 2)

    @torch.inference_mode()
    def _make_room(self) -> None:
        """Drops the columns that no later token reads. If there are too few of these columns, cuts the text. Raises
        ValueError if the text cannot be cut (`slides` is False)."""
        if self.drops and self._dropped():
            return
        if not self.slides:
            raise ValueError(f"the context is full: later tokens may read all of its {self.model.context} tokens")
        half, numbers = max(self.model.context // 2, 1), None
        if self.notes is not None:
            ids, numbers = self.notes.shorten(self.ids, half)
        else:
            most = self.model.context - (self.model.context - half) // self.period * self.period
            rows = [row[-int(number) :] for row, number in zip(self.ids.tolist(), (self.ids >= 0).sum(1))]
            ids = padded([cut(row, most, self.period) for row in rows])
        self._begin(text_set(self.model, self.input, ids, numbers))

    def _dropped(self) -> bool:
        """Drops the columns that no later token reads from the cache. Returns whether there is then room."""
        tokens = self._planned().tokens if self.cache is None else self.cache.tokens
        kept = lasting(self.core.graphs, tokens).any(dim=0).nonzero()[:, 0]
        has_room = len(kept) < self.model.context
        if has_room and self.cache is not None:
            self.cache.keep(kept)
        return has_room

    def _forward(self) -> Tensor:
        """Returns the scores after the last column. Runs the core's forward pass over all columns that are not
        processed yet; without a cache, over all columns."""
        planned = self._planned() if self.cache is None else self._pending()
        options = {"dtype": self.dtype, "device": self.device}
        planned = self.model.plan_inputs(planned, **options)
        if self.cached and self.cache is None:
            self.cache = self.core.empty_cache(self.rows, self.width + self.room, **options)
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
        """Returns the scores after the token in this column of each row, computed by the fast `Decoder`."""
        index, ids = self.counts + (column - self.width), self.ids[:, column - self.columns]
        x = self.model.tokenizer(self.input)(Chunks(values=self._to_device(ids), index=self._to_device(index)))
        if self.input in self.model.type_owners:
            x = x + self.model.types[self.model.type_owners[self.input]]
        return self.decoder.scores(x, column, self.beams)

    # ----------------------------------------------------------------------------------------------- sets of tokens

    def _tokens(self, start: int) -> Tokens:
        """Returns the descriptors of the appended tokens from column `start` on. Input, sample and item are those of
        the last token of the prompt. The running order is the column. The coordinate of notes is computed; all other
        coordinates are NaN."""
        columns = torch.arange(start, self.columns)
        tokens = self.last.select(slice(None), torch.zeros_like(columns))
        position = torch.full_like(tokens.position, torch.nan)
        position[..., 0] = columns
        if self.notes is not None:
            position[..., self.core.position.axes.index(AXIS)] = self.notes.numbers(self.ids)[:, start - self.columns :]
        return replace(tokens, position=position)

    def _appended(self, start: int) -> Chunks:
        """Returns the chunks of the appended ids from column `start` on."""
        number = torch.arange(start, self.columns) - self.width
        return Chunks(values=self.ids[:, start - self.columns :], index=self.counts[:, None] + number)

    def _pending(self) -> SetPlan:
        """Returns a `SetPlan` with the appended tokens that are not processed yet."""
        return SetPlan(tokens=self._tokens(self.processed), chunks={self.input: self._appended(self.processed)})

    def _planned(self) -> SetPlan:
        """Returns the set with all columns."""
        return self.planned if self.columns == self.planned.tokens.shape[1] else self._complete()

    def _complete(self) -> SetPlan:
        """Returns the set of the prompts, with all appended tokens at the end of its rows."""
        planned, (b, n), end = self.planned, self.planned.tokens.shape, self.columns

        def moved(slots: Tensor) -> Tensor:
            """Returns the numbers of the same slots in the longer rows."""
            return slots // n * end + slots % n

        tokens, new = self._tokens(n), self._appended(n)
        tokens = Tokens(**{f: torch.cat([old, getattr(tokens, f)], dim=1) for f, old in vars(planned.tokens).items()})
        text = planned.chunks[self.input]
        slots = moved(torch.arange(b * n) if text.slots is None else text.slots)
        slots = torch.cat([slots, (torch.arange(b)[:, None] * end + torch.arange(n, end)).flatten()])
        values = torch.cat([text.values.flatten(), new.values.flatten()])
        index = torch.cat([text.index.expand_as(text.values).flatten(), new.index.flatten()])
        others = {name: other for name, other in planned.chunks.items() if name != self.input}
        chunks = {name: replace(other, slots=moved(other.slots)) for name, other in others.items()}
        chunks[self.input] = Chunks(values=values, index=index, slots=slots)
        core_slots = None if planned.core_slots is None else moved(planned.core_slots)
        return replace(planned, tokens=tokens, chunks=chunks, core_slots=core_slots)

    # --------------------------------------------------------------------------------------------------------- beams

    def expand(self, beams: int) -> None:
        """Repeats every row `beams` times; the copies are neighbouring rows. In the fast `Decoder` the copies share the
        encoder's output. Raises ValueError if `beams` is above 1 and the session has no cache."""
        if beams > 1:
            if not self.cached:
                raise ValueError(
                    "beam search needs the cache of keys and values, which is switched off (--no-cache, cached=False) "
                    "or which the blocks do not have; sampling and greedy decoding are possible without it"
                )
            self.beams = beams
            self._select(torch.arange(self.rows).repeat_interleave(beams))
            if self.decoder is None and self.source is not None:
                self._select_source(torch.arange(len(self.source_tokens.sample)).repeat_interleave(beams))

    def inherit(self, parents: Int[Tensor, "b"]) -> None:
        """Replaces every row b by a copy of row `parents[b]`. Both rows must belong to the same sample."""
        rows = (parents != torch.arange(len(parents))).nonzero()[:, 0]
        if len(rows):
            sources = parents[rows]
            self.ids[rows] = self.ids[sources]
            self.cache.copy(self._to_device(sources), self._to_device(rows))

    def keep(self, samples: Sequence[int]) -> None:
        """Keeps only the samples with these numbers, with all their beams. The texts of all other samples are complete.
        A number counts the samples that are still in the session, from 0."""
        kept = torch.tensor(samples)
        rows = (kept[:, None] * self.beams + torch.arange(self.beams)).flatten()
        self._select(rows)
        if self.decoder is not None:
            self.decoder.keep(self._to_device(kept))
        elif self.source is not None:
            self._select_source(rows)

    def _to_device(self, values: Tensor) -> Tensor:
        """Returns `values` on the model's device. The CPU does not wait for the copy."""
        return values.to(self.device, non_blocking=True)

    def _select(self, rows: Tensor) -> None:
        self.ids, self.counts, self.last = self.ids[rows], self.counts[rows], self.last.select(rows)
        self.rows = len(rows)
        self.cache.select(self._to_device(rows))

    def _select_source(self, rows: Tensor) -> None:
        self.source, self.source_tokens = self.source.select(self._to_device(rows)), self.source_tokens.select(rows)


def period_of(model: Model, input: str) -> int:
    """Returns the period of the input's positions: a text is only cut by a multiple of this number of tokens. Returns 1
    if the embedder has no attribute `period`."""
    return getattr(model.tokenizer(input), "period", 1)


def cut(ids: Sequence[int], most: int, period: int = 1) -> list[int] | None:
    """Returns the last ids of a text, at most `most` ids. If `period` is above 1 and the text is too long, the first id
    is kept, and after it the smallest sufficient multiple of `period` ids is removed. Returns None if the text has too
    few ids for this.

    period 1, most 4    7 0 1 0 1 0 1    0 1 0 1
    period 2, most 4    7 0 1 0 1 0 1    7 0 1
    """
    if len(ids) <= most or period == 1:
        return [*ids[-most:]]
    end = 1 + -(-(len(ids) - most) // period) * period
    return [ids[0], *ids[end:]] if end <= len(ids) else None


def fitting(model: Model, input: str, ids: Sequence[int]) -> list[int]:
    """Returns the ids of a prompt, cut to the context length by `cut`. Raises ValueError if `cut` returns None."""
    period = period_of(model, input)
    prompt = cut(ids, model.context, period)
    if prompt is None:
        text = f"a prompt of {len(ids)} tokens does not fit into the context of {model.context}"
        raise ValueError(
            f"{text}, and it cannot be cut automatically, because only multiples of {period} tokens can be removed; "
            "shorten the prompt"
        )
    return prompt


def padded(rows: Sequence[Sequence[int]]) -> Int[Tensor, "b n"]:
    """Returns rows of ids as one tensor. Shorter rows are padded with -1 at the start."""
    longest = max(map(len, rows))
    return torch.tensor([[*[-1] * (longest - len(row)), *row] for row in rows])


def text_set(model: Model, input: str, ids: Int[Tensor, "b n"], notes: Float[Tensor, "b n"] | None = None) -> SetPlan:
    """Returns a set of the model with these rows of ids. Each row is one item of the input `input`; the id -1 at the
    start of a row is padding. `notes` has the number of the note of each token (NaN: none), which is needed if the ids
    are only the end of a text; None: computed from the ids.

        ids     7  3  5      sample   1  1  1      index  0  1  2
               -1 -1  4               0  0  2                   0
    """
    rows, n = ids.shape
    is_token, counts = ids >= 0, (ids >= 0).sum(dim=1)
    sample = torch.arange(1, rows + 1)[:, None] * is_token
    position = torch.full((rows, n, model.core.axes), torch.nan)
    position[..., 0] = torch.arange(n)
    if input_notes := getattr(model.tokenizer(input), "notes", None):
        position[..., model.core.position.axes.index(AXIS)] = input_notes.numbers(ids) if notes is None else notes
    number = torch.full_like(sample, model.inputs.index(input) + 1)
    tokens = Tokens(input=number, sample=sample, item=sample, position=position)
    if is_token.all():
        return SetPlan(tokens=tokens, chunks={input: Chunks(values=ids, index=torch.arange(n), counts=counts)})
    return SetPlan(tokens=tokens, chunks={input: padded_chunks(ids, is_token)})


def padded_chunks(ids: Int[Tensor, "b n"], is_token: Bool[Tensor, "b n"]) -> Chunks:
    """Returns the chunks of rows that begin with padding."""
    n, counts = ids.shape[1], is_token.sum(dim=1)
    slots = is_token.flatten().nonzero()[:, 0]
    index = (torch.arange(n) - (n - counts)[:, None])[is_token]
    return Chunks(values=ids[is_token], index=index, slots=slots, counts=counts)
