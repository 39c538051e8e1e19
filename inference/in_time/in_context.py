"""What a model has learned to learn: its error after k examples in its context, beside rivals that are fitted to these
examples, and whether its layers hold what ridge regression would have found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...data.samples.split import SampleSplit
from ...models.model import Model, at
from ...tasks.next_item import NextItem
from .rivals import RIVALS, errors_of, ridge_weights


@dataclass(frozen=True)
class Seen:
    """n functions, each with k points and values, and what the model makes of them."""

    x: Float[Tensor, "n k d"]
    y: Float[Tensor, "n k"]
    predicted: Float[Tensor, "n k"]
    """The value that the model expects at each point, from the pairs before it."""
    hidden: Mapping[str, Float[Tensor, "l n k w"]]
    """The vectors of width w before the first layer and after each, at each `point` and at each `value`."""

    def errors(self, left_out: int = 0) -> list[float]:
        """The mean squared error after 0, 1, 2, ... examples, without the first functions."""
        return (self.predicted - self.y)[left_out:].square().mean(0).tolist()


@torch.no_grad()  # a rival is fitted by gradients to what is read here
def seen(model: Model, name: str, task: NextItem, split: SampleSplit, rows: int = 64) -> Seen:
    """Let the model read all samples of a split."""
    gathered: dict[str, list[Tensor]] = {key: [] for key in ("x", "y", "predicted", "point", "value")}
    outputs: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda _, __, output: outputs.append(output)) for block in model.core.blocks]
    hooks.append(model.core.embedding_dropout.register_forward_hook(lambda _, __, output: outputs.append(output)))
    places = split.all()
    for start in range(0, len(places), rows):
        outputs.clear()
        numbers = [place.number for place in places[start : start + rows]]
        batch = model.plan(split.batch(places[start : start + rows]))
        targets, items = batch.targets[name], [split.item(number)[0] for number in numbers]
        hidden = model.read(batch).main
        output = task.chopper.measured(model.heads[name](at(hidden, targets), targets).float())[:, 0]
        shape = (len(items), -1)
        gathered["x"].append(torch.stack([item[task.at] for item in items]).double())
        gathered["y"].append(torch.stack([item[task.target][:, 0] for item in items]).double())
        gathered["predicted"].append(output.view(shape).double())
        for place, where in (("point", targets), ("value", replace(targets, slots=targets.carriers))):
            layers = [at(each, where).view(len(items), -1, each.shape[-1]).double() for each in outputs]
            gathered[place].append(torch.stack(layers))
    for hook in hooks:
        hook.remove()
    hidden = {place: torch.cat(gathered.pop(place), dim=1) for place in ("point", "value")}
    return Seen(**{key: torch.cat(parts) for key, parts in gathered.items()}, hidden=hidden)


def curves(found: Seen, rivals: Sequence[str], tuned: int, say: Callable[[str], None]) -> dict[str, list[float]]:
    """The error after k examples of the model, and of each rival, on all functions but the first `tuned`, on which the
    rivals' settings are chosen; each rival's name is told before it is fitted."""
    fitted = {"model": found.errors(tuned)}
    for name in rivals:
        say(name)
        fitted[name] = errors_of(RIVALS[name], found.x, found.y, tuned)
    return fitted


def probe(found: Seen, k: int, weight: float) -> dict[str, list[float]]:
    """How well a linear map reads ridge's weights, after k examples, off each layer, by where it reads: at the next
    `point`, and off the mean over the k `values`. R2 on half of the functions of a map fitted to the other half, before
    the first layer and after each (Akyurek et al. 2023, arXiv:2211.15661, probe so)."""
    wanted = ridge_weights(found.x[:, :k], found.y[:, :k], weight)
    half = len(wanted) // 2

    def score(vectors: Float[Tensor, "n w"]) -> float:
        vectors = torch.cat([vectors, torch.ones(len(vectors), 1, dtype=vectors.dtype)], dim=1)
        fitted = ridge_weights(vectors[None, :half].expand(wanted.shape[1], -1, -1), wanted[:half].T, 1.0)
        error = (vectors[half:] @ fitted.T - wanted[half:]).square().sum()
        return 1 - float(error / (wanted[half:] - wanted[half:].mean(0)).square().sum())

    return {
        "the next point": [score(layer[:, k]) for layer in found.hidden["point"]],
        "the mean of the values": [score(layer[:, :k].mean(1)) for layer in found.hidden["value"]],
    }


def rows_of(lines: Mapping[str, Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """The curves by where they were taken, `{"as trained": {"model": [...], "ridge": [...]}}`, as rows of a table."""
    return [
        {"where": where, "examples": k, **{name: curve[k] for name, curve in each.items()}}
        for where, each in lines.items()
        for k in range(len(next(iter(each.values()))))
    ]
