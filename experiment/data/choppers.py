"""The choppers of all inputs: fitted on the training data, or loaded from a run's `assets`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...data.base import Dataset
from ...data.root import cache_folder
from ...tokenizers.base import Chopper, RunPart, no_run
from ...tokenizers.chopping.contract import check_complete
from ..settings.config import Config
from .columns import check_columns, check_present


def build_choppers(
    config: Config, assets: Path, dataset: Dataset | None = None, open_run: Callable[..., RunPart] = no_run
) -> dict[str, Chopper]:
    """Every input's chopper, with what it learned from the training data (a vocabulary, a mean and a std): loaded from
    `assets/<input>/`, or fitted on the dataset and saved there.

    Without a dataset nothing is fitted: a run works without its data. `open_run` opens a trained run that is a part of
    this one. Raises DataError where an input has no column, no sample of the training split has a value in it, or a
    file is damaged, ValueError naming the input whose chopper cannot be fitted.
    """
    if dataset is not None and dataset.holds_samples and not assets.exists():
        check_columns(config, dataset)
        check_present(config, dataset)
    columns, made = config.wiring.columns, {}
    parts = {"open_run": open_run, "trust": config.trust, "cache": cache_folder()}
    roles = {name: replace(role, **parts) for name, role in config.wiring.roles.items()}
    for name, part in config.inputs.items():
        preprocessor, owner = part.build(part.target.Chopper), config.wiring.owners[name]
        check_complete(name, preprocessor)
        if dataset is not None and not (assets / owner).exists():
            read = [columns[each] for each in config.wiring.sharing(owner)]
            items = partial(dataset.training_items, read, preprocessor.fits_on)
            try:
                preprocessor.fit(items, roles[name]).save(assets / owner)
            except ValueError as error:
                raise ValueError(f"inputs.{owner}: {error}") from error
        made[name] = preprocessor.placed(preprocessor.load(assets / owner, roles[name]))
    return made
