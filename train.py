"""`python train.py configs/x.yaml key=value` is `chopmix train configs/x.yaml key=value`, from a checkout.

In several processes: `torchrun --nproc-per-node 2 train.py configs/x.yaml`.
"""

import sys

from chopmix.commands.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
