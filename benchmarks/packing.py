"""Measures the speed-up of packing samples of log-uniform length into rows, compared with padding to the longest.

    python benchmarks/packing.py --pairs 9

The model has 4 layers of width 128; 32 samples have 16 to 128 tokens; float32 and bfloat16. The largest possible
speed-up is the ratio of padded to useful tokens; `share_of_possible` is the measured speed-up divided by it.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import torch
from chopmix.models.batch import Batch
from chopmix.models.model import Cores, Model
from chopmix.models.transformer import Transformer
from chopmix.tasks.base import with_targets
from chopmix.tasks.language_modeling import LanguageModeling
from chopmix.tokenizers.base import Chunk
from chopmix.tokenizers.chopping.packing import place
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.text import TextChopper, TextTokenizer
from results import write_results

SHORTEST, LONGEST, SAMPLES = 16, 128, 32


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pairs", type=int, default=9)
    chosen = options.parse_args()
    rows = [row for dtype in ("float32", "bfloat16") for row in compare(dtype, chosen.pairs)]
    write_results("packing", rows)


def compare(precision: str, pairs: int) -> list[dict]:
    """Returns a row for one precision: the times of a packed and of a padded step, and the speed-up."""
    torch.manual_seed(0)
    task = LanguageModeling(target="text")
    chopper = TextChopper(vocabulary=ByteEncoding())
    tokenizers = {"text": TextTokenizer(chopper, 128, LONGEST)}
    core = Transformer(width=128, depth=4, heads=4, attention="causal & same_sample")
    model = Model(tokenizers, Cores(core), {"lm": task.head(tokenizers, 128)}, context=LONGEST)
    dtype = getattr(torch, precision)
    lengths = [
        round(math.exp(math.log(SHORTEST) + f * math.log(LONGEST / SHORTEST))) for f in torch.rand(SAMPLES).tolist()
    ]
    ids = [torch.randint(256, (length,)) for length in lengths]
    chopped = [[("text", Chunk(text, len(text), next_ids=text))] for text in ids]

    def planned(rows):
        plan = place(chopped, {"text": chopper}, LONGEST, rows=rows, trim=True)
        return with_targets(Batch(main=plan), {"lm": task})

    batches = {"packed": planned(None), "padded": planned(range(SAMPLES))}

    def step(batch) -> float:
        start = time.perf_counter()
        batch = model.plan(batch, dtype=dtype)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            output = model(batch)["lm"]
            loss = task.terms(output, batch.targets["lm"])["loss"]
        (loss / batch.targets["lm"].count).backward()
        model.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    for batch in batches.values():
        step(batch)
    seconds = [{name: step(batch) for name, batch in batches.items()} for _ in range(pairs)]
    gain = statistics.median(pair["padded"] / pair["packed"] for pair in seconds)
    slots = {name: batch.main.tokens.sample.numel() for name, batch in batches.items()}
    most = slots["padded"] / sum(lengths)
    return [{
        "precision": precision, "useful": sum(lengths), **slots, "padded_to_useful": most,
        "ms_packed": 1000 * statistics.median(pair["packed"] for pair in seconds),
        "ms_padded": 1000 * statistics.median(pair["padded"] for pair in seconds),
        "gain": gain, "share_of_possible": gain / most,
    }]  # fmt: skip


if __name__ == "__main__":
    main()
