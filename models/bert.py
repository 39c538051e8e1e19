"""BERT's and RoBERTa's weights under our names. Reference: transformers' `BertForMaskedLM` and `RobertaForMaskedLM`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .renaming import renamed, require

EXACT = {
    "hidden_act": "gelu", "is_decoder": False, "add_cross_attention": False, "tie_word_embeddings": True,
    "position_embedding_type": "absolute",
}  # fmt: skip
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
IGNORED = {
    "bert": ("cls.predictions.decoder.", "bert.embeddings.position_ids", "bert.pooler.", "cls.seq_relationship."),
    "roberta": ("lm_head.decoder.", "roberta.embeddings.position_ids", "roberta.pooler."),
}
"""The head's copy of the table, a list of numbers, and what only next-sentence prediction reads."""


def bert_experiment(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `inputs`, `model` and `tasks` of our YAML for a `config.json` of model type bert or roberta.

    Raises ValueError naming an option that we do not reproduce exactly; nothing is approximated.
    """
    require(config, EXACT)
    width, positions = config["hidden_size"], places(config)
    norm = {"use": "layer_norm", "epsilon": config.get("layer_norm_eps", 1e-12)}
    dropout = config.get("hidden_dropout_prob", 0.1)
    return {
        "inputs": {"text": {"use": "text", "position": {"use": "learned", "length": positions}, "norm": norm}},
        "model": {
            "width": width, "depth": config["num_hidden_layers"], "heads": config["num_attention_heads"],
            "context": positions, "attention": "same_sample",
            "block": {
                "norm": norm, "residual": "post_norm",
                "feed_forward": {"use": "gelu", "approximate": "none", "ratio": config["intermediate_size"] / width},
            },
            "dropout": {"embedding": dropout, "attention": config.get("attention_probs_dropout_prob", 0.1),
                        "residual": dropout},
        },
        "tasks": {"mlm": {"use": "masked_modeling", "target": "text", "head": {"use": "masked_head", "norm": norm}}},
    }  # fmt: skip


def places(config: Mapping[str, Any]) -> int:
    """How many tokens a text may have: RoBERTa's first positions belong to its padding."""
    return config["max_position_embeddings"] - first_place(config)


def first_place(config: Mapping[str, Any]) -> int:
    """The position of a text's first token in the table."""
    return config.get("pad_token_id", 1) + 1 if config["model_type"] == "roberta" else 0


def bert_weights(theirs: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """transformers' tensors under the keys of our `Mixture`. What has no place here stays under its own name.

    Every token of one text has segment 0: its vector is added to the positions. A model saved without its head has keys
    without the family's name in front. Raises ValueError where there are no vectors of segments.
    """
    kind = config["model_type"]
    if not any(key.startswith(f"{kind}.") for key in theirs):
        theirs = {f"{kind}.{key}": value for key, value in theirs.items()}
    base = f"{kind}.embeddings."
    outside = HEADS[kind] | {
        f"{base}word_embeddings": "tokenizers.text.embedding", f"{base}LayerNorm": "tokenizers.text.norm",
        f"{base}position_embeddings": "tokenizers.text.position.table", f"{base}token_type_embeddings": "segments",
    }  # fmt: skip
    found = renamed(theirs, outside, {f"{kind}.encoder.layer.": ("cores.main.blocks.", LAYER)}, IGNORED[kind])
    segments, table = found.pop("segments.weight", None), "tokenizers.text.position.table.weight"
    if segments is None:
        raise ValueError(f"the weights have no {base}token_type_embeddings.weight")
    if table in found:
        found[table] = found[table][first_place(config) :] + segments[0]
    return found
