"""chopmix as a library prints nothing, refuses wrong samples and paths of clients, and trains configurations that are
mappings."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import chopmix
import numpy as np
import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.settings.document import ConfigError
from chopmix.files.errors import RunError
from PIL import Image


def write_rows(folder) -> None:
    """Writes a list of pictures with a note and two numbers each."""
    lines = ["image,note,numbers,kind"]
    for n in range(24):
        Image.new("L", (8, 8), 200 * (n % 2)).save(folder / f"{n}.png")
        lines.append(f'{n}.png,{"ab"[n % 2] * (n % 3 + 1)},"[[{n % 2}, 1]]",{"xy"[n % 2]}')
    (folder / "list.csv").write_text("\n".join(lines))


TREE = {
    "inputs": {"image": {"use": "image", "size": 8, "patch_size": 4, "channels": 1},
               "note": {"use": "text", "encoding": "characters"}, "numbers": {"use": "sensor", "channels": 2}},
    "model": {"width": 16, "depth": 1, "heads": 2, "context": 16, "attention": "same_sample"},
    "tasks": {"kind": {"use": "classification", "target": "kind"}},
    "training": {"steps": 2, "samples_per_step": 4}, "evaluation": {"every": 2}, "logging": {"tensorboard": False},
}  # fmt: skip


def tree(folder: Path, name: str) -> dict:
    dataset = {"use": "manifest", "train": str(folder / "list.csv"), "columns": ["image", "note", "numbers", "kind"],
               "files": ["image"]}  # fmt: skip
    return TREE | {"data": {"dataset": dataset}, "out": str(folder / name)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    write_rows(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        chopmix.train(tree(folder, "run"), progress=False)
    return folder


@pytest.fixture(autouse=True)
def cache(folder, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)


def content(folder) -> bytes:
    return (folder / "0.png").read_bytes()


def test_every_message_is_logged_once_and_not_printed(folder, messages, capsys):
    run = chopmix.load(folder / "run")
    run.predict([{"note": "ab"}])
    assert messages().count("'kind' is predicted without image, numbers") == 1
    chopmix.evaluate(run)
    chopmix.evaluate(run, data="list.csv")
    chopmix.predict(folder / "run", {"image": "gone.png", "note": "a"})
    assert capsys.readouterr() == ("", "")


def test_training_prints_its_progress_unless_it_is_turned_off(folder, messages, capsys):
    chopmix.train(tree(folder, "quiet"), progress=False)
    assert capsys.readouterr() == ("", "") and "step 2/2" in (logged := messages()) and "val/loss" in logged
    chopmix.train(tree(folder, "loud"))
    assert "step 2/2" in capsys.readouterr().err


def test_a_mapping_is_trained_like_a_configuration_file(folder, tmp_path):
    (tmp_path / "user.yaml").write_text(yaml.safe_dump(tree(folder, "from_file")))
    assert chopmix.train(tree(folder, "from_python"), training={"steps": 3})["step"] == 3
    assert chopmix.train(tmp_path / "user.yaml", training={"steps": 3})["step"] == 3
    first, second = (chopmix.load(folder / name).model.state_dict() for name in ("from_file", "from_python"))
    assert all(bool((value == second[name]).all()) for name, value in first.items())
    config = tree(folder, "paths")
    config["data"]["dataset"]["train"], config["data"]["dataset"]["files"] = folder / "list.csv", ("image",)
    before = repr(config)
    assert chopmix.train(config)["step"] == 2 and repr(config) == before


@pytest.mark.parametrize(
    "change, message",
    [
        ({"out": None}, "out: a configuration from Python needs the folder of its run"),
        ({"model": TREE["model"] | {"width": 15}}, "the configuration .*heads.*15"),
        ({"tasks": {"kind": {"use": "classification", "target": "kind", "weight": np.float32(2)}}},
         "tasks.kind.weight: must be a number, a text, a list or a mapping, not float32"),
        ({"training": {"steps": 2, "smaples_per_step": 4}}, "smaples_per_step.*did you mean"),
    ],
)  # fmt: skip
def test_a_wrong_mapping_is_refused_like_a_file(folder, change, message):
    with pytest.raises(ConfigError, match=message):
        chopmix.train(tree(folder, "wrong") | change)


def test_paths_of_clients_are_refused(folder):
    run = chopmix.load(folder / "run")
    good = {"image": content(folder), "note": "a", "numbers": "[[1, 2]]"}
    refused = "a path is refused (paths=False); pass the content of the file"
    samples = [
        good, {"image": "0.png"}, {"image": Path("0.png")}, {"image": "/etc/passwd", "note": "a"},
        {"numbers": {"values": "x.npy", "interval": 1.0}}, {"numbers": ["x.npy"]}, {"numbers": "x.csv"},
        {"image": np.zeros((8, 8), np.uint8)}, {"note": "ab"}, {"numbers": [[1.0, 2.0]]},
    ]  # fmt: skip
    answers = run.predict(samples, paths=False)
    assert [refused in answer.get("error", "") for answer in answers] == [False] + [True] * 6 + [False] * 3
    assert all("kind" in answers[number] for number in (0, 7, 8, 9))
    with pytest.raises(RunError, match="input 'image': a path is refused"):
        run.predict({"image": "0.png"}, paths=False)
    assert "kind" in run.predict({"image": "0.png"})


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"imgae": 1}, "has no input 'imgae'; possible: "), ("a.png", "a sample must map inputs to values"),
        (None, "a sample must map inputs to values"), ({"note": "a", "kinds": "x"}, "has no input 'kinds'"),
        ({}, "it has none of the inputs"), ({"image": b"no picture"}, "image: "),
        ({"numbers": [[1, 2, 3]]}, "numbers: "),
        ({"image": [[1, 2], [3]]}, "image: "), ({"image": np.zeros(5)}, "image: "), ({"note": 1.5j}, "note: "),
        ({"numbers": "text"}, "numbers: "), ({"note": "\u00fc"}, "note: character "),
    ],
)  # fmt: skip
def test_one_wrong_sample_in_a_list_is_an_error_of_this_sample_alone(folder, wrong, message):
    run, good = chopmix.load(folder / "run"), [{"note": "ab"}, {"image": content(folder)}]
    answers = run.predict([good[0], wrong, good[1]])
    assert [*answers[1]] == ["error"] and message in answers[1]["error"], answers[1]
    for answer, sample in ((answers[0], good[0]), (answers[2], good[1])):
        alone = run.predict(sample)
        assert answer["without"] == alone["without"]
        assert answer["kind"]["probabilities"] == pytest.approx(alone["kind"]["probabilities"], rel=1e-5)


@pytest.mark.system
def test_several_modules_are_trusted_at_once(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    for name in ("first", "second"):
        (folder / f"{name}.py").write_text("from chopmix.tasks.classification import Classification\n"
                                           "class Own(Classification):\n    pass\n")  # fmt: skip
    tasks = {name: {"use": f"{name}:Own", "target": "kind"} for name in ("first", "second")}
    chopmix.train(tree(folder, "trusted") | {"tasks": tasks}, progress=False)
    for trust in (["first", "second"], "first,second"):
        assert chopmix.load(folder / "trusted", trust=trust).predict({"note": "a"}).keys() >= {"first", "second"}
    for flags in (["--trust", "first,second"], ["--trust", "first", "--trust=second"]):
        assert main(["evaluate", str(folder / "trusted"), *flags]) == 0
    assert main(["evaluate", str(folder / "trusted"), "--trust", "first"]) == 2


def test_standard_library_logging_does_not_repeat_messages(folder):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    logging.getLogger("chopmix").setLevel(logging.INFO)
    try:
        chopmix.load(folder / "run").predict({"note": "a"})
    finally:
        logging.getLogger().removeHandler(handler)
        logging.getLogger("chopmix").setLevel(logging.NOTSET)
    assert stream.getvalue().count("is predicted without") == 1
