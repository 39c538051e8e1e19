"""The leak probe: parts that read later tokens or other samples are refused by name, correct parts pass, and the probe
changes nothing."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import leaking
import numpy as np
import pytest
import torch
import yaml
from chopmix.commands.cli import main
from chopmix.models import probe as probing
from chopmix.models.excerpt import excerpts
from chopmix.models.leaks import LeakError
from chopmix.models.probe import probe
from untrained import untrained

TEXT = {"use": "text", "encoding": "characters"}
IMAGE = {"use": "image", "patch_size": 4, "channels": 1, "size": 8}
LM = {"lm": {"use": "language_modeling", "target": "text"}}
LABEL = {"label": {"use": "classification", "target": "label"}}
CAUSAL = {"attention": "causal"}
TRANSLATED = {"other": {"use": "sequence_to_sequence", "target": "other"}}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def batch_of(run):
    split = run.open("train")
    return split.batch(split.plan(0, 0))


def probed(inputs, tasks, model, **more):
    run = untrained(inputs, tasks, model, **more)
    run.model.train()
    return probe(run.model, batch_of(run), seconds=60)


def block(name, **options):
    return {"block": {"use": f"leaking:{name}", **options}}


@pytest.mark.parametrize("initialization", ["gpt2", "zero_projections"])
@pytest.mark.parametrize(
    ("name", "state"),
    [("Peek", ""), ("Detached", ""), ("Late", ""), ("Scaled", ""), ("Lstm", ""), ("OfRow", ""),
     ("Batched", " in training mode"), ("Choosing", " in training mode")],
)  # fmt: skip
def test_blocks_that_look_ahead_are_refused(name, state, initialization):
    model = CAUSAL | block(name) | {"initialization": initialization}
    message = rf"model.block: {name}.* leaks{state}: the output at token \d+ \(text\) depends on token \d+ \(text\)"
    with pytest.raises(LeakError, match=message):
        probed({"text": TEXT}, LM, model)


@pytest.mark.parametrize("distance", [1, 2, 3, 5, 8, 13, -1, -2, -5])
def test_leaks_of_any_distance_are_refused(distance):
    """A convolution over a packed row reads a later token of the sample, or a token of the sample before."""
    with pytest.raises(LeakError, match="model.block: Far leaks"):
        probed({"text": TEXT}, LM, CAUSAL | block("Far", distance=distance))


def test_a_block_that_looks_ahead_only_with_a_cache_is_refused():
    for inputs in ({"text": TEXT}, {"image": IMAGE, "text": TEXT}):
        with pytest.raises(LeakError, match="model.block: Cached leaks: with a key-value cache, the output at token"):
            probed(inputs, LM, CAUSAL | block("Cached"))


@pytest.mark.parametrize("name", ["Peek", "Late", "Lstm"])
def test_main_tokens_of_an_encoder_and_a_decoder_are_probed(name):
    model = CAUSAL | block(name) | {"encoder": {"depth": 1, "context": 64}}
    with pytest.raises(LeakError, match=rf"model.block: {name}.* the output at token \d+ \(other\) depends on"):
        probed({"text": TEXT, "other": TEXT}, TRANSLATED, model)


@pytest.mark.parametrize("name", ["Peek", "OfRow", "Batched", "Lstm"])
def test_parts_that_read_another_sample_of_a_row_are_refused(name):
    """A pooled class may depend on all tokens of its sample, but not on the other samples of a packed row."""
    with pytest.raises(LeakError, match=f"{name}.* leaks"):
        probed({"text": TEXT}, LABEL, block(name) | {"attention": "same_sample"})
    assert probed({"image": IMAGE}, LABEL, block(name) | {"attention": "same_sample"}) == []  # one sample in each row


@pytest.mark.parametrize(
    ("inputs", "tasks", "message"),
    [({"text": TEXT | {"use": "leaking:Convolved"}}, LM, r"Convolved leaks: the vector at token \d+ \(text\) depends"),
     ({"text": TEXT | {"use": "leaking:Told"}}, LM, "Told leaks: its vectors depend on chunks.next_ids"),
     ({"image": IMAGE | {"use": "leaking:Averaged"}, "text": TEXT}, LM, "Averaged leaks: the vector at token"),
     ({"text": TEXT, "image": IMAGE | {"use": "leaking:Averaged"}}, LABEL, "Averaged leaks: the vector at token"),
     ({"text": TEXT}, {"lm": LM["lm"] | {"head": "leaking:Ahead"}}, r"lm.head: Ahead leaks: the output at token \d+"),
     ({"text": TEXT}, {"lm": LM["lm"] | {"head": "leaking:Answering"}}, "Answering leaks: its outputs depend on the"),
     ({"text": TEXT}, {"label": LABEL["label"] | {"use": "leaking:Compared"}}, "label.head: Among leaks: the output"),
    ],
)  # fmt: skip
def test_embedders_and_heads_that_read_too_much_are_refused(inputs, tasks, message):
    with pytest.raises(LeakError, match=message):
        probed(inputs, tasks, {"attention": "same_sample"} if tasks.keys() == LABEL.keys() else CAUSAL)


@pytest.mark.parametrize("dropout", [0.0, {"embedding": 0.5, "attention": 0.5, "residual": 0.5, "depth": 0.5}])
@pytest.mark.parametrize(
    ("inputs", "tasks", "model"),
    [({"text": TEXT | {"use": "leaking:PlainText"}}, {"lm": LM["lm"] | {"head": "leaking:Own"}}, CAUSAL),
     ({"image": IMAGE | {"use": "leaking:Smooth"}, "text": TEXT}, LM | LABEL, CAUSAL | {"core_tokens": 1}),
     ({"text": TEXT, "wave": {"use": "sensor", "channels": 2, "mean": 0, "scale": 1}}, LM,
      {"attention": "causal | leaking:Strided(3)", "position": "rotary"}),
     ({"text": TEXT, "other": TEXT}, TRANSLATED, CAUSAL | {"encoder": {"depth": 2, "context": 64}}),
     ({"text": TEXT}, {"lm": {"use": "masked_modeling", "target": "text"}}, {"attention": "same_sample"}),
     ({"moves": {"use": "category", "size": 3}},
      {"next": {"use": "next_item", "target": "moves", "at": "moves"}}, CAUSAL),
    ],
)  # fmt: skip
def test_correct_parts_pass(inputs, tasks, model, dropout):
    """In packed rows, with dropout and stochastic depth, with several tasks, with an encoder."""
    model = model | block("Honest", rate=0.2) | {"depth": 2, "dropout": dropout, "initialization": "zero_projections"}
    assert probed(inputs, tasks, model) == []


def test_the_methods_of_a_graph_are_compared_with_its_edges():
    run = untrained({"text": TEXT}, LM, {"attention": "causal | leaking:Wrong"})
    with pytest.raises(
        LeakError, match=r"Wrong.ahead\(0\) returns {}, but by its edges token 0 reads the later token 1"
    ):
        run.model.leak_check.check(batch_of(run), *run.model.graphs)
    run = untrained({"text": TEXT}, LM, {"attention": "causal | leaking:Strided(3)"})
    run.model.leak_check.check(batch_of(run), *run.model.graphs)
    assert run.model.leak_check.by_form and not run.model.leak_check.searched


def test_tokens_of_each_input_and_of_the_next_sample_are_probed():
    run = untrained({"text": TEXT, "other": TEXT}, LM | {"b": {"use": "language_modeling", "target": "other"}}, CAUSAL)
    batch = batch_of(run)
    parts_of_batch = excerpts(batch, batch.targets, run.model.graphs[0], False)
    assert sum(len(each.chosen) for each in parts_of_batch) <= 16
    assert {int(each.tokens.input[0, column]) for each in parts_of_batch for column in each.chosen} == {1, 2}
    samples = parts_of_batch[0].tokens.sample[0]
    first, last = parts_of_batch[0].chosen[:2]
    assert samples[first] != samples[first - 1] and last == first - 1
    for each in parts_of_batch:  # for a long row: a part around the first boundary
        (short,) = [
            part
            for part in excerpts(batch, batch.targets, run.model.graphs[0], False, columns=8)
            if part.slots[0] // batch.main.tokens.shape[1] == each.slots[0] // batch.main.tokens.shape[1]
        ]
        assert len(short.slots) == 8 and set(short.slots.tolist()) <= set(each.slots.tolist())


def test_a_head_reads_only_the_probed_slots_of_a_long_row(monkeypatch):
    """The scores of 50,000 ids at all slots of a batch would not fit in memory."""
    rows, forward = [], leaking.Own.forward
    monkeypatch.setattr(leaking.Own, "forward", lambda self, x, t=None: rows.append(len(x)) or forward(self, x, t))
    run = untrained({"text": TEXT}, {"lm": LM["lm"] | {"head": "leaking:Own"}}, CAUSAL)
    monkeypatch.setattr(probing, "excerpts", lambda *arguments: excerpts(*arguments, columns=8))
    assert probe(run.model, batch_of(run)) == [] and rows and max(rows) <= 8


def test_one_layer_of_each_kind_is_probed_in_a_large_core(monkeypatch):
    monkeypatch.setattr(probing, "OPERATIONS", 1.0)
    model = block("Late") | {"depth": 6, "attention": ["causal", "causal & window(4)"]}
    core = untrained({"text": TEXT}, LM, model).model.core
    small = probing.with_fewer_layers(core)
    assert len(core.blocks) == 6 and len(core.graphs) == 6
    assert [*small.blocks] == [core.blocks[number] for number in (0, 1, 5)]
    assert small.graphs == tuple(core.graphs[number] for number in (0, 1, 5))
    with pytest.raises(LeakError, match="model.block: Late leaks"):
        probed({"text": TEXT}, LM, model)
    assert probed({"text": TEXT}, LM, model | block("Honest")) == []


def test_the_probe_changes_neither_the_model_nor_random_generators():
    run = untrained({"text": TEXT}, LM, CAUSAL | block("Honest") | {"initialization": "zero_projections"})
    batch, before = batch_of(run), {name: value.clone() for name, value in run.model.state_dict().items()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    probe(run.model, batch)
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_a_message_names_parts_that_cannot_be_probed(monkeypatch):
    reason = "model.block: Random is not probed for leaks: its outputs differ between two equal calls"
    lines = probed({"text": TEXT}, LM, CAUSAL | block("Random"))
    assert any(line.startswith(reason) for line in lines)

    def broken(self, x, context, *source):
        raise RuntimeError("no CPU")

    monkeypatch.setattr(leaking.Honest, "forward", broken)
    line = "model.block: Honest is not probed for leaks: RuntimeError: no CPU"
    assert probed({"text": TEXT}, LM, CAUSAL | block("Honest")) == [line]
    monkeypatch.setattr(probing, "available_memory", lambda: 1000)
    (line,) = probed({"text": TEXT}, LM, CAUSAL | block("Peek"))
    assert "Peek is not probed for leaks: a copy needs 0.0 GB of memory; 0.0 GB are available" in line


def test_a_training_is_refused_before_its_first_step(capsys):
    tree = {"inputs": {"text": TEXT}, "tasks": LM, "data": {"dataset": "untrained:Everything"}, "out": "run",
            "model": {"width": 16, "depth": 1, "heads": 2, "context": 64} | CAUSAL | block("Late"),
            "training": {"steps": 1, "samples_per_step": 4}, "evaluation": {"sample_tokens": 0, "generated": 0},
            }  # fmt: skip
    Path("a.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", "a.yaml"]) == 2
    assert "model.block: Late leaks: the output at token" in capsys.readouterr().err
    assert main(["train", "a.yaml", "model.block=leaking:Random"]) == 0
    assert "model.block: Random is not probed for leaks: its outputs differ between" in capsys.readouterr().err


def test_one_token_of_each_part_is_probed_after_the_time_limit(monkeypatch):
    """One token is changed: two outputs without the change and two with it; with a cache, each is read in two parts."""
    calls, run_core = [], probing.CorePart.run
    monkeypatch.setattr(probing.CorePart, "run", lambda *args: calls.append(type(args[0])) or run_core(*args))
    run = untrained({"text": TEXT}, LM, CAUSAL | block("Honest"))
    batch = batch_of(run)
    probe(run.model, batch, seconds=0)
    assert Counter(calls) == {probing.CorePart: 2 * 4, probing.CachePart: 2 * 2 * 4}  # in two modes
    calls.clear()
    probe(run.model, batch, seconds=60)
    assert Counter(calls)[probing.CorePart] > 2 * 20
