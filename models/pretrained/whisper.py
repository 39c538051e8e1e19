"""Whisper. Reference: transformers' `WhisperForConditionalGeneration`."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..layers.positions import SinesThenCosines
from .base import (
    BLOCK,
    ENCODER_BLOCK,
    Architecture,
    Count,
    Depth,
    Heads,
    Id,
    PublishedError,
    Rename,
    Share,
    Width,
    renames,
)

LAYER = {
    "self_attn.q_proj": "attention.query", "self_attn.v_proj": "attention.value", "self_attn.out_proj": "attention.out",
    "self_attn_layer_norm": "add_attention.norm", "fc1": "feed_forward.up", "fc2": "feed_forward.down",
    "final_layer_norm": "add_feed_forward.norm",
}  # fmt: skip
CROSS = {
    "encoder_attn.q_proj": "cross_attention.query", "encoder_attn.v_proj": "cross_attention.value",
    "encoder_attn.out_proj": "cross_attention.out", "encoder_attn_layer_norm": "add_cross_attention.norm",
}  # fmt: skip
TABLE = "tokenizers.text.embedding.weight"
FRAME = 0.02
"""Seconds of sound that a token of the encoder stands for."""


class Whisper(Architecture):
    """A Whisper's `config.json`."""

    kinds = ("whisper",)
    reference = "WhisperForConditionalGeneration"

    vocab_size: Count = 51865
    num_mel_bins: Annotated[int, Field(ge=1, le=512)] = 80
    d_model: Width = 384
    encoder_layers: Depth = 4
    decoder_layers: Depth = 4
    encoder_attention_heads: Heads = 6
    decoder_attention_heads: Heads = 6
    encoder_ffn_dim: Width = 1536
    decoder_ffn_dim: Width = 1536
    max_source_positions: Count = 1500
    max_target_positions: Count = 448
    activation_function: Literal["gelu"] = "gelu"
    scale_embedding: Literal[False] = False
    tie_word_embeddings: Literal[True] = True
    dropout: Share = 0.0
    attention_dropout: Share = 0.0
    decoder_start_token_id: Id | None = None
    bos_token_id: Id | list[Id] | None = None
    eos_token_id: Id | list[Id] | None = None
    pad_token_id: Id | None = None
    suppress_tokens: list[Id] | None = None
    begin_suppress_tokens: list[Id] | None = None

    def tree(self):
        for name in ("attention_heads", "ffn_dim"):
            if getattr(self, f"encoder_{name}") != getattr(self, f"decoder_{name}"):
                raise PublishedError(f"config.json: encoder_{name} and decoder_{name} differ; not reproduced")
        seconds = self.max_source_positions * FRAME
        return {
            "inputs": {
                "sound": {"use": "audio_stem", "mels": self.num_mel_bins, "fill": seconds, "longest": seconds},
                "text": {"use": "text"},
            },
            "model": {
                "width": self.d_model, "depth": self.decoder_layers, "heads": self.decoder_attention_heads,
                "context": self.max_target_positions, "attention": "causal & same_sample",
                "encoder": {"depth": self.encoder_layers, "context": self.max_source_positions},
                "block": {"feed_forward": {"use": "gelu", "approximate": "none", "ratio": self.decoder_ffn_dim / self.d_model}},
                "dropout": {"embedding": self.dropout, "attention": self.attention_dropout, "residual": self.dropout},
            },
            "tasks": {"text": {"use": "sequence_to_sequence", "target": "text", "judge": ["wer"]}},
        }  # fmt: skip

    @classmethod
    def from_tree(cls, tree, tensors, legend):
        model, dropout = tree["model"], tree["model"]["dropout"]
        inner, heads = len(tensors[f"{BLOCK}feed_forward.up.weight".format(layer=0)]), model["heads"]
        return cls(
            vocab_size=len(tensors[TABLE]), num_mel_bins=tree["inputs"]["sound"]["mels"], d_model=model["width"],
            encoder_layers=model["encoder"]["depth"], decoder_layers=model["depth"], encoder_attention_heads=heads,
            decoder_attention_heads=heads, encoder_ffn_dim=inner, decoder_ffn_dim=inner,
            max_source_positions=model["encoder"]["context"], max_target_positions=model["context"],
            dropout=dropout["residual"], attention_dropout=dropout["attention"],
            decoder_start_token_id=legend.start, bos_token_id=legend.end, eos_token_id=legend.end, pad_token_id=legend.ends[0],
        )  # fmt: skip

    def names(self):
        """Whisper's keys have no bias; ours is zero at first, and whatever it becomes, adds the same to all scores of a query and
        changes nothing. Its encoder has fixed waves as positions."""
        encoder, decoder = "model.encoder.layers.{layer}.", "model.decoder.layers.{layer}."
        keys = [(f"{encoder}self_attn", f"{ENCODER_BLOCK}attention"), (f"{decoder}self_attn", f"{BLOCK}attention"),
                (f"{decoder}encoder_attn", f"{BLOCK}cross_attention")]  # fmt: skip
        return [
            *renames("model.encoder.", "tokenizers.sound.", {"conv1": "first", "conv2": "second"}),
            *renames("model.encoder.", "cores.encoder.", {"layer_norm": "norm"}),
            *renames("model.decoder.", "", {"embed_tokens": "tokenizers.text.embedding", "layer_norm": "cores.main.norm",
                                            "embed_positions": "tokenizers.text.position.table"}),
            *renames(encoder, ENCODER_BLOCK, LAYER),
            *renames(decoder, BLOCK, LAYER | CROSS),
            *(Rename(f"{theirs}.k_proj.weight", (f"{ours}.key.weight", f"{ours}.key.bias"), lambda w: (w, w.new_zeros(len(w))),
                     lambda w, b: w) for theirs, ours in keys),
            Rename("model.encoder.embed_positions.weight", (), checked_waves,
                   lambda: SinesThenCosines(self.d_model, self.max_source_positions).table),
            Rename("proj_out.weight", TABLE),
        ]  # fmt: skip

    def files(self):
        """With its feature extractor's file."""
        seconds = self.max_source_positions * FRAME
        features = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": self.num_mel_bins, "sampling_rate": 16_000,
                    "chunk_length": int(seconds) if seconds == int(seconds) else seconds, "hop_length": 160, "n_fft": 400}  # fmt: skip
        return super().files() | {"preprocessor_config.json": features}


def checked_waves(found: Tensor) -> None:
    """Raises ValueError for encoder positions that are not the fixed waves."""
    expected = SinesThenCosines(found.shape[1], len(found)).table
    tolerance = max(1e-3, torch.finfo(found.dtype).eps)  # bfloat16 rounds them to 0.004
    if not torch.allclose(found.float(), expected, atol=tolerance):
        raise ValueError("model.encoder.embed_positions are not the fixed sines and cosines; not reproduced")
