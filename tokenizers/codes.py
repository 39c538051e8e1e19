"""Items as the codes of a trained autoencoder: pictures and sounds become ids that can be generated and decoded."""

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

from ..files.reading import DataError
from ..models.generation.constraints import Constraint, Length
from ..models.heads import Head
from .base import Chopper, Preprocessor, Role, RunPart, axes_of, chopped
from .chopping.ids import IdChopper, IdTokenizer
from .chopping.packing import place
from .encoding.base import CodedVocabulary, Unit
from .encoding.code_file import CodeFile, counted, key_of, raw_key
from .media.sound import WaveAugmentation

TOGETHER = 64
"""How many items are encoded at a time."""

DECODED = 1
"""Which way of decoding raw values the files of codes are of: another number makes them anew."""


def quantizers(part: RunPart) -> list[Head]:
    """The heads of a run that quantise."""
    return [head for head in part.model.heads.values() if isinstance(head, Head) and head.quantizes]


@dataclass(frozen=True, kw_only=True, eq=False)
class CodeVocabulary(CodedVocabulary):
    """The codes of the input `input` of a run with a task `reconstruction`, one for each of its tokens; behind them the
    id that starts and ends an item."""

    unit: ClassVar[Unit] = Unit("bits_per_code", "bits per code")
    part: RunPart
    input: str

    @cached_property
    def chopper(self) -> Chopper:
        """The run's chopper of the items."""
        return self.part.choppers[self.input]

    @cached_property
    def head(self) -> Any:
        """The head that quantises and decodes."""
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
        """The codes of several items, read together."""
        model, choppers = self.part.model, self.part.choppers
        chunks = [[(self.input, chopped(self.input, self.chopper, item))] for item in items]
        planned = place(chunks, choppers, self.part.context, axes_of(choppers.values()), rows=range(len(items)),
                        core=self.part.core_tokens, trim=True)  # fmt: skip
        device = next(model.parameters()).device
        planned = model.plan_first(planned, device=device).to(device)
        with torch.autocast(device.type, enabled=False):  # the same codes whatever the precision around
            hidden = model.read_first(planned).flatten(0, 1)
            slots = planned.chunks[self.input].slots
            codes = self.head.codes(hidden if slots is None else hidden[slots])
        return codes.view(len(items), self.length).tolist()

    @torch.inference_mode()
    def restore(self, ids: Iterable[int]) -> Any:
        """The item. Raises ValueError for another number of codes than items have."""
        codes = [id for id in self.known(ids) if id < self.start]
        if len(codes) != self.length:
            raise ValueError(f"an item has {self.length} codes, not {len(codes)}")
        device = next(self.part.model.parameters()).device
        with torch.autocast(device.type, enabled=False):
            decoded = self.head.decoded(torch.tensor(codes, device=device))
        return self.chopper.joined(decoded.cpu())

    def units(self, item: Any) -> float:
        """Its codes."""
        return self.length

    def content(self, item: Any, ending: str) -> bytes:
        return self.chopper.content(item, ending)

    def picture(self, ids: Sequence[int], mask: int) -> UInt8[Tensor, "c h w"]:
        """Of images the picture in which every masked code is code 0; of all else the codes as text."""
        if ".png" not in self.endings:
            return super().picture(ids, mask)
        return self.restore([0 if id == mask else id for id in ids])


@dataclass(frozen=True, kw_only=True)
class CodesPreprocessor(Preprocessor):
    """Items as the codes that the run in the folder `run`, trained by the task `reconstruction`, gives to its input
    `input`. The run's weights are copied to this run's assets. The codes of the training data are computed once, before
    the first step, those of other splits by their first evaluation, into a file in the cache folder that is keyed by
    the content of that run; training then reads the codes alone and decodes no file, bytes or array. With
    `augment_wave` a sound is, in training, one of `variants` (default: 8) that are changed by it, whose codes are
    computed once, too."""

    run: str
    input: str
    augment_wave: WaveAugmentation | None = None
    variants: int | None = None

    def __post_init__(self):
        if self.variants is not None and self.augment_wave is None:
            raise ValueError("variants are made by augment_wave, which is not given")
        if self.variants is not None and self.variants < 1:
            raise ValueError(f"variants must be at least 1, not {self.variants}")

    def fit(self, items: Callable[[], Iterable], role: Role) -> CodesChopper:
        chopper = self.chopper(role.open_run(self.run), role)
        if role.cache is not None:
            chopper.encode_all(counted(items(), f"{self.input} to codes"))
            chopper.known.save()
            if chopper.known.collapsed:
                told = f"all {chopper.known.ids.size:,} are {chopper.known.ids[0, 0]}"
                raise ValueError(f"the codes of {self.run} have collapsed: {told}; train it again, at a lower rate")
        return chopper

    def load(self, folder: Path, role: Role) -> CodesChopper:
        if not (folder / "run").exists():
            raise DataError(f"{folder / 'run'} is missing: the run that this one took in stands there; copy whole runs")
        return self.chopper(role.open_run(folder / "run"), role)

    def chopper(self, part: RunPart, role: Role) -> CodesChopper:
        """The chopper that holds the run. Raises ValueError where the run has no such input, or quantises nothing."""
        if self.input not in part.choppers:
            raise ValueError(f"{part.name} has no input {self.input!r}; possible: {', '.join(part.choppers)}")
        if not quantizers(part):
            raise ValueError(
                f"{part.name} quantises nothing: none of its tasks ({', '.join(part.tasks)}) is reconstruction"
            )
        if self.augment_wave is not None and part.choppers[self.input].kind != "sound":
            raise ValueError(f"augment_wave is for sounds; {self.input!r} of {part.name} is none")
        part.model.eval().requires_grad_(False)
        vocabulary = CodeVocabulary(part=part, input=self.input, own=role.special_ids)
        about = f"{part.content} {self.input} {part.choppers[self.input]} {DECODED}"
        name = hashlib.blake2b(about.encode(), digest_size=12).hexdigest()
        path = None if role.cache is None else role.cache / "codes" / f"{name}.safetensors"
        known = CodeFile(path, vocabulary.length, vocabulary.start)
        changed = {"augment_wave": self.augment_wave, "variants": self.variants or 8}
        return CodesChopper(vocabulary=vocabulary, generated=role.generated, known=known, **changed)


@dataclass(frozen=True)
class Recalled:
    """An item whose codes are known, and all that is known of it: its key."""

    key: bytes


@dataclass(frozen=True, kw_only=True)
class CodesChopper(IdChopper):
    """Items to the codes of a trained run. What was encoded once is kept, and while training it is not decoded again:
    the codes alone are read."""

    known: CodeFile = field(repr=False, compare=False)
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
        before = raw_key(raw)  # a file that changes while it is read is another one then
        key = self.known.decoded(before)
        if key is not None and all(each in self.known for each in self.keys(key)):
            return Recalled(key)
        item = self.decode(raw)
        if before is not None:
            self.known.new_raw[before] = key_of(item)
        return item

    def keep(self) -> None:
        with suppress(OSError):  # what cannot be kept is computed anew
            self.known.save()

    def keys(self, key: bytes) -> list[bytes]:
        """The keys of all that training reads of the item with this key: its own and those of its variants."""
        changes = self.variants if self.augment_wave is not None else 0
        return [key, *(self.variant_key(key, number) for number in range(changes))]

    def encoded(self, item: Any) -> list[int]:
        if isinstance(item, tuple | list):
            return list(item)
        key = item.key if isinstance(item, Recalled) else key_of(item)
        if (ids := self.known.get(key)) is None:
            ids = self.known.new[key] = self.vocabulary.encode(item)
        return ids

    def augment(self, item: Any, random: np.random.Generator) -> Any:
        """The codes of one of the item's variants."""
        if self.augment_wave is None or isinstance(item, tuple | list):
            return item
        own = item.key if isinstance(item, Recalled) else key_of(item)
        key = self.variant_key(own, int(random.integers(self.variants)))
        if (ids := self.known.get(key)) is None:
            ids = self.known.new[key] = self.vocabulary.encode(self.variant(item, key))
        return ids

    def variant_key(self, key: bytes, number: int) -> bytes:
        """The key of a variant of the item with this key."""
        return hashlib.blake2b(key + f"{number} {self.augment_wave}".encode(), digest_size=16).digest()

    def variant(self, item: Tensor, key: bytes) -> Tensor:
        """The variant of an item that has this key: a function of both alone."""
        sound, random = self.vocabulary.chopper, np.random.default_rng(int.from_bytes(key))
        return sound.cut(self.augment_wave(item, sound.rate, random))

    def encode_all(self, raw: Iterable[Any]) -> None:
        """Encode all that training reads of raw values, so that it is known; those that cannot be read are left out:
        they are told of when samples are read."""
        new: dict[bytes, Any] = {}
        for each in raw:
            with suppress(ValueError, TypeError):
                if isinstance(item := self.read(each), Recalled):
                    continue
                key = key_of(item)
                for other in self.keys(key):
                    if other not in new and other not in self.known:
                        new[other] = item if other == key else self.variant(item, other)
            if len(new) >= TOGETHER:
                self._encode(new)
                new = {}
        self._encode(new)

    def _encode(self, items: dict[bytes, Any]) -> None:
        """Encode items together, or, where one of them cannot be, each by itself."""
        try:
            codes = self.vocabulary.encode_all([*items.values()]) if items else []
        except ValueError:
            codes = []
        self.known.new.update(zip(items, codes))
        for item in items.values() if not codes else ():
            with suppress(ValueError):
                self.encoded(item)

    def draw(self, canvas: Any, item: Any) -> None:
        """The item as it comes back from its codes."""
        self.vocabulary.chopper.draw(canvas, self.vocabulary.restore(self.encoded(item)))


class CodesTokenizer(IdTokenizer):
    """Codes to vectors."""

    Chopper = CodesPreprocessor
