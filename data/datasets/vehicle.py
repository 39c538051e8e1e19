"""Two seconds in a vehicle, made by rule: three cameras, a radar, the bus, GPS, a map, what kind of vehicle it is, a
microphone, and an instruction that is written or spoken; and what the driver does then. No input determines it alone.

First of these that holds decides:

    pull over     a siren is heard
    brake         somebody stands ahead (front camera), and the distance falls (radar)
    left, right   the vehicle is at the crossing that the map marks (GPS, map), the instruction says so, and the camera
                  of that side sees a free lane; else `wait`; `go on` says to `keep`
    slow          a truck (kind) drives fast (bus)
    keep          nothing of it
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from ..samples import Made, MadeDataset, Outcome

LIKELY = {"siren": 0.2, "ahead": 0.55, "closing": 0.55, "left_taken": 0.5, "right_taken": 0.5, "east": 0.5,
          "crossing_east": 0.5, "truck": 0.75, "fast": 0.75}  # fmt: skip
"""How often each fact holds; they do not depend on one another."""
ORDERS = {"go on": 0.2, "turn left": 0.4, "turn right": 0.4}
"""The instructions, and how often each is given; half of them are written, the others spoken."""
VOWELS = {"go on": (450, 800), "turn left": (400, 2200), "turn right": (800, 1250)}
"""The two formants, in hertz, of the vowel that stands for each spoken instruction."""
SIDE, RANGES, RATE, SECONDS = 12, 16, 8000, 2.0
"""Pixels of a camera's image and of the map, bins of the radar, samples of sound a second, and how long all lasts."""
STEP = (np.sqrt(5) - 1) / 2
"""Multiples of it, less their whole part, spread evenly: so are the facts of samples that validate or test."""
Facts = Mapping[str, bool]


def action(facts: Facts, order: str) -> str:
    """What the driver does."""
    if facts["siren"]:
        return "pull over"
    if facts["ahead"] and facts["closing"]:
        return "brake"
    if facts["east"] == facts["crossing_east"]:
        side = order.removeprefix("turn ")
        return "keep" if side == order else "wait" if facts[f"{side}_taken"] else side
    return "slow" if facts["truck"] and facts["fast"] else "keep"


@cache
def situations() -> tuple[list[tuple[dict[str, bool], str, bool]], np.ndarray]:
    """All facts, instructions, and whether these are written; and the sums of their probabilities up to each."""
    found, chances = [], []
    for held in itertools.product((False, True), repeat=len(LIKELY)):
        facts = dict(zip(LIKELY, held))
        chance = np.prod([share if facts[name] else 1 - share for name, share in LIKELY.items()])
        for order, share in ORDERS.items():
            for written in (True, False):
                found.append((facts, order, written))
                chances.append(chance * share / 2)
    return found, np.cumsum(chances)


class Drives(Made):
    """Samples of two seconds and an action."""

    def parts(self, number: int) -> Mapping[str, Callable[[], Any]]:
        return {name: partial(self.part, number, name) for name in Vehicle.columns}

    def part(self, number: int, name: str) -> Any:
        """One column of a sample; None where it has none."""
        lot = self.random(number, 31).random() if self.split == "train" else (number * STEP) % 1
        every, sums = situations()
        facts, order, written = every[min(int(np.searchsorted(sums, lot, side="right")), len(every) - 1)]
        if name in TOLD:
            return {"kind": "truck" if facts["truck"] else "car", "action": action(facts, order),
                    "instruction": order if written else None}[name]  # fmt: skip
        random = self.random(number, 31, 1 + Vehicle.columns.index(name))  # keys that end in 0 are those without it
        if name == "spoken":
            return None if written else (spoken(order, random), RATE)
        make, fact = SENSED[name]
        return make(facts[fact], random)


def camera(taken: bool, random: np.random.Generator) -> UInt8[np.ndarray, "2 s s"]:
    """Two grey frames, a second apart: a road, and where it is taken a bright figure on it that moves."""
    frames = np.full((2, SIDE, SIDE), 70.0)
    frames[:, SIDE // 2 :, 2:-2] = 110
    if taken:
        row, column = random.integers(4, 8), random.integers(1, 7)
        for number, frame in enumerate(frames):
            frame[row : row + 4, column + number : column + number + 3] = 230
    return np.clip(frames + random.normal(0, 12, frames.shape), 0, 255).astype(np.uint8)


def radar(closing: bool, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Echo strength over range, four times in two seconds: a peak that comes nearer, or does not."""
    first = random.uniform(8, 14) if closing else random.uniform(3, 14)
    places = first - np.arange(4) * (random.uniform(1.2, 2.0) if closing else random.uniform(-0.3, 0.3))
    echo = np.exp(-((np.arange(RANGES) - places[:, None]) ** 2)) + random.normal(0, 0.05, (4, RANGES))
    return timed(echo, 0.5)


def bus(fast: bool, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Speed in km/h and the angle of the steering wheel in degrees, ten times a second."""
    speed = random.uniform(90, 120) if fast else random.uniform(30, 60)
    values = np.stack([speed + random.normal(0, 1, 20), random.normal(0, 3) + random.normal(0, 0.5, 20)], axis=1)
    return timed(values, 0.1)


def gps(east: bool, random: np.random.Generator) -> dict[str, np.ndarray]:
    """East and north in metres, once a second: at the eastern crossing or at the western one."""
    return timed(np.array([200.0 if east else 0.0, 0.0]) + random.normal(0, 12, (2, 2)), 1.0)


def drawn_map(east: bool, random: np.random.Generator) -> UInt8[np.ndarray, "s s"]:
    """A map with a road from west to east, and a mark where the instruction is to be followed."""
    image = np.full((SIDE, SIDE), 200.0)
    image[SIDE // 2] = 120
    column = 8 if east else 2
    image[SIDE // 2 - 2 : SIDE // 2 + 3, column : column + 2] = 20
    return np.clip(image + random.normal(0, 8, image.shape), 0, 255).astype(np.uint8)


def street(siren: bool, random: np.random.Generator) -> tuple[Float32[np.ndarray, "n"], int]:
    """Two seconds of a street's noise, where there is one with a siren of two tones that begins somewhere."""
    time = np.arange(round(RATE * SECONDS)) / RATE
    sound = random.normal(0, 0.1, len(time))
    if siren:
        hertz = np.where((time + random.uniform(0, 1)) % 1 < 0.5, 440.0, 585.0)
        sound += 0.4 * np.sin(2 * np.pi * np.cumsum(hertz) / RATE) * (time > random.uniform(0, 0.8))
    return sound.astype(np.float32), RATE


def spoken(order: str, random: np.random.Generator) -> Float32[np.ndarray, "n"]:
    """An instruction as a vowel of its own, 0.6 s: overtones of a voice, as loud as they are near its formants."""
    time, voice = np.arange(round(RATE * 0.6)) / RATE, random.uniform(100, 220)
    overtones = np.arange(1, int(3000 / voice)) * voice
    loud = sum(np.exp(-(((overtones - formant) / 180) ** 2)) for formant in VOWELS[order])
    sound = (loud[:, None] * np.sin(2 * np.pi * overtones[:, None] * time)).sum(0)
    return (0.2 * sound / np.abs(sound).max() + random.normal(0, 0.02, len(time))).astype(np.float32)


def timed(values: np.ndarray, step: float) -> dict[str, np.ndarray]:
    """Measurements and their seconds, `step` apart."""
    return {"values": values.astype(np.float32), "seconds": (np.arange(len(values)) * step).astype(np.float32)}


SENSED = {
    "front": (camera, "ahead"), "left": (camera, "left_taken"), "right": (camera, "right_taken"),
    "radar": (radar, "closing"), "bus": (bus, "fast"), "gps": (gps, "east"), "map": (drawn_map, "crossing_east"),
    "microphone": (street, "siren"),
}  # fmt: skip
"""What makes each column that is sensed, and the fact that it tells."""
TOLD = ("kind", "instruction", "action")


class Vehicle(MadeDataset):
    """Columns: `front`, `left`, `right` (videos of two frames, 12 x 12, grey), `radar` (4 x 16), `bus` (20 x 2), `gps`
    (2 x 2), each with its seconds; `map` (12 x 12), `kind` (car or truck), `microphone` (2 s at 8 kHz), `instruction`
    (go on, turn left, turn right) or `spoken` (0.6 s), and the `action`: keep, slow, brake, wait, left, right, pull
    over. `samples` is how many one epoch of training has. What validates and tests is spread evenly over all that can
    happen."""

    columns = ("front", "left", "right", "radar", "bus", "gps", "map", "kind", "microphone", "instruction", "spoken",
               "action")  # fmt: skip
    truth_column = "action"

    def __init__(self, *, samples: int = 100_000):
        self.samples = samples

    def make(self, split: str, count: int) -> Drives:
        return Drives(split, count, "drive")

    def truth(self, split: str) -> list[Outcome]:
        """Every fact by the input that tells it."""
        every, sums = situations()
        return [
            Outcome({
                "front": facts["ahead"], "left": facts["left_taken"], "right": facts["right_taken"],
                "radar": facts["closing"], "bus": facts["fast"], "gps": facts["east"], "map": facts["crossing_east"],
                "kind": facts["truck"], "microphone": facts["siren"], "instruction": order if written else "",
                "spoken": "" if written else order,
            }, action(facts, order), float(chance))
            for (facts, order, written), chance in zip(every, np.diff(sums, prepend=0.0))
        ]  # fmt: skip
