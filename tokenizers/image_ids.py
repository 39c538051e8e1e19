"""Images with few colours as ids: each patch is one of a fixed number of patterns. Such images can be generated."""

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
from .base import Example, Preprocessor, Role
from .chopping.ids import IdChopper, IdTokenizer
from .encoding.base import CodedVocabulary, Unit
from .image import ImageChopper, patches
from .media.augmentation import ImageAugmentation
from .media.files import picture_bytes
from .media.pixels import draw_patches
from .media.simple_features import small_picture
from .media.summaries import picture_sizes, span

MAX_PATTERNS = 2**16
"""The maximum number of different patches."""
MASK_GREY, ENLARGEMENT = 128, 8
"""For `PatchVocabulary.picture`: the grey value of a masked patch (0 to 255), and the factor by which pictures are
enlarged."""


@dataclass(frozen=True, kw_only=True)
class PatchVocabulary(CodedVocabulary):
    """The ids of all possible patches. `pictures` defines the sizes of images and patches. Each pixel of a patch has
    one of `levels` values. The pixels are the digits of the patch's id in base `levels`; the first pixel is the least
    significant digit. An image of 2 x 4 pixels in black and white, in patches of 2 x 2:

        . #   . .        pixels 0 1 0 0  and  0 0 1 1
        . .   # #        ids    2             12        and 16 starts and ends an image
    """

    kind: ClassVar[str] = "image"
    unit: ClassVar[Unit] = Unit("bits_per_dimension", "bits per dimension (pixel and channel)")
    endings: ClassVar[tuple[str, ...]] = (".png", ".gif")
    pictures: ImageChopper
    levels: int = 2

    @property
    def grid(self) -> tuple[int, int]:
        """The numbers of rows and columns of patches. Raises ValueError if images have no `size`."""
        if self.pictures.grid is None:
            raise ValueError("images of ids need a size")
        return self.pictures.grid

    @property
    def patch_size(self) -> int:
        return self.pictures.patch_size

    @property
    def pixels(self) -> int:
        """The number of values of a patch: its pixels times its channels."""
        return self.pictures.channels * self.patch_size**2

    @property
    def length(self) -> int:
        rows, columns = self.grid
        return rows * columns

    @property
    def patterns(self) -> int:
        """The number of possible patches. The ids of patches are below this number, the special ids follow."""
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
        """The factor of each value of a patch in the id, for example 1, 2, 4, 8."""
        return self.levels ** torch.arange(self.pixels)

    def encode(self, item: UInt8[Tensor, "c h w"]) -> list[int]:
        """Returns the ids of an image of any size, which is resized first."""
        rows, columns = self.grid
        item = self.pictures.resized(item, rows * self.patch_size, columns * self.patch_size)
        values = patches(item[None].long() * self.levels // 256, self.patch_size)
        return (values * self.digits).sum(1).tolist()

    def restore(self, ids: Iterable[int]) -> UInt8[Tensor, "c h w"]:
        """Returns the image of these ids, without special ids. Raises ValueError if the number of patches is not
        `length`, or if an id is outside the vocabulary."""
        patch_ids = torch.tensor([id for id in self.known(ids) if id < self.patterns], dtype=torch.long)
        if len(patch_ids) != self.length:
            raise ValueError(f"an image has {self.length} patches, not {len(patch_ids)}")
        values = patch_ids[:, None] // self.digits % self.levels * 255 / (self.levels - 1)
        pattern = "(row column) (c p q) -> c (row p) (column q)"
        sizes = {"row": self.grid[0], "c": self.pictures.channels, "p": self.patch_size, "q": self.patch_size}
        return rearrange(values.round().to(torch.uint8), pattern, **sizes)

    def picture(self, ids: Sequence[int], mask: int) -> UInt8[Tensor, "c h w"]:
        """Returns an enlarged image of ids, some of which may be the id `mask`. Masked patches are grey."""
        patch_ids = [id for id in ids if self.plain[id] or id == mask]
        masked = torch.tensor([id == mask for id in patch_ids]).view(*self.grid)
        image = self.restore([0 if id == mask else id for id in patch_ids])
        masked = masked.repeat_interleave(self.patch_size, 0).repeat_interleave(self.patch_size, 1)
        image = torch.where(masked, torch.tensor(MASK_GREY, dtype=torch.uint8), image)
        return image.repeat_interleave(ENLARGEMENT, 1).repeat_interleave(ENLARGEMENT, 2)

    def units(self, item: UInt8[Tensor, "c h w"]) -> float:
        """Returns the number of pixels of an image times its channels."""
        return self.length * self.pixels

    def content(self, item: UInt8[Tensor, "c h w"], ending: str) -> bytes:
        return picture_bytes(item, ending)


@dataclass(frozen=True, kw_only=True)
class ImageIdsPreprocessor(Preprocessor):
    """Resizes images to `size` pixels (`fit_size`, `interpolation` and `channels` as for the tokenizer `image`), rounds
    them down to `levels` values per channel, and cuts them into patches of `patch_size` x `patch_size` pixels. There
    are levels ** (channels * patch_size ** 2) ids, at most 65,536. During training `augment` changes images at random
    before they are resized and rounded, because a rotation of a small image in black and white would break thin lines.
    The `shift` of `augment` is in pixels of the original image."""

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
        count = self.levels ** min(self.channels * self.patch_size**2, 64)
        if count > MAX_PATTERNS:
            options = f"{self.levels} levels in patches of {self.patch_size} x {self.patch_size} x {self.channels}"
            solution = "use smaller patches or fewer levels"
            raise ValueError(f"{options} need {count:,} ids, more than {MAX_PATTERNS:,}; {solution}")
        self.pictures()

    def pictures(self) -> ImageChopper:
        """Returns the chopper that decodes and resizes images. Raises ValueError if that chopper does not allow the
        options."""
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
    """Converts images to the ids of their patches, left to right, top to bottom."""

    kind: ClassVar[str] = "image"
    vocabulary: PatchVocabulary = field()
    augmentation: ImageAugmentation | None = None

    def augment(self, item: UInt8[Tensor, "c h w"], random: np.random.Generator) -> UInt8[Tensor, "c h w"]:
        if self.augmentation is None:
            return item
        seeds = torch.tensor([int(random.integers(2**62))])
        return self.augmentation(item[None], seeds)[0].round().clamp(0, 255).to(torch.uint8)

    def decode(self, raw: Any) -> UInt8[Tensor, "c h w"]:
        """Returns the image in its original size, decoded by `ImageChopper.decode`."""
        return self.vocabulary.pictures.decode(raw)

    def summary(self, raws: Sequence[Any]) -> str:
        sizes, coloured = picture_sizes(raws)
        vocabulary = self.vocabulary
        height, width = (side * vocabulary.patch_size for side in vocabulary.grid)
        channels = vocabulary.pictures.channels
        lost = "; colour is discarded, see `channels`" if coloured and channels == 1 else ""
        result = f"{width} x {height} with {channels} channel{'s' * (channels > 1)} and {vocabulary.levels} levels"
        return f"{sizes}, resized to {result}, {span([vocabulary.length], 'tokens')}{lost}"

    def simple_features(self, item: UInt8[Tensor, "c h w"]) -> np.ndarray:
        return small_picture(item)

    def draw(self, canvas: Any, item: UInt8[Tensor, "c h w"]) -> None:
        """Draws the image with reduced colours, and the grid of its patches."""
        image = self.vocabulary.restore(self.vocabulary.encode(item))
        draw_patches(canvas, rearrange(image, "c height width -> height width c"), self.vocabulary.patch_size)


class ImageIdsTokenizer(IdTokenizer):
    """Maps ids of patches to vectors."""

    Chopper = ImageIdsPreprocessor


EXAMPLE = Example(
    options={"size": 4, "patch_size": 2, "channels": 1},
    items=lambda: [
        np.arange(64, dtype=np.uint8).reshape(8, 8, 1),
        255 - np.arange(64, dtype=np.uint8).reshape(8, 8, 1),
    ],
    generated=True,
)
