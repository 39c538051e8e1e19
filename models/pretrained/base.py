"""Base classes for importing and exporting published models. An architecture is a `config.json` as a typed record, and
a table that maps names of tensors in both directions. "Theirs" refers to the published model (in the format of
transformers or timm), "ours" refers to a `Model` and its YAML.

An architecture opens no files. `experiment/interchange/` reads and writes the directories.
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
"""Maps their `tie_word_embeddings` to the name of our head."""
OLDER = {"gamma": "weight", "beta": "bias"}
"""Maps the names of gain and shift of normalisations in the first published BERT models to our names."""


class PublishedError(ValueError):
    """A published model cannot be reproduced exactly. It is then not imported at all. The message names the file and
    the option that prevent the import."""


P = TypeVar("P", bound="Published")


class Published(BaseModel):
    """Base class of the records that describe the JSON files of a published model. The fields have types and bounds,
    and the defaults of transformers.

    A field of type `Literal` only accepts values that are reproduced exactly. Keys of the file that are no fields are
    ignored, because they do not change the output of the model.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, protected_namespaces=())

    @classmethod
    def read(cls: type[P], values: Any, file: str = "config.json") -> P:
        """Returns the values of a JSON file as a record. Raises PublishedError if `values` is not a mapping, or if an
        option is missing, out of bounds or not reproduced exactly. The message names the first such option. `file` is
        the name of the file in the message."""
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
    """The special ids of the texts of a run, and the names of the classes of the run."""

    start: int = 0
    ends: Sequence[int] = (0,)
    padding: int | None = None
    opening: str = ""
    """The printable name of the start id, such as `<s>`."""
    labels: Sequence[str | int] = ()

    @property
    def end(self) -> int | list[int]:
        """The ids that end a text, as in a `config.json`: the id if there is one, else a list of ids."""
        return list(self.ends) if len(self.ends) > 1 else self.ends[0]


def same(value: Tensor) -> Tensor:
    """Returns the tensor unchanged."""
    return value


class Rename(NamedTuple):
    """One line of a table of names. It maps their tensors to our tensors and back.

        Rename("h.{layer}.ln_1.{leaf}", "cores.main.blocks.{layer}.add_attention.norm.{leaf}")
        Rename("h.{layer}.attn.c_attn.{leaf}", (query, key, value), to_ours=split, to_theirs=join)

    `{layer}` is a number, `{leaf}` is `weight` or `bias`, and a part in [brackets] is optional in their names.
    `to_ours` maps their tensors to our tensors, `to_theirs` maps ours to theirs. If a side has several names, these
    functions have several arguments or results. If several lines have the same name in `ours`, the tensors named in
    `theirs` are copies and must be equal; an export uses the first of these lines. If `ours` is empty, the line names a
    tensor that is not needed.
    """

    theirs: str | tuple[str, ...]
    ours: str | tuple[str, ...]
    to_ours: Callable[..., Any] = same
    to_theirs: Callable[..., Any] = same
    warn: bool = False
    """Whether to warn that this tensor is not imported. True for tensors that some uses of the model need, such as
    BERT's pooler."""


def renames(
    theirs: str, ours: str, names: Mapping[str, str], to_ours: Callable = same, to_theirs: Callable = same
) -> list[Rename]:  # fmt: skip
    """Returns the lines of the table for layers with a weight and an optional bias. `names` maps the names of their
    layers to the names of ours, for example `{"ln_1": "add_attention.norm"}`; `theirs` and `ours` are prefixes of all
    names."""
    return [Rename(f"{theirs}{a}.{{leaf}}", f"{ours}{b}.{{leaf}}", to_ours, to_theirs) for a, b in names.items()]


def patches(theirs: str, ours: str, channels: int, side: int) -> list[Rename]:
    """Returns the lines of the table for the embedding of square patches. Their tensor is a convolution (d, c, p, p),
    our tensor is a matrix (d, c * p * p). `channels` is c, `side` is p."""
    return [
        Rename(f"{theirs}.weight", f"{ours}.weight", lambda v: rearrange(v, "d c p q -> d (c p q)"),
               lambda v: rearrange(v, "d (c p q) -> d c p q", c=channels, p=side)),
        Rename(f"{theirs}.bias", f"{ours}.bias"),
    ]  # fmt: skip


class At:
    """The path in our YAML that belongs to a value of a `config.json`: `n_embd: Annotated[Width, At("model.width")]`.

    An import writes the value to all dotted `paths`; an export reads the value from the first path. `values` maps their
    values to our values; None: the values are equal. A path starts with a section of the YAML, with `sizes` (see
    `sizes_of`), or with `legend` (a field of `Legend`, or `end`).
    """

    def __init__(self, *paths: str, values: Mapping[Any, Any] | None = None):
        self.paths, self.values = paths, values

    def ours(self, value: Any) -> Any:
        """Returns the value in our YAML that belongs to their `value`."""
        return value if self.values is None else self.values[value]

    def theirs(self, tree: Mapping[str, Any]) -> list[Any]:
        """Returns a list with their value for a YAML in which all keys are set. The list is empty if `values` has no
        counterpart of the value in the YAML. Raises KeyError or TypeError if the YAML lacks the path."""
        value = tree
        for name in self.paths[0].split("."):
            value = value[name]
        if self.values is None:
            return [value]
        return [theirs for theirs, ours in self.values.items() if agrees(ours, value)][:1]


def agrees(ours: Any, value: Any) -> bool:
    """Returns whether `value` equals `ours`. If `ours` is a dict, `value` may have further keys."""
    return ours.items() <= value.items() if isinstance(ours, dict) else ours == value


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Writes `value` to nested dictionaries at a dotted path, in place. If `value` is a dictionary, it is merged into
    an existing dictionary."""
    *above, last = path.split(".")
    for name in above:
        tree = tree.setdefault(name, {})
    tree[last] = tree.get(last, {}) | copy.deepcopy(value) if isinstance(value, dict) else value


class Architecture(Published):
    """Base class of the published architectures. The fields are those of the `config.json`; the methods translate them
    to our YAML and back, and return the table of the names of tensors."""

    kinds: ClassVar[tuple[str, ...]]
    """The values of `model_type` in a `config.json` that belong to this architecture."""
    reference: ClassVar[str]
    """The class in transformers or timm whose outputs are reproduced."""

    special_tokens: ClassVar[Mapping[str, tuple[str, int]]] = {}
    """For a masked language model: maps `start`, `end` and `mask` to the text and the id of this token. The id is used
    if the directory has no tokenizer; -1 is the last id. An architecture with special tokens needs no importer."""

    yaml: ClassVar[Mapping[str, Any]]
    """The options of our YAML that are equal for all models of the architecture. Maps dotted paths to values."""

    @classmethod
    def mapped_fields(cls) -> dict[str, At]:
        """Maps the name of each field that has a counterpart in our YAML to its `At`."""
        fields = cls.model_fields.items()
        return {name: at for name, field in fields for at in field.metadata if isinstance(at, At)}

    def tree(self) -> dict[str, Any]:
        """Returns the sections `inputs`, `model` and `tasks` of our YAML as nested dictionaries. Raises PublishedError
        if a combination of options is not reproduced exactly."""
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
        """The inverse of `tree`. Returns the `config.json` of a run with this resolved YAML (`tree`), these tensors (by
        our names) and this `legend`. `others` maps fields that do not follow from the YAML to their values. If the run
        has another architecture, the method raises LookupError, TypeError or ValueError, or the method `tree` of the
        result returns another YAML."""
        values = {**tree, "sizes": sizes_of(tensors), "legend": legend._asdict() | {"end": legend.end}}
        mapped = {name: at for name, at in cls.mapped_fields().items() if name not in others}
        return cls(**{name: value for name, at in mapped.items() for value in at.theirs(values)}, **others)

    def names(self) -> list[Rename]:
        """Returns the table of names, with the names of all our tensors and of all their tensors."""
        raise NotImplementedError

    def files(self, frame: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Returns the contents of the JSON files that describe the model, by file name. `frame` is the data that is
        stored with the encoding of the model's text."""
        header = {"architectures": [self.reference], "model_type": self.kinds[0]}
        return {"config.json": header | self.model_dump(exclude_none=True)}


def sizes_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Returns sizes that our YAML does not contain, because they follow from a vocabulary or a ratio: `rows` (rows of
    the embedding table), `places` (rows of the position table) and `inner` (the hidden width of feed-forward layers). A
    size is missing if there is no such tensor. `tensors` has our names."""
    up = f"{BLOCK}feed_forward.up.weight".format(layer=0)
    names = {"rows": ".embedding.weight", "places": "text.position.table.weight", "inner": up}
    sizes = {name: [len(value) for key, value in tensors.items() if key.endswith(end)] for name, end in names.items()}
    return {name: values[0] for name, values in sizes.items() if values}


class Translated(NamedTuple):
    """The result of `translate`. `tensors` has the translated tensors with the names of the other side."""

    tensors: dict[str, Tensor]
    unknown: list[str]
    """The names of the given tensors that no line of the table matches."""
    ignored_tensors: list[str]
    """The names of tensors in lines with `Rename.warn`. They are not translated, and the user should know this."""
    called: dict[str, str]
    """Maps the name of each tensor in the table, with optional parts, to the name of the given tensor:
    `transformer.wte.weight` to `wte.weight`."""


def translate(table: Sequence[Rename], tensors: Mapping[str, Tensor], back: bool = False) -> Translated:
    """Translates tensors by the lines of `table`. `tensors` has their names and the result has the names of our
    `Model`; with `back` it is the other way round. Raises ValueError if only some of the tensors of a line exist, or if
    two tensors that must be copies differ."""
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
