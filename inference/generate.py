"""Generation of items: continuing prompts, or answering samples; whole, or streamed piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import torch

from ..data.sampler import Place
from ..data.samples.split import SampleSplit
from ..models.generation.guidance import Guided
from ..models.generation.sampling import Sampling
from ..models.generation.session import Session, fitting
from ..models.model import Model
from ..tasks.language_modeling import LanguageModeling
from ..tokenizers.encoding.directory import DecodedStream
from ..tokenizers.files.reading import DataError, shown
from .generating import Generating, Written, WrittenText, pieces


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
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places: Sequence[Place],
    how: Generating = Generating(), inputs: Collection[str] | None = None,
) -> tuple[list[int], Session | Guided | None]:  # fmt: skip
    """The numbers of these samples, without bad ones, and a session that generates their items (None: all are bad). The
    samples' own items are not read: every one begins with the prompt. `inputs`, where given, are the only others that
    are read; of those that are predicted, too, what stands behind the target is not: it was not read in training."""

    behind = list(split.choppers)[list(split.choppers).index(task.target) :]

    def opened(inputs: Collection[str] | None) -> tuple[list[int], Session | None]:
        unread = {name for name in split.inputs.targets if name in behind or not (inputs is None or name in inputs)}
        replaced = {**dict.fromkeys(unread - {*task.needs.inputs}), task.target: how.prompt or ()}
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
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places: Sequence[Place],
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
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places: Sequence[Place],
    how: Generating = Generating(),
) -> Iterator[list[str]]:  # fmt: skip
    """The texts of `write` piece by piece, each up to a `stop` text (left out). Raises DataError where one of the
    samples is bad."""
    _, session = open_answers(model, name, task, split, places, how)
    for number in [place.number for place in places if place.number in split.unread.bad]:
        raise DataError(split.unread.bad[number])
    rows = [WrittenText(DecodedStream(task.restore), task.vocabulary.ends, how.stop) for _ in places]
    yield from pieces(session, rows, how, task.search, how.generator(model))
