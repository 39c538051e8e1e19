"""The animated picture of a sample has a box for each token, lines for the largest weights, and no scripts."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
import torch
from chopmix.experiment.inspection import explorer_of
from chopmix.experiment.shown_sample import Shown
from chopmix.inference.animation import LINES, PARTS, animated, grid_of_boxes, keyframes, steps_of
from test_tracing import run, run_of, trace_of  # noqa: F401 (a fixture: an untrained run of each kind)

SVG = "{http://www.w3.org/2000/svg}"


def shown_of(run) -> Shown:  # noqa: F811
    split, trace = run.open("val"), trace_of(run)
    return Shown(title="", config=run.config, split=split, index=split.all()[0], model=run.model, choppers=run.choppers,
                 tasks=run.tasks, batch=trace.batch, trace=trace, run=run)  # fmt: skip


def drawn(run):  # noqa: F811
    shown = shown_of(run)
    (task,) = run.tasks
    return shown, ElementTree.fromstring(animated(explorer_of(shown), shown.trace, task, "an <answer>"))


def of_class(picture, name: str) -> list:
    return [element for element in picture.iter() if name in element.get("class", "").split()]


def test_every_token_is_drawn_and_nothing_is_loaded(run):  # noqa: F811
    """Of a model with an encoder: the tokens of the encoder, and as many steps as predicted tokens."""
    shown, picture = drawn(run)
    (task,) = run.tasks
    target = shown.tasks[task].target
    tokens = explorer_of(shown).sets[0].plan.tokens
    generated = [*run.model.inputs].index(target) + 1 if run.tasks[task].needs.generates else -1
    sources = int(((tokens.sample[0] > 0) & (tokens.input[0] != generated)).sum())
    predicted = shown.trace.predicted_tokens(task)
    assert len(of_class(picture, "piece")) == sources or (sources == 0 and 0 < len(of_class(picture, "piece")) <= 24)
    lines = of_class(picture, "lines")
    assert len(lines) == max(len(predicted), 1) or sources == 0
    assert all(1 <= len(line) <= LINES for line in lines)
    assert of_class(picture, "final")[0].text == "an <answer>" and picture.find(f"{SVG}title") is not None
    addresses = [value for each in picture.iter() for name, value in each.attrib.items() if name.endswith("href")]
    assert all(address.startswith(("#", "data:image/png")) for address in addresses)
    assert not [*picture.iter(f"{SVG}script")]


@pytest.mark.parametrize("name", ["classification", "regression"])
def test_drawings_are_inverted_in_dark_mode(name, tmp_path, monkeypatch):
    """Otherwise the white padding of a spectrogram would be a bright area. Photographs are not inverted."""
    monkeypatch.chdir(tmp_path)
    _, picture = drawn(run_of(name))
    classes = [each.get("class") for each in picture.iter(f"{SVG}image")]
    assert classes == (["", "plot"] if name == "classification" else ["plot"])
    (style,) = picture.iter(f"{SVG}style")
    dark = style.text.partition("@media (prefers-color-scheme:dark){")[2]
    assert ".plot{filter:invert(1)" in dark.partition("}}")[0]


def test_the_lines_are_the_weights_of_the_rollout(tmp_path, monkeypatch):
    """The weights are those of the slot at which a token is predicted, summed over tokens that are shown as one."""
    monkeypatch.chdir(tmp_path)
    shown = shown_of(run_of("language"))
    explorer = explorer_of(shown)
    sources = [slot for slot, owner in enumerate(shown.batch.main.tokens.input[0].tolist()) if owner in (1, 2)]
    steps = steps_of(explorer.sets[0], shown.trace, "text", "", sources)
    assert [step.text for step in steps] == [text for _, text in shown.trace.predicted_tokens("text")]
    for step in steps:
        torch.testing.assert_close(step.weights, shown.trace.main.rollout()[step.slot, sources])


@pytest.mark.parametrize("count", [1, 12, 42, 43, 256])
def test_tokens_do_not_overlap_and_stay_inside(count):
    boxes, bottom = grid_of_boxes(count)
    assert len({(round(box.x), round(box.y)) for box in boxes}) == count
    assert all(box.x >= 0 and box.x + box.width <= 880 and box.y + box.height <= bottom for box in boxes)


@pytest.mark.parametrize("steps", [0, 1, 40])
def test_the_times_of_an_animation_increase(steps):
    """The times of an animation never decrease, and its last time is 100 %."""
    assert [edge for edges in PARTS.values() for edge in edges] == sorted(
        edge for edges in PARTS.values() for edge in edges
    )
    for text in keyframes(steps):
        if text.startswith("@keyframes"):
            times = [float(part.rsplit("}", 1)[-1].rsplit("{", 1)[-1]) for part in text.split("%")[:-1]]
            assert times == sorted(times) and times[-1] == 100
