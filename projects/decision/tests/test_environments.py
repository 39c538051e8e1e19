"""Agents with image observations, checks of environments and trust, and dry runs of configurations for a GPU."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.run import Run, load_run
from chopmix.experiment.settings.config import ConfigError, config_from_tree, load_config
from chopmix.experiment.train import train
from chopmix.files.errors import RunError
from chopmix.files.reading import DataError
from chopmix.files.trust import NOTHING, Trust
from chopmix.projects.decision import agent as environments
from chopmix.projects.decision.agent import Playing, episodes_of
from chopmix.projects.decision.recording.episodes import About
from chopmix.projects.decision.recording.making import Space, Spaces, check_action, observed, spaces_of
from chopmix.projects.decision.recording.scripts import Random, agent_of
from chopmix.tokenizers.media.clock import Clocked
from chopmix.tokenizers.video import VideoChopper
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("gymnasium")

CONFIGS = Path(__file__).parents[3] / "configs"
SMALL = ["model.depth=1", "training.samples_per_step=4", "training.precision=float32", "training.compile=false"]
SPOT = "{use: recorded, environment: 'spot:Spot-v0', policy: 'spot:Follows', noise: [0, 1], episodes: 120}"
STAND_INS = {
    "decision/pong_gpu": [f"data.dataset.of={SPOT}"],
    "decision/babyai_boss_gpu": ["data.dataset.of.episodes=12"],
    "in_context/linear_gpu": ["data.dataset.samples=1000"],
}
SPOT_YAML = f"""
inputs:
  return: {{use: sensor, channels: 1, position: null}}
  observation:
    {{use: video, size: [8, 12], patch_size: 4, channels: 1, frames: 1, offset: 0.3,
      position: {{use: periodic, periods: [6]}}}}
  action: {{use: category, size: 6, offset: 0.6, position: null}}
model: {{width: 32, depth: 2, heads: 2, context: 40, attention: causal & same_sample, position: rotary}}
tasks:
  act: {{use: next_item, target: action, at: observation}}
data:
  order: seconds
  dataset: {{use: episodes, of: {SPOT}, window: 4, balance: 3}}
training: {{steps: 100, samples_per_step: 32, learning_rate: 0.02, optimizer: muon}}
evaluation: {{every: 100}}
"""


@pytest.mark.parametrize("name", STAND_INS)
@pytest.mark.system
def test_configs_for_a_gpu_are_dry_run_small(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path))
    if "babyai" in name:
        pytest.importorskip("minigrid")
    assert not main(["train", str(CONFIGS / f"{name}.yaml"), "--dry-run", *SMALL, *STAND_INS[name]])
    printed = "".join(capsys.readouterr())
    assert "no leak in main" in printed and "one step: loss" in printed and "nan" not in printed


@pytest.mark.system
def test_an_agent_learns_from_pictures_and_plays(tmp_path, monkeypatch):
    """With a high target return it takes the rewarded action, also after the context was full."""
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "spot.yaml").write_text(SPOT_YAML)
    train(load_config(tmp_path / "spot.yaml", [f"out={tmp_path / 'run'}"]))
    run = load_run(tmp_path / "run", trust=["spot"])
    played = list(episodes_of(run, Playing(temperature=0), 6.0, range(12)))
    assert np.mean([episode.value for episode in played]) > 4.5
    assert played[0].observations["observation"].shape == (6, 8, 12)


@pytest.mark.parametrize(
    ("action", "space", "message"),
    [
        (7, Space(shape=(), dtype="int64", size=2), "action 7 is outside the space: 0 to 1"),
        (-1, Space(shape=(), dtype="int64", size=2), "action -1 is outside the space: 0 to 1"),
        (0.5, Space(shape=(), dtype="int64", size=2), "an action must be an integer, not 0.5"),
        (None, Space(shape=(), dtype="int64", size=2), "an action must be an integer, not None"),
        ("up", Space(shape=(1,), dtype="float32"), "an action must be numbers, not 'up'"),
        (
            [9.0],
            Space(shape=(1,), dtype="float32", low=(-2,), high=(2,)),
            "action [9.0] is outside the space: [-2.0] to",
        ),
        ([np.nan], Space(shape=(1,), dtype="float32"), "is outside the space"),
        ([0.0, 0.0], Space(shape=(1,), dtype="float32"), "an action of shape (2,) is outside the space: finite"),
    ],
)
def test_actions_outside_the_space_are_refused(action, space, message):
    with pytest.raises(DataError, match=re.escape(message)):
        check_action(np.asarray(action), space)


def test_a_random_action_is_in_the_space_without_limits_too():
    import gymnasium

    for low, high in ((-1.0, 1.0), (-np.inf, np.inf), (0.0, np.inf)):
        space = gymnasium.spaces.Box(low, high, (3,), np.float32)
        agent = Random(SimpleNamespace(action_space=space), np.random.default_rng(0))
        assert all(space.contains(agent.random_action()) for _ in range(50))


def test_unsupported_spaces_are_refused():
    import gymnasium

    spaces = gymnasium.spaces
    environment = SimpleNamespace(observation_space=spaces.Box(0, 1, (2,)), action_space=spaces.MultiDiscrete([2, 3]))
    with pytest.raises(DataError, match="the action has the space MultiDiscrete.*; possible are Discrete from 0, Box"):
        spaces_of(environment)


def test_an_observation_is_a_copy():
    buffer = np.zeros(2)
    observations = [observed(buffer), observed({"a": buffer, "word": "go"})]
    buffer += 1
    assert not observations[0].arrays["observation"].any() and not observations[1].arrays["a"].any()
    assert observations[1].texts == {"word": "go"}


def test_an_untrusted_run_executes_no_environment_and_no_policy(tmp_path, monkeypatch):
    """Code that its configuration or its episodes name is not imported unless it is trusted."""
    (tmp_path / "evil_world.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    text = SPOT_YAML.replace("spot:Spot-v0", "evil_world:Evil-v0").replace("spot:Follows", "evil_world:Zero")
    tree = yaml.safe_load(text)
    tree["evaluation"]["play"] = {"environment": "evil_world:Evil-v0"}
    with pytest.raises(ConfigError) as error:
        config_from_tree(tree)
    paths = ("data.dataset.of.environment", "data.dataset.of.policy", "evaluation.play.environment")
    assert all(path in str(error.value) for path in paths)
    assert str(error.value).count("is code outside chopmix, which is not executed") == 3
    assert config_from_tree(tree, trust=Trust.of(["evil_world"])).trust.modules == {"evil_world"}
    run, source = Run.__new__(Run), SimpleNamespace()
    run.__dict__.update(folder=tmp_path, config=SimpleNamespace(trust=NOTHING))
    spaces = Spaces(observations={}, texts=(), action=Space(shape=(), dtype="int64", size=2))
    monkeypatch.setattr(environments, "episodes_in", lambda run: SimpleNamespace(source=source))

    def played(environment, options, playing):
        """The environment and settings that a run plays after training on episodes of `environment` with `options`."""
        source.about = About(format=1, environment=environment, options=options, policy="x", spaces=spaces, episodes=1)
        return environments.environment_of(run, Playing(**playing))

    evil, wrapper = "evil_world:Evil-v0", "GymV26Environment-v0"  # it creates the environment in its options
    with pytest.raises(RunError, match=f"If you trust its author, name it yourself: --environment {evil}"):
        played(evil, {}, {})
    assert played(evil, {}, {"environment": evil})[0] == evil
    for options in ({"env_id": evil}, {"inner": [{"env": evil}]}):
        with pytest.raises(RunError, match=f"'{evil}' is code outside chopmix"):
            played(wrapper, options, {})
    with pytest.raises(RunError, match=f"--environment {wrapper} --setting env_id={evil}"):
        played(wrapper, {"env_id": evil}, {"environment": wrapper})
    for name in ("evil-mod:E-v0", "\u00e9vil:E-v0", "1evil:E-v0", "evil_world.inner:E-v0"):
        with pytest.raises(RunError, match="is code outside chopmix"):
            played(name, {}, {})
    run.config.trust = Trust.of(["evil_world"])
    assert played("evil_world.inner:E-v0", {}, {})[0] == "evil_world.inner:E-v0"
    run.config.trust = NOTHING
    chosen = {"environment": wrapper, "settings": {"env_id": evil}}
    assert played(wrapper, {"env_id": evil}, chosen) == (wrapper, {"env_id": evil})
    plain = {"map": ["SF", "HG"], "speed": 3}
    assert played(wrapper, plain, {"settings": {"a": 1}}) == (wrapper, {**plain, "a": 1})
    faster = {"environment": wrapper, "settings": {"speed": 4}}  # the same environment keeps the settings of the data
    assert played(wrapper, plain, faster) == (wrapper, {**plain, "speed": 4})
    assert played(wrapper, plain, {"environment": "CartPole-v1"}) == ("CartPole-v1", {})
    with pytest.raises(RunError, match="its episodes do not name their environment; name one with --environment"):
        played("unknown", {}, {})
    assert played("unknown", {}, {"environment": "CartPole-v1"}) == ("CartPole-v1", {})
    tree = yaml.safe_load(SPOT_YAML)
    tree["evaluation"]["play"] = {"environment": "Spot-v0", "settings": {"env_id": "evil_world:Evil-v0"}}
    with pytest.raises(ConfigError, match="evaluation.play.settings"):
        config_from_tree(tree, trust=Trust.of(["spot", "test_environments"]))
    with pytest.raises(DataError, match="policy 'evil_world': possible are random, script, bot, package.module:name"):
        agent_of("evil_world", "CartPole-v1")
    assert "evil_world" not in sys.modules


@given(st.integers(1, 9), st.integers(1, 3), st.data())
@settings(max_examples=40, deadline=None)
def test_frames_with_a_clock_have_its_times(count, frames, data):
    seconds = np.cumsum(data.draw(st.lists(st.floats(0.125, 4), min_size=count, max_size=count))).astype(np.float32)
    chopper = VideoChopper(size=4, patch_size=2, frames=frames, channels=1)
    pictures = np.arange(count * 16, dtype=np.uint8).reshape(count, 4, 4)
    item = chopper.decode({"values": pictures, "seconds": seconds})
    chunk, plain = chopper.chop(item), chopper.chop(chopper.decode(pictures))
    assert isinstance(item, Clocked) and torch.equal(chunk.values, plain.values) and chunk.count == chopper.count(item)
    last = [seconds[min(end, count) - 1] for end in range(frames, count + frames, frames)]
    assert chunk.coordinates[:, 0].tolist() == [second for second in last for _ in range(4)]


def test_the_times_of_frames_must_increase():
    chopper = VideoChopper(size=4, patch_size=2, channels=1)
    with pytest.raises(DataError, match="seconds must increase"):
        chopper.decode({"values": np.zeros((2, 4, 4), np.uint8), "seconds": [1.0, 0.5]})
