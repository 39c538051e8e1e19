"""Metrics of generated or recognised texts (hypotheses) compared with reference texts: exact match, BLEU, chrF, word
and character error rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ..base import Metric

TextMetric = Literal["exact_match", "bleu", "chrf", "wer", "cer"]
"""The names of the text metrics, for `metrics` in a YAML."""


def as_text(value: Any) -> str:
    """Returns a column's value as text. Bytes are decoded as UTF-8, all other values are converted by `str`."""
    return value.decode() if isinstance(value, bytes) else str(value)


def exact_match(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Returns the share of hypotheses, 0 to 1, that are equal to their reference."""
    return sum(a == b for a, b in zip(hypotheses, references, strict=True)) / max(len(references), 1)


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Returns the corpus BLEU (0 to 100; Papineni et al. 2002) of detokenized text with sacreBLEU's defaults,
    tokenization 13a (Post 2018, arXiv:1804.08771)."""
    import sacrebleu

    return sacrebleu.corpus_bleu(list(hypotheses), [list(references)]).score


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Returns the corpus chrF (0 to 100; Popovic 2015), computed by sacreBLEU."""
    import sacrebleu

    return sacrebleu.corpus_chrf(list(hypotheses), [list(references)]).score


def wer(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Returns the word error rate of a split, computed by jiwer: the number of substitutions, deletions and insertions
    of words (including insertions into empty references), divided by the number of words of all references.

    Hypotheses and references are normalised: lower case, no punctuation, single spaces.
    """
    import jiwer

    return float(jiwer.wer(_normalised(references), _normalised(hypotheses)))


def cer(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Returns the character error rate of a split: like `wer`, but for characters instead of words."""
    import jiwer

    return float(jiwer.cer(_normalised(references), _normalised(hypotheses)))


def _normalised(texts: Sequence[str]) -> list[str]:
    import jiwer

    steps = [jiwer.ToLowerCase(), jiwer.RemovePunctuation(), jiwer.RemoveMultipleSpaces(), jiwer.Strip()]
    return jiwer.Compose(steps)(list(texts))


MEANINGS = {
    "exact_match": Metric("share of texts", larger_is_better=True, of_texts=exact_match, is_share=True),
    "bleu": Metric("BLEU, 0 to 100", larger_is_better=True, of_texts=bleu),
    "chrf": Metric("chrF, 0 to 100", larger_is_better=True, of_texts=chrf),
    "wer": Metric("errors per word", of_texts=wer),
    "cer": Metric("errors per character", of_texts=cer),
}
