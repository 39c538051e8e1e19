"""The benchmark that kills runs: six places where most could be lost, two starts at once, and the detection of
differences."""

import json
import shutil
import signal
from dataclasses import replace

import pytest
from killing import compare, experiments, plans, points, starting, tries
from safetensors.torch import load_file, save_file
from tiers import only

PLACES = {
    "between the folder and its config.yaml": ("open", "run/.config.yaml.~", 0),
    "amid the ids of a token file": ("write", "/.train.tokens.~", 0, "torn"),
    "between a new best checkpoint and best.json": ("open", "run/.best.json.~", 0),
    "between the averaged weights and their state": ("replace", "step-00000016/ema.safetensors", 1, "after"),
    "between the last line of metrics and summary.json": ("open", "run/.summary.json.~", 0),
    "asked to stop at the step of an evaluation": ("write", "run/metrics.jsonl", 2, "before", signal.SIGTERM),
}
"""The kind of an operation, the end of its path, its number among equal operations, and how the run is interrupted."""


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return experiments.Campaign(tmp_path_factory.mktemp("kill"), ["lm"], fresh=0)


@pytest.fixture(scope="module")
def reference(campaign):
    """The run of the language model without an interruption."""
    return campaign.reference("lm")


@pytest.mark.parametrize("place", only(1, reversed(PLACES)))
def test_a_run_that_is_killed_ends_like_one_that_was_not(campaign, reference, place):
    kind, end, which, *how = PLACES[place]
    numbers = [n for n, (did, path) in enumerate(reference.operations) if did == kind and path.endswith(end)]
    assert points.kill_and_resume(campaign, reference, points.point_at(reference, numbers[which], *how), "tried") == []


def test_a_run_that_is_stopped_while_it_prepares_data_deletes_half_written_files(campaign, reference):
    number = next(n for n, (did, path) in enumerate(reference.operations) if did == "write" and ".train.tokens" in path)
    folder = campaign.new_folder("lm", "prepares")
    plan = replace(reference.plan, folder=str(folder), strike=plans.Strike(number, "before", signal.SIGTERM))
    assert starting.Started(plan).ended() == 128 + signal.SIGTERM
    assert compare.left_files(folder) == [] and not list(folder.glob("cache/*/*.tokens"))


@pytest.mark.system
def test_a_run_that_is_stopped_before_its_first_step_does_not_report_that_it_is_saved(campaign, reference):
    number = reference.operations.index(("open", "run/.metrics.jsonl.~"))
    point = points.point_at(reference, number, "before", signal.SIGINT)
    problems, outcome = tries.ask_to_stop(campaign, reference, signal.SIGINT, 1, point, "unsaved")
    assert problems == [] and outcome == "status 130, step -1"


@pytest.mark.system
def test_of_two_starts_in_a_folder_one_continues_and_the_other_names_it(campaign, reference):
    problems, outcome = tries.two_starts(campaign, [reference, reference], 0.0, "twice")
    assert problems == [] and outcome in ("number 1 worked", "number 2 worked")


def test_differences_are_detected(reference, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(reference.folder, other)
    assert compare.differences(reference.folder, other) == [] == compare.left_files(other)
    file = other / "run" / "checkpoints" / "step-00000016" / "optimizer.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] + 1}, file)
    metrics = (other / "run" / "metrics.jsonl").read_text().splitlines()
    (other / "run" / "metrics.jsonl").write_text("".join(line + "\n" for line in [*metrics, metrics[-1]]))
    (other / "run" / "best.json").write_text(json.dumps({"step": 12}))
    (other / "run" / ".last.json.host.0a1b2c3d.7").touch()
    text = " ".join(compare.differences(reference.folder, other))
    assert f"last optimizer: {name} differs by up to 1" in text and "metrics, lines: 15 is expected, found 16" in text
    assert "best.json: step: 16 is expected, found 12" in text and "best ema: ema.safetensors is missing" in text
    assert compare.left_files(other) == ["run/.last.json.host.0a1b2c3d.7 is left"]


def test_points_are_spread_over_windows_operations_and_seconds(reference):
    drawn = points.points(reference, 100, seed=0, fresh=0.2)
    near = {n for numbers in points.windows(reference.operations).values() for n in numbers}
    assert len(drawn) == 100 and sum(point.seconds is not None for point in drawn) == 20
    assert sum(point.strike is not None and point.strike.number in near for point in drawn) >= 60
    assert drawn == points.points(reference, 100, seed=0, fresh=0.2) != points.points(reference, 100, seed=1, fresh=0.2)


def test_a_start_after_the_end_of_the_first_run_is_recognised():
    """On a busy machine. The two runs print into one file."""
    first = "done: run, 16 steps in 0:00; best val/loss 1.5984 at step 16\nnext:\n  chopmix evaluate run\n"
    assert tries.LATE.search(f"{first}run is finished: 16 steps in 0:00; val/loss 1.5984\nnext:\n")
    assert tries.LATE.search(f"{first}run is a run of another configuration; choose another out=\n")
    assert not tries.LATE.search(f"run is in use: process 7 on host works on it since 2026-01-01 00:00:00; \n{first}")
