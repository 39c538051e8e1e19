"""Calibration of the probabilities of classes: a temperature is fitted on one half of the validation samples, and the
error is measured on the other half (Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from .report import Table, divided

BINS = 15
"""The number of bins of equal width of the expected calibration error."""
LIMITS = 0.05, 20.0
"""The range of temperatures. At its upper end all classes are about equally probable."""
FEWEST_SAMPLES = 20
"""The smallest number of samples from which a temperature is fitted."""
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
TINY = 1e-30


def with_temperature(probabilities: Float[np.ndarray, "n v"], temperature: float) -> Float[np.ndarray, "n v"]:
    """Returns the probabilities that a softmax gives if the logits are divided by a temperature. The logarithms of
    probabilities are logits, up to a constant."""
    logits = np.log(np.maximum(probabilities, TINY, dtype=np.float64)) / temperature
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def nats(probabilities: Float[np.ndarray, "n v"], targets: Int[np.ndarray, "n"]) -> float:
    """Returns the mean negative log-likelihood of the true classes."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(targets)), targets], TINY)).mean())


def fit_temperature(probabilities: Float[np.ndarray, "n v"], targets: Int[np.ndarray, "n"]) -> float:
    """Returns the temperature between the LIMITS with the lowest loss, by golden-section search over its logarithm: the
    loss is a convex function of the inverse temperature, so it has one minimum."""
    low, high = map(math.log, LIMITS)
    ratio = (math.sqrt(5) - 1) / 2

    def loss(log_temperature: float) -> float:
        return nats(with_temperature(probabilities, math.exp(log_temperature)), targets)

    left, right = high - ratio * (high - low), low + ratio * (high - low)
    left_loss, right_loss = loss(left), loss(right)
    while high - low > 1e-4:
        if left_loss <= right_loss:
            high, right, right_loss = right, left, left_loss
            left = high - ratio * (high - low)
            left_loss = loss(left)
        else:
            low, left, left_loss = left, right, right_loss
            right = low + ratio * (high - low)
            right_loss = loss(right)
    return math.exp((low + high) / 2)


def bins_of(confidences: Float[np.ndarray, "n"], correct: Bool[np.ndarray, "n"]) -> list[tuple[float, float, int]]:
    """Returns (mean probability of the predicted class, accuracy, number of samples) for each bin of the probability
    that is not empty."""
    numbers = np.minimum((confidences * BINS).astype(int), BINS - 1)
    bins = []
    for number in np.unique(numbers):
        chosen = numbers == number
        bins.append((float(confidences[chosen].mean()), float(correct[chosen].mean()), int(chosen.sum())))
    return bins


def calibration_error(probabilities: Float[np.ndarray, "n v"], targets: Int[np.ndarray, "n"]) -> float:
    """Returns the expected calibration error: the mean distance between the probability of the predicted class and the
    accuracy, over BINS bins, weighted by their numbers of samples."""
    correct = probabilities.argmax(1) == targets
    bins = bins_of(probabilities.max(1), correct)
    return sum(abs(mean - accuracy) * number for mean, accuracy, number in bins) / max(len(targets), 1)


def threshold_rows(confidences: Float[np.ndarray, "n"], correct: Bool[np.ndarray, "n"]) -> list[list[Any]]:
    """Returns for each threshold: the number and the share of the samples whose answer has at least this probability,
    and the accuracy of these answers (None without samples)."""
    rows = []
    for threshold in THRESHOLDS:
        answered = confidences >= threshold
        number = int(answered.sum())
        rows.append([threshold, number, number / len(confidences), divided(int(correct[answered].sum()), number)])
    return rows


@dataclass(frozen=True)
class Calibration:
    """The calibration of a split."""

    temperature: float | None
    """The fitted or stored temperature; None if none could be fitted, or if none is stored."""
    fitted_on: int
    """The number of samples on which it was fitted in this report; 0 if a stored temperature is used."""
    probabilities: Float[np.ndarray, "n v"]
    """The probabilities of the samples on which the error is measured, without calibration."""
    targets: Int[np.ndarray, "n"]
    rejected: float | None = None
    """A fitted temperature that is not used, because it is one of the LIMITS or does not reduce the loss of the other
    half."""

    @classmethod
    def of(
        cls, probabilities: Float[np.ndarray, "n v"], targets: Int[np.ndarray, "n"], saved: Mapping[str, Any],
        store: bool,
    ) -> Calibration:  # fmt: skip
        """Returns the calibration of these samples. With `store`, a random half of them is used to fit the temperature
        and the other half to measure the error; a temperature is fitted only if there are enough samples, and if some
        answers of the first half are wrong; it is used only if it is none of the LIMITS and reduces the loss of the
        other half. Without `store`, the stored temperature is measured on all samples."""
        if not store or len(targets) < 2 * FEWEST_SAMPLES:
            return cls(None if store else saved.get("temperature"), 0, probabilities, targets)
        order = np.random.default_rng(0).permutation(len(targets))
        fitting, measuring = order[: len(order) // 2], order[len(order) // 2 :]
        if (probabilities[fitting].argmax(1) == targets[fitting]).all():  # the best temperature is then 0
            return cls(None, 0, probabilities, targets)
        temperature = fit_temperature(probabilities[fitting], targets[fitting])
        others = probabilities[measuring], targets[measuring]
        at_limit = not LIMITS[0] * 1.01 < temperature < LIMITS[1] / 1.01
        if at_limit or nats(with_temperature(others[0], temperature), others[1]) >= nats(*others):
            return cls(None, 0, probabilities, targets, rejected=temperature)
        return cls(temperature, len(fitting), probabilities[measuring], targets[measuring])

    @property
    def calibrated(self) -> Float[np.ndarray, "n v"]:
        """The probabilities with the temperature."""
        return with_temperature(self.probabilities, self.temperature or 1.0)

    def table(self) -> Table:
        """Returns the loss and the calibration error, without and with the temperature."""
        rows: list[list[Any]] = [["as predicted", 1.0, *self._figures(self.probabilities)]]
        if self.temperature:
            rows.append(["with the temperature", self.temperature, *self._figures(self.calibrated)])
        fitted = f"; the temperature was fitted on {self.fitted_on:,} other samples" if self.fitted_on else ""
        note = f"{len(self.targets):,} samples{fitted}"
        return Table(
            "calibration", "Calibration", ("probabilities", "temperature", "loss", "calibration_error"), rows, note
        )

    def _figures(self, probabilities: Float[np.ndarray, "n v"]) -> tuple[float, float]:
        return nats(probabilities, self.targets), calibration_error(probabilities, self.targets)

    def lines(self) -> list[str]:
        """Returns one sentence about the calibration error; none if no temperature was fitted."""
        if self.rejected:
            return [
                f"no temperature is stored: {self.rejected:.3f}, fitted on one half of the samples, does not reduce "
                "the loss of the other half, or is the smallest or largest that is possible"
            ]
        if not self.temperature:
            return []
        before, after = self._figures(self.probabilities)[1], self._figures(self.calibrated)[1]
        return [
            f"calibration error {before:.4f}, with temperature {self.temperature:.3f}: {after:.4f} "
            f"({len(self.targets):,} samples)"
        ]


def draw_reliability(calibration: Calibration, canvas: Any) -> None:
    """Draws the accuracy of the answers by their probability. On the diagonal, both are equal."""
    canvas.plot([0, 1], [0, 1], color="gray", linewidth=1)
    versions = {"as predicted": calibration.probabilities}
    if calibration.temperature:
        versions[f"temperature {calibration.temperature:.2f}"] = calibration.calibrated
    for name, probabilities in versions.items():
        means, accuracies, _ = zip(*bins_of(probabilities.max(1), probabilities.argmax(1) == calibration.targets))
        canvas.plot(means, accuracies, marker="o", markersize=4, label=name)
    canvas.set(xlabel="probability of the predicted class", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    canvas.legend(title=f"{len(calibration.targets):,} samples")
