"""The format number of a run's folder, stored as `format` in `config.yaml` and in every `state.json`; files of format
1 have no such key."""

from __future__ import annotations

import shlex
from pathlib import Path

from ...tokenizers.files.reading import shown

FORMAT = 2


def other_format(found: object, run: Path) -> str | None:
    """The predicate of a message about a file of format `found`: that `chopmix upgrade` rewrites the run, or that
    chopmix is too old; None where the format is the current one."""
    if found == FORMAT:
        return None
    if found == 1:
        command = f"chopmix upgrade {shlex.quote(str(run))}"
        return f"was written by an earlier chopmix; `{command}` rewrites the run, and nothing of it is lost"
    return f"is of format {shown(found)}, and this chopmix reads format {FORMAT}: it takes a newer one"
