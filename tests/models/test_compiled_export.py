"""`chopmix.Transformer` as a layer of other programs: torch.export, torch.compile, a padding mask, wrong shapes."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import jaxtyping
import pytest
import torch
from checkout import ROOT
from chopmix.models.layers.norms import RmsNorm
from chopmix.models.layers.relative import Alibi, RelativeBias, Rotary
from chopmix.models.transformer import Block, BlockOptions, Transformer
from torch import nn
from torch.export import Dim, export

GRAPHS = [
    "causal & same_sample", "same_sample", "causal & window(3)", "causal & window(8)",
    ["causal & window(2)", "causal"], "same_sample & neighbourhood(2, order)",
]  # fmt: skip
POSITIONS = {"none": None, "rotary": Rotary, "bias": RelativeBias, "alibi": Alibi}
BLOCKS = {
    "plain": Block, "grouped": partial(Block, options=BlockOptions(norm=RmsNorm, key_value_heads=1)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_checks(monkeypatch):
    """The types of arguments are not checked, as for a user: the check would be part of the exported program."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def transformer(attention="causal", position=None, block=Block) -> Transformer:
    torch.manual_seed(0)
    return Transformer(width=16, depth=2, heads=2, attention=attention, position=position, block=block).eval()


class Layer(nn.Module):
    """A model of a user with a `Transformer` in it."""

    def __init__(self, core: Transformer):
        super().__init__()
        self.core, self.head = core, nn.Linear(16, 3)

    def forward(self, x, padding=None):
        return self.head(self.core(x, padding_mask=padding).mean(1))


CASES = [
    pytest.param(graph, position, marks=() if (row - column) % 4 == 0 else pytest.mark.system, id=f"{position}-{graph}")
    for row, graph in enumerate(GRAPHS) for column, position in enumerate(POSITIONS)
]  # fmt: skip
"""Every graph with every position; the suite has each of them once."""


@pytest.mark.parametrize("graph, position", CASES)
def test_a_transformer_can_be_exported(graph, position):
    model, x = Layer(transformer(graph, POSITIONS[position])), torch.randn(2, 7, 16)
    program = export(model, (x,), dynamic_shapes={"x": {0: Dim("rows", min=1, max=64)}})
    for rows in (1, 2, 5):
        x = torch.randn(rows, 7, 16)
        torch.testing.assert_close(program.module()(x), model(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_transformer_can_be_exported_with_a_padding_mask(block):
    model, x = Layer(transformer("causal", Rotary, BLOCKS[block])), torch.randn(2, 7, 16)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    program = export(model, (x, padding))
    padding[0, 4:] = True
    torch.testing.assert_close(program.module()(x, padding), model(x, padding), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_changes_no_other_token(graph, position, dtype):
    model, x = transformer(graph, POSITIONS[position]).to(dtype), torch.randn(3, 9, 16, dtype=dtype)
    padding = torch.zeros(3, 9, dtype=torch.bool)
    padding[0, 5:] = padding[1, :3] = True  # on the right, on the left, none
    with torch.no_grad():
        y = model(x, padding_mask=padding)
        other = model(torch.where(padding[..., None], torch.randn_like(x), x), padding_mask=padding)
        assert torch.equal(y[~padding], other[~padding]) and y.isfinite().all()
        tolerance = {"atol": 1e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
        for row, tokens in enumerate((slice(5), slice(3, None), slice(None))):
            torch.testing.assert_close(y[row, tokens], model(x[row : row + 1, tokens])[0], **tolerance)


COMPILED = """
import sys
import torch
from chopmix.models.layers.relative import Alibi, RelativeBias, Rotary
from chopmix.models.transformer import Transformer

position = {"none": None, "rotary": Rotary, "bias": RelativeBias, "alibi": Alibi}[sys.argv[1]]
for graph in eval(sys.argv[2]):
    torch._dynamo.reset()
    model = Transformer(width=16, depth=2, heads=2, attention=graph, position=position)
    backend = "inductor" if graph == "causal & same_sample" else "aot_eager"  # the same trace, without a C++ compiler
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 5:] = True
    x = torch.randn(2, 7, 16)
    for mask in (None, padding):
        expected = model(x, padding_mask=mask)
        torch.testing.assert_close(compiled(x, padding_mask=mask), expected, atol=1e-5, rtol=1e-4)
    compiled(x).sum().backward()
    print("compiled")
"""


@pytest.mark.system
@pytest.mark.parametrize("position", POSITIONS)
def test_a_transformer_can_be_compiled_without_a_graph_break(position):
    """In a new process, in which no types are checked."""
    command = [sys.executable, "-c", COMPILED, position, repr(GRAPHS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("compiled") == len(GRAPHS), done.stderr[-2000:]


@pytest.mark.parametrize(
    "shape, padding, message",
    [
        ((7, 16), None, r"x must have the shape \(rows, tokens, 16\), not \(7, 16\)"),
        ((2, 7, 8), None, r"not \(2, 7, 8\)"),
        ((2, 7, 16), torch.zeros(2, 6, dtype=torch.bool), r"the shape \(2, 7\) and the type torch.bool, not \(2, 6\)"),
        ((2, 7, 16), torch.zeros(2, 7), "the type torch.bool, not .* torch.float32"),
    ],
)
def test_wrong_shapes_are_refused(shape, padding, message):
    with pytest.raises(ValueError, match=message):
        transformer()(torch.randn(shape), padding_mask=padding)


def test_options_instead_of_a_block_are_refused():
    with pytest.raises(TypeError, match=r"block must be a class of blocks, .* not \{'norm': 'rms_norm'\}"):
        transformer(block={"norm": "rms_norm"})


def test_cross_attention_is_exported_and_needs_its_source():
    core = transformer("causal", Rotary, partial(Block, crosses=True))
    x, source = torch.randn(2, 7, 16), torch.randn(2, 5, 16)
    expected = core(x, source=source)
    program = export(core, (x,), {"source": source})
    torch.testing.assert_close(program.module()(x, source=source), expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="the blocks read a second set, so source"):
        core(x)
