"""Generation of texts: continuing prompts, or answering samples; whole, or streamed piece by piece.

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
    session: Session, rows: Sequence[Written], sampling: Sampling | None, search: Search = Search(),
    generator: torch.Generator | None = None,
) -> Iterator[list[str]]:  # fmt: skip
    """Generate in every row until all have ended, at most `session.most` tokens; yields the next piece of text of each
    row, which may be empty. Beam search yields whole texts at once."""
    if sampling is None and not search.greedy:
        texts = beam_search(session, rows[0].ends, session.most, search)
        yield ["".join(map(row.write, found.ids)) + row.finish() for row, found in zip(rows, texts, strict=True)]
        return
    for ids in draw(session, session.most, sampling or Sampling(temperature=0), generator):
        yield [row.write(id) for row, id in zip(rows, ids.tolist(), strict=True)]
        if all(row.stopped for row in rows):
            break
    yield [row.finish() for row in rows]


def generator_of(seed: int | None, model: Model) -> torch.Generator | None:
    """The random generator of this seed on the model's device; without a seed None, which stands for torch's own."""
    return None if seed is None else seeded(seed, next(model.parameters()).device)


# -------------------------------------------------------------------------------------------------------------- prompts


def stream_prompts(
    model: Model, name: str, task: LanguageModeling, prompts: Sequence[str | None], *, max_tokens: int = 200,
    sampling: Sampling | None = None, search: Search | None = None, stop: Sequence[str] = (), seed: int | None = None,
    cached: bool = True, say: Callable[[str], None] = print,
) -> Iterator[list[str]]:  # fmt: skip
    """Yield the next piece of text of every prompt until all have stopped: at a `stop` text (left out), at an id
    that ends a text, or after `max_tokens`. A prompt of None starts a new document. `name` is the task's. Texts are
    drawn with `sampling` (and `seed`); with neither it nor `search` at temperature 1. `say` is called with notices."""
    encoding, context = task.vocabulary, model.context
    if others := [other for other in model.inputs if other != task.target]:
        say(f"{task.target!r} is written without {', '.join(others)}: none is given (--input NAME=VALUE)")
    rows = [encoding.prompted(prompt) for prompt in prompts]
    for number, row in enumerate(rows, start=1):
        if len(row) > context:
            say(f"prompt {number} has {len(row)} tokens; only the last {context} (the context) are read")
    session = Session.of_texts(model, rows, input=task.target, task=name, vocabulary=encoding.size,
                               most=max_tokens, cached=cached)  # fmt: skip
    written = [WrittenText(encoding.stream(row[-context:]), encoding.ends, stop) for row in rows]
    sampling = Sampling() if sampling is None and search is None else sampling
    yield from pieces(session, written, sampling, search or Search(), generator_of(seed, model))


def joined(streamed: Iterator[Sequence[str]], count: int) -> list[str]:
    """The whole texts of `count` rows that were streamed in pieces."""
    return ["".join(pieces) for pieces in zip([""] * count, *streamed, strict=True)]


def with_sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a stream, in which fields of `Sampling` become one: `{"temperature": 0, "seed": 1}` becomes
    `{"seed": 1, "sampling": Sampling(temperature=0)}`."""
    own = {field.name: options[field.name] for field in fields(Sampling) if field.name in options}
    rest = {name: value for name, value in options.items() if name not in own}
    return rest | {"sampling": Sampling(**own)} if own else rest


# -------------------------------------------------------------------------------------------------------------- samples


def open_answers(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places: Sequence[Place], *,
    inputs: Collection[str] | None = None, prompt: str = "", most: int | None = None, cached: bool = True,
) -> tuple[list[int], Session | None]:  # fmt: skip
    """The numbers of these samples, without bad ones, and a session that generates their texts (None: all are bad). The
    samples' own texts are not read: every one begins with `prompt`. `inputs`, where given, are the only others that
    are read. `most`, `cached`: as of a Session."""
    batch = split.read(places, inputs=inputs, rows="one_each", replaced={task.target: prompt})
    numbers = [split.reader.number(key) for key in batch.first.keys]
    if not numbers:
        return [], None
    return numbers, Session(model, batch, input=task.target, task=name, vocabulary=task.vocabulary.size, most=most,
                            cached=cached)  # fmt: skip


def write_texts(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places: Sequence[Place], *,
    inputs: Collection[str] | None = None, prompt: str = "", sampling: Sampling | None = None,
    search: Search | None = None, generator: torch.Generator | None = None, most: int | None = None,
    cached: bool = True,
) -> dict[int, str]:  # fmt: skip
    """The texts that the model generates from the other inputs of these samples, by the samples' numbers; bad samples
    are left out.

    `prompt` is how every text begins (it is not given back); at most `most` tokens are generated. A text is searched
    for, as the task says or by `search`, but drawn at random where `sampling` is given.
    """
    numbers, session = open_answers(model, name, task, split, places, inputs=inputs, prompt=prompt, most=most,
                                    cached=cached)  # fmt: skip
    if session is None:
        return {}
    rows = [Written(task.vocabulary.ends) for _ in numbers]
    for _ in pieces(session, rows, sampling, search or task.search, generator):
        pass
    return {number: task.restore(row.ids) for number, row in zip(numbers, rows)}


def stream_texts(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places: Sequence[Place], *, prompt: str = "",
    max_tokens: int | None = None, sampling: Sampling | None = None, search: Search | None = None,
    stop: Sequence[str] = (), seed: int | None = None, cached: bool = True,
) -> Iterator[list[str]]:  # fmt: skip
    """The texts of `write_texts` piece by piece, each up to a `stop` text (left out). Raises DataError where one of the
    samples is bad."""
    _, session = open_answers(model, name, task, split, places, prompt=prompt, most=max_tokens, cached=cached)
    for number in [place.number for place in places if place.number in split.unread.bad]:
        raise DataError(split.unread.bad[number])
    rows = [WrittenText(DecodedStream(task.restore), task.vocabulary.ends, stop) for _ in places]
    yield from pieces(session, rows, sampling, search or task.search, generator_of(seed, model))


def written_pairs(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places, inputs, rows: int
) -> list[tuple[str, str]]:  # fmt: skip
    """(hypothesis, reference) pairs of the samples at these places: the text that the model generates from the other
    inputs (only those of `inputs`, where given) by the task's search, and the true one. Samples without a reference are
    left out: any text would be wrong for them."""
    found: list[tuple[str, str]] = []
    places = [each for each in places if reference(split, each, task.target) is not None]
    for first in range(0, len(places), max(rows, 64)):
        texts = write_texts(model, name, task, split, places[first : first + max(rows, 64)], inputs=inputs)
        found += [(text, split.item(number)[0][task.target]) for number, text in texts.items()]
    return found


def reference(split: SampleSplit, place: Place, target: str) -> str | None:
    """The true text of a sample; None where it has none, or is bad."""
    try:
        return split.item(place.number)[0].get(target)
    except ValueError:
        return None
