"""The options, fixtures and table of results of the fuzz tests, for example `pytest tests/fuzz --inputs 10000`.

The default is 50 inputs for each format, always the same. Any other number of inputs is drawn at random, and the seed
is printed (`--hypothesis-seed` repeats it). `--survey` continues after a failure and lists every distinct failure with
its shortest input; without it hypothesis looks for the smallest input of each failure. The current input is in
`last_input.txt` of a folder `chopmix-fuzz-...` in /dev/shm (or in the temporary folder). The folder remains if the
process does not survive the input.
"""

from __future__ import annotations

import multiprocessing.util
import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest

DEFAULT = 50


def pytest_addoption(parser):
    """The options exist only if this folder is named on the command line; otherwise their defaults are used."""
    group = parser.getgroup("fuzz")
    group.addoption("--inputs", type=int, default=DEFAULT, metavar="N", help="inputs that each format is fuzzed with")
    group.addoption("--survey", action="store_true", help="fuzz on after a failure and list all distinct ones")


def pytest_configure(config):
    import fuzzed

    config.addinivalue_line(
        "filterwarnings", "ignore:Generating overly large repr"
    )  # nobody reads the repr of a strategy
    count = config.getoption("inputs", DEFAULT)
    if count != DEFAULT and config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(random.SystemRandom().getrandbits(32))
    fuzzed.COUNT, fuzzed.SEED = count, None if count == DEFAULT else config.getoption("hypothesis_seed")
    config.stash[RESULTS] = []


RESULTS = pytest.StashKey[list]()


def pytest_report_header():
    return f"fuzz: {how_many()}"


def how_many():
    """Returns how many inputs there are, and how they are drawn."""
    import fuzzed

    drawn = "always the same" if fuzzed.SEED is None else f"drawn with --hypothesis-seed={fuzzed.SEED}"
    return f"{fuzzed.COUNT} inputs a format, {drawn}"


MEMORY = Path("/dev/shm")
"""A folder in memory, where files are fast: one input writes about a hundred files and deletes them."""


@pytest.fixture(scope="session")
def whole_judge(request):
    """The judge of all tests of this process, and good samples in its folder `data`."""
    from chopmix.experiment import assemble, read_ahead
    from judged import Judge
    from tiny import write_data

    count = assemble.number_of_workers
    patch = (
        pytest.MonkeyPatch()
    )  # no worker processes: they send pickled messages, and the judge sees only this process
    patch.setattr(assemble, "number_of_workers", lambda *arguments: 0 * count(*arguments))
    patch.setattr(read_ahead, "SAMPLES_PER_WORKER", 2**60)
    multiprocessing.util.get_temp_dir()  # is needed until the end of the process, when the home is already deleted
    home = Path(tempfile.mkdtemp(prefix="chopmix-fuzz-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    judge = Judge(home, survey=request.config.getoption("survey", False))
    write_data(home / "data")
    yield judge
    request.config.stash[RESULTS].append(judge.results())
    patch.undo()
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def published(whole_judge):
    """The files of a valid directory of every kind of published model, by kind."""
    from judged import at_home
    from published import write_directories

    folder = whole_judge.home / "directories"
    with at_home(whole_judge.home):
        write_directories(folder)
    return {kind.name: {file.name: file.read_bytes() for file in sorted(kind.iterdir())} for kind in folder.iterdir()}


@pytest.fixture
def judge(whole_judge):
    """The judge, with its home as the working folder. In a survey, a test with new failures fails at its end."""
    from judged import at_home

    before = dict(whole_judge.failures)
    with at_home(whole_judge.home):
        yield whole_judge
    if new := [failure for failure in whole_judge.failures if failure not in before]:
        pytest.fail(f"{len(new)} distinct failures, listed below", pytrace=False)


def pytest_sessionfinish(session):
    """A worker of pytest-xdist sends its results to the process that prints them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["fuzz"] = session.config.stash[RESULTS]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Collect the results that a worker sent."""
    node.config.stash[RESULTS].extend(getattr(node, "workeroutput", {}).get("fuzz", []))


def pytest_terminal_summary(terminalreporter, config):
    """Print how many inputs of each format were accepted, refused or failed, and the failures of a survey."""
    from judged import FORMATS, Counts

    results = config.stash[RESULTS]
    if not results:
        return
    print_line = terminalreporter.write_line
    terminalreporter.section(f"fuzz: {how_many()}")
    print_line(f"{'format':<16}{'tried':>8}{'accepted':>10}{'refused':>9}{'foreign':>9}{'hangs':>7}{'others':>8}")
    for name in FORMATS:
        counts = Counts()
        for each, _ in results:
            counts.add(each[name])
        if counts.tried:
            print_line(f"{name:<16}{counts.tried:>8}{counts.accepted:>10}{counts.refused:>9}{counts.foreign:>9}"
                       f"{counts.hangs:>7}{counts.others:>8}")  # fmt: skip
    for failure, (count, shown) in (item for _, failures in results for item in failures.items()):
        print_line(f"\n{count} x {failure}\n    {shown if len(shown) < 6000 else shown[:6000] + '...'}")
