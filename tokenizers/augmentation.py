"""Declared augmentation: how images and spectrograms are changed at random while training, as whole batches on the device."""

from __future__ import annotations

import difflib
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

Images = UInt8[Tensor, "s channels height width"]


class ImageAugmentation(nn.Module):
    """Shift by up to `shift` pixels (black comes in), turn by up to `rotate` degrees and scale by up to `zoom`, mirror left
    and right (`flip`), torchvision's RandAugment with `operations` operations of strength `magnitude`
    (Cubuk et al. 2019, arXiv:1909.13719), and erase a rectangle of up to `erase` of the area with grey
    (Zhong et al. 2017, arXiv:1708.04896). `transforms` are any others of torchvision.transforms.v2 that keep an image's size,
    by name with their arguments: `[{use: ColorJitter, brightness: 0.4}, {use: RandomGrayscale, p: 0.1}]`."""

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
        self.shift, self.flip, self.rotate, self.zoom, self.erase = shift, flip, rotate, zoom, erase
        self.operations, self.magnitude = operations, magnitude
        self.transforms = [torchvision_transform(part) for part in transforms or ()]

    def forward(self, images: Images) -> Tensor:
        """Every image changed in its own way."""
        images = self.mirrored(images)
        if self.operations or self.transforms:
            images = self.by_torchvision(images)
        return self.moved(images)

    def clip(self, frames: Images) -> Tensor:
        """The frames of one clip, all changed in the same way."""
        frames = self.mirrored(as_one(frames)).view(frames.shape)
        if self.operations or self.transforms:
            frames = self.by_torchvision(frames, group=len(frames))
        return self.moved(as_one(frames)).reshape(frames.shape)

    def mirrored(self, images: Images) -> Images:
        if not self.flip:
            return images
        chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
        return torch.where(chosen, images.flip(-1), images)

    def moved(self, images: Images) -> Tensor:
        if self.rotate or self.zoom:
            images = turned(images, self.rotate, self.zoom)
        if self.shift:
            images = shifted(images, self.shift)
        return erased(images, self.erase) if self.erase else images

    def by_torchvision(self, images: Images, group: int = 8) -> Images:
        """torchvision's transforms draw once per call, so groups of images share what is drawn."""
        from torchvision.transforms.v2 import RandAugment

        changes = [RandAugment(self.operations, self.magnitude, fill=128)] if self.operations else []
        parts = []
        for part in images.split(group):
            for change in (*changes, *self.transforms):
                try:
                    changed = change(part)
                except (TypeError, ValueError, RuntimeError) as error:
                    name = type(change).__name__
                    raise ValueError(
                        f"augment.transforms: {name} does not take images of whole numbers (uint8): {error}"
                    ) from None
                if changed.shape != part.shape:
                    raise ValueError(
                        f"augment.transforms: {type(change).__name__} made images of {tuple(part.shape[1:])} into "
                        f"{tuple(changed.shape[1:])}; it must keep their size (give it size: {list(part.shape[2:])})"
                    )
                part = changed
            parts.append(part)
        return torch.cat(parts)


def as_one(frames: Tensor) -> Tensor:
    """Frames (t, channels, height, width) as one image of all their channels: what is drawn for it is theirs in common."""
    return frames.flatten(0, 1)[None]


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


def shifted(images: Tensor, most: int) -> Tensor:
    """Every image moved by its own random whole number of pixels, up to `most` each way."""
    s, _, height, width = images.shape
    padded = F.pad(images, (most, most, most, most))
    down, right = torch.randint(2 * most + 1, (2, s, 1), device=images.device)
    rows = down + torch.arange(height, device=images.device)
    columns = right + torch.arange(width, device=images.device)
    each = torch.arange(s, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def turned(images: Tensor, degrees: float, zoom: float) -> Tensor:
    """Every image turned by its own random angle and scaled by its own factor from 1 - zoom to 1 + zoom."""
    s = len(images)
    angle = (torch.rand(s, device=images.device) * 2 - 1) * degrees * torch.pi / 180
    scale = 1 + (torch.rand(s, device=images.device) * 2 - 1) * zoom
    cos, sin, zero = angle.cos() / scale, angle.sin() / scale, torch.zeros_like(angle)
    matrix = torch.stack([torch.stack([cos, -sin, zero], -1), torch.stack([sin, cos, zero], -1)], 1)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, align_corners=False)


def erased(images: Tensor, most: float) -> Tensor:
    """A random rectangle of up to `most` of each image's area made grey."""
    s, _, height, width = images.shape
    share = (torch.rand(s, device=images.device) * most).sqrt()
    top, left = torch.rand(2, s, device=images.device) * (1 - share)
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

    def forward(self, spectrogram: Float[Tensor, "f m"], lengths: list[int]) -> Float[Tensor, "f m"]:
        """`lengths` are the frames of each clip; the clips lie one after another."""
        device, bins = spectrogram.device, spectrogram.shape[1]
        length = torch.tensor(lengths, device=device)
        clip = torch.repeat_interleave(torch.arange(len(lengths), device=device), length, output_size=len(spectrogram))
        if self.warp:
            spectrogram = stretched(
                spectrogram, 1 + self.warp * (2 * torch.rand(len(lengths), device=device) - 1)[clip]
            )
        within = torch.arange(len(spectrogram), device=device) - (length.cumsum(0) - length)[clip]
        for _ in range(self.stripes):
            a = torch.rand(4, len(lengths), device=device)
            tall = a[0] * min(self.mels, bins)
            low = a[1] * (bins - tall)
            wide = a[2] * torch.minimum(torch.tensor(self.frames, device=device), length)
            first = a[3] * (length - wide)
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
