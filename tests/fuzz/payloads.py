"""Files from someone else that try to execute code, write files elsewhere or open a connection.

`free_keys` collects every key of a configuration that accepts free text from the signatures. A case puts one payload
into one key of a trained run and calls one command with this run. Other cases are in `hostile_files.py`: names in data,
shards and results, and hard links. `python tests/fuzz/payloads.py` runs all cases, in parts. Each part adds a row to
`benchmarks/results/payloads.jsonl`; therefore the same command continues after it was stopped. The suite runs a sample.
"""

from __future__ import annotations

import argparse
import base64
import collections.abc
import inspect
import itertools
import json
import pickle
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "fuzz"), str(TESTS), str(TESTS.parent / "benchmarks")]

from chopmix.experiment.settings.registry import registry_of
from chopmix.experiment.settings.schema import Choice, Record, halves, keys_of, members
from chopmix.experiment.settings.sections import sections
from hostile_files import IN_PLACE, NAMES, FileCase, file_cases, link_files, payload_lines, photos, run_lines
from judged import Judge, Steered, WroteOutside, at_home, command
from results import read_results, write_results
from tiny import SCENES, dumped, write_data

Put = Callable[[Any], dict[str, Any]]
"""A function from a value to the part of a configuration that contains it, for example
`{"data": {"dataset": {"use": "text", "train": VALUE}}}`."""

KINDS: dict[str, set[str]] = {
    "a run's folder": {
        "codes.run", "encoded.run", "accepted_by.run", "transcribed_by.run", "divergence.start", ".from",
    },
    "a path or an address": {
        ".out", "folder.path", "minari.path", "hugging_face.path",
        *(f"{owner}.{split}" for owner in ("image_folder", "manifest", "parallel_text", "text", "webdataset",
                                             "idx", "table")
          for split in ("train", "val", "test")),
    },
    "an expression": {"model.attention", "Encoder.attention", "edge_bias.graphs"},
    "a class or a function": {
        "image_augmentation.transforms", "recorded.environment", "recorded.policy", "recorded.settings",
        "play.environment", "play.settings", "Evaluation.also", "Logging.also", "torchvision_data.dataset",
        "mixture.of", ".inputs", ".tasks",
        "language_modeling.metrics", "masked_diffusion.metrics", "sequence_to_sequence.metrics", "flow.metrics",
        "policy_gradient.metrics",
    },
    "a name": {
        "codes.input", "encoded.input", "noted_text.encoding", "text.encoding", "sensor.channels", "sensor.categories",
        "sensor.mean", "sensor.scale", "rotary.per_axis", "gelu.approximate", "OwnLayers.groups",
        "classification.target", "ctc.target", "ctc.source", "flow.target", "language_modeling.target",
        "masked_diffusion.target",
        "masked_modeling.target", "next_item.target", "next_item.at", "next_item.loss", "reconstruction.target",
        "regression.target", "regression.names", "regression.loss", "sequence_to_sequence.target",
        "span_corruption.source", "span_corruption.target", "Refining.through", "accepted_by.column",
        "accepted_by.input", "accepted_by.task", "transcribed_by.column", "transcribed_by.input",
        "transcribed_by.task", "digit_strings.held_out", "fsdd.held_out", "hugging_face.subset",
        "hugging_face.train", "hugging_face.val", "hugging_face.test", "manifest.columns", "manifest.files",
        "manifest.key", "archive.name", "baselines.metric", "speech_commands.words", "text.field",
        "webdataset.columns", "mixture.share", "mixture.columns",
        "Data.columns",         "Training.input_dropout", "Training.freeze", "Training.train_only", "Checkpoints.best",
        "Adapters.on", "policy_gradient.target", "policy_gradient.advantage",
        "wandb.project", "wandb.name", "wandb.entity",
        "TableLabel.column", "TableStream.columns", "TableStream.every", "TableStream.horizon", "temperatures.window",
        "temperatures.horizon", "forecast.target", "forecast.input", "forecast.channels", "table.time", "table.window",
        "table.stride", "table.streams",
        "table.files", "Division.group", "Division.order", "Division.stratify", "Data.balance", "EarlyStop.metric",
    },
    "a text": {"noted_text.notes", "Evaluation.prompt", "samples.prompt"},
}  # fmt: skip
"""What the value of every key that accepts free text means. A key that is not listed here fails a test."""
EXAMPLES = {
    "target": "text", "source": "text", "input": "text", "run": "nested", "path": "../data", "dataset": "MNIST",
    "train": "../data/train.jsonl", "columns": {"text": "text"}, "environment": "CartPole-v1", "column": "label",
}  # fmt: skip
"""Values of required keys, by name."""


OF_TEXT = (
    "text", "noted_text", "language_modeling", "masked_diffusion", "masked_modeling", "span_corruption",
    "sequence_to_sequence", "Refining", "accepted_by", "transcribed_by",
)  # fmt: skip
"""Tokenizers, tasks and their parts that belong to a run on text; others are tried in a run on samples."""


@dataclass(frozen=True)
class Key:
    """A key that accepts free text: the class or section that has it, and a function that sets its value."""

    owner: str
    name: str
    put: Put

    @property
    def base(self) -> str:
        """The name of the run in which the key is tried: on text (`lm`) or on samples (`sensor`)."""
        return "lm" if {self.owner, *self.put("x")} & {*OF_TEXT, "model"} else "sensor"

    def __str__(self) -> str:
        return f"{self.owner}.{self.name}"


def free_keys() -> list[Key]:
    """Every key of a configuration that accepts free text, once, in the order of the schema."""
    visited: set[Any] = set()
    free: dict[str, Key] = {}

    def visit_keys(owner: str, targets: tuple, put: Put, used: str | None) -> None:
        if targets in visited:
            return
        visited.add(targets)
        keys = keys_of(*targets)
        needed = {name: example(name, annotation) for name, (annotation, default) in keys.items() if default is ...}
        for name, (annotation, _) in keys.items():

            def within(value: Any, name: str = name) -> dict[str, Any]:
                return put(({"use": used} if used else {}) | needed | {name: value})

            visit(owner, name, annotation, within)

    def visit(owner: str, name: str, annotation: Any, put: Put) -> None:
        if is_free(annotation):
            free.setdefault(f"{owner}.{name}", Key(owner, name, put))
        for member in members(annotation):
            origin, arguments = get_origin(member), get_args(member)
            if origin is Annotated and isinstance(arguments[-1], Record):
                visit_keys(arguments[-1].label, arguments[-1].targets, put, None)
            elif origin is Annotated and isinstance(arguments[-1], Choice):
                visit_choice(arguments[-1].registry, put)
            elif origin is collections.abc.Callable:
                visit_choice(registry_of(members(arguments[1])), put)
            elif inspect.isclass(member) and is_dataclass(member):
                visit_keys(member.__name__, (member,), put, None)
            elif origin is dict:
                inner = {"inputs": "image", "tasks": "lm"}.get(name, "x")
                visit(owner, name, arguments[1], lambda value, inner=inner: put({inner: value}))
            elif origin in (list, tuple, collections.abc.Sequence):
                visit(owner, name, arguments[0], lambda value: put([value]))

    def visit_choice(registry: Any, put: Put) -> None:
        for use in registry.names():
            with suppress(LookupError):
                visit_keys(use, halves(registry.find(use)[1]), put, use)

    for section, (annotation, _) in sections().items():
        visit("", section, annotation, lambda value, section=section: {section: value})
    return list(free.values())


def example(name: str, annotation: Any) -> Any:
    """A value for a required key."""
    if name in EXAMPLES:
        return EXAMPLES[name]
    if name == "of":  # the sources of a mixture, or the source of episodes
        return (
            {"use": "recorded", "environment": "CartPole-v1"} if get_origin(annotation) is not dict else {"x": "fsdd"}
        )
    return 2 if int in members(annotation) else "x"


def is_free(annotation: Any) -> bool:
    """Whether an annotation accepts any text, also in a mapping or a list."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is str or annotation is Any:
        return True
    if origin is Literal or origin is collections.abc.Callable:
        return False
    if origin is Annotated:
        return not isinstance(arguments[-1], Choice | Record) and is_free(arguments[0])
    return any(map(is_free, arguments))


# ------------------------------------------------------------------------------------------------------------ payloads

RUN_IT = "{{ cycler.__init__.__globals__.os.system('touch executed') }}"


def reference_address() -> str:
    """A shard address that makes fsspec render a template."""
    entry = {"version": 1, "gen": [{"key": f"{RUN_IT}a.tar", "url": "u", "dimensions": {"i": [0]}}]}
    content = base64.b64encode(json.dumps(entry).encode()).decode()
    return f"reference://a.tar::data:application/json;base64,{content}"


PAYLOADS: dict[str, Any] = {
    "a module": "payload:Thing",
    "a module with a dash": "pay-load:Thing",
    "a module below": "payload.inner:Thing",
    "a part": {"use": "payload:Thing"},
    "a list of modules": ["payload:Thing"],
    "a graph": "causal & payload:Thing",
    "python": "__import__('payload')",
    "a module as a backend": "module://payload",
    "a pickle": "data.pkl",
    "a library's builder": "pandas",
    "a folder whose README names an address": "hub",
    "a run": "nested",
    "a template": RUN_IT,
    "a shell command": "x; touch executed #$(touch executed)`touch executed`",
    "a reference": reference_address(),
    "a chained local file": "reference::refs.json",
    "a remote file": "https://127.0.0.1:9/a.tar",
    "a bucket": "s3://bucket/a.tar",
    "a repository": "owner/name",
    "an address of the hub": "hf://datasets/owner/name/a.tar",
    "a way out": "../../outside/victim",
    "a path": "victims/page",
    "an absolute path": "/OUTSIDE/victim",
}
"""Values that are put into a key. `/OUTSIDE` is replaced by a folder outside the home of the judge."""
BASES = {"lm": ("text", "lm"), "sensor": ("image", "kind")}
"""The runs that are changed, each with the names of one input and one task."""


class Explodes:
    """A pickle of this object writes the file `executed` when it is loaded."""

    def __reduce__(self) -> tuple:
        return exec, ("open('executed', 'w').close()",)


@dataclass(frozen=True)
class Case:
    """One payload in one key, and one command that reads the run."""

    key: Key
    payload: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key} = {self.payload}, chopmix {' '.join(self.words)}"


@dataclass(frozen=True)
class WordCase:
    """A payload as one word of a command line."""

    payload: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.payload}: chopmix {' '.join(self.words)}"


@dataclass(frozen=True)
class LinkCase:
    """A run whose files all have a second hard link in another folder, and one command that reads the run."""

    base: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"hard links, {self.base}: chopmix {' '.join(self.words)}"


AnyCase = Case | WordCase | LinkCase | FileCase


def all_cases() -> list[AnyCase]:
    """Every key with every payload and every command that reads a run, and all cases of other hostile files."""
    words = [text for text in PAYLOADS.values() if isinstance(text, str)]
    return [
        *(Case(*each) for each in itertools.product(free_keys(), PAYLOADS, run_lines())),
        *(WordCase(*each) for each in itertools.product([*words, *NAMES], payload_lines())),
        *(LinkCase(*each) for each in itertools.product(BASES, run_lines())),
        *file_cases(),
    ]


def merged(base: Any, change: Any) -> Any:
    """A tree with changes merged into it; a part (a mapping with `use`) replaces the old value."""
    if isinstance(base, dict) and isinstance(change, dict) and "use" not in change:
        return base | {key: merged(base.get(key), value) for key, value in change.items()}
    return change


# ---------------------------------------------------------------------------------------------------------------- runs


def base_runs(judge: Judge) -> dict[str, dict[str, bytes]]:
    """The files of the trained runs, by the name of their scene; to be called in the home of the judge."""
    runs = {}
    for name in BASES:
        folder = judge.folder()
        settings = {"out": "run", "checkpoints": {"every": 2}, "logging": {"tensorboard": False}}
        (folder / "base.yaml").write_text(dumped({**SCENES[name], **settings}))
        command("train", "base.yaml")
        command("compare", "run")  # creates the list of fonts once
        files = [file for file in sorted(folder.rglob("*")) if file.is_file() and "cache" not in file.parts]
        runs[name] = {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
    return runs


def build(case: AnyCase, runs: dict[str, dict[str, bytes]], judge: Judge, outside: Path) -> tuple[str, ...]:
    """Write the files of a case into an empty folder. Returns the command line."""
    folder = judge.folder()
    (folder / "payload.py").write_bytes(b"open('executed', 'w').close()\n")
    if isinstance(case, Case):
        write_files(folder, files_of(case, runs, outside))
        return case.words
    files = runs[case.base if isinstance(case, LinkCase) else "sensor"]
    if isinstance(case, LinkCase):
        write_files(folder, files | {f"run/{name}": b"mine\n" for name in IN_PLACE})
        link_files(folder / "run", folder / "victims")
    else:
        write_files(folder, files | photos("b") | (case.files() if isinstance(case, FileCase) else {}))
    if isinstance(case, WordCase):
        return tuple(word.replace("{payload}", case.payload.replace("/OUTSIDE", str(outside))) for word in case.words)
    return case.line() if isinstance(case, FileCase) else case.words


def files_of(case: Case, runs: dict[str, dict[str, bytes]], outside: Path) -> dict[str, bytes]:
    """The files of a run with a payload in one key, and all files that payloads name."""
    files = dict(runs[case.key.base])
    nested = {name: content for name, content in runs["lm"].items() if name.startswith("run/")}
    tree = yaml.safe_load(nested["run/config.yaml"])
    tree["model"]["position"] = {"use": "payload:Thing"}
    nested["run/config.yaml"] = dumped(tree).encode()
    source, task = BASES[case.key.base]
    for place in ("nested", f"run/assets/{source}/run", f"run/assets/task-{task}/x/run"):
        files |= {f"{place}/{name.removeprefix('run/')}": content for name, content in nested.items()}
    tree = yaml.safe_load(files["run/config.yaml"])
    value = json.loads(json.dumps(PAYLOADS[case.payload]).replace("/OUTSIDE", str(outside)))
    change = case.key.put(value)
    for section, name, old_name in (("inputs", source, "image"), ("tasks", task, "lm")):
        if isinstance(change.get(section), dict) and old_name in change[section]:
            change[section] = {name: change[section][old_name]}
    files["run/config.yaml"] = dumped(merged(tree, change)).encode()
    files["hub/README.md"] = (
        f"---\nconfigs:\n- config_name: a\n  data_files: {json.dumps(reference_address())}\n---\n".encode()
    )
    files["hub/train.csv"] = b"text\nchop\n"
    files["refs.json"] = json.dumps({"version": 1, "gen": [{"key": RUN_IT, "url": "u", "dimensions": {}}]}).encode()
    files |= dict.fromkeys(("data.pkl", "train.pkl", "hub/train.pkl"), pickle.dumps(Explodes()))
    files["victims/page.html"] = files["victims/page"] = b"mine"
    return files


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder. Names that no file can have are skipped."""
    for name, content in files.items():
        with suppress(OSError):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    (folder / "output").mkdir()


OUTPUTS = ("run/", "cache/", "output/", "examples/", "compare.png", "__pycache__/")
"""The paths that a command may write below its working folder."""


def run_case(case: AnyCase, runs: dict[str, dict[str, bytes]], judge: Judge, outside: Path) -> None:
    """Run one case. Raises a Complaint if it executed code, wrote to another folder or opened a connection."""
    words = build(case, runs, judge, outside)
    folder = judge.case
    before = contents(folder)
    try:
        with suppress(
            *([Steered] if isinstance(case, Case | LinkCase) else [])
        ):  # a random model may write such characters
            judge.check("payloads", lambda: command(*words), str(case))
        if (written := folder / "output" / "new.yaml").exists():  # is a trusted file of the user
            judge.check("payloads", lambda: command("train", str(written), "--dry-run"), str(case))
    finally:
        after = contents(folder)
        (judge.home / "executed").unlink(missing_ok=True)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    if changed or any(outside.iterdir()):
        raise WroteOutside(f"{case}: {', '.join(sorted(changed)) or [*outside.iterdir()]}")


def contents(folder: Path) -> dict[str, bytes]:
    """The contents of the files that no command may change."""
    names = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in names.items() if not name.startswith(OUTPUTS)}


# -------------------------------------------------------------------------------------------------------- as a program


def main() -> int:
    """Run all parts that have no row yet, or only one part. Returns 1 if a case failed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, default=20, metavar="N", help="in how many parts all cases are tried")
    parser.add_argument("--only", type=int, metavar="K", help="try this part alone, 0 to N - 1; no row is kept")
    options = parser.parse_args()
    parts = range(options.parts) if options.only is None else [options.only]
    completed = {row["part"] for row in read_results("payloads") if row["parts"] == options.parts and not row["failed"]}
    failed = 0
    for part in parts:
        if options.only is not None or part not in completed:
            row = {"part": part, "parts": options.parts, **tried(part, options.parts)}
            failed += row["failed"]
            print(f"part {part} of {options.parts}: {row['cases']:,} cases, {row['failed']} failed", flush=True)
            if options.only is None:
                write_results("payloads", [row])
    return bool(failed)


def tried(part: int, parts: int) -> dict[str, Any]:
    """Run one part of all cases. Returns the number of cases, the number of failures and the seconds."""
    cases = all_cases()
    random.Random(0).shuffle(cases)
    home = Path(tempfile.mkdtemp(prefix="chopmix-payloads-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    outside = Path(tempfile.mkdtemp(prefix="chopmix-outside-"))
    (home / "home").mkdir()
    judge, failed, start = Judge(home / "home"), 0, time.monotonic()
    write_data(judge.home / "data")
    with at_home(judge.home):
        runs = base_runs(judge)
        for case in cases[part::parts]:
            try:
                run_case(case, runs, judge, outside)
            except Exception as error:
                failed += 1
                print(f"{case}\n    {type(error).__name__}: {error}", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(outside, ignore_errors=True)
    return {"cases": len(cases[part::parts]), "failed": failed, "seconds": round(time.monotonic() - start, 1)}


if __name__ == "__main__":
    sys.exit(main())
