"""Planning: the way that is taken is the best of all that could be imagined, as told by reading each from the start."""

import itertools

import numpy as np
import pytest
import torch
from chopmix.models.heads import SlotLinear
from chopmix.models.model import Cores, Model
from chopmix.projects.decision.agent import Player
from chopmix.projects.decision.environments.making import make_environment, spaces_of
from chopmix.projects.decision.planning import Planner, Planning, Predicted
from chopmix.projects.decision.time_steps import TimeSteps
from chopmix.tasks.next_item import NextItem
from chopmix.tokenizers.base import axes_of
from chopmix.tokenizers.category import CategoryChopper, CategoryTokenizer
from cores import core_of

pytest.importorskip("gymnasium")

SIZES = {"agent": 26, "thing": 26, "kind": 3, "action": 4, "reward": 2, "return": 2}
AT = {"action": "kind", "reward": "action", "return": "reward", "agent": "reward", "thing": "agent", "kind": "thing"}
SEEN = "agent", "thing", "kind"


class Silent(np.random.Generator):
    """Draws no noise: what is drawn is what is likeliest."""

    def gumbel(self, loc=0.0, scale=1.0, size=None):
        return np.zeros(size)


def player(how=Planning(), seed=0) -> Player:
    torch.manual_seed(seed)
    choppers = {name: CategoryChopper(size=size, offset=0.15 * i) for i, (name, size) in enumerate(SIZES.items())}
    tokenizers = {name: CategoryTokenizer(each, 16, 200, position=None) for name, each in choppers.items()}
    graph = "causal & same_sample & !from(return)"
    core = core_of(list(choppers), axes_of(choppers.values()), width=16, depth=2, heads=2, attention=graph)
    heads = {name: SlotLinear(16, SIZES[name]) for name in AT}
    model = Model(tokenizers, Cores(core), heads, context=200).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    known = {}
    for name, at in AT.items():
        task = NextItem(target=name, at=at)
        task.choppers = choppers
        known[name] = Predicted(task, model.heads[name])
    planner = Planner(act=known["action"], reward=known["reward"], value=known["return"],
                      seen=[known[name] for name in SEEN], how=how)  # fmt: skip
    space = spaces_of(environment()).action
    return Player(model=model, task=known["action"].task, head=model.heads["action"], choppers=choppers, space=space,
                  columns={name: name for name in SIZES}, planner=planner)  # fmt: skip


def environment():
    return make_environment("chopmix/KeyToDoor-v0", {"grid": False})


def read(made: Player, tokens: list[tuple[str, int, float]]):
    """The vector of the last token of a history that is read at once, without a cache."""
    items = [(name, made.choppers[name].decode({"values": [value], "seconds": [at]})) for name, value, at in tokens]
    streams = {}
    for name, (value, seconds) in items:
        streams.setdefault(name, ([], []))[0].append(int(value[0]))
        streams[name][1].append(float(seconds[0]))
    sample = [
        (name, made.choppers[name].decode({"values": values, "seconds": seconds}))
        for name, (values, seconds) in streams.items()
    ]
    moments = TimeSteps(made.model, made.choppers)
    return moments.begin([sample])[0][0, -1]


def score(made: Player, history, actions, step: int) -> float:
    """What a way of actions is worth: expected rewards, and the value at its end."""
    predicted = {"reward": made.planner.reward, "return": made.planner.value}
    predicted |= {each.task.target: each for each in made.planner.seen}
    history, total, hidden = list(history), 0.0, None
    for ahead, action in enumerate(actions):
        if ahead:
            for name in SEEN:
                likeliest = int(predicted[name].chances(hidden[None]).argmax())
                history.append((name, likeliest, float(step + ahead)))
                hidden = read(made, history)
        history.append(("action", action, float(step + ahead)))
        hidden = read(made, history)
        total += float(predicted["reward"].expected(hidden[None]))
        likeliest = int(predicted["reward"].chances(hidden[None]).argmax())
        history.append(("reward", likeliest, float(step + ahead)))
        hidden = read(made, history)
    return total + float(predicted["return"].expected(hidden[None])) - likeliest


@pytest.mark.parametrize("seed", range(4))
@torch.inference_mode()
def test_the_best_of_all_ways_is_taken(seed):
    made = player(Planning(beams=16, horizon=2, expand=4), seed)
    history = [("agent", 3, 0.0), ("thing", 7, 0.0), ("kind", 1, 0.0), ("action", 1, 0.0), ("reward", 0, 0.0)]
    history += [("agent", 8, 1.0), ("thing", 0, 1.0), ("kind", 0, 1.0)]
    ways = list(itertools.product(range(4), repeat=2))
    scores = [score(made, history, way, 1) for way in ways]
    streams = {name: ([], []) for name, *_ in history}
    for name, value, second in history:
        streams[name][0].append(value)
        streams[name][1].append(second)
    sample = [(n, made.choppers[n].decode({"values": v, "seconds": s})) for n, (v, s) in streams.items()]
    moments = TimeSteps(made.model, made.choppers)
    hidden, _ = moments.begin([sample, sample])
    before = moments.length, list(moments.rows)
    chosen = made.planner.actions(moments, hidden[:, -1], 1, [Silent(np.random.PCG64(0))] * 2)
    assert chosen.tolist() == [ways[int(np.argmax(scores))][0]] * 2
    assert (moments.length, moments.rows) == before  # what is imagined did not happen


@pytest.mark.system
def test_what_is_planned_depends_on_no_other_game():
    made = player(Planning(beams=2, horizon=2))
    together = made.play([environment() for _ in range(3)], range(3))
    for number in range(3):
        (alone,) = made.play([environment()], [number])
        assert np.array_equal(alone.actions, together[number].actions)
    assert len({tuple(each.actions.tolist()) for each in together}) == 3


def test_plans_are_written_and_read():
    assert Planning.of("beams:4,horizon:7") == Planning(beams=4, horizon=7)
    assert Planning.of(str(Planning(expand=3))) == Planning(expand=3)
    for wrong in ("beams", "beams:x", "beam:3", "", "beams:-1", "beams:0", "beams:2000000", f"beams:{'1' * 5000}"):
        with pytest.raises(ValueError, match="^(a plan is written|.* must be from 1 to 1,048,576, not).{,150}$"):
            Planning.of(wrong)
