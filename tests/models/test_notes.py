"""Notes in texts: they are kept when all other tokens are forgotten, so that a later token can read them after many
contexts."""

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


def small_model(kind: str, context: int = CONTEXT, seed: int = 0, **more) -> Model:
    torch.manual_seed(seed)
    options = KINDS[kind] | more
    absolute = {"position": None} if options.pop("absolute", True) is None else {}
    tokenizers = {"text": NotedTextTokenizer(CHOPPER, 32, context, **absolute)}
    core = core_of(["text"], axes=("order", "note"), width=32, depth=2, heads=4, **options)
    task = LanguageModeling(target="text")
    model = Model(tokenizers, Cores(core), {"lm": task.head(tokenizers, 32)}, context=context)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model.eval()


def scores_of_steps(model: Model, rows: list[list[int]], more: list[int], **options) -> torch.Tensor:
    """The scores at every step of a session to which the ids `more` are appended one by one."""
    session, scores = Session.of_texts(model, rows, **NAMES, **options), []
    for id in more:  # not in inference mode, which a session enters by itself
        scores.append(session.scores())
        session.append(torch.full((len(rows),), id))
    return torch.stack(scores)


ids = st.lists(st.sampled_from([A, B, C, OPEN, CLOSE]), min_size=1, max_size=40)


@given(ids)
def test_the_numbers_of_notes_equal_a_second_implementation(row):
    number, in_note, expected = -1, False, []
    for id in row:
        number, in_note = number + (id == OPEN), in_note or id == OPEN
        expected.append(float(number) if in_note else math.nan)
        in_note = in_note and id != CLOSE
    numbers = CHOPPER.notes.numbers(torch.tensor([row]))[0]
    torch.testing.assert_close(numbers, torch.tensor(expected), equal_nan=True)
    before = CHOPPER.notes.numbers(torch.tensor([row[:-1]], dtype=torch.long))[0]
    torch.testing.assert_close(before, numbers[:-1], equal_nan=True)  # the numbers depend only on the ids up to a token


@given(ids, st.integers(1, 20))
def test_a_shortened_text_is_its_end_and_the_notes_before_it(row, count):
    """Every id except the marks is 100 + its position, so that each id occurs once."""
    row = [id if id in (OPEN, CLOSE) else 100 + place for place, id in enumerate(row)]
    (left,), (numbers,) = (each.tolist() for each in CHOPPER.notes.shorten(torch.tensor([row]), count))
    every = CHOPPER.notes.numbers(torch.tensor([row]))[0].tolist()
    noted = [place for place in range(len(row) - count // 2) if not math.isnan(every[place])]
    noted = noted[len(noted) - min(count // 2, len(noted)) :]
    tail = max(len(row) - count + len(noted), 0)
    places = [place for place in noted if place < tail] + [*range(tail, len(row))]
    assert left == [row[place] for place in places] and len(left) <= count
    torch.testing.assert_close(torch.tensor(numbers), torch.tensor([every[place] for place in places]), equal_nan=True)


def test_shorter_rows_are_padded_at_their_start():
    rows = torch.tensor([[-1, -1, A, B], [OPEN, C, CLOSE, D]])
    kept, numbers = CHOPPER.notes.shorten(rows, 3)
    assert kept[:, -2:].tolist() == [[A, B], [CLOSE, D]] and numbers[0].isnan().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [
    pytest.param([[START]], id="one", marks=pytest.mark.system),
    pytest.param([[START, A], [START, OPEN, D, CLOSE, B], [START]], id="ragged"),
])  # fmt: skip
def test_cached_equals_uncached_with_notes_long_after_the_context(kind, rows):
    more = [A, OPEN, B, C, CLOSE, *([D, E, F, A] * 12), OPEN, E, CLOSE, *([C, B] * 10)]
    cached, plain = (scores_of_steps(small_model(kind), rows, more, cached=each) for each in (True, False))
    torch.testing.assert_close(cached, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["forgets", "alibi"])
def test_forgotten_tokens_do_not_change_the_scores(kind):
    """The scores equal those with a context that holds all tokens."""
    rows, more = [[START, OPEN, D, CLOSE, B], [START]], [A, OPEN, B, CLOSE, *([D, E, F, A] * 20)]
    short, long = (scores_of_steps(small_model(kind, context), rows, more) for context in (CONTEXT, 200))
    torch.testing.assert_close(short, long, rtol=1e-5, atol=1e-5)


def test_the_cache_holds_only_the_window_and_the_notes(monkeypatch):
    kept, keep = [], Cache.keep
    monkeypatch.setattr(Cache, "keep", lambda self, columns: (kept.append(len(columns)), keep(self, columns)))
    scores_of_steps(small_model("forgets"), [[START, OPEN, D, CLOSE]], [A, B, C] * 20)
    assert kept and {*kept} == {1 + 3 + 5}, "the first token, the note, and what the next token's window reaches"


@pytest.mark.parametrize("on, is_read", [(" | on(note)", True), ("", False)])
def test_a_note_from_ten_windows_before_is_read_only_if_the_graph_has_notes(on, is_read):
    model = small_model("forgets", 200, attention=f"causal & (window(6){on})")
    filler = [D, E, F, A] * 20
    one, other = (scores_of_steps(model, [[START, OPEN, id, CLOSE]], filler)[-1] for id in (B, C))
    assert torch.equal(one, other) != is_read


def test_a_user_defined_tokenizer_needs_no_attribute_for_notes():
    model, texts = small_model("forgets"), [[START, A, B]]
    expected = scores_of_steps(model, texts, [C] * 40)
    del model.tokenizers["text"].notes  # as if its class had no such attribute
    assert scores_of_steps(model, texts, [C] * 40).shape == expected.shape


def test_notes_that_fill_the_context_with_other_inputs_are_refused():
    model = small_model("forgets")
    session = Session.of_texts(model, [[START]], **NAMES)
    session.slides = False  # as with other inputs
    with torch.inference_mode(), pytest.raises(ValueError, match="later tokens may read all of its 16 tokens"):
        for id in [OPEN, *[A] * 40]:
            session.scores()
            session.append(torch.tensor([id]))


def test_beams_with_different_notes_have_the_scores_of_each_text_alone():
    rows, texts_with_notes = [[START, A], [START, OPEN, B]], 0
    for seed in range(6):
        model = small_model("forgets", 64, seed)
        session = Session.of_texts(model, rows, **NAMES, most=24)
        results = beam_search(session, {START}, 24, Search(beams=4, length_penalty=0.0))
        for row, each in zip(rows, results):
            texts_with_notes += OPEN in each.ids or CLOSE in each.ids
            complete = each.ids if len(each.ids) == 24 else [*each.ids, START]
            logs = scores_of_steps(model, [row], complete, cached=False)[:, 0].log_softmax(-1)
            assert float(logs[range(len(complete)), complete].sum()) == pytest.approx(each.log, abs=1e-3)
    assert texts_with_notes >= 3, "too few texts have notes"


@pytest.mark.parametrize(
    "text, message",
    [
        ("ab[c", r"the note that begins at token 3 has no closing '\]'"),
        ("ab]c", r"'\]' at token 3 closes a note, but no note is open"),
        ("a[b[c]", r"'\[' at token 4 is inside the note that begins at token 2"),
    ],
)
def test_notes_must_be_opened_and_closed(text, message):
    with pytest.raises(ValueError, match=message):
        CHOPPER.chop(text)


@given(st.text("abcdef[]", max_size=20))
def test_a_text_is_refused_or_restored(text):
    try:
        chunk = CHOPPER.chop(text)
    except ValueError:
        return
    assert CHOPPER.vocabulary.restore(chunk.values[1:].tolist()) == text
    assert chunk.coordinates.shape == (chunk.count, 1)


@pytest.mark.parametrize(
    "notes, message",
    [
        (["[["], "two different marks"),
        (["[", "["], "two different marks"),
        (["[", "]]"], r"'\]\]' is 2 ids"),
        (["<", ">"], "the training data contains the mark '<'"),
    ],
)
def test_marks_that_cannot_be_used_are_refused(notes, message):
    with pytest.raises(ValueError, match=message):
        NotedTextPreprocessor(encoding="characters", notes=notes).fit(lambda: ["abc[]"], Role(generated=True))


def test_a_mark_is_one_id_next_to_any_letters():
    preprocessor = NotedTextPreprocessor(encoding="bpe", vocabulary=260, notes=["#", "%"])
    chopper = preprocessor.fit(lambda: ["a #b% c " * 50], Role(generated=True))
    ids = chopper.chop("a #b% c").values.tolist()
    assert ids.count(chopper.notes.open) == ids.count(chopper.notes.close) == 1
    assert isinstance(chopper.notes, Notes) and chopper.vocabulary.restore(ids[1:]) == "a #b% c"
