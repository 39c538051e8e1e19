"""Errors whose message tells a user what to change."""

from __future__ import annotations


class UsageError(ValueError):
    """A request cannot be carried out as it is written, for example an option of a command. The message states the
    reason and what is possible. A command that raises it has exit status 2."""


class RunError(UsageError):
    """The folder of a run cannot be used, or a request does not fit the run. The message states the reason and the
    possible values."""
