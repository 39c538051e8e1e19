"""Published weights under our names: what the importers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

DIRECT = {"weight", "bias"}
OLDER = {"gamma": "weight", "beta": "bias"}
"""What the first published BERTs call the gain and shift of their normalisations."""


class Weights(NamedTuple):
    """A published model's tensors under the keys of our `Model`."""

    tensors: dict[str, Tensor]
    """What has no place here, and is not known to have none, stays under its own name."""
    unread: tuple[str, ...] = ()
    """The names of tensors that nothing here reads (BERT's pooler), to be told."""


def renamed(
    theirs: Mapping[str, Tensor], outside: Mapping[str, str], layers: Mapping[str, tuple[str, Mapping[str, str]]], *,
    copies: Mapping[str, str] | None = None, computed: tuple[str, ...] = (), unread: tuple[str, ...] = (),
) -> Weights:  # fmt: skip
    """Their tensors under our keys.

    `outside` renames stems (a key without its `.weight` or `.bias`) or whole keys; `layers` maps the beginning of a numbered
    layer, `encoder.layer.`, to ours and to the names of the parts inside. `copies` are keys of tensors that must equal another
    one (a tied head); keys that end in `computed` are numbers that we make ourselves; those that begin with `unread` have no
    place here. Raises ValueError for a copy that is none.
    """
    found, left = {}, []
    for key, value in theirs.items():
        name = _renamed(key, outside, layers)
        if name is None and copies and key in copies:
            original = theirs.get(copies[key])
            if original is not None and not torch.equal(value, original):
                raise ValueError(f"{key} differs from {copies[key]}, of which it should be a copy; not reproduced")
            found |= {} if original is not None else {_renamed(copies[key], outside, layers) or key: value}
        elif name is None and key.startswith(unread or ("\0",)):
            left.append(key)
        elif name is not None or not key.endswith(computed or ("\0",)):
            found[name or key] = value
    return Weights(found, tuple(left))


def _renamed(key: str, outside: Mapping[str, str], layers: Mapping) -> str | None:
    if key in outside:
        return outside[key]
    stem, _, leaf = key.rpartition(".")
    leaf = OLDER.get(leaf, leaf)
    if leaf in DIRECT and stem in outside:
        return f"{outside[stem]}.{leaf}"
    for beginning, (ours, names) in layers.items():
        if key.startswith(beginning):
            number, _, part = stem.removeprefix(beginning).partition(".")
            if part in names and number.isdecimal():
                return f"{ours}{number}.{names[part]}.{leaf}"
    return None
