"""Sampling: draws the next id of every row from the scores of the row, and thus generates texts token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..arithmetic import NOT_FINITE
from .constraints import Allowed
from .guidance import Guided
from .session import Session


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Options for drawing an id from the scores (logits) of a row. They are applied in the order repetition_penalty,
    temperature, top_k, top_p, min_p. Raises ValueError if an option is outside its range."""

    temperature: float = 1.0
    """The number by which the scores are divided, 1e-6 to 1e6. 0: the id with the highest score is always chosen."""
    top_k: int | None = None
    """Only the `top_k` ids with the highest scores are drawn; at least 1. null: no restriction."""
    top_p: float | None = None
    """Only the most likely ids are drawn: the smallest set whose total probability is at least `top_p`, above 0 and at
    most 1 (Holtzman et al. 2019, arXiv:1904.09751). null: no restriction."""
    min_p: float | None = None
    """Only ids are drawn whose probability is at least `min_p` times the highest probability, 0 to 1
    (arXiv:2407.01082). null: no restriction."""
    repetition_penalty: float = 1.0
    """Changes the scores of ids that occur earlier in the row: a positive score is divided by this value, any other
    score is multiplied by it. 0.001 to 1,000; 1: no change (Keskar et al. 2019, arXiv:1909.05858)."""

    def __post_init__(self):
        limits = {
            "temperature": (self.temperature == 0 or 1e-6 <= self.temperature <= 1e6, "0, or from 1e-6 to 1e6"),
            "top_k": (self.top_k is None or self.top_k >= 1, "at least 1"),
            "top_p": (self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (self.min_p is None or 0 <= self.min_p <= 1, "between 0 and 1"),
            "repetition_penalty": (1e-3 <= self.repetition_penalty <= 1e3, "from 0.001 to 1000"),
        }
        for name, (valid, possible) in limits.items():
            if not valid:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {possible}")

    def choose(
        self, scores: Float[Tensor, "b v"], previous: Int[Tensor, "b n"], uniform: Float[Tensor, "b"] | None = None
    ) -> Int[Tensor, "b"]:
        """Returns one id per row; -1 if the highest score of a row is infinite, or one of its scores is NaN. `previous`
        has the ids of each row to which the repetition penalty applies; negative numbers are ignored. `uniform` has a
        random number for each row, at least 0 and below 1: the id is the first one at which the sum of the
        probabilities exceeds it. The id of a row therefore does not depend on other rows. None: numbers of torch's
        generator."""
        if self.repetition_penalty != 1:
            scores = self._penalised(scores, previous)
        ids = scores.argmax(dim=-1)
        best = scores.gather(1, ids[:, None])  # NaN if one of the scores is NaN
        if self.temperature == 0:
            return ids.where(best[:, 0].abs() < torch.inf, -1)
        return self._drawn(scores, best, uniform)

    def _drawn(
        self, scores: Float[Tensor, "b v"], best: Float[Tensor, "b 1"], uniform: Float[Tensor, "b"] | None
    ) -> Int[Tensor, "b"]:
        relative = (scores.float() - best.float()) / self.temperature  # at most 0, so that exp cannot overflow
        probabilities = torch.softmax(self._filtered(relative), dim=-1)
        sums = probabilities.double().cumsum(-1)
        uniform = torch.rand(len(sums), dtype=torch.float64) if uniform is None else uniform
        drawn = uniform.to(sums.device, torch.float64, non_blocking=True)[:, None] * sums[:, -1:]
        ids = torch.searchsorted(sums, drawn, right=True)[:, 0].clamp(max=sums.shape[1] - 1)
        return ids.masked_fill(probabilities[:, 0].isnan(), -1)  # one NaN score makes its complete row NaN

    def _penalised(self, scores: Tensor, previous: Tensor) -> Tensor:
        repeated = torch.zeros_like(scores, dtype=torch.bool)
        previous = previous.to(scores.device, non_blocking=True)
        repeated.scatter_(1, previous.clamp(min=0), previous >= 0)
        penalty = self.repetition_penalty
        return torch.where(repeated, torch.where(scores > 0, scores / penalty, scores * penalty), scores)

    def _filtered(self, scores: Tensor) -> Tensor:
        """Returns the scores with minus infinity for the ids that top_k, top_p or min_p excludes."""
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            scores = scores.masked_fill(scores < scores.topk(self.top_k).values[:, -1:], -torch.inf)
        if self.top_p is not None and self.top_p < 1:
            scores = scores.masked_fill(self._outside_nucleus(scores), -torch.inf)
        return scores if self.min_p is None else self._likely(scores, self.min_p)

    def _likely(self, scores: Tensor, share: float) -> Tensor:
        probabilities = scores.softmax(dim=-1)
        best = probabilities.amax(dim=-1, keepdim=True)
        return scores.masked_fill(probabilities < share * best, -torch.inf)

    def _outside_nucleus(self, scores: Tensor) -> Tensor:
        """Returns a mask of the ids that top_p excludes. The most likely id is never excluded, even for a very small
        top_p."""
        ordered, order = scores.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(dim=-1)
        preceding = probabilities.cumsum(dim=-1) - probabilities
        excluded = (preceding >= self.top_p) & (preceding > 0)
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, excluded)


SEEDS = -(2**63), 2**64 - 1
"""The smallest and the largest seed of a `torch.Generator`."""


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Returns a new random number generator on a device, with this seed. Raises ValueError if the seed is not an
    integer from -2**63 to 2**64 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not SEEDS[0] <= seed <= SEEDS[1]:
        raise ValueError(f"the seed must be an integer from -2**63 to 2**64 - 1, not {seed!r}")
    return torch.Generator(device).manual_seed(seed)


AHEAD = 64
"""The number of random numbers that are drawn at once for a row."""


class Streams:
    """A stream of random numbers for each of several rows. The numbers of a row depend only on its generator, not on
    the other rows. They are drawn on the CPU, so that a seed draws the same ids on a CPU and on a GPU."""

    def __init__(self, generators: Sequence[torch.Generator]):
        self.generators, self.ahead = list(generators), torch.empty(len(generators), 0, dtype=torch.float64)

    @classmethod
    def of(cls, rows: int, seed: int | None = None) -> Streams:
        """Returns streams with the seeds `seed`, `seed` + 1, ...; None: with seeds of torch's generator."""
        first = int(torch.randint(2**62, ())) if seed is None else seed
        return cls([seeded(first + row) for row in range(rows)])

    def _several(self, counts: Sequence[int]) -> Float[Tensor, "m"]:
        pairs = zip(counts, self.generators, strict=True)
        parts = [torch.rand(count, generator=generator, dtype=torch.float64) for count, generator in pairs]
        return torch.cat([torch.empty(0, dtype=torch.float64), *parts])

    def normal(self, count: int) -> Float[Tensor, "r c"]:
        """Returns the next `count` numbers of each row from a normal distribution with mean 0 and variance 1."""
        rows = [torch.randn(count, generator=generator) for generator in self.generators]
        return torch.stack(rows) if rows else torch.empty(0, count)

    def uniform(self, counts: Sequence[int] | None = None) -> Float[Tensor, "m"]:
        """Returns the next numbers, at least 0 and below 1: one for each row, or `counts[row]` for each row, in the
        order of the rows."""
        if counts is not None:
            return self._several(counts)
        if not self.ahead.shape[1]:
            rows = [torch.rand(AHEAD, generator=generator, dtype=torch.float64) for generator in self.generators]
            self.ahead = torch.stack(rows) if rows else self.ahead
        following, self.ahead = self.ahead[:, 0], self.ahead[:, 1:]
        return following


def draw(
    session: Session | Guided, most: int, sampling: Sampling = Sampling(), streams: Streams | None = None,
    allowed: Allowed = Allowed(),
) -> Iterator[Int[Tensor, "b"]]:  # fmt: skip
    """Generates text. Yields `most` times the next id of every row, on the CPU; the caller may stop earlier. All ids
    except the last are appended to the session. Only ids that `allowed` permits are drawn. `streams` has the random
    numbers of each row (None: each call draws other ids). Raises ValueError if the model's scores are NaN or infinite,
    or if no id is allowed in a row."""
    streams = streams or Streams.of(len(session.ids))
    prompt_length = session.ids.shape[1]
    for number in range(most):
        scores = session.scores()
        if allowed:
            scores = allowed.of(scores, session.ids[:, prompt_length:].tolist())
        ids = sampling.choose(scores, session.ids, streams.uniform()).cpu()
        if min(ids.tolist()) < 0:
            raise ValueError(NOT_FINITE)
        yield ids
        if number + 1 < most:
            session.append(ids)
