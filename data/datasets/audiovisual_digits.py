"""Audiovisual digits in heavy noise: an MNIST image and a recording (FSDD) of the same digit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from ...tokenizers.media.files import read_picture, read_sound
from ..generated import ByLabel, Made, MadeDataset
from .fsdd import Fsdd
from .mnist import Mnist


class Pairs(Made):
    """Samples of an image and a recording of the same random digit, with independent noise."""

    def __init__(self, split: str, dataset: AudiovisualDigits, count: int):
        images, sounds = Mnist().open(split), Fsdd().open(split)
        super().__init__(split, count, "pair", images, sounds)
        self.dataset = dataset
        self.images, self.sounds = ByLabel(images), ByLabel(sounds)

    def parts(self, number: int) -> Mapping[str, Callable[[], Any]]:
        random = self.random(number, 3)
        digit = int(random.integers(10))
        image, sound = self.images.drawn(digit, random), self.sounds.drawn(digit, random)
        noise = cache(lambda: random.normal(0, 255 * self.dataset.image_noise, (28, 28)))

        def noisy() -> tuple[np.ndarray, int]:
            noise()  # the noise of the image must be drawn before the noise of the sound
            return noisy_sound(self.sounds.value(sound, "sound"), self.dataset.sound_noise, random)

        return {
            "image": lambda: noisy_image(self.images.value(image, "image"), noise()), "sound": noisy,
            "label": lambda: digit,
        }  # fmt: skip


def noisy_image(file: bytes, noise: Float64[np.ndarray, "28 28"]) -> UInt8[np.ndarray, "28 28"]:
    """Returns a grey image with added noise (in pixel values), at half the contrast. `file` contains the bytes of an
    image file."""
    values = np.asarray(read_picture(file).convert("L")) + noise
    return np.clip(values * 0.5 + 64, 0, 255).astype(np.uint8)


def noisy_sound(file: bytes, ratio: float, random: np.random.Generator) -> tuple[np.ndarray, int]:
    """Returns (float32 samples, rate in hertz) of a recording with added white noise. `file` contains the bytes of a
    sound file; `ratio` is the signal-to-noise ratio in dB."""
    samples, rate = read_sound(file)
    level = np.sqrt(np.mean(samples**2)) * 10 ** (-ratio / 20)
    return (samples + random.normal(0, level, len(samples))).astype(np.float32), rate


class AudiovisualDigits(MadeDataset):
    """Columns: `image` (28, 28), `sound` (8 kHz), `label` 0 to 9. `samples` is the number of training samples per
    epoch. `image_noise` is the standard deviation of the noise in the images, relative to the range of the pixel values
    (1.0: 255). `sound_noise` is the signal-to-noise ratio of the recordings in dB."""

    columns = ("image", "sound", "label")

    def __init__(self, *, samples: int = 8000, image_noise: float = 1.0, sound_noise: float = -10.0):
        self.samples, self.image_noise, self.sound_noise = samples, image_noise, sound_noise

    def make(self, split: str, count: int) -> Pairs:
        return Pairs(split, self, count)
