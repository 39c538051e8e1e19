"""Intervals of 95 % equal those of scipy and of a direct bootstrap and cover the true mean; some metrics have none."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from chopmix.data.samples import Chosen, Joined, Listed
from chopmix.data.table_windows import Windows
from chopmix.inference.intervals import (
    RESAMPLES,
    Interval,
    Intervals,
    RunSums,
    Units,
    difference_intervals,
    of_seeds,
    on_split,
    percentiles,
    resampled_outputs,
    split_intervals,
    wilson,
)
from chopmix.inference.sample_sums import FORMAT, About, TaskSums, compact
from chopmix.tasks.base import Metric, Task, per_target
from chopmix.tasks.classification import accuracy, balanced_accuracy, macro_f1
from chopmix.tasks.measuring.texts import MEANINGS
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

pytestmark = pytest.mark.usefixtures("all_resamples")
CLASSES = 4


class Kinds(Task):
    """A classification; only its metrics are used."""

    target = "kind"
    metrics = {
        "loss": Metric("nats", of_sums=per_target), "accuracy": Metric("0 to 1", True, accuracy, is_share=True),
        "balanced_accuracy": Metric("0 to 1", True, balanced_accuracy), "macro_f1": Metric("0 to 1", True, macro_f1),
        "judged": Metric("x", of_judge=True),
        "chain": Metric("nats", of_sums=lambda sums: sums["chain"], of_chain=True),
    }  # fmt: skip


def sums_of(true, predicted, loss) -> TaskSums:
    hot = np.eye(CLASSES)
    counts = {"true": hot[true], "predicted": hot[predicted], "hits": hot[true] * (true == predicted)[:, None]}
    sums = {"loss": loss, "count": np.ones(len(true)), **{name: compact(rows) for name, rows in counts.items()}}
    return TaskSums(np.arange(len(true)), sums)


def drawn(count, seed=0, right=0.7):
    random = np.random.default_rng(seed)
    true = random.integers(CLASSES, size=count)
    predicted = np.where(random.random(count) < right, true, random.integers(CLASSES, size=count))
    return true, predicted, random.exponential(size=count)


def units_of(labels, count, kind="samples", of="") -> Units:
    return Units(
        labels, count, About(format=FORMAT, split="val", step=1, weights="", tasks=("kind",), kind=kind, of=of)
    )


def intervals(sums, labels=None, kind="samples", runs=None, **more):
    runs = runs or [RunSums({"kind": Kinds()}, {"kind": sums}, **more)]
    metrics = {name: np.mean([on_split("val", run)[name] for run in runs]) for name in on_split("val", runs[0])}
    return metrics, split_intervals("val", runs, metrics, units_of(labels, len(sums.numbers), kind, "speaker"))


@given(st.integers(1, 500), st.data())
def test_the_wilson_interval_equals_that_of_scipy(count, data):
    right = data.draw(st.integers(0, count))
    expected = scipy.stats.binomtest(right, count).proportion_ci(0.95, "wilson")
    assert wilson(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9))
def test_the_interval_over_seeds_equals_that_of_scipy(values):
    if np.ptp(values) > 1e-9:
        expected = scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy.stats.sem(values))
        assert of_seeds(values) == pytest.approx(expected)
    assert of_seeds(values[:1]) is None and of_seeds([1.0, math.nan]) is None


def test_intervals_equal_those_of_a_direct_bootstrap():
    """For metrics that are not means, the expected values use resampled indices and scikit-learn, with another seed."""
    true, predicted, loss = drawn(150)
    metrics, result = intervals(sums_of(true, predicted, loss))
    random, expected = np.random.default_rng(7), {"val/loss": [], "val/balanced_accuracy": [], "val/macro_f1": []}
    for _ in range(400):
        index = random.integers(150, size=150)
        expected["val/loss"].append(loss[index].mean())
        expected["val/balanced_accuracy"].append(balanced_accuracy_score(true[index], predicted[index]))
        expected["val/macro_f1"].append(f1_score(true[index], predicted[index], average="macro", zero_division=0))
    for name, values in expected.items():
        spread = np.std(values)
        assert result.values[name] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.35 * spread)
    assert result.values["val/accuracy"] == wilson(metrics["val/accuracy"], 150)
    assert result.caption() == (
        "95 % intervals: bootstrap, 2,000 resamples of 150 samples; accuracy: Wilson's formula."
    )


def test_the_interval_of_a_mean_covers_the_true_mean():
    random, covered = np.random.default_rng(3), 0
    for _ in range(25):
        values = random.normal(1.0, 2.0, 60)
        sums = TaskSums(np.arange(60), {"loss": values, "count": np.ones(60)})
        low, high = intervals(sums)[1].values["val/loss"]
        covered += low <= 1.0 <= high
    assert 21 <= covered <= 25  # 0.95 of 25 is 24; of a percentile interval of 60 values a little less


def test_samples_of_a_group_are_drawn_together():
    """200 samples of 20 speakers, each with one value, have the interval of 20 values."""
    random = np.random.default_rng(5)
    speakers = np.repeat(np.arange(20), 10)
    values = random.normal(size=20)[speakers]
    sums = TaskSums(np.arange(200), {"loss": values, "count": np.ones(200)})
    alone, together = intervals(sums)[1], intervals(sums, speakers.tolist(), "groups")[1]
    wide, narrow = (high - low for low, high in (together.values["val/loss"], alone.values["val/loss"]))
    assert 2.5 < wide / narrow < 3.8  # the root of 10
    means = TaskSums(np.arange(20), {"loss": values[::10], "count": np.ones(20)})
    assert together.values["val/loss"] == pytest.approx(intervals(means)[1].values["val/loss"])
    assert "2,000 resamples of 20 groups (column 'speaker')" in together.caption()
    few = intervals(sums, (speakers // 3).tolist(), "groups")[1]
    assert not few.values and few.caption() == "No intervals: there are only 7 groups (column 'speaker')."
    unknown = intervals(sums, [None] * 200, "groups")[1]
    assert "no sample has a value in column 'speaker'" in unknown.caption() and not unknown.values


def test_metrics_of_several_seeds_are_resampled_on_the_same_samples():
    """If all seeds have the same difficult samples, their mean varies like the metric of one seed."""
    loss = np.random.default_rng(1).exponential(size=80)
    runs = [RunSums({"kind": Kinds()}, {"kind": TaskSums(np.arange(80), {"loss": loss + shift, "count": np.ones(80)})})
            for shift in (0.0, 0.1, 0.2)]  # fmt: skip
    one = intervals(runs[1].sums["kind"], runs=[runs[1]])[1].values["val/loss"]
    assert intervals(runs[1].sums["kind"], runs=runs)[1].values["val/loss"] == pytest.approx(one)
    paired = difference_intervals("val", [runs[0]], [runs[2]], units_of(None, 80))["val/loss"]
    assert paired == pytest.approx((0.2, 0.2))
    wilsons = [RunSums({"kind": Kinds()}, {"kind": sums_of(*drawn(80, seed))}) for seed in (0, 1)]
    result = split_intervals("val", wilsons,
                            {"val/accuracy": np.mean([on_split("val", run)["val/accuracy"] for run in wilsons])},
                            units_of(None, 80))  # fmt: skip
    assert "Wilson" not in result.caption() and result.values
    folds = intervals(sums_of(*drawn(80)), is_pooled=True)[1]
    assert "Wilson" not in folds.caption() and folds.values


def test_the_reason_of_a_missing_interval_is_reported():
    sums = sums_of(*drawn(40))
    metrics = {**on_split("val", RunSums({"kind": Kinds()}, {"kind": sums})), "val/judged": 0.5, "val/chain": 1.0,
               "val/return": 12.0, "val/count": 40}  # fmt: skip
    result = split_intervals("val", [RunSums({"kind": Kinds()}, {"kind": sums})], metrics, units_of(None, 40))
    assert result.missing == {
        "val/judged": "a judge computes the metric", "val/chain": "the metric is measured on some of the samples only",
        "val/return": "the metric is not computed from sums of the samples",
    }  # fmt: skip
    other = split_intervals("val", [RunSums({"kind": Kinds()}, {"kind": sums})], {"val/loss": 99.0}, units_of(None, 40))
    assert not other.values  # the metric was not computed from these sums


def wrong_words(predicted, true):
    """Returns the share of wrong words in all texts together."""
    pairs = [
        pair
        for one, other in zip(predicted, true, strict=True)
        for pair in zip(one.split(), other.split(), strict=True)
    ]
    return sum(one != other for one, other in pairs) / len(pairs)


class Texts(Task):
    metrics = {"wer": Metric("errors per word", of_texts=wrong_words), "exact_match": MEANINGS["exact_match"]}


@pytest.mark.parametrize("count", [300, 1200])
def test_texts_have_intervals(count):
    """Of more than 500 texts only a part is resampled, but the interval is that of all texts."""
    random = np.random.default_rng(2)
    errors = random.binomial(4, 0.3, count)
    texts = [(n, " ".join(["no"] * wrong + ["yes"] * (4 - wrong)), "yes yes yes yes") for n, wrong in enumerate(errors)]
    run = RunSums({"text": Texts()}, {"text": TaskSums(np.empty(0, np.int64), {}, texts)})
    metrics = on_split("val", run)
    assert metrics["val/wer"] == pytest.approx(errors.mean() / 4)
    result = split_intervals("val", [run], metrics, units_of(None, count))
    low, high = result.values["val/wer"]
    half = 1.96 * (errors / 4).std() / math.sqrt(count)
    assert (high - low) / 2 == pytest.approx(half, rel=0.25) and low < metrics["val/wer"] < high
    assert result.values["val/exact_match"] == wilson(metrics["val/exact_match"], count)
    assert "wer: 200 resamples of at most 500 texts; exact_match: Wilson's formula" in result.caption().replace(
        "exact_match: Wilson's formula; wer: 200 resamples of at most 500 texts",
        "wer: 200 resamples of at most 500 texts; exact_match: Wilson's formula",
    )


def test_metrics_of_all_outputs_are_resampled_by_halves():
    """Halves without replacement have the interval of the bootstrap for a mean, and contain no sample twice."""
    values = torch.from_numpy(np.random.default_rng(0).normal(size=200))
    metric = Metric("x", of_outputs=lambda output, true: float(output.mean()))
    interval = percentiles(resampled_outputs(metric, (values, values, torch.arange(200)), units_of(None, 200)),
                        float(values.mean()))  # fmt: skip
    half = 1.96 * float(values.std()) / math.sqrt(200)
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.2)
    are_unique = []
    unique = Metric("x", of_outputs=lambda output, true: are_unique.append(len(set(true.tolist())) == len(true)) or 0.0)
    resampled_outputs(unique, (values, torch.arange(200), torch.arange(200)), units_of(None, 200))
    assert all(are_unique)


def test_overlapping_windows_are_grouped_in_blocks():
    """In each part of the table, a block begins one window and one horizon after the previous block."""

    class Fake(Windows):
        def __init__(self, origins, begins, size, chosen=None):
            self.__dict__ |= {"size": size, "chosen": chosen, "streams": {}, "origins_": origins, "begins_": begins}

        ahead = 2.0
        _all = property(
            lambda self: type("All", (), {"origins": np.array(self.origins_), "begins": np.array(self.begins_)})
        )
        __len__ = lambda self: len(self.origins_)

    windows = Fake([0.0] * 10 + [100.0] * 3, [*map(float, range(10)), 0.0, 1.0, 5.0], 2.0)
    assert (
        windows.blocks.of_sample.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4] and windows.blocks.length == "4 s"
    )
    some = Fake(windows.origins_, windows.begins_, 2.0, (12, 0, 5, 3))
    assert some.blocks.of_sample.tolist() == [2, 0, 1, 0]
    chosen = Chosen(windows, [9, 10])
    assert chosen.blocks.of_sample.tolist() == [2, 3]
    assert Joined({"a": chosen, "b": chosen}).blocks.of_sample.tolist() == [2, 3, 6, 7]
    assert Joined({"a": chosen, "b": Listed(["x"], [{}])}).blocks is None


@settings(max_examples=30)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40))
def test_units_are_counted_by_value(labels):
    units = units_of(labels, len(labels), "groups")
    assert units.count == len({*labels}) and RESAMPLES == 2000
    assert all(units.of_sample[i] == units.of_sample[labels.index(label)] for i, label in enumerate(labels))


def test_a_caption_names_a_few_metrics_without_an_interval():
    missing = {f"val/without_{name}/loss": "it is not computed from sums" for name in "abcdef"}
    caption = Intervals({"val/loss": Interval(0, 1)}, ["bootstrap"], missing).caption()
    assert "val/without_d/loss and 2 more: it is not computed from sums." in caption and "without_e" not in caption
