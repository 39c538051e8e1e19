"""Notes in MIDI files, by the library mido (the extra `music`)."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..files.reading import DataError, read_bytes

SILENCE = -1
"""The pitch of a voice that is silent."""
BPM, TICKS = 80, 120
"""Quarters a minute, and ticks of a MIDI file in one step (a sixteenth)."""
MOST = 100_000
"""The most steps of a score."""


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


def read_midi(raw: str | os.PathLike | bytes, voices: int) -> np.ndarray:
    """The score (t, voices) of a MIDI file with one track per voice, in sixteenths. Raises DataError for any other."""
    content = raw if isinstance(raw, bytes) else read_bytes(raw)
    try:
        file = mido_library().MidiFile(file=io.BytesIO(content))
        tracks = [each for track in file.tracks if (each := track_notes(track, file.ticks_per_beat / 4))]
    except DataError:
        raise
    except Exception as error:  # mido raises nothing narrower for damaged files
        raise DataError(f"the score cannot be read: {error}") from error
    if len(tracks) != voices:
        raise DataError(f"the score has {len(tracks)} tracks with notes; expected are {voices}, one a voice")
    length = max(first + steps for notes in tracks for _, first, steps in notes)
    if length > MOST:
        raise DataError(f"the score has {length:,} sixteenths, more than {MOST:,}")
    found = np.full((length, voices), SILENCE)
    for voice, notes in enumerate(tracks):
        for pitch, first, steps in notes:
            found[first : first + steps, voice] = pitch
    return found


def track_notes(track: Any, step: float) -> list[tuple[int, int, int]]:
    """The notes of a MIDI track, as of `notes_of`; `step` is the length of one in ticks."""
    found, now, begun = [], 0, {}
    for message in track:
        now += message.time
        if message.type == "note_on" and message.velocity:
            begun[message.note] = now
        elif message.type in ("note_on", "note_off") and message.note in begun:
            first = begun.pop(message.note)
            found.append((message.note, round(first / step), max(1, round((now - first) / step))))
    return found


def mido_library() -> Any:
    """The package mido. Raises DataError where it is not installed."""
    try:
        import mido
    except ImportError:
        raise DataError("MIDI files need the package mido: pip install 'chopmix[music]'") from None
    return mido
