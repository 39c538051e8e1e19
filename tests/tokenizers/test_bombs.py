"""Small files that unpack to far more than they are: every reader refuses them, or takes less than 1 GiB."""

import gzip
import lzma

import pytest
from bounded import measured
from chopmix.data.datasets.manifest import Manifest
from chopmix.data.datasets.moses import Moses
from chopmix.tokenizers.files.reading import DataError, read_lines, read_packed_text

BOUND = 1024
"""MiB that a file may take at most."""


def count_text(file):
    return len(read_packed_text(file))


def count_lines(file):
    return sum(1 for _ in read_lines(file))


def refused(call, *arguments, within=BOUND, seconds=60.0):
    """The message of a reader that refuses a file with an error of ours, within its bounds."""
    found = measured(call, *arguments)
    assert found.error.startswith("DataError: "), found
    assert found.mib < within and found.seconds < seconds, found
    return found.error.removeprefix("DataError: ")


PACKERS = {".gz": lambda content: gzip.compress(content, 1), ".xz": lambda content: lzma.compress(content, preset=0)}


@pytest.mark.parametrize("ending", PACKERS)
def test_texts_that_unpack_to_short_lines(tmp_path, ending):
    """A line of two bytes takes 40 in memory: 64 MiB of them would take more than 1 GiB."""
    file = tmp_path / f"bomb.txt{ending}"
    file.write_bytes(PACKERS[ending](b"a\n" * 2**25 + b"a"))
    assert file.stat().st_size < 2**19
    told = "bomb.txt.. unpacks to more than 67,108,864 bytes; unpack it yourself if that is meant"
    assert refused(count_text, file).endswith(told.replace("..", ending))
    file.write_bytes(PACKERS[ending](("a\n" * (2**25 - 2) + "\U0001f600").encode()))  # the widest letters
    found = measured(count_text, file)
    assert found.value == 2**26 - 3 and found.mib < BOUND


def test_one_line_of_all(tmp_path):
    (tmp_path / "line.txt").write_bytes(b"a" * (2**24 + 1))
    assert refused(count_lines, tmp_path / "line.txt").endswith("line.txt has a line of more than 16,777,216 bytes")
    assert measured(count_text, tmp_path / "line.txt").value == 2**24 + 1  # a text may be one line


def rows(file):
    return len(Manifest(train=str(file), columns=["a"]).read(file))


def test_a_line_of_json_that_is_nested(tmp_path):
    file = tmp_path / "bomb.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"a": [' + b"[]," * 2**23 + b"1]}", 1))
    assert "has a line of more than 16,777,216 bytes" in refused(rows, file)


def molecules(folder):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CHOPMIX_DATA", str(folder))
        return [document.text for document in Moses().documents("test")]


def test_a_file_of_molecules_is_unpacked_within_bounds(tmp_path):
    (tmp_path / "moses").mkdir()
    file = tmp_path / "moses" / "test.csv.gz"
    file.write_bytes(gzip.compress(b"SMILES\nCO\n\nCC\n"))
    assert molecules(tmp_path) == ["CO", "CC"]
    file.write_bytes(gzip.compress(b"SMILES\n" + bytes(2**26), 1))
    assert "test.csv.gz has a line of more than" in refused(molecules, tmp_path)
    file.write_bytes(b"SMILES\n")
    with pytest.raises(DataError, match=r"test.csv.gz cannot be read: Not a gzipped file"):
        molecules(tmp_path)
