"""The environment that a run plays in: one that is named, else that of the episodes it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...data.datasets.episodes import Episodes
from ...data.datasets.mixture import Mixture
from ...data.environments.episodes import UNKNOWN, About
from ...data.environments.making import code_in
from ...inference.in_time.rollout import Playing
from ...tokenizers.files.reading import DataError
from ..folder.reading import RunError
from .opened import Opened


def environment_of(run: Opened, how: Playing) -> tuple[str, Mapping[str, Any]]:
    """The name of the environment that is played, and its settings: those of the data too, where it is theirs. Raises
    RunError where it is neither given nor known of the data, and where the data name code that the configuration does
    not."""
    about = about_data(run, needed=how.environment is None)
    if about is None or how.environment not in (None, about.environment):
        return how.environment or "", how.settings
    kept = {name: value for name, value in about.options.items() if name not in how.settings}
    named = [kept] if how.environment else [about.environment, kept]
    for code in code_in(named):  # a folder of episodes may be a stranger's
        if code.partition(":")[0] not in run.config.modules:
            told = f"{run.folder} was trained on episodes of {about.environment!r}; {code!r} is code outside chopmix"
            given = "".join(f" --setting {name}={value}" for name, value in kept.items() if [*code_in(value)])
            raise RunError(f"{told}; if you trust who made it, say --environment {about.environment}{given}")
    return about.environment, {**kept, **how.settings}


def about_data(run: Opened, needed: bool) -> About | None:
    """What the episodes that the run was trained on say of themselves; None where they are gone, or tell no
    environment. Raises RunError or DataError for that where it is `needed`."""
    episodes = episodes_in(run)
    try:
        found = None if episodes is None else episodes.source.about
    except DataError:
        if needed:
            raise
        return None
    if found is None and needed:
        raise RunError(f"{run.folder} was not trained on episodes of an environment; name one with --environment")
    if found is not None and found.environment == UNKNOWN:
        if needed:
            raise RunError(f"{run.folder}: its episodes do not tell their environment; name one with --environment")
        return None
    return found


def episodes_in(run: Opened) -> Episodes | None:
    """The episodes that the run was trained on, perhaps among other data sets."""
    found = run.config.data.dataset() if run.config.data.dataset is not None else None
    sources = found.sources.values() if isinstance(found, Mixture) else [found]
    return next((each for each in sources if isinstance(each, Episodes)), None)
