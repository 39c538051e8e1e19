"""Metrics of hypotheses (`said`) against reference texts (`true`): exact match, BLEU, chrF, word and character error
rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ..base import Metric

TextMetric = Literal["exact_match", "bleu", "chrf", "wer", "cer"]
"""The values of `metrics` in a YAML."""


def as_text(value: Any) -> str:
    """The text of a column's value: UTF-8 bytes are decoded, others converted by `str`."""
    return value.decode() if isinstance(value, bytes) else str(value)


def exact_match(said: Sequence[str], true: Sequence[str]) -> float:
    """The share of hypotheses, 0 to 1, that equal their reference to the letter."""
    return sum(a == b for a, b in zip(said, true, strict=True)) / max(len(true), 1)


def bleu(said: Sequence[str], true: Sequence[str]) -> float:
    """Corpus BLEU (0 to 100; Papineni et al. 2002) of detokenized text with sacreBLEU's defaults, tokenization 13a
    (Post 2018, arXiv:1804.08771)."""
    import sacrebleu

    return sacrebleu.corpus_bleu(list(said), [list(true)]).score


def chrf(said: Sequence[str], true: Sequence[str]) -> float:
    """Corpus chrF (0 to 100), by sacreBLEU (Popovic 2015)."""
    import sacrebleu

    return sacrebleu.corpus_chrf(list(said), [list(true)]).score


def wer(said: Sequence[str], true: Sequence[str]) -> float:
    """Word error rate over a whole split, by jiwer: substitutions, deletions and insertions (into empty references,
    too) over the words of all references.

    Both sides are normalised: lower case, no punctuation, one space for several.
    """
    import jiwer

    return float(jiwer.wer(_normalised(true), _normalised(said)))


def cer(said: Sequence[str], true: Sequence[str]) -> float:
    """Character error rate: as `wer`, with the same normalisation, by character."""
    import jiwer

    return float(jiwer.cer(_normalised(true), _normalised(said)))


def _normalised(texts: Sequence[str]) -> list[str]:
    import jiwer

    steps = [jiwer.ToLowerCase(), jiwer.RemovePunctuation(), jiwer.RemoveMultipleSpaces(), jiwer.Strip()]
    return jiwer.Compose(steps)(list(texts))


MEANINGS = {
    "exact_match": Metric("share of texts", larger_is_better=True, of_texts=exact_match),
    "bleu": Metric("BLEU, 0 to 100", larger_is_better=True, of_texts=bleu),
    "chrf": Metric("chrF, 0 to 100", larger_is_better=True, of_texts=chrf),
    "wer": Metric("errors per word", of_texts=wer),
    "cer": Metric("errors per character", of_texts=cer),
}
