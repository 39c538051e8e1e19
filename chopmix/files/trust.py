"""Permissions of files from someone else: which modules are imported for them, and which hosts are contacted.

A run, a data set, a folder of episodes and an imported model are data. By default no code that they name is executed
and no connection is opened for them. The user allows more with `--trust MODULE` and `--remote HOST` (in Python
`trust=[...]` and `remote=[...]`). A YAML file that the user wrote may name any modules and addresses.
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
"""The packages whose modules need no trust. `chopmix.*` is not trusted as such: in a checkout `chopmix.runs.x` is a
file in `runs/`."""
EVERY = frozenset("*")
"""All modules, or all hosts."""
PROTOCOLS = {"http", "https", "s3", "gs", "hf"}
"""The allowed protocols of remote addresses. fsspec supports more, some of which execute templates (`reference`) or
open a second address (`a::b`)."""
ADDRESS = re.compile(r"(?P<protocol>\w+)://(?P<host>[\w-]+(\.[\w-]+)*(:[0-9]+)?)(?P<path>/[^\s\\]*)?", re.ASCII)
HUB = "huggingface.co"
"""The host of `hf://` addresses, which begin with a kind of repository instead of a host."""


class Address(NamedTuple):
    """The protocol and host of a remote address: `https://example.org/a.tar` has the host `example.org`,
    `s3://bucket/a.tar` the host `bucket`, `hf://datasets/owner/name/a.tar` the host `huggingface.co`."""

    protocol: str
    host: str


def is_remote(path: str) -> bool:
    """Returns whether a path is a remote address of any protocol."""
    return "://" in path


def parse_address(address: str) -> Address:
    """Returns the protocol and the host of an address. Raises DataError if the protocol is not in PROTOCOLS, if the
    address is chained (`a::b`), or if it contains a user name or a backslash, which libraries parse differently."""
    parts = ADDRESS.fullmatch(address)
    if not parts or parts["protocol"] not in PROTOCOLS or "::" in address:
        raise DataError(
            f"{shown(address)} is not supported; possible: a local path, or PROTOCOL://HOST/PATH with one of "
            f"{', '.join(sorted(PROTOCOLS))}"
        )
    return Address(parts["protocol"], HUB if parts["protocol"] == "hf" else parts["host"])


@dataclass(frozen=True)
class Trust:
    """The modules outside chopmix that may be imported, and the hosts that may be contacted, for files from someone
    else. A package includes its submodules. `*` allows all."""

    modules: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, modules: Collection[str] = (), hosts: Collection[str] = ()) -> Trust:
        """Returns the permissions that a user grants with `--trust` and `--remote`."""
        return cls(frozenset(modules), frozenset(hosts))

    def allows(self, module: str) -> bool:
        """Returns whether a module may be imported."""
        parts = module.split(".")
        parents = {".".join(parts[: n + 1]) for n in range(len(parts))}  # including the module
        return bool(parents.intersection(PACKAGES)) or self.modules >= EVERY or bool(parents & self.modules)

    def refusal(self, reference: str) -> str:
        """Returns a message if `package.module:Name` (a class or an environment) must not be imported, otherwise an
        empty string."""
        module = reference.partition(":")[0]
        if self.allows(module):
            return ""
        return (
            f"{reference!r} is code outside chopmix, which is not executed for files from someone else. If you trust "
            f"its author, add --trust {shlex.quote(module)} (in Python trust=[{module!r}])"
        )

    def check_address(self, address: str) -> None:
        """Raises DataError if the protocol of an address is not supported or its host is not allowed."""
        host = parse_address(address).host
        if not (self.hosts >= EVERY or host in self.hosts):
            raise DataError(
                f"{address} is a remote address in a run's folder and is not opened. To allow it, add --remote {host} "
                f"(in Python remote=[{host!r}])"
            )


NOTHING = Trust()
"""No module, no host: the default for everything that someone else may have written."""
EVERYTHING = Trust(EVERY, EVERY)
"""For the user's own input: a YAML file, or a value on the command line."""


def search_here() -> None:
    """Adds the working directory to the module search path, as `python -m` does, for modules that the user names or
    trusts."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def code_in(value: Any) -> Iterator[str]:
    """Yields the texts in the settings of an environment that may name code, `package.module:Name`: all texts with a
    colon, because gymnasium imports the module that precedes it."""
    if isinstance(value, str) and ":" in value:
        yield value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for item in inner:
        yield from code_in(item)


def code_named_in(tree: Any, where: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yields the environments and policies in a configuration that are code, `package.module:Name`, and those in the
    settings of environments, as (path, code). They are imported when episodes are recorded or played."""
    for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ():
        if key in ("environment", "policy") and isinstance(value, str) and ":" in value:
            yield (*where, key), value
        if key == "settings":
            yield from (((*where, key), code) for code in code_in(value))
        yield from code_named_in(value, (*where, key))
