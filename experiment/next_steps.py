"""The commands that usually follow a training, which `chopmix train` prints at its end."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from ..files.trust import NOTHING
from .settings.config import Config, modules_in


def as_argument(run: str | Path, config: Config) -> str:
    """Returns a run as a command in a shell takes it, for example `runs/a` or `'runs/my run' --trust mylab`. `run` is
    its folder or name. The module `mylab` is named if the configuration contains code from it."""
    modules = dict.fromkeys(module for module in modules_in(config.tree) if not NOTHING.allows(module))
    return " --trust ".join(map(shlex.quote, (str(run), *modules)))


def program() -> str:
    """Returns how the user calls chopmix: `uv run chopmix` if uv has started this process, else `chopmix`."""
    return "uv run chopmix" if os.environ.get("UV_RUN_RECURSION_DEPTH") else "chopmix"


def next_commands(config: Config) -> list[str]:
    """Returns three commands for a trained run: evaluate it, use it, look at it."""
    run = as_argument(config.out, config)
    dataset = config.dataset()
    split = " --split test" if "test" in dataset.splits else ""
    report = " --report" if config.on_samples else ""
    generating = [task for task in config.wiring.tasks.values() if task.needs.makes_items]
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
    commands = [f"chopmix evaluate {run}{split}{report}", use, f"chopmix inspect {run}"]
    return [program() + command.removeprefix("chopmix") for command in commands]
