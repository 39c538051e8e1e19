"""The part of a page in which a reader selects a token and sees which tokens it attends to (`web/explorer.js`).

Each view is a stack of matrices: the attention of a layer with one matrix per head, the rollout, the attention graph.
The page contains their weights with 8 bits, compressed: a byte b of a row with the maximum w is the weight b / 255 * w.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from ..files.pictures import COLOURS
from ..files.reading import DataError
from ..models.batch import SetPlan
from ..models.tokens import CORE, PADDING
from ..tokenizers.base import Chopper
from ..tokenizers.encoded import EncodedChopper
from .document import drawing
from .pages import PICTURED

MOST_TOKENS = 256
"""The largest number of tokens of a set that a page shows separately."""
PAGE_BYTES = 5_000_000
"""The largest size of the weights on a page, unless the layers are selected."""
KINDS = {
    "attention": "attention", "cross": "cross-attention", "rollout": "rollout (all layers)",
    "graph": "attention graph", "reachable": "reachable after layer",
}  # fmt: skip
"""The kinds of views and their names on the page."""
SHARES = ("attention", "cross", "rollout")
"""The kinds whose numbers are weights; the others contain 0 or 1."""


@dataclass(frozen=True)
class View:
    """The weights with which the tokens of a set read those of a set, with one matrix per head. `layer` counts from 1;
    0: all layers together."""

    kind: str
    layer: int
    queries: int
    """The number of the set whose tokens read."""
    keys: int
    weights: Float[Tensor, "h n m"]


@dataclass(frozen=True)
class ShownSet:
    """A set of a sample as the page shows it. Tokens without a sample (padding) are not shown, and in sets of more than
    MOST_TOKENS tokens, neighbouring tokens of an input are shown as one."""

    name: str
    plan: SetPlan
    inputs: Mapping[str, Any]
    """The decoded items of the sample by input; empty for a window of a corpus."""
    groups: Sequence[Sequence[int]] = field(default_factory=list)
    """The slots of each shown token."""
    writes: Mapping[int, str] = field(default_factory=dict)
    """The text that a trained model predicts at a slot, for tasks that generate tokens."""

    @property
    def pooled(self) -> bool:
        """Whether a shown token can stand for several tokens."""
        return any(len(group) > 1 for group in self.groups)


def shown_set(name: str, plan: SetPlan, inputs: Mapping[str, Any]) -> ShownSet:
    """Returns the first row of a set as the page shows it."""
    tokens = plan.tokens
    slots = (tokens.sample[0] != PADDING).nonzero()[:, 0].tolist()
    owners, size = tokens.input[0].tolist(), 1
    while True:
        groups: list[list[int]] = []
        for slot in slots:
            last = groups[-1] if groups else []
            if last and len(last) < size and owners[last[-1]] == owners[slot] and last[-1] == slot - 1:
                last.append(slot)
            else:
                groups.append([slot])
        if len(groups) <= MOST_TOKENS or size > len(slots):
            return ShownSet(name, plan, inputs, groups)
        size += 1


def pooled(
    weights: Float[Tensor, "h n m"], queries: ShownSet, keys: ShownSet, kind: str = "attention"
) -> Float[Tensor, "h q k"]:
    """Returns the weights between shown tokens: the sum over the tokens of a key, and the mean over those of a query.
    For kinds that are not SHARES: 1 if there is a 1 between any of the tokens."""
    shares = kind in SHARES
    columns = [weights[:, :, group].sum(-1) if shares else weights[:, :, group].amax(-1) for group in keys.groups]
    rows = torch.stack(columns, dim=-1)
    return torch.stack(
        [rows[:, group].mean(1) if shares else rows[:, group].amax(1) for group in queries.groups], dim=1
    )


def quantised(weights: Float[Tensor, "h q k"]) -> tuple[UInt8[Tensor, "h q k"], Float[Tensor, "h q"]]:
    """Returns (bytes, maximum of each row). A byte b is the weight b / 255 * maximum."""
    highest = weights.amax(-1)
    scaled = weights / highest.clamp(min=1e-30)[..., None]
    return (scaled * 255).round().to(torch.uint8), highest.float()


def check_layers(layers: Sequence[int], depth: int) -> None:
    """Raises DataError for a layer that the model does not have."""
    for layer in layers:
        if not 1 <= layer <= depth:
            raise DataError(f"--layers {layer}: the model has the layers 1 to {depth}")


def spread_layers(depth: int, number: int) -> list[int]:
    """Returns `number` of the layers 1 to `depth`, spread evenly, with the last one, and with the first one if there
    are at least two."""
    if number == 1:
        return [depth]
    return sorted({1 + round(index * (depth - 1) / (number - 1)) for index in range(number)})


@dataclass(frozen=True)
class Explorer:
    """The tokens and views of a sample."""

    sets: Sequence[ShownSet]
    views: Sequence[View]
    choppers: Mapping[str, Chopper]
    names: Sequence[str]
    """The names of the inputs, in their order in the set."""
    start: tuple[int, int] = (0, 0)
    """The set and the slot of the token that is selected first."""

    def html(self, layers: Sequence[int] = (), most: int = PAGE_BYTES) -> tuple[str, list[str]]:
        """Returns (HTML, remarks): the explorer, and sentences about pooled tokens and missing layers. `layers`: the
        layers whose attention is shown; empty: all of them, or, if the page would be larger than `most` bytes, as many
        as fit, spread evenly. Raises DataError for a layer that the model does not have."""
        depth = max((view.layer for view in self.views), default=0)
        check_layers(layers, depth)
        chosen, remarks = list(layers) or list(range(1, depth + 1)), self.remarks()
        content, data = self.packed(chosen)
        while not layers and len(content) > most and len(chosen) > 1:
            fitting = math.floor(len(chosen) * most / len(content))
            chosen = spread_layers(depth, max(1, min(fitting, len(chosen) - 1)))
            content, data = self.packed(chosen)
        if len(chosen) < depth:
            shown = ", ".join(map(str, chosen))
            remarks.append(f"Of {depth} layers, the page contains {shown}; --layers selects others.")
        text = json.dumps(data, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
        return (
            "<div class=explorer id=explorer></div>"
            f"<script type=application/json id=explorer-data>{text}</script>"
            f"<script type=text/plain id=explorer-bytes>{content}</script>"
        ), remarks

    def remarks(self) -> list[str]:
        """Returns sentences about sets whose tokens are shown together."""
        counts = [(shown, sum(map(len, shown.groups))) for shown in self.sets if shown.pooled]
        return [
            f"The {shown.name or 'set'} has {count:,} tokens; neighbouring tokens are shown as one, "
            f"{len(shown.groups)} in total: weights are added over what is read, and averaged over what reads."
            for shown, count in counts
        ]

    def packed(self, layers: Sequence[int]) -> tuple[str, dict[str, Any]]:
        """Returns (the weights as compressed text, the description of the page for the script)."""
        maxima, rows, views, first, offset = [], [], [], 0, 0
        for view in self.views:
            if view.layer and view.layer not in layers:
                continue
            content, highest = quantised(pooled(view.weights, self.sets[view.queries], self.sets[view.keys], view.kind))
            heads, size, _ = content.shape
            views.append({"kind": view.kind, "layer": view.layer, "queries": view.queries, "keys": view.keys,
                          "heads": heads, "size": size, "first": first, "offset": offset})  # fmt: skip
            maxima.append(highest.flatten())
            rows.append(content.flatten())
            first, offset = first + heads * size, offset + content.numel()
        raw = torch.cat(maxima).numpy().astype("<f4").tobytes() + torch.cat(rows).numpy().tobytes()
        start_set, slot = self.start
        start = next((number for number, group in enumerate(self.sets[start_set].groups) if slot in group), 0)
        kinds = {view["kind"] for view in views}
        return base64.b64encode(zlib.compress(raw, 9)).decode(), {
            "rows": first, "views": views, "start": start, "colours": COLOURS,
            "names": {**{kind: KINDS[kind] for kind in KINDS if kind in kinds}, "share": dict.fromkeys(SHARES, True)},
            "sets": [self.set_data(shown) for shown in self.sets],
        }  # fmt: skip

    def set_data(self, shown: ShownSet) -> dict[str, Any]:
        """Returns the description of a set for the script: its tokens, and the panel of each input."""
        texts, names = token_texts(shown, self.choppers, self.names)
        owners = shown.plan.tokens.input[0].tolist()
        names = [
            name + "".join(f" (writes {shown.writes[slot]!r})" for slot in group if slot in shown.writes)
            for group, name in zip(shown.groups, names)
        ]
        tokens = [
            {"text": text, "name": name, "colour": colour_of(owners[group[0]])}
            for group, text, name in zip(shown.groups, texts, names)
        ]
        panels: dict[int, list[int]] = {}
        for number, group in enumerate(shown.groups):
            panels.setdefault(owners[group[0]], []).append(number)
        inputs = [
            {"name": "core" if owner == CORE else self.names[owner - 1], "colour": colour_of(owner), "slots": numbers,
             **({} if owner == CORE or shown.pooled else self.picture(shown, self.names[owner - 1], len(numbers)))}
            for owner, numbers in panels.items()
        ]  # fmt: skip
        return {"name": shown.name or "set", "tokens": tokens, "inputs": inputs}

    def picture(self, shown: ShownSet, name: str, count: int) -> dict[str, Any]:
        """Returns the picture of an input, and the row and column of each of its tokens in it. Empty for texts and
        other ids without a picture, and if the tokens have no place in a grid."""
        item = shown.inputs.get(name)
        if item is None or isinstance(item, str) or self.choppers[name].kind == "text":
            return {}
        chopper = self.choppers[name]
        places = grid_places(chopper, shown.plan, name, count)
        if places is None:
            return {}
        rows, columns = (max(place[axis] for place in places) for axis in (0, 1))
        side = min(320 / columns, 320 / rows, 40) if rows > 1 else 0
        width, height = (columns * side, rows * side) if rows > 1 else (min(max(count * 26, 120), 560), 110)
        picture = drawing(lambda canvas: chopper.draw(canvas, item), (width / 60, height / 60), bare=True)
        return {"picture": picture, "places": places, "rows": rows, "columns": columns, "width": round(width),
                "height": round(height), "style": "" if chopper.kind in PICTURED else "plot"}  # fmt: skip


def colour_of(owner: int) -> int:
    """Returns the number of the colour of an input. `owner`: the number of the input in the set; 0: core tokens."""
    return 0 if owner == CORE else (owner - 1) % (len(COLOURS) - 1) + 1


def grid_places(chopper: Chopper, plan: SetPlan, name: str, count: int) -> list[tuple[int, int]] | None:
    """Returns the row and the column of each token of an input in its picture, from 1. Tokens of images and videos have
    rows and columns; of spectrogram patches, the lowest mel channels are at the bottom; all other tokens are next to
    each other. Tokens of an encoded input have the places of the encoding run's tokens. Returns None if the tokens do
    not fill a grid."""
    chunks = plan.chunks[name]
    if isinstance(chopper, EncodedChopper) and chunks.inner is not None:
        return grid_places(chopper.run_chopper, chunks.inner, chopper.input, count)
    line = [(1, number + 1) for number in range(count)]
    if chunks.coordinates is None or len(chunks.coordinates) != count:
        return line
    axes = dict(zip(chopper.axes, rearrange(chunks.coordinates, "t a -> a t").tolist()))
    vertical = next((axis for axis in ("row", "mel") if axis in axes), None)
    if vertical is None:
        return line
    across = [axis for axis in ("seconds", "column") if axis in axes]
    ranks = {axis: {value: rank for rank, value in enumerate(sorted(set(axes[axis])))} for axis in (vertical, *across)}
    last = len(ranks[vertical])
    places = []
    for number in range(count):
        row = ranks[vertical][axes[vertical][number]]
        column = 0
        for axis in across:
            column = column * len(ranks[axis]) + ranks[axis][axes[axis][number]]
        places.append((last - row if vertical == "mel" else row + 1, column + 1))
    return places if len(set(places)) == count == last * max(column for _, column in places) else None


def place_name(axis: str, value: float) -> str:
    """Returns a coordinate as text: `row 2` (counted from 1, as tokens are), `until 0.48 s` (a token with the axis
    `seconds` depends on measurements until this time), `mel 16`."""
    if axis == "seconds":
        return f"until {value:.2f} s"
    return f"{axis} {value + 1 if axis in ('row', 'column') else value:.4g}"


def token_texts(shown: ShownSet, choppers: Mapping[str, Chopper], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns (texts, names) of the shown tokens: the text of an id or `·`, and a name such as `image 5 (row 2,
    column 1)`."""
    tokens, texts, named = shown.plan.tokens, {}, {}
    for slot, (owner, sample) in enumerate(zip(tokens.input[0].tolist(), tokens.sample[0].tolist())):
        if owner == CORE and sample != PADDING:
            texts[slot] = named[slot] = "class token" if not named else f"register {len(named)}"
    for name, chunks in shown.plan.chunks.items():
        vocabulary, axes = choppers[name].vocabulary, choppers[name].axes
        slots = list(range(chunks.values.numel())) if chunks.slots is None else chunks.slots.tolist()
        ids = None if vocabulary is None else chunks.values.flatten().tolist()
        for number, slot in enumerate(slots):
            if ids is not None and len(ids) == len(slots):
                text = vocabulary.shown(ids[number]).replace("\n", "⏎")
                is_start = text.startswith("<|") and ids[number] == vocabulary.start
                named[slot] = f"{name} {number + 1}: {'start token' if is_start else repr(text)}"
                texts[slot] = "▸" if is_start else text
                continue
            where = chunks.coordinates[number].tolist() if chunks.coordinates is not None else []
            places = ", ".join(place_name(axis, value) for axis, value in zip(axes, where) if value == value)
            texts[slot], named[slot] = "·", f"{name} {number + 1}" + (f" ({places})" if places else "")
    pairs = []
    for group in shown.groups:
        first, last = named.get(group[0], "token"), named.get(group[-1], "token")
        text = "".join(texts.get(slot, "·") for slot in group)
        pairs.append((text, first if len(group) == 1 else f"{first} to {last}"))
    return [text for text, _ in pairs], [name for _, name in pairs]
