"""Compares the speed of training, beam search and transcription with other libraries, on equal shapes and batches.

    python benchmarks/peers.py nanogpt --model PATH                 # model.py of nanoGPT, or without it our copy
    python benchmarks/peers.py gpt2 | bert | t5 | whisper | ast     # transformers
    python benchmarks/peers.py vit                                  # timm
    python benchmarks/peers.py beams | transcription                # transformers: T5 with 4 beams; Whisper, greedy
    ... --precision bfloat16                                        # both sides in bfloat16 (autocast), not float32
    ... --precision defaults                                        # the default precision of each

A step consists of forward, backward, clipping if the peer clips, and fused AdamW; eager, on the CPU. Each of the two
runs first equally often. Ours starts from raw values (ids, pixels, sounds) and chops, plans and embeds them in every
step. DIFFERENCES states what each peer receives.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from pairs import figures, timed_pairs
from pairs_of.classifiers import ast, vit
from pairs_of.sounds import transcription, whisper
from pairs_of.texts import beams, bert, gpt2, nanogpt, t5
from results import write_results

DIFFERENCES = {
    "nanogpt": "no biases on either side; ours also plans layouts and looks up ids of characters",
    "gpt2": "biases on both sides; both receive ids",
    "vit": "ours receives bytes of pixels and normalises them, timm receives floats",
    "ast": "ours computes the spectrogram from the sound, transformers receives it",
    "bert": "both apply the head to the masked tokens (15 %) only",
    "t5": "ours chops and packs texts in every step, transformers receives padded ids",
    "whisper": "both receive spectrograms",
    "beams": "ours chops texts, transformers receives ids; random weights, so that no text ends early",
    "transcription": "both receive one spectrogram of 30 seconds; greedy, without timestamps",
}


BENCHMARKS = {"nanogpt": nanogpt, "gpt2": gpt2, "bert": bert, "t5": t5, "whisper": whisper, "ast": ast, "vit": vit,
              "beams": beams, "transcription": transcription}  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("what", choices=BENCHMARKS)
    options.add_argument("--pairs", type=int, default=12)
    options.add_argument("--precision", choices=("float32", "bfloat16", "defaults"), default="float32")
    options.add_argument("--model", type=Path, help="model.py of nanoGPT")
    chosen = options.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs, peer = BENCHMARKS[chosen.what](Path(folder), chosen.precision, chosen.model)
        # Steps that take milliseconds are timed in groups of 0.2 seconds.
        several = math.ceil(0.2 / max(sum(timed_pairs(ours, theirs, 1)[0]) / 2, 1e-9))

        def repeated(run: Callable[[], object]) -> Callable[[], None]:
            def steps() -> None:
                for _ in range(several):
                    run()

            return steps

        row = figures(timed_pairs(repeated(ours), repeated(theirs), chosen.pairs), peer)
    row |= {"ms": row["ms"] / several, "peer_ms": row["peer_ms"] / several, "steps_together": several}
    write_results("peer", [{"what": chosen.what, "precision": chosen.precision, **row}])


if __name__ == "__main__":
    main()
