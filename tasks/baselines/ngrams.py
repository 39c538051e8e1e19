"""A language model of byte sequences, with which a run on texts is compared (`chopmix baselines`): interpolated
Kneser-Ney smoothing of at most six bytes (Chen & Goodman 1999)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .simple_models import Examples

ORDER = 6
"""The largest number of bytes of a sequence."""
SYMBOLS = 257
"""The number of symbols: 256 bytes, and a mark in place of a special token."""
BITS = 9
"""The number of bits in which a symbol is stored in the code of a sequence."""
MOST = 2**24
"""The largest number of symbols that are counted."""


class ByteTargets(NamedTuple):
    """The targets of a sample as symbols."""

    symbols: Int[np.ndarray, "m"]
    """Bytes, or 256 for a special token."""
    token: Int[np.ndarray, "m"]
    """The number of the target to which each symbol belongs."""
    targets: int


class Order(NamedTuple):
    """The counts of sequences of one length, by the codes of the sequences in increasing order."""

    codes: Int[np.ndarray, "k"]
    counts: Float[np.ndarray, "k"]
    contexts: Int[np.ndarray, "c"]
    """The sequences without their last symbol."""
    totals: Float[np.ndarray, "c"]
    """The sums of the counts of each context."""
    kinds: Float[np.ndarray, "c"]
    """The number of different symbols after each context."""


DISCOUNTS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
"""The discounts that are compared."""
HELD_OUT = 0.1
"""The share of the training data, at its end, on which they are compared."""


def predict_texts(train: Examples, others: Sequence[Examples]) -> list[list[Float[np.ndarray, "t"]]]:
    """Returns for each sample the negative log-likelihoods of its targets, in nats. A sample is read from its first
    symbol: the symbols before it are not known."""
    symbols = np.concatenate([*(each.symbols for each in train.targets), np.empty(0, np.int64)])[:MOST]
    discount, orders = best_discount(symbols), counted(symbols)
    return [[of_targets(orders, discount, each) for each in examples.targets] for examples in others]


def of_targets(orders: Sequence[Order], discount: float, each: ByteTargets) -> Float[np.ndarray, "t"]:
    """Returns the negative log-likelihood of each target: the sum over its symbols."""
    losses = -np.log(likelihoods(orders, discount, each.symbols))
    return np.bincount(each.token, losses, minlength=each.targets)


def best_discount(symbols: Int[np.ndarray, "m"], order: int = ORDER) -> float:
    """Returns the discount with the smallest loss on the end of the training data, after counting the rest."""
    end = round(len(symbols) * (1 - HELD_OUT))
    orders = counted(symbols[:end], order)
    losses = [-np.log(likelihoods(orders, discount, symbols[end:])).sum() for discount in DISCOUNTS]
    return DISCOUNTS[int(np.argmin(losses))]


def counted(symbols: Int[np.ndarray, "m"], order: int = ORDER) -> list[Order]:
    """Returns the counts of the sequences of 1 to `order` symbols. The counts of shorter sequences are the numbers of
    different symbols before them."""
    orders: list[Order] = []
    codes, counts = np.unique(sequences(symbols.astype(np.int64), order), return_counts=True)
    for length in range(order, 0, -1):
        orders.insert(0, order_of(codes, counts.astype(np.float64)))
        codes, counts = np.unique(codes & ((1 << BITS * (length - 1)) - 1), return_counts=True)
    return orders


def sequences(symbols: Int[np.ndarray, "m"], length: int) -> Int[np.ndarray, "k"]:
    """Returns the codes of all sequences of `length` symbols, the last symbol in the lowest bits."""
    count = max(0, len(symbols) - length + 1)
    codes = np.zeros(count, np.int64)
    for index in range(length):
        codes = (codes << BITS) | symbols[index : index + count]
    return codes


def order_of(codes: Int[np.ndarray, "k"], counts: Float[np.ndarray, "k"]) -> Order:
    """Returns the counts of an order by context."""
    contexts, first = np.unique(codes >> BITS, return_index=True)
    totals = np.add.reduceat(counts, first) if len(first) else np.empty(0)
    kinds = np.diff(np.append(first, len(codes))).astype(np.float64)
    return Order(codes, counts, contexts, totals, kinds)


def likelihoods(orders: Sequence[Order], discount: float, symbols: Int[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
    """Returns the probability of each symbol after those before it. From each count, `discount` is subtracted, and the
    rest is distributed like after the next shorter context; below one symbol, all symbols are equally probable."""
    symbols = symbols.astype(np.int64)
    probability = np.full(len(symbols), 1 / SYMBOLS)
    for length, order in enumerate(orders, start=1):
        if not len(order.codes):
            break
        codes = sequences(symbols, length)
        before, has_context = lookup(order.contexts, codes >> BITS)
        place, is_known = lookup(order.codes, codes)
        count = np.where(is_known, np.maximum(order.counts[place] - discount, 0), 0)
        lower = probability[length - 1 :]
        raised = (count + discount * order.kinds[before] * lower) / order.totals[before]
        probability[length - 1 :] = np.where(has_context, raised, lower)
    return probability


def lookup(ordered: Int[np.ndarray, "k"], values: Int[np.ndarray, "m"]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (the place of each value in an ordered array, or any place; whether the value is there)."""
    place = np.searchsorted(ordered, values).clip(max=len(ordered) - 1)
    return place, ordered[place] == values
