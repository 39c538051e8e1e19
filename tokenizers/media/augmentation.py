"""Declared augmentation: how images and spectrograms are changed at random while training, as whole batches on the device.

What chance decides for an item is a function of the item's seed alone, which is made of the run's seed, the epoch and the
sample: an item is changed alike in a batch of any size, in any of several processes, and otherwise in the next epoch.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

Images = UInt8[Tensor, "s channels height width"]
Seeds = Int[Tensor, "s"]


def uniform(seeds: Seeds, numbers: int, stream: int = 0) -> Float[Tensor, "{numbers} s"]:
    """So many numbers from 0 to below 1 for each seed, by a counter and a hash (SplitMix64, Steele et al. 2014): whatever else
    is in the batch, on every device, without a generator whose state would have to be kept."""

    def mixed(x: Tensor, shift: int, factor: int) -> Tensor:
        return (x ^ ((x >> shift) & (2 ** (64 - shift) - 1))) * factor  # a shift that brings in zeros

    counter = torch.arange(1, numbers + 1, device=seeds.device)[:, None] + stream * 2**20
    x = seeds[None] + counter * -0x61C8864680B583EB
    x = mixed(mixed(x, 30, -0x40A7B892E31B1A47), 27, -0x6B2FB644ECCEEE15)
    return (((x ^ ((x >> 31) & (2**33 - 1))) >> 40) & (2**24 - 1)).float() / 2**24


class ImageAugmentation(nn.Module):
    """Shift by up to `shift` pixels (black comes in), turn by up to `rotate` degrees and scale by up to `zoom`, mirror left
    and right (`flip`), RandAugment with `operations` operations of strength `magnitude` (Cubuk et al. 2019, arXiv:1909.13719;
    torchvision's operations), and erase a rectangle of up to `erase` of the area with grey (Zhong et al. 2017,
    arXiv:1708.04896). `transforms` are any others of torchvision.transforms.v2 that keep an image's size, by name with their
    arguments: `[{use: ColorJitter, brightness: 0.4}, {use: RandomGrayscale, p: 0.1}]`; they take one image after another."""

    def __init__(
        self, *, shift: int = 0, flip: bool = False, rotate: float = 0.0, zoom: float = 0.0,
        operations: int = 0, magnitude: int = 9, erase: float = 0.0,
        transforms: list[dict[str, Any]] | None = None,
    ):  # fmt: skip
        super().__init__()
        if min(shift, rotate, zoom, operations, erase) < 0 or zoom >= 1 or erase > 1:
            raise ValueError(
                "shift, rotate, zoom, operations and erase must be 0 or more, zoom below 1, erase at most 1"
            )
        if not 0 <= magnitude <= STRONGEST:
            raise ValueError(f"magnitude must be 0 to {STRONGEST}, not {magnitude}")
        self.shift, self.flip, self.rotate, self.zoom, self.erase = shift, flip, rotate, zoom, erase
        self.operations, self.magnitude = operations, magnitude
        self.transforms = [torchvision_transform(part) for part in transforms or ()]

    def forward(self, images: Images, seeds: Seeds) -> Tensor:
        """Every image changed as its seed decides: images of one seed (the frames of a clip) are changed alike. Autocast is off: to
        halves, places in an image are rounded by up to half a pixel in 256."""
        with torch.autocast(images.device.type, enabled=False):
            images = self.coloured(self.mirrored(images, seeds), seeds)
            return self.moved(images, seeds)

    def mirrored(self, images: Images, seeds: Seeds) -> Images:
        if not self.flip:
            return images
        (chosen,) = uniform(seeds, 1, stream=1)
        return torch.where((chosen < 0.5)[:, None, None, None], images.flip(-1), images)

    def moved(self, images: Images, seeds: Seeds) -> Tensor:
        if self.rotate or self.zoom:
            angle, scale = uniform(seeds, 2, stream=2) * 2 - 1
            images = turned(images, angle * self.rotate, 1 + scale * self.zoom)
        if self.shift:
            images = shifted(images, self.shift, uniform(seeds, 2, stream=3))
        return erased(images, self.erase, uniform(seeds, 3, stream=4)) if self.erase else images

    def coloured(self, images: Images, seeds: Seeds) -> Images:
        """RandAugment, and torchvision's transforms of the user's."""
        for number in range(self.operations):
            which, side = uniform(seeds, 2, stream=10 + number)
            images = rand_augmented(images, which, side, self.magnitude)
        return self.by_torchvision(images, seeds) if self.transforms else images

    @torch.compiler.disable
    def by_torchvision(self, images: Images, seeds: Seeds) -> Images:
        """torchvision's transforms draw from torch's global generators: each image finds them as its own seed has set them. (On a
        GPU this waits for the seeds, once a batch.)"""
        found = []
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            for image, seed in zip(images, seeds.tolist()):
                torch.manual_seed(seed)
                found.append(self.transformed(image[None]))
        return torch.cat(found)

    def transformed(self, image: Images) -> Images:
        for change in self.transforms:
            name = type(change).__name__
            try:
                changed = change(image)
            except (TypeError, ValueError, RuntimeError) as error:
                raise ValueError(
                    f"augment.transforms: {name} does not take images of whole numbers (uint8): {error}"
                ) from None
            if changed.shape != image.shape:
                raise ValueError(
                    f"augment.transforms: {name} made images of {tuple(image.shape[1:])} into {tuple(changed.shape[1:])}; it "
                    f"must keep their size (give it size: {list(image.shape[2:])})"
                )
            image = changed
        return image


STRONGEST = 30
"""RandAugment's strengths are 0 to 30, as in torchvision."""


def rand_augmented(images: Images, which: Float[Tensor, "s"], side: Float[Tensor, "s"], magnitude: int) -> Images:
    """One operation of RandAugment for every image: `which` of them, and to which `side` (where it has two), from 0 to 1."""
    strength, (height, width) = magnitude / STRONGEST, images.shape[-2:]
    number = (which * 14).long()  # the last one leaves an image as it is
    if images.is_cuda:
        return augmented_together(images, number, torch.where(side > 0.5, 1.0, -1.0), strength)
    for index, (forth, back) in enumerate(operations(strength, height, width)):
        own = number == index
        images = where_chosen(forth, images, own if back is None else own & (side > 0.5))
        if back is not None:
            images = where_chosen(back, images, own & (side <= 0.5))
    return images


def augmented_together(images: Images, number: Int[Tensor, "s"], sign: Float[Tensor, "s"], strength: float) -> Images:
    """The same for a GPU: to count whom an operation is for would mean to wait, so that all get all, and keep one. Operations that
    differ by a number are made at once, with each image's own."""
    from torchvision.transforms.v2 import functional as T

    bits, (height, width) = round(8 - 4 * strength), images.shape[-2:]
    moved = resampled_by(images, *shears_and_turns(number, sign, strength, height, width))
    factor = (1 + 0.9 * strength * sign)[:, None, None, None]
    changed = {
        **{5 + place: each for place, each in enumerate(blended(images.float(), factor))},
        9: T.posterize_image(images, bits), 10: T.solarize_image(images, 255 * (1 - strength)),
        11: T.autocontrast_image(images), 12: T.equalize_image(images),
    }  # fmt: skip
    found = torch.where((number < 5)[:, None, None, None], moved, images)
    for place, each in changed.items():
        found = torch.where((number == place)[:, None, None, None], each, found)
    return found


def shears_and_turns(number: Tensor, sign: Tensor, strength: float, height: int, width: int) -> tuple[Tensor, ...]:
    """Where a pixel comes from, counted from the middle: x * a + y * b + c and x * d + y * e + f, as torchvision has them."""
    shear, angle = 0.3 * strength, math.radians(30.0 * strength)
    across, down = (int(150 / 331 * side * strength) for side in (width, height))
    nothing = torch.zeros_like(sign)

    def where(*values: tuple[int, float]) -> Tensor:
        return sum((torch.where(number == place, value * sign, nothing) for place, value in values), nothing)

    straight = torch.where(number == 4, math.cos(angle), 1.0)
    right = straight, where((0, shear), (4, -math.sin(angle))), where((0, shear * height / 2), (2, -across))
    below = where((1, shear), (4, math.sin(angle))), straight, where((1, shear * width / 2), (3, -down))
    return *right, *below


def resampled_by(images: Images, *matrix: Float[Tensor, "s"]) -> Images:
    """Every image with each pixel taken from the nearest to its own place; grey comes in. No product of matrices, which TF32 would
    round."""
    height, width = images.shape[-2:]
    a, b, c, d, e, f = (each[:, None, None] for each in matrix)
    x = torch.arange(width, device=images.device) + (1 - width) / 2
    y = (torch.arange(height, device=images.device) + (1 - height) / 2)[:, None]
    grid = torch.stack([(x * a + y * b + c) / (width / 2), (x * d + y * e + f) / (height / 2)], dim=-1)
    there = torch.cat([images.float(), torch.ones_like(images[:, :1]).float()], dim=1)
    found = F.grid_sample(there, grid, mode="nearest", align_corners=False)
    return torch.where(found[:, -1:] < 0.5, 128.0, found[:, :-1]).to(torch.uint8)


def blended(images: Float[Tensor, "s c h w"], factor: Float[Tensor, "s 1 1 1"]) -> list[Images]:
    """Every image's difference to black, to grey, to one grey and to a smooth image, each by its own factor: torchvision's brightness,
    saturation, contrast and sharpness."""
    grey = images
    if images.shape[1] == 3:
        red, green, blue = images.unbind(1)
        grey = (red * 0.2989 + green * 0.587 + blue * 0.114).floor()[:, None]
    rows = sum(images[..., place : images.shape[-2] - 2 + place, :] for place in range(3))
    sums = sum(rows[..., place : images.shape[-1] - 2 + place] for place in range(3))
    middle = images[..., 1:-1, 1:-1]
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = ((sums + 4 * middle) / 13).round()
    others = torch.zeros_like(images), grey, grey.mean((1, 2, 3), keepdim=True), smooth
    return [(images * factor + other * (1 - factor)).clamp(0, 255).to(torch.uint8) for other in others]


def operations(strength: float, height: int, width: int) -> list[tuple[Callable, Callable | None]]:
    """torchvision's operations at a strength from 0 to 1; where they have two directions, both."""
    from torchvision.transforms.v2 import functional as T

    def affine(**changes: Any) -> Callable:
        plain = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], "fill": 128}
        return lambda images: T.affine(images, **plain | changes)

    def both(make: Callable[[float], Callable], most: float) -> tuple[Callable, Callable]:
        return make(strength * most), make(-strength * most)

    def shear(axis: int) -> Callable[[float], Callable]:
        def make(level: float) -> Callable:
            angle = math.degrees(math.atan(level))
            return affine(shear=[0.0, angle] if axis else [angle, 0.0], center=[0, 0])

        return make

    def enhanced(change: Callable) -> Callable[[float], Callable]:
        return lambda level: lambda images: change(images, 1 + level)

    bits = round(8 - 4 * strength)
    return [
        both(shear(0), 0.3), both(shear(1), 0.3),
        both(lambda level: affine(translate=[int(level), 0]), 150 / 331 * width),
        both(lambda level: affine(translate=[0, int(level)]), 150 / 331 * height),
        both(lambda level: lambda images: T.rotate(images, level, fill=128), 30.0),
        both(enhanced(T.adjust_brightness), 0.9), both(enhanced(T.adjust_saturation), 0.9),
        both(enhanced(T.adjust_contrast), 0.9), both(enhanced(T.adjust_sharpness), 0.9),
        (lambda images: T.posterize(images, bits), None), (lambda images: T.solarize(images, 255 * (1 - strength)), None),
        (T.autocontrast, None), (T.equalize, None),
    ]  # fmt: skip


def where_chosen(change: Callable[[Tensor], Tensor], images: Tensor, chosen: Tensor) -> Tensor:
    """The images, the chosen ones changed; the others are not computed."""
    numbers = chosen.nonzero()[:, 0]
    return images.index_copy(0, numbers, change(images[numbers])) if len(numbers) else images


def torchvision_transform(part: dict[str, Any]) -> nn.Module:
    """A transform of torchvision.transforms.v2 by its name (`use`) and arguments. Raises ValueError naming what is possible."""
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
    """Every image moved by its own whole number of pixels, up to `most` each way; `drawn` decides, from 0 to 1, how far down and
    to the right."""
    s, _, height, width = images.shape
    padded = F.pad(images, (most, most, most, most))
    down, right = (drawn * (2 * most + 1)).long()[:, :, None]
    rows = down + torch.arange(height, device=images.device)
    columns = right + torch.arange(width, device=images.device)
    each = torch.arange(s, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def turned(images: Tensor, degrees: Float[Tensor, "s"], scale: Float[Tensor, "s"]) -> Tensor:
    """Every image turned clockwise by its own angle and made larger by its own factor; images need not be square."""
    height, width = images.shape[-2:]
    angle = degrees * torch.pi / 180
    cos, sin, zero = angle.cos() / scale, angle.sin() / scale, torch.zeros_like(angle)
    # torch measures both sides from -1 to 1: what is turned in pixels must be stretched in those units
    across, down = sin * height / width, sin * width / height
    matrix = torch.stack([torch.stack([cos, across, zero], -1), torch.stack([-down, cos, zero], -1)], 1)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, align_corners=False)


def erased(images: Tensor, most: float, drawn: Float[Tensor, "3 s"]) -> Tensor:
    """A rectangle of up to `most` of each image's area made grey; `drawn` decides, from 0 to 1, its share and its place."""
    height, width = images.shape[-2:]
    share = (drawn[0] * most).sqrt()
    top, left = drawn[1:] * (1 - share)
    rows = torch.arange(height, device=images.device) / height
    columns = torch.arange(width, device=images.device) / width
    inside_rows = (rows >= top[:, None]) & (rows < (top + share)[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < (left + share)[:, None])
    return torch.where((inside_rows[:, :, None] & inside_columns[:, None, :])[:, None], 128, images)


class SpectrogramAugmentation(nn.Module):
    """SpecAugment (Park et al. 2019, arXiv:1904.08779): per clip, `stripes` bands of up to `mels` mel channels and as many of
    up to `frames` frames are set to the mean, 0. Before that the mel channels of each clip are stretched by up to `warp`
    (0.1: 0.9 to 1.1 times), as another vocal tract would (Jaitly and Hinton 2013, vocal tract length perturbation)."""

    def __init__(self, *, mels: int = 8, frames: int = 8, stripes: int = 1, warp: float = 0.0):
        super().__init__()
        if not 0 <= warp < 1:
            raise ValueError(f"warp must be 0 or more and below 1, not {warp}")
        self.mels, self.frames, self.stripes, self.warp = mels, frames, stripes, warp

    def forward(
        self, spectrogram: Float[Tensor, "f m"], lengths: Int[Tensor, "s"], seeds: Seeds
    ) -> Float[Tensor, "f m"]:
        """`lengths` are the frames of each clip; the clips lie one after another."""
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
    """Every frame's channels read at `factor` times their place, with straight lines between them; the last one goes on."""
    last = spectrogram.shape[1] - 1
    place = (torch.arange(last + 1, device=spectrogram.device) * factor[:, None]).clamp(max=last)
    below = place.long().clamp(max=last - 1)
    share = (place - below).to(spectrogram.dtype)
    return spectrogram.gather(1, below) * (1 - share) + spectrogram.gather(1, below + 1) * share
