"""Random changes of streams, and the convolutions before the windows of a sensor."""

import math

import numpy as np
import pytest
import torch
from chopmix.tokenizers.media.clock import Clocked
from chopmix.tokenizers.media.stream_augmentation import StreamAugmentation
from chopmix.tokenizers.sensor import SensorChopper, SensorTokenizer, Stem
from hypothesis import given
from hypothesis import strategies as st
from untrained import untrained

SHARES = st.floats(0, 0.9)


@given(shift=SHARES, warp=SHARES, scale=SHARES, jitter=SHARES, mask_time=SHARES, mask_channels=SHARES,
       length=st.integers(1, 20), seed=st.integers(0, 99), missing=st.sampled_from([0.0, 0.3, 1.0]))  # fmt: skip
def test_streams_keep_their_shape_and_categories_their_values(length, seed, missing, **options):
    random = np.random.default_rng(seed)
    values = torch.from_numpy(random.normal(size=(length, 3)).astype(np.float32))
    values[:, 2] = torch.from_numpy(random.integers(4, size=length).astype(np.float32))
    values[torch.from_numpy(random.random((length, 3)) < missing)] = math.nan
    before = values.clone()
    augmentation = StreamAugmentation(**options)
    changed = augmentation(values, [0, 1], np.random.default_rng(seed))
    again = augmentation(values, [0, 1], np.random.default_rng(seed))
    torch.testing.assert_close(values, before, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(changed, again, equal_nan=True, rtol=0, atol=0)
    assert changed.shape == values.shape and not changed.isinf().any()
    known = changed[:, 2][~changed[:, 2].isnan()]
    assert {*known.tolist()} <= {*before[:, 2].tolist()}
    if not (options["mask_time"] or options["mask_channels"]) and missing == 0:
        assert not changed.isnan().any()


def test_no_change_is_the_default():
    values = torch.randn(9, 2)
    assert torch.equal(StreamAugmentation()(values, [0, 1], np.random.default_rng(0)), values)


def test_each_change_of_a_line():
    line = torch.arange(21.0)[:, None]

    def changed(seed=0, **options):
        return StreamAugmentation(**options)(line, [0], np.random.default_rng(seed))[:, 0]

    shifts = {round(float((changed(seed, shift=0.2) - line[:, 0])[10]), 3) for seed in range(30)}
    assert all(-4.2 <= shift <= 4.2 for shift in shifts) and len(shifts) == 30
    slopes = [float(changed(seed, warp=0.5).diff()[10]) for seed in range(30)]
    assert 0.5 <= min(slopes) < 0.8 < 1.2 < max(slopes) <= 1.5
    scaled = changed(1, scale=0.3)
    torch.testing.assert_close(scaled.diff(), scaled.diff()[:1].expand(20))
    assert float(scaled.mean()) == pytest.approx(10, abs=1e-4) and float(scaled.diff()[0]) != 1
    noise = torch.stack([changed(seed, jitter=0.1) - line[:, 0] for seed in range(200)])
    assert float(noise.std()) == pytest.approx(0.1 * float(line.std(correction=0)), rel=0.05)
    masked = [int(changed(seed, mask_time=0.5).isnan().sum()) for seed in range(50)]
    assert max(masked) == 10 and min(masked) == 0


def test_at_least_one_channel_remains():
    values = torch.ones(4, 5)
    for seed in range(50):
        changed = StreamAugmentation(mask_channels=0.9)(values, [0, 1, 2, 3, 4], np.random.default_rng(seed))
        assert (~changed.isnan()).all(0).any() and (changed.isnan().all(0) | (~changed.isnan()).all(0)).all()


def test_times_are_kept_and_only_training_changes_streams():
    chopper = SensorChopper(channels=1, augment_stream=StreamAugmentation(shift=0.5), mean=0, scale=1)
    for timing in ({"seconds": np.arange(6.0) * 2}, {"interval": 2.0}):
        stream = chopper.decode({"values": np.arange(6.0), **timing})
        changed = chopper.augment(stream, np.random.default_rng(0))
        assert type(changed) is type(stream) and changed.interval == stream.interval
        assert not torch.equal(changed.values, stream.values)
        assert not isinstance(changed, Clocked) or torch.equal(changed.seconds, stream.seconds)
    plain = SensorChopper(channels=1, mean=0, scale=1)
    assert plain.augment(stream, np.random.default_rng(0)) is stream


@pytest.mark.parametrize("options", [{"shift": -0.1}, {"warp": 1.0}, {"jitter": math.nan}])
def test_shares_outside_of_their_range_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be at least 0 and below 1"):
        StreamAugmentation(**options)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), layers=st.integers(1, 3), seed=st.integers(0, 9))
def test_convolutions_of_several_items_are_those_of_each_item_alone(lengths, layers, seed):
    torch.manual_seed(seed)
    stem = Stem(2, 4, layers)
    items = [torch.randn(length, 2) for length in lengths]
    number = torch.arange(len(items)).repeat_interleave(torch.tensor(lengths))
    together = stem(torch.cat(items), number, len(items)).split(lengths)
    for item, result in zip(items, together):
        x = item.T[None]
        for layer in stem.layers:
            x = torch.nn.functional.gelu(layer(x))
        torch.testing.assert_close(result, x[0].T, rtol=1e-5, atol=1e-6)


def test_a_stem_reads_the_measurements_around_a_token():
    """With a stem a token depends on later measurements, which `causal(seconds)` does not allow."""
    assert SensorChopper(channels=1, stem=1).needs_whole and not SensorChopper(channels=1).needs_whole
    with pytest.raises(ValueError, match="stem must be from 0 to 8"):
        SensorChopper(channels=1, stem=9)
    chopper = SensorChopper(
        channels={"a": None, "kind": None}, categories={"kind": 3}, window=2, stem=2, mean=0, scale=1
    )
    tokenizer = SensorTokenizer(chopper, 8, 16)
    assert tokenizer.embedding.in_features == 16 and len(tokenizer.stem.layers) == 2


def test_an_augmented_input_of_a_forecast_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wave = {"use": "sensor", "channels": 2, "window": 2, "augment_stream": {"shift": 0.1}}
    with pytest.raises(Exception, match="changes the measurements, but not the future that the task 'it' predicts"):
        untrained({"wave": wave}, {"it": {"use": "forecast", "target": "future", "input": "wave"}})
    untrained({"wave": wave}, {"it": {"use": "classification", "target": "label"}})
