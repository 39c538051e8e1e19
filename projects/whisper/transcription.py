"""Transcription of whole files with Whisper: windows of 30 seconds one after another, and the segments in them.

Follows Radford et al. 2022 (arXiv:2212.04356, section 4.5) and OpenAI's own code (github.com/openai/whisper,
`whisper/transcribe.py`), to which segments are tested to be equal: 30 seconds are read at a time, the next window
begins at the last timestamp, and a window whose text is unlikely or repeats itself is decoded again at a higher
temperature. In two things it differs: no segment ends after the file, and segments without text or length are left
out, where OpenAI keeps them as empty ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.batch import Batch
from ...models.generation.beam_search import MOST_BEAMS
from ...models.generation.sampling import seeded
from ...models.generation.session import Session
from ...models.model import Model
from ...models.tokens import TokenSet
from ...tokenizers.base import Chopper, Chunk, axes_of
from ...tokenizers.chopping.packing import place
from ...tokenizers.encoding.base import Encoding
from .decoding import Protocol, Rules, Said, code_of, compression, drawn, likeliest, scored, searched


class Segment(NamedTuple):
    """A piece of a transcript; `start` and `end` are seconds from the beginning of the file."""

    start: float
    end: float
    raw: str
    """Its text as the model wrote it, with the space before it, where the language has spaces."""
    said: Said
    """The decoding of the whole window that it is from."""
    ids: list[int]
    """The ids of its tokens, timestamps included."""

    @property
    def text(self) -> str:
        """Its text without white space around it."""
        return self.raw.strip()


@dataclass(frozen=True)
class Transcript:
    """The segments of a file in order. Where they come from `Transcriber.transcribe` each is decoded when it is asked
    for, and they can be gone through once."""

    language: str
    """The code of the language that was decoded: given, detected, or the only one that the model knows."""
    segments: Iterable[Segment]

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)


def window_planner(choppers: Mapping[str, Chopper], sound: str, text: str) -> Callable[[Tensor, Sequence[int]], Batch]:
    """The function that makes a batch of one sample: a spectrogram (mels, frames) for the encoder's input `sound`, two
    frames a token, and ids for the decoder's input `text`."""
    axes, heard_by, end = axes_of(choppers.values()), choppers[sound], choppers[text].vocabulary.end

    def plan(window: Tensor, ids: Sequence[int]) -> Batch:
        count = (window.shape[1] + 1) // 2
        clip = Chunk(window[None], count, heard_by.seconds(count))
        written = Chunk(torch.tensor(ids), len(ids), next_ids=torch.tensor([*ids[1:], end]))
        heard = place([[(sound, clip)]], choppers, count, axes, rows=[0])
        said = place([[(text, written)]], choppers, len(ids), axes, rows=[0])
        return Batch(main=said, encoder=heard)

    return plan


STEP = 0.02
"""Seconds between two timestamps."""


@dataclass(frozen=True, kw_only=True)
class Transcribing:
    """How a file is transcribed. The defaults are those of OpenAI's command line. Raises ValueError for values that are
    out of range."""

    language: str | None = None
    """Its code or name, such as `de` or `German`; None: that which the model was tuned for, else detected from the
    first 30 s."""
    translate: bool = False
    """Translate into English, instead of transcribing."""
    timestamps: bool = True
    """Decode timestamps; without them a window is one segment."""
    beams: int = 5
    """Beams at temperature 0, 1 to MOST_BEAMS; 1: greedy, always the likeliest next token."""
    patience: float = 1.0
    """The search ends with `round(beams * patience)` finished texts (Kasai et al. 2022, arXiv:2204.05424)."""
    length_penalty: float | None = None
    """How texts are ranked: None by their log-probability over their length; else, from 0 to 1, over ((5 +
    length) / 6) to this power (Wu et al. 2016, arXiv:1609.08144)."""
    best_of: int = 5
    """Texts drawn at a temperature above 0, of which the best is taken; 1 to MOST_BEAMS."""
    seed: int = 0
    """The seed that texts are drawn with."""
    temperatures: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """Tried in turn, while a window's text repeats itself or is unlikely; each 0 or from 1e-6 to 1e6."""
    compression: float | None = 2.4
    """The text of a window repeats itself when zlib makes it more than so many times smaller; None: no such check."""
    confidence: float | None = -1.0
    """The text of a window is unlikely when its mean log-probability (nats per token) is below this; None: no such
    check."""
    silence: float | None = 0.6
    """A window is silent when the model's probability of no speech is above this and its text is unlikely; None: none
    is."""
    follow: bool = True
    """Whether the text decoded so far is a prompt to the next window, except after one at a temperature above 0.5."""
    initial_prompt: str | None = None
    """A prompt to the first window, such as names that occur. It stays before the text that `follow` prompts later
    windows with, as far as there is room."""
    carry_initial_prompt: bool = False
    """Whether every window is prompted with the whole initial prompt, and with as much of the text before it as fits
    besides."""

    def __post_init__(self):
        if self.beams < 1 or self.best_of < 1:
            raise ValueError(f"beams and best_of must be at least 1, not {self.beams} and {self.best_of}")
        if self.beams > MOST_BEAMS or self.best_of > MOST_BEAMS:
            raise ValueError(
                f"beams and best_of must be at most {MOST_BEAMS:,}, not {self.beams:,} and {self.best_of:,}"
            )
        if not 0 < self.patience < 1000 or round(self.beams * self.patience) < 1:
            raise ValueError(f"patience is {self.patience}; beams * patience, rounded, must be at least 1")
        if self.length_penalty is not None and not 0 <= self.length_penalty <= 1:
            raise ValueError(f"length_penalty is {self.length_penalty}; it must be between 0 and 1, or nothing")
        if not self.temperatures or not all(each == 0 or 1e-6 <= each <= 1e6 for each in self.temperatures):
            raise ValueError(
                f"temperatures must be at least one number, each 0 or from 1e-6 to 1e6, not {self.temperatures}"
            )

    def tries_again(self, said: Said) -> bool:
        """Whether the next temperature is tried: where a window's text repeats itself or is unlikely, unless the
        window is silent."""
        unlikely = self.confidence is not None and said.log < self.confidence
        if unlikely and self.silence is not None and said.no_speech > self.silence:
            return False
        return unlikely or (self.compression is not None and said.compression > self.compression)

    def is_silent(self, said: Said) -> bool:
        """Whether nothing is said in a window, so that it has no segments."""
        sure = self.confidence is not None and said.log > self.confidence
        return self.silence is not None and said.no_speech > self.silence and not sure


class Transcriber:
    """Transcribes a spectrogram of any length in windows of `frames` frames, of `hop` seconds each.

    `plan` makes the batch of one window that a `Session` takes, from its spectrogram (mels, frames) and the ids that
    its text begins with. `encoding` is that of the text, which the task `task` generates as the input `input`.
    """

    def __init__(
        self, model: Model, protocol: Protocol, plan: Callable[[Tensor, Sequence[int]], Batch],
        encoding: Encoding, *, input: str, task: str, frames: int, hop: float,
    ):  # fmt: skip
        self.model, self.protocol, self.plan = model, protocol, plan
        self.encode, self.decode = encoding.encode, encoding.decode
        self.names = {"input": input, "task": task, "vocabulary": vocabulary_of(model, input)}
        self.frames, self.hop = frames, hop

    # ---------------------------------------------------------------------------------------------- the whole of a file

    def transcribe(self, spectrogram: Float[Tensor, "mels frames"], length: int, how: Transcribing) -> Transcript:
        """The segments of a file, decoded as they are asked for. `length` is the file's number of frames; behind them
        the spectrogram goes on with one window of silence. Raises ValueError for a language or a translation that
        this model cannot do."""
        self.check(how)
        language = self.language(how) or self.detect(spectrogram)[0]
        return Transcript(language, self._segments(spectrogram, length, language, how))

    def _segments(self, spectrogram: Tensor, length: int, language: str, how: Transcribing) -> Iterator[Segment]:
        prompt = [] if how.initial_prompt is None else [*self.encode(" " + how.initial_prompt.strip())]
        generator, told, since, place = self._generator(how), list(prompt), 0, 0
        while place < length:
            size = min(self.frames, length - place)
            window = spectrogram[:, place : place + size]  # behind the file's end are zeros, as in the reference
            before = self._carried(prompt, told, since) if how.carry_initial_prompt else told[since:]
            said = self.hear(window, before, language, how, generator)
            if how.is_silent(said):
                place += size
                continue
            segments, heard = self.cut(said, place, size, how.timestamps)
            yield from segments
            place += heard
            told += [id for segment in segments for id in segment.ids]  # the next window decodes the rest
            if not how.follow or said.temperature > 0.5:
                since = len(told)

    def check(self, how: Transcribing) -> None:
        """Raises ValueError for a language or a translation that this model cannot do."""
        languages = self.protocol.languages
        if not languages and (how.translate or (how.language and code_of(how.language) != "en")):
            raise ValueError("this model knows English alone: it takes no other language and does not translate")
        if languages and how.language is not None and code_of(how.language) not in languages:
            raise ValueError(f"no language {how.language!r}; possible: {', '.join(languages)}")

    def language(self, how: Transcribing) -> str | None:
        """The code of the language to decode; None where it is to be detected."""
        if not self.protocol.languages:
            return "en"
        return code_of(how.language) if how.language else self.protocol.language

    @torch.inference_mode()
    def detect(self, spectrogram: Float[Tensor, "mels frames"]) -> tuple[str, dict[str, float]]:
        """The code of the likeliest language of the first window, and the probability of each, by code."""
        window, languages = padded(spectrogram[:, : self.frames], self.frames), self.protocol.languages
        session = Session(self.model, self.plan(window, [self.protocol.start]), most=1, **self.names)
        chances = scored(session)[0, list(languages.values())].float().softmax(-1).tolist()
        found = dict(zip(languages, chances))
        return max(found, key=found.get), found

    # -------------------------------------------------------------------------------------------- what a text
    # begins with

    @property
    def room(self) -> int:
        """The most tokens of earlier text that a window is prompted with."""
        return self.model.context // 2 - 1

    def prompt(self, before: Sequence[int], language: str | None, how: Transcribing) -> list[int]:
        """The ids that a window's text begins with: `<|startofprev|>` and the last of the ids `before`, if any, the
        start, the language and the task (of a multilingual model), and, where there are to be none, "no
        timestamps"."""
        p = self.protocol
        found = [p.previous, *before[-self.room :], p.start] if before else [p.start]
        if p.languages:
            found += [p.languages[language], p.translate if how.translate else p.transcribe]
        return found if how.timestamps else [*found, p.no_timestamps]

    def _carried(self, prompt: Sequence[int], told: Sequence[int], since: int) -> list[int]:
        """The initial prompt, with which `told` begins, and as many of the ids told since as have room behind it."""
        room = max(0, self.room - len(prompt))
        return [*prompt, *told[max(len(prompt), since, len(told) - room) :]]

    # --------------------------------------------------------------------------------------------------- one window

    @torch.inference_mode()
    def hear(
        self, window: Tensor, before: Sequence[int], language: str | None, how: Transcribing,
        generator: torch.Generator | None = None,
    ) -> Said:  # fmt: skip
        """The text of one window (mels, up to `frames`), at the first temperature at which it neither repeats itself
        nor is unlikely, else at the last. `before`: ids of the text before it; `generator` draws texts, by default one
        of `how.seed`."""
        batch = self.plan(padded(window, self.frames), self.prompt(before, language, how))
        generator, source = generator or self._generator(how), None
        for temperature in how.temperatures:
            said, source = self.say(batch, source, temperature, how, generator)
            if not how.tries_again(said):
                break
        return said

    def _generator(self, how: Transcribing) -> torch.Generator:
        return seeded(how.seed, next(self.model.parameters()).device)

    def say(
        self, batch: Batch, source: TokenSet | None, temperature: float, how: Transcribing, generator: torch.Generator
    ) -> tuple[Said, TokenSet]:
        """A window's text at one temperature, and the encoder's output, to be given as `source` at the next."""
        p, begin = self.protocol, batch.main.chunks[self.names["input"]].values.view(-1).tolist()
        most = min(self.model.context // 2, self.model.context - len(begin) + 1)  # the last token is not read
        session = Session(self.model, batch, most=most - 1, source=source, **self.names)
        source, rules = session.source, Rules(p, how.timestamps, session.device)
        if temperature == 0:
            found = searched(session, rules, most, beams=how.beams, patience=how.patience)
        else:
            found = drawn(session, rules, most, temperature=temperature, count=how.best_of, generator=generator)
        ids, log = likeliest(found, how.length_penalty)
        first = session.prompt_scores(begin.index(p.start))[0].float().softmax(-1)
        text = self.decode([id for id in ids if id < p.timestamps])
        said = Said(ids, log / (len(ids) + 1), float(first[p.no_speech]), temperature, compression(text))
        return said, source

    # ------------------------------------------------------------------------------------------------------ segments

    def cut(self, said: Said, place: int, size: int, timed: bool) -> tuple[list[Segment], int]:
        """A window's text as segments, and the number of frames after which the next window begins. The window begins
        at the frame `place` of the file, and `size` of its frames are the file's; `timed`: with timestamps.

        0.00 a 2.00 2.00 b 5.00    segments a (0 to 2 s) and b (2 to 5 s); the next window follows this one
        0.00 a 2.00 2.00 b         segment a (0 to 2 s); the next window begins at 2 s
        """
        p, ids = self.protocol, said.ids
        times = [id >= p.timestamps for id in ids]
        pairs = [n for n in range(1, len(ids)) if times[n - 1] and times[n]]
        if not timed or not pairs:
            last = next((id for id in reversed(ids) if id >= p.timestamps), p.timestamps)
            end = size if last == p.timestamps else self._frames(last)
            return self._cleared([(0, end, ids)], place, size, said), size
        ends_alone = times[-2:] == [False, True]
        found, start = [], 0
        for cut in [*pairs, len(ids)] if ends_alone else pairs:
            part = ids[start:cut]
            if part[0] >= p.timestamps and part[-1] >= p.timestamps:
                found.append((self._frames(part[0]), self._frames(part[-1]), part))
            start = cut
        heard = size if ends_alone else max(1, self._frames(ids[pairs[-1] - 1]))
        return self._cleared(found, place, size, said), heard

    def _frames(self, id: int) -> int:
        """The frame of a window at the time of a timestamp's id."""
        return round((id - self.protocol.timestamps) * STEP / self.hop)

    def _cleared(self, parts: list[tuple[int, int, list[int]]], place: int, size: int, said: Said) -> list[Segment]:
        """The segments of (first frame, end frame, ids) that have a text and a length, cut at the window's end."""
        found = []
        for start, end, ids in parts:
            start, end = min(start, size), min(end, size)
            text = self.decode([id for id in ids if id < self.protocol.timestamps])
            if text.strip() and end > start:
                seconds = (round((place + frame) * self.hop, 2) for frame in (start, end))
                found.append(Segment(*seconds, text, said, ids))
        return found


def vocabulary_of(model: Model, input: str) -> int:
    """The number of ids that a model generates as `input`, with timestamps, which a tokenizer may not name."""
    return model.tokenizer(input).embedding.num_embeddings


def padded(window: Float[Tensor, "mels n"], frames: int) -> Float[Tensor, "mels {frames}"]:
    """A window with zeros behind it, `frames` long."""
    return torch.nn.functional.pad(window, (0, frames - window.shape[1]))
