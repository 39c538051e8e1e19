"""`chopmix play RUN --target 500`: a run that was trained on episodes plays in its environment."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ....commands.options.shared import add_checkpoint, load
from ....files.errors import UsageError
from ....files.printing import wide_console
from ..options import add_settings, seed_number, settings_of

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from ....experiment.run import Run
    from ..agent import Playing
    from ..planning import Planning

HELP = "let a run play in an environment, with a target return"
AFTER = "evaluate"
FIGURES = {"least": "min", "most": "max", "rewarded": "rewarded", "steps": "steps"}
"""Further figures of the printed table: the key in `figures_of`, and the header of the column."""


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument("--environment", metavar="ID", help="default: the environment of the training data")
    add_settings(command)
    command.add_argument("--target", action="append", default=[], type=float, metavar="R",
                         help="a target return; repeatable; default: evaluation.play.targets")  # fmt: skip
    command.add_argument("--episodes", type=int, default=100, metavar="N", help="per target return; default 100")
    command.add_argument("--temperature", type=float, metavar="T",
                         help="of sampled actions; 0: the most likely; default: as in evaluation.play")  # fmt: skip
    command.add_argument("--plan", metavar="P",
                         help="plan by beam search, as in beams:16,horizon:12; needs categories")  # fmt: skip
    command.add_argument("--against", action="append", default=[], metavar="RUN", dest="others",
                         help="another run for the same table, such as one that clones; repeatable")  # fmt: skip
    command.add_argument("--seed", type=seed_number, default=1, metavar="N", help="the seed of the episodes; default 1")
    command.add_argument("--together", type=int, default=64, metavar="N", help="episodes in parallel; default 64")
    command.add_argument(
        "--record", metavar="FILE", help="play the first episode first, and write it to this .gif file"
    )
    command.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> None:
    from pathlib import Path

    from ....files.printing import say_aside
    from ....files.writing import write_json
    from ..agent import data_figures, environment_of

    if options.record and Path(options.record).suffix != ".gif":
        raise UsageError(f"--record {options.record}: the name of the file must end in .gif")
    if options.environment and ":" in options.environment:  # a name on the command line is trusted
        options.trust = [*(options.trust or ()), options.environment.partition(":")[0]]
    loaded = load(options)
    playing = playing_of(options, loaded)
    (name, settings), data = environment_of(loaded, playing), data_figures(loaded)
    say_aside(f"{loaded.name}, in {name}")
    if options.record:
        record_first(Path(options.record), loaded, playing)
    rows = play(options, loaded, playing, data)
    wide_console().print(table_of(rows, data))
    record = {
        "environment": name,
        "settings": settings,
        "temperature": playing.temperature,
        "seed": playing.seed,
        "episodes": playing.episodes,
    }
    loaded.record({"played": rows, **record}, option="--json FILE")
    if options.json:
        write_json(Path(options.json), {"played": rows, "data": data, **record})


def record_first(file: Path, loaded: Run, playing: Playing) -> None:
    """Plays the first episode alone and writes its film, before the other episodes are played."""
    from ....files.printing import say_aside
    from ..agent import check_plays, episodes_of

    check_plays(loaded, playing)
    film, target = Film(), next(iter(playing.metric_targets.values()))
    (episode,) = episodes_of(loaded, playing, target, range(1), film.take)
    film.write(file)
    say_aside(f"{file}: the first episode, {len(episode.actions):,} steps, return {sum(episode.rewards):g}")


def play(
    options: argparse.Namespace, loaded: Run, playing: Playing, data: Mapping[str, float] | None
) -> list[dict[str, Any]]:
    """Returns rows with the figures of the run for each target return, with and without planning, and those of the runs
    of `--against`."""
    from dataclasses import replace

    from ....commands.options.progress import progress
    from ....files.printing import say_aside
    from ..agent import agent_kind, check_plays, episodes_of, figures_of, is_conditioned, target_warnings

    rows: list[dict[str, Any]] = []
    others = [load(argparse.Namespace(**vars(options) | {"run": folder})) for folder in options.others]

    def add_row(run: Run, target: float | None, plan: Planning | None) -> None:
        episodes = episodes_of(run, replace(playing, plan=plan), target, range(playing.episodes))
        row = {"who": run.name, "acts by": agent_kind(run), "plan": plan and str(plan), "target": target}
        rows.append(row | figures_of([*progress(episodes, playing.episodes, "episodes")]))

    for line in target_warnings(data, playing.targets):
        say_aside(line)
    conditioned = any(map(is_conditioned, [loaded, *others]))
    playing_of_run = [
        (run, playing if is_conditioned(run) or not conditioned else replace(playing, targets=()))
        for run in [loaded, *others]
    ]
    for run, settings in playing_of_run:  # check all runs before the first one plays
        check_plays(run, settings if run is loaded else replace(settings, plan=None))
    for run, settings in playing_of_run:
        for target in settings.metric_targets.values():
            for plan in [playing.plan, None] if playing.plan and run is loaded else [None]:
                add_row(run, target, plan)
    return rows


def playing_of(options: argparse.Namespace, loaded: Run) -> Playing:
    """Returns how the run plays. An option that is not set is taken from `evaluation.play` of the configuration. Raises
    UsageError if both `--plan` and `--temperature` are set."""
    from ..agent import Playing, configured
    from ..planning import Planning

    if options.plan and options.temperature is not None:
        raise UsageError("--temperature is for sampled actions; with --plan actions are not sampled. Use only one")
    defaults = configured(loaded.config)
    return Playing(
        environment=options.environment or defaults.environment,
        settings={**defaults.settings, **settings_of(options)},
        targets=tuple(options.target) or defaults.targets, seed=options.seed,
        temperature=defaults.temperature if options.temperature is None else options.temperature,
        episodes=options.episodes, together=options.together,
        plan=Planning.of(options.plan) if options.plan else defaults.plan,
    )  # fmt: skip


def table_of(rows: list[Mapping[str, Any]], data: Mapping[str, float] | None) -> Table:
    """Returns a table with one row per run, target return and plan. If `data` is not None, the last row contains the
    returns of the training data."""
    from rich.table import Table

    table = Table("run", "agent", "plan", "target", "return", *FIGURES.values())
    for row in rows:
        target = "" if row["target"] is None else f"{row['target']:g}"
        figures = f"{row['return']:.4g} ± {row['error']:.2g}", *(f"{row[name]:.4g}" for name in FIGURES)
        table.add_row(row["who"], row["acts by"], row["plan"] or "", target, *figures)
    if data:
        table.add_section()
        table.add_row(
            "its training data",
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
    """The rendered frames of an episode, with shape (h, w, 3). Each frame is shown for `seconds`."""

    frames: list[Any] = field(default_factory=list)
    seconds: float = 0.05

    def take(self, environment: Any) -> None:
        """Adds the current frame of an environment. The number of frames per second is `render_fps` of the
        environment's metadata, at most 50, because viewers slow down faster GIFs. Raises UsageError if the environment
        does not render an array (h, w, channels)."""
        import numpy as np

        frame, fps = environment.render(), environment.metadata.get("render_fps")
        if not isinstance(frame, np.ndarray) or frame.ndim != 3:
            raise UsageError(f"--record: the environment renders no images, but returns {type(frame).__name__}")
        if isinstance(fps, int | float) and fps > 0:
            self.seconds = max(1 / fps, 0.02)
        self.frames.append(frame)

    def write(self, path: Path) -> None:
        """Writes the frames to an animated GIF."""
        import torch

        from ....files.writing import write_bytes
        from ....tokenizers.media.files import animation_bytes

        pictures = [torch.from_numpy(frame.copy()).permute(2, 0, 1) for frame in self.frames]
        write_bytes(path, animation_bytes(pictures, seconds=self.seconds, last=1.0))
