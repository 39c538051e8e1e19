"""Scores (music in notes) of several voices as ids, one id per voice in every time step. Scores can be generated."""

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
from .base import Chunk, Example, Preprocessor, Role
from .chopping.ids import IdChopper, IdTokenizer
from .encoding.base import CodedVocabulary, Unit
from .media.files import array_of_file
from .media.midi import BPM, SILENCE, midi_bytes, notes_of, read_midi
from .media.synthesizer import sound_bytes, synthesized

CHORDS = {"major": (0, 4, 7), "minor": (0, 3, 7), "diminished": (0, 3, 6), "augmented": (0, 4, 8)}
"""The notes of each kind of chord, in semitones above its root."""


@dataclass(frozen=True, kw_only=True)
class ScoreVocabulary(CodedVocabulary):
    """The ids of the MIDI pitches from `lowest` (id 0) to `highest`, then the id of silence. A score is a sequence of
    steps. Each step holds one id per voice, the first voice (soprano) first. With `chords` the id of the step's chord
    precedes the notes of the step, so a model predicts the chord before the notes. Two voices with pitches from 60 to
    62:

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
        """The id of silence, after the ids of the pitches."""
        return self.highest - self.lowest + 1

    @property
    def first_chord(self) -> int:
        """The id of the first chord, C major. Chords are ordered by kind, like `CHORDS`, then by root. The last of
        these ids means that no chord fits the step."""
        return self.silence + 1

    @property
    def start(self) -> int:
        return self.first_chord + (12 * len(CHORDS) + 1) * self.chords

    @property
    def per_step(self) -> int:
        """The number of ids per step: one per voice, and one for the chord with `chords`."""
        return self.voices + self.chords

    @property
    def title(self) -> str:
        return f"the vocabulary of pitches {self.lowest} to {self.highest}"

    @property
    def well_formed(self) -> Constraint:
        return WholeSteps(self)

    def encode(self, item: Int[Tensor, "t voices"]) -> list[int]:
        """Returns the ids of a score. Raises ValueError if a pitch is neither silence nor from `lowest` to
        `highest`."""
        outside = (item != SILENCE) & ((item < self.lowest) | (item > self.highest))
        if outside.any():
            pitch = int(item[outside][0])
            raise ValueError(f"pitch {pitch} is not from {self.lowest} to {self.highest}; silence is {SILENCE}")
        ids = torch.where(item == SILENCE, self.silence, item - self.lowest)
        if self.chords:
            chord = torch.tensor([self.first_chord + chord_of(step) for step in item.tolist()], dtype=torch.long)
            ids = torch.cat([chord[:, None], ids], dim=1)
        return ids.flatten().tolist()

    def restore(self, ids: Iterable[int]) -> Int[Tensor, "t voices"]:
        """Returns the score of these ids. Special ids and an incomplete last step are dropped. Raises ValueError if the
        id of a chord is in the place of a note or the reverse, or if an id is outside the vocabulary."""
        plain = torch.tensor([id for id in self.known(ids) if id not in self.specials], dtype=torch.long)
        steps = plain[: len(plain) // self.per_step * self.per_step].view(-1, self.per_step)
        notes = steps[:, self.chords :]
        if (notes > self.silence).any() or (self.chords and (steps[:, 0] <= self.silence).any()):
            order = "one chord, then one note per voice" if self.chords else "one note per voice"
            raise ValueError(f"every step must be {order}; the id of a chord is in the place of a note or the reverse")
        return torch.where(notes == self.silence, SILENCE, notes + self.lowest)

    def units(self, item: Int[Tensor, "t voices"]) -> float:
        """Returns the number of steps times the number of voices."""
        return item.numel()

    def content(self, item: Int[Tensor, "t voices"], ending: str) -> bytes:
        if ending == ".csv":
            return "".join(",".join(map(str, step)) + "\n" for step in item.tolist()).encode()
        notes = [notes_of(voice) for voice in item.T.tolist()]
        return midi_bytes(notes) if ending == ".mid" else sound_bytes(synthesized(notes, 60 / BPM / 4), ending)


@dataclass(frozen=True)
class WholeSteps(Constraint):
    """Requires at least one step, and in every step the id of the chord (with `chords`) before the ids of the notes. A
    score can end only after a complete step."""

    vocabulary: ScoreVocabulary

    def allowed(self, ids, size):
        vocabulary, index = self.vocabulary, len(ids) % self.vocabulary.per_step
        if index or not vocabulary.chords:
            mask = only(range(vocabulary.silence + 1), size)
        else:
            mask = only(range(vocabulary.first_chord, vocabulary.start), size)
        if not index and ids:
            mask[vocabulary.end] = True
        return mask


def chord_of(step: Sequence[int]) -> int:
    """Returns the number of the chord that contains all pitches of a step: 12 * index in `CHORDS` + root (C is 0).
    Returns 48 if no chord contains all pitches, or if all voices are silent. If more than one chord fits, a chord whose
    root is the lowest pitch is preferred, then the first one in `CHORDS`, then the highest root.
    """
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
    """Converts scores of `voices` voices to ids. A score is an array (steps, voices) of MIDI pitches, with -1 for
    silence, or a MIDI file (see `read_midi`); a step is a sixteenth. Pitches are from `lowest` to `highest`. `chords`:
    the chord of each step precedes the notes of the step. During training a score is transposed at random by up to
    `transpose` semitones, within the range of pitches. A score of more than `crop` steps is also cut to an excerpt of
    at most `crop` steps (null: no cut), which begins at a multiple of `bar` steps. The model does not learn the cut
    ends of an excerpt as the beginning or the end of a score."""

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
            pitches = f"not {self.lowest} and {self.highest}"
            raise ValueError(f"lowest and highest must satisfy 0 <= lowest < highest <= 127, {pitches}")
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
    """Consecutive steps of a score. `begins`: whether they are the first steps of the score. `following`: the step
    after the excerpt; None: the score ends with the excerpt."""

    steps: Int[Tensor, "t v"]
    begins: bool
    following: Int[Tensor, "v"] | None


@dataclass(frozen=True, kw_only=True)
class ScoreChopper(IdChopper):
    """Converts scores to ids: the notes of each step, after the chord of the step if the option `chords` is set. In an
    excerpt that does not begin at the start of the score, the first id is not a target. If the score continues after
    the excerpt, the target at the last position is the first id of the next step. Example: an excerpt from the middle
    of a score of one voice. Its ids are 2 and 0, and the next id of the score is 1. The id of the start token is 4, and
    -100 marks a position without a target:

        values  4  2  0     next_ids  -100  0  1
    """

    kind: ClassVar[str] = "score"
    transpose: int = 0
    crop: int | None = None
    bar: int = 16

    def decode(self, raw: Any) -> Int[Tensor, "t voices"]:
        """Returns the score (steps, voices) of an array of this shape, or of the path or the bytes of such an array
        (`.npy`) or of a MIDI file. Raises ValueError for other types and shapes, without any step, and if the file
        cannot be read."""
        voices, raw = self.vocabulary.voices, array_of_file(raw, "the score")
        try:
            values = np.asarray(read_midi(raw, voices) if isinstance(raw, str | bytes | os.PathLike) else raw)
            if values.dtype.kind not in "biuf":
                raise TypeError(f"its values are of type {values.dtype}")
            score = torch.as_tensor(values, dtype=torch.long)
            if values.dtype.kind == "f" and not np.array_equal(values, score.numpy()):
                raise TypeError("it has values that are not whole numbers")
        except DataError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"a score must be an array of whole numbers of the shape (steps, {voices}): {error}"
            ) from None
        if score.dim() != 2 or score.shape[1] != voices or not len(score):
            expected = f"(steps, {voices}) with at least one step"
            raise ValueError(f"a score must have the shape {expected}, not {tuple(score.shape)}")
        return score

    def augment(self, item: Int[Tensor, "t voices"], random: np.random.Generator) -> Excerpt:
        shift, fraction = random.integers(-self.transpose, self.transpose + 1), random.random()
        first, last = 0, len(item)
        if self.crop is not None and len(item) > self.crop:
            starts = (len(item) - self.crop - 1) // self.bar + 2  # the excerpt from the last start may be shorter
            first = int(fraction * starts) * self.bar
            last = min(first + self.crop, last)
        steps = item[first : last + 1]
        sounding = steps[steps != SILENCE]
        if self.transpose and len(sounding):
            low, high = self.vocabulary.lowest - sounding.min(), self.vocabulary.highest - sounding.max()
            steps = torch.where(steps == SILENCE, steps, steps + int(np.clip(shift, int(low), int(high))))
        following = None if last == len(item) else steps[-1]
        return Excerpt(steps[: last - first], begins=first == 0, following=following)

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
        """Draws a piano roll: time on the x axis, pitch on the y axis, one colour per voice."""
        for number, voice in enumerate(item.T.tolist()):
            for pitch, first, steps in notes_of(voice):
                canvas.plot([first, first + steps], [pitch, pitch], color=f"C{number % 10}", linewidth=3)
        canvas.set(xlabel="step", ylabel="pitch")


class ScoreTokenizer(IdTokenizer):
    """Maps ids of notes to vectors."""

    Chopper = ScorePreprocessor


EXAMPLE = Example(
    options={"voices": 2},
    items=lambda: [np.array([[60, 62], [61, 63], [62, 60], [63, 61]]) + more for more in (0, 1)],
    generated=True,
)
