"""Tux Paint's stamps: a picture, its caption in five languages, and the French caption spoken, from `stamps/` in the
data root."""

from __future__ import annotations

from ..samples import Chosen, Samples
from ..shards import ShardDataset


class Stamps(ShardDataset):
    """Columns: `image`, `sound` (the French caption spoken, 16 kHz), `caption` (English), `caption_de`, `caption_fr`,
    `caption_es`, `caption_it`, `category`. Train and val are the data set's own; there is no test.

    With `unseen`, val keeps only the samples whose English caption, letter for letter, is no training sample's.
    """

    folder = "stamps"
    ending = ".tar"
    splits = ("train", "val")
    sources = {
        "image": "jpg", "sound": "ogg", "caption": "txt", "category": "json.category",
        **{f"caption_{language}": f"json.text.{language}" for language in ("de", "fr", "es", "it")},
    }  # fmt: skip

    def __init__(self, *, unseen: bool = False):
        self.unseen = unseen

    def open(self, split: str) -> Samples:
        samples = super().open(split)
        if not self.unseen or split == "train":
            return samples
        known = set(super().open("train").column("caption"))
        captions = dict(samples.numbered("caption"))
        return Chosen(samples, [n for n in range(len(samples)) if captions.get(n) not in known])
