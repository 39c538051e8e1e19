"""Losses that compare all samples of a global batch: the gradient of micro-batches and processes is that of one large
batch."""

import multiprocessing
import shutil
import sys

import pytest
import torch
import yaml
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.loader import Loader
from chopmix.data.processes import Processes, seed_of
from chopmix.experiment.assemble import assemble
from chopmix.experiment.settings.config import load_config
from chopmix.models.contract import ContractError
from chopmix.training.progress import Progress
from chopmix.training.whole_batch import check_output, gathered_targets

CPU = torch.device("cpu")


@pytest.fixture
def file(tmp_path, monkeypatch):
    for file in ("docs/add/dataset.py", "tests/structure/clip.py"):
        shutil.copy(ROOT / file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    tree = {
        "inputs": {name: {"use": "text", "encoding": "characters"} for name in ("left", "right", "other")},
        "model": {"width": 8, "depth": 1, "heads": 2, "context": 48, "attention": "same_item & causal"},
        "tasks": {
            "match": {"use": "clip:Clip", "left": "left", "right": "right"},
            "word": {"use": "language_modeling", "target": "other", "weight": 0.5},
        },
        "data": {"dataset": "dataset:Scans", "columns": {"left": "word", "right": "word", "other": "word"}},
        "training": {"steps": 1, "samples_per_step": 13, "mixup": None},
        "out": str(tmp_path / "run"),
    }
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(tree))
    yield tmp_path / "a.yaml"
    for name in ("dataset", "clip"):
        sys.modules.pop(name, None)


def assembled(file, processes, *options):
    """An experiment in float64, whose optimizer changes nothing and keeps the gradients."""
    experiment = assemble(load_config(file, options), processes, Progress(1))
    learner = experiment.trainer.learner
    learner.replica.objective.model.double()
    learner.replica.objective.precision, learner.clip = "float64", None
    learner.optimizer.step, learner.optimizer.zero_grad = lambda factor: None, lambda: None
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in experiment.model.named_parameters():
            if name.endswith(".up"):  # zero at the start, so `down` would have no gradient
                parameter.normal_(std=0.1, generator=generator)
    return experiment


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def by_update(file, processes, *options):
    """Loss and gradients of one step."""
    experiment = assembled(file, processes, *options)
    experiment.trainer.learner.replica.start()
    loss = experiment.trainer.learner.update(0, experiment.trainer.loader.load(0))
    return processes.sum(loss), gradients(experiment.model)


def by_one_graph(file, ranks, *options):
    """The same from the graph of all micro-batches of all processes together."""
    experiment = assembled(file, Processes(0, 1, CPU), *options)
    objective, settings = experiment.trainer.learner.replica.objective.train(), experiment.config.training
    parts, counts = [], {"match": 0, "word": 0}
    for rank in range(ranks):
        loader = Loader(experiment.data.splits["train"], Processes(rank, ranks, CPU), seed=0, steps=1,
                        rows_per_micro_batch=settings.rows_per_micro_batch)  # fmt: skip
        for number, batch in enumerate(loader.planned(0)):
            if batch.real:
                torch.manual_seed(seed_of(0, 0, number, rank))
                batch = objective.ready(batch, CPU)
                parts.append((objective.outputs(batch), batch.targets))
    for name in counts:
        counts[name] = sum(targets[name].count for _, targets in parts)
    everything = gathered_targets(
        [targets["match"] for _, targets in parts], parts[0][1]["match"], Processes(0, 1, CPU)
    )
    match = objective.loss("match", torch.cat([output["match"] for output, _ in parts]), everything)
    word = sum(objective.loss("word", output["word"], targets["word"]) for output, targets in parts)
    loss = match / counts["match"] + word / counts["word"]
    loss.backward()
    return loss.detach(), gradients(experiment.model)


def one_rank(rank, ranks, address, file, options, queue):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=ranks)
    loss, by_name = by_update(file, Processes(rank, ranks, CPU, torch.distributed.group.WORLD), *options)
    if rank == 0:
        queue.put((loss.item(), {name: value.tolist() for name, value in by_name.items()}))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def by_ranks(file, ranks, options, folder):
    """The same from several processes."""
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    started = [
        fork.Process(target=one_rank, args=(rank, ranks, f"file://{folder}/rendezvous", file, options, queue))
        for rank in range(ranks)
    ]
    for process in started:
        process.start()
    loss, by_name = queue.get(timeout=300)
    for process in started:
        process.join()
    return torch.tensor(loss), {name: torch.tensor(value, dtype=torch.float64) for name, value in by_name.items()}


def assert_equal(one, other):
    (loss, grads), (correct, expected) = one, other
    assert abs(float(loss) - float(correct)) < 1e-6 and grads.keys() == expected.keys()  # the loss is added in float32
    for name, value in expected.items():
        torch.testing.assert_close(grads[name], value, rtol=1e-10, atol=1e-12, msg=name)
    zero = [name for name, value in expected.items() if not value.any()]
    assert not zero, zero


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("ranks, rows", [(1, None), (1, 4), (1, 13), (2, None), (2, 3)])
def test_gradients_are_those_of_one_large_batch(file, tmp_path, ranks, rows, dropout):
    """13 samples: shares and micro-batches are uneven."""
    options = [f"model.dropout={dropout}", f"training.rows_per_micro_batch={'null' if rows is None else rows}"]
    expected = by_one_graph(file, ranks, *options)
    if ranks == 1:
        assert_equal(by_update(file, Processes(0, 1, CPU), *options), expected)
    else:
        assert_equal(by_ranks(file, ranks, options, tmp_path), expected)
    if not dropout:
        assert_equal(by_one_graph(file, 1, "training.rows_per_micro_batch=null"), expected)


@pytest.mark.parametrize("ranks, rows", [(1, 4), (2, 3)])
def test_gradients_of_adapters_are_those_of_one_large_batch(file, tmp_path, ranks, rows):
    assert main(["train", str(file), f"out={tmp_path / 'base'}", "evaluation.generated=0"]) == 0
    adapters = [f"from={tmp_path / 'base'}", "training.adapters={rank: 2, on: [cores]}"]
    options = [*adapters, f"training.rows_per_micro_batch={rows}"]
    result = by_update(file, Processes(0, 1, CPU), *options) if ranks == 1 else by_ranks(file, ranks, options, tmp_path)
    assert_equal(result, by_one_graph(file, ranks, *options))
    assert result[1] and all(name.endswith((".up", ".down")) for name in result[1])


def test_a_process_without_a_sample_takes_part(file, tmp_path):
    options = ["training.samples_per_step=3", "training.rows_per_micro_batch=1"]
    assert_equal(by_ranks(file, 2, options, tmp_path), by_one_graph(file, 1, *options))


def test_recall_is_that_of_the_complete_split(file, tmp_path, capsys):
    """Not the mean over batches: it is the same for any number of rows."""
    options = ["training.steps=2", "evaluation.generated=0", "checkpoints.best=val/match/recall"]
    figures = []
    for rows in (5, 64):
        assert main(["train", str(file), f"evaluation.rows={rows}", f"out={tmp_path / str(rows)}", *options]) == 0
        figures.append(load_figures(tmp_path / str(rows)))
    assert figures[0] == figures[1] and 0 < figures[0] < 1


def load_figures(folder):
    lines = [yaml.safe_load(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["val/match/recall"] for line in lines if "val/match/recall" in line][-1]


def test_an_output_that_is_no_tensor_is_refused(file):
    objective = assembled(file, Processes(0, 1, CPU)).trainer.learner.replica.objective
    with pytest.raises(ContractError, match=r"tasks\.match\.head: Pairs returned a tuple; expected: a tensor whose"):
        check_output("match", objective, (1, 2))
