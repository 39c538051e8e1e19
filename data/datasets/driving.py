"""Generated driving scenes: a camera image, a radar range profile, the state of the vehicle, a word for the road, and
the driver's actions (steering and braking). No input alone determines the actions.

The camera shows the bend of the road and the position of another car, but not the distance of this car; the radar shows
the distance, but not the position; the state contains the speed; the word describes how slippery the road is. Steering
depends on the bend, the speed and the other car; braking depends on the distance, the speed and the road.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from ..generated import Made, MadeDataset

SIZE = 24
"""The height and width of the camera image in pixels."""
RANGES = 32
"""The number of bins of the radar profile, 2 m each."""
ROADS = {"dry": 1.0, "wet": 0.7, "icy": 0.35}
"""The share of full braking that is possible on each road."""


class Scenes(Made):
    """Samples of a road, another car on it, and the driver's actions."""

    def parts(self, number: int) -> Mapping[str, Callable[[], Any]]:
        random = self.random(number, 7)
        bend, side = random.uniform(-1, 1), random.uniform(-1, 1)
        distance, speed = random.uniform(4, 60), random.uniform(3, 35)
        road = list(ROADS)[random.integers(len(ROADS))]
        near = np.clip(1 - distance / 60, 0, 1)
        steering = 0.6 * bend * (1 - speed / 60) - 0.4 * np.sign(side) * near
        braking = np.clip(speed**2 / (2 * 9.81 * ROADS[road] * distance), 0, 1)

        @cache
        def noise() -> Noise:
            return Noise(int(random.integers(3, 6)), random.normal(0, 12, (SIZE, SIZE)),
                         random.normal(0, 0.08, RANGES), random.normal() * 0.3, random.normal() * 0.2)  # fmt: skip

        return {
            "camera": lambda: camera(bend, side, noise()), "radar": lambda: radar(distance, noise()),
            "vehicle": lambda: np.array([[speed + noise().speed, noise().yaw]], dtype=np.float32),
            "road": lambda: road, "control": lambda: [float(steering), float(braking)],
        }  # fmt: skip


class Noise(NamedTuple):
    """The random numbers of the sensors in one scene. They are drawn in this order."""

    size: int
    """The height and width of the car in the image, in pixels. They are random, so they do not show the distance."""
    camera: Float64[np.ndarray, "s s"]
    radar: Float64[np.ndarray, "r"]
    speed: float
    yaw: float


def camera(bend: float, side: float, noise: Noise) -> np.ndarray:
    """Returns an image of a road and another car, uint8 (SIZE, SIZE). `bend` is the direction of the road and `side`
    the position of the car, both from -1 (left) to 1 (right)."""
    rows = np.linspace(0, 1, SIZE)[:, None]
    columns = np.linspace(-1, 1, SIZE)[None]
    middle = bend * (1 - rows) ** 2
    image = 60 + 90 * (np.abs(columns - middle) < 0.15 + 0.5 * rows)
    row, column = int(SIZE * 0.45), int((side * 0.5 + 1) / 2 * (SIZE - 6))
    image[row : row + noise.size, column : column + noise.size] = 230
    return np.clip(image + noise.camera, 0, 255).astype(np.uint8)


def radar(distance: float, noise: Noise) -> np.ndarray:
    """Returns the echo strength over range, float32 (1, RANGES): a peak at the distance of the other car (`distance` in
    metres), ground clutter that decreases with range, and noise."""
    ranges = (np.arange(RANGES) + 0.5) * 2
    echo = np.exp(-(((ranges - distance) / 2) ** 2)) + 0.5 * np.exp(-ranges / 10)
    return (echo + noise.radar).astype(np.float32)[None]


class Driving(MadeDataset):
    """Columns: `camera` (24, 24), `radar` (1, 32), `vehicle` (1, 2) with the speed in m/s and a yaw rate that is only
    noise, `road` (dry, wet or icy), and `control` [steering, braking] with steering from -1 to 1 and braking from 0 to
    1. `samples` is the number of training samples per epoch."""

    columns = ("camera", "radar", "vehicle", "road", "control")

    def __init__(self, *, samples: int = 10_000):
        self.samples = samples

    def make(self, split: str, count: int) -> Scenes:
        return Scenes(split, count, "scene")
