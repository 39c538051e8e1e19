"""Compares all attention kernels and CTC, forward and backward, on two devices: the part `kernels` of
`benchmarks/gpu.py`.

The output and all gradients of a transformer with one layer are compared. Its matrices are large enough for scores to
differ by several units, so that a wrong mask or scale has a visible effect. Weights and inputs are representable in
bfloat16, so that all precisions start from equal values.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from chopmix.models.attention.grammar import parse_graph
from chopmix.models.generation.ctc import opaque_ctc_loss
from chopmix.models.layers.norms import LayerNorm, RmsNorm
from chopmix.models.layers.relative import Alibi, RelativeBias, Rotary
from chopmix.models.tokens import PADDING, Tokens
from chopmix.models.transformer import Block, BlockOptions, Transformer
from chopmix.training.objective import autocast
from torch import Tensor

CPU = torch.device("cpu")
PACKED = "causal & same_sample"
GRAPH = "same_sample & (causal | from(image))"
RMS, LAYER = (partial(Block, options=BlockOptions(query_key_norm=norm)) for norm in (RmsNorm, LayerNorm))
GROUPED = partial(Block, options=BlockOptions(key_value_heads=2))
BOTH, UNSCALED = (
    partial(Block, options=BlockOptions(key_value_heads=2, query_key_norm=RmsNorm, scaled=scaled))
    for scaled in (True, False)
)


class Way(NamedTuple):
    """An attention case: the layout of the rows and the options of the transformer."""

    rows: str
    """`one` sample per row, several (`packed`), or several followed by padding (`padded`)."""
    options: Mapping[str, Any] = {}
    """Options of the transformer."""
    source: str = ""
    """The layout of the rows of the source of cross-attention; empty without cross-attention."""
    channels: int = 64
    """The width of each of the four heads."""


WAYS = {
    "causal": Way("one"),
    "causal, grouped heads, norms, rotary": Way("one", {"block": BOTH, "position": Rotary}),
    "full": Way("one", {"attention": "same_sample"}),
    "packed": Way("packed"),
    "packed, grouped heads, norms, rotary": Way("packed", {"block": BOTH, "position": Rotary}),
    "padded, full": Way("padded", {"attention": "same_sample", "block": LAYER}),
    "packed, narrow heads": Way("packed", channels=5),
    "packed, wide heads": Way("packed", channels=128),
    "a graph": Way("packed", {"attention": GRAPH}),
    "a graph, grouped heads, norms, rotary": Way("packed", {"attention": GRAPH, "block": BOTH, "position": Rotary}),
    "a graph, narrow heads": Way("padded", {"attention": GRAPH, "block": GROUPED}, channels=5),
    "a graph, wide heads": Way("padded", {"attention": GRAPH}, channels=128),
    "neighbours": Way("padded", {"attention": "same_sample & neighbourhood(1, row, column)"}),
    "edges between slots of a sample": Way("packed", {"attention": f"{PACKED} | edges(1->0)"}),
    "a window": Way("one", {"attention": "causal & window(7)", "block": RMS}),
    "a window, packed, grouped heads": Way("packed", {"attention": f"{PACKED} & window(7)", "block": GROUPED}),
    "T5's bias": Way("packed", {"block": UNSCALED, "position": RelativeBias}),
    "T5's bias, one sample a row": Way("one", {"position": RelativeBias}),
    "ALiBi, padded, grouped heads": Way("padded", {"block": GROUPED, "position": Alibi}),
    "crossing": Way("one", {"block": BOTH}, source="one"),
    "crossing to padded rows": Way("packed", {"block": GROUPED}, source="padded"),
    "crossing where some read nothing": Way("packed", {"position": RelativeBias}, source="one"),
}  # fmt: skip


def rows_of(kind: str, n: int) -> Tokens:
    """Returns two rows of n tokens. Every second sixth of a row is an image that is eight patches wide."""
    half, third = n // 2, n // 3
    samples = {"one": [[1] * n, [2] * n], "packed": [[1] * half + [2] * (n - half), [3] * third + [4] * (n - third)],
               "padded": [[1] * half + [2] * third + [PADDING] * (n - half - third), [3] * n]}[kind]  # fmt: skip
    sample, slot = torch.tensor(samples), torch.arange(n)
    input = (slot // max(n // 6, 1) % 2 + 1).expand_as(sample) * (sample != PADDING)
    position = torch.stack([slot, slot // 8, slot % 8], dim=-1).float().repeat(2, 1, 1)
    position[..., 1:][input != 2] = torch.nan
    return Tokens(input=input, sample=sample, item=sample, position=position)


def core_of(way: Way) -> Transformer:
    """Returns a transformer with one layer and random values in every parameter."""
    torch.manual_seed(0)
    options = {"attention": PACKED, "block": Block, "width": 4 * way.channels, "depth": 1, "heads": 4, **way.options}
    graph = parse_graph(options.pop("attention"), ["text", "image"], ("order", "row", "column"))
    core = Transformer(attention=graph, block=partial(options.pop("block"), crosses=bool(way.source)), **options)
    for name, parameter in core.named_parameters():
        size, middle = (
            (parameter.shape[1] ** -0.5, 0.0)
            if parameter.dim() == 2
            else (0.1, float("norm" in name and "weight" in name))
        )
        values = middle + size * torch.randn(parameter.shape)
        parameter.data = values.bfloat16().float()
    return core.train()


def random(rows: int, n: int, width: int) -> Tensor:
    """Returns random vectors (rows, n, width) whose values are representable in bfloat16."""
    return torch.randn(rows, n, width).bfloat16().float()


def read(way: Way, n: int, device: torch.device, precision: str) -> tuple[dict[str, Tensor], str]:
    """Returns the output at all tokens except padding and all gradients (on the CPU), and the names of the planned
    layouts. `precision` is float32, float64, or bfloat16 (by autocast)."""
    core, tokens = core_of(way), rows_of(way.rows, n)
    inputs = {"x": random(2, n, core.width)} | ({"source": random(2, n, core.width)} if way.source else {})
    weights = random(2, n, core.width) * (tokens.sample != PADDING)[..., None]
    kind = torch.float64 if precision == "float64" else torch.float32
    core = core.to(device, kind)
    inputs = {name: values.to(device, kind).requires_grad_() for name, values in inputs.items()}
    computed = torch.bfloat16 if precision == "bfloat16" else kind
    layouts, cross, source = core.plan(tokens, None, computed, device), None, None
    if way.source:
        keys = rows_of(way.source, n)
        cross = core.plan_cross(tokens, keys, computed, device)
        source = inputs["source"]
    with autocast(device, precision):
        output = core(inputs["x"], tokens.to(device), layouts, source=source, source_layout=cross)
    (output.to(kind) * weights.to(device, kind)).sum().backward()
    gradients = {name: value.grad for name, value in [*inputs.items(), *core.named_parameters()]}
    unpadded = output.detach() * (tokens.sample != PADDING).to(device)[..., None]
    names = [type(layout).__name__ for layout in (*layouts, *([cross] if cross else []))]
    tensors = {"output": unpadded, **{name: value for name, value in gradients.items() if value is not None}}
    return {name: value.cpu().double() for name, value in tensors.items()}, " and ".join(names)


def difference(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the largest difference of the output and of any gradient, relative to its largest value, and the name of
    that gradient. Gradients that consist of rounding errors only are skipped: a bias of the keys adds the same value to
    all scores of a query."""
    assert actual.keys() == expected.keys()
    largest = {name: float(value.abs().max()) for name, value in expected.items()}
    least = 1e-4 * max(value for name, value in largest.items() if name != "output")
    shares = {
        name: float((actual[name] - value).abs().max()) / largest[name]
        for name, value in expected.items()
        if largest[name] > least
    }
    output = shares.pop("output")
    worst = max(shares, key=lambda name: shares[name] if shares[name] == shares[name] else float("inf"))
    return {"output": output, "gradient": shares[worst], "gradient_of": worst}


def compared(way: Way, n: int, device: torch.device, precision: str) -> dict[str, Any]:
    """Compares float32 with float32 on the CPU; or bfloat16 with float64, limited by the error of bfloat16 on the
    CPU."""
    if device.type == "cuda":
        torch._dynamo.reset()  # FlexAttention is compiled for each case; without a reset the ninth would run uncompiled
    tensors, layout = read(way, n, device, precision)
    row = {"layout": layout, "precision": precision}
    if precision == "float32":
        row |= difference(tensors, read(way, n, CPU, "float32")[0])
        return row | {"verdict": verdict(row, {"output": 1e-4, "gradient": 1e-3})}
    expected = read(way, n, CPU, "float64")[0]
    row |= difference(tensors, expected)
    usual = difference(read(way, n, CPU, "bfloat16")[0], expected)
    row |= {"output_on_cpu": usual["output"], "gradient_on_cpu": usual["gradient"]}
    return row | {"verdict": verdict(row, {name: 0.01 + 3 * usual[name] for name in ("output", "gradient")})}


def ctc_compared(n: int, device: torch.device) -> dict[str, Any]:
    """Compares the loss and gradient of our CTC operation in float32 with those of torch in float64 on the CPU."""
    torch.manual_seed(0)
    scores, lengths = torch.randn(n, 4, 30), torch.tensor([n // 4, 0, 1, n // 3])
    texts, tokens = torch.randint(29, (int(lengths.sum()),)), torch.tensor([n, n // 2, n, n])
    ours, theirs = scores.to(device, copy=True).requires_grad_(), scores.double().requires_grad_()
    loss = opaque_ctc_loss(ours.log_softmax(-1), texts.to(device), tokens, lengths)[0].sum()
    expected = F.ctc_loss(theirs.log_softmax(-1), texts, tokens, lengths, blank=29, reduction="sum")
    loss.backward()
    expected.backward()
    row = difference({"output": loss.detach().cpu().double(), "scores": ours.grad.cpu().double()},
                     {"output": expected.detach(), "scores": theirs.grad})  # fmt: skip
    return {
        "layout": "ctc_loss",
        "precision": "float32",
        **row,
        "verdict": verdict(row, {"output": 1e-5, "gradient": 2e-3}),
    }


def verdict(row: Mapping[str, float], limits: Mapping[str, float]) -> str:
    """Returns `fine`, or the values that exceed their limits."""
    above = [f"{name} {row[name]:.2g} is above {limit:.2g}" for name, limit in limits.items() if not row[name] <= limit]
    return "; ".join(above) or "fine"
