"""A long short-term memory (Hochreiter & Schmidhuber 1997) as a block: the recurrent networks that translated before
transformers, without (Sutskever et al. 2014, arXiv:1409.3215) and with soft attention over the source (Bahdanau et al.
2014, arXiv:1409.0473).

    model: {attention: causal & same_sample, encoder: {attention: same_sample}, block: {use: lstm, soft: true}}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..attention.graph import Causal, Graph, SameSample
from ..attention.kernels import Layout
from ..cache import RowState
from ..contract import Problems
from ..layers.linear import Linear
from ..layers.norms import LayerNorm, Norm, PostNorm, PreNorm
from ..tokens import PADDING, Tokens
from ..transformer import Attention, AttentionContext, BaseBlock, Dropout, Role


@dataclass(frozen=True)
class Segments(Layout):
    """The samples of a batch, one after another: each of the s segments is the part of a sample that is in one row.

    A row with the samples 1 1 1 2 2 and one padding has the segments of `lengths` 3 and 2, which become the rows 0 and
    1 of a padded tensor; the padding belongs to no segment."""

    slots: Int[Tensor, "s l"]
    """The slot (row * n + column) of each token of a segment; a segment of fewer than l tokens repeats its last one."""
    lengths: Int[Tensor, "s"]
    """The number of tokens of each segment, on the CPU."""
    tokens: Int[Tensor, "k"]
    """The slots of all tokens, in the order of the segments."""
    places: Int[Tensor, "k"]
    """The place of each of these tokens in the padded tensor: segment * l + number in the segment."""
    rows: Int[Tensor, "s"]
    """The row of each segment."""
    last: Int[Tensor, "b"]
    """The last segment of each row; for a row of padding, any segment."""
    has_tokens: Int[Tensor, "b"]
    """1 for rows that contain a token, else 0."""
    continues: Int[Tensor, "s"]
    """1 for a segment that continues the sample that was read last in its row, else 0."""

    def to(self, device: torch.device | str) -> Segments:
        return replace(super().to(device), lengths=self.lengths)

    @classmethod
    def of(cls, sample: Int[Tensor, "b n"], before: Int[Tensor, "b"] | None = None) -> Segments:
        """Returns the segments of rows of tokens with these sample numbers (0: padding). `before`: the number of the
        sample that was read last in each row, 0 if there is none."""
        b, n = sample.shape
        begins = torch.ones_like(sample, dtype=torch.bool)
        begins[:, 1:] = sample[:, 1:] != sample[:, :-1]
        begins &= sample != PADDING
        starts = begins.flatten().nonzero()[:, 0]
        tokens = (sample.flatten() != PADDING).nonzero()[:, 0]
        segment = begins.flatten().cumsum(0)[tokens] - 1
        lengths = segment.bincount(minlength=len(starts))
        rows = starts // n
        longest = int(lengths.max()) if len(lengths) else 0
        number = tokens - starts[segment]
        slots = starts[:, None] + torch.minimum(torch.arange(longest), lengths[:, None] - 1)
        last = (rows.bincount(minlength=b).cumsum(0) - 1).clamp(min=0)
        first = torch.ones_like(rows, dtype=torch.bool)
        first[1:] = rows[1:] != rows[:-1]
        continues = (
            torch.zeros_like(rows) if before is None else (first & (before[rows] == sample.flatten()[starts])).long()
        )
        return cls(slots, lengths, tokens, segment * longest + number, rows, last,
                   (sample != PADDING).any(1).long(), continues)  # fmt: skip


@dataclass(frozen=True)
class SourceEnds(Layout):
    """For each segment of the decoder the first and the last token of its sample in the second set, and the layout of
    attention to this set."""

    attention: Layout
    first: Int[Tensor, "s"]
    """The slot (row * m + column) of the first token in the second set."""
    last: Int[Tensor, "s"]
    present: Int[Tensor, "s"]
    """1 for samples that have tokens in the second set, else 0."""

    def to(self, device: torch.device | str) -> SourceEnds:
        return replace(super().to(device), attention=self.attention.to(device))

    @classmethod
    def of(cls, tokens: Tokens, source: Tokens, attention: Layout) -> SourceEnds:
        """Returns the ends for the segments of `tokens` (see `Segments.of`)."""
        sample = tokens.sample.flatten()[Segments.of(tokens.sample).slots[:, :1]].flatten()
        slots, others = torch.arange(source.sample.numel()), source.sample.flatten()
        count = 1 + int(max(others.max(), tokens.sample.max()))
        ends = [torch.zeros(count, dtype=torch.long).scatter_reduce(0, others, slots, how, include_self=False)[sample]
                for how in ("amin", "amax")]  # fmt: skip
        return cls(attention, *ends, (others.bincount(minlength=count)[sample] > 0).long())


@dataclass(frozen=True, kw_only=True)
class LstmOptions:
    """The options of the block `lstm`."""

    soft: bool = True
    """Whether the decoder also attends to the output of the encoder at every token; otherwise it only begins with the
    first and the last vector of this output."""
    norm: Callable[[int], Norm] = LayerNorm
    """The normalisation of the vectors before (or after) each branch."""
    residual: Callable[..., PreNorm | PostNorm] = PreNorm
    """The position of the normalisation: `pre_norm` or `post_norm`."""


class Lstm(BaseBlock):
    """A layer of LSTM cells. A causal graph has one direction; in an encoder whose graph is `same_sample`, half of the
    channels are computed from the first token to the last one, the other half in the other direction. The state begins
    anew at each sample. In a decoder it begins with a linear map of the first and the last vector of the encoder's
    output; with `soft`, attention to all vectors of this output follows.

    On a CPU it is computed in float32: 512 channels take 1.5 times as long in bfloat16 (`benchmarks/LOG.md`)."""

    Options = LstmOptions

    def __init__(
        self, width: int, heads: int, dropout: Dropout = Dropout(), skip: float = 0.0, crosses: bool = False, *,
        graph: Graph | None = None, options: LstmOptions = LstmOptions(),
    ):  # fmt: skip
        super().__init__()
        self.two_sided = graph is not None and not graph.is_causal()
        if self.two_sided and width % 2:
            raise ValueError(f"lstm in two directions needs an even width, not {width}")
        hidden = width // 2 if self.two_sided else width
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=self.two_sided)
        for parameter in self.lstm.parameters():
            parameter.role = "keep"
        self.add_lstm = options.residual(width, options.norm, dropout.residual, skip)
        self.crosses = crosses
        if crosses:
            self.start = Linear(2 * width, 2 * hidden)
        self.soft = options.soft and crosses
        if self.soft:
            self.cross_attention = Attention(width, heads, dropout=dropout.attention)
            self.add_cross_attention = options.residual(width, options.norm, dropout.residual, skip)

    def problems(self, graph: Graph, role: Role) -> Problems:
        possible = {frozenset({Causal(), SameSample()}): "causal & same_sample"}
        if role == "encoder":
            possible[frozenset({SameSample()})] = "same_sample"
        if frozenset(graph.parts()) not in possible:
            needed = " or ".join(possible.values())
            yield ("attention",), f"must be {needed}, because the block lstm reads the preceding tokens of the sample"

    def plan(self, graph: Graph, tokens: Tokens, keys: Tokens | None, **options: Any) -> Segments:
        """Returns the samples of the rows. `keys`: all tokens so far, if `tokens` continue a cached text."""
        earlier = 0 if keys is None else keys.shape[1] - tokens.shape[1]
        before = keys.sample[:, earlier - 1] if earlier else None
        return Segments.of(tokens.sample, before).to(options.get("device", "cpu"))

    def plan_rows(self, graph: Graph, tokens: Tokens, **options: Any) -> Segments:
        if options.get("is_padded"):
            raise ValueError("lstm: padding_mask is not supported; pass `tokens`, whose sample is 0 for padding")
        return Segments.of(torch.arange(1, tokens.shape[0] + 1)[:, None].expand(tokens.shape)).to(tokens.sample.device)

    def plan_cross(self, tokens: Tokens, source: Tokens, **options: Any) -> SourceEnds:
        attention = super().plan_cross(tokens, source, **options)
        return SourceEnds.of(tokens, source, attention).to(options.get("device", "cpu"))

    def empty_state(self, rows: int, capacity: int, *, dtype: torch.dtype, device: torch.device | str) -> RowState:
        hidden = torch.zeros(rows, self.lstm.hidden_size, dtype=self.lstm.weight_hh_l0.dtype, device=device)
        return RowState(hidden=hidden, memory=torch.zeros_like(hidden))

    def output_norm(self) -> nn.Module | None:
        last = self.add_cross_attention if self.soft else self.add_lstm
        return None if last.normalises_output else last.norm

    def forward(
        self, x: Float[Tensor, "b n d"], context: AttentionContext, source: Float[Tensor, "b m d"] | None = None,
        source_context: AttentionContext | None = None,
    ) -> Float[Tensor, "b n d"]:  # fmt: skip
        start = self.start_of(source, source_context.layout) if self.crosses else None
        x = self.add_lstm(x, self.read, context, start)
        if self.soft:
            layout = source_context.layout
            attended = source_context._replace(layout=getattr(layout, "attention", layout))
            x = self.add_cross_attention(x, self.cross_attention, attended, source)
        return x

    def start_of(self, source: Float[Tensor, "b m d"], layout: Layout) -> tuple[Tensor, Tensor]:
        """Returns the hidden state and the memory at the start of each segment, (s, h) each. A sample without a second
        set begins with the map of zeros."""
        if isinstance(layout, SourceEnds):
            flat = source.flatten(0, 1)
            ends = torch.cat([flat[layout.first], flat[layout.last]], dim=-1) * layout.present[:, None]
        else:  # one sample in each row
            ends = torch.cat([source[:, 0], source[:, -1]], dim=-1)
        hidden, memory = self.start(ends).chunk(2, dim=-1)
        return hidden.tanh(), memory

    def read(
        self, x: Float[Tensor, "b n d"], context: AttentionContext, start: tuple[Tensor, Tensor] | None
    ) -> Float[Tensor, "b n d"]:  # fmt: skip
        """Returns the output of the cells for each token; zero for padding."""
        segments, state, dtype = context.layout, context.cache, self.lstm.weight_hh_l0.dtype
        flat = x.flatten(0, 1).to(dtype)
        if not len(segments.lengths):
            return torch.zeros_like(x)
        states = start if start is not None else (flat.new_zeros(len(segments.lengths), self.lstm.hidden_size),) * 2
        states = tuple(each.to(dtype) for each in states)
        if state is not None:
            goes_on = segments.continues.bool()[:, None]
            stored = (state.hidden[segments.rows], state.memory[segments.rows])
            states = tuple(torch.where(goes_on, old, new) for old, new in zip(stored, states, strict=True))
        with torch.autocast(x.device.type, enabled=x.device.type != "cpu"):
            packed = pack_padded_sequence(
                flat[segments.slots], segments.lengths, batch_first=True, enforce_sorted=False
            )
            output, last = self.lstm(packed, None if self.two_sided else tuple(each[None] for each in states))
        if state is not None:
            found = segments.has_tokens.bool()[:, None]
            new = {name: torch.where(found, each[0][segments.last], vars(state)[name])
                   for name, each in zip(("hidden", "memory"), last, strict=True)}  # fmt: skip
            state.set(**new)
        padded, _ = pad_packed_sequence(output, batch_first=True)
        result = torch.zeros_like(flat).index_copy(0, segments.tokens, padded.flatten(0, 1)[segments.places].to(dtype))
        return result.view_as(x).to(x.dtype)
