"""Texts that `chopmix generate` and `predict` produce with an imported directory equal those of transformers, for every
published architecture that generates texts. The tokenizer of the directory decides which tokens are before a prompt."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
import transformers
from chopmix.commands.cli import main
from chopmix.experiment.run import load_run
from chopmix.files.reading import DataError
from chopmix.tokenizers.encoding.directory import DirectoryEncoding
from hypothesis import given, settings
from hypothesis import strategies as st
from test_import_text import BERT, LLAMA, T5, shaken, unigram

from tokenizers import (
    AddedToken,
    ByteLevelBPETokenizer,
    Tokenizer,
    decoders,
    models,
    normalizers,
    processors,
)

SENTENCES = [
    "the cat sat on the mat and the dog sat on the log",
    "wem der Käse schmeckt, dem schmeckt er",
    "1 + 2 = 3; {x}\n\ty",
]
LETTERS = ["the cat", " the dog sat", "Käse", "naïve 日本 abc", "a"]
"""Prompts whose last piece is no single byte: if bytes that form no character follow such a byte, the library decodes
all of them as invalid bytes."""
PROMPTS = ["the cat", " the dog sat", "Käse, 3", "{x}\n\ty", "naïve 日本 🙂", "a"]


def byte_level(*special: str, start: str | None = None) -> Tokenizer:
    """A byte-level BPE as that of GPT-2, or, with a start token before every text, as that of Llama 3."""
    learned = ByteLevelBPETokenizer()
    learned.train_from_iterator(SENTENCES * 9, vocab_size=300, min_frequency=2, special_tokens=list(special))
    tokenizer = Tokenizer.from_str(learned._tokenizer.to_str())
    if start:
        byte = processors.ByteLevel(trim_offsets=False)
        template = processors.TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, tokenizer.token_to_id(start))]
        )
        tokenizer.post_processor = processors.Sequence([byte, template])
    return tokenizer


def byte_fallback() -> Tokenizer:
    """A BPE as that of Llama 2: text without a piece is encoded as bytes, and a start token is before every text."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{n:02X}>" for n in range(256)),
        "▁",
        *"abcdefghijklmnopqrstuvwxyz",
        "t" + "h",
        "the",
        "▁the",
    ]
    merges = [("t", "h"), ("th", "e"), ("▁", "the")]
    model = models.BPE(
        {piece: n for n, piece in enumerate(pieces)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<unk>", "<s>", "</s>")])
    return tokenizer


def save_and_import(model, coder: Tokenizer, folder: Path, **special: str):
    """Saves a model with its tokenizer, imports the directory, and returns the tokenizer as transformers loads it."""
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=coder, **special).save_pretrained(folder)
    assert main(["import", str(folder), str(folder.parent / "run")]) == 0
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def gpt2(folder: Path):
    coder = byte_level("<|endoftext|>")
    end = coder.token_to_id("<|endoftext|>")
    shape = {"vocab_size": coder.get_vocab_size(), "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    torch.manual_seed(0)
    model = shaken(transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, bos_token_id=end, eos_token_id=end)))
    return model, save_and_import(model, coder, folder, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def llama2(folder: Path):
    coder = byte_fallback()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**LLAMA | {"vocab_size": coder.get_vocab_size(), "max_position_embeddings": 96})
    model = shaken(transformers.LlamaForCausalLM(config))
    with (
        torch.no_grad()
    ):  # the model generates no bytes: the library decodes invalid bytes differently when more follow
        model.lm_head.weight[3:259] = 0
    return model, save_and_import(model, coder, folder, bos_token="<s>", eos_token="</s>")


def llama3(folder: Path):
    coder = byte_level("<|begin|>", "<|end|>", "<|turn|>", start="<|begin|>")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**LLAMA | {"vocab_size": coder.get_vocab_size(), "max_position_embeddings": 96})
    config.bos_token_id, config.eos_token_id = 0, [1, 2]
    model = shaken(transformers.LlamaForCausalLM(config))
    model.generation_config.eos_token_id = [1, 2]
    return model, save_and_import(model, coder, folder, bos_token="<|begin|>", eos_token="<|end|>")


@pytest.mark.parametrize("make", [gpt2, llama2, llama3])
def test_a_prompt_is_continued_as_transformers_continues_it(make, tmp_path, capsys):
    model, tokenizer = make(tmp_path / "theirs")
    assert "tokenizer: tokenizer.json" in capsys.readouterr().out
    for prompt in PROMPTS if make is not llama2 else LETTERS:
        ids = torch.tensor([tokenizer(prompt).input_ids])
        options = {"do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
        expected = model.generate(ids, max_new_tokens=24, **options)[0]
        command = ["generate", str(tmp_path / "run"), "--prompt", prompt, "--temperature", "0", "--max-tokens", "24"]
        assert main(command) == 0
        printed = capsys.readouterr().out
        new = expected[ids.shape[1] :].tolist()
        ends = [1, 2] if make is llama3 else [tokenizer.eos_token_id]
        new = new[: next((place for place, id in enumerate(new) if id in ends), None)]
        whole = tokenizer.decode([*ids[0].tolist(), *new], skip_special_tokens=True)
        start = tokenizer.decode(ids[0].tolist(), skip_special_tokens=True)
        assert printed == prompt + whole[len(start) :] + "\n", prompt


@pytest.mark.parametrize("make", [gpt2, llama2, llama3])
def test_the_loss_of_a_text_equals_transformers(make, tmp_path, capsys):
    """The losses of each token and of each text are equal, also of a text longer than the context, and of a short file
    in `chopmix evaluate`."""
    model, tokenizer = make(tmp_path / "theirs")
    run = load_run(tmp_path / "run")
    context = run.model.context
    texts = [*(PROMPTS if make is not llama2 else LETTERS), "the cat sat on the mat", "the dog sat on " * 40, ""]
    losses, tokens = run.losses(texts)["lm"], run.losses(texts, per_token=True)["lm"]
    for text, nats, of_tokens in zip(texts, losses.tolist(), tokens, strict=True):
        ids = torch.tensor(tokenizer(text).input_ids or [tokenizer.bos_token_id])
        windows = [ids[first : first + context + 1] for first in range(0, len(ids) - 1, context)]
        with torch.no_grad():
            logits = torch.cat([model(each[None, :-1]).logits[0] for each in windows] or [torch.zeros(0, 1)])
        expected = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        torch.testing.assert_close(of_tokens.float(), expected, rtol=1e-5, atol=1e-5)
        if len(ids) == 1:
            assert math.isnan(nats)
        elif len(ids) <= context:
            with torch.no_grad():
                assert nats / (len(ids) - 1) == pytest.approx(float(model(ids[None], labels=ids[None]).loss), abs=1e-5)
        assert math.isnan(nats) or nats == pytest.approx(float(expected.sum()), rel=1e-5)
    (tmp_path / "short.txt").write_text("the cat sat")
    capsys.readouterr()
    assert (
        main(
            [
                "evaluate",
                str(tmp_path / "run"),
                "--data",
                str(tmp_path / "short.txt"),
                "--json",
                str(tmp_path / "m.json"),
            ]
        )
        == 0
    )
    start = run.choppers["text"].vocabulary.start
    ids = torch.tensor([start, *run.choppers["text"].vocabulary.encode("the cat sat")])
    with torch.no_grad():
        expected = float(model(ids[None], labels=ids[None]).loss)
    assert json.loads((tmp_path / "m.json").read_text())["val/loss"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("make", [gpt2, llama3])
def test_beam_search_continues_a_prompt_as_in_transformers(make, tmp_path, capsys):
    """One of the models has two ids that end a text."""
    model, tokenizer = make(tmp_path / "theirs")
    for prompt, (beams, penalty) in itertools.product(PROMPTS[:3], [(2, 1.0), (4, 0.0), (3, 2.0)]):
        ids = torch.tensor([tokenizer(prompt).input_ids])
        options = {"num_beams": beams, "length_penalty": penalty, "do_sample": False, "pad_token_id": 0}
        expected = model.generate(ids, max_new_tokens=12, attention_mask=torch.ones_like(ids), **options)[0]
        capsys.readouterr()
        command = ["generate", str(tmp_path / "run"), "--prompt", prompt, "--max-tokens", "12"]
        assert main([*command, "--beams", str(beams), "--length-penalty", str(penalty)]) == 0
        whole, start = (tokenizer.decode(each, skip_special_tokens=True) for each in (expected, ids[0]))
        assert capsys.readouterr().out == prompt + whole[len(start) :] + "\n", (prompt, beams, penalty)


def test_several_prompts_are_continued_as_each_alone(tmp_path, capsys):
    gpt2(tmp_path / "theirs")
    (tmp_path / "prompts.txt").write_text("\n".join(text for text in PROMPTS if "\n" not in text))
    command = ["generate", str(tmp_path / "run"), "--temperature", "0", "--max-tokens", "9"]
    capsys.readouterr()
    assert main([*command, "--prompts", str(tmp_path / "prompts.txt")]) == 0
    for line in map(json.loads, capsys.readouterr().out.splitlines()):
        assert main([*command, "--prompt", line["prompt"]]) == 0
        assert capsys.readouterr().out == f"{line['prompt']}{line['text']}\n"


def test_a_t5_answers_as_in_transformers(tmp_path, capsys):
    torch.manual_seed(0)
    coder = unigram()
    coder.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    config = transformers.T5Config(**T5 | {"vocab_size": coder.get_vocab_size()})
    model = shaken(transformers.T5ForConditionalGeneration(config), 0.3)
    tokenizer = save_and_import(model, coder, tmp_path / "theirs", eos_token="</s>", pad_token="<pad>")
    for text in ("the cats sat the", "a b c d the e", "the x the"):
        capsys.readouterr()
        command = ["generate", str(tmp_path / "run"), "--input", f"source={text}", "--temperature", "0"]
        assert main([*command, "--max-tokens", "20"]) == 0
        ids = model.generate(tokenizer(text, return_tensors="pt").input_ids, max_new_tokens=20, do_sample=False)[0]
        assert capsys.readouterr().out == tokenizer.decode(ids, skip_special_tokens=True) + "\n"


def test_masks_are_filled_in_as_in_transformers(tmp_path, capsys):
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *["the", "cat", "sat", "on", "a", "mat", "dog", "log", "is"],
        "##s",
    ]
    torch.manual_seed(0)
    model = shaken(transformers.BertForMaskedLM(transformers.BertConfig(**BERT | {"vocab_size": len(words)})))
    model.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "vocab.txt").write_text("\n".join(words))
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "run")]) == 0
    tokenizer = transformers.BertTokenizer(str(tmp_path / "theirs" / "vocab.txt"))
    fill = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer, top_k=len(words), device="cpu")
    for text in ("the cat [MASK] on the mat", "[MASK] dog", "a log is a [MASK]"):
        capsys.readouterr()
        assert main(["predict", str(tmp_path / "run"), "--input", f"text={text}"]) == 0
        (offered,) = json.loads(capsys.readouterr().out)["mlm"]["masks"]
        expected = [each for each in fill(text) if each["token"] > 4]  # special tokens are never offered here
        assert [each["token"] for each in offered] == [each["token_str"] for each in expected[: len(offered)]]
        for ours, theirs in zip(offered, expected):
            assert ours["probability"] == pytest.approx(theirs["score"], abs=2e-4)
    # the characters of a special token are plain text, except those of the mask: no text can end itself
    coder = load_run(tmp_path / "run").choppers["text"].vocabulary
    end, unknown = words.index("[SEP]"), words.index("[UNK]")
    ids = coder.encode("the cat [SEP] sat")
    assert end not in ids and unknown in ids and end in tokenizer("the cat [SEP] sat").input_ids[1:-1]


def test_a_role_of_an_id_that_is_no_special_token_is_refused():
    with pytest.raises(DataError, match="id 5 has the role 'mask' but is not a special token"):
        DirectoryEncoding(byte_fallback().to_str(), 1, {"end": 2, "roles": {"mask": 5}})


@pytest.mark.system
@settings(max_examples=60)
@given(st.text(max_size=30))
def test_text_without_pieces_is_encoded_as_bytes(text):
    """The stream, `decode` and `decode_bytes` (used for bits per byte) return the text that was encoded."""
    encoding = DirectoryEncoding(byte_fallback().to_str(), 1, {"end": 2})
    text = text.replace("\x00", "").replace("\u2581", "")
    ids = encoding.encode(text)
    whole = encoding.decode(ids)
    stream = encoding.stream([1])
    assert "".join([stream.write(id) for id in ids] + [stream.finish()]) == whole
    assert encoding.decode_bytes(ids).decode(errors="replace").removeprefix(" ") == whole == text
