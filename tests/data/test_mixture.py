"""Mixtures of data sets: exact shares, equal use of all samples, and a separate evaluation of each source."""

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest
from chopmix.commands.cli import main
from chopmix.data.collate import Collator, Inputs
from chopmix.data.datasets.mixture import Mixture
from chopmix.data.mixture import MixedSamples, Source, pieces_of
from chopmix.data.sample_dataset import SampleDataset
from chopmix.data.sampler import BLOCK, Mixed, Shuffled
from chopmix.data.samples import Listed
from chopmix.data.skipped import Skipped
from chopmix.data.split import sample_split
from chopmix.experiment.assemble import open_data
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import ConfigError, json_schema, load_config
from chopmix.experiment.train import train
from chopmix.files.reading import DataError
from chopmix.projects.in_context.datasets.in_context import InContext
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.text import TextChopper
from hypothesis import given, settings
from hypothesis import strategies as st

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=3)


@settings(max_examples=25)
@given(counts=COUNTS, data=st.data(), rows=st.integers(1, 64), seed=st.integers(0, 9))
def test_every_block_has_the_shares_and_uses_samples_equally_often(counts, data, rows, seed):
    shares = data.draw(st.lists(st.integers(0, 3), min_size=len(counts), max_size=len(counts)).filter(any))
    sampler = Mixed(counts, shares, rows)
    block = int(sampler.in_block.sum())
    assert block % BLOCK == 0 and block <= sum(shares) * BLOCK
    assert (sampler.in_block * sum(shares) == np.array(shares) * block).all()  # exactly
    steps = -(-block // rows)
    places = [place for step in range(steps) for place in sampler.plan(seed, step)][:block]
    assert Mixed(counts, shares, rows).plan(seed, steps // 2) == sampler.plan(seed, steps // 2)  # whatever came before
    assert sampler.drawn(seed, 0)[0].tolist() == sampler.drawn(seed, 1)[0].tolist()  # all blocks are alike
    starts = [sum(counts[:which]) for which in range(len(counts))]
    for start, count, inside in zip(starts, counts, sampler.in_block):
        drawn = [place for place in places if start <= place.number < start + count]
        assert len(drawn) == inside
        read = Counter(place.number for place in drawn)
        assert not drawn or max(read.values()) - min([*read.values(), 0] if len(read) < count else read.values()) <= 1
        assert len({*drawn}) == len(drawn)  # a sample is repeated only in another epoch


def earlier_plan(counts, shares, rows, seed, step):
    """The plan of a step in an earlier version, in which a block had 1,000 samples: the slots of each source are evenly
    spread."""
    in_block = [round(1000 * share / sum(shares)) for share in shares]
    slots = sorted((k + 0.5) / n for n in in_block for k in range(n))
    assert len(slots) == 1000
    order = sorted(((k + 0.5) / n, source, k) for source, n in enumerate(in_block) for k in range(n))
    samplers = [Shuffled(count, 1) for count in counts]
    plan = []
    for slot in range(step * rows, (step + 1) * rows):
        block, place = divmod(slot, 1000)
        _, source, rank = order[place]
        each = samplers[source].sample_index(seed, block * in_block[source] + rank)
        plan.append(each._replace(number=sum(counts[:source]) + each.number))
    return plan


@given(
    thousandths=st.lists(st.integers(1, 999), min_size=1, max_size=2, unique=True),
    rows=st.integers(1, 64), step=st.integers(0, 40), seed=st.integers(0, 3),
)  # fmt: skip
def test_plans_of_shares_in_thousandths_equal_those_of_an_earlier_version(thousandths, rows, step, seed):
    cuts = [0, *sorted(thousandths), 1000]
    shares = [(end - start) / 1000 for start, end in itertools.pairwise(cuts)]
    counts = [3 + 4 * number for number in range(len(shares))]
    assert Mixed(counts, shares, rows).plan(seed, step) == earlier_plan(counts, shares, rows, seed, step)


def test_a_small_share_is_drawn_exactly_as_often_as_configured():
    sampler = Mixed([5, 5, 5], [0.9996, 0.0002, 0.0002], 50)
    assert sampler.in_block.tolist() == [4998, 1, 1]
    read = Counter(place.number // 5 for step in range(200) for place in sampler.plan(0, step))
    assert read == {0: 9996, 1: 2, 2: 2}


def test_shares_that_no_block_has_exactly_are_rounded_to_a_millionth():
    shares = [1, math.sqrt(2) * 1e-5]
    in_block = Mixed([5, 5], shares, 8).in_block
    assert in_block.sum() == 10**6 and in_block[1] == round(shares[1] / sum(shares) * 10**6)


@given(st.lists(st.floats(1e-9, 1), min_size=1, max_size=4))
def test_a_share_is_kept_or_refused(shares):
    """Every source with a share is drawn."""
    try:
        in_block = Mixed([5] * len(shares), shares, 8).in_block
    except DataError as error:
        assert min(shares) / sum(shares) < 1e-6 and "is read less than once in 1,000,000 samples" in str(error)
    else:
        assert in_block.min() > 0
        assert np.abs(in_block / in_block.sum() - np.array(shares) / sum(shares)).max() <= 1e-6


def test_a_share_that_is_never_drawn_is_refused(file, tmp_path, capsys):
    assert main(["train", str(file), "data.dataset.share={a: 1, b: 1e-8}", f"out={tmp_path / 'run'}"]) == 2
    message = "source 2 of 2 of a mixture has the share 1e-08: it is read less than once in 1,000,000 samples"
    assert message in capsys.readouterr().err


@given(shares=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), rows=st.integers(1, 200), data=st.data())
def test_every_batch_has_the_shares(shares, rows, data):
    """They differ by less than two samples, so that tasks have the same weight in every step."""
    sampler, step = Mixed([10] * len(shares), shares, rows), data.draw(st.integers(0, 50))
    read = Counter(place.number // 10 for place in sampler.plan(3, step))
    assert all(abs(read[source] - rows * share / sum(shares)) < 2 for source, share in enumerate(shares))


def test_a_mixture_contains_the_samples_of_all_sources():
    first = Listed(["a", "b", "c"], [{"x": 1}, {"x": 2}, {"x": 3}])
    second = Listed(["a"], [{"x": 9, "y": 8}])
    mixed = MixedSamples([Source("one", first, 1), Source("two", second, 1, {"x": "z"})])
    assert len(mixed) == 4 and mixed.keys == ["one: a", "one: b", "one: c", "two: a"]
    assert [mixed[number] for number in range(4)] == [{"x": 1}, {"x": 2}, {"x": 3}, {"z": 9, "y": 8}]
    assert (
        mixed.range_of("two") == range(3, 4)
        and mixed.fingerprint() != MixedSamples([Source("one", first, 1)]).fingerprint()
    )


@given(st.text(alphabet="ab\n", max_size=200), st.integers(1, 30))
def test_pieces_of_a_text_join_to_the_text(text, characters):
    class Corpus(Mixture.__mro__[2]):
        splits = ("train",)

        def documents(self, split):
            from chopmix.data.base import Document

            yield Document("d", text)

    rows = [row["text"] for row in pieces_of(Corpus(), "train", characters).rows]
    assert "".join(rows) == text and all(0 < len(row) <= characters for row in rows)
    assert all(row.endswith("\n") for row in rows[:-1] if "\n" in row)


class Numbers(SampleDataset):
    """Samples of one source, for the tests below."""

    splits = ("train", "val")
    columns = ("text", "label")

    def __init__(self, *, word: str = "a", count: int = 8):
        self.word, self.count = word, count

    def open(self, split):
        keys = [f"{split} {number}" for number in range(self.count)]
        return Listed(keys, [{"text": self.word * (1 + n % 3), "label": n % 2} for n in range(self.count)])


TREE = """
inputs: {text: {use: text, encoding: bytes}}
model: {width: 8, depth: 1, heads: 1, context: 16, attention: same_sample, core_tokens: 1}
tasks:
  parity: {use: classification, target: label}
  other: {use: classification, target: second}
data:
  dataset:
    use: mixture
    of: {a: {use: "test_mixture:Numbers"}, b: {use: "test_mixture:Numbers", word: b, count: 5}}
    share: {b: 3}
    columns: {b: {label: second}}
training: {steps: 4, samples_per_step: 8, learning_rate: 1e-2}
evaluation: {sample_tokens: 0}
logging: {tensorboard: false, every: 1}
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "x.yaml").write_text(TREE)
    return tmp_path / "x.yaml"


def test_each_source_is_evaluated_separately(file, tmp_path):
    summary, _ = train(load_config(file, [f"out={tmp_path / 'run'}"]))
    assert {name for name in summary if name.count("/") == 3} == {
        f"val/{source}/{task}/{metric}"
        for source, task in (("a", "parity"), ("b", "other"))
        for metric in ("loss", "accuracy", "balanced_accuracy", "macro_f1")
    }  # fmt: skip
    assert summary["val/a/parity/loss"] == summary["val/parity/loss"]  # the only source with that target
    line = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    assert line["step"] == 1


def test_shares_are_of_samples_or_of_tokens(file, tmp_path):
    from chopmix.data.processes import Processes

    for by, wanted in ("samples", 750), ("tokens", None):
        config = load_config(file, [f"out={tmp_path / by}", f"data.dataset.by={by}"])
        split = open_data(config, Processes.start("cpu"), print).splits["train"]
        assert split.sources == {"a": range(8), "b": range(8, 13)}
        if wanted:
            assert split.sampler.in_block.tolist() == [1000 - wanted, wanted]
        else:
            lengths = [split.reader.mean_length(numbers) for numbers in split.sources.values()]
            tokens = [count * length for count, length in zip(split.sampler.in_block, lengths)]
            assert tokens[1] / tokens[0] == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.dataset.share.b=-1", "shares must be at least 0, one of them above 0"),
        ("data.dataset.share={a: 0, b: 0}", "they are a 0, b 0"),
        ("data.dataset.share={c: 1}", "no source is named 'c'; possible: a, b"),
        ("data.dataset.of.a=nothing", "nothing is named 'nothing'"),
    ],
)
def test_bad_mixtures_are_refused(file, tmp_path, capsys, override, message):
    assert main(["train", str(file), override, f"out={tmp_path / 'run'}"]) == 2
    assert message in capsys.readouterr().err


def test_a_mixture_with_tokens_per_step_is_refused(file, tmp_path, capsys):
    change = ["training.samples_per_step=null", "training.tokens_per_step=64"]
    assert main(["train", str(file), *change, f"out={tmp_path / 'run'}"]) == 2
    assert "a mixture needs samples_per_step" in capsys.readouterr().err


def test_the_schema_of_mixtures_in_mixtures_is_finite():
    assert "mixture" in json.dumps(json_schema()) and ConfigError


class Often(Listed):
    """Texts of 1 and 9 letters, of which the short ones are drawn nine times as often."""

    def __init__(self):
        super().__init__(
            [str(n) for n in range(20)], [{"text": "a" * (1 + 8 * (n % 2)), "label": 0} for n in range(20)]
        )

    weights = np.array([0.09, 0.01] * 10)


def test_by_tokens_a_sample_is_weighted_by_how_often_it_is_drawn():
    """Samples that cannot be read are never in a batch and are not counted in a mean."""
    longer = [{"text": "b" * 5, "label": 0}] * 9 + [{"text": None, "label": 0}]
    plain = Listed([str(n) for n in range(10)], longer)
    mixed = MixedSamples([Source("often", Often(), 1), Source("plain", plain, 1)], by_tokens=True)
    choppers = {"text": TextChopper(vocabulary=ByteEncoding(), generated=False)}
    collator = Collator(choppers=choppers, inputs=Inputs(columns={"text": "text"}), context=32)
    split = sample_split(mixed, "train", collator, Skipped.of("train", mixed.keys), rows=4)
    tokens = [0.9 * 2 + 0.1 * 10, 6.0]  # with the start of each text
    assert split.sampler.in_block[1] / split.sampler.in_block[0] == pytest.approx(tokens[0] / tokens[1], rel=0.02)


def test_a_corpus_is_mixed_with_samples_and_evaluated_separately(file, tmp_path):
    """The corpus is cut into pieces. It has no test split."""
    (tmp_path / "book.txt").write_text("to be or\nnot to be\n" * 40)
    (tmp_path / "other.txt").write_text("that is\nthe question\n" * 5)
    book = f"{{use: text, train: {tmp_path / 'book.txt'}, val: {tmp_path / 'other.txt'}}}"
    changes = [
        f"data.dataset.of.b={book}", "data.dataset.columns=null", "data.dataset.characters=14", "model.context=24",
        "tasks.other=null", "tasks.lm={use: language_modeling, target: text}", "model.attention=causal & same_sample",
        "evaluation.generated=4",
    ]  # fmt: skip
    summary, _ = train(load_config(file, [*changes, f"out={tmp_path / 'run'}"]))
    assert {"val/a/parity/accuracy", "val/b/lm/bits_per_byte", "val/a/lm/loss"} <= summary.keys()
    assert "val/b/parity/loss" not in summary
    run = load_run(tmp_path / "run", trust=["test_mixture"])
    pieces = pieces_of(run.dataset().sources["b"], "val", 14)
    assert [pieces[number]["text"] for number in range(2)] == ["that is\n", "the question\n"] and len(pieces) == 10
    targets = {"a": 15 + 8, "b": 5 * (8 + 1 + 13 + 1)}  # every character, and the end of every text
    mean = sum(count * summary[f"val/{name}/lm/loss"] for name, count in targets.items()) / sum(targets.values())
    assert summary["val/lm/loss"] == pytest.approx(mean, rel=1e-4)
    assert "test" not in run.dataset().sources["b"].splits


def test_a_task_has_the_same_weight_however_rare_it_is(file, tmp_path):
    """Before anything is learned, every task has the loss of a guess; the sum of these losses is that of every step."""
    losses = []
    for share in (1, 3, 9):
        out = tmp_path / str(share)
        changes = [f"data.dataset.share.b={share}", "training.samples_per_step=40", "training.learning_rate=1e-9"]
        train(load_config(file, [*changes, f"out={out}"]))
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        losses.append([line["train/loss"] for line in lines if "train/loss" in line])
    assert all(len(each) == 4 for each in losses)
    assert all(loss == pytest.approx(2 * math.log(2), rel=0.05) for each in losses for loss in each)


def test_a_mixture_has_the_splits_that_some_source_has():
    """If no source has a test split, the mixture has none."""

    class Few(SampleDataset):
        splits, columns = ("train", "val"), ("a",)

        def open(self, split):
            return Listed(["x"], [{"a": 1}])

    assert Mixture(of={"few": Few}).splits == ("train", "val")
    assert Mixture(of={"few": Few, "all": InContext}).splits == ("train", "val", "test")
    assert len(Mixture(of={"few": Few, "all": InContext}).open("test")) == InContext.held_back
    with pytest.raises(DataError, match="has no split 'test'; possible: train, val"):
        Mixture(of={"few": Few}).open("test")
