"""The functions of `import chopmix`: `train` a YAML file; `load` a run; `evaluate`, `predict` and `generate` with a
run."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, cast, overload

from ..files.printing import on_terminal
from ..files.trust import Trust
from .own_data import dataset_for
from .run import Run, load_run
from .run_names import folder_of_run
from .run_samples import CrossValidation, folds_of
from .settings.config import load_config
from .train import train as train_config


def train(
    config: str | Path | Mapping[str, Any], *, progress: bool = True, accept_data: bool = False, **overrides: Any
) -> dict[str, float]:
    """Train a configuration, as `chopmix train` does: a YAML file, or a mapping with the same structure, which must
    name `out`. A run that was stopped is continued; a run that is finished is not trained again. Returns the run's
    summary: `step`, `seconds` of training, and the last metrics, such as `val/loss`.

        train("configs/quickstart.yaml", training={"steps": 300, "learning_rate": 1e-3}, out="runs/short")
        train({"inputs": {"text": {"use": "text"}}, ..., "out": "runs/own"}, progress=False)

    `progress`: print the progress lines to standard error; they are always passed to the logger `chopmix`.
    An override replaces a section of the YAML by a value. If the value is a mapping, it changes only the keys that it
    contains; a key may have dots (`{"encoder.depth": 2}`). The value None removes an input or a task
    (`inputs={"sound": None}`). `accept_data`: continues a run although an older version of chopmix computed the
    fingerprints of its data by other rules.

    Raises ConfigError with all problems of the file and the overrides; RunError if the folder belongs to another
    configuration, or if another process trains in the folder; DataError for damaged data. After Ctrl-C or SIGTERM, the
    run is saved, and KeyboardInterrupt or SystemExit is raised."""
    loaded = load_config(config, as_arguments(overrides))
    with on_terminal() if progress else nullcontext():
        metrics, status = train_config(loaded, accept_data=accept_data, progress=progress)
    if status == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if status:
        raise SystemExit(status)
    return metrics


def as_arguments(overrides: Mapping[str, Any]) -> list[str]:
    """Returns overrides as arguments of the command line: `{"training": {"steps": 3}, "out": "x"}` becomes
    `['training.steps=3', 'out="x"']`."""
    settings: dict[str, Any] = {}
    for section, value in overrides.items():
        is_mapping = isinstance(value, Mapping)
        settings |= {f"{section}.{key}": option for key, option in value.items()} if is_mapping else {section: value}
    return [f"{key}={json.dumps(value, default=str, ensure_ascii=False)}" for key, value in settings.items()]


def load(
    run: str | Path, *, checkpoint: Literal["best", "last"] = "best", device: Literal["auto", "cpu", "cuda"] = "auto",
    trust: Collection[str] = (), remote: Collection[str] = (),
) -> Run:  # fmt: skip
    """Load a trained run from its folder: model, choppers and tasks. For the folder of a cross-validation (`--folds`),
    the result has only the method `samples(split, fold=0)`. No code in the folder is executed. `checkpoint`:
    the checkpoint with the best metric, or the last one. `device` `auto`: a GPU if there is one. `trust`: the modules
    outside chopmix (`mylab.lidar`) whose code the configuration of the run may use. `remote`: the hosts
    (`data.example.org`) from which the data may be read. Raises RunError if the folder is not a run, and
    CheckpointError (a ValueError) if all checkpoints are damaged."""
    folder = folder_of_run(run)
    if not os.path.exists(folder / "config.yaml") and folds_of(folder):
        return cast(Run, CrossValidation(folder, Trust.of(trust, remote)))
    return load_run(run, checkpoint, device, trust, remote)


def evaluate(run: Run | str | Path, split: str = "val", *, data: str | None = None) -> dict[str, float]:
    """Returns the metrics of all samples of a split, by names such as `val/loss`. If `data` is None, the data set of
    the run's training is read. Otherwise `data` names a data set as `--data` of the command line does: `mnist`,
    `photos/`, `list.csv`. Raises RunError or DataError if the data cannot be read."""
    run = opened(run)
    return run.evaluate(split, dataset_for(run, data, split) if data else None)


@overload
def predict(run: Run | str | Path, samples: Mapping[str, Any], **options: Any) -> dict[str, Any]: ...
@overload
def predict(run: Run | str | Path, samples: Sequence[Mapping[str, Any]], **options: Any) -> list[dict[str, Any]]: ...
def predict(
    run: Run | str | Path, samples: Mapping[str, Any] | Sequence[Mapping[str, Any]], **options: Any
) -> dict[str, Any] | list[dict[str, Any]]:
    """Returns the predictions for a list of samples: for each sample one mapping from task names to predictions, in the
    order of the samples. For one sample (a mapping instead of a list) it returns one such mapping.

        predict("runs/quickstart", [{"image": "7.png", "operator": "+"}])    # [{"answer": {"text": "7+5=12"}}]

    A sample maps inputs of the run to raw values: the path or the content of a file, an array, or a text. If a sample
    cannot be read, its result is `{"error": reason}`. Missing inputs are reported on standard error. `options` are
    fields of `inference.generate.Generating` and of `Sampling`. Raises RunError for an input that no task reads, and
    for a run that can only continue texts."""
    return opened(run).predict(samples, **options)


@overload
def generate(run: Run | str | Path, prompt: str | None = None, **options: Any) -> str: ...
@overload
def generate(run: Run | str | Path, prompt: Sequence[str | None], **options: Any) -> list[str]: ...
def generate(
    run: Run | str | Path, prompt: str | Sequence[str | None] | None = None, **options: Any
) -> str | list[str]:
    """Returns the generated continuation of `prompt`, without the prompt. None: a new text. For a list of prompts it
    returns a list with one text per prompt.

        generate("runs/shakespeare", "To be", max_tokens=50, temperature=0.7, stop=["\\n"], seed=0)

    `options` are those of `Run.generate`. Raises RunError if no task of the run generates anything."""
    return opened(run).generate(prompt, **options)


def opened(run: Run | str | Path) -> Run:
    """Returns the run. If `run` is a folder, the run is loaded from it."""
    return run if isinstance(run, Run) else load(run)
