"""Your own images in folders: the name of the folder is the class."""

from __future__ import annotations

import os
from pathlib import Path

from ...files.reading import DataError
from ..samples import Listed, OwnFiles, Samples

OTHERS = 10_000
"""How many other files and folders a folder of few images may hold."""
ENDINGS = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"}


class ImageFolder(OwnFiles):
    """`train`, `val` and `test` each name a folder with one folder per class; without `val` a tenth of train validates,
    by hash of the file's path. Columns: `image` (a path) and `label` (the folder's name): `train/cat/1.jpg` is a
    cat."""

    columns = ("image", "label")

    def __init__(self, *, train: str, val: str | None = None, test: str | None = None):
        super().__init__(train, val, test)

    def read(self, where: str) -> Samples:
        return read_folder(Path(os.path.expanduser(where)))


def read_folder(folder: Path) -> Samples:
    """The images of a folder of class folders, at any depth, sorted by path. Raises DataError when there are none, and
    for a folder that holds mostly other files, such as `/`."""
    if not os.path.isdir(folder):
        raise DataError(f"there is no folder {str(folder)!r}")
    example = f"name a folder with a folder for each class (such as {folder / 'cat' / '1.jpg'})"
    files, others = [], 0
    for place in sorted(each for each in folder.iterdir() if os.path.isdir(each)):
        for root, folders, names in os.walk(place):
            found = [Path(root, name) for name in names if os.path.splitext(name)[1].lower() in ENDINGS]
            files += found
            others += len(folders) + len(names) - len(found)
            if others > max(OTHERS, 10 * len(files)):
                there = f"{len(files):,} images and {others:,} other files and folders up to {root}"
                raise DataError(f"{folder} is no folder of images, with {there}; {example}")
    if not files:
        raise DataError(f"{folder} has no images in folders named by class; {example}")
    files.sort()
    names = [file.relative_to(folder).as_posix() for file in files]
    return Listed(names, [{"image": file, "label": name.split("/")[0]} for file, name in zip(files, names)])
