"""Sequences of bytes with interpolated Kneser-Ney smoothing (`tasks/baselines/ngrams.py`): what counting reaches on the
text of `lm/shakespeare_char.yaml`, without a network, on the validation text as a whole.

    python benchmarks/kneser_ney.py --length 7
"""

from __future__ import annotations

import argparse

import numpy as np
from chopmix.data.datasets.tiny_shakespeare import TinyShakespeare
from chopmix.tasks.baselines.ngrams import best_discount, counted, likelihoods


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--length", type=int, default=7, help="the number of bytes of a sequence, at most 7")
    length = parser.parse_args().length
    texts = (next(iter(TinyShakespeare().documents(split))).text for split in ("train", "val"))
    train, val = (np.frombuffer(text.encode(), np.uint8) for text in texts)
    discount = best_discount(train, length)
    loss = -np.log(likelihoods(counted(train, length), discount, val)).mean()
    print(f"{loss:.4f} nats per character, {loss / np.log(2):.4f} bits; discount {discount}")


if __name__ == "__main__":
    main()
