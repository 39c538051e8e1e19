"""A number to remember during a long countdown: the answer starts with the number, counts down to zero, and repeats it.

    question    472 83
    answer      [472]83 82 81 ... 02 01 00 472

A model that reads only the last tokens cannot repeat the number, unless it can still attend to the beginning of the
answer. No download is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..generated import Made, MadeDataset

HELD_BACK = {0: "val", 5: "test"}
"""The split of the numbers whose digit sum ends in 0 (`val`) or 5 (`test`); all other numbers are in train. In every
split, every digit occurs at every position."""
NUMBERS: dict[str, list[int]] = {"train": [], "val": [], "test": []}
for _number in range(1000):
    NUMBERS[HELD_BACK.get(sum(map(int, str(_number))) % 10, "train")].append(_number)


class Counts(Made):
    """Questions and answers. A countdown starts at a random number from `least` to 99. At least 3 * `least` characters
    are therefore between the two occurrences of the remembered number in the answer."""

    def __init__(self, split: str, count: int, least: int):
        super().__init__(split, count, "count")
        self.least = least

    def parts(self, number: int) -> Mapping[str, Callable[[], Any]]:
        random = self.random(number)
        noted, start = int(random.choice(NUMBERS[self.split])), int(random.integers(self.least, 100))

        def answer() -> str:
            count = " ".join(f"{left:02}" for left in range(start, -1, -1))
            return f"[{noted:03}]{count} {noted:03}"

        return {"question": lambda: f"{noted:03} {start:02}", "answer": answer}


class Recall(MadeDataset):
    """Columns: `question` (a number of three digits to remember, and the start of the countdown) and `answer`.
    `samples` is the number of training samples per epoch. `least` is the lowest start of a countdown, from 1 to 99. The
    numbers to remember in val and test are not in train. Raises ValueError if `least` is not from 1 to 99."""

    columns = ("question", "answer")

    def __init__(self, *, samples: int = 20_000, least: int = 81):
        if not 1 <= least <= 99:
            raise ValueError(f"least must be from 1 to 99, not {least}")
        self.samples, self.least = samples, least

    def make(self, split: str, count: int) -> Counts:
        return Counts(split, count, self.least)
