"""`chopmix inspect RUN` writes a page of a trained run with its predictions, attention and layers."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.data.generated import MadeDataset
from chopmix.experiment.inspection import write_page
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.shown_sample import Choice, trained
from chopmix.experiment.train import train
from chopmix.files.errors import RunError
from test_explorer import read_back
from test_mixing import TREE
from test_tracing import RUNS
from untrained import untrained


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    """A run on sums of digits (image, operator, sound), trained for two steps."""
    folder = tmp_path_factory.mktemp("inspected")
    tree = TREE | {"training": TREE["training"] | {"steps": 2}, "out": str(folder / "run")}
    (folder / "sums.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MadeDataset, "held_back", 100)
        train(load_config(folder / "sums.yaml"))
    return folder / "run"


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy of the trained run."""
    shutil.copytree(trained_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_of(capsys, *words: str) -> str:
    """The error output of a command that fails."""
    assert main([*map(str, words)]) in (1, 2)
    return capsys.readouterr().err


def test_the_page_of_a_run_shows_what_it_learned(run, capsys):
    assert main(["inspect", str(run)]) == 0
    page = (run / "inspect.html").read_text()
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == [
        "The prediction", "Attention", "Attention by input", "Layer by layer", "An input of another sample",
        "The sample", "The attention graph", "The targets", "The configuration",
    ]  # fmt: skip
    data, weights = read_back(page)
    loaded = load_run(run)
    split = loaded.open("val")
    trace = loaded.trace({name: split.samples[0][column] for name, column in loaded.wiring.columns.items()})
    for layer, expected in enumerate(trace.main.attention, start=1):
        for head, rows in enumerate(expected.numpy(), start=1):
            assert (abs(weights[layer, head] - rows).max(1) <= rows.max(1) / 255 + 1e-7).all()
    assert {view["kind"] for view in data["views"]} == {"attention", "rollout", "graph", "reachable"}
    slots = [slot for slot, _ in trace.predicted_tokens("answer")]
    slots += [slots[-1] + 1] * (len(slots) < trace.batch.targets["answer"].count)  # the end of the text
    sound = trace.main.slots(trace.input_number("sound"))
    shares = [weights.mean(0)[slots][:, sound].sum(1).mean() for weights in trace.main.attention]
    shares.append(trace.main.rollout()[slots][:, sound].sum(1).mean())
    cells = "".join(f"<td class=number>{share:.1%}</td>" for share in shares)
    assert f"sound</td>{cells}</tr>" in page
    names = [token["name"] for token in data["sets"][0]["tokens"]]
    predicted = trace.predicted_tokens("answer")
    writes = [name.partition(" (writes ")[2] for name in names if " (writes " in name]
    assert writes == [f"{text!r})" for _, text in predicted]
    assert "What each input contributes to the prediction of the true value" in page and "data:image/svg+xml" in page
    assert not re.search(r"(?:src|href)=['\"]?(?:https?:)?//", page) and len(page) < 500_000
    assert "1 attention graph\n" in capsys.readouterr().out


def test_a_sample_of_the_data_or_of_the_user_is_chosen(run, tmp_path, capsys):
    key = load_run(run).open("val").samples.keys[3]
    pages = []
    for number, words in enumerate((["--sample", key], ["--sample", "4"], ["--sample", "4", "--other", "6"])):
        assert main(["inspect", str(run), *words, "--output", str(tmp_path / f"{number}.html")]) == 0
        pages.append((tmp_path / f"{number}.html").read_text())
    assert pages[0] == pages[1] and f" (key: {key})<" in pages[0] and "val, sample 4 of " in pages[0]
    assert main(["examples", str(run), "--split", "val", "--number", "1", "--output", str(tmp_path / "files")]) == 0
    image = next((tmp_path / "files").rglob("*.png"))
    words = [
        "--input",
        f"image={image}",
        "--input",
        "operator=+",
        "--layers",
        "2",
        "--output",
        str(tmp_path / "user.html"),
    ]
    assert main(["inspect", str(run), *words]) == 0
    page = (tmp_path / "user.html").read_text()
    assert "input samples, sample 1<" in page and "page contains 2; --layers selects others" in page
    assert {layer for layer, _ in read_back(page)[1]} == {2}


@pytest.mark.parametrize(
    "words, message",
    [
        (["--sample", "none"], r"val has no sample 'none'; possible: a key, or a number from 1 to "),
        (["--sample", "0"], "no sample '0'"),
        (["--other", "99999999"], "no sample '99999999'"),
        (["--task", "none"], "no task 'none'; possible: answer"),
        (["--layers", "1,9"], "--layers 9: the model has the layers 1 to 2"),
        (["--layers", "x"], "--layers 'x': write numbers and ranges, such as 1,4-6"),
        (["--layers", "3-1"], "--layers '3-1': write numbers and ranges"),
        (["--split", "none"], "no split 'none'"),
        (["--input", "picture=a.png"], "has no input 'picture'; possible: image, operator, sound, answer"),
        (["--input", "image=none.png"], "none.png does not exist"),
        (["--input", "operator=" + "+" * 500], "is bad: "),
        (["model.depth=3", "--sample", "1"], "--sample needs the folder of a trained run, without KEY=VALUE"),
    ],
)
def test_samples_inputs_and_layers_that_the_run_does_not_have_are_refused(
    trained_run, capsys, words, message, tmp_path
):
    assert re.search(message, error_of(capsys, "inspect", trained_run, *words, "--output", tmp_path / "page.html"))
    assert not (tmp_path / "page.html").exists()


def test_a_run_without_its_data_needs_a_sample(trained_run):
    run = load_run(trained_run)
    imported = replace(run, config=replace(run.config, data=replace(run.config.data, dataset=None)))
    with pytest.raises(RunError, match="was imported without data; name a sample: --input NAME=VALUE"):
        trained(imported, Choice())
    assert trained(imported, Choice(inputs={"operator": "-", "answer": "3-2=1"})).key == "sample 1"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_an_error(run, capsys):
    run.chmod(0o555)
    try:
        assert "choose another location with --output FILE" in error_of(capsys, "inspect", run)
    finally:
        run.chmod(0o755)


def test_without_a_checkpoint_the_configuration_is_shown(run, capsys):
    shutil.rmtree(run / "checkpoints")
    assert main(["inspect", str(run)]) == 0
    assert "the page shows the configuration without its trained weights" in capsys.readouterr().err
    page = Path(run / "inspect.html").read_text()
    assert "Layer by layer" not in page and {view["kind"] for view in read_back(page)[0]["views"]} == {
        "graph",
        "reachable",
    }


def test_a_text_corpus_has_a_page_of_its_learned_attention(tiny_run, tmp_path, capsys):
    assert main(["inspect", str(tiny_run), "--sample", "2", "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "val, window 2 of " in page and "probability of the target" in page
    assert "An input of another sample" not in page
    assert {*read_back(page)[1]} == {(layer, head) for layer in (1, 2) for head in (1, 2, 3, 4)}
    assert main(["inspect", str(tiny_run), "--input", "text=chop", "--output", str(tmp_path / "user.html")]) == 0


@pytest.mark.parametrize("task", ["masked_modeling", "masked_diffusion", "span_corruption"])
def test_windows_of_a_corpus_have_pages_and_pictures(task, tmp_path, monkeypatch, capsys):
    """The tasks are those that hide parts of a text."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("Chop up everything and throw it into the mix. " * 200)
    inputs = {"text": {"use": "text", "encoding": "bytes"}}
    tree = {"inputs": inputs, "model": {"width": 16, "depth": 2, "heads": 2, "context": 32, "attention": "same_sample"},
            "tasks": {"fill": {"use": task, "target": "text"}},
            "data": {"dataset": {"use": "text", "train": "text.txt"}}, "out": "run", "logging": {"tensorboard": False},
            "training": {"steps": 2, "tokens_per_step": 340 if task == "span_corruption" else 128},
            "evaluation": {"sample_tokens": 2}}  # fmt: skip
    if task == "span_corruption":
        tree["inputs"]["spans"] = {"same_as": "text"}
        tree["tasks"]["fill"] |= {"source": "text", "target": "spans"}
        tree["model"] |= {"encoder": {"depth": 1, "context": 32}, "attention": "causal & same_sample"}
    Path("fill.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    assert main(["train", "fill.yaml"]) == 0
    assert main(["inspect", "run", "--sample", "3", "--animate", "picture.svg"]) == 0
    assert "val, window 3 of " in Path("run/inspect.html").read_text() and Path("picture.svg").stat().st_size > 5000


@pytest.mark.parametrize(
    "words, message",
    [
        (["--animate", "picture.gif"], "--animate picture.gif: the name of the file must end in .svg"),
        (["--output", "page.pdf"], "--output page.pdf: the name of the file must end in .html"),
        (["--animate", "picture.svg"], "the model predicts nothing for 'answer'"),  # it has been trained for two steps
        (["model.depth=1", "--animate", "picture.svg"], "--animate needs the folder of a trained run"),
    ],
)
def test_a_picture_that_cannot_be_written_is_refused(run, capsys, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in error_of(capsys, "inspect", run, *words)


def test_a_text_that_the_sample_lacks_is_generated_for_the_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "quickstart", "--input", "operator=+", "--animate", "picture.svg"]) == 0
    assert "+" in re.search("class='final'.*?>(.*?)<", Path("picture.svg").read_text())[1]
    assert Path("picture.svg").read_text().count("class='lines ") >= 4
    assert "picture.svg" in error_of(capsys, "inspect", "quickstart", "--animate", "picture.svg/more.svg")


@pytest.mark.parametrize("encoding, context", [("characters", 8), ("bytes", 24), ("bytes", 60)])
def test_a_text_is_continued_within_the_context(encoding, context, tmp_path, monkeypatch, capsys):
    """The number of generated tokens is limited by the context."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("Chop up everything and throw it into the mix. " * 100)
    tree = {"inputs": {"text": {"use": "text", "encoding": encoding}},
            "model": {"width": 16, "depth": 1, "heads": 2, "context": context, "attention": "causal & same_sample"},
            "tasks": {"next": {"use": "language_modeling", "target": "text"}},
            "data": {"dataset": {"use": "text", "train": "text.txt"}}, "out": "run", "logging": {"tensorboard": False},
            "training": {"steps": 2, "tokens_per_step": 2 * context}, "evaluation": {"sample_tokens": 2}}  # fmt: skip
    Path("a.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    assert main(["train", "a.yaml"]) == 0
    assert main(["inspect", "run", "--animate", "picture.svg"]) == 0
    assert main(["inspect", "run", "--input", "text=" + "e" * (context - 2), "--animate", "picture.svg"]) == 0
    capsys.readouterr()
    error = error_of(capsys, "inspect", "run", "--input", "text=" + "e" * (context - 1), "--animate", "picture.svg")
    assert f"{context} tokens leave no room in the context of {context}" in error


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_several_tasks_and_missing_inputs_have_pages(precision, tmp_path, monkeypatch):
    """A task that hides parts of an input has a separate page; a sample may lack any input."""
    monkeypatch.chdir(tmp_path)
    inputs = {name: RUNS["language"][0][name] for name in ("image", "wave", "text")}
    tasks = {"label": {"use": "classification", "target": "label"}, "value": {"use": "regression", "target": "value"},
             "mask": {"use": "masked_modeling", "target": "text"}}  # fmt: skip
    run = replace(untrained(inputs, tasks, {"depth": 2}), precision=precision)
    for task in (None, *tasks):
        shown = trained(run, Choice(task=task))
        assert (task or "label") in shown.trace.outputs
        assert "1 attention graph" in write_page(shown, Path("page.html"), Choice(task=task))
        page = Path("page.html").read_text()
        assert (precision == "bfloat16") == ("in bfloat16: " in page)
        layers = page[page.index("id='layers'") :]
        for name in shown.trace.batch.targets:  # the unit of a squared error is not bits
            unit = "bits" if name != "value" else run.tasks["value"].metrics["loss"].unit
            assert f"<th>{name}</th><th>{unit}</th>" in layers
    assert "2 tokens" in write_page(trained(run, Choice(inputs={"wave": [[1.0, 2.0]] * 6})), Path("page.html"))


def test_a_text_that_the_model_generates_is_a_part_of_the_page(here, capsys):
    assert main(["inspect", "quickstart", "--input", "operator=+"]) == 0
    page = Path("inspect.html").read_text()
    (shown,) = read_back(page)[0]["sets"]
    assert len(next(each for each in shown["inputs"] if each["name"] == "answer")["slots"]) >= 5
    assert "answer: generated by the model" in page and "prediction of the generated answer" in page
    assert "None of the" in page and "of the 0 targets" not in page


def test_an_input_is_replaced_by_another_value(here):
    """Samples of the quickstart have an operator of one character: the next samples with the same one are skipped."""
    run = load_run("quickstart")
    split = run.open("val")
    numbers = {sign: [n for n in range(20) if split.samples[n]["operator"] == sign] for sign in "+-"}
    first, same, different = *numbers["+"][:2], numbers["-"][0]
    row = re.compile("<tr><td>operator</td><td>(.*?)</td>")

    def cell(**choice) -> str:
        write_page(trained(run, Choice(sample=str(first + 1), **choice)), Path("page.html"), Choice(**choice))
        return row.search(Path("page.html").read_text())[1]

    assert cell().startswith("&#x27;-&#x27; of ")
    assert cell(other=str(different + 1)) == f"&#x27;-&#x27; of {split.samples.keys[different]}"
    assert cell(other=str(same + 1)) == f"&#x27;+&#x27; of {split.samples.keys[same]} (the same value)"


def test_inputs_of_another_length_are_not_replaced(here):
    inputs = {name: RUNS["language"][0][name] for name in ("image", "text")}
    run = untrained(inputs, {"label": {"use": "classification", "target": "label"}}, {"depth": 2})
    texts = [sample["text"] for sample in run.open("val").samples]
    other = next(n for n, text in enumerate(texts) if len(text) != len(texts[0]))
    choice = Choice(sample="1", other=str(other + 1))
    write_page(trained(run, choice), Path("page.html"), choice)
    page = Path("page.html").read_text()
    assert "Not replaced: its input &#x27;text&#x27; has" in page and f"<tr><td>image</td><td>val {other}</td>" in page


LEAKS = "this graph leaks: 6 of 7 targets can influence their own prediction"


@pytest.mark.parametrize(
    "mask, message",
    [
        ("same_sample & window(4)", LEAKS),
        ("causal & !edges(sound -> answer)", "inputs.sound: no prediction depends on this input"),
        ("causal", ""),
    ],
)
def test_a_wrong_attention_mask_is_reported_before_training(mask, message, here, capsys):
    config = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
    words = [f"model.attention={mask}", "data.dataset.samples=300", "--output", "mask.html"]
    assert main(["inspect", str(config), *words]) == 0
    output, page = capsys.readouterr().out, Path("mask.html").read_text()
    assert message in output and message in page
    assert ("None of the" in page) == (message != LEAKS) and output.count("\n") == 1 + bool(message)


@pytest.mark.parametrize(
    "pooling, uses_inputs", [("mean_pooling", True), ("attention_pooling", True), ("class_token", False)]
)
def test_a_page_says_whether_a_prediction_uses_the_last_vectors_of_an_input(pooling, uses_inputs, here):
    """The text of the page depends on the pooling."""
    inputs = {name: RUNS["language"][0][name] for name in ("image", "wave")}
    task = {"use": "classification", "target": "label", "pooling": pooling}
    run = untrained(inputs, {"label": task}, {"depth": 2, "core_tokens": 1})
    write_page(trained(run, Choice()), Path("page.html"))
    page = Path("page.html").read_text()
    assert "An input of another sample" in page
    assert ("also uses the vectors of these tokens after the last layer" in page) == uses_inputs
