"""How texts and other items are generated: the options, and the rows as they are written, whole or piece by piece.

Items are drawn at random where a `Sampling` is given, else searched for as a `Search` says (by default greedily).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

import torch

from ..models.generation.beam_search import Search, beam_search
from ..models.generation.constraints import Allowed, Constraint
from ..models.generation.guidance import Guided
from ..models.generation.refine import Refining
from ..models.generation.sampling import Sampling, draw, seeded
from ..models.generation.session import Session
from ..models.model import Model
from ..tasks.base import Task
from ..tokenizers.encoding.base import TextStream


def ignored(items: list[list[int]]) -> None:
    """The default of `Generating.show`."""


@dataclass(frozen=True, kw_only=True)
class Generating:
    """How items are generated. Raises ValueError for a `guidance` that is not 0 to 100, a `max_tokens` below 1, and a
    `stop` that is one text."""

    prompt: str = ""
    """How every text begins that answers a sample; it is not given back."""
    max_tokens: int | None = None
    """The most tokens that are generated; None: as many as the context has room for."""
    sampling: Sampling | None = None
    """How ids are drawn at random; None: they are searched for."""
    search: Search | None = None
    """How items are searched for; None: as the task says."""
    guidance: float = 1.0
    """The weight of what the inputs change (`models/generation/guidance.py`)."""
    constraint: Constraint | None = None
    """Which ids may follow which, besides the rule of the vocabulary."""
    refining: Refining | None = None
    """How drafts are refined; None: as the task says."""
    draft: Sequence[int] | Callable[[int], Sequence[int]] | None = None
    """The ids of the draft that is refined, masks among them; of several items a function from an item's number; None:
    masks alone."""
    show: Callable[[list[list[int]]], None] = ignored
    """Called with the ids of all items after each step of a refinement."""
    stop: Sequence[str] = ()
    """Texts before which a text ends."""
    seed: int | None = None
    """Of what is drawn; None: another text every time."""
    cached: bool = True
    """Whether keys and values are cached."""

    def __post_init__(self):
        if not 0 <= self.guidance <= 100:
            raise ValueError(f"guidance is {self.guidance}; it must be from 0 (the inputs are ignored) to 100")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if isinstance(self.stop, str):
            raise ValueError(f"stop is one text; write a list of texts, stop=[{self.stop!r}]")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Generating:
        """From options by name, which may include fields of `Sampling`: `{"temperature": 0, "seed": 1}`. Raises
        TypeError for an unknown one."""
        sampled = [field.name for field in fields(Sampling)]
        check_options(options, [*(field.name for field in fields(cls)), *sampled])
        own = {name: options[name] for name in sampled if name in options}
        rest = {name: value for name, value in options.items() if name not in own}
        if own:
            rest["sampling"] = replace(options.get("sampling") or Sampling(), **own)
        return cls(**rest)

    def drafted(self, number: int) -> tuple[int, ...] | None:
        """The ids of the draft of the item with this number; None: masks alone."""
        found = self.draft(number) if callable(self.draft) else self.draft
        return None if found is None else tuple(found)

    def generator(self, model: Model) -> torch.Generator | None:
        """The random generator of the seed on the model's device; without a seed None, which stands for torch's own."""
        return None if self.seed is None else seeded(self.seed, next(model.parameters()).device)

    def with_rule(self, rule: Constraint | None) -> Generating:
        """The same with one more constraint."""
        return self if rule is None else replace(self, constraint=rule & self.constraint)


def check_options(options: Collection[str], known: Sequence[str]) -> None:
    """Raises TypeError for an option that is not `known`, with the nearest one."""
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.75)
            hint = f"did you mean {near[0]!r}?" if near else f"possible: {', '.join(known)}"
            raise TypeError(f"there is no option {name!r}; {hint}")


# ------------------------------------------------------------------------------------------------------ what is written


class Written:
    """The ids generated in one row so far, up to one of `ends`, the ids that end a text."""

    def __init__(self, ends: Collection[int]):
        self.ends, self.ids, self.stopped = ends, [], False

    def write(self, id: int) -> str:
        """Take one more id; gives the text that is final now and was not before (here none)."""
        if self.stopped:
            return ""
        if id in self.ends:
            return self.finish()
        self.ids.append(id)
        return self.text_of(id)

    def text_of(self, id: int) -> str:
        """The text that has become final with an id, which ends nothing."""
        return ""

    def finish(self) -> str:
        """End the row; gives the text that was held back."""
        self.stopped = True
        return ""


class WrittenText(Written):
    """The text generated in one row so far: whole characters only, up to the first `stop` text, which may begin and end
    inside tokens."""

    def __init__(self, texts: TextStream, ends: Collection[int], stop: Sequence[str] = ()):
        super().__init__(ends)
        self.texts, self.stop, self.held = texts, [text for text in stop if text], ""

    def text_of(self, id: int) -> str:
        """The text that has become final; the beginning of a possible stop text is held back."""
        return self._release(self.texts.write(id))

    def finish(self) -> str:
        if self.stopped:
            return ""
        rest = self._release(self.texts.finish()) + self.held
        self.held, self.stopped = "", True
        return rest

    def _release(self, text: str) -> str:
        self.held += text
        text = before(self.held, self.stop)
        if len(text) < len(self.held):
            self.held, self.stopped = "", True
            return text
        keep = max((n for stop in self.stop for n in range(1, len(stop)) if self.held.endswith(stop[:n])), default=0)
        cut = len(self.held) - keep
        text, self.held = self.held[:cut], self.held[cut:]
        return text


def before(text: str, stop: Sequence[str]) -> str:
    """The text up to the first occurrence of any of the stop texts."""
    return text[: min((place for place in map(text.find, filter(None, stop)) if place >= 0), default=None)]


def pieces(
    session: Session | Guided, rows: Sequence[Written], how: Generating, search: Search = Search(),
    generator: torch.Generator | None = None,
) -> Iterator[list[str]]:  # fmt: skip
    """Generate in every row until all have ended, at most `session.most` tokens; yields the next piece of text of each
    row, which may be empty. Beam search yields whole texts at once. `search` is used where `how` has none."""
    search = how.search or search
    if how.sampling is None and not search.greedy:
        texts = beam_search(session, rows[0].ends, session.most, search, how.constraint)
        yield ["".join(map(row.write, found.ids)) + row.finish() for row, found in zip(rows, texts, strict=True)]
        return
    allowed = Allowed(how.constraint, frozenset(rows[0].ends))
    for ids in draw(session, session.most, how.sampling or Sampling(temperature=0), generator, allowed):
        yield [row.write(id) for row, id in zip(rows, ids.tolist(), strict=True)]
        if all(row.stopped for row in rows):
            break
    yield [row.finish() for row in rows]


def joined(streamed: Iterator[Sequence[str]], count: int) -> list[str]:
    """The whole texts of `count` rows that were streamed in pieces."""
    return ["".join(pieces) for pieces in zip([""] * count, *streamed, strict=True)]


def searching_tasks(tasks: Mapping[str, Task], **given: Any) -> dict[str, Task]:
    """The same tasks with another search: `given` are fields of `Search`, the others stay as each task has them. Raises
    TypeError for an unknown field, ValueError for values that `Search` refuses."""
    check_options(given, [field.name for field in fields(Search)])
    Search(**given)
    found = {name: copy(task) for name, task in tasks.items()}
    for task in found.values():
        task.search = replace(task.search, **given)
    return found


def generating_tasks(
    tasks: Mapping[str, Task], guidance: float | None, temperature: float | None, steps: int | None,
    drafts: int | None = None,
) -> dict[str, Task]:  # fmt: skip
    """The same tasks, of which those that generate do so with this guidance, at this temperature, in so many steps, and
    those that refine through an input keep the best of so many drafts; what is None stays as each task has it. Raises
    LookupError where no task generates so, ValueError for values outside their ranges."""
    found = {name: copy(task) for name, task in tasks.items()}
    refining = [task for task in found.values() if task.needs.refines]
    writing = refining + [task for task in found.values() if task.needs.generates]
    if steps is not None and not refining:
        raise LookupError("refines no drafts: no steps can be asked for")
    reading = [task for task in refining if task.refining.through]
    if drafts is not None and not reading:
        raise LookupError("refines no drafts through an input: nothing tells which of several is best")
    if not writing and not (guidance is temperature is None):
        raise LookupError("generates nothing: there is nothing to guide or to draw")
    for task in writing:
        if guidance is not None:
            task.guidance = Generating(guidance=guidance).guidance
        if temperature is not None:
            task.sampling = replace(task.sampling or Sampling(), temperature=temperature)
    for task in refining if steps is not None else ():
        task.refining = replace(task.refining, steps=steps)
    for task in reading if drafts is not None else ():
        task.refining = replace(task.refining, drafts=drafts)
    return found
