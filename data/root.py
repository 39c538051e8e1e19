"""The folders of source data and of prepared files."""

from __future__ import annotations

import os
from pathlib import Path


def data_root() -> Path:
    """The folder of source data: `$CHOPMIX_DATA`, else `chopmix/data` in the user's cache. It may be read-only."""
    return Path(os.environ.get("CHOPMIX_DATA") or _user_cache() / "chopmix" / "data")


def cache_folder() -> Path:
    """The folder of prepared files, always writable: `$CHOPMIX_CACHE`, else `chopmix/prepared` in the user's cache."""
    return Path(os.environ.get("CHOPMIX_CACHE") or _user_cache() / "chopmix" / "prepared")


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
