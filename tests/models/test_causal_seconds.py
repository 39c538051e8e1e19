"""`causal(seconds)`: no token reads what a stream measures after the time of the token, for any rates and windows."""

import numpy as np
import pytest
import torch
from chopmix.models.attention.graph import Causal, SameSample
from chopmix.models.attention.mask import reach
from chopmix.models.batch import Batch
from chopmix.models.model import Cores, Model
from chopmix.models.tokens import Tokens
from chopmix.tokenizers.audio import AudioChopper, AudioTokenizer
from chopmix.tokenizers.audio_patches import AudioPatchesChopper, AudioPatchesTokenizer
from chopmix.tokenizers.chopping.packing import pack
from chopmix.tokenizers.sensor import SensorChopper, SensorTokenizer
from chopmix.tokenizers.video import VideoChopper, VideoTokenizer
from cores import core_of
from hypothesis import given, settings
from hypothesis import strategies as st

CONTEXT = 256
AXES = ("order", "seconds", "row", "column")


def streams(rate: float, window: int, frames: int):
    """Three streams of 0.6 seconds: choppers, tokenizers, and the rate of each."""
    choppers = {
        "wheel": SensorChopper(channels=2, rate=rate, window=window),
        "sound": AudioChopper(rate=2000, mels=6, hop=0.02, window=0.05, frames=frames),
        "video": VideoChopper(size=4, patch_size=4, channels=1, rate=10, frames=frames),
    }
    makers = {"wheel": SensorTokenizer, "sound": AudioTokenizer, "video": VideoTokenizer}
    return choppers, makers, {"wheel": rate, "sound": 2000, "video": 10}


def measured(rates: dict[str, float], seed: int) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(seed)
    return {
        "wheel": torch.from_numpy(random.standard_normal((max(int(0.6 * rates["wheel"]), 1), 2), dtype=np.float32)),
        "sound": torch.from_numpy(random.standard_normal(1200, dtype=np.float32)),
        "video": torch.from_numpy(random.integers(0, 256, (6, 1, 4, 4), dtype=np.uint8)),
    }


@given(st.sampled_from([3.0, 10.0, 50.0, 64.0]), st.integers(1, 9), st.integers(1, 3), st.floats(0, 0.6))
@settings(max_examples=30, deadline=None)
def test_no_stream_reads_later_values_of_another(rate, window, frames, now):
    """All values measured after `now` are replaced: the outputs of tokens up to `now` stay the same, bit for bit."""
    torch.manual_seed(0)
    choppers, makers, rates = streams(rate, window, frames)
    tokenizers = {name: maker(choppers[name], 16, CONTEXT) for name, maker in makers.items()}
    core = core_of(
        list(makers), AXES, width=16, depth=2, heads=2,
        attention="same_sample & causal(seconds)",
    )  # fmt: skip
    model = Model(tokenizers, Cores(core), {}, context=CONTEXT).eval()
    first, other = measured(rates, 0), measured(rates, 1)
    second = {
        name: torch.where(
            (torch.arange(len(first[name])) / rates[name] <= now).view(-1, *[1] * (first[name].dim() - 1)),
            first[name], other[name],
        )
        for name in first
    }  # fmt: skip
    outputs = []
    with torch.inference_mode():
        for values in (first, second):
            plan = pack([list(values.items())], choppers, CONTEXT, AXES)
            outputs.append(model.read(model.plan(Batch(main=plan))).main[0])
    before = plan.tokens.position[0, :, 1] <= now
    assert torch.equal(outputs[0][before], outputs[1][before])
    if now < 0.3:
        assert not torch.equal(outputs[0], outputs[1])


@pytest.mark.parametrize("now", [0.1, 0.2, 0.35])
def test_overlapping_patches_read_no_later_values(now):
    chopper = AudioPatchesChopper(rate=8000, mels=16, patch_size=8, stride=4)
    torch.manual_seed(0)
    model = AudioPatchesTokenizer(chopper, 8, CONTEXT, position=None)
    first, second = torch.randn(2, 4000)
    second = torch.where(torch.arange(4000) / 8000 <= now, first, second)
    chunks = [
        pack([[("s", clip)]], {"s": chopper}, CONTEXT, ("order", "mel", "seconds")).chunks["s"]
        for clip in (first, second)
    ]
    before = chunks[0].coordinates[:, 1] <= now
    assert before.any() and not before.all()
    assert torch.equal(model(chunks[0])[before], model(chunks[1])[before])


def test_tokens_without_a_time_are_after_all_others():
    """A class token reads all streams; no stream reads its later values through the class token."""
    position = torch.tensor([[[0.0, torch.nan], [1.0, 0.1], [2.0, 0.2], [3.0, 0.1], [4.0, torch.nan]]])
    ones = torch.ones(1, 5, dtype=torch.long)
    tokens = Tokens(input=ones, sample=ones, item=ones, position=position)
    known = reach([SameSample() & Causal(1)] * 3, tokens)[0]
    assert known[0].all() and known[4].all()
    assert known[1].tolist() == [False, True, False, True, False]
    assert known[2].tolist() == [False, True, True, True, False]
