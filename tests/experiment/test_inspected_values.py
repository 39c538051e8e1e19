"""The values on the page of `chopmix inspect`: tokens by input, reachable tokens, targets, and attention by input."""

from __future__ import annotations

import pytest
import torch
from chopmix.experiment.inspected_values import (
    Reach,
    attention_by_input,
    reach_by_layer,
    supervised_slots,
    targets_with_ids,
    token_counts,
)
from chopmix.experiment.run import load_run
from chopmix.experiment.shown_sample import Choice, trained
from chopmix.models.attention.graph import Causal, Window
from chopmix.models.tokens import plain_tokens
from test_inspection import trained_run  # noqa: F401


@pytest.fixture
def shown(trained_run):  # noqa: F811
    return trained(load_run(trained_run), Choice())


def test_reachable_tokens_of_windows_and_a_causal_layer():
    """Of six tokens, the second layer of windows of two reads 1, 2, 3, 3, 3, 3 tokens."""
    layers = reach_by_layer([Window(2) & Causal(), Window(2) & Causal(), Causal()], plain_tokens(1, 6))
    assert layers == [Reach(pytest.approx(11 / 6), pytest.approx(11 / 6), 2),
                      Reach(pytest.approx(11 / 6), pytest.approx(15 / 6), 3), Reach(3.5, 3.5, 6)]  # fmt: skip


def test_every_token_belongs_to_one_input(shown):
    tokens = shown.batch.main.tokens.select(slice(0, 1))
    counts = token_counts(tokens, len(shown.model.inputs))
    chunks = shown.batch.main.chunks
    assert counts[1:] == [int((chunks[name].slots < tokens.shape[1]).sum()) for name in shown.model.inputs]
    assert sum(counts) == int((tokens.sample != 0).sum())


def test_targets_have_the_probabilities_of_the_model(shown):
    targets, logits = targets_with_ids("answer", shown), shown.trace.outputs["answer"]
    values = shown.batch.targets["answer"].values
    known = values >= 0
    shares = logits[:, : shown.choppers["answer"].vocabulary.size].float().softmax(-1)[known]
    assert [each.probability for each in targets] == pytest.approx(
        shares.gather(1, values[known][:, None])[:, 0].tolist()
    )
    vocabulary = shown.choppers["answer"].vocabulary
    assert [each.best for each in targets] == [repr(vocabulary.shown(id)) for id in shares.argmax(-1).tolist()]
    assert [each.text for each in targets] == [repr(vocabulary.shown(id)) for id in values[known].tolist()]
    nats = -sum(torch.tensor(each.probability).log() for each in targets)
    assert shown.trace.loss("answer", logits) == pytest.approx(float(nats) / torch.tensor(2.0).log().item(), rel=1e-4)


def test_attention_by_input_adds_up_to_one_in_every_layer(shown):
    trace = shown.trace
    layers = [*range(1, len(trace.main.attention) + 1)]
    numbers, shares = attention_by_input(trace, layers)
    assert shares.shape == (len(numbers), len(layers) + 1)
    torch.testing.assert_close(shares.sum(0), torch.ones(len(layers) + 1))
    slots, number = supervised_slots(trace.batch, "answer"), trace.input_number("sound")
    sound = trace.main.slots(number)
    expected = [weights.mean(0)[slots][:, sound].sum(1).mean() for weights in trace.main.attention]
    torch.testing.assert_close(shares[numbers.index(number), :-1], torch.stack(expected))
