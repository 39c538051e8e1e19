"""Sequence to sequence: generate a text from what an encoder reads, as in translation, speech recognition and
captioning."""

from __future__ import annotations

from dataclasses import replace

from .base import Needs
from .language_modeling import LanguageModeling


class SequenceToSequence(LanguageModeling):
    """Generate the input `target` from all other inputs, one or several, of any kind: the encoder (`model.encoder`)
    reads them, the decoder reads the ids generated so far and, by cross-attention, the encoder's output (Vaswani et al.
    2017, arXiv:1706.03762). Options as for `language_modeling`."""

    @property
    def needs(self) -> Needs:
        return replace(super().needs, encoder=True)
