"""Kills runs at points that are spread over their file operations and seconds."""

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
from killing.experiments import Campaign, Reference, last_lines
from killing.plans import Plan, Strike
from killing.starting import Started, left_processes


@dataclass(frozen=True)
class Point:
    """The point at which a run is killed: an operation or a time. The resumed run is killed at `again` if it is set."""

    label: str
    strike: Strike | None = None
    seconds: float | None = None
    again: Strike | None = None
    fresh: bool = False


def windows(operations: Sequence[tuple[str, str]]) -> dict[str, list[int]]:
    """Returns the critical operations, by phase: `preparation`, `first best` and `newest best` checkpoint, `pointers`,
    and the `end` after the last step."""
    starts = [n for n, operation in enumerate(operations) if operation == ("write", "run/metrics.jsonl")]
    best = [n for n, operation in enumerate(operations) if operation == ("replace", "run/best.json")]
    segment = [sum(start <= n for start in starts) for n in range(len(operations))]
    groups: dict[str, list[int]] = {"preparation": [], "first best": [], "newest best": [], "pointers": [], "end": []}
    last = max(step_of(path) for _, path in operations)
    ending = next(n for n, (_, path) in enumerate(operations) if step_of(path) == last)
    for n, (_, path) in enumerate(operations):
        if segment[n] == 0:
            groups["preparation"].append(n)
        elif n >= ending:
            groups["end"].append(n)
        elif best and segment[n] == segment[best[0]]:
            groups["first best"].append(n)
        elif segment[n] == segment[max((b for b in best if b < ending), default=-1)] and best:
            groups["newest best"].append(n)
        elif re.search(r"(best|last)\.json", path):
            groups["pointers"].append(n)
    return groups


def step_of(path: str) -> int:
    """Returns the step of the checkpoint that contains a path, or -1 if it is not in a checkpoint."""
    match = re.search(r"step-(\d{8})", path)
    return int(match[1]) if match else -1


def shares(groups: dict[str, list[int]], most: int, chance: random.Random) -> list[int]:
    """Returns `most` operations, taken from the groups in turn and within a group at random, so that small groups are
    covered completely."""
    remaining = {name: chance.sample(numbers, len(numbers)) for name, numbers in groups.items()}
    operations: list[int] = []
    while len(operations) < most and any(remaining.values()):
        operations += [numbers.pop() for numbers in remaining.values() if numbers]
    return operations[:most]


def point_at(reference: Reference, number: int, when: str = "before", number_of_signal: int = signal.SIGKILL) -> Point:
    """Returns the point of a kill (or another signal) at one of the operations of the reference run."""
    kind, path = reference.operations[number]
    return Point(f"{number} {when} {kind} {path}", strike=Strike(number, when, number_of_signal))


def points(reference: Reference, count: int, seed: int, fresh: float) -> list[Point]:
    """Returns `count` points: three fifths at critical operations, a fifth spread evenly over all operations, and a
    fifth spread over the seconds."""
    chance, operations = random.Random(f"{reference.name} {seed}"), reference.operations
    by_time = count // 5
    chosen = shares(windows(operations), 3 * count // 5, chance)
    rest = [n for n in range(len(operations)) if n not in set(chosen)]
    even = min(count - by_time - len(chosen), len(rest))
    chosen += [rest[int((n + chance.random()) * len(rest) / even)] for n in range(even)]
    selected = []
    for number in chosen:
        kinds = ["before", "after", *["torn"] * (operations[number][0] in ("write", "tensors"))]
        selected.append(point_at(reference, number, chance.choice(kinds)))
    for n in range(count - len(selected)):
        seconds = (n + chance.random()) / (count - len(chosen)) * reference.seconds
        selected.append(Point(f"{seconds:.3f} s", seconds=seconds))
    return [
        replace(
            point,
            again=Strike(chance.randrange(len(operations)), chance.choice(["before", "after", "torn"]))
            if n % 3 == 2
            else None,
            fresh=chance.random() < fresh and point.seconds is None,
        )
        for n, point in enumerate(selected)
    ]


def kill_and_resume(campaign: Campaign, reference: Reference, point: Point, subfolder: str) -> list[str]:
    """Tests one point. Returns a line for every problem at the end."""
    folder = campaign.new_folder(reference.name, subfolder)
    plan = replace(reference.plan, folder=str(folder), log=None)
    started = Started(replace(plan, strike=point.strike), point.fresh)
    if point.seconds is not None and started.wait(point.seconds) is None:
        started.send(signal.SIGKILL)
    status, problems = started.ended(), []
    if point.strike:
        struck = (folder / "struck.txt").read_text() if (folder / "struck.txt").exists() else ""
        expected = -signal.SIGKILL if point.strike.signal == signal.SIGKILL else 128 + point.strike.signal
        if status != expected or struck.split() != point.label.split()[1:]:
            problems.append(
                f"it was not stopped at this point but at {struck!r} with status {status}: {last_lines(folder)}"
            )
    problems += left_processes(started.pid)
    problems += finished(plan, point.again, point.fresh)
    problems += differences(reference.folder, folder) + left_files(folder)
    if not problems:
        shutil.rmtree(folder)
    return problems


def finished(plan: Plan, again: Strike | None = None, fresh: bool = False) -> list[str]:
    """Repeats the command until the run ends; the first repetition is killed at `again` if it is set. Returns a line
    for every problem."""
    folder, problems = Path(plan.folder), []
    for strike in (again, None) if again else (None,):
        started = Started(replace(plan, strike=strike), fresh)
        status = started.ended()
        problems += left_processes(started.pid)
        if status != 0 and not (strike and status == -signal.SIGKILL):
            return [*problems, f"the resumed run ended with status {status}: {last_lines(folder)}"]
    return problems


def try_points(campaign: Campaign, name: str, count: int) -> None:
    """Tests all points of one experiment."""
    reference = campaign.reference(name)
    for number, point in enumerate(points(reference, count, campaign.seed, campaign.fresh)):
        if not campaign.has_result(name, f"{number:03}"):
            start = time.monotonic()
            problems = kill_and_resume(campaign, reference, point, f"{name}-{number:03}")
            more = {"again": point.again and asdict(point.again), "fresh": point.fresh}
            seconds = round(time.monotonic() - start, 2)
            campaign.record(name, f"{number:03}", problems, point=point.label, seconds=seconds, **more)
