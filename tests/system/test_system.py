"""What is too large for the everyday suite: `pytest -m system`, at most an hour, before an issue is resolved.

Runs that are killed at more places than the suite has time for, more odd inputs, and more payloads. Each is a program
that prints its own figures (`-s` shows them) and can be run by itself.
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
    """What a program prints that must end well."""
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=one_thread, capture_output=True, text=True)
    print(done.stdout[-3000:])
    told = f"{shlex.join(command)} ended with status {done.returncode}"
    assert done.returncode == 0, f"{told}\n{done.stdout[-6000:]}\n{done.stderr[:4000]}\n...\n{done.stderr[-2000:]}"
    return done.stdout


def test_a_run_that_was_killed_anywhere_ends_like_one_that_was_not():
    """40 kills of each of three experiments; two starts at once, runs that are asked to stop, weights that become
    NaN, workers."""
    output = output_of(
        "benchmarks/kill.py", "--points", "40", "--starts", "20", "--terms", "8", "--nan", "--leftovers", "--seed", "1"
    )
    rows = {words[0]: words[1:] for line in output.splitlines() if len(words := line.split()) == 4}
    assert {"lm", "mix", "seq2seq"} <= rows.keys()
    assert all(int(different) == 0 for name, (*_, different) in rows.items() if different.isdigit())


@pytest.mark.parametrize("file", sorted(file.name for file in (ROOT / "tests" / "fuzz").glob("test_fuzz_*.py")))
def test_odd_inputs_are_refused_in_a_sentence(file):
    """A thousand of every format, other ones each time; six hundred of systems, each of which trains."""
    inputs = "600" if file == "test_fuzz_systems.py" else "1000"
    seed = f"--hypothesis-seed={int.from_bytes(os.urandom(4), 'little')}"
    output = output_of("-m", "pytest", "-o", "addopts=-q", f"tests/fuzz/{file}", "--inputs", inputs, "--survey", seed)
    rows = re.findall(r"^(\w[\w ]*?) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", output, re.MULTILINE)
    assert rows and all(foreign == hangs == others == "0" for *_, foreign, hangs, others in rows)


def test_a_tenth_of_all_payloads_does_nothing():
    """Another tenth each time."""
    part = str(os.urandom(1)[0] % 10)
    output = output_of("tests/fuzz/payloads.py", "--parts", "10", "--only", part)
    assert re.search(r": \d[\d,]+ cases, 0 failed$", output, re.MULTILINE)
