"""Learning-rate schedules: the factor on every peak rate, 0 to 1, as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..models.contract import ContractError, described


class Schedule:
    """Base: a linear rise over the first `warmup` of `steps` steps, then `after`.

    Steps count from 0. With warmup=4 the factors begin 0.2, 0.4, 0.6, 0.8: the first update already moves. Raises
    ValueError unless 0 <= warmup <= steps.
    """

    def __init__(self, steps: int, *, warmup: int = 0):
        if not 0 <= warmup <= steps:
            raise ValueError(f"warmup ({warmup}) must lie between 0 and the number of steps ({steps})")
        self.steps, self.warmup = steps, warmup

    def __call__(self, step: int) -> float:
        """The factor on every peak learning rate at this step."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        return self.after(step)

    def progress(self, step: int) -> float:
        """The completed share of the steps after the warm-up, 0 to 1."""
        return min((step - self.warmup) / max(self.steps - self.warmup, 1), 1.0)

    def after(self, step: int) -> float:
        """The factor at a step after the warm-up; subclasses define it."""
        raise NotImplementedError


def checked(schedule: Callable[[int], float]) -> Callable[[int], float]:
    """The schedule. Raises ContractError unless its factor at step 0 is a finite number of at least 0."""
    factor = schedule(0)
    if not isinstance(factor, int | float) or not 0 <= factor < math.inf:
        name = getattr(type(schedule), "__name__", "schedule")
        raise ContractError(
            f"training.schedule: {name} returned {described(factor)} at step 0; expected is a number of at least 0, by "
            "which the learning rates are multiplied"
        )
    return schedule


class Constant(Schedule):
    """The full rate after the warm-up: factor 1."""

    def after(self, step: int) -> float:
        return 1.0


class Cosine(Schedule):
    """Half a cosine from 1 down to `final` (Loshchilov & Hutter 2017, arXiv:1608.03983)."""

    def __init__(self, steps: int, *, warmup: int = 0, final: float = 0.1):
        super().__init__(steps, warmup=warmup)
        self.final = final

    def after(self, step: int) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * self.progress(step)))


class Linear(Schedule):
    """A straight line from 1 down to `final`."""

    def __init__(self, steps: int, *, warmup: int = 0, final: float = 0.0):
        super().__init__(steps, warmup=warmup)
        self.final = final

    def after(self, step: int) -> float:
        return 1 - (1 - self.final) * self.progress(step)


class WarmupStableDecay(Schedule):
    """Factor 1, then a straight line down to `final` over the last `decay` share of all steps (Hu et al. 2024,
    arXiv:2404.06395). `decay` is more than 0 and at most 1; ValueError otherwise."""

    def __init__(self, steps: int, *, warmup: int = 0, decay: float = 0.5, final: float = 0.0):
        super().__init__(steps, warmup=warmup)
        if not 0 < decay <= 1:
            raise ValueError(f"decay ({decay}) is a share of the steps: more than 0, at most 1")
        self.decay, self.final = decay, final

    def after(self, step: int) -> float:
        left = (self.steps - step) / max(self.decay * self.steps, 1)
        return self.final + (1 - self.final) * min(left, 1.0)


class InverseSquareRoot(Schedule):
    """After the warm-up sqrt(warmup / (step + 1)), with warmup at least 1 (Vaswani et al. 2017, arXiv:1706.03762)."""

    def after(self, step: int) -> float:
        return math.sqrt(max(self.warmup, 1) / max(step + 1, self.warmup, 1))
