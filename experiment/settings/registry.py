"""The classes that a YAML may name: how a name is looked up, which modules may be imported for it, and how a class
describes its options.

Parts whose base class stands in their own file go by the class (`norm: rms_norm` is `RmsNorm` of
models/layers/norms.py); tokenizers, tasks and datasets are one per file and go by the file (`use: image` is
tokenizers/image.py). `use: mylab.lidar:LidarTokenizer` names any class that can be imported."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import is_dataclass
from itertools import pairwise
from typing import Any

from ...files.plugins import ROOT, modules_of
from ...files.trust import NOTHING, Trust, search_here
from .hints import moved, nearest

FOLDERS = {
    f"{ROOT}.data.base:Dataset": "data.datasets",
    f"{ROOT}.tasks.judging:Judge": "tasks.judges",
    f"{ROOT}.inference.evaluator:Evaluator": "inference.evaluators",
    f"{ROOT}.models.transformer:Block": "models.blocks",
    f"{ROOT}.training.logger:Logger": "training.loggers",
}
"""By base class: the plug-in folder whose files each hold one of its subclasses."""
COMPLETE = (f"{ROOT}.models.transformer:Block",)
"""Base classes of plug-in folders that can be named themselves."""


class Registry:
    """Base: a table of names and classes. `fits` is true of every class that may be named, `what` names the kind in
    messages."""

    def __init__(self, what: str, fits: Callable[[Any], bool]):
        self.what, self.fits = what, fits

    def stems(self) -> list[str]:
        """All names, in a stable order, of which some may have no class."""
        raise NotImplementedError

    def classes(self, stem: str) -> list[type]:
        """The classes of a name. Raises LookupError where they cannot be imported."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """The names that have a class, in a stable order."""
        return [stem for stem in self.stems() if self._holds(stem)]

    def _holds(self, stem: str) -> bool:
        try:
            return bool(self.classes(stem))
        except LookupError:  # a file whose own requirements are missing is still one of the possible names
            return True

    def find(self, use: str) -> tuple[str, Any]:
        """The canonical name and the class for `use`: a name, whatever its capitals and underscores, or
        package.module:Class. Raises LookupError with one sentence."""
        if ":" in use:
            found = imported(use)
            if not self.fits(found):
                raise LookupError(f"{use!r} is no {self.what}")
            return use, found
        for stem in self.stems():
            if flat(stem) == flat(use) and (found := self.classes(stem)):
                if len(found) > 1:
                    several = " or ".join(f"{each.__module__}:{each.__name__}" for each in found)
                    raise LookupError(f"{use!r} holds several; write {several}")
                return stem, found[0]
        possible = self.names()
        near = nearest(use, possible, list_all=False)
        raise LookupError(f"nothing is named {use!r}; possible: {', '.join(possible)}, or package.module:Class{near}")


class Classes(Registry):
    """The given classes by their names in snake case; as package.module:Class any subclass of one of the `bases`."""

    def __init__(self, classes: Sequence[type], bases: tuple[type, ...]):
        wanted = " or ".join(base.__name__ for base in bases)
        super().__init__(wanted, lambda found: inspect.isclass(found) and issubclass(found, bases))
        self.table = {snake_case(found.__name__): found for found in classes}

    def stems(self) -> list[str]:
        return list(self.table)

    def classes(self, stem: str) -> list[type]:
        return [self.table[stem]]


class Folder(Registry):
    """One class per file of a plug-in folder, by the file's name: one for which `fits` is true; files without are
    ignored. `core`: further classes, by their names in snake case."""

    def __init__(self, package: str, what: str, fits: Callable[[Any], bool], core: Sequence[type] = ()):
        super().__init__(what, fits)
        self.package, self.core = package, {snake_case(each.__name__): each for each in core}

    @functools.cached_property
    def modules(self) -> dict[str, str]:
        """The module of each name."""
        return modules_of(self.package)

    def stems(self) -> list[str]:
        return [*self.core, *self.modules]

    def classes(self, stem: str) -> list[type]:
        if stem in self.core:
            return [self.core[stem]]
        module = import_or_explain(self.modules[stem])
        return [found for found in defined_in(module) if self.fits(found)]


def folder_of(package: str, base: type, core: Sequence[type] = ()) -> Folder:
    """The registry of the subclasses of a base, one per file of the package, and of the classes of the `core`."""

    def fits(found: Any) -> bool:
        return inspect.isclass(found) and issubclass(found, base) and (found is not base or found in core)

    return Folder(package, base.__name__, fits, core)


def registry_of(results: tuple[Any, ...]) -> Registry:
    """The registry for `Callable[..., X]`. Of a union X its members; else the subclasses of X: one per file of the
    plug-in folder that FOLDERS names, or without one those in X's own module; if there are none, X itself."""
    if len(results) > 1:
        return Classes(results, results)
    (base,) = results
    name = f"{base.__module__}:{base.__name__}"
    if name in FOLDERS:
        return folder_of(FOLDERS[name], base, [base] * (name in COMPLETE))
    module = sys.modules[base.__module__]
    subclasses = [found for found in defined_in(module) if issubclass(found, base) and found is not base]
    return Classes(subclasses or [base], (base,))


def defined_in(module: Any) -> Iterator[type]:
    """The public, not abstract classes that a module defines itself, in the order of the file."""
    for name, found in vars(module).items():
        own = inspect.isclass(found) and found.__module__ == module.__name__
        if own and not name.startswith("_") and not inspect.isabstract(found):
            yield found


_trust: ContextVar[Trust] = ContextVar("trust", default=NOTHING)
"""What the configuration that is being read may name."""


@contextmanager
def trusting(trust: Trust) -> Iterator[None]:
    """A context in which configurations may name classes of the modules that `trust` allows, and of chopmix."""
    token = _trust.set(trust)
    try:
        yield
    finally:
        _trust.reset(token)


def refusal(reference: str) -> str:
    """Why the configuration that is being read may not name `package.module:Name`; empty if it may."""
    return _trust.get().refusal(reference)


def imported(reference: str) -> Any:
    """The object `package.module:Name`. Raises LookupError with one sentence if there is none, and, before anything is
    imported, if the configuration that is being read may not name the module."""
    path, _, name = reference.partition(":")
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", path):
        raise LookupError(f"{reference!r}: a class is named package.module:Class")
    if refused := refusal(reference):
        raise LookupError(refused)
    module = import_or_explain(path)
    if callable(found := getattr(module, name, None)):
        return found
    names = [each.__name__ for each in defined_in(module)]
    raise LookupError(f"module {path!r} has no class {name!r}{nearest(name, names)}")


def import_or_explain(path: str) -> Any:
    """A module; for one outside chopmix the working directory is searched, too. Raises LookupError for any exception of
    the import."""
    if path.partition(".")[0] != ROOT:
        search_here()
    try:
        return importlib.import_module(path)
    except Exception as error:
        now = moved(error.name or "") if isinstance(error, ModuleNotFoundError) else None
        hint = f"; {error.name} is called {now} now" if now else ""
        raise LookupError(f"cannot import {path!r}: {type(error).__name__}: {error}{hint}") from error


def use_name(found: Any) -> str:
    """The name of a class in a YAML: `rms_norm` for chopmix's, `package.module:Class` for all others."""
    ours = found.__module__.partition(".")[0] == ROOT
    return snake_case(found.__name__) if ours else f"{found.__module__}:{found.__qualname__}"


def snake_case(name: str) -> str:
    """RmsNorm: rms_norm; Gpt2: gpt2; AdamW: adamw; MLPMixer: mlp_mixer."""
    return re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", name).lower()


def flat(name: str) -> str:
    """A name without capitals and underscores, for comparison."""
    return name.replace("_", "").lower()


def attribute_docstrings(target: Any) -> dict[str, str]:
    """The string after each field of a dataclass and of its bases, by field: `{"every": "Steps between two
    checkpoints"}`. Empty for anything else, and where the source cannot be read."""
    found: dict[str, str] = {}
    for base in filter(is_dataclass, reversed(getattr(target, "__mro__", ()))):
        try:
            tree: Any = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        found |= {
            node.target.id: inspect.cleandoc(str(text.value.value))
            for node, text in pairwise(tree.body[0].body)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        }
    return found
