"""Attention patterns and heads that a user has written and named in a YAML: they are trained, saved, and opened if they
are trusted."""

import re

import pytest
import torch
from chopmix.commands.cli import main
from chopmix.experiment.build import build_core
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.settings.document import ConfigError
from chopmix.experiment.settings.reference import summary_of
from chopmix.models.attention.graph import Causal, SameSample
from chopmix.models.batch import Targets
from chopmix.models.heads import MaskedHead, MeanPooling, PooledLinear, Tied, Unembedding
from own_graph import Dilated
from own_head import Cosine
from torch import nn

PATTERN = "causal & same_sample & !own_graph:Dilated(3)"
HEAD = {"lm": {"use": "language_modeling", "target": "text", "head": {"use": "own_head:Cosine", "sharpness": 4}}}


def test_a_user_defined_pattern_and_head_are_trained_and_named_in_commands(tiny, tmp_path, capsys, reports):
    file = tiny(model={"attention": [PATTERN, "causal & same_sample"]}, tasks=HEAD)
    assert main(["train", str(file)]) in (None, 0)
    folder = tmp_path / "runs" / "tiny"
    captured = capsys.readouterr()
    commands = [line for line in (captured.out + captured.err).splitlines() if line.startswith("  ")]
    trusted = [re.findall(r"--trust (\w+)", command) for command in commands[-3:]]
    assert [sorted(each) for each in trusted] == [["own_graph", "own_head"]] * 3
    shown = re.search("<code>chopmix inspect (.*?)</code>", (folder / "index.html").read_text())[1]
    assert sorted(re.findall(r"--trust (\w+)", shown)) == ["own_graph", "own_head"]
    for trust in ((), ["own_graph"], ["own_head"]):
        with pytest.raises(
            ConfigError, match="is code outside chopmix, which is not executed for files from someone else"
        ):
            load_run(folder, trust=trust)
    run = load_run(folder, trust=["own_graph", "own_head"])
    core, head = run.model.core, run.model.heads["lm"]
    assert core.graphs == (Causal() & SameSample() & ~Dilated(3), Causal() & SameSample())
    assert isinstance(head, Cosine) and head.weights() == head.table.numel()


def test_the_modules_of_user_defined_code_are_read_from_the_configuration(tiny):
    assert load_config(tiny(model={"attention": PATTERN}, tasks=HEAD)).trust.modules == {"own_graph", "own_head"}
    assert load_config(tiny()).trust.modules == set()
    core = build_core(load_config(tiny(model={"attention": PATTERN})), ("order",))
    assert core.graphs == (Causal() & SameSample() & ~Dilated(3),) * 2


def test_an_option_named_position_may_be_a_number(tiny):
    inputs = {
        "scan": {"use": "own_modality:FlaggedTokenizer", "position": True},
        "text": {"use": "text", "encoding": "bytes"},
    }
    config = load_config(
        tiny(
            inputs=inputs,
            data={"dataset": "own_modality:Rooms"},
            training={"samples_per_step": 2, "tokens_per_step": None},
        )
    )
    assert config.inputs["scan"].options["position"] is True


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model.attention": "causal & own_graph:Distance"}, r"model\.attention: .*Distance\.edge returned torch\.flo"),
        ({"model.attention": "causal & own_graph:Thawed"}, "must be a dataclass with frozen=True"),
        ({"model.attention": "causal & own_graph:Missing"}, "module 'own_graph' has no class 'Missing'"),
        ({"model.attention": "causal & own_grph:Dilated(2)"}, "cannot import 'own_grph'"),
        ({"tasks.lm.head": "own_head:NoHead"}, "'own_head:NoHead' is not a subclass of VocabularyHead"),
        ({"tasks.lm.head": "{use: own_head:Cosine, sharpnes: 3}"}, "did you mean 'sharpness'"),
    ],
)
def test_mistakes_in_user_defined_parts_are_reported_before_anything_runs(tiny, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_config(tiny(), [f"{key}={value}" for key, value in changes.items()])


def test_every_head_counts_its_operations():
    """6 operations for every weight and vector, also for a tied table; pooled slots are one vector per sample."""
    table = nn.Embedding(12, 8)
    plain = Targets(values=torch.zeros(5), slots=torch.arange(5))
    whole = Targets(values=torch.zeros(7))
    pooled = Targets(values=torch.zeros(2), slots=torch.arange(5), groups=torch.tensor([0, 0, 1, 1, 1]))
    for head, weights in (
        (Tied(table), 96),
        (Unembedding(table, bias=True), 96),
        (MaskedHead(table), 96 + 64),
        (Cosine(table), 96),
    ):
        assert (head.flops(plain), head.flops(whole)) == (6 * weights * 5, 6 * weights * 7)
    assert PooledLinear(MeanPooling(8), 8, 3).flops(pooled) == 6 * 24 * 2


def test_a_yaml_with_user_defined_parts_is_explained(tiny, capsys):
    assert main(["explain", str(tiny(model={"attention": PATTERN}, tasks=HEAD))]) == 0
    output = capsys.readouterr().out
    assert "own_head:Cosine" in output and "Base class for all neural network modules" not in output


def test_an_inherited_docstring_describes_no_part():
    class Silent(nn.Module):
        pass

    assert summary_of(Silent) == "" and summary_of(Cosine) != ""
