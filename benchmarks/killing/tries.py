"""Tests runs that are started twice, receive signals, train on batches that produce NaN, or use worker processes."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from killing.compare import differences, left_files, read
from killing.experiments import OTHER, PLAIN, WORKERS, Campaign, Reference, last_lines, output_of
from killing.plans import Plan
from killing.points import Point, finished, kill_and_resume, point_at
from killing.starting import Started, left_processes


def try_starts(campaign: Campaign, count: int) -> None:
    """Starts pairs of runs in one folder, with the same configuration or with two, at once or shortly after each
    other."""
    first, other = campaign.reference("lm"), campaign.reference("lm", "lm-other", arguments=OTHER)
    chance = random.Random(f"starts {campaign.seed}")
    for number in range(count):
        second = (first, other)[number % 2]
        delay = 0.0 if number % 4 < 2 else chance.uniform(0, 0.6 * first.seconds)
        order = [first, second] if chance.random() < 0.5 else [second, first]
        if campaign.has_result("starts", f"{number:03}"):
            continue
        problems, outcome = two_starts(campaign, order, delay, f"starts-{number:03}")
        kind = "same" if second is first else "different"
        campaign.record("starts", f"{number:03}", problems, point=f"{kind}, {delay:.3f} s apart: {outcome}")


USED = re.compile(
    r"^run is in use: process (\d+) on \S+ works on it since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d; ", re.MULTILINE
)
LATE = re.compile(r"^done: run, .*\n(.*\n)*?run is (finished|a run of another configuration)", re.MULTILINE)
"""Matches the output of two starts if the first run ended before the second one started."""


def two_starts(campaign: Campaign, order: list[Reference], delay: float, subfolder: str) -> tuple[list[str], str]:
    """Starts two runs in one folder. One must end like the reference; the other must name the process that uses the
    folder and must change nothing. If the first run ends before the second starts (on a busy machine), both are
    started again with half the delay. Returns a line for every problem, and which run continued."""
    folder, started = campaign.new_folder("lm", subfolder), []
    for n, reference in enumerate(order):
        started.append(Started(replace(reference.plan, folder=str(folder), log=f"operations-{n}.json")))
        time.sleep(delay if n == 0 else 0)
    status = [run.ended() for run in started]
    problems = [line for run in started for line in left_processes(run.pid)]
    output = last_lines(folder)
    if not problems and delay > 0.001 and LATE.search(output_of(folder)):
        return two_starts(campaign, order, delay / 2, subfolder)
    if sorted(status) != [0, 2]:
        return [*problems, f"they ended with status {status}: {output}"], ""
    winner, loser = status.index(0), status.index(2)
    message = USED.search(output_of(folder))
    if message is None or int(message[1]) != started[winner].pid:
        problems.append(f"the second run did not name process {started[winner].pid}, which uses the folder: {output}")
    log = json.loads((folder / f"operations-{loser}.json").read_text())
    allowed = {("mkdir", "run"), ("open", "run/.lock")}
    operations = map(tuple, log["seen"] + log["unseen"])
    problems += [f"the second run did {operation}" for operation in operations if operation not in allowed]
    problems += differences(order[winner].folder, folder) + left_files(folder)
    if not problems:
        shutil.rmtree(folder)
    return problems, f"number {winner + 1} worked"


def try_terms(campaign: Campaign, names: Iterable[str], count: int) -> None:
    """Sends SIGTERM or SIGINT to runs, once or twice: after some seconds, at the start of an update or at any
    operation."""
    chance = random.Random(f"terms {campaign.seed}")
    for name in names:
        reference, what = campaign.reference(name), f"terms {name}"
        numbers = range(len(reference.operations))
        updates = [n for n in numbers if reference.operations[n][0] == "update"]
        for number in range(count):
            kind, times = ((signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 2))[number % 4]
            share, candidates = (number + chance.random()) / count, (updates, numbers)[number % 2]
            point = point_at(reference, candidates[int(share * len(candidates))], "before", kind)
            if number % 3 == 0:
                point = Point(f"{share * reference.seconds:.2f} s", seconds=share * reference.seconds)
            if not campaign.has_result(what, f"{number:03}"):
                subfolder = f"terms-{name}-{number:03}"
                problems, outcome = ask_to_stop(campaign, reference, kind, times, point, subfolder)
                label = f"{kind.name} x {times} at {point.label}: {outcome}"
                campaign.record(what, f"{number:03}", problems, point=label)


def ask_to_stop(
    campaign: Campaign, reference: Reference, kind: signal.Signals, times: int, point: Point, subfolder: str
) -> tuple[list[str], str]:
    """Sends a signal once or twice. The run must save a checkpoint and end within seconds, and must end like the
    reference after it is resumed. Returns a line for every problem, and the status and step."""
    folder = campaign.new_folder(reference.name, subfolder)
    plan = replace(reference.plan, folder=str(folder), log=None)
    started = Started(replace(plan, strike=point.strike))
    if point.seconds is not None:
        started.wait(point.seconds)
        started.send(kind)
    while point.strike and not (folder / "struck.txt").exists() and started.wait(0.002) is None:
        pass
    if times == 2:
        time.sleep(0.01)
        started.send(kind)
    start = time.monotonic()
    status, seconds = started.ended(), time.monotonic() - start
    problems, output = left_processes(started.pid), output_of(folder)
    if seconds > 5:
        problems.append(f"it took {seconds:.1f} s to end")
    if status not in (0, 128 + kind, -kind) or "Traceback" in output:
        problems.append(f"it ended with status {status}: {last_lines(folder)}")
    saved = read(folder / "run" / "last.json")
    step = saved.get("step", -1) if isinstance(saved, dict) else -1
    if f"saved run at step {step}" not in output and "saved run" in output:
        problems.append(f"it printed that it was saved, but it was not: {last_lines(folder)}")
    extra = f"step-{step:08d}"  # counts among the newest checkpoints that are kept, so another one may be missing
    problems += finished(plan) + left_files(folder)
    lines = differences(reference.folder, folder)
    problems += [line for line in lines if line[:12] != "checkpoints:" or extra not in line]
    if not problems:
        shutil.rmtree(folder)
    return problems, f"status {status}, step {step}"


def try_nan(campaign: Campaign) -> None:
    """Tests runs whose weights become NaN. After the first time they return to a checkpoint, also if they are killed
    meanwhile; after the second time they stop with a message."""
    for title, options in (
        ("nan", {"poison": (7,)}),
        ("nan-weights", {"poison_weights": (8,)}),
        ("nan-evaluated", {"poison_weights": (11,), "arguments": PLAIN}),
    ):
        try:
            reference = campaign.reference("lm", title, **options)
        except SystemExit as error:
            if not campaign.has_result(title, "whole"):
                campaign.record(title, "whole", [str(error)], point="undisturbed")
            continue
        if not campaign.has_result(title, "whole"):
            campaign.record(title, "whole", rollback_problems(reference), point="undisturbed")
        returned = rollback_operation(reference.operations)
        near, later = range(returned - 16, returned + 6), range(returned + 6, len(reference.operations), 12)
        for number, operation in enumerate([*near, *later]):
            trial = f"{number:03}"
            if not campaign.has_result(title, trial):
                point = point_at(reference, operation, ("before", "after")[number % 2])
                problems = kill_and_resume(campaign, reference, point, f"{title}-{trial}")
                campaign.record(title, trial, problems, point=point.label)
    for title, batches, sentence in (
        ("nan-twice", (7, 12), "it went back once before"),
        ("nan-at-once", (0,), "there is no checkpoint to go back to"),
    ):
        if not campaign.has_result(title, "whole"):
            folder = campaign.new_folder("lm", title)
            problems = []
            for attempt in range(2):
                arguments = ("experiment.yaml", *campaign.settings)
                status = Started(Plan(str(folder), arguments, poison=batches)).ended()
                lines = output_of(folder).splitlines()
                if status != 2 or sentence not in lines[-1] or any("Traceback" in line for line in lines):
                    problems.append(f"start {attempt + 1} ended with status {status}: {last_lines(folder)}")
            campaign.record(title, "whole", problems, point=lines[-1])


def rollback_problems(reference: Reference) -> list[str]:
    """Returns a line for every problem if a poisoned run did not return to a checkpoint once, print this, and store the
    skipped batches."""
    output = output_of(reference.folder)
    matches = re.findall(
        r"near step (\d+): back to the checkpoint of step (\d+), and on without the batches (\d+) to (\d+)", output
    )
    if len(matches) != 1:
        return [f"it did not print that it returned to a checkpoint once: {last_lines(reference.folder)}"]
    failed, step, first, last = map(int, matches[0])
    skipped = read(reference.folder / "run" / "checkpoints" / "step-00000016" / "state.json")["skipped"]
    if skipped != [[step, failed - step]] or (first, last) != (step, failed - 1):
        return [f"it printed {matches[0]}, but its state has {skipped}"]
    return []


def rollback_operation(operations: Sequence[tuple[str, str]]) -> int:
    """Returns the operation that completes the return to a checkpoint: metrics.jsonl, which every start rewrites, is
    rewritten a second time."""
    return [n for n, operation in enumerate(operations) if operation == ("replace", "run/metrics.jsonl")][1]


def try_leftovers(campaign: Campaign, count: int = 8) -> None:
    """Kills runs while worker processes encode texts. The processes must end with the run, and the token files must be
    equal."""
    reference = campaign.reference("lm", "lm-workers", settings=WORKERS)
    problems = differences(campaign.reference("lm").folder, reference.folder)
    if not campaign.has_result("workers", "whole"):
        campaign.record("workers", "whole", problems, point="undisturbed")
    tokens = [n for n, (_, path) in enumerate(reference.operations) if ".tokens" in path]
    chance = random.Random(f"workers {campaign.seed}")
    for number, operation in enumerate(sorted(chance.sample(tokens, min(count, len(tokens))))):
        trial = f"{number:03}"
        if not campaign.has_result("workers", trial):
            point = point_at(reference, operation)
            problems = kill_and_resume(campaign, reference, point, f"workers-{trial}")
            campaign.record("workers", trial, problems, point=point.label)
