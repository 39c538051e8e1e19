"""`chopmix embed`: the vectors of transformers for the same weights, for texts and for mixes, in every form of
output."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
import transformers
from chopmix.commands.cli import main
from chopmix.experiment.embed import embed
from chopmix.experiment.interchange.import_run import import_directory
from chopmix.experiment.run import load_run
from chopmix.files.errors import RunError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "on", "a", "mat"]
TEXTS = ["the cats sat", "a mat", "on the mat the cat sat", "cat"]

SHAPE = {"vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 48, "max_position_embeddings": 24}  # fmt: skip


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The run of a BERT without a head, as sentence encoders lie on the hub, and the model it is made of."""
    folder = tmp_path_factory.mktemp("bare")
    torch.manual_seed(0)
    theirs = transformers.BertModel(transformers.BertConfig(**SHAPE)).eval()
    theirs.save_pretrained(folder / "theirs")
    (folder / "theirs" / "vocab.txt").write_text("\n".join(WORDS))
    return folder, theirs, import_directory(folder / "theirs", folder / "run")


def hidden(theirs, folder) -> list[torch.Tensor]:
    """transformers' last hidden states of every text."""
    own = transformers.BertTokenizer(str(folder / "theirs" / "vocab.txt"))
    with torch.inference_mode():
        return [theirs(**own(text, return_tensors="pt")).last_hidden_state[0] for text in TEXTS]


def test_a_bert_without_a_head_gives_the_vectors_of_transformers(bare):
    folder, theirs, said = bare
    assert "the directory has no head for 'mlm': `chopmix embed` works" in said and "bert.pooler.dense" in said
    run, expected = load_run(folder / "run"), hidden(theirs, folder)
    samples = [{"text": text} for text in TEXTS]
    for pool, want in (("mean", lambda h: h.mean(0)), ("first", lambda h: h[0]), ("tokens", lambda h: h)):
        found = embed(run, samples, pool, rows=2)
        for ours, own in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, want(own), atol=1e-5, rtol=1e-5)
    for refused in (lambda: run.predict(samples), lambda: run.evaluate()):
        with pytest.raises(
            RunError, match="has no head for 'mlm', so predictions would be random. Use `chopmix embed`"
        ):
            refused()


def test_every_form_of_output_holds_the_same(bare, tmp_path, capsys):
    folder, theirs, _ = bare
    expected = hidden(theirs, folder)
    pooled = np.stack([each.mean(0).numpy() for each in expected])
    given = [word for text in TEXTS for word in ("--input", f"text={text}")]
    manifest = tmp_path / "texts.csv"
    manifest.write_text("key,text\n" + "".join(f"t{n},{text}\n" for n, text in enumerate(TEXTS)))
    command = ["embed", str(folder / "run")]
    assert main([*command, *given]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose([line["vector"] for line in lines], pooled, atol=1e-5)
    assert main([*command, "--data", str(manifest), "--output", str(tmp_path / "a.npy")]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), pooled, atol=1e-5)
    assert main([*command, "--data", str(manifest), "--output", str(tmp_path / "a.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [row["key"] for row in rows] == ["t0", "t1", "t2", "t3"] and [*rows[0]] == [
        "key",
        *map(str, range(32)),
        "without",
        "error",
    ]
    np.testing.assert_allclose([[float(row[str(n)]) for n in range(32)] for row in rows], pooled, atol=1e-5)
    assert main([*command, *given, "--pool", "tokens", "--output", str(tmp_path / "b.npy")]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "b.npy"), torch.cat(expected).numpy(), atol=1e-5)
    whose = list(csv.DictReader((tmp_path / "b.csv").read_text().splitlines()))
    assert [row["token"] for row in whose[:6]] == ["[CLS]", "the", "cat", "##s", "sat", "[SEP]"]
    assert whose[0] == {"row": "0", "key": "sample 1", "input": "text", "token": "[CLS]"} and len(whose) == sum(
        map(len, expected)
    )
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main([*command, "--data", str(manifest), "--output", str(tmp_path / "a.parquet")]) == 0
    table = parquet.read_table(tmp_path / "a.parquet")
    np.testing.assert_allclose(np.array(table["vector"].to_pylist()), pooled, atol=1e-5)


def test_mistakes_of_embed_are_told(bare, tmp_path, capsys):
    folder, _, _ = bare
    run = str(folder / "run")
    for arguments, message in [
        ([], "pass either samples (--input NAME=VALUE) or a data set (--data DATA)"),
        (
            ["--input", "text=a", "--output", "x.json"],
            "--output x.json: possible endings: .npy, .csv, .jsonl, .parquet",
        ),
        (["--input", "image=a.png"], "has no input 'image'; possible: text"),
    ]:
        assert main(["embed", run, *arguments]) == 2
        assert message in capsys.readouterr().err
    long = "cat " * 40
    assert (
        main(["embed", run, "--input", f"text={long}", "--input", "text=cat", "--output", str(tmp_path / "c.NPY")]) == 0
    )
    found = np.load(tmp_path / "c.NPY")
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()
    assert "sample 1: " in capsys.readouterr().err
    assert main(["embed", run, "--input", f"text={long}", "--output", str(tmp_path / "c.npy")]) == 1


def test_tokens_of_a_mix_are_told_apart(tmp_path):
    import yaml
    from chopmix.experiment.settings.config import load_config
    from chopmix.experiment.train import train
    from test_mixing import TREE

    tree = TREE | {
        "out": str(tmp_path / "run"),
        "training": TREE["training"] | {"steps": 1},
        "evaluation": {"every": 1, "generated": 1},
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    train(load_config(tmp_path / "x.yaml"))
    run = load_run(tmp_path / "run")
    sample = dict(run.dataset().open("val")[0])
    (vector,), (each,) = embed(run, [sample]), embed(run, [sample], "tokens")
    torch.testing.assert_close(vector, each.mean(0))
    without = {name: value for name, value in sample.items() if name != "sound"}
    assert len(embed(run, [without], "tokens")[0]) < len(each)


def test_nothing_is_read_off_outputs_that_are_no_numbers(bare):
    """Weights that are finite, but too large: refused in a sentence, where `NaN` would be no answer."""
    folder, *_ = bare
    transformers.BertForMaskedLM(transformers.BertConfig(**SHAPE)).save_pretrained(folder / "large")
    (folder / "large" / "vocab.txt").write_text("\n".join(WORDS))
    import_directory(folder / "large", folder / "large-run")
    run = load_run(folder / "large-run")
    assert run.predict([{"text": "the [MASK]"}])[0]["mlm"]["masks"]
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.mul_(1e30)
    for asked in (lambda: run.predict([{"text": "the [MASK]"}]), lambda: embed(run, [{"text": "the cat"}])):
        with pytest.raises(
            ValueError, match="the model's outputs are NaN or infinite: its weights are damaged, or too"
        ):
            asked()
