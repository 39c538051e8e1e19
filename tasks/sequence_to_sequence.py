"""Sequence to sequence: write a text from whatever the encoder reads. Translation, recognition and captioning are one
task."""

from __future__ import annotations

from dataclasses import replace

from .base import Needs
from .language_modeling import LanguageModeling


class SequenceToSequence(LanguageModeling):
    """Write the input `target` from all other inputs, one or several, of any kind: the encoder (`model.encoder`)
    reads them, the decoder reads what it wrote so far and, by cross-attention, the encoder's output (Vaswani et
    al. 2017, arXiv:1706.03762). Options as for `language_modeling`."""

    @property
    def needs(self) -> Needs:
        return replace(super().needs, encoder=True)
