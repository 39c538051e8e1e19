"""The cells of pages contain pictures that can be enlarged, players, drawn scores, and links that save a file."""

from __future__ import annotations

import base64
import re

import pytest
import torch
from chopmix.inference.pages import Cell, cell, cell_html
from chopmix.tokenizers.score import ScoreChopper, ScoreVocabulary


def html_of(entry: Cell) -> str:
    return cell_html(entry, "pixels")


def test_a_picture_can_be_enlarged_with_mouse_and_keyboard_and_saved():
    text = html_of(Cell("a 'dog' <1>", ".png", b"content"))
    assert (
        "<input type=checkbox aria-label='enlarge a &#x27;dog&#x27; &lt;1&gt;'>" in text
        and "<img class='pixels'" in text
    )
    assert "download='a-dog-1.png'" in text and "<1>" not in text
    saved = re.search(r"download='[^']+' href='data:image/png;base64,([^']+)'", text)[1]
    assert base64.b64decode(saved) == b"content"


@pytest.mark.parametrize("ending, player", [(".wav", True), (".mp3", True), (".mid", False), (".csv", False)])
def test_other_files_can_be_saved(ending, player):
    text = html_of(Cell("generated", ending, b"content"))
    assert ("<audio" in text) == player and f"download='generated{ending}'" in text


def test_a_caption_alone_is_text():
    assert html_of(Cell("<b>")) == "<figcaption>&lt;b&gt;</figcaption>"


def test_the_notes_of_a_score_are_drawn():
    chopper = ScoreChopper(vocabulary=ScoreVocabulary(voices=2, lowest=55, highest=80))
    entry = cell(chopper, "true", torch.tensor([[72, 60], [72, 59], [-1, 60]]))
    assert entry.content and entry.drawing.startswith("data:image/png")
    assert html_of(entry).count("<img") == 1 and "enlarge true" in html_of(entry)
