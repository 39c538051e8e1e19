"""`chopmix compare`: tables and curves of the metrics and settings of several runs; counts have no curves."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.compare import comparison, differing_settings, draw_curves, on_terminal
from chopmix.experiment.figure_table import latex_lines
from chopmix.experiment.figures import Figures
from chopmix.experiment.groups import Member, read_group, read_groups, short_names
from chopmix.experiment.results import RunResult, keep_result, main_metrics, read_results
from chopmix.files.plugins import TRAINED
from chopmix.files.reading import DataError
from matplotlib.axes import Axes


@pytest.fixture
def groups(tmp_path):
    """Two runs of two seeds each, with a loss, the number of items judged, and an accuracy that is 1 at the end."""
    for run in ("one", "two"):
        for seed in range(2):
            folder = tmp_path / run / f"seed-{seed}"
            folder.mkdir(parents=True)
            lines = [{"step": step, "seconds": 1.0, "val/loss": 2.0 - step + seed / 10, "val/accuracy": float(step),
                      "val/judged": 12345} for step in (0, 1)]  # fmt: skip
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [read_group(tmp_path / run) for run in ("one", "two")]


def test_runs_without_curves_are_compared(groups, tmp_path, monkeypatch, capsys):
    """With one evaluation there is a table but no picture, and `--picture` is refused. The trained run of the package
    is compared by its name."""
    monkeypatch.chdir(tmp_path)
    for file in tmp_path.glob("*/seed-*/metrics.jsonl"):
        file.write_text(file.read_text().splitlines()[0] + "\n")
    assert main(["compare", "one", "two", "--output", "table.csv"]) == 0
    assert "no curves" in capsys.readouterr().out and not Path("compare.png").exists() and Path("table.csv").exists()
    assert main(["compare", "one", "two", "--picture", "curves.png"]) == 2
    assert main(["compare", "quickstart"]) == 0
    assert "val/exact_match" in capsys.readouterr().out


def test_counts_are_shown_as_counts(groups):
    cells = {name: [cell.lines[0] for cell in row] for name, row in comparison(groups).rows}
    assert cells["val/judged"] == ["12,345", "12,345", "0"]
    assert cells["val/accuracy"] == ["1 ± 0 (2)", "1 ± 0 (2)", "0 ± 0 (2)"]
    assert cells["val/loss"][0] == "1.050 ± 0.071 (2)"


def test_counts_have_no_curves(groups, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr("matplotlib.axes.Axes.set", lambda self, **named: titles.append(named.get("title")))
    draw_curves(groups, tmp_path / "x.png")
    assert titles == ["val/loss", "val/accuracy"]


def test_tables_are_written_into_files_of_three_formats(groups, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "one", "two", *(f"--output=t.{ending}" for ending in ("csv", "md", "tex"))]) == 0
    lines = Path("t.csv").read_text().splitlines()
    assert lines[0] == "metric,runs,mean,std,seeds,low,high,seeds_low,seeds_high"
    assert lines[1].startswith("val/loss,one,1.05,0.07")
    assert len(lines) == 1 + 3 * 3 and lines[3].startswith("val/loss,two - one,0.0,0.0,2,,,0.0,0.0")
    markdown = Path("t.md").read_text()
    seeds = "1.050 ± 0.071 (2) {0.415, 1.685}"
    assert markdown.splitlines()[:3] == [
        "| metric | one | two | two - one |", "| --- | ---: | ---: | ---: |",
        f"| val/loss | {seeds} | {seeds} | 0 ± 0 (2) {{0, 0}} |",
    ]  # fmt: skip
    latex = Path("t.tex").read_text()
    assert r"val/loss & 1.050 $\pm$ 0.071 (2) \{0.415" in latex and latex.startswith(r"\begin{tabular}{lrrr}")
    for text in (markdown, latex.replace("\\", ""), capsys.readouterr().out):
        assert "No intervals: a run has no sums of the samples" in text and "t interval over seeds" in text
    assert main(["compare", "one", "--output", "t.csv"]) == 2
    assert "t.csv exists; choose another name, or replace it with --overwrite" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"possible endings: .csv, .md, .tex"):
        comparison(groups).write(Path("t.docx"))


def test_special_characters_of_latex_are_escaped():
    assert latex_lines([["a_b%&#$"], ["x\\^~{}"]])[2] == r"a\_b\%\&\#\$ \\"
    assert latex_lines([["a"], ["x\\^~{}"]])[4] == r"x\textbackslash{}\^{}\~{}\{\} \\"


def result(folder, setting, seed, loss, fold=None) -> RunResult:
    metrics = {"step": 3, "val/loss": loss}
    return RunResult(folder=folder, setting=setting, seed=seed, fold=fold, metrics=metrics)


def test_a_sweep_is_compared_by_its_settings(groups, tmp_path):
    """The four folders of the fixture are used as two runs of each of two settings."""
    keep = partial(keep_result, tmp_path, "x.yaml", "val/accuracy")
    for run, rate in (("two", "2"), ("one", "1")):
        for seed in range(2):
            keep(result(f"{run}/seed-{seed}", (f"training.learning_rate={rate}", "model.depth=3"), seed, 1.0))
    names = [group.name for group in read_groups([tmp_path])]
    assert names == ["learning_rate=1 depth=3", "learning_rate=2 depth=3"]
    assert [group.best for group in read_groups([tmp_path])] == ["val/accuracy"] * 2
    keep(result("one/seed-0", ("training.learning_rate=1", "model.depth=3"), 0, 0.5))  # trained again
    results = read_results(tmp_path)
    assert [run.metrics["val/loss"] for run in results.runs] == [0.5, 1.0, 1.0, 1.0]
    header, *rows = (tmp_path / "sweep.csv").read_text().splitlines()
    assert header == "folder,training.learning_rate,model.depth,seed,step,val/loss"
    assert rows[0] == "one/seed-0,1,3,0,3,0.5" and len(rows) == 4
    shutil.rmtree(tmp_path / "two" / "seed-1")
    keep(result("one/seed-1", ("training.learning_rate=1", "model.depth=3"), 1, 1.0))
    assert len(read_results(tmp_path).runs) == 3
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(DataError, match="sweep.json"):
        read_groups([tmp_path])


def test_names_are_shortened_to_their_different_parts():
    assert short_names(["runs/a/x", "runs/a/y"]) == ["x", "y"] and short_names(["runs/a"]) == ["runs/a"]
    assert short_names(["runs/a", "runs/a/b"]) == ["a", "a/b"] and short_names(["a", "b/c"]) == ["a", "b/c"]


def test_the_metric_of_the_best_checkpoint_is_drawn_first(groups, tmp_path, monkeypatch):
    for run in ("one", "two"):
        (tmp_path / run / "seed-0" / "config.yaml").write_text("checkpoints: {best: val/accuracy}")
    titles = []
    monkeypatch.setattr("matplotlib.axes.Axes.set", lambda self, **named: titles.append(named.get("title")))
    draw_curves(read_groups([tmp_path / "one", tmp_path / "two"]), tmp_path / "x.png")
    assert titles == ["val/accuracy", "val/loss"]
    names = ["train/loss", "val/loss", "val/bits/image", "val/without_image/loss", "val/judged", "val/accuracy"]
    assert main_metrics(names, "val/accuracy") == ["val/accuracy", "val/loss"]


def test_runs_without_a_common_metric_are_refused(groups, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in (tmp_path / "two").glob("*/metrics.jsonl"):
        file.write_text('{"step": 1, "val/label/mae": 2.0}\n')
    assert main(["compare", "one", "two"]) == 2
    message = "the runs have no common metric. Metrics of one: val/loss, val/accuracy, val/judged; two: val/label/mae"
    assert message in " ".join(capsys.readouterr().err.split())


def test_null_settings_and_folds_are_no_difference(groups):
    settings = {"training.steps": 4, "data.split.fold": 0, "data.split.group": None}, {"training.steps": 4}
    first, second = (replace(group, settings=each) for group, each in zip(groups, settings))
    assert differing_settings([first, second]) == []
    more = replace(second, settings={"training.steps": 8, "data.split.group": "who"})
    assert differing_settings([first, more]) == [("training.steps", ["4", "8"]), ("data.split.group", ["–", "who"])]


def test_settings_that_differ_come_before_the_metrics(groups, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run, steps in (("one", 900), ("two", 60)):
        for seed in range(2):
            tree = {"out": run, "model": {"depth": 2}, "training": {"steps": steps, "seed": seed}}
            (tmp_path / run / f"seed-{seed}" / "config.yaml").write_text(yaml.safe_dump(tree))
    pair = read_groups([Path("one"), Path("two")])
    assert differing_settings(pair) == [("training.steps", ["900", "60"])]
    assert differing_settings([*pair, replace(pair[0], settings={})]) == []
    assert main(["compare", "one", "two"]) == 0
    output = capsys.readouterr().out
    assert 0 < output.index("training.steps") < output.index("val/loss") and "training.seed" not in output


def test_metrics_of_missing_inputs_are_only_in_the_files(groups, tmp_path):
    figures = Figures(1, {"val/without_image/loss": 2.0, "val/loss": 1.0}, {})
    table = comparison([replace(groups[0], members={"run": Member((tmp_path,), "val", figures, why="older")})])
    shown = on_terminal(table)
    assert [name for name, _ in shown.rows] == ["val/loss"] and "only in --output FILE.csv: 1" in shown.captions[-1]
    table.write(tmp_path / "x.csv")
    assert "val/without_image/loss" in (tmp_path / "x.csv").read_text()


def test_a_run_with_one_evaluation_is_a_point(groups, tmp_path, monkeypatch):
    """A curve with one value is drawn with a marker, so that it is visible."""
    markers = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda *args, **named: markers.append(named.get("marker")) or plot(*args, **named)
    )
    short = replace(groups[0], curves={"run": {name: curve[-1:] for name, curve in groups[0].curves["seed-0"].items()}})
    draw_curves([groups[1], short], tmp_path / "x.png")
    assert "o" in markers and None in markers


def test_the_trained_run_of_the_package_has_its_short_name():
    assert read_group(TRAINED / "quickstart").name == "quickstart"


@pytest.mark.parametrize("text", [
    "a: &a {b: *a}", "a: &a [x, x]\nb: &b [*a, *a]\n", "x: !!python/object/apply:os.getcwd []", "{" * 999, "\0",
    "- 1", "1",
])  # fmt: skip
def test_a_strange_configuration_has_no_settings(groups, tmp_path, text):
    """A YAML with aliases could be a mapping that contains itself or is very large."""
    (tmp_path / "one" / "seed-0" / "config.yaml").write_text(text)
    group = read_group(tmp_path / "one")
    assert group.settings == {} and group.best == "" and differing_settings([group, groups[1]]) == []
