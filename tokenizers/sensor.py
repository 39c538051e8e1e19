"""Sensors: windows of a stream of measurements, whose channels the YAML describes, become tokens with a time in
seconds."""

from __future__ import annotations

import csv
import io
import math
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import FiniteFloat, RootModel
from torch import Tensor, nn

from ..files.reading import ITEM, DataError, read_bytes, text_lines
from ..files.records import VALUES, as_numbers, read_array, read_record
from ..files.writing import write_json
from ..models.batch import Chunks
from ..models.layers.norms import Norm
from ..models.layers.positions import AbsolutePosition, Learned
from .base import Chopper, Chunk, Role, readable
from .media.clock import Clocked, Stream, clock_of, split_clock, with_clock
from .media.files import as_tensor
from .media.summaries import span

CLOCK = "seconds"
"""The column of a CSV that is its clock."""
Scales = RootModel[tuple[tuple[FiniteFloat, ...], tuple[FiniteFloat, ...]]]
"""The assets file `channels.json`: the means of all channels, then their scales, [[0.5, 2.0], [1.0, 3.0]]."""
LARGEST = 2**16
"""The most numbers of a token."""


@dataclass(frozen=True, kw_only=True)
class SensorChopper(Chopper):
    """A stream (times, channels) to windows of `window` measurements each, taken `rate` times a second, the first at 0
    seconds, or when its own clock says. A token's coordinate is the time of its window's last measurement.

    `channels` names the columns, each with its unit or null (`{speed: m/s, lane: null}`), or is their number, which
    names them 0, 1, ... `categories` gives the number of categories of the channels that hold whole numbers from 0 on:
    `{gear: 6}` holds 0 to 5. The other channels are normalised: less their `mean`, over their `scale`, both by channel
    (`{speed: 12.5}`) or a number for all, by default mean and std of the training data. NaN is a missing value: the
    model sees it as "missing", never as zero.

    Five measurements of three channels, 10 a second, in windows of 2:

        values       (3, 6)            a row: channels 0, 1, 2 of the first measurement, then of the second
        coordinates  0.1  0.3  0.5     the last window's second measurement is missing
    """

    axes: ClassVar[tuple[str, ...]] = ("seconds",)
    channels: dict[str, str | None] | int
    rate: float = 1.0
    window: int = 1
    categories: dict[str, int] | None = None
    mean: dict[str, float] | float | None = None
    scale: dict[str, float] | float | None = None

    def __post_init__(self):
        if not self.channels or (isinstance(self.channels, int) and self.channels < 1):
            raise ValueError("channels must name at least one")
        count = self.channels if isinstance(self.channels, int) else len(self.channels)
        if count * self.window > LARGEST:
            told = f"{count:,} channels in a window of {self.window:,}"
            raise ValueError(f"{told}: a token holds {LARGEST:,} numbers at most")
        if self.rate <= 0 or self.window < 1:
            raise ValueError(f"rate must be more than 0 and window at least 1, not {self.rate} and {self.window}")
        given = {
            "categories": self.categories or {},
            "mean": self.by_channel("mean"),
            "scale": self.by_channel("scale"),
        }
        names = dict.fromkeys(self.names)
        for option, values in given.items():
            for name in values:
                if name not in names:
                    raise ValueError(f"{option}: no channel is named {name!r}; possible: {', '.join(names)}")
        for name, value in given["scale"].items():
            if value <= 0:
                raise ValueError(f"scale: that of {name!r} must be more than 0, not {value}")

    @property
    def names(self) -> list[str]:
        """The channels' names, in the order of the columns."""
        return [str(n) for n in range(self.channels)] if isinstance(self.channels, int) else list(self.channels)

    def by_channel(self, option: Literal["mean", "scale"]) -> dict[str, float]:
        """The `mean` or the `scale` of the channels for which there is one."""
        given = getattr(self, option)
        return dict.fromkeys(self.names, given) if isinstance(given, int | float) else given or {}

    def decode(self, raw: Any) -> Stream:
        """The stream of a number, of an array (times, channels) or (times,), of {"values": such an array, "seconds":
        (times,)}, of a text that holds a number or a list, or of the path or the bytes of a file: NumPy's `.npy`, or
        CSV, whose header names a column per channel, in any order and beside others; a column `seconds` that is no
        channel is its clock. Empty fields and infinite values are missing values. Raises DataError for anything else,
        for a category that is not there, and for a clock that does not rise."""
        raw = as_numbers(raw)
        if isinstance(raw, str | os.PathLike):
            content = read_bytes(raw, ITEM)
            try:
                return self.decode(content)
            except DataError as error:
                raise DataError(f"{os.fspath(raw)}{', ' if str(error).startswith('line ') else ': '}{error}") from None
        if isinstance(raw, bytes):
            raw, seconds = (read_array(raw, "it"), None) if raw.startswith(b"\x93NUMPY") else self._read(raw)
        else:
            raw, seconds = split_clock(raw)
        values = as_tensor(raw, "the stream")
        values = values.reshape(-1, 1) if values.dim() < 2 else values
        if values.dim() != 2 or values.shape[1] != len(self.names):
            expected = f"a stream of {len(self.names)} channels ({', '.join(self.names)})"
            raise DataError(f"{expected} is expected, not of shape {tuple(values.shape)}")
        if not len(values):
            raise DataError("the stream has no measurements")
        for name, count in (self.categories or {}).items():
            column = values[:, self.names.index(name)]
            if not (column.isnan() | ((column >= 0) & (column < count) & (column == column.round()))).all():
                raise DataError(f"channel {name!r} must hold whole numbers from 0 to {count - 1}")
        return with_clock(values.masked_fill(values.isinf(), math.nan), seconds)

    def summary(self, raws: Sequence[Any]) -> str:
        streams = list(readable(raws, self.decode, "stream", "in the samples"))
        values = torch.cat([clock_of(stream, self.rate)[0] for stream in streams])
        missing = f", {values.isnan().float().mean():.1%} of the values are missing" * bool(values.isnan().any())
        measured = span((len(stream) for stream in streams), "measurement(s)")
        tokens = span((self.count(stream) for stream in streams), "token(s)")
        return f"{measured} of {len(self.names)} channel(s), normalised by mean and std, {tokens}{missing}"

    def _read(self, raw: bytes) -> tuple[np.ndarray, np.ndarray | None]:
        """The measurements (times, channels) of a CSV, and its clock where it has one."""
        reader = csv.reader(text_lines(io.BytesIO(raw), "", keepends=False))
        try:
            header = next(reader, [])
            if missing := [name for name in self.names if name not in header]:
                raise DataError(f"no column {missing[0]!r}; the columns are {', '.join(header) or 'none'}")
            clock = CLOCK in header and CLOCK not in self.names
            columns, found = [header.index(name) for name in (*self.names, *([CLOCK] if clock else []))], array("d")
            for number, line in enumerate(reader, start=2):
                if len(line) != len(header):
                    raise DataError(f"line {number} has {len(line)} columns, the header {len(header)}")
                try:
                    found.extend(float(line[column]) if line[column].strip() else math.nan for column in columns)
                except ValueError:
                    raise DataError(f"line {number} holds something that is no number") from None
                if len(found) > VALUES:
                    raise DataError(f"it holds more than {VALUES:,} numbers")
        except csv.Error as error:
            raise DataError(f"it is no CSV: {error}") from None
        rows = np.frombuffer(found).reshape(-1, len(columns))
        return (rows[:, :-1], rows[:, -1]) if clock else (rows, None)

    def fit(self, items: Callable[[], Iterable], role: Role) -> SensorChopper:
        """The chopper with mean and std of the training streams where no `mean` or `scale` is given, without missing
        values and streams that cannot be read. Raises ValueError where no stream can be read, or a channel has no
        value. Where all have both, no stream is read."""
        if all(self.by_channel(option).keys() >= {*self.names} for option in ("mean", "scale")):
            return self
        count, total, squares = (torch.zeros(len(self.names), dtype=torch.float64) for _ in range(3))
        for stream in readable(items(), self.decode, "stream", "in the training data"):
            values = clock_of(stream, self.rate)[0].double()
            count += (~values.isnan()).sum(0)
            total += values.nan_to_num().sum(0)
            squares += values.nan_to_num().square().sum(0)
        if empty := [name for name, number in zip(self.names, count.tolist()) if not number]:
            raise ValueError(f"channel {empty[0]!r} has no value in the training data")
        mean = total / count
        std = (squares / count - mean**2).clamp(min=0).sqrt()
        std = torch.where(std > 1e-8, std, torch.ones_like(std))
        mean, std = (dict(zip(self.names, values.tolist())) for values in (mean, std))
        return replace(self, mean=mean | self.by_channel("mean"), scale=std | self.by_channel("scale"))

    def save(self, folder: Path) -> None:
        write_json(folder / "channels.json", self._normalisation)

    def load(self, folder: Path, role: Role) -> SensorChopper:
        file = folder / "channels.json"
        mean, std = read_record(file, Scales).root
        if not len(mean) == len(std) == len(self.names):
            held = f"{len(mean)} and {len(std)} numbers"
            raise DataError(f"{file}: it holds {held}, but there are {len(self.names)} channels")
        return replace(self, mean=dict(zip(self.names, mean)), scale=dict(zip(self.names, std)))

    @property
    def _normalisation(self) -> tuple[list[float], list[float]]:
        """The mean and the scale of every channel, in the order of the columns; 0 and 1 where they are not known."""
        mean, scale = self.by_channel("mean"), self.by_channel("scale")
        return [mean.get(name, 0.0) for name in self.names], [scale.get(name, 1.0) for name in self.names]

    def count(self, item: Stream) -> int:
        return math.ceil(len(item) / self.window)

    def chop(self, item: Stream) -> Chunk:
        """Windows (t, window * channels), normalised; a last window that is not full is filled with NaN."""
        count = self.count(item)
        mean, std = map(torch.tensor, self._normalisation)
        kept = torch.tensor([name in (self.categories or {}) for name in self.names])
        filled = torch.full((count * self.window, len(self.names)), math.nan)
        values, seconds = clock_of(item, self.rate)
        filled[: len(item)] = torch.where(kept, values, (values - mean) / std)
        last = torch.arange(1, count + 1) * self.window - 1
        times = seconds[last.clamp(max=len(item) - 1)] if isinstance(item, Clocked) else last.float() / self.rate
        return Chunk(rearrange(filled, "(t w) c -> t (w c)", w=self.window), count, times[:, None])

    @property
    def numbers(self) -> tuple[str, ...]:
        if self.categories:
            return ()
        return tuple(
            f"{name}" if self.window == 1 else f"{name}_{w}" for w in range(self.window) for name in self.names
        )

    def measured(self, values: Float[Tensor, "t p"]) -> Float[Tensor, "t p"]:
        mean, std = (torch.tensor(each, device=values.device).repeat(self.window) for each in self._normalisation)
        return values * std + mean

    def draw(self, canvas: Any, item: Stream) -> None:
        """Every channel over the seconds, and where the windows begin; more than 12 channels as an image; a single
        measurement as a line over its channels."""
        values, seconds = clock_of(item, self.rate)
        if len(item) == 1 and len(self.names) > 1:
            canvas.plot(values[0].numpy(), marker=".")
            canvas.set(xlabel="channel", ylabel="value")
            return
        if len(self.names) > 12:
            extent = (float(seconds[0]), float(seconds[-1]) + 1 / self.rate, 0, len(self.names))
            canvas.imshow(values.T.numpy(), aspect="auto", origin="lower", extent=extent)
            canvas.set(xlabel="seconds", ylabel="channel")
            return
        for name, column in zip(self.names, values.T):
            unit = self.channels.get(name) if isinstance(self.channels, dict) else None
            canvas.plot(seconds.numpy(), column.numpy(), marker=".", label=f"{name} ({unit})" if unit else name)
        for first in seconds[:: self.window].tolist():
            canvas.axvline(first, color="gray", linewidth=0.5)
        canvas.set(xlabel="seconds")
        canvas.legend(fontsize=7)


class SensorTokenizer(nn.Module):
    """Windows to vectors: the sum of a linear map of the numbers, a learned vector for each missing value and one for
    each category, all by channel and place in the window; plus an absolute position where `position` is not null, and
    normalised by `norm`."""

    Chopper = SensorChopper

    def __init__(
        self, chopper: SensorChopper, width: int, context: int, *,
        position: Callable[..., AbsolutePosition] | None = Learned, norm: Callable[[int], Norm] | None = None,
    ):  # fmt: skip
        super().__init__()
        categories, names = chopper.categories or {}, chopper.names
        self.channels, self.window = len(names), chopper.window
        self.numbers = [index for index, name in enumerate(names) if name not in categories]
        self.kinds = [names.index(name) for name in categories]
        self.embedding = nn.Linear(max(len(self.numbers), 1) * chopper.window, width)
        self.missing = nn.Linear(self.channels * chopper.window, width, bias=False)
        self.tables = nn.ModuleList(nn.Embedding(count * chopper.window, width) for count in categories.values())
        self.position = position(width, context) if position else None
        self.norm = norm(width) if norm else nn.Identity()

    def forward(self, chunks: Chunks) -> Float[Tensor, "t d"]:
        values, missing = chunks.values.nan_to_num(), chunks.values.isnan()
        each = rearrange(values, "t (w c) -> t w c", c=self.channels)
        numbers = each[:, :, self.numbers] if self.numbers else torch.zeros_like(each[:, :, :1])
        tokens = self.missing(missing.to(values.dtype)) + self.embedding(rearrange(numbers, "t w c -> t (w c)"))
        absent = rearrange(missing, "t (w c) -> t w c", c=self.channels)
        for table, channel in zip(self.tables, self.kinds):
            count = table.num_embeddings // self.window
            ids = each[:, :, channel].long() + torch.arange(self.window, device=values.device) * count
            tokens = tokens + (table(ids) * ~absent[:, :, channel, None]).sum(1)
        return self.norm(tokens if self.position is None else tokens + self.position.of(chunks))
