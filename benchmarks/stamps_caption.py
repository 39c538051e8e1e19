"""Compares captions from a picture and spoken French with captions from one of them: bits per byte on new captions.

Four experiments with five seeds each. `config` prints configs/mix/stamps_caption.yaml with the inputs of an experiment:

    mkdir -p runs
    for name in fused image sound nothing; do
        python benchmarks/stamps_caption.py config $name > runs/stamps_$name.yaml
        python train.py runs/stamps_$name.yaml --seeds 0,1,2,3,4 out=runs/mix/stamps_caption/$name
    done
    python benchmarks/stamps_caption.py measure runs/mix/stamps_caption/{fused,image,sound,nothing}

The weights of the last step are used (their moving average if the run has one), not the best on val, because val is
reported. The bits of a caption include those of its end token; its bytes are those of its text in UTF-8. Intervals are
bootstrapped over captions (the same ones for both experiments), after averaging the bits of a caption over the seeds:
they describe the variation between captions, not between seeds.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from chopmix.experiment.run import Run, load_run
from results import write_results

CONFIG = Path(__file__).parents[1] / "configs" / "mix" / "stamps_caption.yaml"
READS = {"fused": ("image", "sound"), "image": ("image",), "sound": ("sound",), "nothing": ()}
"""The inputs of each experiment in addition to the preceding tokens of the caption."""
DIFFERENCES = [("fused", "image"), ("fused", "sound"), ("image", "nothing"), ("sound", "nothing")]
RESAMPLES = 10_000


def config_of(name: str) -> str:
    """Returns the YAML of an experiment: the configuration with only its inputs."""
    tree, kept = yaml.safe_load(CONFIG.read_text()), READS[name]
    absent = set(READS["fused"]) - set(kept)
    tree["inputs"] = {key: value for key, value in tree["inputs"].items() if key not in absent}
    tree["model"]["attention"] = f"same_sample & (causal | from({', '.join(kept)}))" if kept else "same_sample & causal"
    tree["evaluation"]["attribution"] = bool(kept)  # attribution needs inputs in addition to the caption
    return yaml.safe_dump(tree, sort_keys=False, width=1000)


@dataclass(frozen=True)
class Costs:
    """The bits of every caption, (seeds, captions), and the bytes and the key of every caption."""

    bits: np.ndarray
    bytes: np.ndarray
    keys: tuple[str, ...]

    def per_byte(self) -> list[float]:
        """Returns the bits per byte over all captions, one value per seed."""
        return (self.bits.sum(1) / self.bytes.sum()).tolist()


@torch.inference_mode()
def caption_costs(run: Run, inputs: Collection[str] | None = None) -> Costs:
    """Returns the costs of all validation captions of a run, evaluated one at a time, with all inputs or only
    `inputs`."""
    if not run.config.data.dataset.options["unseen"]:
        raise SystemExit(f"{run.folder} was not trained with data.dataset.unseen: its val contains captions of train")
    ((name, task),) = run.tasks.items()
    samples = run.samples("val")
    losses = [run.losses(samples.select([number]), inputs=inputs)[name] for number in range(len(samples))]
    return Costs(
        bits=torch.cat(losses).numpy()[None] / math.log(2),
        bytes=np.array([len(sample[task.target].encode()) for sample in samples]),
        keys=tuple(samples.keys),
    )


def of_all_seeds(runs: Sequence[Run], inputs: Collection[str] | None = None) -> Costs:
    """Returns the costs of the captions for all seeds of one experiment."""
    costs = [caption_costs(run, inputs) for run in runs]
    if any(other.keys != costs[0].keys for other in costs):
        raise SystemExit(f"{runs[0].folder} and its other seeds were not validated on the same captions")
    return Costs(np.concatenate([seed.bits for seed in costs]), costs[0].bytes, costs[0].keys)


def load_seeds(folder: Path) -> list[Run]:
    """Returns the runs of an experiment, ordered by seed."""
    folders = sorted(folder.glob("seed-*"), key=lambda run: int(run.name.removeprefix("seed-")))
    if not folders:
        raise SystemExit(f"{folder} contains no folders seed-N: train with --seeds 0,1,2,3,4")
    return [load_run(run, checkpoint="last", device="cpu") for run in folders]


def bootstrap(first: Costs, other: Costs, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval over captions of `first` minus `other` in bits per byte."""
    more = first.bits.mean(0) - other.bits.mean(0)
    drawn = np.random.default_rng(seed).integers(len(more), size=(resamples, len(more)))
    low, high = np.quantile(more[drawn].sum(1) / first.bytes[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def level(name: str, costs: Costs) -> dict:
    """Returns one row: mean and standard deviation over the seeds."""
    values = costs.per_byte()
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"what": name, "bits_per_byte": statistics.mean(values), "spread_over_seeds": spread, "seeds": len(values),
            "captions": len(costs.keys), "bytes": int(costs.bytes.sum())}  # fmt: skip


def difference(names: tuple[str, str], first: Costs, other: Costs) -> dict:
    """Returns one row: the bits per byte of the first minus those of the other, with an interval over captions.

    The spread is the standard deviation of the differences between runs with the same seed.
    """
    if first.keys != other.keys:
        raise SystemExit(f"{names[0]} and {names[1]} were not validated on the same captions")
    differences = [a - b for a, b in zip(first.per_byte(), other.per_byte())]
    low, high = bootstrap(first, other)
    return {
        "what": f"{names[0]} - {names[1]}",
        "bits_per_byte": statistics.mean(first.per_byte()) - statistics.mean(other.per_byte()),
        "spread_over_seeds": statistics.stdev(differences) if len(differences) > 1 else 0.0,
        "seeds": len(differences), "captions": len(first.keys), "bytes": int(first.bytes.sum()),
        "low": low, "high": high,
    }  # fmt: skip


def measure(folders: Sequence[Path]) -> list[dict]:
    """Returns all rows: each experiment, the fused one with dropped inputs, and the differences."""
    runs = {name: load_seeds(folder) for name, folder in zip(READS, folders, strict=True)}
    costs = {name: of_all_seeds(seeds) for name, seeds in runs.items()}
    rows = [level(name, measured) for name, measured in costs.items()]
    for name in ("image", "sound", "nothing"):
        rows.append(level(f"fused, given {name}", of_all_seeds(runs["fused"], READS[name])))
    return rows + [difference(names, *(costs[name] for name in names)) for names in DIFFERENCES]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = options.add_subparsers(dest="command", required=True)
    commands.add_parser("config", help="print the YAML of an experiment").add_argument("name", choices=READS)
    measure_command = commands.add_parser(
        "measure", help="compare trained experiments, each a folder with seed-0, seed-1, ..."
    )
    for name in READS:
        measure_command.add_argument(name, type=Path, metavar=name.upper())
    chosen = options.parse_args()
    if chosen.command == "config":
        print(config_of(chosen.name), end="")
    else:
        write_results("stamps_caption", measure([getattr(chosen, name) for name in READS]))


if __name__ == "__main__":
    main()
