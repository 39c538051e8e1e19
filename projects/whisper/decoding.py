"""Whisper's decoding of one window: its special tokens, the rules for the next token, beam search and sampling.

The rules are those of OpenAI's own code (github.com/openai/whisper, `whisper/decoding.py`), to which texts and
log-probabilities are tested to be equal. transformers' `generate` has others: it does not renormalise the
probabilities that the rules leave (so that a text's log-probability is lower), divides by the length with the end
token, and goes on as long as some beginning could still beat the worst finished text. On silence that ends in long
repetitions."""

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
from ...models.generation.beam_search import Found, largest, seated
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
"""The code of each language by its name: `{"german": "de", ...}`."""


def code_of(language: str) -> str:
    """The code of a language given by its code, its name, or its token: `de` for `de`, `German`, `<|de|>`. What is none
    of these is given back in lower case, unchecked."""
    plain = language.removeprefix("<|").removesuffix("|>").lower()
    return CODES.get(plain, plain)


SHORTEST = 8
"""The shortest context, in tokens, that has room for the special ids that a text begins with."""


class Protocol(Published):
    """Whisper's special ids. Raises pydantic's ValidationError (a ValueError) for ids that are none, and a `language`
    that is none of `languages`."""

    start: Id
    end: Id
    transcribe: Id
    translate: Id
    previous: Id
    no_speech: Id
    no_timestamps: Id
    timestamps: Id
    """The id of the timestamp 0.00; later ones follow it."""
    languages: dict[str, Id] = {}
    """By code, such as `de`; empty for a model of English alone."""
    suppressed: list[Id] = []
    """Ids that are never generated."""
    suppressed_first: list[Id] = []
    """Ids that are never generated first."""
    latest_start: Annotated[int, Field(ge=0, lt=2**24)] | None = 50
    """The latest timestamp, in steps of 0.02 s, with which a window may begin (50: 1 s); None: any."""
    language: str | None = None
    """The code of the language that the model was tuned for; None: it is detected."""

    @model_validator(mode="after")
    def _tuned_for_a_known_language(self) -> Protocol:
        if self.language is not None and self.language not in self.languages:
            raise ValueError(f"the language {self.language!r} is none of its languages")
        return self

    @property
    def highest(self) -> int:
        """The highest of all these ids."""
        own = (self.start, self.end, self.transcribe, self.translate, self.previous, self.no_speech, self.no_timestamps)
        return max(*own, self.timestamps, *self.languages.values(), *self.suppressed, *self.suppressed_first)


class Said(NamedTuple):
    """The decoded text of one window."""

    ids: list[int]
    """Without the end, timestamps included."""
    log: float
    """Mean log-probability (nats) of its tokens, the end counted as one."""
    no_speech: float
    """The probability that nobody speaks."""
    temperature: float
    """That at which it was decoded."""
    compression: float
    """How many times smaller zlib makes the text."""


def compression(text: str) -> float:
    """How many times smaller zlib makes the UTF-8 of a text, without white space around it: a text that repeats itself
    reaches more than 2.4."""
    raw = text.strip().encode()
    return len(raw) / len(zlib.compress(raw))


# ------------------------------------------------------------------------------------------------- what may be said
# next


class Rules:
    """Masks, in every row of scores, the ids that Whisper's protocol does not allow next.

    Timestamps come in pairs (one ends a segment, the next begins another), never go back, and must come where all of
    them together are likelier than any other token. Without `timestamps` only suppressed ids are masked.
    """

    def __init__(self, protocol: Protocol, timestamps: bool, device: torch.device | str = "cpu"):
        self.protocol, self.timestamps = protocol, timestamps
        never = {*protocol.suppressed, *([protocol.no_timestamps] if timestamps else [])}
        self.never = torch.tensor(sorted(never), dtype=torch.long, device=device)
        self.never_first = torch.tensor(protocol.suppressed_first, dtype=torch.long, device=device)

    def __call__(self, scores: Float[Tensor, "b v"], texts: Sequence[Sequence[int]]) -> Float[Tensor, "b v"]:
        """The scores, in float32, with minus infinity for ids that are ruled out; `texts` holds the ids that each row
        has generated so far, equally many. May change the scores in place."""
        scores, zero = scores.float(), self.protocol.timestamps
        if not texts[0]:  # all rows are equally long
            scores.index_fill_(1, self.never_first, -torch.inf)
        scores.index_fill_(1, self.never, -torch.inf)
        if not self.timestamps:
            return scores
        for row, text in zip(scores, texts):
            for low, high in self._ruled_out(text):
                row[low:high] = -torch.inf
        likelier = scores[:, zero:].logsumexp(-1) > scores[:, :zero].amax(-1)
        scores[:, :zero].masked_fill_(likelier[:, None], -torch.inf)
        return scores

    def _ruled_out(self, text: Sequence[int]) -> list[tuple[int, int | None]]:
        """The ranges [low, high) of ids that may not follow a text; a high of None is the end of the vocabulary."""
        zero = self.protocol.timestamps
        if not text:  # begins with a timestamp, and not with a late one
            latest = self.protocol.latest_start
            return [(0, zero)] + ([] if latest is None else [(zero + latest + 1, None)])
        found: list[tuple[int, int | None]] = []
        ended = text[-1] >= zero
        begun = ended and (len(text) < 2 or text[-2] >= zero)
        if begun:  # a word must follow
            found.append((zero, None))
        elif ended:  # another timestamp must follow, or the end
            found.append((0, self.protocol.end))
        last = next((id for id in reversed(text) if id >= zero), None)
        if last is not None:  # a segment takes time; the next may begin when it ends
            found.append((zero, last if ended and not begun else last + 1))
        return found


# ------------------------------------------------------------------------------------------------- texts of one window


Candidate = Found
"""A possible text of a window: its ids without the end, and their log-probability among the ids that the rules allow
(with that of the end, where it has ended)."""


class Branch(NamedTuple):
    """One continuation of a text: the log-probability of the whole text, its row, and the next id."""

    log: float
    row: int
    id: int


def likeliest(candidates: Sequence[Candidate], length_penalty: float | None) -> Candidate:
    """The best text as `Transcribing.length_penalty` ranks them, the first one of equals. Lengths are without the
    end; an empty text counts as one token."""

    def score(candidate: Candidate) -> float:
        length = len(candidate.ids)
        return candidate.log / (max(length, 1) if length_penalty is None else ((5 + length) / 6) ** length_penalty)

    return max(candidates, key=score)


def scored(session: Session) -> Float[Tensor, "b v"]:
    """The scores of the next id of each row. Raises ValueError where the largest of a row is no finite number, as it is
    where one of them is NaN."""
    scores = session.scores()
    finite(scores.amax(-1))
    return scores


def searched(session: Session, rules: Rules, most: int, *, beams: int, patience: float = 1.0) -> list[Candidate]:
    """The texts that beam search finds: finished ones in the order in which they were met and then, where these
    are fewer than `beams`, those that ran on, best first.

    Every running text is continued with its `beams + 1` likeliest ids. Of all these texts, best first, those that
    end are finished, until `beams` others run on. The search is over with `round(beams * patience)` finished
    texts, whatever could still come, or after `most` tokens, the end included. Raises ValueError where there are
    no more ids than beams.
    """
    wanted, end = round(beams * patience), rules.protocol.end
    finished: list[Candidate] = []
    running, scores = Beams([[]], [0.0], [0]), scored(session)
    if scores.shape[1] <= beams:
        raise ValueError(f"{beams} beams are too many for {scores.shape[1]} ids")
    session.expand(beams)
    for length in range(1, most + 1):
        logs = rules(scores, running.texts).log_softmax(-1)
        ended, going = chosen(running.branches(logs, beams + 1), beams, end)
        finished += [Candidate(running.texts[branch.row], branch.log) for branch in ended][: wanted - len(finished)]
        running, parents = running.continued(going)
        if len(finished) >= wanted or length == most:
            break
        session.inherit(torch.tensor(parents))
        session.append(torch.tensor([text[-1] for text in running.texts]))
        scores = scored(session)
    return finished + running.candidates()[: max(0, beams - len(finished))]


class Beams(NamedTuple):
    """The unfinished texts of a beam search, by the row of the session that holds each."""

    texts: list[list[int]]
    logs: list[float]
    """Their log-probabilities."""
    order: list[int]
    """The rows, best first."""

    def branches(self, logs: Float[Tensor, "b v"], count: int) -> list[Branch]:
        """Each text's `count` likeliest continuations, from the log-probabilities of the next id."""
        values, ids = largest(logs, count)
        values = values + torch.tensor(self.logs, device=logs.device)[:, None]
        values, ids = torch.stack([values.double(), ids.double()]).tolist()  # one synchronisation; both stay exact
        return [Branch(log, row, int(id)) for row in self.order for log, id in zip(values[row], ids[row])]

    def continued(self, going: Sequence[Branch]) -> tuple[Beams, list[int]]:
        """The beams that these branches (best first) make, and the row that each row continues. The best branch of
        every row stays in its row, so that its cache need not be copied."""
        rows = seated(going)
        texts, order = [[*self.texts[branch.row], branch.id] for branch in rows], [rows.index(each) for each in going]
        return Beams(texts, [branch.log for branch in rows], order), [branch.row for branch in rows]

    def candidates(self) -> list[Candidate]:
        """All texts, best first; of equal ones the later first."""
        rows = sorted(self.order, key=lambda row: self.logs[row])[::-1]
        return [Candidate(self.texts[row], self.logs[row]) for row in rows]


def chosen(branches: Sequence[Branch], beams: int, end: int) -> tuple[list[Branch], list[Branch]]:
    """The branches that end a text and those that run on, best first, up to the last of `beams` that run on. An end
    of probability 0 is dropped."""
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


def drawn(
    session: Session, rules: Rules, most: int, *, temperature: float, count: int,
    generator: torch.Generator | None = None,
) -> list[Candidate]:  # fmt: skip
    """`count` texts drawn at random at this temperature (above 0), each of at most `most` tokens, the end included.
    Their log-probabilities are those at temperature 1. Raises ValueError for scores that are no finite numbers."""
    end, scores = rules.protocol.end, scored(session).repeat_interleave(count, dim=0)
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
        scores = scored(session)
    return [Candidate([*takewhile(lambda id: id != end, text)], log) for text, log in zip(texts, logs.tolist())]
