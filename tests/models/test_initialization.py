"""Initial values: they follow from the role that a parameter has; user-defined parts keep their values."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from chopmix.models.heads import MaskedHead, Tied, Unembedding
from chopmix.models.initialization import INITIAL_ONLY, ROLES, Gpt2, Initialization, Xavier, ZeroProjections, roles
from chopmix.models.layers.feed_forward import FeedForward, OwnLayers, SquaredRelu
from chopmix.models.layers.linear import Linear
from chopmix.models.layers.norms import RmsNorm
from chopmix.models.model import Cores, Model
from chopmix.models.transformer import Block, BlockOptions, Transformer
from chopmix.training.optimizers import Muon
from own_head import Cosine
from torch import nn

KINDS = (Gpt2, ZeroProjections, Xavier)


class LowRank(nn.Module):
    """LoRA for one of chopmix's layers: `up` must start at zero."""

    def __init__(self, layer: Linear, rank: int = 2):
        super().__init__()
        rows, columns = layer.weight.shape
        self.layer = layer
        self.down, self.up = nn.Parameter(torch.full((rank, columns), 0.25)), nn.Parameter(torch.zeros(rows, rank))
        self.down.role = "matrix"


class Adapted(SquaredRelu):
    """A feed-forward layer whose last linear layer is adapted."""

    def __init__(self, width: int, bias: bool = True, *, ratio: float = 4):
        super().__init__(width, bias, ratio=ratio)
        self.down = LowRank(self.down)


class UserHead(nn.Module):
    """A user-defined head with modules of torch and with parameters."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16))
        self.table = nn.Embedding(5, 16)
        self.kept, self.zeroed = nn.Parameter(torch.full((3, 3), 7.0)), nn.Parameter(torch.ones(3, 3))
        self.zeroed.role = "zero"


def small_model(
    initialization: type[Initialization] = Gpt2, feed_forward: type[FeedForward] = SquaredRelu,
    own_layers: OwnLayers | None = None, **heads: nn.Module,
) -> Model:  # fmt: skip
    torch.manual_seed(0)
    options = BlockOptions(feed_forward=feed_forward, own_layers=own_layers)
    core = Transformer(width=16, depth=2, heads=2, block=partial(Block, options=options))
    return Model({"text": nn.Embedding(9, 16)}, Cores(core), heads, context=8, initialization=initialization)


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_defined_part_keeps_the_values_of_its_constructor(kind):
    """LoRA's matrix stays zero; parameters that have a role, and chopmix's layers, are initialized by the table of
    roles."""
    adapted, plain = small_model(kind, Adapted), small_model(kind)
    for number in range(2):
        layer, plain_layer = adapted.core.blocks[number].feed_forward, plain.core.blocks[number].feed_forward
        assert not layer.down.up.any() and not (layer.down.down == 0.25).any() and layer.down.down.std() > 0
        assert torch.equal(layer.up.weight, plain_layer.up.weight)
        assert not torch.equal(layer.down.layer.weight, nn.Linear(64, 16).weight)
    head = UserHead()
    before = {name: parameter.detach().clone() for name, parameter in head.named_parameters()}
    for name, parameter in small_model(kind, lm=head).heads["lm"].named_parameters():
        assert torch.equal(parameter, torch.zeros(3, 3) if name == "zeroed" else before[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_of_a_user_defined_part_is_that_of_the_configuration(kind):
    """It used to start at zero for any `sharpness`."""
    table = nn.Embedding(9, 16)
    assert small_model(kind, lm=Cosine(table, sharpness=4.0)).heads["lm"].sharpness.tolist() == [4.0]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_decides_the_initial_values_and_the_group_of_the_optimizer(role):
    """A matrix of a user has the values and the group of chopmix's matrix with this role."""
    head = nn.Module()
    head.matrix = nn.Parameter(torch.full((16, 16), 3.0))
    head.matrix.role = role
    model = small_model(ZeroProjections, lm=head)
    assert {name: value for name, value, _ in roles(model)}["heads.lm.matrix"] == role
    expected = {"embedding": 1.0, "matrix": 0.25, "input": 0.25, "head": 0.001}.get(role, 0.0)
    values = model.heads["lm"].matrix.detach()
    assert float(values.std()) == pytest.approx(expected, rel=0.15)
    assert float(values.mean()) == pytest.approx({"gain": 1.0, "scale": 3.0, "adapter": 3.0}.get(role, 0.0), abs=0.2)
    groups = {"embedding": "embeddings", "matrix": "matrices", "projection": "matrices", "head": "heads"}
    (group,) = [g for g in Muon(model, 0.02).groups() if any(p is model.heads["lm"].matrix for p in g["params"])]
    assert group["name"] == groups.get(role, "others")


def test_the_roles_zero_and_keep_change_only_the_initial_values():
    """The layer stays in the group in which it would be without this role."""
    model = small_model()
    model.core.blocks[0].attention.query.weight.role, model.core.blocks[0].attention.key.weight.role = INITIAL_ONLY
    nn.init.constant_(model.core.blocks[0].attention.key.weight, 5.0)
    Gpt2()(model)
    assert not model.core.blocks[0].attention.query.weight.any()
    assert (model.core.blocks[0].attention.key.weight == 5.0).all()
    role_of_name = {name: role for name, role, _ in roles(model)}
    assert {role_of_name[f"cores.main.blocks.0.attention.{name}.weight"] for name in ("query", "key")} == {"matrix"}


def test_layers_for_groups_of_inputs_have_the_roles_of_the_layer_that_they_copy():
    model = small_model(Gpt2, Adapted, OwnLayers(groups=[["text"], ["image"]]))
    layers = model.core.blocks[0].feed_forward.layers
    assert [each.down.down.role for each in layers] == ["matrix", "matrix"]
    assert not torch.equal(layers[0].down.down, layers[1].down.down)


def test_an_unknown_role_is_refused():
    head = nn.Module()
    head.weight = nn.Parameter(torch.zeros(2))
    head.weight.role = "matrx"
    with pytest.raises(
        ValueError, match=r"heads\.lm\.weight has the role 'matrx'; possible: embedding, .*, zero, keep"
    ):
        small_model(lm=head)


def test_muon_updates_parameters_with_more_than_two_axes_by_adam():
    """For example a convolution inside a block."""
    head = nn.Module()
    head.kernel = nn.Parameter(torch.ones(4, 4, 3))
    head.kernel.role = "matrix"
    muon = Muon(small_model(lm=head), 0.02)
    for parameter in muon.names:
        parameter.grad = torch.ones_like(parameter)
    muon.step(1.0)
    assert float((head.kernel.detach() - 1).abs().max()) > 0


@pytest.mark.parametrize("head", [Tied, MaskedHead, Unembedding])
@pytest.mark.parametrize("width", [16, 128, 512])
@pytest.mark.parametrize("vocabulary", [65, 600])
def test_zero_projections_start_with_the_loss_of_chance_with_any_head(head, width, vocabulary):
    """With a tied head and embeddings of size 1, every token predicted itself: at a width of 128 the first loss was
    124."""
    torch.manual_seed(0)
    options = BlockOptions(norm=RmsNorm, feed_forward=SquaredRelu, bias=False)
    core = Transformer(width=width, depth=2, heads=2, block=partial(Block, options=options))
    table = nn.Embedding(vocabulary, width)
    model = Model({"text": table}, Cores(core), {"lm": head(table)}, context=8, initialization=ZeroProjections).eval()
    with torch.no_grad():
        ids, targets = torch.randint(vocabulary, (2, 8, 32))
        loss = F.cross_entropy(model.heads["lm"](core(table(ids)).flatten(0, 1)), targets.flatten())
    assert 0.9 < float(loss) / math.log(vocabulary) < 1.5


@pytest.mark.parametrize("options, expected", [
    ({}, 4 / 64), ({"embedding": 0.1}, 0.1), ({"embedding": 2.0}, 4 / 64), ({"tied": 1.0}, 1.0),
    ({"embedding": 0.1, "tied": 0.3}, 0.3),
])  # fmt: skip
def test_a_table_that_is_tied_to_a_head_starts_small(options, expected):
    """Other tables, and the table of an unembedding, start with the standard deviation `embedding`."""
    torch.manual_seed(0)
    tables = {name: nn.Embedding(500, 64) for name in ("tied", "plain", "unembedding")}
    heads = {"a": Tied(tables["tied"]), "b": Unembedding(tables["unembedding"])}
    initialization = partial(ZeroProjections, **options)
    Model(tables, Cores(Transformer(width=64, depth=1, heads=2)), heads, context=8, initialization=initialization)
    assert float(tables["tied"].weight.detach().std()) == pytest.approx(expected, rel=0.03)
    for name in ("plain", "unembedding"):
        assert float(tables[name].weight.detach().std()) == pytest.approx(options.get("embedding", 1.0), rel=0.03)
    with pytest.raises(ValueError, match="tied must lie between 0 and 10,000, not -1"):
        ZeroProjections(tied=-1)
