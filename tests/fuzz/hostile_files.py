"""The kinds of files that each command reads, and hostile files of these kinds from someone else.

`readings` generates the pairs (command, kind of file) from the arguments of all commands. Every pair needs command
lines in `LINES`; a command or an argument that is not listed here fails a test. `payloads.py` runs the cases.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from chopmix.commands.cli import parser
from tiny import png, wav

READ_BY_METAVAR = {"RUN": "run", "CONFIG": "configuration", "DATA": "data", "SHARD": "shards"}
"""The kind of file that an argument reads, by its metavar."""
READ_BY_NAME = {
    ("import", "directory"): "model directory", ("transcribe", "files"): "sound", ("generate", "--prompts"): "text",
    ("generate", "--item"): "item", ("generate", "--grammar"): "grammar", ("explain", "word"): "configuration",
    ("record", "--policy"): "run", ("predict", "--input"): "item", ("embed", "--input"): "item",
    ("generate", "--input"): "item", ("inspect", "--input"): "item",
}  # fmt: skip
"""The kinds of files of further arguments, by command and argument."""
NOT_READ = {
    "FILE", "DIR", "OUTPUT", "FILE.gif", "KEY=VALUE", "KEY=A,B", "0,1,2", "N", "S", "T", "P", "R", "A", "W", "I/N", "G",
    "ID", "ID,ID", "NAME", "NAME,NAME", "COLUMN", "MODULE", "HOST", "TEXT", "KEY", "L", "POSITIONS", "POSITION:ID,...",
    "confidence|random", "NAME=VALUE", "WORD", "ENVIRONMENT", ("LOW", "HIGH"), None, "SHARE",
}  # fmt: skip
"""Metavars of arguments that read no file, except for the arguments in READ_BY_NAME."""
WRITTEN_RUN = "import", "run"
"""This argument is the folder of a new run."""
ELSEWHERE = {
    ("import", "model directory"), ("transcribe", "sound"), ("generate", "text"), ("generate", "item"),
    ("generate", "grammar"), ("predict", "item"), ("embed", "item"), ("inspect", "item"), ("transcribe", "run"),
}  # fmt: skip
"""Pairs that other fuzz tests cover: imports, media, grammars."""


def readings() -> tuple[set[tuple[str, str]], set[object]]:
    """All pairs (command, kind of file that it reads), and the metavars of arguments that are not listed here."""
    (commands,) = (action.choices for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    pairs, unknown = set(), set()
    for command, command_parser in commands.items():
        for action in command_parser._actions:
            name = action.option_strings[0] if action.option_strings else action.dest
            kind = READ_BY_NAME.get((command, name), READ_BY_METAVAR.get(action.metavar))
            if kind and (command, name) != WRITTEN_RUN:
                pairs.add((command, kind))
            elif not kind and action.metavar not in NOT_READ:
                unknown.add(action.metavar)
    return pairs, unknown


Lines = tuple[tuple[str, ...], ...]
LINES: dict[tuple[str, str], Lines] = {
    ("init", "configuration"): (("init", "{payload}", "output"), ("init", "quickstart", "output/{payload}")),
    ("new", "data"): (("new", "{kind}", "{data}", "--output", "output/new.yaml"),),
    ("new", "run"): (("new", "images", "photos", "--encoder", "run", "--output", "output/new.yaml"),),
    ("prepare", "configuration"): (("prepare", "run/config.yaml"),),
    ("train", "configuration"): (
        ("train", "run", "training.steps=5"), ("train", "run/config.yaml", "--dry-run"),
        ("train", "base.yaml", "from=run", "out=output/y"),
    ),
    ("generate", "run"): (("generate", "run", "--max-tokens", "2"),),
    ("predict", "run"): (("predict", "run", "--input", "image=../data/image-0.png"),),
    ("predict", "data"): (("predict", "run", "--data", "{data}"),
                          ("predict", "run", "--data", "{data}", "--output", "output/x.csv")),
    ("forecast", "run"): (("forecast", "run"),),
    ("forecast", "data"): (("forecast", "run", "--data", "{data}", "--output", "output/x.csv"),),
    ("evaluate", "run"): (("evaluate", "run"), ("evaluate", "run", "--subsets"), ("evaluate", "run", "--report"),
                          ("evaluate", "run", "--adapters", "run")),
    ("evaluate", "data"): (("evaluate", "run", "--data", "{data}", "--report", "output/report"),),
    ("play", "run"): (("play", "run", "--episodes", "1"),),
    ("record", "run"): (
        ("record", "CartPole-v1", "--policy", "run", "--episodes", "1", "--out", "output/z"),
    ),
    ("in_context", "run"): (("in_context", "run", "--functions", "2"),),
    ("embed", "run"): (("embed", "run", "--input", "text=chop"),),
    ("embed", "data"): (("embed", "run", "--data", "{data}", "--output", "output/x.npy"),),
    ("merge", "shards"): (("merge", "output/x.csv", "{data}"),),
    ("inspect", "configuration"): (("inspect", "run"), ("inspect", "run/config.yaml")),
    ("report", "run"): (("report", "run"),),
    ("examples", "configuration"): (
        ("examples", "run", "--split", "val", "--number", "1"),
        ("examples", "run/config.yaml", "--split", "val", "--number", "1"),
    ),
    ("baselines", "run"): (("baselines", "run", "--limit", "0.01"),),
    ("compare", "run"): (("compare", "run"), ("compare", "run", "--output", "output/x.md"), ("compare", "group")),
    ("export", "run"): (("export", "run", "output/x"),),
    ("explain", "configuration"): (("explain", "run/config.yaml"), ("explain", "{payload}")),
}  # fmt: skip
"""The command lines that read each kind of file. `{payload}` is a hostile text, `{data}` a file or folder of DATA."""


def run_lines() -> list[tuple[str, ...]]:
    """The command lines that read a run or its configuration."""
    return [line for (_, kind), lines in LINES.items() if kind in ("run", "configuration") for line in lines
            if "{payload}" not in line and "output/{payload}" not in line]  # fmt: skip


def payload_lines() -> list[tuple[str, ...]]:
    """The command lines that contain a payload as a word."""
    return [line for lines in LINES.values() for line in lines if any("{payload}" in word for word in line)]


# ------------------------------------------------------------------------------------------------------- hostile names

ENDS = ("\n", "\r", "\x85", "\u2028", "\u2029", "\x0b", "\x0c")
"""Characters that end a line in some formats; the first five end a line in YAML."""
STEPS = ("logging: {also: {z: {use: 'payload:Thing'}}}", "out: ../../outside/victim", "from: nested")
"""Lines of YAML that a name may contain."""
NAMES = (
    *(f"b{end}{step}{end}#" for end, step in itertools.product(ENDS, STEPS)),
    "$(touch executed)", "x; touch executed #", "`touch executed`", "\x1b[31mred", "\x9b31m", "\u202eabc", "a\tb",
    "!!python/object/apply:os.system [touch executed]", "{a: b}", "&x", "*x", "# c", "': x", "=cmd|' /C calc'!A0",
    "</script><script>alert(1)</script>", "../../outside/victim", "payload:Thing",
)  # fmt: skip
"""Hostile names of classes, columns, cells, keys and files."""


Source = tuple[str, str, dict[str, bytes]]
"""(kind of data for `chopmix new`, name of the file or folder, contents of all files by name)"""


def csv_of(rows: list[list[str]]) -> bytes:
    import csv

    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue().encode(errors="surrogatepass")


def photos(name: str) -> dict[str, bytes]:
    return {f"photos/{label}/{n}.png": png(n) for label in ("a", name.replace("/", "_")) for n in range(4)}


def log(time: str = "time", channel: str = "x", label: str = "state", values: tuple[str, str] = ("a", "b")) -> bytes:
    rows = [[str(n / 10), str(n % 7), values[n // 20 % 2]] for n in range(160)]
    return csv_of([[time, channel, label], *rows])


def sounds(name: str, column: str, value: str) -> dict[str, bytes]:
    rows = [[f"s{n}.wav", [value, "b"][n % 2]] for n in range(8)]
    return {name: csv_of([["file", column], *rows]), **{f"s{n}.wav": wav(n) for n in range(8)}}


def samples(column: str, value: str, file: str = "rows.csv") -> dict[str, bytes]:
    rows = [[f"k{n}", "../data/image-0.png", "mix", value] for n in range(3)]
    rows = [[value, "../data/image-0.png", "chop", "x"], *rows]
    return {file: csv_of([["key", "image", "label", column], *rows])}


def parts(
    key: str = "id", column: str = "note", value: str = "a", folder: str = "pictures", file: str = "s{}"
) -> Source:
    """A table and a folder that `chopmix new samples` joins: (the key's column, the folder, the files)."""
    keys = [file.format(n) for n in range(8)]
    rows = [[each, f"{value} and more words", n, "ab"[n % 2]] for n, each in enumerate(keys)]
    files = {f"{folder}/{as_file(each, '.png')}": png(n) for n, each in enumerate(keys)}
    return key, folder, {"parts.csv": csv_of([[key, column, "size", "label"], *rows]), **files}


def shard(name: str) -> dict[str, bytes]:
    record = {"command": "predict", "run": name, "weights": name, "data": name, "settings": {name: name}, "count": 1,
              "index": 0, "samples": 1}  # fmt: skip
    return {"s.csv": csv_of([["key", name], [name, name]]), "s.csv.shard.json": json.dumps(record).encode()}


def as_file(name: str, ending: str) -> str:
    """A name as a valid name of a file."""
    return f"{name.replace('/', '_')}{ending}"


DATA: dict[str, Callable[[str], Source]] = {
    "a class folder of images": lambda name: ("images", "photos", photos(name)),
    "a column of times": lambda name: ("table", "log.csv", {"log.csv": log(time=name)}),
    "a channel": lambda name: ("table", "log.csv", {"log.csv": log(channel=name)}),
    "a column of classes": lambda name: ("table", "log.csv", {"log.csv": log(label=name)}),
    "a class in a cell": lambda name: ("table", "log.csv", {"log.csv": log(values=("a", name))}),
    "a table's file": lambda name: ("table", as_file(name, ".csv"), {as_file(name, ".csv"): log()}),
    "a label's column of sounds": lambda name: ("sounds", "list.csv", sounds("list.csv", name, "a")),
    "a label of sounds": lambda name: ("sounds", "list.csv", sounds("list.csv", "label", name)),
    "a file of a list of sounds": lambda name: (
        "sounds", as_file(name, ".csv"), sounds(as_file(name, ".csv"), "label", "a")
    ),
    "a folder of texts": lambda name: (
        "text", as_file(name, ""), {f"{as_file(name, '')}/a.txt": b"chop everything and mix it " * 120}
    ),
}  # fmt: skip
"""Data for `chopmix new` that contain a hostile name."""
JOIN = ("new", "samples", "parts.csv", "{data}", "--key={kind}", "--output", "output/new.yaml")
JOINED: dict[str, Callable[[str], Source]] = {
    "a key of joined samples": lambda name: parts(file=name.replace("{", "(").replace("}", ")") + "{}"),
    "a column of keys": lambda name: parts(key=name),
    "a column of joined samples": lambda name: parts(column=name),
    "a text of joined samples": lambda name: parts(value=name),
    "a folder of joined samples": lambda name: parts(folder=as_file(name, "")),
}
"""Data for `chopmix new samples` that contain a hostile name."""
ROWS: dict[str, Callable[[str], Source]] = {
    "a column of samples": lambda name: ("", "rows.csv", samples(name, "x")),
    "a cell and a key": lambda name: ("", "rows.csv", samples("more", name)),
    "a file of samples": lambda name: ("", as_file(name, ".csv"), samples("more", "x", as_file(name, ".csv"))),
}
"""Data with a hostile name for commands that read a run and data."""
SHARDS: dict[str, Callable[[str], Source]] = {"a shard and its record": lambda name: ("", "s.csv", shard(name))}
RESULTS = "a metric and a folder of a sweep"


def results(name: str, folder: str) -> dict[str, bytes]:
    """Metrics of a run and results of a sweep, with hostile names."""
    lines = [{"step": step, "seconds": 1.0, f"val/{name}": 0.5 / (step + 1), "val/loss": 0.5} for step in range(3)]
    metrics = "".join(json.dumps(line) + "\n" for line in lines).encode()
    run = {"folder": name, "setting": [f"a.{name}=1"], "seed": 0, "fold": None, "metrics": lines[-1]}
    runs = [run, {**run, "folder": "seed-0", "setting": [f"a.b={name}"]}, {**run, "folder": f"../{folder}"}]
    sweep = {"format": 1, "config": name, "best": f"val/{name}", "runs": runs}
    return {"run/metrics.jsonl": metrics, "group/sweep.json": json.dumps(sweep).encode(),
            "group/seed-0/metrics.jsonl": metrics}  # fmt: skip


@dataclass(frozen=True)
class FileCase:
    """A hostile name at a place in a file of some kind, and one command line that reads the file."""

    place: str
    name: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place} named {self.name!r}, chopmix {' '.join(self.words)}"

    def files(self) -> dict[str, bytes]:
        """The files of the case."""
        return results(self.name, "seed-0") if self.place == RESULTS else self._source()[2]

    def line(self) -> tuple[str, ...]:
        """The command line."""
        kind, data, _ = ("", "", {}) if self.place == RESULTS else self._source()
        return tuple(word.replace("{kind}", kind).replace("{data}", data) for word in self.words)

    def _source(self) -> Source:
        return {**DATA, **JOINED, **ROWS, **SHARDS}[self.place](self.name)


def file_cases() -> Iterator[FileCase]:
    """Every hostile name at every place, with every command that reads such a file."""
    readers = {place: [LINES["new", "data"]] for place in DATA} | {
        place: [LINES["merge", "shards"]] for place in SHARDS
    }
    readers |= {place: [(JOIN,)] for place in JOINED}
    readers |= {place: [LINES[word, "data"] for word in ("predict", "evaluate", "embed")] for place in ROWS}
    readers[RESULTS] = [LINES["compare", "run"], LINES["report", "run"], (("train", "run", "training.steps=5"),)]
    for place, groups in readers.items():
        for lines, name in itertools.product(groups, NAMES):
            yield from (FileCase(place, name, words) for words in lines)


# ---------------------------------------------------------------------------------------------------------- hard links


def link_files(folder: Path, victims: Path) -> None:
    """Create a second hard link to every file of a run in another folder, as an archive from someone else can."""
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        target = victims / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, target)


IN_PLACE = (".lock", "evaluations.jsonl")
"""Files that commands write in place, and that a run from someone else may already contain."""
