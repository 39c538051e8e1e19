"""The judge of the fuzz tests: every input is accepted, or refused with one clear error of chopmix, and nothing else
happens.

Each input is judged in this process, in a new empty folder, for at most SECONDS. The memory of the process may grow by
at most GROWTH bytes. The input must not start a program, execute code, write outside its folder or send control
characters to a terminal.

An error is *ours* if its class is one of chopmix that the command line reports in a sentence (DataError, ConfigError,
RunError, ...), or if it is a plain ValueError or OSError that a `raise` in the code of chopmix raised. All other errors
are *foreign*, even if the command line prints them: the message of a library explains nothing to a user.
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
"""The CPU seconds that one input may take."""
GROWTH, ROOM = 2**30, 2**32
"""The bytes by which the process may grow during one input, and the limit at which the system gives no more
addresses."""
ROOT = Path(cli.__file__).parent.parent
FOLDERS = ("chopmix", *PACKAGES[1:])
STATUS = Path("/proc/self/status")
"""The file in which Linux reports the memory of a process; on other systems memory is not judged."""
STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters, which change what a terminal does: all except tabs and ends of lines."""


class Complaint(AssertionError):
    """Something that no input may cause."""


class Hung(Complaint):
    """The input took too long."""


class Grew(Complaint):
    """The input took too much memory."""


class Executed(Complaint):
    """Code was executed that only the input names."""


class WroteOutside(Complaint):
    """A file outside the folder of the input was changed."""


class Connected(Complaint):
    """A connection to another machine was opened."""


class Steered(Complaint):
    """Control characters were sent to a terminal."""


class Unclear(Complaint):
    """The input ended without one clear message, or with an undefined exit status."""


class Refused(Exception):
    """A command line that ended with a message of chopmix and an exit status other than 0."""


class _Alarm(BaseException):
    """The time is over. It is no Exception, so that `except Exception` does not catch it."""


# --------------------------------------------------------------------------------------------------------------- errors


def innermost(error: BaseException) -> TracebackType | None:
    """The place where an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised by chopmix; see the docstring of this module."""
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
    """The folder of the repository that contains a file."""
    return Path(file).relative_to(ROOT).parts[0]


def check_quiet(text: str, where: str) -> None:
    """Raises Steered if a text contains control characters."""
    if match := STEERING.search(text):
        raise Steered(f"{where} holds {match[0]!r}: {text[max(match.start() - 40, 0) : match.end() + 40]!r}")


# --------------------------------------------------------------------------------------------------------------- events

OURS = coder_program.__file__
"""The only program that an input may start: it reads a tokenizer of another library in a separate process."""
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn"}
CONNECTS = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind", "socket.sendto"}
"""Audit events of Python that open a connection."""
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
"""Audit events of Python that change files, and the numbers of their arguments that are paths."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """Receives the audit events of Python while an input is judged (`sys.addaudithook`): programs that are started,
    files that are changed."""

    def __init__(self, home: Path):
        self.home, self.complaint = Path(os.path.realpath(home)), None

    def hear(self, event: str, arguments: tuple) -> None:
        """Check one event. A forbidden event is stopped with an OSError; its complaint is kept, because the error
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
            ]:  # with the descriptor of a folder the argument is no path; rmtree itself names that folder
                self.check(arguments[number], follows=False)

    def check(self, path: Any, follows: bool) -> None:
        """Complain about a path outside the home; `follows`: the target of a link is checked, not the link."""
        if isinstance(path, int) or path is None:
            return
        file = os.path.abspath(os.fsdecode(path))
        file = os.path.realpath(file) if follows else os.path.join(os.path.realpath(os.path.dirname(file)),
                                                                   os.path.basename(file))  # fmt: skip
        allowed = file == os.devnull or "__pycache__" in file or Path(file).is_relative_to(self.home)
        if not allowed:
            self.stop(WroteOutside(file))

    def stop(self, complaint: Complaint) -> None:
        """Keep the first complaint, and stop the event."""
        self.complaint = self.complaint or complaint
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def is_local(arguments: tuple) -> bool:
    """Whether a socket is a file of this machine, or only tests whether the machine has IPv6."""
    return len(arguments) == 2 and (isinstance(arguments[1], str | bytes) or tuple(arguments[1]) == ("::1", 0))


_watches: list[Watch] = []


def _hear(event: str, arguments: tuple) -> None:
    if _watches:
        _watches[-1].hear(event, arguments)


sys.addaudithook(_hear)  # cannot be removed; without a watch it does nothing


@contextmanager
def noticed() -> Iterator[None]:
    """Raises Unclear if a callback raised an error inside the block: Python prints its traceback and continues."""
    errors: list[Any] = []
    with mock.patch.object(sys, "unraisablehook", errors.append):
        yield
    if errors:
        first = errors[0]
        raise Unclear(
            f"a traceback is printed: {first.err_msg or 'exception ignored in'} {first.object}: {first.exc_value!r}"
        )


@contextmanager
def watched(home: Path) -> Iterator[None]:
    """Raises a Complaint if the block wrote outside the home, opened a connection or executed code."""
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
    """Replaces `os._exit`, which would end the tests without a message."""
    raise Executed(f"os._exit({status!r})")


def memory() -> tuple[int, int, int]:
    """Bytes of this process: addresses, memory now, and the peak of memory since its last reset."""
    if not STATUS.exists():
        return 0, 0, 0
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if line.startswith("Vm"))
    size, now, most = (int(fields[name].split()[0]) * 1024 for name in ("VmSize", "VmRSS", "VmHWM"))
    return size, now, most


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Raises Grew if the process grew by more than GROWTH at any time in the block; ROOM is the limit of the system."""
    if not STATUS.exists():
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak of memory
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
    """Raises Hung after this many CPU seconds, or after ten times as many seconds of the clock (the machine may be
    busy), and again every second until it is caught. A call into C that does not return in twice that time ends the
    process, with its stack on standard error."""

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
    """How many inputs of one format were accepted, refused or failed."""

    tried: int = 0
    accepted: int = 0
    refused: int = 0
    foreign: int = 0
    hangs: int = 0
    others: int = 0
    """Complaints other than Hung: memory, execution, writing, connections, terminals, messages."""

    def add(self, others: Sequence[int]) -> None:
        """Add the counts of another process."""
        for name, count in zip(vars(self), others):
            setattr(self, name, getattr(self, name) + count)


@dataclass
class Judge:
    """Judges inputs, one after another, and counts the results."""

    home: Path
    """Nothing may be written outside this folder."""
    survey: bool = False
    """Whether to continue after a failure, and to list all failures at the end."""
    counts: dict[str, Counts] = field(default_factory=lambda: {name: Counts() for name in FORMATS})
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    """In a survey: every distinct failure, how often it occurred, and its shortest input."""

    def __post_init__(self):
        self.case = self.home / "case"
        for name in ("case", "temporary", "cache", "payloads"):
            (self.home / name).mkdir()
        code = f"open({str(self.home / 'executed')!r}, 'w').close()\n\n\nclass Thing:\n    pass\n"
        (self.home / "payloads" / "payload.py").write_text(code)

    def folder(self) -> Path:
        """Returns an empty folder for the next input, which is the working folder from now on."""
        os.chdir(self.home)
        shutil.rmtree(self.case, ignore_errors=True)
        self.case.mkdir()
        os.chdir(self.case)
        return self.case

    def check(self, name: str, call: Callable[[], Any], shown: str) -> Any:
        """Returns the result of a call that reads an input of a format, or None if the input is refused. `shown` is
        the input in messages.

        Raises the foreign error, or the Complaint."""
        counts = self.counts[name]
        counts.tried += 1
        (self.home / "last_input.txt").write_text(f"{name}: {shown}", errors="backslashreplace")
        try:
            result = self._watched(call)
            counts.accepted += 1
            return result
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
            warnings.simplefilter("ignore")  # users see warnings; only pytest turns them into errors
            with watched(self.home), noticed(), bounded_time(SECONDS):
                return call()

    def _failed(self, name: str, error: Exception, shown: str) -> None:
        """Count a failure and raise it; in a survey, keep it instead."""
        counts = self.counts[name]
        counts.hangs += isinstance(error, Hung)
        counts.others += isinstance(error, Complaint) and not isinstance(error, Hung)
        counts.foreign += not isinstance(error, Complaint)
        if not self.survey:
            error.add_note(f"{name}: {shown if len(shown) < 3000 else shown[:3000] + '...'}")
            raise error
        failure = f"{name}: {summary(error)}"
        count, shortest = self.failures.get(failure, (0, shown))
        self.failures[failure] = count + 1, min(shortest, shown, key=len)

    def results(self) -> tuple[dict[str, tuple], dict[str, tuple[int, str]]]:
        """Counts and failures as plain values, which can be sent to another process."""
        return {name: astuple(counts) for name, counts in self.counts.items()}, self.failures


def summary(error: BaseException) -> str:
    """The type of an error, its innermost line in chopmix and its innermost line of all, and the beginning of its
    message. Two errors with the same cause have the same summary."""
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
    """A line of the code of chopmix, as `FILE:LINE`."""
    return f"{Path(file).relative_to(ROOT)}:{line}"


def is_source(file: str) -> bool:
    """Whether a file belongs to chopmix."""
    return Path(file).is_relative_to(ROOT) and folder_of(file) in FOLDERS


# ------------------------------------------------------------------------------------------------------- command lines


class Terminal(io.TextIOWrapper):
    """Standard output like that of a terminal: strict UTF-8."""

    def __init__(self, errors: str = "strict", terminal: bool = True):
        super().__init__(io.BytesIO(), encoding="utf-8", errors=errors, newline="", write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def text(self) -> str:
        """Everything that was written."""
        self.flush()
        return self.buffer.getvalue().decode()


def command(*arguments: str) -> str:
    """Returns what one command line prints. Raises Refused if it ends with a message of chopmix; other errors are
    raised unchanged."""
    errors: list[Exception] = []
    report_error = cli.report_error

    def collect(error: Exception) -> int:
        errors.append(error)
        return report_error(error)

    out, err = Terminal(), Terminal("backslashreplace", terminal=False)
    with mock.patch.object(cli, "report_error", collect), redirect_stdout(out), redirect_stderr(err):
        try:
            status = cli.main(list(arguments))
        except SystemExit as end:  # argparse refuses a command line so
            status = end.code
    for error in errors:
        if not is_ours(error) and not isinstance(error, MemoryError):
            raise error
    for text, where in ((out.text(), "standard output"), (err.text(), "standard error")):
        check_quiet(text, where)
        if "Traceback (most recent call last)" in text:
            raise Unclear(f"a traceback on {where}")
    if status not in (0, 1, 2, 130):
        raise Unclear(f"the status is {status!r}")
    if status:
        if not (err.text() + out.text()).strip():
            raise Unclear(f"the status is {status}, and nothing is said")
        raise Refused(err.text())
    return out.text()


def in_its_home(make: Callable) -> Callable:
    """A fixture with the argument `whole_judge` that is created in the home of the judge."""

    @functools.wraps(make)
    def inside(whole_judge: Judge, **others: Any) -> Any:
        with at_home(whole_judge.home):
            return make(whole_judge=whole_judge, **others)

    return inside


@contextmanager
def at_home(home: Path) -> Iterator[None]:
    """Temporary files, caches and imports are in the home of the judge inside the block, and variables are those of a
    user. Afterwards everything is restored."""
    kept = {
        "CHOPMIX_CACHE": str(home / "case" / "cache"),
        "MPLCONFIGDIR": str(home / "cache"),
        "TMPDIR": str(home / "temporary"),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "temporary" / "inductor"),  # importing the compiler of torch creates it
        "NO_COLOR": "1",
        "TERM": "dumb",
        "COLUMNS": "200",
    }
    start = os.getcwd()
    no_waiting = mock.patch.object(os, "fsync", lambda handle: None)  # power cuts are not tested here
    with mock.patch.dict(os.environ, kept), mock.patch.object(tempfile, "tempdir", str(home / "temporary")), no_waiting:
        os.environ.pop("CHOPMIX_TRACEBACK", None)
        with mock.patch.object(sys, "path", [str(home / "payloads"), *sys.path]):
            try:
                yield
            finally:
                os.chdir(start)
