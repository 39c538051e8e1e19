"""Whisper's decoding of one window: special tokens, rules for the next token, beam search and sampling.

The rules are those of OpenAI's code (github.com/openai/whisper, `whisper/decoding.py`); tests compare the texts and
log-probabilities with the results of this code. The method `generate` of transformers uses other rules. It does not
renormalize the probabilities of the allowed tokens, so its log-probabilities are lower. It divides log-probabilities by
a length that includes the end token. It continues as long as an unfinished text can become better than the worst
finished text, which causes long repetitions on silence."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from ...models.arithmetic import finite
from ...models.generation.beam_search import Hypothesis, largest, seated
from ...models.generation.session import Session
from ...models.pretrained.base import Id, Published

NAMES = """
afrikaans af, albanian sq, amharic am, arabic ar, armenian hy, assamese as, azerbaijani az, bashkir ba, basque eu,
belarusian be, bengali bn, bosnian bs, breton br, bulgarian bg, cantonese yue, catalan ca, chinese zh, croatian hr,
czech cs, danish da, dutch nl, english en, estonian et, faroese fo, finnish fi, french fr, galician gl, georgian ka,
german de, greek el, gujarati gu, haitian creole ht, hausa ha, hawaiian haw, hebrew he, hindi hi, hungarian hu,
icelandic is, indonesian id, italian it, japanese ja, javanese jw, kannada kn, kazakh kk, khmer km, korean ko, lao lo,
latin la, latvian lv, lingala ln, lithuanian lt, luxembourgish lb, macedonian mk, malagasy mg, malay ms, malayalam ml,
maltese mt, maori mi, marathi mr, mongolian mn, myanmar my, nepali ne, norwegian no, nynorsk nn, occitan oc, pashto ps,
persian fa, polish pl, portuguese pt, punjabi pa, romanian ro, russian ru, sanskrit sa, serbian sr, shona sn, sindhi sd,
sinhala si, slovak sk, slovenian sl, somali so, spanish es, sundanese su, swahili sw, swedish sv, tagalog tl, tajik tg,
tamil ta, tatar tt, telugu te, thai th, tibetan bo, turkish tr, turkmen tk, ukrainian uk, urdu ur, uzbek uz, vietnamese
vi, welsh cy, yiddish yi, yoruba yo, burmese my, castilian es, flemish nl, haitian ht, letzeburgesch lb, mandarin zh,
moldavian ro, moldovan ro, panjabi pa, pushto ps, sinhalese si, valencian ca
"""
CODES = {" ".join(words[:-1]): words[-1] for words in map(str.split, NAMES.split(","))}
"""The language codes by name: `{"german": "de", ...}`."""


def code_of(language: str) -> str:
    """Returns the code of a language. The code, the English name and the token are accepted: `de` is returned for `de`,
    `German` and `<|de|>`. Any other text is returned in lower case without a check."""
    plain = language.removeprefix("<|").removesuffix("|>").lower()
    return CODES.get(plain, plain)


SHORTEST = 8
"""The minimum context length of the model in tokens. The special ids at the beginning of a text must fit into the
context."""


class Protocol(Published):
    """Whisper's special ids. Raises pydantic's ValidationError (a ValueError) if a value has a wrong type or is out of
    range, or if `language` is not a key of `languages`."""

    start: Id
    end: Id
    transcribe: Id
    translate: Id
    previous: Id
    no_speech: Id
    no_timestamps: Id
    timestamps: Id
    """The id of the timestamp 0.00. The ids of the later timestamps follow this id."""
    languages: dict[str, Id] = {}
    """The ids of the languages by code, such as `de`. Empty for a model that supports only English."""
    suppressed: list[Id] = []
    """Ids that are never generated."""
    suppressed_first: list[Id] = []
    """Ids that are never generated as the first id."""
    latest_start: Annotated[int, Field(ge=0, lt=2**24)] | None = 50
    """The maximum first timestamp of a window, in steps of 0.02 s (50: 1 s). None: no limit."""
    language: str | None = None
    """The code of the language for which the model was fine-tuned. None: the language is detected."""

    @model_validator(mode="after")
    def _language_is_listed(self) -> Protocol:
        if self.language is not None and self.language not in self.languages:
            raise ValueError(f"the language {self.language!r} is not in its languages")
        return self

    @property
    def highest(self) -> int:
        """The largest of all special ids, including the suppressed ids."""
        ids = (self.start, self.end, self.transcribe, self.translate, self.previous, self.no_speech, self.no_timestamps)
        return max(*ids, self.timestamps, *self.languages.values(), *self.suppressed, *self.suppressed_first)


class Decoding(NamedTuple):
    """The decoded text of one window."""

    ids: list[int]
    """The ids of the text, including timestamps, without the end."""
    log: float
    """The mean log-probability of the ids in nats. The end is counted as one of the ids."""
    no_speech: float
    """The probability that the window contains no speech."""
    temperature: float
    """The temperature at which the text was decoded."""
    compression: float
    """The zlib compression ratio of the text (see the function `compression`)."""


def compression(text: str) -> float:
    """Returns the zlib compression ratio of the text in UTF-8 without surrounding white space: the number of bytes
    divided by the number of compressed bytes. A ratio above 2.4 usually means that the text is repetitive."""
    raw = text.strip().encode()
    return len(raw) / len(zlib.compress(raw))


# ------------------------------------------------------------------------------------------------------ allowed tokens


class Rules:
    """Sets the scores of all ids that Whisper's protocol does not allow as the next id to minus infinity.

    Timestamps occur in pairs (the first ends a segment, the second begins the next segment) and never decrease. A
    timestamp is forced if the sum of the probabilities of all timestamps is larger than the probability of every other
    token. If `timestamps` is False, only suppressed ids are masked."""

    def __init__(self, protocol: Protocol, timestamps: bool, device: torch.device | str = "cpu"):
        self.protocol, self.timestamps = protocol, timestamps
        never = {*protocol.suppressed, *([protocol.no_timestamps] if timestamps else [])}
        self.never = torch.tensor(sorted(never), dtype=torch.long, device=device)
        self.never_first = torch.tensor(protocol.suppressed_first, dtype=torch.long, device=device)

    def __call__(self, scores: Float[Tensor, "b v"], texts: Sequence[Sequence[int]]) -> Float[Tensor, "b v"]:
        """Returns the scores in float32, with minus infinity for ids that are not allowed. `texts` contains the ids
        that were generated so far in each row; all rows have the same length. The argument `scores` may be changed in
        place."""
        scores, zero = scores.float(), self.protocol.timestamps
        if not texts[0]:  # all rows have equal length
            scores.index_fill_(1, self.never_first, -torch.inf)
        scores.index_fill_(1, self.never, -torch.inf)
        if not self.timestamps:
            return scores
        for row, text in zip(scores, texts):
            for low, high in self._forbidden_ranges(text):
                row[low:high] = -torch.inf
        forced = scores[:, zero:].logsumexp(-1) > scores[:, :zero].amax(-1)
        scores[:, :zero].masked_fill_(forced[:, None], -torch.inf)
        return scores

    def _forbidden_ranges(self, text: Sequence[int]) -> list[tuple[int, int | None]]:
        """Returns the ranges [low, high) of ids that must not follow a text. If `high` is None, the range extends to
        the end of the vocabulary."""
        zero = self.protocol.timestamps
        if not text:  # the first id is a timestamp that is not late
            latest = self.protocol.latest_start
            return [(0, zero)] + ([] if latest is None else [(zero + latest + 1, None)])
        ranges: list[tuple[int, int | None]] = []
        ended = text[-1] >= zero
        begun = ended and (len(text) < 2 or text[-2] >= zero)
        if begun:  # a text token must follow
            ranges.append((zero, None))
        elif ended:  # the next token must be a timestamp or the end token
            ranges.append((0, self.protocol.end))
        last = next((id for id in reversed(text) if id >= zero), None)
        if last is not None:  # a segment has a positive length; the next may begin at its end
            ranges.append((zero, last if ended and not begun else last + 1))
        return ranges


# ------------------------------------------------------------------------------------------------- decoding of a window


Candidate = Hypothesis
"""A candidate for the text of a window: its ids without the end, and the sum of the log-probabilities of its ids,
renormalized over the allowed ids. If the text has ended, the log-probability of the end is included."""


class Branch(NamedTuple):
    """A continuation of an unfinished text: the log-probability of the continued text, the row of the unfinished text,
    and the next id."""

    log: float
    row: int
    id: int


def likeliest(candidates: Sequence[Candidate], length_penalty: float | None) -> Candidate:
    """Returns the candidate with the highest score. If several have this score, returns the first of them. The score is
    the log-probability divided by a function of the length (see `Transcribing.length_penalty`). The length does not
    include the end. If `length_penalty` is None, an empty text has length 1."""

    def score(candidate: Candidate) -> float:
        length = len(candidate.ids)
        return candidate.log / (max(length, 1) if length_penalty is None else ((5 + length) / 6) ** length_penalty)

    return max(candidates, key=score)


def finite_scores(session: Session) -> Float[Tensor, "b v"]:
    """Returns the scores of the next id of each row. Raises ValueError if the maximum of a row is infinite or NaN."""
    scores = session.scores()
    finite(scores.amax(-1))
    return scores


def search_texts(session: Session, rules: Rules, most: int, *, beams: int, patience: float = 1.0) -> list[Candidate]:
    """Returns the texts of a beam search: the finished texts in the order in which they ended. If there are fewer than
    `beams` finished texts, the best unfinished texts follow, best first, up to `beams` texts in total.

    Each step computes the `beams + 1` most likely continuations of every unfinished text. The continuations are taken
    in the order of their log-probability, until `beams` continuations without the end have been taken. Continuations
    with the end are finished texts. The search ends when `round(beams * patience)` texts are finished, or after `most`
    tokens including the end. Raises ValueError if the vocabulary is not larger than `beams`."""
    wanted, end = round(beams * patience), rules.protocol.end
    finished: list[Candidate] = []
    running, scores = Beams([[]], [0.0], [0]), finite_scores(session)
    if scores.shape[1] <= beams:
        raise ValueError(f"{beams} beams are too many for a vocabulary of {scores.shape[1]} ids")
    session.expand(beams)
    for length in range(1, most + 1):
        logs = rules(scores, running.texts).log_softmax(-1)
        ended, going = select(running.branches(logs, beams + 1), beams, end)
        finished += [Candidate(running.texts[branch.row], branch.log) for branch in ended][: wanted - len(finished)]
        running, parents = running.continued(going)
        if len(finished) >= wanted or length == most:
            break
        session.inherit(torch.tensor(parents))
        session.append(torch.tensor([text[-1] for text in running.texts]))
        scores = finite_scores(session)
    return finished + running.candidates()[: max(0, beams - len(finished))]


class Beams(NamedTuple):
    """The unfinished texts of a beam search. Each text is in one row of the session."""

    texts: list[list[int]]
    logs: list[float]
    """The log-probabilities of the texts."""
    order: list[int]
    """The numbers of the rows, in descending order of the log-probability."""

    def branches(self, logs: Float[Tensor, "b v"], count: int) -> list[Branch]:
        """Returns the `count` most likely continuations of each text. `logs` contains the log-probabilities of the next
        id."""
        values, ids = largest(logs, count)
        values = values + torch.tensor(self.logs, device=logs.device)[:, None]
        values, ids = torch.stack(
            [values.double(), ids.double()]
        ).tolist()  # one synchronization; float64 is exact for both
        return [Branch(log, row, int(id)) for row in self.order for log, id in zip(values[row], ids[row])]

    def continued(self, going: Sequence[Branch]) -> tuple[Beams, list[int]]:
        """Returns the beams after the continuations `going` (best first), and for each new row the row of its previous
        text. The best continuation of every row stays in this row, which means that its cache does not have to be
        copied."""
        rows = seated(going)
        texts, order = (
            [[*self.texts[branch.row], branch.id] for branch in rows],
            [rows.index(branch) for branch in going],
        )
        return Beams(texts, [branch.log for branch in rows], order), [branch.row for branch in rows]

    def candidates(self) -> list[Candidate]:
        """Returns all texts, best first. If two texts have the same log-probability, the later text is first."""
        rows = sorted(self.order, key=lambda row: self.logs[row])[::-1]
        return [Candidate(self.texts[row], self.logs[row]) for row in rows]


def select(branches: Sequence[Branch], beams: int, end: int) -> tuple[list[Branch], list[Branch]]:
    """Returns (continuations with the end, continuations without the end), best first. The second list contains the
    best `beams` continuations. Continuations with the end are dropped if they are less likely than all of these, or if
    their probability is 0."""
    ended: list[Branch] = []
    going: list[Branch] = []
    for branch in sorted(branches, key=lambda branch: -branch.log):
        if branch.id != end:
            going.append(branch)
        elif branch.log > -torch.inf:
            ended.append(branch)
        if len(going) == beams:
            break
    return ended, going


def sample_texts(
    session: Session, rules: Rules, most: int, *, temperature: float, count: int,
    generator: torch.Generator | None = None,
) -> list[Candidate]:  # fmt: skip
    """Draws `count` texts at a temperature above 0. A text has at most `most` tokens including the end. The
    log-probabilities in the result are computed at temperature 1. Raises ValueError if the maximum score of a row is
    infinite or NaN."""
    end, scores = rules.protocol.end, finite_scores(session).repeat_interleave(count, dim=0)
    session.expand(count)
    texts: list[list[int]] = [[] for _ in range(count)]
    logs, over = scores.new_zeros(count, dtype=torch.float32), scores.new_zeros(count, dtype=torch.bool)
    for length in range(1, most + 1):
        scores = rules(scores, texts)
        shares = ((scores - scores.amax(-1, keepdim=True)) / temperature).softmax(-1)
        ids = torch.multinomial(shares, 1, generator=generator)
        logs += scores.log_softmax(-1).gather(1, ids)[:, 0].masked_fill(over, 0.0)
        ids = ids[:, 0].masked_fill(over, end)
        over = ids == end
        for text, id in zip(texts, ids.tolist()):
            text.append(id)
        if length == most or all(text[-1] == end for text in texts):
            break
        session.append(ids)
        scores = finite_scores(session)
    return [Candidate([*takewhile(lambda id: id != end, text)], log) for text, log in zip(texts, logs.tolist())]
