"""Generation: a cache changes nothing, within and after the context; samples are chosen as in transformers; texts are
written completely."""

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


def small_model(kind: str = "learned", seed: int = 0, absolute=Learned) -> Model:
    torch.manual_seed(seed)
    chopper = TextChopper(vocabulary=CharacterEncoding("abcdefgh"))
    tokenizers = {"text": TextTokenizer(chopper, 32, CONTEXT, position=absolute, norm=RmsNorm, pad_vocabulary_to=16)}
    core = core_of(["text"], width=32, depth=2, heads=4, **CORES[kind])
    task = LanguageModeling(target="text")
    model = Model(tokenizers, Cores(core), {"lm": task.head(tokenizers, 32)}, context=CONTEXT)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model.eval()


def continued(model: Model, rows, tokens=40, sampling=Sampling(temperature=0), cached=True, seed=None):
    session = Session.of_texts(model, rows, input="text", task="lm", vocabulary=9, cached=cached)
    streams = None if seed is None else Streams.of(len(session.ids), seed)
    return torch.stack(list(draw(session, tokens, sampling, streams)), dim=1)


@pytest.mark.parametrize("kind", CORES)
@pytest.mark.parametrize(
    "rows", [[[8]], [[8, 1, 2, 3]], [[8, 1], [8, 4, 3, 2, 1, 5], [8]]], ids=["start", "one", "ragged"]
)
def test_cached_equals_uncached_within_and_after_the_context(kind, rows):
    model = small_model(kind)
    scores = []
    for cached in (True, False):
        session = Session.of_texts(model, rows, input="text", task="lm", vocabulary=9, cached=cached)
        scores_of_steps = []
        with torch.inference_mode():
            for step in range(40):
                scores_of_steps.append(session.scores())
                session.append(torch.full((len(rows),), step % 8))
        scores.append(torch.stack(scores_of_steps))
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", CORES)
def test_a_batch_of_prompts_gives_the_texts_of_each_prompt_alone(kind):
    rows = [[8, 1], [8, 4, 3, 2, 1, 5], [8]]
    together = continued(small_model(kind), rows, tokens=10)
    alone = torch.cat([continued(small_model(kind), [row], tokens=10) for row in rows])
    assert torch.equal(together, alone)


def test_half_of_the_context_is_kept_when_it_is_full():
    session = Session.of_texts(small_model(), [[8] * CONTEXT], input="text", task="lm", vocabulary=9)
    session.scores()
    session.append(torch.tensor([1]))
    assert session.columns == CONTEXT // 2 + 1 and session.ids.shape[1] == CONTEXT + 1
    session.scores()
    assert session.cache.length == CONTEXT // 2 + 1


def melody(notes: int) -> list[int]:
    """The start token and `notes` notes of five voices; each note is the number of its voice."""
    return [8, *(number % 5 for number in range(notes))]


PERIODS = {"absolute": partial(Periodic, periods=[5])}


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("kind", ["learned", "rotary_grouped", "windows"])
@pytest.mark.parametrize(
    "notes", [[3], [12, 0, 14], [15], [16, 3], [40], [61, 7]], ids=["short", "ragged", "full", "more", "long", "both"]
)
def test_music_keeps_its_voices_after_the_context(monkeypatch, kind, cached, notes):
    """Wherever the context begins, the position of a note modulo the period is its voice, and the start token is
    first."""
    read_chunks, model = [], small_model(kind, **PERIODS)
    monkeypatch.setattr(
        model.tokenizers["text"].position, "of", lambda chunks: read_chunks.append(chunks) or embed(chunks)
    )
    embed = partial(Periodic.of, model.tokenizers["text"].position)
    rows = [melody(each) for each in notes]
    session = Session.of_texts(model, rows, input="text", task="lm", vocabulary=9, cached=cached)
    for step in range(40):
        session.scores()
        session.append(torch.tensor([(each + step) % 5 for each in notes]))
    assert len(read_chunks) >= 40
    for chunks in read_chunks:
        ids, index = chunks.values.flatten(), chunks.index.expand_as(chunks.values).flatten()
        assert torch.equal(ids == 8, index == 0) and torch.equal(ids[ids < 8], (index[ids < 8] - 1) % 5)
    columns = session.columns
    assert CONTEXT // 2 <= columns <= CONTEXT and session.ids.shape[1] == max(map(len, rows)) + 40 - ids_cut(rows)


def ids_cut(rows: list[list[int]]) -> int:
    """How many ids of the longest prompt are removed before it is read: whole periods."""
    return -(-max(max(map(len, rows)) - CONTEXT, 0) // 5) * 5


@pytest.mark.parametrize("kind", ["learned", "windows"])
def test_cached_equals_uncached_where_the_start_token_stays(kind):
    model, scores = small_model(kind, **PERIODS), []
    for cached in (True, False):
        session = Session.of_texts(model, [melody(3), melody(0)], input="text", task="lm", vocabulary=9, cached=cached)
        for step in range(40):
            scores.append(session.scores())
            session.append(torch.full((2,), step % 8))
    torch.testing.assert_close(torch.stack(scores[:40]), torch.stack(scores[40:]), rtol=1e-5, atol=1e-5)


def test_generation_ends_where_no_whole_period_fits_into_the_context():
    model = small_model(absolute=partial(Periodic, periods=[3, 9]))
    session = Session.of_texts(model, [melody(3)], input="text", task="lm", vocabulary=9)
    assert session.most == CONTEXT - 4 and len(list(draw(session, session.most))) == CONTEXT - 4
    longer = Session.of_texts(model, [melody(30)], input="text", task="lm", vocabulary=9)
    assert longer.ids[0].tolist() == [8, *melody(30)[1 + 18 :]], "cut by two periods of 9"
    with pytest.raises(
        ValueError, match="a prompt of 18 tokens does not fit into the context of 16, .* only multiples of 21 tokens"
    ):
        model = small_model(absolute=partial(Periodic, periods=[3, 7]))
        Session.of_texts(model, [melody(17)], input="text", task="lm", vocabulary=9)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=3), st.integers(1, 20), st.integers(1, 9))
def test_rows_are_cut_by_whole_periods(lengths, most, period):
    rows = [[100, *range(length - 1)] for length in lengths]
    cut_rows = [cut(row, most, period) for row in rows]
    for row, kept in zip(rows, cut_rows):
        if period == 1 or len(row) <= most:
            assert kept == row[-most:]
        elif kept is not None:
            removed = len(row) - len(kept)
            assert kept == [100, *row[1 + removed :]] and removed % period == 0
            assert max(most - period, 0) < len(kept) <= most
        else:
            assert most < period


@pytest.mark.parametrize("kind", CORES)
@pytest.mark.parametrize("rows", [[[8, 1, 2]], [[8, 1], [8, 4, 3, 2, 1, 5]]], ids=["one", "ragged"])
@pytest.mark.parametrize("ends", [(), (8, 5)], ids=["endless", "ending"])
def test_beam_search_continues_after_the_context(kind, rows, ends):
    """The log-probability of a text equals the sum over its tokens, read one by one without a cache."""
    model, names = small_model(kind), {"input": "text", "task": "lm", "vocabulary": 9}
    session = Session.of_texts(model, rows, **names, most=30)
    results = beam_search(session, ends, session.most, Search(beams=3, length_penalty=2.0))
    texts = [each.ids for each in results]
    uncached, logs = Session.of_texts(model, rows, **names, cached=False), [0.0] * len(rows)
    for place in range(max(map(len, texts))):
        next_ids = [text[place] if place < len(text) else 0 for text in texts]
        scores = uncached.scores().log_softmax(-1)
        for row, text in enumerate(texts):
            logs[row] += float(scores[row, next_ids[row]]) * (place < len(text))
        uncached.append(torch.tensor(next_ids))
    if ends:  # the log-probability of the end is not in `logs`
        assert all(each.log <= log + 2e-3 for each, log in zip(results, logs))
    else:
        assert [len(text) for text in texts] == [30] * len(rows)
        assert [each.log for each in results] == pytest.approx(logs, abs=2e-3)


def test_beams_without_a_cache_are_refused():
    session = Session.of_texts(small_model(), [[8]], input="text", task="lm", vocabulary=9, cached=False)
    with pytest.raises(ValueError, match="beam search needs the cache"):
        beam_search(session, [8], 3, Search(beams=2))


def test_padded_vocabulary_is_never_sampled():
    assert continued(small_model(), [[8]] * 64, tokens=30, sampling=Sampling(temperature=100.0), seed=0).max() < 9


def test_a_seed_gives_the_same_text():
    first, second, other = (continued(small_model(), [[8]], sampling=Sampling(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("gain", [True, False])
def test_the_fast_decoder_normalises_as_torch_does(dtype, gain):
    norm = RmsNorm(48, gain=gain).to(dtype)
    for x in (
        torch.randn(5, 48, dtype=dtype),
        torch.randn(2, 4, 1, 48, dtype=dtype) * 1e-3,
        torch.zeros(1, 48, dtype=dtype),
    ):
        torch.testing.assert_close(fast_norm(norm)(x), norm(x))


SCORES = st.lists(st.lists(st.floats(-8, 8, width=32), min_size=12, max_size=12), min_size=1, max_size=3)


@pytest.mark.parametrize("top_p", [1e-320, 1e-45, 1e-8, 0.3])
def test_the_most_probable_id_may_be_sampled_with_any_small_top_p(top_p):
    scores = torch.tensor([[0.0, 3.0, -1.0], [9.0, 9.0, 0.0]])
    ids = Sampling(top_p=top_p).choose(scores, torch.zeros(2, 0, dtype=torch.long))
    assert ids[0] == 1 and ids[1] in (0, 1)


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
def test_no_id_is_chosen_from_scores_that_are_not_finite(values, way, penalty):
    """Any 32-bit floats; also finite scores whose difference or quotient is not finite."""
    scores, sampling = torch.tensor(values), Sampling(**way, repetition_penalty=penalty)
    previous_ids = torch.tensor([[1]] * len(values))
    chosen = sampling.choose(scores, previous_ids).tolist()
    for row, id in zip(sampling._penalised(scores, previous_ids).tolist(), chosen):
        finite = not any(map(math.isnan, row)) and math.isfinite(max(row))
        assert (id >= 0) == finite and (id < 0 or row[id] > -math.inf)


@pytest.mark.parametrize("size", [math.inf, math.nan])
def test_a_model_with_nan_or_infinite_outputs_writes_nothing(size):
    model = small_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(size)
    for sampling in (Sampling(temperature=0), Sampling(), Sampling(top_p=0.5)):
        with pytest.raises(ValueError, match="the model's outputs are NaN or infinite: its weights are damaged"):
            continued(model, [[8, 1], [8]], sampling=sampling, seed=0)
    session = Session.of_texts(model, [[8, 1], [8]], input="text", task="lm", vocabulary=9)
    with pytest.raises(ValueError, match="the model's outputs are NaN or infinite"):
        beam_search(session, [8], 3, Search(beams=2))


@given(SCORES, st.sampled_from([1, 3, 12, 50]), st.floats(0.05, 1), st.floats(0, 1), st.floats(0.3, 3))
def test_the_ids_that_may_be_sampled_are_those_of_transformers(values, top_k, top_p, min_p, temperature):
    scores = torch.tensor(values) + torch.arange(12) * 1e-3
    assume(all(len(set(row)) == 12 for row in scores.tolist()))  # which of two equal scores is kept is not defined
    for ours, theirs in [
        (Sampling(top_k=top_k), logits_process.TopKLogitsWarper(top_k)),
        (Sampling(top_p=top_p), logits_process.TopPLogitsWarper(top_p)),
        (Sampling(min_p=min_p), logits_process.MinPLogitsWarper(min_p)),
    ]:
        expected = theirs(None, scores / temperature).softmax(-1)
        torch.testing.assert_close(ours._filtered(scores / temperature).softmax(-1), expected, rtol=1e-4, atol=2e-4)


@given(SCORES, st.floats(0.2, 3), st.lists(st.integers(0, 11), min_size=1, max_size=9))
def test_the_repetition_penalty_equals_that_of_transformers(values, penalty, previous_ids):
    scores, ids = torch.tensor(values), torch.tensor([previous_ids] * len(values))
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
def test_settings_out_of_their_range_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        Sampling(**settings)


@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=3), max_size=2))
def test_text_is_complete_and_ends_before_a_stop_text(text, stops):
    """For any text and stop texts: the joined pieces are the text up to the first stop text."""
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
    """One answer per line, in the order of the lines; an empty answer for an empty line."""
    assert main(["generate", str(run), *prompts]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["prompt"] for line in answers] == ["chop", "mix mi", "", "set"] and answers.pop(2)["text"] == ""
    loaded = load_run(run)
    alone = [loaded.generate(line["prompt"], max_tokens=6, sampling=Sampling(temperature=0)) for line in answers]
    assert [line["text"] for line in answers] == alone


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


def test_a_warning_names_line_breaks_that_are_written_as_spaces(run, capsys, monkeypatch, tmp_path, prompts):
    monkeypatch.setattr(Run, "generate", lambda self, prompts, **more: [f"{each}\r\n!\n" for each in prompts])
    file = str(tmp_path / "a.txt")
    assert main(["generate", str(run), *prompts, "--output", file]) == 0
    assert (tmp_path / "a.txt").read_text() == "chop ! \nmix mi ! \n\nset ! \n"
    assert f"{file}: line breaks in 3 of 4 texts are written as spaces; a .jsonl file keeps" in capsys.readouterr().err
    assert main(["generate", str(run), "--prompt", "chop", "--output", str(tmp_path / "b.txt")]) == 0
    assert (tmp_path / "b.txt").read_bytes() == b"chop\r\n!\n\n", "one text stays as it is"


def test_count_texts_are_printed(run, capsys):
    assert main(["generate", str(run), "--prompt", "chop", "--count", "3", "--max-tokens", "5", "--seed", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = load_run(run).generate(["chop"] * 3, max_tokens=5, seed=1)
    assert lines == [f"chop{text}" for text in expected] and len({*expected}) > 1
    assert main(["generate", str(run), "--count", "0"]) == 2
    assert "--count is 0; it must be at least 1" in capsys.readouterr().err


def test_a_file_of_empty_lines_is_refused(run, capsys, tmp_path):
    (tmp_path / "none.txt").write_text("\n\n")
    assert main(["generate", str(run), "--prompts", str(tmp_path / "none.txt")]) == 2
    assert "none.txt contains no prompt; write one prompt per line" in capsys.readouterr().err


def test_a_misspelled_option_is_refused_with_the_nearest_name(run):
    loaded = load_run(run)
    for write in (loaded.generate, loaded.stream, lambda **options: loaded.predict([], **options)):
        with pytest.raises(TypeError, match="^there is no option 'temprature'; did you mean 'temperature'\\?$"):
            write(temprature=2)
        with pytest.raises(TypeError, match="^there is no option 'foo'; possible: prompt, max_tokens, .*penalty$"):
            write(foo=2)
    with pytest.raises(TypeError, match="^there is no option 'beam'; did you mean 'beams'\\?$"):
        loaded.searching(beam=2)


def test_a_stop_text_that_is_not_in_a_list_is_refused(run):
    with pytest.raises(ValueError, match="stop must be a list of texts; write stop=\\['END'\\]"):
        load_run(run).generate("chop", stop="END")


def test_a_sampling_option_changes_the_sampling_that_was_passed():
    how = Generating.of({"sampling": Sampling(top_k=5), "temperature": 0.5})
    assert how.sampling == Sampling(top_k=5, temperature=0.5)


def test_one_text_can_be_streamed(run):
    loaded = load_run(run)
    pieces = list(loaded.stream("chop", max_tokens=4, temperature=0))
    assert "".join(piece for (piece,) in pieces) == loaded.generate("chop", max_tokens=4, temperature=0)
    assert loaded.generate([]) == []


@pytest.mark.parametrize(
    "options, message",
    [
        (["--temperature", "-1"], "temperature is -1.0; it must be 0, or from 1e-6"),
        (["--prompt", "CHOP"], "character 'C' (U+0043) at position 0 is not among"),
        (["--max-tokens", "0"], "max_tokens is 0; it must be at least 1"),
        (["--prompts", "/nowhere/prompts.txt"], "prompts.txt"),
    ],
)
def test_mistakes_on_the_command_line_have_a_message(run, capsys, options, message):
    assert main(["generate", str(run), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_stop_text_ends_a_text_and_a_folder_without_a_run_is_refused(run, capsys, tmp_path):
    loaded = load_run(run)
    plain = loaded.generate("chop", max_tokens=30, sampling=Sampling(temperature=0))
    stopped = loaded.generate("chop", max_tokens=30, sampling=Sampling(temperature=0), stop=[plain[3:5]])
    assert stopped == plain[: plain.find(plain[3:5])]
    assert main(["generate", str(tmp_path)]) == 2
    assert "is not a run" in capsys.readouterr().err


def test_beam_search_on_the_command_line(run, capsys):
    command = ["generate", str(run), "--prompt", "chop", "--max-tokens", "30"]
    texts = []
    for flags in (["--temperature", "0"], ["--beams", "1"], ["--beams", "3", "--no-repeat", "2"]):
        assert main([*command, *flags]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    text = texts[2].removesuffix("\n")
    assert all(text.count(text[n : n + 2]) == 1 for n in range(len(text) - 1))
    assert main([*command, "--beams", "3", "--no-repeat", "2", "--stop", text[6:8]]) == 0
    assert capsys.readouterr().out.removesuffix("\n") == text[:6]
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


def test_the_number_of_rows_does_not_change_the_loss(run):
    loaded = load_run(run)
    one, many = (loaded.evaluate("val", rows=rows)["val/loss"] for rows in (1, 64))
    assert one == pytest.approx(many, rel=1e-6)
