"""Speech Commands V2: 105,829 one-second recordings of 35 English words at 16 kHz (Warden 2018, arXiv:1804.03209)."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from ...files.reading import DataError, read_text
from ..base import data_root
from ..sample_dataset import SampleDataset
from ..samples import Listed, Samples

WORDS = (
    "backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go", "happy",
    "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop",
    "three", "tree", "two", "up", "visual", "wow", "yes", "zero",
)  # fmt: skip
ADDRESS = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
"""The address from which torchaudio downloads the recordings."""
INSIDE = Path("SpeechCommands", "speech_commands_v0.02")
"""The folder of the recordings, relative to torchaudio's root."""
LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}
"""The files that list the recordings of the official val and test splits; recordings in neither list are in train. All
recordings of a speaker are in the same split."""


class SpeechCommands(SampleDataset):
    """Columns: `sound` (a path), `label` (the word) and `speaker`, read from `speech_commands/` in the data root.

    `words` selects some of the 35 words (default: all). With `download: true`, torchaudio downloads the recordings (2.3
    GB) if their folder does not exist. The long recordings of background noise are not used. Raises ValueError if one
    of `words` is not among the 35 words.
    """

    splits = ("train", "val", "test")
    columns = ("sound", "label", "speaker")

    def __init__(self, *, words: list[str] | None = None, download: bool = False):
        if unknown := [word for word in words or () if word not in WORDS]:
            raise ValueError(f"words: {unknown[0]!r} is none of the {len(WORDS)}: {', '.join(WORDS)}")
        self.words, self.download = words, download

    def addresses(self) -> list[str]:
        return [ADDRESS] if self.download else []

    @cached_property
    def recordings(self) -> dict[str, list[str]]:
        """The recordings of each split as `word/speaker_nohash_number.wav`, in alphabetical order. Raises DataError if
        the folder of the data set, the folder of one of the 35 words, a list of a split, or a recording in a list is
        missing."""
        folder = self.folder()
        if missing := [word for word in WORDS if not (folder / word).is_dir()]:
            expected = f"the {len(WORDS)} words of V2: {', '.join(WORDS)}"
            raise DataError(f"{folder} has no folder {missing[0]!r}; expected: {expected}")
        names = [f"{word}/{name}" for word in WORDS for name in sorted(p.name for p in (folder / word).glob("*.wav"))]
        listed = {split: listed_in(folder / name) for split, name in LISTS.items()}
        for split, recordings in listed.items():
            if absent := sorted(recordings.difference(names)):
                problem = f"{absent[0]}, which is missing: unpack the archive again"
                raise DataError(f"{folder / LISTS[split]} lists {problem}")
        chosen = [name for name in names if self.words is None or name.split("/")[0] in self.words]
        split_of = {name: split for split, recordings in listed.items() for name in recordings}
        return {split: [name for name in chosen if split_of.get(name, "train") == split] for split in self.splits}

    def folder(self) -> Path:
        """Returns the folder that contains one folder per word. If it does not exist and `download` is true, it is
        downloaded. Raises DataError if `download` is false or the download fails."""
        root = data_root() / "speech_commands"
        folder = root / INSIDE
        if folder.is_dir():
            return folder
        if not self.download:
            call = f"torchaudio.datasets.SPEECHCOMMANDS({str(root)!r}, download=True) after creating this root"
            raise DataError(f"there is no folder {folder}: set data.dataset.download=true, or call {call}")
        try:
            from torchaudio.datasets import SPEECHCOMMANDS

            root.mkdir(parents=True, exist_ok=True)
            SPEECHCOMMANDS(root, download=True)
        except (ImportError, OSError, RuntimeError) as error:  # no network, a read-only folder, a wrong checksum
            raise DataError(f"{folder} is missing and torchaudio cannot download it: {error}") from error
        return folder

    def open(self, split: str) -> Samples:
        self.check_split(split)
        folder, names = self.folder(), self.recordings[split]
        if not names:
            raise DataError(f"{folder} has no recording for {split}")
        parts = [re.split(r"[/_]", name) for name in names]
        rows = [{"sound": folder / name, "label": part[0], "speaker": part[1]} for name, part in zip(names, parts)]
        return Listed(names, rows)


def listed_in(file: Path) -> set[str]:
    """Returns the recordings (`word/file.wav`) that a list of the data set contains. Raises DataError if the list
    cannot be read."""
    try:
        return set(read_text(file).split())
    except DataError as error:
        raise DataError(f"{error}: it lists recordings that are not used for training") from None
