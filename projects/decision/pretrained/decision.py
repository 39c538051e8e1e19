"""The decision transformer (Chen et al. 2021, arXiv:2106.01345). Reference: transformers'
`DecisionTransformerModel`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from ....models.pretrained.base import At, Count, Depth, Heads, Rename, Width, put, renames
from ....models.pretrained.gpt2 import ACTIVATIONS, Gpt2Blocks, gpt2_blocks

READ = {"return": "return", "observation": "state", "action": "action"}
"""Our inputs, in the order of a step, and their names."""
NORM, SECONDS = {"use": "layer_norm", "epsilon": 1e-5}, {"use": "learned_second"}


class Decision(Gpt2Blocks):
    """A decision transformer's `config.json`. Theirs reads numbers as they are given: the mean and the scale of what is
    observed, and by how much returns are divided, are not in its files (`inputs.observation.mean`, `scale`)."""

    kinds = ("decision_transformer",)
    reference = "DecisionTransformerModel"

    yaml: ClassVar = {
        **{f"inputs.{name}": {"use": "sensor", "position": SECONDS, "norm": NORM} for name in READ},
        "inputs.return.channels": 1, "inputs.observation.offset": 0.25, "inputs.action.offset": 0.5,
        "model.attention": "causal & same_sample", "model.block.norm.use": "layer_norm", "data.order": "seconds",
        "tasks.act": {"use": "next_item", "target": "action", "at": "observation"},
        "tasks.state": {"use": "next_item", "target": "observation", "at": "action"},
        "tasks.to_go": {"use": "next_item", "target": "return", "at": "action"},
    }  # fmt: skip

    state_dim: Annotated[Count, At("inputs.observation.channels")] = 17
    act_dim: Annotated[Count, At("inputs.action.channels")] = 4
    hidden_size: Annotated[Width, At("model.width")] = 128
    max_ep_len: Annotated[Count, At(*(f"inputs.{name}.position.length" for name in READ))] = 4096
    action_tanh: Annotated[bool, At("tasks.act.bounded")] = True
    vocab_size: Count = 1
    n_positions: Annotated[Count, At("model.context", "sizes.places")] = 1024
    n_layer: Annotated[Depth, At("model.depth")] = 3
    n_head: Annotated[Heads, At("model.heads")] = 1
    activation_function: Annotated[
        Literal["gelu_new", "gelu_pytorch_tanh", "gelu", "relu"], At("model.block.feed_forward", values=ACTIVATIONS)
    ] = "relu"

    def tree(self):
        """Numbers are read as they are given: their means are 0, their scales 1."""
        found = super().tree()
        for name, count in (("return", 1), ("observation", self.state_dim), ("action", self.act_dim)):
            for option, value in (("mean", 0.0), ("scale", 1.0)):
                put(found, f"inputs.{name}.{option}", {str(channel): value for channel in range(count)})
        return found

    def names(self):
        """Theirs adds the vector of one time step, and then of the first place, to all three tokens of a step, and
        normalises between the two, by PyTorch's own epsilon: ours has a table, a norm and a vector for each input,
        which are copies."""
        ours = [f"tokenizers.{name}." for name in READ]
        lines = [
            Rename("embed_timestep.weight", tuple(f"{each}position.table.weight" for each in ours), thrice, the_same),
            *(Rename(f"embed_ln.{leaf}", tuple(f"{each}norm.{leaf}" for each in ours), thrice, the_same)
              for leaf in ("weight", "bias")),
            Rename("encoder.wpe.weight", tuple(f"types.{name}" for name in READ), lambda table: thrice(table[0]),
                   self.first_place),
            Rename("encoder.wte.weight", (), to_theirs=lambda: torch.zeros(self.vocab_size, self.hidden_size)),
        ]  # fmt: skip
        for name, theirs in READ.items():
            both = tuple(f"tokenizers.{name}.{part}.weight" for part in ("embedding", "missing"))
            lines += [
                Rename(f"embed_{theirs}.weight", both, lambda w: (w, torch.zeros_like(w)), lambda w, missing: w),
                Rename(f"embed_{theirs}.bias", f"tokenizers.{name}.embedding.bias"),
            ]
        heads = {"predict_action.0": "act.linear", "predict_state": "state.linear", "predict_return": "to_go.linear"}
        return [*lines, *gpt2_blocks("encoder."), *renames("", "heads.", heads)]

    def first_place(self, *vectors: Tensor) -> Tensor:
        """The table of places, of which the first alone is used."""
        first = the_same(*vectors)
        return torch.cat([first[None], first.new_zeros(self.n_positions - 1, len(first))])


def thrice(value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return value, value, value


def the_same(*values: Tensor) -> Tensor:
    """The tensor of which all are copies. Raises ValueError where they differ, as after a training."""
    if any(not torch.equal(values[0], other) for other in values[1:]):
        raise ValueError("return, observation and action have positions, norms or types of their own; theirs are one")
    return values[0]
