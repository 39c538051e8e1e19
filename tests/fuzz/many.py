"""Runs the fuzz tests with many inputs, in parts: `python tests/fuzz/many.py --inputs 10000`.

Each part is one test with at most 2,000 inputs, in a new process and with a new seed. A part without a failure adds a
row to `benchmarks/results/fuzz.jsonl`; therefore the same command continues after it was stopped. `--only systems`
runs only the tests whose names contain this word.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks")]

from results import read_results, write_results

AT_ONCE = 2000
"""The largest number of inputs in one part."""
ROW = re.compile(r"^(\w[\w ]*?) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", re.MULTILINE)
COUNTED = ("tried", "accepted", "refused", "foreign", "hangs", "others")
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=-q")
"""Without the checks of types and shapes, like in a program of a user: this takes half the time."""


def main() -> int:
    """Run all parts that have no row yet. Returns 1 if one failed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000, metavar="N", help="inputs for each test; default 10,000")
    parser.add_argument("--only", default="", metavar="WORD", help="only tests whose names contain it")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="tests at a time; default 1")
    options = parser.parse_args()
    chosen = [test for test in tests() if options.only in test]
    with ThreadPoolExecutor(options.jobs) as pool:
        return 1 - all(list(pool.map(lambda test: completed(test, options.inputs), chosen)))


def completed(test: str, inputs: int) -> bool:
    """Run the parts of a test that have no row yet. Returns whether all ended without a failure."""
    while (left := inputs - done(test)) > 0:
        if not tried(test, min(left, AT_ONCE)):
            return False
    return True


def rows_of(test: str) -> list[dict]:
    """The rows of the parts of a test."""
    return [row for row in read_results("fuzz") if row["test"] == test]


def done(test: str) -> int:
    """How many inputs were tried. A test with several formats counts the format with the fewest inputs."""
    counts: Counter[str] = Counter()
    for row in rows_of(test):
        counts[row["format"]] += row["tried"]
    return min(counts.values(), default=0)


def tests() -> list[str]:
    """The names of all fuzz tests, `FILE::TEST`."""
    output = subprocess.run([*PYTEST, "tests/fuzz", "--collect-only"], cwd=ROOT, capture_output=True, text=True).stdout
    names = [line.removeprefix("tests/fuzz/").partition("[")[0] for line in output.splitlines() if "::" in line]
    return [each for each in dict.fromkeys(names) if "@fuzzed" in source_before(each)]


def source_before(test: str) -> str:
    """The source code before a test: its decorators."""
    file, _, name = test.partition("::")
    return (ROOT / "tests/fuzz" / file).read_text().partition(f"\ndef {name}(")[0].rpartition("\n\n")[2]


def tried(test: str, inputs: int) -> bool:
    """Run one part and write its rows. Returns whether it ended without a failure."""
    part = max((row["part"] + 1 for row in rows_of(test)), default=0)
    words = [*PYTEST, f"tests/fuzz/{test}", "--inputs", str(inputs), "--survey", f"--hypothesis-seed={part}"]
    start = time.monotonic()
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    output = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=one_thread).stdout
    rows = ROW.findall(output)
    if not rows or any(int(count) for *_, foreign, hangs, others in rows for count in (foreign, hangs, others)):
        print(output[-6000:], flush=True)
        return False
    seconds = round(time.monotonic() - start, 1)
    for name, *counts in rows:
        figures = dict(zip(COUNTED, map(int, counts)))
        write_results("fuzz", [{"test": test, "part": part, "format": name, **figures, "seconds": seconds}])
    return True


if __name__ == "__main__":
    sys.exit(main())
