"""What a user can get wrong on the command line: one clear sentence, exit status 2, nothing lost."""

import os
from pathlib import Path

import pytest
from chopmix.training.cli import main
from chopmix.training.config import load_config


def said(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "override, match",
    [
        ("model.widht=32", "did you mean 'width'?"),
        ("model.width=wide", "model.width"),
        ("model.heads=5", "model.heads"),
        ("training.tokens_per_step=65", "training.tokens_per_step"),
        ("model.attention=causal &", "model.attention"),
        ("training.steps=0", "training.steps"),
        ("inputs.text.encoding=bpe", "inputs.text.encoding: bpe needs 'vocabulary'"),
        ("inputs.text.position.length=8", "inputs.text.position.length"),
    ],
)
def test_a_wrong_setting_is_named_before_any_work(tiny, capsys, override, match):
    file = tiny()
    assert match in said(capsys, "train", str(file), override)
    assert not load_config(file).out.exists()


def test_a_missing_file(tiny, capsys, tmp_path):
    assert "tiny.yml" in said(capsys, "train", str(tiny()).replace(".yaml", ".yml"))
    (tmp_path / "train.txt").unlink()
    assert "no file at" in said(capsys, "train", str(tmp_path / "tiny.yaml"))


@pytest.mark.parametrize(
    "content, match",
    [
        (b"", "no text in"),
        (b"chop", "are too few for one window of the context (16)"),
        (b"chop and m\xffx" * 9, "train.txt, line 1: byte 10 (0xff) is not valid UTF-8"),
    ],
)
def test_a_corpus_that_cannot_be_used(tiny, capsys, tmp_path, content, match):
    file = tiny()
    (tmp_path / "train.txt").write_bytes(content)
    assert match in said(capsys, "train", str(file))


def test_a_validation_text_with_an_unseen_character(tiny, capsys, tmp_path):
    file = tiny()
    (tmp_path / "val.txt").write_text("chop mix Z and more of it")
    message = said(capsys, "train", str(file))
    assert "'Z' (U+005A)" in message and "val.txt" in message


def test_schema_is_printed(capsys):
    import json

    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "training" in schema["properties"] and schema["additionalProperties"] is False


def test_inspect_unpacks_a_batch(tiny, capsys):
    assert main(["inspect", str(tiny())]) == 0
    printed = capsys.readouterr().out
    assert printed.count("when the input is") == 32 and "4 x 8 ids is 32 examples" in printed


def test_a_failed_first_attempt_binds_nobody(tiny, capsys, tmp_path):
    file = tiny()
    text = (tmp_path / "train.txt").read_text()
    (tmp_path / "train.txt").write_text("short")
    said(capsys, "train", str(file))
    (tmp_path / "train.txt").write_text(text)
    assert main(["train", str(file), "training.learning_rate=0.02"]) == 0


DATA = Path(os.environ.get("CHOPMIX_DATA", ""))


@pytest.mark.skipif(not (DATA / "bpe").is_dir(), reason="needs the data root with tiny_shakespeare and bpe")
@pytest.mark.parametrize("name", ["shakespeare_char_gpu", "gpt2_124m", "finetune_gpt2", "shakespeare_char_nanogpt"])
def test_configs_that_need_more_than_a_laptop_are_dry_run_small(name, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path))
    config = Path(__file__).parent.parent / "configs" / "lm" / f"{name}.yaml"
    small = ["model.width=32", "model.depth=2", "model.heads=4", "model.context=32", "training.tokens_per_step=128",
             "training.rows_per_micro_batch=2", "training.compile=false", "data.card=tiny_shakespeare", "from=null"]  # fmt: skip
    assert main(["train", str(config), "--dry-run", *small]) == 0
    assert "one step: loss" in capsys.readouterr().out
