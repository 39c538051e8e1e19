"""Recording: agents play, and their episodes become a folder of files. Stopped at any moment, it goes on at the part
that was not finished; what it writes depends on its options alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ...tokenizers.files.reading import DataError
from ...tokenizers.files.writing import make_folder, write_text
from .episodes import FORMAT, PART, About, Episode, Episodes, parts_in, read_about, read_episodes, write_part
from .making import Observed, begin, check_action, make_environment, observed, spaces_of
from .scripts import Agent, agent_of

ACTS, NOISE = 23, 24
"""Keys of random draws: of what an agent does, and of how often an episode's actions are random."""


def played(
    environment, make: Callable[..., Agent], seed: int, number: int, noise: tuple[float, float] = (0.0, 0.0)
) -> Episode:
    """One episode, a function of `seed` and its `number`: a share of the actions, drawn between the two of `noise`, is
    at random. Raises DataError for an action outside the space."""
    random = np.random.default_rng([seed, number, ACTS])
    share = np.random.default_rng([seed, number, NOISE]).uniform(*noise)
    start = int(random.integers(2**31))
    seen, space = begin(environment, start), spaces_of(environment).action
    agent, steps, actions, rewards = make(environment.unwrapped, random), [seen], [], []
    while True:
        action = agent.act(seen)
        action = agent.anything() if random.random() < share else action
        check_action(np.asarray(action), space)
        value, reward, ended, cut, _ = environment.step(action)
        actions.append(np.array(action))
        rewards.append(float(reward))
        if ended or cut:
            return episode_of(steps, actions, rewards, ended, start)
        seen = observed(value)
        steps.append(seen)


def episode_of(steps: list[Observed], actions: list, rewards: list[float], ended: bool, seed: int) -> Episode:
    """The steps of one episode, joined."""
    seen = {name: np.stack([each.arrays[name] for each in steps]) for name in steps[0].arrays}
    return Episode(seen, steps[0].texts, np.stack(list(map(np.asarray, actions))), np.array(rewards), ended, seed)


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


def begun(folder: Path, about: About) -> int:
    """How many parts of these episodes the folder holds already; a new folder gets its `episodes.json`. Raises
    DataError for a folder with others."""
    if (folder / "episodes.json").exists():
        there = read_about(folder)
        other = [name for name in About.model_fields if getattr(there, name) != getattr(about, name)]
        if set(other) - {"episodes"} or about.episodes < there.episodes:
            told = ", ".join(f"{name} {getattr(there, name)!r}" for name in other if name != "spaces")
            raise DataError(f"{folder} holds other episodes ({told}); choose another folder")
        if other and there.episodes % PART:
            raise DataError(f"{folder} holds {there.episodes} episodes, not whole hundreds: no more can be added")
    make_folder(folder)
    write_text(folder / "episodes.json", about.model_dump_json(indent=2) + "\n")
    return len(parts_in(folder, about.episodes))


def record(folder: Path, about: About, play: Callable[[int], Iterator[Episode]] | None = None) -> Iterator[int]:
    """Write the episodes that the folder lacks, and yield after each how many there are. `play` gives those from a
    number on; None: the agent that `about.policy` names plays. Raises DataError as `begun` and `agent_of` do."""
    first = begun(folder, about)
    episodes = (play or _by_script(about))(first * PART) if first * PART < about.episodes else iter(())
    yield min(first * PART, about.episodes)
    gathered: list[Episode] = []
    for number in range(first * PART, about.episodes):
        gathered.append(next(episodes))
        if len(gathered) == PART or number + 1 == about.episodes:
            write_part(folder, number // PART, gathered)
            gathered = []
        yield number + 1


def _by_script(about: About) -> Callable[[int], Iterator[Episode]]:
    make = agent_of(about.policy, about.environment)

    def play(first: int) -> Iterator[Episode]:
        environment = make_environment(about.environment, about.options)
        for number in range(first, about.episodes):
            yield played(environment, make, about.seed, number, about.noise)
        environment.close()

    return play


def recorded(folder: Path, about: About) -> Episodes:
    """The episodes of a folder, recorded first where any are missing."""
    for _ in record(folder, about):
        pass
    return read_episodes(folder)[1]
