"""Leak probe: tests the code of the user-defined parts of a model, and of blocks without attention. The leak check
(`leaks.py`) proves a property of the attention graph, but a block may mix neighbouring tokens without attention, and an
embedder may read the next token.

The probe changes one token and compares the outputs before and after the change. An output may change only if its slot
depends on the token through all layers of the graph (`mask.reach`). If an output belongs to a complete sample (pooling
heads, CTC, encoders), it may depend on all tokens of the sample, but on no other sample of the row. Each part is probed
on the CPU in float32, as a copy in which all weights differ from zero: a branch that begins at zero would hide a leak.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .batch import Batch, Chunks, Targets
from .cache import Cache
from .contract import described
from .excerpt import COLUMNS, Excerpt, excerpts, longest_sample
from .heads import VocabularyHead
from .leaks import LeakError, unproven_classes
from .model import Model
from .seeding import seed_torch
from .tokens import Tokens
from .transformer import Transformer

PROBE_SECONDS = 1.0
"""The time after which no further token is probed."""
OPERATIONS = 2e9
"""The number of floating-point operations of a forward pass. In large models, an excerpt has fewer columns (at least
16), and if that is not sufficient, only some of the layers are probed: the first one of each kind, and the last one."""
NEARLY_ZERO = 1e-3
"""Weights that are all smaller are drawn again."""
SIZE, SMALL = 10.0, 1e-4
"""The standard deviation of changed vectors; and the smallest change of an output that counts, as a share of the
largest output."""


class Unprobed(Exception):
    """A part cannot be probed. The text is the reason."""


# ----------------------------------------------------------------------------------------------------------- the parts


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the model that contains user-defined classes. A subclass computes its outputs before and after a
    change, and decides which outputs may change."""

    where: str
    """The place of the part in a YAML."""
    names: str
    """The names of its user-defined classes."""
    module: nn.Module
    excerpts: Sequence[Excerpt]
    inputs: Sequence[str]
    """The names of all inputs, for messages."""
    effect: ClassVar[str] = "the output"
    """What changes, for messages."""
    rule: ClassVar[str] = "A block may mix tokens only by attention along `context.layout`"
    """What the code of a user may do, for messages."""

    def outputs(self, module: nn.Module, excerpt: Excerpt, column: int | None = None, number: int = 0) -> Tensor:
        """Returns the outputs of all columns of the excerpt, (n, k). The token of `column` is changed (None: no token);
        the change depends on `number`."""
        raise NotImplementedError

    def changed(self, excerpt: Excerpt, column: int) -> list[int]:
        """Returns the columns whose tokens are changed together with the token of `column`."""
        return [column]

    def forbidden(self, excerpt: Excerpt, columns: list[int]) -> Bool[Tensor, "n"]:
        """Returns the columns whose outputs must not change if the tokens of `columns` change."""
        return excerpt.supervised & ~excerpt.allowed[:, columns].any(1)

    def check_labels(self, module: nn.Module) -> None:
        """Raises LeakError if the outputs depend on the targets."""

    def check(self, module: nn.Module, training: bool, end: float) -> None:
        """Probes `module`, a copy of this part, in training or in evaluation mode: at least one token, and no further
        ones after the time `end`. Raises LeakError, or Unprobed if two calls with equal arguments differ."""
        state = " in training mode" * training
        self.check_labels(module.train(training))
        for excerpt in self.excerpts:
            before = self.outputs(module, excerpt)
            if not before.isfinite().all():
                raise Unprobed(f"its outputs are not finite{state}")
            if not torch.equal(before, self.outputs(module, excerpt)):
                raise Unprobed(f"its outputs differ between two equal calls{state}")
            for column in excerpt.chosen:
                forbidden = self.forbidden(excerpt, self.changed(excerpt, column))
                if not forbidden.any():
                    continue
                for number in (1, 2):
                    leaking = differs(before, self.outputs(module, excerpt, column, number)) & forbidden
                    if leaking.any():
                        raise LeakError(self.message(excerpt, column, int(leaking.nonzero()[0, 0]), state))
                if time.perf_counter() > end:
                    return

    def message(self, excerpt: Excerpt, column: int, leaking: int, state: str) -> str:
        """Returns the message about an output that changes although it must not."""
        changed, read = self.token(excerpt, column), self.token(excerpt, leaking)
        return (
            f"{self.where}: {self.names} leaks{state}: {self.effect} at {read} depends on {changed}, which it cannot "
            "read through model.attention in any layer. A prediction can thus read its own target or another sample. "
            f"{self.rule}"
        )

    def token(self, excerpt: Excerpt, column: int) -> str:
        """Returns the name of a token: its number in the row, and its input."""
        number, order = int(excerpt.tokens.input[0, column]), int(excerpt.tokens.position[0, column, 0])
        return f"token {order} ({self.inputs[number - 1]})" if number else f"token {order} (core token)"


@dataclass(frozen=True, kw_only=True)
class CorePart(Part):
    """A core with user-defined blocks (or parts of blocks) or graphs. `source` contains the rows of the encoder's set
    that each excerpt reads; None: the core reads no other set."""

    module: Transformer
    source: Sequence[Tokens] | None = None

    def outputs(self, module, excerpt, column=None, number=0):
        return self.run(module, self.vectors(excerpt, column, number), excerpt)

    def vectors(self, excerpt: Excerpt, column: int | None, number: int) -> Float[Tensor, "1 n d"]:
        """Returns random vectors of all tokens. The vector of `column` is larger, and another one for each `number`."""
        x = drawn(0, 1, len(excerpt.slots), self.module.width)
        if column is not None:
            x[0, column] = SIZE * drawn(number, self.module.width)
        return x

    def run(
        self, core: Transformer, x: Float[Tensor, "1 n d"], excerpt: Excerpt, part: slice = slice(None),
        cache: Cache | None = None,
    ) -> Float[Tensor, "m d"]:  # fmt: skip
        """Returns the output vectors of the columns `part`."""
        tokens, read = excerpt.tokens.select(slice(None), part), {}
        if self.source is not None:
            source = self.source[self.excerpts.index(excerpt)]
            read = {"source": drawn(3, *source.shape, core.width), "source_layout": core.plan_cross(tokens, source),
                    "source_tokens": source}  # fmt: skip
        layouts = core.plan(tokens, None if cache is None else cache.extend(tokens))
        seed_torch(0, x.device)
        return core(x[:, part], tokens, layouts, cache=cache, **read)[0]


class CachePart(CorePart):
    """A core in generation. Each excerpt is one sample; its second half is read with a cache of the first half."""

    effect = "with a key-value cache, the output"

    def outputs(self, module, excerpt, column=None, number=0):
        x, n = self.vectors(excerpt, column, number), len(excerpt.slots)
        cache = module.empty_cache(1, n)
        return torch.cat([self.run(module, x, excerpt, part, cache) for part in (slice(n // 2), slice(n // 2, n))])


@dataclass(frozen=True, kw_only=True)
class EmbedderPart(Part):
    """The embedder of an input, with the chunks of this input in the batch."""

    chunks: Chunks
    effect: ClassVar[str] = "the vector"
    rule: ClassVar[str] = "The vector of a token may depend only on the values of this token"

    @cached_property
    def values(self) -> Tensor:
        """The values of the chunks: one row per token, or one row per item (images that the embedder cuts)."""
        return self.chunks.values.flatten(0, 1) if self.chunks.slots is None else self.chunks.values

    @cached_property
    def of_tokens(self) -> bool:
        """Whether the values have one row per token."""
        return len(self.values) == self.chunks.index.numel()

    def rows(self, excerpt: Excerpt) -> Int[Tensor, "n"]:
        """Returns the number of each column's token among the tokens of this input; -1: the token of another input."""
        slots = torch.arange(self.chunks.index.numel()) if self.chunks.slots is None else self.chunks.slots
        return numbers_in(slots, excerpt.slots)

    def changed(self, excerpt, column):
        if self.of_tokens:
            return [column]
        return (excerpt.tokens.item[0] == excerpt.tokens.item[0, column]).nonzero()[:, 0].tolist()

    def forbidden(self, excerpt, columns):
        outputs = super().forbidden(excerpt, columns)  # no vector may change that one of these reads
        return excerpt.allowed[outputs].any(0)

    def outputs(self, module, excerpt, column=None, number=0):
        values, rows = self.values, self.rows(excerpt)
        if column is not None:
            row = int(rows[column])
            if not self.of_tokens:
                row = int(torch.searchsorted(self.chunks.counts.cumsum(0), row, right=True))
            values = values.clone()
            values[row] = another(self.values, row, number)
        chunks = replace(self.chunks, values=values.view_as(self.chunks.values))
        return self.vectors(module, chunks)[rows.clamp(min=0)] * (rows >= 0)[:, None]

    def vectors(self, module: nn.Module, chunks: Chunks) -> Float[Tensor, "t d"]:
        """Returns the vectors of all tokens of this input."""
        seed_torch(0, chunks.values.device)
        return module(chunks).reshape(self.chunks.index.numel(), -1)

    def check_labels(self, module):
        chunks = self.chunks
        if chunks.inner is not None:
            raise Unprobed("it contains a trained run")
        if not self.of_tokens and (chunks.counts is None or len(self.values) != len(chunks.counts)):
            raise Unprobed("its values have neither one row per token nor one row per item")
        labels = {name: getattr(chunks, name) for name in ("next_ids", "hidden") if getattr(chunks, name) is not None}
        other = replace(chunks, **{name: ids.flatten().roll(1).view_as(ids) for name, ids in labels.items()})
        if differs(self.vectors(module, chunks), self.vectors(module, other)).any():
            raise LeakError(
                f"{self.where}: {self.names} leaks: its vectors depend on chunks.{' or chunks.'.join(labels)}"
            )


@dataclass(frozen=True, kw_only=True)
class HeadPart(Part):
    """The head of a task, with the targets of the task."""

    targets: Targets
    width: int
    rule: ClassVar[str] = "A head may depend only on the vectors of the slots of one target"

    @cached_property
    def slots(self) -> Int[Tensor, "t"]:
        """The slots of the vectors that the head reads."""
        return self.targets.slots if self.targets.slots is not None else torch.arange(len(self.targets.values))

    def forbidden(self, excerpt, columns):
        read = excerpt.allowed[columns].any(0)  # an output that may not depend on all of these must not change
        return excerpt.supervised & (read & ~excerpt.allowed).any(1)

    def outputs(self, module, excerpt, column=None, number=0):
        rows = numbers_in(self.slots, excerpt.slots)
        x = drawn(0, len(self.slots), self.width)
        if column is not None:
            x[rows[column]] = SIZE * drawn(number, self.width)
        outputs = self.run(module, x, self.targets)
        if self.targets.groups is not None and len(outputs) == len(self.targets.values) != len(self.slots):
            outputs = outputs[self.targets.groups]
        if len(outputs) != len(self.slots):
            raise Unprobed(f"it returns {len(outputs)} rows for {len(self.slots)} slots")
        return outputs[rows.clamp(min=0)] * (rows >= 0)[:, None]

    def run(self, module: nn.Module, x: Float[Tensor, "t d"], targets: Targets) -> Float[Tensor, "r k"]:
        """Returns the outputs of the head as rows of numbers."""
        seed_torch(0, x.device)
        outputs = module(x, targets)
        if not isinstance(outputs, Tensor):
            raise Unprobed(f"it returns {described(outputs)}")
        return outputs.float().flatten(1) if outputs.dim() > 1 else outputs.float()[:, None]

    def check_labels(self, module):
        x, values = drawn(0, len(self.slots), self.width), self.targets.values
        outputs = [self.run(module, x, replace(self.targets, values=each)) for each in (values, values.roll(1, 0))]
        if differs(*outputs).any():
            raise LeakError(f"{self.where}: {self.names} leaks: its outputs depend on the values of its targets")


def parts_of(model: Model, batch: Batch) -> Iterator[Part]:
    """Yields the parts of a model that contain classes whose code is tested (see `unproven_classes`). The batch must
    not be planned."""
    inputs = model.inputs
    for name, core in model.cores.items():
        of_encoder = name == "encoder"
        classes = unproven_classes(core, core.graphs)
        if not classes or (of_encoder and batch.encoder is None):
            continue
        core = with_fewer_layers(core)
        columns = int(min(max(OPERATIONS / 2 / size_of(core), 16), COLUMNS))
        found = excerpts(batch, batch.targets, core.graphs, of_encoder, columns)
        part = CorePart(where=f"model.{'encoder' if of_encoder else 'block'}", names=", ".join(classes), module=core,
                        excerpts=found, inputs=inputs)  # fmt: skip
        if not of_encoder and batch.encoder is not None:
            rows = [int(excerpt.slots[0]) // batch.main.tokens.shape[1] for excerpt in found]
            part = replace(part, source=[batch.encoder.tokens.select(slice(row, row + 1)) for row in rows])
        yield part
        if not of_encoder and core.caches and all(graph.is_causal() for graph in core.graphs):
            yield CachePart(**{**vars(part), "excerpts": [longest_sample(excerpt) for excerpt in found]})
    for name, owner in model.owners.items():
        classes = unproven_classes(model.tokenizers[owner])
        for core, planned in batch.sets.items():
            if classes and name in planned.chunks:
                of_encoder = core == "encoder"
                found = excerpts(batch, batch.targets, model.cores[core].graphs, of_encoder)
                number = inputs.index(name) + 1
                found = [excerpt.choosing(excerpt.tokens.input[0] == number, len(excerpt.chosen)) for excerpt in found]
                yield EmbedderPart(where=f"inputs.{name}", names=", ".join(classes), module=model.tokenizers[owner],
                                   excerpts=found, inputs=inputs, chunks=planned.chunks[name])  # fmt: skip
    for name, head in model.heads.items():
        classes = unproven_classes(head)
        if classes and name in batch.targets:
            targets = batch.targets[name]
            core = model.cores["encoder" if targets.of_encoder else "main"]
            found = excerpts(batch, {name: targets}, core.graphs, targets.of_encoder)
            found = [excerpt.choosing(excerpt.supervised, len(excerpt.chosen)) for excerpt in found]
            if found and targets.groups is None and targets.lengths is None:
                targets = targets_at(targets, torch.cat([excerpt.slots for excerpt in found]))
            yield HeadPart(where=f"tasks.{name}.head", names=", ".join(classes), module=head, excerpts=found,
                           inputs=inputs, targets=targets, width=core.width)  # fmt: skip


def size_of(module: nn.Module) -> int:
    """Returns the number of weights of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def with_fewer_layers(core: Transformer) -> Transformer:
    """Returns a core with only some of its layers, if a forward pass of 16 columns through all layers has more than
    `OPERATIONS` operations: the first layer of each kind (the classes of its modules, and its graph), and the last one.
    The weights are shared."""
    if 2 * 16 * size_of(core) <= OPERATIONS:
        return core
    kinds = {}
    for number, (block, graph) in enumerate(zip(core.blocks, core.graphs, strict=True)):
        kinds.setdefault((tuple(type(each) for each in block.modules()), graph), number)
    kept = sorted({*kinds.values(), len(core.blocks) - 1})
    small = copy(core)
    small._modules = {**core._modules, "blocks": nn.ModuleList(core.blocks[number] for number in kept)}
    small.graphs = tuple(core.graphs[number] for number in kept)
    return small


def targets_at(targets: Targets, slots: Int[Tensor, "n"]) -> Targets:
    """Returns the targets that are predicted at these slots."""
    every = torch.arange(len(targets.values)) if targets.slots is None else targets.slots
    kept = torch.isin(every, slots)
    fields = {name: getattr(targets, name) for name in ("values", "carriers", "weights")}
    return replace(targets, slots=every[kept], **{n: v[kept] for n, v in fields.items() if v is not None})


# ------------------------------------------------------------------------------------------------------------ changes


def redrawn(module: nn.Module) -> nn.Module:
    """Returns a copy of a module on the CPU, in float32 and without dropout. The trainable weights that are zero, or
    all nearly zero (layer scale), are drawn at random. Raises Unprobed if the copy does not fit in memory."""
    needed, free = 8 * size_of(module), available_memory()
    if free is not None and needed > free:
        raise Unprobed(f"a copy needs {needed / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB are available")
    generator, copies = torch.Generator().manual_seed(0), {}
    table = [module.table] if isinstance(module, VocabularyHead) else []
    for tensor in (*module.parameters(), *module.buffers(), *table):
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        new = tensor.detach().to("cpu", dtype, copy=True)
        if tensor.requires_grad and (small := (new == 0) | (new.abs() < NEARLY_ZERO).all()).any():
            spread = new.shape[-1] ** -0.5 if new.dim() > 1 else 0.5
            new[small] = spread * torch.randn(int(small.sum()), generator=generator)
        copies[id(tensor)] = nn.Parameter(new, False) if isinstance(tensor, nn.Parameter) else new
    new = deepcopy(module, copies)
    for part in new.modules():
        for name in ("p",) if isinstance(part, nn.modules.dropout._DropoutNd) else ("dropout", "skip"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)
    return new


def drawn(seed: int, *shape: int) -> Tensor:
    """Returns random numbers from a normal distribution with the standard deviation 1."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def another(values: Tensor, row: int, number: int) -> Tensor:
    """Returns other values for a row: those of another row that differs, or, for decimals and an even `number`, random
    ones. Raises Unprobed if there is no other row."""
    if values.is_floating_point() and number % 2 == 0:
        return SIZE * values[values.isfinite()].std().nan_to_num(1.0) * drawn(number, *values.shape[1:])
    others = (values != values[row]).reshape(len(values), -1).any(1).nonzero()[:, 0]
    if not len(others):
        raise Unprobed("all its values are equal")
    return values[others[(number * len(others)) // 3]]


def numbers_in(slots: Int[Tensor, "t"], wanted: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """Returns the index of each of the slots `wanted` in `slots`; -1 if it is not there."""
    numbers = torch.full((1 + int(max(slots.max(), wanted.max())),), -1)
    numbers[slots] = torch.arange(len(slots))
    return numbers[wanted]


def differs(before: Float[Tensor, "n k"], after: Float[Tensor, "n k"]) -> Bool[Tensor, "n"]:
    """Returns whether each row has changed by more than the share `SMALL` of the largest value."""
    return ~((after - before).abs().amax(1) <= SMALL * before.abs().max())


# ------------------------------------------------------------------------------------------------------------ probing


def probe(model: Model, batch: Batch, seconds: float = PROBE_SECONDS) -> list[str]:
    """Probes the user-defined parts of a model with the samples of a batch that is not planned. Returns a line for each
    part that cannot be probed. At least one token of each part is probed; after `seconds`, no further ones.

    Raises LeakError if an output depends on a token that its slot cannot read. The message names the classes of the
    part and the two tokens."""
    end, lines = time.perf_counter() + seconds, {}
    with unchanged_generators(), torch.no_grad():
        parts = [*parts_of(model, batch)]
        for number, part in enumerate(parts):
            share = (end - time.perf_counter()) / (len(parts) - number)
            try:
                module = redrawn(part.module)
                for training in (False, True):
                    part.check(module, training, time.perf_counter() + share / 2)
            except LeakError:
                raise
            except Unprobed as error:
                lines[f"{part.where}: {part.names} is not probed for leaks: {error}"] = None
            except Exception as error:  # of user-defined code; if it also fails in training, it is raised there
                reason = f"{type(error).__name__}: {error}"
                lines[f"{part.where}: {part.names} is not probed for leaks: {reason}"] = None
    return list(lines)


@contextmanager
def unchanged_generators() -> Iterator[None]:
    """A context that stores the states of the random generators of Python, numpy and torch (on the CPU), and restores
    them at its end."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def available_memory() -> int | None:
    """Returns the number of bytes of memory that are available; None if the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
