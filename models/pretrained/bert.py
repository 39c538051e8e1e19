"""BERT and RoBERTa. The references are `BertForMaskedLM` and `RobertaForMaskedLM` of transformers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from .base import (  # isort: skip
    BLOCK, Architecture, At, Count, Depth, Epsilon, Heads, Id, PublishedError, Rename, Share, Width, put, renames,
)  # fmt: skip

LAYER = {
    "attention.self.query": "attention.query", "attention.self.key": "attention.key",
    "attention.self.value": "attention.value", "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "add_attention.norm", "intermediate.dense": "feed_forward.up",
    "output.dense": "feed_forward.down", "output.LayerNorm": "add_feed_forward.norm",
}  # fmt: skip
TABLE, POSITIONS, BIAS = "tokenizers.text.embedding.weight", "tokenizers.text.position.table.weight", "heads.mlm.bias"


class Bert(Architecture):
    """The `config.json` of a BERT."""

    kinds = ("bert",)
    reference = "BertForMaskedLM"
    special_tokens = {"start": ("[CLS]", 101), "end": ("[SEP]", 102), "mask": ("[MASK]", 103)}
    head: ClassVar[dict[str, str]] = {
        "cls.predictions.transform.dense": "linear", "cls.predictions.transform.LayerNorm": "norm",
    }  # fmt: skip
    bias: ClassVar[tuple[str, str]] = ("cls.predictions.bias", "cls.predictions.decoder")
    """Their name of the bias of the head, and their name of a layer with copies of this bias and the embedding
    table."""
    ignored_tensors: ClassVar[tuple[str, ...]] = ("bert.pooler.dense", "cls.seq_relationship")
    """The names of layers that are not imported. Only next-sentence prediction and sentence embeddings use them."""

    yaml = {
        "inputs.text": {"use": "text", "position": {"use": "learned"}, "norm": {"use": "layer_norm"}},
        "model.attention": "same_sample", "model.block": {"norm": {"use": "layer_norm"}, "residual": "post_norm"},
        "model.block.feed_forward": {"use": "gelu", "approximate": "none"},
        "tasks.mlm": {"use": "masked_modeling", "target": "text"},
        "tasks.mlm.head": {"use": "masked_head", "norm": {"use": "layer_norm"}},
    }  # fmt: skip

    vocab_size: Annotated[Count, At("sizes.rows")] = 30522
    hidden_size: Annotated[Width, At("model.width")] = 768
    num_hidden_layers: Annotated[Depth, At("model.depth")] = 12
    num_attention_heads: Annotated[Heads, At("model.heads")] = 12
    intermediate_size: Annotated[Width, At("sizes.inner")] = 3072
    hidden_act: Literal["gelu"] = "gelu"
    hidden_dropout_prob: Annotated[Share, At("model.dropout.residual", "model.dropout.embedding")] = 0.1
    attention_probs_dropout_prob: Annotated[Share, At("model.dropout.attention")] = 0.1
    max_position_embeddings: Count = 512
    type_vocab_size: Count = 2
    layer_norm_eps: Annotated[
        Epsilon, At("model.block.norm.epsilon", "inputs.text.norm.epsilon", "tasks.mlm.head.norm.epsilon")
    ] = 1e-12
    pad_token_id: Annotated[Id | None, At("legend.padding")] = None
    is_decoder: Literal[False] = False
    add_cross_attention: Literal[False] = False
    tie_word_embeddings: Literal[True] = True
    position_embedding_type: Literal["absolute"] | None = "absolute"

    @property
    def first_position(self) -> int:
        """The row of the position table for the first token of a text."""
        return 0

    def tree(self):
        tree, rows = super().tree(), self.max_position_embeddings
        if rows <= self.first_position:
            raise PublishedError(f"config.json: max_position_embeddings ({rows}) leaves no positions for a text")
        for path in ("inputs.text.position.length", "model.context"):
            put(tree, path, rows - self.first_position)
        return tree

    @classmethod
    def from_tree(cls, tree, tensors, legend):
        rows = len(tensors[POSITIONS]) + cls(pad_token_id=legend.padding).first_position
        return super().from_tree(tree, tensors, legend, {"max_position_embeddings": rows})

    def names(self):
        """All tokens of a single text have segment 0, so the vector of segment 0 is added to the position embeddings.
        The prefix `bert.` (or `roberta.`) is optional, because a model that was saved without its head lacks it."""
        kind, first = self.kinds[0], self.first_position
        base, (bias, copies) = f"[{kind}.]", self.bias

        added = tuple(f"{base}embeddings.{name}_embeddings.weight" for name in ("position", "token_type"))

        def add_segment(positions: Tensor, segments: Tensor) -> Tensor:
            return positions[first:] + segments[0]

        def split(table: Tensor) -> tuple[Tensor, Tensor]:
            unused, segments = (table.new_zeros(rows, table.shape[1]) for rows in (first, self.type_vocab_size))
            return torch.cat([unused, table]), segments

        return [
            Rename(f"{base}embeddings.word_embeddings.weight", TABLE),
            Rename(added, POSITIONS, add_segment, split),
            *renames(f"{base}embeddings.", "tokenizers.text.", {"LayerNorm": "norm"}),
            *renames(base + "encoder.layer.{layer}.", BLOCK, LAYER),
            *renames("", "heads.mlm.", self.head),
            Rename(bias, BIAS),
            Rename(f"{copies}.weight", TABLE),
            Rename(f"{copies}.bias", BIAS),
            Rename(f"{base}embeddings.position_ids", ()),
            *(Rename(name.replace(f"{kind}.", base) + ".{leaf}", (), warn=True) for name in self.ignored_tensors),
        ]


class Roberta(Bert):
    """The `config.json` of a RoBERTa. Its position table starts with `pad_token_id` + 1 rows for padding."""

    kinds = ("roberta",)
    reference = "RobertaForMaskedLM"
    special_tokens = {"start": ("<s>", 0), "end": ("</s>", 2), "mask": ("<mask>", -1)}
    head = {"lm_head.dense": "linear", "lm_head.layer_norm": "norm"}
    bias = ("lm_head.bias", "lm_head.decoder")
    ignored_tensors = ("roberta.pooler.dense",)

    vocab_size: Annotated[Count, At("sizes.rows")] = 50265

    @classmethod
    def from_tree(cls, tree, tensors, legend):
        if legend.opening != "<s>":
            raise PublishedError("the start token of a RoBERTa must be <s>")
        return super().from_tree(tree, tensors, legend)

    @property
    def first_position(self):
        return (1 if self.pad_token_id is None else self.pad_token_id) + 1
