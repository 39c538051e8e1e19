"""A minimal GPT: the message passing of `message_passing.py`, with tensors that PyTorch can train.

    python models/attention/tiny_gpt.py

This program trains the model on one line of text, which takes seconds on one CPU core. Then it generates the line from
its first letter. Nodes, edges and `pass_messages` are those of `message_passing.py`; vectors are tensors instead of
lists. `models/transformer.py` is the general version of the same model: batches of rows, any graph, fast kernels.
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
    """One token: its query, key and value, each a vector (c), and its position `token`."""

    query: Tensor
    key: Tensor
    value: Tensor
    token: int


def receive(node: MessageNode, incoming: Sequence[MessageNode]) -> Tensor:
    """Returns the message (c) that `node` receives from the nodes `incoming`, from which edges lead to `node`."""
    keys, values = (torch.stack([getattr(sender, name) for sender in incoming]) for name in ("key", "value"))
    return (keys @ node.query / math.sqrt(len(node.query))).softmax(dim=0) @ values


def pass_messages(
    readers: Sequence[MessageNode], senders: Sequence[MessageNode], reads: Callable[[int, int], bool]
) -> Tensor:
    """Computes one round of attention. Returns one message per reader, (n, c): the message from all senders for which
    `reads(reader.token, sender.token)` is True."""
    return torch.stack([receive(node, [s for s in senders if reads(node.token, s.token)]) for node in readers])


def causal(reader: int, sender: int) -> bool:
    """Returns True if there is an edge in the graph of a GPT, where a token reads itself and all earlier tokens."""
    return sender <= reader


class Block(nn.Module):
    """One layer: attention between the tokens (`communicate`), then a feed-forward network for each token
    (`compute`)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.compute = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def communicate(self, x: Tensor) -> Tensor:
        """Returns the output of multi-head attention, (n, d), for vectors x (n, d). Each head uses its own part of the
        channels."""
        messages = []
        for parts in zip(*(layer(x).chunk(self.heads, dim=1) for layer in (self.query, self.key, self.value))):
            nodes = [MessageNode(*vectors, token) for token, vectors in enumerate(zip(*parts))]
            messages.append(pass_messages(nodes, nodes, causal))
        return self.out(torch.cat(messages, dim=1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.communicate(self.norm_1(x))
        return x + self.compute(self.norm_2(x))


class TinyGpt(nn.Module):
    """Maps ids (n) to scores (logits), (n, v): row i has one score for each of the v possible ids after id i."""

    def __init__(self, vocabulary: int, context: int, width: int = 32, depth: int = 2, heads: int = 2):
        super().__init__()
        self.content, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.scores = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.content(ids) + self.position(torch.arange(len(ids)))
        return self.scores(self.norm(self.blocks(x)))


def train(line: str, steps: int = 25) -> tuple[TinyGpt, list[str]]:
    """Trains a model to predict the next letter at each position of a line. Returns (model, letters of the line)."""
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
            print(f"step {step + 1:3}  loss {loss.item():.3f} nats per letter")
    return model, letters


@torch.no_grad()
def generate(model: TinyGpt, letters: list[str], start: str, length: int) -> str:
    """Returns `start`, continued with the most likely next letter until the line has `length` letters."""
    ids = [letters.index(letter) for letter in start]
    while len(ids) < length:
        ids.append(int(model(torch.tensor(ids))[-1].argmax()))
    return "".join(letters[id] for id in ids)


if __name__ == "__main__":
    torch.manual_seed(0)
    print(generate(*train(LINE), start=LINE[0], length=len(LINE)))
