"""Beam search: keep the k best hypotheses of every text and extend all of them together.

The rules are those of transformers' `generate` (its `early_stopping=False`), to which outputs are tested to be equal:
of the 2k best continuations (3k where two ids end a text) those among the first k that end are finished, the k best
of the others run on; a text is done when no running hypothesis, at its present length, scores more than the worst of k
finished ones.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..arithmetic import NOT_FINITE
from .constraints import Allowed, Constraint
from .guidance import Guided
from .session import Session

NEVER = -1.0e9
"""The log-probability of a hypothesis that must not be chosen."""

MOST_BEAMS = 1000
"""The most beams: more cost memory for nothing, since the likeliest texts are among the first few."""

PIECE = 64
"""Scores per piece in `largest`: a maximum over a few vector registers."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a text is searched for. One beam without anything else is greedy: always the likeliest next token.

    `beams` is 1 to 1,000. A finished text of n tokens, its end included, is scored by its log-probability divided by
    n ** `length_penalty`, -10 to 10. No run of `no_repeat` tokens occurs twice in a text (0: any may). Raises
    ValueError for values outside these ranges.
    """

    beams: int = 1
    length_penalty: float = 1.0
    no_repeat: int = 0

    def __post_init__(self):
        if self.beams < 1 or self.no_repeat < 0:
            raise ValueError(
                f"beams must be at least 1 and no_repeat at least 0, not {self.beams} and {self.no_repeat}"
            )
        if self.beams > MOST_BEAMS:
            raise ValueError(f"beams must be at most {MOST_BEAMS:,}, not {self.beams:,}")
        if not -10 <= self.length_penalty <= 10:
            raise ValueError(f"length_penalty must be from -10 to 10, not {self.length_penalty}")

    @property
    def greedy(self) -> bool:
        """Whether nothing is searched: one beam, and repeats are allowed."""
        return self.beams == 1 and not self.no_repeat


class Found(NamedTuple):
    """The result for one text: its ids without prompt and end, and their log-probability (nats), the end's included."""

    ids: list[int]
    log: float


@torch.inference_mode()
def beam_search(
    session: Session | Guided, ends: Collection[int], most: int, search: Search, constraint: Constraint | None = None
) -> list[Found]:
    """The best continuation of every row of the session, whose prompt counts for `no_repeat` only. `ends` are the ids
    that end a text; `most` is the most tokens to generate, the end included; `constraint` says which ids may be
    generated. Raises ValueError where the model's scores are no finite numbers, or nothing may be generated."""
    scores = session.scores()
    beams, rows = search.beams, len(scores)
    found = [Found([], 0.0)] * rows
    texts = [Beams([id for id in row if id >= 0], beams) for row in session.ids.tolist()]
    alive, device, allowed = list(range(rows)), scores.device, Allowed(constraint)
    running = torch.full((rows, beams), NEVER, device=device)
    running[:, 0] = 0.0
    session.expand(beams)
    scores = scores.repeat_interleave(beams, dim=0)
    for length in range(1, most + 1):
        logs = log_probabilities(scores, [texts[row] for row in alive], search, allowed)
        kept, parents, ids, chosen = [], [], [], []
        for index, (row, candidates) in enumerate(zip(alive, continuations(logs, running, 1 + len(ends)))):
            if math.isnan(candidates[0][0]):  # NaN comes first of all
                raise ValueError(NOT_FINITE)
            if allowed:
                candidates = [each for each in candidates if each[0] > -torch.inf]
            if not candidates and not texts[row].finished:
                raise ValueError(
                    f"no_repeat {search.no_repeat} forbids every id that may follow the {length - 1} generated so far; "
                    "possible: a larger one, or 0"
                )
            going = texts[row].step(candidates, ends, length, length == most, search.length_penalty)
            if going is None:
                found[row] = texts[row].best()
                continue
            kept.append(index)
            chosen.append([v for v, _, _ in going])
            parents += [(len(kept) - 1) * beams + parent for _, parent, _ in going]
            ids += [id for _, _, id in going]
        if not kept:
            break
        if len(kept) < len(alive):
            session.keep(kept)
        session.inherit(torch.tensor(parents))
        session.append(torch.tensor(ids))
        running, alive = torch.tensor(chosen, device=device), [alive[index] for index in kept]
        scores = session.scores()
    return found


def log_probabilities(
    scores: Float[Tensor, "b v"], texts: Sequence[Beams], search: Search, allowed: Allowed
) -> Float[Tensor, "b v"]:
    """Those of the next id of every hypothesis of the running texts; minus infinity for what may not follow."""
    logs = torch.log_softmax(scores.float(), dim=-1)
    if allowed:
        logs = allowed.of(logs, [ids[text.prompt :] for text in texts for ids in text.ids])
    if search.no_repeat:
        forbid_repeats(logs, [ids for text in texts for ids in text.ids], search.no_repeat)
    return logs


class Beams:
    """The running hypotheses of one text, as ids with the prompt, and the finished ones as (score, log-probability,
    ids), best first."""

    def __init__(self, prompt: list[int], beams: int):
        self.prompt, self.beams = len(prompt), beams
        self.ids = [prompt] * beams
        self.finished: list[tuple[float, float, list[int]]] = []

    def step(
        self, candidates: list[tuple[float, int, int]], ends: Collection[int], length: int, last: bool, penalty: float
    ) -> list[tuple[float, int, int]] | None:
        """Take the best continuations (log-probability, beam, id), best first, which make texts of `length` tokens
        (the `last` step finishes all). Gives those that run on, one for each beam, or None when the text is done."""
        going = []
        for rank, (value, beam, id) in enumerate(candidates):
            if (id in ends or last) and rank < self.beams:
                text = self.ids[beam] + ([] if id in ends else [id])
                self.finished.append((value / length**penalty, value, text))
            elif id not in ends and not last:
                going.append((value, beam, id))
        self.finished = sorted(self.finished, key=lambda each: -each[0])[: self.beams]
        going = going[: self.beams]
        if last or not going:
            return None
        if len(self.finished) == self.beams and going[0][0] / length**penalty <= self.finished[-1][0]:
            return None
        going += [(NEVER, beam, id) for _, beam, id in going[:1]] * (self.beams - len(going))
        going = seated(going)
        self.ids = [self.ids[beam] + [id] for _, beam, id in going]
        return going

    def best(self) -> Found:
        """The best finished text, without its prompt."""
        _, log, ids = self.finished[0]
        return Found(ids[self.prompt :], log)


def continuations(
    logs: Float[Tensor, "b v"], running: Float[Tensor, "t k"], times: int
) -> list[list[tuple[float, int, int]]]:
    """The `times` * k best continuations of each of t texts, best first: (log-probability, beam, id). `running` are the
    log-probabilities of its k hypotheses, `logs` those of the next id after each (b = t * k rows)."""
    texts, beams = running.shape
    values, ids = largest(logs, min(times * beams, logs.shape[1]))
    each = values.shape[1]
    values = (values.view(texts, beams, each) + running[..., None]).flatten(1)
    values, slots = values.topk(min(times * beams, beams * each))
    ids = ids.view(texts, -1).gather(1, slots)
    rows = zip(values.tolist(), (slots // each).tolist(), ids.tolist())
    return [list(zip(*row)) for row in rows]


def seated(going: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    """The continuations (log-probability, beam, id), reordered so that each beam's first one keeps the row of its beam:
    its cached keys and values need not move."""
    first = {beam: each for each in reversed(going) for beam in [each[1]]}
    others = iter([each for each in going if first[each[1]] is not each])
    return [first[beam] if beam in first else next(others) for beam in range(len(going))]


def largest(scores: Float[Tensor, "b v"], count: int) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The `count` largest of every row, largest first, and their columns: `topk`, which on a CPU takes twice as long.

    Each row is cut into pieces; the largest scores are in the `count` pieces with the largest maxima.
    """
    rows, width = scores.shape
    if not scores.is_cpu or width < 2 * PIECE * count:
        return scores.topk(count)
    whole = width - width % PIECE
    chosen = scores[:, :whole].view(rows, -1, PIECE).amax(-1).topk(count).indices
    slots = (chosen[..., None] * PIECE + torch.arange(PIECE)).flatten(1)
    slots = torch.cat([slots, torch.arange(whole, width).expand(rows, -1)], dim=1)
    values, found = scores.gather(1, slots).topk(count)
    return values, slots.gather(1, found)


def forbid_repeats(logs: Float[Tensor, "b v"], texts: list[list[int]], size: int) -> None:
    """Set the log-probability of every id that would repeat a run of `size` ids of its row's text to minus infinity, in
    place."""
    for row, ids in enumerate(texts):
        ending = tuple(ids[len(ids) - size + 1 :]) if size > 1 else ()
        slots = range(len(ids) - size + 1)
        banned = [ids[p + size - 1] for p in slots if tuple(ids[p : p + size - 1]) == ending]
        if banned:
            logs[row, banned] = -torch.inf
