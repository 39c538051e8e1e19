"""A GPT on one page: the message passing of `message_passing.py`, with vectors that torch can train.

    python models/attention/tiny_gpt.py

learns one line of text by heart, in seconds on one core, and writes it from its first letter. Nodes, edges and
`pass_messages` are those of the lecture; only the numbers are tensors. `models/transformer.py` is the same model for
everything else: many rows at once, any graph, any kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LINE = "chop up everything and throw it into the mix"


@dataclass
class MessageNode:
    """One token: what it looks for, what it has, what it tells, a vector (c) each; and its position, `token`."""

    query: Tensor
    key: Tensor
    value: Tensor
    token: int


def receive(node: MessageNode, incoming: Sequence[MessageNode]) -> Tensor:
    """The message (c) that one node receives from the nodes that have an edge to it."""
    keys, values = (torch.stack([getattr(sender, name) for sender in incoming]) for name in ("key", "value"))
    return (keys @ node.query / math.sqrt(len(node.query))).softmax(dim=0) @ values


def pass_messages(
    readers: Sequence[MessageNode], senders: Sequence[MessageNode], reads: Callable[[int, int], bool]
) -> Tensor:
    """One round of attention, (n, c): every reader receives from the senders that `reads(reader, sender)` names."""
    return torch.stack([receive(node, [s for s in senders if reads(node.token, s.token)]) for node in readers])


def causal(reader: int, sender: int) -> bool:
    """The graph of a GPT: a token reads itself and the tokens before it."""
    return sender <= reader


class Block(nn.Module):
    """Communicate, then compute: every token hears the tokens before it, then thinks by itself."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def communicate(self, x: Tensor) -> Tensor:
        """Attention, (n, d) to (n, d): every head passes messages with its own share of the channels."""
        messages = []
        for parts in zip(*(layer(x).chunk(self.heads, dim=1) for layer in (self.query, self.key, self.value))):
            nodes = [MessageNode(*vectors, token) for token, vectors in enumerate(zip(*parts))]
            messages.append(pass_messages(nodes, nodes, causal))
        return self.out(torch.cat(messages, dim=1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.communicate(self.norm_1(x))
        return x + self.think(self.norm_2(x))


class TinyGpt(nn.Module):
    """Ids (n) to scores of the next id after each, (n, v)."""

    def __init__(self, vocabulary: int, context: int, width: int = 32, depth: int = 2, heads: int = 2):
        super().__init__()
        self.content, self.place = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.scores = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.content(ids) + self.place(torch.arange(len(ids)))
        return self.scores(self.norm(self.blocks(x)))


def learn(line: str, steps: int = 25) -> tuple[TinyGpt, list[str]]:
    """Train a model on one line for `steps` steps, to predict the next letter after each; gives it and the alphabet."""
    letters = sorted(set(line))
    ids = torch.tensor([letters.index(letter) for letter in line])
    model = TinyGpt(len(letters), len(line))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        loss = F.cross_entropy(model(ids[:-1]), ids[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 8 == 0:
            print(f"step {step + 1:3}  loss {loss.item():.3f} nats a letter")
    return model, letters


@torch.no_grad()
def write(model: TinyGpt, letters: list[str], start: str, length: int) -> str:
    """Greedy generation: append the likeliest next letter to `start` until the line has `length` letters."""
    ids = [letters.index(letter) for letter in start]
    while len(ids) < length:
        ids.append(int(model(torch.tensor(ids))[-1].argmax()))
    return "".join(letters[id] for id in ids)


if __name__ == "__main__":
    torch.manual_seed(0)
    print(write(*learn(LINE), start=LINE[0], length=len(LINE)))
