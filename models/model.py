"""`Model`: the root module, which contains all parameters. The keys of a checkpoint start with the attribute names of
`Model`, for example `cores.main.norm.weight`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
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
from .initialization import Gpt2, Initialization
from .layers.relative import RelativePosition
from .layers.scalar import ScalarEmbedding
from .leaks import LeakCheck
from .tokens import TokenSet
from .transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The encoder of an encoder-decoder model (`model.encoder`; Vaswani et al. 2017, arXiv:1706.03762). The encoder
    reads all inputs except the input that is generated. The decoder reads the encoder's output by cross-attention.
    `depth`, `context` and `attention` in the section `model` are options of the decoder. Width, heads and block options
    are the same for encoder and decoder."""

    depth: int
    context: int
    """The maximum number of tokens per sample that the encoder reads."""
    attention: str | list[str] = "same_sample"
    """The attention graph of the encoder: one expression, or a list that is repeated over its layers."""
    position: Callable[..., RelativePosition] | None = None
    """The relative positions in the attention of the encoder; null: none."""


class Cores(NamedTuple):
    """The transformers of a model: either only `main`, or the decoder `main` and its `encoder`."""

    main: Transformer
    encoder: Transformer | None = None
    encoded: Sequence[str] = ()
    """The names of the inputs that the encoder reads. The main core reads all other inputs."""


class Hidden(NamedTuple):
    """The output vectors of the cores, after the final normalisation of each core."""

    main: Float[Tensor, "b n d"]
    encoder: TokenSet | None = None
    """The encoder's output, (b, m, d), with the descriptors of its tokens; None without an encoder."""

    def of(self, targets: Targets) -> Float[Tensor, "b n d"]:
        """Returns the output vectors of the core whose slots `targets` refer to."""
        return self.encoder.x if targets.of_encoder else self.main


class Model(nn.Module):
    """The complete network: it embeds the chunks of all inputs, writes the embedded tokens into sets, runs the core of
    each set and applies the heads.

    `tokenizers` maps the name of each input, in YAML order, to its embedder, or to the name of another input that
    shares its embedder (the `wte` and `wpe` of a GPT are in tokenizers/text.py). `heads` maps the name of each task
    to its head. If several inputs are in the same set, each of them has a learned type embedding. `context` is the
    largest number of tokens of a sample. `core_tokens` (0 or more) is the number of learned tokens at the start of
    every sample: the first one is the class token, all others are registers (Darcet et al. 2024, arXiv:2309.16588).
    `encoder`: the options of a second transformer that reads all inputs except the generated one (null: none); it is
    in `cores`. `initialization`: how the initial values of the weights are drawn. `scalars` names the inputs for whose
    items a task sets a number (`Chunks.scalars`). `types` maps an input to another input whose type embedding it uses.
    """

    def __init__(
        self, tokenizers: Mapping[str, nn.Module | str], cores: Cores, heads: Mapping[str, nn.Module],
        scalars: Sequence[str] = (), types: Mapping[str, str] = {}, *,
        context: int, encoder: Encoder | None = None, core_tokens: int = 0,
        initialization: Callable[[], Initialization] = Gpt2,
    ):  # fmt: skip
        super().__init__()
        self.context = context
        if core_tokens < 0:
            raise ValueError(f"core_tokens must be at least 0, not {core_tokens}")
        self.owners = {name: value if isinstance(value, str) else name for name, value in tokenizers.items()}
        embedders = {name: value for name, value in tokenizers.items() if not isinstance(value, str)}
        self.tokenizers = nn.ModuleDict(embedders)
        core_inputs = [[name for name in tokenizers if (name in cores.encoded) == encoded] for encoded in (True, False)]
        typed = [name for names in core_inputs if len(names) > 1 for name in names]
        width = cores.main.width
        self.type_owners = {name: types.get(name, name) for name in tokenizers if name in typed}
        self.types = nn.ParameterDict({name: torch.zeros(width) for name in self.type_owners.values()})
        self.scalars = nn.ModuleDict({name: ScalarEmbedding(width) for name in scalars})
        self.own = nn.Embedding(core_tokens, width) if core_tokens else None
        self.cores = nn.ModuleDict(({"encoder": cores.encoder} if cores.encoder else {}) | {"main": cores.main})
        self.heads = nn.ModuleDict(heads)
        self.leak_check = LeakCheck()
        initialization()(self)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the output of each task's head by the name of the task. The output has one row per supervised slot,
        or one row per target if the head pools slots."""
        hidden = self.read(batch)
        return {task: self.heads[task](at(hidden.of(t), t), t) for task, t in batch.targets.items()}

    def read(self, batch: Batch, cache: Cache | None = None, source: TokenSet | None = None) -> Hidden:
        """Returns the output vectors of the cores for the sets of a batch. `cache` holds the keys and values that the
        main core computed for earlier tokens; the keys and values of this batch are appended to it. `source` is the
        encoder's output, if it is already computed; the batch then has no encoder set."""
        if batch.encoder is not None:
            source = self.encode(batch.encoder)
        main, vectors = batch.main, None if source is None else source.x
        options = {"source": vectors, "source_layout": main.cross, "source_tokens": source, "groups": main.groups}
        x = self.core(self.mix(main).x, main.tokens, main.layouts, cache=cache, **options)
        return Hidden(self.touch_absent(x, batch) if self.training else x, source)

    def encode(self, planned: SetPlan) -> TokenSet:
        """Returns the output vectors of the encoder for its set `planned`, with the descriptors of the tokens."""
        return TokenSet(x=self.read_first(planned), **vars(planned.tokens))

    def read_first(self, planned: SetPlan) -> Float[Tensor, "b n d"]:
        """Returns the output vectors of the core `first` for its set `planned`."""
        return self.first(self.mix(planned).x, planned.tokens, planned.layouts, groups=planned.groups)

    @property
    def first(self) -> Transformer:
        """The core that runs first: the encoder if there is one, else the main core."""
        return next(iter(self.cores.values()))

    @property
    def core(self) -> Transformer:
        """The main core: the decoder, or the only core."""
        return self.cores["main"]

    @property
    def graphs(self) -> list[tuple[Graph, ...]]:
        """The attention graphs of the main core, then those of the encoder if there is one; one graph per layer."""
        return [core.graphs for core in reversed(self.cores.values())]

    def tokenizer(self, name: str) -> nn.Module:
        """Returns the embedder of the input `name`. Several inputs can share an embedder."""
        return self.tokenizers[self.owners[name]]

    @property
    def inputs(self) -> list[str]:
        """The names of all inputs, in YAML order."""
        return list(self.owners)

    def mix(self, planned: SetPlan) -> TokenSet:
        """Embeds the chunks of each input and adds the type embeddings. Returns the set with every token in its slot;
        slots without a token are zero. The vectors have the dtype of the model's weights, even if an embedder returns
        half precision under autocast.

        Raises ContractError if an embedder does not return one vector of the model's width per token."""
        b, n = planned.tokens.shape
        width, like = self.core.width, next(self.parameters())
        x = like.new_zeros(b * n, width)
        for name, chunks in planned.chunks.items():
            tokens = self.tokenizer(name)(chunks)
            count = b * n if chunks.slots is None else len(chunks.slots)
            check_embedded(name, self.tokenizer(name), tokens, count, width)
            if name in self.type_owners:
                tokens = tokens + self.types[self.type_owners[name]]
            tokens = tokens + self.scalars[name](chunks) if name in self.scalars else tokens
            if chunks.slots is None:
                return TokenSet(x=tokens.to(x.dtype), **vars(planned.tokens))
            x = x.index_copy(0, chunks.slots, tokens.to(x.dtype))
        if self.own is not None and planned.core_slots is not None:
            core_tokens = repeat(self.own.weight, "o d -> (s o) d", s=len(planned.core_slots))
            x = x.index_copy(0, planned.core_slots.flatten(), core_tokens)
        return TokenSet(x=rearrange(x, "(b n) d -> b n d", b=b), **vars(planned.tokens))

    def touch_absent(self, x: Tensor, batch: Batch) -> Tensor:
        """Returns x plus zero times every parameter of the inputs that are missing in this batch. Therefore all
        parameters have gradients in all processes."""
        present = {name for planned in batch.sets.values() for name in planned.chunks}
        owners = {self.owners[name] for name in present}
        unused = [p for name, module in self.tokenizers.items() if name not in owners for p in module.parameters()]
        types = {self.type_owners.get(name) for name in present}
        unused += [vector for name, vector in self.types.items() if name not in types]
        unused += [p for name, module in self.scalars.items() if name not in present for p in module.parameters()]
        return x + 0.0 * sum(parameter.sum() for parameter in unused) if unused else x

    def plan(self, batch: Batch, *, dtype: torch.dtype = torch.float32, device="cpu") -> Batch:
        """Returns the batch with an attention layout for every layer. Call it once per batch, with the batch on the CPU
        and outside the compiled region. `dtype` and `device` are those of attention in the forward pass.

        A batch that has layouts already is returned unchanged. Raises LeakError if a supervised slot depends on the
        token that contains its target."""
        if batch.main.layouts:
            return batch
        self.leak_check.check(batch, *self.graphs)
        main, encoder = self.plan_inputs(batch.main, dtype=dtype, device=device), batch.encoder
        layouts = self.core.plan(main.tokens, None, dtype, device)
        main = replace(main, layouts=layouts, groups=self.core.group(main.tokens))
        if encoder is not None:
            encoder = self.plan_first(encoder, dtype=dtype, device=device)
            main = replace(main, cross=self.core.plan_cross(main.tokens, encoder.tokens, dtype, device))
        return replace(batch, main=main, encoder=encoder)

    def without_weights(self) -> Model:
        """Returns a copy of the model that can only plan batches: its parameters and buffers have no memory."""
        copies: dict[int, Tensor] = {}
        for tensor in (*self.parameters(), *self.buffers()):
            empty = tensor.detach().to("meta")
            copies[id(tensor)] = nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty
        return deepcopy(self, copies)

    def plan_first(self, planned: SetPlan, *, dtype: torch.dtype = torch.float32, device="cpu") -> SetPlan:
        """Returns the set `planned` of the core `first` with an attention layout for every layer of this core."""
        planned = self.plan_inputs(planned, dtype=dtype, device=device)
        layouts = self.first.plan(planned.tokens, None, dtype, device)
        return replace(planned, layouts=layouts, groups=self.first.group(planned.tokens))

    def plan_inputs(self, planned: SetPlan, *, dtype: torch.dtype, device) -> SetPlan:
        """Returns the set `planned`, in which the embedders have planned the inner sets of their chunks
        (`Chunks.inner`)."""
        planned_chunks = {
            name: chunks if chunks.inner is None else self.tokenizer(name).plan(chunks, dtype=dtype, device=device)
            for name, chunks in planned.chunks.items()
        }
        return replace(planned, chunks=planned_chunks)


def at(hidden: Float[Tensor, "b n d"], targets: Targets) -> Float[Tensor, "t d"]:
    """Returns the output vectors at the supervised slots of a task. The head reads only these vectors."""
    flat = rearrange(hidden, "b n d -> (b n) d")
    return flat if targets.slots is None else flat.index_select(0, targets.slots)
