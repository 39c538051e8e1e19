"""Sensor data as tokens: a stream of measurements is cut into windows, and every token has a time in seconds."""

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
from .base import Chopper, Chunk, Example, Role, readable
from .media.clock import Clocked, Stream, clock_of, split_clock, with_clock
from .media.files import as_tensor
from .media.relative import relative
from .media.summaries import span

CLOCK = "seconds"
"""The name of the CSV column with the time of each measurement in seconds."""
Scales = RootModel[tuple[tuple[FiniteFloat, ...], tuple[FiniteFloat, ...]]]
"""The assets file `channels.json`: the means of all channels, then their scales, [[0.5, 2.0], [1.0, 3.0]]."""
MAX_NUMBERS = 2**16
"""The maximum number of values per token (channels times `window`)."""


@dataclass(frozen=True, kw_only=True)
class SensorChopper(Chopper):
    """Cuts a stream (times, channels) into windows of `window` measurements. Each window becomes one token, whose
    coordinate is the time of its last measurement. The times are read from the data (`seconds`). If the data contains
    no times, there are `rate` measurements per second, the first at 0 seconds.

    `channels` maps the name of each column to its unit or null (`{speed: m/s, lane: null}`), or is the number of
    columns, which are then named 0, 1, ... `categories` maps the names of channels that contain categories to the
    number of categories: with `{gear: 6}` the channel `gear` contains whole numbers from 0 to 5. All other channels are
    normalised: `mean` is subtracted, then the result is divided by `scale`. `mean` and `scale` are numbers by channel
    name (`{speed: 12.5}`), or one number for all channels. The defaults are mean and std of the training data. NaN
    means that a value is missing. A learned vector represents a missing value.

    With `relative`, the model reads numbers without the level and the scale of their stream: differences from the last
    measurement of the stream or, with a `period` (24 for hourly measurements of a day), from the measurement one period
    before, divided by their root mean square in the stream. What the model learns from one range of values then holds
    for others. Every token depends on the whole stream, so the option is not possible with `causal(seconds)`.

    Five measurements of three channels, 10 per second, in windows of 2:

        values       (3, 6)            a row: channels 0, 1, 2 of the first measurement, then of the second
        coordinates  0.1  0.3  0.5     the last window is padded: it contains only the fifth measurement
    """

    axes: ClassVar[tuple[str, ...]] = ("seconds",)
    channels: dict[str, str | None] | int
    rate: float = 1.0
    window: int = 1
    categories: dict[str, int] | None = None
    mean: dict[str, float] | float | None = None
    scale: dict[str, float] | float | None = None
    period: int | None = None
    relative: bool = False

    def __post_init__(self):
        if not self.channels or (isinstance(self.channels, int) and self.channels < 1):
            raise ValueError("channels must contain at least one channel")
        count = self.channels if isinstance(self.channels, int) else len(self.channels)
        if count * self.window > MAX_NUMBERS:
            sizes = f"{count:,} times {self.window:,}"
            raise ValueError(f"the number of channels times window must be at most {MAX_NUMBERS:,}, not {sizes}")
        if self.rate <= 0 or self.window < 1:
            raise ValueError(f"rate must be more than 0 and window at least 1, not {self.rate} and {self.window}")
        if self.period is not None and self.period < 1:
            raise ValueError(f"period must be at least 1 measurement, not {self.period}")
        options = {
            "categories": self.categories or {},
            "mean": self.by_channel("mean"),
            "scale": self.by_channel("scale"),
        }
        names = dict.fromkeys(self.names)
        for option, values in options.items():
            for name in values:
                if name not in names:
                    raise ValueError(f"{option}: there is no channel {name!r}; possible: {', '.join(names)}")
        for name, value in options["scale"].items():
            if value <= 0:
                raise ValueError(f"scale: {name!r} must be more than 0, not {value}")

    @property
    def names(self) -> list[str]:
        """The names of the channels, in the order of the columns."""
        return [str(n) for n in range(self.channels)] if isinstance(self.channels, int) else list(self.channels)

    @property
    def needs_whole(self) -> bool:
        return self.relative

    def by_channel(self, option: Literal["mean", "scale"]) -> dict[str, float]:
        """Returns the `mean` or the `scale` by channel name, without the channels for which the option is not set."""
        setting = getattr(self, option)
        return dict.fromkeys(self.names, setting) if isinstance(setting, int | float) else setting or {}

    def decode(self, raw: Any) -> Stream:
        """Returns the stream (times, channels), with its times if `raw` contains times. `raw` is a number, an array
        (times, channels) or (times,), {"values": array, "seconds": (times,)}, a text that contains a number or a list,
        or the path or the bytes of a file (NumPy's `.npy`, or CSV). The header of a CSV names a column for each
        channel, in any order. A column `seconds` contains the times, unless it is a channel. Other columns are ignored.
        Empty fields and infinite values become NaN. Raises DataError for any other value, without measurements, for a
        category out of range, and in the cases of `with_clock`."""
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
            expected = f"(times, {len(self.names)}), with the channels {', '.join(self.names)}"
            raise DataError(f"the stream must have the shape {expected}, not {tuple(values.shape)}")
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
        lengths = span((len(stream) for stream in streams), "measurement(s)")
        tokens = span((self.count(stream) for stream in streams), "token(s)")
        return f"{lengths} of {len(self.names)} channel(s), normalised by mean and std, {tokens}{missing}"

    def _read(self, raw: bytes) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns (measurements, seconds) of a CSV file: arrays (times, channels) and (times,). `seconds` is None if
        the file has no column `seconds`, or if this column is a channel."""
        reader = csv.reader(text_lines(io.BytesIO(raw), "", keepends=False))
        try:
            header = next(reader, [])
            if missing := [name for name in self.names if name not in header]:
                raise DataError(f"no column {missing[0]!r}; the columns are {', '.join(header) or 'none'}")
            has_clock = CLOCK in header and CLOCK not in self.names
            columns = [header.index(name) for name in (*self.names, *([CLOCK] if has_clock else []))]
            numbers = array("d")
            for number, line in enumerate(reader, start=2):
                if len(line) != len(header):
                    raise DataError(f"line {number} has {len(line)} columns, but the header has {len(header)}")
                try:
                    numbers.extend(float(line[column]) if line[column].strip() else math.nan for column in columns)
                except ValueError:
                    raise DataError(f"line {number} contains a value that is not a number") from None
                if len(numbers) > VALUES:
                    raise DataError(f"the file contains more than {VALUES:,} numbers")
        except csv.Error as error:
            raise DataError(f"it is not a CSV file: {error}") from None
        rows = np.frombuffer(numbers).reshape(-1, len(columns))
        return (rows[:, :-1], rows[:, -1]) if has_clock else (rows, None)

    def fit(self, items: Callable[[], Iterable], role: Role) -> SensorChopper:
        """Returns the chopper with a mean and a scale for every channel. Values that the YAML does not set are the mean
        and std of the training streams, without missing values. Streams that cannot be read are skipped. If the YAML
        sets the mean and scale of all channels, no stream is read. Otherwise raises ValueError if no stream can be
        read, or if a channel has no values."""
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
            lengths = f"{len(mean)} and {len(std)} numbers"
            raise DataError(f"{file}: it contains {lengths}, but there are {len(self.names)} channels")
        return replace(self, mean=dict(zip(self.names, mean)), scale=dict(zip(self.names, std)))

    @property
    def _normalisation(self) -> tuple[list[float], list[float]]:
        """The means and the scales of all channels, in the order of the columns. An unknown mean is 0, an unknown scale
        is 1."""
        mean, scale = self.by_channel("mean"), self.by_channel("scale")
        return [mean.get(name, 0.0) for name in self.names], [scale.get(name, 1.0) for name in self.names]

    def count(self, item: Stream) -> int:
        return math.ceil(len(item) / self.window)

    def chop(self, item: Stream) -> Chunk:
        """Returns normalised windows (t, window * channels) and their times. An incomplete last window is padded with
        NaN."""
        count = self.count(item)
        mean, std = map(torch.tensor, self._normalisation)
        categorical = torch.tensor([name in (self.categories or {}) for name in self.names])
        padded = torch.full((count * self.window, len(self.names)), math.nan)
        values, seconds = clock_of(item, self.rate)
        padded[: len(item)] = torch.where(categorical, values, (values - mean) / std)
        last = torch.arange(1, count + 1) * self.window - 1
        times = seconds[last.clamp(max=len(item) - 1)] if isinstance(item, Clocked) else last.float() / self.rate
        return Chunk(rearrange(padded, "(t w) c -> t (w c)", w=self.window), count, times[:, None])

    @property
    def numbers(self) -> tuple[str, ...]:
        if self.categories:
            return ()
        return tuple(
            f"{name}" if self.window == 1 else f"{name}_{w}" for w in range(self.window) for name in self.names
        )

    def measured(self, values: Float[Tensor, "t p"]) -> Float[Tensor, "t p"]:
        mean, std = (torch.tensor(row, device=values.device).repeat(self.window) for row in self._normalisation)
        return values * std + mean

    def draw(self, canvas: Any, item: Stream) -> None:
        """Draws every channel over time, and lines where windows begin. More than 12 channels are drawn as an image. A
        single measurement of more than one channel is drawn as a line over the channels."""
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
    """Maps windows to vectors. A vector is the sum of a linear layer over the numbers, a learned vector for each
    category, a learned vector for each missing value, and an absolute position. `position`: the absolute position
    that is added to the vector of each token; null: none. The learned vectors depend on the channel and the index in
    the window. `norm` normalises the vector of each token."""

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
        self.relative, self.period = chopper.relative, chopper.period

    def forward(self, chunks: Chunks) -> Float[Tensor, "t d"]:
        values = self.relative_values(chunks) if self.relative else chunks.values
        values, missing = values.nan_to_num(), values.isnan()
        channels = rearrange(values, "t (w c) -> t w c", c=self.channels)
        numbers = channels[:, :, self.numbers] if self.numbers else torch.zeros_like(channels[:, :, :1])
        tokens = self.missing(missing.to(values.dtype)) + self.embedding(rearrange(numbers, "t w c -> t (w c)"))
        absent = rearrange(missing, "t (w c) -> t w c", c=self.channels)
        for table, channel in zip(self.tables, self.kinds):
            count = table.num_embeddings // self.window
            ids = channels[:, :, channel].long() + torch.arange(self.window, device=values.device) * count
            tokens = tokens + (table(ids) * ~absent[:, :, channel, None]).sum(1)
        return self.norm(tokens if self.position is None else tokens + self.position.of(chunks))

    def relative_values(self, chunks: Chunks) -> Float[Tensor, "t p"]:
        """Returns the values of the tokens; those of channels with numbers are relative (`media/relative.py`)."""
        rows, window, items = (
            rearrange(chunks.values, "t (w c) -> (t w) c", w=self.window),
            self.window,
            len(chunks.counts),
        )
        numbers = torch.arange(items, device=rows.device)
        item = numbers.repeat_interleave(chunks.counts * window, output_size=len(rows))
        index = (chunks.index[:, None] * window + torch.arange(window, device=rows.device)).flatten()
        changed = rows.clone()
        changed[:, self.numbers] = relative(rows[:, self.numbers], item, index, items, self.period)
        return rearrange(changed, "(t w) c -> t (w c)", w=window)


EXAMPLE = Example(
    options={"channels": 2, "mean": 0, "scale": 1},
    items=lambda: [np.sin(np.arange(24.0) ** power).reshape(12, 2) for power in (1.3, 1.2)],
)
