"""Emoji: the colour pictures of Google's Noto font (Debian package `fonts-noto-color-emoji`), and the names of the
emoji from the Python package `emoji` (the extra `emoji`)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from ...files.reading import DataError, read_bytes
from ..base import data_root
from ..key_hashes import share_by_hash
from ..sample_dataset import SampleDataset
from ..samples import Listed, Samples

FILE = "NotoColorEmoji.ttf"
INSTALLED = Path("/usr/share/fonts/truetype/noto")
"""The folder in which Debian installs the font."""
LARGEST_FONT, PLAIN = 2**26, (b"\0\1\0\0", b"true", b"OTTO")
"""MOST: the maximum size of the font file in bytes (64 MiB; Noto has 10 to 25 MiB). PLAIN: the first bytes of an
uncompressed font file."""
VARIANT = 0xFE0F
"""The character that requests a picture instead of a letter; fonts have no glyph for it."""


class Emoji(SampleDataset):
    """Columns: `image` (136 x 128 pixels, PNG) and `name` (`red heart`, `woman farmer dark skin tone`). There are about
    3,900 emoji. With `skin_tones: false`, there are about 1,900, and people are only yellow. 10 % of the emoji are in
    val and 10 % in test, selected by the hash of the name. Names of val and test are not in train, but with skin tones,
    train contains most people of val and test in other tones.

    The font is read from `emoji/NotoColorEmoji.ttf` in the data root. If this file does not exist, the font of the
    system is read (`apt install fonts-noto-color-emoji`).
    """

    splits = ("train", "val", "test")
    columns = ("image", "name")

    def __init__(self, *, skin_tones: bool = True):
        self.skin_tones = skin_tones

    def open(self, split: str) -> Samples:
        self.check_split(split)
        low, high = {"val": (0.0, 0.1), "test": (0.1, 0.2), "train": (0.2, 1.0)}[split]
        chosen = [(name, image) for name, image in self.pictures if low <= share_by_hash(name) < high]
        return Listed([name for name, _ in chosen], [{"image": image, "name": name} for name, image in chosen])

    @cached_property
    def pictures(self) -> list[tuple[str, bytes]]:
        """(name, bytes of the PNG) of every emoji, sorted by name. Raises DataError if a package or the font is
        missing, or if the font has no colour bitmaps."""
        try:
            from emoji import EMOJI_DATA, STATUS
            from fontTools.ttLib import TTFont
        except ImportError:
            raise DataError("emoji needs the packages emoji and fonttools: pip install 'chopmix[emoji]'") from None
        try:
            content = read_bytes(self.path(), LARGEST_FONT)
            if content[:4] not in PLAIN:  # other formats are compressed, and may unpack to any size
                raise ValueError("it does not begin like a TrueType font")
            with TTFont(io.BytesIO(content)) as font:
                bitmaps, glyphs = font["CBDT"].strikeData[0], Glyphs(font)
                pictures = {}
                for text, about in EMOJI_DATA.items():
                    name = about["en"].strip(":").replace("_", " ")
                    glyph = glyphs.of(text) if about["status"] == STATUS["fully_qualified"] else None
                    if glyph in bitmaps and (self.skin_tones or "skin tone" not in name):
                        pictures[name] = bytes(bitmaps[glyph].imageData)
        except DataError:
            raise
        except Exception as error:  # fontTools has no specific exception for damaged fonts
            raise DataError(f"{self.path()} is not a font with colour bitmaps: {error}") from None
        return sorted(pictures.items())

    def path(self) -> Path:
        """Returns the path of the font. Raises DataError if it is missing."""
        for folder in (data_root() / "emoji", INSTALLED):
            if (folder / FILE).exists():
                return folder / FILE
        hint = "put it there (it is in the Debian package fonts-noto-color-emoji), or install that package"
        raise DataError(f"{data_root() / 'emoji' / FILE} is missing: {hint}")


class Glyphs:
    """The glyphs of emoji in a font. An emoji is a single character, or several characters that the font replaces by
    one glyph (a ligature)."""

    def __init__(self, font: Any):
        self.single = font.getBestCmap()
        self.joined = dict(ligatures(font["GSUB"].table))

    def of(self, text: str) -> str | None:
        """Returns the name of the glyph for a text. Returns None if the font has no glyph for this text."""
        parts = tuple(self.single.get(ord(letter)) for letter in text if ord(letter) != VARIANT)
        return parts[0] if len(parts) == 1 else self.joined.get(parts)


def ligatures(table: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields (names of several glyphs, name of the glyph that replaces them) from the GSUB table of a font."""
    for lookup in table.LookupList.Lookup:
        for part in lookup.SubTable:
            part = getattr(part, "ExtSubTable", part)
            for first, entries in getattr(part, "ligatures", {}).items():
                for entry in entries:
                    yield (first, *entry.Component), entry.LigGlyph
