"""The transformer: it equals published implementations with the same weights; caches, dropout, order of tokens,
errors."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
import torch
from chopmix.models.attention.graph import Causal, SameSample
from chopmix.models.attention.kernels import Band, Dense, PerSample, Plain
from chopmix.models.attention.plan import plan, plan_cross
from chopmix.models.generation.fast_decoder import fast_norm
from chopmix.models.layers.feed_forward import Gelu, Relu, SquaredRelu, Swiglu
from chopmix.models.layers.norms import LayerNorm, PostNorm, PreNorm, RmsNorm
from chopmix.models.layers.relative import Alibi, RelativeBias, Rotary
from chopmix.models.tokens import Tokens, TokenSet, plain_tokens
from chopmix.models.transformer import Attention, AttentionContext, Block, Dropout, Transformer
from cores import block_of, core_of
from drawn import laid_out
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

INPUTS = ("text", "image", "sound")
rows_of = partial(laid_out, axes=1)
SHAPE = {"width": 16, "depth": 2, "heads": 4}


def small_core(seed: int = 0, dtype: torch.dtype = torch.float64, **options) -> Transformer:
    """A small core in evaluation mode; all parameters are random, also those of norms."""
    torch.manual_seed(seed)
    return randomized(core_of(INPUTS, ("order",), options.pop("crosses", False), **SHAPE | options), dtype).eval()


def randomized(module: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """All parameters random, so that no zero or one hides a missing or misplaced weight."""
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, 1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.3)
    module.to(dtype)
    for part in module.modules():
        if isinstance(part, Rotary):
            part.frequency = part.frequency.float()  # see test_positions: the type of the model does not change it
    return module


def filled(tokens: Tokens, seed: int = 0, width: int = 16, dtype: torch.dtype = torch.float64) -> TokenSet:
    """These tokens with random content."""
    x = torch.randn(*tokens.shape, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return TokenSet(x=x.to(dtype), **vars(tokens))


def read(model: Transformer, tokens: TokenSet) -> Tensor:
    return model(tokens.x, tokens, model.plan(tokens))


def copy_linear(mine: nn.Linear, weight: Tensor, bias: Tensor | None = None):
    with torch.no_grad():
        mine.weight.copy_(weight)
        if bias is not None:
            mine.bias.copy_(bias)


def copy_attention(mine: Attention, theirs: nn.MultiheadAttention):
    matrices = zip(
        (mine.query, mine.key, mine.value), theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True
    )
    for layer, weight, bias in matrices:
        copy_linear(layer, weight, bias)
    copy_linear(mine.out, theirs.out_proj.weight, theirs.out_proj.bias)


def copy_norm(mine: nn.Module, theirs: nn.Module):
    mine.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("activation, layer", [("relu", Relu), ("gelu", partial(Gelu, approximate="none"))])
@pytest.mark.parametrize("norm_first, residual", [(False, PostNorm), (True, PreNorm)])
def test_a_block_with_cross_attention_equals_torchs_decoder_layer(norm_first, residual, activation, layer, padded):
    """The layer of the 2017 paper: causal self-attention, cross-attention to a source with padding, feed-forward."""
    theirs = nn.TransformerDecoderLayer(16, 4, 64, 0.0, activation, batch_first=True, norm_first=norm_first)
    theirs = randomized(theirs).eval()
    mine = block_of(residual=residual, feed_forward=layer)(16, 4, crosses=True).double().eval()
    copy_attention(mine.attention, theirs.self_attn)
    copy_attention(mine.cross_attention, theirs.multihead_attn)
    copy_linear(mine.feed_forward.up, theirs.linear1.weight, theirs.linear1.bias)
    copy_linear(mine.feed_forward.down, theirs.linear2.weight, theirs.linear2.bias)
    for add, norm in zip((mine.add_attention, mine.add_cross_attention, mine.add_feed_forward), "123", strict=True):
        copy_norm(add.norm, getattr(theirs, f"norm{norm}"))

    target = filled(plain_tokens(2, 5))
    source = filled(rows_of([[1, 1, 1, 1, 0, 0], [2, 2, 2, 2, 2, 0]]) if padded else plain_tokens(2, 6), seed=1)
    with torch.no_grad():
        expected = theirs(
            target.x, source.x,
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(5).bool(), tgt_is_causal=True,
            memory_key_padding_mask=source.sample == 0,
        )  # fmt: skip
    reads = AttentionContext(plan(Causal() & SameSample(), target))
    out = mine(target.x, reads, source.x, AttentionContext(plan_cross(SameSample(), target, source)))
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)


def llama_pair(dtype: torch.dtype, groups: int, epsilon: float = 1e-6) -> tuple[Transformer, LlamaModel]:
    """Our model and transformers' with the same random weights. A ratio of 8/3 of 32 is 85.3, and `multiple_of` makes
    it 88."""
    torch.manual_seed(0)
    theirs = randomized(LlamaModel(LlamaConfig(
        vocab_size=3, hidden_size=32, intermediate_size=88, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=groups, rms_norm_eps=epsilon, attn_implementation="sdpa",
    )), dtype).eval()  # fmt: skip
    block = block_of(norm=partial(RmsNorm, epsilon=epsilon), feed_forward=Swiglu, key_value_heads=groups, bias=False)
    mine = small_core(dtype=dtype, width=32, depth=3, heads=4, position=Rotary, block=block)
    mine.position.frequency = theirs.rotary_emb.inv_freq.float()  # the last bit differs, which float64 would show
    for ours, other in zip(mine.blocks, theirs.layers, strict=True):
        for name, short in {"query": "q", "key": "k", "value": "v", "out": "o"}.items():
            copy_linear(getattr(ours.attention, name), getattr(other.self_attn, f"{short}_proj").weight)
        for name in ("gate", "up", "down"):
            copy_linear(getattr(ours.feed_forward, name), getattr(other.mlp, f"{name}_proj").weight)
        copy_norm(ours.add_attention.norm, other.input_layernorm)
        copy_norm(ours.add_feed_forward.norm, other.post_attention_layernorm)
    copy_norm(mine.norm, theirs.norm)
    return mine, theirs if dtype == torch.float32 else with_exact_norms(theirs)


def with_exact_norms(theirs: LlamaModel) -> LlamaModel:
    """The same model with torch's norm: that of transformers rounds to float32 for any type of the model."""
    for name, part in list(theirs.named_modules()):
        if isinstance(part, LlamaRMSNorm):
            exact = nn.RMSNorm(len(part.weight), eps=part.variance_epsilon).to(part.weight.dtype)
            copy_norm(exact, part)
            theirs.set_submodule(name, exact)
    return theirs


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_a_llama_equals_that_of_transformers(dtype, tolerance, groups, grad):
    """With gradients the fused products are used, without gradients the separate products."""
    ours, theirs = llama_pair(dtype, groups)
    tokens = filled(plain_tokens(2, 11), width=32, dtype=dtype)
    with torch.set_grad_enabled(grad):
        expected = theirs(inputs_embeds=tokens.x, use_cache=False).last_hidden_state
        output = read(ours, tokens)
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(output, expected, rtol=tolerance, atol=tolerance * scale)


def test_a_llama_with_another_epsilon_equals_that_of_transformers():
    ours, theirs = llama_pair(torch.float64, 4, epsilon=1e-2)
    tokens = filled(plain_tokens(2, 11), width=32)
    expected = theirs(inputs_embeds=tokens.x, use_cache=False).last_hidden_state
    torch.testing.assert_close(read(ours, tokens), expected, rtol=1e-10, atol=1e-10)


def test_the_last_norm_has_the_configured_kind():
    assert small_core(block=block_of(norm=partial(LayerNorm, bias=False))).norm.bias is None


def test_there_is_a_last_norm_only_with_pre_norm():
    assert isinstance(small_core().norm, LayerNorm)
    assert isinstance(small_core(block=block_of(norm=RmsNorm)).norm, RmsNorm)
    assert isinstance(small_core(block=block_of(residual=PostNorm)).norm, nn.Identity)


POSITIONS = {
    "none": None,
    "rotary": Rotary,
    "t5": partial(RelativeBias, bidirectional=False, longest=8, buckets=6),
    "alibi": Alibi,
}
PATTERNS = [
    "causal & same_sample",
    ["causal & window(3)", "causal"],
    "causal & window(2) & same_sample",
    "same_sample & (causal | from(image))",
    "causal & (from(image) | window(3))",
]


@pytest.mark.parametrize("chunks", [[4, 1, 1, 1, 1, 1, 1], [3, 4, 1, 2]], ids=str)
@pytest.mark.parametrize("groups", [None, 1], ids=["separate keys", "shared keys"])
@pytest.mark.parametrize("attention", PATTERNS, ids=str)
@pytest.mark.parametrize("position", POSITIONS)
def test_cached_equals_uncached(position, attention, groups, chunks):
    """A prompt, then one token at a time or several: each has its output in the whole row."""
    block = block_of(key_value_heads=groups, query_key_norm=RmsNorm)
    model = small_core(depth=3, attention=attention, position=POSITIONS[position], block=block)
    whole = filled(rows_of([[1] * 10, [2] * 10], [[2] * 3 + [1] * 7] * 2))
    cache, outputs, start = model.empty_cache(2, 12, dtype=torch.float64), [], 0
    with torch.no_grad():
        for count in chunks:
            part = whole.select(slice(None), slice(start, start + count))
            keys = cache.extend(part)
            outputs.append(model(part.x, part, model.plan(part, keys), cache=cache))
            start += count
            assert cache.length == start == cache.layers[0].length
    torch.testing.assert_close(torch.cat(outputs, dim=1), read(model, whole), rtol=1e-10, atol=1e-10)


def test_cached_rows_may_have_padding_on_the_left():
    """Prompts of unequal length, aligned on the right: their padding is never read in generation."""
    model = small_core(attention="causal & same_sample", position=Alibi)
    whole = filled(rows_of([[0, 0, 1, 1, 1, 1], [2] * 6]))
    alone = filled(rows_of([[1] * 4]))
    alone = TokenSet(x=whole.x[:1, 2:], **{name: value for name, value in vars(alone).items() if name != "x"})
    cache = model.empty_cache(2, 6, dtype=torch.float64)
    with torch.no_grad():
        for start, end in (0, 4), (4, 5), (5, 6):
            part = whole.select(slice(None), slice(start, end))
            out = model(part.x, part, model.plan(part, cache.extend(part)), cache=cache)
        torch.testing.assert_close(out[0, -1], read(model, alone)[0, -1], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(out[1, -1], read(model, whole)[1, -1], rtol=1e-10, atol=1e-10)


def test_tokens_that_do_not_fit_into_the_cache_are_refused():
    model = small_core()
    cache = model.empty_cache(2, 5, dtype=torch.float64)
    cache.extend(plain_tokens(2, 4))
    with pytest.raises(ValueError, match="holds 4 of 5 tokens; 2 more do not fit"):
        cache.extend(plain_tokens(2, 2, start=4))
    assert cache.length == 4


def test_packed_samples_have_the_outputs_of_each_sample_alone():
    model = small_core(attention="causal & same_sample", position=Rotary)
    packed = filled(rows_of([[1, 1, 1, 2, 2, 2, 2, 0]]))
    out = read(model, packed)
    for start, end in (0, 3), (3, 7):
        alone = TokenSet(x=packed.x[:, start:end], **vars(plain_tokens(1, end - start)))
        torch.testing.assert_close(out[:, start:end], read(model, alone), rtol=1e-6, atol=1e-6)  # angles are float32


@pytest.mark.parametrize("attention", ["causal", "causal & same_sample", "causal & window(2)", ["causal", "window(1)"]])
def test_later_tokens_change_no_earlier_output(attention):
    model, tokens = small_core(depth=3, attention=attention, position=Alibi), filled(plain_tokens(2, 8))
    changed = filled(plain_tokens(2, 8))
    changed.x[:, 5:] += 1
    before, after = read(model, tokens), read(model, changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] != after[:, 5:]).any(-1).all()


def test_without_positions_a_set_has_no_order():
    """With `same_sample` and no positions, permuted tokens give permuted outputs."""
    model, tokens = small_core(attention="same_sample"), filled(plain_tokens(1, 6))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = TokenSet(x=tokens.x[:, order], **vars(plain_tokens(1, 6)))
    torch.testing.assert_close(read(model, shuffled), read(model, tokens)[:, order], rtol=1e-10, atol=1e-10)


def test_a_list_of_patterns_is_repeated_and_equal_graphs_share_a_layout():
    model = small_core(depth=5, attention=["causal & window(2)", "same_sample & causal"])
    layouts = model.plan(plain_tokens(2, 9))
    assert layouts == (Band(2), Plain(True), Band(2), Plain(True), Band(2))
    assert layouts[0] is layouts[2]
    assert [type(layout) for layout in model.plan(rows_of([[1, 1, 2, 0]]))] == [
        Dense,
        PerSample,
        Dense,
        PerSample,
        Dense,
    ]
    assert isinstance(small_core(position=Alibi).plan(plain_tokens(2, 9))[0], Dense)


def test_each_layer_reads_with_its_pattern():
    """With the window in one layer only, the other layer reads the first token; with it in both, only tokens 0 to 2
    do."""
    tokens, changed = filled(plain_tokens(1, 8)), filled(plain_tokens(1, 8))
    changed.x[:, 0] += 1

    def reads_first_token(attention) -> list[bool]:
        model = small_core(attention=attention)
        return (read(model, tokens) != read(model, changed)).any(-1)[0].tolist()

    assert reads_first_token(["causal & window(2)", "causal"]) == [True] * 8
    assert reads_first_token("causal & window(2)") == [True] * 3 + [False] * 5


def test_cross_attention_reads_only_the_source_of_the_same_sample():
    model = small_core(crosses=True, attention="causal & same_sample")
    target = filled(rows_of([[1, 1, 2, 2]]))
    source, changed = filled(rows_of([[1, 2, 2, 0]]), 1), filled(rows_of([[1, 2, 2, 0]]), 1)
    changed.x[:, 1] += 1  # of sample 2
    changed.x[:, 3] += 1  # of padding
    cross = model.plan_cross(target, source)
    layouts = model.plan(target)
    before, after = (model(target.x, target, layouts, source=s.x, source_layout=cross) for s in (source, changed))
    assert torch.equal(before[:, :2], after[:, :2])
    assert (before[:, 2:] != after[:, 2:]).any(-1).all()


def test_the_length_of_normalised_queries_and_keys_does_not_matter():
    attention = randomized(Attention(16, 4, query_key_norm=partial(RmsNorm, epsilon=0.0), bias=False))
    tokens = filled(plain_tokens(2, 5))
    reads = AttentionContext(plan(Causal(), tokens))
    before = attention(tokens.x, reads)
    with torch.no_grad():
        attention.query.weight.mul_(7)
        attention.key.weight.mul_(3)
    torch.testing.assert_close(attention(tokens.x, reads), before, rtol=1e-10, atol=1e-10)
    assert attention.query_norm is not attention.key_norm


@pytest.fixture
def all_warnings():
    """torch repeats warnings that it would show once per process."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.mark.parametrize("gain", [True, False])
def test_bfloat16_is_normalised_in_float32_without_a_warning_of_torch(all_warnings, gain):
    norm = randomized(RmsNorm(16, gain=gain)).float()
    x = torch.randn(2, 5, 16).bfloat16().requires_grad_()
    expected = torch.rms_norm(x.float(), (16,), norm.weight, norm.eps).bfloat16()
    assert torch.equal(norm(x), expected) and torch.equal(fast_norm(norm)(x), expected)
    (gradient,) = torch.autograd.grad(norm(x).sum(), x)
    assert torch.equal(gradient, torch.autograd.grad(expected.sum(), x)[0])
    with torch.autocast("cpu", torch.bfloat16):
        attention = Attention(16, 4, query_key_norm=partial(RmsNorm, gain=gain))
        tokens = filled(plain_tokens(2, 5), dtype=torch.float32)
        output = attention(tokens.x, AttentionContext(plan(Causal(), tokens, dtype=torch.bfloat16)))
    assert output.dtype == torch.bfloat16


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layer", [Gelu, Relu, SquaredRelu, Swiglu])
def test_feed_forward_layers_follow_their_formulas(layer, bias):
    feed_forward = randomized(layer(6, bias))
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    hidden = feed_forward.up(x)
    expected = {
        Gelu: lambda: 0.5 * hidden * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3))),
        Relu: lambda: hidden.clamp(min=0),
        SquaredRelu: lambda: hidden.clamp(min=0) ** 2,
        Swiglu: lambda: feed_forward.gate(x) * torch.sigmoid(feed_forward.gate(x)) * hidden,
    }[layer]()
    torch.testing.assert_close(feed_forward(x), feed_forward.down(expected), rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(feed_forward(x), feed_forward.down(expected), rtol=1e-10, atol=1e-10)
    assert (feed_forward.down.bias is not None) is bias
    assert feed_forward.up.out_features == (16 if layer is Swiglu else 24)


PLACES = ("embedding", "attention", "residual", "depth")


@pytest.mark.parametrize(
    "attention", ["causal & same_sample", "causal & window(3)", "same_sample & (causal | from(image))"]
)
@pytest.mark.parametrize("place", PLACES)
def test_dropout_at_each_place_applies_only_in_training(place, attention):
    model = small_core(attention=attention, depth=3, dropout=Dropout(**{place: 0.5}))
    tokens, without_dropout = filled(plain_tokens(8, 12)), small_core(attention=attention, depth=3)
    assert torch.equal(read(model, tokens), read(model, tokens))
    assert torch.equal(read(model, tokens), read(without_dropout, tokens))
    model.train()
    first, second = read(model, tokens), read(model, tokens)
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    first = read(model, tokens)
    torch.manual_seed(5)
    assert torch.equal(first, read(model, tokens))
    assert torch.equal(read(model.eval(), tokens), read(without_dropout, tokens))


def test_without_dropout_training_equals_evaluation():
    model, tokens = small_core(), filled(plain_tokens(2, 6))
    assert torch.equal(read(model, tokens), read(model.train(), tokens))


def test_cross_attention_has_dropout_in_its_attention_and_its_branch():
    for place in ("attention", "residual"):
        block = randomized(Block(16, 4, Dropout(**{place: 0.5}), crosses=True)).train()
        for part in (block.attention, block.add_attention, block.add_feed_forward):
            part.eval()
        tokens, source = filled(plain_tokens(2, 4)), filled(plain_tokens(2, 6), 1)
        reads = (
            AttentionContext(plan(Causal(), tokens)),
            source.x,
            AttentionContext(plan_cross(SameSample(), tokens, source)),
        )
        assert not torch.equal(block(tokens.x, *reads), block(tokens.x, *reads))
        block.eval()
        assert torch.equal(block(tokens.x, *reads), block(tokens.x, *reads))


@pytest.mark.parametrize("residual", [PreNorm, PostNorm])
def test_stochastic_depth_skips_whole_rows_and_keeps_the_expectation(residual):
    add = residual(4, LayerNorm, 0.0, 0.3).train()
    torch.manual_seed(0)
    branch = add.drop(torch.ones(4000, 3, 4))
    assert branch.mean() == pytest.approx(1, abs=0.03)
    rows = branch.flatten(1)
    assert (rows == rows[:, :1]).all()
    assert sorted(set(rows[:, 0].tolist())) == pytest.approx([0, 1 / 0.7])
    assert (rows[:, 0] == 0).float().mean() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(add.eval().drop(torch.ones(5, 3, 4)), torch.ones(5, 3, 4))


def test_residual_dropout_keeps_the_expectation():
    add = PreNorm(4, LayerNorm, 0.3, 0.0).train()
    torch.manual_seed(0)
    assert add.drop(torch.ones(4000, 3, 4)).mean() == pytest.approx(1, abs=0.03)


def test_stochastic_depth_grows_linearly_from_the_first_layer():
    model = small_core(depth=5, crosses=True, dropout=Dropout(depth=0.4))
    for name in ("add_attention", "add_cross_attention", "add_feed_forward"):
        assert [getattr(block, name).skip for block in model.blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert small_core(depth=1, dropout=Dropout(depth=0.4)).blocks[0].add_attention.skip == 0


def test_one_number_sets_dropout_at_the_three_places_of_the_paper():
    assert Dropout.from_number(0.1) == Dropout(embedding=0.1, attention=0.1, residual=0.1, depth=0.0)


def test_gradients_reach_every_parameter():
    model = small_core(crosses=True, position=RelativeBias, block=block_of(query_key_norm=RmsNorm, key_value_heads=2))
    target, source = filled(plain_tokens(2, 5)), filled(plain_tokens(2, 6), 1)
    cross = model.plan_cross(target, source)
    out = model(target.x, target, model.plan(target), source=source.x, source_layout=cross)
    (out * torch.randn_like(out)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(
    "options, message",
    [
        ({"heads": 3}, r"heads \(3\) must divide width \(16\)"),
        ({"block": block_of(key_value_heads=3)}, r"key_value_heads \(3\) must divide heads \(4\)"),
        ({"block": block_of(key_value_heads=8)}, r"key_value_heads \(8\) must divide heads \(4\)"),
        (
            {"block": block_of(feed_forward=partial(Gelu, approximate="erf"))},
            "approximate must be 'none' or 'tanh'",
        ),
        ({"attention": "causl"}, "did you mean 'causal'"),
        ({"attention": ["causal", "from(video)"]}, "no input named 'video'; possible: text, image, sound"),
        ({"attention": "causal(row)"}, "no axis named 'row'; possible: order"),
        ({"position": Rotary, "width": 12}, "it must be an even number"),
    ],
)
def test_invalid_options_of_a_core_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        core_of(INPUTS, **SHAPE | options)


def test_attention_checks_its_number_of_heads():
    with pytest.raises(ValueError, match=r"heads \(5\) must divide width \(16\)"):
        Attention(16, 5)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, float("nan")])
def test_dropout_is_a_probability_below_one(place, value):
    with pytest.raises(ValueError, match=rf"dropout\.{place} is {value}; it must be at least 0 and below 1"):
        Dropout(**{place: value})


def test_the_number_of_layouts_must_equal_the_number_of_layers():
    model, tokens = small_core(), filled(plain_tokens(1, 3))
    with pytest.raises(ValueError, match="shorter"):
        model(tokens.x, tokens, model.plan(tokens)[:1])


# --------------------------------------------------------------------------------------------------- only the vectors


@pytest.mark.parametrize("position", POSITIONS)
def test_a_core_can_be_called_with_only_vectors(position):
    """Missing arguments have defaults: each row is one full sample, and the layout is planned from the graph."""
    model, tokens = small_core(attention="causal", position=POSITIONS[position]), filled(plain_tokens(2, 7))
    assert torch.equal(model(tokens.x), read(model, tokens))
    cache = model.empty_cache(2, 7, dtype=torch.float64)
    with torch.no_grad():
        steps = [model(x, cache=cache) for x in tokens.x.split([4, 1, 2], dim=1)]
        torch.testing.assert_close(torch.cat(steps, dim=1), model(tokens.x), rtol=1e-10, atol=1e-10)
    assert cache.tokens.position[0, :, 0].tolist() == [*range(7)]


def test_the_example_of_the_readme():
    y = Transformer(width=64, depth=2, heads=2, attention="causal")(torch.randn(2, 10, 64))
    assert y.shape == (2, 10, 64)
    graph = Causal() & ~SameSample()
    assert Transformer(width=8, depth=3, heads=2, attention=["causal", graph]).graphs == (Causal(), graph, Causal())


def test_cross_attention_can_be_called_with_only_vectors():
    model = small_core(crosses=True)
    target, source = filled(plain_tokens(2, 4)), filled(plain_tokens(2, 6), 1)
    layouts, cross = model.plan(target), model.plan_cross(target, source)
    expected = model(target.x, target, layouts, source=source.x, source_layout=cross)
    assert torch.equal(model(target.x, source=source.x), expected)
    assert torch.equal(model(target.x, target, source=source.x), expected)


def test_tokens_without_layouts_are_planned():
    model, tokens = small_core(attention="causal & same_sample"), filled(rows_of([[1, 1, 2, 2, 0]]))
    assert torch.equal(model(tokens.x, tokens), read(model, tokens))


def test_no_constructor_has_more_than_eight_parameters():
    for kind in (Attention, Block, Transformer, PreNorm, PostNorm):
        assert len(inspect.signature(kind).parameters) <= 8


@pytest.mark.parametrize("options", [{}, {"position": Rotary}, {"attention": ["causal", "same_sample"]}], ids=str)
def test_a_depth_of_0_returns_the_vectors_at_once_and_step_by_step(options):
    core, x = Transformer(width=8, depth=0, heads=2, **options).eval(), torch.randn(2, 5, 8)
    assert torch.equal(core(x), x) and not [*core.parameters()]
    cache = core.empty_cache(2, 5)
    assert torch.equal(torch.cat([core(x[:, [n]], cache=cache) for n in range(5)], 1), x)
