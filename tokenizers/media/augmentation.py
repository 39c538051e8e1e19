"""Augmentation (random changes) of images and spectrograms during training, computed for whole batches on the device.

All random numbers for an item depend only on the seed of the item, which is computed from the seed of the run, the
epoch and the sample. Therefore an item is changed in the same way in every batch and process, and differently in every
epoch.
"""

from __future__ import annotations

import difflib
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...models.seeding import seed_torch
from .rand_augment import STRONGEST, Images, rand_augmented

Seeds = Int[Tensor, "s"]


def uniform(seeds: Seeds, numbers: int, stream: int = 0) -> Float[Tensor, "{numbers} s"]:
    """Returns uniform random numbers in [0, 1): `numbers` numbers (rows) for each seed (columns). Each number is a hash
    of the seed and a counter (SplitMix64, Steele et al. 2014), and therefore equal in every batch and on every device.
    Different values of `stream` give independent numbers."""

    def mixed(x: Tensor, shift: int, factor: int) -> Tensor:
        return (x ^ ((x >> shift) & (2 ** (64 - shift) - 1))) * factor  # the mask makes it a logical shift

    counter = torch.arange(1, numbers + 1, device=seeds.device)[:, None] + stream * 2**20
    x = seeds[None] + counter * -0x61C8864680B583EB
    x = mixed(mixed(x, 30, -0x40A7B892E31B1A47), 27, -0x6B2FB644ECCEEE15)
    return (((x ^ ((x >> 31) & (2**33 - 1))) >> 40) & (2**24 - 1)).float() / 2**24


class ImageAugmentation(nn.Module):
    """Random changes of images. `shift`: translation by up to this many pixels, filled with black. `rotate`: rotation
    by up to this many degrees. `zoom`: scaling by up to this share (0.1: 0.9 to 1.1 times). `flip`: horizontal flip
    with probability 0.5. `operations`: the number of RandAugment operations per image (Cubuk et al. 2019,
    arXiv:1909.13719); `magnitude`: the strength of these operations, 0 to 30. `erase`: in every image, a rectangle at a
    random position becomes grey; its area is random, up to this share of the image (Zhong et al. 2017,
    arXiv:1708.04896). `transforms`: a list of other transforms of torchvision.transforms.v2 with their arguments, such
    as `[{use: ColorJitter, brightness: 0.4}, {use: RandomGrayscale, p: 0.1}]`. Each of these transforms must keep the
    shape of an image (channels, height, width), and is applied to one image at a time."""

    def __init__(
        self, *, shift: int = 0, flip: bool = False, rotate: float = 0.0, zoom: float = 0.0,
        operations: int = 0, magnitude: int = 9, erase: float = 0.0,
        transforms: list[dict[str, Any]] | None = None,
    ):  # fmt: skip
        super().__init__()
        if min(shift, rotate, zoom, operations, erase) < 0 or zoom >= 1 or erase > 1:
            allowed = "0 or more, zoom below 1, erase at most 1"
            raise ValueError(f"shift, rotate, zoom, operations and erase must be {allowed}")
        if not 0 <= magnitude <= STRONGEST:
            raise ValueError(f"magnitude must be 0 to {STRONGEST}, not {magnitude}")
        self.shift, self.flip, self.rotate, self.zoom, self.erase = shift, flip, rotate, zoom, erase
        self.operations, self.magnitude = operations, magnitude
        self.transforms = [torchvision_transform(part) for part in transforms or ()]
        if self.transforms:  # not a decorator, which would always import torch._dynamo and take a second
            self._uncompiled = torch.compiler.disable(ImageAugmentation.by_torchvision)

    def forward(self, images: Images, seeds: Seeds) -> Tensor:
        """Returns the images (s, channels, height, width), each changed at random by its seed. Images with equal seeds
        (the frames of a video) are changed equally. The dtype is that of `moved`."""
        with torch.autocast(images.device.type, enabled=False):  # 16 bits round positions by up to half a pixel of 256
            if self.flip:
                (chosen,) = uniform(seeds, 1, stream=1)
                images = torch.where((chosen < 0.5)[:, None, None, None], images.flip(-1), images)
            for number in range(self.operations):
                which, side = uniform(seeds, 2, stream=10 + number)
                images = rand_augmented(images, which, side, self.magnitude)
            return self.moved(self._uncompiled(self, images, seeds) if self.transforms else images, seeds)

    def moved(self, images: Images, seeds: Seeds) -> Tensor:
        """Applies `rotate`, `zoom`, `shift` and `erase`. Returns float32 if images are resampled, otherwise uint8."""
        if self.rotate or self.zoom:
            angle, scale = uniform(seeds, 2, stream=2) * 2 - 1
            images = turned(images, angle * self.rotate, 1 + scale * self.zoom)
        if self.shift:
            images = shifted(images, self.shift, uniform(seeds, 2, stream=3))
        return erased(images, self.erase, uniform(seeds, 3, stream=4)) if self.erase else images

    def by_torchvision(self, images: Images, seeds: Seeds) -> Images:
        """Applies the `transforms`. The transforms use torch's global generators, so these are seeded for every image.
        On a GPU, reading the seeds synchronises once per batch."""
        changed = []
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            for image, seed in zip(images, seeds.tolist()):
                seed_torch(seed, images.device)
                changed.append(self.transformed(image[None]))
        return torch.cat(changed)

    def transformed(self, image: Images) -> Images:
        """Applies all `transforms` to one image (1, channels, height, width). Raises ValueError if a transform raises
        an error for the uint8 image, or changes the shape."""
        for transform in self.transforms:
            where = f"augment.transforms: {type(transform).__name__}"
            try:
                changed = transform(image)
            except (TypeError, ValueError, RuntimeError) as error:
                raise ValueError(f"{where} failed on an image (uint8, values 0 to 255): {error}") from None
            if changed.shape != image.shape:
                change = f"changes the shape {tuple(image.shape[1:])} to {tuple(changed.shape[1:])}"
                raise ValueError(f"{where} {change}; it must keep the size (set size: {list(image.shape[2:])})")
            image = changed
        return image


def torchvision_transform(part: dict[str, Any]) -> nn.Module:
    """Returns a transform of torchvision.transforms.v2. The key `use` of `part` is the name of the class, and the other
    keys are the arguments. Raises ValueError if the name or an argument is unknown, or an argument is missing."""
    from torchvision.transforms import v2

    name, options = part.get("use"), {key: value for key, value in part.items() if key != "use"}
    names = [key for key, value in vars(v2).items() if isinstance(value, type) and issubclass(value, v2.Transform)]
    if name not in names:
        near = difflib.get_close_matches(str(name), names, 3) or sorted(names)
        raise ValueError(f"augment.transforms: torchvision has no transform {name!r}; possible: {', '.join(near)}")
    try:
        return getattr(v2, name)(**options)
    except TypeError as error:
        raise ValueError(f"augment.transforms: {name}: {error}") from None


def shifted(images: Tensor, most: int, drawn: Float[Tensor, "2 s"]) -> Tensor:
    """Translates every image by an integer number of pixels, at most `most` in each direction, and fills the rest with
    black. `drawn` holds random numbers in [0, 1): the vertical shift (0: `most` pixels down, almost 1: `most` pixels
    up) and the horizontal shift (0: right, almost 1: left)."""
    s, _, height, width = images.shape
    padded = F.pad(images, (most, most, most, most))
    down, right = (drawn * (2 * most + 1)).long()[:, :, None]
    rows = down + torch.arange(height, device=images.device)
    columns = right + torch.arange(width, device=images.device)
    image = torch.arange(s, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def turned(images: Tensor, degrees: Float[Tensor, "s"], scale: Float[Tensor, "s"]) -> Tensor:
    """Rotates image i clockwise about its centre by `degrees[i]`, and enlarges it by the factor `scale[i]`. The rest
    becomes black. Images need not be square. Returns float32."""
    height, width = images.shape[-2:]
    angle = degrees * torch.pi / 180
    cos, sin, zero = angle.cos() / scale, angle.sin() / scale, torch.zeros_like(angle)
    # affine_grid measures both sides from -1 to 1; a rotation in pixels must therefore be rescaled by the aspect ratio
    across, down = sin * height / width, sin * width / height
    matrix = torch.stack([torch.stack([cos, across, zero], -1), torch.stack([-down, cos, zero], -1)], 1)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, align_corners=False)


def erased(images: Tensor, most: float, drawn: Float[Tensor, "3 s"]) -> Tensor:
    """Makes a rectangle in every image grey (128). `most` is the largest area of the rectangle as a share of the image.
    `drawn` holds random numbers in [0, 1): the area as a share of `most`, the vertical and the horizontal position."""
    height, width = images.shape[-2:]
    share = (drawn[0] * most).sqrt()
    top, left = drawn[1:] * (1 - share)
    rows = torch.arange(height, device=images.device) / height
    columns = torch.arange(width, device=images.device) / width
    inside_rows = (rows >= top[:, None]) & (rows < (top + share)[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < (left + share)[:, None])
    return torch.where((inside_rows[:, :, None] & inside_columns[:, None, :])[:, None], 128, images)


class SpectrogramAugmentation(nn.Module):
    """SpecAugment (Park et al. 2019, arXiv:1904.08779). In each clip, `stripes` bands of up to `mels` mel channels and
    `stripes` bands of up to `frames` frames are set to 0, the mean. Before that, the mel channels of each clip are
    stretched by up to `warp` (0.1: 0.9 to 1.1 times). A stretched clip sounds like a different speaker (vocal tract
    length perturbation, Jaitly and Hinton 2013)."""

    def __init__(self, *, mels: int = 8, frames: int = 8, stripes: int = 1, warp: float = 0.0):
        super().__init__()
        if not 0 <= warp < 1:
            raise ValueError(f"warp must be 0 or more and below 1, not {warp}")
        self.mels, self.frames, self.stripes, self.warp = mels, frames, stripes, warp

    def forward(
        self, spectrogram: Float[Tensor, "f m"], lengths: Int[Tensor, "s"], seeds: Seeds
    ) -> Float[Tensor, "f m"]:
        """Returns the augmented spectrograms of clips. The spectrograms are concatenated along the frames; `lengths`
        holds the number of frames of each clip."""
        device, bins = spectrogram.device, spectrogram.shape[1]
        clip = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths, output_size=len(spectrogram))
        if self.warp:
            (drawn,) = uniform(seeds, 1, stream=1)
            spectrogram = stretched(spectrogram, 1 + self.warp * (2 * drawn - 1)[clip])
        within = torch.arange(len(spectrogram), device=device) - (lengths.cumsum(0) - lengths)[clip]
        for number in range(self.stripes):
            drawn = uniform(seeds, 4, stream=2 + number)
            tall = drawn[0] * min(self.mels, bins)
            low = drawn[1] * (bins - tall)
            wide = drawn[2] * lengths.clamp(max=self.frames)
            first = drawn[3] * (lengths - wide)
            channel = torch.arange(bins, device=device)
            band = (channel >= low[:, None]) & (channel < (low + tall)[:, None])
            stripe = (within >= first[clip]) & (within < (first + wide)[clip])
            spectrogram = spectrogram.masked_fill(band[clip] | stripe[:, None], 0.0)
        return spectrogram


def stretched(spectrogram: Float[Tensor, "f m"], factor: Float[Tensor, "f"]) -> Float[Tensor, "f m"]:
    """Returns every frame, resampled along its mel channels: channel c gets the value at channel c * `factor`,
    interpolated linearly. Positions beyond the last channel get the value of the last channel."""
    last = spectrogram.shape[1] - 1
    source = (torch.arange(last + 1, device=spectrogram.device) * factor[:, None]).clamp(max=last)
    below = source.long().clamp(max=last - 1)
    share = (source - below).to(spectrogram.dtype)
    return spectrogram.gather(1, below) * (1 - share) + spectrogram.gather(1, below + 1) * share
