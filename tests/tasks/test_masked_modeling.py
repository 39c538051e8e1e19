"""Masked modelling and span corruption: which tokens are hidden and how often, and that hidden tokens do not leak."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from batching import make_batch
from checkout import CONFIGS
from chopmix.commands.cli import main
from chopmix.data.processes import Processes
from chopmix.data.sampler import SampleIndex
from chopmix.experiment.assemble import Experiment, assemble
from chopmix.experiment.run import Run, load_run
from chopmix.experiment.settings.config import config_from_tree, load_config
from chopmix.experiment.settings.document import ConfigError
from chopmix.experiment.train import preflight
from chopmix.models.batch import IGNORED, Batch
from chopmix.tasks.masked_modeling import SPAN_SHARES, SPAN_WORDS, MaskedModeling, within_words
from chopmix.tasks.span_corruption import SpanCorruption, split
from chopmix.tokenizers.chopping.packing import place
from chopmix.tokenizers.encoding.base import ByteEncoding, CharacterEncoding
from chopmix.tokenizers.encoding.byte_pairs import Extended
from chopmix.tokenizers.encoding.stored import load_encoding
from chopmix.tokenizers.text import TextChopper
from chopmix.training.progress import Progress
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = "the cat sat on the mat, and the dog saw that the cat sat there; then they ran. " * 12


def tree(folder: Path, task: dict, **sections) -> dict:
    """The configuration of a small model of characters, trained on a text of this folder."""
    (folder / "a.txt").write_text(TEXT)
    config = {
        "inputs": {"text": {"use": "text", "encoding": "characters"}},
        "model": {"width": 32, "depth": 2, "heads": 2, "context": 40, "attention": "same_sample"},
        "tasks": {"task": task},
        "data": {"dataset": {"use": "text", "train": str(folder / "a.txt")}},
        "training": {"steps": 4, "tokens_per_step": 160, "schedule": "constant"},
        "evaluation": {"every": 4}, "logging": {"tensorboard": False}, "out": str(folder / "run"),
    }  # fmt: skip
    return config | sections


MASKED = {"use": "masked_modeling", "target": "text"}
SPANS = {"use": "span_corruption", "source": "text", "target": "spans"}


def t5_tree(folder: Path) -> dict:
    return tree(
        folder,
        SPANS,
        inputs={"text": {"use": "text", "encoding": "characters", "position": None}, "spans": {"same_as": "text"}},
        model={
            "width": 32,
            "depth": 2,
            "heads": 2,
            "context": 16,
            "attention": "causal & same_sample",
            "position": {"use": "relative_bias", "bidirectional": False},
            "encoder": {"depth": 2, "context": 40, "position": "relative_bias"},
        },
        training={"steps": 4, "tokens_per_step": 44 * 4, "schedule": "constant"},
    )


def trainer(config_tree: dict) -> Experiment:
    config = config_from_tree(config_tree)
    config.out.mkdir(exist_ok=True)
    return assemble(config, Processes.start("cpu"), Progress(1))


def trained(folder: Path, config_tree: dict) -> Run:
    """The run of a training as a user starts it."""
    (folder / "x.yaml").write_text(yaml.safe_dump(config_tree))
    assert main(["train", str(folder / "x.yaml")]) == 0
    return load_run(folder / "run")


def task(**options) -> MaskedModeling:
    """Masking of byte texts."""
    masking = MaskedModeling(target="text", **options)
    masking.choppers = {"text": TextChopper(vocabulary=Extended(ByteEncoding(), ["mask"]))}
    return masking


# ------------------------------------------------------------------------------------------------------ what is hidden


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=80), st.sampled_from(["tokens", "words", "spans"]), st.integers(0, 100))
def test_the_requested_share_is_hidden_and_never_a_special_id(content, hide, seed):
    masking = task(hide=hide, share=0.3)
    ids = np.array([256, *content])
    chosen = masking.choose(ids, np.random.default_rng(seed))
    expected = max(1, round(0.3 * len(content)))
    assert len(set(chosen.tolist())) == len(chosen) and 0 not in chosen and len(chosen) >= 1
    assert len(chosen) == expected or (
        hide != "tokens" and (len(chosen) <= expected or _is_one_word(masking, ids, chosen))
    )


def _is_one_word(masking: MaskedModeling, ids: np.ndarray, chosen: np.ndarray) -> bool:
    """Whether the places are a single word, which alone is longer than the share."""
    return bool((np.diff(chosen) == 1).all())


@pytest.mark.parametrize("hide", ["words", "spans"])
def test_words_are_hidden_whole(hide):
    text = b"one two, three four-five six"
    masking, ids = task(hide=hide, share=0.4), np.array(list(text))
    words = [set(range(start, start + len(word))) for word, start in (
        (b"one", 0), (b"two", 4), (b"three", 9), (b"four", 15), (b"five", 20), (b"six", 25))]  # fmt: skip
    for seed in range(50):
        chosen = set(masking.choose(ids, np.random.default_rng(seed)).tolist())
        assert all(word <= chosen or not word & chosen for word in words)


def test_spans_hide_neighbours_more_often_than_words_do():
    ids = np.array(list(b"a b c d e f g h i j k l m n o p q r s t u v w x y z" * 4))

    def neighbours(hide: str) -> float:
        samples = [task(hide=hide, share=0.2).choose(ids, np.random.default_rng(seed)) for seed in range(40)]
        return float(np.mean([np.mean(np.diff(chosen) <= 2) for chosen in samples]))

    assert neighbours("spans") > neighbours("words") + 0.2


def test_of_hidden_tokens_80_percent_are_masked_10_percent_random_and_10_percent_unchanged():
    masking, random = task(), np.random.default_rng(0)
    ids = np.full(20_000, 65)
    read = masking.replaced(ids, np.arange(len(ids)), random)
    assert np.mean(read == 257) == pytest.approx(0.8, abs=0.01)
    assert np.mean(read == 65) == pytest.approx(0.1 + 0.1 / 256, abs=0.01)
    assert set(read[read != 257].tolist()) <= set(range(256))  # never a special id


def test_a_span_is_replaced_as_a_whole_and_has_as_many_words_as_in_spanbert():
    masking, random = task(hide="spans"), np.random.default_rng(0)
    read = masking.replaced(np.full(3_000, 65), np.arange(3_000) // 3, random).reshape(-1, 3)
    kinds = np.where(read == 257, 2, np.where(read == 65, 0, 1))  # a random byte is 65 once in 256
    assert np.mean((kinds == kinds[:, :1]).all(1)) > 0.99
    assert np.mean(kinds[:, 0] == 2) == pytest.approx(0.8, abs=0.04)
    assert float(SPAN_SHARES @ SPAN_WORDS) == pytest.approx(3.8, abs=0.01)  # Joshi et al. 2019, section 3.1


@pytest.mark.parametrize(("text", "words"), [
    ("caf\u00e9 na\u00efve", ["caf\u00e9", "na\u00efve"]),  # accents within words
    ("cafe\u0301s", ["cafe\u0301s"]),  # the accent is a separate character
    ("\u201cyes\u201d no\u2014one", ["\u201c", "yes", "\u201d", "no", "\u2014", "one"]),  # no letters
    ("\u6211\u7231\u4f60", ["\u6211", "\u7231", "\u4f60"]),  # Chinese: a character is a word
    ("\u041c\u043e\u0441\u043a\u0432\u0430 42", ["\u041c\u043e\u0441\u043a\u0432\u0430", "42"]),
])  # fmt: skip
def test_words_are_those_of_characters_not_of_bytes(text, words):
    data = text.encode()
    joined = within_words([data[i : i + 1] for i in range(len(data))])
    cuts = [0, *(np.flatnonzero(~joined) + 1), len(data)]
    assert [w for a, b in zip(cuts, cuts[1:]) if (w := data[a:b].decode()) != " "] == words
    assert within_words([data]).shape == (0,) and within_words([b"a", b"", b"\xc3"]).shape == (2,)


def test_predict_fills_in_masks(tmp_path, capsys):
    run = trained(tmp_path, tree(tmp_path, MASKED))
    asked = "the c<|mask|>t sat, the d<|mask|>g"
    answer, other = (each["task"] for each in run.predict([{"text": asked}, {"text": "the cat"}]))
    assert "no '<|mask|>'" in other["error"]
    first, second = answer["masks"]
    assert answer["text"] == f"the c{first[0]['token']}t sat, the d{second[0]['token']}g"
    assert len(first) == 5 and all(a["probability"] >= b["probability"] for a, b in zip(first, first[1:]))
    alone = run.predict([{"text": asked.replace("<|mask|>g", "og")}])[0]["task"]["masks"]
    assert len(alone) == 1 and alone[0] != first  # the other mask was read as a mask, on both sides
    assert main(["predict", str(run.folder), "--input", f"text={asked}"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["task"] == answer


def test_predict_writes_what_sentinels_stand_for(tmp_path):
    run = trained(tmp_path, t5_tree(tmp_path))
    split = run.as_split([{"text": "the <|sentinel_0|> sat on<|sentinel_1|>"}])
    encoder = split.read(split.all(), replaced={"spans": ""}).encoder.chunks["text"].values.tolist()
    text, sentinels = run.choppers["text"].vocabulary, run.tasks["task"].sentinels
    before, middle = [*text.before, *text.encode("the")], text.encode(" sat on")
    assert encoder == [*before, sentinels[0], *middle, sentinels[1], text.end]
    assert run.tasks["task"].restore([sentinels[0], *text.encode("cat")]) == "<|sentinel_0|>cat"
    assert isinstance(run.predict([{"text": "the <|sentinel_0|> sat"}], max_tokens=4)[0]["task"]["text"], str)


def test_a_row_always_has_the_same_mask_and_each_row_another(tmp_path):
    experiment = trainer(tree(tmp_path, MASKED))
    train = experiment.data.splits["train"]
    starts = train.plan(0, 0)
    first, again = (make_batch(train, starts, experiment.data.tasks).main.chunks["text"].hidden for _ in range(2))
    assert torch.equal(first, again)
    assert len({tuple((row != IGNORED).nonzero()[:, 0].tolist()) for row in first}) == 4
    alone = make_batch(train, starts[2:3], experiment.data.tasks).main.chunks["text"].hidden
    assert torch.equal(alone[0], first[2])  # whatever else is in the batch


@pytest.mark.parametrize("kind", ["tokens", "words", "spans", "span corruption"])
def test_every_epoch_and_every_seed_hide_other_tokens_of_a_row(tmp_path, kind):
    experiment = trainer(t5_tree(tmp_path) if kind == "span corruption" else tree(tmp_path, MASKED | {"hide": kind}))
    train, tasks = experiment.data.splits["train"], experiment.data.tasks

    def hidden(seed: int, epoch: int) -> tuple[int, ...]:
        """The hidden tokens of the same four rows."""
        targets = make_batch(train, [SampleIndex(seed, epoch, start) for start in (0, 7, 50, 99)], tasks).targets[
            "task"
        ]
        return tuple(targets.values.tolist())

    runs = [(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len({hidden(*run) for run in runs}) == len(runs) and hidden(1, 2) == hidden(1, 2)


def test_hidden_tokens_are_the_original_tokens_and_the_targets(tmp_path):
    experiment = trainer(tree(tmp_path, MASKED))
    train = experiment.data.splits["train"]
    starts = train.plan(0, 0)
    plain, batch = train.read(starts).main, make_batch(train, starts, experiment.data.tasks)
    chunks, targets = batch.main.chunks["text"], batch.targets["task"]
    hidden = chunks.hidden != IGNORED
    assert torch.equal(chunks.values[~hidden], plain.chunks["text"].values[~hidden])
    assert torch.equal(chunks.hidden[hidden], plain.chunks["text"].values[hidden])
    assert torch.equal(targets.values, plain.chunks["text"].values.flatten()[targets.slots]) and targets.count == 24
    assert experiment.model.tokenizers["text"].vocabulary == train.file.header.vocabulary  # the mask's row among them


def test_outputs_do_not_depend_on_hidden_tokens(tmp_path):
    """Two texts that differ only at the masked place have bit-equal outputs."""
    experiment = trainer(tree(tmp_path, MASKED | {"as_mask": 1.0, "as_random": 0.0}))
    encoding = experiment.data.choppers["text"].vocabulary
    outputs = []
    for letter in "ae":
        planned = experiment.data.splits["train"].read([SampleIndex(0, 0, 0)]).main
        task = experiment.data.tasks["task"]
        hidden = task.targets(Batch(main=planned))[0].main.chunks["text"].hidden
        place = (hidden.flatten() != IGNORED).nonzero()[0, 0]
        planned.chunks["text"].values.view(-1)[place] = encoding.encode(letter)[0]
        batch, targets = task.targets(Batch(main=planned))
        batch = experiment.model.plan(replace(batch, targets={"task": targets}))
        outputs.append(experiment.model.eval()(batch)["task"])
    assert torch.equal(*outputs)


@pytest.mark.system
def test_masked_modelling_learns_and_a_classifier_starts_from_its_weights(tmp_path, capsys):
    config = tree(
        tmp_path,
        MASKED | {"share": 0.3},
        training={"steps": 300, "tokens_per_step": 640, "optimizer": "muon"},
        evaluation={"every": 300},
    )
    file = tmp_path / "bert.yaml"
    file.write_text(yaml.safe_dump(config))
    assert main(["train", str(file)]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["val/accuracy"] > 0.4 and summary["val/loss"] < 2.2
    rows = [
        {"text": text, "label": label}
        for label, text in (("cat", "the cat sat"), ("dog", "the dog saw"))
        for _ in range(20)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    config = tree(tmp_path, {"use": "classification", "target": "label"})
    config |= {
        "data": {"dataset": {"use": "manifest", "train": str(tmp_path / "rows.jsonl"), "columns": ["text", "label"]}},
        "training": {"steps": 2, "samples_per_step": 4},
        "from": str(tmp_path / "run"),
        "out": str(tmp_path / "fine"),
    }
    file.write_text(yaml.safe_dump(config))
    capsys.readouterr()
    assert main(["train", str(file)]) == 0
    output = capsys.readouterr().out + capsys.readouterr().err
    assert "differ in shape" not in output
    fine, bert = load_run(tmp_path / "fine"), load_run(tmp_path / "run")
    assert fine.choppers["text"].vocabulary == bert.choppers["text"].vocabulary  # with the mask
    assert not fine.choppers["text"].generated


def test_bert_is_the_gpt_with_another_attention_line_and_task():
    gpt, bert = (load_config(CONFIGS / kind / "books.yaml").tree for kind in ("lm", "bert"))
    same = ("inputs", "data", "training", "evaluation", "checkpoints", "logging")
    assert all(gpt[section] == bert[section] for section in same)
    assert {key for key in gpt["model"] if gpt["model"][key] != bert["model"][key]} == {"attention"}


# ------------------------------------------------------------------------------------------------------ span corruption


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 400), st.floats(0.05, 0.6), st.floats(1, 6), st.integers(0, 50))
def test_span_corruption_loses_no_token_and_predicts_its_lengths(length, share, mean, seed):
    corruption = SpanCorruption(source="text", target="spans", share=share, mean_span=mean)
    encoding = Extended(CharacterEncoding("".join(map(chr, range(97, 123)))), corruption.marks)
    chopper = TextChopper(vocabulary=encoding)
    corruption.choppers = {"text": chopper, "spans": chopper}
    ids = np.random.default_rng(seed).integers(0, 26, length)
    left, cut = corruption.corrupted(ids, np.random.default_rng(seed))
    assert (len(left), len(cut)) == corruption.lengths(length)
    assert left[-1] == cut[-1] == encoding.end
    spans, number = {}, None
    for id in cut[:-1]:
        if id in corruption.sentinels:
            number, spans[id] = id, []
        else:
            spans[number].append(id)
    whole = [each for id in left[:-1] for each in spans.get(id, [id])]
    assert whole == ids.tolist() and all(spans.values()) and list(spans) == corruption.sentinels[: len(spans)]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text("abc", max_size=9), min_size=1, max_size=4), st.integers(0, 9))
def test_the_end_token_of_a_published_tokenizer_is_never_hidden(texts, seed):
    corruption = SpanCorruption(source="text", target="spans", share=0.5)
    encoding = Extended(CharacterEncoding("abc"), corruption.marks)
    encoding.frame = encoding.frame | {"before": (), "after": (encoding.end,)}  # as T5's tokenizer.json has it
    corruption.choppers = {
        "text": TextChopper(vocabulary=encoding, generated=False),
        "spans": TextChopper(vocabulary=encoding),
    }
    samples = [[("text", corruption.choppers["text"].chop(text))] for text in texts]
    planned = replace(place(samples, corruption.choppers, 40), seeds=tuple((seed, 0, n) for n in range(len(texts))))
    batch = corruption.in_two(planned)
    for planned, name, ids in ((batch.encoder, "text", "values"), (batch.main, "spans", "next_ids")):
        chunks = planned.chunks[name]
        for row in getattr(chunks, ids).split(chunks.counts.tolist()):
            assert row[-1] == encoding.end and row.tolist().count(encoding.end) == 1


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 20))
def test_a_number_is_split_into_parts_of_at_least_one(total, parts, seed):
    sizes = split(total, min(parts, total), np.random.default_rng(seed))
    assert sizes.sum() == total and len(sizes) == min(parts, total) and (sizes >= 1).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 300), st.integers(16, 600))
def test_the_window_fills_the_contexts(context, encoder_context):
    corruption = SpanCorruption(source="text", target="spans")
    raw = corruption.window(context, encoder_context)
    read, written = corruption.lengths(raw)
    assert read <= encoder_context and written <= context
    longer = corruption.lengths(raw + 1)
    assert longer[0] > encoder_context or longer[1] > context


def test_the_encoder_reads_what_is_left_and_the_decoder_writes_the_rest(tmp_path):
    experiment = trainer(t5_tree(tmp_path))
    train = experiment.data.splits["train"]
    assert train.context == experiment.data.tasks["task"].window(16, 40) == 44
    batch = make_batch(train, train.plan(0, 0), experiment.data.tasks)
    assert list(batch.sets) == ["encoder", "main"] and batch.encoder.tokens.shape[1] <= 40
    chunks = batch.main.chunks["spans"]
    text = experiment.data.choppers["spans"].vocabulary
    assert chunks.values.view(4, -1)[:, 0].tolist() == [text.start] * 4
    assert batch.targets["task"].values.view(4, -1)[:, -1].tolist() == [text.end] * 4
    preflight(experiment)


def test_span_corruption_trains_and_resumes(tmp_path):
    file = tmp_path / "t5.yaml"
    file.write_text(yaml.safe_dump(t5_tree(tmp_path)))
    assert main(["train", str(file)]) == 0
    assert main(["train", str(file), "training.steps=6"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["step"] == 6 and "val/bits_per_byte" not in summary and summary["val/loss"] < 4.6


# ---------------------------------------------------------------------------------------------------------- encodings


def test_special_ids_of_a_task_are_saved_with_the_encoding(tmp_path):
    encoding = Extended(CharacterEncoding("abc"), ["mask", "sentinel_0"])
    encoding.save(tmp_path)
    loaded = load_encoding(tmp_path)
    assert loaded == encoding and loaded.roles == {"mask": 4, "sentinel_0": 5} and loaded.size == 6
    assert loaded.encode("cab") == [2, 0, 1] and loaded.decode([2, 4, 0]) == "ca"
    assert loaded.decode([2, 4], specials=True) == "c<|mask|>"
    assert loaded != CharacterEncoding("abc")


@pytest.mark.parametrize("override, message", [
    ("tasks.task.share=0", "share must lie between 0 and 1, not 0"),
    ("tasks.task.as_mask=0.95", r"as_mask \(0.95\) and as_random \(0.1\) must be 0 or more, and 1 or less in sum"),
    ("tasks.task.hide=letters", "must be 'tokens' or 'words' or 'spans', not 'letters'"),
])  # fmt: skip
def test_wrong_options_are_refused(tmp_path, override, message):
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump(tree(tmp_path, MASKED)))
    with pytest.raises(ConfigError, match=message):
        load_config(file, [override])
