"""The command line. Every other file of this folder, and of the `commands/` of projects, is one command, a module with:

    HELP                  the command's line in `chopmix --help`
    add_options(command)  adds its arguments to its parser
    AFTER                 of a project's command: the command that it follows in `chopmix --help`
    run(options)          runs it; gives the exit status, None for 0. An error is raised, and told by `tell`

All of them are imported for `--help`; torch, which takes seconds, only inside `run`.
Arguments that several commands share stand in `options/shared.py`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ..experiment.settings.hints import hint_for, missing_project
from ..files.plugins import modules_of
from ..files.printing import printable

ORDER = (
    "train", "generate", "predict", "evaluate", "embed", "inspect", "examples", "compare", "import", "export", "schema",
)  # fmt: skip
"""The order in which `--help` lists commands. The command of a project follows the one that its `AFTER` names."""

FLAGS = {
    "": ("out",), "data": ("dataset",), "model": ("depth", "width", "heads", "context"),
    "training": ("steps", "seed", "learning_rate", "precision", "device", "samples_per_step", "tokens_per_step"),
}  # fmt: skip
"""Keys of a YAML, by section, that users often mistake for flags (`--steps 300`); for the hint in the error."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, by default that of `sys.argv`. Gives the exit status: 0; 2 for a mistake of the user's; 1 for a
    failure of the machine's (a full disk) or samples that cannot be read; 130 or 143 where Ctrl-C or SIGTERM stopped
    it. Raises SystemExit(2) for arguments that cannot be parsed, other exceptions as `tell` does."""
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
    """Print an error in one sentence (under torchrun only in the first process that has one), and give the exit status,
    1 or 2. Raises errors again that are bugs, neither the user's mistake nor the machine's failure, and with
    CHOPMIX_TRACEBACK all errors."""
    from ..data.processes import ElsewhereError, leave, speaks_of_failure
    from ..experiment.settings.document import ConfigError
    from ..models.contract import ContractError

    known = isinstance(error, ValueError | OSError | ConfigError | ContractError | MemoryError)
    lost = "RANK" in os.environ and isinstance(error, RuntimeError)  # the connection to a process that ended
    if os.environ.get("CHOPMIX_TRACEBACK") or not (known or lost):
        speaks_of_failure()
        raise error
    status = 1 if isinstance(error, OSError | MemoryError) and not isinstance(error, FileNotFoundError) else 2
    if not isinstance(error, ElsewhereError) and speaks_of_failure():
        message = error.strerror if isinstance(error, OSError) and not error.filename and error.strerror else error
        who = f"process {os.environ['RANK']}: " if os.environ.get("RANK", "0") != "0" else ""
        told = "memory is used up" if isinstance(error, MemoryError) else message
        if lost:
            told = str(message).strip().partition("\n")[0]  # the rest is for programmers
        print(f"{chr(10) * sys.stdout.isatty()}{who}{printable(str(told))}", file=sys.stderr, flush=True)
    return leave(status)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of one command. `key=value` may also follow flags, which argparse alone does not accept. Raises
    SystemExit(2), with the message printed, for arguments that are unknown or missing."""
    root = parser()
    options, rest = root.parse_known_args(arguments)
    wrong = [word for word in rest if word.startswith("-") or not hasattr(options, "overrides")]
    if wrong:
        hint = meant(wrong, rest) if hasattr(options, "overrides") else ""
        root.error(f"unrecognized arguments: {' '.join(wrong)}{hint}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def meant(wrong: Sequence[str], rest: Sequence[str]) -> str:
    """The hint for an unknown flag (`wrong`, among all unparsed words `rest`): for `--steps 300` it is `; did you mean
    training.steps=300?`."""
    flag, _, value = wrong[0].removeprefix("--").partition("=")
    following = rest[rest.index(wrong[0]) + 1 :]
    value = value or (following[0] if following and not following[0].startswith("-") else "VALUE")
    name = {"lr": "learning_rate"}.get(flag, flag).replace("-", "_")
    if name in ("batch_size", "bs"):
        return f"; did you mean training.samples_per_step={value} (or training.tokens_per_step)?"
    if hint := hint_for(name):
        return f"; {hint}"
    for section, keys in FLAGS.items():
        if name in keys:
            return f"; did you mean {f'{section}.' * bool(section)}{name}={value}?"
    return "; settings are written KEY=VALUE, such as training.steps=500"


def verbs() -> dict[str, Any]:
    """The commands' modules by name, in the order of `--help`. A file adds `_model` where Python has the name itself:
    `import` is import_model.py, `inspect` is inspect_model.py."""
    files = {name.removesuffix("_model"): module for name, module in modules_of("commands").items() if name != "cli"}
    modules = {name: importlib.import_module(module) for name, module in files.items()}

    def place(name: str) -> tuple[int, bool, str]:
        after = getattr(modules[name], "AFTER", None)
        return ORDER.index(after or name), after is not None, modules[name].__name__

    return {name: modules[name] for name in sorted(modules, key=place)}


class Parser(argparse.ArgumentParser):
    """argparse's parser, with control characters made visible in its error messages, and the project that has a missing
    command."""

    def error(self, message: str) -> NoReturn:
        command = re.search(r"invalid choice: '(\w+)'", message)
        hint = f"; {missing}" if command and (missing := missing_project(command[1])) else ""
        super().error(printable(message + hint))


def parser() -> argparse.ArgumentParser:
    """The parser of all commands and their options."""
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
