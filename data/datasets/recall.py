"""A number to remember over a long count: the answer notes it down, counts down to zero, and says it again.

    question    472 83
    answer      [472]83 82 81 ... 02 01 00 472

Who reads only the last tokens has long lost the number when it is asked for, unless the note can still be read. Nothing
needs to be downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..samples import Made, MadeDataset

HELD_BACK = {0: "val", 5: "test"}
"""The splits of the numbers whose digits have a sum that ends in 0 or 5; all others train. Every digit is at every
place in every split."""
NUMBERS: dict[str, list[int]] = {"train": [], "val": [], "test": []}
for _number in range(1000):
    NUMBERS[HELD_BACK.get(sum(map(int, str(_number))) % 10, "train")].append(_number)


class Counts(Made):
    """Questions and answers. A count begins at `least` to 99, so that at least 3 * `least` characters lie between the
    note and what it is needed for."""

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
    """Columns: `question` (a number of three digits, and where the count begins) and `answer`. `samples` is how many
    one epoch of training has; `least`, 1 to 99, the smallest beginning of a count. The numbers of val and test are not
    in train."""

    columns = ("question", "answer")

    def __init__(self, *, samples: int = 20_000, least: int = 81):
        if not 1 <= least <= 99:
            raise ValueError(f"least must be from 1 to 99, not {least}")
        self.samples, self.least = samples, least

    def make(self, split: str, count: int) -> Counts:
        return Counts(split, count, self.least)
