"""`chopmix export` returns an imported directory bit for bit, and transformers computes equal outputs with a run that
was trained here."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import transformers
from checkout import TESTS
from chopmix.commands.cli import main
from chopmix.experiment.interchange.directory import TIMM, architectures
from chopmix.experiment.interchange.export import architecture_of, differences, export_directory
from chopmix.experiment.interchange.import_run import import_directory, importers
from chopmix.experiment.interchange.tokenizers import tokenizer_files
from chopmix.experiment.run import load_run
from chopmix.files.errors import RunError
from chopmix.models.pretrained.base import Rename, renames, translate
from chopmix.tokenizers.encoding.base import ByteEncoding, CharacterEncoding
from chopmix.tokenizers.encoding.byte_pairs import Extended, train_bpe
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_import_ast import CASES as ASTS
from test_import_ast import directory as ast
from test_import_decision import CASES as DECISIONS
from test_import_decision import directory as decision
from test_import_gpt2 import SHAPES
from test_import_gpt2 import reference as gpt2
from test_import_text import BERT, LLAMA, shaken, t5, unigram
from test_import_vit import CASES as VITS
from test_import_vit import directory as vit

sys.path.append(str(TESTS / "fuzz"))
from published import write_directories

from tokenizers import Tokenizer

TEXTS = ["def chop(mix):\n    return  mix\n", "chops and mixes, 1234 of them", "Käse"]


def save(folder: Path, model: torch.nn.Module, **options) -> None:
    shaken(model).save_pretrained(folder, **options)


def roberta(**options) -> torch.nn.Module:
    extra = {"pad_token_id": 1, "max_position_embeddings": 26}
    return transformers.RobertaForMaskedLM(transformers.RobertaConfig(**BERT | extra | options))


def bert(**options) -> torch.nn.Module:
    return transformers.BertForMaskedLM(transformers.BertConfig(**BERT | options))


def llama(**options) -> torch.nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA | options))


def tuned(folder: Path, name: str) -> None:
    """A timm directory whose sum of class token and position is not exact."""
    vit(folder, name, VITS[name])
    weights = load_file(folder / "model.safetensors")
    weights["pos_embed"] = weights["pos_embed"] + torch.rand(weights["pos_embed"].shape)
    save_file(weights, folder / "model.safetensors")


DIRECTORIES = {
    **{f"gpt2-{name}": lambda folder, name=name: gpt2(folder, **SHAPES[name]) for name in SHAPES},
    "gpt2-bfloat16": lambda folder: gpt2(folder, torch.bfloat16),
    "gpt2-float64": lambda folder: gpt2(folder, torch.float64),
    "bert": lambda folder: save(folder, bert()),
    "bert-segments": lambda folder: save(folder, bert(type_vocab_size=1)),
    "bert-half": lambda folder: save(folder, bert().half()),
    "roberta": lambda folder: save(folder, roberta()),
    "roberta-padding": lambda folder: save(folder, roberta(pad_token_id=5)),
    "llama": lambda folder: save(folder, llama()),
    "llama-tied": lambda folder: save(
        folder, llama(tie_word_embeddings=True, num_key_value_heads=2), max_shard_size="20KB"
    ),
    "t5-1.0": lambda folder: save(folder, t5("1.0", num_decoder_layers=3)),
    "t5-1.1": lambda folder: save(folder, t5("1.1")),
    **{f"ast-{name}": lambda folder, name=name: ast(folder, ASTS[name]) for name in ASTS},
    **{f"decision-{name}": lambda folder, name=name: decision(folder, DECISIONS[name]) for name in DECISIONS},
    **{name: lambda folder, name=name: tuned(folder, name) for name in VITS},
}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        weights |= load_file(file)
    return weights


def assert_same(weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Both have the same names, types, shapes and bits."""
    assert sorted(weights) == sorted(expected)
    for name, value in expected.items():
        assert weights[name].dtype == value.dtype and weights[name].shape == value.shape, name
        assert torch.equal(weights[name].view(torch.uint8), value.contiguous().view(torch.uint8)), name


@pytest.mark.parametrize("name", DIRECTORIES)
def test_an_imported_directory_comes_back_bit_for_bit(name, tmp_path):
    DIRECTORIES[name](tmp_path / "theirs")
    import_directory(tmp_path / "theirs", tmp_path / "run")
    run = load_run(tmp_path / "run", device="cpu")
    export_directory(run, tmp_path / "back")
    assert_same(tensors(tmp_path / "back"), tensors(tmp_path / "theirs"))
    small = {file.name for file in (tmp_path / "theirs").iterdir() if "safetensors" not in file.name}
    assert {file.name for file in (tmp_path / "back").iterdir()} == small | {"model.safetensors"}
    assert all((tmp_path / "back" / each).read_bytes() == (tmp_path / "theirs" / each).read_bytes() for each in small)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    write_directories(folder)
    return folder


def decision_outputs(folder: Path, generator: torch.Generator) -> torch.Tensor:
    """The states, actions and returns that transformers' decision transformer predicts, in one tensor."""
    model = transformers.DecisionTransformerModel.from_pretrained(folder).eval()
    states, actions, to_go = (torch.randn(1, 8, size, generator=generator) for size in (3, 1, 1))
    output = model(states=states, actions=actions, rewards=to_go, returns_to_go=to_go, timesteps=torch.arange(8)[None],
                   attention_mask=torch.ones(1, 8))  # fmt: skip
    return torch.cat([output.state_preds, output.action_preds, output.return_preds], -1)


def outputs(kind: str, folder: Path) -> torch.Tensor:
    """The outputs of a directory's model in transformers, or in timm."""
    generator = torch.Generator().manual_seed(0)
    if kind == "vit":
        config = json.loads((folder / "config.json").read_text())
        model = timm.create_model(config["architecture"], num_classes=config["num_classes"],
                                  **config["model_args"] | {"global_pool": config["global_pool"]})  # fmt: skip
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()(torch.rand(2, 3, 16, 16, generator=generator))
    if kind == "decision":
        return decision_outputs(folder, generator)
    auto = {"bert": "MaskedLM", "roberta": "MaskedLM", "t5": "Seq2SeqLM", "whisper": "SpeechSeq2Seq",
            "ast": "AudioClassification"}.get(kind, "CausalLM")  # fmt: skip
    model, loading = getattr(transformers, f"AutoModelFor{auto}").from_pretrained(folder, output_loading_info=True)
    assert not any(loading[each] for each in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.randint(5, 29, (2, 9), generator=generator)
    inputs = {
        "whisper": {"input_features": torch.rand(2, 80, 50, generator=generator), "decoder_input_ids": ids},
        "ast": {"input_values": torch.rand(2, 32, 16, generator=generator)},
        "t5": {"input_ids": ids, "decoder_input_ids": ids},
    }.get(kind, {"input_ids": ids})
    return model.eval()(**inputs).logits


KINDS = ("ast", "bert", "decision", "gpt2", "llama", "roberta", "t5", "vit", "whisper")


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_run_has_the_same_outputs_in_transformers(kind, published, tmp_path):
    """The export reads only the YAML, the weights and the vocabulary, as of a fine-tuned run: the files that the
    import has kept are deleted first."""
    import_directory(published / kind, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "imported")
    run = load_run(tmp_path / "run", device="cpu")
    with torch.no_grad():
        expected = outputs(kind, published / kind)
        report = export_directory(run, tmp_path / "back")
        exported = outputs(kind, tmp_path / "back")
    assert "config.json" in report
    torch.testing.assert_close(exported, expected, rtol=1e-4, atol=1e-6)
    import_directory(tmp_path / "back", tmp_path / "again")
    again = load_run(tmp_path / "again", device="cpu")
    assert_same(again.model.state_dict(), run.model.state_dict())
    assert not list(differences(run.config.tree, again.config.tree))
    if kind not in ("ast", "decision", "llama", "vit"):  # a directory without a tokenizer has numbers
        (text,) = (each for name, each in run.choppers.items() if each.kind == "text" and name in ("text", "source"))
        ids = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")("chop mix").input_ids
        assert [id for id in ids if id not in text.vocabulary.specials] == text.vocabulary.encode("chop mix")
    for task in run.tasks:
        assert getattr(run.tasks[task], "classes", None) == getattr(again.tasks[task], "classes", None)


def test_every_architecture_is_exported(published):
    assert len(architectures()) == len(KINDS) == len(list(published.iterdir()))
    assert {kind for each in architectures() for kind in each.kinds} == set(importers()) - {TIMM}


def test_a_model_without_a_head_is_exported_without_a_head(tmp_path):
    transformers.BertModel(transformers.BertConfig(**BERT)).save_pretrained(tmp_path / "bare")
    import_directory(tmp_path / "bare", tmp_path / "run")
    report = export_directory(load_run(tmp_path / "run", device="cpu"), tmp_path / "back")
    assert "not written, since untrained: heads.mlm." in report
    weights = {name.removeprefix("bert."): value for name, value in tensors(tmp_path / "back").items()}
    assert_same(weights, {name: value for name, value in tensors(tmp_path / "bare").items() if "pooler" not in name})


TINY = """
inputs: {text: {use: text, encoding: bpe, vocabulary: 290%s}}
model: {width: 32, depth: 2, heads: 2, context: 32, %s}
tasks: {lm: {use: language_modeling, target: text, head: %s}}
data: {dataset: python_stdlib}
training: {steps: 1, tokens_per_step: 128, device: cpu}
"""
ROTARY = "position: {use: rotary}, block: {norm: rms_norm, bias: false, feed_forward: swiglu}"


def trained(tmp_path, monkeypatch, text: str = "", model: str = "position: null", head: str = "tied"):
    """A run that is trained for one step, without imported weights."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("\n".join(TEXTS) * 60)
    (tmp_path / "texts" / "b.txt").write_text("def mix():\n    return 12\n" * 60)
    config = (TINY % (text, model, head)).replace("python_stdlib",
        f"{{use: text, train: {tmp_path}/texts/a.txt, val: {tmp_path}/texts/b.txt}}")  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(config)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "tiny.yaml", f"out={tmp_path}/run"]) == 0
    return load_run(tmp_path / "run", device="cpu")


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_an_exported_run_generates_the_same_text_in_transformers(kind, tmp_path, monkeypatch, capsys):
    options = {"gpt2": {"head": "tied"}, "llama": {"text": ", position: null", "model": ROTARY, "head": "unembedding"}}[
        kind
    ]
    trained(tmp_path, monkeypatch, **options)
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "theirs"), "--device", "cpu"]) == 0
    assert "tokenizer.json" in capsys.readouterr().out
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    assert (
        main(["generate", str(tmp_path / "run"), "--prompt", "def mix", "--temperature", "0", "--max-tokens", "9"]) == 0
    )
    prompt = torch.tensor([tokenizer("def mix").input_ids])
    ids = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=9, do_sample=False, pad_token_id=0
    )[0]
    assert capsys.readouterr().out == tokenizer.decode(ids, skip_special_tokens=True) + "\n"


@pytest.mark.parametrize("model, head, message", [
    ("block: {norm: rms_norm}", "tied", "the nearest architecture is Gpt2, but model.block.norm.use is "
     "'rms_norm', not"),
    ("block: {residual: post_norm}", "tied", "model.block.residual.use is 'post_norm', not 'pre_norm'"),
    ("attention: causal & same_sample & window(8)", "tied", "model.attention is 'causal & same_sample & window"),
    ("block: {query_key_norm: layer_norm}", "tied", "model.block.query_key_norm"),
])  # fmt: skip
def test_a_model_of_no_published_architecture_is_refused(tmp_path, monkeypatch, model, head, message):
    run = trained(tmp_path, monkeypatch, model=model, head=head)
    with pytest.raises(RunError, match="cannot be exported") as error:
        export_directory(run, tmp_path / "theirs")
    assert message in str(error.value) and not (tmp_path / "theirs").exists()


@pytest.mark.parametrize("name", ["\0", "\ud800", "a" * 300])
def test_a_name_that_no_folder_can_have_is_refused(published, tmp_path, capsys, name):
    for words in (["import", str(published / "gpt2"), str(tmp_path / "run")], ["export", str(tmp_path / "run")]):
        wrong = [*words[:2], f"{tmp_path}/{name}"]
        assert main(wrong) == 1
        assert "cannot be written: " in capsys.readouterr().err
        assert words[0] == "export" or main(words) == 0


@pytest.mark.parametrize("name", ["x.onnx", "model.SAFETENSORS", "x.gguf", "v1.5.pt"])
def test_an_export_to_one_model_file_is_refused(tmp_path, capsys, name):
    assert main(["export", "runs/x", str(tmp_path / name)]) == 2
    expected = (
        f"`chopmix export` does not write .{name.rpartition('.')[2].lower()} files. It writes a Hugging Face model"
    )
    assert expected in (error := capsys.readouterr().err) and f"such as {tmp_path / name.rpartition('.')[0]}" in error
    assert not [*tmp_path.iterdir()]


def test_full_folders_unknown_encodings_and_unknown_tasks_are_refused(published, tmp_path):
    import_directory(published / "gpt2", tmp_path / "run")
    run = load_run(tmp_path / "run", device="cpu")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(RunError, match="full is not empty; choose another directory"):
        export_directory(run, tmp_path / "full")
    with pytest.raises(
        RunError, match="the encoding 'cl100k_base' cannot be exported; possible: bytes, characters, bpe, gpt2"
    ):
        encoding = ByteEncoding()
        encoding.name = "cl100k_base"
        tokenizer_files(encoding, tmp_path)
    run.config.tree["tasks"]["other"] = run.config.tree["tasks"].pop("lm")
    with pytest.raises(
        RunError, match="its inputs, tasks and sizes fit none of Roberta, Decision, Gpt2, Ast, Bert, Llama, T5"
    ):
        architecture_of(run)


def test_a_full_disk_leaves_no_folder_of_an_import_or_an_export(tmp_path, monkeypatch, capsys):
    gpt2(tmp_path / "theirs", **next(iter(SHAPES.values())))
    import_directory(tmp_path / "theirs", tmp_path / "run")
    run = load_run(tmp_path / "run", device="cpu")

    def full(*arguments):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    monkeypatch.chdir(tmp_path)
    for command in ("import", str(tmp_path / "theirs"), str(tmp_path / "new")), ("export", str(run.folder), "new"):
        assert main(list(command)) == 1
        assert "No space left on device" in capsys.readouterr().err
        assert not (tmp_path / "new").exists()


def test_a_table_of_names_is_read_in_both_directions():
    two = (torch.ones(2, 2), torch.zeros(2))
    table = [
        Rename("[model.]fused.{layer}.{leaf}", ("a.{layer}.{leaf}", "b.{layer}.{leaf}"), lambda v: v.chunk(2),
               lambda *v: torch.cat(v)),
        *renames("", "", {"norm": "core.norm"}), Rename("copy.weight", "core.norm.weight"), Rename("mask", ()),
        Rename("pooler.{leaf}", (), warn=True),
    ]  # fmt: skip
    theirs = {
        "copy.weight": two[1],
        "norm.gamma": two[1],
        "fused.3.weight": two[0],
        "mask": two[0],
        "pooler.bias": two[1],
        "x": two[1],
    }
    ours = translate(table, theirs)
    assert sorted(ours.tensors) == ["a.3.weight", "b.3.weight", "core.norm.weight"]
    assert ours.unknown == ["x"] and ours.ignored_tensors == ["pooler.bias"]
    back = translate(table, ours.tensors, back=True)
    assert sorted(back.tensors) == ["model.fused.3.weight", "norm.weight"] and torch.equal(
        back.tensors["model.fused.3.weight"], two[0]
    )
    with pytest.raises(
        ValueError, match=r"copy.weight differs from norm.gamma, of which it should be a copy; not reproduced"
    ):
        translate(table, theirs | {"copy.weight": two[1] + 1})
    with pytest.raises(ValueError, match=r"the weights have no b.3.weight"):
        translate(table, {"a.3.weight": two[0]}, back=True)


# -----------------------------------------------------------------------------------------------------------
# vocabularies


ENCODINGS = {
    "bytes": ByteEncoding(), "characters": CharacterEncoding("".join(sorted(set("".join(TEXTS) + "\r\t\u00a0日")))),
    "bpe": train_bpe(TEXTS * 40, 290), "with a mask": Extended(train_bpe(TEXTS * 40, 280), ["mask"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def coders(tmp_path_factory) -> dict[str, transformers.PreTrainedTokenizerFast]:
    """The exported tokenizers, as transformers reads their files."""
    tokenizers = {}
    for name, encoding in ENCODINGS.items():
        folder = tmp_path_factory.mktemp("vocabulary")
        for file, content in tokenizer_files(encoding, Path("nowhere")).items():
            (folder / file).write_text(json.dumps(content))
        tokenizers[name] = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizers


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=40) | st.text("aechops \n\t\r1(:_", max_size=60) | st.lists(st.sampled_from(TEXTS)).map("".join)
)
@example("<|endoftext|>")
def test_a_vocabulary_gives_the_same_ids(coders, text):
    for name, encoding in ENCODINGS.items():
        known = "".join(c for c in text if c in encoding.symbols) if name == "characters" else text
        ids, coder = encoding.encode(known), coders[name]
        assert coder.decode(ids) == encoding.decode(ids) == known
        if name == "with a mask" and any(special in known for special in encoding.specials.values()):
            continue  # there the text of a special token is the token, so that texts can be filled in
        assert coder.encode(known, add_special_tokens=False) == ids
        assert coder.encode(known) == [*encoding.before, *ids, *encoding.after]


def test_the_text_of_the_mask_is_encoded_as_the_mask_token(coders):
    coder = coders["with a mask"]
    assert coder.mask_token == "<|mask|>"
    assert coder("a<|mask|>", add_special_tokens=False).input_ids[-1] == coder.mask_token_id


def test_a_directorys_vocabulary_keeps_its_ids(tmp_path):
    unigram().save(str(tmp_path / "tokenizer.json"))
    from chopmix.tokenizers.encoding.directory import DirectoryEncoding

    encoding = Extended(DirectoryEncoding(unigram().to_str(), 0, {"end": 1}), ["mask"])
    exported = Tokenizer.from_str(json.dumps(tokenizer_files(encoding, tmp_path)["tokenizer.json"]))
    assert exported.token_to_id("<|mask|>") == encoding.roles["mask"]
    assert exported.encode("the cats", add_special_tokens=False).ids == encoding.encode("the cats")
