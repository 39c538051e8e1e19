"""`Mixture`: the root module. It owns every parameter; its attribute names are the keys of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from .batch import Batch, PlannedSet, Targets
from .cache import Cache
from .initialization import Gpt2, Initialization
from .token_set import TokenSet
from .transformer import Transformer


class Mixture(nn.Module):
    """Embed the pieces of every input, mix them into one set, read it with the core, answer with the heads.

    `tokenizers` are the embedders by input name, in YAML order; `cores` the transformers by name, where each core that
    crosses reads the output of the core before it (an encoder before its decoder); `heads` are by task name and answer
    from the last core. `context` is the number of places in a row. `own_tokens` is how many tokens of the core itself every
    sample begins with: the first is the class token, the others are registers (Darcet et al. 2024, arXiv:2309.16588).
    """

    def __init__(
        self, tokenizers: Mapping[str, nn.Module], cores: Mapping[str, Transformer], heads: Mapping[str, nn.Module],
        *, context: int, own_tokens: int = 0, initialization: Callable[[], Initialization] = Gpt2,
    ):  # fmt: skip
        super().__init__()
        self.context = context
        if own_tokens < 0:
            raise ValueError(f"own_tokens must be at least 0, not {own_tokens}")
        self.tokenizers = nn.ModuleDict(tokenizers)
        width = next(iter(cores.values())).width
        several = len(tokenizers) > 1
        self.types = nn.ParameterDict({name: torch.zeros(width) for name in tokenizers} if several else {})
        self.own = nn.Embedding(own_tokens, width) if own_tokens else None
        self.cores = nn.ModuleDict(cores)
        self.heads = nn.ModuleDict(heads)
        initialization()(self)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The output of every task's head at its supervised places: {task: (t, ...)}."""
        hidden = self.hidden(batch)
        return {task: self.heads[task](at(hidden, targets), targets) for task, targets in batch.targets.items()}

    def hidden(self, batch: Batch, cache: Cache | None = None) -> Float[Tensor, "b n d"]:
        """What the last core makes of its set. `cache` holds the tokens that the last core has read before."""
        source, last = None, list(self.cores)[-1]
        for name, planned in batch.sets.items():
            tokens = self.mix(planned)
            x = self.cores[name](tokens, planned.layouts, cache if name == last else None, source, planned.cross)
            source = TokenSet(x=x, **vars(planned.tokens))
        return self.touch_absent(x, batch) if self.training else x

    def mix(self, planned: PlannedSet) -> TokenSet:
        """Chopped pieces to one set: embed each input, add its type embedding, put every token in its place."""
        b, n = planned.tokens.shape
        x, width = None, next(iter(self.cores.values())).width
        for name, pieces in planned.pieces.items():
            tokens = self.tokenizers[name](pieces)
            if name in self.types:
                tokens = tokens + self.types[name]
            if pieces.places is None:
                return TokenSet(x=tokens, **vars(planned.tokens))
            x = tokens.new_zeros(b * n, width) if x is None else x
            x = x.index_copy(0, pieces.places, tokens.to(x.dtype))
        if x is None:
            x = torch.zeros(b * n, width, device=planned.tokens.sample.device)
        if self.own is not None and planned.own is not None:
            own = repeat(self.own.weight, "o d -> (s o) d", s=len(planned.own))
            x = x.index_copy(0, planned.own.flatten(), own.to(x.dtype))
        return TokenSet(x=rearrange(x, "(b n) d -> b n d", b=b), **vars(planned.tokens))

    def touch_absent(self, x: Tensor, batch: Batch) -> Tensor:
        """`x` plus zero times every parameter of the inputs that this batch lacks: all ranks touch all parameters."""
        present = {name for planned in batch.sets.values() for name in planned.pieces}
        for name in self.tokenizers:
            if name not in present:
                unused = [*self.tokenizers[name].parameters(), *([self.types[name]] if name in self.types else [])]
                x = x + 0.0 * sum(parameter.sum() for parameter in unused)
        return x

    def plan(self, batch: Batch, *, dtype: torch.dtype = torch.float32, device="cpu") -> Batch:
        """The batch with an attention layout for every layer; on the CPU, once a batch, outside the compiled region."""
        layouts = {name: self.cores[name].plan(s.tokens, None, dtype, device) for name, s in batch.sets.items()}
        names = list(batch.sets)
        crosses = {
            name: self.cores[name].plan_cross(batch.sets[name].tokens, batch.sets[before].tokens, device)
            for before, name in zip(names, names[1:])
        }
        return batch.with_layouts(layouts, crosses)


def at(hidden: Float[Tensor, "b n d"], targets: Targets) -> Float[Tensor, "t d"]:
    """The vectors at a task's supervised places; only these pass through the head."""
    flat = rearrange(hidden, "b n d -> (b n) d")
    return flat if targets.places is None else flat.index_select(0, targets.places)


def leaks(batch: Batch, graphs: Mapping[str, Sequence]) -> dict[str, list[tuple[int, int]]]:
    """For each task, the (judged place, holder) pairs where a target can reach its own predictor through the layers.

    `graphs` are each set's attention graphs, one per layer. Empty lists prove that no target of this batch leaks.
    """
    from .graph import reach

    name, planned = list(batch.sets.items())[-1]
    n = planned.tokens.shape[1]
    known = reach(graphs[name], planned.tokens)
    found = {}
    for task, targets in batch.targets.items():
        places = torch.arange(len(targets.values)) if targets.places is None else targets.places
        if targets.holders is None:
            found[task] = []
            continue
        held = (targets.holders >= 0) & (targets.holders // n == places // n)
        bad = held & known[places // n, places % n, targets.holders.clamp(min=0) % n]
        found[task] = [(int(p), int(h)) for p, h in zip(places[bad], targets.holders[bad])]
    return found
