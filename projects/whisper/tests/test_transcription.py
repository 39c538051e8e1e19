"""Transcription equals OpenAI's code: rules, beam search, sampling, fallback, windows, segments.

The rules are implemented here again in a simple way and compared by hypothesis. If OpenAI's package is installed (`pip
install openai-whisper`, or its repository on PYTHONPATH), complete files are compared with its results."""

from __future__ import annotations

import importlib
import json
import math
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from chopmix.experiment.interchange.import_run import import_directory
from chopmix.experiment.run import Run, load_run
from chopmix.models.generation.session import Session
from chopmix.projects.whisper.decoding import (
    Candidate,
    Decoding,
    Protocol,
    Rules,
    compression,
    likeliest,
    sample_texts,
    search_texts,
)
from chopmix.projects.whisper.transcribing import as_srt, as_vtt, clock, transcribe
from chopmix.projects.whisper.transcription import Segment, Transcriber, Transcribing
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

NEVER = -math.inf

# ------------------------------------------------------------------------------------------------------ allowed tokens


def protocol(**changes) -> Protocol:
    """Returns a protocol with these ids: 0 to 9 are words, 10 is the end, 11 to 17 are special, 20 and above are
    timestamps."""
    ids = {
        "start": 11,
        "end": 10,
        "transcribe": 12,
        "translate": 13,
        "previous": 14,
        "no_speech": 15,
        "no_timestamps": 16,
        "timestamps": 20,
        "languages": {"en": 17},
        "suppressed": [3],
        "suppressed_first": [9, 10],
        "latest_start": 5,
    }
    return Protocol(**ids | changes)


def may_follow(id: int, text: Sequence[int], p: Protocol, timestamps: bool) -> bool:
    """Returns whether an id may follow a text, without the comparison of timestamps with words."""
    times = [token for token in text if token >= p.timestamps]
    if id in p.suppressed or (not text and id in p.suppressed_first):
        return False
    if not timestamps:
        return True
    if id == p.no_timestamps:
        return False
    is_time = id >= p.timestamps
    if not text:
        return is_time and (p.latest_start is None or id - p.timestamps <= p.latest_start)
    trailing = next((n for n, token in enumerate(reversed(text)) if token < p.timestamps), len(text))
    opened = trailing >= 2 or trailing == len(text) == 1
    closed = trailing == 1 and not opened
    if is_time:
        return not opened and all(id >= last if closed else id > last for last in times[-1:])
    return not closed or id >= p.end


def plainly_allowed(scores: Sequence[float], text: Sequence[int], p: Protocol, timestamps: bool) -> list[float]:
    """Returns the scores with minus infinity for ids that must not follow."""
    masked = [score if may_follow(id, text, p, timestamps) else NEVER for id, score in enumerate(scores)]
    times = sum(math.exp(score) for score in masked[p.timestamps :])
    if timestamps and times > max(map(math.exp, masked[: p.timestamps])):
        masked[: p.timestamps] = [NEVER] * p.timestamps
    return masked


IDS = 28
_scores = st.lists(st.integers(-400, 400).map(lambda n: n / 100), min_size=IDS, max_size=IDS)
_text = st.lists(st.sampled_from([0, 1, 3, 9, 10, 16, 17, *range(20, IDS)]), max_size=6)


@settings(deadline=None)
@given(_scores, _text, st.booleans(), st.sampled_from([None, 0, 5, 50]))
def test_allowed_ids_equal_the_simple_rules(scores, text, timestamps, latest):
    p = protocol(latest_start=latest)
    masked = Rules(p, timestamps)(torch.tensor([scores, scores]), [text, text])
    expected = plainly_allowed(scores, text, p, timestamps)
    words, times = expected[: p.timestamps], sum(math.exp(score) for score in scores[p.timestamps :])
    if abs(times - math.exp(max(words))) > 1e-5:  # without ties, which depend on rounding
        assert masked[0].tolist() == masked[1].tolist() == pytest.approx(expected)


def test_timestamps_come_in_pairs_and_never_decrease():
    likely = torch.cat([torch.full((1, 20), 5.0), torch.zeros(1, 20)], dim=1)  # words are likelier than timestamps

    def allowed(*text: int, timestamps: bool = True) -> set[int]:
        scores = Rules(protocol(), timestamps)(likely.clone(), [list(text)])[0]
        return {id for id, score in enumerate(scores.tolist()) if score > NEVER}

    assert allowed() == set(range(20, 26))  # the first id is a timestamp, at most the fifth
    assert not {id for id in allowed(22) if id >= 20} and 3 not in allowed(22)  # words follow a timestamp
    assert min(id for id in allowed(22, 1) if id >= 20) == 23  # segments have a positive length
    after = allowed(22, 1, 25)
    assert min(id for id in after if id >= 20) == 25 and min(after) == 10  # the second timestamp or the end
    assert 25 not in allowed(22, 1, 25, 25)
    assert {3, 9, 10}.isdisjoint(allowed(timestamps=False)) and {1, 16, 20} < allowed(timestamps=False)
    assert {9, 10} < allowed(1, timestamps=False)


# ----------------------------------------------------------------------------------------------- search and sampling


class Table(Session):
    """A substitute for a session. The scores of the next id depend on a seed and the text."""

    def __init__(self, seed: int, ending: float = 0.0, ids: int = IDS):
        self.seed, self.ending, self.ids, self.rows, self.device = seed, ending, ids, [()], torch.device("cpu")

    def after(self, text: Sequence[int]) -> np.ndarray:
        scores = np.random.default_rng([self.seed, *text]).normal(size=self.ids) * 2
        scores[10] += self.ending
        return scores.astype(np.float32)

    def scores(self) -> torch.Tensor:
        return torch.tensor(np.stack([self.after(row) for row in self.rows]))

    def expand(self, beams: int) -> None:
        self.rows = [row for row in self.rows for _ in range(beams)]

    def inherit(self, parents: torch.Tensor) -> None:
        assert all(parents[parent] == parent for parent in parents)  # otherwise the caches would be wrong
        self.rows = [self.rows[parent] for parent in parents]

    def append(self, ids: torch.Tensor) -> None:
        self.rows = [(*row, id) for row, id in zip(self.rows, ids.tolist(), strict=True)]


def logs_of(table: Table, text: Sequence[int], p: Protocol, timestamps: bool) -> list[float]:
    """Returns the log-probabilities of the next id."""
    allowed = plainly_allowed(table.after(text).tolist(), text, p, timestamps)
    total = math.log(sum(map(math.exp, allowed)))
    return [score - total for score in allowed]


def plainly_searched(table: Table, p: Protocol, timestamps: bool, most: int, beams: int, patience: float):
    """Beam search of OpenAI's code, text by text. Returns the finished texts, then unfinished texts up to the number of
    beams, with their log-probabilities."""
    running: dict[tuple, float] = {(): 0.0}
    finished: dict[tuple, float] = {}
    for _ in range(most):
        candidates = {}
        for text, log in running.items():
            following = logs_of(table, text, p, timestamps)
            best = sorted(range(len(following)), key=lambda id: -following[id])[: beams + 1]
            candidates |= {(*text, id): log + following[id] for id in best}
        running, new = {}, {}
        for text in sorted(candidates, key=lambda text: -candidates[text]):
            if len(running) < beams:
                (new if text[-1] == p.end else running)[text] = candidates[text]
        for text, log in new.items():
            if log > NEVER and len(finished) < round(beams * patience):
                finished[text[:-1]] = log
        if len(finished) >= round(beams * patience):
            break
    for text in sorted(running, key=lambda text: -running[text]):
        if len(finished) < beams:
            finished[text] = running[text]
    return [Candidate(list(text), log) for text, log in finished.items()]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6), st.floats(-2, 6), st.integers(1, 6), st.sampled_from([0.3, 0.5, 1.0, 1.5, 2.0]),
    st.integers(1, 7), st.booleans(),
)  # fmt: skip
def test_beam_search_equals_openai(seed, ending, beams, patience, most, timestamps):
    if round(beams * patience) < 1:
        return
    table, p = Table(seed, ending), protocol()
    texts = search_texts(table, Rules(p, timestamps), most, beams=beams, patience=patience)
    expected = plainly_searched(Table(seed, ending), p, timestamps, most, beams, patience)
    assert [text.ids for text in texts] == [text.ids for text in expected]
    assert [text.log for text in texts] == pytest.approx([text.log for text in expected], abs=1e-4)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.floats(-50, 0)), min_size=1, max_size=6), st.none() | st.floats(0, 1))
def test_texts_are_ranked_by_their_length(drawn_texts, penalty):
    candidates = [Candidate(list(range(length)), log) for length, log in drawn_texts]

    def score(length: int, log: float) -> float:
        return log / max(length, 1) if penalty is None else log * (6 / (5 + length)) ** penalty

    best = max(score(*text) for text in drawn_texts)
    best_candidate = likeliest(candidates, penalty)
    assert score(len(best_candidate.ids), best_candidate.log) == pytest.approx(best) and best_candidate in candidates
    assert likeliest([candidates[0], Candidate([*candidates[0].ids], candidates[0].log)], penalty) is candidates[0]


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(-2, 6),
    st.integers(1, 5),
    st.sampled_from([0.2, 1.0]),
    st.integers(1, 7),
    st.booleans(),
)
def test_log_probabilities_of_sampled_texts_are_correct(seed, ending, count, temperature, most, timestamps):
    table, p, generator = Table(seed, ending), protocol(), torch.Generator().manual_seed(seed)
    texts = sample_texts(table, Rules(p, timestamps), most, temperature=temperature, count=count, generator=generator)
    assert len(texts) == count
    for text, log in texts:
        ids = [*text, p.end] if len(text) < most else text
        logs = [logs_of(table, ids[:n], p, timestamps)[id] for n, id in enumerate(ids)]
        assert log == pytest.approx(sum(logs), abs=1e-4) and min(logs) > NEVER and len(text) <= most


@pytest.mark.parametrize("seed", range(5))
def test_near_temperature_zero_every_text_is_the_greedy_one(seed):
    rules = Rules(protocol(), True)
    (greedy, *_) = search_texts(Table(seed, 2.0), rules, 6, beams=1)
    for text, log in sample_texts(Table(seed, 2.0), rules, 6, temperature=1e-6, count=3):
        assert text == greedy.ids and log == pytest.approx(greedy.log, abs=1e-4)


def test_texts_are_sampled_with_their_probability():
    """One of two words and the end. The frequency in 2,000 samples is within four standard deviations."""

    class Two(Table):
        def after(self, text):
            scores = np.full(self.ids, -np.inf, np.float32)
            scores[[1, 2] if not text else [10]] = [math.log(0.3), math.log(0.7)] if not text else [0.0]
            return scores

    texts = sample_texts(Two(0), Rules(protocol(), False), 3, temperature=1.0, count=2000, generator=torch.Generator())
    share = sum(text.ids == [1] for text in texts) / 2000
    assert {tuple(text.ids) for text in texts} == {(1,), (2,)} and abs(share - 0.3) < 4 * (0.21 / 2000) ** 0.5


def test_invalid_settings_are_refused():
    with pytest.raises(ValueError, match="28 beams are too many for a vocabulary of 28 ids"):
        search_texts(Table(0), Rules(protocol(), True), 3, beams=28)
    for options, message in [
        ({"beams": 0}, "beams and best_of must be at least 1, not 0 and 5"),
        ({"best_of": 0}, "beams and best_of must be at least 1, not 5 and 0"),
        ({"patience": 0.05}, "patience is 0.05; beams . patience, rounded, must be at least 1"),
        ({"patience": math.nan}, "patience is nan"),
        ({"length_penalty": 1.5}, "length_penalty is 1.5; it must be between 0 and 1"),
        ({"beams": 100_000}, "beams and best_of must be at most 1,000, not 100,000 and 5"),
        ({"temperatures": (0.0, 1e-320)}, "each 0 or from 1e-6 to 1e6"),
        ({"temperatures": ()}, "temperatures must be at least one number"),
        ({"temperatures": (0.0, math.nan)}, "temperatures must be at least one number"),
    ]:
        with pytest.raises(ValueError, match=message):
            Transcribing(**options)


# --------------------------------------------------------------------------------------- files with scripted windows


class Scripted(Transcriber):
    """Returns the decodings of a script, one for each window and temperature."""

    def __init__(self, script: Sequence[Decoding], context: int = 40, **changes):
        self.script, self.calls = list(script), []
        self.protocol, self.frames, self.hop = protocol(**changes), 3000, 0.01
        self.decode = lambda ids: "".join(f" {id}" for id in ids)
        self.encode = lambda text: [int(word) for word in text.split()]
        self.model = SimpleNamespace(context=context, parameters=lambda: iter([torch.zeros(1)]))
        self.plan, self.names = lambda window, ids: ids, {"input": "text"}

    def decode_at(self, batch, source, temperature, how, generator):
        self.calls.append((list(batch), temperature))
        return self.script.pop(0)._replace(temperature=temperature), source

    def detect(self, spectrogram):
        return "en", {"en": 1.0}


def decoding(*ids: int, log: float = -0.1, no_speech: float = 0.0, compression: float = 1.0) -> Decoding:
    return Decoding(list(ids), log, no_speech, 0.0, compression)


def run_script(script: Sequence[Decoding], frames: int, context: int = 40, **options) -> tuple[list[Segment], Scripted]:
    transcriber = Scripted(script, context)
    return list(transcriber.transcribe(torch.zeros(4, frames + 3000), frames, Transcribing(**options))), transcriber


def test_the_next_window_begins_at_the_last_timestamp():
    script = [decoding(20, 1, 70, 70, 2, 2, 520, 520), decoding(20, 4, 45)]
    segments, transcriber = run_script(script, 2000)
    assert [(s.start, s.end, s.text) for s in segments] == [(0.0, 1.0, "1"), (1.0, 10.0, "2 2"), (10.0, 10.5, "4")]
    assert transcriber.script == []  # the second window begins at 10 s and is completed by its last timestamp
    assert transcriber.calls[1][0][:2] == [14, 20]  # the preceding text is its prompt


def test_text_that_is_decoded_again_is_not_in_the_next_prompt():
    """Text after the last pair of timestamps is decoded again and not part of the prompt, as in OpenAI's code and in
    transformers."""
    script = [decoding(20, 1, 70, 70, 2, 2), decoding(20, 2, 2, 60, 60, 5), decoding(20, 5, 45)]
    _, transcriber = run_script(script, 3000)
    assert transcriber.calls[1][0] == [14, 20, 1, 70, 11, 17, 12]
    assert transcriber.calls[2][0] == [14, 20, 1, 70, 20, 2, 2, 60, 11, 17, 12]


def test_a_window_without_pairs_is_one_segment_up_to_its_last_timestamp():
    assert [(s.start, s.end) for s in run_script([decoding(20, 1, 2)], 1234)[0]] == [(0.0, 12.34)]
    assert [(s.start, s.end) for s in run_script([decoding(20, 1, 2, 70)], 1234)[0]] == [(0.0, 1.0)]
    assert [(s.start, s.end) for s in run_script([decoding(1, 2)], 1234, timestamps=False)[0]] == [(0.0, 12.34)]
    assert [s.ids for s in run_script([decoding(20, 1, 70, 70, 2, 120)], 1234)[0]] == [[20, 1, 70], [70, 2, 120]]


def test_no_segment_passes_the_end_of_its_file():
    segments, _ = run_script([decoding(20, 1, 520, 520, 2, 1520)], 1234)  # the segment up to 30 s ends at 12.34 s
    assert [(s.start, s.end) for s in segments] == [(0.0, 10.0), (10.0, 12.34)]
    segments, _ = run_script([decoding(20, 1, 1220, 1220, 2, 1320, 1320, 3, 1520)], 2400)
    assert [(s.start, s.end, s.text) for s in segments] == [(0.0, 24.0, "1")]  # the others begin after the end
    segments, _ = run_script([decoding(20, 1, 1520, 1520), decoding(20, 1, 1520)], 4300)
    assert [(s.start, s.end) for s in segments] == [(0.0, 30.0), (30.0, 43.0)]


@st.composite
def texts(draw) -> list[int]:
    """Draws a text that the rules allow: words between timestamps that never decrease."""
    ids, time = [], draw(st.integers(0, 50))
    for _ in range(draw(st.integers(0, 4))):
        end = draw(st.integers(time + 1, 1501))
        ids += [20 + time, *draw(st.lists(st.integers(0, 9), min_size=1, max_size=3)), 20 + end]
        time = draw(st.integers(end, 1501))
        if time > 1500:
            break
    return ids + draw(st.sampled_from([[], [20 + min(time, 1500)], [20 + min(time, 1500), 5]]))


@settings(deadline=None)
@given(st.lists(texts(), min_size=1, max_size=30), st.integers(0, 7000), st.booleans())
def test_segments_are_in_order_within_their_file(script, frames, timestamps):
    transcriber = Scripted([])
    transcriber.decode_at = lambda *_: (decoding(*(script.pop() if len(script) > 1 else [])), None)
    segments = list(transcriber.transcribe(torch.zeros(4, frames + 3000), frames, Transcribing(timestamps=timestamps)))
    assert all(0 <= s.start < s.end <= frames / 100 and s.text for s in segments)
    assert not timestamps or all(first.start <= second.start for first, second in pairwise(segments))


def test_segments_without_text_or_length_are_dropped_and_not_in_the_prompt():
    transcriber = Scripted([decoding(20, 1, 70, 70, 70, 70, 2, 120, 120), decoding(20, 1)])
    transcriber.decode = lambda ids: " " if 2 in ids else "".join(f" {id}" for id in ids)
    segments = list(transcriber.transcribe(torch.zeros(4, 6000), 3000, Transcribing()))
    assert [(s.start, s.text) for s in segments] == [(0.0, "1"), (2.0, "1")]
    assert transcriber.calls[1][0] == [14, 20, 1, 70, 11, 17, 12]


def test_a_repetitive_window_is_decoded_again_at_a_higher_temperature():
    script = [decoding(20, 1, 1, 1, 60, compression=3.0), decoding(20, 1, 60, log=-2.0), decoding(20, 2, 60)]
    segments, transcriber = run_script(script, 1000)
    assert [temperature for _, temperature in transcriber.calls] == [0.0, 0.2, 0.4]
    assert [s.text for s in segments] == ["2"]
    assert len(run_script([decoding(20, 1, 60, compression=9.0)], 1000, compression=None)[1].calls) == 1
    assert len(run_script([decoding(20, 1, 60, log=-9.0)], 1000, confidence=None)[1].calls) == 1
    assert len(run_script([decoding(20, 1, 60, compression=2.4, log=-1.0)], 1000)[1].calls) == 1  # at both limits


def test_silence_gives_no_text():
    segments, transcriber = run_script([decoding(20, 1, 60, log=-2.0, no_speech=0.9, compression=9.0)], 1000)
    assert segments == [] and len(transcriber.calls) == 1  # no retry, although the text is repetitive
    segments, _ = run_script([decoding(20, 1, 60, log=-0.2, no_speech=0.9)], 1000)
    assert [s.text for s in segments] == ["1"]  # the text is likely
    assert run_script([decoding(20, 1, 60, log=-1.0, no_speech=0.9)], 1000)[0] == []  # not above the limit
    assert run_script([decoding(20, 1, 60, log=-0.2, no_speech=0.9)], 1000, confidence=None)[0] == []
    segments, transcriber = run_script([decoding(20, 1, 60, log=-2.0, no_speech=0.9)] * 6, 1000, silence=None)
    assert [s.text for s in segments] == ["1"] and len(transcriber.calls) == 6


def test_after_a_high_temperature_the_next_window_has_no_prompt():
    script = [decoding(20, 1, 60, 60, log=-3.0)] * 6 + [decoding(20, 2, 45)]
    _, transcriber = run_script(script, 1500)
    assert transcriber.calls[-1][0][0] == 11  # no <|startofprev|>
    _, transcriber = run_script([decoding(20, 1, 60, 60), decoding(20, 2, 45)], 1500, follow=False)
    assert transcriber.calls[-1][0][0] == 11
    script = [decoding(20, 1, 60, 60, log=-3.0)] * 2 + [decoding(20, 1, 60, 60), decoding(20, 2, 45)]
    _, transcriber = run_script(script, 1500)
    assert transcriber.calls[-1][0] == [14, 20, 1, 60, 11, 17, 12]  # 0.4 is not high


def test_the_initial_prompt():
    script = [decoding(20, 1, 60, 60), decoding(20, 2, 60, 60), decoding(20, 2, 45)]
    prompts = [ids for ids, _ in run_script(script, 1500, initial_prompt=" 7 8 ")[1].calls]
    assert prompts == [[14, 7, 8, *before, 11, 17, 12] for before in ([], [20, 1, 60], [20, 1, 60, 20, 2, 60])]
    prompts = [ids for ids, _ in run_script(script, 1500, initial_prompt="7 8", follow=False)[1].calls]
    assert prompts == [[14, 7, 8, 11, 17, 12], [11, 17, 12], [11, 17, 12]]
    carried = {"initial_prompt": "7 8", "carry_initial_prompt": True}
    prompts = [ids for ids, _ in run_script(script, 1500, **carried, follow=False)[1].calls]
    assert prompts == [[14, 7, 8, 11, 17, 12]] * 3
    prompts = [ids for ids, _ in run_script(script, 1500, context=12, **carried)[1].calls]  # room for five
    assert prompts == [[14, 7, 8, *before, 11, 17, 12] for before in ([], [20, 1, 60], [20, 2, 60])]
    prompts = [ids for ids, _ in run_script(script, 1500, context=12, initial_prompt="7 8")[1].calls]
    assert prompts[2] == [14, 1, 60, 20, 2, 60, 11, 17, 12]  # without carry_initial_prompt it is dropped
    prompts = [
        ids for ids, _ in run_script(script, 1500, context=12, **carried | {"initial_prompt": "1 2 4 5 6 7"})[1].calls
    ]
    assert prompts == [[14, 2, 4, 5, 6, 7, 11, 17, 12]] * 3


def test_white_space_around_a_text_does_not_change_its_compression_ratio():
    text = "No, no, no. No, no, no. No, no, no."
    assert compression(f" {text} \n") == compression(text) and compression("  ") == 0
    assert Scripted([]).decode([1]) == " 1"


def test_a_silent_file_has_a_language():
    silent = [decoding(20, 1, log=-3.0, no_speech=0.9)]
    transcript = Scripted(silent).transcribe(torch.zeros(4, 4000), 1000, Transcribing())
    assert (transcript.language, list(transcript)) == ("en", [])
    english = Scripted(silent, languages={})
    english.detect = None
    transcript = english.transcribe(torch.zeros(4, 4000), 1000, Transcribing())
    assert (transcript.language, list(transcript), english.calls[0][0]) == ("en", [], [11])
    with pytest.raises(ValueError, match="this model supports only English"):
        english.transcribe(torch.zeros(4, 4000), 1000, Transcribing(translate=True))


def test_subtitles():
    segments, _ = run_script([decoding(20, 1, 70, 70, 2, 120)], 3000)
    assert as_srt(segments) == "1\n00:00:00,000 --> 00:00:01,000\n1\n\n2\n00:00:01,000 --> 00:00:02,000\n2\n"
    assert as_vtt(segments).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n1\n")
    assert clock(3723.5, ",") == "01:02:03,500"


# ------------------------------------------------------------------------------------- comparison with OpenAI's package

SPECIALS = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|translate|>", "<|transcribe|>",
            "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]  # fmt: skip
TIMES = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]
NAMES = (
    ("model.", ""),
    (".layers.", ".blocks."),
    ("encoder_attn_layer_norm", "cross_attn_ln"),
    ("self_attn_layer_norm", "attn_ln"),
    ("final_layer_norm", "mlp_ln"),
    ("encoder_attn.", "cross_attn."),
    ("self_attn.", "attn."),
    ("q_proj", "query"),
    ("k_proj", "key"),
    ("v_proj", "value"),
    ("out_proj", "out"),
    ("fc1", "mlp.0"),
    ("fc2", "mlp.2"),
    ("embed_tokens", "token_embedding"),
    ("embed_positions.weight", "positional_embedding"),
    ("encoder.layer_norm", "encoder.ln_post"),
    ("decoder.layer_norm", "decoder.ln"),
)
"""The names of the parts of a Whisper in transformers and in OpenAI's code."""


def openai_model(folder: Path) -> torch.nn.Module:
    """Returns OpenAI's model with the weights of a Hugging Face directory."""
    import whisper

    config, state = json.loads((folder / "config.json").read_text()), {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for theirs, openai in NAMES:
            name = name.replace(theirs, openai)
        state[name] = tensor.float()
    state.pop("proj_out.weight", None)
    model = whisper.model.Whisper(
        whisper.model.ModelDimensions(
            n_mels=config["num_mel_bins"],
            n_audio_ctx=config["max_source_positions"],
            n_audio_state=config["d_model"],
            n_audio_head=config["encoder_attention_heads"],
            n_audio_layer=config["encoder_layers"],
            n_vocab=config["vocab_size"],
            n_text_ctx=config["max_target_positions"],
            n_text_state=config["d_model"],
            n_text_head=config["decoder_attention_heads"],
            n_text_layer=config["decoder_layers"],
        )
    )
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"alignment_heads"}
    return model.eval()


def assert_same(run: Run, model: torch.nn.Module, clip: np.ndarray, ours: Transcribing, **theirs: Any) -> list[Segment]:
    """Returns the segments of a file and checks that they equal OpenAI's segments up to the end of the file. Both use
    the same random seed."""
    import whisper

    torch.manual_seed(ours.seed)
    expected = whisper.transcribe(model, clip, fp16=False, **theirs)
    seconds = len(clip) // 160 / 100
    references = [part for part in expected["segments"] if part["text"].strip() and part["start"] < seconds]
    transcript = transcribe(run, (clip, 16_000), ours)
    segments = list(transcript)
    assert transcript.language == expected["language"]
    assert [segment.ids for segment in segments] == [part["tokens"] for part in references]
    assert [segment.raw for segment in segments] == [part["text"] for part in references]
    for segment, part in zip(segments, references):
        assert segment.start == pytest.approx(part["start"], abs=1e-6)
        assert segment.end == pytest.approx(min(part["end"], seconds), abs=1e-6)
        assert segment.decoding.log == pytest.approx(part["avg_logprob"], abs=5e-4)
        assert segment.decoding.no_speech == pytest.approx(part["no_speech_prob"], abs=5e-4)
        assert segment.decoding.compression == pytest.approx(part["compression_ratio"])
        assert segment.decoding.temperature == part["temperature"]
    return segments


def coder() -> Tokenizer:
    """Returns a byte-level BPE without merges, followed by Whisper's special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    tokenizer.add_tokens([AddedToken(name, special=False) for name in TIMES])
    return tokenizer


def random_directory(folder: Path, seed: int, ending: float, multilingual: bool) -> None:
    """Saves a randomly initialized Whisper with transformers. The embedding of the end token is multiplied by `ending`,
    and those of timestamps by 0.6, so that texts have different lengths."""
    torch.manual_seed(seed)
    tokenizer, scales = coder(), {"embed_tokens": 0.25, "embed_positions": 1.0, "norm": 0.1, "bias": 0.1}
    ids = {name: tokenizer.token_to_id(name) for name in (*SPECIALS, "\u0120")}
    end = ids["<|endoftext|>"]
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            vocab_size=tokenizer.get_vocab_size(),
            d_model=32,
            encoder_layers=1,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            max_target_positions=40,
            eos_token_id=end,
            bos_token_id=end,
            pad_token_id=end,
            decoder_start_token_id=end + 1,
            suppress_tokens=None,
            begin_suppress_tokens=None,
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = next((scale for part, scale in scales.items() if part in name), 0.3)
            parameter.add_(torch.randn(parameter.shape) * (0 if "encoder.embed_positions" in name else scale))
        table = model.model.decoder.embed_tokens.weight
        table[end] *= ending
        table[len(ids) + 255 :] *= 0.6
    settings = model.generation_config
    settings.is_multilingual, settings.no_timestamps_token_id = multilingual, ids["<|notimestamps|>"]
    if multilingual:
        settings.lang_to_id = {name: ids[name] for name in ("<|en|>", "<|zh|>")}
        settings.task_to_id = {name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")}
    settings.suppress_tokens = SUPPRESSED
    settings.begin_suppress_tokens, settings.max_initial_timestamp_index = [ids["\u0120"], end], 50
    model.eval().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


SUPPRESSED = [3, 7, 258, 259]
"""Two letters and the languages, which OpenAI's code does not suppress."""


@pytest.fixture(params=[True, False], ids=["multilingual", "english"])
def openai(request, monkeypatch):
    """Patches OpenAI's package to use a small vocabulary. Returns whether its models are multilingual."""
    whisper = pytest.importorskip("whisper")
    import tiktoken
    from chopmix.tokenizers.encoding.byte_pairs import byte_letters

    letters = byte_letters()
    encoding = tiktoken.Encoding(
        "tiny", pat_str=r"[\s\S]", mergeable_ranks={bytes([letters[c]]): n for n, c in enumerate(sorted(letters))},
        special_tokens={name: 256 + number for number, name in enumerate([*SPECIALS, *TIMES])},
    )  # fmt: skip

    def get_tokenizer(multilingual, *, num_languages=99, language=None, task=None):
        options = {"language": language or "en", "task": task or "transcribe"} if multilingual else {}
        return whisper.tokenizer.Tokenizer(encoding=encoding, num_languages=2, **options)

    for module in ("whisper.decoding", "whisper.transcribe"):
        monkeypatch.setattr(importlib.import_module(module), "get_tokenizer", get_tokenizer)
    monkeypatch.setattr(whisper.model.Whisper, "is_multilingual", request.param)
    monkeypatch.setattr(whisper.model.Whisper, "num_languages", 2)
    return request.param


def tones(seconds: float, seed: int) -> np.ndarray:
    """Returns intermittent tones in noise, with silent parts."""
    random, time = np.random.default_rng(seed), np.arange(int(seconds * 16_000)) / 16_000
    waves = sum(
        np.sin(2 * np.pi * f * time) * (np.sin(2 * np.pi * time / p) > 0)
        for f, p in ((440, 0.5), (1200, 0.7), (3000, 1.1))
    )
    return (0.2 * waves * (np.sin(time / 5) > 0) + 0.02 * random.standard_normal(len(time))).astype(np.float32)


SURE = {"confidence": -3.0, "silence": 0.6}, {"logprob_threshold": -3.0, "no_speech_threshold": 0.6}
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "beams": ({"temperatures": (0.0,)}, {"temperature": 0.0, "beam_size": 5}),
    "greedy": ({"temperatures": (0.0,), "beams": 1}, {"temperature": 0.0}),
    "patient": (
        {"temperatures": (0.0,), "beams": 3, "patience": 2.0},
        {"temperature": 0.0, "beam_size": 3, "patience": 2.0},
    ),
    "impatient": (
        {"temperatures": (0.0,), "beams": 5, "patience": 0.5},
        {"temperature": 0.0, "beam_size": 5, "patience": 0.5},
    ),
    "penalty": (
        {"temperatures": (0.0,), "beams": 4, "length_penalty": 0.6},
        {"temperature": 0.0, "beam_size": 4, "length_penalty": 0.6},
    ),
    "fallback": ({"confidence": -1.8}, {"beam_size": 5, "best_of": 5, "logprob_threshold": -1.8}),
    "unlikely": ({"confidence": -0.5, "seed": 3}, {"beam_size": 5, "best_of": 5, "logprob_threshold": -0.5}),
    "drawn": ({"temperatures": (0.7,), "best_of": 2}, {"temperature": 0.7, "best_of": 2}),
    "no limits": (
        {"confidence": None, "silence": None, "compression": None},
        {"beam_size": 5, "logprob_threshold": None, "no_speech_threshold": None, "compression_ratio_threshold": None},
    ),
    "silent": (
        {"confidence": None, "silence": 1e-4},
        {"beam_size": 5, "logprob_threshold": None, "no_speech_threshold": 1e-4},
    ),
    "independent": (
        {"follow": False, "temperatures": (0.0,)},
        {"condition_on_previous_text": False, "temperature": 0.0, "beam_size": 5},
    ),
    "prompt": (
        {"initial_prompt": "chop mix ", "temperatures": (0.0,)},
        {"initial_prompt": "chop mix ", "temperature": 0.0, "beam_size": 5},
    ),
    "carried": (
        {"initial_prompt": "chop", "carry_initial_prompt": True, "temperatures": (0.0,)},
        {"initial_prompt": "chop", "carry_initial_prompt": True, "temperature": 0.0, "beam_size": 5},
    ),
}
"""Equal settings for chopmix and for OpenAI's code."""


@pytest.mark.filterwarnings("ignore:Performing inference on CPU", "ignore:__array_wrap__")
@pytest.mark.parametrize("ending", [0.6, 1.5])
@pytest.mark.parametrize("seed", range(2))
def test_complete_files_equal_openai(openai, tmp_path, ending, seed):
    random_directory(tmp_path / "theirs", seed, ending, openai)
    import_directory(tmp_path / "theirs", tmp_path / "run")
    run, model = load_run(tmp_path / "run", device="cpu"), openai_model(tmp_path / "theirs")
    segments = {
        way: assert_same(run, model, tones(47.4, seed), Transcribing(**ours), suppress_tokens=SUPPRESSED, **theirs)
        for way, (ours, theirs) in WAYS.items()
    }
    assert all(segments[way] for way in ("no limits", "independent")) and sum(map(len, segments.values())) > 20
    assert {segment.decoding.temperature for segment in segments["unlikely"]} - {0.0}
    shutil.rmtree(tmp_path)


@pytest.mark.filterwarnings("ignore:__array_wrap__")
@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("way", ["beams", "greedy", "patient", "penalty", "drawn"])
def test_single_windows_equal_openai(openai, tmp_path, way, timestamps):
    """With a prompt that is shortened to fit, and translation into English if the model is multilingual."""
    import whisper
    from chopmix.projects.whisper.transcribing import transcriber_of

    random_directory(tmp_path / "theirs", 5, 1.0, openai)
    import_directory(tmp_path / "theirs", tmp_path / "run")
    model = openai_model(tmp_path / "theirs")
    transcriber, chopper = transcriber_of(load_run(tmp_path / "run", device="cpu"))
    ours, theirs = WAYS[way]
    for seed, context in enumerate([[], [8, 9, 300, 5], [*range(100)]]):
        window = chopper.chop(chopper.decode((tones(30, seed), 16_000))).values[0]
        how = Transcribing(**ours, timestamps=timestamps, translate=openai)
        torch.manual_seed(how.seed)
        expected = whisper.decode(
            model,
            window,
            fp16=False,
            prompt=context,
            task="translate" if openai else "transcribe",
            language="zh" if openai else "en",
            without_timestamps=not timestamps,
            suppress_tokens=SUPPRESSED,
            **theirs,
        )
        result = transcriber.hear(window, context, "zh" if openai else "en", how)
        assert result.ids == expected.tokens and result.log == pytest.approx(expected.avg_logprob, abs=5e-4)
        assert result.no_speech == pytest.approx(expected.no_speech_prob, abs=5e-4)
        assert result.compression == pytest.approx(expected.compression_ratio)
