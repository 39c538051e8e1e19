"""Constraints and guidance: only allowed ids are generated, and guided scores follow the formula."""

import json
import re

import pytest
import torch
from chopmix.inference.generate import Generating, Written, pieces
from chopmix.models.generation.beam_search import Search, beam_search
from chopmix.models.generation.constraints import Allowed, Constraint, Forbidden, Forced, Length
from chopmix.models.generation.guidance import Guided
from chopmix.models.generation.sampling import Sampling, draw
from chopmix.models.generation.session import Session
from chopmix.tokenizers.encoding.base import ByteEncoding, CharacterEncoding
from chopmix.tokenizers.encoding.grammar import Grammar
from hypothesis import given
from hypothesis import strategies as st
from test_generation import small_model
from transformers.generation.logits_process import UnbatchedClassifierFreeGuidanceLogitsProcessor

MODEL = small_model()


def session(rows=((8,),), most=6):
    return Session.of_texts(MODEL, rows, input="text", task="lm", vocabulary=9, most=most)


def generated(constraint, sampling, search=Search(), rows=3):
    """The ids of some rows, each up to the end (8)."""
    torch.manual_seed(0)
    writers = [Written({8}) for _ in range(rows)]
    settings = Generating(sampling=sampling, search=search, constraint=constraint)
    for _ in pieces(session([[8]] * rows), writers, settings):
        pass
    return [row.ids for row in writers]


WAYS = [(Sampling(), Search()), (Sampling(temperature=0), Search()), (None, Search(beams=3)), (None, Search(beams=40))]


@pytest.mark.parametrize(("sampling", "search"), WAYS)
@pytest.mark.parametrize("length", [1, 4])
def test_items_have_the_required_length(sampling, search, length):
    assert [len(ids) for ids in generated(Length(length, (8,), never=(0, 1)), sampling, search)] == [length] * 3
    assert not {0, 1} & {id for ids in generated(Length(length, (8,), never=(0, 1)), sampling, search) for id in ids}


@pytest.mark.parametrize(("sampling", "search"), WAYS)
def test_ids_can_be_forced_and_forbidden(sampling, search):
    rule = Forced({0: 3, 2: 5}) & Forbidden((1, 2, 8)) & None
    for ids in generated(rule, sampling, search):
        assert len(ids) == 6 and ids[0] == 3 and ids[2] == 5 and not {1, 2, 8} & set(ids)


@given(st.sets(st.integers(0, 8), max_size=9), st.sets(st.integers(0, 8), max_size=9))
def test_two_constraints_allow_what_both_allow(first, second):
    allowed = (Forbidden(tuple(first)) & Forbidden(tuple(second))).allowed([], 9)
    assert {id for id in range(9) if not allowed[id]} == first | second


@pytest.mark.parametrize("search", [Search(), Search(beams=2)])
def test_constraints_that_allow_no_id_are_refused(search):
    with pytest.raises(ValueError, match=r"no id is allowed after the 1 ids generated so far, which end in \[3\]"):
        generated(Forced({0: 3, 1: 4}) & Forbidden((4,)), None, search)


def test_no_constraint_applies_to_a_row_that_has_ended():
    allowed = Allowed(Forced({1: 4}), frozenset({8}))
    scores = allowed.of(torch.zeros(2, 9), [[8], [3]])
    assert scores[0].isfinite().all() and scores[1].isfinite().nonzero().flatten().tolist() == [4]


SUM = r"[0-3]+[+][0-3]+=[0-3]{1,3}"


@pytest.mark.parametrize(("sampling", "search"), WAYS[:3])
def test_every_generated_sum_matches_its_grammar(sampling, search):
    encoding = CharacterEncoding("+0123=x")
    model = small_model(seed=1)  # its ids 0 to 7 are those of the encoding: the start is 7
    texts = []
    for seed in range(20):
        torch.manual_seed(seed)
        session = Session.of_texts(model, [[7]] * 4, input="text", task="lm", vocabulary=8, most=16)
        rows = [Written({7}) for _ in range(4)]
        grammar = Grammar(encoding, r"[0-3]{1,3}[+][0-3]{1,3}=[0-3]{1,3}")
        for _ in pieces(session, rows, Generating(sampling=sampling, search=search, constraint=grammar)):
            pass
        texts += [encoding.decode(row.ids) for row in rows]
    assert len(texts) == 80 and all(re.fullmatch(SUM, text) for text in texts)


def test_every_generated_json_matches_its_schema(tmp_path):
    schema = {
        "type": "object", "required": ["a", "b"], "additionalProperties": False,
        "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "yz"]}},
    }  # fmt: skip
    (tmp_path / "s.json").write_text(json.dumps(schema))
    encoding = ByteEncoding()
    grammar = Grammar(encoding, str(tmp_path / "s.json"))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        ids = []
        while not ids or ids[-1] != encoding.end:
            allowed = grammar.allowed(ids, encoding.size)
            ids.append(int(torch.multinomial(allowed.float(), 1, generator=generator)))
            assert len(ids) < 60, "the number of spaces is limited"
        value = json.loads(encoding.decode(ids))
        assert value.keys() == {"a", "b"} and isinstance(value["a"], bool) and value["b"] in ("x", "yz")


def test_beam_search_with_a_grammar_finds_the_best_allowed_text():
    """Compared with every text of a small language, each read separately without a grammar."""
    encoding, model = CharacterEncoding("+0123=x"), small_model(seed=2)
    texts = [encoding.encode(f"{a}+{b}={c}") for a in "0123" for b in "0123" for c in "0123"]
    logs = []
    for text in texts:
        session, log = Session.of_texts(model, [[7, 4]], input="text", task="lm", vocabulary=8, cached=False), 0.0
        for id in [*text, 7]:
            log += float(session.scores().log_softmax(-1)[0, id])
            session.append(torch.tensor([id]))
        logs.append(log)
    session = Session.of_texts(model, [[7, 4]], input="text", task="lm", vocabulary=8, most=16)
    grammar = Grammar(encoding, "[0-3][+][0-3]=[0-3]")
    (result,) = beam_search(session, {7}, 16, Search(beams=64, length_penalty=0.0), grammar)
    best = max(range(64), key=logs.__getitem__)
    assert result.ids == texts[best] and result.log == pytest.approx(logs[best], abs=1e-4)


def test_a_grammar_can_be_in_the_format_of_lark(tmp_path):
    (tmp_path / "g.lark").write_text('start: "a" start "b" | "ab"\n')
    encoding = CharacterEncoding("ab")
    grammar = Grammar(encoding, str(tmp_path / "g.lark"))
    assert [grammar.allowed([0] * n, 3).tolist() for n in (0, 1)] == [[True, False, False], [True, True, False]]
    assert grammar.allowed([0, 0, 1, 1], 3).tolist() == [False, False, True]


def test_invalid_grammars_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"grammar '\(\[': .*invalid regex"):
        Grammar(ByteEncoding(), "([")
    (tmp_path / "empty.json").write_text("")
    with pytest.raises(ValueError, match=r"grammar '.*empty\.json': EOF while parsing"):
        Grammar(ByteEncoding(), str(tmp_path / "empty.json"))
    with pytest.raises(ValueError, match=r"grammar '\(': .*parse error: unclosed group"):
        Grammar(ByteEncoding(), "(")
    for text in ("c+", r"[^\s\S]"):
        with pytest.raises(ValueError, match="allows no text that the vocabulary of this run can encode"):
            Grammar(CharacterEncoding("ab"), text)
    grammar = Grammar(CharacterEncoding("ab"), "[ab]c")
    with pytest.raises(ValueError, match="no id is allowed after the 1 ids"):
        Allowed(grammar).of(torch.zeros(1, 3), [[0]])


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_guided_scores_follow_the_formula(weight):
    rows, others = [[8, 1, 2], [8, 3]], [[8], [8]]
    conditional, unconditional = session(rows), session(others)
    expected = []
    for step in range(3):
        u, c = unconditional.scores().float().log_softmax(-1), conditional.scores().float().log_softmax(-1)
        expected.append(u + weight * (c - u))
        for each in (conditional, unconditional):
            each.append(torch.tensor([step, step + 1]))
    guided = Guided(session(rows), session(others), weight)
    for step in range(3):
        torch.testing.assert_close(guided.scores(), expected[step])
        guided.append(torch.tensor([step, step + 1]))


@given(weight=st.floats(0, 8), seed=st.integers(0, 2**32))
def test_guided_scores_equal_those_of_transformers(weight, seed):
    conditional, unconditional = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(seed)).mul(4)
    theirs = UnbatchedClassifierFreeGuidanceLogitsProcessor(weight, model=None)
    theirs.get_unconditional_logits = lambda ids: unconditional[:, None]  # of the last position
    sides = session(), session()
    for side, scores in zip(sides, (conditional, unconditional)):
        side.scores = lambda scores=scores: scores
    expected = theirs(None, conditional) if weight != 1 else conditional.log_softmax(-1)
    torch.testing.assert_close(Guided(*sides, weight).scores(), expected)


def test_beam_search_with_guidance_1_equals_beam_search_without():
    search = Search(beams=3)
    plain = beam_search(session([[8, 1], [8, 2]]), {8}, 6, search)
    guided = beam_search(Guided(session([[8, 1], [8, 2]]), session([[8], [8]]), 1.0), {8}, 6, search)
    assert [each.ids for each in guided] == [each.ids for each in plain]
    drawn = list(draw(Guided(session([[8, 1]]), session([[8]]), 3.0), 4, Sampling(temperature=0)))
    assert len(drawn) == 4


def test_no_repeat_may_leave_no_id_that_the_constraint_allows():
    class Three(Constraint):
        def allowed(self, ids, size):
            return torch.arange(size) < 3

    ids = beam_search(session([[8]]), {8}, 3, Search(beams=2, no_repeat=1), Three())
    assert sorted(ids[0].ids) == [0, 1, 2]
    with pytest.raises(ValueError, match="no_repeat 1 forbids all ids that are allowed after the 3 generated so far"):
        beam_search(session([[8]]), {8}, 4, Search(beams=2, no_repeat=1), Three())


def test_guidance_out_of_its_range_is_refused():
    with pytest.raises(ValueError, match="guidance is -1; it must be from 0"):
        Generating(guidance=-1)
