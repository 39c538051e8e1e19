"""Rules that make training samples from the answers of the model and from their rewards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...data.rules import Answers, Rolled, Rule
from ...data.samples import Samples
from ...files.reading import DataError


class Rewarded(Rule):
    """Draws samples, lets the model answer each of them `answers` times, and computes the reward of each answer.
    Training reads all answers, with the column `advantage`: the reward of an answer minus the mean reward of the
    answers to the same sample, divided by their standard deviation (GRPO, Shao et al. 2024, arXiv:2402.03300); 0 if all
    of them have the same reward.

    `every` is the number of steps between two rollouts, `temperature` that of the sampling. A subclass implements
    `reward`; `target` is the column of the generated input. The model reads all other columns of its inputs."""

    target: str = "answer"

    def __init__(self, *, every: int, answers: int, temperature: float):
        self.every, self.answers, self.temperature = every, answers, temperature

    @property
    def columns(self) -> Mapping[str, str | float]:
        return {self.target: "", "advantage": 0.0}

    @abstractmethod
    def reward(self, sample: Mapping[str, Any], answer: str) -> float:
        """Returns the reward of an answer. `sample` has all columns of the data set, also the true answer."""

    def samples(self, prompts: Samples, answers: Answers, count: int, seed: int) -> list[Rolled]:
        random = np.random.default_rng(seed)
        if count % self.answers:
            raise DataError(
                f"data.dataset.answers: {self.answers} does not divide the {count} samples of a rollout (every times "
                "training.samples_per_step)"
            )
        numbers = random.integers(len(prompts), size=count // self.answers).tolist()
        rows = {number: prompts.row(number) for number in set(numbers)}
        owners = np.repeat(numbers, self.answers).tolist()
        read = [{name: value for name, value in rows[number].items() if name != self.target} for number in owners]
        seeds = random.integers(2**62, size=count).tolist()
        texts = list(map(text_of, answers(read, temperature=self.temperature, seed=seeds)))
        rewards = np.array([self.reward(rows[number], text) for number, text in zip(owners, texts, strict=True)])
        advantages = advantages_of(rewards.reshape(-1, self.answers)).ravel().tolist()
        return [
            Rolled(number, {self.target: text, "advantage": advantage})
            for number, text, advantage in zip(owners, texts, advantages, strict=True)
        ]


def text_of(answer: Mapping[str, Any]) -> str:
    """Returns the text in a prediction. Raises DataError if the sample could not be read."""
    if "error" in answer:
        raise DataError(f"data.dataset: a sample of a rollout cannot be read: {answer['error']}")
    return next(each["text"] for name, each in answer.items() if isinstance(each, Mapping) and "text" in each)


def advantages_of(rewards: np.ndarray) -> np.ndarray:
    """Returns the advantages of rewards (samples, answers) within each sample; see `Rewarded`. A reward that is not
    finite makes the advantages of its sample NaN, which the trainer refuses."""
    spread = rewards.std(axis=1, keepdims=True)
    return (rewards - rewards.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)


class RightSum(Rewarded):
    """The reward is 1 if the answer is the true one, otherwise 0."""

    def reward(self, sample: Mapping[str, Any], answer: str) -> float:
        return float(answer == sample["answer"])
