"""Samples are read by number, divided by hash, and packed into batches that depend only on the seed and the step; bad
samples are replaced."""

import io
import json
import math
import subprocess
import sys
import tarfile
import tracemalloc
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from chopmix.data.collate import Collator, Inputs, dropped_shares
from chopmix.data.datasets.arithmetic import Arithmetic, answer
from chopmix.data.datasets.dtmf import HIGH, LOW, RATE, Dtmf
from chopmix.data.datasets.image_folder import ImageFolder
from chopmix.data.datasets.manifest import Manifest
from chopmix.data.datasets.text import Text
from chopmix.data.datasets.webdataset import Webdataset
from chopmix.data.generated import Made
from chopmix.data.reader import ItemCache
from chopmix.data.sample_dataset import share
from chopmix.data.sampler import SampleIndex
from chopmix.data.samples import Chosen, Hidden, Listed, Renamed
from chopmix.data.shards import Shards
from chopmix.data.skipped import Skipped
from chopmix.data.split import SampleSplit, sample_split
from chopmix.data.tar_files import expand
from chopmix.experiment.own_data import Whole
from chopmix.files.reading import DataError
from chopmix.tokenizers.base import Chunk
from chopmix.tokenizers.chopping.packing import BREAK_EVEN, cheapest_rows, concatenated_ranges, first_fit, place
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.image import ImageChopper
from chopmix.tokenizers.text import TextChopper
from hypothesis import given
from hypothesis import strategies as st

CHOPPERS = {
    "image": ImageChopper(patch_size=4, channels=1, size=8),
    "text": TextChopper(vocabulary=ByteEncoding()),
}
WORDS = ["chop", "up", "everything", "and", "throw", "it", "into", "the", "mix"]


def rows(count: int = 9) -> list[dict]:
    make = np.random.default_rng(0)
    return [
        {"image": make.integers(0, 256, (8, 8), dtype=np.uint8), "text": WORDS[n % 9], "label": n % 3}
        for n in range(count)
    ]


def split(data: list[dict] | None = None, say=lambda text: None, context: int = 32, **mixing) -> SampleSplit:
    data = rows() if data is None else data
    settings = {"columns": {"image": "image", "text": "text"}, "targets": {"text"}, "labels": ("label",)} | mixing
    samples = Listed([f"sample {n}" for n in range(len(data))], data)
    share, size = settings.pop("bad_share", 0.0), settings.pop("size", 1)
    collator = Collator(choppers=CHOPPERS, inputs=Inputs(**settings), context=context, axes=("order", "row", "column"))
    return sample_split(samples, "train", collator, Skipped.of("train", samples.keys, share, say), rows=size)


def main(data, *arguments, **options):
    """The main set of a batch."""
    return data.read(*arguments, **options).main


def texts(planned) -> list[str]:
    chunks = planned.chunks["text"]
    ids = chunks.values.split(chunks.counts.tolist())
    return [ByteEncoding().decode(each[1:].tolist()) for each in ids]


# --------------------------------------------------------------------------------------------------- the plan


def test_a_set_may_have_no_samples():
    """This is the case if no sample of a question can be read. The core here has tokens."""
    planned = place([], CHOPPERS, 32, ("order", "row", "column"), core=2, trim=True)
    assert planned.samples == 0 and planned.core_slots.shape == (0, 2) and planned.core_slots.dtype == torch.long


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 3))
def test_every_epoch_reads_each_sample_once(count, size, seed):
    data = split(rows(count), size=size)
    read = [place for step in range(3 * count) for place in data.plan(seed, step)][: 3 * count]
    for epoch in range(3):
        numbers = [each.number for each in read if each.epoch == epoch]
        assert sorted(numbers) == list(range(count))


def test_a_plan_depends_on_seed_and_step_alone():
    assert split(size=4).plan(3, 7) == split(size=4).plan(3, 7)
    assert split(size=4).plan(3, 7) != split(size=4).plan(4, 7)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40))
def test_first_fit_overfills_no_row(counts):
    assigned = first_fit(counts, 20)
    assert all(sum(c for c, r in zip(counts, assigned) if r == row) <= 20 for row in set(assigned))
    assert set(assigned) == set(range(max(assigned) + 1))
    assert max(assigned) + 1 <= 2 * -(-sum(counts) // 20)


@given(st.lists(st.integers(1, 30), max_size=60))
def test_the_cheapest_rows_cost_no_more_than_rows_of_the_context(counts):
    assigned = cheapest_rows(counts, 30)
    used = [
        sum(count for count, row in zip(counts, assigned) if row == number)
        for number in range(max(assigned, default=0) + 1)
    ]
    assert max(used) <= max(30, 2 * max(counts, default=0)) and (min(used) > 0 or not counts)
    whole = first_fit(counts, 30)
    filled = [
        sum(count for count, row in zip(counts, whole) if row == number) for number in range(max(whole, default=0) + 1)
    ]
    assert len(used) * max(used) * (BREAK_EVEN + max(used)) <= len(filled) * max(filled) * (BREAK_EVEN + max(filled))


def test_rows_have_the_length_that_wastes_least():
    """Samples longer than half a context are placed one per row, in rows shorter than the context, or two per row."""
    assert sorted(cheapest_rows([31] * 8, 40)) in ([0, 0, 1, 1, 2, 2, 3, 3], [*range(8)])
    counts = [21, 24, 28, 31, 36, 40, 45, 49] * 8
    used = np.bincount(cheapest_rows(counts, 64), weights=counts)
    assert sum(counts) / (len(used) * used.max()) > 0.9
    with pytest.raises(ValueError, match="sample 1 has 9 tokens, more than the context of 8"):
        cheapest_rows([3, 9], 8)


def test_first_fit_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="sample 1 has 9 tokens, more than the context of 8"):
        first_fit([3, 9], 8)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=10))
def test_spread_counts_up(runs):
    starts, lengths = (torch.tensor([run[i] for run in runs], dtype=torch.long) for i in (0, 1))
    expected = [start + n for start, length in runs for n in range(length)]
    assert concatenated_ranges(starts, lengths).tolist() == expected


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(0, 2), st.booleans(), st.booleans())
def test_every_token_has_one_slot_and_a_description(lengths, core, trim, right):
    chopped = [[("text", Chunk(torch.arange(n), n))] for n in lengths]
    planned = place(chopped, {"text": CHOPPERS["text"]}, 12, core=core, trim=trim, right=right)
    tokens, n = planned.tokens, planned.tokens.shape[1]
    slots = planned.chunks["text"].slots.tolist() + (
        [] if planned.core_slots is None else planned.core_slots.flatten().tolist()
    )
    assert sorted(slots) == (tokens.sample.flatten() > 0).nonzero()[:, 0].tolist()
    assert len(set(slots)) == sum(lengths) + core * len(lengths)
    assert n <= (max(12, 2 * (max(lengths) + core)) if trim else 12) and (
        not trim or bool((tokens.sample > 0).any(0).all())
    )
    counts = torch.bincount(tokens.sample.flatten(), minlength=len(lengths) + 1)[1:]
    assert counts.tolist() == [length + core for length in lengths]
    if right:
        assert bool((tokens.sample[:, -1] > 0).all())
    for sample in range(1, len(lengths) + 1):  # contiguous, in one row
        at = (tokens.sample == sample).nonzero()
        assert len(set(at[:, 0].tolist())) == 1 and (at[:, 1].diff() == 1).all()


# -------------------------------------------------------------------------------------------------- the batch


def test_a_batch_contains_inputs_labels_and_next_ids():
    planned = main(split(), [SampleIndex(0, 0, 0), SampleIndex(0, 0, 2)])
    assert texts(planned) == ["chop", "everything"]
    assert planned.labels == {"label": [0, 2]} and planned.keys == ("sample 0", "sample 2")
    chunks = planned.chunks["text"]
    assert chunks.next_ids.tolist() == [*b"chop", 256, *b"everything", 256]
    assert planned.chunks["image"].values.shape == (2, 1, 8, 8)
    image = planned.chunks["image"].slots
    row, column = (planned.tokens.position.view(-1, 3)[image, axis].tolist() for axis in (1, 2))
    assert row == [0, 0, 1, 1] * 2 and column == [0, 1, 0, 1] * 2


def test_a_missing_input_takes_no_tokens():
    data = rows()
    data[0]["image"] = None
    planned = main(split(data), [SampleIndex(0, 0, 0)])
    assert list(planned.chunks) == ["text"] and planned.tokens.shape == (1, 5)


def test_inputs_can_be_selected_and_targets_are_always_read():
    planned = main(split(), [SampleIndex(0, 0, 0)], inputs=())
    assert list(planned.chunks) == ["text"]


def shares(dropout: dict[str, float], targets=frozenset(), count: int = 2000, **known) -> dict[tuple[str, ...], float]:
    """The share of each set of inputs that is read of one sample in training."""
    data = split([rows()[0] | known], targets=targets, dropout=dropout)
    read = Counter(
        tuple(name for name, _ in data.chop(SampleIndex(0, epoch, 0), training=True).parts) for epoch in range(count)
    )
    return {names: number / count for names, number in read.items()}


def test_dropout_depends_only_on_the_sample_index_and_on_training():
    data = split(targets=(), dropout={"image": 0.5, "text": 0.5}, size=9)
    places = data.plan(0, 0)
    first, again = (main(data, places, training=True) for _ in range(2))
    assert torch.equal(first.tokens.input, again.tokens.input)
    assert len(main(data, places).chunks["image"].counts) == 9


def test_dropout_withholds_each_input_as_often_as_configured_and_never_targets():
    assert shares({"image": 0.3}, targets=()) == {
        ("image", "text"): pytest.approx(0.7, abs=0.03), ("text",): pytest.approx(0.3, abs=0.03)
    }  # fmt: skip
    assert all("text" in names for names in shares({"image": 0.5, "text": 0.5}, targets={"text"}))
    assert all("text" in names for names in shares({"image": 0.9}, targets=()))


def test_one_input_always_stays_except_in_one_sample_of_a_hundred():
    frequencies = shares({"image": 0.6, "text": 0.6})
    assert frequencies == {
        ("image", "text"): pytest.approx(0.99 * 0.16, abs=0.03),
        ("image",): pytest.approx(0.99 * (0.24 + 0.18), abs=0.03),
        ("text",): pytest.approx(0.99 * (0.24 + 0.18), abs=0.03),
        (): pytest.approx(0.01, abs=0.006),
    }


@given(st.lists(st.floats(0, 0.99), min_size=1, max_size=4), st.integers(0, 2**32))
def test_the_probability_that_an_input_is_withheld_is_computed(chances, seed):
    """`Inputs.dropped` is what `Inputs.drop` does, for any number of inputs and any probabilities."""
    dropout = {f"input{number}": chance for number, chance in enumerate(chances)}
    inputs = Inputs(columns={name: name for name in dropout} | {"text": "text"}, targets={"text"}, dropout=dropout)
    expected = dropped_shares(dropout, one_stays=len(dropout) > 1)
    assert inputs.dropped == {name: share for name, share in expected.items() if share}
    random, count = np.random.default_rng(seed), 3000
    counts = Counter(name for _ in range(count) for name in inputs.drop(list(dropout), list(dropout), random))
    for name, chance in expected.items():
        assert abs(counts[name] / count - chance) < 5 * (chance * (1 - chance) / count) ** 0.5 + 1e-3


@given(st.integers(1, 5), st.booleans(), st.integers(0, 2**32))
def test_any_number_of_inputs_is_withheld_equally_often(number, predicts, seed):
    """Each number from none to all but one (all, if it is the only input beside a predicted one), and each input as
    often as `Inputs.dropped` says."""
    names = [f"input{each}" for each in range(number)]
    inputs = Inputs(columns={name: name for name in [*names, "text"][: number + predicts]}, any_number=True,
                    targets={"text"} if predicts else ())  # fmt: skip
    random, count = np.random.default_rng(seed), 3000
    drawn = [inputs.drop(names, names, random) for _ in range(count)]
    sizes, most = Counter(map(len, drawn)), number - 1 if inputs.one_stays else number
    for size in range(number + 1):
        chance = (0.99 / (most + 1) if size <= most else 0.0) + 0.01 * (size == number)
        assert abs(sizes[size] / count - chance) < 5 * (chance * (1 - chance) / count) ** 0.5 + 1e-3
    counts = Counter(name for each in drawn for name in each)
    for name, chance in inputs.dropped.items():
        assert abs(counts[name] / count - chance) < 5 * (chance * (1 - chance) / count) ** 0.5 + 1e-3
    assert inputs.drop([], names, random) == []


def test_the_only_input_beside_a_predicted_one_is_withheld_as_often_as_configured():
    """Guidance needs a model that was often trained without this input, as `Guided` does."""
    frequencies = shares({"image": 0.3, "text": 0.5}, targets={"text"})
    assert frequencies == {
        ("image", "text"): pytest.approx(0.99 * 0.7, abs=0.03),
        ("text",): pytest.approx(0.307, abs=0.03),
    }


def test_the_only_input_of_a_sample_is_hardly_ever_withheld():
    frequencies = shares({"image": 0.5, "text": 0.5}, text=None)
    assert sum(share for names, share in frequencies.items() if "image" not in names) == pytest.approx(0.01, abs=0.006)


def test_inputs_are_dropped_if_the_context_is_small():
    data = split(context=8, too_long="drop", targets=())
    planned = main(data, [SampleIndex(0, 0, 0), SampleIndex(0, 0, 1)])  # 4 + 5 tokens do not fit, 4 + 3 do
    assert planned.chunks["image"].counts.tolist() == [4, 4] and texts(planned) == ["up"]
    assert data.skipped.dropped == {"text": 1} and data.skipped.shortened() == [
        "train: inputs dropped because they do not fit into the context: text of 1 samples"
    ]


def test_a_sample_without_room_for_an_input_beside_its_target_is_bad():
    """A picture that does not fit beside its predicted text: the sample is not read without the picture instead."""
    data = split(context=8, too_long="drop", bad_share=1.0)
    planned = main(data, [SampleIndex(0, 0, 0), SampleIndex(0, 0, 1)])
    assert planned.keys == ("sample 1",) and not data.skipped.dropped
    assert data.skipped.bad[0] == (
        "none of its inputs fits: 4 tokens are more than the context of 8 minus its 5 predicted tokens; enlarge "
        "model.context, or shorten the samples"
    )


def test_inputs_that_do_not_fit_are_refused_unless_they_may_be_dropped():
    with pytest.raises(
        DataError,
        match="sample 'sample 0' is bad: it has 9 tokens, more than the context of 8; data.too_long: "
        "drop would drop its image",
    ):
        main(split(context=8), [SampleIndex(0, 0, 0)])


@given(st.sampled_from(["refuse", "drop"]), st.integers(1, 40), st.booleans())
def test_a_sample_of_which_nothing_can_be_read_is_bad_and_has_no_answer(too_long, context, training):
    """A text that is longer than the context makes its sample bad; it does not become a sample without tokens."""
    texts = [{"text": "ab", "image": None}, {"text": "a" * 39, "image": None}]
    data = split(texts, context=context, too_long=too_long, bad_share=1.0, targets=(), labels=())
    if context < 3:
        with pytest.raises(DataError, match="all samples are bad"):
            data.read([SampleIndex(0, 0, 0)], training=True)
        return
    planned = data.read([SampleIndex(0, 0, 0), SampleIndex(0, 0, 1)], training=training).main
    counts = torch.bincount(planned.tokens.sample.flatten(), minlength=planned.samples + 1)[1:]
    assert (counts > 0).all() and planned.samples == len(planned.keys)
    if context < 40 and not training:
        assert planned.keys == ("sample 0",) and "none of its inputs fits: 40 tokens are more" in data.skipped.bad[1]


def test_a_sample_that_has_none_of_the_inputs_is_bad():
    with pytest.raises(DataError, match=r"sample 'sample 0' is bad: it has none of the inputs \(image, text\)"):
        main(split([{"text": None, "image": None}]), [SampleIndex(0, 0, 0)])


def test_targets_that_do_not_fit_make_a_sample_bad():
    messages = []
    data = split(context=8, say=messages.append, bad_share=0.5, too_long="drop")
    assert texts(main(data, [SampleIndex(0, 0, 2)], training=True)) == [
        "and"
    ]  # 'everything' is too long; the next is read
    assert messages == ["train: sample 'sample 2' is bad and replaced by the next sample: its 11 tokens of text are "
                        "more than the context of 8: enlarge the context, or shorten the samples"]  # fmt: skip
    assert main(data, [SampleIndex(0, 0, 2), SampleIndex(0, 0, 1)]).keys == ("sample 1",)  # an evaluation leaves it out


def test_too_many_bad_samples_stop_the_run():
    data = rows()
    data[3]["image"] = b"no image"
    with pytest.raises(
        DataError, match="'sample 3' is bad: image: the image cannot be read: .*bad_share allows a share of 0"
    ):
        main(split(data), [SampleIndex(0, 0, 3)])
    bad = split(data, bad_share=0.2)
    assert main(bad, [SampleIndex(0, 0, 3)], training=True).keys == ("sample 4",)
    assert list(bad.skipped.bad) == [3]


def test_a_split_without_samples_is_refused():
    with pytest.raises(DataError, match="train holds no samples"):
        split([])


# --------------------------------------------------------------------------------------------------- shards


def tar(path, members: dict[str, bytes]):
    with tarfile.open(path, "w:gz" if str(path).endswith("gz") else "w") as file:
        for name, value in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(value)
            file.addfile(info, io.BytesIO(value))
    return str(path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    return tmp_path


MEMBERS = {"a/1.txt": b"one", "a/1.cls": b"1", "a/2.txt": b"two", "a/2.json": json.dumps({"who": "me"}).encode()}


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_shards_are_read_by_number(cache, ending):
    for folder in "xy":
        (cache / folder).mkdir()
    path, other = (tar(cache / folder / f"s.{ending}", MEMBERS) for folder in "xy")
    shards = Shards((path, other))
    assert list(shards.keys) == [f"{shard}/{key}" for shard in (path, other) for key in ("a/1", "a/2")]
    assert shards[2] == {"txt": "one", "cls": 1} and shards[1] == {"txt": "two", "json": {"who": "me"}}
    assert list(shards.column("cls")) == [1, 1]
    assert Shards((path,))[0] == shards[0]  # the index is kept


def test_columns_of_a_webdataset_are_named_in_its_options(cache):
    many = {f"{n}.txt": str(n).encode() for n in range(40)} | {}
    tar(cache / "train-0.tar", {k: v for k, v in many.items() if int(k[:-4]) < 20})
    tar(cache / "train-1.tar", {k: v for k, v in many.items() if int(k[:-4]) >= 20})
    dataset = Webdataset(train=str(cache / "train-{0..1}.tar"), columns={"text": "txt", "who": "json.who"})
    train, val = dataset.open("train"), dataset.open("val")
    assert sorted([*train.keys, *val.keys], key=int) == [str(n) for n in range(40)] and len(val) > 0
    assert train[0]["text"] == train.keys[0] and train[0]["who"] is None


def test_damaged_and_missing_shards_are_named(cache):
    whole = tar(cache / "s.tar", {f"{n}.txt": b"x" * 2000 for n in range(5)})
    (cache / "cut.tar").write_bytes(Path(whole).read_bytes()[:4000])
    damaged_shard = Shards((str(cache / "cut.tar"),))
    assert damaged_shard.keys == ["0", "1 and what follows"] and damaged_shard[0] == {"txt": "x" * 2000}
    with pytest.raises(DataError, match=r"cut\.tar is damaged or cut short after '1': its end is missing"):
        damaged_shard[1]
    ((number, why),) = damaged_shard.damaged()
    assert number == 1 and "cut.tar" in why
    (cache / "start.tar").write_bytes(Path(whole).read_bytes()[:100])
    with pytest.raises(DataError, match=r"start\.tar is damaged or cut short"):
        len(Shards((str(cache / "start.tar"),)))
    content = np.random.default_rng(0).bytes(300_000)
    packed = Path(tar(cache / "s.tar.gz", {f"{n}.bin": content for n in range(3)})).read_bytes()
    (cache / "cut.tar.gz").write_bytes(packed[: len(packed) // 2])
    assert Shards((str(cache / "cut.tar.gz"),)).keys == ["0", "1 and what follows"]
    (cache / "flipped.tar.gz").write_bytes(packed[:400_000] + bytes([packed[400_000] ^ 255]) + packed[400_001:])
    for broken in ("flipped", "nothing"):
        (cache / "nothing.tar.gz").write_bytes(packed[:5])
        with pytest.raises(DataError, match=rf"{broken}\.tar\.gz cannot be unpacked, it is damaged or cut short"):
            len(Shards((str(cache / f"{broken}.tar.gz"),)))
    with pytest.raises(DataError, match="no shard at"):
        expand(str(cache / "none-*.tar"))


def test_names_that_are_not_text_are_escaped_and_impossible_sizes_are_refused(cache):
    assert Shards((tar(cache / "s.tar", {"a\udcff.txt": b"x"}),)).keys == ["a\\udcff"]
    long = tar(cache / "long.tar", {"a" * 120 + ".txt": b"x"})  # its name is in a separate member
    content = bytearray(Path(long).read_bytes())
    for size in (
        b"\xff" * 12,
        b"\x80" + b"\xff" * 11,
        b"\x80" + bytes(6) + b"\xff" * 5,
    ):  # -1, 2**88, 2**40, as tar writes them
        content[124:136] = size
        content[148:156] = b"%06o\0 " % (sum(content[:148]) + 8 * 32 + sum(content[156:512]))
        Path(long).write_bytes(content)
        with pytest.raises(DataError, match=r"long\.tar is damaged or cut short"):
            len(Shards((long,)))


@pytest.mark.parametrize("size", [-1, -512, -(2**70), 2**40, 2**70])
def test_a_pax_header_may_contain_any_size(cache, size):
    with tarfile.open(cache / "s.tar", "w", format=tarfile.PAX_FORMAT) as file:
        for name, headers in (("0.txt", {}), ("1.txt", {"size": str(size)})):
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = 3, headers
            file.addfile(member, io.BytesIO(b"one"))
    shards = Shards((str(cache / "s.tar"),))
    assert len(shards) == 2 and shards[0] == {"txt": "one"}
    with pytest.raises(DataError, match=r"s\.tar is damaged or cut short after"):
        shards[1]


def test_a_pattern_that_is_longer_than_a_path_is_refused(cache):
    with pytest.raises(DataError, match="has 100,000 characters; a path has 4,096 at most"):
        expand("[" * 100_000)


def test_keys_are_unique_over_shards(cache):
    paths = tuple(tar(cache / f"{name}.tar", {"0.txt": name.encode(), "1.txt": b"x"}) for name in "ab")
    assert Shards(paths[:1]).keys == ["0", "1"]
    assert Shards(paths).keys == ["a.tar/0", "a.tar/1", "b.tar/0", "b.tar/1"]
    assert [Shards(paths)[number]["txt"] for number in (0, 2)] == ["a", "b"]
    apart = tar(cache / "apart.tar", {"0.txt": b"x", "1.txt": b"x", "0.cls": b"1"})
    with pytest.raises(DataError, match=r"apart\.tar/0 occurs twice: the members of a sample must be adjacent"):
        assert Shards((apart,)).keys


def test_a_tenth_validates_if_there_is_no_val_split():
    samples = Listed([f"key {n}" for n in range(1000)], [{}] * 1000)
    train, val = share(samples, "train"), share(samples, "val")
    assert 60 < len(val) < 140 and len(train) + len(val) == 1000
    assert not set(train.keys) & set(val.keys) and isinstance(val, Chosen)


# --------------------------------------------------------------------------------------- fingerprints, and drawn values


class Numbered(Made):
    """Samples that are computed when they are read, as in most data sets; some tests change their `labels`."""

    def __init__(self, labels: list[int]):
        super().__init__("train", len(labels), "number")
        self.labels = labels

    def parts(self, number):
        return {"n": lambda: number, "label": lambda: self.labels[number]}


FORMS = {
    "generated": Numbered,
    "listed": lambda labels: Listed([str(n) for n in range(len(labels))], [{"label": label} for label in labels]),
    "divided": lambda labels: share(Numbered(labels), "train"),
    "some hidden": lambda labels: Hidden(Numbered(labels), "n", {3}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_samples_with_two_swapped_labels_have_another_fingerprint(form):
    """Their fingerprint differs, although the keys and inputs of all 200 samples are the same."""
    labels = [n % 7 for n in range(200)]
    known = FORMS[form](labels).fingerprint(("label",))
    assert FORMS[form](list(labels)).fingerprint(("label",)) == known
    for number in range(1, 199, 12):
        swapped = [*labels[:number], labels[number + 1], labels[number], *labels[number + 2 :]]
        assert FORMS[form](swapped).fingerprint(("label",)) != known


def test_shards_with_two_swapped_labels_have_another_fingerprint(cache):
    fingerprints = []
    for names in ("01", "01", "10"):
        path = tar(cache / "s.tar", {f"{n}.cls": name.encode() for n, name in enumerate(names)})
        fingerprints.append(Renamed(Shards((path,)), {"label": lambda row: row["cls"]}, {"label": "cls"}).fingerprint())
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_values_for_statistics_are_drawn_from_all_samples():
    """Not only from the first ones, which may be of one kind. They are the same in every run, and each occurs once; a
    sample without a value is skipped."""
    samples = Listed([str(n) for n in range(100)], [{"n": n} if n % 4 else {} for n in range(100)])
    values = list(samples.drawn("n", 20))
    assert values == list(samples.drawn("n", 20)) and len(set(values)) == 20 and min(n % 4 for n in values) > 0
    assert sum(n > 50 for n in values) > 5 and sum(n < 50 for n in values) > 5
    assert sorted(samples.drawn("n", 1000)) == [n for n in range(100) if n % 4]
    assert list(Whole(samples, ("n",)).training_items(["n"], 20)) == values


# ---------------------------------------------------------------------------------------- generated by a rule


def test_tones_have_the_frequencies_of_their_digits():
    for number in range(10):
        row = Dtmf().open("val")[number]
        clip, rate = row["sound"]
        power = np.abs(np.fft.rfft(clip)) ** 2
        at = np.fft.rfftfreq(len(clip), 1 / rate)
        loud = {f: power[np.abs(at - f) < 5].max() for f in {*LOW.values(), *HIGH.values()}}
        digit = str(row["label"])
        assert (
            rate == RATE
            and max(LOW.values(), key=loud.get) == LOW[digit]
            and max(HIGH.values(), key=loud.get) == HIGH[digit]
        )


def test_arithmetic_has_separate_images_in_each_split_and_correct_answers():
    dataset = Arithmetic(samples=50)
    owners = [set(dataset.digits.numbers(name)) for name in dataset.splits]
    assert not owners[0] & owners[1] and not owners[1] & owners[2] and sum(map(len, owners)) == 1797
    for number in range(20):
        row, again = dataset.open("val")[number], dataset.open("val")[number]
        left, right = row["answer"].split("=")[0].split(row["operator"])
        assert row["answer"] == answer(int(left), row["operator"], int(right))
        assert eval(row["answer"].replace("=", "==")) and np.array_equal(row["sound"][0], again["sound"][0])
    assert sum(outcome.probability for outcome in dataset.truth("val")) == pytest.approx(1)
    assert answer(3, "-", 7) == "3-7=-4" and answer(3, "-", 7, scratchpad=False) == "-4"


# ------------------------------------------------------------------------------------------------ files of a user


def test_folders_are_classes(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(20):
            (tmp_path / name / f"{number}.png").write_bytes(b"x")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    dataset = ImageFolder(train=str(tmp_path))
    train, val = dataset.open("train"), dataset.open("val")
    assert len(train) + len(val) == 40 and len(val) > 0
    assert sorted({train[n]["label"] for n in range(len(train))}) == ["cat", "dog"]
    with pytest.raises(DataError, match="has no images in folders named by class"):
        ImageFolder(train=str(tmp_path / "cat")).open("train")
    with pytest.raises(DataError, match="there is no folder"):
        ImageFolder(train=str(tmp_path / "none")).open("train")


def test_paths_in_a_manifest_are_relative_to_its_folder(tmp_path):
    lines = [{"key": f"k{n}", "image": f"images/{n}.png", "word": "w", "skipped": 1} for n in range(30)]
    (tmp_path / "frames.jsonl").write_text('{"video": ["a/0.png", "a/1.png"]}')
    frames = Manifest(train=str(tmp_path / "frames.jsonl"), val="x", columns=["video"], files=["video"]).open("train")
    assert frames[0] == {"video": [tmp_path / "a" / "0.png", tmp_path / "a" / "1.png"]}
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    dataset = Manifest(train=str(file), columns=["image", "word"], files=["image"])
    train = dataset.open("train")
    assert train[0] == {"image": tmp_path / "images" / f"{train.keys[0][1:]}.png", "word": "w"}
    assert len(train) + len(dataset.open("val")) == 30
    data = split([{"image": tmp_path / "none.png", "text": "a", "label": 0}])
    with pytest.raises(DataError, match=r"'sample 0' is bad: image: the image cannot be read: .*none\.png"):
        main(data, data.all())


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "line 1: not JSON"), ("[1]", "line 1: expected a mapping, not list"), ("", "holds no samples"),
     ('{"key": "a"}\n{"key": "a"}', "the key 'a' occurs twice")],
)  # fmt: skip
def test_wrong_manifests_are_refused(tmp_path, text, message):
    (tmp_path / "m.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        Manifest(train=str(tmp_path / "m.jsonl"), columns=["image"]).open("train")
    with pytest.raises(ValueError, match="'sound' is not among the columns"):
        Manifest(train="m", columns=["image"], files=["sound"])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("memory://nowhere/train.tar", "no such file"),
        ("nosuch://x/train.tar", "'nosuch://x/train.tar' is not supported"),
    ],
)
def test_remote_shards_that_do_not_exist_are_named(path, message, memory_protocol):
    with pytest.raises(DataError, match=message):
        len(Shards((path,)))


def test_missing_numbers_become_nan_and_text_is_refused():
    from chopmix.tasks.regression import numbers

    assert numbers([0.0, None, 2]).isnan().tolist() == [False, True, False] and numbers(3).tolist() == [3.0]
    with pytest.raises(DataError, match="'fast' is not a number or a list of numbers"):
        numbers("fast")


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e39, [1.0, math.inf], [None, -1e39], np.array([1e39])])
def test_numbers_that_are_infinite_in_float32_are_refused_as_targets(value):
    """Such a number would make the mean infinite."""
    from chopmix.tasks.regression import numbers

    with pytest.raises(DataError, match="holds a number that is infinite in float32"):
        numbers(value)


def test_an_unused_split_is_freed_at_once(tmp_path):
    """Its decoded items, up to a gigabyte, are freed with it: no reference cycle may wait for Python's collector, which
    counts objects, not bytes."""
    import gc
    import weakref

    from chopmix.data.sampler import SimilarLengths

    class Measured:
        def lengths(self):
            return np.ones((4, 2), dtype=int)

    measured = Measured()
    alive, sampler = weakref.ref(measured), SimilarLengths(measured.lengths, 2)
    assert len(sampler.plan(0, 3)) == 2
    gc.disable()
    try:
        del measured, sampler
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("length", [1, 16, 4096])
def test_the_cache_of_items_takes_no_more_memory_than_it_may(length):
    cache = ItemCache(300_000)
    ItemCache(300_000).put(0, ({"x": np.zeros(1, np.float32)}, {}))  # memory of the first call is not counted
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(2000):
            item = {"x": np.zeros(length, np.float32), "y": np.zeros(1, np.float32)}
            cache.put(number, (item, {}))
            del item
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 10 < len(cache.items) < 2000 and 150_000 < taken < 345_000


@pytest.mark.system
def test_tensors_in_the_cache_of_items_take_no_more_memory_than_they_may():
    """For a small tensor, torch uses more memory beside the numbers than for the numbers."""
    script = """
from pathlib import Path
import torch
from chopmix.data.reader import ItemCache

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

tensor, cache, before = torch.zeros(8) + 1, ItemCache(40_000_000), resident()
for number in range(100_000):
    cache.put(number, ({"x": tensor * 2, "stream": {"values": tensor * 2, "seconds": tensor * 2}}, {}))
print(len(cache.items), resident() - before)
"""
    kept, taken = map(
        int, subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.split()
    )
    assert 1000 < kept < 100_000 and taken < 44_000_000


def test_an_empty_list_of_files_is_refused():
    """An empty list used to mean "without a val split" for texts, and was an IndexError for shards."""
    for dataset in (partial(Text, train="a.txt"), partial(Webdataset, train="a.tar", columns={"image": "jpg"})):
        for split in ("train", "val", "test"):
            with pytest.raises(ValueError, match=f"{split} names no file; remove it, or name at least one file"):
                dataset(**{split: []})
