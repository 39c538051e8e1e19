"""Speed of generation compared with transformers' `generate` on the same weights: batch 1, greedy, float32.

    python benchmarks/generation.py --pairs 5

Two shapes: the character model (4 layers, 128 wide, context 64) and GPT-2 small (12 layers, 768 wide, 124 M
parameters). The weights are random, because the speed does not depend on them. The share of the memory-bandwidth floor
is the time to read all weights once (measured by summing them) divided by the time of a token.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from chopmix.experiment.interchange.import_run import import_directory
from chopmix.experiment.run import load_run
from chopmix.models.generation.sampling import Sampling, draw
from chopmix.models.generation.session import Session
from pairs import figures, timed_pairs
from results import write_results
from transformers import GPT2Config, GPT2LMHeadModel

SHAPES = {
    "char_4x128": {"vocab_size": 66, "n_positions": 64, "n_embd": 128, "n_layer": 4, "n_head": 4, "eos_token_id": 65},
    "gpt2_small": {
        "vocab_size": 50256,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "eos_token_id": 0,
    },
}
TOKENS = {"char_4x128": 60, "gpt2_small": 64}


def models(shape: dict):
    """Returns transformers' model and ours with the same weights."""
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=shape["eos_token_id"])).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(Path(folder) / "hf")
        import_directory(Path(folder) / "hf", Path(folder) / "run")
        return theirs, load_run(Path(folder) / "run").model


def bandwidth_floor(model) -> float:
    """Returns the seconds to read once all weights that a token needs, measured by summing the matrices of the
    model."""
    matrices = [p.detach() for n, p in model.named_parameters() if p.dim() == 2 and "position" not in n]
    times = []
    for _ in range(15):
        start = time.perf_counter()
        for matrix in matrices:
            matrix.sum()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compare(name: str, pairs: int) -> dict:
    """Returns one row: milliseconds per token, and the share of the memory-bandwidth floor."""
    theirs, ours = models(SHAPES[name])
    tokens, vocabulary = TOKENS[name], SHAPES[name]["vocab_size"]
    prompt = [1, 2, 3]

    @torch.inference_mode()
    def run_ours():
        session = Session.of_texts(ours, [prompt], input="text", task="lm", vocabulary=vocabulary, most=tokens)
        return [int(ids) for ids in draw(session, tokens, Sampling(temperature=0))]

    @torch.inference_mode()
    def run_theirs():
        ids = torch.tensor([prompt])
        output = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens,
            pad_token_id=0, eos_token_id=-1,
        )  # fmt: skip
        return output[0, len(prompt) :].tolist()

    assert run_ours() == run_theirs(), "the two models do not generate the same ids"
    row = figures(timed_pairs(run_ours, run_theirs, pairs), "transformers")
    row |= {"ms": row["ms"] / tokens, "peer_ms": row["peer_ms"] / tokens}
    floor = 1000 * bandwidth_floor(ours)
    return {"what": f"generation_{name}", "precision": "float32", **row, "share_of_floor": floor / row["ms"]}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pairs", type=int, default=10)
    options.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    chosen = options.parse_args()
    for name in chosen.shapes:
        write_results("peer", [compare(name, chosen.pairs)])


if __name__ == "__main__":
    main()
