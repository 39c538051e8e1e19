"""The Audio Spectrogram Transformer (AST). The reference is `ASTForAudioClassification` of transformers."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, FiniteFloat

from .base import (  # isort: skip
    BLOCK, Architecture, At, Count, Depth, Epsilon, Heads, Published, PublishedError, Rename, Width, patches, put,
    renames,
)  # fmt: skip

BASE, FEATURES = "audio_spectrogram_transformer.", "preprocessor_config.json"
LAYER = {
    "layernorm_before": "add_attention.norm", "layernorm_after": "add_feed_forward.norm",
    "attention.attention.query": "attention.query", "attention.attention.key": "attention.key",
    "attention.attention.value": "attention.value", "attention.output.dense": "attention.out",
    "intermediate.dense": "feed_forward.up", "output.dense": "feed_forward.down",
}  # fmt: skip
Small = Annotated[int, Field(ge=1, le=512)]


class AstFeatures(Published):
    """The `preprocessor_config.json` of an AST. None as `mean` or `std` means the value of AudioSet."""

    sampling_rate: Annotated[int, Field(ge=1, le=10_000_000)] = 16_000
    do_normalize: Literal[True] = True
    mean: FiniteFloat | None = None
    std: Annotated[FiniteFloat, Field(gt=0)] | None = None

    @property
    def statistics(self) -> list[float]:
        """[mean, standard deviation] of the training spectrograms."""
        return [-4.2677393 if self.mean is None else self.mean, 4.5689974 if self.std is None else self.std]


class Ast(Architecture):
    """The `config.json` of an AST; the field `features` has its `preprocessor_config.json`."""

    kinds = ("audio-spectrogram-transformer",)
    reference = "ASTForAudioClassification"

    yaml = {
        "inputs.sound.use": "audio_patches",
        "model": {"core_tokens": 2, "attention": "same_sample"},
        "model.block": {"norm": {"use": "layer_norm"}, "bias": True},
        "model.block.feed_forward": {"use": "gelu", "approximate": "none"},
        "tasks.label": {"use": "classification", "target": "label"},
        "tasks.label.pooling": {"use": "core_tokens", "norm": {"use": "layer_norm"}},
    }

    hidden_size: Annotated[Width, At("model.width")] = 768
    num_hidden_layers: Annotated[Depth, At("model.depth")] = 12
    num_attention_heads: Annotated[Heads, At("model.heads")] = 12
    intermediate_size: Annotated[Width, At("sizes.inner")] = 3072
    hidden_act: Literal["gelu"] = "gelu"
    layer_norm_eps: Annotated[Epsilon, At("model.block.norm.epsilon", "tasks.label.pooling.norm.epsilon")] = 1e-12
    qkv_bias: Literal[True] = True
    patch_size: Annotated[Small, At("inputs.sound.patch_size")] = 16
    frequency_stride: Annotated[Small, At("inputs.sound.stride")] = 10
    time_stride: Annotated[Small, At("inputs.sound.stride")] = 10
    max_length: Annotated[Count, At("inputs.sound.length")] = 1024
    num_mel_bins: Annotated[Small, At("inputs.sound.mels")] = 128
    id2label: dict[str, str | int] | None = None
    features: AstFeatures = Field(AstFeatures(), exclude=True)

    def tree(self):
        if self.frequency_stride != self.time_stride:
            strides = f"frequency_stride {self.frequency_stride} and time_stride {self.time_stride}"
            raise PublishedError(f"config.json: {strides} differ; not reproduced")
        sides = ((size - self.patch_size) // self.time_stride + 1 for size in (self.num_mel_bins, self.max_length))
        tree, longest = super().tree(), self.max_length * 0.01 + 0.03
        sound = {"rate": self.features.sampling_rate, "statistics": self.features.statistics, "longest": longest}
        put(tree, "inputs.sound", sound)
        put(tree, "model.context", max(math.prod(sides), 0) + 2)
        return tree

    @classmethod
    def from_tree(cls, tree, tensors, legend):
        mean, std = tree["inputs"]["sound"]["statistics"]
        features = AstFeatures(sampling_rate=tree["inputs"]["sound"]["rate"], mean=mean, std=std)
        labels = {str(number): label for number, label in enumerate(legend.labels)}
        return super().from_tree(tree, tensors, legend, {"id2label": labels, "features": features})

    def names(self):
        """Our two core tokens are the class token and the distillation token; each of them includes its position
        embedding. Our model embeds patches with a matrix instead of a convolution."""
        below = f"{BASE}embeddings."
        added = tuple(below + name for name in ("position_embeddings", "cls_token", "distillation_token"))
        return [
            Rename(added, ("tokenizers.sound.position.table.weight", "own.weight"),
                   lambda p, *tokens: (p[0][2:], p[0][:2] + torch.cat([token[0] for token in tokens])),
                   lambda table, core: (torch.cat([core, table])[None], *torch.zeros_like(core)[:, None, None])),
            *patches(below + "patch_embeddings.projection", "tokenizers.sound.embedding", 1, self.patch_size),
            *renames(BASE, "cores.main.", {"layernorm": "norm"}),
            *renames(BASE + "encoder.layer.{layer}.", BLOCK, LAYER),
            *renames("classifier.", "heads.label.", {"layernorm": "pooling.norm", "dense": "linear"}),
        ]  # fmt: skip

    def files(self, frame):
        mean, std = self.features.statistics
        options = {"feature_extractor_type": "ASTFeatureExtractor", "mean": mean, "std": std}
        options |= {"num_mel_bins": self.num_mel_bins, "max_length": self.max_length}
        return super().files(frame) | {FEATURES: self.features.model_dump() | options}
