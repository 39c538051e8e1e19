"""Recording: agents play, and their episodes become a folder of files. Stopped at any moment, it goes on with the parts
that were not finished; what it writes depends on its options alone, not on how many processes play."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from ....data.workers import deaf, workers_of
from ....files.reading import DataError
from ....files.writing import make_folder, sweep_partials, write_text
from ....tokenizers.encoding.code_file import counted
from .episodes import FORMAT, PART, About, Episode, Episodes, episode_of, part_of, read_about, read_episodes, write_part
from .making import ACTS, NOISE, begin, check_action, check_length, make_environment, observed, reward_of, spaces_of
from .scripts import Agent, GaveUp, agent_of

STARTS = 100
"""How many starts of one episode are tried if the agent gives up."""


def played(
    environment, make: Callable[..., Agent], seed: int, number: int, noise: tuple[float, float] = (0.0, 0.0)
) -> Episode:
    """One episode, a function of `seed` and its `number`. A share of its actions is random; the share is drawn between
    the two numbers of `noise`. If the agent gives up, the episode is played again from another start. Raises DataError
    for an action outside the space, and if the agent gives up from STARTS starts."""
    for given_up in range(STARTS):
        try:
            episode = _played_once(environment, make, [seed, number], given_up, noise)
            return episode._replace(given_up=given_up)
        except GaveUp as error:
            last = error
    raise DataError(f"episode {number}: the agent gave up from {STARTS} starts, the last time with {last}")


def _played_once(
    environment, make: Callable[..., Agent], key: list[int], attempt: int, noise: tuple[float, float]
) -> Episode:
    """One episode from the start number `attempt`; that with the number 0 is seeded as if there were no others."""
    random = np.random.default_rng([*key, ACTS, attempt])
    share = np.random.default_rng([*key, NOISE, attempt]).uniform(*noise)
    start = int(random.integers(2**31))
    seen, space = begin(environment, start), spaces_of(environment).action
    agent, steps, actions, rewards = make(environment.unwrapped, random), [seen], [], []
    while True:
        action = agent.act(seen)
        action = agent.last_action = agent.anything() if random.random() < share else action
        check_action(np.asarray(action), space)
        value, reward, ended, cut, _ = environment.step(action)
        actions.append(np.array(action))
        rewards.append(reward_of(reward))
        if ended or cut:
            return episode_of(steps, actions, rewards, bool(ended), start)
        check_length(len(actions))
        seen = observed(value)
        steps.append(seen)


def about_of(environment: str, options: dict, policy: str, noise: tuple[float, float], seed: int, n: int) -> About:
    """What a folder with these episodes says of itself. Raises DataError where the environment cannot be made, a share
    of noise lies outside 0 to 1, or there are no episodes."""
    if not 0 <= noise[0] <= noise[1] <= 1:
        raise DataError(f"noise must be two shares from 0 to 1, the smaller first, not {noise[0]:g} and {noise[1]:g}")
    if n < 1:
        raise DataError(f"episodes must be at least 1, not {n}")
    made = make_environment(environment, options)
    spaces = spaces_of(made)
    made.close()
    return About(format=FORMAT, environment=environment, options=options, policy=policy, noise=noise, seed=seed,
                 spaces=spaces, episodes=n)  # fmt: skip


def begin_folder(folder: Path, about: About) -> None:
    """Give a new folder its `episodes.json`. Raises DataError for a folder that holds other episodes."""
    if os.path.exists(folder / "episodes.json"):
        there = read_about(folder)
        other = [name for name in About.model_fields if getattr(there, name) != getattr(about, name)]
        if set(other) - {"episodes"} or about.episodes < there.episodes:
            told = ", ".join(f"{name} {getattr(there, name)!r}" for name in other)
            raise DataError(f"{folder} holds other episodes ({told}); choose another folder")
        if other and there.episodes % PART:
            raise DataError(f"{folder} holds {there.episodes} episodes, not whole hundreds: no more can be added")
    make_folder(folder)
    sweep_partials(folder / "episodes.json")
    for name in {each.name[1:].partition(".safetensors")[0] for each in folder.glob(".part-*")}:
        sweep_partials(folder / f"{name}.safetensors")  # of one that was killed while it wrote
    write_text(folder / "episodes.json", about.model_dump_json(indent=2) + "\n")


def numbers_of(part: int, episodes: int) -> range:
    """The numbers of the episodes in a part, of so many in all."""
    return range(part * PART, min((part + 1) * PART, episodes))


def record(
    folder: Path, about: About, play: Callable[[range], Iterator[Episode]] | None = None, workers: int = 1
) -> Iterator[int]:
    """Write the parts that the folder lacks, and yield after each episode how many there are; where several `workers`
    (processes) play, after each part. `play` gives the episodes of these numbers, for one worker; None: the agent that
    `about.policy` names plays. Raises DataError as `begin_folder` and `agent_of` do."""
    parts = range(-(-about.episodes // PART))
    missing = [part for part in parts if not os.path.exists(part_of(folder, part))]
    if missing and play is None:
        agent_of(about.policy, about.environment)  # before the folder begins
    begin_folder(folder, about)
    done = sum(len(numbers_of(part, about.episodes)) for part in parts if part not in missing)
    yield done
    if workers > 1 and missing:
        yield from _by_several(folder, about, missing, done, workers)
        return
    for part in missing:
        numbers, gathered = numbers_of(part, about.episodes), []
        for episode in play(numbers) if play else _by_script(about, numbers):
            gathered.append(episode)
            if len(gathered) < len(numbers):
                yield done + len(gathered)
        write_part(folder, part, gathered)
        done += len(gathered)
        yield done


def _by_script(about: About, numbers: range) -> Iterator[Episode]:
    """The episodes of these numbers, played by the agent that `about.policy` names."""
    make, environment = agent_of(about.policy, about.environment), make_environment(about.environment, about.options)
    for number in numbers:
        yield played(environment, make, about.seed, number, about.noise)
    environment.close()


def _write_played(folder: Path, about: About, part: int) -> int:
    """Play and write a part, and tell how many episodes it has: what one process does."""
    gathered = [*_by_script(about, numbers_of(part, about.episodes))]
    write_part(folder, part, gathered)
    return len(gathered)


def _by_several(folder: Path, about: About, parts: list[int], done: int, workers: int) -> Iterator[int]:
    """Write these parts by several processes, and yield after each how many episodes there are; stopped, the parts that
    are not begun are left."""
    pool = workers_of(min(workers, len(parts)))
    try:
        with deaf():
            played = [pool.submit(_write_played, folder, about, part) for part in parts]
        for future in as_completed(played):
            done += future.result()
            yield done
    except BrokenProcessPool:
        raise DataError("a process that plays ended early; is there enough memory for all of them?") from None
    finally:
        pool.shutdown(cancel_futures=True)


def recorded(folder: Path, about: About) -> Episodes:
    """The episodes of a folder. Those that are missing are recorded first; lines on standard error say so."""
    parts = range(-(-about.episodes // PART))
    if not all(os.path.exists(part_of(folder, part)) for part in parts):
        title = f"recording {about.episodes:,} episodes of {about.environment}, played by {about.policy}"
        print(f"{title} (once; many are recorded sooner by `chopmix record --workers N`)", file=sys.stderr)
        for _ in counted(record(folder, about), title):
            pass
        episodes = read_episodes(folder)[1]
        if said := about_given_up(episodes):
            print(said, file=sys.stderr)
        return episodes
    return read_episodes(folder)[1]


def about_given_up(episodes: Episodes) -> str:
    """A sentence about the starts that the agent gave up on; empty if there are none."""
    count = int(episodes.given_up.sum())
    starts = f"from {count:,} of {count + len(episodes):,} starts the agent gave up"
    return f"{starts}; each of these episodes was played from another start" if count else ""
