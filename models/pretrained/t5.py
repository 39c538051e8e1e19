"""T5, versions 1.0 and 1.1. Reference: transformers' `T5ForConditionalGeneration`."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .base import (
    BLOCK,
    ENCODER_BLOCK,
    Architecture,
    Count,
    Depth,
    Epsilon,
    Heads,
    Id,
    PublishedError,
    Rename,
    Share,
    Width,
    renames,
)  # fmt: skip

TABLE, TABLES = (
    "tokenizers.source.embedding.weight",
    ("cores.encoder.position.table.weight", "cores.main.position.table.weight"),
)
PARTS = dict(zip("qkvo", ("query", "key", "value", "out")))
FORWARD = {"DenseReluDense.wi": "feed_forward.up", "DenseReluDense.wi_0": "feed_forward.gate",
           "DenseReluDense.wi_1": "feed_forward.up", "DenseReluDense.wo": "feed_forward.down",
           "layer_norm": "add_feed_forward.norm"}  # fmt: skip
SELF = {"layer_norm": "add_attention.norm"} | {f"SelfAttention.{a}": f"attention.{b}" for a, b in PARTS.items()}
CROSS = {"layer_norm": "add_cross_attention.norm"} | {
    f"EncDecAttention.{a}": f"cross_attention.{b}" for a, b in PARTS.items()
}
LONGEST = 512
"""A T5 has no longest text: how many tokens are read, and written, at most."""


class T5(Architecture):
    """A T5's `config.json`. `settled` says whether the weights hold a head of their own, which the file leaves open."""

    kinds = ("t5",)
    reference = "T5ForConditionalGeneration"

    vocab_size: Count = 32128
    d_model: Width = 512
    d_kv: Width = 64
    d_ff: Width = 2048
    num_layers: Depth = 6
    num_decoder_layers: Depth | None = None
    num_heads: Heads = 8
    relative_attention_num_buckets: Count = 32
    relative_attention_max_distance: Count = 128
    dropout_rate: Share = 0.1
    layer_norm_epsilon: Epsilon = 1e-6
    feed_forward_proj: Literal["relu", "gated-gelu"] = "relu"
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool | None = None
    pad_token_id: Id | None = 0
    decoder_start_token_id: Id | None = None
    eos_token_id: Id | list[Id] | None = 1

    def settled(self, theirs: dict[str, Tensor]) -> T5:
        """With `tie_word_embeddings` as the weights have it: no head, or one that is a copy of the embedding table. Raises
        PublishedError for scaled outputs with a head of its own."""
        head = theirs.get("lm_head.weight")
        tied = head is None or torch.equal(head, theirs.get("shared.weight", torch.zeros(0)))
        scaled = self.tie_word_embeddings if self.scale_decoder_outputs is None else self.scale_decoder_outputs
        if scaled and not tied:
            raise PublishedError("config.json: scaled outputs with a head of its own are not reproduced")
        return self.model_copy(update={"tie_word_embeddings": tied, "scale_decoder_outputs": scaled})

    def tree(self):
        width, rate, gated = self.d_model, self.dropout_rate, {"use": "geglu", "multiple_of": 1}
        position = {"use": "relative_bias", "buckets": self.relative_attention_num_buckets,
                    "longest": self.relative_attention_max_distance}  # fmt: skip
        return {
            "inputs": {"source": {"use": "text", "position": None}, "target": {"same_as": "source"}},
            "model": {
                "width": width, "depth": self.num_decoder_layers or self.num_layers,
                "heads": self.num_heads, "context": LONGEST, "attention": "causal & same_sample",
                "position": position | {"bidirectional": False},
                "encoder": {"depth": self.num_layers, "context": LONGEST, "position": position},
                "block": {
                    "norm": {"use": "rms_norm", "epsilon": self.layer_norm_epsilon}, "bias": False,
                    "feed_forward": ({"use": "relu"} if self.feed_forward_proj == "relu" else gated) | {"ratio": self.d_ff / width},
                    "head_width": self.d_kv, "scaled": False,
                },
                "dropout": {"embedding": rate, "attention": rate, "residual": rate},
            },
            "tasks": {"answer": {
                "use": "sequence_to_sequence", "target": "target",
                "head": {"use": "tied", "scaled": self.scale_decoder_outputs} if self.tie_word_embeddings else "unembedding",
            }},
        }  # fmt: skip

    @classmethod
    def from_tree(cls, tree, tensors, legend):
        model, block, head = tree["model"], tree["model"]["block"], tree["tasks"]["answer"]["head"]
        up, width = (
            tensors[f"{BLOCK}{name}.weight".format(layer=0)] for name in ("feed_forward.up", "attention.query")
        )
        if head == {"use": "tied", "scaled": False}:
            raise PublishedError("a T5's outputs are scaled where its head is the embedding table")
        return cls(
            vocab_size=len(tensors[TABLE]), d_model=model["width"], d_kv=len(width) // model["heads"], d_ff=len(up),
            num_layers=model["encoder"]["depth"], num_decoder_layers=model["depth"], num_heads=model["heads"],
            relative_attention_num_buckets=model["position"]["buckets"],
            relative_attention_max_distance=model["position"]["longest"], dropout_rate=model["dropout"]["residual"],
            layer_norm_epsilon=block["norm"]["epsilon"],
            feed_forward_proj="gated-gelu" if block["feed_forward"]["use"] == "geglu" else "relu",
            tie_word_embeddings=head["use"] == "tied", scale_decoder_outputs=head["use"] == "tied",
            decoder_start_token_id=legend.start, eos_token_id=legend.end,
        )  # fmt: skip

    def names(self):
        bias = "block.0.layer.{}.relative_attention_bias.weight"
        return [
            Rename("shared.weight", TABLE),
            *(
                Rename(f"{side}.{bias.format('0.SelfAttention')}", table)
                for side, table in zip(("encoder", "decoder"), TABLES)
            ),
            *renames("encoder.", "cores.encoder.", {"final_layer_norm": "norm"}),
            *renames("decoder.", "cores.main.", {"final_layer_norm": "norm"}),
            *renames("encoder.block.{layer}.layer.0.", ENCODER_BLOCK, SELF),
            *renames("encoder.block.{layer}.layer.1.", ENCODER_BLOCK, self.forward),
            *renames("decoder.block.{layer}.layer.0.", BLOCK, SELF),
            *renames("decoder.block.{layer}.layer.1.", BLOCK, CROSS),
            *renames("decoder.block.{layer}.layer.2.", BLOCK, self.forward),
            Rename("lm_head.weight", TABLE if self.tie_word_embeddings else "heads.answer.linear.weight"),
            Rename("encoder.embed_tokens.weight", TABLE),
            Rename("decoder.embed_tokens.weight", TABLE),
            # in the first checkpoints; read by nobody
            Rename(f"decoder.{bias.format('1.EncDecAttention')}", (), told=True),
        ]

    @property
    def forward(self) -> dict[str, str]:
        """The names of the feed-forward network, of which only version 1.1 has a gate."""
        gated = self.feed_forward_proj == "gated-gelu"
        return {
            theirs: ours
            for theirs, ours in FORWARD.items()
            if not theirs.endswith(".wi" if gated else (".wi_0", ".wi_1"))
        }
