"""A step of an episode is read in the same way in training and during play, and no value is read too early."""

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from batching import make_batch
from chopmix.commands.cli import main
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import ConfigError, config_from_tree, load_config
from chopmix.experiment.train import train
from chopmix.files.reading import DataError
from chopmix.files.writing import sweep_partials
from chopmix.models.model import at
from chopmix.projects.decision.agent import Player, Playing, agent_kind, episodes_of
from chopmix.projects.decision.datasets.episodes import Windows
from chopmix.projects.decision.recording.episodes import episode_of, joined, read_about, read_episodes
from chopmix.projects.decision.recording.making import Observed, column_of, observed, reward_of
from chopmix.projects.decision.recording.record import about_of, recorded
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import only

gymnasium = pytest.importorskip("gymnasium")

POLE = """
inputs:
  return: {use: sensor, channels: 1, position: null}
  observation: {use: sensor, channels: 4, offset: 0.3, position: null}
  action: {use: category, size: 2, offset: 0.6, position: null}
  reward: {use: sensor, channels: 1, offset: 0.9, position: null}
model: {width: 32, depth: 2, heads: 2, context: 120, attention: causal & same_sample, position: rotary}
tasks: {act: {use: next_item, target: action, at: observation}}
data:
  order: seconds
  dataset:
    use: episodes
    of: {use: recorded, environment: CartPole-v1, policy: script, noise: [0.5, 1], episodes: 30}
    window: 20
training: {steps: 2, samples_per_step: 4, precision: float32}
"""


def with_offsets(changes, text=POLE):
    tree = yaml.safe_load(text)
    for name, offset in changes.items():
        tree["inputs"].setdefault(name, {"use": "category", "size": 2, "position": None})["offset"] = offset
    return tree


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"reward": None},
            "inputs.reward.offset: the reward of a step is known after its observations (0.3) and before",
        ),
        ({"reward": 0.3}, "the offset must be between these, not 0.3"),
        ({"reward": 1.2}, "before those of the next (1); the offset must be between these, not 1.2"),
        ({"return": 0.7}, "inputs.return.offset: it is known before the action, so its offset must be less than"),
        ({"return": -0.5}, "-0.5 is not later than the preceding action (-0.4), when it is not known yet"),
        ({"peek": 0.1}, "inputs.peek.offset: the action of a step is known after its observations"),
    ],
)
def test_offsets_at_which_a_value_is_unknown_are_refused(changes, message):
    """Otherwise a model is trained on values that an agent does not know yet during play."""
    tree = with_offsets(changes)
    tree["data"]["columns"] = {"peek": "action"} if "peek" in changes else {}
    with pytest.raises(ConfigError) as error:
        config_from_tree(tree)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["inputs.observation.window=4"], "inputs.observation.window: must be 1, because an agent reads one step"),
        (["model.attention=same_sample & (causal | from(observation))"], "inputs.observation: is read by earlier"),
        (["model.attention=same_sample & !from(action, reward)"], "inputs.observation: is read by earlier"),
        (["inputs.word={use: text, encoding: bytes}"], "inputs.word: has no time and is therefore read last"),
        (["inputs.word={use: text, encoding: bytes, offset: 0.1}", "tasks.act.at=word"], "'word' has no value at"),
        (["inputs.return.offset=0.8", "tasks.value={use: next_item, target: return, at: action}"],
         "'return' is predicted after the action and is unknown during play; add '& !from(return)'"),
        (["data.dataset={use: mixture, of: {pole: {use: episodes, of: {use: recorded, environment: CartPole-v1}}}, "
          "columns: {pole: {reward: payoff}}}"], "data.dataset.columns.pole: columns of episodes cannot be renamed"),
    ],
)  # fmt: skip
def test_inputs_that_cannot_be_read_step_by_step_are_refused(tmp_path, change, message):
    (tmp_path / "pole.yaml").write_text(POLE)
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "pole.yaml", change)
    assert message in str(error.value)


def test_a_predicted_return_that_no_layer_reads_may_follow_the_action(tmp_path):
    (tmp_path / "pole.yaml").write_text(POLE)
    value = ["inputs.return.offset=0.8", "tasks.value={use: next_item, target: return, at: action}"]
    value += [
        "model.attention=causal & same_sample & !from(return)",
        "model.position={use: rotary, per_axis: {seconds: 8}}",
    ]
    assert {*load_config(tmp_path / "pole.yaml", value).tasks} == {"act", "value"}
    assert {*load_config(tmp_path / "pole.yaml", [*value, "model.position=null"]).tasks} == {"act", "value"}


@pytest.mark.parametrize(
    ("option", "change"),
    [
        ("position", "model.position=rotary"),
        ("position", "model.position={use: rotary, per_axis: {order: 4, seconds: 8}}"),
        ("position", "model.position=relative_bias"),
        ("position", "model.position=alibi"),
        ("attention", "model.attention=causal & same_sample & !from(return) & window(9)"),
        ("attention", "model.attention=causal & same_sample & !from(return) & window( 9 , order )"),
        ("attention", "model.attention=causal & same_sample & !from(return) & !window(9)"),
        ("attention", "model.attention=causal & !from(return) & (same_item | neighbourhood(9, order, seconds))"),
    ],
)
def test_tokens_that_no_layer_reads_are_not_counted_either(tmp_path, option, change):
    """During play there are no returns after the actions, so distances in tokens would differ from training."""
    (tmp_path / "pole.yaml").write_text(POLE)
    value = ["inputs.return.offset=0.8", "tasks.value={use: next_item, target: return, at: action}"]
    value += [
        "model.attention=causal & same_sample & !from(return)",
        "model.position={use: rotary, per_axis: {seconds: 8}}",
    ]
    with pytest.raises(ConfigError, match=f"model.{option}: 'return' is predicted after the action .* be counted"):
        load_config(tmp_path / "pole.yaml", [*value, change])
    window = "model.attention=causal & same_sample & !from(return) & window(2, seconds)"
    load_config(tmp_path / "pole.yaml", [*value, window])


@pytest.mark.system
def test_steps_in_a_mixture_are_checked_too(tmp_path, monkeypatch, capsys):
    """Only the opened data set determines which inputs read episodes."""
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pole.yaml").write_text(POLE)
    of = "{use: episodes, of: {use: recorded, environment: CartPole-v1, episodes: 20}, window: 8}"
    mixed = ["data.columns={again: observation}", f"data.dataset={{use: mixture, of: {{pole: {of}}}}}"]
    for offset, refused in ((0.4, False), (0.7, True), (-0.5, True)):
        again = f"inputs.again={{use: sensor, channels: 4, offset: {offset}, position: null}}"
        assert bool(main(["train", str(tmp_path / "pole.yaml"), *mixed, again, "--dry-run"])) == refused
        assert ("inputs.again.offset: " in "".join(capsys.readouterr())) == refused
    assert main(["train", str(tmp_path / "pole.yaml"), mixed[1], "inputs.observation.window=2", "--dry-run"])
    assert "inputs.observation.window: must be 1" in "".join(capsys.readouterr())


def test_an_action_is_predicted_at_an_earlier_input():
    for name in ("reward", "action"):
        tree = with_offsets({})
        tree["tasks"]["act"]["at"] = name
        with pytest.raises(ConfigError, match=f"tasks.act.at: '{name}' has no token before the first action"):
            config_from_tree(tree)
    tree = with_offsets({"action": 1.5, "reward": 1.6})
    tree["tasks"]["act"]["at"] = "return"
    with pytest.raises(ConfigError, match=r"greater than that of 'return' \(0\), by less than 1"):
        config_from_tree(tree)


def test_other_data_sets_may_have_columns_with_these_names():
    tree = with_offsets({"reward": None, "action": 0.0, "observation": 0.0})
    tree["data"]["dataset"] = {"use": "manifest", "train": "x.jsonl", "columns": ["return", "observation", "action"]}
    del tree["inputs"]["reward"]
    assert {*config_from_tree(tree).inputs} == {"return", "observation", "action"}


def test_a_clip_with_normalisation_over_all_frames_is_not_read_in_time():
    """In the order of seconds `causal` means causal in time, but every token would depend on later frames."""
    sound = {"use": "audio", "rate": 8000, "mels": 20, "frames": 8, "longest": 1.0, "position": None}
    for attention in ("causal & same_sample", "causal(seconds) & same_sample"):
        tree = with_offsets({})
        tree["model"]["attention"] = attention
        tree["inputs"] = {
            "observation": sound | {"normalize": "clip"},
            "action": {"use": "category", "size": 2, "offset": 0.6},
        }
        tree["data"]["dataset"] = {"use": "manifest", "train": "x.jsonl", "columns": ["observation", "action"]}
        with pytest.raises(ConfigError, match=re.escape(f"the complete item, but '{attention.split()[0]}' must hide")):
            config_from_tree(tree)
        tree["inputs"]["observation"]["normalize"] = "data"
        config_from_tree(tree)


@pytest.fixture(scope="module")
def pole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        (folder / "pole.yaml").write_text(POLE)
        train(load_config(folder / "pole.yaml", [f"out={folder / 'run'}"]))
        yield folder / "run"


@pytest.fixture(scope="module")
def valued(pole):
    """A run that predicts the return after each action; no layer reads this return."""
    changes = ["inputs.return.offset=0.8", "tasks.value={use: next_item, target: return, at: action}",
               "model.attention=causal & same_sample & !from(return)",
               "model.position={use: rotary, base: 100, per_axis: {seconds: 8}}"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHOPMIX_CACHE", str(pole.parent / "cache"))
        train(load_config(pole.parent / "pole.yaml", [*changes, f"out={pole.parent / 'valued'}"]))
        yield pole.parent / "valued"


@pytest.mark.parametrize("number", only(1, range(3)))
@pytest.mark.parametrize(("name", "target"), [("pole", 40.0), ("valued", None)])
def test_playing_reads_an_episode_as_training_does(request, monkeypatch, name, target, number):
    """At every step the logits of the actions during play, with a cache, are those of the complete episode."""
    run, while_playing, act = load_run(request.getfixturevalue(name)), [], Player._actions
    generator = torch.Generator().manual_seed(number)
    for parameter in run.model.parameters():
        if parameter.dim() > 1:  # with zero projections all outputs would be equal
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)

    def watched(self, time_steps, hidden, planned, games):
        slots = planned.chunks[self.task.at].slots
        while_playing.append(self.head(hidden.flatten(0, 1)[slots.max()][None])[0].clone())
        return act(self, time_steps, hidden, planned, games)

    monkeypatch.setattr(Player, "_actions", watched)
    (episode,) = episodes_of(run, Playing(seed=number), target, [number])
    steps = min(len(episode.rewards), 25)
    row = Windows(joined([episode]), np.array([0]), np.array([0]), steps)[0]
    row["return"]["values"] = 40.0 - np.concatenate([[0.0], np.cumsum(episode.rewards)[: steps - 1]])
    split = run.as_split([{name: row[name] for name in run.choppers}])
    with torch.inference_mode():
        batch = run.model.plan(make_batch(split, split.all(), run.tasks))
        read = run.model.heads["act"](at(run.model.read(batch).main, batch.targets["act"]))
    assert len(read) == steps and torch.stack(while_playing[:steps]).std() > 1e-3
    torch.testing.assert_close(torch.stack(while_playing[:steps]), read, atol=1e-4, rtol=1e-4)


@pytest.mark.system
def test_a_run_that_is_conditioned_on_returns_needs_a_target(pole, tmp_path, capsys):
    assert main(["play", str(pole), "--episodes", "2"]) == 2
    assert "is conditioned on returns and needs a target return: --target R" in capsys.readouterr().err
    record = ["record", "CartPole-v1", "--policy", str(pole), "--episodes", "2", "--out", str(tmp_path / "x")]
    assert main(record) == 2 and "needs a target return: --target R" in capsys.readouterr().err
    assert not main([*record, "--target", "99999"])
    assert "the target return 99999 is outside the range of the training data" in capsys.readouterr().err
    config = str(pole.parent / "pole.yaml")
    assert not main(["train", config, "evaluation.play={targets: [99999], episodes: 1}", f"out={tmp_path / 'far'}"])
    assert "evaluation.play.targets: the target return 99999 is outside the range" in "".join(capsys.readouterr())
    assert not main(["play", str(tmp_path / "far"), "--episodes", "1"])  # with the targets of evaluation.play
    output = capsys.readouterr()
    assert "99999" in output.err and re.search("99999|1e", output.out)


@pytest.mark.filterwarnings("ignore:.*WARN")
@pytest.mark.skipif(importlib.util.find_spec("Box2D") is not None, reason="Box2D is installed")
def test_missing_packages_are_not_imported_from_the_working_directory(pole, tmp_path, monkeypatch, capsys):
    """LunarLander imports Box2D, which is not installed; a file with this name in the working directory is ignored."""
    (tmp_path / "Box2D.py").write_text("raise SystemExit('executed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    assert main(["play", str(pole), "--target", "3", "--environment", "LunarLander-v3", "--episodes", "1"]) == 2
    assert "cannot be created: Box2D is not installed" in capsys.readouterr().err


@pytest.mark.system
def test_cloning_is_in_the_same_table(pole, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(pole.parent / "cache"))
    config, figures = str(pole.parent / "pole.yaml"), tmp_path / "figures.json"
    for name, more in {"clone": [], "best": ["data.dataset.best=0.1"]}.items():
        assert not main(["train", config, "inputs.return=null", *more, f"out={tmp_path / name}"])
    others = [argument for name in ("clone", "best") for argument in ("--against", str(tmp_path / name))]
    options = ["--target", "20", "--target", "40", "--episodes", "2", "--json", str(figures)]
    assert not main(["play", str(pole), *options, *others, "--against", str(pole)])
    table = capsys.readouterr().out
    assert all(text in table for text in ("target return", "cloning", "cloning of the best 10%", "its training data"))
    assert agent_kind(load_run(tmp_path / "best")) == "cloning of the best 10%"
    with pytest.raises(SystemExit):
        main(["play", str(pole), "--target", "20", "--seed", "-1"])
    assert "must be an integer of at least 0, not -1" in capsys.readouterr().err
    clone = ["play", str(tmp_path / "clone"), "--episodes", "2", "--json", str(figures)]
    assert not main([*clone, "--target", "20", "--against", str(pole)])  # only the conditioned run has a target
    rows = json.loads(figures.read_text())["played"]
    assert [(row["acts by"], row["target"]) for row in rows] == [("cloning", None), ("target return", 20)]
    assert (
        main([*clone, "--against", str(pole)]) == 2 and "needs a target return: --target R" in capsys.readouterr().err
    )
    assert main([*clone, "--target", "20"]) == 2 and "is not conditioned on returns" in capsys.readouterr().err
    assert main(["play", str(pole), "--target", "20", "--episodes", "500", "--against", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_settings_of_the_data_are_kept_if_their_environment_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    of = "{use: recorded, environment: CartPole-v1, policy: random, episodes: 20, settings: {max_episode_steps: 5}}"
    (tmp_path / "pole.yaml").write_text(POLE)
    out = f"out={tmp_path / 'run'}"
    assert not main(["train", str(tmp_path / "pole.yaml"), f"data.dataset.of={of}", "inputs.return=null", out])
    lengths = [
        len(episode.rewards)
        for episode in episodes_of(load_run(tmp_path / "run"), Playing(environment="CartPole-v1"), None, range(4))
    ]
    assert lengths == [5] * 4
    record = ["record", "CartPole-v1", "--policy", str(tmp_path / "run"), "--episodes", "3"]
    assert not main([*record, "--out", str(tmp_path / "more")])
    assert read_about(tmp_path / "more").options == {"max_episode_steps": 5}
    assert read_episodes(tmp_path / "more")[1].lengths.tolist() == [5] * 3
    assert not main(
        [
            "record",
            "CartPole-v1",
            "--episodes",
            "20",
            "--setting",
            "max_episode_steps=5",
            "--out",
            str(tmp_path / "kept"),
        ]
    )
    folder = f"data.dataset.of={{use: folder, path: {tmp_path / 'kept'}}}"
    assert not main(["train", str(tmp_path / "pole.yaml"), folder, "inputs.return=null", f"out={tmp_path / 'moved'}"])
    shutil.rmtree(tmp_path / "kept")  # the run has the settings of the environment, too
    (episode,) = episodes_of(load_run(tmp_path / "moved"), Playing(environment="CartPole-v1"), None, [0])
    assert len(episode.rewards) == 5


@given(
    st.lists(st.sampled_from(["return", "reward", "action", "step", "score", "x", "mission"]), unique=True, min_size=1)
)
@settings(max_examples=50, deadline=None)
def test_an_observation_never_has_the_name_of_a_column_of_all_episodes(names):
    arrays = observed({name: np.zeros(2) for name in names}).arrays
    assert len(arrays) == len(names) and not {"return", "reward", "action", "step", "score"} & arrays.keys()
    assert list(arrays) == [column_of(name) for name in names]


ODD = """
import gymnasium, numpy as np
from gymnasium import spaces
from chopmix.projects.decision.recording.scripts import Agent
box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
SPACES = {
    "named": spaces.Dict({"step": box, "word": spaces.Text(9)}), "nested": spaces.Dict({"a": spaces.Dict({"b": box})}),
    "tuple": spaces.Tuple((box, spaces.Discrete(3))), "text": spaces.Dict({"a": box, "word": spaces.Text(9)}),
}
class Odd(gymnasium.Env):
    action_space = spaces.Discrete(2)
    def __init__(self, kind="named", changes=False):
        self.observation_space, self.changes = SPACES[kind], changes
    def observation(self):
        names = list(self.observation_space)
        return {names[0]: np.full(2, self.t, np.float32), "word": f"go {self.t}" if self.changes else "go"}
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation(), {}
    def step(self, action):
        self.t += 1
        return self.observation(), 1.0, self.t == 3, False, {}
class Zero(Agent):
    def act(self, observation):
        return 0
gymnasium.register("Odd-v0", Odd, disable_env_checker=True)
"""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A user-defined module in the working directory, as for `python train.py`."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(Path.cwd()))])
    (tmp_path / "odd_steps.py").write_text(ODD)
    monkeypatch.chdir(tmp_path)
    yield "odd_steps:Odd-v0"
    sys.modules.pop("odd_steps", None)
    gymnasium.registry.pop("Odd-v0", None)


@pytest.mark.filterwarnings("ignore:.*WARN")
def test_environments_and_policies_of_the_working_directory_are_recorded(tmp_path, odd, capsys):
    assert not main(["record", odd, "--policy", "odd_steps:Zero", "--episodes", "2", "--out", str(tmp_path / "x")])
    about, episodes = read_episodes(tmp_path / "x")
    assert about.spaces.texts == ("word",) and list(episodes.observations) == ["observation.step"]
    row = Windows(episodes, np.array([0]), np.array([0]), 0)[0]
    assert row["step"]["values"].tolist() == [0, 1, 2] and row["observation.step"]["values"][2].tolist() == [2, 2]
    assert main(["record", odd, "--policy", "odd_steps:None_", "--episodes", "2", "--out", str(tmp_path / "y")]) == 2
    assert "possible are random, script, bot, package.module:name, a run's folder" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*WARN")
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("kind=nested", r"observation 'a' has the space Dict\(.*; possible are Discrete from 0, Box, and Dict of"),
        ("kind=tuple", r"observation 'observation' has the space Tuple\(.*; possible are Discrete from 0, Box"),
        ("changes=true", "the text 'word' changes at step 1; it must stay the same in an episode"),
    ],
)
def test_unsupported_observations_are_reported(tmp_path, odd, capsys, setting, message):
    assert main(["record", odd, "--setting", setting, "--episodes", "2", "--out", str(tmp_path / "x")]) == 2
    errors = capsys.readouterr().err
    assert re.search(message, errors) and "Traceback" not in errors


@pytest.mark.filterwarnings("ignore:.*WARN")
def test_a_text_that_all_tokens_read_has_the_first_time(tmp_path, odd, monkeypatch, capsys):
    """Otherwise it reads later actions and earlier tokens read it. This leak is refused with a remedy."""
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    tree = with_offsets({"observation": 0.3})
    tree["inputs"] = {
        "word": {"use": "text", "encoding": "characters"}, "a": {"use": "sensor", "channels": 2, "position": None},
        "action": {"use": "category", "size": 2, "offset": 0.6, "position": None},
    }  # fmt: skip
    tree["tasks"]["act"]["at"], tree["model"]["attention"] = "a", "(causal(seconds) | from(word)) & same_sample"
    tree["data"]["dataset"]["of"] |= {
        "environment": odd,
        "policy": "random",
        "noise": [0, 0],
        "settings": {"kind": "text"},
    }
    (tmp_path / "word.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", "word.yaml", "--dry-run"]) == 2
    errors = " ".join(capsys.readouterr().err.split())
    assert "inputs.word: has no time and is therefore read last; give it an offset, such as -1" in errors
    assert not main(["train", "word.yaml", "--dry-run", "inputs.word.offset=-1"])
    assert "no leak in main" in "".join(capsys.readouterr())


@pytest.mark.system
def test_a_recording_that_is_killed_can_be_continued(tmp_path):
    """If all its processes are killed, the same command completes the same files."""
    chopmix = [sys.executable, "-m", "chopmix.commands.cli"]
    assert not subprocess.run([*chopmix, "--help"], capture_output=True).returncode
    options = [
        "record",
        "CartPole-v1",
        "--policy",
        "script",
        "--noise",
        "0",
        "1",
        "--episodes",
        "300",
        "--workers",
        "2",
    ]
    recording = subprocess.Popen([*chopmix, *options, "--out", str(tmp_path / "killed")], start_new_session=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    until = time.monotonic() + 60
    while not (parts := list(tmp_path.glob("killed/part-*.safetensors"))) and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(recording.pid, signal.SIGKILL)
    recording.wait()
    assert parts
    for name in ("killed", "once"):
        assert not subprocess.run([*chopmix, *options, "--out", str(tmp_path / name)], capture_output=True).returncode
    partial = f".part-00001.safetensors.{socket.gethostname()}.00000000.{recording.pid}"
    (tmp_path / "killed" / partial).write_bytes(b"half")
    assert not subprocess.run([*chopmix, *options, "--out", str(tmp_path / "killed")], capture_output=True).returncode
    files = {path.name: path.read_bytes() for path in (tmp_path / "once").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()} and len(files) == 4


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs the process states of Linux")
def test_partial_files_of_a_zombie_are_deleted(tmp_path):
    """A killed worker remains a zombie until its parent process waits for it."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    pids = (ended.pid, os.getpid())
    of_ended, of_this = (tmp_path / f".x.{socket.gethostname()}.00000000.{pid}" for pid in pids)
    of_ended.touch(), of_this.touch()
    sweep_partials(tmp_path / "x")
    assert not of_ended.exists() and of_this.exists()
    ended.wait()


def test_changing_observations_and_bad_rewards_are_refused():
    steps = [Observed({"a": np.zeros(size)}, {}) for size in (2, 2, 3)]
    with pytest.raises(DataError, match=r"observation 'a' has the shape \(2,\) at step 0, but \(3,\) at step 2"):
        episode_of(steps, [0, 1, 0], [0.0] * 3, True, 0)
    with pytest.raises(DataError, match="the text 'word' changes at step 1"):
        episode_of([Observed({}, {}), Observed({}, {"word": "go"})], [0, 1], [0.0] * 2, True, 0)
    with pytest.raises(DataError, match="observation 'a' is not an array"):
        observed({"a": [[1, 2], [3]]})
    for reward in (float("nan"), float("inf"), None):
        with pytest.raises(DataError, match="which is not a finite number"):
            reward_of(reward)


def test_recording_for_training_is_announced(tmp_path, capsys):
    about = about_of("CartPole-v1", {}, "random", (0.0, 0.0), 0, 3)
    recorded(tmp_path / "x", about)
    assert "recording 3 episodes of CartPole-v1, played by random" in capsys.readouterr().err
    recorded(tmp_path / "x", about)
    assert not capsys.readouterr().err
