"""Items as numbers for the simple models with which a run is compared (`chopmix baselines`): small pictures and
spectrograms, and statistics of series."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

PIXELS, CELLS, RESAMPLED = 16, 24, 32
"""The height and width of a picture, the numbers of frames and of mels of a spectrogram, and the number of values to
which a series is resampled."""


def small_picture(image: Tensor) -> Float[np.ndarray, "c 16 16"]:
    """Returns an image (c, height, width) with values from 0 to 255 as 16 x 16 mean values from 0 to 1."""
    return F.adaptive_avg_pool2d(image.float()[None] / 255, PIXELS)[0].numpy()


def small_spectrogram(values: Float[Tensor, "f mels"]) -> Float[np.ndarray, "24 24"]:
    """Returns a spectrogram in logarithms as 24 x 24 values with mean 0 and std 1."""
    sizes = {"size": (CELLS, CELLS), "mode": "bilinear", "antialias": True}
    small = F.interpolate(values.float()[None, None], **sizes)[0, 0]
    return ((small - small.mean()) / (small.std() + 1e-6)).numpy()


def series_features(values: Float[np.ndarray, "t c"]) -> Float[np.ndarray, "f"]:
    """Returns for each channel of a series its mean, std, minimum, maximum and mean absolute change, and 32 values at
    equal distances, interpolated linearly between the known values. All are NaN for a channel without a known value."""
    return np.concatenate([channel_features(column) for column in values.T])


def channel_features(values: Float[np.ndarray, "t"]) -> Float[np.ndarray, "37"]:
    """Returns the features of one channel; see `series_features`."""
    places = np.flatnonzero(~np.isnan(values))
    if not len(places):
        return np.full(5 + RESAMPLED, np.nan, dtype=np.float32)
    known = values[places]
    change = np.abs(np.diff(known)).mean() if len(known) > 1 else 0.0
    resampled = np.interp(np.linspace(0, len(values) - 1, RESAMPLED), places, known)
    statistics = [known.mean(), known.std(), known.min(), known.max(), change]
    return np.concatenate([statistics, resampled]).astype(np.float32)


def shares(values: np.ndarray, size: int) -> Float[np.ndarray, "f"]:
    """Returns how often each of `size` categories occurs in each column of an array (t, c), as shares of the known
    values: one-hot for one row. All are NaN for a column without a known value."""
    parts = []
    for column in values.T:
        known = column[~np.isnan(column)].astype(np.int64)
        counts = np.bincount(known, minlength=size).astype(np.float32)
        parts.append(counts / len(known) if len(known) else np.full(size, np.nan, dtype=np.float32))
    return np.concatenate(parts)
