"""A driving scene made by rule: a camera image, a radar range profile, the vehicle's state, a word for the road; and
what a driver would do, steering and braking, which no input determines alone.

The camera sees where the road bends and where another car stands, but not how far away; the radar hears how far, but
not where; the state knows the speed; the word says how slippery the road is. Steering follows the bend and the speed,
and evades a near car; braking follows from the distance, the speed and the road.
"""

from __future__ import annotations

import numpy as np

from ..samples.dataset import Columns
from ..samples.made import Made, MadeDataset

SIZE = 24
"""Height and width of the camera's image, in pixels."""
RANGES = 32
"""Bins of the radar's profile, 2 m each."""
ROADS = {"dry": 1.0, "wet": 0.7, "icy": 0.35}
"""How much of full braking each road allows."""


class Scenes(Made):
    """Samples of a road, a car on it, and what a driver does."""

    def __getitem__(self, number: int) -> Columns:
        random = self.random(number, 7)
        bend, side = random.uniform(-1, 1), random.uniform(-1, 1)
        distance, speed = random.uniform(4, 60), random.uniform(3, 35)
        road = list(ROADS)[random.integers(len(ROADS))]
        near = np.clip(1 - distance / 60, 0, 1)
        steering = 0.6 * bend * (1 - speed / 60) - 0.4 * np.sign(side) * near
        braking = np.clip(speed**2 / (2 * 9.81 * ROADS[road] * distance), 0, 1)
        return {
            "camera": camera(bend, side, random), "radar": radar(distance, random),
            "vehicle": np.array([[speed + random.normal() * 0.3, random.normal() * 0.2]], dtype=np.float32),
            "road": road, "control": [float(steering), float(braking)],
        }  # fmt: skip


def camera(bend: float, side: float, random: np.random.Generator) -> np.ndarray:
    """A road that bends and a car on it, as uint8 grey values (SIZE, SIZE); `bend` and `side` are -1 (left) to 1. The
    car's size is random: it does not tell the distance."""
    rows = np.linspace(0, 1, SIZE)[:, None]
    columns = np.linspace(-1, 1, SIZE)[None]
    middle = bend * (1 - rows) ** 2
    image = 60 + 90 * (np.abs(columns - middle) < 0.15 + 0.5 * rows)
    row, column = int(SIZE * 0.45), int((side * 0.5 + 1) / 2 * (SIZE - 6))
    size = random.integers(3, 6)
    image[row : row + size, column : column + size] = 230
    return np.clip(image + random.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


def radar(distance: float, random: np.random.Generator) -> np.ndarray:
    """Echo strength over range, (1, RANGES): a peak at the car, `distance` in metres, ground clutter that falls off,
    noise."""
    ranges = (np.arange(RANGES) + 0.5) * 2
    echo = np.exp(-(((ranges - distance) / 2) ** 2)) + 0.5 * np.exp(-ranges / 10)
    return (echo + random.normal(0, 0.08, RANGES)).astype(np.float32)[None]


class Driving(MadeDataset):
    """Columns: `camera` (24, 24), `radar` (1, 32), `vehicle` (1, 2: speed in m/s, and a yaw rate that is mere noise),
    `road` (dry, wet or icy), and `control` [steering -1 to 1, braking 0 to 1]. `samples` is how many one epoch of
    training has."""

    columns = ("camera", "radar", "vehicle", "road", "control")

    def __init__(self, *, samples: int = 10_000):
        self.samples = samples

    def make(self, split: str, count: int) -> Scenes:
        return Scenes(split, count, "scene")
