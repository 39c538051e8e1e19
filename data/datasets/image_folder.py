"""Your own images in folders: the name of the folder is the class."""

from __future__ import annotations

import os
from pathlib import Path

from ...tokenizers.files.reading import DataError
from ..samples.dataset import Listed, OwnFiles, Samples

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
    """The images of a folder of class folders, at any depth, sorted by path. Raises DataError when there are none."""
    if not os.path.isdir(folder):
        raise DataError(f"there is no folder {str(folder)!r}")
    files = sorted(file for file in folder.glob("*/**/*") if file.suffix.lower() in ENDINGS)
    if not files:
        raise DataError(f"{folder} has no images in folders named by class (such as {folder}/cat/1.jpg)")
    names = [file.relative_to(folder).as_posix() for file in files]
    return Listed(names, [{"image": file, "label": name.split("/")[0]} for file, name in zip(files, names)])
