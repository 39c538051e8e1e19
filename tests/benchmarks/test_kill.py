"""The benchmark that kills runs: at six places where most could be lost, two starts at once, and that it sees what
differs."""

import json
import shutil
import signal
from dataclasses import replace

import pytest
from killing import compare, experiments, plans, points, starting, tries
from safetensors.torch import load_file, save_file

PLACES = {
    "between the folder and its config.yaml": ("open", "run/.config.yaml.~", 0),
    "amid the ids of a token file": ("write", "/.train.tokens.~", 0, "torn"),
    "between a new best checkpoint and best.json": ("open", "run/.best.json.~", 0),
    "between the averaged weights and their state": ("replace", "step-00000016/ema.safetensors", 1, "after"),
    "between the last line of metrics and summary.json": ("open", "run/.summary.json.~", 0),
    "asked to stop at the step of an evaluation": ("write", "run/metrics.jsonl", 2, "before", signal.SIGTERM),
}
"""The kind of an operation and the end of its path; which of those that are alike; how it is struck."""


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return experiments.Campaign(tmp_path_factory.mktemp("kill"), ["lm"], fresh=0)


@pytest.fixture(scope="module")
def reference(campaign):
    """The language model, which nobody disturbed."""
    return campaign.reference("lm")


LARGER = list(PLACES)[2:4]
"""Tried in the larger tier."""


@pytest.mark.parametrize("place", [pytest.param(p, marks=[pytest.mark.system] * (p in LARGER)) for p in PLACES])
def test_a_run_that_is_killed_ends_like_one_that_was_not(campaign, reference, place):
    kind, end, which, *how = PLACES[place]
    numbers = [n for n, (did, path) in enumerate(reference.operations) if did == kind and path.endswith(end)]
    assert points.kill_and_resume(campaign, reference, points.point_at(reference, numbers[which], *how), "tried") == []


def test_asked_to_stop_while_it_prepares_data_it_takes_away_what_is_half_written(campaign, reference):
    number = next(n for n, (did, path) in enumerate(reference.operations) if did == "write" and ".train.tokens" in path)
    folder = campaign.new_folder("lm", "prepares")
    plan = replace(reference.plan, folder=str(folder), strike=plans.Strike(number, "before", signal.SIGTERM))
    assert starting.Started(plan).ended() == 128 + signal.SIGTERM
    assert compare.left_files(folder) == [] and not list(folder.glob("cache/*/*.tokens"))


def test_asked_to_stop_before_its_first_step_it_does_not_say_that_it_is_saved(campaign, reference):
    number = reference.operations.index(("open", "run/.metrics.jsonl.~"))
    point = points.point_at(reference, number, "before", signal.SIGINT)
    wrong, told = tries.ask_to_stop(campaign, reference, signal.SIGINT, 1, point, "unsaved")
    assert wrong == [] and told == "status 130, step -1"


def test_of_two_starts_in_a_folder_one_works_and_the_other_says_so(campaign, reference):
    wrong, told = tries.two_starts(campaign, [reference, reference], 0.0, "twice")
    assert wrong == [] and told in ("number 1 worked", "number 2 worked")


def test_what_differs_is_seen(reference, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(reference.folder, other)
    assert compare.differences(reference.folder, other) == [] == compare.left_files(other)
    file = other / "run" / "checkpoints" / "step-00000016" / "optimizer.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] + 1}, file)
    lines = (other / "run" / "metrics.jsonl").read_text().splitlines()
    (other / "run" / "metrics.jsonl").write_text("".join(line + "\n" for line in [*lines, lines[-1]]))
    (other / "run" / "best.json").write_text(json.dumps({"step": 12}))
    (other / "run" / ".last.json.host.0a1b2c3d.7").touch()
    found = " ".join(compare.differences(reference.folder, other))
    assert f"last optimizer: {name} differs by up to 1" in found and "metrics, lines: 15 is expected, found 16" in found
    assert "best.json: step: 16 is expected, found 12" in found and "best ema: ema.safetensors is missing" in found
    assert compare.left_files(other) == ["run/.last.json.host.0a1b2c3d.7 is left"]


def test_points_are_spread_over_windows_operations_and_seconds(reference):
    found = points.points(reference, 100, seed=0, fresh=0.2)
    near = {n for numbers in points.windows(reference.operations).values() for n in numbers}
    assert len(found) == 100 and sum(point.seconds is not None for point in found) == 20
    assert sum(point.strike is not None and point.strike.number in near for point in found) >= 60
    assert found == points.points(reference, 100, seed=0, fresh=0.2) != points.points(reference, 100, seed=1, fresh=0.2)
