"""Recording: an agent gets its preceding action, and an agent may give up an episode."""

import errno
import socket
import subprocess
import sys

import numpy as np
import pytest
from chopmix.commands.cli import main
from chopmix.files.reading import DataError
from chopmix.projects.decision.recording.episodes import read_episodes
from chopmix.projects.decision.recording.making import ACTS, make_environment
from chopmix.projects.decision.recording.record import about_of, play_episode, record
from chopmix.projects.decision.recording.scripts import GaveUp, Random

pytest.importorskip("gymnasium")


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_an_agent_gets_the_preceding_action(noise):
    """Also if a random action replaced the one that it returned."""
    actions = []

    class Keeps(Random):
        def act(self, observation):
            actions.append(self.last_action)
            return 0

    episode = play_episode(make_environment("chopmix/KeyToDoor-v0"), Keeps, 0, 0, (noise, noise))
    assert actions == [None, *episode.actions[:-1]]
    assert (episode.actions != 0).any() == (noise > 0)


def test_the_bot_of_babyai_gets_the_preceding_action(monkeypatch):
    pytest.importorskip("minigrid")
    from chopmix.projects.decision.recording.scripts import BabyBot
    from minigrid.utils.baby_ai_bot import BabyAIBot

    actions, replan = [], BabyAIBot.replan
    monkeypatch.setattr(BabyAIBot, "replan", lambda self, taken=None: actions.append(taken) or replan(self, taken))
    episode = play_episode(make_environment("BabyAI-GoToRedBallGrey-v0"), BabyBot, 0, 3, (0.5, 0.5))
    assert actions == [None, *episode.actions[:-1]]


class GivesUp(Random):
    """Gives up at the second step in two of three episodes."""

    def act(self, observation):
        if self.last_action is not None and self.random.integers(3):
            raise GaveUp("no way on")
        return super().act(observation)


def test_if_the_agent_gives_up_the_episode_is_played_from_another_start(monkeypatch):
    """The other start is a function of the seed and the number, too. The number of starts is kept in `given_up`."""
    make_agent = lambda *arguments: (
        GivesUp(*arguments) if started.append(arguments) or len(started) % 3 else Random(*arguments)
    )
    started: list = []
    environment = make_environment("chopmix/KeyToDoor-v0")
    first, repeated = (play_episode(environment, make_agent, 0, number) for number in (5, 5))
    assert first.given_up == repeated.given_up == 2 and (first.actions == repeated.actions).all()
    plain = play_episode(environment, Random, 0, 5)
    assert plain.given_up == 0 and plain.seed != first.seed == repeated.seed
    assert plain.seed == np.random.default_rng([0, 5, ACTS]).integers(2**31), "earlier recordings can be continued"


def test_an_agent_that_always_gives_up_ends_the_recording():
    class Never(Random):
        def act(self, observation):
            raise GaveUp("it is dark")

    with pytest.raises(DataError, match="4: the agent gave up on 100 start states; the last reason is: it is dark"):
        play_episode(make_environment("chopmix/KeyToDoor-v0"), Never, 0, 4)


GIVES_UP = """
from chopmix.projects.decision.recording.scripts import GaveUp, Random
class GivesUp(Random):
    def act(self, observation):
        if self.last_action is None and self.random.integers(2):
            raise GaveUp("no way on")
        return super().act(observation)
"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.system
def test_start_states_that_were_given_up_are_counted(tmp_path, monkeypatch, capsys, workers):
    (tmp_path / "giving.py").write_text(GIVES_UP)
    monkeypatch.chdir(tmp_path)
    options = ["--policy", "giving:GivesUp", "--episodes", "120", "--workers", str(workers), "--out", "out"]
    assert not main(["record", "chopmix/KeyToDoor-v0", *options])
    episodes = read_episodes(tmp_path / "out")[1]
    count = int(episodes.given_up.sum())
    assert len(episodes) == 120 and count > 60
    message = f"the agent gave up on {count} of {120 + count} start states; these episodes were played from other"
    assert message in " ".join("".join(capsys.readouterr()).split())


def test_temporary_files_of_a_killed_recording_are_removed(tmp_path):
    about = about_of("chopmix/KeyToDoor-v0", {}, "random", (0.0, 0.0), 0, 3)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    partial = [tmp_path / f".{name}.{socket.gethostname()}.00000000.{ended.pid}"
            for name in ("episodes.json", "part-00000.safetensors")]  # fmt: skip
    for file in partial:
        file.write_text("half")
    for _ in record(tmp_path, about):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == ["episodes.json", "part-00000.safetensors"]


@pytest.mark.parametrize("error", ["No space left on device", "Input/output error"])
def test_a_part_that_cannot_be_written_is_named(tmp_path, monkeypatch, error):
    def fails(*_):
        raise OSError(getattr(errno, {"N": "ENOSPC", "I": "EIO"}[error[0]]), error)

    monkeypatch.setattr("chopmix.projects.decision.recording.episodes.write_tensors", fails)
    about = about_of("chopmix/KeyToDoor-v0", {}, "random", (0.0, 0.0), 0, 3)
    with pytest.raises(OSError, match=rf"part-00000\.safetensors cannot be written: {error}"):
        for _ in record(tmp_path, about):
            pass
    assert [file.name for file in tmp_path.iterdir()] == ["episodes.json"]
