"""Published weights under our names: what the importers of whole families (BERT, T5, Llama, Whisper) share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

DIRECT = {"weight", "bias"}
OLDER = {"gamma": "weight", "beta": "bias"}
"""What the first published BERTs call the gain and shift of their normalisations."""


def renamed(
    theirs: Mapping[str, Tensor], outside: Mapping[str, str], layers: Mapping[str, tuple[str, Mapping[str, str]]],
    ignored: tuple[str, ...] = (),
) -> dict[str, Tensor]:  # fmt: skip
    """Their tensors under the keys of our `Mixture`.

    `outside` renames stems (a key without its `.weight` or `.bias`) or whole keys; `layers` maps the beginning of a numbered
    layer, `encoder.layer.`, to ours and to the names of the parts inside; keys that begin with one of `ignored` are passed
    over. What has no place here stays under its own name.
    """
    found = {}
    for key, value in theirs.items():
        name = _renamed(key, outside, layers)
        if name is not None or not key.startswith(ignored or ("\0",)):
            found[name or key] = value
    return found


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


def require(config: Mapping[str, Any], exact: Mapping[str, Any]) -> None:
    """Raises ValueError for the first option of a `config.json` whose value we do not reproduce exactly: `exact` holds the
    only one (or a tuple of those) that we do. What is not there has the value that we do."""
    for name, possible in exact.items():
        values = possible if isinstance(possible, tuple) else (possible,)
        if name in config and config[name] not in values:
            shown = " or ".join(map(repr, values))
            raise ValueError(f"config.json: {name} is {config[name]!r}; only {shown} is reproduced exactly")
