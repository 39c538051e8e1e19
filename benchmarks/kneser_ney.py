"""Character n-grams with interpolated Kneser-Ney smoothing (Chen & Goodman 1999): what counting reaches on the text of
`lm/shakespeare_char.yaml`, without a network.

    python benchmarks/kneser_ney.py --length 7 --discount 0.9
"""

from __future__ import annotations

import argparse
import math
from collections import Counter

from chopmix.data.datasets.tiny_shakespeare import TinyShakespeare


class KneserNey:
    """The probabilities of the next character, from counts of sequences of at most `length` characters. From each
    count, `discount` is subtracted, and the rest is distributed like the next shorter sequence. The counts of shorter
    sequences are numbers of different characters before them; below one character, all characters of the text are
    equally probable."""

    def __init__(self, text: str, length: int, discount: float):
        self.length, self.discount, self.characters = length, discount, sorted(set(text))
        self.counts = [Counter(text[i : i + length] for i in range(len(text) - length + 1))]
        while len(self.counts) < length:
            self.counts.insert(0, Counter(sequence[1:] for sequence in self.counts[0]))
        self.totals, self.kinds = [], []
        for counts in self.counts:
            total, kinds = Counter(), Counter()
            for sequence, count in counts.items():
                total[sequence[:-1]] += count
                kinds[sequence[:-1]] += 1
            self.totals.append(total)
            self.kinds.append(kinds)

    def probability(self, before: str, following: str) -> float:
        """Returns the probability that `following` is the next character after the text `before`."""
        probability = 1 / len(self.characters)
        for number, (counts, totals, kinds) in enumerate(zip(self.counts, self.totals, self.kinds)):
            context = before[len(before) - number :]
            if len(before) >= number and totals[context]:
                count = max(counts[context + following] - self.discount, 0)
                probability = (count + self.discount * kinds[context] * probability) / totals[context]
        return probability

    def loss(self, text: str) -> float:
        """Returns the mean negative log-likelihood of the characters of a text, in nats."""
        most = self.length - 1
        logs = (math.log(self.probability(text[max(0, i - most) : i], text[i])) for i in range(len(text)))
        return -sum(logs) / len(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--length", type=int, default=7)
    parser.add_argument("--discount", type=float, default=0.9)
    options = parser.parse_args()
    train, val = (next(iter(TinyShakespeare().documents(split))).text for split in ("train", "val"))
    print(f"{KneserNey(train, options.length, options.discount).loss(val):.4f} nats per character")


if __name__ == "__main__":
    main()
