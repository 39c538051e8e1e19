"""Pictures of measurements: channels over time, and the channels of a single measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ...files.pictures import panels

PANELS, SIMILAR, MARKED = 4, 5, 50
"""The largest number of panels; how many times the range of a channel its panel may show; the largest number of
measurements or windows that are marked."""
UNITS = ((86400, "days"), (3600, "hours"), (60, "minutes"))
"""Units of time: their seconds and their names."""


def draw_measurement(
    canvas: Any, values: Float[np.ndarray, "c"], scaled: Float[np.ndarray, "c"], names: Sequence[str]
) -> None:  # fmt: skip
    """Draws the channels of one measurement as points with their `names` and values. `scaled`: the distances from the
    means of the channels in standard deviations."""
    canvas.plot(scaled, range(len(names)), "o")
    canvas.axvline(0, color="gray", linewidth=0.5)
    canvas.set(xlabel="(value - mean) / std", ylabel="channel")
    canvas.invert_yaxis()
    if len(names) <= 12:
        canvas.figure.set_figheight(max(canvas.figure.get_figheight(), 0.6 + 0.2 * len(names)))
        canvas.set_yticks(range(len(names)), [f"{name}: {value:.4g}" for name, value in zip(names, values)])
        canvas.set(ylabel="")


def draw_channels(
    canvas: Any, values: Float[np.ndarray, "t c"], seconds: Float[np.ndarray, "t"], names: Sequence[str],
    units: Sequence[str | None], window: int,
) -> None:  # fmt: skip
    """Draws channels over time, and lines where windows of `window` measurements begin. Channels with different units
    or magnitudes have panels of their own. Without axes (`drawing` with `bare`), every channel fills the height."""
    is_bare = canvas.get_subplotspec() is None
    groups = [list(range(len(names)))] if is_bare else magnitudes(values, units)
    seconds, unit = readable_times(seconds)
    starts = seconds[::window]
    for panel, channels in zip(panels(canvas, len(groups)), groups):
        for channel in channels:
            column = filling(values[:, channel]) if is_bare else values[:, channel]
            panel.plot(seconds, column, marker="." if len(column) <= MARKED else "", label=names[channel])
        if len(starts) <= MARKED:
            panel.vlines(starts, 0, 1, transform=panel.get_xaxis_transform(), color="gray", linewidth=0.5)
        panel.ticklabel_format(useOffset=False)
        panel.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0)
    panel.set(xlabel=unit)


def readable_times(seconds: Float[np.ndarray, "t"]) -> tuple[Float[np.ndarray, "t"], str]:
    """Returns times in a unit in which a stream is not longer than some hundreds, and the name of the unit."""
    span = float(np.ptp(seconds)) if len(seconds) else 0.0
    size, unit = next(((size, unit) for size, unit in UNITS if span >= 3 * size), (1, "seconds"))
    return seconds / size, unit


def magnitudes(values: Float[np.ndarray, "t c"], units: Sequence[str | None]) -> list[list[int]]:
    """Returns groups of channels, one for each panel. The channels of a group have one unit, and the group's range
    is at most SIMILAR times the range of each of them, so that none of them looks like a constant. If there are more
    than PANELS groups, the last one contains all other channels."""
    groups: list[list[int]] = []
    for channel in range(values.shape[1]):
        fitting = (
            group for group in groups if units[group[0]] == units[channel] and similar(values[:, [*group, channel]])
        )
        if (group := next(fitting, None)) is not None:
            group.append(channel)
        else:
            groups.append([channel])
    others = [channel for group in groups[PANELS - 1 :] for channel in group]
    return [*groups[: PANELS - 1], others] if others else groups


def similar(values: Float[np.ndarray, "t c"]) -> bool:
    """Returns whether the common range of all channels is at most SIMILAR times the range of each that varies."""
    known = [column[~np.isnan(column)] for column in values.T if not np.isnan(column).all()]
    ranges = [np.ptp(column) for column in known if np.ptp(column) > 0]
    common = np.ptp(np.concatenate(known)) if known else 0.0
    return bool(common <= SIMILAR * min(ranges, default=0.0) or common == 0)


def filling(values: Float[np.ndarray, "t"]) -> Float[np.ndarray, "t"]:
    """Returns numbers scaled to the range from 0 to 1; a constant becomes 0.5."""
    low, high = (np.nanmin(values), np.nanmax(values)) if not np.isnan(values).all() else (0.0, 0.0)
    return (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
