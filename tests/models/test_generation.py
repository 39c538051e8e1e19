"""Generation: cached equals uncached, also past the context; sampling as transformers does it; text comes out whole."""

import json
import math
from functools import partial

import pytest
import torch
from chopmix.commands.cli import main
from chopmix.experiment.run import Run, load_run
from chopmix.inference.generate import Generating, WrittenText
from chopmix.models.generation.beam_search import Search, beam_search
from chopmix.models.generation.fast_decoder import fast_norm
from chopmix.models.generation.sampling import Sampling, Streams, draw
from chopmix.models.generation.session import Session, cut
from chopmix.models.layers.norms import RmsNorm
from chopmix.models.layers.positions import Learned, Periodic
from chopmix.models.layers.relative import Alibi, Rotary
from chopmix.models.model import Cores, Model
from chopmix.tasks.language_modeling import LanguageModeling
from chopmix.tokenizers.encoding.base import ByteEncoding, CharacterEncoding
from chopmix.tokenizers.text import TextChopper, TextTokenizer
from cores import core_of
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers.generation import logits_process

CONTEXT = 16
CORES = {
    "learned": {},
    "rotary_grouped": {"position": Rotary},
    "alibi": {"position": Alibi},
    "windows": {"position": Rotary, "attention": ["causal & same_sample & window(5)", "causal & same_sample"]},
}


def model(kind: str = "learned", seed: int = 0, absolute=Learned) -> Model:
    torch.manual_seed(seed)
    chopper = TextChopper(vocabulary=CharacterEncoding("abcdefgh"))
    tokenizers = {"text": TextTokenizer(chopper, 32, CONTEXT, position=absolute, norm=RmsNorm, pad_vocabulary_to=16)}
    core = core_of(["text"], width=32, depth=2, heads=4, **CORES[kind])
    task = LanguageModeling(target="text")
    made = Model(tokenizers, Cores(core), {"lm": task.head(tokenizers, 32)}, context=CONTEXT)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4)
    return made.eval()


def continued(made: Model, rows, tokens=40, sampling=Sampling(temperature=0), cached=True, seed=None):
    session = Session.of_texts(made, rows, input="text", task="lm", vocabulary=9, cached=cached)
    streams = None if seed is None else Streams.of(len(session.ids), seed)
    return torch.stack(list(draw(session, tokens, sampling, streams)), dim=1)


@pytest.mark.parametrize("kind", CORES)
@pytest.mark.parametrize(
    "rows", [[[8]], [[8, 1, 2, 3]], [[8, 1], [8, 4, 3, 2, 1, 5], [8]]], ids=["start", "one", "ragged"]
)
def test_cached_equals_uncached_also_past_the_context(kind, rows):
    made = model(kind)
    scores = []
    for cached in (True, False):
        session = Session.of_texts(made, rows, input="text", task="lm", vocabulary=9, cached=cached)
        found = []
        with torch.inference_mode():
            for step in range(40):
                found.append(session.scores())
                session.append(torch.full((len(rows),), step % 8))
        scores.append(torch.stack(found))
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", CORES)
def test_a_batch_of_prompts_gives_what_each_gives_alone(kind):
    rows = [[8, 1], [8, 4, 3, 2, 1, 5], [8]]
    together = continued(model(kind), rows, tokens=10)
    alone = torch.cat([continued(model(kind), [row], tokens=10) for row in rows])
    assert torch.equal(together, alone)


def test_past_the_context_half_is_kept():
    session = Session.of_texts(model(), [[8] * CONTEXT], input="text", task="lm", vocabulary=9)
    session.scores()
    session.append(torch.tensor([1]))
    assert session.columns == CONTEXT // 2 + 1 and session.ids.shape[1] == CONTEXT + 1
    session.scores()
    assert session.cache.length == CONTEXT // 2 + 1


def melody(notes: int) -> list[int]:
    """The start token and so many notes of five voices, each of which is the number of its voice."""
    return [8, *(number % 5 for number in range(notes))]


PERIODS = {"absolute": partial(Periodic, periods=[5])}


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("kind", ["learned", "rotary_grouped", "windows"])
@pytest.mark.parametrize(
    "notes", [[3], [12, 0, 14], [15], [16, 3], [40], [61, 7]], ids=["short", "ragged", "full", "more", "long", "both"]
)
def test_music_keeps_its_voices_past_the_context(monkeypatch, kind, cached, notes):
    """Wherever the window moves, the period of an index tells the voice, and the start token is in front."""
    read, made = [], model(kind, **PERIODS)
    monkeypatch.setattr(made.tokenizers["text"].position, "of", lambda chunks: read.append(chunks) or embed(chunks))
    embed = partial(Periodic.of, made.tokenizers["text"].position)
    rows = [melody(each) for each in notes]
    session = Session.of_texts(made, rows, input="text", task="lm", vocabulary=9, cached=cached)
    for step in range(40):
        session.scores()
        session.append(torch.tensor([(each + step) % 5 for each in notes]))
    assert len(read) >= 40
    for chunks in read:
        ids, index = chunks.values.flatten(), chunks.index.expand_as(chunks.values).flatten()
        assert torch.equal(ids == 8, index == 0) and torch.equal(ids[ids < 8], (index[ids < 8] - 1) % 5)
    held = session.columns
    assert CONTEXT // 2 <= held <= CONTEXT and session.ids.shape[1] == max(map(len, rows)) + 40 - lost(rows)


def lost(rows: list[list[int]]) -> int:
    """How many of the ids of the longest prompt are cut before it is read: whole periods."""
    return -(-max(max(map(len, rows)) - CONTEXT, 0) // 5) * 5


@pytest.mark.parametrize("kind", ["learned", "windows"])
def test_cached_equals_uncached_where_the_start_token_stays(kind):
    made, scores = model(kind, **PERIODS), []
    for cached in (True, False):
        session = Session.of_texts(made, [melody(3), melody(0)], input="text", task="lm", vocabulary=9, cached=cached)
        for step in range(40):
            scores.append(session.scores())
            session.append(torch.full((2,), step % 8))
    torch.testing.assert_close(torch.stack(scores[:40]), torch.stack(scores[40:]), rtol=1e-5, atol=1e-5)


def test_a_period_that_the_context_is_too_short_for_ends_the_music_there():
    made = model(absolute=partial(Periodic, periods=[3, 9]))
    session = Session.of_texts(made, [melody(3)], input="text", task="lm", vocabulary=9)
    assert session.most == CONTEXT - 4 and len(list(draw(session, session.most))) == CONTEXT - 4
    longer = Session.of_texts(made, [melody(30)], input="text", task="lm", vocabulary=9)
    assert longer.ids[0].tolist() == [8, *melody(30)[1 + 18 :]], "cut by two periods of 9"
    with pytest.raises(
        ValueError, match="a prompt of 18 tokens does not fit into the context of 16, .* only multiples of 21 tokens"
    ):
        made = model(absolute=partial(Periodic, periods=[3, 7]))
        Session.of_texts(made, [melody(17)], input="text", task="lm", vocabulary=9)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=3), st.integers(1, 20), st.integers(1, 9))
def test_rows_are_cut_by_whole_periods(lengths, most, period):
    rows = [[100, *range(length - 1)] for length in lengths]
    found = [cut(row, most, period) for row in rows]
    for row, kept in zip(rows, found):
        if period == 1 or len(row) <= most:
            assert kept == row[-most:]
        elif kept is not None:
            gone = len(row) - len(kept)
            assert kept == [100, *row[1 + gone :]] and gone % period == 0
            assert max(most - period, 0) < len(kept) <= most
        else:
            assert most < period


@pytest.mark.parametrize("kind", CORES)
@pytest.mark.parametrize("rows", [[[8, 1, 2]], [[8, 1], [8, 4, 3, 2, 1, 5]]], ids=["one", "ragged"])
@pytest.mark.parametrize("ends", [(), (8, 5)], ids=["endless", "ending"])
def test_beams_go_past_the_context(kind, rows, ends):
    """What beams find has the log-probability that it has when it is read again, token by token, without a cache."""
    made, names = model(kind), {"input": "text", "task": "lm", "vocabulary": 9}
    session = Session.of_texts(made, rows, **names, most=30)
    found = beam_search(session, ends, session.most, Search(beams=3, length_penalty=2.0))
    texts = [each.ids for each in found]
    again, logs = Session.of_texts(made, rows, **names, cached=False), [0.0] * len(rows)
    for place in range(max(map(len, texts))):
        next_ids = [text[place] if place < len(text) else 0 for text in texts]
        scores = again.scores().log_softmax(-1)
        for row, text in enumerate(texts):
            logs[row] += float(scores[row, next_ids[row]]) * (place < len(text))
        again.append(torch.tensor(next_ids))
    if ends:  # its own log-probability is not in `logs`
        assert all(each.log <= log + 2e-3 for each, log in zip(found, logs))
    else:
        assert [len(text) for text in texts] == [30] * len(rows)
        assert [each.log for each in found] == pytest.approx(logs, abs=2e-3)


def test_beams_without_a_cache_are_refused():
    session = Session.of_texts(model(), [[8]], input="text", task="lm", vocabulary=9, cached=False)
    with pytest.raises(ValueError, match="beam search needs the cache"):
        beam_search(session, [8], 3, Search(beams=2))


def test_padded_vocabulary_is_never_sampled():
    assert continued(model(), [[8]] * 64, tokens=30, sampling=Sampling(temperature=100.0), seed=0).max() < 9


def test_a_seed_gives_the_same_text():
    first, second, other = (continued(model(), [[8]], sampling=Sampling(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("gain", [True, False])
def test_the_lean_decoder_normalises_as_torch_does(dtype, gain):
    norm = RmsNorm(48, gain=gain).to(dtype)
    for x in (
        torch.randn(5, 48, dtype=dtype),
        torch.randn(2, 4, 1, 48, dtype=dtype) * 1e-3,
        torch.zeros(1, 48, dtype=dtype),
    ):
        torch.testing.assert_close(fast_norm(norm)(x), norm(x))


SCORES = st.lists(st.lists(st.floats(-8, 8, width=32), min_size=12, max_size=12), min_size=1, max_size=3)


@pytest.mark.parametrize("top_p", [1e-320, 1e-45, 1e-8, 0.3])
def test_the_likeliest_may_be_sampled_however_small_top_p_is(top_p):
    scores = torch.tensor([[0.0, 3.0, -1.0], [9.0, 9.0, 0.0]])
    found = Sampling(top_p=top_p).choose(scores, torch.zeros(2, 0, dtype=torch.long))
    assert found[0] == 1 and found[1] in (0, 1)


ANY_SCORES = st.lists(st.lists(st.floats(width=32), min_size=5, max_size=5), min_size=1, max_size=3)
WAYS = [
    {"temperature": 0.0},
    {},
    {"temperature": 1e-6},
    {"temperature": 1e6, "top_k": 2},
    {"top_p": 0.5},
    {"min_p": 0.5},
]


@given(ANY_SCORES, st.sampled_from(WAYS), st.sampled_from([1.0, 1e-3, 1e3]))
def test_scores_that_are_no_finite_numbers_choose_nothing(values, way, penalty):
    """Any 32-bit floats; also finite ones whose difference or quotient is not."""
    scores, sampling = torch.tensor(values), Sampling(**way, repetition_penalty=penalty)
    seen = torch.tensor([[1]] * len(values))
    found = sampling.choose(scores, seen).tolist()
    for row, id in zip(sampling._penalised(scores, seen).tolist(), found):
        finite = not any(map(math.isnan, row)) and math.isfinite(max(row))
        assert (id >= 0) == finite and (id < 0 or row[id] > -math.inf)


@pytest.mark.parametrize("size", [math.inf, math.nan])
def test_a_model_whose_outputs_are_no_numbers_writes_nothing(size):
    made = model()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(size)
    for sampling in (Sampling(temperature=0), Sampling(), Sampling(top_p=0.5)):
        with pytest.raises(ValueError, match="the model's outputs are NaN or infinite: its weights are damaged"):
            continued(made, [[8, 1], [8]], sampling=sampling, seed=0)
    session = Session.of_texts(made, [[8, 1], [8]], input="text", task="lm", vocabulary=9)
    with pytest.raises(ValueError, match="the model's outputs are NaN or infinite"):
        beam_search(session, [8], 3, Search(beams=2))


@given(SCORES, st.sampled_from([1, 3, 12, 50]), st.floats(0.05, 1), st.floats(0, 1), st.floats(0.3, 3))
def test_what_may_be_sampled_is_what_transformers_allows(values, top_k, top_p, min_p, temperature):
    scores = torch.tensor(values) + torch.arange(12) * 1e-3
    assume(all(len(set(row)) == 12 for row in scores.tolist()))  # which of two equal ones is kept, nobody says
    for ours, theirs in [
        (Sampling(top_k=top_k), logits_process.TopKLogitsWarper(top_k)),
        (Sampling(top_p=top_p), logits_process.TopPLogitsWarper(top_p)),
        (Sampling(min_p=min_p), logits_process.MinPLogitsWarper(min_p)),
    ]:
        expected = theirs(None, scores / temperature).softmax(-1)
        torch.testing.assert_close(ours._filtered(scores / temperature).softmax(-1), expected, rtol=1e-4, atol=2e-4)


@given(SCORES, st.floats(0.2, 3), st.lists(st.integers(0, 11), min_size=1, max_size=9))
def test_repetition_penalty_is_transformers(values, penalty, seen):
    scores, ids = torch.tensor(values), torch.tensor([seen] * len(values))
    expected = logits_process.RepetitionPenaltyLogitsProcessor(penalty)(ids, scores.clone())
    torch.testing.assert_close(Sampling(repetition_penalty=penalty)._penalised(scores, ids), expected)


def test_sampling_has_the_right_frequencies():
    scores = torch.tensor([[0.0, 1.0, 2.0]]).expand(20_000, 3)
    chosen = Sampling(temperature=0.7).choose(scores, torch.zeros(20_000, 1).long())
    expected = torch.softmax(torch.tensor([0.0, 1.0, 2.0]) / 0.7, dim=0)
    torch.testing.assert_close(torch.bincount(chosen) / 20_000, expected, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"temperature": -0.1}, "temperature is -0.1; it must be 0, or from 1e-6"),
        ({"temperature": 1e-320}, "temperature is 1e-320; it must be 0, or from 1e-6 to 1e6"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"repetition_penalty": 1e308}, "must be from 0.001 to 1000"),
        ({"top_k": 0}, "top_k is 0; it must be at least 1"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"min_p": 2.0}, "min_p is 2.0; it must be between 0 and 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        Sampling(**settings)


@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=3), max_size=2))
def test_text_is_written_whole_and_ends_before_a_stop(text, stops):
    """Whatever the letters and the stops: the pieces join to the text up to the first stop, and every piece is text."""
    encoding = ByteEncoding()
    writer = WrittenText(encoding.stream(), encoding.ends, stops)
    written = "".join(writer.write(id) for id in encoding.encode(text)) + writer.finish()
    ends = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    assert written == text[: min(ends)] if ends else written == text


@pytest.fixture
def run(tiny_run):
    return tiny_run


def test_command_line_streams_from_a_prompt_and_from_the_start(run, capsys):
    assert main(["generate", str(run), "--prompt", "chop ", "--max-tokens", "8", "--temperature", "0"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("chop ") and len(first.strip()) > 5
    assert (
        main(["generate", str(run), "--prompt", "chop ", "--max-tokens", "8", "--temperature", "0", "--no-cache"]) == 0
    )
    assert capsys.readouterr().out == first
    assert main(["generate", str(run), "--max-tokens", "5", "--seed", "3"]) == 0
    assert len(capsys.readouterr().out) <= 6
    assert main(["generate", str(run), "--prompt", "mix " * 9, "--max-tokens", "2"]) == 0
    assert "37 tokens; only the last 16 fit into the context" in capsys.readouterr().err


@pytest.fixture
def prompts(tmp_path):
    (tmp_path / "prompts.txt").write_text("chop\nmix mi\n\nset\r\n")
    return ["--prompts", str(tmp_path / "prompts.txt"), "--max-tokens", "6", "--temperature", "0"]


def test_command_line_reads_a_file_of_prompts(run, capsys, prompts):
    """An answer for each line, in its place; an empty one for an empty line."""
    assert main(["generate", str(run), *prompts]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["prompt"] for line in found] == ["chop", "mix mi", "", "set"] and found.pop(2)["text"] == ""
    loaded = load_run(run)
    alone = [loaded.generate(line["prompt"], max_tokens=6, sampling=Sampling(temperature=0)) for line in found]
    assert [line["text"] for line in found] == alone


@pytest.mark.parametrize("count", [1, 2])
def test_prompts_are_answered_in_a_file(run, capsys, prompts, tmp_path, count):
    more = [*prompts, "--count", str(count), "--output"]
    assert main(["generate", str(run), *more, str(tmp_path / "a.txt")]) == 0
    assert main(["generate", str(run), *more, str(tmp_path / "a.jsonl")]) == 0
    capsys.readouterr()
    assert main(["generate", str(run), *prompts, "--count", str(count)]) == 0
    printed = capsys.readouterr().out
    answers = [json.loads(line) for line in printed.splitlines()]
    assert (tmp_path / "a.jsonl").read_text() == printed and len(answers) == 4 * count
    assert [each["prompt"] for each in answers] == [p for p in ("chop", "mix mi", "", "set") for _ in range(count)]
    lines = (tmp_path / "a.txt").read_text().split("\n")
    assert lines == [*(each["text"] for each in answers), ""]


def test_a_line_break_in_an_answer_is_told(run, capsys, monkeypatch, tmp_path, prompts):
    monkeypatch.setattr(Run, "generate", lambda self, prompts, **more: [f"{each}\r\n!\n" for each in prompts])
    file = str(tmp_path / "a.txt")
    assert main(["generate", str(run), *prompts, "--output", file]) == 0
    assert (tmp_path / "a.txt").read_text() == "chop ! \nmix mi ! \n\nset ! \n"
    assert f"{file}: line breaks in 3 of 4 texts are written as spaces; a .jsonl file keeps" in capsys.readouterr().err
    assert main(["generate", str(run), "--prompt", "chop", "--output", str(tmp_path / "b.txt")]) == 0
    assert (tmp_path / "b.txt").read_bytes() == b"chop\r\n!\n\n", "one text stays as it is"


def test_so_many_texts_are_printed(run, capsys):
    assert main(["generate", str(run), "--prompt", "chop", "--count", "3", "--max-tokens", "5", "--seed", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = load_run(run).generate(["chop"] * 3, max_tokens=5, seed=1)
    assert lines == [f"chop{text}" for text in expected] and len({*expected}) > 1
    assert main(["generate", str(run), "--count", "0"]) == 2
    assert "--count is 0; it must be at least 1" in capsys.readouterr().err


def test_a_file_of_empty_lines_is_no_prompt(run, capsys, tmp_path):
    (tmp_path / "none.txt").write_text("\n\n")
    assert main(["generate", str(run), "--prompts", str(tmp_path / "none.txt")]) == 2
    assert "none.txt contains no prompt; write one prompt per line" in capsys.readouterr().err


def test_a_misspelled_option_is_told_with_the_nearest(run):
    loaded = load_run(run)
    for write in (loaded.generate, loaded.stream, lambda **options: loaded.predict([], **options)):
        with pytest.raises(TypeError, match="^there is no option 'temprature'; did you mean 'temperature'\\?$"):
            write(temprature=2)
        with pytest.raises(TypeError, match="^there is no option 'foo'; possible: prompt, max_tokens, .*penalty$"):
            write(foo=2)
    with pytest.raises(TypeError, match="^there is no option 'beam'; did you mean 'beams'\\?$"):
        loaded.searching(beam=2)


def test_a_stop_text_alone_would_be_its_letters(run):
    with pytest.raises(ValueError, match="stop must be a list of texts; write stop=\\['END'\\]"):
        load_run(run).generate("chop", stop="END")


def test_a_field_of_the_sampling_changes_that_which_is_given():
    how = Generating.of({"sampling": Sampling(top_k=5), "temperature": 0.5})
    assert how.sampling == Sampling(top_k=5, temperature=0.5)


def test_one_text_can_be_streamed_by_itself(run):
    loaded = load_run(run)
    pieces = list(loaded.stream("chop", max_tokens=4, temperature=0))
    assert "".join(piece for (piece,) in pieces) == loaded.generate("chop", max_tokens=4, temperature=0)
    assert loaded.generate([]) == []


@pytest.mark.parametrize(
    "options, said",
    [
        (["--temperature", "-1"], "temperature is -1.0; it must be 0, or from 1e-6"),
        (["--prompt", "CHOP"], "character 'C' (U+0043) at position 0 is not among"),
        (["--max-tokens", "0"], "max_tokens is 0; it must be at least 1"),
        (["--prompts", "/nowhere/prompts.txt"], "prompts.txt"),
    ],
)
def test_command_line_mistakes(run, capsys, options, said):
    assert main(["generate", str(run), *options]) == 2
    assert said in capsys.readouterr().err


def test_a_stop_text_and_no_run(run, capsys, tmp_path):
    loaded = load_run(run)
    plain = loaded.generate("chop", max_tokens=30, sampling=Sampling(temperature=0))
    stopped = loaded.generate("chop", max_tokens=30, sampling=Sampling(temperature=0), stop=[plain[3:5]])
    assert stopped == plain[: plain.find(plain[3:5])]
    assert main(["generate", str(tmp_path)]) == 2
    assert "is not a run" in capsys.readouterr().err


def test_a_text_is_searched_for_on_the_command_line(run, capsys):
    command = ["generate", str(run), "--prompt", "chop", "--max-tokens", "30"]
    texts = []
    for flags in (["--temperature", "0"], ["--beams", "1"], ["--beams", "3", "--no-repeat", "2"]):
        assert main([*command, *flags]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    found = texts[2].removesuffix("\n")
    assert all(found.count(found[n : n + 2]) == 1 for n in range(len(found) - 1))
    assert main([*command, "--beams", "3", "--no-repeat", "2", "--stop", found[6:8]]) == 0
    assert capsys.readouterr().out.removesuffix("\n") == found[:6]
    assert main([*command, "--beams", "3", "--top-k", "2"]) == 2
    assert "--beams (beam search) and --top-k (random sampling) cannot be combined" in capsys.readouterr().err
    assert main([*command, "--beams", "3", "--no-cache"]) == 2
    assert "beam search needs the cache of keys and values, which is switched off" in capsys.readouterr().err


def test_evaluate_on_the_command_line(run, capsys, tmp_path):
    (tmp_path / "other.txt").write_text("mix chop set " * 9)
    file = tmp_path / "figures.json"
    assert (
        main(["evaluate", str(run), "--data", str(tmp_path / "other.txt"), "--split", "test", "--json", str(file)]) == 0
    )
    figures = json.loads(file.read_text())
    assert figures["test/bits_per_byte"] > 0 and "test/loss" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--checkpoint", "last"]) == 0
    recorded = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [sorted(line)[-1] for line in recorded] == ["test/perplexity", "val/perplexity"]
    assert main(["evaluate", str(run), "--split", "tset"]) == 2
    assert "has no split 'tset'; possible: train, val" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--data", "tiny_shakespear"]) == 2
    assert "did you mean 'tiny_shakespeare'?" in capsys.readouterr().err


def test_every_position_is_counted_once_whatever_the_rows(run):
    loaded = load_run(run)
    one, many = (loaded.evaluate("val", rows=rows)["val/loss"] for rows in (1, 64))
    assert one == pytest.approx(many, rel=1e-6)
