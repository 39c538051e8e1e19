"""MIDI files of other programs: repeated pitches, chords and channels are read, or refused; no note is lost."""

import io

import mido
import numpy as np
import pytest
from chopmix.files.reading import DataError
from chopmix.tokenizers.media import midi
from chopmix.tokenizers.media.midi import SILENCE, Note, notes_of, overlaps, read_midi
from hypothesis import given
from hypothesis import strategies as st

QUARTER = 480


def midi_file(*tracks: list[tuple[float, str, int, int]], kind: int = 1, ticks: int = QUARTER) -> bytes:
    """Return a file with tracks of events (quarter, "on" or "off", pitch, channel) in this order."""
    file = mido.MidiFile(type=kind, ticks_per_beat=ticks)
    for events in tracks:
        track, now = mido.MidiTrack(), 0
        for quarter, event, pitch, channel in events:
            time, now = round(quarter * ticks) - now, round(quarter * ticks)
            track.append(mido.Message(f"note_{event}", note=pitch, velocity=64, time=time, channel=channel))
        file.tracks.append(track)
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


def on_then_off(notes: list[tuple[float, float, int, int]], late: bool) -> list[tuple[float, str, int, int]]:
    """Return events of notes (first quarter, last quarter, pitch, channel). If `late`, starts come before ends."""
    events = [event for first, last, *rest in notes for event in ((first, "on", *rest), (last, "off", *rest))]
    return sorted(events, key=lambda event: (event[0], (event[1] == "off") == late))


@pytest.mark.parametrize("late", [False, True])
def test_a_repeated_pitch_keeps_its_length(late):
    quarters = on_then_off([(0, 1, 60, 0), (1, 2, 60, 0)], late)
    assert read_midi(midi_file(quarters), 1)[:, 0].tolist() == [60] * 8


def test_a_note_ends_where_the_next_note_of_its_pitch_begins():
    overlapping = [(0, "on", 60, 0), (0.5, "on", 60, 0), (0.75, "off", 60, 0), (1.5, "off", 60, 0), (2, "on", 62, 0),
                   (2.25, "off", 62, 0)]  # fmt: skip
    assert read_midi(midi_file(overlapping), 1)[:, 0].tolist() == [60] * 6 + [SILENCE] * 2 + [62]
    one_end = [(0, "on", 60, 0), (0.5, "on", 60, 0), (1, "off", 60, 0), (2, "on", 62, 0)]  # the last note has no end
    content = midi_file([*one_end, (3, "off", 99, 0)])
    assert read_midi(content, 1)[:, 0].tolist() == [60] * 4 + [SILENCE] * 4 + [62] * 4


CHORD = [(0, 1, 60, 0), (0, 1, 64, 0), (0, 1, 67, 0)]


def test_chords_are_split_or_refused():
    content = midi_file(on_then_off([*CHORD, (1, 2, 72, 0), (1, 2, 55, 0), (1, 2, 62, 0)], True))
    assert read_midi(content, 3).tolist() == [[67, 64, 60]] * 4 + [[72, 62, 55]] * 4
    for voices in (1, 2, 4):
        with pytest.raises(DataError, match="the score has 1 tracks with notes, 1 channels and up to 3 notes at once"):
            read_midi(content, voices)
    with pytest.raises(DataError, match=r"expected 3 voices: .*, or chords of 3 notes"):  # a step of two notes
        read_midi(midi_file(on_then_off([*CHORD, (1, 2, 72, 0), (1, 2, 55, 0)], True)), 3)
    assert (
        read_midi(midi_file(on_then_off(CHORD[:2], True), on_then_off(CHORD[2:], True)), 3).tolist()
        == [[67, 64, 60]] * 4
    )


def test_channels_of_one_track_are_read_as_voices():
    """In a file of type 0 all voices are in one track."""
    high, low = [(0, 1, 72, 0), (1, 3, 74, 0)], [(0, 2, 60, 1), (2.5, 3, 76, 1)]
    score = read_midi(midi_file(on_then_off([*high, *low], True), kind=0), 2)
    assert score[:, 0].tolist() == [72] * 4 + [74] * 8
    assert score[:, 1].tolist() == [60] * 8 + [SILENCE] * 2 + [76] * 2


def test_notes_that_share_a_sixteenth_are_refused():
    triplets = [(n / 12, (n + 1) / 12, 60 + n, 0) for n in range(3)]
    with pytest.raises(DataError, match="up to 2 notes at once; expected 1 voices"):
        read_midi(midi_file(on_then_off(triplets, False)), 1)
    legato = on_then_off([(0, 0.3, 60, 0), (0.25, 0.5, 62, 0)], True)  # a fifth of a sixteenth is rounded away
    assert read_midi(midi_file(legato), 1)[:, 0].tolist() == [60, 62]


@st.composite
def voices(draw) -> np.ndarray:
    """Draw a score of a few voices, in whose last step at least one voice sounds."""
    count = draw(st.integers(1, 4))
    row = st.lists(st.sampled_from([SILENCE, 60, 61, 62]), min_size=count, max_size=count)
    last = row.filter(lambda step: {*step} != {SILENCE})
    return np.array([*draw(st.lists(row, max_size=9)), draw(last)])


@given(score=voices(), late=st.booleans(), ticks=st.sampled_from([4, 96, 480, 1000]), layout=st.sampled_from("tcx"))
def test_every_layout_of_voices_is_restored(score, late, ticks, layout):
    """Voices are tracks (t), channels of one track (c), or the notes of chords if all voices sound (x)."""
    count = score.shape[1]
    notes = [[(first / 4, (first + steps) / 4, pitch, 0 if layout != "c" else voice)
              for pitch, first, steps in notes_of(score[:, voice].tolist())] for voice in range(count)]  # fmt: skip
    if layout == "t":
        assert (
            read_midi(midi_file(*(on_then_off(each, late) for each in notes), ticks=ticks), count).tolist()
            == score.tolist()
        )
        return
    content = midi_file(on_then_off([note for each in notes for note in each], late), kind=0, ticks=ticks)
    if layout == "c":
        expected = score if all(notes) else None
    else:
        distinct = all(
            (len({*step}) == count and SILENCE not in step) or {*step} == {SILENCE} for step in score.tolist()
        )
        expected = -np.sort(-score, axis=1) if distinct or count == 1 else None
    if expected is not None:
        assert read_midi(content, count).tolist() == expected.tolist()


@given(st.lists(st.tuples(st.sampled_from([60, 61]), st.integers(0, 9), st.integers(1, 5)), max_size=6))
def test_overlapping_notes_are_detected(notes):
    notes = [Note(pitch, first, first + steps) for pitch, first, steps in notes]
    sounding = [{note.pitch for note in notes if note.first <= step < note.end} for step in range(15)]
    assert overlaps(notes) == any(len(pitches) > 1 for pitches in sounding)


def test_empty_and_too_long_files_are_refused(monkeypatch):
    with pytest.raises(DataError, match="the score has 0 tracks with notes, 0 channels and up to 0 notes at once"):
        read_midi(midi_file([]), 1)
    with pytest.raises(DataError, match="the score has 1,048,577 bytes; possible: up to 1,048,576"):
        read_midi(bytes(2**20 + 1), 1)
    content = midi_file(on_then_off([(0, 1, 60, 0)], True))
    with pytest.raises(
        DataError, match="the score cannot be read: its header has 0 ticks per quarter note; at least 1 is needed"
    ):
        read_midi(content[:12] + bytes(2) + content[14:], 1)
    monkeypatch.setattr(midi, "MOST_EVENTS", 3)
    with pytest.raises(DataError, match="the score has 4 sixteenths; possible: up to 3"):
        read_midi(content, 1)
