"""The top level of a YAML: a table of its sections, `sections`."""

from __future__ import annotations

import functools
import inspect
from typing import Annotated, Any

from torch import nn

from ...models.model import Model
from ...models.transformer import Transformer
from ...tasks.base import Task
from ...tokenizers.base import Preprocessor
from .registry import ROOT, Folder, folder_of
from .schema import Choice, Keys, Part, Record
from .sections import Checkpoints, Data, Evaluation, Logging, Training


def _record(target: type) -> Any:
    return Annotated[Any, Record(target.__name__, (target,), target)]


def _model(**options: Any) -> Part:
    return Part(Transformer, options)


def is_tokenizer(found: Any) -> bool:
    """Whether an object is the tokenizer of an input: a torch module with a `Chopper` inside, a `Preprocessor`."""
    chopper = getattr(found, "Chopper", None)
    both = inspect.isclass(found) and inspect.isclass(chopper)
    return both and issubclass(found, nn.Module) and issubclass(chopper, Preprocessor)


@functools.cache
def sections() -> Keys:
    """The top level of a YAML: annotation and default of every section (`...`: it must be given)."""
    tokenizers = Folder(f"{ROOT}.tokenizers", "tokenizer: a torch module with a Chopper", is_tokenizer)
    return {
        "inputs": (dict[str, Annotated[Any, Choice(tokenizers)]], ...),
        "model": (Annotated[Any, Record("model", (Transformer, Model), _model)], ...),
        "tasks": (dict[str, Annotated[Any, Choice(folder_of(f"{ROOT}.tasks", Task))]], ...),
        "data": (_record(Data), ...),
        "training": (_record(Training), ...),
        "evaluation": (_record(Evaluation), {}),
        "checkpoints": (_record(Checkpoints), {}),
        "logging": (_record(Logging), {}),
        "from": (str | None, None),
        "out": (str | None, None),
    }
