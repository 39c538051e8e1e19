"""Every tokenizer refuses values that are no item of its kind with a message."""

import numpy as np
import pytest
from checkout import ROOT
from chopmix.tokenizers.audio import AudioChopper
from chopmix.tokenizers.audio_patches import AudioPatchesChopper
from chopmix.tokenizers.audio_stem import AudioStemChopper
from chopmix.tokenizers.base import Role
from chopmix.tokenizers.category import CategoryChopper
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.image import ImageChopper
from chopmix.tokenizers.image_ids import ImageIdsPreprocessor
from chopmix.tokenizers.score import ScorePreprocessor
from chopmix.tokenizers.sensor import SensorChopper
from chopmix.tokenizers.text import TextChopper
from chopmix.tokenizers.video import VideoChopper
from hypothesis import given
from hypothesis import strategies as st

CHOPPERS = {
    "audio": AudioChopper(),
    "audio_patches": AudioPatchesChopper(),
    "audio_stem": AudioStemChopper(),
    "category": CategoryChopper(size=3),
    "image": ImageChopper(),
    "image_ids": ImageIdsPreprocessor(size=4).fit(tuple, Role()),
    "score": ScorePreprocessor(voices=2).fit(tuple, Role()),
    "sensor": SensorChopper(channels=2),
    "text": TextChopper.of(ByteEncoding(), Role()),
    "video": VideoChopper(size=8, patch_size=4),
}
OTHERS = {"base": "no tokenizer", "codes": "reads what another run reads", "encoded": "reads what another run reads",
          "noted_text": "is a text"}  # fmt: skip
PLAIN = st.sampled_from([
    None, 5, -1, 2.5, float("nan"), True, 10**400, "", "no such file", "a\0b", b"", b"abc", 1j, object(), int, {},
    set(), np.array(5), np.array(2.5), np.zeros((0, 2)), np.zeros((2, 2, 2, 2, 2)), np.array("a"), np.array([None, {}]),
    np.array([1j, 2]), np.zeros((3, 2), "M8[D]"), np.zeros(3, [("a", "f4")]),
])  # fmt: skip
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.fixed_dictionaries({"values": inner, "seconds": inner})
        | st.dictionaries(st.sampled_from(["values", "seconds", "a"]), inner, max_size=3)
    ),
    max_leaves=5,
)


def test_every_tokenizer_in_the_lists_exists():
    """A new tokenizer may be added to the list."""
    assert CHOPPERS.keys() | OTHERS.keys() <= {file.stem for file in (ROOT / "tokenizers").glob("*.py")}


@pytest.mark.parametrize("name", CHOPPERS)
@given(value=VALUES)
def test_values_of_other_types_are_refused_with_a_message(name, value):
    chopper = CHOPPERS[name]
    try:
        item = chopper.decode(value)
    except ValueError as error:
        assert str(error)  # DataError is one
        return
    try:
        chopper.chop(item)
    except ValueError as error:
        assert str(error)
