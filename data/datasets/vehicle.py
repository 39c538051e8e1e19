"""Generated recordings of two seconds in a vehicle, and the action of the driver. The inputs are three cameras, a
radar, the bus, GPS, a map, the kind of vehicle, a microphone, and a written or spoken instruction. No input alone
determines the action.

The action is determined by the first rule in this list that applies:

    pull over     there is a siren (microphone)
    brake         somebody is ahead (front camera), and the distance decreases (radar)
    left, right   the vehicle is at the crossing that is marked on the map (GPS, map), the instruction is to turn, and
                  the lane on this side is free (side camera); `wait` if it is taken; `keep` for the instruction `go on`
    slow          a truck (kind) drives fast (bus)
    keep          otherwise
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from ..generated import Made, MadeDataset
from ..sample_dataset import Outcome

LIKELY = {"siren": 0.2, "ahead": 0.55, "closing": 0.55, "left_taken": 0.5, "right_taken": 0.5, "east": 0.5,
          "crossing_east": 0.5, "truck": 0.75, "fast": 0.75}  # fmt: skip
"""The probability that each fact is true. The facts are independent."""
ORDERS = {"go on": 0.2, "turn left": 0.4, "turn right": 0.4}
"""The probability of each instruction. Half of the instructions are written, the other half is spoken."""
VOWELS = {"go on": (450, 800), "turn left": (400, 2200), "turn right": (800, 1250)}
"""The two formants, in hertz, of the vowel that represents each spoken instruction."""
SIDE, RANGES, RATE, CLIP_SECONDS = 12, 16, 8000, 2.0
"""SIDE: the height and width of camera images and of the map in pixels. RANGES: the number of bins of the radar. RATE:
the sample rate in hertz. CLIP_SECONDS: the duration in seconds."""
STEP = (np.sqrt(5) - 1) / 2
"""The golden ratio minus 1. The fractional parts of its multiples are spread evenly over [0, 1); they select the facts
of validation and test samples."""
Facts = Mapping[str, bool]


def action(facts: Facts, order: str) -> str:
    """Returns the action of the driver for these facts and this instruction (`order`)."""
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
    """Returns (all combinations, their cumulative probabilities). A combination is (facts, instruction, whether the
    instruction is written)."""
    combinations, chances = [], []
    for values in itertools.product((False, True), repeat=len(LIKELY)):
        facts = dict(zip(LIKELY, values))
        chance = np.prod([share if facts[name] else 1 - share for name, share in LIKELY.items()])
        for order, share in ORDERS.items():
            for written in (True, False):
                combinations.append((facts, order, written))
                chances.append(chance * share / 2)
    return combinations, np.cumsum(chances)


class Drives(Made):
    """Samples of two seconds of driving, with the action of the driver."""

    def parts(self, number: int) -> Mapping[str, Callable[[], Any]]:
        return {name: partial(self.part, number, name) for name in Vehicle.columns}

    def part(self, number: int, name: str) -> Any:
        """Returns the value of the column `name` of a sample. Returns None if the sample does not have this column:
        `instruction` or `spoken`."""
        lot = self.random(number, 31).random() if self.split == "train" else (number * STEP) % 1
        combinations, sums = situations()
        index = min(int(np.searchsorted(sums, lot, side="right")), len(combinations) - 1)
        facts, order, written = combinations[index]
        if name in TEXTS:
            return {"kind": "truck" if facts["truck"] else "car", "action": action(facts, order),
                    "instruction": order if written else None}[name]  # fmt: skip
        random = self.random(number, 31, 1 + Vehicle.columns.index(name))  # 0 would repeat the seed of `lot`
        if name == "spoken":
            return None if written else (spoken(order, random), RATE)
        make, fact = SENSED[name]
        return make(facts[fact], random)


def camera(taken: bool, random: np.random.Generator) -> UInt8[np.ndarray, "2 s s"]:
    """Returns two grey frames, one second apart, uint8 (2, SIDE, SIDE): a road and, if `taken`, a bright figure that
    moves on it."""
    frames = np.full((2, SIDE, SIDE), 70.0)
    frames[:, SIDE // 2 :, 2:-2] = 110
    if taken:
        row, column = random.integers(4, 8), random.integers(1, 7)
        for number, frame in enumerate(frames):
            frame[row : row + 4, column + number : column + number + 3] = 230
    return np.clip(frames + random.normal(0, 12, frames.shape), 0, 255).astype(np.uint8)


def radar(closing: bool, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns the echo strength over range at four times in two seconds, (4, RANGES), see `timed`. The peak comes
    closer if `closing`; otherwise it hardly moves."""
    first = random.uniform(8, 14) if closing else random.uniform(3, 14)
    distances = first - np.arange(4) * (random.uniform(1.2, 2.0) if closing else random.uniform(-0.3, 0.3))
    echo = np.exp(-((np.arange(RANGES) - distances[:, None]) ** 2)) + random.normal(0, 0.05, (4, RANGES))
    return timed(echo, 0.5)


def bus(fast: bool, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns the speed in km/h and the angle of the steering wheel in degrees, ten times per second, (20, 2), see
    `timed`."""
    speed = random.uniform(90, 120) if fast else random.uniform(30, 60)
    values = np.stack([speed + random.normal(0, 1, 20), random.normal(0, 3) + random.normal(0, 0.5, 20)], axis=1)
    return timed(values, 0.1)


def gps(east: bool, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns the position (east, north) in metres, once per second, (2, 2), see `timed`. The position is near the
    eastern or the western crossing, with noise."""
    return timed(np.array([200.0 if east else 0.0, 0.0]) + random.normal(0, 12, (2, 2)), 1.0)


def drawn_map(east: bool, random: np.random.Generator) -> UInt8[np.ndarray, "s s"]:
    """Returns a map, uint8 (SIDE, SIDE), with a road from west to east and a mark at one of two crossings. The
    instruction refers to the marked crossing, which is the eastern one if `east`."""
    image = np.full((SIDE, SIDE), 200.0)
    image[SIDE // 2] = 120
    column = 8 if east else 2
    image[SIDE // 2 - 2 : SIDE // 2 + 3, column : column + 2] = 20
    return np.clip(image + random.normal(0, 8, image.shape), 0, 255).astype(np.uint8)


def street(siren: bool, random: np.random.Generator) -> tuple[Float32[np.ndarray, "n"], int]:
    """Returns (two seconds of street noise, sample rate in hertz). If `siren`, the noise contains a two-tone siren that
    starts at a random time."""
    time = np.arange(round(RATE * CLIP_SECONDS)) / RATE
    sound = random.normal(0, 0.1, len(time))
    if siren:
        hertz = np.where((time + random.uniform(0, 1)) % 1 < 0.5, 440.0, 585.0)
        sound += 0.4 * np.sin(2 * np.pi * np.cumsum(hertz) / RATE) * (time > random.uniform(0, 0.8))
    return sound.astype(np.float32), RATE


def spoken(order: str, random: np.random.Generator) -> Float32[np.ndarray, "n"]:
    """Returns the vowel that represents an instruction, 0.6 s at RATE: the overtones of a voice, which are louder near
    the formants of the vowel."""
    time, voice = np.arange(round(RATE * 0.6)) / RATE, random.uniform(100, 220)
    overtones = np.arange(1, int(3000 / voice)) * voice
    loud = sum(np.exp(-(((overtones - formant) / 180) ** 2)) for formant in VOWELS[order])
    sound = (loud[:, None] * np.sin(2 * np.pi * overtones[:, None] * time)).sum(0)
    return (0.2 * sound / np.abs(sound).max() + random.normal(0, 0.02, len(time))).astype(np.float32)


def timed(values: np.ndarray, step: float) -> dict[str, np.ndarray]:
    """Returns {"values": measurements, "seconds": their times in seconds}, both float32. The times are 0, `step`, 2 *
    `step`, ..."""
    return {"values": values.astype(np.float32), "seconds": (np.arange(len(values)) * step).astype(np.float32)}


SENSED = {
    "front": (camera, "ahead"), "left": (camera, "left_taken"), "right": (camera, "right_taken"),
    "radar": (radar, "closing"), "bus": (bus, "fast"), "gps": (gps, "east"), "map": (drawn_map, "crossing_east"),
    "microphone": (street, "siren"),
}  # fmt: skip
"""By sensor column: (the function that generates the column, the fact that the column shows)."""
TEXTS = ("kind", "instruction", "action")


class Vehicle(MadeDataset):
    """Columns: `front`, `left`, `right` (videos of two frames, 12 x 12, grey); `radar` (4 x 16), `bus` (20 x 2), `gps`
    (2 x 2), each with times in seconds; `map` (12 x 12), `kind` (car or truck), `microphone` (2 s at 8 kHz); either
    `instruction` (go on, turn left, turn right) or `spoken` (0.6 s); and `action` (keep, slow, brake, wait, left,
    right, pull over). `samples` is the number of training samples per epoch. The samples of val and test are spread
    evenly over all situations."""

    columns = ("front", "left", "right", "radar", "bus", "gps", "map", "kind", "microphone", "instruction", "spoken",
               "action")  # fmt: skip
    truth_column = "action"

    def __init__(self, *, samples: int = 100_000):
        self.samples = samples

    def make(self, split: str, count: int) -> Drives:
        return Drives(split, count, "drive")

    def truth(self, split: str) -> list[Outcome]:
        """Returns all outcomes with their probabilities. The value of an input is not its data but the fact that it
        shows, such as whether there is a siren; for `instruction` and `spoken` it is the instruction, or an empty text
        if the sample does not have this column."""
        combinations, sums = situations()
        return [
            Outcome({
                "front": facts["ahead"], "left": facts["left_taken"], "right": facts["right_taken"],
                "radar": facts["closing"], "bus": facts["fast"], "gps": facts["east"], "map": facts["crossing_east"],
                "kind": facts["truck"], "microphone": facts["siren"], "instruction": order if written else "",
                "spoken": "" if written else order,
            }, action(facts, order), float(chance))
            for (facts, order, written), chance in zip(combinations, np.diff(sums, prepend=0.0))
        ]  # fmt: skip
