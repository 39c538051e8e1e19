"""Biases of pairs of tokens that have an edge in a graph (`edge_bias`)."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from chopmix.experiment.build import build_core
from chopmix.experiment.settings.config import ConfigError, load_config
from chopmix.models.attention.graph import Causal, From, SameItem
from chopmix.models.layers.relative import EdgeBias
from chopmix.models.tokens import Tokens, plain_tokens
from chopmix.models.transformer import Transformer


def packed() -> Tokens:
    """One row with two samples of three tokens and one padding; the first two tokens of a sample are one item."""
    sample = torch.tensor([[1, 1, 1, 2, 2, 2, 0]])
    item = torch.tensor([[1, 1, 2, 3, 3, 4, 0]])
    position = torch.arange(7.0)[None, :, None]
    return Tokens(
        input=(sample > 0).long() + (item % 2 == 0) * (sample > 0), sample=sample, item=item, position=position
    )


def test_each_edge_adds_the_number_of_its_graph_and_head():
    position = EdgeBias(2, 8, graphs=(SameItem(), From((2,))))
    torch.nn.init.normal_(position.table.weight)
    bias, tokens = position.bias(packed(), packed()), packed()
    for query in range(6):
        for key in range(6):
            if tokens.sample[0, query] == tokens.sample[0, key]:
                same = tokens.item[0, query] == tokens.item[0, key]
                expected = same * position.table.weight[0] + (tokens.input[0, key] == 2) * position.table.weight[1]
                torch.testing.assert_close(bias[0, :, query, key], expected)


def core_of(**options) -> Transformer:
    torch.manual_seed(0)
    position = partial(EdgeBias, graphs=("window(2)", "same_item"))
    return Transformer(width=16, depth=2, heads=2, position=position, **options).eval()


def test_a_bias_of_zero_changes_nothing_and_is_learned():
    core, x = core_of(attention="same_sample"), torch.randn(2, 5, 16)
    torch.manual_seed(0)
    plain = Transformer(width=16, depth=2, heads=2, attention="same_sample").eval()
    plain.load_state_dict({name: value for name, value in core.state_dict().items() if "position" not in name})
    torch.testing.assert_close(core(x), plain(x), atol=1e-6, rtol=1e-5)
    core(x).square().sum().backward()
    assert bool(core.position.table.weight.grad.abs().sum(1).gt(0).any())


def test_samples_in_packed_rows_and_with_a_cache_have_the_vectors_of_single_samples():
    core, tokens = core_of(), packed()
    torch.nn.init.normal_(core.position.table.weight)
    x = torch.randn(1, 7, 16)
    with torch.no_grad():
        together = core(x, tokens)
        for number in (1, 2):
            mine = tokens.sample[0] == number
            single = plain_tokens(1, 3)
            single = Tokens(**{**vars(single), "item": tokens.item[:, mine], "input": tokens.input[:, mine]})
            alone = core(x[:, mine], single)
            torch.testing.assert_close(together[:, mine], alone, atol=1e-6, rtol=1e-5)
            cache = core.empty_cache(1, 3)
            steps = [
                core(x[:, mine][:, [n]], single.select(slice(None), slice(n, n + 1)), cache=cache) for n in range(3)
            ]
            torch.testing.assert_close(torch.cat(steps, 1), alone, atol=1e-6, rtol=1e-5)


NEAR = """
from dataclasses import dataclass

from chopmix import Graph


@dataclass(frozen=True)
class Near(Graph):
    def edge(self, query, key):
        return query.position[0] - key.position[0] < 2
"""

YAML = """
inputs: {{image: {{use: image, size: 8, patch_size: 4}}}}
model:
  {{width: 16, depth: 1, heads: 2, context: 16, attention: same_sample, position: {{use: edge_bias, graphs: {graphs}}}}}
tasks: {{digit: {{use: classification, target: label}}}}
data: {{dataset: digits}}
training: {{steps: 1, samples_per_step: 8}}
"""


def written(folder, graphs: str):
    (folder / "a.yaml").write_text(YAML.format(graphs=graphs))
    return folder / "a.yaml"


def test_expressions_of_a_yaml_name_inputs_and_axes(tmp_path):
    config = load_config(written(tmp_path, "[causal, 'from(image)', 'neighbourhood(1, row, column)']"))
    core = build_core(config, config.wiring.axes)
    assert core.position.graphs[:2] == [Causal(), From((1,))] and core.position.table.weight.shape == (3, 2)


@pytest.mark.parametrize(
    "graphs, message",
    [
        ("[]", "graphs must have at least one expression"),
        ("['from(picture)']", "no input named 'picture'"),
        ("['causal(seconds)']", "no axis named 'seconds'"),
        ("['same_item &']", "the expression ends"),
    ],
)
def test_wrong_expressions_are_named(tmp_path, graphs, message):
    with pytest.raises(ConfigError, match=f"model.position: .*{message}"):
        load_config(written(tmp_path, graphs))


def test_a_graph_outside_chopmix_needs_trust(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "near.py").write_text(NEAR)
    config = load_config(written(tmp_path, "['near:Near']"))
    assert "near" in config.trust.modules
