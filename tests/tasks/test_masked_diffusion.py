"""Masked diffusion: the bound is the mean over all orders, drafts are filled in step by step, and known tokens do not
change."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.inference.generate import Generating
from chopmix.inference.items import chain_of
from chopmix.inference.refine import batch_of_rows, procedure_of, refined
from chopmix.models.batch import Batch
from chopmix.models.generation import refine
from chopmix.models.generation.refine import Draft, Refining, keep_masked
from chopmix.models.generation.sampling import Sampling, Streams
from chopmix.models.generation.session import text_set
from chopmix.models.model import Cores, Model
from chopmix.tasks.masked_diffusion import ANY, Hiding, MaskedDiffusion
from chopmix.tokenizers.chopping.packing import pack
from chopmix.tokenizers.encoding.base import CharacterEncoding
from chopmix.tokenizers.encoding.byte_pairs import Extended
from chopmix.tokenizers.text import TextChopper, TextTokenizer
from cores import core_of
from hypothesis import given
from hypothesis import strategies as st

CHOPPER = TextChopper(vocabulary=Extended(CharacterEncoding("abcd"), ["mask"]), generated=False)
MASK = CHOPPER.vocabulary.roles["mask"]
CONTEXT = 8


def task_and_model(**options):
    """A task and a small model with its head."""
    torch.manual_seed(0)
    task = MaskedDiffusion(target="text", **options)
    task.choppers = {"text": CHOPPER}
    tokenizers = {"text": TextTokenizer(CHOPPER, 16, CONTEXT)}
    core = core_of(["text"], width=16, depth=2, heads=2, attention="same_sample")
    model = Model(tokenizers, Cores(core), {"draft": task.head(tokenizers, 16)}, context=CONTEXT)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return task, model.eval()


TASK, MODEL = task_and_model()


def batch_of(rows, **more):
    planned = text_set(MODEL, "text", torch.tensor(rows))
    return Batch(main=planned, **more)


def nats_of(row, hidden):
    """The nats of each hidden token of a row, if the others are known."""
    ids = [MASK if place in hidden else id for place, id in enumerate(row)]
    draft = TASK.draft("draft", MODEL, batch_of([ids]))
    logs = draft.scores(at=torch.tensor([place in hidden for place in range(len(row))]))
    return -logs[range(len(hidden)), [row[place] for place in sorted(hidden)]]


def refined_rows(rows, how):
    """The ids of rows whose masks are filled in."""
    streams = how.random().of(range(len(rows)))
    return refined(TASK, MODEL, batch_of_rows(MODEL, TASK, rows), procedure_of("draft", TASK, how, streams))


def test_the_bound_is_the_mean_over_all_orders():
    """n / m times the summed nats of m hidden ones, m from 1 to n alike and every choice of them, is the mean over all
    orders of what the tokens cost one by one."""
    row = [0, 3, 1]
    n = len(row)
    bound = 0.0
    for m in range(1, n + 1):
        subsets = [*itertools.combinations(range(n), m)]
        bound += sum(float(nats_of(row, set(hidden)).sum()) * n / m for hidden in subsets) / len(subsets) / n
    chains = []
    for order in itertools.permutations(range(n)):
        cost = 0.0
        for done in range(n):
            hidden = sorted(order[done:])
            cost += float(nats_of(row, set(hidden))[hidden.index(order[done])])
        chains.append(cost)
    assert bound == pytest.approx(sum(chains) / len(chains), rel=1e-5)
    nats, tokens = chain_of(MODEL, "draft", TASK, batch_of([row]))
    assert nats == pytest.approx(chains[0], rel=1e-5) and tokens == n  # the first order is from left to right


def test_the_chain_of_several_items_is_the_sum():
    rows = [[0, 3, 1, 2], [2, 2, 0, 1]]
    both = chain_of(MODEL, "draft", TASK, batch_of(rows))[0]
    assert both == pytest.approx(sum(chain_of(MODEL, "draft", TASK, batch_of([row]))[0] for row in rows), rel=1e-5)


def test_the_padding_behind_the_last_window_of_a_corpus_costs_nothing():
    row = [3, 1, 2]
    planned = text_set(MODEL, "text", torch.tensor([[*row, 0, 0]]))
    real = torch.arange(5)[None] < len(row)
    tokens = planned.tokens
    tokens = replace(tokens, input=tokens.input * real, sample=tokens.sample * real, item=tokens.item * real)
    padded = Batch(main=replace(planned, tokens=tokens))
    assert chain_of(MODEL, "draft", TASK, padded) == pytest.approx(chain_of(MODEL, "draft", TASK, batch_of([row])))


@given(seed=st.integers(0, 99), epoch=st.integers(0, 3), number=st.integers(0, 999), n=st.integers(1, 8))
def test_hidden_tokens_are_the_targets_and_have_weights(seed, epoch, number, n):
    row = [number % 4] * n
    batch = batch_of([row])
    planned = batch.main.__class__(**{**vars(batch.main), "seeds": ((seed, epoch, number),)})
    changed, targets = TASK.targets(Batch(main=planned, units={"text": float(n)}))
    values = changed.main.chunks["text"].values.flatten()
    hidden = int((values == MASK).sum())
    assert 1 <= hidden == len(targets.values) <= n and targets.count == n
    assert targets.weights.tolist() == pytest.approx([n / hidden] * hidden)
    assert targets.values.tolist() == [number % 4] * hidden
    output = torch.zeros(hidden, CHOPPER.vocabulary.size)  # every id is as likely
    assert float(TASK.terms(output, targets)["loss"]) == pytest.approx(n * math.log(CHOPPER.vocabulary.size), rel=1e-5)
    training = TASK.targets(Batch(main=planned))[1]  # limited, so that a few hidden tokens do not dominate
    assert training.weights.tolist() == pytest.approx([min(n / hidden, Hiding().largest_weight)] * hidden)
    assert training.values.tolist() == targets.values.tolist() and training.count == n


def test_every_number_of_hidden_tokens_is_as_likely():
    counts = counts_of(TASK, 8, 8000)
    assert counts[0] == 0 and counts[1:].min() > 990 and counts[1:].max() < 1010  # evenly spread, not random


def counts_of(task, n, samples):
    """The numbers of samples in which 0, 1, ... of n tokens are hidden."""
    places = [(0, 0, number) for number in range(samples)]
    return np.bincount([len(task.choose(np.zeros(n, int), task.random(place), place)) for place in places])


@pytest.mark.system
@given(least=st.floats(0, 1), most=st.floats(0, 1), n=st.integers(1, 30))
def test_training_hides_shares_within_bounds_and_evaluations_hide_any_share(least, most, n):
    least, most = sorted((least, most))
    task, batch = task_and_model(hiding=Hiding(least=least, most=most))[0], batch_of([[0, 1, 2, 3] * 2] * 40)
    numbers = np.flatnonzero(counts_of(task, n, 128))
    assert max(least * n, 1) <= numbers.min() <= max(least * n, 1) + 1 + (most - least) * n / 20  # rounded up
    assert most * n - (most - least) * n / 20 <= numbers.max() < max(most * n, 1) + 1
    seeded = batch.main.__class__(**{**vars(batch.main), "seeds": tuple((0, 0, k) for k in range(40))})
    evaluated = Batch(main=seeded, units={"text": 320.0})
    limited, unlimited = task.targets(evaluated)[1], task_and_model(hiding=ANY)[0].targets(evaluated)[1]
    assert limited.count == unlimited.count == 320
    assert all(torch.equal(getattr(limited, name), getattr(unlimited, name)) for name in ("weights", "values", "slots"))


NAMES = [
    "image", "text", "sound", "word", "words", "caption", "picture", "source", "target", "answer", "question", "score",
    "speech", "video", "state", "action", "label", "mission", "english", "german", "a", "b",
]  # fmt: skip


def hidden_counts(name, n, places):
    """How many of n tokens of the input `name` are hidden in these samples."""
    task = MaskedDiffusion(target=name)
    task.choppers = {name: CHOPPER}
    return np.array([len(task.choose(np.zeros(n, int), task.random(place), place)) for place in places])


@pytest.fixture(scope="module")
def hidden_by_name():
    """How many of 64 tokens of each of many inputs are hidden in the samples of an evaluation."""
    return {name: hidden_counts(name, 64, [(0, 0, number) for number in range(256)]) for name in NAMES}


def test_hidden_shares_of_two_inputs_are_not_correlated(hidden_by_name):
    """Over all pairs of names the correlation is what chance allows: its standard deviation is 1 / sqrt(256)."""
    correlations = [np.corrcoef(one, two)[0, 1] for one, two in itertools.combinations(hidden_by_name.values(), 2)]
    assert max(map(abs, correlations)) < 4.5 / 16 and np.std(correlations) == pytest.approx(1 / 16, rel=0.25)


def test_two_inputs_are_hidden_in_every_combination(hidden_by_name):
    """Nearly none of 8 x 8 cells is empty; many would be empty if one order followed from the other."""
    for one, two in itertools.combinations(hidden_by_name.values(), 2):
        assert len({*zip(((one - 1) // 8).tolist(), ((two - 1) // 8).tolist())}) > 50
        assert len({*((one - two) % 64).tolist()}) > 50


def test_every_window_of_a_stream_is_hidden_as_evenly_as_a_sample():
    """The number of a window is that of its first id."""
    planned = text_set(MODEL, "text", torch.zeros(128, 8, dtype=torch.long))  # which fills whole rows
    seeds = tuple((0, 0, 8 * number) for number in range(128))
    _, targets = TASK.targets(Batch(main=replace(planned, seeds=seeds), units={"text": 1.0}))
    counts = np.bincount(np.bincount(targets.slots.numpy() // 8, minlength=128))
    assert counts[0] == 0 and counts[1:].min() >= 14 and counts[1:].max() <= 18


def test_whole_inputs_are_hidden_only_in_training():
    task, _ = task_and_model(hiding=Hiding(whole=1))
    counts = {len(task.choose(np.zeros(6, int), task.random((0, 0, k)), (0, 0, k))) for k in range(50)}
    assert counts == {0, 6}
    batch = batch_of([[0, 1, 2, 3]] * 40)
    seeded = batch.main.__class__(**{**vars(batch.main), "seeds": tuple((0, 0, k) for k in range(40))})
    training, evaluation = (
        task.targets(Batch(main=seeded))[1],
        task.targets(Batch(main=seeded, units={"text": 160.0}))[1],
    )
    assert set(training.weights.tolist()) == {1.0} and training.count % 4 == 0 and training.count < 160
    assert evaluation.count == 160 and len(set(evaluation.weights.tolist())) == 4


@pytest.mark.parametrize("wrong, message", [
    ({"whole": 2}, "they are least 0, most 1 and whole 2"),
    ({"least": 0.6, "most": 0.5}, "least no more than most; they are least 0.6, most 0.5"),
    ({"least": -0.1}, "shares must be from 0 to 1"),
    ({"largest_weight": 0.5}, "largest_weight must be at least 1, not 0.5"),
])  # fmt: skip
def test_wrong_shares_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Hiding(**wrong)


@pytest.mark.parametrize("by", ["confidence", "random"])
@pytest.mark.parametrize("steps", [1, 2, 3, 6, 50])
def test_a_draft_is_filled_in_within_the_requested_steps(by, steps):
    shown = []
    how = Generating(refining=Refining(steps=steps, by=by), show=shown.append, seed=0)
    rows = [[MASK] * 6, [1, MASK, MASK, 2, MASK, 3]]
    filled = refined_rows(rows, how)
    assert len(shown) == 1 + min(steps, 6) and shown[0] == rows
    left = [[row.count(MASK) for row in items] for items in shown]
    assert left[-1] == [0, 0] and all(
        a > b or a == 0 for first, second in itertools.pairwise(left) for a, b in zip(first, second)
    )
    assert [filled[1][place] for place in (0, 3, 5)] == [1, 2, 3] and all(0 <= id < 4 for row in filled for id in row)
    for first, second in itertools.pairwise(shown):  # what was filled in stays
        assert all(b == a for old, new in zip(first, second) for a, b in zip(old, new) if a != MASK)


@given(by=st.sampled_from(["confidence", "random"]), masks=st.integers(1, 1024), steps=st.integers(1, 1024))
def test_the_number_of_masks_falls_evenly_or_with_the_cosine(by, masks, steps):
    """In whole numbers, in at most as many steps as there are masks, and by at least one mask per step."""
    how, used = Refining(steps=steps, by=by), min(steps, masks)
    left = [int(how.left(torch.tensor([masks, 1]), step)[0]) for step in range(used)]
    if by == "random":
        assert left == [masks * (used - step - 1) // used for step in range(used)]
        assert used < masks or left == [*range(masks - 1, -1, -1)], "as many steps as tokens: one a step"
    else:
        expected = [masks * math.cos((step + 1) / used * math.pi / 2) for step in range(used)]
        assert left[-1] == 0 and all(each - 1 < number < each + 1e-5 for number, each in zip(left[:-1], expected))


def test_half_of_the_masks_are_left_after_two_thirds_of_the_steps():
    how = Refining(steps=3)
    assert how.left(torch.arange(3, 300), 1).tolist() == [masks // 2 for masks in range(3, 300)]


@pytest.mark.parametrize("by", ["confidence", "random"])
def test_steps_beyond_the_number_of_masks_change_nothing(by):
    """The noise on confidences falls to 0 with the last mask, item by item."""
    drafts = []
    for steps in (6, 50):
        how = Generating(refining=Refining(steps=steps, by=by), seed=0)
        drafts.append(refined_rows([[MASK] * 6] * 20, how))
    assert drafts[0] == drafts[1]


def test_the_last_mask_of_every_item_is_chosen_without_noise(monkeypatch):
    orders, kept = [], refine.keep_masked
    monkeypatch.setattr(
        refine, "keep_masked", lambda order, item, left: orders.append((order, item)) or kept(order, item, left)
    )
    confidences, scores = [], Draft.scores

    def scored(self, *more):
        confidences.append(scores(self, *more).amax(1))
        return scores(self, *more)

    monkeypatch.setattr(Draft, "scores", scored)
    rows = [[MASK] * 6, [1, MASK, MASK, 2, 1, 3]]
    how = Refining(steps=4)
    [
        *TASK.draft("draft", MODEL, batch_of_rows(MODEL, TASK, rows)).refine(
            how, Sampling(top_k=1), 1.0, Streams.of(len(rows), 0)
        )
    ]
    noisy = [
        [bool((order != best)[item == each].any()) for each in (0, 1)]
        for (order, item), best in zip(orders, confidences)
    ]
    assert noisy == [[True, True], [True, False], [True, False], [False, False]]


def test_the_most_confident_token_is_filled_in_first():
    draft = TASK.draft("draft", MODEL, batch_of_rows(MODEL, TASK, [[MASK] * 5]))
    logs = draft.scores()
    best = int(logs.amax(1).argmax())
    how = Generating(refining=Refining(steps=5), sampling=Sampling(temperature=0))
    first = next(draft.refine(how.refining, how.sampling))
    assert [place for place, id in enumerate(first[0]) if id != MASK] == [best] and first[0][best] == int(
        logs[best].argmax()
    )


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=20),
    st.lists(st.integers(0, 9), min_size=4, max_size=4),
)
def test_the_requested_number_of_tokens_stays_masked(pairs, left):
    order, item = torch.tensor([value for value, _ in pairs]), torch.tensor([number for _, number in pairs])
    kept = keep_masked(order, item, torch.tensor(left))
    for number in set(item.tolist()):
        members = item == number
        assert int(kept[members].sum()) == min(left[number], int(members.sum()) - 1)
        if kept[members].any():
            assert order[members & kept].max() <= order[members & ~kept].min()


def test_guidance_and_wrong_settings():
    one = batch_of([[MASK, 1]])
    chunks = one.main.chunks["text"]
    moved = replace(chunks, index=chunks.index + 1)
    two = Batch(main=replace(one.main, chunks={"text": moved}))  # which the model reads differently
    plain = [TASK.draft("draft", MODEL, each).scores() for each in (one, two)]
    guided = TASK.draft("draft", MODEL, one, two).scores(guidance=3.0)
    expected = (plain[1] + 3 * (plain[0] - plain[1]))[:, :4].log_softmax(-1)  # probabilities of what a token may become
    torch.testing.assert_close(guided[:, :4], expected)
    assert guided.exp().sum(1).tolist() == pytest.approx([1.0])
    assert torch.equal(TASK.draft("draft", MODEL, one).scores(guidance=3.0), plain[0]), "no inputs to guide by"
    with pytest.raises(ValueError, match="steps must be at least 1, not 0"):
        Refining(steps=0)
    with pytest.raises(ValueError, match="drafts must be at least 1, not 0"):
        Refining(drafts=0)
    with pytest.raises(ValueError, match="drafts is 3, but `through` names no input to choose the best draft by"):
        Refining(drafts=3)
    with pytest.raises(ValueError, match="a draft of 9 tokens is longer than the context of 8"):
        TASK.draft("draft", MODEL, batch_of_rows(MODEL, TASK, [[MASK] * 9]))


def two_inputs():
    """Two tasks over two inputs in one set, and a model with both, in which every token reads all tokens."""
    torch.manual_seed(0)
    tasks = {name: MaskedDiffusion(target=name) for name in ("text", "other")}
    for task in tasks.values():
        task.choppers = {"text": CHOPPER, "other": CHOPPER}
    tokenizers = {name: TextTokenizer(CHOPPER, 16, CONTEXT) for name in tasks}
    core = core_of(["text", "other"], width=16, depth=3, heads=2, attention="same_sample")
    heads = {name: task.head(tokenizers, 16) for name, task in tasks.items()}
    return tasks, Model(tokenizers, Cores(core), heads, context=2 * CONTEXT).eval()


TASKS, BOTH = two_inputs()
ROWS = st.lists(
    st.tuples(*[st.lists(st.integers(0, 3), min_size=1, max_size=6)] * 2), min_size=1, max_size=3
)  # a sample's ids of the one and of the other input


@given(rows=ROWS, seed=st.integers(0, 99), other=st.integers(1, 3))
def test_no_hidden_token_of_any_input_reaches_the_outputs(rows, seed, other):
    """Outputs are bit-equal: hidden tokens of one input do not reach the predictions of the other input either."""

    def read(rows):
        samples = [[("text", list(one)), ("other", list(two))] for one, two in rows]
        planned = pack(samples, {"text": CHOPPER, "other": CHOPPER}, 2 * CONTEXT)
        batch = Batch(main=replace(planned, seeds=tuple((seed, 0, number) for number in range(len(rows)))))
        targets = {}
        for name, task in TASKS.items():
            batch, targets[name] = task.targets(batch)
        batch = replace(batch, targets=targets)
        with torch.no_grad():
            return batch, BOTH(BOTH.plan(batch))

    batch, outputs = read(rows)
    changed, before = [[list(one), list(two)] for one, two in rows], len(CHOPPER.vocabulary.before)
    for which, name in enumerate(TASKS):
        chunks, at = batch.main.chunks[name], 0
        for sample, row in enumerate(rows):
            for place in range(len(row[which])):
                if chunks.hidden.flatten()[at + before + place] != -100:
                    changed[sample][which][place] = (row[which][place] + other) % 4
            at += before + len(row[which]) + len(CHOPPER.vocabulary.after)
    again, other_outputs = read(changed)
    for name in TASKS:
        assert torch.equal(outputs[name], other_outputs[name])
        assert not torch.equal(batch.targets[name].values, again.targets[name].values)


def test_drafts_of_a_corpus_while_training_fit_the_context(tmp_path, capsys):
    for name in ("train", "val"):
        (tmp_path / f"{name}.txt").write_text("to be or not to be " * 20)
    (tmp_path / "x.yaml").write_text(f"""
inputs: {{text: {{use: text, encoding: characters, position: null}}}}
model: {{width: 8, depth: 1, heads: 1, context: 12, attention: same_sample, position: rotary}}
tasks: {{draft: {{use: masked_diffusion, target: text}}}}
data: {{dataset: {{use: text, train: {tmp_path}/train.txt, val: {tmp_path}/val.txt}}}}
training: {{steps: 2, tokens_per_step: 48}}
evaluation: {{every: 2, generated: 2}}
logging: {{tensorboard: false}}
""")
    train(load_config(tmp_path / "x.yaml", [f"out={tmp_path / 'run'}"]))  # `evaluation.sample_tokens` is 120
    output = capsys.readouterr()
    shown = [line[4:] for line in (output.out + output.err).splitlines() if line.startswith("  | ")]
    assert 0 < len("\n".join(shown)) <= 12
