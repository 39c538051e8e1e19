"""Cross-modal arithmetic (`arithmetic`) in which training reads the model's own answers with their rewards."""

from __future__ import annotations

from functools import cached_property

from ....data.datasets.arithmetic import Arithmetic
from ..rewards import RightSum


class RewardedArithmetic(Arithmetic):
    """The samples of `arithmetic`, with the model's own answers and the column `advantage` in training. Every `every`
    steps, the model answers problems `answers` times each, with the sampling `temperature`; the reward of a right
    answer is 1. val and test are those of `arithmetic`. Raises ValueError if a number is out of range."""

    columns = (*Arithmetic.columns, "advantage")

    def __init__(
        self, *, samples: int = 20_000, scratchpad: bool = False, every: int = 1, answers: int = 4,
        temperature: float = 1.0,
    ):  # fmt: skip
        super().__init__(samples=samples, scratchpad=scratchpad)
        if not (1 <= every <= 1_000_000 and 2 <= answers <= 1000 and 0 < temperature <= 100):
            raise ValueError("every must be 1 or more, answers from 2 to 1,000, temperature above 0 and at most 100")
        self.every, self.answers, self.temperature = every, answers, temperature

    @cached_property
    def rule(self) -> RightSum:
        """The rule that makes the training samples."""
        return RightSum(every=self.every, answers=self.answers, temperature=self.temperature)
