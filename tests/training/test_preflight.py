"""Checks before the first step: the metric of the best checkpoint, and mixup."""

import pytest
from chopmix.experiment.preflight import check_best, check_mixup
from chopmix.inference.evaluator import Evaluator
from chopmix.models.generation.beam_search import Search
from chopmix.tasks.base import Metric
from chopmix.tasks.classification import Classes, Classification
from chopmix.tasks.language_modeling import LanguageModeling
from chopmix.tasks.masked_diffusion import MaskedDiffusion
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.encoding.byte_pairs import Extended
from chopmix.tokenizers.text import TextChopper


def tasks():
    """Tasks that generate, refine and classify; generated and refined texts are compared with those of the sample."""
    by_name = {
        "write": LanguageModeling(target="a", metrics=("exact_match",), search=Search()),
        "draft": MaskedDiffusion(target="b", metrics=("exact_match",)),
        "kind": Classification(target="label"),
    }
    by_name["kind"].learned = Classes(tuple("uv"))
    vocabulary = Extended(ByteEncoding(), ["mask"])
    for task in by_name.values():
        task.choppers = {name: TextChopper(vocabulary=vocabulary) for name in ("a", "b")}
    return by_name


@pytest.mark.parametrize("best", ["val/write/exact_match", "val/draft/exact_match", "val/draft/chain"])
def test_a_metric_of_generated_items_is_no_best_metric_if_none_are_generated(best):
    check_best(best, tasks(), 8)
    with pytest.raises(ValueError, match=f"checkpoints.best is '{best}'; possible: val/loss, val/write/loss"):
        check_best(best, tasks(), 0)
    check_best("val/draft/loss", tasks(), 0)
    check_best("val/kind/accuracy", tasks(), 0)


def test_a_corpus_has_no_metric_that_compares_texts_with_a_sample():
    check_best("val/draft/chain", tasks(), 8, corpus=True)
    with pytest.raises(ValueError, match="checkpoints.best is 'val/write/exact_match'; possible: "):
        check_best("val/write/exact_match", tasks(), 8, corpus=True)


def test_a_metric_without_a_direction_is_no_best_metric(monkeypatch):
    task = tasks()["write"]
    metrics = {**task.metrics, "accepted": Metric("0 to 1", of_judge=True)}
    monkeypatch.setattr(type(task), "metrics", metrics)
    with pytest.raises(ValueError, match="checkpoints.best is 'val/accepted'; possible: val/loss"):
        check_best("val/accepted", {"write": task}, 0)


class Returns(Evaluator):
    """An evaluator with one metric."""

    def metrics(self):
        return {"val/return_at_5": True}


def test_a_metric_of_an_evaluator_can_be_the_best_metric():
    check_best("val/return_at_5", tasks(), 8, [Returns()])
    with pytest.raises(ValueError, match="checkpoints.best is 'val/return_at_6'; possible: .*val/return_at_5$"):
        check_best("val/return_at_6", tasks(), 8, [Returns()])


def test_mixup_is_refused_if_a_task_compares_samples():
    """The message is for all tasks: it names no option of one of them."""
    task = Classification(target="label", unlabelled=0.5)
    check_mixup({"kind": task}, False)
    with pytest.raises(ValueError) as caught:
        check_mixup({"kind": task}, True)
    assert str(caught.value) == (
        "tasks.kind: its loss compares the samples of a batch with each other, which training.mixup mixes; remove "
        "training.mixup"
    )
