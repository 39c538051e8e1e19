"""Connectionist temporal classification: reading a text off one score per token and symbol (Graves et al. 2006).

Scores have one column per symbol and the blank as the last one. A path says a symbol, or the blank, at every token; its
text is what remains when repeated symbols are one and blanks are nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def tokens_needed(symbols: Sequence[int]) -> int:
    """The fewest tokens that can say these symbols: one each, and a blank between two of the same."""
    return len(symbols) + sum(a == b for a, b in zip(symbols, symbols[1:]))


def ctc_loss(
    logs: Float[Tensor, "n s v"], texts: Int[Tensor, "l"], tokens: Int[Tensor, "s"], lengths: Int[Tensor, "s"]
) -> Float[Tensor, ""]:
    """The summed negative log-likelihood of some texts, whose symbols lie end to end, in nats. `logs`: each sample's
    log-probabilities as a column. How many `tokens` and symbols (`lengths`) each has is told on the CPU, where torch's
    kernels want it. `F.ctc_loss` would bring the texts there as well, and wait for them; and torch.compile has no rule
    for it."""
    if logs.is_cuda or torch.compiler.is_compiling():
        return opaque_ctc_loss(logs, texts, tokens, lengths)[0].sum()
    return F.ctc_loss(logs, texts, tokens, lengths, blank=logs.shape[-1] - 1, reduction="sum")


SCHEMA = "(Tensor logs, Tensor texts, Tensor tokens, Tensor lengths) -> (Tensor, Tensor)"


@torch.library.custom_op("chopmix::ctc_loss", mutates_args=(), schema=SCHEMA)
def opaque_ctc_loss(logs: Tensor, texts: Tensor, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Every text's loss, (s,), and its gradient, (n, s, v), by torch's kernels."""
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
    """The text of a path."""
    return [b for a, b in zip([blank, *path], path) if b not in (a, blank)]


def greedy(logs: Float[Tensor, "t v"]) -> list[int]:
    """The text of the likeliest path."""
    return collapsed(logs.argmax(-1).tolist(), logs.shape[1] - 1)


def prefix_beam(logs: Float[Tensor, "t v"], beams: int) -> list[int]:
    """The likeliest text, over all paths that say it (Hannun et al. 2014, arXiv:1408.2873), of `beams` kept at a time.

    `logs` are log-probabilities. With enough beams it is the exact answer, which the greedy path need not be.
    """
    blank = logs.shape[1] - 1
    texts: dict[tuple[int, ...], tuple[float, float]] = {
        (): (0.0, -math.inf)
    }  # log-probability ending in blank, in symbol
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
    """The logarithm of a sum of exponentials."""
    most = max(logs, default=-math.inf)
    return most if most == -math.inf else most + math.log(sum(math.exp(log - most) for log in logs))


def spans(logs: Float[Tensor, "t v"], symbols: Sequence[int]) -> list[tuple[int, int]]:
    """Where each symbol is said on the likeliest path of this text: its first token and the one after its last.

    Computed by torchaudio's `forced_align`. Raises ValueError for a text that these tokens cannot say.
    """
    from torchaudio.functional import forced_align, merge_tokens

    if tokens_needed(symbols) > len(logs):
        raise ValueError(f"{len(symbols)} symbols need {tokens_needed(symbols)} tokens; there are {len(logs)}")
    if not symbols:
        return []
    blank = logs.shape[1] - 1
    path, scores = forced_align(logs[None].float().cpu(), torch.tensor([symbols], dtype=torch.int32), blank=blank)
    return [(span.start, span.end) for span in merge_tokens(path[0], scores[0], blank)]
