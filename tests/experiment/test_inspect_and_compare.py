"""Pages and pictures: the inputs and the graph of a model, and several runs side by side."""

import io
import json
import re
from pathlib import Path

import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.compare import paired, shared_metrics
from chopmix.experiment.groups import read_group
from chopmix.experiment.inspection import masks, reach_table, write_page
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.shown_sample import untrained
from chopmix.experiment.train import train
from chopmix.files.errors import RunError
from chopmix.inference.report import drawn
from chopmix.models.attention.graph import Causal, Window
from chopmix.models.tokens import plain_tokens
from chopmix.tasks.measuring.class_report import ClassReporter
from chopmix.tasks.measuring.report import Picture
from PIL import Image
from test_mixing import DRIVING, TREE, mixed  # noqa: F401


def test_the_page_shows_every_input_and_the_graph(mixed, tmp_path):  # noqa: F811
    message = write_page(untrained(load_config(mixed())), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    data = json.loads(re.search(r"<script type=application/json id=explorer-data>(.*?)</script>", page)[1])
    assert message.endswith("tokens of 4 inputs, 1 attention graph")
    (shown,) = data["sets"]
    assert [each["name"] for each in shown["inputs"]] == [*TREE["inputs"]]
    assert [each["name"] for each in shown["inputs"] if "picture" in each] == ["image", "sound"]
    assert [view["kind"] for view in data["views"]] == ["graph", "reachable"]  # of all layers; after the last one
    assert page.count("<tr><td>1</td><td class=number>") == page.count("<tr><td>2</td><td class=number>") == 1
    assert "None of the" in page and "can influence its own prediction" in page
    assert re.search(r"<tr><td>&#x27;=&#x27;</td><td>&#x27;", page)  # after '=' comes the result


def test_the_reachable_tokens_grow_layer_by_layer():
    tokens = plain_tokens(1, 6)
    graph = Window(2) & Causal()
    shown = [(kind, layer) for kind, layer, _ in masks([graph, graph, Causal()], tokens)]
    assert shown == [("graph", 1), ("graph", 3), ("reachable", 2), ("reachable", 3)]
    text = reach_table([graph, graph, Causal()], tokens).replace(" class=number", "")
    rows = re.findall(r"<td>(\d)</td><td>([\d.]+)</td><td>([\d.]+)</td><td>(\d)</td>", text)
    assert rows == [("1", "1.8", "1.8", "2"), ("2", "1.8", "2.5", "3"), ("3", "3.5", "3.5", "6")]


def test_both_sets_of_a_translation_are_shown_and_long_ones_pooled(tmp_path, monkeypatch):
    monkeypatch.setattr("chopmix.inference.explorer.MOST_TOKENS", 3)
    for language, words in (("de", "eins zwei"), ("en", "one two")):
        (tmp_path / f"train.{language}").write_text("".join(f"{words} {n}\n" for n in range(40)))
    tree = {
        "inputs": {"de": {"use": "text", "encoding": "characters"}, "en": {"use": "text", "encoding": "characters"}},
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 32, "encoder": {"depth": 2, "context": 32}},
        "tasks": {"en": {"use": "sequence_to_sequence", "target": "en"}},
        "data": {
            "dataset": {
                "use": "parallel_text",
                "train": {name: str(tmp_path / f"train.{name}") for name in ("de", "en")},
            }
        },
        "training": {"steps": 1, "samples_per_step": 2},
        "out": str(tmp_path / "run"),
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(tree))
    write_page(untrained(load_config(tmp_path / "x.yaml")), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "The set of the encoder" in page and "The set of the decoder" in page
    assert re.search(r"each token of the decoder also attends to all \d+ tokens of the encoder", page)
    assert re.search(r"The encoder has \d+ tokens; neighbouring tokens are shown as one, 3 in total", page)


def test_a_leak_is_shown_as_one(mixed, tmp_path):  # noqa: F811
    config = load_config(mixed(), ["model.attention=same_sample"])
    write_page(untrained(config), tmp_path / "page.html")
    assert "this graph leaks" in (tmp_path / "page.html").read_text()


def test_labels_and_the_tokens_of_the_core_are_shown(mixed, tmp_path):  # noqa: F811
    write_page(untrained(load_config(mixed("drive", **DRIVING))), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "(core)" in page and re.search(r"control: \[-?\d", page)


def test_a_text_corpus_has_a_page_too(tiny, tmp_path, capsys):
    assert main(["inspect", str(tiny()), "--output", str(tmp_path / "page.html")]) == 0
    assert (
        "when the input is" in capsys.readouterr().out and "<h2>Attention</h2>" in (tmp_path / "page.html").read_text()
    )


def write_run(folder, losses, metric="val/loss"):
    folder.mkdir(parents=True)
    lines = [{"step": step, "seconds": 1.0, "train/loss": loss, metric: loss} for step, loss in enumerate(losses)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_runs_are_compared_seed_by_seed(tmp_path, capsys):
    for seed, base in enumerate((1.0, 2.0, 3.0)):
        write_run(tmp_path / "a" / f"seed-{seed}", [9, base])
        write_run(tmp_path / "b" / f"seed-{seed}", [9, base - 0.5])
    picture = tmp_path / "curves.png"
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--picture", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "2.0 ± 1.0 (3)" in shown and "-0.5 ± 0 (3)" in shown and picture.stat().st_size > 1000
    groups = [read_group(tmp_path / name) for name in "ab"]
    assert shared_metrics(groups) == ["val/loss"]
    assert paired(groups[0].values("val/loss"), {"run": 4.0}) == [2.0]


def test_only_metrics_that_all_runs_have_are_compared(tmp_path):
    write_run(tmp_path / "a", [1.0])
    write_run(tmp_path / "b", [1.0], metric="val/accuracy")
    assert shared_metrics([read_group(tmp_path / "a"), read_group(tmp_path / "b")]) == []
    with pytest.raises(RunError, match="is not a run: it has no metrics.jsonl"):
        read_group(tmp_path / "none")


@pytest.mark.system
def test_predictions_and_contributions_on_the_command_line(mixed, tmp_path, capsys, monkeypatch):  # noqa: F811
    file = mixed(
        "digits",
        inputs={"image": TREE["inputs"]["image"]},
        data={"dataset": "digits"},
        model=TREE["model"] | {"attention": "same_sample"},
        tasks={"digit": {"use": "classification", "target": "label"}},
        training=TREE["training"] | {"steps": 1},
        evaluation={"every": 1},
    )
    train(load_config(file))
    run = str(file.with_suffix(""))
    from PIL import Image

    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    capsys.readouterr()
    assert (
        main(["predict", run, "--input", f"image={tmp_path}/black.png", "--input", f"image={tmp_path}/none.png"]) == 0
    )
    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert good["digit"]["class"] in range(10) and "cannot be read" in bad["error"]
    assert main(["evaluate", run, "--subsets", "--json", str(tmp_path / "e.json")]) == 0
    assert "what each input contributes" in capsys.readouterr().out
    assert "val/bits/image" in json.loads((tmp_path / "e.json").read_text())
    assert main(["generate", run, "--input", f"image={tmp_path}/black.png"]) == 2
    assert "generates nothing" in capsys.readouterr().err
    before = {path: path.read_bytes() for path in Path(run).rglob("*") if path.is_file()}
    assert main(["evaluate", run, "--split", "train", "--report", str(tmp_path / "there")]) == 0
    names = {path.name for path in (tmp_path / "there").iterdir()}
    assert {"train.html", "train-digit-confusion.png", "train-digit-classes.csv", "evaluations.jsonl"} <= names
    assert before == {path: path.read_bytes() for path in Path(run).rglob("*") if path.is_file()}


@pytest.mark.system
def test_a_confusion_matrix_is_drawn_for_any_names_and_any_number_of_classes(tmp_path):
    """Names that matplotlib takes for formulas; a thousand and more classes, whose picture is not larger than one
    of a hundred."""
    drawn(Picture("confusion", "", ClassReporter([r"$\foo$", "a_$", "\x1b[31m"]).draw))
    with Image.open(io.BytesIO(drawn(Picture("confusion", "", ClassReporter(range(1500)).draw)))) as picture:
        assert max(picture.size) < 6000
