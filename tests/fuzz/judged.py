"""The judge of the fuzz tests: whatever an input is, it is read, or refused with one clear error of ours, and nothing
else happens.

An input is judged in this process, in an empty folder of its own, for at most SECONDS, and may make the process grow
by at most GROWTH bytes. It may start no program, execute nothing of its own, write nothing outside its folder, and
send a terminal nothing that steers it.

An error is *ours* where its class is one of chopmix's that the command line tells in a sentence (DataError,
ConfigError, RunError, ...), or a plain ValueError or OSError whose innermost frame stands at a `raise` of our own
code. All else is *foreign*, even where the command line would print it: a library's words explain nothing to a user.
"""

from __future__ import annotations

import dis
import errno
import faulthandler
import functools
import gc
import io
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import astuple, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

from checkout import PACKAGES
from chopmix.commands import cli
from chopmix.experiment.settings.document import ConfigError
from chopmix.tokenizers.encoding import coder_program

FORMATS = ("configurations", "overrides", "dry runs", "images", "sounds", "sensors", "scores", "fonts", "grammars",
           "shards", "manifests", "logs", "idx files", "divisions", "corpora", "imports", "runs", "command lines",
           "payloads", "systems", "data options", "plans", "episodes", "minari", "clocks", "codes")  # fmt: skip
SECONDS = 10.0
"""Seconds of the processor that one input may take."""
GROWTH, ROOM = 2**30, 2**32
"""Bytes by which an input may make the process grow, and by which it cannot, since the system gives no more
addresses."""
ROOT = Path(cli.__file__).parent.parent
FOLDERS = ("chopmix", *PACKAGES[1:])
STATUS = Path("/proc/self/status")
"""What Linux tells of a process's memory; elsewhere memory is not judged."""
STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters with which a text steers a terminal: all that are not printed, but for tabs and ends of lines."""


class Complaint(AssertionError):
    """What no input may bring about."""


class Hung(Complaint):
    """It took too long."""


class Grew(Complaint):
    """It took too much memory."""


class Executed(Complaint):
    """Something was executed that only the input names."""


class WroteOutside(Complaint):
    """A file was changed outside the input's folder."""


class Connected(Complaint):
    """A connection to another machine was opened."""


class Steered(Complaint):
    """A terminal was sent characters that steer it."""


class Unclear(Complaint):
    """It ended without one clear sentence, or with a status that means nothing."""


class Refused(Exception):
    """A command line that ended with a sentence of ours and a status other than 0."""


class _Alarm(BaseException):
    """The time is over: no `except Exception` shall stop it."""


# ---------------------------------------------------------------------------------------------------------- whose error


def innermost(error: BaseException) -> TracebackType | None:
    """The place where an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def is_ours(error: BaseException) -> bool:
    """Whether an error is one of our own sentences; see above."""
    if not isinstance(error, ValueError | OSError | ConfigError):
        return False
    kind, trace = type(error).__module__, innermost(error)
    if kind.partition(".")[0] == "chopmix":
        return True
    if kind != "builtins" or trace is None:
        return False
    code = trace.tb_frame.f_code
    raises = code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raises and is_source(code.co_filename)


def folder_of(file: str) -> str:
    """The folder of the repository in which a file lies."""
    return Path(file).relative_to(ROOT).parts[0]


def check_quiet(text: str, where: str) -> None:
    """Raises Steered for a text that would steer a terminal."""
    if found := STEERING.search(text):
        raise Steered(f"{where} holds {found[0]!r}: {text[max(found.start() - 40, 0) : found.end() + 40]!r}")


# -------------------------------------------------------------------------------------------------------- what happened

OURS = coder_program.__file__
"""The only program that an input may start: it reads a foreign tokenizer apart from this process."""
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn"}
CONNECTS = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind", "socket.sendto"}
"""Audit events by which a connection is opened."""
CHANGES = {
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.truncate": (0,),
    "os.rename": (0, 1),
    "os.link": (1,),
    "os.symlink": (1,),
    "shutil.rmtree": (0,),
}
"""Audit events of Python by which files are changed, and which of their arguments are paths."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """Hears what Python does while an input is judged (`sys.addaudithook`): programs that are started, files that
    are changed."""

    def __init__(self, home: Path):
        self.home, self.complaint = Path(os.path.realpath(home)), None

    def hear(self, event: str, arguments: tuple) -> None:
        """One event. Raises OSError for what is wrong, so that it does not happen, and keeps it, since that
        may be caught."""
        starts = event in STARTS and not (event == "subprocess.Popen" and OURS in arguments[1])
        if starts or event == "pickle.find_class":
            self.stop(Executed(f"{event}: {arguments[0]!r}"))
        elif event in CONNECTS and not is_local(arguments):
            self.stop(Connected(f"{event}: {arguments[1:]!r}"))
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            self.check(arguments[0], follows=not arguments[2] & os.O_NOFOLLOW)
        elif event in CHANGES and (len(arguments) < 2 or arguments[-1] in (-1, None) or event in ("os.truncate",)):
            for number in CHANGES[
                event
            ]:  # with a folder's descriptor the path is no path; rmtree names that folder itself
                self.check(arguments[number], follows=False)

    def check(self, path: Any, follows: bool) -> None:
        """Whether a path lies in the home; `follows`: a link there counts as what it leads to."""
        if isinstance(path, int) or path is None:
            return
        there = os.path.abspath(os.fsdecode(path))
        there = os.path.realpath(there) if follows else os.path.join(os.path.realpath(os.path.dirname(there)),
                                                                     os.path.basename(there))  # fmt: skip
        known = there == os.devnull or "__pycache__" in there or Path(there).is_relative_to(self.home)
        if not known:
            self.stop(WroteOutside(there))

    def stop(self, complaint: Complaint) -> None:
        """Keep the first complaint, and stop what it is about."""
        self.complaint = self.complaint or complaint
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def is_local(arguments: tuple) -> bool:
    """Whether a socket is a file of this machine, or only tests whether it has IPv6."""
    return len(arguments) == 2 and (isinstance(arguments[1], str | bytes) or tuple(arguments[1]) == ("::1", 0))


_watches: list[Watch] = []


def _hear(event: str, arguments: tuple) -> None:
    if _watches:
        _watches[-1].hear(event, arguments)


sys.addaudithook(_hear)  # there is no taking it away: without a watch it does nothing


@contextmanager
def noticed() -> Iterator[None]:
    """Raises Unclear where inside an error is met in a callback, of which Python prints the traceback and goes on."""
    met: list[Any] = []
    with mock.patch.object(sys, "unraisablehook", met.append):
        yield
    if met:
        raise Unclear(
            f"a traceback is printed: {met[0].err_msg or 'exception ignored in'} {met[0].object}: {met[0].exc_value!r}"
        )


@contextmanager
def watched(home: Path) -> Iterator[None]:
    """Raises WroteOutside or Executed where that happened inside."""
    watch, marker = Watch(home), home / "executed"
    _watches.append(watch)
    try:
        yield
    finally:
        _watches.remove(watch)
        if marker.exists():
            marker.unlink()
            sys.modules.pop("payload", None)
            raise Executed("the module 'payload', which only the input names")
        if watch.complaint:
            raise watch.complaint


def exits(status: int) -> None:
    """What stands in for `os._exit`, which would end the tests without a word."""
    raise Executed(f"os._exit({status!r})")


def memory() -> tuple[int, int, int]:
    """Bytes of this process now: addresses, memory, and the most memory since that was last asked to be forgotten."""
    if not STATUS.exists():
        return 0, 0, 0
    told = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if line.startswith("Vm"))
    size, now, most = (int(told[name].split()[0]) * 1024 for name in ("VmSize", "VmRSS", "VmHWM"))
    return size, now, most


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Raises Grew where the process grew by more than GROWTH inside, at any time; it cannot grow by more than ROOM."""
    if not STATUS.exists():
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # forget the most memory so far
    size, before, _ = memory()
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)
        grown = memory()[2] - before
        if grown > GROWTH:
            gc.collect()
            raise Grew(f"it took {grown / 2**20:,.0f} MiB")


@contextmanager
def bounded_time(seconds: float) -> Iterator[None]:
    """Raises Hung after so many seconds of the processor, or ten times as many of the clock (the machine may be busy),
    and again every second until it is caught. A call into C that does not come back within twice that ends the process,
    with its stack on standard error."""

    def ring(number: int, frame: Any) -> None:
        while frame is not None and not is_source(frame.f_code.co_filename):
            frame = frame.f_back
        raise _Alarm("" if frame is None else f", at {place_of(frame.f_code.co_filename, frame.f_lineno)}")

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, 10 * seconds)}
    old = {number: signal.signal(number, ring) for number in timers}
    faulthandler.dump_traceback_later(20 * seconds, exit=True, file=sys.__stderr__)
    try:
        try:
            for timer, limit in timers.values():
                signal.setitimer(timer, limit, 1.0)
            yield
        finally:
            for timer, _ in timers.values():
                signal.setitimer(timer, 0)
    except _Alarm as alarm:
        raise Hung(f"it took more than {seconds:g} seconds{alarm}") from None
    finally:
        faulthandler.cancel_dump_traceback_later()
        for number, handler in old.items():
            signal.signal(number, handler)


# ------------------------------------------------------------------------------------------------------------ the judge


@dataclass
class Counts:
    """What became of the inputs of one format."""

    tried: int = 0
    accepted: int = 0
    refused: int = 0
    foreign: int = 0
    hangs: int = 0
    others: int = 0
    """Memory, execution, writing, terminals, silence."""

    def add(self, others: Sequence[int]) -> None:
        """The counts of another process."""
        for name, count in zip(vars(self), others):
            setattr(self, name, getattr(self, name) + count)


@dataclass
class Judge:
    """Judges inputs, one after another, and counts what became of them."""

    home: Path
    """Nothing may be written outside it."""
    survey: bool = False
    """Whether to go on after a failure, and to tell of all of them at the end."""
    counts: dict[str, Counts] = field(default_factory=lambda: {name: Counts() for name in FORMATS})
    found: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Of a survey: every distinct failure, how often it came, and its shortest input."""

    def __post_init__(self):
        self.case = self.home / "case"
        for name in ("case", "temporary", "cache", "payloads"):
            (self.home / name).mkdir()
        code = f"open({str(self.home / 'executed')!r}, 'w').close()\n\n\nclass Thing:\n    pass\n"
        (self.home / "payloads" / "payload.py").write_text(code)

    def folder(self) -> Path:
        """An empty folder for the next input, in which the process then stands."""
        os.chdir(self.home)
        shutil.rmtree(self.case, ignore_errors=True)
        self.case.mkdir()
        os.chdir(self.case)
        return self.case

    def check(self, name: str, call: Callable[[], Any], shown: str) -> Any:
        """What a call gives that reads an input of a format; None where it refuses it. `shown` is the input
        in messages.

        Raises the foreign error, or the Complaint."""
        counts = self.counts[name]
        counts.tried += 1
        (self.home / "last_input.txt").write_text(f"{name}: {shown}", errors="backslashreplace")
        try:
            found = self._watched(call)
            counts.accepted += 1
            return found
        except Refused:
            counts.refused += 1
        except Complaint as error:
            self._failed(name, error, shown)
        except Exception as error:
            if not is_ours(error):
                self._failed(name, error, shown)
            elif not str(error).strip():
                self._failed(name, Unclear(f"{type(error).__name__} without a message"), shown)
            else:
                counts.refused += 1
        return None

    def _watched(self, call: Callable[[], Any]) -> Any:
        with warnings.catch_warnings(), bounded_memory(), mock.patch.object(os, "_exit", exits):
            warnings.simplefilter("ignore")  # which the tests at large turn into errors, and users see as what they are
            with watched(self.home), noticed(), bounded_time(SECONDS):
                return call()

    def _failed(self, name: str, error: Exception, shown: str) -> None:
        """Count a failure and raise it; in a survey, note it."""
        counts = self.counts[name]
        counts.hangs += isinstance(error, Hung)
        counts.others += isinstance(error, Complaint) and not isinstance(error, Hung)
        counts.foreign += not isinstance(error, Complaint)
        if not self.survey:
            error.add_note(f"{name}: {shown if len(shown) < 3000 else shown[:3000] + '...'}")
            raise error
        known = f"{name}: {told(error)}"
        count, shortest = self.found.get(known, (0, shown))
        self.found[known] = count + 1, min(shortest, shown, key=len)

    def results(self) -> tuple[dict[str, tuple], dict[str, tuple[int, str]]]:
        """Counts and failures as plain values, to be sent to another process."""
        return {name: astuple(counts) for name, counts in self.counts.items()}, self.found


def told(error: BaseException) -> str:
    """An error's type, its innermost places in our code and at all, and the beginning of its message: the same
    for two errors that are one."""
    message = re.sub(r"0x[0-9a-f]+|(?<![.\w])[0-9]+", "N", str(error))
    if isinstance(error, Hung):
        return f"Hung: {error}"
    if isinstance(error, Complaint):
        return f"{type(error).__name__}: {message.partition(' holds ')[0][:100]}"
    places, trace = [], error.__traceback__
    while trace is not None:
        places.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    ours = [place_of(*place) for place in places if is_source(place[0])]
    last = f"{'/'.join(Path(places[-1][0]).parts[-2:])}:{places[-1][1]}" if places else "?"
    return f"{type(error).__module__}.{type(error).__name__} at {ours[-1] if ours else '?'} ({last}): {message[:80]!r}"


def place_of(file: str, line: int) -> str:
    """A place in our code."""
    return f"{Path(file).relative_to(ROOT)}:{line}"


def is_source(file: str) -> bool:
    """Whether a file is one of chopmix's own."""
    return Path(file).is_relative_to(ROOT) and folder_of(file) in FOLDERS


# ------------------------------------------------------------------------------------------------------- command lines


class Terminal(io.TextIOWrapper):
    """Standard output as a terminal has it: UTF-8, nothing that is none."""

    def __init__(self, errors: str = "strict", terminal: bool = True):
        super().__init__(io.BytesIO(), encoding="utf-8", errors=errors, newline="", write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def text(self) -> str:
        """All that was written."""
        self.flush()
        return self.buffer.getvalue().decode()


def command(*arguments: str) -> str:
    """What one command line prints. Raises Refused where it ends with a sentence of ours; whatever else goes
    wrong as it is."""
    errors: list[Exception] = []
    tell = cli.report_error

    def listening(error: Exception) -> int:
        errors.append(error)
        return tell(error)

    out, aside = Terminal(), Terminal("backslashreplace", terminal=False)
    with mock.patch.object(cli, "report_error", listening), redirect_stdout(out), redirect_stderr(aside):
        try:
            status = cli.main(list(arguments))
        except SystemExit as end:  # argparse's way to refuse
            status = end.code
    for error in errors:
        if not is_ours(error) and not isinstance(error, MemoryError):
            raise error
    for text, where in ((out.text(), "standard output"), (aside.text(), "standard error")):
        check_quiet(text, where)
        if "Traceback (most recent call last)" in text:
            raise Unclear(f"a traceback on {where}")
    if status not in (0, 1, 2, 130):
        raise Unclear(f"the status is {status!r}")
    if status:
        if not (aside.text() + out.text()).strip():
            raise Unclear(f"the status is {status}, and nothing is said")
        raise Refused(aside.text())
    return out.text()


def in_its_home(make: Callable) -> Callable:
    """A fixture of `whole_judge` that is made in the judge's home."""

    @functools.wraps(make)
    def inside(whole_judge: Judge, **others: Any) -> Any:
        with at_home(whole_judge.home):
            return make(whole_judge=whole_judge, **others)

    return inside


@contextmanager
def at_home(home: Path) -> Iterator[None]:
    """Temporary files, caches and imports in the judge's home, the process as a user starts it; afterwards all as
    it was."""
    kept = {
        "CHOPMIX_CACHE": str(home / "case" / "cache"),
        "MPLCONFIGDIR": str(home / "cache"),
        "TMPDIR": str(home / "temporary"),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "temporary" / "inductor"),  # which importing torch's compiler makes
        "NO_COLOR": "1",
        "TERM": "dumb",
        "COLUMNS": "200",
    }
    start = os.getcwd()
    no_waiting = mock.patch.object(os, "fsync", lambda handle: None)  # what a power cut would lose is not judged here
    with mock.patch.dict(os.environ, kept), mock.patch.object(tempfile, "tempdir", str(home / "temporary")), no_waiting:
        os.environ.pop("CHOPMIX_TRACEBACK", None)
        with mock.patch.object(sys, "path", [str(home / "payloads"), *sys.path]):
            try:
                yield
            finally:
                os.chdir(start)
