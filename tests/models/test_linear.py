"""The linear product for few rows: its values equal those of torch, for any number of rows, and training does not use
it."""

import pytest
import torch
import torch.nn.functional as F
from chopmix.models.layers import linear as products
from chopmix.models.layers.linear import LARGE, Linear, linear


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize("rows", [1024, 1025])
@pytest.mark.parametrize("shape", [(1,), (1, 1), (3,), ()])
@pytest.mark.parametrize("biased", [True, False])
def test_a_product_equals_torch(monkeypatch, rows, shape, biased, halves):
    monkeypatch.setattr(products, "halves_are_faster", lambda columns, threads: halves)
    torch.manual_seed(0)
    weight, x = torch.randn(rows, 256), torch.randn(*shape, 256)
    assert weight.numel() >= LARGE
    bias = torch.randn(rows) if biased else None
    with torch.inference_mode():
        product = linear(x, weight, bias)
    assert halves or torch.equal(product, F.linear(x, weight, bias))
    torch.testing.assert_close(product, F.linear(x, weight, bias), rtol=1e-5, atol=1e-4)


def test_the_faster_implementation_is_measured_once():
    with torch.inference_mode():
        linear(torch.randn(256), torch.randn(1024, 256))
        before = products.halves_are_faster.cache_info().misses
        assert before >= 1
        linear(torch.randn(256), torch.randn(2048, 256))
        linear(torch.randn(4, 256), torch.randn(1024, 256))
    assert products.halves_are_faster.cache_info().misses == before


def test_strided_vectors_and_weights(monkeypatch):
    monkeypatch.setattr(products, "halves_are_faster", lambda columns, threads: True)
    torch.manual_seed(0)
    weight, x = torch.randn(256, 1024).t(), torch.randn(1, 512)[:, ::2]
    with torch.inference_mode():
        torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=1e-5, atol=1e-4)


def test_training_uses_the_product_of_torch():
    layer = Linear(256, 1024)
    x = torch.randn(1, 256)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    layer(x).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("rows", [1, 2, 5, 32, 64, 65])
@pytest.mark.parametrize("biased", [False, True])
@torch.inference_mode()
def test_a_matrix_is_packed_once_for_a_few_rows(monkeypatch, rows, biased):
    possible = products.can_prepack()  # called first, because it packs a small matrix
    packed, original = [], products.prepack
    monkeypatch.setattr(products, "prepack", lambda weight: packed.append(original(weight)) or packed[-1])
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(rows, 48, generator=generator), torch.randn(97, 48, generator=generator)
    bias = torch.randn(97, generator=generator) if biased else None
    multiply = products.prepacked(weight, bias)
    for scale in (1.0, 2.0):
        torch.testing.assert_close(multiply(x * scale), F.linear(x * scale, weight, bias), rtol=1e-5, atol=1e-5)
    assert len(packed) == (possible and 1 < rows <= products.FEW)
    assert torch.equal(multiply(x), multiply(x)) and multiply(x).is_contiguous()


@torch.inference_mode()
def test_a_matrix_that_is_not_packed_uses_the_product_of_torch(monkeypatch):
    monkeypatch.setattr(products, "prepack", None)
    x, weight = torch.randn(4, 48), torch.randn(96, 48)
    with torch.inference_mode(False):
        assert torch.equal(products.prepacked(weight)(x), F.linear(x, weight))
    assert torch.equal(products.prepacked(weight.double())(x.double()), F.linear(x.double(), weight.double()))
    monkeypatch.setattr(products, "LARGEST", 1000)
    assert torch.equal(products.prepacked(weight)(x), F.linear(x, weight))
    monkeypatch.setattr(products, "LARGEST", 10_000)
    monkeypatch.setattr(products, "can_prepack", lambda: False)
    assert torch.equal(products.prepacked(weight)(x), F.linear(x, weight))


def test_packing_is_not_used_if_torch_has_no_operator_for_it(monkeypatch):
    def refuse(weight):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(products, "prepack", refuse)
    assert not products.can_prepack.__wrapped__()
