"""Video as tokens: tubelets (patches over a few frames) with the coordinates seconds, row and column."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..files.reading import DataError, shown
from ..models.batch import Chunks
from ..models.layers.positions import AbsolutePosition, Learned
from .base import Chopper, Chunk, Example, readable
from .image import ImageChopper
from .media.augmentation import ImageAugmentation
from .media.clock import Clocked, clock_of, split_clock, timing_of, with_clock
from .media.files import array_of_file, as_tensor, read_animation
from .media.pixels import Normalized, draw_patches
from .media.summaries import picture_sizes, span

Frames = UInt8[Tensor, "_frames _channels _height _width"]


@dataclass(frozen=True, kw_only=True)
class VideoChopper(Chopper):
    """Cuts a video into tubelets of `frames` frames x `patch_size` x `patch_size` pixels (ViViT, Arnab et al. 2021,
    arXiv:2103.15691). Every frame is resized to `size` (pixels; one number, or height and width) according to
    `fit_size`, as for the tokenizer `image`. The last frame is repeated until the last tubelet is full. Only the first
    `longest` frames are read. The coordinate `seconds` of a token is the time of its last frame. The times of the
    frames are read from the data (`{"values": ..., "seconds": ...}`). If the data contains no times, there are `rate`
    frames per second, repeated frames included. `channels`: 1 for grey, 3 for colour.

    Three colour frames of 32 x 32 pixels, with default options:

        values       (8, 1536)      times x rows x columns, frames x channels x pixels
        coordinates  (8, 3)         (0.1, 0, 0) (0.1, 0, 1) (0.1, 1, 0) (0.1, 1, 1) (0.3, 0, 0) ...
    """

    axes: ClassVar[tuple[str, ...]] = ("seconds", "row", "column")
    size: int | tuple[int, int]
    patch_size: int = 16
    frames: int = 2
    channels: Literal[1, 3] = 3
    rate: float = 10.0
    longest: int = 64
    fit_size: Literal["resize", "crop", "pad"] = "resize"

    def __post_init__(self):
        if self.frames < 1 or self.longest < 1 or self.rate <= 0:
            raise ValueError("frames and longest must be at least 1, rate more than 0")
        assert self.image.grid is not None  # `self.image` raises ValueError if patch_size does not divide size

    @property
    def image(self) -> ImageChopper:
        """The chopper that decodes and resizes one frame. Raises ValueError if `patch_size` does not divide `size`."""
        return ImageChopper(patch_size=self.patch_size, channels=self.channels, size=self.size, fit_size=self.fit_size)

    def decode(self, raw: Any) -> Frames | Clocked:
        """Returns the frames (frames, channels, height, width), resized to `size`, with their times if `raw` contains
        times. `raw` is a uint8 array (frames, height, width[, channels]), a sequence of images, the path or the bytes
        of such an array (`.npy`) or of an animation (GIF, WebP, APNG), {"values": frames, "seconds": (frames,)}, or
        {"values": frames, "interval": 0.1}. Raises ValueError for any other value, if there are no frames, if frames
        differ in size or cannot be read, and in the cases of `with_clock`."""
        if isinstance(raw, Clocked):
            return raw
        raw, seconds = split_clock(raw)
        frames = self._frames(raw)
        if isinstance(seconds, float):  # an interval
            seconds = torch.arange(len(frames)) * seconds
        return with_clock(
            frames, None if seconds is None else as_tensor(seconds, "the clock").flatten()[: self.longest]
        )

    def _frames(self, raw: Any) -> Frames:
        """Returns the resized frames. Each frame is resized before the next frame is read, because frames can be
        large."""
        if isinstance(raw, Tensor):
            return raw[: self.longest]
        raw = array_of_file(raw, "the video")
        if isinstance(raw, bytes | str | os.PathLike):
            pictures: Iterable[Any] = read_animation(raw, self.longest)
        elif isinstance(raw, Sequence) or (isinstance(raw, np.ndarray) and raw.ndim > 2):
            pictures = raw[: self.longest]
        else:
            expected = "an array (frames, height, width[, channels]), a list of images or an animation"
            raise DataError(f"a video must be {expected}, not {shown(raw)}")
        image, sizes, frames = self.image, set(), []
        for picture in pictures:
            frame = image.decode(picture)
            sizes.add(frame.shape)
            frames.append(image.resized(frame, *image.shape))
        if not frames:
            raise ValueError("the video has no frames")
        if len(sizes) > 1:
            raise ValueError("the frames of a video must have the same size")
        return torch.stack(frames)

    def summary(self, raws: Sequence[Any]) -> str:
        clips = [clock_of(clip, self.rate)[0] for clip in readable(raws, self.decode, "video", "in the samples")]
        sizes, _ = picture_sizes([clip[0] for clip in clips])
        height, width = self.image.shape
        frames = span((len(clip) for clip in clips), "frame(s)")
        return f"{frames} of {sizes}, resized to {width} x {height}, {super().summary(raws)}"

    def count(self, item: Frames | Clocked) -> int:
        rows, columns = self.image.grid
        return -(-len(item) // self.frames) * rows * columns

    def chop(self, item: Frames | Clocked) -> Chunk:
        """Returns the tubelets (t, values), with the seconds, row and column of each tubelet as coordinates."""
        rows, columns = self.image.grid
        frames, seconds = clock_of(item, self.rate)
        frames = self.resized(frames)
        frames = torch.cat([frames, frames[-1:].expand(-len(frames) % self.frames, -1, -1, -1)])
        tubelets = self.cut(frames)
        ends = torch.arange(self.frames, len(frames) + 1, self.frames) - 1
        is_timed = timing_of(item)[1] is not None
        last = seconds[ends.clamp(max=len(seconds) - 1)] if is_timed else ends / self.rate
        grid = torch.cartesian_prod(last, torch.arange(rows).float(), torch.arange(columns).float())
        return Chunk(tubelets, len(tubelets), grid)

    def resized(self, frames: Frames) -> Frames:
        """Returns the frames, resized to `size` by `ImageChopper.resized`."""
        image = self.image
        return torch.stack([image.resized(frame, *image.shape) for frame in frames])

    def cut(self, frames: Tensor) -> Tensor:
        """Returns the tubelets (t, values) of frames (f, channels, height, width), ordered by time, row and column. f
        must be a multiple of `frames`."""
        pattern = "(t f) c (row p) (column q) -> (t row column) (f c p q)"
        return rearrange(frames, pattern, f=self.frames, p=self.patch_size, q=self.patch_size)

    def draw(self, canvas: Any, item: Frames | Clocked) -> None:
        """Draws the first frame of every tubelet, side by side, and the grid of patches."""
        frames = clock_of(item, self.rate)[0][:: self.frames]
        row = rearrange(self.resized(frames), "f c height width -> height (f width) c")
        draw_patches(canvas, row, self.patch_size, row.shape[1] // len(frames))


class VideoTokenizer(nn.Module):
    """Maps tubelets to vectors: one linear layer, plus an absolute position. `position`: the absolute position that is
    added to the vector of each token; null: none. The position depends on the index of the tubelet in its video.

    `mean` and `std` (one number, or one per channel) normalise the pixels after their values are scaled to 0 to 1.
    `augment` changes videos at random during training, on the device. All frames of a video are changed in the same
    way.
    """

    Chopper = VideoChopper

    def __init__(
        self, chopper: VideoChopper, width: int, context: int, *,
        position: Callable[..., AbsolutePosition] | None = Learned,
        augment: Callable[[], ImageAugmentation] | None = None,
        mean: float | list[float] = 0.5, std: float | list[float] = 0.5,
    ):  # fmt: skip
        super().__init__()
        self.chopper, self.augment = chopper, augment() if augment else None
        area = chopper.patch_size**2
        self.embedding = nn.Linear(chopper.frames * chopper.channels * area, width)
        self.position = position(width, context) if position else None
        self.normalized = Normalized(mean, std, chopper.channels, area, chopper.frames)

    def forward(self, chunks: Chunks) -> Float[Tensor, "t d"]:
        values = chunks.values
        if self.augment is not None and self.training:
            values = self.augmented(values, chunks)
        tokens = self.embedding(self.normalized(values))
        return tokens if self.position is None else tokens + self.position.of(chunks)

    def augmented(self, tubelets: Tensor, chunks: Chunks) -> Tensor:
        """Returns the augmented tubelets (t, values) of all videos: the frames are restored from the tubelets, changed
        at random with the seed of their video, and cut again."""
        chopper, (rows, columns) = self.chopper, self.chopper.image.grid
        frames = rearrange(
            tubelets, "(t row column) (f c p q) -> (t f) c (row p) (column q)", row=rows, column=columns,
            f=chopper.frames, c=chopper.channels, p=chopper.patch_size,
        )  # fmt: skip
        lengths = chunks.counts // (rows * columns) * chopper.frames
        seeds = torch.repeat_interleave(chunks.seeds, lengths, output_size=len(frames))
        return chopper.cut(self.augment(frames, seeds))


EXAMPLE = Example(
    options={"size": 8, "patch_size": 4, "channels": 1},
    items=lambda: [np.arange(192, dtype=np.uint8).reshape(3, 8, 8, 1) ^ bits for bits in (0, 255)],
)
