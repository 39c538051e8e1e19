"""Imported directories of BERT, RoBERTa, T5 and Llama, randomly initialised, give the outputs and texts of
transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from batching import make_batch
from chopmix.experiment.interchange.import_run import import_directory
from chopmix.experiment.run import Run, load_run
from chopmix.files.errors import RunError
from chopmix.files.reading import DataError
from chopmix.models.batch import Batch, Chunks, SetPlan, Targets
from chopmix.models.generation.beam_search import Search
from chopmix.models.tokens import Tokens, plain_tokens
from chopmix.tokenizers.encoding.directory import DirectoryEncoding
from safetensors.torch import load_file, save_file

BERT = {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
        "max_position_embeddings": 24}  # fmt: skip
LLAMA = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 56,
         "max_position_embeddings": 32}  # fmt: skip
T5 = {
    "vocab_size": 90,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
}


def shaken(model: torch.nn.Module, scale: float = 0.15) -> torch.nn.Module:
    """The model with every parameter moved at random, so that no bias or gain is what it starts as."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def imported(model: torch.nn.Module, tmp_path: Path, dtype=torch.float32) -> Run:
    """The run that `chopmix import` makes of the model's directory."""
    model.save_pretrained(tmp_path / "theirs")
    import_directory(tmp_path / "theirs", tmp_path / "run")
    run = load_run(tmp_path / "run", "last")
    run.model.to(dtype)
    return run


def assert_equal(output: torch.Tensor, expected: torch.Tensor, tolerance: float):
    """The largest difference, relative to the largest value, is within the tolerance."""
    assert output.shape == expected.shape
    assert float((output - expected).abs().max() / expected.abs().max()) <= tolerance


def padded_rows(ids: torch.Tensor, lengths: list[int]) -> Tokens:
    """Descriptors of rows whose ends are padding."""
    tokens = plain_tokens(*ids.shape)
    there = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
    sample = tokens.sample * there
    return Tokens(input=tokens.input * there, sample=sample, item=sample, position=tokens.position)


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-7)]
)  # positions: see Bert.names
@pytest.mark.parametrize("options", [{}, {"num_attention_heads": 2, "layer_norm_eps": 1e-5}, {"type_vocab_size": 1}])
@pytest.mark.parametrize("kind", ["Bert", "Roberta"])
def test_bert_gives_the_same_scores(kind, options, dtype, tolerance, tmp_path):
    extra = {"pad_token_id": 1, "max_position_embeddings": 26} if kind == "Roberta" else {}
    config = getattr(transformers, f"{kind}Config")(**BERT | extra | options)
    theirs = shaken(getattr(transformers, f"{kind}ForMaskedLM")(config))
    run = imported(theirs, tmp_path, dtype)
    ids, lengths = torch.randint(5, 120, (3, 24), generator=torch.Generator().manual_seed(1)), [24, 17, 9]
    there = torch.arange(24) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        inputs = ids if kind == "Bert" else ids.masked_fill(~there, 1)
        expected = theirs.to(dtype)(inputs, attention_mask=there.long()).logits
        pieces = {"text": Chunks(values=ids, index=torch.arange(24))}
        batch = Batch(main=SetPlan(tokens=padded_rows(ids, lengths), chunks=pieces),
                      targets={"mlm": Targets(values=ids.flatten())})  # fmt: skip
        logits = run.model(run.model.plan(batch, dtype=dtype))["mlm"].view(3, 24, -1)
    assert_equal(logits[there], expected[there], tolerance)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-6)])  # theirs norm in float32
@pytest.mark.parametrize("options", [
    {}, {"num_key_value_heads": 2, "tie_word_embeddings": True}, {"num_key_value_heads": 1, "head_dim": 16},
    {"rope_theta": 500_000.0, "rms_norm_eps": 1e-5},
])  # fmt: skip
def test_llama_gives_the_same_scores_and_texts(options, dtype, tolerance, tmp_path):
    config = transformers.LlamaConfig(**LLAMA | options)
    theirs = shaken(transformers.LlamaForCausalLM(config))
    run = imported(theirs, tmp_path, dtype)
    ids = torch.randint(3, 90, (2, 20), generator=torch.Generator().manual_seed(1))
    pieces = {"text": Chunks(values=ids, index=torch.arange(20))}
    batch = Batch(main=SetPlan(tokens=plain_tokens(2, 20), chunks=pieces),
                  targets={"lm": Targets(values=ids.flatten())})  # fmt: skip
    theirs = theirs.to(dtype)
    with torch.no_grad():
        assert_equal(run.model(run.model.plan(batch, dtype=dtype))["lm"].view(2, 20, -1), theirs(ids).logits, tolerance)
    if dtype == torch.float64:
        prompt = "".join(f"<{id}>" for id in ids[0, :5].tolist())
        expected = theirs.generate(torch.tensor([[1, *ids[0, :5]]]), max_new_tokens=16, do_sample=False)[0, 6:].tolist()
        expected = expected[: expected.index(2)] if 2 in expected else expected
        from chopmix.models.generation.sampling import Sampling

        text = run.generate(prompt, max_tokens=16, sampling=Sampling(temperature=0))
        assert text == "".join(f"<{id}>" for id in expected if id > 2 or id == 0)


def t5(version: str, **options) -> torch.nn.Module:
    """A T5 of a version. In version 1.1, the head does not share its weights with the embedding."""
    extra = {} if version == "1.0" else {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**T5 | extra | options))
    if version == "1.1":
        model.lm_head.weight = torch.nn.Parameter(torch.randn(model.config.vocab_size, model.config.d_model))
        model.config.tie_word_embeddings = False
    return shaken(model)


def sources(run: Run) -> list[dict[str, str]]:
    """Texts of several lengths, as numbers."""
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(2, 90, (length,), generator=generator).tolist() for length in (9, 5, 14, 2)]
    return [{"source": "".join(f"<{id}>" for id in row), "target": "<5><7><80>"} for row in rows]


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 5e-6)])  # theirs norm in float32
@pytest.mark.parametrize("options", [{}, {"d_kv": 16, "num_decoder_layers": 3}])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_t5_gives_the_same_scores_and_texts(version, options, dtype, tolerance, tmp_path):
    theirs = t5(version, **options)
    run = imported(theirs, tmp_path, dtype)
    theirs = theirs.to(dtype)
    samples = sources(run)
    split = run.as_split(samples)
    batch = make_batch(split, split.all(), run.tasks)
    order = [int(key.split()[1]) - 1 for key in batch.main.keys]
    ids = [run.choppers["source"].chop(samples[n]["source"]).values for n in order]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    there = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    decoder = torch.tensor([[0, 5, 7, 80]] * 4)
    with torch.no_grad():
        logits = run.model(run.model.plan(batch, dtype=dtype))["answer"].view(4, 4, -1)
        assert_equal(logits, theirs(padded, attention_mask=there, decoder_input_ids=decoder).logits, tolerance)
        if dtype == torch.float32 or options:  # transformers' cache has as many layers as the encoder
            return
        for search in (
            Search(),
            Search(beams=4),
            Search(beams=3, length_penalty=0.4, no_repeat=2),
            Search(beams=4, length_penalty=2.0),
        ):
            expected = theirs.generate(
                padded,
                attention_mask=there,
                max_new_tokens=18,
                do_sample=False,
                num_beams=search.beams,
                length_penalty=search.length_penalty,
                no_repeat_ngram_size=search.no_repeat,
            )
            answers = run.predict([{"source": each["source"]} for each in samples], search=search, max_tokens=18)
            for row, n in zip(expected.tolist(), order):
                row = row[1:]
                row = row[: row.index(1)] if 1 in row else row
                assert answers[n]["answer"]["text"] == "".join(f"<{id}>" for id in row if id > 1)


# -------------------------------------------------------------------------------------------------------- tokenizers


def test_a_word_piece_vocabulary_is_read_as_transformers_reads_it(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s", "un", "##able", ",", "a", "##b"]
    theirs = shaken(transformers.BertForMaskedLM(transformers.BertConfig(**BERT | {"vocab_size": len(words) + 2})))
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "vocab.txt").write_text("\n".join(words))
    import_directory(tmp_path / "theirs", tmp_path / "run")
    run = load_run(tmp_path / "run", "last")
    chopper = run.choppers["text"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    reference = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    for text in ("The cats sat, unable", "a [MASK] abs", "zebra"):
        plain = reference(text.replace("[MASK]", "")).input_ids
        ids = chopper.chop(text.replace("[MASK]", "")).values.tolist()
        assert ids == plain
    assert chopper.vocabulary.roles == {"mask": 4} and chopper.vocabulary.decode([5, 6, 8]) == "the cats"
    assert chopper.vocabulary.encode("[MASK]") != [4]  # text of a special token is data
    assert run.model.tokenizers["text"].embedding.num_embeddings == len(words) + 2
    ids = reference("the cat [MASK] sat").input_ids
    assert ids.index(4) == 3
    with torch.no_grad():
        shares = theirs(torch.tensor([ids])).logits[0, 3, : len(words)].softmax(-1)
    shares[[0, 1, 2, 3, 4]] = 0  # special ids are never offered
    (answer,) = run.predict([{"text": "the cat [MASK] sat"}])
    (offered,) = answer["mlm"]["masks"]
    assert [each["token"] for each in offered] == [
        run.choppers["text"].vocabulary.decode([i]) for i in shares.topk(5).indices.tolist()
    ]
    assert offered[0]["probability"] == pytest.approx(float(shares.max()), abs=1e-3)


def test_a_vocabulary_of_special_tokens_alone_is_refused(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    source = directory(tmp_path)
    (source / "vocab.txt").write_text("\n".join(words))
    with pytest.raises(ValueError, match="the vocabulary of 'text' has only special ids: there is nothing to hide"):
        import_directory(source, tmp_path / "run")


def test_an_unknown_word_without_an_id_for_unknown_words_is_an_error():
    """The tokenizers library raises a plain Exception here; the message names the text."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    coder = Tokenizer(models.WordPiece({"[CLS]": 0, "the": 1, "cat": 2}, unk_token="[UNK]"))
    coder.pre_tokenizer = pre_tokenizers.Whitespace()
    encoding = DirectoryEncoding(coder.to_str(), 0, {})
    assert encoding.encode("the cat") == [1, 2]
    for cut in (encoding.encode, lambda text: encoding.encode_batch(["the", text])):
        with pytest.raises(DataError, match="the tokenizer cannot tokenize the text .the zebra.: .*UNK"):
            cut("the zebra")


def unigram(size: int = 90):
    """A unigram tokenizer as that of T5."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("\u2581", -2.0),
        ("\u2581the", -3.0),
        ("\u2581cat", -4.0),
        ("s", -4.5),
    ]
    pieces += [(chr(97 + n), -6.0 - n / 10) for n in range(26) if chr(97 + n) != "s"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True) for name in ("<pad>", "</s>", "<extra_id_1>", "<extra_id_0>")]
    )
    return tokenizer


def test_a_unigram_tokenizer_encodes_and_decodes_text(tmp_path):
    theirs = t5("1.0")
    theirs.save_pretrained(tmp_path / "theirs")
    unigram().save(str(tmp_path / "theirs" / "tokenizer.json"))
    import_directory(tmp_path / "theirs", tmp_path / "run")
    run = load_run(tmp_path / "run", "last")
    text = run.choppers["source"].vocabulary
    assert run.choppers["source"].chop("the cats").values.tolist() == [*unigram().encode("the cats").ids, 1]
    assert text.decode(text.encode("the cats sat")) == "the cats sat"
    assert text.pieces[4] == b" the"
    assert {text.specials[text.roles[f"sentinel_{n}"]] for n in (0, 1)} == {"<extra_id_0>", "<extra_id_1>"}
    assert text.roles["sentinel_1"] < text.roles["sentinel_0"]  # counted from the end, as published
    ids = run.choppers["source"].with_marks(["sentinel_0"]).chop("the <extra_id_0> cats").values.tolist()
    assert ids == [*text.encode("the"), text.roles["sentinel_0"], *text.encode(" cats"), 1]
    answer = run.predict([{"source": "the cat"}], max_tokens=5)[0]["answer"]["text"]
    assert isinstance(answer, str)
    again = load_run(tmp_path / "run", "last")
    assert again.choppers["source"].vocabulary == text


def test_a_byte_pair_vocabulary_of_two_files_is_imported(tmp_path):
    from tokenizers import ByteLevelBPETokenizer

    learned = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    learned.train_from_iterator(
        ["the cat sat on the mat"] * 20, vocab_size=275, min_frequency=1, special_tokens=special
    )
    size = learned.get_vocab_size()
    config = transformers.RobertaConfig(**BERT | {"vocab_size": size, "max_position_embeddings": 26, "pad_token_id": 1})
    shaken(transformers.RobertaForMaskedLM(config)).save_pretrained(tmp_path / "theirs")
    learned.save_model(str(tmp_path / "theirs"))
    import_directory(tmp_path / "theirs", tmp_path / "run")
    chopper = load_run(tmp_path / "run", "last").choppers["text"]
    assert chopper.chop("the mat").values.tolist() == [0, *learned.encode("the mat").ids, 2]
    assert (
        chopper.vocabulary.roles == {"mask": 4}
        and chopper.vocabulary.decode(chopper.vocabulary.encode("the mat")) == "the mat"
    )


@pytest.mark.parametrize("id", [2**32 - 2, 2**24])
def test_a_vocabulary_with_a_huge_id_is_refused(tmp_path, id):
    """The tokenizers library allocates memory for all ids up to the highest one, and aborts if there is not enough."""
    folder = directory(tmp_path)
    (folder / "vocab.json").write_text(json.dumps({"a": 0, "b": id}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(DataError, match=f"its highest id is {id:,}; possible: 0 to 16,777,215"):
        import_directory(folder, tmp_path / "run")


# ----------------------------------------------------------------------------------------------------------- refusals


def directory(tmp_path: Path, name: str = "theirs", **changes) -> Path:
    """A tiny BERT's directory with another config.json."""
    theirs = transformers.BertForMaskedLM(transformers.BertConfig(**BERT))
    theirs.save_pretrained(tmp_path / name)
    file = tmp_path / name / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return tmp_path / name


@pytest.mark.parametrize("changes, message", [
    ({"hidden_act": "relu"}, "hidden_act is 'relu'; only 'gelu' is reproduced exactly"),
    ({"is_decoder": True}, "is_decoder is True; only False is reproduced exactly"),
    ({"model_type": "electra"}, "model_type is 'electra'; possible: .*'bert', .*'roberta', 't5'"),
    ({"num_hidden_layers": 3}, r"missing cores.main.blocks.2"),
    ({"num_hidden_layers": 1}, r"unexpected cores.main.blocks.1"),
    ({"num_hidden_layers": 1_000}, r"1,000 layers, but the weights have only \d+ tensors"),  # not built
    ({"intermediate_size": 40}, "has shape"),
    ({"hidden_size": 2**17}, "has shape"),  # 64 GiB: refused before memory is allocated
])  # fmt: skip
def test_a_model_that_is_not_reproduced_exactly_is_refused(tmp_path, changes, message):
    source = directory(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        import_directory(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_llama_without_end_tokens_is_imported(tmp_path):
    """transformers treats an empty list of end tokens as no end token."""
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA, eos_token_id=[])).save_pretrained(tmp_path / "in")
    import_directory(tmp_path / "in", tmp_path / "run")
    assert load_run(tmp_path / "run").choppers["text"].vocabulary.frame["ends"] == [2]


def rewrite(source: Path, change) -> None:
    """Replaces the weights of a directory by the result of `change`."""
    file = source / "model.safetensors"
    save_file({key: value.contiguous() for key, value in change(load_file(file)).items()}, file)


def test_names_of_the_first_checkpoints_are_read(tmp_path):
    """Checkpoints on the hub contain gains named gamma, unused tables, and frequencies that the model computes."""
    source = directory(tmp_path)
    import_directory(source, tmp_path / "new")
    expected = load_run(tmp_path / "new", "last").model.state_dict()

    def older(theirs):
        return {
            key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
            for key, value in theirs.items()
        }

    rewrite(source, older)
    import_directory(source, tmp_path / "old")
    weights = load_run(tmp_path / "old", "last").model.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    model = t5("1.0")
    model.save_pretrained(tmp_path / "t5")
    key = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    rewrite(tmp_path / "t5", lambda theirs: theirs | {key: torch.zeros(32, 4)})
    import_directory(tmp_path / "t5", tmp_path / "t5run")
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).save_pretrained(tmp_path / "llama")
    key = "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(tmp_path / "llama", lambda theirs: theirs | {key: torch.zeros(8)})
    import_directory(tmp_path / "llama", tmp_path / "llamarun")


def test_the_report_names_the_missing_head_of_a_bert(tmp_path):
    source = directory(tmp_path)
    transformers.BertModel(transformers.BertConfig(**BERT)).save_pretrained(tmp_path / "bare")
    report = import_directory(tmp_path / "bare", tmp_path / "run")
    assert "no head for 'mlm': `chopmix embed` works, predictions do not" in report
    assert "not needed and not read: bert.pooler.dense.bias, bert.pooler.dense.weight" in report
    rewrite(source, lambda theirs: {key: value for key, value in theirs.items() if "transform.dense" not in key})
    with pytest.raises(
        RunError, match="missing heads.mlm.*--partly imports the rest"
    ):  # a part of a head is not enough
        import_directory(source, tmp_path / "half")
    rewrite(source, lambda theirs: {key: value for key, value in theirs.items() if "token_type" not in key})
    with pytest.raises(ValueError, match="have no bert.embeddings.token_type_embeddings.weight"):
        import_directory(source, tmp_path / "other")


def test_missing_weights_may_be_allowed(tmp_path):
    source = directory(tmp_path, num_hidden_layers=3)
    report = import_directory(source, tmp_path / "run", partly=True)
    assert "missing cores.main.blocks.2" in report and "random initial values" in report
    assert load_run(tmp_path / "run", "last").model.core.blocks[2] is not None


def test_an_incomplete_head_gives_no_predictions(tmp_path):
    source = directory(tmp_path)
    rewrite(source, lambda theirs: {key: value for key, value in theirs.items() if "transform.dense" not in key})
    assert "no head for 'mlm'" in import_directory(source, tmp_path / "run", partly=True)
    run = load_run(tmp_path / "run")
    for call in (lambda: run.predict([{"text": "<5><7>"}]), run.evaluate):
        with pytest.raises(RunError, match="has no head for 'mlm', so predictions would be random"):
            call()


def test_wrong_tokenizer_files_and_rope_types_are_refused(tmp_path):
    source = directory(tmp_path)
    (source / "vocab.txt").write_text("\n".join(["[CLS]", "[SEP]", "[MASK]", *map(str, range(200))]))
    with pytest.raises(DataError, match=r"vocab.txt has 203 ids, more than config.json's vocab_size \(120\)"):
        import_directory(source, tmp_path / "run")
    (source / "vocab.txt").write_text("\n".join(["[CLS]", "[SEP]", "a"]))
    with pytest.raises(RunError, match=r"its tokenizer has no \[MASK\]"):
        import_directory(source, tmp_path / "run")
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA))
    theirs.save_pretrained(tmp_path / "llama")
    (tmp_path / "llama" / "tokenizer.model").write_bytes(b"")
    with pytest.raises(RunError, match="has tokenizer.model but no tokenizer.json"):
        import_directory(tmp_path / "llama", tmp_path / "run")
    (tmp_path / "llama" / "tokenizer.model").unlink()
    config = json.loads((tmp_path / "llama" / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "llama3", "rope_theta": 1e4}
    (tmp_path / "llama" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="rope_type is 'llama3'; only 'default' is reproduced exactly"):
        import_directory(tmp_path / "llama", tmp_path / "run")
