"""Every way of attending, and CTC, forward and backward, on one device beside another: what `benchmarks/gpu.py` calls
`kernels`.

A core of one layer reads some rows; its output and all of its gradients are compared. All matrices are drawn so large
that scores differ by several units: a wrong mask, or a wrong scale, shows at once. Weights and inputs are numbers that
bfloat16 has too, so that all kinds of arithmetic start from the same.
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
    """How some rows are read."""

    rows: str
    """`one` sample a row, or several: `packed`, or with padding behind: `padded`."""
    options: Mapping[str, Any] = {}
    """Of the core."""
    source: str = ""
    """The rows of a second set that is crossed to."""
    channels: int = 64
    """Of each of the four heads."""


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
    """Two rows of n tokens, of which every other sixth is an image eight patches wide."""
    half, third = n // 2, n // 3
    samples = {"one": [[1] * n, [2] * n], "packed": [[1] * half + [2] * (n - half), [3] * third + [4] * (n - third)],
               "padded": [[1] * half + [2] * third + [PADDING] * (n - half - third), [3] * n]}[kind]  # fmt: skip
    sample, place = torch.tensor(samples), torch.arange(n)
    input = (place // max(n // 6, 1) % 2 + 1).expand_as(sample) * (sample != PADDING)
    position = torch.stack([place, place // 8, place % 8], dim=-1).float().repeat(2, 1, 1)
    position[..., 1:][input != 2] = torch.nan
    return Tokens(input=input, sample=sample, item=sample, position=position)


def core_of(way: Way) -> Transformer:
    """One layer with every parameter random."""
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
    """Vectors of numbers that bfloat16 has."""
    return torch.randn(rows, n, width).bfloat16().float()


def read(way: Way, n: int, device: torch.device, precision: str) -> tuple[dict[str, Tensor], str]:
    """The output at all tokens but padding, and the gradient of everything, on the CPU; and which layouts were planned.
    `precision`: float32, float64, or bfloat16 by autocast."""
    core, tokens = core_of(way), rows_of(way.rows, n)
    given = {"x": random(2, n, core.width)} | ({"source": random(2, n, core.width)} if way.source else {})
    weights = random(2, n, core.width) * (tokens.sample != PADDING)[..., None]
    kind = torch.float64 if precision == "float64" else torch.float32
    core = core.to(device, kind)
    given = {name: values.to(device, kind).requires_grad_() for name, values in given.items()}
    computed = torch.bfloat16 if precision == "bfloat16" else kind
    layouts, cross, source = core.plan(tokens, None, computed, device), None, None
    if way.source:
        keys = rows_of(way.source, n)
        cross = core.plan_cross(tokens, keys, computed, device)
        source = given["source"]
    with autocast(device, precision):
        found = core(given["x"], tokens.to(device), layouts, source=source, source_layout=cross)
    (found.to(kind) * weights.to(device, kind)).sum().backward()
    slopes = {name: value.grad for name, value in [*given.items(), *core.named_parameters()]}
    kept = found.detach() * (tokens.sample != PADDING).to(device)[..., None]
    named = [type(layout).__name__ for layout in (*layouts, *([cross] if cross else []))]
    every = {"output": kept, **{name: slope for name, slope in slopes.items() if slope is not None}}
    return {name: value.cpu().double() for name, value in every.items()}, " and ".join(named)


def difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Any]:
    """The largest difference of the output, and of any gradient, each over its largest value; and of which gradient.
    Gradients that are nothing but rounding errors are left out: a bias of the keys raises all scores of a query alike.
    """
    assert found.keys() == expected.keys()
    largest = {name: float(value.abs().max()) for name, value in expected.items()}
    least = 1e-4 * max(value for name, value in largest.items() if name != "output")
    shares = {
        name: float((found[name] - value).abs().max()) / largest[name]
        for name, value in expected.items()
        if largest[name] > least
    }
    output = shares.pop("output")
    worst = max(shares, key=lambda name: shares[name] if shares[name] == shares[name] else float("inf"))
    return {"output": output, "gradient": shares[worst], "gradient_of": worst}


def compared(way: Way, n: int, device: torch.device, precision: str) -> dict[str, Any]:
    """float32 beside the CPU's float32; bfloat16 beside float64, with what the CPU's bfloat16 differs by."""
    if device.type == "cuda":
        torch._dynamo.reset()  # FlexAttention is compiled for each way alone: a ninth one would run uncompiled
    found, layout = read(way, n, device, precision)
    row = {"layout": layout, "precision": precision}
    if precision == "float32":
        row |= difference(found, read(way, n, CPU, "float32")[0])
        return row | {"verdict": verdict(row, {"output": 1e-4, "gradient": 1e-3})}
    expected = read(way, n, CPU, "float64")[0]
    row |= difference(found, expected)
    usual = difference(read(way, n, CPU, "bfloat16")[0], expected)
    row |= {"output_on_cpu": usual["output"], "gradient_on_cpu": usual["gradient"]}
    return row | {"verdict": verdict(row, {name: 0.01 + 3 * usual[name] for name in ("output", "gradient")})}


def ctc_compared(n: int, device: torch.device) -> dict[str, Any]:
    """The loss of CTC, and its gradient, by its own operation in float32 beside torch's in float64 on the CPU."""
    torch.manual_seed(0)
    scores, lengths = torch.randn(n, 4, 30), torch.tensor([n // 4, 0, 1, n // 3])
    texts, tokens = torch.randint(29, (int(lengths.sum()),)), torch.tensor([n, n // 2, n, n])
    ours, theirs = scores.to(device, copy=True).requires_grad_(), scores.double().requires_grad_()
    found = opaque_ctc_loss(ours.log_softmax(-1), texts.to(device), tokens, lengths)[0].sum()
    expected = F.ctc_loss(theirs.log_softmax(-1), texts, tokens, lengths, blank=29, reduction="sum")
    found.backward()
    expected.backward()
    row = difference({"output": found.detach().cpu().double(), "scores": ours.grad.cpu().double()},
                     {"output": expected.detach(), "scores": theirs.grad})  # fmt: skip
    return {
        "layout": "ctc_loss",
        "precision": "float32",
        **row,
        "verdict": verdict(row, {"output": 1e-5, "gradient": 2e-3}),
    }


def verdict(row: Mapping[str, float], limits: Mapping[str, float]) -> str:
    """`fine`, or what is above its limit."""
    above = [f"{name} {row[name]:.2g} is above {limit:.2g}" for name, limit in limits.items() if not row[name] <= limit]
    return "; ".join(above) or "fine"
