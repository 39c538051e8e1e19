"""Evaluates a GPT-2 with image input on captions that are not in train: bits per byte with and without the picture.

Two experiments with five seeds each. The second one has no picture and no encoder:

    python train.py configs/mix/gpt2_sees.yaml --seeds 0,1,2,3,4 out=runs/mix/gpt2_sees/seeing
    python train.py configs/mix/gpt2_sees.yaml inputs.image=null model.encoder=null evaluation.attribution=false \\
        training.input_dropout=0 --seeds 0,1,2,3,4 out=runs/mix/gpt2_sees/blind
    python benchmarks/gpt2_sees.py runs/mix/gpt2_sees/seeing runs/mix/gpt2_sees/blind

stamps_caption.py explains how captions are weighted and what the intervals mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from results import write_results
from stamps_caption import difference, level, load_seeds, of_all_seeds


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("seeing", "blind"):
        options.add_argument(name, type=Path, help="a folder with seed-0, seed-1, ...")
    chosen = options.parse_args()
    seeing, blind = load_seeds(chosen.seeing), load_seeds(chosen.blind)
    costs = {
        "seeing": of_all_seeds(seeing),
        "seeing, without the picture": of_all_seeds(seeing, ()),
        "blind": of_all_seeds(blind),
    }
    rows = [level(name, measured) for name, measured in costs.items()]
    for other in list(costs)[1:]:
        rows.append(difference(("seeing", other), costs["seeing"], costs[other]))
    write_results("gpt2_sees", rows)


if __name__ == "__main__":
    main()
