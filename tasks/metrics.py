"""How well written texts answer the true ones: exactly right, BLEU, chrF, word and character error rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from .base import Metric

TextMetric = Literal["exact_match", "bleu", "chrf", "wer", "cer"]
"""What a YAML may ask for under `metrics`."""


def as_text(value: Any) -> str:
    """A column's text, which may be a file's bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def exact_match(said: Sequence[str], true: Sequence[str]) -> float:
    """The share of texts that are right to the letter."""
    return sum(a == b for a, b in zip(said, true, strict=True)) / max(len(true), 1)


def bleu(said: Sequence[str], true: Sequence[str]) -> float:
    """Corpus BLEU (0 to 100) of detokenized text: sacreBLEU's defaults, tokenization 13a (Post 2018,
    arXiv:1804.08771)."""
    import sacrebleu

    return sacrebleu.corpus_bleu(list(said), [list(true)]).score


def chrf(said: Sequence[str], true: Sequence[str]) -> float:
    """Corpus chrF (0 to 100), by sacreBLEU (Popovic 2015)."""
    import sacrebleu

    return sacrebleu.corpus_chrf(list(said), [list(true)]).score


def wer(said: Sequence[str], true: Sequence[str]) -> float:
    """Word errors (substituted, left out, put in) over true words, both normalised; words put into empty texts count.

    The normaliser: lower case, no punctuation, runs of white space as one space. Computed by jiwer over the whole
    split.
    """
    import jiwer

    return float(jiwer.wer(_normalised(true), _normalised(said)))


def cer(said: Sequence[str], true: Sequence[str]) -> float:
    """Character errors over true characters, normalised as for `wer`."""
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
