"""Pictures, sounds and recordings of sensors, damaged in every way: each is read, or refused in a sentence of ours."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from chopmix.data.datasets.emoji import Emoji
from chopmix.tokenizers.audio import AudioChopper
from chopmix.tokenizers.audio_patches import AudioPatchesChopper
from chopmix.tokenizers.audio_stem import AudioStemChopper
from chopmix.tokenizers.base import Chopper, Role
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.encoding.grammar import Grammar
from chopmix.tokenizers.image import ImageChopper
from chopmix.tokenizers.media.midi import midi_bytes
from chopmix.tokenizers.score import ScorePreprocessor
from chopmix.tokenizers.sensor import SensorChopper
from chopmix.tokenizers.video import VideoChopper
from fontTools.fontBuilder import FontBuilder
from fontTools.ttLib.tables._g_l_y_f import Glyph
from fuzzed import changed_bytes, changed_text, fuzzed
from hypothesis import strategies as st
from PIL import Image, features

RANDOM = np.random.default_rng(0)


def read(chopper: Chopper, raw: bytes | Path) -> None:
    """What becomes of a raw value on its way into a batch."""
    item = chopper.decode(raw)
    piece = chopper.chop(item)
    assert piece.count == chopper.count(item) >= 1
    assert piece.coordinates is None or len(piece.coordinates) == piece.count
    assert len(chopper.collate([piece, piece]))


def given_as(folder: Path, content: bytes, as_file: bool, ending: str) -> bytes | Path:
    """The content as bytes, or as the path of a file."""
    if not as_file:
        return content
    file = folder / f"odd{ending}"
    file.write_bytes(content)
    return file


# ------------------------------------------------------------------------------------------------------------- pictures


def picture(kind: str, mode: str = "RGB", frames: int = 1, **options) -> bytes:
    """A small picture, or animation, as a file of some kind."""
    pictures = [
        Image.fromarray(RANDOM.integers(0, 256, (9, 12, 3), dtype=np.uint8)).convert(mode) for _ in range(frames)
    ]
    file = io.BytesIO()
    more = {"save_all": True, "append_images": pictures[1:]} if frames > 1 else {}
    pictures[0].save(file, kind, **more, **options)
    return file.getvalue()


TURNED = Image.Exif()
TURNED[0x0112] = 6
PICTURES = [
    picture("PNG"),
    picture("PNG", "P"),
    picture("PNG", "LA"),
    picture("PNG", "I;16"),
    picture("PNG", "1"),
    picture("PNG", frames=3),
    picture("JPEG"),
    picture("JPEG", "CMYK"),
    picture("JPEG", "L", exif=TURNED),
    picture("JPEG", progressive=True),
    picture("GIF"),
    picture("GIF", frames=3, duration=40, loop=0),
    picture("BMP"),
    picture("BMP", "P"),
    picture("TIFF"),
    picture("TIFF", compression="tiff_lzw"),
    picture("TIFF", "F"),
    picture("TIFF", frames=2),
    picture("PPM"),
    picture("TGA"),
]
if features.check("webp"):
    PICTURES += [picture("WEBP"), picture("WEBP", "RGBA"), picture("WEBP", frames=2)]
IMAGE_CHOPPERS = [
    ImageChopper(patch_size=4, size=8),
    ImageChopper(patch_size=4, channels=1),
    ImageChopper(patch_size=4, size=(8, 12), fit_size="pad"),
    ImageChopper(patch_size=4, size=8, fit_size="crop", crop=0.5, interpolation="bicubic"),
    ImageChopper(patch_size=16, most_tokens=3),
    VideoChopper(size=8, patch_size=4, longest=4),
]


@fuzzed(content=changed_bytes(PICTURES), chopper=st.sampled_from(IMAGE_CHOPPERS), as_file=st.booleans())
def test_images(judge, content, chopper, as_file):
    raw = given_as(judge.folder(), content, as_file, ".png")
    judge.check("images", lambda: read(chopper, raw), f"{chopper}.decode({content!r})")


# --------------------------------------------------------------------------------------------------------------- sounds


def sound(kind: str, subtype: str | None = None, channels: int = 1, rate: int = 8000, samples: int = 700) -> bytes:
    """A short noise as a file of some kind."""
    file = io.BytesIO()
    noise = RANDOM.normal(size=(samples, channels)).astype(np.float32) * 0.1
    soundfile.write(file, noise, rate, format=kind, subtype=subtype)
    return file.getvalue()


SOUNDS = [
    sound("WAV"),
    sound("WAV", "FLOAT"),
    sound("WAV", "DOUBLE"),
    sound("WAV", "PCM_U8", channels=2),
    sound("WAV", "IMA_ADPCM"),
    sound("WAV", "ULAW"),
    sound("WAV", "PCM_24", rate=44_100),
    sound("WAV", samples=1),
    sound("FLAC"),
    sound("FLAC", channels=2, rate=11_027),
    sound("OGG", "VORBIS"),
    sound("OGG", "OPUS"),
    sound("MP3"),
    sound("MP3", channels=2, rate=44_100),
    sound("AIFF"),
    sound("AU"),
    sound("CAF"),
    sound("RF64"),
    sound("W64"),
    b"\0\0\0\x20ftypM4A " + bytes(40),
    b"\x1aE\xdf\xa3" + bytes(40),
]
SHORT = {"rate": 8000, "longest": 1.0}
SOUND_CHOPPERS = [
    AudioChopper(**SHORT, mels=8),
    AudioChopper(**SHORT, trim=20.0, normalize="clip"),
    AudioChopper(rate=16_000, longest=0.5),
    AudioPatchesChopper(**SHORT, mels=16),
    AudioPatchesChopper(**SHORT, mels=16, length=40),
    AudioStemChopper(**SHORT, fill=1.0),
    AudioStemChopper(**SHORT, fill=None),
]


@fuzzed(content=changed_bytes(SOUNDS), chopper=st.sampled_from(SOUND_CHOPPERS), as_file=st.booleans())
def test_sounds(judge, content, chopper, as_file):
    raw = given_as(judge.folder(), content, as_file, ".wav")
    judge.check("sounds", lambda: read(chopper, raw), f"{chopper}.decode({content!r})")


# -------------------------------------------------------------------------------------------------------------- sensors


def array(values: object, kind: str = "<f4", version: tuple[int, int] | None = None) -> bytes:
    """An array as a `.npy` file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(values, kind), version=version)
    return file.getvalue()


def headed(header: str) -> bytes:
    """A `.npy` file whose header says this."""
    padded = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + bytes(64)


TABLES = [
    "speed,gear\n0.5,1\n1.5,2\n,3\n",
    "\ufeffgear,time,speed\r\n1,0.0,2\r\n2,0.1,3\r\n",
    '"speed","gear"\n"1e3","0"\n',
    "speed,gear\n",
    "speed,gear\n" + "1,2\n" * 40,
]
ARRAYS = [
    array([[1, 2], [3, 4]]),
    array([[1, 2], [3, 4]], ">i2"),
    array([[1.5, 2]], "<f8", (2, 0)),
    array([[True, False]], "?"),
    array([["a", "b"]], "<U1"),
    array([[1 + 2j, 0]], "<c8"),
    array([["2020-01-01", "2020-01-02"]], "<M8[D]"),
    array(np.zeros((0, 2))),
    array(5.0),
    headed("{'descr': '<f4', 'fortran_order': False, 'shape': (8, 2), }"),
    headed("{'descr': '<f4', 'fortran_order': True, 'shape': (1000000000000000, 2), }"),
    headed("{'descr': '|O', 'fortran_order': False, 'shape': (8, 1), }"),
    headed("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (8, 2), }"),
    headed("{'descr': '|V0', 'fortran_order': False, 'shape': (-1,), }"),
    headed("(" * 90),
]
NAMED = [
    SensorChopper(channels={"speed": "m/s", "gear": None}, categories={"gear": 6}, window=2),
    SensorChopper(channels={"speed": None}),
]
NUMBERED = [SensorChopper(channels=2, rate=10.0, window=3), SensorChopper(channels=1)]
tables = changed_text(TABLES).map(lambda text: text.encode(errors="surrogatepass")) | changed_bytes(
    [table.encode() for table in TABLES]
)
sensors = st.tuples(tables, st.sampled_from(NAMED)) | st.tuples(changed_bytes(ARRAYS), st.sampled_from(NUMBERED))
"""The content of a file, and what reads it."""


@fuzzed(given=sensors, as_file=st.booleans())
def test_sensors(judge, given, as_file):
    content, chopper = given
    raw = given_as(judge.folder(), content, as_file, ".csv")
    judge.check("sensors", lambda: read(chopper, raw), f"{chopper}.decode({content!r})")


# --------------------------------------------------------------------------------------------------------------- scores

VOICES = [[(60, 0, 4), (62, 4, 2)], [(48, 0, 8)]]
SCORES = [midi_bytes(VOICES), midi_bytes(VOICES * 2), midi_bytes([[], []]), midi_bytes([[(127, 9000, 1)], [(0, 0, 1)]])]
SCORE_CHOPPERS = [
    ScorePreprocessor(voices=2, lowest=0, highest=127).fit(tuple, Role(generated=True)),
    ScorePreprocessor(voices=2, lowest=48, highest=72, chords=True).fit(tuple, Role(generated=True)),
]


@fuzzed(content=changed_bytes(SCORES), chopper=st.sampled_from(SCORE_CHOPPERS), as_file=st.booleans())
def test_scores(judge, content, chopper, as_file):
    raw = given_as(judge.folder(), content, as_file, ".mid")
    judge.check("scores", lambda: read(chopper, raw), f"{chopper}.decode({content!r})")


# ---------------------------------------------------------------------------------------------------------------- fonts


def font() -> bytes:
    """A font of two letters, made anew: no emoji, but all tables of a font that are read first."""
    made = FontBuilder(1024, isTTF=True)
    made.setupGlyphOrder([".notdef", "A", "B"])
    made.setupCharacterMap({0x41: "A", 0x1F600: "B"})
    made.setupGlyf({name: Glyph() for name in (".notdef", "A", "B")})
    made.setupHorizontalMetrics(dict.fromkeys((".notdef", "A", "B"), (600, 0)))
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": "Odd", "styleName": "Regular"})
    made.setupOS2()
    made.setupPost()
    file = io.BytesIO()
    made.save(file)
    return file.getvalue()


def emoji_of(folder: Path, content: bytes) -> None:
    """Every emoji of a font that stands in the data root."""
    (folder / "emoji").mkdir(exist_ok=True)
    (folder / "emoji" / "NotoColorEmoji.ttf").write_bytes(content)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CHOPMIX_DATA", str(folder))
        Emoji().open("train")


@fuzzed(content=changed_bytes([font()]))
def test_fonts(judge, content):
    folder = judge.folder()
    judge.check("fonts", lambda: emoji_of(folder, content), f"a font of {content!r}")


# ------------------------------------------------------------------------------------------------------------- grammars

GRAMMARS = {
    "": ["[0-9]+[+][0-9]+", "(a|b)*c{2,3}", "\\d{1,9}", "[^a]", "x?" * 20],
    ".lark": [
        'start: "a" b*\nb: /[0-9]+/ | start',
        "start: NAME\nNAME: /[a-z]+/ & /.{1,4}/",
        '%ignore " "\nstart: "a"',
    ],
    ".json": [
        '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}',
        '{"enum": ["a", 1, null]}',
        '{"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}}',
    ],
}
"""Good grammars by the ending of their file; a regular expression has none."""
grammars = st.one_of(*(st.tuples(st.just(ending), changed_text(texts, most=2)) for ending, texts in GRAMMARS.items()))
BYTES = ByteEncoding()


def allowed_by(grammar: str) -> None:
    """What a grammar allows at the beginning, and after its first allowed id."""
    known = Grammar(BYTES, grammar)
    first = known.allowed((), BYTES.size).nonzero()[:, 0].tolist()
    if first and first[0] not in BYTES.ends:
        assert known.allowed((first[0],), BYTES.size).shape == (BYTES.size,)


@fuzzed(given=grammars)
def test_grammars(judge, given):
    ending, text = given
    folder = judge.folder()
    if ending:
        (folder / f"odd{ending}").write_text(text, errors="surrogatepass")
    written = str(folder / f"odd{ending}") if ending else text
    judge.check("grammars", lambda: allowed_by(written), f"a grammar {ending} of {text!r}")


def test_the_seeds_are_read():
    """What is changed is good to begin with, else only the first check of every file would be tried."""
    for number, content in enumerate(PICTURES):
        if number != 16:  # floating-point numbers, which are refused
            assert read(IMAGE_CHOPPERS[0], content) is None
    for content in SOUNDS[:-2]:
        assert read(SOUND_CHOPPERS[0], content) is None
    for content in TABLES[:3]:
        assert read(NAMED[0], content.encode()) is None
    assert read(SCORE_CHOPPERS[0], SCORES[0]) is None
    for text in GRAMMARS[""]:
        assert allowed_by(text) is None
