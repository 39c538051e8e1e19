"""Costs of a model: parameters by part, FLOPs of a batch, memory during training, and the measured throughput."""

from __future__ import annotations

import os
import re
import resource
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..data.processes import Processes
from ..models.batch import Batch
from ..models.initialization import roles
from ..models.model import Model
from ..models.tokens import PADDING


def parameters_by_part(model: Model) -> dict[str, int]:
    """Returns the number of parameters by the first two components of their names (`tokenizers.text`, `cores.main`,
    ...). A shared parameter counts once."""
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[".".join(name.split(".")[:2])] += parameter.numel()
    return dict(counts)


class Costs:
    """Counts the FLOPs of a model, forward and backward: 6 for each weight of a matrix and each vector that the matrix
    multiplies, plus 12 L d n per slot for self-attention (L layers with attention of width d, rows of n slots).

    This is the convention of PaLM (Chowdhery et al. 2022, arXiv:2204.02311, appendix B), which nanoGPT and others use.
    Causal attention counts like full attention. Padding counts, because it is computed. The number of vectors is taken
    from the plan of a batch: the supervised slots for a head, the tokens of an input for its embedder, all slots of its
    set for a core, and the slots of the encoder's set for the keys and values of cross-attention. The matrix of a tied
    head counts. The attention scores of cross-attention and look-ups in tables do not count.
    """

    def __init__(self, model: Model):
        self.inputs: Counter[str] = Counter()
        self.cores: Counter[str] = Counter()
        self.crossings: Counter[str] = Counter()
        self.heads = dict(model.heads)
        self.owners = dict(model.owners)
        self.attention = {
            name: 12 * core.width * sum(block.attends for block in core.blocks) for name, core in model.cores.items()
        }
        for name, role, parameter in roles(model):
            kind, owner, rest = (*name.split(".", 2), "")[:3]
            if role not in ("matrix", "projection", "input"):
                continue
            if kind == "cores" and re.search(r"\.layers\.[1-9]", name):
                continue  # a token passes through only one of the layers that belong to groups of inputs
            counts = {"tokenizers": self.inputs, "cores": self.cores}.get(kind)
            if ".cross_attention." in f".{rest}" and rest.endswith(("key.weight", "value.weight")):
                counts = self.crossings
            if counts is not None:
                counts[owner] += parameter.numel()

    def flops(self, batch: Batch) -> float:
        """Returns the FLOPs of one micro-batch, forward and backward."""
        total, source_slots = 0.0, 0
        for name, planned in batch.sets.items():
            rows, length = planned.tokens.shape
            slots = rows * length
            embedded = sum(self.inputs[self.owners[key]] * chunk.index.numel() for key, chunk in planned.chunks.items())
            total += 6 * (self.cores[name] * slots + self.crossings[name] * source_slots + embedded)
            total += self.attention[name] * slots * length
            source_slots = slots
        return total + sum(self.heads[name].flops(targets) for name, targets in batch.targets.items())


def memory_estimate(model: Model, rows: int, *, ema: bool, optimizer_values: int, half: bool) -> dict[str, int]:
    """Returns the bytes that training uses: by part (`weights`, `gradients`, `optimizer`, `averages`, `activations`)
    and as `sum`. All values except activations are exact, in float32; frozen parameters count as if they had gradients.

    `rows` is the number of rows of one micro-batch, `ema` states whether the weights are averaged, `optimizer_values`
    is `Optimizer.state_values()`. If `half`, activations are bfloat16. The estimate for activations is 16 vectors of
    the core's width per token and layer (Korthikanti et al. 2022, arXiv:2205.05198, without attention scores), plus the
    logits of the largest embedding table and the gradient of these logits in float32.
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
    """Whether this device multiplies bfloat16 matrices in hardware: a GPU of compute capability 8.0 or higher, or a CPU
    with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return torch.backends.mkldnn.is_available() and any(getattr(torch.cpu, name, bool)() for name in checks)


def missing_compiler(device: torch.device) -> str:
    """Returns a sentence that names a program which torch.compile needs and this machine lacks: triton for a GPU, or a
    C++ compiler. Returns an empty string if nothing is missing."""
    if device.type == "cuda":
        try:
            import triton  # noqa: F401
        except ImportError:
            return "torch.compile needs triton on a GPU, but triton is not installed"
    compiler = os.environ.get("CXX", "g++")
    if not (shutil.which(compiler) or shutil.which("clang++")):
        return f"torch.compile needs a C++ compiler, but {compiler!r} is not installed"
    return ""


PEAK_FLOPS = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12,
    "RTX 4090": 165e12, "B200": 2250e12,
}  # fmt: skip
"""Maps a part of a GPU's name to its peak bfloat16 FLOP/s for dense matrix products, as stated by the manufacturer. The
first part that occurs in the name counts."""


def peak_flops(device: torch.device) -> float | None:
    """Returns the peak FLOP/s of a GPU in `PEAK_FLOPS`; None for any other GPU and for a CPU. MFU (model FLOPs
    utilisation) is the ratio of the measured FLOP/s to this peak."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)


def peak_memory(device: torch.device) -> int:
    """Returns the peak memory so far in bytes. On a GPU this is the memory of tensors, on a CPU that of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kilo = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo


@dataclass(frozen=True)
class Throughput:
    """Counts of processed data, summed over micro-batches and over all sets (encoder and decoder)."""

    tokens: int = 0
    slots: int = 0
    """The number of slots: tokens and padding."""
    flops: float = 0.0
    """The number of FLOPs, forward and backward; see `accounting.Costs`."""
    waited: float = 0.0
    """The seconds for which training waited for data."""

    def plus(self, batches: Sequence[Batch], flops: Callable[[Batch], float], waited: float) -> Throughput:
        """Returns these counts plus the counts of `batches`, for which training waited `waited` seconds. `flops`
        returns the FLOPs of a micro-batch. Micro-batches that are not `real` do not count."""
        real = [batch for batch in batches if batch.real]
        samples = [planned.tokens.sample for batch in real for planned in batch.sets.values()]
        return Throughput(
            self.tokens + sum(int((sample != PADDING).sum()) for sample in samples),
            self.slots + sum(sample.numel() for sample in samples),
            self.flops + sum(map(flops, real)),
            self.waited + waited,
        )

    def over(self, processes: Processes) -> Throughput:
        """Returns the counts, summed over all processes."""
        tokens, slots, flops, waited = processes.agree([self.tokens, self.slots, self.flops, self.waited])
        return Throughput(int(tokens), int(slots), flops, waited)
