"""The command line. Every other file of this folder but `options.py` is one command:

    HELP                  what `chopmix --help` says of it
    add_options(command)  its part of the parser
    run(options)          does it; gives the exit status, None for 0

For `--help` all of them are read, but nothing else: what a command imports (torch among it) is imported when it runs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..tokenizers.files.printing import printable

ORDER = (
    "train",
    "generate",
    "predict",
    "evaluate",
    "embed",
    "inspect",
    "examples",
    "compare",
    "transcribe",
    "import",
    "export",
    "upgrade",
    "schema",
)
"""The order in which `--help` lists commands; those that are not here follow by their names."""

FLAGS = {
    "": ("out",), "data": ("dataset",), "model": ("depth", "width", "heads", "context"),
    "training": ("steps", "seed", "learning_rate", "precision", "device", "samples_per_step", "tokens_per_step"),
}  # fmt: skip
"""Keys of a YAML, by section, that are often written as flags."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Gives 0, or 2 for a mistake of the user's, 1 for a failure of the machine's (a full disk)."""
    options = parse(arguments)
    try:
        return options.verb.run(options) or 0
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:  # while a run trains, Ctrl-C is heard by the loop, which saves
        print("\nstopped", file=sys.stderr)
        return 130
    except Exception as error:
        return tell(error)


def tell(error: Exception) -> int:
    """Say an error in one sentence (under torchrun the first process that has one does), and give the exit status. What
    is no mistake of the user's and no failure of the machine's is raised again."""
    from ..data.processes import ElsewhereError, leave, speaks_of_failure
    from ..experiment.settings.document import ConfigError
    from ..models.contract import ContractError

    known = isinstance(error, ValueError | OSError | ConfigError | ContractError | MemoryError)
    lost = "RANK" in os.environ and isinstance(error, RuntimeError)  # of the connection to a process that ended
    if os.environ.get("CHOPMIX_TRACEBACK") or not (known or lost):
        speaks_of_failure()
        raise error
    status = 1 if isinstance(error, OSError | MemoryError) and not isinstance(error, FileNotFoundError) else 2
    if not isinstance(error, ElsewhereError) and speaks_of_failure():
        message = error.strerror if isinstance(error, OSError) and not error.filename and error.strerror else error
        who = f"process {os.environ['RANK']}: " if os.environ.get("RANK", "0") != "0" else ""
        told = "memory is used up" if isinstance(error, MemoryError) else first_line(str(message)) if lost else message
        print(f"{chr(10) * sys.stdout.isatty()}{who}{printable(str(told))}", file=sys.stderr, flush=True)
    return leave(status)


def first_line(text: str) -> str:
    """The first line of a message that goes on with what only programmers read."""
    return text.strip().partition("\n")[0]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of one command; `key=value` may also stand behind flags, where argparse alone would not take it."""
    root = parser()
    options, rest = root.parse_known_args(arguments)
    wrong = [word for word in rest if word.startswith("-") or not hasattr(options, "overrides")]
    if wrong:
        root.error(
            f"unrecognized arguments: {' '.join(wrong)}{meant(wrong, rest) if hasattr(options, 'overrides') else ''}"
        )
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def meant(wrong: Sequence[str], rest: Sequence[str]) -> str:
    """What to say to `--steps 300`, where `training.steps=300` is written."""
    flag, _, value = wrong[0].removeprefix("--").partition("=")
    following = rest[rest.index(wrong[0]) + 1 :]
    value = value or (following[0] if following and not following[0].startswith("-") else "VALUE")
    name = {"lr": "learning_rate", "bs": "batch_size"}.get(flag, flag).replace("-", "_")
    if name == "batch_size":
        return f"; did you mean training.samples_per_step={value} (or training.tokens_per_step)?"
    for section, keys in FLAGS.items():
        if name in keys:
            return f"; did you mean {f'{section}.' * bool(section)}{name}={value}?"
    return "; settings are written KEY=VALUE, such as training.steps=500"


def verbs() -> dict[str, Any]:
    """The commands' modules by name. A file may add `_model` where the name alone is Python's own (`import`,
    `inspect`)."""
    stems = {file.stem for file in Path(__file__).parent.glob("*.py")} - {"cli", "options"}
    found = {stem.removesuffix("_model"): importlib.import_module(f".{stem}", __package__) for stem in sorted(stems)}
    return {
        name: found[name] for name in sorted(found, key=lambda name: (name not in ORDER, [*ORDER, name].index(name)))
    }


class Parser(argparse.ArgumentParser):
    """Python's own, which shows what was given as it may be shown."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    root = Parser(
        prog="chopmix",
        description="Chop up everything and throw it into the mix: train and use one transformer for every modality.",
        epilog="CHOPMIX_DATA names the folder with data sets; CHOPMIX_TRACEBACK=1 shows where an error came from.",
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, verb in verbs().items():
        command = commands.add_parser(name, help=verb.HELP)
        verb.add_options(command)
        command.set_defaults(verb=verb)
    return root


if __name__ == "__main__":
    sys.exit(main())
