"""The functions of `import chopmix`: train a YAML file; load, evaluate and use a run."""

from __future__ import annotations

import json
import signal
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from .own_data import whole_data
from .run import Run, load_run
from .settings.config import load_config
from .train import train as train_config


def train(config: str | Path, **overrides: Any) -> dict[str, float]:
    """Train the configuration of a YAML file, as `chopmix train` does. A run that was stopped is continued; if the run
    is finished, its summary is read. Returns the run's summary: `step`, `seconds` of training, and the last metrics,
    such as `val/loss`.

        train("configs/quickstart.yaml", training={"steps": 300, "learning_rate": 1e-3}, out="runs/short")

    An override is a section of the YAML. A mapping changes only the keys that it names, which may have dots
    (`{"encoder.depth": 2}`); an input or a task that is None is removed (`inputs={"sound": None}`).

    Raises ConfigError with all problems of the file and the overrides; RunError if the folder belongs to another
    configuration, or another process trains there; DataError for damaged data; KeyboardInterrupt (Ctrl-C) or SystemExit
    (SIGTERM) if the run was asked to stop, after it is saved."""
    metrics, status = train_config(load_config(config, as_arguments(overrides)))
    if status == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if status:
        raise SystemExit(status)
    return metrics


def as_arguments(overrides: Mapping[str, Any]) -> list[str]:
    """Overrides as arguments of the command line: `{"training": {"steps": 3}, "out": "x"}` becomes
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
    """Load a trained run from its folder: model, choppers and tasks. Nothing in the folder is executed. `trust` names
    the modules outside chopmix (`mylab.lidar`) whose code its configuration may use, `remote` the hosts
    (`data.example.org`) from which its data may be read. Raises RunError if there is no run, CheckpointError (a
    ValueError) if none of its checkpoints is complete."""
    return load_run(run, checkpoint, device, trust, remote)


def evaluate(run: Run | str | Path, split: str = "val", *, data: str | None = None) -> dict[str, float]:
    """The metrics of a complete split, by names such as `val/loss`. The data are the run's own, or `data`, written as
    for `--data` of the command line (`mnist`, `photos/`, `list.csv`). Raises RunError or DataError for data that cannot
    be read."""
    run = opened(run)
    return run.evaluate(split, whole_data(data, split, *run.reads()) if data else None)


@overload
def predict(run: Run | str | Path, samples: Mapping[str, Any], **options: Any) -> dict[str, Any]: ...
@overload
def predict(run: Run | str | Path, samples: Sequence[Mapping[str, Any]], **options: Any) -> list[dict[str, Any]]: ...
def predict(
    run: Run | str | Path, samples: Mapping[str, Any] | Sequence[Mapping[str, Any]], **options: Any
) -> dict[str, Any] | list[dict[str, Any]]:
    """The predictions of every task for each sample, by task name, in the order of the samples. For one sample instead
    of a list it returns one prediction.

        predict("runs/quickstart", [{"image": "7.png", "operator": "+"}])    # [{"answer": {"text": "7+5=12"}}]

    A sample maps any of the run's inputs to raw values: a file's path or bytes, an array, a text. If a sample cannot be
    read, its result is `{"error": reason}`; missing inputs are reported on standard error. `options` are those of
    `inference.generate.Generating`. Raises RunError for an input that no task reads, and for a run that only continues
    texts."""
    return opened(run).predict(samples, **options)


@overload
def generate(run: Run | str | Path, prompt: str | None = None, **options: Any) -> str: ...
@overload
def generate(run: Run | str | Path, prompt: Sequence[str | None], **options: Any) -> list[str]: ...
def generate(
    run: Run | str | Path, prompt: str | Sequence[str | None] | None = None, **options: Any
) -> str | list[str]:
    """The text that continues a prompt (None: a new document), or one text per prompt; the prompts are not repeated.

        generate("runs/shakespeare", "To be", max_tokens=50, temperature=0.7, stop=["\\n"], seed=0)

    `options` are those of `Run.generate`. Raises RunError if no task of the run generates text."""
    return opened(run).generate(prompt, **options)


def opened(run: Run | str | Path) -> Run:
    """The run, loaded if it is given as a folder."""
    return run if isinstance(run, Run) else load(run)
