"""Optimizers: values of schedules, AdamW and Muon compared with torch's, groups that contain each parameter once, state
in checkpoints, averages of weights."""

from __future__ import annotations

import math
import re
from functools import partial

import pytest
import torch
from chopmix.files.records import read_tensors, write_tensors
from chopmix.models.initialization import Gpt2, Xavier, ZeroProjections, roles
from chopmix.models.model import Cores, Model
from chopmix.models.transformer import Transformer
from chopmix.training.ema import Ema
from chopmix.training.optimizers import AdamW, MatrixMomentum, Muon, Optimizer, adamw, freeze
from chopmix.training.schedules import Constant, Cosine, InverseSquareRoot, Linear, WarmupStableDecay
from hypothesis import given, settings
from hypothesis import strategies as st
from own_optimizer import Lion, Momentum, Wrapped, Wrong
from torch import nn


def model() -> Model:
    """A small model without heads."""
    torch.manual_seed(0)
    core = Transformer(width=16, depth=2, heads=2)
    return Model({"text": nn.Embedding(9, 16)}, Cores(core), {"lm": nn.Linear(16, 9)}, context=8)


@pytest.mark.parametrize(
    "schedule, expected",
    [
        (Constant(10), {0: 1, 9: 1}),
        (Cosine(10, final=0.1), {0: 1, 5: 0.55, 10: 0.1}),
        (Cosine(12, warmup=2, final=0.0), {0: 1 / 3, 1: 2 / 3, 2: 1, 7: 0.5, 12: 0}),
        (Linear(10), {0: 1, 5: 0.5, 10: 0}),
        (Linear(10, final=0.5), {0: 1, 10: 0.5}),
        (WarmupStableDecay(10, decay=0.5), {0: 1, 5: 1, 6: 0.8, 9: 0.2}),
        (WarmupStableDecay(20, warmup=4, decay=0.25, final=0.1), {0: 0.2, 3: 0.8, 4: 1, 15: 1, 20: 0.1}),
        (InverseSquareRoot(100, warmup=4), {0: 0.2, 3: 0.8, 4: math.sqrt(4 / 5), 15: 0.5, 63: 0.25}),
    ],
)
def test_schedules_have_the_values_of_their_definition(schedule, expected):
    for step, value in expected.items():
        assert schedule(step) == pytest.approx(value)


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match=r"warmup \(11\) must lie between 0 and the number of steps \(10\)"):
        Linear(10, warmup=11)
    with pytest.raises(ValueError, match=r"decay \(0\) is a share of the steps"):
        WarmupStableDecay(10, decay=0)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_stacked_muon_equals_torchs(decay):
    shapes = [(6, 4), (4, 6), (6, 4), (5, 5)]
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    copies = [nn.Parameter(p.detach().clone()) for p in parameters]
    muon = MatrixMomentum(parameters, 0.02, decay=decay)
    reference = torch.optim.Muon(
        copies, lr=0.02, momentum=0.95, weight_decay=decay, nesterov=True, adjust_lr_fn="original"
    )
    for step in range(5):
        for parameter, copy in zip(parameters, copies):
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
            copy.grad = parameter.grad.clone()
        muon.step()
        reference.step()
    for parameter, copy in zip(parameters, copies):  # torch's iterates in bfloat16
        torch.testing.assert_close(parameter, copy, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("values, expected", [
    (Gpt2(), {"embedding": 0.02, "matrix": 0.02, "projection": 0.02 / math.sqrt(8), "head": 0.02}),
    (ZeroProjections(), {"embedding": 1.0, "matrix": 128**-0.5, "projection": 0.0, "head": 0.001}),
    (Xavier(), {"embedding": 128**-0.5, "matrix": 128**-0.5, "head": math.sqrt(2 / (128 + 500))}),
])  # fmt: skip
def test_initial_values_have_the_deviations_of_their_table(values, expected):
    torch.manual_seed(0)
    core = Transformer(width=128, depth=4, heads=2)
    network = Model({"text": nn.Embedding(500, 128)}, Cores(core), {"lm": nn.Linear(128, 500)}, context=8)
    values(network)
    for name, role, parameter in roles(network):
        parameter = parameter.detach()
        if role in ("gain", "bias"):
            assert (parameter == float(role == "gain")).all(), name
        elif role in expected and parameter.shape[0] in (128, 500):  # a square matrix, or a table of ids
            assert float(parameter.std()) == pytest.approx(expected[role], rel=0.05), name
            assert abs(float(parameter.mean())) <= 0.03 * expected[role], name


@pytest.mark.parametrize("kind", [AdamW, Muon])
def test_every_parameter_is_in_one_group(kind):
    network = model()
    held = [p for inner in kind(network, 1e-3).inner for group in inner.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, network.parameters()))


def test_a_parameter_without_or_with_two_groups_is_refused():
    network = model()
    every = list(network.parameters())
    with pytest.raises(AssertionError, match=r"parameters without an optimizer: \['.*'\]"):
        Optimizer(network, 1e-3).hold(torch.optim.AdamW(every[1:]))
    with pytest.raises(AssertionError, match="is in two optimizer groups"):
        Optimizer(network, 1e-3).hold(torch.optim.AdamW(every), torch.optim.AdamW(every[:1]))


def test_rates_follow_role_schedule_and_depth():
    network = model()
    muon = Muon(network, 0.02, embeddings=15, heads=0.2)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    muon.step(0.5)
    rates = {id(p): group["lr"] for inner in muon.inner for group in inner.param_groups for p in group["params"]}
    assert rates[id(network.tokenizers["text"].weight)] == pytest.approx(0.15)
    assert rates[id(network.heads["lm"].weight)] == pytest.approx(0.002)
    assert rates[id(network.core.blocks[0].attention.query.weight)] == pytest.approx(0.01)
    deep = AdamW(network, 1e-3, layer_decay=0.5)
    rates = {id(p): group["lr"] for inner in deep.inner for group in inner.param_groups for p in group["params"]}
    assert rates[id(network.heads["lm"].weight)] == pytest.approx(1e-3)
    assert rates[id(network.core.blocks[1].attention.query.weight)] == pytest.approx(5e-4)
    assert rates[id(network.tokenizers["text"].weight)] == pytest.approx(1.25e-4)


@pytest.mark.parametrize("optimizer, options", [
    (AdamW, {}), (AdamW, {"layer_decay": 0.5}), (Muon, {}), (Muon, {"embeddings": 2.5, "heads": 0.4, "others": 0.05}),
])  # fmt: skip
@pytest.mark.parametrize("role", [None, "matrix", "projection"])
def test_the_learning_rate_reaches_every_parameter_and_is_shown(optimizer, options, role):
    """Twice the rate doubles that of every group, with frozen parts or without; the counts add up to all parameters."""
    network = model()
    for _, kind, parameter in roles(network):
        parameter.requires_grad_(kind != role)
    one, two = (optimizer(network, rate, **options) for rate in (0.01, 0.02))
    assert [2 * group["lr"] for group in one.groups()] == pytest.approx([group["lr"] for group in two.groups()])
    assert sum(count for _, count in one.rates().values()) == sum(
        p.numel() for p in network.parameters() if p.requires_grad
    )
    one.step(0.5)
    figures = one.figures()
    assert figures["train/learning_rate"] == pytest.approx(0.005)
    assert {name.rpartition("/")[2] for name in figures} == {"learning_rate", *(set(one.rates()) - {one.main})}
    assert one.rates().get(one.main, (0.005,))[0] == pytest.approx(0.005)


SHAPES = [(16, 9), (9,), (3, 4, 5), (1,), ()]


def trained(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: range) -> None:
    """Steps with gradients that depend on the step's number; the last parameter has one only in every second step."""
    for step in steps:
        random = torch.Generator().manual_seed(step)
        for number, parameter in enumerate(parameters):
            gradient = torch.randn(parameter.shape, generator=random)
            parameter.grad = None if step % 2 and number == len(parameters) - 1 else gradient
        optimizer.step()
        optimizer.zero_grad()
        assert all(parameter.grad is None for parameter in parameters)


@given(st.floats(0, 0.99), st.floats(0, 0.999), st.floats(0, 0.5), st.floats(1e-12, 1e-3), st.floats(1e-5, 1.0))
@settings(max_examples=25)
def test_adamw_equals_torchs_fused_adamw_bit_for_bit(beta1, beta2, decay, epsilon, rate):
    random = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, generator=random)) for shape in SHAPES]
    copies = [nn.Parameter(original.detach().clone()) for original in parameters]
    groups = [
        [
            {"params": each[:2], "lr": rate, "weight_decay": decay},
            {"params": each[2:], "lr": rate / 3, "weight_decay": 0.0},
        ]
        for each in (parameters, copies)
    ]
    one = adamw(groups[0], (beta1, beta2), epsilon)
    other = torch.optim.AdamW(groups[1], betas=(beta1, beta2), eps=epsilon, fused=True)
    trained(one, parameters, range(6))
    trained(other, copies, range(6))
    for parameter, copy in zip(parameters, copies):
        assert torch.equal(parameter, copy) and one.state[parameter].keys() == other.state[copy].keys()
        assert all(torch.equal(value, other.state[copy][name]) for name, value in one.state[parameter].items())


def test_gradients_can_be_made_zero_as_with_torchs_optimizers():
    parameter, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = adamw([{"params": [parameter, other], "lr": 1.0, "weight_decay": 0.0}], (0.9, 0.9), 1e-8)
    parameter.grad = torch.ones(2)
    optimizer.zero_grad(set_to_none=False)
    assert parameter.grad.tolist() == [0, 0] and other.grad is None


class Parts(nn.Module):
    """A module that has only parameters."""

    def __init__(self):
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.parts = nn.ParameterList(nn.Parameter(torch.randn(shape, generator=random)) for shape in SHAPES)


ANY = [name for name in dir(torch.optim) if isinstance(getattr(torch.optim, name), type)]
PLAIN = sorted({*ANY} - {"Optimizer", "LBFGS", "SparseAdam", "Muon"})
"""torch's optimizers of dense parameters of any shape that need no closure."""


def steps_of(optimizer: Optimizer, model: nn.Module, steps: range) -> None:
    for step in steps:
        random = torch.Generator().manual_seed(step)
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = None if not number and step < 4 else torch.randn(parameter.shape, generator=random)
        optimizer.step(1 / (1 + step))
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", [*PLAIN, "Lion", "Momentum"])
def test_any_optimizer_resumes_from_its_checkpoint_bit_for_bit(kind, tmp_path):
    """Bit for bit, from the state in a file; one parameter has no gradient, and so no state, before that. Loading also
    undoes later steps."""
    make = {"Lion": Lion, "Momentum": Momentum}.get(kind, partial(Wrapped, kind=kind))
    whole, parts = Parts(), Parts()
    one, other = make(whole, 0.01), make(parts, 0.01)
    steps_of(one, whole, range(8))
    steps_of(other, parts, range(4))
    write_tensors(tmp_path / "state", other.state())
    weights = [parameter.detach().clone() for parameter in parts.parameters()]
    steps_of(other, parts, range(20, 22))
    for resumed in (other, make(parts, 0.01)):
        resumed.load(read_tensors(tmp_path / "state"))
        with torch.no_grad():
            for parameter, value in zip(parts.parameters(), weights):
                parameter.copy_(value)
        steps_of(resumed, parts, range(4, 8))
        assert all(torch.equal(expected, actual) for expected, actual in zip(whole.parameters(), parts.parameters()))
        assert one.state().keys() == resumed.state().keys()


def test_state_keeps_its_types():
    parts = Parts()
    lion = Lion(parts, 0.01)
    steps_of(lion, parts, range(5))
    state = lion.state()
    assert state["parts.1/step:int"] == 5 and state["groups/0/largest:float"].dtype == torch.float64
    assert set(state) == {f"parts.{n}/{name}" for n in range(5) for name in ("momentum", "step:int")} | {
        "groups/0/largest:float"
    }
    loaded = Lion(parts, 0.01)
    loaded.load(state)
    kept = loaded.inner[0].state[parts.parts[1]]
    assert type(kept["step"]) is int and kept["momentum"] is not state["parts.1/momentum"]
    assert lion.state_values() == sum(parameter.numel() for parameter in parts.parameters())


def test_names_in_checkpoints_of_adamw_and_muon_do_not_change():
    network = model()
    adam, muon = AdamW(network, 1e-3), Muon(network, 1e-3)
    for optimizer in (adam, muon):
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step(1.0)
    every = [name for name, _ in network.named_parameters()]
    of_adam = ("step", "exp_avg", "exp_avg_sq")
    assert set(adam.state()) == {f"{name}/{quantity}" for name in every for quantity in of_adam}
    matrices = {name for name, role, _ in roles(network) if role in ("matrix", "projection")}
    expected = {f"{name}/{quantity}" for name in {*every} - matrices for quantity in of_adam}
    assert set(muon.state()) == expected | {f"{name}/momentum" for name in matrices}
    assert adam.state_values() == 2 * sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("kind, message", [
    ("Listing", r"Listing has a list as 'past' of parts\.0; a checkpoint stores tensors and numbers by parameter"),
    ("Shared", r"its state parts\.1/count shares memory with parts\.0/count; a checkpoint stores"),
    ("Loose", "Loose has a dict as '' of no parameter; a checkpoint stores"),
    ("Scheduled", "Wrong has a tuple as 'betas' of groups/0; a checkpoint stores"),
])  # fmt: skip
def test_state_that_cannot_be_saved_is_refused_at_the_first_step(kind, message):
    parts = Parts()
    optimizer = Wrong(parts, 0.01, kind=kind)
    for parameter in parts.parameters():
        parameter.grad = torch.ones_like(parameter)
    with pytest.raises(ValueError, match=f"training.optimizer: {message}"):
        optimizer.step(1.0)


@pytest.mark.parametrize("change, message", [
    ({"parts.9/momentum": torch.zeros(1)}, r"has state of 'parts\.9', which is not trained"),
    ({"parts.1/step:int": torch.zeros(2)}, "has no number 'step:int'"),
    ({"parts.1/step:list": torch.zeros(1)}, "has no number 'step:list'"),
])  # fmt: skip
def test_state_of_another_model_or_of_unknown_names_is_refused(change, message):
    parts = Parts()
    lion = Lion(parts, 0.01)
    steps_of(lion, parts, range(5))
    with pytest.raises(ValueError, match=f"the optimizer's checkpoint {message}"):
        Lion(parts, 0.01).load(lion.state() | change)


@pytest.mark.parametrize("parts, frozen", [
    (["core.blocks.1"], {1}),
    (["core.blocks.1", "core.blocks.10"], {1, 10}),
    (["core.blocks"], set(range(12))),
    ([], set()),
])  # fmt: skip
def test_parts_are_frozen_by_their_complete_names(parts, frozen):
    """Block 1 is not block 10."""
    core = nn.Module()
    core.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(12))
    core.norm = nn.LayerNorm(2)
    module = nn.ModuleDict({"core": core})
    freeze(module, parts)
    assert {number for number, block in enumerate(core.blocks) if not block.weight.requires_grad} == frozen
    assert core.norm.weight.requires_grad
    freeze(module, [])
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("part, hint", [
    ("cores.main.block.1", "did you mean 'cores.main.blocks.1'"),
    ("cores.main.blocks.", "did you mean 'cores.main.blocks"),
    ("cores.mai", "did you mean 'cores.main'"),
    ("x", "possible: cores.main, heads.lm, tokenizers.text, components of these, and role:bias, .*role:matrix"),
])  # fmt: skip
def test_an_unknown_part_is_refused_with_the_nearest_name(part, hint):
    with pytest.raises(ValueError, match=f"training.freeze: the model has no part {re.escape(repr(part))}; .*{hint}"):
        freeze(model(), [part])
    with pytest.raises(ValueError, match="leaves no parameter to train"):
        freeze(model(), ["cores", "heads", "tokenizers.text"])


def test_ratios_below_zero_are_refused():
    with pytest.raises(ValueError, match="are ratios of the learning rate; they must be 0 or more, not -1, 0.25"):
        Muon(model(), 0.02, embeddings=-1)


def test_averages_follow_their_formula_and_are_applied_temporarily():
    layer = nn.Linear(2, 2)
    ema, expected = Ema(layer, 0.9), layer.weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            layer.weight.add_(1.0)
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * layer.weight.detach()
    trained = layer.weight.detach().clone()
    with ema.applied():
        torch.testing.assert_close(layer.weight.detach(), expected)
    assert torch.equal(layer.weight, trained)


def test_muon_without_matrices_trains_the_other_parameters():
    network = model()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith("cores."))
    held = [p for inner in Muon(network, 1e-3).inner for group in inner.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in network.parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", [AdamW, Muon])
@pytest.mark.parametrize("change", ["shape", "kind", "name"])
def test_a_state_that_does_not_fit_is_refused(kind, change):
    """Before it is used: fused updates would raise an error of torch, or none."""
    network = model()
    optimizer = kind(network, 1e-3)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(1.0)
    state = optimizer.state()
    kind(network, 1e-3).load(state)
    key = next(name for name in state if not name.endswith("/step"))
    changed = {"shape": {key: state[key][:1]}, "kind": {key: state[key].half()}, "name": {f"{key}_": state[key]}}[
        change
    ]
    with pytest.raises(ValueError, match=f"no matching state for {re.escape(key.rpartition('/')[0])}"):
        kind(network, 1e-3).load({name: value for name, value in state.items() if name != key} | changed)


@pytest.mark.parametrize("kind", [Gpt2, ZeroProjections, Xavier])
def test_initial_values_depend_only_on_seed_and_name(kind):
    """One more head, drawn before the others, does not change the values of other parameters; another seed does."""

    def values(seed: int, heads: dict) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        network = Model(
            {"text": nn.Embedding(9, 16)},
            Cores(Transformer(width=16, depth=2, heads=2)),
            heads,
            context=8,
            initialization=kind,
        )
        state = torch.random.get_rng_state()
        kind()(network)
        assert torch.equal(state, torch.random.get_rng_state())  # other random numbers stay the same
        return {name: parameter.clone() for name, parameter in network.named_parameters()}

    plain = values(0, {"lm": nn.Linear(16, 9)})
    more = values(0, {"a": nn.Linear(16, 3), "lm": nn.Linear(16, 9)})
    assert all(torch.equal(value, more[name]) for name, value in plain.items())
    drawn = [name for name, value in plain.items() if value.std() > 0]
    other = values(1, {"lm": nn.Linear(16, 9)})
    assert len(drawn) > 5 and not any(torch.equal(plain[name], other[name]) for name in drawn)
    same_shape = [name for name in drawn if plain[name].shape == (16, 16)]
    assert not torch.equal(plain[same_shape[0]], plain[same_shape[1]])
