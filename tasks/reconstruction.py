"""Reconstruction: an autoencoder that encodes an input to discrete codes. Another model can use these codes as ids."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..models.batch import Batch, Targets
from ..models.layers.quantizer import FiniteScalarQuantizer
from ..models.reconstruction import ReconstructionHead
from ..tokenizers.base import Example
from .base import Metric, Needs, Task, per_target


class Reconstruction(Task):
    """Quantises the model's output at each token of the input `target` to one of prod(`levels`) codes, and decodes the
    item from its codes (VQ-VAE: van den Oord et al. 2017, arXiv:1711.00937, with finite scalar quantisation). `levels`:
    the number of values of each quantised dimension. `depth` and `heads`: the number of layers and of attention heads
    of the decoder. All items must have the same number of tokens; images therefore need a `size`.

    Another run can use the trained run as its tokenizer `codes`: `{use: codes, run: runs/RUN, input: TARGET}`.
    """

    def __init__(
        self,
        *,
        target: str,
        levels: tuple[int, ...] = (8, 5, 5, 5),
        depth: int = 2,
        heads: int = 4,
        weight: float = 1.0,
    ):
        if not levels or min(levels) < 2 or math.prod(levels) > 2**16:
            raise ValueError(
                f"levels must be whole numbers of at least 2 with a product of at most 65,536, not {list(levels)}"
            )
        if depth < 1 or heads < 1:
            raise ValueError(f"depth and heads must be at least 1, not {depth} and {heads}")
        self.target, self.levels, self.depth, self.heads, self.weight = target, levels, depth, heads, weight

    @property
    def needs(self) -> Needs:
        return Needs(inputs=(self.target,), hides="quantised")

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        chopper = self.choppers[self.target]
        length, size = chopper.slice_shape
        return ReconstructionHead(width, size, length, levels=self.levels, depth=self.depth, heads=self.heads)

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Returns the unchanged batch, and the targets: the p numbers of each token (t, p), such as the pixels of a
        patch. There are no carriers, because no other token has these numbers as its input."""
        chopper, chunks = self.choppers[self.target], batch.main.chunks.get(self.target)
        if chunks is None:
            none = torch.zeros(0, chopper.slice_shape[1])
            return batch, Targets(values=none, slots=torch.zeros(0, dtype=torch.long))
        values = chopper.slices(chunks)
        return batch, Targets(values=values, slots=chunks.slots, count=len(values))

    def terms(self, output: Float[Tensor, "t k"], targets: Targets) -> dict[str, Tensor]:
        return {"loss": self.losses(output, targets).sum()}

    def losses(self, output: Float[Tensor, "t k"], targets: Targets) -> Float[Tensor, "t"]:
        decoded = output[:, : targets.values.shape[1]].float()
        return (decoded - targets.values).square().mean(1)

    def measure(self, output: Float[Tensor, "t k"], targets: Targets) -> dict[str, Tensor]:
        return {"codes": torch.bincount(self.codes(output, targets), minlength=math.prod(self.levels)).float()}

    def codes(self, output: Float[Tensor, "t k"], targets: Targets) -> Int[Tensor, "t"]:
        """Returns the code of every token, from 0 to prod(`levels`) - 1."""
        quantized = output[:, targets.values.shape[1] :].float()
        return FiniteScalarQuantizer(self.levels).to(output.device).ids(quantized)

    @property
    def metrics(self) -> dict[str, Metric]:
        """`loss`, the mean squared error per number; `psnr`, the peak signal-to-noise ratio in dB for values from -1 to
        1; `codes_used`, the share of the codes that occur; and `code_perplexity`, the exponential of the entropy of the
        codes, which is 1 if all tokens have the same code."""
        return {
            "loss": Metric("mean squared error", of_sums=per_target),
            "psnr": Metric("dB", larger_is_better=True, of_sums=psnr),
            "codes_used": Metric("share of codes", larger_is_better=True, of_sums=used),
            "code_perplexity": Metric("codes", larger_is_better=True, of_sums=codes_in_use),
        }

    def answers(self, output: Float[Tensor, "t k"], targets: Targets, batch: Batch) -> list[dict[str, Any]]:
        """Returns {"codes": [3, 0, ...]} for every sample, one code per token; {"error": ...} for a sample without the
        target."""
        codes, sample = self.codes(output, targets).cpu(), batch.main.tokens.sample.flatten()[targets.slots]
        of_samples = [codes[sample == number].tolist() for number in range(1, batch.main.samples + 1)]
        return [{"codes": row} if row else {"error": f"{self.target!r} is missing"} for row in of_samples]


def psnr(sums: Mapping[str, Tensor]) -> float:
    """Returns the ratio of the largest possible difference, 2, to the root mean squared error, in dB."""
    return 10 * math.log10(4 / max(per_target(sums), 1e-12))


def used(sums: Mapping[str, Tensor]) -> float:
    """Returns the share of all codes that occur at least once."""
    return float((sums["codes"] > 0).double().mean())


def codes_in_use(sums: Mapping[str, Tensor]) -> float:
    """Returns the exponential of the entropy of the codes, from 1 to the number of codes."""
    shares = sums["codes"] / sums["codes"].sum().clamp(min=1)
    return float(torch.special.entr(shares).sum().exp())


EXAMPLE = Example(
    options={"target": "image", "levels": [4, 3], "depth": 1, "heads": 2},
    inputs={
        "image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8},
        "text": {"use": "text", "encoding": "characters"},
    },
)
