"""Attention as message passing on a graph, in plain Python. Read and run this file first.

Every node holds a vector, from which it computes a *query* (what am I looking for?), a *key* (what do I contain?) and a
*value* (what do I communicate?). To receive a message, a node compares its query with the key of every node from which
an edge leads to it: the dot product of query and key is a score. The softmax turns the scores into weights that sum to
one. The message is the sum of the values, multiplied by these weights. That is all of attention. `kernels.py` computes
the same messages faster and is tested against this file; `tiny_gpt.py` is a language model with the same functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Vector = list[float]


@dataclass
class MessageNode:
    """One token. `token` is any value from which the graph decides about edges, for example the token's position."""

    query: Vector
    key: Vector
    value: Vector
    token: object = None


def dot(left: Vector, right: Vector) -> float:
    """Returns the dot product of two vectors, which measures how well they match."""
    return sum(a * b for a, b in zip(left, right, strict=True))


def softmax(scores: Vector) -> Vector:
    """Returns one positive weight per score; their sum is one. Subtracting the maximum avoids an overflow of exp."""
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def receive(node: MessageNode, incoming: Sequence[MessageNode], bias: Vector | None = None) -> Vector:
    """Returns the message that `node` receives from the nodes `incoming`, from which edges lead to `node`. Returns
    zeros if `incoming` is empty. `bias` has one number per incoming node, which is added to the score of that node."""
    if not incoming:
        return [0.0] * len(node.value)
    scores = [dot(node.query, sender.key) / math.sqrt(len(node.query)) for sender in incoming]
    weights = softmax([s + b for s, b in zip(scores, bias or [0.0] * len(scores), strict=True)])
    return [sum(w * sender.value[i] for w, sender in zip(weights, incoming)) for i in range(len(node.value))]


def pass_messages(
    readers: Sequence[MessageNode], senders: Sequence[MessageNode], reads: Callable[[object, object], bool]
) -> list[Vector]:
    """Computes one round of attention. Returns one message per reader: the message from all senders for which
    `reads(reader.token, sender.token)` is True. If `readers` and `senders` are the same nodes, this is self-attention,
    else it is cross-attention."""
    return [receive(node, [s for s in senders if reads(node.token, s.token)]) for node in readers]


def show(title: str, words: dict[str, Vector], messages: list[Vector]) -> None:
    """Prints the vector of every word and the message that it receives."""
    print(title)
    for word, message in zip(words, messages):
        print(f"{word:5} holds {words[word]} and receives {[round(number, 2) for number in message]}")


if __name__ == "__main__":  # query, key and value of a word are the same vector, so similar words have high scores
    words = {"chop": [4.0, 0.0], "mix": [0.0, 4.0], "chops": [3.0, 1.0]}
    nodes = [MessageNode(vector, vector, vector, position) for position, vector in enumerate(words.values())]
    source = [MessageNode(vector, vector, vector) for vector in ([4.0, 1.0], [1.0, 4.0])]  # another text, of two words
    encoded = pass_messages(nodes, nodes, lambda reader, sender: True)
    show("Encoder (BERT, ViT): an edge from every word to every word", words, encoded)
    crossed = pass_messages(nodes, source, lambda reader, sender: True)
    show("Cross-attention: an edge from every word of another text to every word", words, crossed)
    causal = pass_messages(nodes, nodes, lambda reader, sender: sender <= reader)
    show("Causal (GPT): an edge from every word to itself and to all later words", words, causal)
