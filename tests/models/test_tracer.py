"""The main path on one packed batch of image patches, sound slices and text (`tracer.py`): every contract is tested
once."""

import pytest
import torch
import torch.multiprocessing as processes
import tracer
from chopmix.models.batch import IGNORED, Batch, Chunks, SetPlan
from chopmix.models.leaks import leaks
from chopmix.models.model import Cores, Model
from chopmix.models.tokens import Tokens
from chopmix.tokenizers.chopping.packing import place
from cores import core_of


def test_training_from_raw_samples_lowers_the_loss():
    model = tracer.small_model().train()
    losses = tracer.train(model, steps=30)
    assert losses[0] == pytest.approx(5.6, abs=0.8)  # ln 257
    assert losses[-1] < losses[0] - 1


@pytest.mark.parametrize("graph", [
    tracer.GRAPH, "causal", "same_sample & (causal | from(image, sound))", "causal | edges(2->5, 1->9)",
    "same_sample & window(3)", "causal & same_item",
])  # fmt: skip
def test_packing_does_not_change_a_sample(graph):
    """A sample has the same outputs alone in a row and packed with others; tests/models/test_graph.py has all
    graphs."""
    model, samples = tracer.small_model(graph).eval(), tracer.samples()
    model.leak_check.check = lambda *_: None  # some of these graphs leak targets; only the outputs are compared here
    packed_batch = model.plan(tracer.batch(samples))
    assert len(packed_batch.main.tokens.sample) < len(samples)
    packed = model(packed_batch)["lm"]
    alone = torch.cat([model(model.plan(tracer.batch([sample])))["lm"] for sample in samples])
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


def test_every_parameter_has_a_gradient_on_every_rank():
    """A batch with only text gives (zero) gradients for the image and sound tokenizers, so that no rank waits
    forever."""
    model = tracer.small_model().train()
    tracer.loss(model, tracer.batch([[("text", "only words")]])).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.tokenizers["image"].embedding.weight.grad.abs().sum() == 0


def test_no_target_reaches_its_predictor():
    model = tracer.small_model()
    assert leaks(tracer.batch(tracer.samples()), model.core.graphs) == {"lm": []}


def test_a_leak_through_two_layers_is_detected():
    """Text before an image that all tokens read: earlier text reads later text through the image."""
    model = tracer.small_model("same_sample & (causal | from(image))")
    samples = [[("text", "abc"), ("image", torch.randint(256, (1, 8, 8)).to(torch.uint8))]]
    assert leaks(tracer.batch(samples), model.core.graphs)["lm"]
    one_layer = tracer.small_model("same_sample & (causal | from(image))", depth=1)
    assert leaks(tracer.batch(samples), one_layer.core.graphs) == {"lm": []}


def test_later_raw_text_never_changes_an_earlier_output():
    """The last letter changes; the outputs before it must be equal to the last bit."""
    model = tracer.small_model().eval()
    first, second = ([[tracer.samples()[0][0], ("text", word)]] for word in ("chop", "choX"))
    outputs = [model(model.plan(tracer.batch(s)))["lm"] for s in (first, second)]
    assert torch.equal(outputs[0][:-1], outputs[1][:-1])
    assert (outputs[0][-1] - outputs[1][-1]).abs().max() > 1e-2


def test_cross_attention_reads_only_the_same_sample_of_the_second_set():
    """The decoder reads its sample of the encoder's set and no other; samples without encoder tokens read zeros."""
    model, samples = tracer.small_model("causal & same_sample", encoder=True).eval(), tracer.samples()
    before = model(model.plan(tracer.two_set_batch(samples)))["lm"]
    assert torch.isfinite(before).all()
    samples[0][0] = ("image", torch.randint(256, (1, 8, 12)).to(torch.uint8))
    after = model(model.plan(tracer.two_set_batch(samples)))["lm"]
    length = len("chop") + 1
    assert not torch.allclose(before[:length], after[:length])
    assert torch.equal(before[length:], after[length:])


def test_learned_relative_bias_gets_a_gradient():
    model = tracer.small_model().train()
    tracer.loss(model, tracer.batch(tracer.samples())).backward()
    assert model.core.position.table.weight.grad.abs().sum() > 0


def test_cached_equals_uncached():
    """An image and text read at once, and token by token from the cache of keys and values."""
    model = tracer.small_model().eval()
    whole = model.plan(tracer.batch([tracer.samples()[2]]))
    planned = whole.main
    n = int((planned.tokens.sample > 0).sum())
    expected = model.read(whole).main[:, :n]
    core, image = model.core, planned.chunks["image"]
    start = len(image.index)
    cache, outputs = core.empty_cache(1, tracer.CONTEXT), []
    for first, last in [(0, start), *((i, i + 1) for i in range(start, n))]:
        tokens = planned.tokens.select(slice(None), slice(first, last))
        text = planned.chunks["text"]
        chunks = (
            {"image": image}
            if first == 0
            else {
                "text": Chunks(
                    values=text.values[[first - start]], index=text.index[[first - start]], slots=torch.tensor([0])
                )
            }
        )
        keys = cache.extend(tokens)
        step = SetPlan(tokens=tokens, chunks=chunks, layouts=core.plan(tokens, keys))
        outputs.append(model.read(Batch(main=step), cache).main)
    torch.testing.assert_close(torch.cat(outputs, dim=1), expected, rtol=1e-5, atol=1e-5)


def test_two_processes_give_the_losses_of_one(tmp_path):
    """Uneven shares (3 and 2 samples, ragged targets, one rank without sound): DDP by global counts."""
    expected = tracer.train(tracer.small_model().train())
    context = processes.get_context("fork")
    results = context.SimpleQueue()
    processes.start_processes(tracer.rank_main, (2, f"file://{tmp_path}/meet", results), nprocs=2, start_method="fork")
    assert results.get() == pytest.approx(expected, rel=1e-5)


def test_padding_is_neither_read_nor_a_target():
    planned = tracer.planned(tracer.samples())
    assert isinstance(planned.tokens, Tokens) and (planned.tokens.sample == 0).any()
    targets = tracer.TASK.targets(Batch(main=planned))[1]
    target_slots = targets.slots[targets.values != IGNORED]
    assert (planned.tokens.sample.flatten()[target_slots] > 0).all()
    assert targets.count == len(target_slots)


@pytest.mark.parametrize("wanted", [torch.float32, torch.float64])
@pytest.mark.parametrize("names", [["sound"], ["image"], ["text"], ["sound", "text"], ["text", "sound"]])
def test_a_set_has_the_type_of_the_weights_for_any_first_input(names, wanted):
    """With autocast, the tokenizer of sounds without positions gives bfloat16; the set is not rounded to it."""
    choppers = {name: part for name, part in tracer.choppers().items() if name in names}
    tokenizers = {name: tracer.TOKENIZERS[name](choppers[name], 32, 48, position=None) for name in names}
    core = core_of(names, tracer.AXES, width=32, depth=1, heads=4)
    model = Model(tokenizers, Cores(core), {}, context=48, core_tokens=1).to(wanted)
    sample = [part for part in tracer.samples()[0] if part[0] in names]
    chopped = [(name, choppers[name].chop(item)) for name, item in sample]
    planned = place([chopped, chopped], choppers, 48, tracer.AXES, core=1)
    with torch.autocast("cpu", torch.bfloat16, enabled=wanted == torch.float32):
        x = model.mix(planned).x
    assert x.dtype == wanted
    assert torch.equal(x.flatten(0, 1)[planned.core_slots[:, 0]], model.own.weight.expand(2, -1))
