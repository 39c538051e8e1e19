"""CTC: the loss equals torch's and the sum over all paths, texts are decoded exactly, and texts that cannot be aligned
are reported and left out."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
import yaml
from batching import asked, make_batch
from chopmix.commands.cli import main
from chopmix.data.skipped import LeftOut
from chopmix.experiment.build import open_split
from chopmix.experiment.run import load_run
from chopmix.inference.evaluators.attribution import check_counts
from chopmix.models.batch import Batch, Chunks, SetPlan
from chopmix.models.generation.ctc import collapsed, greedy, prefix_beam, spans, tokens_needed
from chopmix.models.tokens import Tokens
from chopmix.tasks.ctc import Ctc, Symbols
from hypothesis import given, settings
from hypothesis import strategies as st

BLANK = 2


def scores(seed: int, tokens: int = 5, symbols: int = 2) -> torch.Tensor:
    """Log-probabilities of two symbols and the blank."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(tokens, symbols + 1, generator=generator, dtype=torch.float64)).log_softmax(-1)


def by_enumeration(logs: torch.Tensor) -> dict[tuple[int, ...], float]:
    """The probability of every text, summed over all paths."""
    chances: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(logs.shape[1]), repeat=len(logs)):
        text = tuple(collapsed(path, logs.shape[1] - 1))
        chances[text] = chances.get(text, 0.0) + math.exp(sum(float(logs[t, s]) for t, s in enumerate(path)))
    return chances


@given(st.lists(st.integers(0, 2), max_size=12))
def test_a_path_collapses_by_definition(path):
    merged = [key for key, _ in itertools.groupby(path)]
    assert collapsed(path, BLANK) == [symbol for symbol in merged if symbol != BLANK]


@given(st.lists(st.integers(0, 1), max_size=5), st.integers(0, 8))
def test_tokens_needed_is_the_smallest_number_of_tokens(text, tokens):
    """A number of tokens is enough for a text exactly if some path of that length collapses to the text."""
    possible = any(collapsed(path, BLANK) == text for path in itertools.product(range(3), repeat=min(tokens, 6)))
    assert possible == (min(tokens, 6) >= tokens_needed(text))


@pytest.mark.parametrize("seed", range(8))
def test_the_prefix_beam_finds_the_likeliest_text(seed):
    logs = scores(seed)
    chances = by_enumeration(logs)
    assert sum(chances.values()) == pytest.approx(1)
    assert tuple(prefix_beam(logs, 100)) == max(chances, key=chances.get)
    assert greedy(logs) == collapsed(logs.argmax(-1).tolist(), BLANK)


def test_the_greedy_path_is_not_always_the_likeliest_text():
    logs = torch.tensor([[0.4, 0.0, 0.6], [0.4, 0.0, 0.6]], dtype=torch.float64).clamp(min=1e-30).log()
    assert greedy(logs) == [] and prefix_beam(logs, 8) == [0]  # 0.36 against 0.64


def test_spans_are_the_tokens_of_each_symbol():
    logs = torch.full((8, 3), -10.0)
    for token, symbol in enumerate([2, 0, 0, 2, 0, 1, 1, 2]):
        logs[token, symbol] = -0.01
    assert spans(logs, [0, 0, 1]) == [(1, 3), (4, 5), (5, 7)]
    assert spans(logs, []) == []
    with pytest.raises(ValueError, match="9 symbols need 17 tokens; there are 8"):
        spans(logs, [0] * 9)


@given(st.integers(0, 5), st.lists(st.integers(0, 1), min_size=1, max_size=4), st.data())
def test_the_alignment_is_the_likeliest_path(spare, text, data):
    """Compared with all paths; scores are often equal, and some symbols are impossible."""
    tokens = min(tokens_needed(text) + spare, 7)
    columns = st.lists(st.sampled_from([0.0, -0.5, -1.0, -2.0, -math.inf]), min_size=3, max_size=3)
    logs = torch.tensor(data.draw(st.lists(columns, min_size=tokens, max_size=tokens)))
    paths = [path for path in itertools.product(range(3), repeat=tokens) if collapsed(path, BLANK) == text]
    score = {path: sum(float(logs[token, symbol]) for token, symbol in enumerate(path)) for path in paths}
    aligned = [BLANK] * tokens
    for symbol, (start, end) in zip(text, spans(logs, text), strict=True):
        assert start < end
        aligned[start:end] = [symbol] * (end - start)
    assert score[tuple(aligned)] == max(score.values())


@given(st.integers(1, 6), st.integers(1, 60), st.integers(0, 10**6), st.data())
@settings(max_examples=50)
def test_the_alignment_is_torchaudios(symbols, tokens, seed, data):
    from torchaudio.functional import forced_align, merge_tokens

    logs = scores(seed, tokens, symbols)
    text = data.draw(st.lists(st.integers(0, symbols - 1), min_size=1, max_size=tokens))
    text = text[: max(n for n in range(len(text) + 1) if tokens_needed(text[:n]) <= tokens)]
    path, chances = forced_align(logs[None], torch.tensor([text], dtype=torch.int32), blank=symbols)
    assert spans(logs, text) == [(span.start, span.end) for span in merge_tokens(path[0], chances[0], symbols)]


def planned(counts: list[int], texts: list[str | None]) -> SetPlan:
    """Samples with these numbers of tokens, one sample per row."""
    n = max([*counts, 1])
    sample = torch.arange(1, len(counts) + 1)[:, None] * (torch.arange(n) < torch.tensor(counts)[:, None])
    position = torch.arange(n).float().expand(len(counts), n)[..., None]
    tokens = Tokens(input=(sample > 0).long(), sample=sample, item=sample, position=position)
    places = (sample > 0).flatten().nonzero()[:, 0]
    seconds = torch.cat([torch.arange(1, count + 1)[:, None] * 0.1 for count in counts])
    chunks = Chunks(values=torch.zeros(len(places)), index=torch.zeros_like(places), slots=places, coordinates=seconds,
                    counts=torch.tensor([count for count in counts if count]))  # fmt: skip
    keys = tuple(f"clip {number}" for number in range(len(counts)))
    return SetPlan(tokens=tokens, chunks={"sound": chunks}, samples=len(counts), labels={"text": texts}, keys=keys)


def task(**options) -> Ctc:
    """A recogniser of two symbols."""
    return with_symbols(Ctc(target="text", source="sound", **options), "ab")


def with_symbols(ctc: Ctc, symbols: str) -> Ctc:
    """A recogniser of these symbols."""
    ctc.learned = Symbols(symbols)
    return ctc


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_that_of_all_paths(seed):
    ctc, texts = task(), ["ab", "", "aa"]
    sets = planned([4, 3, 5], texts)
    targets = asked(ctc, sets)
    output = torch.randn(12, 3, generator=torch.Generator().manual_seed(seed))
    expected, start = 0.0, 0
    for text, count in zip(texts, [4, 3, 5]):
        chances = by_enumeration(output[start : start + count].double().log_softmax(-1))
        expected -= math.log(chances[tuple("ab".index(symbol) for symbol in text)])
        start += count
    assert float(ctc.terms(output, targets)["loss"]) == pytest.approx(expected, rel=1e-5)
    assert targets.count == 5  # two and two symbols, and an empty text


def test_texts_that_cannot_be_aligned_are_reported_counted_and_left_out():
    messages: list[str] = []
    ctc, left_out = task(), LeftOut(messages.append)
    whole = planned([4, 2, 3], ["ab", "aa", "b"])  # "aa" needs three tokens
    targets = asked(ctc, whole)
    left_out.note("text", targets.left_out)
    reason = "2 symbols need 3 tokens, but its sound has 2"
    assert messages == [f"clip 1 cannot be aligned and is excluded from the loss: {reason} (1 so far)"]
    assert targets.count == 3 and targets.lengths.tolist() == [2, -1, 1]
    output = torch.randn(len(targets.slots), 3, requires_grad=True)
    loss = ctc.terms(output, targets)["loss"]
    loss.backward()
    assert loss.isfinite() and output.grad.isfinite().all()
    without = planned([4, 3], ["ab", "b"])
    again = asked(ctc, without)
    kept = output.detach()[[0, 1, 2, 3, 6, 7, 8]]
    torch.testing.assert_close(ctc.terms(kept, again)["loss"], loss.detach())
    assert output.grad[4:6].abs().sum() == 0
    left_out.note("text", asked(ctc, whole).left_out)
    assert len(messages) == 1 and len(left_out["text"]) == 1  # reported once


def test_a_batch_without_texts_that_can_be_aligned_has_no_loss():
    ctc = task()
    targets = asked(ctc, planned([1, 1], ["ab", None]))
    output = torch.zeros(2, 3, requires_grad=True)
    assert targets.count == 0 and float(ctc.terms(output, targets)["loss"].detach()) == 0


def test_an_unknown_symbol_is_refused():
    with pytest.raises(ValueError, match="'x' in column 'text' is not one of the 2 symbols"):
        asked(task(), planned([4], ["axb"]))
    with pytest.raises(ValueError, match="beams must be from 1 to 1,000, not 0"):
        task(beams=0)


@pytest.mark.parametrize("beams", [1, 8])
def test_words_have_start_and_end_times(beams):
    ctc = with_symbols(Ctc(target="text", source="sound", beams=beams), " ab")
    output = torch.full((9, 4), -9.0)
    for token, symbol in enumerate([3, 1, 1, 0, 2, 3, 2, 3, 3]):  # "a bb"
        output[token, symbol] = 9.0
    sets = planned([9, 0], ["a bb", ""])
    answers = ctc.answers(output, asked(ctc, sets), Batch(main=sets))
    assert answers == [
        {"text": "a bb", "words": [{"word": "a", "start": 0.1, "end": 0.3}, {"word": "bb", "start": 0.4, "end": 0.7}]},
        {"text": ""},
    ]
    cut_short = replace(sets, labels={"text": ["a bb", "b"]})  # the second cannot be aligned, but it is judged
    other_answers = ctc.answers(output, asked(ctc, cut_short), Batch(main=cut_short))
    assert [answer["text"] for answer in other_answers] == ["a bb", ""]


def sound_files(folder: Path, split: str, texts: list[str], seconds: float) -> str:
    """A manifest of noises with texts and hints."""
    for number in range(len(texts)):
        clip = np.random.default_rng(number).standard_normal(round(8000 * seconds)).astype(np.float32) / 10
        soundfile.write(folder / f"{split}{number}.wav", clip, 8000)
    lines = [{"sound": f"{split}{n}.wav", "text": text, "hint": f"n{n % 3}"} for n, text in enumerate(texts)]
    (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return str(folder / f"{split}.jsonl")


def test_a_run_from_yaml_to_words_counts_texts_that_are_left_out(tmp_path, capsys):
    tree = {
        "inputs": {"sound": {"use": "audio", "rate": 8000, "mels": 16, "frames": 4, "position": None}},
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 32, "attention": "same_sample", "position": "rotary"},
        "tasks": {"words": {"use": "ctc", "target": "text", "source": "sound", "beams": 4, "metrics": ["wer", "cer"]}},
        "data": {
            "dataset": {
                "use": "manifest",
                "train": sound_files(tmp_path, "train", ["a b", "ab"] * 4, 0.4),
                "val": sound_files(tmp_path, "val", ["ab", "abababababab"], 0.2),
                "columns": ["sound", "text"],
                "files": ["sound"],
            }
        },
        "training": {"steps": 2, "samples_per_step": 4},
    }
    (tmp_path / "words.yaml").write_text(yaml.safe_dump(tree))
    out = tmp_path / "run"
    assert main(["train", str(tmp_path / "words.yaml"), f"out={out}"]) == 0
    assert (
        "cannot be aligned and is excluded from the loss: 12 symbols need 12 tokens, but its sound has 6"
        in capsys.readouterr().err
    )
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["data/words_left_out"] == 1 and last["data/train_bad"] == 0 and math.isfinite(last["val/loss"])
    assert last.keys() >= {"val/wer", "val/cer"}
    (answer,) = load_run(out).predict([{"sound": str(tmp_path / "val0.wav")}])
    assert answer.keys() == {"words"} and answer["words"].keys() == {"text", "words"}
    with pytest.raises(ValueError, match="no task has an input that can be dropped: each task needs or predicts"):
        load_run(out).attribution("val")


def test_a_decoder_beside_ctc_on_an_encoder_of_two_inputs(tmp_path):
    files = {split: sound_files(tmp_path, split, texts, 0.4) for split, texts in (
        ("train", ["a b", "ab", "b", "aab"] * 2), ("val", ["ab", "a a"]))}  # fmt: skip
    tree = {
        "inputs": {"sound": {"use": "audio", "rate": 8000, "mels": 16, "frames": 4, "position": None},
                   "hint": {"use": "text", "encoding": "characters", "position": None},
                   "text": {"use": "text", "encoding": "characters", "position": None}},
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 8, "attention": "causal & same_sample",
                  "position": "rotary", "encoder": {"depth": 1, "context": 32, "position": "rotary"}},
        "tasks": {"writes": {"use": "sequence_to_sequence", "target": "text", "weight": 0.7, "metrics": ["wer"]},
                  "reads": {"use": "ctc", "target": "text", "source": "sound", "weight": 0.3, "metrics": ["wer"]}},
        "data": {"dataset": {"use": "manifest", **files, "columns": ["sound", "text", "hint"], "files": ["sound"]}},
        "training": {"steps": 2, "samples_per_step": 4, "precision": "float32"}, "evaluation": {"every": 2},
    }  # fmt: skip
    (tmp_path / "joint.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", str(tmp_path / "joint.yaml"), f"out={tmp_path / 'run'}"]) == 0
    run = load_run(tmp_path / "run")
    split = open_split(run.config, run.config.data.dataset(), "train", run.choppers, run.tasks)
    batch = make_batch(split, split.all(), run.tasks)
    assert set(batch.encoder.chunks) == {"sound", "hint"} and set(batch.main.chunks) == {"text"}
    assert batch.targets["reads"].of_encoder and not batch.targets["writes"].of_encoder

    # both losses computed in another way: sample by sample, with torch's functions, on one row each
    with torch.no_grad():
        outputs = run.model(run.model.plan(batch))
    logs, reads, writes = outputs["reads"].log_softmax(-1), batch.targets["reads"], batch.targets["writes"]
    aligned = [F.ctc_loss(logs[reads.groups == row], part, [len(logs[reads.groups == row])], [len(part)],
                          blank=logs.shape[1] - 1, reduction="sum")
               for row, part in enumerate(reads.values.split(reads.lengths.tolist()))]  # fmt: skip
    written = F.cross_entropy(outputs["writes"], writes.values, reduction="sum")
    symbols, ids = sum(len(text) for text in ["a b", "ab", "b", "aab"] * 2), int((writes.values >= 0).sum())
    expected = 0.7 * float(written) / ids + 0.3 * float(sum(aligned)) / symbols
    metrics = run.evaluate("train")
    assert metrics["train/loss"] == pytest.approx(expected, rel=1e-5) and ids == symbols + 8
    assert metrics.keys() >= {"train/writes/wer", "train/reads/wer"}

    # each task reads both inputs of its sample, and nothing of another sample
    def predict_first(**changes) -> dict:
        (answer, _) = run.predict([{"sound": str(tmp_path / "val0.wav"), "hint": "n0"} | changes, {"hint": "n2"}])
        return answer

    def hidden(**changes) -> torch.Tensor:
        split = run.as_split([{"sound": str(tmp_path / "val0.wav"), "hint": "n0", "text": "a"} | changes])
        return run.model.read(run.model.plan(make_batch(split, split.all(), run.tasks))).main

    assert predict_first().keys() == {"writes", "reads"}
    for change in ({"hint": "n1"}, {"sound": str(tmp_path / "val1.wav")}, {"hint": None}, {"sound": None}):
        assert not torch.allclose(hidden(**change), hidden())

    # the sound is not removed for CTC, which has no targets without it; nor is the text, which only the decoder reads
    assert {name: result.inputs for name, result in run.attribution("val").items()} == {
        "writes": ("hint", "sound"),
        "reads": ("hint",),
    }


def test_attribution_compares_losses_of_equally_many_targets_only():
    check_counts("reads", {(): 5.0, ("hint",): 5.0}, ("hint",))
    message = "task 'reads' has 0 targets without hint, but 5 with it: these losses cannot be compared. `Needs.inputs`"
    with pytest.raises(ValueError, match=message):
        check_counts("reads", {(): 0.0, ("hint",): 5.0}, ("hint",))


def test_a_split_without_a_text_to_evaluate_is_refused(tmp_path, capsys):
    files = {"train": sound_files(tmp_path, "train", ["ab"] * 4, 0.4), "val": sound_files(tmp_path, "val", ["ab"], 0.4)}
    (tmp_path / "val.jsonl").write_text(json.dumps({"sound": "val0.wav"}))
    tree = {
        "inputs": {"sound": {"use": "audio", "rate": 8000, "mels": 16, "frames": 4, "position": None}},
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 32, "attention": "same_sample", "position": "rotary"},
        "tasks": {"words": {"use": "ctc", "target": "text", "source": "sound", "metrics": ["wer"]}},
        "data": {"dataset": {"use": "manifest", **files, "columns": ["sound", "text"], "files": ["sound"]}},
        "training": {"steps": 1, "samples_per_step": 4},
    }  # fmt: skip
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", str(tmp_path / "x.yaml"), f"out={tmp_path / 'run'}"]) == 2
    assert "split 'val' has no item of 'text' with which task 'words' can be evaluated" in capsys.readouterr().err
