"""Texts that a model writes: behind prompts, or as answers to samples; all at once, or piece by piece as they come.

Texts are drawn at random where a `Sampling` is given, else searched for as a `Search` says (by default greedily).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch

from ..data.sampler import Place
from ..data.samples.split import SampleSplit
from ..models.generation.beam_search import Search, beam_search
from ..models.generation.sampling import Sampling, draw, seeded
from ..models.generation.session import Session
from ..models.model import Model
from ..tasks.language_modeling import LanguageModeling
from ..tokenizers.encoding.base import TextStream
from ..tokenizers.encoding.directory import DecodedStream
from ..tokenizers.files.reading import DataError

GREEDY = Sampling(temperature=0)

# ------------------------------------------------------------------------------------------------------ what is written


class Written:
    """What was written in one row so far, up to one of the ids that end a text."""

    def __init__(self, ends: Collection[int]):
        self.ends, self.ids, self.stopped = ends, [], False

    def write(self, id: int) -> str:
        """Take one more id; gives the text that is certain now and was not before."""
        if self.stopped:
            return ""
        if id in self.ends:
            return self.finish()
        self.ids.append(id)
        return self.text_of(id)

    def text_of(self, id: int) -> str:
        """The text that is certain after an id of the text."""
        return ""

    def finish(self) -> str:
        """What was held back, when nothing more comes."""
        self.stopped = True
        return ""


class WrittenText(Written):
    """The same as text: whole characters only, and nothing from a stop text on, wherever its tokens begin and end."""

    def __init__(self, texts: TextStream, ends: Collection[int], stop: Sequence[str] = ()):
        super().__init__(ends)
        self.texts, self.stop, self.held = texts, [text for text in stop if text], ""

    def text_of(self, id: int) -> str:
        """The text that is certain; what may be the beginning of a stop text is held back."""
        return self._release(self.texts.write(id))

    def finish(self) -> str:
        if self.stopped:
            return ""
        rest = self._release(self.texts.finish()) + self.held
        self.held, self.stopped = "", True
        return rest

    def _release(self, text: str) -> str:
        self.held += text
        found = [place for place in (self.held.find(stop) for stop in self.stop) if place >= 0]
        if found:
            text, self.held, self.stopped = self.held[: min(found)], "", True
            return text
        keep = max((n for stop in self.stop for n in range(1, len(stop)) if self.held.endswith(stop[:n])), default=0)
        cut = len(self.held) - keep
        text, self.held = self.held[:cut], self.held[cut:]
        return text


def before(text: str, stop: Sequence[str]) -> str:
    """What stands before the first of the stop texts."""
    return text[: min((place for place in map(text.find, filter(None, stop)) if place >= 0), default=None)]


def pieces(
    session: Session, rows: Sequence[Written], sampling: Sampling | None, search: Search = Search(),
    generator: torch.Generator | None = None,
) -> Iterator[list[str]]:  # fmt: skip
    """Write in every row until all have ended; yields the next piece of each, which may be nothing. What is
    searched for comes all at once."""
    if sampling is None and not search.greedy:
        texts = beam_search(session, rows[0].ends, session.most, search)
        yield ["".join(map(row.write, found.ids)) + row.finish() for row, found in zip(rows, texts, strict=True)]
        return
    for ids in draw(session, session.most, sampling or GREEDY, generator):
        yield [row.write(id) for row, id in zip(rows, ids.tolist(), strict=True)]
        if all(row.stopped for row in rows):
            break
    yield [row.finish() for row in rows]


def generator_of(seed: int | None, model: Model) -> torch.Generator | None:
    """What chance is drawn with on the model's device; None: with torch's own."""
    return None if seed is None else seeded(seed, next(model.parameters()).device)


# -------------------------------------------------------------------------------------------------------------- prompts


def stream_prompts(
    model: Model, name: str, task: LanguageModeling, prompts: Sequence[str | None], *, max_tokens: int = 200,
    sampling: Sampling | None = None, search: Search | None = None, stop: Sequence[str] = (), seed: int | None = None,
    cached: bool = True, say: Callable[[str], None] = print,
) -> Iterator[list[str]]:  # fmt: skip
    """Yield the next piece of text of every prompt until all have stopped: at a `stop` text (left out), at an id
    that ends a text, or after `max_tokens`. A prompt of None starts a new document. `name` is the task's. `say`
    hears notices."""
    encoding, context = task.text, model.context
    if others := [other for other in model.inputs if other != task.target]:
        say(f"{task.target!r} is written without {', '.join(others)}: none is given (--input NAME=VALUE)")
    rows = [encoding.prompted(prompt) for prompt in prompts]
    for number, row in enumerate(rows, start=1):
        if len(row) > context:
            say(f"prompt {number} has {len(row)} tokens; only the last {context} (the context) are read")
    session = Session.of_texts(model, rows, input=task.target, task=name, vocabulary=encoding.vocabulary,
                               most=max_tokens, cached=cached)  # fmt: skip
    written = [WrittenText(encoding.stream(row[-context:]), encoding.ends, stop) for row in rows]
    sampling = Sampling() if sampling is None and search is None else sampling
    yield from pieces(session, written, sampling, search or Search(), generator_of(seed, model))


def joined(streamed: Iterator[Sequence[str]], count: int) -> list[str]:
    """The whole texts of so many rows that were streamed."""
    texts = [""] * count
    for each in streamed:
        texts = [text + piece for text, piece in zip(texts, each, strict=True)]
    return texts


def with_sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a stream, among which the fields of `Sampling` may stand by themselves: `temperature=0`."""
    own = {field.name: options[field.name] for field in fields(Sampling) if field.name in options}
    rest = {name: value for name, value in options.items() if name not in own}
    return rest | {"sampling": Sampling(**own)} if own else rest


# -------------------------------------------------------------------------------------------------------------- samples


def open_answers(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places: Sequence[Place], *,
    inputs: Collection[str] | None = None, prompt: str = "", most: int | None = None, cached: bool = True,
) -> tuple[list[int], Session | None]:  # fmt: skip
    """A session that writes the texts of these samples, and the samples' numbers; bad ones are left out (None:
    all are bad). The samples' own texts are not read: every one begins with `prompt`. `inputs`: the only others
    that are read."""
    batch = split.read(places, inputs=inputs, rows="one_each", replaced={task.target: prompt})
    numbers = [split.reader.number(key) for key in batch.first.keys]
    if not numbers:
        return [], None
    return numbers, Session(model, batch, input=task.target, task=name, vocabulary=task.text.vocabulary, most=most,
                            cached=cached)  # fmt: skip


def write_texts(
    model: Model,
    name: str,
    task: LanguageModeling,
    split: SampleSplit,
    places: Sequence[Place],
    *,
    inputs: Collection[str] | None = None,
    prompt: str = "",
    sampling: Sampling | None = None,
    search: Search | None = None,
    generator: torch.Generator | None = None,
    most: int | None = None,
    cached: bool = True,
) -> dict[int, str]:
    """What the model says to these samples, without their own text, by the samples' numbers; bad samples are left out.

    `prompt` is how every text begins (it is not given back); `most` is how many tokens are written at most. A text is
    searched for, as the task says or `search`, but drawn at random where `sampling` is given.
    """
    numbers, session = open_answers(
        model, name, task, split, places, inputs=inputs, prompt=prompt, most=most, cached=cached
    )
    if session is None:
        return {}
    rows = [Written(task.text.ends) for _ in numbers]
    for _ in pieces(session, rows, sampling, search or task.search, generator):
        pass
    return {number: task.written(row.ids) for number, row in zip(numbers, rows)}


def stream_texts(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places: Sequence[Place], *, prompt: str = "",
    max_tokens: int | None = None, sampling: Sampling | None = None, search: Search | None = None,
    stop: Sequence[str] = (), seed: int | None = None, cached: bool = True,
) -> Iterator[list[str]]:  # fmt: skip
    """The same texts piece by piece, each up to a `stop` text (left out). Raises DataError where one of the
    samples is bad."""
    _, session = open_answers(model, name, task, split, places, prompt=prompt, most=max_tokens, cached=cached)
    for number in [place.number for place in places if place.number in split.unread.bad]:
        raise DataError(split.unread.bad[number])
    rows = [WrittenText(DecodedStream(task.written), task.text.ends, stop) for _ in places]
    yield from pieces(session, rows, sampling, search or task.search, generator_of(seed, model))
