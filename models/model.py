"""`Model`: the root module. It owns every parameter; its attribute names are the keys of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from .batch import Batch, SetPlan, Targets
from .cache import Cache
from .contract import check_embedded
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


class Model(nn.Module):
    """Embed the chunks of every input, mix them into sets, read each set with its core, answer with the heads.

    `tokenizers` are the embedders by input name, in YAML order, or the name of another input, whose embedder serves
    both; `cores` the transformers by name, where each core that crosses reads the output of the core before it (an
    encoder before its decoder); `heads` are by task name. `reads` says which inputs stand in each core's set (None: all
    in the one core's): inputs that share a set carry type embeddings. `context` is the number of slots in a row.
    `core_tokens` is how many tokens of the core itself every sample begins with: the first is the class token, the
    others are registers (Darcet et al. 2024, arXiv:2309.16588).
    """

    def __init__(
        self, tokenizers: Mapping[str, nn.Module | str], cores: Mapping[str, Transformer],
        heads: Mapping[str, nn.Module], reads: Mapping[str, Sequence[str]] | None = None, *,
        context: int, encoder: Encoder | None = None, core_tokens: int = 0,
        initialization: Callable[[], Initialization] = Gpt2,
    ):  # fmt: skip
        super().__init__()
        self.context = context
        if core_tokens < 0:
            raise ValueError(f"core_tokens must be at least 0, not {core_tokens}")
        self.owners = {name: each if isinstance(each, str) else name for name, each in tokenizers.items()}
        self.tokenizers = nn.ModuleDict({name: each for name, each in tokenizers.items() if not isinstance(each, str)})
        width = next(iter(cores.values())).width
        together = [name for names in (reads or {"": tuple(tokenizers)}).values() if len(names) > 1 for name in names]
        self.types = nn.ParameterDict({name: torch.zeros(width) for name in tokenizers if name in together})
        self.own = nn.Embedding(core_tokens, width) if core_tokens else None
        self.cores = nn.ModuleDict(cores)
        self.heads = nn.ModuleDict(heads)
        self.leak_check = LeakCheck()
        initialization()(self)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The output of every task's head at its supervised slots: {task: (t, ...)}."""
        hidden = self.read(batch)
        return {task: self.heads[task](at(hidden[t.set], t), t) for task, t in batch.targets.items()}

    def read(
        self, batch: Batch, cache: Cache | None = None, source: TokenSet | None = None
    ) -> dict[str, Float[Tensor, "b n d"]]:
        """What every core makes of its set, by the core's name. `cache` holds what the last core has read before,
        `source` is what the first one crosses to, where an encoder has read it before."""
        found, last = {}, list(self.cores)[-1]
        for name, planned in batch.sets.items():
            x = self.cores[name](
                self.mix(planned).x, planned.tokens, planned.layouts, cache=cache if name == last else None,
                source=None if source is None else source.x, source_layout=planned.cross,
            )  # fmt: skip
            source, found[name] = TokenSet(x=x, **vars(planned.tokens)), x
        if self.training:
            found = {name: self.touch_absent(x, batch) if name == last else x for name, x in found.items()}
        return found

    def hidden(self, batch: Batch, cache: Cache | None = None) -> Float[Tensor, "b n d"]:
        """What the last core makes of its set."""
        return self.read(batch, cache)[list(batch.sets)[-1]]

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
        width, like = next(iter(self.cores.values())).width, next(self.parameters())
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
        self.leak_check.check(batch, {name: core.graphs for name, core in self.cores.items()})
        layouts = {name: self.cores[name].plan(s.tokens, None, dtype, device) for name, s in batch.sets.items()}
        names = list(batch.sets)
        crosses = {
            name: self.cores[name].plan_cross(batch.sets[name].tokens, batch.sets[before].tokens, dtype, device)
            for before, name in zip(names, names[1:])
        }
        return batch.with_layouts(layouts, crosses)


def at(hidden: Float[Tensor, "b n d"], targets: Targets) -> Float[Tensor, "t d"]:
    """The vectors at a task's supervised slots; only these pass through the head."""
    flat = rearrange(hidden, "b n d -> (b n) d")
    return flat if targets.slots is None else flat.index_select(0, targets.slots)
