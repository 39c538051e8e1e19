"""`chopmix play` and `chopmix record` on the command line: their output, and messages for bad input."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.experiment.next_steps import next_commands
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.files.errors import RunError
from chopmix.projects.decision.agent import Playing, episodes_of
from chopmix.projects.decision.recording.episodes import read_episodes
from chopmix.projects.decision.recording.making import make_environment
from PIL import Image, ImageSequence
from tiers import only

pytest.importorskip("gymnasium")

CONFIGS = ROOT / "configs"
POLE = """
inputs:
  return: {use: sensor, channels: 1, position: null}
  observation: {use: sensor, channels: 4, offset: 0.3, position: null}
  action: {use: category, size: 2, offset: 0.6, position: null}
model: {width: 16, depth: 1, heads: 2, context: 64, attention: causal & same_sample}
tasks:
  act: {use: next_item, target: action, at: observation}
data:
  order: seconds
  dataset: {use: episodes, of: {use: recorded, environment: CartPole-v1, episodes: 20}, window: 8}
training: {steps: 2, samples_per_step: 8}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("played")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        (folder / "pole.yaml").write_text(POLE)
        assert not main(["train", str(folder / "pole.yaml"), f"out={folder / 'pole'}"])
        yield folder / "pole"


def test_a_run_plays_and_its_episodes_are_filmed_and_measured(run, tmp_path, capsys):
    film, figures = tmp_path / "pole.gif", tmp_path / "pole.json"
    options = ["--target", "10", "--target", "400", "--episodes", "3", "--record", str(film), "--json", str(figures)]
    assert not main(["play", str(run), *options])
    output = capsys.readouterr()
    record = json.loads(figures.read_text())
    assert [row["target"] for row in record["played"]] == [10, 400] and record["data"]["worst"] >= 8
    assert "the target return 400 is outside the range of the training data" in output.err
    assert "its training data" in output.out
    with Image.open(film) as frames:
        assert frames.n_frames >= 8
        assert f"{film}: the first episode, " in output.err


def test_the_end_of_a_training_names_a_command_that_plays(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, use, _ = next_commands(load_config(run / "config.yaml", [f"out={run}"]))
    words = use.split()
    assert words[:3] == ["chopmix", "play", str(run)] and words[3] == "--target" and words[5] == "--record"
    assert not main([*words[1:], "--episodes", "1"])
    assert (tmp_path / "first.gif").exists()


def test_a_user_defined_environment_is_trusted_by_its_name(run, tmp_path, monkeypatch, capsys):
    """If the YAML of a run names the environment, `--environment` is enough to play, and printed commands trust it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_poles.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('OwnPole-v0', 'gymnasium.envs.classic_control.cartpole:CartPoleEnv', max_episode_steps=9)\n"
    )
    play = "evaluation: {play: {environment: 'own_poles:OwnPole-v0', targets: [5], episodes: 2}}"
    (tmp_path / "custom.yaml").write_text(f"{POLE}{play}\n")
    assert not main(["train", "custom.yaml"])
    assert "chopmix evaluate runs/custom --trust own_poles --report" in capsys.readouterr().err
    assert not main(
        ["play", "runs/custom", "--environment", "own_poles:OwnPole-v0", "--target", "5", "--episodes", "1"]
    )
    assert main(["play", "runs/custom", "--target", "5"])
    assert "add --trust own_poles" in capsys.readouterr().err


@pytest.mark.parametrize("code, message", [
    ("def policy(a, b):\n    return 0", "TypeError: policy() missing 1 required positional argument: 'b'"),
    ("def policy(a):\n    return a['x']", "policies.py, line 2)"),
    ("class policy:\n    def __init__(self, a):\n        pass\n    def __call__(self, a):\n        pass", "__init__()"),
    ("from chopmix import Agent\nclass policy(Agent):\n    def act(self, o):\n        return o > 1", "TypeError"),
])  # fmt: skip
def test_an_error_of_a_policy_is_one_message_with_its_line(tmp_path, monkeypatch, capsys, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "policies", raising=False)
    (tmp_path / "policies.py").write_text(code)
    assert main(["record", "CartPole-v1", "--policy", "policies:policy", "--episodes", "1", "--out", "r"]) == 2
    errors = capsys.readouterr().err
    assert "the policy failed: " in errors and message in errors and "Traceback" not in errors


def test_the_film_is_written_before_the_other_episodes_are_played(run, tmp_path, monkeypatch):
    from chopmix.projects.decision.commands import play

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(play, "play", interrupted)
    assert main(["play", str(run), "--target", "10", "--record", str(tmp_path / "pole.gif")]) == 130
    assert (tmp_path / "pole.gif").stat().st_size > 1000


MINE = """
import chopmix


def right(observation):
    assert observation.shape == (4,)
    return 1


class Counts:
    def __init__(self):
        self.steps = 0

    def __call__(self, observation):
        self.steps += 1
        return self.steps % 2


class Alternates(chopmix.Agent):
    steps = 0

    def act(self, observation):
        self.steps += 1
        return self.steps % 2


counts = Counts()
"""


def test_any_function_of_an_observation_is_a_policy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_agents.py").write_text(MINE)
    actions = {}
    for name in ("right", "Counts", "Alternates", "counts"):
        words = ["record", "CartPole-v1", "--policy", f"my_agents:{name}", "--episodes", "3", "--out", name]
        assert main(words) == 0
        actions[name] = [episode.actions.tolist() for episode in read_episodes(tmp_path / name)[1]]
    sys.modules.pop("my_agents")
    assert all(set(episode) == {1} for episode in actions["right"])
    assert actions["Counts"] == actions["Alternates"] and all(episode[:3] == [1, 0, 1] for episode in actions["Counts"])
    assert [action for episode in actions["counts"] for action in episode][:5] == [1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "2"], "the target return 2 is outside the range of the training data"),
        (["--environment", "Nowhere-v1"], "environment 'Nowhere-v1' cannot be created"),
        (["--environment", "Pendulum-v1"], "actions have 2 categories, but the environment expects 1 numbers"),
        (["--environment", "Acrobot-v1"], "actions have 2 categories, but the environment expects 3 categories"),
        (["--setting", "sutton_barto_reward"], "a setting must have the form KEY=VALUE"),
        (["--setting", "gravity=3"], "environment 'CartPole-v1' cannot be created"),
        (["--plan", "beams:2"], "cannot plan: no task {use: next_item} predicts reward, return, observation"),
        (
            ["--plan", "beams"],
            "a plan must be a list of key:number pairs such as beams:16,horizon:12,expand:2, in which keys may be "
            "missing; not 'beams'",
        ),
        (["--plan", "beams:2,horizon:2", "--temperature", "1"], "--temperature is for sampled actions"),
        (["--target=nan"], "target returns must be finite numbers, not [nan]"),
        (["--record", "film.mp4"], "the name of the file must end in .gif"),
        (["--episodes", "0"], "episodes 0"),
    ],
)
def test_bad_options_are_reported(run, capsys, options, message):
    status = main(["play", str(run), "--episodes", "1", *options])
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
    assert bool(status) == (options[0] != "--target")


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """A run of the configuration of planning, with a small model."""
    folder = tmp_path_factory.mktemp("plans")
    small = ["model.width=16", "model.heads=1", "model.depth=1", "data.dataset.of.episodes=20", "training.steps=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        config = str(CONFIGS / "decision" / "planning.yaml")
        unplayed = ["evaluation.play=null", "checkpoints.best=val/loss", "training.samples_per_step=4"]
        assert not main(["train", config, *small, *unplayed, f"out={folder / 'run'}"])
        yield folder / "run"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--plan", "beams:2,horizon:45"], "", marks=pytest.mark.system),
        (
            ["--plan", "beams:2,horizon:46"],
            "a horizon of 46 steps needs 230 tokens and two past steps 12, more than the context of",
        ),
        (
            ["--target", "7"],
            "is not conditioned on returns: its input 'return' comes after the action. Remove the target",
        ),
        (["--setting", "grid=true"], "the input 'agent' reads 'agent', which this environment does not have; its"),
    ],
)
def test_the_longest_plan_that_fits_is_played_and_a_longer_one_is_refused(plans, capsys, options, message):
    status = main(["play", str(plans), "--episodes", "1", *options])
    errors = capsys.readouterr().err
    fits = options[-1].endswith(":45")
    assert bool(status) != fits and (fits or message in errors) and "Traceback" not in errors


@pytest.mark.system
def test_returns_with_planning_without_and_of_other_runs_are_in_one_table(plans, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    more = ["--plan", "beams:2,horizon:2", "--against", str(plans), "--episodes", "2", "--json", str(figures)]
    assert not main(["play", str(plans), *more])
    rows = json.loads(figures.read_text())["played"]
    assert [row["plan"] for row in rows] == ["beams:2,horizon:2,expand:2", None, None]
    assert rows[1]["return"] == rows[2]["return"] and {row["who"] for row in rows} == {rows[0]["who"]}
    assert "its training data" in capsys.readouterr().out


@pytest.mark.system
def test_a_run_without_returns_takes_no_target(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    config, small = str(CONFIGS / "decision" / "cartpole.yaml"), ["training.steps=2", "data.dataset.of.episodes=20"]
    cloning = ["inputs.return=null", "data.dataset.balance=0", "evaluation.play=null", f"out={tmp_path / 'run'}"]
    assert not main(["train", config, *small, "training.samples_per_step=4", "model.width=16", *cloning])
    assert main(["play", str(tmp_path / "run"), "--target", "40", "--episodes", "2"]) == 2
    assert "is not conditioned on returns: none of its inputs reads 'return'" in capsys.readouterr().err
    early = [*small, f"out={tmp_path / 'other'}", "inputs.action.offset=0.2"]
    assert main(["train", config, *early]) == 2
    message = "tasks.act.at: the offset of 'action' (0.2) must be greater than that of 'observation' (0.3), by less"
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("grid", ["true", "false"])
def test_the_script_finds_the_door_in_cells_and_in_ids(tmp_path, capsys, grid):
    options = ["--policy", "script", "--setting", f"grid={grid}", "--episodes", "30", "--out", str(tmp_path / "x")]
    assert not main(["record", "chopmix/KeyToDoor-v0", *options])
    assert read_episodes(tmp_path / "x")[1].values.mean() > 0.8 and "30 episodes" in capsys.readouterr().out


@pytest.mark.system
def test_a_run_plays_without_its_data(tmp_path, monkeypatch, capsys):
    """The figures of the data are omitted: nothing is recorded again, and a missing folder is no error."""
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    assert not main(["record", "CartPole-v1", "--policy", "script", "--episodes", "20", "--out", str(data)])
    config, small = str(CONFIGS / "decision" / "cartpole.yaml"), ["training.steps=2", "training.samples_per_step=4"]
    for name, of in (("kept", []), ("folder", [f"data.dataset.of={{use: folder, path: {data}}}"])):
        more = ["evaluation.play=null", "model.width=16", f"out={tmp_path / name}"]
        assert not main(["train", config, *small, *(of or ["data.dataset.of.episodes=20"]), *more])
    shutil.rmtree(data)
    shutil.rmtree(tmp_path / "cache")
    for name, more in (("kept", []), ("folder", ["--environment", "CartPole-v1"])):
        capsys.readouterr()
        assert not main(["play", str(tmp_path / name), "--target", "20", "--episodes", "2", *more])
        assert "training data" not in capsys.readouterr().out and not (tmp_path / "cache" / "episodes").exists()
    assert not main(["play", str(tmp_path / "folder"), "--target", "20", "--episodes", "2"])  # as in data.json
    (tmp_path / "folder" / "data.json").unlink()
    assert main(["play", str(tmp_path / "folder"), "--target", "20", "--episodes", "2"]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_bad_options_of_record_are_reported(run, tmp_path, capsys):
    for more, message in (
        (["--policy", "script", "--target", "3"], "--target needs a run as --policy; 'script' is not the"),
        (["--policy", str(run), "--noise", "0", "1"], "is a run, which samples the actions itself"),
        (["--policy", str(run), "--workers", "2"], "a run plays all episodes in one process"),
        (["--workers", "0"], "--workers 0: at least one process is needed"),
        (["--policy", "skript"], "policy 'skript': possible are random, script, bot"),
        (["--policy", "{" * 500], "policy '{{{"),
        (["--policy", "a\0b"], "possible are random, script, bot"),
        (["--policy", "json:JSONDecoder"],
         "policy 'json:JSONDecoder': it is neither a subclass of chopmix.Agent (with a method `act(self, "
         "observation)`) nor a function from an observation to an action"),
        (["--policy", "json:decoder"], "policy 'json:decoder': it is neither a subclass of chopmix.Agent"),
    ):  # fmt: skip
        assert main(["record", "CartPole-v1", *more, "--episodes", "2", "--out", str(tmp_path / "x")]) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_paths_that_are_too_long_are_reported(run, capsys):
    long = "a" * 300
    assert main(["record", "CartPole-v1", "--episodes", "2", "--out", long]) == 1
    assert "aaa cannot be written: File name too long" in capsys.readouterr().err
    for source in ("folder", "minari"):
        data = f"{{use: episodes, of: {{use: {source}, path: {long}}}, window: 3}}"
        assert main(["evaluate", str(run), "--data", data]) == 2
        assert "there is no folder aaa" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["Corridor-v0", "mine/Corridor-v0"])
def test_the_message_for_an_unregistered_environment_asks_for_its_module(tmp_path, capsys, name):
    assert main(["record", name, "--out", str(tmp_path / "x")]) == 2
    message = f"For your own environment add the module that registers it: my_env:{name}"
    assert message in " ".join(capsys.readouterr().err.split())
    for other in ("CartPole-v7", "json:Corridor-v0"):
        assert main(["record", other, "--out", str(tmp_path / "x")]) == 2
        assert "my_env" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ("FOLDER", "'FOLDER' is a folder: {use: folder, path: FOLDER} or {use: minari, path: FOLDER}"),
        ("nowhere", "nothing is named 'nowhere'; possible: recorded, folder, minari, or package.module:Class"),
        ("{use: folder, folder: FOLDER}",
         "of.folder: Folder has no such key; it needs 'path': {use: folder, path: FOLDER}"),
        ("{use: folder, folder: FOLDER, window: 3}", "Folder needs 'path'"),
    ],
)  # fmt: skip
def test_the_message_for_a_recorded_folder_shows_the_correct_yaml(tmp_path, capsys, of, message):
    (tmp_path / "rec").mkdir()
    (tmp_path / "pole.yaml").write_text(POLE)
    of, message = (text.replace("FOLDER", str(tmp_path / "rec")) for text in (of, message))
    assert main(["train", str(tmp_path / "pole.yaml"), f"data.dataset.of={of}", f"out={tmp_path / 'x'}"]) == 2
    errors = " ".join(capsys.readouterr().err.split())
    assert message in errors and errors.count("Folder needs") == ("window" in of)


@pytest.mark.filterwarnings("ignore:.*WARN")
def test_an_environment_that_renders_nothing_is_reported(run, tmp_path, capsys, monkeypatch):
    environment = type(make_environment("CartPole-v1").unwrapped)
    monkeypatch.setattr(environment, "render", lambda self: None)
    assert main(["play", str(run), "--target", "9", "--episodes", "1", "--record", str(tmp_path / "x.gif")]) == 2
    assert "--record: the environment renders no images, but returns NoneType" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("evaluation.play={environment: Nowhere-v1}", "environment 'Nowhere-v1' cannot be created"),
        ("evaluation.play={environment: Pendulum-v1}", "have 2 categories, but the environment expects 1 numbers"),
        ("evaluation.play={plan: {beams: 2, horizon: 2}}", "cannot plan: no task {use: next_item} predicts"),
    ],
)
def test_play_settings_are_checked_before_the_first_step(run, tmp_path, capsys, change, message):
    assert main(["train", str(run.parent / "pole.yaml"), change, f"out={tmp_path / 'x'}"]) == 2
    assert message in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "x" / "checkpoints").exists()


def test_more_categories_than_an_input_has_are_reported(plans):
    run = load_run(plans)
    run.choppers["agent"] = replace(run.choppers["agent"], size=20)
    with pytest.raises(RunError, match="the input 'agent' has 20 categories, but 'agent' has 26 in this environment"):
        list(episodes_of(run, Playing(), None, range(1)))


@pytest.mark.system
def test_a_run_records_its_episodes_and_continues_where_it_stopped(run, tmp_path, capsys):
    """The same episodes whether recorded at once or in two parts."""
    options = ["--policy", str(run), "--target", "30"]
    for number in ("100", "130"):
        assert not main(["record", "CartPole-v1", *options, "--episodes", number, "--out", str(tmp_path / "parts")])
    assert not main(["record", "CartPole-v1", *options, "--episodes", "130", "--out", str(tmp_path / "once")])
    (about, parts), (_, once) = (read_episodes(tmp_path / name) for name in ("parts", "once"))
    assert about.policy.endswith("asked for 30.0") and len(parts) == len(once) == 130
    assert (parts.actions == once.actions).all() and (parts.lengths == once.lengths).all()
    assert "returns " in capsys.readouterr().out
    played = episodes_of(load_run(run), Playing(targets=(30.0,), seed=0), 30.0, range(130))
    seeds = {episode.seed for episode in played}
    assert not {*once.seeds.tolist()} & seeds, "evaluation has other start states"


@pytest.mark.filterwarnings("ignore:.*WARN")
@pytest.mark.parametrize(
    ("fps", "milliseconds"), only(2, [(50, 20), (None, 50), (10, 100), (4, 250), (1000, 20), ("fast", 50)])
)
def test_a_film_has_the_frame_rate_of_its_environment(run, tmp_path, monkeypatch, fps, milliseconds):
    """A GIF stores hundredths of a second, and viewers slow down frames of less than two of them."""
    environment = type(make_environment("CartPole-v1").unwrapped)
    metadata = {key: value for key, value in environment.metadata.items() if key != "render_fps"}
    monkeypatch.setattr(environment, "metadata", metadata | ({} if fps is None else {"render_fps": fps}))
    options = [
        "--target",
        "9",
        "--episodes",
        "1",
        "--record",
        str(tmp_path / "x.gif"),
        "--json",
        str(tmp_path / "x.json"),
    ]
    assert not main(["play", str(run), *options])
    steps = json.loads((tmp_path / "x.json").read_text())["played"][0]["steps"]
    with Image.open(tmp_path / "x.gif") as film:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(film)]  # equal frames are merged
    assert sum(durations) == steps * milliseconds + 1000, "the state after the last step is the last frame"
