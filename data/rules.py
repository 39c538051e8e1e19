"""Rules, which make the training samples of the next steps from the answers of the current model (`Dataset.rule`).

Before the steps 0, `every`, 2 * `every`, ..., training calls the rule with the training samples of the data set and a
function that answers samples with the current weights. `rollouts.py` lets the loader read the result.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..models.contract import ContractError, described
from .fingerprint import Fingerprint
from .samples import Samples

Answers = Callable[..., Sequence[Mapping[str, Any]]]
"""Returns the predictions of the current model for samples of the data set, as `Run.predict` does, with its options:
`answers(samples, temperature=1.0, seed=[7, 8])`. Columns that the model does not read are ignored."""


class Rolled(NamedTuple):
    """A sample that a rule makes: the training sample `number`, in which `columns` replace columns of the data set."""

    number: int
    columns: Mapping[str, str | float]


class Rule(ABC):
    """Makes the training samples of the next `every` steps. The attributes of a rule are its options; they must be
    numbers and texts."""

    every: int
    """The number of steps between two calls of `samples`."""
    columns: Mapping[str, str | float]
    """The columns of each sample that `samples` returns. Before the first call, those that the data set lacks have
    these values."""

    @abstractmethod
    def samples(self, prompts: Samples, answers: Answers, count: int, seed: int) -> Sequence[Rolled]:
        """Returns `count` samples, in the order in which training reads them. `prompts` are the training samples of the
        data set. The result must depend only on the arguments; `seed` is different in each call."""

    def fingerprint(self) -> str:
        """Returns a hash of the options and of the source code of the rule."""
        try:
            source = "".join(inspect.getsource(kind) for kind in type(self).__mro__ if kind not in Rule.__mro__)
        except OSError:  # a class without a file
            source = ""
        return Fingerprint(type(self).__qualname__, source, vars(self)).hex


def checked(rule: Rule, made: Any, count: int, prompts: int) -> list[Rolled]:
    """Returns the samples that a rule has made. Raises ContractError if these are not `count` samples with a number
    below `prompts` and with all columns of the rule, or if a value is neither a text nor a finite number."""

    def wrong(what: str, expected: str) -> ContractError:
        return ContractError(f"data.dataset: {type(rule).__name__}.samples returned {what}; expected: {expected}")

    if not isinstance(made, Sequence) or len(made) != count:
        what = f"{len(made)} samples" if isinstance(made, Sequence) else described(made)
        raise wrong(what, f"{count} samples, Rolled(number, columns)")
    for place, sample in enumerate(made):
        if not isinstance(sample, Rolled) or type(sample.number) is not int or not 0 <= sample.number < prompts:
            raise wrong(f"{described(sample)} as sample {place}", f"Rolled(number, columns), number below {prompts}")
        if sample.columns.keys() != rule.columns.keys():
            raise wrong(f"the columns {', '.join(sample.columns)} in sample {place}", ", ".join(rule.columns))
        for name, value in sample.columns.items():
            if not (isinstance(value, str) or (type(value) in (int, float) and math.isfinite(value))):
                raise wrong(f"{value!r} as {name!r} of sample {place}", "a text or a finite number")
    return list(made)
