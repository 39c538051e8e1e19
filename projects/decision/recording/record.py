"""Recording of episodes. Agents play episodes, which are written to the files (parts) of a folder. An interrupted
recording continues with the missing parts. The files depend only on the options, not on the number of processes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ....data.workers import deaf, workers_of
from ....files.progress import counted
from ....files.reading import DataError
from ....files.writing import make_folder, sweep_partials, write_text
from .episodes import FORMAT, PART, About, Episode, Episodes, episode_of, part_of, read_about, read_episodes, write_part
from .making import ACTS, NOISE, check_action, check_length, make_environment, observed, reset, reward_of, spaces_of
from .scripts import Agent, GaveUp, agent_of

STARTS = 100
"""The maximum number of start states that are tried for an episode if the agent gives up."""


def play_episode(
    environment, make_agent: Callable[..., Agent], seed: int, number: int, noise: tuple[float, float] = (0.0, 0.0)
) -> Episode:
    """Plays and returns one episode, which depends only on `seed` and on `number`, the number of the episode. Some of
    its actions are random: their share is drawn between the two numbers of `noise`. If the agent gives up, the episode
    is played from another start state. Raises DataError if an action is outside the space, or if the agent gives up on
    STARTS start states."""
    for given_up in range(STARTS):
        try:
            episode = _play_once(environment, make_agent, [seed, number], given_up, noise)
            return episode._replace(given_up=given_up)
        except GaveUp as error:
            last = error
    raise DataError(f"episode {number}: the agent gave up on {STARTS} start states; the last reason is: {last}")


@contextmanager
def policy_errors() -> Iterator[None]:
    """Returns a context for the code of a policy. Any exception except GaveUp and DataError becomes a DataError that
    names the line in which it was raised."""
    try:
        yield
    except (GaveUp, DataError):
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise DataError(
            f"the policy failed: {type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})"
        ) from error


def _play_once(
    environment, make_agent: Callable[..., Agent], key: list[int], attempt: int, noise: tuple[float, float]
) -> Episode:
    """Plays and returns one episode from the start state number `attempt`. `key` is [seed, number of the episode]. With
    `attempt` 0 the random numbers are those of earlier versions, so earlier recordings can be continued."""
    random = np.random.default_rng([*key, ACTS, attempt])
    share = np.random.default_rng([*key, NOISE, attempt]).uniform(*noise)
    start = int(random.integers(2**31))
    observation, space = reset(environment, start), spaces_of(environment).action
    with policy_errors():
        agent = make_agent(environment.unwrapped, random)
    steps, actions, rewards = [observation], [], []
    while True:
        with policy_errors():
            action = agent.act(observation)
        action = agent.last_action = agent.random_action() if random.random() < share else action
        check_action(np.asarray(action), space)
        value, reward, ended, cut, _ = environment.step(action)
        actions.append(np.array(action))
        rewards.append(reward_of(reward))
        if ended or cut:
            return episode_of(steps, actions, rewards, bool(ended), start)
        check_length(len(actions))
        observation = observed(value)
        steps.append(observation)


def about_of(environment: str, options: dict, policy: str, noise: tuple[float, float], seed: int, n: int) -> About:
    """Returns the content of `episodes.json` for a recording of `n` episodes. Raises DataError if the environment
    cannot be created, if `noise` is not two numbers from 0 to 1 in ascending order, or if `n` is less than 1."""
    if not 0 <= noise[0] <= noise[1] <= 1:
        raise DataError(f"noise must be two numbers from 0 to 1, the smaller first, not {noise[0]:g} and {noise[1]:g}")
    if n < 1:
        raise DataError(f"episodes must be at least 1, not {n}")
    instance = make_environment(environment, options)
    spaces = spaces_of(instance)
    instance.close()
    return About(format=FORMAT, environment=environment, options=options, policy=policy, noise=noise, seed=seed,
                 spaces=spaces, episodes=n)  # fmt: skip


def begin_folder(folder: Path, about: About) -> None:
    """Writes `episodes.json` to the folder. Raises DataError if the folder contains a recording with other options or
    with more episodes, or if episodes must be added and the last part of the recording has fewer than PART episodes."""
    if os.path.exists(folder / "episodes.json"):
        existing = read_about(folder)
        different = [name for name in About.model_fields if getattr(existing, name) != getattr(about, name)]
        if set(different) - {"episodes"} or about.episodes < existing.episodes:
            values = ", ".join(f"{name} {getattr(existing, name)!r}" for name in different)
            raise DataError(f"{folder} contains other episodes ({values}); choose another folder")
        if different and existing.episodes % PART:
            count = f"{existing.episodes} episodes, which is no multiple of {PART}"
            raise DataError(f"{folder} contains {count}: no more can be added")
    make_folder(folder)
    sweep_partials(folder / "episodes.json")
    for name in {file.name[1:].partition(".safetensors")[0] for file in folder.glob(".part-*")}:
        sweep_partials(folder / f"{name}.safetensors")  # remains of a process that was killed while writing
    write_text(folder / "episodes.json", about.model_dump_json(indent=2) + "\n")


def numbers_of(part: int, episodes: int) -> range:
    """Returns the numbers of the episodes in the part `part` of a recording of `episodes` episodes."""
    return range(part * PART, min((part + 1) * PART, episodes))


def record(
    folder: Path, about: About, play: Callable[[range], Iterator[Episode]] | None = None, workers: int = 1
) -> Iterator[int]:
    """Writes the missing parts of a folder. Yields the number of episodes so far, at the beginning and after each
    episode. With more than one worker process (`workers`), yields it after each part. `play` is a function that plays
    the episodes with the given numbers, in this process. None: the agent that `about.policy` names plays. Raises
    DataError in the cases of `begin_folder` and `agent_of`, and if an episode cannot be played."""
    parts = range(-(-about.episodes // PART))
    missing = [part for part in parts if not os.path.exists(part_of(folder, part))]
    if missing and play is None:
        agent_of(about.policy, about.environment)  # an unknown policy is an error before the folder is created
    begin_folder(folder, about)
    count = sum(len(numbers_of(part, about.episodes)) for part in parts if part not in missing)
    yield count
    if workers > 1 and missing:
        yield from _record_in_parallel(folder, about, missing, count, workers)
        return
    for part in missing:
        numbers, episodes = numbers_of(part, about.episodes), []
        for episode in play(numbers) if play else _play_by_policy(about, numbers):
            episodes.append(episode)
            if len(episodes) < len(numbers):
                yield count + len(episodes)
        write_part(folder, part, episodes)
        count += len(episodes)
        yield count


def _play_by_policy(about: About, numbers: range) -> Iterator[Episode]:
    """Plays the episodes with these numbers with the agent that `about.policy` names, and yields the episodes."""
    agent, environment = agent_of(about.policy, about.environment), make_environment(about.environment, about.options)
    for number in numbers:
        yield play_episode(environment, agent, about.seed, number, about.noise)
    environment.close()


def _record_part(folder: Path, about: About, part: int) -> int:
    """Plays and writes the part `part` in a worker process. Returns the number of episodes in this part."""
    episodes = [*_play_by_policy(about, numbers_of(part, about.episodes))]
    write_part(folder, part, episodes)
    return len(episodes)


def _record_in_parallel(folder: Path, about: About, parts: list[int], count: int, workers: int) -> Iterator[int]:
    """Writes the parts `parts` in several processes. After each part, yields the total number of episodes; it includes
    the `count` episodes that existed before. If the iteration is stopped, running parts are completed, and the other
    parts are not started."""
    pool = workers_of(min(workers, len(parts)))
    try:
        with deaf():
            futures = [pool.submit(_record_part, folder, about, part) for part in parts]
        for future in as_completed(futures):
            count += future.result()
            yield count
    except BrokenProcessPool:
        raise DataError("a worker process ended unexpectedly; use fewer workers if memory is short") from None
    finally:
        pool.shutdown(cancel_futures=True)


def recorded(folder: Path, about: About) -> Episodes:
    """Returns the episodes of a folder. Missing episodes are recorded first, with messages on standard error."""
    parts = range(-(-about.episodes // PART))
    if not all(os.path.exists(part_of(folder, part)) for part in parts):
        title = f"recording {about.episodes:,} episodes of {about.environment}, played by {about.policy}"
        print(f"{title} (only once; `chopmix record --workers N` records in parallel)", file=sys.stderr)
        for _ in counted(record(folder, about), title):
            pass
        episodes = read_episodes(folder)[1]
        if message := given_up_message(episodes):
            print(message, file=sys.stderr)
        return episodes
    return read_episodes(folder)[1]


def given_up_message(episodes: Episodes) -> str:
    """Returns a sentence about the number of start states on which the agent gave up. The text is empty if the number
    is 0."""
    count = int(episodes.given_up.sum())
    starts = f"the agent gave up on {count:,} of {count + len(episodes):,} start states"
    return f"{starts}; these episodes were played from other start states" if count else ""
