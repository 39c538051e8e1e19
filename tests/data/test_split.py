"""Splits of samples: each item is decoded once for a batch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from chopmix.data.collate import Collator, Inputs
from chopmix.data.reader import ItemCache
from chopmix.data.samples import Listed
from chopmix.data.split import SampleSplit, sample_split
from chopmix.tokenizers.audio import AudioChopper
from chopmix.tokenizers.base import Chopper
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.image import ImageChopper
from chopmix.tokenizers.text import TextChopper
from chopmix.tokenizers.video import VideoChopper

DECODED: Counter[str] = Counter()


def counted(kind: type[Chopper]) -> type[Chopper]:
    """The same chopper, which counts what it decodes by its kind."""

    class Counted(kind):
        def decode(self, raw: Any) -> Any:
            DECODED[kind.__name__] += 1
            return super().decode(raw)

    return Counted


CHOPPERS = {
    "image": counted(ImageChopper)(patch_size=4, channels=1, size=8),
    "sound": counted(AudioChopper)(rate=8000, mels=8, frames=2, statistics=(0.0, 1.0)),
    "video": counted(VideoChopper)(patch_size=4, channels=1, size=8),
    "text": counted(TextChopper)(vocabulary=ByteEncoding()),
}


def split() -> SampleSplit:
    """Five samples of all inputs, with a class and a column that judges compare with; nothing fits into the cache."""
    random = np.random.default_rng(0)
    rows = [
        {
            "image": random.integers(0, 256, (8, 8), dtype=np.uint8),
            "sound": (random.normal(size=900).astype(np.float32), 8000),
            "video": random.integers(0, 256, (2, 8, 8), dtype=np.uint8), "text": "ab" * number,
            "label": number, "compared": f"{number}",
        }
        for number in range(5)
    ]  # fmt: skip
    inputs = Inputs(columns={name: name for name in CHOPPERS}, targets={"text"}, labels=("label", "compared"))
    axes = ("order", "row", "column", "seconds")
    collator = Collator(choppers=CHOPPERS, inputs=inputs, context=64, axes=axes)
    result = sample_split(Listed([str(n) for n in range(5)], rows), "train", collator, rows=4)
    result.reader.cache = result.reader.training_cache = ItemCache(0)
    return result


@pytest.mark.parametrize("training", [True, False])
def test_an_item_is_decoded_once_for_a_batch(training):
    """For its tokens, its labels, and in an evaluation the sizes of its texts."""
    samples = split()
    DECODED.clear()
    batch = samples.batch(samples.plan(0, 0), training=training)
    assert {*DECODED.values()} == {4} and len(DECODED) == 4
    numbers = [int(key) for key in batch.main.keys]
    assert batch.main.labels == {"label": numbers, "compared": [str(number) for number in numbers]}
    assert batch.units == ({} if training else {"text": 2 * sum(numbers)})


def test_a_bad_sample_and_its_label_are_replaced():
    samples = split()
    samples.samples.rows[3]["image"] = b"no picture"
    samples.skipped.bad.share = 1.0
    assert samples.batch([samples.all()[3]], training=True).main.labels["label"] == [4]
