"""The page of a run, `RUN/index.html`, shows its results, curves, samples and configuration."""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.data.generated import MadeDataset
from chopmix.experiment.compare import main_curves, mean_line
from chopmix.experiment.figures import Figures
from chopmix.experiment.groups import Group, Member
from chopmix.experiment.run import load_run
from chopmix.experiment.run_page import csv_table, results, write_run_page
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.settings.reference import described_keys
from chopmix.files.pictures import STYLE
from chopmix.inference.document import Line, chart, draw_line, is_drawn
from matplotlib import rc_context
from matplotlib.figure import Figure
from test_inspection import trained_run  # noqa: F401
from test_mixing import TREE

HEADINGS = ["Results", "Curves", "What each input contributes", "Samples of the validation split", "Attention",
            "The configuration"]  # fmt: skip


def charts_in(page: str) -> list[str]:
    """Returns the charts of a page as SVG."""
    return [base64.b64decode(each).decode() for each in re.findall(r"svg\+xml;base64,([^']*)'", page)]


def headings(page: Path) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", page.read_text())


def test_the_page_is_written_at_the_end_of_training_and_by_a_command(tmp_path, reports, monkeypatch, capsys):
    monkeypatch.setattr(MadeDataset, "held_back", 100)
    changes = {
        "training": TREE["training"] | {"steps": 2}, "logging": {"every": 1}, "out": str(tmp_path / "run"),
        "evaluation": {"every": 1, "generated": 4, "attribution": True},
    }  # fmt: skip
    tree = TREE | changes
    (tmp_path / "sums.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    assert main(["train", str(tmp_path / "sums.yaml")]) == 0
    output = capsys.readouterr().err
    assert f"page: {tmp_path / 'run' / 'index.html'}" in output
    page = (tmp_path / "run" / "index.html").read_text()
    assert headings(tmp_path / "run" / "index.html") == [
        *HEADINGS[:3],
        "The report on the validation split",
        *HEADINGS[3:],
    ]
    assert main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text() == page
    assert not re.search(r"(?:src)=['\"]?(?:https?:)?//", page) and "val/bits" in page
    tables = re.findall("<details><summary>[^<]*csv.*?</details>", page, re.S)
    assert tables and not re.search(r"\d\.\d{6}", "".join(tables))
    assert page.count("<audio") == 12 and page.count("class=sample>") == 12
    keys = [".".join(entry.path) for entry in described_keys(load_run(tmp_path / "run").config.tree)]
    assert "training.learning_rate" in keys and all(f"<code>{key}</code>" in page for key in keys)


def test_the_page_of_several_seeds_shows_their_spread(tmp_path, trained_run, reports):  # noqa: F811
    for seed in (0, 1):
        shutil.copytree(trained_run, tmp_path / f"runs/seed-{seed}")
        lines = [{"step": step, "seconds": 1.0, "train/loss": 2.0 - step / 9 + seed, "val/loss": 1.0 + seed + step}
                 for step in (1, 2, 3)]  # fmt: skip
        (tmp_path / f"runs/seed-{seed}/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["report", str(tmp_path / "runs")]) == 0
    page = (tmp_path / "runs" / "index.html").read_text()
    assert "Mean of 2 runs, and one standard deviation" in page
    assert ["PolyCollection" in each for each in charts_in(page)] == [True, True]  # the bands
    assert "3.50 ± 0.71 (2)" in page and "all runs</th>" in page  # val/loss of the last step of each seed
    assert f"<h1>{tmp_path / 'runs'}</h1>" in page and page.count("seed-1</a>") + page.count("<td>seed-1") == 1
    assert (
        main(["report", str(tmp_path / "runs")]) == 2 and main(["report", str(tmp_path / "runs"), "--overwrite"]) == 0
    )


def test_a_text_corpus_shows_a_generated_text(tiny_run, tmp_path):
    write_run_page(load_run(tiny_run), tmp_path / "page.html")
    assert "A generated text" in headings(tmp_path / "page.html") and "seed 0" in (tmp_path / "page.html").read_text()


def test_a_page_is_refused_where_it_cannot_be_written(tiny_run, capsys, tmp_path, reports):
    assert main(["report", str(tiny_run), "--output", str(tmp_path / "none" / ("a" * 300 + ".html"))]) == 1
    assert "choose another location with --output FILE" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err


def test_training_ends_well_if_the_page_cannot_be_written(tiny, tmp_path, monkeypatch, reports, capsys):
    def fails(run, file, group=None):
        raise OSError("the disk is full")

    monkeypatch.setattr("chopmix.experiment.run_page.write_run_page", fails)
    assert main(["train", str(tiny())]) == 0
    assert "index.html is not written: the disk is full" in capsys.readouterr().err


def test_curves_have_no_constants_and_no_single_points():
    curves = {
        "train/loss": [(1, 2.0), (2, 1.5)], "val/loss": [(1, 2.0), (2, 1.0)], "val/accuracy": [(1, 0.5), (2, 0.5)],
        "val/bits/image": [(2, 1.5)], "val/judged": [(1, 256), (2, 250)],
    }  # fmt: skip
    assert main_curves([Group("a", {"run": curves}, best="val/loss")]) == ["train/loss", "val/loss"]


def test_the_mean_of_a_step_is_over_the_seeds_that_have_it():
    assert mean_line([[(1, 1.0), (2, 2.0)], [(1, 3.0)]]) == ([1, 2], [2.0, 2.0], [pytest.approx(2**0.5), 0.0])


@pytest.mark.parametrize("y", [[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [float("nan"), 1.0, 2e305], [float("inf")] * 3])
def test_a_chart_leaves_out_values_that_cannot_be_drawn(y):
    figure = Figure()
    canvas = figure.subplots()
    draw_line(canvas, Line([0, 1, 2], y, [0.1, 0.1, float("nan")]), "red")
    known = [value for value in y if is_drawn(value)]
    assert canvas.lines[0].get_ydata().tolist() == known
    low, high = canvas.get_ylim()
    assert low < high and all(low < value < high for value in known) and high - low < 10
    page = chart({"<a>": Line([0, 1, 2], y, [0.1] * 3)}, {"<a>": "red"}, "<step>", "<loss>")
    assert (f"{3 - len(known)} values are not finite" in page) == (len(known) < 3)
    assert "alt='&lt;loss&gt; by &lt;step&gt;'" in page and not re.search("<(a|step|loss)>", page)
    (picture,) = charts_in(page)
    assert ElementTree.fromstring(picture).tag.endswith("svg")


def test_a_chart_from_zero_also_shows_values_below_it(monkeypatch):
    """In an earlier version the axis began at 0, so that the loss of a density above 1 was outside."""
    canvas = Figure().subplots()
    monkeypatch.setattr("chopmix.inference.document.drawing", lambda draw, *_: draw(canvas))
    for y in ([-1.0, -2.0], [-1.0, 3.0], [2.0, 3.0]):
        canvas.clear()
        chart({"a": Line([0, 1], y)}, {"a": "red"}, "step", "loss", zero=True)
        low, high = canvas.get_ylim()
        assert low <= min(0, *y) < max(0, *y) <= high


def test_a_value_between_two_that_cannot_be_drawn_is_visible():
    canvas = Figure().subplots()
    draw_line(canvas, Line(range(5), [1.0, math.nan, 2.0, math.nan, 3.0]), "red")
    assert canvas.lines[0].get_xydata().tolist() == [[0, 1], [2, 2], [4, 3]]


def test_very_large_values_of_several_seeds_have_a_mean_without_a_warning(recwarn):
    assert mean_line([[(1, 1e308)], [(1, 1.5e308)]]).y == [math.inf] and not recwarn.list


@pytest.mark.parametrize("y", [[0.9975, 0.9986, 1.0], [1000.01, 1000.02], [1.0, 1.8], [-3.0, 2e9]])
def test_the_marks_of_an_axis_are_different(y):
    """In an earlier version two marks were 0.998."""
    with rc_context(STYLE):
        canvas = Figure().subplots()
    draw_line(canvas, Line([*range(len(y))], y), "red")
    canvas.figure.draw_without_rendering()
    marks = [mark.get_text() for mark in canvas.get_yticklabels()]
    assert len({*marks}) == len(marks) >= 3 and canvas.yaxis.get_offset_text().get_text() in ("", "1e9")


@pytest.mark.parametrize("name", ["quickstart", "generate/digits", "mix/vehicle"])
def test_every_value_of_a_configuration_is_described_once(name):
    config = load_config(f"configs/{name}.yaml")
    entries = [*described_keys(config.tree)]
    assert len({entry.path for entry in entries}) == len(entries)
    shown = {entry.path for entry in entries}
    assert all(any(path[:length] in shown for length in range(1, len(path) + 1)) for path in paths(config.tree))
    assert {("inputs", name) for name in config.tree["inputs"]} <= shown
    assert sum(bool(entry.text) for entry in entries) / len(entries) > 0.6


def paths(tree, path=()):
    """The paths of all values; a part is a value with the path of its mapping."""
    if isinstance(tree, dict) and tree:
        if "use" in tree:
            yield path
        for key, value in tree.items():
            if key != "use":
                yield from paths(value, (*path, str(key)))
    else:
        yield path


def test_the_metrics_of_both_checkpoints_are_shown():
    """An earlier version showed the values of the last step next to the step of the best checkpoint."""
    run = replace(load_run("quickstart"), step=2, which="best")
    curves = {"val/loss": [(1, 3.0), (2, 1.0), (3, 2.0)], "val/exact_match": [(2, 0.75), (3, 0.5)]}
    figures = Figures(2, {"val/loss": 1.0, "val/exact_match": 0.75}, {"val/loss": 2.0, "val/exact_match": 0.5})
    members = {"run": Member((run.folder,), "val", figures, why="older")}
    html = results(run, Group("a", {"run": curves}, members, "val/loss"))[1]
    assert "best checkpoint, step 2" in html and "last step, 3" in html
    for name, best, last in (("val/loss", "1", "2"), ("val/exact_match", "0.75", "0.5")):
        assert re.search(rf"<td>{name}</td><td class=number>{best}</td><td class=number>{last}</td>", html)
    members = {"run": replace(members["run"], figures=replace(figures, step=3))}
    html = results(replace(run, step=3, which="last"), Group("a", {"run": curves}, members, "val/loss"))[1]
    assert "last checkpoint, step 3" in html and "last step" not in html


def test_names_of_classes_are_not_changed_in_tables(tmp_path):
    (tmp_path / "a.csv").write_text("class,samples,recall\n1.10,3,0.9032258064516129\n1.1,4,1.0\n")
    table = csv_table(tmp_path / "a.csv")
    assert ">1.10<" in table and ">1.1<" in table and ">0.9032<" in table
