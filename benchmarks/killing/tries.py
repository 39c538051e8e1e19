"""Two starts at once, signals, batches that poison, workers: what else may happen to a run."""

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
from killing.experiments import OTHER, PLAIN, WORKERS, Campaign, Reference, said_in, words_of
from killing.plans import Plan
from killing.points import Point, finished, kill_and_resume, point_at
from killing.starting import Started, left_processes


def try_starts(campaign: Campaign, count: int) -> None:
    """Pairs of starts in one folder, of the same configuration and of two, at once or one a little after the other."""
    own, other = campaign.reference("lm"), campaign.reference("lm", "lm-other", arguments=OTHER)
    chance = random.Random(f"starts {campaign.seed}")
    for number in range(count):
        second = (own, other)[number % 2]
        delay = 0.0 if number % 4 < 2 else chance.uniform(0, 0.6 * own.seconds)
        order = [own, second] if chance.random() < 0.5 else [second, own]
        if campaign.known("starts", f"{number:03}"):
            continue
        wrong, told = two_starts(campaign, order, delay, f"starts-{number:03}")
        kind = "same" if second is own else "different"
        campaign.keep("starts", f"{number:03}", wrong, point=f"{kind}, {delay:.3f} s apart: {told}")


USED = re.compile(
    r"^run is in use: process (\d+) on \S+ works on it since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d; ", re.MULTILINE
)
LATE = re.compile(r"^done: run, .*\nrun is (finished|a run of another configuration)", re.MULTILINE)
"""What is said by two starts of which the second found a run that was done."""


def two_starts(campaign: Campaign, order: list[Reference], delay: float, where: str) -> tuple[list[str], str]:
    """One must work and end as if alone; the other must say who works there and must have changed nothing. Where
    the second came when the first was done, on a busy machine, they are started again, nearer to each other."""
    folder, started = campaign.place("lm", where), []
    for n, reference in enumerate(order):
        started.append(Started(replace(reference.plan, folder=str(folder), log=f"operations-{n}.json")))
        time.sleep(delay if n == 0 else 0)
    status = [each.ended() for each in started]
    wrong = [line for each in started for line in left_processes(each.pid)]
    told = words_of(folder)
    if not wrong and delay > 0.001 and LATE.search(said_in(folder)):
        return two_starts(campaign, order, delay / 2, where)
    if sorted(status) != [0, 2]:
        return [*wrong, f"they ended with {status}: {told}"], ""
    winner, loser = status.index(0), status.index(2)
    said = USED.search(said_in(folder))
    if said is None or int(said[1]) != started[winner].pid:
        wrong.append(f"the second was not told that process {started[winner].pid} works there: {told}")
    done = json.loads((folder / f"operations-{loser}.json").read_text())
    allowed = {("mkdir", "run"), ("open", "run/.lock")}
    wrong += [f"the second did {each}" for each in map(tuple, done["seen"] + done["unseen"]) if each not in allowed]
    wrong += differences(order[winner].folder, folder) + left_files(folder)
    if not wrong:
        shutil.rmtree(folder)
    return wrong, f"number {winner + 1} worked"


def try_terms(campaign: Campaign, names: Iterable[str], count: int) -> None:
    """Ask runs to stop, by SIGTERM and SIGINT, once and twice: after seconds, as an update begins, at any operation."""
    chance = random.Random(f"terms {campaign.seed}")
    for name in names:
        reference, what = campaign.reference(name), f"terms {name}"
        every = range(len(reference.operations))
        updates = [n for n in every if reference.operations[n][0] == "update"]
        for number in range(count):
            kind, times = ((signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 2))[number % 4]
            place, where = (number + chance.random()) / count, (updates, every)[number % 2]
            point = point_at(reference, where[int(place * len(where))], "before", kind)
            if number % 3 == 0:
                point = Point(f"{place * reference.seconds:.2f} s", seconds=place * reference.seconds)
            if not campaign.known(what, f"{number:03}"):
                wrong, told = ask_to_stop(campaign, reference, kind, times, point, f"terms-{name}-{number:03}")
                campaign.keep(what, f"{number:03}", wrong, point=f"{kind.name} x {times} at {point.label}: {told}")


def ask_to_stop(
    campaign: Campaign, reference: Reference, kind: signal.Signals, times: int, point: Point, where: str
) -> tuple[list[str], str]:
    """Send a signal, once or twice: the run must end within seconds, saved, and go on as if never asked."""
    folder = campaign.place(reference.name, where)
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
    asked = time.monotonic()
    status, seconds = started.ended(), time.monotonic() - asked
    wrong, said = left_processes(started.pid), said_in(folder)
    if seconds > 5:
        wrong.append(f"it took {seconds:.1f} s to end")
    if status not in (0, 128 + kind, -kind) or "Traceback" in said:
        wrong.append(f"it ended with {status}: {words_of(folder)}")
    saved = read(folder / "run" / "last.json")
    step = saved.get("step", -1) if isinstance(saved, dict) else -1
    if f"saved run at step {step}" not in said and "saved run" in said:
        wrong.append(f"it says that it is saved, but is not: {words_of(folder)}")
    own = f"step-{step:08d}"  # it counts among the newest that are kept, so that another one may be missing
    wrong += finished(plan) + left_files(folder)
    wrong += [each for each in differences(reference.folder, folder) if each[:12] != "checkpoints:" or own not in each]
    if not wrong:
        shutil.rmtree(folder)
    return wrong, f"status {status}, step {step}"


def try_nan(campaign: Campaign) -> None:
    """Runs that go wrong once come back by themselves, also when killed meanwhile; those that do twice say so and
    stop."""
    for title, how in (
        ("nan", {"poison": (7,)}),
        ("nan-weights", {"poison_weights": (8,)}),
        ("nan-evaluated", {"poison_weights": (11,), "arguments": PLAIN}),
    ):
        try:
            reference = campaign.reference("lm", title, **how)
        except SystemExit as error:
            if not campaign.known(title, "whole"):
                campaign.keep(title, "whole", [str(error)], point="undisturbed")
            continue
        if not campaign.known(title, "whole"):
            campaign.keep(title, "whole", came_back(reference), point="undisturbed")
        returned = back_at(reference.operations)
        near, later = range(returned - 16, returned + 6), range(returned + 6, len(reference.operations), 12)
        for number, operation in enumerate([*near, *later]):
            trial = f"{number:03}"
            if not campaign.known(title, trial):
                point = point_at(reference, operation, ("before", "after")[number % 2])
                wrong = kill_and_resume(campaign, reference, point, f"{title}-{trial}")
                campaign.keep(title, trial, wrong, point=point.label)
    for title, batches, sentence in (
        ("nan-twice", (7, 12), "it went back once before"),
        ("nan-at-once", (0,), "there is no checkpoint to go back to"),
    ):
        if not campaign.known(title, "whole"):
            folder = campaign.place("lm", title)
            wrong = []
            for attempt in range(2):
                arguments = ("experiment.yaml", *campaign.settings)
                status = Started(Plan(str(folder), arguments, poison=batches)).ended()
                lines = said_in(folder).splitlines()
                if status != 2 or sentence not in lines[-1] or any("Traceback" in line for line in lines):
                    wrong.append(f"start {attempt + 1} ended with {status}: {words_of(folder)}")
            campaign.keep(title, "whole", wrong, point=lines[-1])


def came_back(reference: Reference) -> list[str]:
    """Whether a poisoned run went back once, said so, and remembers which batches it left out."""
    said = said_in(reference.folder)
    found = re.findall(
        r"near step (\d+): back to the checkpoint of step (\d+), and on without the batches (\d+) to (\d+)", said
    )
    if len(found) != 1:
        return [f"it does not say that it went back once: {words_of(reference.folder)}"]
    failed, step, first, last = map(int, found[0])
    skipped = read(reference.folder / "run" / "checkpoints" / "step-00000016" / "state.json")["skipped"]
    if skipped != [[step, failed - step]] or (first, last) != (step, failed - 1):
        return [f"it says {found[0]}, its state says {skipped}"]
    return []


def back_at(operations: Sequence[tuple[str, str]]) -> int:
    """The operation with which a run has gone back: the metrics, which a start puts in order, are put in order
    once more."""
    return [n for n, operation in enumerate(operations) if operation == ("replace", "run/metrics.jsonl")][1]


def try_leftovers(campaign: Campaign, count: int = 8) -> None:
    """Kills while worker processes encode: they must end with the run, and the token files must be the same."""
    reference = campaign.reference("lm", "lm-workers", settings=WORKERS)
    wrong = differences(campaign.reference("lm").folder, reference.folder)
    if not campaign.known("workers", "whole"):
        campaign.keep("workers", "whole", wrong, point="undisturbed")
    tokens = [n for n, (_, place) in enumerate(reference.operations) if ".tokens" in place]
    chance = random.Random(f"workers {campaign.seed}")
    for number, operation in enumerate(sorted(chance.sample(tokens, min(count, len(tokens))))):
        trial = f"{number:03}"
        if not campaign.known("workers", trial):
            point = point_at(reference, operation)
            wrong = kill_and_resume(campaign, reference, point, f"workers-{trial}")
            campaign.keep("workers", trial, wrong, point=point.label)
