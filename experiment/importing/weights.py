"""A directory's tensors loaded into a `Model`, and what must be kept to export them unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import EinopsError
from torch import Tensor

from ...models.model import Model
from ...models.pretrained.base import Translated, translate
from ..folder.reading import RunError, listed
from .files import Directory, Imported


def our_weights(source: Directory, made: Imported) -> Translated:
    """The directory's tensors under the names of `Model`. Raises RunError where they are not the architecture's."""
    try:
        return translate(made.architecture.names(), source.tensors)
    except (RuntimeError, IndexError, TypeError, KeyError) as error:  # shapes that are not the architecture's
        raise RunError(f"{source.path}: its tensors are not those of a {made.what}: {error}") from None
    except (EinopsError, ValueError) as error:
        raise RunError(f"{source.path}: {error}") from None


def compare(
    model: Model, weights: Translated, source: Path, partly: bool, headless: str | None
) -> tuple[list[str], list[str]]:
    """The names of the model's tensors that the weights lack, and of those left over. The whole head of the task
    `headless` may be missing. Raises RunError for other missing or left-over tensors, unless `partly`, and for a tensor
    of another shape."""
    own, given = model.state_dict(), weights.tensors
    missing, extra = sorted(own.keys() - given.keys()), sorted([*(given.keys() - own.keys()), *weights.unknown])
    without = missing == sorted(name for name in own if name.startswith(f"heads.{headless}."))
    if ((missing and not without) or extra) and not partly:
        raise RunError(
            f"{source}: missing {listed(missing)}, left over {listed(extra)} (--partly imports what there is)"
        )
    for name in own.keys() & given.keys():
        if own[name].shape != given[name].shape:
            shape = f"has shape {tuple(given[name].shape)}, expected {tuple(own[name].shape)}"
            raise RunError(f"{source}: {name} {shape}")
    return missing, extra


@torch.no_grad()
def fill(model: Model, weights: Translated) -> None:
    """Copy the weights, which were compared with it, into the model."""
    for name, own in model.state_dict().items():
        if name in weights.tensors:
            own.copy_(weights.tensors[name])


def originals(
    made: Imported, model: Model, theirs: Mapping[str, Tensor], called: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What an export needs to give the directory's tensors back bit for bit: the record (see `export.Kept`), and copies
    of the tensors that cannot be computed back exactly, such as positions to which something was added.

    `theirs` are the directory's tensors, `called` maps names in the architecture's table to names in the directory."""
    back = translate(made.architecture.names(), model.state_dict(), back=True).tensors
    known = {name: theirs[called[name]] for name in back.keys() & called.keys()}
    record = {
        "kind": type(made.architecture).__name__,
        "config": made.architecture.model_dump(exclude_none=True),
        "tensors": {
            name: (called[name], str(value.dtype).removeprefix("torch.")) for name, value in sorted(known.items())
        },
    }
    return record, {
        called[name]: value for name, value in known.items() if not torch.equal(back[name].to(value.dtype), value)
    }


def told(made: Imported, missing: Sequence[str], extra: Sequence[str], unread: Sequence[str]) -> list[str]:
    """Sentences about an import: its tokenizer, missing and left-over tensors, and tensors without a use here."""
    said = [f"tokenizer: {made.tokenizer}"] if made.tokenizer else []
    if made.headless and missing and all(name.startswith(f"heads.{made.headless}.") for name in missing):
        said += [
            f"the directory has no head for {made.headless!r}: `chopmix embed` gives vectors, nothing can be predicted"
        ]
    elif missing:
        said += [f"missing {listed(missing)}: as initialised"]
    said += [f"left over {listed(extra)}: not read"] if extra else []
    return said + ([f"not read, since nothing here has a use for it: {listed(unread)}"] if unread else [])
