"""`chopmix import` of transformers' Decision Transformer."""

from __future__ import annotations

from ....experiment.interchange.directory import Directory, Imported
from ..pretrained.decision import Decision


def import_decision(source: Directory) -> Imported:
    """A transformers decision transformer directory: `config.json`."""
    return Imported(what="decision transformer", architecture=Decision.read(source.config))


IMPORTERS = {"decision_transformer": import_decision}
"""The importers by the `model_type` of `config.json`."""
