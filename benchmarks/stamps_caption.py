"""Picture plus spoken French to the English caption, beside each alone: bits per byte on captions that train lacks.

Four experiments of five seeds each. `config` writes configs/mix/stamps_caption.yaml without the inputs that one lacks:

    mkdir -p runs
    for name in fused image sound nothing; do
        python benchmarks/stamps_caption.py config $name > runs/stamps_$name.yaml
        python train.py runs/stamps_$name.yaml --seeds 0,1,2,3,4 out=runs/mix/stamps_caption/$name
    done
    python benchmarks/stamps_caption.py measure runs/mix/stamps_caption/{fused,image,sound,nothing}

Weights are those of the last step (their running average, where a run keeps one), never the best on val, since val is
what is reported. A caption's bits are those of its tokens and of its end, its bytes those of its text in UTF-8. An
interval comes from drawing captions again with replacement, the same ones for both sides, each caption's bits averaged
over the seeds first: it tells what other captions might have shown, not what other seeds might have.
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
from chopmix.experiment.build import open_split
from chopmix.experiment.run import Run, load_run
from chopmix.inference.evaluation import summed
from results import write_results

CONFIG = Path(__file__).parents[1] / "configs" / "mix" / "stamps_caption.yaml"
READS = {"fused": ("image", "sound"), "image": ("image",), "sound": ("sound",), "nothing": ()}
"""What each experiment reads besides the caption so far."""
DIFFERENCES = [("fused", "image"), ("fused", "sound"), ("image", "nothing"), ("sound", "nothing")]
RESAMPLES = 10_000


def config_of(name: str) -> str:
    """The YAML of an experiment: the configuration without the inputs that it does not read."""
    tree, kept = yaml.safe_load(CONFIG.read_text()), READS[name]
    absent = set(READS["fused"]) - set(kept)
    tree["inputs"] = {key: value for key, value in tree["inputs"].items() if key not in absent}
    tree["model"]["attention"] = f"same_sample & (causal | from({', '.join(kept)}))" if kept else "same_sample & causal"
    tree["evaluation"]["attribution"] = bool(kept)  # of what the captions alone are worth, nothing can be told
    return yaml.safe_dump(tree, sort_keys=False, width=1000)


@dataclass(frozen=True)
class Costs:
    """What captions cost: bits by seed and caption, and the bytes and the name of each caption."""

    bits: np.ndarray
    bytes: np.ndarray
    keys: tuple[str, ...]

    def per_byte(self) -> list[float]:
        """Bits per byte over all captions, by seed."""
        return (self.bits.sum(1) / self.bytes.sum()).tolist()


@torch.inference_mode()
def caption_costs(run: Run, inputs: Collection[str] | None = None) -> Costs:
    """The captions that one run's only task writes, each read by itself; with `inputs`, the run reads only these."""
    split = open_split(run.config, run.config.data.dataset(), "val", run.choppers, run.tasks)
    if not run.config.data.dataset.options["unseen"]:
        raise SystemExit(f"{run.folder} was not trained with data.dataset.unseen: its val has captions that train has")
    ((name, task),) = run.tasks.items()
    places = sorted(split.all(), key=lambda place: place.number)  # in the order of the keys
    found = [summed(run.model, run.tasks, [name], split, [place], 1, inputs, {}, {name: []}) for place in places]
    texts = [split.item(place.number)[0][task.target] for place in places]
    return Costs(
        bits=np.array([[float(sums[name]["loss"]) / math.log(2) for sums in found]]),
        bytes=np.array([len(text.encode()) for text in texts]),
        keys=tuple(split.samples.keys),
    )


def of_all_seeds(runs: Sequence[Run], inputs: Collection[str] | None = None) -> Costs:
    """The captions of several seeds of one experiment."""
    found = [caption_costs(run, inputs) for run in runs]
    if any(each.keys != found[0].keys for each in found):
        raise SystemExit(f"{runs[0].folder} and its other seeds were not validated on the same captions")
    return Costs(np.concatenate([each.bits for each in found]), found[0].bytes, found[0].keys)


def load_seeds(folder: Path) -> list[Run]:
    """The runs of an experiment, by seed."""
    folders = sorted(folder.glob("seed-*"), key=lambda run: int(run.name.removeprefix("seed-")))
    if not folders:
        raise SystemExit(f"{folder} holds no seed-N folders: train with --seeds 0,1,2,3,4")
    return [load_run(run, checkpoint="last", device="cpu") for run in folders]


def bootstrap(first: Costs, other: Costs, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of `first` less `other` in bits per byte, over captions drawn again with replacement."""
    more = first.bits.mean(0) - other.bits.mean(0)
    drawn = np.random.default_rng(seed).integers(len(more), size=(resamples, len(more)))
    low, high = np.quantile(more[drawn].sum(1) / first.bytes[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def level(name: str, costs: Costs) -> dict:
    """One row: mean and standard deviation over the seeds."""
    values = costs.per_byte()
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"what": name, "bits_per_byte": statistics.mean(values), "spread_over_seeds": spread, "seeds": len(values),
            "captions": len(costs.keys), "bytes": int(costs.bytes.sum())}  # fmt: skip


def difference(names: tuple[str, str], first: Costs, other: Costs) -> dict:
    """One row: how many bits per byte more the first costs (less, where negative), with its interval over captions.

    The spread is that of the differences seed by seed, where both have the same number of seeds.
    """
    if first.keys != other.keys:
        raise SystemExit(f"{names[0]} and {names[1]} were not validated on the same captions")
    each = [a - b for a, b in zip(first.per_byte(), other.per_byte())]
    low, high = bootstrap(first, other)
    return {
        "what": f"{names[0]} - {names[1]}",
        "bits_per_byte": statistics.mean(first.per_byte()) - statistics.mean(other.per_byte()),
        "spread_over_seeds": statistics.stdev(each) if len(each) > 1 else 0.0,
        "seeds": len(each), "captions": len(first.keys), "bytes": int(first.bytes.sum()), "low": low, "high": high,
    }  # fmt: skip


def measure(folders: Sequence[Path]) -> list[dict]:
    """All rows: each experiment, the fused one with inputs withheld, and the differences."""
    runs = {name: load_seeds(folder) for name, folder in zip(READS, folders, strict=True)}
    costs = {name: of_all_seeds(each) for name, each in runs.items()}
    rows = [level(name, each) for name, each in costs.items()]
    for name in ("image", "sound", "nothing"):
        rows.append(level(f"fused, given {name}", of_all_seeds(runs["fused"], READS[name])))
    return rows + [difference(names, *(costs[name] for name in names)) for names in DIFFERENCES]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = options.add_subparsers(dest="command", required=True)
    commands.add_parser("config", help="print the YAML of an experiment").add_argument("name", choices=READS)
    measured = commands.add_parser(
        "measure", help="compare trained experiments, each a folder with seed-0, seed-1, ..."
    )
    for name in READS:
        measured.add_argument(name, type=Path, metavar=name.upper())
    chosen = options.parse_args()
    if chosen.command == "config":
        print(config_of(chosen.name), end="")
    else:
        write_results("stamps_caption", measure([getattr(chosen, name) for name in READS]))


if __name__ == "__main__":
    main()
