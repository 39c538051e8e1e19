"""Small files with huge contents: every reader refuses them, or takes less than 1 GiB of memory."""

import gzip
import io
import lzma
import math
import re
import struct
import tarfile
import time
import zlib
from contextlib import nullcontext

import numpy as np
import pytest
import soundfile
import torch
from bounded import measured
from chopmix.data.datasets.manifest import Manifest
from chopmix.data.datasets.moses import Moses
from chopmix.data.hub_files import readme_configurations
from chopmix.data.tar_files import WORDS, members
from chopmix.experiment.interchange.tokenizers import merges_of
from chopmix.files.reading import DataError, matching, read_lines, read_packed_text
from chopmix.files.records import VALUES, as_numbers, read_array
from chopmix.inference.report import drawn
from chopmix.models.batch import Targets
from chopmix.projects.decision.steps import masked_inputs
from chopmix.tasks.classification import Classes, Classification
from chopmix.tasks.measuring.class_report import ClassReporter
from chopmix.tasks.measuring.report import Picture
from chopmix.tokenizers.audio import AudioChopper
from chopmix.tokenizers.category import CategoryChopper
from chopmix.tokenizers.image import ImageChopper
from chopmix.tokenizers.media import files
from chopmix.tokenizers.media.files import check_pixels, read_picture, read_sound
from chopmix.tokenizers.media.jpeg_png import jpeg_header
from chopmix.tokenizers.media.sound import resampled, trimmed
from chopmix.tokenizers.sensor import SensorChopper
from chopmix.tokenizers.video import VideoChopper
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiers import only

BOUND = 1024
"""MiB that a file may take at most."""


def count_text(file):
    return len(read_packed_text(file))


def count_lines(file):
    return sum(1 for _ in read_lines(file))


def refusal(call, *arguments, within=BOUND, seconds=60.0):
    """Return the message of the DataError with which a reader refuses a file within the limits of memory and time."""
    result = measured(call, *arguments)
    assert result.error.startswith("DataError: "), result
    assert result.mib < within and result.seconds < seconds, result
    return result.error.removeprefix("DataError: ")


PACKERS = {".gz": lambda content: gzip.compress(content, 1), ".xz": lambda content: lzma.compress(content, preset=0)}


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.system
def test_texts_that_unpack_to_many_short_lines_are_refused(tmp_path, ending):
    """A line of two bytes takes 40 bytes in memory, so 32 MiB of such lines would take more than 1 GiB."""
    file = tmp_path / f"bomb.txt{ending}"
    file.write_bytes(PACKERS[ending](b"a\n" * 2**24 + b"a"))
    assert file.stat().st_size < 2**18
    message = f"bomb.txt{ending} unpacks to more than 33,554,432 bytes; unpack it yourself to read it"
    assert refusal(count_text, file).endswith(message)


def test_the_size_of_an_unpacked_text_is_limited_by_that_of_its_file(tmp_path):
    """A letter takes up to four bytes in memory, so that a text takes up to 100 times the size of its file."""
    noise = np.random.default_rng(0).integers(32, 126, 2**21, np.uint8).tobytes()
    for times, message in ((20, None), (30, "unpacks to more than")):
        file = tmp_path / f"{times}.txt.gz"
        file.write_bytes(gzip.compress(noise, 1) + gzip.compress(b"a" * times * len(noise), 1))
        with pytest.raises(DataError, match=message) if message else nullcontext():
            assert len(read_packed_text(file)) == (times + 1) * len(noise)


@pytest.mark.system
def test_a_text_takes_four_bytes_per_letter(tmp_path):
    file = tmp_path / "text.txt.gz"
    file.write_bytes(gzip.compress(("a\n" * (2**24 - 2) + "\U0001f600").encode(), 1))  # one of the widest letters
    result = measured(count_text, file)
    assert result.value == 2**25 - 3 and result.mib < 300


@pytest.mark.system
def test_a_line_has_a_limit_but_a_text_may_be_one_line(tmp_path):
    (tmp_path / "line.txt").write_bytes(b"a" * (2**24 + 1))
    assert refusal(count_lines, tmp_path / "line.txt").endswith("line.txt has a line of more than 16,777,216 bytes")
    assert measured(count_text, tmp_path / "line.txt").value == 2**24 + 1  # a text may be one line


def count_rows(file):
    return len(Manifest(train=str(file), columns=["a"]).read(file))


@pytest.mark.system
def test_a_long_line_of_nested_json_is_refused(tmp_path):
    file = tmp_path / "bomb.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"a": [' + b"[]," * 2**23 + b"1]}", 1))
    assert "has a line of more than 16,777,216 bytes" in refusal(count_rows, file)


def read_molecules(folder):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CHOPMIX_DATA", str(folder))
        return [document.text for document in Moses().documents("test")]


@pytest.mark.system
def test_a_file_of_molecules_is_unpacked_up_to_a_limit(tmp_path):
    (tmp_path / "moses").mkdir()
    file = tmp_path / "moses" / "test.csv.gz"
    file.write_bytes(gzip.compress(b"SMILES\nCO\n\nCC\n"))
    assert read_molecules(tmp_path) == ["CO", "CC"]
    file.write_bytes(gzip.compress(b"SMILES\n" + bytes(2**26), 1))
    assert "test.csv.gz has a line of more than" in refusal(read_molecules, tmp_path)
    file.write_bytes(b"SMILES\n")
    with pytest.raises(DataError, match=r"test.csv.gz cannot be read: Not a gzipped file"):
        read_molecules(tmp_path)


# ------------------------------------------------------------------------------------------- pictures and animations


def decoded_shapes(chopper, raw):
    """Return the shapes of a decoded item and of its chunk."""
    item = chopper.decode(raw)
    return tuple(item.shape), tuple(chopper.chop(item).values.shape)


PICTURE = ImageChopper(size=8, patch_size=4)


def black_picture(mode: str, kind: str, side: int, **options) -> bytes:
    """Return a file of a black picture, of a few kilobytes."""
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, kind, **options)
    return file.getvalue()


ROTATED = Image.Exif()
ROTATED[0x0112] = 6


OVERHEAD = 100
"""MiB of libraries that are used for the first time in the child process."""


@pytest.mark.parametrize(
    ("mode", "kind", "bytes_per_pixel", "options"),
    only(1, [("RGB", "JPEG", 10, {"exif": ROTATED}), ("P", "PNG", 8, {"transparency": b"\0"}), ("I;16", "PNG", 10, {}),
             ("RGB", "WEBP", 14, {"lossless": True, "method": 0})]),
)  # fmt: skip
def test_a_picture_takes_a_limited_number_of_bytes_per_pixel(mode, kind, bytes_per_pixel, options):
    side = 4096
    result = measured(decoded_shapes, PICTURE, black_picture(mode, kind, side, **options))
    assert result.value == ((3, side, side), (1, 3, 8, 8))
    assert result.mib < OVERHEAD + bytes_per_pixel * side**2 / 2**20 and bytes_per_pixel * files.PIXELS / 2**20 < BOUND


def gif(width: int, height: int, frames: int) -> bytes:
    """Return a GIF of large frames. Only one pixel of each frame is stored, in 15 bytes."""
    frame = b"\x2c" + bytes(4) + struct.pack("<HHB", 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame * frames + b"\x3b"


def test_frames_of_an_animation_are_not_kept_in_full_size():
    """The GIF has 400 bytes. Its 24 frames together would take 300 MiB as pixels, and more as pictures."""
    result = measured(decoded_shapes, VideoChopper(size=8, patch_size=4), gif(2048, 2048, 24))
    assert result.value == ((24, 3, 8, 8), (48, 96)) and result.mib < OVERHEAD + 100


def test_the_total_number_of_pixels_of_an_animation_is_limited(monkeypatch):
    monkeypatch.setattr(files, "MOVING", 40 * 40 * 3)
    assert len(VideoChopper(size=8, patch_size=4).decode(gif(40, 40, 3))) == 3
    with pytest.raises(DataError, match="its frames have more than 4,800 pixels in total; make it smaller"):
        VideoChopper(size=8, patch_size=4).decode(gif(40, 40, 4))
    assert len(VideoChopper(size=8, patch_size=4, longest=3).decode(gif(40, 40, 4))) == 3


def tiff(side: int) -> bytes:
    """Return a TIFF of 16 x 16 pixels whose tile has another size."""
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: 4}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 12) + bytes(4) + struct.pack("<H", len(tags)) + entries + bytes(4)


def icon(side: int) -> bytes:
    """Return an icon file that declares 8 x 8 pixels and contains a larger picture."""
    content = black_picture("L", "PNG", side)
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 8, 8, 0, 0, 1, 32, len(content), 22) + content


def png_header(side: int) -> bytes:
    """Return a PNG that contains little more than its header."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99)))]
    parts = (struct.pack(">I", len(c)) + name + c + struct.pack(">I", zlib.crc32(name + c)) for name, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("chopper", "raw", "message"),
    [(PICTURE, png_header(8193), "its 8,193 x 8,193 pixels are more than 67,108,864; make it smaller"),
     (PICTURE, png_header(10_000), "its 10,000 x 10,000 pixels are more than"),  # Pillow warns from 9,460 on
     (PICTURE, png_header(20_000), "Image size .* exceeds limit of .* pixels"),
     (PICTURE, tiff(30_000), "its 30,000 x 30,000 pixels are more than"),
     (PICTURE, icon(8200), "has an unsupported format"),
     (VideoChopper(size=8, patch_size=4), gif(10_000, 10_000, 2), "the video cannot be read: its 10,000 x 10,000"),
     (VideoChopper(size=8, patch_size=4), gif(4096, 4097, 2), "its 4,096 x 4,097 pixels are more than 16,777,216")],
    ids=["above the limit", "Pillow warns", "Pillow refuses", "tile", "icon", "animation", "frame"],
)  # fmt: skip
def test_pictures_of_too_many_pixels_are_refused_without_a_warning(chopper, raw, message):
    result = measured(decoded_shapes, chopper, raw)
    assert result.error.startswith("DataError: ") and result.mib < 512
    assert result.warnings in ([], ["Image was not the expected size"])  # the latter is the warning for the icon
    assert re.search(message, result.error)


@given(st.integers(1, 2**20), st.integers(1, 2**20))
def test_pixels_are_counted_before_they_are_decoded(width, height):
    class Header:
        size = width, height

    if width * height <= files.PIXELS:
        check_pixels(Header)
    else:
        with pytest.raises(ValueError, match=f"its {width:,} x {height:,} pixels are more than 67,108,864"):
            check_pixels(Header)


def test_a_postscript_program_is_refused_as_a_picture():
    """Pillow would run Ghostscript to read it."""
    with pytest.raises(DataError, match="it is damaged or has an unsupported format"):
        read_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\n%%EOF\n")


@given(
    st.sampled_from(["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "I"]), st.sampled_from([1, 3]),
    st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_picture_decoded_in_bands_equals_the_picture_decoded_at_once(mode, channels, width, height, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (height, width, 4), generator=generator, dtype=torch.uint8).numpy()
    first = Image.fromarray(pixels)
    picture = first.convert("L").convert(mode) if mode.startswith("I") else first.convert(mode)
    if mode == "P":
        picture.info["transparency"] = 3
    chopper = ImageChopper(channels=channels)
    whole = chopper.decode(picture)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("chopmix.tokenizers.image.BAND_PIXELS", 2 * width)
        assert chopper.decode(picture).equal(whole)
    expected = torch.from_numpy(np.atleast_3d(chopper._converted(picture)).copy()).permute(2, 0, 1)
    assert whole.equal(expected) and whole.shape == (channels, height, width)


# ------------------------------------------------------------------------------------------------------------- sounds


def silence(samples: int, rate: int = 16_000, **options) -> bytes:
    """Return a sound file of zeros."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, 1, **options) as sound:
        for _ in range(samples // 2**20):
            sound.write(np.zeros(2**20, np.float32))
        sound.write(np.zeros(samples % 2**20, np.float32))
    return file.getvalue()


def test_the_number_of_samples_of_a_sound_is_limited(monkeypatch):
    content = silence(2**20 + 5, format="FLAC")
    assert len(content) < 30_000 and len(read_sound(content)[0]) == 2**20 + 5
    monkeypatch.setattr(files, "SAMPLES", 2**20 + 5)
    assert len(read_sound(content)[0]) == 2**20 + 5
    monkeypatch.setattr(files, "SAMPLES", 2**20 + 4)
    with pytest.raises(DataError, match="it has more than 1,048,580 samples; cut it into parts"):
        read_sound(content)


@pytest.mark.parametrize(
    ("chopper", "rate", "bytes_per_sample"),
    only(1, [(AudioChopper(longest=1.0), 44_100, 6), (AudioChopper(longest=1.0), 16_000, 4),
             (AudioChopper(longest=1e9, trim=20.0), 8_000, 16)]),
)  # fmt: skip
def test_a_sound_takes_a_limited_number_of_bytes_per_sample(chopper, rate, bytes_per_sample):
    """The longest sounds take 512 MiB, at 44.1 kHz 768 MiB, and 1 GiB if 67 million samples at 8 kHz are doubled."""
    samples = 2**24
    result = measured(decoded_shapes, chopper, silence(samples, rate, format="FLAC"))
    assert not result.error and result.value[0] == (16_000 if chopper.longest == 1 else 2 * samples,)
    assert (
        result.mib < RESAMPLING + bytes_per_sample * samples / 2**20
        and bytes_per_sample * files.SAMPLES * min(rate, 16_000) <= 16_000 * 2**30
    )


RESAMPLING = 220
"""MiB of libraries and of one block during resampling."""


def false_wav(frames: int, channels: int) -> bytes:
    """Return a WAV file whose header declares more samples than the file contains."""
    content = bytearray(silence(99, format="WAV", subtype="PCM_16"))
    content[4:8], content[40:44] = struct.pack("<I", 2**32 - 1), struct.pack("<I", 2 * frames * channels)
    content[22:24], content[32:34] = struct.pack("<H", channels), struct.pack("<H", 2 * channels)
    return bytes(content)


@pytest.mark.parametrize(
    "raw", [false_wav(2**30, 1), false_wav(2**20, 1000), silence(99, 1, format="WAV"), silence(9, format="WAV")[:30]]
)
def test_sounds_with_false_headers_take_little_memory_and_time(raw):
    usage = measured(decoded_shapes, AudioChopper(), raw)
    assert usage.mib < OVERHEAD and usage.seconds < 2


def test_a_rate_from_which_a_sound_becomes_too_long_is_refused():
    """A file of 18 KB at 1 Hz becomes 2**27 samples at 16 kHz."""
    content = silence(2**27 // 16_000 + 1, 1, format="WAV", subtype="PCM_16")
    message = "at its new rate, 16000 samples for every 1, it has more than 134,217,728 samples; cut it into parts"
    assert message in refusal(decoded_shapes, AudioChopper(), content)


@given(
    st.sampled_from([8000, 11_025, 11_027, 22_050, 32_000, 44_100, 48_000, 7999, 160]), st.integers(3000, 9000),
    st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_sound_resampled_in_blocks_equals_the_sound_resampled_at_once(rate, length, late, seed):
    clip = torch.randn(length, generator=torch.Generator().manual_seed(seed))
    whole = resampled(clip, rate, 16_000, late)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("chopmix.tokenizers.media.sound.LONG", 2000)
        parts = resampled(clip, rate, 16_000, late)
    assert len(whole) == len(parts) and torch.allclose(whole, parts, atol=1e-5)


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_sound_trimmed_in_blocks_equals_the_sound_trimmed_at_once(length, window, seed):
    generator = torch.Generator().manual_seed(seed)
    clip = torch.randn(length, generator=generator) * torch.linspace(0, 1, length) ** 3
    whole = trimmed(clip, window, 20.0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("chopmix.tokenizers.media.sound.BLOCK", 50)
        assert trimmed(clip, window, 20.0).equal(whole)


def test_the_memory_of_the_removed_end_of_a_sound_is_freed():
    clip = AudioChopper(longest=0.1).decode((np.zeros(99_999, np.float32), 16_000))
    assert len(clip) == 1600 and clip.untyped_storage().nbytes() == 6400


# ------------------------------------------------------------------------------------------------- arrays and tables


def npy_file(shape: tuple[int, ...], kind: str = "|i1", content: bytes = b"") -> bytes:
    """Return a `.npy` file whose header declares an array of this shape and type."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue() + content


ARRAYS = {"sensor": SensorChopper(channels=1), "category": CategoryChopper(size=2)}


@pytest.mark.system
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_too_many_numbers_are_refused(name):
    message = refusal(decoded_shapes, ARRAYS[name], npy_file((2**25 + 1,)), within=OVERHEAD)
    assert "its header declares 33,554,433 numbers; possible: up to 33,554,432" in message
    assert "10,000,000,000,000,000 numbers" in refusal(
        decoded_shapes, ARRAYS[name], npy_file((10**8, 10**8)), within=OVERHEAD
    )
    assert "of numbers, but there are 0" in refusal(decoded_shapes, ARRAYS[name], npy_file((2**25,)), within=OVERHEAD)


@given(st.lists(st.integers(0, 2**70), max_size=4), st.sampled_from(["|i1", "<f8", "|V0", "<U9", "|O"]))
def test_the_size_of_an_array_is_checked_before_it_is_allocated(shape, kind):
    count = math.prod(shape)
    most = math.prod(max(side, 1) for side in shape)
    if count * np.dtype(kind).itemsize == 0 and most <= VALUES and kind != "|O":
        assert read_array(npy_file(tuple(shape), kind), "it").shape == tuple(shape)
        return
    with pytest.raises(DataError, match=r"its header declares (objects|[\d,]+ (numbers; possible|bytes of numbers))"):
        read_array(npy_file(tuple(shape), kind), "it")


@pytest.mark.system
def test_a_table_takes_8_bytes_per_number(monkeypatch):
    result = measured(decoded_shapes, ARRAYS["sensor"], b"0\n" + b"1\n" * 10**6)
    assert result.value == ((10**6, 1), (10**6, 1)) and result.mib < OVERHEAD
    monkeypatch.setattr("chopmix.tokenizers.sensor.VALUES", 4)
    two = SensorChopper(channels=2)
    assert len(two.decode(b"0,1\n1,2\n3,4\n")) == 2
    with pytest.raises(DataError, match="the file contains more than 4 numbers"):
        two.decode(b"0,1\n1,2\n3,4\n5,6\n")


# ----------------------------------------------------------------------------------------------------- time, patterns


def call_within(seconds, call, *arguments):
    """Return the result of a call that takes at most these seconds of the processor."""
    start = time.process_time()
    value = call(*arguments)
    assert time.process_time() - start < seconds
    return value


@pytest.mark.parametrize("cell", ["1" * 40_000 + "x", "." + "1" * 40_000 + "x", " " * 40_000 + "x"])
def test_a_long_cell_that_is_no_number_is_recognised_quickly(cell):
    """A regular expression that tried every division of the digits took a minute."""
    assert call_within(1, as_numbers, cell) == cell


def test_a_readme_of_empty_lines_is_read_quickly(tmp_path):
    (tmp_path / "README.md").write_text("---" + "\n" * 60_000)
    assert call_within(1, readme_configurations, tmp_path / "README.md") == []
    (tmp_path / "README.md").write_text("--- \nconfigs:\n- config_name: a\n---  \ntext\n---\n")
    assert readme_configurations(tmp_path / "README.md") == [{"config_name": "a"}]


def test_a_file_pattern_with_many_wildcards_is_matched_quickly_or_refused(tmp_path):
    deep = tmp_path.joinpath(*"abcdefghijklmn")
    deep.mkdir(parents=True)
    (deep / "x.txt").write_text("")
    assert call_within(1, matching, f"{tmp_path}/" + "**/" * 10 + "x.txt") == [str(deep / "x.txt")]
    with pytest.raises(DataError, match="more than 3 times"):
        matching(f"{tmp_path}/" + "**/a/" * 4)


def test_long_names_of_classes_are_shortened_in_pictures():
    picture = Picture("confusion", "", ClassReporter(["a" * 100_000, "$b"]).draw)
    with Image.open(io.BytesIO(call_within(10, drawn, picture))) as image:
        assert image.width < 2000


def test_the_global_header_of_a_shard_has_a_limit(tmp_path):
    """tarfile copies all words of this header for every member."""
    words = {f"{number:x}": "" for number in range(WORDS + 1)}
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT, pax_headers=words) as tar:
        tar.addfile(tarfile.TarInfo("1.cls"))
    with pytest.raises(DataError, match="its global header has more than 100 words"):
        list(members(str(tmp_path / "a.tar"), "a.tar"))


def test_a_report_on_many_classes_has_no_confusion_matrix():
    """The matrix of 40,000 classes would take 12 GB."""
    for count in (3, 2001):
        names = [str(number) for number in range(count)]
        reporter = ClassReporter(names)
        probabilities = dict(zip(names, [1.0] + [0.0] * (count - 1)))
        for number in range(4):
            reporter.add(number, str(number), "2", {"class": "0", "probabilities": probabilities})
        section = reporter.section({}, store=True)
        tables = {table.name for table in section.tables}
        assert ("confusion" in tables) == (count == 3) and {"classes", "confusions", "thresholds"} <= tables
        assert all(int(sums.numel()) <= count for sums in measured_sums(count).values())


def measured_sums(count):
    task = Classification(target="x")
    task.learned = Classes([str(number) for number in range(count)])
    return task.measure(torch.zeros(2, count), Targets(values=torch.tensor([0, 2])))


def test_the_length_to_which_clips_are_padded_has_a_limit():
    with pytest.raises(
        ValueError, match="longest must be at most 33,554,432 samples .2097.15 seconds. with fill: true"
    ):
        AudioChopper(rate=16_000, mels=8, fill=True, longest=100_000.0)
    AudioChopper(rate=16_000, mels=8, longest=100_000.0)


def test_merges_of_a_long_piece_are_computed_quickly():
    """Trying every cut of the piece took five seconds."""
    ranks = {b"a": 0, b"b": 1, b"ab": 2, b"a" * 199_998: 3, b"a" * 199_998 + b"ab": 4}
    assert call_within(1, list, merges_of(ranks)) == [(b"a", b"b"), (b"a" * 199_998, b"ab")]


def test_an_attention_expression_with_many_brackets_is_searched_quickly():
    assert not any(call_within(1, masked_inputs, "!from(" * 100_000))


@pytest.mark.parametrize("scans", [0, 100])
def test_the_number_of_scans_of_a_jpeg_is_limited(scans):
    """Each scan covers all pixels: 800 scans took 46 seconds."""
    content = io.BytesIO()
    Image.new("RGB", (64, 64)).save(content, "JPEG", progressive=True)
    start = content.getvalue().index(b"\xff\xda")
    scan = content.getvalue()[start : content.getvalue().index(b"\xff", start + 2)]
    raw = content.getvalue()[:-2] + scan * scans + content.getvalue()[-2:]
    if scans:
        with pytest.raises(DataError, match="it has 1[0-9]{2} scans; possible: up to 100"):
            read_picture(raw)
    else:
        assert read_picture(raw).size == (64, 64)


def jpeg_with_hidden_frame(jpeg: bytes, marker: bytes) -> bytes:
    """Return a JPEG whose comment contains a second frame of 16 x 16 pixels. A reader that takes the two bytes after
    `marker` as a size reads this frame. libjpeg knows that the marker has no size."""
    frame = b"\xff\xc0\x00\x11\x08\x00\x10\x00\x10\x03" + bytes([1, 17, 0, 2, 17, 0, 3, 17, 0])
    scan = b"\xff\xda\x00\x0c\x03" + bytes([1, 0, 2, 0, 3, 0, 0, 63, 0])
    first = 2 + 2 + 0xFFFE - 4 - 4  # of the first comment, so that the second begins where such a reader goes on
    comments = b"\xff\xfe" + (first - 2).to_bytes(2, "big") + bytes(first - 4)
    comments += b"\xff\xfe" + (len(frame + scan) + 18).to_bytes(2, "big") + frame + scan + bytes(16)
    return jpeg[:2] + marker + comments + jpeg[2:]


@pytest.mark.parametrize("marker", [b"\xff\x01", b"\xff\xd0", b"\xff\xd7", b"\xff\x00", b"\xff\xff", b"\xff\xc8"])
def test_a_frame_in_a_comment_is_not_the_header(marker):
    content = io.BytesIO()
    Image.new("RGB", (64, 48)).save(content, "JPEG")
    assert jpeg_header(content.getvalue())[:3] == (48, 64, 3)
    assert jpeg_header(jpeg_with_hidden_frame(content.getvalue(), marker)) is None
