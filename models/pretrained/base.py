"""What the published architectures share: a `config.json` as a typed record, and one table of names for both
directions.

An architecture is pure data: it opens no file. `experiment/importing/` reads and writes the directories.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

import torch
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
"""Our head, by whether theirs is the table of embeddings."""
OLDER = {"gamma": "weight", "beta": "bias"}
"""What the first published BERTs call the gain and shift of their normalisations."""


class PublishedError(ValueError):
    """A published model that is not reproduced exactly, and what its files say; nothing is approximated."""


P = TypeVar("P", bound="Published")


class Published(BaseModel):
    """Base of what a published model's JSON files are read as: typed and bounded fields with transformers' own
    defaults.

    A field whose type is a `Literal` can only have the values that we reproduce exactly; keys that no field names
    do not change what a model computes.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, protected_namespaces=())

    @classmethod
    def read(cls: type[P], values: Mapping[str, Any], file: str = "config.json") -> P:
        """The values of a JSON file as the record. Raises PublishedError naming the first option that is
        missing, out of bounds, or not reproduced exactly."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
        place, given = ".".join(map(str, first["loc"])), _short(first["input"])
        if first["type"] == "missing":
            raise PublishedError(f"{file} has no {place!r}")
        if first["type"] == "literal_error":
            expected = first["ctx"]["expected"].replace("'True'", "True").replace("'False'", "False")
            raise PublishedError(f"{file}: {place} is {given}; only {expected} is reproduced exactly")
        message = first["msg"].replace("Input should be ", "it must be ").replace("a valid ", "a ")
        raise PublishedError(f"{file}: {place} is {given}; {message}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class Legend(NamedTuple):
    """What the numbers of a run stand for: its special ids, or the names of its classes."""

    start: int = 0
    ends: Sequence[int] = (0,)
    padding: int | None = None
    opening: str = ""
    """The printable name of the start."""
    labels: Sequence[str | int] = ()

    @property
    def end(self) -> int | list[int]:
        """The ids that end a text, as a `config.json` writes them."""
        return list(self.ends) if len(self.ends) > 1 else self.ends[0]


def same(value: Tensor) -> Tensor:
    """The tensor as it is."""
    return value


class Rename(NamedTuple):
    """One line of a table of names: which of their tensors are which of ours, in both directions.

        Rename("h.{layer}.ln_1.{leaf}", "cores.main.blocks.{layer}.add_attention.norm.{leaf}")
        Rename("h.{layer}.attn.c_attn.{leaf}", (query, key, value), to_ours=split, to_theirs=join)

    `{layer}` is a number, `{leaf}` is `weight` or `bias`, and what stands in [brackets] may be left out by a
    directory. Several names of one side are the arguments, or the results, of the two functions. Two lines that
    give the same tensor of ours say that theirs are copies, which must agree; the first is written. A line
    without one of ours names what is not needed.
    """

    theirs: str | tuple[str, ...]
    ours: str | tuple[str, ...]
    to_ours: Callable[..., Any] = same
    to_theirs: Callable[..., Any] = same
    told: bool = False
    """Whether a user is told that this is not read (BERT's pooler), since other models have a use for it."""


def renames(
    theirs: str, ours: str, names: Mapping[str, str], to_ours: Callable = same, to_theirs: Callable = same
) -> list[Rename]:  # fmt: skip
    """The lines of layers with weight and perhaps bias, `{"ln_1": "add_attention.norm"}`, below a beginning of
    theirs and of ours."""
    return [Rename(f"{theirs}{a}.{{leaf}}", f"{ours}{b}.{{leaf}}", to_ours, to_theirs) for a, b in names.items()]


class At:
    """Where a value of a `config.json` stands in our YAML: `n_embd: Annotated[Width, At("model.width")]`.

    Of several dotted paths the first is read on the way back; `values` says what each value is called there.
    Beside the YAML's own sections there are `sizes` (`rows` of the table, `inner` width, `places` of the
    positions) and `legend`.
    """

    def __init__(self, *paths: str, values: Mapping[Any, Any] | None = None):
        self.paths, self.values = paths, values

    def ours(self, value: Any) -> Any:
        """The value as our YAML has it."""
        return value if self.values is None else self.values[value]

    def theirs(self, known: Mapping[str, Any]) -> list[Any]:
        """The value, read off a whole YAML; nothing where theirs has none of this meaning."""
        for name in self.paths[0].split("."):
            known = known[name]
        return (
            [known] if self.values is None else [each for each, ours in self.values.items() if agrees(ours, known)][:1]
        )


def agrees(ours: Any, found: Any) -> bool:
    """Whether a value is this one; of a mapping, whether it has all of these options."""
    return ours.items() <= found.items() if isinstance(ours, dict) else ours == found


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Put a value into a tree at a dotted path, beside the options that a mapping has there."""
    *above, last = path.split(".")
    for name in above:
        tree = tree.setdefault(name, {})
    tree[last] = tree.get(last, {}) | copy.deepcopy(value) if isinstance(value, dict) else value


class Architecture(Published):
    """Base of the published architectures: a `config.json`, what it is in our YAML, and the names of its tensors."""

    kinds: ClassVar[tuple[str, ...]]
    """The values of `model_type` that it reads."""
    reference: ClassVar[str]
    """The class of transformers, or of timm, whose outputs are reproduced."""

    yaml: ClassVar[Mapping[str, Any]]
    """What of our YAML is the same for all models of the kind, by dotted paths."""

    @classmethod
    def places(cls) -> dict[str, At]:
        """The fields that stand in our YAML."""
        known = {
            name: [each for each in field.metadata if isinstance(each, At)] for name, field in cls.model_fields.items()
        }
        return {name: found[0] for name, found in known.items() if found}

    def tree(self) -> dict[str, Any]:
        """The `inputs`, `model` and `tasks` of our YAML. Raises PublishedError for a combination that is not
        reproduced."""
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
        """The way back: the configuration of a run whose resolved YAML and tensors these are. Where the run
        is of another kind, its `tree` differs from what is given, or a LookupError, TypeError or ValueError
        is raised."""
        known = {**tree, "sizes": sizes_of(tensors), "legend": legend._asdict() | {"end": legend.end}}
        found = {name: value for name, at in cls.places().items() if name not in others for value in at.theirs(known)}
        return cls(**found, **others)

    def names(self) -> list[Rename]:
        """Every tensor, once."""
        raise NotImplementedError

    def files(self) -> dict[str, dict[str, Any]]:
        """The JSON files that describe it, by name."""
        own = {"architectures": [self.reference], "model_type": self.kinds[0]}
        return {"config.json": own | self.model_dump(exclude_none=True)}


def sizes_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """What no YAML says, since it follows from a vocabulary, or from a ratio."""
    up = f"{BLOCK}feed_forward.up.weight".format(layer=0)
    names = {"rows": ".embedding.weight", "places": "text.position.table.weight", "inner": up}
    found = {name: [len(value) for key, value in tensors.items() if key.endswith(end)] for name, end in names.items()}
    return {name: values[0] for name, values in found.items() if values}


class Translated(NamedTuple):
    """Tensors under the names of the other side."""

    tensors: dict[str, Tensor]
    unknown: list[str]
    """What no line of the table names."""
    unread: list[str]
    """What has no place here, to be told."""
    called: dict[str, str]
    """The names that were given, by those of the table, which may leave a choice: `transformer.wte.weight` was
    `wte.weight`."""


def translate(table: Sequence[Rename], tensors: Mapping[str, Tensor], back: bool = False) -> Translated:
    """Their tensors under the keys of our `Model`, or `back`.

    Raises ValueError where one of several tensors that belong together is missing, and for a copy that is none.
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
    unread: list[str] = []
    for (n, *fields), members in sorted(groups.items(), key=lambda group: group[0][0]):
        line, (sources, targets), known = table[n], sides[n], dict(fields)
        names = [_filled(source, known) for source in sources]
        if missing := [name for m, name in enumerate(names) if m not in members]:
            raise ValueError(f"the weights have no {missing[0]}")
        called |= {name: members[m] for m, name in enumerate(names)}
        unread += names if line.told else []
        values = (line.to_theirs if back else line.to_ours)(*(tensors[members[m]] for m in range(len(sources))))
        for target, value in zip(targets, values if len(targets) > 1 else [values]):
            name, whole = _filled(target, known), " and ".join(members.values())
            if name in found and not torch.equal(value, found[name][0]):
                raise ValueError(f"{whole} differs from {found[name][1]}, of which it should be a copy; not reproduced")
            found.setdefault(name, (value, whole))
    return Translated({name: value for name, (value, _) in found.items()}, unknown, unread, called)


def _tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _pattern(name: str) -> re.Pattern:
    text = re.escape(name).replace(r"\{layer\}", r"(?P<layer>\d+)").replace(r"\{leaf\}", f"(?P<leaf>{LEAVES})")
    return re.compile(re.sub(r"\\\[(.*?)\\\]", r"(?:\1)?", text))


LEAVES = "|".join(("weight", "bias", *OLDER))


def _filled(name: str, known: Mapping[str, str]) -> str:
    leaf = known.get("leaf", "")
    return name.replace("[", "").replace("]", "").format(layer=known.get("layer"), leaf=OLDER.get(leaf, leaf))
