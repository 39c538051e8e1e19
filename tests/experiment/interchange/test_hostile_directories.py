"""Published directories that would use all memory or all time are refused with a message, or their texts are."""

import json
import re

import pytest
import torch
import yaml
from bounded import measured
from chopmix.commands.cli import main
from chopmix.experiment.interchange.import_run import import_directory
from chopmix.files.errors import RunError
from chopmix.files.reading import DataError
from chopmix.tokenizers.encoding import coder_process
from chopmix.tokenizers.encoding.stored import load_encoding

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

SPECIAL = ["<pad>", "</s>", "<extra_id_1>", "<extra_id_0>"]


def hostile_tokenizer(pattern: str) -> Tokenizer:
    """A byte-level tokenizer that splits texts by a regular expression."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({name: id for id, name in enumerate([*SPECIAL, *letters])}, []))
    cut = pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence([*cut]), decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


BAD = "a" * 40 + "!"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An imported T5 whose tokenizer panics at `BAD`."""
    import transformers

    folder = tmp_path_factory.mktemp("hostile")
    config = transformers.T5Config(
        vocab_size=264, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0,
        relative_attention_num_buckets=4, relative_attention_max_distance=8,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder / "theirs")
    hostile_tokenizer("(a|a)*$").save(str(folder / "theirs" / "tokenizer.json"))
    import_directory(folder / "theirs", folder / "run")
    return folder / "run"


def test_a_text_that_the_tokenizer_cannot_tokenize_is_an_error(run, capfd):
    assert main(["generate", str(run), "--input", f"source={BAD}", "--max-tokens", "2"]) == 2
    printed = capfd.readouterr()
    assert (
        printed.out == ""
        and printed.err.startswith("source: the tokenizer cannot tokenize the text 'aaaa")
        and "\n" not in printed.err[:-1]
    )
    assert main(["generate", str(run), "--input", "source=aab", "--max-tokens", "2"]) == 0


def test_a_text_that_the_tokenizer_cannot_tokenize_is_a_bad_sample_of_a_training(run, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(coder_process, "FIXED_SECONDS", 0.5)
    texts = ["ab", "ba", BAD, *("abc"[: n % 3 + 1] for n in range(12))]
    rows = [json.dumps({"source": text, "answer": "a"}) for text in texts]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    (tmp_path / "val.jsonl").write_text("\n".join(rows[:2]))
    tree = yaml.safe_load((run / "config.yaml").read_text())
    del tree["format"]
    data = {"use": "manifest", "train": str(tmp_path / "train.jsonl"), "val": str(tmp_path / "val.jsonl"),
            "columns": ["source", "answer"]}  # fmt: skip
    target = next(iter(tree["tasks"].values()))["target"]
    tree |= {
        "data": {"dataset": data, "bad_share": 0.1, "columns": {target: "answer"}}, "out": str(tmp_path / "run"),
        "training": {"steps": 3, "samples_per_step": 15}, "from": str(run), "checkpoints": {}, "logging": {},
        "evaluation": {"every": 3},
    }  # fmt: skip
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", str(tmp_path / "x.yaml")]) == 0, capfd.readouterr().err
    output = capfd.readouterr().err
    assert re.search("train: sample 'line 3' is bad and .*: the tokenizer cannot tokenize the text 'aaaa", output)
    assert "panicked" not in output and "done: " in output


def test_a_tokenizer_file_that_is_too_large_is_refused(tmp_path, run):
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((run.parent / "theirs" / name).read_bytes())
    with open(folder / "tokenizer.json", "wb") as file:
        file.truncate(2**26 + 1)
    with pytest.raises(DataError, match="tokenizer.json has 67,108,865 bytes; possible: up to 67,108,864"):
        import_directory(folder, tmp_path / "run")


def imported(source, folder):
    return import_directory(source, folder)


@pytest.mark.system
def test_a_config_with_too_many_ids_is_refused_without_memory(tmp_path):
    """The config.json has a vocabulary of 16 million ids, the weights have 61."""
    import transformers

    config = transformers.LlamaConfig(vocab_size=61, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                      intermediate_size=24, num_key_value_heads=1)  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "theirs")
    file = tmp_path / "theirs" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"vocab_size": 2**24}))
    result = measured(imported, tmp_path / "theirs", tmp_path / "run")
    assert result.error.startswith("RunError: ") and "has shape (61, 16), expected (16777216, 16)" in result.error
    assert result.mib < 200 and result.seconds < 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"num_classes": 2**24}, "16,777,216 classes, but no tensor of its weights has more than 768 rows"),
     ({"model_args": {"depth": 1000}}, "1,000 layers, but the weights have only 152 tensors")],
)  # fmt: skip
def test_a_vision_transformer_larger_than_its_weights_is_refused(tmp_path, changes, message):
    import timm
    from safetensors.torch import save_file

    with torch.device("meta"):
        names = timm.create_model("vit_tiny_patch16_224").state_dict()
    save_file({name: torch.zeros(768 if "qkv" in name else 3) for name in names}, tmp_path / "model.safetensors")
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 3} | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=message):
        import_directory(tmp_path, tmp_path / "run")


def test_an_unknown_pattern_in_the_encoding_of_a_run_is_refused(tmp_path):
    encoding = {"name": "bpe", "fingerprint": "0", "pattern": "(a|a)*$"}
    (tmp_path / "encoding.json").write_text(json.dumps(encoding))
    (tmp_path / "ranks.tiktoken").write_text("")
    with pytest.raises(DataError, match="its pattern is not one of chopmix's"):
        load_encoding(tmp_path)
