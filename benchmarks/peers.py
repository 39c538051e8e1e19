"""Our training steps, beam search and transcription beside their peers': the same shapes, weights and batches, in
turns.

    python benchmarks/peers.py nanogpt --model PATH       # nanoGPT's own model.py, from a checkout of it; else
    one written here python benchmarks/peers.py gpt2 | bert | t5 | whisper | ast      # transformers' python
    benchmarks/peers.py vit                        # timm's
    python benchmarks/peers.py beams | transcription      # transformers' generate: 4 beams of the T5; a greedy Whisper
    ... --precision defaults                              # each as its own defaults have it, instead of float32
    on both sides

Every step is forward, backward, clipping where the peer clips, and fused AdamW, eager, on the CPU, and each of the
two is as often first as second. Ours starts from raw values (ids, pixels, samples) and chops, plans and embeds them
every time; what each peer gets is in DIFFERENCES, which the README's table shows.
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
    "nanogpt": "no biases on either side; ours plans layouts and looks its ids up from raw characters' ids",
    "gpt2": "biases on both sides; both get ids",
    "vit": "ours gets bytes of pixels and normalises them, timm's gets floats",
    "ast": "ours makes its spectrogram from the sound, transformers' gets it ready made",
    "bert": "the head on the judged tokens alone (15 %) on both sides: transformers' body, its head called on them",
    "t5": "ours chops and packs texts every time, transformers' gets padded ids",
    "whisper": "both get spectrograms",
    "beams": "ours chops texts, transformers' gets ids; a random model, so that no text ends early",
    "transcription": "both get one spectrogram of 30 seconds; greedy, without timestamps",
}


BENCHMARKS = {"nanogpt": nanogpt, "gpt2": gpt2, "bert": bert, "t5": t5, "whisper": whisper, "ast": ast, "vit": vit,
              "beams": beams, "transcription": transcription}  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("what", choices=BENCHMARKS)
    options.add_argument("--pairs", type=int, default=12)
    options.add_argument("--precision", choices=("float32", "defaults"), default="float32")
    options.add_argument("--model", type=Path, help="nanoGPT's model.py")
    chosen = options.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs, peer = BENCHMARKS[chosen.what](Path(folder), chosen.precision, chosen.model)
        several = math.ceil(
            0.2 / max(sum(timed_pairs(ours, theirs, 1)[0]) / 2, 1e-9)
        )  # steps of milliseconds are timed together

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
