"""Grammars: a text is generated so that it is well-formed: a regular expression, a context-free grammar, JSON.

The library llguidance keeps the state of the grammar; it needs the extra `grammar`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...files.reading import DataError, read_text
from ...models.generation.constraints import Constraint
from .base import Encoding

KEPT = 4096
"""How many states are kept, by the ids that lead to them."""


class Grammar(Constraint):
    """Which ids of an encoding may follow those of a text so far.

    `grammar` is a file, `.lark` (a context-free grammar, in llguidance's dialect of Lark) or `.json` (a JSON Schema;
    between two marks of JSON stands a space or none, unless its "x-guidance" says otherwise), else a regular expression
    that the whole text must match: `[0-9]+[+][0-9]+=[0-9]+`. Raises ValueError for one that is none, DataError where
    the library is missing or the file cannot be read.
    """

    def __init__(self, encoding: Encoding, grammar: str):
        self.encoding, self.grammar = encoding, grammar
        try:
            import llguidance
        except ImportError:
            raise DataError("a grammar needs the package llguidance: pip install 'chopmix[grammar]'") from None
        matcher = llguidance.LLMatcher
        try:
            compiled = _compiled(matcher, grammar)
        except DataError:
            raise
        except ValueError as error:
            raise ValueError(f"grammar {grammar!r}: {_first_line(str(error))}") from None
        self.root = matcher(_pieces(llguidance, encoding), compiled, log_level=0)
        if self.root.is_error():
            raise ValueError(f"grammar {grammar!r}: {_first_line(self.root.get_error())}")
        self.states: dict[tuple[int, ...], Any] = {(): self.root}
        if not self.allowed((), encoding.size).any():
            raise ValueError(f"grammar {grammar!r} allows nothing that the vocabulary of this run can write")

    def allowed(self, ids, size):
        state = self._state(tuple(ids))
        bits = np.unpackbits(np.frombuffer(state.compute_bitmask(), np.uint8), bitorder="little")
        found = torch.zeros(size, dtype=torch.bool)
        found[: self.encoding.size] = torch.from_numpy(bits[: self.encoding.size].astype(bool))
        found[list(self.encoding.ends)] = state.is_accepting()  # where nothing may follow, the mask has the end
        return found

    def is_whole(self, text: str) -> bool:
        """Whether a text that it allows, of this encoding, may end where it does."""
        return bool(self._state(tuple(self.encoding.encode(text))).is_accepting())

    def _state(self, ids: tuple[int, ...]) -> Any:
        """The matcher after these ids."""
        if ids not in self.states:
            if len(self.states) > KEPT:
                self.states = {(): self.root}
            before = ids[:-1] if ids[:-1] in self.states else ()
            state = self.states[before].deep_copy()
            if not state.consume_tokens(list(ids[len(before) :])):
                raise ValueError(f"grammar {self.grammar!r} does not allow {self.encoding.decode(ids)!r}")
            self.states[ids] = state
        return self.states[ids]


def _compiled(matcher: Any, grammar: str) -> str:
    """A grammar as the library takes it. Raises ValueError for a JSON Schema that is no JSON."""
    if grammar.endswith(".lark"):
        return matcher.grammar_from_lark(read_text(Path(grammar)))
    if grammar.endswith(".json"):
        return matcher.grammar_from_json_schema(read_text(Path(grammar)), defaults={"whitespace_pattern": " ?"})
    return matcher.grammar_from_regex(grammar)


def _pieces(llguidance: Any, encoding: Encoding) -> Any:
    """The encoding as the library takes it: the bytes of each id, special ones by their names."""

    class Pieces:
        eos_token_id, bos_token_id = encoding.end, encoding.start
        special_token_ids = [id for id in range(encoding.size) if not encoding.pieces[id]]
        tokens: Sequence[bytes] = [
            piece or encoding.specials.get(id, f"<|{id}|>").encode() for id, piece in enumerate(encoding.pieces)
        ]

        def __call__(self, text: str | bytes) -> list[int]:
            return encoding.encode(text.decode() if isinstance(text, bytes) else text)

    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Pieces()))


def _first_line(error: str) -> str:
    """The first line of an error, and the line further down that says more."""
    first, *others = error.strip().splitlines() or ["it is no grammar"]
    return " ".join([first, *(line.removeprefix("error: ") for line in others if line.startswith("error: "))])
