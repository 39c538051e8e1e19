"""Learning-rate schedules: pure functions from the step to the factor, 0 to 1, of all peak learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..models.contract import ContractError, described


class Schedule:
    """Base: a linear increase over the first `warmup` of `steps` steps, followed by `after`.

    Steps count from 0. With warmup=4 the factors begin with 0.2, 0.4, 0.6, 0.8, so that the first update is not zero.
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
        """Returns the completed share of the steps after the warm-up, 0 to 1."""
        return min((step - self.warmup) / max(self.steps - self.warmup, 1), 1.0)

    def after(self, step: int) -> float:
        """Returns the factor at a step after the warm-up. Subclasses define it."""
        raise NotImplementedError


def checked(schedule: Callable[[int], float]) -> Callable[[int], float]:
    """Returns the schedule. Raises ContractError unless its factor at step 0 is a finite number of at least 0."""
    factor = schedule(0)
    if not isinstance(factor, int | float) or not 0 <= factor < math.inf:
        name = getattr(type(schedule), "__name__", "schedule")
        raise ContractError(
            f"training.schedule: {name} returned {described(factor)} at step 0; expected: a finite number of at least "
            "0, by which the learning rates are multiplied"
        )
    return schedule


class Constant(Schedule):
    """Factor 1 after the warm-up."""

    def after(self, step: int) -> float:
        return 1.0


class Cosine(Schedule):
    """After the warm-up half a cosine from 1 to `final` (Loshchilov & Hutter 2017, arXiv:1608.03983)."""

    def __init__(self, steps: int, *, warmup: int = 0, final: float = 0.1):
        super().__init__(steps, warmup=warmup)
        self.final = final

    def after(self, step: int) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * self.progress(step)))


class Linear(Schedule):
    """After the warm-up a straight line from 1 to `final`."""

    def __init__(self, steps: int, *, warmup: int = 0, final: float = 0.0):
        super().__init__(steps, warmup=warmup)
        self.final = final

    def after(self, step: int) -> float:
        return 1 - (1 - self.final) * self.progress(step)


class WarmupStableDecay(Schedule):
    """After the warm-up factor 1, then a straight line to `final` over the last `decay` share of all steps (Hu et al.
    2024, arXiv:2404.06395). Raises ValueError unless 0 < decay <= 1."""

    def __init__(self, steps: int, *, warmup: int = 0, decay: float = 0.5, final: float = 0.0):
        super().__init__(steps, warmup=warmup)
        if not 0 < decay <= 1:
            raise ValueError(f"decay ({decay}) is a share of the steps; it must be more than 0 and at most 1")
        self.decay, self.final = decay, final

    def after(self, step: int) -> float:
        left = (self.steps - step) / max(self.decay * self.steps, 1)
        return self.final + (1 - self.final) * min(left, 1.0)


class InverseSquareRoot(Schedule):
    """After the warm-up sqrt(max(warmup, 1) / (step + 1)) (Vaswani et al. 2017, arXiv:1706.03762)."""

    def after(self, step: int) -> float:
        return math.sqrt(max(self.warmup, 1) / max(step + 1, self.warmup, 1))
