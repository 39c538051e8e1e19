"""Notes: they stay while all else is forgotten, so that an answer may need what was written ten contexts before."""

import math
from functools import partial

import pytest
import torch
from chopmix.models.cache import Cache
from chopmix.models.generation.beam_search import Search, beam_search
from chopmix.models.generation.notes import Notes
from chopmix.models.generation.session import Session
from chopmix.models.layers.relative import Alibi, Rotary
from chopmix.models.model import Cores, Model
from chopmix.tasks.language_modeling import LanguageModeling
from chopmix.tokenizers.base import Role
from chopmix.tokenizers.noted_text import NotedTextPreprocessor, NotedTextTokenizer
from cores import core_of
from hypothesis import given
from hypothesis import strategies as st

CONTEXT = 16
CHOPPER = NotedTextPreprocessor(encoding="characters").fit(lambda: ["abcdef[]"], Role(generated=True))
OPEN, CLOSE = CHOPPER.vocabulary.encode("[]")
A, B, C, D, E, F = CHOPPER.vocabulary.encode("abcdef")
START = CHOPPER.vocabulary.start
NAMES = {"input": "text", "task": "lm", "vocabulary": CHOPPER.vocabulary.size}
FORGETS = {"attention": "causal & (window(6) | on(note))", "position": Rotary, "absolute": None}
KINDS = {
    "forgets": FORGETS,
    "alibi": FORGETS | {"position": Alibi},
    "slides": {"attention": "causal & (window(6) | on(note))"},
    "reads_all": {},
    "rotated_by_notes": {"position": partial(Rotary, per_axis={"order": 4, "note": 4})},
}


def model(kind: str, context: int = CONTEXT, seed: int = 0, **more) -> Model:
    torch.manual_seed(seed)
    how = KINDS[kind] | more
    absolute = {"position": None} if how.pop("absolute", True) is None else {}
    tokenizers = {"text": NotedTextTokenizer(CHOPPER, 32, context, **absolute)}
    core = core_of(["text"], axes=("order", "note"), width=32, depth=2, heads=4, **how)
    task = LanguageModeling(target="text")
    made = Model(tokenizers, Cores(core), {"lm": task.head(tokenizers, 32)}, context=context)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4)
    return made.eval()


def scored(made: Model, rows: list[list[int]], more: list[int], **options) -> torch.Tensor:
    """The scores at every step of a session that is given the ids `more` one by one."""
    session, found = Session.of_texts(made, rows, **NAMES, **options), []
    for id in more:  # not in inference mode, which a session enters by itself
        found.append(session.scores())
        session.append(torch.full((len(rows),), id))
    return torch.stack(found)


ids = st.lists(st.sampled_from([A, B, C, OPEN, CLOSE]), min_size=1, max_size=40)


@given(ids)
def test_the_number_of_a_note_said_a_second_time(row):
    number, opened, expected = -1, False, []
    for id in row:
        number, opened = number + (id == OPEN), opened or id == OPEN
        expected.append(float(number) if opened else math.nan)
        opened = opened and id != CLOSE
    found = CHOPPER.notes.numbers(torch.tensor([row]))[0]
    torch.testing.assert_close(found, torch.tensor(expected), equal_nan=True)
    before = CHOPPER.notes.numbers(torch.tensor([row[:-1]], dtype=torch.long))[0]
    torch.testing.assert_close(before, found[:-1], equal_nan=True)  # of the ids up to a token alone


@given(ids, st.integers(1, 20))
def test_what_is_carried_over_is_the_end_and_the_notes_before_it(row, count):
    """By places, so that equal ids cannot stand for each other: ids 100 + place, but for the marks."""
    row = [id if id in (OPEN, CLOSE) else 100 + place for place, id in enumerate(row)]
    (left,), (numbers,) = (each.tolist() for each in CHOPPER.notes.shorten(torch.tensor([row]), count))
    every = CHOPPER.notes.numbers(torch.tensor([row]))[0].tolist()
    noted = [place for place in range(len(row) - count // 2) if not math.isnan(every[place])]
    noted = noted[len(noted) - min(count // 2, len(noted)) :]
    tail = max(len(row) - count + len(noted), 0)
    places = [place for place in noted if place < tail] + [*range(tail, len(row))]
    assert left == [row[place] for place in places] and len(left) <= count
    torch.testing.assert_close(torch.tensor(numbers), torch.tensor([every[place] for place in places]), equal_nan=True)


def test_rows_that_carry_less_have_none_in_front():
    rows = torch.tensor([[-1, -1, A, B], [OPEN, C, CLOSE, D]])
    kept, numbers = CHOPPER.notes.shorten(rows, 3)
    assert kept[:, -2:].tolist() == [[A, B], [CLOSE, D]] and numbers[0].isnan().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [
    pytest.param([[START]], id="one", marks=pytest.mark.system),
    pytest.param([[START, A], [START, OPEN, D, CLOSE, B], [START]], id="ragged"),
])  # fmt: skip
def test_cached_equals_uncached_with_notes_far_past_the_context(kind, rows):
    more = [A, OPEN, B, C, CLOSE, *([D, E, F, A] * 12), OPEN, E, CLOSE, *([C, B] * 10)]
    cached, plain = (scored(model(kind), rows, more, cached=each) for each in (True, False))
    torch.testing.assert_close(cached, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["forgets", "alibi"])
def test_what_is_forgotten_is_not_missed(kind):
    """The same scores as with a context that holds all."""
    rows, more = [[START, OPEN, D, CLOSE, B], [START]], [A, OPEN, B, CLOSE, *([D, E, F, A] * 20)]
    short, long = (scored(model(kind, context), rows, more) for context in (CONTEXT, 200))
    torch.testing.assert_close(short, long, rtol=1e-5, atol=1e-5)


def test_the_cache_holds_the_window_and_the_notes_alone(monkeypatch):
    kept, keep = [], Cache.keep
    monkeypatch.setattr(Cache, "keep", lambda self, columns: (kept.append(len(columns)), keep(self, columns)))
    scored(model("forgets"), [[START, OPEN, D, CLOSE]], [A, B, C] * 20)
    assert kept and {*kept} == {1 + 3 + 5}, "the first token, the note, and what the next token's window reaches"


@pytest.mark.parametrize("on, told", [(" | on(note)", True), ("", False)])
def test_a_note_from_ten_windows_before_is_read_through_the_graph_alone(on, told):
    made = model("forgets", 200, attention=f"causal & (window(6){on})")
    filler = [D, E, F, A] * 20
    one, other = (scored(made, [[START, OPEN, id, CLOSE]], filler)[-1] for id in (B, C))
    assert torch.equal(one, other) != told


def test_an_embedder_of_ones_own_need_not_know_of_notes():
    made, texts = model("forgets"), [[START, A, B]]
    expected = scored(made, texts, [C] * 40)
    del made.tokenizers["text"].notes  # as of a class that has no such attribute
    assert scored(made, texts, [C] * 40).shape == expected.shape


def test_notes_that_fill_the_context_beside_other_inputs_end_the_text():
    made = model("forgets")
    session = Session.of_texts(made, [[START]], **NAMES)
    session.slides = False  # as beside other inputs
    with torch.inference_mode(), pytest.raises(ValueError, match="later tokens may read all of its 16 tokens"):
        for id in [OPEN, *[A] * 40]:
            session.scores()
            session.append(torch.tensor([id]))


def test_beams_with_different_notes_have_the_scores_that_each_text_has_alone():
    rows, noted = [[START, A], [START, OPEN, B]], 0
    for seed in range(6):
        made = model("forgets", 64, seed)
        session = Session.of_texts(made, rows, **NAMES, most=24)
        found = beam_search(session, {START}, 24, Search(beams=4, length_penalty=0.0))
        for row, each in zip(rows, found):
            noted += OPEN in each.ids or CLOSE in each.ids
            ended = each.ids if len(each.ids) == 24 else [*each.ids, START]
            logs = scored(made, [row], ended, cached=False)[:, 0].log_softmax(-1)
            assert float(logs[range(len(ended)), ended].sum()) == pytest.approx(each.log, abs=1e-3)
    assert noted >= 3, "too few of the texts have notes for this to say anything"


@pytest.mark.parametrize(
    "text, told",
    [
        ("ab[c", r"the note that begins at token 3 has no closing '\]'"),
        ("ab]c", r"'\]' at token 3 closes a note, but no note is open"),
        ("a[b[c]", r"'\[' at token 4 is inside the note that begins at token 2"),
    ],
)
def test_notes_must_be_opened_and_closed(text, told):
    with pytest.raises(ValueError, match=told):
        CHOPPER.chop(text)


@given(st.text("abcdef[]", max_size=20))
def test_a_text_is_refused_or_given_back(text):
    try:
        chunk = CHOPPER.chop(text)
    except ValueError:
        return
    assert CHOPPER.vocabulary.restore(chunk.values[1:].tolist()) == text
    assert chunk.coordinates.shape == (chunk.count, 1)


@pytest.mark.parametrize(
    "notes, told",
    [
        (["[["], "two different marks"),
        (["[", "["], "two different marks"),
        (["[", "]]"], r"'\]\]' is 2 ids"),
        (["<", ">"], "the training data contains the mark '<'"),
    ],
)
def test_marks_that_cannot_be_marks(notes, told):
    with pytest.raises(ValueError, match=told):
        NotedTextPreprocessor(encoding="characters", notes=notes).fit(lambda: ["abc[]"], Role(generated=True))


def test_a_mark_is_one_id_whatever_stands_beside_it():
    made = NotedTextPreprocessor(encoding="bpe", vocabulary=260, notes=["#", "%"])
    chopper = made.fit(lambda: ["a #b% c " * 50], Role(generated=True))
    ids = chopper.chop("a #b% c").values.tolist()
    assert ids.count(chopper.notes.open) == ids.count(chopper.notes.close) == 1
    assert isinstance(chopper.notes, Notes) and chopper.vocabulary.restore(ids[1:]) == "a #b% c"
