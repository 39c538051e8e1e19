"""Annotations of functions of the package are checked by beartype in tests; an int is a valid float.

Checking takes twice the time of the arithmetic of a tiny model. Therefore the first `ALL` calls of each test are
checked, in which new shapes occur, and then one call in `ONE_IN`, with the same random choice each time. A function
inside another function is created, with its check, at every call of the outer one; only the first `INNER` are checked.
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
inner_functions: Counter[str] = Counter()


def check(function: Callable) -> Callable:
    """The function with a check of its annotations. The check is created at the first call, since most functions of
    the package are never called in a process."""
    if "<locals>" in function.__qualname__:
        inner_functions[function.__qualname__] += 1
        if inner_functions[function.__qualname__] > INNER:
            return function
    create = cache(lambda: checked(function))
    return lambda *arguments, **named: create()(*arguments, **named)


Switch = type(jaxtyping.config)


class Sampled(Switch):
    """Settings of jaxtyping. Every annotated function reads `jaxtyping_disable` when it is called; in a long test it is
    True for most calls. If a test sets it, it is a plain attribute again."""

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
    """Called before each test: check all its first calls, unless a fixture has switched the checks off."""
    if not vars(jaxtyping.config)["jaxtyping_disable"]:
        jaxtyping.config.__class__ = Sampled
        jaxtyping.config.calls, jaxtyping.config.chance = 0, random.Random(0)
