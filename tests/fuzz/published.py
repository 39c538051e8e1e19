"""Tiny directories of every kind of published model that can be imported, with random weights and tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from safetensors.torch import save_file
from tiny import WORDS

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SPECIALS = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]
TEXTS = {"vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
         "max_position_embeddings": 24}  # fmt: skip
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "a"]


def byte_tokenizer(specials: list[str], times: int = 0) -> Tokenizer:
    """A byte-level BPE with one merge and special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate([*letters, "ch"])}, [("c", "h")]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in specials])
    tokenizer.add_tokens([AddedToken(f"<|{step * 0.02:.2f}|>", special=False) for step in range(times)])
    return tokenizer


def pieces_tokenizer() -> Tokenizer:
    """A unigram tokenizer like that of T5, with two sentinels."""
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        *((f"\u2581{word}", -2.0) for word in WORDS),
        ("\u2581", -3.0),
        *((letter, -5.0) for letter in "chopmixsetkn"),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<extra_id_1>", "<extra_id_0>")])
    return tokenizer


def text_models() -> dict[str, Any]:
    """Models of texts, sounds and decisions with random weights, by the name of their importer."""
    whisper_tokenizer = byte_tokenizer(SPECIALS, 26)
    end, start = (whisper_tokenizer.token_to_id(name) for name in SPECIALS[:2])
    small = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    gpt2 = transformers.GPT2Config(
        vocab_size=258, n_positions=24, n_embd=16, n_layer=1, n_head=2, bos_token_id=257, eos_token_id=257
    )
    whisper = transformers.WhisperConfig(
        vocab_size=whisper_tokenizer.get_vocab_size(),
        num_mel_bins=80,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_source_positions=25,
        max_target_positions=24,
        suppress_tokens=[3],
        begin_suppress_tokens=[end],
        **small,
    )
    t5 = transformers.T5Config(
        vocab_size=30,
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
        relative_attention_num_buckets=4,
        relative_attention_max_distance=8,
    )
    ast = transformers.ASTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_length=32,
        num_mel_bins=16,
        id2label={0: "yes", 1: "no"},
    )
    decision = transformers.DecisionTransformerConfig(
        state_dim=3, act_dim=1, hidden_size=16, max_ep_len=20, n_layer=1, n_head=2, n_positions=32
    )
    return {
        "gpt2": transformers.GPT2LMHeadModel(gpt2),
        "llama": transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXTS, num_key_value_heads=1)),
        "bert": transformers.BertForMaskedLM(transformers.BertConfig(**TEXTS)),
        "roberta": transformers.RobertaForMaskedLM(
            transformers.RobertaConfig(**{**TEXTS, "vocab_size": 264}, pad_token_id=1)
        ),
        "t5": transformers.T5ForConditionalGeneration(t5),
        "whisper": transformers.WhisperForConditionalGeneration(whisper),
        "ast": transformers.ASTForAudioClassification(ast),
        "decision": transformers.DecisionTransformerModel(decision),
    }


def write_tokenizers(folder: Path) -> None:
    """Write the tokenizers of the models into their folders, in each format that importers read."""
    vocabulary, merges = {**byte_tokenizer([]).get_vocab(), "<|endoftext|>": 257}, "#version: 0.2\nc h\n"
    (folder / "gpt2" / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "gpt2" / "merges.txt").write_text(merges)
    (folder / "gpt2" / "tokenizer_config.json").write_text(
        '{"add_bos_token": false, "tokenizer_class": "GPT2Tokenizer"}'
    )
    (folder / "bert" / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    byte_tokenizer(["<s>", "</s>", "<mask>"]).save(str(folder / "roberta" / "tokenizer.json"))
    pieces_tokenizer().save(str(folder / "t5" / "tokenizer.json"))
    byte_tokenizer(SPECIALS, 26).save(str(folder / "whisper" / "tokenizer.json"))
    tokenizer = byte_tokenizer(SPECIALS)
    settings = {
        "is_multilingual": True,
        "lang_to_id": {name: tokenizer.token_to_id(name) for name in ("<|en|>", "<|de|>")},
        "suppress_tokens": [3, 7],
        "begin_suppress_tokens": [32],
        "max_initial_timestamp_index": 10,
    }
    (folder / "whisper" / "generation_config.json").write_text(json.dumps(settings))
    features = transformers.ASTFeatureExtractor(num_mel_bins=16, max_length=32)
    features.save_pretrained(folder / "ast")


def write_directories(folder: Path) -> None:
    """Write one directory for every kind of model that can be imported; its name is the kind."""
    torch.manual_seed(0)
    for name, model in text_models().items():
        sharded = {"max_shard_size": "8KB"} if name == "llama" else {}
        model.save_pretrained(folder / name, **sharded)
    write_tokenizers(folder)
    model_args = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    vit = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=3, **model_args)
    (folder / "vit").mkdir()
    save_file(
        {key: value.contiguous() for key, value in vit.state_dict().items()}, folder / "vit" / "model.safetensors"
    )
    preprocessing = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "crop_pct": 0.9, "interpolation": "bicubic"}
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 3,
        "model_args": model_args,
        "pretrained_cfg": preprocessing,
        "global_pool": "token",
    }
    (folder / "vit" / "config.json").write_text(json.dumps(config))
