"""Positions: each kind gives the values of a published implementation, and has the documented properties."""

import math
from dataclasses import replace

import pytest
import torch
from chopmix.models.batch import Chunks
from chopmix.models.layers.positions import Learned, LearnedSecond, Sinusoidal, interpolated
from chopmix.models.layers.relative import Alibi, RelativeBias, RelativePosition, Rotary, rotate
from chopmix.models.tokens import Tokens, plain_tokens
from fake_cuda import fake_cuda
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import resample_abs_pos_embed
from transformers import LlamaConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.t5.modeling_t5 import T5Attention

AXES = ("order", "row", "column")


def tokens_at(places: list[list[float]]) -> Tokens:
    """One row of tokens with these coordinates."""
    ones = torch.ones(1, len(places), dtype=torch.long)
    return Tokens(input=ones, sample=ones, item=ones, position=torch.tensor([places], dtype=torch.float32))


def rotated(rotary: Rotary, x: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    return rotate(x, rotary.rotation(tokens))


@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
@pytest.mark.parametrize("start", [0, 1000])
def test_rotary_equals_that_of_llama(base, start):
    config = LlamaConfig(
        hidden_size=32, num_attention_heads=4, rope_parameters={"rope_type": "default", "rope_theta": base}
    )
    query, key = torch.randn(2, 4, 9, 8), torch.randn(2, 2, 9, 8)
    theirs = LlamaRotaryEmbedding(config)(query, torch.arange(start, start + 9).expand(2, -1))
    angles = Rotary(4, 8, base=base).rotation(plain_tokens(2, 9, start=start))
    for ours, expected in zip(
        (rotate(query, angles), rotate(key, angles)), apply_rotary_pos_emb(query, key, *theirs), strict=True
    ):
        tolerance = 1e-6 if start == 0 else 1e-3  # an angle of 1,000 radians has an error of 6e-5 in float32
        torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)


def test_rotary_scores_depend_on_differences_only():
    rotary = Rotary(1, 8, AXES, per_axis={"order": 4, "row": 2, "column": 2})
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def score(at: list[float], to: list[float]) -> float:
        return float((rotated(rotary, query, tokens_at([at])) * rotated(rotary, key, tokens_at([to]))).sum())

    here = score([3, 1, 2], [5, 0, 4])
    assert score([13, 11, 32], [15, 10, 34]) == pytest.approx(here, abs=1e-5)
    assert score([3, 1, 2], [5, 0, 5]) != pytest.approx(here, abs=1e-3)
    assert score([3, 1, 2], [5, 1, 4]) != pytest.approx(here, abs=1e-3)
    assert score([3, 1, 2], [6, 0, 4]) != pytest.approx(here, abs=1e-3)


def test_rotary_rotates_by_the_documented_angle():
    """Channels c and c + c/2 of a unit vector become the cosine and the sine, counter-clockwise."""
    x = torch.tensor([1.0, 0.0]).expand(1, 1, 3, 2)
    out = rotated(Rotary(1, 2), x, plain_tokens(1, 3))[0, 0]
    expected = [[math.cos(p), math.sin(p)] for p in range(3)]
    torch.testing.assert_close(out, torch.tensor(expected))


def test_each_axis_rotates_its_share_of_the_channels():
    """Shares are pairs in the order of `per_axis`: pairs 0 and 1 are of order, pair 2 is of column, pair 3 of no
    axis."""
    rotary = Rotary(1, 8, AXES, per_axis={"order": 4, "column": 2})
    torch.testing.assert_close(rotary.frequency, torch.tensor([1.0, 0.01, 1.0, 0.0]))
    x = torch.randn(1, 1, 1, 8)
    moved = {axis: rotated(rotary, x, tokens_at([[float(a == axis) for a in AXES]])) for axis in AXES}
    changed = {axis: {c % 4 for c in range(8) if out[0, 0, 0, c] != x[0, 0, 0, c]} for axis, out in moved.items()}
    assert changed == {"order": {0, 1}, "row": set(), "column": {2}}


def test_a_missing_coordinate_does_not_rotate_its_channels():
    rotary = Rotary(1, 8, AXES, per_axis={"order": 4, "row": 2, "column": 2})
    x = torch.randn(1, 1, 1, 8)
    out = rotated(rotary, x, tokens_at([[5.0, math.nan, 2.0]]))
    assert out.isfinite().all()
    assert torch.equal(out[..., [2, 6]], x[..., [2, 6]])
    assert (out[..., [0, 1, 3, 4, 5, 7]] != x[..., [0, 1, 3, 4, 5, 7]]).all()


def test_rotary_keeps_lengths_and_dtype():
    tokens = plain_tokens(2, 5)
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    out = rotated(Rotary(3, 8), x, tokens)
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=0)
    assert out.dtype == torch.float64
    assert rotated(Rotary(3, 8), x.bfloat16(), tokens).dtype == torch.bfloat16
    assert not Rotary(3, 8).has_bias
    assert list(Rotary(3, 8).state_dict()) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_rotary_stays_precise_when_the_type_of_the_model_changes(dtype):
    """Angles stay float32: rounded to bfloat16, neighbouring positions would have equal angles."""
    tokens = plain_tokens(1, 300)
    before, after = Rotary(2, 8).rotation(tokens), Rotary(2, 8).to(dtype).rotation(tokens)
    for angles, expected in zip(after, before, strict=True):
        torch.testing.assert_close(angles.float(), expected)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_4096_positions_have_4096_angles_under_autocast(device):
    """Autocast rounds matrix products to bfloat16, so that 1,024 positions had 513 angles. With fake CUDA only types
    are tested."""
    rotary, tokens = Rotary(2, 64), plain_tokens(1, 4096)
    with torch.autocast("cpu", torch.bfloat16) if device == "cpu" else fake_cuda():
        cosine, sine = rotary.to(device).rotation(tokens.to(device))
    assert cosine.dtype == sine.dtype == torch.float32 and cosine.device.type == device
    if device == "cpu":
        assert len(torch.stack([cosine[0, 0, :, 0], sine[0, 0, :, 0]], dim=1).unique(dim=0)) == 4096
        exact = torch.arange(4096, dtype=torch.float64)[:, None] * 10_000.0 ** -(
            torch.arange(32, dtype=torch.float64) / 32
        )
        torch.testing.assert_close(cosine[0, 0].double(), exact.cos(), rtol=0, atol=5e-4)


def test_bfloat16_queries_are_rotated_in_float32():
    """Only the result is rounded: with bfloat16 cosines, distant positions would be rotated by another angle."""
    x, angles = torch.randn(1, 2, 300, 64).bfloat16(), Rotary(2, 64).rotation(plain_tokens(1, 300))
    assert torch.equal(rotate(x, angles), rotate(x.float(), angles).bfloat16())


@pytest.mark.parametrize(
    "channels, per_axis, message",
    [
        (8, {"rows": 8}, "rotary: no position axis named 'rows'; possible: order, row, column"),
        (8, {"order": 3, "row": 5}, "rotary: axis 'order' has 3 channels; it must be an even number"),
        (8, {"order": 8, "row": 2}, "needs more than the 8 channels of a head"),
        (7, None, "rotary: axis 'order' has 7 channels; it must be an even number"),
        (7, {"row": 4}, "or this is odd"),
        (8, {"order": -2}, "rotary: axis 'order' has -2 channels; it must be an even number, 0 or more"),
    ],
)
def test_rotary_refuses_shares_that_do_not_fit(channels, per_axis, message):
    with pytest.raises(ValueError, match=message):
        Rotary(2, channels, AXES, per_axis=per_axis)


@pytest.mark.parametrize("buckets, longest", [(32, 128), (8, 20), (64, 1000)])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_equal_those_of_t5(bidirectional, buckets, longest):
    distance = torch.arange(-300, 301)
    mine = RelativeBias(2, 8, buckets=buckets, longest=longest, bidirectional=bidirectional).bucket(distance)
    assert torch.equal(mine, T5Attention._relative_position_bucket(distance, bidirectional, buckets, longest))


def test_relative_bias_looks_up_key_minus_query():
    bias = RelativeBias(2, 8, bidirectional=False)
    queries, keys = plain_tokens(1, 3, start=2), plain_tokens(1, 5)
    out = bias.bias(queries, keys)
    assert bias.has_bias
    assert out.shape == (1, 2, 3, 5)
    assert torch.equal(out[0, :, 0, 2], bias.table.weight[0])
    assert torch.equal(out[0, :, 2, 1], bias.table.weight[3])
    assert torch.equal(out[0, :, 1, 4], bias.table.weight[0])  # later keys have the bias of distance 0, as in T5


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 8, 12, 16, 20])
def test_alibi_slopes_equal_those_of_bloom(heads):
    theirs = build_alibi_tensor(torch.ones(1, 2, dtype=torch.long), heads, torch.float32)[:, 0, 1]
    torch.testing.assert_close(Alibi(heads, 8).slopes, theirs, rtol=1e-6, atol=0)


def test_alibi_falls_with_distance_on_both_sides():
    out = Alibi(2, 8).bias(plain_tokens(2, 2, start=1), plain_tokens(2, 4))
    assert Alibi(2, 8).has_bias
    assert out.shape == (1, 2, 2, 4)  # the rows have equal positions
    expected = -torch.tensor([[1.0, 0, 1, 2], [2, 1, 0, 1]])
    torch.testing.assert_close(out[0], expected * torch.tensor([1 / 16, 1 / 256])[:, None, None])


@pytest.mark.parametrize("make", [Alibi, RelativeBias])
def test_rows_with_equal_positions_share_one_bias(make):
    position, rows = make(2, 8), plain_tokens(3, 5)
    assert position.bias(rows, rows).shape == (1, 2, 5, 5)
    moved = replace(rows, position=rows.position + torch.tensor([0.0, 2.0, 5.0])[:, None, None])
    bias = position.bias(moved, rows)
    assert bias.shape == (3, 2, 5, 5)
    for row in range(3):
        one = slice(row, row + 1)
        assert torch.equal(bias[one], position.bias(moved.select(one), rows.select(one)))


@pytest.mark.parametrize("width", [2, 6, 7, 64])
def test_sinusoidal_positions_follow_the_formula_of_2017(width):
    table = Sinusoidal(width, 50)(torch.arange(50))
    for place in (0, 1, 7, 49):
        for channel in range(width):
            angle = place / 10_000 ** (2 * (channel // 2) / width)
            expected = math.cos(angle) if channel % 2 else math.sin(angle)
            assert float(table[place, channel]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", [Learned, Sinusoidal])
def test_absolute_positions_have_a_length(kind):
    assert kind(8, 5).length == 5
    assert kind(8, 5, length=9).length == 9
    index = torch.tensor([[0, 8], [3, 3]])
    out = kind(8, 5, length=9)(index)
    assert out.shape == (2, 2, 8)
    assert torch.equal(out[1, 0], out[1, 1])
    assert not torch.equal(out[0, 0], out[0, 1])
    with pytest.raises(IndexError):
        kind(8, 5)(torch.tensor([5]))


def test_learned_positions_are_rows_of_a_table():
    learned = Learned(8, 5)
    assert torch.equal(learned(torch.tensor([4, 0])), learned.table.weight[[4, 0]])


def test_without_positions_there_is_no_rotation_and_no_bias():
    nothing, tokens = RelativePosition(2, 8), plain_tokens(1, 3)
    assert nothing.rotation(tokens) is None
    assert nothing.bias(tokens, tokens) is None
    assert not nothing.has_bias


@pytest.mark.parametrize("wanted", [(7, 7), (2, 9), (4, 6)])
def test_a_grid_is_interpolated_as_timm_does(wanted):
    table = torch.randn(24, 16)
    expected = resample_abs_pos_embed(table[None], list(wanted), [4, 6], num_prefix_tokens=0)[0]
    torch.testing.assert_close(interpolated(table, (4, 6), wanted), expected)


@given(st.lists(st.floats(-2, 30, width=32), min_size=1, max_size=9))
def test_a_learned_second_belongs_to_the_time_of_the_token(seconds):
    """For any begin of the item and any index; later seconds use the last vector, earlier seconds the first."""
    position = LearnedSecond(4, 0, length=12)
    chunks = Chunks(values=torch.zeros(len(seconds), 1), index=torch.arange(len(seconds)),
                    coordinates=torch.tensor(seconds)[:, None])  # fmt: skip
    expected = [position.table.weight[min(max(math.floor(second), 0), 11)] for second in seconds]
    assert torch.equal(position.of(chunks), torch.stack(expected))


def test_an_input_without_a_time_axis_has_no_learned_second():
    with pytest.raises(ValueError, match="learned_second needs an input with a time axis in seconds"):
        LearnedSecond(4, 8).of(Chunks(values=torch.zeros(2), index=torch.arange(2)))
