"""Grammars constrain generated text to a regular expression, a context-free grammar or a JSON Schema.

The library llguidance (extra `grammar`) determines which ids may follow the generated text.
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
"""The number of states that are cached, by the ids that lead to them."""


class Grammar(Constraint):
    """A constraint for generation: decides which ids of an encoding may follow the ids of an incomplete text.

    `grammar` is the path of a file, or a regular expression that the complete text must match, such as
    `[0-9]+[+][0-9]+=[0-9]+`. A `.lark` file contains a context-free grammar in llguidance's dialect of Lark, a `.json`
    file a JSON Schema. Generated JSON has at most one space between two tokens of JSON, unless the key "x-guidance" of
    the schema sets otherwise. Raises DataError if the library is missing or the file cannot be read, and ValueError if
    llguidance rejects the grammar or the grammar allows no text of the vocabulary.
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
            raise ValueError(f"grammar {grammar!r} allows no text that the vocabulary of this run can encode")

    def allowed(self, ids, size):
        state = self._state(tuple(ids))
        bits = np.unpackbits(np.frombuffer(state.compute_bitmask(), np.uint8), bitorder="little")
        is_allowed = torch.zeros(size, dtype=torch.bool)
        is_allowed[: self.encoding.size] = torch.from_numpy(bits[: self.encoding.size].astype(bool))
        # llguidance's mask contains the end id whenever no other id may follow
        is_allowed[list(self.encoding.ends)] = state.is_accepting()
        return is_allowed

    def is_whole(self, text: str) -> bool:
        """Returns whether the grammar allows a text to end after its last character. Raises ValueError if the grammar
        does not allow the text at all."""
        return bool(self._state(tuple(self.encoding.encode(text))).is_accepting())

    def _state(self, ids: tuple[int, ...]) -> Any:
        """Returns the matcher after these ids. Raises ValueError if the grammar does not allow them."""
        if ids not in self.states:
            if len(self.states) > KEPT:
                self.states = {(): self.root}
            prefix = ids[:-1] if ids[:-1] in self.states else ()
            state = self.states[prefix].deep_copy()
            if not state.consume_tokens(list(ids[len(prefix) :])):
                raise ValueError(f"grammar {self.grammar!r} does not allow {self.encoding.decode(ids)!r}")
            self.states[ids] = state
        return self.states[ids]


def _compiled(matcher: Any, grammar: str) -> str:
    """Returns a grammar in the format of llguidance. Raises DataError if a file cannot be read, and ValueError if
    llguidance rejects the grammar."""
    if grammar.endswith(".lark"):
        return matcher.grammar_from_lark(read_text(Path(grammar)))
    if grammar.endswith(".json"):
        return matcher.grammar_from_json_schema(read_text(Path(grammar)), defaults={"whitespace_pattern": " ?"})
    return matcher.grammar_from_regex(grammar)


def _pieces(llguidance: Any, encoding: Encoding) -> Any:
    """Returns the encoding as an `llguidance.LLTokenizer`, with the bytes of each id and the names of special ids."""

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
    """Returns the first line of an error message and all later lines that begin with "error: " (without this prefix),
    as one line."""
    first, *others = error.strip().splitlines() or ["it is not a grammar"]
    return " ".join([first, *(line.removeprefix("error: ") for line in others if line.startswith("error: "))])
