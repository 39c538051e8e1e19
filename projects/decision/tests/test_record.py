"""Recording: what an agent is shown while it plays, and what happens if it gives up."""

import errno
import socket
import subprocess
import sys

import numpy as np
import pytest
from chopmix.commands.cli import main
from chopmix.files.reading import DataError
from chopmix.projects.decision.environments.episodes import read_episodes
from chopmix.projects.decision.environments.making import ACTS, make_environment
from chopmix.projects.decision.environments.record import about_of, played, record
from chopmix.projects.decision.environments.scripts import GaveUp, Random

pytest.importorskip("gymnasium")


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_an_agent_gets_the_action_that_was_taken(noise):
    """Also where a random action was taken instead of its own."""
    seen = []

    class Keeps(Random):
        def act(self, observation):
            seen.append(self.last_action)
            return 0

    episode = played(make_environment("chopmix/KeyToDoor-v0"), Keeps, 0, 0, (noise, noise))
    assert seen == [None, *episode.actions[:-1]]
    assert (episode.actions != 0).any() == (noise > 0)


def test_the_bot_of_babyai_gets_the_action_that_was_taken(monkeypatch):
    pytest.importorskip("minigrid")
    from chopmix.projects.decision.environments.scripts import BabyBot
    from minigrid.utils.baby_ai_bot import BabyAIBot

    told, replan = [], BabyAIBot.replan
    monkeypatch.setattr(BabyAIBot, "replan", lambda self, taken=None: told.append(taken) or replan(self, taken))
    episode = played(make_environment("BabyAI-GoToRedBallGrey-v0"), BabyBot, 0, 3, (0.5, 0.5))
    assert told == [None, *episode.actions[:-1]]


class GivesUp(Random):
    """Gives up at the second step of two of three starts."""

    def act(self, seen):
        if self.last_action is not None and self.random.integers(3):
            raise GaveUp("no way on")
        return super().act(seen)


def test_an_episode_that_the_agent_gives_up_is_played_from_another_start(monkeypatch):
    """Which is a function of the seed and the number, too; and how many starts were given up is kept."""
    make = lambda *arguments: (
        GivesUp(*arguments) if started.append(arguments) or len(started) % 3 else Random(*arguments)
    )
    started: list = []
    environment = make_environment("chopmix/KeyToDoor-v0")
    first, again = (played(environment, make, 0, number) for number in (5, 5))
    assert first.given_up == again.given_up == 2 and (first.actions == again.actions).all()
    plain = played(environment, Random, 0, 5)
    assert plain.given_up == 0 and plain.seed != first.seed == again.seed
    assert plain.seed == np.random.default_rng([0, 5, ACTS]).integers(2**31), "recordings of earlier versions go on"


def test_an_agent_that_always_gives_up_ends_the_recording():
    class Never(Random):
        def act(self, seen):
            raise GaveUp("it is dark")

    with pytest.raises(DataError, match="episode 4: the agent gave up from 100 starts, the last time with it is dark"):
        played(make_environment("chopmix/KeyToDoor-v0"), Never, 0, 4)


GIVES_UP = """
from chopmix.projects.decision.environments.scripts import GaveUp, Random
class GivesUp(Random):
    def act(self, seen):
        if self.last_action is None and self.random.integers(2):
            raise GaveUp("no way on")
        return super().act(seen)
"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.system
def test_starts_that_were_given_up_are_counted(tmp_path, monkeypatch, capsys, workers):
    (tmp_path / "giving.py").write_text(GIVES_UP)
    monkeypatch.chdir(tmp_path)
    options = ["--policy", "giving:GivesUp", "--episodes", "120", "--workers", str(workers), "--out", "out"]
    assert not main(["record", "chopmix/KeyToDoor-v0", *options])
    episodes = read_episodes(tmp_path / "out")[1]
    count = int(episodes.given_up.sum())
    assert len(episodes) == 120 and count > 60
    told = (
        f"from {count} of {120 + count} starts the agent gave up; each of these episodes was played from another start"
    )
    assert told in " ".join("".join(capsys.readouterr()).split())


def test_temporary_files_of_a_killed_recording_are_removed(tmp_path):
    about = about_of("chopmix/KeyToDoor-v0", {}, "random", (0.0, 0.0), 0, 3)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = [tmp_path / f".{name}.{socket.gethostname()}.00000000.{ended.pid}"
            for name in ("episodes.json", "part-00000.safetensors")]  # fmt: skip
    for file in left:
        file.write_text("half")
    for _ in record(tmp_path, about):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == ["episodes.json", "part-00000.safetensors"]


@pytest.mark.parametrize("error", ["No space left on device", "Input/output error"])
def test_a_part_that_cannot_be_written_is_named(tmp_path, monkeypatch, error):
    def fails(*_):
        raise OSError(getattr(errno, {"N": "ENOSPC", "I": "EIO"}[error[0]]), error)

    monkeypatch.setattr("chopmix.projects.decision.environments.episodes.write_tensors", fails)
    about = about_of("chopmix/KeyToDoor-v0", {}, "random", (0.0, 0.0), 0, 3)
    with pytest.raises(OSError, match=rf"part-00000\.safetensors cannot be written: {error}"):
        for _ in record(tmp_path, about):
            pass
    assert [file.name for file in tmp_path.iterdir()] == ["episodes.json"]
