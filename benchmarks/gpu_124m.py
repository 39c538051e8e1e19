"""Tokens per second and MFU of a GPT-2 124M training step on one GPU, against a matrix product measured in the same run.

    python benchmarks/gpu_124m.py

not run: needs a GPU. The step is that of `configs/lm/gpt2_124m.yaml` (bfloat16, compiled, 12 rows of 1,024) on random ids;
the peak is an 8192 x 8192 x 8192 bfloat16 product on the same card in the same process.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from chopmix.models.batch import Batch, Pieces, PlannedSet
from chopmix.models.mixture import Mixture
from chopmix.models.token_set import plain_tokens
from chopmix.models.transformer import Transformer
from chopmix.tasks.language_modeling import LanguageModeling
from chopmix.tokenizers.encoding import NumberEncoding
from chopmix.tokenizers.text import TextChopper, TextTokenizer
from chopmix.training.accounting import flops_per_token
from chopmix.training.objective import Objective
from chopmix.training.optimizers import AdamW
from results import write_results

CONTEXT, ROWS, WIDTH = 1024, 12, 768


def product_flops() -> float:
    """Operations per second of a large bfloat16 matrix product here."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * 8192**3 / statistics.median(times[5:])


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs a GPU")
    torch.set_float32_matmul_precision("high")
    task = LanguageModeling(target="text")
    chopper = TextChopper(encoding="numbers", fitted=NumberEncoding(50257))
    tokenizers = {"text": TextTokenizer(chopper, WIDTH, CONTEXT, pad_vocabulary_to=64)}
    core = Transformer(["text"], width=WIDTH, depth=12, heads=12)
    model = Mixture(tokenizers, {"main": core}, {"lm": task.head(tokenizers, WIDTH)}, context=CONTEXT).cuda()
    objective, optimizer = Objective(model, {"lm": task}, "bfloat16").train(), AdamW(model, 6e-4)
    objective.compile()
    ids = torch.randint(50256, (ROWS, CONTEXT + 1))
    pieces = {
        "text": Pieces(values=ids[:, :-1].contiguous(), index=torch.arange(CONTEXT), following=ids[:, 1:].contiguous())
    }
    planned = PlannedSet(tokens=plain_tokens(ROWS, CONTEXT), pieces=pieces)
    batch = Batch(sets={"main": planned}, targets={"lm": task.targets(planned)})
    batch = model.plan(batch, dtype=torch.bfloat16, device="cuda").to("cuda")

    def step() -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        term = objective(batch)["lm/loss"]
        (term.sum / term.count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(1.0)
        optimizer.zero_grad()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    seconds = statistics.median([step() for _ in range(40)][10:])
    speed, peak = ROWS * CONTEXT / seconds, product_flops()
    write_results("gpt2_124m", [{
        "tokens_per_second": speed, "flops_per_second": speed * flops_per_token(model), "matrix_product_flops": peak,
        "share_of_matrix_product": speed * flops_per_token(model) / peak,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
    }])  # fmt: skip


if __name__ == "__main__":
    main()
