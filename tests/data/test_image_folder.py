"""Folders of images: images are read at any depth, and folders of other files are refused."""

import time
from pathlib import Path

import pytest
from chopmix.data.datasets import image_folder
from chopmix.data.datasets.image_folder import read_folder
from chopmix.files import reading
from chopmix.files.reading import DataError, matching


def fill(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_at_any_depth_are_sorted_by_path(tmp_path):
    fill(tmp_path, ["b/1.PNG", "a/x/y/2.jpg", "a/x/1.jpg", "a/z.txt", "c/.d/3.gif", "no_class.png", "a/x.png/4.webp"])
    (tmp_path / "e").symlink_to(tmp_path / "a" / "x")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    samples = read_folder(tmp_path)
    assert samples.keys == [
        "a/x/1.jpg",
        "a/x/y/2.jpg",
        "a/x.png/4.webp",
        "b/1.PNG",
        "c/.d/3.gif",
        "e/1.jpg",
        "e/y/2.jpg",
    ]
    assert [row["label"] for row in samples.rows] == ["a", "a", "a", "b", "c", "e", "e"]
    assert samples.rows[0]["image"] == tmp_path / "a/x/1.jpg"


def test_a_folder_of_other_files_is_refused_before_it_is_walked(tmp_path, monkeypatch):
    monkeypatch.setattr(image_folder, "OTHERS", 20)
    fill(tmp_path, [f"a/{n}.png" for n in range(3)] + [f"a/{n}.txt" for n in range(30)])
    assert len(read_folder(tmp_path).keys) == 3  # ten other files per image are accepted
    fill(tmp_path, ["a/30.txt"])
    message = (
        r"is not a folder of images: it has 3 images and 31 other files and folders up to .*a; use a folder with one "
    )
    with pytest.raises(DataError, match=message + r"folder per class \(such as .*cat/1.jpg\)"):
        read_folder(tmp_path)
    monkeypatch.setattr(image_folder, "OTHERS", 30)
    fill(tmp_path, [f"b/{n}/c/d" for n in range(30)])
    with pytest.raises(DataError, match="is not a folder of images"):
        read_folder(tmp_path)


def test_the_whole_disk_is_not_a_folder_of_images():
    started = time.process_time()
    with pytest.raises(DataError, match="/ is not a folder of images: it has"):
        read_folder(Path("/"))
    assert time.process_time() - started < 5


def test_a_pattern_matches_a_limited_number_of_paths(tmp_path, monkeypatch):
    fill(tmp_path, ["b.txt", "a.txt", "c/d.txt"])
    monkeypatch.setattr(reading, "FILES", 3)
    assert matching(f"{tmp_path}/**/*.txt") == [f"{tmp_path}/{name}.txt" for name in ("a", "b", "c/d")]
    monkeypatch.setattr(reading, "FILES", 2)
    with pytest.raises(DataError, match=r"matches more than 2 paths; name a folder with fewer files"):
        matching(f"{tmp_path}/**/*.txt")
