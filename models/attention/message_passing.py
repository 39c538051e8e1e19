"""Attention as the lecture tells it: nodes on a graph send each other messages. Read and run this file first.

Every node holds a vector. From it each node makes a *query* (what am I looking for?), a *key* (what do I have?) and a
*value* (what do I tell?). A node then looks at the nodes with an edge to it, scores each by query . key, turns the
scores into weights that sum to one, and takes the weighted sum of their values. That is all of attention; `kernels.py`
is this loop, made fast and tested against it, and `tiny_gpt.py` is a language model around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Vector = list[float]


@dataclass
class MessageNode:
    """One token: what it looks for, what it has, what it tells. `token` is what the graph knows of it, such as its
    position."""

    query: Vector
    key: Vector
    value: Vector
    token: object = None


def dot(left: Vector, right: Vector) -> float:
    """The inner product: how well two vectors agree."""
    return sum(a * b for a, b in zip(left, right, strict=True))


def softmax(scores: Vector) -> Vector:
    """Positive weights that sum to one; the largest score is taken off first so that exp cannot overflow."""
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def receive(node: MessageNode, incoming: Sequence[MessageNode], bias: Vector | None = None) -> Vector:
    """The message that one node receives from the nodes that have an edge to it; zeros when there are none. `bias` is
    added to the scores, one number per sender."""
    if not incoming:
        return [0.0] * len(node.value)
    scores = [dot(node.query, sender.key) / math.sqrt(len(node.query)) for sender in incoming]
    weights = softmax([s + b for s, b in zip(scores, bias or [0.0] * len(scores), strict=True)])
    return [sum(w * sender.value[i] for w, sender in zip(weights, incoming)) for i in range(len(node.value))]


def pass_messages(
    readers: Sequence[MessageNode], senders: Sequence[MessageNode], reads: Callable[[object, object], bool]
) -> list[Vector]:
    """One round of attention: every reader receives from all senders that `reads(reader, sender)` lets it see.
    Self-attention when `readers` and `senders` are the same nodes, cross-attention when they are not."""
    return [receive(node, [s for s in senders if reads(node.token, s.token)]) for node in readers]


def show(title: str, words: dict[str, Vector], heard: list[Vector]) -> None:
    """Print what every word holds and what it hears."""
    print(title)
    for word, message in zip(words, heard):
        print(f"{word:5} holds {words[word]} and hears {[round(number, 2) for number in message]}")


if __name__ == "__main__":  # every word asks for what sounds like it
    words = {"chop": [4.0, 0.0], "mix": [0.0, 4.0], "chops": [3.0, 1.0]}
    nodes = [MessageNode(vector, vector, vector, place) for place, vector in enumerate(words.values())]
    source = [MessageNode(vector, vector, vector) for vector in ([4.0, 1.0], [1.0, 4.0])]  # another text, of two words
    encoded = pass_messages(nodes, nodes, lambda reader, sender: True)
    show("Encoder (BERT, ViT): an edge from every word to every word", words, encoded)
    crossed = pass_messages(nodes, source, lambda reader, sender: True)
    show("Cross-attention: an edge from every word of another text to every word", words, crossed)
    causal = pass_messages(nodes, nodes, lambda reader, sender: sender <= reader)
    show("Causal (GPT): an edge from every word to itself and to those behind it", words, causal)
