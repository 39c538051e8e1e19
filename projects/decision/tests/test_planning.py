"""Planning: the chosen plan is the best of all possible plans, which are scored here one by one without a cache."""

import itertools

import numpy as np
import pytest
import torch
from chopmix.models.heads import SlotLinear
from chopmix.models.model import Cores, Model
from chopmix.projects.decision.agent import Player
from chopmix.projects.decision.planning import Planner, Planning, Predicted
from chopmix.projects.decision.recording.making import make_environment, spaces_of
from chopmix.projects.decision.time_steps import TimeSteps
from chopmix.tasks.next_item import NextItem
from chopmix.tokenizers.base import axes_of
from chopmix.tokenizers.category import CategoryChopper, CategoryTokenizer
from cores import core_of

pytest.importorskip("gymnasium")

SIZES = {"agent": 26, "thing": 26, "kind": 3, "action": 4, "reward": 2, "return": 2}
AT = {"action": "kind", "reward": "action", "return": "reward", "agent": "reward", "thing": "agent", "kind": "thing"}
OBSERVATIONS = "agent", "thing", "kind"


class Silent(np.random.Generator):
    """Returns no noise, so that the most likely category is sampled."""

    def gumbel(self, loc=0.0, scale=1.0, size=None):
        return np.zeros(size)


def player(planning=Planning(), seed=0) -> Player:
    torch.manual_seed(seed)
    choppers = {name: CategoryChopper(size=size, offset=0.15 * i) for i, (name, size) in enumerate(SIZES.items())}
    tokenizers = {name: CategoryTokenizer(chopper, 16, 200, position=None) for name, chopper in choppers.items()}
    graph = "causal & same_sample & !from(return)"
    core = core_of(list(choppers), axes_of(choppers.values()), width=16, depth=2, heads=2, attention=graph)
    heads = {name: SlotLinear(16, SIZES[name]) for name in AT}
    model = Model(tokenizers, Cores(core), heads, context=200).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    predicted = {}
    for name, at in AT.items():
        task = NextItem(target=name, at=at)
        task.choppers = choppers
        predicted[name] = Predicted(task, model.heads[name])
    planner = Planner(act=predicted["action"], reward=predicted["reward"], value=predicted["return"],
                      observations=[predicted[name] for name in OBSERVATIONS], planning=planning)  # fmt: skip
    space = spaces_of(environment()).action
    return Player(model=model, task=predicted["action"].task, head=model.heads["action"], choppers=choppers,
                  space=space, columns={name: name for name in SIZES}, planner=planner)  # fmt: skip


def environment():
    return make_environment("chopmix/KeyToDoor-v0", {"grid": False})


def read(agent: Player, tokens: list[tuple[str, int, float]]):
    """The vector of the last token of a history that is read in one pass, without a cache."""
    items = [(name, agent.choppers[name].decode({"values": [value], "seconds": [at]})) for name, value, at in tokens]
    streams = {}
    for name, (value, seconds) in items:
        streams.setdefault(name, ([], []))[0].append(int(value[0]))
        streams[name][1].append(float(seconds[0]))
    sample = [
        (name, agent.choppers[name].decode({"values": values, "seconds": seconds}))
        for name, (values, seconds) in streams.items()
    ]
    time_steps = TimeSteps(agent.model, agent.choppers)
    return time_steps.begin([sample])[0][0, -1]


def score(agent: Player, history, actions, step: int) -> float:
    """The score of a plan: its expected rewards and the value at its end."""
    predicted = {"reward": agent.planner.reward, "return": agent.planner.value}
    predicted |= {p.task.target: p for p in agent.planner.observations}
    history, total, hidden = list(history), 0.0, None
    for ahead, action in enumerate(actions):
        if ahead:
            for name in OBSERVATIONS:
                likeliest = int(predicted[name].log_probabilities(hidden[None]).argmax())
                history.append((name, likeliest, float(step + ahead)))
                hidden = read(agent, history)
        history.append(("action", action, float(step + ahead)))
        hidden = read(agent, history)
        total += float(predicted["reward"].expectation(hidden[None]))
        likeliest = int(predicted["reward"].log_probabilities(hidden[None]).argmax())
        history.append(("reward", likeliest, float(step + ahead)))
        hidden = read(agent, history)
    return total + float(predicted["return"].expectation(hidden[None])) - likeliest


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.system) for seed in (1, 2, 3))])
@torch.inference_mode()
def test_the_best_of_all_plans_is_chosen(seed):
    agent = player(Planning(beams=16, horizon=2, expand=4), seed)
    history = [("agent", 3, 0.0), ("thing", 7, 0.0), ("kind", 1, 0.0), ("action", 1, 0.0), ("reward", 0, 0.0)]
    history += [("agent", 8, 1.0), ("thing", 0, 1.0), ("kind", 0, 1.0)]
    plans = list(itertools.product(range(4), repeat=2))
    scores = [score(agent, history, plan, 1) for plan in plans]
    streams = {name: ([], []) for name, *_ in history}
    for name, value, second in history:
        streams[name][0].append(value)
        streams[name][1].append(second)
    sample = [(n, agent.choppers[n].decode({"values": v, "seconds": s})) for n, (v, s) in streams.items()]
    time_steps = TimeSteps(agent.model, agent.choppers)
    hidden, _ = time_steps.begin([sample, sample])
    before = time_steps.length, list(time_steps.rows)
    chosen = agent.planner.actions(time_steps, hidden[:, -1], 1, [Silent(np.random.PCG64(0))] * 2)
    assert chosen.tolist() == [plans[int(np.argmax(scores))][0]] * 2
    assert (time_steps.length, time_steps.rows) == before  # planning does not change the history


@pytest.mark.system
def test_a_plan_depends_on_no_other_game():
    agent = player(Planning(beams=2, horizon=2))
    together = agent.play([environment() for _ in range(3)], range(3))
    for number in range(3):
        (alone,) = agent.play([environment()], [number])
        assert np.array_equal(alone.actions, together[number].actions)
    assert len({tuple(episode.actions.tolist()) for episode in together}) == 3


def test_plans_are_formatted_and_parsed():
    assert Planning.of("beams:4,horizon:7") == Planning(beams=4, horizon=7)
    assert Planning.of(str(Planning(expand=3))) == Planning(expand=3)
    for text in ("beams", "beams:x", "beam:3", "", "beams:-1", "beams:0", "beams:2000000", f"beams:{'1' * 5000}"):
        with pytest.raises(
            ValueError, match="^(a plan must be a list of key:number pairs|.* must be from 1 to 1,048,576).{,195}$"
        ):
            Planning.of(text)
