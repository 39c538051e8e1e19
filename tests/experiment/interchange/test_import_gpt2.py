"""Imported GPT-2s of many shapes, randomly initialised: logits and greedy texts equal those of transformers."""

import json

import pytest
import tiktoken
import torch
from chopmix.experiment.interchange.import_run import import_directory
from chopmix.experiment.run import load_run
from chopmix.files.errors import RunError
from chopmix.models.generation.sampling import Sampling, draw
from chopmix.models.generation.session import Session
from chopmix.models.pretrained.base import translate
from chopmix.models.pretrained.gpt2 import Gpt2
from chopmix.tokenizers.encoding import byte_pairs

transformers = pytest.importorskip("transformers")

SHAPES = {
    "tiny": {},
    "one_layer_one_head": {"n_layer": 1, "n_head": 1},
    "wide_heads": {"n_embd": 48, "n_head": 2, "n_layer": 3},
    "inner": {"n_inner": 40},
    "exact_gelu": {"activation_function": "gelu"},
    "relu": {"activation_function": "relu"},
    "epsilon": {"layer_norm_epsilon": 1e-3},
    "untied": {"tie_word_embeddings": False},
    "long": {"n_positions": 96},
}


def reference(directory, dtype=torch.float32, shards=None, **options):
    """A randomly initialised GPT-2 with non-trivial biases and gains, saved as a Hugging Face directory."""
    shape = {"vocab_size": 61, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4} | options
    torch.manual_seed(0)
    config = transformers.GPT2Config(**shape, bos_token_id=60, eos_token_id=60)
    model = transformers.GPT2LMHeadModel(config).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(directory, **({"max_shard_size": shards} if shards else {}))
    return model


def logits(run, ids, **options):
    session = Session.of_texts(run.model, ids.tolist(), input="text", task="lm", vocabulary=61, **options)
    return session.scores()


def all_logits(run, ids):
    """Logits at every position, computed as in training."""
    from chopmix.models.batch import Batch, Chunks, SetPlan, Targets
    from chopmix.models.tokens import plain_tokens

    b, n = ids.shape
    pieces = {"text": Chunks(values=ids, index=torch.arange(n))}
    batch = Batch(
        main=SetPlan(tokens=plain_tokens(b, n), chunks=pieces),
        targets={"lm": Targets(values=ids.flatten())},
    )
    return run.model(run.model.plan(batch))["lm"].unflatten(0, (b, n))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_logits_equal_transformers(tmp_path, shape, dtype, tolerance):
    theirs = reference(tmp_path / "hf", dtype, **SHAPES[shape])
    import_directory(tmp_path / "hf", tmp_path / "run")
    run = load_run(tmp_path / "run")
    run.model.to(dtype)
    if dtype == torch.float64:  # the weights of the run are float32: copy the exact ones
        config = Gpt2(tie_word_embeddings=SHAPES[shape].get("tie_word_embeddings", True))
        run.model.load_state_dict(translate(config.names(), theirs.state_dict()).tensors)
    ids = torch.randint(61, (3, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, ours = theirs(ids).logits, all_logits(run, ids)
    assert ((ours - expected).abs().max() / expected.abs().max()).item() < tolerance


def test_greedy_generation_of_64_tokens_equals_transformers(tmp_path):
    theirs = reference(tmp_path / "hf", n_positions=96)
    import_directory(tmp_path / "hf", tmp_path / "run")
    run = load_run(tmp_path / "run")
    ids = torch.randint(60, (2, 9), generator=torch.Generator().manual_seed(2))
    expected = theirs.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=64,
        min_new_tokens=64,
        do_sample=False,
        pad_token_id=60,
        eos_token_id=-1,
    )
    for cached in (True, False):
        session = Session.of_texts(run.model, ids.tolist(), input="text", task="lm", vocabulary=61, cached=cached)
        generated = torch.stack(list(draw(session, 64, Sampling(temperature=0))), dim=1)
        assert torch.equal(generated, expected[:, 9:])


def test_without_tokenizer_files_a_prompt_is_continued_as_transformers_does(tmp_path, monkeypatch):
    """A prompt begins with its first token, without a start token; an empty prompt is the start token."""
    ranks, special = {bytes([b]): b for b in range(256)}, {"<|endoftext|>": 50256}
    coder = tiktoken.Encoding("gpt2", pat_str=r"[\s\S]", mergeable_ranks=ranks, special_tokens=special)
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: coder)  # the ids of GPT-2 are not on every machine
    monkeypatch.setattr(byte_pairs, "rank_files", lambda name: {})
    theirs = reference(tmp_path / "hf", vocab_size=50257, n_embd=8, n_head=2)
    assert "OpenAI's of GPT-2 from tiktoken" in import_directory(tmp_path / "hf", tmp_path / "run")
    run, ids = load_run(tmp_path / "run"), torch.tensor([[*b"chop"]])
    known = run.choppers["text"].vocabulary
    assert known.prompted("chop") == ids[0].tolist() and known.prompted(None) == [50256]
    with torch.no_grad():
        expected = theirs.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=-1)[0, 4:]
    inputs, scores = [], Session.scores
    monkeypatch.setattr(Session, "scores", lambda self: inputs.append(self.ids) or scores(self))
    run.generate("chop", max_tokens=12, temperature=0)
    assert inputs[0].tolist() == ids.tolist() and inputs[-1][0, 4:].tolist() == expected[: len(inputs) - 1].tolist()
    assert len(inputs) > 4


def test_a_directory_of_several_weight_files_gives_the_same_weights(tmp_path):
    reference(tmp_path / "whole")
    reference(tmp_path / "shards", shards="20KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    for name in ("whole", "shards"):
        import_directory(tmp_path / name, tmp_path / f"run-{name}")
    first, second = (load_run(tmp_path / f"run-{name}").model.state_dict() for name in ("whole", "shards"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_directories_that_cannot_be_imported_are_refused(tmp_path):
    source = tmp_path / "hf"
    reference(source)
    described = json.loads((source / "config.json").read_text())

    def change(**options):
        (source / "config.json").write_text(json.dumps(described | options))

    with pytest.raises(RunError, match="has no config.json"):
        import_directory(tmp_path / "nowhere", tmp_path / "run")
    for options, match in [
        ({"model_type": "mamba"}, "model_type is 'mamba'; possible: .*'gpt2'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True; only False"),
        (
            {"activation_function": "silu"},
            "activation_function is 'silu'; only 'gelu_new', 'gelu_pytorch_tanh', 'gelu' or 'relu' is reproduced",
        ),
        ({"n_layer": 3}, "missing .*blocks.2"),
        ({"n_layer": 1}, "unexpected .*blocks.1"),
        ({"n_positions": 16}, "position.table.weight has shape"),
    ]:
        change(**options)
        with pytest.raises(ValueError, match=match):
            import_directory(source, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    change()
    (source / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:-10])
    with pytest.raises(RunError, match="damaged or cut short"):
        import_directory(source, tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "note.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty"):
        import_directory(source, tmp_path / "run")
