"""The training loop: resumed runs are bit-equal, losses do not depend on processes, interruptions lose nothing."""

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.processes import Processes
from chopmix.data.sampler import SampleIndex
from chopmix.experiment.assemble import assemble
from chopmix.experiment.run import load_run
from chopmix.experiment.run_folder import prepare_run
from chopmix.experiment.settings.config import config_from_tree, load_config
from chopmix.experiment.train import fit, resume
from chopmix.experiment.transfer import functions_that_differ
from chopmix.files.errors import RunError
from chopmix.inference.evaluation import directions
from chopmix.inference.evaluator import Result
from chopmix.tasks.classification import Classes, Classification
from chopmix.tasks.language_modeling import LanguageModeling
from chopmix.tasks.masked_modeling import MaskedModeling
from chopmix.tasks.measuring.texts import MEANINGS
from chopmix.tasks.regression import Regression, Scale
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.text import TextChopper
from chopmix.training import checkpoints as checkpoint
from chopmix.training.evaluation import Evaluations
from chopmix.training.loop import Learner
from chopmix.training.progress import Progress
from ranks import train_together
from safetensors.torch import load_file
from tiers import only

RECIPES = {
    "adamw": {},
    "adamw_ema_dropout": {"training": {"ema": 0.9}, "model": {"dropout": 0.2}},
    "muon": {
        "training": {"optimizer": {"use": "muon", "weight_decay": 0.1, "cautious": True}},
        "model": {"position": "rotary", "initialization": "zero_projections"},
    },
    "accumulated_separate_documents": {
        "training": {"rows_per_micro_batch": 1, "ema": 0.5},
        "data": {"documents": "separate"},
    },
    "lion": {"training": {"optimizer": {"use": "own_optimizer:Lion"}, "ema": 0.8}},
    "momentum": {"training": {"optimizer": {"use": "own_optimizer:Momentum"}}},
    "nadam_averaged": {
        "training": {"optimizer": {"use": "own_optimizer:Wrapped", "kind": "NAdam"}},
        "checkpoints": {"average": 2},
    },
}


class StopAt:
    """A stop request that comes after a certain step."""

    def __init__(self, step):
        self.step, self.signal, self.trainer = step, None, None

    def receive(self, votes):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def requested(self, processes):
        if self.trainer.step == self.step:
            self.signal = signal.SIGTERM
        return self.signal is not None


def trainer(config_file, *overrides, stop=None):
    config = load_config(config_file, overrides)
    prepare_run(config, config.out)
    experiment = assemble(config, Processes.start(), Progress(config.training.steps))
    if stop is not None:
        experiment.trainer.stop = StopAt(stop)
        experiment.trainer.stop.trainer = experiment.trainer
    return experiment


def tensors(run, step):
    folder = checkpoint.folder_of(Path(run), step)
    return {(file.name, key): value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}


def assert_same_checkpoint(first, second, step):
    one, other = tensors(first, step), tensors(second, step)
    assert one and one.keys() == other.keys()
    different = [key for key in one if not torch.equal(one[key], other[key])]
    assert not different


def lines(run):
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def losses(run, name="train/loss"):
    return {line["step"]: line[name] for line in lines(run) if name in line}


@pytest.mark.parametrize("recipe", only(3, RECIPES))
def test_resumed_twice_equals_never_stopped(tiny, recipe):
    """12 steps at once, and 12 steps stopped after 4 and after 9: the same bits, across epochs of 11 and 12 windows."""
    whole, parts = (tiny(name, **RECIPES[recipe]) for name in ("whole", "parts"))
    first = trainer(whole)
    assert first.data.splits["train"].rows * 12 > len(first.data.splits["train"])  # crosses the edge of an epoch
    fit(first)
    for stop in (4, 9, None):
        fit(trainer(parts, stop=stop))
    out = [load_config(file).out for file in (whole, parts)]
    assert_same_checkpoint(*out, step=12)
    for name in ("train/loss", "val/loss"):
        complete, resumed = losses(out[0], name), losses(out[1], name)
        assert complete == resumed


def test_training_learns(tiny):
    run = trainer(tiny(), "training.steps=60", "evaluation.every=60")
    metrics = fit(run)
    assert metrics["val/loss"] < 1.2 < losses(run.folder)[2]
    assert metrics["val/perplexity"] == pytest.approx(math.exp(metrics["val/loss"]))
    split = run.data.splits["val"]
    bits = metrics["val/loss"] * (len(split.file.ids) - 1) / math.log(2)
    assert metrics["val/bits_per_byte"] == pytest.approx(bits / split.file.bytes)


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_accumulation_changes_nothing(tiny, micro):
    once, often = trainer(tiny("once")), trainer(tiny("often"), f"training.rows_per_micro_batch={micro}")
    for experiment in (once, often):
        fit(experiment)
    assert len(often.trainer.loader.parts([SampleIndex(0, 0, number) for number in range(4)], 4)) == -(-4 // micro)
    assert losses(often.folder) == pytest.approx(losses(once.folder), rel=1e-5)


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def torchrun(processes, config, *overrides, script=ROOT / "train.py"):
    command = [*TORCHRUN, f"--nproc-per-node={processes}", str(script), str(config), *overrides]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.system
def test_two_processes_have_the_losses_of_one_and_one_process_continues(tiny):
    """3 rows over 2 processes in micro-batches of 1: uneven shares, one of them empty; resumed by one process."""
    changes = {"training": {"tokens_per_step": 48, "rows_per_micro_batch": 1, "precision": "float32"}}
    one = trainer(tiny("one", **changes))
    fit(one)
    file = tiny("two", **changes)
    process = torchrun(2, file, "training.steps=6")
    assert process.returncode == 0, process.stderr
    two = load_config(file).out
    assert losses(two) == pytest.approx({s: v for s, v in losses(one.folder).items() if s <= 6}, rel=1e-6)
    val = losses(one.folder, "val/loss")
    assert losses(two, "val/loss")[4] == pytest.approx(val[4], rel=1e-6)
    fit(trainer(file))
    assert losses(two) == pytest.approx(losses(one.folder), rel=1e-5)


def test_two_processes_train_several_seeds_and_dry_run_as_one(tiny, tmp_path, capsys):
    file = tiny("seeds")
    process = train_together(tmp_path, 2, file, "training.steps=4", "--seeds", "0,2")
    assert process.returncode == 0, process.stderr
    assert "seed-0" in process.stdout and "seed-2" in process.stdout
    (row,) = [line for line in process.stdout.splitlines() if line.startswith("│ val/loss ")]
    first, second = row.split("│")[3:5]
    assert float(first) != float(second), row
    assert all((load_config(file).out / f"seed-{seed}" / "summary.json").exists() for seed in (0, 2))
    process = train_together(tmp_path, 2, file, "--dry-run")
    assert process.returncode == 0, process.stderr
    assert main(["train", str(file), "--dry-run"]) == 0
    alone = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("one step:", "a step:"))]
    assert process.stdout.count("one step: loss") == 1
    together = [line for line in process.stdout.splitlines() if line.startswith(("one step:", "a step:"))]
    assert [line.split(",")[0] for line in together] == [line.split(",")[0] for line in alone]


@pytest.mark.system
def test_an_error_of_all_processes_is_printed_once(tiny):
    process = torchrun(2, tiny("mistaken"), "model.attention=same_sample")
    assert process.returncode != 0 and process.stderr.count("model.attention leaks") == 1


FAILING = """
import os, sys, time
from chopmix.commands.cli import main
from chopmix.training.loop import Learner

update = Learner.update
def fails_in_one(learner, step, share):
    if step == 4 and learner.processes.rank == 1:
        open("failed.txt", "w").write(str(time.time()))
        raise OSError(5, "the disk is gone")
    return update(learner, step, share)

Learner.update = fails_in_one
sys.exit(main(["train", *sys.argv[1:]]))
"""


@pytest.mark.system
def test_an_error_of_one_process_is_one_sentence_and_ends_all_within_seconds(tiny, tmp_path, monkeypatch):
    """The others wait for gradients that do not come."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failing.py").write_text(FAILING)
    process = torchrun(2, tiny("failing"), script=tmp_path / "failing.py")
    assert time.time() - float((tmp_path / "failed.txt").read_text()) < 10
    assert process.returncode != 0 and process.stderr.count("process 1: the disk is gone\n") == 1
    message, _, _ = process.stderr.partition(" failed (exitcode")  # torchrun's messages follow
    assert "Traceback" not in message and "stopping" not in message


@pytest.mark.system
def test_several_processes_that_are_asked_to_stop_do_so_at_the_next_step(tiny):
    file = tiny("asked", training={"steps": 100_000}, logging={"every": 100_000}, checkpoints={"every": 5},
                evaluation={"every": 100_000})  # fmt: skip
    command = [*TORCHRUN, "--nproc-per-node=2", str(ROOT / "train.py"), str(file)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    out = load_config(file).out
    while checkpoint.read_step(out, "last") is None:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    requested, output = time.time(), process.communicate()[1]
    assert time.time() - requested < 10
    assert f"SIGTERM: saved {out} at step {checkpoint.read_step(out, 'last'):,}; the same command goes on" in output


@pytest.mark.system
def test_a_run_that_is_killed_loses_nothing(tiny):
    """SIGKILL in the middle of a run: the next start resumes from the last checkpoint and ends bit-equal."""
    changes = {"training": {"steps": 160}, "evaluation": {"every": 50}, "checkpoints": {"every": 5}}
    killed, whole = tiny("killed", **changes), tiny("whole", **changes)
    command = [sys.executable, str(ROOT / "train.py"), str(killed)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    out = load_config(killed).out
    while not (checkpoint.read_step(out, "last") or 0) >= 20:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert checkpoint.read_step(out, "last") < 160
    resumed = trainer(killed)
    fit(resumed)
    assert len({(line["step"], *sorted(line)) for line in lines(out)}) == len(lines(out))  # nothing twice
    fit(trainer(whole))
    assert_same_checkpoint(out, load_config(whole).out, 160)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.system)])
def test_signals_save_a_checkpoint_and_print_where(tiny, number):
    file = tiny("signal", training={"steps": 100_000}, evaluation={"every": 100_000}, checkpoints={"every": 100_000})
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), str(file)], stderr=subprocess.PIPE, text=True)
    out = load_config(file).out
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    output = process.communicate()[1]
    assert process.returncode == 128 + number
    step = checkpoint.read_step(out, "last")
    assert step > 0 and f"{number.name}: saved {out} at step {step:,}" in output


def test_a_second_ctrl_c_ends_at_once_also_while_the_thread_that_reads_ahead_is_being_started(tiny, monkeypatch):
    experiment, started = trainer(tiny()), threading.Thread.start

    def interrupted(thread):
        started(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment.trainer, "update", lambda: experiment.trainer.loader.collector.submit(int))
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        fit(experiment)
    time.sleep(0.1)
    assert threading.active_count() == before  # a thread that waits for work would keep the interpreter alive


def test_metrics_are_cut_to_the_checkpoint(tiny):
    file = tiny("cut")
    fit(trainer(file, stop=6))
    path = load_config(file).out / "metrics.jsonl"
    with open(path, "a") as record:
        record.write('{"step": 7, "train/loss": 99}\n{"step": 8, "tra')
    fit(trainer(file, stop=6))
    assert max(line["step"] for line in lines(path.parent)) == 6


def damage(file: Path, how: str) -> None:
    content = file.read_bytes()
    if how == "cut":
        file.write_bytes(content[:-7])
    elif how == "flipped":
        file.write_bytes(content[:-7] + bytes([content[-7] ^ 1]) + content[-6:])
    else:
        file.unlink()


@pytest.mark.parametrize("how, fault", [("cut", "is cut short"), ("flipped", "is damaged"), ("missing", "is missing")])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(tiny, capsys, how, fault):
    file, whole = tiny("damaged"), tiny("whole")
    fit(trainer(file, stop=8))
    out = load_config(file).out
    damage(checkpoint.folder_of(out, 8) / "optimizer.safetensors", how)
    capsys.readouterr()
    fit(trainer(file))
    message = capsys.readouterr().err
    assert "step-00000008/optimizer.safetensors " + fault in message and "resumed" in message
    fit(trainer(whole))
    assert_same_checkpoint(out, load_config(whole).out, 12)


def test_a_run_without_an_undamaged_checkpoint_is_refused(tiny):
    file = tiny("lost")
    fit(trainer(file, stop=3))
    for folder in (load_config(file).out / "checkpoints").iterdir():
        damage(folder / "model.safetensors", "cut")
    with pytest.raises(checkpoint.CheckpointError, match="all . checkpoints are damaged"):
        fit(trainer(file))


def test_a_full_disk_loses_nothing(tiny, monkeypatch):
    file = tiny("full", evaluation={"every": 100})
    fit(trainer(file, stop=3))
    out = load_config(file).out

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(
        OSError, match="step 6 could not be saved .*No space left on device.; the checkpoint of step 3 is complete"
    ):
        fit(trainer(file))
    assert main(["train", str(file)]) == 1
    assert checkpoint.steps(out) == [3] and not list((out / "checkpoints").glob(".*"))
    monkeypatch.undo()
    os.environ["CHOPMIX_CACHE"] = str(out.parent.parent / "cache")
    fit(trainer(file))
    assert checkpoint.read_step(out, "last") == 12


def test_last_checkpoints_and_the_best_are_kept(tiny):
    file = tiny("kept", checkpoints={"every": 1, "keep": 2}, training={"learning_rate": 0.5, "steps": 20})
    run = trainer(file)
    fit(run)
    best = json.loads((run.folder / "best.json").read_text())
    assert best["val/loss"] == min(losses(run.folder, "val/loss").values())
    assert checkpoint.steps(run.folder) == sorted({best["step"], 19, 20})
    assert load_run(run.folder, "best").step == best["step"] and load_run(run.folder, "last").step == 20
    assert load_run(run.folder).evaluate("val")["val/loss"] == pytest.approx(best["val/loss"], rel=1e-6)


@pytest.mark.parametrize(
    "metric, values, best",
    [
        ("val/accuracy", (0.5, 0.4, 0.4), 4),
        ("val/accuracy", (0.4, 0.5, 0.5), 12),
        ("val/loss", (0.4, 0.5, 0.5), 4),
        ("val/loss", (0.5, 0.4, 0.4), 12),
    ],
)
def test_the_best_is_the_largest_accuracy_or_the_smallest_loss_and_of_equals_the_newest(
    tiny, monkeypatch, metric, values, best
):
    by_step = dict(zip((4, 8, 12), values))
    monkeypatch.setattr(Evaluations, "run", lambda self, step: Result(metrics={metric: by_step[step]}))
    task = {"use": "masked_modeling", "target": "text"}
    run = trainer(tiny(model={"attention": "same_sample"}, tasks={"lm": task}, checkpoints={"best": metric}))
    fit(run)
    assert json.loads((run.folder / "best.json").read_text()) == {"step": best, metric: by_step[best]}
    assert load_run(run.folder).step == best


def test_counts_are_logged_as_counts_and_a_best_metric_that_was_not_measured_is_an_error(tiny, monkeypatch, capsys):
    monkeypatch.setattr(Evaluations, "run", lambda self, step: Result(metrics={"val/loss": 1.5, "val/judged": 1256}))
    run = trainer(tiny())
    fit(run)
    line = next(line for line in capsys.readouterr().err.splitlines() if "val/judged" in line)
    assert line.endswith("val/loss 1.5000  val/judged 1,256")
    monkeypatch.setattr(Evaluations, "run", lambda self, step: Result(metrics={"val/other/loss": 1.5}))
    message = "checkpoints.best is 'val/loss', but no sample of val has a target of its task; measured: val/other/loss"
    with pytest.raises(ValueError, match=message):
        fit(trainer(tiny("other")))


def test_every_metric_defines_whether_larger_is_better():
    classes, several = Classification(target="a"), Classification(target="b", several=True)
    classes.learned = several.learned = Classes(tuple("uvwxyz"))
    number = Regression(target="c")
    number.learned = Scale(mean=[0.0], std=[1.0])
    text = LanguageModeling(target="d", metrics=tuple(MEANINGS))
    text.choppers = {"d": TextChopper(vocabulary=ByteEncoding())}
    every = (classes, several, number, text, MaskedModeling(target="e"))
    direction_of = directions({each.target: each for each in every}, "val")
    actual = {(name.rpartition("/")[2], larger) for name, larger in direction_of.items()}
    larger = {"accuracy", "balanced_accuracy", "macro_f1", "top5_accuracy", "f1", "exact_match", "bleu", "chrf"}
    larger |= {"auroc", "average_precision"}
    smaller = {"loss", "perplexity", "bits_per_byte", "mae", "rmse", "wer", "cer"}
    assert actual == {(name, True) for name in larger} | {(name, False) for name in smaller}


def test_temporary_files_of_a_killed_process_are_deleted(tmp_path):
    """In every folder into which a training writes."""
    for folder in ("", "assets/text", "sheets", "report", "checkpoints", "checkpoints/step-00000003"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / f".a.json.{socket.gethostname()}.0123abcd.{2**22 + 1}").touch()
        (tmp_path / folder / "a.json").touch()
    checkpoint.sweep(tmp_path)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["a.json"] * 6


def test_a_finished_run_prints_its_summary(tiny, capsys):
    file = tiny("finished")
    assert main(["train", str(file)]) == 0
    capsys.readouterr()
    assert main(["train", str(file)]) == 0
    assert "is finished" in capsys.readouterr().err
    summary = file.parent / "runs" / "finished" / "summary.json"
    values = json.loads(summary.read_text())
    del values["seconds"]
    summary.write_text(json.dumps(values))
    assert main(["train", str(file)]) == 0
    assert "is finished: 12 steps; val/loss" in capsys.readouterr().err
    assert main(["train", str(file), "training.steps=14"]) == 0  # more steps go on
    assert "resumed" in capsys.readouterr().err


def test_another_configuration_is_refused_with_the_difference(tiny, capsys):
    file = tiny("claimed")
    fit(trainer(file, stop=3))
    before = (load_config(file).out / "config.yaml").read_text()
    assert main(["train", str(file), "model.width=64", "training.learning_rate=0.5"]) == 2
    error = capsys.readouterr().err
    assert "is a run of another configuration" in error
    assert "model.width: 32 in the run, 64 now" in error and "training.learning_rate: 0.01 in the run, 0.5 now" in error
    assert (load_config(file).out / "config.yaml").read_text() == before


def test_a_folder_that_is_no_run_is_not_touched(tiny, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    assert main(["train", str(tiny()), f"out={tmp_path}/mine"]) == 2
    assert "is not empty and not a run" in capsys.readouterr().err
    assert [f.name for f in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_changed_vocabulary_or_text_is_refused(tiny, tmp_path, capsys):
    file = tiny("changed")
    fit(trainer(file, stop=3))
    out = load_config(file).out
    text = (tmp_path / "train.txt").read_text()
    (tmp_path / "train.txt").write_text(text.replace("chop", "mix", 1))
    assert main(["train", str(file)]) == 2
    assert "the data (train) changed since step 3" in capsys.readouterr().err
    (tmp_path / "train.txt").write_text(text)
    encoding = out / "assets" / "text"
    from chopmix.tokenizers.encoding.base import CharacterEncoding

    CharacterEncoding("".join(sorted(set(text) | {"z"}))).save(encoding)
    assert main(["generate", str(out)]) == 2
    assert (
        "text (a vocabulary, or a run used as a part) changed since the checkpoint of step 3" in capsys.readouterr().err
    )


def test_seeds_run_one_after_another(tiny, capsys):
    file = tiny("seeds", training={"steps": 4})
    assert main(["train", str(file), "--seeds", "0,1,2"]) == 0
    out = load_config(file).out
    values = [json.loads((out / f"seed-{n}" / "summary.json").read_text())["val/loss"] for n in range(3)]
    assert len(set(values)) == 3
    printed = capsys.readouterr().out
    mean = sum(values) / 3
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / 2)
    assert re.search(rf"val/loss .* {mean:.3f}\d* ± {spread:.3f}\d* \(3\) ", printed)
    assert main(["train", str(file), "--seeds", "zero"]) == 2


def test_from_copies_weights_that_fit_and_reports_the_others(tiny, capsys):
    first = trainer(tiny("first"))
    fit(first)
    second = trainer(
        tiny("second", **{"from": str(first.folder), "model": {"width": 32, "depth": 3, "heads": 4, "context": 16}})
    )
    capsys.readouterr()
    resume(second)
    output = capsys.readouterr().err
    assert "copied" in output and "new (keep their initial values): cores.main.blocks.2" in output
    source = load_run(first.folder).model.state_dict()
    weights = second.model.state_dict()
    assert torch.equal(
        weights["cores.main.blocks.0.attention.query.weight"], source["cores.main.blocks.0.attention.query.weight"]
    )
    changed = trainer(
        tiny("changed", **{"from": str(first.folder), "model": {"block": {"feed_forward": {"ratio": 2}}}})
    )
    capsys.readouterr()
    resume(changed)
    assert "differ in shape (keep their initial values): cores.main.blocks.0.feed_forward" in capsys.readouterr().err
    wider = trainer(tiny("wider", **{"from": str(first.folder), "model": {"width": 64}}))
    with pytest.raises(
        RunError,
        match=r"a core of other sizes, so that none of its matrices fits: .* is \(32, 32\) in the source run, \(64",
    ):
        resume(wider)


def test_a_leaking_graph_is_refused_before_training(tiny, capsys):
    assert main(["train", str(tiny("leaks", model={"attention": "same_sample"}))]) == 2
    assert "model.attention leaks: task 'lm' predicts token" in capsys.readouterr().err
    assert main(["train", str(tiny("hidden", model={"attention": "causal | edges(5->4)"}))]) == 2


def test_a_leak_in_one_document_of_ten_is_detected_when_its_batch_is_planned(tiny, tmp_path, capsys):
    """Checking some batches would not be enough: only documents of more than 11 letters have the edge that leaks."""
    documents = [{"text": "chop mix" if number % 10 else "everything and all"} for number in range(400)]
    for name in ("train", "val"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents))
    inputs = {"text": {"use": "text", "encoding": "characters"}}
    dataset = {
        "use": "manifest",
        "train": str(tmp_path / "train.jsonl"),
        "val": str(tmp_path / "val.jsonl"),
        "columns": ["text"],
    }
    file = tiny(
        "rare",
        inputs=inputs,
        model={"attention": "causal | edges(11->10)", "context": 24},
        data={"dataset": dataset},
        training={"tokens_per_step": None, "samples_per_step": 2, "steps": 40},
    )
    assert main(["train", str(file)]) == 2
    assert "predicts token 11 at slot 10, which can read that token" in capsys.readouterr().err


def test_a_diverging_loss_stops_the_run_and_keeps_the_checkpoint(tiny, capsys):
    file = tiny("diverges", training={"learning_rate": 1e30, "clip": None, "steps": 12})
    assert main(["train", str(file)]) == 2
    output = capsys.readouterr().err
    assert "the loss is nan" in output or "the loss is inf" in output


@pytest.mark.parametrize("optimizer", ["adamw", "own_optimizer:Lion", "own_optimizer:Momentum"])
def test_an_evaluation_detects_weights_that_are_nan_and_the_run_returns_to_a_checkpoint(
    tiny, monkeypatch, capsys, optimizer
):
    update, spoiled = Learner.update, []

    def spoil_once(self, step, share):
        loss = update(self, step, share)
        if step == 7 and not spoiled:
            spoiled.append(step)
            next(self.model.parameters()).data.fill_(torch.nan)
        return loss

    monkeypatch.setattr(Learner, "update", spoil_once)
    every = {"evaluation": {"every": 4, "sample_tokens": 8}, "checkpoints": {"every": 3}}
    file = tiny("spoiled", training={"optimizer": optimizer}, **every)
    assert main(["train", str(file)]) == 0
    assert "back to the checkpoint of step 6, and on without the batches 6 to 7" in capsys.readouterr().err


def test_dry_run_prints_everything_and_leaves_nothing(tiny, capsys):
    file = tiny("dry", training={"rows_per_micro_batch": 2})
    assert main(["train", str(file), "--dry-run"]) == 0
    short = capsys.readouterr().out
    assert main(["train", str(file), "--dry-run", "--full"]) == 0
    complete = capsys.readouterr().out
    assert short.splitlines()[1] == "model" and len(short.splitlines()) < 35
    assert yaml.safe_load(complete.split("model\n┏")[0].partition("\n")[2])["model"]["width"] == 32
    for part in (
        "cores.main",
        "a step: 4 rows of 16 = 64 tokens and 0 slots of padding (0.0%), in 1 process(es), 2 micro-batch(es)",
        "memory, estimated",
        "no leak in main",
        "no token attends to a later token; this follows from the graph",
        "60 targets safe by the form of the graph",
        "one step: loss",
    ):
        assert part in complete
    assert not load_config(file).out.exists()


def test_precision_and_compile_choices_are_kept(tiny, monkeypatch, capsys):
    file = tiny("choices", training={"precision": "bfloat16", "compile": True})
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", "/nonexistent")
    fit(trainer(file, stop=2))
    assert "not compiled: torch.compile needs a C++ compiler" in capsys.readouterr().err
    monkeypatch.undo()
    choices = json.loads((load_config(file).out / "choices.json").read_text())
    assert choices["precision"] == "bfloat16" and choices["compile"] is False
    with pytest.raises(RunError, match="no checkpoint 'newest'"):
        load_run(load_config(file).out, "newest")


def test_a_damaged_checkpoint_is_renamed_and_its_step_is_saved_again(tiny, messages, capsys):
    file = tiny("mended")
    fit(trainer(file))
    out = load_config(file).out
    damage(checkpoint.folder_of(out, 12) / "model.safetensors", "cut")
    (out / "last.json").write_text("")
    assert load_run(out).step < 12  # another one is used meanwhile
    assert "is used instead" in messages()
    fit(trainer(file))
    assert checkpoint.read_state(out, 12) and load_run(out, "last").step == 12
    assert (out / "checkpoints" / "damaged-step-00000012").exists() and 12 in checkpoint.steps(out)


def test_a_full_disk_that_safetensors_reports_is_like_any_other(tiny, monkeypatch):
    from safetensors import SafetensorError

    file = tiny("full_too", evaluation={"every": 100})

    def full(*arguments):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="could not be saved .*No space left on device.; there is no earlier checkpoint"):
        fit(trainer(file))


def test_fewer_steps_than_a_run_already_has_are_refused(tiny):
    file = tiny("fewer")
    fit(trainer(file))
    with pytest.raises(RunError, match=r"is already at step 12, which is more than training\.steps=5"):
        trainer(file, "training.steps=5")


def test_another_best_metric_starts_anew(tiny):
    file = tiny("judged")
    fit(trainer(file, stop=6))
    run = trainer(file, "checkpoints.best=val/perplexity")
    fit(run)
    best = json.loads((run.folder / "best.json").read_text())
    assert best["step"] > 6 or run.trainer.best == best["val/perplexity"]


def test_a_run_from_another_run_continues_without_it(tiny):
    source, file = tiny("source"), tiny("goes_on")
    fit(trainer(source))
    out = load_config(source).out
    fit(trainer(file, f"from={out}", stop=6))
    out.rename(out.with_name("moved"))
    fit(trainer(file, f"from={out}"))
    assert checkpoint.read_step(load_config(file).out, "last") == 12


def test_differences_besides_shapes_are_reported(tiny, capsys):
    source, file = tiny("shape_source"), tiny("shape_other")
    fit(trainer(source))
    fit(trainer(file, f"from={load_config(source).out}", "model.heads=1"))
    assert (
        "the same weights compute something else: model.heads is 4 in the source run, 1 in this one"
        in capsys.readouterr().err
    )
    other = tiny("shape_input")
    fit(trainer(other, f"from={load_config(source).out}", "inputs.text.position=sinusoidal"))
    output = capsys.readouterr().err
    different = "inputs.text.position is 'learned' in the source run, 'sinusoidal' in this one"
    assert f"the same weights compute something else: {different}" in output


def test_a_number_and_a_list_that_repeats_it_do_not_differ():
    def differing(there, here) -> list[str]:
        configs = [
            config_from_tree(
                {
                    "inputs": {"image": {"use": "image", "patch_size": 4, "channels": 3, "size": 8, "mean": mean}},
                    "tasks": {"digit": {"use": "classification", "target": "digit"}},
                    "model": {"width": 8, "depth": 1, "heads": 1, "attention": "same_sample", "context": 8},
                    "data": {"dataset": "digits"},
                    "training": {"steps": 1, "samples_per_step": 1},
                }
            )
            for mean in (there, here)
        ]
        return functions_that_differ(*configs)

    assert differing([0.5, 0.5, 0.5], 0.5) == differing(0.5, [0.5, 0.5, 0.5]) == []
    assert differing([0.5, 0.5, 0.4], 0.5) == [
        "inputs.image.mean is [0.5, 0.5, 0.4] in the source run, 0.5 in this one"
    ]
    assert differing(0.5, [0.5, 0.5, 0.4]) == [
        "inputs.image.mean is 0.5 in the source run, [0.5, 0.5, 0.4] in this one"
    ]


def test_the_prompt_of_samples_is_checked_before_the_first_step(tiny):
    with pytest.raises(ValueError, match="evaluation.prompt: character 'é'"):
        fit(trainer(tiny("prompted", evaluation={"prompt": "é"})))


def test_data_json_describes_the_data(tiny):
    file = tiny("described")
    fit(trainer(file))
    assert json.loads((load_config(file).out / "data.json").read_text())["dataset"] == "text"


def test_sampling_options_can_be_single_arguments(tiny):
    file = tiny("sampled")
    fit(trainer(file))
    run = load_run(load_config(file).out)
    assert run.generate("c", max_tokens=5, temperature=0) == run.generate("c", max_tokens=5, temperature=0)
    with pytest.raises(ValueError, match="temperature is -1"):
        run.generate("c", temperature=-1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused(tiny):
    file = tiny("no_gpu")
    fit(trainer(file))
    with pytest.raises(RunError, match="device 'cuda' was requested, but torch finds no GPU"):
        load_run(load_config(file).out, device="cuda")
