"""Items as the codes (ids) of a trained autoencoder. Codes can be generated, and decoded to images or sounds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ..files.progress import counted
from ..files.reading import DataError
from ..models.generation.constraints import Constraint, Length
from ..models.heads import Head
from .base import Chopper, Example, Preprocessor, Role, RunPart, axes_of, chopped
from .chopping.ids import IdChopper, IdTokenizer
from .chopping.packing import place
from .encoding.base import CodedVocabulary, Unit
from .encoding.code_file import CodeFile, key_of, raw_key
from .media.sound import WaveAugmentation

BATCH_SIZE = 64
"""The number of items that are encoded in one batch."""

DECODING_VERSION = 1
"""The version of the code that decodes raw values. If the version changes, cached codes are computed again."""


def quantizers(part: RunPart) -> list[Head]:
    """Returns the heads of a run that quantise their input, that is, whose task is a `reconstruction` with codes."""
    return [head for head in part.model.heads.values() if isinstance(head, Head) and head.quantizes]


@dataclass(frozen=True, kw_only=True, eq=False)
class CodeVocabulary(CodedVocabulary):
    """The codes of the input `input` of the run `part`, which has a task `reconstruction`: one code per token of the
    input. The id after the largest code starts and ends an item."""

    unit: ClassVar[Unit] = Unit("bits_per_code", "bits per code")
    part: RunPart
    input: str

    @cached_property
    def chopper(self) -> Chopper:
        """The chopper of the input in the run `part`."""
        return self.part.choppers[self.input]

    @cached_property
    def head(self) -> Any:
        """The first head of the run `part` that quantises its input. It also decodes codes."""
        return quantizers(self.part)[0]

    @property
    def kind(self) -> str:
        return self.input

    @property
    def endings(self) -> tuple[str, ...]:
        return self.chopper.endings

    @property
    def rate(self) -> int | None:
        return getattr(self.chopper, "rate", None)

    @property
    def length(self) -> int:
        return self.chopper.slice_shape[0]

    @property
    def start(self) -> int:
        return self.head.quantizer.codes

    @property
    def title(self) -> str:
        return f"the codes of {self.part.name}"

    @property
    def fingerprint(self) -> str:
        return f"{self.part.content} {self.input} {self.own}"

    @property
    def well_formed(self) -> Constraint:
        return Length(self.length, (self.end,), tuple(self.roles.values()))

    def encode(self, item: Any) -> list[int]:
        return self.encode_all([item])[0]

    @torch.inference_mode()
    def encode_all(self, items: Sequence[Any]) -> list[list[int]]:
        """Returns the codes of each item. The items are encoded as one batch."""
        model, choppers = self.part.model, self.part.choppers
        chunks = [[(self.input, chopped(self.input, self.chopper, item))] for item in items]
        planned = place(chunks, choppers, self.part.context, axes_of(choppers.values()), rows=range(len(items)),
                        core=self.part.core_tokens, trim=True)  # fmt: skip
        device = next(model.parameters()).device
        planned = model.plan_first(planned, device=device).to(device)
        with torch.autocast(device.type, enabled=False):  # codes must not depend on the precision of this run
            hidden = model.read_first(planned).flatten(0, 1)
            slots = planned.chunks[self.input].slots
            codes = self.head.codes(hidden if slots is None else hidden[slots])
        return codes.view(len(items), self.length).tolist()

    @torch.inference_mode()
    def restore(self, ids: Iterable[int]) -> Any:
        """Returns the item of these ids, without special ids. Raises ValueError if the number of codes is not `length`,
        or if an id is outside the vocabulary."""
        codes = [id for id in self.known(ids) if id < self.start]
        if len(codes) != self.length:
            raise ValueError(f"an item has {self.length} codes, not {len(codes)}")
        device = next(self.part.model.parameters()).device
        with torch.autocast(device.type, enabled=False):
            decoded = self.head.decoded(torch.tensor(codes, device=device))
        return self.chopper.joined(decoded.cpu())

    def units(self, item: Any) -> float:
        """Returns the number of codes of an item."""
        return self.length

    def content(self, item: Any, ending: str) -> bytes:
        return self.chopper.content(item, ending)

    def picture(self, ids: Sequence[int], mask: int) -> UInt8[Tensor, "c h w"]:
        """Returns the image, with code 0 in the place of each masked code. For items other than images, returns a
        picture of the codes as text."""
        if ".png" not in self.endings:
            return super().picture(ids, mask)
        return self.restore([0 if id == mask else id for id in ids])


@dataclass(frozen=True, kw_only=True)
class CodesPreprocessor(Preprocessor):
    """Converts items to codes with a trained run: `run` is the folder of the run, which has a task `reconstruction`,
    and `input` is the name of its input. The weights of the trained run are copied to the folder `assets` of the new
    run. Codes are computed once: for the training data before the first step, for other splits at their first
    evaluation. Codes are saved in the cache folder, in a file that is named by a hash of the trained run. After that,
    training reads only codes and decodes no files. With `augment_wave`, training replaces each sound by one of
    `variants` (default: 8) randomly changed versions, whose codes are also computed once."""

    run: str
    input: str
    augment_wave: WaveAugmentation | None = None
    variants: int | None = None

    def __post_init__(self):
        if self.variants is not None and self.augment_wave is None:
            raise ValueError("variants needs augment_wave, which creates them")
        if self.variants is not None and self.variants < 1:
            raise ValueError(f"variants must be at least 1, not {self.variants}")

    def fit(self, items: Callable[[], Iterable], role: Role) -> CodesChopper:
        chopper = self.chopper(role.open_run(self.run), role)
        if role.cache is not None:
            chopper.encode_all(counted(items(), f"{self.input} to codes"))
            codes = chopper.code_file
            codes.save()
            if codes.collapsed:
                values = f"all {codes.ids.size:,} are {codes.ids[0, 0]}"
                solution = "train that run again with a lower learning rate"
                raise ValueError(f"the codes of {self.run} have collapsed: {values}; {solution}")
        return chopper

    def load(self, folder: Path, role: Role) -> CodesChopper:
        if not (folder / "run").exists():
            raise DataError(f"{folder / 'run'} is missing: this run needs it; copy runs with their subfolders")
        return self.chopper(role.open_run(folder / "run"), role)

    def chopper(self, part: RunPart, role: Role) -> CodesChopper:
        """Returns the chopper that uses the run `part`. Raises ValueError if that run has no input `self.input` or no
        codes, or if `augment_wave` is set and the input is not sound."""
        if self.input not in part.choppers:
            raise ValueError(f"{part.name} has no input {self.input!r}; possible: {', '.join(part.choppers)}")
        if not quantizers(part):
            raise ValueError(f"{part.name} has no codes: none of its tasks ({', '.join(part.tasks)}) is reconstruction")
        if self.augment_wave is not None and part.choppers[self.input].kind != "sound":
            raise ValueError(f"augment_wave is for sounds, but input {self.input!r} of {part.name} is not a sound")
        part.model.eval().requires_grad_(False)
        vocabulary = CodeVocabulary(part=part, input=self.input, own=role.special_ids)
        version = f"{part.content} {self.input} {part.choppers[self.input]} {DECODING_VERSION}"
        name = hashlib.blake2b(version.encode(), digest_size=12).hexdigest()
        path = None if role.cache is None else role.cache / "codes" / f"{name}.safetensors"
        code_file = CodeFile(path, vocabulary.length, vocabulary.start)
        augmentation = {"augment_wave": self.augment_wave, "variants": self.variants or 8}
        return CodesChopper(vocabulary=vocabulary, generated=role.generated, code_file=code_file, **augmentation)


@dataclass(frozen=True)
class Recalled:
    """A placeholder for an item whose codes are cached. It holds only the key (hash) of the item."""

    key: bytes


def item_key(item: Any) -> bytes:
    """Returns the key of an item, or of a placeholder for it."""
    return item.key if isinstance(item, Recalled) else key_of(item)


@dataclass(frozen=True, kw_only=True)
class CodesChopper(IdChopper):
    """Converts items to the codes of a trained run. Codes are cached in `code_file`. In training an item with cached
    codes is not decoded."""

    code_file: CodeFile = field(repr=False, compare=False)
    augment_wave: WaveAugmentation | None = None
    variants: int = 8

    @property
    def kind(self) -> str:
        return self.vocabulary.chopper.kind

    def save(self, folder: Path) -> None:
        self.vocabulary.part.write(folder / "run")

    def decode(self, raw: Any) -> Any:
        return self.vocabulary.chopper.decode(raw)

    def read(self, raw: Any) -> Any:
        raw_hash = raw_key(raw)  # computed before decoding: if the file changes meanwhile, its next key is different
        key = self.code_file.decoded(raw_hash)
        if key is not None and all(needed in self.code_file for needed in self.keys(key)):
            return Recalled(key)
        item = self.decode(raw)
        if raw_hash is not None:
            self.code_file.new_raw[raw_hash] = key_of(item)
        return item

    def keep(self) -> None:
        with suppress(OSError):  # codes that cannot be saved are computed again
            self.code_file.save()

    def keys(self, key: bytes) -> list[bytes]:
        """Returns the keys of all codes that training needs for an item: the key of the item, then the keys of its
        variants."""
        count = self.variants if self.augment_wave is not None else 0
        return [key, *(self.variant_key(key, number) for number in range(count))]

    def encoded(self, item: Any) -> list[int]:
        if isinstance(item, tuple | list):
            return list(item)
        key = item_key(item)
        if (ids := self.code_file.get(key)) is None:
            ids = self.code_file.new[key] = self.vocabulary.encode(item)
        return ids

    def augment(self, item: Any, random: np.random.Generator) -> Any:
        """Returns the codes of one variant of the item, drawn at random. Returns the item unchanged if `augment_wave`
        is None, or if the item is already a sequence of codes."""
        if self.augment_wave is None or isinstance(item, tuple | list):
            return item
        key = self.variant_key(item_key(item), int(random.integers(self.variants)))
        if (ids := self.code_file.get(key)) is None:
            ids = self.code_file.new[key] = self.vocabulary.encode(self.variant(item, key))
        return ids

    def variant_key(self, key: bytes, number: int) -> bytes:
        """Returns the key of variant `number` (from 0) of the item with the key `key`."""
        return hashlib.blake2b(key + f"{number} {self.augment_wave}".encode(), digest_size=16).digest()

    def variant(self, item: Tensor, key: bytes) -> Tensor:
        """Returns the variant of an item that has the key `key`. The key is the seed of the random changes."""
        sound, random = self.vocabulary.chopper, np.random.default_rng(int.from_bytes(key))
        return sound.cut(self.augment_wave(item, sound.rate, random))

    def encode_all(self, raws: Iterable[Any]) -> None:
        """Computes and caches all codes that training needs for raw values. Values that cannot be read are skipped,
        because these are reported when samples are read."""
        new: dict[bytes, Any] = {}
        for raw in raws:
            with suppress(ValueError, TypeError):
                item = self.read(raw)
                whole = item_key(item)  # of a placeholder, all keys are cached
                for key in self.keys(whole):
                    if key not in new and key not in self.code_file:
                        new[key] = item if key == whole else self.variant(item, key)
            if len(new) >= BATCH_SIZE:
                self._encode(new)
                new = {}
        self._encode(new)

    def _encode(self, items: dict[bytes, Any]) -> None:
        """Encodes and caches items (by their keys) as one batch, or one by one if the batch raises ValueError."""
        try:
            codes = self.vocabulary.encode_all([*items.values()]) if items else []
        except ValueError:
            codes = []
        self.code_file.new.update(zip(items, codes))
        for item in items.values() if not codes else ():
            with suppress(ValueError):
                self.encoded(item)

    def draw(self, canvas: Any, item: Any) -> None:
        """Draws the item after encoding and decoding it."""
        self.vocabulary.chopper.draw(canvas, self.vocabulary.restore(self.encoded(item)))


class CodesTokenizer(IdTokenizer):
    """Maps codes to vectors."""

    Chopper = CodesPreprocessor


EXAMPLE = Example(
    options={"input": "image"},
    items=lambda: [
        np.arange(64, dtype=np.uint8).reshape(8, 8, 1),
        255 - np.arange(64, dtype=np.uint8).reshape(8, 8, 1),
    ],
    generated=True,
    run={
        "inputs": {"image": {"use": "image", "patch_size": 2, "channels": 1, "size": 8}},
        "tasks": {"codes": {"use": "reconstruction", "target": "image", "levels": [4, 3], "depth": 1, "heads": 2}},
    },
)
