"""A step of an episode is read alike while a model is trained and while it plays, and nothing is read too early."""

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
from chopmix.projects.decision.agent import Player, Playing, acts_by, episodes_of
from chopmix.projects.decision.datasets.episodes import Windows
from chopmix.projects.decision.environments.episodes import episode_of, joined, read_about, read_episodes
from chopmix.projects.decision.environments.making import Observed, named, observed, reward_of
from chopmix.projects.decision.environments.record import about_of, recorded
from hypothesis import given, settings
from hypothesis import strategies as st

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
    ("changes", "told"),
    [
        (
            {"reward": None},
            "inputs.reward.offset: a step's reward is known after all that is observed (0.3) and before",
        ),
        ({"reward": 0.3}, "it must stand between them, not at 0.3"),
        ({"reward": 1.2}, "before the next (1): it must stand between them, not at 1.2"),
        ({"return": 0.7}, "inputs.return.offset: it is known before the action, so that it must stand before 'action'"),
        ({"return": -0.5}, "at -0.5 it stands before the action of the step before (-0.4), when it is not known yet"),
        ({"peek": 0.1}, "inputs.peek.offset: a step's action is known after all that is observed"),
    ],
)
def test_what_is_not_known_there_is_refused(changes, told):
    """An input that would tell, while the model is trained, what nobody knows yet when it plays."""
    tree = with_offsets(changes)
    tree["data"]["columns"] = {"peek": "action"} if "peek" in changes else {}
    with pytest.raises(ConfigError) as error:
        config_from_tree(tree)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["inputs.observation.window=4"], "inputs.observation.window: must be 1: an agent acts at every step"),
        (["model.attention=same_sample & (causal | from(observation))"], "inputs.observation: is read by what"),
        (["model.attention=same_sample & !from(action, reward)"], "inputs.observation: is read by what"),
        (["inputs.word={use: text, encoding: bytes}"], "inputs.word: has no place in time, so that it comes last"),
        (["inputs.word={use: text, encoding: bytes, offset: 0.1}", "tasks.act.at=word"], "'word' is read once, not at"),
        (["inputs.return.offset=0.8", "tasks.value={use: next_item, target: return, at: action}"],
         "'return' is predicted after the action, and while it plays nobody knows it: add '& !from(return)'"),
        (["data.dataset={use: mixture, of: {pole: {use: episodes, of: {use: recorded, environment: CartPole-v1}}}, "
          "columns: {pole: {reward: payoff}}}"], "data.dataset.columns.pole: columns of episodes cannot be renamed"),
    ],
)  # fmt: skip
def test_what_is_not_read_step_by_step_is_refused(tmp_path, change, told):
    (tmp_path / "pole.yaml").write_text(POLE)
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "pole.yaml", change)
    assert told in str(error.value)


def test_a_return_that_is_predicted_and_read_by_nobody_may_follow_the_action(tmp_path):
    (tmp_path / "pole.yaml").write_text(POLE)
    value = ["inputs.return.offset=0.8", "tasks.value={use: next_item, target: return, at: action}"]
    value += [
        "model.attention=causal & same_sample & !from(return)",
        "model.position={use: rotary, per_axis: {seconds: 8}}",
    ]
    assert {*load_config(tmp_path / "pole.yaml", value).tasks} == {"act", "value"}
    assert {*load_config(tmp_path / "pole.yaml", [*value, "model.position=null"]).tasks} == {"act", "value"}


@pytest.mark.parametrize(
    ("where", "change"),
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
def test_what_nobody_reads_is_not_counted_either(tmp_path, where, change):
    """While an agent plays there are no returns after its actions: distances in tokens would be others than trained."""
    (tmp_path / "pole.yaml").write_text(POLE)
    value = ["inputs.return.offset=0.8", "tasks.value={use: next_item, target: return, at: action}"]
    value += [
        "model.attention=causal & same_sample & !from(return)",
        "model.position={use: rotary, per_axis: {seconds: 8}}",
    ]
    with pytest.raises(ConfigError, match=f"model.{where}: 'return' is predicted after the action, and .* be counted"):
        load_config(tmp_path / "pole.yaml", [*value, change])
    window = "model.attention=causal & same_sample & !from(return) & window(2, seconds)"
    load_config(tmp_path / "pole.yaml", [*value, window])


def test_steps_in_a_mixture_are_held_to_the_same(tmp_path, monkeypatch, capsys):
    """Which inputs are those of the episodes only the opened data tell."""
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


def test_an_action_is_predicted_at_what_comes_before_it():
    for where in ("reward", "action"):
        tree = with_offsets({})
        tree["tasks"]["act"]["at"] = where
        with pytest.raises(ConfigError, match=f"tasks.act.at: '{where}' has nothing before the first action"):
            config_from_tree(tree)
    tree = with_offsets({"action": 1.5, "reward": 1.6})
    tree["tasks"]["act"]["at"] = "return"
    with pytest.raises(ConfigError, match="'return', at which it is predicted, 0: it must be larger, by less than 1"):
        config_from_tree(tree)


def test_other_data_may_have_columns_of_these_names():
    tree = with_offsets({"reward": None, "action": 0.0, "observation": 0.0})
    tree["data"]["dataset"] = {"use": "manifest", "train": "x.jsonl", "columns": ["return", "observation", "action"]}
    del tree["inputs"]["reward"]
    assert {*config_from_tree(tree).inputs} == {"return", "observation", "action"}


def test_a_clip_that_is_normalised_whole_is_not_read_in_time():
    """In the order of seconds plain `causal` is the causal path: each token would hear what comes after it."""
    sound = {"use": "audio", "rate": 8000, "mels": 20, "frames": 8, "longest": 1.0, "position": None}
    for attention in ("causal & same_sample", "causal(seconds) & same_sample"):
        tree = with_offsets({})
        tree["model"]["attention"] = attention
        tree["inputs"] = {
            "observation": sound | {"normalize": "clip"},
            "action": {"use": "category", "size": 2, "offset": 0.6},
        }
        tree["data"]["dataset"] = {"use": "manifest", "train": "x.jsonl", "columns": ["observation", "action"]}
        with pytest.raises(ConfigError, match=re.escape(f"the complete clip, but '{attention.split()[0]}' must hide")):
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
    """A run that predicts what is still to come after each action, and tells it to nobody."""
    changes = ["inputs.return.offset=0.8", "tasks.value={use: next_item, target: return, at: action}",
               "model.attention=causal & same_sample & !from(return)",
               "model.position={use: rotary, base: 100, per_axis: {seconds: 8}}"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHOPMIX_CACHE", str(pole.parent / "cache"))
        train(load_config(pole.parent / "pole.yaml", [*changes, f"out={pole.parent / 'valued'}"]))
        yield pole.parent / "valued"


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize(("name", "target"), [("pole", 40.0), ("valued", None)])
def test_playing_reads_an_episode_as_training_does(request, monkeypatch, name, target, number):
    """At every step the scores of the actions while playing, cached, are those of the finished episode read at once."""
    run, while_playing, act = load_run(request.getfixturevalue(name)), [], Player._actions
    generator = torch.Generator().manual_seed(number)
    for parameter in run.model.parameters():
        if parameter.dim() > 1:  # zero projections would make all of it equal
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)

    def watched(self, moments, hidden, planned, playing):
        slots = planned.chunks[self.task.at].slots
        while_playing.append(self.head(hidden.flatten(0, 1)[slots.max()][None])[0].clone())
        return act(self, moments, hidden, planned, playing)

    monkeypatch.setattr(Player, "_actions", watched)
    (episode,) = episodes_of(run, Playing(seed=number), target, [number])
    steps = min(len(episode.rewards), 25)
    row = Windows(joined([episode]), np.array([0]), np.array([0]), steps)[0]
    row["return"]["values"] = 40.0 - np.concatenate([[0.0], np.cumsum(episode.rewards)[: steps - 1]])
    split = run.given([{name: row[name] for name in run.choppers}])
    with torch.inference_mode():
        batch = run.model.plan(make_batch(split, split.all(), run.tasks))
        read = run.model.heads["act"](at(run.model.read(batch).main, batch.targets["act"]))
    assert len(read) == steps and torch.stack(while_playing[:steps]).std() > 1e-3
    torch.testing.assert_close(torch.stack(while_playing[:steps]), read, atol=1e-4, rtol=1e-4)


def test_a_run_that_is_told_a_return_plays_for_none_without_a_word(pole, tmp_path, capsys):
    assert main(["play", str(pole), "--episodes", "2"]) == 2
    assert "is told what return to reach, and knows none without: ask for one with --target" in capsys.readouterr().err
    record = ["record", "CartPole-v1", "--policy", str(pole), "--episodes", "2", "--out", str(tmp_path / "x")]
    assert main(record) == 2 and "ask for one with --target" in capsys.readouterr().err
    assert not main([*record, "--target", "99999"])
    assert "no episode of the data has 99999: they reach" in capsys.readouterr().err
    config = str(pole.parent / "pole.yaml")
    assert not main(["train", config, "evaluation.play={targets: [99999], episodes: 1}", f"out={tmp_path / 'far'}"])
    assert "evaluation.play.targets: no episode of the data has 99999: they reach" in "".join(capsys.readouterr())
    assert not main(["play", str(tmp_path / "far"), "--episodes", "1"])  # asked for what evaluation.play asks for
    said = capsys.readouterr()
    assert "99999" in said.err and re.search("99999|1e", said.out)


@pytest.mark.filterwarnings("ignore:.*WARN")
@pytest.mark.skipif(importlib.util.find_spec("Box2D") is not None, reason="Box2D is installed")
def test_packages_that_lack_are_not_sought_where_the_command_is_given(pole, tmp_path, monkeypatch, capsys):
    """LunarLander imports Box2D, which is not installed here: a file of that name beside a stranger's run is none."""
    (tmp_path / "Box2D.py").write_text("raise SystemExit('executed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", str(tmp_path))])
    assert main(["play", str(pole), "--target", "3", "--environment", "LunarLander-v3", "--episodes", "1"]) == 2
    assert "cannot be made: Box2D is not installed" in capsys.readouterr().err


@pytest.mark.system
def test_cloning_stands_in_the_same_table(pole, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(pole.parent / "cache"))
    config, told = str(pole.parent / "pole.yaml"), tmp_path / "told.json"
    for name, more in {"clone": [], "best": ["data.dataset.best=0.1"]}.items():
        assert not main(["train", config, "inputs.return=null", *more, f"out={tmp_path / name}"])
    beside = [argument for name in ("clone", "best") for argument in ("--beside", str(tmp_path / name))]
    options = ["--target", "20", "--target", "40", "--episodes", "2", "--json", str(told)]
    assert not main(["play", str(pole), *options, *beside, "--beside", str(pole)])
    table = capsys.readouterr().out
    assert all(each in table for each in ("the return asked for", "cloning", "cloning of the best 10%", "the data"))
    assert acts_by(load_run(tmp_path / "best")) == "cloning of the best 10%"
    with pytest.raises(SystemExit):
        main(["play", str(pole), "--target", "20", "--seed", "-1"])
    assert "must be a whole number from 0 on, not -1" in capsys.readouterr().err
    clone = ["play", str(tmp_path / "clone"), "--episodes", "2", "--json", str(told)]
    assert not main([*clone, "--target", "20", "--beside", str(pole)])  # the return is asked of whom it is told alone
    rows = json.loads(told.read_text())["played"]
    assert [(row["acts by"], row["target"]) for row in rows] == [("cloning", None), ("the return asked for", 20)]
    assert main([*clone, "--beside", str(pole)]) == 2 and "ask for one with --target" in capsys.readouterr().err
    assert main([*clone, "--target", "20"]) == 2 and "none can be asked for" in capsys.readouterr().err
    assert main(["play", str(pole), "--target", "20", "--episodes", "500", "--beside", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_settings_of_the_data_are_kept_where_their_environment_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    of = "{use: recorded, environment: CartPole-v1, policy: random, episodes: 20, settings: {max_episode_steps: 5}}"
    (tmp_path / "pole.yaml").write_text(POLE)
    out = f"out={tmp_path / 'run'}"
    assert not main(["train", str(tmp_path / "pole.yaml"), f"data.dataset.of={of}", "inputs.return=null", out])
    lengths = [
        len(each.rewards)
        for each in episodes_of(load_run(tmp_path / "run"), Playing(environment="CartPole-v1"), None, range(4))
    ]
    assert lengths == [5] * 4
    record = ["record", "CartPole-v1", "--policy", str(tmp_path / "run"), "--episodes", "3"]
    assert not main([*record, "--out", str(tmp_path / "own")])
    assert read_about(tmp_path / "own").options == {"max_episode_steps": 5}
    assert read_episodes(tmp_path / "own")[1].lengths.tolist() == [5] * 3
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
    shutil.rmtree(tmp_path / "kept")  # what the environment was made with stands in the run, too
    (episode,) = episodes_of(load_run(tmp_path / "moved"), Playing(environment="CartPole-v1"), None, [0])
    assert len(episode.rewards) == 5


@given(
    st.lists(st.sampled_from(["return", "reward", "action", "step", "score", "x", "mission"]), unique=True, min_size=1)
)
@settings(max_examples=50, deadline=None)
def test_what_is_observed_never_takes_the_name_of_a_column_of_all_episodes(names):
    found = observed({name: np.zeros(2) for name in names})
    assert len(found.arrays) == len(names) and not {"return", "reward", "action", "step", "score"} & found.arrays.keys()
    assert list(found.arrays) == [named(name) for name in names]


ODD = """
import gymnasium, numpy as np
from gymnasium import spaces
from chopmix.projects.decision.environments.scripts import Agent
box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
SPACES = {
    "named": spaces.Dict({"step": box, "word": spaces.Text(9)}), "nested": spaces.Dict({"a": spaces.Dict({"b": box})}),
    "tuple": spaces.Tuple((box, spaces.Discrete(3))), "text": spaces.Dict({"a": box, "word": spaces.Text(9)}),
}
class Odd(gymnasium.Env):
    action_space = spaces.Discrete(2)
    def __init__(self, kind="named", changes=False):
        self.observation_space, self.changes = SPACES[kind], changes
    def seen(self):
        names = list(self.observation_space)
        return {names[0]: np.full(2, self.t, np.float32), "word": f"go {self.t}" if self.changes else "go"}
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen(), {}
    def step(self, action):
        self.t += 1
        return self.seen(), 1.0, self.t == 3, False, {}
class Zero(Agent):
    def act(self, seen):
        return 0
gymnasium.register("Odd-v0", Odd, disable_env_checker=True)
"""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A module of a user's, in the working directory, as for `python train.py`."""
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", str(Path.cwd()))])
    (tmp_path / "odd_steps.py").write_text(ODD)
    monkeypatch.chdir(tmp_path)
    yield "odd_steps:Odd-v0"
    sys.modules.pop("odd_steps", None)
    gymnasium.registry.pop("Odd-v0", None)


@pytest.mark.filterwarnings("ignore:.*WARN")
def test_environments_and_policies_of_the_working_directory_are_recorded(tmp_path, odd, capsys):
    assert not main(["record", odd, "--policy", "odd_steps:Zero", "--episodes", "2", "--out", str(tmp_path / "x")])
    about, found = read_episodes(tmp_path / "x")
    assert about.spaces.texts == ("word",) and list(found.observations) == ["observation.step"]
    row = Windows(found, np.array([0]), np.array([0]), 0)[0]
    assert row["step"]["values"].tolist() == [0, 1, 2] and row["observation.step"]["values"][2].tolist() == [2, 2]
    assert main(["record", odd, "--policy", "odd_steps:None_", "--episodes", "2", "--out", str(tmp_path / "y")]) == 2
    assert "possible are random, script, bot, package.module:Class, a run's folder" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*WARN")
@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("kind=nested", r"observation 'a' is Dict\(.*; possible are Discrete from 0, Box, and Dict of these and texts"),
        ("kind=tuple", r"observation 'observation' is Tuple\(.*; possible are Discrete from 0, Box"),
        ("changes=true", "the text 'word' changes at step 1; it must stay the same for an episode"),
    ],
)
def test_what_cannot_be_observed_is_told(tmp_path, odd, capsys, setting, told):
    assert main(["record", odd, "--setting", setting, "--episodes", "2", "--out", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert re.search(told, said) and "Traceback" not in said


@pytest.mark.filterwarnings("ignore:.*WARN")
def test_a_text_that_all_read_stands_before_time_begins(tmp_path, odd, monkeypatch, capsys):
    """Else it reads the actions that follow, and those before them read it: what leaks is refused, with the remedy."""
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
    said = " ".join(capsys.readouterr().err.split())
    assert "inputs.word: has no place in time, so that it comes last: give it an offset, such as -1" in said
    assert not main(["train", "word.yaml", "--dry-run", "inputs.word.offset=-1"])
    assert "no leak in main" in "".join(capsys.readouterr())


@pytest.mark.system
def test_a_recording_that_is_killed_goes_on(tmp_path):
    """Killed with all its processes at any moment, the same command gives the same files."""
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
    begun = subprocess.Popen([*chopmix, *options, "--out", str(tmp_path / "killed")], start_new_session=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    until = time.monotonic() + 60
    while not (parts := list(tmp_path.glob("killed/part-*.safetensors"))) and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    assert parts
    for name in ("killed", "once"):
        assert not subprocess.run([*chopmix, *options, "--out", str(tmp_path / name)], capture_output=True).returncode
    (tmp_path / "killed" / f".part-00001.safetensors.{socket.gethostname()}.00000000.{begun.pid}").write_bytes(b"half")
    assert not subprocess.run([*chopmix, *options, "--out", str(tmp_path / "killed")], capture_output=True).returncode
    files = {path.name: path.read_bytes() for path in (tmp_path / "once").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()} and len(files) == 4


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux tells the states of processes")
def test_what_a_process_left_that_nobody_has_asked_for_is_deleted(tmp_path):
    """A killed worker stays a zombie until its parent, or who adopts it, asks for it."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    half, own = (tmp_path / f".x.{socket.gethostname()}.00000000.{number}" for number in (ended.pid, os.getpid()))
    half.touch(), own.touch()
    sweep_partials(tmp_path / "x")
    assert not half.exists() and own.exists()
    ended.wait()


def test_what_changes_its_shape_or_is_no_number_is_told():
    steps = [Observed({"a": np.zeros(size)}, {}) for size in (2, 2, 3)]
    with pytest.raises(DataError, match=r"observation 'a' has the shape \(2,\) at first, and \(3,\) at step 2"):
        episode_of(steps, [0, 1, 0], [0.0] * 3, True, 0)
    with pytest.raises(DataError, match="the text 'word' changes at step 1"):
        episode_of([Observed({}, {}), Observed({}, {"word": "go"})], [0, 1], [0.0] * 2, True, 0)
    with pytest.raises(DataError, match="observation 'a' is no array"):
        observed({"a": [[1, 2], [3]]})
    for reward in (float("nan"), float("inf"), None):
        with pytest.raises(DataError, match="which is no finite number"):
            reward_of(reward)


def test_what_is_recorded_for_training_is_told(tmp_path, capsys):
    about = about_of("CartPole-v1", {}, "random", (0.0, 0.0), 0, 3)
    recorded(tmp_path / "x", about)
    assert "recording 3 episodes of CartPole-v1, played by random" in capsys.readouterr().err
    recorded(tmp_path / "x", about)
    assert not capsys.readouterr().err
