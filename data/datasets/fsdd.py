"""The Free Spoken Digit Dataset (FSDD): English digits, recorded by several speakers at 8 kHz. Read from `fsdd/` in the
data root."""

from __future__ import annotations

from ...files.reading import DataError
from ..mixture import Equalized
from ..sample_dataset import share
from ..samples import Chosen, Hidden, Samples
from ..shards import ShardDataset


class Fsdd(ShardDataset):
    """Columns: `sound`, `label` 0 to 9, `speaker`. A tenth of train is used for validation (selected by the hash of the
    key).

    `held_out`: one or several speakers that are only in test. Test then contains all recordings of these speakers and
    no others; train and val contain only other speakers. `equalize`: if true, all recordings are filtered, so that
    every speaker has the mean spectrum of all speakers (see data/mixture.py). This uses the names of the speakers, also
    of held-out ones, but no labels. `unlabelled`: if true, train also contains nine tenths of the held-out speakers'
    recordings in the train file, without labels; these recordings are also in test. Raises DataError if `unlabelled` is
    set without `held_out`, or if the data have no speaker with a name in `held_out`.
    """

    folder = "fsdd"
    sources = {"sound": "flac", "label": "cls", "speaker": "json.speaker"}

    def __init__(self, *, held_out: str | list[str] | None = None, equalize: bool = False, unlabelled: bool = False):
        if unlabelled and not held_out:
            raise DataError("fsdd: unlabelled needs held_out, the speaker whose labels are hidden")
        self.held_out = [held_out] if isinstance(held_out, str) else held_out
        self.equalize, self.unlabelled = equalize, unlabelled

    def open(self, split: str) -> Samples:
        samples = self._opened(split)
        return Equalized(samples, self.read("train", "test"), "sound", speaker) if self.equalize else samples

    def _opened(self, split: str) -> Samples:
        if self.held_out is None:
            return super().open(split)
        self.check_split(split)
        samples = self.read("train") if split != "test" else self.read("train", "test")
        speakers = {speaker(key) for key in samples.keys}
        for name in self.held_out:
            if name not in speakers:
                raise DataError(f"fsdd has no speaker {name!r}; possible: {', '.join(sorted(speakers))}")
        held_out = {n for n, key in enumerate(samples.keys) if speaker(key) in self.held_out}
        if split == "test":
            return Chosen(samples, sorted(held_out))
        use_all = self.unlabelled and split == "train"
        chosen = range(len(samples)) if use_all else sorted(set(range(len(samples))) - held_out)
        return share(Chosen(Hidden(samples, "label", held_out), chosen), split)


def speaker(key: str) -> str:
    """Returns the name of the speaker of a recording, from its key `digit_speaker_index`."""
    return key.split("_")[1]


def digit(key: str) -> str:
    """Returns the digit of a recording as text, from its key `digit_speaker_index`."""
    return key.partition("_")[0]
