"""Generation token by token with a trained model: the settings, items for samples (texts, pictures, sounds, music),
and texts that are streamed in pieces. `items.py` chooses between it and diffusion (`refine.py`)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

import torch

from ..data.sampler import SampleIndex
from ..data.split import SampleSplit
from ..files.reading import DataError, shown
from ..models.generation.beam_search import Search, beam_search
from ..models.generation.constraints import Allowed, Constraint
from ..models.generation.guidance import Guided
from ..models.generation.procedure import ignore
from ..models.generation.refine import Refining
from ..models.generation.sampling import Sampling, Streams, draw, seeded
from ..models.generation.session import Session, fitting
from ..tasks.base import Task
from ..tokenizers.encoding.base import TextStream
from ..tokenizers.encoding.directory import DecodedStream
from .trained import TrainedModel

TYPES = {
    **dict.fromkeys(("max_tokens", "top_k"), (Integral, "a whole number")),
    **dict.fromkeys(("temperature", "top_p", "min_p", "repetition_penalty", "guidance"), (Real, "a number")),
    "prompt": (str, "a text"), "sampling": (Sampling, "a chopmix.Sampling"), "search": (Search, "a Search"),
    "constraint": (Constraint, "a Constraint"), "refining": (Refining, "a Refining"),
}  # fmt: skip
"""The types of options, and their names in messages."""


@dataclass(frozen=True, kw_only=True)
class Generating:
    """Settings for the generation of items. Raises ValueError if `guidance` is not from 0 to 100, if `max_tokens` is
    below 1, or if `stop` is a single string instead of a sequence."""

    prompt: str = ""
    """The beginning of every text that is generated for a sample. The returned text does not contain the prompt."""
    max_tokens: int | None = None
    """The maximum number of generated tokens. None: as many tokens as fit into the context."""
    sampling: Sampling | None = None
    """Settings for random sampling of ids. None: greedy search or beam search."""
    search: Search | None = None
    """Settings for greedy search or beam search. None: the settings of the task."""
    guidance: float = 1.0
    """The weight of classifier-free guidance (`models/generation/guidance.py`); 1: no guidance."""
    constraint: Constraint | None = None
    """A rule that restricts the next ids, in addition to the rule of the vocabulary."""
    refining: Refining | None = None
    """Settings for the refinement of drafts. None: the settings of the task."""
    draft: Any = None
    """The ids of the draft to refine, in which masks are replaced, or an item without ids, of which the tokens `filled`
    are replaced. If several items are generated: a function from the number of the item to its draft. None: all tokens
    are generated."""
    filled: Sequence[int] = ()
    """The positions of the tokens that are generated if `draft` is an item without ids."""
    show: Callable[[list[list[int]]], None] = ignore
    """A function that is called after each refinement step with a list of the ids of all items."""
    stop: Sequence[str] = ()
    """Stop texts. A generated text ends before the first occurrence of a stop text."""
    seed: int | Sequence[int] | None = None
    """The seed of random sampling, or a seed for each item. The random numbers of an item depend only on its seed and
    its number, or, after `for_items`, only on its seed. None: each call generates different items."""
    cached: bool = True
    """Whether the model keeps keys and values of earlier tokens in a cache."""

    def __post_init__(self):
        if not 0 <= self.guidance <= 100:
            raise ValueError(f"guidance is {self.guidance}; it must be from 0 (inputs have no effect) to 100")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if isinstance(self.stop, str):
            raise ValueError(f"stop must be a list of texts; write stop=[{self.stop!r}]")
        if not isinstance(self.stop, Sequence) or not all(isinstance(text, str) for text in self.stop):
            raise TypeError(f"stop must be a list of texts, not {shown(self.stop)}")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Generating:
        """Creates the settings from a mapping of option names to values. The options are the fields of this class and
        of `Sampling`, for example `{"temperature": 0, "seed": 1}`. Raises TypeError if an option is unknown, or if its
        value has another type (TYPES)."""
        sampled = [field.name for field in fields(Sampling)]
        check_options(options, [*(field.name for field in fields(cls)), *sampled])
        for name, (kind, noun) in TYPES.items():
            value = options.get(name)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise TypeError(f"{name} must be {noun}, not {shown(value)}")
        sampling = {name: options[name] for name in sampled if name in options}
        others = {name: value for name, value in options.items() if name not in sampling}
        if sampling:
            others["sampling"] = replace(options.get("sampling") or Sampling(), **sampling)
        return cls(**others)

    def draft_of(self, number: int) -> Any:
        """Returns the draft of the item with this number; None: all its tokens are generated."""
        return self.draft(number) if callable(self.draft) else self.draft

    def for_items(self, items: Sequence[Any]) -> Generating:
        """Returns a copy with one seed for each of these items (prompts, or fingerprints of samples). The first of
        equal items has the `seed`, so that its result does not depend on other items; each further one has another
        seed, so that results differ. Raises ValueError if there are seeds for another number of items."""
        if self.seed is None:
            return self
        if not isinstance(self.seed, int):
            if len(self.seed) != len(items):
                raise ValueError(f"there are {len(self.seed)} seeds, but {len(items)} items")
            return self
        counts, seeds = Counter[Any](), []
        for item in items:
            seeds.append(self.seed if not counts[item] else another_seed(self.seed, counts[item]))
            counts[item] += 1
        return replace(self, seed=seeds)

    def random(self) -> RandomNumbers:
        """Returns the random numbers of the items. Raises ValueError if a seed is out of range."""
        seeds = int(torch.randint(2**62, ())) if self.seed is None else self.seed
        if isinstance(seeds, int):
            seeded(seeds)
            return RandomNumbers(lambda number: another_seed(seeds, number))
        return RandomNumbers(seeds.__getitem__)

    def constrained(self, constraint: Constraint | None) -> Generating:
        """Returns a copy of the settings to which a constraint is added. If the constraint is None, returns the
        settings unchanged."""
        return self if constraint is None else replace(self, constraint=constraint & self.constraint)


PER_ITEM = ("seed", "max_tokens", "temperature")
"""The options that may be lists with one value for each item."""


def by_item(options: Mapping[str, Any], count: int) -> list[tuple[list[int], dict[str, Any]]]:
    """Returns the options of `count` items as groups (numbers of the items, options) with the same values; only `seed`
    may remain a list, with the seeds of these items. Raises ValueError for a list of another length, and the errors of
    `Generating.of`."""
    lists = {name: options[name] for name in PER_ITEM if isinstance(options.get(name), list | tuple)}
    Generating.of({name: value for name, value in options.items() if name not in lists})  # names and values are checked
    if wrong := [name for name, values in lists.items() if len(values) != count]:
        raise ValueError(f"{wrong[0]} has {len(lists[wrong[0]])} values, but there are {count} items")
    seeds = lists.pop("seed", None)
    groups: dict[tuple, list[int]] = {}
    for number in range(count):
        groups.setdefault(tuple(values[number] for values in lists.values()), []).append(number)
    return [
        (numbers, {**options, **dict(zip(lists, values)), **({"seed": [seeds[n] for n in numbers]} if seeds else {})})
        for values, numbers in groups.items()
    ]


def another_seed(seed: int, number: int) -> int:
    """Returns a seed that depends on `seed` and a number."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:7], "big")


class RandomNumbers:
    """A random generator for each item, by the number of the item. `seed_of` returns the seed of an item. If several
    tasks generate items of one sample, its generator continues."""

    def __init__(self, seed_of: Callable[[int], int]):
        self.seed_of, self.generators = seed_of, dict[int, torch.Generator]()

    def of(self, numbers: Iterable[int]) -> Streams:
        """Returns the streams of the items with these numbers."""
        for number in (numbers := list(numbers)):
            if number not in self.generators:
                self.generators[number] = seeded(self.seed_of(number))
        return Streams([self.generators[number] for number in numbers])


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The generation of items for samples: the model, the samples, and what the model reads of them."""

    trained: TrainedModel
    split: SampleSplit
    indices: Sequence[SampleIndex]
    """The samples for which items are generated."""
    how: Generating
    random: RandomNumbers
    inputs: Collection[str] | None = None
    """The other inputs that the model may read; None: all."""

    @classmethod
    def of(
        cls, trained: TrainedModel, split: SampleSplit, indices: Sequence[SampleIndex], how: Generating,
        inputs: Collection[str] | None = None,
    ) -> Generation:  # fmt: skip
        """Returns the generation of items whose random numbers follow from the settings."""
        return cls(trained=trained, split=split, indices=indices, how=how, random=how.random(), inputs=inputs)


def check_options(options: Collection[str], possible: Sequence[str]) -> None:
    """Raises TypeError if an option is not among the `possible` options. The message suggests the most similar one."""
    for name in options:
        if name not in possible:
            near = get_close_matches(name, possible, n=1, cutoff=0.75)
            hint = f"did you mean {near[0]!r}?" if near else f"possible: {', '.join(possible)}"
            raise TypeError(f"there is no option {name!r}; {hint}")


# ----------------------------------------------------------------------------------------------------- generated texts


class Written:
    """The generated ids of one row, up to the first id in `ends`. `ends` are the ids that end a text."""

    def __init__(self, ends: Collection[int]):
        self.ends, self.ids, self.stopped = ends, [], False

    def write(self, id: int) -> str:
        """Adds an id to the row and returns the new text that cannot change any more. In this class, the text is always
        empty. Ids after the end are ignored."""
        if self.stopped:
            return ""
        if id in self.ends:
            return self.finish()
        self.ids.append(id)
        return self.text_of(id)

    def text_of(self, id: int) -> str:
        """Returns the new text that cannot change any more after the id `id`. `id` is not in `ends`."""
        return ""

    def finish(self) -> str:
        """Ends the row and returns the text that was not returned yet."""
        self.stopped = True
        return ""


class WrittenText(Written):
    """Converts the generated ids of one row to text, id by id. Only complete characters are returned. The text ends
    before the first `stop` text. A stop text may begin and end inside a token."""

    def __init__(self, texts: TextStream, ends: Collection[int], stop: Sequence[str] = ()):
        super().__init__(ends)
        self.texts, self.stop, self.held = texts, [text for text in stop if text], ""

    def text_of(self, id: int) -> str:
        """Returns the new text. If the end of the text may be the beginning of a stop text, this end is held back."""
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
    """Returns the text before the first occurrence of any of the `stop` texts, or the complete text if none occurs."""
    return text[: min((start for start in map(text.find, filter(None, stop)) if start >= 0), default=None)]


def pieces(
    session: Session | Guided, rows: Sequence[Written], how: Generating, search: Search = Search(),
    streams: Streams | None = None,
) -> Iterator[list[str]]:  # fmt: skip
    """Generates ids in every row until all rows have ended or have `session.most` tokens. Yields a list with the next
    piece of text of each row. A piece may be empty. Beam search yields one list of complete texts. `search` is used if
    `how.search` is None."""
    search = how.search or search
    if how.sampling is None and not search.greedy:
        results = beam_search(session, rows[0].ends, session.most, search, how.constraint)
        yield ["".join(map(row.write, result.ids)) + row.finish() for row, result in zip(rows, results, strict=True)]
        return
    allowed = Allowed(how.constraint, frozenset(rows[0].ends))
    for ids in draw(session, session.most, how.sampling or Sampling(temperature=0), streams, allowed):
        yield [row.write(id) for row, id in zip(rows, ids.tolist(), strict=True)]
        if all(row.stopped for row in rows):
            break
    yield [row.finish() for row in rows]


def joined(streamed: Iterator[Sequence[str]], count: int) -> list[str]:
    """Joins the pieces that `pieces` yields and returns the `count` complete texts."""
    return ["".join(pieces) for pieces in zip([""] * count, *streamed, strict=True)]


def searching_tasks(tasks: Mapping[str, Task], **options: Any) -> dict[str, Task]:
    """Returns copies of the tasks with changed search settings. `options` are fields of `Search`; the other fields keep
    the values of each task. Raises TypeError if a field is unknown, and ValueError if a value is out of range."""
    check_options(options, [field.name for field in fields(Search)])
    Search(**options)
    copies = {name: copy(task) for name, task in tasks.items()}
    for task in copies.values():
        task.search = replace(task.search, **options)
    return copies


def generating_tasks(
    tasks: Mapping[str, Task], guidance: float | None, temperature: float | None, steps: int | None,
    drafts: int | None = None,
) -> dict[str, Task]:  # fmt: skip
    """Returns copies of the tasks with changed settings for generation: guidance weight, temperature, number of
    refinement steps, and number of drafts per item. None keeps the setting of each task. `steps` applies to tasks that
    refine drafts, `drafts` to tasks that refine drafts with `refining.through`, and the other settings to all tasks
    that generate items. Raises LookupError if a setting applies to no task, and ValueError if a value is out of
    range."""
    copies = {name: copy(task) for name, task in tasks.items()}
    refining = [task for task in copies.values() if task.needs.refines]
    generating = refining + [task for task in copies.values() if task.needs.generates]
    if steps is not None and not refining:
        raise LookupError("does not refine drafts: `steps` cannot be set")
    choosing = [task for task in refining if task.refining.through]
    if drafts is not None and not choosing:
        raise LookupError("does not refine drafts with `refining.through`, which scores drafts: `drafts` cannot be set")
    if not generating and not (guidance is temperature is None):
        raise LookupError("generates nothing: `guidance` and `temperature` cannot be set")
    for task in generating:
        if guidance is not None:
            task.guidance = Generating(guidance=guidance).guidance
        if temperature is not None:
            task.sampling = replace(task.sampling or Sampling(), temperature=temperature)
    for task in refining if steps is not None else ():
        task.refining = replace(task.refining, steps=steps)
    for task in choosing if drafts is not None else ():
        task.refining = replace(task.refining, drafts=drafts)
    return copies


def stream_prompts(
    trained: TrainedModel, name: str, prompts: Sequence[str | None], how: Generating = Generating(),
    say: Callable[[str], None] = print,
) -> Iterator[list[str]]:  # fmt: skip
    """Continues prompts with the task `name`. Yields lists with the next piece of text of every prompt, until all texts
    have ended. A text ends before a `stop` text, at an id that ends a text, or after `max_tokens` tokens (default:
    200). A prompt of None starts a new document. If `how` has neither `sampling` nor `search`, ids are sampled at
    temperature 1. `say` prints a warning if a prompt is too long for the context."""
    model, task = trained.model, trained.tasks[name]
    encoding = task.vocabulary
    complete = [encoding.prompted(prompt) for prompt in prompts]
    rows = [fitting(model, task.target, row) for row in complete]
    for prompt, row, kept in zip(prompts, complete, rows):
        if len(kept) < len(row):
            number = len(row)
            say(f"the prompt {shown(prompt or '')} has {number} tokens; only the last {len(kept)} fit into the context")
    session = Session.of_texts(model, rows, input=task.target, task=name, vocabulary=encoding.size,
                               most=how.max_tokens or 200, cached=how.cached)  # fmt: skip
    texts = [WrittenText(encoding.stream(row), encoding.ends, how.stop) for row in rows]
    if how.sampling is None and how.search is None:
        how = replace(how, sampling=Sampling())
    yield from pieces(session, texts, how, streams=how.for_items(prompts).random().of(range(len(prompts))))


def open_answers(generation: Generation, name: str) -> tuple[list[int], Session | Guided | None]:
    """Returns the numbers of the samples that can be read, and a session that generates the items of these samples with
    the task `name` (None if no sample can be read). The true items are replaced by the prompt. Predicted inputs that
    follow the target are dropped, because the model did not read these inputs in training."""
    how, split, task = generation.how, generation.split, generation.trained.tasks[name]
    following = list(split.choppers)[list(split.choppers).index(task.target) :]

    def opened(inputs: Collection[str] | None) -> tuple[list[int], Session | None]:
        dropped = {name for name in split.inputs.targets if name in following or not (inputs is None or name in inputs)}
        replaced = {**dict.fromkeys(dropped - {*task.needs.inputs}), task.target: how.prompt or ()}
        batch = split.read(generation.indices, inputs=inputs, rows="one_each", replaced=replaced)
        numbers = [split.reader.number(key) for key in batch.first.keys]
        names = {"input": task.target, "task": name, "vocabulary": task.vocabulary.size}
        most = {"most": how.max_tokens, "cached": how.cached}
        return numbers, Session(generation.trained.model, batch, **names, **most) if numbers else None

    numbers, session = opened(generation.inputs)
    if session is None or how.guidance == 1:
        return numbers, session
    return numbers, Guided(session, opened(())[1], how.guidance)


def write(generation: Generation, name: str) -> dict[int, list[int]]:
    """Generates an item token by token for each sample with the task `name`. Returns the ids by sample number, without
    the id that ends an item. Bad samples are left out. If the vocabulary has a rule for well-formed items, only ids
    that this rule allows are generated."""
    numbers, session = open_answers(generation, name)
    if session is None:
        return {}
    task = generation.trained.tasks[name]
    rows = [Written(task.vocabulary.ends) for _ in numbers]
    how = generation.how.constrained(task.vocabulary.well_formed)
    for _ in pieces(session, rows, how, task.search, generation.random.of(numbers)):
        pass
    return {number: row.ids for number, row in zip(numbers, rows)}


def stream_texts(generation: Generation, name: str) -> Iterator[list[str]]:
    """Generates a text for each sample with the task `name` and yields lists with the next piece of each text. A text
    ends before the first `stop` text. Raises DataError if one of the samples is bad."""
    numbers, session = open_answers(generation, name)
    bad, how, task = generation.split.skipped.bad, generation.how, generation.trained.tasks[name]
    for number in [index.number for index in generation.indices if index.number in bad]:
        raise DataError(bad[number])
    rows = [WrittenText(DecodedStream(task.restore), task.vocabulary.ends, how.stop) for _ in generation.indices]
    yield from pieces(session, rows, how, task.search, generation.random.of(numbers))
