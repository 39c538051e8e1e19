"""Images as tokens: one einops pattern cuts images into square patches."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..files.reading import DataError
from ..models.batch import Chunks
from ..models.layers.positions import GridPosition, LearnedGrid
from .base import Chopper, Chunk, Example
from .media.augmentation import ImageAugmentation
from .media.files import picture_bytes, read_picture
from .media.jpeg_png import read_jpeg_png
from .media.pixels import Normalized, draw_patches
from .media.simple_features import small_picture
from .media.summaries import picture_sizes

Image = UInt8[Tensor, "channels height width"]

MAX_SIDE = 2**14
"""The maximum height and width of `size`, in pixels."""
BAND_PIXELS = 2**20
"""The number of pixels of a PIL image that are converted at once."""


@lru_cache(maxsize=64)
def grid_coordinates(rows: int, columns: int) -> Float[Tensor, "t 2"]:
    """Returns the row and the column of each patch, row by row. The result is shared and must not be changed."""
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()


@dataclass(frozen=True, kw_only=True)
class ImageChopper(Chopper):
    """Cuts an image into patches of `patch_size` x `patch_size` pixels, left to right, top to bottom.

    `size` (pixels; one number, or height and width; multiples of `patch_size`) is the shape to which every image is
    resized. `fit_size: resize` stretches the image to this shape. `fit_size: crop` keeps the aspect ratio, covers the
    shape and cuts off the excess. `fit_size: pad` keeps the aspect ratio, fits the image inside the shape and pads it
    with black. With `crop` below 1 (at least 0.01) the image is resized to `size / crop` first, then a centre of `size`
    pixels is kept; not allowed with `fit_size: pad`. Without `size` an image approximately keeps its aspect ratio:
    height and width are rounded down to multiples of `patch_size`, and an image with more than `most_tokens` patches is
    shrunk. `interpolation`: how pixels are resampled. `channels`: 1 for grey, 3 for colour.
    """

    kind: ClassVar[str] = "image"
    endings: ClassVar[tuple[str, ...]] = (".png", ".gif")
    axes: ClassVar[tuple[str, ...]] = ("row", "column")
    patch_size: int = 16
    channels: Literal[1, 3] = 3
    size: int | tuple[int, int] | None = None
    fit_size: Literal["resize", "crop", "pad"] = "resize"
    crop: float = 1.0
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    most_tokens: int = 256

    @classmethod
    def problems(cls, options):
        if options.get("augment") and options["size"] is None:
            message = "operates on batches of images of one shape: set 'size' too"
            yield ("augment",), f"{message} ('fit_size: pad' keeps the aspect ratio)"

    def __post_init__(self):
        if self.patch_size < 1 or self.most_tokens < 1:
            raise ValueError("patch_size and most_tokens must be at least 1")
        if not 0.01 <= self.crop <= 1 or (self.crop < 1 and (self.size is None or self.fit_size == "pad")):
            allowed = "from 0.01 to 1, and 1 without a size or with fit_size: pad"
            raise ValueError(f"crop must be {allowed}, not {self.crop}")
        if any(side % self.patch_size or side < 1 for side in self.shape or ()):
            raise ValueError(f"size {self.size} must be a multiple of patch_size ({self.patch_size})")
        if max(self.shape or (1,)) > MAX_SIDE:
            raise ValueError(f"size {self.size}: height and width must be at most {MAX_SIDE:,} pixels")

    @property
    def shape(self) -> tuple[int, int] | None:
        """The height and width of every image; None without `size`."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def grid(self) -> tuple[int, int] | None:
        """The numbers of rows and columns of patches; None without `size`."""
        return None if self.shape is None else (self.shape[0] // self.patch_size, self.shape[1] // self.patch_size)

    def decode(self, raw: Any) -> Image:
        """Returns the image as a uint8 tensor (channels, height, width). `raw` is a path, the bytes of a file, a PIL
        image, a uint8 array (height, width[, channels]) or a uint8 tensor (channels, height, width).

        Files are rotated according to their EXIF data. An animation is read as its first frame. In files and PIL images
        transparent pixels become white, and 16 bits become 8. Raises ValueError for floating-point pixels (their range
        is unknown), for arrays and tensors that are not uint8, for other numbers of channels than 1 and 3, and for
        values that are not images.
        """
        if isinstance(raw, Tensor):
            return self._channels(raw)
        if isinstance(raw, np.ndarray):
            if raw.ndim not in (2, 3) or not raw.size:
                expected = "(height, width) or (height, width, channels)"
                raise ValueError(f"an image must have the shape {expected}, not {raw.shape}")
            if raw.dtype != np.uint8:
                raise ValueError(f"an image must hold whole numbers from 0 to 255 (uint8), not {raw.dtype}")
            return self._channels(torch.from_numpy(np.ascontiguousarray(np.atleast_3d(raw))).permute(2, 0, 1))
        return self._read(raw)

    def summary(self, raws: Sequence[Any]) -> str:
        sizes, coloured = picture_sizes(raws)
        resized = "" if self.shape is None else f", resized to {self.shape[1]} x {self.shape[0]}"
        channels = f" with {self.channels} channel{'s' * (self.channels > 1)}"
        lost = "; colour is discarded, see `channels`" if coloured and self.channels == 1 else ""
        return f"{sizes}{resized}{channels}, {super().summary(raws)}{lost}"

    def _channels(self, image: Tensor) -> Image:
        """Returns the image with `channels` channels. Grey is repeated to three channels; colour becomes grey with the
        weights of ITU-R BT.601. Raises ValueError if the image is not uint8, or has other than 1 or 3 channels."""
        if image.dtype != torch.uint8:
            raise ValueError(f"an image must hold whole numbers from 0 to 255 (uint8), not {image.dtype}")
        if image.shape[0] == self.channels:
            return image
        if image.shape[0] == 1:
            return image.expand(3, -1, -1)
        if image.shape[0] == 3:
            grey = (image.float() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)
            return grey.round().to(torch.uint8)
        raise ValueError(f"the image has {image.shape[0]} channels; possible: 1 or 3")

    def _read(self, raw: Any) -> Image:
        """Returns the image of a path, the bytes of a file or a PIL image. Raises DataError if the image cannot be
        read.

        The image is converted in bands of `BAND_PIXELS`, because a conversion at once would need four times the memory
        of the image."""
        from PIL import Image

        if not isinstance(raw, bytes | str | os.PathLike | Image.Image):
            expected = "it must be a path or the bytes of a file"
            raise DataError(f"the image cannot be read: {expected}, not {type(raw).__name__}")
        if not isinstance(raw, Image.Image):
            pixels = read_jpeg_png(raw)
            if pixels is not None and (self.channels == 3 or len(pixels) == 1):
                return self._channels(pixels)
        picture = raw if isinstance(raw, Image.Image) else read_picture(raw)
        pixels = torch.empty(self.channels, picture.height, picture.width, dtype=torch.uint8)
        rows = max(1, BAND_PIXELS // max(picture.width, 1))
        try:
            for top in range(0, picture.height, rows):
                band = self._converted(picture.crop((0, top, picture.width, min(top + rows, picture.height))))
                pixels[:, top : top + rows] = torch.from_numpy(np.atleast_3d(np.array(band))).permute(2, 0, 1)
        except (OSError, ValueError, SyntaxError, MemoryError) as error:
            path = f"{os.fspath(raw)}: " if isinstance(raw, str | os.PathLike) else ""
            raise DataError(f"the image cannot be read: {path}{error}") from error
        return pixels

    def _converted(self, picture: Any) -> Any:
        """Returns the PIL image with 8 bits per channel, in grey or colour. Transparent pixels become white. Raises
        ValueError for floating-point pixels."""
        from PIL import Image

        if picture.mode.startswith("I"):
            values = np.asarray(picture).clip(0, 65535).astype(np.float64)
            picture = Image.fromarray((values / 257).astype(np.uint8))
        elif picture.mode == "F":
            raise ValueError("the image has floating-point pixels, whose range is unknown; convert it to 8 or 16 bits")
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return picture.convert("L" if self.channels == 1 else "RGB")

    def count(self, item: Image) -> int:
        rows, columns = self.grid or self._native(item)
        return rows * columns

    def _native(self, item: Image) -> tuple[int, int]:
        """Returns the numbers of rows and columns of patches without `size`: approximately in the aspect ratio of the
        image, at most `most_tokens` patches in total."""
        height, width = (max(side / self.patch_size, 1.0) for side in item.shape[-2:])
        shrink = min(1.0, math.sqrt(self.most_tokens / (height * width)))
        rows, columns = max(1, math.floor(height * shrink)), max(1, math.floor(width * shrink))
        return min(rows, self.most_tokens), min(columns, self.most_tokens // min(rows, self.most_tokens))

    def chop(self, item: Image) -> Chunk:
        """Returns the resized image (1, channels, height, width), with the row and column of each patch as
        coordinates."""
        rows, columns = self.grid or self._native(item)
        image = self.resized(item, rows * self.patch_size, columns * self.patch_size)
        return Chunk(image[None], rows * columns, grid_coordinates(rows, columns))

    def resized(self, item: Image, height: int, width: int) -> Tensor:
        """Returns the image, resized to `height` x `width` pixels according to `fit_size`, `crop` and
        `interpolation`."""
        if item.shape[-2:] == (height, width) and self.crop == 1:
            return item
        return self._fitted(item, height, width)

    def _fitted(self, item: Image, height: int, width: int) -> Tensor:
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as transform

        def resize(shape: list[int]) -> Tensor:
            return transform.resize(item, shape, interpolation=InterpolationMode(self.interpolation), antialias=True)

        outer = [math.floor(side / self.crop) for side in (height, width)]
        if self.fit_size == "resize" or self.size is None:
            return transform.center_crop(resize(outer), [height, width]) if self.crop < 1 else resize([height, width])
        sides = item.shape[-2:]
        if self.fit_size == "crop":  # very long images are cut first, so that the resized image does not become huge
            limits = [math.ceil(16 * sides[1] * outer[0] / outer[1]), math.ceil(16 * sides[0] * outer[1] / outer[0])]
            item = transform.center_crop(item, list(map(min, sides, limits)))
            sides = item.shape[-2:]
        ratios = [target / side for target, side in zip(outer, sides)]
        if self.fit_size == "pad":
            inner = [max(1, round(side * min(ratios))) for side in sides]
        elif ratios[0] >= ratios[1]:  # one side gets the target length, the other keeps the aspect ratio
            inner = [outer[0], max(outer[1], int(outer[0] * sides[1] / sides[0]))]
        else:
            inner = [max(outer[0], int(outer[1] * sides[0] / sides[1])), outer[1]]
        return transform.center_crop(resize(inner), [height, width])

    def simple_features(self, item: Image) -> np.ndarray:
        return small_picture(item)

    def content(self, item: Image, ending: str) -> bytes:
        return picture_bytes(item, ending)

    @property
    def slice_shape(self) -> tuple[int, int]:
        if self.grid is None:
            raise ValueError(
                "reconstruction needs the option 'size' of the image input, so that all images have the same number of "
                "patches"
            )
        return self.grid[0] * self.grid[1], self.channels * self.patch_size**2

    def slices(self, chunks: Chunks) -> Float[Tensor, "t p"]:
        """Returns the pixels of each patch, from -1 (black) to 1 (white)."""
        return patches(chunks.values, self.patch_size).float() / 127.5 - 1

    def with_slices(self, chunks: Chunks, slices: Float[Tensor, "t p"]) -> Chunks:
        return replace(chunks, values=(slices + 1) * 127.5)

    def joined(self, slices: Float[Tensor, "t p"]) -> Image:
        pattern = "(row column) (c p q) -> c (row p) (column q)"
        sizes = {"row": self.grid[0], "c": self.channels, "p": self.patch_size, "q": self.patch_size}
        return rearrange(((slices + 1) * 127.5).round().clamp(0, 255).to(torch.uint8), pattern, **sizes)

    def draw(self, canvas: Any, item: Image) -> None:
        """Draws the resized image and the grid of its patches."""
        (image,) = self.chop(item).values
        draw_patches(canvas, rearrange(image, "c height width -> height width c"), self.patch_size)

    def collate(self, chunks: Sequence[Chunk]) -> Tensor:
        """Returns one tensor: the images (s, channels, height, width) if all have the same shape, otherwise the patches
        of all images (t, p)."""
        images = [chunk.values for chunk in chunks]
        if len({image.shape for image in images}) == 1:
            return torch.cat(images)
        return torch.cat([patches(image, self.patch_size) for image in images])


def patches(images: Tensor, size: int) -> Tensor:
    """Returns the patches (t, channels * size * size) of images (s, channels, height, width): one row per patch, image
    by image.

    One grey image of 4 x 4 pixels in patches of 2:

        0  1 | 2  3
        4  5 | 6  7         the rows  0 1 4 5   2 3 6 7   8 9 c d   a b e f
        -----+-----
        8  9 | a  b
        c  d | e  f
    """
    return rearrange(images, "s c (row p) (column q) -> (s row column) (c p q)", p=size, q=size)


class ImageTokenizer(nn.Module):
    """Maps patches to vectors: one linear layer, plus an absolute position in the grid. `position`: the absolute
    position that is added to the vector of each token; null: none.

    `mean` and `std` (one number, or one per channel) normalise the pixels after their values are scaled to 0 to 1.
    `augment` changes images at random during training, on the device. Set `size`, because images are augmented only in
    batches in which all images have the same shape.
    """

    Chopper = ImageChopper

    def __init__(
        self, chopper: ImageChopper, width: int, context: int, *,
        position: Callable[..., GridPosition] | None = LearnedGrid,
        augment: Callable[[], ImageAugmentation] | None = None,
        mean: float | list[float] = 0.5, std: float | list[float] = 0.5,
    ):  # fmt: skip
        super().__init__()
        self.patch_size, self.augment = chopper.patch_size, augment() if augment else None
        self.embedding = nn.Linear(chopper.channels * chopper.patch_size**2, width)
        self.position = position(width, chopper.grid) if position else None
        self.normalized = Normalized(mean, std, chopper.channels, chopper.patch_size**2)

    def forward(self, chunks: Chunks) -> Float[Tensor, "t d"]:
        images = chunks.values
        if images.dim() == 4:
            if self.augment is not None and self.training:
                images = self.augment(images, chunks.seeds)
            images = patches(images, self.patch_size)
        tokens = self.embedding(self.normalized(images))
        return tokens if self.position is None else tokens + self.position(chunks.coordinates[:, :2])


EXAMPLE = Example(
    options={"patch_size": 4, "channels": 1, "size": 8},
    items=lambda: [
        np.arange(64, dtype=np.uint8).reshape(8, 8, 1),
        255 - np.arange(64, dtype=np.uint8).reshape(8, 8, 1),
    ],
)
