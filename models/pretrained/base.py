"""What all importers and exporters of published models share: a `config.json` as a typed record, and a table of the
names of tensors for both directions. "Theirs" is the published model, "ours" a `Model` and its YAML.

An architecture is pure data: it opens no file. `experiment/interchange/` reads and writes the directories.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

import torch
from einops import rearrange
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

Depth = Annotated[int, Field(ge=1, le=1000)]
Width = Annotated[int, Field(ge=1, le=2**17)]
Heads = Annotated[int, Field(ge=1, le=2**12)]
Count = Annotated[int, Field(ge=1, le=2**24)]
Id = Annotated[int, Field(ge=0, lt=2**24)]
Share = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0, lt=1)]

BLOCK, ENCODER_BLOCK = "cores.main.blocks.{layer}.", "cores.encoder.blocks.{layer}."
HEADS = {True: "tied", False: "unembedding"}
"""Our head by their `tie_word_embeddings`."""
OLDER = {"gamma": "weight", "beta": "bias"}
"""The names of gain and shift of normalisations in the first published BERTs, and our names."""


class PublishedError(ValueError):
    """A published model that cannot be reproduced exactly (nothing is approximated): the message says which option of
    which file is why."""


P = TypeVar("P", bound="Published")


class Published(BaseModel):
    """Base of the records for a published model's JSON files: typed and bounded fields with transformers' own defaults.

    A field whose type is a `Literal` can only have the values that we reproduce exactly; keys without a field are
    ignored, since they do not change what a model computes.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, protected_namespaces=())

    @classmethod
    def read(cls: type[P], values: Any, file: str = "config.json") -> P:
        """The values of a JSON file as the record. Raises PublishedError for a file that is no mapping, and naming the
        first option that is missing, out of bounds, or not reproduced exactly."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
        place, given = ".".join(map(str, first["loc"])) or "all of it", repr(first["input"])
        given = given if len(given) <= 60 else f"{given[:57]}..."
        if first["type"] == "missing":
            raise PublishedError(f"{file} has no {place!r}")
        if first["type"] == "literal_error":
            expected = first["ctx"]["expected"].replace("'True'", "True").replace("'False'", "False")
            raise PublishedError(f"{file}: {place} is {given}; only {expected} is reproduced exactly")
        message = first["msg"].replace("Input should be ", "it must be ").replace("a valid ", "a ")
        raise PublishedError(f"{file}: {place} is {given}; {message}")


class Legend(NamedTuple):
    """The special ids of a run's texts, and the names of its classes."""

    start: int = 0
    ends: Sequence[int] = (0,)
    padding: int | None = None
    opening: str = ""
    """The printable name of the start id, such as `<s>`."""
    labels: Sequence[str | int] = ()

    @property
    def end(self) -> int | list[int]:
        """The ids that end a text, as a `config.json` writes them."""
        return list(self.ends) if len(self.ends) > 1 else self.ends[0]


def same(value: Tensor) -> Tensor:
    """The tensor as it is."""
    return value


class Rename(NamedTuple):
    """One line of a table of names: which of their tensors become which of ours, and back.

        Rename("h.{layer}.ln_1.{leaf}", "cores.main.blocks.{layer}.add_attention.norm.{leaf}")
        Rename("h.{layer}.attn.c_attn.{leaf}", (query, key, value), to_ours=split, to_theirs=join)

    `{layer}` is a number, `{leaf}` is `weight` or `bias`, and what is in [brackets] may be missing in their names.
    Several names of a side are the arguments, or the results, of `to_ours` and `to_theirs`. Two lines with the same
    tensor of ours mean that theirs are copies, which must be equal; exporting writes the first. A line without one of
    ours names a tensor that is not needed.
    """

    theirs: str | tuple[str, ...]
    ours: str | tuple[str, ...]
    to_ours: Callable[..., Any] = same
    to_theirs: Callable[..., Any] = same
    told: bool = False
    """Whether to tell the user that this tensor is not read (BERT's pooler), since other models have a use for it."""


def renames(
    theirs: str, ours: str, names: Mapping[str, str], to_ours: Callable = same, to_theirs: Callable = same
) -> list[Rename]:  # fmt: skip
    """Lines for layers with a weight and perhaps a bias: `names` maps theirs to ours, as in `{"ln_1":
    "add_attention.norm"}`, below the prefixes `theirs` and `ours`."""
    return [Rename(f"{theirs}{a}.{{leaf}}", f"{ours}{b}.{{leaf}}", to_ours, to_theirs) for a, b in names.items()]


def patches(theirs: str, ours: str, channels: int, side: int) -> list[Rename]:
    """Lines for the convolution of square patches, (d, c, p, p), which is a matrix of ours, (d, c * p * p)."""
    return [
        Rename(f"{theirs}.weight", f"{ours}.weight", lambda v: rearrange(v, "d c p q -> d (c p q)"),
               lambda v: rearrange(v, "d (c p q) -> d c p q", c=channels, p=side)),
        Rename(f"{theirs}.bias", f"{ours}.bias"),
    ]  # fmt: skip


class At:
    """Where a value of a `config.json` is in our YAML: `n_embd: Annotated[Width, At("model.width")]`.

    Importing writes all of the dotted `paths`, exporting reads the first; `values` maps their values to ours. Beside
    the YAML's own sections paths may begin with `sizes` (`rows` of the embedding table, `inner` width, `places` of the
    position table) and `legend` (the fields of `Legend`, and `end`).
    """

    def __init__(self, *paths: str, values: Mapping[Any, Any] | None = None):
        self.paths, self.values = paths, values

    def ours(self, value: Any) -> Any:
        """The value in our YAML for their value."""
        return value if self.values is None else self.values[value]

    def theirs(self, known: Mapping[str, Any]) -> list[Any]:
        """Their value, in a list, read from a whole YAML; an empty list where they have no such value."""
        for name in self.paths[0].split("."):
            known = known[name]
        if self.values is None:
            return [known]
        return [each for each, ours in self.values.items() if agrees(ours, known)][:1]


def agrees(ours: Any, found: Any) -> bool:
    """Whether a value equals `ours`, or a mapping has at least its options."""
    return ours.items() <= found.items() if isinstance(ours, dict) else ours == found


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Put a value into a tree at a dotted path; a mapping is merged into the one that is there."""
    *above, last = path.split(".")
    for name in above:
        tree = tree.setdefault(name, {})
    tree[last] = tree.get(last, {}) | copy.deepcopy(value) if isinstance(value, dict) else value


class Architecture(Published):
    """Base of the published architectures: a `config.json`, its translation to our YAML, and the names of its
    tensors."""

    kinds: ClassVar[tuple[str, ...]]
    """The values of `model_type` in a `config.json` that belong to this architecture."""
    reference: ClassVar[str]
    """The class of transformers, or of timm, whose outputs are reproduced."""

    yaml: ClassVar[Mapping[str, Any]]
    """The part of our YAML that is the same for all models of the architecture, by dotted paths."""

    @classmethod
    def places(cls) -> dict[str, At]:
        """The fields that have a counterpart in our YAML, and where it is."""
        fields = cls.model_fields.items()
        return {name: each for name, field in fields for each in field.metadata if isinstance(each, At)}

    def tree(self) -> dict[str, Any]:
        """The sections `inputs`, `model` and `tasks` of our YAML. Raises PublishedError for a combination of options
        that is not reproduced."""
        found: dict[str, Any] = {}
        for path, value in self.yaml.items():
            put(found, path, value)
        for name, at in self.places().items():
            value = getattr(self, name)
            for path in at.paths if value is not None else ():
                put(found, path, at.ours(value))
        width, sizes = found["model"]["width"], found.pop("sizes")
        put(found, "model.block.feed_forward.ratio", sizes.get("inner", 4 * width) / width)
        found.pop("legend", None)
        return found

    @classmethod
    def from_tree(
        cls, tree: Mapping[str, Any], tensors: Mapping[str, Tensor], legend: Legend, others: Mapping[str, Any] = {}
    ) -> Architecture:
        """The way back: the configuration for a run with this resolved YAML, these tensors (by our names) and this
        `legend`; `others` are fields that the YAML does not give. For a run of another architecture it raises
        LookupError, TypeError or ValueError, or the `tree` of the result differs from `tree`."""
        known = {**tree, "sizes": sizes_of(tensors), "legend": legend._asdict() | {"end": legend.end}}
        found = {name: value for name, at in cls.places().items() if name not in others for value in at.theirs(known)}
        return cls(**found, **others)

    def names(self) -> list[Rename]:
        """The table of names: every tensor of ours and of theirs."""
        raise NotImplementedError

    def files(self, frame: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The JSON files that describe the model, by file name. `frame`: what is kept with the encoding of its text."""
        own = {"architectures": [self.reference], "model_type": self.kinds[0]}
        return {"config.json": own | self.model_dump(exclude_none=True)}


def sizes_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes that no YAML names, since they follow from a vocabulary or a ratio: `rows` of the embedding table,
    `places` of the position table, `inner` width of the feed-forward layers."""
    up = f"{BLOCK}feed_forward.up.weight".format(layer=0)
    names = {"rows": ".embedding.weight", "places": "text.position.table.weight", "inner": up}
    found = {name: [len(value) for key, value in tensors.items() if key.endswith(end)] for name, end in names.items()}
    return {name: values[0] for name, values in found.items() if values}


class Translated(NamedTuple):
    """The result of `translate`: tensors under the names of the other side."""

    tensors: dict[str, Tensor]
    unknown: list[str]
    """The given names that no line of the table matches."""
    ignored_tensors: list[str]
    """The names of tensors that are not needed, of which to tell the user."""
    called: dict[str, str]
    """The given names by those of the table, which may contain optional parts: `transformer.wte.weight` was
    `wte.weight`."""


def translate(table: Sequence[Rename], tensors: Mapping[str, Tensor], back: bool = False) -> Translated:
    """Their tensors under the keys of our `Model`; with `back`, ours under their names.

    Raises ValueError where one of several tensors that belong together is missing, or a copy differs.
    """
    sides = [tuple(map(_tuple, (line.ours, line.theirs) if back else (line.theirs, line.ours))) for line in table]
    patterns = [(_pattern(name), (n, m)) for n, (names, _) in enumerate(sides) for m, name in enumerate(names)]
    groups: dict[tuple, dict[int, str]] = {}
    unknown = []
    for name in tensors:
        match, place = next(((m, place) for p, place in patterns if (m := p.fullmatch(name))), (None, None))
        if match is None:
            unknown.append(name)
        else:
            groups.setdefault((place[0], *sorted(match.groupdict().items())), {})[place[1]] = name
    groups |= {(n,): {} for n, (names, _) in enumerate(sides) if not names and table[n].to_theirs is not same}
    found: dict[str, tuple[Tensor, str]] = {}
    called: dict[str, str] = {}
    ignored_tensors: list[str] = []
    for (n, *fields), members in sorted(groups.items(), key=lambda group: group[0][0]):
        line, (sources, targets), known = table[n], sides[n], dict(fields)
        names = [_filled(source, known) for source in sources]
        if missing := [name for m, name in enumerate(names) if m not in members]:
            raise ValueError(f"the weights have no {missing[0]}")
        called |= {name: members[m] for m, name in enumerate(names)}
        ignored_tensors += names if line.told else []
        values = (line.to_theirs if back else line.to_ours)(*(tensors[members[m]] for m in range(len(sources))))
        for target, value in zip(targets, values if len(targets) > 1 else [values]):
            name, whole = _filled(target, known), " and ".join(members.values())
            if name in found and not torch.equal(value, found[name][0]):
                raise ValueError(f"{whole} differs from {found[name][1]}, of which it should be a copy; not reproduced")
            found.setdefault(name, (value, whole))
    return Translated({name: value for name, (value, _) in found.items()}, unknown, ignored_tensors, called)


def _tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _pattern(name: str) -> re.Pattern:
    text = re.escape(name).replace(r"\{layer\}", r"(?P<layer>\d+)").replace(r"\{leaf\}", f"(?P<leaf>{LEAVES})")
    return re.compile(re.sub(r"\\\[(.*?)\\\]", r"(?:\1)?", text))


LEAVES = "|".join(("weight", "bias", *OLDER))


def _filled(name: str, known: Mapping[str, str]) -> str:
    leaf = known.get("leaf", "")
    return name.replace("[", "").replace("]", "").format(layer=known.get("layer"), leaf=OLDER.get(leaf, leaf))
