"""`chopmix import` of the decision transformer of transformers."""

from __future__ import annotations

from ....experiment.interchange.directory import Directory, Imported
from ..pretrained.decision import Decision


def import_decision(source: Directory) -> Imported:
    """Returns the imported model of a decision transformer directory, from its `config.json`."""
    return Imported(what="decision transformer", architecture=Decision.read(source.config))


IMPORTERS = {"decision_transformer": import_decision}
"""The importers by `model_type` in `config.json`."""
