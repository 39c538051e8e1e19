"""The choppers of all inputs: fitted on the training data, or opened from what a run has kept of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...data.base import Dataset
from ...data.samples.dataset import SampleDataset
from ...tokenizers.base import Chopper, RunPart, no_run
from ...tokenizers.contract import check_complete
from ..settings.config import Config
from .columns import check_columns, check_present, columns_of, roles_of, sharing


def build_choppers(
    config: Config, assets: Path, dataset: Dataset | None = None, open_run: Callable[..., RunPart] = no_run
) -> dict[str, Chopper]:
    """Every input's chopper, with what was learned of the training data: from `assets`, or learned now and kept there.

    Without a dataset nothing is learned: a run works without its data. `open_run` opens a run that is a part of this
    one.
    """
    if isinstance(dataset, SampleDataset) and not assets.exists():
        check_columns(config, dataset)
        check_present(config, dataset)
    columns, made = columns_of(config), {}
    roles = {name: replace(role, open_run=open_run) for name, role in roles_of(config).items()}
    for name, part in config.inputs.items():
        preprocessor, owner = part.build(part.target.Chopper), config.shares.get(name, name)
        check_complete(name, preprocessor)
        if dataset is not None and not (assets / owner).exists():
            read = [columns[each] for each in sharing(config, owner)]
            items = partial(dataset.training_items, read, preprocessor.fits_on)
            try:
                preprocessor.fit(items, roles[name]).save(assets / owner)
            except ValueError as error:
                raise ValueError(f"inputs.{owner}: {error}") from error
        made[name] = preprocessor.load(assets / owner, roles[name])
    return made
