"""What a model costs: parameters by part, FLOPs of a batch, memory while training."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter

import torch

from ..models.batch import Batch
from ..models.initialization import roles
from ..models.model import Model


def parameters_by_part(model: Model) -> dict[str, int]:
    """Parameter counts by the first two names of their keys (`tokenizers.text`, `cores.main`, ...); a shared parameter
    counts once."""
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[".".join(name.split(".")[:2])] += parameter.numel()
    return dict(counts)


class Costs:
    """FLOPs of a model, forward and backward: 6 for every weight of a matrix and every vector that passes through it,
    plus 12 L d n per slot for self-attention (L layers of width d, rows of n slots).

    The convention of PaLM (Chowdhery et al. 2022, arXiv:2204.02311, appendix B), which nanoGPT and others report:
    causal attention counts in full, padding too, since it is computed. Counted from the plan of a batch: a head by its
    supervised slots, an embedder by the tokens of its input, each core by its own row length, the keys and values of
    cross-attention by the slots of the set crossed to (its scores do not count). A tied head counts, a table look-up
    does not.
    """

    def __init__(self, model: Model):
        self.inputs: Counter[str] = Counter()
        self.cores: Counter[str] = Counter()
        self.crossings: Counter[str] = Counter()
        self.heads = dict(model.heads)
        self.owners = dict(model.owners)
        self.attention = {name: 12 * len(core.blocks) * core.width for name, core in model.cores.items()}
        for name, role, parameter in roles(model):
            place, owner, rest = (*name.split(".", 2), "")[:3]
            if role not in ("matrix", "projection", "input"):
                continue
            if place == "cores" and re.search(r"\.layers\.[1-9]", name):
                continue  # of layers for groups of inputs each token passes one
            kind = {"tokenizers": self.inputs, "cores": self.cores}.get(place)
            if ".cross_attention." in f".{rest}" and rest.endswith(("key.weight", "value.weight")):
                kind = self.crossings
            if kind is not None:
                kind[owner] += parameter.numel()

    def flops(self, batch: Batch) -> float:
        """FLOPs of one micro-batch, forward and backward."""
        total, before = 0.0, 0
        for name, planned in batch.sets.items():
            rows, length = planned.tokens.shape
            slots = rows * length
            read = sum(self.inputs[self.owners[each]] * chunks.index.numel() for each, chunks in planned.chunks.items())
            total += 6 * (self.cores[name] * slots + self.crossings[name] * before + read)
            total += self.attention[name] * slots * length
            before = slots
        return total + sum(self.heads[name].flops(targets) for name, targets in batch.targets.items())


def memory_estimate(model: Model, rows: int, *, ema: bool, optimizer_values: int, half: bool) -> dict[str, int]:
    """Bytes while training, by part, and their `sum`: weights, gradients (as if nothing were frozen), optimizer state
    and averages exactly, in float32; activations by rule of thumb.

    `rows` are those of one micro-batch, `optimizer_values` is `Optimizer.state_values()`, `half`: activations are
    bfloat16. Activations per token and layer are about 16 vectors of the width in the block and its feed-forward
    (Korthikanti et al. 2022, arXiv:2205.05198, without stored attention scores), plus the logits of the largest
    vocabulary and their gradient in float32.
    """
    count = sum(p.numel() for p in model.parameters())
    size = 2 if half else 4
    tokens = rows * model.context
    stored = sum(16 * core.width * len(core.blocks) for core in model.cores.values())
    vocabulary = max((len(table) for _, role, table in roles(model) if role == "embedding"), default=0)
    parts = {
        "weights": 4 * count,
        "gradients": 4 * count,
        "optimizer": 4 * optimizer_values,
        "averages": 4 * count if ema else 0,
        "activations": tokens * (stored * size + 2 * 4 * vocabulary),
    }
    return parts | {"sum": sum(parts.values())}


def fast_half(device: torch.device) -> bool:
    """Whether this device multiplies bfloat16 matrices in hardware: a GPU of compute capability 8.0 or more, a CPU with
    AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return torch.backends.mkldnn.is_available() and any(getattr(torch.cpu, name, bool)() for name in checks)


def missing_compiler(device: torch.device) -> str:
    """What torch.compile lacks on this machine, as a sentence; empty where it lacks nothing."""
    if device.type == "cuda":
        try:
            import triton  # noqa: F401
        except ImportError:
            return "torch.compile needs triton on a GPU, which is not installed"
    compiler = os.environ.get("CXX", "g++")
    if not (shutil.which(compiler) or shutil.which("clang++")):
        return f"torch.compile needs a C++ compiler, and there is no {compiler!r} here"
    return ""
