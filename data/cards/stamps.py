"""Tux Paint's stamps: a picture, its caption in five languages, and the French caption spoken, from `stamps/` in the data root."""

from __future__ import annotations

from ..shards import ShardCard


class Stamps(ShardCard):
    """Columns: `image`, `sound` (the French caption spoken, 16 kHz), `caption` (English), `caption_de`, `caption_fr`,
    `caption_es`, `caption_it`, `category`. Train and val are the data set's own; there is no test."""

    folder = "stamps"
    ending = ".tar"
    splits = ("train", "val")
    sources = {
        "image": "jpg", "sound": "ogg", "caption": "txt", "category": "json.category",
        **{f"caption_{language}": f"json.text.{language}" for language in ("de", "fr", "es", "it")},
    }  # fmt: skip
