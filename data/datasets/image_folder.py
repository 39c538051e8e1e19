"""User images in folders. The name of the folder is the class of its images."""

from __future__ import annotations

import os
from pathlib import Path

from ...files.reading import DataError
from ..sample_dataset import OwnFiles
from ..samples import Listed, Samples

OTHERS = 10_000
"""The number of files and folders other than images that a folder may always contain. A folder with more than this
number, and more than ten times the number of its images, is refused."""
ENDINGS = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"}


class ImageFolder(OwnFiles):
    """`train`, `val` and `test` are folders that contain one folder per class. Without `val`, a tenth of train is used
    for validation (selected by the hash of the path). Columns: `image` (a path) and `label` (the name of the class
    folder): the label of `train/cat/1.jpg` is `cat`."""

    columns = ("image", "label")

    def __init__(self, *, train: str, val: str | None = None, test: str | None = None):
        super().__init__(train, val, test)

    def read(self, where: str) -> Samples:
        return read_folder(Path(os.path.expanduser(where)))


def read_folder(folder: Path) -> Samples:
    """Returns the images in the class folders of a folder, at any depth, sorted by path. Raises DataError if the folder
    does not exist, has no images, or has too many other files (see OTHERS), such as `/`."""
    if not os.path.isdir(folder):
        raise DataError(f"there is no folder {str(folder)!r}")
    example = f"use a folder with one folder per class (such as {folder / 'cat' / '1.jpg'})"
    names, others = [], 0
    for class_folder in sorted(path for path in folder.iterdir() if os.path.isdir(path)):
        for root, folders, files in os.walk(class_folder):
            images = [name for name in files if os.path.splitext(name)[1].lower() in ENDINGS]
            inside = Path(root).relative_to(folder).as_posix()
            names += [f"{inside}/{name}" for name in images]
            others += len(folders) + len(files) - len(images)
            if others > max(OTHERS, 10 * len(names)):
                counts = f"{len(names):,} images and {others:,} other files and folders up to {root}"
                raise DataError(f"{folder} is not a folder of images: it has {counts}; {example}")
    if not names:
        raise DataError(f"{folder} has no images in folders named by class; {example}")
    names.sort(key=lambda name: name.split("/"))
    return Listed(names, [{"image": folder / name, "label": name.split("/")[0]} for name in names])
