"""Reading and writing of notes in MIDI files with the library mido (extra `music`)."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...files.reading import DataError, Source, read_bytes

SILENCE = -1
"""The value in place of a pitch while a voice is silent."""
BPM, TICKS = 80, 120
"""Quarters per minute, and MIDI ticks per step (a sixteenth)."""
MOST_EVENTS, LARGEST_FILE = 100_000, 2**20
"""The largest number of steps of a score (5 hours), and the largest size of its file (1 MiB: 500,000 events)."""


def notes_of(voice: Sequence[int]) -> list[tuple[int, int, int]]:
    """Returns the notes of a voice as (pitch, first step, number of steps); consecutive equal pitches form one note."""
    notes: list[tuple[int, int, int]] = []
    for step, pitch in enumerate(voice):
        if notes and notes[-1][0] == pitch and notes[-1][1] + notes[-1][2] == step:
            notes[-1] = (pitch, notes[-1][1], notes[-1][2] + 1)
        elif pitch != SILENCE:
            notes.append((pitch, step, 1))
    return notes


def midi_bytes(voices: Sequence[Sequence[tuple[int, int, int]]]) -> bytes:
    """Returns the bytes of a MIDI file with one track per voice. A voice is a list of notes in the format of
    `notes_of`."""
    mido = mido_library()
    file = mido.MidiFile(ticks_per_beat=4 * TICKS)
    for notes in voices:
        track, now = mido.MidiTrack(), 0
        track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(BPM)))
        for pitch, first, steps in notes:
            track.append(mido.Message("note_on", note=pitch, velocity=64, time=(first - now) * TICKS))
            track.append(mido.Message("note_off", note=pitch, velocity=0, time=steps * TICKS))
            now = first + steps
        file.tracks.append(track)
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


class Note(NamedTuple):
    """A note of a MIDI file. `first` is the first step (sixteenth) in which the note sounds."""

    pitch: int
    first: int
    end: int
    """The step after the last step in which the note sounds."""
    channel: int = 0


def read_midi(raw: Source, voices: int) -> np.ndarray:
    """Returns the score (t, voices) of a MIDI file: the pitch of every voice in every sixteenth, or `SILENCE`. The
    first one of these parts whose number is `voices`, and in each of which only one pitch sounds at a time, are the
    voices: the tracks, the tracks with notes, the channels of the tracks. Otherwise, if `voices` notes or none sound in
    every sixteenth, these notes are the voices, the highest note first.

    Raises DataError if the file cannot be read, is larger than `LARGEST_FILE` or longer than `MOST_EVENTS`, or has no
    such voices."""
    content = raw if isinstance(raw, bytes) else read_bytes(raw, LARGEST_FILE)
    if len(content) > LARGEST_FILE:
        raise DataError(f"the score has {len(content):,} bytes; possible: up to {LARGEST_FILE:,}")
    try:
        file = mido_library().MidiFile(file=io.BytesIO(content))
        if file.ticks_per_beat < 1:
            raise ValueError(f"its header has {file.ticks_per_beat} ticks per quarter note; at least 1 is needed")
        tracks = [track_notes(track, file.ticks_per_beat / 4) for track in file.tracks]
    except DataError:
        raise
    except Exception as error:  # mido has no specific error for damaged files
        raise DataError(f"the score cannot be read: {error}") from error
    notes = [note for track in tracks for note in track]
    length = max((note.end for note in notes), default=0)
    if length > MOST_EVENTS:
        raise DataError(f"the score has {length:,} sixteenths; possible: up to {MOST_EVENTS:,}")
    nonempty = [track for track in tracks if track]
    channels = [[note for note in track if note.channel == number] for track in tracks for number in channels_of(track)]
    for parts in (tracks, nonempty, channels):
        if notes and len(parts) == voices and not any(map(overlaps, parts)):
            return filled(parts, length)
    sounding = counts(notes, length)
    most = sounding.max(initial=0)
    if most == voices and ((sounding == 0) | (sounding == voices)).all():
        return chords(notes, length, voices)
    actual = f"{len(nonempty)} tracks with notes, {len(channels)} channels and up to {most} notes at once"
    expected = f"a track or a channel of single notes for each voice, or chords of {voices} notes"
    raise DataError(f"the score has {actual}; expected {voices} voices: {expected}")


def channels_of(notes: Sequence[Note]) -> list[int]:
    """Returns the channels of the notes, sorted."""
    return sorted({note.channel for note in notes})


def overlaps(notes: Sequence[Note]) -> bool:
    """Returns whether notes of two different pitches sound in one step."""
    end, pitch = 0, SILENCE
    for note in sorted(notes, key=lambda note: note.first):
        if note.first < end and note.pitch != pitch:
            return True
        end, pitch = max(end, note.end), note.pitch
    return False


def filled(parts: Sequence[Sequence[Note]], length: int) -> np.ndarray:
    """Returns the score (length, voices) of the notes of each voice, in which only one pitch sounds at a time."""
    score = np.full((length, len(parts)), SILENCE)
    for voice, notes in enumerate(parts):
        for note in notes:
            score[note.first : note.end, voice] = note.pitch
    return score


def counts(notes: Sequence[Note], length: int) -> np.ndarray:
    """Returns an array (length,): the number of notes that sound in each step."""
    changes = np.zeros(length + 1, dtype=np.int64)
    np.add.at(changes, [note.first for note in notes], 1)
    np.add.at(changes, [note.end for note in notes], -1)
    return changes.cumsum()[:-1]


def chords(notes: Sequence[Note], length: int, voices: int) -> np.ndarray:
    """Returns the score (length, voices) of notes. In every step, `voices` notes or none must sound. The highest note
    is the first voice."""
    score, column = np.full((length, voices), SILENCE), np.zeros(length, dtype=np.int64)
    for note in notes:
        steps = np.arange(note.first, note.end)
        score[steps, column[steps]] = note.pitch
        column[steps] += 1
    return -np.sort(-score, axis=1)


def track_notes(track: Any, step: float) -> list[Note]:
    """Returns the notes of a MIDI track; `step` is the length of a sixteenth in ticks.

    A note may begin before the end event of the preceding note of its pitch. Therefore, if a pitch has as many end
    events as begin events and no end precedes its beginning, the n-th end belongs to the n-th beginning. Otherwise a
    note ends at the first end event after its beginning. A note also ends when the next note of its pitch begins, and
    at the end of the track.
    """
    now, begun, ended = 0, defaultdict(list), defaultdict(list)
    for message in track:
        now += message.time
        if message.type in ("note_on", "note_off"):
            begins = message.type == "note_on" and message.velocity
            (begun if begins else ended)[message.channel, message.note].append(now)
    notes = []
    for (channel, pitch), starts in begun.items():
        ends = ended[channel, pitch]
        if len(ends) != len(starts) or any(end < start for start, end in zip(starts, ends)):
            following_ends = [bisect_right(ends, start) for start in starts]
            ends = [ends[index] if index < len(ends) else now for index in following_ends]
        for start, end, next_start in zip(starts, ends, [*starts[1:], now]):
            first = round(start / step)
            notes.append(Note(pitch, first, max(first + 1, round(min(end, next_start) / step)), channel))
    return notes


def mido_library() -> Any:
    """Imports and returns the package mido. Raises DataError if it is not installed."""
    try:
        import mido
    except ImportError:
        raise DataError("MIDI files need the package mido: pip install 'chopmix[music]'") from None
    return mido
