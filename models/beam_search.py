"""Beam search: keep the few best beginnings of every text and go on with all of them together.

The rules are those of transformers' `generate` (its `early_stopping=False`), to which outputs are tested to be equal: of the
2k best continuations those among the first k that end are finished, the k best of the others run on; a text is done when no
running beginning, at its present length, could still beat the worst of k finished ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .answer import Answer

NEVER = -1.0e9
"""The score of what must not be chosen."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a text is searched for. One beam without anything else is greedy: always the likeliest next token.

    A finished text of n tokens, its end included, is scored by its log-probability over n ** `length_penalty`. No run of
    `no_repeat` tokens occurs twice in a text (0: anything may).
    """

    beams: int = 1
    length_penalty: float = 1.0
    no_repeat: int = 0

    def __post_init__(self):
        if self.beams < 1 or self.no_repeat < 0:
            raise ValueError(
                f"beams must be at least 1 and no_repeat at least 0, not {self.beams} and {self.no_repeat}"
            )

    @property
    def greedy(self) -> bool:
        """Whether nothing is searched."""
        return self.beams == 1 and not self.no_repeat


class Found(NamedTuple):
    """A text that was searched for: its ids, without the end, and their log-probability, the end's included, among what was
    allowed."""

    ids: list[int]
    log: float


@torch.inference_mode()
def beam_search(
    answer: Answer, end: int, most: int, search: Search, prompt: Int[Tensor, "b p"],
    rule: Callable[[Tensor, list[list[int]]], Tensor] | None = None,
) -> list[Found]:  # fmt: skip
    """The best text of every row. `prompt` is what the rows begin with (it counts for `no_repeat` only); `most` is how many
    tokens are written at most, the end included; `rule` forbids: it gives log-probabilities (b, v) back with some at minus
    infinity, by what was written in each row (the others are not normalised again, as transformers does not)."""
    scores = answer.scores()
    beams, (rows, vocabulary) = search.beams, scores.shape
    found = [Found([], 0.0)] * rows
    texts = [Beams(prompt[row].tolist(), beams) for row in range(rows)]
    alive, device = list(range(rows)), scores.device
    running = torch.full((rows, beams), NEVER, device=device)
    running[:, 0] = 0.0
    answer.expand(beams)
    scores = scores.repeat_interleave(beams, dim=0)
    for length in range(1, most + 1):
        written = [beam for row in alive for beam in texts[row].ids]
        logs = torch.log_softmax(scores.float(), dim=-1)
        lost = [0.0] * len(written)
        if rule is not None:
            logs = rule(logs, written)
            lost = logs.logsumexp(-1).tolist()
        if search.no_repeat:
            forbid_repeats(logs, written, search.no_repeat)
        logs = (logs.view(len(alive), beams, vocabulary) + running[..., None]).view(len(alive), -1)
        values, places = logs.topk(min(2 * beams, logs.shape[1]))
        kept, parents, ids, chosen = [], [], [], []
        for index, (row, value, place) in enumerate(zip(alive, values.tolist(), places.tolist())):
            candidates = [(v, *divmod(p, vocabulary)) for v, p in zip(value, place)]
            texts[row].lose(lost[index * beams : (index + 1) * beams])
            going = texts[row].step(candidates, end, length, length == most, search.length_penalty)
            if going is None:
                found[row] = texts[row].best()
                continue
            kept.append(row)
            chosen.append([v for v, _, _ in going])
            parents += [index * beams + parent for _, parent, _ in going]
            ids += [id for _, _, id in going]
        if not kept:
            break
        sentences = [alive.index(row) for row in kept] if len(kept) < len(alive) else None
        answer.select(torch.tensor(parents), sentences)
        answer.append(torch.tensor(ids))
        running, alive = torch.tensor(chosen, device=device), kept
        scores = answer.scores()
    return found


class Beams:
    """The beginnings of one text that run on, and its finished ones with their scores."""

    def __init__(self, prompt: list[int], beams: int):
        self.prompt, self.beams = len(prompt), beams
        self.ids, self.lost = [prompt] * beams, [0.0] * beams
        self.finished: list[tuple[float, float, list[int]]] = []

    def lose(self, logs: list[float]) -> None:
        """Note how much of each beginning's next log-probability was forbidden."""
        self.lost = [before + now for before, now in zip(self.lost, logs)]

    def step(
        self, candidates: list[tuple[float, int, int]], end: int, length: int, last: bool, penalty: float
    ) -> list[tuple[float, int, int]] | None:
        """Take the best continuations (log-probability, beam, id), best first, that make texts of `length` tokens. Gives those
        that run on, or None when the text is done."""
        going = []
        for rank, (value, beam, id) in enumerate(candidates):
            ends = id == end
            if (ends or last) and rank < self.beams:
                text = self.ids[beam] + ([] if ends else [id])
                self.finished.append((value / length**penalty, value - self.lost[beam], text))
            elif not ends and not last:
                going.append((value, beam, id))
        self.finished = sorted(self.finished, key=lambda each: -each[0])[: self.beams]
        going = going[: self.beams]
        if last or not going:
            return None
        if len(self.finished) == self.beams and going[0][0] / length**penalty <= self.finished[-1][0]:
            return None
        going += [(NEVER, beam, id) for _, beam, id in going[:1]] * (self.beams - len(going))
        self.lost = [self.lost[beam] for _, beam, _ in going]
        self.ids = [self.ids[beam] + [id] for _, beam, id in going]
        return going

    def best(self) -> Found:
        """The best finished text, without its prompt."""
        _, log, ids = self.finished[0]
        return Found(ids[self.prompt :], log)


def forbid_repeats(logs: Float[Tensor, "b v"], texts: list[list[int]], size: int) -> None:
    """Rule out, in place, every id that would make a run of `size` ids occur a second time in its row's text."""
    for row, ids in enumerate(texts):
        ending = tuple(ids[len(ids) - size + 1 :]) if size > 1 else ()
        places = range(len(ids) - size + 1)
        banned = [ids[p + size - 1] for p in places if tuple(ids[p : p + size - 1]) == ending]
        if banned:
            logs[row, banned] = -torch.inf
