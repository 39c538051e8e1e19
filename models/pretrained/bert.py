"""BERT and RoBERTa. Reference: transformers' `BertForMaskedLM` and `RobertaForMaskedLM`."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from .base import BLOCK, Architecture, Count, Depth, Epsilon, Heads, Id, PublishedError, Rename, Share, Width, renames

LAYER = {
    "attention.self.query": "attention.query", "attention.self.key": "attention.key",
    "attention.self.value": "attention.value", "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "add_attention.norm", "intermediate.dense": "feed_forward.up",
    "output.dense": "feed_forward.down", "output.LayerNorm": "add_feed_forward.norm",
}  # fmt: skip
TABLE, POSITIONS, BIAS = "tokenizers.text.embedding.weight", "tokenizers.text.position.table.weight", "heads.mlm.bias"


class Bert(Architecture):
    """A BERT's `config.json`."""

    kinds = ("bert",)
    reference = "BertForMaskedLM"
    head: ClassVar[dict[str, str]] = {
        "cls.predictions.transform.dense": "linear", "cls.predictions.transform.LayerNorm": "norm",
    }  # fmt: skip
    bias: ClassVar[tuple[str, str]] = ("cls.predictions.bias", "cls.predictions.decoder")
    """The head's bias, and what holds copies of it and of the table."""
    unread: ClassVar[tuple[str, ...]] = ("bert.pooler.dense", "cls.seq_relationship")
    """What only next-sentence prediction and sentence encoders read, which has no place here."""

    vocab_size: Count = 30522
    hidden_size: Width = 768
    num_hidden_layers: Depth = 12
    num_attention_heads: Heads = 12
    intermediate_size: Width = 3072
    hidden_act: Literal["gelu"] = "gelu"
    hidden_dropout_prob: Share = 0.1
    attention_probs_dropout_prob: Share = 0.1
    max_position_embeddings: Count = 512
    type_vocab_size: Count = 2
    layer_norm_eps: Epsilon = 1e-12
    pad_token_id: Id | None = None
    is_decoder: Literal[False] = False
    add_cross_attention: Literal[False] = False
    tie_word_embeddings: Literal[True] = True
    position_embedding_type: Literal["absolute"] | None = "absolute"

    @property
    def first_place(self) -> int:
        """The position of a text's first token in the table."""
        return 0

    def tree(self):
        width, positions = self.hidden_size, self.max_position_embeddings - self.first_place
        if positions < 1:
            raise PublishedError(
                f"config.json: max_position_embeddings ({self.max_position_embeddings}) leaves no place for a text"
            )
        norm, dropout = {"use": "layer_norm", "epsilon": self.layer_norm_eps}, self.hidden_dropout_prob
        return {
            "inputs": {"text": {"use": "text", "position": {"use": "learned", "length": positions}, "norm": norm}},
            "model": {
                "width": width, "depth": self.num_hidden_layers, "heads": self.num_attention_heads,
                "context": positions, "attention": "same_sample",
                "block": {
                    "norm": norm, "residual": "post_norm",
                    "feed_forward": {"use": "gelu", "approximate": "none", "ratio": self.intermediate_size / width},
                },
                "dropout": {"embedding": dropout, "attention": self.attention_probs_dropout_prob, "residual": dropout},
            },
            "tasks": {"mlm": {"use": "masked_modeling", "target": "text", "head": {"use": "masked_head", "norm": norm}}},
        }  # fmt: skip

    @classmethod
    def from_tree(cls, tree, tensors, legend):
        model, block = tree["model"], tree["model"]["block"]
        first = cls(pad_token_id=legend.padding).first_place
        return cls(
            vocab_size=len(tensors[TABLE]), hidden_size=model["width"], num_hidden_layers=model["depth"],
            num_attention_heads=model["heads"], intermediate_size=len(tensors[f"{BLOCK}feed_forward.up.weight".format(layer=0)]),
            hidden_dropout_prob=model["dropout"]["residual"], attention_probs_dropout_prob=model["dropout"]["attention"],
            max_position_embeddings=len(tensors[POSITIONS]) + first, layer_norm_eps=block["norm"]["epsilon"],
            pad_token_id=legend.padding,
        )  # fmt: skip

    def names(self):
        """Every token of one text has segment 0: its vector is added to the positions. A model saved without its head has keys
        without the family's name in front."""
        kind, first = self.kinds[0], self.first_place
        base, (bias, copies) = f"[{kind}.]", self.bias

        def places(positions: Tensor, segments: Tensor) -> Tensor:
            return positions[first:] + segments[0]

        def apart(table: Tensor) -> tuple[Tensor, Tensor]:
            return torch.cat([table.new_zeros(first, table.shape[1]), table]), table.new_zeros(
                self.type_vocab_size, table.shape[1]
            )

        return [
            Rename(f"{base}embeddings.word_embeddings.weight", TABLE),
            Rename((f"{base}embeddings.position_embeddings.weight", f"{base}embeddings.token_type_embeddings.weight"), POSITIONS,
                   places, apart),
            *renames(f"{base}embeddings.", "tokenizers.text.", {"LayerNorm": "norm"}),
            *renames(base + "encoder.layer.{layer}.", BLOCK, LAYER),
            *renames("", "heads.mlm.", self.head),
            Rename(bias, BIAS), Rename(f"{copies}.weight", TABLE), Rename(f"{copies}.bias", BIAS),
            Rename(f"{base}embeddings.position_ids", ()),
            *(Rename(name.replace(f"{kind}.", base) + ".{leaf}", (), told=True) for name in self.unread),
        ]  # fmt: skip


class Roberta(Bert):
    """A RoBERTa's `config.json`: its first positions belong to its padding."""

    kinds = ("roberta",)
    reference = "RobertaForMaskedLM"
    head = {"lm_head.dense": "linear", "lm_head.layer_norm": "norm"}
    bias = ("lm_head.bias", "lm_head.decoder")
    unread = ("roberta.pooler.dense",)

    vocab_size: Count = 50265

    @classmethod
    def from_tree(cls, tree, tensors, legend):
        if legend.opening != "<s>":
            raise PublishedError("a RoBERTa's texts begin with <s>")
        return super().from_tree(tree, tensors, legend)

    @property
    def first_place(self):
        return (1 if self.pad_token_id is None else self.pad_token_id) + 1
