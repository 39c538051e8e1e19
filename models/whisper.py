"""Whisper's weights under our names. Reference: transformers' `WhisperForConditionalGeneration`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .positions import SinesThenCosines
from .renaming import renamed, require

EXACT = {"activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": True}
ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
LAYER = {
    **{f"self_attn.{theirs}": f"attention.{ours}" for theirs, ours in ATTENTION.items()},
    "self_attn_layer_norm": "add_attention.norm", "fc1": "feed_forward.up", "fc2": "feed_forward.down",
    "final_layer_norm": "add_feed_forward.norm",
}  # fmt: skip
CROSS = {
    **{f"encoder_attn.{theirs}": f"cross_attention.{ours}" for theirs, ours in ATTENTION.items()},
    "encoder_attn_layer_norm": "add_cross_attention.norm",
}
OUTSIDE = {
    "model.encoder.conv1": "tokenizers.sound.first", "model.encoder.conv2": "tokenizers.sound.second",
    "model.encoder.layer_norm": "cores.encoder.norm", "model.encoder.embed_positions": "waves",
    "model.decoder.embed_tokens": "tokenizers.text.embedding", "model.decoder.layer_norm": "cores.main.norm",
    "model.decoder.embed_positions": "tokenizers.text.position.table",
}  # fmt: skip


def whisper_experiment(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `inputs`, `model` and `tasks` of our YAML for a Whisper `config.json`.

    Raises ValueError naming an option that we do not reproduce exactly; nothing is approximated.
    """
    require(config, EXACT)
    for name in ("attention_heads", "ffn_dim"):
        if config[f"encoder_{name}"] != config[f"decoder_{name}"]:
            raise ValueError(f"config.json: encoder_{name} and decoder_{name} differ; not reproduced")
    width, sources = config["d_model"], config.get("max_source_positions", 1500)
    return {
        "inputs": {
            "sound": {"use": "audio_stem", "mels": config["num_mel_bins"], "fill": sources * 0.02,
                      "longest": sources * 0.02},
            "text": {"use": "text"},
        },
        "model": {
            "width": width, "depth": config["decoder_layers"], "heads": config["decoder_attention_heads"],
            "context": config.get("max_target_positions", 448), "attention": "causal & same_sample",
            "encoder": {"depth": config["encoder_layers"], "context": sources},
            "block": {"feed_forward": {"use": "gelu", "approximate": "none", "ratio": config["decoder_ffn_dim"] / width}},
            "dropout": {name: config.get("dropout" if name != "attention" else "attention_dropout", 0.0)
                        for name in ("embedding", "attention", "residual")},
        },
        "tasks": {"text": {"use": "sequence_to_sequence", "target": "text", "judge": ["wer"]}},
    }  # fmt: skip


def whisper_weights(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' tensors under the keys of our `Mixture`.

    Whisper's keys have no bias; ours is zero (it would add the same to all of a query's scores, and change nothing). What has
    no place here stays under its own name. Raises ValueError for encoder positions that are not the fixed waves.
    """
    layers = {
        "model.encoder.layers.": ("cores.encoder.blocks.", LAYER),
        "model.decoder.layers.": ("cores.main.blocks.", LAYER | CROSS),
    }
    found = renamed(theirs, OUTSIDE, layers, ("proj_out.",))
    waves = found.pop("waves.weight", None)
    if waves is not None:
        expected = SinesThenCosines(waves.shape[1], len(waves)).table
        tolerance = max(1e-3, torch.finfo(waves.dtype).eps)  # bfloat16 rounds them to 0.004
        if not torch.allclose(waves.float(), expected, atol=tolerance):
            raise ValueError("model.encoder.embed_positions are not the fixed sines and cosines; not reproduced")
    for name in [name for name in found if name.endswith(".key.weight")]:
        found[name.replace(".key.weight", ".key.bias")] = found[name].new_zeros(len(found[name]))
    return found
