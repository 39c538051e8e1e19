"""Images, text and sound in one set, from a YAML to answers: training, resuming, tasks, missing inputs, and what each
input contributes."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from batching import asked, fitted, summed
from chopmix.commands.cli import main
from chopmix.commands.options.shared import parse_samples
from chopmix.data.datasets.arithmetic import outcomes
from chopmix.data.generated import MadeDataset
from chopmix.data.processes import Processes
from chopmix.data.sample_dataset import Outcome
from chopmix.data.samples import Listed
from chopmix.experiment.assemble import assemble
from chopmix.experiment.build import load_learned, open_split, save_learned
from chopmix.experiment.own_data import Whole, named_dataset
from chopmix.experiment.run import Run, load_run
from chopmix.experiment.run_folder import prepare_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.settings.document import ConfigError
from chopmix.experiment.train import fit, introduce, resume, train
from chopmix.files.errors import RunError, UsageError
from chopmix.files.reading import DataError
from chopmix.inference.evaluators import attribution
from chopmix.inference.evaluators.attribution import Attribution, best_guess, entropy, subset_table, table
from chopmix.inference.generate import Generating, Generation, before, open_answers
from chopmix.models.batch import Batch, Chunks, SetPlan, Targets
from chopmix.models.generation.beam_search import Search
from chopmix.models.generation.sampling import Sampling, draw
from chopmix.models.generation.session import Session
from chopmix.models.heads import AttentionPooling, ClassToken, MeanPooling
from chopmix.models.tokens import plain_tokens
from chopmix.tasks.classification import Classification
from chopmix.tasks.regression import Regression
from chopmix.training.mixup import Mixup
from chopmix.training.progress import Progress
from ranks import train_together

BLOCK = {"norm": "rms_norm", "query_key_norm": "rms_norm", "feed_forward": "squared_relu", "bias": False}
TREE = {
    "inputs": {
        "image": {
            "use": "image",
            "patch_size": 4,
            "channels": 1,
            "size": 8,
            "augment": {"use": "image_augmentation", "shift": 1},
        },
        "operator": {"use": "text", "encoding": "characters"},
        "sound": {"use": "audio", "rate": 8000, "mels": 8, "frames": 20, "augment_wave": {"gain": 3}},
        "answer": {"use": "text", "encoding": "characters"},
    },
    "model": {
        "width": 16,
        "depth": 2,
        "heads": 2,
        "context": 32,
        "position": "rotary",
        "block": BLOCK,
        "attention": "same_sample & (causal | from(image, sound))",
    },
    "tasks": {"answer": {"use": "language_modeling", "target": "answer", "metrics": ["exact_match"]}},
    "data": {"dataset": {"use": "arithmetic", "samples": 24}},
    "training": {
        "steps": 6,
        "samples_per_step": 6,
        "input_dropout": 0.2,
        "learning_rate": 1e-2,
        "schedule": "constant",
    },
    "evaluation": {"every": 6, "generated": 4},
    "checkpoints": {"every": 3},
    "logging": {"every": 2, "tensorboard": False},
}


@pytest.fixture
def mixed(tmp_path, monkeypatch):
    """Returns a function that writes the YAML of a tiny experiment in cross-modal arithmetic, with a hundred validation
    samples instead of a thousand, and returns its path."""
    monkeypatch.setattr(MadeDataset, "held_back", 100)

    def make(name: str = "mixed", **sections):
        tree = TREE | sections | {"out": str(tmp_path / name)}
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(tree, sort_keys=False))
        return file

    return make


@pytest.fixture(scope="module")
def answering(tmp_path_factory) -> Run:
    """A run of one training step, in which only images were withheld."""
    folder = tmp_path_factory.mktemp("answering")
    training = TREE["training"] | {"steps": 1, "input_dropout": {"image": 0.2}}
    tree = TREE | {"training": training, "evaluation": {"generated": 1}, "out": str(folder / "run")}
    (folder / "x.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MadeDataset, "held_back", 20)
        train(load_config(folder / "x.yaml"))
    return load_run(folder / "run")


def records(folder) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "per_second", "waited", "memory", "per_step")
    return [{k: v for k, v in line.items() if not any(part in k for part in timed)} for line in lines]


# ---------------------------------------------------------------------------------------------- train and resume


def test_training_resumed_twice_equals_training_without_a_stop(mixed):
    whole, _ = train(load_config(mixed("whole")))
    for steps in (2, 4, 6):
        parts, _ = train(load_config(mixed("parts"), [f"training.steps={steps}", "evaluation.every=100"]))
    first, second = (load_run(mixed(name).with_suffix(""), "last").model.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    validation = [
        {name: value for name, value in metrics.items() if name.startswith("val/")} for metrics in (whole, parts)
    ]
    assert validation[0] == validation[1] and {"val/loss", "val/exact_match"} <= validation[0].keys()


def test_the_number_of_judged_texts_is_reported(mixed):
    """Training generates some texts, `evaluate` all: the metric has the same name, but another number of texts."""
    metrics, _ = train(load_config(mixed(), ["evaluation.generated=3", "training.steps=1"]))
    run = load_run(mixed().with_suffix(""))
    assert metrics["val/judged"] == 3 < run.evaluate("val")["val/judged"] == len(run.dataset().open("val"))


def test_a_run_whose_texts_are_samples_reads_a_manifest_as_samples(mixed, tmp_path):
    """Also if batches are counted in tokens, the file is not read as one text that is cut into windows."""
    alone = {"inputs": {"answer": TREE["inputs"]["answer"]}, "model": TREE["model"] | {"attention": "causal"}}
    counted = {"samples_per_step": None, "tokens_per_step": 64, "input_dropout": 0, "steps": 1}
    train(load_config(mixed(**alone, training=TREE["training"] | counted)))
    run = load_run(mixed(**alone).with_suffix(""))
    (tmp_path / "rows.jsonl").write_text('{"answer": "1+1=2"}\n{"answer": "2+1=3"}\n')
    assert run.reads() == ({"answer": "text"}, False)
    assert len(named_dataset(str(tmp_path / "rows.jsonl"), "val", *run.reads()).opened("val")) == 2


def test_samples_with_several_prompts_are_refused(mixed):
    train(load_config(mixed(), ["training.steps=1"]))
    run = load_run(mixed().with_suffix(""))
    for ask in (run.generate, run.stream):
        with pytest.raises(RunError, match="2 prompts cannot be combined with inputs; write one prompt"):
            ask(["1", "2"], inputs=[{"operator": "+"}])


def test_predictions_report_inputs_that_do_not_fit(mixed, messages):
    """A picture of 4 tokens and an operator of 2 leave no room for a sound of 3 in a context of 8."""
    train(load_config(mixed(), ["training.steps=1", "data.too_long=drop", "data.bad_share=1"]))
    run = load_run(mixed().with_suffix(""))
    short = replace(run, config=load_config(mixed(), ["data.too_long=drop", "model.context=8"]))
    raw = run.dataset().open("val")[0]
    messages()
    short.predict([{name: raw[name] for name in ("image", "operator", "sound")}], max_tokens=1)
    assert "input samples: inputs dropped because they do not fit into the context: sound of 1 samples" in messages()


def test_classes_are_not_copied_to_a_task_with_another_target(mixed):
    """`from: RUN` with a task of the same name and another target: its classes are those of the new column."""

    def of(target: str) -> dict:
        return {"tasks": {"which": {"use": "classification", "target": target}},
                "inputs": {"image": TREE["inputs"]["image"]},
                "model": TREE["model"] | {"attention": "same_sample"}}  # fmt: skip

    old, new = mixed("old", **of("operator")), mixed("new", **of("answer"))
    train(load_config(old, ["training.steps=1"]))
    train(load_config(new, ["training.steps=1", "data.bad_share=1", f"from={old.with_suffix('')}"]))
    first, second = (load_run(file.with_suffix("")).tasks["which"].classes for file in (old, new))
    assert first == ("+", "-") and len(second) > 2


def test_micro_batches_and_packed_rows_change_nothing_but_rounding(mixed):
    settings = TREE["training"] | {"input_dropout": 0.2}
    inputs = {name: {k: v for k, v in part.items() if k != "augment"} for name, part in TREE["inputs"].items()}
    one = train(load_config(mixed("one", inputs=inputs)))[0]["val/loss"]
    parts = train(load_config(mixed("four", inputs=inputs, training=settings | {"rows_per_micro_batch": 2})))[0][
        "val/loss"
    ]
    assert one == pytest.approx(parts, rel=1e-3)
    losses = [line["train/loss"] for line in records(mixed("one").with_suffix("")) if "train/loss" in line]
    again = [line["train/loss"] for line in records(mixed("four").with_suffix("")) if "train/loss" in line]
    assert losses == pytest.approx(again, rel=1e-3)


def test_training_on_one_batch_learns_it(mixed):
    data = {"dataset": {"use": "arithmetic", "samples": 4}}
    training = TREE["training"] | {"steps": 120, "samples_per_step": 4, "input_dropout": 0.0, "optimizer": "muon"}
    inputs = {name: {k: v for k, v in p.items() if "augment" not in k} for name, p in TREE["inputs"].items()}
    inputs |= {name: {"use": "text", "encoding": "bytes"} for name in ("answer", "operator")}
    file = mixed("learn", data=data, training=training, inputs=inputs, evaluation={"every": 120, "generated": 0})
    train(load_config(file))
    run = load_run(file.with_suffix(""))
    metrics = run.evaluate("train")
    assert metrics["train/exact_match"] == 1.0 and metrics["train/loss"] < 0.2
    raw = run.config.data.dataset().open("train")[0]
    answer = run.predict([{name: raw[name] for name in ("image", "operator", "sound")}])
    assert answer == [{"answer": {"text": raw["answer"]}}]
    begun = run.predict([{name: raw[name] for name in ("image", "operator", "sound")}], prompt=raw["answer"][:2])
    assert begun == [{"answer": {"text": raw["answer"][2:]}}]


# --------------------------------------------------------------------------------------------------- generation


@pytest.mark.parametrize("inputs", [None, ("sound",), ()])
def test_cached_answers_equal_those_without_a_cache(mixed, inputs):
    file = mixed()
    train(load_config(file, ["training.steps=3"]))
    run = load_run(file.with_suffix(""))
    split = open_split(run.config, run.config.data.dataset(), "val", run.choppers, run.tasks)
    places, encoding = split.first(5), run.choppers["answer"].vocabulary
    planned = split.read(places, inputs=inputs, rows="one_each", replaced={"answer": ""}).main
    session = Session(run.model, Batch(main=planned), input="answer", task="answer", vocabulary=encoding.size)
    written = torch.stack(list(draw(session, 5, Sampling(temperature=0))), dim=1)
    for row, place in enumerate(places):
        for length in range(5):
            text = encoding.decode(written[row, :length].tolist())
            if encoding.start in written[row, :length]:
                break
            again = split.read([place], inputs=inputs, replaced={"answer": text}).main
            batch = run.model.plan(Batch(main=again))
            with torch.inference_mode():
                hidden = run.model.read(batch).main[0, again.chunks["answer"].slots[-1]]
                scores = run.model.heads["answer"](hidden[None])[0, : encoding.size]
            assert int(scores.argmax()) == int(written[row, length])


def test_streamed_answers_equal_those_returned_at_once(mixed):
    """Streamed or returned at once, cached or not, by beams or not, the texts are the same; bad inputs are reported."""
    file = mixed()
    train(load_config(file, ["training.steps=3"]))
    run = load_run(file.with_suffix(""))
    raw = run.config.data.dataset().open("val")
    samples = [{name: raw[number][name] for name in ("image", "operator", "sound")} for number in (0, 1)]
    for options in ({"seed": 3, "sampling": Sampling(temperature=3)}, {"search": Search(beams=3)}, {}):
        whole = [answer["answer"]["text"] for answer in run.predict(samples, max_tokens=6, **options)]
        streamed = list(run.stream(["1"], samples, max_tokens=6, **options))
        begun = [answer["answer"]["text"] for answer in run.predict(samples, prompt="1", max_tokens=6, **options)]
        assert list(map("".join, zip(*streamed))) == begun and (len(streamed) > 2 or "search" in options or not options)
        assert run.generate(inputs=samples, max_tokens=6, **options) == whole
        assert run.generate(inputs=samples[0], max_tokens=6, **options | {"seed": 3}) == run.generate(
            inputs=samples[:1], max_tokens=6, **options | {"seed": 3}
        )[0]  # fmt: skip
        if "search" not in options:
            assert run.generate(inputs=samples, max_tokens=6, cached=False, **options) == whole
    for write in (run.generate, lambda **arguments: list(run.stream([None], **arguments))):
        with pytest.raises(ValueError, match="image: the image cannot be read"):
            write(inputs=[{"image": b"no image"}])


def test_a_sample_without_a_text_is_not_compared_with_a_text(answering):
    """It changes no metric: all metrics are those of the one sample that has a text."""
    rows = [{"operator": "+"}, {"operator": "+", "answer": "1"}, {"operator": "-"}]
    whole, alone = (
        answering.evaluate("val", Whole(Listed("abc"[: len(some)], some), tuple(TREE["inputs"])))
        for some in (rows, rows[1:2])
    )
    assert whole["val/judged"] == 1 and whole == pytest.approx(alone, rel=1e-5)


def test_the_missing_inputs_of_a_prompt_are_reported(answering, capsys):
    generate = ["generate", str(answering.folder), "--prompt", "1", "--max-tokens", "2"]
    message = "'answer' is generated without image, operator, sound (--input NAME=VALUE)\n"
    assert main(generate) == 0 and message in capsys.readouterr().err
    for command in ([*generate, "--input", "operator=+"], ["predict", str(answering.folder), "--input", "operator=+"]):
        assert main(command) == 0
        assert "'answer' is generated without image, sound (--input NAME=VALUE)\n" in capsys.readouterr().err


@pytest.mark.parametrize("inputs", [None, ("sound",), ()])
def test_a_session_with_other_inputs_has_the_same_scores_with_and_without_a_cache(mixed, inputs):
    file = mixed()
    train(load_config(file, ["training.steps=3"]))
    run = load_run(file.with_suffix(""))
    split = open_split(run.config, run.config.data.dataset(), "val", run.choppers, run.tasks)
    results = []
    for cached in (True, False):
        _, session = open_answers(
            Generation.of(run, split, split.first(5), Generating(prompt="1", cached=cached), inputs), "answer"
        )
        with torch.inference_mode():
            scores = []
            for step in range(5):
                scores.append(session.scores())
                session.append(torch.full((5,), step))
        results.append(torch.stack(scores))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_a_bad_file_is_answered_with_its_error(mixed, tmp_path):
    file = mixed()
    train(load_config(file, ["training.steps=1"]))
    run = load_run(file.with_suffix(""))
    (tmp_path / "no.png").write_bytes(b"no image")
    good, bad = run.predict([{"operator": "+"}, {"image": str(tmp_path / "no.png")}])
    assert "text" in good["answer"] and "image: the image cannot be read" in bad["error"]
    with pytest.raises(RunError, match="has no input 'video'; possible: image, operator, sound$"):
        run.predict([{"video": "x"}])


def test_input_pairs_make_samples(mixed, tmp_path, monkeypatch, capsys):
    file = mixed()
    train(load_config(file, ["training.steps=1"]))
    run = load_run(file.with_suffix(""))
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    samples = parse_samples(["image=*.png", "operator=*"], run)
    assert [sample["image"] for sample in samples] == ["a.png", "b.png"] and samples[1]["operator"] == "*"
    for pairs, message in (
        (["cat.jpg"], "write NAME=VALUE"),
        (
            ["image=1", "image=2", "sound=1", "sound=2", "sound=3"],
            "--input image: 2 values, but another input has 3; pass 1 or 3",
        ),
        (
            [f"image={tmp_path}"],
            f"--input image={tmp_path}: {tmp_path} is a folder. Pass its files: --input 'image={tmp_path}",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            parse_samples(pairs, run)


def test_answers_end_before_a_stop_text_and_flags_without_an_effect_are_refused(mixed, capsys):
    file = mixed()
    train(load_config(file, ["training.steps=1"]))
    for seed in range(20):
        sampling = ["--max-tokens", "6", "--temperature", "3", "--seed", str(seed)]
        generate = ["generate", str(file.with_suffix("")), "--input", "operator=+", *sampling]
        assert main(generate) == 0
        if len(whole := capsys.readouterr().out.removesuffix("\n")) > 1:
            break
    assert main([*generate, "--stop", whole[1]]) == 0
    assert capsys.readouterr().out.removesuffix("\n") == before(whole, whole[1])
    assert main([*generate, "--no-cache"]) == 0
    assert capsys.readouterr().out.removesuffix("\n") == whole
    for flags, message in (
        (["--prompts", "x"], "--prompts cannot be combined with --input"),
        (
            ["--beams", "3"],
            "--beams (beam search) and --temperature (random sampling) cannot be combined; use one of them",
        ),
    ):
        assert main([*generate, *flags]) == 2
        assert message in capsys.readouterr().err


def test_a_run_without_the_assets_that_it_learned_from_its_data_is_refused(mixed, tmp_path):
    """Without the statistics of its spectrograms, for example, a run would give wrong answers."""
    file = mixed()
    train(load_config(file, ["training.steps=1"]))
    assets = sorted((file.with_suffix("") / "assets").iterdir())
    assert {"sound", "answer"} <= {each.name for each in assets}
    for each in assets:
        each.rename(tmp_path / "away")
        with pytest.raises(
            RunError, match=rf"assets/{each.name} is missing. It holds what this run learned from its data"
        ):
            load_run(file.with_suffix(""))
        (tmp_path / "away").rename(each)
    load_run(file.with_suffix(""))


# ------------------------------------------------------------------------------------------------ other tasks


def planned(*lengths: int, core_tokens: int = 0) -> SetPlan:
    """Returns a set with one row per sample; `core_tokens` tokens of the core come first."""
    plain = plain_tokens(len(lengths), max(lengths) + core_tokens)
    inside = torch.arange(max(lengths) + core_tokens) < torch.tensor(lengths)[:, None] + core_tokens
    tokens = replace(
        plain,
        sample=plain.sample * inside,
        input=(torch.arange(max(lengths) + core_tokens) >= core_tokens).long() * inside,
    )
    places = (
        torch.arange(len(lengths))[:, None] * (max(lengths) + core_tokens) + torch.arange(core_tokens)
        if core_tokens
        else None
    )
    return SetPlan(tokens=tokens, chunks={}, core_slots=places, samples=len(lengths))


def test_poolings_read_each_sample_by_itself():
    torch.manual_seed(0)
    plan = planned(3, 1, 2)
    x = torch.randn(9, 8)
    places, groups = MeanPooling.slots(plan)
    assert places.tolist() == [0, 1, 2, 3, 6, 7] and groups.tolist() == [0, 0, 0, 1, 2, 2]
    mean = MeanPooling(8)(x[places], groups, 3)
    torch.testing.assert_close(mean, torch.stack([x[:3].mean(0), x[3], x[6:8].mean(0)]))
    pooling = AttentionPooling(8)
    torch.testing.assert_close(pooling(x[places], groups, 3), mean)
    torch.nn.init.normal_(pooling.query)
    weights = (x[:3] @ pooling.query / 8**0.5).softmax(0)
    torch.testing.assert_close(pooling(x[places], groups, 3)[0], weights @ x[:3])
    expected = weights @ x[:3]
    with torch.autocast("cpu", torch.bfloat16):  # its exponentials are of float32 there
        for vectors in (x, x.bfloat16()):
            torch.testing.assert_close(pooling(vectors[places], groups, 3)[0].float(), expected, atol=0.02, rtol=0.02)
    with pytest.raises(ValueError, match="set model.core_tokens: 1"):
        ClassToken.slots(plan)


def classification(**options) -> Classification:
    rows = [{"label": label} for label in ("dog", "cat", "cow", "cat", None)]
    if options.get("several"):
        rows = [{"label": ["dog", "cat"]}, {"label": []}, {"label": ["cow"]}]
    return fitted(Classification(target="label", **options), rows)


def test_classes_are_sorted_kept_and_judged(tmp_path):
    task = classification(label_smoothing=0.1)
    assert task.classes == ("cat", "cow", "dog")
    save_learned(task, tmp_path / "t")
    assert json.loads((tmp_path / "t" / "classes.json").read_text()) == ["cat", "cow", "dog"]
    assert load_learned(Classification(target="label"), tmp_path / "t").classes == task.classes
    plan = replace(planned(1, 1, 1), labels={"label": ["dog", None, "cat"]}, keys=("a", "b", "c"))
    targets = asked(task, plan)
    assert targets.values.tolist() == [2, -100, 0] and targets.count == 2
    scores = torch.tensor([[0.0, 0.0, 3.0], [9.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    expected = torch.nn.functional.cross_entropy(
        scores[[0, 2]], torch.tensor([2, 0]), reduction="sum", label_smoothing=0.1
    )
    torch.testing.assert_close(task.terms(scores, targets)["loss"], expected)
    figures, sums = summed(task, scores, targets, count=2.0, loss=0.0), task.measure(scores, targets)
    assert tuple(figures) == tuple(name for name, metric in task.metrics.items() if metric.of_sums)
    assert figures["accuracy"] == 0.5 and [sums[name].tolist() for name in ("hits", "predicted", "true")] == [
        [0, 0, 1],
        [0, 1, 1],
        [1, 0, 1],
    ]
    assert figures["balanced_accuracy"] == 0.5 and figures["macro_f1"] == pytest.approx(1 / 3)
    answer = task.answers(scores, targets, Batch(main=plan))[0]
    assert answer["class"] == "dog" and answer["probabilities"]["dog"] == float(scores[0].softmax(0)[2])
    with pytest.raises(DataError, match="'fox' in column 'label' is none of the 3 classes"):
        asked(task, replace(plan, labels={"label": ["dog", "fox", "cat"]}))
    with pytest.raises(DataError, match="has 1 classes"):
        fitted(Classification(target="label"), [{"label": 1}])


@pytest.mark.parametrize(
    "several, odd", [(False, {"a": 1}), (False, math.nan), (False, ["a"]), (True, [["a"]]), (True, [None])]
)
def test_a_value_that_is_no_label_is_reported(several, odd):
    task = classification(several=several)
    with pytest.raises(DataError, match="column 'label' must hold .*; labels are texts or numbers"):
        task.encoded(odd)
    with pytest.raises(DataError, match="column 'label' must hold"):
        fitted(task, [{"label": ["b"] if several else "b"}, {"label": odd}])


def test_samples_without_a_label_favor_certain_and_different_predictions():
    task, plain = classification(unlabelled=0.5), classification()
    plan = replace(planned(1, 1, 1, 1), labels={"label": [None, "dog", None, None]}, keys=tuple("abcd"))
    targets = asked(task, plan)
    sure = torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    alike = torch.tensor([[9.0, 0.0, 0.0]] * 4)
    losses = []
    for scores in (sure, alike, torch.zeros(4, 3)):
        terms = task.terms(scores, targets)
        assert torch.equal(terms["loss"], plain.terms(scores, targets)["loss"])
        losses.append(float(terms["unlabelled"] / 0.5))
    assert losses[0] == pytest.approx(-math.log(3), abs=0.02)  # the three predictions are certain and different
    assert losses[1:] == pytest.approx([0.0, 0.0], abs=1e-5)
    moved = sure.clone()
    moved[1] = torch.tensor([5.0, 1.0, 2.0])  # a labelled sample counts in the loss alone
    torch.testing.assert_close(task.terms(moved, targets)["unlabelled"] / 0.5, torch.tensor(losses[0]))
    skewed = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [1.0, 1.0, 0.0]], requires_grad=True)
    task.terms(skewed, targets)["unlabelled"].backward()
    assert skewed.grad[1].abs().max() == 0 and skewed.grad[[0, 2, 3]].abs().min() > 0
    assert list(plain.terms(sure, targets)) == ["loss"]
    with pytest.raises(ValueError, match="unlabelled must be 0 or more, and 0 with several: true, not 0.5"):
        classification(several=True, unlabelled=0.5)


def test_the_unlabelled_loss_of_a_batch_with_all_labels_is_zero():
    task = classification(unlabelled=0.5)
    targets = asked(task, replace(planned(1, 1), labels={"label": ["dog", "cat"]}, keys=("a", "b")))
    assert float(task.terms(torch.randn(2, 3), targets)["unlabelled"]) == 0


def test_each_of_several_labels_is_judged_separately():
    task = classification(several=True)
    plan = replace(planned(1, 1), labels={"label": [["dog", "cat"], None]}, keys=("a", "b"))
    targets = asked(task, plan)
    assert targets.values[0].tolist() == [1, 0, 1] and targets.count == 1 and targets.classes == 0
    scores = torch.tensor([[2.0, -1.0, -1.0], [5.0, 5.0, 5.0]])
    sums = task.measure(scores, targets)
    assert [int(sums[name].sum()) for name in ("hits", "predicted", "true")] == [1, 1, 2]
    expected = -sum(math.log(p) for p in (1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))))
    assert float(sums["nats"]) == pytest.approx(expected, rel=1e-5)
    assert task.answers(scores, targets, Batch(main=plan))[0]["classes"] == ["cat"]


def test_numbers_are_learned_in_deviations_and_reported_in_units(tmp_path):
    rows = [{"y": [0.0, 100.0]}, {"y": [2.0, 300.0]}, {"y": None}]
    save_learned(fitted(Regression(target="y", names=["speed", "angle"]), rows), tmp_path / "t")
    task = load_learned(Regression(target="y", names=["speed", "angle"]), tmp_path / "t")
    assert task.learned.mean == [1, 200] and task.learned.std == [1, 100]
    plan = replace(planned(1, 1), labels={"y": [[3.0, 200.0], [math.nan, 0.0]]}, keys=("a", "b"))
    targets = asked(task, plan)
    assert targets.count == 3
    output = torch.tensor([[1.0, 1.0], [7.0, -2.0]])
    assert float(task.terms(output, targets)["loss"]) == pytest.approx(1 + 1)
    errors = summed(task, output, targets, count=3.0, loss=2.0)
    assert tuple(errors) == tuple(task.metrics)
    assert (
        errors["mae_speed"] == 1 and errors["mae_angle"] == 50 and errors["rmse_angle"] == pytest.approx(100 / 2**0.5)
    )
    assert task.answers(output, targets, Batch(main=planned(1, 1)))[0] == {"values": {"speed": 2.0, "angle": 300.0}}
    with pytest.raises(DataError, match="holds 2 numbers, but 'names' has 1"):
        fitted(Regression(target="y", names=["speed"]), rows[:1]).head({}, 8)
    with pytest.raises(ValueError, match="must be 'squared' or 'huber'"):
        Regression(target="y", loss="cubic")


@pytest.mark.parametrize(
    "pooling",
    ["class_token", *(pytest.param(p, marks=pytest.mark.system) for p in ("mean_pooling", "attention_pooling"))],
)
def test_digits_are_classified_from_a_yaml(mixed, pooling):
    file = mixed(
        "digits", inputs={"image": TREE["inputs"]["image"] | {"augment": None}}, data={"dataset": "digits"},
        model=TREE["model"] | {"attention": "same_sample", "core_tokens": 1, "context": 8},
        tasks={"digit": {"use": "classification", "target": "label", "pooling": pooling}},
        training=TREE["training"] | {"steps": 60, "samples_per_step": 64, "optimizer": "muon", "input_dropout": 0.0},
        evaluation={"every": 60}, checkpoints={"best": "val/accuracy"},
    )  # fmt: skip
    summary, _ = train(load_config(file))
    assert summary["val/accuracy"] > 0.5
    run = load_run(file.with_suffix(""))
    image = run.config.data.dataset().open("val")[0]["image"]
    answer = run.predict([{"image": image}])[0]["digit"]
    assert set(answer) == {"class", "probabilities"} and answer["class"] in range(10)


# ------------------------------------------------------------------------------------------------- contributions


def test_shares_add_up_and_match_the_joint_table():
    truth = outcomes()
    names = ("image", "operator", "sound")
    subsets = [tuple(n for i, n in enumerate(names) if mask >> i & 1) for mask in range(8)]
    contributions = Attribution(
        names, {}, {s: entropy(truth, s) * math.log(2) for s in subsets}, dict.fromkeys(names, 2.0)
    )
    assert [contributions.share(name) for name in names] == pytest.approx([math.log2(10), 1, math.log2(10)])
    assert sum(map(contributions.share, names)) == pytest.approx(contributions.value(names))
    assert [best_guess(truth, s) for s in ((), ("operator", "sound"), names)] == pytest.approx([1 / 200, 0.1, 1])
    shown = table("sum", contributions, truth)
    assert list(shown.columns[1].cells) == ["3.32 of 3.32", "1.00 of 1.00", "3.32 of 3.32"] and shown.caption is None
    over = {s: value * (1 if "image" in s else 1.5) for s, value in contributions.nats.items()}
    assert (
        "Some values are larger than those of a perfect"
        in table("sum", replace(contributions, nats=over), truth).caption
    )


def test_the_share_of_the_error_is_reported_for_numbers():
    squares = {(): 2.0, ("a",): 1.0, ("b",): 1.5, ("a", "b"): 0.5}
    contributions = Attribution(("a", "b"), {}, squares, {"a": 1.0, "b": 2.0}, in_bits=False)
    shown = table("control", contributions)
    assert shown.title == "control: what each input contributes"
    assert [list(column.cells) for column in shown.columns][:3] == [["a", "b"], ["50.0%", "25.0%"], ["50.0%", "25.0%"]]
    assert contributions.figures("val") == {"val/share_of_loss/a": 0.5, "val/share_of_loss/b": 0.25}


def test_two_inputs_with_the_same_information_share_it():
    truth = [Outcome({"a": bit, "b": bit}, str(bit), 0.5) for bit in (0, 1)]
    nats = {s: entropy(truth, s) * math.log(2) for s in ((), ("a",), ("b",), ("a", "b"))}
    contributions = Attribution(("a", "b"), {}, nats, {"a": 1.0, "b": 1.0})
    assert (contributions.share("a"), contributions.alone("a"), contributions.added("a")) == (0.5, 1.0, 0.0)


def test_contributions_and_metrics_are_reported_for_every_subset(mixed):
    file = mixed(evaluation={"every": 6, "generated": 4, "attribution": True})
    summary, _ = train(load_config(file, ["training.steps=2"]))
    assert {"val/bits/image", "val/bits_per_token/sound", "val/without_image/exact_match"} <= set(summary)
    assert np.isfinite([value for name, value in summary.items() if name not in ("step", "last")]).all()
    metrics = {(): {"loss": 1.0, "exact_match": 0.0}, ("a",): {"loss": 0.5, "exact_match": 0.5}}
    every = {"loss": 1000, "exact_match": 1000}
    contributions = Attribution(("a",), metrics, {}, {}, samples=1000, measured_on=every, where="1,000 samples of val")
    shown = subset_table("x", contributions)
    assert shown.row_count == 2 and shown.caption == "on 1,000 samples of val" and len(shown.columns) == 3
    where = "1,000 of 1,234 samples of val (one 600, two 400)"
    shown = subset_table("x", replace(contributions, measured_on=every | {"exact_match": 256}, where=where))
    assert shown.caption == f"on {where}; exact_match: 256"


def test_every_subset_is_evaluated_once(answering, tmp_path, monkeypatch):
    subsets, real = [], attribution.measured

    def counted(*parts, **options):
        subsets.append(options["inputs"])
        return real(*parts, **options)

    monkeypatch.setattr(attribution, "measured", counted)
    row = answering.dataset().open("val")[0]
    answering.attribution("val", Whole(Listed(["a"], [row]), tuple(row)))
    assert len(subsets) == len(set(subsets)) == 8
    subsets.clear()
    contributions = answering.attribution("val", Whole(Listed(["a"], [row | {"image": None}]), tuple(row)))
    assert contributions["answer"].inputs == ("operator", "sound")  # the sample has no image
    assert len(subsets) == len(set(subsets)) == 1 + 3 and subsets[0] == (
        "image",
        "operator",
        "sound",
    )  # with all possible inputs


def test_inputs_that_training_never_withheld_are_reported_with_their_contribution(answering, tmp_path, capsys):
    """The contribution of an input that every training sample had is unreliable: the table and the command say so."""
    contributions = Attribution(
        ("a", "b"), {}, dict.fromkeys(((), ("a",), ("b",), ("a", "b")), 1.0), {"a": 1.0, "b": 1.0}
    )
    assert table("x", contributions).caption is None
    message = "The model was never trained without {} (training.input_dropout is 0). Its loss without this input is not"
    assert table("x", replace(contributions, never_dropped=("b",))).caption.startswith(message.format("b"))
    row = {"operator": "+", "answer": "1", "image": None, "sound": None}
    (tmp_path / "row.jsonl").write_text(json.dumps(row))
    assert main(["evaluate", str(answering.folder), "--data", str(tmp_path / "row.jsonl"), "--subsets"]) == 0
    assert message.format("operator") in " ".join(capsys.readouterr().out.split())


def test_a_model_that_was_trained_with_every_subset_has_no_never_dropped_input(mixed, capsys):
    file = str(mixed("any", training=TREE["training"] | {"input_dropout": "any_number"}))
    assert main(["train", file]) == 0
    output = "".join(capsys.readouterr())
    assert "image 34.0%, operator 34.0%, sound 34.0% (input_dropout any_number)" in output
    contributions = load_run(load_config(file).out).attribution("val")
    assert [each.never_dropped for each in contributions.values()] == [()]


def test_a_removed_input_is_removed_from_input_dropout(mixed):
    file = mixed("ablation", training=TREE["training"] | {"input_dropout": {"image": 0.3, "sound": 0.2}})
    config = load_config(file, ["inputs.image=null", "model.attention=same_sample & (causal | from(sound))"])
    assert "image" not in config.inputs and config.training.input_dropout == {"sound": 0.2}
    with pytest.raises(ConfigError, match="training.input_dropout.*no input is named 'image'"):
        load_config(file, ["inputs.image=null", "training.input_dropout={image: 0.3}"])


def test_a_dry_run_reports_what_a_configuration_does_not_show(mixed, capsys):
    """How often inputs are withheld, and which inputs read the target column of a task, so that it sees its target."""
    options = [
        "data.columns.operator=answer",
        "training.input_dropout={image: 0.75, operator: 0.5, sound: 0.6}",
        "--dry-run",
    ]
    assert main(["train", str(mixed()), *options]) == 0
    output = capsys.readouterr().out
    assert (
        "without an input: image 67.8%, operator 43.1%, sound 53.0% (input_dropout 0.75, 0.5, 0.6; one input of "
        "each sample is kept)" in output
    )
    assert "tasks.answer: input 'answer' reads the target column 'answer' (target shifted)" in output
    assert "tasks.answer: input 'operator' reads the target column 'answer' (target not hidden)" in output
    kind = "tasks={kind: {use: classification, target: operator}}"
    assert main(["train", str(mixed()), "inputs.operator=null", kind, "--dry-run"]) == 0
    assert "no leak: no predicted token is among the input tokens" in capsys.readouterr().out


def test_missing_targets_are_reported_and_infinite_ones_are_excluded_from_the_mean():
    messages: list[str] = []
    rows = [{"y": math.nan}, {"y": 1.5}, {"y": None}, {"y": math.inf}, {"y": 3.0}]
    task = fitted(Regression(target="y"), rows[:3] + rows[4:], messages.append)
    assert messages == [
        "2 of 4 training samples have no number in 'y' and are not supervised"
    ] and task.learned.mean == [2.25]
    assert fitted(Regression(target="y"), rows[1:2] + rows[3:]).learned == task.learned
    with pytest.raises(DataError, match=r"inf holds a number that is infinite in float32"):
        task.check(math.inf)


def test_numbers_whose_squares_are_infinite_have_a_mean_and_a_std():
    learned = fitted(Regression(target="y"), [{"y": 1e20}, {"y": -1e30}, {"y": 3e38}]).learned
    assert learned.mean == pytest.approx([1e38]) and learned.std == pytest.approx([2**0.5 * 1e38])
    assert fitted(Regression(target="y"), [{"y": 3e38}] * 2).learned.mean == pytest.approx([3e38])
    with pytest.raises(DataError, match="column 'y': no training sample has number 2 of 3"):
        fitted(Regression(target="y"), [{"y": [1.0, None, 2.0]}, {"y": [2.0, None, None]}])


def test_numbers_that_look_like_classes_are_reported():
    rows = [{"y": number % 10} for number in range(50)]
    messages: list[str] = []
    fitted(Regression(target="y"), rows, messages.append)
    assert "'y' holds only 0, 1, 2, 3, 4, 5, 6, 7, 8, 9: they are learned as numbers" in messages.pop()
    for values in ([n + 0.5 for n in range(10)] * 5, list(range(50)), [1.0, 2.0]):
        fitted(Regression(target="y"), [{"y": value} for value in values], messages.append)
        assert messages == []


# ------------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.samples_per_step=null", "needs one of 'tokens_per_step' .* and 'samples_per_step'"),
        ("training.tokens_per_step=64", "set the others to null"),
        ("training.input_dropout={video: 0.1}", "training.input_dropout.*no input is named 'video'"),
        ("training.input_dropout=1.5", "must be at least 0 and below 1, not 1.5"),
        ("training.input_dropout=any", "training.input_dropout"),
        ("data.columns.video=image", "data.columns.video: no input is named 'video'"),
        ("tasks.answer.target=anser", "no input is named 'anser'; did you mean 'answer'"),
        ("inputs.image.size=9", r"size 9 must be a multiple of patch_size \(4\)"),
        ("data.dataset=tiny_shakespeare", "is a text corpus: set 'tokens_per_step' instead"),
        (
            "tasks.answer={use: classification, target: operator}",
            r"tasks.answer.target: is the column 'operator', which the input 'operator' reads: the model would "
            r"see its target",
        ),
        ("inputs.image.position=learned", "nothing is named 'learned'; possible: learned_grid, sinusoidal_grid"),
    ],
)
def test_mistakes_are_reported_before_any_work(mixed, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(mixed(), [override])


def test_columns_must_exist(mixed):
    config = load_config(mixed(), ["data.columns.image=picture"])
    with pytest.raises(
        DataError, match="inputs.image: dataset 'arithmetic' has no column 'picture'; possible: image, operator"
    ):
        train(config)


# ------------------------------------------------------------------------------------------------ growing a model


def test_a_user_defined_modality_is_trained_with_text(mixed):
    file = mixed(
        "lidar",
        inputs={"scan": "own_modality:LidarTokenizer", "side": {"use": "text", "encoding": "characters"}},
        tasks={"side": {"use": "language_modeling", "target": "side", "metrics": ["exact_match"]}},
        data={"dataset": "own_modality:Rooms"},
        model=TREE["model"] | {"attention": "same_sample & (causal | from(scan))"},
        training=TREE["training"] | {"steps": 60, "samples_per_step": 16, "optimizer": "muon", "input_dropout": 0.0},
        evaluation={"every": 60, "generated": 32},
    )
    summary, _ = train(load_config(file))
    assert summary["val/exact_match"] > 0.9
    with pytest.raises(
        ConfigError, match=r"scan.use: 'own_modality:LidarTokenizer' is code outside chopmix.*--trust own_modality"
    ):
        load_run(file.with_suffix(""))
    run = load_run(file.with_suffix(""), trust=["own_modality"])
    scan = run.config.data.dataset().open("val")[0]
    assert run.predict([{"scan": scan["scan"]}])[0]["side"]["text"] == scan["side"]


DRIVING = {
    "inputs": {
        "camera": {"use": "image", "patch_size": 12, "channels": 1, "size": 24},
        "vehicle": {"use": "sensor", "channels": {"speed": "m/s", "yaw_rate": None}},
    },
    "model": TREE["model"] | {"attention": "same_sample", "core_tokens": 1},
    "tasks": {
        "control": {
            "use": "regression",
            "target": "control",
            "names": ["steering", "braking"],
            "pooling": "class_token",
        }
    },
    "data": {"dataset": {"use": "driving", "samples": 32}},
    "evaluation": {"every": 100},
}


@pytest.mark.parametrize("before", [["camera"], ["camera", "vehicle"]])
def test_an_additional_input_changes_nothing_where_it_is_absent(mixed, before):
    """`from: RUN` with an additional radar: in step 0 samples without a radar have bit-equal outputs."""
    inputs = {name: DRIVING["inputs"][name] for name in before}
    old = mixed("old", **DRIVING | {"inputs": inputs})
    train(load_config(old, ["training.steps=4"]))
    more = inputs | {"radar": {"use": "sensor", "channels": 32}}
    new = mixed("new", **DRIVING | {"inputs": more})
    config = load_config(new, [f"from={old.with_suffix('')}"])
    prepare_run(config, config.out)
    trainer = assemble(config, Processes.start("cpu"), Progress(1))
    resume(trainer)
    first = load_run(old.with_suffix(""), "last")
    second = Run(
        folder=config.out,
        config=config,
        step=0,
        model=trainer.model.eval(),
        tasks=trainer.data.tasks,
        choppers=trainer.data.choppers,
    )
    row = first.config.data.dataset().open("val")[0]
    sample = {name: row[name] for name in before}
    answer = first.predict([sample])
    assert second.predict([sample]) == [each | {"without": ["radar"]} for each in answer]
    assert second.predict([sample | {"radar": row["radar"]}]) != answer


def test_an_input_that_no_sample_has_is_reported(mixed, monkeypatch):
    from chopmix.data.datasets.arithmetic import Problems

    read = Problems.row
    monkeypatch.setattr(Problems, "row", lambda self, *which: read(self, *which) | {"sound": None})
    config = load_config(mixed("absent", data={"dataset": {"use": "arithmetic", "samples": 12}}))
    with pytest.raises(DataError, match=r"inputs.sound: none of the 12 training samples has a value in column 'sound'"):
        train(config)


def test_training_with_unlabelled_samples_resumes_and_needs_the_whole_batch(tmp_path):
    lines = [{"text": "abcd"[n % 4] * 6} | ({"label": n % 4} if n % 3 else {}) for n in range(48)]
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    dataset = {"use": "manifest", "train": str(tmp_path / "lines.jsonl"), "columns": ["text", "label"]}
    tree = {
        "inputs": {"text": {"use": "text", "encoding": "bytes"}},
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 8, "attention": "same_sample"},
        "tasks": {"kind": {"use": "classification", "target": "label", "unlabelled": 0.5}},
        "data": {"dataset": dataset},
        "training": {"steps": 6, "samples_per_step": 8, "device": "cpu", "schedule": "constant"},
        "evaluation": {"every": 100},
        "logging": {"every": 1, "tensorboard": False},
    }

    def trained(name, *changes):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(tree))
        return train(load_config(tmp_path / f"{name}.yaml", [f"out={tmp_path / name}", *changes]))[0]["val/loss"]

    whole, without = trained("whole"), trained("without", "tasks.kind.unlabelled=0")
    for steps in (2, 6):
        parts = trained("parts", f"training.steps={steps}")
    assert whole == parts != without
    assert whole == trained("enough", "training.rows_per_micro_batch=8")
    contributions = load_run(tmp_path / "whole").attribution("train")["kind"]
    without, present = (contributions.metrics[subset]["loss"] for subset in ((), ("text",)))
    assert contributions.alone("text") == pytest.approx((without - present) / math.log(2)) and without != present
    assert trained("some", "training.rows_per_micro_batch=3") == pytest.approx(whole, rel=1e-5)
    with pytest.raises(ValueError, match="tasks.kind: its loss compares the samples of a batch"):
        trained("mixed", "training.mixup.mixup=0.1")
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps(line) for line in lines if "label" in line))
    with pytest.raises(DataError, match="unlabelled is 0.5, .* but every training sample has a label in 'label'"):
        trained("all")


# ------------------------------------------------------------------------------------------------- fine-tuning


def digits(mixed, name="digits", **training):
    return mixed(
        name,
        inputs={"image": TREE["inputs"]["image"] | {"augment": None}},
        data={"dataset": "digits"},
        model=TREE["model"] | {"attention": "same_sample", "context": 8},
        tasks={"digit": {"use": "classification", "target": "label", "label_smoothing": 0.1}},
        training=TREE["training"] | {"samples_per_step": 33, "input_dropout": 0.0} | training,
        evaluation={"every": 100},
    )


def test_images_and_labels_are_mixed_and_resume_bit_equal(mixed):
    mix = {"mixup": 0.4, "cutmix": 1.0}
    whole, _ = train(load_config(digits(mixed, "whole", mixup=mix)))
    for steps in (3, 6):
        parts, _ = train(load_config(digits(mixed, "parts", mixup=mix), [f"training.steps={steps}"]))
    plain, _ = train(load_config(digits(mixed, "plain")))
    assert whole["val/loss"] == parts["val/loss"] != plain["val/loss"]


def test_labels_follow_their_images():
    images = torch.arange(3)[:, None, None, None].expand(3, 1, 4, 4).to(torch.uint8) * 100
    ones = torch.ones(3, dtype=torch.long)
    chunks = Chunks(values=images, index=torch.zeros(3, dtype=torch.long), counts=ones)
    plan = replace(planned(1, 1, 1), chunks={"image": chunks}, seeds=((0, 0, 5), (0, 0, 6), (0, 0, 7)))
    batch = Batch(main=plan, targets={"t": Targets(values=torch.tensor([0, 1, 2]), count=3, classes=3)})
    for how in Mixup(mixup=1.0), Mixup(cutmix=1.0), Mixup(mixup=1.0, cutmix=1.0):
        mixed = how(batch)
        shares, values = mixed.targets["t"].values, mixed.main.chunks["image"].values
        torch.testing.assert_close(shares.sum(1), torch.ones(3))
        assert shares[2].tolist() == [0, 0, 1] and torch.equal(values[2], images[2])
        assert values[0].float().mean().item() == pytest.approx(100 * shares[0, 1].item(), abs=1)
        assert 0 < shares[0, 0] < 1 and torch.equal(shares[0, :2], shares[1, :2].flip(0))


@pytest.mark.parametrize("how", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0, "probability": 0.7}])
def test_mixing_depends_only_on_seed_epoch_and_sample(how):
    """A pair is mixed in the same way for any other samples in its batch, and in another way in another epoch."""
    images = torch.randint(256, (40, 3, 8, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8)

    def mixed(numbers: range, epoch: int = 0) -> torch.Tensor:
        count = len(numbers)
        chunks = Chunks(values=images[numbers.start : numbers.stop], index=torch.zeros(count, dtype=torch.long),
                        counts=torch.ones(count, dtype=torch.long))  # fmt: skip
        plan = replace(planned(*[1] * count), chunks={"image": chunks}, seeds=tuple((0, epoch, n) for n in numbers))
        targets = Targets(values=torch.tensor([n % 3 for n in numbers]), count=count, classes=3)
        return Mixup(**how)(Batch(main=plan, targets={"t": targets}))

    whole, parts, later = mixed(range(40)), [mixed(range(10)), mixed(range(10, 40))], mixed(range(40), 1)
    for read in (lambda b: b.main.chunks["image"].values, lambda b: b.targets["t"].values):
        assert torch.equal(read(whole), torch.cat(list(map(read, parts)))) and not torch.equal(read(whole), read(later))


def test_batches_that_cannot_be_mixed_are_refused():
    images = torch.zeros(3, 1, 4, 4).to(torch.uint8)
    chunks = Chunks(values=images, index=torch.zeros(3, dtype=torch.long), counts=torch.ones(3, dtype=torch.long))
    plan = replace(planned(1, 1, 1), chunks={"image": chunks}, seeds=((0, 0, 5), (0, 0, 6), (0, 0, 7)))
    batch = Batch(main=plan, targets={"t": Targets(values=torch.tensor([0, 1, 2]), count=3, classes=3)})
    several, two = Targets(values=torch.zeros(3, 3), count=3), batch.targets | {"u": batch.targets["t"]}
    for targets in ({"t": several}, two):
        with pytest.raises(ValueError, match="a single task, a classification with one label per sample"):
            Mixup(mixup=1.0)(replace(batch, targets=targets))
    with pytest.raises(ValueError, match="needs one image of one size, or one sound"):
        Mixup(mixup=1.0)(replace(batch, main=replace(plan, samples=2)))
    with pytest.raises(ValueError, match="needs a label in every sample"):
        Mixup(mixup=1.0)(replace(batch, targets={"t": Targets(values=torch.tensor([0, -100, 2]), count=2, classes=3)}))
    with pytest.raises(ValueError, match="needs one image of one size, or one sound"):
        corpus = replace(chunks, values=torch.zeros(3, dtype=torch.long), counts=None)
        Mixup(mixup=1.0)(replace(batch, main=replace(plan, chunks={"text": corpus})))
    for wrong in (-1.0, 1e308):
        with pytest.raises(ValueError, match="must be at least 0 and at most 1000"):
            Mixup(mixup=wrong)


def test_labels_follow_their_sounds():
    """Three sounds of 2, 1 and 3 tokens of two windows: each is mixed with its partner, cut or followed by silence."""
    values = torch.tensor([1.0] * 4 + [10.0] * 2 + [100.0] * 6)[:, None].expand(12, 5)
    chunks = Chunks(values=values, index=torch.zeros(6, dtype=torch.long), counts=torch.tensor([2, 1, 3]))
    plan = replace(planned(1, 1, 1), chunks={"sound": chunks}, seeds=((0, 0, 5), (0, 0, 6), (0, 0, 7)))
    batch = Batch(main=plan, targets={"t": Targets(values=torch.tensor([0, 1, 2]), count=3, classes=3)})
    mixed = Mixup(mixup=1.0)(batch)
    shares, windows = mixed.targets["t"].values, mixed.main.chunks["sound"].values[:, 0]
    one = shares[0, 0].item()
    expected = torch.tensor([[one, 1 - one, 0], [1 - one, one, 0], [0, 0, 1]])
    torch.testing.assert_close(shares, expected, rtol=0, atol=1e-6)
    assert 0 < one < 1
    first, second, third = windows.split([4, 2, 6])
    torch.testing.assert_close(first, one + (1 - one) * torch.tensor([10.0, 10, 0, 0]))
    torch.testing.assert_close(second, torch.full((2,), 10 * one + 1 - one))
    torch.testing.assert_close(third, torch.full((6,), 100.0))
    whole = Mixup(mixup=1.0, probability=0.0)(batch)
    assert torch.equal(whole.targets["t"].values, torch.eye(3))
    with pytest.raises(ValueError, match="without cutmix"):
        Mixup(cutmix=1.0)(batch)


def test_frozen_parts_do_not_change(mixed, capsys):
    file = digits(mixed, freeze=["tokenizers", "cores.main.blocks.0"], optimizer="muon")
    config = load_config(file)
    prepare_run(config, config.out)
    trainer = assemble(config, Processes.start("cpu"), Progress(1))
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    fit(trainer)
    changed = {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed and not any(name.startswith(("tokenizers", "cores.main.blocks.0")) for name in changed)
    assert any(name.startswith("cores.main.blocks.1") for name in changed)
    introduce(trainer)
    output = capsys.readouterr().err
    parts = [[each for each in trainer.model.parameters() if each.requires_grad or every] for every in (True, False)]
    count, trained = (sum(each.numel() for each in part) for part in parts)
    assert f"{count:,} parameters, of which {trained:,} are trained, on cpu" in output and trained < count
    with pytest.raises(
        ValueError, match="the model has no part 'tokenizer.image'; possible: cores.main, heads.digit, tokenizers.image"
    ):
        train(load_config(digits(mixed, "wrong", freeze=["tokenizer.image"])))


def test_rates_fall_with_the_distance_to_the_heads(mixed):
    config = load_config(digits(mixed, optimizer={"use": "adamw", "layer_decay": 0.5}))
    prepare_run(config, config.out)
    trainer = assemble(config, Processes.start("cpu"), Progress(1))
    names = trainer.trainer.learner.optimizer.names
    rates = {
        names[p]: g["lr"] for o in trainer.trainer.learner.optimizer.inner for g in o.param_groups for p in g["params"]
    }
    assert rates["heads.digit.linear.weight"] == 1e-2 == rates["cores.main.norm.weight"]
    assert rates["cores.main.blocks.1.attention.query.weight"] == 5e-3
    assert rates["cores.main.blocks.0.feed_forward.up.weight"] == 2.5e-3
    assert rates["tokenizers.image.embedding.bias"] == 1.25e-3


# ---------------------------------------------------------------------------------------------- several processes


@pytest.mark.system
def test_two_processes_have_the_losses_of_one(mixed, tmp_path):
    """Five samples over two processes in micro-batches of one, ragged answers, pictures and sounds changed at
    random, inputs withheld on one rank only: with AdamW only sums are rounded differently."""
    settings = {"samples_per_step": 5, "rows_per_micro_batch": 1, "input_dropout": 0.5, "steps": 4,
                "optimizer": "adamw", "precision": "float32"}  # fmt: skip
    assert "augment" in TREE["inputs"]["image"] and "augment_wave" in TREE["inputs"]["sound"]
    sections = {"training": TREE["training"] | settings, "logging": {"every": 1, "tensorboard": False}}
    one, two = (mixed(name, **sections, evaluation={"every": 4, "generated": 5}) for name in ("one", "two"))
    train(load_config(one))
    process = train_together(tmp_path, 2, two)
    assert process.returncode == 0, process.stderr
    first, second = (records(file.with_suffix("")) for file in (one, two))
    for key in ("train/loss", "val/loss", "val/exact_match", "val/bits_per_byte", "train/padding"):
        values = [[line[key] for line in lines if key in line] for lines in (first, second)]
        assert values[0] and values[0] == pytest.approx(values[1], rel=1e-6)


def test_bad_validation_data_do_not_lose_training_steps(mixed, tmp_path, monkeypatch):
    """If the last evaluation reads a damaged image, the steps are saved, and the run continues when more bad samples
    are allowed."""
    from chopmix.data.datasets.digits import Digits

    read = Digits.open

    def damaged(self, split):
        samples = read(self, split)
        if split == "val":
            samples.rows[0] = samples.rows[0] | {"image": b"no image"}
        return samples

    monkeypatch.setattr(Digits, "open", damaged)
    file = digits(mixed, "hurt")
    with pytest.raises(DataError, match="val: sample 'digit .*' is bad: image: the image cannot be read"):
        train(load_config(file))
    assert (file.with_suffix("") / "checkpoints" / "step-00000006").exists()
    summary, _ = train(load_config(file, ["data.bad_share=0.1"]))
    assert summary["val/loss"] > 0
