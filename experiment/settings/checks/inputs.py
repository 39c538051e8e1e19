"""Checks of each input of a configuration by itself; see between.py."""

from __future__ import annotations

from collections.abc import Iterator

from ....tokenizers.contract import constructor_problem
from ....tokenizers.encoding.byte_pairs import known_name
from ..schema import Part
from .sizes import Found
from .tasks import refusal


def inputs_can_be_built(inputs: dict[str, Part]) -> Iterator[Found]:
    """Every chopper accepts its options, and every embedder has the constructor that `Model` calls."""
    for name, part in inputs.items():
        yield from refusal(("inputs", name), lambda part=part: part.build(part.target.Chopper))
        if wrong := constructor_problem(part.target):
            yield ("inputs", name), wrong


def encodings_fit(inputs: dict[str, Part]) -> Iterator[Found]:
    """The `encoding` of every text is known, and has a `vocabulary` (a number of ids) exactly where it needs one."""
    for name, part in inputs.items():
        if not {"encoding", "vocabulary"} <= set(part.options):
            continue
        encoding, vocabulary = part.options["encoding"], part.options["vocabulary"]
        try:
            known_name(encoding)
        except ValueError as error:
            yield ("inputs", name, "encoding"), str(error)
        if encoding in ("bpe", "numbers") and vocabulary is None:
            yield ("inputs", name, "encoding"), f"{encoding} needs 'vocabulary': how many ids there are, such as 4096"
        elif encoding == "bpe" and vocabulary < 257:
            yield ("inputs", name, "vocabulary"), f"must be at least 257 (256 bytes and the start), not {vocabulary}"
        elif encoding not in ("bpe", "numbers") and vocabulary is not None:
            message = f"is for encodings bpe and numbers only; {encoding!r} has its own, so {vocabulary} must go"
            yield ("inputs", name, "vocabulary"), message


def augmented_images_have_one_shape(inputs: dict[str, Part]) -> Iterator[Found]:
    """Images with `augment`, which acts on batches, have a `size`."""
    for name, part in inputs.items():
        options = part.options
        if {"augment", "size", "fit_size"} <= options.keys() and options["augment"] and options["size"] is None:
            message = (
                "changes batches of images of one shape: give 'size' too (with 'fit_size: pad' an aspect ratio is kept)"
            )
            yield ("inputs", name, "augment"), message
