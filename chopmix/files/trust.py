"""Permissions for files from someone else: which modules such files may import, and which hosts they may contact.

A run, a data set, a folder of episodes and an imported model are data. By default no code that is named in such data is
executed, and no address in such data is opened. The user allows more with `--trust MODULE` and `--remote HOST` (in
Python `trust=[...]` and `remote=[...]`). A YAML file of the user may name any modules and addresses.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .reading import DataError, shown

PACKAGES = tuple(
    f"{__name__.partition('.')[0]}.{name}"
    for name in ("models", "tokenizers", "tasks", "data", "inference", "training", "experiment", "commands", "projects")
)
"""The packages whose modules may always be imported. Not all of `chopmix.*` may be imported, because in a checkout
`chopmix.runs.x` is a file in the folder `runs/`."""
EVERY = frozenset("*")
"""All modules, or all hosts."""
PROTOCOLS = {"http", "https", "s3", "gs", "hf"}
"""The allowed protocols of remote addresses. The library fsspec also supports protocols that execute templates
(`reference`), and addresses that open a second address (`a::b`)."""
ADDRESS = re.compile(r"(?P<protocol>\w+)://(?P<host>[\w-]+(\.[\w-]+)*(:[0-9]+)?)(?P<path>/[^\s\\]*)?", re.ASCII)
HUB = "huggingface.co"
"""The host of `hf://` addresses. Such an address contains a kind of repository (`datasets`) in the place of a host."""


class Address(NamedTuple):
    """The protocol and host of a remote address: `https://example.org/a.tar` has the host `example.org`,
    `s3://bucket/a.tar` the host `bucket`, `hf://datasets/owner/name/a.tar` the host `huggingface.co`."""

    protocol: str
    host: str


def is_remote(path: str) -> bool:
    """Returns whether a path contains `://` and is therefore a remote address."""
    return "://" in path


def parse_address(address: str) -> Address:
    """Returns the protocol and the host of an address. Raises DataError if the address does not match ADDRESS, if the
    protocol is not in PROTOCOLS, or if the address is chained (`a::b`). User names, backslashes and white space do not
    match, because libraries parse them differently."""
    parts = ADDRESS.fullmatch(address)
    if not parts or parts["protocol"] not in PROTOCOLS or "::" in address:
        raise DataError(
            f"{shown(address)} is not supported; possible: a local path, or PROTOCOL://HOST/PATH with one of "
            f"{', '.join(sorted(PROTOCOLS))}"
        )
    return Address(parts["protocol"], HUB if parts["protocol"] == "hf" else parts["host"])


@dataclass(frozen=True)
class Trust:
    """Permissions for files from someone else: the modules outside chopmix that may be imported (a package includes its
    submodules), and the hosts that may be contacted. `*` allows all modules or all hosts."""

    modules: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, modules: Collection[str] = (), hosts: Collection[str] = ()) -> Trust:
        """Returns the permissions for the values of `--trust` (modules) and `--remote` (hosts). A text has names that
        are separated by commas."""
        return cls(*(frozenset(each.split(",") if isinstance(each, str) else each) for each in (modules, hosts)))

    def allows(self, module: str) -> bool:
        """Returns whether a module may be imported."""
        parts = module.split(".")
        parents = {".".join(parts[: n + 1]) for n in range(len(parts))}  # including the module
        return bool(parents.intersection(PACKAGES)) or self.modules >= EVERY or bool(parents & self.modules)

    def refusal(self, reference: str) -> str:
        """Returns an error message if `package.module:Name` (a class or an environment) must not be imported. Returns
        an empty string if it may be imported."""
        module = reference.partition(":")[0]
        if self.allows(module):
            return ""
        return (
            f"{reference!r} is code outside chopmix, which is not executed for files from someone else. If you trust "
            f"its author, add --trust {shlex.quote(module)} (in Python trust=[{module!r}])"
        )

    def check_address(self, address: str) -> None:
        """Raises DataError like `parse_address`, and if the host of the address is not allowed."""
        host = parse_address(address).host
        if not (self.hosts >= EVERY or host in self.hosts):
            raise DataError(
                f"{address} is a remote address in a run's folder and is not opened. To allow it, add --remote {host} "
                f"(in Python remote=[{host!r}])"
            )


NOTHING = Trust()
"""Allows no module outside chopmix and no host: the default for files from someone else."""
EVERYTHING = Trust(EVERY, EVERY)
"""Allows all modules and hosts: for the input of the user, such as a YAML file or a value on the command line."""


def search_here() -> None:
    """Adds the working directory to the end of the module search path, because the user may name modules in it."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def code_in(value: Any) -> Iterator[str]:
    """Yields the texts in the settings of an environment that may name code (`package.module:Name`). All texts with a
    colon are included, because gymnasium imports the module before a colon."""
    if isinstance(value, str) and ":" in value:
        yield value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for item in inner:
        yield from code_in(item)


def code_named_in(tree: Any, where: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yields (path, code) for the names of code (`package.module:Name`) in a configuration: the values with a colon of
    the keys `environment` and `policy`, and the texts that `code_in` finds under the key `settings`. `path` is the
    tuple of keys and indices of the value. This code is imported when episodes are recorded or played."""
    for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ():
        if key in ("environment", "policy") and isinstance(value, str) and ":" in value:
            yield (*where, key), value
        if key == "settings":
            yield from (((*where, key), code) for code in code_in(value))
        yield from code_named_in(value, (*where, key))
