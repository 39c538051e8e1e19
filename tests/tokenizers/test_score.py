"""Scores as ids: every score comes back, from ids, from MIDI, and as whole steps alone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from chopmix.files.reading import DataError
from chopmix.inference.evaluators.samples import GeneratedSamples
from chopmix.models.batch import IGNORED
from chopmix.tasks.language_modeling import LanguageModeling
from chopmix.tokenizers.base import Role
from chopmix.tokenizers.media.files import read_sound
from chopmix.tokenizers.media.midi import SILENCE, notes_of
from chopmix.tokenizers.score import ScorePreprocessor, ScoreVocabulary, chord_of
from hypothesis import given
from hypothesis import strategies as st


@st.composite
def scores(draw, vocabulary):
    steps = draw(st.integers(1, 6))
    pitch = st.just(SILENCE) | st.integers(vocabulary.lowest, vocabulary.highest)
    rows = st.lists(pitch, min_size=vocabulary.voices, max_size=vocabulary.voices)
    return torch.tensor(draw(st.lists(rows, min_size=steps, max_size=steps)))


KINDS = st.builds(
    ScoreVocabulary, voices=st.integers(1, 4), lowest=st.just(48), highest=st.just(72), chords=st.booleans(),
    own=st.sampled_from([(), ("mask",)]),
)  # fmt: skip


@given(vocabulary=KINDS, data=st.data())
def test_every_score_comes_back(vocabulary, data):
    score = data.draw(scores(vocabulary))
    ids = vocabulary.encode(score)
    assert vocabulary.restore(ids).equal(score) and vocabulary.restore([*ids, vocabulary.end]).equal(score)
    assert len(ids) == len(score) * vocabulary.per_step and vocabulary.units(score) == score.numel()
    assert max(ids) < vocabulary.start
    if len(score) > 1:  # a last step that is cut is left out
        assert vocabulary.restore(ids[:-1]).equal(score[:-1])


@given(vocabulary=KINDS, data=st.data())
def test_what_is_allowed_is_what_scores_are(vocabulary, data):
    ids, rule = vocabulary.encode(data.draw(scores(vocabulary))), vocabulary.well_formed
    for place, id in enumerate([*ids, vocabulary.end]):
        allowed = rule.allowed(ids[:place], vocabulary.size)
        assert allowed[id] and allowed[vocabulary.end] == (place > 0 and place % vocabulary.per_step == 0)
        chords = range(vocabulary.first_chord, vocabulary.start)
        assert any(allowed[chord] for chord in chords) == (vocabulary.chords and place % vocabulary.per_step == 0)


def test_the_example_of_the_docstring():
    vocabulary = ScoreVocabulary(voices=2, lowest=60, highest=62)
    assert vocabulary.encode(torch.tensor([[62, 60], [62, -1]])) == [2, 0, 2, 3] and vocabulary.start == 4


def test_what_is_no_score_is_refused():
    vocabulary = ScoreVocabulary(voices=1, lowest=60, highest=62, chords=True)
    with pytest.raises(ValueError, match="pitch 63 is not from 60 to 62"):
        vocabulary.encode(torch.tensor([[63]]))
    with pytest.raises(ValueError, match="every step must be one "):
        vocabulary.restore([0, vocabulary.first_chord])
    chopper = ScorePreprocessor(voices=2).fit(tuple, Role())
    for wrong, told in (
        ([[60]], r"must have the shape \(steps, 2\) .* not \(1, 1\)"),
        ("x" and [["a", "b"]], "whole numbers"),
    ):
        with pytest.raises(ValueError, match=told):
            chopper.decode(wrong)


@pytest.mark.parametrize(
    ("step", "name"),
    [((60, 64, 67), 0), ((72, 67, 64, 60), 0), ((69, 60, 64), 12 + 9), ((60, 63, 66), 24), ((60, 64, 68), 36),
     ((60,), 0), ((-1, -1), 48), ((60, 61), 48)],
)  # fmt: skip
def test_chords_by_their_notes(step, name):
    assert chord_of(step) == name


@given(st.lists(st.sampled_from([SILENCE, 60, 61, 62]), min_size=1, max_size=12))
def test_notes_are_runs_of_a_pitch(voice):
    found = [SILENCE] * len(voice)
    for pitch, first, steps in notes_of(voice):
        found[first : first + steps] = [pitch] * steps
    assert found == voice


@given(data=st.data())
def test_a_midi_file_holds_the_notes(data):
    """But for silence at the end, which has no length there."""
    vocabulary = ScoreVocabulary(voices=data.draw(st.integers(1, 4)), lowest=60, highest=64)
    score = data.draw(scores(vocabulary))
    score = torch.cat([score, data.draw(scores(vocabulary).filter(lambda last: (last[-1] != SILENCE).any()))])
    chopper = ScorePreprocessor(voices=vocabulary.voices, lowest=60, highest=64).fit(tuple, Role())
    assert chopper.decode(vocabulary.content(score, ".mid")).equal(score)


def test_other_files():
    vocabulary = ScoreVocabulary(voices=2)
    score = torch.tensor([[69, 57], [69, -1]])
    assert vocabulary.content(score, ".csv") == b"69,57\n69,-1\n"
    for ending in (".wav", ".mp3"):
        sound, rate = read_sound(vocabulary.content(score, ending))
        strength = np.abs(np.fft.rfft(sound))
        peak = strength.argmax() * rate / len(sound)
        assert min(abs(peak - 440), abs(peak - 220)) < 5 and 0.3 < np.abs(sound).max() <= 1
    chopper = ScorePreprocessor(voices=3).fit(tuple, Role())
    with pytest.raises(DataError, match="the score has 2 tracks with notes, 2 channels and up to 2 notes at once; "
                                        "expected 3 voices: a track or a channel of single notes for each voice, "
                                        "or chords of 3 notes"):  # fmt: skip
        chopper.decode(vocabulary.content(score, ".mid"))
    with pytest.raises(DataError, match="the score cannot be read"):
        chopper.decode(b"MThd")


def alike(one, other):
    """Whether both are the same music, of whatever pitch."""
    heard = one != SILENCE
    return heard.equal(other != SILENCE) and len((one - other)[heard].unique()) <= 1


def cut(steps, seed, generated=True):
    """A score of one voice of so many steps, all different within a bar, as training sees it; and its chopper."""
    made = ScorePreprocessor(voices=1, lowest=40, highest=80, transpose=5, crop=32)
    chopper = made.fit(tuple, Role(generated=generated))
    score = (50 + torch.arange(steps) % 17)[:, None]
    score[::5] = SILENCE
    return score, chopper.augment(score, np.random.default_rng(seed)), chopper


@given(seed=st.integers(0, 999), steps=st.integers(1, 80))
def test_a_score_is_cut_at_a_bar_and_transposed_as_a_whole(seed, steps):
    score, excerpt, _ = cut(steps, seed)
    found = excerpt.steps
    assert len(found) == min(steps, 32) or (excerpt.following is None and len(found) > 16)
    fits = [
        first for first in range(0, steps, 16) if (score[first : first + len(found)] == SILENCE).equal(found == SILENCE)
    ]
    shifts = {int(d) for first in fits for d in (found - score[first : first + len(found)])[found != SILENCE]}
    assert fits and (len(found) == 1 or shifts <= set(range(-5, 6)) or len(fits) > 1)
    assert excerpt.begins <= (0 in fits) and (excerpt.following is not None or max(fits) + len(found) == steps)


@given(seed=st.integers(0, 999), steps=st.integers(1, 80), generated=st.booleans())
def test_of_an_excerpt_nothing_is_learned_that_is_not_so(seed, steps, generated):
    """Else a model learns that every score ends where training cuts it, or that what is as long ends."""
    score, excerpt, chopper = cut(steps, seed, generated)
    whole, chunk = chopper.chop(excerpt.steps), chopper.chop(excerpt)
    assert chunk.values.equal(whole.values) and chunk.count == whole.count
    expected = whole.next_ids.clone()
    if excerpt.following is not None:
        joined = torch.cat([excerpt.steps, excerpt.following[None]])
        places = [n for n in range(steps - len(excerpt.steps)) if alike(joined, score[n : n + len(joined)])]
        assert any(place % 16 == 0 for place in places)
        expected[-1] = chopper.encoded(joined)[-1]
    if generated and not excerpt.begins:
        expected[0] = IGNORED
    assert chunk.next_ids.equal(expected)


def test_every_end_and_every_beginning_is_seen():
    seen = [cut(70, seed)[1] for seed in range(40)]
    assert {each.begins for each in seen} == {each.following is None for each in seen} == {True, False}
    assert {len(each.steps) for each in seen} == {32, 70 - 48}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"lowest": 90}, "must satisfy 0 <= lowest < highest"),
        ({"transpose": 13}, "from 0 to 12"),
        ({"crop": 0}, "at least 1"),
    ],
)
def test_options_that_are_none(options, told):
    with pytest.raises(ValueError, match=told):
        ScorePreprocessor(**options)


def test_no_prompt_begins_a_score():
    chopper = ScorePreprocessor(voices=2).fit(tuple, Role(generated=True))
    task = LanguageModeling(target="music")
    trained = SimpleNamespace(tasks={"lm": task}, choppers={"music": chopper})
    GeneratedSamples(prompt="").check(trained, print)
    with pytest.raises(ValueError, match="evaluation.prompt: 'music' is not a text; prompts are only for texts"):
        GeneratedSamples(prompt="text").check(trained, print)


def test_pitches_are_not_rounded():
    chopper = ScorePreprocessor(voices=1).fit(tuple, Role())
    assert chopper.decode([[60.0], [61.0]]).tolist() == [[60], [61]]
    with pytest.raises(
        ValueError, match="a score must be an array of whole numbers .* values that are not whole numbers"
    ):
        chopper.decode([[60.7], [61.0]])
