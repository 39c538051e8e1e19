"""The commands that usually follow a training, which `chopmix train` prints at its end."""

from __future__ import annotations

import shlex

from .settings.config import Config


def next_commands(config: Config) -> list[str]:
    """Returns three commands for a trained run: evaluate it, use it, look at it."""
    run = shlex.quote(str(config.out))
    dataset = config.dataset()
    split = " --split test" if "test" in dataset.splits else ""
    report = " --report" if config.on_samples else ""
    generating = [task for task in config.wiring.tasks.values() if task.needs.generates or task.needs.refines]
    if command := dataset.command(run, {*config.wiring.columns.values()}):
        use = command
    elif not config.on_samples:
        use = f"chopmix generate {run} --prompt '...'" if generating else f"chopmix inspect {run}"
    elif len(generating) == len(config.wiring.tasks) and not config.wiring.encoded:
        target = generating[0].target
        inputs = [name for name in config.inputs if name != target and name not in config.wiring.made]
        use = " ".join([f"chopmix generate {run}", *(f"--input {name}=..." for name in inputs)])
    else:
        use = f"chopmix predict {run}{split or ' --split val'} --output answers.csv"
    return [f"chopmix evaluate {run}{split}{report}", use, f"chopmix inspect {run}"]
