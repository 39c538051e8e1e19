"""Learning-rate schedules: a factor between 0 and 1 for every step, a pure function of the step."""

from __future__ import annotations

import math


class Schedule:
    """Base. `warmup` steps rise linearly to 1 first; a step counts from 0, so the first update already moves."""

    def __init__(self, steps: int, *, warmup: int = 0):
        if not 0 <= warmup <= steps:
            raise ValueError(f"warmup ({warmup}) must lie between 0 and the number of steps ({steps})")
        self.steps, self.warmup = steps, warmup

    def __call__(self, step: int) -> float:
        """The factor on every learning rate at this step."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        return self.after(step)

    def progress(self, step: int) -> float:
        """How far the part after the warm-up has come, 0 to 1."""
        return min((step - self.warmup) / max(self.steps - self.warmup, 1), 1.0)

    def after(self, step: int) -> float:
        """The factor after the warm-up."""
        raise NotImplementedError


class Constant(Schedule):
    """Always the full rate."""

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
    """Full rate, then a straight line down to `final` over the last `decay` share of the steps (arXiv:2404.06395)."""

    def __init__(self, steps: int, *, warmup: int = 0, decay: float = 0.5, final: float = 0.0):
        super().__init__(steps, warmup=warmup)
        if not 0 < decay <= 1:
            raise ValueError(f"decay ({decay}) is a share of the steps: more than 0, at most 1")
        self.decay, self.final = decay, final

    def after(self, step: int) -> float:
        left = (self.steps - step) / max(self.decay * self.steps, 1)
        return self.final + (1 - self.final) * min(left, 1.0)


class InverseSquareRoot(Schedule):
    """1 at the end of the warm-up, then falling with 1/sqrt(step) (the 2017 paper, arXiv:1706.03762)."""

    def after(self, step: int) -> float:
        return math.sqrt(max(self.warmup, 1) / max(step + 1, self.warmup, 1))
