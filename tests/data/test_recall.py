"""The data set `recall`, in which a number is remembered over a long count, and a run with notes."""

import json

import pytest
from chopmix.commands.cli import main
from chopmix.data.datasets.recall import NUMBERS, Recall
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from hypothesis import given
from hypothesis import strategies as st

TINY = [
    "model.width=16", "model.depth=2", "data.dataset.samples=40", "data.dataset.least=1", "training.steps=2",
    "training.samples_per_step=4", "evaluation.generated=2", "evaluation.every=2", "logging.tensorboard=false",
]  # fmt: skip


@given(split=st.sampled_from(["train", "val", "test"]), number=st.integers(0, 999), least=st.integers(1, 99))
def test_the_answer_notes_the_number_counts_down_and_repeats_the_number(split, number, least):
    sample = Recall(samples=1000, least=least).open(split)[number]
    remembered, start = sample["question"].split()
    count = [f"{left:02}" for left in reversed(range(int(start) + 1))]
    assert sample["answer"] == f"[{remembered}]" + " ".join([*count, remembered])
    assert least <= int(start) <= 99 and int(remembered) in NUMBERS[split]
    assert len(" ".join(count)) >= 3 * least


def test_splits_share_no_number_and_each_has_every_digit_at_every_place():
    splits = [{*numbers} for numbers in NUMBERS.values()]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 1000
    for numbers in splits:
        assert all({f"{number:03}"[place] for number in numbers} == {*"0123456789"} for place in range(3))


@pytest.mark.parametrize("least", [0, 100])
def test_a_count_must_have_at_most_two_digits(least):
    with pytest.raises(ValueError, match="least must be from 1 to 99"):
        Recall(least=least)


@pytest.mark.system
def test_a_run_with_notes_trains_and_generates_and_reports_a_note_that_is_not_closed(tmp_path, capsys):
    train(load_config("configs/lm/notes.yaml", [*TINY, f"out={tmp_path / 'run'}"]))
    assert "exact_match" in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert main(["generate", str(tmp_path / "run"), "--input", "question=472 03", "--max-tokens", "9"]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())
    (tmp_path / "open_note.jsonl").write_text('{"question": "472 01", "answer": "[472 01 00"}\n')
    capsys.readouterr()
    main(["evaluate", str(tmp_path / "run"), "--data", f"{tmp_path / 'open_note.jsonl'}"])
    assert "the note that begins at token 1 has no closing" in "".join(capsys.readouterr())


def test_windows_of_a_corpus_that_would_cut_notes_are_refused(tmp_path, capsys):
    (tmp_path / "corpus.txt").write_text("a [note] " * 200)
    (tmp_path / "corpus.yaml").write_text(
        f"inputs: {{text: {{use: noted_text, encoding: characters}}}}\n"
        f"model: {{width: 16, depth: 1, heads: 1, context: 16}}\n"
        f"tasks: {{text: {{use: language_modeling, target: text}}}}\n"
        f"data: {{dataset: {{use: text, train: {tmp_path / 'corpus.txt'}}}}}\n"
        f"training: {{steps: 1, tokens_per_step: 16}}\n"
    )
    main(["train", str(tmp_path / "corpus.yaml"), f"out={tmp_path / 'run'}"])
    assert "windows cannot be cut along the axis 'note' of input 'text'" in "".join(capsys.readouterr())
