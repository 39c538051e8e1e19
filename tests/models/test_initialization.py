"""First values: by the role that a parameter carries, or has by its name; parts of a user's own keep theirs."""

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
    """LoRA over one of chopmix's layers: `up` is to start at zero."""

    def __init__(self, layer: Linear, rank: int = 2):
        super().__init__()
        rows, columns = layer.weight.shape
        self.layer = layer
        self.down, self.up = nn.Parameter(torch.full((rank, columns), 0.25)), nn.Parameter(torch.zeros(rows, rank))
        self.down.role = "matrix"


class Adapted(SquaredRelu):
    """A feed-forward whose last layer is adapted."""

    def __init__(self, width: int, bias: bool = True, *, ratio: float = 4):
        super().__init__(width, bias, ratio=ratio)
        self.down = LowRank(self.down)


class Own(nn.Module):
    """A head of torch's modules, and of parameters of its own."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16))
        self.table = nn.Embedding(5, 16)
        self.kept, self.zeroed = nn.Parameter(torch.full((3, 3), 7.0)), nn.Parameter(torch.ones(3, 3))
        self.zeroed.role = "zero"


def model(
    initialization: type[Initialization] = Gpt2, feed_forward: type[FeedForward] = SquaredRelu,
    own_layers: OwnLayers | None = None, **heads: nn.Module,
) -> Model:  # fmt: skip
    torch.manual_seed(0)
    options = BlockOptions(feed_forward=feed_forward, own_layers=own_layers)
    core = Transformer(width=16, depth=2, heads=2, block=partial(Block, options=options))
    return Model({"text": nn.Embedding(9, 16)}, Cores(core), heads, context=8, initialization=initialization)


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_ones_own_keeps_what_its_constructor_gave_it(kind):
    """LoRA's matrix stays zero; a parameter that carries a role, and the layers of chopmix, start by the table."""
    made, plain = model(kind, Adapted), model(kind)
    for number in range(2):
        adapted, other = made.core.blocks[number].feed_forward, plain.core.blocks[number].feed_forward
        assert not adapted.down.up.any() and not (adapted.down.down == 0.25).any() and adapted.down.down.std() > 0
        assert torch.equal(adapted.up.weight, other.up.weight)
        assert not torch.equal(adapted.down.layer.weight, nn.Linear(64, 16).weight)
    own = Own()
    before = {name: parameter.detach().clone() for name, parameter in own.named_parameters()}
    for name, parameter in model(kind, lm=own).heads["lm"].named_parameters():
        assert torch.equal(parameter, torch.zeros(3, 3) if name == "zeroed" else before[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_of_ones_own_is_what_the_configuration_says(kind):
    """It began at zero, whatever `sharpness` was."""
    table = nn.Embedding(9, 16)
    assert model(kind, lm=Cosine(table, sharpness=4.0)).heads["lm"].sharpness.tolist() == [4.0]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_decides_the_first_value_and_the_group(role):
    """Of a matrix of one's own it is that of chopmix's own matrix of this role."""
    own = nn.Module()
    own.matrix = nn.Parameter(torch.full((16, 16), 3.0))
    own.matrix.role = role
    made = model(ZeroProjections, lm=own)
    assert {name: found for name, found, _ in roles(made)}["heads.lm.matrix"] == role
    expected = {"embedding": 1.0, "matrix": 0.25, "input": 0.25, "head": 0.001}.get(role, 0.0)
    values = made.heads["lm"].matrix.detach()
    assert float(values.std()) == pytest.approx(expected, rel=0.15)
    assert float(values.mean()) == pytest.approx({"gain": 1.0, "scale": 3.0}.get(role, 0.0), abs=0.2)
    groups = {"embedding": "embeddings", "matrix": "matrices", "projection": "matrices", "head": "heads"}
    (group,) = [g for g in Muon(made, 0.02).groups() if any(p is made.heads["lm"].matrix for p in g["params"])]
    assert group["name"] == groups.get(role, "others")


def test_zero_and_keep_change_nothing_but_the_first_value():
    """The layer is in the group that it would be in otherwise."""
    made = model()
    made.core.blocks[0].attention.query.weight.role, made.core.blocks[0].attention.key.weight.role = INITIAL_ONLY
    nn.init.constant_(made.core.blocks[0].attention.key.weight, 5.0)
    Gpt2()(made)
    assert not made.core.blocks[0].attention.query.weight.any()
    assert (made.core.blocks[0].attention.key.weight == 5.0).all()
    found = {name: role for name, role, _ in roles(made)}
    assert {found[f"cores.main.blocks.0.attention.{name}.weight"] for name in ("query", "key")} == {"matrix"}


def test_layers_of_groups_of_inputs_carry_the_roles_of_the_layer_that_they_copy():
    made = model(Gpt2, Adapted, OwnLayers(groups=[["text"], ["image"]]))
    layers = made.core.blocks[0].feed_forward.layers
    assert [each.down.down.role for each in layers] == ["matrix", "matrix"]
    assert not torch.equal(layers[0].down.down, layers[1].down.down)


def test_an_unknown_role_is_refused():
    own = nn.Module()
    own.weight = nn.Parameter(torch.zeros(2))
    own.weight.role = "matrx"
    with pytest.raises(
        ValueError, match=r"heads\.lm\.weight has the role 'matrx'; possible: embedding, .*, zero, keep"
    ):
        model(lm=own)


def test_muon_leaves_what_has_more_axes_to_adam():
    """A convolution inside a block."""
    own = nn.Module()
    own.kernel = nn.Parameter(torch.ones(4, 4, 3))
    own.kernel.role = "matrix"
    muon = Muon(model(lm=own), 0.02)
    for parameter in muon.names:
        parameter.grad = torch.ones_like(parameter)
    muon.step(1.0)
    assert float((own.kernel.detach() - 1).abs().max()) > 0


@pytest.mark.parametrize("head", [Tied, MaskedHead, Unembedding])
@pytest.mark.parametrize("width", [16, 128, 512])
@pytest.mark.parametrize("vocabulary", [65, 600])
def test_the_modern_family_starts_at_chance_with_any_head(head, width, vocabulary):
    """With a tied head and embeddings of size 1 every token predicted itself: at a width of 128 the loss began at
    124."""
    torch.manual_seed(0)
    options = BlockOptions(norm=RmsNorm, feed_forward=SquaredRelu, bias=False)
    core = Transformer(width=width, depth=2, heads=2, block=partial(Block, options=options))
    table = nn.Embedding(vocabulary, width)
    made = Model({"text": table}, Cores(core), {"lm": head(table)}, context=8, initialization=ZeroProjections).eval()
    with torch.no_grad():
        ids, targets = torch.randint(vocabulary, (2, 8, 32))
        loss = F.cross_entropy(made.heads["lm"](core(table(ids)).flatten(0, 1)), targets.flatten())
    assert 0.9 < float(loss) / math.log(vocabulary) < 1.5


@pytest.mark.parametrize("options, expected", [
    ({}, 4 / 64), ({"embedding": 0.1}, 0.1), ({"embedding": 2.0}, 4 / 64), ({"tied": 1.0}, 1.0),
    ({"embedding": 0.1, "tied": 0.3}, 0.3),
])  # fmt: skip
def test_a_table_that_a_head_scores_with_starts_small(options, expected):
    """Other tables, and the table of an unembedding, start at `embedding`."""
    torch.manual_seed(0)
    tables = {name: nn.Embedding(500, 64) for name in ("tied", "plain", "own")}
    heads = {"a": Tied(tables["tied"]), "b": Unembedding(tables["own"])}
    made = partial(ZeroProjections, **options)
    Model(tables, Cores(Transformer(width=64, depth=1, heads=2)), heads, context=8, initialization=made)
    assert float(tables["tied"].weight.detach().std()) == pytest.approx(expected, rel=0.03)
    for name in ("plain", "own"):
        assert float(tables[name].weight.detach().std()) == pytest.approx(options.get("embedding", 1.0), rel=0.03)
    with pytest.raises(ValueError, match="tied must lie between 0 and 10,000, not -1"):
        ZeroProjections(tied=-1)
