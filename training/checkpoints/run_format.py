"""The format of a run's folder: its number stands in `config.yaml` and in every `state.json`; the first format had
none."""

from __future__ import annotations

from pathlib import Path

from ...tokenizers.files.reading import shown

FORMAT = 2


def other_format(found: object, run: Path) -> str | None:
    """What to say of a run's file of this format, where it is not ours: how the run is rewritten, or that chopmix is
    too old."""
    if found == FORMAT:
        return None
    if found == 1:
        return f"was written by an earlier chopmix; `chopmix upgrade {run}` rewrites the run, and nothing of it is lost"
    return f"is of format {shown(found)}, and this chopmix reads format {FORMAT}: it takes a newer one"
