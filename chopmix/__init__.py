"""The public interface: `import chopmix`. The names in this file, and those in the files `public.py` of the projects,
are stable (docs/python.md describes them). All other names are private.

    run = chopmix.load("runs/quickstart")
    run.predict([{"operator": "+"}])

A name is imported at its first use, so `chopmix --help` does not import torch. The code is in the folders next to this
one (`models/`, `tokenizers/`, ...), which are installed as `chopmix.models`, `chopmix.tokenizers`, ..."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.base import Dataset as Dataset
    from .data.base import Document as Document
    from .data.sample_dataset import SampleDataset as SampleDataset
    from .data.samples import Listed as Listed
    from .data.samples import Samples as Samples
    from .experiment.interface import evaluate as evaluate
    from .experiment.interface import generate as generate
    from .experiment.interface import load as load
    from .experiment.interface import predict as predict
    from .experiment.interface import train as train
    from .experiment.run import Run as Run
    from .experiment.settings.config import ConfigError as ConfigError
    from .files.errors import RunError as RunError
    from .files.errors import UsageError as UsageError
    from .files.reading import DataError as DataError
    from .inference.evaluator import Evaluator as Evaluator
    from .inference.evaluator import Result as Result
    from .inference.tracing import Trace as Trace
    from .models.attention.graph import Graph as Graph
    from .models.attention.graph import Node as Node
    from .models.batch import Batch as Batch
    from .models.batch import Chunks as Chunks
    from .models.batch import Targets as Targets
    from .models.generation.sampling import Sampling as Sampling
    from .models.heads import Head as Head
    from .models.layers.feed_forward import FeedForward as FeedForward
    from .models.layers.norms import Norm as Norm
    from .models.transformer import Block as Block
    from .models.transformer import BlockOptions as BlockOptions
    from .models.transformer import Transformer as Transformer
    from .tasks.base import Metric as Metric
    from .tasks.base import Needs as Needs
    from .tasks.base import Task as Task
    from .tasks.judging import Figure as Figure
    from .tasks.judging import Generated as Generated
    from .tasks.judging import Judge as Judge
    from .tokenizers.base import Chopper as Chopper
    from .tokenizers.base import Chunk as Chunk
    from .tokenizers.encoding.base import Vocabulary as Vocabulary
    from .training.logger import Logger as Logger
    from .training.optimizers import Optimizer as Optimizer
    from .training.schedules import Schedule as Schedule

__version__ = "0.1.0"

_PUBLIC = {
    "data.base": ("Dataset", "Document"),
    "data.sample_dataset": ("SampleDataset",),
    "data.samples": ("Listed", "Samples"),
    "files.errors": ("RunError", "UsageError"),
    "experiment.interface": ("evaluate", "generate", "load", "predict", "train"),
    "experiment.run": ("Run",),
    "experiment.settings.config": ("ConfigError",),
    "inference.evaluator": ("Evaluator", "Result"),
    "models.attention.graph": ("Graph", "Node"),
    "models.batch": ("Batch", "Chunks", "Targets"),
    "inference.tracing": ("Trace",),
    "models.generation.sampling": ("Sampling",),
    "models.heads": ("Head",),
    "models.layers.feed_forward": ("FeedForward",),
    "models.layers.norms": ("Norm",),
    "models.transformer": ("Block", "BlockOptions", "Transformer"),
    "tasks.base": ("Metric", "Needs", "Task"),
    "tasks.judging": ("Figure", "Generated", "Judge"),
    "tokenizers.base": ("Chopper", "Chunk"),
    "files.reading": ("DataError",),
    "tokenizers.encoding.base": ("Vocabulary",),
    "training.logger": ("Logger",),
    "training.optimizers": ("Optimizer",),
    "training.schedules": ("Schedule",),
}
"""The public names by module. They are the same names as in the imports above, which only type checkers read."""

_ROOT = Path(__file__).parent.parent
if (_ROOT / "models" / "transformer.py").is_file():  # a checkout: `python train.py` works without an installation
    __path__.append(str(_ROOT))


def _public() -> dict[str, tuple[str, ...]]:
    """Returns the public names by module: the names in `_PUBLIC`, and the names in the `public.py` of each project."""
    projects = import_module(f"{__name__}.files.plugins").projects_with("public")
    public = dict(_PUBLIC)
    for project in projects:
        modules = import_module(f"{__name__}.projects.{project}.public").NAMES
        public |= {f"projects.{project}.{file}": names for file, names in modules.items()}
    return public


__all__ = sorted(name for group in _PUBLIC.values() for name in group)

if not TYPE_CHECKING:  # otherwise a type checker would accept any attribute

    def __getattr__(name: str) -> Any:
        for file, names in (_PUBLIC if any(name in group for group in _PUBLIC.values()) else _public()).items():
            if name in names:
                globals()[name] = getattr(import_module(f"{__name__}.{file}"), name)
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(["__version__", *(name for names in _public().values() for name in names)])
