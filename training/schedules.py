"""Learning-rate schedules: functions that map the step to a factor, 0 to 1, by which all peak learning rates are
multiplied."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..models.contract import ContractError, described


class Schedule:
    """Base class. The factor increases linearly in the first `warmup` steps. From then on the method `after` returns
    it. `steps` is the number of all steps.

    Steps count from 0. With warmup=4 the factors begin with 0.2, 0.4, 0.6, 0.8; therefore the first update is not zero.
    Raises ValueError unless 0 <= warmup <= steps.
    """

    def __init__(self, steps: int, *, warmup: int = 0):
        if not 0 <= warmup <= steps:
            raise ValueError(f"warmup ({warmup}) must lie between 0 and the number of steps ({steps})")
        self.steps, self.warmup = steps, warmup

    def __call__(self, step: int) -> float:
        """Returns the factor of the peak learning rates at this step."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        return self.after(step)

    def progress(self, step: int) -> float:
        """Returns which share of the steps after the warm-up is completed at this step, 0 to 1."""
        return min((step - self.warmup) / max(self.steps - self.warmup, 1), 1.0)

    def after(self, step: int) -> float:
        """Returns the factor at a step after the warm-up. Subclasses define this method."""
        raise NotImplementedError


def checked(schedule: Callable[[int], float]) -> Callable[[int], float]:
    """Returns `schedule` unchanged. Raises ContractError if its factor at step 0 is not a finite number of at least
    0."""
    factor = schedule(0)
    if not isinstance(factor, int | float) or not 0 <= factor < math.inf:
        text = "expected: a finite number of at least 0, by which the learning rates are multiplied"
        name = type(schedule).__name__
        raise ContractError(f"training.schedule: {name} returned {described(factor)} at step 0; {text}")
    return schedule


class Constant(Schedule):
    """The factor is 1 after the warm-up."""

    def after(self, step: int) -> float:
        return 1.0


class Cosine(Schedule):
    """After the warm-up the factor decreases from 1 to `final` along half a cosine wave (Loshchilov & Hutter 2017,
    arXiv:1608.03983)."""

    def __init__(self, steps: int, *, warmup: int = 0, final: float = 0.1):
        super().__init__(steps, warmup=warmup)
        self.final = final

    def after(self, step: int) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * self.progress(step)))


class Linear(Schedule):
    """After the warm-up the factor decreases linearly from 1 to `final`."""

    def __init__(self, steps: int, *, warmup: int = 0, final: float = 0.0):
        super().__init__(steps, warmup=warmup)
        self.final = final

    def after(self, step: int) -> float:
        return 1 - (1 - self.final) * self.progress(step)


class WarmupStableDecay(Schedule):
    """After the warm-up the factor is 1. In the last part of the run it changes linearly from 1 to `final` (Hu et al.
    2024, arXiv:2404.06395). `decay` is the length of the last part, in which the learning rate decreases, as a share of
    all steps. Raises ValueError unless 0 < decay <= 1."""

    def __init__(self, steps: int, *, warmup: int = 0, decay: float = 0.5, final: float = 0.0):
        super().__init__(steps, warmup=warmup)
        if not 0 < decay <= 1:
            raise ValueError(f"decay ({decay}) is a share of the steps; it must be more than 0 and at most 1")
        self.decay, self.final = decay, final

    def after(self, step: int) -> float:
        left = (self.steps - step) / max(self.decay * self.steps, 1)
        return self.final + (1 - self.final) * min(left, 1.0)


class InverseSquareRoot(Schedule):
    """After the warm-up the factor is sqrt(max(warmup, 1) / (step + 1)), where step counts from 0 (Vaswani et al. 2017,
    arXiv:1706.03762)."""

    def after(self, step: int) -> float:
        return math.sqrt(max(self.warmup, 1) / max(step + 1, self.warmup, 1))
