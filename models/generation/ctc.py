"""Connectionist temporal classification (CTC): a text from one score per token and symbol (Graves et al. 2006).

Scores have one column per symbol, and the blank as the last one. A path takes one symbol, or the blank, at every token.
Its text merges repeated symbols, then drops the blanks:

    path   a a - a b -    with "-" for the blank
    text   a a b
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def tokens_needed(symbols: Sequence[int]) -> int:
    """The fewest tokens with a path for these symbols: one each, and a blank between two equal ones."""
    return len(symbols) + sum(a == b for a, b in zip(symbols, symbols[1:]))


def ctc_loss(
    logs: Float[Tensor, "n s v"], texts: Int[Tensor, "l"], tokens: Int[Tensor, "s"], lengths: Int[Tensor, "s"]
) -> Float[Tensor, ""]:
    """The negative log-likelihood of s texts, summed, in nats. `logs` are log-probabilities (n tokens, s samples, v
    columns), `texts` the symbols of all samples end to end, `tokens` and `lengths` the numbers of tokens and symbols of
    each sample, on the CPU, where torch's kernels need them.

    On a GPU `F.ctc_loss` would copy the texts to the CPU too, and wait for them; torch.compile has no rule for it."""
    if logs.is_cuda or torch.compiler.is_compiling():
        return opaque_ctc_loss(logs, texts, tokens, lengths)[0].sum()
    return F.ctc_loss(logs, texts, tokens, lengths, blank=logs.shape[-1] - 1, reduction="sum")


SCHEMA = "(Tensor logs, Tensor texts, Tensor tokens, Tensor lengths) -> (Tensor, Tensor)"


@torch.library.custom_op("chopmix::ctc_loss", mutates_args=(), schema=SCHEMA)
def opaque_ctc_loss(logs: Tensor, texts: Tensor, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of every text, (s,), and its gradient with respect to `logs`, (n, s, v), by torch's kernels."""
    blank = logs.shape[-1] - 1
    losses, paths = torch.ops.aten._ctc_loss(logs, texts, tokens.tolist(), lengths.tolist(), blank)
    slopes = torch.ops.aten._ctc_loss_backward(
        torch.ones_like(losses), logs, texts, tokens.tolist(), lengths.tolist(), losses, paths, blank
    )
    return losses, slopes


@opaque_ctc_loss.register_fake
def _(logs: Tensor, texts: Tensor, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    return logs.new_empty(logs.shape[1]), torch.empty_like(logs)


def _keep_slopes(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _by_slopes(ctx: Any, losses: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return losses[:, None] * ctx.saved_tensors[0], None, None, None


opaque_ctc_loss.register_autograd(_by_slopes, setup_context=_keep_slopes)


def collapsed(path: Sequence[int], blank: int) -> list[int]:
    """The text of a path: `collapsed([0, 0, 2, 0, 1, 2], blank=2)` is `[0, 0, 1]`."""
    return [b for a, b in zip([blank, *path], path) if b not in (a, blank)]


def greedy(logs: Float[Tensor, "t v"]) -> list[int]:
    """The text of the likeliest path: the best symbol at every token."""
    return collapsed(logs.argmax(-1).tolist(), logs.shape[1] - 1)


def prefix_beam(logs: Float[Tensor, "t v"], beams: int) -> list[int]:
    """The likeliest text, summed over all its paths, by a search with `beams` prefixes (Hannun et al. 2014,
    arXiv:1408.2873).

    `logs` are log-probabilities. With enough beams the result is exact; that of `greedy` need not be.
    """
    blank = logs.shape[1] - 1
    # log-probabilities of the paths that end in the blank, and in a symbol
    texts: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for row in logs.double().tolist():
        found: dict[tuple[int, ...], list[list[float]]] = defaultdict(lambda: [[], []])
        for text, (silent, spoken) in texts.items():
            both = _add(silent, spoken)
            found[text][0].append(both + row[blank])
            for symbol, log in enumerate(row[:blank]):
                if log == -math.inf:
                    continue
                if text and text[-1] == symbol:
                    found[text][1].append(spoken + log)
                    found[(*text, symbol)][1].append(silent + log)
                else:
                    found[(*text, symbol)][1].append(both + log)
        summed = {text: (_add(*silent), _add(*spoken)) for text, (silent, spoken) in found.items()}
        texts = dict(sorted(summed.items(), key=lambda item: -_add(*item[1]))[:beams])
    return list(max(texts, key=lambda text: _add(*texts[text])))


def _add(*logs: float) -> float:
    """The logarithm of the sum of exponentials."""
    most = max(logs, default=-math.inf)
    return most if most == -math.inf else most + math.log(sum(math.exp(log - most) for log in logs))


def spans(logs: Float[Tensor, "t v"], symbols: Sequence[int]) -> list[tuple[int, int]]:
    """Forced alignment: where each symbol is on the likeliest path of this text, as its first token and the one after
    its last.

    By the Viterbi algorithm over the states blank, first symbol, blank, second symbol, ..., blank. With each token a
    path stays in its state, moves on by one state, or moves on by two, past the blank between two different symbols.
    Raises ValueError for a text that needs more tokens (`tokens_needed`).
    """
    if tokens_needed(symbols) > len(logs):
        raise ValueError(f"{len(symbols)} symbols need {tokens_needed(symbols)} tokens; there are {len(logs)}")
    if not symbols:
        return []
    states = np.full(2 * len(symbols) + 1, logs.shape[1] - 1)
    states[1::2] = symbols
    skip = np.full(len(states), -np.inf)
    skip[2:][states[2:] != states[:-2]] = 0.0
    # finite: a path of probability 0 is still better than a sequence of states that is no path of the text
    scores = logs.double().clamp(min=torch.finfo(torch.float32).min).cpu().numpy()[:, states]
    best = np.full((len(scores), len(states) + 2), -np.inf)  # of all paths to a state, after two columns of no path
    best[0, 2:4] = scores[0, :2]
    for token in range(1, len(scores)):
        last = best[token - 1]
        best[token, 2:] = np.maximum(np.maximum(last[2:], last[1:-1]), last[:-2] + skip) + scores[token]
    path = [len(states) - (1 if best[-1, -1] > best[-1, -2] else 2)]
    for last in best[-2::-1]:
        state = path[-1]
        before = (last[state + 2], last[state + 1], last[state] + skip[state])
        path.append(state - before.index(max(before)))
    said = np.arange(1, len(states), 2)
    starts, ends = (np.searchsorted(path[::-1], said, side).tolist() for side in ("left", "right"))
    return list(zip(starts, ends))
