"""RandAugment (Cubuk et al. 2019, arXiv:1909.13719): torchvision's operations on whole batches, one for each image.

On a CPU an operation is computed for the images that drew it. On a GPU, where counting these would wait for the device,
all operations are computed for all images, and each image keeps one. Both give the same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

Images = UInt8[Tensor, "s channels height width"]

STRONGEST = 30
"""The largest magnitude of RandAugment, as in torchvision."""


def rand_augmented(images: Images, which: Float[Tensor, "s"], side: Float[Tensor, "s"], magnitude: int) -> Images:
    """One operation of RandAugment on every image. `which`, from 0 to below 1, selects one of 14, the last of which
    does nothing; `side`, from 0 to 1, its direction, where it has two."""
    strength, (height, width) = magnitude / STRONGEST, images.shape[-2:]
    number = (which * 14).long()
    if images.is_cuda:
        return augmented_together(images, number, torch.where(side > 0.5, 1.0, -1.0), strength)
    for index, (forth, back) in enumerate(operations(strength, height, width)):
        own = number == index
        images = where_chosen(forth, images, own if back is None else own & (side > 0.5))
        if back is not None:
            images = where_chosen(back, images, own & (side <= 0.5))
    return images


def augmented_together(images: Images, number: Int[Tensor, "s"], sign: Float[Tensor, "s"], strength: float) -> Images:
    """`rand_augmented` for a GPU: all operations on all images, of which each image keeps the one of its `number`.
    Shears, translations and rotations are one resampling with each image's own matrix; the blends, one per kind, take
    each image's own factor."""
    from torchvision.transforms.v2 import functional as T

    bits, (height, width) = round(8 - 4 * strength), images.shape[-2:]
    moved = resampled_by(images, *shears_and_turns(number, sign, strength, height, width))
    factor = (1 + 0.9 * strength * sign)[:, None, None, None]
    changed = [
        *blended(images.float(), factor), T.posterize_image(images, bits),
        T.solarize_image(images, 255 * (1 - strength)), T.autocontrast_image(images), T.equalize_image(images),
    ]  # fmt: skip
    found = torch.where((number < 5)[:, None, None, None], moved, images)
    for place, each in enumerate(changed, start=5):
        found = torch.where((number == place)[:, None, None, None], each, found)
    return found


def shears_and_turns(number: Tensor, sign: Tensor, strength: float, height: int, width: int) -> tuple[Tensor, ...]:
    """The matrix of every image's shear, translation or rotation, six tensors (s,): the pixel (x, y), counted from the
    middle, is taken from (x * a + y * b + c, x * d + y * e + f), as in torchvision."""
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
    """Every image resampled by its own matrix (`shears_and_turns`), from the nearest pixel; grey comes in. Computed
    without matrix products, which TF32 would round."""
    height, width = images.shape[-2:]
    a, b, c, d, e, f = (each[:, None, None] for each in matrix)
    x = torch.arange(width, device=images.device) + (1 - width) / 2
    y = (torch.arange(height, device=images.device) + (1 - height) / 2)[:, None]
    grid = torch.stack([(x * a + y * b + c) / (width / 2), (x * d + y * e + f) / (height / 2)], dim=-1)
    there = torch.cat([images.float(), torch.ones_like(images[:, :1]).float()], dim=1)
    found = F.grid_sample(there, grid, mode="nearest", align_corners=False)
    return torch.where(found[:, -1:] < 0.5, 128.0, found[:, :-1]).to(torch.uint8)


def blended(images: Float[Tensor, "s c h w"], factor: Float[Tensor, "s 1 1 1"]) -> list[Images]:
    """Every image blended by its own factor with black, its grey image, its mean grey and its smoothed image:
    torchvision's brightness, saturation, contrast and sharpness."""
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
    """RandAugment's operations, by torchvision, at a strength from 0 to 1: (forth, back), or (change, None) for those
    without a direction."""
    from torchvision.transforms.v2 import functional as T

    def affine(images: Images, changes: dict[str, Any]) -> Images:
        plain = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], "fill": 128}
        return T.affine(images, **plain | changes)

    def both(change: Callable, most: float) -> tuple[Callable, Callable]:
        return partial(change, level=strength * most), partial(change, level=-strength * most)

    def shear(images: Images, axis: int, level: float) -> Images:
        angle = math.degrees(math.atan(level))
        return affine(images, {"shear": [0.0, angle] if axis else [angle, 0.0], "center": [0, 0]})

    def enhanced(change: Callable) -> Callable:
        return lambda images, level: change(images, 1 + level)

    bits = round(8 - 4 * strength)
    return [
        both(partial(shear, axis=0), 0.3), both(partial(shear, axis=1), 0.3),
        both(lambda images, level: affine(images, {"translate": [int(level), 0]}), 150 / 331 * width),
        both(lambda images, level: affine(images, {"translate": [0, int(level)]}), 150 / 331 * height),
        both(lambda images, level: T.rotate(images, level, fill=128), 30.0),
        both(enhanced(T.adjust_brightness), 0.9), both(enhanced(T.adjust_saturation), 0.9),
        both(enhanced(T.adjust_contrast), 0.9), both(enhanced(T.adjust_sharpness), 0.9),
        (lambda images: T.posterize(images, bits), None),
        (lambda images: T.solarize(images, 255 * (1 - strength)), None),
        (T.autocontrast, None), (T.equalize, None),
    ]  # fmt: skip


def where_chosen(change: Callable[[Tensor], Tensor], images: Tensor, chosen: Tensor) -> Tensor:
    """The images, of which the chosen ones, (s,) booleans, are changed; `change` is computed for these only."""
    numbers = chosen.nonzero()[:, 0]
    return images.index_copy(0, numbers, change(images[numbers])) if len(numbers) else images
