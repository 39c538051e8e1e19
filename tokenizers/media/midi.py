"""Notes in MIDI files, by the library mido (the extra `music`)."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...files.reading import DataError, Source, read_bytes

SILENCE = -1
"""The pitch of a voice that is silent."""
BPM, TICKS = 80, 120
"""Quarters a minute, and ticks of a MIDI file in one step (a sixteenth)."""
MOST, BYTES = 100_000, 2**20
"""The most steps of a score (5 hours), and the most bytes of its file (1 MiB: 500,000 events)."""


def notes_of(voice: Sequence[int]) -> list[tuple[int, int, int]]:
    """The notes of a voice as (pitch, first step, steps): equal pitches in a row are one note."""
    found: list[tuple[int, int, int]] = []
    for step, pitch in enumerate(voice):
        if found and found[-1][0] == pitch and found[-1][1] + found[-1][2] == step:
            found[-1] = (pitch, found[-1][1], found[-1][2] + 1)
        elif pitch != SILENCE:
            found.append((pitch, step, 1))
    return found


def midi_bytes(voices: Sequence[Sequence[tuple[int, int, int]]]) -> bytes:
    """A MIDI file with a track for each voice."""
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
    found = io.BytesIO()
    file.save(file=found)
    return found.getvalue()


class Note(NamedTuple):
    """A note of a MIDI file, in sixteenths."""

    pitch: int
    first: int
    end: int
    """The step after its last one."""
    channel: int = 0


def read_midi(raw: Source, voices: int) -> np.ndarray:
    """The score (t, voices) of a MIDI file, in sixteenths. A voice is a track, else a channel of one; else the notes
    are those of chords of `voices` notes each, of which the highest is the first voice.

    Raises DataError for a file that cannot be read, and for one with other voices, chords in a voice, or two notes of
    a voice in one sixteenth.
    """
    content = raw if isinstance(raw, bytes) else read_bytes(raw, BYTES)
    if len(content) > BYTES:
        raise DataError(f"the score has {len(content):,} bytes, more than the {BYTES:,} that are read")
    try:
        file = mido_library().MidiFile(file=io.BytesIO(content))
        if file.ticks_per_beat < 1:
            raise ValueError(f"a quarter of {file.ticks_per_beat} ticks")
        tracks = [track_notes(track, file.ticks_per_beat / 4) for track in file.tracks]
    except DataError:
        raise
    except Exception as error:  # mido raises nothing narrower for damaged files
        raise DataError(f"the score cannot be read: {error}") from error
    every = [note for track in tracks for note in track]
    length = max((note.end for note in every), default=0)
    if length > MOST:
        raise DataError(f"the score has {length:,} sixteenths, more than {MOST:,}")
    sounding = [track for track in tracks if track]
    channels = [[note for note in track if note.channel == each] for track in tracks for each in channels_of(track)]
    for parts in (tracks, sounding, channels):
        if every and len(parts) == voices and not any(map(overlaps, parts)):
            return filled(parts, length)
    sound = counts(every, length)
    most = sound.max(initial=0)
    if most == voices and ((sound == 0) | (sound == voices)).all():
        return chords(every, length, voices)
    there = f"{len(sounding)} tracks with notes, {len(channels)} channels and up to {most} notes at once"
    expected = f"a track or a channel of single notes for each voice, or chords of {voices} notes"
    raise DataError(f"the score has {there}; expected are {voices} voices: {expected}")


def channels_of(notes: Sequence[Note]) -> list[int]:
    """The channels of some notes, in order."""
    return sorted({note.channel for note in notes})


def overlaps(notes: Sequence[Note]) -> bool:
    """Whether notes of two pitches sound in one step."""
    end, pitch = 0, SILENCE
    for note in sorted(notes, key=lambda note: note.first):
        if note.first < end and note.pitch != pitch:
            return True
        end, pitch = max(end, note.end), note.pitch
    return False


def filled(parts: Sequence[Sequence[Note]], length: int) -> np.ndarray:
    """The score of voices without chords."""
    found = np.full((length, len(parts)), SILENCE)
    for voice, notes in enumerate(parts):
        for note in notes:
            found[note.first : note.end, voice] = note.pitch
    return found


def counts(notes: Sequence[Note], length: int) -> np.ndarray:
    """How many notes sound in each step, (length,)."""
    changes = np.zeros(length + 1, dtype=np.int64)
    np.add.at(changes, [note.first for note in notes], 1)
    np.add.at(changes, [note.end for note in notes], -1)
    return changes.cumsum()[:-1]


def chords(notes: Sequence[Note], length: int, voices: int) -> np.ndarray:
    """The score of steps in which `voices` notes sound, or none: the highest is the first voice."""
    found, place = np.full((length, voices), SILENCE), np.zeros(length, dtype=np.int64)
    for note in notes:
        steps = np.arange(note.first, note.end)
        found[steps, place[steps]] = note.pitch
        place[steps] += 1
    return -np.sort(-found, axis=1)


def track_notes(track: Any, step: float) -> list[Note]:
    """The notes of a MIDI track; `step` is the length of a sixteenth in ticks.

    The n-th end of a pitch belongs to its n-th beginning, if there are as many, else to the last beginning before it: a
    note may begin before the end of the last one is written. A note ends at the latest where the next one of its pitch
    begins, or the track ends.
    """
    now, begun, ended = 0, defaultdict(list), defaultdict(list)
    for message in track:
        now += message.time
        if message.type in ("note_on", "note_off"):
            begins = message.type == "note_on" and message.velocity
            (begun if begins else ended)[message.channel, message.note].append(now)
    found = []
    for (channel, pitch), starts in begun.items():
        ends = ended[channel, pitch]
        if len(ends) != len(starts) or any(end < start for start, end in zip(starts, ends)):
            places = [bisect_right(ends, start) for start in starts]
            ends = [ends[place] if place < len(ends) else now for place in places]
        for start, end, following in zip(starts, ends, [*starts[1:], now]):
            first = round(start / step)
            found.append(Note(pitch, first, max(first + 1, round(min(end, following) / step)), channel))
    return found


def mido_library() -> Any:
    """The package mido. Raises DataError where it is not installed."""
    try:
        import mido
    except ImportError:
        raise DataError("MIDI files need the package mido: pip install 'chopmix[music]'") from None
    return mido
