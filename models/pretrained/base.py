"""Base classes for importing and exporting published models: a `config.json` as a typed record, and a table of tensor
names for both directions. "Theirs" refers to the published model, "ours" to a `Model` and its YAML.

An architecture is pure data and opens no files. `experiment/interchange/` reads and writes the directories.
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
"""Our head for each value of their `tie_word_embeddings`."""
OLDER = {"gamma": "weight", "beta": "bias"}
"""The names of gain and shift of normalisations in the first published BERT models, and our names for them."""


class PublishedError(ValueError):
    """A published model cannot be reproduced exactly; nothing is approximated. The message names the file and the
    option that prevent it."""


P = TypeVar("P", bound="Published")


class Published(BaseModel):
    """Base class of the records of a published model's JSON files: typed and bounded fields with the defaults of
    transformers.

    A field of type `Literal` only accepts values that are reproduced exactly. Keys without a field are ignored, because
    they do not change the output of the model.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, protected_namespaces=())

    @classmethod
    def read(cls: type[P], values: Any, file: str = "config.json") -> P:
        """Returns the values of a JSON file as a record. Raises PublishedError if the file is not a mapping, or for the
        first option that is missing, out of bounds or not reproduced exactly."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
        option, value = ".".join(map(str, first["loc"])) or "the content", repr(first["input"])
        value = value if len(value) <= 60 else f"{value[:57]}..."
        if first["type"] == "missing":
            raise PublishedError(f"{file} has no {option!r}")
        if first["type"] == "literal_error":
            expected = first["ctx"]["expected"].replace("'True'", "True").replace("'False'", "False")
            raise PublishedError(f"{file}: {option} is {value}; only {expected} is reproduced exactly")
        message = first["msg"].replace("Input should be ", "it must be ").replace("a valid ", "a ")
        raise PublishedError(f"{file}: {option} is {value}; {message}")


class Legend(NamedTuple):
    """The special ids of the texts of a run, and the names of its classes."""

    start: int = 0
    ends: Sequence[int] = (0,)
    padding: int | None = None
    opening: str = ""
    """The printable name of the start id, such as `<s>`."""
    labels: Sequence[str | int] = ()

    @property
    def end(self) -> int | list[int]:
        """The ids that end a text, in the form of a `config.json`: one id or a list."""
        return list(self.ends) if len(self.ends) > 1 else self.ends[0]


def same(value: Tensor) -> Tensor:
    """Returns the tensor unchanged."""
    return value


class Rename(NamedTuple):
    """One line of a table of names: it maps their tensors to ours and back.

        Rename("h.{layer}.ln_1.{leaf}", "cores.main.blocks.{layer}.add_attention.norm.{leaf}")
        Rename("h.{layer}.attn.c_attn.{leaf}", (query, key, value), to_ours=split, to_theirs=join)

    `{layer}` is a number, `{leaf}` is `weight` or `bias`, and a part in [brackets] is optional in their names. If a
    side has several names, they are the arguments or the results of `to_ours` and `to_theirs`. If several lines have
    the same tensor of ours, their tensors are copies, which must be equal; the first is exported. A line without a
    tensor of ours names a tensor that is not needed.
    """

    theirs: str | tuple[str, ...]
    ours: str | tuple[str, ...]
    to_ours: Callable[..., Any] = same
    to_theirs: Callable[..., Any] = same
    warn: bool = False
    """Whether to warn that this tensor is not imported, because other models use it (BERT's pooler)."""


def renames(
    theirs: str, ours: str, names: Mapping[str, str], to_ours: Callable = same, to_theirs: Callable = same
) -> list[Rename]:  # fmt: skip
    """Returns the lines for layers with a weight and an optional bias. `names` maps their layers to ours, for example
    `{"ln_1": "add_attention.norm"}`; `theirs` and `ours` are the prefixes."""
    return [Rename(f"{theirs}{a}.{{leaf}}", f"{ours}{b}.{{leaf}}", to_ours, to_theirs) for a, b in names.items()]


def patches(theirs: str, ours: str, channels: int, side: int) -> list[Rename]:
    """Returns the lines for a convolution of square patches, (d, c, p, p); our tensor is a matrix (d, c * p * p)."""
    return [
        Rename(f"{theirs}.weight", f"{ours}.weight", lambda v: rearrange(v, "d c p q -> d (c p q)"),
               lambda v: rearrange(v, "d (c p q) -> d c p q", c=channels, p=side)),
        Rename(f"{theirs}.bias", f"{ours}.bias"),
    ]  # fmt: skip


class At:
    """The path of a `config.json` value in our YAML: `n_embd: Annotated[Width, At("model.width")]`.

    Importing writes all of the dotted `paths`, exporting reads the first one; `values` maps their values to ours. In
    addition to the sections of the YAML, a path may start with `sizes` (`rows` of the embedding table, `inner` width,
    `places`: rows of the position table) or with `legend` (the fields of `Legend`, and `end`).
    """

    def __init__(self, *paths: str, values: Mapping[Any, Any] | None = None):
        self.paths, self.values = paths, values

    def ours(self, value: Any) -> Any:
        """Returns the value in our YAML for their value."""
        return value if self.values is None else self.values[value]

    def theirs(self, tree: Mapping[str, Any]) -> list[Any]:
        """Returns their value for a complete YAML, in a list; an empty list if there is no such value."""
        value = tree
        for name in self.paths[0].split("."):
            value = value[name]
        if self.values is None:
            return [value]
        return [theirs for theirs, ours in self.values.items() if agrees(ours, value)][:1]


def agrees(ours: Any, value: Any) -> bool:
    """Whether `value` equals `ours`; a mapping must have at least the options of `ours`."""
    return ours.items() <= value.items() if isinstance(ours, dict) else ours == value


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Writes a value to a tree at a dotted path; a mapping is merged into an existing one."""
    *above, last = path.split(".")
    for name in above:
        tree = tree.setdefault(name, {})
    tree[last] = tree.get(last, {}) | copy.deepcopy(value) if isinstance(value, dict) else value


class Architecture(Published):
    """Base class of the published architectures: a `config.json`, its translation to our YAML, and the names of its
    tensors."""

    kinds: ClassVar[tuple[str, ...]]
    """The values of `model_type` in a `config.json` that belong to this architecture."""
    reference: ClassVar[str]
    """The class in transformers or timm whose outputs are reproduced."""

    special_tokens: ClassVar[Mapping[str, tuple[str, int]]] = {}
    """Of a masked language model: the tokens `start`, `end` and `mask`, each with its text, and its id if the directory
    has no tokenizer (-1: the last one). Such an architecture needs no importer."""

    yaml: ClassVar[Mapping[str, Any]]
    """The options of our YAML that are the same for all models of the architecture, by dotted paths."""

    @classmethod
    def mapped_fields(cls) -> dict[str, At]:
        """Returns the fields with a counterpart in our YAML, and the path of each."""
        fields = cls.model_fields.items()
        return {name: at for name, field in fields for at in field.metadata if isinstance(at, At)}

    def tree(self) -> dict[str, Any]:
        """Returns the sections `inputs`, `model` and `tasks` of our YAML. Raises PublishedError for a combination of
        options that is not reproduced."""
        tree: dict[str, Any] = {}
        for path, value in self.yaml.items():
            put(tree, path, value)
        for name, at in self.mapped_fields().items():
            value = getattr(self, name)
            for path in at.paths if value is not None else ():
                put(tree, path, at.ours(value))
        width, sizes = tree["model"]["width"], tree.pop("sizes")
        put(tree, "model.block.feed_forward.ratio", sizes.get("inner", 4 * width) / width)
        tree.pop("legend", None)
        return tree

    @classmethod
    def from_tree(
        cls, tree: Mapping[str, Any], tensors: Mapping[str, Tensor], legend: Legend, others: Mapping[str, Any] = {}
    ) -> Architecture:
        """The inverse of `tree`: returns the configuration of a run with this resolved YAML, these tensors (by our
        names) and this `legend`. `others` are fields that do not follow from the YAML. If the run has another
        architecture, this raises LookupError, TypeError or ValueError, or the `tree` of the result differs."""
        values = {**tree, "sizes": sizes_of(tensors), "legend": legend._asdict() | {"end": legend.end}}
        mapped = {name: at for name, at in cls.mapped_fields().items() if name not in others}
        return cls(**{name: value for name, at in mapped.items() for value in at.theirs(values)}, **others)

    def names(self) -> list[Rename]:
        """Returns the table of names, with all tensors of ours and of theirs."""
        raise NotImplementedError

    def files(self, frame: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Returns the JSON files that describe the model, by file name. `frame` is the data that is stored with the
        encoding of its text."""
        header = {"architectures": [self.reference], "model_type": self.kinds[0]}
        return {"config.json": header | self.model_dump(exclude_none=True)}


def sizes_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Returns the sizes that a YAML does not contain, because they follow from a vocabulary or a ratio: `rows` of the
    embedding table, `places` (rows of the position table) and `inner`, the width inside feed-forward layers."""
    up = f"{BLOCK}feed_forward.up.weight".format(layer=0)
    names = {"rows": ".embedding.weight", "places": "text.position.table.weight", "inner": up}
    sizes = {name: [len(value) for key, value in tensors.items() if key.endswith(end)] for name, end in names.items()}
    return {name: values[0] for name, values in sizes.items() if values}


class Translated(NamedTuple):
    """The result of `translate`: tensors under the names of the other side."""

    tensors: dict[str, Tensor]
    unknown: list[str]
    """The names of tensors that no line of the table matches."""
    ignored_tensors: list[str]
    """The names of tensors that are not needed, but that need a warning."""
    called: dict[str, str]
    """The actual name of each tensor by its name in the table, which includes optional parts: `wte.weight` for
    `transformer.wte.weight`."""


def translate(table: Sequence[Rename], tensors: Mapping[str, Tensor], back: bool = False) -> Translated:
    """Returns their tensors under the keys of our `Model`; with `back`, our tensors under their names. Raises
    ValueError if one of several tensors that belong together is missing, or if a copy differs."""
    sides = [tuple(map(_tuple, (line.ours, line.theirs) if back else (line.theirs, line.ours))) for line in table]
    patterns = [(_pattern(name), (n, m)) for n, (names, _) in enumerate(sides) for m, name in enumerate(names)]
    groups: dict[tuple, dict[int, str]] = {}
    unknown = []
    for name in tensors:
        match, position = next(((m, index) for p, index in patterns if (m := p.fullmatch(name))), (None, None))
        if match is None:
            unknown.append(name)
        else:
            groups.setdefault((position[0], *sorted(match.groupdict().items())), {})[position[1]] = name
    groups |= {(n,): {} for n, (names, _) in enumerate(sides) if not names and table[n].to_theirs is not same}
    translated: dict[str, tuple[Tensor, str]] = {}
    called: dict[str, str] = {}
    ignored_tensors: list[str] = []
    for (n, *items), members in sorted(groups.items(), key=lambda group: group[0][0]):
        line, (sources, targets), fields = table[n], sides[n], dict(items)
        names = [_filled(source, fields) for source in sources]
        if missing := [name for m, name in enumerate(names) if m not in members]:
            raise ValueError(f"the weights have no {missing[0]}")
        called |= {name: members[m] for m, name in enumerate(names)}
        ignored_tensors += names if line.warn else []
        values = (line.to_theirs if back else line.to_ours)(*(tensors[members[m]] for m in range(len(sources))))
        for target, value in zip(targets, values if len(targets) > 1 else [values]):
            name, origin = _filled(target, fields), " and ".join(members.values())
            if name in translated and not torch.equal(value, translated[name][0]):
                other = translated[name][1]
                raise ValueError(f"{origin} differs from {other}, of which it should be a copy; not reproduced")
            translated.setdefault(name, (value, origin))
    return Translated({name: value for name, (value, _) in translated.items()}, unknown, ignored_tensors, called)


def _tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _pattern(name: str) -> re.Pattern:
    text = re.escape(name).replace(r"\{layer\}", r"(?P<layer>\d+)").replace(r"\{leaf\}", f"(?P<leaf>{LEAVES})")
    return re.compile(re.sub(r"\\\[(.*?)\\\]", r"(?:\1)?", text))


LEAVES = "|".join(("weight", "bias", *OLDER))


def _filled(name: str, fields: Mapping[str, str]) -> str:
    leaf = fields.get("leaf", "")
    return name.replace("[", "").replace("]", "").format(layer=fields.get("layer"), leaf=OLDER.get(leaf, leaf))
