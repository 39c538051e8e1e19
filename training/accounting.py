"""What a model costs: parameters by part, arithmetic per token, memory before it is trained."""

from __future__ import annotations

from collections import Counter

from ..models.initialization import roles
from ..models.mixture import Mixture


def parameters_by_part(model: Mixture) -> dict[str, int]:
    """Parameter counts by the first two names of their keys, `tokenizers.text`, `cores.main`, ..., each counted once."""
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[".".join(name.split(".")[:2])] += parameter.numel()
    return dict(counts)


def flops_per_token(model: Mixture) -> float:
    """Forward and backward operations per token: 6 per weight of every matrix product, plus attention's 12 L d n.

    The convention of PaLM (arXiv:2204.02311, appendix B), the one that nanoGPT and others report: causal attention is
    counted in full. A tied head counts, a look-up in a table does not.
    """
    weights = sum(p.numel() for _, role, p in roles(model) if role in ("matrix", "projection", "input", "head"))
    tied = [head._table[0] for head in model.heads.values() if hasattr(head, "_table")]
    weights += sum(table.weight.numel() for table in tied)
    attention = sum(12 * len(core.blocks) * core.width * model.context for core in model.cores.values())
    return 6 * weights + attention


def memory_estimate(model: Mixture, rows: int, *, ema: bool, optimizer_values: int, half: bool) -> dict[str, int]:
    """Bytes while training: weights, gradients, optimizer state and averages exactly; activations by rule of thumb.

    Activations per token and layer are about 16 vectors of the width in the block and its feed-forward (Korthikanti et
    al. 2022, arXiv:2205.05198, without stored attention scores), plus the scores of the head.
    """
    count = sum(p.numel() for p in model.parameters())
    size = 2 if half else 4
    tokens = rows * model.context
    stored = sum(16 * core.width * len(core.blocks) for core in model.cores.values())
    vocabulary = max(
        (t.embedding.num_embeddings for t in model.tokenizers.values() if hasattr(t, "vocabulary")), default=0
    )
    parts = {
        "weights": 4 * count,
        "gradients": 4 * count,
        "optimizer": 4 * optimizer_values,
        "averages": 4 * count if ema else 0,
        "activations": tokens * (stored * size + 2 * 4 * vocabulary),
    }
    return parts | {"sum": sum(parts.values())}
