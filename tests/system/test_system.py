"""Tests that take too long for the default suite: `pytest -m system`, at most an hour, before an issue is resolved.

Runs that are killed at many more steps, more odd inputs, and more payloads. Each test runs a program that prints its
measurements (`-s` shows them) and can also be run alone.
"""

import os
import re
import shlex
import subprocess
import sys

import pytest
from checkout import ROOT

pytestmark = pytest.mark.system


def output_of(*command: str) -> str:
    """The standard output of a program; the program must succeed."""
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=one_thread, capture_output=True, text=True)
    print(done.stdout[-3000:])
    message = f"{shlex.join(command)} ended with status {done.returncode}"
    assert done.returncode == 0, f"{message}\n{done.stdout[-6000:]}\n{done.stderr[:4000]}\n...\n{done.stderr[-2000:]}"
    return done.stdout


def test_a_run_that_is_killed_at_any_step_ends_like_a_run_without_a_kill():
    """40 kills of each of three experiments; two starts at the same time, runs that are asked to stop, weights that
    become NaN, workers."""
    output = output_of(
        "benchmarks/kill.py", "--points", "40", "--starts", "20", "--terms", "8", "--nan", "--leftovers", "--seed", "1"
    )
    rows = {words[0]: words[1:] for line in output.splitlines() if len(words := line.split()) == 4}
    assert {"lm", "mix", "seq2seq"} <= rows.keys()
    assert all(int(different) == 0 for name, (*_, different) in rows.items() if different.isdigit())


@pytest.mark.parametrize("file", sorted(file.name for file in (ROOT / "tests" / "fuzz").glob("test_fuzz_*.py")))
def test_odd_inputs_are_refused_with_a_message(file):
    """A thousand inputs of every format, different each time; six hundred of systems, each of which trains."""
    inputs = "600" if file == "test_fuzz_systems.py" else "1000"
    seed = f"--hypothesis-seed={int.from_bytes(os.urandom(4), 'little')}"
    output = output_of("-m", "pytest", "-o", "addopts=-q", f"tests/fuzz/{file}", "--inputs", inputs, "--survey", seed)
    rows = re.findall(r"^(\w[\w ]*?) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", output, re.MULTILINE)
    assert rows and all(foreign == hangs == others == "0" for *_, foreign, hangs, others in rows)


def test_a_tenth_of_all_payloads_executes_nothing():
    """A different tenth each time."""
    part = str(os.urandom(1)[0] % 10)
    output = output_of("tests/fuzz/payloads.py", "--parts", "10", "--only", part)
    assert re.search(r": \d[\d,]+ cases, 0 failed$", output, re.MULTILINE)
