"""The data set `stamps`: with the option `unseen`, validation has no caption that training has."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from chopmix.data.datasets.stamps import Stamps
from chopmix.files.reading import DataError

ROOT = Path(os.environ.get("CHOPMIX_DATA") or "missing")


def write(file: Path, captions: list[str]) -> None:
    """A shard of samples that have nothing but captions."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for number, caption in enumerate(captions):
            texts = {"txt": caption, "json": json.dumps({"category": "food", "text": {"fr": f"fr {caption}"}})}
            for ending, text in texts.items():
                content = text.encode()
                member = tarfile.TarInfo(f"{number:03}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def stamps(monkeypatch, tmp_path):
    """A stand-in data root: three captions to learn from, one of which is also in val."""
    monkeypatch.setenv("CHOPMIX_DATA", str(tmp_path))
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "stamps" / "train.tar", ["An onion.", "The letter E.", "A deer."])
    write(tmp_path / "stamps" / "val.tar", ["A deer.", "The letter e.", "A sock."])


def test_val_keeps_only_captions_that_train_lacks(stamps):
    every, unseen = Stamps(), Stamps(unseen=True)
    assert list(every.open("val").column("caption")) == ["A deer.", "The letter e.", "A sock."]
    assert list(unseen.open("val").column("caption")) == ["The letter e.", "A sock."]  # letter for letter
    assert list(unseen.open("val").keys) == ["001", "002"] and unseen.open("val")[1]["caption_fr"] == "fr A sock."
    assert list(unseen.open("train").keys) == list(every.open("train").keys) == ["000", "001", "002"]
    assert (every.options, unseen.options) == ({"unseen": False}, {"unseen": True})
    with pytest.raises(DataError, match="dataset 'stamps' has no split 'test'; possible: train, val"):
        unseen.open("test")


@pytest.mark.skipif(not (ROOT / "stamps").exists(), reason="needs CHOPMIX_DATA with stamps")
def test_a_fifth_of_the_real_captions_is_known(monkeypatch, tmp_path):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path))
    every, unseen = Stamps().open("val"), Stamps(unseen=True).open("val")
    assert (len(every), len(unseen)) == (93, 73)
    assert not set(unseen.column("caption")) & set(Stamps().open("train").column("caption"))
