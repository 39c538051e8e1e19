"""RandAugment (Cubuk et al. 2019, arXiv:1909.13719) for batches: each image gets one of torchvision's operations.

On a CPU an operation is computed only for the images for which it is selected. On a GPU this selection would require a
synchronisation. Therefore all operations are computed for all images, and one result per image is kept. The CPU and the
GPU variant return the same pixels.
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
"""The largest magnitude of RandAugment, equal to torchvision's."""


def rand_augmented(images: Images, which: Float[Tensor, "s"], side: Float[Tensor, "s"], magnitude: int) -> Images:
    """Applies one RandAugment operation to every image. `which`, in [0, 1), selects one of 14 operations; the last
    operation is the identity. `side`, in [0, 1], selects the direction of an operation that has two directions (above
    0.5: forward). `magnitude` is from 0 to `STRONGEST`."""
    strength, (height, width) = magnitude / STRONGEST, images.shape[-2:]
    number = (which * 14).long()
    if images.is_cuda:
        return augmented_together(images, number, torch.where(side > 0.5, 1.0, -1.0), strength)
    for index, (forward, backward) in enumerate(operations(strength, height, width)):
        selected = number == index
        images = where_chosen(forward, images, selected if backward is None else selected & (side > 0.5))
        if backward is not None:
            images = where_chosen(backward, images, selected & (side <= 0.5))
    return images


def augmented_together(images: Images, number: Int[Tensor, "s"], sign: Float[Tensor, "s"], strength: float) -> Images:
    """The variant of `rand_augmented` for a GPU: computes all operations for all images, and returns for each image the
    result of operation `number`. Shears, translations and rotations are computed as one resampling with a matrix per
    image, and the four blends (brightness, saturation, contrast, sharpness) with a factor per image."""
    from torchvision.transforms.v2 import functional as T

    bits, (height, width) = round(8 - 4 * strength), images.shape[-2:]
    moved = resampled_by(images, *shears_and_turns(number, sign, strength, height, width))
    factor = (1 + 0.9 * strength * sign)[:, None, None, None]
    changed = [
        *blended(images.float(), factor), T.posterize_image(images, bits),
        T.solarize_image(images, 255 * (1 - strength)), T.autocontrast_image(images), T.equalize_image(images),
    ]  # fmt: skip
    result = torch.where((number < 5)[:, None, None, None], moved, images)
    for operation, candidate in enumerate(changed, start=5):
        result = torch.where((number == operation)[:, None, None, None], candidate, result)
    return result


def shears_and_turns(number: Tensor, sign: Tensor, strength: float, height: int, width: int) -> tuple[Tensor, ...]:
    """Returns the matrices of the shears, translations and rotations (operations 0 to 4) as six tensors a, b, c, d, e,
    f of shape (s,). The pixel (x, y), relative to the centre, gets the value at (x * a + y * b + c, x * d + y * e + f),
    like in torchvision. Other operations get the identity."""
    shear, angle = 0.3 * strength, math.radians(30.0 * strength)
    across, down = (int(150 / 331 * side * strength) for side in (width, height))
    zero = torch.zeros_like(sign)

    def select(*values: tuple[int, float]) -> Tensor:
        return sum((torch.where(number == operation, value * sign, zero) for operation, value in values), zero)

    diagonal = torch.where(number == 4, math.cos(angle), 1.0)
    x_row = diagonal, select((0, shear), (4, -math.sin(angle))), select((0, shear * height / 2), (2, -across))
    y_row = select((1, shear), (4, math.sin(angle))), diagonal, select((1, shear * width / 2), (3, -down))
    return *x_row, *y_row


def resampled_by(images: Images, *matrix: Float[Tensor, "s"]) -> Images:
    """Resamples every image by its matrix (see `shears_and_turns`) with the nearest pixel. Pixels whose source is
    outside the image become grey (128). No matrix products are used, because TF32 would round them."""
    height, width = images.shape[-2:]
    a, b, c, d, e, f = (entry[:, None, None] for entry in matrix)
    x = torch.arange(width, device=images.device) + (1 - width) / 2
    y = (torch.arange(height, device=images.device) + (1 - height) / 2)[:, None]
    grid = torch.stack([(x * a + y * b + c) / (width / 2), (x * d + y * e + f) / (height / 2)], dim=-1)
    with_mask = torch.cat([images.float(), torch.ones_like(images[:, :1]).float()], dim=1)  # 0 outside the image
    resampled = F.grid_sample(with_mask, grid, mode="nearest", align_corners=False)
    return torch.where(resampled[:, -1:] < 0.5, 128.0, resampled[:, :-1]).to(torch.uint8)


def blended(images: Float[Tensor, "s c h w"], factor: Float[Tensor, "s 1 1 1"]) -> list[Images]:
    """Returns four versions of the images, equal to torchvision's brightness, saturation, contrast and sharpness: every
    image is blended, by its factor, with black, with its grey version, with its mean grey value, and with its smoothed
    version."""
    grey = images
    if images.shape[1] == 3:
        red, green, blue = images.unbind(1)
        grey = (red * 0.2989 + green * 0.587 + blue * 0.114).floor()[:, None]
    rows = sum(images[..., offset : images.shape[-2] - 2 + offset, :] for offset in range(3))
    sums = sum(rows[..., offset : images.shape[-1] - 2 + offset] for offset in range(3))
    middle = images[..., 1:-1, 1:-1]
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = ((sums + 4 * middle) / 13).round()
    others = torch.zeros_like(images), grey, grey.mean((1, 2, 3), keepdim=True), smooth
    return [(images * factor + other * (1 - factor)).clamp(0, 255).to(torch.uint8) for other in others]


def operations(strength: float, height: int, width: int) -> list[tuple[Callable, Callable | None]]:
    """Returns torchvision's RandAugment operations with a strength from 0 to 1, without the identity. An operation with
    two directions is a pair (forward, backward), an operation without direction is (operation, None)."""
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
    """Returns the images; those with True in `chosen` (booleans (s,)) are replaced by the result of `change`, which is
    computed only for these images."""
    indices = chosen.nonzero()[:, 0]
    return images.index_copy(0, indices, change(images[indices])) if len(indices) else images
