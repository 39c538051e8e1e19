"""`chopmix record ENVIRONMENT --policy script --out DIR`: record episodes that an agent plays."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ....commands.options.shared import add_trust
from ....files.errors import UsageError
from ..options import add_settings, seed_number, settings_of

if TYPE_CHECKING:
    from ....experiment.run import Run
    from ..recording.episodes import Episode

HELP = "record episodes that a script, a bot or a run plays"
AFTER = "evaluate"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("environment", metavar="ENVIRONMENT", help="a gymnasium environment: CartPole-v1")
    add_settings(command)
    command.add_argument("--policy", default="random", metavar="P",
                         help="random (default), script, bot, package.module:name, or a run's folder")  # fmt: skip
    command.add_argument("--episodes", type=int, default=1000, metavar="N", help="default 1,000")
    command.add_argument("--noise", type=float, nargs=2, default=(0.0, 0.0), metavar=("LOW", "HIGH"),
                         help="the share of random actions of an episode is drawn between these two")  # fmt: skip
    command.add_argument(
        "--target",
        type=float,
        metavar="R",
        help="the target return of a run; its temperature is evaluation.play.temperature",
    )
    command.add_argument("--seed", type=seed_number, default=0, metavar="N")
    command.add_argument("--workers", type=int, default=1, metavar="N",
                         help="processes in which scripts play; default 1; the episodes are the same")  # fmt: skip
    add_trust(command)
    command.add_argument("--out", required=True, metavar="DIR", help="the folder; an incomplete recording is continued")


def run(options: argparse.Namespace) -> None:
    from pathlib import Path

    from ....commands.options.progress import progress
    from ....experiment.run import load_run
    from ....files.printing import say_aside
    from ..recording.episodes import read_episodes
    from ..recording.record import about_of, given_up_message, record

    settings, noise, policy = settings_of(options), tuple(options.noise), options.policy
    is_run = os.path.isfile(os.path.join(policy, "config.yaml"))  # False for a text that cannot be a file name
    loaded = load_run(policy, trust=options.trust, remote=options.remote) if is_run else None
    if loaded is None and options.target is not None:
        raise UsageError(f"--target needs a run as --policy; {policy!r} is not the folder of a run")
    if options.workers < 1 or (loaded is not None and options.workers > 1):
        reason = "a run plays all episodes in one process" if loaded else "at least one process is needed"
        raise UsageError(f"--workers {options.workers}: {reason}")
    if loaded is not None and any(noise):
        raise UsageError(f"--noise is for scripts; {policy} is a run, which samples the actions itself")
    play = None
    if loaded is not None:
        play, settings = player(options, loaded, settings)
        policy = f"{policy}, step {loaded.step}, asked for {options.target}"
    about = about_of(options.environment, settings, policy, noise, options.seed, options.episodes)
    recording = record(Path(options.out), about, play, options.workers)
    try:
        for _ in progress(recording, options.episodes, "episodes", counted=True):
            pass
    except KeyboardInterrupt:
        say_aside(f"{options.out} contains every finished file of 100 episodes; the same command continues")
        raise
    episodes = read_episodes(Path(options.out))[1]
    values = episodes.values
    returns = f"returns {values.min():g} to {values.max():g}, mean {values.mean():.4g}"
    print(f"{options.out}: {len(values):,} episodes, {returns}")
    if message := given_up_message(episodes):
        print(message)


def player(
    options: argparse.Namespace, loaded: Run, settings: dict[str, Any]
) -> tuple[Callable[[range], Iterator[Episode]], dict[str, Any]]:
    """Returns a function that plays the episodes in a range of numbers, and the keyword arguments of the environment.
    If the environment is that of the training data, the keyword arguments include those of the data."""
    from ....files.printing import say_aside
    from ..agent import Playing, check_plays, configured, data_figures, environment_of, episodes_of, target_warnings
    from ..recording.making import ACTS

    defaults = configured(loaded.config)
    playing = Playing(environment=options.environment, settings=settings, seed=options.seed,
                      temperature=defaults.temperature, plan=defaults.plan,
                      targets=() if options.target is None else (options.target,))  # fmt: skip
    check_plays(loaded, playing)
    for line in target_warnings(data_figures(loaded), playing.targets):
        say_aside(line)
    settings = dict(environment_of(loaded, playing)[1])
    return lambda numbers: episodes_of(loaded, playing, options.target, numbers, stream=ACTS), settings
