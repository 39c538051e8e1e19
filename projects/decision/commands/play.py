"""`chopmix play RUN --target 500`: a run that was trained on episodes acts in its environment."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ....commands.options.shared import add_checkpoint, load, wide_console
from ..options import add_settings, settings_of, whole_number

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from ....experiment.run import Run
    from ..agent import Playing
    from ..planning import Planning

HELP = "let a run act in an environment, for a return that is asked for"
AFTER = "evaluate"
SHOWN = ("least", "most", "rewarded", "steps")


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument("--environment", metavar="ID", help="default: that of the run's data")
    add_settings(command)
    command.add_argument("--target", action="append", default=[], type=float, metavar="R",
                         help="a return that is asked for; repeatable; default: evaluation.play's")  # fmt: skip
    command.add_argument("--episodes", type=int, default=100, metavar="N", help="for each target; default 100")
    command.add_argument("--temperature", type=float, metavar="T",
                         help="of drawn actions, 0: the likeliest; default: as evaluation.play says")  # fmt: skip
    command.add_argument("--plan", metavar="P",
                         help="imagine what would follow: beams:16,horizon:12 (all must be ids)")  # fmt: skip
    command.add_argument("--beside", action="append", default=[], metavar="RUN",
                         help="another run, such as one that clones, in the same table; repeatable")  # fmt: skip
    command.add_argument("--seed", type=whole_number, default=1, metavar="N", help="of the episodes; default 1")
    command.add_argument("--together", type=int, default=64, metavar="N", help="episodes side by side; default 64")
    command.add_argument("--record", metavar="FILE", help="write the first episode there, a .gif")
    command.add_argument("--json", metavar="FILE", help="also write the figures there")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> None:
    from pathlib import Path

    from ....experiment.run_folder import RunError, say_aside
    from ....files.writing import write_json
    from ..agent import data_figures, environment_of

    if options.record and Path(options.record).suffix != ".gif":
        raise RunError(f"--record {options.record}: an episode is written as .gif")
    loaded = load(options)
    how = asked(options, loaded)
    (name, settings), data = environment_of(loaded, how), data_figures(loaded)
    say_aside(f"{loaded.name}, in {name}")
    found, film = play(options, loaded, how, data)
    wide_console().print(table_of(found, data))
    if options.record:
        film.write(Path(options.record))
    record = {
        "environment": name,
        "settings": settings,
        "temperature": how.temperature,
        "seed": how.seed,
        "episodes": how.episodes,
    }
    loaded.record({"played": found, **record}, option="--json FILE")
    if options.json:
        write_json(Path(options.json), {"played": found, "data": data, **record})


def play(
    options: argparse.Namespace, loaded: Run, how: Playing, data: Mapping[str, float] | None
) -> tuple[list[dict[str, Any]], Film]:  # fmt: skip
    """The figures of the run for each return that is asked for, with and without planning, and of the runs of
    `--beside`; and a film of the first episode, empty without `--record`."""
    from dataclasses import replace

    from ....commands.options.progress import progress
    from ....experiment.run_folder import say_aside
    from ..agent import acts_by, beyond, check_plays, episodes_of, figures_of, is_told

    found, film = [], Film()
    others = [load(argparse.Namespace(**vars(options) | {"run": folder})) for folder in options.beside]

    def one(run: Run, target: float | None, plan: Planning | None) -> None:
        watch = film.take if options.record and not film.frames else None
        played = episodes_of(run, replace(how, plan=plan), target, range(how.episodes), watch)
        row = {"who": run.name, "acts by": acts_by(run), "plan": plan and str(plan), "target": target}
        found.append(row | figures_of([*progress(played, how.episodes, "episodes")]))

    for line in beyond(data, how.targets):
        say_aside(line)
    some_told = any(map(is_told, [loaded, *others]))
    asked_of = [
        (each, how if is_told(each) or not some_told else replace(how, targets=())) for each in [loaded, *others]
    ]
    for each, own in asked_of:  # all of them before the first plays
        check_plays(each, own if each is loaded else replace(own, plan=None))
    for each, own in asked_of:
        for target in own.asked.values():
            for plan in [how.plan, None] if how.plan and each is loaded else [None]:
                one(each, target, plan)
    return found, film


def asked(options: argparse.Namespace, loaded: Run) -> Playing:
    """How the run plays: as the options say, else as its configuration does."""
    from ....experiment.run_folder import RunError
    from ..agent import Playing, configured
    from ..planning import Planning

    if options.plan and options.temperature is not None:
        raise RunError("--temperature is of actions that are drawn, and --plan takes those of the best way: give one")
    known = configured(loaded.config)
    return Playing(
        environment=options.environment or known.environment, settings={**known.settings, **settings_of(options)},
        targets=tuple(options.target) or known.targets, seed=options.seed,
        temperature=known.temperature if options.temperature is None else options.temperature,
        episodes=options.episodes, together=options.together,
        plan=Planning.of(options.plan) if options.plan else known.plan,
    )  # fmt: skip


def table_of(found: list[Mapping[str, Any]], data: Mapping[str, float] | None) -> Table:
    """The figures of each run and each return that was asked for, and below them those of the data, as a table."""
    from rich.table import Table

    table = Table("who", "acts by", "plan", "asked", "return", *SHOWN)
    for row in found:
        target = "" if row["target"] is None else f"{row['target']:g}"
        told = f"{row['return']:.4g} ± {row['error']:.2g}", *(f"{row[name]:.4g}" for name in SHOWN)
        table.add_row(row["who"], row["acts by"], row["plan"] or "", target, *told)
    if data:
        table.add_section()
        table.add_row(
            "the data it was trained on",
            "",
            "",
            "",
            f"{data['mean']:.4g}",
            f"{data['worst']:.4g}",
            f"{data['best']:.4g}",
        )
    return table


@dataclass
class Film:
    """What an environment draws of itself: frames (h, w, 3), each shown for so many `seconds`."""

    frames: list[Any] = field(default_factory=list)
    seconds: float = 0.05

    def take(self, game: Any) -> None:
        """Add what an environment draws now, at the speed of its metadata (`render_fps`, at most 50 frames a second: a
        GIF is not shown faster). Raises RunError if it draws nothing."""
        import numpy as np

        from ....experiment.run_folder import RunError

        frame, fps = game.render(), game.metadata.get("render_fps")
        if not isinstance(frame, np.ndarray) or frame.ndim != 3:
            raise RunError(f"--record: the environment draws no pictures of itself, but gives {type(frame).__name__}")
        if isinstance(fps, int | float) and fps > 0:
            self.seconds = max(1 / fps, 0.02)
        self.frames.append(frame)

    def write(self, path: Path) -> None:
        """Write the frames as an animation."""
        import torch

        from ....files.writing import write_bytes
        from ....tokenizers.media.files import animation_bytes

        pictures = [torch.from_numpy(frame.copy()).permute(2, 0, 1) for frame in self.frames]
        write_bytes(path, animation_bytes(pictures, seconds=self.seconds, last=1.0))
