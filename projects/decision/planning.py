"""Planning: a model of episodes whose items are categories generates possible futures by beam search, and its agent
takes the first action of the best one (the trajectory transformer, Janner et al. 2021, arXiv:2106.02039)."""

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
    """Beam search over future steps: `horizon` steps, after each of which the `beams` best plans are kept. In each
    step, every plan is extended with up to `expand` different sampled actions (in the first step up to `beams`). Raises
    ValueError if `beams`, `horizon` or `expand` is not from 1 to 2**20."""

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
        """Parse a text such as `beams:16,horizon:12`. Raises ValueError for any other text."""
        names = [field.name for field in fields(cls)]
        numbers = {}
        for part in text.split(","):
            name, _, number = part.partition(":")
            if name not in names or not number.isdecimal() or len(number) > 15:
                raise ValueError(f"a plan must have the form {cls()}, not {shown(text)}")
            numbers[name] = int(number)
        return cls(**numbers)


@dataclass(frozen=True)
class Predicted:
    """A task that predicts the next item, and its head."""

    task: NextItem
    head: Callable[[Tensor], Tensor]

    def log_probabilities(self, hidden: Float[Tensor, "b d"]) -> Float[Tensor, "b v"]:
        """The log-probability of every category."""
        return self.head(hidden).float().log_softmax(-1)

    def expectation(self, hidden: Float[Tensor, "b d"]) -> Float[Tensor, "b"]:
        """The expected number: the mean over categories, each of which stands for its number, or the predicted
        number."""
        if not self.task.chopper.choices:
            return self.task.chopper.measured(self.head(hidden).float())[:, 0]
        probabilities = self.log_probabilities(hidden).exp()
        count = probabilities.shape[1]
        return probabilities @ torch.arange(count, dtype=probabilities.dtype, device=probabilities.device)


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Plans with a model whose tasks predict all items of a step, each from the items before it: the action (`act`),
    the `reward`, the return to go including this reward (`value`), then the `observations` of the next step, in this
    order. All but the value are read as categories; no input reads the value."""

    act: Predicted
    reward: Predicted
    value: Predicted
    observations: Sequence[Predicted]
    planning: Planning = Planning()

    @property
    def token_count(self) -> int:
        """The generated tokens of each plan."""
        return self.planning.horizon * (2 + len(self.observations))

    @torch.inference_mode()
    def actions(
        self, time_steps: TimeSteps, hidden: Float[Tensor, "g d"], step: int, random: Sequence[np.random.Generator]
    ) -> Int[np.ndarray, "g"]:
        """The first action of the best plan of each game. `hidden` has the vector of each game at which its action is
        predicted, `random` a generator of random numbers for each game."""
        device, games = hidden.device, len(hidden)
        plans = time_steps
        at, total = {self.act.task.at: hidden}, torch.zeros(games, device=device)
        first = torch.full((games,), -1, device=device)
        for ahead in range(self.planning.horizon):
            count, most = len(total) // games, self.planning.expand if ahead else self.planning.beams
            drawn, rows = self._sampled_actions(at[self.act.task.at], count, random, most)
            left = self.token_count - (plans.length - time_steps.length)
            plans, total, first = plans.fork(rows.tolist(), left), total[rows], first[rows]
            first = torch.where(first < 0, drawn, first)
            acted = plans.read_ids(self.act.task.target, drawn, float(step + ahead))
            at = {self.act.task.target: acted}
            expected = self.reward.expectation(at[self.reward.task.at])
            likeliest = self.reward.log_probabilities(at[self.reward.task.at]).argmax(-1)
            at[self.reward.task.target] = plans.read_ids(self.reward.task.target, likeliest, float(step + ahead))
            total = total + expected
            score = total + self.value.expectation(at[self.value.task.at]) - likeliest
            best = self._best(score.view(games, -1))
            score, total, first = score[best], total[best], first[best]
            if ahead + 1 < self.planning.horizon:
                plans.keep(best.tolist())
                at = {name: vectors[best] for name, vectors in at.items()}
                at = self._observe(plans, at, step + ahead + 1, random)
        top = score.view(games, -1).argmax(1, keepdim=True)
        return first.view(games, -1).gather(1, top)[:, 0].cpu().numpy()

    def _sampled_actions(
        self, hidden: Float[Tensor, "b d"], count: int, random: Sequence[np.random.Generator], most: int
    ) -> tuple[Int[Tensor, "r"], Int[Tensor, "r"]]:
        """Sample up to `most` different actions for each plan by their probabilities; each game has `count` plans.
        Returns the actions and the row of the plan that each continues."""
        logs = self.act.log_probabilities(hidden)
        most = min(most, logs.shape[1])
        drawn = (logs + gumbel(logs, count, random)).topk(most, dim=1).indices
        return drawn.flatten(), torch.arange(len(logs), device=hidden.device).repeat_interleave(most)

    def _best(self, score: Float[Tensor, "g w"]) -> Int[Tensor, "r"]:
        """The rows of the best plans of each game, game after game."""
        kept = score.topk(min(self.planning.beams, score.shape[1]), dim=1).indices
        return (kept + torch.arange(len(score), device=score.device)[:, None] * score.shape[1]).flatten()

    def _observe(
        self, plans: TimeSteps, at: Mapping[str, Tensor], step: int, random: Sequence[np.random.Generator]
    ) -> dict[str, Tensor]:
        """Sample and read the observations of a step for each plan."""
        at = dict(at)
        for observation in self.observations:
            logs = observation.log_probabilities(at[observation.task.at])
            drawn = (logs + gumbel(logs, len(logs) // len(random), random)).argmax(-1)
            at[observation.task.target] = plans.read_ids(observation.task.target, drawn, float(step))
        return at


def gumbel(logs: Float[Tensor, "b v"], count: int, random: Sequence[np.random.Generator]) -> Float[Tensor, "b v"]:
    """Gumbel noise: the category with the largest sum of log-probability and noise is a sample. The `count` rows of
    each game use its own generator, so that no game changes another."""
    noise = np.concatenate([generator.gumbel(size=(count, logs.shape[1])) for generator in random])
    return torch.from_numpy(noise).to(logs)
