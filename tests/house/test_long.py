"""What takes an hour, by hand: `pytest -m long`. Runs killed at more places than the suite has time for, and more odd
inputs.

Each is a program that tells its own figures (`-s` shows them); with `--inputs`, `--points` and more by itself.
"""

import os
import re
import subprocess
import sys

import pytest
from checkout import ROOT

pytestmark = pytest.mark.long


def told(*command: str) -> str:
    """What a program says that must end well; also shown."""
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=one_thread, capture_output=True, text=True)
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def test_killed_anywhere_a_run_ends_like_one_that_was_not():
    """40 kills of each of three experiments; two starts at once, runs asked to stop, weights that become no
    numbers, workers."""
    said = told(
        "benchmarks/kill.py", "--points", "40", "--starts", "20", "--terms", "8", "--nan", "--leftovers", "--seed", "1"
    )
    rows = {words[0]: words[1:] for line in said.splitlines() if len(words := line.split()) == 4}
    assert {"lm", "mix", "seq2seq"} <= rows.keys()
    assert all(int(different) == 0 for name, (*_, different) in rows.items() if different.isdigit())


def test_odd_inputs_are_refused_in_a_sentence():
    """A thousand of every format, other ones each time."""
    said = told("-m", "pytest", "tests/fuzz", "--inputs", "1000", "--survey")
    rows = re.findall(r"^(\w[\w ]*?) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", said, re.MULTILINE)
    assert len(rows) == 12 and all(foreign == hangs == others == "0" for *_, foreign, hangs, others in rows)
