"""Tux Paint's stamps: pictures, their captions in five languages, and recordings of the French captions. Read from
`stamps/` in the data root."""

from __future__ import annotations

from ..samples import Chosen, Samples
from ..shards import ShardDataset


class Stamps(ShardDataset):
    """Columns: `image`, `sound` (the spoken French caption, 16 kHz), `caption` (English), `caption_de`, `caption_fr`,
    `caption_es`, `caption_it`, `category`. Train and val are the splits of the data set (without `val.tar`, a tenth of
    train is used for validation); there is no test split.

    With `unseen: true`, val contains only the samples whose English caption does not occur in train.
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
        train_captions = set(super().open("train").column("caption"))
        captions = dict(samples.numbered("caption"))
        return Chosen(samples, [n for n in range(len(samples)) if captions.get(n) not in train_captions])
