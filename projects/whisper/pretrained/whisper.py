"""Whisper. Reference: transformers' `WhisperForConditionalGeneration`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ....models.layers.positions import SinesThenCosines
from ..decoding import Protocol

from ....models.pretrained.base import (  # isort: skip
    BLOCK, ENCODER_BLOCK, Architecture, At, Count, Depth, Heads, Id, PublishedError, Rename, Share, Width, put, renames,
)  # fmt: skip


LAYER = {
    "self_attn.q_proj": "attention.query", "self_attn.v_proj": "attention.value", "self_attn.out_proj": "attention.out",
    "self_attn_layer_norm": "add_attention.norm", "fc1": "feed_forward.up", "fc2": "feed_forward.down",
    "final_layer_norm": "add_feed_forward.norm",
}  # fmt: skip
CROSS = {
    "encoder_attn.q_proj": "cross_attention.query", "encoder_attn.v_proj": "cross_attention.value",
    "encoder_attn.out_proj": "cross_attention.out", "encoder_attn_layer_norm": "add_cross_attention.norm",
}  # fmt: skip
TEXT = {
    "embed_tokens": "tokenizers.text.embedding", "layer_norm": "cores.main.norm",
    "embed_positions": "tokenizers.text.position.table",
}  # fmt: skip
FRAME = 0.02
"""The duration of sound per token of the encoder, in seconds."""


class Whisper(Architecture):
    """The `config.json` of a Whisper model."""

    kinds = ("whisper",)
    reference = "WhisperForConditionalGeneration"

    yaml = {
        "inputs": {"sound": {"use": "audio_stem"}, "text": {"use": "text"}}, "model.attention": "causal & same_sample",
        "model.block.feed_forward": {"use": "gelu", "approximate": "none"},
        "tasks.text": {"use": "sequence_to_sequence", "target": "text", "metrics": ["wer"]},
    }  # fmt: skip

    vocab_size: Annotated[Count, At("sizes.rows")] = 51865
    num_mel_bins: Annotated[int, Field(ge=1, le=512), At("inputs.sound.mels")] = 80
    d_model: Annotated[Width, At("model.width")] = 384
    encoder_layers: Annotated[Depth, At("model.encoder.depth")] = 4
    decoder_layers: Annotated[Depth, At("model.depth")] = 4
    encoder_attention_heads: Annotated[Heads, At("model.heads")] = 6
    decoder_attention_heads: Annotated[Heads, At("model.heads")] = 6
    encoder_ffn_dim: Annotated[Width, At("sizes.inner")] = 1536
    decoder_ffn_dim: Annotated[Width, At("sizes.inner")] = 1536
    max_source_positions: Annotated[int, Field(ge=1, le=2**14), At("model.encoder.context")] = 1500
    max_target_positions: Annotated[Count, At("model.context")] = 448
    activation_function: Literal["gelu"] = "gelu"
    scale_embedding: Literal[False] = False
    tie_word_embeddings: Literal[True] = True
    dropout: Annotated[Share, At("model.dropout.residual", "model.dropout.embedding")] = 0.0
    attention_dropout: Annotated[Share, At("model.dropout.attention")] = 0.0
    decoder_start_token_id: Annotated[Id | None, At("legend.start")] = None
    bos_token_id: Annotated[Id | list[Id] | None, At("legend.end")] = None
    eos_token_id: Annotated[Id | list[Id] | None, At("legend.end")] = None
    pad_token_id: Id | None = None
    suppress_tokens: list[Id] | None = None
    begin_suppress_tokens: list[Id] | None = None

    def tree(self):
        for name in ("attention_heads", "ffn_dim"):
            if getattr(self, f"encoder_{name}") != getattr(self, f"decoder_{name}"):
                raise PublishedError(f"config.json: encoder_{name} and decoder_{name} differ; this is not supported")
        tree = super().tree()
        for name in ("fill", "longest"):
            put(tree, f"inputs.sound.{name}", self.max_source_positions * FRAME)
        return tree

    @classmethod
    def from_tree(cls, tree, tensors, legend):
        return super().from_tree(tree, tensors, legend, {"pad_token_id": legend.ends[0]})

    def names(self):
        """In Whisper, the linear map of the keys has no bias. In our model, this bias is 0 after the import. A bias
        adds the same value to all scores of a query, which does not change attention. The positions of the encoder are
        fixed sines and cosines."""
        encoder, decoder = "model.encoder.layers.{layer}.", "model.decoder.layers.{layer}."
        keys = [(f"{encoder}self_attn", f"{ENCODER_BLOCK}attention"), (f"{decoder}self_attn", f"{BLOCK}attention"),
                (f"{decoder}encoder_attn", f"{BLOCK}cross_attention")]  # fmt: skip
        return [
            *renames("model.encoder.", "tokenizers.sound.", {"conv1": "first", "conv2": "second"}),
            *renames("model.encoder.", "cores.encoder.", {"layer_norm": "norm"}),
            *renames("model.decoder.", "", TEXT),
            *renames(encoder, ENCODER_BLOCK, LAYER),
            *renames(decoder, BLOCK, LAYER | CROSS),
            *(Rename(f"{theirs}.k_proj.weight", (f"{ours}.key.weight", f"{ours}.key.bias"),
                     lambda w: (w, w.new_zeros(len(w))), lambda w, b: w) for theirs, ours in keys),
            Rename("model.encoder.embed_positions.weight", (),
                   lambda table: check_waves(table, self.max_source_positions),
                   lambda: SinesThenCosines(self.d_model, self.max_source_positions).table),
            Rename("proj_out.weight", "tokenizers.text.embedding.weight"),
        ]  # fmt: skip

    def files(self, frame):
        """Adds the configuration of the feature extractor, and `generation_config.json` if the encoding stores
        Whisper's special ids."""
        seconds = self.max_source_positions * FRAME
        features = {
            "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": self.num_mel_bins,
            "sampling_rate": 16_000, "chunk_length": int(seconds) if seconds == int(seconds) else seconds,
            "hop_length": 160, "n_fft": 400,
        }  # fmt: skip
        files = super().files(frame) | {"preprocessor_config.json": features}
        if protocol := frame.get("whisper"):
            files["generation_config.json"] = generation_config(Protocol.read(protocol, "encoding.json"))
        return files


def check_waves(table: Tensor, count: int) -> None:
    """Raises ValueError if `table` does not have `count` rows or does not contain the fixed sines and cosines of
    Whisper."""
    if len(table) != count:
        raise ValueError(f"model.encoder.embed_positions are {len(table)}, but max_source_positions is {count}")
    expected = SinesThenCosines(table.shape[1], len(table)).table
    tolerance = max(1e-3, torch.finfo(table.dtype).eps)  # bfloat16 has a rounding error of 0.004
    if not torch.allclose(table.float(), expected, atol=tolerance):
        raise ValueError("model.encoder.embed_positions are not the fixed sines and cosines; this is not supported")


def generation_config(protocol: Protocol) -> dict[str, Any]:
    """Returns the content of `generation_config.json` for these special ids. It is the inverse of the function
    `protocol_of` of the importer."""
    return {
        "decoder_start_token_id": protocol.start, "bos_token_id": protocol.end, "eos_token_id": protocol.end,
        "pad_token_id": protocol.end, "no_timestamps_token_id": protocol.no_timestamps,
        "prev_sot_token_id": protocol.previous, "suppress_tokens": protocol.suppressed,
        "begin_suppress_tokens": protocol.suppressed_first, "is_multilingual": bool(protocol.languages),
        "max_initial_timestamp_index": protocol.latest_start,
        "lang_to_id": {f"<|{code}|>": id for code, id in protocol.languages.items()},
        "task_to_id": {"transcribe": protocol.transcribe, "translate": protocol.translate},
    } | ({} if protocol.language is None else {"language": protocol.language})  # fmt: skip
