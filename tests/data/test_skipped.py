"""What is told of data that cannot be used: each of the first ten, and one each time that their number has doubled."""

from chopmix.data.skipped import FIRST_WARNINGS, BadSamples, LeftOut, is_printed
from hypothesis import given, settings
from hypothesis import strategies as st


def test_a_few_bad_samples_are_named_each_and_many_seldom():
    said: list[str] = []
    bad = BadSamples("train", [f"{number}.png" for number in range(100)], 1.0, said.append)
    for number in range(100):
        bad.note(number, "cut short")
        bad.note(number, "cut short")  # met again: told once
    assert len(bad) == 100 and bad[77] == "cut short"
    assert said[0] == "train: sample '0.png' is bad and skipped: cut short"
    assert said[1].endswith("(2 of 100 samples so far)")
    assert said[9].endswith("(10 of 100 samples so far; the next warning follows at 20)")
    assert [line.split("(")[1].split(" ")[0] for line in said[10:]] == ["20", "40", "80"]


def test_of_what_is_left_out_of_a_loss_the_same_is_told():
    said: list[str] = []
    left_out = LeftOut(said.append)
    for number in range(50):
        left_out.note("text", {f"{number}.wav": "too short"})
    assert len(left_out["text"]) == 50 and len(said) == 12


@given(st.integers(1, 10**9))
@settings(max_examples=500, deadline=None)
def test_from_any_number_on_the_next_is_told_by_twice_as_many(count):
    assert is_printed(count) == (count <= FIRST_WARNINGS or count in {FIRST_WARNINGS * 2**power for power in range(30)})
    assert any(
        is_printed(FIRST_WARNINGS * 2**power)
        for power in range(31)
        if count <= FIRST_WARNINGS * 2**power <= 2 * max(count, FIRST_WARNINGS)
    )
