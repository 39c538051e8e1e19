"""The classes that a YAML may name: finding a class by its name, importing modules that are allowed, and the docstrings
of options.

A class in the same file as its base class has the name of the class in snake case: `norm: rms_norm` is the class
`RmsNorm` in models/layers/norms.py. Tokenizers, tasks and data sets have one file each, and the name of the file:
`use: image` is tokenizers/image.py. `use: mylab.lidar:LidarTokenizer` names any class that can be imported."""

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
from .hints import nearest

FOLDERS = {
    f"{ROOT}.data.base:Dataset": "data.datasets",
    f"{ROOT}.tasks.judging:Judge": "tasks.judges",
    f"{ROOT}.inference.evaluator:Evaluator": "inference.evaluators",
    f"{ROOT}.models.transformer:BaseBlock": "models.blocks",
    f"{ROOT}.training.logger:Logger": "training.loggers",
}
"""The plug-in folder of each base class. Every file in this folder defines one subclass."""
OUTSIDE = {f"{ROOT}.models.transformer:BaseBlock": "Block"}
"""The subclass of a base class with a plug-in folder that is in the file of the base class."""


class Registry:
    """Base class of tables of names and classes. `fits` is a function that returns whether an object may be named.
    `what` is the name of the base class in messages."""

    def __init__(self, what: str, fits: Callable[[Any], bool]):
        self.what, self.fits = what, fits

    def stems(self) -> list[str]:
        """Returns all names, always in the same order. A name may have no class."""
        raise NotImplementedError

    def classes(self, stem: str) -> list[type]:
        """Returns the classes of a name, usually one. Raises LookupError if the module of the name cannot be
        imported."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """Returns the names that have a class or whose module cannot be imported, always in the same order."""
        return [stem for stem in self.stems() if self._has_class(stem)]

    def _has_class(self, stem: str) -> bool:
        try:
            return bool(self.classes(stem))
        except LookupError:  # a file whose requirements are not installed is still a possible name
            return True

    def find(self, use: str) -> tuple[str, Any]:
        """Returns the name as `stems` writes it, and the class. `use` is a name, in which capitals and underscores do
        not matter, or `package.module:Class`. Raises LookupError with a message of one sentence if there is no such
        class, or if more than one class has this name."""
        if ":" in use:
            return use, self._outside(use)
        for stem in self.stems():
            if without_underscores(stem) == without_underscores(use) and (classes := self.classes(stem)):
                if len(classes) > 1:
                    options = " or ".join(f"{cls.__module__}:{cls.__name__}" for cls in classes)
                    raise LookupError(f"{use!r} is ambiguous; write {options}")
                return stem, classes[0]
        raise self._unknown(use)

    def _outside(self, use: str) -> Any:
        value = imported(use)
        if not self.fits(value):
            raise LookupError(f"{use!r} is not a subclass of {self.what}")
        return value

    def _unknown(self, use: str) -> LookupError:
        possible = self.names()
        near = nearest(use, possible, list_all=False)
        return LookupError(f"nothing is named {use!r}; possible: {', '.join(possible)}, or package.module:Class{near}")


class Classes(Registry):
    """A registry of the given classes, by their names in snake case. A class written as `package.module:Class` must be
    a subclass of one of the `bases`."""

    def __init__(self, classes: Sequence[type], bases: tuple[type, ...]):
        base_names = " or ".join(base.__name__ for base in bases)
        super().__init__(base_names, lambda value: inspect.isclass(value) and issubclass(value, bases))
        self.table = {snake_case(cls.__name__): cls for cls in classes}

    def stems(self) -> list[str]:
        return list(self.table)

    def classes(self, stem: str) -> list[type]:
        return [self.table[stem]]


class Folder(Registry):
    """A registry with one class per file of a plug-in folder, by the name of the file. The class of a file is the class
    for which `fits` returns True; a file without such a class is ignored. `core` contains further classes, by their
    names in snake case."""

    def __init__(self, package: str, what: str, fits: Callable[[Any], bool], core: Sequence[type] = ()):
        super().__init__(what, fits)
        self.package, self.core = package, {snake_case(cls.__name__): cls for cls in core}

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
        return [cls for cls in defined_in(module) if self.fits(cls)]


def folder_of(package: str, base: type, core: Sequence[type] = ()) -> Folder:
    """Returns the registry of the subclasses of `base`, one per file of the package, and of the classes in `core`. If
    `base` has a method `fits`, other classes for which it returns True can be named too."""
    fits_too = getattr(base, "fits", lambda value: False)

    def fits(value: Any) -> bool:
        if not inspect.isclass(value) or (value is base and value not in core):
            return False
        return issubclass(value, base) or fits_too(value)

    return Folder(package, getattr(base, "described", base.__name__), fits, core)


def registry_of(results: tuple[Any, ...]) -> Registry:
    """Returns the registry for a parameter of type `Callable[..., X]`. `results` contains X, or the members if X is a
    union. For a union the registry contains its members. Otherwise it contains the subclasses of X: those in the
    plug-in folder in FOLDERS, or, if X has no plug-in folder, those in the module of X. If there are no subclasses, it
    contains X."""
    if len(results) > 1:
        return Classes(results, results)
    (base,) = results
    name, module = f"{base.__module__}:{base.__name__}", sys.modules[base.__module__]
    if name in FOLDERS:
        return folder_of(FOLDERS[name], base, [getattr(module, OUTSIDE[name])] if name in OUTSIDE else [])
    subclasses = [cls for cls in defined_in(module) if issubclass(cls, base) and cls is not base]
    return Classes(subclasses or [base], (base,))


def defined_in(module: Any) -> Iterator[type]:
    """Yields the public classes that a module defines and that are not abstract, in the order of the file."""
    for name, value in vars(module).items():
        is_defined_here = inspect.isclass(value) and value.__module__ == module.__name__
        if is_defined_here and not name.startswith("_") and not inspect.isabstract(value):
            yield value


_trust: ContextVar[Trust] = ContextVar("trust", default=NOTHING)
"""The modules and hosts that the configuration being read may name."""


@contextmanager
def trusting(trust: Trust) -> Iterator[None]:
    """Returns a context in which a configuration may name classes of chopmix and of the modules that `trust` allows."""
    token = _trust.set(trust)
    try:
        yield
    finally:
        _trust.reset(token)


def refusal(reference: str) -> str:
    """Returns the reason why the configuration must not name `package.module:Name`. Empty if the configuration may name
    it."""
    return _trust.get().refusal(reference)


def imported(reference: str) -> Any:
    """Returns the object `package.module:Name`. Raises LookupError with a message of one sentence if the reference does
    not have this form, if the configuration must not name the module (the module is then not imported), if the import
    fails, or if the module has no callable object of this name."""
    path, _, name = reference.partition(":")
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", path):
        raise LookupError(f"{reference!r} does not have the form package.module:Class")
    if reason := refusal(reference):
        raise LookupError(reason)
    module = import_or_explain(path)
    if callable(value := getattr(module, name, None)):
        return value
    names = [cls.__name__ for cls in defined_in(module)]
    raise LookupError(f"module {path!r} has no class {name!r}{nearest(name, names)}")


def import_or_explain(path: str) -> Any:
    """Imports and returns a module. A module outside chopmix may be in the working directory. Raises LookupError if the
    import raises any exception."""
    if path.partition(".")[0] != ROOT:
        search_here()
    try:
        return importlib.import_module(path)
    except Exception as error:
        raise LookupError(f"cannot import {path!r}: {type(error).__name__}: {error}") from error


def use_name(cls: Any) -> str:
    """Returns the name of a class in a YAML: `rms_norm` for a class of chopmix, `package.module:Class` for any other
    class."""
    is_core = cls.__module__.partition(".")[0] == ROOT
    return snake_case(cls.__name__) if is_core else f"{cls.__module__}:{cls.__qualname__}"


def snake_case(name: str) -> str:
    """Returns a class name in snake case: `RmsNorm` becomes `rms_norm`, `Gpt2` `gpt2`, `AdamW` `adamw`, `MLPMixer`
    `mlp_mixer`."""
    return re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", name).lower()


def without_underscores(name: str) -> str:
    """Returns a name in lower case without underscores, for comparison."""
    return name.replace("_", "").lower()


def attribute_docstrings(target: Any, every_class: bool = False) -> dict[str, str]:
    """Returns the docstrings after the fields of a dataclass and of its base classes, by field:
    `{"every": "Steps between two checkpoints"}`. Classes that are not dataclasses (unless `every_class`), and classes
    whose source cannot be read, are omitted."""
    docstrings: dict[str, str] = {}
    for base in reversed(getattr(target, "__mro__", ())):
        if every_class or is_dataclass(base):
            docstrings |= _own_docstrings(base)
    return docstrings


@functools.cache
def _own_docstrings(target: Any) -> dict[str, str]:
    """Returns the docstrings after the fields of one class. Empty if its source cannot be read. Reading a source takes
    milliseconds."""
    try:
        tree: Any = ast.parse(textwrap.dedent(inspect.getsource(target)))
    except (OSError, TypeError, SyntaxError):
        return {}
    return {
        node.target.id: inspect.cleandoc(str(text.value.value))
        for node, text in pairwise(tree.body[0].body)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
