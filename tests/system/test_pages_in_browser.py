"""Pages of `chopmix inspect` and of runs in a browser. Needs Chromium, from PATH or from CHOPMIX_CHROMIUM."""

from __future__ import annotations

import itertools
import os
import shutil
import time

import numpy as np
import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.inspection import write_page
from chopmix.experiment.shown_sample import Choice, trained
from test_new import KINDS
from test_tracing import RUNS
from untrained import untrained

pytestmark = pytest.mark.system
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get("CHOPMIX_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser, file, width=1280, scheme="light", wait="window.explorer"):
    """An open page, the events that it reported or requested, and the seconds of loading it."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page, events = context.new_page(), []
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    page.on("request", lambda request: events.append(request.url) if request.url.startswith("http") else None)
    started = time.monotonic()
    page.goto(f"file://{file}")
    page.wait_for_function(wait)
    return page, events, time.monotonic() - started


def shown_weights(page, number):
    """The weights that the page shows at the tokens of a set."""
    return np.array([
        float(cell) for cell in page.evaluate(
            "number => explorer.cells[number].map(cell => cell.dataset.weight)", number
        )
    ])  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_token_shows_the_weights_of_the_trace(browser, name, tmp_path, monkeypatch):
    """Each layer and head, of the first, a middle and the last token: within 1/255 of the row's maximum."""
    monkeypatch.chdir(tmp_path)
    inputs, tasks, model = RUNS[name]
    shown = trained(untrained(inputs, tasks, {"depth": 2, **model}), Choice())
    write_page(shown, tmp_path / "page.html")
    page, events, seconds = opened(browser, tmp_path / "page.html")
    assert seconds < 2
    for number, core in enumerate(shown.trace.cores.values()):
        count = page.evaluate("number => explorer.cells[number].length", number)
        for layer, weights in enumerate(core.attention, start=1):
            for head in range(len(weights) + 1):
                for token in {0, count // 2, count - 1}:
                    page.evaluate("kind => { explorer.reads = true; explorer.choose(kind, 1) }", "attention")
                    page.locator(".token").nth(place(page, number, token)).click()
                    page.evaluate("([layer, head]) => { explorer.choose('attention', layer); explorer.head = head; "
                                  "explorer.update() }", [layer, head])  # fmt: skip
                    row = (weights.mean(0) if head == 0 else weights[head - 1])[token].numpy()
                    assert abs(shown_weights(page, number) - row).max() <= row.max() / 255 + 1e-6
    assert events == []


def place(page, number, token):
    """The position of a token among all tokens of the page."""
    return page.evaluate(
        "([number, token]) => [...document.querySelectorAll('.token')].indexOf(explorer.cells[number][token])",
        [number, token],
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_page_can_be_used_by_keys_in_every_width_and_colour_scheme(browser, width, scheme, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs, tasks, model = RUNS["language"]
    shown = trained(untrained(inputs, tasks, {"depth": 2, **model}), Choice())
    write_page(shown, tmp_path / "page.html")
    page, events, _ = opened(browser, tmp_path / "page.html", width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 29)")
    state = "[explorer.query[1], explorer.current.layer, explorer.head, explorer.reads]"
    slot, layer, head, reads = page.evaluate(state)
    page.locator(".token[aria-pressed=true]").focus()
    for key, expected in (
        ("ArrowRight", [slot + 1, layer, head, reads]), ("ArrowLeft", [slot, layer, head, reads]),
        ("ArrowUp", [slot, 2, head, reads]), ("h", [slot, 2, 1, reads]), ("ArrowDown", [slot, 1, 1, reads]),
        ("d", [slot, 1, 1, False]),
    ):  # fmt: skip
        page.keyboard.press(key)
        assert page.evaluate(state) == expected
    column = shown.trace.main.attention[0][0][:, slot].numpy()
    rows = shown.trace.main.attention[0][0].numpy().max(1)
    assert (abs(shown_weights(page, 0) - column) <= rows / 255 + 1e-6).all()
    assert "is read most by" in page.locator(".status").text_content()
    page.locator("select").select_option("reachable")
    assert page.locator(".status").text_content() and events == []


TEXTS = """() => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), boxes = [];
    while (texts.nextNode()) {
        const text = texts.currentNode, range = document.createRange();
        if (!text.textContent.trim() || !text.parentElement.checkVisibility({visibilityProperty: true})) continue;
        range.selectNodeContents(text);
        for (const box of range.getClientRects()) {
            let {left, top, right, bottom} = box;
            for (let outer = text.parentElement; outer; outer = outer.parentElement) {
                if (getComputedStyle(outer).overflowX === "visible") continue;
                const cut = outer.getBoundingClientRect();
                left = Math.max(left, cut.left), right = Math.min(right, cut.right);
                top = Math.max(top, cut.top), bottom = Math.min(bottom, cut.bottom);
            }
            if (right > left && bottom > top) boxes.push([text.textContent.trim(), left, top, right, bottom]);
        }
    }
    return boxes;
}"""
"""Returns the boxes of the visible texts of a page: text, left, top, right, bottom, in pixels."""
OVER = 0.35
"""The share of the height of the lower of two texts that both may cover; two lines of a paragraph cover 0.2."""


def covered(boxes):
    """The pairs of texts of which one covers the other."""
    boxes, pairs = sorted(boxes, key=lambda box: box[2]), []
    for number, (text, left, top, right, bottom) in enumerate(boxes):
        for other, other_left, other_top, other_right, other_bottom in boxes[number + 1 :]:
            if other_top >= bottom:
                break
            height = min(bottom, other_bottom) - max(top, other_top)
            width = min(right, other_right) - max(left, other_left)
            if width > 1 and height > OVER * min(bottom - top, other_bottom - other_top):
                pairs.append((text, other))
    return pairs


REGRESSION = {
    "data": {"dataset": "untrained:Everything"},
    "inputs": {"wave": {"use": "sensor", "rate": 100, "channels": 2, "window": 4},
               "image": {"use": "image", "size": 8, "patch_size": 4, "channels": 1}},
    "tasks": {"value": {"use": "regression", "target": "value"}},
    "model": {"width": 32, "depth": 2, "heads": 2, "context": 32},
    "training": {"steps": 20, "samples_per_step": 4},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["table", "forecast", "regression", "sounds", "text"])
def test_pages_of_runs_fit_every_window(browser, kind, tmp_path, monkeypatch, reports):
    """The page and the report of a run, and the page of `inspect`: no scroll bar, and no text covers another text."""
    monkeypatch.chdir(tmp_path)
    if kind == "regression":
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(REGRESSION))
    else:
        make, words, *_ = KINDS[kind]
        make(tmp_path)
        assert main(["new", *words, "--output", "x.yaml"]) == 0
    trust = ["--trust", "untrained"]
    assert main(["train", "x.yaml", "training.steps=20", "out=run", *trust]) == 0
    assert main(["inspect", "run", *trust]) == 0
    pages = sorted((tmp_path / "run").rglob("*.html"))
    assert {"index", "inspect"} <= {page.stem for page in pages}
    for file in pages:
        for width, scheme in itertools.product((1280, 400), ("light", "dark")):
            page, events, _ = opened(browser, file, width, scheme, wait="document.readyState == 'complete'")
            for _ in range(2):
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                texts = page.evaluate(TEXTS)
                assert len(texts) > 10 and covered(texts) == []
                page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
            assert events == []
            page.close()


def test_texts_that_cover_texts_are_detected(browser, tmp_path):
    (tmp_path / "page.html").write_text("<p>first</p><p style='margin-top: -2em'>second</p><p>third</p>")
    page, *_ = opened(browser, tmp_path / "page.html", wait="true")
    assert covered(page.evaluate(TEXTS)) == [("first", "second")]
