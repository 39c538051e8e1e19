"""Directories of published models, damaged in every way: imported and used, or refused in a sentence of ours."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fuzzed import DEEP, changed_bytes, changed_text, changed_tree, fuzzed, odd_numbers, odd_texts, odd_values
from hypothesis import strategies as st
from judged import Steered, command, in_its_home

USES = {
    "gpt2": ("generate", "--max-tokens", "3", "--temperature", "0"),
    "llama": ("generate", "--max-tokens", "3", "--prompt", "<5>"),
    "bert": ("predict", "--input", "text=chop [MASK] mix"),
    "roberta": ("predict", "--input", "text=chop<mask>"),
    "t5": ("predict", "--input", "source=chop mix"),
    "whisper": ("transcribe", "--temperature", "0", "--beams", "1"),
    "ast": ("predict", "--input", "sound=../data/sound-0.wav"),
    "decision": ("play", "--environment", "Pendulum-v1", "--episodes", "1", "--target", "-200"),
    "vit": ("predict", "--input", "image=../data/image-0.png"),
}
"""What each kind is used for, once it is imported."""


@pytest.fixture(scope="module")
@in_its_home
def directories(whole_judge, published) -> dict[str, dict[str, bytes]]:
    """The files of a good directory of every kind; each is imported and used once."""
    assert sorted(published) == sorted(USES)
    for kind, files in published.items():
        write(whole_judge.folder() / "theirs", files)
        with suppress(Steered):  # what a random model writes
            import_and_use(kind)
    return published


def write(folder: Path, files: dict[str, bytes]) -> None:
    """A directory of some files."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def import_and_use(kind: str) -> None:
    """Import the directory `theirs`, and ask the run something."""
    assert command("import", "theirs", "run")
    name, *options = USES[kind]
    command(name, "run", *(["../data/sound-0.wav"] if kind == "whisper" else []), *options)


# ----------------------------------------------------------------------------------------------------------------
# changes


def split(content: bytes) -> tuple[Any, bytes]:
    """The header of a safetensors file, and its numbers."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def joined(header: str, numbers: bytes) -> bytes:
    """A safetensors file."""
    text = header.encode(errors="surrogatepass")
    return len(text).to_bytes(8, "little") + text + numbers


@st.composite
def odd_file(draw, name: str, content: bytes) -> bytes | None:
    """A file of a directory, changed; None: it is missing."""
    if draw(st.integers(0, 19)) == 19:
        return draw(st.sampled_from((None, b"", b"null", b"[]", b"{}", b"5", *(text.encode() for text in DEEP))))
    if name.endswith(".safetensors"):
        if draw(st.booleans()):
            return draw(changed_bytes([content]))
        header, numbers = split(content)
        return joined(json.dumps(draw(changed_tree([header]))), numbers)
    if name.endswith(".json") and draw(st.integers(0, 3)):
        return json.dumps(draw(changed_tree([json.loads(content)]))).encode()
    if draw(st.integers(0, 3)):
        return draw(changed_text([content.decode()])).encode(errors="surrogatepass")
    return draw(changed_bytes([content]))


SIZES = st.sampled_from(
    (
        0,
        1,
        2,
        3,
        8,
        15,
        16,
        17,
        24,
        32,
        61,
        128,
        257,
        258,
        1000,
        4096,
        65_536,
        2**17,
        2**24 - 1,
        2**24,
        2**31,
        2**32 - 1,
        10**9,
    )
)
other_settings = odd_numbers | odd_values | st.lists(odd_numbers, max_size=3)


@st.composite
def odd_settings(draw, content: bytes) -> bytes:
    """A `config.json` of which one to three fields have odd values, or other sizes."""
    tree = json.loads(content)
    for key in draw(st.lists(st.sampled_from(sorted(tree)), min_size=1, max_size=3, unique=True)):
        whole = type(tree[key]) is int
        tree[key] = draw(st.one_of(SIZES, SIZES, other_settings) if whole else other_settings)
    return json.dumps(tree).encode()


@st.composite
def odd_directories(draw, directories: dict[str, dict[str, bytes]]) -> tuple[str, dict[str, bytes | None]]:
    """A kind of directory, and the files in it that are changed."""
    kind = draw(st.sampled_from(sorted(directories)))
    files = directories[kind]
    if draw(st.booleans()):
        return kind, {"config.json": draw(odd_settings(files["config.json"]))}
    names = draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=2, unique=True))
    changes = {name: draw(odd_file(name, files[name])) for name in names}
    if draw(st.integers(0, 9)) == 9:
        other = (
            "vocab.txt",
            "vocab.json",
            "merges.txt",
            "added_tokens.json",
            "tokenizer_config.json",
            "generation_config.json",
            "preprocessor_config.json",
            "model.bin",
            "pytorch_model.bin",
            "spiece.model",
            "model.safetensors.index.json",
        )
        text = odd_texts | odd_values.map(json.dumps)
        changes[draw(st.sampled_from(other))] = draw(text).encode(errors="surrogatepass")
    return kind, changes


@fuzzed(20, data=st.data())
def test_imports(judge, directories, data):
    kind, changes = data.draw(odd_directories(directories))
    folder = judge.folder()
    files = {**directories[kind], **changes}
    write(folder / "theirs", {name: content for name, content in files.items() if content is not None})
    judge.check("imports", lambda: import_and_use(kind), f"{kind} {changes!r}")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"])
@pytest.mark.parametrize("what", ["pipe", "folder", "link to nothing", "link to /dev/zero"])
def test_files_that_are_none(judge, directories, name, what):
    """A file of a directory that is no file: a pipe that nobody writes to, a folder, a link."""
    folder = judge.folder() / "theirs"
    write(folder, directories["bert"])
    file = folder / name
    file.unlink(missing_ok=True)
    made = {
        "pipe": lambda: os.mkfifo(file),
        "folder": file.mkdir,
        "link to nothing": lambda: file.symlink_to("nothing"),
        "link to /dev/zero": lambda: file.symlink_to("/dev/zero"),
    }
    made[what]()
    judge.check("imports", lambda: import_and_use("bert"), f"bert, whose {name} is a {what}")
