"""Generation with a trained model: how texts and items are drawn, complete items of samples, texts piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from ..data.processes import Processes
from ..data.sampler import SampleIndex
from ..data.split import SampleSplit, Split
from ..files.reading import DataError, shown
from ..models.batch import Batch
from ..models.generation.beam_search import Search, beam_search
from ..models.generation.constraints import Allowed, Constraint
from ..models.generation.guidance import Guided
from ..models.generation.refine import Draft, Refining, chain_nats, hidden_nats
from ..models.generation.sampling import Sampling, draw, seeded
from ..models.generation.session import Session, fitting, padded, text_set
from ..models.model import Model
from ..tasks.base import Task
from ..tasks.judging import Generated
from ..tasks.language_modeling import LanguageModeling
from ..tasks.masked_diffusion import MaskedDiffusion
from ..tokenizers.encoding.base import TextStream
from ..tokenizers.encoding.directory import DecodedStream


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


def stream_prompts(
    model: Model, name: str, task: LanguageModeling, prompts: Sequence[str | None], how: Generating = Generating(),
    say: Callable[[str], None] = print,
) -> Iterator[list[str]]:  # fmt: skip
    """Yield the next piece of text of every prompt until all have stopped: at a `stop` text (left out), at an id that
    ends a text, or after `max_tokens` (by default 200). A prompt of None starts a new document. `name` is the task's.
    Texts are drawn at temperature 1 where `how` names neither `sampling` nor `search`. `say` is called with notices."""
    encoding = task.vocabulary
    whole = [encoding.prompted(prompt) for prompt in prompts]
    rows = [fitting(model, task.target, row) for row in whole]
    for prompt, row, kept in zip(prompts, whole, rows):
        if len(kept) < len(row):
            told = f"only the last {len(kept)} fit into the context and are read"
            say(f"the prompt {shown(prompt or '')} has {len(row)} tokens; {told}")
    session = Session.of_texts(model, rows, input=task.target, task=name, vocabulary=encoding.size,
                               most=how.max_tokens or 200, cached=how.cached)  # fmt: skip
    written = [WrittenText(encoding.stream(row), encoding.ends, how.stop) for row in rows]
    if how.sampling is None and how.search is None:
        how = replace(how, sampling=Sampling())
    yield from pieces(session, written, how, generator=how.generator(model))


def open_answers(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places: Sequence[SampleIndex],
    how: Generating = Generating(), inputs: Collection[str] | None = None,
) -> tuple[list[int], Session | Guided | None]:  # fmt: skip
    """The numbers of these samples, without bad ones, and a session that generates their items (None: all are bad). The
    samples' own items are not read: every one begins with the prompt. `inputs`, where given, are the only others that
    are read; of those that are predicted, too, what stands behind the target is not: it was not read in training."""

    behind = list(split.choppers)[list(split.choppers).index(task.target) :]

    def opened(inputs: Collection[str] | None) -> tuple[list[int], Session | None]:
        dropped = {name for name in split.inputs.targets if name in behind or not (inputs is None or name in inputs)}
        replaced = {**dict.fromkeys(dropped - {*task.needs.inputs}), task.target: how.prompt or ()}
        batch = split.read(places, inputs=inputs, rows="one_each", replaced=replaced)
        numbers = [split.reader.number(key) for key in batch.first.keys]
        made = {"input": task.target, "task": name, "vocabulary": task.vocabulary.size}
        most = {"most": how.max_tokens, "cached": how.cached}
        return numbers, Session(model, batch, **made, **most) if numbers else None

    numbers, session = opened(inputs)
    if session is None or how.guidance == 1:
        return numbers, session
    return numbers, Guided(session, opened(())[1], how.guidance)


def write(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places: Sequence[SampleIndex],
    how: Generating = Generating(), inputs: Collection[str] | None = None, generator: torch.Generator | None = None,
) -> dict[int, list[int]]:  # fmt: skip
    """The ids that the model generates from the other inputs of these samples (only those of `inputs`, where given), by
    the samples' numbers, without the id that ends an item; bad samples are left out. Where the vocabulary has a rule
    for whole items, only such are generated."""
    numbers, session = open_answers(model, name, task, split, places, how, inputs)
    if session is None:
        return {}
    rows = [Written(task.vocabulary.ends) for _ in numbers]
    for _ in pieces(session, rows, how.with_rule(task.vocabulary.well_formed), task.search, generator):
        pass
    return {number: row.ids for number, row in zip(numbers, rows)}


def stream_texts(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places: Sequence[SampleIndex],
    how: Generating = Generating(),
) -> Iterator[list[str]]:  # fmt: skip
    """The texts of `write` piece by piece, each up to a `stop` text (left out). Raises DataError where one of the
    samples is bad."""
    _, session = open_answers(model, name, task, split, places, how)
    for number in [place.number for place in places if place.number in split.skipped.bad]:
        raise DataError(split.skipped.bad[number])
    rows = [WrittenText(DecodedStream(task.restore), task.vocabulary.ends, how.stop) for _ in places]
    yield from pieces(session, rows, how, task.search, how.generator(model))


def generate_items(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, places: Sequence[SampleIndex],
    how: Generating = Generating(), inputs: Collection[str] | None = None, generator: torch.Generator | None = None,
) -> dict[int, list[int]]:  # fmt: skip
    """The ids of the items that the model generates for the task `name` from the other inputs (only those of `inputs`,
    where given) of the samples at these places, by the samples' numbers; bad samples are left out."""
    task, generator = tasks[name], generator or how.generator(model)
    if not task.needs.refines:
        return write(model, name, task, split, places, how, inputs, generator)
    given = {each for each in (split.choppers if inputs is None else inputs) if each != task.target}
    first: dict[str, Callable[[int], Any]] = {}
    for other in passed_through(tasks, name, how.refining or task.refining):
        first[tasks[other].target] = generated_first(model, tasks, other, split, places, given, first, generator)
    return refined_samples(model, tasks, name, split, places, how, given, first, generator)


def refined_samples(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, places: Sequence[SampleIndex], how: Generating,
    given: Collection[str], first: Mapping[str, Callable[[int], Any]], generator: torch.Generator | None,
) -> dict[int, list[int]]:  # fmt: skip
    """The ids of the items that are refined for the task `name` from the inputs `given` and what was generated `first`,
    by the samples' numbers."""
    task = tasks[name]
    numbers, draft = draft_of_samples(model, name, task, split, places, how, given, first)
    if draft is None:
        return {}
    refining = how.refining or task.refining
    named = passed_through(tasks, name, refining) if refining.drafts > 1 else ()
    read = {each: tasks[each] for each in named if tasks[each].target in refining.through}
    cost_of = cost_of_reading(model, task, read, split, numbers, first) if read else None
    return dict(zip(numbers, refined(model, task, draft, how, generator, cost_of)))


def passed_through(tasks: Mapping[str, Task], name: str, refining: Refining) -> list[str]:
    """The tasks, in their order, whose targets a draft of the task `name` is refined through: those that `refining`
    names, and what these are refined through themselves. Of several tasks for one input the first."""
    wanted, found = set(refining.through), []
    for other in reversed(list(tasks)[: list(tasks).index(name)]):
        task = tasks[other]
        if task.needs.refines and task.target in wanted:
            found = [other, *(each for each in found if tasks[each].target != task.target)]
            wanted |= set(task.refining.through) - {task.target}
    return found


def generated_first(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, places: Sequence[SampleIndex],
    given: Collection[str], first: Mapping[str, Callable[[int], Any]], generator: torch.Generator | None,
) -> Callable[[int], Any]:  # fmt: skip
    """The item of the target of the task `name` by a sample's number: its own, or, where it has none or it is not among
    the inputs `given`, the ids that the model generates of these and of what was generated `first`, as the task does;
    None for a bad sample."""
    task = tasks[name]
    known = {*with_item(split, places, task.target)} if task.target in given else set()
    lacking = [each for each in places if each not in known]
    how = Generating(sampling=task.sampling, guidance=task.guidance, max_tokens=task.refining.tokens)
    others = [each for each in given if each != task.target]
    made = refined_samples(model, tasks, name, split, lacking, how, others, first, generator) if lacking else {}
    missing = {each.number for each in lacking}

    def item(number: int) -> Any:
        return made.get(number) if number in missing else split.item(number)[0][task.target]

    return item


def with_item(split: SampleSplit, places: Sequence[SampleIndex], target: str) -> list[SampleIndex]:
    """The places of the samples that have a true item; bad ones have none."""

    def known(number: int) -> bool:
        try:
            return split.item(number)[0].get(target) is not None
        except ValueError:
            return False

    return [each for each in places if known(each.number)]


def generate_unprompted(
    model: Model, name: str, task: Task, count: int, how: Generating, generator: torch.Generator | None = None
) -> list[list[int]]:
    """The ids of `count` texts that a model of a corpus generates from nothing: after the start token, or from masks,
    as many as `how.max_tokens` or the context."""
    generator = generator or how.generator(model)
    if task.needs.refines:
        length = task.vocabulary.length or how.max_tokens or (how.refining or task.refining).tokens or model.context
        drafts = [how.drafted(number) or [task.mask] * length for number in range(count)]
        return refined(model, task, draft_of_rows(model, name, task, drafts), how, generator)
    known = task.vocabulary
    session = Session.of_texts(model, [[known.start]] * count, input=task.target, task=name, vocabulary=known.size,
                               most=how.max_tokens or model.context - 1)  # fmt: skip
    written = [Written(known.ends) for _ in range(count)]
    for _ in pieces(session, written, how.with_rule(known.well_formed), task.search, generator):
        pass
    return [row.ids for row in written]


UNPROMPTED = 1000
"""The most items that are generated for the metrics of a corpus."""
CHAINS, ROWS = 64, 16
"""The most items whose cost from left to right is computed, and how many at a time: it takes as many forward passes as
the longest has tokens."""


def generated_share(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, places: Sequence[SampleIndex],
    processes: Processes, inputs: Collection[str] | None, rows: int,
) -> list[Generated]:  # fmt: skip
    """This process's share of what the model generates from the other inputs (only those of `inputs`, where given) of
    the samples at these places, all of which have a true item, `rows` at a time, each beside that item; as the task
    says: by its search, or drawn with a seed that follows from the places. Of a corpus as many items as there are
    places, at most `UNPROMPTED`."""
    task = tasks[name]
    if split.samples is None:
        return unprompted_share(model, name, task, processes, rows, min(len(places), UNPROMPTED))
    found: list[Generated] = []
    how = Generating(sampling=task.sampling, guidance=task.guidance)
    for group in processes.share([places[first : first + rows] for first in range(0, len(places), rows)]):
        generator = torch.Generator().manual_seed(group[0].number)  # on the CPU: the same draws for any device
        made = generate_items(model, tasks, name, split, group, how, inputs, generator)
        for number, ids in made.items():
            given, labels = split.item(number)
            found.append(Generated(whole(task, ids), given[task.target], labels))
    return found


def unprompted_share(
    model: Model, name: str, task: Task, processes: Processes, rows: int, count: int
) -> list[Generated]:
    """This process's share of `count` items that the model generates from nothing, `rows` at a time."""
    found, how = [], Generating(sampling=task.sampling)
    for first in processes.share(list(range(0, count, rows))):
        generator = torch.Generator().manual_seed(first)
        every = generate_unprompted(model, name, task, min(rows, count - first), how, generator)
        found += [Generated(whole(task, ids), None, {}) for ids in every]
    return found


def chain_share(
    model: Model, name: str, task: Task, split: Split, places: Sequence[SampleIndex], processes: Processes,
    inputs: Collection[str] | None,
) -> dict[str, Tensor]:  # fmt: skip
    """This process's share of what the items at these places cost from left to right: their nats (`chain`),
    `chain_tokens`, `chain_units`, and how many items there are, `chain_samples`."""
    found = torch.zeros(4)
    for group in processes.share([places[first : first + ROWS] for first in range(0, len(places), ROWS)]):
        batch = split.read(group, inputs=inputs)
        if task.target in batch.main.chunks:
            nats, tokens = chain_of(model, name, task, batch)
            found = found + torch.tensor([nats, tokens, batch.units.get(task.target, 0.0), len(group)])
    return dict(zip(("chain", "chain_tokens", "chain_units", "chain_samples"), found))


def whole(task: Task, ids: Sequence[int]) -> Any:
    """The item of generated ids; None where they are none, as where a picture was cut short."""
    try:
        return task.restore(ids)
    except ValueError:
        return None


def draft_of(model: Model, name: str, task: MaskedDiffusion, batch: Batch, without: Batch | None = None) -> Draft:
    """The draft of a batch whose items of the task's target have masks in them."""
    never = torch.from_numpy(~(task.plain & task.vocabulary.used))
    return Draft(model, batch, input=task.target, task=name, vocabulary=task.vocabulary.size, mask=task.mask,
                 never=never, without=without)  # fmt: skip


def draft_of_samples(
    model: Model, name: str, task: MaskedDiffusion, split: SampleSplit, places: Sequence[SampleIndex], how: Generating,
    given: Collection[str], first: Mapping[str, Callable[[int], Any]] = {},
) -> tuple[list[int], Draft | None]:  # fmt: skip
    """The numbers of these samples, without bad ones, and a draft of their items (None: all are bad): `how.draft`, else
    as many masks as items have, or as `how` says, or as the sample's own has, or as the task says; framed as in
    training. Of all else nothing is read but the inputs `given`, and those that were generated `first`, by a sample's
    number."""

    def ids(number: int) -> tuple[int, ...]:
        if (draft := how.drafted(number)) is not None:
            return draft
        item, known = split.item(number)[0].get(task.target), task.vocabulary
        own = task.refining.tokens if item is None else len(known.encode(item))
        if not (length := known.length or how.max_tokens or own):
            told = "say how many (--max-tokens, or refining.tokens of its task)"
            raise ValueError(f"{task.target!r} may have any number of tokens: {told}")
        return (task.mask,) * length

    def read(others: Mapping[str, Any], inputs: Collection[str]) -> Batch:
        """The samples with the draft, these other items, and of their own no more than these inputs."""
        new = {**others, task.target: ids}
        predicted = {each: None for each in split.inputs.targets if each not in inputs}  # they would be kept
        return split.read(places, inputs={*inputs, *new}, rows="one_each", replaced={**predicted, **new})

    batch = read(first, given)
    numbers = [split.reader.number(key) for key in batch.first.keys]
    if not numbers:
        return [], None
    return numbers, draft_of(model, name, task, batch, read({}, ()) if how.guidance != 1 else None)


def draft_of_rows(model: Model, name: str, task: MaskedDiffusion, rows: Sequence[Sequence[int]]) -> Draft:
    """A draft of rows of ids, masks among them, alone in their set: windows of a corpus, without a frame. Raises
    ValueError for rows longer than the context."""
    if (longest := max(map(len, rows))) > model.context:
        raise ValueError(f"a draft of {longest} tokens is longer than the context of {model.context}")
    return draft_of(model, name, task, Batch(main=text_set(model, task.target, padded(rows))))


def refined(
    model: Model, task: MaskedDiffusion, draft: Draft, how: Generating, generator: torch.Generator | None = None,
    cost_of: Callable[[list[list[int]]], Sequence[float]] | None = None,
) -> list[list[int]]:  # fmt: skip
    """The ids of every item once all masks are filled in, drawn as `how` says, else as the task does; of as many drafts
    as that says the one of the least cost, where `cost_of` tells those of all items. `how.show` is called with the ids
    after each step."""
    refining, sampling = how.refining or task.refining, how.sampling or task.drawn_by
    generator, masks = generator or how.generator(model), draft.ids
    kept: list[tuple[float, list[list[int]]]] = []
    for _ in range(refining.drafts if cost_of else 1):
        draft.ids = masks.clone()
        steps = [draft.items(), *draft.refine(refining, sampling, how.guidance, generator)]
        costs = cost_of([task.without_special(ids) for ids in steps[-1]]) if cost_of else [0.0] * len(steps[-1])
        made = [(cost, list(ids)) for cost, *ids in zip(costs, *steps, strict=True)]
        kept = [min(two, key=itemgetter(0)) for two in zip(kept or made, made)]
    for items in zip(*(ids for _, ids in kept)):
        how.show(list(items))
    return [task.without_special(ids[-1]) for _, ids in kept]


def cost_of_reading(
    model: Model, task: MaskedDiffusion, read: Mapping[str, MaskedDiffusion], split: SampleSplit,
    numbers: Sequence[int], first: Mapping[str, Callable[[int], Any]],
) -> Callable[[list[list[int]]], list[float]]:  # fmt: skip
    """A function of the ids made for `task`, one item for each of these samples, to what it costs to read them: by each
    of the tasks `read` the nats of its target's item, which was `first`, predicted from the ids made and nothing else.
    """

    def cost(made: list[list[int]]) -> list[float]:
        row = {number: row for row, number in enumerate(numbers)}
        total = [0.0] * len(numbers)
        for name, other in read.items():
            new = dict.fromkeys(split.inputs.targets)
            new |= {task.target: lambda number: made[row[number]], other.target: first[other.target]}
            places = [SampleIndex(0, 0, number) for number in numbers]
            batch = split.read(places, inputs={task.target, other.target}, rows="one_each", replaced=new)
            nats = hidden_nats(draft_of(model, name, other, batch)).tolist()
            for key, each in zip(batch.first.keys, nats, strict=True):
                total[row[split.reader.number(key)]] += each
        return total

    return cost


def chain_of(model: Model, name: str, task: MaskedDiffusion, batch: Batch) -> tuple[float, float]:
    """The nats of the true items of a batch from left to right, and the number of their tokens."""
    draft = draft_of(model, name, task, batch)
    return chain_nats(draft), float(draft.scored.sum())
