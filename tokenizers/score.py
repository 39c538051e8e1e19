"""Scores of several voices as ids: in every step of time one id a voice, so that music can be generated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ..files.reading import DataError
from ..models.batch import IGNORED
from ..models.generation.constraints import Constraint, only
from .base import Chunk, Preprocessor, Role
from .chopping.ids import IdChopper, IdTokenizer
from .encoding.base import CodedVocabulary, Unit
from .media.midi import BPM, SILENCE, midi_bytes, notes_of, read_midi
from .media.synthesizer import sound_bytes, synthesized

CHORDS = {"major": (0, 4, 7), "minor": (0, 3, 7), "diminished": (0, 3, 6), "augmented": (0, 4, 8)}
"""Intervals above the root, in semitones."""


@dataclass(frozen=True, kw_only=True)
class ScoreVocabulary(CodedVocabulary):
    """A pitch per id, from MIDI's `lowest` (id 0) to its `highest`, then silence; a score goes step by step, in each
    step voice by voice, the first one (the soprano) first. With `chords` an id for the chord of its notes comes before
    each step's: the chord is thought of before the notes are written. Of two voices and the pitches 60 to 62:

        steps    62 60   62 -1        ids   2 0   2 3       and 4 starts and ends a score
    """

    kind: ClassVar[str] = "score"
    unit: ClassVar[Unit] = Unit("nats_per_note", "nats per note (of one voice in one step)", in_bits=False)
    endings: ClassVar[tuple[str, ...]] = (".mid", ".wav", ".mp3", ".csv")
    voices: int = 4
    lowest: int = 30
    highest: int = 88
    chords: bool = False

    @property
    def silence(self) -> int:
        """The id of silence, behind those of the pitches."""
        return self.highest - self.lowest + 1

    @property
    def first_chord(self) -> int:
        """The id of the first chord, C major; of the others 12 roots for each of `CHORDS`, then no chord."""
        return self.silence + 1

    @property
    def start(self) -> int:
        return self.first_chord + (12 * len(CHORDS) + 1) * self.chords

    @property
    def per_step(self) -> int:
        """How many ids a step has."""
        return self.voices + self.chords

    @property
    def title(self) -> str:
        return f"the vocabulary of pitches {self.lowest} to {self.highest}"

    @property
    def well_formed(self) -> Constraint:
        return WholeSteps(self)

    def encode(self, item: Int[Tensor, "t voices"]) -> list[int]:
        """Raises ValueError for a pitch outside the range."""
        outside = (item != SILENCE) & ((item < self.lowest) | (item > self.highest))
        if outside.any():
            pitch = int(item[outside][0])
            raise ValueError(f"pitch {pitch} is outside {self.lowest} to {self.highest}; SILENCE is {SILENCE}")
        ids = torch.where(item == SILENCE, self.silence, item - self.lowest)
        if self.chords:
            chord = torch.tensor([self.first_chord + chord_of(step) for step in item.tolist()], dtype=torch.long)
            ids = torch.cat([chord[:, None], ids], dim=1)
        return ids.flatten().tolist()

    def restore(self, ids: Iterable[int]) -> Int[Tensor, "t voices"]:
        """The score; a last step that is not complete is left out. Raises ValueError where ids of notes and of chords
        do not stand where they must."""
        known = torch.tensor([id for id in self.known(ids) if id not in self.specials], dtype=torch.long)
        steps = known[: len(known) // self.per_step * self.per_step].view(-1, self.per_step)
        notes = steps[:, self.chords :]
        if (notes > self.silence).any() or (self.chords and (steps[:, 0] <= self.silence).any()):
            raise ValueError("notes and chords do not alternate as they must")
        return torch.where(notes == self.silence, SILENCE, notes + self.lowest)

    def units(self, item: Int[Tensor, "t voices"]) -> float:
        """Its steps, times its voices."""
        return item.numel()

    def content(self, item: Int[Tensor, "t voices"], ending: str) -> bytes:
        if ending == ".csv":
            return "".join(",".join(map(str, step)) + "\n" for step in item.tolist()).encode()
        notes = [notes_of(voice) for voice in item.T.tolist()]
        return midi_bytes(notes) if ending == ".mid" else sound_bytes(synthesized(notes, 60 / BPM / 4), ending)


@dataclass(frozen=True)
class WholeSteps(Constraint):
    """Chords and notes where they belong; a score ends behind a whole step, and has one at least."""

    vocabulary: ScoreVocabulary

    def allowed(self, ids, size):
        known, place = self.vocabulary, len(ids) % self.vocabulary.per_step
        if place or not known.chords:
            found = only(range(known.silence + 1), size)
        else:
            found = only(range(known.first_chord, known.start), size)
        if not place and ids:
            found[known.end] = True
        return found


def chord_of(step: Sequence[int]) -> int:
    """The number of the chord whose notes, with all of a step's pitches among them, are most of the chord; the lowest
    voice is the root where several fit. 12 * the place in `CHORDS` + the root (C is 0), or 48 for none."""
    pitches = [pitch for pitch in step if pitch != SILENCE]
    classes, bass = {pitch % 12 for pitch in pitches}, min(pitches, default=0) % 12
    best = (0, False, 0, 12 * len(CHORDS))
    for number, intervals in enumerate(CHORDS.values()):
        for root in range(12):
            notes = {(root + interval) % 12 for interval in intervals}
            if classes and classes <= notes:
                best = max(best, (len(classes & notes), root == bass, -number, 12 * number + root))
    return best[-1]


@dataclass(frozen=True, kw_only=True)
class ScorePreprocessor(Preprocessor):
    """Scores of `voices` voices: arrays (steps, voices) of MIDI pitches, -1 for silence, or MIDI files of a track a
    voice, in sixteenths. Pitches from `lowest` to `highest`; `chords`: the chord of each step before its notes. While
    training a score is transposed by up to `transpose` semitones, as far as its notes stay in the range, and cut to
    `crop` steps (null: whole), which begin at a multiple of `bar`; that it begins or ends is learned only where it
    does."""

    kind: ClassVar[str] = "score"
    learns: ClassVar[bool] = False
    voices: int = 4
    lowest: int = 30
    highest: int = 88
    chords: bool = False
    transpose: int = 0
    crop: int | None = None
    bar: int = 16

    def __post_init__(self):
        if not 0 <= self.lowest < self.highest <= 127:
            raise ValueError(f"lowest ({self.lowest}) and highest ({self.highest}) must be pitches of MIDI, 0 to 127")
        if not 1 <= self.voices <= 64 or self.bar < 1 or (self.crop is not None and self.crop < 1):
            raise ValueError("voices must be from 1 to 64, bar and crop at least 1")
        if not 0 <= self.transpose <= 12:
            raise ValueError(f"transpose must be from 0 to 12 semitones, not {self.transpose}")

    def fit(self, items: Callable[[], Iterable[Any]], role: Role) -> ScoreChopper:
        vocabulary = ScoreVocabulary(voices=self.voices, lowest=self.lowest, highest=self.highest, chords=self.chords,
                                     own=role.special_ids)  # fmt: skip
        return ScoreChopper(vocabulary=vocabulary, generated=role.generated, transpose=self.transpose, crop=self.crop,
                            bar=self.bar)  # fmt: skip

    def load(self, folder: os.PathLike, role: Role) -> ScoreChopper:
        return self.fit(tuple, role)


@dataclass(frozen=True)
class Excerpt:
    """Some steps of a score, whether it begins with them, and the step that follows them (None: it ends)."""

    steps: Int[Tensor, "t v"]
    begins: bool
    following: Int[Tensor, "v"] | None


@dataclass(frozen=True, kw_only=True)
class ScoreChopper(IdChopper):
    """Scores to the ids of their notes. Of an excerpt the first note is not predicted, and the last one is followed by
    that of the next step: of the notes 2 and 0 before a 1, from the middle of a score of one voice with `start` = 4

        values  4  2  0     next_ids  -100  0  1
    """

    kind: ClassVar[str] = "score"
    transpose: int = 0
    crop: int | None = None
    bar: int = 16

    def decode(self, raw: Any) -> Int[Tensor, "t voices"]:
        """The score of an array (steps, voices) of whole numbers, or of a MIDI file. Raises ValueError for another
        shape."""
        voices = self.vocabulary.voices
        try:
            values = np.asarray(read_midi(raw, voices) if isinstance(raw, str | bytes | os.PathLike) else raw)
            if values.dtype.kind not in "biuf":
                raise TypeError(f"they are of type {values.dtype}")
            found = torch.as_tensor(values, dtype=torch.long)
        except DataError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"a score must be whole numbers (steps, {voices}): {error}") from None
        if found.dim() != 2 or found.shape[1] != voices or not len(found):
            raise ValueError(f"a score must be (steps, {voices}) with a step at least, not {tuple(found.shape)}")
        return found

    def augment(self, item: Int[Tensor, "t voices"], random: np.random.Generator) -> Excerpt:
        shift, place = random.integers(-self.transpose, self.transpose + 1), random.random()
        first, last = 0, len(item)
        if self.crop is not None and len(item) > self.crop:
            starts = (len(item) - self.crop - 1) // self.bar + 2  # the last one may be cut short by the score's end
            first = int(place * starts) * self.bar
            last = min(first + self.crop, last)
        steps = item[first : last + 1]
        sounding = steps[steps != SILENCE]
        if self.transpose and len(sounding):
            low, high = self.vocabulary.lowest - sounding.min(), self.vocabulary.highest - sounding.max()
            steps = torch.where(steps == SILENCE, steps, steps + int(np.clip(shift, int(low), int(high))))
        whole = last == len(item)
        return Excerpt(steps[: last - first], begins=first == 0, following=None if whole else steps[-1])

    def chop(self, item: Int[Tensor, "t voices"] | Excerpt | Sequence[int]) -> Chunk:
        if not isinstance(item, Excerpt):
            return super().chop(item)
        chunk = super().chop(item.steps)
        next_ids = chunk.next_ids.clone()
        if self.generated and not item.begins:
            next_ids[0] = IGNORED
        if item.following is not None:
            next_ids[-1] = self.encoded(item.following[None])[0]
        return replace(chunk, next_ids=next_ids)

    def draw(self, canvas: Any, item: Int[Tensor, "t voices"]) -> None:
        """A piano roll: time to the right, pitch upwards, a colour a voice."""
        for number, voice in enumerate(item.T.tolist()):
            for pitch, first, steps in notes_of(voice):
                canvas.plot([first, first + steps], [pitch, pitch], color=f"C{number % 10}", linewidth=3)
        canvas.set(xlabel="step", ylabel="pitch")


class ScoreTokenizer(IdTokenizer):
    """Ids of notes to vectors."""

    Chopper = ScorePreprocessor
