"""A trace records weights and vectors of every layer, predictions after each layer, outputs with a replaced input."""

from __future__ import annotations

import math

import pytest
import torch
from chopmix.files.errors import RunError
from chopmix.files.reading import DataError
from chopmix.inference.shown_answers import short_text
from chopmix.inference.tracing import CoreTrace, batch_of, traced
from chopmix.models.batch import SetPlan
from chopmix.models.tokens import plain_tokens
from untrained import untrained

BYTES = {"use": "text", "encoding": "bytes"}
IMAGE, WAVE = (
    {"use": "image", "patch_size": 4, "channels": 1, "size": 8},
    {"use": "sensor", "rate": 4, "window": 3, "channels": 2},
)
PREFIX = {"attention": "same_sample & (causal | from(image, wave))"}
RUNS = {
    "classification": ({"image": IMAGE, "wave": WAVE}, {"label": {"use": "classification", "target": "label"}}, {}),
    "class token": ({"image": IMAGE}, {"label": {"use": "classification", "target": "label", "pooling": "class_token"}},
                    {"core_tokens": 2}),
    "language": ({"image": IMAGE, "wave": WAVE, "text": BYTES},
                 {"text": {"use": "language_modeling", "target": "text"}}, PREFIX),
    "masked": ({"text": BYTES}, {"text": {"use": "masked_modeling", "target": "text"}}, {}),
    "encoder": ({"other": BYTES, "text": BYTES}, {"text": {"use": "sequence_to_sequence", "target": "text"}},
                {"attention": "causal", "encoder": {"depth": 2, "context": 32}}),
    "regression": ({"wave": WAVE}, {"value": {"use": "regression", "target": "value"}}, {}),
    "grouped": ({"text": BYTES}, {"text": {"use": "language_modeling", "target": "text"}},
                {"attention": "causal & window(3)", "position": "rotary", "block": {"key_value_heads": 1}}),
    "post norm": ({"image": IMAGE}, {"label": {"use": "classification", "target": "label"}},
                  {"block": {"residual": "post_norm"}}),
}  # fmt: skip


def run_of(name: str, depth: int = 3):
    inputs, tasks, model = RUNS[name]
    return untrained(inputs, tasks, {"depth": depth, **model})


@pytest.fixture(params=RUNS)
def run(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return run_of(request.param)


def trace_of(run, number: int = 0, **replaced):
    split = run.open("val")
    return traced(run, batch_of(split, split.all()[number], run.tasks, replaced=replaced or None))


def test_a_trace_is_the_forward_pass(run):
    trace = trace_of(run)
    with torch.inference_mode():
        expected = run.model(trace.batch)
    assert {*trace.outputs} == {*expected} == {*run.tasks}
    for name, output in expected.items():
        assert torch.equal(trace.outputs[name], output)
        lens = trace.lens(name)
        core = "encoder" if trace.batch.targets[name].of_encoder else "main"
        assert len(lens) == len(run.model.cores[core].blocks) + 1
        torch.testing.assert_close(lens[-1], output)
        assert len(trace.predictions(name)) == len(lens) and all(map(str, trace.predictions(name)))
    for name, core in trace.cores.items():
        depth, n = len(run.model.cores[name].blocks), core.plan.tokens.shape[1]
        assert len(core.attention) == depth and core.hidden.shape == (depth + 1, n, 16)
        for weights in core.attention:
            torch.testing.assert_close(weights.sum(-1), torch.ones(2, n))
        torch.testing.assert_close(core.rollout().sum(1), torch.ones(n))
        assert len(core.cross) == (depth if name == "main" and "encoder" in trace.cores else 0)
        for weights in core.cross:
            assert weights.shape == (2, n, trace.cores["encoder"].plan.tokens.shape[1])


def test_the_same_input_changes_nothing_and_another_input_gives_the_output_of_its_sample(run):
    """Replaced before the first layer, an input gives the output of its sample; only the head reads the last layer."""
    split = run.open("val")
    for name in run.choppers:
        if any(name == task.target for task in run.tasks.values()):
            continue
        trace = trace_of(run)
        first = split.item(split.all()[0].number)[0][name]
        item = first[::-1] if isinstance(first, str) else split.item(1)[0][name]
        other = trace_of(run, **{name: item})
        outputs, unchanged = trace.replaced(other, name), trace.replaced(trace, name)
        depth = len(run.model.cores[trace.core_of(name)].blocks)
        assert len(outputs) == len(unchanged) == depth + 1
        for task, output in trace.outputs.items():
            torch.testing.assert_close(outputs[0][task], other.outputs[task])
            assert all(torch.allclose(each[task], output, atol=1e-6) for each in unchanged)
            assert not torch.equal(outputs[0][task], output)


def test_another_number_of_tokens_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_of("encoder")
    trace, other = trace_of(run), trace_of(run, other="much longer than before")
    with pytest.raises(DataError, match=r"'other' of the two samples has \d+ and \d+ tokens"):
        trace.replaced(other, "other")
    with pytest.raises(DataError, match="the run has no input 'sound'; possible: other, text"):
        trace.input_number("sound")


def test_an_absent_input_is_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_of("classification")
    trace = run.trace({"image": run.open("val").samples[0]["image"]})
    with pytest.raises(DataError, match="the sample has no input 'wave'; possible: image"):
        trace.input_number("wave")


def test_the_loss_is_that_of_the_evaluation(run):
    """In bits, summed over the targets of the sample; NaN without a true value."""
    trace = trace_of(run)
    for name, task in run.tasks.items():
        targets = trace.batch.targets[name]
        nats = {**task.terms(trace.outputs[name], targets), **task.measure(trace.outputs[name], targets)}
        expected = float(nats.get("nats", nats["loss"])) / (math.log(2) if task.metrics["loss"].in_nats else 1)
        assert trace.loss(name, trace.outputs[name]) == pytest.approx(expected)


def test_rollout_multiplies_the_layers(tmp_path):
    weights = [torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]), torch.tensor([[[0.5, 0.5], [0.0, 1.0]]])]
    plan = SetPlan(tokens=plain_tokens(1, 2), chunks={})
    core = CoreTrace(plan=plan, attention=weights, cross=[], hidden=torch.zeros(3, 2, 4))
    first, second = torch.tensor([[1.0, 0.0], [0.25, 0.75]]), torch.tensor([[0.75, 0.25], [0.0, 1.0]])
    torch.testing.assert_close(core.rollout(), second @ first)


def test_a_sample_of_the_user_is_traced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_of("language")
    sample = {name: run.open("val").samples[0][name] for name in ("image", "wave")}
    trace = run.trace(sample)  # the text is generated first
    assert "text" in trace.batch.main.chunks and trace.outputs["text"].shape[0] > 0
    with_text = run.trace({**sample, "text": "chop"})
    assert with_text.batch.main.tokens.shape[1] == 4 + 4 + 5
    with pytest.raises(RunError, match="has the inputs image, wave, text"):
        run.trace("chop")
    with pytest.raises(RunError, match="has no input 'sound'"):
        run.trace({"sound": "a.wav"})
    with pytest.raises(DataError, match=r"is bad: .*more than the context of 64"):
        run.trace({**sample, "text": "x" * 80})
    assert run_of("masked").trace("chop the set").cores["main"].hidden.shape[0] == 4


def test_a_class_is_traced_without_and_with_its_label(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_of("classification")
    sample = {name: run.open("val").samples[0][name] for name in ("image", "wave")}
    trace = run.trace(sample)
    assert math.isnan(trace.loss("label", trace.outputs["label"]))
    labelled = run.trace({**sample, "label": "mix"})
    assert labelled.loss("label", labelled.outputs["label"]) > 0
    assert torch.equal(labelled.outputs["label"], trace.outputs["label"])


def test_the_difference_of_half_precision_is_reported(tmp_path, monkeypatch):
    from dataclasses import replace

    monkeypatch.chdir(tmp_path)
    run = run_of("classification")
    sample = {name: run.open("val").samples[0][name] for name in ("image", "wave")}
    assert run.trace(sample).difference == {}
    half = replace(run, precision="bfloat16").trace(sample)
    assert 0 < half.difference["label"] < 0.1
    assert torch.equal(half.outputs["label"], run.trace(sample).outputs["label"])


def test_answers_have_short_texts():
    assert short_text({"class": "cat", "probabilities": {"cat": 0.931}}) == "cat (0.93)"
    assert short_text({"text": "7+5=12"}) == "7+5=12"
    assert short_text({"classes": []}) == "none" and short_text({"error": "it is missing"}) == "it is missing"
    assert short_text({"value": 3.5}) == "value 3.5" and len(short_text({"value": ["abc" * 30] * 5})) == 200
