"""The decision transformer (Chen et al. 2021, arXiv:2106.01345). Reference: transformers'
`DecisionTransformerModel`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ....models.pretrained.base import At, Count, Depth, Heads, Rename, Width, put, renames
from ....models.pretrained.gpt2 import ACTIVATIONS, Gpt2Blocks, gpt2_blocks

READ = {"return": "return", "observation": "state", "action": "action"}
"""The inputs in the order of a step, with their names in transformers."""
Channels = Annotated[int, Field(ge=1, le=2**14)]
"""The number of channels of observations or actions."""
NORM, SECONDS = {"use": "layer_norm", "epsilon": 1e-5}, {"use": "learned_second"}


class Decision(Gpt2Blocks):
    """The `config.json` of a decision transformer. The model expects numbers that are already normalised. Its files
    contain neither the mean and scale of the observations (`inputs.observation.mean`, `scale`) nor the scale of the
    returns."""

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

    state_dim: Annotated[Channels, At("inputs.observation.channels")] = 17
    act_dim: Annotated[Channels, At("inputs.action.channels")] = 4
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
        """Sets the mean of all numbers to 0 and their scale to 1, because the numbers are already normalised."""
        tree = super().tree()
        for name, count in (("return", 1), ("observation", self.state_dim), ("action", self.act_dim)):
            for option, value in (("mean", 0.0), ("scale", 1.0)):
                put(tree, f"inputs.{name}.{option}", {str(channel): value for channel in range(count)})
        return tree

    def names(self):
        """In the reference, all three tokens of a step share the vector of the time step, the norm (with PyTorch's
        default epsilon) and the vector of position 0. Our model has a table, a norm and a vector for each input, which
        are copies."""
        ours = [f"tokenizers.{name}." for name in READ]
        lines = [
            Rename("embed_timestep.weight", tuple(f"{prefix}position.table.weight" for prefix in ours), copies, common),
            *(Rename(f"embed_ln.{leaf}", tuple(f"{prefix}norm.{leaf}" for prefix in ours), copies, common)
              for leaf in ("weight", "bias")),
            Rename("encoder.wpe.weight", tuple(f"types.{name}" for name in READ), lambda table: copies(table[0]),
                   self.position_table),
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

    def position_table(self, *vectors: Tensor) -> Tensor:
        """Returns a table of positions for the reference. Only its first row is used; all other rows are 0."""
        first = common(*vectors)
        return torch.cat([first[None], first.new_zeros(self.n_positions - 1, len(first))])


def copies(value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns three references to a tensor, one for each input."""
    return value, value, value


def common(*values: Tensor) -> Tensor:
    """Returns the first of several tensors that must be equal. Raises ValueError if they differ, which can be the case
    after training."""
    if any(not torch.equal(values[0], other) for other in values[1:]):
        raise ValueError(
            "return, observation and action share one position table, one LayerNorm and one type embedding in the "
            "target format; those of this run are not equal (training makes them differ), so it cannot be exported"
        )
    return values[0]
