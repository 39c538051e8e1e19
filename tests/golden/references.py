"""References of every configuration: texts that a change of the structure must not change.

For each YAML in `configs/`: the resolved tree, the text of a dry run with few samples in a step, the names and shapes
of the weights, and the names of the metrics. Also the JSON schema, and the messages that tests expect.
`references.json` has a digest of each text; for a YAML whose data are missing, it is the digest of the error message.

    python tests/golden/references.py                 # compare with references.json, print what differs
    python tests/golden/references.py --texts DIR     # also write the texts, so that `diff -r` shows each change
    python tests/golden/references.py --record        # keep the digests as the new references
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_name("references.json")
CONFIGS = sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / "configs").rglob("*.yaml"))
MACHINE = re.compile(r"peak memory of the process [\d.]+ \w+|/\S*/chopmix-\S+")
"""The parts of the text of a dry run that depend on the machine."""


SLOW = ("configs/decision/babyai_boss_gpu.yaml",)
"""Configurations whose data take longer than ten minutes to record: only their resolved tree is compared."""


def main() -> int:
    """Compute all texts and compare their digests; returns 1 if one differs."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--texts", type=Path, metavar="DIR", help="a folder for the texts")
    options.add_argument("--record", action="store_true", help="keep the digests as the new references")
    options.add_argument("--only", default="", metavar="WORD", help="only configurations whose names contain it")
    options.add_argument("--jobs", type=int, default=2, metavar="N", help="the number of processes (default: 2)")
    options.add_argument("--of", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.of:
        print(json.dumps(texts_of(chosen.of)))
        return 0
    digests: dict[str, str] = {}
    names = [name for name in ["schema", "messages", *CONFIGS] if chosen.only in name]
    with ThreadPoolExecutor(chosen.jobs) as pool:
        for name, texts in zip(names, pool.map(computed, names), strict=True):
            for kind, text in texts.items():
                key = f"{name}: {kind}"
                digests[key] = hashlib.sha256(text.encode()).hexdigest()[:16]
                if chosen.texts:
                    file = chosen.texts / name / f"{kind}.txt"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(text)
            print(name, flush=True)
    if chosen.record:
        others = json.loads(FILE.read_text()) if chosen.only else {}
        FILE.write_text(json.dumps(others | digests, indent=0, sort_keys=True) + "\n")
        return 0
    references = json.loads(FILE.read_text())
    different = [key for key in sorted(references | digests) if references.get(key) != digests.get(key)]
    different = [key for key in different if chosen.only in key]
    print(*(f"differs: {key}" for key in different), f"{len(digests)} texts, {len(different)} differ", sep="\n")
    return bool(different)


def computed(name: str) -> dict[str, str]:
    """The texts of a configuration, computed in a new process; of the schema; of the messages."""
    if name == "messages":
        return {"expected": "\n".join(expected_messages())}
    if name == "schema":
        return {"json": output("schema")}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1"}
    process = subprocess.run(
        [sys.executable, __file__, "--of", name], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if process.returncode:
        return {"error": process.stderr.strip().splitlines()[-1]}
    return json.loads(process.stdout.splitlines()[-1])


def texts_of(name: str) -> dict[str, str]:
    """The texts of a configuration."""
    from chopmix.experiment.settings.config import load_config

    config = load_config(name)
    tree = json.dumps(config.tree, indent=1)
    if name in SLOW:
        return {"tree": tree}
    few = (
        {"samples_per_step": 3}
        if config.training.samples_per_step
        else {"tokens_per_step": config.model.options["context"]}
    )
    few |= {"rows_per_micro_batch": "null", "compile": "false"}
    small = [*(f"training.{key}={value}" for key, value in few.items()), "data.workers=0"]  # auto measures time
    dry_run = output("train", name, "--dry-run", *small)
    metrics = output("train", name, "--dry-run", *small, "checkpoints.best=val/none")
    return {
        "tree": tree,
        "dry run": dry_run,
        "metrics": metrics,
        "weights": weights(name, small),
    }


def output(*arguments: str) -> str:
    """The standard output, standard error and exit status of a command, without texts that depend on the machine."""
    from chopmix.commands.cli import main as run

    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        status = run(list(arguments))
    text = f"{printed.getvalue()}\n--- standard error\n{errors.getvalue()}\n--- status {status}\n"
    return MACHINE.sub("...", text)


def weights(name: str, small: list[str]) -> str:
    """The names and shapes of a model's weights, one per line."""
    from dataclasses import replace

    from chopmix.data.processes import Processes
    from chopmix.experiment.assemble import assemble
    from chopmix.experiment.settings.config import load_config
    from chopmix.experiment.steps import counted
    from chopmix.files.reading import DataError
    from chopmix.training.progress import Progress

    config = load_config(name, small)
    with tempfile.TemporaryDirectory() as folder:
        try:
            known = counted(replace(config, out=Path(folder), logging=replace(config.logging, tensorboard=False)))
            model = assemble(known, Processes.start(), Progress(1, stream=io.StringIO())).model
        except (DataError, ValueError) as error:  # missing data, or too few samples in a step
            return f"{type(error).__name__}: {error}"
    return "".join(f"{key} {tuple(value.shape)}\n" for key, value in model.state_dict().items())


def expected_messages() -> list[str]:
    """The patterns of all `match=` in the tests, sorted."""
    patterns = []
    for file in sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "projects").rglob("*.py")]):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "match":
                patterns.append(ast.unparse(node.value))
    return sorted(patterns)


if __name__ == "__main__":
    sys.exit(main())
