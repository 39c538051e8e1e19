"""`chopmix play`, `record` and `in_context` as they are typed: what they write, and what they say of bad input."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from chopmix.commands.cli import main
from chopmix.data.samples import MadeDataset
from chopmix.experiment.run import load_run
from chopmix.experiment.run_folder import RunError
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.inference import generate as generating
from chopmix.inference.generate import Generating, generate_items
from chopmix.projects.decision.environments.episodes import read_episodes
from chopmix.projects.decision.environments.making import make_environment
from chopmix.projects.decision.playing import episodes_of
from chopmix.projects.decision.rollout import Playing
from chopmix.projects.in_context import curves as learned
from chopmix.projects.in_context.scoring import seen
from PIL import Image, ImageSequence
from test_import_gpt2 import reference as gpt2

pytest.importorskip("gymnasium")

CONFIGS = Path(__file__).parents[2] / "configs"
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
PAIRS = """
inputs:
  x: {use: sensor, channels: 2, position: null}
  y: {use: sensor, channels: 1, offset: 0.5, position: null}
model: {width: 16, depth: 2, heads: 2, context: 20, attention: causal & same_sample}
tasks:
  next: {use: next_item, target: y, at: x}
data: {order: seconds, dataset: {use: in_context, dimension: 2, examples: 6, noise: 0.1, samples: 64}}
training: {steps: 2, samples_per_step: 8}
"""


def header(*rivals: str) -> str:
    """The first line of the CSV of functions."""
    both = [each for name in rivals for each in (name, f"{name} se")]
    paired = [each for name in rivals for each in (f"model - {name}", f"model - {name} se")]
    return ",".join(["where", "examples", "functions", "model", "model se", *both, *paired])


@pytest.fixture(autouse=True)
def few_functions(monkeypatch):
    """Few functions validate, and the probe of the layers is fitted to few."""
    monkeypatch.setattr(MadeDataset, "held_back", 40)
    monkeypatch.setattr(learned, "FITTED", 60)
    monkeypatch.setattr(learned, "SCORED", 40)


RULES = """
inputs:
  prompt: {use: text, encoding: characters, position: null}
  answer: {use: text, encoding: characters, position: null}
model: {width: 16, depth: 1, heads: 2, context: 160, attention: same_sample & (causal | from(prompt))}
tasks: {answer: {use: language_modeling, target: answer, metrics: [exact_match]}}
data: {dataset: {use: rules, samples: 64}}
training: {steps: 2, samples_per_step: 8}
evaluation: {generated: 8}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("played")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        (folder / "pole.yaml").write_text(POLE)
        assert not main(["train", str(folder / "pole.yaml"), f"out={folder / 'pole'}"])
        yield folder / "pole"


def test_a_run_plays_and_its_episodes_are_filmed_and_told(run, tmp_path, capsys):
    film, told = tmp_path / "pole.gif", tmp_path / "pole.json"
    options = ["--target", "10", "--target", "400", "--episodes", "3", "--record", str(film), "--json", str(told)]
    assert not main(["play", str(run), *options])
    said = capsys.readouterr()
    found = json.loads(told.read_text())
    assert [row["target"] for row in found["played"]] == [10, 400] and found["data"]["worst"] >= 8
    assert "no episode of the data has 400: they reach" in said.err and "the data" in said.out
    with Image.open(film) as frames:
        assert frames.n_frames >= 8


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--target", "2"], "no episode of the data has 2: they reach"),
        (["--environment", "Nowhere-v1"], "environment 'Nowhere-v1' cannot be made"),
        (["--environment", "Pendulum-v1"], "acts with 2 categories, the environment takes 1 numbers"),
        (["--environment", "Acrobot-v1"], "acts with 2 categories, the environment takes 3 categories"),
        (["--setting", "sutton_barto_reward"], "a setting is KEY=VALUE"),
        (["--setting", "gravity=3"], "environment 'CartPole-v1' cannot be made"),
        (["--plan", "beams:2"], "cannot plan: no task {use: next_item} predicts reward, return, observation"),
        (["--plan", "beams"], "a plan is written beams:16,horizon:12,expand:2, not 'beams'"),
        (["--plan", "beams:2,horizon:2", "--temperature", "1"], "--temperature is of actions that are drawn"),
        (["--target=nan"], "the returns that are asked for must be finite numbers, not [nan]"),
        (["--record", "film.mp4"], "an episode is written as .gif"),
        (["--episodes", "0"], "episodes 0"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(run, capsys, options, told):
    status = main(["play", str(run), "--episodes", "1", *options])
    said = capsys.readouterr()
    assert told in said.err and "Traceback" not in said.err
    assert bool(status) == (options[0] != "--target")


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """The configuration of planning, made small."""
    folder = tmp_path_factory.mktemp("plans")
    small = ["model.width=16", "model.heads=1", "model.depth=1", "data.dataset.of.episodes=20", "training.steps=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        config = str(CONFIGS / "decision" / "planning.yaml")
        unplayed = ["evaluation.play=null", "checkpoints.best=val/loss", "training.samples_per_step=4"]
        assert not main(["train", config, *small, *unplayed, f"out={folder / 'run'}"])
        yield folder / "run"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param(["--plan", "beams:2,horizon:45"], "", marks=pytest.mark.system),
        (
            ["--plan", "beams:2,horizon:46"],
            "46 steps ahead are 230 tokens, and two steps of what happened 12, more than its",
        ),
        (
            ["--target", "7"],
            "is told no return, since its input 'return' comes after the action: none can be asked for",
        ),
        (["--setting", "grid=true"], "the input 'agent' reads 'agent'; observed there are observation"),
    ],
)
def test_plans_that_do_not_fit_are_told_and_the_longest_that_fits_is_played(plans, capsys, options, told):
    status = main(["play", str(plans), "--episodes", "1", *options])
    said = capsys.readouterr()
    fits = options[-1].endswith(":45")
    assert bool(status) != fits and (fits or told in said.err) and "Traceback" not in said.err


def test_a_planned_return_stands_beside_the_reactive_one_and_those_of_other_runs(plans, tmp_path, capsys):
    told = tmp_path / "told.json"
    more = ["--plan", "beams:2,horizon:2", "--beside", str(plans), "--episodes", "2", "--json", str(told)]
    assert not main(["play", str(plans), *more])
    rows = json.loads(told.read_text())["played"]
    assert [row["plan"] for row in rows] == ["beams:2,horizon:2,expand:2", None, None]
    assert rows[1]["return"] == rows[2]["return"] and {row["who"] for row in rows} == {rows[0]["who"]}
    assert "the data" in capsys.readouterr().out


def test_a_run_that_is_told_no_return_is_asked_for_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    config, small = str(CONFIGS / "decision" / "cartpole.yaml"), ["training.steps=2", "data.dataset.of.episodes=20"]
    cloning = ["inputs.return=null", "data.dataset.balance=0", "evaluation.play=null", f"out={tmp_path / 'run'}"]
    assert not main(["train", config, *small, "training.samples_per_step=4", "model.width=16", *cloning])
    assert main(["play", str(tmp_path / "run"), "--target", "40", "--episodes", "2"]) == 2
    assert "is told no return, since none of its inputs reads 'return'" in capsys.readouterr().err
    wrong = [*small, f"out={tmp_path / 'other'}", "inputs.action.offset=0.2"]
    assert main(["train", config, *wrong]) == 2
    told = "tasks.act.at: 'action' has the offset 0.2, 'observation', at which it is predicted, 0.3: it must be larger"
    assert told in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("grid", ["true", "false"])
def test_the_script_finds_the_door_in_cells_and_in_ids(tmp_path, capsys, grid):
    options = ["--policy", "script", "--setting", f"grid={grid}", "--episodes", "30", "--out", str(tmp_path / "x")]
    assert not main(["record", "chopmix/KeyToDoor-v0", *options])
    assert read_episodes(tmp_path / "x")[1].values.mean() > 0.8 and "30 episodes" in capsys.readouterr().out


@pytest.mark.system
def test_a_run_plays_without_its_data(tmp_path, monkeypatch, capsys):
    """Without figures of the data: nothing is recorded for them, and a folder may be gone."""
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    assert not main(["record", "CartPole-v1", "--policy", "script", "--episodes", "20", "--out", str(data)])
    config, small = str(CONFIGS / "decision" / "cartpole.yaml"), ["training.steps=2", "training.samples_per_step=4"]
    for name, of in (("kept", []), ("folder", [f"data.dataset.of={{use: folder, path: {data}}}"])):
        own = ["data.dataset.of.episodes=20", "evaluation.play=null", "model.width=16", f"out={tmp_path / name}"]
        assert not main(["train", config, *small, *(of or own[:1]), *own[1:]])
    shutil.rmtree(data)
    shutil.rmtree(tmp_path / "cache")
    for name, more in (("kept", []), ("folder", ["--environment", "CartPole-v1"])):
        capsys.readouterr()
        assert not main(["play", str(tmp_path / name), "--target", "20", "--episodes", "2", *more])
        assert "the data" not in capsys.readouterr().out and not (tmp_path / "cache" / "episodes").exists()
    assert not main(["play", str(tmp_path / "folder"), "--target", "20", "--episodes", "2"])  # data.json knows where
    (tmp_path / "folder" / "data.json").unlink()
    assert main(["play", str(tmp_path / "folder"), "--target", "20", "--episodes", "2"]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_what_cannot_be_recorded_is_told(run, tmp_path, capsys):
    for more, told in (
        (["--policy", "script", "--target", "3"], "--target is the return that a run is asked for; 'script' is none"),
        (["--policy", str(run), "--noise", "0", "1"], "is a run, which draws its actions itself"),
        (["--policy", str(run), "--workers", "2"], "a run plays its episodes side by side in one process"),
        (["--workers", "0"], "--workers 0: at least one must play"),
        (["--policy", "skript"], "policy 'skript': possible are random, script, bot"),
        (["--policy", "{" * 500], "policy '{{{"),
        (["--policy", "a\0b"], "possible are random, script, bot"),
        (["--policy", "json:JSONDecoder"],
         "policy 'json:JSONDecoder' is no subclass of Agent. Write `from "
         "chopmix.projects.decision.environments.scripts import Agent` and `class JSONDecoder(Agent):` "
         "with a method `act(self, seen)`"),
        (["--policy", "json:loads"], "policy 'json:loads' is no subclass of Agent. Write"),
    ):  # fmt: skip
        assert main(["record", "CartPole-v1", *more, "--episodes", "2", "--out", str(tmp_path / "x")]) == 2
        assert told in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_paths_that_are_too_long_are_told(run, capsys):
    long = "a" * 300
    assert main(["record", "CartPole-v1", "--episodes", "2", "--out", long]) == 1
    assert "aaa cannot be written: File name too long" in capsys.readouterr().err
    for source in ("folder", "minari"):
        data = f"{{use: episodes, of: {{use: {source}, path: {long}}}, window: 3}}"
        assert main(["evaluate", str(run), "--data", data]) == 2
        assert "there is no folder aaa" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["Corridor-v0", "mine/Corridor-v0"])
def test_an_environment_that_nobody_registered_is_named_with_its_module(tmp_path, capsys, name):
    assert main(["record", name, "--out", str(tmp_path / "x")]) == 2
    told = f"An environment of your own is named with the module that registers it: my_env:{name}"
    assert told in " ".join(capsys.readouterr().err.split())
    for other in ("CartPole-v7", "json:Corridor-v0"):
        assert main(["record", other, "--out", str(tmp_path / "x")]) == 2
        assert "my_env" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("of", "told"),
    [
        ("FOLDER", "'FOLDER' is a folder: {use: folder, path: FOLDER} or {use: minari, path: FOLDER}"),
        ("nowhere", "nothing is named 'nowhere'; possible: recorded, folder, minari, or package.module:Class"),
        ("{use: folder, folder: FOLDER}",
         "of.folder: Folder has no such key; it needs 'path': {use: folder, path: FOLDER}"),
        ("{use: folder, folder: FOLDER, window: 3}", "Folder needs 'path'"),
    ],
)  # fmt: skip
def test_episodes_in_a_folder_are_named_in_the_message(tmp_path, capsys, of, told):
    """Whatever a user writes for a folder that was recorded, the message says what to write."""
    (tmp_path / "rec").mkdir()
    (tmp_path / "pole.yaml").write_text(POLE)
    of, told = (each.replace("FOLDER", str(tmp_path / "rec")) for each in (of, told))
    assert main(["train", str(tmp_path / "pole.yaml"), f"data.dataset.of={of}", f"out={tmp_path / 'x'}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert told in said and said.count("Folder needs") == ("window" in of)


@pytest.mark.filterwarnings("ignore:.*WARN")
def test_an_environment_that_draws_nothing_is_told(run, tmp_path, capsys, monkeypatch):
    made = type(make_environment("CartPole-v1").unwrapped)
    monkeypatch.setattr(made, "render", lambda self: None)
    assert main(["play", str(run), "--target", "9", "--episodes", "1", "--record", str(tmp_path / "x.gif")]) == 2
    assert "--record: the environment draws no pictures of itself, but gives NoneType" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("evaluation.play={environment: Nowhere-v1}", "environment 'Nowhere-v1' cannot be made"),
        ("evaluation.play={environment: Pendulum-v1}", "acts with 2 categories, the environment takes 1 numbers"),
        ("evaluation.play={plan: {beams: 2, horizon: 2}}", "cannot plan: no task {use: next_item} predicts"),
    ],
)
def test_what_cannot_be_played_is_told_before_the_first_step(run, tmp_path, capsys, change, told):
    assert main(["train", str(run.parent / "pole.yaml"), change, f"out={tmp_path / 'x'}"]) == 2
    assert told in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "x" / "checkpoints").exists()


def test_more_categories_than_an_input_reads_are_told(plans):
    run = load_run(plans)
    run.choppers["agent"] = replace(run.choppers["agent"], size=20)
    with pytest.raises(RunError, match="the input 'agent' reads 20 categories, but 'agent' there is one of 26"):
        list(episodes_of(run, Playing(), None, range(1)))


@pytest.mark.system
def test_a_run_records_what_it_does_and_goes_on_where_it_stopped(run, tmp_path, capsys):
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
    assert not {*once.seeds.tolist()} & {each.seed for each in played}, "what is judged begins elsewhere"


@pytest.mark.filterwarnings("ignore:.*WARN")
@pytest.mark.parametrize(("fps", "milliseconds"), [(50, 20), (10, 100), (4, 250), (1000, 20), (None, 50), ("fast", 50)])
def test_a_film_runs_as_fast_as_its_environment_says(run, tmp_path, monkeypatch, fps, milliseconds):
    """A GIF counts hundredths of a second, and programs that show it wait longer for less than two of them."""
    made = type(make_environment("CartPole-v1").unwrapped)
    metadata = {key: value for key, value in made.metadata.items() if key != "render_fps"}
    monkeypatch.setattr(made, "metadata", metadata | ({} if fps is None else {"render_fps": fps}))
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
        shown = [frame.info["duration"] for frame in ImageSequence.Iterator(film)]  # equal frames are joined
    assert sum(shown) == (steps - 1) * milliseconds + 1000


def test_what_is_learned_in_the_context_is_written(tmp_path, capsys):
    (tmp_path / "pairs.yaml").write_text(PAIRS)
    assert not main(["train", str(tmp_path / "pairs.yaml"), f"out={tmp_path / 'pairs'}"])
    capsys.readouterr()
    assert not main(["in_context", str(tmp_path / "pairs"), "--functions", "40", "--out", str(tmp_path)])
    said = capsys.readouterr()
    lines = (tmp_path / "in_context.csv").read_text().splitlines()
    assert lines[0] == header("least squares", "ridge", "nearest neighbours") + ",layers,R2,R2 se"
    assert len(lines) == 1 + 3 * 6 + 2 * 3
    assert lines[-1].startswith('"ridge\'s weights, read off the mean of the values",')
    assert "as trained, 20 functions, ± standard error" in said.out and "model - ridge" in said.out
    assert (
        "ridge's weights read off each layer at the next point, R2 on 40 functions, of a map fitted to 60" in said.out
    )
    row = dict(zip(lines[0].split(","), lines[3].split(",")))
    assert row["functions"] == "20" and float(row["model - ridge"]) == pytest.approx(
        float(row["model"]) - float(row["ridge"])
    )
    assert all(float(row[f"{name} se"]) > 0 for name in ("model", "ridge", "model - ridge"))
    with Image.open(tmp_path / "in_context.png") as picture:
        assert picture.width > picture.height
    assert main(["in_context", str(tmp_path / "pairs"), "--functions", "2"]) and "from 4 to" in capsys.readouterr().err


@pytest.mark.system
def test_what_is_learned_is_measured_at_the_end_of_training(tmp_path, capsys):
    """As the command measures it; a run that learns nothing so is told before its first step."""
    (tmp_path / "pairs.yaml").write_text(PAIRS + "evaluation: {in_context: 40}\n")
    assert not main(["train", str(tmp_path / "pairs.yaml"), f"out={tmp_path / 'pairs'}"])
    table = (tmp_path / "pairs" / "in_context.csv").read_text()
    assert (tmp_path / "pairs" / "in_context.png").exists() and len(table.splitlines()) == 1 + 3 * 6 + 2 * 3
    assert not main(["in_context", str(tmp_path / "pairs"), "--functions", "40", "--out", str(tmp_path)])
    assert (tmp_path / "in_context.csv").read_text() == table
    said = " ".join("".join(capsys.readouterr()).split())
    assert re.search(r"squared error after 3 examples, of 20 functions: model [\d.]+ ± [\d.]+; least squares", said)
    assert re.search(r"ridge [\d.]+ ± [\d.]+, model - ridge -?[\d.]+ ± [\d.]+; nearest", said)
    assert re.search(r"R2 on 40 functions, of a map fitted to 60 others: -?[\d.]+ ± [\d.]+, ", said)
    assert main(["train", str(tmp_path / "pairs.yaml"), "evaluation.in_context=3", f"out={tmp_path / 'x'}"]) == 2
    assert "from 4 to 1,000,000 samples tell what is learned in the context, not 3" in capsys.readouterr().err
    assert main(["in_context", str(tmp_path / "pairs"), "--functions", str(2**63 - 1)]) == 2
    assert "in the context, not 9,223,372,036,854,775,807" in capsys.readouterr().err
    (tmp_path / "pole.yaml").write_text(POLE)
    assert main(["train", str(tmp_path / "pole.yaml"), "evaluation.in_context=40", f"out={tmp_path / 'y'}"]) == 2
    assert "was not trained to learn from examples" in " ".join(capsys.readouterr().err.split())
    assert not any((tmp_path / name / "checkpoints").exists() for name in "xy")


@pytest.mark.system
def test_functions_of_ones_own_are_measured_at_the_end_of_training(tmp_path, monkeypatch):
    code = "from chopmix.projects.in_context.functions import Linear\nclass Own(Linear):\n    pass\n"
    (tmp_path / "own_functions.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    own = PAIRS.replace("in_context,", "in_context, function: {use: 'own_functions:Own'},")
    (tmp_path / "pairs.yaml").write_text(own + "evaluation: {in_context: 8}\n")
    assert not main(["train", str(tmp_path / "pairs.yaml"), f"out={tmp_path / 'pairs'}"])
    lines = (tmp_path / "pairs" / "in_context.csv").read_text().splitlines()
    assert lines[0] == header("ridge", "nearest neighbours") + ",layers,R2,R2 se"
    assert (tmp_path / "pairs" / "summary.json").exists()


def test_rules_are_measured_as_far_as_the_context_goes(tmp_path, capsys):
    (tmp_path / "rules.yaml").write_text(RULES.replace("generated: 8", "generated: 8, in_context: 4"))
    few = ["model.context=32", "data.dataset.examples=1"]
    assert not main(["train", str(tmp_path / "rules.yaml"), *few, f"out={tmp_path / 'rules'}"])
    lines = (tmp_path / "rules" / "in_context.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == ["0", "1", "2"] * 3
    assert "4 examples are " in " ".join("".join(capsys.readouterr()).split())
    uncompared = "tasks.answer.metrics=[]"
    assert main(["train", str(tmp_path / "rules.yaml"), uncompared, f"out={tmp_path / 'x'}"]) == 2
    assert "writes no answers that are compared" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x" / "checkpoints").exists()


def test_more_examples_than_the_context_holds_are_told(tmp_path, capsys):
    (tmp_path / "pairs.yaml").write_text(PAIRS)
    more = "data.dataset.examples=11"
    assert main(["train", str(tmp_path / "pairs.yaml"), more, f"out={tmp_path / 'x'}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "its 22 tokens of x and y are more than the context of 20: enlarge that, or shorten the samples" in said
    assert "22 tokens" in said and "context of 20" in said, said
    (tmp_path / "rules.yaml").write_text(RULES)
    assert main(["train", str(tmp_path / "rules.yaml"), "model.context=20", f"out={tmp_path / 'y'}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "tokens, more than the context of 20; data.too_long: drop would leave out its prompt" in said, said


@pytest.mark.parametrize(
    "function, rivals",
    [
        ("{use: sparse, nonzero: 1}", ("least squares", "ridge", "lasso")),
        ("{use: network, hidden: 3}", ("ridge", "nearest neighbours", "network kernel")),
        ("{use: tree, depth: 2}", ("ridge", "nearest neighbours", "greedy tree")),
    ],
)  # fmt: skip
@pytest.mark.system
def test_every_kind_of_function_stands_beside_its_rivals(tmp_path, capsys, function, rivals):
    (tmp_path / "pairs.yaml").write_text(PAIRS.replace("in_context,", f"in_context, function: {function},"))
    assert not main(["train", str(tmp_path / "pairs.yaml"), f"out={tmp_path / 'pairs'}"])
    assert not main(["in_context", str(tmp_path / "pairs"), "--functions", "8"])
    lines = (tmp_path / "pairs" / "in_context.csv").read_text().splitlines()
    assert lines[0] == header(*rivals) and len(lines) == 1 + 3 * 6
    assert "ridge's weights" not in capsys.readouterr().out, "they are right for linear functions alone"


@pytest.mark.system
def test_layers_are_read_at_the_points_and_at_the_values(tmp_path):
    """Before the first layer the vector at a value tells that value, and that at the next point does not; the mean over
    several values tells their mean."""
    (tmp_path / "pairs.yaml").write_text(PAIRS)
    train(load_config(tmp_path / "pairs.yaml", [f"out={tmp_path / 'pairs'}"]))
    run = load_run(tmp_path / "pairs")
    functions = run.dataset()
    functions.held_back = 400
    split = run.open("val", functions)
    assert not seen(run.model, "next", run.tasks["next"], split).vectors
    for depth in (1, 4):
        found, unread = seen(run.model, "next", run.tasks["next"], split, depth), {}
        told = found.y[:, :depth].mean(1)
        for place, layers in found.vectors.items():
            vectors = torch.cat([layers[0].double(), torch.ones(400, 1)], dim=1)
            left = told - vectors @ torch.linalg.pinv(vectors) @ told
            unread[place] = float(left.square().sum() / (told - told.mean()).square().sum())
        assert unread["the mean of the values"] < 0.01 and unread["the next point"] > 0.8


@pytest.mark.system
def test_every_seed_is_judged_on_functions_and_rules_of_its_own(tmp_path, monkeypatch):
    """None of which it was trained or validated on; the same again where it is asked again."""
    (tmp_path / "pairs.yaml").write_text(PAIRS)
    read, points = [], {}
    monkeypatch.setattr(learned, "seen", lambda *a: read.append(a[3]) or seen(*a))
    for seed in (0, 1):
        train(load_config(tmp_path / "pairs.yaml", [f"out={tmp_path / str(seed)}", f"training.seed={seed}"]))
        for _ in range(2):
            read.clear()
            learned.learned(load_run(tmp_path / str(seed)), 20, lambda text: None)
            trained, *_elsewhere, probed = [split.samples for split in read]
            keys = [*trained.keys, *probed.keys]
            assert points.setdefault(seed, keys) == keys and len({*keys}) == len(keys) == 20 + 100
    assert not {*points[0]} & {*points[1]}
    dataset = load_run(tmp_path / "0").dataset()
    assert not {*points[0], *points[1]} & {*dataset.open("train").keys, *dataset.open("val").keys}


@pytest.mark.system
def test_data_elsewhere_are_larger_than_those_of_the_run(tmp_path, capsys):
    """Points twice as far as it was trained on, whatever its `scale`."""
    (tmp_path / "pairs.yaml").write_text(PAIRS.replace("in_context,", "in_context, scale: 2.0,"))
    assert not main(["train", str(tmp_path / "pairs.yaml"), f"out={tmp_path / 'pairs'}"])
    assert not main(["in_context", str(tmp_path / "pairs"), "--functions", "40"])
    lines = [line.split(",") for line in (tmp_path / "pairs" / "in_context.csv").read_text().splitlines()]
    first = {where: float(error) for where, examples, _, error, *_ in lines if examples == "0"}
    assert first["points twice as far"] > 2.5 * first["as trained"]


def test_rules_in_the_prompt_are_written(tmp_path, capsys):
    (tmp_path / "rules.yaml").write_text(RULES)
    assert not main(["train", str(tmp_path / "rules.yaml"), f"out={tmp_path / 'rules'}"])
    assert not main(["in_context", str(tmp_path / "rules"), "--functions", "12"])
    lines = (tmp_path / "rules" / "in_context.csv").read_text().splitlines()
    assert lines[0] == "rules,examples,answers,exact_match,exact_match se" and len(lines) == 1 + 3 * 5
    assert [line.split(",")[:2] for line in lines[1:3]] == [["train", "0"], ["train", "1"]]
    assert "exact match" in capsys.readouterr().out and (tmp_path / "rules" / "in_context.png").exists()


def test_an_answer_is_generated_from_a_prompt_that_is_predicted_too(tmp_path, monkeypatch):
    """What stands before a text was read in training, whether it is predicted or not; what stands behind it was not."""
    (tmp_path / "rules.yaml").write_text("""
inputs:
  prompt: {use: text, encoding: characters, position: null}
  answer: {same_as: prompt}
model: {width: 16, depth: 1, heads: 2, context: 160, attention: causal & same_sample}
tasks: {answer: {use: language_modeling, target: answer}, prompt: {use: language_modeling, target: prompt}}
data: {dataset: {use: rules, samples: 64}}
training: {steps: 2, samples_per_step: 8}
""")
    train(load_config(tmp_path / "rules.yaml", [f"out={tmp_path / 'rules'}"]))
    run, read, session = load_run(tmp_path / "rules"), [], generating.Session

    def kept(model, batch, **more):
        read.append([*batch.main.chunks])
        return session(model, batch, **more)

    monkeypatch.setattr(generating, "Session", kept)
    split = run.open("val")
    for inputs in (None, ["prompt"], ["answer"], []):
        for name in ("answer", "prompt"):
            generate_items(run.model, run.tasks, name, split, split.first(2), Generating(max_tokens=2), inputs=inputs)
    run.generate(inputs={"prompt": "abcde>"}, target="answer", max_tokens=2)
    both, answer, prompt = ["prompt", "answer"], ["answer"], ["prompt"]
    assert read == [both, prompt, both, prompt, answer, prompt, answer, prompt, both]


def test_functions_in_the_context_are_no_episodes(run, capsys):
    assert main(["in_context", str(run)])
    assert "was not trained to learn from examples" in capsys.readouterr().err


def test_an_imported_run_learned_nothing_in_its_context(tmp_path, capsys):
    """It has no data; the command has no option to name some."""
    gpt2(tmp_path / "hf")
    assert main(["import", str(tmp_path / "hf"), str(tmp_path / "run")]) == 0
    assert main(["in_context", str(tmp_path / "run")]) == 2
    told = "was imported. Only a run that was trained on the data set `in_context` or `rules`, as by configs/in_context"
    assert told in (said := capsys.readouterr().err) and "--data" not in said
