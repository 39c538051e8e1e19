"""Whisper's protocol: which special tokens it is asked with, what it may say next, and how long files are cut into windows.

Follows Radford et al. 2022 (arXiv:2212.04356, section 4.5) and their reference implementation: 30 seconds are heard at a
time, the next window begins where the last timestamp says, and what was said badly is said again at a higher temperature.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .answer import Answer
from .batch import PlannedSet
from .beam_search import Search, beam_search
from .languages import code_of
from .token_set import TokenSet

STEP = 0.02
"""Seconds between two timestamps."""


@dataclass(frozen=True)
class Protocol:
    """Whisper's special ids."""

    start: int
    end: int
    transcribe: int
    translate: int
    previous: int
    no_speech: int
    no_timestamps: int
    timestamps: int
    """The id of the timestamp 0.00; later ones follow it."""
    languages: Mapping[str, int] = field(default_factory=dict)
    """Empty for a model of English alone."""
    suppressed: Sequence[int] = ()
    """Never said."""
    suppressed_first: Sequence[int] = ()
    """Never said first."""
    latest_start: int | None = 50
    """The latest timestamp, counted in steps, with which a window may begin."""
    language: str | None = None
    """The code of the language that the model was tuned for, where it says one; else it is detected."""


@dataclass(frozen=True, kw_only=True)
class Transcribing:
    """How a file is transcribed."""

    language: str | None = None
    """Its code or name, such as `de` or `German`; None: what the model was tuned for, else detected from the first 30 s."""
    translate: bool = False
    """Into English, instead of writing what was said."""
    timestamps: bool = True
    beams: int = 5
    temperatures: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """Tried in turn, while a window's text repeats itself or is unlikely."""
    compression: float = 2.4
    """The text of a window repeats itself when zlib makes it so many times smaller."""
    confidence: float = -1.0
    """The text of a window is unlikely when its mean log-probability is below this."""
    silence: float = 0.6
    """A window is silent when the model says so with this probability, and its text is unlikely."""
    follow: bool = True
    """Whether a window is read with the text before it as its context."""

    def __post_init__(self):
        if self.beams < 1:
            raise ValueError(f"beams must be at least 1, not {self.beams}")
        if not self.temperatures or min(self.temperatures) < 0:
            raise ValueError("temperatures must be at least one number, none below 0")


class Said(NamedTuple):
    """What was heard in one window."""

    ids: list[int]
    log: float
    """Mean log-probability of its tokens, the end included."""
    no_speech: float
    temperature: float
    compression: float
    language: str | None = None
    """The language it was asked in; None for a model of English alone."""


class Segment(NamedTuple):
    """A piece of text with the seconds in which it was said."""

    start: float
    end: float
    raw: str
    """Its text as the model wrote it, with the space before it, where the language has spaces."""
    said: Said
    ids: list[int]
    """Its own tokens, timestamps included."""

    @property
    def text(self) -> str:
        """Its text without the spaces around it."""
        return self.raw.strip()


class Transcriber:
    """Writes down what is said in a spectrogram of any length.

    `plan` makes the sets of one window: from a spectrogram (mels, frames) and the ids of the text's beginning to the planned
    sets that `Answer` takes. `decode` turns ids to text.
    """

    def __init__(
        self, model: Any, protocol: Protocol, plan: Callable[[Tensor, Sequence[int]], dict[str, PlannedSet]],
        decode: Callable[[Sequence[int]], str], *, input: str, task: str, vocabulary: int, frames: int, hop: float,
    ):  # fmt: skip
        self.model, self.protocol, self.plan, self.decode = model, protocol, plan, decode
        self.names = {"input": input, "task": task, "vocabulary": vocabulary}
        self.frames, self.hop = frames, hop

    # ---------------------------------------------------------------------------------------------- the whole of a file

    def transcribe(
        self, spectrogram: Float[Tensor, "mels frames"], length: int, how: Transcribing
    ) -> Iterator[Segment]:
        """The segments of a file, as they are found. `length` is how many frames are the file's own; the spectrogram goes on
        with silence behind them, one window long."""
        self.check(how)
        language = self.language(how)
        if language is None and self.protocol.languages:
            language = self.detect(spectrogram)[0]
        place, before = 0, []
        while place < length:
            size = min(self.frames, length - place)
            window = spectrogram[:, place : place + size]  # behind the file's end are zeros, as in the reference
            said = self.hear(window, before if how.follow else [], language, how)._replace(language=language)
            if said.no_speech > how.silence and said.log < how.confidence:
                place += size
                continue
            segments, heard = self.cut(said, place * self.hop, size * self.hop, how.timestamps)
            yield from segments
            place += max(1, min(size, round(heard / self.hop)))
            kept = [id for segment in segments for id in segment.ids]  # what follows them is heard again
            before = [] if said.temperature > 0.5 else [*before, *kept]

    def check(self, how: Transcribing) -> None:
        """Raises ValueError for what this model does not know."""
        languages = self.protocol.languages
        if not languages and (how.translate or (how.language and code_of(how.language) != "en")):
            raise ValueError("this model knows English alone: it takes no other language and does not translate")
        if languages and how.language is not None and code_of(how.language) not in languages:
            raise ValueError(f"no language {how.language!r}; possible: {', '.join(languages)}")

    def language(self, how: Transcribing) -> str | None:
        """The code of the language to listen for, where it is known beforehand."""
        if not self.protocol.languages:
            return None
        return code_of(how.language) if how.language else self.protocol.language

    @torch.inference_mode()
    def detect(self, spectrogram: Float[Tensor, "mels frames"]) -> tuple[str, dict[str, float]]:
        """The likeliest language of the first window, and the probability of each."""
        window = padded(spectrogram[:, : self.frames], self.frames)
        scores = Answer(self.model, self.plan(window, [self.protocol.start]), most=1, **self.names).scores()
        return self._language(scores[0])

    def _language(self, scores: Tensor) -> tuple[str, dict[str, float]]:
        names = list(self.protocol.languages)
        chances = scores[list(self.protocol.languages.values())].float().softmax(-1).tolist()
        found = dict(zip(names, chances))
        return max(found, key=found.get), found

    def prompt(self, before: Sequence[int], language: str | None, how: Transcribing) -> list[int]:
        """The ids that a window's text begins with: what was said before, the start, the language, the task."""
        p = self.protocol
        room = self.model.context // 2 - 1
        found = [p.previous, *before[-room:], p.start] if before else [p.start]
        if p.languages:
            found += [p.languages[language], p.translate if how.translate else p.transcribe]
        return found if how.timestamps else [*found, p.no_timestamps]

    # --------------------------------------------------------------------------------------------------- one window

    @torch.inference_mode()
    def hear(self, window: Tensor, before: Sequence[int], language: str | None, how: Transcribing) -> Said:
        """The text of one window, at the first temperature at which it neither repeats itself nor is unlikely."""
        sets = self.plan(padded(window, self.frames), self.prompt(before, language, how))
        source, said = None, None
        for temperature in how.temperatures:
            said, source = self.say(sets, source, temperature, how)
            silent = said.no_speech > how.silence and said.log < how.confidence
            if silent or (said.compression <= how.compression and said.log >= how.confidence):
                break
        return said

    def say(self, sets: dict, source: TokenSet | None, temperature: float, how: Transcribing) -> tuple[Said, TokenSet]:
        """One try at a window's text; also gives what the encoder made of it, for the next try."""
        p, prompt = self.protocol, self.names["input"]
        begin = sets["main"].pieces[prompt].values.view(-1).tolist()
        most = min(self.model.context // 2, self.model.context - len(begin))
        answer = Answer(self.model, sets, most=most, source=source, **self.names)

        def rule(logs: Tensor, texts: list[list[int]]) -> Tensor:
            return self.allowed(logs, [text[len(begin) :] for text in texts], how)

        if temperature == 0:
            found = beam_search(answer, p.end, answer.room, Search(beams=how.beams), torch.tensor([begin]), rule)[0]
            ids, log = found.ids, found.log
        else:
            ids, log = self._drawn(answer, rule, begin, temperature)
        first = answer.prompt_scores(begin.index(p.start))[0].float().softmax(-1)
        text = self.decode([id for id in ids if id < p.timestamps])
        said = Said(ids, log / (len(ids) + 1), float(first[p.no_speech]), temperature, compression(text))
        return said, answer.source

    def _drawn(self, answer: Answer, rule, begin: list[int], temperature: float) -> tuple[list[int], float]:
        """A text drawn at random, and its log-probability."""
        ids, log = [], 0.0
        generator = torch.Generator(answer.device).manual_seed(len(begin))
        for _ in range(answer.room):
            scores = rule(answer.scores().float(), [begin + ids])
            id = torch.multinomial((scores[:1] / temperature).softmax(-1), 1, generator=generator)[0]
            log += float(scores[:1].log_softmax(-1)[0, id])
            if int(id) == self.protocol.end:
                break
            ids.append(int(id))
            answer.append(id)
        return ids, log

    def allowed(self, scores: Float[Tensor, "b v"], texts: list[list[int]], how: Transcribing) -> Float[Tensor, "b v"]:
        """The scores with everything that the protocol forbids at minus infinity.

        Timestamps come in pairs (one ends a segment, the next begins another), never go back, and come when together they
        are likelier than any other token.
        """
        p, scores = self.protocol, scores.clone()
        scores[:, list(p.suppressed)] = -torch.inf
        if not how.timestamps:
            first = [row for row, text in enumerate(texts) if not text]
            for row in first:
                scores[row, [*p.suppressed_first]] = -torch.inf
            return scores
        scores[:, p.no_timestamps] = -torch.inf
        for row, text in enumerate(texts):
            self._timed(scores[row], text)
        logs = scores.log_softmax(-1)
        likelier = logs[:, p.timestamps :].logsumexp(-1) > logs[:, : p.timestamps].amax(-1)
        scores[likelier, : p.timestamps] = -torch.inf
        return scores

    def _timed(self, scores: Float[Tensor, "v"], text: list[int]) -> None:
        p = self.protocol
        if not text:
            scores[[*p.suppressed_first]] = -torch.inf
            scores[: p.timestamps] = -torch.inf
            if p.latest_start is not None:
                scores[p.timestamps + p.latest_start + 1 :] = -torch.inf
            return
        last = text[-1] >= p.timestamps
        before = len(text) < 2 or text[-2] >= p.timestamps
        if last and before:
            scores[p.timestamps :] = -torch.inf
        elif last:
            scores[: p.end] = -torch.inf
        times = [id for id in text if id >= p.timestamps]
        if times:
            earliest = times[-1] if last and not before else times[-1] + 1
            scores[p.timestamps : earliest] = -torch.inf

    # ------------------------------------------------------------------------------------------------------ segments

    def cut(self, said: Said, offset: float, length: float, timed: bool) -> tuple[list[Segment], float]:
        """A window's text as segments, and how many of its seconds were heard: to the last timestamp where speech goes on."""
        p, ids = self.protocol, said.ids
        times = [id >= p.timestamps for id in ids]
        pairs = [n for n in range(1, len(ids)) if times[n - 1] and times[n]]
        if not timed or not pairs:
            last = next((self._seconds(id) for id in reversed(ids) if id >= p.timestamps and id != p.timestamps), None)
            end = length if last is None else last
            return self._segments([(0.0, end, ids)], offset, said), length
        ends_alone = len(ids) >= 2 and times[-1] and not times[-2]
        cuts = [*pairs, len(ids)] if ends_alone else pairs
        found, start = [], 0
        for cut in cuts:
            part = ids[start:cut]
            if part and part[0] >= p.timestamps and part[-1] >= p.timestamps:
                found.append((self._seconds(part[0]), self._seconds(part[-1]), part))
            start = cut
        heard = length if ends_alone else self._seconds(ids[pairs[-1] - 1])
        return self._segments(found, offset, said), heard

    def _seconds(self, id: int) -> float:
        return (id - self.protocol.timestamps) * STEP

    def _segments(self, parts: list[tuple[float, float, list[int]]], offset: float, said: Said) -> list[Segment]:
        found = []
        for start, end, ids in parts:
            text = self.decode([id for id in ids if id < self.protocol.timestamps])
            if text.strip() and end > start:
                found.append(Segment(round(offset + start, 2), round(offset + end, 2), text, said, ids))
        return found


def padded(window: Float[Tensor, "mels n"], frames: int) -> Float[Tensor, "mels {frames}"]:
    """A window with zeros behind it, up to this many frames."""
    return torch.nn.functional.pad(window, (0, frames - window.shape[1]))


def compression(text: str) -> float:
    """How many times smaller zlib makes a text: more than 2.4 times where it repeats itself."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))
