"""T5, versions 1.0 and 1.1. The reference is `T5ForConditionalGeneration` of transformers."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from .base import (  # isort: skip
    BLOCK, ENCODER_BLOCK, HEADS, Architecture, At, Count, Depth, Epsilon, Heads, Id, PublishedError, Rename, Share,
    Width, put, renames,
)  # fmt: skip

TABLE = "tokenizers.source.embedding.weight"
PARTS = dict(zip("qkvo", ("query", "key", "value", "out")))
FORWARD = {"DenseReluDense.wi": "feed_forward.up", "DenseReluDense.wi_0": "feed_forward.gate",
           "DenseReluDense.wi_1": "feed_forward.up", "DenseReluDense.wo": "feed_forward.down",
           "layer_norm": "add_feed_forward.norm"}  # fmt: skip
SELF = {"layer_norm": "add_attention.norm"} | {f"SelfAttention.{a}": f"attention.{b}" for a, b in PARTS.items()}
CROSS = {"layer_norm": "add_cross_attention.norm"}
CROSS |= {f"EncDecAttention.{a}": f"cross_attention.{b}" for a, b in PARTS.items()}
BUCKETS = At("model.position.buckets", "model.encoder.position.buckets")
DISTANCE = At("model.position.longest", "model.encoder.position.longest")
DROPOUT = At("model.dropout.residual", "model.dropout.embedding", "model.dropout.attention")
ACTIVATION = At("model.block.feed_forward.use", values={"relu": "relu", "gated-gelu": "geglu"})
LONGEST = 512
"""The context length of encoder and decoder in our YAML. T5 itself has relative positions and no maximum length."""


class T5(Architecture):
    """The `config.json` of a T5. The file does not determine whether the weights contain an untied head. Therefore call
    `settled` with the weights before `tree` and `names`."""

    kinds = ("t5",)
    reference = "T5ForConditionalGeneration"

    yaml = {
        "inputs": {"source": {"use": "text", "position": None}, "target": {"same_as": "source"}},
        "model": {"attention": "causal & same_sample", "context": LONGEST},
        "model.position": {"use": "relative_bias", "bidirectional": False},
        "model.encoder": {"context": LONGEST, "position": {"use": "relative_bias"}},
        "model.block": {"norm": {"use": "rms_norm"}, "bias": False, "scaled": False},
        "tasks.answer": {"use": "sequence_to_sequence", "target": "target"},
    }  # fmt: skip

    vocab_size: Annotated[Count, At("sizes.rows")] = 32128
    d_model: Annotated[Width, At("model.width")] = 512
    d_kv: Annotated[Width, At("model.block.head_width")] = 64
    d_ff: Annotated[Width, At("sizes.inner")] = 2048
    num_layers: Annotated[Depth, At("model.encoder.depth", "model.depth")] = 6
    num_decoder_layers: Annotated[Depth | None, At("model.depth")] = None
    num_heads: Annotated[Heads, At("model.heads")] = 8
    relative_attention_num_buckets: Annotated[Count, BUCKETS] = 32
    relative_attention_max_distance: Annotated[Count, DISTANCE] = 128
    dropout_rate: Annotated[Share, DROPOUT] = 0.1
    layer_norm_epsilon: Annotated[Epsilon, At("model.block.norm.epsilon")] = 1e-6
    feed_forward_proj: Annotated[Literal["relu", "gated-gelu"], ACTIVATION] = "relu"
    tie_word_embeddings: Annotated[bool, At("tasks.answer.head.use", values=HEADS)] = True
    scale_decoder_outputs: bool | None = None
    pad_token_id: Id | None = 0
    decoder_start_token_id: Annotated[Id | None, At("legend.start")] = None
    eos_token_id: Annotated[Id | list[Id] | None, At("legend.end")] = 1

    def settled(self, theirs: dict[str, Tensor]) -> T5:
        """Returns a copy in which `tie_word_embeddings` and `scale_decoder_outputs` are set. `tie_word_embeddings`
        follows from their tensors: it is True if there is no head, or if the head equals the embedding table. Raises
        PublishedError if the outputs are scaled and the head is untied."""
        head = theirs.get("lm_head.weight")
        tied = head is None or torch.equal(head, theirs.get("shared.weight", torch.zeros(0)))
        scaled = self.tie_word_embeddings if self.scale_decoder_outputs is None else self.scale_decoder_outputs
        if scaled and not tied:
            raise PublishedError("config.json: scaled outputs with an untied head are not reproduced")
        return self.model_copy(update={"tie_word_embeddings": tied, "scale_decoder_outputs": scaled})

    def tree(self):
        tree = super().tree()
        if self.gated:
            put(tree, "model.block.feed_forward.multiple_of", 1)
        if self.tie_word_embeddings:
            put(tree, "tasks.answer.head.scaled", self.scale_decoder_outputs)
        return tree

    @classmethod
    def from_tree(cls, tree, tensors, legend):
        head = tree["tasks"]["answer"]["head"]
        if head == {"use": "tied", "scaled": False}:
            raise PublishedError(
                "a T5 with a tied head scales its outputs; this run has scaled: false in tasks.answer.head, so it "
                "cannot be exported"
            )
        inner = len(tensors[f"{BLOCK}attention.query.weight".format(layer=0)])
        others = {"d_kv": inner // tree["model"]["heads"], "scale_decoder_outputs": head["use"] == "tied"}
        return super().from_tree(tree, tensors, legend, others)

    def names(self):
        bias = "block.0.layer.{}.relative_attention_bias.weight"
        return [
            Rename("shared.weight", TABLE),
            Rename(f"encoder.{bias.format('0.SelfAttention')}", "cores.encoder.position.table.weight"),
            Rename(f"decoder.{bias.format('0.SelfAttention')}", "cores.main.position.table.weight"),
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
            # only in the first checkpoints; no code uses it
            Rename(f"decoder.{bias.format('1.EncDecAttention')}", (), warn=True),
        ]

    @property
    def gated(self) -> bool:
        """Whether the feed-forward layers have a gate: False in version 1.0, True in version 1.1."""
        return self.feed_forward_proj == "gated-gelu"

    @property
    def forward(self) -> dict[str, str]:
        """Maps their names of the feed-forward layers to our names."""
        others = ".wi" if self.gated else (".wi_0", ".wi_1")
        return {theirs: ours for theirs, ours in FORWARD.items() if not theirs.endswith(others)}
