"""Agents in environments: recorded episodes, data sets of them, and a model that plays with and without a cache."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from chopmix.data.datasets.mixture import Mixture
from chopmix.data.sampler import Weighted
from chopmix.data.split import sampler_of
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.files.reading import DataError
from chopmix.models.heads import SlotLinear
from chopmix.models.layers.relative import Rotary
from chopmix.models.model import Cores, Model
from chopmix.projects.decision.agent import Player, Playing, environment_of, episode_columns, episodes_of
from chopmix.projects.decision.datasets.episodes import Episodes as EpisodesData
from chopmix.projects.decision.recording import making
from chopmix.projects.decision.recording.episodes import Episodes, read_about, read_episodes
from chopmix.projects.decision.recording.making import ACTS, make_environment, spaces_of
from chopmix.projects.decision.recording.record import about_of, play_episode, record, recorded
from chopmix.projects.decision.recording.scripts import Random
from chopmix.projects.decision.recording.sources import Folder, Minari, Recorded
from chopmix.projects.decision.time_steps import TimeSteps
from chopmix.tasks.next_item import NextItem
from chopmix.tokenizers.base import axes_of
from chopmix.tokenizers.category import CategoryChopper, CategoryTokenizer
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.sensor import SensorChopper, SensorTokenizer
from chopmix.tokenizers.text import TextChopper, TextTokenizer
from cores import core_of
from hypothesis import given, settings
from hypothesis import strategies as st

gymnasium = pytest.importorskip("gymnasium")

COLUMNS = {"mission": "mission", "return": "return", "observation": "observation", "action": "action"}
CHOPPERS = {
    "mission": TextChopper(vocabulary=ByteEncoding(), generated=False, offset=-1.0),
    "return": SensorChopper(channels=1, scale={"0": 100.0}),
    "observation": SensorChopper(channels=4, offset=0.3),
    "action": CategoryChopper(size=2, offset=0.6),
}


def player(context=48, core_tokens=0, columns=("return", "observation", "action"), seed=0, **options) -> Player:
    torch.manual_seed(seed)
    choppers = {name: CHOPPERS[name] for name in columns}
    classes = {
        "mission": TextTokenizer,
        "return": SensorTokenizer,
        "observation": SensorTokenizer,
        "action": CategoryTokenizer,
    }
    tokenizers = {name: classes[name](chopper, 16, context, position=None) for name, chopper in choppers.items()}
    core = core_of(list(choppers), axes_of(choppers.values()), width=16, depth=3, heads=2, attention="causal(seconds)")
    model = Model(tokenizers, Cores(core), {"act": SlotLinear(16, 2)}, context=context, core_tokens=core_tokens).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    task = NextItem(target="action", at="observation")
    task.choppers = choppers
    space = spaces_of(make_environment("CartPole-v1")).action
    return Player(model=model, task=task, head=model.heads["act"], choppers=choppers, space=space,
                  columns={name: COLUMNS[name] for name in columns}, **options)  # fmt: skip


def step_items(step: int, first: bool, mission: str, row: int) -> list:
    random = np.random.default_rng([step, row])
    timed = {"seconds": [float(step)]}
    raw = [
        ("return", {"values": [[10.0 - step]], **timed}),
        ("observation", {"values": random.normal(size=(1, 4)), **timed}),
    ]
    before = [("mission", mission)] if first else [("action", {"values": [step % 2], "seconds": [step - 1.0]})]
    return [(name, CHOPPERS[name].decode(value)) for name, value in before + raw]


@given(st.lists(st.text("ab ", min_size=1, max_size=4), min_size=1, max_size=4), st.integers(1, 5), st.integers(0, 2))
@settings(max_examples=20, deadline=None)
def test_reading_step_by_step_equals_reading_all_steps_at_once(missions, steps, core_tokens):
    """With any number of core tokens and missions of any lengths; also after a row has been removed."""
    agent = player(core_tokens=core_tokens, columns=tuple(COLUMNS))
    time_steps, rows = TimeSteps(agent.model, agent.choppers), list(range(len(missions)))
    with torch.inference_mode():
        hidden, _ = time_steps.begin([step_items(0, True, text, row) for row, text in zip(rows, missions)])
        for step in range(1, steps):
            if step == 2 and len(rows) > 1:
                rows = rows[1:]
                time_steps.keep(range(1, len(time_steps.rows)))
            hidden, _ = time_steps.read([step_items(step, False, missions[row], row) for row in rows])
        for number, row in enumerate(rows):
            joined: dict[str, list] = {}
            for step in range(steps):
                for name, item in step_items(step, not step, missions[row], row):
                    joined.setdefault(name, []).append(item)
            sample = [
                (n, joined[n][0] if n == "mission" else type(joined[n][0])(*map(torch.cat, zip(*joined[n]))))
                for n in COLUMNS if n in joined
            ]  # fmt: skip
            expected, _planned = TimeSteps(agent.model, agent.choppers).begin([sample])
            assert torch.allclose(hidden[number, -1], expected[0, -1], atol=1e-4)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_rows_may_have_different_numbers_of_tokens_per_step(count, steps, seed):
    """For grids without their empty cells, with positions in the running order and within each input."""
    choppers = {
        "grid": CategoryChopper(size=3, shape=(2, 2, 1), cut=2, empty=(0,), offset=0.1),
        "action": CategoryChopper(size=2, offset=0.6),
    }
    torch.manual_seed(seed)
    tokenizers = {name: CategoryTokenizer(chopper, 16, 48) for name, chopper in choppers.items()}
    core = core_of(
        list(choppers), axes_of(choppers.values()), width=16, depth=2, heads=2, attention="causal", position=Rotary
    )
    model = Model(tokenizers, Cores(core), {"act": SlotLinear(16, 2)}, context=48).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    grids = np.random.default_rng(seed).integers(3, size=(count, steps, 2, 2, 1))

    def items(row, first, end):
        actions, seconds = [(step + row) % 2 for step in range(first, end)], [float(n) for n in range(first, end)]
        raw = {"grid": grids[row, first:end], "action": actions}
        return [(n, choppers[n].decode({"values": values, "seconds": seconds})) for n, values in raw.items()]

    time_steps, rows = TimeSteps(model, choppers), list(range(count))
    with torch.inference_mode():
        hidden, _ = time_steps.begin([items(row, 0, 1) for row in rows])
        for step in range(1, steps):
            if step == 2 and count > 1:
                rows = rows[1:]
                time_steps.keep(range(1, count))
            hidden, _ = time_steps.read([items(row, step, step + 1) for row in rows])
        for number, row in enumerate(rows):
            expected, _ = TimeSteps(model, choppers).begin([items(row, 0, steps)])
            torch.testing.assert_close(hidden[number, -1], expected[0, -1], atol=1e-4, rtol=1e-4)


def test_an_episode_depends_only_on_its_number():
    """It does not depend on the number of parallel episodes, also if the episode does not fit into the context."""
    agent = player(context=24)
    together = agent.play([make_environment("CartPole-v1") for _ in range(4)], range(4), 30.0)
    assert max(len(episode.rewards) for episode in together) > 8  # with three tokens per step this exceeds the context
    for number in range(4):
        (alone,) = agent.play([make_environment("CartPole-v1")], [number], 30.0)
        assert np.array_equal(alone.actions, together[number].actions) and alone.seed == together[number].seed
    assert len({episode.seed for episode in together}) == 4
    frames = []
    agent.play([make_environment("CartPole-v1", render=True)], [0], 30.0, lambda e: frames.append(e.render()))
    assert len(frames) == len(together[0].rewards) + 1 and frames[0].ndim == 3


@given(st.integers(0, 2**31), st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
@pytest.mark.system
def test_played_and_recorded_episodes_with_the_same_seed_have_different_start_states(seed, number):
    """Otherwise a run would be evaluated from the start states that it was trained on."""
    environment = make_environment("CartPole-v1")
    scripted = play_episode(environment, Random, seed, number)
    agent = replace(player(temperature=0.0), seed=seed)
    (one,), (other,) = agent.play([environment], [number], 30.0), agent.play([environment], [number + 1], 30.0)
    assert len({scripted.seed, one.seed, other.seed}) == 3
    (recorded_one,) = replace(agent, stream=ACTS).play([environment], [number], 30.0)
    assert recorded_one.seed == scripted.seed, "a run that records has the start states of a script"


def test_the_return_to_go_is_the_target_minus_the_rewards_so_far():
    agent, targets = player(temperature=0.0), []
    decode = type(agent.choppers["return"]).decode

    class Spy(SensorChopper):
        def decode(self, raw):
            targets.append(raw["values"].flatten().tolist())
            return decode(self, raw)

    spying = player(temperature=0.0)
    spying.choppers["return"] = Spy(channels=1, scale={"0": 100.0})
    (episode,) = spying.play([make_environment("CartPole-v1")], [0], 30.0)
    assert [values[-1] for values in targets] == [30.0 - step for step in range(len(targets))]
    assert len(targets) == len(episode.rewards)
    (other,) = agent.play([make_environment("CartPole-v1")], [0], None)
    assert other.rewards.sum() == len(other.actions)


def test_recording_continues_where_it_stopped(tmp_path):
    about = about_of("chopmix/KeyToDoor-v0", {}, "random", (0.0, 0.0), 3, 230)
    complete = recorded(tmp_path / "complete", about)
    steps = record(tmp_path / "cut", about)
    for number in steps:
        if number == 150:
            break
    with pytest.raises(DataError, match="contains 100 of 230 episodes; `chopmix record` with the same options"):
        read_episodes(tmp_path / "cut")
    assert next(record(tmp_path / "cut", about)) == 100
    continued = recorded(tmp_path / "cut", about)
    assert np.array_equal(continued.actions, complete.actions) and np.array_equal(continued.seeds, complete.seeds)
    assert len(complete) == 230 and complete[7].actions.shape == (complete.lengths[7],)
    for change in ({"seed": 4}, {"policy": "script"}, {"episodes": 200}):
        with pytest.raises(DataError, match="contains other episodes"):
            next(record(tmp_path / "cut", about.model_copy(update=change)))
    with pytest.raises(DataError, match="230 episodes, which is no multiple of 100"):
        next(record(tmp_path / "cut", about.model_copy(update={"episodes": 300})))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.system
def test_missing_parts_are_recorded_by_any_number_of_processes(tmp_path, workers):
    about = about_of("chopmix/KeyToDoor-v0", {}, "script", (0.0, 0.5), 3, 330)
    complete = recorded(tmp_path / "complete", about)
    shutil.copytree(tmp_path / "complete", tmp_path / "holes")
    for part in (1, 3):
        (tmp_path / "holes" / f"part-{part:05}.safetensors").unlink()
    counts = [*record(tmp_path / "holes", about, workers=workers)]
    assert counts[0] == 200 and counts[-1] == 330 and counts == sorted(counts)
    assert len(counts) == (131 if workers == 1 else 3)
    for file in sorted((tmp_path / "complete").iterdir()):
        assert file.read_bytes() == (tmp_path / "holes" / file.name).read_bytes()
    assert len(complete) == 330 and [*record(tmp_path / "holes", about, workers=workers)] == [330]


AGENTS = """
import os
from pathlib import Path
from chopmix.projects.decision.recording.scripts import Random
MARK = Path(__file__).with_suffix(".begun")
class Fails(Random):
    def act(self, observation):
        try:
            MARK.touch(exist_ok=False)
        except FileExistsError:
            return super().act(observation)
        raise ValueError("once")
class Dies(Random):
    def act(self, observation):
        os._exit(3)
"""


@pytest.mark.system
def test_recording_by_several_processes_stops_if_one_fails(tmp_path, monkeypatch):
    (tmp_path / "odd_agents.py").write_text(AGENTS)
    monkeypatch.syspath_prepend(tmp_path)

    def recorded_by(name, episodes):
        about = about_of("chopmix/KeyToDoor-v0", {}, f"odd_agents:{name}", (0.0, 0.0), 0, episodes)
        for _ in record(tmp_path / name, about, workers=2):
            pass

    with pytest.raises(ValueError, match="once"):
        recorded_by("Fails", 3000)
    assert len([*(tmp_path / "Fails").glob("part-*")]) < 15, "parts that were not started are skipped"
    with pytest.raises(DataError, match="a worker process ended unexpectedly"):
        recorded_by("Dies", 200)


def test_complete_episodes_are_read_without_the_code_of_the_agent(tmp_path, monkeypatch):
    (tmp_path / "odd_agents.py").write_text(AGENTS)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        about = about_of("chopmix/KeyToDoor-v0", {}, "odd_agents:Fails", (0.0, 0.0), 0, 3)
        (tmp_path / "odd_agents.begun").touch()
        recorded(tmp_path / "x", about)
        del sys.modules["odd_agents"]
    assert len(recorded(tmp_path / "x", about)) == 3
    with pytest.raises(DataError, match="policy 'odd_agents:Fails'"):
        recorded(tmp_path / "y", about)


class Odd(gymnasium.Env):
    """Never ends, may return a bad reward, and renders nothing."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gymnasium.spaces.Box(-9, 9, (4,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, reward=1.0, render_mode=None):
        self.reward, self.render_mode = reward, render_mode

    def reset(self, *, seed=None, options=None):
        return np.zeros(4, np.float32), {}

    def step(self, action):
        return np.zeros(4, np.float32), self.reward, False, False, {}

    def render(self):
        return None


@pytest.fixture
def odd(monkeypatch):
    """The name of the environment."""
    gymnasium.register("Odd-v0", Odd)
    monkeypatch.setattr(making, "LONGEST", 50)
    yield "Odd-v0"
    del gymnasium.registry["Odd-v0"]


@pytest.mark.filterwarnings("ignore:.*WARN")
def test_episodes_without_end_or_finite_rewards_are_refused(tmp_path, odd):
    def record_one(settings, policy="random"):
        recorded(tmp_path / "x", about_of(odd, settings, policy, (0.0, 0.0), 0, 1))

    with pytest.raises(DataError, match="has not ended after 50 steps; limit it with --setting max_episode_steps=1000"):
        record_one({})
    shutil.rmtree(tmp_path / "x")
    with pytest.raises(DataError, match="the environment returned the reward 'much', which is not a finite number"):
        record_one({"reward": "much"})
    shutil.rmtree(tmp_path / "x")
    with pytest.raises(DataError, match="policy 'skript': possible are random, script, bot"):
        record_one({}, "skript")
    assert not (tmp_path / "x").exists()
    record_one({"max_episode_steps": 7})
    assert read_episodes(tmp_path / "x")[1].lengths.tolist() == [7]
    with pytest.raises(DataError, match="has not ended after 50 steps"):
        player().play([make_environment(odd)], [0], 10.0)


def test_the_return_to_go_is_the_sum_of_later_rewards():
    rewards = np.array([1.0, 2.0, 3.0, 10.0, -4.0])
    episodes = Episodes(
        {"observation": np.zeros((5, 1))},
        {},
        np.zeros(5),
        rewards,
        np.array([3, 2]),
        np.array([True, False]),
        np.array([0, 1]),
        np.array([0, 0]),
    )
    assert episodes.to_go.tolist() == [6, 5, 3, 6, -4] and episodes.values.tolist() == [6, 6]
    assert episodes[1].rewards.tolist() == [10, -4] and not episodes[1].ended


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": np.array([5, 0])}, "episode 1 has no steps"),
        ({"lengths": np.array([3, 1])}, "'actions' holds 5 steps, but the episodes have 4"),
        ({"rewards": np.array([1.0, np.nan, 0, 0, 0])}, "step 1: the reward nan is not finite"),
        ({"rewards": np.zeros(3)}, "'rewards' holds 3 steps"),
    ],
)
def test_bad_episodes_are_refused(change, message):
    fields = {"observations": {"observation": np.zeros((5, 1))}, "texts": {}, "actions": np.zeros(5)}
    fields |= {"rewards": np.zeros(5), "lengths": np.array([3, 2]), "ended": np.ones(2, bool)}
    fields |= {"seeds": np.zeros(2, int), "given_up": np.zeros(2, int)}
    with pytest.raises(DataError, match=message):
        Episodes(**(fields | change))


def test_windows_are_parts_of_episodes_and_splits_are_disjoint(tmp_path, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path))
    dataset = EpisodesData(
        of=lambda: Recorded(environment="CartPole-v1", policy="script", noise=(0.5, 1.0), episodes=60), window=5
    )
    assert dataset.columns == ("return", "reward", "action", "step", "score", "observation")
    splits = {split: dataset.open(split) for split in ("train", "val")}
    assert not {*splits["train"].episodes} & {*splits["val"].episodes}
    assert len({*splits["train"].episodes}) + len({*splits["val"].episodes}) == 60
    row, episode = splits["train"][6], dataset.played[int(splits["train"].episodes[6])]
    assert row["return"]["values"].tolist() == [
        episode.value - step for step in range(6, 6 + len(row["action"]["values"]))
    ]
    assert row["observation"]["values"].shape == (len(row["step"]["seconds"]), 4) and row["step"]["seconds"][0] == 6
    assert (
        row["score"] == episode.value
        and splits["train"].keys[6] == f"episode {splits['train'].episodes[6]} from step 6"
    )
    steps = sum(len(row["action"]["values"]) for row in (splits["val"][n] for n in range(len(splits["val"]))))
    assert steps == sum(dataset.played.lengths[e] for e in {*splits["val"].episodes})
    best = EpisodesData(
        of=lambda: Recorded(environment="CartPole-v1", policy="script", noise=(0.5, 1.0), episodes=60), best=0.1
    )
    kept = best.open("train")
    assert len(kept) == round(0.1 * len({*splits["train"].episodes}))
    assert min(kept[n]["score"] for n in range(len(kept))) >= np.sort(best.played.values[best.chosen("train")])[0]


def test_balanced_returns_are_drawn_equally_often_by_seed_and_step(tmp_path, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path))
    of = lambda: Recorded(environment="chopmix/KeyToDoor-v0", policy="script", noise=(0.8, 1.0), episodes=200)
    samples = EpisodesData(of=of, balance=2).open("train")
    scores = np.array([samples[n]["score"] for n in range(len(samples))])
    assert 0.02 < scores.mean() < 0.4
    sampler, other = Weighted(samples.weights, 64), Weighted(samples.weights, 64)
    drawn = [index.number for step in range(100) for index in sampler.plan(0, step)]
    assert scores[drawn].mean() == pytest.approx(0.5, abs=0.03)
    assert other.plan(0, 77) == sampler.plan(0, 77) != sampler.plan(1, 77)
    assert len({index.epoch for step in range(3) for index in sampler.plan(0, step)}) == 192


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_environment("Nowhere-v1"), "environment 'Nowhere-v1' cannot be created"),
        (lambda: make_environment("CartPole-v1", {"gravity": 3}), "environment 'CartPole-v1' cannot be created"),
        (lambda: make_environment("nowhere_at_all:Env-v1"), "needs 'nowhere_at_all', which is not installed"),
        (lambda: about_of("CartPole-v1", {}, "random", (0.5, 0.2), 0, 9), "noise must be two numbers from 0 to 1"),
        (lambda: about_of("CartPole-v1", {}, "random", (0.0, 0.0), 0, 0), "episodes must be at least 1"),
        (lambda: EpisodesData(of=lambda: Folder(path="nowhere"), window=-1), "window must be at least 0, balance"),
        (lambda: EpisodesData(of=lambda: Folder(path="nowhere"), balance=10**30), "balance from 0 to 1,000,000, best"),
        (lambda: Folder(path="nowhere").about, "there is no folder nowhere"),
    ],
)
def test_bad_environments_and_options_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_folder_of_another_format_is_refused(tmp_path):
    with pytest.raises(DataError, match="contains no episodes: there is no episodes.json"):
        read_about(tmp_path)
    recorded(tmp_path, about_of("CartPole-v1", {}, "random", (0.0, 0.0), 0, 3))
    about = json.loads((tmp_path / "episodes.json").read_text())
    (tmp_path / "episodes.json").write_text(json.dumps(about | {"format": 2}))
    with pytest.raises(DataError, match="format 2 is not supported; this version reads format 1"):
        read_about(tmp_path)
    (tmp_path / "episodes.json").write_text(json.dumps(about))
    (tmp_path / "part-00000.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match="damaged or cut short"):
        read_episodes(tmp_path)


def minari_folder(folder, change=lambda file, about: None) -> None:
    """Two episodes as Minari writes them."""
    h5py = pytest.importorskip("h5py")
    (folder / "data").mkdir(parents=True)
    about = {
        "total_episodes": 2, "data_format": "hdf5", "minari_version": "~=0.9",
        "env_spec": json.dumps({"id": "CartPole-v1"}),
        "action_space": json.dumps({"type": "Discrete", "dtype": "int64", "start": 0, "n": 2}),
    }  # fmt: skip
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for number, steps in enumerate((3, 2)):
            group = file.create_group(f"episode_{number}")
            group.attrs["seed"] = 7 + number
            observations = group.create_group("observations")
            observations["state"] = np.arange((steps + 1) * 4, dtype=np.float32).reshape(-1, 4)
            observations.create_dataset("mission", data=["go"] * (steps + 1), dtype=h5py.string_dtype())
            group["actions"], group["rewards"] = np.arange(steps) % 2, np.ones(steps)
            group["terminations"], group["truncations"] = np.arange(steps) == 2, np.arange(steps) == 1
        change(file, about)
    (folder / "data" / "metadata.json").write_text(json.dumps(about))


def test_a_minari_data_set_is_read_without_minari(tmp_path):
    spec = {
        "id": "CartPole-v1",
        "kwargs": {"sutton_barto_reward": True, "render_mode": "human"},
        "max_episode_steps": 9,
    }
    minari_folder(tmp_path, lambda file, about: about.update(env_spec=json.dumps(spec)))
    source = Minari(path=str(tmp_path))
    assert source.about.environment == "CartPole-v1"
    assert source.about.options == {"sutton_barto_reward": True, "max_episode_steps": 9}
    assert source.about.spaces.action.size == 2
    assert source.about.spaces.texts == ("mission",) and source.about.spaces.observations["state"].shape == (4,)
    episodes = source.read()
    assert episodes.lengths.tolist() == [3, 2] and episodes.ended.tolist() == [True, False]
    assert episodes.seeds.tolist() == [7, 8] and episodes.texts == {"mission": ["go", "go"]}
    assert episodes.observations["state"].shape == (5, 4)
    assert episodes.observations["state"][3].tolist() == [0, 1, 2, 3]  # the second episode, after 3 of 4 observations


def dropped(name):
    def change(file, about):
        del file["episode_1"][name]

    return change


def replaced(name, value, **more):
    """The second episode with another array, or another group of arrays."""

    def put(group, name, value):
        if isinstance(value, dict):
            for key, array in value.items():
                put(group.require_group(name), key, array)
        else:
            group[name] = value

    def change(file, about):
        for key, array in {name: value, **more}.items():
            del file["episode_1"][key]
            put(file["episode_1"], key, array)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file, about: about.update(data_format="arrow"), "the format 'arrow' is not supported, only 'hdf5'"),
        (lambda file, about: about.update(total_episodes=0), "contains no episodes"),
        (lambda file, about: about.update(total_episodes=3), "main_data.hdf5 cannot be read: .*episode_2"),
        (lambda file, about: about.update(total_episodes="two"), "total_episodes: must be a whole number"),
        (
            dropped("rewards"),
            r"main_data.hdf5 cannot be read: .* \(written by Minari ~=0.9; supported are 0.4 and 0.5\)",
        ),
        (replaced("actions", np.zeros(0), rewards=np.zeros(0), terminations=np.zeros(0)), "episode 1 has no steps"),
        (replaced("truncations", np.zeros(2)), "episode 1 is incomplete: it was neither terminated nor"),
        (replaced("actions", {"a": np.zeros(2)}), "episode 1: its actions are several arrays"),
        (replaced("observations", {"state": {"a": np.zeros(3)}}), "its observation 'state' is nested"),
        (replaced("observations", {"state": np.zeros((3, 5))}), "its episodes have different observations or actions"),
        (replaced("observations", {"other": np.zeros((3, 4))}), "its episodes have different observations or actions"),
        (replaced("observations", {"state": np.zeros((1, 4))}), "has 2 actions, but only 1 observations 'state'"),
        (
            lambda file, about: about.update(action_space=json.dumps({"type": "Discrete", "start": 1, "n": 2})),
            "the categories of actions start at 1; they must start at 0",
        ),
    ],
)
def test_unsupported_minari_data_sets_are_refused(tmp_path, change, message):
    minari_folder(tmp_path, change)
    with pytest.raises(DataError, match=message):
        source = Minari(path=str(tmp_path))
        source.read()
        source.about  # noqa: B018


def test_a_damaged_minari_data_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a Minari data set: there is no data/metadata.json"):
        Minari(path=str(tmp_path)).read()

    def short(file, about):
        del file["episode_0"]["rewards"]
        file["episode_0"]["rewards"] = np.ones(2)

    minari_folder(tmp_path / "damaged")
    (tmp_path / "damaged" / "data" / "main_data.hdf5").write_bytes(b"\x89HDF no")
    with pytest.raises(DataError, match="main_data.hdf5 cannot be read"):
        Minari(path=str(tmp_path / "damaged")).read()
    minari_folder(tmp_path / "short", short)
    with pytest.raises(DataError, match="episode 0 has 3 actions, but 2 rewards"):
        Minari(path=str(tmp_path / "short")).read()


def test_a_mixture_draws_samples_by_the_weights_of_their_source(tmp_path, monkeypatch):
    """Samples of a source with weights are drawn by these weights, those of another source equally often."""
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path))
    of = lambda: Recorded(environment="CartPole-v1", episodes=20)
    dataset = Mixture(of={"play": lambda: EpisodesData(of=of, balance=2), "all": lambda: EpisodesData(of=of)})
    mixture = dataset.open("train")
    sampler = sampler_of(mixture, None, 4, None)
    indices = [index for step in range(1000) for index in sampler.plan(0, step)]
    weights, count = mixture.mixture[0].samples.weights, len(mixture.mixture[0].samples)
    drawn = np.bincount([index.number for index in indices], minlength=2 * count)
    assert drawn[:count].sum() == drawn[count:].sum() == 2000 and np.ptp(drawn[count:]) <= 1
    assert np.ptp(weights) > 0 and np.abs(drawn[:count] / 2000 - weights).max() < 0.03
    assert len({*indices}) == len(indices) and sampler_of(mixture, None, 4, None).plan(0, 700) == sampler.plan(0, 700)


def test_a_model_of_a_mixture_plays(tmp_path, monkeypatch):
    """Its environment is that of the episodes, and inputs of other data sets are not needed to play."""
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "digits.jsonl").write_text('{"digits": "1 2 3"}\n' * 40)
    text = f"""
inputs:
  digits: {{use: text, encoding: characters}}
  return: {{use: sensor, channels: 1, position: null}}
  observation: {{use: sensor, channels: 4, offset: 0.3, position: null}}
  action: {{use: category, size: 2, offset: 0.6, position: null}}
model: {{width: 16, depth: 1, heads: 2, context: 64, attention: causal & same_sample}}
tasks:
  count: {{use: language_modeling, target: digits}}
  act: {{use: next_item, target: action, at: observation}}
data:
  order: seconds
  dataset:
    use: mixture
    of:
      written: {{use: manifest, train: {tmp_path / "digits.jsonl"}, columns: [digits]}}
      cartpole: {{use: episodes, of: {{use: recorded, environment: CartPole-v1, episodes: 20}}, window: 8, balance: 2}}
training: {{steps: 2, samples_per_step: 8}}
evaluation: {{every: 2, play: {{targets: [20], episodes: 2}}}}
out: {tmp_path / "run"}
"""
    (tmp_path / "two.yaml").write_text(text)
    metrics, _ = train(load_config(tmp_path / "two.yaml", []))
    run = load_run(tmp_path / "run")
    assert episode_columns(run).keys() == {"return", "observation", "action"}
    assert environment_of(run, Playing()) == ("CartPole-v1", {})
    returns = [episode.value for episode in episodes_of(run, Playing(), 20.0, range(2))]
    assert np.mean(returns) == pytest.approx(metrics["val/return_at_20"]) and min(returns) >= 8


def test_key_to_door_has_equal_episodes_as_grid_and_as_categories():
    grid, ids = (make_environment("chopmix/KeyToDoor-v0", {"grid": as_grid}) for as_grid in (True, False))
    random = np.random.default_rng(0)
    for seed in range(20):
        pairs, over = [(grid.reset(seed=seed)[0], ids.reset(seed=seed)[0])], False
        while not over:
            action = int(random.integers(4))
            (cells, *rest), (numbers, *same) = grid.step(action), ids.step(action)
            assert rest == same
            pairs.append((cells, numbers))
            over = rest[1] or rest[2]
        for cells, numbers in pairs:
            assert ids.observation_space.contains(numbers) and grid.observation_space.contains(cells)
            flat = cells.flatten()
            positions = np.flatnonzero(flat > 1)
            assert flat[numbers["agent"] - 1] == 1
            if len(positions):
                assert (numbers["thing"], numbers["kind"]) == (positions[0] + 1, flat[positions[0]] - 1)
            else:  # there is no thing, or the agent is in the cell of the door without a key and hides it
                assert (numbers["thing"], numbers["kind"]) in ((0, 0), (numbers["agent"], 2))
