"""Generation with a trained model: the settings, complete items for samples, and texts that are streamed in pieces."""

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


def ignore(items: list[list[int]]) -> None:
    """Does nothing. It is the default of `Generating.show`."""


@dataclass(frozen=True, kw_only=True)
class Generating:
    """Settings for the generation of items. Raises ValueError if `guidance` is not from 0 to 100, if `max_tokens` is
    below 1, or if `stop` is a single text."""

    prompt: str = ""
    """The beginning of every text that is generated for a sample. It is not part of the returned text."""
    max_tokens: int | None = None
    """The maximum number of generated tokens; None: as many as fit into the context."""
    sampling: Sampling | None = None
    """Settings for random sampling of ids; None: greedy or beam search."""
    search: Search | None = None
    """Settings for greedy or beam search; None: those of the task."""
    guidance: float = 1.0
    """The weight of classifier-free guidance (`models/generation/guidance.py`); 1: no guidance."""
    constraint: Constraint | None = None
    """Restricts the next ids, in addition to the rule of the vocabulary."""
    refining: Refining | None = None
    """Settings for the refinement of drafts; None: those of the task."""
    draft: Sequence[int] | Callable[[int], Sequence[int]] | None = None
    """The ids of the draft to refine, which contain masks. For several items: a function of the item's number. None:
    the draft contains only masks."""
    show: Callable[[list[list[int]]], None] = ignore
    """A function that is called with the ids of all items after each refinement step."""
    stop: Sequence[str] = ()
    """Stop texts. A generated text ends before the first of them."""
    seed: int | None = None
    """The seed of random sampling; None: a different text at every call."""
    cached: bool = True
    """Whether keys and values are cached."""

    def __post_init__(self):
        if not 0 <= self.guidance <= 100:
            raise ValueError(f"guidance is {self.guidance}; it must be from 0 (inputs have no effect) to 100")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if isinstance(self.stop, str):
            raise ValueError(f"stop must be a list of texts; write stop=[{self.stop!r}]")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Generating:
        """Creates the settings from options by name, which may include fields of `Sampling`, such as
        `{"temperature": 0, "seed": 1}`. Raises TypeError if an option is unknown."""
        sampled = [field.name for field in fields(Sampling)]
        check_options(options, [*(field.name for field in fields(cls)), *sampled])
        sampling = {name: options[name] for name in sampled if name in options}
        others = {name: value for name, value in options.items() if name not in sampling}
        if sampling:
            others["sampling"] = replace(options.get("sampling") or Sampling(), **sampling)
        return cls(**others)

    def draft_ids(self, number: int) -> tuple[int, ...] | None:
        """Returns the ids of the draft of the item with this number. None: the draft contains only masks."""
        ids = self.draft(number) if callable(self.draft) else self.draft
        return None if ids is None else tuple(ids)

    def generator(self, model: Model) -> torch.Generator | None:
        """Returns a random generator with the seed on the device of the model. Returns None, which means the generator
        of torch, if there is no seed."""
        return None if self.seed is None else seeded(self.seed, next(model.parameters()).device)

    def constrained(self, constraint: Constraint | None) -> Generating:
        """Returns a copy with one more constraint."""
        return self if constraint is None else replace(self, constraint=constraint & self.constraint)


def check_options(options: Collection[str], possible: Sequence[str]) -> None:
    """Raises TypeError if an option is not among the `possible` options. The message suggests the most similar one."""
    for name in options:
        if name not in possible:
            near = get_close_matches(name, possible, n=1, cutoff=0.75)
            hint = f"did you mean {near[0]!r}?" if near else f"possible: {', '.join(possible)}"
            raise TypeError(f"there is no option {name!r}; {hint}")


# ----------------------------------------------------------------------------------------------------- generated texts


class Written:
    """The generated ids of one row, up to the first id in `ends`, the ids that end a text."""

    def __init__(self, ends: Collection[int]):
        self.ends, self.ids, self.stopped = ends, [], False

    def write(self, id: int) -> str:
        """Adds an id and returns the new text that cannot change any more; here always empty."""
        if self.stopped:
            return ""
        if id in self.ends:
            return self.finish()
        self.ids.append(id)
        return self.text_of(id)

    def text_of(self, id: int) -> str:
        """Returns the new text that an id completes. The id does not end the text."""
        return ""

    def finish(self) -> str:
        """Ends the row and returns the text that was held back."""
        self.stopped = True
        return ""


class WrittenText(Written):
    """The generated text of one row, in complete characters, up to the first `stop` text. A stop text may begin and end
    inside a token."""

    def __init__(self, texts: TextStream, ends: Collection[int], stop: Sequence[str] = ()):
        super().__init__(ends)
        self.texts, self.stop, self.held = texts, [text for text in stop if text], ""

    def text_of(self, id: int) -> str:
        """Returns the new text. The beginning of a possible stop text is held back."""
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
    """Returns the text up to the first occurrence of a stop text."""
    return text[: min((start for start in map(text.find, filter(None, stop)) if start >= 0), default=None)]


def pieces(
    session: Session | Guided, rows: Sequence[Written], how: Generating, search: Search = Search(),
    generator: torch.Generator | None = None,
) -> Iterator[list[str]]:  # fmt: skip
    """Generates in every row until all rows have ended or have `session.most` tokens. Yields the next piece of text of
    each row, which may be empty. Beam search yields complete texts at once. `search` is the default of `how.search`."""
    search = how.search or search
    if how.sampling is None and not search.greedy:
        results = beam_search(session, rows[0].ends, session.most, search, how.constraint)
        yield ["".join(map(row.write, result.ids)) + row.finish() for row, result in zip(rows, results, strict=True)]
        return
    allowed = Allowed(how.constraint, frozenset(rows[0].ends))
    for ids in draw(session, session.most, how.sampling or Sampling(temperature=0), generator, allowed):
        yield [row.write(id) for row, id in zip(rows, ids.tolist(), strict=True)]
        if all(row.stopped for row in rows):
            break
    yield [row.finish() for row in rows]


def joined(streamed: Iterator[Sequence[str]], count: int) -> list[str]:
    """Joins the streamed pieces of `count` rows and returns the complete texts."""
    return ["".join(pieces) for pieces in zip([""] * count, *streamed, strict=True)]


def searching_tasks(tasks: Mapping[str, Task], **options: Any) -> dict[str, Task]:
    """Returns copies of the tasks with other search settings. `options` are fields of `Search`; the other fields keep
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
    """Returns copies of the tasks with other settings for generation: guidance weight, temperature, refinement steps,
    and drafts per item for tasks with `refining.through`. None keeps the setting of each task. Raises LookupError if no
    task has the setting, and ValueError if a value is out of range."""
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
    model: Model, name: str, task: LanguageModeling, prompts: Sequence[str | None], how: Generating = Generating(),
    say: Callable[[str], None] = print,
) -> Iterator[list[str]]:  # fmt: skip
    """Continues prompts with the task `name`. Yields the next piece of text of every prompt until all texts have ended:
    at a `stop` text (which is left out), at an id that ends a text, or after `max_tokens` (default: 200). A prompt of
    None starts a new document. The temperature is 1 if `how` has neither `sampling` nor `search`. `say` prints
    warnings."""
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
    yield from pieces(session, texts, how, generator=how.generator(model))


def open_answers(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, indices: Sequence[SampleIndex],
    how: Generating = Generating(), inputs: Collection[str] | None = None,
) -> tuple[list[int], Session | Guided | None]:  # fmt: skip
    """Returns the numbers of the samples without bad ones, and a session that generates their items (None if all
    samples are bad). The true items are replaced by the prompt. `inputs` restricts the other inputs. Predicted inputs
    that follow the target are dropped, because the model did not read them in training."""

    following = list(split.choppers)[list(split.choppers).index(task.target) :]

    def opened(inputs: Collection[str] | None) -> tuple[list[int], Session | None]:
        dropped = {name for name in split.inputs.targets if name in following or not (inputs is None or name in inputs)}
        replaced = {**dict.fromkeys(dropped - {*task.needs.inputs}), task.target: how.prompt or ()}
        batch = split.read(indices, inputs=inputs, rows="one_each", replaced=replaced)
        numbers = [split.reader.number(key) for key in batch.first.keys]
        names = {"input": task.target, "task": name, "vocabulary": task.vocabulary.size}
        most = {"most": how.max_tokens, "cached": how.cached}
        return numbers, Session(model, batch, **names, **most) if numbers else None

    numbers, session = opened(inputs)
    if session is None or how.guidance == 1:
        return numbers, session
    return numbers, Guided(session, opened(())[1], how.guidance)


def write(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, indices: Sequence[SampleIndex],
    how: Generating = Generating(), inputs: Collection[str] | None = None, generator: torch.Generator | None = None,
) -> dict[int, list[int]]:  # fmt: skip
    """Generates an item token by token for each sample and returns the ids by sample number, without the id that ends
    an item. `inputs` restricts the other inputs that the model reads. Bad samples are skipped. If the vocabulary has a
    rule for well-formed items, only such items are generated."""
    numbers, session = open_answers(model, name, task, split, indices, how, inputs)
    if session is None:
        return {}
    rows = [Written(task.vocabulary.ends) for _ in numbers]
    for _ in pieces(session, rows, how.constrained(task.vocabulary.well_formed), task.search, generator):
        pass
    return {number: row.ids for number, row in zip(numbers, rows)}


def stream_texts(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, indices: Sequence[SampleIndex],
    how: Generating = Generating(),
) -> Iterator[list[str]]:  # fmt: skip
    """Yields the texts of `write` in pieces, each up to a `stop` text, which is left out. Raises DataError if one of
    the samples is bad."""
    _, session = open_answers(model, name, task, split, indices, how)
    for number in [index.number for index in indices if index.number in split.skipped.bad]:
        raise DataError(split.skipped.bad[number])
    rows = [WrittenText(DecodedStream(task.restore), task.vocabulary.ends, how.stop) for _ in indices]
    yield from pieces(session, rows, how, task.search, how.generator(model))


def generate_items(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, indices: Sequence[SampleIndex],
    how: Generating = Generating(), inputs: Collection[str] | None = None, generator: torch.Generator | None = None,
) -> dict[int, list[int]]:  # fmt: skip
    """Generates an item for each sample with the task `name` and returns the ids by sample number. `inputs` restricts
    the other inputs that the model reads. Bad samples are skipped."""
    task, generator = tasks[name], generator or how.generator(model)
    if not task.needs.refines:
        return write(model, name, task, split, indices, how, inputs, generator)
    others = {input for input in (split.choppers if inputs is None else inputs) if input != task.target}
    first: dict[str, Callable[[int], Any]] = {}
    for other in passed_through(tasks, name, how.refining or task.refining):
        first[tasks[other].target] = generated_first(model, tasks, other, split, indices, others, first, generator)
    return refined_samples(model, tasks, name, split, indices, how, others, first, generator)


def refined_samples(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, indices: Sequence[SampleIndex],
    how: Generating, inputs: Collection[str], first: Mapping[str, Callable[[int], Any]],
    generator: torch.Generator | None,
) -> dict[int, list[int]]:  # fmt: skip
    """Refines a draft for each sample with the task `name` and returns the ids by sample number. The model reads the
    `inputs` and the previously generated items in `first`."""
    task = tasks[name]
    numbers, draft = draft_of_samples(model, name, task, split, indices, how, inputs, first)
    if draft is None:
        return {}
    refining = how.refining or task.refining
    names = passed_through(tasks, name, refining) if refining.drafts > 1 else ()
    scoring = {other: tasks[other] for other in names if tasks[other].target in refining.through}
    cost_of = cost_of_reading(model, task, scoring, split, numbers, first) if scoring else None
    return dict(zip(numbers, refined(model, task, draft, how, generator, cost_of)))


def passed_through(tasks: Mapping[str, Task], name: str, refining: Refining) -> list[str]:
    """Returns the tasks that generate the `refining.through` inputs of the task `name`, directly or indirectly, in the
    order of the tasks. If several tasks generate one input, the first of them is used."""
    wanted, names = set(refining.through), []
    for other in reversed(list(tasks)[: list(tasks).index(name)]):
        task = tasks[other]
        if task.needs.refines and task.target in wanted:
            names = [other, *(later for later in names if tasks[later].target != task.target)]
            wanted |= set(task.refining.through) - {task.target}
    return names


def generated_first(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, indices: Sequence[SampleIndex],
    inputs: Collection[str], first: Mapping[str, Callable[[int], Any]], generator: torch.Generator | None,
) -> Callable[[int], Any]:  # fmt: skip
    """Returns a function from a sample's number to an item of the target of the task `name`. This is the true item if
    it exists and the target is in `inputs`. Otherwise it is generated from `inputs` and `first` with the settings of
    the task. It is None for a bad sample."""
    task = tasks[name]
    with_target = {*with_item(split, indices, task.target)} if task.target in inputs else set()
    without_target = [index for index in indices if index not in with_target]
    how = Generating(sampling=task.sampling, guidance=task.guidance, max_tokens=task.refining.tokens)
    others = [input for input in inputs if input != task.target]
    generated = {}
    if without_target:
        generated = refined_samples(model, tasks, name, split, without_target, how, others, first, generator)
    missing = {index.number for index in without_target}

    def item(number: int) -> Any:
        return generated.get(number) if number in missing else split.item(number)[0][task.target]

    return item


def with_item(split: SampleSplit, indices: Sequence[SampleIndex], target: str) -> list[SampleIndex]:
    """Returns the indices of the samples that have a true item of the input `target`. Bad samples have none."""

    def has_item(number: int) -> bool:
        try:
            return split.item(number)[0].get(target) is not None
        except ValueError:
            return False

    return [index for index in indices if has_item(index.number)]


def generate_unprompted(
    model: Model, name: str, task: Task, count: int, how: Generating, generator: torch.Generator | None = None
) -> list[list[int]]:
    """Generates `count` texts with a model of a corpus, without inputs, and returns their ids. Generation begins with
    the start token or with masks. The length is `how.max_tokens` or the context length."""
    generator = generator or how.generator(model)
    if task.needs.refines:
        length = task.vocabulary.length or how.max_tokens or (how.refining or task.refining).tokens or model.context
        drafts = [how.draft_ids(number) or [task.mask] * length for number in range(count)]
        return refined(model, task, draft_of_rows(model, name, task, drafts), how, generator)
    vocabulary = task.vocabulary
    session = Session.of_texts(
        model, [[vocabulary.start]] * count, input=task.target, task=name, vocabulary=vocabulary.size,
        most=how.max_tokens or model.context - 1,
    )  # fmt: skip
    rows = [Written(vocabulary.ends) for _ in range(count)]
    for _ in pieces(session, rows, how.constrained(vocabulary.well_formed), task.search, generator):
        pass
    return [row.ids for row in rows]


UNPROMPTED = 1000
"""The maximum number of items that are generated for the metrics of a corpus."""
CHAINS, ROWS = 64, 16
"""The maximum number of items whose left-to-right loss is computed, and the number of items per batch. A batch takes
one forward pass for each token of its longest item."""


def generated_share(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, indices: Sequence[SampleIndex],
    processes: Processes, inputs: Collection[str] | None, rows: int,
) -> list[Generated]:  # fmt: skip
    """Generates items for the samples at `indices`, all of which have a true item, and returns the generated and true
    items of this process's share. `inputs` restricts the inputs that the model reads; `rows` is the batch size. The
    settings are those of the task. The random seed depends on the indices, but not on the processes. For a corpus, at
    most `UNPROMPTED` items are generated without inputs, one per index."""
    task = tasks[name]
    if split.samples is None:
        return unprompted_share(model, name, task, processes, rows, min(len(indices), UNPROMPTED))
    pairs: list[Generated] = []
    how = Generating(sampling=task.sampling, guidance=task.guidance)
    for group in processes.share([indices[first : first + rows] for first in range(0, len(indices), rows)]):
        generator = torch.Generator().manual_seed(group[0].number)  # on the CPU: equal samples on all devices
        items = generate_items(model, tasks, name, split, group, how, inputs, generator)
        for number, ids in items.items():
            sample, labels = split.item(number)
            pairs.append(Generated(restored(task, ids), sample[task.target], labels))
    return pairs


def unprompted_share(
    model: Model, name: str, task: Task, processes: Processes, rows: int, count: int
) -> list[Generated]:
    """Generates this process's share of `count` items without inputs, in batches of `rows`."""
    pairs, how = [], Generating(sampling=task.sampling)
    for first in processes.share(list(range(0, count, rows))):
        generator = torch.Generator().manual_seed(first)
        items = generate_unprompted(model, name, task, min(rows, count - first), how, generator)
        pairs += [Generated(restored(task, ids), None, {}) for ids in items]
    return pairs


def chain_share(
    model: Model, name: str, task: Task, split: Split, indices: Sequence[SampleIndex], processes: Processes,
    inputs: Collection[str] | None,
) -> dict[str, Tensor]:  # fmt: skip
    """Returns the summed left-to-right loss of this process's share of the items at `indices` in nats (`chain`), their
    numbers of tokens (`chain_tokens`) and units (`chain_units`), and the number of items (`chain_samples`)."""
    sums = torch.zeros(4)
    for group in processes.share([indices[first : first + ROWS] for first in range(0, len(indices), ROWS)]):
        batch = split.read(group, inputs=inputs)
        if task.target in batch.main.chunks:
            nats, tokens = chain_of(model, name, task, batch)
            sums = sums + torch.tensor([nats, tokens, batch.units.get(task.target, 0.0), len(group)])
    return dict(zip(("chain", "chain_tokens", "chain_units", "chain_samples"), sums))


def restored(task: Task, ids: Sequence[int]) -> Any:
    """Returns the item of generated ids, or None if they are not a valid item (such as an incomplete picture)."""
    try:
        return task.restore(ids)
    except ValueError:
        return None


def draft_of(model: Model, name: str, task: MaskedDiffusion, batch: Batch, without: Batch | None = None) -> Draft:
    """Returns the draft of a batch in which the items of the task's target contain masks."""
    never = torch.from_numpy(~(task.plain & task.vocabulary.used))
    return Draft(model, batch, input=task.target, task=name, vocabulary=task.vocabulary.size, mask=task.mask,
                 never=never, without=without)  # fmt: skip


def draft_of_samples(
    model: Model, name: str, task: MaskedDiffusion, split: SampleSplit, indices: Sequence[SampleIndex], how: Generating,
    inputs: Collection[str], first: Mapping[str, Callable[[int], Any]] = {},
) -> tuple[list[int], Draft | None]:  # fmt: skip
    """Returns the numbers of the samples without bad ones, and a draft of their items (None if all samples are bad).
    The draft is `how.draft`, or consists of masks. The number of masks is, in this order: the fixed length of the
    items, `how.max_tokens`, the length of the true item, `refining.tokens` of the task. The frame (such as a start
    token) is that of training. The model reads only `inputs` and the items that were generated `first`, by sample
    number."""

    def ids(number: int) -> tuple[int, ...]:
        if (draft := how.draft_ids(number)) is not None:
            return draft
        item, vocabulary = split.item(number)[0].get(task.target), task.vocabulary
        default = task.refining.tokens if item is None else len(vocabulary.encode(item))
        if not (length := vocabulary.length or how.max_tokens or default):
            raise ValueError(f"the length of {task.target!r} varies; set --max-tokens, or refining.tokens of its task")
        return (task.mask,) * length

    def read(others: Mapping[str, Any], inputs: Collection[str]) -> Batch:
        """Returns the samples with the draft, the items `others`, and only these of their `inputs`."""
        new = {**others, task.target: ids}
        predicted = {name: None for name in split.inputs.targets if name not in inputs}  # `read` keeps them otherwise
        return split.read(indices, inputs={*inputs, *new}, rows="one_each", replaced={**predicted, **new})

    batch = read(first, inputs)
    numbers = [split.reader.number(key) for key in batch.first.keys]
    if not numbers:
        return [], None
    return numbers, draft_of(model, name, task, batch, read({}, ()) if how.guidance != 1 else None)


def draft_of_rows(model: Model, name: str, task: MaskedDiffusion, rows: Sequence[Sequence[int]]) -> Draft:
    """Returns a draft of rows of ids that contain masks, without other inputs or frame, such as windows of a corpus.
    Raises ValueError if a row is longer than the context."""
    if (longest := max(map(len, rows))) > model.context:
        raise ValueError(f"a draft of {longest} tokens is longer than the context of {model.context}")
    return draft_of(model, name, task, Batch(main=text_set(model, task.target, padded(rows))))


def refined(
    model: Model, task: MaskedDiffusion, draft: Draft, how: Generating, generator: torch.Generator | None = None,
    cost_of: Callable[[list[list[int]]], Sequence[float]] | None = None,
) -> list[list[int]]:  # fmt: skip
    """Fills in all masks and returns the ids of every item. The settings are those of `how`, else those of the task.
    With `cost_of`, a function from the ids of all items to their costs, several drafts are refined and the draft with
    the lowest cost is kept for each item. Calls `how.show` with the ids after each step."""
    refining, sampling = how.refining or task.refining, how.sampling or task.drawn_by
    generator, masks = generator or how.generator(model), draft.ids
    kept: list[tuple[float, list[list[int]]]] = []
    for _ in range(refining.drafts if cost_of else 1):
        draft.ids = masks.clone()
        steps = [draft.items(), *draft.refine(refining, sampling, how.guidance, generator)]
        costs = cost_of([task.without_special(ids) for ids in steps[-1]]) if cost_of else [0.0] * len(steps[-1])
        candidates = [(cost, list(ids)) for cost, *ids in zip(costs, *steps, strict=True)]
        kept = [min(pair, key=itemgetter(0)) for pair in zip(kept or candidates, candidates)]
    for items in zip(*(ids for _, ids in kept)):
        how.show(list(items))
    return [task.without_special(ids[-1]) for _, ids in kept]


def cost_of_reading(
    model: Model, task: MaskedDiffusion, scoring: Mapping[str, MaskedDiffusion], split: SampleSplit,
    numbers: Sequence[int], first: Mapping[str, Callable[[int], Any]],
) -> Callable[[list[list[int]]], list[float]]:  # fmt: skip
    """Returns a function from the generated ids of `task`, one item per sample, to their costs. The cost is the sum
    over the tasks `scoring` of the loss in nats of their items in `first`, predicted only from the generated ids."""

    def cost(generated: list[list[int]]) -> list[float]:
        row = {number: row for row, number in enumerate(numbers)}
        total = [0.0] * len(numbers)
        for name, other in scoring.items():
            new = dict.fromkeys(split.inputs.targets)
            new |= {task.target: lambda number: generated[row[number]], other.target: first[other.target]}
            indices = [SampleIndex(0, 0, number) for number in numbers]
            batch = split.read(indices, inputs={task.target, other.target}, rows="one_each", replaced=new)
            nats = hidden_nats(draft_of(model, name, other, batch)).tolist()
            for key, value in zip(batch.first.keys, nats, strict=True):
                total[row[split.reader.number(key)]] += value
        return total

    return cost


def chain_of(model: Model, name: str, task: MaskedDiffusion, batch: Batch) -> tuple[float, float]:
    """Returns the summed left-to-right loss of the true items of a batch in nats, and their number of tokens."""
    draft = draft_of(model, name, task, batch)
    return chain_nats(draft), float(draft.scored.sum())
