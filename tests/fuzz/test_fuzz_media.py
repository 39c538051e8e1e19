"""Fuzz tests of media: damaged pictures, sounds, sensor data, scores, fonts and grammars are read, or refused with a
clear error."""

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
    """Do with a raw value what happens on its way into a batch."""
    item = chopper.decode(raw)
    piece = chopper.chop(item)
    assert piece.count == chopper.count(item) >= 1
    assert piece.coordinates is None or len(piece.coordinates) == piece.count
    assert len(chopper.collate([piece, piece]))


def raw_value(folder: Path, content: bytes, as_file: bool, ending: str) -> bytes | Path:
    """The content as bytes, or the path of a file with this content."""
    if not as_file:
        return content
    file = folder / f"odd{ending}"
    file.write_bytes(content)
    return file


# ------------------------------------------------------------------------------------------------------------- pictures


def picture(kind: str, mode: str = "RGB", frames: int = 1, **options) -> bytes:
    """A small picture or animation as a file of this kind."""
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
    raw = raw_value(judge.folder(), content, as_file, ".png")
    judge.check("images", lambda: read(chopper, raw), f"{chopper}.decode({content!r})")


# --------------------------------------------------------------------------------------------------------------- sounds


def sound(kind: str, subtype: str | None = None, channels: int = 1, rate: int = 8000, samples: int = 700) -> bytes:
    """A short sound of random noise as a file of this kind."""
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
    raw = raw_value(judge.folder(), content, as_file, ".wav")
    judge.check("sounds", lambda: read(chopper, raw), f"{chopper}.decode({content!r})")


# -------------------------------------------------------------------------------------------------------------- sensors


def array(values: object, kind: str = "<f4", version: tuple[int, int] | None = None) -> bytes:
    """An array as a `.npy` file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(values, kind), version=version)
    return file.getvalue()


def npy_with_header(header: str) -> bytes:
    """A `.npy` file with this header."""
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
    npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (8, 2), }"),
    npy_with_header("{'descr': '<f4', 'fortran_order': True, 'shape': (1000000000000000, 2), }"),
    npy_with_header("{'descr': '|O', 'fortran_order': False, 'shape': (8, 1), }"),
    npy_with_header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (8, 2), }"),
    npy_with_header("{'descr': '|V0', 'fortran_order': False, 'shape': (-1,), }"),
    npy_with_header("(" * 90),
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
"""The content of a file, and the chopper that reads it."""


@fuzzed(recording=sensors, as_file=st.booleans())
def test_sensors(judge, recording, as_file):
    content, chopper = recording
    raw = raw_value(judge.folder(), content, as_file, ".csv")
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
    raw = raw_value(judge.folder(), content, as_file, ".mid")
    judge.check("scores", lambda: read(chopper, raw), f"{chopper}.decode({content!r})")


# ---------------------------------------------------------------------------------------------------------------- fonts


def font() -> bytes:
    """A new font with two letters: it has no emoji, but all tables that are read first."""
    builder = FontBuilder(1024, isTTF=True)
    builder.setupGlyphOrder([".notdef", "A", "B"])
    builder.setupCharacterMap({0x41: "A", 0x1F600: "B"})
    builder.setupGlyf({name: Glyph() for name in (".notdef", "A", "B")})
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", "A", "B"), (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Odd", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    file = io.BytesIO()
    builder.save(file)
    return file.getvalue()


def emoji_of(folder: Path, content: bytes) -> None:
    """Read all emoji of a font in the folder of data."""
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
"""Valid grammars by the ending of their file; a regular expression is no file."""
grammars = st.one_of(*(st.tuples(st.just(ending), changed_text(texts, most=2)) for ending, texts in GRAMMARS.items()))
BYTES = ByteEncoding()


def allowed_by(grammar: str) -> None:
    """Compute the ids that a grammar allows at the beginning, and after its first allowed id."""
    compiled = Grammar(BYTES, grammar)
    first = compiled.allowed((), BYTES.size).nonzero()[:, 0].tolist()
    if first and first[0] not in BYTES.ends:
        assert compiled.allowed((first[0],), BYTES.size).shape == (BYTES.size,)


@fuzzed(grammar=grammars)
def test_grammars(judge, grammar):
    ending, text = grammar
    folder = judge.folder()
    if ending:
        (folder / f"odd{ending}").write_text(text, errors="surrogatepass")
    option = str(folder / f"odd{ending}") if ending else text
    judge.check("grammars", lambda: allowed_by(option), f"a grammar {ending} of {text!r}")


def test_the_seeds_are_read():
    """The files are valid before they are changed; otherwise only the first check of every reader would be tested."""
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
