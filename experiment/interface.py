"""The functions of `import chopmix`: from a YAML file or the folder of a run to metrics, predictions and texts."""

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
    """Train what a YAML file says, as `chopmix train` does: a run that was stopped goes on; of one that is finished the
    summary is read. Gives the run's summary: `step`, `seconds` of training, and the last metrics, such as `val/loss`.

        train("configs/quickstart.yaml", training={"steps": 300, "learning_rate": 1e-3}, out="runs/short")

    An override is a section of the YAML; a mapping changes the keys that it names, which may have dots
    (`{"encoder.depth": 2}`), and an input or a task that is None is removed (`inputs={"sound": None}`).

    Raises ConfigError with everything that is wrong with file and overrides, RunError for a folder of another
    configuration or one in which another process trains, DataError for damaged data, KeyboardInterrupt
    (Ctrl-C) or SystemExit (SIGTERM) where the run was asked to stop, after saving it."""
    metrics, status = train_config(load_config(config, written(overrides)))
    if status == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if status:
        raise SystemExit(status)
    return metrics


def written(overrides: Mapping[str, Any]) -> list[str]:
    """Overrides as the command line has them: `{"training": {"steps": 3}, "out": "x"}` becomes
    `['training.steps=3', 'out="x"']`."""
    found: dict[str, Any] = {}
    for section, value in overrides.items():
        inner = isinstance(value, Mapping)
        found |= {f"{section}.{key}": each for key, each in value.items()} if inner else {section: value}
    return [f"{key}={json.dumps(value, default=str, ensure_ascii=False)}" for key, value in found.items()]


def load(
    run: str | Path, *, checkpoint: Literal["best", "last"] = "best", device: Literal["auto", "cpu", "cuda"] = "auto",
    trust: Collection[str] = (), remote: Collection[str] = (),
) -> Run:  # fmt: skip
    """A trained run by its folder: model, choppers, tasks. Nothing in the folder is executed. `trust` names the modules
    outside chopmix (`mylab.lidar`) whose code its configuration may name, `remote` the hosts (`data.example.org`) from
    which its data may be read. Raises RunError if there is no run, CheckpointError (a ValueError) if none of its
    checkpoints is complete."""
    return load_run(run, checkpoint, device, trust, remote)


def evaluate(run: Run | str | Path, split: str = "val", *, data: str | None = None) -> dict[str, float]:
    """The metrics of a whole split, by names such as `val/loss`: of the run's own data, or of `data`, written as for
    `--data` of the command line (`mnist`, `photos/`, `list.csv`). Raises RunError or DataError for data that cannot
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
    """Every task's prediction for each sample, by task name, in the order of the samples; of one sample instead of a
    list its prediction alone.

        predict("runs/quickstart", [{"image": "7.png", "operator": "+"}])    # [{"answer": {"text": "7+5=12"}}]

    A sample maps any of the run's inputs to raw values: a file's path or bytes, an array, a text. For one that cannot
    be read the result is `{"error": why}`; inputs that a sample lacks are named on standard error. `options` are those
    of `inference.generating.Generating`. Raises RunError for an input that no task reads, and for a run that only
    continues texts."""
    return opened(run).predict(samples, **options)


@overload
def generate(run: Run | str | Path, prompt: str | None = None, **options: Any) -> str: ...
@overload
def generate(run: Run | str | Path, prompt: Sequence[str | None], **options: Any) -> list[str]: ...
def generate(
    run: Run | str | Path, prompt: str | Sequence[str | None] | None = None, **options: Any
) -> str | list[str]:
    """The text that continues a prompt (None: a new document), or one text per prompt; prompts are not repeated.

        generate("runs/shakespeare", "To be", max_tokens=50, temperature=0.7, stop=["\\n"], seed=0)

    `options` are those of `Run.generate`. Raises RunError for a run none of whose tasks generates text.
    """
    return opened(run).generate(prompt, **options)


def opened(run: Run | str | Path) -> Run:
    """The run itself, or the one in the given folder, loaded."""
    return run if isinstance(run, Run) else load(run)
