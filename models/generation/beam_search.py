"""Beam search keeps the k best hypotheses of every text and extends all of them together.

The rules are those of `generate` in transformers with `early_stopping=False`; tests compare the outputs. In each step
the (1 + e) k best continuations of a text are computed, where e is the number of ids that end a text. Continuations
that end the text become finished hypotheses if they are among the k best. The k best continuations that do not end the
text become the running hypotheses. A text is complete when it has k finished hypotheses, and no running hypothesis has,
at its current length, a higher score than the worst finished hypothesis.
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
"""A log-probability so low that a hypothesis with it is never chosen."""

MOST_BEAMS = 1000
"""The maximum number of beams. More beams would only cost memory: the most likely texts are among the first few."""

PIECE = 64
"""The number of scores per piece in `largest`. The maximum of a piece is computed in a few vector registers."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """Options of beam search. The defaults are greedy decoding, which always chooses the most likely next token.

    `beams` (1 to 1,000) is the number of hypotheses per text. The score of a finished text of n tokens, including the
    end, is the log-probability of the text divided by n ** `length_penalty` (-10 to 10). No sequence of `no_repeat`
    tokens occurs twice in a text, including the prompt; 0: no restriction. Raises ValueError for values outside these
    ranges.
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
        """Whether these options are greedy decoding: `beams` is 1 and `no_repeat` is 0."""
        return self.beams == 1 and not self.no_repeat


class Hypothesis(NamedTuple):
    """The result for one text: its ids without prompt and end, and the log-probability `log` of ids and end in nats."""

    ids: list[int]
    log: float


@torch.inference_mode()
def beam_search(
    session: Session | Guided, ends: Collection[int], most: int, search: Search, constraint: Constraint | None = None
) -> list[Hypothesis]:
    """Returns the best continuation of every row of the session, one `Hypothesis` per row. `ends` are the ids that
    end a text, `most` is the maximum number of generated tokens, including the end, and `constraint` restricts the
    generated ids. `no_repeat` also applies to the ids of the prompt. Raises ValueError if the model's scores are NaN or
    infinite, or if no id is allowed next."""
    scores = session.scores()
    beams, rows = search.beams, len(scores)
    results = [Hypothesis([], 0.0)] * rows
    texts = [Beams([id for id in row if id >= 0], beams) for row in session.ids.tolist()]
    active, device, allowed = list(range(rows)), scores.device, Allowed(constraint)
    running = torch.full((rows, beams), NEVER, device=device)
    running[:, 0] = 0.0
    session.expand(beams)
    scores = scores.repeat_interleave(beams, dim=0)
    for length in range(1, most + 1):
        logs = log_probabilities(scores, [texts[row] for row in active], search, allowed)
        kept, parents, ids, chosen = [], [], [], []
        for index, (row, candidates) in enumerate(zip(active, continuations(logs, running, 1 + len(ends)))):
            if math.isnan(candidates[0][0]):  # NaN is sorted first
                raise ValueError(NOT_FINITE)
            if allowed:
                candidates = [candidate for candidate in candidates if candidate[0] > -torch.inf]
            if not candidates and not texts[row].finished:
                raise ValueError(
                    f"no_repeat {search.no_repeat} forbids all ids that are allowed after the {length - 1} generated "
                    "so far; use a larger no_repeat, or 0"
                )
            continuing = texts[row].step(candidates, ends, length, length == most, search.length_penalty)
            if continuing is None:
                results[row] = texts[row].best()
                continue
            kept.append(index)
            chosen.append([v for v, _, _ in continuing])
            parents += [(len(kept) - 1) * beams + parent for _, parent, _ in continuing]
            ids += [id for _, _, id in continuing]
        if not kept:
            break
        if len(kept) < len(active):
            session.keep(kept)
        session.inherit(torch.tensor(parents))
        session.append(torch.tensor(ids))
        running, active = torch.tensor(chosen, device=device), [active[index] for index in kept]
        scores = session.scores()
    return results


def log_probabilities(
    scores: Float[Tensor, "b v"], texts: Sequence[Beams], search: Search, allowed: Allowed
) -> Float[Tensor, "b v"]:
    """Returns the log-probabilities of all next ids, one row for each hypothesis of the running texts; minus infinity
    for ids that `allowed` or `no_repeat` excludes. `scores` are logits, with the same rows."""
    logs = torch.log_softmax(scores.float(), dim=-1)
    if allowed:
        logs = allowed.of(logs, [ids[text.prompt :] for text in texts for ids in text.ids])
    if search.no_repeat:
        forbid_repeats(logs, [ids for text in texts for ids in text.ids], search.no_repeat)
    return logs


class Beams:
    """The hypotheses of one text. `ids` are the running hypotheses, each with the ids of the prompt. `finished` are the
    finished hypotheses (score, log-probability, ids with the prompt), best first. `prompt` is the length of the
    prompt."""

    def __init__(self, prompt: list[int], beams: int):
        self.prompt, self.beams = len(prompt), beams
        self.ids = [prompt] * beams
        self.finished: list[tuple[float, float, list[int]]] = []

    def step(
        self, candidates: list[tuple[float, int, int]], ends: Collection[int], length: int, last: bool, penalty: float
    ) -> list[tuple[float, int, int]] | None:
        """Updates the hypotheses with `candidates`, the best continuations (log-probability, beam, id), best first.
        `length` is the number of generated tokens after this step. In the `last` step the continuations end even
        without an end id. Returns the continuations of the running hypotheses, one per beam, or None if the text is
        complete."""
        continuing = []
        for rank, (value, beam, id) in enumerate(candidates):
            if (id in ends or last) and rank < self.beams:
                text = self.ids[beam] + ([] if id in ends else [id])
                self.finished.append((value / length**penalty, value, text))
            elif id not in ends and not last:
                continuing.append((value, beam, id))
        self.finished = sorted(self.finished, key=lambda hypothesis: -hypothesis[0])[: self.beams]
        continuing = continuing[: self.beams]
        if last or not continuing:
            return None
        if len(self.finished) == self.beams and continuing[0][0] / length**penalty <= self.finished[-1][0]:
            return None
        continuing += [(NEVER, beam, id) for _, beam, id in continuing[:1]] * (self.beams - len(continuing))
        continuing = seated(continuing)
        self.ids = [self.ids[beam] + [id] for _, beam, id in continuing]
        return continuing

    def best(self) -> Hypothesis:
        """Returns the best finished text, without its prompt."""
        _, log, ids = self.finished[0]
        return Hypothesis(ids[self.prompt :], log)


def continuations(
    logs: Float[Tensor, "b v"], running: Float[Tensor, "t k"], times: int
) -> list[list[tuple[float, int, int]]]:
    """Returns for each of t texts its `times` * k best continuations (log-probability, beam, id), best first. `running`
    has the log-probabilities of the k hypotheses of each text. `logs` has the log-probabilities of the next id, one row
    for each hypothesis (b = t * k)."""
    texts, beams = running.shape
    values, ids = largest(logs, min(times * beams, logs.shape[1]))
    per_beam = values.shape[1]
    values = (values.view(texts, beams, per_beam) + running[..., None]).flatten(1)
    values, columns = values.topk(min(times * beams, beams * per_beam))
    ids = ids.view(texts, -1).gather(1, columns)
    rows = zip(values.tolist(), (columns // per_beam).tolist(), ids.tolist())
    return [list(zip(*row)) for row in rows]


def seated(continuing: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    """Returns the continuations (log-probability, beam, id) in another order: the first continuation of each beam is at
    the row of this beam. Then the cached keys and values of these rows need not be copied."""
    first = {beam: candidate for candidate in reversed(continuing) for beam in [candidate[1]]}
    others = iter([candidate for candidate in continuing if first[candidate[1]] is not candidate])
    return [first[beam] if beam in first else next(others) for beam in range(len(continuing))]


def largest(scores: Float[Tensor, "b v"], count: int) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """Returns (values, columns): the `count` largest values of every row, largest first, and their columns. On a CPU
    this takes half the time of `topk`: each row is cut into pieces of `PIECE` scores, and the largest scores are all in
    the `count` pieces with the largest maxima."""
    rows, width = scores.shape
    if not scores.is_cpu or width < 2 * PIECE * count:
        return scores.topk(count)
    divisible = width - width % PIECE
    pieces = scores[:, :divisible].view(rows, -1, PIECE).amax(-1).topk(count).indices
    columns = (pieces[..., None] * PIECE + torch.arange(PIECE)).flatten(1)
    columns = torch.cat([columns, torch.arange(divisible, width).expand(rows, -1)], dim=1)
    values, best = scores.gather(1, columns).topk(count)
    return values, columns.gather(1, best)


def forbid_repeats(logs: Float[Tensor, "b v"], texts: list[list[int]], size: int) -> None:
    """Sets log-probabilities to minus infinity, in place, for every id that would repeat a sequence of `size` ids. Row
    i of `logs` belongs to the text with the ids `texts[i]`."""
    for row, ids in enumerate(texts):
        ending = tuple(ids[len(ids) - size + 1 :]) if size > 1 else ()
        starts = range(len(ids) - size + 1)
        banned = [ids[p + size - 1] for p in starts if tuple(ids[p : p + size - 1]) == ending]
        if banned:
            logs[row, banned] = -torch.inf
