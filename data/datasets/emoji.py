"""Emoji: Google's Noto pictures in colour, each with its name, from the font of the Debian package
`fonts-noto-color-emoji` and the names of the Python package `emoji` (the extra `emoji`)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from ...files.reading import DataError, read_bytes
from ..base import data_root, share_by_hash
from ..samples import Listed, SampleDataset, Samples

FILE = "NotoColorEmoji.ttf"
INSTALLED = Path("/usr/share/fonts/truetype/noto")
"""Where Debian puts the font."""
MOST, PLAIN = 2**26, (b"\0\1\0\0", b"true", b"OTTO")
"""The most bytes of a font (64 MiB; Noto has 10 to 25), and how one begins that is not compressed."""
VARIANT = 0xFE0F
"""The character that asks for a picture instead of a letter; fonts leave it out."""


class Emoji(SampleDataset):
    """Columns: `image` (136 x 128 pixels, PNG) and `name` (`red heart`, `woman farmer dark skin tone`). About 3,900
    emoji; without `skin_tones` 1,900, of people only those in yellow. A tenth validates and a tenth tests, by hash of
    the name: names that were never seen, though with `skin_tones` the same people in other tones mostly were.

    The font is `emoji/NotoColorEmoji.ttf` in the data root, else that of the system (`apt install
    fonts-noto-color-emoji`).
    """

    splits = ("train", "val", "test")
    columns = ("image", "name")

    def __init__(self, *, skin_tones: bool = True):
        self.skin_tones = skin_tones

    def open(self, split: str) -> Samples:
        self.check_split(split)
        low, high = {"val": (0.0, 0.1), "test": (0.1, 0.2), "train": (0.2, 1.0)}[split]
        own = [(name, image) for name, image in self.pictures if low <= share_by_hash(name) < high]
        return Listed([name for name, _ in own], [{"image": image, "name": name} for name, image in own])

    @cached_property
    def pictures(self) -> list[tuple[str, bytes]]:
        """Name and PNG of every emoji. Raises DataError where the font or a package is missing."""
        try:
            from emoji import EMOJI_DATA, STATUS
            from fontTools.ttLib import TTFont
        except ImportError:
            raise DataError("emoji need the packages emoji and fonttools: pip install 'chopmix[emoji]'") from None
        try:
            content = read_bytes(self.path(), MOST)
            if content[:4] not in PLAIN:  # others are compressed, and may unpack to any size
                raise ValueError("it begins like no TrueType font")
            with TTFont(io.BytesIO(content)) as font:
                bitmaps, glyphs = font["CBDT"].strikeData[0], Glyphs(font)
                found = {}
                for text, about in EMOJI_DATA.items():
                    name = about["en"].strip(":").replace("_", " ")
                    glyph = glyphs.of(text) if about["status"] == STATUS["fully_qualified"] else None
                    if glyph in bitmaps and (self.skin_tones or "skin tone" not in name):
                        found[name] = bytes(bitmaps[glyph].imageData)
        except DataError:
            raise
        except Exception as error:  # fontTools raises nothing narrower for damaged fonts
            raise DataError(f"{self.path()} is no font of coloured bitmaps: {error}") from None
        return sorted(found.items())

    def path(self) -> Path:
        """The font. Raises DataError where there is none."""
        for folder in (data_root() / "emoji", INSTALLED):
            if (folder / FILE).exists():
                return folder / FILE
        how = "put it there (it is in the Debian package fonts-noto-color-emoji), or install that package"
        raise DataError(f"{data_root() / 'emoji' / FILE} is missing: {how}")


class Glyphs:
    """The glyph of an emoji in a font: that of its character, or, of several, that into which the font joins them."""

    def __init__(self, font: Any):
        self.single = font.getBestCmap()
        self.joined = dict(ligatures(font["GSUB"].table))

    def of(self, text: str) -> str | None:
        """The name of the glyph; None where the font has none."""
        parts = tuple(self.single.get(ord(letter)) for letter in text if ord(letter) != VARIANT)
        return parts[0] if len(parts) == 1 else self.joined.get(parts)


def ligatures(table: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """The sequences of glyphs that a font's table GSUB joins to one, each with that one."""
    for lookup in table.LookupList.Lookup:
        for part in lookup.SubTable:
            part = getattr(part, "ExtSubTable", part)
            for first, several in getattr(part, "ligatures", {}).items():
                for each in several:
                    yield (first, *each.Component), each.LigGlyph
