"""Judges: their figures for items whose answers are known, and what they save."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from chopmix.files.reading import DataError
from chopmix.models.model import Model
from chopmix.tasks.classification import Classification
from chopmix.tasks.ctc import Ctc
from chopmix.tasks.judges import accepted_by
from chopmix.tasks.judges.accepted_by import AcceptedBy
from chopmix.tasks.judges.copies import Copies
from chopmix.tasks.judges.molecules import LONGEST, Molecules, canonical
from chopmix.tasks.judges.transcribed_by import TranscribedBy
from chopmix.tasks.judging import Generated, TrainingItems
from chopmix.tokenizers.base import RunPart, no_run
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.image import ImageChopper
from chopmix.tokenizers.image_ids import PatchVocabulary

PATCHES = PatchVocabulary(pictures=ImageChopper(patch_size=2, channels=1, size=(2, 4)))


def training(*items, vocabulary=PATCHES, labels=()):
    """The training items with which a judge is fitted."""
    return TrainingItems(lambda: iter(items), lambda column: iter(labels), vocabulary)


def part(answers=lambda sample: {"class": "1"}, inputs=("image",), tasks=("digit",), **more):
    """A run that answers by a rule."""
    return RunPart(
        name="runs/judge", model=Model.__new__(Model), choppers=dict.fromkeys(inputs), context=4, core_tokens=0,
        content="0",
        write=lambda folder: Path(folder).mkdir(parents=True), tasks=tasks,
        predict=lambda samples: [{tasks[0]: answers(sample)} for sample in samples], **more,
    )  # fmt: skip


def picture(*ids):
    return PATCHES.restore(ids)


def test_a_run_judges_whether_items_have_the_requested_label(tmp_path):
    judge = AcceptedBy(run="runs/judge")
    judge.fit(lambda folder: part(lambda sample: {"class": str(int(sample["image"].any()))}), training())
    white, black = picture(15, 15), picture(0, 0)
    items = [
        Generated(white, white, {"label": 1}),
        Generated(white, black, {"label": 0}),
        Generated(None, white, {"label": 1}),
    ]
    assert judge.judge(items, PATCHES) == {"": 1 / 3, "_real": 1.0, "_decoded": 1.0}
    assert {"", "_real", "_decoded", "_recall"} <= judge.figures.keys() and judge.columns == ("label",)
    judge.save(tmp_path / "a")
    loaded = AcceptedBy(run="gone")
    loaded.load(tmp_path / "a", lambda folder: part())
    assert loaded.judge(items, PATCHES)[""] == 1 / 3
    with pytest.raises(DataError, match="a/run has other weights than when this judge was saved; restore the original"):
        AcceptedBy(run="gone").load(tmp_path / "a", lambda folder: replace(part(), content="1"))
    with pytest.raises(DataError, match="run, the run of a judge, is missing; copy complete run folders"):
        AcceptedBy(run="gone").load(tmp_path / "b", lambda folder: part())


@pytest.mark.parametrize(
    ("options", "inputs", "tasks", "message"),
    [
        ({}, ("a", "b"), ("t",), "has 2 inputs: set `input`; possible: a, b"),
        ({"task": "x"}, ("a",), ("t",), "has no task 'x'; possible: t"),
        ({}, ("a",), ("t", "u"), "has 2 tasks: set `task`; possible: t, u"),
    ],
)
def test_a_run_that_cannot_judge_is_refused(options, inputs, tasks, message):
    with pytest.raises(ValueError, match=message):
        AcceptedBy(run="r", **options).fit(lambda folder: part(inputs=inputs, tasks=tasks), training())


def test_a_run_without_classes_cannot_judge():
    judge = AcceptedBy(run="r")
    judge.fit(lambda folder: part(lambda sample: {"value": 3}), training())
    with pytest.raises(ValueError, match="task 'digit' returns no class, but value"):
        judge.judge([Generated(picture(1, 2), picture(1, 2), {"label": 1})], PATCHES)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (lambda sample: {"value": 3}, "it fails for true items: runs/judge: task 'digit' returns no class, but value"),
        (lambda sample: {}, "it fails for true items: task 'digit' returns no class for any of them"),
        (lambda sample: int("x"), "cannot score generated items, because it fails for true items: invalid literal"),
    ],
)
def test_a_run_that_fails_for_true_items_is_refused_before_the_first_step(answers, message):
    with pytest.raises(ValueError, match=message):
        AcceptedBy(run="r").fit(lambda folder: part(answers), training(picture(1, 2)))


def run_with_answers(*answers):
    """A run that can give only these answers."""

    def check(task: str, text: str) -> None:
        if text not in answers:
            raise ValueError(f"its classes are {', '.join(answers)}")

    return lambda folder: part(check_answer=check)


@pytest.mark.parametrize("kind", [AcceptedBy, TranscribedBy])
def test_a_judge_of_another_vocabulary_is_refused_before_the_first_step(kind):
    labels = [1, float("nan"), 1, None, 0]
    kind(run="r").fit(run_with_answers("0", "1"), training(labels=labels))
    message = r"runs/judge cannot answer '1', a value of column 'label': its classes are zero, one"
    with pytest.raises(ValueError, match=message):
        kind(run="r").fit(run_with_answers("zero", "one"), training(labels=labels))


def test_a_judge_of_another_rate_is_refused_before_the_first_step():
    sounds = type("Sounds", (), {"rate": 16_000})()
    sound_part = partial(part, inputs=("sound",))
    for rate in (None, 16_000):
        judging_part = replace(sound_part(), choppers={"sound": type("Input", (), {"rate": rate})()})
        AcceptedBy(run="r").fit(lambda folder, judging_part=judging_part: judging_part, training(vocabulary=sounds))
    judging_part = replace(sound_part(), choppers={"sound": type("Input", (), {"rate": 8_000})()})
    message = (
        r"runs/judge: input 'sound' has 8,000 Hz, but generated sounds have 16,000 Hz; train a judge with this rate"
    )
    with pytest.raises(ValueError, match=message):
        AcceptedBy(run="r").fit(lambda folder: judging_part, training(vocabulary=sounds))


def test_tasks_refuse_answers_that_they_can_never_give():
    digits = Classification(target="label")
    digits.learned = Classification.Learned([0, 1])
    digits.check_answer("1")
    with pytest.raises(ValueError, match="its classes are 0, 1"):
        digits.check_answer("one")
    letters = Ctc(target="text", source="sound")
    letters.learned = Ctc.Learned("01 ")
    letters.check_answer("1 0")
    with pytest.raises(ValueError, match="'o' is not one of its symbols '01 '"):
        letters.check_answer("one")


def test_copies_of_training_items_are_counted(tmp_path):
    judge = Copies()
    judge.fit(no_run, training([1, 2], [3, 4]))
    judge.save(tmp_path)
    loaded = Copies()
    loaded.load(tmp_path, no_run)
    assert np.array_equal(loaded.training, [[1, 2], [3, 4]])
    for each in (judge, loaded):
        copied = [Generated(picture(1, 2), picture(5, 6), {}), Generated(picture(3, 4), picture(5, 4), {})]
        assert each.judge(copied, PATCHES) == {"": 1.0, "_exact": 1.0, "_exact_real": 0.0}
        alike = [Generated(picture(5, 6), picture(7, 8), {}), Generated(None, picture(9, 9), {})]
        assert each.judge(alike, PATCHES) == {"": 0.5, "_exact": 0.0, "_exact_real": 0.0}
    with pytest.raises(ValueError, match="all must have the same length"):
        judge.fit(no_run, training([1, 2], [3]))
    with pytest.raises(ValueError, match="the training data has no complete item"):
        judge.fit(no_run, training())
    (tmp_path / "training-2.u16").write_bytes(b"123")
    with pytest.raises(DataError, match="the ids of training items are missing or damaged"):
        loaded.load(tmp_path, no_run)
    (tmp_path / "training-2.u16").unlink()
    (tmp_path / "training-2.u16").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"training-2\.u16 does not exist"):
        loaded.load(tmp_path, no_run)


def test_incomplete_items_are_not_counted_as_copies():
    judge = Copies()
    judge.fit(no_run, training([1, 2], [3, 4]))
    incomplete = [Generated(None, picture(1, 2), {}), Generated(None, picture(9, 9), {})]
    assert judge.judge(incomplete, PATCHES) == {"_exact_real": 0.5}


@pytest.mark.parametrize("missing", [None, float("nan")])
@pytest.mark.parametrize(("kind", "answer", "wrong"), [(AcceptedBy, "class", 0.0), (TranscribedBy, "text", 1.0)])
def test_samples_without_a_label_are_not_judged(kind, answer, wrong, missing):
    """They are counted; an item that is not complete still counts as wrong."""
    judge, white = kind(run="r"), picture(15, 15)
    judge.fit(lambda folder: part(lambda sample: {answer: "7"}), training())
    known = [Generated(white, white, {"label": 7})]
    unlabelled = [Generated(white, white, {"label": missing}), Generated(None, white, {"label": missing})]
    right = {"": 1 - wrong, "_real": 1 - wrong, "_decoded": 1 - wrong}
    assert judge.judge(known, PATCHES) == right
    assert judge.judge(known + unlabelled, PATCHES) == right | {"_unlabelled": 2}
    figures = judge.judge([*known, Generated(None, white, {"label": 7}), *unlabelled], PATCHES)
    assert figures == right | {"": 0.5, "_unlabelled": 2}
    with pytest.raises(DataError, match="none of the 2 samples has a value in column 'label', so generated ite"):
        judge.judge(unlabelled, PATCHES)


def spread_of(generated, true, labels=None):
    """The figures of a classifier whose features of an item are the item itself."""

    def pooled(task, samples):
        return torch.tensor([sample["image"] for sample in samples], dtype=torch.float32)

    judge = AcceptedBy(run="r")
    judge.part, judge.input, judge.task = part(pooled=pooled), "image", "digit"
    labels = labels or ["1"] * len(true)
    return judge.spread([Generated(a, b, {}) for a, b in zip(generated, true)], labels)


def test_generated_items_are_compared_with_true_items():
    random = np.random.default_rng(0)
    true = random.normal(size=(60, 3)).tolist()
    same, apart = spread_of(true, true), spread_of((np.array(true) + 100).tolist(), true)
    assert (same["_recall"], same["_coverage"], same["_compared"]) == (1, 1, 60)
    assert (apart["_recall"], apart["_coverage"]) == (0, 0)
    assert 0.7 < same["_recall_real"] < 1 and 0.7 < same["_coverage_real"] < 1
    assert {name: apart[name] for name in apart if name.endswith("_real")} == {
        name: same[name] for name in same if name.endswith("_real")
    }
    assert same["_variance"] == same["_variance_real"] == pytest.approx(np.cov(np.array(true).T).trace())
    collapsed = spread_of([true[0]] * 60, true)
    assert collapsed["_recall"] == pytest.approx(1 / 60) and collapsed["_coverage"] < 0.25
    assert collapsed["_variance"] == 0
    other = spread_of(random.normal(size=(60, 3)).tolist(), true)
    assert other["_recall"] > 0.7 and 0.7 < other["_coverage"] < 1


def test_only_complete_items_are_compared():
    true = np.random.default_rng(0).normal(size=(20, 3)).tolist()
    incomplete = [item if number < 8 else None for number, item in enumerate(true)]
    figures = spread_of(incomplete, true, ["a", "b"] * 10)
    assert figures["_compared"] == 8 and figures["_recall"] == 1 and "_recall_real" not in figures
    few = spread_of(true[:5], true[:5], list("abcde"))
    assert few == {"_compared": 5}, "no neighbours, and no two of a class"
    assert spread_of([None] * 3, true[:3]) == {}
    with_nan = spread_of([*true[:6], [float("nan")] * 3], true[:7])
    assert with_nan["_compared"] == 6


def test_of_many_items_only_some_are_compared(monkeypatch):
    monkeypatch.setattr(accepted_by, "MOST_ITEMS", 10)
    true = np.random.default_rng(0).normal(size=(25, 2)).tolist()
    assert spread_of(true, true)["_compared"] == 9, "every third"


def test_molecules_are_judged(tmp_path):
    judge = Molecules()
    judge.fit(no_run, training("CCO", "C"))
    judge.save(tmp_path)
    loaded = Molecules()
    loaded.load(tmp_path, no_run)
    items = [Generated(smiles, None, {}) for smiles in ("OCC", "CCN", "NCC", "C(", None)]
    for each in (judge, loaded):  # OCC is CCO, NCC is CCN
        assert each.judge(items, ByteEncoding()) == {"_valid": 0.6, "_unique": 2 / 3, "_novel": 0.5}
        assert each.judge([], ByteEncoding()) == {"_valid": 0.0, "_unique": 0.0, "_novel": 0.0}
    with pytest.raises(DataError, match=r"training\.u64 is missing or damaged"):
        loaded.load(tmp_path / "other", no_run)
    with pytest.raises(ValueError, match="molecules must be texts .SMILES.; an item of the target is "):
        judge.fit(no_run, training(picture(1, 2)))


def test_a_speech_recogniser_judges(tmp_path):
    judge = TranscribedBy(run="runs/judge", column="label")
    judge.fit(lambda folder: part(lambda sample: {"text": "7 7" if sample["image"].any() else "0"}), training())
    white, black = picture(15, 15), picture(0, 0)
    items = [Generated(black, white, {"label": "7 7"}), Generated(None, black, {"label": 0})]
    assert judge.judge(items, PATCHES) == {"": 1.0, "_real": 0.0, "_decoded": 0.0}  # "0" for "7 7", nothing for "0"


def test_a_molecule_longer_than_the_limit_is_not_read():
    """RDKit took 47 seconds for 15,000 letters."""
    pytest.importorskip("rdkit")
    rings = "C1CC1" * (LONGEST // 5)
    assert canonical(rings) is not None and canonical(rings + "C") is None and canonical("C" * 10**6) is None


def test_a_damaged_file_of_training_molecules_is_refused(tmp_path):
    judge = Molecules()
    judge.training_digests = np.array([3, 5], np.uint64)
    judge.save(tmp_path)
    loaded = Molecules()
    loaded.load(tmp_path, no_run)
    assert loaded.training_digests.tolist() == [3, 5]
    for harm in (lambda file: file.write_bytes(b"123"), lambda file: file.unlink(), os.mkfifo):
        harm(tmp_path / "training.u64")
        with pytest.raises(DataError, match="training.u64 is missing or damaged"):
            loaded.load(tmp_path, no_run)


def test_a_content_file_that_is_not_text_is_refused(tmp_path):
    judge = AcceptedBy(run="runs/judge", column="label")
    (tmp_path / "run").mkdir()
    (tmp_path / "content.txt").write_bytes(b"\x93abc")
    with pytest.raises(DataError, match="content.txt"):
        judge.load(tmp_path, lambda folder: part(lambda sample: {"class": "a"}))


def test_counts_are_those_of_the_items_behind_a_figure():
    """Some generated items have no label, and some have no vector; these do not count."""
    judge = AcceptedBy(run="runs/judge", column="label")
    figures = {"": 0.5, "_real": 1.0, "_unlabelled": 15.0, "_compared": 4.0, "_recall_real": 0.9}
    counts = judge.counts(figures, 20)
    assert counts == {"": 5, "_real": 5, "_compared": 4, "_recall_real": 4}
    assert {name for name, each in judge.figures.items() if each.larger_is_better is None} == {
        "_variance", "_variance_real", "_compared", "_unlabelled"
    }  # fmt: skip
