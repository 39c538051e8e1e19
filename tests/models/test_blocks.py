"""Blocks without attention: the LSTM and the window perceptron. Their result for a sample does not depend on the other
samples in its row, on padding, or on the state in which generation stores earlier tokens."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from chopmix.experiment.settings.config import ConfigError, load_config
from chopmix.models.attention.graph import Causal, SameSample, Window
from chopmix.models.attention.kernels import Plain
from chopmix.models.blocks.lstm import Lstm, LstmOptions, Segments, SourceEnds
from chopmix.models.blocks.window_perceptron import WindowPerceptron, WindowPerceptronOptions
from chopmix.models.cache import RowState
from chopmix.models.contract import ContractError
from chopmix.models.layers.feed_forward import FeedForward, OwnLayers
from chopmix.models.tokens import Tokens, plain_tokens
from chopmix.models.transformer import BaseBlock, Block, BlockOptions, Transformer
from hypothesis import given, settings
from hypothesis import strategies as st

WIDTH = 16
BLOCKS = {
    "lstm": partial(Lstm, options=LstmOptions()),
    "window_perceptron": partial(WindowPerceptron, options=WindowPerceptronOptions(words=3)),
    "window_perceptron of one word": partial(WindowPerceptron, options=WindowPerceptronOptions(words=1)),
    "block": Block,
}
every_block = pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
ROWS = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=3)
"""The lengths of the samples in each row."""


def core_of(block, **options) -> Transformer:
    torch.manual_seed(0)
    return Transformer(**{"width": WIDTH, "depth": 2, "heads": 2, "block": block} | options).eval()


def rows_of(lengths: list[list[int]], padded_left: bool = False) -> Tokens:
    """Rows with samples of these lengths, filled up with padding."""
    longest, number = max(map(sum, lengths)), 0
    sample = torch.zeros(len(lengths), longest, dtype=torch.long)
    for row, counts in enumerate(lengths):
        start = (longest - sum(counts)) * padded_left
        for count in counts:
            number += 1
            sample[row, start : start + count] = number
            start += count
    position = torch.arange(longest, dtype=torch.float32)[None, :, None].repeat(len(lengths), 1, 1)
    return Tokens(input=(sample > 0).long(), sample=sample, item=sample, position=position)


@every_block
@settings(max_examples=15, deadline=None)
@given(lengths=ROWS, padded_left=st.booleans())
def test_samples_in_packed_rows_have_the_vectors_of_single_samples(block, lengths, padded_left):
    core, tokens = core_of(block), rows_of(lengths, padded_left)
    x = torch.randn(*tokens.shape, WIDTH)
    with torch.no_grad():
        packed = core(x, tokens)
        for number in range(1, int(tokens.sample.max()) + 1):
            mine = tokens.sample == number
            alone = core(x[mine][None])
            torch.testing.assert_close(packed[mine], alone[0], atol=1e-6, rtol=1e-5)


@every_block
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3), steps=st.lists(st.integers(1, 3), max_size=3))
def test_reading_step_by_step_equals_reading_at_once(block, lengths, steps):
    """The prompts are padded on the left; then several tokens are read at a time."""
    core, tokens = core_of(block), rows_of([[length] for length in lengths], padded_left=True)
    rows, n = tokens.shape
    x = torch.randn(rows, n + sum(steps), WIDTH)
    cache = core.empty_cache(rows, x.shape[1])
    with torch.no_grad():
        parts, start = [core(x[:, :n], tokens, cache=cache)], n
        for more in steps:
            new = plain_tokens(rows, more, start=start)
            parts.append(core(x[:, start : start + more], new, cache=cache))
            start += more
        stepped = torch.cat(parts, dim=1)
        for row, length in enumerate(lengths):
            alone = core(x[row : row + 1, n - length :])
            torch.testing.assert_close(stepped[row, n - length :], alone[0], atol=1e-6, rtol=1e-5)


@every_block
def test_rows_of_a_state_are_selected_copied_and_forked(block):
    """As in beam search: rows are replaced by copies of others, dropped and continued apart."""
    core, x = core_of(block), torch.randn(3, 4, WIDTH)
    cache, new = core.empty_cache(3, 8), torch.randn(2, 1, WIDTH)

    def beams(rows: int, length: int, start: int = 0) -> Tokens:
        tokens = plain_tokens(rows, length, start=start)
        return replace(tokens, sample=torch.ones(rows, length, dtype=torch.long))

    with torch.no_grad():
        core(x[:, :3], beams(3, 3), cache=cache)
        branch = cache.fork(torch.tensor([2, 0]), 2)
        forked = core(new, beams(2, 1, start=3), cache=branch)
        cache.copy(torch.tensor([0]), torch.tensor([1]))
        cache.select(torch.tensor([1, 2]))
        selected = core(new, beams(2, 1, start=3), cache=cache)
        for got, texts in ((forked, (x[2:], x[:1])), (selected, (x[:1], x[2:]))):
            for row, text in enumerate(texts):
                alone = core(torch.cat([text[:, :3], new[row : row + 1]], dim=1))
                torch.testing.assert_close(got[row, -1], alone[0, -1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("soft", [True, False])
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4))
def test_a_translation_in_packed_rows_is_that_of_a_single_sample(soft, lengths):
    """The encoder reads in both directions; the decoder begins with its first and last vector."""
    options = LstmOptions(soft=soft)
    encoder = core_of(partial(Lstm, options=options), attention="same_sample")
    decoder = core_of(partial(Lstm, crosses=True, options=options))
    source, target = (rows_of([[pair[side] for pair in lengths]]) for side in (0, 1))
    x, y = torch.randn(*source.shape, WIDTH), torch.randn(*target.shape, WIDTH)
    with torch.no_grad():
        read = encoder(x, source)
        cross, layouts = decoder.plan_cross(target, source), decoder.plan(target)
        packed = decoder(y, target, layouts, source=read, source_layout=cross)
        for number in range(1, len(lengths) + 1):
            ours, theirs = source.sample == number, target.sample == number
            alone = decoder(y[theirs][None], source=encoder(x[ours][None]))
            torch.testing.assert_close(packed[theirs], alone[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_sample_without_source_reads_nothing_of_the_others(missing):
    decoder = core_of(partial(Lstm, crosses=True))
    source, target = rows_of([[2, 3, 2]]), rows_of([[3, 2, 1]])
    source = source.select(slice(None), (source.sample[0] != missing).nonzero()[:, 0])
    y, read = torch.randn(*target.shape, WIDTH), torch.randn(*source.shape, WIDTH, requires_grad=True)
    cross = decoder.plan_cross(target, source)
    packed = decoder(y, target, decoder.plan(target), source=read, source_layout=cross)
    (gradient,) = torch.autograd.grad(packed[target.sample == missing].square().sum(), read)
    assert not gradient.any()
    for number in {1, 2, 3} - {missing}:
        alone = decoder(y[target.sample == number][None], source=read[source.sample == number][None])
        torch.testing.assert_close(packed[target.sample == number], alone[0], atol=1e-6, rtol=1e-5)


def test_both_directions_of_an_encoder_depend_on_all_tokens():
    core = core_of(BLOCKS["lstm"], depth=1, attention="same_sample")
    x = torch.randn(1, 5, WIDTH, requires_grad=True)
    (core(x)[0, 2] * torch.randn(WIDTH)).sum().backward()
    assert bool((x.grad[0].abs().sum(-1) > 0).all())


def test_an_lstm_is_that_of_torch():
    core = core_of(BLOCKS["lstm"], depth=1)
    (block,), x = core.blocks, torch.randn(2, 7, WIDTH)
    with torch.no_grad():
        expected = x + block.lstm(block.add_lstm.norm(x))[0]
        torch.testing.assert_close(core(x), core.norm(expected), atol=1e-6, rtol=1e-5)


def test_segments_of_rows():
    tokens = rows_of([[3, 2], [4]])
    segments = Segments.of(tokens.sample)
    assert segments.lengths.tolist() == [3, 2, 4] and segments.rows.tolist() == [0, 0, 1]
    assert segments.slots.tolist() == [[0, 1, 2, 2], [3, 4, 4, 4], [5, 6, 7, 8]]
    assert segments.last.tolist() == [1, 2] and segments.places.tolist() == [0, 1, 2, 4, 5, 8, 9, 10, 11]
    ends = SourceEnds.of(rows_of([[1, 1, 1]]), tokens, Plain(causal=False))
    assert (ends.first.tolist(), ends.last.tolist()) == ([0, 3, 5], [2, 4, 8])


@pytest.mark.parametrize(
    "block, role, graph, is_refused",
    [
        ("lstm", "decoder-only", Causal() & SameSample(), False),
        ("lstm", "decoder-only", SameSample() & Causal(), False),
        ("lstm", "decoder", SameSample(), True),
        ("lstm", "decoder-only", SameSample(), True),
        ("lstm", "encoder", SameSample(), False),
        ("lstm", "encoder", Causal() & SameSample(), False),
        ("lstm", "decoder-only", Causal() & SameSample() & Window(8), True),
        ("lstm", "decoder-only", Causal(), True),
        ("window_perceptron", "decoder-only", Causal() & SameSample() & Window(3), False),
        ("window_perceptron", "decoder-only", Causal() & SameSample() & Window(2), True),
        ("window_perceptron", "encoder", SameSample(), True),
        ("block", "decoder", ~Causal(), False),
    ],
)
def test_a_graph_that_a_block_does_not_compute_is_refused(block, role, graph, is_refused):
    problems = list(BLOCKS[block](WIDTH, 2, graph=graph).problems(graph, role))
    assert bool(problems) == is_refused
    assert all(path == ("attention",) and text.startswith("must be causal & same_sample") for path, text in problems)


YAML = """
inputs: {text: {use: text, encoding: characters}}
model: {width: 16, depth: 1, heads: 2, context: 16, attention: causal, block: BLOCK, position: POSITION}
tasks: {lm: {use: language_modeling, target: text, head: unembedding}}
data: {dataset: tiny_shakespeare}
training: {steps: 1, tokens_per_step: 64}
"""


@pytest.mark.parametrize(
    "block, position, message",
    [
        ("lstm", "null", "model.attention: must be causal & same_sample, because the block lstm reads"),
        ("{use: window_perceptron, words: 0}", "null", "model.block: words must be at least 1, not 0"),
        ("lstm", "rotary", "model.position: must be null: the block lstm has no relative positions"),
    ],
)
def test_a_yaml_is_refused_before_training(tmp_path, block, position, message):
    (tmp_path / "a.yaml").write_text(YAML.replace("BLOCK", block).replace("POSITION", position))
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "a.yaml")


VALUES = """
from chopmix import Block


class Reads(Block):
    def __init__(self, *values, **options):
        super().__init__(*values, **options)
        self.attention.query.weight.sum().item()
"""


def test_a_block_that_reads_the_values_of_its_weights_is_not_refused(tmp_path, monkeypatch):
    """The check builds blocks without memory, in which such code fails."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reads_values.py").write_text(VALUES)
    (tmp_path / "a.yaml").write_text(YAML.replace("BLOCK", "reads_values:Reads").replace("POSITION", "null"))
    assert load_config(tmp_path / "a.yaml").model.options["depth"] == 1


def test_a_state_of_another_shape_is_refused():
    state = RowState(hidden=torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"the state has the shape \(2, 4\); hidden has the shape \(1, 4\)"):
        state.set(hidden=torch.zeros(1, 4))
    with pytest.raises(ValueError, match="the state has nothing of this name; memory"):
        state.set(memory=torch.zeros(2, 4))


def test_a_block_without_a_state_says_so():
    class Copies(BaseBlock):
        def __init__(self, width, heads, dropout, skip, crosses=False, *, graph=None):
            super().__init__()

        def forward(self, x, context, source=None, source_context=None):
            assert context.tokens.shape == x.shape[:2]
            return x

    core = core_of(Copies)
    assert torch.equal(core(x := torch.randn(1, 3, WIDTH)), x)
    with pytest.raises(NotImplementedError, match="Copies has no empty_state, so it generates only without a cache"):
        core.empty_cache(1, 4)


class Adds(FeedForward):
    """Appends `loss` to the loss terms."""

    reads_context = True

    def __init__(self, width, bias=True, *, loss):
        super().__init__()
        self.loss = loss

    def forward(self, x, context):
        if context.losses is not None:
            context.losses.append(self.loss)
        return x


def adds(loss, **options):
    block = partial(Block, options=BlockOptions(feed_forward=partial(Adds, loss=loss), **options))
    return Transformer(width=WIDTH, depth=2, heads=2, block=block)


def test_loss_terms_are_summed_once_and_a_model_can_be_copied_after_a_step():
    core = adds(torch.tensor(1.5, requires_grad=True))
    core(torch.randn(1, 3, WIDTH))
    assert core.take_loss() == 3.0 and not core.losses
    deepcopy(core)
    core.eval()(torch.randn(1, 3, WIDTH))
    assert not core.losses


@pytest.mark.parametrize(
    "loss, described", [(1.0, "1.0"), (torch.zeros(3), r"a tensor of shape \(3,\)"), (None, "None")], ids=str
)
def test_a_loss_term_that_is_not_a_scalar_is_refused(loss, described):
    with pytest.raises(ContractError, match=f"Block added the loss term {described}; expected: a scalar tensor"):
        adds(loss)(torch.randn(1, 3, WIDTH))


def test_groups_of_inputs_cannot_have_their_own_layer_that_reads_all_tokens():
    own = OwnLayers(layers=("feed_forward",), groups=(("text",), ("image",)))
    with pytest.raises(ValueError, match="own_layers: Adds reads all tokens, so groups cannot have their own"):
        adds(torch.zeros(()), own_layers=own)


@pytest.mark.parametrize("state", [None, torch.zeros(1, 4), {"hidden": 0}], ids=["none", "tensor", "dict"])
def test_a_state_of_another_type_is_refused(state):
    class Stores(Block):
        def empty_state(self, rows, capacity, *, dtype, device):
            return state

    with pytest.raises(ContractError, match=r"model.block: Stores.empty_state returned .*; expected: a LayerState"):
        core_of(Stores).empty_cache(1, 4)


def test_padding_of_an_lstm_needs_tokens():
    mask = torch.tensor([[False, True]])
    with pytest.raises(ValueError, match="lstm: padding_mask is not supported; pass `tokens`"):
        core_of(BLOCKS["lstm"])(torch.randn(1, 2, WIDTH), padding_mask=mask)
