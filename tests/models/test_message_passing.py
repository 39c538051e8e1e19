"""Attention in plain Python, with results computed by hand: all other implementations are compared with it."""

import math

import pytest
import torch
from chopmix.models.attention import tiny_gpt
from chopmix.models.attention.message_passing import MessageNode, dot, pass_messages, receive, softmax

LOG3 = math.log(3)


def node(query=(0.0,), key=(0.0,), value=(0.0,), token=None) -> MessageNode:
    return MessageNode(list(query), list(key), list(value), token)


def test_one_message_by_hand():
    """Scores 0 and ln 3 (2 ln 3 over the root of four channels) are weights 1/4 and 3/4."""
    reader = node(query=(2, 0, 0, 0), value=(9, 9))
    senders = [node(key=(0, 9, 9, 9), value=(8, 0)), node(key=(LOG3, 5, 5, 5), value=(0, 4))]
    assert receive(reader, senders) == pytest.approx([2, 3])


def test_a_bias_is_added_after_scaling():
    reader = node(query=(1, 0, 0, 0))
    senders = [node(key=(0, 0, 0, 0), value=(8,)), node(key=(0, 0, 0, 0), value=(0,))]
    assert receive(reader, senders, [LOG3, 0.0]) == pytest.approx([6])


def test_a_bias_must_have_one_number_per_sender():
    with pytest.raises(ValueError, match="zip"):
        receive(node(), [node(), node()], [1.0])


def test_a_node_without_senders_receives_zeros():
    assert receive(node(value=(1, 2, 3)), []) == [0, 0, 0]


def test_one_sender_is_copied_for_any_score():
    assert receive(node(query=(-7,), value=(9, 9)), [node(key=(100,), value=(1, 2))]) == [1, 2]


@pytest.mark.parametrize("scores", [[0.0], [1.0, 2.0, 3.0], [-1e4, 0.0, 1e4], [1e300, 1e300], [-5.0] * 7])
def test_softmax_sums_to_one_and_keeps_the_order(scores):
    weights = softmax(scores)
    assert sum(weights) == pytest.approx(1)
    assert sorted(weights) == [w for _, w in sorted(zip(scores, weights, strict=True))]
    assert softmax([s - 3 for s in scores]) == pytest.approx(weights)


def test_dot_needs_equal_lengths():
    assert dot([1, 2, 3], [4, 5, 6]) == 32
    with pytest.raises(ValueError, match="zip"):
        dot([1, 2], [1])


def test_messages_follow_the_edges_from_sender_to_reader():
    """`reads(reader, sender)`: the first node reads only itself, the last reads all equally, because all scores are
    0."""
    nodes = [node(value=(v,), token=i) for i, v in enumerate((1.0, 3.0, 8.0))]
    assert pass_messages(nodes, nodes, lambda reader, sender: sender <= reader) == [[1], [2], [4]]


def test_readers_and_senders_may_be_different_nodes():
    readers, senders = [node(token=0), node(token=1)], [node(value=(5.0,), token=1)]
    assert pass_messages(readers, senders, lambda reader, sender: reader == sender) == [[0], [5]]


@pytest.mark.parametrize("reads", [tiny_gpt.causal, lambda reader, sender: True, lambda reader, sender: sender == 1])
def test_the_tiny_gpt_passes_the_same_messages(reads):
    """Its nodes hold tensors; edges and messages equal those of `message_passing.py`."""
    torch.manual_seed(0)
    vectors = torch.randn(4, 3, 8, dtype=torch.float64)
    ours = [tiny_gpt.MessageNode(*each, place) for place, each in enumerate(vectors)]
    theirs = [MessageNode(*each.tolist(), place) for place, each in enumerate(vectors)]
    messages = tiny_gpt.pass_messages(ours, ours, reads)
    assert torch.allclose(messages, torch.tensor(pass_messages(theirs, theirs, reads), dtype=torch.float64))


def test_no_token_of_the_tiny_gpt_depends_on_later_tokens():
    torch.manual_seed(0)
    model = tiny_gpt.TinyGpt(5, 6)
    first, second = (model(torch.tensor([0, 1, 2, last])) for last in (3, 4))
    assert torch.equal(first[:3], second[:3]) and not torch.equal(first[3], second[3])
