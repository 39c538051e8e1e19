"""Measures how fast images are read without a model: per CPU second compared with torchvision, and with workers.

    python benchmarks/feeding.py images     # ours and torchvision's loader, with the same decoder, in one process
    python benchmarks/feeding.py workers    # images per second with 0, 1 and 2 worker processes

Both sides of `images` decode the same JPEG files of 500 x 375 pixels with torchvision's decoder, resize them to 224 x
224 with the same function, and collate batches of 64; ours also chops and packs them into tokens. They run alternately,
and each is first equally often.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from chopmix.data.collate import Collator, Inputs
from chopmix.data.datasets.image_folder import ImageFolder
from chopmix.data.feed import Thread, Workers
from chopmix.data.request import Request
from chopmix.data.split import SampleSplit, sample_split
from chopmix.tokenizers.image import ImageChopper
from PIL import Image
from results import write_results
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder as TorchvisionFolder
from torchvision.io import decode_image
from torchvision.transforms import v2

SIZE, BATCH = 224, 64


def write_images(folder: Path, count: int) -> None:
    """Writes JPEG files of 500 x 375 pixels in two class folders."""
    random = np.random.default_rng(0)
    for number in range(count):
        noise = Image.fromarray(random.integers(0, 255, (48, 64, 3), dtype=np.uint8))
        file = folder / "ab"[number % 2] / f"{number:05}.jpg"
        file.parent.mkdir(exist_ok=True)
        noise.resize((500, 375), Image.Resampling.BICUBIC).save(file, quality=90)


def ours(folder: Path) -> SampleSplit:
    """Returns the images of a folder as a split."""
    samples = ImageFolder(train=str(folder)).read(str(folder))
    choppers = {"image": ImageChopper(patch_size=16, size=SIZE)}
    collator = Collator(
        choppers=choppers, inputs=Inputs(columns={"image": "image"}), context=196, axes=("order", "row", "column")
    )
    return sample_split(samples, "train", collator, rows=BATCH)


def theirs(folder: Path) -> DataLoader:
    """Returns torchvision's loader of the same images."""
    resize = v2.Resize((SIZE, SIZE), antialias=True)
    dataset = TorchvisionFolder(folder, transform=resize, loader=lambda path: decode_image(path, mode="RGB"))
    return DataLoader(dataset, batch_size=BATCH)


def batches(split: SampleSplit) -> Iterator[Request]:
    """Yields the requests of one epoch."""
    indices = split.all()
    return (Request(indices=indices[first : first + BATCH]) for first in range(0, len(indices), BATCH))


def cpu_seconds() -> float:
    """Returns the CPU time of this process and of its ended children."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Returns (CPU seconds, seconds) of a call."""
    started, clock = cpu_seconds(), time.perf_counter()
    run()
    return cpu_seconds() - started, time.perf_counter() - clock


def compare_images(folder: Path, count: int, pairs: int) -> dict:
    """Returns images per CPU second of both sides, and their ratio (the median over pairs)."""
    split = ours(folder).recording()  # without a cache

    def read_ours() -> None:
        for request in batches(split):
            split.read(request.indices)

    def read_theirs() -> None:
        for _ in theirs(folder):
            pass

    ratios, rates = [], []
    read_ours(), read_theirs()
    for number in range(pairs):
        first, second = (read_ours, read_theirs) if number % 2 else (read_theirs, read_ours)
        one, other = timed(first)[0], timed(second)[0]
        mine, peer = (one, other) if number % 2 else (other, one)
        ratios.append(peer / mine)
        rates.append((count / mine, count / peer))
    mine, peer = np.median(rates, axis=0)
    return {"what": "images", "ours_per_cpu_second": round(mine), "torchvision_per_cpu_second": round(peer),
            "ratio": round(float(np.median(ratios)), 3), "lowest": round(min(ratios), 3),
            "highest": round(max(ratios), 3)}  # fmt: skip


def compare_workers(folder: Path, count: int, pairs: int) -> dict:
    """Returns images per second, and CPU seconds per image, with 0 (a thread), 1 and 2 workers. The start of the
    workers is not counted."""
    rates: dict[int, list[float]] = {0: [], 1: [], 2: []}
    cpu: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for number in range(pairs):
        for workers in sorted(rates, reverse=bool(number % 2)):
            split = ours(folder)
            if not workers:
                split.recording().reader.cache.free = 0
            feed = Workers({"train": split}, workers) if workers else Thread({"train": split.recording()})
            split.read_by(feed)
            first, *requests = batches(split)
            list(split.fetch_all([first] * max(workers, 1)))  # the workers have started
            children = sum(worker_seconds(worker.process.pid) for worker in getattr(feed, "workers", []))
            own, seconds = timed(lambda requests=requests, split=split: list(map(len, split.fetch_all(requests))))
            children = sum(worker_seconds(worker.process.pid) for worker in getattr(feed, "workers", [])) - children
            feed.close()
            images = count - BATCH
            rates[workers].append(images / seconds)
            cpu[workers].append((own + children) / images)
    medians = {workers: float(np.median(values)) for workers, values in rates.items()}
    costs = {workers: float(np.median(values)) for workers, values in cpu.items()}
    return {"what": "workers", "images_per_second": {str(w): round(rate) for w, rate in medians.items()},
            "cpu_ms_per_image": {str(w): round(1000 * cost, 3) for w, cost in costs.items()},
            "two_to_one": round(medians[2] / medians[1], 3),
            "cpu_two_to_none": round(costs[2] / costs[0], 3)}  # fmt: skip


def worker_seconds(process: int) -> float:
    """Returns the CPU seconds of a process so far (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("what", choices=("images", "workers"))
    options.add_argument("--count", type=int, default=2048)
    options.add_argument("--pairs", type=int, default=6)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), chosen.count)
        compare = compare_images if chosen.what == "images" else compare_workers
        row = compare(Path(folder), chosen.count, chosen.pairs)
    print(row)
    write_results("feeding", [row])


if __name__ == "__main__":
    main()
