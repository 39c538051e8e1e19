"""Fuzz tests of imports: damaged directories of published models are imported and used, or refused clearly."""

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
"""The command that is called with each kind of model after its import."""


@pytest.fixture(scope="module")
@in_its_home
def directories(whole_judge, published) -> dict[str, dict[str, bytes]]:
    """The files of a valid directory of every kind; each is imported and used once."""
    assert sorted(published) == sorted(USES)
    for kind, files in published.items():
        write(whole_judge.folder() / "theirs", files)
        with suppress(Steered):  # a random model may write such characters
            import_and_use(kind)
    return published


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a new directory."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def import_and_use(kind: str) -> None:
    """Import the directory `theirs`, and call the command of its kind with the run."""
    assert command("import", "theirs", "run")
    name, *options = USES[kind]
    command(name, "run", *(["../data/sound-0.wav"] if kind == "whisper" else []), *options)


# ----------------------------------------------------------------------------------------------------------------
# changes


def split(content: bytes) -> tuple[Any, bytes]:
    """The header of a safetensors file, and the bytes of its numbers."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def joined(header: str, numbers: bytes) -> bytes:
    """A safetensors file with this header and these numbers."""
    text = header.encode(errors="surrogatepass")
    return len(text).to_bytes(8, "little") + text + numbers


@st.composite
def odd_file(draw, name: str, content: bytes) -> bytes | None:
    """The changed content of a file; None: the file is missing."""
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
    """A `config.json` in which one to three fields have odd values or other sizes."""
    tree = json.loads(content)
    for key in draw(st.lists(st.sampled_from(sorted(tree)), min_size=1, max_size=3, unique=True)):
        whole = type(tree[key]) is int
        tree[key] = draw(st.one_of(SIZES, SIZES, other_settings) if whole else other_settings)
    return json.dumps(tree).encode()


@st.composite
def odd_directories(draw, directories: dict[str, dict[str, bytes]]) -> tuple[str, dict[str, bytes | None]]:
    """A kind of directory, and the contents of its changed files."""
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
def test_a_pipe_a_folder_or_a_link_in_place_of_a_file(judge, directories, name, what):
    """One file of a directory is replaced by a pipe that nobody writes to, a folder, or a link."""
    folder = judge.folder() / "theirs"
    write(folder, directories["bert"])
    file = folder / name
    file.unlink(missing_ok=True)
    replace = {
        "pipe": lambda: os.mkfifo(file),
        "folder": file.mkdir,
        "link to nothing": lambda: file.symlink_to("nothing"),
        "link to /dev/zero": lambda: file.symlink_to("/dev/zero"),
    }
    replace[what]()
    judge.check("imports", lambda: import_and_use("bert"), f"bert, whose {name} is a {what}")
