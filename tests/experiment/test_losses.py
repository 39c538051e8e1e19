"""`run.losses` computes the losses of samples, texts and tokens, also from some of the inputs; an evaluation writes the
same losses into its table."""

import csv
import json
import math

import chopmix
import numpy as np
import pytest
import torch
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.run import load_run
from chopmix.files.errors import RunError
from test_run_samples import TREE, tree_of, write_clinic


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clinic")
    (folder / "x.yaml").write_text(
        yaml.safe_dump(tree_of(write_clinic(folder), folder / "run", split={"group": "patient"}))
    )
    assert main(["train", str(folder / "x.yaml")]) == 0
    return load_run(folder / "run")


def test_the_losses_of_samples_are_the_same_alone_and_together(run):
    samples = run.samples("train")
    together, metrics = run.losses(samples), run.evaluate("train")
    assert together.keys() == {"diagnosis", "days"}
    for number in range(0, len(samples), 9):
        alone = run.losses(samples[number])
        for name, losses in together.items():
            torch.testing.assert_close(alone[name][0], losses[number], rtol=1e-4, atol=1e-5, equal_nan=True)
    labelled = torch.tensor([sample["label"] is not None for sample in samples])
    assert torch.equal(~together["diagnosis"].isnan(), labelled) and not together["days"].isnan().any()
    for name, losses in together.items():
        assert metrics[f"train/{name}/loss"] == pytest.approx(float(losses.nanmean()), rel=1e-5)
    expected = [
        math.nan if sample["label"] is None else -math.log(answer["diagnosis"]["probabilities"][sample["label"]])
        for sample, answer in zip(samples, run.predict(samples), strict=True)
    ]
    np.testing.assert_allclose(together["diagnosis"], expected, rtol=1e-4)


def test_losses_are_computed_from_some_of_the_inputs(run):
    samples = run.samples("val")
    only = run.losses(samples, inputs=["note"])
    without = run.losses([dict(sample) | {"blood": None} for sample in samples], inputs=["note"])
    for name, losses in only.items():
        known = torch.tensor([sample["note"] is not None for sample in samples]) & ~losses.isnan()
        torch.testing.assert_close(losses[known], without[name][known], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(losses[known], run.losses(samples)[name][known])
    with pytest.raises(RunError, match="has no input 'nothing'; possible: blood, note"):
        run.losses(samples, inputs=["nothing"])
    with pytest.raises(RunError, match="has the inputs blood, note; a sample must be a mapping"):
        run.losses("a text")


def test_losses_are_a_column_of_the_evaluation(run, tmp_path):
    for name in ("a.csv", "a.jsonl"):
        assert main(["evaluate", str(run.folder), "--output", str(tmp_path / name)]) == 0
    expected = run.losses(run.samples("val"))
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    with open(tmp_path / "a.csv", newline="") as lines:
        table = list(csv.DictReader(lines))
    for number, (row, cells) in enumerate(zip(rows, table, strict=True)):
        assert row["group"] == cells["group"] and row["group"].startswith("p")
        for name, losses in expected.items():
            value = float(losses[number])
            assert (
                (name not in row["loss"] and cells[f"loss.{name}"] == "")
                if math.isnan(value)
                else (
                    row["loss"][name]
                    == pytest.approx(value, rel=1e-4)
                    == pytest.approx(float(cells[f"loss.{name}"]), rel=1e-4)
                )
            )


def test_the_losses_of_tokens_add_up_to_the_loss_of_a_text(tiny_run):
    """Long texts are divided into windows; an empty text has no targets."""
    run = chopmix.load(tiny_run)
    texts = ["chop", "mix set token " * 9, ""]
    sums, tokens = run.losses(texts)["lm"], run.losses(texts, per_token=True)["lm"]
    assert [len(each) for each in tokens] == [4, 126, 0] and sums[2].isnan()
    for total, parts in zip(sums[:2], tokens, strict=False):
        assert float(total) == pytest.approx(float(parts.sum()), rel=1e-6)
    torch.testing.assert_close(run.losses("chop")["lm"], sums[:1])
    torch.testing.assert_close(run.losses({"text": "chop"})["lm"], sums[:1])
    with pytest.raises(RunError, match="the run reads texts, such as 'three short words', not a int"):
        run.losses([1])
    with pytest.raises(ValueError, match="is not among the"):
        run.losses(["ÄÖÜ"])


def test_a_loss_that_compares_samples_has_no_value_for_one(tmp_path):
    """With `unlabelled`, a labelled sample still has a loss; a loss that compares whole batches is refused."""
    rows = [{"text": "chop" * (n % 3 + 1), "label": "ab"[n % 2] if n % 4 else None} for n in range(24)]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tree = TREE | {
        "inputs": {"text": {"use": "text", "encoding": "bytes"}},
        "tasks": {"kind": {"use": "classification", "target": "label", "unlabelled": 0.1}},
        "data": {"dataset": {"use": "manifest", "train": str(tmp_path / "l.jsonl"), "columns": ["text", "label"]}},
        "training": {"steps": 1, "samples_per_step": 8}, "out": str(tmp_path / "run"),
    }  # fmt: skip
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", str(tmp_path / "x.yaml")]) == 0
    run = load_run(tmp_path / "run")
    losses = run.losses([{"text": "chop", "label": "a"}, {"text": "chop"}])["kind"]
    assert not losses[0].isnan() and losses[1].isnan()
    assert run.losses(["chop"])["kind"].isnan().all()  # the only input is a text
    task = run.tasks["kind"]
    run.tasks["kind"].terms = lambda output, targets: {"loss": (output.mean(0) ** 2).sum() * targets.count**2}
    with pytest.raises(RunError, match="the loss of the task 'kind' compares samples"):
        run.losses([{"text": "chop", "label": "a"}, {"text": "chopchop", "label": "b"}])
    del task.terms
