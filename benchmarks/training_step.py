"""Tokens per second of our training step beside transformers' GPT2LMHeadModel: same shape, batches, precision, both eager.

    python benchmarks/training_step.py --pairs 40

Both models are nanoGPT's character model for a CPU (4 layers, 4 heads, 128 wide, context 64, batch 12, no dropout) and are
trained by a plain loop with fused AdamW and clipping. The two take turns; the figure is the median ratio over the pairs.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from chopmix.models.batch import Batch, Pieces, PlannedSet
from chopmix.models.feed_forward import Gelu
from chopmix.models.mixture import Mixture
from chopmix.models.norms import LayerNorm
from chopmix.models.token_set import plain_tokens
from chopmix.models.transformer import Block, Transformer
from chopmix.tasks.language_modeling import LanguageModeling
from chopmix.tokenizers.encoding import CharacterEncoding
from chopmix.tokenizers.text import TextChopper, TextTokenizer
from results import write_results

CONTEXT, ROWS, WIDTH, DEPTH, HEADS = 64, 12, 128, 4, 4
SYMBOLS = "".join(map(chr, range(33, 98)))


def ours():
    task = LanguageModeling(target="text")
    chopper = TextChopper(encoding="characters", fitted=CharacterEncoding(SYMBOLS))
    tokenizers = {"text": TextTokenizer(chopper, WIDTH, CONTEXT)}
    core = Transformer(["text"], width=WIDTH, depth=DEPTH, heads=HEADS, block=block)
    model = Mixture(tokenizers, {"main": core}, {"lm": task.head(tokenizers, WIDTH)}, context=CONTEXT)
    tokens = plain_tokens(ROWS, CONTEXT)

    def loss(ids):
        following = ids[:, 1:].contiguous()
        pieces = {"text": Pieces(values=ids[:, :-1], index=torch.arange(CONTEXT), following=following)}
        planned = PlannedSet(tokens=tokens, pieces=pieces)
        batch = model.plan(Batch(sets={"main": planned}, targets={"lm": task.targets(planned)}))
        term = task.terms(model(batch)["lm"], batch.targets["lm"])["loss"]
        return term.sum / term.count

    return model.train(), loss


def block(*arguments):
    def norm(width):
        return LayerNorm(width, bias=False)

    def feed_forward(width, bias):
        return Gelu(width, bias)

    return Block(*arguments, norm=norm, feed_forward=feed_forward, bias=False)


def theirs():
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"vocab_size": 66, "n_positions": CONTEXT, "n_embd": WIDTH, "n_layer": DEPTH, "n_head": HEADS}
    model = GPT2LMHeadModel(GPT2Config(**shape, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, use_cache=False))

    def loss(ids):
        logits = model(ids[:, :-1]).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    return model.train(), loss


def trainer(model, loss):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=True)

    def run(batches) -> float:
        start = time.perf_counter()
        for ids in batches:
            loss(ids).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    return run


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pairs", type=int, default=40)
    options.add_argument("--steps", type=int, default=10, help="steps of each model in a pair")
    chosen = options.parse_args()
    torch.manual_seed(0)
    runs = {"chopmix": trainer(*ours()), "transformers": trainer(*theirs())}
    batches = [torch.randint(65, (ROWS, CONTEXT + 1)) for _ in range(chosen.steps)]
    for run in runs.values():
        run(batches)
    seconds = {name: [] for name in runs}
    for _ in range(chosen.pairs):
        for name, run in runs.items():
            seconds[name].append(run(batches) / chosen.steps)
    ratios = [t / o for o, t in zip(seconds["chopmix"], seconds["transformers"])]
    tokens = ROWS * CONTEXT
    rows = [
        {
            "what": name,
            "median_ms_per_step": 1000 * statistics.median(s),
            "tokens_per_second": tokens / statistics.median(s),
        }
        for name, s in seconds.items()
    ]
    low, middle, high = (sorted(ratios)[int(q * (len(ratios) - 1))] for q in (0.1, 0.5, 0.9))
    rows.append({"what": "ratio chopmix / transformers", "median": middle, "p10": low, "p90": high})
    write_results("training_step_gpt", rows)


if __name__ == "__main__":
    main()
