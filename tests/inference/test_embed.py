"""`chopmix embed` writes the vectors that transformers has for the same weights, for one or several inputs, in every
output format."""

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
    """A folder with an imported BERT without a head (like sentence encoders of the hub), its model, and the message."""
    folder = tmp_path_factory.mktemp("bare")
    torch.manual_seed(0)
    theirs = transformers.BertModel(transformers.BertConfig(**SHAPE)).eval()
    theirs.save_pretrained(folder / "theirs")
    (folder / "theirs" / "vocab.txt").write_text("\n".join(WORDS))
    return folder, theirs, import_directory(folder / "theirs", folder / "run")


def hidden(theirs, folder) -> list[torch.Tensor]:
    """Returns the last hidden states of transformers for every text."""
    tokenizer = transformers.BertTokenizer(str(folder / "theirs" / "vocab.txt"))
    with torch.inference_mode():
        return [theirs(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in TEXTS]


def test_a_bert_without_a_head_gives_the_vectors_of_transformers(bare):
    folder, theirs, message = bare
    assert "the directory has no head for 'mlm': `chopmix embed` works" in message and "bert.pooler.dense" in message
    run, expected = load_run(folder / "run"), hidden(theirs, folder)
    samples = [{"text": text} for text in TEXTS]
    for pool, want in (("mean", lambda h: h.mean(0)), ("first", lambda h: h[0]), ("tokens", lambda h: h)):
        vectors = embed(run, samples, pool, rows=2)
        for vector, states in zip(vectors, expected, strict=True):
            torch.testing.assert_close(vector, want(states), atol=1e-5, rtol=1e-5)
    for call in (lambda: run.predict(samples), lambda: run.evaluate()):
        with pytest.raises(
            RunError, match="has no head for 'mlm', so predictions would be random. Use `chopmix embed`"
        ):
            call()


def test_every_output_format_contains_the_same_vectors(bare, tmp_path, capsys):
    folder, theirs, _ = bare
    expected = hidden(theirs, folder)
    pooled = np.stack([each.mean(0).numpy() for each in expected])
    inputs = [word for text in TEXTS for word in ("--input", f"text={text}")]
    manifest = tmp_path / "texts.csv"
    manifest.write_text("key,text\n" + "".join(f"t{n},{text}\n" for n, text in enumerate(TEXTS)))
    command = ["embed", str(folder / "run")]
    assert main([*command, *inputs]) == 0
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
    assert main([*command, *inputs, "--pool", "tokens", "--output", str(tmp_path / "b.npy")]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "b.npy"), torch.cat(expected).numpy(), atol=1e-5)
    token_rows = list(csv.DictReader((tmp_path / "b.csv").read_text().splitlines()))
    assert [row["token"] for row in token_rows[:6]] == ["[CLS]", "the", "cat", "##s", "sat", "[SEP]"]
    assert token_rows[0] == {"row": "0", "key": "sample 1", "input": "text", "token": "[CLS]"} and len(
        token_rows
    ) == sum(map(len, expected))
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main([*command, "--data", str(manifest), "--output", str(tmp_path / "a.parquet")]) == 0
    table = parquet.read_table(tmp_path / "a.parquet")
    np.testing.assert_allclose(np.array(table["vector"].to_pylist()), pooled, atol=1e-5)


def test_mistakes_of_embed_are_reported(bare, tmp_path, capsys):
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
    vectors = np.load(tmp_path / "c.NPY")
    assert np.isnan(vectors[0]).all() and np.isfinite(vectors[1]).all()
    assert "sample 1: " in capsys.readouterr().err
    assert main(["embed", run, "--input", f"text={long}", "--output", str(tmp_path / "c.npy")]) == 1


def test_a_sample_of_several_inputs_has_a_vector_for_each_token(tmp_path):
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


def test_outputs_that_are_not_finite_are_refused(bare):
    """Weights that are finite but too large raise an error; the answer is not NaN."""
    folder, *_ = bare
    transformers.BertForMaskedLM(transformers.BertConfig(**SHAPE)).save_pretrained(folder / "large")
    (folder / "large" / "vocab.txt").write_text("\n".join(WORDS))
    import_directory(folder / "large", folder / "large-run")
    run = load_run(folder / "large-run")
    assert run.predict([{"text": "the [MASK]"}])[0]["mlm"]["masks"]
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.mul_(1e30)
    for call in (lambda: run.predict([{"text": "the [MASK]"}]), lambda: embed(run, [{"text": "the cat"}])):
        with pytest.raises(
            ValueError, match="the model's outputs are NaN or infinite: its weights are damaged, or too"
        ):
            call()
