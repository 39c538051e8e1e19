"""The Free Spoken Digit Dataset: English digits by several speakers at 8 kHz, from `fsdd/` in the data root."""

from __future__ import annotations

from ...files.reading import DataError
from ..mixture import Equalized
from ..samples import Chosen, Hidden, Samples, share
from ..shards import ShardDataset


class Fsdd(ShardDataset):
    """Columns: `sound`, `label` 0 to 9, `speaker`. A tenth of train validates, by hash of the key.

    With `held_out`, the name of a speaker or of several, the test split is all their recordings, and train and val are
    of the others alone. With `equalize` every speaker's recordings are filtered to the mean spectrum of all speakers,
    a held-out one's too (see data/mixture.py): who speaks is known then, not what is said. With `unlabelled`
    nine tenths of a held-out speaker's recordings in the train file belong to train, too, without their labels (test
    has them as well). Raises DataError for `unlabelled` alone and for an unknown speaker.
    """

    folder = "fsdd"
    sources = {"sound": "flac", "label": "cls", "speaker": "json.speaker"}

    def __init__(self, *, held_out: str | list[str] | None = None, equalize: bool = False, unlabelled: bool = False):
        if unlabelled and not held_out:
            raise DataError("fsdd: unlabelled needs held_out, the speaker whose labels are hidden")
        self.held_out = [held_out] if isinstance(held_out, str) else held_out
        self.equalize, self.unlabelled = equalize, unlabelled

    def open(self, split: str) -> Samples:
        found = self._opened(split)
        return Equalized(found, self.read("train", "test"), "sound", speaker) if self.equalize else found

    def _opened(self, split: str) -> Samples:
        if self.held_out is None:
            return super().open(split)
        self.check_split(split)
        every = self.read("train") if split != "test" else self.read("train", "test")
        known = {speaker(key) for key in every.keys}
        for name in self.held_out:
            if name not in known:
                raise DataError(f"fsdd has no speaker {name!r}; possible: {', '.join(sorted(known))}")
        own = {n for n, key in enumerate(every.keys) if speaker(key) in self.held_out}
        if split == "test":
            return Chosen(every, sorted(own))
        heard = range(len(every)) if self.unlabelled and split == "train" else sorted(set(range(len(every))) - own)
        return share(Chosen(Hidden(every, "label", own), heard), split)


def speaker(key: str) -> str:
    """Who speaks, by the recording's key `digit_speaker_index`."""
    return key.split("_")[1]


def digit(key: str) -> str:
    """What is said, by the same key."""
    return key.partition("_")[0]
