"""Scores as ids: every score is restored from its ids and from MIDI, and only complete steps are restored."""

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


for_vocabularies = given(vocabulary=KINDS, data=st.data())


@for_vocabularies
def test_every_score_is_restored_from_its_ids(vocabulary, data):
    score = data.draw(scores(vocabulary))
    ids = vocabulary.encode(score)
    assert vocabulary.restore(ids).equal(score) and vocabulary.restore([*ids, vocabulary.end]).equal(score)
    assert len(ids) == len(score) * vocabulary.per_step and vocabulary.units(score) == score.numel()
    assert max(ids) < vocabulary.start
    if len(score) > 1:  # an incomplete last step is left out
        assert vocabulary.restore(ids[:-1]).equal(score[:-1])


@for_vocabularies
def test_the_ids_of_a_score_are_allowed_at_every_step(vocabulary, data):
    ids, rule = vocabulary.encode(data.draw(scores(vocabulary))), vocabulary.well_formed
    for place, id in enumerate([*ids, vocabulary.end]):
        allowed = rule.allowed(ids[:place], vocabulary.size)
        assert allowed[id] and allowed[vocabulary.end] == (place > 0 and place % vocabulary.per_step == 0)
        chords = range(vocabulary.first_chord, vocabulary.start)
        assert any(allowed[chord] for chord in chords) == (vocabulary.chords and place % vocabulary.per_step == 0)


def test_the_example_of_the_docstring_is_correct():
    vocabulary = ScoreVocabulary(voices=2, lowest=60, highest=62)
    assert vocabulary.encode(torch.tensor([[62, 60], [62, -1]])) == [2, 0, 2, 3] and vocabulary.start == 4


def test_ids_and_arrays_that_are_no_score_are_refused():
    vocabulary = ScoreVocabulary(voices=1, lowest=60, highest=62, chords=True)
    with pytest.raises(ValueError, match="pitch 63 is not from 60 to 62"):
        vocabulary.encode(torch.tensor([[63]]))
    with pytest.raises(ValueError, match="every step must be one "):
        vocabulary.restore([0, vocabulary.first_chord])
    chopper = ScorePreprocessor(voices=2).fit(tuple, Role())
    for wrong, message in (
        ([[60]], r"must have the shape \(steps, 2\) .* not \(1, 1\)"),
        ([["a", "b"]], "whole numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            chopper.decode(wrong)


@pytest.mark.parametrize(
    ("step", "name"),
    [((60, 64, 67), 0), ((72, 67, 64, 60), 0), ((69, 60, 64), 12 + 9), ((60, 63, 66), 24), ((60, 64, 68), 36),
     ((60,), 0), ((-1, -1), 48), ((60, 61), 48)],
)  # fmt: skip
def test_a_chord_is_recognised_by_its_notes(step, name):
    assert chord_of(step) == name


@given(st.lists(st.sampled_from([SILENCE, 60, 61, 62]), min_size=1, max_size=12))
def test_notes_are_consecutive_steps_of_one_pitch(voice):
    restored = [SILENCE] * len(voice)
    for pitch, first, steps in notes_of(voice):
        restored[first : first + steps] = [pitch] * steps
    assert restored == voice


@given(data=st.data())
def test_a_midi_file_contains_the_notes(data):
    """Silence at the end is lost, because it has no length in MIDI."""
    vocabulary = ScoreVocabulary(voices=data.draw(st.integers(1, 4)), lowest=60, highest=64)
    score = data.draw(scores(vocabulary))
    score = torch.cat([score, data.draw(scores(vocabulary).filter(lambda last: (last[-1] != SILENCE).any()))])
    chopper = ScorePreprocessor(voices=vocabulary.voices, lowest=60, highest=64).fit(tuple, Role())
    assert chopper.decode(vocabulary.content(score, ".mid")).equal(score)


def test_scores_are_written_as_csv_and_sound_and_other_midi_files_are_refused():
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
    """Return whether both scores are the same music, possibly transposed."""
    heard = one != SILENCE
    return heard.equal(other != SILENCE) and len((one - other)[heard].unique()) <= 1


def excerpt_of(steps, seed, generated=True):
    """Return a score of one voice, whose steps differ within a bar, its excerpt for training, and the chopper."""
    preprocessor = ScorePreprocessor(voices=1, lowest=40, highest=80, transpose=5, crop=32)
    chopper = preprocessor.fit(tuple, Role(generated=generated))
    score = (50 + torch.arange(steps) % 17)[:, None]
    score[::5] = SILENCE
    return score, chopper.augment(score, np.random.default_rng(seed)), chopper


@given(seed=st.integers(0, 999), steps=st.integers(1, 80))
def test_an_excerpt_starts_at_a_bar_and_is_transposed_as_a_whole(seed, steps):
    score, excerpt, _ = excerpt_of(steps, seed)
    kept = excerpt.steps
    assert len(kept) == min(steps, 32) or (excerpt.following is None and len(kept) > 16)
    fits = [
        first for first in range(0, steps, 16) if (score[first : first + len(kept)] == SILENCE).equal(kept == SILENCE)
    ]
    shifts = {int(d) for first in fits for d in (kept - score[first : first + len(kept)])[kept != SILENCE]}
    assert fits and (len(kept) == 1 or shifts <= set(range(-5, 6)) or len(fits) > 1)
    assert excerpt.begins <= (0 in fits) and (excerpt.following is not None or max(fits) + len(kept) == steps)


@given(seed=st.integers(0, 999), steps=st.integers(1, 80), generated=st.booleans())
def test_the_targets_of_an_excerpt_are_those_of_the_complete_score(seed, steps, generated):
    """Otherwise a model learns that every score ends at the end of an excerpt, or after the length of an excerpt."""
    score, excerpt, chopper = excerpt_of(steps, seed, generated)
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


def test_excerpts_include_the_beginning_and_the_end_of_a_score():
    excerpts = [excerpt_of(70, seed)[1] for seed in range(40)]
    assert {each.begins for each in excerpts} == {each.following is None for each in excerpts} == {True, False}
    assert {len(each.steps) for each in excerpts} == {32, 70 - 48}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lowest": 90}, "must satisfy 0 <= lowest < highest"),
        ({"transpose": 13}, "from 0 to 12"),
        ({"crop": 0}, "at least 1"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ScorePreprocessor(**options)


def test_text_prompts_are_refused_for_scores():
    chopper = ScorePreprocessor(voices=2).fit(tuple, Role(generated=True))
    task = LanguageModeling(target="music")
    trained = SimpleNamespace(tasks={"lm": task}, choppers={"music": chopper})
    GeneratedSamples(prompt="").check(trained, print)
    with pytest.raises(ValueError, match="evaluation.prompt: 'music' is not a text; prompts are only for texts"):
        GeneratedSamples(prompt="text").check(trained, print)


def test_pitches_that_are_not_whole_numbers_are_refused():
    chopper = ScorePreprocessor(voices=1).fit(tuple, Role())
    assert chopper.decode([[60.0], [61.0]]).tolist() == [[60], [61]]
    with pytest.raises(
        ValueError, match="a score must be an array of whole numbers .* values that are not whole numbers"
    ):
        chopper.decode([[60.7], [61.0]])
