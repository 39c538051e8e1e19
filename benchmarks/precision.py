"""Measures for which widths bfloat16 is faster than float32 on this CPU, by alternating training steps in both.

    python benchmarks/precision.py --pairs 6

The rule for `precision: auto` in `experiment/build.py` is fitted to these results
(`benchmarks/results/precision.jsonl`), and `tests/training/test_precision.py` compares the rule with them. The models
have four layers of several widths and head widths; a step has 2,048 tokens in rows of 64 or 256, causal and
bidirectional.
"""

from __future__ import annotations

import argparse
import itertools

import torch
from chopmix.experiment.build import build_model, build_tasks
from chopmix.experiment.settings.config import config_from_tree
from chopmix.models.arithmetic import computing_type
from chopmix.models.batch import Batch, Chunks, SetPlan
from chopmix.models.tokens import plain_tokens
from chopmix.tasks.base import with_targets
from chopmix.tokenizers.encoding.base import NumberEncoding
from chopmix.tokenizers.text import TextChopper
from chopmix.training.accounting import fast_half
from chopmix.training.objective import autocast
from pairs import figures, timed_pairs
from results import write_results

CPU = torch.device("cpu")
TOKENS, VOCABULARY = 2048, 512
WIDTHS, CHANNELS, ROWS = (32, 64, 96, 128, 192, 256, 384), (8, 16, 32, 64), (64, 256)
ATTENTION = {"causal": "causal & same_sample", "full": "same_sample"}
BLOCK = {"norm": {"use": "layer_norm", "gain": False}, "query_key_norm": {"use": "layer_norm", "gain": False},
         "feed_forward": "squared_relu", "bias": False}  # fmt: skip


def step_of(width: int, channels: int, context: int, attention: str, precision: str):
    """Returns a function that runs one training step (forward, backward, AdamW) of a language model."""
    config = config_from_tree(
        {
            "inputs": {"text": {"use": "text", "encoding": "numbers", "vocabulary": VOCABULARY, "position": None}},
            "model": {
                "width": width,
                "depth": 4,
                "heads": width // channels,
                "context": context,
                "attention": ATTENTION[attention],
                "position": "rotary",
                "block": BLOCK,
            },
            "tasks": {"lm": {"use": "language_modeling", "target": "text"}},
            "data": {},
            "training": {"steps": 1, "tokens_per_step": TOKENS},
        }
    )
    choppers = {"text": TextChopper(vocabulary=NumberEncoding(VOCABULARY))}
    tasks = build_tasks(config, choppers)
    torch.manual_seed(0)
    model, task = build_model(config, choppers, tasks).train(), tasks["lm"]
    model.leak_check.check = lambda *_: None  # a bidirectional model leaks its targets, but only the time is measured
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.randint(1, VOCABULARY, (TOKENS // context, context + 1))
    tokens, inputs, following = plain_tokens(len(ids), context), ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def step() -> None:
        with autocast(CPU, precision):
            chunks = {"text": Chunks(values=inputs, index=torch.arange(context), next_ids=following)}
            plan = SetPlan(tokens=tokens, chunks=chunks)
            batch = model.plan(with_targets(Batch(main=plan), {"lm": task}), dtype=computing_type(model))
            loss = task.terms(model(batch)["lm"], batch.targets["lm"])["loss"]
        (loss / batch.targets["lm"].count).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pairs", type=int, default=6)
    chosen = options.parse_args()
    if not fast_half(CPU):
        raise SystemExit("this CPU has no instructions for bfloat16, so `precision: auto` is float32")
    for width, channels, context, attention in itertools.product(WIDTHS, CHANNELS, ROWS, ATTENTION):
        if width % channels:
            continue
        half, full = (step_of(width, channels, context, attention, precision) for precision in ("bfloat16", "float32"))
        row = figures(timed_pairs(half, full, chosen.pairs), "float32")
        what = {"width": width, "channels": channels, "context": context, "attention": attention}
        write_results(
            "precision",
            [
                {
                    **what,
                    "bfloat16_ms": row["ms"],
                    "float32_ms": row["peer_ms"],
                    "ratio": row["ratio"],
                    "ratio_p10": row["ratio_p10"],
                    "ratio_p90": row["ratio_p90"],
                }
            ],
        )


if __name__ == "__main__":
    main()
