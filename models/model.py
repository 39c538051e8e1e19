"""`Model`: the root module. It owns every parameter; its attribute names are the keys of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from .attention.graph import Graph
from .batch import Batch, SetPlan, Targets
from .cache import Cache
from .contract import check_embedded
from .embedder import Embedder
from .initialization import Gpt2, Initialization
from .layers.relative import RelativePosition
from .leaks import LeakCheck
from .tokens import TokenSet
from .transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A second core (`model.encoder`), which reads every input but the one that is written; the decoder, with the
    layers, context and attention that stand beside it in `model`, crosses over to what it makes of them
    (arXiv:1706.03762). Width, heads and blocks are those of the decoder."""

    depth: int
    context: int
    """The most tokens that the encoder reads of a sample."""
    attention: str | list[str] = "same_sample"
    position: Callable[..., RelativePosition] | None = None


class Cores(NamedTuple):
    """The transformers of a model: one, or a decoder and the encoder that it crosses over to."""

    main: Transformer
    encoder: Transformer | None = None
    encoded: Sequence[str] = ()
    """The inputs that the encoder reads; the main core reads all others."""


class Hidden(NamedTuple):
    """What the cores make of their sets."""

    main: Float[Tensor, "b n d"]
    encoder: TokenSet | None = None
    """What the main core crossed over to."""

    def of(self, targets: Targets) -> Float[Tensor, "b n d"]:
        """The output of the core that a task's targets are about."""
        return self.encoder.x if targets.of_encoder else self.main


class Model(nn.Module):
    """Embed the chunks of every input, mix them into sets, read each set with its core, answer with the heads.

    `tokenizers` are the embedders by input name, in YAML order, or the name of another input, whose embedder serves
    both (a GPT's `wte` and `wpe` stand in tokenizers/text.py); `heads` are by task name. Inputs that share a set carry
    type embeddings. `context` is the number of slots in a
    row. `core_tokens` is how many tokens of the core itself every sample begins with: the first is the class token, the
    others are registers (Darcet et al. 2024, arXiv:2309.16588).
    """

    def __init__(
        self, tokenizers: Mapping[str, nn.Module | str], cores: Cores, heads: Mapping[str, nn.Module], *,
        context: int, encoder: Encoder | None = None, core_tokens: int = 0,
        initialization: Callable[[], Initialization] = Gpt2,
    ):  # fmt: skip
        super().__init__()
        self.context = context
        if core_tokens < 0:
            raise ValueError(f"core_tokens must be at least 0, not {core_tokens}")
        self.owners = {name: each if isinstance(each, str) else name for name, each in tokenizers.items()}
        self.tokenizers = nn.ModuleDict({name: each for name, each in tokenizers.items() if not isinstance(each, str)})
        read = [[name for name in tokenizers if (name in cores.encoded) == encoded] for encoded in (True, False)]
        together = [name for names in read if len(names) > 1 for name in names]
        width = cores.main.width
        self.types = nn.ParameterDict({name: torch.zeros(width) for name in tokenizers if name in together})
        self.own = nn.Embedding(core_tokens, width) if core_tokens else None
        self.cores = nn.ModuleDict(({"encoder": cores.encoder} if cores.encoder else {}) | {"main": cores.main})
        self.heads = nn.ModuleDict(heads)
        self.leak_check = LeakCheck()
        initialization()(self)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The output of every task's head at its supervised slots: {task: (t, ...)}."""
        hidden = self.read(batch)
        return {task: self.heads[task](at(hidden.of(t), t), t) for task, t in batch.targets.items()}

    def read(self, batch: Batch, cache: Cache | None = None, source: TokenSet | None = None) -> Hidden:
        """What the cores make of their sets. `cache` holds what the main core has read before, `source` is what it
        crosses over to, where the encoder has read that before."""
        if batch.encoder is not None:
            source = self.encode(batch.encoder)
        planned = batch.main
        x = self.core(
            self.mix(planned).x, planned.tokens, planned.layouts, cache=cache,
            source=None if source is None else source.x, source_layout=planned.cross,
        )  # fmt: skip
        return Hidden(self.touch_absent(x, batch) if self.training else x, source)

    def encode(self, planned: SetPlan) -> TokenSet:
        """What the encoder makes of its set, for another core to read."""
        return TokenSet(x=self.read_first(planned), **vars(planned.tokens))

    def read_first(self, planned: SetPlan) -> Float[Tensor, "b n d"]:
        """What the first core makes of its set: the encoder, or the only one."""
        return self.first(self.mix(planned).x, planned.tokens, planned.layouts)

    @property
    def first(self) -> Transformer:
        """The core that reads first: the encoder, or the only one."""
        return next(iter(self.cores.values()))

    @property
    def core(self) -> Transformer:
        """The one core, or the decoder."""
        return self.cores["main"]

    @property
    def graphs(self) -> list[tuple[Graph, ...]]:
        """The attention graphs of every layer: those of the main core, and those of the encoder where there is one."""
        return [core.graphs for core in reversed(self.cores.values())]

    def tokenizer(self, name: str) -> nn.Module:
        """The embedder of an input, which may be that of another input too."""
        return self.tokenizers[self.owners[name]]

    @property
    def inputs(self) -> list[str]:
        """The names of all inputs, in YAML order."""
        return list(self.owners)

    def mix(self, planned: SetPlan) -> TokenSet:
        """Chopped chunks to one set: embed each input, add its type embedding, put every token in its place. The set is
        of the type of the weights, whichever input comes first: under autocast some embedders give halves."""
        b, n = planned.tokens.shape
        width, like = self.core.width, next(self.parameters())
        x = like.new_zeros(b * n, width)
        for name, chunks in planned.chunks.items():
            tokens = self.tokenizer(name)(chunks)
            count = b * n if chunks.slots is None else len(chunks.slots)
            check_embedded(name, self.tokenizer(name), tokens, count, width)
            if name in self.types:
                tokens = tokens + self.types[name]
            if chunks.slots is None:
                return TokenSet(x=tokens.to(x.dtype), **vars(planned.tokens))
            x = x.index_copy(0, chunks.slots, tokens.to(x.dtype))
        if self.own is not None and planned.own is not None:
            own = repeat(self.own.weight, "o d -> (s o) d", s=len(planned.own))
            x = x.index_copy(0, planned.own.flatten(), own)
        return TokenSet(x=rearrange(x, "(b n) d -> b n d", b=b), **vars(planned.tokens))

    def touch_absent(self, x: Tensor, batch: Batch) -> Tensor:
        """`x` plus zero times every parameter of the inputs that this batch lacks: all ranks touch all parameters."""
        present = {name for planned in batch.sets.values() for name in planned.chunks}
        owners = {self.owners[name] for name in present}
        unused = [p for name, module in self.tokenizers.items() if name not in owners for p in module.parameters()]
        unused += [vector for name, vector in self.types.items() if name not in present]
        return x + 0.0 * sum(parameter.sum() for parameter in unused) if unused else x

    def plan(self, batch: Batch, *, dtype: torch.dtype = torch.float32, device="cpu") -> Batch:
        """The batch with an attention layout for every layer; on the CPU, once a batch, outside the compiled region.

        Raises LeakError where a target of the batch can reach its own predictor."""
        self.leak_check.check(batch, *self.graphs)
        main, encoder = self.plan_inputs(batch.main, dtype=dtype, device=device), batch.encoder
        main = replace(main, layouts=self.core.plan(main.tokens, None, dtype, device))
        if encoder is not None:
            encoder = self.plan_first(encoder, dtype=dtype, device=device)
            main = replace(main, cross=self.core.plan_cross(main.tokens, encoder.tokens, dtype, device))
        return replace(batch, main=main, encoder=encoder)

    def plan_first(self, planned: SetPlan, *, dtype: torch.dtype = torch.float32, device="cpu") -> SetPlan:
        """The set that is read first, with an attention layout for every layer of the core that reads it."""
        planned = self.plan_inputs(planned, dtype=dtype, device=device)
        return replace(planned, layouts=self.first.plan(planned.tokens, None, dtype, device))

    def plan_inputs(self, planned: SetPlan, *, dtype: torch.dtype, device) -> SetPlan:
        """The set with what each embedder must have planned of its chunks."""
        found = dict(planned.chunks)
        for name, embedder in ((name, self.tokenizer(name)) for name in planned.chunks):
            if isinstance(embedder, Embedder):
                found[name] = embedder.plan(found[name], dtype=dtype, device=device)
        return replace(planned, chunks=found)


def at(hidden: Float[Tensor, "b n d"], targets: Targets) -> Float[Tensor, "t d"]:
    """The vectors at a task's supervised slots; only these pass through the head."""
    flat = rearrange(hidden, "b n d -> (b n) d")
    return flat if targets.slots is None else flat.index_select(0, targets.slots)
