"""Images of few colours as ids: each patch is one of a fixed number of patterns, so that pictures can be generated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from ..models.generation.constraints import Constraint, Length
from .base import Preprocessor, Role
from .chopping.ids import IdChopper, IdTokenizer
from .encoding.base import CodedVocabulary, Unit
from .image import ImageChopper, patches
from .media.augmentation import ImageAugmentation
from .media.files import picture_bytes
from .media.pixels import draw_patches
from .media.summaries import picture_sizes, span

MOST = 2**16
"""The most patterns of a patch."""
GREY, ENLARGED = 128, 8
"""In pictures of drafts: the colour of a masked patch, and how many times a pixel is enlarged."""


@dataclass(frozen=True, kw_only=True)
class PatchVocabulary(CodedVocabulary):
    """The patterns of a patch, in pictures as `pictures` makes them. The id is the number whose digits, of `levels`
    values each, are the patch's pixels, the first one least. Of 2 x 2 patches in black and white:

        . #   . .        pixels 0 1 0 0  and  0 0 1 1  of a picture of 2 x 4 pixels
        . .   # #        ids    2             12        and 16 starts and ends a picture
    """

    kind: ClassVar[str] = "image"
    unit: ClassVar[Unit] = Unit("bits_per_dimension", "bits per dimension (pixel and channel)")
    endings: ClassVar[tuple[str, ...]] = (".png", ".gif")
    pictures: ImageChopper
    levels: int = 2

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        if self.pictures.grid is None:
            raise ValueError("pictures of ids need a size")
        return self.pictures.grid

    @property
    def patch_size(self) -> int:
        return self.pictures.patch_size

    @property
    def pixels(self) -> int:
        """How many values a patch has: pixels, times channels."""
        return self.pictures.channels * self.patch_size**2

    @property
    def length(self) -> int:
        rows, columns = self.grid
        return rows * columns

    @property
    def patterns(self) -> int:
        """How many patterns a patch may have: the ids below the special ones."""
        return self.levels**self.pixels

    @property
    def start(self) -> int:
        return self.patterns

    @property
    def title(self) -> str:
        return f"the vocabulary of patches of {self.patch_size} x {self.patch_size} pixels"

    @property
    def well_formed(self) -> Constraint:
        return Length(self.length, (self.end,), tuple(self.roles.values()))

    @property
    def digits(self) -> Tensor:
        """By which number each pixel of a patch is multiplied in its id: 1, 2, 4, 8."""
        return self.levels ** torch.arange(self.pixels)

    def encode(self, item: UInt8[Tensor, "c h w"]) -> list[int]:
        """The ids of a picture of any size, which is resized."""
        rows, columns = self.grid
        item = self.pictures.resized(item, rows * self.patch_size, columns * self.patch_size)
        values = patches(item[None].long() * self.levels // 256, self.patch_size)
        return (values * self.digits).sum(1).tolist()

    def restore(self, ids: Iterable[int]) -> UInt8[Tensor, "c h w"]:
        """The picture. Raises ValueError for ids of another number of patches."""
        plain = torch.tensor([id for id in self.known(ids) if id < self.patterns], dtype=torch.long)
        if len(plain) != self.length:
            raise ValueError(f"a picture has {self.length} patches, not {len(plain)}")
        values = plain[:, None] // self.digits % self.levels * 255 / (self.levels - 1)
        pattern = "(row column) (c p q) -> c (row p) (column q)"
        sizes = {"row": self.grid[0], "c": self.pictures.channels, "p": self.patch_size, "q": self.patch_size}
        return rearrange(values.round().to(torch.uint8), pattern, **sizes)

    def picture(self, ids: Sequence[int], mask: int) -> UInt8[Tensor, "c h w"]:
        """The picture, grey where patches are masked, in enlarged pixels."""
        plain = [id for id in ids if self.plain[id] or id == mask]
        hidden = torch.tensor([id == mask for id in plain]).view(*self.grid)
        found = self.restore([0 if id == mask else id for id in plain])
        covered = hidden.repeat_interleave(self.patch_size, 0).repeat_interleave(self.patch_size, 1)
        found = torch.where(covered, torch.tensor(GREY, dtype=torch.uint8), found)
        return found.repeat_interleave(ENLARGED, 1).repeat_interleave(ENLARGED, 2)

    def units(self, item: UInt8[Tensor, "c h w"]) -> float:
        """Its pixels, times its channels."""
        return self.length * self.pixels

    def content(self, item: UInt8[Tensor, "c h w"], ending: str) -> bytes:
        return picture_bytes(item, ending)


@dataclass(frozen=True, kw_only=True)
class ImageIdsPreprocessor(Preprocessor):
    """Images brought to `size` pixels (see the tokenizer `image` for `fit_size`, `interpolation`, `channels`), rounded
    down to `levels` values per channel, and cut into patches of `patch_size` pixels a side, each of which is one of
    levels ** (channels * patch_size ** 2) ids; at most 65,536. `augment` changes the images at random while training,
    before they are resized (`shift` counts pixels of theirs) and their levels reduced: of small pictures in black and
    white, thin lines would break."""

    kind: ClassVar[str] = "image"
    learns: ClassVar[bool] = False
    size: int | tuple[int, int]
    patch_size: int = 2
    channels: Literal[1, 3] = 1
    levels: int = 2
    fit_size: Literal["resize", "crop", "pad"] = "resize"
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    augment: Callable[[], ImageAugmentation] | None = None

    def __post_init__(self):
        if not 2 <= self.levels <= 16:
            raise ValueError(f"levels must be from 2 to 16, not {self.levels}")
        many = self.levels ** min(self.channels * self.patch_size**2, 64)
        if many > MOST:
            what = f"{self.levels} levels in patches of {self.patch_size} x {self.patch_size} x {self.channels}"
            raise ValueError(f"{what} make {many:,} ids, more than {MOST:,}; take smaller patches or fewer levels")
        self.pictures()

    def pictures(self) -> ImageChopper:
        """The chopper that decodes and resizes. Raises ValueError for options that it refuses."""
        return ImageChopper(
            size=self.size, patch_size=self.patch_size, channels=self.channels, fit_size=self.fit_size,
            interpolation=self.interpolation,
        )  # fmt: skip

    def fit(self, items: Callable[[], Iterable[Any]], role: Role) -> ImageIdsChopper:
        vocabulary = PatchVocabulary(pictures=self.pictures(), levels=self.levels, own=role.special_ids)
        augmentation = self.augment() if self.augment else None
        return ImageIdsChopper(vocabulary=vocabulary, generated=role.generated, augmentation=augmentation)

    def load(self, folder: Path, role: Role) -> ImageIdsChopper:
        return self.fit(tuple, role)


@dataclass(frozen=True, kw_only=True)
class ImageIdsChopper(IdChopper):
    """Images to the ids of their patches, left to right, top to bottom."""

    kind: ClassVar[str] = "image"
    vocabulary: PatchVocabulary = field()
    augmentation: ImageAugmentation | None = None

    def augment(self, item: UInt8[Tensor, "c h w"], random: np.random.Generator) -> UInt8[Tensor, "c h w"]:
        if self.augmentation is None:
            return item
        seeds = torch.tensor([int(random.integers(2**62))])
        return self.augmentation(item[None], seeds)[0].round().clamp(0, 255).to(torch.uint8)

    def decode(self, raw: Any) -> UInt8[Tensor, "c h w"]:
        """The image as the tokenizer `image` decodes it, of its own size."""
        return self.vocabulary.pictures.decode(raw)

    def summary(self, raws: Sequence[Any]) -> str:
        sizes, coloured = picture_sizes(raws)
        known = self.vocabulary
        height, width = (side * known.patch_size for side in known.grid)
        channels = known.pictures.channels
        lost = "; colour is discarded, see `channels`" if coloured and channels == 1 else ""
        became = f"{width} x {height} with {channels} channel{'s' * (channels > 1)} and {known.levels} levels"
        return f"{sizes}, resized to {became}, {span([known.length], 'tokens')}{lost}"

    def draw(self, canvas: Any, item: UInt8[Tensor, "c h w"]) -> None:
        """The image in its few colours, and the grid of its patches."""
        image = self.vocabulary.restore(self.vocabulary.encode(item))
        draw_patches(canvas, rearrange(image, "c height width -> height width c"), self.vocabulary.patch_size)


class ImageIdsTokenizer(IdTokenizer):
    """Ids of patches to vectors."""

    Chopper = ImageIdsPreprocessor
