"""The environment that a run plays in: one that is named, else that of the episodes it was trained on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from ...data.datasets.episodes import Episodes
from ...data.datasets.mixture import Mixture
from ...data.environments.episodes import UNKNOWN
from ...data.environments.making import code_in
from ...inference.in_time.rollout import Playing
from ...tokenizers.files.reading import DataError
from ...tokenizers.files.records import parse_json
from ..folder.reading import RunError
from .opened import Opened


def environment_of(run: Opened, how: Playing) -> tuple[str, Mapping[str, Any]]:
    """The name of the environment that is played, and its settings: those of the data too, where it is theirs. Raises
    RunError where it is neither given nor known of the data, and where the data name code that the configuration does
    not."""
    known = environment_of_data(run, needed=how.environment is None)
    if known is None or how.environment not in (None, known[0]):
        return how.environment or "", how.settings
    name, kept = known[0], {key: value for key, value in known[1].items() if key not in how.settings}
    named = [kept] if how.environment else [name, kept]
    for code in code_in(named):  # a folder of episodes may be a stranger's
        if not run.config.trust.allows(code.partition(":")[0]):
            reason = f"{run.folder} was trained on episodes of {name!r}; {code!r} is code outside chopmix"
            given = "".join(
                f" --setting {shlex.quote(f'{key}={value}')}" for key, value in kept.items() if [*code_in(value)]
            )
            raise RunError(
                f"{reason}. If you trust its author, name it yourself: --environment {shlex.quote(name)}{given} "
                "(in a YAML evaluation.play.environment and settings)"
            )
    return name, {**kept, **how.settings}


def environment_of_data(run: Opened, needed: bool) -> tuple[str, Mapping[str, Any]] | None:
    """The environment of the episodes that the run was trained on, and its settings; where these are gone, as the run's
    `data.json` tells. None where nobody does. Raises RunError or DataError for that where it is `needed`."""
    episodes = episodes_in(run)
    try:
        found = None if episodes is None else (episodes.source.about.environment, episodes.source.about.options)
    except DataError:
        told = run.folder / "data.json"
        kept = parse_json(told.read_bytes(), str(told)) if told.is_file() else {}
        if not isinstance(kept, Mapping) or not isinstance(kept.get("settings"), Mapping):
            if needed:
                raise
            return None
        found = str(kept.get("environment")), kept["settings"]
    if found is None and needed:
        raise RunError(f"{run.folder} was not trained on episodes of an environment; name one with --environment")
    if found is not None and found[0] == UNKNOWN:
        if needed:
            raise RunError(f"{run.folder}: its episodes do not tell their environment; name one with --environment")
        return None
    return found


def episodes_in(run: Opened) -> Episodes | None:
    """The episodes that the run was trained on, perhaps among other data sets."""
    found = run.config.dataset() if run.config.data.dataset is not None else None
    sources = found.sources.values() if isinstance(found, Mixture) else [found]
    return next((each for each in sources if isinstance(each, Episodes)), None)
