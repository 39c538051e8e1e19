"""`chopmix explain` prints descriptions of keys, parts, graphs, commands and classes."""

from __future__ import annotations

from functools import partial

import chopmix
import pytest
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.experiment import explain
from chopmix.experiment.explain import graphs, public_names
from chopmix.experiment.settings.reference import keys_with_text, reference, sentences_about
from chopmix.files.errors import UsageError
from chopmix.files.plugins import modules_of
from chopmix.models.layers.norms import RmsNorm
from chopmix.training.optimizers import AdamW

COMMANDS = {"predict": "predict for samples"}
topics_of, words = partial(explain.topics_of, commands=COMMANDS), partial(explain.words, commands=COMMANDS)


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.system)])
def test_every_word_is_explained(every):
    """The words are keys, their positions in a YAML, parts, graphs, commands and public classes. The default tier tests
    every twelfth of them."""
    assert len(words()) > 400
    for word in sorted(words())[::every]:
        for topic in topics_of(word):
            assert topic.title and (topic.text or topic.rows), word


def test_the_reference_contains_every_part():
    kinds, entries = reference()
    names = {entry.name for entry in entries}
    for folder in ("tokenizers", "tasks", "data.datasets"):
        parts = {name for name in modules_of(folder) if name in names}
        assert len(parts) > 9 and parts <= names
    assert {"rms_norm", "muon", "cosine", "rotary", "mean_pooling", "attribution"} <= names
    assert len({kind.path for kind in kinds}) >= 20
    sections = {entry.path for entry in entries if not entry.name and "." not in entry.path}
    assert sections == {"model", "data", "training", "evaluation", "checkpoints", "logging"}


def test_a_key_has_its_type_default_and_description():
    (topic,) = topics_of("training.clip")
    assert topic.title == "training, key clip" and "scaled down to this norm" in topic.text
    assert topic.text.endswith("a number of more than 0 or null; default: 1.0")
    places = [topic.title for topic in topics_of("heads")]
    assert "model, key heads" in places and "training.optimizer: muon, key heads" in places


def test_a_part_lists_its_keys():
    (topic,) = topics_of("rms_norm")
    assert [name for name, _, _ in topic.rows] == ["gain", "epsilon"] and "root mean square" in topic.text
    assert {key.name: key.default for key in keys_with_text(AdamW)}["weight_decay"] is not None
    assert next(key for key in keys_with_text(RmsNorm) if key.name == "gain").default is True


def test_every_key_has_a_description():
    """A field has a docstring, or the docstring of its class or of a base class has a sentence with its name."""
    _, entries = reference()
    assert sum(len(entry.keys) for entry in entries) > 500
    missing = [f"{entry.title}, {key.name}" for entry in entries for key in entry.keys if not key.text]
    assert not missing


def test_graphs_commands_and_classes_are_explained():
    assert "is not larger than its own" in topics_of("causal")[0].text
    assert any(topic.title == "chopmix predict" for topic in topics_of("predict"))
    assert any(topic.title == "chopmix.Run" for topic in topics_of("Run"))
    assert {"causal", "window", "neighbourhood"} <= {*graphs()} and "Run" in public_names()


def test_a_word_that_does_not_exist_has_similar_ones(capsys):
    with pytest.raises(UsageError, match="nothing is named 'hedas'; similar: heads"):
        topics_of("hedas")
    assert main(["explain", "qqqq"]) == 2
    assert "`chopmix explain` lists what can be explained" in capsys.readouterr().err


def test_the_overview_names_sections_parts_and_commands(capsys):
    assert main(["explain"]) == 0
    printed = capsys.readouterr().out
    for word in ("sections of a YAML", "training", "rms_norm", "same_sample", "predict", "Chopper"):
        assert word in printed
    assert main(["explain", "merge"]) == 0 and "All options: chopmix merge --help" in capsys.readouterr().out


def test_the_sentences_about_a_key_are_selected():
    text = "Does things. `size` (pixels) is the size; with `fit: crop` it is cut. `crop: 1` keeps all. Others stay."
    assert sentences_about("size", text) == "`size` (pixels) is the size; with `fit: crop` it is cut."
    assert sentences_about("crop", text) == "`crop: 1` keeps all." and sentences_about("other", text) == ""


@pytest.mark.parametrize(
    "word, expected",
    [
        ("use", "the name of the part"),
        ("out", "The folder of the run"),
        ("inputs.image.position", "inputs.NAME.position: learned"),
        ("model.block.norm.gain", "key gain"),
        ("evaluation.attribution", "how many bits each input contributes"),
        ("edges", "edges(SOURCE -> READER, ...)"),
        ("!", 'factor     = "!" factor'),
        ("Run.trace", "chopmix.Run.trace"),
        ("Needs", "The data columns that the task reads"),
        ("Run", "attribution()"),
    ],
)
def test_positions_in_a_file_operators_and_members_are_explained(word, expected, capsys):
    assert main(["explain", word]) == 0
    text = capsys.readouterr().out
    assert expected in " ".join(text.split()) or expected in text


def test_examples_and_errors_are_no_descriptions():
    """The code of a docstring and its section `Raises` are not part of a description."""
    for entry in reference()[1]:
        for key in entry.keys:
            assert "torch.randn" not in key.text and not key.text.startswith("Raises"), (entry.title, key.name)


def test_the_keys_of_a_file_are_explained(capsys, tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text((ROOT / "configs" / "quickstart.yaml").read_text())
    assert main(["explain", str(file)]) == 0
    text = capsys.readouterr().out
    assert "inputs.image.patch_size: 2" in text and "training.clip: null" in text and "model.final_norm" not in text
    assert main(["explain", str(tmp_path / "none.yaml")]) == 2


def test_a_description_is_wrapped_to_the_width_of_the_terminal():
    """Line breaks of the source are removed."""
    (topic,) = [topic for topic in topics_of("training.clip") if "gradient" in topic.text]
    assert "null: no clipping." in topic.text.split("\n\n")[0]


@pytest.mark.parametrize("word, text", [("exact_match", "share of hypotheses"), ("from(image)", "from(image, sound)")])
def test_metrics_and_calls_are_explained(word, text):
    assert any(text in topic.text for topic in topics_of(word))


def test_a_text_that_describes_several_keys_is_printed_once(capsys):
    assert main(["explain", "image_ids"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("cuts them into patches") == 1 and printed.count("see size") >= 4


def test_help_of_the_package_lists_the_public_names():
    assert {"load", "train", "Run", "Transformer"} <= {*chopmix.__all__} <= {*dir(chopmix)}
    assert (ROOT / "docs" / "python.md").is_file() and "docs/python.md" in chopmix.__doc__


def test_keys_without_a_text_refer_to_no_other_key(monkeypatch, capsys):
    rows = [("first", "a number", ""), ("second", "a text", "")]
    monkeypatch.setattr(explain, "topics_of", lambda word, commands: [explain.Topic("title", "", rows)])
    assert main(["explain", "word"]) == 0
    assert "see" not in capsys.readouterr().out
