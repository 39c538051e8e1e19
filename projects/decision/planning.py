"""Planning: a model that has read what happens as a language of ids imagines what would follow, and takes the way of
the most reward (the trajectory transformer, Janner et al. 2021, arXiv:2106.02039)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...files.reading import shown
from ...tasks.next_item import NextItem
from .time_steps import TimeSteps


@dataclass(frozen=True, kw_only=True)
class Planning:
    """How far ahead is imagined: `horizon` steps, of which the `beams` best ways are kept, each going on with `expand`
    different actions (the first step with as many as there are beams). Raises ValueError for a number outside 1 to
    2**20."""

    beams: int = 16
    horizon: int = 12
    expand: int = 2

    def __post_init__(self):
        numbers = self.beams, self.horizon, self.expand
        if not 1 <= min(numbers) <= max(numbers) <= 2**20:
            raise ValueError(f"beams, horizon and expand must be from 1 to {2**20:,}, not {self}")

    def __str__(self) -> str:
        return ",".join(f"{field.name}:{getattr(self, field.name)}" for field in fields(self))

    @classmethod
    def of(cls, text: str) -> Planning:
        """What `beams:16,horizon:12` says. Raises ValueError for anything else."""
        known = [field.name for field in fields(cls)]
        found = {}
        for part in text.split(","):
            name, _, number = part.partition(":")
            if name not in known or not number.isdecimal() or len(number) > 15:
                raise ValueError(f"a plan is written {cls()}, not {shown(text)}")
            found[name] = int(number)
        return cls(**found)


@dataclass(frozen=True)
class Predicted:
    """A task that says what comes next, and its head."""

    task: NextItem
    head: Callable[[Tensor], Tensor]

    def chances(self, hidden: Float[Tensor, "b d"]) -> Float[Tensor, "b v"]:
        """The log-probability of every category."""
        return self.head(hidden).float().log_softmax(-1)

    def expected(self, hidden: Float[Tensor, "b d"]) -> Float[Tensor, "b"]:
        """The number that is expected: the mean of categories that are numbers, or the number itself."""
        if not self.task.chopper.choices:
            return self.task.chopper.measured(self.head(hidden).float())[:, 0]
        chances = self.chances(hidden).exp()
        return chances @ torch.arange(chances.shape[1], dtype=chances.dtype, device=chances.device)


@dataclass(frozen=True, kw_only=True)
class Planner:
    """A model whose tasks predict all of a step from what came before: `act`, then `reward`, then the return that is
    still to come (`value`, that reward included), then what is `seen` at the next step, in this order. All but the
    value are read as ids; nothing reads the value."""

    act: Predicted
    reward: Predicted
    value: Predicted
    seen: Sequence[Predicted]
    how: Planning = Planning()

    @property
    def room(self) -> int:
        """The tokens that are imagined of each way."""
        return self.how.horizon * (2 + len(self.seen))

    @torch.inference_mode()
    def actions(
        self, moments: TimeSteps, hidden: Float[Tensor, "g d"], step: int, random: Sequence[np.random.Generator]
    ) -> Int[np.ndarray, "g"]:
        """The first action of each game's best way. `hidden` is each game's vector where its action is predicted,
        `random` draws for each game by itself."""
        device, games = hidden.device, len(hidden)
        ways = moments
        at, total = {self.act.task.at: hidden}, torch.zeros(games, device=device)
        first = torch.full((games,), -1, device=device)
        for ahead in range(self.how.horizon):
            count, most = len(total) // games, self.how.expand if ahead else self.how.beams
            drawn, rows = self._drawn_actions(at[self.act.task.at], count, random, most)
            left = self.room - (ways.length - moments.length)
            ways, total, first = ways.fork(rows.tolist(), left), total[rows], first[rows]
            first = torch.where(first < 0, drawn, first)
            acted = ways.read_ids(self.act.task.target, drawn, float(step + ahead))
            at = {self.act.task.target: acted}
            expected = self.reward.expected(at[self.reward.task.at])
            likeliest = self.reward.chances(at[self.reward.task.at]).argmax(-1)
            at[self.reward.task.target] = ways.read_ids(self.reward.task.target, likeliest, float(step + ahead))
            total = total + expected
            score = total + self.value.expected(at[self.value.task.at]) - likeliest
            best = self._best(score.view(games, -1))
            score, total, first = score[best], total[best], first[best]
            if ahead + 1 < self.how.horizon:
                ways.keep(best.tolist())
                at = self._observe(ways, {name: each[best] for name, each in at.items()}, step + ahead + 1, random)
        top = score.view(games, -1).argmax(1, keepdim=True)
        return first.view(games, -1).gather(1, top)[:, 0].cpu().numpy()

    def _drawn_actions(
        self, hidden: Float[Tensor, "b d"], count: int, random: Sequence[np.random.Generator], most: int
    ) -> tuple[Int[Tensor, "r"], Int[Tensor, "r"]]:
        """At `most` so many different actions for each way, drawn by their probabilities, and the row that each
        continues; `count` ways belong to each game."""
        chances = self.act.chances(hidden)
        most = min(most, chances.shape[1])
        drawn = (chances + gumbel(chances, count, random)).topk(most, dim=1).indices
        return drawn.flatten(), torch.arange(len(chances), device=hidden.device).repeat_interleave(most)

    def _best(self, score: Float[Tensor, "g w"]) -> Int[Tensor, "r"]:
        """The rows of the best ways of each game, game after game."""
        kept = score.topk(min(self.how.beams, score.shape[1]), dim=1).indices
        return (kept + torch.arange(len(score), device=score.device)[:, None] * score.shape[1]).flatten()

    def _observe(
        self, ways: TimeSteps, at: Mapping[str, Tensor], step: int, random: Sequence[np.random.Generator]
    ) -> dict[str, Tensor]:
        """Draw and read what is seen at a step of each way."""
        at = dict(at)
        for each in self.seen:
            chances = each.chances(at[each.task.at])
            drawn = (chances + gumbel(chances, len(chances) // len(random), random)).argmax(-1)
            at[each.task.target] = ways.read_ids(each.task.target, drawn, float(step))
        return at


def gumbel(chances: Float[Tensor, "b v"], count: int, random: Sequence[np.random.Generator]) -> Float[Tensor, "b v"]:
    """Noise of which the largest sum with log-probabilities is a draw; of `count` rows for each game, from its own
    generator, so that other games change nothing."""
    drawn = np.concatenate([each.gumbel(size=(count, chances.shape[1])) for each in random])
    return torch.from_numpy(drawn).to(chances)
