"""Planning for models of episodes whose items are categories (the trajectory transformer, Janner et al. 2021,
arXiv:2106.02039). The model generates possible futures by beam search, and the agent takes the first action of the best
future."""

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
    """Settings of beam search over future steps. A plan is a sequence of future actions, with predicted rewards and
    observations, of `horizon` steps. In each step, every plan is extended with up to `expand` different sampled actions
    (in the first step with up to `beams` actions), and the `beams` best plans are kept. Raises ValueError if `beams`,
    `horizon` or `expand` is not from 1 to 2**20."""

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
        """Returns the settings that a text such as `beams:16,horizon:12` describes. Keys that are missing keep their
        defaults. Raises ValueError if the text has another form or a number is out of range."""
        names = [field.name for field in fields(cls)]
        numbers = {}
        for part in text.split(","):
            name, _, number = part.partition(":")
            if name not in names or not number.isdecimal() or len(number) > 15:
                raise ValueError(
                    f"a plan must be a list of key:number pairs such as {cls()}, in which keys may be missing; not "
                    f"{shown(text)}"
                )
            numbers[name] = int(number)
        return cls(**numbers)


@dataclass(frozen=True)
class Predicted:
    """A task that predicts the next item, and the head of this task."""

    task: NextItem
    head: Callable[[Tensor], Tensor]

    def log_probabilities(self, hidden: Float[Tensor, "b d"]) -> Float[Tensor, "b v"]:
        """Returns the log-probability of every category in nats."""
        return self.head(hidden).float().log_softmax(-1)

    def expectation(self, hidden: Float[Tensor, "b d"]) -> Float[Tensor, "b"]:
        """Returns the expected number of each row. If the target is a category, this is the mean of the category
        numbers, weighted by probability. Otherwise it is the predicted number."""
        if not self.task.chopper.choices:
            return self.task.chopper.measured(self.head(hidden).float())[:, 0]
        probabilities = self.log_probabilities(hidden).exp()
        count = probabilities.shape[1]
        return probabilities @ torch.arange(count, dtype=probabilities.dtype, device=probabilities.device)


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Plans with a model whose tasks predict all items of a step, each item from the preceding items. The order is: the
    action (`act`), the `reward`, the return to go including this reward (`value`), and the `observations` of the next
    step. All items except the value are categories. The model predicts the value, but no token reads the value."""

    act: Predicted
    reward: Predicted
    value: Predicted
    observations: Sequence[Predicted]
    planning: Planning = Planning()

    @property
    def token_count(self) -> int:
        """The number of tokens that are generated for each plan."""
        return self.planning.horizon * (2 + len(self.observations))

    @torch.inference_mode()
    def actions(
        self, time_steps: TimeSteps, hidden: Float[Tensor, "g d"], step: int, random: Sequence[np.random.Generator]
    ) -> Int[np.ndarray, "g"]:
        """Returns the first action of the best plan of each of g games. `hidden` contains for each game the output
        vector from which its action is predicted. `random` contains one random generator per game. `step` is the number
        of the current step."""
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
        """Samples up to `most` different actions for each plan, by their probabilities. `count` is the number of plans
        per game. Returns the actions, and for each action the row of its plan."""
        logs = self.act.log_probabilities(hidden)
        most = min(most, logs.shape[1])
        drawn = (logs + gumbel(logs, count, random)).topk(most, dim=1).indices
        return drawn.flatten(), torch.arange(len(logs), device=hidden.device).repeat_interleave(most)

    def _best(self, score: Float[Tensor, "g w"]) -> Int[Tensor, "r"]:
        """Returns the rows of the best plans, game by game. `score` has shape (games, plans per game)."""
        kept = score.topk(min(self.planning.beams, score.shape[1]), dim=1).indices
        return (kept + torch.arange(len(score), device=score.device)[:, None] * score.shape[1]).flatten()

    def _observe(
        self, plans: TimeSteps, at: Mapping[str, Tensor], step: int, random: Sequence[np.random.Generator]
    ) -> dict[str, Tensor]:
        """Samples the observations of a step for each plan and reads these observations. Returns `at` (the output
        vectors by input) with the vectors of the observations added."""
        at = dict(at)
        for observation in self.observations:
            logs = observation.log_probabilities(at[observation.task.at])
            drawn = (logs + gumbel(logs, len(logs) // len(random), random)).argmax(-1)
            at[observation.task.target] = plans.read_ids(observation.task.target, drawn, float(step))
        return at


def gumbel(logs: Float[Tensor, "b v"], count: int, random: Sequence[np.random.Generator]) -> Float[Tensor, "b v"]:
    """Returns Gumbel noise. The category with the largest sum of log-probability and noise is a random sample. `count`
    is the number of rows per game. Each game uses its own random generator, so the games do not influence each
    other."""
    noise = np.concatenate([generator.gumbel(size=(count, logs.shape[1])) for generator in random])
    return torch.from_numpy(noise).to(logs)
