"""BERT's and RoBERTa's weights under our names. Reference: transformers' `BertForMaskedLM` and `RobertaForMaskedLM`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from .described import Count, Depth, Described, Epsilon, Heads, Id, Share, Width
from .renaming import Weights, renamed

LAYER = {
    "attention.self.query": "attention.query", "attention.self.key": "attention.key",
    "attention.self.value": "attention.value", "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "add_attention.norm", "intermediate.dense": "feed_forward.up",
    "output.dense": "feed_forward.down", "output.LayerNorm": "add_feed_forward.norm",
}  # fmt: skip
HEADS = {
    "bert": {
        "cls.predictions.bias": "heads.mlm.bias", "cls.predictions.transform.dense": "heads.mlm.linear",
        "cls.predictions.transform.LayerNorm": "heads.mlm.norm",
    },
    "roberta": {"lm_head.bias": "heads.mlm.bias", "lm_head.dense": "heads.mlm.linear", "lm_head.layer_norm": "heads.mlm.norm"},
}  # fmt: skip
TABLE = {"bert": "bert.embeddings.word_embeddings.weight", "roberta": "roberta.embeddings.word_embeddings.weight"}
COPIES = {
    "bert": {"cls.predictions.decoder.weight": TABLE["bert"], "cls.predictions.decoder.bias": "cls.predictions.bias"},
    "roberta": {"lm_head.decoder.weight": TABLE["roberta"], "lm_head.decoder.bias": "lm_head.bias"},
}
"""The head's copies of the table and of its bias."""
UNREAD = {"bert": ("bert.pooler.", "cls.seq_relationship."), "roberta": ("roberta.pooler.",)}
"""What only next-sentence prediction and sentence encoders read, which has no place here."""


class Bert(Described):
    """A BERT's or a RoBERTa's `config.json`."""

    model_type: Literal["bert", "roberta"]
    vocab_size: Count | None = None
    hidden_size: Width = 768
    num_hidden_layers: Depth = 12
    num_attention_heads: Heads = 12
    intermediate_size: Width = 3072
    hidden_act: Literal["gelu"] = "gelu"
    hidden_dropout_prob: Share = 0.1
    attention_probs_dropout_prob: Share = 0.1
    max_position_embeddings: Count = 512
    layer_norm_eps: Epsilon = 1e-12
    pad_token_id: Id | None = None
    is_decoder: Literal[False] = False
    add_cross_attention: Literal[False] = False
    tie_word_embeddings: Literal[True] = True
    position_embedding_type: Literal["absolute"] | None = "absolute"

    @property
    def size(self) -> int:
        """How many ids there are."""
        return self.vocab_size or (30522 if self.model_type == "bert" else 50265)

    @property
    def first_place(self) -> int:
        """The position of a text's first token in the table: RoBERTa's first ones belong to its padding."""
        return (1 if self.pad_token_id is None else self.pad_token_id) + 1 if self.model_type == "roberta" else 0


def bert_experiment(config: Bert) -> dict[str, Any]:
    """The `inputs`, `model` and `tasks` of our YAML for a BERT or a RoBERTa. Raises ValueError where there is no position."""
    width, positions = config.hidden_size, config.max_position_embeddings - config.first_place
    if positions < 1:
        raise ValueError(
            f"config.json: max_position_embeddings ({config.max_position_embeddings}) leaves no place for a text"
        )
    norm, dropout = {"use": "layer_norm", "epsilon": config.layer_norm_eps}, config.hidden_dropout_prob
    return {
        "inputs": {"text": {"use": "text", "position": {"use": "learned", "length": positions}, "norm": norm}},
        "model": {
            "width": width, "depth": config.num_hidden_layers, "heads": config.num_attention_heads,
            "context": positions, "attention": "same_sample",
            "block": {
                "norm": norm, "residual": "post_norm",
                "feed_forward": {"use": "gelu", "approximate": "none", "ratio": config.intermediate_size / width},
            },
            "dropout": {"embedding": dropout, "attention": config.attention_probs_dropout_prob, "residual": dropout},
        },
        "tasks": {"mlm": {"use": "masked_modeling", "target": "text", "head": {"use": "masked_head", "norm": norm}}},
    }  # fmt: skip


def bert_weights(theirs: Mapping[str, Tensor], config: Bert) -> Weights:
    """transformers' tensors under the keys of our `Model`.

    Every token of one text has segment 0: its vector is added to the positions. A model saved without its head has keys
    without the family's name in front. Raises ValueError where there are no vectors of segments.
    """
    kind = config.model_type
    if not any(key.startswith(f"{kind}.") for key in theirs):
        theirs = {f"{kind}.{key}": value for key, value in theirs.items()}
    base = f"{kind}.embeddings."
    outside = HEADS[kind] | {
        f"{base}word_embeddings": "tokenizers.text.embedding", f"{base}LayerNorm": "tokenizers.text.norm",
        f"{base}position_embeddings": "tokenizers.text.position.table", f"{base}token_type_embeddings": "segments",
    }  # fmt: skip
    found, unread = renamed(
        theirs, outside, {f"{kind}.encoder.layer.": ("cores.main.blocks.", LAYER)},
        copies=COPIES[kind], computed=(".position_ids",), unread=UNREAD[kind],
    )  # fmt: skip
    segments, table = found.pop("segments.weight", None), "tokenizers.text.position.table.weight"
    if segments is None:
        raise ValueError(f"the weights have no {base}token_type_embeddings.weight")
    if table in found:
        found[table] = found[table][config.first_place :] + segments[0]
    return Weights(found, unread)
