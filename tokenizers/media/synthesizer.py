"""A simple synthesiser: notes as sums of harmonics that die away, in the manner of an organ."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

RATE = 22_050
"""Samples a second."""
HARMONICS = np.array([1.0, 0.5, 0.3, 0.15, 0.08, 0.04])
"""The amplitude of each harmonic of a note."""
ATTACK, RELEASE = 0.02, 0.08
"""Seconds in which a note begins, and in which it ends."""


def synthesized(voices: Sequence[Sequence[tuple[int, int, int]]], step: float) -> Float[np.ndarray, "t"]:
    """The sound, from -1 to 1, of voices of notes (MIDI pitch, first step, steps); `step` is the length of one in
    seconds."""
    length = max((first + steps for notes in voices for _, first, steps in notes), default=1) * step + 2 * RELEASE
    sound = np.zeros(int(length * RATE) + 1, np.float32)
    for pitch, first, steps in (note for notes in voices for note in notes):
        tone = note_of(440.0 * 2 ** ((pitch - 69) / 12), steps * step)
        begin = int(first * step * RATE)
        sound[begin : begin + len(tone)] += tone[: len(sound) - begin]
    return sound / max(np.abs(sound).max(), 1e-6) * 0.9


def note_of(frequency: float, seconds: float) -> Float[np.ndarray, "t"]:
    """One note, with the time in which it dies away behind it."""
    time = np.arange(int((seconds + RELEASE) * RATE)) / RATE
    numbers = np.arange(1, len(HARMONICS) + 1)
    audible = numbers * frequency < RATE / 2
    waves = np.sin(2 * np.pi * frequency * numbers[audible, None] * time) * HARMONICS[audible, None]
    envelope = np.minimum(1, time / ATTACK) * np.clip((seconds + RELEASE - time) / RELEASE, 0, 1) * np.exp(-time)
    return (waves.sum(0) * envelope).astype(np.float32)


def sound_bytes(sound: Float[np.ndarray, "t"], ending: str = ".wav", rate: int = RATE) -> bytes:
    """A sound, from -1 to 1, as the content of a file: `.wav` (16 bits) or `.mp3`."""
    import soundfile

    found, how = io.BytesIO(), {"format": "MP3"} if ending == ".mp3" else {"format": "WAV", "subtype": "PCM_16"}
    soundfile.write(found, sound, rate, **how)
    return found.getvalue()
