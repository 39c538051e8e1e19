"""`chopmix new images`: a classifier of images in folders named by class, or in IDX files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from ...data.datasets.idx import IMAGES, Idx
from ...data.datasets.image_folder import ImageFolder
from ...data.samples import Samples
from ...files.reading import DataError
from ...tokenizers.media.files import read_picture
from .start import (
    BAD_SHARE,
    FROZEN,
    INSPECTED,
    FileInput,
    Start,
    advice,
    bad_share_of,
    classes_line,
    classification,
    encoder_input,
    model_of,
    rare_classes,
    split_settings,
    training_of,
)


def images(path: Path, encoder: str | None = None) -> Start:
    """Returns the configuration of an image classifier. `path` is a folder with one folder of images per class, or a
    folder with IDX files. `encoder` is a trained run with an image input, which is used as a frozen encoder. Raises
    DataError or UsageError if there are no images of at least two classes."""
    idx = sorted(path.glob(f"*{IMAGES}*"))
    if idx:
        named = {split: next((file for file in idx if split in file.name), None) for split in ("train", "t10k", "test")}
        train = named["train"] or idx[0]
        test = named["t10k"] or named["test"]
        samples = Idx(train=str(train)).read(str(train))
        dataset = {"use": "idx", "train": str(train)} | ({"test": str(test)} if test else {})
        own_test = test is not None
    else:
        samples, own_test = ImageFolder(train=str(path)).read(str(path)), False
        dataset = {"use": "image_folder", "train": str(path)}
    counts = Counter(samples.column("label"))
    found = image_input(samples)
    image, tokens, comments = found.options, found.tokens, found.comments("image")
    if encoder:
        (image, tokens), comments = encoder_input(encoder, "image"), {"inputs.image": FROZEN}
    data = {
        "dataset": dataset,
        **({} if own_test else split_settings(counts, "label")),
        **bad_share_of(found.bad, found.inspected),
    }
    rare = [] if own_test else rare_classes(counts)
    return Start(
        question="Which class does an image show?", inputs={"image": image}, data=data,
        model=model_of(tokens + 1, len(samples)), tasks=classification(counts, "label"),
        training=training_of(len(samples)), samples=len(samples), best="val/accuracy",
        found=[found.line(len(samples)), classes_line(counts), *advice(counts), *rare],
        comments=comments | ({"data.bad_share": BAD_SHARE} if found.bad else {}),
    )  # fmt: skip


def image_input(samples: Samples, column: str = "image") -> FileInput:
    """Returns the input for the images in a column. Raises DataError if none can be read."""
    sizes, colour, bad = inspected_images(samples, column)
    sides = np.array(sizes)
    size, patch = image_sizes(int(np.median(sides.min(axis=1))))
    text = f"{sides[:, 1].min()} x {sides[:, 0].min()}"
    text += "" if len(set(sizes)) == 1 else f" to {sides[:, 1].max()} x {sides[:, 0].max()}"
    augment = {"use": "image_augmentation", "shift": max(1, size // 14)} | ({"flip": True} if colour else {})
    options = {"use": "image", "size": size, "patch_size": patch, "channels": 3 if colour else 1, "augment": augment}
    text += f" pixels, {'in colour' if colour else 'grey'}"
    tokens = (size // patch) ** 2
    notes = {"size": "images are scaled to this size", "patch_size": f"{tokens} tokens per image"}
    return FileInput("images", options, tokens, text, bad, len(sizes), notes)


def inspected_images(samples: Samples, column: str) -> tuple[list[tuple[int, int]], bool, list[str]]:
    """Returns (the sizes (height, width) of some images, whether one of them has colours, the keys of the images that
    cannot be read). Raises DataError if none can be read."""
    sizes, colour, bad = [], False, []
    for number in np.linspace(0, len(samples) - 1, min(INSPECTED, len(samples))).astype(int).tolist():
        value = samples.row(number, (column,)).get(column)
        if value is None:
            continue
        try:
            array = value if isinstance(value, np.ndarray) else np.asarray(read_picture(value).convert("RGB"))
        except (ValueError, OSError):
            bad.append(samples.keys[number])
            continue
        sizes.append(array.shape[:2])
        colour = colour or (array.ndim == 3 and bool((array != array[..., :1]).any()))
    if not sizes:
        raise DataError("none of the images can be read")
    return sizes, colour, bad


def image_sizes(side: int) -> tuple[int, int]:
    """Returns (size, patch size) for images with this shorter side: about 8 x 8 patches, at most 64 x 64 pixels."""
    size = side if side <= 32 else 32 if side < 48 else 64
    divisors = [patch for patch in range(1, size + 1) if size % patch == 0 and size // patch <= 14]
    return size, min(divisors, key=lambda patch: abs(size / patch - 8))
