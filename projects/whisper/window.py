"""One window of a sound, with the beginning of its text, as a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...models.batch import Batch
from ...tokenizers.base import Chopper, Chunk, axes_of
from ...tokenizers.chopping.packing import place


def window_planner(choppers: Mapping[str, Chopper], sound: str, text: str) -> Callable[[Tensor, Sequence[int]], Batch]:
    """The function that makes a batch of one sample: a spectrogram (mels, frames) for the encoder's input `sound`, two
    frames a token, and ids for the decoder's input `text`."""
    axes, heard_by, end = axes_of(choppers.values()), choppers[sound], choppers[text].vocabulary.end

    def plan(window: Tensor, ids: Sequence[int]) -> Batch:
        count = (window.shape[1] + 1) // 2
        clip = Chunk(window[None], count, heard_by.seconds(count))
        written = Chunk(torch.tensor(ids), len(ids), next_ids=torch.tensor([*ids[1:], end]))
        heard = place([[(sound, clip)]], choppers, count, axes, rows=[0])
        said = place([[(text, written)]], choppers, len(ids), axes, rows=[0])
        return Batch(main=said, encoder=heard)

    return plan
