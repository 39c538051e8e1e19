"""What follows from the inputs and tasks of a configuration, computed once and passed to all who need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..tokenizers.base import Role
from .base import Needs, Task


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """Facts about a configuration that need neither data nor a model.

    An image and its caption, which is generated behind an encoder:

        columns    {"image": "image", "caption": "text"}     `data.columns` maps caption to text
        owners     {"image": "image", "caption": "caption"}
        generated  ("caption",)
        encoded    ("image",)
        axes       ("order", "row", "column")
    """

    tasks: Mapping[str, Task]
    """The tasks as their options say, before anything is fitted. To fit one, copy it (`copy.deepcopy`)."""
    needs: Mapping[str, Needs]
    """What each task needs."""
    columns: Mapping[str, str]
    """The data column that each input reads."""
    owners: Mapping[str, str]
    """The input whose tokenizer each input uses: itself, or the input that it is `same_as`."""
    roles: Mapping[str, Role]
    """Whether a task generates each input, and which special ids the tasks need in it."""
    generated: tuple[str, ...]
    """The inputs that tasks generate token by token."""
    encoded: tuple[str, ...]
    """The inputs that the encoder reads; empty if there is no encoder."""
    axes: tuple[str, ...]
    """The position axes of a set of all inputs: `order`, then those of the tokenizers, each once."""

    def sharing(self, owner: str) -> list[str]:
        """The inputs that use the tokenizer of `owner`, itself among them."""
        return [name for name, each in self.owners.items() if each == owner]

    @property
    def made(self) -> set[str]:
        """The inputs that tasks make of others, and that no data set has."""
        return {name for needs in self.needs.values() for name in needs.makes}
