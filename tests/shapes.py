"""How annotations are checked while testing: calls of the package's functions, by beartype, an int being a float.

Checking takes twice the time of a tiny model's arithmetic. So the first `ALL` calls of each test are checked, where new
shapes come up, and of those that follow one in `ONE_IN`, drawn alike each time. A function inside another one is made,
and its check with it, at every call of the outer one: only the first `INNER` of them are checked.
"""

import random
from collections import Counter
from collections.abc import Callable
from functools import cache

import jaxtyping
from beartype import BeartypeConf, beartype

ALL = 100
ONE_IN = 50
INNER = 20

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
made: Counter[str] = Counter()


def check(function: Callable) -> Callable:
    """The function with a check of its annotations, which is written at the first call: most functions of the package
    are never called in a process."""
    if "<locals>" in function.__qualname__:
        made[function.__qualname__] += 1
        if made[function.__qualname__] > INNER:
            return function
    written = cache(lambda: checked(function))
    return lambda *arguments, **named: written()(*arguments, **named)


Switch = type(jaxtyping.config)


class Sampled(Switch):
    """jaxtyping's settings, whose switch, which every annotated function asks when it is called, says of most calls of
    a long test that they are not to be checked. Where a test sets the switch, it is a plain one again."""

    calls, chance = 0, random.Random(0)

    @property
    def jaxtyping_disable(self) -> bool:
        self.calls += 1
        return self.calls > ALL and self.chance.random() > 1 / ONE_IN

    @jaxtyping_disable.setter
    def jaxtyping_disable(self, value: bool) -> None:
        self.__class__ = Switch
        self.jaxtyping_disable = value


def begin_test() -> None:
    """Check all calls anew, unless a fixture has switched the checks off; called before each test."""
    if not vars(jaxtyping.config)["jaxtyping_disable"]:
        jaxtyping.config.__class__ = Sampled
        jaxtyping.config.calls, jaxtyping.config.chance = 0, random.Random(0)
