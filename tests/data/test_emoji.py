"""Emoji: their names, and the glyphs that a font uses for several characters together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("emoji")
fonts = pytest.importorskip("fontTools.ttLib")

from chopmix.data.datasets.emoji import Emoji
from chopmix.files.reading import DataError

RED, HEART, WAVE, DARK = 0x1F534, 0x2764, 0x1F44B, 0x1F3FF


class Font(dict):
    """A stand-in for a font with pictures of a red circle, a heart, and a hand in two colours, of which the second is
    that of two characters."""

    def __init__(self, *_):
        joined = SimpleNamespace(Component=["dark"], LigGlyph="dark hand")
        lookup = SimpleNamespace(SubTable=[SimpleNamespace(ligatures={"hand": [joined]})])
        glyphs = ("circle", "heart", "hand", "dark hand")
        super().__init__(
            CBDT=SimpleNamespace(strikeData=[{each: SimpleNamespace(imageData=each.encode()) for each in glyphs}]),
            GSUB=SimpleNamespace(table=SimpleNamespace(LookupList=SimpleNamespace(Lookup=[lookup]))),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def getBestCmap(self):
        return {RED: "circle", HEART: "heart", WAVE: "hand", DARK: "dark"}


@pytest.fixture
def font(monkeypatch, tmp_path):
    (tmp_path / "emoji").mkdir()
    (tmp_path / "emoji" / "NotoColorEmoji.ttf").write_bytes(b"\0\1\0\0")
    monkeypatch.setenv("CHOPMIX_DATA", str(tmp_path))
    monkeypatch.setattr(fonts, "TTFont", Font)


@pytest.mark.usefixtures("font")
@pytest.mark.parametrize(
    ("skin_tones", "more"), [(True, {"waving hand dark skin tone": b"dark hand"}), (False, {})], ids=["all", "yellow"]
)
def test_every_emoji_of_the_font_is_read_once_and_belongs_to_one_split(skin_tones, more):
    dataset = Emoji(skin_tones=skin_tones)
    plain = {"red circle": b"circle", "red heart": b"heart", "waving hand": b"hand"}
    assert dict(dataset.pictures) == plain | more
    samples = [dataset.open(split) for split in Emoji.splits]
    names = [each[index]["name"] for each in samples for index in range(len(each))]
    assert sorted(names) == sorted(plain | more)


def test_a_font_that_may_unpack_to_any_size_is_refused(monkeypatch, tmp_path):
    (tmp_path / "emoji").mkdir()
    file = tmp_path / "emoji" / "NotoColorEmoji.ttf"
    monkeypatch.setenv("CHOPMIX_DATA", str(tmp_path))
    file.write_bytes(b"wOFF" + bytes(40))
    with pytest.raises(DataError, match="is not a font with colour bitmaps: it does not begin like a TrueType font"):
        Emoji().open("train")
    with open(file, "wb") as large:
        large.truncate(2**26 + 1)
    with pytest.raises(DataError, match="has 67,108,865 bytes; possible: up to 67,108,864"):
        Emoji().open("train")
