"""Sequence to sequence: a text is generated from the output of an encoder. Examples are translation, speech recognition
and image captioning."""

from __future__ import annotations

from dataclasses import replace

from ..tokenizers.base import Example
from .base import Needs
from .language_modeling import LanguageModeling


class SequenceToSequence(LanguageModeling):
    """Generates the input `target` from all other inputs, which can be of any kind. The encoder (`model.encoder`) reads
    the other inputs. The decoder reads the ids generated so far and, by cross-attention, the encoder's output (Vaswani
    et al. 2017, arXiv:1706.03762). The options are those of `language_modeling`."""

    @property
    def needs(self) -> Needs:
        return replace(super().needs, encoder=True)


EXAMPLE = Example(
    options={"target": "other"},
    inputs={
        "image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8},
        "text": {"use": "text", "encoding": "characters"},
        "other": {"use": "text", "encoding": "bytes"},
    },
    model={"encoder": {"depth": 1, "context": 64}, "attention": "causal & same_sample"},
)
