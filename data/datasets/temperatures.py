"""Hourly temperatures of two cities over one year (30-year averages for each hour), from the package vega-datasets."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

from ...files.reading import DataError
from .table import Table, TableStream


class Temperatures(Table):
    """A `table` with the stream `air`, whose channel `temp` is the temperature in °F in `city` at each hour of 2010. A
    sample is a window of `window`; a new one begins every hour. Columns: `air` (hours, 1) and `air_future`, the hours
    of the `horizon` after the window. Raises DataError if vega-datasets is not installed."""

    def __init__(
        self, *, city: Literal["seattle", "sf"] = "seattle", window: str | float = "72 h", horizon: str | float = "24 h"
    ):
        self.city, self.horizon = city, horizon
        stream = TableStream(columns=["temp"], every="1 h", horizon=horizon)
        super().__init__(train=f"{city}-temps.csv", time="date", window=window, stride="1 h", streams={"air": stream})

    def _path(self, where: str) -> Path:
        try:
            return Path(str(files("vega_datasets") / "_data" / where))
        except ImportError:
            raise DataError("temperatures needs vega-datasets: pip install 'chopmix[temperatures]'") from None

    def like(self, train: str, label: bool = True) -> Table:
        """Returns a data set with the same windows of another table."""
        return Table(train=train, time=self.time, window=self.window, stride=self.stride, streams=self.streams)
