"""Transcription of complete files with Whisper in windows of 30 seconds, and the segments in each window.

Follows Radford et al. 2022 (arXiv:2212.04356, section 4.5) and OpenAI's code (github.com/openai/whisper,
`whisper/transcribe.py`); tests compare the segments with the results of this code. The next window begins at the last
timestamp. A window with an unlikely or repetitive text is decoded again at a higher temperature. There are two
differences from OpenAI's code. No segment ends after the file. Segments without text or with length 0 are dropped,
whereas OpenAI's code keeps them as empty segments."""

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
from ...tokenizers.audio_stem import AudioStemChopper
from ...tokenizers.base import Chopper, Chunk, axes_of
from ...tokenizers.chopping.packing import place
from ...tokenizers.encoding.base import Encoding
from .decoding import (
    Decoding,
    Protocol,
    Rules,
    code_of,
    compression,
    finite_scores,
    likeliest,
    sample_texts,
    search_texts,
)


class Segment(NamedTuple):
    """A segment of a transcript. `start` and `end` are in seconds from the beginning of the file."""

    start: float
    end: float
    raw: str
    """The generated text. In languages that use spaces, it begins with a space."""
    decoding: Decoding
    """The result of decoding the complete window of the segment."""
    ids: list[int]
    """The ids of the tokens, including timestamps."""

    @property
    def text(self) -> str:
        """The text without surrounding white space."""
        return self.raw.strip()


@dataclass(frozen=True)
class Transcript:
    """The segments of a file in order. The transcripts that `Transcriber.transcribe` returns can be iterated over only
    once, because the segments are decoded during the iteration."""

    language: str
    """The code of the language. The language is that of the settings, or is detected, or is the only language of the
    model."""
    segments: Iterable[Segment]

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)


def window_planner(choppers: Mapping[str, Chopper], sound: str, text: str) -> Callable[[Tensor, Sequence[int]], Batch]:
    """Returns a function that creates a batch of one sample from a spectrogram and ids. The spectrogram has shape
    (mels, frames) and two frames per token; the encoder reads it as the input `sound`. The decoder reads the ids as the
    input `text`."""
    axes, sound_chopper, end = axes_of(choppers.values()), choppers[sound], choppers[text].vocabulary.end

    def plan(window: Tensor, ids: Sequence[int]) -> Batch:
        count = (window.shape[1] + 1) // 2
        sound_chunk = Chunk(window[None], count, sound_chopper.seconds(count))
        text_chunk = Chunk(torch.tensor(ids), len(ids), next_ids=torch.tensor([*ids[1:], end]))
        encoder = place([[(sound, sound_chunk)]], choppers, count, axes, rows=[0])
        main = place([[(text, text_chunk)]], choppers, len(ids), axes, rows=[0])
        return Batch(main=main, encoder=encoder)

    return plan


STEP = 0.02
"""The difference between two successive timestamps in seconds."""


@dataclass(frozen=True, kw_only=True)
class Transcribing:
    """Settings for transcription. The defaults are those of OpenAI's command line. Raises ValueError if `beams`,
    `patience`, `length_penalty`, `best_of` or `temperatures` is out of range."""

    language: str | None = None
    """The code or English name of the language, such as `de` or `German`. None: the language for which the model was
    fine-tuned, or else the language that is detected in the first 30 s."""
    translate: bool = False
    """Whether to translate into English instead of transcribing."""
    timestamps: bool = True
    """Whether to decode timestamps. False: a window is one segment."""
    beams: int = 5
    """The number of beams at temperature 0, from 1 to MOST_BEAMS; 1: greedy search."""
    patience: float = 1.0
    """The beam search ends when `round(beams * patience)` texts are finished (Kasai et al. 2022, arXiv:2204.05424)."""
    length_penalty: float | None = None
    """Texts are ranked by log-probability divided by ((5 + length) / 6) ** length_penalty, with a value from 0 to 1 (Wu
    et al. 2016, arXiv:1609.08144). None: texts are ranked by log-probability divided by length."""
    best_of: int = 5
    """The number of texts that are sampled at a temperature above 0, from 1 to MOST_BEAMS. The best text is used."""
    seed: int = 0
    """The random seed of sampling."""
    temperatures: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """The temperatures that are tried in this order, until the text of a window is neither repetitive nor unlikely.
    Each temperature is 0 or from 1e-6 to 1e6."""
    compression: float | None = 2.4
    """A text is repetitive if its zlib compression ratio is above this value; None: no check."""
    confidence: float | None = -1.0
    """A text is unlikely if its mean log-probability in nats per token is below this value. None: no check."""
    silence: float | None = 0.6
    """A window is silent if the probability of no speech is above this value and the mean log-probability of the text
    is not above `confidence`. None: no window is silent."""
    follow: bool = True
    """Whether the prompt of a window contains the preceding text. After a window that was decoded at a temperature
    above 0.5, the text up to the end of this window is left out of all later prompts."""
    initial_prompt: str | None = None
    """The prompt of the first window, such as names that occur in the file. With `follow`, the prompt of a later window
    consists of the initial prompt and the preceding text. If they do not fit, their beginning is left out."""
    carry_initial_prompt: bool = False
    """Whether the prompt of every window begins with the complete initial prompt, followed by the end of the preceding
    text that fits."""

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
            raise ValueError(f"length_penalty is {self.length_penalty}; it must be between 0 and 1, or None")
        if not self.temperatures or not all(value == 0 or 1e-6 <= value <= 1e6 for value in self.temperatures):
            raise ValueError(
                f"temperatures must be at least one number, each 0 or from 1e-6 to 1e6, not {self.temperatures}"
            )

    def needs_retry(self, decoding: Decoding) -> bool:
        """Returns whether to try the next temperature: whether the text is repetitive or unlikely. Returns False if the
        text is unlikely and the probability of no speech is above `silence`."""
        unlikely = self.confidence is not None and decoding.log < self.confidence
        if unlikely and self.silence is not None and decoding.no_speech > self.silence:
            return False
        return unlikely or (self.compression is not None and decoding.compression > self.compression)

    def is_silent(self, decoding: Decoding) -> bool:
        """Returns whether a window is silent (see `silence`). A silent window has no segments. If `confidence` is None,
        only the probability of no speech is compared."""
        confident = self.confidence is not None and decoding.log > self.confidence
        return self.silence is not None and decoding.no_speech > self.silence and not confident


class Transcriber:
    """Transcribes a spectrogram of any length in windows, whose size and rate are those of the model's `chopper`.

    `plan` is a function that creates the batch of one window for a `Session`, from the spectrogram of the window (mels,
    frames) and the first ids of its text. `encoding` encodes the text. The task `task` generates the text as the input
    `input`."""

    def __init__(
        self, model: Model, protocol: Protocol, plan: Callable[[Tensor, Sequence[int]], Batch],
        chopper: AudioStemChopper, encoding: Encoding, *, input: str, task: str,
    ):  # fmt: skip
        self.model, self.protocol, self.plan = model, protocol, plan
        self.encode, self.decode = encoding.encode, encoding.decode
        self.names = {"input": input, "task": task, "vocabulary": vocabulary_of(model, input)}
        self.frames, self.hop = chopper.frames_of(0), chopper.hop  # a frame lasts `hop` seconds

    # -------------------------------------------------------------------------------------------------- complete files

    def transcribe(self, spectrogram: Float[Tensor, "mels frames"], length: int, how: Transcribing) -> Transcript:
        """Returns the transcript of a file. The segments are decoded during the iteration over the transcript. `length`
        is the number of frames of the file. `spectrogram` contains one more window of silence at the end. Raises
        ValueError if the model does not support the language or translation."""
        self.check(how)
        language = self.language(how) or self.detect(spectrogram)[0]
        return Transcript(language, self._segments(spectrogram, length, language, how))

    def _segments(self, spectrogram: Tensor, length: int, language: str, how: Transcribing) -> Iterator[Segment]:
        prompt = [] if how.initial_prompt is None else [*self.encode(" " + how.initial_prompt.strip())]
        generator, history, start, offset = self._generator(how), list(prompt), 0, 0
        while offset < length:
            size = min(self.frames, length - offset)
            window = spectrogram[:, offset : offset + size]  # zeros follow the end of the file, as in OpenAI's code
            context = self._carried(prompt, history, start) if how.carry_initial_prompt else history[start:]
            decoding = self.hear(window, context, language, how, generator)
            if how.is_silent(decoding):
                offset += size
                continue
            segments, completed = self.cut(decoding, offset, size, how.timestamps)
            yield from segments
            offset += completed
            history += [id for segment in segments for id in segment.ids]  # the next window decodes the rest
            if not how.follow or decoding.temperature > 0.5:
                start = len(history)

    def check(self, how: Transcribing) -> None:
        """Raises ValueError if the model does not support the language, or if translation is selected and the model
        supports only English."""
        languages = self.protocol.languages
        if not languages and (how.translate or (how.language and code_of(how.language) != "en")):
            raise ValueError("this model supports only English: other languages and translation are not possible")
        if languages and how.language is not None and code_of(how.language) not in languages:
            raise ValueError(f"no language {how.language!r}; possible: {', '.join(languages)}")

    def language(self, how: Transcribing) -> str | None:
        """Returns the code of the language: `en` for a model that supports only English, or else the language of the
        settings, or else the language for which the model was fine-tuned. Returns None if all are unknown; the language
        must be detected then."""
        if not self.protocol.languages:
            return "en"
        return code_of(how.language) if how.language else self.protocol.language

    @torch.inference_mode()
    def detect(self, spectrogram: Float[Tensor, "mels frames"]) -> tuple[str, dict[str, float]]:
        """Returns the code of the most likely language of the first window, and a mapping from language codes to
        probabilities."""
        window, languages = padded(spectrogram[:, : self.frames], self.frames), self.protocol.languages
        session = Session(self.model, self.plan(window, [self.protocol.start]), most=1, **self.names)
        values = finite_scores(session)[0, list(languages.values())].float().softmax(-1).tolist()
        probabilities = dict(zip(languages, values))
        return max(probabilities, key=probabilities.get), probabilities

    # --------------------------------------------------------------------------------------------------------- prompts

    @property
    def most_context(self) -> int:
        """The maximum number of tokens of preceding text in a prompt."""
        return self.model.context // 2 - 1

    def prompt(self, context: Sequence[int], language: str | None, how: Transcribing) -> list[int]:
        """Returns the ids at the beginning of the text of a window. `context` contains the ids of the preceding text.
        The result consists of: `<|startofprev|>` and the last ids of `context` (unless `context` is empty), the start,
        the language and the task (only for a multilingual model), and `<|notimestamps|>` (only without timestamps)."""
        p = self.protocol
        ids = [p.previous, *context[-self.most_context :], p.start] if context else [p.start]
        if p.languages:
            ids += [p.languages[language], p.translate if how.translate else p.transcribe]
        return ids if how.timestamps else [*ids, p.no_timestamps]

    def _carried(self, prompt: Sequence[int], history: Sequence[int], start: int) -> list[int]:
        """Returns the initial prompt `prompt`, followed by as many of the last ids of `history[start:]` as fit.
        `history` begins with the initial prompt, which is not repeated."""
        room = max(0, self.most_context - len(prompt))
        return [*prompt, *history[max(len(prompt), start, len(history) - room) :]]

    # ------------------------------------------------------------------------------------------------- single windows

    @torch.inference_mode()
    def hear(
        self, window: Tensor, context: Sequence[int], language: str | None, how: Transcribing,
        generator: torch.Generator | None = None,
    ) -> Decoding:  # fmt: skip
        """Decodes one window with shape (mels, n), where n is at most `frames`. Returns the text of the first
        temperature for which `Transcribing.needs_retry` is False, or the text of the last temperature. `context`
        contains the ids of the preceding text. If `generator` is None, a generator with the seed `how.seed` is used."""
        batch = self.plan(padded(window, self.frames), self.prompt(context, language, how))
        generator, source = generator or self._generator(how), None
        for temperature in how.temperatures:
            decoding, source = self.decode_at(batch, source, temperature, how, generator)
            if not how.needs_retry(decoding):
                break
        return decoding

    def _generator(self, how: Transcribing) -> torch.Generator:
        return seeded(how.seed, next(self.model.parameters()).device)

    def decode_at(
        self, batch: Batch, source: TokenSet | None, temperature: float, how: Transcribing, generator: torch.Generator
    ) -> tuple[Decoding, TokenSet]:
        """Decodes a window at one temperature. Returns the decoded text and the output of the encoder. `source` is the
        output of the encoder from an earlier call for the same window; None: the encoder is run."""
        p, begin = self.protocol, batch.main.chunks[self.names["input"]].values.view(-1).tolist()
        most = min(self.model.context // 2, self.model.context - len(begin) + 1)  # the last token is not an input
        session = Session(self.model, batch, most=most - 1, source=source, **self.names)
        source, rules = session.source, Rules(p, how.timestamps, session.device)
        if temperature == 0:
            candidates = search_texts(session, rules, most, beams=how.beams, patience=how.patience)
        else:
            count = how.best_of
            candidates = sample_texts(session, rules, most, temperature=temperature, count=count, generator=generator)
        ids, log = likeliest(candidates, how.length_penalty)
        first = session.prompt_scores(begin.index(p.start))[0].float().softmax(-1)
        text = self.decode([id for id in ids if id < p.timestamps])
        decoding = Decoding(ids, log / (len(ids) + 1), float(first[p.no_speech]), temperature, compression(text))
        return decoding, source

    # ------------------------------------------------------------------------------------------------------ segments

    def cut(self, decoding: Decoding, offset: int, size: int, timed: bool) -> tuple[list[Segment], int]:
        """Returns the segments of a window, and the number of frames after which the next window begins. The window
        begins at the frame `offset` of the file and contains `size` frames of the file. `timed`: the text was decoded
        with timestamps.

        0.00 a 2.00 2.00 b 5.00    segments a (0 to 2 s) and b (2 to 5 s); the next window follows this window
        0.00 a 2.00 2.00 b         segment a (0 to 2 s); the next window begins at 2 s"""
        p, ids = self.protocol, decoding.ids
        times = [id >= p.timestamps for id in ids]
        pairs = [n for n in range(1, len(ids)) if times[n - 1] and times[n]]
        if not timed or not pairs:
            last = next((id for id in reversed(ids) if id >= p.timestamps), p.timestamps)
            end = size if last == p.timestamps else self._frames(last)
            return self._segments_of([(0, end, ids)], offset, size, decoding), size
        ends_alone = times[-2:] == [False, True]
        parts, start = [], 0
        for cut in [*pairs, len(ids)] if ends_alone else pairs:
            part = ids[start:cut]
            if part[0] >= p.timestamps and part[-1] >= p.timestamps:
                parts.append((self._frames(part[0]), self._frames(part[-1]), part))
            start = cut
        completed = size if ends_alone else max(1, self._frames(ids[pairs[-1] - 1]))
        return self._segments_of(parts, offset, size, decoding), completed

    def _frames(self, id: int) -> int:
        """Returns the number of frames from the beginning of the window to the timestamp `id`."""
        return round((id - self.protocol.timestamps) * STEP / self.hop)

    def _segments_of(
        self, parts: list[tuple[int, int, list[int]]], offset: int, size: int, decoding: Decoding
    ) -> list[Segment]:  # fmt: skip
        """Returns the segments of `parts`, which are tuples (first frame, end frame, ids). Segments are cut at the end
        of the window. Segments without text or with length 0 are dropped."""
        segments = []
        for start, end, ids in parts:
            start, end = min(start, size), min(end, size)
            text = self.decode([id for id in ids if id < self.protocol.timestamps])
            if text.strip() and end > start:
                seconds = (round((offset + frame) * self.hop, 2) for frame in (start, end))
                segments.append(Segment(*seconds, text, decoding, ids))
        return segments


def vocabulary_of(model: Model, input: str) -> int:
    """Returns the vocabulary size of the input `input` in the model. It includes the timestamps, which the tokenizer
    may not contain."""
    return model.tokenizer(input).embedding.num_embeddings


def padded(window: Float[Tensor, "mels n"], frames: int) -> Float[Tensor, "mels {frames}"]:
    """Returns the window with zeros added at the end, up to `frames` frames."""
    return torch.nn.functional.pad(window, (0, frames - window.shape[1]))
