"""Kills at points spread over a run's file operations and seconds."""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from killing.compare import differences, left_files
from killing.experiments import Campaign, Reference, words_of
from killing.plans import Plan, Strike
from killing.starting import Started, left_processes


@dataclass(frozen=True)
class Point:
    """Where a run is killed: at an operation, or after some seconds; `again`: and where once more, when it goes on."""

    label: str
    strike: Strike | None = None
    seconds: float | None = None
    again: Strike | None = None
    fresh: bool = False


def windows(operations: Sequence[tuple[str, str]]) -> dict[str, list[int]]:
    """The operations at which most can be lost, by what is going on: `preparation`, `first best`, `newest best`,
    `pointers`, and the `end`, after the last step."""
    starts = [n for n, (kind, place) in enumerate(operations) if (kind, place) == ("write", "run/metrics.jsonl")]
    best = [n for n, operation in enumerate(operations) if operation == ("replace", "run/best.json")]
    segment = [sum(start <= n for start in starts) for n in range(len(operations))]
    found: dict[str, list[int]] = {"preparation": [], "first best": [], "newest best": [], "pointers": [], "end": []}
    last = max(step_of(place) for _, place in operations)
    ending = next(n for n, (_, place) in enumerate(operations) if step_of(place) == last)
    for n, (_, place) in enumerate(operations):
        if segment[n] == 0:
            found["preparation"].append(n)
        elif n >= ending:
            found["end"].append(n)
        elif best and segment[n] == segment[best[0]]:
            found["first best"].append(n)
        elif segment[n] == segment[max((b for b in best if b < ending), default=-1)] and best:
            found["newest best"].append(n)
        elif re.search(r"(best|last)\.json", place):
            found["pointers"].append(n)
    return found


def step_of(place: str) -> int:
    """The step of the checkpoint that a path is in; -1 for others."""
    found = re.search(r"step-(\d{8})", place)
    return int(found[1]) if found else -1


def shares(groups: dict[str, list[int]], most: int, chance: random.Random) -> list[int]:
    """So many operations, taken from the groups in turn, of each in random order: all of a small group before
    most of a large one."""
    rest = {name: chance.sample(numbers, len(numbers)) for name, numbers in groups.items()}
    found: list[int] = []
    while len(found) < most and any(rest.values()):
        found += [numbers.pop() for numbers in rest.values() if numbers]
    return found[:most]


def point_at(reference: Reference, number: int, when: str = "before", number_of_signal: int = signal.SIGKILL) -> Point:
    """A kill, or another signal, at one of the reference's operations."""
    kind, place = reference.operations[number]
    return Point(f"{number} {when} {kind} {place}", strike=Strike(number, when, number_of_signal))


def points(reference: Reference, count: int, seed: int, fresh: float) -> list[Point]:
    """Three fifths of the points in the windows, a fifth spread evenly over all operations, a fifth over the
    seconds."""
    chance, operations = random.Random(f"{reference.name} {seed}"), reference.operations
    by_time = count // 5
    chosen = shares(windows(operations), 3 * count // 5, chance)
    others = [n for n in range(len(operations)) if n not in set(chosen)]
    wanted = min(count - by_time - len(chosen), len(others))
    chosen += [others[int((n + chance.random()) * len(others) / wanted)] for n in range(wanted)]
    found = []
    for number in chosen:
        kinds = ["before", "after", *["torn"] * (operations[number][0] in ("write", "tensors"))]
        found.append(point_at(reference, number, chance.choice(kinds)))
    for n in range(count - len(found)):
        seconds = (n + chance.random()) / (count - len(chosen)) * reference.seconds
        found.append(Point(f"{seconds:.3f} s", seconds=seconds))
    return [
        replace(
            point,
            again=Strike(chance.randrange(len(operations)), chance.choice(["before", "after", "torn"]))
            if n % 3 == 2
            else None,
            fresh=chance.random() < fresh and point.seconds is None,
        )
        for n, point in enumerate(found)
    ]


def kill_and_resume(campaign: Campaign, reference: Reference, point: Point, where: str) -> list[str]:
    """Try one point; gives what is wrong at the end."""
    folder = campaign.place(reference.name, where)
    plan = replace(reference.plan, folder=str(folder), log=None)
    started = Started(replace(plan, strike=point.strike), point.fresh)
    if point.seconds is not None and started.wait(point.seconds) is None:
        started.send(signal.SIGKILL)
    status, wrong = started.ended(), []
    if point.strike:
        struck = (folder / "struck.txt").read_text() if (folder / "struck.txt").exists() else ""
        meant = -signal.SIGKILL if point.strike.signal == signal.SIGKILL else 128 + point.strike.signal
        if status != meant or struck.split() != point.label.split()[1:]:
            wrong.append(f"it was not stopped there, but at {struck!r}, and ended with {status}: {words_of(folder)}")
    wrong += left_processes(started.pid)
    wrong += finished(plan, point.again, point.fresh)
    wrong += differences(reference.folder, folder) + left_files(folder)
    if not wrong:
        shutil.rmtree(folder)
    return wrong


def finished(plan: Plan, again: Strike | None = None, fresh: bool = False) -> list[str]:
    """Give the command until it ends, the first time perhaps killed once more; gives what is wrong."""
    folder, wrong = Path(plan.folder), []
    for strike in (again, None) if again else (None,):
        started = Started(replace(plan, strike=strike), fresh)
        status = started.ended()
        wrong += left_processes(started.pid)
        if status != 0 and not (strike and status == -signal.SIGKILL):
            return [*wrong, f"started again it ended with {status}: {words_of(folder)}"]
    return wrong


def try_points(campaign: Campaign, name: str, count: int) -> None:
    """The kills of one experiment."""
    reference = campaign.reference(name)
    for number, point in enumerate(points(reference, count, campaign.seed, campaign.fresh)):
        if not campaign.known(name, f"{number:03}"):
            began = time.monotonic()
            wrong = kill_and_resume(campaign, reference, point, f"{name}-{number:03}")
            more = {"again": point.again and asdict(point.again), "fresh": point.fresh}
            seconds = round(time.monotonic() - began, 2)
            campaign.keep(name, f"{number:03}", wrong, point=point.label, seconds=seconds, **more)
