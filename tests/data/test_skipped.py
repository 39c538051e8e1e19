"""Warnings about unusable data: one for each of the first ten, then one each time their number has
doubled. The samples that are skipped: tests/experiment/test_bad_samples.py."""

from chopmix.data.skipped import FIRST_WARNINGS, BadSamples, LeftOut, is_printed
from hypothesis import given, settings
from hypothesis import strategies as st


def test_the_first_bad_samples_are_named_and_later_ones_rarely():
    messages: list[str] = []
    bad = BadSamples("train", [f"{number}.png" for number in range(100)], 1.0, messages.append)
    for number in range(100):
        bad.note(number, "cut short")
        bad.note(number, "cut short")  # noted twice, named once
    assert len(bad) == 100 and bad[77] == "cut short"
    assert messages[0] == "train: sample '0.png' is bad and skipped: cut short"
    assert messages[1].endswith("(2 of 100 samples so far)")
    assert messages[9].endswith("(10 of 100 samples so far; the next warning follows at 20)")
    assert [line.split("(")[1].split(" ")[0] for line in messages[10:]] == ["20", "40", "80"]


def test_data_left_out_of_a_loss_are_named_in_the_same_way():
    messages: list[str] = []
    left_out = LeftOut(messages.append)
    for number in range(50):
        left_out.note("text", {f"{number}.wav": "too short"})
    assert len(left_out["text"]) == 50 and len(messages) == 12


@given(st.integers(1, 10**9))
@settings(max_examples=500, deadline=None)
def test_the_next_message_comes_when_the_number_has_doubled_at_the_latest(count):
    assert is_printed(count) == (count <= FIRST_WARNINGS or count in {FIRST_WARNINGS * 2**power for power in range(30)})
    assert any(
        is_printed(FIRST_WARNINGS * 2**power)
        for power in range(31)
        if count <= FIRST_WARNINGS * 2**power <= 2 * max(count, FIRST_WARNINGS)
    )
