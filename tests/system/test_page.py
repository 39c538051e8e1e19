"""The page of `chopmix inspect` in a browser. Needs Chromium, from PATH or named by CHOPMIX_CHROMIUM."""

from __future__ import annotations

import os
import shutil
import time

import numpy as np
import pytest
from chopmix.experiment.inspection import write_page
from chopmix.experiment.shown import Choice, trained
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


def opened(browser, file, width=1280, scheme="light"):
    """An open page, and everything that it reported or asked for."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page, events = context.new_page(), []
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    page.on("request", lambda request: events.append(request.url) if request.url.startswith("http") else None)
    started = time.monotonic()
    page.goto(f"file://{file}")
    page.wait_for_function("window.explorer")
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
def test_keys_direction_and_every_width_and_scheme(browser, width, scheme, tmp_path, monkeypatch):
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
