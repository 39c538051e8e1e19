"""Evaluation of learning in context: the error after k examples, compared with baselines that are fitted to the same
examples, and a linear probe. The probe predicts the weights of ridge regression from the vectors of each layer. All
results have standard errors."""

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
from .rivals import BASELINES, errors_of, ridge_weights

ERROR = " se"
"""The suffix of the names of columns that contain standard errors."""

PENALTY = 1e-4
"""The penalty of the ridge regression with which the probe is fitted, relative to the mean square of the vectors."""

Errors = Mapping[str, Float[Tensor, "m k"]]
"""The squared errors of m functions (rows) after 0, 1, 2, ... examples (columns), by `model` and the names of
baselines."""
Scores = Mapping[str, Sequence[tuple[float, float]]]
"""The pairs (R2, standard error of R2) of the probe before the first layer and after each layer. Keys are the positions
of the vectors, as in `ModelOutputs.vectors`."""


@dataclass(frozen=True)
class ModelOutputs:
    """The points and values of n functions with k examples each, and the outputs of the model for these functions."""

    x: Float[Tensor, "n k d"]
    y: Float[Tensor, "n k"]
    predicted: Float[Tensor, "n k"]
    """The value at each point that the model predicts from the preceding pairs of points and values."""
    depth: int = 0
    """The number of examples that the model reads before the position at which `vectors` are taken. 0: there are no
    vectors."""
    vectors: Mapping[str, Float[Tensor, "l n w"]] = field(default_factory=dict)
    """The vectors of width w before the first layer and after each layer, by position. `the next point`: the vector at
    the point after the first `depth` examples. `the mean of the values`: the mean of the vectors at the values of these
    examples."""


@torch.no_grad()
def model_outputs(
    model: Model, name: str, task: NextItem, split: SampleSplit, depth: int = 0, rows: int = 64
) -> ModelOutputs:
    """Runs the model on all samples of a split and returns the outputs. If `depth` is not 0, the result also contains
    the vectors after that number of examples. `rows` is the number of samples per forward pass."""
    columns: dict[str, list[Tensor]] = {key: [] for key in ("x", "y", "predicted")}
    vectors: dict[str, list[Tensor]] = {"the next point": [], "the mean of the values": []}
    outputs: list[Tensor] = []
    modules = [model.core.embedding_dropout, *model.core.blocks] if depth else []
    hooks = [module.register_forward_hook(lambda _, __, output: outputs.append(output)) for module in modules]
    indices = split.all()
    for start in range(0, len(indices), rows):
        outputs.clear()
        numbers = [index.number for index in indices[start : start + rows]]
        batch = model.plan(split.batch(indices[start : start + rows]))
        targets, items = batch.targets[name], [split.item(number)[0] for number in numbers]
        hidden = model.read(batch).main
        output = task.chopper.measured(model.heads[name](at(hidden, targets), targets).float())[:, 0]
        columns["x"].append(torch.stack([item[task.at] for item in items]).double())
        columns["y"].append(torch.stack([item[task.target][:, 0] for item in items]).double())
        columns["predicted"].append(output.view(len(items), -1).double().cpu())
        for position, slots in zip(vectors, (targets, replace(targets, slots=targets.carriers)) if depth else ()):
            layers = torch.stack([at(values, slots).view(len(items), -1, values.shape[-1]) for values in outputs])
            vectors[position].append(
                (layers[:, :, depth] if slots is targets else layers[:, :, :depth].mean(2)).float().cpu()
            )
    for hook in hooks:
        hook.remove()
    joined = {position: torch.cat(parts, dim=1) for position, parts in vectors.items() if parts}
    return ModelOutputs(**{key: torch.cat(parts) for key, parts in columns.items()}, depth=depth, vectors=joined)


def errors_by_name(
    outputs: ModelOutputs, baselines: Sequence[str], tuned: int, say: Callable[[str], None]
) -> dict[str, Tensor]:  # fmt: skip
    """Returns the squared errors of the model and of each baseline on all functions except the first `tuned`. The first
    `tuned` functions select the settings of the baselines. Calls `say` with the name of each baseline before the
    baseline is fitted."""
    errors = {"model": (outputs.predicted - outputs.y)[tuned:].square()}
    for name in baselines:
        say(name)
        errors[name] = errors_of(BASELINES[name], outputs.x, outputs.y, tuned)
    return errors


def with_error(values: Float[Tensor, "m"]) -> tuple[float, float]:
    """Returns (mean of the values, standard error of the mean)."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def probe(outputs: ModelOutputs, weight: float, fitted: int) -> Scores:
    """Returns how well a linear map predicts the weights of ridge regression with the penalty `weight` from the vectors
    of each layer (Akyurek et al. 2023, arXiv:2211.15661). The map is fitted by ridge regression to the first `fitted`
    functions. R2 is computed on the remaining functions."""
    targets = ridge_weights(outputs.x[:, : outputs.depth], outputs.y[:, : outputs.depth], weight)
    variance = (targets[fitted:] - targets[fitted:].mean(0)).square().sum(1)

    def score(vectors: Float[Tensor, "n w"]) -> tuple[float, float]:
        vectors = torch.cat([vectors.double(), torch.ones(len(vectors), 1, dtype=torch.float64)], dim=1)
        training = vectors[:fitted]
        square = training.mT @ training
        square += PENALTY * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
        linear = torch.linalg.solve(square, training.mT @ targets[:fitted])
        error = (vectors[fitted:] @ linear - targets[fitted:]).square().sum(1)
        share = error.mean() / variance.mean()  # a ratio of means; the delta method gives its standard error
        return 1 - float(share), with_error((error - share * variance) / variance.mean())[1]

    return {position: [score(layer) for layer in layers] for position, layers in outputs.vectors.items()}


def error_rows(lines: Mapping[str, Errors]) -> list[dict[str, Any]]:
    """Returns the errors as rows of a table. `lines` contains the errors by data distribution: `{"as trained":
    {"model": errors, "ridge": errors}}`. A row is for one number of examples and contains the mean squared errors, the
    differences between the model and each baseline, and the standard errors of both. The standard error of a difference
    is that of the paired differences on the same functions."""
    rows = []
    for where, errors in lines.items():
        for k in range(errors["model"].shape[1]):
            row: dict[str, Any] = {"where": where, "examples": k, "functions": len(errors["model"])}
            for name, squares in errors.items():
                row[name], row[name + ERROR] = with_error(squares[:, k])
            for name, squares in errors.items():
                if name != "model":
                    title = f"model - {name}"
                    row[title], row[title + ERROR] = with_error(errors["model"][:, k] - squares[:, k])
            rows.append(row)
    return rows
