"""`chopmix import` of classifiers: timm's Vision Transformers and transformers' Audio Spectrogram Transformer."""

from __future__ import annotations

from ...models.pretrained.ast_audio import FEATURES, Ast, AstFeatures
from ...models.pretrained.vit import Vit
from ...tokenizers.files.records import read_json
from ..folder.reading import RunError
from .files import Directory, Imported
from .timm_models import completed


def import_vit(source: Directory) -> Imported:
    """A timm directory: `config.json` with `architecture`, `num_classes`, `global_pool`, `model_args`,
    `pretrained_cfg`."""
    config = Vit.read(source.config)
    if not config.classes:
        raise RunError(f"{source.path}: the model has no classifier (num_classes 0)")
    config = completed(config)
    names = config.labels or list(range(config.classes))
    if len(names) != config.classes:
        raise RunError(
            f"{source.path}/config.json: label_names names {len(names)} classes, but the model has {config.classes}"
        )
    return Imported(what=config.architecture, architecture=config, labels=names)


def import_ast(source: Directory) -> Imported:
    """A transformers AST directory: `config.json`, and `preprocessor_config.json` where the statistics are not
    AudioSet's."""
    features = AstFeatures.read(read_json(source.path / FEATURES) if source.has(FEATURES) else {}, FEATURES)
    config = Ast.read(source.config).model_copy(update={"features": features})
    count = len(source.tensors.get("classifier.dense.bias", ()))
    labels = config.id2label or {str(number): number for number in range(count)}
    if sorted(labels) != sorted(map(str, range(count))):
        raise RunError(f"{source.path}/config.json: id2label does not name the {count} classes 0 to {count - 1}")
    return Imported(what="AST", architecture=config, labels=[labels[str(number)] for number in range(count)])
