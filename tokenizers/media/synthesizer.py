"""A simple synthesiser. A note is a sum of decaying harmonics, similar to an organ."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

RATE = 22_050
"""Samples per second."""
HARMONICS = np.array([1.0, 0.5, 0.3, 0.15, 0.08, 0.04])
"""The amplitude of each harmonic of a note."""
ATTACK, RELEASE = 0.02, 0.08
"""The duration of the fade-in and of the fade-out of a note, in seconds."""


def synthesized(voices: Sequence[Sequence[tuple[int, int, int]]], step: float) -> Float[np.ndarray, "t"]:
    """Returns the sound of all voices, from -0.9 to 0.9, at `RATE`. A voice is a list of notes (MIDI pitch, first step,
    number of steps). `step` is the length of a step in seconds."""
    length = max((first + steps for notes in voices for _, first, steps in notes), default=1) * step + 2 * RELEASE
    sound = np.zeros(int(length * RATE) + 1, np.float32)
    for pitch, first, steps in (note for notes in voices for note in notes):
        tone = note_of(440.0 * 2 ** ((pitch - 69) / 12), steps * step)
        begin = int(first * step * RATE)
        sound[begin : begin + len(tone)] += tone[: len(sound) - begin]
    return sound / max(np.abs(sound).max(), 1e-6) * 0.9


def note_of(frequency: float, seconds: float) -> Float[np.ndarray, "t"]:
    """Returns the sound of one note, followed by its fade-out of `RELEASE` seconds."""
    time = np.arange(int((seconds + RELEASE) * RATE)) / RATE
    numbers = np.arange(1, len(HARMONICS) + 1)
    audible = numbers * frequency < RATE / 2
    waves = np.sin(2 * np.pi * frequency * numbers[audible, None] * time) * HARMONICS[audible, None]
    envelope = np.minimum(1, time / ATTACK) * np.clip((seconds + RELEASE - time) / RELEASE, 0, 1) * np.exp(-time)
    return (waves.sum(0) * envelope).astype(np.float32)


def sound_bytes(sound: Float[np.ndarray, "t"], ending: str = ".wav", rate: int = RATE) -> bytes:
    """Returns the bytes of a `.mp3` file, or for any other `ending` of a `.wav` file (16 bits), with a sound from -1 to
    1."""
    import soundfile

    content = io.BytesIO()
    options = {"format": "MP3"} if ending == ".mp3" else {"format": "WAV", "subtype": "PCM_16"}
    soundfile.write(content, sound, rate, **options)
    return content.getvalue()
