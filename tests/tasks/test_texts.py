"""The metrics of texts, compared with their definitions and with jiwer."""

import jiwer
import pytest
from chopmix.tasks.measuring.texts import MEANINGS, cer, exact_match, wer
from hypothesis import assume, given
from hypothesis import strategies as st

for_texts = given(st.lists(st.tuples(st.text("ab ", max_size=6), st.text("ab ", max_size=6)), max_size=8))


@for_texts
def test_exact_match_is_the_share_of_equal_texts(pairs):
    hypotheses, references = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    equal = sum(hypothesis == reference for hypothesis, reference in pairs)
    assert exact_match(hypotheses, references) == (equal / len(pairs) if pairs else 0.0)


def test_exact_match_needs_a_reference_for_each_text():
    with pytest.raises(ValueError, match="shorter|longer"):
        exact_match(["a", "b"], ["a"])


@for_texts
def test_error_rates_are_those_of_jiwer(pairs):
    pairs = [tuple(" ".join(text.split()) for text in pair) for pair in pairs]
    pairs = [pair for pair in pairs if pair[1]]
    assume(pairs)
    hypotheses, references = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assert wer(hypotheses, references) == pytest.approx(jiwer.wer(references, hypotheses))
    assert cer(hypotheses, references) == pytest.approx(jiwer.cer(references, hypotheses))


def test_a_perfect_text_has_the_best_value_of_each_metric():
    texts = ["the cat sat on the mat today", "a dog ran away from the old house"]
    best = {name: metric.of_texts(texts, texts) for name, metric in MEANINGS.items()}
    assert best == pytest.approx({"exact_match": 1.0, "bleu": 100.0, "chrf": 100.0, "wer": 0.0, "cer": 0.0})
    for name, metric in MEANINGS.items():
        worse = metric.of_texts(["something else", "nothing at all"], texts)
        assert worse < best[name] if metric.larger_is_better else worse > best[name]
