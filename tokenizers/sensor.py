"""Sensor data as tokens: a stream of measurements is cut into windows, and every token has a time in seconds."""

from __future__ import annotations

import csv
import io
import math
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import Field, FiniteFloat, RootModel
from torch import Tensor, nn

from ..files.reading import ITEM, DataError, read_bytes, text_lines
from ..files.records import VALUES, Record, as_numbers, read_array, read_record
from ..files.writing import write_json
from ..models.batch import Chunks
from ..models.layers.norms import Norm
from ..models.layers.positions import AbsolutePosition, Learned
from .base import Chopper, Chunk, Example, Role, readable
from .media.clock import Stream, clock_of, split_clock, timing_of, with_clock, with_values
from .media.column_statistics import ColumnStatistics, constant_columns
from .media.files import as_tensor
from .media.relative import relative
from .media.simple_features import series_features, shares
from .media.stream_augmentation import StreamAugmentation
from .media.stream_picture import draw_channels, draw_measurement
from .media.summaries import span

CLOCK = "seconds"
"""The name of the CSV column with the time of each measurement in seconds."""
Numbers = tuple[FiniteFloat, ...]


class Normalisation(Record):
    """The content of the assets file `channels.json`."""

    mean: Numbers
    """The means of all channels."""
    scale: Numbers
    interval: Annotated[FiniteFloat, Field(gt=0)] | None
    """The time between two measurements in the training data; None: the data do not contain it."""


Stored = RootModel[Normalisation | tuple[Numbers, Numbers]]
"""The content of `channels.json`, or, in runs of format 2, the means and the scales, [[0.5, 2.0], [1.0, 3.0]]."""
SAME = 1e-6
"""Intervals that differ by less than this share are equal."""
LISTED = 12
"""The largest number of constant channels that the summary lists."""
INSPECTED = 64
"""The number of streams from which the interval is read if no statistics are needed."""
RESOLUTION = 1e-7
"""The relative precision of float32. A channel is constant if its std is at most this share of its mean."""
MAX_NUMBERS = 2**16
"""The maximum number of values per token (channels times `window`)."""
STEM, MOST_STEM = 5, 8
"""The number of measurements that a convolution of the stem reads, and the largest number of convolutions."""


@dataclass(frozen=True, kw_only=True)
class SensorChopper(Chopper):
    """Cuts a stream (times, channels) into windows of `window` measurements. Each window becomes one token, whose
    coordinate is the time of its last measurement. The times are read from the data: `seconds`, or a constant
    `interval`. For data without times, there are `rate` measurements per second, the first at 0 seconds; null: as many
    as in the training data, and 1 if these have no times either. A `rate` that differs from the data is refused.

    `channels` maps the name of each column to its unit or null (`{speed: m/s, lane: null}`), or is the number of
    columns, which are then named 0, 1, ... `categories` maps the names of channels that contain categories to the
    number of categories: with `{gear: 6}` the channel `gear` contains whole numbers from 0 to 5. All other channels are
    normalised: `mean` is subtracted, then the result is divided by `scale`. `mean` and `scale` are numbers by channel
    name (`{speed: 12.5}`), or one number for all channels. The defaults are mean and std of the training data; the
    scale of a constant channel is 1. NaN means that a value is missing. A learned vector represents a missing value.

    With `relative`, the model reads numbers without the level and the scale of their stream: differences from the last
    measurement of the stream or, with a `period` (24 for hourly measurements of a day), from the measurement one period
    before, divided by their root mean square in the stream. What the model learns from one range of values then holds
    for others. Every token depends on the whole stream, so the option is not possible with `causal(seconds)`.

    `augment_stream`: in training, streams are changed at random. `stem`: the number of convolutions over time before
    the windows, each over STEM measurements (0: none); with a stem, a token depends on the measurements around it.

    Five measurements of three channels, 10 per second, in windows of 2:

        values       (3, 6)            a row: channels 0, 1, 2 of the first measurement, then of the second
        coordinates  0.1  0.3  0.5     the last window is padded: it contains only the fifth measurement
    """

    axes: ClassVar[tuple[str, ...]] = ("seconds",)
    channels: dict[str, str | None] | int
    rate: float | None = None
    window: int = 1
    categories: dict[str, int] | None = None
    mean: dict[str, float] | float | None = None
    scale: dict[str, float] | float | None = None
    period: int | None = None
    relative: bool = False
    augment_stream: StreamAugmentation | None = None
    stem: int = 0
    interval: float | None = field(default=None, kw_only=False)
    """The time between two measurements in the training data; None: the data do not contain it."""
    is_old: bool = field(default=False, kw_only=False)
    """Whether the run has format 2, which ignored the interval of the data: `interval` is used for all data."""

    def __post_init__(self):
        if not self.channels or (isinstance(self.channels, int) and self.channels < 1):
            raise ValueError("channels must contain at least one channel")
        count = self.channels if isinstance(self.channels, int) else len(self.channels)
        if count * self.window > MAX_NUMBERS:
            sizes = f"{count:,} times {self.window:,}"
            raise ValueError(f"the number of channels times window must be at most {MAX_NUMBERS:,}, not {sizes}")
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise ValueError(f"rate must be more than 0, not {self.rate}")
        if self.window < 1:
            raise ValueError(f"window must be at least 1, not {self.window}")
        if not 0 <= self.stem <= MOST_STEM:
            raise ValueError(f"stem must be from 0 to {MOST_STEM} convolutions, not {self.stem}")
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
        return self.relative or self.stem > 0

    @property
    def per_second(self) -> float:
        """The number of measurements per second in data without times."""
        return self.rate or (1 / self.interval if self.interval else 1.0)

    def by_channel(self, option: Literal["mean", "scale"]) -> dict[str, float]:
        """Returns the `mean` or the `scale` by channel name, without the channels for which the option is not set."""
        setting = getattr(self, option)
        return dict.fromkeys(self.names, setting) if isinstance(setting, int | float) else setting or {}

    def decode(self, raw: Any) -> Stream:
        """Returns the stream (times, channels), with its times if `raw` contains times. `raw` is a number, an array
        (times, channels) or (times,), {"values": array, "seconds": (times,)}, {"values": array, "interval": 0.1}, a
        text that contains a number or a list, or the path or the bytes of a file (NumPy's `.npy`, or CSV). The header
        of a CSV names a column for each channel, in any order. A column `seconds` contains the times, unless it is a
        channel. Other columns are ignored. Empty fields and infinite values become NaN. Raises DataError for any other
        value, without measurements, for a category out of range, for an interval that differs from `rate`, and in the
        cases of `split_clock` and `with_clock`."""
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
        if isinstance(seconds, float):
            if self.is_old:
                seconds = 1 / self.per_second
            elif self.rate is not None and abs(self.rate * seconds - 1) > SAME:
                raise DataError(
                    f"rate: {self.rate:g} measurements per second differ from the data, in which two measurements are "
                    f"{seconds:.7g} s apart ({1 / seconds:.7g} per second); remove rate"
                )
        return with_clock(values.masked_fill(values.isinf(), math.nan), seconds)

    def summary(self, raws: Sequence[Any]) -> str:
        streams = list(readable(raws, self.decode, "stream", "in the samples"))
        values = torch.cat([clock_of(stream, self.per_second)[0] for stream in streams])
        missing = f", {values.isnan().float().mean():.1%} of the values are missing" * bool(values.isnan().any())
        constant = [self.names[number] for number in constant_columns(values)] if len(values) > 1 else []
        listed = f"{', '.join(constant[:LISTED])}{', ...' * (len(constant) > LISTED)}"
        constants = f", constant in the inspected samples: {listed}" * bool(constant)
        lengths = span((len(stream) for stream in streams), "measurement(s)")
        tokens = span((self.count(stream) for stream in streams), "token(s)")
        return f"{lengths} of {len(self.names)} channel(s), normalised by mean and std, {tokens}{missing}{constants}"

    def augment(self, item: Stream, random: np.random.Generator) -> Stream:
        if self.augment_stream is None:
            return item
        numbers = [number for number, name in enumerate(self.names) if name not in (self.categories or {})]
        values = self.augment_stream(timing_of(item)[0], numbers, random)
        return with_values(item, values)

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
        """Returns the chopper with a mean and a scale for every channel, and with the most frequent interval of the
        data. Values that the YAML does not set are the mean and std of the training streams, without missing values.
        Streams that cannot be read are skipped. If the YAML sets the mean and scale of all channels, only INSPECTED
        streams are read, for their interval. Otherwise raises ValueError if no stream can be read, or if a channel has
        no values."""
        intervals: Counter[float | None] = Counter()
        if all(self.by_channel(option).keys() >= {*self.names} for option in ("mean", "scale")):
            for raw in islice(items(), INSPECTED):
                with suppress(ValueError, TypeError):  # it is reported when the sample is read
                    intervals[timing_of(self.decode(raw))[2]] += 1
            return self.with_interval(intervals)
        statistics = ColumnStatistics(len(self.names))
        for stream in readable(items(), self.decode, "stream", "in the training data"):
            intervals[timing_of(stream)[2]] += 1
            statistics.add(clock_of(stream, self.per_second)[0])
        if empty := [name for name, number in zip(self.names, statistics.count.tolist()) if not number]:
            raise ValueError(f"channel {empty[0]!r} has no value in the training data")
        mean, scale = (dict(zip(self.names, each.tolist())) for each in (statistics.mean, statistics.scale(RESOLUTION)))
        fitted = replace(self, mean=mean | self.by_channel("mean"), scale=scale | self.by_channel("scale"))
        return fitted.with_interval(intervals)

    def with_interval(self, intervals: Counter[float | None]) -> SensorChopper:
        """Returns the chopper with the most frequent of the intervals of streams; None: streams without an interval."""
        return replace(self, interval=intervals.most_common(1)[0][0] if intervals else None)

    def save(self, folder: Path) -> None:
        mean, scale = self._normalisation
        write_json(folder / "channels.json", {"mean": mean, "scale": scale, "interval": self.interval})

    def load(self, folder: Path, role: Role) -> SensorChopper:
        file, stored = folder / "channels.json", read_record(folder / "channels.json", Stored).root
        is_old = not isinstance(stored, Normalisation)
        mean, scale, interval = (*stored, 1 / (self.rate or 1.0)) if is_old else vars(stored).values()
        if not len(mean) == len(scale) == len(self.names):
            lengths = f"{len(mean)} and {len(scale)} numbers"
            raise DataError(f"{file}: it contains {lengths}, but there are {len(self.names)} channels")
        stored_values = {"mean": dict(zip(self.names, mean)), "scale": dict(zip(self.names, scale))}
        by_channel = {option: values | self.by_channel(option) for option, values in stored_values.items()}
        return replace(self, **by_channel, interval=interval, is_old=is_old)

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
        values, seconds = clock_of(item, self.per_second)
        padded[: len(item)] = torch.where(categorical, values, (values - mean) / std)
        last = torch.arange(1, count + 1) * self.window - 1
        _, stored_times, interval = timing_of(item)
        if interval:
            times = last.float() * interval
        elif stored_times is not None:
            times = seconds[last.clamp(max=len(item) - 1)]
        else:
            times = last.float() / self.per_second
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

    def simple_features(self, item: Stream) -> np.ndarray:
        values, categories = clock_of(item, self.per_second)[0].numpy(), self.categories or {}
        numbers = [number for number, name in enumerate(self.names) if name not in categories]
        parts = [series_features(values[:, numbers])] if numbers else []
        parts += [shares(values[:, [self.names.index(name)]], count) for name, count in categories.items()]
        return np.concatenate(parts)

    def draw(self, canvas: Any, item: Stream) -> None:
        """Draws every channel over time, and lines where windows begin. More than 12 channels are drawn as an image.
        The channels of a single measurement are drawn as points."""
        values, seconds = clock_of(item, self.per_second)
        units = [self.channels.get(name) if isinstance(self.channels, dict) else None for name in self.names]
        names = [f"{name} ({unit})" if unit else name for name, unit in zip(self.names, units)]
        if len(item) == 1 and len(self.names) > 1:
            mean, std = (torch.tensor(row) for row in self._normalisation)
            draw_measurement(canvas, values[0].numpy(), ((values[0] - mean) / std).numpy(), names)
            return
        if len(self.names) > 12:
            step = timing_of(item)[2] or 1 / self.per_second
            extent = (float(seconds[0]), float(seconds[-1]) + step, 0, len(self.names))
            canvas.imshow(values.T.numpy(), aspect="auto", origin="lower", extent=extent)
            canvas.set(xlabel="seconds", ylabel="channel")
            return
        draw_channels(canvas, values.numpy(), seconds.numpy(), names, units, self.window)


class Stem(nn.Module):
    """Convolutions over time, each followed by a GELU, which map the `channels` numbers of each measurement to `width`
    numbers. Items do not read each other: between them there are STEM // 2 zeros."""

    def __init__(self, channels: int, width: int, layers: int):
        super().__init__()
        sizes = [channels, *[width] * layers]
        self.layers = nn.ModuleList(nn.Conv1d(a, b, STEM, padding=STEM // 2) for a, b in zip(sizes, sizes[1:]))

    def forward(self, rows: Float[Tensor, "r c"], item: Int[Tensor, "r"], items: int) -> Float[Tensor, "r d"]:
        """Maps the measurements of all items, one after another. `item` is the number of the item of each row."""
        gap = STEM // 2
        place = torch.arange(len(rows), device=rows.device) + item * gap
        length = len(rows) + items * gap
        is_row = rows.new_zeros(length).index_fill(0, place, 1.0)
        x = rows.new_zeros(length, rows.shape[1]).index_copy(0, place, rows).T[None]
        for layer in self.layers:
            x = F.gelu(layer(x)) * is_row
        return x[0].T[place]


class SensorTokenizer(nn.Module):
    """Maps windows to vectors. A vector is the sum of a linear layer over the numbers (with a `stem`, over the outputs
    of its convolutions), a learned vector for each category, a learned vector for each missing value, and an absolute
    position. `position`: the absolute position
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
        inputs = max(len(self.numbers), 1)
        self.stem = Stem(inputs, width, chopper.stem) if chopper.stem else None
        self.embedding = nn.Linear((width if chopper.stem else inputs) * chopper.window, width)
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
        if self.stem is not None:
            item, _, items = self.items_of(chunks)
            rows = self.stem(rearrange(numbers, "t w c -> (t w) c"), item, items)
            numbers = rearrange(rows, "(t w) d -> t w d", w=self.window)
        tokens = self.missing(missing.to(values.dtype)) + self.embedding(rearrange(numbers, "t w c -> t (w c)"))
        absent = rearrange(missing, "t (w c) -> t w c", c=self.channels)
        for table, channel in zip(self.tables, self.kinds):
            count = table.num_embeddings // self.window
            ids = channels[:, :, channel].long() + torch.arange(self.window, device=values.device) * count
            tokens = tokens + (table(ids) * ~absent[:, :, channel, None]).sum(1)
        return self.norm(tokens if self.position is None else tokens + self.position.of(chunks))

    def relative_values(self, chunks: Chunks) -> Float[Tensor, "t p"]:
        """Returns the values of the tokens; those of channels with numbers are relative (`media/relative.py`)."""
        rows = rearrange(chunks.values, "t (w c) -> (t w) c", w=self.window)
        changed = rows.clone()
        changed[:, self.numbers] = relative(rows[:, self.numbers], *self.items_of(chunks), self.period)
        return rearrange(changed, "(t w) c -> t (w c)", w=self.window)

    def items_of(self, chunks: Chunks) -> tuple[Int[Tensor, "r"], Int[Tensor, "r"], int]:
        """Returns (the number of the item of each measurement, the number of each measurement in its item, the number
        of items)."""
        items, window, device = len(chunks.counts), self.window, chunks.values.device
        numbers = torch.arange(items, device=device)
        item = numbers.repeat_interleave(chunks.counts * window, output_size=len(chunks.values) * window)
        index = (chunks.index[:, None] * window + torch.arange(window, device=device)).flatten()
        return item, index, items


EXAMPLE = Example(
    options={"channels": 2, "mean": 0, "scale": 1},
    items=lambda: [np.sin(np.arange(24.0) ** power).reshape(12, 2) for power in (1.3, 1.2)],
)
