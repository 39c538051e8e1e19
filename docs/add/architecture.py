"""A published architecture: DistilBERT, a file of `models/pretrained/`, for `chopmix import DIRECTORY RUN`.

Reference: transformers' `DistilBertForMaskedLM`. The fields are those of a `config.json`, with their places in a YAML.
"""

from typing import Annotated, Literal

from chopmix.models.pretrained.base import BLOCK, Architecture, At, Count, Depth, Heads, Rename, Share, Width, renames
from chopmix.models.pretrained.bert import BIAS, POSITIONS, TABLE, Bert

LAYER = {"attention.q_lin": "attention.query", "attention.k_lin": "attention.key", "attention.v_lin": "attention.value",
         "attention.out_lin": "attention.out", "sa_layer_norm": "add_attention.norm", "ffn.lin1": "feed_forward.up",
         "ffn.lin2": "feed_forward.down", "output_layer_norm": "add_feed_forward.norm"}  # fmt: skip
EPSILON = {f"{place}.epsilon": 1e-12 for place in ("model.block.norm", "inputs.text.norm", "tasks.mlm.head.norm")}


class DistilBert(Architecture):
    kinds = ("distilbert",)  # `model_type` of the config.json
    reference = "DistilBertForMaskedLM"
    special_tokens = Bert.special_tokens
    yaml = Bert.yaml | EPSILON

    vocab_size: Annotated[Count, At("sizes.rows")] = 30522
    dim: Annotated[Width, At("model.width")] = 768
    n_layers: Annotated[Depth, At("model.depth")] = 6
    n_heads: Annotated[Heads, At("model.heads")] = 12
    hidden_dim: Annotated[Width, At("sizes.inner")] = 3072
    activation: Literal["gelu"] = "gelu"
    dropout: Annotated[Share, At("model.dropout.residual", "model.dropout.embedding")] = 0.1
    attention_dropout: Annotated[Share, At("model.dropout.attention")] = 0.1
    max_position_embeddings: Annotated[Count, At("inputs.text.position.length", "model.context")] = 512

    def names(self):  # theirs, ours
        return [Rename("distilbert.embeddings.word_embeddings.weight", TABLE), Rename("vocab_projector.bias", BIAS),
                Rename("vocab_projector.weight", TABLE),
                Rename("distilbert.embeddings.position_embeddings.weight", POSITIONS),
                *renames("distilbert.embeddings.", "tokenizers.text.", {"LayerNorm": "norm"}),
                *renames("distilbert.transformer.layer.{layer}.", BLOCK, LAYER),
                *renames("", "heads.mlm.", {"vocab_transform": "linear", "vocab_layer_norm": "norm"})]  # fmt: skip
