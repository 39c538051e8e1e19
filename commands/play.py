"""`chopmix play RUN --target 500`: a run that was trained on episodes acts in its environment."""

from __future__ import annotations

import argparse
from typing import Any

from .options.shared import add_checkpoint, load, wide_console

HELP = "let a run act in an environment, for a return that is asked for"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument("--environment", metavar="ID", help="default: that of the run's data")
    command.add_argument("--target", action="append", default=[], type=float, metavar="R",
                         help="the return that is asked for; may be given several times")  # fmt: skip
    command.add_argument("--episodes", type=int, default=100, metavar="N", help="for each target; default 100")
    command.add_argument("--temperature", type=float, metavar="T",
                         help="of the drawn actions, 0: the likeliest; default: as evaluation.play has it, else 1")  # fmt: skip
    command.add_argument("--seed", type=int, default=1, metavar="N", help="of the episodes; default 1")
    command.add_argument("--together", type=int, default=64, metavar="N", help="episodes side by side; default 64")
    command.add_argument("--record", metavar="FILE", help="write the first episode there, a .gif")
    command.add_argument("--json", metavar="FILE", help="also write the figures there")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> None:
    from pathlib import Path

    from rich.table import Table

    from ..experiment.folder.reading import RunError, say_aside
    from ..experiment.opening.played import data_figures, environment_of, episodes_of, figures_of
    from ..inference.rollout import Playing
    from ..tokenizers.files.writing import write_bytes, write_json
    from ..tokenizers.media.files import animation_bytes
    from .options.progress import progress

    if options.record and Path(options.record).suffix != ".gif":
        raise RunError(f"--record {options.record}: an episode is written as .gif")
    loaded = load(options)
    known = loaded.config.evaluation.play
    temperature = (known.temperature if known else 1.0) if options.temperature is None else options.temperature
    how = Playing(environment=options.environment or (known.environment if known else None), seed=options.seed,
                  temperature=temperature, together=options.together, episodes=options.episodes)  # fmt: skip
    name, data = environment_of(loaded, how), data_figures(loaded)
    say_aside(f"{loaded.name}, in {name}")
    table, found, frames = Table("asked", "return", "least", "most", "rewarded", "steps"), [], []
    for target in options.target or [None]:
        if target is not None and data and target > data["best"]:
            say_aside(
                f"{target:g} is more than any episode of the data reached ({data['best']:g}): nobody knows the way"
            )
        watch = (
            (lambda environment: frames.append(as_picture(environment.render())))
            if options.record and not frames
            else None
        )
        played = progress(
            episodes_of(loaded, how, target, range(options.episodes), watch), options.episodes, "episodes"
        )
        figures = figures_of(list(played))
        found.append({"target": target, **figures})
        shown = [f"{figures[key]:.4g}" for key in ("least", "most", "rewarded", "steps")]
        table.add_row(
            "" if target is None else f"{target:g}", f"{figures['return']:.4g} ± {figures['error']:.2g}", *shown
        )
    wide_console().print(table)
    if data:
        print(f"the data: {data['mean']:.4g} on average, {data['best']:.4g} at best")
    if options.record:
        write_bytes(Path(options.record), animation_bytes(frames, seconds=0.05, last=1.0))
    record = {"environment": name, "temperature": how.temperature, "seed": how.seed, "episodes": options.episodes}
    loaded.record({"played": found, **record})
    if options.json:
        write_json(Path(options.json), {"played": found, "data": data, **record})


def as_picture(frame: Any) -> Any:
    """What an environment renders, (h, w, 3), as a picture (c, h, w)."""
    import torch

    return torch.from_numpy(frame.copy()).permute(2, 0, 1)
