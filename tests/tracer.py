"""A tiny model and a packed batch of image patches, sound slices and text, for `test_tracer.py` and its processes.

Chop, plan, embed, mix, graph, core, head, loss: this is the smallest program that uses every part of the design.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from chopmix.models.batch import Batch
from chopmix.models.layers.relative import RelativeBias
from chopmix.models.model import Cores, Model
from chopmix.tasks.language_modeling import LanguageModeling
from chopmix.tokenizers.audio import AudioChopper, AudioTokenizer
from chopmix.tokenizers.chopping.packing import pack
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.image import ImageChopper, ImageTokenizer
from chopmix.tokenizers.text import TextChopper, TextTokenizer
from cores import core_of

WIDTH, CONTEXT = 32, 48
AXES = ("order", "row", "column", "seconds")
GRAPH = "same_sample & (causal | from(image, sound))"
TOKENIZERS = {"image": ImageTokenizer, "sound": AudioTokenizer, "text": TextTokenizer}
TASK = LanguageModeling(target="text")


def choppers() -> dict:
    return {
        "image": ImageChopper(patch_size=4, channels=1, size=(8, 12)),
        "sound": AudioChopper(rate=8000, mels=16, frames=8),
        "text": TextChopper(vocabulary=ByteEncoding()),
    }


def samples(seed: int = 0) -> list:
    """Five samples: all three inputs, in three orders, some without an image or a sound. Text comes last."""
    make = torch.Generator().manual_seed(seed)
    image = lambda: ("image", torch.randint(256, (1, 8, 12), generator=make).to(torch.uint8))
    sound = lambda: ("sound", torch.randn(2000, generator=make))
    return [
        [image(), sound(), ("text", "chop")],
        [sound(), image(), ("text", "up everything")],
        [image(), ("text", "and throw")],
        [("text", "it into")],
        [sound(), ("text", "the mix")],
    ]


def planned(samples: list, rows: list[int] | None = None):
    return pack(samples, choppers(), CONTEXT, AXES, rows)


def batch(samples: list, rows: list[int] | None = None) -> Batch:
    """A batch of one set with all parts, and the language-modelling targets of its text."""
    mixed = planned(samples, rows)
    return with_targets(Batch(main=mixed))


def with_targets(batch: Batch) -> Batch:
    """The batch with the targets of its language model."""
    batch, targets = TASK.targets(batch)
    return replace(batch, targets={"lm": targets})


def two_set_batch(samples: list) -> Batch:
    """The samples as a set of an encoder (image, sound) and a set of a decoder (text), with equal rows."""
    mixed = planned(samples)
    rows = [int((mixed.tokens.sample == number).any(1).nonzero()[0, 0]) for number in range(1, len(samples) + 1)]
    media = planned([[part for part in sample if part[0] != "text"] for sample in samples], rows)
    text = planned([[part for part in sample if part[0] == "text"] for sample in samples], rows)
    return with_targets(Batch(main=text, encoder=media))


def small_model(graph: str = GRAPH, encoder: bool = False, seed: int = 0, **core) -> Model:
    torch.manual_seed(seed)
    shape = {"width": WIDTH, "depth": 2, "heads": 4, "position": RelativeBias} | core
    tokenizers = {name: TOKENIZERS[name](chopper, WIDTH, CONTEXT) for name, chopper in choppers().items()}
    core = core_of(list(tokenizers), AXES, encoder, attention=graph, **shape)
    second = core_of(list(tokenizers), AXES, attention="same_sample", **shape) if encoder else None
    cores = Cores(core, second, [name for name in tokenizers if name != "text"] if encoder else ())
    return Model(tokenizers, cores, {"lm": TASK.head(tokenizers, WIDTH)}, context=CONTEXT)


def loss(model: Model, batch: Batch, count: int | None = None) -> torch.Tensor:
    """The summed loss divided by the count of targets, or by `count`, the targets of the global batch."""
    batch = model.plan(batch)
    total = TASK.terms(model(batch)["lm"], batch.targets["lm"])["loss"]
    return total / (count or batch.targets["lm"].count)


def train(model, rank: int = 0, ranks: int = 1, steps: int = 3) -> list[float]:
    """A few SGD steps in which each rank takes its part of the same global batches. Returns the global losses."""
    inner = getattr(model, "module", model)
    optimizer = torch.optim.SGD(inner.parameters(), lr=0.1)
    losses = []
    for step in range(steps):
        everything = samples(step)
        total = batch(everything, rows=list(range(len(everything)))).targets["lm"].count
        mine = everything[rank::ranks]
        part = inner.plan(batch(mine, rows=list(range(len(mine)))))
        loss = TASK.terms(model(part)["lm"], part.targets["lm"])["loss"]
        optimizer.zero_grad()
        (loss / total * ranks).backward()  # DDP averages over the ranks
        optimizer.step()
        shared = loss.detach().clone()
        if ranks > 1:
            torch.distributed.all_reduce(shared)
        losses.append(shared.item() / total)
    return losses


def rank_main(rank: int, ranks: int, address: str, results) -> None:
    """One of several processes (gloo, DDP), whose losses together must be those of a single process."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=ranks)
    losses = train(torch.nn.parallel.DistributedDataParallel(small_model().train()), rank, ranks)
    if rank == 0:
        results.put(losses)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
