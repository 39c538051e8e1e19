"""Connectionist temporal classification (CTC, Graves et al. 2006): predicts a text from one row of scores per token.

Each row has one score per symbol and, in the last column, the score of the blank. A path consists of one symbol or
blank for every token. The text of a path is the result of merging neighbouring equal symbols and then removing the
blanks:

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
    """Returns the minimum number of tokens of a path with this text: one per symbol, and one blank between neighbouring
    equal symbols."""
    return len(symbols) + sum(a == b for a, b in zip(symbols, symbols[1:]))


def ctc_loss(
    logs: Float[Tensor, "n s v"], texts: Int[Tensor, "l"], tokens: Int[Tensor, "s"], lengths: Int[Tensor, "s"]
) -> Float[Tensor, ""]:
    """Returns the sum of the negative log-likelihoods of s texts, in nats. `logs` are log-probabilities (n tokens, s
    samples, v columns) and `texts` are the concatenated symbols of all samples. `tokens` and `lengths` are the numbers
    of tokens and of symbols of each sample; both must be on the CPU, where PyTorch's kernels read them.

    `F.ctc_loss` is not used on a GPU, because it would also copy the texts to the CPU and wait for the copy, and not in
    compiled code, because torch.compile does not support it. A custom operator replaces it in these two cases."""
    if logs.is_cuda or torch.compiler.is_compiling():
        return opaque_ctc_loss(logs, texts, tokens, lengths)[0].sum()
    return F.ctc_loss(logs, texts, tokens, lengths, blank=logs.shape[-1] - 1, reduction="sum")


SCHEMA = "(Tensor logs, Tensor texts, Tensor tokens, Tensor lengths) -> (Tensor, Tensor)"


@torch.library.custom_op("chopmix::ctc_loss", mutates_args=(), schema=SCHEMA)
def opaque_ctc_loss(logs: Tensor, texts: Tensor, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (losses, gradients): the loss of every text, (s,), and the gradient of the losses with respect to `logs`,
    (n, s, v). Both are computed by PyTorch's kernels."""
    blank = logs.shape[-1] - 1
    losses, paths = torch.ops.aten._ctc_loss(logs, texts, tokens.tolist(), lengths.tolist(), blank)
    gradients = torch.ops.aten._ctc_loss_backward(
        torch.ones_like(losses), logs, texts, tokens.tolist(), lengths.tolist(), losses, paths, blank
    )
    return losses, gradients


@opaque_ctc_loss.register_fake
def _(logs: Tensor, texts: Tensor, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    return logs.new_empty(logs.shape[1]), torch.empty_like(logs)


def _save_gradients(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, losses: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return losses[:, None] * ctx.saved_tensors[0], None, None, None


opaque_ctc_loss.register_autograd(_backward, setup_context=_save_gradients)


def collapsed(path: Sequence[int], blank: int) -> list[int]:
    """Returns the text of a path: `collapsed([0, 0, 2, 0, 1, 2], blank=2)` is `[0, 0, 1]`."""
    return [b for a, b in zip([blank, *path], path) if b not in (a, blank)]


def greedy(logs: Float[Tensor, "t v"]) -> list[int]:
    """Returns the text of the most likely path. This path has the most likely symbol, or the blank, at every token."""
    return collapsed(logs.argmax(-1).tolist(), logs.shape[1] - 1)


def prefix_beam(logs: Float[Tensor, "t v"], beams: int) -> list[int]:
    """Returns the most likely text, found by a beam search with `beams` prefixes (Hannun et al. 2014, arXiv:1408.2873).
    The probability of a text is the sum of the probabilities of all its paths. Therefore the text can differ from the
    result of `greedy`. `logs` are log-probabilities. The search is exact if no prefix is dropped."""
    blank = logs.shape[1] - 1
    # for each text the log-probabilities of its paths that end with the blank, and of those that end with a symbol
    texts: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for row in logs.double().tolist():
        extended: dict[tuple[int, ...], list[list[float]]] = defaultdict(lambda: [[], []])
        for text, (by_blank, by_symbol) in texts.items():
            both = _add(by_blank, by_symbol)
            extended[text][0].append(both + row[blank])
            for symbol, log in enumerate(row[:blank]):
                if log == -math.inf:
                    continue
                if text and text[-1] == symbol:
                    extended[text][1].append(by_symbol + log)
                    extended[(*text, symbol)][1].append(by_blank + log)
                else:
                    extended[(*text, symbol)][1].append(both + log)
        summed = {text: (_add(*by_blank), _add(*by_symbol)) for text, (by_blank, by_symbol) in extended.items()}
        texts = dict(sorted(summed.items(), key=lambda item: -_add(*item[1]))[:beams])
    return list(max(texts, key=lambda text: _add(*texts[text])))


def _add(*logs: float) -> float:
    """Returns the logarithm of the sum of the exponentials of `logs`; minus infinity for no logs."""
    maximum = max(logs, default=-math.inf)
    return maximum if maximum == -math.inf else maximum + math.log(sum(math.exp(log - maximum) for log in logs))


def spans(logs: Float[Tensor, "t v"], symbols: Sequence[int]) -> list[tuple[int, int]]:
    """Returns a forced alignment: for each symbol the pair (first token, last token + 1) on the most likely path whose
    text is `symbols`. `logs` are log-probabilities.

    The path is found by the Viterbi algorithm over the states blank, first symbol, blank, second symbol, ..., blank.
    From token to token a path stays in its state or moves to the next state; it may also skip the blank between two
    different symbols. Raises ValueError if the text needs more tokens than there are (`tokens_needed`).
    """
    if tokens_needed(symbols) > len(logs):
        raise ValueError(f"{len(symbols)} symbols need {tokens_needed(symbols)} tokens; there are {len(logs)}")
    if not symbols:
        return []
    states = np.full(2 * len(symbols) + 1, logs.shape[1] - 1)
    states[1::2] = symbols
    skip = np.full(len(states), -np.inf)
    skip[2:][states[2:] != states[:-2]] = 0.0
    # finite, so that a path of probability 0 is still better than states that form no path of the text
    scores = logs.double().clamp(min=torch.finfo(torch.float32).min).cpu().numpy()[:, states]
    best = np.full((len(scores), len(states) + 2), -np.inf)  # the best path to each state; two columns of padding first
    best[0, 2:4] = scores[0, :2]
    for token in range(1, len(scores)):
        last = best[token - 1]
        best[token, 2:] = np.maximum(np.maximum(last[2:], last[1:-1]), last[:-2] + skip) + scores[token]
    path = [len(states) - (1 if best[-1, -1] > best[-1, -2] else 2)]
    for last in best[-2::-1]:
        state = path[-1]
        previous = (last[state + 2], last[state + 1], last[state] + skip[state])
        path.append(state - previous.index(max(previous)))
    symbol_states = np.arange(1, len(states), 2)
    starts, ends = (np.searchsorted(path[::-1], symbol_states, side).tolist() for side in ("left", "right"))
    return list(zip(starts, ends))
