"""A directory's tensors in a model of ours, and what must be kept to give them back."""

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
    """The directory's tensors under our names. Raises RunError where they are not those of the architecture."""
    try:
        return translate(made.architecture.names(), source.tensors)
    except (RuntimeError, IndexError, TypeError, KeyError) as error:  # shapes that are not the architecture's
        raise RunError(f"{source.path}: its tensors are not those of a {made.what}: {error}") from None
    except (EinopsError, ValueError) as error:
        raise RunError(f"{source.path}: {error}") from None


@torch.no_grad()
def fill(
    model: Model, weights: Translated, source: Path, partly: bool, headless: str | None
) -> tuple[list[str], list[str]]:
    """Copy the weights into the model; gives the names of what was missing and of what was left over. The head of
    the task `headless` may be missing altogether."""
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
        own[name].copy_(given[name])
    return missing, extra


def originals(
    made: Imported, model: Model, theirs: Mapping[str, Tensor], called: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What gives the directory's tensors back bit for bit: how they were read, with the name and the type of
    each; and those that our weights do not give (positions to which something was added)."""
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
    """What a user should know of an import."""
    said = [f"tokenizer: {made.tokenizer}"] if made.tokenizer else []
    if made.headless and missing and all(name.startswith(f"heads.{made.headless}.") for name in missing):
        said += [
            f"the directory has no head for {made.headless!r}: `chopmix embed` gives vectors, nothing can be predicted"
        ]
    elif missing:
        said += [f"missing {listed(missing)}: as initialised"]
    said += [f"left over {listed(extra)}: not read"] if extra else []
    return said + ([f"not read, since nothing here has a use for it: {listed(unread)}"] if unread else [])
