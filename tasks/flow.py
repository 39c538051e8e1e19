"""Flow matching: noise becomes an item in several steps along a velocity that the model has learned."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ..models.arithmetic import NOT_FINITE, computing_type
from ..models.batch import Batch, Targets
from ..models.contract import Problems
from ..models.generation.procedure import Procedure
from ..models.generation.refine import Refining
from ..models.generation.sampling import Sampling
from ..models.heads import SlotLinear
from ..models.model import Model
from ..tokenizers.base import Example
from .base import Metric, Needs, Task, Wiring, metrics_of, per_target
from .judging import Judge

NEAREST = 0.05
"""The smallest distance of a time from 1 by which a loss is divided."""


class Flow(Task):
    """Learns to generate the items of the input `target`, such as images with a `size`, without ids (flow matching,
    Lipman et al. 2023, arXiv:2210.02747). The model reads an item between noise (time 0) and the item itself (time 1)
    and predicts the item (JiT, Li & He 2025, arXiv:2511.13720):

        z = time * item + (1 - time) * noise        velocity = (item - z) / (1 - time)

    The loss is the squared error of the velocity. In training, the logarithm of time / (1 - time) has a normal
    distribution with the mean `mean` and the standard deviation `std`. Generation begins with noise and follows the
    velocity in `refining.steps` steps of the method `solver`; `heun` reads each step twice. The temperature of
    `sampling` is the standard deviation of the noise. `guidance` is the weight of classifier-free guidance, for which
    the other inputs need `training.input_dropout`. `metrics`: judges of generated items by name.
    """

    after_training = ("refining", "solver", "guidance", "sampling")

    def __init__(
        self, *, target: str, metrics: dict[str, Callable[[], Judge]] | None = None,
        refining: Refining = Refining(steps=20), solver: Literal["euler", "heun"] = "euler", guidance: float = 1.0,
        sampling: Sampling | None = None, mean: float = -0.4, std: float = 0.8, weight: float = 1.0,
    ):  # fmt: skip
        if std <= 0:
            raise ValueError(f"std must be above 0, not {std:g}")
        self.target, self.refining, self.solver, self.guidance = target, refining, solver, guidance
        self.sampling, self.mean, self.std, self.weight = sampling, mean, std, weight
        self.judges = {name: judge() for name, judge in (metrics or {}).items()}

    @property
    def needs(self) -> Needs:
        compared = tuple(column for judge in self.judges.values() for column in judge.columns)
        target = (self.target,)
        return Needs(inputs=target, hides="noised", refines=True, scalars=target, compared=compared)

    def problems(self, name: str, wiring: Wiring) -> Problems:
        if self.target in wiring.encoded:
            yield ("tasks", name, "target"), f"{self.target!r} is read by the encoder, which generates nothing"
        part = wiring.inputs.get(self.target)
        if part is not None and part.options.get("augment"):
            reason = f"the task {name!r} adds noise to the item before the change"
            yield ("inputs", self.target, "augment"), f"must be null, because {reason}"

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> SlotLinear:
        return SlotLinear(width, self.choppers[self.target].slice_shape[1])

    # ------------------------------------------------------------------------------------------------------- training

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Returns the batch with noisy items, and the targets: the p numbers of each token of the items (t, p), such as
        the pixels of a patch. The weights are 1 / (1 - time) ** 2, which turns the squared error of an item into that
        of its velocity."""
        chopper, chunks = self.choppers[self.target], batch.main.chunks.get(self.target)
        if chunks is None or self.for_prediction:
            none = torch.zeros(0, chopper.slice_shape[1])
            return batch, Targets(values=none, slots=torch.zeros(0, dtype=torch.long), weights=torch.zeros(0))
        clean, owners = chopper.slices(chunks), chunks.owners
        samples = batch.main.tokens.sample.flatten()[chunks.slots[chunks.index == 0]] - 1
        drawn = [self.drawn(batch.main.seeds[sample]) for sample in samples.tolist()]
        noise = torch.from_numpy(np.concatenate([noise for _, noise in drawn]))
        time = torch.tensor([time for time, _ in drawn])
        share = time[owners][:, None]
        noisy = chopper.with_slices(chunks, share * clean + (1 - share) * noise)
        changed = {**batch.main.chunks, self.target: replace(noisy, scalars=time)}
        weights = (1 - time[owners]).clamp(min=NEAREST) ** -2
        targets = Targets(values=clean, slots=chunks.slots, weights=weights, count=len(clean))
        return replace(batch, main=replace(batch.main, chunks=changed)), targets

    def drawn(self, seed: tuple[int, ...]) -> tuple[float, Float[np.ndarray, "n p"]]:
        """Returns the time and the noise of a sample with this seed."""
        random = np.random.default_rng([*seed, 1, zlib.crc32(self.target.encode())])
        time = 1 / (1 + np.exp(-random.normal(self.mean, self.std)))
        return float(time), random.standard_normal(self.choppers[self.target].slice_shape, dtype=np.float32)

    def terms(self, output: Float[Tensor, "t p"], targets: Targets) -> dict[str, Tensor]:
        return {"loss": self.losses(output, targets).sum()}

    def losses(self, output: Float[Tensor, "t p"], targets: Targets) -> Float[Tensor, "t"]:
        return (output.float() - targets.values).square().mean(1) * targets.weights

    @property
    def metrics(self) -> dict[str, Metric]:
        """`loss`, the mean squared error of the velocity per number, for numbers from -1 to 1; and the metrics of the
        judges."""
        return {"loss": Metric("squared velocity error", of_sums=per_target)} | metrics_of(self.judges)

    def answers(self, output: Float[Tensor, "t p"], targets: Targets, batch: Batch) -> list[dict[str, Any]]:
        """Returns an error for each sample: items are generated, not predicted."""
        return [{"error": f"`chopmix generate` generates {self.target!r}"}] * batch.first.samples

    # ----------------------------------------------------------------------------------------------------- generation

    def blank(self, true: Any, count: int | None) -> Any:
        chopper = self.choppers[self.target]
        return chopper.joined(torch.zeros(chopper.slice_shape))

    def picture(self, item: Any) -> Tensor:
        if self.choppers[self.target].kind != "image":
            return super().picture(item)
        return item if len(item) == 3 else item.expand(3, -1, -1)

    @torch.inference_mode()
    def sample(self, model: Model, batch: Batch, how: Procedure) -> list[Any]:
        """Returns the items after the last step. `how.show` receives the noisy items. Tokens that are not in
        `how.filled` end as those of the items of the batch. Raises ValueError if the output of the model is NaN or
        infinite."""
        chopper, device = self.choppers[self.target], next(model.parameters()).device
        plan = {"dtype": computing_type(model), "device": device}
        read, without = (each and model.plan(each, **plan).to(device) for each in (batch, how.without))
        n, p = chopper.slice_shape
        noise = how.streams.normal(n * p) * how.sampling.temperature
        z = rearrange(noise, "s (n p) -> (s n) p", p=p).to(device)
        if outside := [position for position in how.filled if not 0 <= position < n]:
            raise ValueError(f"filled contains the position {outside[0]}; the item has the positions 0 to {n - 1}")
        true = chopper.slices(read.main.chunks[self.target])
        kept = torch.tensor([bool(how.filled) and number not in how.filled for number in range(n)], device=device)
        kept = kept.repeat(len(noise))[:, None]

        def velocity(z: Float[Tensor, "t p"], time: float) -> Float[Tensor, "t p"]:
            clean = self.clean(model, read, how.name, z, time)
            if without is not None:
                unguided = self.clean(model, without, how.name, z, time)
                clean = unguided + how.guidance * (clean - unguided)
            return (torch.where(kept, true, clean) - z) / (1 - time)

        def items() -> list[Any]:
            return [chopper.joined(item) for item in rearrange(z, "(s n) p -> s n p", n=n).float().cpu()]

        how.show(items())
        steps = how.refining.steps
        for step in range(steps):
            time, following = step / steps, (step + 1) / steps
            direction = velocity(z, time)
            if self.solver == "heun" and following < 1:
                direction = (direction + velocity(z + direction / steps, following)) / 2
            z = z + direction / steps
            how.show(items())
        if not bool(z.isfinite().all()):
            raise ValueError(NOT_FINITE)
        return items()

    def clean(
        self, model: Model, batch: Batch, name: str, z: Float[Tensor, "t p"], time: float
    ) -> Float[Tensor, "t p"]:  # fmt: skip
        """Returns the prediction of the items for noisy items `z` at a time, by the head of the task `name`."""
        chunks = batch.main.chunks[self.target]
        times = z.new_full((len(z) // self.choppers[self.target].slice_shape[0],), time)
        noisy = replace(self.choppers[self.target].with_slices(chunks, z), scalars=times)
        main = replace(batch.main, chunks={**batch.main.chunks, self.target: noisy})
        hidden = model.read(replace(batch, main=main)).main.flatten(0, 1)
        return model.heads[name](hidden[chunks.slots]).float()


EXAMPLE = Example(
    options={"target": "image", "refining": {"steps": 2}},
    inputs={
        "image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8},
        "text": {"use": "text", "encoding": "characters"},
    },
)
