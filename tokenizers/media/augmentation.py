"""Augmentation of images and spectrograms while training, as whole batches on the device.

All random numbers for an item are functions of its seed alone, which is made of the run's seed, the epoch and the
sample: an item is changed in the same way in a batch of any size and in any process, and in another way in the next
epoch.
"""

from __future__ import annotations

import difflib
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .rand_augment import STRONGEST, Images, rand_augmented

Seeds = Int[Tensor, "s"]


def uniform(seeds: Seeds, numbers: int, stream: int = 0) -> Float[Tensor, "{numbers} s"]:
    """Random numbers from 0 to below 1, `numbers` for each seed: a hash of seed and counter (SplitMix64, Steele et al.
    2014), the same in every batch and on every device. `stream` numbers independent draws from the same seeds."""

    def mixed(x: Tensor, shift: int, factor: int) -> Tensor:
        return (x ^ ((x >> shift) & (2 ** (64 - shift) - 1))) * factor  # a logical shift: zeros come in

    counter = torch.arange(1, numbers + 1, device=seeds.device)[:, None] + stream * 2**20
    x = seeds[None] + counter * -0x61C8864680B583EB
    x = mixed(mixed(x, 30, -0x40A7B892E31B1A47), 27, -0x6B2FB644ECCEEE15)
    return (((x ^ ((x >> 31) & (2**33 - 1))) >> 40) & (2**24 - 1)).float() / 2**24


class ImageAugmentation(nn.Module):
    """Shift by up to `shift` pixels (black comes in), turn by up to `rotate` degrees and scale by up to `zoom` (0.1:
    0.9 to 1.1 times), mirror left and right with probability 0.5 (`flip`), RandAugment with `operations` operations of
    strength `magnitude`, 0 to 30 (Cubuk et al. 2019, arXiv:1909.13719; torchvision's operations), and erase a rectangle
    of up to `erase` of the area with grey (Zhong et al. 2017, arXiv:1708.04896). `transforms` are any others of
    torchvision.transforms.v2 that keep an image's size, by name with their arguments: `[{use: ColorJitter, brightness:
    0.4}, {use: RandomGrayscale, p: 0.1}]`; they take one image after another."""

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
        if self.transforms:  # no decorator: it would import torch._dynamo, a second, for everyone
            self._uncompiled = torch.compiler.disable(ImageAugmentation.by_torchvision)

    def forward(self, images: Images, seeds: Seeds) -> Tensor:
        """Every image changed as its seed decides; images of one seed (the frames of a clip) are changed alike."""
        with torch.autocast(images.device.type, enabled=False):  # 16 bits round positions by up to half a pixel in 256
            if self.flip:
                (chosen,) = uniform(seeds, 1, stream=1)
                images = torch.where((chosen < 0.5)[:, None, None, None], images.flip(-1), images)
            for number in range(self.operations):
                which, side = uniform(seeds, 2, stream=10 + number)
                images = rand_augmented(images, which, side, self.magnitude)
            return self.moved(self._uncompiled(self, images, seeds) if self.transforms else images, seeds)

    def moved(self, images: Images, seeds: Seeds) -> Tensor:
        """`rotate`, `zoom`, `shift` and `erase`; float32 where an image is resampled, else uint8."""
        if self.rotate or self.zoom:
            angle, scale = uniform(seeds, 2, stream=2) * 2 - 1
            images = turned(images, angle * self.rotate, 1 + scale * self.zoom)
        if self.shift:
            images = shifted(images, self.shift, uniform(seeds, 2, stream=3))
        return erased(images, self.erase, uniform(seeds, 3, stream=4)) if self.erase else images

    def by_torchvision(self, images: Images, seeds: Seeds) -> Images:
        """The `transforms`, which draw from torch's global generators: these are seeded for every image. (On a GPU this
        waits for the seeds, once a batch.)"""
        found = []
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            for image, seed in zip(images, seeds.tolist()):
                torch.manual_seed(seed)
                found.append(self.transformed(image[None]))
        return torch.cat(found)

    def transformed(self, image: Images) -> Images:
        """One image through all `transforms`. Raises ValueError where one cannot take uint8 or changes the size."""
        for change in self.transforms:
            where = f"augment.transforms: {type(change).__name__}"
            try:
                changed = change(image)
            except (TypeError, ValueError, RuntimeError) as error:
                raise ValueError(f"{where} does not take images of whole numbers (uint8): {error}") from None
            if changed.shape != image.shape:
                made = f"made images of {tuple(image.shape[1:])} into {tuple(changed.shape[1:])}"
                raise ValueError(f"{where} {made}; it must keep their size (give it size: {list(image.shape[2:])})")
            image = changed
        return image


def torchvision_transform(part: dict[str, Any]) -> nn.Module:
    """The transform of torchvision.transforms.v2 that `use` names, made with the other keys as arguments. Raises
    ValueError for an unknown name or argument."""
    from torchvision.transforms import v2

    name, options = part.get("use"), {key: value for key, value in part.items() if key != "use"}
    known = [key for key, value in vars(v2).items() if isinstance(value, type) and issubclass(value, v2.Transform)]
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 3) or sorted(known)
        raise ValueError(f"augment.transforms: torchvision has no transform {name!r}; possible: {', '.join(near)}")
    try:
        return getattr(v2, name)(**options)
    except TypeError as error:
        raise ValueError(f"augment.transforms: {name}: {error}") from None


def shifted(images: Tensor, most: int, drawn: Float[Tensor, "2 s"]) -> Tensor:
    """Every image moved by its own whole number of pixels, up to `most` each way; black comes in. `drawn`, from 0 to 1:
    how far up and to the left (0: moved `most` pixels down and to the right)."""
    s, _, height, width = images.shape
    padded = F.pad(images, (most, most, most, most))
    down, right = (drawn * (2 * most + 1)).long()[:, :, None]
    rows = down + torch.arange(height, device=images.device)
    columns = right + torch.arange(width, device=images.device)
    each = torch.arange(s, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def turned(images: Tensor, degrees: Float[Tensor, "s"], scale: Float[Tensor, "s"]) -> Tensor:
    """Every image turned clockwise by its own angle in degrees and enlarged by its own factor, about its middle; black
    comes in. Images need not be square. Gives float32."""
    height, width = images.shape[-2:]
    angle = degrees * torch.pi / 180
    cos, sin, zero = angle.cos() / scale, angle.sin() / scale, torch.zeros_like(angle)
    # affine_grid measures both sides from -1 to 1: a rotation in pixels is stretched in these units
    across, down = sin * height / width, sin * width / height
    matrix = torch.stack([torch.stack([cos, across, zero], -1), torch.stack([-down, cos, zero], -1)], 1)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, align_corners=False)


def erased(images: Tensor, most: float, drawn: Float[Tensor, "3 s"]) -> Tensor:
    """Every image with a rectangle of up to `most` of its area made grey (128). `drawn`, from 0 to 1: the share of
    `most` that it has, and how far down and right it is."""
    height, width = images.shape[-2:]
    share = (drawn[0] * most).sqrt()
    top, left = drawn[1:] * (1 - share)
    rows = torch.arange(height, device=images.device) / height
    columns = torch.arange(width, device=images.device) / width
    inside_rows = (rows >= top[:, None]) & (rows < (top + share)[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < (left + share)[:, None])
    return torch.where((inside_rows[:, :, None] & inside_columns[:, None, :])[:, None], 128, images)


class SpectrogramAugmentation(nn.Module):
    """SpecAugment (Park et al. 2019, arXiv:1904.08779): per clip, `stripes` bands of up to `mels` mel channels and as
    many of up to `frames` frames are set to the mean, 0. Before that the mel channels of each clip are stretched by up
    to `warp` (0.1: 0.9 to 1.1 times), which sounds like another vocal tract (vocal tract length perturbation, Jaitly
    and Hinton 2013)."""

    def __init__(self, *, mels: int = 8, frames: int = 8, stripes: int = 1, warp: float = 0.0):
        super().__init__()
        if not 0 <= warp < 1:
            raise ValueError(f"warp must be 0 or more and below 1, not {warp}")
        self.mels, self.frames, self.stripes, self.warp = mels, frames, stripes, warp

    def forward(
        self, spectrogram: Float[Tensor, "f m"], lengths: Int[Tensor, "s"], seeds: Seeds
    ) -> Float[Tensor, "f m"]:
        """The augmented spectrograms of clips that lie one after another; `lengths`: the frames of each clip."""
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
    """Every frame resampled along its channels: channel c becomes what stood at c * factor, interpolated linearly;
    beyond the last channel its value is repeated."""
    last = spectrogram.shape[1] - 1
    place = (torch.arange(last + 1, device=spectrogram.device) * factor[:, None]).clamp(max=last)
    below = place.long().clamp(max=last - 1)
    share = (place - below).to(spectrogram.dtype)
    return spectrogram.gather(1, below) * (1 - share) + spectrogram.gather(1, below + 1) * share
