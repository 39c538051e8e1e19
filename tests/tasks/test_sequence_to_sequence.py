"""Encoder and decoder: two sets of tokens, beam search, batches of similar length, and refused settings."""

from __future__ import annotations

import gzip
import itertools
import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from batching import make_batch
from chopmix.commands.cli import main
from chopmix.data.sampler import SimilarLengths
from chopmix.experiment.build import build_choppers, build_tasks, open_split
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.settings.document import ConfigError
from chopmix.files.errors import RunError
from chopmix.files.reading import DataError
from chopmix.models.batch import IGNORED, Targets
from chopmix.models.generation.beam_search import Search, beam_search, forbid_repeats, largest, seated
from chopmix.models.generation.session import Session
from chopmix.tasks.sequence_to_sequence import SequenceToSequence
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.text import TextChopper
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import train_together
from safetensors.torch import load_file
from tiers import only

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "red": "rot", "house": "Haus"}


def corpus(folder, count: int = 120, seed: int = 0, name: str = "train") -> dict[str, str]:
    """Sentences of one to five words and their translations, word by word and backwards."""
    random = np.random.default_rng(seed)
    files = {"en": [], "de": []}
    for _ in range(count):
        words = [list(WORDS)[n] for n in random.integers(len(WORDS), size=random.integers(1, 6))]
        files["en"].append(" ".join(words))
        files["de"].append(" ".join(WORDS[word] for word in reversed(words)))
    paths = {}
    for column, lines in files.items():
        paths[column] = str(folder / f"{name}.{column}")
        (folder / f"{name}.{column}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


def config(tmp_path, **sections) -> str:
    """A small translator's YAML, in which `sections` replace others."""
    tree = {
        "inputs": {
            "source": {"use": "text", "encoding": "characters", "position": None},
            "target": {"same_as": "source"},
        },
        "model": {
            "width": 32,
            "depth": 2,
            "heads": 2,
            "context": 40,
            "attention": "causal & same_sample",
            "position": "rotary",
            "encoder": {"depth": 2, "context": 40, "position": "rotary"},
            "block": {"norm": "rms_norm", "query_key_norm": "rms_norm", "feed_forward": "squared_relu", "bias": False},
        },
        "tasks": {
            "translation": {
                "use": "sequence_to_sequence",
                "target": "target",
                "metrics": ["bleu", "chrf"],
                "search": {"beams": 2},
            }
        },
        "data": {
            "dataset": {"use": "parallel_text", "train": corpus(tmp_path), "val": corpus(tmp_path, 20, 1, "val")},
            "columns": {"source": "en", "target": "de"},
        },
        "training": {
            "steps": 4,
            "tokens_per_step": 400,
            "precision": "float32",
            "schedule": {"use": "cosine", "warmup": 0},
        },
        "evaluation": {"every": 2, "generated": 4},
        "logging": {"tensorboard": False},
        "checkpoints": {"every": 2},
    }
    file = tmp_path / "t.yaml"
    file.write_text(yaml.safe_dump(tree | sections))
    return str(file)


def train(tmp_path, *overrides: str, out: str = "run") -> dict:
    """The summary of a run of the small translator."""
    assert main(["train", config(tmp_path), f"out={tmp_path / out}", *overrides]) == 0
    return json.loads((tmp_path / out / "summary.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A translator that has learned a little."""
    folder = tmp_path_factory.mktemp("translator")
    every = ["evaluation.every=60", "checkpoints.every=60"]
    assert main(["train", config(folder), f"out={folder / 'run'}", "training.steps=60", *every,
                 "training.optimizer={use: muon, others: 0.15}"]) == 0  # fmt: skip
    return load_run(folder / "run")


# ------------------------------------------------------------------------------------------------------- two sets


def test_the_encoder_reads_the_source_and_the_decoder_the_target(trained):
    split = trained.as_split([{"source": "one two", "target": "zwei"}, {"source": "red", "target": "rot"}])
    batch = make_batch(split, split.all(), trained.tasks)
    assert list(batch.sets) == ["encoder", "main"]
    assert set(batch.encoder.chunks) == {"source"} and set(batch.main.chunks) == {"target"}
    assert batch.encoder.tokens.sample[:, 0].tolist() == batch.main.tokens.sample[:, 0].tolist()
    assert not batch.targets["translation"].of_encoder and not trained.model.types
    assert trained.model.tokenizer("target") is trained.model.tokenizer("source")
    assert not [name for name in trained.model.state_dict() if name.startswith("tokenizers.target")]


def test_a_sample_never_reads_its_neighbours(trained):
    texts = [{"source": "one two", "target": "zwei eins"}, {"source": "three four red house", "target": "Haus"}]
    outputs = []
    for samples in (texts, [texts[0], {"source": "red red red", "target": "rot rot rot"}]):
        split = trained.as_split(samples)
        batch = make_batch(split, split.all(), trained.tasks)
        row = batch.main.keys.index("sample 1")
        count = batch.main.chunks["target"].counts[row]
        hidden = trained.model.read(trained.model.plan(batch)).main
        outputs.append(hidden[row, :count])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)


def test_the_decoder_reads_the_encoder(trained):
    hidden = []
    for source in ("one two", "two one"):
        split = trained.as_split([{"source": source, "target": "zwei"}])
        hidden.append(trained.model.read(trained.model.plan(make_batch(split, split.all(), trained.tasks))).main)
    assert (hidden[0] - hidden[1]).abs().max() > 1e-3


def test_a_later_target_is_never_read(trained):
    hidden = []
    for target in ("zwei eins", "zwei rot!"[:8] + "s"):
        split = trained.as_split([{"source": "one two", "target": target}])
        hidden.append(trained.model.read(trained.model.plan(make_batch(split, split.all(), trained.tasks))).main)
    torch.testing.assert_close(hidden[0][0, :6], hidden[1][0, :6], rtol=0, atol=0)
    assert (hidden[0][0, 6:] - hidden[1][0, 6:]).abs().max() > 1e-3


# --------------------------------------------------------------------------------------------------------- search


def uncached(run, source: str, most: int) -> list[int]:
    """The greedy text without a cache: everything is read again for every token."""
    split, encoding, ids = run.as_split([{"source": source, "target": ""}]), run.choppers["target"].vocabulary, []
    for _ in range(most):
        split = run.as_split([{"source": source, "target": encoding.decode(ids)}])
        batch = make_batch(split, split.all(), run.tasks)
        scores = run.model(run.model.plan(batch))["translation"][-1]
        ids.append(int(scores[: encoding.size].argmax()))
        if ids[-1] == encoding.end:
            return ids[:-1]
    return ids


LARGER = pytest.mark.system


@pytest.mark.parametrize(
    ("position", "residual"),
    only(1, product(("rotary", "relative_bias", None), ("pre_norm", "post_norm"))),
)
def test_texts_with_a_cache_are_those_without(tmp_path, position, residual):
    overrides = [f"model.position={'null' if position is None else position}", f"model.block.residual={residual}"]
    overrides += ["training.steps=15", "training.learning_rate=6e-3", "evaluation.every=15"]
    train(tmp_path, *overrides, *(["inputs.source.position=learned"] if position is None else []))
    run = load_run(tmp_path / "run")
    sources = ["one two three", "red house", "four"]
    for fast in (True, False):
        answers = texts(run, sources, Search(), fast)
        for source, ids in zip(sources, answers):
            assert ids == uncached(run, source, 12)[: len(ids)] and len(ids) >= 1
    assert texts(run, sources, Search(beams=3), True) == texts(run, sources, Search(beams=3), False)


def texts(run, sources: list[str], search: Search, fast: bool, most: int = 12) -> list[list[int]]:
    """What a run writes, by the fast decoder or by the general path."""
    encoding = run.choppers["target"].vocabulary
    split = run.as_split([{"source": source} for source in sources])
    sets = split.read(split.all(), rows="one_each", replaced={"target": ""})
    session = Session(run.model, sets, input="target", task="translation", vocabulary=encoding.size, most=most)
    assert session.fast
    session.fast = fast
    ids = {key: each.ids for key, each in zip(sets.main.keys, beam_search(session, [encoding.end], most, search))}
    return [ids[f"sample {number + 1}"] for number in range(len(sources))]


def test_with_enough_beams_the_search_is_exhaustive(trained):
    """With a vocabulary of few ids, the search returns the best of all texts of up to three tokens."""
    encoding = trained.choppers["target"].vocabulary
    kept = 5

    def log_of(ids: list[int]) -> float:
        """The log-probability of a text, including its end token unless it has the maximum length."""
        split = trained.as_split([{"source": "one", "target": encoding.decode(ids)}])
        with torch.no_grad():
            scores = trained.model(trained.model.plan(make_batch(split, split.all(), trained.tasks)))["translation"]
        logs = torch.cat([scores[:, :kept], scores[:, encoding.end : encoding.end + 1]], 1).log_softmax(-1)
        return float(sum(logs[place, min(id, kept)] for place, id in enumerate([*ids, encoding.end][:3])))

    every = [list(ids) for size in range(4) for ids in itertools.product(range(kept), repeat=size)]
    best = max(every, key=log_of)
    with torch.no_grad():
        split = trained.as_split([{"source": "one"}])
        sets = split.read(split.all(), rows="one_each", replaced={"target": ""})
        session = Session(trained.model, sets, input="target", task="translation", vocabulary=encoding.size, most=3)
        scores = session.scores

        def cut():
            uncut = scores()
            return torch.cat([uncut[:, :kept], uncut[:, encoding.end : encoding.end + 1]], 1)

        session.scores = cut
        ended = beam_search(session, [kept], 3, Search(beams=150, length_penalty=0.0))[0]
    assert ended.ids == best and ended.log == pytest.approx(log_of(best), rel=1e-4)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 2000), st.integers(0, 50), st.booleans())
def test_the_largest_scores_are_those_of_topk(rows, count, width, seed, ties):
    scores = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    scores = scores.mul(2).round() if ties else scores
    count = min(count, width)
    values, places = largest(scores, count)
    assert torch.equal(values, scores.topk(count).values) and torch.equal(scores.gather(1, places), values)
    assert all(len(set(row)) == count for row in places.tolist())


@given(st.lists(st.integers(0, 4), min_size=5, max_size=5))
def test_a_beam_that_continues_keeps_its_place(parents):
    going = [(-float(rank), parent, 10 + rank) for rank, parent in enumerate(parents)]
    placed = seated(going)
    assert sorted(placed) == sorted(going)
    for parent in set(parents):
        assert placed[parent] == next(each for each in going if each[1] == parent)


def test_no_sequence_of_tokens_is_repeated():
    logs = torch.zeros(2, 6)
    forbid_repeats(logs, [[1, 2, 3, 1, 2], [4, 5]], 3)
    assert (logs[0] == -torch.inf).nonzero().flatten().tolist() == [3] and logs[1].isfinite().all()
    forbid_repeats(logs, [[1, 2], [4, 5]], 1)
    assert (logs[1] == -torch.inf).nonzero().flatten().tolist() == [4, 5]


@pytest.mark.parametrize("options", [{"beams": 0}, {"no_repeat": -1}])
def test_meaningless_search_settings_are_refused(options):
    with pytest.raises(ValueError, match="beams must be at least 1 and no_repeat at least 0"):
        Search(**options)


@pytest.mark.parametrize("options", [{"beams": 100_000}, {"length_penalty": 1e308}, {"length_penalty": float("nan")}])
def test_a_search_that_would_not_end_is_refused(options):
    with pytest.raises(ValueError, match="beams must be at most 1,000|length_penalty must be from -10 to 10"):
        Search(**options)


# ------------------------------------------------------------------------------------------ batches of similar length


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), min_size=1, max_size=80), st.integers(10, 120))
def test_every_epoch_reads_every_sample_once_within_the_budget(lengths, budget):
    batches = SimilarLengths(lambda: np.array(lengths), budget)
    for epoch in range(2):
        of_epoch = batches.epoch(3, epoch)
        assert sorted(number for batch in of_epoch for number in batch) == list(range(len(lengths)))
        for batch in of_epoch:
            longest = max(max(lengths[number]) for number in batch)
            assert longest * len(batch) <= budget or len(batch) == 1
    steps = [batches.plan(3, step) for step in range(2 * len(batches.epoch(3, 0)))]
    again = SimilarLengths(lambda: np.array(lengths), budget)
    assert [again.plan(3, step) for step in reversed(range(len(steps)))] == steps[::-1]  # a pure function of the step


def test_similar_lengths_waste_little():
    random = np.random.default_rng(0)
    lengths = random.integers(4, 40, size=(5000, 1)) + random.integers(0, 4, size=(5000, 2))
    batches = SimilarLengths(lambda: lengths, 1800).epoch(0, 0)
    places = sum(lengths[batch].max() * len(batch) for batch in batches)
    assert lengths.max(axis=1).sum() / places > 0.9
    assert (
        len({tuple(batch) for batch in SimilarLengths(lambda: lengths, 1800).epoch(0, 1)} & {tuple(b) for b in batches})
        == 0
    )


def test_the_lengths_are_those_of_the_planned_sets(tmp_path):
    experiment = load_config(config(tmp_path), [])
    dataset, assets = experiment.data.dataset(), tmp_path / "assets"
    choppers = build_choppers(experiment, assets, dataset)
    tasks = build_tasks(experiment, choppers, assets, dataset)
    split = open_split(experiment, dataset, "train", choppers, tasks)
    assert (split.reader.lengths[:, 0] != split.reader.lengths[:, 1]).any()
    for step in range(3):
        places = split.plan(0, step)
        longest = split.reader.lengths[[each.number for each in places]].max(axis=0)
        sets = make_batch(split, places, tasks, training=True).sets
        assert [sets[name].tokens.input.shape[1] for name in ("main", "encoder")] == longest.tolist()
        assert longest.max() * len(places) <= 400


# ---------------------------------------------------------------------------------------------------------- as a user


def test_a_best_metric_of_texts_that_are_not_generated_is_refused(tmp_path, capsys):
    arguments = ["evaluation.generated=0", "checkpoints.best=val/bleu", f"out={tmp_path / 'x'}"]
    assert main(["train", config(tmp_path), *arguments]) != 0
    assert "checkpoints.best is 'val/bleu'; possible: val/loss, val/perplexity" in capsys.readouterr().err
    assert main(["train", config(tmp_path), arguments[0], arguments[2]]) == 0


def test_label_smoothing_covers_only_the_vocabulary():
    task = SequenceToSequence(target="target", label_smoothing=0.2)
    task.choppers = {"target": TextChopper(vocabulary=ByteEncoding())}
    output = torch.randn(5, 320, generator=torch.Generator().manual_seed(0))  # 257 ids and 63 rows that fill up
    values = torch.tensor([1, 256, IGNORED, 0, 30])
    logs, judged = output[:, :257].log_softmax(-1), values >= 0
    expected = -(0.8 * logs[judged, values[judged]] + 0.2 * logs[judged].mean(-1)).sum()
    loss = task.terms(output, Targets(values=values, count=4))["loss"]
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def test_a_translator_learns_and_is_evaluated(trained, capsys):
    assert trained.evaluate("val")["val/loss"] < 1.5
    assert main(["evaluate", str(trained.folder), "--beams", "3", "--length-penalty", "0.6"]) == 0
    shown = capsys.readouterr().out
    assert "val/bleu" in shown and "val/chrf" in shown
    assert main(["predict", str(trained.folder), "--input", "source=one two", "--beams", "2", "--no-repeat", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["translation"]["text"]
    assert main(["predict", str(trained.folder), "--input", "source=one", "--beams", "0"]) == 2
    for empty in ({}, {"source": ""}):
        assert "the encoder has no input: source" in trained.predict([empty, {"source": "one"}])[0]["error"]
    with pytest.raises(RunError, match="generates 'target' from its other inputs"):
        trained.generate("ein")


@pytest.mark.parametrize("kind", only(1, ["jsonl", "csv"]))
def test_a_run_is_evaluated_on_other_pairs(trained, tmp_path, kind):
    """The validation pairs, written as a manifest, give the same figures."""
    pairs = zip(*(Path(file).read_text().splitlines() for file in corpus(tmp_path, 20, 1, "val").values()))
    rows = [{"en": source, "de": target} for source, target in pairs]
    lines = ["en,de", *(",".join(row.values()) for row in rows)] if kind == "csv" else map(json.dumps, rows)
    (tmp_path / f"pairs.{kind}").write_text("\n".join(lines))
    figures = []
    for data in ([], ["--data", str(tmp_path / f"pairs.{kind}")]):
        assert main(["evaluate", str(trained.folder), *data, "--json", str(tmp_path / "figures.json")]) == 0
        metrics = json.loads((tmp_path / "figures.json").read_text())
        figures.append({name: value for name, value in metrics.items() if name.startswith("val/")})
    assert figures[0]["val/judged"] == 20 and {"val/loss", "val/bleu", "val/chrf"} < figures[0].keys()
    assert figures[1] == pytest.approx(figures[0], rel=1e-6)


def test_a_stopped_run_continues_bit_equal(tmp_path):
    options = ["training.schedule=constant", "evaluation.every=3"]
    train(tmp_path, *options, "training.steps=3", out="parts")
    whole, parts = (train(tmp_path, *options, "training.steps=6", out=name) for name in ("whole", "parts"))
    assert {k: v for k, v in parts.items() if k != "seconds"} == {k: v for k, v in whole.items() if k != "seconds"}
    states = [load_run(tmp_path / name, "last").model.state_dict() for name in ("whole", "parts")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_the_last_checkpoints_are_averaged(tmp_path):
    train(
        tmp_path,
        "training.steps=6",
        "checkpoints.every=1",
        "checkpoints.keep=3",
        "checkpoints.average=3",
        "evaluation.every=6",
    )
    run, parts = load_run(tmp_path / "run", "last"), []
    for step in (4, 5, 6):
        parts.append(load_file(tmp_path / "run" / "checkpoints" / f"step-{step:08d}" / "model.safetensors"))
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, torch.stack([part[name] for part in parts]).mean(0))
    assert not torch.equal(
        parts[-1]["tokenizers.source.embedding.weight"], run.model.tokenizers["source"].embedding.weight
    )
    with pytest.raises(ConfigError, match="keep: must be at least 5 .checkpoints.average., not 2"):
        load_config(config(tmp_path), ["checkpoints.average=5"])


def test_flags_change_only_their_part_of_the_search(trained):
    before = trained.tasks["translation"].search
    other = trained.searching(beams=4, length_penalty=0.6).searching(no_repeat=3)
    assert other.tasks["translation"].search == Search(beams=4, length_penalty=0.6, no_repeat=3)
    assert trained.tasks["translation"].search == before
    with pytest.raises(ValueError, match="beams must be at least 1"):
        trained.searching(beams=0)


@pytest.mark.system
def test_the_average_does_not_depend_on_interruptions(tmp_path):
    """A run that is stopped between two checkpoints saves one more, which is not averaged. The average is the best
    checkpoint."""
    options = ["checkpoints.every=2", "checkpoints.keep=3", "evaluation.every=8", "training.schedule=constant"]
    for name, *stops in (("whole", 8), ("parts", 7, 8)):
        for steps in stops:
            average = ["checkpoints.average=3"] if steps == 8 else []
            train(tmp_path, *options, f"training.steps={steps}", *average, out=name)
    whole, parts = (load_run(tmp_path / name, "best") for name in ("whole", "parts"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name])
    best = json.loads((tmp_path / "whole" / "best.json").read_text())
    assert best["step"] == 8 and whole.evaluate("val")["val/loss"] == pytest.approx(best["val/loss"], rel=1e-6)


def test_dry_run_shows_proofs_and_parts(tmp_path, capsys):
    assert main(["train", config(tmp_path), "--dry-run", "--full"]) == 0
    shown = capsys.readouterr().out
    assert "no leak in encoder" in shown and "no leak in main" in shown and "cores.encoder" in shown
    assert "same_as: source" in shown


def test_micro_batches_change_nothing(tmp_path):
    whole = train(tmp_path, "training.steps=2", out="a")
    parts = train(tmp_path, "training.steps=2", "training.rows_per_micro_batch=3", out="b")
    assert parts["val/loss"] == pytest.approx(whole["val/loss"], rel=1e-5)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("override, message", [
    ("inputs.target={same_as: sorce}", r"inputs\.target\.same_as: no input is named 'sorce'; did you mean 'source'\?"),
    ("inputs.target={same_as: source, encoding: bytes}", "same_as copies all options of the other input"),
    ("model.encoder=null", r"tasks\.translation: sequence_to_sequence needs 'model.encoder'"),
    ("model.encoder.depth=0", r"model\.encoder\.depth: must be at least 1, not 0"),
    ("model.encoder.attention=causl", r"model\.encoder\.attention: .*did you mean 'causal'"),
    ("model.core_tokens=1", r"model\.core_tokens: must be 0 with an encoder"),
    ("tasks.translation.search.beams=0", "beams must be at least 1"),
    ("tasks.translation.metrics=[blue]", "metrics.*'bleu'"),
    ("tasks.translation.label_smoothing=1", "label_smoothing must be at least 0 and below 1"),
])  # fmt: skip
def test_wrong_options_are_refused_before_any_work(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(config(tmp_path), [override])


def test_files_of_unequal_length_are_refused(tmp_path, capsys):
    path = config(tmp_path)
    with open(tmp_path / "train.de", "a", encoding="utf-8") as file:
        file.write("zu viel\n")
    assert main(["train", path, f"out={tmp_path / 'run'}"]) == 2
    shown = capsys.readouterr().err
    assert (
        "train.en has 120 lines" in shown
        and "train.de has 121 lines" in shown
        and "line 121 has no partner in" in shown
    )


def test_empty_lines_and_long_sources_are_bad_samples(tmp_path, capsys):
    path = config(tmp_path)
    for column, line, text in (("en", 3, ""), ("de", 5, "  "), ("en", 7, "one " * 40)):
        lines = (tmp_path / f"train.{column}").read_text().splitlines()
        lines[line] = text
        (tmp_path / f"train.{column}").write_text("\n".join(lines) + "\n")
    assert main(["train", path, f"out={tmp_path / 'a'}"]) == 2
    assert "sample 'line" in capsys.readouterr().err
    assert main(["train", path, f"out={tmp_path / 'b'}", "data.bad_share=0.05", "training.steps=12"]) == 0
    shown = capsys.readouterr().err
    assert "line 4 is empty" in shown and "line 6 is empty" in shown
    assert "none of its encoder inputs fits: 161 tokens are more than the encoder's context of 40" in shown


def test_compressed_files_and_invalid_bytes(tmp_path):
    from chopmix.data.datasets.parallel_text import Lines

    (tmp_path / "a.gz").write_bytes(gzip.compress(b"eins\r\nzwei\n"))
    (tmp_path / "b").write_bytes(b"one\ntw\xff\n")
    assert Lines({"a": tmp_path / "a.gz"})[1] == {"a": "zwei"}
    with pytest.raises(DataError, match=r"b, line 2: byte 2 \(0xff\) is not valid UTF-8"):
        Lines({"a": tmp_path / "a.gz", "b": tmp_path / "b"})
    with pytest.raises(DataError, match="does not exist"):
        Lines({"a": tmp_path / "c"})


@pytest.mark.parametrize(
    ("optimizer", "tolerance"),
    [("{use: adamw}", 1e-6), pytest.param("{use: muon}", 1e-2, marks=LARGER)],
    ids=["AdamW", "Muon"],
)
def test_two_processes_have_the_losses_of_one(tmp_path, optimizer, tolerance):
    """Batches under a token budget, whose number of samples differs from step to step, shared and in
    micro-batches. With AdamW only sums are rounded differently. Muon makes every matrix of updates orthogonal, in
    bfloat16: the smallest components of a gradient, and their rounding errors, then weigh as much as the largest, and
    the errors grow from step to step."""
    file = config(tmp_path)
    common = ["training.rows_per_micro_batch=5", "evaluation.sample_tokens=0", f"training.optimizer={optimizer}",
              "training.precision=float32", "logging.every=1"]  # fmt: skip
    assert main(["train", file, *common, f"out={tmp_path / 'one'}"]) == 0
    process = train_together(tmp_path, 2, file, *common, f"out={tmp_path / 'two'}")
    assert process.returncode == 0, process.stderr
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    for key in ("train/loss", "val/loss", "val/bleu"):
        values = [[line[key] for line in lines if key in line] for lines in (one, two)]
        if "loss" in key or optimizer == "{use: adamw}":
            assert values[0] and values[0] == pytest.approx(values[1], rel=tolerance)
    steps = [[line["train/loss"] for line in lines if "train/loss" in line] for lines in (one, two)]
    assert steps[0][:2] == pytest.approx(steps[1][:2], rel=1e-6)
