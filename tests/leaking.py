"""User-defined parts that read tokens or targets that they must not read, and correct parts that look similar."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from chopmix import Block, BlockOptions, Graph
from chopmix.models.heads import MeanPooling, PooledLinear, Tied
from chopmix.tasks.classification import Classification
from chopmix.tokenizers.image import ImageTokenizer
from chopmix.tokenizers.text import TextTokenizer
from torch import nn


def following(x):
    """Each vector plus the next one."""
    return x + x.roll(-1, 1)


class Peek(Block):
    def forward(self, x, context, *source):
        return super().forward(following(x), context, *source)


class Far(Block):
    """Each vector plus one that is `distance` later; a negative distance: earlier, also in the sample before."""

    @dataclass(frozen=True, kw_only=True)
    class Options(BlockOptions):
        distance: int = 1

    def __init__(self, *arguments, options=Options(), **more):
        super().__init__(*arguments, options=options, **more)
        self.distance = options.distance

    def forward(self, x, context, *source):
        return super().forward(x + x.roll(-self.distance, 1), context, *source)


class Detached(Block):
    def forward(self, x, context, *source):
        return super().forward(x + x.detach().roll(-1, 1), context, *source)


class Late(Block):
    """Leaks only in the feed-forward branch, whose last matrix can be zero at the first step."""

    def forward(self, x, context, *source):
        x = self.add_attention(x, self.attention, context)
        return self.add_feed_forward(x, lambda y: self.feed_forward(following(y)))


class Scaled(Block):
    """The leak is multiplied by a weight that is nearly zero at first."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.gate = nn.Parameter(torch.tensor(1e-6))

    def forward(self, x, context, *source):
        return super().forward(x + self.gate * x.roll(-1, 1), context, *source)


class Cached(Block):
    """Leaks only in generation, into the cached keys and values."""

    def forward(self, x, context, *source):
        return super().forward(x if context.cache is None else following(x), context, *source)


class Lstm(Block):
    """An LSTM in both directions, which ignores the graph."""

    def __init__(self, width, *arguments, **options):
        super().__init__(width, *arguments, **options)
        self.lstm = nn.LSTM(width, width // 2, bidirectional=True, batch_first=True)

    def forward(self, x, context, *source):
        return super().forward(x + self.lstm(x)[0], context, *source)


class Batched(Block):
    """Statistics of all tokens, only in training."""

    def __init__(self, width, *arguments, **options):
        super().__init__(width, *arguments, **options)
        self.batch_norm = nn.BatchNorm1d(width)

    def forward(self, x, context, *source):
        return super().forward(self.batch_norm(x.mT).mT, context, *source)


class Choosing(Block):
    """An expert with a capacity, which in training chooses its tokens among all tokens."""

    def forward(self, x, context, *source):
        x = super().forward(x, context, *source)
        chosen = x.sum(2).topk(x.shape[1] // 2 if self.training else x.shape[1]).indices
        return x + self.feed_forward(x) * torch.zeros(x.shape[:2]).scatter(1, chosen, 1.0)[..., None]


class OfRow(Block):
    """Adds the mean of the row, which can have several samples."""

    def forward(self, x, context, *source):
        return super().forward(x + x.mean(1, keepdim=True), context, *source)


class Random(Block):
    """Random without the generator of torch: two calls differ."""

    calls = 0

    def forward(self, x, context, *source):
        Random.calls += 1
        return super().forward(x + 0.001 * Random.calls * x.roll(-1, 1), context, *source)


class Honest(Block):
    """Correct: dropout before the block, and a branch that is zero at first."""

    @dataclass(frozen=True, kw_only=True)
    class Options(BlockOptions):
        rate: float = 0.5

    def __init__(self, width, *arguments, options=Options(), **more):
        super().__init__(width, *arguments, options=options, **more)
        self.rate, self.gate = options.rate, nn.Linear(width, width)
        nn.init.zeros_(self.gate.weight)

    def forward(self, x, context, *source):
        x = F.dropout(x, self.rate, self.training)
        return super().forward(x + self.gate(x) * torch.rand(len(x), 1, 1), context, *source)


class Convolved(TextTokenizer):
    """Adds a part of the next vector to each vector."""

    def forward(self, chunks):
        x = super().forward(chunks)
        return x + 0.1 * x.reshape(-1, x.shape[-1]).roll(-1, 0).view_as(x)


class Told(TextTokenizer):
    """Reads the targets that are stored with the ids."""

    def forward(self, chunks):
        x = super().forward(chunks)
        return x + 0.0 * x + (0 if chunks.next_ids is None else chunks.next_ids.view(x.shape[:-1])[..., None] / 50)


class Averaged(ImageTokenizer):
    """Subtracts the mean of all images of the batch."""

    def forward(self, chunks):
        x = super().forward(chunks)
        return x - x.mean(0)


class Smooth(ImageTokenizer):
    """Correct: adds neighbouring patches of the same image."""

    def forward(self, chunks):
        x = super().forward(chunks)
        items = x.view(len(chunks.counts), -1, x.shape[-1])
        return (items + items.roll(1, 1)).view_as(x)


class PlainText(TextTokenizer):
    def forward(self, chunks):
        return F.dropout(super().forward(chunks), 0.3, self.training)


class Ahead(Tied):
    def forward(self, x, targets=None):
        return super().forward(x + x.roll(-1, 0))


class Answering(Tied):
    def forward(self, x, targets=None):
        scores = super().forward(x)
        return scores + F.one_hot(targets.values.clamp(min=0), scores.shape[1])


class Own(Tied):
    def forward(self, x, targets=None):
        return super().forward(torch.tanh(x))


class Among(PooledLinear):
    """Subtracts the mean over the samples of the batch."""

    def forward(self, x, targets):
        scores = super().forward(x, targets)
        return scores - scores.mean(0)


class Compared(Classification):
    def head(self, tokenizers, width):
        return Among(MeanPooling(width), width, len(self.classes))


@dataclass(frozen=True)
class Wrong(Graph):
    """Declares that it is causal, but reads one token ahead."""

    def edge(self, query, key):
        return key.position[0] <= query.position[0] + 1

    def ahead(self, axis=0):
        return frozenset() if axis == 0 else None


@dataclass(frozen=True)
class Strided(Graph):
    step: int = 2

    def edge(self, query, key):
        return ((query.position[0] - key.position[0]) % self.step == 0) & (key.position[0] <= query.position[0])

    def ahead(self, axis=0):
        return frozenset() if axis == 0 else None
