"""What a model has learned to learn: its error after k examples in its context, compared with rivals that are fitted to
the same examples, and whether its layers hold what ridge regression would have found. All figures have standard
errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...data.split import SampleSplit
from ...models.model import Model, at
from ...tasks.next_item import NextItem
from .rivals import RIVALS, errors_of, ridge_weights

ERROR = " se"
"""The end of the name of a column with standard errors."""

PENALTY = 1e-4
"""Of the probe's ridge regression, as a share of the mean square of its vectors."""

Errors = Mapping[str, Float[Tensor, "m k"]]
"""The squared error of m functions after 0, 1, 2, ... examples, by who predicts: `model`, or the name of a rival."""
Scores = Mapping[str, Sequence[tuple[float, float]]]
"""R2 and its standard error before the first layer and after each, by where it was read."""


@dataclass(frozen=True)
class Seen:
    """n functions, each with k points and values, and what the model makes of them."""

    x: Float[Tensor, "n k d"]
    y: Float[Tensor, "n k"]
    predicted: Float[Tensor, "n k"]
    """The value that the model expects at each point, from the pairs before it."""
    depth: int = 0
    """After how many examples the vectors were read."""
    vectors: Mapping[str, Float[Tensor, "l n w"]] = field(default_factory=dict)
    """The vectors of width w before the first layer and after each: at `the next point`, and the mean over the values
    so far (`the mean of the values`)."""


@torch.no_grad()
def seen(model: Model, name: str, task: NextItem, split: SampleSplit, depth: int = 0, rows: int = 64) -> Seen:
    """Let the model read all samples of a split; with `depth`, keep the vectors after so many examples."""
    gathered: dict[str, list[Tensor]] = {key: [] for key in ("x", "y", "predicted")}
    kept: dict[str, list[Tensor]] = {"the next point": [], "the mean of the values": []}
    outputs: list[Tensor] = []
    watched = [model.core.embedding_dropout, *model.core.blocks] if depth else []
    hooks = [each.register_forward_hook(lambda _, __, output: outputs.append(output)) for each in watched]
    places = split.all()
    for start in range(0, len(places), rows):
        outputs.clear()
        numbers = [place.number for place in places[start : start + rows]]
        batch = model.plan(split.batch(places[start : start + rows]))
        targets, items = batch.targets[name], [split.item(number)[0] for number in numbers]
        hidden = model.read(batch).main
        output = task.chopper.measured(model.heads[name](at(hidden, targets), targets).float())[:, 0]
        gathered["x"].append(torch.stack([item[task.at] for item in items]).double())
        gathered["y"].append(torch.stack([item[task.target][:, 0] for item in items]).double())
        gathered["predicted"].append(output.view(len(items), -1).double().cpu())
        for place, where in zip(kept, (targets, replace(targets, slots=targets.carriers)) if depth else ()):
            layers = torch.stack([at(each, where).view(len(items), -1, each.shape[-1]) for each in outputs])
            kept[place].append(
                (layers[:, :, depth] if where is targets else layers[:, :, :depth].mean(2)).float().cpu()
            )
    for hook in hooks:
        hook.remove()
    vectors = {place: torch.cat(parts, dim=1) for place, parts in kept.items() if parts}
    return Seen(**{key: torch.cat(parts) for key, parts in gathered.items()}, depth=depth, vectors=vectors)


def errors_by_name(found: Seen, rivals: Sequence[str], tuned: int, say: Callable[[str], None]) -> dict[str, Tensor]:
    """The squared errors of the model and of each rival on all functions but the first `tuned`, on which the settings
    of the rivals are chosen. `say` gets each rival's name before it is fitted."""
    errors = {"model": (found.predicted - found.y)[tuned:].square()}
    for name in rivals:
        say(name)
        errors[name] = errors_of(RIVALS[name], found.x, found.y, tuned)
    return errors


def with_error(values: Float[Tensor, "m"]) -> tuple[float, float]:
    """The mean, and its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def probe(found: Seen, weight: float, fitted: int) -> Scores:
    """How well a linear map reads ridge's weights off each layer's vectors (Akyurek et al. 2023, arXiv:2211.15661,
    probe so): R2 on all functions but the first `fitted`, to which the map is fitted by ridge regression."""
    wanted = ridge_weights(found.x[:, : found.depth], found.y[:, : found.depth], weight)
    spread = (wanted[fitted:] - wanted[fitted:].mean(0)).square().sum(1)

    def score(vectors: Float[Tensor, "n w"]) -> tuple[float, float]:
        vectors = torch.cat([vectors.double(), torch.ones(len(vectors), 1, dtype=torch.float64)], dim=1)
        known = vectors[:fitted]
        square = known.mT @ known
        square += PENALTY * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
        linear = torch.linalg.solve(square, known.mT @ wanted[:fitted])
        error = (vectors[fitted:] @ linear - wanted[fitted:]).square().sum(1)
        share = error.mean() / spread.mean()  # a ratio of means: its standard error by the delta method
        return 1 - float(share), with_error((error - share * spread) / spread.mean())[1]

    return {place: [score(layer) for layer in layers] for place, layers in found.vectors.items()}


def rows_of(lines: Mapping[str, Errors]) -> list[dict[str, Any]]:
    """The errors by the data that they are of, `{"as trained": {"model": errors, "ridge": errors}}`, as rows of a
    table: for each number of examples the mean squared errors, the differences between the model and each rival, and
    the standard error of each. The differences are paired: both predict the same functions."""
    rows = []
    for where, errors in lines.items():
        for k in range(errors["model"].shape[1]):
            row: dict[str, Any] = {"where": where, "examples": k, "functions": len(errors["model"])}
            for name, each in errors.items():
                row[name], row[name + ERROR] = with_error(each[:, k])
            for name, each in errors.items():
                if name != "model":
                    title = f"model - {name}"
                    row[title], row[title + ERROR] = with_error(errors["model"][:, k] - each[:, k])
            rows.append(row)
    return rows
