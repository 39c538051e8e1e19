"""`chopmix record ENVIRONMENT --policy script --out DIR`: agents play, and what they did becomes data."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ....commands.options.shared import add_trust
from ..options import add_settings, settings_of, whole_number

if TYPE_CHECKING:
    from ....experiment.run import Run
    from ..environments.episodes import Episode

HELP = "record episodes of an environment, played by a script, a bot or a run"
AFTER = "evaluate"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("environment", metavar="ENVIRONMENT", help="a name that gymnasium knows: CartPole-v1")
    add_settings(command)
    command.add_argument("--policy", default="random", metavar="P",
                         help="random (the default), script, bot, package.module:Class, or a run's folder")  # fmt: skip
    command.add_argument("--episodes", type=int, default=1000, metavar="N", help="how many in all; default 1,000")
    command.add_argument("--noise", type=float, nargs=2, default=(0.0, 0.0), metavar=("LOW", "HIGH"),
                         help="the share of random actions of an episode, drawn between these two")  # fmt: skip
    command.add_argument(
        "--target",
        type=float,
        metavar="R",
        help="the return that a run is asked for; it acts at the temperature that its evaluation.play says",
    )
    command.add_argument("--seed", type=whole_number, default=0, metavar="N")
    command.add_argument("--workers", type=int, default=1, metavar="N",
                         help="processes in which scripts play; default 1; what is recorded is the same")  # fmt: skip
    add_trust(command)
    command.add_argument("--out", required=True, metavar="DIR", help="the folder; one that is begun is finished")


def run(options: argparse.Namespace) -> None:
    from pathlib import Path

    from ....commands.options.progress import progress
    from ....experiment.run import load_run
    from ....experiment.run_folder import RunError, say_aside
    from ..environments.episodes import read_episodes
    from ..environments.record import about_given_up, about_of, record

    settings, noise, policy = settings_of(options), tuple(options.noise), options.policy
    is_run = os.path.isfile(os.path.join(policy, "config.yaml"))  # False for what can be no name of a file
    loaded = load_run(policy, trust=options.trust, remote=options.remote) if is_run else None
    if loaded is None and options.target is not None:
        raise RunError(f"--target is the return that a run is asked for; {policy!r} is none")
    if options.workers < 1 or (loaded is not None and options.workers > 1):
        told = "a run plays its episodes side by side in one process" if loaded else "at least one must play"
        raise RunError(f"--workers {options.workers}: {told}")
    if loaded is not None and any(noise):
        raise RunError(f"--noise is for scripts: {policy} is a run, which draws its actions itself")
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
        say_aside(f"{options.out} keeps the hundreds that are finished; the same command goes on from there")
        raise
    episodes = read_episodes(Path(options.out))[1]
    values = episodes.values
    told = f"returns {values.min():g} to {values.max():g}, mean {values.mean():.4g}"
    print(f"{options.out}: {len(values):,} episodes, {told}")
    if said := about_given_up(episodes):
        print(said)


def player(
    options: argparse.Namespace, loaded: Run, settings: dict[str, Any]
) -> tuple[Callable[[range], Iterator[Episode]], dict[str, Any]]:
    """A function that plays the episodes of some numbers with a run, and the settings of the environment, with those of
    its data if they are of this environment."""
    from ....experiment.run_folder import say_aside
    from ..agent import Playing, beyond, check_plays, configured, data_figures, environment_of, episodes_of
    from ..environments.making import ACTS

    known = configured(loaded.config)
    how = Playing(environment=options.environment, settings=settings, seed=options.seed,
                  temperature=known.temperature, plan=known.plan,
                  targets=() if options.target is None else (options.target,))  # fmt: skip
    check_plays(loaded, how)
    for line in beyond(data_figures(loaded), how.targets):
        say_aside(line)
    settings = dict(environment_of(loaded, how)[1])
    return lambda numbers: episodes_of(loaded, how, options.target, numbers, stream=ACTS), settings
